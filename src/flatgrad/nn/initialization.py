"""Initialisers: the initial numbers of weights.

The formulas and gains are PyTorch's (`torch.nn.init`). The names are PyTorch's and Keras's; 'uniform' is micrograd's.
By default the numbers are drawn from `random`, as in micrograd; a seed or a generator can be given.
"""
from __future__ import annotations

import math
import random
import sys

from flatgrad._core import _refuse_recording
from flatgrad.arguments import finite, finite_array, one_of, shortened, whole
from flatgrad.errors import ArgumentTypeError, ShapeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad._core import _Init, _Rng

__all__ = ["fans", "gain", "source", "weights"]

RECTIFIER = math.sqrt(2.0)
GAINS = {"linear": 1.0, "relu": RECTIFIER, "leaky_relu": math.sqrt(2.0 / (1.0 + 0.01**2)), "elu": RECTIFIER,
         "gelu": RECTIFIER, "gelu_tanh": RECTIFIER, "silu": RECTIFIER, "softplus": RECTIFIER, "tanh": 5.0 / 3.0,
         "sigmoid": 1.0, "softmax": 1.0}

# Name -> (whether uniform, the standard deviation without the gain, as a function of fan in and fan out).
SCALED: dict[str, Any]
SCALED = {
    "kaiming_uniform": (True, lambda fan_in, fan_out: 1.0 / math.sqrt(fan_in)),
    "kaiming_normal": (False, lambda fan_in, fan_out: 1.0 / math.sqrt(fan_in)),
    "xavier_uniform": (True, lambda fan_in, fan_out: math.sqrt(2.0 / (fan_in + fan_out))),
    "xavier_normal": (False, lambda fan_in, fan_out: math.sqrt(2.0 / (fan_in + fan_out))),
}
ALIASES = {"he_uniform": "kaiming_uniform", "he_normal": "kaiming_normal",
           "glorot_uniform": "xavier_uniform", "glorot_normal": "xavier_normal"}
NAMES = ["uniform", *SCALED, *ALIASES, "normal", "zeros", "ones"]


def weights(init: _Init, shape: tuple[int, ...], activation: str | Callable[..., Any] | None = "linear",
            rng: _Rng = None) -> list[list[float]]:
    """The initial weights of a layer.

    Parameters
    ----------
    init : str, real number, array_like, or callable
        A name from the Notes; a number, for all weights; an array of the given shape; or a function, called as
        ``init(shape, rng)``, that returns such an array.
    shape : tuple of int
        ``(nout, nin)``, or ``(out_channels, in_channels, *kernel)`` of a convolution.
    activation : str, callable or None, optional
        The activation after the layer; it determines the `gain`.
    rng : {None, int, random.Random, numpy.random.Generator}, optional
        The source of random numbers, as in `source`.

    Returns
    -------
    list of list of float
        ``nout`` rows, each with the weights of one output. The weights are drawn row by row.

    Raises
    ------
    UnknownNameError
        If there is no initialiser with this name.
    ArgumentTypeError, ShapeError, DataError, ArgumentError
        If an argument is not as described; if the array that `init` is or returns has another shape, or contains nan
        or inf.

    Notes
    -----
    ``fan_in`` and ``fan_out`` are those of `fans`. U(a) is the uniform distribution over [-a, a]. N(s) is the
    normal distribution of mean 0 and standard deviation s:

    =================================  ============================================
    'uniform'                          U(1): micrograd's
    'kaiming_uniform', 'he_uniform'    U(gain * sqrt(3 / fan_in)) [1]_
    'kaiming_normal', 'he_normal'      N(gain / sqrt(fan_in)) [1]_
    'xavier_uniform',                  U(gain * sqrt(6 / (fan_in + fan_out))) [2]_
    'glorot_uniform'
    'xavier_normal', 'glorot_normal'   N(gain * sqrt(2 / (fan_in + fan_out))) [2]_
    'normal'                           N(1)
    'zeros', 'ones'                    0, 1
    a number c                         c, for all weights
    =================================  ============================================

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers", 2015.
    .. [2] X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
       networks", 2010.

    Examples
    --------
    >>> from flatgrad.nn.initialization import weights
    >>> weights("ones", (2, 3))
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    >>> weights("he_normal", (2, 3), "relu", rng=1) == weights("kaiming_normal", (2, 3), "relu", rng=1)
    True
    """
    shape = shape_of(shape)
    scale = gain(activation)
    rng = source(rng)
    nout, nin = shape[0], math.prod(shape[1:])
    if isinstance(init, str):
        flat = named(one_of("init", init, NAMES), shape, scale, rng)
    elif is_real(init):
        flat = [finite("init", init)] * (nout * nin)
    else:
        flat = given(init, shape, rng)
    return [flat[k * nin:(k + 1) * nin] for k in range(nout)]


def is_real(init: list[list[float]] | NDArray[Any]) -> bool:
    """Whether `init` is a number, and not a bool."""
    from numbers import Real   # imported here, because most calls have a name and do not come here

    return isinstance(init, Real) and not isinstance(init, bool)


def named(name: str, shape: tuple[int, int], scale: float, rng: _Rng) -> list[float]:
    """The numbers of a named initialiser, row by row."""
    count = math.prod(shape)
    if name in ("zeros", "ones"):
        return [float(name == "ones")] * count
    if name == "uniform":
        return uniform(rng, 1.0, count)
    if name == "normal":
        return normal(rng, 1.0, count)
    if count == 0:   # fan in and fan out may be 0 as well
        return []
    is_uniform, deviation = SCALED[ALIASES.get(name, name)]
    deviation = scale * deviation(*fans(shape))
    return uniform(rng, math.sqrt(3.0) * deviation, count) if is_uniform else normal(rng, deviation, count)


def given(init: list[list[float]] | NDArray[Any], shape: tuple[Any, ...], rng: _Rng) -> list[float]:
    """The numbers of an array, or of the array that a callable returns."""
    name = "init"
    if callable(init):
        name, init = "init()", init(shape, rng)
    elif init is None or isinstance(init, (bool, dict, set)):
        raise ArgumentTypeError(f"init: expected a name, a number, an array or a callable, got {shortened(init)}")
    array = finite_array(name, init)
    if array.shape not in (shape, (shape[0], math.prod(shape[1:]))):
        raise ShapeError(f"{name}: expected the shape {shape}, got {array.shape}")
    return array.reshape(-1).tolist()


def gain(activation: str | Callable[..., Any] | None) -> float:
    """The factor for weights before an activation; with it, signals keep their size.

    Parameters
    ----------
    activation : str, callable or None
        The name of an activation; None is 'linear'. A callable has a gain of 1.

    Returns
    -------
    float
        The gain of PyTorch's `calculate_gain`: 1 for linear and sigmoid, 5/3 for tanh, sqrt(2) for relu,
        sqrt(2 / (1 + 0.01**2)) for leaky_relu. PyTorch has no gain for the others. Here elu, gelu, gelu_tanh,
        silu and softplus have the gain of relu, and softmax the gain of linear.

    Raises
    ------
    UnknownNameError
        If there is no activation with this name.

    Examples
    --------
    >>> from flatgrad.nn.initialization import gain
    >>> gain("linear"), round(gain("relu"), 6)
    (1.0, 1.414214)
    """
    if activation is None or callable(activation):
        return 1.0
    return GAINS[one_of("activation", activation, GAINS)]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """The number of weights of each output (fan in) and of each input (fan out).

    Parameters
    ----------
    shape : tuple of int
        The shape of the weights: ``(nout, nin)``, or ``(out_channels, in_channels, *kernel)`` of a convolution.

    Returns
    -------
    fan_in, fan_out : int
        The number of channels times the size of the kernel, as in PyTorch; for a layer the size of the kernel is 1.

    Examples
    --------
    >>> from flatgrad.nn.initialization import fans
    >>> fans((16, 3, 5, 5))
    (75, 400)
    """
    shape = shape_of(shape)
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def source(rng: _Rng) -> Any:
    """A source of random numbers: an object with the methods ``uniform(low, high)`` and ``normal`` or ``gauss``.

    Parameters
    ----------
    rng : {None, int, random.Random, numpy.random.Generator}
        None: the module `random`, so that `random.seed` determines the draws, as in micrograd. An int: the seed of
        a new `random.Random`, which draws the numbers that `random` draws after ``random.seed`` with this int.

    Returns
    -------
    module, random.Random or numpy.random.Generator
        `rng` itself, if it is a source already: several layers can share it.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `rng` is of another type, or a negative int.

    Examples
    --------
    >>> import random
    >>> from flatgrad.nn.initialization import source
    >>> random.seed(7)
    >>> source(7).random() == source(None).random()
    True
    """
    _refuse_recording("parameters: drawn")
    if rng is None:
        return random
    if rng is random or isinstance(rng, random.Random) or is_generator(rng):
        return rng
    try:
        return random.Random(whole("rng", rng))
    except ArgumentTypeError:
        raise ArgumentTypeError("rng: expected None, an int, a random.Random or a numpy.random.Generator, got "
                                f"{shortened(rng)}") from None


def is_generator(rng: _Rng) -> bool:
    """Whether `rng` is a generator of NumPy; does not import NumPy."""
    np = sys.modules.get("numpy")
    return np is not None and isinstance(rng, np.random.Generator)


def uniform(rng: _Rng, bound: float, count: int) -> list[float]:
    """`count` numbers from the uniform distribution over [-bound, bound]; `rng` as `source` returns it."""
    if is_generator(rng):
        return rng.uniform(-bound, bound, count).tolist()   # the same numbers as `count` single draws
    return [rng.uniform(-bound, bound) for _ in range(count)]


def normal(rng: _Rng, deviation: float, count: int) -> list[float]:
    """`count` numbers from the normal distribution of mean 0."""
    if is_generator(rng):
        return rng.normal(0.0, deviation, count).tolist()
    return [rng.gauss(0.0, deviation) for _ in range(count)]


def shape_of(shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """`shape` as a tuple of two or more ints."""
    try:
        result = tuple(shape)
    except TypeError:
        raise ArgumentTypeError(f"shape: expected a tuple of ints, got {shape!r}") from None
    if len(result) < 2:
        raise ShapeError(f"shape: expected (nout, nin), got {shape!r}")
    return tuple([whole(f"shape[{k}]", length) for k, length in enumerate(result)])
