"""Schedules of the learning rate: PyTorch's names, arguments, defaults and numbers.

Make a scheduler after its optimizer; the scheduler sets the optimizer's learning rates at once. Call its ``step()``
after the optimizer's, once for each epoch or once for each batch. "Epoch" below is the number of the scheduler's steps.

Most schedulers compute the next learning rate from the current one, as PyTorch's do. So the factors of several
schedulers on one optimizer multiply, and a learning rate that a program sets by hand has an effect.
"""
from __future__ import annotations

import copy
import math
import sys
from bisect import bisect_right

from flatgrad._core import Value
from flatgrad.arguments import finite, flag, non_negative, one_of, positive, real, shortened, whole, within
from flatgrad.descent import parts_of
from flatgrad.errors import ArgumentError, ArgumentTypeError, StateError
from flatgrad.optim.optimizers import MOST_STEPS, Optimizer, described, expect_keys, up_to_one

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Literal

    from flatgrad._core import _Number

__all__ = ["LRScheduler", "LambdaLR", "MultiplicativeLR", "StepLR", "MultiStepLR", "ConstantLR", "LinearLR",
           "PolynomialLR", "ExponentialLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "SequentialLR",
           "ChainedScheduler", "CyclicLR", "OneCycleLR", "ReduceLROnPlateau"]


def count(name: str, value: int, low: int = 0, most: int = sys.maxsize) -> int:
    """`value` as an int from `low` to `most`."""
    result = whole(name, value, low)
    if result > most:
        raise ArgumentError(f"{name}: expected an int, {most} at most, got {shortened(value)}")
    return result


class LRScheduler:
    """The base class of schedulers. A class of your own defines ``get_lr()``.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    last_epoch : int, optional
        -1 for a new schedule. To continue another scheduler, its `last_epoch`; the groups of the optimizer then need
        the key ``'initial_lr'``, which the optimizer's state dict contains.
    **settings
        The settings of the schedule: attributes of the scheduler and part of its state.

    Attributes
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    last_epoch : int
        The number of steps so far.
    base_lrs : list of float
        The initial learning rate of each group.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described. The optimizer does not change then.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import LRScheduler
    >>> class Inverse(LRScheduler):
    ...     def get_lr(self):
    ...         return [lr / (1 + self.last_epoch) for lr in self.base_lrs]
    >>> optimizer = SGD([Value(1.0)], lr=0.5)
    >>> scheduler = Inverse(optimizer)
    >>> for _ in range(3):
    ...     print(scheduler.get_last_lr())
    ...     optimizer.step()
    ...     scheduler.step()
    [0.5]
    [0.25]
    [0.16666666666666666]
    """

    optimizer: Optimizer
    last_epoch: int
    base_lrs: list[float]

    _checks = {}       # name of a setting -> its check, which is also applied to state dicts
    _beginning = False   # whether the constructor is setting the first learning rate
    _by_metric = False   # whether step() takes a metric

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1, **settings: Any) -> None:
        self.optimizer = checked_optimizer(optimizer)
        for name, value in settings.items():
            setattr(self, name, self._checks[name](name, value) if name in self._checks else value)
        self.last_epoch = count("last_epoch", last_epoch, -1, MOST_STEPS)
        groups = optimizer.param_groups
        before = [dict(group) for group in groups]
        try:
            self._begin(groups)
        except BaseException:
            for group, old in zip(groups, before):
                group.clear()
                group.update(old)
            raise

    def _begin(self, groups):
        """Set the first learning rates."""
        for k, group in enumerate(groups):
            if self.last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ArgumentError(f"last_epoch: expected -1, or param_groups[{k}] with the key 'initial_lr', which "
                                    f"the optimizer's state dict brings, got {self.last_epoch}")
        self.base_lrs = [non_negative(f"param_groups[{k}]['initial_lr']", group["initial_lr"])
                         for k, group in enumerate(groups)]
        self._beginning = True
        try:
            self._go_to(self.last_epoch + 1, self.get_lr)
        finally:
            del self._beginning

    def step(self) -> None:
        """Set the learning rates of the next epoch."""
        self._go_to(self.last_epoch + 1, self.get_lr)

    def _restart(self):
        """Go to epoch 0 at any learning rates, for `SequentialLR`."""
        self._go_to(0, getattr(self, "_first_lr", self.get_lr))

    def _go_to(self, epoch, get_lr):
        groups, before = self.optimizer.param_groups, self.last_epoch
        if len(groups) != len(self.base_lrs):
            raise ArgumentError(f"optimizer: expected {len(self.base_lrs)} parameter groups, as when the scheduler was "
                                f"made, got {len(groups)}")
        self.last_epoch = epoch
        try:
            rates = list(get_lr())
            if len(rates) != len(groups):
                raise ArgumentError(f"get_lr(): expected a learning rate for each of {len(groups)} groups, got {rates}")
            rates = [non_negative(f"learning rate of param_groups[{k}] in epoch {epoch}", lr)
                     for k, lr in enumerate(rates)]
            others = self._other_changes()
        except BaseException:
            self.last_epoch = before
            raise
        for group, lr in zip(groups, rates):
            group["lr"] = lr
        for group, changes in zip(groups, others):
            group.update(changes)
        self._last_lr = rates

    def _other_changes(self):
        """The other changes in each group: dicts, or an empty list."""
        return ()

    def get_lr(self) -> list[float]:
        """The learning rates of epoch `last_epoch`, one for each group."""
        raise NotImplementedError(f"{type(self).__name__} has no get_lr()")

    def _rates(self):
        """The current learning rates."""
        return [non_negative(f"param_groups[{k}]['lr']", group["lr"])
                for k, group in enumerate(self.optimizer.param_groups)]

    def get_last_lr(self) -> list[float]:
        """The learning rates that were set last, one for each group.

        Returns
        -------
        list of float
        """
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """The state for continuing later, with an optimizer that has its own state.

        Returns
        -------
        dict
            Numbers, strings and lists of them. Functions are not included.
        """
        return {name: copy.deepcopy(value) for name, value in vars(self).items()
                if name not in ("optimizer", *self._not_saved)}

    _not_saved = ()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state. The optimizer's own state contains its learning rates.

        Parameters
        ----------
        state_dict : dict
            The result of `state_dict`, from a scheduler of the same class for the same number of groups.

        Raises
        ------
        StateError
            If `state_dict` is not as described. The scheduler does not change then.
        """
        own = self.state_dict()
        expect_keys("state_dict", state_dict, list(own))
        loaded = {}
        for name, value in state_dict.items():
            label = f"state_dict[{name!r}]"
            try:
                if name in self._checks:
                    value = self._checks[name](label, value)
                elif name == "last_epoch":
                    value = count(label, value, -1, MOST_STEPS)   # -1 within a SequentialLR, before its turn
                elif name in ("base_lrs", "_last_lr"):
                    value = numbers_for_groups(label, value, self.optimizer, one_for_all=False)
                else:
                    value = copy.deepcopy(value)
            except (ArgumentError, ArgumentTypeError) as error:
                raise StateError(str(error)) from None
            loaded[name] = value
        vars(self).update(loaded)

    def __repr__(self) -> str:
        settings = "".join(f", {name}={getattr(self, name)!r}" for name in self._checks if name in vars(self))
        return f"{type(self).__name__}(last_epoch={self.last_epoch}{settings})"


class LambdaLR(LRScheduler):
    """The initial learning rate times a function of the epoch.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    lr_lambda : callable or list of callable
        The factor for an epoch, an int from 0 on; or a list with one for each group.
    last_epoch : int, optional
        As for `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or a learning rate is not finite and 0 or more.

    Notes
    -----
    ``lr = initial_lr * lr_lambda(epoch)``. The functions are not part of the state dict.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import LambdaLR
    >>> scheduler = LambdaLR(SGD([Value(1.0)], lr=1.0), lambda epoch: 0.5**epoch)
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    _not_saved = ("lr_lambdas",)

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
                 last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch, lr_lambdas=functions_for_groups("lr_lambda", lr_lambda, optimizer))

    def get_lr(self) -> list[float]:
        return [lr * finite(f"lr_lambda({self.last_epoch})", factor(self.last_epoch))
                for lr, factor in zip(self.base_lrs, self.lr_lambdas)]


class MultiplicativeLR(LRScheduler):
    """The learning rate is multiplied by a function of the epoch, in every epoch.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    lr_lambda : callable or list of callable
        The factor for an epoch, an int from 1 on; or a list with one for each group.
    last_epoch : int, optional
        As for `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or a learning rate is not finite and 0 or more.

    Notes
    -----
    ``lr = initial_lr * lr_lambda(1) * lr_lambda(2) * ... * lr_lambda(epoch)``. The functions are not part of the state
    dict.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import MultiplicativeLR
    >>> scheduler = MultiplicativeLR(SGD([Value(1.0)], lr=1.0), lambda epoch: 1 / (1 + epoch))
    >>> scheduler.step()
    >>> scheduler.step()
    >>> round(scheduler.get_last_lr()[0], 6)
    0.166667
    """

    _not_saved = ("lr_lambdas",)

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
                 last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch, lr_lambdas=functions_for_groups("lr_lambda", lr_lambda, optimizer))

    def get_lr(self) -> list[float]:
        if self._beginning:
            return self._rates()
        return [lr * finite(f"lr_lambda({self.last_epoch})", factor(self.last_epoch))
                for lr, factor in zip(self._rates(), self.lr_lambdas)]

    def _first_lr(self) -> list[float]:
        return [lr * finite("lr_lambda(0)", factor(0)) for lr, factor in zip(self._rates(), self.lr_lambdas)]


class StepLR(LRScheduler):
    """The learning rate is multiplied by gamma every `step_size` epochs.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    step_size : int
        The number of epochs between changes, 1 or more.
    gamma : float, optional
        The factor, 0 or more.
    last_epoch : int, optional
        As for `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    ``lr = initial_lr * gamma**(epoch // step_size)``

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import StepLR
    >>> scheduler = StepLR(SGD([Value(1.0)], lr=1.0), step_size=2, gamma=0.5)
    >>> for _ in range(4):
    ...     scheduler.step()
    >>> scheduler.get_last_lr()
    [0.25]
    """

    _checks = {"step_size": lambda name, value: count(name, value, 1), "gamma": non_negative}

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch, step_size=step_size, gamma=gamma)

    def get_lr(self) -> list[float]:
        now = self.last_epoch != 0 and self.last_epoch % self.step_size == 0
        return [lr * self.gamma if now else lr for lr in self._rates()]

    def _first_lr(self):
        return self.base_lrs


class MultiStepLR(LRScheduler):
    """The learning rate is multiplied by gamma at given epochs.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    milestones : iterable of int
        The epochs, 0 or more. An epoch that occurs twice counts twice.
    gamma : float, optional
        The factor, 0 or more.
    last_epoch : int, optional
        As for `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    ``lr = initial_lr * gamma**n`` after n milestones.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import MultiStepLR
    >>> scheduler = MultiStepLR(SGD([Value(1.0)], lr=1.0), milestones=[1, 3], gamma=0.5)
    >>> for _ in range(4):
    ...     scheduler.step()
    >>> scheduler.get_last_lr()
    [0.25]
    """

    _checks = {"milestones": lambda name, value: sorted(whole_numbers(name, value)), "gamma": non_negative}

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1,
                 last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch, milestones=milestones, gamma=gamma)

    def get_lr(self) -> list[float]:
        factor = self.gamma ** self.milestones.count(self.last_epoch)
        return [lr * factor for lr in self._rates()]

    def _first_lr(self):
        return [lr * self.gamma ** self.milestones.count(0) for lr in self.base_lrs]


class ConstantLR(LRScheduler):
    """A smaller learning rate during the first epochs.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    factor : float, optional
        The factor, above 0 and up to 1.
    total_iters : int, optional
        The number of epochs with the smaller learning rate.
    last_epoch : int, optional
        As for `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import ConstantLR
    >>> scheduler = ConstantLR(SGD([Value(1.0)], lr=1.0), factor=0.5, total_iters=2)
    >>> scheduler.get_last_lr()
    [0.5]
    >>> scheduler.step()
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [1.0]
    """

    _checks = {"factor": lambda name, value: fraction(name, value), "total_iters": count}

    def __init__(self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5,
                 last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch, factor=factor, total_iters=total_iters)

    def get_lr(self) -> list[float]:
        factor = 1.0
        if self.last_epoch == 0:
            factor = self.factor
        elif self.last_epoch == self.total_iters:
            factor = 1.0 / self.factor
        return [lr * factor for lr in self._rates()]

    def _first_lr(self):
        return [lr * (self.factor if self.total_iters else 1.0) for lr in self.base_lrs]


class LinearLR(LRScheduler):
    """A learning rate that changes linearly from one factor to another, and then stays.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    start_factor : float, optional
        The factor in epoch 0, above 0 and up to 1.
    end_factor : float, optional
        The factor from epoch `total_iters` on, from 0 to 1.
    total_iters : int, optional
        The number of epochs of the change.
    last_epoch : int, optional
        As for `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    ``lr = initial_lr * (start_factor + (end_factor - start_factor) * min(1, epoch / total_iters))``

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import LinearLR
    >>> scheduler = LinearLR(SGD([Value(1.0)], lr=1.0), start_factor=0.5, total_iters=2)
    >>> for _ in range(3):
    ...     print(scheduler.get_last_lr())
    ...     scheduler.step()
    [0.5]
    [0.75]
    [1.0]
    """

    _checks = {"start_factor": lambda name, value: fraction(name, value), "end_factor": up_to_one, "total_iters": count}

    def __init__(self, optimizer: Optimizer, start_factor: float = 1.0 / 3, end_factor: float = 1.0,
                 total_iters: int = 5, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch, start_factor=start_factor, end_factor=end_factor,
                         total_iters=total_iters)

    def get_lr(self) -> list[float]:
        epoch, factor = self.last_epoch, 1.0
        if epoch == 0:
            factor = self.start_factor
        elif epoch <= self.total_iters and not self._beginning:
            rise = self.end_factor - self.start_factor
            # On the way to 0, rounding would give a learning rate a little below 0.
            factor = max(0.0, 1.0 + rise / (self.total_iters * self.start_factor + (epoch - 1) * rise))
        return [lr * factor for lr in self._rates()]

    def _first_lr(self):
        return [lr * self.start_factor for lr in self.base_lrs]


class PolynomialLR(LRScheduler):
    """A learning rate that falls to 0 like a power of the epochs that are left.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    total_iters : int, optional
        The number of epochs of the fall, 1 or more.
    power : float, optional
        The power, 0 or more.
    last_epoch : int, optional
        As for `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    ``lr = initial_lr * (1 - min(1, epoch / total_iters))**power``

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import PolynomialLR
    >>> scheduler = PolynomialLR(SGD([Value(1.0)], lr=1.0), total_iters=4, power=2.0)
    >>> for _ in range(4):
    ...     scheduler.step()
    ...     print(round(scheduler.get_last_lr()[0], 6))
    0.5625
    0.25
    0.0625
    0.0
    """

    _checks = {"total_iters": lambda name, value: count(name, value, 1), "power": non_negative}

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch, total_iters=total_iters, power=power)

    def get_lr(self) -> list[float]:
        epoch, total = self.last_epoch, self.total_iters
        if self._beginning or epoch == 0 or epoch > total:
            return self._rates()
        factor = ((1.0 - epoch / total) / (1.0 - (epoch - 1) / total)) ** self.power
        return [lr * factor for lr in self._rates()]

    def _first_lr(self) -> list[float]:
        return list(self.base_lrs)


class ExponentialLR(LRScheduler):
    """The learning rate is multiplied by gamma every epoch.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    gamma : float
        The factor, 0 or more.
    last_epoch : int, optional
        As for `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    ``lr = initial_lr * gamma**epoch``

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import ExponentialLR
    >>> scheduler = ExponentialLR(SGD([Value(1.0)], lr=1.0), gamma=0.5)
    >>> scheduler.step()
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.25]
    """

    _checks = {"gamma": non_negative}

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch, gamma=gamma)

    def get_lr(self) -> list[float]:
        return [lr if self._beginning else lr * self.gamma for lr in self._rates()]

    def _first_lr(self):
        return self.base_lrs


class CosineAnnealingLR(LRScheduler):
    """A learning rate that falls to `eta_min` in `T_max` epochs, along half a cosine, and then rises again.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    T_max : int
        The number of epochs of the fall, 1 or more.
    eta_min : float, optional
        The smallest learning rate, 0 or more.
    last_epoch : int, optional
        As for `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    ``lr = eta_min + (initial_lr - eta_min) * (1 + cos(pi * epoch / T_max)) / 2``, as in [1]_ without restarts. Each
    learning rate is computed from the one before.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "SGDR: Stochastic gradient descent with warm restarts", ICLR 2017.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import CosineAnnealingLR
    >>> scheduler = CosineAnnealingLR(SGD([Value(1.0)], lr=1.0), T_max=4)
    >>> for _ in range(5):
    ...     print(round(scheduler.get_last_lr()[0], 3))
    ...     scheduler.step()
    1.0
    0.854
    0.5
    0.146
    0.0
    """

    _checks = {"T_max": lambda name, value: count(name, value, 1), "eta_min": non_negative}

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch, T_max=T_max, eta_min=eta_min)

    def get_lr(self) -> list[float]:
        rates, least, epoch = self._rates(), self.eta_min, self.last_epoch
        if self._beginning:
            return rates
        if (epoch - 1) % (2 * self.T_max) == self.T_max:   # up from the minimum, where the ratio below is 0 / 0
            rise = (1.0 - math.cos(math.pi / self.T_max)) / 2.0
            return [lr + (base - least) * rise for lr, base in zip(rates, self.base_lrs)]
        ratio = (1.0 + math.cos(math.pi * epoch / self.T_max)) / (1.0 + math.cos(math.pi * (epoch - 1) / self.T_max))
        return [ratio * (lr - least) + least for lr in rates]

    def _first_lr(self):
        return self.base_lrs


class CosineAnnealingWarmRestarts(LRScheduler):
    """A learning rate that falls to `eta_min` along half a cosine, again and again from the beginning.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    T_0 : int
        The number of epochs of the first fall, 1 or more.
    T_mult : int, optional
        Each fall takes so many times the epochs of the one before, 1 or more.
    eta_min : float, optional
        The smallest learning rate, 0 or more.
    last_epoch : int, optional
        As for `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    ``lr = eta_min + (initial_lr - eta_min) * (1 + cos(pi * n / T)) / 2``, n epochs after the last restart, where T is
    the number of epochs between restarts [1]_. PyTorch's ``step(epoch)`` with a fraction of an epoch is missing. A
    schedule that is made with a `last_epoch` begins there; PyTorch's begins with a fall of its own.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "SGDR: Stochastic gradient descent with warm restarts", ICLR 2017.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import CosineAnnealingWarmRestarts
    >>> scheduler = CosineAnnealingWarmRestarts(SGD([Value(1.0)], lr=1.0), T_0=2, T_mult=2)
    >>> for _ in range(7):
    ...     print(round(scheduler.get_last_lr()[0], 3))
    ...     scheduler.step()
    1.0
    0.5
    1.0
    0.854
    0.5
    0.146
    1.0
    """

    _checks = {"T_0": lambda name, value: count(name, value, 1), "T_mult": lambda name, value: count(name, value, 1),
               "eta_min": non_negative}

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0,
                 last_epoch: int = -1) -> None:
        super().__init__(optimizer, last_epoch, T_0=T_0, T_mult=T_mult, eta_min=eta_min)

    def get_lr(self) -> list[float]:
        since, length = self.last_epoch, self.T_0
        if self.T_mult == 1:
            since %= length
        while since >= length:
            since -= length
            length *= self.T_mult
        part = (1.0 + math.cos(math.pi * since / length)) / 2.0
        return [self.eta_min + (lr - self.eta_min) * part for lr in self.base_lrs]


class SequentialLR(LRScheduler):
    """Several schedulers, one after the other.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    schedulers : list of LRScheduler
        The schedulers in order, made for this optimizer; no ReduceLROnPlateau, SequentialLR or ChainedScheduler.
    milestones : list of int
        The epochs at which the second and later schedulers begin, in rising order.
    last_epoch : int, optional
        Only -1; use `load_state_dict` to continue from another epoch.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Each scheduler begins with its epoch 0 and the initial learning rates of the groups.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import ConstantLR, ExponentialLR, SequentialLR
    >>> optimizer = SGD([Value(1.0)], lr=1.0)
    >>> scheduler = SequentialLR(optimizer, [ConstantLR(optimizer, 0.125, 9), ExponentialLR(optimizer, 0.5)], [2])
    >>> for _ in range(4):
    ...     print(scheduler.get_last_lr())
    ...     scheduler.step()
    [0.125]
    [0.125]
    [1.0]
    [0.5]
    """

    optimizer: Optimizer
    last_epoch: int
    base_lrs: list[float]

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int],
                 last_epoch: int = -1) -> None:
        self.optimizer = checked_optimizer(optimizer)
        schedulers = list(schedulers)
        for k, each in enumerate(schedulers):
            if not isinstance(each, LRScheduler) or isinstance(each, (ReduceLROnPlateau, SequentialLR,
                                                                      ChainedScheduler)):
                raise ArgumentTypeError(f"schedulers[{k}]: expected a scheduler, but no ReduceLROnPlateau, SequentialLR"
                                        f" or ChainedScheduler, got {each!r}")
            if each.optimizer is not optimizer:
                raise ArgumentError(f"schedulers[{k}]: expected a scheduler of the same optimizer, got {each!r}")
        milestones = whole_numbers("milestones", milestones)
        if not schedulers or len(milestones) != len(schedulers) - 1:
            raise ArgumentError("milestones: expected one for each scheduler but the first, got "
                                f"{len(milestones)} for {len(schedulers)} schedulers")
        if milestones != sorted(set(milestones)) or milestones[:1] == [0]:
            raise ArgumentError(f"milestones: expected epochs above 0 that rise, got {milestones}")
        if last_epoch != -1:
            raise ArgumentError(f"last_epoch: expected -1, got {last_epoch!r}; load_state_dict() goes on elsewhere")
        self._schedulers, self._milestones, self.last_epoch = schedulers, milestones, 0
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for each in schedulers:
            each.last_epoch = -1
        schedulers[0]._begin(optimizer.param_groups)
        self.base_lrs, self._last_lr = list(schedulers[0].base_lrs), schedulers[0].get_last_lr()

    def step(self) -> None:
        """Set the learning rates of the next epoch."""
        epoch = self.last_epoch + 1
        at = bisect_right(self._milestones, epoch)
        if at and self._milestones[at - 1] == epoch:
            self._schedulers[at]._restart()
        else:
            self._schedulers[at].step()
        self.last_epoch, self._last_lr = epoch, self._schedulers[at].get_last_lr()

    _not_saved = ("_schedulers",)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_schedulers": [each.state_dict() for each in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        expect_keys("state_dict", state_dict, list(self.state_dict()))
        own = {name: value for name, value in state_dict.items() if name not in ("_schedulers", "_milestones")}
        states, milestones = state_dict["_schedulers"], state_dict["_milestones"]
        before = []
        try:
            if not isinstance(states, (list, tuple)) or len(states) != len(self._schedulers) \
                    or whole_numbers("state_dict['_milestones']", milestones) != self._milestones:
                raise StateError(f"state_dict: expected {len(self._schedulers)} schedulers with the milestones "
                                 f"{self._milestones}, got {described(states)} with {milestones!r}")
            own["last_epoch"] = count("state_dict['last_epoch']", own["last_epoch"], 0, MOST_STEPS)
            for name in ("base_lrs", "_last_lr"):
                own[name] = numbers_for_groups(f"state_dict[{name!r}]", own[name], self.optimizer, one_for_all=False)
            for each, state in zip(self._schedulers, states):
                before.append((each, each.state_dict()))
                each.load_state_dict(state)
            vars(self).update(own)
        except BaseException as error:
            for each, state in before:
                each.load_state_dict(state)
            if isinstance(error, (ArgumentError, ArgumentTypeError)):
                raise StateError(str(error)) from None
            raise


class ChainedScheduler(LRScheduler):
    """Several schedulers at the same time: each changes what the others leave.

    Parameters
    ----------
    schedulers : list of LRScheduler
        The schedulers, made for one optimizer; no ReduceLROnPlateau.
    optimizer : Optimizer, optional
        The optimizer of the schedulers.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import ChainedScheduler, ConstantLR, ExponentialLR
    >>> optimizer = SGD([Value(1.0)], lr=1.0)
    >>> scheduler = ChainedScheduler([ConstantLR(optimizer, 0.5, 2), ExponentialLR(optimizer, 0.5)])
    >>> for _ in range(4):
    ...     print(scheduler.get_last_lr())
    ...     scheduler.step()
    [0.5]
    [0.25]
    [0.25]
    [0.125]
    """

    _not_saved = ("_schedulers",)

    def __init__(self, schedulers: Iterable[LRScheduler], optimizer: Optimizer | None = None) -> None:
        try:
            schedulers = list(schedulers)
        except TypeError:
            raise ArgumentTypeError(f"schedulers: expected a list of schedulers, got {schedulers!r}") from None
        if not schedulers:
            raise ArgumentError("schedulers: expected one at least, got none")
        for k, each in enumerate(schedulers):
            if not isinstance(each, LRScheduler) or each._by_metric:
                raise ArgumentTypeError(f"schedulers[{k}]: expected a scheduler, but no ReduceLROnPlateau, got "
                                        f"{each!r}")
        self.optimizer = checked_optimizer(schedulers[0].optimizer if optimizer is None else optimizer)
        for k, each in enumerate(schedulers):
            if each.optimizer is not self.optimizer:
                raise ArgumentError(f"schedulers[{k}]: expected a scheduler of the same optimizer, got {each!r}")
        self._schedulers, self.last_epoch = schedulers, 0
        self.base_lrs, self._last_lr = list(schedulers[0].base_lrs), self._rates()

    def step(self) -> None:
        """Set the learning rates of the next epoch."""
        before = [(group, dict(group)) for group in self.optimizer.param_groups]
        before += [(vars(each), dict(vars(each))) for each in parts_of(self)]
        try:
            for each in self._schedulers:
                each.step()
        except BaseException:
            restore(before)
            raise
        self.last_epoch, self._last_lr = self.last_epoch + 1, self._rates()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_schedulers": [each.state_dict() for each in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        expect_keys("state_dict", state_dict, list(self.state_dict()))
        states = state_dict["_schedulers"]
        if not isinstance(states, (list, tuple)) or len(states) != len(self._schedulers):
            raise StateError(f"state_dict['_schedulers']: expected a list of {len(self._schedulers)} states, got "
                             f"{described(states)}")
        before = [(vars(each), dict(vars(each))) for each in parts_of(self)]
        try:
            own = {"last_epoch": count("state_dict['last_epoch']", state_dict["last_epoch"], 0, MOST_STEPS)}
            for name in ("base_lrs", "_last_lr"):
                own[name] = numbers_for_groups(f"state_dict[{name!r}]", state_dict[name], self.optimizer,
                                               one_for_all=False)
            for each, state in zip(self._schedulers, states):
                each.load_state_dict(state)
            vars(self).update(own)
        except BaseException as error:
            restore(before)
            if isinstance(error, (ArgumentError, ArgumentTypeError)):
                raise StateError(str(error)) from None
            raise


class CyclicLR(LRScheduler):
    """Cycles of the learning rate: it rises from `base_lr` to `max_lr` and falls again, in straight lines.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    base_lr, max_lr : float or list of float
        The smallest and the largest learning rate, for all groups or one for each.
    step_size_up : int, optional
        The number of steps of a rise, 1 or more.
    step_size_down : int, optional
        The number of steps of a fall, 1 or more. None: `step_size_up`.
    mode : {'triangular', 'triangular2', 'exp_range'}, optional
        Whether all cycles have the same height, each has half the height of the one before, or the height is multiplied
        by ``gamma**step``.
    gamma : float, optional
        For 'exp_range', 0 or more.
    scale_fn : callable, optional
        The factor of the height, instead of `mode`: a function of the number of the cycle, from 1 on, or of the step.
        Not part of the state dict.
    scale_mode : {'cycle', 'iterations'}, optional
        Whether `scale_fn` is a function of the cycle or of the step.
    cycle_momentum : bool, optional
        Whether `momentum`, or the first of `betas`, falls from `max_momentum` to `base_momentum` and rises
        again. The optimizer then needs one of these hyperparameters.
    base_momentum, max_momentum : float or list of float, optional
        One number for all groups, or one for each, from 0 to below 1.
    last_epoch : int, optional
        As for `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or a learning rate is not finite and 0 or more.

    Notes
    -----
    Defaults and numbers are PyTorch's. "Epoch" is mostly the number of batches here.

    References
    ----------
    .. [1] L. N. Smith, "Cyclical learning rates for training neural networks", WACV 2017.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import CyclicLR
    >>> optimizer = SGD([Value(1.0)], momentum=0.9)
    >>> scheduler = CyclicLR(optimizer, base_lr=0.25, max_lr=1.25, step_size_up=2)
    >>> for _ in range(5):
    ...     print(scheduler.get_last_lr(), round(optimizer.param_groups[0]["momentum"], 3))
    ...     scheduler.step()
    [0.25] 0.9
    [0.75] 0.85
    [1.25] 0.8
    [0.75] 0.85
    [0.25] 0.9
    """

    _checks = {"step_size_up": lambda name, value: count(name, value, 1),
               "step_size_down": lambda name, value: count(name, value, 1),
               "mode": lambda name, value: one_of(name, value, ["triangular", "triangular2", "exp_range"]),
               "gamma": non_negative, "scale_mode": lambda name, value: one_of(name, value, ["cycle", "iterations"]),
               "cycle_momentum": flag}
    _not_saved = ("scale_fn",)
    _of_groups = {"max_lrs": non_negative, "base_momentums": lambda name, value: below_one(name, value),
                  "max_momentums": lambda name, value: below_one(name, value)}

    def __init__(self, optimizer: Optimizer, base_lr: float | Sequence[float], max_lr: float | Sequence[float],
                 step_size_up: int = 2000, step_size_down: int | None = None, mode: str = "triangular",
                 gamma: float = 1.0, scale_fn: Callable[[int], float] | None = None, scale_mode: str = "cycle",
                 cycle_momentum: bool = True, base_momentum: float | Sequence[float] = 0.8,
                 max_momentum: float | Sequence[float] = 0.9, last_epoch: int = -1) -> None:
        checked_optimizer(optimizer)
        base_lrs = numbers_for_groups("base_lr", base_lr, optimizer)
        self.max_lrs = numbers_for_groups("max_lr", max_lr, optimizer)
        self.base_momentums = numbers_for_groups("base_momentum", base_momentum, optimizer, below_one)
        self.max_momentums = numbers_for_groups("max_momentum", max_momentum, optimizer, below_one)
        if flag("cycle_momentum", cycle_momentum):
            momentum_of(optimizer)
        if scale_fn is not None and not callable(scale_fn):
            raise ArgumentTypeError(f"scale_fn: expected None or a callable, got {scale_fn!r}")
        self.scale_fn, self._starts = scale_fn, base_lrs
        try:
            super().__init__(optimizer, last_epoch, step_size_up=step_size_up,
                             step_size_down=step_size_up if step_size_down is None else step_size_down, mode=mode,
                             gamma=gamma, scale_mode=scale_mode, cycle_momentum=cycle_momentum)
        finally:
            del self._starts

    def _begin(self, groups: list[dict[str, Any]]) -> None:
        if self.last_epoch == -1:
            for k, group in enumerate(groups):
                group["lr"] = self._starts[k]
                if self.cycle_momentum:
                    group.update(max_momentum=self.max_momentums[k], base_momentum=self.base_momentums[k])
        super()._begin(groups)
        self.base_lrs = self._starts   # as in PyTorch, which begins at 'initial_lr' if a group has this key

    def _heights(self) -> float:
        """How much of the way from the smallest to the largest learning rate is done."""
        up, down = float(self.step_size_up), float(self.step_size_down)
        cycles = self.last_epoch / (up + down)
        cycle = math.floor(1.0 + cycles)
        part, rise = 1.0 + cycles - cycle, up / (up + down)
        part = part / rise if part <= rise else (part - 1.0) / (rise - 1.0)
        if self.scale_fn is not None:
            at = cycle if self.scale_mode == "cycle" else self.last_epoch
            return part * finite(f"scale_fn({at})", self.scale_fn(at))
        if self.mode == "exp_range":
            return part * self.gamma ** self.last_epoch
        return part / 2.0 ** (cycle - 1) if self.mode == "triangular2" else part

    def get_lr(self) -> list[float]:
        height = self._heights()
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs)]

    def _other_changes(self) -> Sequence[dict[str, Any]]:
        if not self.cycle_momentum:
            return ()
        height, name, changes = self._heights(), momentum_of(self.optimizer), []
        for group, low, high in zip(self.optimizer.param_groups, self.base_momentums, self.max_momentums):
            momentum = below_one(name, high - (high - low) * height)
            changes.append({name: (momentum, *group["betas"][1:]) if name == "betas" else momentum})
        return changes

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if isinstance(state_dict, dict):
            state_dict = dict(state_dict)
            try:
                for name, check in self._of_groups.items():
                    if name in state_dict:
                        state_dict[name] = numbers_for_groups(f"state_dict[{name!r}]", state_dict[name], self.optimizer,
                                                              check, one_for_all=False)
                if flag("state_dict['cycle_momentum']", state_dict.get("cycle_momentum", False)):
                    momentum_of(self.optimizer)
            except (ArgumentError, ArgumentTypeError) as error:
                raise StateError(str(error)) from None
        super().load_state_dict(state_dict)


class OneCycleLR(LRScheduler):
    """One cycle: the learning rate rises to `max_lr`, then falls far below its initial value; momentum does the
    reverse.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    max_lr : float or list of float
        The largest learning rate, or one for each group.
    total_steps : int, optional
        The number of steps, 1 or more.
    epochs, steps_per_epoch : int, optional
        Instead of `total_steps`: the product of both is `total_steps`.
    pct_start : float, optional
        The share of the steps in which the learning rate rises, from 0 to 1.
    anneal_strategy : {'cos', 'linear'}, optional
        Whether the learning rate changes along half a cosine, or linearly.
    cycle_momentum : bool, optional
        Whether `momentum`, or the first of `betas`, falls from `max_momentum` to `base_momentum` and rises
        again. The optimizer then needs one of these hyperparameters.
    base_momentum, max_momentum : float or list of float, optional
        One number for all groups, or one for each, from 0 to below 1.
    div_factor : float, optional
        The initial learning rate is ``max_lr / div_factor``.
    final_div_factor : float, optional
        The last learning rate is the initial one divided by `final_div_factor`.
    three_phase : bool, optional
        Whether the learning rate first falls as it rose, and then falls to the last value in a third phase.
    last_epoch : int, optional
        As for `LRScheduler`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; ValueError also in a step after `total_steps`.

    Notes
    -----
    Defaults are PyTorch's. As in PyTorch, one step more than the `total_steps` learning rates is allowed; the learning
    rate goes on past the end, but not below 0. The groups get the keys ``'max_lr'``, ``'min_lr'``,
    ``'max_momentum'`` and ``'base_momentum'``, so the optimizer's state dict contains all that is needed to continue.

    References
    ----------
    .. [1] L. N. Smith and N. Topin, "Super-convergence: Very fast training of neural networks using large
       learning rates", arXiv:1708.07120, 2017.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import OneCycleLR
    >>> optimizer = SGD([Value(1.0)], momentum=0.9)
    >>> scheduler = OneCycleLR(optimizer, max_lr=1.0, total_steps=5, pct_start=0.4, anneal_strategy="linear")
    >>> for _ in range(4):
    ...     print(round(scheduler.get_last_lr()[0], 3), round(optimizer.param_groups[0]["momentum"], 3))
    ...     scheduler.step()
    0.04 0.95
    1.0 0.85
    0.667 0.883
    0.333 0.917
    """

    _checks = {"total_steps": lambda name, value: count(name, value, 1), "pct_start": up_to_one,
               "anneal_strategy": lambda name, value: one_of(name, value, ["cos", "linear"]),
               "cycle_momentum": flag, "three_phase": flag}

    def __init__(self, optimizer: Optimizer, max_lr: float | Sequence[float], total_steps: int | None = None,
                 epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
                 anneal_strategy: Literal['cos', 'linear'] = "cos", cycle_momentum: bool = True,
                 base_momentum: float | Sequence[float] = 0.85, max_momentum: float | Sequence[float] = 0.95,
                 div_factor: float = 25.0, final_div_factor: float = 1e4, three_phase: bool = False,
                 last_epoch: int = -1) -> None:
        checked_optimizer(optimizer)
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ArgumentError("total_steps: expected an int, or epochs and steps_per_epoch instead, got "
                                    f"epochs={epochs!r}, steps_per_epoch={steps_per_epoch!r}")
            total_steps = count("epochs", epochs, 1) * count("steps_per_epoch", steps_per_epoch, 1)
        of_groups = {}
        for name, value in (("max_lr", max_lr), ("base_momentum", base_momentum), ("max_momentum", max_momentum)):
            check = non_negative if name == "max_lr" else below_one
            of_groups[name] = numbers_for_groups(name, value, optimizer, check)
        of_groups["initial_lr"] = [lr / positive("div_factor", div_factor) for lr in of_groups["max_lr"]]
        of_groups["min_lr"] = [lr / positive("final_div_factor", final_div_factor) for lr in of_groups["initial_lr"]]
        if flag("cycle_momentum", cycle_momentum):
            momentum_of(optimizer)
        else:
            del of_groups["base_momentum"], of_groups["max_momentum"]
        self._of_groups = of_groups
        try:
            super().__init__(optimizer, last_epoch, total_steps=total_steps, pct_start=pct_start,
                             anneal_strategy=anneal_strategy, cycle_momentum=cycle_momentum, three_phase=three_phase)
        finally:
            del self._of_groups

    def _begin(self, groups):
        for k, group in enumerate(groups):
            if self.last_epoch == -1:
                group.update({name: values[k] for name, values in self._of_groups.items()})
            elif missing := [name for name in self._of_groups if name not in group]:
                raise ArgumentError(f"last_epoch: expected -1, or param_groups[{k}] with the keys {missing}, which the "
                                    f"optimizer's state dict brings, got {self.last_epoch}")
        super()._begin(groups)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        expect_keys("state_dict", state_dict, list(self.state_dict()))
        needed = ["initial_lr", "max_lr", "min_lr"]
        try:
            if flag("state_dict['cycle_momentum']", state_dict["cycle_momentum"]):
                momentum_of(self.optimizer)
                needed += ["max_momentum", "base_momentum"]
        except (ArgumentError, ArgumentTypeError) as error:
            raise StateError(str(error)) from None
        for k, group in enumerate(self.optimizer.param_groups):
            for name in needed:
                if name not in group:
                    raise StateError(f"param_groups[{k}]: expected the key {name!r}, which the state of an optimizer "
                                     f"with this scheduler brings, got the keys {list(group)}")
        super().load_state_dict(state_dict)

    def _phase(self):
        """The current phase: the start and the end of the learning rate and of the momentum, and the part that is
        done."""
        rise = self.pct_start * self.total_steps
        phases = [(rise - 1.0, "initial_lr", "max_lr", "max_momentum", "base_momentum")]
        if self.three_phase:
            phases += [(2.0 * rise - 2.0, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
                       (self.total_steps - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum")]
        else:
            phases += [(self.total_steps - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")]
        start = 0.0
        for end, *names in phases[:-1]:
            if self.last_epoch <= end:
                break
            start = end
        else:
            end, *names = phases[-1]
        return *names, (self.last_epoch - start) / (end - start) if end != start else 1.0

    def _between(self, start, end, part):
        if self.anneal_strategy == "cos":
            return end + (start - end) / 2.0 * (math.cos(math.pi * part) + 1.0)
        return (end - start) * part + start

    def get_lr(self) -> list[float]:
        if self.last_epoch > self.total_steps:
            raise ArgumentError(f"total_steps: expected {self.total_steps} steps at most, got one more")
        start, end, _, _, part = self._phase()
        return [max(0.0, self._between(group[start], group[end], part)) for group in self.optimizer.param_groups]

    def _other_changes(self):
        if not self.cycle_momentum:
            return ()
        _, _, start, end, part = self._phase()
        name = momentum_of(self.optimizer)
        result = []
        for group in self.optimizer.param_groups:
            momentum = self._between(group[start], group[end], part)
            result.append({name: (momentum, *group["betas"][1:]) if name == "betas" else momentum})
        return result


class ReduceLROnPlateau(LRScheduler):
    """A smaller learning rate when a metric has not improved for some epochs.

    Parameters
    ----------
    optimizer : Optimizer
        The optimizer whose learning rates change.
    mode : {'min', 'max'}, optional
        Whether smaller or larger values of the metric are better.
    factor : float, optional
        The factor of a reduction, from 0 to below 1.
    patience : int, optional
        The number of epochs without improvement before a reduction.
    threshold : float, optional
        The smallest improvement on the best value, 0 or more.
    threshold_mode : {'rel', 'abs'}, optional
        Whether `threshold` is a share of the best value or a difference.
    cooldown : int, optional
        The number of epochs after a reduction in which no epoch counts as bad.
    min_lr : float or list of float, optional
        The smallest learning rate, for all groups or one for each.
    eps : float, optional
        A reduction by no more than `eps` is left out.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    Names, defaults and rules are PyTorch's. A metric of nan counts as no improvement.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.optim.lr_scheduler import ReduceLROnPlateau
    >>> scheduler = ReduceLROnPlateau(SGD([Value(1.0)], lr=1.0), factor=0.5, patience=1)
    >>> for loss in [3.0, 2.0, 2.0, 2.0]:
    ...     scheduler.step(loss)
    ...     print(scheduler.get_last_lr())
    [1.0]
    [1.0]
    [1.0]
    [0.5]
    """

    optimizer: Optimizer
    min_lrs: list[float]
    best: float
    cooldown_counter: int
    num_bad_epochs: int
    last_epoch: int

    _checks = {
        "mode": lambda name, value: one_of(name, value, ["min", "max"]),
        "factor": lambda name, value: below_one(name, value), "patience": count, "threshold": non_negative,
        "threshold_mode": lambda name, value: one_of(name, value, ["rel", "abs"]), "cooldown": count,
        "eps": non_negative, "cooldown_counter": count, "num_bad_epochs": count,
        "best": lambda name, value: metric(name, value),
    }
    _by_metric = True

    def __init__(self, optimizer: Optimizer, mode: Literal['min', 'max'] = "min", factor: float = 0.1,
                 patience: int = 10, threshold: float = 1e-4, threshold_mode: Literal['rel', 'abs'] = "rel",
                 cooldown: int = 0, min_lr: float | Sequence[float] = 0.0, eps: float = 1e-8) -> None:
        self.optimizer = checked_optimizer(optimizer)
        for name, value in (("mode", mode), ("factor", factor), ("patience", patience), ("threshold", threshold),
                            ("threshold_mode", threshold_mode), ("cooldown", cooldown), ("eps", eps)):
            setattr(self, name, self._checks[name](name, value))
        self.min_lrs = numbers_for_groups("min_lr", min_lr, optimizer)
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = self.last_epoch = 0
        self._last_lr = self._rates()

    def step(self, metrics: _Number | Value) -> None:
        """Record the metric of an epoch, and reduce the learning rates if necessary.

        Parameters
        ----------
        metrics : float or Value
            The loss of a validation set, for example.
        """
        current = metric("metrics", metrics)
        rates, bad, cooling = self._rates(), self.num_bad_epochs + 1, self.cooldown_counter
        better = self._is_better(current)
        if better:
            bad = 0
        if cooling > 0:
            cooling -= 1
            bad = 0
        if bad > self.patience:
            if len(rates) != len(self.min_lrs):
                raise ArgumentError(f"optimizer: expected {len(self.min_lrs)} parameter groups, as when the scheduler "
                                    f"was made, got {len(rates)}")
            for group, lr, least in zip(self.optimizer.param_groups, rates, self.min_lrs):
                smaller = max(lr * self.factor, least)
                if lr - smaller > self.eps:
                    group["lr"] = smaller
            cooling, bad = self.cooldown, 0
        self.best = current if better else self.best
        self.num_bad_epochs, self.cooldown_counter = bad, cooling
        self.last_epoch += 1
        self._last_lr = self._rates()

    def _is_better(self, current):
        margin = self.threshold
        if self.threshold_mode == "rel":
            return (current < self.best * (1.0 - margin) if self.mode == "min"
                    else current > self.best * (1.0 + margin))
        return current < self.best - margin if self.mode == "min" else current > self.best + margin

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if isinstance(state_dict, dict) and "min_lrs" in state_dict:
            try:
                least = numbers_for_groups("state_dict['min_lrs']", state_dict["min_lrs"], self.optimizer,
                                           one_for_all=False)
            except (ArgumentError, ArgumentTypeError) as error:
                raise StateError(str(error)) from None
            state_dict = {**state_dict, "min_lrs": least}
        super().load_state_dict(state_dict)


def checked_optimizer(optimizer: Optimizer) -> Optimizer:
    """`optimizer`, after a check that it is an Optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise ArgumentTypeError(f"optimizer: expected an Optimizer, got {optimizer!r}")
    return optimizer


def restore(before: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Set dicts to what they were: pairs of a dict and a copy of it."""
    for names, then in before:
        names.clear()
        names.update(then)


def momentum_of(optimizer: Optimizer) -> str:
    """The name of the hyperparameter that a schedule changes as momentum."""
    for name in ("betas", "momentum"):
        if name in optimizer.defaults:
            return name
    raise ArgumentError("cycle_momentum: expected an optimizer with momentum or betas for it, "
                        f"got {type(optimizer).__name__}")


def functions_for_groups(name: str, functions: Any, optimizer: Optimizer) -> list[Callable[[int], float]]:
    """A list of functions, one for each group of the optimizer."""
    count = len(checked_optimizer(optimizer).param_groups)
    several = isinstance(functions, (list, tuple))
    functions = list(functions) if several else [functions] * count
    if len(functions) != count:
        raise ArgumentError(f"{name}: expected {count}, one for each parameter group, got {len(functions)}")
    for k, each in enumerate(functions):
        if not callable(each):
            raise ArgumentTypeError(f"{name}{f'[{k}]' * several}: expected a callable, got {each!r}")
    return functions


def numbers_for_groups(name: str, value: list[float] | float, optimizer: Optimizer,
                       check: Callable[..., Any] = non_negative, one_for_all: bool = True) -> list[float]:
    """A list of floats, one for each group of the optimizer."""
    count = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        if not one_for_all:
            raise ArgumentTypeError(f"{name}: expected a list of {count} numbers, got {value!r}")
        return [check(name, value)] * count
    if len(value) != count:
        raise ArgumentError(f"{name}: expected {count} numbers, one for each parameter group, got {len(value)}")
    return [check(f"{name}[{k}]", x) for k, x in enumerate(value)]


def whole_numbers(name: str, value: Iterable[int]) -> list[int]:
    """A list of ints, 0 or more."""
    try:
        value = list(value)
    except TypeError:
        raise ArgumentTypeError(f"{name}: expected a list of epochs, got {value!r}") from None
    return [count(f"{name}[{k}]", x) for k, x in enumerate(value)]


def fraction(name: str, value: float) -> float:
    """`value` as a float above 0 and up to 1."""
    if up_to_one(name, value) == 0.0:
        raise ArgumentError(f"{name}: expected a number above 0 and up to 1, got {value!r}")
    return float(value)


def below_one(name: str, value: float) -> float:
    """`value` as a float from 0 to below 1."""
    return within(name, value, 0.0, 1.0)


def metric(name: str, value: float) -> float:
    """`value`, possibly a Value, as a float."""
    value = value.data if isinstance(value, Value) else value
    return real(name, value)
