"""Checks of arguments, each with a message that names the argument, its value and what was expected.

They return what the caller goes on with, and raise errors of `flatgrad.errors`. NumPy is imported by the
functions that need it: micrograd's programs, which use some of the others, do without.
"""
import math
import operator

from flatgrad.errors import (ArgumentError, ArgumentTypeError, DataError, MissingPackageError, ShapeError,
                             UnknownNameError)

__all__ = ["array_of_numbers", "as_array", "columns_of", "extra", "finite", "finite_array", "flag", "generator",
           "is_bool", "no_attribute", "non_negative", "one_of", "path_of", "positive", "real", "samples", "shortened",
           "whole", "within"]

ROWS_AT_ONCE = 1024   # of a list, between two looks at whether Ctrl-C was pressed


def real(name, value, expected="a number"):
    """The float that `value` is, nan and inf among them; an int that is too large for one is inf."""
    if type(value) is not float and type(value) is not int:
        from numbers import Real

        if not isinstance(value, Real):
            raise ArgumentTypeError(f"{name}: expected {expected}, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def finite(name, value, expected="a finite number"):
    """The finite float that `value` is."""
    result = real(name, value, expected)
    if not math.isfinite(result):
        raise ArgumentError(f"{name}: expected {expected}, got {value!r}")
    return result


def non_negative(name, value):
    """The finite float, 0 or more, that `value` is."""
    expected = "a finite number, 0 or more"
    result = finite(name, value, expected)
    if result < 0.0:
        raise ArgumentError(f"{name}: expected {expected}, got {value!r}")
    return result


def positive(name, value):
    """The finite float above 0 that `value` is."""
    expected = "a finite number above 0"
    result = finite(name, value, expected)
    if result <= 0.0:
        raise ArgumentError(f"{name}: expected {expected}, got {value!r}")
    return result


def within(name, value, low, high, expected=None):
    """The float that `value` is, which has to be from `low` to below `high`."""
    expected = expected or f"a number from {low:g} to below {high:g}"
    result = finite(name, value, expected)
    if not low <= result < high:
        raise ArgumentError(f"{name}: expected {expected}, got {value!r}")
    return result


def whole(name, value, low=0):
    """The int, `low` or more, that `value` is."""
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


def flag(name, value):
    """The bool that `value` is."""
    if not is_bool(value):
        raise ArgumentTypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def is_bool(value):
    """Whether it is a bool, NumPy's included."""
    return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool") and hasattr(value, "dtype")


# What people look for under PyTorch's names, or in another module, and where it is.
ELSEWHERE = {
    "Linear": "flatgrad.nn.Layer(nin, nout, 'linear')", "BatchNorm1d": "flatgrad.nn.BatchNorm",
    "LSTM": "flatgrad.nn.LSTMCell", "GRU": "flatgrad.nn.GRUCell", "RNN": "flatgrad.nn.RNNCell",
    "tensor": "flatgrad.Tensor", "from_numpy": "flatgrad.Tensor", "Parameter": "flatgrad.Tensor",
    "functional": "flatgrad, for the functions, and flatgrad.losses", "init": "flatgrad.nn.initialization",
    "utils": "flatgrad.optim, for clip_grad_norm_", "mse_loss": "flatgrad.losses.mse", "MSE": "flatgrad.losses.mse",
    "l1_loss": "flatgrad.losses.mae", "MAE": "flatgrad.losses.mae", "huber_loss": "flatgrad.losses.huber",
    "nll_loss": "flatgrad.losses.nll", "bce": "flatgrad.losses.binary_cross_entropy",
    "binary_cross_entropy_with_logits": "flatgrad.losses.bce_with_logits",
    "crossentropy": "flatgrad.losses.cross_entropy", "softmax_cross_entropy": "flatgrad.losses.cross_entropy",
    "CategoricalCrossentropy": "flatgrad.losses.cross_entropy", "Dense": "flatgrad.nn.Layer",
}


def no_attribute(module, name):
    """The AttributeError of a module that has no such name; it says where there is one."""
    from importlib import import_module

    place = ELSEWHERE.get(name)
    modules = ("flatgrad", "flatgrad.nn", "flatgrad.losses", "flatgrad.optim")
    for other in () if place or name.startswith("_") else modules:
        if other != module and name in dir(import_module(other)):
            place = f"{other}.{name}"
            break
    return AttributeError(f"module {module!r} has no attribute {name!r}{f'; there is {place}' if place else ''}")


def one_of(name, value, known):
    """`value`, which has to be one of the names `known`; the error suggests the nearest."""
    known = list(known)
    if isinstance(value, str) and value in known:
        return value
    expected = f"{name}: expected one of {', '.join(map(repr, known))}, got {value!r}"
    if not isinstance(value, str):
        raise ArgumentTypeError(expected)
    import difflib

    near = difflib.get_close_matches(value.lower(), known, n=1)
    raise UnknownNameError(expected + (f"; did you mean {near[0]!r}?" if near else ""))


def path_of(name, value):
    """The str that a path is."""
    import os

    try:
        result = os.fspath(value)
    except TypeError:
        result = None
    if not isinstance(result, str):   # bytes as well, which nothing could be appended to
        raise ArgumentTypeError(f"{name}: expected a str or path-like object, got {shortened(value)}")
    if not result:
        raise ArgumentError(f"{name}: expected the path of a file, got ''")
    return result


def generator(name, rng):
    """A `numpy.random.Generator`: `rng` itself, or one seeded by an int, or by the system for None."""
    import numpy as np

    if isinstance(rng, np.random.Generator):
        return rng
    if rng is not None:
        try:
            rng = whole(name, rng)
        except ArgumentTypeError:
            raise ArgumentTypeError(f"{name}: expected None, an int or a numpy.random.Generator, got {rng!r}") from None
    return np.random.default_rng(rng)


def as_array(x):
    """np.asarray, of a long list by parts: in between, Ctrl-C is heard."""
    import numpy as np

    if type(x) not in (list, tuple) or len(x) <= ROWS_AT_ONCE:
        return np.asarray(x)
    parts = [np.asarray(x[k:k + ROWS_AT_ONCE]) for k in range(0, len(x), ROWS_AT_ONCE)]
    if len({part.shape[1:] for part in parts}) > 1 or any(part.dtype.kind not in "biuf" for part in parts):
        return np.asarray(x)   # which says what is wrong with it
    return np.concatenate(parts)


def array_of_numbers(x):
    """`x` as an array, for what takes numbers and has no gradient: Tensors, and those in a list, by their numbers."""
    import numpy as np

    try:
        return as_array(x)
    except ArgumentTypeError as error:   # a Tensor that requires a gradient
        if getattr(error, "traced", False):   # which a transform is looking for
            raise
        return np.asarray(without_tensors(x))


def without_tensors(x):
    """`x` with arrays in place of the Tensors in it."""
    if isinstance(x, (list, tuple)):
        return [without_tensors(part) for part in x]
    return x.numpy() if hasattr(x, "requires_grad") and hasattr(x, "numpy") else x


def finite_array(name, x, ndim=None):
    """`x` as a C-contiguous array of float64, of `ndim` dimensions if given, without nan and inf."""
    import numpy as np

    try:
        array = array_of_numbers(x)
        if array.dtype.kind == "c":   # astype would drop the imaginary part, with a warning at most
            raise TypeError
        if array.dtype.kind == "O" and any(isinstance(item, np.ndarray) for item in array.flat):
            raise TypeError   # an array may be in itself, and NumPy would go down without end
        if array.dtype.kind not in "biuf":
            array = of_objects(array)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentTypeError(f"{name}: expected an array of real numbers, got {shortened(x)}") from None
    if ndim is not None and array.ndim != ndim:
        raise ShapeError(f"{name}: expected {ndim} dimension{'s' * (ndim != 1)}, got the shape {array.shape}")
    if np.ma.is_masked(x):   # np.asarray has taken what is under the mask
        raise DataError(f"{name}: expected numbers, got an array with {np.ma.count_masked(x)} of them masked")
    array = np.ascontiguousarray(array, np.float64)
    if not np.isfinite(array).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        raise DataError(f"{name}[{', '.join(map(str, where))}]: expected a finite number, got {array[where]}")
    return array


def of_objects(array):
    """An array of numbers that are objects, such as Fractions, as one of float64. Text and dates are no numbers."""
    if array.dtype.kind != "O" or array.ndim == 0 and array.item() is None or any(
            isinstance(item, (str, bytes)) for item in array.flat):
        raise TypeError
    return array.astype("float64")


def columns_of(X):
    """The names of the columns of a DataFrame, a list of str; None if it has none, or they are not all text."""
    try:
        names = list(getattr(X, "columns", ()))
    except TypeError:
        return None
    return names if names and all(isinstance(name, str) for name in names) else None


def samples(name, x, n_features=None):
    """`x` as a float64 array of shape (n_samples, n_features), finite and with one of each at least."""
    array = finite_array(name, x, 2)
    if 0 in array.shape:
        raise DataError(f"{name}: expected one sample and one feature at least, got the shape {array.shape}")
    if n_features is not None and array.shape[1] != n_features:
        raise ShapeError(f"{name}: expected {n_features} features, got the shape {array.shape}")
    return array


def extra(package, purpose, of, module=None):
    """The module of an optional package.

    Parameters
    ----------
    package : str
        As pip calls it.
    purpose : str
        What needs it, to begin the message with.
    of : str
        The extra of flatgrad that brings it.
    module : str, optional
        What to import, if it is not called as the package is.

    Raises
    ------
    MissingPackageError
        If it is not installed.
    """
    from importlib import import_module

    module = module or package
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise   # it is there, and broken
        raise MissingPackageError(f"{purpose} needs {package}; to install it: pip install 'flatgrad[{of}]'",
                                  name=error.name) from None


def shortened(x):
    """repr(x), cut to what a message has room for."""
    try:
        text = repr(x)
    except Exception as error:   # the message is about something else
        text = f"whose repr() raises {type(error).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
