"""Activations as modules, for use between other modules. Each is one instruction; for a list it is two."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import (Tensor, Value, _refuse_lost, elu, gelu, gelu_tanh, leaky_relu, log_softmax, relu, sigmoid, silu,
                            softmax, softplus, tanh)
from flatgrad.arguments import finite, one_of
from flatgrad.errors import ShapeError
from flatgrad.nn.inputs import as_rows, shown
from flatgrad.nn.module import Module

if TYPE_CHECKING:
    from typing import Any, Literal

__all__ = ["ReLU", "LeakyReLU", "ELU", "GELU", "SiLU", "Softplus", "Tanh", "Sigmoid", "Softmax", "LogSoftmax",
           "Flatten"]


class Activation(Module):
    """A function of each number; the base class of activations.

    For a list of Values and numbers the result is a list of Value. For a Value it is a Value. For an array, a Tensor
    or a list of rows it is a Tensor.
    """

    def __call__(self, x: Any) -> Any:
        if isinstance(x, (Tensor, Value)):
            return self.function(x)
        x, give = as_rows(x)
        return give(self.function(x))

    def function(self, x: Any) -> Any:
        """For a Value a Value, for any other operand a Tensor."""
        raise NotImplementedError(f"{type(self).__name__} has no function()")

    def __repr__(self) -> str:
        return shown(self)


class ReLU(Activation):
    """max(x, 0), like `flatgrad.relu`.

    Examples
    --------
    >>> from flatgrad.nn import ReLU
    >>> [y.data for y in ReLU()([-1.0, 2.0])]
    [0.0, 2.0]
    """

    def function(self, x: Any) -> Any:
        return relu(x)


class LeakyReLU(Activation):
    """x where x is above 0, else negative_slope * x, like `flatgrad.leaky_relu`.

    Parameters
    ----------
    negative_slope : float, optional

    Examples
    --------
    >>> from flatgrad.nn import LeakyReLU
    >>> [y.data for y in LeakyReLU(0.25)([-1.0, 2.0])]
    [-0.25, 2.0]
    """

    negative_slope: Any

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = finite("negative_slope", negative_slope)

    def function(self, x: Any) -> Any:
        return leaky_relu(x, self.negative_slope)

    def __repr__(self) -> str:
        return shown(self, negative_slope=(self.negative_slope, 0.01))


class ELU(Activation):
    """x where x is above 0, else alpha * (exp(x) - 1), like `flatgrad.elu`.

    Parameters
    ----------
    alpha : float, optional

    Examples
    --------
    >>> from flatgrad.nn import ELU
    >>> [round(y.data, 4) for y in ELU()([-1.0, 2.0])]
    [-0.6321, 2.0]
    """

    alpha: Any

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = finite("alpha", alpha)

    def function(self, x: Any) -> Any:
        return elu(x, self.alpha)

    def __repr__(self) -> str:
        return shown(self, alpha=(self.alpha, 1.0))


class GELU(Activation):
    """x * Phi(x), where Phi is the normal distribution function, like `flatgrad.gelu`; or its approximation by tanh.

    Parameters
    ----------
    approximate : {'none', 'tanh'}, optional
        'tanh' gives `flatgrad.gelu_tanh`.

    Examples
    --------
    >>> from flatgrad.nn import GELU
    >>> GELU()([1.0])[0].data > GELU(approximate="tanh")([1.0])[0].data
    True
    """

    approximate: Literal["none", "tanh"]

    def __init__(self, approximate: Literal['none', 'tanh'] = "none") -> None:
        self.approximate = one_of("approximate", approximate, ["none", "tanh"])

    def function(self, x: Any) -> Any:
        return gelu(x) if self.approximate == "none" else gelu_tanh(x)

    def __repr__(self) -> str:
        return shown(self, approximate=(self.approximate, "none"))


class SiLU(Activation):
    """x * sigmoid(x), like `flatgrad.silu`.

    Examples
    --------
    >>> from flatgrad.nn import SiLU
    >>> SiLU()([0.0])[0].data
    0.0
    """

    def function(self, x: Any) -> Any:
        return silu(x)


class Softplus(Activation):
    """log(1 + exp(x)), like `flatgrad.softplus`.

    Examples
    --------
    >>> from flatgrad.nn import Softplus
    >>> round(Softplus()([0.0])[0].data, 6)
    0.693147
    """

    def function(self, x: Any) -> Any:
        return softplus(x)


class Tanh(Activation):
    """The hyperbolic tangent, like `flatgrad.tanh`.

    Examples
    --------
    >>> from flatgrad.nn import Tanh
    >>> Tanh()([0.0])[0].data
    0.0
    """

    def function(self, x: Any) -> Any:
        return tanh(x)


class Sigmoid(Activation):
    """1 / (1 + exp(-x)), like `flatgrad.sigmoid`.

    Examples
    --------
    >>> from flatgrad.nn import Sigmoid
    >>> Sigmoid()([0.0])[0].data
    0.5
    """

    def function(self, x: Any) -> Any:
        return sigmoid(x)


class Softmax(Activation):
    """exp(x) divided by its sum over the numbers of a sample, like `flatgrad.softmax`.

    Examples
    --------
    >>> from flatgrad.nn import Softmax
    >>> [y.data for y in Softmax()([1000.0, 1000.0])]
    [0.5, 0.5]
    """

    def function(self, x: Any) -> Any:
        return softmax([x])[0] if isinstance(x, Value) else softmax(x)


class LogSoftmax(Activation):
    """The logarithm of `Softmax`, like `flatgrad.log_softmax`.

    Examples
    --------
    >>> from flatgrad.nn import LogSoftmax
    >>> [round(y.data, 6) for y in LogSoftmax()([0.0, 0.0])]
    [-0.693147, -0.693147]
    """

    def function(self, x: Any) -> Any:
        return log_softmax([x])[0] if isinstance(x, Value) else log_softmax(x)


class Flatten(Module):
    """Turns an array of samples of several dimensions into rows; returns any other input unchanged.

    Convolutions return rows, so a network needs no Flatten where PyTorch's network has one.

    Examples
    --------
    >>> import numpy
    >>> from flatgrad.nn import Flatten
    >>> Flatten()(numpy.zeros((4, 8, 8))).shape
    (4, 64)
    """

    def __call__(self, x: Any) -> Any:
        shape = getattr(x, "shape", ())
        if len(shape) < 3:
            return x
        if 0 in shape:
            raise ShapeError(f"x: expected one sample at least, got the shape {shape}")
        _refuse_lost("x", x)
        return np.asarray(x).reshape(shape[0], -1)

    def __repr__(self) -> str:
        return shown(self)
