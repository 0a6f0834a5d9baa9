"""Losses over samples: each is a mean, one Value made by one instruction of the core.

Here shapes and labels are checked; the core computes.
"""
import operator

import numpy as np

from flatgrad._core import Tensor, Value, pairwise_mean
from flatgrad._core import cross_entropy as mean_cross_entropy

__all__ = ["mse", "hinge", "cross_entropy"]

FLOAT64, INT64 = np.dtype(np.float64), np.dtype(np.int64)


def mse(prediction, target):
    """The mean squared error, mean((prediction - target)**2).

    Parameters
    ----------
    prediction : Tensor, (nested) list of Value and number, array, Value or number
        Of shape ``(n_samples,)`` or ``(n_samples, n_outputs)``; a Value by itself is one sample.
    target : array, (nested) list of number and Value, Tensor, Value or number
        Of the same shape; a last axis of length 1, as in ``(n_samples, 1)`` and ``(n_samples,)``,
        makes no difference. nan and inf are numbers here and reach the result.

    Returns
    -------
    Value
        The mean over all elements, in the square of their unit.

    Raises
    ------
    TypeError
        If there is something else than numbers in an argument.
    ValueError
        If the shapes do not fit each other, or there are no samples.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.losses import mse
    >>> x, y = Value(1.0), Value(2.0)
    >>> loss = mse([x, y], [3.0, 2.0])
    >>> loss.data
    2.0
    >>> loss.backward()
    >>> x.grad, y.grad
    (-2.0, 0.0)
    """
    return pairwise_mean("squared_error", *paired("prediction", prediction, target))


def hinge(score, target):
    """The mean hinge loss, mean(relu(1 - target * score)), for classes named -1 and 1.

    Parameters
    ----------
    score : Tensor, (nested) list of Value and number, array, Value or number
        Of shape ``(n_samples,)`` or ``(n_samples, n_outputs)``; a Value by itself is one sample.
    target : array, (nested) list of number and Value, Tensor, Value or number
        -1 or 1 for each score, in the same shape; a last axis of length 1, as in ``(n_samples, 1)``
        and ``(n_samples,)``, makes no difference. As in PyTorch's losses of this kind other numbers
        are not refused, nan among them, and go through the formula as they are.

    Returns
    -------
    Value
        The mean over all elements, dimensionless. At the kink, where ``target * score`` is 1, the
        gradient is 0, as relu's is.

    Raises
    ------
    TypeError
        If there is something else than numbers in an argument.
    ValueError
        If the shapes do not fit each other, or there are no samples.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.losses import hinge
    >>> scores = [Value(3.0), Value(0.5)]
    >>> loss = hinge(scores, [1, -1])
    >>> loss.data
    0.75
    >>> loss.backward()
    >>> [score.grad for score in scores]
    [0.0, 0.5]
    """
    return pairwise_mean("hinge", *paired("score", score, target))


def cross_entropy(logits, target):
    """The mean over samples of -log(softmax(logits)[label]).

    Parameters
    ----------
    logits : Tensor, nested list of Value and number, or array, shape (n_samples, n_classes)
        What softmax makes probabilities of, dimensionless. For one sample also 1-D, `(n_classes,)`.
    target : array or list of int, shape (n_samples,); or int if `logits` is 1-D
        Labels, from 0 to ``n_classes - 1``.

    Returns
    -------
    Value
        In nats. Computed by way of the largest logit of each sample, so that no finite logit
        overflows; a logit of -inf is a probability of 0, and the loss inf where that is the label's.
        nan where a logit is inf, as in PyTorch.

    Raises
    ------
    TypeError
        If a label is not an integer, or a logit not a number.
    ValueError
        If a label is out of range, the shapes do not fit each other, or there is no sample or class.

    Notes
    -----
    The gradient of a logit is ``(softmax(logits) - 1) / n_samples`` at the label and
    ``softmax(logits) / n_samples`` elsewhere.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.losses import cross_entropy
    >>> logits = [Value(0.0), Value(0.0)]
    >>> loss = cross_entropy(logits, 1)
    >>> round(loss.data, 6)
    0.693147
    >>> loss.backward()
    >>> [logit.grad for logit in logits]
    [0.5, -0.5]
    """
    if type(logits) is not Tensor:
        logits, shape = numbers_of("logits", logits)
    else:
        shape = logits.shape
    if not shape or 0 in shape:
        raise ValueError("logits: expected the shape (n_samples, n_classes) or (n_classes,), with one of each "
                         f"at least, got {shape}")
    n_classes = shape[-1]
    if not (type(target) is np.ndarray and target.dtype is INT64):
        target = labels_of(target, n_classes)
    if target.shape != shape[:-1]:
        raise ValueError(f"target: expected one label for each sample, got the shape {target.shape} "
                         f"where that of logits is {shape}")
    try:
        return mean_cross_entropy(logits, np.ascontiguousarray(target))
    except ValueError:   # the core looks at every label, in a fraction of the time that NumPy takes
        check_labels(target, n_classes)
        raise


def paired(name, prediction, target):
    """Both arguments as the core takes them, or an error that has both shapes."""
    if type(prediction) is not Tensor:
        prediction, shape = numbers_of(name, prediction)
    else:
        shape = prediction.shape
    if type(target) is not Tensor and not (type(target) is np.ndarray and target.dtype is FLOAT64):
        target, target_shape = numbers_of("target", target)
    else:
        target_shape = target.shape
    if shape != target_shape and (
            len(target_shape) > 2 or shape + (1,) != target_shape and shape != target_shape + (1,)):
        raise ValueError(f"{name} and target: expected the same shape, got {shape} and {target_shape}")
    if 0 in shape:
        raise ValueError(f"{name}: expected one sample at least, got the shape {shape}")
    return prediction, target


def numbers_of(name, x):
    """(x as the core takes it, its shape), from what is not known to be a Tensor.

    Returns
    -------
    x : Tensor; ndarray of float64; list of Value and number, or list of such lists
    shape : tuple of int, length 0 to 2
    """
    if isinstance(x, Tensor):
        return x, x.shape
    if isinstance(x, Value):
        return [x], ()
    if not isinstance(x, (list, tuple)):
        array = np.asarray(x)
        if array.ndim > 2:
            raise ValueError(f"{name}: expected 1 or 2 axes, got the shape {array.shape}")
        if array.dtype.kind in "biuf":
            return np.ascontiguousarray(array, FLOAT64), array.shape
        if array.dtype.kind != "O" or array.ndim == 0:
            raise TypeError(f"{name}: expected numbers or Values, got {x!r}")
        x = array.tolist()
    rows = [row.tolist() if isinstance(row, np.ndarray) else list(row)
            for row in x if isinstance(row, (list, tuple, np.ndarray, Tensor)) and np.ndim(row)]
    if not rows:
        return list(x), (len(x),)
    if len(rows) < len(x):
        raise ValueError(f"{name}: expected rows or numbers, got both")
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise ValueError(f"{name}: expected rows of one length, got {min(lengths)} and {max(lengths)}")
    return rows, (len(rows), *lengths)


def labels_of(target, n_classes):
    """The int64 array of the labels, or an error that names the first that is none."""
    if isinstance(target, (Tensor, Value)):
        raise TypeError(f"target: expected integer labels, got a {type(target).__name__}")
    try:
        labels = np.asarray(target)
    except ValueError:   # rows of different lengths
        raise ValueError(f"target: expected a sequence of integer labels, got {target!r}") from None
    if labels.dtype.kind not in "biu":
        # What was written, and not what NumPy made of it: one 1.5 makes floats of all.
        check_labels(target if isinstance(target, (list, tuple)) else labels, n_classes)
    elif labels.dtype.kind == "u" and labels.dtype.itemsize == INT64.itemsize:   # may be too large for it
        check_labels(labels, n_classes)
    return labels.astype(INT64)


def check_labels(labels, n_classes):
    """Raise an error that names the first label that is no integer or out of range."""
    single = not isinstance(labels, (list, tuple)) and np.ndim(labels) == 0
    for k, label in enumerate([labels[()]] if single else labels):
        name = "target" if single else f"target[{k}]"
        expected = f"expected an integer from 0 to {n_classes - 1}"
        try:
            index = operator.index(label)
        except TypeError:
            raise TypeError(f"{name}: {expected}, got {label!r}") from None
        if not 0 <= index < n_classes:
            raise ValueError(f"{name}: {expected}, got {index}")
