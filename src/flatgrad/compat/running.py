"""Executes a program as ``python`` does, in this process, with flatgrad for micrograd."""
from __future__ import annotations

import builtins
import os
import sys
import types

from flatgrad.compat import common
from flatgrad.compat.common import Refusal, Stop, shown
from flatgrad.compat.install import Micrograd, install_as_micrograd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from flatgrad._core import _Path

__all__ = ["run"]


def run(target: str, arguments: Sequence[str] = (), *, module: bool = False, replace_class: str | None = None,
        scalar_graph: bool = False, nn: bool = False) -> int:
    """Run a program as ``__main__`` of this process, with flatgrad for micrograd.

    Parameters
    ----------
    target : str
        Path of a script, or of a notebook if it ends in ``.ipynb``; with `module`, the name of a module.
    arguments : sequence of str, optional
        The arguments for the program's `sys.argv`.
    module : bool, optional
        Whether `target` is a module, found and run as ``python -m`` does.
    replace_class : str, optional
        The name of a class to replace by `flatgrad.Value`, or module.name. The class is defined in the program, or
        in a module that the program imports from its own folder.
    scalar_graph : bool, optional
        Whether to build micrograd's graph node for node, for programs that read `_op` and `_prev`.
    nn : bool, optional
        Whether `micrograd.nn` is `flatgrad.nn` even if the program has its own package micrograd.

    Returns
    -------
    int
        0; 1 after an exception, whose traceback is printed with the program's own frames; 130 after an interrupt.

    Raises
    ------
    SystemExit
        If the program raises it.
    Refusal
        If there is no such program, a notebook is damaged, or flatgrad's Value cannot replace the class.

    Notes
    -----
    The process belongs to the program from then on: `sys.modules['__main__']`, `sys.argv` and `sys.path` keep their
    new values, for threads and `atexit` functions of the program.
    """
    main = types.ModuleType("__main__")
    main.__builtins__ = builtins
    common.speaker = "flatgrad run"
    try:
        if module:
            folder = sys.path[0] or os.getcwd()
        else:
            cells = read_cells(target)
            folder = os.path.dirname(os.path.realpath(target))
            if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
                sys.path[0] = folder
        install_as_micrograd(nn=nn, scalar_graph=scalar_graph)
        if not module:
            finder = next(finder for finder in sys.meta_path if isinstance(finder, Micrograd))
            finder.sources = [code for code, _ in cells]
        job = cached = None
        if replace_class is not None:
            from flatgrad.compat.source import Job

            job = Job(replace_class, folder, main=main_name(target, module), scalar_graph=scalar_graph)
            sys.meta_path.insert(0, job)
        if scalar_graph:
            from flatgrad.compat.scalars import scalar_graph_everywhere

            scalar_graph_everywhere()
        if module:
            spec = find_module(target)
            cells = [(spec.loader.get_source(spec.name), spec.origin)]
            if cells[0][0] is None:
                raise Refusal(f"module {target} has no source")
            sys.argv = [spec.origin, *arguments]
            main.__spec__, main.__file__, main.__loader__ = spec, spec.origin, spec.loader
            main.__package__, cached = spec.parent, spec.cached
        else:
            sys.argv = [target, *arguments]
            if is_notebook(target):
                os.environ.setdefault("MPLBACKEND", "Agg")  # there is no front end for drawings
            else:
                import importlib.machinery   # `from` it would ask it for a __path__, and from 3.14 on import warnings

                main.__file__ = os.path.abspath(target)
                main.__loader__ = importlib.machinery.SourceFileLoader("__main__", main.__file__)
        if sys.version_info < (3, 15) and hasattr(main, "__file__"):
            main.__cached__ = cached   # Python itself has none from then on
        if job is not None:
            cells = job.in_program(cells, target if not module else spec.origin, main.__package__ or "")
        sys.modules["__main__"] = main
        for code, name in cells:
            exec(compile(code, name, "exec", dont_inherit=True), main.__dict__)
        if job is not None:
            job.check_done()
    except (SystemExit, Refusal) as error:
        if isinstance(error, Refusal) and sys.modules["__main__"] is main:
            return failed(error)  # raised by the program, which may call `run` itself
        raise
    except Stop as error:
        raise Refusal(str(error)) from None
    except BaseException as error:
        return failed(error)
    return 0


def failed(error: Any) -> Any:
    """Print the traceback of a program's exception, without our frames, and return the exit code."""
    import traceback

    ours = os.path.dirname(__file__)
    frames = error.__traceback__
    while frames is not None and (os.path.dirname(frames.tb_frame.f_code.co_filename) == ours
                                  or frames.tb_frame.f_globals.get("__name__") == "importlib.util"):
        frames = frames.tb_next
    error.__traceback__ = frames
    if sys.excepthook is sys.__excepthook__:
        # The hook itself may not find the lines of a notebook's cells.
        traceback.print_exception(type(error), error, frames)
    else:
        sys.excepthook(type(error), error, frames)
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def find_module(name: Any) -> Any:
    """The spec of the module that ``python -m name`` runs."""
    import importlib.util

    if not all(part.isidentifier() for part in name.split(".")):
        raise Refusal(f"argument -m: expected the name of a module, got {name!r}")
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name += ".__main__"
            spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a package above the module misses another module
        spec = None
    except ValueError:  # __main__, which is this program
        spec = None
    if spec is None:
        raise Refusal(f"no module named {name}")
    if not hasattr(spec.loader, "get_source"):
        raise Refusal(f"module {name} has no source")
    return spec


def is_notebook(path: _Path) -> Any:
    """Whether `path` is a notebook."""
    return path.lower().endswith(".ipynb")


def read_cells(path: _Path) -> Any:
    """The sources to execute, in order: pairs of a source and its name in tracebacks."""
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        raise Refusal(f"cannot read {shown(path)}: {error.strerror}") from error
    except ValueError as error:  # because of a null character
        raise Refusal(f"cannot read {shown(path)}: {error}") from error
    if not is_notebook(path):
        return [(source, os.path.abspath(path))]
    from flatgrad.compat import notebooks

    try:
        return notebooks.read(source, path)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{shown(path)}: not a notebook: {error}") from error


def main_name(target: Any, module: Any) -> Any:
    """The name of the program's own module, for --replace-class."""
    return target if module else os.path.splitext(os.path.basename(target))[0]
