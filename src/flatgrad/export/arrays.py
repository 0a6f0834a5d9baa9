"""Programs as operations on whole arrays: what `to_jax` and `to_torch` have in common.

A `Plan` says, once for a program, which arrays there are and how the operands of each instruction are read from them:
an operand is an array as it is, a slice or a transpose of it, or else joined or picked from several. An `Engine` has
the operations themselves. A plan is plain data, so it can be pickled.

An array of one number has no dimension of its own, a vector has one and a matrix two. In front of these may be more:
those of a batch, which are broadcast as NumPy does it. So the body of a batch in lanes is computed once, for all
samples.
"""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flatgrad import _core
from flatgrad._core import Value, _apply, _Recording
from flatgrad.arguments import shortened
from flatgrad.errors import ArgumentError
from flatgrad.export.formulas import evaluate
from flatgrad.export.listing import Body, Lanes, Scan, View, listing, slots_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["Engine", "LanesPlan", "MixedRow", "Plan", "RuledPlan", "ScanPlan", "plan_of", "vector"]

# Rows whose formulas are differentiated by the engine: any derivative of these is flatgrad's everywhere, kinks and
# edges included. All others have the derivatives that `row_rule` records.
NATIVE = frozenset("""COPY NEG ADD SUB MUL SQUARED_ERROR GATE SHARE LESS LESS_EQUAL EQUAL SIGN FLOOR WHERE
    TANH_SLOPE EXP LOG LOG1P EXPM1 SIN COS TAN SINH COSH TANH LOGARITHM""".split())

ORDERED = frozenset(["POWER_SLOPE", "POWER_LOG"])   # the last operand is a whole number, of which the rule is made

CONSTANT, NOTHING = -1, -2   # in place of an array's number
FEW = 8                      # pieces that are rather joined than picked
MANY = 8                     # single operations that are computed as a vector
LARGE = 2048                 # numbers of an operand of instructions that stay by themselves


class Read(NamedTuple):
    """How an operand is read.

    Attributes
    ----------
    kind : str
        "stopped": the read `source`, through which no gradient flows; "number": `data` is a float; "constant": `data` is an
        array; "whole": array number `source`; "slice" of it, from, to and step; "block" of it as a matrix: first number,
        numbers, columns, from and to which of these; "take": elements of it. "joined": the reads `source`, one after the
        other; "picked": elements of the read `source`; "swapped", "repeated": the read `source`, transposed or broadcast;
        "joined_rows": a matrix, as a vector.
    source : int or tuple of int
    data : object
    shape : tuple of int
        Without the dimensions of a batch.
    """

    kind: Any
    source: Any
    data: Any
    shape: Any


class Step(NamedTuple):
    """An instruction, with the numbers of its reads.

    Attributes
    ----------
    kind : str
        "row", "copy", "layer", "reduce", "softmax", "cross_entropy", "take", "call".
    op : str
    immediate : int
    reads : tuple of int
    data : object
        "layer": its activation; "cross_entropy": labels; "take": whether of each row; "call": what is called.
    shape : tuple of int
        Of the result.
    """

    kind: Any
    op: Any
    immediate: Any
    reads: Any
    data: Any
    shape: Any


def vector(size: Any) -> Any:
    """The shape of so many numbers."""
    return () if size == 1 else (size,)


class Plan:
    """A program as operations on arrays.

    Parameters
    ----------
    body : Body
    objects : list of array_like of int, optional
        The slots of each operand; by default those of the segments.
    numbers : dict of int to float, optional
        Operands that are constants.
    frozen : list of (bool or array of bool), optional
        For each operand, or each of its numbers, whether it takes no gradient in the program. Then it does so here, if
        it is asked for: other numbers without a gradient are those that were detached.
    parts : list of int, optional
        Of how many numbers each result is; by default of all.
    first : int, optional
        The first number that is a result.
    plans : dict, optional
        Of callees that have one already.
    name : str, optional
        Of the function, for errors.

    Attributes
    ----------
    sizes, dims : list of int
        How many numbers each array has, and of how many dimensions: first the operands, then results of steps.
    reads : list of Read
    steps : list of Step
    made : list of tuple of int
        Of each step the arrays that it makes.
    parts : list of int
        The reads that are the results.
    pieces : dict of int to list of (int, int)
        Vectors that are cut, and where: a cut is one operation, and so is its derivative.
    """

    where: Any
    at: Any
    number: Any
    frozen: Any

    name: Any
    parts: Any
    known: Any
    reads: Any
    pieces: Any
    sizes: Any
    dims: Any
    steps: Any
    made: Any

    def __init__(self, body: Any, objects: Any = None, numbers: Any = None, frozen: Any = None, parts: Any = None,
                 first: int = 0, plans: Any = None, name: str = "the function") -> None:
        plans = {} if plans is None else plans
        self.name = name
        if objects is None:
            objects = [np.arange(s.first, s.first + s.count) for s in body.segments]
        self.where = np.full(body.nodes, NOTHING, np.int32)
        self.at = np.zeros(body.nodes, np.int32)
        self.number = np.zeros(body.nodes)
        self.frozen = np.zeros(body.nodes, bool)
        self.sizes, self.dims = [], []
        for slots, is_frozen in zip(objects, frozen or [False] * len(objects)):
            self.add(np.asarray(slots, int), vector(len(slots)), is_frozen)
        for slot, x in {**body.constants, **(numbers or {})}.items():
            self.where[slot], self.number[slot], self.frozen[slot] = CONSTANT, x, True
        self.reads, self.known = [], {}
        self.steps, self.made = [], []
        results = body.results[first:first + sum(parts)] if parts else body.results
        for alike in groups_of(body, needed(body, results)):
            self.lay(alike, plans)
        ends = np.cumsum(parts or [len(body.results)]).tolist()
        results = np.array(results, int)
        self.parts = [self.read(results[end - n:end].reshape(vector(n)), vector(n))
                      for n, end in zip(parts or ends, ends)]
        self.cut()
        del self.where, self.at, self.number, self.known, self.frozen

    def add(self, slots: Any, shape: Any, frozen: Any) -> Any:
        """An array with the numbers of these slots."""
        self.where[slots] = len(self.sizes)
        self.at[slots] = np.arange(len(slots))
        self.sizes.append(len(slots))
        self.dims.append(len(shape))
        self.frozen[slots] = frozen
        return len(self.sizes) - 1

    # ---- instructions ----

    def lay(self, alike: Any, plans: Any) -> None:
        """Append what instructions do that are alike, and do not wait for each other."""
        one = alike[0]
        if one.op == "COPY":
            for one in alike:
                self.alias(one, np.array(one.operands))
        elif one.op == "MAP" and one.param == "COPY":
            for one in alike:
                self.lay_copy(one)
        elif not one.operands or type(one.operands[0]) is not View:
            reads = [self.read_slots(x) for x in zip(*[one.operands for one in alike])]
            self.step(alike, "row", one.op, reads, None, ())
        elif one.op == "MAP":
            self.lay_map(alike)
        elif one.op == "LAYER":
            self.lay_layer(alike)
        elif one.op in ("SUM", "MEAN", "MAX", "LOGSUMEXP"):
            x, = one.operands
            size, flat = one.rows * one.cols, one.rows * one.cols == 1
            read = self.read_views(alike, 0, (x.rows * x.cols,) if flat else (x.rows, x.cols))
            self.step(alike, "reduce", one.op, [read], x.rows * x.cols if flat else x.cols, vector(size))
        elif one.op in ("SOFTMAX", "LOG_SOFTMAX"):
            shape = one.rows, one.cols
            self.step(alike, "softmax", one.op, [self.read_views(alike, 0, shape)], None, shape)
        elif one.op == "CROSS_ENTROPY":
            x, = one.operands
            self.step(alike, "cross_entropy", one.op, [self.read_view(x, (x.rows, x.cols))], tuple(one.labels), ())
        elif one.op == "TAKE":
            self.lay_take(alike)
        elif one.op == "CALL":
            self.lay_call(one, plans)
        else:
            raise ArgumentError(f"{self.name} has an instruction {one.op!r}, which this export does not know")

    def step(self, alike: Any, kind: Any, op: Any, reads: Any, data: Any, shape: Any, joined: bool = False) -> None:
        """Append a step, of which the results are those of the instructions, one after the other; not `joined`: with a
        dimension for that."""
        if len(alike) > 1 and not joined:
            shape = (len(alike), *shape)
        self.steps.append(Step(kind, op, alike[0].immediate, tuple(reads), data, shape))
        slots = np.concatenate([np.arange(one.first, one.first + one.rows * one.cols) for one in alike])
        frozen = [self.is_frozen(one) for one in alike]
        self.made.append((self.add(slots, shape, np.repeat(frozen, one_size(alike[0]))),))

    def is_frozen(self, one: Any) -> Any:
        """Whether an instruction depends on numbers alone that take no gradient."""
        return all(map(self.are_frozen, one.operands))

    def are_frozen(self, operand: Any) -> Any:
        """The same of a slot or a view."""
        return bool(self.frozen[slots_of(operand) if type(operand) is View else operand].all())

    def is_stopped(self, view: Any) -> Any:
        return view.constant and not self.are_frozen(view)

    def alias(self, one: Any, slots: Any) -> None:
        """The results are numbers that there are already."""
        slots = slots.ravel()
        to = slice(one.first, one.first + len(slots))
        for column in (self.where, self.at, self.number, self.frozen):
            column[to] = column[slots]

    def lay_copy(self, one: Any) -> None:
        view, = one.operands
        if self.is_stopped(view):
            shape = one.rows, one.cols
            self.step([one], "copy", "COPY", [self.read_view(view, shape)], None, shape)
        else:
            self.alias(one, np.broadcast_to(slots_of(view), (one.rows, one.cols)))

    def lay_map(self, alike: Any) -> None:
        one = alike[0]
        m, n = one.rows, one.cols
        reads = []
        for k, view in enumerate(one.operands):
            several = [once(one.operands[k]) for one in alike]
            rows, cols = max(v.rows for v in several), max(v.cols for v in several)
            several = [v if (v.rows, v.cols) == (rows, cols) else one.operands[k]._replace(rows=rows, cols=cols)
                       for v, one in zip(several, alike)]
            reads.append(self.read_several(several, () if m * n == 1 else (cols,) if m == 1 else (rows, cols)))
        self.step(alike, "row", one.param, reads, None, () if m * n == 1 else (n,) if m == 1 else (m, n))

    def lay_layer(self, alike: Any) -> None:
        one = alike[0]
        x, w, *b = one.operands
        if one.rows * one.cols == 1 and not b:   # a dot product
            reads, shape = [self.read_views(alike, k, (x.cols,)) for k in range(2)], ()
        else:
            shape = one.rows, one.cols
            reads = [self.read_views(alike, k, (v.rows, v.cols)) for k, v in enumerate((x, w))]
            reads += [self.read_views(alike, 2, (v.cols,)) for v in b]
        self.step(alike, "layer", one.op, reads, one.param, shape)

    def lay_take(self, alike: Any) -> None:
        left = []
        for one in alike:
            x, p = one.operands
            slots = slots_of(p).ravel()
            table, at = slots_of(x), self.number[slots]
            length = table.shape[1 if one.immediate else 0]
            if (self.where[slots] == CONSTANT).all() and not self.is_stopped(x) and (
                    (at == np.floor(at)) & (at >= -length) & (at < length)).all():
                at = at.astype(int)
                self.alias(one, table[np.arange(len(at)), at] if one.immediate else table[at])
            else:
                left.append(one)
        if not left:
            return
        one, each = left[0], bool(left[0].immediate)
        x, p = one.operands
        if not each and all(other.operands[0] == x for other in left):   # rows of one table
            slots = np.concatenate([slots_of(one.operands[1]).ravel() for one in left])
            reads = [self.read_view(x, (x.rows, x.cols)), self.read(slots, slots.shape)]
            self.step(left, "take", one.op, reads, each, (len(left) * one.rows, one.cols), joined=True)
            return
        table = self.read_views(left, 0, (x.rows, x.cols))
        positions = np.stack([slots_of(one.operands[1]).ravel() for one in left])
        positions = positions if len(left) > 1 else positions[0]
        self.step(left, "take", one.op, [table, self.read(positions, positions.shape)], each,
                  (one_size(one),) if each else (one.rows, one.cols))

    def lay_call(self, one: Any, plans: Any) -> None:
        called = plan_of(one.callee, tuple(map(self.are_frozen, one.operands)), plans, self.name)
        reads = [self.read_view(v, vector(v.rows * v.cols)) for v in one.operands]
        self.steps.append(Step("call", one.op, 0, tuple(reads), called, ()))
        first, made = one.first, []
        for size in called.sizes_of_results:
            made.append(self.add(np.arange(first, first + size), vector(size), self.is_frozen(one)))
            first += size
        self.made.append(tuple(made))

    # ---- operands ----

    def read_slots(self, slots: Any) -> Any:
        """The read of one operand of single operations that are alike."""
        same = len(set(slots)) == 1
        key = slots[:1] if same else slots
        shape = () if len(slots) == 1 else (len(key),)
        found = self.known.get((key, shape))
        if found is None:
            found = self.known[key, shape] = self.read(np.array(key).reshape(shape), shape)
        return found

    def read_view(self, view: Any, shape: Any) -> Any:
        found = self.known.get((view, shape))
        if found is None:
            found = self.read(slots_of(view).reshape(shape), shape)
            if self.is_stopped(view):
                found = self.keep(Read("stopped", found, None, shape))
            self.known[view, shape] = found
        return found

    def read_views(self, alike: Any, k: Any, shape: Any) -> Any:
        """The read of operand k of instructions that are alike."""
        return self.read_several([one.operands[k] for one in alike], shape)

    def read_several(self, views: Any, shape: Any) -> Any:
        """Several views, of one shape, in one array; or only one, if they are the same."""
        if len(views) == 1:
            return self.read_view(views[0], shape)
        if views.count(views[0]) == len(views):
            views = views[:1]
        stopped = [self.is_stopped(view) for view in views]
        if any(stopped) and not all(stopped):   # so that a gradient flows to the others
            pieces = [self.read_view(view, (view.rows * view.cols,)) for view in views]
            return self.keep(Read("joined", tuple(pieces), None, (len(views), *shape)))
        shape = (len(views), *shape)
        found = self.read(np.stack([slots_of(view) for view in views]).reshape(shape), shape)
        return self.keep(Read("stopped", found, None, shape)) if any(stopped) else found

    def keep(self, read: Any) -> Any:
        """The number of a read; the same one has the same."""
        key = (read.kind, read.source, read.data if type(read.data) is not np.ndarray else
               (read.data.tobytes(), read.data.shape), read.shape)
        if read.kind == "number":
            key = ("number", read.data.hex(), read.shape)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = len(self.reads)
            self.reads.append(read)
        return found

    def read(self, slots: Any, shape: Any) -> Any:
        """The number of the read of slots, an array of that shape."""
        flat = slots.ravel()
        where, at = self.where[flat], self.at[flat]
        assert not (where == NOTHING).any(), "a slot that nobody has computed"
        if (where == CONSTANT).all():
            numbers = self.number[flat]
            if (numbers.view(np.int64) == numbers.view(np.int64)[0]).all():
                return self.keep(Read("number", None, float(numbers[0]), shape))
            return self.keep(Read("constant", None, numbers.reshape(shape), shape))
        if len(shape) > 1:
            rows, cols = shape[-2:]
            if rows > 1 and (slots == slots[..., :1, :]).all():
                part = self.read(slots[..., :1, :], (*shape[:-2], 1, cols))
                return self.keep(Read("repeated", part, None, shape))
            if cols > 1 and (slots == slots[..., :1]).all():
                return self.keep(Read("repeated", self.read(slots[..., :1], (*shape[:-1], 1)), None, shape))
        elif len(flat) > 3:
            spread = spread_of(flat)
            if spread is not None:
                part, by = spread
                inner = part.reshape((-1, 1) if by else (1, -1))
                whole = (len(part), by) if by else (len(flat) // len(part), len(part))
                found = self.keep(Read("repeated", self.read(inner, inner.shape), None, whole))
                return self.keep(Read("joined_rows", found, None, shape))
        if (where == where[0]).all():
            return self.keep(self.of_one(int(where[0]), slots, at.reshape(shape)))
        return self.of_several(slots, where, at, shape)

    def of_one(self, k: Any, slots: Any, places: Any) -> Any:
        """Elements of one array, at these places of it."""
        total, at, shape = self.sizes[k], places.ravel(), places.shape
        start, n = int(at[0]), len(at)
        steps = np.diff(at)
        if n == total and start == 0 and (steps == 1).all():
            return Read("whole", k, None, shape)
        if n == 1 or steps[0] > 0 and (steps == steps[0]).all():
            return Read("slice", k, (start, int(at[-1]) + 1, 1 if n == 1 else int(steps[0])), shape)
        if len(shape) > 1 and min(shape[-2:]) > 1:
            rows, cols = n // shape[-1], shape[-1]
            matrix = at.reshape(rows, cols)
            across, down = int(matrix[0, 1]) - start, int(matrix[1, 0]) - start
            if across == 1 and down >= cols and is_even(matrix, down, across):
                block = block_of(total, start, rows, cols, down)
                if block is not None:
                    return Read("block", k, block, shape)
            turned = places.swapaxes(-1, -2)
            if across != 1 and len(edges_of(np.zeros(n, int), turned.ravel())) < len(edges_of(np.zeros(n, int), at)):
                return Read("swapped", self.read(slots.swapaxes(-1, -2), turned.shape), None, shape)
        return Read("take", k, at.astype(np.int32), shape)

    def of_several(self, slots: Any, where: Any, at: Any, shape: Any) -> Any:
        edges = edges_of(where, at)
        if len(shape) > 1 and min(shape[-2:]) > 1:
            turned = slots.swapaxes(-1, -2)
            flat = turned.ravel()
            if len(edges_of(self.where[flat], self.at[flat])) < len(edges):
                return self.keep(Read("swapped", self.read(turned, turned.shape), None, shape))
        objects = sorted(set(where.tolist()))
        flat = slots.ravel()
        if len(edges) + 1 <= len(objects) + FEW:
            pieces = [self.read(part, part.shape) for part in np.split(flat, edges)]
            return self.keep(Read("joined", tuple(pieces), None, shape))
        wanted = [np.unique(flat[where == k]) for k in objects]
        whole = []
        for k, part in zip(objects, wanted):   # all of an array, if that is not far more than what is wanted
            whole.append(np.flatnonzero(self.where == k) if k != CONSTANT and self.sizes[k] <= 2 * len(part) + FEW
                         else part)
        # a slot may be another's alias: which of them does not matter
        order = []
        for k, part in zip(objects, whole):
            if k != CONSTANT:
                part = part[np.unique(self.at[part], return_index=True)[1]]
            order.append(part)
        place = {}
        for slot in np.concatenate(order).tolist():
            key = (int(self.where[slot]), int(self.at[slot])) if self.where[slot] != CONSTANT else (CONSTANT, slot)
            place[key] = len(place)
        pool = self.keep(Read("joined", tuple([self.read(part, part.shape) for part in order]), None,
                              (len(place),)))
        picked = np.array([place[(int(w), int(a)) if w != CONSTANT else (CONSTANT, int(s))]
                           for w, a, s in zip(where, at, flat)], np.int32)
        return self.keep(Read("picked", pool, picked, shape))

    def cut(self) -> None:
        """Find the vectors that are read in parts of which none is in another."""
        ranges = {}
        for read in self.reads:
            if read.kind == "slice" and read.data[2] == 1:
                ranges.setdefault(read.source, set()).add(read.data[:2])
        self.pieces = {}
        for k, found in ranges.items():
            found = sorted(found)
            if len(found) > 1 and all(a[1] <= b[0] for a, b in zip(found, found[1:])):
                at, pieces = 0, []
                for start, stop in found:
                    if start > at:
                        pieces.append((at, start))
                    pieces.append((start, stop))
                    at = stop
                if at < self.sizes[k]:
                    pieces.append((at, self.sizes[k]))
                self.pieces[k] = pieces

    # ---- as others call it ----

    @property
    def sizes_of_results(self) -> Any:
        return [max(1, int(np.prod(self.reads[k].shape, dtype=int))) for k in self.parts]

    def call(self, engine: Any, operands: Any) -> Any:
        """The results, a vector for each part."""
        return Run(self, engine, operands).results()


class RuledPlan:
    """A program whose gradients go by a rule.

    Attributes
    ----------
    forward : Plan
    rule : Plan or None
        From the operands and the gradient of the result to the gradients of some operands.
    places : tuple of int
        Which operands these are.
    linear : bool
        Whether the rule is certainly linear in the gradient of the result: then it says what forward mode computes.
    """

    forward: Any
    rule: Any
    places: Any

    linear: Any

    def __init__(self, forward: Any, rule: Any, places: Any) -> None:
        self.forward, self.rule, self.places = forward, rule, places
        self.linear = rule is None or is_linear(rule)

    @property
    def sizes_of_results(self) -> Any:
        return self.forward.sizes_of_results

    def call(self, engine: Any, operands: Any) -> Any:
        batch = np.broadcast_shapes(*[batch_of(x, n) for x, n in zip(operands, self.forward.sizes)])
        operands = [engine.broadcast(x, batch + vector(n)) for x, n in zip(operands, self.forward.sizes)]
        return [engine.ruled(self, operands)]

    def gradients(self, engine: Any, operands: Any, g: Any) -> Any:
        """What the operands get from the gradient of the result; None for one that gets nothing."""
        given = [None] * len(operands)
        if self.rule is not None:
            for k, x in zip(self.places, self.rule.call(engine, [*operands, g])):
                given[k] = engine.broadcast(x, operands[k].shape)
        return given


class ScanPlan:
    """A program that is computed for one step after the other; see `Scan`."""

    step: Any

    counts: Any
    length: Any
    backwards: Any
    carries: Any
    xs: Any
    sizes: Any

    def __init__(self, scan: Any, step: Any) -> None:
        self.step, self.length, self.backwards = step, scan.length, scan.backwards
        self.counts = [s.count for s in scan.segments]
        self.carries, self.xs, self.sizes = scan.carries, scan.xs, list(scan.sizes)

    @property
    def sizes_of_results(self) -> Any:
        return self.counts[:self.carries] + [self.length * n for n in self.sizes]

    def call(self, engine: Any, operands: Any) -> Any:
        carries, length = self.carries, self.length
        batch = np.broadcast_shapes(*[batch_of(x, n) for x, n in zip(operands, self.counts)])
        carry = [engine.broadcast(x, batch + vector(n)) for x, n in zip(operands, self.counts[:carries])]
        xs = []
        for x, n in zip(operands[carries:carries + self.xs], self.counts[carries:]):
            rows = x.reshape((*batch_of(x, n), length, *vector(n // length)))
            xs.append(engine.moved(rows, len(batch_of(x, n)), 0))
        rest = list(operands[carries + self.xs:])
        shapes = [batch + vector(n) for n in self.counts[:carries] + self.sizes]

        def step(carry, x):
            results = self.step.call(engine, [*carry, *x, *rest])
            results = [engine.broadcast(y, shape) for y, shape in zip(results, shapes)]
            return results[:carries], results[carries:]
        last, outputs = engine.scan(step, carry, xs, length, self.backwards)
        return list(last) + [engine.moved(y, 0, len(batch)).reshape((*batch, *vector(length * n)))
                             for y, n in zip(outputs, self.sizes)]


class LanesPlan:
    """A program that is computed for each sample of a batch; see `Lanes`."""

    program: Any

    counts: Any
    groups: Any
    samples: Any
    varies: Any

    def __init__(self, lanes: Any, program: Any) -> None:
        self.program, self.samples, self.varies = program, lanes.samples, lanes.varies
        self.counts = [s.count for s in lanes.segments]
        self.groups = [(count, summed) for _, count, summed in lanes.groups]

    @property
    def sizes_of_results(self) -> Any:
        return [count * (1 if summed else self.samples) for count, summed in self.groups]

    def call(self, engine: Any, operands: Any) -> Any:
        batch = np.broadcast_shapes(*[batch_of(x, n) for x, n in zip(operands, self.counts)])
        given = []
        for x, n, varies in zip(operands, self.counts, self.varies):
            own = batch_of(x, n)
            if varies:
                x = x.reshape((*own, self.samples, *vector(n // self.samples)))
            elif own:
                x = x.reshape((*own, 1, *vector(n)))
            given.append(x)
        results = []
        for y, (count, summed) in zip(self.program.call(engine, given), self.groups):
            y = engine.broadcast(y, (*batch, self.samples, *vector(count)))
            results.append(engine.sum(y, -1 if count == 1 else -2) if summed
                           else y.reshape((*batch, *vector(self.samples * count))))
        return results


def plan_of(callee: Any, frozen: Any, plans: Any, name: Any) -> Any:
    """What a call computes, as a plan, with operands of which some are frozen. `plans` has those that are made already,
    by the callee."""
    found = plans.get((id(callee), frozen))
    if found is None:
        what = listing(callee)
        if type(what) is Body:
            found = Plan(what, frozen=frozen, plans=plans, name=name)
            if what.ruled:
                places = [k for k, at in enumerate(what.gives) if at > 0]
                rule = None
                if what.rule is not None and places:
                    places.sort(key=lambda k: what.gives[k])
                    counts = [what.segments[k].count for k in places]
                    rule = Plan(listing(what.rule), frozen=(*frozen, False), parts=counts,
                                first=what.gives[places[0]] - 1, plans=plans, name=name)
                found = RuledPlan(found, rule, tuple(places))
        elif type(what) is Scan:
            counts = [s.count for s in what.segments[:what.carries]] + list(what.sizes)
            step = Plan(listing(what.step), frozen=(False,) * what.carries + frozen[what.carries:], parts=counts,
                        plans=plans, name=name)
            found = ScanPlan(what, step)
        elif type(what) is Lanes:
            found = LanesPlan(what, Plan(listing(what.program), frozen=frozen,
                                         parts=[count for _, count, _ in what.groups], plans=plans, name=name))
        else:
            raise ArgumentError(f"{name} calls a function that Python computes, which cannot be exported; a function "
                                "of custom_derivative that is made of operations of flatgrad can")
        plans[id(callee), frozen] = found
        plans.setdefault("kept", []).append(callee)   # so that its id stays its own
    return found


# Rows that are linear in these operands together, if the others do not depend on what they are linear in.
LINEAR: dict[str, list[tuple[Any, ...]]]
LINEAR = {"COPY": [(0,)], "NEG": [(0,)], "ADD": [(0, 1)], "SUB": [(0, 1)], "MUL": [(0,), (1,)], "DIV": [(0,)],
          "QUOTIENT": [(0,)], "WHERE": [(1, 2)], "GATE": [(1,)], "SHARE": [(2,)], "TANH_SLOPE": [(1,)],
          "SIGMOID_SLOPE": [(1,)]}


def is_linear(plan: Any) -> Any:
    """Whether the results are certainly linear in the last operand: a product with something else, and sums of such."""
    arrays, reads = set(), {}
    arrays.add(len(plan.sizes) - 1 - sum(map(len, plan.made)))

    def kind_of(k):
        """"linear", "zero", which is linear as well, "free", or "neither"."""
        if k not in reads:
            read = plan.reads[k]
            if read.kind == "number":
                reads[k] = "zero" if read.data == 0.0 else "free"
            elif read.kind == "constant":
                reads[k] = "free" if read.data.any() else "zero"
            elif read.kind == "joined":
                kinds = {kind_of(part) for part in read.source}
                reads[k] = "neither" if "neither" in kinds or {"linear", "free"} <= kinds else (
                    "linear" if "linear" in kinds else "free" if "free" in kinds else "zero")
            elif read.kind in ("picked", "swapped", "repeated", "joined_rows"):
                reads[k] = kind_of(read.source)
            elif read.kind == "stopped":
                reads[k] = "neither" if kind_of(read.source) in ("linear", "neither") else "free"
            else:
                reads[k] = "linear" if read.source in arrays else "free"
        return reads[k]
    for step, made in zip(plan.steps, plan.made):
        kinds = [kind_of(k) for k in step.reads]
        if "linear" not in kinds and "neither" not in kinds:
            continue
        ways = LINEAR.get(step.op, []) if step.kind == "row" else {
            "copy": [(0,)], "take": [(0,)],
            "reduce": [(0,)] if step.op in ("SUM", "MEAN") else [],
            "layer": [(0,), (1,)] if step.data == "LEAF" and len(kinds) == 2 else []}.get(step.kind, [])
        if not any(all(kind in (("linear", "zero") if k in way else ("free", "zero")) for k, kind in enumerate(kinds))
                   for way in ways):
            return False
        arrays.update(made)
    return all(kind_of(k) in ("linear", "zero") for k in plan.parts)


def once(view: Any) -> Any:
    """A view without the rows or the columns that are the first again."""
    return view if view.listed is not None else view._replace(rows=view.rows if view.down else min(1, view.rows),
                                                              cols=view.cols if view.across else min(1, view.cols))


def one_size(one: Any) -> Any:
    return one.rows * one.cols


def spread_of(flat: Any) -> Any:
    """Whether a vector is a shorter one with each element several times, or all of it: that one, and how often each
    element is there, or 0; None if it is neither."""
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    n, by = len(flat), int(changes[0]) if len(changes) else len(flat)
    if by > 1 and n % by == 0 and (flat.reshape(-1, by) == flat[::by, None]).all():
        return flat[::by], by
    again = np.flatnonzero(flat[1:] == flat[0]) + 1
    period = int(again[0]) if len(again) else n
    if 1 < period < n and n % period == 0 and (flat.reshape(-1, period) == flat[:period]).all():
        return flat[:period], 0
    return None


def is_even(matrix: Any, down: Any, across: Any) -> Any:
    rows, cols = matrix.shape
    return (matrix == matrix[0, 0] + down * np.arange(rows)[:, None] + across * np.arange(cols)).all()


def groups_of(body: Any, instructions: Any) -> Iterator[Any]:
    """Lists of instructions that are computed as one: that are alike but for their operands, small, and need nothing of
    each other; in an order in which each comes behind what it needs."""
    level, found = np.zeros(body.nodes, np.int32), {}
    for one in instructions:
        views = one.operands and type(one.operands[0]) is View
        if views:
            own = 1 + max([int(level[slots_of(x)].max()) for x in one.operands if x.rows * x.cols], default=0)
            size = max([one_size(one), *[x.rows * x.cols for x in one.operands]])
        else:
            own, size = 1 + max([int(level[x]) for x in one.operands]), 1
        level[one.first:one.first + one_size(one)] = own
        if one.op == "TAKE" and not one.immediate and size > LARGE:
            kind = one.op, one.operands[0], one.rows   # rows of one table
        elif one.op in ("CALL", "CROSS_ENTROPY") or size > LARGE:
            kind = (one.first,)
        elif views:
            kind = one.op, one.param, one.immediate, one.rows, one.cols, *[(x.rows, x.cols) for x in one.operands]
        else:
            kind = one.op, one.immediate
        found.setdefault(own, {}).setdefault(kind, []).append(one)
    for own in sorted(found):
        for alike in found[own].values():
            single = not (alike[0].operands and type(alike[0].operands[0]) is View)
            if single and len(alike) < MANY:
                yield from ([one] for one in alike)
            else:
                yield alike


def needed(body: Any, results: Any) -> Any:
    """The instructions that results need, in order."""
    wanted = np.zeros(body.nodes, bool)
    wanted[list(results)] = True
    found = []
    for one in reversed(body.instructions):
        if one.rows * one.cols == 1:
            if not wanted[one.first]:
                continue
        elif not wanted[one.first:one.first + one.rows * one.cols].any():
            continue
        one = without_tie(one)
        found.append(one)
        for x in one.operands:
            wanted[slots_of(x) if type(x) is View else x] = True
    return found[::-1]


def without_tie(one: Any) -> Any:
    """The instruction, or a copy in place of the larger or the smaller of a number and itself. XLA may compute the
    number twice, with other roundings, so that each comparison of the derivative sees another one."""
    op = one.param if one.op == "MAP" else one.op
    if op not in ("MAXIMUM", "MINIMUM") or one.operands[0] != one.operands[1]:
        return one
    if one.op != "MAP":
        return one._replace(op="COPY", operands=one.operands[:1])
    return one._replace(param="COPY", operands=one.operands[:1])


def edges_of(where: Any, at: Any) -> Any:
    """Where stretches end of which all numbers are constants, or in a row of one array."""
    return np.flatnonzero((where[1:] != where[:-1]) | (np.diff(at) != 1) & (where[1:] != CONSTANT)) + 1


def block_of(total: Any, start: Any, rows: Any, cols: Any, pitch: Any) -> Any:
    """A block of a matrix with `pitch` columns within a vector, as Read has it; None if the vector is too short."""
    column = start % pitch
    if column + cols <= pitch and total % pitch == 0:
        first = start - column
    elif start + rows * pitch <= total:
        first, column = start, 0
    elif start + (rows - 1) * pitch + cols - rows * pitch >= 0:
        first, column = start + (rows - 1) * pitch + cols - rows * pitch, pitch - cols
    else:
        return None
    return first, rows, pitch, column, column + cols


def split_orders(engine: Any, op: Any, operands: Any) -> Any:
    """A row of ORDERED whose orders differ from element to element, by one row for each order; None for other rows."""
    if op not in ORDERED or type(operands[-1]) is float:
        return None
    orders = engine.known(operands[-1])
    if orders is None:
        raise ArgumentError(f"{op}: expected an order that is a constant, got {shortened(operands[-1])}")
    total = None
    for order in np.unique(orders).tolist():
        z = engine.row(op, [*operands[:-1], float(order)], 0)
        total = z if total is None else engine.where(orders == order, z, total)
    return total


def batch_of(x: Any, size: Any) -> Any:
    """The dimensions of a batch that a vector has in front."""
    return tuple(x.shape) if size == 1 else tuple(x.shape[:-1])


class Run:
    """A plan with arrays."""

    plan: Any
    engine: Any

    objects: Any
    fetched: Any
    cuts: Any

    def __init__(self, plan: Any, engine: Any, operands: Any) -> None:
        self.plan, self.engine = plan, engine
        self.objects = list(operands) + [None] * (len(plan.sizes) - len(operands))
        self.fetched = [None] * len(plan.reads)
        self.cuts = {}

    def results(self) -> Any:
        for step, made in zip(self.plan.steps, self.plan.made):
            operands = [self.fetch(k) if step.kind == "row" else self.dense(k) for k in step.reads]
            found = getattr(self, step.kind)(step, operands)
            for k, x in zip(made, found if step.kind == "call" else (self.repeated(found, step.shape),)):
                self.objects[k] = x
        return [self.dense(k) for k in self.plan.parts]

    def repeated(self, x: Any, shape: Any) -> Any:
        """What was computed of operands that are all repeated, such as one vector for each row, in the shape that it
        has for others."""
        n = len(shape)
        if type(x) is float or tuple(x.shape[x.ndim - n:]) == tuple(shape):
            return x
        return self.engine.broadcast(x, (*x.shape[:x.ndim - n], *shape))

    def dense(self, number: Any) -> Any:
        """A read as an array, where rows take numbers as well."""
        x = self.fetch(number)
        return self.engine.constant(np.full(self.plan.reads[number].shape, x)) if type(x) is float else x

    # ---- operands ----

    def fetch(self, number: Any) -> Any:
        x = self.fetched[number]
        if x is None:
            x = self.fetched[number] = self.found(self.plan.reads[number])
        return x

    def found(self, read: Any) -> Any:
        engine, kind, shape = self.engine, read.kind, read.shape
        if kind == "number":
            return read.data
        if kind == "constant":
            return engine.constant(read.data)
        if kind == "whole":
            x = self.objects[read.source]
            return x if type(x) is float else shaped(x, self.plan.dims[read.source], shape)
        if kind == "slice":
            start, stop, step = read.data
            pieces = self.plan.pieces.get(read.source)
            if pieces and step == 1:
                cut = self.cuts.get(read.source)
                if cut is None:
                    parts = engine.split(self.flat(read.source), [b - a for a, b in pieces])
                    cut = self.cuts[read.source] = dict(zip(pieces, parts))
                return shaped(cut[start, stop], 1, shape)
            return shaped(engine.slice(self.flat(read.source), start, stop, step), 1, shape)
        if kind == "block":
            first, rows, pitch, low, high = read.data
            x = self.flat(read.source)
            if (first, rows * pitch) != (0, self.plan.sizes[read.source]):
                x = engine.slice(x, first, first + rows * pitch, 1)
            x = shaped(x, 1, (rows, pitch))
            return shaped(x if (low, high) == (0, pitch) else engine.slice(x, low, high, 1), 2, shape)
        if kind == "take":
            return shaped(engine.take(self.flat(read.source), read.data), 1, shape)
        if kind == "joined":
            return shaped(engine.joined([self.dense(k) for k in read.source]), 1, shape)
        if kind == "picked":
            return shaped(engine.take(self.fetch(read.source), read.data), 1, shape)
        x = self.fetch(read.source)
        if kind == "stopped":
            return engine.stopped(x)
        if kind == "joined_rows":
            return shaped(x, 2, shape)
        if kind == "swapped":
            return x.swapaxes(-1, -2)
        return engine.broadcast(x, tuple(x.shape[:-2]) + shape)

    def flat(self, k: Any) -> Any:
        return shaped(self.objects[k], self.plan.dims[k], (self.plan.sizes[k],))

    # ---- instructions ----

    def row(self, step: Any, operands: Any) -> Any:
        return self.engine.row(step.op, operands, step.immediate)

    def copy(self, step: Any, operands: Any) -> Any:
        return operands[0]

    def layer(self, step: Any, operands: Any) -> Any:
        x, w, *b = operands
        if len(self.plan.reads[step.reads[0]].shape) == len(step.shape) + 1:   # dot products
            z = self.engine.sum(x * w, -1)
        else:
            z = self.engine.product(x, w)
            if b:
                z = z + b[0][..., None, :]
        return z if step.data == "LEAF" else self.engine.row(step.data, [z], 0)

    def reduce(self, step: Any, operands: Any) -> Any:
        x, = operands
        if step.op == "SUM":
            return self.engine.sum(x, -1)
        if step.op == "MEAN":
            return self.engine.sum(x, -1) / step.data
        return self.engine.largest(x) if step.op == "MAX" else self.engine.logsumexp(x)

    def softmax(self, step: Any, operands: Any) -> Any:
        return (self.engine.softmax if step.op == "SOFTMAX" else self.engine.log_softmax)(*operands)

    def cross_entropy(self, step: Any, operands: Any) -> Any:
        x = self.engine.log_softmax(*operands)
        rows, cols = x.shape[-2:]
        at = np.arange(rows) * cols + np.array(step.data)
        return -self.engine.sum(self.engine.take(shaped(x, 2, (rows * cols,)), at.astype(np.int32)), -1) / rows

    def take(self, step: Any, operands: Any) -> Any:
        return self.engine.taken(*operands, step.data)

    def call(self, step: Any, operands: Any) -> Any:
        return step.data.call(self.engine, operands)


def shaped(x: Any, dims: Any, shape: Any) -> Any:
    """An array with that shape in place of its last dimensions."""
    if dims == len(shape) and tuple(x.shape[x.ndim - dims:]) == shape:
        return x
    return x.reshape(tuple(x.shape[:x.ndim - dims]) + shape)


# ---- derivatives of rows ----

@functools.lru_cache(None)
def row_rule(op, immediate, arity, order=None):
    """The derivatives of a row, by the rule of csrc/written_rows.c.

    Parameters
    ----------
    op : str
        The ID.
    immediate : int
        The exponent of "POWI".
    arity : int
    order : float, optional
        The last operand, if that is an order.

    Returns
    -------
    dict of int to Plan
        For each operand with a derivative the program that computes what it gets, from the operands and the gradient of
        the result.
    """
    free = arity - (order is not None)
    inputs = [Value(1.0) for _ in range(free)]
    recording = _Recording(inputs)
    with recording:
        if op == "POWI":
            z = inputs[0] ** immediate
        else:
            z = _apply(op, *inputs, *([order] if order is not None else []))
    callee, found = _core._with_gradients(_core._callee(recording.program([z])), [True] * free, True)
    body = listing(callee)
    return {k: Plan(body, parts=[1], first=at) for k, at in found}


class MixedRow:
    """A row of which some operands are numbers, as a function of the others, with flatgrad's derivatives.

    Parameters
    ----------
    op : str
    immediate : int
    numbers : tuple of (str or None)
        In hexadecimal, so that nan is nan; None for the others.
    """

    op: Any
    immediate: Any

    numbers: Any

    def __init__(self, op: Any, immediate: Any, numbers: Any) -> None:
        self.op, self.immediate = op, immediate
        self.numbers = [None if x is None else float.fromhex(x) for x in numbers]

    def operands(self, arrays: Any) -> Any:
        arrays = iter(arrays)
        return [next(arrays) if x is None else x for x in self.numbers]

    def value(self, package: Any, arrays: Any) -> Any:
        return evaluate(self.op, package, self.operands(arrays), self.immediate)

    def gradients(self, engine: Any, arrays: Any, gs: Any) -> Any:
        """What each of the arrays gets of its own g; None for a g that is None, and for one that gets nothing."""
        operands, ordered = self.operands(arrays), self.op in ORDERED
        rule = row_rule(self.op, self.immediate, len(operands), operands[-1] if ordered else None)
        if ordered:
            del operands[-1]
        free = [k for k, x in enumerate(self.numbers) if x is None]
        return [rule[k].call(engine, [*operands, g])[0] if g is not None and k in rule else None
                for k, g in zip(free, gs)]


class Engine:
    """The operations of an engine. Arrays may have the dimensions of a batch in front.

    Subclasses have `package`, the module with the functions of `export.formulas`, and these methods:

    ``operand(x)``
        Numbers of the caller's as an array.
    ``constant(x)``, ``known(x)``
        An array of NumPy as an operand; an operand as an array of NumPy, None if its numbers are not known yet.
    ``slice(x, start, stop, step)``, ``split(x, sizes)``, ``take(x, at)``
        Elements of the last dimension.
    ``joined(xs)``
        Vectors, or numbers, one after the other.
    ``stacked(xs)``
        Arrays of one shape as the rows of one.
    ``broadcast(x, shape)``, ``moved(x, source, target)``, ``stopped(x)``, ``where(condition, x, y)``
    ``mixed(op, immediate, numbers, arrays)``
        A MixedRow, called with arrays.
    ``product(x, w)``
        x @ w.T
    ``sum(x, axis)``, ``largest(x)``, ``logsumexp(x)``, ``softmax(x)``, ``log_softmax(x)``
        The last four are of the last dimension.
    ``taken(x, p, each)``
        Rows of a table, or an element of each row, at positions that are numbers of the program.
    ``scan(step, carry, xs, length, backwards)``
    ``ruled(plan, operands)``
        A RuledPlan.
    """

    def row(self, op: Any, operands: Any, immediate: Any) -> Any:
        """A row of ops.def, element by element; an operand may be a float."""
        if op in NATIVE or all(type(x) is float for x in operands):
            return evaluate(op, self.package, operands, immediate)
        several = split_orders(self, op, operands)
        if several is not None:
            return several
        numbers = tuple([x.hex() if type(x) is float else None for x in operands])
        return self.mixed(op, immediate, numbers, [x for x in operands if type(x) is not float])
