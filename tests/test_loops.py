"""vmap, scan and fori_loop against plain loops: the same values, the same gradients, and errors that say what is wrong."""
import math
import random

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, fori_loop, scan, vmap
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError


def test_vmap_is_a_loop_over_the_samples():
    rng = np.random.default_rng(0)
    w, xs = Value(0.7), rng.normal(size=6)
    y = vmap(lambda x: (w * x).tanh() + x)(xs)
    assert isinstance(y, Tensor) and y.shape == (6,)
    assert y.tolist() == [(w * x).tanh().data + x for x in xs.tolist()]
    y.sum().backward()
    assert w.grad == pytest.approx(sum(x * (1 - math.tanh(0.7 * x) ** 2) for x in xs))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_vmap_over_rows_and_columns(axis):
    a = np.arange(6.0).reshape(2, 3)
    rows = a if axis == 0 else a.T
    assert vmap(lambda row: row.sum(), in_axes=axis)(a).tolist() == [float(row.sum()) for row in rows]
    t = Tensor(a)
    out = vmap(lambda row: row * row, in_axes=axis)(t)
    assert out.tolist() == (rows * rows).tolist()
    out.sum().backward()
    assert t.grad.tolist() == (2 * a).tolist()


def test_vmap_puts_samples_along_the_axis_that_is_asked_for():
    a = np.arange(6.0).reshape(2, 3)
    assert vmap(lambda row: 2.0 * row, out_axes=1)(a).tolist() == (2 * a).T.tolist()
    assert vmap(lambda row: (row.sum(), 5.0), out_axes=(0, None))(a)[1] == 5.0


def test_vmap_takes_structures():
    def f(p, x, y=None):
        return {"loss": (p["w"] * x["a"] + p["b"] - y) ** 2, "pair": (x["a"], x["b"].sum())}

    p = {"w": Value(2.0), "b": Value(-1.0)}
    a, b, y = np.array([1.0, 2.0, 3.0]), np.ones((3, 2)), np.array([0.0, 1.0, 2.0])
    out = vmap(f, in_axes=(None, 0))(p, {"a": a, "b": b}, y=y)
    assert out["loss"].tolist() == [(2 * u - 1 - v) ** 2 for u, v in zip(a, y)]
    assert [part.tolist() for part in out["pair"]] == [[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]]
    out["loss"].mean().backward()
    assert p["w"].grad == pytest.approx(np.mean(2 * (2 * a - 1 - y) * a))
    other = vmap(f, in_axes=({"w": None, "b": None}, {"a": 0, "b": 1}))(p, {"a": a, "b": b.T}, y=y)
    assert other["loss"].tolist() == out["loss"].tolist()


def test_vmap_in_vmap():
    x, y = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0])
    table = vmap(lambda u: vmap(lambda v: u * v)(y))(x)
    assert table.tolist() == np.outer(x, y).tolist()


def test_the_gradient_of_vmap_is_that_of_the_loop():
    rng = np.random.default_rng(1)
    a, x = rng.normal(size=3), rng.normal(size=(5, 3))

    def total(a):
        return vmap(lambda row: flatgrad.dot(row, a).tanh())(x).sum()

    assert flatgrad.grad(total)(a) == pytest.approx((1 - np.tanh(x @ a) ** 2) @ x)


@pytest.mark.parametrize("call, error, words", [
    (lambda: vmap(3), ArgumentTypeError, "fn: expected a callable, got 3"),
    (lambda: vmap(len, in_axes="x"), ArgumentTypeError, "in_axes: expected an int, None"),
    (lambda: vmap(len, in_axes=None), ArgumentError, "in_axes: expected an axis for at least one"),
    (lambda: vmap(len, in_axes=(0, 0))(np.ones(2)), ArgumentError, "an entry for each of 1 positional"),
    (lambda: vmap(abs)(3.0), ArgumentError, "argument 0: expected an array or a Tensor"),
    (lambda: vmap(abs)([1.0, 2.0]), ArgumentError, r"argument 0\[0\].*flatgrad.stack"),
    (lambda: vmap(abs, in_axes=1)(np.ones(3)), ShapeError, r"argument 0: there is no axis 1 in the shape \(3,\)"),
    (lambda: vmap(max)(np.ones(3), np.ones(2)), ShapeError, r"argument 1: expected 3 samples, as argument 0 has, got 2"),
    (lambda: vmap(abs)(np.ones((2, 2, 2))), ShapeError, "argument 0: expected one or two dimensions"),
    (lambda: vmap(abs)(np.array(["a"])), ArgumentTypeError, "argument 0: expected an array of numbers"),
    (lambda: vmap(lambda x: Tensor([[1.0]]))(np.ones(2)), ShapeError, "a Tensor has at most two"),
    (lambda: vmap(lambda x: x, out_axes=1)(np.ones(2)), ShapeError, "there is no axis 1"),
    (lambda: vmap(lambda x: "a")(np.ones(2)), ArgumentTypeError, "the result of fn"),
    (lambda: vmap(lambda x: (x, x), out_axes=(0,))(np.ones(2)), ArgumentError, "out_axes: expected an entry 1"),
])
def test_vmap_says_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_scan_is_a_loop():
    a = Value(0.9)
    xs = np.array([1.0, -2.0, 0.5])
    carry, ys = scan(lambda c, x: (a * c + x, c * x), 2.0, xs)
    c, want = 2.0, []
    for x in xs.tolist():
        want.append(c * x)
        c = 0.9 * c + x
    assert carry.data == c and ys.tolist() == want
    carry.backward()
    eps = 1e-6
    ends = [scan(lambda c, x: ((0.9 + e) * c + x, None), 2.0, xs)[0].data for e in (eps, -eps)]
    assert a.grad == pytest.approx((ends[0] - ends[1]) / (2 * eps))


def test_scan_in_reverse_keeps_the_places_of_outputs():
    carry, ys = scan(lambda c, x: (c + x, c), 0.0, np.array([1.0, 2.0, 3.0]), reverse=True)
    assert carry.data == 6.0 and ys.tolist() == [5.0, 3.0, 0.0]


def test_scan_takes_structures_and_rows():
    state = {"x": 1.0, "v": np.zeros(2)}
    rows = np.arange(6.0).reshape(3, 2)
    end, out = scan(lambda s, row: ({"x": s["x"] * 2.0, "v": s["v"] + row}, (s["x"], row)), state, rows)
    assert end["x"].data == 8.0 and end["v"].tolist() == [6.0, 9.0]
    assert out[0].tolist() == [1.0, 2.0, 4.0] and out[1].tolist() == rows.tolist()
    assert scan(lambda c, _: (c * 2.0, None), 1.0, length=4)[1] is None
    pair, _ = scan(lambda c, x: ((c[1], c[0] + x["u"]), None), (1.0, 1.0), {"u": np.zeros(5)})
    assert [v.data for v in pair] == [1.0, 1.0]


def test_fori_loop_is_a_loop():
    x = Value(1.1)
    y = fori_loop(1, 6, lambda i, p: p * x + i, 1.0)
    p = 1.0
    for i in range(1, 6):
        p = p * 1.1 + i
    assert y.data == p
    y.backward()
    assert x.grad == pytest.approx((fori_loop(1, 6, lambda i, p: p * 1.100001 + i, 1.0).data - p) / 1e-6, rel=1e-4)
    assert fori_loop(3, 3, lambda i, v: 1 / 0, 7.0).data == 7.0
    assert fori_loop(3, -1, lambda i, v: 1 / 0, (7.0, Tensor([1.0])))[1].tolist() == [1.0]


@pytest.mark.parametrize("call, error, words", [
    (lambda: scan(3, 0.0, length=1), ArgumentTypeError, "f: expected a callable, got 3"),
    (lambda: scan(max, 0.0), ArgumentError, "expected xs or length"),
    (lambda: scan(max, 0.0, length=0), ArgumentError, "length: expected an int, 1 or more, got 0"),
    (lambda: scan(max, 0.0, np.ones(3), length=2), ShapeError, "length is 2, but xs has 3"),
    (lambda: scan(max, 0.0, [1.0, 2.0]), ArgumentError, r"xs\[0\]: expected an array or a Tensor"),
    (lambda: scan(lambda c, x: c, 0.0, length=1), ArgumentTypeError, "expected f to return a pair"),
    (lambda: scan(lambda c, x: ((c, c), x), 0.0, length=1), ArgumentTypeError, "in the structure of the one before"),
    (lambda: scan(lambda c, x: (Tensor([1.0]), x), 0.0, length=1), ShapeError, "of the shapes of the one before"),
    (lambda: scan(lambda c, x: (c, x), "a", length=1), ArgumentTypeError, "init: expected a number"),
    (lambda: scan(lambda c, x: (c, x), 0.0, length=1, reverse=1), ArgumentTypeError, "reverse: expected True or False"),
    (lambda: fori_loop(0, 3, 5, 0.0), ArgumentTypeError, "body: expected a callable, got 5"),
    (lambda: fori_loop(0.0, 3, max, 0.0), ArgumentTypeError, "lower: expected an int, got 0.0"),
    (lambda: fori_loop(0, True, max, 0.0), ArgumentTypeError, "upper: expected an int, got True"),
    (lambda: fori_loop(0, 1, lambda i, v: None, 0.0), ArgumentTypeError, "in the structure of the one before"),
    (lambda: fori_loop(0, 1, lambda i, v: "a", 0.0), ArgumentTypeError, "the carry"),
])
def test_scan_and_fori_loop_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_random_recurrences_against_plain_python():
    rng = random.Random(3)
    for _ in range(50):
        n, a, b = rng.randrange(1, 8), rng.uniform(-1, 1), rng.uniform(-1, 1)
        xs = np.array([rng.uniform(-1, 1) for _ in range(n)])
        wa, wb = Value(a), Value(b)
        carry, ys = scan(lambda c, x: ((wa * c + wb * x).tanh(), c * x), 0.5, xs)
        (carry + ys.sum()).backward()
        plain_a, plain_b, c, total = Value(a), Value(b), Value(0.5), Value(0.0)
        for x in xs.tolist():
            total = total + c * x
            c = (plain_a * c + plain_b * x).tanh()
        (c + total).backward()
        assert carry.data == c.data
        assert wa.grad == pytest.approx(plain_a.grad, rel=1e-12)
        assert wb.grad == pytest.approx(plain_b.grad, rel=1e-12)
