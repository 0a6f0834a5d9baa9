"""Checks that run for as long as one likes.

    python tests/checks                                 lists the parts
    python tests/checks short                           all of them, some seconds each, as CI does
    python tests/checks tape compiled --seconds 600     these, ten minutes each
    python tests/checks tape --seed 31 --count 1        the round that failed
    python tests/checks memory --help                   what else a part takes

A part is a module of this folder with a function ``run(limit, options)``: it does a round for each seed of ``limit``,
and returns a sentence with figures, or raises. The first line of its docstring is what the list shows. It may have

- ``SHORT``, seconds in ``short`` (5),
- ``options(parser)``, which adds arguments of its own,
- ``shrunk(seed)``, the failing round as a script of a few lines, which is printed.

Several parts run one after the other, each in a process of its own: one that crashes is told as such, and the others
still run. The exit code is 1 if one failed, and 2 if one that was named has not what it needs; ``short`` leaves it out.
"""
import argparse
import ast
import importlib
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[0] = str(FOLDER.parent)   # the modules are those of the package `checks`, and use what the tests share

from checks.limits import Limit, Unavailable  # noqa: E402


def parts():
    """The parts by name, with the first line of what each says of itself."""
    found = {}
    for path in sorted(FOLDER.glob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body):
            found[path.stem] = ast.get_docstring(tree).partition("\n")[0]
    return found


def positive(kind):
    """A number above 0, for argparse."""
    def number(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value
    number.__name__ = f"positive {kind.__name__}"
    return number


def parser_of(name, module):
    """The arguments of one part."""
    parser = argparse.ArgumentParser(prog=f"python tests/checks {name}", description=module.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=positive(float), default=60.0, metavar="S", help="how long (default 60)")
    parser.add_argument("--count", type=positive(int), metavar="N", help="so many rounds instead")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first round's seed (default 0)")
    parser.add_argument("--short", action="store_true", help="as in `short`")
    if hasattr(module, "options"):
        module.options(parser)
    return parser


def run_part(name, arguments):
    """The exit code of one part, run here."""
    module = importlib.import_module(f"checks.{name}")
    options = parser_of(name, module).parse_args(arguments)
    if options.short:
        options.seconds = getattr(module, "SHORT", 5.0)
    limit = Limit(options.seconds, options.count, options.seed, options.short)
    try:
        told = module.run(limit, options)
    except Unavailable as why:
        print(f"{name}: left out: {why}", file=sys.stderr)
        return 0 if options.short else 2
    except BaseException as error:
        if not isinstance(error, SystemExit):
            print(f"{name}: failed with --seed {limit.seed}", file=sys.stderr)
            if hasattr(module, "shrunk") and isinstance(error, Exception):
                print(module.shrunk(limit.seed), file=sys.stderr)
        raise
    print(f"{name}: {told}", flush=True)
    return 0


def run_parts(names, arguments):
    """The exit code of several parts, each in its own process."""
    codes = []
    for name in names:
        began = time.monotonic()
        code = subprocess.run([sys.executable, str(FOLDER), name, *arguments]).returncode
        if code:
            print(f"{name}: ended with {code} after {time.monotonic() - began:.0f} s", file=sys.stderr)
        codes.append(code)
    return next((code if code == 2 else 1 for code in codes if code), 0)


def main(arguments):
    known = parts()
    names = []
    while arguments and not arguments[0].startswith("-"):
        if arguments[0] not in known and arguments[0] != "short":
            if len(names) == 1:
                break   # what the part itself takes
            print(f"checks: expected some of: short {' '.join(known)}, got {arguments[0]!r}", file=sys.stderr)
            return 2
        names.append(arguments.pop(0))
    if not names:
        if arguments and arguments[0] not in ("-h", "--help"):
            print(f"checks: expected the name of a part before {arguments[0]!r}", file=sys.stderr)
            return 2
        print(__doc__)
        width = max(map(len, known))
        print("\n".join(f"{name:{width}}  {what}" for name, what in known.items()))
        return 0
    if "short" in names:
        names, arguments = [name for name in known if len(names) == 1 or name in names], ["--short", *arguments]
    return run_part(names[0], arguments) if len(names) == 1 else run_parts(names, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
