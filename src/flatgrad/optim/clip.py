"""Clipping of gradients, between ``backward()`` and ``step()``: PyTorch's names and arguments.

Each function is one call into C for each group of an optimizer. For a list of parameters, it first looks them up.
"""
from __future__ import annotations

import math

from flatgrad._core import Parameters, Tensor, Value
from flatgrad.arguments import flag, real
from flatgrad.errors import ArgumentError, ArgumentTypeError, GradientError
from flatgrad.optim.optimizers import Optimizer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


def clip_grad_norm_(parameters: Optimizer | Value | Tensor | Iterable[Value | Tensor], max_norm: float,
                    norm_type: float = 2.0, error_if_nonfinite: bool = False) -> float:
    """Scale gradients so that their common norm is at most `max_norm`.

    Parameters
    ----------
    parameters : Optimizer, Value, Tensor, or iterable of Value and Tensor
        The parameters with the gradients to clip. With an optimizer, the parameters of all its groups; this is fastest.
    max_norm : float
        The largest norm, 0 or more. With inf the gradients do not change, and the function only returns the norm.
    norm_type : float, optional
        The order of the norm, above 0; inf or 'inf' is the largest absolute value.
    error_if_nonfinite : bool, optional
        Whether a norm of nan or inf is an error.

    Returns
    -------
    float
        The norm before clipping.

    Raises
    ------
    GradientError
        If the norm is nan or inf and `error_if_nonfinite` is True. It is a RuntimeError; no gradient has changed.
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Every gradient is multiplied by ``min(1, max_norm / (norm + 1e-6))``. The norm is
    ``(sum of |g|**norm_type)**(1 / norm_type)``. Name, arguments and numbers are those of PyTorch's
    ``torch.nn.utils.clip_grad_norm_``, with one exception: the squares of gradients above 1e154 do not overflow.
    PyTorch finds a norm of inf for these and sets all gradients to 0. If a gradient is nan or inf, the others become
    nan or 0, as in PyTorch.

    References
    ----------
    .. [1] R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural networks",
       ICML 2013.

    Examples
    --------
    >>> from flatgrad import Tensor
    >>> from flatgrad.optim import clip_grad_norm_
    >>> t = Tensor([1.0, 2.0])
    >>> t.grad = [3.0, 4.0]
    >>> clip_grad_norm_(t, 1.0)
    5.0
    >>> t.grad.round(3)
    array([0.6, 0.8])
    """
    max_norm = bound("max_norm", max_norm)
    if isinstance(norm_type, str) and norm_type == "inf":
        norm_type = math.inf
    norm_type = bound("norm_type", norm_type, "a number above 0 or inf")
    if norm_type == 0.0:
        raise ArgumentError("norm_type: expected a number above 0 or inf, got 0.0")
    flag("error_if_nonfinite", error_if_nonfinite)
    groups = groups_of(parameters)
    norm = norm_of([group.grad_norm(norm_type) for group in groups], norm_type)
    if error_if_nonfinite and not math.isfinite(norm):
        raise GradientError(f"the norm of order {norm_type:g} of the gradients is {norm}, expected a finite one; "
                            "error_if_nonfinite=False clips all the same")
    factor = max_norm / (norm + 1e-6) if max_norm < math.inf else 1.0
    if not factor >= 1.0:   # also true for nan
        for group in groups:
            group.scale_grad(factor)
    return norm


def clip_grad_value_(parameters: Optimizer | Value | Tensor | Iterable[Value | Tensor], clip_value: float) -> None:
    """Clip every gradient to the range from -clip_value to clip_value.

    Parameters
    ----------
    parameters : Optimizer, Value, Tensor, or iterable of Value and Tensor
        The parameters with the gradients to clip. With an optimizer, the parameters of all its groups; this is fastest.
    clip_value : float
        The largest absolute value, 0 or more.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    ``g = min(max(g, -clip_value), clip_value)``; a gradient that is nan stays nan. Name and arguments are those
    of PyTorch's ``torch.nn.utils.clip_grad_value_``.

    Examples
    --------
    >>> from flatgrad import Tensor
    >>> from flatgrad.optim import clip_grad_value_
    >>> t = Tensor([1.0, 2.0, 3.0])
    >>> t.grad = [0.5, -7.0, 7.0]
    >>> clip_grad_value_(t, 1.0)
    >>> t.grad
    array([ 0.5, -1. ,  1. ])
    """
    clip_value = bound("clip_value", clip_value)
    for group in groups_of(parameters):
        group.clip_grad(clip_value)


def groups_of(parameters: Optimizer | Value | Tensor | Iterable[Value | Tensor]) -> list[Parameters]:
    """The core's handles of the parameters, in a list; `parameters` as in the functions above."""
    if isinstance(parameters, Optimizer):
        return parameters._parameters
    if isinstance(parameters, Parameters):
        return [parameters]
    if isinstance(parameters, (Value, Tensor)):
        return [Parameters([parameters], "parameters")]
    try:
        parameters = iter(parameters)
    except TypeError:
        raise ArgumentTypeError("parameters: expected an Optimizer, or an iterable of Values and Tensors such as "
                                f"model.parameters(), got {parameters!r}") from None
    return [Parameters(list(parameters), "parameters")]


def norm_of(norms: list[float], norm_type: float) -> float:
    """The norm of a vector from the norms of its parts."""
    if len(norms) == 1:
        return norms[0]
    largest = max(norms, default=0.0)
    if any(map(math.isnan, norms)):
        return math.nan
    if norm_type == math.inf or not 0.0 < largest < math.inf:
        return largest
    try:
        total = 0.0
        for norm in norms:   # as compiled steps do it; sum() rounds in another way from CPython 3.12 on
            total += (norm / largest) ** norm_type
        return largest * total ** (1.0 / norm_type)
    except OverflowError:
        return math.inf


def bound(name: str, value: float, expected: str = "a number, 0 or more") -> float:
    """`value` as a float, 0 or more, possibly inf."""
    result = real(name, value, expected)
    if not result >= 0.0:
        raise ArgumentError(f"{name}: expected {expected}, got {value!r}")
    return result
