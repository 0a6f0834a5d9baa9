"""Layers that give their inputs a mean of 0 and a variance of 1, over a batch or within a sample."""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import Tensor, _refuse_recording
from flatgrad.arguments import finite, flag, non_negative, whole
from flatgrad.errors import ArgumentError, DataError
from flatgrad.nn.inputs import as_rows, shown
from flatgrad.nn.module import Module, parameter

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad._core import _Inputs
    from flatgrad.read_only import Data

__all__ = ["BatchNorm", "LayerNorm"]


class BatchNorm(Module):
    """Normalises each feature over the samples of a batch; PyTorch's `BatchNorm1d`.

    Parameters
    ----------
    num_features : int
        The number of elements of a sample.
    eps : float, optional
        A number added to the variance, in the unit of the variance; 0 or more.
    momentum : float or None, optional
        The share of the running statistics that each batch replaces, from 0 to 1. None: the running statistics are
        the means over all batches.
    affine : bool, optional
        Whether the layer has a weight and a bias for each feature.
    track_running_stats : bool, optional
        Whether there are running statistics. If not, the batch's statistics are used also after `eval`.

    Attributes
    ----------
    weight, bias : Tensor, shape (num_features,), or None
        Initially 1 and 0.
    running_mean, running_var : ndarray, shape (num_features,), or None
        Initially 0 and 1. Part of the state dict, like `num_batches_tracked`.
    num_batches_tracked : ndarray of int64, shape (), or None

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is not as described.

    Notes
    -----
    y = (x - mean) / sqrt(var + eps) * weight + bias. In training, mean and var are the batch's, and var has the
    divisor n. The running statistics are updated by running = (1 - momentum) * running + momentum * batch's, where
    the batch's variance has the divisor n - 1. After `eval`, mean and var are the running ones. 9 instructions in
    training, 4 after `eval`.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization", 2015.

    Examples
    --------
    >>> from flatgrad.nn import BatchNorm
    >>> norm = BatchNorm(1)
    >>> norm([[1.0], [3.0]]).data.round(4).tolist()
    [[-1.0], [1.0]]
    >>> norm.running_mean.tolist(), norm.running_var.tolist()
    ([0.2], [1.1])
    """

    num_features: int
    eps: float
    momentum: float
    affine: bool
    track_running_stats: bool
    weight: Tensor | None = parameter()
    bias: Tensor | None = parameter()
    running_mean: NDArray[Any] | None
    running_var: NDArray[Any] | None
    num_batches_tracked: NDArray[Any] | None

    buffer_names: tuple[str, ...] = ("running_mean", "running_var", "num_batches_tracked")

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True) -> None:
        self.num_features = whole("num_features", num_features, 1)
        self.eps = non_negative("eps", eps)
        expected = "a number from 0 to 1, or None"
        self.momentum = None if momentum is None else finite("momentum", momentum, expected)
        if momentum is not None and not 0.0 <= self.momentum <= 1.0:
            raise ArgumentError(f"momentum: expected {expected}, got {momentum!r}")
        self.affine = flag("affine", affine)
        self.track_running_stats = flag("track_running_stats", track_running_stats)
        self.weight = Tensor(np.ones(self.num_features)) if self.affine else None
        self.bias = Tensor(np.zeros(self.num_features)) if self.affine else None
        if self.track_running_stats:
            self.running_mean, self.running_var = np.zeros(self.num_features), np.ones(self.num_features)
            self.num_batches_tracked = np.array(0)
        else:
            self.running_mean = self.running_var = self.num_batches_tracked = None
            self.buffer_names = ()

    def __call__(self, x: _Inputs) -> Any:
        """The normalised samples.

        Parameters
        ----------
        x : list of rows, array or Tensor, shape (n_samples, num_features); after `eval` also one sample

        Returns
        -------
        Tensor, shape (n_samples, num_features); for a sample after `eval`, list of Value, or for an
        array Tensor, shape (num_features,)

        Raises
        ------
        DataError
            If there is only one sample and the batch's variance is needed.
        ShapeError
            If a sample does not have `num_features` elements.
        """
        x, give = as_rows(x, self.num_features, what="features")
        if not self.training and self.track_running_stats:
            scale = (self.running_var + self.eps) ** -0.5
            return give(self.scaled(x - self.running_mean, scale if self.weight is None else self.weight * scale))
        if self.track_running_stats:
            _refuse_recording("running statistics: updated with a batch (after eval(), or with "
                              "track_running_stats=False, none are)")
        n = x.shape[0]
        if self.training and n < 2:
            raise DataError("x: expected two samples or more, whose variance is taken in training, got one; "
                            "eval() switches to the running statistics")
        mean = x.mean(axis=0)
        centred = x - mean
        variance = (centred * centred).mean(axis=0)
        scale = (variance + self.eps) ** -0.5
        out = self.scaled(centred, scale if self.weight is None else scale * self.weight)
        if self.track_running_stats:
            self.follow(mean.data, variance.data * (n / (n - 1)))
        return give(out)

    def scaled(self, centred: Tensor, scale: Tensor) -> Tensor:
        out = centred * scale
        return out if self.bias is None else out + self.bias

    def follow(self, mean: Data, variance: NDArray[Any]) -> None:
        """Update the running statistics with a batch's mean and variance."""
        count = self.num_batches_tracked + 1
        part = 1.0 / int(count) if self.momentum is None else self.momentum
        self.running_mean = (1.0 - part) * self.running_mean + part * mean
        self.running_var = (1.0 - part) * self.running_var + part * variance
        self.num_batches_tracked = np.array(count)

    def __repr__(self) -> str:
        return shown(self, self.num_features, eps=(self.eps, 1e-5), momentum=(self.momentum, 0.1),
                     affine=(self.affine, True), track_running_stats=(self.track_running_stats, True))


class LayerNorm(Module):
    """Normalises each sample over its numbers.

    Parameters
    ----------
    normalized_shape : int
        The number of elements of a sample.
    eps : float, optional
        A number added to the variance, in the unit of the variance; 0 or more.
    elementwise_affine : bool, optional
        Whether the layer has a weight, and a bias, for each element.
    bias : bool, optional
        Whether there is a bias, if the layer has a weight.

    Attributes
    ----------
    weight, bias : Tensor, shape (normalized_shape,), or None
        Initially 1 and 0.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If an argument is not as described.

    Notes
    -----
    y = (x - mean) / sqrt(var + eps) * weight + bias, with the mean and the variance of the sample; the variance
    has the divisor normalized_shape. 9 instructions; 10 for a list of Values.

    References
    ----------
    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016.

    Examples
    --------
    >>> from flatgrad.nn import LayerNorm
    >>> norm = LayerNorm(2)
    >>> norm
    LayerNorm(2)
    >>> [round(y.data, 4) for y in norm([1.0, 3.0])]
    [-1.0, 1.0]
    """

    normalized_shape: int
    eps: float
    elementwise_affine: bool
    weight: Tensor | None = parameter()
    bias: Tensor | None = parameter()

    def __init__(self, normalized_shape: int, eps: float = 1e-5, elementwise_affine: bool = True,
                 bias: bool = True) -> None:
        self.normalized_shape = whole("normalized_shape", normalized_shape, 1)
        self.eps = non_negative("eps", eps)
        self.elementwise_affine = flag("elementwise_affine", elementwise_affine)
        bias = flag("bias", bias) and self.elementwise_affine
        self.weight = Tensor(np.ones(self.normalized_shape)) if self.elementwise_affine else None
        self.bias = Tensor(np.zeros(self.normalized_shape)) if bias else None

    def __call__(self, x: _Inputs) -> Any:
        """The normalised sample or samples.

        Parameters
        ----------
        x : list of Value and real number, length `normalized_shape`; or a batch: list of rows, array or
            Tensor of shape ``(n_samples, normalized_shape)``

        Returns
        -------
        list of Value for a list; Tensor of the shape of an array or a Tensor; for a list of rows Tensor, shape
        (n_samples, normalized_shape)

        Raises
        ------
        ShapeError
            If a sample does not have `normalized_shape` elements.
        """
        x, give = as_rows(x, self.normalized_shape)
        centred = x - x.mean(axis=1).reshape(-1, 1)
        variance = (centred * centred).mean(axis=1)
        out = centred * ((variance + self.eps) ** -0.5).reshape(-1, 1)
        if self.weight is not None:
            out = out * self.weight
        return give(out if self.bias is None else out + self.bias)

    def __repr__(self) -> str:
        return shown(self, self.normalized_shape, eps=(self.eps, 1e-5),
                     elementwise_affine=(self.elementwise_affine, True),
                     bias=(self.bias is not None or not self.elementwise_affine, True))
