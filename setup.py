"""The compiled part of the build; everything declarative is in pyproject.toml.

Environment switches, each for a build of our own and none for a release:
FLATGRAD_DEBUG=1     assertions on, no optimisation, C line numbers
FLATGRAD_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer (gcc or clang); =thread: ThreadSanitizer
FLATGRAD_COVERAGE=1  counts of lines and branches for gcov: no optimisation, no assertions; tests/branches.py reads them
FLATGRAD_WERROR=1    warnings of the C compiler are errors
FLATGRAD_QUICK=1     the border is compiled in less time, and takes more: to see that it compiles and works
FLATGRAD_32BIT=1     a build for a 32-bit Python, refused otherwise: Cython takes int64_t for a long, and cuts sums of
                     it and a Py_ssize_t to 32 bits
FLATGRAD_OBJECTS=FOLDER  where object files are kept, and what Cython generates; builds of several trees share it

And two for a release:
SOURCE_DATE_EPOCH=N  the bytes of the sdist, and of the wheel, follow from their sources: all files are of that second
FLATGRAD_REPOSITORY=https://...  where the repository is: the project's links, and those in README.md, lead there. An
                     sdist remembers it
"""
import copy
import gzip
import hashlib
import os
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist
from setuptools.errors import CompileError


def switched_on(name):
    return os.environ.get(f"FLATGRAD_{name}", "0") not in ("", "0")


GNU = ["-std=c11", "-ffp-contract=off", "-Wall", "-Wextra"]
MSVC = ["/std:c11", "/fp:precise", "/W3"]
EXTRA = []
LINK = []
BORDER = []   # the last flags for what Cython makes
if switched_on("WERROR"):
    GNU += ["-Werror"]
if os.environ.get("FLATGRAD_SANITIZE") == "thread":
    EXTRA += ["-fsanitize=thread", "-fno-omit-frame-pointer"]
    LINK += ["-fsanitize=thread"]
elif switched_on("SANITIZE"):
    EXTRA += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
              "-fno-wrapv", "-fno-omit-frame-pointer"]  # Python's own flags have -fwrapv
    LINK += ["-fsanitize=address,undefined"]
if switched_on("COVERAGE"):
    EXTRA += ["--coverage", "-O0", "-DNDEBUG", "-DFG_UNINLINED"]  # last, so they win
    LINK += ["--coverage"]
if switched_on("DEBUG") or switched_on("SANITIZE"):
    EXTRA += ["-O1", "-g" if switched_on("DEBUG") else "-g1", "-UNDEBUG"]   # -g1: the lines of a report, and no more
else:
    GNU += ["-O3", "-g0"]  # Python's own flags may have -g: nine tenths of the file, and a quarter of the time
    MSVC += ["/O2"]
if os.name != "nt" and switched_on("QUICK"):
    BORDER += ["-O0"]   # at -O1 gcc warns of what cannot be
elif os.name != "nt" and not any(map(switched_on, ("DEBUG", "SANITIZE", "COVERAGE"))):
    # Against -O3 a quarter less time to compile, a twelfth less of a file, and up to 0.5 % more instructions: what is
    # hot there is inlined by FG_ALWAYS, and the loops over numbers are in csrc/.
    BORDER += ["-O2"]


# Each of these is compiled once for every processor of the target and once for each of these, for
# GNU-like compilers and for MSVC; which of them runs is decided at import, in csrc/cpu.c.
KERNELS = ("csrc/kernels.c", "csrc/kernels32.c")
KERNELS_GNU = ["-fno-math-errno", "-fno-trapping-math"]  # no result depends on either; loops vectorise
LEVELS = {
    "AVX2": (["-mavx2", "-mfma"], ["/arch:AVX2"]),
    "AVX512": (["-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl",
                "-mprefer-vector-width=512"], ["/arch:AVX512"]),
}


# Added until the C compiler computes doubles and floats as such. 32-bit x86 has a unit that computes in 80 bits and
# rounds twice, and a second one that does not; GCC computes floats as doubles on s390x if it goes by the C standard.
EXACT = ([], ["-msse2", "-mfpmath=sse"], ["-fexcess-precision=fast"])
PROBE_EXACT = """#include <float.h>
#if FLT_EVAL_METHOD != 0
#error numbers have more digits than their type
#endif
int exact;
"""
PROBE_64BIT = "typedef char has_64_bits[sizeof(void *) == 8 ? 1 : -1];\nhas_64_bits wide;\n"


def update_stub(table=Path("csrc/ops.def"), stub=Path("src/flatgrad/_core.pyi")):
    """Rewrite, if out of date, the blocks of the type stub that follow from the public rows."""
    rows = [(name, (operands or "x").split(", "), kind, default if shape == "BINARY" and default != "NAN" else "", ufuncs)
            for shape, name, operands, kind, default, ufuncs in re.findall(
                r'^FG_(UNARY|BINARY|TERNARY)\(\w+, (\w+), (?:"([^"]*)", )?FG_(FUNCTION|ACTIVATION), (?:([\w.]+), )?'
                r'"[^"]*", (?:"([^"]*)", )?', table.read_text("utf-8"), re.MULTILINE)]

    def signature(operands, default, of, first=()):
        given = [*first, *(f"{name}: {of}" for name in operands[len(first):])]
        return ", ".join(given) + (f" = {default}" if default else ", /" if len(given) > len(first) else "")

    def methods(of, operand):
        for name, operands, _, default, ufuncs in rows:
            names = {name} if len(operands) == 1 or default else {*ufuncs.split()} - {name} if of == "Value" else ()
            for method in sorted(names):
                yield f"    def {method}({signature(operands, default, operand, ['self'])}) -> {of}: ...\n"

    quoted = [f'"{name}"' for name, *_ in rows]
    activations = [f'"{name}"' for name, _, kind, *_ in rows if kind == "ACTIVATION"]
    blocks = iter([
        f"__all__ += [{', '.join(quoted)}]\n",
        f'_Activation: TypeAlias = Literal["linear", {", ".join(activations)}]\n',
        "".join(methods("Value", "_Operand")),
        "".join(methods("Tensor", "_Matrix | _Operand")),
        "".join(f"@overload\ndef {name}({signature(operands, default, of)}) -> {result}: ...\n"
                for name, operands, _, default, _ in rows
                for of, result in (("_Operand", "Value"), ("_Matrix | _Operand", "Value | Tensor"))),
    ])
    text = stub.read_text("utf-8")
    new = re.sub(r"(# <ops\.def>\n).*?( *# </ops\.def>\n)",
                 lambda block: block[1] + next(blocks) + block[2], text, flags=re.DOTALL)
    if new != text:
        whole = stub.with_suffix(".pyi.new")
        whole.write_text(new, "utf-8", newline="\n")
        whole.replace(stub)  # in one go: never half of it


CYTHON = {
    "language_level": "3",
    "c_api_binop_methods": True,  # one slot for v + x and x + v, as in C
    "embedsignature": True,
    "embedsignature.format": "clinic",  # which inspect.signature reads
    "freethreading_compatible": False,  # a Python without the GIL turns it on to import it: the tape has no other lock
    "subinterpreters_compatible": "no",  # one tape for a process: see border/python.pxi
    "binding": False,  # Python itself then checks that self is of the class, which Cython's functions do not
}


def included(source, folders):
    """The texts of a source and of all files of ours that it includes, by path; and the names of what else it includes,
    which is not ours."""
    texts, of_others, waiting = {}, set(), [Path(source)]
    while waiting:
        path = waiting.pop()
        texts[path.as_posix()] = text = path.read_text("utf-8")
        for name in re.findall(r'^[ \t]*#[ \t]*include[ \t]*["<](.+?)[">]', text, re.MULTILINE):
            places = [path.parent / name, *(Path(folder, name) for folder in folders)]
            found = next((place for place in places if place.is_file()), None)
            if found is None:
                of_others.add(name)
            elif found.as_posix() not in texts:
                waiting.append(found)
    return sorted(texts.items()), of_others


def without_python_s(command):
    """A compiler's command without the warnings that a Python asks for, as ours are others, and with one way to say that
    integers wrap: so there is one for all Pythons."""
    wraps = {"-fwrapv", "-fno-strict-overflow"}
    kept = [part for part in command if part not in wraps and (not part.startswith("-W") or "," in part)]
    return [*kept, "-fwrapv"] if wraps & set(command) else kept


def swallowed(generated):
    """What functions of the border that cannot fail call that makes an object. Without memory for it Cython prints the
    exception, and the function goes on with a wrong number."""
    makes = r"\b(?:__Pyx_)?Py(?:Float_FromDouble|Long_From\w+|Long_\w+Obj\w*|Number_\w+)(?=\()"
    for function in Path(generated).read_text("utf-8").split("\n}\n"):
        name = re.search(r'__Pyx_WriteUnraisable\("([\w.]+)"', function)
        if name and (called := sorted(set(re.findall(makes, function)))):
            yield f"{name[1]}: {', '.join(called)}"


class build(build_ext):
    """build_ext with the flags that the compiler at hand understands, and with all processors.

    An object file is kept under the hash of all that it is made of, so a source is compiled again only if it, a header
    that it includes or a flag has changed. A source without Python.h does not care which Python it is compiled for.
    """

    def finalize_options(self):
        super().finalize_options()
        self.force = True  # what is up to date is our own question

    def build_extensions(self):
        if hasattr(self.compiler, "initialize"):
            self.compiler.initialize()  # MSVC's does so in its first compile(), and threads would meet there
        msvc = self.compiler.compiler_type == "msvc"
        flags = (MSVC if msvc else GNU + self.exact()) + EXTRA
        if not switched_on("32BIT") and not self.takes("wide", PROBE_64BIT, flags):
            raise CompileError("flatgrad: expected a Python and a C compiler of 64 bits, got 32 bits")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for extension in self.extensions:
                units = self.kernels(extension, flags + ([] if msvc else KERNELS_GNU), msvc)
                generated = [source for source in extension.sources if source.endswith(".pyx")]
                units += [(source, flags, []) for source in extension.sources if source not in generated]
                # C first: it is compiled while Cython translates, and what that makes takes longest.
                waiting = [pool.submit(self.compile, extension, *unit) for unit in units]
                kept = os.environ.get("FLATGRAD_OBJECTS")
                for source in cythonize([extension], compiler_directives=CYTHON,
                                        cache=kept and os.path.join(kept, "generated"))[0].sources:
                    if source not in extension.sources:
                        if switched_on("WERROR") and (found := list(swallowed(source))):
                            raise CompileError("noexcept, and makes objects: " + "; ".join(found))
                        waiting.append(pool.submit(self.compile, extension, source, flags + BORDER, []))
                extension.extra_objects += [made for done in waiting for made in done.result()]
                extension.extra_link_args = LINK
                extension.sources = []
        super().build_extensions()

    def kernels(self, extension, flags, msvc):
        """The kernels for each level, as source, flags and macros; the extension is told which there are."""
        units = [(source, flags, []) for source in KERNELS]
        for level, of_compilers in LEVELS.items():
            if self.accepts(level, of_compilers[msvc]):
                units += [(source, flags + of_compilers[msvc], [(f"FG_ISA_{level}", None)]) for source in KERNELS]
                extension.define_macros.append((f"FG_HAVE_{level}", None))
        return units

    def accepts(self, level, flags):
        """Whether the target can have the level and the compiler knows it."""
        if not self.plat_name.endswith(("x86_64", "amd64")):  # macOS universal2 is not: one set of flags
            return False
        if not self.takes(level, f"#include <immintrin.h>\nint {level};\n", flags):
            self.warn(f"without the kernels for {level}: the compiler does not take {' '.join(flags)}")
            return False
        return True

    def exact(self):
        """The flags of EXACT that the compiler needs."""
        for flags in EXACT:
            if self.takes("exact", PROBE_EXACT, GNU + flags):
                return flags
        raise CompileError("the C compiler: expected one that computes doubles as doubles (FLT_EVAL_METHOD 0), as SSE2 "
                           "does on 32-bit x86; it computes with more digits, and takes none of "
                           + ", ".join(" ".join(flags) for flags in EXACT if flags))

    def takes(self, name, text, flags):
        """Whether the compiler compiles a text with the flags."""
        probe = Path(self.build_temp, f"{name}.c")
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_text(text, "utf-8")
        try:
            self.compiler.compile([probe.as_posix()], output_dir=self.build_temp, extra_postargs=flags)
        except CompileError:
            return False
        return True

    def compile(self, extension, source, flags, macros):
        """The object files of a source: those that are there, or new ones."""
        macros = [*extension.define_macros, *macros]
        command = getattr(self.compiler, "compiler_so", None)
        texts, of_others = included(source, extension.include_dirs)
        compiler, folders = self.compiler, []
        if "Python.h" in of_others:   # of a virtual environment's folders, most have nothing
            folders = [folder for folder in compiler.include_dirs if Path(folder, "Python.h").is_file()]
        elif command:
            compiler = copy.copy(compiler)   # one object for all Pythons, whatever flags these were made with
            compiler.compiler_so = command = without_python_s(command)
        parts = (self.plat_name, command, flags, macros, folders, texts)
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
        kept = os.environ.get("FLATGRAD_OBJECTS") or Path(self.get_finalized_command("build").build_base, "objects")
        folder = Path(kept, digest)
        done = folder / "done"
        if done.exists():
            return [str(folder / name) for name in done.read_text("utf-8").split("\n")]
        made = compiler.compile([source], output_dir=str(folder), macros=macros,
                                     include_dirs=extension.include_dirs, extra_postargs=flags)
        done.write_text("\n".join(os.path.relpath(path, folder) for path in made), "utf-8")
        return made


core = Extension(
    "flatgrad._core",
    sources=["src/flatgrad/_core.pyx"] + sorted(
        {p.as_posix() for p in Path("csrc").glob("*.c")} - set(KERNELS)),
    include_dirs=["csrc"],
    libraries=[] if os.name == "nt" else ["m"],  # not by way of what Python links
    depends=sorted(p.as_posix() for p in Path("csrc").glob("*.[hd]*")),
    # A heap type: methods can be added to Value from Python, and it can be subclassed. Strings as they are: Cython 3.2
    # would import zlib for them.
    define_macros=[("CYTHON_USE_TYPE_SPECS", "1"), ("CYTHON_COMPRESS_STRINGS", "0")],
)


# ---- what package indexes show ----

def published():
    """The address of the repository: as this build was told, or that of the sdist, or "". No file of the repository has
    it, so a fork's links lead to the fork."""
    told = os.environ.get("FLATGRAD_REPOSITORY", "").rstrip("/")
    sdist = Path("PKG-INFO")
    if not told and sdist.is_file():
        told = "".join(re.findall("^Project-URL: Repository, (.+)$", sdist.read_text("utf-8"), re.MULTILINE))
    if told and not re.fullmatch(r"https://[\w.-]+(/[\w.-]+)+", told):
        raise SystemExit(f"FLATGRAD_REPOSITORY: expected https://host/owner/name, got {told!r}")
    return told


def with_whole_links(text, page, picture):
    """A text whose links and pictures work wherever it is shown: `page` and `picture` go before the names of our files."""
    def whole(link):
        ours = Path(link[3].partition("#")[0]).is_file()
        return f"{link[1]}{link[2]}({picture if link[1] else page}{link[3]})" if ours else link[0]
    return re.sub(r"(!?)(\[[^\[\]]*\])\(([^()\s]+)\)", whole, text)


def shown():
    """setup()'s arguments for the readme and the links."""
    readme, where = Path("README.md").read_text("utf-8"), published()
    if not where:
        return {"long_description": readme, "long_description_content_type": "text/markdown"}
    version = re.search('^version = "(.+)"$', Path("pyproject.toml").read_text("utf-8"), re.MULTILINE)[1]
    page = f"{where}/blob/v{version}/"   # the tag that a release is built from
    return {
        "long_description": with_whole_links(readme, page, f"{where}/raw/v{version}/"),
        "long_description_content_type": "text/markdown",
        "project_urls": {"Repository": where, "Documentation": f"{page}docs/start.md",
                         "Changelog": f"{page}CHANGELOG.md", "Issues": f"{where}/issues"},
    }


class reproducible_sdist(sdist):
    """sdist, whose archive tells nothing of when, where and by whom it was made, given SOURCE_DATE_EPOCH. setuptools does
    as much for wheels."""

    def make_archive(self, *arguments, **options):
        made = super().make_archive(*arguments, **options)
        if os.environ.get("SOURCE_DATE_EPOCH") and made.endswith(".tar.gz"):
            plain(Path(made), int(os.environ["SOURCE_DATE_EPOCH"]))
        return made


def plain(archive, second):
    """Write a .tar.gz anew: the same files, by name, all of one second and of nobody."""
    whole = archive.with_suffix(".new")
    with tarfile.open(archive) as old, open(whole, "wb") as file, \
            gzip.GzipFile("", "wb", fileobj=file, mtime=second) as zipped, tarfile.open(mode="w", fileobj=zipped) as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            entry = tarfile.TarInfo(member.name)
            entry.type, entry.size, entry.mtime = member.type, member.size, second
            entry.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            new.addfile(entry, old.extractfile(member) if member.isfile() else None)
    whole.replace(archive)


update_stub()
setup(cmdclass={"build_ext": build, "sdist": reproducible_sdist}, ext_modules=[core], **shown())
