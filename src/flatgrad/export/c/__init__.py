"""A compiled function as one file of C11: `to_c`."""
from __future__ import annotations

import contextlib
import os
import re

from flatgrad.arguments import is_bool, one_of, path_of, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    from flatgrad._core import _Path
    from flatgrad.optim.optimizers import Optimizer
    from flatgrad.program import Compiled

__all__ = ["CSource", "to_c"]

HEADERS = frozenset("""
    assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic
    stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype""".split())


class CSource:
    """A file of C, and its header.

    Attributes
    ----------
    source, header : str
        The text of both. Each can do without the other.
    name : str
        What the function is called in C.
    work : int
        How many bytes its struct for numbers in between has; 0 if it needs none.
    """

    source: str
    header: str
    name: str
    work: int

    def __init__(self, source: Any, header: Any, name: Any, work: Any) -> None:
        self.source, self.header, self.name, self.work = source, header, name, work

    def __str__(self) -> str:
        return self.source

    def __repr__(self) -> str:
        return f"<C of {self.name}: {self.source.count(chr(10))} lines>"


def to_c(compiled: Compiled[Any], path: _Path | None = None,
         gradient: bool | Literal['parameters', 'arguments', 'both'] = True,
         dtype: Literal['float64', 'float32'] | None = None, *, arguments: tuple[Any, ...] | None = None,
         parameters: Literal['struct', 'constant'] = "struct", optimizer: Optimizer | None = None,
         name: str | None = None) -> CSource:
    """A compiled function as one file of C11 that needs nothing but C's library of mathematics.

    Parameters
    ----------
    compiled : Compiled
    path : str or path-like, optional
        Where to write it: "moons.c", and beside it the header, "moons.h". Both are replaced, or none.
    gradient : bool or {"parameters", "arguments", "both"}, optional
        What the gradient is taken by: the parameters, which are all numbers that the function captures and that take
        gradients, or its arguments, or both. True: by the parameters if there are any, else by the arguments. False:
        the file has no gradient.
    dtype : {"float64", "float32"}, optional
        The type of its numbers, double or float. None: that of `compile`.
    arguments : tuple, optional
        Arguments that the function takes: the file is for these shapes. None: those of the last call.
    parameters : {"struct", "constant"}, optional
        "struct": functions take them, in a struct, and another function fills in those of today. "constant": they are
        constants of the file.
    optimizer : Optimizer, optional
        SGD, Adam, AdamW, RMSprop, Adagrad or Adadelta of `flatgrad.optim`: the file has a step of training as well, and
        a struct for the optimizer's state, which goes on with that of today. Parameters that it does not have stay, and
        of those that it has, only the ones that the function reads are in the file.
    name : str, optional
        What the function is called in C. None: as in Python.

    Returns
    -------
    CSource

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described, if the optimizer goes by a rule of its own, if Python computes a part of the
        function, if it draws random numbers, or if a gradient is asked for and the function returns several numbers.
        Nothing is written then.
    OSError
        If a file cannot be written.

    Notes
    -----
    The head of the file tells how to use it. Numbers are given by value, lists and arrays as pointers to their numbers
    row by row, dicts by their keys. Scans and batches are loops. The function allocates no memory: what it needs more
    than a little of, it takes as a struct. Where Python raises an error, as for the logarithm of a negative number, the
    file computes nan or inf.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> w = Value(3.0)
    >>> @flatgrad.compile
    ... def loss(x, y):
    ...     return (w * x - y) ** 2
    >>> c = loss.to_c(arguments=(2.0, 5.0))
    >>> [line for line in c.header.splitlines() if line.startswith(("double", "void"))]
    ['void loss_start(loss_parameters *p);', 'double loss(const loss_parameters *p, double x, double y);', \
'double loss_gradient(const loss_parameters *p, double x, double y, loss_parameters *gradient);']
    """
    from flatgrad.export.c.file import File
    from flatgrad.export.c.updates import write_step
    from flatgrad.export.exported import Exported

    if path is not None:
        path = path_of("to_c: path", path)
        check_path(path)
    if not is_bool(gradient):
        if not isinstance(gradient, str):
            raise ArgumentTypeError("to_c: gradient: expected True, False, 'parameters', 'arguments' or 'both', got "
                                    f"{shortened(gradient)}")
        one_of("to_c: gradient", gradient, ("parameters", "arguments", "both"))
    dtype = type_of("to_c: dtype", compiled.dtype if dtype is None else dtype)
    one_of("to_c: parameters", parameters, ("struct", "constant"))
    if name is not None:
        check_name(name)
    exported = Exported(compiled, arguments, "to_c")
    name = name or name_in_c(exported.name, path)
    by = gradient_by(exported, gradient, parameters)
    if by in ("arguments", "both") and (constant := without_gradients(exported)):
        if arguments is None:
            raise ArgumentError(f"to_c: gradient: expected False or 'parameters', as {constant} was an array or a "
                                f"frozen Value at the last call, by which no gradient is taken; got {gradient!r}; or "
                                "give arguments= of the same shapes")
        exported = Exported(compiled, with_gradients(arguments), "to_c")
    stem = name if path is None else os.path.basename(path)[:-2]
    file = File(exported, name, dtype, by, parameters == "constant", stem)
    if optimizer is not None:
        write_step(file, optimizer)
    made = CSource(file.source(), file.header(), name, file.needed * (4 if dtype == "float32" else 8))
    if path is not None:
        write_both(path, made)
    return made


def check_path(path: _Path) -> None:
    """An error for a file that C could not be told of, or that would stand for another."""
    name = os.path.basename(path)
    if not name.endswith(".c") or name == ".c":
        raise ArgumentError(f"to_c: path: expected the path of a file that ends in .c, got {shortened(path)}")
    if "\0" in path or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.c", name):
        raise ArgumentError("to_c: path: expected the path of a file whose name has letters, digits, _, - and . alone, "
                            f"and begins with none of the last two, got {shortened(path)}")
    if name[:-2].lower() in ("main", *HEADERS):
        what = "that of the program that uses it" if name[:-2].lower() == "main" else "whose header is one of C's own"
        raise ArgumentError(f"to_c: path: expected another name than {name}, {what}; got {shortened(path)}")


def type_of(name: str, dtype: str) -> str:
    """The type of numbers by its name."""
    import numpy as np

    if not isinstance(dtype, str):
        with contextlib.suppress(TypeError):
            dtype = np.dtype(dtype).name
    return one_of(name, dtype, ("float64", "float32"))


def check_name(name: Any) -> None:
    from flatgrad.export.c.identifiers import reserved_because

    expected = "to_c: name: expected an identifier of C"
    if not isinstance(name, str):
        raise ArgumentTypeError(f"{expected}, got {shortened(name)}")
    if not name.isascii() or not name.isidentifier():
        raise ArgumentError(f"{expected}, got {shortened(name)}")
    why = reserved_because(name)
    if why:
        raise ArgumentError(f"{expected} that means nothing yet, got {name!r}, which is {why}")


def name_in_c(name: Any, path: _Path) -> Any:
    """The name of a function in C: as in Python, where that can be; a lambda has that of the file."""
    from flatgrad.export.c.identifiers import Names

    if name == "<lambda>":
        name = os.path.basename(path)[:-2] if path is not None else "function"
    return Names().new(name)


def gradient_by(exported: Any, gradient: Any, parameters: Any) -> Any:
    """What the gradient is taken by, or None."""
    if gradient is False or is_bool(gradient) and not gradient:
        return None
    n_parameters = len(exported.parameters) if parameters == "struct" else 0
    n_arguments = sum(argument.count for argument in exported.arguments)
    by = gradient if isinstance(gradient, str) else "parameters" if n_parameters else "arguments"
    if by != "arguments" and not n_parameters:
        why = "its parameters are constants" if len(exported.parameters) else "it captures none"
        raise ArgumentError(f"to_c: gradient: {exported.name} has no parameters to take it by, as {why}; expected "
                            f"'arguments' or False, got {gradient!r}")
    if by != "parameters" and not n_arguments:
        raise ArgumentError(f"to_c: gradient: {exported.name} has no arguments to take it by; expected False"
                            f"{' or ' + repr('parameters') if n_parameters else ''}, got {gradient!r}")
    n_results = sum(size(shape) for shape, _ in exported.results)
    if n_results != 1:
        raise ArgumentError(f"to_c: gradient: expected False, as {exported.name} returns {n_results} numbers, and a "
                            f"gradient is that of one; got {gradient!r}; or let it return one, such as their sum")
    return by


def without_gradients(exported: Any) -> Any:
    """The name of an argument that takes no gradients, or None."""
    from flatgrad.export.c.signature import parts_of
    from flatgrad.export.exported import Leaf

    for argument in exported.arguments:
        parts = parts_of(argument.tree, argument.name, "", lambda x: (x, ()) if type(x) is Leaf else None, whole=False)
        for path, _, leaf, _ in parts:
            if leaf.frozen:
                return path
    return None


def with_gradients(arguments: Any) -> Any:
    """Arguments with Tensors and Values that take gradients in place of arrays and others."""
    from flatgrad._core import Tensor, Value
    from flatgrad.structures import map_leaves

    def leaf(name, x):
        if isinstance(x, Value):
            return Value(x.data)
        return Tensor(x.data if isinstance(x, Tensor) else x) if getattr(x, "shape", ()) else x
    return map_leaves(leaf, tuple(arguments))


def size(shape: Any) -> Any:
    from flatgrad.export.c.signature import size_of

    return size_of(shape)


def write_both(path: _Path, made: Any) -> None:
    """Write the file and its header, or neither."""
    from flatgrad.storage import check_writable, write_file

    header, before = f"{path[:-2]}.h", None
    check_writable(path)
    check_writable(header)
    with contextlib.suppress(FileNotFoundError), open(header, "rb") as file:
        before = file.read()
    write_file(header, made.header.encode())
    try:
        write_file(path, made.source.encode())
    except BaseException:
        if before is None:
            os.remove(header)
        else:
            write_file(header, before)
        raise
