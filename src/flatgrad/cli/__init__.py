"""The command line, ``python -m flatgrad``: parsing, printing and exit codes.

`datasets` has the samples, `viz` the drawings; `compat` runs programs. Each module of this package has a family of
commands. `common` has the parts that they share, and `training` the loop.

Exit codes: 0 done; 1 training diverged, or libraries compute different numbers; 2 bad arguments, input
or output, with one line on stderr; 130 interrupted; 141 the reader of our output has closed the pipe. A program
that is run has its own exit code.
"""
from __future__ import annotations

# NumPy is imported where it is used, and so are `datasets`, `viz` and other modules that import NumPy: a program that
# is run may have to prepare for NumPy first. To start programs quickly, other commands and argparse are not imported
# either: a command's module is imported when the command is run, or when all commands are listed.
import os
import sys

from flatgrad.cli import program

__all__ = ["main", "script"]

# Command -> the module of this package whose function `add` adds the command to argparse, in the order of --help.
COMMANDS = {"moons": "moons", "xor": "problems", "parity": "problems", "sum": "problems", "run": "program",
            "bench": "bench", "info": "info"}

DESCRIPTION = """\
flatgrad: scalar automatic differentiation on flat C arrays.

Learn something on the command line, run programs written for micrograd, see what this
installation can do. `flatgrad`, which pip installs, is short for `python -m flatgrad`."""

EPILOG = """\
examples:
  python -m flatgrad moons
      train a network of 337 parameters and see its decision boundary, in a second
  python -m flatgrad xor --help
      what the problem is, why it matters, and the ten lines of Python that do the same
  python -m flatgrad run train.py
      a program written for micrograd, many times faster"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : list of str, optional
        Arguments, without the program's name; by default those of the process.

    Returns
    -------
    int

    Raises
    ------
    SystemExit
        For --help and --version, and for errors in the arguments.

    Examples
    --------
    >>> from flatgrad.cli import main
    >>> main(["xor", "--epochs", "100", "--seed", "1"])  # doctest: +SKIP
    0
    """
    argv, passed_on = program.split(sys.argv[1:] if argv is None else list(argv))
    if passed_on is not None:
        # Before the changes to stdout below, which must not affect a program.
        named = program.without_options(argv)
        return run(argv, passed_on) if named is None else program.start(*named, passed_on)
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold any character
    try:
        try:
            return run(argv)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where its errors can be caught
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # from stdout: errors of files are caught where files are opened
        # Python flushes stdout once more at exit; this makes the flush succeed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141
        print(f"flatgrad: error: standard output: {error.strerror}", file=sys.stderr)
        return 2


def script() -> int:
    """The program ``flatgrad`` that pip installs: `main`, with modules found as ``python -m`` finds them.

    Returns
    -------
    int
    """
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = os.getcwd()  # instead of the folder of the program
    return main()


def run(argv: list[str], passed_on: tuple[()] = ()) -> int:
    """Parse the arguments and run the command; `passed_on` are the arguments of the program that it runs."""
    from importlib import import_module

    from flatgrad.cli.common import Parser, suggestion

    version, command = None, argv[0] if argv else None
    names = [COMMANDS[command]] if command in COMMANDS else dict.fromkeys(COMMANDS.values())
    if "--version" in argv:
        from flatgrad import __version__ as version   # reads the metadata, which is slow
        if command == "--version":
            names = ()
    parser = Parser(prog="python -m flatgrad", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"flatgrad {version}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name in names:
        module = import_module(f"flatgrad.cli.{name}")
        if module is program:
            module.add(commands, passed_on)
        else:
            module.add(commands)

    if argv and not argv[0].startswith("-") and argv[0] not in commands.choices:
        parser.error(f"unknown command {argv[0]!r}, expected one of {', '.join(commands.choices)}"
                     f"{suggestion(argv[0], commands.choices)}")
    args, unknown = parser.parse_known_args(argv)
    if "command" not in args:
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        parser.print_help(sys.stderr)
        return 2
    if unknown:
        # Compare without the dashes, which would make all options similar.
        options = [option.lstrip("-") for action in args.parser._actions for option in action.option_strings]
        near = suggestion(unknown[0].lstrip("-").split("=")[0], options).replace("mean ", "mean --")
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}{near}")
    return args.command(args)
