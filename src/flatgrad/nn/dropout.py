"""Dropout."""
import random

import numpy as np

from flatgrad._core import Tensor, Value, _refuse_recording
from flatgrad.arguments import finite, generator
from flatgrad.errors import ArgumentError
from flatgrad.nn.inputs import as_rows, shown
from flatgrad.nn.module import Module

__all__ = ["Dropout"]


class Dropout(Module):
    """During training, sets some of the numbers to 0, and enlarges the others so that the mean stays the same.

    Parameters
    ----------
    p : float, optional
        The probability that a number is set to 0, from 0 to 1.
    rng : {None, int, random.Random, numpy.random.Generator}, optional
        The source of random numbers. An int is a seed. None: a new generator with a seed drawn from `random` now, so
        that `random.seed` determines dropout as well as weights.

    Attributes
    ----------
    p : float
    rng : numpy.random.Generator

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If `p` is not from 0 to 1, or `rng` is not as described.

    Notes
    -----
    A number is kept with the probability 1 - p and then multiplied by 1 / (1 - p), as in PyTorch. The call is one
    instruction; for a list of Values it is two. After `eval`, and for p = 0, the output is the input itself.

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014.

    Examples
    --------
    >>> from flatgrad.nn import Dropout
    >>> drop = Dropout(0.5, rng=0)
    >>> [y.data for y in drop([1.0, 2.0, 3.0, 4.0])]
    [2.0, 0.0, 0.0, 0.0]
    >>> drop.eval()([1.0, 2.0])
    [1.0, 2.0]
    """

    def __init__(self, p=0.5, rng=None):
        expected = "a number from 0 to 1"
        self.p = finite("p", p, expected)
        if not 0.0 <= self.p <= 1.0:
            raise ArgumentError(f"p: expected {expected}, got {p!r}")
        if rng is None or rng is random or isinstance(rng, random.Random):
            rng = (rng or random).getrandbits(64)
        self.rng = generator("rng", rng)

    def __call__(self, x):
        """The input with some numbers set to 0 and the others enlarged; after `eval`, `x` itself.

        Parameters
        ----------
        x : list of Value and real number, Value, or a batch: list of rows, array or Tensor

        Returns
        -------
        The type of `x`: list of Value, Value, Tensor
        """
        if not self.training or self.p == 0.0:
            return x
        if isinstance(x, Value):
            return x * float(self.mask((1, 1))[0, 0])
        rows, give = as_rows(x)
        return give(rows * Tensor(self.mask(rows.shape), requires_grad=False))

    def mask(self, shape):
        """The factors: each is 0 or 1 / (1 - p)."""
        _refuse_recording("dropout: a mask drawn")
        if self.p == 1.0:
            return np.zeros(shape)
        return (self.rng.random(shape) >= self.p) / (1.0 - self.p)

    def __repr__(self):
        return shown(self, self.p)
