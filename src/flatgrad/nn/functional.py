"""Functions under PyTorch's names of `torch.nn.functional`, with its arguments: flatgrad's and `flatgrad.losses`'.

Where PyTorch's `dim` is None, the functions take the last axis. Arguments for memory (`dtype`, `inplace`) and
deprecated ones are missing. `ignore_index` is None instead of -100, as in `flatgrad.losses`.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from flatgrad import _core, losses
from flatgrad._core import Tensor, _refuse_masked, linear, relu, sigmoid, silu, softplus, tanh
from flatgrad.arguments import finite, flag, no_attribute, one_of, positive, whole
from flatgrad.errors import ArgumentTypeError, DataError
from flatgrad.nn.dropout import Dropout

__all__ = ["relu", "relu6", "hardtanh", "leaky_relu", "elu", "gelu", "silu", "mish", "softplus", "softsign", "tanh",
           "sigmoid", "logsigmoid", "softmax", "log_softmax", "softmin", "linear", "dropout", "one_hot", "mse_loss",
           "l1_loss", "huber_loss", "smooth_l1_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits",
           "cross_entropy", "nll_loss", "kl_div"]


def as_operand(x: Any) -> Any:
    """A list or an array as a Tensor, for operators."""
    return x if isinstance(x, (Tensor, _core.Value)) else Tensor(x)


# ---- activations ----

def relu6(input: Any) -> Any:
    """min(max(input, 0), 6).

    Examples
    --------
    >>> from flatgrad.nn.functional import relu6
    >>> relu6([-1.0, 2.0, 9.0]).tolist()
    [0.0, 2.0, 6.0]
    """
    return _core.clip(as_operand(input), 0.0, 6.0)


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """The input, at least `min_val` and at most `max_val`, like `flatgrad.clip`.

    Examples
    --------
    >>> from flatgrad.nn.functional import hardtanh
    >>> hardtanh([-2.0, 0.5]).tolist()
    [-1.0, 0.5]
    """
    return _core.clip(as_operand(input), finite("min_val", min_val), finite("max_val", max_val))


def leaky_relu(input: Any, negative_slope: float = 0.01) -> Any:
    """The input where it is above 0, else `negative_slope` times the input, like `flatgrad.leaky_relu`.

    Examples
    --------
    >>> from flatgrad.nn.functional import leaky_relu
    >>> leaky_relu([-1.0, 2.0], 0.25).tolist()
    [-0.25, 2.0]
    """
    return _core.leaky_relu(as_operand(input), finite("negative_slope", negative_slope))


def elu(input: Any, alpha: float = 1.0) -> Any:
    """The input where it is above 0, else ``alpha * (exp(input) - 1)``, like `flatgrad.elu`.

    Examples
    --------
    >>> from flatgrad.nn.functional import elu
    >>> elu([-1.0, 2.0]).data.round(4).tolist()
    [-0.6321, 2.0]
    """
    return _core.elu(as_operand(input), finite("alpha", alpha))


def gelu(input: Any, approximate: str = "none") -> Any:
    """input * Phi(input), with the normal distribution function, or with its approximation by 'tanh'.

    Examples
    --------
    >>> from flatgrad.nn.functional import gelu
    >>> gelu([1.0]).data.round(6).tolist(), gelu([1.0], approximate="tanh").data.round(6).tolist()
    ([0.841345], [0.841192])
    """
    exact = one_of("approximate", approximate, ["none", "tanh"]) == "none"
    return _core.gelu(as_operand(input)) if exact else _core.gelu_tanh(as_operand(input))


def mish(input: Any) -> Any:
    """input * tanh(softplus(input)).

    Examples
    --------
    >>> from flatgrad.nn.functional import mish
    >>> mish([1.0]).data.round(6).tolist()
    [0.865098]
    """
    x = as_operand(input)
    return x * tanh(softplus(x))


def softsign(input: Any) -> Any:
    """input / (1 + abs(input)).

    Examples
    --------
    >>> from flatgrad.nn.functional import softsign
    >>> softsign([-1.0, 3.0]).tolist()
    [-0.5, 0.75]
    """
    x = as_operand(input)
    return x / (1.0 + abs(x))


def logsigmoid(input: Any) -> Any:
    """log(sigmoid(input)), exact for inputs of any size.

    Examples
    --------
    >>> from flatgrad.nn.functional import logsigmoid
    >>> logsigmoid([-1000.0, 0.0]).data.round(6).tolist()
    [-1000.0, -0.693147]
    """
    return -softplus(-as_operand(input))


def softmax(input: Any, dim: int | None = None) -> Any:
    """exp(input) divided by its sum along an axis, like `flatgrad.softmax`.

    Examples
    --------
    >>> from flatgrad.nn.functional import softmax
    >>> softmax([[0.0, 0.0], [1000.0, 0.0]], dim=1).tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    return _core.softmax(as_operand(input), -1 if dim is None else dim)


def log_softmax(input: Any, dim: int | None = None) -> Any:
    """The logarithm of `softmax`, like `flatgrad.log_softmax`.

    Examples
    --------
    >>> from flatgrad.nn.functional import log_softmax
    >>> log_softmax([0.0, 0.0]).data.round(6).tolist()
    [-0.693147, -0.693147]
    """
    return _core.log_softmax(as_operand(input), -1 if dim is None else dim)


def softmin(input: Any, dim: int | None = None) -> Any:
    """`softmax` of -input.

    Examples
    --------
    >>> from flatgrad.nn.functional import softmin
    >>> softmin([0.0, 1000.0]).tolist()
    [1.0, 0.0]
    """
    return softmax(-as_operand(input), dim)


# ---- others ----

def dropout(input: Any, p: float = 0.5, training: bool = True, *, rng: Any = None) -> Any:
    """What `flatgrad.nn.Dropout` does; `rng` is its source of random numbers.

    Examples
    --------
    >>> from flatgrad.nn.functional import dropout
    >>> [y.data for y in dropout([1.0, 2.0, 3.0, 4.0], rng=0)], dropout([1.0], training=False)
    ([2.0, 0.0, 0.0, 0.0], [1.0])
    """
    layer = Dropout(p, rng)
    return layer(input) if flag("training", training) else input


def one_hot(tensor: Any, num_classes: int = -1) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For each label a row with a 1 at its place, and 0 elsewhere: an array, for labels have no gradient.

    Parameters
    ----------
    tensor : array_like of int
        Labels, from 0 on.
    num_classes : int, optional
        The length of the rows. -1: the largest label and 1.

    Raises
    ------
    TypeError, ValueError
        If the labels are no integers, or not from 0 to below `num_classes`.

    Examples
    --------
    >>> from flatgrad.nn.functional import one_hot
    >>> one_hot([0, 2]).tolist()
    [[1, 0, 0], [0, 0, 1]]
    """
    _refuse_masked("tensor", tensor)
    labels = np.asarray(tensor.data if isinstance(tensor, Tensor) else tensor)
    if labels.dtype.kind not in "iu":
        raise ArgumentTypeError(f"tensor: expected integer labels, got {tensor!r}")
    if labels.size == 0 and num_classes == -1:
        raise DataError("tensor: expected one label at least, as num_classes is -1, got none")
    size = int(labels.max()) + 1 if num_classes == -1 else whole("num_classes", num_classes, 1)
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < size:
        wrong = int(labels.min()) if int(labels.min()) < 0 else int(labels.max())
        raise DataError(f"tensor: expected labels from 0 to {size - 1}, got {wrong}")
    rows: np.ndarray[Any, np.dtype[np.int64]] = np.eye(size, dtype=np.int64)[labels]
    return rows


# ---- losses ----

def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """`flatgrad.losses.mse`.

    Examples
    --------
    >>> from flatgrad.nn.functional import mse_loss
    >>> mse_loss([1.0, 2.0], [3.0, 2.0]).data
    2.0
    """
    return losses.mse(input, target, reduction)


def l1_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """`flatgrad.losses.mae`.

    Examples
    --------
    >>> from flatgrad.nn.functional import l1_loss
    >>> l1_loss([1.0, 2.0], [4.0, 2.0]).data
    1.5
    """
    return losses.mae(input, target, reduction)


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Any:
    """`flatgrad.losses.huber`, with PyTorch's order of arguments.

    Examples
    --------
    >>> from flatgrad.nn.functional import huber_loss
    >>> huber_loss([1.0], [4.0], delta=2.0).data
    4.0
    """
    return losses.huber(input, target, delta, reduction)


def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Any:
    """The Huber loss divided by `beta`, which is above 0.

    Examples
    --------
    >>> from flatgrad.nn.functional import smooth_l1_loss
    >>> smooth_l1_loss([1.0], [4.0], beta=2.0).data
    2.0
    """
    return losses.huber(input, target, positive("beta", beta), reduction) / beta


def binary_cross_entropy(input: Any, target: Any, reduction: str = "mean") -> Any:
    """`flatgrad.losses.binary_cross_entropy`.

    Examples
    --------
    >>> from flatgrad.nn.functional import binary_cross_entropy
    >>> round(binary_cross_entropy([0.5], [1.0]).data, 6)
    0.693147
    """
    return losses.binary_cross_entropy(input, target, reduction)


def binary_cross_entropy_with_logits(input: Any, target: Any, reduction: str = "mean", pos_weight: Any = None) -> Any:
    """`flatgrad.losses.bce_with_logits`.

    Examples
    --------
    >>> from flatgrad.nn.functional import binary_cross_entropy_with_logits
    >>> round(binary_cross_entropy_with_logits([0.0], [1.0]).data, 6)
    0.693147
    """
    return losses.bce_with_logits(input, target, reduction, pos_weight)


def cross_entropy(input: Any, target: Any, weight: Any = None, ignore_index: int | None = None,
                  reduction: str = "mean", label_smoothing: float = 0.0) -> Any:
    """`flatgrad.losses.cross_entropy`, with PyTorch's order of arguments. Targets are labels.

    Examples
    --------
    >>> from flatgrad.nn.functional import cross_entropy
    >>> round(cross_entropy([[0.0, 0.0]], [1]).data, 6)
    0.693147
    """
    return losses.cross_entropy(input, target, label_smoothing, reduction, weight, ignore_index)


def nll_loss(input: Any, target: Any, weight: Any = None, ignore_index: int | None = None,
             reduction: str = "mean") -> Any:
    """`flatgrad.losses.nll`, with PyTorch's order of arguments.

    Examples
    --------
    >>> from flatgrad.nn.functional import nll_loss
    >>> nll_loss([[-1.0, -2.0]], [1]).data
    2.0
    """
    return losses.nll(input, target, reduction, weight, ignore_index)


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Any:
    """`flatgrad.losses.kl_div`.

    Examples
    --------
    >>> from flatgrad.nn.functional import kl_div
    >>> kl_div([-2.0], [0.0], reduction="sum", log_target=True).data
    2.0
    """
    return losses.kl_div(input, target, reduction, log_target)


def __getattr__(name: str) -> Any:
    raise no_attribute(__name__, name)
