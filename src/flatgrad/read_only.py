"""The arrays that `Tensor.data` and `Tensor.grad` give: copies, which nobody can take for the numbers themselves.

The numbers of a Tensor are on the tape, which moves; so an array of them is a copy. Writing into one would change
nothing else, and is refused with what to write instead. ``t.data -= lr * t.grad`` computes a new array and assigns
it to the Tensor, so it does what it says. Whatever is computed from such an array is an array like any other, as
are `Tensor.numpy` and ``t.data.copy()``.

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
import operator

import numpy as np

from flatgrad.errors import ArgumentError

__all__ = ["Data", "Grad"]


class ReadOnly(np.ndarray):
    """A copy of the numbers of a Tensor."""

    of = "data"       # the attribute of the Tensor

    def __array_wrap__(self, array, context=None, return_scalar=False):
        """Results are plain arrays; NumPy 1 does not say which are to be scalars."""
        if type(array) is not np.ndarray:
            array = np.asarray(array)
        return array if array.ndim else array[()]

    def plain(self):
        """The same, as a plain array."""
        return self.view(np.ndarray)

    def copy(self, order="C"):
        return self.plain().copy(order)

    def astype(self, dtype, order="K", casting="unsafe", subok=True, copy=True):
        return self.plain().astype(dtype, order, casting, subok, copy)

    def flatten(self, order="C"):
        return self.plain().flatten(order)

    def __copy__(self):
        return self.plain().copy()

    def __deepcopy__(self, memo):
        return self.plain().copy()

    def __reduce_ex__(self, protocol):
        return self.plain().copy().__reduce_ex__(protocol)

    def __repr__(self):
        return repr(self.plain())

    def is_own(self):
        """Whether this is an array that can be written to, as the result of ``data[mask]`` is."""
        if not self.flags.writeable and type(self.base) is np.ndarray and self.base.flags.writeable:
            self.flags.writeable = True   # NumPy 1 has taken that over from what the mask was of
        return self.flags.writeable

    def refuse(self):
        """The error, unless there is none."""
        if not self.is_own():
            raise ArgumentError(
                f"{self.of}: cannot be written to, as it is a copy of the numbers; write tensor.{self.of} = array, "
                f"tensor.{self.of} = number or tensor[i, j].{self.of} = number, or take tensor.{self.of}.copy()")


class Data(ReadOnly):
    """What `Tensor.data` gives."""


class Grad(ReadOnly):
    """What `Tensor.grad` gives."""

    of = "grad"


def refusing(name):
    """The method of ndarray that writes, if it may."""
    method = getattr(np.ndarray, name)

    def write(self, *args, **kwargs):
        self.refuse()
        return method(self, *args, **kwargs)

    write.__name__ = name
    return write


def augmented(name):
    """``data += x``: of the array that the attribute gave, which is assigned to it again, a new one. Of a part of it
    nothing would be assigned."""
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
