"""What the modules of `flatgrad.compat` share: how a program is refused, and how it is told something."""
import os
import sys

__all__ = ["Refusal", "Stop", "installed", "note", "place", "shown"]


class Refusal(ValueError):
    """What `run` was asked for cannot be run; the message says why."""


class Stop(BaseException):
    """Ends a run from within the program, whatever that catches; the message says why."""


speaker = "flatgrad"  # `run` puts its name here


def note(text):
    """Tell something about the program, apart from its output."""
    if sys.stderr is not None:
        print(f"{speaker}: note: {text}", file=sys.stderr)


def shown(path):
    """`path` as messages show it: quoted only if it has characters that do not print."""
    return path if path.isprintable() and path else repr(path)


def place(path):
    """A file as messages name it: from the working directory if it lies there."""
    try:
        near = os.path.relpath(path)
    except ValueError:  # another drive
        near = path
    return shown(path if near.startswith(os.pardir) else near)


def installed(path):
    """Whether it lies where pip installs."""
    return not {"site-packages", "dist-packages"}.isdisjoint(os.path.abspath(path).split(os.sep))
