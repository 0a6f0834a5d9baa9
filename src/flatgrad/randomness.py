"""Random numbers of which compiled functions draw new ones at each call.

What a compiled function draws in another way, by `random` or by NumPy, is a constant of its program.
"""
from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import Tensor, Value, _draw, _Draws, _note_read, _refuse_recording
from flatgrad.arguments import finite, generator, is_bool, non_negative, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError

if TYPE_CHECKING:
    from typing import Any

    from flatgrad._core import _Rng

__all__ = ["Random"]


class Random:
    """A source of random numbers for functions, compiled ones among them.

    Parameters
    ----------
    rng : {None, int, random.Random, numpy.random.Generator}, optional
        Where the numbers come from. An int is a seed. None: a new generator with a seed drawn from `random` now, so
        that `random.seed` determines it, as it determines the weights of models. A generator of NumPy is drawn from
        itself.

    Attributes
    ----------
    rng : numpy.random.Generator

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If `rng` is not as described, or if a function that is recorded makes a source.

    Notes
    -----
    Within a function of `flatgrad.compile` the numbers are further inputs of the program, drawn at each call: the same
    numbers, in the same order, that the function draws without `compile`. So it is with `vmap`, where each sample draws
    its own, with `scan`, where each step does, and with the steps of `Compiled.minimize` and `Trainer.fit`. A backward
    pass has the numbers of its call.

    A deep copy, and what is loaded from a pickle, goes on with the same numbers as the source itself. The state is that
    of `rng`: ``source.rng.bit_generator.state``.

    Examples
    --------
    >>> import flatgrad
    >>> source = flatgrad.Random(0)
    >>> @flatgrad.compile
    ... def noisy(x):
    ...     return x + source.normal(std=0.1)
    >>> [round(noisy(1.0).data, 3) for _ in range(3)]
    [1.035, 0.939, 0.826]
    """

    def __init__(self, rng: _Rng = None) -> None:
        self.rng = generator_of("rng", rng)

    def uniform(self, shape: int | tuple[int, ...] = (), low: float = 0.0, high: float = 1.0) -> Any:
        """Numbers of the uniform distribution from `low` to before `high`.

        Parameters
        ----------
        shape : int or tuple of int, optional
            Of at most two dimensions. (): one number.
        low, high : float, optional

        Returns
        -------
        Value or Tensor
            New numbers, without a gradient: a Value for the shape (), else a Tensor.

        Raises
        ------
        ArgumentTypeError, ArgumentError, ShapeError
            If an argument is not as described.

        Examples
        --------
        >>> import flatgrad
        >>> flatgrad.Random(0).uniform(3).tolist() == flatgrad.Random(0).rng.random(3).tolist()
        True
        """
        low, high = plain("low", low, "uniform"), plain("high", high, "uniform")
        if high < low:
            raise ArgumentError(f"high: expected at least low, {low}, got {high}")
        finite("high - low", high - low)
        return self._drawn("uniform", shape, low, high - low)

    def normal(self, shape: int | tuple[int, ...] = (), mean: float = 0.0, std: float = 1.0) -> Any:
        """Numbers of a normal distribution.

        Parameters
        ----------
        shape : int or tuple of int, optional
            Of at most two dimensions. (): one number.
        mean, std : float, optional
            `std` is 0 or more.

        Returns
        -------
        Value or Tensor
            As for `uniform`.

        Raises
        ------
        ArgumentTypeError, ArgumentError, ShapeError
            If an argument is not as described.

        Notes
        -----
        Each is the quantile of a number of the uniform distribution, by Wichura's algorithm AS 241. So these are other
        numbers than those of `rng.normal`.

        Examples
        --------
        A normal distribution whose mean and width are trained:

        >>> import flatgrad
        >>> from flatgrad import Value
        >>> source, mean, width = flatgrad.Random(0), Value(1.0), Value(0.5)
        >>> x = mean + width * source.normal()
        >>> x.backward()
        >>> mean.grad, round(width.grad, 3)
        (1.0, 0.35)
        """
        mean, std = plain("mean", mean, "normal"), non_negative("std", plain("std", std, "normal"))
        return self._drawn("normal", shape, mean, std)

    def bernoulli(self, p: float = 0.5, shape: int | tuple[int, ...] = ()) -> Any:
        """Numbers that are 1 with a probability, and 0 otherwise.

        Parameters
        ----------
        p : float, optional
            The probability of 1, from 0 to 1.
        shape : int or tuple of int, optional
            Of at most two dimensions. (): one number.

        Returns
        -------
        Value or Tensor
            As for `uniform`.

        Raises
        ------
        ArgumentTypeError, ArgumentError, ShapeError
            If an argument is not as described.

        Examples
        --------
        >>> import flatgrad
        >>> flatgrad.Random(1).bernoulli(0.5, 6).tolist()
        [0.0, 0.0, 1.0, 0.0, 1.0, 1.0]
        """
        if isinstance(p, (Value, Tensor)):
            raise ArgumentTypeError(f"p: expected a number, got {shortened(p)}; write "
                                    "flatgrad.where(flatgrad.relu(p - source.uniform()), 1.0, 0.0)")
        p = finite("p", p, "a number from 0 to 1")
        if not 0.0 <= p <= 1.0:
            raise ArgumentError(f"p: expected a number from 0 to 1, got {p!r}")
        return self._drawn("threshold", shape, p, 1.0, 0.0)

    @property
    def rng(self) -> np.random.Generator | None:
        return self.__dict__["rng"]

    @rng.setter
    def rng(self, rng: _Rng) -> None:
        self.__dict__["rng"] = generator_of("rng", rng)

    def _drawn(self, kind, shape, a, b, c=0.0):
        _note_read(self, "rng")
        return drawn(self.rng, kind, shape, a, b, c)

    def __repr__(self) -> str:
        return f"Random({self.rng})"


def generator_of(name: str, rng: _Rng) -> np.random.Generator:
    """A generator of NumPy, for an argument as `Random` takes it. A recording makes none."""
    if not isinstance(rng, np.random.Generator):
        _refuse_recording("a source of random numbers: made")
    if rng is None or rng is random or isinstance(rng, random.Random):
        rng = (rng or random).getrandbits(64)
    return generator(name, rng)


def plain(name: str, x: float, method: str) -> float:
    """A number of an argument that is no part of the graph."""
    if isinstance(x, (Value, Tensor)):
        formula = "low + (high - low) * source.uniform()" if method == "uniform" else "mean + std * source.normal()"
        raise ArgumentTypeError(f"{name}: expected a number, got {shortened(x)}; write {formula}")
    return finite(name, x)


def drawn(rng: _Rng, kind: str, shape: int | tuple[int, ...], a: float, b: float, c: float = 0.0) -> Value:
    """Numbers as a Value or a Tensor; a recording draws them at each call of its program."""
    number, = _draw(_Draws(rng, kind, shape_of(shape), a, b, c), leaf_of)
    return number if isinstance(number, (Value, Tensor)) else leaf_of(number)


def leaf_of(x: float) -> Value:
    return Value(x) if isinstance(x, float) else Tensor(x, requires_grad=False)


def shape_of(shape: int | tuple[int, ...]) -> tuple[()]:
    given = shape if isinstance(shape, (tuple, list)) else (shape,)
    for n in given:
        if not isinstance(n, (int, np.integer)) or is_bool(n):
            raise ArgumentTypeError(f"shape: expected an int, or a tuple of at most two, got {shortened(shape)}")
    return tuple(map(int, given))
