"""Where a fit takes its batches from: arrays, cut into parts, or an iterable of batches.

`Arrays` and `Stream` have the same methods. A part is what becomes the Tensors of a batch, so that the loop decides
when these are made.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from flatgrad._core import Tensor
from flatgrad.arguments import array_of_numbers, samples, shortened, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError
from flatgrad.train.samples import Task

__all__ = ["Arrays", "Stream", "are_batches", "cut", "gathered"]

Array = np.ndarray[Any, Any]
Part = Any


def cut(parts: tuple[Any, ...], size: int, n_samples: int) -> list[tuple[Any, float]]:
    """The batches, pairs (parts of Tensors and arrays, share of the samples)."""
    if size >= n_samples:
        return [(parts, 1.0)]
    return [([x[k:k + size] for x in parts], (min(k + size, n_samples) - k) / n_samples)
            for k in range(0, n_samples, size)]


class Arrays:
    """Batches of arrays: the same in each epoch, or drawn anew."""

    task: Task
    X: Array
    y: Array
    n_samples: int
    size: int
    n_batches: int
    shuffle: bool
    fixed: list[tuple[Part, float]]
    total: float = 1.0   # of the shares of an epoch's batches
    order: Array | None = None   # of the samples in this epoch, if it is drawn

    def __init__(self, task: Task, X: Array, y: Array, batch_size: int | None, shuffle: bool) -> None:
        self.task, self.X, self.y = task, X, y
        self.n_samples = len(X)
        self.size = self.n_samples if batch_size is None else min(batch_size, self.n_samples)
        self.n_batches = -(-self.n_samples // self.size)
        self.shuffle = shuffle and self.size < self.n_samples
        # Fixed batches are views of two Tensors. A drawn batch has Tensors of its own, which live for one step: the
        # tape then drops their nodes together with the graph's, and there is nothing to collect.
        self.fixed = [] if self.shuffle else cut(task.batch(X, y), self.size, self.n_samples)

    def epoch(self, seed: int, epoch: int) -> list[tuple[Part, float]]:
        """The batches of an epoch: pairs (part, share of the samples)."""
        if not self.shuffle:
            return self.fixed
        self.order = np.random.default_rng([seed, epoch]).permutation(self.n_samples)
        return cut((self.order,), self.size, self.n_samples)

    def tensors(self, part: Part) -> Any:
        """The inputs and targets of a batch, as the model and the loss take them."""
        if not self.shuffle:
            return part
        return self.task.batch(self.X.take(part[0], axis=0), self.y.take(part[0], axis=0))

    def targets(self) -> Array:
        """The targets of this epoch, in the order of its batches."""
        return self.y if self.order is None else self.y.take(self.order, axis=0)


class Stream:
    """Batches of an iterable, which are checked as they come.

    Parameters
    ----------
    task : Task
    given : iterable of pair (X, y), or callable that returns one
    epochs : int
    steps : int or None
        Batches for an epoch; None: all that there are.
    keeps : bool
        Whether `targets` will be asked for.
    """

    task: Task
    given: Any
    keeps: bool
    steps: int | None
    only_once: bool
    n_batches: int | None
    total: int
    shuffle: bool = False
    order: Array | None = None

    def __init__(self, task: Task, given: Any, epochs: int, steps: int | None, keeps: bool) -> None:
        check_batches(given)
        self.task, self.given, self.keeps = task, given, keeps
        self.steps = None if steps is None else whole("steps_per_epoch", steps, 1)
        self.only_once = isinstance(given, Iterator)
        if self.only_once and self.steps is None and epochs > 1:
            raise ArgumentError("X: expected an iterable that begins again for each epoch, such as a list, a DataLoader "
                                "or a function that returns a generator, or steps_per_epoch for one that goes on, got "
                                f"{shortened(given)} for {epochs} epochs")
        self.n_batches = self.steps if self.steps is not None else length_of(given)
        self.source: Iterator[Any] | None = None
        self.first: list[Any] = []   # a batch that has been looked at, and not been trained on
        self.total = 0   # samples in this epoch
        self.seen: list[Array] = []
        self.n_features: int | None = None
        self.shape: tuple[int] = (1,)

    def look(self) -> None:
        """Check the first batch, with model and loss, before training starts."""
        self.first = [self.following()]
        if self.first[0] is END:
            raise DataError("X: expected one batch (X, y) at least, got none")
        X, y = pair_of(self.first[0], "batch 1")
        array, self.shape = self.task.inputs(X, "batch 1: X")
        self.n_features = array.shape[1]
        self.task.try_loss(array, self.task.targets(plain(y), len(array), self.shape, "batch 1: y"))

    def following(self) -> Any:
        """The next batch of the iterable, or END."""
        if self.first:
            return self.first.pop()
        if self.source is None:
            self.source = begun_anew(self.given, "X")
        return next(self.source, END)

    def epoch(self, seed: int, epoch: int) -> Iterator[tuple[Part, float]]:
        """The batches of an epoch: pairs (part, number of samples)."""
        self.total, self.seen, k, begun = 0, [], 0, False
        while self.steps is None or k < self.steps:
            batch = self.following()
            if batch is END:
                self.source = None
                if self.steps is None and k:
                    return
                if self.only_once or begun or self.steps is None:
                    raise DataError(f"X: expected {'one batch' if self.steps is None else f'{self.steps} batches'} for "
                                    f"epoch {epoch}, got {k}: the iterable has no more")
                begun = True
                continue
            k, begun = k + 1, False
            name = f"batch {k} of epoch {epoch}"
            X, y = pair_of(batch, name)
            X = samples(f"{name}: X", X, self.n_features)
            y = self.task.targets(plain(y), len(X), self.shape, f"{name}: y")
            self.total += len(X)
            if self.keeps:
                self.seen.append(y)
            yield (X, y), len(X)

    def tensors(self, part: Part) -> Any:
        return self.task.batch(*part)

    def targets(self) -> Array:
        return np.concatenate(self.seen)


END = object()   # what comes after the last batch


def are_batches(x: Any) -> bool:
    """Whether it can be an iterable of batches, or a function that returns one."""
    return not isinstance(x, (np.ndarray, Tensor, str, bytes, dict)) and (callable(x) or hasattr(x, "__iter__"))


def check_batches(x: Any, name: str = "X") -> None:
    if not are_batches(x):
        raise ArgumentTypeError(f"y: expected targets, or None if {name} is an iterable of batches (X, y), got None and "
                                f"{shortened(x)}")


def begun_anew(given: Any, name: str) -> Iterator[Any]:
    """The batches of an iterable, or of what a function returns, from the first one on."""
    source = given() if callable(given) else given
    if not hasattr(source, "__iter__") and not hasattr(source, "__getitem__"):
        raise ArgumentTypeError(f"{name}: expected an iterable of batches (X, y), or a function that returns one, got "
                                f"{shortened(given)}, which returned {shortened(source)}")
    return iter(source)


def length_of(given: Any) -> int | None:
    """How many batches an iterable says that it has."""
    try:
        return len(given)
    except TypeError:   # such as a generator, or a DataLoader of an IterableDataset
        return None


def pair_of(batch: Any, name: str) -> tuple[Any, Any]:
    """The samples and the targets of a batch."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise ArgumentTypeError(f"{name}: expected a pair (X, y) of samples and targets, got {shortened(batch)}")
    return batch[0], batch[1]


def plain(y: Any) -> Any:
    """Targets as lists and NumPy's arrays are left; those of other libraries, such as PyTorch, become arrays."""
    return y if isinstance(y, (list, tuple, np.ndarray, Tensor)) else array_of_numbers(y)


def gathered(given: Any, name: str = "X") -> tuple[Array, Array]:
    """All batches of an iterable, as two arrays."""
    check_batches(given, name)
    pairs: list[tuple[Array, Array]] = []
    for k, batch in enumerate(begun_anew(given, name), 1):
        X, y = pair_of(batch, f"{name}: batch {k}")
        pairs.append((samples(f"{name}: batch {k}: X", X), array_of_numbers(y)))
    if not pairs:
        raise DataError(f"{name}: expected one batch (X, y) at least, got none")
    try:
        return np.concatenate([X for X, _ in pairs]), np.concatenate([y for _, y in pairs])
    except ValueError as error:
        raise ShapeError(f"{name}: expected batches of the same number of features and outputs, {error}") from None
