"""The parts that the commands share: the parser, converters of arguments, and checks of output files."""
from __future__ import annotations

import argparse
import math
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from flatgrad._core import _Path

__all__ = ["Parser", "check_writable", "finite_number", "identifier", "int_from", "name_of", "once", "positive_number",
           "suggestion"]


class Parser(argparse.ArgumentParser):
    """argparse's parser, with errors of one line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs
        )

    def error(self, message: Any) -> None:
        """Print one line on stderr and exit with code 2."""
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: error: {message}\n")


# ---- converters for argparse ----

def int_from(low: int, high: int | None = None) -> Callable[..., Any]:
    """A converter for argparse: an int between two bounds."""
    expected = f"of {low} or more" if high is None else f"from {low} to {high}"

    def convert(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"expected an integer {expected}, got {text!r}")
        return value

    return convert


def finite_number(text: str) -> float:
    """A converter for argparse: a finite float."""
    return number(text, "a finite number", math.isfinite)


def positive_number(text: str) -> float:
    """A converter for argparse: a finite float above 0."""
    return number(text, "a number above 0", lambda value: 0.0 < value < math.inf)


def number(text: str, expected: str, is_right: Callable[..., Any]) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not is_right(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value


def name_of(known: tuple[str, ...] | dict[str, tuple[str, float]]) -> Callable[..., Any]:
    """A converter for argparse: one of the names, in small or capital letters; the error suggests the nearest name."""
    def convert(text):
        if text.lower() in known:
            return text.lower()
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(known)}, got {text!r}{suggestion(text, known)}")
    return convert


def identifier(text: Any) -> Any:
    """A converter for argparse: the name of a class, or module.name."""
    if not all(part.isidentifier() for part in text.split(".")):
        raise argparse.ArgumentTypeError(f"expected the name of a class, got {text!r}")
    return text


def once() -> type[Any]:
    """An action for argparse: an option that may be given only once."""
    class Once(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None):
            if getattr(namespace, self.dest) is not None:
                parser.error(f"argument {option_string}: expected it once, got it twice: "
                             f"{getattr(namespace, self.dest)} and {values}")
            setattr(namespace, self.dest, values)
    return Once


def suggestion(text: str, known: list[str] | tuple[str, ...] | dict[str, Any]) -> str:
    """The end of a message about an unknown name: the nearest known name, or '' if none is near."""
    import difflib

    near = difflib.get_close_matches(text.lower(), known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


# ---- files ----

def check_writable(parser: Parser, option: str, path: _Path, endings: list[str], others: dict[str, Any]) -> None:
    """Exit if a file cannot or must not be written to `path`; change no file.

    Parameters
    ----------
    parser : Parser
        The parser that reports the error.
    option : str
        The option with the path.
    path : str
    endings : list of str
        If the name of the path has an ending, it has to be one of these.
    others : dict of str to str or None
        Option -> path of the command's other files.
    """
    from flatgrad.datasets import shown_path
    from flatgrad.storage import check_writable as check

    if os.path.splitext(path)[1].lower() not in ("", *endings):
        *most, last = endings
        either = f"{', '.join(most)} or {last}" if most else last
        parser.error(f"argument {option}: expected a name that ends in {either}, got {path!r}")
    for other, other_path in others.items():
        if other_path is not None and is_same(path, other_path):
            parser.error(f"argument {option}: expected another file than {other}'s, got {path!r}")
    try:
        check(path)
    except OSError as error:
        parser.error(f"cannot write {shown_path(path)}: {error.strerror}")


def is_same(path: _Path, other: str) -> bool:
    """Whether two paths lead to the same file, even if it does not exist."""
    if os.path.exists(path) and os.path.exists(other):
        return os.path.samefile(path, other)
    return os.path.abspath(path) == os.path.abspath(other)
