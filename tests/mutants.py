"""Mutants of csrc/ and of the border: small changes, each of which some test must notice.

    python tests/mutants.py [--count N] [--seed K] [--files PATH ...] [--tests FILE ...] [--seconds S] [--folder PATH]

A mutant is one change: of an operator (+ and -, < and <=, == and !=, && and ||, << and >>, & and |), of a constant, of
a condition (negated; a `not` dropped), or a statement dropped. `--count` of them are chosen at random by the seed.

All are compiled into one copy of the package, with assertions, in which each asks for its number at run time:
`FG_MUTANT(17) ? a < b : a <= b`. A first run of the tests, with no mutant on, tells which tests reach which mutant.
Then a process that has collected the tests forks once for each mutant, switches it on and runs the tests that reach the
mutant, the fastest first, up to the first that fails. A crash, a failed assertion and a test without end count as
failures.

A survivor is printed with its place and its change. One that nobody could notice is explained in tests/mutants.txt, a
line each: `PATH | line of source | change | reason`. The exit code is 1 if a survivor has no line there.

Without `--files` the mutants are of csrc/*.c, csrc/*.h and the border. The rows of *.def are text for exports as well,
and have mutants only if the file is named; the exports' tests fail then without a mutant, and are left out. A folder
that is kept goes on where it was left, with the mutants that it was made with: a few files of tests that are quick and
kill most of them, then `--again` for what survived, with the other files. Where no mutant is of the border, a _core.c
that is up to date is not made anew. Needs gcc, and a Python that has what the tests need.
"""
import argparse
import ctypes
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXPLAINED = Path(__file__).with_suffix(".txt")
# The tests that never reach the compiled part, or by way of another process only; and PyTorch's, which has threads.
OUTSIDE = ("bench", "cli", "cli_moons", "compat", "data_parallel", "datasets", "dev", "docs", "draw", "draw_svg",
           "estimators", "examples", "export_arm", "files", "hints", "interrupts", "micrograd_code", "mutants", "names",
           "film", "jupyter", "notebooks", "package", "programs", "rooms", "site", "startup", "surface", "viz",
           "viz_confidence", "viz_diagnosis", "viz_estimators", "viz_weights")

OTHER = {"+": "-", "-": "+", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "&&": "||",
         "||": "&&", "<<": ">>", ">>": "<<", "&": "|", "|": "&", "and": "or", "or": "and", "is": "is not",
         "is not": "is", "in": "not in", "not in": "in", "True": "False", "False": "True"}
OPEN, CLOSE = "([{", ")]}"


class Mutant:
    """A change of text[start:end], which the switch lets take place at run time."""

    def __init__(self, path, text, start, end, switched, change):
        self.path, self.start, self.end, self.switched, self.change = path, start, end, switched, change
        self.line = text.count("\n", 0, start) + 1
        self.shown = text[text.rfind("\n", 0, start) + 1:].split("\n", 1)[0].strip()

    @classmethod
    def known(cls, fields):
        mutant = cls.__new__(cls)
        vars(mutant).update(fields)
        return mutant

    def key(self):
        return self.path, self.shown, self.change

    def __str__(self):
        return f"{self.path}:{self.line}: {self.shown}    [{self.change}]"


# ---- places in a source ----

C_TOKEN = re.compile(r"""(?P<skip>/\*.*?\*/|//[^\n]*|^[ \t]*\#(?:\\\n|[^\n])*|\s+)
    | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*') | (?P<name>[A-Za-z_]\w*) | (?P<number>\.?\d(?:[eEpP][+-]|[\w.])*)
    | (?P<operator><<=|>>=|\.\.\.|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|.)""",
                     re.VERBOSE | re.DOTALL | re.MULTILINE)
PYX_TOKEN = re.compile(r"""(?P<skip>\#[^\n]*|\\\n|[ \t\n]+)
    | (?P<string>[A-Za-z]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'))
    | (?P<cast><(?:const\ |unsigned\ )*[A-Za-z_][\w.\ ]*(?:\[[:\d, ]*\])?[\ *]*\??>(?=[\w(&<'"-]))
    | (?P<name>is\ not\b|not\ in\b|[A-Za-z_]\w*) | (?P<number>\.?\d(?:[eE][+-]|[\w.])*)
    | (?P<operator>\*\*|->|<<|>>|<=|>=|==|!=|:=|//|[-+*/%&|^]=|.)""", re.VERBOSE | re.DOTALL)
ASSIGNMENTS = ("=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>=", ":=")
BEFORE_UNARY = ("return", "case", "sizeof", "else", "in", "not", "and", "or", "if", "is", "is not", "not in", "yield",
                "lambda")


def tokens_of(pattern, text, start=0, end=None):
    found = []
    for token in pattern.finditer(text, start, len(text) if end is None else end):
        if token.lastgroup != "skip":
            kind = token.lastgroup
            if kind == "cast" and found and (found[-1][1] in CLOSE or found[-1][0] in ("number", "name")
                                             and found[-1][1] not in BEFORE_UNARY):
                return None   # a comparison that looks like a cast: the line is left alone
            found.append((kind, token[0], token.start(), token.end()))
    return found


def is_binary(tokens, k):
    """Whether the operator is one of two operands."""
    if not k:
        return False
    kind, text = tokens[k - 1][:2]
    return kind in ("number", "string") or kind == "name" and text not in BEFORE_UNARY or text in (")", "]")


def region(tokens, k, stops):
    """The expression around an operator: from and to the tokens of the same depth at which it ends."""
    ends = []
    for step in (-1, 1):
        depth, j = 0, k
        opens, closes = (CLOSE, OPEN) if step < 0 else (OPEN, CLOSE)
        while 0 <= j + step < len(tokens):
            text = tokens[j + step][1]
            if text in opens:
                depth += 1
            elif text in closes:
                if not depth:
                    break
                depth -= 1
            elif not depth and text in stops:
                break
            j += step
        ends.append(j)
    return ends


def with_one_line(text):
    return re.sub(r"\s*\n\s*", " ", text)


def constants(number):
    """What a constant becomes, if it is one of a kind that we change."""
    if re.fullmatch(r"\d+[uU]?[lL]{0,2}", number):
        digits = re.match(r"\d+", number)[0]
        more = digits == "0" or int(digits) % 2
        return str(int(digits) + (1 if more else -1)) + number[len(digits):]
    if re.fullmatch(r"\d+\.\d*", number):
        return "1.0" if float(number) == 0 else "0.0" if float(number) == 1 else f"({number} + 1.0)"
    return None


def in_expressions(path, text, tokens, in_c):
    """The mutants of operators and constants among these tokens."""
    ends = {",", ";", ":", "?", "return", "case", "if", "else", "for", "lambda", "yield", "raise", *ASSIGNMENTS}
    either = "({m} ? ({new}) : ({old}))" if in_c else "(({new}) if {m} else ({old}))"
    for k, (kind, op, start, end) in enumerate(tokens):
        if kind == "number" and not path.startswith("csrc/simd"):
            new = constants(op)
            if new and not (k and tokens[k - 1][1] in ("case", "goto")):
                yield Mutant(path, text, start, end, either.format(m="{m}", new=new, old=op), f"{op} -> {new}")
        elif op in ("True", "False") and not in_c:
            yield Mutant(path, text, start, end, either.format(m="{m}", new=OTHER[op], old=op), f"{op} -> {OTHER[op]}")
        elif op == "!" and in_c and k and tokens[k - 1][1] in ("(", "&&", "||", ",", "=", "return"):
            yield Mutant(path, text, start, end, "{m} != !", "! dropped")
        elif op == "not" and not in_c and (k + 1 < len(tokens)):
            first, last = region(tokens, k, ends | {"and", "or"})
            if first == k:   # the whole of it
                inside = with_one_line(text[end:tokens[last][3]])
                yield Mutant(path, text, start, tokens[last][3], "((not (" + braced(inside) + ")) != {m})",
                             "not dropped")
        elif op in OTHER and op not in ASSIGNMENTS and kind in ("operator", "name") and is_binary(tokens, k) \
                and not (in_c and kind == "name"):
            looser = {"&&": {"||"}, "||": set(), "and": {"or"}, "or": set()}.get(op, {"&&", "||", "and", "or", "not"})
            if op == "in" and any(t[1] == "for" for t in tokens[:k]):
                continue
            first, last = region(tokens, k, (ends | looser) - ({"if"} if in_c else set()))
            begin, stop = tokens[first][2], tokens[last][3]
            old = with_one_line(text[begin:stop])
            new = with_one_line(text[begin:start]) + OTHER[op] + with_one_line(text[end:stop])
            if in_c and re.search(r"\b(if|while|for|switch|else|do)\b", old):
                continue
            yield Mutant(path, text, begin, stop, either.format(m="{m}", new=braced(new), old=braced(old)),
                         f"{op} -> {OTHER[op]} in {old}")


def braced(text):
    return text.replace("{", "{{").replace("}", "}}")


DECLARES = re.compile(r"(?:const|static|unsigned|struct|enum|union|typedef|extern|register|return|case|default|else|do|"
                      r"for|if|while|switch|assert|goto|_Static_assert|FG_\w+\()\b|\(void\)|\w+:$|[})]|"
                      r"[\w ]+[ *]+(?:const )?\w+( = .*|\[.*|,.*|);$")


def places_in_c(path, text):
    tokens = tokens_of(C_TOKEN, text)
    enums = [found.span() for found in re.finditer(r"\benum\b[^;{}]*\{[^}]*\}", text)]   # which are of constants
    yield from (mutant for mutant in in_expressions(path, text, tokens, True)
                if not any(start < mutant.start < end for start, end in enums))
    for k, (_, word, _, _) in enumerate(tokens[:-1]):   # if (condition)
        if word == "if" and tokens[k + 1][1] == "(":
            last = region(tokens, k + 2, ())[1]
            begin, stop = tokens[k + 2][2], tokens[last][3]
            old = with_one_line(text[begin:stop])
            yield Mutant(path, text, begin, stop, "!(" + braced(old) + ") == {m}", "negated")
    if path.endswith(".def"):
        return
    depth, before = 0, ";"
    for _, word, start, _ in tokens:
        if word in "([":
            depth += 1
        elif word in ")]":
            depth -= 1
        first = text[text.rfind("\n", 0, start) + 1:start].isspace()   # of a line that is indented
        if first and not depth and before in (";", "{", "}", ")", "else", ":"):
            line = re.sub(r"\s*/\*.*?\*/\s*$", "", text[start:text.find("\n", start)])
            whole = line.endswith(";") and line.count(";") == 1 and line.count("(") == line.count(")")
            if whole and not DECLARES.match(line):
                yield Mutant(path, text, start, start + len(line), "{{ if (!{m}) " + braced(line) + " }}", "dropped")
        before = word


HEADER = re.compile(r"(?:if|elif|while)\b")
LEFT_ALONE = re.compile(r"(?:cdef|cpdef|def|class|@|import|from|include|ctypedef|cimport|global|nonlocal|pass\b|try:|"
                        r"else:|finally:|except|for\b|with\b|DEF|IF|continue|break|return|\"|')")


def places_in_border(path, text):
    """Logical lines inside functions; what Cython needs as it stands is left alone."""
    starts = [0]
    depth = 0
    for token in PYX_TOKEN.finditer(text):
        if token.lastgroup == "operator":
            depth += (token[0] in OPEN) - (token[0] in CLOSE)
        elif token.lastgroup == "skip" and "\n" in token[0] and not token[0].startswith("\\") and not depth:
            starts.append(token.start() + token[0].rfind("\n") + 1)
    blocks = []   # (indentation, whether it is of a function)
    for begin, stop in zip(starts, [*starts[1:], len(text)], strict=True):
        line = text[begin:stop]
        body = line.strip()
        if not body:
            continue
        indent = len(line) - len(line.lstrip())
        start = begin + indent
        while blocks and indent <= blocks[-1][0]:
            blocks.pop()
        opens = re.sub(r"\s*#[^\n]*$", "", body).endswith(":")
        is_function = bool(re.match(r"(def|cpdef)\b", body) or re.match(r"cdef\b[^=]*\(", body)) and opens
        inside = bool(blocks) and blocks[-1][1]
        if opens:
            blocks.append((indent, is_function or inside and not body.startswith(("cdef", "class"))))
        if not inside or is_function:
            continue
        tokens = tokens_of(PYX_TOKEN, text, start, begin + len(line.rstrip()))
        if not tokens:
            continue
        stop = tokens[-1][3]
        if body.startswith(("cdef", "for ", "with ", "return", "elif", "if ", "while ")) or not LEFT_ALONE.match(body):
            first = 0
            if body.startswith("cdef"):
                first = next((k + 1 for k, t in enumerate(tokens) if t[1] == "="), len(tokens))
            yield from in_expressions(path, text, tokens[first:], False)
        if HEADER.match(body) and tokens[-1][1] == ":":
            old = with_one_line(text[tokens[0][3]:tokens[-1][2]])
            yield Mutant(path, text, tokens[0][3], tokens[-1][2], " (not (" + braced(old) + ")) == {m}", "negated")
        elif not LEFT_ALONE.match(body) and not opens and text[begin:start].strip(" ") == "" and ";" not in body:
            space = " " * indent
            yield Mutant(path, text, start, stop, "if not {m}:\n" + space + "    " + braced(text[start:stop]),
                         "dropped")


def places(root, path):
    text = (root / path).read_text("utf-8")
    return list((places_in_border if path.endswith((".pxi", ".pyx")) else places_in_c)(path, text))


def sources(root, named):
    paths = []
    for name in named or ("csrc", "src/flatgrad/border"):
        path = root / name
        paths += sorted(p for kind in ("*.c", "*.h", "*.pxi") for p in path.glob(kind)) if path.is_dir() else [path]
    return [path.relative_to(root).as_posix() for path in paths]


def chosen(root, paths, count, seed):
    """Mutants at random, none inside another; three of four in csrc/ where both it and the border are asked for."""
    draw = random.Random(seed)
    of = {True: [], False: []}
    for path in paths:
        of[path.startswith("csrc/")] += places(root, path)
    of_c = count * 3 // 4 if all(of.values()) else count if of[True] else 0
    mutants = []
    for in_c, share in ((True, of_c), (False, count - of_c)):
        taken, some = {}, []
        for mutant in draw.sample(of[in_c], len(of[in_c])):
            if len(some) == share:
                break
            spans = taken.setdefault(mutant.path, [])
            if all(mutant.end <= start or mutant.start >= end for start, end in spans):
                spans.append((mutant.start, mutant.end))
                some.append(mutant)
        mutants += some
    return mutants


# ---- one build with all of them ----

DECLARED = """\
#ifndef FG_MUTANT
extern volatile int fg_mutant_on;
extern volatile unsigned char fg_mutant_reached[100000];
#define FG_MUTANT(n) (fg_mutant_reached[n] = 1, fg_mutant_on == (n))
#endif
"""
DEFINED = """\
#include <stdlib.h>
volatile int fg_mutant_on;
volatile unsigned char fg_mutant_reached[100000];
__attribute__((constructor)) static void choose(void)
{
    const char *which = getenv("FLATGRAD_MUTANT");
    fg_mutant_on = which ? atoi(which) : 0;
}
"""
COMPILER = """\
#!/bin/sh
case "$*" in *_core.c*) exec gcc "$@" -O0 -g0 ;; *) exec gcc "$@" -g0 ;; esac
"""   # in half the time
FOR_CYTHON = """
cdef extern from *:
    int FG_MUTANT(int n) noexcept nogil
"""


def copy_of_tree(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("csrc", "src", "tests", "bench", "docs", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(
            "*.so", "*.gc*", "__pycache__", "_build", "*.egg-info"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, folder)


def write_switched(tree, folder, mutants):
    """The sources with all mutants in them; for each source, which mutant stands at which of its lines."""
    lines = {}
    by_path = {}
    for number, mutant in mutants.items():
        by_path.setdefault(mutant.path, []).append((mutant.start, number, mutant))
    for path in by_path:
        text = (tree / path).read_text("utf-8")
        made, at, line, where = [], 0, 1, []
        for start, number, mutant in sorted(by_path[path], key=lambda entry: entry[:2]):
            plain = text[at:start]
            new = mutant.switched.format(m=f"FG_MUTANT({number})")
            line += plain.count("\n")
            where.append((line, line + new.count("\n"), number))
            line += new.count("\n")
            made += [plain, new]
            at = mutant.end
        (folder / path).write_text("".join([*made, text[at:]]), "utf-8")
        lines[path] = where
    return lines


COMPLAINT = re.compile(r"^(?:.*?[ /])??((?:csrc/|src/flatgrad/)?[\w./]+\.(?:c|h|def|pxi|pyx)):(\d+):\d+: (.*)",
                       re.MULTILINE)


def blamed(output, lines):
    """The mutants at whose lines the compiler complains."""
    found = set()
    for path, line, what in COMPLAINT.findall(output):
        if "warning" in what or "note:" in what:
            continue
        for known, where in lines.items():
            if known == path or known.endswith("/" + path):
                found |= {number for first, last, number in where if first <= int(line) <= last}
    return found


def build(tree, folder, mutants):
    """Build a switched copy of the tree. Mutants that do not compile, such as a changed size of an array, leave."""
    shutil.copytree(tree, folder, ignore=shutil.ignore_patterns("tests"))
    (folder / "csrc" / "mutant_switch.c").write_text(DEFINED)
    declared = folder / "mutant.h"
    declared.write_text(DECLARED)
    if not all(mutant.path.startswith("csrc/") for mutant in mutants.values()):   # else _core.c stays as it is
        head = folder / "src" / "flatgrad" / "_core.pyx"
        text = head.read_text("utf-8")
        place = text.index("\ncimport cython")
        head.write_text(text[:place] + FOR_CYTHON + text[place:], "utf-8")
    compiler = folder / "compiler"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    environment = {**os.environ, "FLATGRAD_DEBUG": "1", "CC": str(compiler),
                   "CFLAGS": f"-include {declared} -DFG_UNINLINED"}
    touched = {mutant.path for mutant in mutants.values()}
    while True:
        for path in touched:
            shutil.copy(tree / path, folder / path)
        lines = write_switched(tree, folder, mutants)
        output = ""
        for source in sorted((folder / "csrc").glob("*.c")):   # quick, and all complaints at once
            output += subprocess.run(["gcc", "-std=c11", "-fsyntax-only", "-w", "-include", declared,
                                      source.relative_to(folder)], cwd=folder, capture_output=True, text=True).stderr
        bad = blamed(output, lines)
        if not bad:
            done = subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder,
                                  env=environment, capture_output=True, text=True)
            if done.returncode == 0:
                return next((folder / "src" / "flatgrad").glob("_core*.so"))
            output = done.stdout + done.stderr
            bad = blamed(output, lines)
            if not bad:
                sys.exit(f"the mutants do not build, and no one of them is to blame:\n{output[-4000:]}")
        for number in bad:
            print(f"not built: {mutants.pop(number)}", flush=True)


# ---- the tests, in one process that forks ----

class Runner:
    """A plugin of pytest: what it does when the tests have been collected."""

    def __init__(self, folder, mutants, seconds, again=False):
        self.folder, self.mutants, self.seconds = folder, mutants, seconds
        self.enough = "killed" if again else ("killed", "survived", "import", "not reached")
        self.known = folder / "reached.json"
        self.results = folder / "results.json"
        self.say = None

    def pytest_runtest_logreport(self, report):
        if self.say:
            self.say(report)

    def pytest_runtestloop(self, session):
        from flatgrad import _core
        library = ctypes.CDLL(_core.__file__)
        self.on = ctypes.c_int.in_dll(library, "fg_mutant_on")
        self.reached = (ctypes.c_ubyte * 100000).in_dll(library, "fg_mutant_reached")
        self.at_import = {n for n in self.mutants if self.reached[n]}
        self.items = session.items
        reached = self.what_is_reached()
        self.run_mutants(reached)
        return True

    # -- which test reaches which mutant, and in what time --

    def what_is_reached(self):
        known = json.loads(self.known.read_text()) if self.known.exists() else {}
        files = {}
        for k, item in enumerate(self.items):
            files.setdefault(item.location[0], []).append(k)
        for file, indices in files.items():
            if file in known:
                continue
            _, said = self.forked(self.reach, [indices], seconds=900, cpu=900)
            known[file] = [json.loads(line) for line in said.splitlines()]
            self.known.write_text(json.dumps(known))
            passed = [entry for entry in known[file] if not entry[2]]
            print(f"{file}: {len(passed)} of {len(indices)} tests, {sum(e[1] for e in passed):.1f} s, "
                  f"{len({n for e in passed for n in e[3]})} mutants reached", flush=True)
        where = {item.nodeid: k for k, item in enumerate(self.items)}
        return [(where[name], seconds, numbers) for entries in known.values()
                for name, seconds, failed, numbers in entries if not failed and name in where]

    def reach(self, write, indices):
        failed = []
        self.say = lambda report: failed.append(1) if report.failed else None
        for i, k in enumerate(indices):
            item = self.items[k]
            ctypes.memset(self.reached, 0, 100000)
            failed.clear()
            started = time.process_time()
            following = self.items[indices[i + 1]] if i + 1 < len(indices) else None
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            seconds = time.process_time() - started
            flat = bytes(self.reached)
            found = [n for n in self.mutants if flat[n]]
            write(json.dumps([item.nodeid, round(seconds, 4), len(failed), found]) + "\n")

    # -- the mutants --

    def run_mutants(self, reached):
        done = json.loads(self.results.read_text()) if self.results.exists() else {}
        for number, mutant in self.mutants.items():
            if done.get(str(number), ["not run"])[0].startswith(self.enough):
                continue
            tests = sorted((seconds, k) for k, seconds, numbers in reached if number in numbers)
            if not tests:
                done[str(number)] = ["import" if number in self.at_import else "not reached", "", 0]
            else:
                total, some = 0.0, []
                for seconds, k in tests:
                    total += seconds
                    if total > self.seconds and some:
                        break
                    some.append(k)
                some.sort()   # in the order in which they stand, for the fixtures of modules
                quick = sorted(k for _, k in tests[:12])
                rest = [k for k in some if k not in quick]
                status, text = self.forked(self.try_tests, [number, quick + rest], seconds=30 + 8 * total,
                                           cpu=5 + 4 * total)
                how = ("survived" if text == "survived" else f"killed: {text}" if text else
                       "killed: time limit" if status in (-signal.SIGXCPU, -signal.SIGKILL) else f"killed: {status}")
                done[str(number)] = [how, str(mutant), len(some)]
            self.results.write_text(json.dumps(done))
            print(f"{number} {done[str(number)][0][:90]} | {mutant}", flush=True)

    def try_tests(self, write, number, indices):
        def stop(report):
            if report.failed:
                write(report.nodeid)
                os._exit(1)
        self.say = stop
        os.environ["FLATGRAD_MUTANT"] = str(number)
        self.on.value = number
        for i, k in enumerate(indices):
            following = self.items[indices[i + 1]] if i + 1 < len(indices) else None
            self.items[k].config.hook.pytest_runtest_protocol(item=self.items[k], nextitem=following)
        write("survived")

    def forked(self, work, arguments, seconds, cpu):
        """Status, as Popen has it, and output of a function in a process of its own."""
        box = self.folder / "said"
        box.write_text("")
        sys.stdout.flush()
        child = os.fork()
        if not child:
            code = 1
            try:
                os.setpgid(0, 0)
                void = os.open(os.devnull, os.O_RDWR)
                for stream in (0, 1, 2):
                    os.dup2(void, stream)
                resource.setrlimit(resource.RLIMIT_CPU, (int(cpu) + 1, int(cpu) + 6))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (size + (6 << 30), size + (6 << 30)))
                with open(box, "a") as file:
                    def write(text):
                        file.write(text)
                        file.flush()
                    work(write, *arguments)
                code = 0
            finally:
                os._exit(code)
        until = time.monotonic() + seconds * 4   # of the clock: the machine may have other work
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > until:
                os.killpg(child, signal.SIGKILL)
            time.sleep(0.02)
        try:
            os.killpg(child, signal.SIGKILL)   # what it has started
        except ProcessLookupError:
            pass
        return os.waitstatus_to_exitcode(status), box.read_text()


def serve(folder, mutants, seconds, files, again):
    """Run pytest in this process, with the package of the folder; without tests that depend on time."""
    import pytest
    tree = folder / "tree"
    os.chdir(tree)
    sys.path.insert(0, str(tree / "tests"))
    signal.signal(signal.SIGINT, signal.default_int_handler)   # a shell's background has it ignored; tests send it
    runner = Runner(folder, mutants, seconds, again)
    files = [f"tests/{Path(file).name}" for file in files] or sorted(
        str(path.relative_to(tree)) for path in tree.glob("tests/test_*.py")
        if path.stem.removeprefix("test_") not in OUTSIDE and not path.stem.startswith("test_torch"))
    return pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "no:xdist", "-p", "no:timeout",
                        "--capture=no", "-m", "not slow", "-k", "not interrupt", *files], plugins=[runner])


def explained():
    if not EXPLAINED.exists():
        return []
    return [line for line in EXPLAINED.read_text("utf-8").splitlines() if line.strip() and not line.startswith("#")]


def report(folder, mutants, dropped):
    done = json.loads((folder / "results.json").read_text())
    known, counts, bad = explained(), Counter(), []
    for number, mutant in mutants.items():
        how = done.get(str(number), ["not run"])[0]
        part = "csrc" if mutant.path.startswith("csrc/") else "border"
        word = "killed" if how.startswith("killed") else how
        if word in ("survived", "not reached"):
            if any(line.startswith(" | ".join([*mutant.key(), ""])) for line in known):   # which may have a | themselves
                word = "explained"
            else:
                bad.append(f"{word}: {mutant}")
        counts[part, word] += 1
    print(*sorted(bad), sep="\n")
    for part in sorted({part for part, _ in counts}):
        print(f"{part}: " + ", ".join(f"{n} {word}" for (p, word), n in sorted(counts.items()) if p == part))
    print(f"{dropped} more did not compile")
    return 1 if bad else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--files", nargs="+", help="sources or folders of them; default: csrc and the border")
    parser.add_argument("--tests", nargs="+", default=[], help="default: all that reach the compiled part")
    parser.add_argument("--seconds", type=float, default=60, help="of tests for a mutant, the fastest first")
    parser.add_argument("--folder", type=Path, help="keeps the build and the results, and goes on from there")
    parser.add_argument("--again", action="store_true", help="what survived, with the tests that are named this time")
    parser.add_argument("--list", action="store_true", help="only print the mutants")
    options = parser.parse_args()
    if options.list:
        print(*chosen(ROOT, sources(ROOT, options.files), options.count, options.seed), sep="\n")
        return 0
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="mutants-"))).resolve()
    tree, made = folder / "tree", folder / "mutants.json"
    try:
        if not made.exists():
            copy_of_tree(tree)   # what the checkout is now: it may change while the tests run
            picked = chosen(tree, sources(tree, options.files), options.count, options.seed)
            mutants = dict(enumerate(picked, 1))
            shutil.rmtree(folder / "build", ignore_errors=True)
            shutil.copy(build(tree, folder / "build", mutants), tree / "src" / "flatgrad")
            made.write_text(json.dumps([options.count, {number: vars(mutant) for number, mutant in mutants.items()}]))
        count, known = json.loads(made.read_text())
        mutants = {int(number): Mutant.known(fields) for number, fields in known.items()}
        path = str(tree / "src")   # for this process and for those that tests start
        if os.environ.get("PYTHONPATH") != path:
            environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
            return subprocess.run([sys.executable, __file__, *sys.argv[1:], "--folder", folder],
                                  env=environment).returncode
        serve(folder, mutants, options.seconds, options.tests, options.again)
        return report(folder, mutants, count - len(mutants))
    finally:
        if not options.folder:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
