"""Functions of one flat vector: the same bits as by the Values, finite differences, other processes and threads."""
import copy
import gc
import math
import multiprocessing
import pickle
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, nn, value_and_grad
from flatgrad.datasets import make_moons
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError, StateError
from flatgrad.export import flat as module
from flatgrad.nn.utils import parameters_to_vector

RNG = np.random.default_rng(15)
X, y = make_moons(40, noise=0.1, random_state=1)
y = 2.0 * y - 1.0


@pytest.fixture(autouse=True)
def nothing_kept(nothing_left_behind):
    yield
    module.loaded_plans.clear()   # which keep programs
    gc.collect()


def same_bits(a, b):
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


# ---- functions ----

def moons():
    random.seed(0)
    model = nn.MLP(2, [8, 8, 1], activation="tanh")
    return flatgrad.compile(lambda X, y: ((model(X).reshape(len(y)) - y) ** 2).mean()), (X, y)


def scalars():
    w = [Value(x) for x in (0.3, -0.7, 1.1, 0.2)]

    def loss(x, target):
        hidden = [(w[0] * x + w[1]).tanh(), (w[2] * x + w[3]).exp()]
        return (hidden[0] * hidden[1] - target) ** 2 + 0.1 * sum(v * v for v in w)
    return flatgrad.compile(loss), (0.4, 1.5)


def swing():
    """The pendulum with friction: a scan."""
    gravity, friction = Value(9.0), Value(0.3)

    def energy(angle, speed):
        def step(state, _):
            angle, speed = state
            speed = speed - 0.02 * (gravity * angle.sin() + friction * speed)
            return (angle + 0.02 * speed, speed), angle
        (angle, speed), path = flatgrad.scan(step, (angle, speed), length=25)
        return (path * path).mean() + speed * speed
    return flatgrad.compile(energy), (0.5, 0.0)


def lanes():
    w, b = Tensor(RNG.normal(size=3)), Value(0.2)

    def loss(rows, targets):
        return flatgrad.vmap(lambda x, t: (flatgrad.dot(w, x) + b - t).softplus())(rows, targets).mean()
    return flatgrad.compile(loss), (RNG.normal(size=(11, 3)), RNG.normal(size=11))


def tensors():
    w, b, scale = Tensor(RNG.normal(size=(2, 3))), Tensor(np.zeros(2)), Tensor([2.0, 3.0], requires_grad=False)

    def loss(p):
        return ((w @ p["x"] + b).tanh() * scale).sum() * p["k"]
    return flatgrad.compile(loss), ({"x": RNG.normal(size=3), "k": 0.5},)


def holes():
    """Parameters with other Values between them on the tape, one of which is frozen."""
    found = [Value(0.1 * k) for k in range(12)]
    w = found[1:9:2]
    w[2].requires_grad = False

    def loss(x):
        return ((w[3] * x + w[0] * w[1] + w[2]) ** 2).log1p()
    return flatgrad.compile(loss), (1.5,)


def statics():
    w = Value(0.5)

    @flatgrad.compile(static_argnames="power")
    def loss(x, power):
        return (w * x - 1.0) ** power
    return loss, (3.0, 4)


CASES = {f.__name__: f for f in (moons, scalars, swing, lanes, tensors, holes, statics)}


def elsewhere(flat, seed=3):
    theta = flat.theta
    return theta + 0.1 * np.random.default_rng(seed).normal(size=len(theta))


# ---- values and derivatives ----

@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_as_by_the_values(name):
    f, args = CASES[name]()
    f(*args).backward()
    parameters = f.flat.parameters
    before, slopes = f.flat.theta, [np.array(p.grad) for p in parameters]
    theta = elsewhere(f.flat)
    given = theta.copy()
    value, gradient = f.flat(theta, *args)
    assert type(value) is float and type(gradient) is np.ndarray and gradient.dtype == np.float64
    assert same_bits(theta, given) and same_bits(f.flat.theta, before)
    assert all(same_bits(p.grad, slope) for p, slope in zip(parameters, slopes))
    assert value == f.flat.value(theta, *args) and same_bits(gradient, f.flat.gradient(theta, *args))
    by_values = value_and_grad(f, parameters=parameters)
    old = by_values(*args)
    f.flat.store(theta)
    assert same_bits(parameters_to_vector(parameters), theta) and same_bits(f.flat.theta, theta)
    expected = by_values(*args)
    assert value == expected[0] and same_bits(gradient, expected[1])
    again = f.flat(before, *args)
    assert again[0] == old[0] and same_bits(again[1], old[1])


def differences(function, theta, step=1e-6):
    columns = []
    for k in range(len(theta)):
        ahead, behind = theta.copy(), theta.copy()
        ahead[k] += step
        behind[k] -= step
        columns.append((np.asarray(function(ahead)) - np.asarray(function(behind))) / (2.0 * step))
    return np.array(columns).T


def near(found, expected, tolerance=1e-6):
    return np.allclose(found, expected, rtol=tolerance, atol=tolerance * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("name", CASES)
def test_finite_differences(name):
    f, args = CASES[name]()
    f(*args)
    flat = f.flat
    theta = elsewhere(flat)
    value, gradient = flat(theta, *args)
    expected = differences(lambda x: flat.value(x, *args), theta)
    assert near(gradient, expected)
    assert not near(gradient * 1.001, expected)   # so little would be found
    p = RNG.normal(size=len(theta))
    products = differences(lambda x: flat.gradient(x, *args), theta)
    assert near(flat.hessp(theta, p, *args), products @ p)
    hessian = flat.hessian(theta, *args)
    assert hessian.shape == (len(theta), len(theta)) and near(hessian, products)
    assert not near(hessian * 1.001, products)
    assert np.allclose(hessian @ p, flat.hessp(theta, p, *args), rtol=1e-10, atol=1e-12)


def curve(n):
    a, b, c = Value(1.0), Value(0.7), Value(0.3)
    unused = Value(5.0)

    @flatgrad.compile
    def residuals(times, measured):
        return a * (-b * times).exp() + c - measured
    times = np.linspace(0.0, 3.0, n)
    return residuals, (times, 2.0 * np.exp(-0.5 * times) + 0.25), [c, unused, a, b]


@pytest.mark.parametrize("n", [2, 30])   # backward passes for residuals, or for parameters
def test_residuals(n):
    f, args, parameters = curve(n)
    for flat in f.flat, f.flat.of(parameters):
        f(*args)
        theta = elsewhere(flat)
        found, jac = flat.residuals(theta, *args), flat.jac(theta, *args)
        assert found.shape == (n,) and jac.shape == (n, len(theta))
        assert near(jac, differences(lambda x: flat.residuals(x, *args), theta))
        assert not near(1.001 * jac, differences(lambda x: flat.residuals(x, *args), theta))
        flat.store(theta)
        assert same_bits(found, f(*args).data)
    assert (f.flat.of(parameters).jac(np.ones(4), *args)[:, 1] == 0.0).all()
    by_columns, by_rows = flat.jac(theta, *args), []
    for k in range(n):
        one = flatgrad.compile(lambda times, measured: f.fn(times, measured)[k])
        by_rows.append(one.flat.of(parameters).gradient(theta, *args))
    assert np.allclose(by_columns, by_rows, rtol=1e-13, atol=1e-15)


def test_residuals_of_any_structure():
    w, x = Value(2.0), Value(3.0)
    f = flatgrad.compile(lambda k: {"a": [w * k, 7.0], "b": (np.array([1.0, 2.0]), Tensor([1.0, 2.0]) * x, None)})
    for k in range(2):
        flat = f.flat if k == 0 else pickle.loads(pickle.dumps(f.flat))
        assert flat.residuals([5.0, 6.0], 10.0).tolist() == [50.0, 7.0, 1.0, 2.0, 6.0, 12.0]
        assert flat.jac([5.0, 6.0], 10.0).tolist() == [[10, 0], [0, 0], [0, 0], [0, 0], [0, 1], [0, 2]]


def test_constants_are_read_at_each_call():
    w, frozen, scale = Value(2.0), Value(3.0), Tensor([1.0, 1.0], requires_grad=False)
    frozen.requires_grad = False
    f = flatgrad.compile(lambda x: w * frozen * x + scale.sum())
    assert f.flat([1.0], 2.0) == (8.0, np.array([6.0]))
    frozen.data, scale.data = 5.0, [1.0, 2.0]
    assert f.flat([1.0], 2.0) == (13.0, np.array([10.0]))
    loaded = pickle.loads(pickle.dumps(f.flat))
    frozen.data = 0.0
    assert loaded([1.0], 2.0) == (13.0, np.array([10.0]))   # as they were then


def test_buffers():
    norm, w = nn.BatchNorm(2), Value(0.5)
    norm.eval()
    f = flatgrad.compile(lambda x: (norm(x) * w).sum())
    x = RNG.normal(size=(3, 2))
    f(x)
    theta = f.flat.theta
    before = f.flat.value(theta, x)
    loaded = pickle.loads(pickle.dumps(f.flat))
    norm.running_mean[:] = 1.0
    assert f.flat.value(theta, x) == f(x).data != before
    assert loaded.value(theta, x) == before
    assert near(loaded(theta, x)[1], differences(lambda t: loaded.value(t, x), theta))


def test_single_precision_is_computed_in_double():
    w = Value(0.1)
    f = flatgrad.compile(lambda x: (w * x).sin(), dtype="float32")
    assert f.flat([0.1], 3.0)[0] == math.sin(0.1 * 3.0) != f(3.0).data


# ---- parameters ----

def test_the_order_is_that_of_the_model():
    random.seed(1)
    model = nn.Sequential(nn.Layer(2, 3, "tanh"), nn.LayerNorm(3), nn.Layer(3, 1, "linear"))
    f = flatgrad.compile(lambda x: model(x).sum())
    assert f(X).data == f.flat.value(parameters_to_vector(model.parameters()), X)
    assert same_bits(f.flat.theta, parameters_to_vector(model.parameters()))
    assert same_bits(f.flat(f.flat.theta, X)[1], value_and_grad(f, parameters=model.parameters())(X)[1])


def test_parameters_in_another_order():
    a, b, c, unused = Value(2.0), Tensor([3.0, 5.0]), Value(7.0), Value(11.0)
    f = flatgrad.compile(lambda x: a * x + b[1] * c * c + b[0])
    flat = f.flat.of([c, unused, b])
    assert flat.theta.tolist() == [7.0, 11.0, 3.0, 5.0] and flat.parameters == [c, unused, b]
    value, gradient = flat([1.0, 0.0, 10.0, 100.0], 1.0)
    assert value == 112.0 and gradient.tolist() == [200.0, 0.0, 1.0, 1.0]   # a is a constant
    assert flat.hessp([1.0, 0.0, 10.0, 100.0], [1.0, 1.0, 1.0, 2.0], 1.0).tolist() == [204.0, 0.0, 0.0, 2.0]
    assert flat.hessian([1.0, 0.0, 10.0, 100.0], 1.0).tolist() == [[200, 0, 0, 2], [0] * 4, [0] * 4, [2, 0, 0, 0]]
    loaded = pickle.loads(pickle.dumps(flat))
    assert loaded([1.0, 0.0, 10.0, 100.0], 1.0)[1].tolist() == [200.0, 0.0, 1.0, 1.0]
    assert loaded.theta.tolist() == flat.theta.tolist() and len(loaded.names) == 4
    a.data = 100.0
    assert flat([1.0, 0.0, 10.0, 100.0], 1.0)[0] == 210.0
    flat.store([1.0, 2.0, 3.0, 4.0])
    assert (c.data, unused.data, b.tolist()) == (1.0, 2.0, [3.0, 4.0])
    loaded.store([4.0, 3.0, 2.0, 1.0])
    assert loaded.theta.tolist() == [4.0, 3.0, 2.0, 1.0] and c.data == 1.0


def test_arguments_that_take_gradients():
    a, b = Value(2.0), Tensor([1.0, 2.0])
    f = flatgrad.compile(lambda x: a * x)
    for x in a, a * 2.0, Value(3.0):
        with pytest.raises(ArgumentTypeError, match=r"flat: <lambda>: x: .*got a Value .* takes a gradient.*x.data"):
            f.flat([2.0], x)
    g = flatgrad.compile(lambda *p, **q: a * flatgrad.sum(p[-1]["x"][0] if p else q["y"]))
    for call in lambda x: g.flat([2.0], 1.0, {"x": (x, 1.0)}), lambda x: g.flat.value([2.0], y=x):
        for x in b, b[:1], b * 2.0:
            with pytest.raises(ArgumentTypeError, match=r"flat: <lambda>: (p_1|y): expected numbers"):
                call(x)
        constant = Tensor([3.0, 4.0], requires_grad=False)
        assert repr(call(constant)) == repr(call(np.array([3.0, 4.0])))
    frozen = Value(3.0)
    frozen.requires_grad = False
    assert f.flat([2.0], frozen) == (6.0, np.array([3.0]))
    with pytest.raises(ArgumentTypeError, match="takes a gradient|evaluation"):
        flatgrad.grad(lambda x: f.flat([1.0], x)[0] * x)(2.0)
    with pytest.raises(ArgumentTypeError, match="takes a gradient|evaluation"):
        flatgrad.value_and_grad(f, parameters=[a])(f.flat([1.0], a)[0])


def test_parts_of_a_parameter():
    w = Tensor([1.0, 2.0, 3.0])
    f = flatgrad.compile(lambda x: (w * w).sum() * x)
    assert f.flat.of([w[2], w[:2]])([3.0, 1.0, 2.0], 1.0)[1].tolist() == [6.0, 2.0, 4.0]


def test_parameters_that_change():
    w, b = Value(2.0), Value(3.0)
    box = [w]
    f = flatgrad.compile(lambda x: box[0] * x + b)
    assert f(2.0).data == 7.0
    old = f.flat
    assert old.theta.tolist() == [2.0, 3.0] and f.flat is old
    b.requires_grad = False
    assert f.flat is not old and f.flat.theta.tolist() == [2.0]
    assert f.flat([5.0], 2.0) == (13.0, np.array([2.0]))
    b.requires_grad = True
    assert old([5.0, 1.0], 2.0)[0] == 11.0
    box[0] = Value(10.0)
    f(2.0)
    assert f.flat.theta.tolist() == [3.0, 10.0]
    for call in lambda: old([1.0, 1.0], 2.0), lambda: old.theta, lambda: old.store([1.0, 1.0]), lambda: old.names:
        with pytest.raises(ArgumentError, match=r"captures other parameters .* than before"):
            call()
    assert (w.data, b.data) == (2.0, 3.0)


@pytest.mark.parametrize("of", [False, True])
def test_parameters_that_are_frozen(of):
    w, b, t = Value(2.0), Value(3.0), Tensor([1.0, 2.0])
    f = flatgrad.compile(lambda x: w * x + b + t[0] * t[1] if isinstance(x, Value) else (w + b + t.sum()) * x[0])
    f(2.0)
    flat = f.flat.of([t, b, w]) if of else f.flat
    theta, p = flat.theta, [1.0] * 4
    calls = [lambda flat=flat, args=args: getattr(flat, name)(theta, *args) for flat in (flat, flat.lenient)
             for name, args in [("__call__", (2.0,)), ("__call__", ([2.0],)), ("value", (2.0,)), ("hessian", (2.0,)),
                                ("jac", (2.0,))]]
    calls += [lambda: flat.hessp(theta, p, 2.0), lambda: flat.store(p), lambda: flat.theta, lambda: pickle.dumps(flat)]
    for call in calls[:-2] if of else calls:
        call()
    flat.store(theta)
    for x in w, b, t[1], t:
        x.requires_grad = False
        for call in calls if x is not t or not of else calls[:5]:
            with pytest.raises(ArgumentError, match="captures other parameters .*than before|as they did before"):
                call()
        assert (w.data, b.data, t.tolist()) == (2.0, 3.0, [1.0, 2.0])
        x.requires_grad = True
        assert f.flat.theta.tolist() == f.flat.of([w, b, t]).theta.tolist()
        for call in calls:
            call()
        flat.store(theta)


def test_a_constant_that_becomes_a_parameter():
    w, c = Value(2.0), Value(3.0)
    c.requires_grad = False
    f = flatgrad.compile(lambda x: w * x + c)
    old = f.flat
    assert old([1.0], 2.0) == (5.0, np.array([2.0]))
    of = old.of([w])
    c.requires_grad = True
    with pytest.raises(ArgumentError, match="captures other parameters .*than before"):
        old([1.0], 2.0)
    assert of([1.0], 2.0) == (5.0, np.array([2.0])) and len(f.flat.theta) == 2


def test_a_program_for_each_structure():
    w = Tensor([1.0, 2.0])
    f = flatgrad.compile(lambda rows: sum((flatgrad.dot(w, row) for row in rows), Value(0.0)))
    for n in 3, 1, 3, 2:
        rows = RNG.normal(size=(n, 2)).tolist()
        value, gradient = f.flat([1.0, -1.0], rows)
        assert np.allclose(gradient, np.sum(rows, axis=0)) and math.isclose(value, sum(a - b for a, b in rows))
    loaded = pickle.loads(pickle.dumps(f.flat))
    assert np.allclose(loaded([1.0, -1.0], rows)[1], np.sum(rows, axis=0))
    assert np.allclose(loaded([1.0, -1.0], rows[:1])[1], rows[0])
    with pytest.raises(ArgumentError, match=r"expected arguments of a structure that it had been called with .* or .*got"):
        loaded([1.0, -1.0], [[1.0, 2.0]] * 7)


def test_branches_with_other_parameters():
    w, b = Value(1.0), Value(2.0)
    f = flatgrad.compile(lambda x, both: w * x + b if both else w * x, static_argnums=1)
    assert f.flat([3.0, 4.0], 1.0, True)[1].tolist() == [1.0, 1.0]
    assert f.flat([3.0, 4.0], 1.0, False)[1].tolist() == [1.0, 0.0]
    g = flatgrad.compile(f.fn, static_argnums=1)
    assert g.flat([3.0], 1.0, False)[1].tolist() == [1.0]
    with pytest.raises(ArgumentError, match=r"flat.of\(parameters\) says which there are"):
        g.flat([3.0], 1.0, True)


def test_a_method():
    class Model:
        def __init__(self, w):
            self.w = Value(w)

        @flatgrad.compile
        def loss(self, x):
            return (self.w * x - 1.0) ** 2

    for w in 2.0, 3.0:
        model = Model(w)
        model.loss(1.0)
        assert model.loss.flat.theta.tolist() == [w] and model.loss.flat([4.0], 1.0) == (9.0, np.array([6.0]))


# ---- what is taken ----

def test_vectors_of_all_kinds():
    w = Tensor([1.0, 2.0, 3.0])
    f = flatgrad.compile(lambda: (w * w).sum())
    theta = np.array([0.1, 0.25, -3.0])
    value, gradient = f.flat(theta)
    theta.flags.writeable = False
    backwards = np.array([-3.0, 0.25, 0.1])[::-1]
    spread = np.zeros(6)
    spread[::2] = theta
    for x in theta, theta.tolist(), tuple(theta), backwards, spread[::2], theta.astype(">f8"):
        assert f.flat(x)[0] == value and same_bits(f.flat(x)[1], gradient)
    assert np.allclose(f.flat(theta.astype(np.float32))[1], gradient, rtol=1e-6)
    assert f.flat(np.array([1, 2, 3]))[0] == 14.0 == f.flat([True, 2, 3])[0]
    assert math.isnan(f.flat([math.nan, 0.0, 0.0])[0]) and f.flat([math.inf, 0.0, 0.0])[0] == math.inf
    first, second = f.flat(theta)[1], f.flat(2.0 * theta)[1]
    assert same_bits(first, gradient) and same_bits(second, 2.0 * gradient)   # each call has an array of its own


w0, w1 = Value(1.0), Tensor([1.0, 2.0, 3.0])


def refused(f, *args, call="__call__"):
    return lambda: getattr(f.flat, call)(*args)


def of_several(*outputs):
    return flatgrad.compile(lambda x: [w0 * x, x * x])


def computed():
    doubled = 2.0 * w0
    return flatgrad.compile(lambda x: doubled * x)


def drawing():
    random_numbers = flatgrad.Random(0)
    return flatgrad.compile(lambda x: w0 * x * random_numbers.normal())


def plain():
    return flatgrad.compile(lambda x: w0 * x)


ERRORS = {
    "short": (lambda: plain().flat([], 1.0), ShapeError, r"theta: expected an array of shape \(1,\).* the shape \(0,\)"),
    "long": (lambda: plain().flat(np.zeros(2), 1.0), ShapeError, r"theta: .* got the shape \(2,\)"),
    "not turned": (lambda: plain().flat(np.zeros((4, 3)), 1.0), ShapeError, r"theta: .* got the shape \(4, 3\)"),
    "a matrix": (lambda: plain().flat(np.zeros((1, 1)), 1.0), ShapeError, r"theta: .* got the shape \(1, 1\)"),
    "a number": (lambda: plain().flat(1.0, 1.0), ShapeError, r"theta: .* got the shape \(\)"),
    "complex": (lambda: plain().flat(np.zeros(1, complex), 1.0), TypeError, "theta: expected real numbers"),
    "text": (lambda: plain().flat("x", 1.0), TypeError, "theta: expected an array of 1 numbers, got str 'x'"),
    "None": (lambda: plain().flat(None, 1.0), ArgumentTypeError, "theta: expected an array of 1 numbers, got None"),
    "Values": (lambda: plain().flat([w0], 1.0), ArgumentTypeError, r"theta: expected an array of 1 numbers, got list"),
    "a Value": (lambda: plain().flat(w0, 1.0), ArgumentTypeError, "theta: .* write theta.data"),
    "a Tensor": (lambda: plain().flat(Tensor([1.0]), 1.0), ArgumentTypeError, "theta: .* write theta.data"),
    "no arguments": (lambda: plain().flat([1.0]), TypeError, "missing 1 required positional argument"),
    "an argument": (lambda: plain().flat([1.0], object()), TypeError, "object"),
    "p is long": (lambda: plain().flat.hessp([1.0], [1.0, 2.0], 1.0), ShapeError, r"p: .* got the shape \(2,\)"),
    "p is text": (lambda: plain().flat.hessp([1.0], ["x"], 1.0), ArgumentTypeError, r"p: expected .* got \['x'\]"),
    "several": (lambda: of_several().flat([1.0], 1.0), ArgumentError, "expected a function that returns one number, "
                "the loss; <lambda> does not. flat.residuals and flat.jac"),
    "their Hessian": (lambda: of_several().flat.hessian([1.0], 1.0), ArgumentError, "one number, the loss"),
    "a constant": (lambda: flatgrad.compile(lambda x: 1.0).flat([1.0], 1.0), ArgumentError, "returns a constant"),
    "text as well": (lambda: flatgrad.compile(lambda x: [w0 * x, "a"]).flat.jac([1.0], 1.0), ArgumentError,
                     "numbers, Values and Tensors; <lambda> returns 'a' as well"),
    "nothing captured": (lambda: flatgrad.compile(lambda x: x * x).flat([1.0], 1.0), ArgumentError,
                         "has captured no number that takes a gradient.*value_and_grad is for gradients by arguments"),
    "draws": (lambda: drawing().flat([1.0], 1.0), ArgumentError, "draws random numbers.*give it these as an argument"),
    "computed": (lambda: computed().flat([1.0], 1.0), ArgumentError, "has captured the result of an operation, Value.*"
                 "would be lost. Compute it within the function"),
    "no program": (lambda: plain().flat.theta, ArgumentError, "has no program yet: call it once$"),
    "its pickle": (lambda: pickle.dumps(plain().flat), ArgumentError, "has no program yet: call it once"),
    "of nothing": (lambda: plain().flat.of([]), ArgumentError, "parameters: expected at least one"),
    "of a number": (lambda: plain().flat.of([1.0]), ArgumentTypeError, r"parameters\[0\]: expected .* Tensor, got 1.0"),
    "of no list": (lambda: plain().flat.of(3), ArgumentTypeError, "parameters: expected an iterable .* got 3"),
    "of others": (lambda: plain().flat.of([w1])([1.0, 2.0, 3.0], 1.0), ArgumentError, "captures none of these"),
    "of one twice": (lambda: plain().flat.of([w0, w0]), ArgumentError, r"parameters\[1\]: expected each .* once"),
    "of a part again": (lambda: plain().flat.of([w1, w1[0]]), ArgumentError, r"parameters\[1\]: expected each .* once"),
    "of the whole again": (lambda: plain().flat.of([w1[0], w1]), ArgumentError, r"parameters\[1\]: expected .* once"),
    "of overlapping slices": (lambda: plain().flat.of([w0, w1[:2], w1[1:]]), ArgumentError, r"rs\[2\]: .* once"),
    "of a result": (lambda: plain().flat.of([w0 * 2.0]), ArgumentError, r"parameters\[0\]: expected a leaf"),
    "of a constant": (lambda: plain().flat.of([Tensor([1.0], requires_grad=False)]), ArgumentError,
                      r"parameters\[0\]: .* leaf"),
    "log(-1)": (lambda: flatgrad.compile(lambda: w0.log()).flat([-1.0]), ValueError, r"log"),
    "store": (lambda: plain().flat.of([w0]).store([1.0, 2.0]), ShapeError, r"theta: .* got the shape \(2,\)"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    run, kind, text = ERRORS[name]
    before = w0.data
    with pytest.raises(kind, match=text):
        run()
    assert w0.data == before


@pytest.mark.parametrize("what", ["flat", "to_c", "to_jax", "to_torch"])
def test_functions_that_are_checked(what):
    if what in ("to_jax", "to_torch"):
        pytest.importorskip(what[3:])
    f = flatgrad.compile(lambda x: w0 * x, check=True)
    f(1.0)
    with pytest.raises(ArgumentError, match=fr"{what}: .*check=False.* got <lambda> with check=True"):
        f.flat if what == "flat" else getattr(f, what)(*[(1.0,)] * (what != "to_c"))


def test_an_argument_that_contains_itself():
    endless = []
    endless.append(endless)
    f = plain()
    with pytest.raises(ArgumentError, match="contains itself"):
        f.flat([1.0], endless)


def test_while_something_is_recorded():
    f = plain()
    f(1.0)
    flat = f.flat

    @flatgrad.compile
    def around(x):
        return x * flat([1.0], 2.0)[0]
    with pytest.raises(ArgumentTypeError, match="evaluation"):
        around(1.0)


def test_nan_and_inf_in_place_of_errors():
    w = Value(2.0)
    f = flatgrad.compile(lambda x: (w * x).log() + flatgrad.scan(lambda s, _: (s * s * 10.0, None), w, length=9)[0])
    f(1.0)
    for flat in f.flat, f.flat.of([w]), pickle.loads(pickle.dumps(f.flat)), pickle.loads(pickle.dumps(f.flat.lenient)):
        free = flat.lenient
        assert free.lenient is free is flat.lenient and free.theta.tolist() == [2.0]
        assert math.isnan(free([-1.0], 1.0)[0]) and free.value([1e9], 1.0) == math.inf
        assert math.isnan(free.residuals([-1.0], 1.0)[0]) and not np.isfinite(free.hessp([-1.0], [1.0], 1.0))
        assert free([0.1], 1.0) == f.flat([0.1], 1.0)
        assert pickle.loads(pickle.dumps(free)).value([1e9], 1.0) == math.inf
        if flat is not free:
            with pytest.raises(ValueError, match=r"log\(-1.0\)"):
                flat([-1.0], 1.0)


# ---- pickles ----

CHILD = """if True:
    import pickle, sys
    cases = pickle.load(sys.stdin.buffer)
    assert "test_export_flat" not in sys.modules and "__main__" in sys.modules
    found = []
    for flat, theta, p, args in cases:
        flat = pickle.loads(flat)
        value, gradient = flat(theta, *args)
        found.append((value, gradient, flat.hessp(theta, p, *args), flat.theta, flat.names, repr(flat)))
    sys.stdout.buffer.write(pickle.dumps(found))
"""


def test_another_process_computes_the_same_bits():
    """Of functions that are lambdas, or within functions, of a module that it does not have."""
    cases, expected = [], []
    for protocol, (name, make) in enumerate(CASES.items()):
        f, args = make()
        f(*args)
        flat = f.flat
        theta, p = elsewhere(flat), RNG.normal(size=len(flat.theta))
        value, gradient = flat(theta, *args)
        expected.append((value, gradient, flat.hessp(theta, p, *args), flat.theta, flat.names, repr(flat)))
        cases.append((pickle.dumps(flat, min(protocol, pickle.HIGHEST_PROTOCOL)), theta, p, args))
    done = subprocess.run([sys.executable, "-c", CHILD], input=pickle.dumps(cases), stdout=subprocess.PIPE, check=True)
    for (*found, names, shown), (*wanted, names_0, shown_0) in zip(pickle.loads(done.stdout), expected, strict=True):
        assert all(map(same_bits, found, wanted))
        assert names == names_0 and shown == shown_0


def test_pickles_are_small_and_have_no_data():
    random.seed(0)
    model = nn.MLP(2, [16, 16, 1], activation="tanh")
    f = flatgrad.compile(lambda X, y: ((model(X).reshape(len(y)) - y) ** 2).mean())
    X, y = make_moons(100, noise=0.1, random_state=1)
    f(X, y).backward()
    f.flat(f.flat.theta, X, y)
    saved = pickle.dumps(f.flat)
    assert len(f.flat.theta) == 337 and len(saved) < 20_000
    body = pickle.dumps(module.pickle.loads(module.zlib.decompress(f.flat.__reduce__()[1][-1][0][2])))
    assert X[0, 0].tobytes() not in body and X[0, 0].tobytes() in X.tobytes()
    again = pickle.dumps(pickle.loads(saved))
    assert len(again) < 20_000 and pickle.loads(again)(f.flat.theta, X, y)[0] == f.flat.value(f.flat.theta, X, y)


def test_a_pickle_is_loaded_many_times():
    f, args = moons()
    f(*args)
    saved = pickle.dumps(f.flat)
    first, second = pickle.loads(saved), pickle.loads(saved)
    assert len(module.loaded_plans) == 1 and list(first.plans.values()) == list(second.plans.values())
    first.store(np.zeros(len(first.theta)))
    assert (first.theta == 0.0).all() and same_bits(second.theta, f.flat.theta)
    for k in range(40):
        w, c = Value(1.0), Value(float(k))
        c.requires_grad = False
        g = flatgrad.compile(lambda x: w * x + c)
        g(0.0)
        assert pickle.loads(pickle.dumps(g.flat)).value([0.0], 1.0) == k
    assert len(module.loaded_plans) == module.MOST_PLANS


def test_what_is_nowhere_else_is_no_part_of_a_pickle():
    w = Value(2.0)
    f = flatgrad.compile(lambda x, how: how(w * x), static_argnums=1)
    assert f.flat([3.0], 0.5, flatgrad.sin) == (math.sin(1.5), np.array([0.5 * math.cos(1.5)]))
    with pytest.raises(ArgumentError, match="static argument .*sin.* cannot be pickled"):
        pickle.dumps(f.flat)


def test_pickles_have_all_that_was_called():
    w, b = Value(2.0), Value(3.0)
    f = flatgrad.compile(lambda *xs: w * sum(xs) + (b if len(xs) != 3 else 0.0))
    for n in 1, 2, 3:
        f.flat([1.0, 1.0], *range(1, n + 1))
    for flat in f.flat, f.flat.of([b, w]), f.flat.lenient, f.flat.of([w, b]).lenient:
        loaded = pickle.loads(pickle.dumps(flat))
        for n in 1, 2, 3:
            args = [1.0] * n
            assert loaded.value([1.0, 1.0], *args) == flat.value([1.0, 1.0], *args) == (n + 1 if n != 3 else n)
    loaded = pickle.loads(pickle.dumps(f.flat.of([b])))   # which the last program does not have
    assert loaded([10.0], 1.0, 1.0) == (14.0, np.array([1.0]))
    g = flatgrad.compile(f.fn)
    g(1.0)
    assert pickle.loads(pickle.dumps(g.flat.lenient))([1.0, 1.0], 1.0)[0] == 2.0


def test_parameters_of_what_was_loaded():
    w, b = Value(2.0), Value(3.0)
    f = flatgrad.compile(lambda x: w * x + b)
    f(1.0)
    loaded = pickle.loads(pickle.dumps(f.flat))
    for parameters in [w], loaded.parameters, loaded.parameters[0][:1], [1.0]:
        with pytest.raises(ArgumentError, match=r"<lambda> was loaded.*pickle flat.of\(parameters\) itself"):
            loaded.of(parameters)
    value, gradient = pickle.loads(pickle.dumps(f.flat.of([b, w])))([1.0, 5.0], 2.0)
    assert value == 11.0 and gradient.tolist() == [1.0, 2.0]


class Line:
    def __init__(self):
        self.w = Value(2.0)

    @flatgrad.compile
    def loss(self, x):
        return self.w * x

    def __call__(self, x):
        return self.w * x


@pytest.mark.parametrize("of", [False, True])
def test_copies(of):
    model = Line()
    by_lambda, by_object = flatgrad.compile(lambda x: model.w * x), flatgrad.compile(model)
    for f, own in (model.loss, True), (by_object, True), (by_lambda, False):
        flat = f.flat.of([model.w]) if of else f.flat
        assert flat([3.0], 1.0)[0] == 3.0
        assert copy.copy(flat) is flat
        twin = copy.deepcopy(flat)
        assert twin([3.0], 1.0) == (3.0, np.array([1.0])) and twin.lenient([3.0], 1.0)[0] == 3.0
        assert (twin.parameters[0] is model.w) == (not own) and twin.theta.tolist() == [2.0]
        twin.store([5.0])
        assert model.w.data == (2.0 if own else 5.0)
        model.w.data = 2.0
    loaded = pickle.loads(pickle.dumps(flat))
    twin = copy.deepcopy(loaded)
    twin.store([7.0])
    assert copy.copy(loaded) is loaded and loaded.theta.tolist() == [2.0] and twin.theta.tolist() == [7.0]
    model.flat = model.loss.flat
    both = copy.deepcopy(model)
    assert both.flat([1.0], 1.0)[0] == 1.0 and both.flat.parameters[0] is both.w


def test_keywords():
    w = Value(2.0)
    f = flatgrad.compile(lambda x, *, scale=1.0, kind="a": w * x * scale, static_argnames="kind")
    for flat in f.flat, None:
        flat = flat or pickle.loads(pickle.dumps(f.flat))
        assert flat([3.0], 2.0, scale=5.0, kind="b") == (30.0, np.array([10.0]))
        assert flat.value([3.0], 2.0, scale=5.0, kind="b") == 30.0


def test_arguments_of_any_name():
    w = Value(2.0)
    f = flatgrad.compile(lambda *, self, theta, p: (w * self + theta) * w * p)
    names = {"self": 2.0, "theta": 3.0, "p": 4.0}
    assert f.flat([3.0], **names) == (108.0, np.array([60.0]))
    for name in "value", "gradient", "hessian", "residuals", "jac":
        getattr(f.flat, name)([3.0], **names)
    assert f.flat.hessp([3.0], [1.0], **names).tolist() == [16.0]


# ---- threads and processes ----

def test_several_threads():
    f, args = moons()
    g, g_args = swing()
    f(*args), g(*g_args)
    flat, other = f.flat, g.flat
    points = [elsewhere(flat, k) for k in range(8)]
    others = [elsewhere(other, k) for k in range(8)]
    expected = [(flat(a, *args), flat.hessp(a, a, *args), other(b, *g_args)) for a, b in zip(points, others)]
    wrong = []

    def work(seed):
        order = random.Random(seed)
        try:
            for _ in range(150):
                k = order.randrange(8)
                (value, gradient), product, (other_value, other_gradient) = expected[k]
                found = flat(points[k], *args)
                assert found[0] == value and same_bits(found[1], gradient)
                assert same_bits(flat.hessp(points[k], points[k], *args), product)
                found = other(others[k], *g_args)
                assert found[0] == other_value and same_bits(found[1], other_gradient)
                Value(1.0) * 2.0   # the tape is at work meanwhile
        except BaseException as error:
            wrong.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            f.flat.store(flat.theta)
            flatgrad.collect()
            time.sleep(0.002)
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []


def long_one():
    speed = Value(0.5)
    f = flatgrad.compile(lambda x: flatgrad.scan(lambda s, _: (s.sin() + speed, None), x, length=1_000_000)[0])
    f.flat([0.5], 1.0)
    return f.flat


def test_other_threads_run_meanwhile():
    flat = long_one()
    started, finished, wakes = threading.Event(), threading.Event(), 0

    def work():
        started.set()
        flat([0.5], 1.0)
        finished.set()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    while not finished.is_set():
        time.sleep(0.002)
        wakes += 1
    thread.join()
    assert wakes >= 4


def parts():
    """The samples in two halves."""
    return [(X[:20], y[:20]), (X[20:], y[20:])]


def halves():
    f, _ = moons()
    f(*parts()[0])
    theta = elsewhere(f.flat)
    return f.flat, theta, [f.flat(theta, *part) for part in parts()]


def equal(found, expected):
    return all(a[0] == b[0] and same_bits(a[1], b[1]) for a, b in zip(found, expected)) and len(found) == len(expected)


def test_multiprocessing():
    flat, theta, expected = halves()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert equal(pool.starmap(flat, [(theta, *part) for part in parts()]), expected)
        pool.close()
        pool.join()


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_joblib(backend):
    joblib = pytest.importorskip("joblib")
    flat, theta, expected = halves()
    with joblib.parallel_config(backend, n_jobs=2):
        assert equal(joblib.Parallel()(joblib.delayed(flat)(theta, *part) for part in parts()), expected)


def test_dask():
    dask = pytest.importorskip("dask")
    flat, theta, expected = halves()
    tasks = [dask.delayed(flat)(theta, *part) for part in parts()]
    assert equal(dask.compute(*tasks, scheduler="threads"), expected)
    assert equal(dask.compute(*tasks, scheduler="processes", num_workers=1), expected)


def test_cloudpickle():
    cloudpickle = pytest.importorskip("cloudpickle")
    flat, theta, expected = halves()
    loaded = pickle.loads(cloudpickle.dumps(lambda *args: flat(theta, *args)))
    assert equal([loaded(*part) for part in parts()], expected)


# ---- SciPy ----

def test_scipy_minimize():
    optimize = pytest.importorskip("scipy.optimize")
    f, args = scalars()
    f(*args)
    flat = f.flat
    found = optimize.minimize(flat, flat.theta, args=args, jac=True, method="L-BFGS-B", tol=1e-12)
    newton = optimize.minimize(flat, flat.theta, args=args, jac=True, method="trust-ncg", hessp=flat.hessp)
    exact = optimize.minimize(flat, flat.theta, args=args, jac=True, method="trust-exact", hess=flat.hessian)
    assert found.success and newton.success and exact.success and newton.nit < found.nfev
    for x in found.x, newton.x, exact.x:
        assert np.abs(flat.gradient(x, *args)).max() < 1e-4
        assert math.isclose(flat.value(x, *args), exact.fun, rel_tol=1e-6)
    assert flat.theta.tolist() == [0.3, -0.7, 1.1, 0.2]


def test_scipy_least_squares():
    optimize = pytest.importorskip("scipy.optimize")
    f, args, _ = curve(30)
    f(*args)
    found = optimize.least_squares(f.flat.residuals, f.flat.theta, jac=f.flat.jac, args=args, xtol=1e-15)
    assert np.allclose(found.x, [2.0, 0.5, 0.25], rtol=1e-8)
    found = optimize.least_squares(f.flat.residuals, f.flat.theta, jac=f.flat.jac, args=args, method="lm")
    assert np.allclose(found.x, [2.0, 0.5, 0.25], rtol=1e-6)


def test_a_damaged_pickle():
    """Of what zlib has written; all else is as in the pickles of Values."""
    f, args = moons()
    f(*args)
    restore, given = f.flat.__reduce__()
    *before, text, packed = given
    lenient, structure, body, *rest = packed[0]
    for wrong in body[:-4], b"", body[:20] + bytes([body[20] ^ 255]) + body[21:]:
        with pytest.raises(StateError, match="a saved flat function is damaged: Error -"):
            restore(*before, text, [(lenient, structure, wrong, *rest)])
    with pytest.raises(StateError, match="a saved flat function is damaged"):
        restore(*before, text[:-4], packed).names
