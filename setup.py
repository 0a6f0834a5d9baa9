"""The compiled part of the build; everything declarative is in pyproject.toml.

Environment switches, each for a build of our own and none for a release:
FLATGRAD_DEBUG=1     assertions on, no optimisation, C line numbers
FLATGRAD_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer (gcc or clang)
FLATGRAD_COVERAGE=1  line counts for gcov
FLATGRAD_WERROR=1    warnings of the C compiler are errors
"""
import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


def switched_on(name):
    return os.environ.get(f"FLATGRAD_{name}", "0") not in ("", "0")


GNU = ["-std=c11", "-ffp-contract=off", "-Wall", "-Wextra"]
MSVC = ["/std:c11", "/fp:precise", "/W3"]
EXTRA = []
LINK = []
if switched_on("WERROR"):
    GNU += ["-Werror"]
if switched_on("SANITIZE"):
    EXTRA += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
              "-fno-omit-frame-pointer", "-g"]
    LINK += ["-fsanitize=address,undefined"]
if switched_on("COVERAGE"):
    EXTRA += ["--coverage"]
    LINK += ["--coverage"]
if switched_on("DEBUG") or switched_on("SANITIZE"):
    EXTRA += ["-O1", "-g", "-UNDEBUG"]
else:
    GNU += ["-O3"]
    MSVC += ["/O2"]


class build(build_ext):
    """build_ext with the flags that the compiler at hand understands."""

    def build_extensions(self):
        flags = MSVC if self.compiler.compiler_type == "msvc" else GNU
        for extension in self.extensions:
            extension.extra_compile_args = flags + EXTRA
            extension.extra_link_args = LINK
        super().build_extensions()


core = Extension(
    "flatgrad._core",
    sources=["src/flatgrad/_core.pyx"] + sorted(p.as_posix() for p in Path("csrc").glob("*.c")),
    include_dirs=["csrc"],
    depends=sorted(p.as_posix() for p in Path("csrc").glob("*.[hd]*")),
    # A heap type: methods can be added to Value from Python, and it can be subclassed.
    define_macros=[("CYTHON_USE_TYPE_SPECS", "1")],
)

setup(
    cmdclass={"build_ext": build},
    ext_modules=cythonize(
        [core],
        compiler_directives={
            "language_level": "3",
            "c_api_binop_methods": True,  # one slot for v + x and x + v, as in C
            "embedsignature": True,
        },
    ),
)
