"""Optimizers whose rule is written with NumPy, on all numbers of a group at once: PyTorch's names and numbers.

A step copies numbers and gradients out of the core, and the new numbers back. It costs a few microseconds more than a
step of `flatgrad.optim.optimizers`, whose rules are C, and it cannot be part of a compiled training loop or of exported
C: `flatgrad.train.Trainer` takes its loop in Python for these optimizers.
"""
from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from flatgrad._core import Parameters, Tensor, Value, _detects_anomaly, _refuse_recording
from flatgrad.arguments import finite, flag, non_negative, within
from flatgrad.errors import ArgumentError, ArgumentTypeError, StateError
from flatgrad.optim.optimizers import Optimizer, kept, loss_of, pair_of_betas

__all__ = ["NAdam", "RAdam", "Adamax", "Rprop"]

Array = np.ndarray[Any, np.dtype[np.float64]]
State = dict[str, Any]
Params = Iterable[Value | Tensor] | Iterable[dict[str, Any]]


class ArrayRule(Optimizer):
    """The base class: `_change` is the rule, for the arrays of a group."""

    _in_python = True    # compiled loops do not know the rule
    _not_below_0: tuple[str, ...] = ()   # the arrays of the state that have no negative numbers
    # The new numbers of a group and its new state, of (parameters, state, x, g, lr) and the other hyperparameters by
    # name. Both are new, and what was there stays as it is.
    _change: Callable[..., tuple[Array, State]]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = loss_of(closure)
        _refuse_recording("an optimizer's step")
        if not Parameters.have(self.param_groups, self._read, self._seen):
            self._prepare()
        rates = [group["lr"] for group in self._learning_rates()]
        before: list[Array] = []
        after: list[tuple[Array, State]] = []
        for parameters, state, lr, (_, settings) in zip(self._parameters, self._state, rates, self._taken):
            x, g, trained = np.empty(parameters.count), np.empty(parameters.count), np.ones(parameters.count)
            parameters.get_data(x)
            parameters.get_grad(g)
            parameters.clear_frozen(trained)
            with np.errstate(all="ignore"):   # numbers of any size, as in C
                new, kept_now = self._change(parameters, state, x, g, lr, **settings)
            if not trained.all():   # what is frozen keeps its state as well
                for name, array in kept_now.items():
                    if isinstance(array, np.ndarray):
                        kept_now[name] = np.where(trained != 0.0, array, self._start(parameters, state, name, lr))
                new = np.where(trained != 0.0, new, x)
            before.append(x)
            after.append((new, kept_now))
        states = [dict(state) for state in self._state]
        try:
            for parameters, state, (new, kept_now) in zip(self._parameters, self._state, after):
                parameters.set_data(new)
                state.update(kept_now)
        except BaseException:   # such as an interrupt
            for parameters, state, x, old in zip(self._parameters, self._state, before, states):
                parameters.set_data(x)
                state.clear()
                state.update(old)
            raise
        if _detects_anomaly():
            for k, (parameters, x, (new, _), lr) in enumerate(zip(self._parameters, before, after, rates)):
                look(parameters, x, new, k, lr)
        return loss

    def _start(self, parameters: Parameters, state: State, name: str, lr: float) -> Array:
        """An array of the state; before the first step, its initial numbers."""
        found: Array = kept(dict(state), name, parameters)
        return found

    def _state_from(self, name: str, loaded: Any, count: int) -> State:
        state: State = super()._state_from(name, loaded, count)
        for key in self._not_below_0:
            if key in state and (state[key] < 0.0).any():
                raise StateError(f"{name}[{key!r}]: expected numbers of 0 or more, got {state[key].min()}")
        return state


def look(parameters: Parameters, before: Array, after: Array, group: int, lr: float) -> None:
    """Within detect_anomaly(): an error for the first number that a step has made nan or inf."""
    strange = np.flatnonzero(~np.isfinite(after) & ((before != after) | np.isnan(after)))
    if not strange.size:
        return
    from flatgrad.anomaly import stepped

    at, frame = int(strange[0]), sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "flatgrad":
        frame = frame.f_back
    for number, value in enumerate(parameters.values):
        size = value.size if isinstance(value, Tensor) else 1
        if at < size:
            node = value.reshape(-1)[at] if isinstance(value, Tensor) else value
            raise stepped(node, node.data, node.grad, lr, group, number, (frame.f_code, frame.f_lasti))
        at -= size


def mean(before: Array, to: Array, weight: float) -> Array:
    """before + (to - before) * weight, computed from the nearer end, as in C: a weight of 1 gives exactly `to`."""
    if weight < 0.5:
        return before + (to - before) * weight
    return to - (to - before) * (1.0 - weight)


def descent(x: Array, g: Array, lr: float, weight_decay: float, decoupled: bool, maximize: bool) -> tuple[Array, Array]:
    """The numbers and the gradients after weight decay."""
    g = -g if maximize else g
    if weight_decay == 0.0:
        return x, g
    return ((1.0 - lr * weight_decay) * x, g) if decoupled else (x, g + weight_decay * x)


class NAdam(ArrayRule):
    """Adam with Nesterov's momentum.

    Parameters
    ----------
    params : iterable of Value and Tensor, or iterable of dict
        As for `Optimizer`.
    lr : float, optional
        Learning rate, 0 or more.
    betas : pair of float, optional
        Factors of the earlier averages in each step, each from 0 to below 1.
    eps : float, optional
        A number added to the root of the averaged square, 0 or more.
    weight_decay : float, optional
        Factor of the L2 penalty: `weight_decay` times the parameter is added to its gradient. 0 or more.
    momentum_decay : float, optional
        How fast the momentum approaches the first of `betas`, 0 or more.
    decoupled_weight_decay : bool, optional
        Whether to use the weight decay of `AdamW`.
    maximize : bool, optional
        Whether to maximize: the sign of the gradient is turned.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; numbers have to be finite.

    See Also
    --------
    Optimizer : attributes, groups, copies and pickles.

    Notes
    -----
    For the parameter p and its gradient, in step t = 1, 2, ..., with m and v initially 0 and c initially 1 [1]_::

        d = gradient + weight_decay * p
        u(t) = beta1 * (1 - 0.96**(t * momentum_decay) / 2)
        c = c * u(t)
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d**2
        s = (1 - u(t)) / (1 - c) * d + u(t + 1) / (1 - c * u(t + 1)) * m
        p = p - lr * s / (sqrt(v / (1 - beta2**t)) + eps)

    Names, defaults and formulas are PyTorch's; PyTorch keeps c in its default type, which is float32 unless
    `torch.set_default_dtype` says otherwise. The rule is written with NumPy: compiled training loops and exports to C
    do not have it.

    References
    ----------
    .. [1] T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR 2016 workshop.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import NAdam
    >>> x = Value(5.0)
    >>> optimizer = NAdam([x], lr=0.5)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     ((x - 1.0) ** 2).backward()
    ...     optimizer.step()
    >>> round(x.data, 1)
    1.0
    """

    _checks = {"lr": non_negative, "betas": pair_of_betas, "eps": non_negative, "weight_decay": non_negative,
               "momentum_decay": non_negative, "decoupled_weight_decay": flag, "maximize": flag}
    _keeps = ("step", "mu_product", "exp_avg", "exp_avg_sq")
    _counts = {"mu_product": lambda name, value: within(name, value, 0.0, 1.0)}

    def __init__(self, params: Params, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False, *,
                 maximize: bool = False) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
                         momentum_decay=momentum_decay, decoupled_weight_decay=decoupled_weight_decay,
                         maximize=maximize)

    def _change(self, parameters: Parameters, state: State, x: Array, g: Array, lr: float, *,
                betas: tuple[float, float], eps: float, weight_decay: float, momentum_decay: float,
                decoupled_weight_decay: bool, maximize: bool) -> tuple[Array, State]:
        t = state.get("step", 0) + 1
        x, d = descent(x, g, lr, weight_decay, decoupled_weight_decay, maximize)
        now, following = (betas[0] * (1.0 - 0.5 * 0.96 ** (k * momentum_decay)) for k in (t, t + 1))
        product = state.get("mu_product", 1.0) * now
        m = mean(self._start(parameters, state, "exp_avg", lr), d, 1.0 - betas[0])
        v = self._start(parameters, state, "exp_avg_sq", lr) * betas[1] + (1.0 - betas[1]) * d * d
        size = np.sqrt(v / (1.0 - betas[1] ** t)) + eps
        x = x - lr * (1.0 - now) / (1.0 - product) * d / size
        x = x - lr * following / (1.0 - product * following) * m / size
        return x, {"step": t, "mu_product": product, "exp_avg": m, "exp_avg_sq": v}


class RAdam(ArrayRule):
    """Adam that takes plain steps of the averaged gradient until it knows the squares well enough.

    Parameters
    ----------
    params : iterable of Value and Tensor, or iterable of dict
        As for `Optimizer`.
    lr : float, optional
        Learning rate, 0 or more.
    betas : pair of float, optional
        Factors of the earlier averages in each step, each from 0 to below 1.
    eps : float, optional
        A number added to the root of the averaged square, 0 or more.
    weight_decay : float, optional
        Factor of the L2 penalty: `weight_decay` times the parameter is added to its gradient. 0 or more.
    decoupled_weight_decay : bool, optional
        Whether to use the weight decay of `AdamW`.
    maximize : bool, optional
        Whether to maximize: the sign of the gradient is turned.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; numbers have to be finite.

    See Also
    --------
    Optimizer : attributes, groups, copies and pickles.

    Notes
    -----
    For the parameter p and its gradient, in step t = 1, 2, ..., with m and v initially 0 [1]_::

        d = gradient + weight_decay * p
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d**2
        n = 2 / (1 - beta2) - 1
        k = n - 2 * t * beta2**t / (1 - beta2**t)
        r = sqrt((k - 4) * (k - 2) * n / ((n - 4) * (n - 2) * k) * (1 - beta2**t)) / (sqrt(v) + eps)
        p = p - lr * m / (1 - beta1**t) * (r  if k > 5 else  1)

    Names, defaults and formulas are PyTorch's. The rule is written with NumPy: compiled training loops and exports to C
    do not have it.

    References
    ----------
    .. [1] L. Liu et al., "On the variance of the adaptive learning rate and beyond", ICLR 2020.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import RAdam
    >>> x = Value(5.0)
    >>> optimizer = RAdam([x], lr=0.5)
    >>> for _ in range(150):
    ...     optimizer.zero_grad()
    ...     ((x - 1.0) ** 2).backward()
    ...     optimizer.step()
    >>> round(x.data, 1)
    1.0
    """

    _checks = {"lr": non_negative, "betas": pair_of_betas, "eps": non_negative, "weight_decay": non_negative,
               "maximize": flag, "decoupled_weight_decay": flag}
    _keeps = ("step", "exp_avg", "exp_avg_sq")

    def __init__(self, params: Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, decoupled_weight_decay: bool = False, *, maximize: bool = False) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize,
                         decoupled_weight_decay=decoupled_weight_decay)

    def _change(self, parameters: Parameters, state: State, x: Array, g: Array, lr: float, *,
                betas: tuple[float, float], eps: float, weight_decay: float, decoupled_weight_decay: bool,
                maximize: bool) -> tuple[Array, State]:
        t = state.get("step", 0) + 1
        x, d = descent(x, g, lr, weight_decay, decoupled_weight_decay, maximize)
        m = mean(self._start(parameters, state, "exp_avg", lr), d, 1.0 - betas[0])
        v = self._start(parameters, state, "exp_avg_sq", lr) * betas[1] + (1.0 - betas[1]) * d * d
        correction = 1.0 - betas[1] ** t
        longest = 2.0 / (1.0 - betas[1]) - 1.0
        length = longest - 2.0 * t * betas[1] ** t / correction
        step = m / (1.0 - betas[0] ** t) * lr
        if length > 5.0:
            share = (length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length)
            step = step * (math.sqrt(correction) / (np.sqrt(v) + eps)) * math.sqrt(share)
        return x - step, {"step": t, "exp_avg": m, "exp_avg_sq": v}


class Adamax(ArrayRule):
    """Adam with the largest gradient, which is forgotten slowly, instead of the averaged square.

    Parameters
    ----------
    params : iterable of Value and Tensor, or iterable of dict
        As for `Optimizer`.
    lr : float, optional
        Learning rate, 0 or more.
    betas : pair of float, optional
        Factors of the earlier average, and of the earlier largest gradient, in each step; each from 0 to below 1.
    eps : float, optional
        A number added to the size of each gradient, 0 or more.
    weight_decay : float, optional
        Factor of the L2 penalty: `weight_decay` times the parameter is added to its gradient. 0 or more.
    maximize : bool, optional
        Whether to maximize: the sign of the gradient is turned.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; numbers have to be finite.

    See Also
    --------
    Optimizer : attributes, groups, copies and pickles.

    Notes
    -----
    For the parameter p and its gradient, in step t = 1, 2, ..., with m and u initially 0 [1]_::

        d = gradient + weight_decay * p
        m = beta1 * m + (1 - beta1) * d
        u = max(beta2 * u, abs(d) + eps)
        p = p - lr / (1 - beta1**t) * m / u

    Names, defaults and formulas are PyTorch's. The rule is written with NumPy: compiled training loops and exports to C
    do not have it.

    References
    ----------
    .. [1] D. P. Kingma and J. Ba, "Adam: A method for stochastic optimization", ICLR 2015.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import Adamax
    >>> x = Value(5.0)
    >>> optimizer = Adamax([x], lr=0.5)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     ((x - 1.0) ** 2).backward()
    ...     optimizer.step()
    >>> round(x.data, 1)
    1.0
    """

    _checks = {"lr": non_negative, "betas": pair_of_betas, "eps": non_negative, "weight_decay": non_negative,
               "maximize": flag}
    _keeps = ("step", "exp_avg", "exp_inf")
    _not_below_0 = ("exp_inf",)

    def __init__(self, params: Params, lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, *, maximize: bool = False) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize)

    def _change(self, parameters: Parameters, state: State, x: Array, g: Array, lr: float, *,
                betas: tuple[float, float], eps: float, weight_decay: float, maximize: bool) -> tuple[Array, State]:
        t = state.get("step", 0) + 1
        x, d = descent(x, g, lr, weight_decay, False, maximize)
        m = mean(self._start(parameters, state, "exp_avg", lr), d, 1.0 - betas[0])
        u = np.maximum(self._start(parameters, state, "exp_inf", lr) * betas[1], np.abs(d) + eps)
        return x - lr / (1.0 - betas[0] ** t) * m / u, {"step": t, "exp_avg": m, "exp_inf": u}


def pair_of_etas(name: str, etas: Any) -> tuple[float, float]:
    """Rprop's `etas` as a pair of floats."""
    smaller, larger = pair_of(name, etas)
    if not 0.0 < smaller < 1.0 < larger:
        raise ArgumentError(f"{name}: expected a number between 0 and 1, and one above 1, got {etas!r}")
    return smaller, larger


def pair_of_sizes(name: str, sizes: Any) -> tuple[float, float]:
    """Rprop's `step_sizes` as a pair of floats."""
    least, most = pair_of(name, sizes)
    if not 0.0 <= least <= most:
        raise ArgumentError(f"{name}: expected two numbers of 0 or more, the smaller one first, got {sizes!r}")
    return least, most


def pair_of(name: str, numbers: Any) -> tuple[float, float]:
    """A pair of finite floats."""
    try:
        first, second = numbers
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{name}: expected a pair of numbers, got {numbers!r}") from None
    return finite(f"{name}[0]", first), finite(f"{name}[1]", second)


class Rprop(ArrayRule):
    """Steps by the sign of the gradient, with a length for each parameter that grows while the sign stays the same.

    For gradients of all samples at once: in small batches the signs change by chance.

    Parameters
    ----------
    params : iterable of Value and Tensor, or iterable of dict
        As for `Optimizer`.
    lr : float, optional
        The length of the first step, 0 or more. It has no effect later.
    etas : pair of float, optional
        The factor of the length after the sign has changed, between 0 and 1, and while it stays the same, above 1.
    step_sizes : pair of float, optional
        The smallest and the largest length, 0 or more.
    maximize : bool, optional
        Whether to maximize: the sign of the gradient is turned.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; numbers have to be finite.

    See Also
    --------
    Optimizer : attributes, groups, copies and pickles.

    Notes
    -----
    For the parameter p and its gradient, with s initially `lr` and before initially 0 [1]_::

        same = sign(gradient * before)
        s = s * (etas[1]  if same > 0 else  etas[0]  if same < 0 else  1), at least step_sizes[0], at most step_sizes[1]
        before = 0  if same < 0 else  gradient
        p = p - s * sign(before)

    Names, defaults and formulas are PyTorch's; the sign of nan is 0. The rule is written with NumPy: compiled training
    loops and exports to C do not have it.

    References
    ----------
    .. [1] M. Riedmiller and H. Braun, "A direct adaptive method for faster backpropagation learning: the RPROP
       algorithm", IEEE International Conference on Neural Networks, 1993.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import Rprop
    >>> x = Value(5.0)
    >>> optimizer = Rprop([x])
    >>> for _ in range(60):
    ...     optimizer.zero_grad()
    ...     ((x - 1.0) ** 2).backward()
    ...     optimizer.step()
    >>> round(x.data, 3)
    1.0
    """

    _checks = {"lr": non_negative, "etas": pair_of_etas, "step_sizes": pair_of_sizes, "maximize": flag}
    _keeps = ("step", "prev", "step_size")
    _not_below_0 = ("step_size",)

    def __init__(self, params: Params, lr: float = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
                 step_sizes: tuple[float, float] = (1e-6, 50.0), *, maximize: bool = False) -> None:
        super().__init__(params, lr=lr, etas=etas, step_sizes=step_sizes, maximize=maximize)

    def _start(self, parameters: Parameters, state: State, name: str, lr: float) -> Array:
        found: Array = kept(dict(state), name, parameters, lr if name == "step_size" else 0.0)
        return found

    def _change(self, parameters: Parameters, state: State, x: Array, g: Array, lr: float, *,
                etas: tuple[float, float], step_sizes: tuple[float, float],
                maximize: bool) -> tuple[Array, State]:
        g = -g if maximize else g
        same = g * self._start(parameters, state, "prev", lr)
        factor = np.where(same > 0.0, etas[1], np.where(same < 0.0, etas[0], 1.0))
        size = np.clip(self._start(parameters, state, "step_size", lr) * factor, *step_sizes)
        g = np.where(same < 0.0, 0.0, g)
        sign = (g > 0.0).astype(float) - (g < 0.0)
        return x - sign * size, {"step": state.get("step", 0) + 1, "prev": g, "step_size": size}
