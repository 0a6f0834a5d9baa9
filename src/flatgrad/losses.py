"""Losses over samples: functions, and classes whose objects hold the options.

A loss of pairs is one instruction of the core over all elements, and one more instruction for the mean or sum. This
module checks shapes, labels and options; the core computes. Names and numbers are PyTorch's (`torch.nn.functional` and
`torch.nn`, for targets that are numbers, labels or Values).

All losses have the argument `reduction`. 'mean' is the mean over all elements or samples, 'sum' their sum. 'none'
gives each loss by itself: a Tensor of the shape of the predictions, or a Value if the prediction is one Value.
"""
from __future__ import annotations

import operator
from typing import TYPE_CHECKING, overload

import numpy as np

from flatgrad import arguments
from flatgrad._core import (
    Tensor, Value, _is_recording, _refuse_lost, _refuse_masked, abs, all_signs, are_values, dot, log_softmax, pairwise, sum, where)
from flatgrad._core import cross_entropy as mean_cross_entropy
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Literal

    from numpy.typing import ArrayLike, NDArray

    from flatgrad._core import _Matrix, _Operand

    _X = _Matrix | _Operand
    _Mean = Literal["mean", "sum"]

__all__ = ["LOSSES", "mse", "mae", "huber", "hinge", "binary_cross_entropy", "bce_with_logits", "cross_entropy", "nll",
           "kl_div", "l1", "l2", "MSELoss", "L1Loss", "HuberLoss", "HingeLoss", "BCELoss", "BCEWithLogitsLoss",
           "CrossEntropyLoss", "NLLLoss", "KLDivLoss"]

FLOAT64, INT64 = np.dtype(np.float64), np.dtype(np.int64)
REDUCTIONS = ("mean", "sum", "none")


# ---- losses of pairs of numbers ----

@overload
def mse(prediction: _X, target: _X, reduction: _Mean = "mean") -> Value: ...


@overload
def mse(prediction: _X, target: _X, reduction: str) -> Any: ...


def mse(prediction: _Matrix | _Operand, target: _Matrix | _Operand,
        reduction: Literal["mean", "sum", "none"] = "mean") -> Value | Tensor:
    """The squared error, (prediction - target)**2.

    Parameters
    ----------
    prediction : Tensor, (nested) list of Value and number, array, Value or number
        Of shape ``(n_samples,)`` or ``(n_samples, n_outputs)``; a Value by itself is one sample.
    target : array, (nested) list of number and Value, Tensor, Value or number
        Of the same shape; `(n_samples, 1)` and `(n_samples,)` count as the same shape. nan and inf are allowed, and
        the loss is then nan or inf.
    reduction : {'mean', 'sum', 'none'}, optional

    Returns
    -------
    Value, or Tensor if `reduction` is 'none'
        In the square of the predictions' unit. Gradients flow to Values and Tensors on both sides.

    Raises
    ------
    TypeError
        If an argument contains an object that is no number.
    ValueError
        If the shapes do not fit each other, there are no samples, or `reduction` is unknown.

    Notes
    -----
    PyTorch's `mse_loss`.

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
    >>> mse([x, y], [3.0, 2.0], reduction='none').tolist()
    [4.0, 0.0]
    """
    return paired("squared_error", "prediction", prediction, target, reduction)


@overload
def mae(prediction: _X, target: _X, reduction: _Mean = "mean") -> Value: ...


@overload
def mae(prediction: _X, target: _X, reduction: str) -> Any: ...


def mae(prediction: _Matrix | _Operand, target: _Matrix | _Operand,
        reduction: Literal["mean", "sum", "none"] = "mean") -> Value:
    """The absolute error, abs(prediction - target).

    Parameters
    ----------
    prediction, target, reduction
        As for `mse`.

    Returns
    -------
    Value, or Tensor if `reduction` is 'none'
        In the predictions' unit. The gradient is -1 or 1 for each element, and 0 where prediction and target are equal.

    Raises
    ------
    TypeError, ValueError
        As for `mse`.

    Notes
    -----
    PyTorch's `l1_loss`.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.losses import mae
    >>> x, y = Value(1.0), Value(2.0)
    >>> loss = mae([x, y], [4.0, 2.0])
    >>> loss.data
    1.5
    >>> loss.backward()
    >>> x.grad, y.grad
    (-0.5, 0.0)
    """
    return paired("absolute_error", "prediction", prediction, target, reduction)


@overload
def huber(prediction: _X, target: _X, delta: float = 1.0, reduction: _Mean = "mean") -> Value: ...


@overload
def huber(prediction: _X, target: _X, delta: float = 1.0, *, reduction: str) -> Any: ...


@overload
def huber(prediction: _X, target: _X, delta: float, reduction: str) -> Any: ...


def huber(prediction: _Matrix | _Operand, target: _Matrix | _Operand, delta: float = 1.0,
          reduction: Literal["mean", "sum", "none"] = "mean") -> Value | Tensor:
    """Half the squared error within `delta` of the target, and a straight line beyond.

    Parameters
    ----------
    prediction, target, reduction
        As for `mse`.
    delta : float, optional
        Above 0, in the unit of the predictions. `delta` is also the slope of the line.

    Returns
    -------
    Value, or Tensor if `reduction` is 'none'
        In the square of the predictions' unit.

    Raises
    ------
    TypeError, ValueError
        As for `mse`, or if `delta` is not a finite number above 0.

    Notes
    -----
    With ``e = abs(prediction - target)``: ``e**2 / 2`` where ``e <= delta``, else ``delta * (e - delta / 2)``
    (P. J. Huber, 1964); PyTorch's `huber_loss`.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.losses import huber
    >>> x, y = Value(1.0), Value(2.0)
    >>> loss = huber([x, y], [1.5, 12.0], reduction='sum')
    >>> loss.data
    9.625
    >>> loss.backward()
    >>> x.grad, y.grad
    (-0.5, -1.0)
    """
    return paired("huber", "prediction", prediction, target, reduction, arguments.positive("delta", delta))


@overload
def hinge(score: _X, target: _X, reduction: _Mean = "mean") -> Value: ...


@overload
def hinge(score: _X, target: _X, reduction: str) -> Any: ...


def hinge(score: _Matrix | _Operand, target: _Matrix | _Operand,
          reduction: Literal["mean", "sum", "none"] = "mean") -> Value:
    """The hinge loss of a margin, relu(1 - target * score), for classes named -1 and 1.

    Parameters
    ----------
    score : Tensor, (nested) list of Value and number, array, Value or number
        Of shape ``(n_samples,)`` or ``(n_samples, n_outputs)``; a Value by itself is one sample.
    target : array, (nested) list of number and Value, Tensor, Value or number
        -1 or 1 for each score, in the same shape; `(n_samples, 1)` and `(n_samples,)` count as the same shape. Values,
        and Tensors with a gradient, may differ from -1 and 1 by up to 0.001, so that finite differences are possible.
    reduction : {'mean', 'sum', 'none'}, optional

    Returns
    -------
    Value, or Tensor if `reduction` is 'none'
        Dimensionless. At the kink, where ``target * score`` is 1, the gradient is 0, like the gradient of relu.

    Raises
    ------
    TypeError
        If an argument contains an object that is no number.
    ValueError
        If a target is neither -1 nor 1, such as the 0 of labels 0 and 1; if the shapes do not fit each other,
        there are no samples, or `reduction` is unknown.

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
    return paired("hinge", "score", score, target, reduction, signs=True)


@overload
def binary_cross_entropy(probability: _X, target: _X, reduction: _Mean = "mean") -> Value: ...


@overload
def binary_cross_entropy(probability: _X, target: _X, reduction: str) -> Any: ...


def binary_cross_entropy(probability: _Matrix | _Operand, target: _Matrix | _Operand,
                         reduction: Literal["mean", "sum", "none"] = "mean") -> Value:
    """-target * log(probability) - (1 - target) * log(1 - probability).

    Parameters
    ----------
    probability : Tensor, (nested) list of Value and number, array, Value or number
        From 0 to 1, of shape ``(n_samples,)`` or ``(n_samples, n_outputs)``.
    target : array, (nested) list of number and Value, Tensor, Value or number
        From 0 to 1, of the same shape, as for `mse`.
    reduction : {'mean', 'sum', 'none'}, optional

    Returns
    -------
    Value, or Tensor if `reduction` is 'none'
        In nats. nan where the probability or the target is nan.

    Raises
    ------
    TypeError, ValueError
        As for `mse`, or if a probability or target is outside of 0 to 1.

    Notes
    -----
    The function equals PyTorch's `binary_cross_entropy`, also in its limits. A logarithm is at least -100, so a
    probability that is certain and wrong costs 100. The gradient of a probability p is
    ``(p - target) / ((1 - p) * p)``, with a denominator of at least 1e-12. `bce_with_logits` needs no limits.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.losses import binary_cross_entropy
    >>> p = Value(0.5)
    >>> loss = binary_cross_entropy(p, 1)
    >>> loss.backward()
    >>> round(loss.data, 6), p.grad
    (0.693147, -2.0)
    >>> binary_cross_entropy([0.0, 0.0], [0, 1], reduction='none').tolist()
    [0.0, 100.0]
    """
    try:
        return paired("binary_cross_entropy", "probability", probability, target, reduction)
    except ArgumentError:
        raise
    except ValueError:   # from the core, which does not know the argument's name
        check_numbers("probability", probability, lambda x: (x < 0.0) | (x > 1.0), "a number from 0 to 1")
        check_numbers("target", target, lambda x: (x < 0.0) | (x > 1.0), "a number from 0 to 1")
        raise


@overload
def bce_with_logits(logits: _X, target: _X, reduction: _Mean = "mean",
                    pos_weight: ArrayLike | None = None) -> Value: ...


@overload
def bce_with_logits(logits: _X, target: _X, reduction: str, pos_weight: ArrayLike | None = None) -> Any: ...


def bce_with_logits(logits: _Matrix | _Operand, target: _Matrix | _Operand,
                    reduction: Literal["mean", "sum", "none"] = "mean",
                    pos_weight: ArrayLike | None = None) -> Value | Tensor:
    """`binary_cross_entropy` of sigmoid(logits), exact for logits of any size.

    Parameters
    ----------
    logits, target, reduction
        As for `mse`; the targets are 0, 1 or a probability. As in PyTorch, other targets raise no error.
    pos_weight : float or array_like of shape (n_outputs,), optional
        Factor for the loss of a positive target, 0 or more: one number for all, or one for each column. For
        one-dimensional `logits`, one for each sample.

    Returns
    -------
    Value, or Tensor if `reduction` is 'none'
        In nats.

    Raises
    ------
    TypeError, ValueError
        As for `mse`, or if `pos_weight` is not as described.

    Notes
    -----
    ``(1 - target) * logit - (1 + (pos_weight - 1) * target) * log(sigmoid(logit))``, where ``log(sigmoid(x))``
    is ``min(x, 0) - log1p(exp(-abs(x)))``: nothing overflows, and a small loss keeps its digits. The function equals
    PyTorch's `binary_cross_entropy_with_logits`, except for a logit of -inf. There PyTorch's value is always nan, and
    flatgrad's is inf, or nan if the target is 0.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.losses import bce_with_logits
    >>> logits = [Value(1000.0), Value(0.0)]
    >>> loss = bce_with_logits(logits, [0, 1])
    >>> loss.backward()
    >>> round(loss.data, 6), [logit.grad for logit in logits]
    (500.346574, [0.5, -0.25])
    """
    if pos_weight is None:
        return paired("bce_with_logits", "logits", logits, target, reduction)
    pos_weight = weights_of("pos_weight", pos_weight, several=False)
    return paired("weighted_bce_with_logits", "logits", logits, target, reduction, pos_weight)


@overload
def kl_div(input: _X, target: _X, reduction: Literal["mean", "batchmean", "sum"] = "mean",
           log_target: bool = False) -> Value: ...


@overload
def kl_div(input: _X, target: _X, reduction: str, log_target: bool = False) -> Any: ...


def kl_div(input: _Matrix | _Operand, target: _Matrix | _Operand, reduction: Literal["mean", "sum", "none"] = "mean",
           log_target: bool = False) -> Value:
    """The Kullback-Leibler divergence, target * (log(target) - input), of exp(input) from the target.

    Parameters
    ----------
    input : Tensor, (nested) list of Value and number, array, Value or number
        Logarithms of probabilities, of shape ``(n_samples, n_classes)`` or ``(n_samples,)``.
    target : array, (nested) list of number and Value, Tensor, Value or number
        Probabilities, 0 or more, of the same shape; or their logarithms, with `log_target`.
    reduction : {'mean', 'batchmean', 'sum', 'none'}, optional
        'mean' is over all elements, as in PyTorch. 'batchmean' is the mean divergence of a sample: the sum divided by
        the length of the first axis.
    log_target : bool, optional
        Whether `target` holds logarithms.

    Returns
    -------
    Value, or Tensor if `reduction` is 'none'
        In nats. The loss of a target of 0 is 0; as in PyTorch the gradient of such a target is nan.

    Raises
    ------
    TypeError, ValueError
        As for `mse`, or if a target is negative and `log_target` is False.
    OverflowError
        If exp(target) overflows, with `log_target`.

    Notes
    -----
    The function equals PyTorch's `kl_div`, which gives nan for negative targets. As in PyTorch, an input or target
    of -inf gives nan where the target's probability is 0, because it is multiplied by 0.

    Examples
    --------
    >>> import math
    >>> from flatgrad import Value
    >>> from flatgrad.losses import kl_div
    >>> input = [[Value(math.log(0.5)), Value(math.log(0.5))]]
    >>> loss = kl_div(input, [[0.25, 0.75]], reduction='batchmean')
    >>> loss.backward()
    >>> round(loss.data, 6), [x.grad for x in input[0]]
    (0.130812, [-0.25, -0.75])
    """
    row = "kl_div_log" if arguments.flag("log_target", log_target) else "kl_div"
    arguments.one_of("reduction", reduction, ("mean", "batchmean", "sum", "none"))
    try:
        if reduction != "batchmean":
            return paired(row, "input", input, target, reduction)
        several = isinstance(input, (list, tuple)) or getattr(input, "ndim", 0) > 0
        return paired(row, "input", input, target, "sum") / (len(input) if several else 1)
    except ArgumentError:
        raise
    except ValueError:
        if not log_target:
            check_numbers("target", target, lambda x: x < 0.0, "a probability, 0 or more")
        raise


# ---- losses of labels ----

@overload
def cross_entropy(logits: _X, target: Any, label_smoothing: float = 0.0, reduction: _Mean = "mean",
                  weight: ArrayLike | None = None, ignore_index: int | None = None) -> Value: ...


@overload
def cross_entropy(logits: _X, target: Any, label_smoothing: float = 0.0, *, reduction: str,
                  weight: ArrayLike | None = None, ignore_index: int | None = None) -> Any: ...


@overload
def cross_entropy(logits: _X, target: Any, label_smoothing: float, reduction: str, weight: ArrayLike | None = None,
                  ignore_index: int | None = None) -> Any: ...


def cross_entropy(logits: _Matrix | _Operand, target: _Matrix | _Operand, label_smoothing: float = 0.0,
                  reduction: Literal["mean", "sum", "none"] = "mean", weight: ArrayLike | None = None,
                  ignore_index: int | None = None) -> Value:
    """-log(softmax(logits)[label]) of each sample.

    Parameters
    ----------
    logits : Tensor, nested list of Value and number, or array, shape (n_samples, n_classes)
        The operands of softmax, dimensionless. For one sample also 1-D, `(n_classes,)`.
    target : array or list of int, shape (n_samples,); or int if `logits` is 1-D
        Labels, from 0 to ``n_classes - 1``.
    label_smoothing : float, optional
        From 0 to 1: the share of the target that is distributed evenly over all classes.
    reduction : {'mean', 'sum', 'none'}, optional
        'none' gives the loss of each sample, in the shape of `target`.
    weight : array_like of float, shape (n_classes,), optional
        The weight of each class, 0 or more. 'mean' is then a weighted mean.
    ignore_index : int, optional
        A label, often -100. Samples with this label do not count; with 'none' their loss is 0.

    Returns
    -------
    Value, or Tensor of shape (n_samples,) if `reduction` is 'none'
        In nats. The largest logit of each sample is subtracted first, so no finite logit overflows. A logit of -inf is
        a probability of 0, and the loss is inf if the label has this logit. The loss is nan if a logit is inf, as in
        PyTorch.

    Raises
    ------
    TypeError
        If a label is not an integer, or a logit not a number.
    ValueError
        If a label is out of range, the shapes do not fit each other, there is no sample or class, no sample counts, or
        an option is not as described.

    Notes
    -----
    The gradient of a logit is ``(softmax(logits) - 1) / n_samples`` at the label and
    ``softmax(logits) / n_samples`` elsewhere. The function equals PyTorch's `cross_entropy`, also in the weighted
    and the smoothed mean. PyTorch's default of `ignore_index` is -100.

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
    logits, shape, target = labelled("logits", logits, target)
    smoothing = label_smoothing if type(label_smoothing) is float else smoothing_of(label_smoothing)
    if smoothing != 0.0 or weight is not None or ignore_index is not None or (
            type(reduction) is not str or reduction != "mean"):
        smoothing = smoothing_of(smoothing)
        return by_label(log_softmax(as_rows(logits, shape)), shape, target, smoothing, reduction, weight, ignore_index)
    try:
        return mean_cross_entropy(logits, np.ascontiguousarray(target))
    except ValueError:   # the core checks every label, much faster than NumPy
        check_labels(target, shape[-1])
        raise


@overload
def nll(log_probabilities: _X, target: Any, reduction: _Mean = "mean", weight: ArrayLike | None = None,
        ignore_index: int | None = None) -> Value: ...


@overload
def nll(log_probabilities: _X, target: Any, reduction: str, weight: ArrayLike | None = None,
        ignore_index: int | None = None) -> Any: ...


def nll(log_probabilities: _Matrix | _Operand, target: _Matrix | _Operand,
        reduction: Literal["mean", "sum", "none"] = "mean", weight: ArrayLike | None = None,
        ignore_index: int | None = None) -> Any:
    """-log_probabilities[label] of each sample, the negative log-likelihood.

    Parameters
    ----------
    log_probabilities : Tensor, nested list of Value and number, or array, shape (n_samples, n_classes)
        The results of `log_softmax`. For one sample also 1-D, `(n_classes,)`.
    target, reduction, weight, ignore_index
        As for `cross_entropy`.

    Returns
    -------
    Value, or Tensor of shape (n_samples,) if `reduction` is 'none'
        In nats.

    Raises
    ------
    TypeError, ValueError
        As for `cross_entropy`.

    Notes
    -----
    PyTorch's `nll_loss`.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad.losses import cross_entropy, nll
    >>> logits = flatgrad.Tensor([[0.0, 1.0], [3.0, -1.0]])
    >>> loss = nll(logits.log_softmax(), [1, 0])
    >>> f"{loss.data:.4f}", f"{cross_entropy(logits, [1, 0]).data:.4f}"
    ('0.1657', '0.1657')
    """
    x, shape, target = labelled("log_probabilities", log_probabilities, target)
    x = as_rows(x, shape)
    if not isinstance(x, Tensor):
        x = Tensor(x, requires_grad=not isinstance(x, np.ndarray))
    return by_label(x, shape, target, 0.0, reduction, weight, ignore_index)


# ---- penalties ----

def l1(parameters: Value | Tensor | Iterable[Value | Tensor]) -> Value:
    """The sum of the absolute values of parameters, as a penalty in a loss: it makes parameters sparse.

    Parameters
    ----------
    parameters : iterable of Value and Tensor, or one of them
        For example the `parameters()` of a Module.

    Returns
    -------
    Value
        0 if there are no parameters. The gradient of a parameter of 0 is 0.

    Raises
    ------
    TypeError
        If an item is neither a Value nor a Tensor.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.losses import l1
    >>> w = [Value(2.0), Value(-3.0)]
    >>> penalty = l1(w)
    >>> penalty.backward()
    >>> penalty.data, [x.grad for x in w]
    (5.0, [1.0, -1.0])
    """
    return total([sum(abs(x if isinstance(x, Tensor) else Tensor(x))) for x in vectors_of(parameters)])


def l2(parameters: Value | Tensor | Iterable[Value | Tensor]) -> Value:
    """The sum of the squares of parameters, as a penalty in a loss: it keeps parameters small.

    Parameters
    ----------
    parameters : iterable of Value and Tensor, or one of them
        For example the `parameters()` of a Module. All Values together are one instruction; so is each Tensor.

    Returns
    -------
    Value
        0 if there are no parameters. Not halved: the gradient is twice the parameter.

    Raises
    ------
    TypeError
        If an item is neither a Value nor a Tensor.

    Examples
    --------
    >>> from flatgrad import Tensor
    >>> from flatgrad.losses import l2
    >>> w = Tensor([[1.0, -2.0], [0.0, 3.0]])
    >>> penalty = l2(w)
    >>> penalty.backward()
    >>> penalty.data, w.grad.tolist()
    (14.0, [[2.0, -4.0], [0.0, 6.0]])
    """
    return total([dot(x, x) for x in vectors_of(parameters)])


# ---- losses with their options, as objects ----

class Loss:
    """The base class of the losses below: the options, checked by the constructor, and a call."""

    reduction: str

    def __init__(self, reduction: Literal["mean", "sum", "none"] = "mean") -> None:
        self.reduction = arguments.one_of("reduction", reduction, REDUCTIONS)

    def __repr__(self) -> str:
        options = [f"{name}={shown.tolist() if isinstance(shown, np.ndarray) else shown!r}"
                   for name, shown in vars(self).items() if name not in ("training", "_hooks")]   # of flatgrad.nn's
        return f"{type(self).__name__}({', '.join(options)})"


class MSELoss(Loss):
    """`mse` with its options.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}, optional

    Raises
    ------
    UnknownNameError
        If `reduction` is not one of these names.

    Examples
    --------
    >>> from flatgrad.losses import MSELoss
    >>> criterion = MSELoss(reduction='sum')
    >>> criterion([1.0, 2.0], [3.0, 2.0]).data
    4.0
    """

    def __call__(self, prediction: _Matrix | _Operand, target: _Matrix | _Operand) -> Any:
        return mse(prediction, target, self.reduction)


class L1Loss(Loss):
    """`mae` with its options, under PyTorch's name.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}, optional

    Raises
    ------
    UnknownNameError
        If `reduction` is not one of these names.

    Examples
    --------
    >>> from flatgrad.losses import L1Loss
    >>> L1Loss()([1.0, 2.0], [4.0, 2.0]).data
    1.5
    """

    def __call__(self, prediction: _Matrix | _Operand, target: _Matrix | _Operand) -> Any:
        return mae(prediction, target, self.reduction)


class HuberLoss(Loss):
    """`huber` with its options.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}, optional
    delta : float, optional
        Above 0: the error at which the line begins.

    Raises
    ------
    TypeError, ValueError
        If an option is not as described.

    Examples
    --------
    >>> from flatgrad.losses import HuberLoss
    >>> HuberLoss(delta=2.0)
    HuberLoss(reduction='mean', delta=2.0)
    """

    delta: Any

    def __init__(self, reduction: Literal["mean", "sum", "none"] = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = arguments.positive("delta", delta)

    def __call__(self, prediction: _Matrix | _Operand, target: _Matrix | _Operand) -> Any:
        return huber(prediction, target, self.delta, self.reduction)


class HingeLoss(Loss):
    """`hinge` with its options.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}, optional

    Raises
    ------
    UnknownNameError
        If `reduction` is not one of these names.

    Examples
    --------
    >>> from flatgrad.losses import HingeLoss
    >>> HingeLoss()([3.0, 0.5], [1, -1]).data
    0.75
    """

    def __call__(self, score: _Matrix | _Operand, target: _Matrix | _Operand) -> Any:
        return hinge(score, target, self.reduction)


class BCELoss(Loss):
    """`binary_cross_entropy` with its options.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}, optional

    Raises
    ------
    UnknownNameError
        If `reduction` is not one of these names.

    Examples
    --------
    >>> from flatgrad.losses import BCELoss
    >>> round(BCELoss()([0.5, 0.5], [0, 1]).data, 6)
    0.693147
    """

    def __call__(self, probability: _Matrix | _Operand, target: _Matrix | _Operand) -> Any:
        return binary_cross_entropy(probability, target, self.reduction)


class BCEWithLogitsLoss(Loss):
    """`bce_with_logits` with its options.

    Parameters
    ----------
    reduction : {'mean', 'sum', 'none'}, optional
    pos_weight : float or array_like of shape (n_outputs,), optional
        Factor for the loss of a positive target.

    Raises
    ------
    TypeError, ValueError
        If an option is not as described.

    Examples
    --------
    >>> from flatgrad.losses import BCEWithLogitsLoss
    >>> BCEWithLogitsLoss(pos_weight=3.0)([-1000.0, -1000.0], [0, 1]).data
    1500.0
    """

    pos_weight: ArrayLike | None

    def __init__(self, reduction: Literal["mean", "sum", "none"] = "mean", pos_weight: ArrayLike | None = None) -> None:
        super().__init__(reduction)
        self.pos_weight = None if pos_weight is None else weights_of("pos_weight", pos_weight, several=False)

    def __call__(self, logits: _Matrix | _Operand, target: _Matrix | _Operand) -> Any:
        return bce_with_logits(logits, target, self.reduction, self.pos_weight)


class CrossEntropyLoss(Loss):
    """`cross_entropy` with its options.

    Parameters
    ----------
    weight : array_like of float, shape (n_classes,), optional
        The weight of each class.
    ignore_index : int, optional
        A label; samples with this label do not count.
    reduction : {'mean', 'sum', 'none'}, optional
    label_smoothing : float, optional
        From 0 to 1: the share of the target that is distributed evenly over all classes.

    Raises
    ------
    TypeError, ValueError
        If an option is not as described.

    Examples
    --------
    >>> from flatgrad.losses import CrossEntropyLoss
    >>> criterion = CrossEntropyLoss(label_smoothing=0.1)
    >>> f"{criterion([[0.0, 0.0], [50.0, 0.0]], [1, 0]).data:.4f}"
    '1.5966'
    """

    weight: ArrayLike | None
    ignore_index: int | None
    label_smoothing: Any

    def __init__(self, weight: ArrayLike | None = None, ignore_index: int | None = None,
                 reduction: Literal["mean", "sum", "none"] = "mean", label_smoothing: float = 0.0) -> None:
        super().__init__(reduction)
        self.weight = None if weight is None else weights_of("weight", weight)
        self.ignore_index = None if ignore_index is None else label_of(ignore_index)
        self.label_smoothing = smoothing_of(label_smoothing)

    def __call__(self, logits: _Matrix | _Operand, target: Any) -> Any:
        return cross_entropy(logits, target, self.label_smoothing, self.reduction, self.weight, self.ignore_index)


class NLLLoss(Loss):
    """`nll` with its options.

    Parameters
    ----------
    weight : array_like of float, shape (n_classes,), optional
        The weight of each class.
    ignore_index : int, optional
        A label whose samples count nothing.
    reduction : {'mean', 'sum', 'none'}, optional

    Raises
    ------
    TypeError, ValueError
        If an option is not as described.

    Examples
    --------
    >>> from flatgrad.losses import NLLLoss
    >>> NLLLoss(reduction='none')([[-1.0, -0.5], [-2.0, -0.25]], [1, 0]).tolist()
    [0.5, 2.0]
    """

    weight: ArrayLike | None
    ignore_index: int | None

    def __init__(self, weight: ArrayLike | None = None, ignore_index: int | None = None,
                 reduction: Literal["mean", "sum", "none"] = "mean") -> None:
        super().__init__(reduction)
        self.weight = None if weight is None else weights_of("weight", weight)
        self.ignore_index = None if ignore_index is None else label_of(ignore_index)

    def __call__(self, log_probabilities: _Matrix | _Operand, target: Any) -> Any:
        return nll(log_probabilities, target, self.reduction, self.weight, self.ignore_index)


class KLDivLoss(Loss):
    """`kl_div` with its options.

    Parameters
    ----------
    reduction : {'mean', 'batchmean', 'sum', 'none'}, optional
    log_target : bool, optional
        Whether the targets are logarithms.

    Raises
    ------
    TypeError, ValueError
        If an option is not as described.

    Examples
    --------
    >>> from flatgrad.losses import KLDivLoss
    >>> KLDivLoss(reduction='batchmean', log_target=True)([[-2.0, -1.0]], [[0.0, -1.0]]).data
    2.0
    """

    reduction: str
    log_target: Any

    def __init__(self, reduction: Literal['mean', 'batchmean', 'sum', 'none'] = "mean",
                 log_target: bool = False) -> None:
        self.reduction = arguments.one_of("reduction", reduction, ("mean", "batchmean", "sum", "none"))
        self.log_target = arguments.flag("log_target", log_target)

    def __call__(self, input: _Matrix | _Operand, target: _Matrix | _Operand) -> Any:
        return kl_div(input, target, self.reduction, self.log_target)


# The losses of a prediction and a target, by their names.
LOSSES: dict[str, Callable[..., Any]]
LOSSES = {"mse": mse, "mae": mae, "huber": huber, "hinge": hinge, "binary_cross_entropy": binary_cross_entropy,
          "bce_with_logits": bce_with_logits, "cross_entropy": cross_entropy, "nll": nll, "kl_div": kl_div}


# ---- arguments ----

def paired(row: str, name: str, prediction: _Matrix | _Operand, target: _Matrix | _Operand,
           reduction: Literal['mean', 'sum', 'none'], parameter: Any = None, signs: bool = False) -> Any:
    """The loss of row `row` of csrc/ops.def; an error gives both shapes. signs: the targets have to be -1 or 1."""
    if type(reduction) is not str or reduction != "mean":
        arguments.one_of("reduction", reduction, REDUCTIONS)
    if type(prediction) is not Tensor:
        prediction, shape = numbers_and_shape(name, prediction)
    else:
        shape = prediction.shape
    given = target
    if type(target) is not Tensor and not (type(target) is np.ndarray and target.dtype is FLOAT64):
        target, target_shape = numbers_and_shape("target", target)
    else:
        target_shape = target.shape
    if shape != target_shape and (
            len(target_shape) > 2 or shape + (1,) != target_shape and shape != target_shape + (1,)):
        raise ShapeError(f"{name} and target: expected the same shape, got {shape} and {target_shape}")
    if 0 in shape:
        raise DataError(f"{name}: expected one sample at least, got the shape {shape}")
    if parameter is not None and np.ndim(parameter) and parameter.shape != shape[-1:]:
        raise ShapeError(f"pos_weight: expected a number or one for each column of {name}, of shape {shape}, got the "
                         f"shape {parameter.shape}")
    if signs and not all_signs(target):
        for near in 1e-3, 0.0:   # the tolerance is explained in hinge
            check_numbers("target", given, lambda x: ~(np.abs(np.abs(x) - 1.0) <= near), "-1 or 1")
    losses = pairwise(row, prediction, target, reduction, parameter)
    return losses if shape or reduction != "none" else losses[0]


def numbers_and_shape(name: str, x: Any) -> tuple[Any, Any]:
    """(x in a form for the core, its shape), for an `x` that may be a Tensor or another type.

    Returns
    -------
    x : Tensor; ndarray of float64; list of Value and number, or list of such lists
    shape : tuple of int, length 0 to 2
    """
    if isinstance(x, Tensor):
        return x, x.shape
    if isinstance(x, Value):
        return [x], ()
    if isinstance(x, (list, tuple)):
        x = [item for item in x]   # not list(x), which asks a subclass for its length
    else:
        _refuse_lost(name, x)
        array = np.asarray(x)
        if array.ndim > 2:
            raise ShapeError(f"{name}: expected 1 or 2 axes, got the shape {array.shape}")
        if array.dtype.kind in "biuf":
            return np.ascontiguousarray(array, FLOAT64), array.shape
        if array.dtype.kind != "O" or array.ndim == 0:
            raise ArgumentTypeError(f"{name}: expected numbers or Values, got {x!r}")
        x = array.tolist()
    rows = [row.tolist() if isinstance(row, np.ndarray) else list(row)
            for row in x if isinstance(row, (list, tuple, Tensor)) or isinstance(row, np.ndarray) and row.ndim]
    if not rows:
        return list(x), (len(x),)
    if len(rows) < len(x):
        raise ShapeError(f"{name}: expected rows or numbers, got both")
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise ShapeError(f"{name}: expected rows of one length, got {min(lengths)} and {max(lengths)}")
    return rows, (len(rows), *lengths)


def check_numbers(name: Any, x: Any, is_wrong: Any, expected: Any) -> None:
    """Raise an error that names the first wrong number of `x`."""
    x, shape = numbers_and_shape(name, x)
    numbers = np.array(data_of(x), dtype=FLOAT64).reshape(shape)
    if is_wrong(numbers).any():
        place = tuple(np.argwhere(is_wrong(numbers))[0].tolist())
        raise DataError(f"{name}{list(place) if place else ''}: expected {expected}, got {numbers[place]}")


def data_of(x: Any) -> Any:
    """The numbers of the first result of `numbers_and_shape`."""
    if isinstance(x, (Tensor, Value)):
        return x.data
    return [data_of(item) for item in x] if isinstance(x, list) else x


def weights_of(name: str, weight: ArrayLike | None, several: bool = True) -> float | NDArray[Any]:
    """An array of one dimension, finite and 0 or more; or, unless `several` is True, a float."""
    if isinstance(weight, Tensor) and not weight.requires_grad:
        weight = weight.data
    inside = weight if isinstance(weight, (list, tuple)) else np.ravel(weight) if isinstance(weight, np.ndarray) else ()
    if any(isinstance(w, (Value, Tensor)) for w in [weight, *inside]):
        raise ArgumentTypeError(f"{name}: expected numbers, as no gradient goes there, got "
                                f"{arguments.shortened(weight)}")
    if not several and not isinstance(weight, (list, tuple)) and np.ndim(weight) == 0:
        return arguments.non_negative(name, weight[()] if isinstance(weight, np.ndarray) else weight)
    array = arguments.finite_array(name, weight, 1)
    if (array < 0.0).any():
        k = int(np.flatnonzero(array < 0.0)[0])
        raise ArgumentError(f"{name}[{k}]: expected a finite number, 0 or more, got {array[k]}")
    return array


def smoothing_of(label_smoothing: float) -> float:
    """`label_smoothing` as a float from 0 to 1."""
    smoothing = arguments.finite("label_smoothing", label_smoothing, "a number from 0 to 1")
    if not 0.0 <= smoothing <= 1.0:
        raise ArgumentError(f"label_smoothing: expected a number from 0 to 1, got {label_smoothing!r}")
    return smoothing


def label_of(ignore_index: int | None) -> Any:
    """`ignore_index` as an int."""
    try:
        return operator.index(ignore_index)
    except TypeError:
        raise ArgumentTypeError(f"ignore_index: expected None or an int, got {ignore_index!r}") from None


def labelled(name: str, x: Tensor | list[Any], target: _Matrix | _Operand) -> tuple[Any, Any, Any]:
    """(x in a form for the core, its shape, an array of int64): integer labels, one for each row of x."""
    if type(x) is not Tensor:
        x, shape = numbers_and_shape(name, x)
    else:
        shape = x.shape
    if not shape or 0 in shape:
        raise DataError(f"{name}: expected the shape (n_samples, n_classes) or (n_classes,), with one of each "
                        f"at least, got {shape}")
    if not (type(target) is np.ndarray and target.dtype is INT64):
        target = labels_of(target, shape[-1])
    if target.shape != shape[:-1]:
        raise ShapeError(f"target: expected one label for each sample, got the shape {target.shape} "
                         f"where that of {name} is {shape}")
    return x, shape, target


def as_rows(x: list[Any], shape: tuple[Any, ...]) -> list[list[Value]]:
    """`x` with two dimensions: a vector becomes one row."""
    if len(shape) == 2:
        return x
    return [x] if isinstance(x, list) else x.reshape(1, shape[0])


def by_label(x: Any, shape: tuple[int, ...], labels: Any, smoothing: float, reduction: Literal['mean', 'sum', 'none'],
             weight: ArrayLike | None, ignore_index: int | None) -> Any:
    """The loss of log-probabilities, a Tensor of rows, in a few instructions.

    The function does not multiply x with one-hot rows: 0 times the -inf of another class would be nan.
    """
    n, c = x.shape
    arguments.one_of("reduction", reduction, REDUCTIONS)
    if weight is not None:
        weight = weights_of("weight", weight)
        if weight.shape != (c,):
            raise ShapeError(f"weight: expected {c} numbers, one for each class, got {weight.shape[0]}")
    weight = np.ones(c) if weight is None else weight
    labels = labels.reshape(-1)
    kept = np.ones(n, bool)
    if ignore_index is not None:
        kept = labels != label_of(ignore_index)
    check_labels(labels if len(shape) == 2 else labels[0], c, ignore_index)
    if reduction == "none":
        labels = np.where(kept, labels, 0)
        losses = x[np.arange(n), labels] * ((smoothing - 1.0) * weight[labels])
        if smoothing:
            losses = losses + x @ (-smoothing / c * weight)
        if not kept.all():
            losses = where(kept.astype(FLOAT64), losses, 0.0)
        return losses if len(shape) == 2 else losses[0]
    rows = np.flatnonzero(kept)
    if len(rows) == 0:
        raise DataError(f"target: expected one label at least that is not ignore_index={ignore_index}, got none")
    labels = labels[rows]
    count = weight[labels].sum() if reduction == "mean" else 1.0
    if count == 0.0:
        raise DataError("weight: expected a label of a weight above 0 at least, got none")
    loss = dot(x[rows, labels], (smoothing - 1.0) / count * weight[labels])
    if smoothing:
        spread = np.tile(-smoothing / c / count * weight, len(rows))
        loss = loss + dot((x if len(rows) == n else x[rows]).reshape(-1), spread)
    return loss


def labels_of(target: _Matrix | _Operand, n_classes: int) -> NDArray[Any]:
    """The labels as an array of int64, or an error that names the first wrong label."""
    if _is_recording() and any(isinstance(x, (Tensor, Value)) for x in [target, *(
            target if isinstance(target, (list, tuple)) else ())]):
        raise ArgumentTypeError(
            f"target: expected integer labels that are constants of the compiled function being recorded, got "
            f"{arguments.shortened(target)}, computed from an argument, which is another at each call. Make the labels "
            "a static argument, such as a tuple of ints, or captured ones; or write "
            "-flatgrad.pick(log_probabilities, labels).mean() with labels from 0 on")
    if isinstance(target, (Tensor, Value)):
        raise ArgumentTypeError(f"target: expected integer labels, got a {type(target).__name__}")
    _refuse_masked("target", target)
    try:
        labels = np.asarray(target)
    except ValueError:   # because of rows of different lengths
        raise ShapeError(f"target: expected a sequence of integer labels, got {target!r}") from None
    if labels.dtype.kind not in "biu":
        # Check the user's list, not NumPy's array of it: one 1.5 turns all its elements into floats.
        check_labels(target if isinstance(target, (list, tuple)) else labels, n_classes)
    elif labels.dtype.kind == "u" and labels.dtype.itemsize == INT64.itemsize:   # may be too large for int64
        check_labels(labels, n_classes)
    return labels.astype(INT64)


def check_labels(labels: NDArray[Any] | np.int64, n_classes: int, ignore_index: int | None = None) -> None:
    """Raise an error that names the first label that is no integer or is out of range."""
    single = not isinstance(labels, (list, tuple)) and np.ndim(labels) == 0
    expected = f"expected an integer from 0 to {n_classes - 1}"
    if ignore_index is not None:
        expected += f", or ignore_index={ignore_index}"
    for k, label in enumerate([labels[()]] if single else labels):
        name = "target" if single else f"target[{k}]"
        try:
            index = operator.index(label)
        except TypeError:
            raise ArgumentTypeError(f"{name}: {expected}, got {label!r}") from None
        if not 0 <= index < n_classes and index != ignore_index:
            there = ("is one prediction for each sample, as bce_with_logits and hinge take it" if n_classes == 1 else
                     f"are {n_classes} predictions for each sample, one for each class")
            raise DataError(f"{name}: {expected}, got {index}; there {there}")


def vectors_of(parameters: list[Value]) -> list[list[Value]]:
    """The Values of an iterable as one list, and its Tensors as Tensors of one dimension."""
    if type(parameters) is list and parameters and are_values(parameters):   # such as model.parameters(), in every step
        return [parameters]
    if isinstance(parameters, (Tensor, Value)):
        parameters = [parameters]
    try:
        parameters = list(parameters)
    except TypeError:
        raise ArgumentTypeError(f"parameters: expected Values and Tensors, got {parameters!r}") from None
    values, tensors = [], []
    for k, parameter in enumerate(parameters):
        if isinstance(parameter, Value):
            values.append(parameter)
        elif isinstance(parameter, Tensor):
            tensors.append(parameter.reshape(-1))
        else:
            raise ArgumentTypeError(f"parameters[{k}]: expected a Value or a Tensor, got {parameter!r}")
    return [values, *tensors] if values else tensors


def total(terms: list[Value]) -> Value:
    """The sum of the terms: a single term as it is, 0 if there are no terms."""
    return terms[0] if len(terms) == 1 else sum(terms)


if not TYPE_CHECKING:
    def __getattr__(name):
        raise arguments.no_attribute(__name__, name)
