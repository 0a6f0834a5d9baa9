"""NumPy's functions for Tensors.

There are three kinds of functions:

- Functions that are operations of flatgrad: ``np.tanh(t)``, ``np.sum(t, axis=0)``, ``np.concatenate([t, u])``,
  ``np.where(t > 0.0, t, 0.0)``. The result is a Tensor or Value with its gradient.
- Functions whose results have no gradient (``np.argmax``, ``np.sign``, ``np.isnan``, ``np.shape``, ``np.allclose``).
  They give arrays, numbers and bools, as for arrays.
- All other functions, which would read the numbers and silently lose the gradient. For a Tensor that requires a
  gradient these functions raise TypeError; of a constant Tensor they get the numbers.

`MEANINGS` and `MOVING` have the first kind, `WITHOUT_GRADIENT` the second. A function in `MEANINGS` takes the arguments
of its definition below. With other arguments, such as ``out=``, ``dtype=`` and ``where=``, the function counts as one
of the third kind.

Examples
--------
>>> import numpy as np
>>> from flatgrad import Tensor
>>> t = Tensor([1.0, 2.0, 3.0])
>>> np.dot(t, np.roll(t, 1)).backward()
>>> t.grad
array([5., 4., 3.])
>>> np.interp(t, [0.0, 4.0], [0.0, 1.0])  # doctest: +ELLIPSIS
Traceback (most recent call last):
...
flatgrad.errors.ArgumentTypeError: np.interp would take the numbers of a Tensor that requires a gradient: ...
"""
from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import numpy as np

from flatgrad import _core
from flatgrad._core import Tensor, Value, abs, clip, mean, sqrt, where
from flatgrad._core import max as largest
from flatgrad._core import min as smallest
from flatgrad._core import sum as total
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

__all__ = ["MEANINGS", "MOVING", "WITHOUT_GRADIENT", "function_of", "ufunc_of"]

MEANINGS: dict[Any, Callable[..., Any]] = {}           # NumPy's function -> ours
MOVING: dict[Any, Callable[..., Any]] = {}             # NumPy's function that only moves elements -> ours
NO_GRADIENT_UFUNCS = {getattr(np, name) for name in (
    "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "isnan", "isinf", "isfinite", "signbit",
    "sign", "floor", "ceil", "trunc", "rint", "logical_and", "logical_or", "logical_xor", "logical_not")}


def functions(names: str) -> Iterator[Any]:
    """NumPy's functions of these names, such as "linalg.norm"; no version of NumPy has all of them."""
    for name in names.split():
        module, _, name = name.rpartition(".")
        function = getattr(getattr(np, module) if module else np, name, None)
        if function is not None:
            yield function


# Their results are whole numbers, bools, shapes, text, or steps, whose derivative is 0.
WITHOUT_GRADIENT = {*functions(
    "all allclose any argmax argmin argsort argwhere around array_equal array_equiv array_repr array_str array2string "
    "count_nonzero digitize empty_like fix flatnonzero iscomplex iscomplexobj isclose isneginf isposinf isreal "
    "isrealobj nonzero ones_like round searchsorted zeros_like")}
WRITING = {*functions("copyto fill_diagonal place put put_along_axis putmask")}   # these write to their first argument


# ---- what NumPy calls ----

def ufunc_of(ufunc: Any, method: Any, inputs: Any, kwargs: Any) -> Any:
    """The result of `Tensor.__array_ufunc__`, except for ufuncs that are a row of ops.def."""
    name = f"np.{ufunc.__name__}" if getattr(np, ufunc.__name__, None) is ufunc else ufunc.__name__
    name += "" if method == "__call__" else f".{method}"
    refuse_writing(name, (*kwargs.get("out", ()), *(inputs[:1] if method == "at" else ())))
    others = {key: value for key, value in kwargs.items() if not is_default(key, value)}
    answer = NotImplemented
    if method == "__call__" and len(others) < len(kwargs):
        return ufunc(*inputs, **others)
    if method == "__call__" and not kwargs:
        if ufunc in NO_GRADIENT_UFUNCS:
            arrays = [np.asarray(numbers_of(x)) for x in inputs]
            try:
                result = ufunc(*arrays)
            except TypeError as error:
                # Not NumPy's own error "no loop of these types": after that error, an array's == asks the Tensor for an
                # array. The Tensor refuses, and NumPy 2.4 and older then crash.
                kinds = " and ".join(str(array.dtype) for array in arrays)
                raise ArgumentTypeError(f"{name}: expected numbers, got arrays of {kinds}: {error}") from None
            if getattr(result, "dtype", None) != object:   # an object array might be an operand
                return result
        refuse_lost(name, inputs)
        if ufunc in MEANINGS and ufunc not in NO_GRADIENT_UFUNCS:
            answer = MEANINGS[ufunc](*inputs)
    elif (ufunc, method) in REDUCTIONS and len(inputs) == 1:
        # Without an axis, a ufunc reduces the first axis, and np.sum all axes.
        answer = meant(REDUCTIONS[ufunc, method], inputs, {"axis": 0, **kwargs})
    if answer is not NotImplemented:
        return answer
    inputs, kwargs = checked(name + given(kwargs), inputs, kwargs)
    return getattr(ufunc, method)(*inputs, **kwargs)


def function_of(function: Any, types: tuple[type[Any]], args: tuple[Tensor], kwargs: dict[Any, Any]) -> tuple[int, int]:
    """The result of `Tensor.__array_function__`."""
    if not all(issubclass(kind, (Tensor, np.ndarray)) for kind in types):
        return NotImplemented
    refuse_writing(name_of(function), (kwargs.get("out"), *(args[:1] if function in WRITING else ())))
    answer = NotImplemented
    if function in WITHOUT_GRADIENT:
        return function(*as_numbers(args), **as_numbers(kwargs))
    refuse_lost(name_of(function), (args, kwargs))
    if function in MEANINGS:
        answer = meant(MEANINGS[function], args, kwargs)
    elif function in MOVING:
        answer = MOVING[function](function, args, {key: value for key, value in kwargs.items()
                                                   if not is_default(key, value)})
    if answer is not NotImplemented:
        return answer
    args, kwargs = checked(name_of(function) + given(kwargs), args, kwargs)
    return function(*args, **kwargs)


def refuse_lost(name: str, x: Any) -> None:
    """An error for a derivative of lost.py among the operands; there is none before that is imported."""
    if isinstance(x, (list, tuple)):
        for part in x:
            refuse_lost(name, part)
    elif isinstance(x, dict):
        refuse_lost(name, list(x.values()))
    else:
        _core._refuse_lost(name, x)


def refuse_writing(name: str, targets: tuple[None]) -> None:
    for target in targets if isinstance(targets, tuple) else (targets,):
        if isinstance(target, Tensor):
            raise ArgumentTypeError(f"{name}: cannot write to a Tensor, whose numbers are on the tape; assign its data")


def meant(meaning: Callable[..., Any], args: tuple[Tensor], kwargs: dict[Any, Any]) -> tuple[int, int]:
    """meaning(*args, **kwargs), or NotImplemented if it does not take these arguments."""
    kwargs = {name: value for name, value in kwargs.items() if not is_default(name, value)}
    code = meaning.__code__
    if not kwargs.keys() <= set(code.co_varnames[:code.co_argcount + code.co_kwonlyargcount]):
        return NotImplemented
    while len(args) > code.co_argcount and args[-1] is None:
        args = args[:-1]
    if len(args) > code.co_argcount:
        return NotImplemented
    return meaning(*args, **kwargs)


def is_default(name: Any, value: Any) -> Any:
    """Whether an argument has NumPy's default value."""
    return (value is None and name != "axis" or value is np._NoValue or name == "where" and value is True
            or name == "dtype" and value in (float, np.float64) or name == "order" and value in ("C", "K"))


def name_of(function: Any) -> str:
    """The name of a function for users."""
    module = (function.__module__ or "numpy").replace("numpy", "np", 1)
    return f"{module}.{function.__name__}"


def given(kwargs: Any) -> Any:
    return f" with {', '.join(kwargs)}" if kwargs else ""


def checked(name: Any, args: Any, kwargs: Any) -> Any:
    """The arguments with arrays in place of constant Tensors; TypeError if there is another Tensor."""
    if requires_grad(args) or requires_grad(kwargs):
        raise ArgumentTypeError(
            f"{name} would take the numbers of a Tensor that requires a gradient: the gradient would be lost. Use "
            "flatgrad's functions, or take its .data or .numpy() for the numbers, or its .detach() for a constant "
            "Tensor")
    return as_numbers(args), as_numbers(kwargs)


def requires_grad(x: Any) -> Any:
    """Whether the arguments contain a Tensor that requires a gradient."""
    if isinstance(x, Tensor):
        return x.requires_grad
    if isinstance(x, dict):
        return any(requires_grad(part) for part in x.values())
    return isinstance(x, (list, tuple)) and any(requires_grad(part) for part in x)


def as_numbers(x: Any) -> Any:
    """Arguments with arrays in place of Tensors."""
    if isinstance(x, Tensor):
        return x.numpy()
    if isinstance(x, dict):
        return {key: as_numbers(part) for key, part in x.items()}
    return type(x)(map(as_numbers, x)) if type(x) in (list, tuple) else x


def numbers_of(x: Any) -> Any:
    """The numbers of an operand; a Value in it becomes its number."""
    if isinstance(x, Value):
        return x.data
    if isinstance(x, (list, tuple)):
        return [numbers_of(part) for part in x]
    if isinstance(x, np.ndarray) and x.dtype == object:
        return np.asarray(numbers_of(x.tolist()))
    return as_numbers(x)


# ---- the table ----

def means(names: str) -> Callable[..., Any]:
    """A decorator: registers a definition for NumPy's functions of these names."""
    def enter(function):
        MEANINGS.update(dict.fromkeys(functions(names), function))
        return function
    return enter


def tensor(x: Tensor) -> Tensor:
    """An operand as a Tensor; a number or Value becomes a Tensor of one element."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, Value) or np.ndim(x) == 0:
        return Tensor([x], requires_grad=isinstance(x, Value))
    x = x if isinstance(x, np.ndarray) else np_list(x)
    return Tensor(x, requires_grad=not (isinstance(x, np.ndarray) and x.dtype != object))


def np_list(x: Any) -> Any:
    """A list or tuple as an array, if it contains no Value and no Tensor; any other operand unchanged."""
    if isinstance(x, (list, tuple)):
        return x if has_nodes(x) else np.asarray(x, np.float64)
    return np.asarray(x)


def has_nodes(x: Any) -> Any:
    return isinstance(x, (Value, Tensor)) or isinstance(x, (list, tuple)) and any(map(has_nodes, x))


def dims(x: Any) -> Any:
    """The number of dimensions of an operand."""
    return 0 if isinstance(x, Value) else x.ndim if hasattr(x, "ndim") else 1 + dims(x[0]) if len_of(x) else 0


def len_of(x: Any) -> Any:
    return len(x) if isinstance(x, (list, tuple)) else 0


# ---- ufuncs that are not a single row of ops.def ----

@means("square")
def square(x: Any) -> Any:
    return _core.square(x)


@means("reciprocal")
def reciprocal(x: Any) -> Any:
    return _core._operator("/", 1.0, x)


@means("positive conjugate conj")
def positive(x: Any) -> Any:
    return x


def matmul(x1: Any, x2: Any) -> Any:
    return _core._operator("@", x1, x2)


# ---- reductions ----

@means("sum")
def sum_(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return total(a, axis, keepdims)


@means("mean")
def mean_(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return mean(a, axis, keepdims)


@means("max amax")
def max_(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return largest(a, axis, keepdims)


@means("min amin")
def min_(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return smallest(a, axis, keepdims)


@means("ptp")
def ptp(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return largest(a, axis, keepdims) - smallest(a, axis, keepdims)


@means("average")
def average(a: Any, axis: Any = None, weights: Any = None, *, keepdims: bool = False) -> Any:
    if weights is None:
        return mean(a, axis, keepdims)
    a = tensor(a)
    if np.shape(weights) != a.shape:
        if axis is None or isinstance(axis, tuple) or np.ndim(weights) != 1:
            raise ShapeError(f"np.average: weights: expected the shape {a.shape}, got {np.shape(weights)}")
        weights = tensor(weights)
        weights = weights.reshape(-1, 1) if a.ndim == 2 and axis in (0, -2) else weights
        weights = weights + np.zeros(a.shape)
    return total(a * weights, axis, keepdims) / total(weights, axis, keepdims)


def axis_in(x: Any, axis: Any) -> Any:
    """The axis of a Tensor from an int, negative ones included."""
    try:
        number = operator.index(axis)
    except TypeError:
        raise ArgumentTypeError(f"axis: expected an int, got {axis!r}") from None
    if not -x.ndim <= number < x.ndim:
        raise ArgumentError(f"axis: expected {-x.ndim} to {x.ndim - 1} for the shape {x.shape}, got {axis}")
    return number % x.ndim


def axes_in(x: Tensor, axis: None) -> set[int]:
    """The set of axes that a reduction combines."""
    return {*range(x.ndim)} if axis is None else {axis_in(x, k) for k in (axis if isinstance(axis, tuple) else (axis,))}


def count_of(x: Any, axis: Any) -> Any:
    """The number of elements that a reduction combines."""
    return int(np.prod([x.shape[k] for k in axes_in(x, axis)]))


@means("var")
def var(a: Any, axis: Any = None, *, ddof: int = 0, keepdims: bool = False, correction: Any = None) -> Any:
    a, ddof = tensor(a), ddof if correction is None else correction
    centred = a - mean(a, axis, True)
    return total(centred * centred, axis, keepdims) / (count_of(a, axis) - ddof)


@means("std")
def std(a: Any, axis: Any = None, *, ddof: int = 0, keepdims: bool = False, correction: Any = None) -> Any:
    squares = var(a, axis, ddof=ddof, keepdims=keepdims, correction=correction)
    zero = squares.data == 0.0   # where all numbers are equal, the gradient is 0, as in PyTorch
    return where(zero, 0.0, sqrt(where(zero, 1.0, squares))) if np.any(zero) else sqrt(squares)


@means("prod")
def prod(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    x = tensor(a)
    shape, axes = x.shape, axes_in(x, axis)
    if len(axes) == x.ndim:
        x = x.reshape(1, -1)
    elif 0 in axes:
        x = x.T
    while x.shape[1] > 1:   # the products of both halves, and the column that is left over
        half = x.shape[1] // 2
        product = x[:, :half] * x[:, half:2 * half]
        x = product if x.shape[1] == 2 * half else _core.cat([product, x[:, 2 * half:]], 1)
    if keepdims:
        return x.reshape(*[1 if k in axes else length for k, length in enumerate(shape)])
    return x[0, 0] if len(axes) == len(shape) else x.reshape(-1)


@means("linalg.norm")
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    x = tensor(x)
    vector = x.ndim == 1 or axis is not None and not isinstance(axis, tuple)
    if not vector and isinstance(ord, (int, float)) and ord in (1, -1, np.inf, -np.inf):
        if keepdims:
            return NotImplemented
        sums = total(abs(x), 0 if ord in (1, -1) else 1)   # of the columns, or of the rows
        return (largest if ord > 0 else smallest)(sums)
    if isinstance(ord, (int, float)) and ord == 1:
        return total(abs(x), axis, keepdims)
    if isinstance(ord, (int, float)) and ord in (np.inf, -np.inf):
        return (largest if ord > 0 else smallest)(abs(x), axis, keepdims)
    if ord is None or ord == 2 and vector or ord == "fro" and not vector:
        return root(x, axis, keepdims)
    return NotImplemented


@means("linalg.vector_norm")
def vector_norm(x: Any, *, axis: Any = None, keepdims: bool = False, ord: int = 2) -> Any:
    x = tensor(x)
    if axis is None and keepdims or isinstance(axis, tuple):
        return NotImplemented
    return norm(x.reshape(-1) if axis is None else x, ord, axis, keepdims)


def root(x: Any, axis: Any, keepdims: Any) -> Any:
    """The root of the sum of squares. At 0, where it has no derivative, the gradient is 0, as in PyTorch."""
    squares = total(x * x, axis, keepdims)
    zero = squares == 0.0 if isinstance(squares, Tensor) else squares.data == 0.0
    if not np.any(zero):
        return sqrt(squares)
    sizes = total(abs(x), axis, keepdims)   # not 0 where the squares underflow
    return where(zero, sizes, sqrt(where(zero, 1.0, squares))) if isinstance(squares, Tensor) else sizes


# ---- products ----

@means("dot")
def dot(a: Any, b: Any) -> Any:
    if dims(a) == 0 or dims(b) == 0:
        return _core._operator("*", a, b)
    return matmul(a, b)


@means("inner")
def inner(a: Any, b: Any) -> Any:
    if dims(a) == 0 or dims(b) == 0:
        return _core._operator("*", a, b)
    return matmul(a, tensor(b).T)


@means("vdot")
def vdot(a: Any, b: Any) -> Any:
    return matmul(tensor(a).reshape(-1), tensor(b).reshape(-1))


@means("outer linalg.outer")
def outer(a: Any, b: Any) -> Any:
    return tensor(a).reshape(-1, 1) * tensor(b).reshape(1, -1)


@means("linalg.matmul")
def linalg_matmul(x1: Any, x2: Any) -> Any:
    return matmul(x1, x2)


@means("trace linalg.trace")
def trace(a: Any) -> Any:
    return total(_core._moved("np.trace", [a], lambda places: np.diagonal(places[0])))


# ---- elementwise, of several arguments ----

@means("where")
def where_(condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None and y is None:
        return np.nonzero(condition)
    if isinstance(condition, (list, tuple)) and not has_nodes(condition):
        condition = np.asarray(condition)
    return where(*[operand if dims(operand) or isinstance(operand, Value) else np.asarray(operand)[()]
                   for operand in (condition, tensor_if_row(x), tensor_if_row(y))])


def tensor_if_row(x: Any) -> Any:
    return tensor(x) if isinstance(x, (list, tuple)) else x


@means("clip")
def clip_(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low, high = a_min if min is None else min, a_max if max is None else max
    return clip(tensor(a), -np.inf if low is None else low, np.inf if high is None else high)


@means("real")
def real(val: Any) -> Any:
    return val


# ---- sums and differences along an axis ----

def along_rows(x: Any, axis: Any) -> Any:
    """A Tensor of two dimensions whose rows run along an axis, and the function that turns such a Tensor back."""
    axis = axis_in(x, axis)
    if x.ndim == 1:
        return x.reshape(1, -1), lambda rows: rows.reshape(-1)
    return (x, lambda rows: rows) if axis == 1 else (x.T, lambda rows: rows.T)


def scanned(combine: Any, x: Any, axis: Any) -> Any:
    """combine(... combine(x[0], x[1]) ..., x[k]) for each k, in log2(n) instructions over all elements."""
    x = tensor(x)
    rows, turned_back = along_rows(x.reshape(-1) if axis is None else x, -1 if axis is None else axis)
    step, n = 1, rows.shape[1]
    while step < n:
        rows = _core.cat([rows[:, :step], combine(rows[:, :-step], rows[:, step:])], 1)
        step *= 2
    return turned_back(rows)


@means("cumsum")
def cumsum(a: Any, axis: Any = None) -> Any:
    return scanned(lambda x, y: x + y, a, axis)


@means("cumprod")
def cumprod(a: Any, axis: Any = None) -> Any:
    return scanned(lambda x, y: x * y, a, axis)


@means("diff")
def diff(a: Any, n: int = 1, axis: int = -1) -> Any:
    a = tensor(a)
    length = a.shape[axis_in(a, axis)]
    if not isinstance(n, (int, np.integer)) or not 0 <= n < length:
        raise ArgumentError(f"np.diff: n: expected an int from 0 to {length - 1}, got {n!r}")
    rows, turned_back = along_rows(a, axis)
    for _ in range(n):
        rows = rows[:, 1:] - rows[:, :-1]
    return turned_back(rows)


@means("trapezoid trapz")
def trapezoid(y: Any, x: Any = None, dx: float = 1.0, axis: int = -1) -> Any:
    rows, _ = along_rows(tensor(y), axis)
    if x is not None:
        difference = diff if has_nodes(x) else np.diff
        x = tensor(difference(x, axis=axis if dims(x) > 1 else 0))
        dx = x.reshape(1, -1) if x.ndim == 1 else along_rows(x, axis)[0]
    areas = total((rows[:, 1:] + rows[:, :-1]) * dx, 1) / 2.0
    return areas[0] if dims(y) == 1 and areas.size == 1 else areas


# ---- views ----

@means("transpose")
def transpose(a: Any, axes: Any = None) -> Any:
    a = tensor(a)
    if axes is None:
        return a.T
    return moved("np.transpose", a, lambda places: np.transpose(places, axes))


@means("permute_dims")
def permute_dims(a: Any, axes: Any = None) -> Any:
    return transpose(a, axes)


@means("matrix_transpose linalg.matrix_transpose")
def matrix_transpose(x: Any) -> Any:
    if tensor(x).ndim != 2:
        raise ShapeError(f"np.matrix_transpose: expected two dimensions, got the shape {tensor(x).shape}")
    return x.T


@means("reshape")
def reshape(a: Any, shape: Any = None, *, newshape: Any = None) -> Any:
    return tensor(a).reshape(newshape if shape is None else shape)


@means("ravel")
def ravel(a: Any) -> Any:
    return tensor(a).reshape(-1)


@means("copy")
def copy(a: Any) -> Any:
    return moved("np.copy", a, lambda places: places)


# ---- properties of a Tensor other than its numbers ----

@means("shape")
def shape(a: Tensor) -> tuple[int, int]:
    return a.shape


@means("ndim")
def ndim(a: Any) -> Any:
    return a.ndim


@means("size")
def size(a: Any, axis: Any = None) -> Any:
    return np.size(np.empty(a.shape), axis)


@means("full_like")
def full_like(a: Any, fill_value: Any) -> Any:
    return NotImplemented if has_nodes(fill_value) else np.full(np.shape(a), fill_value, np.float64)


# ---- elements in another order: NumPy's function is run on an array of places, and gives the new order ----

def moved(name: Any, a: Any, function: Any) -> Any:
    return _core._moved(name, [a], lambda places: function(places[0]))


def moving_one(function: Any, args: Any, kwargs: Any) -> Any:
    """Functions of one array, the first argument; the other arguments are numbers that say how to move elements."""
    if not args or requires_grad(args[1:]) or not taken_by_all(kwargs):
        return NotImplemented
    rest, others = as_numbers(args[1:]), as_numbers(kwargs)
    return moved(name_of(function), args[0], lambda places: function(places, *rest, **others))


def moving_alone(function: Any, args: Any, kwargs: Any) -> Any:
    """Functions of one array alone; for several arrays NumPy returns several."""
    return moving_one(function, args, kwargs) if len(args) == 1 else NotImplemented


def moving_several(function: Any, args: Any, kwargs: Any) -> Any:
    """Functions of a sequence of arrays, the first argument."""
    if not args or not taken_by_all(kwargs):
        return NotImplemented
    return _core._moved(name_of(function), list(args[0]), lambda places: function(places, *args[1:], **kwargs))


def moving_apart(function: Any, args: Any, kwargs: Any) -> Any:
    """Functions that return a list of parts."""
    if not args or not isinstance(args[0], Tensor) or requires_grad(args[1:]) or requires_grad(kwargs):
        return NotImplemented
    places = np.arange(args[0].size).reshape(args[0].shape)
    parts = function(places, *args[1:], **kwargs)
    return type(parts)([moved(name_of(function), args[0], lambda all_, part=part: all_.reshape(-1)[part])
                        for part in parts])


def taken_by_all(kwargs: Any) -> Any:
    return not requires_grad(kwargs) and not {"out", "dtype"} & set(kwargs)


def in_order(function: Any, args: Any, kwargs: Any) -> Any:
    """np.sort: the numbers give the order, and the graph gets the elements in this order."""
    def ordered(a, axis=-1):
        def order(places):
            numbers = tensor(a).numpy()
            if axis is None:
                return places.reshape(-1)[np.argsort(numbers, None, "stable")]
            return np.take_along_axis(places, np.argsort(numbers, axis, "stable"), axis)
        return moved("np.sort", a, order)
    return meant(ordered, args, kwargs)


@means("append")
def append(arr: Any, values: Any, axis: Any = None) -> Any:
    parts = [tensor(arr), tensor(values)]
    return _core.cat([part.reshape(-1) for part in parts] if axis is None else parts, 0 if axis is None else axis)


for _kind, _names in (
        (moving_alone, "atleast_1d atleast_2d"),
        (moving_one, "broadcast_to delete diag diagflat diagonal expand_dims flip fliplr flipud "
                     "linalg.diagonal moveaxis repeat resize roll rollaxis rot90 squeeze swapaxes take take_along_axis "
                     "tile tril triu"),
        (moving_several, "column_stack concat concatenate hstack row_stack stack vstack"),
        (moving_apart, "array_split hsplit split unstack vsplit"),
        (in_order, "sort")):
    MOVING.update(dict.fromkeys(functions(_names), _kind))

REDUCTIONS: dict[tuple[np.ufunc, str], Callable[..., Any]]
REDUCTIONS = {(np.add, "reduce"): sum_, (np.multiply, "reduce"): prod, (np.maximum, "reduce"): max_,
              (np.minimum, "reduce"): min_, (np.add, "accumulate"): cumsum, (np.multiply, "accumulate"): cumprod}
