"""Batches whose samples differ in their structure, such as texts of several lengths."""
from __future__ import annotations

import enum
import numbers
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import Tensor, Value, _is_recording, cat, stack
from flatgrad.arguments import is_bool, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from flatgrad.loops import batch_of, renew, stacked, vmap
from flatgrad.program import Compiled, as_node, exact, mapped, static_part, structure
from flatgrad.structures import leaves_of, map_leaves, same_structure

if TYPE_CHECKING:
    from typing import Any

    from flatgrad._core import _Function

__all__ = ["grouped"]

MOST_STRUCTURES = 128   # of samples, that one grouped function remembers
LANES = 8   # a batch of fewer samples takes as long ...
FEW = 4     # ... as so many calls
SMALL = frozenset({int, float})
RESULT = "grouped: the result of fn"


def grouped(fn: _Function) -> _Function:
    """The function that maps `fn`, a function of one sample, over lists of samples, which may differ in their lengths.

    Samples of one structure are computed as one batch, by `vmap`.

    Parameters
    ----------
    fn : callable
        Takes numbers, Values, Tensors, arrays, and lists, tuples and dicts of them; returns Values, Tensors of one
        dimension, or lists, tuples and dicts of them, in the same structure and shapes for all samples.

    Returns
    -------
    callable
        For each argument of `fn` it takes a list or a tuple, with an entry for each sample. It returns what `fn`
        returns with one more axis, the first, along which the samples lie in the order of the lists.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError
        If `fn` is not callable. The function that is returned raises them if the lists are not as described, or results
        differ in structure or shape.

    Notes
    -----
    A compiled `fn` (`flatgrad.compile`) is recorded once for each structure of a sample, and keeps 128 programs. What
    is the same for all samples is captured. A sample with an array or a Tensor of two dimensions is computed by itself.

    `fn` is called group by group, in the order of their first samples. It draws from a `flatgrad.Random` in this order.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> w = Value(0.5)
    >>> @flatgrad.compile
    ... def score(numbers):
    ...     total = 0.0
    ...     for x in numbers:
    ...         total = total * w + x
    ...     return total
    >>> scores = flatgrad.grouped(score)([[1.0, 2.0], [4.0], [3.0, 4.0], [1.0, 2.0, 4.0]])
    >>> scores.tolist(), score.cache_info().currsize
    ([2.5, 4.0, 5.5, 5.25], 3)
    >>> scores.sum().backward()
    >>> w.grad
    7.0
    """
    if not callable(fn):
        raise ArgumentTypeError(f"grouped: fn: expected a callable, got {shortened(fn)}")
    maps = OrderedDict()   # by the structure of a sample: the function that maps over samples of that structure

    def call(*args):
        n_samples = count_of(args)
        static = [isinstance(fn, Compiled) and fn._is_static(k, len(args)) for k in range(len(args))]
        groups = {}   # by structure: the samples' numbers, and their leaves
        for i in range(n_samples):
            leaves = []
            key = tuple([static_part(f"argument {k}[{i}]", x[i]) if static[k]
                         else structure(f"argument {k}[{i}]", x[i], leaves) for k, x in enumerate(args)])
            members, rows = groups.setdefault(key, ([], []))
            members.append(i)
            rows.append(leaves)
        in_lanes = isinstance(fn, Compiled) and not fn.check and not _is_recording()
        results, places, before = [], {}, 0
        for key, (members, rows) in groups.items():
            several = [[x[i] for x in args] for i in members]
            group = replayed(fn, key, several[0], rows) if in_lanes else None
            results.append(group or (mapped_over(fn, maps, key, several, static, members, rows), len(members)))
            places.update((i, before + j) for j, i in enumerate(members))
            before += results[-1][1]
        return joined([result for result, _ in results], [places[i] for i in range(n_samples)], before)

    call.__name__ = call.__qualname__ = f"grouped({getattr(fn, '__name__', type(fn).__name__)})"
    call.__doc__ = getattr(fn, "__doc__", None)
    return call


def replayed(fn: Any, key: Any, sample: Any, rows: Any) -> Any:
    """The results of samples of one structure by a program, and how many there are: more than samples, for a number of
    lanes is filled up, so that few numbers of samples need a program. None if they have two dimensions already."""
    program = fn._find(key) or fn._record(key, sample, {})
    count = len(rows)
    if count < FEW or not rows[0] or any(getattr(leaf, "ndim", 0) > 1 for leaf in rows[0]):
        return stacked(RESULT, [program(leaves) for leaves in rows], 0), count
    if program.draws is None:   # else what fills up the lanes would draw as well
        count = -(-count // LANES) * LANES
        rows = rows + [rows[-1]] * (count - len(rows))
    batch = batch_of(program, count, (0,) * len(rows[0]))
    return batch and (batch([column(f"argument {k}", leaves) for k, leaves in enumerate(zip(*rows))], 0), count)


def mapped_over(fn: Any, maps: Any, key: Any, several: Any, static: Any, members: Any, rows: Any) -> Any:
    """The results of samples of one structure, by `vmap`."""
    if not rows[0] or any(getattr(leaf, "ndim", 0) > 1 for leaf in rows[0]):
        if not isinstance(fn, Compiled):
            several = [[mapped(as_node, f"argument {k}[{i}]", x) for k, x in enumerate(sample)]
                       for i, sample in zip(members, several)]
        return stacked(RESULT, [fn(*sample) for sample in several], 0)
    columns = iter([column(f"argument {k}", leaves) for k, leaves in enumerate(zip(*rows))])
    batch = [x if is_static else mapped(lambda name, leaf: next(columns) if is_number(leaf) else leaf, "", x)
             for x, is_static in zip(several[0], static)]
    made = maps.get(key)
    if made is None:
        axes = [None if is_static else mapped(lambda name, leaf: 0 if is_number(leaf) else None, "", x)
                for x, is_static in zip(several[0], static)]
        maps[key] = made = vmap(fn, tuple(axes))
        if len(maps) > MOST_STRUCTURES:
            maps.popitem(last=False)
    renew(maps, key)
    return made(*batch)


def count_of(args: Any) -> Any:
    """How many samples the lists have."""
    for k, x in enumerate(args):
        if not isinstance(x, (list, tuple)):
            raise ArgumentTypeError(f"grouped: argument {k}: expected a list of samples, got {shortened(x)}; what is "
                                    "the same for all samples is captured by fn")
        if len(x) != len(args[0]):
            raise ShapeError(f"grouped: argument {k}: expected {len(args[0])} samples, as argument 0 has, got {len(x)}")
    if not args or not args[0]:
        raise ArgumentError("grouped: expected at least one list of samples, with at least one sample, got none")
    return len(args[0])


def is_number(leaf: Any) -> Any:
    """Whether a leaf of an argument is no static one."""
    return isinstance(leaf, (Value, Tensor, np.ndarray)) or (
        isinstance(leaf, numbers.Real) and not is_bool(leaf) and not isinstance(leaf, enum.Enum))


def column(name: Any, leaves: Any) -> Any:
    """One leaf of all samples, one below the other."""
    if isinstance(leaves[0], (Value, Tensor)):
        return stack(list(leaves))
    if getattr(leaves[0], "ndim", 0) == 1:
        return np.stack(leaves).astype(np.float64)
    if SMALL.issuperset(map(type, leaves)):   # most often
        found = np.array(leaves, np.float64)
        if np.abs(found).max() < 2.0 ** 53:   # what float64 has rounded is not
            return found
    return np.array([exact(name, leaf) for leaf in leaves])


def joined(results: Any, places: Any, size: Any) -> Any:
    """The results of all groups as one; places: which of all `size` each sample's is."""
    for result in results[1:]:
        if not same_structure(results[0], result):
            raise ArgumentTypeError(f"{RESULT}: expected the same structure for all samples, got "
                                    f"{shortened(results[0])} and {shortened(result)}")
    parts = iter(list(zip(*map(leaves_of, results))))
    in_order = places == list(range(size))

    def whole(name, leaf):
        several = next(parts)
        if leaf is None:
            return None
        if len({x.shape[1:] for x in several}) > 1:
            raise ShapeError(f"{name}: expected the same shape for all samples, got "
                             f"{sorted({x.shape[1:] for x in several})}")
        together = several[0] if len(several) == 1 else cat(list(several))
        return together if in_order else together[np.array(places)]

    return map_leaves(whole, results[0], RESULT)
