"""Metrics: the quality of predictions as one number. They take NumPy arrays and return a float; no gradients.

A single output may have a last axis of length 1: ``(n_samples, 1)`` and ``(n_samples,)`` count as the same shape.
"""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from flatgrad.arguments import finite, finite_array, one_of
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

__all__ = ["METRICS", "accuracy", "mse", "mae", "r2"]


def accuracy(prediction: ArrayLike, target: ArrayLike, threshold: float | None = None) -> float:
    """The fraction of samples whose class is predicted correctly.

    Parameters
    ----------
    prediction : array_like of shape (n_samples,) or (n_samples, n_classes)
        Several columns: scores, logits or probabilities of the classes. The prediction is the class with the largest,
        and the first of equal ones. One column: the second of two classes is predicted if it is above `threshold`.
    target : array_like of shape (n_samples,) or (n_samples, n_classes)
        Labels from 0 on; for several columns also one-hot rows. For one column 0 and 1, or -1 and 1.
    threshold : float, optional
        For one column. None: 0 if there is a target of -1, for scores; otherwise 0.5, for probabilities. Logits with
        targets 0 and 1 need 0. A `Trainer` chooses the threshold: 0.5 for the losses `binary_cross_entropy` and `mse`
        with targets 0 and 1, otherwise 0.

    Returns
    -------
    float
        From 0 to 1.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described.

    Notes
    -----
    For scores, scikit-learn's `accuracy_score` of the predicted classes.

    Examples
    --------
    >>> from flatgrad.train import accuracy
    >>> accuracy([-2.0, 0.5, 3.0], [-1, -1, 1]) == 2 / 3
    True
    >>> accuracy([[0.1, 2.0], [1.0, 0.0]], [1, 0])
    1.0
    >>> accuracy([0.2, 0.4], [0, 1], threshold=0)
    0.5
    """
    prediction, target = arrays_of(prediction, target)
    if prediction.ndim == 2:
        if target.ndim == 2:
            same_shape(prediction, target)
            target = target.argmax(axis=1)
        right = prediction.argmax(axis=1) == target
    else:
        same_shape(prediction, target)
        if threshold is None:
            threshold = 0.0 if target.min() < 0 else 0.5
        else:
            threshold = finite("threshold", threshold)
        right = (prediction > threshold) == (target > 0)
    return float(np.mean(right))


def mse(prediction: ArrayLike, target: ArrayLike) -> float:
    """The mean squared error.

    Parameters
    ----------
    prediction, target : array_like of shape (n_samples,) or (n_samples, n_outputs)

    Returns
    -------
    float
        In the square of the targets' unit.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described.

    Examples
    --------
    >>> from flatgrad.train import mse
    >>> mse([1.0, 2.0], [3.0, 2.0])
    2.0
    """
    return float(np.mean(np.square(difference(prediction, target))))


def mae(prediction: ArrayLike, target: ArrayLike) -> float:
    """The mean absolute error.

    Parameters
    ----------
    prediction, target : array_like of shape (n_samples,) or (n_samples, n_outputs)

    Returns
    -------
    float
        In the targets' unit.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described.

    Examples
    --------
    >>> from flatgrad.train import mae
    >>> mae([1.0, 2.0], [3.0, 2.0])
    1.0
    """
    return float(np.mean(np.abs(difference(prediction, target))))


def r2(prediction: ArrayLike, target: ArrayLike) -> float:
    """The coefficient of determination, 1 - sum((target - prediction)**2) / sum((target - mean(target))**2).

    Parameters
    ----------
    prediction, target : array_like of shape (n_samples,) or (n_samples, n_outputs)

    Returns
    -------
    float
        At most 1. The mean of the targets as prediction gives 0, and worse predictions give less. For several outputs,
        the mean over the outputs. If all targets of an output are equal: 1 if the prediction is exact, otherwise 0.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described.

    Notes
    -----
    scikit-learn's `r2_score`, except for a single sample: there scikit-learn gives nan, and this function 1 or 0.

    Examples
    --------
    >>> from flatgrad.train import r2
    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 4.0]).__round__(4)
    0.7857
    """
    residual = np.square(difference(prediction, target)).sum(axis=0)
    target = arrays_of(prediction, target)[1]
    spread = np.square(target - target.mean(axis=0)).sum(axis=0)
    constant = spread == 0.0
    score = 1.0 - residual / np.where(constant, 1.0, spread)
    return float(np.mean(np.where(constant, residual == 0.0, score)))


METRICS: dict[str, Callable[..., float]] = {"accuracy": accuracy, "mse": mse, "mae": mae, "r2": r2}


def difference(prediction: ArrayLike, target: ArrayLike) -> NDArray[Any]:
    """prediction - target, after a check that their shapes are equal."""
    prediction, target = arrays_of(prediction, target)
    same_shape(prediction, target)
    return prediction - target


def arrays_of(prediction: ArrayLike, target: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Prediction and target as arrays with the same number of samples; a single column becomes one axis."""
    prediction, target = column("prediction", prediction), column("target", target)
    if len(prediction) != len(target):
        raise ShapeError(f"prediction and target: expected as many samples, got the shapes {prediction.shape} and "
                         f"{target.shape}")
    if 0 in prediction.shape:
        raise DataError(f"prediction: expected one sample at least, got the shape {prediction.shape}")
    return prediction, target


def column(name: str, x: NDArray[Any]) -> NDArray[Any]:
    if not (type(x) is np.ndarray and x.dtype.kind in "biuf"):
        x = finite_array(name, x)
    if x.ndim == 2 and x.shape[1] == 1:
        return x[:, 0]
    if x.ndim not in (1, 2):
        raise ShapeError(f"{name}: expected 1 or 2 dimensions, got the shape {x.shape}")
    return x


def same_shape(prediction: ArrayLike, target: ArrayLike) -> None:
    if prediction.shape != target.shape:
        raise ShapeError(f"prediction and target: expected the same shape, got {prediction.shape} and {target.shape}")


def metrics_by_name(metrics: Any, reserved: tuple[str, ...] = ()) -> dict[str, Any]:
    """The functions of a Trainer's `metrics`, by name; functions with a threshold are not changed."""
    if isinstance(metrics, str) or callable(metrics):
        metrics = [metrics]
    try:
        pairs = list(metrics.items()) if isinstance(metrics, dict) else [(None, metric) for metric in metrics]
    except TypeError:
        raise ArgumentTypeError(f"metrics: expected names and functions, got {metrics!r}") from None
    found = {}
    for name, metric in pairs:
        if isinstance(metric, str):
            name = name or metric
            metric = METRICS[one_of("metrics", metric, METRICS)]
        elif not callable(metric):
            raise ArgumentTypeError(f"metrics: expected names and functions of (prediction, target), got {metric!r}")
        name = name or name_of(metric)
        if not isinstance(name, str):
            raise ArgumentTypeError(f"metrics: expected names to be str, got {name!r}")
        if name in found or name in reserved or name.startswith("val_"):
            raise ArgumentError(f"metrics: expected other names than {', '.join(map(repr, [*found, *reserved]))} and "
                                f"those that begin with 'val_', got {name!r}")
        found[name] = metric
    return found


def name_of(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)
