"""Embedding: a vector of parameters for each of a number of items."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import Tensor, Value, _is_recording
from flatgrad.arguments import array_of_numbers, is_bool, shortened, whole
from flatgrad.errors import ArgumentTypeError, DataError, ShapeError
from flatgrad.nn.initialization import weights
from flatgrad.nn.inputs import shown
from flatgrad.nn.module import Module, parameter

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import ArrayLike

    from flatgrad._core import _Init, _Rng

__all__ = ["Embedding"]


class Embedding(Module):
    """A table of vectors; a call returns the vectors of given indices.

    Parameters
    ----------
    num_embeddings : int
        The number of vectors in the table.
    embedding_dim : int
        The number of elements of a vector.
    init : str, number, array_like or callable, optional
        The initial vectors, as in `flatgrad.nn.initialization.weights`. PyTorch's default: the normal distribution of
        mean 0 and standard deviation 1.
    rng : {None, int, random.Random, numpy.random.Generator}, optional
        The source of random numbers.

    Attributes
    ----------
    weight : Tensor, shape (num_embeddings, embedding_dim)

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is not as described.

    Notes
    -----
    A call is one instruction, which copies. The gradient of a vector is the sum over its uses.

    Examples
    --------
    >>> from flatgrad.nn import Embedding
    >>> table = Embedding(27, 10)
    >>> table(3).shape, table([3, 0]).shape, table([[3, 0, 1], [0, 1, 2]]).shape
    ((10,), (2, 10), (2, 30))
    """

    num_embeddings: int
    embedding_dim: int
    weight: Tensor = parameter()

    def __init__(self, num_embeddings: int, embedding_dim: int, init: _Init = "normal", rng: _Rng = None) -> None:
        self.num_embeddings = whole("num_embeddings", num_embeddings, 1)
        self.embedding_dim = whole("embedding_dim", embedding_dim, 1)
        self.weight = Tensor(weights(init, (self.num_embeddings, self.embedding_dim), rng=rng))

    def __call__(self, indices: ArrayLike) -> Tensor:
        """The vectors with these indices.

        Parameters
        ----------
        indices : int, or (nested) list or array of int, shape (n_samples,) or (n_samples, k)
            From 0 to ``num_embeddings - 1``. Floats that are whole numbers are accepted, because data sets have them.

        Returns
        -------
        Tensor
            Of shape ``(embedding_dim,)`` for one int, ``(n_samples, embedding_dim)`` for a list, and
            ``(n_samples, k * embedding_dim)``, the vectors of a sample side by side, for rows.

        Raises
        ------
        ArgumentTypeError
            If an index is not a whole number.
        DataError
            If an index is out of range, or there is no index.
        ShapeError
            If there are more than two dimensions.
        """
        indices = self.checked(indices)
        if indices.ndim == 0:
            return self.weight[int(indices)]
        out = self.weight[indices.reshape(-1)]
        return out.reshape(indices.shape[0], -1)

    def checked(self, indices: Any) -> Any:
        """The indices as an array of int64."""
        expected = "indices: expected an int, or a list or an array of ints"
        if is_bool(indices):
            raise ArgumentTypeError(f"{expected}, got {indices!r}")
        if _is_recording() and traced(indices):
            raise ArgumentTypeError(
                f"{expected} that are constants of the compiled function being recorded, got {shortened(indices)}, "
                "computed from an argument, which is another at each call. Write flatgrad.take(embedding.weight, "
                "indices), or make the indices a static argument, such as a tuple of ints")
        try:
            array = array_of_numbers(indices)
        except ValueError:
            raise ShapeError(f"{expected} with rows of one length, got {shortened(indices)}") from None
        if array.size == 0:
            raise DataError(f"{expected}, one at least, got the shape {array.shape}")
        if array.ndim > 2:
            raise ShapeError(f"{expected} of one or two dimensions, got the shape {array.shape}")
        if array.dtype.kind not in "iuf":
            raise ArgumentTypeError(f"{expected}, got {shortened(indices)}")
        wrong = (array < 0) | (array >= self.num_embeddings) | (array != np.floor(array))   # also true for nan
        if wrong.any():
            place = tuple(int(k) for k in np.argwhere(wrong)[0])
            where = f"[{', '.join(map(str, place))}]" if place else ""
            number = array[place]
            if np.isfinite(number) and number != np.floor(number):
                raise ArgumentTypeError(f"indices{where}: expected a whole number, got {number}")
            raise DataError(f"indices{where}: expected 0 to {self.num_embeddings - 1}, got {number}")
        return array.astype(np.int64)

    def __repr__(self) -> str:
        return shown(self, self.num_embeddings, self.embedding_dim)


def traced(indices: Any) -> Any:
    """Whether there is a Value or a Tensor in it."""
    return isinstance(indices, (Value, Tensor)) or isinstance(indices, (list, tuple)) and any(map(traced, indices))
