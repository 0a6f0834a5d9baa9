"""Instructions of many operands and the layers made of them: against the scalar graph, hand-written
formulas and the real micrograd, with everything that a user may change about a network.

`flatgrad.scalar` and `scalar_graph()` build the graphs that the instructions stand for; a sum is taken
in another order there, so the two agree to 1e-12 and not to the last bit.
"""
import gc
import itertools
import math
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from leaks import nodes

import flatgrad
import flatgrad.nn
from flatgrad import Tensor, Value, _core, losses, scalar
from flatgrad.datasets import make_moons

INF, NAN = math.inf, math.nan


pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def numbers(*shape, seed=0, low=-2.0, high=2.0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def as_values(array):
    """Nested lists of Values."""
    return [as_values(x) for x in array] if np.ndim(array) else Value(float(array))


def flat(x):
    """The Values or numbers of nested lists, arrays and Tensors."""
    if isinstance(x, (list, tuple, np.ndarray, Tensor)):
        return [v for part in x for v in flat(part)]
    return [x]


def data_of(x):
    return [v.data if isinstance(v, Value) else float(v) for v in flat(x)]


def grads_of(x):
    return [v.grad if isinstance(v, Value) else None for v in flat(x)]


def weighted(result, seed=9):
    """A sum of the results with different weights, by single operations."""
    parts = flat(result)
    weights = numbers(len(parts), seed=seed).tolist()
    total = parts[0] * weights[0]
    for v, weight in zip(parts[1:], weights[1:]):
        total = total + v * weight
    return total


def assert_close(got, expected, rel=1e-12, scale=1.0):
    np.testing.assert_allclose(got, expected, rtol=rel, atol=rel * scale)


# ---- functions against the scalar graph ----

# Of rows x and w of five, y of three, and matrices A (3, 5) and B (4, 5).
FUNCTIONS = {
    "sum": lambda x, w, y, A, B: flatgrad.sum(x),
    "mean": lambda x, w, y, A, B: flatgrad.mean(x),
    "max": lambda x, w, y, A, B: flatgrad.max(x),
    "logsumexp": lambda x, w, y, A, B: flatgrad.logsumexp(x),
    "softmax": lambda x, w, y, A, B: flatgrad.softmax(x),
    "log_softmax": lambda x, w, y, A, B: flatgrad.log_softmax(x),
    "dot": lambda x, w, y, A, B: flatgrad.dot(w, x),
    "dot, with bias": lambda x, w, y, A, B: flatgrad.dot(w, x, y[0]),
    "dot with itself": lambda x, w, y, A, B: flatgrad.dot(x, x, x[0]),
    "matvec": lambda x, w, y, A, B: flatgrad.matvec(A, x),
    "matvec, with bias": lambda x, w, y, A, B: flatgrad.matvec(A, x, y),
    "matvec of its own rows": lambda x, w, y, A, B: flatgrad.matvec([w, x, w], x, b=y),
    "linear": lambda x, w, y, A, B: flatgrad.linear(x, A),
    "linear, with bias": lambda x, w, y, A, B: flatgrad.linear(x, A, y),
    "linear, relu": lambda x, w, y, A, B: flatgrad.linear(x, A, y, "relu"),
    "linear, tanh": lambda x, w, y, A, B: flatgrad.linear(x, A, y, activation="tanh"),
    "linear, sigmoid": lambda x, w, y, A, B: flatgrad.linear(x, A, activation="sigmoid"),
    "linear, 'linear'": lambda x, w, y, A, B: flatgrad.linear(x, A, y, activation="linear"),
    "linear of a batch": lambda x, w, y, A, B: flatgrad.linear(B, A, y, "relu"),
    "matvec of a batch": lambda x, w, y, A, B: flatgrad.linear(B, A),
    "sum of columns": lambda x, w, y, A, B: flatgrad.sum(A, axis=0),
    "sum of rows": lambda x, w, y, A, B: flatgrad.sum(A, axis=1),
    "sum of all": lambda x, w, y, A, B: flatgrad.sum(A),
    "mean of columns": lambda x, w, y, A, B: flatgrad.mean(A, 0),
    "mean of all": lambda x, w, y, A, B: flatgrad.mean(A),
    "max of rows": lambda x, w, y, A, B: flatgrad.max(A, -1),
    "max of all": lambda x, w, y, A, B: flatgrad.max(A),
    "logsumexp of columns": lambda x, w, y, A, B: flatgrad.logsumexp(A, axis=-2),
    "logsumexp of all": lambda x, w, y, A, B: flatgrad.logsumexp(A),
    "softmax of rows": lambda x, w, y, A, B: flatgrad.softmax(A),
    "softmax of columns": lambda x, w, y, A, B: flatgrad.softmax(A, axis=0),
    "log_softmax of columns": lambda x, w, y, A, B: flatgrad.log_softmax(A, 0),
    "mse": lambda x, w, y, A, B: losses.mse(x, [1.0, 0.0, -1.0, 2.0, 0.5]),
    "hinge": lambda x, w, y, A, B: losses.hinge(x, [1, -1, 1, -1, -1]),
    "cross_entropy": lambda x, w, y, A, B: losses.cross_entropy(A, [4, 0, 2]),
}
SHAPES = [(5,), (5,), (3,), (3, 5), (4, 5)]

FLAVOURS = {
    "Values": lambda k, array: as_values(array),
    "tuples": lambda k, array: tuple([tuple(row) if isinstance(row, list) else row for row in as_values(array)]),
    "Values and numbers": lambda k, array: [
        [v if (i + j) % 2 else v.data for j, v in enumerate(row)] if isinstance(row, list)
        else row if i % 2 else row.data for i, row in enumerate(as_values(array))],
    "Tensors": lambda k, array: Tensor(array),
    "Tensors and lists": lambda k, array: Tensor(array) if k % 2 else as_values(array),
    "lists and Tensors": lambda k, array: as_values(array) if k % 2 else Tensor(array),
    "Tensors and arrays": lambda k, array: array if k % 2 else Tensor(array),
    "arrays and Tensors": lambda k, array: Tensor(array) if k % 2 else array,
    "views": lambda k, array: Tensor(array.T).T if array.ndim == 2 else Tensor(array[::-1].copy())[::-1],
    "rows of Tensors": lambda k, array: list(Tensor(array)),
    "results": lambda k, array: Tensor(array / 2.0) * 2.0,
    "constants": lambda k, array: Tensor(array, requires_grad=False) if k % 2 else Tensor(array),
}


def leaves(make):
    return [make(k, numbers(*shape, seed=k)) for k, shape in enumerate(SHAPES)]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_their_scalar_graphs(name, flavour, moving):
    operands = leaves(FLAVOURS[flavour])
    result = FUNCTIONS[name](*operands)
    weighted(result).backward()
    oracle = leaves(FLAVOURS["Values"])
    with flatgrad.scalar_graph():
        expected = FUNCTIONS[name](*oracle)
    weighted(expected).backward()
    assert_close(data_of(result), data_of(expected))
    for operand, wanted in zip(operands, oracle):
        if flavour == "constants" and not operand.requires_grad:
            continue
        for v, grad in zip(flat(operand), grads_of(wanted), strict=True):
            if isinstance(v, Value):
                assert v.grad == pytest.approx(grad, rel=1e-12, abs=1e-12)


def formulas():
    x, w, y, A, B = [numbers(*shape, seed=k) for k, shape in enumerate(SHAPES)]
    e = np.exp(A)
    return {
        "sum": x.sum(), "mean": x.mean(), "max": x.max(), "logsumexp": np.log(np.exp(x).sum()),
        "softmax": np.exp(x) / np.exp(x).sum(), "log_softmax": x - np.log(np.exp(x).sum()), "dot": w @ x,
        "dot, with bias": w @ x + y[0], "dot with itself": x @ x + x[0], "matvec": A @ x,
        "matvec, with bias": A @ x + y,
        "matvec of its own rows": np.array([w @ x, x @ x, w @ x]) + y, "linear": A @ x,
        "linear, with bias": A @ x + y,
        "linear, relu": np.maximum(A @ x + y, 0), "linear, tanh": np.tanh(A @ x + y),
        "linear, sigmoid": 1 / (1 + np.exp(-A @ x)),
        "linear, 'linear'": A @ x + y, "linear of a batch": np.maximum(B @ A.T + y, 0), "matvec of a batch": B @ A.T,
        "sum of columns": A.sum(0), "sum of rows": A.sum(1), "sum of all": A.sum(), "mean of columns": A.mean(0),
        "mean of all": A.mean(), "max of rows": A.max(1), "max of all": A.max(),
        "logsumexp of columns": np.log(e.sum(0)),
        "logsumexp of all": np.log(e.sum()), "softmax of rows": e / e.sum(1, keepdims=True),
        "softmax of columns": e / e.sum(0),
        "log_softmax of columns": A - np.log(e.sum(0)), "mse": ((x - [1.0, 0.0, -1.0, 2.0, 0.5]) ** 2).mean(),
        "hinge": np.maximum(1 - x * [1, -1, 1, -1, -1], 0).mean(),
        "cross_entropy": (np.log(e.sum(1)) - A[[0, 1, 2], [4, 0, 2]]).mean(),
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_their_formulas(name):
    for flavour in "Values", "Tensors":
        result = FUNCTIONS[name](*leaves(FLAVOURS[flavour]))
        assert_close(data_of(result), np.ravel(formulas()[name]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_kinds_and_shapes_of_results(name):
    """A flat list in, Values out; a Tensor, array or nested list in, a Tensor out; a Value if there is one."""
    expected = formulas()[name]
    takes_flat = (not any(name.endswith(end) for end in ("rows", "columns", "all", "batch"))
                  or name == "matvec of its own rows")
    for flavour in "Values", "Tensors", "Values and numbers", "arrays":
        if flavour == "arrays":
            operands = leaves(lambda k, array: array)
        else:
            operands = leaves(FLAVOURS[flavour])
        result = FUNCTIONS[name](*operands)
        if np.ndim(expected) == 0:
            assert type(result) is Value
        elif takes_flat and flavour.startswith("Values"):
            assert type(result) is list and [type(v) for v in result] == [Value] * expected.size
        else:
            assert type(result) is Tensor and result.shape == expected.shape


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_instruction_a_call(name):
    """A node for each result and at most one more; the scalar graph has many."""
    operands = leaves(FLAVOURS["Tensors" if "of" in name.split() else "Values"])
    flatgrad.collect()
    before = flatgrad.stats()["nodes"]
    result = FUNCTIONS[name](*operands)
    count = len(flat(result))
    constants = {"mse": 6, "hinge": 6}.get(name, 0)   # the targets, and a node of their own
    extra = {"mse": 6, "hinge": 6}.get(name, 0)       # a loss of each sample, and then the mean
    assert flatgrad.stats()["nodes"] - before <= count + (count > 1) + constants + extra
    del result
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] == before


@pytest.mark.parametrize("call, same", [
    (lambda: flatgrad.sum([1.0, 2, np.float32(3.0)]), 6.0), (lambda: flatgrad.sum(np.arange(4)), 6.0),
    (lambda: flatgrad.sum(range(4)), 6.0), (lambda: flatgrad.dot(np.arange(3.0), [1, 2, 3]), 8.0),
    (lambda: flatgrad.dot((1, 2), (3, 4), 5), 16.0), (lambda: flatgrad.max([True, False]), 1.0),
    (lambda: flatgrad.mean([[1.0, 2.0], [3.0, 6.0]]), 3.0),
    (lambda: flatgrad.sum(v * v for v in [Value(2.0), Value(3.0)]), 13.0),
    (lambda: flatgrad.dot((Value(float(k)) for k in range(3)), [1.0, 2.0, 3.0]), 8.0),
])
def test_numbers_alone_and_what_is_read_once(call, same):
    result = call()
    assert type(result) is Value and result.data == same
    with flatgrad.scalar_graph():
        result = call()
    assert type(result) is Value and result.data == same


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100, 1000])
def test_every_length(count):
    """Around the widths of vectors: values, gradients and the places they go to."""
    a, b = numbers(count), numbers(count, seed=1)
    for make in as_values, Tensor:
        for name, formula, slopes in [
            ("sum", a.sum(), np.ones(count)), ("mean", a.mean(), np.full(count, 1 / count)),
            ("max", a.max(), (a == a.max()) * 1.0),
            ("logsumexp", np.log(np.exp(a).sum()), np.exp(a) / np.exp(a).sum()),
        ]:
            x = make(a)
            out = getattr(flatgrad, name)(x)
            out.backward()
            assert_close(out.data, formula, scale=count)
            assert_close(grads_of(x), slopes)
        w, x = make(a), make(b)
        out = flatgrad.dot(w, x, 0.5)
        out.backward()
        assert_close(out.data, a @ b + 0.5, scale=count)
        assert_close(grads_of(w), b)
        assert_close(grads_of(x), a)
        x = make(a)
        weighted(flatgrad.softmax(x)).backward()
        p, seed = np.exp(a) / np.exp(a).sum(), numbers(count, seed=9)
        assert_close(grads_of(x), p * (seed - p @ seed))


@pytest.mark.parametrize("rows, outs, width", [(1, 1, 1), (2, 3, 4), (5, 1, 7), (1, 9, 16), (17, 8, 33),
                                               (8, 17, 1), (3, 64, 65)])
@pytest.mark.parametrize("activation", [None, "relu", "tanh", "sigmoid"])
def test_linear_of_every_size(rows, outs, width, activation):
    x, w, b = numbers(rows, width), numbers(outs, width, seed=1), numbers(outs, seed=2)
    s = x @ w.T + b
    z, slope = {None: (s, np.ones_like(s)), "relu": (np.maximum(s, 0), (s > 0) * 1.0),
                "tanh": (np.tanh(s), 1 - np.tanh(s) ** 2),
                "sigmoid": (1 / (1 + np.exp(-s)), np.exp(-s) / (1 + np.exp(-s)) ** 2)}[activation]
    X, W, B = Tensor(x), Tensor(w), Tensor(b)
    out = flatgrad.linear(X, W, B, activation)
    assert_close(out.data, z, scale=width)
    seed = numbers(rows, outs, seed=3)
    (out * seed).sum().backward()
    ds = seed * slope
    assert_close(X.grad, ds @ w, scale=100.0)
    assert_close(W.grad, ds.T @ x, scale=100.0)
    assert_close(B.grad, ds.sum(0), scale=100.0)


def test_the_same_value_many_times():
    """Its gradient is the sum over all its places."""
    v = Value(2.0)
    flatgrad.sum([v] * 10).backward()
    assert v.grad == 10.0
    v.grad = 0.0
    flatgrad.dot([v, v, v], [v, v, v], v).backward()
    assert v.grad == 13.0
    v.grad = 0.0
    weighted(flatgrad.linear([v, v], [[v, 1.0], [v, v]], [v, v])).backward()
    with flatgrad.scalar_graph():
        u = Value(2.0)
        weighted(flatgrad.linear([u, u], [[u, 1.0], [u, u]], [u, u])).backward()
    assert v.grad == pytest.approx(u.grad, rel=1e-12)


@pytest.mark.parametrize("name", ["max", "logsumexp", "softmax", "log_softmax", "sum", "mean"])
@pytest.mark.parametrize("row", [[NAN, 1.0, 2.0], [1.0, NAN], [INF, 1.0], [-INF, 1.0], [1e300, 1e300],
                                 [1000.0, -1000.0],
                                 [-0.0, 0.0], [5.0, 5.0], [-1000.0, -1000.0, -1001.0]], ids=str)
def test_special_numbers(name, row):
    """As in the scalar graph, but that nothing raises for a sum that overflows."""
    x, y = as_values(row), as_values(row)
    result = getattr(flatgrad, name)(x)
    weighted(result).backward()
    expected = getattr(scalar, name)(y)
    weighted(expected).backward()
    assert_close(data_of(result), data_of(expected))
    # A chain of maximum gives nan's company a gradient as well; beside inf all slopes but 0 are nan.
    if not (name == "max" and np.isnan(row).any() or name == "logsumexp" and INF in row):
        assert_close(grads_of(x), grads_of(y))


# ---- mistakes ----

MISTAKES = [
    (lambda v: flatgrad.dot(v, v[:2]), ValueError, "3.*2"),
    (lambda v: flatgrad.dot(v, Tensor([1.0])), ValueError, "3.*1"),
    (lambda v: flatgrad.dot([v], [v]), (TypeError, ValueError), None),
    (lambda v: flatgrad.dot(v, v, v), (TypeError, ValueError), "b"),
    (lambda v: flatgrad.dot(v, [1.0, "a", 2.0]), TypeError, "x.*'a'"),
    (lambda v: flatgrad.dot(v, 3.0), (TypeError, ValueError), "x"),
    (lambda v: flatgrad.dot(None, v), TypeError, "w"),
    (lambda v: flatgrad.matvec([v, v], v[:2]), ValueError, r"\(2, 3\).*2|2.*\(2, 3\)"),
    (lambda v: flatgrad.matvec([v, v[:2]], v), ValueError, None),
    (lambda v: flatgrad.matvec([v, v], v, v), ValueError, "b"),
    (lambda v: flatgrad.matvec(v, v), (TypeError, ValueError), "W"),
    (lambda v: flatgrad.linear(v, [v[:2]]), ValueError, r"3.*\(1, 2\)|\(1, 2\).*3"),
    (lambda v: flatgrad.linear([v, v], [v[:2]]), ValueError, r"\(2, 3\).*\(1, 2\)|\(1, 2\).*\(2, 3\)"),
    (lambda v: flatgrad.linear(v, [v], v), ValueError, "b"),
    (lambda v: flatgrad.linear(v, [v], activation="softplux"), ValueError, "activation.*softplux.*did you mean 'softplus'"),
    (lambda v: flatgrad.linear(v, [v], activation=3), (TypeError, ValueError), "activation.*3"),
    (lambda v: flatgrad.softmax(3.0), TypeError, "x"),
    (lambda v: flatgrad.sum(None), TypeError, "x"),
    (lambda v: flatgrad.sum([v, v[:2]]), ValueError, None),
    (lambda v: flatgrad.sum(["a"]), TypeError, "'a'"),
    (lambda v: flatgrad.sum("abc"), TypeError, None),
    (lambda v: flatgrad.sum(v, axis=1), (ValueError, IndexError), "axis"),
    (lambda v: flatgrad.mean([1j]), TypeError, None),
    (lambda v: flatgrad.sum([2**53 + 1]), ValueError, "9007199254740993"),
    (lambda v: flatgrad.mean([]), ValueError, None),
    (lambda v: flatgrad.max([]), ValueError, None),
    (lambda v: flatgrad.softmax(v, axis=1), (ValueError, IndexError), "axis"),
    (lambda v: flatgrad.softmax([[[v]]]), (TypeError, ValueError), None),
    (lambda v: losses.mse(v, [1.0]), ValueError, None),
    (lambda v: losses.hinge(v, [1.0] * 4), ValueError, None),
    (lambda v: losses.cross_entropy([v, v], [0]), ValueError, "target"),
    (lambda v: losses.cross_entropy([v, v], [0, 3]), (ValueError, IndexError), "3"),
    (lambda v: losses.cross_entropy([v, v], [0, -1]), (ValueError, IndexError), "-1"),
    (lambda v: losses.cross_entropy([v, v], [0.5, 1]), (TypeError, ValueError), "target"),
]


@pytest.mark.parametrize("k", range(len(MISTAKES)))
def test_mistakes_are_named_and_leave_no_trace(k):
    call, error, text = MISTAKES[k]
    v = as_values([1.0, 2.0, 3.0])
    before = nodes()
    with pytest.raises(error, match=text):
        call(v)
    with flatgrad.scalar_graph(), pytest.raises(error):
        call(v)
    assert nodes() == before
    assert data_of(v) == [1.0, 2.0, 3.0]


def test_unknown_arguments():
    for name in "sum", "mean", "max", "softmax", "log_softmax", "logsumexp", "dot", "matvec", "linear":
        with pytest.raises(TypeError):
            getattr(flatgrad, name)()
        with pytest.raises(TypeError):
            getattr(flatgrad, name)([1.0], [1.0], 0, 0, 0, 0, 0)
        with pytest.raises(TypeError):
            getattr(flatgrad, name)([1.0], wrong=1)


def test_code_that_runs_while_operands_are_read():
    """Iterables that append, drop and collect."""
    def busy(count):
        for k in range(count):
            junk = [Value(1.0) * 2.0 for _ in range(50)]
            yield junk[k] * (k + 1.0)
            del junk
            flatgrad.collect()

    assert flatgrad.sum(busy(5)).data == 30.0
    assert type(flatgrad.softmax(busy(3))) is list
    assert flatgrad.dot(busy(5), busy(5)).data == 4 * 55.0
    assert flatgrad.linear(busy(2), (list(busy(2)) for _ in range(2)), busy(2))[1].data == 2 * 2 + 4 * 4 + 4


# ---- the graph that one sees ----

def python_backward(root):
    """The gradients by `_children` and `_local_grads`, as Karpathy's scalar GPT walks them."""
    order, seen = [], set()

    def build(v):
        if v not in seen:
            seen.add(v)
            for child in v._children:
                build(child)
            order.append(v)

    build(root)
    grads = {v: 0.0 for v in order}
    grads[root] = 1.0
    for v in reversed(order):
        for child, local in zip(v._children, v._local_grads, strict=True):
            grads[child] += local * grads[v]
    return grads


@pytest.mark.parametrize("flavour", ["Values", "Values and numbers", "Tensors"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_children_and_local_grads(name, flavour):
    operands = leaves(FLAVOURS[flavour])
    result = FUNCTIONS[name](*operands)
    root = weighted(result)
    grads = python_backward(root)
    root.backward()
    for v in flat(operands) + flat(result):
        if isinstance(v, Value):
            assert v.grad == pytest.approx(grads.get(v, 0.0), rel=1e-12, abs=1e-12)
    for v in flat(result):
        assert v._prev == set(v._children) and v._prev
    assert all(v._prev == set() and v._op == "" for v in flat(operands) if isinstance(v, Value))


@pytest.mark.parametrize("call, op", [
    (lambda x: flatgrad.sum(x), "sum"), (lambda x: flatgrad.mean(x), "mean"), (lambda x: flatgrad.max(x), "max"),
    (lambda x: flatgrad.logsumexp(x), "logsumexp"), (lambda x: flatgrad.softmax(x)[0], "softmax"),
    (lambda x: flatgrad.log_softmax(x)[0], "log_softmax"), (lambda x: flatgrad.dot(x, x), "layer"),
    (lambda x: flatgrad.matvec([x], x)[0], "layer"), (lambda x: flatgrad.linear(x, [x], None, "relu")[0], "layer"),
    (lambda x: losses.cross_entropy([x], [1]), "cross_entropy"),
    (lambda x: (Tensor([x]) @ Tensor([x]).T)[0, 0], "layer"),
])
def test_names_of_operations(call, op):
    x = as_values([1.0, 2.0, 3.0])
    out = call(x)
    assert out._op == op
    with flatgrad.scalar_graph():
        assert call(x)._op != op
    assert f"{out.data}" in repr(out)


def test_only_what_reaches_an_element_is_its_operand():
    x, w, b = as_values([1.0, 2.0]), as_values([[1.0, 2.0], [3.0, 4.0]]), as_values([5.0, 6.0])
    out = flatgrad.linear(x, w, b)
    assert out[0]._prev == {*x, *w[0], b[0]} and out[1]._prev == {*x, *w[1], b[1]}
    p = flatgrad.softmax(x)
    assert p[0]._prev == p[1]._prev == set(x)
    t = Tensor([[1.0, 2.0], [3.0, 4.0]])
    assert (t * 2.0)[0, 1]._prev >= {t[0, 1]} and t[0, 0] not in (t * 2.0)[0, 1]._prev
    assert t.sum(axis=0)[1]._prev == {t[0, 1], t[1, 1]}
    assert (t @ t)[0, 1]._prev == {t[0, 0], t[0, 1], t[1, 1]}


def test_a_rule_of_the_users_on_an_element():
    """It runs in place of the element's own; the other elements keep theirs."""
    x = as_values([1.0, 2.0, 3.0])
    w = as_values(numbers(3, 3))
    out = flatgrad.linear(x, w)
    ran = []
    out[1]._backward = lambda: ran.append(out[1].grad)
    (out[0] * 2.0 + out[1] * 3.0 + out[2]).backward()
    assert ran == [3.0]
    assert_close(grads_of(w[0]), [2.0, 4.0, 6.0])
    assert grads_of(w[1]) == [0.0] * 3
    assert_close(grads_of(w[2]), [1.0, 2.0, 3.0])
    assert_close(grads_of(x), 2 * np.array(data_of(w[0])) + data_of(w[2]))
    del out, ran
    gc.collect()


@pytest.mark.parametrize("make", [lambda x: flatgrad.sum(x), lambda x: flatgrad.softmax(x)[2],
                                  lambda x: flatgrad.dot(x, x),
                                  lambda x: flatgrad.max(x), lambda x: (Tensor(x) * 2.0)[1], lambda x: Tensor(x)[0]])
def test_a_rule_that_uses_its_own_node(make):
    """The usual closure, a cycle; the default rule can be called from it."""
    x, y = as_values([1.0, 2.0, 3.0]), as_values([1.0, 2.0, 3.0])
    out, plain = make(x), make(y)
    default = out._backward

    def rule():
        out.grad *= 10.0
        default()

    out._backward = rule
    (out * 1.0).backward()
    (plain * 10.0).backward()
    assert_close(grads_of(x), grads_of(y))
    del out, default, rule
    gc.collect()


def test_calling_the_default_rule():
    x = as_values([1.0, 2.0, 3.0])
    p = flatgrad.softmax(x)
    p[0].grad, p[1].grad = 1.0, 5.0
    p[0]._backward()
    q = np.array(data_of(p))
    assert_close(grads_of(x), q[0] * (np.array([1.0, 0.0, 0.0]) - q))
    p[1]._backward()
    assert_close(grads_of(x), q[0] * (np.array([1.0, 0.0, 0.0]) - q) + 5 * q[1] * (np.array([0.0, 1.0, 0.0]) - q))


def test_attributes_on_elements():
    x = as_values([1.0, 2.0, 3.0])
    out = flatgrad.linear(x, [x, x])
    out[1].label = "second"
    total = flatgrad.sum(out)
    del out
    flatgrad.collect()
    assert sorted([getattr(v, "label", "") for v in total._children]) == ["", "second"]


def test_backward_of_one_element_then_another(moving):
    """As in micrograd: the root's gradient is set, all others are added to, and nothing stale flows."""
    micrograd = pytest.importorskip("micrograd.engine")
    results = []
    for library in micrograd.Value, Value:
        x = [library(k) for k in (1.0, -2.0, 0.5)]
        w = [[library(k) for k in row] for row in numbers(2, 3).tolist()]
        if library is Value:
            out = flatgrad.linear(x, w)
        else:
            out = [sum((wi * xi for wi, xi in zip(row, x)), library(0.0)) for row in w]
        out[0].backward()
        out[1].backward()
        out[0].grad = 1e6
        (out[1] * 2.0).backward()
        results.append([v.grad for v in x + w[0] + w[1] + out])
    # Weights of the first and gradients of the results. The second pass through out[1] finds its gradient
    # from the first in both, but micrograd also those of the sums that are hidden in the instruction.
    assert results[1][3:6] == pytest.approx(results[0][3:6], rel=1e-12)
    assert results[1][9:] == results[0][9:]
    assert results[1][6:9] == [4.0, -8.0, 2.0]   # 1 and then 3 times the inputs


# ---- scalar_graph() ----

def test_scalar_graph_is_for_its_block_only():
    x = as_values([1.0, 2.0])
    assert flatgrad.sum(x)._op == "sum"
    with flatgrad.scalar_graph():
        assert flatgrad.sum(x)._op == "+"
        with flatgrad.scalar_graph():
            assert flatgrad.sum(x)._op == "+"
        assert flatgrad.sum(x)._op == "+"
    assert flatgrad.sum(x)._op == "sum"
    with pytest.raises(KeyError):
        with flatgrad.scalar_graph():
            raise KeyError
    assert flatgrad.sum(x)._op == "sum"


def test_scalar_graph_of_networks_and_tensors():
    model = seeded(flatgrad.nn, lambda nn: nn.MLP(3, [4, 2]))
    with flatgrad.scalar_graph():
        out = model([1.0, 2.0, 3.0])
        t = Tensor([[1.0, 2.0, 3.0]])
        batch = model(t)
        product = t @ t.T
    assert {v._op for v in out} == {"+"}
    for t_element in batch[0, 0], product[0, 0]:   # copies, which lie side by side
        assert {v._op for v in t_element._prev} == {"+"}
    assert batch.shape == (1, 2) and product[0, 0].data == 14.0
    expected = model(Tensor([[1.0, 2.0, 3.0]]))
    assert_close(batch.data, expected.data)
    batch.sum().backward()
    grads = t.grad
    u = Tensor([[1.0, 2.0, 3.0]])
    model(u).sum().backward()
    assert_close(grads, u.grad)


# ---- nn: the four ways to compute a network ----

def seeded(nn, make, seed=1337):
    random.seed(seed)
    return make(nn)


NETWORKS = {
    "Layer(3, 4)": lambda nn, **options: nn.Layer(3, 4, **options),
    "Layer(3, 1)": lambda nn, **options: nn.Layer(3, 1, **options),
    "linear Layer(3, 2)": lambda nn, **options: nn.Layer(3, 2, nonlin=False, **options),
    "MLP(3, [8, 8, 1])": lambda nn, **options: nn.MLP(3, [8, 8, 1], **options),
    "MLP(3, [5, 2])": lambda nn, **options: nn.MLP(3, [5, 2], **options),
    "MLP(3, [1])": lambda nn, **options: nn.MLP(3, [1], **options),
    "MLP(3, [17, 33])": lambda nn, **options: nn.MLP(3, [17, 33], **options),
}
NUMBERS = [0.5, -1.25, 2.0]
INPUTS = {
    "floats": lambda Value: NUMBERS,
    "ints": lambda Value: [1, -2, 3],
    "tuple": lambda Value: tuple(NUMBERS),
    "Values": lambda Value: [Value(x) for x in NUMBERS],
    "array": lambda Value: np.array(NUMBERS),
    "array of Values": lambda Value: np.array([Value(x) for x in NUMBERS]),
    "mixed": lambda Value: [Value(0.5), 2, -1.5],
    "one Value thrice": lambda Value: [Value(0.5)] * 3,
}


def run_network(model, x):
    """Whether the output is a list, its data, and the gradients of parameters and inputs."""
    out = model(x)
    outs = out if isinstance(out, list) else [out]
    total = sum([o * o * (k + 1.0) for k, o in enumerate(outs)])
    total.backward()
    values = [v for v in x if hasattr(v, "grad")]
    return isinstance(out, list), [o.data for o in outs], [p.grad for p in model.parameters() + values]


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_four_ways_agree(name, kind):
    micrograd = pytest.importorskip("micrograd.nn")
    make = NETWORKS[name]
    results = [run_network(seeded(micrograd, make), INPUTS[kind](micrograd.Value))]
    for options in {}, {"fused": False}, {"fused": True}:
        model = seeded(flatgrad.nn, lambda nn: make(nn, **options))
        results.append(run_network(model, INPUTS[kind](Value)))
    with flatgrad.scalar_graph():
        results.append(run_network(seeded(flatgrad.nn, make), INPUTS[kind](Value)))
    for is_list, data, grads in results[1:]:
        assert is_list is results[0][0]
        assert_close(data, results[0][1])
        assert_close(grads, results[0][2])
    for scalar_result in results[2], results[4]:
        assert scalar_result[1] == results[0][1]   # to the last bit


@pytest.mark.parametrize("name", NETWORKS)
def test_fused_networks_have_few_nodes(name):
    model = seeded(flatgrad.nn, NETWORKS[name])
    x = as_values(NUMBERS)
    counts = []
    layers = getattr(model, "layers", [model])
    for fused in False, True:
        model.fused = fused
        for layer in layers:
            layer.fused = fused
        flatgrad.collect()
        before = flatgrad.stats()["nodes"]
        out = model(x)
        counts.append(flatgrad.stats()["nodes"] - before)
        del out
    assert counts[1] <= sum([len(layer.neurons) + 1 for layer in layers])
    assert counts[0] >= sum([2 * len(n.w) for layer in layers for n in layer.neurons])


def test_a_neuron_alone_builds_the_scalar_graph():
    n = flatgrad.nn.Neuron(3)
    assert n(NUMBERS)._op == "ReLU"
    assert flatgrad.nn.Neuron(3, nonlin=False)(NUMBERS)._op == "+"
    assert flatgrad.nn.Neuron(3, activation="tanh")(NUMBERS)._op == "tanh"


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("activation, function", [
    ("relu", lambda s: np.maximum(s, 0)), ("tanh", np.tanh), ("sigmoid", lambda s: 1 / (1 + np.exp(-s))),
    ("linear", lambda s: s)])
def test_activations(activation, function, fused):
    nn = flatgrad.nn
    x = numbers(5, 3)
    layer = seeded(nn, lambda nn: nn.Layer(3, 4, activation=activation, fused=fused))
    w = np.array([[v.data for v in n.w] for n in layer.neurons])
    expected = function(x @ w.T)
    assert_close(layer(x).data, expected)
    assert_close([data_of(layer(row.tolist())) for row in x], expected)
    neuron = layer.neurons[0]
    assert_close([neuron(row.tolist()).data for row in x], expected[:, 0])
    model = seeded(nn, lambda nn: nn.MLP(3, [4, 2], activation=activation, out_activation="tanh", fused=fused))
    w2 = np.array([[v.data for v in n.w] for n in model.layers[1].neurons])
    w1 = np.array([[v.data for v in n.w] for n in model.layers[0].neurons])
    assert_close(model(x).data, np.tanh(function(x @ w1.T) @ w2.T))
    with pytest.raises(ValueError, match="activation.*'cube'"):
        nn.Neuron(3, activation="cube")


# ---- nn: batches ----

BATCHES = {
    "an array": lambda X: X,
    "lists": lambda X: X.tolist(),
    "a list of arrays": list,
    "tuples": lambda X: tuple([tuple(row) for row in X.tolist()]),
    "a Tensor": Tensor,
    "a constant Tensor": lambda X: Tensor(X, requires_grad=False),
    "lists of Values": as_values,
    "an array of ints": lambda X: X,
    "columns first": lambda X: np.asfortranarray(X),
    "a view": lambda X: Tensor(X.T).T,
}


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("name", NETWORKS)
def test_batches_are_their_samples(name, kind, moving):
    micrograd = pytest.importorskip("micrograd.nn")
    X = numbers(6, 3, seed=4)
    if kind == "an array of ints":
        X = np.round(X * 3).astype(int)
    theirs = seeded(micrograd, NETWORKS[name])
    samples = [[micrograd.Value(float(x)) for x in row] for row in X]
    outs = [theirs(sample) for sample in samples]
    outs = [out if isinstance(out, list) else [out] for out in outs]
    weights = numbers(6, len(outs[0]), seed=5)
    sum([o * w for row, ws in zip(outs, weights.tolist()) for o, w in zip(row, ws)]).backward()
    for fused in True, False:
        model = seeded(flatgrad.nn, lambda nn: NETWORKS[name](nn, fused=fused))
        batch = BATCHES[kind](X)
        out = model(batch)
        assert type(out) is Tensor and out.shape == weights.shape
        (out * weights).sum().backward()
        assert_close(out.data, [[o.data for o in row] for row in outs])
        assert_close([p.grad for p in model.parameters()], [p.grad for p in theirs.parameters()], scale=10.0)
        if kind in ("a Tensor", "lists of Values", "a view"):
            assert_close(grads_of(batch), [x.grad for sample in samples for x in sample], scale=10.0)


def test_a_flat_tensor_gives_a_flat_tensor():
    for nout in 1, 2:
        model = seeded(flatgrad.nn, lambda nn: nn.MLP(3, [4, nout]))
        expected = model(NUMBERS)
        x = Tensor(NUMBERS)
        out = model(x)
        assert type(out) is Tensor and out.shape == (nout,)
        assert_close(out.data, data_of(expected))
        out.sum().backward()
        assert x.grad.any()


def test_an_input_that_can_be_read_once():
    model = seeded(flatgrad.nn, lambda nn: nn.MLP(3, [4, 2]))
    assert data_of(model(x for x in NUMBERS)) == data_of(model(NUMBERS))
    assert data_of(model(range(3))) == data_of(model([0, 1, 2]))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("x", [
    [1.0, 2.0], [1.0] * 4, (), np.ones(2), np.ones((5, 2)), np.ones((5, 4)), [[1.0] * 4] * 3,
    [[1.0, 2.0, 3.0], [1.0, 2.0]], np.ones((2, 2, 3)), [[1.0] * 2] * 3,
], ids=lambda x: f"{type(x).__name__} {np.shape(x) if not isinstance(x, list) else x}"[:40])
def test_inputs_of_another_width(fused, x):
    for name in NETWORKS:
        model = seeded(flatgrad.nn, lambda nn: NETWORKS[name](nn, fused=fused))
        before = nodes()
        for ready in False, True:
            with pytest.raises((TypeError, ValueError)):
                model(x)
            if not ready:
                model(NUMBERS)
        assert nodes() == before


@pytest.mark.parametrize("fused", [True, False])
def test_the_message_gives_both_widths(fused):
    layer = flatgrad.nn.Layer(3, 2, fused=fused)
    with pytest.raises(ValueError, match=r"3.*2|2.*3"):
        layer([1.0, 2.0])
    with pytest.raises(ValueError, match=r"3.*7|7.*3"):
        layer(np.ones((2, 7)))
    with pytest.raises(ValueError, match=r"3.*7|7.*3"):
        layer(Tensor(np.ones((2, 7))))


@pytest.mark.parametrize("x", ["abc", ["a", "b", "c"], [None] * 3, 3.0, None, [[1.0, "a", 2.0]], [1j, 1j, 1j]],
                         ids=str)
@pytest.mark.parametrize("fused", [True, False])
def test_inputs_that_are_no_numbers(fused, x):
    model = flatgrad.nn.MLP(3, [2, 1], fused=fused)
    before = nodes()
    with pytest.raises(TypeError):
        model(x)
    assert nodes() == before


def test_sizes_of_nothing():
    """Neurons without inputs give their bias, layers without neurons nothing."""
    nn = flatgrad.nn
    for fused in True, False:
        layer = nn.Layer(0, 2, fused=fused)
        layer.neurons[0].b.data = 1.5
        out = layer([])
        assert data_of(out) == [1.5, 0.0]
        (out[0] * 3.0).backward()
        assert layer.neurons[0].b.grad == 3.0
        assert nn.Layer(3, 0, fused=fused)([1.0, 2.0, 3.0]) == []
        assert nn.MLP(3, [], fused=fused)("anything") == "anything"


# ---- training ----

def two_moons(count):
    """Samples and labels -1 and 1."""
    X, y = make_moons(count, noise=0.1, random_state=1)
    return X, 2 * y - 1


def hinge_step(model, X, y, k, how):
    """One step of micrograd's demo: the loss and the accuracy before it."""
    if how == "batch":
        scores = model(X).reshape(-1)
        data_loss = losses.hinge(scores, y)
        numbers_of = scores.tolist()
    else:
        scores = [model(row) for row in X.tolist()]
        margins = [(1 + -yi * scorei).relu() for yi, scorei in zip(y.tolist(), scores)]
        data_loss = sum(margins) * (1.0 / len(margins))
        numbers_of = [score.data for score in scores]
    loss = data_loss + 1e-4 * sum((p * p for p in model.parameters()))
    model.zero_grad()
    loss.backward()
    for p in model.parameters():
        p.data -= (1.0 - 0.9 * k / 100) * p.grad
    return loss.data, sum([(yi > 0) == (s > 0) for yi, s in zip(y, numbers_of)])


def test_thirty_steps_of_the_demo():
    """Each way to train gives the same; test_micrograd.py holds two of them against micrograd."""
    X, y = two_moons(100)
    runs = []
    for how, options in itertools.product(["samples", "batch"], [{"fused": False}, {}]):
        model = seeded(flatgrad.nn, lambda nn: nn.MLP(2, [16, 16, 1], **options))
        history = [hinge_step(model, X, y, k, how) for k in range(30)]
        runs.append((history, [p.data for p in model.parameters()]))
    for history, weights in runs[1:]:
        assert_close(*zip(*[(a[0], b[0]) for a, b in zip(history, runs[0][0])]), rel=1e-9)
        assert [a[1] for a in history] == [a[1] for a in runs[0][0]]
        assert_close(weights, runs[0][1], rel=1e-9)
    assert runs[0][0][-1][1] >= 90


def test_training_leaves_memory_flat():
    X, y = two_moons(50)
    model = seeded(flatgrad.nn, lambda nn: nn.MLP(2, [8, 8, 1]))
    before = nodes()
    for how in "batch", "samples":
        counts = []
        for k in range(10):
            hinge_step(model, X, y, k, how)
            counts.append(flatgrad.stats()["nodes"])
        assert max(counts) == counts[0]
    assert nodes() - before <= 200   # what a layer may keep of its parameters


# ---- a network that its user changes ----

def change_weight(m, V, nn):
    m.layers[0].neurons[1].w[2] = V(0.625)


def change_all_weights(m, V, nn):
    m.layers[0].neurons[2].w = [V(0.5), V(-0.25), V(1.5)]


def append_weights(m, V, nn):
    for k, n in enumerate(m.layers[0].neurons):
        n.w.append(V(0.25 * k - 0.5))


def change_bias(m, V, nn):
    m.layers[0].neurons[0].b = V(0.75)
    m.layers[1].neurons[1].b = V(-0.5)


def number_as_bias(m, V, nn):
    m.layers[0].neurons[0].b = 0.75


def change_data(m, V, nn):
    m.layers[0].neurons[1].w[0].data = -2.0
    m.layers[1].neurons[0].b.data = 0.375


def share_lists(m, V, nn):
    m.layers[0].neurons[1].w = m.layers[0].neurons[0].w


def share_one(m, V, nn):
    m.layers[0].neurons[1].w[0] = m.layers[0].neurons[0].w[1]
    m.layers[0].neurons[2].b = m.layers[0].neurons[0].w[1]


def share_between_layers(m, V, nn):
    m.layers[1].neurons[0].w[:3] = m.layers[0].neurons[0].w


def share_layers(m, V, nn):
    m.layers.insert(1, nn.Layer(4, 4))
    m.layers.insert(2, m.layers[1])


def share_neurons(m, V, nn):
    m.layers[0].neurons[1] = m.layers[0].neurons[3]


def make_linear(m, V, nn):
    m.layers[0].neurons[1].nonlin = False


def make_all_linear(m, V, nn):
    for n in m.layers[0].neurons:
        n.nonlin = False


def make_nonlinear(m, V, nn):
    for n in m.layers[1].neurons:
        n.nonlin = 1


def replace_neuron(m, V, nn):
    m.layers[0].neurons[1] = nn.Neuron(3, nonlin=False)


def reverse_neurons(m, V, nn):
    m.layers[0].neurons.reverse()


def remove_neuron(m, V, nn):
    del m.layers[0].neurons[0]
    for n in m.layers[1].neurons:
        n.w.pop(0)


def append_neuron(m, V, nn):
    m.layers[1].neurons.append(nn.Neuron(4))


def insert_layer(m, V, nn):
    m.layers.insert(1, nn.Layer(4, 4))


def replace_layers(m, V, nn):
    m.layers = [nn.Layer(3, 2), nn.Layer(2, 2, nonlin=False)]


def other_initialisation(m, V, nn):
    m.layers[0].__init__(3, 4)


def computed_weight(m, V, nn):
    scale = m.layers[0].neurons[0].w[0]
    m.layers[0].neurons[1].w[1] = scale * scale * 0.5 + 1.0
    m.layers[1].neurons[0].b = scale * 2.0


def numbers_as_weights(m, V, nn):
    m.layers[0].neurons[1].w = [0.5, -1, 2.0]


def some_numbers_as_weights(m, V, nn):
    m.layers[0].neurons[0].w[1] = 0.375
    m.layers[1].neurons[0].w[0] = np.float64(-0.25)


def all_numbers_as_weights(m, V, nn):
    for n in m.layers[0].neurons:
        n.w, n.b = [w.data for w in n.w], 0.125


def weights_of_a_subclass(m, V, nn):
    class Weight(V):
        pass

    for n in m.layers[0].neurons[:2]:
        n.w = [Weight(w.data) for w in n.w]


def weights_as_a_tuple(m, V, nn):
    m.layers[0].neurons[1].w = tuple(m.layers[0].neurons[1].w)


def weights_as_an_array(m, V, nn):
    m.layers[0].neurons[1].w = np.array(m.layers[0].neurons[1].w)


def neurons_as_a_tuple(m, V, nn):
    m.layers[0].neurons = tuple(m.layers[0].neurons)


def function_as_neuron(m, V, nn):
    m.layers[0].neurons[1] = lambda x: x[0] * x[1] - x[2]


def subclass_of_neuron(m, V, nn):
    class Squares(nn.Neuron):
        def __call__(self, x):
            return sum((w * xi * xi for w, xi in zip(self.w, x)), self.b)

    m.layers[0].neurons[2] = Squares(3)


def all_of_a_subclass_of_neuron(m, V, nn):
    class Half(nn.Neuron):
        def __call__(self, x):
            return super().__call__(x) * 0.5

    m.layers[0].neurons = [Half(3) for _ in range(4)]


def subclass_without_a_call(m, V, nn):
    class Named(nn.Neuron):
        name = "n"

    m.layers[0].neurons[0] = Named(3)


def class_of_a_neuron(m, V, nn):
    class Late(nn.Neuron):
        def __call__(self, x):
            return super().__call__(x) * 2.0 + 1.0

    m.layers[0].neurons[3].__class__ = Late


def subclass_of_layer(m, V, nn):
    class Doubled(nn.Layer):
        def __call__(self, x):
            return [2.0 * o for o in super().__call__(x)]

    m.layers[0] = Doubled(3, 4)


def function_as_layer(m, V, nn):
    m.layers.insert(1, lambda x: [o * 2.0 for o in x])


CHANGES = [f for f in list(globals().values()) if callable(f) and getattr(f, "__code__", None)
           and f.__code__.co_varnames[:3] == ("m", "V", "nn")]


def parameters_of(model):
    """The Values among the weights and biases, whatever holds them."""
    return [p for layer in model.layers for n in getattr(layer, "neurons", ()) if hasattr(n, "w")
            for p in [*n.w, n.b] if hasattr(p, "backward")]


@pytest.mark.parametrize("after_a_call", [False, True], ids=["before the first call", "after it"])
@pytest.mark.parametrize("how", ["sample", "Values", "Tensor", "batch", "batch of Values"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changes_are_honoured(change, how, after_a_call, moving):
    micrograd = pytest.importorskip("micrograd.nn")
    if change is all_numbers_as_weights and how in ("sample", "batch"):
        pytest.skip("a neuron of numbers alone computes a number")
    results = []
    for nn in micrograd, flatgrad.nn:
        model = seeded(nn, lambda nn: nn.MLP(3, [4, 2]))
        X = numbers(5, 3, seed=6)
        if after_a_call and nn is flatgrad.nn:
            for warm in X[0].tolist(), X, Tensor(X):
                model(warm)
        change(model, nn.Value, nn)
        if change is append_weights:
            X = numbers(5, 4, seed=6)
        if not how.startswith("batch"):
            X = X[:1]
        weights = numbers(len(X), 2 if change is not append_neuron else 3, seed=7)
        with_values = "Value" in how or how == "Tensor"
        inputs = X.tolist()
        if with_values or nn is micrograd:
            inputs = [[nn.Value(x) for x in row] for row in inputs]
        if nn is micrograd or how in ("sample", "Values"):
            outs = [model(row) for row in inputs]
            total = sum([o * w for out, ws in zip(outs, weights.tolist()) for o, w in zip(out, ws)])
        else:
            inputs = {"Tensor": lambda: Tensor(X[0]), "batch": lambda: X, "batch of Values": lambda: inputs}[how]()
            outs = model(inputs)
            assert type(outs) is Tensor or (change in (function_as_layer, subclass_of_layer) and how == "Tensor")
            total = sum([o * w for o, w in zip(flat(outs), weights.ravel().tolist(), strict=True)])
        total.backward()
        grads = [v.grad for v in flat(inputs)] if with_values else []
        results.append((data_of(outs) if nn is flatgrad.nn else [o.data for out in outs for o in out],
                        [p.grad for p in parameters_of(model)] + grads))
    assert_close(results[1][0], results[0][0])
    assert len(results[1][1]) == len(results[0][1])
    assert_close(results[1][1], results[0][1], scale=10.0)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changes_one_after_the_other(change):
    """Through all three forms of input, again and again: what is remembered must follow every change."""
    def outputs(model, X):
        return [data_of(model(as_values(X[0]))), data_of(model(as_values(X))), data_of(model(Tensor(X)))]

    models = [seeded(flatgrad.nn, lambda nn: nn.MLP(3, [4, 2], fused=fused)) for fused in (True, False)]
    X = numbers(2, 3, seed=6)
    for action in [lambda m: None, lambda m: change(m, Value, flatgrad.nn), lambda m: m.zero_grad(),
                   lambda m: setattr(m.layers[-1].neurons[0].w[0], "data", 3.0)]:
        for model in models:
            random.seed(11)
            try:
                action(model)
            except (AttributeError, TypeError):   # zero_grad of numbers and functions; a change that was made
                assert action is not None
        if change is append_weights and len(models[0].layers[0].neurons[0].w) == 4:
            X = numbers(2, 4, seed=6)
        ours, theirs = [outputs(model, X) for model in models]
        for a, b in zip(ours, theirs):
            assert_close(a, b)


@pytest.mark.parametrize("how", ["sample", "batch", "Tensor"])
def test_a_class_that_is_changed(monkeypatch, how):
    """Neuron.__call__ replaced on the class, as in notebooks, and put back."""
    model = seeded(flatgrad.nn, lambda nn: nn.MLP(3, [4, 2]))
    X = numbers(2, 3)
    x = {"sample": X[0].tolist(), "batch": X, "Tensor": Tensor(X[0])}[how]
    before = data_of(model(x))
    calls = []

    def call(self, x):
        calls.append(len(x))
        return sum((w * xi for w, xi in zip(self.w, x)), self.b).tanh()

    with monkeypatch.context() as patch:
        patch.setattr(flatgrad.nn.Neuron, "__call__", call)
        changed = data_of(model(x))
    assert len(calls) == 6 * (2 if how == "batch" else 1)
    w = [np.array([[v.data for v in n.w] for n in layer.neurons]) for layer in model.layers]
    expected = np.tanh(np.tanh((X if how == "batch" else X[0]) @ w[0].T) @ w[1].T)
    assert_close(changed, expected.ravel())
    assert data_of(model(x)) == before
    with monkeypatch.context() as patch:
        patch.setattr(flatgrad.nn.Layer, "__call__", lambda self, x: [Value(7.0)])
        assert data_of(model(x)) == [7.0]
    with monkeypatch.context() as patch:
        patch.setattr(flatgrad.nn.MLP, "__call__", lambda self, x: "patched")
        assert model(x) == "patched"
    assert data_of(model(x)) == before


def check_replaced(name):
    """Put an operator or a method on the class Value, as notebooks do: networks compute with it, and no
    longer when it is gone."""
    X = numbers(2, 3)
    models = [seeded(flatgrad.nn, lambda nn: nn.MLP(3, [4, 2], fused=fused)) for fused in (True, False)]
    original = getattr(Value, name)
    for x in as_values(X[0]), X, Tensor(X[0]):
        before = [data_of(model(x)) for model in models]
        setattr(Value, name, lambda self, *other: original(self, *other) - 0.25)
        try:
            changed = [data_of(model(x)) for model in models]
        finally:
            setattr(Value, name, original)
        assert_close(*changed)
        assert max(abs(np.array(changed[0]) - before[0])) > 0.1
        for model, numbers_before in zip(models, before):
            assert_close(data_of(model(x)), numbers_before)


@pytest.mark.parametrize("name", ["relu", "__add__", "__mul__"])
def test_replaced_operators_are_used(name):
    """In a process of its own: the class is not the same afterwards, when its operators have been put back."""
    script = (f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
              f"import test_fused; test_fused.check_replaced({name!r})")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def hold(m, rng, held):
    held.append(rng.choice(rng.choice(m.layers).neurons).w)


def drop(m, rng, held):
    if held:
        held.pop(rng.randrange(len(held)))


def edit_held(m, rng, held):
    if held and isinstance(held[-1], list) and held[-1]:
        held[-1][rng.randrange(len(held[-1]))] = Value(rng.uniform(-1, 1))


def edit(m, rng, held):
    n = rng.choice(rng.choice(m.layers).neurons)
    n.w[rng.randrange(len(n.w))] = Value(rng.uniform(-1, 1))


def take_over(m, rng, held):
    layer = rng.choice(m.layers)
    rng.choice(layer.neurons).w = rng.choice(layer.neurons).w


def take_a_copy(m, rng, held):
    layer = rng.choice(m.layers)
    rng.choice(layer.neurons).w = list(rng.choice(layer.neurons).w)


def swap(m, rng, held):
    layer = rng.choice(m.layers)
    a, b = rng.choice(layer.neurons), rng.choice(layer.neurons)
    a.w, b.w = b.w, a.w


def reverse_weights(m, rng, held):
    rng.choice(rng.choice(m.layers).neurons).w.reverse()


def slice_weights(m, rng, held):
    w = rng.choice(rng.choice(m.layers).neurons).w
    w[:2] = [w[1], Value(rng.uniform(-1, 1))]


def pop_and_append(m, rng, held):
    w = rng.choice(rng.choice(m.layers).neurons).w
    w.append(w.pop(0))


def begin_again(m, rng, held):
    rng.choice(rng.choice(rng.choice(m.layers).neurons).w).__init__(rng.uniform(-1, 1))


def new_bias(m, rng, held):
    rng.choice(rng.choice(m.layers).neurons).b = Value(rng.uniform(-1, 1))


def bias_from_weights(m, rng, held):
    n = rng.choice(rng.choice(m.layers).neurons)
    n.b = rng.choice(n.w)


def move_data(m, rng, held):
    rng.choice(m.parameters()).data = rng.uniform(-1, 1)


def switch(m, rng, held):
    rng.choice(rng.choice(m.layers).neurons).nonlin = rng.random() < 0.5


def switch_all(m, rng, held):
    nonlin = rng.random() < 0.5
    for n in rng.choice(m.layers).neurons:
        n.nonlin = nonlin


def permute(m, rng, held):
    rng.shuffle(rng.choice(m.layers).neurons)


def rebuild(m, rng, held):
    """Plain neurons again, drawn side by side."""
    i = rng.randrange(len(m.layers))
    old = m.layers[i]
    m.layers[i] = flatgrad.nn.Layer(len(old.neurons[0].w), len(old.neurons), fused=old.fused)
    for n in m.layers[i].neurons:
        for w in n.w:
            w.data = rng.uniform(-1, 1)


def replace_by_subclass(m, rng, held):
    class Half(flatgrad.nn.Neuron):
        def __call__(self, x):
            return super().__call__(x) * 0.5

    neurons = rng.choice(m.layers).neurons
    k = rng.randrange(len(neurons))
    new = Half(len(neurons[k].w))
    new.w, new.b = neurons[k].w, neurons[k].b
    neurons[k] = new


def copy_neuron(m, rng, held):
    import copy
    neurons = rng.choice(m.layers).neurons
    neurons[rng.randrange(len(neurons))] = rng.choice([copy.copy, copy.deepcopy])(rng.choice(neurons))


def collect(m, rng, held):
    flatgrad.collect()


MUTATIONS = [hold, drop, edit_held, edit, take_over, take_a_copy, swap, reverse_weights, slice_weights,
             pop_and_append, begin_again, new_bias, bias_from_weights, move_data, switch, switch_all, permute,
             rebuild, rebuild, replace_by_subclass, copy_neuron,
             collect]


@pytest.mark.parametrize("seed", range(12))
def test_random_changes(seed, moving):
    """The same changes to two networks, one fused and one not; lists of weights stay in hand or do not."""
    models = [seeded(flatgrad.nn, lambda nn: nn.MLP(3, [4, 3, 2], fused=fused)) for fused in (True, False)]
    helds = [], []
    rng = random.Random(seed)
    X = numbers(3, 3, seed=seed)
    for step in range(120):
        mutation, mutation_seed = rng.choice(MUTATIONS), rng.random()
        for model, held in zip(models, helds):
            mutation(model, random.Random(mutation_seed), held)
        for x in as_values(X[0]), X, Tensor(X[1]):
            outs = [model(x) for model in models]
            assert_close(*[data_of(out) for out in outs])
            if step % 5 == 0:
                grads = []
                for model, out in zip(models, outs):
                    for p in model.parameters():
                        p.grad = 0.0
                    weighted(out).backward()
                    grads.append([p.grad for p in model.parameters()])
                assert_close(*grads, scale=10.0)
    helds[0].clear()
    helds[1].clear()


def test_subclasses_of_mlp_and_module():
    nn = flatgrad.nn

    class Residual(nn.MLP):
        def __call__(self, x):
            out = super().__call__(x)
            return [o + xi for o, xi in zip(out, x)]

    class Mine(nn.Module):
        def __init__(self):
            self.first, self.second = nn.Layer(3, 3), nn.Layer(3, 1, nonlin=False)

        def __call__(self, x):
            return self.second([h.tanh() for h in self.first(x)])

        def parameters(self):
            return self.first.parameters() + self.second.parameters()

    for make in lambda: Residual(3, [4, 3]), Mine:
        model = seeded(nn, lambda nn: make())
        out = model(NUMBERS)
        with flatgrad.scalar_graph():
            expected = model(NUMBERS)
        assert_close(data_of(out), data_of(expected))
        weighted(out).backward()
        grads = [p.grad for p in model.parameters()]
        model.zero_grad()
        weighted(expected).backward()
        assert_close(grads, [p.grad for p in model.parameters()])


def test_overridden_parameters_do_not_change_the_output():
    class Frozen(flatgrad.nn.Layer):
        def parameters(self):
            return []

    layer = seeded(flatgrad.nn, lambda nn: Frozen(3, 2))
    same = seeded(flatgrad.nn, lambda nn: nn.Layer(3, 2))
    assert data_of(layer(NUMBERS)) == data_of(same(NUMBERS))


def test_the_parameters_stay_the_same_objects():
    """Whatever a layer does to have them side by side, the user's Values remain the parameters."""
    model = seeded(flatgrad.nn, lambda nn: nn.MLP(3, [4, 2]))
    before = model.parameters()
    before[0].label = "the first"
    model(NUMBERS)
    out = model(Tensor(numbers(4, 3)))
    out.sum().backward()
    after = model.parameters()
    assert all(a is b for a, b in zip(before, after, strict=True))
    assert after[0].label == "the first" and any(p.grad for p in after)
    for p in after:
        p.data += 0.5
    changed = model(NUMBERS)
    with flatgrad.scalar_graph():
        assert_close(data_of(changed), data_of(model(NUMBERS)))
    assert all(p._prev == set() for p in after)


@pytest.mark.parametrize("through", ["deepcopy", "pickle"])
def test_copies_of_networks(through):
    import copy
    import pickle
    model = seeded(flatgrad.nn, lambda nn: nn.MLP(3, [4, 2]))
    for ready in False, True:
        other = copy.deepcopy(model) if through == "deepcopy" else pickle.loads(pickle.dumps(model))
        assert data_of(other(NUMBERS)) == data_of(model(NUMBERS))
        other.parameters()[0].data += 1.0
        weighted(other(numbers(2, 3))).backward()
        assert all(p.grad == 0.0 for p in model.parameters()) and any(p.grad for p in other.parameters())
        with flatgrad.scalar_graph():
            expected = data_of(other(NUMBERS))
        assert_close(data_of(other(NUMBERS)), expected)
        assert ready or data_of(model(numbers(2, 3)))


def test_networks_in_use_while_ids_move():
    """Training with a collection before every operation."""
    X, y = two_moons(10)
    histories = []
    for floor in 131072, 0:
        model = seeded(flatgrad.nn, lambda nn: nn.MLP(2, [4, 4, 1]))
        _core._testing(collect_floor=floor)
        histories.append([hinge_step(model, X, y, k, how) for k in range(4) for how in ("batch", "samples")])
        _core._testing(collect_floor=131072)
    assert histories[0] == histories[1]


def test_weights_scattered_over_the_tape():
    """Not side by side, in no order, between other nodes, some of them results."""
    rng = random.Random(3)
    pool = [Value(rng.uniform(-1, 1)) for _ in range(60)]
    pool += [v * 0.5 for v in pool[:20]] + [flatgrad.softmax(pool[:5])[2]]
    rng.shuffle(pool)
    for _ in range(20):
        layer = flatgrad.nn.Layer(5, 7)
        for n in layer.neurons:
            n.w, n.b = rng.sample(pool, 5), rng.choice(pool)
        x = rng.sample(pool, 5)
        grads = []
        for way in (False, True):
            for v in pool:
                v.grad = 0.0
            if way:
                with flatgrad.scalar_graph():
                    out = layer(x)
            else:
                out = layer(x)
            weighted(out).backward()
            grads.append([v.grad for v in pool])
        assert_close(*grads)


# ---- the definitions themselves ----

@pytest.mark.parametrize("name, operands, expected", [
    ("squared_error", (3.0, 5.0), 4.0), ("hinge", (0.5, -1.0), 1.5), ("hinge", (2.0, 1.0), 0.0), ("sum", ([],), 0.0),
    ("dot", ([], []), 0.0), ("dot", ([], [], 2.5), 2.5), ("neuron", ([1.0], [2.0], 1.0, "linear"), 3.0),
    ("neuron", ([1.0], [-2.0], 1.0, "relu"), 0.0), ("max", ([3.0],), 3.0), ("mean", ([4.0],), 4.0)])
def test_definitions(name, operands, expected):
    result = getattr(scalar, name)(*operands)
    assert type(result) is Value and result.data == expected


@pytest.mark.parametrize("call", [lambda x: scalar.sum([x]), lambda x: scalar.max([x]),
                                  lambda x: scalar.dot([], [], x),
                                  lambda x: scalar.neuron([], [], x), lambda x: scalar.mean([x])])
def test_definitions_make_nodes_of_their_own(call):
    x = Value(2.0)
    x.grad = 5.0
    out = call(x)
    assert out is not x and out._prev
    out.backward()
    assert x.grad == 6.0


@pytest.mark.parametrize("call", [
    lambda: scalar.dot([1.0], [1.0, 2.0]), lambda: scalar.mean([]), lambda: scalar.max([]),
    lambda: scalar.softmax([]),
    lambda: scalar.logsumexp([]), lambda: scalar.log_softmax([]), lambda: scalar.neuron([], [], 1.0, "cube"),
    lambda: scalar.cross_entropy([[1.0]], []), lambda: scalar.cross_entropy([], [])])
def test_definitions_refuse(call):
    with pytest.raises(ValueError):
        call()


def test_definitions_in_the_order_of_micrograd():
    """The bias first, then product by product."""
    w, x, b = as_values([2.0, 3.0]), as_values([5.0, 7.0]), Value(1.0)
    out = scalar.dot(w, x, b)
    assert [v.data for v in out._children] == [11.0, 21.0]
    assert out._children[0]._children[0] is b and out._children[1]._children == (w[1], x[1])
    without = scalar.dot(w, x)
    assert [v.data for v in without._children] == [10.0, 21.0]


@pytest.mark.parametrize("seed", range(5))
def test_definitions_against_finite_differences(seed):
    a = numbers(6, seed=seed)
    for call in (scalar.logsumexp, scalar.mean, scalar.max, scalar.sum, lambda x: scalar.softmax(x)[2],
                 lambda x: scalar.log_softmax(x)[1],
                 lambda x: scalar.cross_entropy([x[:3], x[3:]], [1, 2]),
                 lambda x: scalar.neuron(x[:3], x[3:], x[0], "tanh"),
                 lambda x: scalar.squared_error(x[0], x[1]), lambda x: scalar.hinge(x[0], x[1])):
        x = as_values(a)
        call(x).backward()
        for k in range(6):
            step = np.eye(6)[k] * 1e-6
            difference = (call(as_values(a + step)).data - call(as_values(a - step)).data) / 2e-6
            assert x[k].grad == pytest.approx(difference, rel=1e-6, abs=1e-8)
