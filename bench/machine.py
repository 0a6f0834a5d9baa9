"""The machine, the versions and the compilers of a run, and whether packages are those that `peers.txt` pins."""
import ast
import functools
import gc
import os
import platform
import re
import sysconfig
import threading
from datetime import datetime, timezone
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import flatgrad

from bench import ONE_THREAD
from bench.runner import CLOCK
from flatgrad import _core
from flatgrad.cli.info import processor

__all__ = ["PACKAGES", "about", "build", "pinned", "python_build"]

PACKAGES = ("flatgrad", "micrograd", "numpy", "torch", "jax")

SCHEMA = 1   # of the JSON; incremented when readers have to change

HERE = Path(__file__).resolve().parent

# What prints or compares figures does not change them.
OF_OUTPUT = {"__main__", "report", "page", "comparison", "machine", "instructions", "counts"}


def usable_cores():
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def package_version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def pinned():
    """The version of each package that `peers.txt` pins."""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", (HERE / "peers.txt").read_text("utf-8"), re.MULTILINE))


def python_build():
    """How this Python was compiled: its compiler, and its options that change the code, without places of a machine."""
    options = re.findall(r"--(?:enable|disable|with|without)-[\w-]+(?![\w=-])",
                         sysconfig.get_config_var("CONFIG_ARGS") or "")
    return ", ".join([platform.python_compiler(), *sorted(set(options))])


@functools.cache
def build():
    """How the core was compiled.

    Returns
    -------
    dict
        ``compiler``: its own words, from the compiled file, or None where the file has none; ``assertions``: whether
        they are on, as in a build for debugging; ``flags``: those of Python and then those of `setup.py`, or None where
        there is none; ``levels``: the levels of kernels that can run here.
    """
    compiled = Path(_core.__file__).read_bytes()
    compilers = sorted({found.decode() for start in (rb"GCC: \(", rb"clang version ")   # plain letters are found fast
                        for found in re.findall(rb"(" + start + rb"[\x20-\x7e]+)\x00", compiled)})
    setup = HERE.parent / "setup.py"
    flags = None
    if setup.exists():
        lists = [node.value for node in ast.walk(ast.parse(setup.read_text("utf-8")))
                 if isinstance(node, (ast.Assign, ast.AugAssign)) and isinstance(node.value, ast.List)
                 and "GNU" in {target.id for target in getattr(node, "targets", [getattr(node, "target", None)])
                               if isinstance(target, ast.Name)}]
        ours = [flag for each in lists for flag in ast.literal_eval(each) if flag != "-Werror"]
        flags = " ".join([*(sysconfig.get_config_var("CFLAGS") or "").split(), *ours])
    assertions = b"__assert_fail" in compiled or b"__assert_rtn" in compiled
    return {"compiler": "; ".join(compilers) or None, "assertions": assertions,
            "flags": flags, "levels": _core._kernel_levels()}


def sources():
    """A short hash of the code of the benchmarks, without what only prints: figures of other code are of other work."""
    hashed = sha256()
    for path in sorted([*HERE.glob("*.py"), *HERE.glob("rivals/*.c")]):
        if path.stem not in OF_OUTPUT:
            hashed.update(path.name.encode() + b"\0" + path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return hashed.hexdigest()[:16]


def about():
    """The machine, the versions and the conditions of this run.

    Returns
    -------
    dict
        Values that JSON can hold.
    """
    return {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "cpu": processor(),
            "cores": os.cpu_count(),
            "usable_cores": usable_cores(),
            "os": platform.platform(),
        },
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "compiler": platform.python_compiler(),
            **{name: package_version(name) for name in PACKAGES},
        },
        "python_build": python_build(),
        "core": build(),
        "isa": flatgrad.stats()["isa"],
        "threads": {
            "python": threading.active_count(),
            **{name: os.environ.get(name) for name in ONE_THREAD},
        },
        "clock": CLOCK,
        "garbage_collector": gc.isenabled(),
        "sources": sources(),
    }
