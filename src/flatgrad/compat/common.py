"""The parts that the modules of `flatgrad.compat` share: errors that refuse a program, and notes to the user."""
from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flatgrad._core import _Path

__all__ = ["Refusal", "Stop", "installed", "note", "place", "shown"]


class Refusal(ValueError):
    """`run` cannot run this program; the message gives the reason."""


class Stop(BaseException):
    """Ends a run from within the program, even if the program catches exceptions; the message gives the reason."""


speaker = "flatgrad"  # `run` replaces it by its own name


def note(text: Any) -> None:
    """Print a note about the program on stderr."""
    if sys.stderr is not None:
        print(f"{speaker}: note: {text}", file=sys.stderr)


def shown(path: _Path) -> Any:
    """`path` as messages show it: quoted only if it has characters that do not print."""
    return path if path.isprintable() and path else repr(path)


def place(path: _Path) -> Any:
    """A file in messages: a relative path if the file is below the working directory."""
    try:
        near = os.path.relpath(path)
    except ValueError:  # because of another drive
        near = path
    return shown(path if near.startswith(os.pardir) else near)


def installed(path: _Path) -> Any:
    """Whether the path is in a folder of installed packages."""
    return not {"site-packages", "dist-packages"}.isdisjoint(os.path.abspath(path).split(os.sep))
