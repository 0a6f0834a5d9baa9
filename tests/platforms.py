"""flatgrad on machines that are not this one: built for them, and tested by emulators, as far as these are installed.

    python tests/platforms.py                            what there is, and what is missing for it
    python tests/platforms.py aarch64 [ARG ...]          pytest ARG ... on a Debian for aarch64, by qemu-aarch64-static
    python tests/platforms.py s390x [ARG ...]            the same on s390x, whose numbers are big-endian
    python tests/platforms.py i386 [ARG ...]             the same on 32-bit x86, which the processor itself runs:
                                                         setup.py refuses it, and some tests fail there
    python tests/platforms.py targets [TARGET ...]       csrc/ for Windows, macOS, musl and more, without warnings
    python tests/platforms.py msvc                       what MSVC would see of csrc/, without errors

Options come first: ``--roots FOLDER`` keeps what was made, for the next time (without: a temporary folder), ``--suite``
names the Debian, ``--mirror`` is a line of sources for it.

The Pythons of other machines are Debian's, unpacked by mmdebstrap, and run in a user namespace of their own, where the
kernel (6.7 or newer, or one that knows the emulator already) hands their programs to the emulator. flatgrad is compiled
for them by the cross compilers of Debian (gcc-aarch64-linux-gnu, gcc-s390x-linux-gnu, gcc-i686-linux-gnu), which takes
seconds, where the emulated compiler takes minutes; setup.py thinks that it runs on the other machine. Cython and
setuptools are those of the Python that runs this program. pytest and micrograd, and NumPy where it has a wheel for the
machine, are PyPI's; else NumPy is Debian's. ``python ARG ...`` in place of pytest's arguments runs Python there.

`targets` and `msvc` take the compiler and the headers of ziglang, a package of PyPI, and go by the flags of .ci/run and
setup.py. For `msvc` the compiler is clang, which after MinGW's headers takes the branches for MSVC: this finds names
that are not declared and types that do not fit, and nothing of what MSVC itself would make of it.
"""
import argparse
import ast
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PURE = ("pytest", "iniconfig", "packaging", "pluggy", "pygments", "micrograd", "pytest-timeout")   # in Python alone


def run(*command, **options):
    """A command that succeeds, or the end of its output."""
    done = subprocess.run([os.fspath(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, **options)
    if done.returncode:
        raise SystemExit(f"{shlex.join(map(str, command))} failed with exit code {done.returncode}:\n"
                         + done.stdout[-4000:])
    return done.stdout


def without(*programs):
    """The programs that are not installed."""
    return [program for program in programs if not shutil.which(program)]


def copy_of_checkout(folder):
    """What git tracks or would track, as it is now; all of it where there is no git."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=CHECKOUT,
                            capture_output=True, text=True)
    if listed.returncode:
        return shutil.copytree(CHECKOUT, folder)
    for name in filter(None, listed.stdout.split("\0")):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    return folder


# ---- Debian of another machine ----

class Debian:
    """A Debian for a machine, unpacked in a folder: `make` it, `build` flatgrad for it, `test` it there."""

    def __init__(self, name, debian, triplet, *, compiler=None, tag=None, magic=None, flags=()):
        self.name, self.debian, self.triplet = name, debian, triplet
        self.compiler = compiler or f"{triplet}-gcc"
        self.tag, self.flags = tag, flags
        self.magic = magic   # of its programs' heads: class and byte order, and machine; None where none emulates
        self.emulator = f"qemu-{name}-static"

    def missing(self):
        found = without("mmdebstrap", "unshare", self.compiler, *([self.emulator] if self.magic else []))
        with contextlib.suppress(ImportError):
            import Cython  # noqa: F401
            import setuptools  # noqa: F401
            return found
        return [*found, "Cython and setuptools"]

    def run(self, root, *command):
        """The exit code of a command in the root."""
        lines = ["set -e"]
        if self.magic and not Path("/proc/sys/fs/binfmt_misc", self.emulator.removesuffix("-static")).exists():
            head, machine = self.magic
            rest = r"\x00" * 8
            lines += ["mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc",
                      rf"printf %s ':{self.name}:M::\x7fELF{head}\x01\x00{rest}{machine}:"
                      rf"\xff\xff\xff\xff\xff\xff\xff\x00{rest.replace('00', 'ff')}{MASKS[head]}:"
                      f"{shutil.which(self.emulator)}:FP' >/proc/sys/fs/binfmt_misc/register"]
        lines += [f"mount --rbind /{part} {shlex.quote(str(root / part))}" for part in ("proc", "dev")]
        lines.append("exec " + shlex.join(["chroot", str(root), "/usr/bin/env", "-i", "HOME=/root", "LANG=C.UTF-8",
                                           "PATH=/usr/bin:/bin", "PYTHONPATH=/srv/flatgrad:/srv/site-packages",
                                           "PYTHONDONTWRITEBYTECODE=1", "sh", "-c", 'cd "$0" && exec "$@"', "/work",
                                           *command]))
        return subprocess.run(["unshare", "-Urm", "sh", "-c", "\n".join(lines)]).returncode

    def make(self, roots, options):
        """The folder with this Debian, made if there is none."""
        root = roots / self.name
        if (root / "srv" / "made").exists():
            return root
        print(f"{self.name}: unpacking Debian", flush=True)
        shutil.rmtree(root, ignore_errors=True)
        packages = ["base-files", "bash", "coreutils", "dash", "python3", "libpython3-dev", "python3-numpy", "libblas3",
                    "liblapack3", "gcc", "libc6-dev", "procps"]
        run("mmdebstrap", "--variant=extract", f"--arch={self.debian}", "--skip=check/qemu",
            "--include=" + ",".join(packages), options.suite, root, *([options.mirror] if options.mirror else []))
        libraries = root / "usr" / "lib" / self.triplet
        for name in ("blas", "lapack"):   # which a package's own script would do
            (libraries / f"lib{name}.so.3").unlink(missing_ok=True)
            (libraries / f"lib{name}.so.3").symlink_to(f"{name}/lib{name}.so.3")
        site = root / "srv" / "site-packages"   # by which a package is told from a program of the user
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps",
               "--target", site, "--only-binary=:all:", f"--python-version={self.python(root)}"]
        run(*pip, "--platform=any", *PURE)
        if self.tag:
            run(*pip, *(f"--platform={tag}_{self.name}" for tag in self.tag), "numpy")
        for part in ("proc", "dev", "tmp", "root"):
            (root / part).mkdir(exist_ok=True)
        (root / "srv" / "made").touch()
        return root

    def python(self, root):
        """The version of its Python, as 3.11."""
        return max((path.name.removeprefix("python") for path in root.glob("usr/lib/python3.*")),
                   key=lambda version: int(version.split(".")[1]))

    def build(self, root):
        """flatgrad as it is now, in srv/flatgrad, and its tests, in work."""
        print(f"{self.name}: building", flush=True)
        objects = root / "srv" / "build"
        work = copy_of_checkout(root / "work")
        source = copy_of_checkout(root / "srv" / "source")
        if objects.exists():
            shutil.move(objects, source / "build")   # what has been compiled before
            shutil.rmtree(next(source.glob("build/lib*"), source / "none"), ignore_errors=True)
        version = self.python(root)
        data = f"_sysconfigdata__{self.triplet}"
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy2(root / "usr" / "lib" / f"python{version}" / f"{data}.py", folder)
            headers = root / "usr" / "include"
            run(sys.executable, "setup.py", "-q", "bdist_wheel", "-d", root / "srv" / "wheel", cwd=source, env={
                **os.environ, "PYTHONPATH": folder, "_PYTHON_SYSCONFIGDATA_NAME": data,
                "_PYTHON_HOST_PLATFORM": f"linux-{self.name.replace('i386', 'i686')}", "CC": self.compiler,
                "LDSHARED": f"{self.compiler} -shared", "FLATGRAD_32BIT": str(int(self.name == "i386")),
                "CFLAGS": f"-I{headers / f'python{version}'} -idirafter {headers}"})
        shutil.move(source / "build", objects)
        target = root / "srv" / "flatgrad"
        shutil.rmtree(target, ignore_errors=True)
        wheel = max((root / "srv" / "wheel").glob("*.whl"), key=lambda path: path.stat().st_mtime)
        zipfile.ZipFile(wheel).extractall(target)
        shutil.rmtree(root / "srv" / "wheel")
        return work

    def test(self, roots, options, arguments):
        root = self.make(roots, options)
        if not options.as_built:
            self.build(root)
        print(f"{self.name}: testing", flush=True)
        return self.run(root, "python3", *(arguments[1:] if arguments[:1] == ["python"] else [
            "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]))


# The last bytes of a head's mask: type and machine, both as numbers.
MASKS = {r"\x02\x01": r"\xfe\xff\xff\xff", r"\x02\x02": r"\xff\xfe\xff\xff"}
MACHINES = [
    Debian("aarch64", "arm64", "aarch64-linux-gnu", tag=["manylinux_2_28", "manylinux_2_27", "manylinux2014"],
           magic=(r"\x02\x01", r"\x02\x00\xb7\x00")),
    Debian("s390x", "s390x", "s390x-linux-gnu", magic=(r"\x02\x02", r"\x00\x02\x00\x16")),
    Debian("i386", "i386", "i386-linux-gnu", compiler="i686-linux-gnu-gcc"),
]


# ---- the compiler for other systems ----

TARGETS = ("x86_64-windows-gnu", "aarch64-windows-gnu", "x86_64-macos", "aarch64-macos", "x86_64-linux-musl",
           "aarch64-linux-musl", "x86-linux-musl", "s390x-linux-gnu", "riscv64-linux-musl", "arm-linux-musleabihf")
# As MSVC has it once its own headers have been read; MinGW's are those that there are.
AS_MSVC = """
#include <assert.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <immintrin.h>
#include <intrin.h>
#undef __clang__
#undef __GNUC__
#undef __GNUC_MINOR__
#undef __x86_64__
#undef __x86_64
#undef __SSE2__
#undef __forceinline
#undef _xgetbv
#undef _MSC_VER
#define _MSC_VER 1938
#define _M_X64 100
#define __INTRIN_H
void __cpuidex(int *, int, int);
unsigned long long _xgetbv(unsigned);
"""


def of_setup(name):
    """A constant of setup.py."""
    tree = ast.parse((CHECKOUT / "setup.py").read_text("utf-8"))
    found, = (ast.literal_eval(node.value) for node in tree.body
              if isinstance(node, ast.Assign) and node.targets[0].id == name)
    return found


def strict():
    """The warnings of .ci/run."""
    return shlex.split(re.search(r'^STRICT="(.+)"$', (CHECKOUT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)[1])


def zig():
    """The command of ziglang, or None."""
    if shutil.which("zig"):
        return ["zig"]
    try:
        import ziglang
    except ImportError:
        return None
    return [str(Path(ziglang.__file__).with_name("zig"))]


class Zig:
    """Reads csrc/ as a compiler for other systems does."""

    def __init__(self, name, as_msvc):
        self.name, self.as_msvc = name, as_msvc

    def missing(self):
        return [] if zig() else ["ziglang (a package of PyPI)"]

    def compiler(self, target):
        """The command of clang with the headers of a target."""
        said = run(*zig(), "cc", "-target", target, "-std=c11", "-E", "-v", "-x", "c", os.devnull)
        command = shlex.split(next(line for line in said.split("\n") if " -cc1 -triple " in line))
        headers = [part for k, word in enumerate(command) if word in ("-isystem", "-D") for part in command[k:k + 2]]
        return [*zig(), "clang", f"--target={command[command.index('-triple') + 1]}", "-nostdinc", *headers]

    def test(self, roots, options, arguments):
        unknown = set(arguments) - set(TARGETS)
        if unknown or self.as_msvc and arguments:
            raise SystemExit(f"{self.name}: expected {'nothing' if self.as_msvc else 'some of ' + ', '.join(TARGETS)}, "
                             f"got {' '.join(arguments)}")
        for target in [TARGETS[0]] if self.as_msvc else arguments or TARGETS:
            ways = {"": ([], sorted(CHECKOUT.glob("csrc/*.c")))}
            if target.startswith("x86_64"):
                ways.update((level, ([*flags, f"-DFG_ISA_{level}", f"-DFG_HAVE_{level}"],
                                     [CHECKOUT / "csrc" / name for name in ("kernels.c", "kernels32.c", "cpu.c")]))
                            for level, (flags, _) in of_setup("LEVELS").items())
            flags = strict()
            if target.startswith("x86-"):
                flags += of_setup("EXACT")[1]
            if self.as_msvc:
                first = roots / "as_msvc.h"
                first.write_text(AS_MSVC, "utf-8")
                flags = ["-std=c11", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror", "-fsyntax-only",
                         "-fms-extensions", "-include", first]
            for level, (more, sources) in ways.items():
                run(*self.compiler(target), *flags, *more, *sources)
                print(f"{'msvc' if self.as_msvc else target}{level and ', ' + level}: {len(sources)} files without "
                      "warnings", flush=True)
        return 0


PARTS = {part.name: part for part in [*MACHINES, Zig("targets", False), Zig("msvc", True)]}


def this_suite():
    """The Debian that this machine has, or stable."""
    with contextlib.suppress(OSError):
        text = Path("/etc/os-release").read_text("utf-8")
        found = re.search(r"^VERSION_CODENAME=(\w+)", text, re.MULTILINE)
        if found and re.search(r"^ID=debian", text, re.MULTILINE):
            return found[1]
    return "stable"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--roots", type=Path)
    parser.add_argument("--suite", default=this_suite())
    parser.add_argument("--mirror")
    parser.add_argument("--as-built", action="store_true", help="what was built the last time")
    parser.add_argument("part", nargs="?", choices=PARTS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.part:
        for name, part in PARTS.items():
            missing = part.missing()
            print(f"{name}: " + (f"needs {', '.join(missing)}" if missing else "can run"))
        return 0
    part = PARTS[options.part]
    missing = part.missing()
    if missing:
        raise SystemExit(f"{options.part}: needs {', '.join(missing)}")
    with contextlib.ExitStack() as stack:
        roots = options.roots or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        roots.mkdir(parents=True, exist_ok=True)
        return part.test(roots.resolve(), options, options.arguments)


if __name__ == "__main__":
    sys.exit(main())
