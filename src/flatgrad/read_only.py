"""The arrays that `Tensor.data` and `Tensor.grad` return: read-only copies.

The numbers of a Tensor are on the tape, and the tape moves in memory, so an array of the numbers is a copy. Writing
into a copy would not change the Tensor. An attempt raises an error that says how to write the Tensor's numbers.
``t.data -= lr * t.grad`` works: it computes a new array and assigns this array to ``t.data``. Results of operations on
a read-only array are plain arrays. So are the results of `Tensor.numpy` and ``t.data.copy()``.

Examples
--------
>>> from flatgrad import Tensor
>>> W = Tensor([[1.0, 2.0], [3.0, 4.0]])
>>> W.data[0, 0] = 9.0  # doctest: +ELLIPSIS
Traceback (most recent call last):
...
flatgrad.errors.ArgumentError: data: cannot be written to, as it is a copy of the numbers; write tensor.data = ...
>>> W[0, 0].data = 9.0
>>> W.data -= 1.0
>>> W.data
array([[8., 1.],
       [2., 3.]])
"""
from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import numpy as np

from flatgrad.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["Data", "Grad"]


class ReadOnly(np.ndarray):
    """A read-only copy of the numbers of a Tensor."""

    of = "data"       # the attribute of the Tensor from which the copy comes

    def __array_wrap__(self, array: NDArray[Any], context: tuple[Any, Any, Any] | None = None,
                       return_scalar: bool = False) -> Any:
        """Results are plain arrays. NumPy 1 does not tell which results have to be scalars, so 0-d arrays become
        scalars."""
        if type(array) is not np.ndarray:
            array = np.asarray(array)
        return array if array.ndim else array[()]

    def plain(self) -> NDArray[Any]:
        """The array as a plain ndarray, a view."""
        return self.view(np.ndarray)

    def copy(self, order: str = "C") -> Any:
        return self.plain().copy(order)

    def astype(self, dtype: type[Any], order: str = "K", casting: str = "unsafe", subok: bool = True,
               copy: bool = True) -> NDArray[Any]:
        return self.plain().astype(dtype, order, casting, subok, copy)

    def flatten(self, order: str = "C") -> Any:
        return self.plain().flatten(order)

    def __copy__(self) -> Any:
        return self.plain().copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.plain().copy()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return self.plain().copy().__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return repr(self.plain())

    def is_own(self) -> Any:
        """Whether the array is writable and no copy of a Tensor's numbers, such as the result of ``data[mask]``."""
        if not self.flags.writeable and type(self.base) is np.ndarray and self.base.flags.writeable:
            self.flags.writeable = True   # NumPy 1 copies the flag of `data` to the result of data[mask]
        return self.flags.writeable

    def refuse(self) -> None:
        """Raise the error for writing, unless the array is writable."""
        if not self.is_own():
            raise ArgumentError(
                f"{self.of}: cannot be written to, as it is a copy of the numbers; write tensor.{self.of} = array, "
                f"tensor.{self.of} = number or tensor[i, j].{self.of} = number, or take tensor.{self.of}.copy()")


class Data(ReadOnly):
    """The array that `Tensor.data` returns."""


class Grad(ReadOnly):
    """The array that `Tensor.grad` returns."""

    of = "grad"


def refusing(name: str) -> Callable[..., Any]:
    """The method of ndarray, after a check that the array is writable."""
    method = getattr(np.ndarray, name)

    def write(self, *args, **kwargs):
        self.refuse()
        return method(self, *args, **kwargs)

    write.__name__ = name
    return write


def augmented(name: str) -> Callable[..., Any]:
    """``data += x``: for the array from the attribute, the result is a new array, and Python assigns it to the
    attribute. For a part of this array Python would assign nothing to the attribute, so a part is refused."""
    method, compute = getattr(np.ndarray, f"__i{name}__"), getattr(operator, f"__{name}__")

    def write(self, other):
        if self.is_own():
            return method(self, other)
        if not self.flags.owndata:
            self.refuse()
        return compute(self.plain(), other)

    write.__name__ = f"__i{name}__"
    return write


for _name in ("__setitem__", "fill", "itemset", "partition", "put", "resize", "setfield", "sort"):
    if hasattr(np.ndarray, _name):   # NumPy 2 has no itemset
        setattr(ReadOnly, _name, refusing(_name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift",
              "rshift"):
    if hasattr(np.ndarray, f"__i{_name}__"):   # NumPy 1 has no __imatmul__
        setattr(ReadOnly, f"__i{_name}__", augmented(_name))
