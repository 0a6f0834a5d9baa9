"""Compiled functions as functions of JAX: values and derivatives of any order against the programs themselves, against
flatgrad's own derivatives, and against the same written in jax.numpy."""
import itertools
import math
import os
import pickle
import random
import re
import subprocess
import sys
import time
import warnings
from collections import OrderedDict, namedtuple
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from checks.compiled import SUBSETS, WEIGHTS, Function, Unfit, tolerance
from test_lanes import Nested
from test_ops import IDS, ORACLE, special_operands, split

import flatgrad
from flatgrad import Tensor, Value, _core, nn
from flatgrad.errors import ArgumentError, ArgumentTypeError, MissingPackageError, ShapeError
from flatgrad.export import arrays
from flatgrad.export.exported import Exported
from flatgrad.export.jax import JaxFunction
from flatgrad.export.listing import listing

jax = pytest.importorskip("jax")
jnp = jax.numpy

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="module")
def in_doubles():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def close(got, want, rtol=1e-12, atol=1e-12):
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=rtol, atol=atol)


def places_of(f, leaves):
    """Where the numbers of leaves are among the parameters of an export, with their number for none."""
    core = next(reversed(f._programs.values())).core
    wanted = _core._captured_numbers(core)[1]
    rank = np.cumsum(wanted) - 1
    return np.array([rank[place] if place >= 0 and wanted[place] else sum(wanted) for place in
                     _core._captured_places(core, leaves)])


def swept(y, leaves):
    """The gradients of leaves by a backward pass."""
    for x in leaves:
        x.grad = np.zeros(x.shape) if isinstance(x, Tensor) else 0.0
    y.backward()
    return np.concatenate([np.ravel(x.grad) for x in leaves])


def moons_loss():
    random.seed(3)
    model = nn.MLP(2, [4, 4, 1])
    X = RNG.standard_normal((10, 2))
    y = np.where(X[:, 0] > 0, 1.0, -1.0)

    @flatgrad.compile
    def loss(X, y):
        return flatgrad.losses.hinge(model(X).reshape(-1), y) + 1e-4 * flatgrad.dot(model.parameters(),
                                                                                    model.parameters())
    loss(X, y)
    return loss, model, X, y


# ---- every row ----

def is_in_reach(op, point):
    """XLA takes numbers below 2.2e-308 for 0 and may compute (x / y) / y as x / (y * y): none is so small or large."""
    tiny = [x for x in point if 0.0 < abs(x) < 1e-100 or 1e100 < abs(x) < math.inf]
    below_exp = any(abs(x) == 710.0 for x in point) and any(math.isinf(x) for x in point)   # exp(-710) is as small
    return not tiny and not below_exp and not (op == "HUBER" and not point[2] >= 0.0)


def point_groups(op):
    """The special points of a row, with the constants that they have in common: an immediate or an order."""
    groups = {}
    for point in special_operands(op):
        point = point if isinstance(point, tuple) else (point,)
        if not is_in_reach(op, point) or ORACLE[op].order and not point[-1] <= 20:
            continue
        try:
            values, operands = split(op, point)
            z = ORACLE[op].apply(*operands)
        except (ArithmeticError, ValueError):
            continue
        free = len(values) - (1 if ORACLE[op].order else 0)
        groups.setdefault(str(point[free:]), (point[free:], []))[1].append((point[:free], values[:free], z))
    return groups.values()


ALONG = [0.5, -1.3, 0.7]


def own_derivatives(values, z, orders):
    """The value, and the derivatives of it, of the slope along a direction, and so on, by each operand."""
    found, out = [np.array([z.data])], z
    for _ in range(orders):
        gradients = [Value(0.0) if g is None else g for g in _core.written([out], [None], values)]
        found.append(np.array([g.data for g in gradients]))
        out = sum([g * c for g, c in zip(gradients, ALONG)], Value(0.0))
    return found


def jax_derivatives(g, free, points, orders):
    """The same of all points, each in a column."""
    def along(h):
        return lambda *x: sum(c * d for c, d in zip(ALONG, jax.grad(h, tuple(range(free)))(*x)))
    h = lambda *x: g(np.zeros(0), *x)  # noqa: E731
    found = [np.asarray(jax.jit(jax.vmap(h))(*points))[None]]
    for _ in range(orders):
        found.append(np.array(jax.jit(jax.vmap(jax.grad(h, tuple(range(free)))))(*points)))
        h = along(h)
    return found


def compare_row(op, orders, only=None):
    """How many numbers were compared."""
    compared = 0
    for constants, points in itertools.islice(point_groups(op), only):
        free = len(points[0][0])
        given = [int(x) if op == "POWI" else x for x in constants]
        f = flatgrad.compile(lambda *x: ORACLE[op].apply(*x, *given))
        f(*[Value(x) for x in points[0][0]])
        got = jax_derivatives(f.to_jax(), free, np.array([p for p, _, _ in points]).T, orders)
        for k, (point, values, z) in enumerate(points):
            for order, want in enumerate(own_derivatives(values, z, orders)):
                ours = got[order][:, k]
                with np.errstate(all="ignore"):
                    right = (ours == want) | np.isnan(ours) & np.isnan(want) | (
                        np.abs(ours - want) <= (1e-12 if order < 2 else 1e-9) * np.maximum(1.0, np.abs(want)))
                assert right.all(), (op, point, constants, order, ours, want)
                compared += len(want)
    return compared


@pytest.mark.parametrize("op", IDS)
def test_values_and_first_derivatives_at_kinks_and_edges(op):
    assert compare_row(op, 1, 6) > 3


@pytest.mark.slow
@pytest.mark.parametrize("op", IDS)
def test_three_derivatives_at_kinks_and_edges(op):
    assert compare_row(op, 3) > 3


@pytest.mark.parametrize("op", ["RELU", "ABS", "MAXIMUM", "HINGE", "ELU", "ATAN2"])
def test_three_derivatives_of_rows_with_kinks(op):
    assert compare_row(op, 3) > 3


def test_the_comparison_of_rows_can_fail(monkeypatch):
    """Rows as JAX differentiates their formulas: where(x < 0, 0, x) has the derivative 1 at 0."""
    monkeypatch.setattr("flatgrad.export.arrays.NATIVE", frozenset(IDS))
    with pytest.raises(AssertionError, match="RELU"):
        compare_row("RELU", 1)


# ---- random programs ----

def written_gradients(function):
    """The gradients that `Function.numbers_of` has, by nodes."""
    leaves = [*[Value(x) for x in function.numbers], Tensor(function.matrix), *function.captured, function.tensor]
    values, tensors = function(leaves[:len(function.numbers)], leaves[len(function.numbers)])
    nodes = [*values, *(x for t in tensors for x in t.reshape(-1))]
    found = _core.written([sum((x * w for x, w in zip(nodes, WEIGHTS)), Value(0.0))], [None], leaves)
    return np.concatenate([np.zeros(np.size(x.data)) if g is None else np.ravel(g.data) for x, g in zip(leaves, found)])


def check_random(seed, perturb=0.0):
    """Compare a random function with its export. Whether it could be."""
    function = Function(seed)
    f = flatgrad.compile(lambda xs, t: function(xs, t), simplify=set(SUBSETS[seed % len(SUBSETS)]))
    numbers, matrix = function.numbers, function.matrix
    f([Value(x) for x in numbers], Tensor(matrix))
    try:
        expected = function.numbers_of(function, numbers, matrix)
        allowed = tolerance(function, function, numbers, matrix, False, expected)
        g = f.to_jax()
    except (ValueError, ZeroDivisionError, OverflowError, IndexError, Unfit):
        return False
    if not (np.abs(written_gradients(function) - expected[1]) <= allowed[1]).all():
        return False   # of HUBER with a delta below 0, which losses.py refuses, the rule in nodes is another

    def total(parameters, xs, t):
        values, tensors = g(parameters, xs, t)
        flat = jnp.concatenate([jnp.stack(values), *[x.reshape(-1) for x in tensors]])
        return flat @ jnp.array(WEIGHTS[:len(flat)]), flat
    try:
        (_, flat), gradients = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(
            g.parameters * (1.0 + perturb), jnp.array(numbers), jnp.array(matrix))
    except ArgumentError as error:   # of a row for derivatives with an order that is no constant: nobody can write that
        assert "order" in str(error)
        return False
    of_parameters = np.append(gradients[0], 0.0)[places_of(f, [*function.captured, function.tensor])]
    got = np.concatenate([gradients[1], np.ravel(gradients[2]), of_parameters])
    for ours, want, most in zip((np.asarray(flat), got), expected, allowed):
        assert (np.abs(ours - want) <= most).all(), (seed, np.abs(ours - want).max())
    return True


def test_random_programs():
    assert sum(map(check_random, range(8))) > 4


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_many_random_programs(part):
    assert sum(map(check_random, range(100 * part, 100 * part + 100))) > 70


def test_a_wrong_parameter_is_noticed():
    with pytest.raises(AssertionError):
        for seed in range(5):
            check_random(seed, perturb=1e-6)


def check_nested(seed):
    """Batches, recurrences and compiled functions within each other."""
    rng = random.Random(seed)
    nested = Nested(seed)
    weights = [Value(0.0) for _ in range(rng.randrange(3, 7))]
    f = flatgrad.compile(lambda *x: flatgrad.sum(nested(x, weights)), simplify=rng.random() < 0.8)
    g = None
    for _ in range(2):
        inputs = [Value(rng.uniform(-1.5, 1.5)) for _ in range(2)]
        for w in weights:
            w.data = rng.uniform(-1.0, 1.0)
        y = f(*inputs)
        want = swept(y, inputs + weights)
        if g is None:
            g = f.to_jax()
            run = jax.jit(jax.value_and_grad(g, (0, 1, 2)))
            places = places_of(f, weights)
        parameters = np.zeros(len(g.parameters) + 1)
        parameters[places] = [w.data for w in weights]
        value, gradients = run(parameters[:-1], *[x.data for x in inputs])
        got = [*gradients[1:], *np.append(gradients[0], 0.0)[places]]
        close([value, *got], [y.data, *want], 1e-10, 1e-10)


@pytest.mark.parametrize("seed", range(6))
def test_programs_within_each_other(seed):
    check_nested(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6, 60))
def test_more_programs_within_each_other(seed):
    check_nested(seed)


# ---- what JAX does with it ----

def test_a_network_as_jax_has_it():
    """Against the same network in jax.numpy, and flatgrad's Hessian."""
    loss, model, X, y = moons_loss()
    g = loss.to_jax()
    assert isinstance(g, JaxFunction) and len(g.parameters) == len(model.parameters()) == 37
    close(g.parameters, [p.data for p in model.parameters()], 0, 0)
    assert g.arguments == ["X", "y"]

    def plain(p, X, y):
        at = 0
        for width, outputs in ((2, 4), (4, 4), (4, 1)):
            rows = p[at:at + outputs * (width + 1)].reshape(outputs, width + 1)   # weights, then the bias
            X = X @ rows[:, :-1].T + rows[:, -1]
            X = jax.nn.relu(X) if outputs > 1 else X   # relu'(0) is 0, which dead units ask for
            at += outputs * (width + 1)
        return jnp.mean(jax.nn.relu(1.0 - X[:, 0] * y)) + 1e-4 * p @ p
    neuron = model.layers[0].neurons[0]
    assert [p.data for p in model.parameters()[:3]] == [*[w.data for w in neuron.w], neuron.b.data]
    p = g.parameters
    close(g(p, X, y), loss(X, y).data)
    close(jax.jit(g)(p, X, y), plain(p, X, y))
    value, gradient = jax.jit(jax.value_and_grad(g))(p, X, y)
    close(gradient, swept(loss(X, y), model.parameters()))
    close(gradient, jax.grad(plain)(p, X, y))
    close(jax.hessian(g)(p, X, y), jax.hessian(plain)(p, X, y))
    close(jax.hessian(g)(p, X, y), flatgrad.hessian(loss, parameters=model.parameters())(X, y), 1e-10)
    close(jax.grad(g, 1)(p, X, y), jax.grad(plain, 1)(p, X, y))   # also by what is an array of data in flatgrad
    several = np.stack([X, X + 1.0])
    close(jax.vmap(g, (None, 0, None))(p, several, y), [plain(p, x, y) for x in several])
    many = np.stack([p, p * 0.5, -p])
    close(jax.vmap(jax.grad(g), (0, None, None))(many, X, y), [jax.grad(plain)(q, X, y) for q in many])


def test_forward_and_reverse_mode_of_any_order():
    f = flatgrad.compile(lambda x: [flatgrad.sin(x[0]) * x[1].exp(), x[0] ** x[1] + flatgrad.atan2(x[1], x[0])])
    f([0.7, 1.3])
    g = f.to_jax()

    def plain(x):
        return jnp.stack([jnp.sin(x[0]) * jnp.exp(x[1]), x[0] ** x[1] + jnp.arctan2(x[1], x[0])])

    def ours(x):
        return jnp.stack(g(np.zeros(0), x))
    x = np.array([0.7, 1.3])
    for outer, inner in itertools.product((jax.jacfwd, jax.jacrev), repeat=2):
        close(outer(ours)(x), outer(plain)(x))
        close(outer(inner(ours))(x), outer(inner(plain))(x))
        close(jax.jacfwd(outer(inner(ours)))(x), jax.jacfwd(outer(inner(plain)))(x), 1e-11)
    v = np.array([0.3, -0.4])
    close(jax.jvp(ours, (x,), (v,))[1], jax.jvp(plain, (x,), (v,))[1])


def test_branches_that_are_not_taken():
    """0 times inf is nan, as it is in flatgrad; and where no gradient flows there is none."""
    for f, points in ((lambda x: flatgrad.where(flatgrad.relu(x), x, flatgrad.abs(x)), [0.0, 1.0, -1.0]),
                      (lambda x: flatgrad.where(flatgrad.relu(x), x * x, x.exp()), [0.0, 2.0, -800.0]),
                      (lambda x: x ** 0.5, [0.0, 4.0]), (lambda x: x ** 0, [0.0]), (lambda x: 0.0 * x ** 0.5, [0.0]),
                      (lambda x: flatgrad.maximum(x, 0.0) + flatgrad.minimum(x, 0.0), [0.0, 1.0])):
        compiled = flatgrad.compile(lambda x: f(x))
        for x in points:
            compiled(Value(x))
            g = compiled.to_jax()
            derivative, ours = (lambda x: g(np.zeros(0), x)), compiled
            for _ in range(3):
                close(derivative(x), ours(x) if not isinstance(ours(x), Value) else ours(x).data)
                derivative, ours = jax.grad(derivative), flatgrad.grad(ours)


def test_detached_numbers_have_no_gradient():
    w = Value(3.0)
    f = flatgrad.compile(lambda x: x.detach() * x * w + w.detach() * flatgrad.sum([x * x]).detach())
    x = Value(2.0)
    y = f(x)
    g = f.to_jax()
    value, gradients = jax.value_and_grad(g, (0, 1))(g.parameters, 2.0)
    close(value, y.data)
    close([*gradients[0], gradients[1]], swept(y, [w, x]))


def test_positions():
    table = Tensor(RNG.standard_normal((4, 3)))
    f = flatgrad.compile(lambda k, x: [flatgrad.take(table, k), flatgrad.take(x, k)])
    f(1.0, [1.0, 2.0, 3.0, 4.0])
    g = f.to_jax()
    for k in (0.0, 3.0, -1.0, -4.0):
        rows, one = f(k, [1.0, 2.0, 3.0, 4.0])
        got = jax.jit(g)(g.parameters, k, [1.0, 2.0, 3.0, 4.0])
        close(got[0], rows.data, 0, 0)
        close(got[1], one.data, 0, 0)
    for k in (4.0, -5.0, 0.5, math.nan):   # errors of flatgrad; never another row
        got = g(g.parameters, k, [1.0, 2.0, 3.0, 4.0])
        assert np.isnan(got[0]).all() and np.isnan(got[1])
        slopes = jax.grad(lambda p, x: g(p, k, x)[0].sum() + g(p, k, x)[1], (0, 1))(g.parameters, np.ones(4))
        assert all(np.isnan(slope).any() for slope in slopes)
    slope = jax.grad(lambda p: g(p, 2.0, [0.0] * 4)[0].sum())(g.parameters)
    close(slope, np.repeat([0.0, 0.0, 1.0, 0.0], 3))


def test_softmax_and_its_like_of_rows_with_infinities():
    f = flatgrad.compile(lambda t: [t.softmax(), t.log_softmax(), t.logsumexp(axis=1), t.max(axis=1),
                                    flatgrad.losses.cross_entropy(t, [0, 2, 1]), t.max(), t.logsumexp(), t.mean()])
    rows = np.array([[1.0, 2.0, 2.0], [-math.inf, 0.5, 0.25], [1000.0, -1000.0, 0.0]])
    t = Tensor(rows)
    out = f(t)
    g = f.to_jax()
    got = g(np.zeros(0), rows)
    for k, (ours, want) in enumerate(zip(got, out)):
        close(ours, want.data)
        weights = np.cos(np.arange(want.data.size if isinstance(want, Tensor) else 1)).reshape(np.shape(want.data))
        if k in (1, 4, 7):   # -inf is a result
            continue
        slope = jax.grad(lambda x: (g(np.zeros(0), x)[k] * weights).sum())(rows)
        t.grad = np.zeros((3, 3))
        y = f(t)[k]
        (y * Tensor(weights) if isinstance(y, Tensor) else y * float(weights)).sum().backward() if isinstance(
            y, Tensor) else (y * float(weights)).backward()
        close(slope, t.grad)


# ---- loops and batches ----

def pendulum(length, reverse=False):
    k = Value(4.0)

    def body(state, force):
        x, v = state
        v = v + 0.01 * (force - k * flatgrad.sin(x))
        x = x + 0.01 * v
        return (x, v), (x * v, [v, x])
    return flatgrad.compile(lambda x, v, forces: flatgrad.scan(body, (x, v), forces, reverse=reverse)
                            if reverse else flatgrad.scan(body, (x, v), forces, length=length)), k


def test_loops_stay_loops():
    """A step is traced once, so ten thousand steps take no longer to compile than ten."""
    seconds = []
    for length in (10, 10_000):
        f, _ = pendulum(length)
        forces = 0.1 * np.sin(np.arange(length))
        f(1.0, 0.0, forces)
        g = f.to_jax()
        start = time.process_time()
        compiled = jax.jit(jax.grad(lambda *x: g(*x)[0][0])).lower(g.parameters, 1.0, 0.0, forces).compile()
        seconds.append(time.process_time() - start)
        (x, v), (products, pairs) = f(1.0, 0.0, forces)
        (x2, v2), (products2, pairs2) = jax.jit(g)(g.parameters, 1.0, 0.0, forces)
        close([x2, v2], [x.data, v.data])
        close(products2, products.data)
        close(pairs2[0], pairs[0].data)
        slope = compiled(g.parameters, 1.0, 0.0, forces)
        close(slope, [flatgrad.grad(lambda: f(1.0, 0.0, forces)[0][0], parameters=[_])()[0]], 1e-10)
        assert "while" in compiled.as_text()
    assert seconds[1] < 5 * seconds[0] + 1.0


def test_a_loop_from_its_end():
    w = Value(0.9)
    f = flatgrad.compile(lambda xs: flatgrad.scan(lambda c, x: (c * w + x, c * x), 0.0, xs, reverse=True))
    xs = Tensor([1.0, 2.0, 3.0, 4.0])
    last, outputs = f(xs)
    g = f.to_jax()
    got = g(g.parameters, xs.data)
    close(got[0], last.data)
    close(got[1], outputs.data)
    assert outputs.data[-1] == 0.0 != outputs.data[0]   # the first step has the last x
    close(jax.grad(lambda p: g(p, xs.data)[0])(g.parameters), swept(last, [w]))


def test_batches_in_lanes():
    random.seed(0)
    model = nn.MLP(3, [5, 2])
    shift = Value(0.3)

    @flatgrad.compile
    def f(X):
        def one(x):
            out = model([x[0], x[1], x[2]])
            return (out[0] * shift).tanh(), out[1]
        a, b = flatgrad.vmap(one)(X)
        return a.sum() + (b * b).mean(), a
    X = RNG.standard_normal((9, 3))
    total, a = f(X)
    g = f.to_jax()
    got = jax.jit(g)(g.parameters, X)
    close(got[0], total.data)
    close(got[1], a.data)
    leaves = [*model.parameters(), shift]
    gradient = jax.grad(lambda p: g(p, X)[0])(g.parameters)
    close(gradient[places_of(f, leaves)], swept(f(X)[0], leaves))


# ---- rules ----

def test_rules_of_custom_derivatives():
    @flatgrad.custom_derivative
    def cubed(x):
        return x * x * x
    cubed.defvjp(lambda x: (x * x * x, x), lambda x, g: (g * 10.0 * x * x,))   # not the derivative of its operations

    @flatgrad.custom_derivative
    def clipped(x, y):
        return x * y
    clipped.defvjp(lambda x, y: (x * y, (x, y)), lambda kept, g: (flatgrad.clip(g * kept[1], -1.0, 1.0), None))
    f = flatgrad.compile(lambda x, y: cubed(x) + clipped(x, y))
    x, y = Value(2.0), Value(7.0)
    z = f(x, y)
    g = f.to_jax()
    value, slopes = jax.jit(jax.value_and_grad(g, (1, 2)))(np.zeros(0), 2.0, 7.0)
    close(value, z.data)
    close(slopes, swept(z, [x, y]))
    close(slopes, [41.0, 0.0])
    second = jax.grad(jax.grad(g, 1), 1)(np.zeros(0), 2.0, 7.0)
    close(second, flatgrad.grad(flatgrad.grad(f))(2.0, 7.0))
    both = flatgrad.compile(lambda x: cubed(x) * x)
    both(2.0)
    h = both.to_jax()
    for mode in (jax.jacfwd(jax.jacrev(h, 1), 1), jax.jacrev(jax.jacfwd(h, 1), 1), jax.jacfwd(jax.jacfwd(h, 1), 1)):
        close(mode(np.zeros(0), 2.0), flatgrad.grad(flatgrad.grad(both))(2.0))   # the rule, and not 3 x**2, each time
    with pytest.raises(TypeError, match="forward-mode"):   # a rule that is not linear says nothing of that
        jax.jacfwd(g, 2)(np.zeros(0), 2.0, 7.0)
    batch = np.array([1.0, 2.0, 3.0])
    h = flatgrad.compile(lambda xs: flatgrad.vmap(lambda x: cubed(x) * x)(xs).sum())
    xs = Tensor(batch)
    want = swept(h(xs), [xs])
    k = h.to_jax()
    close(jax.grad(k, 1)(np.zeros(0), batch), want)
    close(jax.vmap(jax.grad(g, 1), (None, 0, None))(np.zeros(0), batch, 7.0), 30.0 * batch ** 2 / 3.0 + 1.0, 1e-12)


straight_through = flatgrad.custom_derivative(lambda x: flatgrad.tanh(x))
straight_through.defvjp(lambda x: (straight_through(x), None), lambda _, g: (g,))
bounded = flatgrad.custom_derivative(lambda x: flatgrad.tanh(x))
bounded.defvjp(lambda x: (bounded(x), x), lambda x, g: (flatgrad.clip(g * x, -10.0, 10.0),))


@pytest.mark.parametrize("start, step, at", [
    (0.1, lambda a, s, t: straight_through(s * a) + t, 0.5),
    (0.7, lambda a, s, t: bounded(s * a) + t, 0.5),
    (0.5, lambda a, s, t: flatgrad.relu(s * a) * a * t + s * t, 0.0),
    (0.5, lambda a, s, t: abs(s * a) * a + t * s, 0.0),
    (0.5, lambda a, s, t: flatgrad.maximum(s * a, a * t * t) * a + t + s, 0.0),
    (0.5, lambda a, s, t: flatgrad.max([s * a, a * t, a]) * a + t, 0.0),
])
def test_second_derivatives_of_loops_are_by_the_rules(start, step, at):
    a, x = Value(at), np.linspace(-1.0, 1.0, 4)
    f = flatgrad.compile(lambda x: flatgrad.scan(lambda s, t: (step(a, s, t), None), start, x)[0] ** 2)
    f(x)
    g, p = f.to_jax(), np.array([at])
    want = f.flat.hessian([at], x)
    modes = [jax.jacrev(jax.jacrev(g)), jax.jit(jax.jacrev(jax.jacrev(g)))]
    if start != 0.7:   # that rule is not linear, which forward mode needs
        modes += [jax.hessian(g), jax.jacfwd(jax.jacfwd(g)), jax.jacrev(jax.jacfwd(g))]
    for mode in modes:
        close(mode(p, x), want)


def test_a_function_that_python_computes_is_refused():
    @flatgrad.custom_derivative
    def root(x):
        return Value(math.sqrt(x.data)) if isinstance(x, Value) else math.sqrt(x)
    root.defvjp(lambda x: (root(x), x), lambda x, g: (g * 0.5 / math.sqrt(x.data),))
    with pytest.raises(ArgumentTypeError):
        flatgrad.compile(lambda x: root(x) * 2.0)(4.0)


# ---- numbers of 32 bits ----

def test_programs_of_floats():
    random.seed(1)
    model = nn.MLP(3, [6, 1])
    f = flatgrad.compile(lambda X: (model(X) ** 2).mean(), dtype="float32")
    X = RNG.standard_normal((7, 3))
    want = f(X)
    g = f.to_jax()
    value, gradient = jax.jit(jax.value_and_grad(g))(g.parameters, X)
    assert value.dtype == np.float32
    close(value, want.data, 1e-5)
    close(gradient, swept(want, model.parameters()), 1e-4, 1e-6)


def test_without_doubles_all_is_floats():
    """And nothing warns."""
    loss, model, X, y = moons_loss()
    g = loss.to_jax()
    jax.config.update("jax_enable_x64", False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            value, gradient = jax.jit(jax.value_and_grad(g))(g.parameters, X, y)
            again = g(g.parameters, X, y)
            jax.jit(jax.hessian(g))(g.parameters, X, y)
    finally:
        jax.config.update("jax_enable_x64", True)
    assert value.dtype == gradient.dtype == again.dtype == np.float32
    close(value, loss(X, y).data, 1e-5)
    close(gradient, swept(loss(X, y), model.parameters()), 1e-4, 1e-6)


# ---- arguments and results ----

Point = namedtuple("Point", "x y")


def test_structures():
    w, b = Value(2.0), Tensor([1.0, 2.0])

    def f(point, d, *rest, scale, mode="a"):
        total = point.x * w + d["k"][0] * d["k"][1] + sum(rest) * scale
        return {"total": total, "all": [total * 2.0, (b * d["m"]).sum()], "const": 3, "point": Point(total, b * total)}
    f = flatgrad.compile(f)
    args = (Point(1.0, np.array([[1.0, 2.0]])), {"k": [3.0, 4.0], "m": np.array([5.0, 6.0])}, 7.0, 8.0)
    want = f(*args, scale=0.5, mode="b")
    g = f.to_jax()
    got = g(g.parameters, *args, scale=0.5, mode="b")
    assert list(got) == ["total", "all", "const", "point"] and got["const"] == 3 and type(got["point"]) is Point
    close(got["total"], want["total"].data)
    close(got["all"], [x.data for x in want["all"]])
    close(got["point"].y, want["point"].y.data)
    as_arrays = (Point(jnp.asarray(1.0), jnp.array([[1.0, 2.0]])), {"k": jnp.array([3.0, 4.0]), "m": jnp.array([5, 6])})
    close(g(list(g.parameters), *as_arrays, 7, jnp.asarray(8.0), scale=0.5, mode="b")["total"], want["total"].data)
    gradient = jax.grad(lambda p, *a: g(p, *a, scale=0.5, mode="b")["total"], (0, 1, 2))(g.parameters, *args)
    assert type(gradient[1]) is Point and gradient[2]["k"] == [4.0, 3.0]
    with pytest.raises(ArgumentError, match="mode: expected the static argument"):
        g(g.parameters, *args, scale=0.5, mode="a")
    with pytest.raises(ArgumentError, match="4 by position, mode, scale, got 3 by position, scale"):
        g(g.parameters, *args[:3], scale=0.5)
    ordered = flatgrad.compile(lambda d: OrderedDict(b=d["a"] * 2.0))
    assert type(ordered({"a": 1.0})) is OrderedDict is type(ordered.to_jax()(np.zeros(0), {"a": 1.0}))


@pytest.mark.parametrize("change, error, words", [
    (lambda p, x, k, d: (p[:-1], x, k, d), ShapeError, r"parameters: expected an array of shape \(2,\), got one"),
    (lambda p, x, k, d: (p[None], x, k, d), ShapeError, "parameters: expected"),
    (lambda p, x, k, d: (None, x, k, d), ArgumentTypeError, "parameters: expected an array of numbers, got None"),
    (lambda p, x, k, d: (p, x[:-1], k, d), ShapeError, r"argument 0: expected a list of 3, got one of 2"),
    (lambda p, x, k, d: (p, np.array(x)[:2], k, d), ShapeError, r"argument 0: expected an array of shape \(3,\)"),
    (lambda p, x, k, d: (p, 1.0, k, d), ArgumentTypeError, "argument 0: expected a list of 3"),
    (lambda p, x, k, d: (p, [1.0, 2.0, "a"], k, d), ArgumentTypeError, r"argument 0\[2\]: expected a number, got 'a'"),
    (lambda p, x, k, d: (p, [1.0, 2.0, Value(1.0)], k, d), ArgumentTypeError, "got a Value.*write x.data"),
    (lambda p, x, k, d: (p, [1.0, True, 2.0], k, d), ArgumentTypeError, r"argument 0\[1\]: expected a number, got T"),
    (lambda p, x, k, d: (p, [1.0, 1j, 2.0], k, d), ArgumentTypeError, r"argument 0\[1\]: expected a number"),
    (lambda p, x, k, d: (p, x, "other", d), ArgumentError, "argument 1: expected the static argument"),
    (lambda p, x, k, d: (p, x, k, {"b": 1.0}), ArgumentTypeError, r"argument 2: expected a dict with the keys \['a'\]"),
    (lambda p, x, k, d: (p, x, k, {"a": [1.0]}), ShapeError, r"argument 2\['a'\]: expected a number"),
    (lambda p, x, k, d: (p, x, k), ArgumentError, "expected parameters and the arguments"),
])
def test_other_arguments_are_refused(change, error, words):
    a, b = Value(1.0), Value(2.0)
    f = flatgrad.compile(lambda x, kind, d: a * x[0] + b * x[2] * d["a"])
    given = ([1.0, 2.0, 3.0], "kind", {"a": 5.0})
    f(*given)
    g = f.to_jax()
    close(g(g.parameters, *given), 31.0)
    with pytest.raises(error, match=words):
        g(*change(g.parameters, *given))
    with pytest.raises((ArgumentError, ArgumentTypeError)):
        jax.jit(lambda p: g(*change(p, *given)))(g.parameters)


@pytest.mark.parametrize("x", [jnp.ones(3) * 1j, np.ones(3) * 1j, np.array(["1", "2", "3"]), [1.0, 1j, 2.0],
                               np.array([b"1", b"2", b"3"]), [1.0, jnp.array(1j), 2.0], [1.0, "2", 3.0],
                               np.array([1.0, Value(2.0), 3.0]), [10 ** 400, 1, 1]])
def test_what_is_no_number_is_refused(x):
    w = Tensor([1.0, 2.0, 3.0])
    f = flatgrad.compile(lambda x: (x * w).sum())
    f(np.ones(3))
    g = f.to_jax()
    with pytest.raises(ArgumentTypeError, match="argument 0.*expected"):
        g(g.parameters, x)
    with pytest.raises(ArgumentTypeError, match="parameters.*expected"):
        g(x, np.ones(3))
    with pytest.raises(ShapeError, match=r"parameters: expected parts of one shape, got \(\) for part 0 and"):
        g([1.0, [2.0], 3.0], np.ones(3))
    close(g([1, 2, 3], np.array([1.0, 2, 3], object)), 14.0)
    close(jax.grad(lambda t: g([t, 2.0 * t, 3.0], [t, t, 1.0]))(2.0), 12.0)


def test_arguments_by_position_and_by_keyword():
    def f(x, y, d=2.0, *rest, scale=1.0):
        return x * y ** 2 * d ** 3 * scale * (rest[0] if rest else 1.0)
    f = flatgrad.compile(f)
    p = np.zeros(0)
    for args, kwargs in (((2.0, 3.0, 5.0), {}), ((2.0, 3.0), {"d": 5.0}), ((), {"d": 5.0, "x": 2.0, "y": 3.0})):
        f = flatgrad.compile(f.fn)   # another one, of that program
        f(*args, **kwargs)
        g = pickle.loads(pickle.dumps(f.to_jax()))
        for x in (g(p, 2.0, 3.0, 5.0), g(p, 2.0, 3.0, d=5.0), g(p, d=5.0, y=3.0, x=2.0), g(p, 2.0, d=5.0, y=3.0)):
            close(x, 2250.0)
        for more, given in (((2.0, 3.0), {}), ((2.0, 3.0, 5.0, 7.0), {}), ((2.0, 3.0), {"e": 5.0}),
                            ((2.0, 3.0, 5.0), {"scale": 1.0})):
            with pytest.raises(ArgumentError, match="expected parameters and the arguments that it was exported for"):
                g(p, *more, **given)
        with pytest.raises(ArgumentError, match="f: expected each argument once, got y by position and by keyword"):
            g(p, 2.0, 3.0, d=5.0, y=3.0)
        with pytest.raises(ArgumentError, match=r"f: expected an array of shape \(0,\) by position, the parameters"):
            g()
    f(2.0, 3.0, 5.0, 7.0, scale=11.0)
    close(f.to_jax()(p, 2.0, 3.0, 5.0, 7.0, scale=11.0), 2250.0 * 77.0)
    first = flatgrad.compile(lambda x, /, **named: x * named["x"])
    first(2.0, x=3.0)
    close(first.to_jax()(p, 2.0, x=5.0), 10.0)
    first = flatgrad.compile(lambda x, y=1.0, /, **named: x * y * named["y"])
    first(2.0, y=3.0)
    with pytest.raises(ArgumentError, match="1 by position, y, got 2 by position"):   # that is another y
        first.to_jax()(p, 2.0, 5.0)


@pytest.mark.parametrize("kept", ["kind", 3, True, None, 2.5, 1 + 2j, (1, ("a", 2.5)), range(1, 7, 2), slice(1, None),
                                  np.float32(1.5), Fraction(1, 3), Decimal("1.25"), b"abc", math.inf])
def test_an_error_names_the_static_argument(kept):
    f = flatgrad.compile(lambda x, kept: x * 2.0, static_argnums=1)
    f(1.0, kept)
    g = f.to_jax()
    close(g(np.zeros(0), 1.0, kept), 2.0)
    with pytest.raises(ArgumentError, match=re.escape(f"that it was exported for, {kept!r}, got 'other'")):
        g(np.zeros(0), 1.0, "other")


def test_which_program():
    f = flatgrad.compile(lambda x: flatgrad.sum(x) if len(x) > 1 else x[0])
    with pytest.raises(ArgumentError, match="has no program yet"):
        f.to_jax()
    close(f.to_jax(([0.0] * 3,))(np.zeros(0), [1.0, 2.0, 3.0]), 6.0)
    f([1.0, 2.0])
    close(f.to_jax()(np.zeros(0), [1.0, 2.0]), 3.0)
    g = f.to_jax(([0.0],))
    close(g(np.zeros(0), [5.0]), 5.0)
    with pytest.raises(ShapeError):
        g(np.zeros(0), [5.0, 6.0])
    with pytest.raises(ArgumentError, match="returns a constant"):
        flatgrad.compile(lambda x: 1.0).to_jax((2.0,))
    source = flatgrad.Random(0)
    with pytest.raises(ArgumentError, match="draws random numbers"):
        flatgrad.compile(lambda x: x * source.normal()).to_jax((2.0,))


def test_parameters_are_what_takes_gradients():
    a, b = Value(1.5), Value(2.5)
    b.requires_grad = False
    f = flatgrad.compile(lambda x: a * x + b)
    f(1.0)
    g = f.to_jax()
    assert g.parameters.tolist() == [1.5] and len(g.names) == 1
    a.data = 10.0   # the parameters are those of the export
    close(g(g.parameters, 2.0), 5.5)


# ---- copies ----

CODE = """
import pickle, sys
import jax
jax.config.update("jax_enable_x64", True)
g = pickle.load(open(sys.argv[1], "rb"))
value, gradient = jax.value_and_grad(g)(g.parameters, 2.0)
print(repr(float(value)), *map(repr, gradient.tolist()))
"""


def test_pickles_are_read_where_the_function_is_not_known(tmp_path):
    w = [Value(0.5), Value(-1.0)]
    step = lambda c, _: (flatgrad.relu(c * w[0] + w[1].exp()), None)  # noqa: E731
    f = flatgrad.compile(lambda x: flatgrad.scan(step, x, length=3)[0])
    y = f(2.0)
    want = swept(y, w)
    path = tmp_path / "g.pickle"
    path.write_bytes(pickle.dumps(f.to_jax()))
    run = subprocess.run([sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, env=dict(os.environ))
    assert run.returncode == 0, run.stderr
    close(list(map(float, run.stdout.split())), [y.data, *want])


def test_without_jax_an_error_says_what_to_install(monkeypatch):
    f = flatgrad.compile(lambda x: x * 2.0)
    f(1.0)
    g = f.to_jax()
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(MissingPackageError, match=r"flatgrad\[jax\]"):
        g(g.parameters, 1.0)


# ---- how operands are read ----

def test_operands_are_slices_where_they_can_be():
    """No element by element: neither in a network over a batch nor in one of scalars."""
    loss, _, _, _ = moons_loss()
    kinds = [read.kind for read in loss.to_jax().plan.reads]
    assert "take" not in kinds and "picked" not in kinds, kinds


@pytest.mark.parametrize("seed", range(12))
def test_reads_of_any_view(seed):
    """Slots of several arrays in any pattern, against NumPy's indexing."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(1, 30, 4).tolist()
    firsts = np.cumsum([1, *[n + int(draw.integers(0, 3)) for n in sizes]])
    numbers = draw.standard_normal(int(firsts[-1]) + 1)
    objects = [np.arange(a, a + n) for a, n in zip(firsts, sizes)]
    usable = np.concatenate(objects)

    class Body:
        nodes, constants, instructions, results = len(numbers), {}, [], [int(usable[0])]
    plan = arrays.Plan.__new__(arrays.Plan)
    arrays.Plan.__init__(plan, Body, objects[1:], {int(s): float(numbers[s]) for s in objects[0]})
    again = arrays.Plan.__new__(arrays.Plan)
    again.frozen, again.where = np.zeros(Body.nodes, bool), np.full(Body.nodes, arrays.NOTHING, np.int32)
    again.at, again.number = np.zeros(Body.nodes, np.int32), numbers.copy()
    again.sizes, again.dims, again.reads, again.known = [], [], [], {}
    for slots in objects[1:]:
        again.add(slots, arrays.vector(len(slots)), False)
    again.where[objects[0]] = arrays.CONSTANT
    wanted = []
    for _ in range(12):
        rows, cols = draw.integers(1, 6, 2).tolist()
        kind = draw.integers(4)
        if kind == 0:
            slots = draw.choice(usable, (rows, cols))
        else:
            down, across = draw.integers(-3, 7, 2).tolist()
            slots = int(draw.choice(usable)) + down * np.arange(rows)[:, None] + across * np.arange(cols)
            if not np.isin(slots, usable).all():
                continue
        shape = (rows, cols) if kind != 3 else (rows * cols,)
        wanted.append((again.read(slots, shape), slots.reshape(shape)))
    again.cut()
    engine = flatgrad.export.jax.JaxEngine(np.float64)
    for batch in ((), (2,)):
        scale = np.arange(1.0, 3.0)[:, None] if batch else 1.0
        given = [(numbers[slots] * scale) for slots in objects[1:]]
        given = [x.reshape(batch + arrays.vector(x.shape[-1])) for x in given]
        run = arrays.Run(again, engine, [jnp.asarray(x) for x in given])
        for read, slots in wanted:
            got = np.asarray(run.fetch(read))
            for k in range(2 if batch else 1):
                expected = np.where(np.isin(slots, objects[0]), 1.0, k + 1.0) * numbers[slots]
                one = got[k] if batch and got.ndim > slots.ndim else got
                close(np.broadcast_to(one, slots.shape), expected, 0, 0)


# ---- many devices ----

DEVICES = """
import jax, pickle, sys
import numpy as np
jax.config.update("jax_enable_x64", True)
g, X, y = pickle.load(open(sys.argv[1], "rb"))
assert jax.device_count() == 8
step = lambda p, X, y: (lambda v, d: (v, p - 0.1 * d))(*jax.value_and_grad(g)(p, X, y))
def mean(p, X, y):
    value, gradient = jax.value_and_grad(g)(p, X, y)
    return jax.lax.pmean(value, "devices"), p - 0.1 * jax.lax.pmean(gradient, "devices")
several = jax.pmap(mean, "devices")
one = jax.jit(jax.vmap(mean, axis_name="devices"))
parts = X.reshape(8, -1, 2), y.reshape(8, -1)
p = q = np.tile(g.parameters, (8, 1))
for _ in range(20):
    a, p = several(p, *parts)
    b, q = one(q, *parts)
    print(repr(float(a[0])), repr(float(b[0])))
from jax.sharding import Mesh, NamedSharding, PartitionSpec
mesh = Mesh(np.array(jax.devices()), ("devices",))
rows = NamedSharding(mesh, PartitionSpec("devices"))
total = jax.jit(jax.vmap(g, (None, 0, 0)))(g.parameters, *[jax.device_put(x, rows) for x in parts])
assert len(total.sharding.device_set) == 8
print(repr(float(total.mean())), repr(float(one(np.tile(g.parameters, (8, 1)), *parts)[0][0])))
"""


def test_eight_devices_give_the_losses_of_one(tmp_path):
    random.seed(5)
    model = nn.MLP(2, [4, 1])
    f = flatgrad.compile(lambda X, y: ((model(X).reshape(-1) - y) ** 2).mean())
    X, y = RNG.standard_normal((32, 2)), RNG.standard_normal(32)
    f(X[:4], y[:4])
    path = tmp_path / "g.pickle"
    path.write_bytes(pickle.dumps((f.to_jax(), X, y)))
    env = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=8", JAX_PLATFORMS="cpu")
    run = subprocess.run([sys.executable, "-c", DEVICES, str(path)], capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stderr
    losses = np.array([line.split() for line in run.stdout.splitlines()], float)
    close(losses[:, 0], losses[:, 1])
    assert losses[19, 0] < losses[0, 0]


@pytest.mark.parametrize("larger", [flatgrad.maximum, flatgrad.minimum])
def test_the_larger_of_a_number_and_itself_is_no_comparison(larger):
    """Compiled, XLA may compute a number anew for each comparison, and round it in another way."""
    def twice(y):
        return larger(y, y)

    for f, x in ((lambda x: twice(x * 3.0) * x, 0.7), (lambda x: twice(x * x).sum(), np.array([0.7, -0.2, 0.4]))):
        program = flatgrad.compile(f, simplify={"shared"})
        node = Tensor(x) if np.ndim(x) else Value(x)
        program(node).backward()
        g = program.to_jax()
        close(jax.jit(jax.grad(g, 1))(g.parameters, x), node.grad)
        body = listing(Exported(program).callee)
        ops = {one.op for one in body.instructions} | {one.param for one in body.instructions}
        kept = arrays.needed(body, body.results)
        assert larger.__name__.upper() in ops and {one.op for one in kept} | {one.param for one in kept} == ops - {
            larger.__name__.upper()} | {"COPY"}


@pytest.mark.parametrize("f, x", [
    (lambda x: [flatgrad.atan2(x[0], x[1]) for _ in range(8)], [0.7, 0.2]),
    (lambda x: flatgrad.atan2(x, x), np.array([0.7])), (lambda x: flatgrad.atan2(x[:, 0:1] + np.zeros((1, 3)), x[:, 0:1]),
                                                       np.array([[0.7, 0.1]]))])
def test_the_same_several_times(f, x):
    """Rows of which all operands are repeated."""
    f = flatgrad.compile(lambda x, f=f: f(x), simplify=False)
    want = f(x)
    g = f.to_jax()
    found = g(g.parameters, x)
    assert np.shape(found) == np.shape(want)
    close(np.asarray(found), np.array(want.data if isinstance(want, Tensor) else [w.data for w in want]))
