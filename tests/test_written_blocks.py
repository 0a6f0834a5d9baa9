"""Written derivatives of the instructions of many operands: against the numeric sweep, the graph of single operations,
whose written derivatives go through the rows of ops.def alone, and finite differences."""
import contextlib
import math

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, losses, nn

INF, NAN = math.inf, math.nan
R, C, K = 4, 3, 5   # rows, columns, terms

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def taken(a, positions, each=False):
    """By FG_TAKE; in a scalar graph by brackets."""
    out = _core._taken(a, positions, each, False)
    if out is not None:
        return out
    k = [int(p.data) if isinstance(p, Value) else int(p) for p in positions]
    return a[list(range(len(k))), k] if each else a[k]


# Functions of Tensors, and the shapes of these. Sums over what is repeated, and of what is not, of every kind.
CASES = {
    "sum of two": (lambda a, b: (a + b) * a, [(R, C), (R, C)]),
    "product": (lambda a, b: a * b, [(R, C), (R, C)]),
    "times a row": (lambda a, b: a * b, [(R, C), (C,)]),
    "times a column": (lambda a, b: a * b, [(R, C), (R, 1)]),
    "times a number": (lambda a, b: a * b[0], [(R, C), (1,)]),
    "a column times a row": (lambda a, b: a * b, [(R, 1), (1, C)]),
    "a row plus a number": (lambda a, b: (a + b) * a, [(1, C), (1, 1)]),
    "a number times a column": (lambda a, b: a * b, [(1, 1), (R, 1)]),
    "a number times a number": (lambda a, b: a * b, [(1, 1), (1, 1)]),
    "quotient of turned": (lambda a, b: a.T / (b * b + 1.0), [(C, R), (R, C)]),
    "row over column": (lambda a, b: a / (b * b + 1.0), [(1, C), (R, 1)]),
    "tanh": (lambda a: a.tanh(), [(R, C)]),
    "exp of a row": (lambda a: a.exp() * a, [(1, C)]),
    "powers": (lambda a: (a * a + 1.0) ** 3 + (a * a + 1.0) ** -0.5, [(R, C)]),
    "where": (lambda a, b, c: flatgrad.where(a, b * b, c * c), [(R, C), (1, C), (R, 1)]),
    "where, of numbers": (lambda a, b, c: flatgrad.where(a, b * b, c * c), [(R, 1), (1, 1), (1, C)]),
    "huber": (lambda a, b: losses.huber(a * a, b, delta=0.7, reduction="none"), [(R, C), (R, C)]),
    "matrix product": (lambda a, b: a @ b, [(R, K), (K, C)]),
    "with itself": (lambda a: a @ a, [(R, R)]),
    "with itself, turned": (lambda a: a @ a.T, [(R, K)]),
    "layer": (lambda x, w, b: flatgrad.linear(x, w, b), [(R, K), (C, K), (C,)]),
    "layer, no bias": (lambda x, w: flatgrad.linear(x, w, None, "sigmoid"), [(R, K), (C, K)]),
    "layer, tanh": (lambda x, w, b: flatgrad.linear(x, w, b, "tanh"), [(R, K), (C, K), (C,)]),
    "layer, relu": (lambda x, w, b: flatgrad.linear(x, w, b, "relu"), [(R, K), (C, K), (C,)]),
    "layer, sigmoid": (lambda x, w, b: flatgrad.linear(x, w, b, "sigmoid"), [(R, K), (C, K), (C,)]),
    "layer, one row": (lambda x, w, b: flatgrad.linear(x, w, b, "tanh"), [(1, K), (C, K), (C,)]),
    "layer, one column": (lambda x, w, b: flatgrad.linear(x, w, b, "tanh"), [(R, K), (1, K), (1,)]),
    "layer, one column, no activation": (lambda x, w, b: flatgrad.linear(x, w, b), [(R, K), (1, K), (1,)]),
    "layer, one term": (lambda x, w, b: flatgrad.linear(x, w, b, "tanh"), [(R, 1), (C, 1), (C,)]),
    "layer, one of all": (lambda x, w, b: flatgrad.linear(x, w, b, "tanh"), [(1, 1), (1, 1), (1,)]),
    "layer, a vector": (lambda x, w, b: flatgrad.linear(x, w, b, "tanh"), [(K,), (C, K), (C,)]),
    "layer, the bias in it": (lambda x, w: flatgrad.linear(x, w, x[0, :C], "tanh"), [(R, K), (C, K)]),
    "turned layer": (lambda x, w, b: flatgrad.linear(x.T, w.T, b, "tanh"), [(K, R), (K, C), (C,)]),
    "two layers": (lambda x, v, w: flatgrad.linear(flatgrad.linear(x, v, None, "tanh"), w), [(R, K), (C, K), (2, C)]),
    "dot": (lambda a, b: flatgrad.dot(a, b), [(K,), (K,)]),
    "dot with itself": (lambda a: flatgrad.dot(a, a), [(K,)]),
    "matrix times vector": (lambda a, b: a @ b, [(R, K), (K,)]),
    "vector times matrix": (lambda a, b: a @ b, [(K,), (K, R)]),
    "sum": (lambda a: a.sum() * a.sum(), [(R, C)]),
    "sum of rows": (lambda a: a.sum(axis=1).tanh(), [(R, C)]),
    "sum of columns": (lambda a: a.sum(axis=0).tanh(), [(R, C)]),
    "sum of one row": (lambda a: a.sum(axis=1).tanh(), [(1, C)]),
    "sum of a column": (lambda a: a.sum(axis=1).tanh(), [(R, 1)]),
    "mean": (lambda a: a.mean() * a.mean(), [(R, C)]),
    "mean of rows": (lambda a: a.mean(axis=1).tanh(), [(R, C)]),
    "mean of columns": (lambda a: a.mean(axis=0).tanh(), [(R, C)]),
    "centred": (lambda a: (a - a.mean(axis=0)) ** 2, [(R, C)]),
    "max": (lambda a: a.max() * a.max(), [(R, C)]),
    "max of rows": (lambda a: a.max(axis=1).tanh(), [(R, C)]),
    "max of columns": (lambda a: a.max(axis=0).tanh(), [(R, C)]),
    "logsumexp": (lambda a: a.logsumexp(), [(R, C)]),
    "logsumexp of rows": (lambda a: a.logsumexp(axis=1), [(R, C)]),
    "logsumexp of columns": (lambda a: a.logsumexp(axis=0), [(R, C)]),
    "logsumexp of a column": (lambda a: a.logsumexp(axis=1) * a.logsumexp(), [(R, 1)]),
    "softmax": (lambda a: a.softmax(), [(R, C)]),
    "softmax of columns": (lambda a: a.softmax(axis=0), [(R, C)]),
    "softmax of a vector": (lambda a: a.softmax(), [(K,)]),
    "softmax of a column": (lambda a: a.softmax() * a, [(R, 1)]),
    "log_softmax": (lambda a: a.log_softmax(), [(R, C)]),
    "log_softmax of columns": (lambda a: a.log_softmax(axis=0), [(R, C)]),
    "log_softmax, picked": (lambda a: a.log_softmax()[[0, 1, 2, 3], [2, 0, 1, 1]].mean(), [(R, C)]),
    "cross entropy": (lambda a: losses.cross_entropy(a, [2, 0, 1, 1]), [(R, C)]),
    "cross entropy of one row": (lambda a: losses.cross_entropy(a, [2]), [(1, C)]),
    "cross entropy of a layer": (lambda x, w: losses.cross_entropy(flatgrad.linear(x, w), [2, 0, 1, 1]),
                                 [(R, K), (C, K)]),
    "taken": (lambda a: taken(a, [2, 0, 0, -1, 1, 2, 2]).tanh(), [(R, C)]),
    "taken by Values": (lambda a: taken(a, [Value(2.0), 0, Value(0.0), Value(-1.0), 1]).tanh(), [(R, C)]),
    "taken, one row": (lambda a: taken(a, [Value(-2.0)]).tanh(), [(R, C)]),
    "taken of a vector": (lambda a: taken(a, [Value(2.0), 0, 0, -1, 1, 2]).tanh(), [(K,)]),
    "picked": (lambda a: taken(a, [2, 0, -1, 1], each=True).exp(), [(R, C)]),
    "picked by Values": (lambda a: taken(a, [Value(2.0), Value(0.0), Value(-1.0), Value(1.0)], each=True).exp(),
                         [(R, C)]),
    "differences": (lambda a: (a[1:] - a[:-1]) ** 2, [(R, C)]),
    "picked elements": (lambda a: a[[0, 0, 1, 3, 0], [1, 1, 2, 0, 2]].exp(), [(R, C)]),
    "windows": (lambda a, w: a[[[0, 1], [1, 2], [2, 3], [3, 4]]] @ w, [(K,), (2, C)]),
    "layer norm": (lambda a: (a - a.mean(axis=1, keepdims=True)) / (a * a).mean(axis=1, keepdims=True).sqrt(),
                   [(R, C)]),
}

CASES["antidiagonals"] = (lambda a: antidiagonals(a.exp()).tanh(), [(R, C)])   # gradients overlap where they lie


def antidiagonals(a):
    sums = [None] * (R + C - 1)
    for i in range(R):
        for j in range(C):
            sums[i + j] = [*(sums[i + j] or []), a[i, j]]
    return Tensor([flatgrad.sum(items) for items in sums])


# How the operands lie.
FLAVOURS = {
    "dense": lambda array: Tensor(array) * 1.0,
    "leaves": Tensor,
    "turned": lambda array: Tensor(array.T.copy()).T,
    "sliced": lambda array: Tensor(np.pad(np.repeat(array, 2, axis=-1), 1))[(slice(1, -1),) * (array.ndim - 1)
                                                                          + (slice(1, -1, 2),)],
    "backwards": lambda array: Tensor(array[::-1].copy())[::-1],
    "listed": lambda array: Tensor([[Value(v) * 1.0 for v in row] for row in array] if array.ndim == 2
                                   else [Value(v) * 1.0 for v in array]),
    "mixed": lambda array: Tensor([[Value(v) * (1.0 + (i + j) % 2 * 0.0) if (i + j) % 2 else Value(v)
                                    for j, v in enumerate(row)] for i, row in enumerate(array)] if array.ndim == 2
                                  else [Value(v) for v in array]),
}


def operands_of(arrays, flavour):
    """The operands, and the Values or Tensors that have their gradients."""
    if flavour != "repeated":
        return [FLAVOURS[flavour](array) for array in arrays]
    operands = []
    for array in arrays:   # the same Values in several places, constants in others
        rng = np.random.default_rng(array.size)
        items = [Value(float(v)) if k % 4 else float(v) for k, v in enumerate(array.reshape(-1))]
        places = rng.integers((array.size + 1) // 2, size=array.size)
        items = [items[k] for k in places]
        operands.append(Tensor(items if array.ndim == 1 else [items[k:k + array.shape[1]]
                                                              for k in range(0, array.size, array.shape[1])]))
    return operands


def total(parts, seed):
    """A weighted sum of the elements."""
    rng = np.random.default_rng(seed)
    out = Value(0.0)
    for part in parts:
        if isinstance(part, Value):
            out = out + part * float(rng.normal())
        elif part is not None:
            out = out + flatgrad.sum(part * rng.normal(size=part.shape))
    return out


class Tower:
    """The written gradients of order 1, 2, ..., of a weighted sum of the results; each order's of a sum of the last."""

    def __init__(self, function, arrays, flavour, orders, scalars=False):
        self.operands = operands_of(arrays, flavour)
        with flatgrad.scalar_graph() if scalars else contextlib.nullcontext():
            self.out = total([function(*self.operands)], 1)
            self.levels = []
            for order in range(orders):
                gradients = _core.written([self.out], [None], self.operands)
                self.levels.append([np.zeros(operand.shape) if x is None else np.array(x.data)
                                    for x, operand in zip(gradients, self.operands)])
                self.out = total(gradients, 2 + order)

    def numeric(self):
        """The gradients of the last sum, by the sweep that adds numbers."""
        self.out.backward()
        return [np.array(operand.grad) for operand in self.operands]


def close(got, expected, rel):
    for one, other in zip(got, expected, strict=True):
        scale = max(1.0, np.abs(other[np.isfinite(other)]).max(initial=0.0))
        np.testing.assert_allclose(one, other, rtol=rel, atol=rel * scale)


def arrays_of(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("flavour", [*FLAVOURS, "repeated"])
@pytest.mark.parametrize("name", CASES)
def test_all_orders(name, flavour):
    """First: the numeric sweep's. Second and third: those of the graph of single operations. And the numeric sweep of
    each written one is the next."""
    function, shapes = CASES[name]
    arrays = arrays_of(shapes)
    levels = Tower(function, arrays, flavour, 3).levels
    for order, bound in enumerate((4e-15, 1e-13, 1e-12)):
        close(levels[order], Tower(function, arrays, flavour, order).numeric(), bound)
    single = Tower(function, arrays, flavour, 2, scalars=True)
    for order, expected in enumerate([*single.levels, single.numeric()]):
        close(levels[order], expected, 1e-12 * 10 ** order)


@pytest.mark.parametrize("name", CASES)
def test_gradients_that_repeat_themselves(name):
    """All results have the same gradient, or each row, or each column: it is one number, row or column of nodes."""
    function, shapes = CASES[name]
    arrays = arrays_of(shapes)
    shape = np.shape(function(*map(Tensor, arrays)).data)
    for weights in ((), shape[-1:], shape[:-1] + (1,) * len(shape[-1:])):
        found = []
        for written in (True, False):
            operands = list(map(Tensor, arrays))
            out = function(*operands)
            if weights:
                out = out * Tensor(np.arange(1.0, 1 + np.prod(weights)).reshape(weights), requires_grad=False)
            gradients = flatgrad.gradients([flatgrad.sum(out)], operands, create_graph=written, materialize_grads=True)
            found.append([np.array(g.data) for g in gradients])
        close(*found, 1e-13)


@pytest.mark.parametrize("name", CASES)
def test_finite_differences(name):
    """Each order is the derivative of the one before."""
    function, shapes = CASES[name]
    arrays = arrays_of(shapes)
    levels = Tower(function, arrays, "leaves", 3).levels
    h = 1e-5
    for order in range(3):
        for which, array in enumerate(arrays):
            for place in np.ndindex(array.shape):
                there = []
                for step in (h, -h):
                    moved = [a.copy() for a in arrays]
                    moved[which][place] += step
                    there.append(Tower(function, moved, "leaves", order).out.data)
                slope = (there[0] - there[1]) / (2.0 * h)
                assert levels[order][which][place] == pytest.approx(slope, rel=1e-6, abs=1e-6 * 10 ** order)


# ---- some of the results ----

PARTS_OF_MATRICES = [np.s_[1:], np.s_[::2], np.s_[:, 1:], np.s_[::2, ::2], np.s_[0], np.s_[-1:], np.s_[:, 0],
                     np.s_[1:3, 1:3], np.s_[::-1, ::-1], np.s_[0, 0], np.s_[2, 1], ([0, 1, 2], [0, 1, 2]),
                     ([0, 2], [2, 1]), ([2], [1]), ([0, 0, 0, 1], [0, 2, 1, 2]), [0, 2], [2, 2, 0]]
PARTS_OF_VECTORS = [np.s_[1:], np.s_[:-1], np.s_[::2], np.s_[2], [0, 2], np.s_[1:2], [1, 1, 0]]


def results(name):
    function, shapes = CASES[name]
    z = function(*operands_of(arrays_of(shapes), "leaves"))
    return z.shape if isinstance(z, Tensor) else ()


@pytest.mark.parametrize("flavour", ["dense", "turned", "listed"])
@pytest.mark.parametrize("name", [name for name in CASES if len(results(name)) == 2 and min(results(name)) > 2])
def test_parts_of_matrices(name, flavour):
    function, shapes = CASES[name]
    for part in PARTS_OF_MATRICES:
        compare_parts(lambda *operands, part=part: function(*operands)[part], arrays_of(shapes), flavour)


@pytest.mark.parametrize("flavour", ["dense", "turned", "listed"])
@pytest.mark.parametrize("name", [name for name in CASES if len(results(name)) == 1 and min(results(name)) > 2])
def test_parts_of_vectors(name, flavour):
    function, shapes = CASES[name]
    for part in PARTS_OF_VECTORS:
        compare_parts(lambda *operands, part=part: function(*operands)[part], arrays_of(shapes), flavour)


def compare_parts(function, arrays, flavour):
    levels = Tower(function, arrays, flavour, 2).levels
    close(levels[0], Tower(function, arrays, flavour, 0).numeric(), 4e-15)
    close(levels[1], Tower(function, arrays, flavour, 1).numeric(), 1e-13)
    single = Tower(function, arrays, flavour, 1, scalars=True)
    close(levels[0], single.levels[0], 1e-12)
    close(levels[1], single.numeric(), 1e-11)


@pytest.mark.parametrize("rows, columns", [(1, 130), (130, 1), (20, 15), (3, 70)])
@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 0.95])
def test_any_elements(rows, columns, density):
    rng = np.random.default_rng(rows)
    for _ in range(3):
        mask = rng.random((rows, columns)) < density
        mask[0, 0] = True
        a, b, c = rng.normal(size=(rows, columns)), rng.normal(size=(1, columns)), rng.normal(size=(rows, 3))
        for function, arrays in [(lambda x, w: x * w, (a, b)), (lambda x, w: (x * 1.0).tanh() + w, (a, b)),
                                 (lambda x, w: flatgrad.linear(x, w, None, "tanh"), (c, rng.normal(size=(columns, 3)))),
                                 (lambda x: (x * 2.0).softmax(), (a,)), (lambda x: x.log_softmax(), (a,)),
                                 (lambda x: x.exp(), (a,))]:
            full = Tower(lambda *x, f=function: f(*x)[mask], arrays, "dense", 2)
            weights = np.zeros((rows, columns))
            weights[mask] = np.random.default_rng(1).normal(size=mask.sum())
            z = [operand * 1.0 for operand in operands_of(arrays, "leaves")]
            first = _core.written([(function(*z) * weights).sum()], [None], z)
            second = _core.written([total(first, 2)], [None], z)
            for got, expected in zip(full.levels, (first, second)):
                close(got, [np.zeros(y.shape) if x is None else np.array(x.data) for x, y in zip(expected, z)], 1e-12)


@pytest.mark.parametrize("number", [INF, -INF, NAN, 1e308])
@pytest.mark.parametrize("name", ["product", "times a row", "times a column", "tanh", "where", "layer, tanh",
                                  "matrix product", "softmax", "log_softmax", "max of rows", "logsumexp of rows",
                                  "sum of rows"])
def test_what_is_not_finite_beside_what_is_reached(name, number):
    """First derivatives are the numeric sweep's, nan and inf included."""
    function, shapes = CASES[name]
    for which in range(len(shapes)):
        arrays = arrays_of(shapes)
        arrays[which][(0,) * len(shapes[which])] = number
        of_matrices = [np.s_[:, 1:], np.s_[0, 0], ([1, 2], [0, 2])] if len(results(name)) == 2 else [0]
        for part in [np.s_[1:], np.s_[2], *of_matrices]:
            def some(*operands, part=part):
                return function(*operands)[part]
            for one, other in zip(Tower(some, arrays, "dense", 1).levels[0], Tower(some, arrays, "dense", 0).numeric()):
                np.testing.assert_allclose(one, other, rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("number", [INF, -INF, NAN])
@pytest.mark.parametrize("name", ["product", "times a row", "tanh", "where", "layer, tanh", "layer, relu",
                                  "matrix product", "softmax", "log_softmax", "max of rows", "max", "logsumexp",
                                  "logsumexp of rows", "logsumexp of columns", "sum of rows", "mean", "cross entropy",
                                  "taken by Values", "picked elements"])
def test_numbers_that_are_not_finite(name, number):
    function, shapes = CASES[name]
    for which in range(len(shapes)):
        for places in [[0], [0, 1], [0, -1], range(math.prod(shapes[which]))]:
            arrays = arrays_of(shapes)
            arrays[which].reshape(-1)[places] = number
            got = Tower(function, arrays, "dense", 1).levels[0]
            for one, other in zip(got, Tower(function, arrays, "dense", 0).numeric()):
                np.testing.assert_allclose(one, other, rtol=1e-14, atol=1e-300)


# ---- many instructions together ----

def network(seed):
    """A function of three Tensors, of instructions drawn at random; and their shapes."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, size=3).tolist()
    shapes = [tuple(rng.choice(sizes, size=2).tolist()) for _ in range(3)]
    steps = rng.integers(0, 1 << 30, size=12).tolist()

    def product(draw, x, y):
        return x @ y if x.shape[1] == y.shape[0] else x @ y.T if x.shape[1] == y.shape[1] else x * y.sum()

    def layer(draw, x, y):
        if x.shape[1] != y.shape[1]:
            return x.tanh()
        b = y.sum(axis=1) if draw.random() < 0.5 else None
        return flatgrad.linear(x, y, b, [None, "tanh", "sigmoid"][draw.integers(3)])

    def mapped(draw, x, y):
        if any(a != b and 1 not in (a, b) for a, b in zip(x.shape, y.shape)):
            return x.sin()
        return [lambda: x + y, lambda: x * y, lambda: x - y, lambda: x / (y * y + 1.0), lambda: x * y + x,
                lambda: flatgrad.where(x, y, x)][draw.integers(6)]()

    def reduced(draw, x, y):
        axis, keep = int(draw.integers(2)), draw.random() < 0.7
        kind = [x.sum, x.mean, x.logsumexp, x.max][draw.integers(3 if seed % 5 == 4 else 4)]   # of equals: scalar.max
        out = kind(axis=axis, keepdims=keep)
        return out if keep else out.reshape(1, -1) if draw.random() < 0.5 else out.reshape(-1, 1)

    def normalised(draw, x, y):
        return getattr(x, ["softmax", "log_softmax"][draw.integers(2)])(axis=int(draw.integers(2)))

    def picked(draw, x, y):
        rows = draw.integers(0, x.shape[0], size=draw.integers(1, 5)).tolist()
        return [lambda: x[rows], lambda: taken(x, rows), lambda: x[::-1], lambda: x.T, lambda: x[:, ::2], lambda: x[:1],
                lambda: x.reshape(-1, 1), lambda: x.reshape(x.shape[::-1])][draw.integers(8)]()

    def function(*operands):
        pool = [operand * 1.0 for operand in operands]
        for step in steps:
            draw = np.random.default_rng(step)
            kind = [product, layer, mapped, mapped, reduced, normalised, picked, picked][draw.integers(8)]
            x, y = (pool[k] for k in draw.integers(len(pool), size=2))
            if x.size <= 40 and y.size <= 40:
                pool.append(kind(draw, x, y))
        return flatgrad.sum([part.tanh().sum() for part in pool[3:]])
    return function, shapes


@pytest.mark.parametrize("seed", range(60))
def test_networks_of_instructions(seed):
    function, shapes = network(seed)
    arrays = arrays_of(shapes, seed)
    flavour = ["leaves", "dense", "turned", "listed", "repeated"][seed % 5]
    levels = Tower(function, arrays, flavour, 3).levels
    close(levels[0], Tower(function, arrays, flavour, 0).numeric(), 1e-13)
    close(levels[1], Tower(function, arrays, flavour, 1).numeric(), 1e-12)
    close(levels[2], Tower(function, arrays, flavour, 2).numeric(), 1e-11)
    single = Tower(function, arrays, flavour, 1, scalars=True)
    close(levels[0], single.levels[0], 1e-11)
    close(levels[1], single.numeric(), 1e-10)


# ---- what it takes ----

NODE, OPERAND = 33, 4   # bytes: opcode, operands, number, gradient, holder; an id


def written_sizes(make):
    """Nodes and operands of a graph, and of what its written gradients add; make() gives an output and inputs."""
    flatgrad.collect()
    found = [flatgrad.stats()]
    out, inputs = make()
    flatgrad.collect()
    found.append(flatgrad.stats())
    gradients = _core.written([out], [None], inputs)
    found.append(flatgrad.stats())
    assert all(g is not None for g in gradients)
    return [(b["nodes"] - a["nodes"], b["operands"] - a["operands"]) for a, b in zip(found, found[1:])]


def of_tensors(function, *shapes):
    def make():
        operands = [Tensor(array) for array in arrays_of(shapes)]
        return function(*operands), operands
    return make


def test_constants_among_values_get_no_nodes():
    """Padding, and a Value that no input leads to."""
    a, other = Tensor(np.arange(5.0)), Value(2.0)
    picked = Tensor([[0.0, a[0], a[1]], [a[1], other, a[2]], [a[3], a[4], 0.0]])
    out = (picked * picked).sum()
    before = flatgrad.stats()["nodes"]
    (gradient,) = _core.written([out], [None], [a])
    written = flatgrad.stats()["nodes"] - before
    assert gradient.tolist() == [0.0, 4.0, 4.0, 6.0, 8.0]
    del gradient, out, picked
    assert written < 60


# How many results each instruction has that is written, and how many constants there are.
NODES = {
    "sum": (lambda a: a.sum(), [(9, 7)], [63], 1),   # a copy for the Tensor that is returned
    "mean of rows": (lambda a: a.mean(axis=1).sum(), [(9, 7)], [63], 3),
    "tanh": (lambda a: a.tanh().sum(), [(9, 7)], [63], 1),
    "dot": (lambda a, b: flatgrad.dot(a, b), [(9,), (9,)], [9, 9], 1),
    "weights times a sum": (lambda x, w: flatgrad.linear(x, w).sum(), [(9, 5), (7, 5)], [5, 45, 5, 35], 1),
    "layer": (lambda x, w, b: flatgrad.linear(x, w, b, "tanh").sum(), [(9, 5), (7, 5), (7,)], [63, 7, 45, 35], 1),
    "softmax": (lambda a: (a.softmax() * a).sum(), [(9, 7)], [63, 9, 63, 63, 63], 1),
    "cross entropy": (lambda a: losses.cross_entropy(a, [0, 1, 2]), [(3, 4)], [12, 12, 12], 4),
    "weights used twice": (lambda x, y, w: flatgrad.dot((x @ w)[0], (y @ w)[0]), [(1, 5), (1, 5), (5, 4)],
                           [20, 5, 5], 1),
}


@pytest.mark.parametrize("name", NODES)
def test_how_many_nodes_are_written(name):
    function, shapes, results, constants = NODES[name]
    _, (nodes, _) = written_sizes(of_tensors(function, *shapes))
    assert nodes == sum([n + 1 for n in results]) + constants


def test_the_nodes_of_a_physics_informed_step():
    """u' and u'' of an MLP of one input: what the other inputs of products are wanted for is not written."""
    model, n = nn.MLP(1, [16, 16, 1], activation="tanh", rng=1), 50
    t = Tensor(np.linspace(0.0, 1.0, n).reshape(n, 1))
    u = model(t)
    wide, sizes = n * 16 + 1, [flatgrad.stats()["nodes"]]
    (first,) = _core.written([u], [None], [t])
    sizes.append(flatgrad.stats()["nodes"])
    (second,) = _core.written([first], [None], [t])
    sizes.append(flatgrad.stats()["nodes"])
    # Two slopes of tanh, a product; by t.
    assert sizes[1] - sizes[0] == 3 * wide + (n + 1) + 1
    # Down from u' through three slopes and a product, then as u', with what is added to the lower layer's gradient.
    assert sizes[2] - sizes[1] <= 12 * wide + (n + 1) + 2
    ys, h = [float(v) for v in u.data[:, 0]], 1.0 / (n - 1)
    assert second.data[25, 0] == pytest.approx((ys[24] - 2.0 * ys[25] + ys[26]) / h**2, rel=0.01)


def perceptron(n, sizes, activation, loss=losses.mse, **options):
    def make():
        rng = np.random.default_rng(1)
        model = nn.MLP(sizes[0], sizes[1:], activation=activation, rng=1)
        y = model(rng.normal(size=(n, sizes[0])))
        target = rng.integers(sizes[-1], size=n) if loss is losses.cross_entropy else rng.normal(size=y.shape)
        return loss(y, target, **options), model.parameters()
    return make


def convolution():
    model = nn.Sequential(nn.Conv2d(1, 4, 3, size=(12, 12), rng=1), nn.ReLU(), nn.MaxPool2d(4, 2, size=(10, 10)),
                          nn.Conv2d(4, 6, 2, size=(5, 5), rng=2), nn.Tanh(), nn.Flatten(), nn.Layer(96, 10, rng=3))
    rng = np.random.default_rng(1)
    return losses.cross_entropy(model(rng.normal(size=(8, 144))), rng.integers(10, size=8)), model.parameters()


def recurrent(cell, n):
    def make():
        model, state = cell(8, 16, rng=1), None
        for x in np.random.default_rng(1).normal(size=(12, n, 8)):
            state = model(x if n > 1 else x[0].tolist(), state)
        out = state[0] if isinstance(state, tuple) else state
        return flatgrad.sum(flatgrad.softmax(out)) + flatgrad.logsumexp(out), model.parameters()
    return make


def sample_by_sample(scalars=False):
    def make():
        model, out = nn.MLP(3, [16, 16, 1], activation="tanh", rng=1), Value(0.0)
        with flatgrad.scalar_graph() if scalars else contextlib.nullcontext():
            for x in np.random.default_rng(1).normal(size=(30, 3)):
                out = out + (model(x.tolist()) - 1.0) ** 2
        return out, model.parameters()
    return make


def readme():
    a, b = Value(-4.0), Value(2.0)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    return g, [a, b]


def attention():
    rng = np.random.default_rng(1)
    x, weights = Tensor(rng.normal(size=(24, 16))), [Tensor(rng.normal(size=(16, 16))) for _ in range(3)]
    q, k, v = [x @ w for w in weights]
    return (((q @ k.T) * 0.25).softmax() @ v).tanh().sum(), [x, *weights]


GRAPHS = {
    **{f"MLP, {name}": perceptron(100, (20, 64, 64, 1), name) for name in _core._activations},
    "MLP, one sample": perceptron(1, (20, 64, 64, 1), "tanh"),
    "classifier": perceptron(50, (20, 32, 10), "relu", losses.cross_entropy),
    "linear classifier": perceptron(50, (64, 10), "relu", losses.cross_entropy),
    "classifier, smoothed": perceptron(50, (20, 32, 10), "relu", losses.cross_entropy, label_smoothing=0.1),
    "convolution": convolution, "attention": attention, "readme": readme,
    "sample by sample": sample_by_sample(), "scalar graph": sample_by_sample(True),
    **{f"{cell.__name__}, {n}": recurrent(cell, n) for cell in (nn.RNNCell, nn.LSTMCell, nn.GRUCell) for n in (1, 6)},
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_takes_four_times_its_memory_with_its_derivatives(name):
    graph, added = [NODE * nodes + OPERAND * operands for nodes, operands in written_sizes(GRAPHS[name])]
    assert (graph + added) / graph < 4.0


def test_memory_runs_out():
    """At each of the core's allocations in turn: an error, and nothing on the tape."""
    for name in ("layer, tanh", "taken by Values", "log_softmax, picked", "windows", "max of rows", "differences"):
        function, shapes = CASES[name]
        operands = operands_of(arrays_of(shapes), "leaves")
        out = total([function(*operands)], 1)
        flatgrad.collect()
        before, k = flatgrad.stats()["nodes"], 0
        while True:
            flatgrad.collect()
            _core._testing(fail_after=k)
            try:
                gradients = _core.written([out], [None], operands)
                break
            except MemoryError:
                pass
            finally:
                _core._testing(fail_after=-1)
            assert flatgrad.stats()["nodes"] == before
            assert _core._check()
            k += 1
        assert k > 0 and all(g is not None for g in gradients)
        del gradients
