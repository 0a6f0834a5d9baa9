"""Dropout."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import Tensor, Value, _draw, _Draws, _note_read
from flatgrad.arguments import finite
from flatgrad.errors import ArgumentError
from flatgrad.nn.inputs import as_rows, shown
from flatgrad.nn.module import Module
from flatgrad.randomness import generator_of, leaf_of

if TYPE_CHECKING:
    from typing import Any

    from flatgrad._core import _Rng

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
    instruction; for a list of Values it is two. After `eval`, and for p = 0, the output is the input itself. A
    compiled function draws at each call what it draws without `compile`; see `flatgrad.Random`.

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

    p: float
    rng: np.random.Generator

    def __init__(self, p: float = 0.5, rng: _Rng = None) -> None:
        expected = "a number from 0 to 1"
        self.p = finite("p", p, expected)
        if not 0.0 <= self.p <= 1.0:
            raise ArgumentError(f"p: expected {expected}, got {p!r}")
        self.rng = generator_of("rng", rng)

    def __call__(self, x: Any) -> Any:
        """The input with some numbers set to 0 and the others enlarged; after `eval`, `x` itself.

        Parameters
        ----------
        x : list of Value and real number, Value, or a batch: list of rows, array or Tensor

        Returns
        -------
        Of a Value a Value, of a list of numbers a list of Value, of an array or a list of rows a Tensor
        """
        if not self.training:
            return x
        _note_read(self, "p")   # a program is one for what these are
        _note_read(self, "rng")
        if self.p == 0.0:
            return x
        if isinstance(x, Value):
            return x * self.mask(())
        rows, give = as_rows(x)
        return give(rows * self.mask(rows.shape))

    def mask(self, shape: tuple[()]) -> float:
        """The factors, each 0 or 1 / (1 - p): a number for the shape (), else a Tensor."""
        if self.p == 1.0:
            return Tensor(np.zeros(shape), requires_grad=False) if shape else 0.0
        factors, = _draw(_Draws(self.rng, "threshold", shape, self.p, 0.0, 1.0 / (1.0 - self.p)), leaf_of)
        return leaf_of(factors) if isinstance(factors, np.ndarray) else factors

    def __repr__(self) -> str:
        return shown(self, self.p)
