"""Metrics: the quality of predictions as one number. They take NumPy arrays and return a float; no gradients.

A single output may have a last axis of length 1: ``(n_samples, 1)`` and ``(n_samples,)`` count as the same shape.
"""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from flatgrad.arguments import finite, finite_array, one_of, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

__all__ = ["METRICS", "accuracy", "top_k_accuracy", "precision", "recall", "f1", "roc_auc", "mse", "rmse", "mae", "r2"]

AVERAGES = ("binary", "macro", "micro", "weighted")


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


def top_k_accuracy(prediction: ArrayLike, target: ArrayLike, k: int = 2) -> float:
    """The fraction of samples whose class is among the `k` classes with the largest scores.

    Parameters
    ----------
    prediction : array_like of shape (n_samples, n_classes)
        Scores, logits or probabilities of the classes. Of equal ones the first counts as larger.
    target : array_like of shape (n_samples,) or (n_samples, n_classes)
        Labels from 0 on, or one-hot rows.
    k : int, optional
        1 or more. ``functools.partial(top_k_accuracy, k=5)`` is a metric of a `Trainer`.

    Returns
    -------
    float
        From 0 to 1. With ``k=1`` it is the `accuracy`.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described.

    Notes
    -----
    scikit-learn's `top_k_accuracy_score`, which takes the last of equal scores as the larger one.

    Examples
    --------
    >>> from flatgrad.train import top_k_accuracy
    >>> top_k_accuracy([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], [1, 0])
    0.5
    """
    k = whole("k", k, 1)
    prediction, target = arrays_of(prediction, target)
    if prediction.ndim != 2:
        raise ShapeError(f"prediction: expected a column for each class, got the shape {prediction.shape}")
    labels = labels_of(prediction, target)
    own = np.take_along_axis(prediction, labels[:, None], axis=1)
    before = np.arange(prediction.shape[1]) < labels[:, None]
    larger = (prediction > own) | (prediction == own) & before
    return float(np.mean(larger.sum(axis=1) < k))


def precision(prediction: ArrayLike, target: ArrayLike, threshold: float | None = None,
              average: str | None = None) -> float:
    """The fraction of the samples predicted as a class that are of this class, TP / (TP + FP).

    Parameters
    ----------
    prediction : array_like of shape (n_samples,) or (n_samples, n_classes)
        As for `accuracy`.
    target : array_like of shape (n_samples,) or (n_samples, n_classes)
        Labels, as for `accuracy`. If there are several columns, each one is a question of its own, of 0 or -1 and 1: a
        sample may be of several classes, or of none.
    threshold : float, optional
        For one column, and for targets with several: as for `accuracy`.
    average : {'binary', 'macro', 'micro', 'weighted'}, optional
        'binary': the number of the second of two classes. 'macro': the mean over the classes; of labels, over those that
        targets or predictions have. 'weighted': this mean weighted by the number of samples of each class. 'micro':
        the counts of all classes together. None: 'binary' if there are two classes, otherwise 'macro'.

    Returns
    -------
    float
        From 0 to 1; 0 for a class that is never predicted.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described.

    Notes
    -----
    scikit-learn's `precision_score` of the predicted classes, with ``zero_division=0``.

    Examples
    --------
    >>> from flatgrad.train import precision
    >>> precision([0.9, 0.8, 0.2, 0.7], [1, 0, 1, 1]) == 2 / 3
    True
    """
    return averaged(prediction, target, threshold, average, lambda hits, predicted, actual: ratio(hits, predicted))


def recall(prediction: ArrayLike, target: ArrayLike, threshold: float | None = None,
           average: str | None = None) -> float:
    """The fraction of the samples of a class that are predicted as this class, TP / (TP + FN).

    Parameters
    ----------
    prediction, target, threshold, average
        As for `precision`.

    Returns
    -------
    float
        From 0 to 1; 0 for a class without samples. With ``average='macro'`` it is also called balanced accuracy.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described.

    Notes
    -----
    scikit-learn's `recall_score` of the predicted classes, with ``zero_division=0``.

    Examples
    --------
    >>> from flatgrad.train import recall
    >>> recall([0.9, 0.8, 0.2, 0.7], [1, 0, 1, 1]) == 2 / 3
    True
    """
    return averaged(prediction, target, threshold, average, lambda hits, predicted, actual: ratio(hits, actual))


def f1(prediction: ArrayLike, target: ArrayLike, threshold: float | None = None, average: str | None = None) -> float:
    """The harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN).

    Parameters
    ----------
    prediction, target, threshold, average
        As for `precision`.

    Returns
    -------
    float
        From 0 to 1; 0 for a class that has no samples and is never predicted.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described.

    Notes
    -----
    scikit-learn's `f1_score` of the predicted classes, with ``zero_division=0``.

    Examples
    --------
    >>> from flatgrad.train import f1
    >>> f1([0.9, 0.8, 0.2, 0.7], [1, 0, 1, 1]) == 2 / 3
    True
    """
    return averaged(prediction, target, threshold, average,
                    lambda hits, predicted, actual: ratio(2.0 * hits, predicted + actual))


def roc_auc(prediction: ArrayLike, target: ArrayLike) -> float:
    """The area under the ROC curve: how often a sample of the class has a larger score than a sample of another one.

    Parameters
    ----------
    prediction : array_like of shape (n_samples,) or (n_samples, n_classes)
        Scores, logits or probabilities; a larger one means a likelier class. One column: of the second of two classes.
        Two columns: of both. More columns, with labels: numbers that are comparable between samples, as probabilities
        are, because each class is compared with all others.
    target : array_like of shape (n_samples,) or (n_samples, n_classes)
        As for `precision`. Both kinds have to be there: samples of each class, and of others.

    Returns
    -------
    float
        From 0 to 1; 0.5 for scores without information. Equal scores count half. For several columns the mean over the
        columns.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described.

    Notes
    -----
    scikit-learn's `roc_auc_score`; for more than two classes with ``multi_class='ovr'``. In a `Trainer`, a validation
    without samples of a class is an error.

    Examples
    --------
    >>> from flatgrad.train import roc_auc
    >>> roc_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    prediction, target = arrays_of(prediction, target)
    if target.ndim == 2:
        same_shape(prediction, target)
        scores, actual = prediction, target > 0
    elif prediction.ndim == 1:
        scores, actual = prediction[:, None], target[:, None] > 0
    else:
        labels = labels_of(prediction, target)
        n_classes = prediction.shape[1]
        scores, actual = prediction, labels[:, None] == np.arange(n_classes)
        if n_classes == 2:
            scores, actual = prediction[:, 1:] - prediction[:, :1], actual[:, 1:]
    areas = []
    for k in range(scores.shape[1]):
        positive = actual[:, k]
        count = int(positive.sum())
        if not 0 < count < len(positive):
            raise DataError(f"target: expected samples of class {k} and of others for roc_auc, got {count} of "
                            f"{len(positive)}" if scores.shape[1] > 1 else
                            f"target: expected samples of both classes for roc_auc, got {count} positive ones of "
                            f"{len(positive)}")
        _, where, counts = np.unique(scores[:, k], return_inverse=True, return_counts=True)
        rank = np.cumsum(counts) - (counts - 1) / 2.0   # of equal scores, the mean of their ranks
        above = rank[where.reshape(-1)][positive].sum() - count * (count + 1) / 2.0
        areas.append(above / (count * (len(positive) - count)))
    return float(np.mean(areas))


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


def rmse(prediction: ArrayLike, target: ArrayLike) -> float:
    """The root of the mean squared error; for several outputs, the mean of their roots.

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

    Notes
    -----
    scikit-learn's `root_mean_squared_error`.

    Examples
    --------
    >>> from flatgrad.train import rmse
    >>> rmse([1.0, 2.0], [3.0, 0.0])
    2.0
    """
    return float(np.mean(np.sqrt(np.mean(np.square(difference(prediction, target)), axis=0))))


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


METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy, "top_k_accuracy": top_k_accuracy, "precision": precision, "recall": recall, "f1": f1,
    "roc_auc": roc_auc, "mse": mse, "rmse": rmse, "mae": mae, "r2": r2}

WITH_THRESHOLD = (accuracy, precision, recall, f1)


def with_threshold(metric: Callable[..., float], threshold: float | None) -> Callable[..., float]:
    """`metric`, with this threshold if it is one of ours that has a threshold, and none is set."""
    function, is_set = metric, False
    while isinstance(function, functools.partial):
        is_set |= "threshold" in function.keywords or len(function.args) > 0
        function = function.func
    return functools.partial(metric, threshold=threshold) if function in WITH_THRESHOLD and not is_set else metric


def averaged(prediction: ArrayLike, target: ArrayLike, threshold: float | None, average: str | None,
             of: Callable[..., Any]) -> float:
    """A number of each class, by its counts (hits, predicted, actual), and their mean."""
    if average is not None:
        one_of("average", average, AVERAGES)
    prediction, target = arrays_of(prediction, target)
    of_labels = target.ndim == 1
    if of_labels and prediction.ndim == 2:
        predicted = prediction.argmax(axis=1)[:, None] == np.arange(prediction.shape[1])
        actual = labels_of(prediction, target)[:, None] == np.arange(prediction.shape[1])
    else:
        same_shape(prediction, target)
        if threshold is None:
            threshold = 0.0 if target.min() < 0 else 0.5
        predicted, actual = prediction > finite("threshold", threshold), target > 0
        if of_labels:
            predicted, actual = (np.column_stack([~x, x]) for x in (predicted, actual))
    if average is None:
        average = "binary" if of_labels and predicted.shape[1] == 2 else "macro"
    elif average == "binary" and not (of_labels and predicted.shape[1] == 2):
        raise ArgumentError("average: expected 'macro', 'micro' or 'weighted', because there are other classes than two, "
                            "got 'binary'")
    counts = np.array([(predicted & actual).sum(axis=0), predicted.sum(axis=0), actual.sum(axis=0)], np.float64)
    if average == "binary":
        return float(of(*counts[:, 1:])[0])
    if average == "micro":
        return float(of(*counts.sum(axis=1, keepdims=True))[0])
    if of_labels:
        counts = counts[:, counts[1:].any(axis=0)]
    weights = counts[2] if average == "weighted" else np.ones(counts.shape[1])
    return float(ratio((of(*counts) * weights).sum(), weights.sum()))


def ratio(part: Any, whole_: Any) -> Any:
    """part / whole_, and 0 where both are 0."""
    return part / np.where(whole_ == 0.0, 1.0, whole_)


def labels_of(prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
    """The labels that targets are, for predictions with a column for each class."""
    if target.ndim == 2:
        same_shape(prediction, target)
        return target.argmax(axis=1)
    n_classes = prediction.shape[1]
    wrong = (target < 0) | (target >= n_classes) | (target != np.floor(target))
    if wrong.any():
        k = int(np.flatnonzero(wrong)[0])
        raise DataError(f"target[{k}]: expected a label from 0 to {n_classes - 1}, got {target[k]:g}")
    return target.astype(np.int64)


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
