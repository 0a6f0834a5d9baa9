"""Compiled functions as functions of PyTorch: values and derivatives against the programs themselves."""
import itertools
import math
import pickle
import random
import sys

import numpy as np
import pytest
from checks.compiled import SUBSETS, WEIGHTS, Function, Unfit, tolerance
from test_lanes import Nested
from test_ops import IDS, ORACLE, special_operands, split

import flatgrad
from flatgrad import Tensor, Value, _core, nn
from flatgrad.errors import ArgumentError, ArgumentTypeError, MissingPackageError, ShapeError

torch = pytest.importorskip("torch")


def close(got, want, rtol=1e-12, atol=1e-12):
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


def leaf(x):
    return torch.tensor(x, dtype=torch.float64, requires_grad=True)


def gradients(y, leaves, create_graph=False):
    found = torch.autograd.grad(y, leaves, create_graph=create_graph, allow_unused=True) if y.requires_grad else (
        [None] * len(leaves))
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found)]


def swept(y, leaves):
    """The gradients of leaves by a backward pass of flatgrad."""
    for x in leaves:
        x.grad = np.zeros(x.shape) if isinstance(x, Tensor) else 0.0
    try:
        y.backward()
    except RuntimeError:   # a constant
        pass
    return np.concatenate([np.ravel(x.grad) for x in leaves])


def places_of(f, leaves):
    """Where the numbers of leaves are among the parameters of an export, with their number for none."""
    core = next(reversed(f._programs.values())).core
    wanted = _core._captured_numbers(core)[1]
    rank = np.cumsum(wanted) - 1
    return np.array([rank[place] if place >= 0 and wanted[place] else sum(wanted) for place in
                     _core._captured_places(core, leaves)])


# ---- every row ----

def points_of(op):
    """Special points, and a constant in place of an immediate or an order. PyTorch may round numbers near the ends of
    the range to 0 and inf in between."""
    for point in special_operands(op):
        point = point if isinstance(point, tuple) else (point,)
        if any(0.0 < abs(x) < 1e-100 or 1e100 < abs(x) < math.inf for x in point):
            continue
        if op == "HUBER" and not point[2] >= 0:
            continue
        if ORACLE[op].order and not point[-1] <= 4:
            continue
        try:
            values, operands = split(op, point)
            z = ORACLE[op].apply(*operands)
        except (ArithmeticError, ValueError):
            continue
        free = len(values) - (1 if ORACLE[op].order else 0)
        yield point[:free], point[free:], values[:free], z


ALONG = [0.5, -1.3, 0.7]


def compare_row(op, orders=3, most=60):
    exports, compared = {}, 0
    found = list(points_of(op))
    for point, constants, values, z in random.Random(op).sample(found, min(most, len(found))):
        given = [int(x) if op == "POWI" else x for x in constants]
        if str(given) not in exports:
            f = flatgrad.compile(lambda *x: ORACLE[op].apply(*x, *given))
            f(*[Value(x) for x in point])
            exports[str(given)] = f.to_torch()
        leaves = [leaf(x) for x in point]
        y = exports[str(given)](np.zeros(0), *leaves)
        got, want, out = [[y.item()]], [[z.data]], z
        for _ in range(orders):
            ours = [Value(0.0) if g is None else g for g in _core.written([out], [None], values)]
            want.append([g.data for g in ours])
            out = sum([g * c for g, c in zip(ours, ALONG)], Value(0.0))
            slopes = gradients(y, leaves, create_graph=True)
            got.append([g.item() for g in slopes])
            y = sum(g * c for g, c in zip(slopes, ALONG))
        for order, (a, b) in enumerate(zip(got, want)):
            for x, z_ in zip(a, b):
                assert x == z_ or math.isnan(x) and math.isnan(z_) or abs(x - z_) <= (
                    1e-12 if order < 2 else 1e-9) * max(1.0, abs(z_)), (op, point, given, order, a, b)
                compared += 1
    return compared


@pytest.mark.parametrize("op", IDS)
def test_three_derivatives_at_kinks_and_edges(op):
    assert compare_row(op) > 10


def test_the_comparison_of_rows_can_fail(monkeypatch):
    monkeypatch.setattr("flatgrad.export.arrays.NATIVE", frozenset(IDS))
    with pytest.raises(AssertionError, match="RELU"):
        compare_row("RELU", 1)


# ---- programs ----

def check_random(seed):
    function = Function(seed)
    f = flatgrad.compile(lambda xs, t: function(xs, t), simplify=set(SUBSETS[seed % len(SUBSETS)]))
    f([Value(x) for x in function.numbers], Tensor(function.matrix))
    try:
        expected = function.numbers_of(function, function.numbers, function.matrix)
        allowed = tolerance(function, function, function.numbers, function.matrix, False, expected)
        g = f.to_torch()
    except (ValueError, ZeroDivisionError, OverflowError, IndexError, Unfit):
        return False
    leaves = [leaf(g.parameters), leaf(function.numbers), leaf(function.matrix)]
    try:
        values, tensors = g(*leaves)
    except ArgumentError as error:   # of a row for derivatives with an order that is no constant: nobody can write that
        assert "order" in str(error)
        return False
    flat = torch.cat([torch.stack(values), *[x.reshape(-1) for x in tensors]])
    found = [x.numpy() for x in gradients(flat @ torch.tensor(WEIGHTS[:len(flat)], dtype=torch.float64), leaves)]
    of_parameters = np.append(found[0], 0.0)[places_of(f, [*function.captured, function.tensor])]
    got = np.concatenate([found[1], np.ravel(found[2]), of_parameters])
    for ours, want, most in zip((flat.detach().numpy(), got), expected, allowed):
        assert (np.abs(ours - want) <= most).all(), (seed, np.abs(ours - want).max())
    return True


def test_random_programs():
    assert sum(map(check_random, range(100))) > 75


@pytest.mark.parametrize("part", range(4))
def test_programs_within_each_other(part):
    for seed in range(10 * part, 10 * part + 10):
        rng = random.Random(seed)
        nested = Nested(seed)
        weights = [Value(0.0) for _ in range(rng.randrange(3, 7))]
        f = flatgrad.compile(lambda *x: flatgrad.sum(nested(x, weights)), simplify=rng.random() < 0.8)
        inputs = [Value(rng.uniform(-1.5, 1.5)) for _ in range(2)]
        for w in weights:
            w.data = rng.uniform(-1.0, 1.0)
        y = f(*inputs)
        g = f.to_torch()
        leaves = [leaf(g.parameters), *[leaf(x.data) for x in inputs]]
        z = g(*leaves)
        found = [x.numpy() for x in gradients(z, leaves)]
        got = [*found[1:], *np.append(found[0], 0.0)[places_of(f, weights)]]
        close([z.item(), *got], [y.data, *swept(y, inputs + weights)], 1e-10, 1e-10)


def test_a_network_and_its_hessian():
    random.seed(3)
    model = nn.MLP(2, [4, 1])
    draw = np.random.default_rng(0)
    X, y = draw.standard_normal((6, 2)), draw.standard_normal(6)
    f = flatgrad.compile(lambda X, y: ((model(X).reshape(-1) - y) ** 2).mean())
    want = f(X, y)
    g = f.to_torch()
    p = leaf(g.parameters)
    value = g(p, torch.tensor(X), y)
    close(value.item(), want.data)
    close(gradients(value, [p])[0].numpy(), swept(want, model.parameters()))
    close(torch.autograd.functional.hessian(lambda p: g(p, X, y), p).numpy(),
          flatgrad.hessian(f, parameters=model.parameters())(X, y), 1e-10)
    many = torch.stack([p.detach(), 2 * p.detach()])
    rows = torch.func.vmap(torch.func.grad(lambda p: g(p, X, y)))(many)
    close(rows[0].numpy(), gradients(g(p, X, y), [p])[0].numpy())


def test_rules_of_custom_derivatives():
    @flatgrad.custom_derivative
    def cubed(x):
        return x * x * x
    cubed.defvjp(lambda x: (x * x * x, x), lambda x, g: (flatgrad.clip(g, -1.0, 1.0) * 10.0 * x * x,))
    f = flatgrad.compile(lambda x: 3.0 * cubed(x) * x)
    x = Value(2.0)
    want = f(x)
    g = f.to_torch()
    t = leaf(2.0)
    slope, = gradients(g(np.zeros(0), t), [t], create_graph=True)
    close(slope.item(), swept(want, [x])[0])
    close(gradients(slope, [t])[0].item(), flatgrad.grad(flatgrad.grad(f))(2.0))
    h = flatgrad.compile(lambda xs: flatgrad.vmap(lambda x: cubed(x) * x)(xs).sum())
    xs = Tensor([1.0, -2.0, 3.0])
    want = swept(h(xs), [xs])
    t = leaf(xs.data)
    close(gradients(h.to_torch()(np.zeros(0), t), [t])[0].numpy(), want)


def test_softmax_and_its_like_of_rows_with_infinities():
    f = flatgrad.compile(lambda t: [t.softmax(), t.log_softmax(), t.logsumexp(axis=1), t.max(axis=1),
                                    flatgrad.losses.cross_entropy(t, [0, 2, 1]), t.max()])
    rows = np.array([[1.0, 2.0, 2.0], [-math.inf, 0.5, 0.25], [1000.0, -1000.0, 0.0]])
    t = Tensor(rows)
    g = f.to_torch((t,))
    x = leaf(rows)
    for k, (ours, want) in enumerate(zip(g(np.zeros(0), x), f(t))):
        close(ours.detach().numpy(), want.data)
        if k in (0, 2, 3, 5):
            y = f(t)[k]
            close(gradients(ours.sum(), [x])[0].numpy().ravel(), swept(y.sum() if isinstance(y, Tensor) else y, [t]))


def test_positions():
    table = Tensor(np.arange(12.0).reshape(4, 3))
    f = flatgrad.compile(lambda k, x: [flatgrad.take(table, k), flatgrad.take(x, k)])
    f(1.0, [1.0, 2.0, 3.0, 4.0])
    g = f.to_torch()
    for k in (0.0, 3.0, -4.0):
        rows, one = f(k, [1.0, 2.0, 3.0, 4.0])
        got = g(g.parameters, k, [1.0, 2.0, 3.0, 4.0])
        close(got[0].numpy(), rows.data)
        close(got[1].numpy(), one.data)
    for k in (4.0, -5.0, 0.5, math.nan):
        got = g(g.parameters, k, [1.0, 2.0, 3.0, 4.0])
        assert got[0].isnan().all() and got[1].isnan()
        p, x = leaf(g.parameters), leaf([1.0, 2.0, 3.0, 4.0])
        rows, one = g(p, k, x)
        assert all(slope.isnan().any() for slope in torch.autograd.grad(rows.sum() + one, [p, x]))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")   # of PyTorch's own forward mode
def test_reverse_mode_twice_where_forward_mode_is_not_there():
    w = Value(0.5)
    f = flatgrad.compile(lambda x: flatgrad.sigmoid(w * x) / x + flatgrad.relu(x) ** 3)
    f(2.0)
    g, x = f.to_torch(), torch.tensor(2.0, dtype=torch.float64)
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jacfwd(lambda x: g(g.parameters, x))(x)
    twice = torch.func.jacrev(torch.func.jacrev(lambda x: g(g.parameters, x)))(x)
    close(twice.item(), flatgrad.grad(flatgrad.grad(f))(2.0))
    f = flatgrad.compile(lambda x: flatgrad.sin(x) * x)
    f(2.0)
    close(torch.func.jacfwd(lambda x: f.to_torch()(np.zeros(0), x))(x).item(), math.sin(2.0) + 2.0 * math.cos(2.0))


def test_programs_of_floats():
    random.seed(1)
    model = nn.MLP(3, [6, 1])
    f = flatgrad.compile(lambda X: (model(X) ** 2).mean(), dtype="float32")
    X = np.random.default_rng(1).standard_normal((7, 3))
    want = f(X)
    g = f.to_torch()
    p = torch.tensor(g.parameters, requires_grad=True)
    value = g(p, X)
    assert value.dtype == torch.float32
    close(value.item(), want.data, 1e-5)
    close(gradients(value, [p])[0].numpy(), swept(want, model.parameters()), 1e-4, 1e-6)


def test_arguments_results_and_copies(monkeypatch):
    w = Value(2.0)
    f = flatgrad.compile(lambda x, d, mode: {"a": [w * x[0], x[1] * d["k"]], "b": (3, mode)})
    want = f([1.0, 2.0], {"k": 3.0}, "m")
    g = pickle.loads(pickle.dumps(f.to_torch()))
    got = g(g.parameters, [leaf(1.0), 2.0], {"k": 3.0}, "m")
    assert [x.item() for x in got["a"]] == [x.data for x in want["a"]] and got["b"] == want["b"] == (3, "m")
    for given, error in (((g.parameters, [1.0], {"k": 3.0}, "m"), ShapeError),
                         ((np.zeros(3), [1.0, 2.0], {"k": 3.0}, "m"), ShapeError),
                         ((g.parameters, [1.0, 2.0], {"j": 3.0}, "m"), ArgumentTypeError),
                         ((g.parameters, [1.0, Value(2.0)], {"k": 3.0}, "m"), ArgumentTypeError),
                         ((g.parameters, [1.0, 2.0], {"k": 3.0}, "n"), ArgumentError),
                         ((g.parameters, [1.0, 2.0], {"k": 3.0}), ArgumentError)):
        with pytest.raises(error):
            g(*given)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match=r"flatgrad\[torch\]"):
        g(g.parameters, [1.0, 2.0], {"k": 3.0}, "m")


def test_loops_in_both_directions():
    w = Value(0.9)
    for reverse, length in itertools.product((False, True), (1, 5)):
        f = flatgrad.compile(lambda xs: flatgrad.scan(lambda c, x: (c * w + x, c * x), 0.0, xs, reverse=reverse))
        xs = Tensor(np.arange(1.0, 1.0 + length))
        last, outputs = f(xs)
        g = f.to_torch()
        p = leaf(g.parameters)
        got = g(p, xs.data)
        close(got[0].item(), last.data)
        close(got[1].detach().numpy(), outputs.data)
        close(gradients(got[0], [p])[0].numpy(), swept(last, [w]))


def test_gradients_flow_into_lists_of_tensors():
    a = Value(2.0)
    f = flatgrad.compile(lambda x, q: (x * a).sum() * q[0] + q[1] ** 2)
    f(np.ones(3), [1.0, 2.0])
    g = f.to_torch()
    t = leaf(1.0)
    p = leaf(g.parameters)
    y = g(p, [t, t, 2.0 * t], [1.0, 2.0 * t])   # 2 (t + t + 2 t) + 4 t**2
    y.backward()
    assert (y.item(), t.grad.item(), p.grad.tolist()) == (12.0, 16.0, [4.0])
    y = g([3.0 * t], (t, 1.0, np.float64(2.0)), [t, t])   # 3 t (t + 3) t + t**2
    assert (y.item(), torch.autograd.grad(y, t)[0].item()) == (13.0, 9.0 + 18.0 + 2.0)
    f = flatgrad.compile(lambda X: (X[0] * X[1]).sum() * a)
    f(np.ones((2, 2)))
    y = f.to_torch()([2.0], [[t, 3.0], torch.stack([2.0 * t, t])])   # 2 (2 t**2 + 3 t)
    assert (y.item(), torch.autograd.grad(y, t)[0].item()) == (10.0, 14.0)
    with pytest.raises(ShapeError, match=r"argument 0: expected parts of one shape, got \(2,\) for part 0"):
        f.to_torch()([2.0], [[t, 3.0], [t]])
    with pytest.raises(ArgumentTypeError, match=r"argument 0\[1\]\[0\]: expected a number, got 'a'"):
        f.to_torch()([2.0], [[t, 3.0], ["a", t]])


@pytest.mark.parametrize("x", [torch.ones(3) * 1j, np.ones(3) * 1j, np.array(["1", "2", "3"]), [1.0, 1j, 2.0],
                               [1.0, torch.tensor(1j), 2.0], np.array([1.0, Value(2.0), 3.0])])
def test_what_is_no_number_is_refused(x):
    w = Tensor([1.0, 2.0, 3.0])
    f = flatgrad.compile(lambda x: (x * w).sum())
    f(np.ones(3))
    g = f.to_torch()
    with pytest.raises(ArgumentTypeError, match="argument 0.*expected"):
        g(g.parameters, x)
    with pytest.raises(ArgumentTypeError, match="parameters.*expected"):
        g(x, np.ones(3))
    assert g([1, 2, 3], np.array([1.0, 2, 3], object)).item() == 14.0
