"""Derivatives as numbers that depend on more than they have been taken by.

The outermost call of a transform returns numbers, and a loss that is computed from these has no gradient through them.
Where the function depends on leaves that take a gradient, such as parameters that it captures, this would be lost in
silence. So the numbers are of the classes here. They are numbers in every respect, but for one: they are no operands of
operations on Values and Tensors, which raise an ArgumentTypeError. What is computed from them is of the same classes; but
not what is added to a plain number or subtracted from one: a step of gradient descent, ``w - lr * g``, is a point like
``w``. ``float(g)``, ``g.item()``, ``np.asarray(g)`` and ``np.array(g)`` are plain numbers.

Examples
--------
>>> import flatgrad
>>> w, x = flatgrad.Value(3.0), flatgrad.Value(2.0)
>>> slope = flatgrad.grad(lambda x: w * x * x)(0.5)
>>> slope, 2 * slope, isinstance(slope, float)
(3.0, 6.0, True)
>>> x * slope  # doctest: +ELLIPSIS
Traceback (most recent call last):
...
flatgrad.errors.ArgumentTypeError: operand of *: expected no derivative that is a plain number, got 3.0: ...
>>> x * float(slope)
Value(data=6.0, grad=0.0)
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import Tensor, Value, _mark_lost, _refuse_lost
from flatgrad.structures import REGISTERED, map_leaves, opened

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["LostArray", "LostFloat"]

ever: list[Any] = []   # something, once there are such numbers


class LostFloat(float):
    """A float that is part of a derivative."""

    __slots__ = ()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return computed(ufunc, method, inputs, kwargs)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return float, (float(self),)


def binary(name: str) -> Callable[..., Any]:
    plain = getattr(float, name)
    is_point = name in ("__radd__", "__rsub__")   # the sum of a plain number and such a one

    def method(self, other):
        if not isinstance(other, (int, float)):
            return NotImplemented
        result = plain(self, other)
        return result if is_point and not starts_sum(other) else marked(result)

    method.__name__ = name
    return method


def unary(name: str) -> Callable[..., Any]:
    plain = getattr(float, name)

    def method(self):
        return LostFloat(plain(self))

    method.__name__ = name
    return method


for operation in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    for name in (f"__{operation}__", f"__r{operation}__"):
        setattr(LostFloat, name, binary(name))
for operation in ("neg", "pos", "abs"):
    setattr(LostFloat, f"__{operation}__", unary(f"__{operation}__"))
del name, operation


class LostArray(np.ndarray):
    """An array that is part of a derivative."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> LostArray | NDArray[Any]:
        return computed(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: tuple[type[Any]], args: tuple[Any, ...],
                           kwargs: dict[str, Any]) -> Any:
        if not all(issubclass(kind, np.ndarray) for kind in types):
            return NotImplemented
        if contains((args, kwargs), (Value, Tensor)):
            _refuse_lost(f"np.{function.__name__}()", self)
        return marked(super().__array_function__(function, types, args, kwargs))

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        array = np.asarray(array)
        return marked(array if array.ndim else array[()])

    def __getitem__(self, index: Any) -> Any:
        return marked(super().__getitem__(index))

    def dot(self, other: Any, out: Any = None) -> Any:
        return np.dot(self, other, out)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return np.asarray(self).__reduce_ex__(protocol)

    def __repr__(self) -> str:
        return repr(np.asarray(self))

    def __str__(self) -> str:
        return str(np.asarray(self))


_mark_lost(LostFloat, LostArray)


def starts_sum(x: float) -> bool:
    """Whether it is the 0 with which sum() begins."""
    return type(x) is int and x == 0


def marked(x: Any) -> Any:
    """Floats, and arrays of floats, as such numbers; anything else as it is."""
    kind = type(x)
    if kind is float or isinstance(x, np.floating):
        return LostFloat(x)
    if kind is np.ndarray and x.dtype.kind == "f":
        return x.view(LostArray)
    if kind is LostArray and x.dtype.kind != "f":
        return x.view(np.ndarray)
    return tuple([marked(part) for part in x]) if kind is tuple else x


def mark(tree: list[float] | float | NDArray[Any]) -> list[LostFloat] | LostFloat | LostArray:
    """A derivative's numbers, in its structure, as such numbers."""
    ever[:] = [True]
    return map_leaves(lambda name, x: marked(x), tree)


def is_lost(x: LostArray | float) -> bool:
    return type(x) is LostFloat or type(x) is LostArray


def contains(x: Any, kinds: tuple[type[Any], type[Any]]) -> bool:
    """Whether an object of some classes is in a structure, or in an array of objects."""
    if REGISTERED:
        x = opened(x)
    if isinstance(x, kinds):
        return True
    if isinstance(x, dict):
        return any(contains(part, kinds) for part in x.values())
    if isinstance(x, (list, tuple)):
        return any(contains(part, kinds) for part in x)
    return isinstance(x, np.ndarray) and x.dtype == object and any(contains(part, kinds) for part in x.ravel().tolist())


def are_lost(x: tuple[Any, ...] | list[Any]) -> bool:
    """Whether such a number is in a structure."""
    return bool(ever) and contains(x, (LostFloat, LostArray))


def plain(x: Any) -> NDArray[Any] | float:
    """A number or an array of the usual class; anything else as it is."""
    return float(x) if type(x) is LostFloat else x.view(np.ndarray) if type(x) is LostArray else x


def boxed(x: Any) -> Any:
    """An operand of NumPy's loop over objects, which asks each of them."""
    if not is_lost(x):
        return x
    array = np.empty(np.shape(x), object)
    array[...] = np.array([LostFloat(part) for part in np.ravel(plain(x))] + [None], object)[:-1].reshape(array.shape)
    return array


def computed(ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[Any, Any]) -> Any:
    """The result of a ufunc; where one of the operands knows better, that one is asked."""
    for x in inputs:
        if not isinstance(x, (np.ndarray, np.generic, LostFloat)) and hasattr(type(x), "__array_ufunc__"):
            return NotImplemented
    known = [np.asarray(x) if isinstance(x, (list, tuple)) else x for x in inputs]
    objects = any(isinstance(x, np.ndarray) and x.dtype == object for x in known)
    known = [boxed(x) if objects else plain(x) for x in known]
    out = kwargs.get("out")
    if out is not None:
        kwargs = {**kwargs, "out": tuple([plain(x) for x in out])}
    result = getattr(ufunc, method)(*known, **kwargs)
    if out is None:
        is_point = (method == "__call__" and ufunc in (np.add, np.subtract) and not is_lost(inputs[0])
                    and not starts_sum(inputs[0]))
        return result if is_point and not objects else marked(result)
    return out[0] if len(out) == 1 else out
