"""Saved instructions of every kind, with operands of every shape: refused unless they are of csrc/block.h.

`fits` says here, in Python, which shapes there are. What is not refused computes, is differentiated by both sweeps, and
is saved and loaded again.
"""
import copy
import itertools
import pickle
import random

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core

ACTIVATIONS = ("LEAF", "RELU", "TANH", "SIGMOID")
ROWS = {"EXP": 1, "ADD": 2, "WHERE": 3}
ALONG = ("SUM", "MEAN", "MAX", "LOGSUMEXP")
pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def integers(*numbers):
    return np.array(numbers, dtype="<i4").tobytes()


def saved(kind, param, k, rows, cols, views, labels=(), constant=0):
    """A graph of one instruction, whose operands are all the end 0."""
    count, results = sum(m * n for m, n in views), rows * cols
    shapes = [number for m, n in views for number in (m, n, constant)]
    parts = int(results > 1)
    return (3, (kind, param), b"\0", integers(*[-1] * count), b"",
            integers(1, k, rows, cols, parts, len(views), len(labels), *shapes, *labels), b"",
            bytes(8 * results), bytes(8 * results), integers(0), b"")


def fits(kind, param, k, rows, cols, views, labels):
    """As the head of csrc/block.h has it."""
    extra = len(labels)
    x = views[0] if views else (0, 0)
    if kind == "LAYER":
        if len(views) not in (2, 3) or extra or param not in ACTIVATIONS:
            return False
        (m, terms), (n, others) = views[:2]
        return (m, n) == (rows, cols) and terms == others and (len(views) == 2 or views[2] == (1, n))
    if kind == "MAP":
        return (len(views) == ROWS.get(param) and not extra
                and all(view in itertools.product((1, rows), (1, cols)) for view in views))
    if kind == "TAKE":
        if len(views) != 2 or 0 in x or views[1] != (1, extra):
            return False
        if k == 1:
            return (rows, cols) == (1, x[0]) and extra == x[0] and all(0 <= label < x[1] for label in labels)
        return k == 0 and (rows, cols) == (extra, x[1]) and all(0 <= label < x[0] for label in labels)
    if len(views) != 1:
        return False
    if kind == "CROSS_ENTROPY":
        return rows == cols == 1 and extra == x[0] > 0 and all(0 <= label < x[1] for label in labels)
    if extra:
        return False
    if kind in ALONG:
        return 0 not in x and (rows == cols == 1 or (rows, cols) in ((1, x[0]), (x[0], 1)))
    return (rows, cols) == x   # softmax and its like


def near(rng, kind):
    """An instruction that fits, or nearly."""
    m, n, terms = rng.randint(1, 3), rng.randint(1, 3), rng.randint(0, 3)
    k, param, labels = 0, "ADD", []
    if kind == "LAYER":
        param, shape, views = rng.choice(ACTIVATIONS), (m, n), [(m, terms), (n, terms), (1, n)][:rng.randint(2, 3)]
    elif kind == "MAP":
        param, shape = rng.choice(list(ROWS)), (m, n)
        views = [(rng.choice((1, m)), rng.choice((1, n))) for _ in range(ROWS[param])]
    elif kind == "TAKE":
        k = rng.randint(0, 1)
        count = m if k else rng.randint(1, 4)
        shape, views = ((1, m) if k else (count, n)), [(m, n), (1, count)]
        labels = [rng.randrange(n if k else m) for _ in range(count)]
    elif kind == "CROSS_ENTROPY":
        shape, views, labels = (1, 1), [(m, n)], [rng.randrange(n) for _ in range(m)]
    elif kind in ALONG:
        shape, views = rng.choice([((1, 1), [(m, n)]), ((1, m), [(m, n)]), ((m, 1), [(m, n)]), ((2, 2), [(4, n)])])
    else:
        shape, views = (m, n), [(m, n)]
    rows, cols = shape
    for _ in range(rng.choice((0, 1, 1, 1, 2))):   # changes
        what = rng.randrange(8)
        if what == 0:
            rows = rng.randint(1, 4)
        elif what == 1:
            cols = rng.randint(1, 4)
        elif what == 2:
            k = rng.randint(0, 2)
        elif what == 3:
            param = rng.choice(["LEAF", "EXP", "ADD", "WHERE"])
        elif what == 4:
            labels = labels[1:] if labels and rng.random() < 0.5 else [*labels, rng.randint(-1, 3)]
        elif what == 5 and views:
            views = views[:-1] if rng.random() < 0.5 else [*views, (1, n)][:3]
        elif views:
            place = rng.randrange(len(views))
            views[place] = (rng.randint(0, 4), rng.randint(0, 4))
    return param, k, rows, cols, views, labels


def check_result(kind, graph, end, shape, is_constant):
    """Its gradient by both sweeps, and saved once more. Its data are 0, whatever the instruction would compute, and
    0.5 is no position, so what goes by these is not compared."""
    member = _core._member(graph, 0)
    z = member if isinstance(member, Value) else _core._restore_tensor(member, 0, *shape, shape[1], 1, 2, False)
    again = pickle.loads(pickle.dumps(z))
    assert np.shape(again.data) == np.shape(z.data) == np.shape(copy.deepcopy(z).data)
    (slope,) = _core.written([z], [None], [end])
    if is_constant:
        assert slope is None
        return
    end.grad = 0.0
    flatgrad.sum(z).backward() if isinstance(z, Tensor) else z.backward()
    assert slope is not None
    if kind not in ("MAX", "LOGSUMEXP", "TAKE"):
        np.testing.assert_allclose(slope.data, end.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["LAYER", "MAP", *ALONG, "SOFTMAX", "LOG_SOFTMAX", "CROSS_ENTROPY", "TAKE"])
def test_shapes_that_there_are_not(kind):
    rng, accepted, refused = random.Random(kind), 0, 0
    end = Value(0.5)
    for _ in range(1500):
        param, k, rows, cols, views, labels = described = near(rng, kind)
        constant = rng.randrange(2)
        state = saved(kind, param, k, rows, cols, views, labels, constant)
        if not fits(kind, *described):
            with pytest.raises(ValueError, match="a saved Value is damaged"):
                _core._restore_graph([], state, (end,), None)
            refused += 1
            continue
        graph = _core._restore_graph([], state, (end,), None)
        accepted += 1
        check_result(kind, graph, end, (rows, cols), constant or not sum(m * n for m, n in views))
        assert _core._check()
    assert accepted > 100 and refused > 100


def test_the_lowest_exponent():
    """Operators keep to those above it; a saved power may have it."""
    x = Tensor([1.0, -1.0, 1.0])
    own, lowest = integers(1 - 2**31), integers(-2**31)

    def changed(made):
        data = pickle.dumps(made)
        assert data.count(own) == 1
        return pickle.loads(data.replace(own, lowest))

    x, y = changed((x, x ** (1 - 2**31)))
    y.sum().backward()
    assert x.grad.tolist() == [-2.0**31, 2.0**31, -2.0**31]
    recording = _core._Recording([x])
    with recording:
        y = x ** (1 - 2**31)
    program = changed(recording.program([y]))
    for single in (False, True):
        batch = Tensor(np.ones((4, 3)))
        program.mapped(4, [True], 0, single)([batch])[0].sum().backward()
        assert batch.grad.tolist() == [[-2.0**31] * 3] * 4
