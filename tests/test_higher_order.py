"""Derivatives of any order: transforms within transforms and within recordings, hessian, hvp, jvp, vjp, jacfwd,
stop_gradient, gradgradcheck.

Oracles: derivatives by hand, finite differences of the next lower order, NumPy, and a sweep in Python that writes nodes
(written_by_hand). What must not happen is tested as much: a derivative by the wrong variable, and one that is lost in
silence.
"""
import collections
import gc
import math
import random
import threading

import numpy as np
import pytest
import written_by_hand

import flatgrad
from flatgrad import (Tensor, Value, _core, functional, grad, gradcheck, gradgradcheck, hessian, hvp, jacfwd, jacobian,
                      jacrev, jvp, nn, no_grad, optim, stop_gradient, value_and_grad, vjp, vmap)
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, GradcheckError, ShapeError

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


@pytest.fixture(autouse=True)
def no_trace_left():
    yield
    assert functional.running.get() == ()


def cube(x):
    return x**3


def rosenbrock(x):
    return sum([100.0 * (x[i + 1] - x[i] ** 2) ** 2 + (1.0 - x[i]) ** 2 for i in range(len(x) - 1)])


def rosenbrock_hessian(x):
    h = np.zeros((len(x), len(x)))
    for i in range(len(x) - 1):
        h[i, i] += 1200.0 * x[i] ** 2 - 400.0 * x[i + 1] + 2.0
        h[i + 1, i + 1] += 200.0
        h[i, i + 1] = h[i + 1, i] = -400.0 * x[i]
    return h


POINT = [1.0, 2.0, 0.5, -1.25]


# ---- which variable a derivative is by ----

def test_perturbations_are_not_confused(moving):
    assert grad(lambda x: x * grad(lambda y: x + y)(1.0))(1.0) == 1.0   # Siskind and Pearlmutter's
    assert grad(lambda x: x * grad(lambda y: x * y)(2.0))(3.0) == 6.0
    assert grad(lambda x: grad(lambda y: x * y)(x) * x)(3.0) == 6.0
    assert grad(lambda x: x * grad(lambda x: x * x)(x))(3.0) == 12.0    # the same name
    assert grad(lambda x: x * grad(lambda y: x)(x))(3.0) == 0.0

    def d(f):   # the closure that another derivative is taken of
        return lambda x: grad(f)(x)

    assert grad(lambda x: d(lambda y: d(lambda z: x * y * z)(y))(x))(2.0) == 1.0
    # A closure that is returned keeps the variable of its own call.
    outer = []
    grad(lambda x: outer.append(lambda y: x * y) or x)(3.0)
    assert grad(outer[0])(5.0) == 3.0 and grad(grad(outer[0]))(5.0) == 0.0
    shift = grad(lambda s: grad(lambda x: (x + s) ** 3)(0.0))
    assert shift(2.0) == 12.0                                          # Manzyuk's: d/ds of f'(s)


def test_a_shared_value_of_many_levels(moving):
    def f(a):
        return grad(lambda b: grad(lambda c: grad(lambda d: a * b**2 * c**3 * d**4)(a))(b))(c_of(a)) * a

    def c_of(a):
        return a * 2.0

    # d: 4 a b^2 c^3 a^3; c at b: 12 a^4 b^2 c^2 -> 12 a^4 b^4 as a function of b only through its own uses:
    # the middle transform is by b, of 12 a^4 b^2 b^2, so 48 a^4 b^3 at b = 2 a: 384 a^7; times a.
    assert f(1.5) == pytest.approx(384 * 1.5**8, rel=1e-13)
    assert grad(f)(1.5) == pytest.approx(8 * 384 * 1.5**7, rel=1e-13)


@pytest.mark.parametrize("order", range(1, 8))
def test_any_depth(order, moving):
    f, g = (lambda x: x**7), (lambda x: x.sin() if isinstance(x, Value) else math.sin(x))
    for _ in range(order):
        f, g = grad(f), grad(g)
    assert f(1.25) == pytest.approx(math.factorial(7) / math.factorial(7 - order) * 1.25 ** (7 - order), rel=1e-13)
    assert g(0.4) == pytest.approx(math.sin(0.4 + order * math.pi / 2), rel=1e-13)
    assert type(f(1.25)) is float


def test_each_order_against_differences_of_the_one_below():
    def f(x):
        return (x * x.tanh() + 0.5).tanh() / (x * x + 1.0)

    for order in range(5):
        below, f = f, grad(f)
        h = 1e-5
        if order > 0:
            assert f(0.3) == pytest.approx((below(0.3 + h) - below(0.3 - h)) / (2 * h), rel=1e-7)
        assert gradcheck(f, 0.3, rtol=1e-6)


# ---- numbers or nodes ----

def test_numbers_at_the_outermost_call_and_nodes_within(moving):
    seen = []

    def inner(x):
        seen.append(grad(cube)(x))
        return seen[-1]

    assert type(grad(inner)(2.0)) is float and type(seen.pop()) is Value
    array = grad(lambda t: seen.append(grad(lambda u: (u * u).sum())(t)) or seen[-1].sum())(np.ones((2, 3)))
    assert array.tolist() == [[2.0] * 3] * 2 and type(seen[0]) is Tensor and seen.pop().shape == (2, 3)
    tree = {"a": [1.0, np.ones(2)], "b": (Value(2.0), np.array(3.0))}

    def total(p):
        return p["a"][0] ** 2 * p["a"][1].sum() * p["b"][0] ** 2 + p["b"][1]

    grad(lambda p: seen.append(grad(total)(p)) or total(seen[-1]))(tree)
    found = seen.pop()
    assert list(found) == ["a", "b"] and [type(x) for x in (*found["a"], *found["b"])] == [Value, Tensor, Value, Value]
    assert type(found["b"]) is tuple and found["b"][1].data == 1.0   # a constant, but a node like the others
    assert type(grad(cube)(Value(2.0))) is float                     # a leaf counts as its number


def test_an_argument_that_is_computed_gives_nodes(moving):
    w = Value(3.0)
    value, slope = value_and_grad(cube)(w * 2.0)
    assert (value.data, slope.data) == (216.0, 108.0)
    (value + slope).backward()
    assert w.grad == 2 * 108.0 + 72.0
    t = Tensor([1.0, 2.0])
    for make in (lambda t: t * t, lambda t: (t * t).reshape(2, 1).T.reshape(2)):
        gradient = grad(lambda u: (u * u * u).sum())(make(t))
        assert isinstance(gradient, Tensor) and gradient.tolist() == [3.0, 48.0]
        t.grad = 0.0
        gradient.sum().backward()
        assert t.grad.tolist() == [12.0, 96.0]   # of 3 t^4
    # All Values are linked where one is: the leaf w as well, by which the result would else have no gradient.
    w.grad = 0.0
    first, second = grad(lambda p: p[0] ** 2 * p[1])([w, w * 1.0])
    (first + second).backward()
    assert w.grad == 4 * 3.0 + 2 * 3.0
    j = jacobian(lambda p: [p[0] * p[1], p[0] ** 2])([w * 1.0, 2.0])
    assert isinstance(j, Tensor) and j.tolist() == [[2.0, 3.0], [6.0, 0.0]]
    with no_grad():
        assert grad(cube)(w) == 27.0 and type(grad(cube)(w * 2.0)) is float
    assert isinstance(grad(lambda x, y: x * y)(2.0, w * 2.0), float)   # not one that it differentiates by


def test_results_that_do_not_depend_on_the_outer_variable_are_numbers():
    seen = []

    def f(x):
        seen.append(grad(cube)(2.0))
        seen.append(jacobian(lambda t: t * t)(np.ones(2)))
        seen.append(hessian(cube)(Value(2.0)))
        seen.append(vjp(cube, 2.0)[1](1.0))
        seen.append(jvp(cube, (2.0,), (1.0,)))
        return x

    assert grad(f)(1.0) == 1.0
    assert [type(seen[0]), type(seen[1]), type(seen[2])] == [float, np.ndarray, float]
    assert seen[3:] == [(12.0,), (8.0, 12.0)]


def test_in_another_thread():
    results = []

    def f(x):
        thread = threading.Thread(target=lambda: results.append((grad(grad(cube))(2.0), hessian(cube)(2.0))))
        thread.start()
        thread.join()
        return grad(cube)(x) * x

    assert grad(f)(1.0) == 9.0 and results == [(12.0, 12.0)] and type(results[0][0]) is float


def test_no_grad_within_makes_constants():
    def f(x):
        with no_grad():
            slopes = grad(cube)(x), grad(lambda y: x * y)(2.0), hessian(cube)(x), hvp(cube, x, x), jvp(cube, (x,), (x,))
            _, pull = vjp(cube, x)
            slopes += (pull(1.0)[0],)
        assert [type(s) for s in slopes] == [float, float, float, float, tuple, float]
        assert slopes == (12.0, 2.0, 12.0, 24.0, (8.0, 24.0), 12.0)
        return x * slopes[0]

    assert grad(f)(2.0) == 12.0
    with no_grad():
        assert grad(f)(2.0) == 12.0 and grad(grad(grad(cube)))(2.0) == 6.0
        assert hvp(cube, 2.0, 1.0) == 12.0 and jvp(lambda x: (x, x * x), (3.0,), (1.0,)) == ((3.0, 9.0), (1.0, 6.0))
        assert vjp(lambda x: (x, x * x), 3.0)[1]((1.0, 2.0)) == (13.0,)
        assert hessian(rosenbrock)(np.array(POINT)).tolist() == rosenbrock_hessian(POINT).tolist()


def test_backward_and_leaks_within():
    def swept(x):
        y = x**3
        y.backward()
        return x * x.grad

    for f in (swept, grad(swept), hessian(swept), lambda x: grad(swept)(x) * x):
        with pytest.raises(ArgumentTypeError, match=r"f has called backward\(\).*flatgrad.grad or flatgrad.gradients"):
            grad(f)(2.0)
    for take in (lambda x: hvp(swept, x, 1.0), lambda x: jvp(swept, (x,), (1.0,)), lambda x: vjp(swept, x)):
        with pytest.raises(ArgumentTypeError, match=r"f has called backward\(\)"):
            take(2.0)
    def kept(x):
        y = x**3
        y.backward(create_graph=True)
        return x.grad * x

    assert grad(kept)(2.0) == 36.0 and hessian(kept)(2.0) == 36.0   # of 3 x**3
    with pytest.raises(ArgumentTypeError, match=r"backward\(\): create_graph=True within a transform of a transform"):
        grad(grad(kept))(2.0)

    def taken(x, create_graph):
        slope, = flatgrad.gradients(x**3, x, create_graph=create_graph)
        return slope * x

    assert grad(taken)(2.0, True) == 36.0 and grad(grad(taken))(2.0, True) == 36.0
    for f in (grad(taken), grad(grad(taken)), hessian(taken)):
        with pytest.raises(ArgumentTypeError, match="gradients: outputs depend on what a transform around this call"):
            f(2.0, False)
    w = Value(3.0)
    assert grad(lambda x: x * flatgrad.gradients(w**2, w)[0])(2.0) == 6.0
    for number in (float, math.sin, lambda x: math.sin(x * 2.0)):   # a constant of the outer or the inner transform
        with pytest.raises(ArgumentTypeError, match="of a Value that a transform"):
            grad(lambda x: grad(lambda y: x * y * number(y))(2.0))(1.0)
        with pytest.raises(ArgumentTypeError, match="of a Value that a transform"):
            grad(lambda x: grad(lambda y: y * number(x))(2.0) * x)(1.0)
        with pytest.raises(ArgumentTypeError, match="of a Value that a transform"):
            grad(lambda x: number(grad(cube)(x)) * x)(1.0)


# ---- hessian ----

def test_hessian_by_hand(moving):
    for x in (POINT, tuple(POINT), np.array(POINT), Tensor(POINT), [Value(number) for number in POINT]):
        found = hessian(rosenbrock)(x)
        assert isinstance(found, np.ndarray) and found.dtype == np.float64
        assert np.allclose(found, rosenbrock_hessian(POINT), rtol=1e-14, atol=1e-13)
        assert np.allclose(found, jacobian(grad(rosenbrock))(x), rtol=1e-14, atol=1e-13)
    assert hessian(cube)(2.0) == 12.0 and type(hessian(cube)(2)) is float
    zero = hessian(cube)(np.array(2.0))
    assert isinstance(zero, np.ndarray) and zero.shape == () and zero == 12.0
    a = np.arange(6.0).reshape(2, 3)
    found = hessian(lambda x: (x * x).sum() * x[0, 1])(a)
    expected = np.zeros((2, 3, 2, 3))
    for i, j in np.ndindex(2, 3):
        expected[i, j, i, j] += 2 * a[0, 1]
        expected[i, j, 0, 1] += 2 * a[i, j]
        expected[0, 1, i, j] += 2 * a[i, j]
    assert np.allclose(found, expected, rtol=1e-14)
    assert hessian(lambda x: 3.0)(2.0) == 0.0 and hessian(lambda x: x * 2.0)(2.0) == 0.0
    assert hessian(lambda x: x.sum())(a).shape == (2, 3, 2, 3) and not hessian(lambda x: x.sum())(a).any()
    assert hessian(lambda x: (x * x).reshape(1, 1))(np.ones(1)).tolist() == [[2.0]]
    assert hessian(lambda x: 1.0)([]).shape == (0, 0)


Point = collections.namedtuple("Point", "x y")


def test_the_structure_of_a_hessian():
    def f(p):
        return p["w"].sum() ** 2 * p["b"][0] * p["b"][1] ** 2

    found = hessian(f)({"w": np.ones((2, 2)), "b": [2.0, Value(3.0)]})
    assert list(found) == ["w", "b"] and list(found["w"]) == ["w", "b"]
    assert found["w"]["w"].shape == (2, 2, 2, 2) and (found["w"]["w"] == 36.0).all()
    assert [part.tolist() for part in found["w"]["b"]] == [[[72.0, 72.0]] * 2, [[96.0, 96.0]] * 2]
    assert [part["b"] for part in found["b"]] == [[0.0, 96.0], [96.0, 64.0]]
    assert [part["w"].shape for part in found["b"]] == [(2, 2)] * 2
    found = hessian(lambda p: p.x**2 * p.y)(Point(1.0, 3.0))
    assert found == Point(Point(6.0, 2.0), Point(2.0, 0.0)) and type(found.x) is Point
    found = hessian(lambda x, y: x**2 * y[0] * y[1], argnums=(1, 0))(1.0, [3.0, 4.0])
    assert found == ([([0.0, 1.0], 8.0), ([1.0, 0.0], 6.0)], ([8.0, 6.0], 24.0))
    assert hessian(lambda x, y: x**2 * y[0] * y[1], argnums=1)(1.0, [3.0, 4.0]).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert hessian(cube, argnums=(0,))(2.0) == ((12.0,),)
    found = hessian(lambda x: x[0] ** 2 * x[1][0])([2.0, [3.0, 4.0]])   # of no shape: JAX's nested lists
    assert found == [[6.0, [4.0, 0.0]], [[4.0, [0.0, 0.0]], [0.0, [0.0, 0.0]]]]
    assert hessian(lambda x: x[0][0] * x[1][1])([[1.0, 2.0], [3.0, 4.0]]).shape == (2, 2, 2, 2)


def test_hessian_by_parameters(moving):
    w, t = Value(2.0), Tensor([1.0, 3.0])
    w.grad, t.grad = 5.0, 7.0
    found = hessian(lambda x: w**2 * (t * t).sum() * x, parameters=[w, t])(2.0)
    assert found.tolist() == [[40.0, 16.0, 48.0], [16.0, 16.0, 0.0], [48.0, 0.0, 16.0]]
    assert w.grad == 5.0 and t.grad.tolist() == [7.0, 7.0]
    assert hessian(lambda: w * 3.0, parameters=[w, t])().tolist() == [[0.0] * 3] * 3
    outer = grad(lambda x: hessian(lambda: w**3 * x * t[0], parameters=[w, t])().sum())
    assert outer(2.0) == 6 * 2.0 + 2 * 3 * 4.0
    with pytest.raises(ArgumentError, match="hessian: expected one of argnums and parameters"):
        hessian(lambda: w, 1, parameters=[w])
    with pytest.raises(ArgumentTypeError, match="hessian: parameters: expected a list"):
        hessian(lambda: w, parameters=w)


def test_the_hessian_of_a_network_s_loss():
    rng = random.Random(0)
    model = nn.MLP(2, [16, 16, 1], activation="tanh", rng=rng)
    rows = np.random.default_rng(0).normal(size=(20, 2))
    targets = np.sin(rows[:, 0])

    def loss():
        return ((model(rows).reshape(20) - targets) ** 2).mean()

    parameters = model.parameters()
    found = hessian(loss, parameters=parameters)()
    assert found.shape == (337, 337) and np.abs(found - found.T).max() < 1e-13 * np.abs(found).max()
    slope = grad(loss, parameters=parameters)
    for k in (0, 40, 200, 336):
        p, h = parameters[k], 1e-5
        before = p.data
        ends = []
        for end in (before + h, before - h):
            p.data = end
            ends.append(slope())
        p.data = before
        assert np.abs(found[k] - (ends[0] - ends[1]) / (2 * h)).max() < 1e-8 * np.abs(found).max()


# ---- products ----

def test_hvp(moving):
    rng = np.random.default_rng(1)
    h = rosenbrock_hessian(POINT)
    for _ in range(3):
        v = rng.normal(size=4)
        assert np.allclose(hvp(rosenbrock, np.array(POINT), v), h @ v, rtol=1e-13)
        found = hvp(rosenbrock, POINT, v.tolist())
        assert isinstance(found, list) and np.allclose(found, h @ v, rtol=1e-13)
        assert np.allclose(hvp(rosenbrock, Tensor(POINT), Tensor(v)), h @ v, rtol=1e-13)
    assert hvp(cube, 2.0, 0.5) == 6.0
    assert hvp(lambda x: x * 3.0, 2.0, 1.0) == 0.0 and hvp(lambda x: 1.0, 2.0, 1.0) == 0.0
    found = hvp(lambda p: p["a"] ** 2 * p["b"].sum(), {"a": 2.0, "b": np.ones(2)}, {"b": np.array([1, 2]), "a": 3})
    assert list(found) == ["a", "b"] and found["a"] == 24.0 and found["b"].tolist() == [12.0, 12.0]
    assert grad(lambda x: hvp(cube, x, x))(2.0) == 24.0               # of 6 x^2: x is the point and the direction
    assert grad(lambda x: hvp(cube, 2.0, x))(5.0) == 12.0
    assert grad(lambda x: hvp(lambda y: x * y**3, 2.0, 1.0))(5.0) == 12.0


def test_jvp_and_vjp_by_hand(moving):
    def f(x, p):
        return {"a": x * p["w"], "b": (p["w"].sum(), x**2)}

    x, p = 3.0, {"w": np.array([1.0, 2.0])}
    value, slope = jvp(f, (x, p), (0.5, {"w": np.array([1.0, -1.0])}))
    assert value["a"].tolist() == [3.0, 6.0] and value["b"] == (3.0, 9.0)
    assert slope["a"].tolist() == [3.5, -2.0] and slope["b"] == (0.0, 3.0)
    value, pull = vjp(f, x, p)
    assert value["a"].tolist() == [3.0, 6.0] and value["b"] == (3.0, 9.0)
    for _ in range(2):   # as often as wanted
        by_x, by_p = pull({"b": (10.0, 1), "a": np.array([1, 2])})
        assert by_x == 1 * 1.0 + 2 * 2.0 + 6.0 and by_p["w"].tolist() == [13.0, 16.0]
    assert jvp(cube, (2.0,), (0.5,)) == (8.0, 6.0) and vjp(cube, 2.0)[1](0.5) == (6.0,)
    assert jvp(lambda: 3.0, (), ()) == (3.0, 0.0) and vjp(lambda: 3.0)[1](1.0) == ()
    assert jvp(lambda x: [2.0, np.ones(2)], (1.0,), (1.0,))[1][0] == 0.0
    boxes = vjp(lambda t: np.array([t[0] * t[1], t[1]]), np.array([2.0, 3.0]))   # NumPy's array of Values
    assert boxes[0].tolist() == [6.0, 3.0] and boxes[1](np.array([1.0, 10.0]))[0].tolist() == [3.0, 12.0]


def test_products_are_those_with_the_jacobian(moving):
    rng = np.random.default_rng(2)
    a, x = rng.normal(size=(3, 4)), rng.normal(size=4)

    def f(x):
        return (Tensor(a) @ (x * x.tanh())).tanh() * x[:3]

    j = jacobian(f)(x)
    assert np.allclose(jacfwd(f)(x), j, rtol=1e-13) and np.array_equal(jacrev(f)(x), j)
    for _ in range(3):
        u, v = rng.normal(size=3), rng.normal(size=4)
        assert np.allclose(jvp(f, (x,), (v,))[1], j @ v, rtol=1e-12)
        assert np.allclose(vjp(f, x)[1](u)[0], u @ j, rtol=1e-12)
    tall = jacfwd(lambda x, y: [x * y, x, y**2, x * x * y], argnums=(1, 0))(2.0, 3.0)
    assert [part.tolist() for part in tall] == [[2.0, 0.0, 6.0, 4.0], [3.0, 1.0, 0.0, 12.0]]
    assert jacfwd(lambda x: 3.0)(2.0) == 0.0 and jacfwd(lambda x: [])([2.0]).shape == (0, 1)
    assert jacfwd(lambda x: x.T)(a).shape == (4, 3, 3, 4)


LINKED = {   # functions of x that take a derivative of x**3 * y at (x, 2 x) by x, which is 6 x**3
    "grad": lambda x: grad(lambda a, b: a**3 * b)(x, 2.0 * x),
    "grad, captured": lambda x: grad(lambda a: a**3 * (2.0 * x))(x),
    "value_and_grad": lambda x: value_and_grad(lambda a, b: a**3 * b)(x, 2.0 * x)[1],
    "jacobian": lambda x: jacobian(lambda a, b: [a, a**3 * b])(x, 2.0 * x)[1],
    "jacfwd": lambda x: jacfwd(lambda a, b: [a, a**3 * b])(x, 2.0 * x)[1],
    "jacfwd of a Tensor": lambda x: jacfwd(lambda a, b: a[0] ** 3 * b)(flatgrad.stack([x, 1.0]), 2.0 * x)[0],
    "jvp": lambda x: jvp(lambda a, b: (a**3 * b, a), (x, 2.0 * x), (1.0, 0.0))[1][0],
    "jvp, the direction": lambda x: jvp(lambda a: (a**3, a), (x,), (2.0 * x,))[1][0],
    "jvp of one number": lambda x: jvp(lambda a: a**3 * 2.0, (x,), (x,))[1],
    "vjp": lambda x: vjp(lambda a, b: (a**3 * b, a), x, 2.0 * x)[1]((1.0, 0.0))[0],
    "vjp, the weight": lambda x: vjp(lambda a: (a**3, a), x)[1]((2.0 * x, 0.0))[0],
    "vjp, the weight alone": lambda x: vjp(lambda a: (a**3, a), 1.5)[1]((x, 0.0))[0] * x**2 / 1.5**2 * 2.0,
    "hvp": lambda x: hvp(lambda a: a**3, x, x * x),
    "hvp, the direction": lambda x: hvp(lambda a: a**3, 1.0, x**3),
    "hessian": lambda x: hessian(lambda a: a**3)(x) * x**2,
    "hessian of a list": lambda x: hessian(lambda a: a[0] ** 3 * a[1])([x, x])[0, 0] * x,
    "hessian of a dict": lambda x: hessian(lambda a: a["x"] ** 3 * a["y"])({"x": x, "y": 2.0})["x"]["y"] * 2.0 * x,
    "hessian of a Tensor": lambda x: hessian(lambda t: t[0] ** 3 * t[1])(flatgrad.stack([x, x]))[0, 0] * x,
    "hessian of a matrix": lambda x: hessian(lambda t: t[0, 0] ** 3 * t[0, 1])(
        flatgrad.stack([x, x]).reshape(1, 2))[0, 0, 0, 0] * x,
    "hessian, captured": lambda x: hessian(lambda a: a**2 * x**3)(1.5) * 3.0,
    "aux": lambda x: grad(lambda a: (a, (a**3 * x, 1)), has_aux=True)(x)[1][0] * 6.0 / x,
    "aux alone": lambda x: grad(lambda a: (a, [x**3]), has_aux=True)(1.0)[1][0] * 6.0,
}


@pytest.mark.parametrize("name", LINKED)
def test_every_transform_within_every_kind_of_other(name, moving):
    f, x = LINKED[name], 1.5
    if name == "vjp, the weight alone":   # 3 * 1.5**2 * x * x**2 / 1.5**2 * 2 is 6 x**3 as well
        assert f(Value(1.5) * 1.0).data == pytest.approx(6 * 1.5**3)
    assert grad(f)(x) == pytest.approx(18 * x**2, rel=1e-13)
    assert grad(grad(f))(x) == pytest.approx(36 * x, rel=1e-13) == hessian(f)(x)
    assert jvp(f, (x,), (2.0,)) == pytest.approx((6 * x**3, 36 * x**2), rel=1e-13)
    assert vjp(f, x)[1](2.0) == pytest.approx((36 * x**2,), rel=1e-13)
    assert hvp(f, x, 2.0) == pytest.approx(72 * x, rel=1e-13)
    assert jacfwd(f)(x) == jacobian(f)(x) == pytest.approx(18 * x**2, rel=1e-13)
    assert gradcheck(f, x, rtol=1e-6) and gradgradcheck(f, x, rtol=1e-6)
    w = Value(x)
    if name in ("hessian, captured", "aux alone"):   # at the outermost call numbers are differentiated by, not w
        assert isinstance(f(w * 1.0), float)
    else:
        f(w * 1.0).backward()
        assert w.grad == pytest.approx(18 * x**2, rel=1e-13)
    compiled = flatgrad.compile(f)
    result = compiled(w)
    assert result.data == pytest.approx(6 * x**3, rel=1e-13)
    w.grad = 0.0
    result.backward()
    assert w.grad == pytest.approx(18 * x**2, rel=1e-13) and compiled(2.0).data == pytest.approx(48.0, rel=1e-13)
    captured = flatgrad.compile(lambda: f(w))
    w.grad = 0.0
    captured().backward()
    assert w.grad == pytest.approx(18 * x**2, rel=1e-13)
    w.data = 2.0
    assert captured().data == pytest.approx(48.0, rel=1e-13)


def test_errors_of_products():
    for bad, error, message in (
            (lambda: jvp(cube, 2.0, (1.0,)), ArgumentTypeError, "jvp: primals: expected a tuple or a.*got float 2.0"),
            (lambda: jvp(cube, (2.0,), 1.0), ArgumentTypeError, "jvp: tangents: expected a tuple or a list"),
            (lambda: jvp(cube, (2.0,), (1.0, 2.0)), ArgumentError, "jvp: tangents: expected 1, one for each of the p"),
            (lambda: jvp(cube, ("2",), (1.0,)), ArgumentTypeError, r"jvp: primals\[0\]: expected a real number"),
            (lambda: jvp(cube, (2.0,), ("1",)), ArgumentTypeError, r"jvp: tangents\[0\]: expected a real num.*got str"),
            (lambda: jvp(cube, (2.0,), (np.ones(2),)), ShapeError, r"tangents\[0\]: expected the shape of primals"),
            (lambda: jvp(cube, ([2.0],), ([1.0, 2.0],)), ArgumentTypeError, "expected the structure of primals"),
            (lambda: jvp(lambda x: None, (2.0,), (1.0,)), ArgumentTypeError, "jvp: the result of f: expected a Value"),
            (lambda: jvp(3, (2.0,), (1.0,)), ArgumentTypeError, "jvp: f: expected a callable"),
            (lambda: jvp(cube, (2.0,), (1.0,), has_aux=1), ArgumentTypeError, "jvp: has_aux"),
            (lambda: jvp(cube, (2.0,), (1.0,), has_aux=True), ArgumentTypeError, "jvp: expected f to return a pair"),
            (lambda: vjp(cube, None), ArgumentTypeError, r"vjp: primals\[0\]: expected a real number"),
            (lambda: vjp(cube, 2.0)[1]((1.0,)), ArgumentTypeError, "vjp: cotangents: expected the structure of the"),
            (lambda: vjp(cube, 2.0)[1](np.ones(1)), ShapeError, r"cotangents: expected the shape of the result"),
            (lambda: vjp(lambda x: {"a": [x]}, 2.0)[1]({"a": [True]}), ArgumentTypeError,
             r"vjp: cotangents\['a'\]\[0\]: expected a real number.*got bool True"),
            (lambda: vjp(lambda x: np.array(["a"]), 2.0), ArgumentTypeError, "vjp: the result of f: expected an arr"),
            (lambda: hvp(rosenbrock, POINT, [1.0]), ArgumentTypeError, "hvp: v: expected the structure of x"),
            (lambda: hvp(rosenbrock, np.ones(3), np.ones(2)), ShapeError, r"hvp: v: expected the shape of x, \(3,\)"),
            (lambda: hvp(rosenbrock, np.ones(3), np.ones(3, bool)), ArgumentTypeError, "hvp: v: expected an array of"),
            (lambda: hvp(lambda x: x, np.ones(3), np.ones(3)), ShapeError, "hvp: expected f to return one number"),
            (lambda: hvp(cube, "2", 1.0), ArgumentTypeError, "hvp: x: expected a real number"),
            (lambda: hvp(cube, 2.0, 10**400), ArgumentError, "hvp: v: expected a number that float64 holds"),
            (lambda: hessian(lambda x: [x])(2.0), ArgumentTypeError, "hessian: expected f to return a Value"),
            (lambda: hessian(lambda x: x)(np.ones(2)), ShapeError, "hessian: expected f to return one number"),
            (lambda: hessian(cube)({"a": "x"}), ArgumentTypeError, r"hessian: argument 0\['a'\]: expected a real"),
            (lambda: hessian(cube, 1)(2.0), ArgumentError, "argnums: 1 is out of range"),
            (lambda: hessian(3), ArgumentTypeError, "hessian: f: expected a callable"),
            (lambda: hessian(cube, has_aux="yes"), ArgumentTypeError, "hessian: has_aux"),
            (lambda: jacfwd(lambda x: {"a": "x"})(1.0), ArgumentTypeError, r"jacfwd: the result of f\['a'\]: expected a"),
            (lambda: jacfwd(lambda x: x["a"])({"a": "x"}), ArgumentTypeError, r"jacfwd: argument 0\['a'\]: expected"),
            (lambda: grad(cube, has_aux=True, in_axes=0), ArgumentError, "grad: has_aux: expected False with in_axes"),
            (lambda: value_and_grad(lambda x: [x, x], has_aux=True)(1.0), ArgumentTypeError, "return a pair")):
        with pytest.raises(error, match=message):
            bad()
        assert functional.running.get() == ()


def test_has_aux(moving):
    w = Value(4.0)

    def f(x):
        return x * x * w, {"twice": x * 2.0, "array": Tensor([1.0, 2.0]), "other": "text", "w": w}

    gradient, aux = grad(f, has_aux=True)(3.0)
    assert gradient == 24.0 and aux["twice"] == 6.0 and type(aux["twice"]) is float and aux["other"] == "text"
    assert isinstance(aux["array"], np.ndarray) and aux["w"] == 4.0
    (value, aux), gradient = value_and_grad(f, has_aux=True)(3.0)
    assert (value, aux["twice"], gradient) == (36.0, 6.0, 24.0)
    (value, aux), gradient = value_and_grad(f, parameters=[w], has_aux=True)(3.0)
    assert (value, aux["w"], gradient.tolist()) == (36.0, 4.0, [9.0])
    assert hessian(f, has_aux=True)(3.0)[0] == 8.0 and hessian(f, has_aux=True, parameters=[w])(3.0)[1]["twice"] == 6.0
    j, aux = jacobian(lambda x: ([x, x * x], x), has_aux=True)(3.0)
    assert j.tolist() == [1.0, 6.0] and aux == 3.0
    assert grad(flatgrad.compile(lambda x: (x * x, x)), has_aux=True)(3.0) == (6.0, 3.0)
    assert jvp(f, (3.0,), (1.0,), has_aux=True)[2]["twice"] == 6.0
    assert vjp(f, 3.0, has_aux=True)[2]["twice"] == 6.0


# ---- within recordings ----

def test_a_gradient_within_a_loss_reaches_the_parameters():
    """u'' + u of a network, by every way there is to train it."""
    model = nn.MLP(1, [5, 1], activation="tanh", rng=random.Random(1))
    parameters = model.parameters()
    times = np.linspace(0.0, 1.0, 4)

    def u(t):
        return model([t])

    def residual(t):
        return (grad(grad(u))(t) + u(t)) ** 2

    def loss():
        return sum([residual(Value(t)) for t in times]) if _core._is_recording() else sum([residual(t) for t in times])

    value, gradient = value_and_grad(loss, parameters=parameters)()
    for k in (0, 3, 9, len(parameters) - 1):
        p, h, ends = parameters[k], 1e-5, []
        before = p.data
        for end in (before + h, before - h):
            p.data = end
            ends.append(value_and_grad(loss, parameters=parameters)()[0])
        p.data = before
        assert gradient[k] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6, abs=1e-9)
    compiled = flatgrad.compile(loss)
    result = compiled()
    model.zero_grad()
    result.backward()
    assert result.data == pytest.approx(value, rel=1e-12)
    assert np.allclose([p.grad for p in parameters], gradient, rtol=1e-10, atol=1e-12)
    mapped = flatgrad.compile(lambda times: vmap(residual)(times).sum())
    model.zero_grad()
    mapped(times).backward()
    assert np.allclose([p.grad for p in parameters], gradient, rtol=1e-10, atol=1e-12)
    losses = compiled.minimize(optim.Adam(parameters, lr=0.01), steps=50)
    assert losses[0] == pytest.approx(value, rel=1e-12) and losses[-1] < losses[0] / 2
    # As documented: at the outermost call a gradient is a number, and no loss is made of it.
    assert isinstance(grad(grad(u))(0.5), float)
    with pytest.raises(ArgumentTypeError, match="would lose that gradient"):
        residual(0.5)


def test_within_scan_and_vmap():
    k = Value(2.0)

    def newton(x, _):   # towards the minimum of (x^2 - k)^2
        return x - grad(lambda y: (y * y - k) ** 2)(x) / hessian(lambda y: (y * y - k) ** 2)(x), x

    end, path = flatgrad.scan(newton, 1.5, length=6)
    assert end.data == pytest.approx(math.sqrt(2.0), rel=1e-12)
    end.backward()
    assert k.grad == pytest.approx(1 / (2 * math.sqrt(2.0)), rel=1e-9)
    compiled = flatgrad.compile(lambda xs: vmap(grad(grad(lambda x: x**3 * k)))(xs))
    xs = np.linspace(-1, 1, 9)
    assert np.allclose(compiled(xs).numpy(), 6 * xs * k.data)
    assert np.allclose(vmap(grad(grad(lambda x: x**3 * k)))(xs).numpy(), 6 * xs * k.data)
    assert np.allclose(vmap(flatgrad.compile(grad(grad(lambda x: x**3 * k))))(xs).numpy(), 6 * xs * k.data)


def test_gradients_of_batches_and_by_parameters_within_recordings():
    w, xs = Value(2.0), np.array([1.0, 2.0, 4.0])
    mean = grad(lambda x: w * x**3, in_axes=0)   # w x**2, of the mean over three samples
    assert np.allclose(mean(xs), w.data * xs**2)
    assert np.allclose(grad(lambda xs: (mean(xs) * xs).sum())(xs), 3 * w.data * xs**2)
    compiled = flatgrad.compile(lambda xs: (mean(xs) * xs).sum())
    result = compiled(xs)
    result.backward()
    assert result.data == pytest.approx(2.0 * (xs**3).sum()) and w.grad == pytest.approx((xs**3).sum())
    t = Tensor([3.0, 1.0])
    by = grad(lambda x: w**2 * (t * t).sum() * x, parameters=[w, t])   # (2 w t^2 x, 2 w^2 t x)
    assert isinstance(by(1.0), np.ndarray)
    norm = flatgrad.compile(lambda x: (by(x) ** 2).sum())
    result = norm(0.5)
    w.grad = t.grad = 0.0
    result.backward()

    def expected(v):
        return ((2 * v[0] * (v[1] ** 2 + v[2] ** 2) * 0.5) ** 2 + (v[0] ** 2 * v[1]) ** 2 + (v[0] ** 2 * v[2]) ** 2)

    assert result.data == pytest.approx(expected([2.0, 3.0, 1.0]))
    assert np.allclose([w.grad, *t.grad], grad(expected)([2.0, 3.0, 1.0]))
    outer = value_and_grad(lambda: (by(0.5) ** 2).sum(), parameters=[w, t])()   # within another by the same
    assert outer[0] == pytest.approx(result.data) and np.allclose(outer[1], [w.grad, *t.grad])


def test_in_floats():
    w = Value(0.7)
    compiled = flatgrad.compile(vmap(grad(grad(lambda x: (w * x).tanh() * x))), dtype="float32")
    xs = np.linspace(-1, 1, 33)
    found = compiled(xs)
    assert np.allclose(found.numpy(), [grad(grad(lambda x: (0.7 * x).tanh() * x))(x) for x in xs.tolist()], atol=1e-5)


def test_a_compiled_hessian_and_the_hessian_of_what_is_compiled():
    h = rosenbrock_hessian(POINT)
    compiled = flatgrad.compile(hessian(rosenbrock))
    assert np.allclose(compiled(POINT).numpy(), h, rtol=1e-13, atol=1e-12)
    assert np.allclose(compiled(np.array(POINT)).numpy(), h, rtol=1e-13, atol=1e-12)
    t = Tensor(POINT)
    found = compiled(t)
    found.sum().backward()
    third = np.array([sum(jacobian(jacobian(grad(rosenbrock)))(POINT)[i, j] for i in range(4) for j in range(4))])
    assert np.allclose(t.grad, third, rtol=1e-12)
    assert np.allclose(hessian(flatgrad.compile(rosenbrock))(np.array(POINT)), h, rtol=1e-13, atol=1e-12)
    assert grad(grad(flatgrad.compile(cube)))(2.0) == pytest.approx(12.0)
    tree = flatgrad.compile(hessian(lambda p: p["a"] ** 2 * p["b"]))({"a": Value(3.0), "b": 5.0})
    assert {a: {b: x.data for b, x in row.items()} for a, row in tree.items()} == {
        "a": {"a": 10.0, "b": 6.0}, "b": {"a": 6.0, "b": 0.0}}


def test_a_recording_refuses_numbers_of_nested_gradients():
    for f in (lambda x: math.sin(grad(cube)(x)), lambda x: x if grad(cube)(x) > 0.0 else -x,
              lambda x: x * grad(cube)(x).data):
        with pytest.raises(ArgumentTypeError, match="while a compiled function is recorded"):
            flatgrad.compile(f)(2.0)
    assert flatgrad.compile(lambda x: x * math.sin(grad(cube)(2.0)))(3.0).data == 3.0 * math.sin(12.0)


# ---- what cannot be differentiated twice ----

def ruled(x):
    out = Value(3.0 * x.data, (x,), "ruled")

    def rule():
        x.grad += 3.0 * out.grad

    out._backward = rule
    return out


@pytest.mark.parametrize("f", [lambda x: ruled(x) * x, lambda x: Value(x.data**2, (x,), (2 * x.data,)) * x],
                         ids=["a rule", "partial derivatives"])
def test_rules_of_users_are_refused_and_first_derivatives_are_not(f):
    assert grad(f)(2.0) == 12.0 and jvp(f, (2.0,), (1.0,)) == (12.0 if f(2.0 * Value(1.0)).data == 12.0 else 8.0, 12.0)
    assert vjp(f, 2.0)[1](1.0) == (12.0,)
    for twice in (lambda: grad(grad(f))(2.0), lambda: hessian(f)(2.0), lambda: hvp(f, 2.0, 1.0),
                  lambda: jacfwd(lambda x: [f(x), x])(2.0), lambda: jvp(lambda x: (f(x), x), (2.0,), (1.0,)),
                  lambda: gradgradcheck(f, 2.0)):
        with pytest.raises((TypeError, NotImplementedError), match="ruled|custom_derivative|derivative"):
            twice()
        gc.collect()


# ---- kinks ----

@pytest.mark.parametrize("f, x, first, second", [   # as docs/derivatives.md has them
    (flatgrad.relu, 0.0, 0.0, 0.0), (abs, 0.0, 0.0, 0.0), (lambda x: flatgrad.leaky_relu(x, 0.2), 0.0, 0.2, 0.0),
    (lambda x: flatgrad.elu(x, 0.5), 0.0, 0.5, 0.5), (lambda x: flatgrad.clip(x, 0.0, 1.0), 0.0, 1.0, 0.0),
    (lambda x: flatgrad.clip(x, 0.0, 1.0), 1.0, 1.0, 0.0), (lambda x: flatgrad.maximum(x * x, x), 1.0, 1.5, 1.0),
    (lambda x: flatgrad.losses.huber([x], [0.0], delta=0.5), 0.5, 0.5, 1.0),
    (lambda x: flatgrad.where(x, x**2, x**3 + x), 0.0, 1.0, 0.0), (flatgrad.sqrt, 0.0, math.inf, -math.inf),
    (lambda x: x**1.5, 0.0, 0.0, math.inf), (lambda x: x**2.5, 0.0, 0.0, 0.0), (lambda x: x**2, 0.0, 0.0, 2.0),
    (lambda x: x**3, 0.0, 0.0, 0.0), (flatgrad.floor, 2.0, 0.0, 0.0),
])
def test_second_derivatives_at_kinks(f, x, first, second):
    assert grad(f)(x) == first and hessian(f)(x) == second and grad(grad(f))(x) == second
    assert flatgrad.compile(grad(grad(f)))(x).data == second


# ---- what is marked as constant ----

CONSTANTS = {   # of a matrix, and of one that is computed from the first and marked as constant
    "product": lambda x, c: (x * c).sum(),
    "product, one element": lambda x, c: (x * c)[1, 1],
    "product, one row": lambda x, c: ((x * c)[1] ** 2).sum(),
    "square of one element": lambda x, c: (x * c)[1, 1] ** 2,
    "mean": lambda x, c: (x * c).mean(),
    "quotient": lambda x, c: (x / c).sum() + (x / c)[0, 1],
    "power": lambda x, c: (x**c).sum() + (x**c)[1, 0],
    "maximum": lambda x, c: (flatgrad.maximum(x, c) * c).sum(),
    "where": lambda x, c: flatgrad.where(c, x * x, x).sum(),
    "clip": lambda x, c: (flatgrad.clip(x, c, 10.0) * c)[1, 1],
    "matrix product": lambda x, c: (x @ c).sum() + (c @ x)[0, 0],
    "layers": lambda x, c: (flatgrad.linear(flatgrad.linear(c, x), x) * c).sum(),
    "layers of one row": lambda x, c: flatgrad.sum(flatgrad.linear(c[0], x)) + flatgrad.sum(flatgrad.linear(c[1], x)),
    "layers, some constant": lambda x, c: (flatgrad.linear(c, x) * flatgrad.linear(c * x, x)).sum(),
    "dot": lambda x, c: flatgrad.dot(x[0], c[0]) + flatgrad.dot(x[0], x[1]) * flatgrad.dot(c[1], x[1]),
    "softmax": lambda x, c: (x * c.softmax()).sum(),
    "logsumexp": lambda x, c: ((x * c).logsumexp(axis=1) * c[:, 0]).sum(),
    "broadcast": lambda x, c: (x[0] * c).sum() + (x * c[0]).sum(),
    "max": lambda x, c: (x * c).max() + ((x * c).max(axis=1) * c[0]).sum(),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_no_derivative_leads_through_what_is_marked_as_constant(name, moving):
    """Also not one of a higher order, where a derivative is the constant itself."""
    f, x = CONSTANTS[name], np.array([[1.0, 2.0], [3.0, -0.5]])

    def marked(x):
        return f(x, Tensor(x * 2.0, requires_grad=False))

    def fixed(x):
        return f(x, Tensor(2.0 * np.array([[1.0, 2.0], [3.0, -0.5]]), requires_grad=False))

    assert np.allclose(grad(marked)(x), grad(fixed)(x), rtol=1e-13, equal_nan=True)
    expected = hessian(fixed)(x)
    compiled = flatgrad.compile(hessian(lambda row: marked(row.reshape(2, 2))))
    for found in (hessian(marked)(x), jacobian(grad(marked))(x), jacfwd(grad(marked))(x),
                  compiled(Tensor(x.reshape(4))).numpy().reshape(2, 2, 2, 2)):
        assert np.allclose(found, expected, rtol=1e-12, atol=1e-13, equal_nan=True)
    program = flatgrad.compile(f)
    assert np.allclose(hessian(lambda x: program(x, Tensor(x * 2.0, requires_grad=False)))(x), expected, rtol=1e-12,
                       atol=1e-13, equal_nan=True)
    third = jacobian(jacobian(grad(fixed)))(x)
    assert np.allclose(jacobian(jacobian(grad(marked)))(x), third, rtol=1e-12, atol=1e-12, equal_nan=True)


# ---- stop_gradient ----

def test_stop_gradient(moving):
    assert grad(lambda x: x * stop_gradient(x))(3.0) == 3.0
    assert grad(grad(lambda x: x**2 * stop_gradient(x)))(3.0) == 6.0
    assert grad(lambda t: (t * stop_gradient({"a": [t]})["a"][0]).sum())(np.array([3.0, 4.0])).tolist() == [3.0, 4.0]
    assert stop_gradient(3.0) == 3.0 and stop_gradient("text") == "text" and stop_gradient(None) is None
    array, w = np.ones(2), Value(2.0)
    assert stop_gradient(array) is array
    boxes = stop_gradient(np.array([[w, w * 2.0]]))
    assert boxes.shape == (1, 2) and boxes[0, 1].data == 4.0 and boxes[0, 1]._op == ""
    pair = stop_gradient((w * 2.0, Point(w, Tensor([1.0]))))
    assert pair[0]._op == "" and type(pair[1]) is Point and not pair[1].y.requires_grad
    compiled = flatgrad.compile(lambda x: stop_gradient(x * 2.0) * x)
    compiled(w).backward()
    assert w.grad == 4.0
    nested = flatgrad.compile(lambda x: grad(lambda y: stop_gradient(y) * y * x)(x))
    w.grad = 0.0
    result = nested(w)   # stop(x) * x: stopped for the outer derivative as well
    result.backward()
    assert result.data == 4.0 and w.grad == 2.0


# ---- gradgradcheck ----

def test_gradgradcheck_passes_what_is_right(moving):
    assert gradgradcheck(lambda x: x.tanh() * x**3, 0.7) is True
    assert gradgradcheck(lambda x, y: [x / y, x * y], (0.5, 2.0), rtol=1e-6)
    assert gradgradcheck(lambda p: {"a": (p["w"] @ p["w"]).tanh(), "b": p["b"] ** 2},
                         {"w": np.array([[0.1, -0.4], [1.0, 0.3]]), "b": 0.5}, rtol=1e-6)
    assert gradgradcheck(lambda x: x * x, np.array([1.0, 2.0]), grad_outputs=np.array([0.5, -1.0]))
    assert gradgradcheck(lambda x, y: (x * y).sum(), (Tensor([1.0, 2.0]), Tensor([3.0, 4.0], requires_grad=False)))
    assert gradgradcheck(lambda x: 3.0, 1.0) and gradgradcheck(lambda x: [], 1.0)
    x, t = Value(0.5), Tensor([1.0, 2.0])
    x.grad, t.grad = 7.0, [1.0, 2.0]
    assert gradgradcheck(lambda a, b: a * x * (b * t).sum(), (x, t), rtol=1e-6)
    assert (x.data, x.grad, t.tolist(), t.grad.tolist()) == (0.5, 7.0, [1.0, 2.0], [1.0, 2.0])
    with no_grad():
        assert gradgradcheck(cube, 0.7)


def test_gradgradcheck_catches_what_is_wrong():
    with pytest.raises(GradcheckError, match="gradgradcheck: the derivative of the gradient by inputs by inputs is"):
        gradgradcheck(lambda x: x * x * x.detach(), 0.7)
    assert not gradgradcheck(lambda x: x * x * (1.0 + 0.004 * x.detach()), 0.7, raise_exception=False)
    assert gradgradcheck(lambda x: x * x * (1.0 + 1e-5 * x.detach()), 0.7)
    assert not gradgradcheck(lambda x: x * x * (1.0 + 1e-5 * x.detach()), 0.7, atol=0.0, rtol=1e-6,
                             raise_exception=False)
    with pytest.raises(GradcheckError, match=r"the derivative of the gradient by inputs\[1\]\[1\] by inputs\[0\] is"):
        gradgradcheck(lambda x, y: y[0] * x + y[1] * (x * x).detach(), (0.5, np.ones(2)))
    numbers = iter(range(100))
    with pytest.raises(GradcheckError, match="not deterministic"):
        gradgradcheck(lambda x: x * x * float(next(numbers)), 1.0)
    with pytest.raises(GradcheckError, match="the gradient by inputs is nan"):
        gradgradcheck(lambda x: x * x * math.nan, 1.0)
    with pytest.raises(GradcheckError, match="f returns the shape"):
        gradgradcheck(lambda x: [x * x] * (1 + (x.data != 1.0)), 1.0)
    assert gradgradcheck(lambda x: x * x * math.inf, 1.0, raise_exception=False) is False


def test_bad_arguments_of_gradgradcheck():
    for bad, error, message in ((3, ArgumentTypeError, "inputs: expected a float, got the integer 3; pass 3.0"),
                                (math.nan, DataError, "inputs: expected a finite number"),
                                (Value(1.0) * 2.0, ArgumentTypeError, "gradgradcheck: inputs: expected numbers or le"),
                                ((), ArgumentError, "inputs: expected one number at least")):
        with pytest.raises(error, match=message):
            gradgradcheck(cube, bad)
    for seeds, error, message in (([1.0], ArgumentTypeError, "grad_outputs: expected the structure of the result of f"),
                                  (np.ones(2), ShapeError, "grad_outputs: expected the shape of the result of f"),
                                  ("x", ArgumentTypeError, "grad_outputs: expected a real number"),
                                  (math.inf, DataError, "grad_outputs: expected a finite number")):
        with pytest.raises(error, match=message):
            gradgradcheck(cube, 1.0, seeds)
    with pytest.raises(ArgumentTypeError, match="gradgradcheck: f: expected a callable"):
        gradgradcheck(None, 1.0)
    for name, value in (("eps", 0.0), ("atol", -1), ("rtol", math.nan), ("raise_exception", 1)):
        with pytest.raises((ArgumentError, ArgumentTypeError), match=f"^{name}: expected"):
            gradgradcheck(cube, 1.0, **{name: value})


# ---- against the sweep by hand ----

def random_function(seed):
    def f(x):
        rng = random.Random(seed)
        nodes = list(x)
        for _ in range(rng.randint(1, 12)):
            a, b = rng.choice(nodes), rng.choice(nodes)
            nodes.append(rng.choice([lambda: a * b, lambda: a + b, lambda: a - b, lambda: a / (b * b + 1.5),
                                     lambda: a.tanh(), lambda: -a, lambda: a**2, lambda: 0.3 * a, lambda: b**3])())
        return nodes[-1] * nodes[-2] + nodes[rng.randrange(len(nodes))]

    return f


@pytest.mark.parametrize("seed", range(30))
def test_random_functions_against_the_sweep_by_hand(seed, moving):
    f, rng = random_function(seed), random.Random(seed)
    x = [rng.uniform(-1, 1) for _ in range(3)]
    with flatgrad.scalar_graph():
        leaves = [Value(number) for number in x]
        first = written_by_hand.written([f(leaves)], [None], leaves)
        first = [Value(0.0) if g is None else g for g in first]
        second = [written_by_hand.written([g], [None], leaves) for g in first]
        third = [[written_by_hand.written([h], [None], leaves) if h is not None else [None] * 3 for h in row]
                 for row in second]

    def numbers(tree):
        return [numbers(part) for part in tree] if isinstance(tree, list) else 0.0 if tree is None else tree.data

    assert np.allclose(grad(f)(x), numbers(first), rtol=1e-12, atol=1e-13)
    assert np.allclose(hessian(f)(x), numbers(second), rtol=1e-11, atol=1e-12)
    assert np.allclose(jacobian(grad(f))(x), numbers(second), rtol=1e-11, atol=1e-12)
    assert np.allclose(jacobian(hessian(f))(x), numbers(third), rtol=1e-10, atol=1e-11)
    assert np.allclose(jacfwd(jacrev(grad(f)))(x), numbers(third), rtol=1e-10, atol=1e-11)


# ---- what is left behind ----

def test_nothing_is_left_of_many_calls():
    calls = [lambda: grad(grad(cube))(2.0), lambda: hessian(rosenbrock)(POINT), lambda: hvp(rosenbrock, POINT, POINT),
             lambda: jvp(lambda x: (x, x * x), (2.0,), (1.0,)), lambda: vjp(lambda x: (x, x * x), 2.0)[1]((1.0, 1.0)),
             lambda: jacfwd(lambda x: [x, x * x])(2.0), lambda: gradgradcheck(cube, 0.7),
             lambda: jacobian(jacobian(lambda t: t * t.tanh()))(np.ones(3)), lambda: grad(cube)(Value(2.0) * 2.0)]
    for call in calls:
        call()
    gc.collect()
    flatgrad.collect()
    nodes = flatgrad.stats()["nodes"]
    for _ in range(20):
        for call in calls:
            call()
        with pytest.raises(ArgumentTypeError):
            grad(lambda x: grad(lambda y: [y])(x))(2.0)
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] == nodes


def test_a_transform_may_be_entered_again():
    w, first = Value(3.0), [1]

    def f():
        return gradient().sum() * w if first and first.pop() else w**4

    gradient = grad(f, parameters=[w])
    assert gradient().tolist() == [432.0]


def test_transforms_of_other_threads_are_nobody_else_s():
    """A thread within a transform changes neither what others get nor what they may ask for."""
    w, inside, go = Value(3.0), threading.Event(), threading.Event()

    def waits():
        y = w * w
        inside.set()
        go.wait()
        return y

    found = []
    thread = threading.Thread(target=lambda: found.append(grad(waits, parameters=[w])()))
    thread.start()
    try:
        inside.wait()
        assert grad(lambda x: x**3)(2.0) == 12.0 and type(grad(lambda x: x**3)(2.0)) is float
        assert type(grad(lambda: w * w, parameters=[w])()) is np.ndarray
        assert type(hessian(lambda x: (x**3).sum())(np.ones(2))) is np.ndarray
        assert flatgrad.gradients(w * w, w)[0].data == 6.0
    finally:
        go.set()
        thread.join()
    assert found[0].tolist() == [6.0]
