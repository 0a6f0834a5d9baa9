"""``python -m flatgrad run``: a program written for micrograd, unchanged, on flatgrad."""
from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
# `compat` and argparse are imported within the functions that use them: see `flatgrad.cli`.
__all__ = ["add", "split", "start", "without_options"]

USAGE = """\
python -m flatgrad run [OPTION ...] PROGRAM [ARGUMENT ...]
       python -m flatgrad run [OPTION ...] -m MODULE [ARGUMENT ...]"""

HELP = """\
Run a program that was written for micrograd, unchanged, on flatgrad. In the program,
`import micrograd` gives flatgrad, even if micrograd is installed. Everything after PROGRAM or
MODULE is passed on to the program.

A folder micrograd beside the program is the program's own package: only its class Value is
replaced. A note on stderr says which class was replaced and what stays the program's own. An
operation stays if its numbers or gradients differ from flatgrad's. If no mixture gives the
program's own numbers, the class is not replaced, and a message gives the reason.

The code cells of a notebook are run in order. IPython's lines in them (%magic, !command) are
skipped, with a note on stderr. Plots and the value on a cell's last line are not shown."""

EXAMPLES = """\
examples:
  python -m flatgrad run train.py --steps 100
      instead of: python train.py --steps 100
  python -m flatgrad run demo.ipynb
      the notebook's code cells, one after the other
  python -m flatgrad run -m mypackage.train
      instead of: python -m mypackage.train
  python -m flatgrad run --replace-class Value gpt.py
      a program with its own `class Value`, in the script or in a module beside it: flatgrad's
      class replaces it
  python -m flatgrad run --replace-class engine.Value train.py
      the class in the module engine"""


def split(argv: list[str]) -> tuple[list[str], None]:
    """Split the arguments of ``run [OPTION ...] PROGRAM [ARGUMENT ...]`` into ours and the program's.

    Returns
    -------
    ours : list of str
        All arguments if no program is named.
    passed_on : list of str or None
        None if no program is named.
    """
    end = 1
    while argv[:1] == ["run"] and end < len(argv):
        word = argv[end]
        end += 2 if word in ("-m", "--replace-class", "--") else 1
        if word in ("-h", "--help") or end > len(argv):
            break
        if not word.startswith("-") or word.startswith("-m") or word in ("-", "--"):
            return argv[:end], argv[end:]
    return argv, None


def without_options(argv: Any) -> Any:
    """The program that ``run`` has to start, if there are no options: argparse is then not needed.

    Returns
    -------
    tuple of str and bool, or None
        The script or the module, and whether it is a module. None if there are options or special cases.
    """
    module = argv[1:2] == ["-m"]
    target = argv[1 + module:]
    return (target[0], module) if len(target) == 1 and not target[0].startswith("-") else None


def add(commands: Any, passed_on: tuple[()]) -> None:
    """Add the command to argparse's; `passed_on` are the arguments of the program."""
    from flatgrad.cli.common import identifier, once

    sub = commands.add_parser(
        "run",
        help="run a script or notebook written for micrograd, on flatgrad",
        usage=USAGE,
        description=HELP,
        epilog=EXAMPLES,
    )
    sub.set_defaults(command=program, parser=sub, passed_on=passed_on)
    sub.add_argument("program", metavar="PROGRAM", nargs="?",
                     help="a script, or a notebook if the name ends in .ipynb")
    sub.add_argument("-m", dest="module", metavar="MODULE",
                     help="a module to run, found as python -m finds it")
    sub.add_argument("--replace-class", metavar="NAME", type=identifier, action=once(),
                     help="put flatgrad's Value in the place of the class NAME, or MODULE.NAME, that the "
                          "program or a module that it imports from its own folder defines at its top level")
    sub.add_argument("--scalar-graph", action="store_true",
                     help="build micrograd's graph node for node, for programs that read _op and _prev")
    sub.add_argument("--nn", action="store_true",
                     help="replace micrograd.nn too where the program has a package micrograd of its own")


def program(args: Any) -> Any:
    """Run a script, a notebook or a module."""
    module = args.module is not None
    if not module and args.program is None:
        args.parser.error("expected a script, a notebook or -m MODULE; --help shows examples")
    return start(args.module if module else args.program, module, args.passed_on, replace_class=args.replace_class,
                 scalar_graph=args.scalar_graph, nn=args.nn)


def start(target: Any, module: Any, passed_on: Any, **options: Any) -> Any:
    """Run the program, with these options of `compat.run`."""
    from flatgrad import compat

    try:
        return compat.run(target, passed_on, module=module, **options)
    except compat.Refusal as error:
        from flatgrad.cli.common import Parser

        Parser(prog="python -m flatgrad run").error(str(error))
