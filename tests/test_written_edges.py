"""Derivatives as nodes where matrices of nodes lie unusually, have few gradients, or there are many numbers.

Oracles are the sweep that adds numbers, and the graph of single operations (Tower of test_written_blocks.py).
"""
import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core
from test_written_blocks import arrays_of, compare_parts, taken

R, C, K = 12, 10, 3
HELD = []   # positions, which would be constants if nobody held them


@pytest.fixture(autouse=True)
def held(nothing_left_behind):
    yield
    HELD.clear()


def at(*numbers):
    HELD.append([x if isinstance(x, Value) else Value(x) for x in numbers])
    return HELD[-1]


def check(function, shapes, flavour="dense"):
    compare_parts(function, arrays_of(shapes), flavour)


CASES = {
    "layer, one element of each row": (
        lambda x, w: flatgrad.linear(x, w, None, "tanh")[np.arange(R), np.arange(R) * 7 % C], [(R, K), (C, K)]),
    "weights of two layers": (
        lambda x, y, w: flatgrad.linear(x, w, None, "tanh").sum() + flatgrad.linear(y, w, None, "tanh").sum(),
        [(R, K), (2, K), (C, K)]),
    "rows of a table, weighted": (
        lambda x: taken(x, at(2.0, 0.0, 2.0)) * np.arange(1.0, 4.0)[:, None], [(R, C)]),
    "rows of a table, columns weighted": (
        lambda x: taken(x, at(2.0, 0.0, 2.0)) * np.arange(1.0, C + 1.0), [(R, C)]),
    "rows of a table, sums of their columns": (
        lambda x: taken(x, at(2.0, 0.0, 2.0)).sum(axis=0).tanh(), [(R, C)]),
    "rows of a table, their sums": (
        lambda x: taken(x, at(2.0, 0.0, 2.0)).sum(axis=1).tanh(), [(R, C)]),
    "positions just made": (lambda x: taken(x, at(2.0, 0.0)).tanh(), [(R, C)]),
    "a position just computed": (lambda x: taken(x, at(Value(1.0) * 2.0)).tanh(), [(R, C)]),
    "positions apart": (lambda x: taken(x, Tensor(at(2.0, 5.0, 0.0, 5.0))[::2]).tanh(), [(R, C)]),
    "positions in disorder": (lambda x: taken(x, Tensor(at(2.0, 5.0, 0.0))[[2, 0]]).tanh(), [(R, C)]),
    "more positions, then fewer": (
        lambda x: taken(x, at(1.0)).tanh().sum() + taken(x[:5], at(1.0)).tanh().sum(), [(R, C)]),
    "fewer positions, then more": (
        lambda x: taken(x[:5], at(1.0)).tanh().sum() + taken(x, at(1.0)).tanh().sum(), [(R, C)]),
    "picked by Values": (lambda x: taken(x, at(*np.arange(R) % C), each=True).tanh(), [(R, C)]),
    "gradients in the first row of others": (
        lambda x, y: np.stack([x.sum(axis=0), y]).exp(), [(2, C), (C,)]),
    "gradients in the first column of others": (
        lambda x, y: np.stack([x.sum(axis=1), y, y], axis=1).exp(), [(2, 3), (2,)]),
    "means of many lengths": (lambda x: sum(x[:k].mean() * x[k] for k in range(1, 30)), [(31,)]),
    "logsumexp of what is turned": (lambda x: x.T.logsumexp(), [(R, C)]),
    "one Value throughout": (lambda x, y: (x * y)[[0, 2, 3], [2, 1, 0]].tanh(), [(R, C), (1, C)]),
}


@pytest.mark.parametrize("flavour", ["dense", "turned", "listed", "sliced", "repeated"])
@pytest.mark.parametrize("name", CASES)
def test_the_derivatives_of(name, flavour):
    function, shapes = CASES[name]
    check(function, shapes, flavour)


def test_a_slot_again_and_again():
    """Elements of results here and there, which all have one operand."""
    v = Value(1.5)
    x, y = Tensor([[v] * 3] * 3), Tensor(np.arange(9.0).reshape(3, 3))
    z = (x * y * y)[[0, 2], [2, 1]]
    found = _core.written([z.sum()], [None], [v, y])
    assert found[0].data == 2.0**2 + 7.0**2
    np.testing.assert_array_equal(found[1].data, [[0, 0, 6.0], [0, 0, 0], [0, 21.0, 0]])


def test_inputs_with_one_gradient_have_tensors_of_their_own():
    x, y = Tensor([1.0, 2.0]), Tensor([3.0, 4.0])
    first, second = _core.written([(x + y).exp()], [None], [x, y])
    np.testing.assert_array_equal(first.data, np.exp([4.0, 6.0]))
    np.testing.assert_array_equal(second.data, first.data)
    (by_x,), (by_y,) = [_core.written([g], [None], [x]) for g in (first, second)]
    np.testing.assert_array_equal(by_x.data, first.data)
    np.testing.assert_array_equal(by_y.data, first.data)
    first[0].data = -1.0
    np.testing.assert_array_equal(second.data, np.exp([4.0, 6.0]))


def test_an_element_that_no_input_is_in():
    """Of several results one has a gradient: it comes from an operand that is no input."""
    a, b = Value(2.0), Value(3.0)
    x = Tensor([a, b])
    for z in (taken(x, [0])[0] * 1.0, Tensor([[a], [b]]).sum(axis=1)[0] * 1.0):
        assert _core.written([z], [None], [b]) == [None]
        (by_a,) = _core.written([z], [None], [a])
        assert by_a.data == 1.0


def test_a_node_of_the_users_without_a_rule():
    """Its gradient goes nowhere, as in the sweep that adds numbers."""
    x = Value(2.0)
    made = Value(4.0, (x,), "made")
    z = made * x
    z.backward()
    (by_x,) = _core.written([z], [None], [x])
    assert by_x.data == x.grad == 4.0


def test_an_order_above_1024_has_no_derivative():
    """Neither as a number nor as nodes: nan, by both operands."""
    x, y = Value(1.25), Value(3.5)
    z = _core._apply("POWER_SLOPE", x, y, 1025.0)
    assert np.isnan(z.data)
    assert [np.isnan(g.data) for g in _core.written([z], [None], [x, y])] == [True, True]


@pytest.mark.parametrize("place", ["a part", "the parts and the last", "one result"])
def test_rules_of_users_on_results_of_an_instruction(place):
    """They add numbers, so nobody knows the derivative; without a gradient they are not asked."""
    x = Tensor([0.5, 1.0, 1.5])
    z = x.exp() if place != "one result" else x.sum()
    values = list(z) if place != "one result" else [z]
    ruled = values[1:2] if place == "a part" else values
    for value in ruled:
        value._backward = lambda: None
    with pytest.raises(TypeError, match="_backward rule of its own"):
        _core.written([flatgrad.sum(z)], [None], [x])
    if place == "a part":
        (found,) = _core.written([z[0] + z[2]], [None], [x])
        np.testing.assert_array_equal(found.data, np.exp([0.5, 1.0, 1.5]) * [1.0, 0.0, 1.0])


def test_more_nodes_than_there_are_ids():
    """A mask of 66,000 positions in 66,000 numbers: an error, and nothing on the tape."""
    n = 66_000
    x, p = Tensor(np.arange(float(n))), Tensor(np.zeros(n))
    z = taken(x, p)
    flatgrad.collect()
    before = flatgrad.stats()["nodes"]
    with pytest.raises(MemoryError):
        _core.written([z * z], [None], [x])
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] == before + 0 and _core._check()


@pytest.mark.parametrize("part", [0, 1, 3, None])
def test_what_a_gradient_was_chosen_by_has_no_gradient(part):
    """max's own gradient chooses by comparing: no sweep goes on to what was compared, where 0 times inf would be nan,
    be it of all numbers or of one."""
    t = Tensor([[0.0, 4.0, 9.0, 9.0]])
    k = Value(2.0)
    x = t.sqrt()
    slopes, = flatgrad.gradients(x.max() * k, x, create_graph=True)
    assert slopes.numpy().tolist() == [[0.0, 0.0, 1.0, 1.0]]
    (slopes.sum() if part is None else slopes[0, part] * 1.0).backward()
    assert t.grad.tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert k.grad == {None: 1.0, 3: 0.5}.get(part, 0.0)
