"""The compiled part of the build; everything declarative is in pyproject.toml.

Environment switches, each for a build of our own and none for a release:
FLATGRAD_DEBUG=1     assertions on, no optimisation, C line numbers
FLATGRAD_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer (gcc or clang)
FLATGRAD_COVERAGE=1  line counts for gcov
FLATGRAD_WERROR=1    warnings of the C compiler are errors
"""
import os
import re
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
              "-fno-wrapv", "-fno-omit-frame-pointer", "-g"]  # Python's own flags have -fwrapv
    LINK += ["-fsanitize=address,undefined"]
if switched_on("COVERAGE"):
    EXTRA += ["--coverage"]
    LINK += ["--coverage"]
if switched_on("DEBUG") or switched_on("SANITIZE"):
    EXTRA += ["-O1", "-g", "-UNDEBUG"]
else:
    GNU += ["-O3"]
    MSVC += ["/O2"]


def update_stub(table=Path("csrc/ops.def"), stub=Path("src/flatgrad/_core.pyi")):
    """Rewrite, if out of date, the blocks of the type stub that follow from the public rows."""
    rows = [(kind, name, {"UNARY": "x", "BINARY": "x, y"}.get(kind, operands))
            for kind, name, operands in re.findall(
                r'^FG_(UNARY|BINARY|TERNARY)\(\w+, (\w+), (?:"([^"]*)", )?1,',
                table.read_text("utf-8"), re.MULTILINE)]
    names = ", ".join(f'"{name}"' for _, name, _ in rows)
    blocks = iter([
        f"__all__ += [{names}]\n",
        "".join(f"    def {name}(self) -> Value: ...\n" for kind, name, _ in rows if kind == "UNARY"),
        "".join(f"def {name}({operands.replace(',', ': _Operand,')}: _Operand, /) -> Value: ...\n"
                for _, name, operands in rows),
    ])
    text = stub.read_text("utf-8")
    new = re.sub(r"(# <ops\.def>\n).*?( *# </ops\.def>\n)",
                 lambda block: block[1] + next(blocks) + block[2], text, flags=re.DOTALL)
    if new != text:
        stub.write_text(new, "utf-8", newline="\n")


class build(build_ext):
    """build_ext with the flags that the compiler at hand understands."""

    def finalize_options(self):
        super().finalize_options()
        self.force = True  # flags are not among what makes it build again

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
    libraries=[] if os.name == "nt" else ["m"],  # not by way of what Python links
    depends=sorted(p.as_posix() for p in Path("csrc").glob("*.[hd]*")),
    # A heap type: methods can be added to Value from Python, and it can be subclassed.
    define_macros=[("CYTHON_USE_TYPE_SPECS", "1")],
)

update_stub()
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
