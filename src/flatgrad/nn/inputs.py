"""Inputs and outputs of modules: one sample or several samples, in several forms."""
from __future__ import annotations

import numbers

from flatgrad._core import Tensor, Value, _refuse_lost
from flatgrad.errors import ArgumentTypeError, DataError, ShapeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from flatgrad.nn.activations import ReLU
    from flatgrad.nn.convolution import Conv1d

__all__ = ["as_rows", "given_sample", "given_value", "shown"]


def as_rows(x: Any, width: int | None = None, name: str = "x",
            what: str = "numbers") -> tuple[Tensor, Callable[[Tensor], Any]]:
    """An input as rows, and a function that gives the output the form of the input.

    Parameters
    ----------
    x : sequence of Value or real number, or one Value or number; or, for several samples, a list of
        such rows, an array of shape ``(n_samples, width)``, or a Tensor
    width : int, optional
        The number of elements that a sample has to have.
    name, what : str, optional
        The names of `x` and of its elements in messages.

    Returns
    -------
    rows : Tensor, shape (n_samples, width)
        A constant if `x` contains only numbers. For a list of Values a copy, made by one instruction.
    give : callable
        Turns a Tensor of shape ``(n_samples, n_outputs)`` into the result of the module: a list of Value for a
        sample that is a list, a Tensor of one dimension for one that is an array or a Tensor, a Value for a single
        Value, and the Tensor itself for several samples.

    Raises
    ------
    ArgumentTypeError, DataError, ShapeError
        If `x` is of another type, empty, or of another width.
    """
    give = given_rows
    if isinstance(x, Tensor):
        rows = x
        if x.ndim == 1:
            rows, give = x.reshape(1, -1), given_vector
    else:
        if isinstance(x, (Value, numbers.Real)):
            x, give = [x], given_value
        rows = tensor_of(name, x)
        if rows.ndim == 1:
            rows = rows.reshape(1, -1)
            if give is not given_value:   # an array for an array: what + does to it is not what + does to a list
                give = given_vector if hasattr(x, "__array__") else given_sample
    if width is not None and rows.shape[1] != width:
        shape = rows.shape if give is given_rows else rows.shape[1:]
        raise ShapeError(f"{name}: expected {width} {what} in a sample, got the shape {shape}")
    return rows, give


def tensor_of(name: str, x: Any) -> Tensor:
    """A list or an array as a Tensor; a constant if it contains no Value."""
    import numpy as np

    if isinstance(x, (str, bytes, bytearray, dict, set, frozenset)):
        raise ArgumentTypeError(f"{name}: expected a list or an array of numbers and Values, got {x!r}")
    if hasattr(x, "__array__"):
        _refuse_lost(name, x)
        x = np.asarray(x)
        if x.size == 0:
            raise DataError(f"{name}: expected one number at least, got the shape {x.shape}")
        if x.ndim == 0:
            raise ArgumentTypeError(f"{name}: expected a list or an array, got {x!r}")
    else:
        try:
            x = list(x)
        except TypeError:
            raise ArgumentTypeError(f"{name}: expected a list or an array of numbers and Values, got {x!r}") from None
        if not x:
            raise DataError(f"{name}: expected one number at least, got an empty list")
    try:
        rows = Tensor(x)
    except (TypeError, ValueError) as error:
        kind = ArgumentTypeError if isinstance(error, TypeError) else ShapeError
        raise kind(name + str(error).removeprefix("data")) from None
    if not rows._op:   # leaves, so x contains only numbers
        rows = Tensor(rows.data, requires_grad=False)
    return rows


# ---- the outputs, made from rows ----

def given_rows(out: Tensor) -> Tensor:
    """The output for a batch."""
    return out


def given_vector(out: Tensor) -> Tensor:
    """The output for an array or a Tensor of one dimension."""
    return out.reshape(-1)


def given_sample(out: Tensor) -> list[Value]:
    """The output for a sample."""
    return list(out.reshape(-1))


def given_value(out: Any) -> Any:
    """The output for a single Value."""
    return out[0, 0] if out.size == 1 else given_sample(out)


def shown(module: ReLU | Conv1d, *arguments: Any, **options: Any) -> str:
    """The repr of a module: its arguments, and the `options`, each ``(value, default)``, that differ from their
    default."""
    words = [*map(repr, arguments),
             *(f"{name}={value!r}" for name, (value, default) in options.items() if value != default)]
    return f"{type(module).__name__}({', '.join(words)})"
