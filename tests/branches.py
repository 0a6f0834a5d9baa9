"""Which branches of csrc/ and of the border the tests take.

    python tests/branches.py [--folder PATH] [--levels] [--jobs N] [--seconds S] [FILE ...]   runs FILE ..., or all files of tests
    python tests/branches.py --folder PATH --report                                tells what has been run there

A copy of the checkout is built for gcov, without optimisation and without assertions, and runs the files of tests,
`--jobs` at a time, each for at most `--seconds`, and then the short form of the checks; `--levels` runs the tests of the
kernels also on the other levels of the machine. A folder that is kept goes on where it was left. Prints each branch
that no test takes, and a table.

What counts. Of a condition, both ways; of a switch, each case.

- csrc/: what gcov calls a branch. The same line of the same function is one, however often it is compiled: for several
  levels of kernels, for doubles and floats, into several files; and so is what a macro makes of each row of a table, for
  the rows for which that has as many branches. It is taken if it is in one of these.
- C that stands in the border as text: the same.
- The border: what Cython writes for `if`, `elif`, `while`, `and`, `or`, `x if c else y`, chains of comparisons, and
  `except`, which is an `if (__pyx_t_1) {`, with `!` or unlikely(), of a number alone, or a `switch` of a variable. Its
  other branches are its own: reference counts, errors of each call, unpacking, arguments, the ends of loops, the bounds
  of slices. What
  Cython writes twice, such as the code of a `finally`, is one, taken if it is in one copy.

A branch that no test can take, or need not, stands with its reason in tests/branches.txt, a line each:
`PATH | FUNCTION | SOURCE LINE | BRANCH | REASON`, with `*` for any function, line or branch. The exit code is 1 if such
a branch is gone or taken, or if less than 97 % are taken and one that is not has no reason. Needs gcc and gcov.
"""
import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REASONS = Path(__file__).with_suffix(".txt")
GOAL = 97.0   # per cent
OF_KERNELS = ("kernels", "float32", "ops", "fused", "lanes", "lanes_scan", "smoke")
CHECKS = Path("checks")
LAST = ("bench", "cli", "cli_moons", "dev", "names", "rooms", "hints")   # they reach little

OF_ROW = re.compile("_[A-Z][A-Z0-9_]*$")
MARK = re.compile(r'\s*/\* "(src/flatgrad/[\w/]+\.px[id])":(\d+)$')
NUMBER = r"(?:__pyx_t_\d+|__pyx_v_[\w.>-]+(?:\[\w+\])?)"
WRITTEN = re.compile(rf"\s*(?:\}} else )?(?:if \((?:!?{NUMBER}|unlikely\({NUMBER}\))\) \{{|if \(!{NUMBER}\) break;"
                     r"|switch \(__pyx_v_[\w.>-]+\) \{)$")
OF_SLICE = re.compile(r"\s*(\w+) = \(\w+ == Py_None\);\n\s*if \(\1\) \{\n\s*\w+ = (?:0|PY_SSIZE_T_MAX);$")


def copy_of_tree(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
        elif path.name in ("csrc", "src", "tests", "bench", "docs", "examples"):
            shutil.copytree(path, folder / path.name,
                            ignore=shutil.ignore_patterns("*.so", "*.gc*", "_core.c", "__pycache__", "_build"))


def build(tree):
    copy_of_tree(tree)
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree, check=True,
                   env={**os.environ, "FLATGRAD_COVERAGE": "1"}, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, "setup.py", "-q", "egg_info"], cwd=tree, check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def run_tests(folder, files, seconds, jobs, level=None):
    """Run files of tests, or CHECKS, that have not been run; the counts of all are added up under folder/data."""
    tree, done = folder / "tree", folder / "done.json"
    known = json.loads(done.read_text()) if done.exists() else {}
    here = str(tree.resolve())
    env = {**os.environ, "PYTHONPATH": str(tree / "src"), "GCOV_PREFIX": str(folder / "data"),
           "GCOV_PREFIX_STRIP": str(here.count("/"))}
    if level:
        env["FLATGRAD_ISA"] = level
    one_by_one = threading.Lock()

    def run(name, file):
        started = time.monotonic()
        command = ["tests/checks", "short"] if file == CHECKS else ["-m", "pytest", "-q", "-p", "no:cacheprovider",
                                                                    f"tests/{file.name}"]
        ran = subprocess.Popen([sys.executable, *command], cwd=tree, env=env, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, errors="replace")
        try:
            said = ran.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            ran.send_signal(signal.SIGINT)   # it still writes its counts
            said = ran.communicate()[0]
        with one_by_one:
            known[name] = (said.strip().split("\n") or [""])[-1]
            done.write_text(json.dumps(known, indent=1))
            print(f"{name}: {known[name]}, {time.monotonic() - started:.0f} s", flush=True)

    with ThreadPoolExecutor(jobs) as pool:   # the counts are added up by processes that wait for each other
        names = [f"{file.stem} {level or ''}".strip() for file in files]
        for ran in [pool.submit(run, name, file) for name, file in zip(names, files, strict=True) if name not in known]:
            ran.result()


# ---- counts ----

def counted(folder):
    """What gcov says of each object file, a line of the source at a time: path, line, function and its branches."""
    data, tree = folder / "data", folder / "tree"
    for notes in tree.glob("build/objects/**/*.gcno"):
        place = data / notes.relative_to(tree)
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.symlink_to(notes.resolve())
        counts = place.with_suffix(".gcda")
        out = subprocess.run(["gcov", "--json-format", "--stdout", "--branch-probabilities",
                              counts if counts.exists() else place], cwd=tree, capture_output=True, check=True).stdout
        for line in out.splitlines():
            for file in json.loads(line)["files"]:
                for entry in file["lines"]:
                    if entry["branches"]:
                        yield (file["file"].removeprefix(str(tree) + "/"), entry["line_number"],
                               entry.get("function_name", ""), entry["branches"])


class Generated:
    """Where the lines of _core.c come from: which of its conditions are written in the border, and where; and C that
    stands there as text."""

    def __init__(self, tree):
        self.written, self.verbatim = {}, {}
        lines = (tree / "src/flatgrad/_core.c").read_text("utf-8").split("\n")
        at = None
        copy = 0   # which time this line of the border is translated
        for number, line in enumerate(lines, 1):
            mark = MARK.match(line)
            if mark:
                at, copy = (mark[1], int(mark[2])), number
            elif line == "}":
                at = None
            elif at and WRITTEN.match(line) and not OF_SLICE.match("\n".join(lines[number - 2:number + 1])):
                self.written[number] = (*at, copy)
        where = defaultdict(list)
        for number, line in enumerate(lines):
            where[line.strip()].append(number)
        for path in sorted((tree / "src/flatgrad").glob("**/*.px[id]")) + [tree / "src/flatgrad/_core.pyx"]:
            text = path.read_text("utf-8")
            for block in re.finditer(r'cdef extern from [^\n]*:\n\s*"""\n(.*?)\n\s*"""', text, re.DOTALL):
                first = text.count("\n", 0, block.start(1)) + 1
                inside = block[1].split("\n")
                place = self.found(lines, where, inside)
                if place:
                    for k in range(len(inside)):
                        self.verbatim[place + k] = (path.relative_to(tree).as_posix(), first + k)

    @staticmethod
    def found(lines, where, inside):
        """At which line of the generated file this text begins, whatever its indentation."""
        wanted = [line.strip().replace("\\\\", "\\") for line in inside]
        k = max(range(len(wanted)), key=lambda k: len(wanted[k]))
        for number in where.get(wanted[k], ()):
            if [line.strip() for line in lines[number - k:number - k + len(wanted)]] == wanted:
                return number - k + 1
        return None


def branches(folder):
    """The counts of all branches that count, by path, line, function and place in the line."""
    generated = Generated(folder / "tree")
    taken = defaultdict(list)   # (path, line, function, number of branches) -> [[count, whether it is the one if true]]
    copies = defaultdict(lambda: defaultdict(list))
    for path, line, function, found in counted(folder):
        if path.endswith(".def") and OF_ROW.search(function):
            key = (path, 1, OF_ROW.sub("_ROW", function), len(found))
        elif path.startswith("csrc/"):
            key = (path, line, function.replace("32_", "_"), len(found))   # of doubles and of floats
        elif path.endswith("_core.c") and line in generated.verbatim:
            key = (*generated.verbatim[line], function, len(found))
        elif path.endswith("_core.c") and line in generated.written:
            pxi, at, copy = generated.written[line]
            copies[pxi, at, function][copy].append((line, found))
            continue
        else:
            continue
        add(taken[key], found)
    for (pxi, at, function), times in copies.items():
        for entries in times.values():
            # What is translated twice has the same conditions: they are one. Else the line has several parts.
            every = [branch for _, found in sorted(entries, key=lambda entry: entry[0]) for branch in found]
            add(taken[pxi, at, function, len(every)], every)
    return taken


def add(into, found):
    if not into:
        into += [[0, branch["fallthrough"]] for branch in found]
    for entry, branch in zip(into, found, strict=True):
        entry[0] += branch["count"]


def name_of(k, entries):
    if len(entries) == 2:
        return "true" if entries[k][1] else "false"
    return f"{k + 1} of {len(entries)}"


def reasons():
    if not REASONS.exists():
        return []
    lines = [line for line in REASONS.read_text("utf-8").splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(part.strip() for part in line.split(" | ")) for line in lines]


def report(folder):
    taken = branches(folder)
    texts = {}
    table = defaultdict(Counter)
    rest = []
    for (path, line, function, _), entries in sorted(taken.items()):
        if path not in texts:
            texts[path] = (folder / "tree" / path).read_text("utf-8").split("\n")
        table[path]["all"] += len(entries)
        for k, (count, _) in enumerate(entries):
            if count:
                table[path]["taken"] += 1
            else:
                rest.append((path, line, function, texts[path][line - 1].strip(), name_of(k, entries)))
    known = reasons()
    used = set()
    unexplained = []
    for path, line, function, text, which in rest:
        short = re.sub(r"^__pyx_\w+?_core_", "", function)
        fits = [k for k, (p, f, t, w, _) in enumerate(known)
                if p == path and f in ("*", short) and w in ("*", which) and (t == text or t == "*")]
        used.update(fits)
        if fits:
            table[path]["explained"] += 1
        else:
            unexplained.append((path, line, short, text, which))
    for path, line, short, text, which in unexplained:
        print(f"{path}:{line}: {short} | {text} | {which}")
    stale = [known[k] for k in range(len(known)) if k not in used]
    print(f"\n{'file':40} {'branches':>8} {'taken':>8} {'%':>6}   with a reason")
    total = {"csrc": Counter(), "border": Counter()}
    for path, counts in sorted(table.items()):
        total["csrc" if path.startswith("csrc/") else "border"].update(counts)
        tell(path, counts)
    for name, counts in [*total.items(), ("all", total["csrc"] + total["border"])]:
        tell(name, counts)
    counts = total["csrc"] + total["border"]
    share = 100.0 * counts["taken"] / max(counts["all"], 1)
    for entry in stale:
        print("taken or gone, but it has a reason:", " | ".join(entry))
    return 1 if stale or (unexplained and share < GOAL) else 0


def tell(name, counts):
    share = 100.0 * counts["taken"] / max(counts["all"], 1)
    print(f"{name:40} {counts['all']:8} {counts['taken']:8} {share:6.2f}   {counts['explained'] or ''}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--folder", type=Path, help="keeps the build and the counts, and goes on from there")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--levels", action="store_true", help="the tests of the kernels on every level")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1800)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)   # a shell's background has it ignored; tests send it
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="branches-"))).resolve()
    try:
        if not options.report:
            if not (folder / "tree" / "build" / "objects").exists():
                build(folder / "tree")
            files = options.files or sorted((folder / "tree" / "tests").glob("test_*.py"),
                                            key=lambda path: (path.stem.removeprefix("test_") in LAST, path.stem))
            run_tests(folder, files if options.files else [*files, CHECKS], options.seconds,
                      options.jobs)
            if options.levels:
                ask = "from flatgrad import _core; print(*_core._kernel_levels()[:-1])"
                levels = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True,
                                        env={**os.environ, "PYTHONPATH": str(folder / "tree" / "src")}).stdout.split()
                for level in levels:
                    run_tests(folder, [Path(f"test_{name}.py") for name in OF_KERNELS], options.seconds, options.jobs,
                              level)
        return report(folder)
    finally:
        if not options.folder:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
