"""The modules that `import micrograd` finds: flatgrad's, or the program's own package with flatgrad's Value."""
from __future__ import annotations

import os
import sys

from flatgrad import Value, engine
from flatgrad.arguments import shortened
from flatgrad.compat.common import installed, note, place
from flatgrad.errors import ArgumentTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flatgrad._core import _Path

__all__ = ["install_as_micrograd", "load_ipython_extension"]

# Length and CRC-32 of engine.py and nn.py of the micrograd that flatgrad replaces, with line ends \n. Another installed
# package named micrograd keeps its modules, like a package beside the program.
MICROGRAD = {"engine.py": (2730, 3584426515), "nn.py": (1613, 2081168415)}


def install_as_micrograd(*, nn: bool = False, scalar_graph: bool = False) -> None:
    """Make ``import micrograd`` mean flatgrad in this process, whether or not micrograd is installed.

    After the call `micrograd.engine` is `flatgrad.engine`, and `micrograd.nn` is `flatgrad.nn`. A program may have
    its own package `micrograd`, a folder beside the program. Then only its class `Value` is replaced by flatgrad's,
    and a line on stderr says so. Call this function before the first import of micrograd; a second call changes
    nothing.

    Parameters
    ----------
    nn : bool, optional
        Whether `micrograd.nn` becomes `flatgrad.nn` even if the program has its own package.
    scalar_graph : bool, optional
        Whether to keep operators of the program's own `Value` that make other nodes than flatgrad's.

    Raises
    ------
    RuntimeError
        If micrograd's own `engine` or `nn` has been imported already: Values of two classes would meet.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.install_as_micrograd()  # doctest: +SKIP
    >>> from micrograd.engine import Value  # doctest: +SKIP
    >>> Value is flatgrad.Value  # doctest: +SKIP
    True
    """
    if any(isinstance(finder, Micrograd) for finder in sys.meta_path):
        return
    for name in ("engine", "nn"):
        if f"micrograd.{name}" in sys.modules:
            raise RuntimeError(
                f"micrograd.{name} is already imported, from another package: call "
                "flatgrad.install_as_micrograd() before the first import of micrograd"
            )
    old = sys.modules.get("micrograd")
    sys.meta_path.insert(0, Micrograd(nn, scalar_graph))
    if old is not None and own_package() is None:  # the real package, imported without its modules
        del sys.modules["micrograd"]
        import micrograd.nn

        old.engine, old.nn = micrograd.engine, micrograd.nn


def load_ipython_extension(ipython: Any) -> None:
    """Add the line magic ``%micrograd`` to IPython or a notebook; ``%load_ext flatgrad`` calls this.

    ``%micrograd`` is `install_as_micrograd`: after it ``from micrograd.engine import Value`` means flatgrad's. It has the
    options ``--nn`` and ``--scalar-graph``.

    Parameters
    ----------
    ipython : IPython.core.interactiveshell.InteractiveShell
        The shell. Nothing else of it changes: pictures of Values and tables of Tensors need no extension.

    Raises
    ------
    TypeError
        If `ipython` is no shell.

    Examples
    --------
    In a notebook, before the first import of micrograd::

        %load_ext flatgrad
        %micrograd
        from micrograd.engine import Value
    """
    if not callable(getattr(ipython, "register_magic_function", None)):
        raise ArgumentTypeError("ipython: expected the shell of IPython, which %load_ext flatgrad gives, got "
                                f"{shortened(ipython)}")

    def micrograd(line: str) -> None:
        """Make ``import micrograd`` mean flatgrad: %micrograd [--nn] [--scalar-graph]"""
        from IPython.core.error import UsageError

        options = line.split()
        if not {*options} <= {"--nn", "--scalar-graph"}:
            raise UsageError(f"%micrograd: expected no more than --nn and --scalar-graph, got {line.strip()}")
        try:
            install_as_micrograd(nn="--nn" in options, scalar_graph="--scalar-graph" in options)
        except RuntimeError as error:
            raise UsageError(f"%micrograd: {error}; in a notebook, restart the kernel first") from None
        print("import micrograd now means flatgrad")

    ipython.register_magic_function(micrograd, "line", "micrograd")


class Micrograd:
    """The finder of `micrograd`. At the first import it decides which package the program would import.

    `sources` are the program's own files, if known, because uses of the class in them matter.
    """

    options: Any
    finder: Any
    sources: Any

    def __init__(self, nn: Any, scalar_graph: Any) -> None:
        self.options, self.finder, self.sources = (nn, scalar_graph), None, []

    def find_spec(self, name: Any, path: _Path = None, target: Any = None) -> Any:
        if name.partition(".")[0] != "micrograd":
            return None
        if self.finder is None:
            own = own_package()
            self.finder = Ours(["micrograd", "micrograd.engine", "micrograd.nn"]) if own is None else Own(
                own, *self.options, self.sources)
        return self.finder.find_spec(name, path, target)


class Ours:
    """The finder of flatgrad's modules under micrograd's name; no other modules of the package are found."""

    def __init__(self, names: Any) -> None:
        self.names = names

    def find_spec(self, name: Any, path: _Path = None, target: Any = None) -> Any:
        if name in self.names:
            import importlib.machinery

            return importlib.machinery.ModuleSpec(name, self, is_package=name == "micrograd")
        return None

    def create_module(self, spec: Any) -> Any:
        return None  # an ordinary module; it may be replaced by another one when it is executed

    def exec_module(self, module: Any) -> None:
        if module.__name__ == "micrograd":
            module.__doc__ = "flatgrad, under micrograd's name."
            module.__path__ = []  # no other submodules, so that the real package's are not imported
            module.Value = Value
            module.__getattr__ = submodule
            module.__flatgrad__ = True
            return
        if module.__name__ == "micrograd.engine":
            sys.modules[module.__name__] = engine
        else:
            from flatgrad import nn

            sys.modules[module.__name__] = nn


def submodule(name: Any) -> Any:
    """The modules of the stub, imported at first use: flatgrad.nn takes a while to import."""
    if name in ("engine", "nn"):
        from importlib import import_module

        return import_module(f"micrograd.{name}")
    raise AttributeError(f"module 'micrograd' has no attribute {name!r}")


# ---- the program's own package ----

def own_package() -> Any:
    """The folder of the package `micrograd` that the program would import, or the file of a module with this name.
    None if it is micrograd itself."""
    import importlib.machinery

    package = sys.modules.get("micrograd")
    spec = importlib.machinery.PathFinder.find_spec("micrograd") if package is None else package.__spec__
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or [])
    where = folders[0] if folders else spec.origin
    if installed(where) and all(digest(os.path.join(where, name)) == known for name, known in MICROGRAD.items()):
        return None
    return where


def digest(path: _Path) -> Any:
    from zlib import crc32

    try:
        with open(path, "rb") as file:
            source = file.read().replace(b"\r\n", b"\n")
    except OSError:
        return None
    return len(source), crc32(source)


class Own:
    """The finder for the program's own package: it adds the call that replaces the class `Value` in it."""

    ours: Any
    job: Any

    def __init__(self, folder: Any, nn: Any, scalar_graph: Any, sources: Any) -> None:
        from flatgrad.compat.source import Job, definitions, modules_in, parse, read

        self.ours = Ours(["micrograd.nn"]) if nn else None
        own = modules_in(folder, "micrograd") if os.path.isdir(folder) else {"micrograd": folder}
        kept = [name for name, path in own.items() if name not in ("micrograd", "micrograd.nn" if nn else "")]
        with_class = [name for name, path in own.items() if definitions(path, "Value")]
        kept = [name for name in kept if name not in with_class[:1]]
        self.job = Job("Value", package="micrograd", whole=False, scalar_graph=scalar_graph)
        for tree in filter(None, map(read, own.values())):
            self.job.learn(tree)
        for source in sources:
            try:
                self.job.learn(parse(source))
            except (SyntaxError, ValueError):
                pass  # the error is reported when the module is imported
        self.job.rest = "".join([
            f"; {', '.join(kept)} {'stays' if len(kept) == 1 else 'stay'} the program's own" if kept else "",
            " (--nn takes flatgrad.nn)" if "micrograd.nn" in kept else "",
            "; micrograd.nn is flatgrad.nn, with micrograd's layers and first weights" if nn else ""])
        if not with_class:
            note(f"{place(folder)} is the program's own package, without a class Value with data, grad and backward(): "
                 "nothing of it is replaced"
                 + (", but for micrograd.nn" if nn else ""))

    def find_spec(self, name: Any, path: _Path = None, target: Any = None) -> Any:
        if self.ours is not None and name == "micrograd.nn":
            return self.ours.find_spec(name, path, target)
        return self.job.find_spec(name, path, target)
