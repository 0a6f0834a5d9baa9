"""Every public function of NumPy called with Tensors, in each position, while a gradient is taken: its derivative
is that of finite differences, or it raises. None gives a number whose gradient was lost on the way.

A call that NumPy itself refuses says nothing about Tensors, so each is first made with arrays. The finite
differences are those of NumPy's function, not of flatgrad.
"""
import inspect
import itertools
import warnings

import numpy as np
import pytest

import flatgrad as fg
from flatgrad import Tensor, Value, _core, array_functions

# What asks the machine, writes files, reads code or changes how NumPy works, and what has no numbers to do with.
SKIPPED = set("""
    abs_ asmatrix bmat busday_count busday_offset datetime_data deprecate deprecate_with_doc disp e from_dlpack
    frombuffer fromfile fromfunction fromiter frompyfunc fromregex fromstring genfromtxt get_include getbufsize geterr
    geterrcall info is_busday load loadtxt lookfor mat memmap open_memmap printoptions recfromcsv recfromtxt safe_eval
    save savetxt savez savez_compressed seterr seterrcall setbufsize set_printoptions set_numeric_ops set_string_function
    show_config show_runtime source test who add_docstring add_newdoc add_newdoc_ufunc byte_bounds errstate nditer
    nested_iters ndenumerate ndindex vectorize busdaycalendar get_printoptions require_module ufunc iinfo finfo
    poly1d broadcast flatiter matrix recarray record chararray void
""".split())
if int(np.__version__.split(".")[0]) < 2:
    SKIPPED.add("vdot")   # NumPy 1 crashes if a conversion fails in it, of anything

VECTOR = np.array([0.31, 0.92, 0.57])      # away from where functions have kinks and steps
MATRIX = np.array([[0.63, 0.22, 0.44], [0.13, 0.84, 0.53], [0.71, 0.36, 0.97]])
OTHER = np.array([0.41, 0.72, 0.25])
# Arguments that many functions take beside the one that is a Tensor; None stands for it.
PATTERNS = [
    ("T",), ("T", "T"), ("T", OTHER), (OTHER, "T"), ("T", MATRIX), (MATRIX, "T"), ("T", 2), (2, "T"), ("T", 1),
    ("T", 0.5), ("T", [0, 1, 1]), ([0, 1, 1], "T"), ("T", (-1,)), ("T", OTHER, OTHER), (OTHER, "T", OTHER),
    (OTHER, OTHER, "T"), ("T", 0.2, 0.6), (OTHER, 0.2, "T"), ("T", [1], 0.5), ("T", np.array([1]), 0.5),
    (OTHER > 0.5, "T", 0.0), (OTHER > 0.5, OTHER, "T"), (["T", "T"],), ([OTHER, "T"],), ([["T"], ["T"]],),
    (lambda x: x * 2.0, "T"), (lambda x: x * 2.0, 0, "T"), ("i,i", "T", "T"), ("ij,j", MATRIX, "T"), ("T", 0, 1),
    ([OTHER > 0.5], ["T"]), ([0, 1, 0], ["T", OTHER]), ("T", [OTHER > 0.5], [1.0]), ((3,), "T"), (3, "T"),
    ("T", np.array([[0], [1], [2]]), 1), ("T", (3, 3)), ("T", (1, 3)),
]
# What has to agree with finite differences for one pattern at least.
MEANT = {*array_functions.MEANINGS, *array_functions.MOVING, np.matmul, np.sign, np.floor,
         *[getattr(np, name) for row in _core._operations() for name in row["ufuncs"]]} - {np.shape, np.ndim, np.size}


def public():
    for module in np, np.linalg, np.fft, np.ma:
        for name in sorted(set(dir(module))):
            function = getattr(module, name, None)
            if name.startswith("_") or name in SKIPPED or not callable(function):
                continue
            if inspect.isclass(function) and issubclass(function, (BaseException, np.dtype)):
                continue
            yield pytest.param(function, id=f"{module.__name__}.{name}")
    for ufunc in np.add, np.multiply, np.maximum, np.minimum, np.subtract, np.logaddexp:
        for method in "reduce", "accumulate", "outer", "reduceat", "at":
            yield pytest.param(getattr(ufunc, method), id=f"numpy.{ufunc.__name__}.{method}")


def filled(pattern, x):
    if isinstance(pattern, str) and pattern == "T":
        return x
    if isinstance(pattern, np.ndarray):
        return pattern.copy()   # some functions write to it
    return type(pattern)(filled(part, x) for part in pattern) if type(pattern) in (list, tuple) else pattern


def weighted(result):
    """One number that each number of a result has another part in, or None if there is none in it."""
    if isinstance(result, Tensor):
        return (result * np.cos(np.arange(result.size)).reshape(result.shape)).sum()
    if isinstance(result, (Value, float, np.floating)):
        return result
    if isinstance(result, np.ndarray) and result.dtype == object:
        result = result.ravel().tolist()
    if isinstance(result, np.ndarray):
        if result.dtype.kind == "c":
            return weighted(result.real) + weighted(result.imag)
        return float((result.ravel() * np.cos(np.arange(result.size))).sum()) if result.dtype.kind == "f" else None
    if isinstance(result, (complex, np.complexfloating)):
        return result.real + result.imag
    if isinstance(result, (list, tuple)) or type(result).__module__.startswith("numpy.linalg"):
        numbers = [number for number in map(weighted, result) if number is not None]
        return sum(number * np.cos(k) for k, number in enumerate(numbers)) if numbers else None
    return None


def differences(function, pattern, x):
    """The derivative of NumPy's function by finite differences, or None if it takes no such arguments."""
    def evaluate(y):
        arguments = filled(pattern, y)
        return weighted(function(*arguments))
    if evaluate(x.copy()) is None:
        return None
    slopes = np.zeros(x.shape)
    for place in itertools.product(*map(range, x.shape)):
        up, down = x.copy(), x.copy()
        up[place] += 1e-6
        down[place] -= 1e-6
        slopes[place] = (evaluate(up) - evaluate(down)) / 2e-6
    return slopes


def held_against(function):
    """Hold the gradients of all calls against finite differences; the errors and how many calls agreed."""
    agreed, errors = 0, []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for pattern, x in itertools.product(PATTERNS, (VECTOR, MATRIX)):
            try:
                expected = differences(function, pattern, x)
            except Exception:
                continue   # NumPy does not take these either
            if expected is None or not np.isfinite(expected).all():
                continue
            try:
                found = fg.grad(lambda t: weighted(function(*filled(pattern, t))))(x)   # noqa: B023
            except Exception as error:
                errors.append(error)
                continue
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6, err_msg=f"{function} {pattern}")
            agreed += 1
    return agreed, errors


@pytest.mark.parametrize("function", list(public()))
def test_no_gradient_is_lost(function):
    agreed, errors = held_against(function)
    assert all(str(error) for error in errors)
    assert agreed or function not in MEANT


def test_the_sweep_finds_a_lost_gradient():
    with pytest.raises(AssertionError):
        held_against(lambda x: np.square(x.data if isinstance(x, Tensor) else x))
    agreed, errors = held_against(lambda x: x * x)
    assert agreed and not errors
