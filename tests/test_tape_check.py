"""The check of the tape's invariants finds each kind of damage, which ctypes does here and takes back at once."""
import ctypes
import gc

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

ID, RECORD, VIEW = ctypes.c_uint32, 8, 6   # words of a record without views, and of a view
KINDS = {"op": ctypes.c_uint8, "owner": ctypes.c_size_t, "marks": ctypes.c_uint64, "summary": ctypes.c_uint64}
MANY = 0xFFFFFFF0


def top():
    """The id of the last node."""
    return _core.stats()["nodes"]


class Graph:
    """Nodes of every form, and where they are."""

    def __init__(self):
        first = Value(0.5)
        gone = flatgrad.compile(lambda x: [x * 2.0, x.cos()])(first)
        self.at = _core._memory()
        self.gone = self.record(top(), 1).value   # the place of a program
        self.called = flatgrad.compile(lambda x: [x * 3.0, x.sin()])(first)
        del gone
        gc.collect()
        _core.collect()
        self.id_called = top()
        self.x, self.y = Value(2.0), Value(3.0)
        self.id_x, self.id_y = top() - 1, top()
        self.tensor = Tensor([1.0, 2.0, 4.0])
        self.run = top()
        self.sum = self.x + self.y
        self.id_sum = top()
        self.pooled = Value(1.0, (self.x, self.y), "mine")
        self.id_pooled = top()
        self.more = Value(1.0, (self.y, self.x), "mine")
        self.id_more = top()
        self.block = self.tensor.tanh()
        self.id_block = top()
        self.single = self.tensor.sum()
        self.id_single = top()
        self.look()

    def look(self):
        """Find anew where all is; there is a spare sweep then."""
        (self.sum * 2.0).backward()
        self.at = _core._memory()

    def cell(self, name, k=0):
        """The k-th number of one of the tape's arrays, or a field of it."""
        kind = KINDS.get(name, ID)
        return kind.from_address(self.at[name] + k * ctypes.sizeof(kind))

    def a(self, i):
        return self.cell("args", 2 * i)

    def b(self, i):
        return self.cell("args", 2 * i + 1)

    def op(self, i):
        return self.cell("op", i)

    def record(self, i, word):
        return self.cell("pool", self.a(i).value + word)

    def of_spare(self, which):
        """The first word of the spare sweep's marks, or of their summary."""
        return ctypes.c_uint64.from_address(ctypes.c_size_t.from_address(
            self.at["spare"] + which * ctypes.sizeof(ctypes.c_size_t)).value)


DAMAGE = {
    "no sentinel": lambda g: (g.cell("n"), 0),
    "more nodes than there is memory for": lambda g: (g.cell("n"), MANY),
    "more room than memory": lambda g: (g.cell("room"), MANY),
    "more operands than there is memory for": lambda g: (g.cell("npool"), MANY),
    "a sentinel that is no leaf": lambda g: (g.op(0), g.op(g.id_sum).value),
    "a sentinel of somebody": lambda g: (g.cell("owner"), g.cell("owner", g.id_x).value),
    "a sentinel elsewhere": lambda g: (g.cell("sentinel"), 1),
    "a holder of another node": lambda g: (g.cell("owner", g.id_x), g.cell("owner", g.id_y).value),
    "a run of more than there are": lambda g: (g.b(g.run), g.run),
    "an operand that is the node itself": lambda g: (g.b(g.id_sum), g.id_sum),
    "an operand from above": lambda g: (g.a(g.id_sum), g.id_block),
    "an operand that is a run": lambda g: (g.a(g.id_sum), g.run),
    "an operand of a pooled node from above": lambda g: (g.record(g.id_pooled, 0), g.id_more),
    "an operand of a pooled node that is a run": lambda g: (g.record(g.id_pooled, 1), g.run),
    "operands of another node": lambda g: (g.a(g.id_more), g.a(g.id_pooled).value),
    "operands of no node": lambda g: (g.cell("npool"), g.cell("npool").value + 1),
    "a part of nothing": lambda g: (g.a(g.id_block - 1), MANY - g.id_block),
    "a part of a part": lambda g: (g.a(g.id_block - 3), 2),
    "a part of a leaf": lambda g: (g.op(g.id_x), g.op(g.id_block - 1).value),
    "a part too far below": lambda g: (g.b(g.id_block), 2),
    "a part more than there are nodes": lambda g: (g.b(g.id_single), g.id_single),
    "results without parts": lambda g: (g.record(g.id_block, 2), 2),
    "results without columns": lambda g: (g.record(g.id_single, 3), 0),
    "a part that is none": lambda g: (g.op(g.id_block - 2), g.op(g.id_x).value),
    "a view of its own parts": lambda g: (g.record(g.id_block, RECORD + 1), g.id_block - 3),
    "a call of no program": lambda g: (g.record(g.id_called, 1), MANY),
    "a call of a program that is gone": lambda g: (g.record(g.id_called, 1), g.gone),
    "a word of marks": lambda g: (g.cell("marks"), 1),
    "a summary of marks": lambda g: (g.cell("summary"), 1),
    "a mark of a sweep that is over": lambda g: (g.of_spare(0), 2),
    "a summary of a sweep that is over": lambda g: (g.of_spare(1), 2),
}


def checked_graph():
    made = Graph()
    assert made.a(made.id_sum).value == made.id_x and made.b(made.id_sum).value == made.id_y
    assert made.b(made.id_block).value == 3 and made.b(made.id_called).value == 2
    return made


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found(what):
    graph = checked_graph()
    assert _core._check()
    cell, value = DAMAGE[what](graph)
    before = cell.value
    cell.value = value
    found = _core._check()
    cell.value = before
    assert not found
    assert _core._check()


def a_part_that_points_elsewhere(graph):
    """At an instruction above its own, which has that many."""
    part, above = graph.id_block - 1, graph.id_single
    return [(graph.a(part), above - part), (graph.b(above), above - part)]


def a_call_of_one_result(graph):
    """A call has parts, even if it is one."""
    return [(graph.record(graph.id_called, 2), 1), (graph.record(graph.id_called, 3), 1), (graph.b(graph.id_called), 0),
            *((graph.op(graph.id_called - k), 0) for k in (1, 2))]


@pytest.mark.parametrize("damage", [a_part_that_points_elsewhere, a_call_of_one_result])
def test_damage_in_several_places_is_found(damage):
    graph = checked_graph()
    cells = damage(graph)
    before = [cell.value for cell, _ in cells]
    for cell, value in cells:
        cell.value = value
    found = _core._check()
    for (cell, _), value in zip(cells, before):
        cell.value = value
    assert not found
    assert _core._check()


def test_the_address_of_a_number_is_the_tapes():
    """What the tests above write to is what the tape reads."""
    graph = checked_graph()
    cell = graph.b(graph.id_sum)
    assert cell.value == graph.id_y
    cell.value = graph.id_x
    graph.x.grad = graph.y.grad = 0.0
    graph.sum.backward()
    cell.value = graph.id_y
    assert (graph.x.grad, graph.y.grad) == (2.0, 0.0)
    np.testing.assert_array_equal(graph.block.numpy(), np.tanh([1.0, 2.0, 4.0]))
