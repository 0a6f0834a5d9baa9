"""What the leak sanitizer says, and that `python3 dev.py sanitize` would fail by it."""
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

DEV = Path(__file__).resolve().parent.parent / "dev.py"
pytestmark = pytest.mark.skipif(not DEV.exists(), reason="dev.py is not part of an installed package")

REPORT = """
=================================================================
==17==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 4706 byte(s) in 2 object(s) allocated from:
    #0 0x7fde238b89cf in __interceptor_malloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:69
    #1 0x7fde233c6b17 in PyType_FromModuleAndSpec Objects/typeobject.c:3535

Indirect leak of 96 byte(s) in 1 object(s) allocated from:
    #0 0x7fde238b89cf in __interceptor_realloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:85
    #1 0x7fde233c6b17 in fg_mem_resize csrc/mem.c:30
    #2 0x7fde233c6b18 in __pyx_f_8flatgrad_5_core_reserve src/flatgrad/_core.c:3535

Direct leak of 64 byte(s) in 1 object(s) allocated from:
    #0 0x7fde238b89cf in __interceptor_calloc ../../../../src/libsanitizer/asan/asan_malloc_linux.cpp:77
    #1 0x7fde233c6b17 in __pyx_f_5numpy_6random_new numpy/random/mtrand.pyx.c:12

SUMMARY: AddressSanitizer: 4866 byte(s) leaked in 4 allocation(s).
"""

# Whoever forgets an array of the core: ten times, for the last address may still be in some register.
FORGETS = """if True:
    import ctypes, sys
    from flatgrad import _core
    core = ctypes.CDLL(_core.__file__)
    size = ctypes.c_size_t
    count = ctypes.create_string_buffer(64)
    core.fg_mem_init(count)
    for _ in range(10):
        array = ctypes.c_void_p()
        assert core.fg_mem_resize(count, ctypes.byref(array), size(0), size(5), size(8)) == 0
        if len(sys.argv) == 1:
            assert core.fg_mem_resize(count, ctypes.byref(array), size(5), size(0), size(8)) == 0
"""


@pytest.fixture(scope="module")
def leaks():
    """The function of dev.py."""
    spec = importlib.util.spec_from_file_location("dev", DEV)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.leaks


def test_leaks_that_have_a_frame_of_ours(leaks):
    (leak,) = leaks(REPORT)
    assert leak.startswith("Indirect leak of 96 byte(s)") and "csrc/mem.c:30" in leak
    assert leaks(REPORT.replace("csrc/mem.c", "mem.c").replace("src/flatgrad", "src/other")) == []


@pytest.mark.parametrize("report", [
    "==1==ERROR: AddressSanitizer: heap-use-after-free on address 0x1\n" + REPORT,
    "csrc/tape.c:3:4: runtime error: signed integer overflow\n",
    "==1==AddressSanitizer: failed to intercept something\n",
])
def test_other_reports_are_kept_whole(leaks, report):
    assert leaks(report) == [report.strip()]


@pytest.mark.skipif("libasan" not in os.environ.get("LD_PRELOAD", ""), reason="runs under `python3 dev.py sanitize`")
@pytest.mark.parametrize("forgets", [[], ["forget"]], ids=["all freed", "forgotten"])
def test_a_forgotten_array_is_a_leak(leaks, forgets, tmp_path):
    options = [part for part in os.environ["ASAN_OPTIONS"].split(":") if not part.startswith("log_path=")]
    subprocess.run([sys.executable, "-c", FORGETS, *forgets], check=True, timeout=300,
                   env={**os.environ, "ASAN_OPTIONS": ":".join([*options, f"log_path={tmp_path}/report"])})
    found = [leak for path in tmp_path.iterdir() for leak in leaks(path.read_text("utf-8"))]
    assert bool(found) == bool(forgets)
    if found:
        assert "10 object(s)" in found[0] and "fg_mem_resize" in found[0]
