"""Samples that count more than others: weights of samples and classes, and means and losses with weights.

For `flatgrad.estimators`. Weights have a mean of 1 in training, so that learning rate and penalty keep their meaning. A
weight of 2 counts as the same sample twice, and 0 as no sample.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from flatgrad import losses
from flatgrad._core import Tensor, Value, log_softmax
from flatgrad.arguments import finite_array, non_negative, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError

__all__ = ["LOSSES", "by_class", "deviation", "sample_weights", "weighted_mean", "weighted_r2"]

Array = np.ndarray[Any, Any]


def sample_weights(sample_weight: Any, n_samples: int) -> Array | None:
    """The weights as an array, or None if all samples count the same."""
    if sample_weight is None:
        return None
    weights: Array = finite_array("sample_weight", sample_weight)
    if weights.ndim == 0:   # as scikit-learn takes it
        weights = np.full(n_samples, float(weights))
    if weights.shape != (n_samples,):
        raise ShapeError(f"sample_weight: expected one number for each of {n_samples} samples, got the shape "
                         f"{weights.shape}")
    if (weights < 0.0).any():
        k = int(np.flatnonzero(weights < 0.0)[0])
        raise DataError(f"sample_weight[{k}]: expected a number of 0 or more, got {weights[k]:g}")
    if not weights.any():
        raise DataError("sample_weight: expected a number above 0 for one sample at least, got zero for all")
    return weights


def by_class(class_weight: Any, classes: Array, labels: Array, weights: Array | None) -> Array | None:
    """The weights of samples, each multiplied by that of its class; `labels` are positions in `classes`."""
    if class_weight is None:
        return weights
    own = np.ones(len(labels)) if weights is None else weights
    if isinstance(class_weight, str) and class_weight == "balanced":
        counts = np.bincount(labels, own, len(classes))
        share = own.sum() / (np.count_nonzero(counts) * np.where(counts == 0.0, 1.0, counts))
        return np.asarray(own * share[labels])
    try:
        given = dict(class_weight)
    except (TypeError, ValueError):
        raise ArgumentTypeError("class_weight: expected None, 'balanced' or a dict of class to weight, got "
                                f"{class_weight!r}") from None
    names = classes.tolist()
    for name in given:
        if name not in names:
            raise ArgumentError(f"class_weight: expected the classes {shortened(names)}, got {name!r}")
    factors = np.array([non_negative(f"class_weight[{name!r}]", given.get(name, 1.0)) for name in names])
    found = np.asarray(own * factors[labels])
    if not found.any():
        raise ArgumentError("class_weight: expected a sample with a weight above 0 at least, got none")
    return found


def weighted_mean(X: Array, weights: Array | None) -> Array:
    """The mean of each column."""
    return np.asarray(X.mean(axis=0) if weights is None else np.average(X, axis=0, weights=weights))


def deviation(X: Array, mean: Array, weights: Array | None = None) -> Array:
    """The standard deviation of each column; 1 where it is 0 up to rounding."""
    result = np.sqrt(weighted_mean(np.square(X - mean), weights))
    tiny = 10.0 * np.finfo(np.float64).eps * np.maximum(np.abs(X).max(axis=0), np.finfo(np.float64).tiny)
    return np.where(result <= tiny, 1.0, result)


def weighted_r2(prediction: Array, target: Array, weights: Array) -> float:
    """`flatgrad.train.r2` of weighted samples: scikit-learn's `r2_score` with ``sample_weight``."""
    prediction, target = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (prediction, target))
    residual = weighted_mean(np.square(prediction - target), weights)
    spread = weighted_mean(np.square(target - weighted_mean(target, weights)), weights)
    constant = spread == 0.0
    score = 1.0 - residual / np.where(constant, 1.0, spread)
    return float(np.mean(np.where(constant, residual == 0.0, score)))


# ---- losses ----
#
# Their targets have the weights in them, because they go through batches, validation and compiled steps as targets do:
# twice as many columns, the targets and for each one its weight; for cross-entropy see there.

def cross_entropy(prediction: Tensor, target: Tensor) -> Value:
    """The mean cross-entropy for targets that have the weight of a sample in the column of its class, otherwise 0."""
    n_samples = target.shape[0]
    result: Value = (log_softmax(prediction) * target).sum() * (-1.0 / n_samples)
    return result


def split(target: Tensor) -> tuple[Any, Any]:
    """The targets and their weights."""
    half = target.shape[1] // 2
    return target[:, :half], target[:, half:]


def mse(prediction: Tensor, target: Tensor) -> Value:
    y, weights = split(target)
    result: Value = (losses.mse(prediction, y, "none") * weights).mean()
    return result


def mae(prediction: Tensor, target: Tensor) -> Value:
    y, weights = split(target)
    result: Value = (losses.mae(prediction, y, "none") * weights).mean()
    return result


def huber(prediction: Tensor, target: Tensor) -> Value:
    y, weights = split(target)
    result: Value = (losses.huber(prediction, y, reduction="none") * weights).mean()
    return result


def hinge(prediction: Tensor, target: Tensor) -> Value:
    y, weights = split(target)
    result: Value = ((1.0 - prediction * y).relu() * weights).mean()   # the signs are ours, and need no check
    return result


def bce_with_logits(prediction: Tensor, target: Tensor) -> Value:
    y, weights = split(target)
    result: Value = (losses.bce_with_logits(prediction, y, "none") * weights).mean()
    return result


LOSSES = {"mse": mse, "mae": mae, "huber": huber, "hinge": hinge, "bce_with_logits": bce_with_logits,
          "cross_entropy": cross_entropy}
