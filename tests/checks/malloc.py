"""Let the C library's malloc, calloc and realloc fail, one call at a time, in our own code and in NumPy's.

    python tests/checks malloc                           every case, every allocation
    python tests/checks malloc --of flatgrad             our own code's alone
    python tests/checks malloc --of python               Python's, in functions of its own that our code calls
    python tests/checks malloc Tensor.sum "of replays"   these cases alone

The cases are those of `memory`, and "of ..." for each of `subjects`: programs, training, exports, files and so on.
For n = 0, 1, ... the n-th call of malloc, calloc or realloc by flatgrad's or NumPy's libraries fails, then in another
run all from the n-th on, in all threads, until none has failed. After each run the tape has to be sound, with as many
nodes as before, every operand has to have as many references as before, a step has happened as a whole or not at all,
and another run gives the numbers that it gave before. NumPy itself ends some calls without an error where an
allocation fails, of which Python makes a SystemError: that passes where NumPy's calls fail. Python's own code never
meets a failing call, so that this is for every version of Python. With ``--of python`` only the allocations fail of
functions of Python's C API that our code has called: no other code of Python's meets a failing one there, as it does
in `memory`.

It needs Linux with glibc, and a C compiler for malloc.c, which stands between these libraries and the C library's.
"""
import ctypes
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from checks import memory
from checks.limits import Unavailable

SHORT = 8.0   # seconds

SOURCE = Path(__file__).with_suffix(".c")
LIBRARY = "FLATGRAD_FAULTS"   # the environment variable with its path


def compiled(folder):
    """The path of the shim."""
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        raise Unavailable("needs Linux with glibc")
    compiler = next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))), None)
    if compiler is None:
        raise Unavailable("needs a C compiler")
    path = os.path.join(folder, "malloc.so")
    subprocess.run([compiler, "-O1", "-std=c11", "-Wall", "-Wextra", "-fno-builtin", "-fPIC", "-shared", str(SOURCE),
                    "-o", path], check=True)
    return path


def sanitized():
    """Whether this build has a sanitizer, which has a malloc of its own."""
    with open("/proc/self/maps") as file:
        return any("san.so" in line for line in file)


class Mallocs:
    """Calls of malloc and its like by flatgrad's and NumPy's libraries, as far as they are loaded."""

    def __init__(self, of=("flatgrad", "numpy")):
        self.library = ctypes.CDLL(os.environ[LIBRARY])
        self.library.faults_begin.argtypes = [ctypes.c_long] * 2
        self.library.faults_end.restype = ctypes.c_long
        import flatgrad
        import numpy

        folders = [os.path.dirname(module.__file__) for module in (flatgrad, numpy)
                   if module.__name__ in of]
        self.may_lose_errors = "numpy" in of
        found = 0
        pythons = [os.path.realpath(sys.executable), "libpython"]
        with open("/proc/self/maps") as file:
            for line in file:
                where, flags, _, _, _, *path = line.split(maxsplit=5)
                where = [ctypes.c_size_t(int(x, 16)) for x in where.split("-")]
                if path and "x" in flags and any(path[0].startswith(folder + os.sep) for folder in folders):
                    self.library.faults_of(*where)
                    found += 1
                elif "python" in of and path and "x" in flags and any(name in path[0] for name in pythons):
                    self.library.faults_through(*where)
        assert found >= len(folders)

    def begin(self, n, stop):
        self.library.faults_begin(n, stop)

    def end(self):
        return self.library.faults_end()


def options(parser):
    memory.options(parser)
    parser.add_argument("--of", choices=("flatgrad", "numpy", "both", "python"), default="both",
                        help="whose calls fail")


def run(limit, options):
    from checks.subjects import SUBJECTS

    if sanitized():
        raise Unavailable("needs a build without sanitizers")
    known = [*(f"of {name}" for name in SUBJECTS), *memory.CASES]
    names = options.cases or known
    unknown = [name for name in names if name not in known]
    stride = options.stride if options.stride is not None else 16 if limit.short else 1
    if unknown or stride < 1 or options.start < 0:
        raise SystemExit(f"no such cases: {unknown}" if unknown else "expected a stride of at least 1, from 0 on")
    if limit.short and not options.cases:   # others in each run
        names = names[limit.seed % 4::4]
    of = {"both": ("flatgrad", "numpy"), "python": ("flatgrad", "python")}.get(options.of, (options.of,))
    every = {"PYTHONMALLOC": "malloc"} if options.of == "python" else {}
    with tempfile.TemporaryDirectory() as folder:
        path = compiled(folder)
        points, failed = memory.sweep(names, stride, options.start,
                                      f"memory.child({{}}, lambda: malloc.Mallocs({of!r}))",
                                      LD_PRELOAD=path, **{LIBRARY: path}, **every)
    if failed:
        raise AssertionError("\n".join(failed))
    return f"{len(names)} cases, {points} points, no failures"
