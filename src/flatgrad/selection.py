"""Elements at positions: `take` rows of a table, `pick` an element of each row.

Python's own brackets do the same where a position is an int. These take positions that are Values as well, which a
recorded program needs: there an int among the arguments is another one at each call.
"""
from __future__ import annotations

import math
import operator

from flatgrad._core import Tensor, Value, _taken
from flatgrad.arguments import is_bool, shortened
from flatgrad.errors import ArgumentTypeError, ShapeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flatgrad._core import _Matrix

__all__ = ["pick", "take"]


def take(table: _Matrix, index: Any) -> Any:
    """Rows of a table, or elements of a vector.

    Parameters
    ----------
    table : Tensor, array, or list of numbers and Values; of shape (n,) or (n, m)
    index : int, Value, or list, array or Tensor of them, of shape (k,)
        Whole numbers from ``-n`` to ``n - 1``; negative ones count from the end.

    Returns
    -------
    Value, list of Value, or Tensor
        For one position: an element of a vector, a row of a list of lists as a list, and a row of a Tensor or an array
        as a Tensor of shape (m,). For k positions a Tensor of shape (k,) or (k, m).

    Raises
    ------
    IndexError
        If a position is not in the table, or not a whole number.
    ArgumentTypeError, TypeError, ShapeError
        If an argument is not as described.

    Notes
    -----
    Gradients flow to the elements that were taken; positions get none. As `jax.numpy.take` and `torch.take`, along the
    first axis. One instruction, unless the position is an int: then it is ``table[index]``.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Tensor, Value
    >>> table = Tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    >>> flatgrad.take(table, [2, 0]).tolist()
    [[5.0, 6.0], [1.0, 2.0]]
    >>> row = flatgrad.take([[Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]], Value(1.0))
    >>> [v.data for v in row]
    [3.0, 4.0]
    """
    return at_positions(table, index, False)


def pick(x: _Matrix, index: Any) -> Any:
    """An element of each row of a matrix, or one of a vector.

    Parameters
    ----------
    x : Tensor, array, or list of numbers and Values; of shape (n,) or (m, n)
    index : int or Value; for a matrix a list, array or Tensor of them, of shape (m,)
        Whole numbers from ``-n`` to ``n - 1``; negative ones count from the end.

    Returns
    -------
    Value or Tensor
        Of a vector a Value; of a matrix a Tensor of shape (m,).

    Raises
    ------
    IndexError
        If a position is not in its row, or not a whole number.
    ArgumentTypeError, TypeError, ShapeError
        If an argument is not as described.

    Notes
    -----
    Gradients flow to the elements that were picked; positions get none. As `torch.gather` along the last axis.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Tensor
    >>> log_p = Tensor([[-0.5, -1.0], [-2.0, -0.1]])
    >>> flatgrad.pick(log_p, [1, 0]).tolist()
    [-1.0, -2.0]
    """
    if is_int(index) and isinstance(x, Tensor) and x.ndim == 2:
        raise ShapeError(f"index: expected a position for each of {x.shape[0]} rows, got {index!r}")
    return at_positions(x, index, True)


def at_positions(table: Tensor | list[Value], index: Value | list[Value] | int, each: bool) -> Value | Tensor:
    """What both do; each: an element of every row."""
    if is_int(index):
        return plain(table, operator.index(index))
    check(index)
    taken = _taken(table, index, each, not each and isinstance(table, (list, tuple)))
    if taken is not None:
        return taken
    positions = as_ints(index)   # in micrograd's graph there is no such node: it is the element itself
    if isinstance(positions, int):
        return plain(table, positions)
    return [plain(row, k) for row, k in zip(table if each else [table] * len(positions), positions)]


def is_int(index: Value | list[Value] | int) -> bool:
    return hasattr(index, "__index__") and not isinstance(index, (Value, Tensor)) and not is_bool(index) and (
        getattr(index, "ndim", 0) == 0)


def check(index: Value | list[Value]) -> None:
    if is_bool(index) or isinstance(index, (str, bytes, slice)) or index is None:
        raise ArgumentTypeError(f"index: expected an int, a Value, or a list, an array or a Tensor of them, got "
                                f"{shortened(index)}")


def plain(table: Tensor, k: int) -> Value:
    """``table[k]``, with a message that says how long the table is."""
    try:
        return table[k]
    except IndexError:
        if len(table) == 0:
            raise IndexError(f"position {k}: the table has no elements") from None
        raise IndexError(f"position {k}: expected a whole number from {-len(table)} to {len(table) - 1}") from None
    except TypeError:
        raise ArgumentTypeError(f"table: expected a Tensor, an array, or a list, got {shortened(table)}") from None


def as_ints(index: Any) -> Any:
    """The position that a number is, or those in a list."""
    if isinstance(index, (list, tuple, Tensor)) or getattr(index, "ndim", 0):
        return [as_ints(k) for k in index]
    number = index.data if isinstance(index, Value) else index
    if not math.isfinite(number) or number != int(number):
        raise IndexError(f"position {number}: expected a whole number")
    return int(number)
