"""Minimizing a compiled loss: all steps in compiled code, for `flatgrad.program.Compiled.minimize`."""
from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import Parameters, Tensor, Value, _detects_anomaly, _Loop
from flatgrad.arguments import non_negative, shortened, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad.optim.optimizers import Adam, SGD
    from flatgrad.optim.lr_scheduler import ExponentialLR, LambdaLR, SequentialLR

__all__ = ["minimize", "no_gradient"]

MOST_STEPS = sys.maxsize // 8   # whose losses an array has room for

BLOCK = 1 << 16   # places in the orders of samples that are drawn at once

AHEAD = 1000   # steps for which a schedule is asked at once


def minimize(record: Callable[..., Any], plain: Callable[..., Any], holds: Callable[..., Any],
             leaves_of: Callable[..., Any], optimizer: SGD | Adam, args: tuple[Any, ...], steps: int,
             batch_size: int | None, shuffle: bool, seed: int | None, every: int, callback: Callable[..., Any] | None,
             schedule: Callable[..., Any] | None) -> NDArray[Any]:
    """Take steps of an optimizer.

    Parameters
    ----------
    record : callable
        Of a list of arguments it returns their `Program`.
    plain : callable
        Of a list of arguments it returns the loss, computed by Python.
    holds : callable
        Whether it would return that `Program` once more.
    leaves_of : callable
        Of an argument's name and the argument it returns the list of its numbers, arrays, Values and Tensors.
    optimizer, args, steps, batch_size, shuffle, seed, every, callback, schedule
        As for `Compiled.minimize`.

    Returns
    -------
    ndarray of float64, shape (steps,)
    """
    steps, every = whole("minimize: steps", steps), whole("minimize: every", every, 1)
    if steps > MOST_STEPS:
        raise ArgumentError(f"minimize: steps: expected at most {MOST_STEPS}, got {steps}")
    cls = type(optimizer)
    if not (cls.__module__.startswith("flatgrad.optim") and getattr(optimizer, "_checks", None)):
        raise ArgumentTypeError("minimize: optimizer: expected one of flatgrad.optim, such as SGD(model.parameters()), "
                                f"got {shortened(optimizer)}")
    if optimizer._needs_closure:
        raise ArgumentTypeError(f"minimize: optimizer: expected one that steps by one gradient, got a {cls.__name__}, "
                                "which evaluates the loss several times in a step: call its step(closure), with "
                                "flatgrad.value_and_grad(loss, parameters=...) in the closure")
    if optimizer._in_python:
        raise ArgumentTypeError(f"minimize: optimizer: expected one whose rule is C, got a {cls.__name__}, whose step "
                                "computes with NumPy: take the steps in a loop, or by flatgrad.train.Trainer")
    if callback is not None and not callable(callback):
        raise ArgumentTypeError(f"minimize: callback: expected None or a function (step, loss), got {callback!r}")
    speeds = schedule_of(schedule, optimizer, steps)
    n_samples = rows = 1
    if batch_size is not None:
        batch_size = whole("minimize: batch_size", batch_size, 1)
        n_samples = length_of(args)
        rows = min(batch_size, n_samples)
    sizes = [rows] if n_samples % rows == 0 else [rows, n_samples % rows]
    in_batches = [batch_size is not None and length(x) == n_samples for x in args]
    columns = [column_of(f"minimize: argument {k}", x, leaves_of, n_samples)
               for k, x in enumerate(args) if in_batches[k]]
    several = [[x[:size] if cut else x for x, cut in zip(args, in_batches)] for size in sizes]
    in_python = _detects_anomaly()   # which looks at each operation of the function, and has its line
    programs, starts, fixed, trained_inputs = [] if in_python else [record(given) for given in several], [], [], []
    for given in () if in_python else several:
        begins, same, trained, place, count = [], [], [], 0, 0
        for k, x in enumerate(given):
            if in_batches[k]:
                begins.append(place)
            for leaf in leaves_of(f"argument {k}", x):
                if not in_batches[k]:
                    same.append((place, as_fixed(leaf)))
                if isinstance(leaf, (Value, Tensor)) and leaf.requires_grad:
                    trained.append(count)
                place += getattr(leaf, "size", 1)
                count += 1
        starts.append(begins)
        fixed.append(same)
        trained_inputs.append(trained)

    def looped(begin):
        """A loop whose first batch begins with that sample."""
        if in_python:
            return PlainLoop(plain, optimizer, args, in_batches, n_samples, rows, begin)
        loop = _Loop([program.in_loops() for program in programs], sizes, n_samples, optimizer._parameters, columns,
                     starts, fixed, draws=[program.draws for program in programs], begin=begin)
        look_for_leaves(loop, trained_inputs)
        return loop

    loop, n_groups = looped(0), len(optimizer._parameters)
    losses = np.empty(steps)
    n_batches = -(-n_samples // rows)
    seed = np.random.SeedSequence().entropy if seed is None else whole("minimize: seed", seed)
    shuffle = shuffle and rows < n_samples
    epochs = max(1, BLOCK // n_samples) if shuffle else steps   # whose order is drawn at once
    done = 0
    while done < steps:
        order, goal = None, steps
        if shuffle:
            first = done // n_batches
            goal = min(steps, (first + epochs) * n_batches)
            order = np.concatenate([np.random.default_rng([seed, k + 1]).permutation(n_samples)
                                    for k in range(first, -(-goal // n_batches))])
        begun = done
        while done < goal:
            count = goal - done if callback is None else min(goal - done, every - done % every)
            behind = None if order is None else order[(done - begun) // n_batches * n_samples:]
            rates = speeds.ahead(done, count)
            count = count if isinstance(rates, list) else len(rates)
            try:
                loop.run(count, rates, behind, losses[done:])
            finally:
                speeds.settle(loop.done)
            done += count
            if callback is not None and done % every == 0:
                answer = callback(done, float(losses[done - 1]))
                if isinstance(answer, (bool, np.bool_)) and answer:
                    return losses[:done].copy()
                if n_groups != len(optimizer._parameters) and schedule is not None:
                    raise ArgumentError(f"minimize: schedule: expected one of {len(optimizer._parameters)} parameter "
                                        f"groups, to which the callback has added some, got one of {n_groups}")
                if all(map(holds, programs)) and n_groups == len(optimizer._parameters):
                    look_for_leaves(loop, trained_inputs)
                    continue
                programs[:] = [program if holds(program) else record(given)
                               for program, given in zip(programs, several)]
                loop, n_groups = looped(done % n_batches * rows), len(optimizer._parameters)
    return losses


class PlainLoop:
    """The steps of a `_Loop`, taken by Python."""

    plain: Callable[..., Any]
    optimizer: SGD
    args: tuple[NDArray[Any]]
    in_batches: list[bool]
    n_samples: int
    rows: int

    at: int
    done: int

    def __init__(self, plain: Callable[..., Any], optimizer: SGD, args: tuple[NDArray[Any]], in_batches: list[bool],
                 n_samples: int, rows: int, begin: int) -> None:
        self.plain, self.optimizer, self.args, self.in_batches = plain, optimizer, args, in_batches
        self.n_samples, self.rows, self.at, self.done = n_samples, rows, begin, 0

    def run(self, count: int, rates: list[float] | NDArray[Any], order: NDArray[Any] | None,
            losses: NDArray[Any]) -> None:
        """Take so many steps. order: of the samples, from the epoch on that is under way; None: as they are."""
        before, self.done = [group["lr"] for group in self.optimizer.param_groups], 0
        try:
            for k in range(count):
                now = rates if isinstance(rates, list) else rates[k].tolist()
                for group, lr in zip(self.optimizer.param_groups, now):
                    group["lr"] = lr
                end = min(self.at + self.rows, self.n_samples)
                chosen = range(self.at, end) if order is None else order[self.at:end]
                self.at = end % self.n_samples
                if self.at == 0 and order is not None:
                    order = order[self.n_samples:]
                loss = self.plain([chosen_of(x, chosen) if cut else x for x, cut in zip(self.args, self.in_batches)])
                losses[k] = loss.data
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.done += 1
        finally:
            for group, lr in zip(self.optimizer.param_groups, before):
                group["lr"] = lr

    def look(self) -> None:
        """Each step looks where everything is."""

    def flows(self, k: Any, inputs: Any) -> Any:
        return True


def chosen_of(x: NDArray[Any], chosen: NDArray[Any]) -> NDArray[Any]:
    """Those samples of an argument."""
    if isinstance(x, (list, tuple)):
        return type(x)([x[k] for k in chosen])
    return Tensor(x.data[list(chosen)], requires_grad=False) if isinstance(x, Tensor) else x[list(chosen)]


def look_for_leaves(loop: Any, trained_inputs: list[list[Any]]) -> None:
    """Find where all numbers are. trained_inputs: of each program which inputs take a gradient, besides parameters."""
    try:
        loop.look()
    except ArgumentError as error:
        raise ArgumentError(f"minimize: expected leaves, but {error}") from None
    for k, inputs in enumerate(trained_inputs):
        if not loop.flows(k, inputs):
            raise no_gradient()


def no_gradient() -> Any:
    """The error of backward() where nothing depends on a parameter."""
    return RuntimeError("backward(): no gradient flows from here: the loss depends on no parameter of the optimizer "
                        "whose requires_grad is True")


def rates_of(optimizer: SGD | Adam) -> list[float]:
    """The learning rates, after a check of all hyperparameters, as a step of the optimizer does it."""
    if not Parameters.have(optimizer.param_groups, optimizer._read, optimizer._seen):
        optimizer._prepare()
    return [group["lr"] for group in optimizer._learning_rates()]


def schedule_of(schedule: Callable[..., Any] | None, optimizer: SGD | Adam, steps: int) -> Unchanged | Given:
    """The learning rates of all steps: an object with `ahead` and `settle`."""
    if schedule is None:
        return Unchanged(optimizer)
    if hasattr(schedule, "get_last_lr"):
        if getattr(schedule, "_by_metric", True):
            raise ArgumentTypeError("minimize: schedule: expected an LRScheduler that goes by steps alone, got "
                                    f"{shortened(schedule)}; call its step() in `callback`")
        if schedule.optimizer is not optimizer:
            raise ArgumentError("minimize: schedule: expected a schedule of this optimizer, got one of another, "
                                f"{shortened(schedule)}")
        return Scheduled(schedule)
    return Given(schedule, optimizer, steps)


class Unchanged:
    """The learning rates that the optimizer has."""

    def __init__(self, optimizer: SGD | Adam) -> None:
        self.optimizer = optimizer

    def ahead(self, first: int, count: int) -> list[float]:
        """Those of the steps from `first` on: one for each group, or an array of those of up to `count` steps."""
        return rates_of(self.optimizer)

    def settle(self, done: int) -> None:
        """So many of these steps have been taken."""


class Given:
    """The learning rates that an array or a function has for each step."""

    optimizer: SGD | Adam

    schedule: Callable[..., Any]
    rates: NDArray[Any]

    def __init__(self, schedule: Callable[..., Any], optimizer: SGD, steps: int) -> None:
        self.schedule, self.optimizer = schedule, optimizer
        if callable(schedule):
            return
        groups = len(optimizer.param_groups)
        try:
            rates = np.array(schedule, np.float64)
        except (TypeError, ValueError):
            raise ArgumentTypeError("minimize: schedule: expected an LRScheduler, a function of the step or an array "
                                    f"of learning rates, got {shortened(schedule)}") from None
        if rates.shape not in [(steps,), (steps, groups)]:
            raise ShapeError(f"minimize: schedule: expected {steps} learning rates, one for each step, or {groups} for "
                             f"each, got an array of shape {rates.shape}")
        if not (np.isfinite(rates) & (rates >= 0.0)).all():
            raise ArgumentError("minimize: schedule: expected learning rates that are finite and 0 or more, got "
                                f"{rates[~(np.isfinite(rates) & (rates >= 0.0))][0]}")
        self.schedule = np.repeat(rates[:, None], groups, 1) if rates.ndim == 1 else rates

    def ahead(self, first: int, count: int) -> NDArray[Any]:
        rates_of(self.optimizer)
        if not callable(self.schedule):
            self.rates = self.schedule[first:first + count]
        else:
            self.rates = np.array([self.called(first + k) for k in range(min(count, AHEAD))])
        return self.rates

    def called(self, step: int) -> list[float]:
        found, groups = self.schedule(step), len(self.optimizer.param_groups)
        several = isinstance(found, (list, tuple))
        if several and len(found) != groups:
            raise ArgumentError(f"minimize: schedule({step}): expected a learning rate, or one for each of {groups} "
                                f"groups, got {shortened(found)}")
        return [non_negative(f"minimize: schedule({step})", lr) for lr in (found if several else [found] * groups)]

    def settle(self, done: int) -> None:
        for group, lr in zip(self.optimizer.param_groups, self.rates[done - 1].tolist() if done else ()):
            group["lr"] = lr


def parts_of(schedule):
    """A schedule and all that it consists of."""
    yield schedule
    for part in getattr(schedule, "_schedulers", ()):
        yield from parts_of(part)


class Scheduled:
    """Those of an LRScheduler, whose step follows that of the optimizer."""

    schedule: ExponentialLR | LambdaLR | SequentialLR

    before: Any
    count: Any
    optimizer: Any
    error: Any

    def __init__(self, schedule: Any) -> None:
        self.schedule, self.optimizer = schedule, schedule.optimizer

    def ahead(self, first: Any, count: Any) -> Any:
        """It takes the schedule's steps as well, as many as there are rows."""
        optimizer, rates, self.error = self.optimizer, [rates_of(self.optimizer)], None
        self.before = [(vars(x), dict(vars(x))) for x in parts_of(self.schedule)]
        self.before += [(x, dict(x)) for x in optimizer.param_groups]
        try:
            self.schedule.step()
            while len(rates) < min(count, AHEAD) and Parameters.have(optimizer.param_groups, optimizer._read,
                                                                     optimizer._seen):
                rates.append(rates_of(optimizer))
                self.schedule.step()
        except BaseException as error:   # the schedule's, after the step of the last row
            self.error = error
        self.count = len(rates)
        return np.array(rates)

    def settle(self, done: Any) -> None:
        if done < self.count:   # no schedule goes further than the steps
            self.error = None
            for names, then in self.before:
                names.clear()
                names.update(then)
            for _ in range(done):
                self.schedule.step()
        if self.error is not None:
            raise self.error


def length(x: NDArray[Any]) -> int:
    """The number of samples of an argument; None if it has none."""
    if isinstance(x, (list, tuple)):
        return len(x)
    return x.shape[0] if isinstance(x, (np.ndarray, Tensor)) and len(x.shape) > 0 else None


def length_of(args: tuple[NDArray[Any]]) -> int:
    lengths = [length(x) for x in args if length(x) is not None]
    if not lengths:
        raise ArgumentTypeError("minimize: batch_size: expected an argument with samples, an array or a list, to make "
                                f"batches of; got {len(args)} arguments without")
    if lengths[0] == 0:
        raise ShapeError("minimize: expected an argument with samples, got an empty one")
    return lengths[0]


def column_of(name: str, x: NDArray[Any], leaves_of: Callable[..., Any], n_samples: int) -> NDArray[Any]:
    """The numbers of all samples, a row for each."""
    leaves = leaves_of(name, x)
    if any(isinstance(leaf, Value) or isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves):
        raise ArgumentTypeError(f"{name}: expected numbers, as batches are made of it, got Values")
    numbers = np.concatenate([np.asarray(leaf.data if isinstance(leaf, Tensor) else leaf, np.float64).reshape(-1)
                              for leaf in leaves]) if leaves else np.empty(0)
    if len(numbers) == 0 or len(numbers) % n_samples != 0:
        raise ShapeError(f"{name}: expected {n_samples} samples of equally many numbers, got {len(numbers)} numbers")
    if isinstance(x, (list, tuple)) and len({len(leaves_of(name, row)) for row in x}) > 1:
        raise ShapeError(f"{name}: expected samples of equally many numbers")
    return numbers.reshape(n_samples, -1)


def as_fixed(leaf: NDArray[Any]) -> NDArray[Any]:
    """A leaf as `_Loop` takes what is the same at each step."""
    if isinstance(leaf, (Value, Tensor)):
        return leaf
    try:
        return np.array(leaf, np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise ArgumentError(f"minimize: expected numbers, got {shortened(leaf)}") from None
