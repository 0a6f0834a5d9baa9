"""Checks of arguments. Each raises an error that names the argument, its value and the expected value.

The checks return the converted value, and raise errors of `flatgrad.errors`. Functions that need NumPy import it
themselves: micrograd's programs use only the other functions, and run without NumPy.
"""
from __future__ import annotations

import math
import operator

from flatgrad.errors import (ArgumentError, ArgumentTypeError, DataError, MissingPackageError, ShapeError,
                             UnknownNameError)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad._core import _Rng

__all__ = ["array_of_numbers", "as_array", "check_columns", "columns_of", "extra", "finite", "finite_array", "flag", "generator",
           "is_bool", "no_attribute", "non_negative", "one_of", "path_of", "positive", "real", "samples", "shortened",
           "whole", "within"]

ROWS_AT_ONCE = 1024   # rows of a list between two checks for Ctrl-C


def real(name: str, value: Any, expected: str = "a number") -> float:
    """`value` as a float, possibly nan or inf; an int too large for a float becomes inf."""
    if type(value) is not float and type(value) is not int:
        from numbers import Real

        if not isinstance(value, Real):
            raise ArgumentTypeError(f"{name}: expected {expected}, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def finite(name: str, value: Any, expected: str = "a finite number") -> float:
    """`value` as a finite float."""
    result = real(name, value, expected)
    if not math.isfinite(result):
        raise ArgumentError(f"{name}: expected {expected}, got {value!r}")
    return result


def non_negative(name: str, value: Any) -> float:
    """`value` as a finite float, 0 or more."""
    if type(value) is float and 0.0 <= value < math.inf:   # most often
        return value
    expected = "a finite number, 0 or more"
    result = finite(name, value, expected)
    if result < 0.0:
        raise ArgumentError(f"{name}: expected {expected}, got {value!r}")
    return result


def positive(name: str, value: Any) -> float:
    """`value` as a finite float above 0."""
    expected = "a finite number above 0"
    result = finite(name, value, expected)
    if result <= 0.0:
        raise ArgumentError(f"{name}: expected {expected}, got {value!r}")
    return result


def within(name: str, value: Any, low: float, high: float, expected: str | None = None) -> float:
    """`value` as a float from `low` to below `high`."""
    expected = expected or f"a number from {low:g} to below {high:g}"
    result = finite(name, value, expected)
    if not low <= result < high:
        raise ArgumentError(f"{name}: expected {expected}, got {value!r}")
    return result


def whole(name: str, value: Any, low: int = 0) -> int:
    """`value` as an int, `low` or more."""
    expected = f"an int, {low} or more"
    if is_bool(value):
        raise ArgumentTypeError(f"{name}: expected {expected}, got {value!r}")
    try:
        result = operator.index(value)
    except TypeError:
        raise ArgumentTypeError(f"{name}: expected {expected}, got {value!r}") from None
    if result < low:
        raise ArgumentError(f"{name}: expected {expected}, got {value!r}")
    return result


def flag(name: str, value: Any) -> bool:
    """`value` as a bool."""
    if not is_bool(value):
        raise ArgumentTypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def is_bool(value: Any) -> bool:
    """Whether `value` is a bool of Python or NumPy."""
    return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool") and hasattr(value, "dtype")


# Names that users of PyTorch, or of another module, look for, and the place of each.
ELSEWHERE = {
    "BatchNorm1d": "flatgrad.nn.BatchNorm",
    "LSTM": "flatgrad.nn.LSTMCell", "GRU": "flatgrad.nn.GRUCell", "RNN": "flatgrad.nn.RNNCell",
    "tensor": "flatgrad.Tensor", "from_numpy": "flatgrad.Tensor", "init": "flatgrad.nn.initialization",
    "parameters_to_vector": "flatgrad.nn.utils.parameters_to_vector",
    "vector_to_parameters": "flatgrad.nn.utils.vector_to_parameters", "mse_loss": "flatgrad.losses.mse", "MSE": "flatgrad.losses.mse",
    "l1_loss": "flatgrad.losses.mae", "MAE": "flatgrad.losses.mae", "huber_loss": "flatgrad.losses.huber",
    "nll_loss": "flatgrad.losses.nll", "bce": "flatgrad.losses.binary_cross_entropy",
    "binary_cross_entropy_with_logits": "flatgrad.losses.bce_with_logits",
    "crossentropy": "flatgrad.losses.cross_entropy", "softmax_cross_entropy": "flatgrad.losses.cross_entropy",
    "CategoricalCrossentropy": "flatgrad.losses.cross_entropy", "Dense": "flatgrad.nn.Layer",
}


def no_attribute(module: str, name: str) -> AttributeError:
    """The AttributeError of a module without this name; the message gives the place of the name elsewhere."""
    from importlib import import_module

    place = ELSEWHERE.get(name)
    modules = ("flatgrad", "flatgrad.nn", "flatgrad.losses", "flatgrad.optim")
    for other in () if place or name.startswith("_") else modules:
        if other != module and name in dir(import_module(other)):
            place = f"{other}.{name}"
            break
    return AttributeError(f"module {module!r} has no attribute {name!r}{f'; there is {place}' if place else ''}")


def one_of(name: str, value: Any, known: tuple[Any, ...] | dict[str, Any] | list[str]) -> Any:
    """`value`, if it is one of the names `known`; otherwise the error suggests the nearest name."""
    known = list(known)
    if isinstance(value, str) and value in known:
        return value
    expected = f"{name}: expected one of {', '.join(map(repr, known))}, got {value!r}"
    if not isinstance(value, str):
        raise ArgumentTypeError(expected)
    import difflib

    near = difflib.get_close_matches(value.lower(), known, n=1)
    raise UnknownNameError(expected + (f"; did you mean {near[0]!r}?" if near else ""))


def path_of(name: str, value: Any) -> str:
    """`value` as the str of a path."""
    import os

    try:
        result = os.fspath(value)
    except TypeError:
        result = None
    if not isinstance(result, str):   # bytes too: callers append a str
        raise ArgumentTypeError(f"{name}: expected a str or path-like object, got {shortened(value)}")
    if not result:
        raise ArgumentError(f"{name}: expected the path of a file, got ''")
    return result


def generator(name: str, rng: _Rng) -> Any:
    """A `numpy.random.Generator`: `rng` itself, or a new one with the seed `rng`, or with the system's seed for
    None."""
    import numpy as np

    if isinstance(rng, np.random.Generator):
        return rng
    if rng is not None:
        try:
            rng = whole(name, rng)
        except ArgumentTypeError:
            raise ArgumentTypeError(f"{name}: expected None, an int or a generator, a random.Random or a "
                                    f"numpy.random.Generator, got {rng!r}") from None
    return np.random.default_rng(rng)


def as_array(x: Any) -> NDArray[Any]:
    """np.asarray(x); a long list is converted in parts, so that Ctrl-C works in between."""
    import numpy as np

    if type(x) not in (list, tuple) or len(x) <= ROWS_AT_ONCE:
        return np.asarray(x)
    parts = [np.asarray(x[k:k + ROWS_AT_ONCE]) for k in range(0, len(x), ROWS_AT_ONCE)]
    if len({part.shape[1:] for part in parts}) > 1 or any(part.dtype.kind not in "biuf" for part in parts):
        return np.asarray(x)   # raises the error for the whole list
    return np.concatenate(parts)


def array_of_numbers(x: Any) -> NDArray[Any]:
    """`x` as an array, without gradients: a Tensor, also one in a list, becomes an array of its numbers."""
    import numpy as np

    try:
        return as_array(x)
    except ArgumentTypeError as error:   # because of a Tensor that requires a gradient
        if getattr(error, "traced", False):   # a transform differentiates by the Tensor
            raise
        return np.asarray(without_tensors(x))


def without_tensors(x: Any) -> Any:
    """`x` with arrays in place of its Tensors."""
    if isinstance(x, (list, tuple)):
        return [without_tensors(part) for part in x]
    return x.numpy() if hasattr(x, "requires_grad") and hasattr(x, "numpy") else x


def finite_array(name: str, x: Any, ndim: Any = None) -> Any:
    """`x` as a C-contiguous array of float64 without nan and inf, of `ndim` dimensions if given."""
    import numpy as np

    columns = columns_in(x)
    if columns is not None:
        columns, x = [label for label, _ in columns], array_of_columns(name, columns, len(x))
    try:
        array = array_of_numbers(x)
        if array.dtype.kind == "c":   # astype would drop the imaginary part, with no more than a warning
            raise TypeError
        if array.dtype.kind == "O" and any(isinstance(item, np.ndarray) for item in array.flat):
            raise TypeError   # an array may contain itself, and NumPy would recurse without end
        if array.dtype.kind not in "biuf":
            array = of_objects(array)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentTypeError(f"{name}: expected an array of real numbers, got {shortened(x)}") from None
    if ndim is not None and array.ndim != ndim:
        advice = f"; numpy.reshape({name}, (-1, 1)) has one feature for each sample, (1, -1) one sample"
        raise ShapeError(f"{name}: expected {ndim} dimension{'s' * (ndim != 1)}, got the shape {array.shape}"
                         + advice * ((array.ndim, ndim) == (1, 2)))
    if np.ma.is_masked(x):   # np.asarray ignores the mask
        raise DataError(f"{name}: expected numbers, got an array with {np.ma.count_masked(x)} of them masked")
    array = np.ascontiguousarray(array, np.float64)
    if not np.isfinite(array).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        place = where if columns is None else (where[0], repr(columns[where[1]]))
        raise DataError(f"{name}[{', '.join(map(str, place))}]: expected a finite number, got {array[where]}")
    return array


def of_objects(array: Any) -> Any:
    """An array of objects that are numbers, such as Fractions, as an array of float64. Text and dates are not
    numbers."""
    if array.dtype.kind != "O" or array.ndim == 0 and array.item() is None or any(
            isinstance(item, (str, bytes)) for item in array.flat):
        raise TypeError
    return array.astype("float64")


def columns_in(x: Any) -> list[tuple[Any, Any]] | None:
    """The names and the columns of a table of pandas, Polars or PyArrow; None of anything else."""
    kind = type(x)
    if kind in (list, tuple, float, int):
        return None
    if hasattr(kind, "iloc"):   # pandas, and others like it
        return [(label, x.iloc[:, k]) for k, label in enumerate(x.columns)] if hasattr(x, "columns") else None
    if hasattr(kind, "get_columns"):   # Polars
        return [(column.name, column) for column in x.get_columns()]
    return list(zip(x.column_names, x.columns)) if hasattr(kind, "column_names") else None   # PyArrow


def array_of_columns(name: str, columns: list[tuple[Any, Any]], n_rows: int) -> NDArray[Any]:
    """The columns of a table as those of an array of float64, with nan where a number is missing."""
    import numpy as np

    found = numbers_of_columns(name, columns)
    array = np.empty((n_rows, len(columns)))
    for k, numbers in enumerate(found):
        array[:, k] = numbers
    return array


def check_columns(name: str, x: Any) -> None:
    """An error that names the columns of a table which are no numbers."""
    columns = columns_in(x)
    if columns is not None:
        numbers_of_columns(name, columns)


def numbers_of_columns(name: str, columns: list[tuple[Any, Any]]) -> list[NDArray[Any]]:
    found = [(label, column, numbers_of_column(column)) for label, column in columns]
    wrong = [f"{label!r} of type {getattr(column, 'dtype', getattr(column, 'type', ''))}, such as "
             f"{shortened(column.to_numpy()[:1].tolist()[0])}" for label, column, numbers in found if numbers is None]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ArgumentTypeError(f"{name}: expected columns of numbers, got the column {'; '.join(wrong[:3])}{more}. Leave it "
                                "out, or make numbers of its values")
    return [numbers for _, _, numbers in found]


def numbers_of_column(column: Any) -> NDArray[Any] | None:
    """A column of a table as an array of numbers, with nan for what is missing; None if it has anything else, such as text
    or dates."""
    import numpy as np

    array = column.to_numpy()
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.kind != "O":
        return None
    items = [math.nan if x is None or type(x).__name__ == "NAType" else x for x in array.tolist()]
    try:
        return of_objects(np.array([*items, None], object)[:-1])   # an array of one dimension, whatever they are
    except (TypeError, ValueError, OverflowError):
        return None


def columns_of(X: Any) -> list[str] | None:
    """The names of a DataFrame's columns, a list of str; None if there are no names, or if some are not text."""
    try:
        names = list(getattr(X, "columns" if not hasattr(type(X), "column_names") else "column_names", ()))
    except TypeError:
        return None
    return names if names and all(isinstance(name, str) for name in names) else None


def samples(name: str, x: Any, n_features: int | None = None) -> Any:
    """`x` as a finite float64 array of shape (n_samples, n_features), with at least one sample and one feature."""
    array = finite_array(name, x, 2)
    if 0 in array.shape:
        raise DataError(f"{name}: expected one sample and one feature at least, got the shape {array.shape}")
    if n_features is not None and array.shape[1] != n_features:
        raise ShapeError(f"{name}: expected {n_features} features, got the shape {array.shape}")
    return array


def extra(package: str, purpose: str, of: str, module: str | None = None) -> Any:
    """The module of an optional package.

    Parameters
    ----------
    package : str
        The name of the package for pip.
    purpose : str
        The feature that needs the package; the error message begins with it.
    of : str
        The extra of flatgrad that installs the package.
    module : str, optional
        The module to import, if its name is not the package's name.

    Raises
    ------
    MissingPackageError
        If the package is not installed.
    """
    from importlib import import_module

    module = module or package
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise   # the package is installed, but broken
        raise MissingPackageError(f"{purpose} needs {package}; to install it: pip install 'flatgrad[{of}]'",
                                  name=error.name) from None


def shortened(x: Any) -> str:
    """repr(x), cut to a length that fits a message."""
    try:
        text = repr(x)
    except Exception as error:   # the caller's message matters more than this error
        text = f"whose repr() raises {type(error).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
