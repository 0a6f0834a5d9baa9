"""take and pick: against Python's brackets and NumPy, with gradients, errors, and what happens to positions later."""
import copy
import math
import pickle
import random

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, pick, take
from flatgrad.errors import ArgumentTypeError, ShapeError

A = np.arange(12.0).reshape(4, 3)


def rows_of_values(a):
    return [[Value(float(x)) for x in row] for row in a]


@pytest.mark.parametrize("index", [[2, 0], [-1, 1, 1, -4], (3,), np.array([0, 2]), Tensor([1.0, 3.0]), [Value(2.0), 1]],
                         ids=str)
def test_rows_of_every_kind_of_table(index):
    k = [int(i.data if isinstance(i, Value) else i) for i in index]
    for table in (Tensor(A), A, A.tolist(), rows_of_values(A)):
        out = take(table, index)
        assert isinstance(out, Tensor) and out.tolist() == A[k].tolist()
    for vector in (Tensor(A[:, 1]), A[:, 1], A[:, 1].tolist(), [row[1] for row in rows_of_values(A)]):
        out = take(vector, index)
        assert out.shape == (len(k),) and out.tolist() == A[k, 1].tolist()


def test_one_position():
    t, rows = Tensor(A), rows_of_values(A)
    assert take(t, 2).tolist() == take(t, Value(2.0)).tolist() == A[2].tolist()
    assert take(rows, 2) is rows[2] and [v.data for v in take(rows, Value(-1.0))] == A[-1].tolist()
    assert take(rows[1], Value(2.0)).data == 5.0 and take(Tensor([1.0, 2.0]), Value(1.0)).data == 2.0
    assert take("ab", 1) == "b" and pick(rows[1], 2) is rows[1][2] and pick(rows[1], Value(-3.0)).data == 3.0


def test_an_element_of_each_row():
    for x in (Tensor(A), A, A.tolist(), rows_of_values(A)):
        assert pick(x, [2, 0, -1, 1]).tolist() == [2.0, 3.0, 8.0, 10.0]
    assert pick(Tensor(A).T, [Value(3.0), 0.0, 1]).tolist() == [9.0, 1.0, 5.0]


def test_gradients_go_to_what_was_taken():
    t, p = Tensor(A), Tensor([1.0, -1.0, 1.0])
    (take(t, p) * np.arange(9.0).reshape(3, 3)).sum().backward()
    want = np.zeros((4, 3))
    np.add.at(want, [1, 3, 1], np.arange(9.0).reshape(3, 3))
    assert t.grad.tolist() == want.tolist() and p.grad.tolist() == [0.0, 0.0, 0.0]
    u = Tensor(A)
    (pick(u, [0, 1, 2, 0]) * [1.0, 2.0, 3.0, 4.0]).sum().backward()
    assert u.grad.tolist() == [[1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0], [4.0, 0, 0]]


@pytest.mark.parametrize("part", [np.s_[1:], np.s_[:, 1], np.s_[0, 0], np.s_[::2, ::2]])
def test_gradients_of_some_results(part):
    weights = np.arange(1.0, 13.0).reshape(4, 3)
    grads = []
    for f in (take, lambda table, index: table[index]):
        t = Tensor(A)
        inner = t * weights
        inner.grad = 7.0   # stale: those that are reached pass it on, and others must not
        out = f(inner, [3, 0, 0, 1])[part]
        (out if isinstance(out, Value) else out.sum()).backward()
        grads.append((t.grad.tolist(), inner.grad.tolist()))
    assert grads[0] == grads[1]


def test_the_graph_of_an_element():
    t, k = Tensor(A), Value(2.0)
    v = take(t, k)[1]
    assert v._op == "take" and [c.data for c in v._children] == [7.0, 2.0] and v._local_grads == (1.0, 0.0)


@pytest.mark.parametrize("position", [4.0, -5.0, 0.5, math.nan, math.inf, 1e300])
def test_positions_that_are_none(position):
    before = flatgrad.stats()["nodes"]
    for call in (lambda: take(Tensor(A), Value(position)), lambda: take(A.tolist(), [0.0, position]),
                 lambda: pick(Tensor(A.T), [0.0, position, 0.0])):
        with pytest.raises(IndexError, match=r"expected a whole number from -4 to 3"):
            call()
    assert flatgrad.stats()["nodes"] == before
    with pytest.raises(IndexError, match="position 4: expected a whole number from -4 to 3"):
        take(rows_of_values(A), 4)


@pytest.mark.parametrize("call, error, words", [
    (lambda: take(Tensor(A), True), ArgumentTypeError, "index: expected an int"),
    (lambda: take(Tensor(A), "1"), ArgumentTypeError, "index: expected an int"),
    (lambda: take(Tensor(A), None), ArgumentTypeError, "index: expected an int"),
    (lambda: take(Tensor(A), [[0, 1]]), ShapeError, r"index: .*got shape \(1, 2\)"),
    (lambda: take(Tensor(A), []), ShapeError, "index: expected a number or one dimension"),
    (lambda: take([], Value(0.0)), ShapeError, "table: expected one or two dimensions"),
    (lambda: take(3.0, Value(0.0)), ShapeError, "table: expected one or two dimensions"),
    (lambda: take(3.0, 0), ArgumentTypeError, "table: expected a Tensor"),
    (lambda: take([1.0, "a"], Value(0.0)), TypeError, "table"),
    (lambda: pick(Tensor(A), [0, 1]), ShapeError, r"index: expected shape \(4,\).*got \(2,\)"),
    (lambda: pick(Tensor(A), 1), ShapeError, "a position for each of 4 rows"),
    (lambda: pick(Tensor(A), Value(1.0)), ShapeError, r"index: expected shape \(4,\)"),
])
def test_what_is_not_taken(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_positions_may_change_after_they_were_read():
    t, p = Tensor(A), Tensor([1.0, 2.0])
    out = take(t, p).sum()
    p.data = [1e9, math.nan]
    out.backward()
    assert t.grad.tolist() == [[0.0] * 3, [1.0] * 3, [1.0] * 3, [0.0] * 3]


def test_constants_stay_constants():
    out = take(Tensor(A, requires_grad=False), Value(1.0))
    assert not out.requires_grad
    with flatgrad.no_grad():
        assert not take(Tensor(A), Value(1.0)).requires_grad


def test_copies_and_pickles():
    t, p = Tensor(A), Tensor([1.0, 3.0])
    out = take(t * 2.0, p)
    for twin in (copy.deepcopy((out, t)), pickle.loads(pickle.dumps((out, t)))):
        twin[0].sum().backward()
        assert twin[0].tolist() == out.tolist() and twin[1].grad.sum() == 12.0 and not t.grad.any()
    picked = pick(t, [0, 1, 2, 0])
    twin_picked, twin = pickle.loads(pickle.dumps((picked, t)))
    twin_picked.sum().backward()
    assert twin.grad.sum() == 4.0


def test_damaged_positions_are_refused():
    out = take(Tensor(A), Value(3.0))
    saved = pickle.dumps(out)
    changed = 0
    for k in range(len(saved) - 4):
        if saved[k:k + 4] == (3).to_bytes(4, "little"):
            damaged = saved[:k] + (400).to_bytes(4, "little") + saved[k + 4:]
            try:
                twin = pickle.loads(damaged)
            except Exception:
                changed += 1
            else:
                if isinstance(twin, Tensor):
                    twin.sum().backward()
    assert changed > 0


def test_in_a_scalar_graph_it_is_the_element():
    rows = rows_of_values(A)
    with flatgrad.scalar_graph():
        assert take(rows, Value(1.0)) is rows[1] and take(rows[1], Value(1.0)) is rows[1][1]
        assert [row[0].data for row in take(rows, [2, 0])] == [6.0, 0.0]
        assert [v.data for v in pick(rows, [0, 1, 2, 0])] == [0.0, 4.0, 8.0, 9.0]


def test_grad_and_collection():
    assert flatgrad.grad(lambda t: (take(t, [1, 1, 0]) ** 2).sum())(np.array([2.0, 3.0])).tolist() == [4.0, 12.0]
    rng = random.Random(0)
    t = Tensor(A)
    keep = []
    for _ in range(300):
        keep.append(take(t * 1.0, [rng.randrange(4) for _ in range(5)]))
        if len(keep) > 10:
            keep.pop(rng.randrange(10))
        if rng.random() < 0.1:
            flatgrad.collect()
    for out in keep:
        out.sum().backward()
    assert t.grad.sum() == 15.0 * len(keep)


# ---- where errors are numbers ----

def scanned(t, k):
    return flatgrad.scan(lambda c, p: (c + take(t, p).sum(), c), Value(0.0), k)[0]


LENIENT = {
    "a row": lambda t, k: (take(t, k[1]) * k[0]).sum(),
    "rows": lambda t, k: (take(t, k) * [[1.0, 2.0, 3.0]]).sum(),
    "an element": lambda t, k: take(t[:, 1], k[1]) * k[0] + 0.0 * t.sum(),
    "of each row": lambda t, k: pick(t, k).sum(),
    "twice": lambda t, k: (take(take(t, k) * 2.0, [Value(1.0), k[1]])).sum() + pick(t * t, k).sum(),
    "lanes": lambda t, k: flatgrad.vmap(lambda p: take(t, p).sum())(k).sum(),
    "elements in lanes": lambda t, k: flatgrad.vmap(lambda p: pick(t, [p, 0, p, 0]).sum())(k).sum(),
    "a scan": scanned,
    "scans in lanes": lambda t, k: flatgrad.vmap(lambda p: scanned(t, flatgrad.stack([p, 0.0 * p])))(k).sum(),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", LENIENT)
def test_a_position_that_is_none_is_nan(name, dtype):
    t, fn = Tensor(A), LENIENT[name]
    good, other = [1.0, -1.0, 2.0, 0.0], [0.0, 1.0, 1.0, -2.0]
    compiled = flatgrad.compile(lambda k: fn(t, k), dtype=dtype)
    compiled(np.array(good))
    free, theta = compiled.flat.lenient, A.ravel()
    for wrong in (9.0, 0.5, math.nan, -5.0, math.inf, -1e300):
        for k in (good, [1.0, wrong, 2.0, 0.0], other):
            value, gradient = free(theta, np.array(k))
            if k in (good, other):
                want = flatgrad.grad(lambda t, k=k: fn(t, Tensor(k, requires_grad=False)))(A)
                assert value == pytest.approx(fn(t, Tensor(k, requires_grad=False)).data, rel=1e-6)
                np.testing.assert_allclose(gradient.reshape(A.shape), want, rtol=1e-6)
            else:
                assert math.isnan(value) and math.isnan(gradient.sum()), (wrong, value, gradient)
                again = pickle.loads(pickle.dumps(free))
                assert again(theta, np.array(good))[0] == free(theta, np.array(good))[0]
                with pytest.raises(IndexError):
                    compiled(np.array(k))
