"""setup.py's choices for each platform, by a compiler that only keeps what it is told; and tests/platforms.py, as far
as what it needs is installed."""
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = ROOT / "tests" / "platforms.py"
pytestmark = pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="there are no sources")


# ---- setup.py ----

class Platform(NamedTuple):
    """A platform as distutils calls it, its compiler, and what setup.py is to make of both."""

    name: str
    msvc: bool = False
    refused: tuple = ()     # flags that the compiler does not take
    needs: tuple = ()       # flags without which it computes with too many digits
    levels: tuple = ()      # of kernels, besides the plainest
    bits: int = 64


ARCH = ("-mavx2", "-mavx512f", "-msse2", "-mfpmath=sse")   # which compilers for other processors refuse
PLATFORMS = [
    Platform("linux-x86_64", levels=("AVX2", "AVX512")),
    Platform("linux-x86_64", refused=("-mavx512f",), levels=("AVX2",)),
    Platform("linux-i686", needs=("-msse2", "-mfpmath=sse"), bits=32),
    Platform("linux-aarch64", refused=ARCH),
    Platform("linux-s390x", refused=ARCH, needs=("-fexcess-precision=fast",)),
    Platform("macosx-10.13-x86_64", refused=("-fexcess-precision=fast",), levels=("AVX2", "AVX512")),
    Platform("macosx-11.0-arm64", refused=(*ARCH, "-fexcess-precision=fast")),
    Platform("macosx-10.13-universal2", refused=("-fexcess-precision=fast",)),
    Platform("win-amd64", msvc=True, levels=("AVX2", "AVX512")),
    Platform("win-arm64", msvc=True),
    Platform("win32", msvc=True, bits=32),
]
platforms = pytest.mark.parametrize("platform", PLATFORMS, ids=lambda p: p.name + "".join(["-without-all"] * (
    "-mavx512f" in p.refused and bool(p.levels))))


@pytest.fixture
def built(monkeypatch, tmp_path):
    """What setup.py has compiled for a platform: source, flags and macros; nothing is compiled or linked."""
    pytest.importorskip("Cython")
    setuptools = pytest.importorskip("setuptools")
    from setuptools.command.build_ext import build_ext
    from setuptools.errors import CompileError
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **given: None)
    monkeypatch.setattr(build_ext, "build_extensions", lambda self: None)
    for name in ("DEBUG", "SANITIZE", "COVERAGE", "WERROR", "QUICK", "OBJECTS"):
        monkeypatch.delenv(f"FLATGRAD_{name}", raising=False)
    names = runpy.run_path("setup.py")

    def build(platform, switched=True):
        made = []
        monkeypatch.setenv("FLATGRAD_32BIT", str(int(switched and platform.bits == 32)))

        class Compiler:
            compiler_type, include_dirs, compiler_so = "msvc" if platform.msvc else "unix", [], ["cc"]

            def compile(self, sources, output_dir=None, macros=(), include_dirs=(), extra_postargs=()):
                source, = sources
                if any(flag in platform.refused for flag in extra_postargs):
                    raise CompileError(source)
                if source.endswith("wide.c") and platform.bits == 32:
                    raise CompileError(source)
                if source.endswith("exact.c") and not set(platform.needs) <= set(extra_postargs):
                    raise CompileError(source)
                if not source.startswith(tmp_path.as_posix()):   # not a probe
                    Path(output_dir).mkdir(parents=True, exist_ok=True)
                    made.append((source, list(extra_postargs), dict(macros)))
                return [f"{output_dir}/{len(made)}.o"]

        command = names["build"](setuptools.Distribution({"name": "flatgrad"}))
        base = command.get_finalized_command("build")
        command.plat_name, command.compiler, command.build_temp = platform.name, Compiler(), tmp_path.as_posix()
        command.extensions, base.build_base = [names["core"]], tmp_path.as_posix()
        command.build_extensions.__globals__["cythonize"] = lambda extensions, **_: extensions
        command.build_extensions()
        return made
    return build


KERNELS = {"csrc/kernels.c", "csrc/kernels32.c"}


@platforms
def test_every_source_is_compiled_once_and_kernels_for_each_level(platform, built):
    made = built(platform)
    sources = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("csrc/*.c")}
    expected = sorted([*sources, *sorted(KERNELS) * len(platform.levels), "src/flatgrad/_core.pyx"])
    assert sorted(source for source, _, _ in made if not source.endswith("_core.pyx")) == expected[:-1]
    for source in KERNELS:
        levels = [name for s, _, macros in made if s == source for name in macros if name.startswith("FG_ISA_")]
        assert sorted(levels) == sorted(f"FG_ISA_{level}" for level in platform.levels)   # several compilers at once


@platforms
def test_who_chooses_the_level_knows_which_there_are(platform, built):
    for source, _, macros in built(platform):
        if source == "csrc/cpu.c":
            assert {name for name in macros if name.startswith("FG_HAVE_")} == {f"FG_HAVE_{x}" for x in platform.levels}


@platforms
def test_nothing_fuses_or_reorders_and_numbers_have_the_digits_of_their_type(platform, built):
    for source, flags, macros in built(platform):
        if platform.msvc:
            assert {"/std:c11", "/fp:precise", "/O2"} <= set(flags)
            assert not [flag for flag in flags if flag.startswith("-")]
        else:
            assert {"-std=c11", "-ffp-contract=off", "-O3", *platform.needs} <= set(flags)
            assert not {"-ffast-math", "-Ofast", "-march=native", "-funsafe-math-optimizations"} & set(flags)
            assert ("-fno-trapping-math" in flags) == (source in KERNELS)
            exact = {"-msse2", "-mfpmath=sse", "-fexcess-precision=fast"}
            assert exact & set(flags) == set(platform.needs)
        wide = [flag for flag in flags if "avx" in flag.lower()]
        assert bool(wide) == any(name.startswith("FG_ISA_") for name in macros)
        if wide:   # MSVC has a flag for all of a level, and FMA with AVX2
            level, = (name.removeprefix("FG_ISA_") for name in macros if name.startswith("FG_ISA_"))
            assert (f"/arch:{level}" if platform.msvc else "-mfma") in flags


@platforms
def test_32_bits_are_refused(platform, built):
    from setuptools.errors import CompileError
    if platform.bits == 64:
        assert built(platform, switched=False)
        return
    with pytest.raises(CompileError, match="^flatgrad: expected a Python and a C compiler of 64 bits, got 32 bits$"):
        built(platform, switched=False)


def test_a_compiler_that_computes_with_more_digits_is_refused(built):
    from setuptools.errors import CompileError
    with pytest.raises(CompileError, match=r"expected one that computes doubles as doubles \(FLT_EVAL_METHOD 0\).*"
                                           "-msse2 -mfpmath=sse, -fexcess-precision=fast$"):
        built(Platform("linux-i486", needs=("-mthere-is-none",)))


@pytest.mark.skipif(sys.platform != "linux", reason="the compiler of this machine is asked")
@pytest.mark.parametrize("compiler, expected", [
    ("gcc -m64", []), ("gcc -m32", ["-msse2", "-mfpmath=sse"]), ("s390x-linux-gnu-gcc", ["-fexcess-precision=fast"]),
    ("aarch64-linux-gnu-gcc", [])])
def test_real_compilers_need_what_setup_py_says(compiler, expected, monkeypatch, tmp_path):
    pytest.importorskip("Cython")
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **given: None)
    names = runpy.run_path("setup.py")
    (tmp_path / "exact.c").write_text(names["PROBE_EXACT"])

    def takes(flags):
        return subprocess.run([*compiler.split(), "-std=c11", *flags, "-c", "exact.c"], cwd=tmp_path,
                              capture_output=True).returncode == 0
    try:
        (tmp_path / "plain.c").write_text("int plain;\n")
        if subprocess.run([*compiler.split(), "-c", "plain.c"], cwd=tmp_path, capture_output=True).returncode:
            pytest.skip(f"{compiler} compiles nothing")
    except OSError:
        pytest.skip(f"no {compiler}")
    assert next(flags for flags in names["EXACT"] if takes(flags)) == expected


# ---- tests/platforms.py ----

def run(*arguments):
    environ = {**os.environ, "PYTHONPATH": ""}
    return subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True, env=environ)


def test_without_a_part_it_says_what_is_missing():
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(": ", 1) for line in done.stdout.rstrip().split("\n"))
    assert list(lines) == ["aarch64", "s390x", "i386", "targets", "msvc"]
    assert all(said == "can run" or said.startswith("needs ") for said in lines.values())


def part(name, *arguments):
    done = run(name, *arguments)
    if ": needs " in done.stderr:
        pytest.skip(done.stderr.strip())
    return done


def test_other_systems_have_no_warnings():
    done = part("targets", "x86_64-windows-gnu", "aarch64-macos")
    assert done.returncode == 0, done.stderr
    count = len(list(ROOT.glob("csrc/*.c")))
    assert f"aarch64-macos: {count} files without warnings" in done.stdout
    assert "x86_64-windows-gnu, AVX512: 3 files without warnings" in done.stdout


def test_an_unknown_target_is_an_error_that_names_those_there_are():
    done = part("targets", "x86_64-windows")
    assert done.returncode == 1 and "expected some of x86_64-windows-gnu, " in done.stderr
