"""Where the numbers of a body live in C.

A single operation is a local constant. The results of an instruction of many are an object: a part of the results
themselves where they lie so, else of the work array, from which it goes when nobody reads it again. An operand is read
where it lies if its slots are a matrix in one place, with any steps; else its numbers are copied first.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flatgrad.export.c.elementary import LOOPS
from flatgrad.export.listing import View, slots_of

if TYPE_CHECKING:
    from typing import Any

__all__ = ["CONSTANT", "Copy", "Grid", "LOCAL", "Layer", "Plan", "Step", "Store"]

ROLLED = 4     # so many like single operations in a row are a loop
VECTOR = 8     # numbers of a loop that are worth a vector
LINES = 400    # of a function, about; the rest is another function: compilers take long for long ones


class Step(NamedTuple):
    """An instruction as C computes it: a single operation if it is not `wide`, of slots; else its operands
    are arrays of slots. `part`: which of the functions it is in.
    """

    op: Any
    first: Any
    rows: Any
    cols: Any
    param: Any
    immediate: Any
    operands: Any
    labels: Any
    callee: Any
    wide: Any
    part: Any


class Grid(NamedTuple):
    """A matrix of numbers: element (i, j) is number first + i * down + j * across of a store."""

    store: Any
    first: Any
    down: Any
    across: Any


class Copy(NamedTuple):
    """Numbers that are copied to a store, in the order of the slots, before a step."""

    store: Any
    slots: Any


class Layer(NamedTuple):
    """How a layer is computed.

    Attributes
    ----------
    form : {"dot", "dot_apart", "rows", "columns", "product", "plain"}
        "rows": for each row of x dot products with rows of w. "columns": the same as a sum of columns. "product": in tiles.
    x, w : Grid
    b : Grid or None
    spare : Store or None
        For "product" w turned, or for what is `swapped` the result turned.
    swapped : bool
        Whether x and w have changed places, and so rows and columns of the result.
    """

    form: Any
    x: Any
    w: Any
    b: Any
    spare: Any
    swapped: Any


class Store:
    """Numbers in a row.

    Attributes
    ----------
    name : str
        The array in C.
    size : int
    offset : int
        Where they begin in that.
    born, dies : int
        Of an object in the work array: the steps that write it first and read it last.
    values : ndarray or None
        Of a table of constants.
    """

    name: Any
    size: Any

    offset: Any
    born: Any
    dies: Any
    values: Any

    __slots__ = ("name", "size", "offset", "born", "dies", "values")

    def __init__(self, name: Any, size: Any, offset: int = 0, born: Any = None, values: Any = None) -> None:
        self.name, self.size, self.offset, self.born, self.dies, self.values = name, size, offset, born, born, values


CONSTANT, LOCAL = 0, 1   # owners that are no stores


class Plan:
    """Where the numbers of a body live.

    Parameters
    ----------
    body : Body
    name : str
        Of the function, with which its tables begin.
    places : dict of int to (str, int) or float
    wants : callable
        Of a callee, how many numbers its work array has.
    dtype : {"float64", "float32"}
    outs : list of (str, int), optional
        The arrays that the results go to, and how many of them. None: all to "out".

    Attributes
    ----------
    steps : list of Step
    parts : int
        How many functions the steps are cut into.
    operands : list
        For each wide step what `resolve` has made of its operands: Grids and slots of single numbers.
    loops : dict of int to (int, int)
        For each "MAP" the sizes of its two loops.
    targets : dict of int to Grid
        And where its results go.
    copies : list of list of Copy
        Before each step.
    works : dict of int to Store
        The work array of each "CALL".
    results : list of list of (Store, list of (int, int))
        After each step, and last after all, stores of results, with pairs of a place and the slot whose number goes
        there.
    tables : list of Store
    work : int
        Numbers of the work array.
    """

    out_index: Any
    read_here: Any
    body: Any
    name: Any
    owner: Any
    index: Any

    value: Any
    stores: Any
    steps: Any
    parts: Any
    out: Any
    out_owner: Any
    results: Any
    work: Any
    dtype: Any
    tables: Any
    known_tables: Any
    operands: Any
    copies: Any
    loops: Any
    targets: Any
    works: Any

    def __init__(self, body: Any, name: Any, places: Any, wants: Any, dtype: str = "float64", outs: Any = None) -> None:
        self.body, self.name, self.dtype = body, name, dtype
        self.owner, self.index = np.zeros(body.nodes, np.int32), np.zeros(body.nodes, np.int64)
        self.value = {}
        self.stores = [None, None]
        self.tables, self.known_tables = [], {}
        self.place_area(places)
        self.value.update(body.constants)
        self.steps = self.live_steps()
        self.parts = self.steps[-1].part + 1 if self.steps else 1
        outs = [("out", len(body.results))] if outs is None else outs
        owners = [self.add(Store(*out)) for out in outs]
        self.out = self.stores[owners[0]]
        self.out_owner = np.repeat(owners, [count for _, count in outs])   # of each result: where it goes
        self.out_index = np.concatenate([np.arange(count) for _, count in outs])
        self.read_here = np.zeros(body.nodes, bool)   # single operations whose number is read in the same function
        self.place_results()
        self.operands, self.copies, self.loops, self.targets, self.works = [], [], {}, {}, {}
        for k, step in enumerate(self.steps):
            self.copies.append([])
            self.operands.append(self.resolve(k, step, wants) if step.wide else step.operands)
        self.results = self.results_by_step()
        self.find_deaths()
        self.work = self.allocate()

    def add(self, store: Any) -> Any:
        self.stores.append(store)
        return len(self.stores) - 1

    def place_area(self, places: Any) -> None:
        by_name = {}
        for k, (first, count) in enumerate(self.body.segments):
            for j in range(count):
                place = places.get(first + j, (f"a{k}", j))
                if isinstance(place, tuple):
                    if place[0] not in by_name:
                        by_name[place[0]] = self.add(Store(place[0], 0))
                    self.owner[first + j], self.index[first + j] = by_name[place[0]], place[1]
                else:
                    self.value[first + j] = float(place)

    # ---- steps ----

    def live_steps(self) -> Any:
        """The steps whose results somebody reads, like ones in loops, in parts."""
        instructions, wanted = self.body.instructions, np.zeros(self.body.nodes, bool)
        wanted[list(self.body.results)] = True
        kept = []
        for i in reversed(instructions):
            if wanted[i.first:i.first + i.rows * i.cols].any():
                wide = bool(i.operands) and isinstance(i.operands[0], View)
                operands = tuple(slots_of(v) for v in i.operands) if wide else i.operands
                for slots in operands:
                    wanted[slots] = True
                kept.append(i._replace(operands=operands))
        kept.reverse()
        steps, k, lines, part = [], 0, 0, 0
        while k < len(kept):
            i, count = kept[k], 1
            wide = bool(i.operands) and isinstance(i.operands[0], np.ndarray)
            if not wide:
                count = like(kept, k)
                if count >= ROLLED:
                    rows = zip(*(j.operands for j in kept[k:k + count]))
                    i = i._replace(op="MAP", param=i.op, cols=count, operands=tuple(np.array([row]) for row in rows))
                    wide = True
                else:
                    count = 1
            if lines >= LINES:
                lines, part = 0, part + 1
            lines += 3 if wide else 1
            steps.append(Step(*i, wide, part))
            k += count
        return steps

    def place_results(self) -> None:
        """An owner and an index for each result of each step."""
        body, nodes = self.body, self.body.nodes
        position = np.full(nodes, -1)
        for k in range(len(body.results) - 1, -1, -1):
            position[body.results[k]] = k
        part = np.zeros(nodes, int)
        single = np.zeros(nodes, bool)
        for step in self.steps:
            slots = slice(step.first, step.first + step.rows * step.cols)
            part[slots] = step.part
            single[slots] = not step.wide
        stored = np.zeros(nodes, bool)   # single operations that cannot be locals alone
        for step in self.steps:
            for slots in step.operands:
                if not step.wide:
                    stored[slots] |= single[slots] and part[slots] != step.part
                    self.read_here[slots] |= part[slots] == step.part
                elif step.op == "MAP" and (slots == slots.flat[0]).all():
                    slot = slots.flat[0]
                    stored[slot] |= single[slot] and part[slot] != step.part
                    self.read_here[slot] |= part[slot] == step.part
                else:
                    stored[slots] |= single[slots]
        last = -1
        for k, step in enumerate(self.steps):
            first, size = step.first, step.rows * step.cols
            if step.wide:
                at = position[first:first + size]
                if (at[0] >= 0 and (at == at[0] + np.arange(size)).all()
                        and self.out_owner[at[0]] == self.out_owner[at[-1]]):
                    self.put(first, size, self.out_owner[at[0]], self.out_index[at[0]])
                elif self.lies_in_order(step, at):
                    self.owner[first:first + size] = self.out_owner[at[0]]
                    self.index[first:first + size] = self.out_index[at]
                else:
                    self.put(first, size, self.add(Store("work", size, born=k)), 0)
            elif position[first] >= 0:
                self.put(first, 1, self.out_owner[position[first]], self.out_index[position[first]])
            elif not stored[first]:
                self.put(first, 1, LOCAL, 0)
            elif last == first - 1:   # numbers side by side stay so
                self.stores[self.owner[last]].size += 1
                self.put(first, 1, self.owner[last], self.index[last] + 1)
                last = first
            else:
                self.put(first, 1, self.add(Store("work", 1, born=k)), 0)
                last = first

    def lies_in_order(self, step: Any, at: Any) -> Any:
        """Whether an elementwise step can write its results where they go, a matrix with steps: such as the gradient of
        a layer's weights, between which there are those of biases."""
        return (step.op == "MAP" and (at >= 0).all() and (self.out_owner[at] == self.out_owner[at[0]]).all()
                and even(self.out_index[at].reshape(step.rows, step.cols)) is not None)

    def put(self, first: Any, size: Any, owner: Any, index: Any) -> None:
        self.owner[first:first + size] = owner
        self.index[first:first + size] = index + np.arange(size)

    # ---- operands ----

    def resolve(self, k: Any, step: Any, wants: Any) -> Any:
        if step.op == "MAP":
            return self.resolve_map(k, step)
        if step.op == "CALL":
            want = wants(step.callee)
            if want:
                self.works[k] = self.temporary(k, want)
            return tuple(self.in_a_row(k, slots) for slots in step.operands)
        if step.op == "LAYER":
            return self.resolve_layer(k, step)
        found = []
        for v, slots in enumerate(step.operands):
            if step.op == "TAKE" and v == 1 and slots.size == 1:
                found.append(int(slots[0, 0]))
                continue
            grid = self.grid(slots)
            if grid is not None and step.op != "TAKE":   # along rows
                one = step.rows * step.cols == 1 and step.op != "CROSS_ENTROPY"
                side = grid.across == 1 or slots.shape[1] == 1
                dense = side and (slots.shape[0] == 1 or slots.shape[1] == grid.down)
                turned = step.op in ("SUM", "MEAN") and grid.down == 1 and not one
                if not (dense if one else side or turned):
                    grid = None
            found.append(grid or self.copied(k, slots))
        return tuple(found)

    def in_a_row(self, k: Any, slots: Any) -> Any:
        grid = self.grid(slots.reshape(1, -1))
        return grid if grid and (grid.across == 1 or slots.size == 1) else self.copied(k, slots)

    def grid(self, slots: Any) -> Any:
        """Where a matrix of slots lies, or None if it lies in no order."""
        owner = self.owner[slots]
        if slots.size == 0:
            return Grid(Store("0", 0), 0, 0, 0)   # the pointer to nothing
        if (owner != owner.flat[0]).any() or owner.flat[0] == LOCAL:
            return None
        if owner.flat[0] == CONSTANT:
            if (slots == slots.flat[0]).all():
                return Grid(self.table(slots[:1, :1]), 0, 0, 0)
            return Grid(self.table(slots), 0, slots.shape[1] if slots.shape[0] > 1 else 0, 1)
        steps = even(self.index[slots])
        return steps and Grid(self.stores[owner.flat[0]], *steps)

    def table(self, slots: Any) -> Any:
        values = np.array([self.value.get(s, 0.0) for s in slots.ravel().tolist()])
        key = values.tobytes()
        found = self.known_tables.get(key)
        if found is None:
            found = Store(f"{self.name}_table_{len(self.tables)}", values.size, values=values)
            self.known_tables[key] = found
            self.tables.append(found)
        return found

    def temporary(self, k: Any, size: Any) -> Any:
        store = Store("work", size, born=k)
        self.add(store)
        return store

    def copied(self, k: Any, slots: Any) -> Any:
        store = self.temporary(k, slots.size)
        self.copies[k].append(Copy(store, slots.ravel()))
        return Grid(store, 0, slots.shape[1] if slots.shape[0] > 1 else 0, 1)

    def resolve_layer(self, k: Any, step: Any) -> Any:
        """A Layer, and the operands that are read."""
        m, n, depth = step.rows, step.cols, step.operands[0].shape[1]
        x, w = (self.grid(slots) for slots in step.operands[:2])
        b = None
        if len(step.operands) == 3:
            b = self.grid(step.operands[2]) or self.copied(k, step.operands[2])
        x = x or self.copied(k, step.operands[0])
        if w is None and m >= 4 and n >= 16:   # turned at once
            w = self.copied(k, step.operands[1].T)
            w = w._replace(down=1, across=w.down)
        w = w or self.copied(k, step.operands[1])
        along = all(g.across == 1 or depth == 1 for g in (x, w))
        spare, swapped = None, False
        if m == 1 and n == 1:
            form = "dot" if along and depth >= 8 else "dot_apart"
        elif m >= 4 and n >= 16:
            form = "product"
            if w.down != 1:
                spare = self.temporary(k, n * depth)
        elif n >= 4 and w.down == 1:
            form = "columns"
        elif m >= 4 and x.down == 1 and m > n:
            form, swapped = "columns", True
            x, w = w, x
            if n > 1:
                spare = self.temporary(k, m * n)
        elif along and depth >= 8:
            form, swapped = "rows", n == 1 and m > 1
            if swapped:
                x, w = w, x
        else:
            form = "plain"
        layer = Layer(form, x, w, b, spare, swapped)
        return (layer, x, w) + ((b,) if b else ())

    def resolve_map(self, k: Any, step: Any) -> Any:
        """Operands of elements, which all go by the same two loops: Grids of them, and slots of single numbers."""
        shape = step.rows, step.cols
        size = step.rows * step.cols
        found, sequences = [], {}
        for v, slots in enumerate(step.operands):
            if (slots == slots.flat[0]).all() or self.same_constant(slots):
                found.append(int(slots.flat[0]))
                continue
            owner = self.owner[slots]
            if owner.flat[0] == CONSTANT and (owner == CONSTANT).all():
                store, index = self.table(slots), np.arange(slots.size).reshape(slots.shape)
            elif (owner == owner.flat[0]).all():
                store, index = self.stores[owner.flat[0]], self.index[slots]
            else:
                store, index = self.copied(k, slots).store, np.arange(slots.size).reshape(slots.shape)
            found.append(store)
            sequences[v] = np.broadcast_to(index, shape).reshape(-1)
        periods = {v: period(s) for v, s in sequences.items()}
        target = self.index[step.first:step.first + size]
        widths = sorted({p for p in periods.values() if size % p == 0} | {size, step.cols}, reverse=True)
        widths = [p for p in widths if even(target.reshape(-1, p)) is not None]
        best = min(widths, key=lambda c: sum(even(s.reshape(-1, c)) is None for s in sequences.values()))
        self.loops[k] = size // best, best
        self.targets[k] = Grid(self.stores[self.owner[step.first]], *even(target.reshape(-1, best)))
        for v, sequence in sequences.items():
            steps = even(sequence.reshape(-1, best))
            if steps is None:   # in no order: its elements one by one
                slots = np.broadcast_to(step.operands[v], shape)
                store = self.temporary(k, size)
                self.copies[k].append(Copy(store, slots.reshape(-1)))
                found[v] = Grid(store, 0, best if size > best else 0, 1)
            else:
                found[v] = Grid(found[v], *steps)
        return tuple(found)

    def same_constant(self, slots: Any) -> Any:
        if (self.owner[slots] != CONSTANT).any():
            return False
        values = np.array([self.value.get(s, 0.0) for s in slots.ravel().tolist()])
        return bool((values.view(np.uint64) == values.view(np.uint64)[0]).all())

    def results_by_step(self) -> Any:
        """Those results that are not computed in their place."""
        step_of = np.full(self.body.nodes, len(self.steps))
        for k, step in enumerate(self.steps):
            step_of[step.first:step.first + step.rows * step.cols] = k
        found = [{} for _ in range(len(self.steps) + 1)]
        for place, slot in enumerate(self.body.results):
            if self.owner[slot] != self.out_owner[place] or self.index[slot] != self.out_index[place]:
                of_step = found[step_of[slot]]
                of_step.setdefault(self.out_owner[place], []).append((int(self.out_index[place]), slot))
        return [[(self.stores[owner], pairs) for owner, pairs in of_step.items()] for of_step in found]

    # ---- the work array ----

    def find_deaths(self) -> None:
        for k, step in enumerate(self.steps):
            for operand in self.operands[k]:
                if isinstance(operand, Grid):
                    operand.store.dies = k
                elif isinstance(operand, int):
                    self.is_read(np.array([operand]), k)
            for copy in self.copies[k]:
                self.is_read(copy.slots, k)
            self.is_read(np.array([slot for _, pairs in self.results[k] for _, slot in pairs], int), k)

    def is_read(self, slots: Any, k: Any) -> None:
        for owner in np.unique(self.owner[slots]).tolist():
            if owner not in (CONSTANT, LOCAL):
                self.stores[owner].dies = k

    def allocate(self) -> Any:
        """Offsets in the work array; its size."""
        objects = [s for s in self.stores[2:] if s.name == "work"]
        heads = self.in_place(objects)
        lives = {}
        for s in objects:
            head = heads.get(id(s), s)
            born, dies, _ = lives.get(id(head), (s.born, s.dies, head))
            lives[id(head)] = min(born, s.born), max(dies, s.dies), head
        placed = place(list(lives.values())) if len(lives) <= 2000 else place_in_turn(list(lives.values()))
        for s in objects:
            s.offset = heads.get(id(s), s).offset
        return placed

    def is_array_function(self, k: Any) -> Any:
        """Whether a function of C computes a "MAP" of one array, which is not that of the results."""
        step, (outer, inner) = self.steps[k], self.loops[k]
        return (step.param in LOOPS and self.dtype == "float64" and outer == 1 and inner >= VECTOR
                and isinstance(self.operands[k][0], Grid) and self.targets[k].across == 1)

    def in_place(self, objects: Any) -> Any:
        """Objects that an elementwise step may write over an operand: their head, by identity."""
        heads = {}
        movable = {id(s) for s in objects}
        for k, step in enumerate(self.steps):
            if not step.wide or step.op != "MAP":
                continue
            result, size = self.stores[self.owner[step.first]], step.rows * step.cols
            outer, inner = self.loops[k]
            if id(result) not in movable or result.size != size or self.is_array_function(k):
                continue
            grids = [g for g in self.operands[k] if isinstance(g, Grid)]
            for g in grids:
                store = g.store
                if id(store) in movable and store.dies == k and store.size == size and all(
                        same_elements(h, inner, outer) for h in grids if h.store is store) and not any(
                        isinstance(h, int) and self.owner[h] > LOCAL and self.stores[self.owner[h]] is store
                        for h in self.operands[k]):
                    heads[id(result)] = heads.get(id(store), store)
                    break
        return heads


def same_elements(grid: Any, inner: Any, outer: Any) -> Any:
    return grid.first == 0 and grid.across == 1 and (outer == 1 or grid.down == inner)


def like(instructions: Any, k: Any) -> Any:
    """How many single operations from k on are one loop: of the same row, their results side by side, their operands at
    even distances, and none of them an operand of another."""
    i, steps = instructions[k], None
    end = k + 1
    while end < len(instructions):
        j, n = instructions[end], end - k
        if (j.op != i.op or j.first != i.first + n or j.immediate != i.immediate
                or len(j.operands) != len(i.operands) or isinstance(j.operands[0], np.ndarray)):
            break
        if steps is None:
            steps = [b - a for a, b in zip(i.operands, j.operands)]
        if any(b != a + n * s or i.first <= b for a, b, s in zip(i.operands, j.operands, steps)):
            break
        end += 1
    return end - k


def even(index: Any) -> Any:
    """(the first, the step down, the step across) of a matrix of indices; None if it has no such steps."""
    first = int(index[0, 0])
    down = int(index[1, 0]) - first if index.shape[0] > 1 else 0
    across = int(index[0, 1]) - first if index.shape[1] > 1 else 0
    expected = first + down * np.arange(index.shape[0])[:, None] + across * np.arange(index.shape[1])
    return (first, down, across) if (expected == index).all() else None


def period(sequence: Any) -> Any:
    """How many numbers go on with one step from the start."""
    if len(sequence) < 3:
        return len(sequence)
    steps = np.diff(sequence)
    other = np.flatnonzero(steps != steps[0])
    return int(other[0]) + 1 if len(other) else len(sequence)


def place(lives: Any) -> Any:
    """Offsets for (born, dies, store), the largest first, each where nothing lies as long as it lives; the size."""
    size, done = 0, []
    for born, dies, store in sorted(lives, key=lambda x: (-x[2].size, x[0])):
        offset = 0
        for other_born, other_dies, other in done:   # by their offsets
            if other_born <= dies and born <= other_dies and other.offset < offset + store.size:
                offset = max(offset, other.offset + other.size)
        store.offset = offset
        done.append((born, dies, store))
        done.sort(key=lambda x: x[2].offset)
        size = max(size, offset + store.size)
    return size


def place_in_turn(lives: Any) -> Any:
    """The same for many: in the order in which they are born, each in the first hole."""
    size, holes = 0, []
    lives.sort(key=lambda x: x[0])
    ending = sorted(lives, key=lambda x: x[1])
    gone = 0
    for born, dies, store in lives:
        while gone < len(ending) and ending[gone][1] < born:
            old = ending[gone][2]
            holes.append((old.offset, old.size))
            gone += 1
        if len(holes) > 64 or any(h[1] >= store.size for h in holes):
            holes = merged(holes)
        for h, (offset, room) in enumerate(holes):
            if room >= store.size:
                store.offset = offset
                if room > store.size:
                    holes[h] = offset + store.size, room - store.size
                else:
                    del holes[h]
                break
        else:
            store.offset = size
            size += store.size
    return size


def merged(holes: Any) -> Any:
    found = []
    for offset, room in sorted(holes):
        if found and found[-1][0] + found[-1][1] == offset:
            found[-1] = found[-1][0], found[-1][1] + room
        else:
            found.append((offset, room))
    return found
