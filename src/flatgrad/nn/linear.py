"""Linear layers with PyTorch's arguments, initial weights and keys of the state dict."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from flatgrad._core import Tensor, linear
from flatgrad.arguments import flag, whole
from flatgrad.nn.initialization import source, uniform
from flatgrad.nn.inputs import as_rows, given_sample, shown
from flatgrad.nn.module import Module, parameter

__all__ = ["Linear", "Identity"]


class Linear(Module):
    """weight @ x + bias, for a sample or for several.

    Parameters
    ----------
    in_features, out_features : int
        The number of elements of a sample, and of the result.
    bias : bool, optional
    rng : {None, int, random.Random, numpy.random.Generator}, optional
        The source of random numbers for the parameters, as in `flatgrad.nn.initialization.source`.

    Attributes
    ----------
    weight : Tensor, shape (out_features, in_features)
    bias : Tensor, shape (out_features,), or None
        Both are drawn from the uniform distribution over [-1/sqrt(in_features), 1/sqrt(in_features)], as in PyTorch.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is not as described.

    See Also
    --------
    Layer : micrograd's layer of neurons, with an activation and an initialisation of choice.

    Notes
    -----
    One instruction, as a `Layer`. The parameters are Tensors, those of a `Layer` are Values of its neurons.

    Examples
    --------
    >>> from flatgrad.nn import Linear, Sequential, Tanh
    >>> model = Sequential(Linear(2, 8), Tanh(), Linear(8, 1))
    >>> model([[1.0, 2.0], [3.0, 4.0]]).shape, type(model([1.0, 2.0]))
    ((2, 1), <class 'flatgrad.Value'>)
    >>> {key: array.shape for key, array in Linear(2, 8).state_dict().items()}
    {'weight': (8, 2), 'bias': (8,)}
    """

    weight: Tensor = parameter()
    bias: Tensor | None = parameter()

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, rng: Any = None) -> None:
        self.in_features = whole("in_features", in_features, 1)
        self.out_features = whole("out_features", out_features, 1)
        has_bias, rng = flag("bias", bias), source(rng)
        bound, shape = 1.0 / math.sqrt(self.in_features), (self.out_features, self.in_features)
        self.weight = Tensor(np.reshape(uniform(rng, bound, math.prod(shape)), shape))
        self.bias = Tensor(np.reshape(uniform(rng, bound, self.out_features), -1)) if has_bias else None

    def __call__(self, x: Any) -> Any:
        """The layer's output.

        Parameters
        ----------
        x : list of Value and real number, length `in_features`; or a batch: list of rows, array or Tensor
            of shape ``(n_samples, in_features)``

        Returns
        -------
        list of Value, length `out_features`, or a Value if it is one, for a list; Tensor of one dimension for an array
        or a Tensor of one; for a batch a Tensor of shape (n_samples, out_features)

        Raises
        ------
        ShapeError
            If a sample does not have `in_features` elements.
        """
        rows, give = as_rows(x, self.in_features, what="features")
        out = give(linear(rows, self.weight, self.bias))
        return out[0] if give is given_sample and len(out) == 1 else out

    def __repr__(self) -> str:
        return shown(self, self.in_features, self.out_features, bias=(self.bias is not None, True))


class Identity(Module):
    """The input itself, whatever it is.

    Parameters
    ----------
    *args, **kwargs
        Not used, as in PyTorch: an Identity may stand for a module with arguments.

    Examples
    --------
    >>> from flatgrad.nn import Identity
    >>> Identity()(3.0)
    3.0
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, x: Any) -> Any:
        return x

    def __repr__(self) -> str:
        return shown(self)
