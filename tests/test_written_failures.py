"""Derivatives as nodes for which there is no room: an error, and nothing on the tape.

The room ends after every possible number of nodes, which each row of ops.def and each instruction has to notice at each
node that it writes; and every allocation of the core fails in turn, of instructions so large that each list of ids
needs one of its own. Then there is room again, and the derivatives are the numbers that they were before.
"""
import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, losses
from test_ops import IDS, ORACLE, split
from test_written_blocks import CASES, arrays_of, operands_of, taken
from test_written_rows import free_operands, ordinary_points

MOST_IDS = 0xFFFFFFF0
pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def numbers(found):
    return [None if x is None else np.array(x.data, copy=True) for x in found]


def test_memory_is_given_back():
    x = Value(2.0)
    memory = []
    for _ in range(6):
        assert _core.written([x * x * x], [None], [x])[0].data == 12.0
        flatgrad.collect()
        memory.append(flatgrad.stats()["bytes"])
    assert memory[1:] == memory[1:2] * 5


def assert_same(found, expected):
    for x, y in zip(found, expected, strict=True):
        assert (x is None) == (y is None)
        np.testing.assert_array_equal(0 if x is None else x, 0 if y is None else y)


class Room:
    """Outputs whose derivatives are written with less and less room."""

    def __init__(self, outputs, inputs):
        self.outputs, self.inputs = outputs, inputs
        self.expected = self.written()
        flatgrad.collect()
        self.nodes = flatgrad.stats()["nodes"]

    def written(self):
        return numbers(_core.written(self.outputs, [None] * len(self.outputs), self.inputs))

    def fails(self, **how):
        """Whether it is an error, which leaves all as it was."""
        flatgrad.collect()
        _core._testing(**how)
        try:
            found = self.written()
        except MemoryError:
            return True
        finally:
            _core._testing(fail_after=-1, limit=MOST_IDS)
            flatgrad.collect()
            assert flatgrad.stats()["nodes"] == self.nodes and _core._check()
        assert_same(found, self.expected)
        return False

    def end_after_every_node(self):
        """How many ends there are that are too soon; node 0 is nobody's."""
        failed = 0
        while self.fails(limit=self.nodes + 1 + failed):
            failed += 1
        assert_same(self.written(), self.expected)
        return failed

    def fail_each_allocation(self):
        failed = 0
        while self.fails(fail_after=failed):
            failed += 1
        assert_same(self.written(), self.expected)
        return failed


def test_the_room_for_nodes_of_a_scalar_graph_ends():
    x, y = Value(0.5), Value(1.5)
    assert Room([x * y + y.exp() * x - x / y], [x, y]).end_after_every_node() > 5


@pytest.mark.parametrize("op", IDS)
def test_the_room_for_nodes_of_a_row_ends(op):
    """Of scalars, and of tensors with several rows and an operand that is one row."""
    free, points = free_operands(op), ordinary_points(op, 80, seed=6)
    values, operands = split(op, points[0])
    Room([ORACLE[op].apply(*operands)], values).end_after_every_node()
    if ORACLE[op].immediate:
        rest = [int(points[0][1]) if op == "POWI" else points[0][1]]
        points = [p for p in points if p[1] == points[0][1]]
    else:
        rest = []
    columns = [np.array([p[k] for p in points[:4]]).reshape(2, 2) for k in range(len(points[0]) - len(rest))]
    tensors = [Tensor(x) for x in columns[:len(free)]]
    others = [Tensor(x, requires_grad=False) for x in columns[len(free):]]   # orders
    z = ORACLE[op].apply(*tensors, *others, *rest)
    Room([z], tensors).end_after_every_node()
    Room([z[0, 0], z[1, 1]], tensors).end_after_every_node()


PARTS = {2: [(), np.s_[::2], ([0, 2], [2, 1]), ([0, 0, 0, 1], [0, 2, 1, 2])], 1: [(), [0, 2]], 0: [()]}


@pytest.mark.parametrize("flavour", ["dense", "turned", "repeated"])
@pytest.mark.parametrize("name", CASES)
def test_the_room_for_nodes_of_an_instruction_ends(name, flavour):
    function, shapes = CASES[name]
    operands = operands_of(arrays_of(shapes), flavour)
    z = function(*operands)
    shape = np.shape(z.data)
    for part in PARTS[len(shape)] if min(shape, default=3) > 2 else [()]:
        out = z[part] if part != () else z
        assert Room([out], operands).end_after_every_node() > 0


# ---- lists of ids ----

R, C, K = 40, 30, 35   # each product of two is more ids than those that are kept for what is small


def scattered(z, some):
    """Elements here and there: `some` of each hundred."""
    return z[np.random.default_rng(1).random(z.shape) < some / 100]


def logsumexps(x):
    """Of rows, of which some have an infinite number."""
    some = Tensor(np.arange(len(x))[:, None] % 3 + np.zeros(x.shape), requires_grad=False)
    return flatgrad.logsumexp(flatgrad.where(some, x, np.inf), axis=1)


LARGE = {
    "layer": (lambda x, w, b: flatgrad.linear(x, w, b, "tanh"), [(R, K), (C, K), (C,)]),
    "layer of some rows": (lambda x, w, b: flatgrad.linear(x, w, b, "tanh")[::2], [(2 * R, K), (C, K), (C,)]),
    "layer of some rows and columns": (lambda x, w: flatgrad.linear(x, w)[::3, ::2], [(2 * R, K), (2 * C, K)]),
    "layer, scattered": (lambda x, w, b: scattered(flatgrad.linear(x, w, b, "relu"), 50), [(R, K), (C, K), (C,)]),
    "layer, here and there": (lambda x, w: scattered(flatgrad.linear(x, w), 3), [(R, K), (C, K)]),
    "layer, one element of each row": (lambda x, w: flatgrad.linear(x, w)[np.arange(300), np.arange(300) * 7 % C],
                                       [(300, 3), (C, 3)]),
    "layer of a list": (lambda x, w: flatgrad.linear(list(x)[::-1], w), [(1200,), (3, 1200)]),
    "layers of one weight": (lambda x, y, w: (flatgrad.linear(x, w) * y[:, :C] + flatgrad.linear(y, w) * x[:, :C]),
                             [(R, K), (R, K), (C, K)]),
    "map": (lambda x, y: x * y, [(R, C), (R, C)]),
    "map with a row": (lambda x, y: x * y, [(R, C), (C,)]),
    "map, scattered": (lambda x, y: scattered(x / y, 80), [(R, C), (1, C)]),
    "map of some rows": (lambda x, y: (x * y)[[0, *range(3, R)]], [(R, C), (R, C)]),
    "map of some of many rows": (lambda x, y: (x * y)[[0, *range(3, 1300)]], [(1300, 2), (1300, 2)]),
    "sums": (lambda x: x.sum(axis=0).tanh() @ x.sum(axis=0), [(R, C)]),
    "max": (lambda x: x.max(axis=1), [(R, C)]),
    "some of max": (lambda x: x.max(axis=1)[::3], [(R, C)]),
    "softmax": (lambda x: x.softmax()[1::2], [(R, C)]),
    "log_softmax of columns": (lambda x: x.log_softmax(axis=0), [(R, C)]),
    "logsumexp": (lambda x: x.logsumexp(), [(R, C)]),
    "logsumexp, turned": (lambda x: x.T.logsumexp(), [(R, C)]),
    "logsumexp, some infinite": (lambda x: logsumexps(x)[:-1], [(R, C)]),
    "logsumexp, many infinite": (lambda x: logsumexps(x), [(3100, 2)]),
    "cross entropy": (lambda x: losses.cross_entropy(x, np.arange(R) % C), [(R, C)]),
    "taken": (lambda x: taken(x, [k % 7 for k in range(R)]), [(R, C)]),
    "taken of a list": (lambda x: taken(list(x)[::-1], [k % 7 for k in range(R)]), [(1200,)]),
    "taken by Values": (lambda x: taken(x, [Value(k % 7) for k in range(R)]), [(R, C)]),
    "taken by Values, infinite": (lambda x: (taken(x, [Value(k % 7) for k in range(R)]) * np.inf).sum(), [(R, C)]),
    "picked": (lambda x: taken(x, [k % C for k in range(1200)], each=True), [(1200, C)]),
    "picked by Values": (lambda x: taken(x, [Value(k % C) for k in range(R)], each=True), [(R, C)]),
    "gifts of several": (lambda x: sum(x[k:R - 4 + k, k % 2:C - 1 + k % 2].exp().sum() for k in range(4)), [(R, C)]),
    "gifts in a list": (lambda x: x[np.arange(2000) % R, np.arange(2000) % 7].exp(), [(R, C)]),
}


@pytest.mark.parametrize("flavour", ["dense", "turned", "repeated"])
@pytest.mark.parametrize("name", LARGE)
def test_each_allocation_fails(name, flavour):
    function, shapes = LARGE[name]
    operands = operands_of(arrays_of(shapes), flavour)
    assert Room([function(*operands)], operands).fail_each_allocation() > 0
