"""Values and gradients of compiled functions as numbers, off the tape: for `flatgrad.functional`.

The compiled core evaluates a program without the GIL. What it cannot evaluate, its caller leaves to the tape.
"""
from __future__ import annotations

import itertools
import math
import os
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import Tensor, Value, _Evaluator, _is_unrecorded, _takes_gradients
from flatgrad.arguments import is_bool
from flatgrad.loops import Layout, length_of, pair_up
from flatgrad.lost import are_lost, plain
from flatgrad.program import Hole, structure
from flatgrad.structures import map_leaves, raised

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad.program import Compiled, Program

__all__ = ["Evaluations"]

MOST_PLANS = 16      # of one transform, for different programs; and evaluators of one program
MOST_CHUNK = 256     # samples that are computed at once, and ...
MOST_CHUNKS = 64     # ... pieces of a batch


class Evaluations:
    """How a transform evaluates a compiled function.

    Parameters
    ----------
    f : Compiled
    parameters : list of Value and Tensor or None
        By which gradients are taken; None: by arguments.
    in_axes
        As for `vmap`: `f` takes one sample, and the mean over a batch is evaluated. None: `f` takes all.
    threads : int
    """

    f: Compiled[Any]

    plans: OrderedDict[Any, Any]
    own: OrderedDict[Any, Any]
    simple: bool
    last: tuple[Any, Any]
    in_axes: int | None
    parameters: list[Any] | None
    threads: int

    def __init__(self, f: Compiled[Any], parameters: list[Any] | None = None, in_axes: int | None = None,
                 threads: int = 1) -> None:
        self.f, self.parameters, self.in_axes, self.threads = f, parameters, in_axes, threads
        self.plans = OrderedDict()   # by program; of batches by the structure of the arguments
        self.own = OrderedDict()     # evaluators for the parameters
        self.simple = parameters is not None and in_axes is None
        self.last = None, None       # the program of the last call, and its evaluator

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any],
                 positions: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The value, and the gradient as a flat array: by the parameters, or by the arguments at these positions, in
        their order, and whether that depends on leaves besides, of which `flatgrad.lost` tells. None: this is for the
        tape."""
        if self.simple:   # first of all this has to be fast
            leaves = []
            try:
                program = self.f._find(self.f._key(args, kwargs, leaves))
            except RecursionError:
                return None
            if program is not None and program is self.last[0]:
                found = self.last[1](leaves)
                return None if found[1] is None else found
        found = self.prepared(args, kwargs, positions)
        if found is None:
            return None
        plan, leaves = found
        lost = self.parameters is None and self.loses(plan, leaves, args)
        if self.in_axes is not None:
            found = plan.mean(leaves, self.threads)
            return found if found is None or self.parameters is not None else (*found, lost)
        if self.simple and not plan.program.buffers:
            self.last = plan.program, plan.evaluator
        value, gradient = plan.evaluator(plan.operands(leaves))
        if gradient is None or self.parameters is not None:
            return None if gradient is None else (value, plan.in_order(gradient))
        return value, plan.in_order(gradient), lost

    def table(self, args: tuple[Any, ...], kwargs: dict[Any, Any],
              positions: tuple[Any, ...]) -> tuple[NDArray[Any], NDArray[Any], bool] | None:
        """The template of the results with their numbers as indices, the derivatives of each by the arguments, and
        whether these depend on leaves besides."""
        found = self.prepared(args, kwargs, positions, many=True)
        if found is None:
            return None
        plan, leaves = found
        table = plan.in_order(plan.evaluator.table(plan.operands(leaves))[1])
        return plan.places, table, self.loses(plan, leaves, args)

    def loses(self, plan: Plan | BatchPlan, leaves: list[Any], args: tuple[Any, ...]) -> bool:
        """Whether derivatives by arguments depend on leaves that take a gradient: captured, or other arguments."""
        return not _is_unrecorded() and (plan.takes_gradients or are_lost(args) or any(
            isinstance(x, (Value, Tensor)) and x.requires_grad for x in leaves))

    def prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any], positions: tuple[Any, ...],
                 many: bool = False) -> tuple[Any, Any] | None:
        """The Plan, and the leaves of the arguments; or None."""
        f, leaves, given = self.f, [], list(args)
        if self.parameters is None and are_lost(given):
            given = [map_leaves(lambda name, x: plain(x), x) for x in given]
        for n in positions:
            given[n] = as_numbers(given[n])
            if given[n] is None or f._is_static(n, len(args)):
                return None
        try:
            key = f._key(given, kwargs, leaves)
        except RecursionError:
            return None
        if positions:
            key = tuple([with_tensors(part) if n in positions else part for n, part in enumerate(key)])
        if self.in_axes is not None:
            if self.parameters is not None and any(
                    isinstance(x, (Value, Tensor)) and x.requires_grad for x in leaves):
                return None
            plan = self.batch_plan(key, given, kwargs, positions, leaves)
        else:
            program = f._find(key)
            plan = self.plans.get(program) if program is not None else None
            if plan is None:
                if program is None:
                    program = f._record(key, recorded_args(given, positions), kwargs)
                plan = Plan(self, program, given, positions, many)
                kept(self.plans, program, plan)
        return (plan, leaves) if plan.evaluator is not None else None

    def batch_plan(self, key: tuple[Any, ...], given: list[Any], kwargs: dict[Any, Any], positions: tuple[Any, ...],
                   leaves: list[Any]) -> BatchPlan:
        f, key = self.f, (key, positions)
        plan = self.plans.get(key)
        if plan is not None and f._find(plan.layout.structure) is plan.program:
            return plan
        in_axes = self.in_axes
        args = recorded_args(given, positions)
        several = isinstance(in_axes, (tuple, list)) and len(in_axes) == len(args)
        batches = []
        for k, argument in enumerate(args):
            pair_up(f"argument {k}", argument, in_axes[k] if several else in_axes, batches)
        for name, argument in kwargs.items():
            pair_up(name, argument, 0, batches)
        n_samples = length_of(batches)
        layout = Layout(f, args, kwargs, batches, n_samples)
        program = f._find(layout.structure) or f._record(layout.structure, layout.args, layout.kwargs)
        layout.args = layout.kwargs = None
        plan = BatchPlan(self, program, given, positions, layout)
        kept(self.plans, key, plan)
        return plan


class Plan:
    """How one program is evaluated.

    Attributes
    ----------
    evaluator : _Evaluator or None
        None: the tape has to do it.
    takes_gradients : bool
        Whether gradients flow to what the program has captured.
    """

    program: Program

    places: NDArray[Any] | None
    takes_gradients: bool
    wanted: list[int]
    order: None
    evaluator: Any
    layout: Layout | None

    def __init__(self, evaluations: Evaluations, program: Program, given: list[Any], positions: tuple[Any, ...],
                 many: bool = False, layout: Layout | None = None) -> None:
        self.program, self.layout, self.evaluator = program, layout, None
        core = program.core
        self.places = places_of(program) if many and core is not None else None
        self.takes_gradients = core is not None and _takes_gradients(core)
        if core is None or program.single and layout is None:
            return
        if self.places is None if many else not is_number(program):
            return
        counts = [0 if evaluations.f._is_static(k, len(given)) else leaf_count(k, x) for k, x in enumerate(given)]
        self.wanted = [first + j for n in positions for first in [sum(counts[:n])] for j in range(counts[n])]
        wanted = sorted(self.wanted) if many else self.wanted
        self.order = None
        if wanted != self.wanted:   # a table has them in the order of the arguments
            sizes = [core_size(core, k) for k in wanted]
            ends = list(itertools.accumulate(sizes))
            begin = {k: end - size for k, end, size in zip(wanted, ends, sizes)}
            self.order = np.concatenate([np.arange(begin[k], begin[k] + core_size(core, k)) for k in self.wanted])
        varies = n_samples = None
        if layout is not None:
            drawn = len(program.draws.shapes) if program.draws is not None else 0
            varies = [axis is not None for axis in layout.axes] + [True] * drawn + [False] * len(program.buffers)
            pieces = -(-layout.n_samples // MOST_CHUNK)
            n_samples = -(-layout.n_samples // pieces)
        store = program.evaluators if evaluations.parameters is None else evaluations.own
        key = (program if store is evaluations.own else None, tuple(wanted), varies and tuple(varies), n_samples)
        self.evaluator = store.get(key)
        if self.evaluator is None:
            try:
                self.evaluator = _Evaluator(core, wanted, evaluations.parameters, varies, n_samples or 1,
                                            program.single)
            except NotImplementedError:
                return
            kept(store, key, self.evaluator)

    def operands(self, leaves: list[Any]) -> list[Any]:
        """Those of the program: the leaves of the arguments, and what it draws at random and reads of modules."""
        if self.program.draws is not None:
            leaves = leaves + self.program.draws.draw()
        if self.program.buffers:
            leaves = leaves + [getattr(module, name) for module, name in self.program.buffers]
        return leaves

    def in_order(self, gradient: NDArray[Any]) -> NDArray[Any]:
        return gradient if self.order is None else gradient[..., self.order]


class BatchPlan(Plan):
    """How the mean over a batch is evaluated."""

    draws: None
    chunk: int
    varying: list[tuple[int, int]]
    rows: list[int]

    def __init__(self, evaluations: Evaluations, program: Program, given: list[Any], positions: tuple[Any, ...],
                 layout: Layout) -> None:
        super().__init__(evaluations, program, given, positions, layout=layout)
        if self.evaluator is None:
            return
        axes = list(layout.axes)
        self.draws = None if program.draws is None else program.draws.repeated(layout.n_samples, in_rows=True)
        if self.draws is not None:
            axes += [0] * len(self.draws.shapes)
        width, varying = self.evaluator.width, [k for k, axis in enumerate(axes) if axis is not None]
        self.chunk = width * -(-layout.n_samples // (width * MOST_CHUNKS))   # whatever the number of threads
        self.varying = [(k, axes[k]) for k in varying]
        self.rows = [varying.index(k) for k in self.wanted if k in varying]   # of those, by which it differentiates

    def operands(self, leaves: list[Any]) -> list[Any]:
        return leaves + [getattr(module, name) for module, name in self.program.buffers]

    def mean(self, leaves: list[Any], threads: int) -> tuple[float, NDArray[Any]]:
        """The mean, and its gradient; or None."""
        n_samples, evaluator, chunk = self.layout.n_samples, self.evaluator, self.chunk
        if self.draws is not None:
            leaves = leaves + self.draws.draw()
        shared = evaluator.shared(self.operands(leaves))
        if shared is None:
            return None
        columns = [rows_of(leaves[k], axis, n_samples) for k, axis in self.varying]
        to = [np.empty(columns[j].shape) for j in self.rows]
        total = np.zeros(evaluator.count)
        if threads == 1 or n_samples <= chunk:
            value = evaluator.sum(shared, columns, to, 0, n_samples, chunk, 1.0 / n_samples, total)
        else:
            value = in_threads(evaluator, (shared, columns, to), n_samples, chunk, threads, total)
        return value / n_samples, self.joined(to, total) if to else total

    def joined(self, to: list[NDArray[Any]], total: NDArray[Any]) -> NDArray[Any]:
        """All gradients in the order of the arguments: those of inputs that vary, and the others."""
        at, parts, rows, axes = 0, [], iter(to), self.layout.axes
        for k in self.wanted:
            if k < len(axes) and axes[k] is not None:
                part = next(rows)
                parts.append((part.T if axes[k] == 1 else part).reshape(-1))
            else:
                parts.append(total[at:at + core_size(self.program.core, k)])
                at += len(parts[-1])
        return np.concatenate(parts)


def in_threads(evaluator: Any, job: tuple[Any, Any, Any], n_samples: int, chunk: int, threads: int,
               total: NDArray[Any]) -> float:
    """The sum of all results; gradients are added to `total`. Each chunk is computed for itself, and what they give is
    added up in their order."""
    count = -(-n_samples // chunk)
    totals, sums, errors, numbers = np.zeros((count, len(total))), [0.0] * count, {}, itertools.count()
    jobs = [(evaluator, job)]   # empty when it is over: a thread of the pool may keep `work` for a moment

    def work():
        evaluator, job = jobs[0] if jobs else (None, None)
        for k in numbers:
            if k >= min(errors, default=count) or not jobs:   # the error of the first sample at fault is raised
                return
            try:
                sums[k] = evaluator.sum(*job, k * chunk, min(chunk, n_samples - k * chunk), chunk, 1.0 / n_samples,
                                        totals[k])
            except BaseException as error:
                errors[k if isinstance(error, Exception) else -1] = error
                return

    try:
        futures = [workers(threads - 1).submit(work) for _ in range(min(threads, count) - 1)]
        work()
        for future in futures:   # but after Ctrl-C nobody waits
            if -1 not in errors and not future.cancel():
                future.result()
        error = errors.get(min(errors, default=None))
    finally:
        jobs.clear()
        errors.clear()
    if error is not None:
        try:
            raise error
        finally:
            del error   # which has this frame
    value = 0.0
    for k in range(count):
        value += sums[k]
        total += totals[k]
    return value


pools: dict[Any, Any] = {}   # the threads of this process: by its number, how many there are, and their executor


def workers(count: int) -> Any:
    """An executor with so many threads at least."""
    from concurrent.futures import ThreadPoolExecutor

    size, pool = pools.get(os.getpid(), (0, None))
    if size < count:
        pool = ThreadPoolExecutor(count, "flatgrad")
        pools.clear()   # those of a parent process are no threads of this one
        pools[os.getpid()] = count, pool
    return pool


# ---- arguments ----

def as_numbers(x: Any) -> Any:
    """An argument to differentiate by, with floats in place of numbers and Values, and arrays of floats in place of
    arrays and Tensors; None if it has anything else in it, which the tape has an error for."""
    unusual = []

    def number(name, x):
        kind = type(x)
        if kind is float:
            return x
        if kind is Value and not x._op and not x._children:
            return x.data
        if kind is Tensor and not x._op:
            return np.asarray(x.data)
        if kind is np.ndarray and x.dtype.kind in "iuf" and x.ndim <= 2 and x.size > 0:
            return np.asarray(x, np.float64) if x.ndim > 0 else float(x)
        if isinstance(x, (int, np.integer, np.floating)) and not is_bool(x):
            try:
                return float(x)
            except OverflowError:
                pass
        unusual.append(x)

    result = number("", x) if type(x) is float else map_leaves(number, x)
    return None if unusual else result


def with_tensors(key: str | type[Any] | tuple[Any, ...]) -> str | type[Any] | tuple[Any, ...]:
    """The structure of an argument of numbers and arrays, as it is recorded: with Tensors in place of the arrays."""
    if type(key) is not tuple or not key:
        return key
    return ("Tensor", key[1], True) if key[0] == "array" else tuple([with_tensors(part) for part in key])


def recorded_args(given: list[Any], positions: tuple[Any, ...]) -> list[Any]:
    return [map_leaves(lambda name, leaf: Tensor(leaf) if isinstance(leaf, np.ndarray) else leaf, x)
            if n in positions else x for n, x in enumerate(given)]


def leaf_count(number: int, x: Any) -> int:
    found = []
    structure(f"argument {number}", x, found)
    return len(found)


def rows_of(leaf: NDArray[Any], axis: int, n_samples: int) -> NDArray[Any]:
    """The numbers of a batch, a row for each sample."""
    if axis == 0 and type(leaf) is np.ndarray and leaf.dtype == np.float64 and leaf.flags.c_contiguous:   # most often
        return leaf.reshape(n_samples, -1)
    numbers = np.asarray(leaf.data if isinstance(leaf, Tensor) else leaf, np.float64)
    return np.ascontiguousarray(numbers.T if axis == 1 else numbers).reshape(n_samples, -1)


# ---- results ----

def is_number(program: Program) -> bool:
    """Whether the result of a program is one Value, or a Tensor with one element."""
    shapes = [shape for shape, _ in program.core.results]
    return type(program.template) is Hole and len(shapes) == 1 and math.prod(shapes[0]) == 1


def core_size(core: Any, k: int) -> int:
    return math.prod(core.shapes[k])


def places_of(program: Program) -> NDArray[Any] | None:
    """The results as the tape's way has them, an array with the number of each; -1 stands for a constant. None if that
    way has an error for them."""
    shapes = [shape for shape, _ in program.core.results]
    ends = list(itertools.accumulate(map(math.prod, shapes), initial=0))

    def place(name, x):
        if type(x) is Hole:
            return np.arange(ends[x.number], ends[x.number + 1]).reshape(shapes[x.number]).tolist()
        if isinstance(x, np.ndarray) and x.dtype.kind in "iuf":
            return np.full(x.shape, -1).tolist()
        return -1 if isinstance(x, (int, float)) and not is_bool(x) else None

    try:
        places = np.array(raised(map_leaves(place, program.template)))
    except ValueError:   # of parts that differ in shape
        return None
    return places if places.dtype.kind == "i" else None


def kept(cache: OrderedDict[Any, Any], key: tuple[Any, Any, Any, Any] | Program, x: Any) -> None:
    """Put it there; the oldest goes when there are too many."""
    cache[key] = x
    if len(cache) > MOST_PLANS:
        cache.popitem(last=False)
