"""Derivatives as numbers that depend on captured leaves: plain numbers, but no operands of operations on nodes."""
import copy
import json
import math
import pickle

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, grad, hessian, hvp, jacfwd, jacobian, jvp, losses, nn, no_grad, optim, value_and_grad, vjp
from flatgrad.errors import ArgumentTypeError
from flatgrad.lost import LostArray, LostFloat, is_lost

w, v, W = Value(3.0), Value(2.0), Tensor([1.0, 2.0])


def slope():
    return grad(lambda x: w * x * x)(0.5)


def row():
    return grad(lambda x: (W * x * x).sum())(np.array([1.0, 2.0]))


REFUSED = {   # of name: what is computed of a number, 3.0, and of an array of two
    "value * number": lambda g, r: v * g, "number * value": lambda g, r: g * v, "value ** number": lambda g, r: v**g,
    "number ** value": lambda g, r: g**v, "value + number": lambda g, r: v + g, "number - value": lambda g, r: g - v,
    "value / number": lambda g, r: v / g, "tensor * number": lambda g, r: W * g, "number + tensor": lambda g, r: g + W,
    "tensor ** number": lambda g, r: W**g, "tensor - array": lambda g, r: W - r, "array / tensor": lambda g, r: r / W,
    "value * array": lambda g, r: v * r, "array * value": lambda g, r: r * v, "tensor @ array": lambda g, r: W @ r,
    "array @ tensor": lambda g, r: r @ W, "an array of Values": lambda g, r: r * np.array([v, w]),
    "an array of Values, first": lambda g, r: np.array([v, w]) * r, "and a number": lambda g, r: g * np.array([v, w]),
    "a list": lambda g, r: W * [1.0, g], "rows": lambda g, r: Tensor([[1.0, 2.0]]) * [[1.0, g]],
    "maximum": lambda g, r: flatgrad.maximum(v, g), "where": lambda g, r: flatgrad.where(True, v, g),
    "one operand": lambda g, r: flatgrad.sin(g), "one operand, a row": lambda g, r: flatgrad.softmax([g, 1.0]),
    "sum": lambda g, r: flatgrad.sum([v, g]), "stack": lambda g, r: flatgrad.stack([v, g]),
    "cat": lambda g, r: flatgrad.cat([W, r]), "dot": lambda g, r: flatgrad.dot([v, v], r),
    "dot of lists": lambda g, r: flatgrad.dot([v, v], [1.0, g]), "matvec": lambda g, r: flatgrad.matvec([[v, v]], r),
    "Tensor of Values": lambda g, r: Tensor([v, g]), "np.multiply": lambda g, r: np.multiply(r, W),
    "np.multiply of a number": lambda g, r: np.multiply(g, v), "np.maximum": lambda g, r: np.maximum(W, r),
    "np.add of a list": lambda g, r: np.add([v, v], r),
    "np.concatenate": lambda g, r: np.concatenate([W, r]), "np.where": lambda g, r: np.where([True, False], W, r),
    "np.dot": lambda g, r: np.dot(r, np.array([v, w])), "mse": lambda g, r: losses.mse([v, v], r),
    "mse of a Tensor": lambda g, r: losses.mse(W, r), "a neuron": lambda g, r: nn.Neuron(2)(r),
    "a list for a neuron": lambda g, r: nn.Neuron(2)([g, 1.0]), "a network": lambda g, r: nn.MLP(2, [2, 1])(r),
    "a batch": lambda g, r: nn.MLP(2, [2, 1])(r.reshape(1, 2)),
    "a compiled function": lambda g, r: flatgrad.compile(lambda x: v * x)(g),
    "vmap": lambda g, r: flatgrad.vmap(lambda x: v * x)(r),
    "by parameters": lambda g, r: grad(lambda x: x * w, parameters=[w])(g),
}
KEPT = {   # what is computed of them is marked as well
    "+": lambda g, r: g + 1, "*": lambda g, r: g * g, "/": lambda g, r: 1 / g,
    "//": lambda g, r: g // 2, "%": lambda g, r: g % 2, "**": lambda g, r: 2**g, "-": lambda g, r: -g,
    "abs": lambda g, r: abs(g), "sum()": lambda g, r: sum([g, g]), "np.float64": lambda g, r: np.float64(2.0) * g,
    "np.float32": lambda g, r: g * np.float32(2.0), "np.int64": lambda g, r: np.int64(2) * g,
    "np.sin": lambda g, r: np.sin(g), "an array": lambda g, r: np.ones(3) * g, "and its array": lambda g, r: g * r,
    "array +": lambda g, r: r + 1.0, "r array": lambda g, r: 2 * r, "elements": lambda g, r: r[1],
    "iterated": lambda g, r: list(r)[0], "slice": lambda g, r: r[:1], "@": lambda g, r: r @ r, "T": lambda g, r: r.T,
    "@ of a matrix": lambda g, r: np.eye(2) @ r, "r.sum": lambda g, r: r.sum(), "np.mean": lambda g, r: np.mean(r),
    "r.dot": lambda g, r: r.dot(r), "reshape": lambda g, r: r.reshape(2, 1), "norm": lambda g, r: np.linalg.norm(r),
    "solve": lambda g, r: np.linalg.solve(np.eye(2) * 2, r), "concatenate": lambda g, r: np.concatenate([r, [1.0]]),
    "deepcopy": lambda g, r: copy.deepcopy(g), "deepcopy of an array": lambda g, r: copy.deepcopy(r),
    "an argument": lambda g, r: grad(lambda x: x * x)(g), "an argument, an array": lambda g, r: hvp(
        lambda x: (x * x).sum(), r, np.ones(2)), "a direction": lambda g, r: jvp(lambda x: x * x, (1.0,), (g,))[1],
    "a weight": lambda g, r: vjp(lambda x: x * x, 1.0)[1](g)[0],
    "an argument of a compiled function": lambda g, r: grad(flatgrad.compile(lambda x: x * x))(g),
}


@pytest.mark.parametrize("case", REFUSED)
def test_no_operand(case):
    assert is_lost(slope()) and is_lost(row())
    before = flatgrad.stats()["nodes"]
    with pytest.raises(ArgumentTypeError, match=r"would lose that gradient.*value_and_grad\(loss, parameters=\.\.\.\)"):
        REFUSED[case](slope(), row())
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] <= before
    REFUSED[case](float(slope()), np.asarray(row()))   # the constants that they may be said to be
    REFUSED[case](float(slope()), np.array(row()))


@pytest.mark.parametrize("case", KEPT)
def test_marks_stay(case):
    found, expected = KEPT[case](slope(), row()), KEPT[case](3.0, np.array([2.0, 8.0]))
    assert is_lost(found) and np.shape(found) == np.shape(expected) and np.array_equal(found, expected)
    assert type(found) is (LostFloat if np.ndim(expected) == 0 else LostArray)


def test_numbers_in_every_other_respect():
    g, r = slope(), row()
    assert isinstance(g, float) and repr(g) == str(g) == f"{g}" == "3.0" and f"{g:.2f}" == "3.00" and "%g" % g == "3"
    assert repr(r) == "array([2., 8.])" and str(r) == "[2. 8.]" and isinstance(r, np.ndarray)
    assert type(float(g)) is float and type(r.item(0)) is float and type(np.asarray(r)) is np.ndarray
    assert type(np.array(r)) is np.ndarray and type(r.tolist()[0]) is float and type(math.sin(g)) is float
    assert type(pickle.loads(pickle.dumps(g))) is float and type(pickle.loads(pickle.dumps(r))) is np.ndarray
    assert json.dumps([g, r.tolist()]) == "[3.0, [2.0, 8.0]]" and {g: 1}[3.0] == 1 and hash(g) == hash(3.0)
    assert g == 3.0 and g > v and v < g and not (W > r.max()).any() and (r > 1).all() and type(r > 1) is np.ndarray
    assert (W < r).all() and (np.less(W, r)).all() and g in [3.0] and sorted([4.0, g]) == [3.0, 4.0] and bool(g)
    assert Value(g).data == 3.0 and Tensor(r).tolist() == [2.0, 8.0] and Tensor([g, 1.0]).tolist() == [3.0, 1.0]
    x, t = Value(0.0), Tensor([0.0, 0.0])
    x.data = x.grad = g
    t.data = t.grad = r
    assert (x.data, x.grad, t.data.tolist(), t.grad.tolist()) == (3.0, 3.0, [2.0, 8.0], [2.0, 8.0])
    optim.SGD([x, t], lr=0.5).step()
    assert x.data == 1.5 and t.tolist() == [1.0, 4.0]
    t.data -= 0.5 * r
    assert t.tolist() == [0.0, 0.0]
    into = np.zeros(2)
    into += r
    assert into.tolist() == [2.0, 8.0] and math.fsum([g, g]) == 6.0 and round(g, 1) == 3.0 and int(g) == 3


TRANSFORMS = {   # of name: its derivative of a function at a number
    "grad": lambda f: grad(f)(0.5), "grad of grad": lambda f: grad(grad(f))(0.5),
    "value_and_grad": lambda f: value_and_grad(f)(0.5)[1], "jacobian": lambda f: jacobian(f)(0.5),
    "jacfwd": lambda f: jacfwd(f)(0.5), "hessian": lambda f: hessian(f)(0.5), "hvp": lambda f: hvp(f, 0.5, 1.0),
    "jvp": lambda f: jvp(f, (0.5,), (1.0,))[1], "jvp of two": lambda f: jvp(lambda x: [f(x), x], (0.5,), (1.0,))[1][0],
    "vjp": lambda f: vjp(f, 0.5)[1](1.0)[0], "within a structure": lambda f: grad(lambda p: f(p["x"][0]))(
        {"x": [0.5]})["x"][0], "compiled grad": lambda f: grad(flatgrad.compile(f))(0.5),
    "compiled jacobian": lambda f: jacobian(flatgrad.compile(f))(0.5),
    "compiled hessian": lambda f: hessian(flatgrad.compile(f))(0.5),
    "compiled batch": lambda f: grad(flatgrad.compile(f), in_axes=0)(np.array([0.5])),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_each_transform(name):
    transform, frozen = TRANSFORMS[name], Value(3.0)
    frozen.requires_grad = False
    constant = Tensor([1.0, 2.0], requires_grad=False)
    found = transform(lambda x: w * x**3)
    assert is_lost(found)
    assert is_lost(transform(lambda x: (W * x**3).sum()))
    for f in (lambda x: 3.0 * x**3, lambda x: frozen * x**3, lambda x: (constant * x**3).sum(),
              lambda x: Value(3.0) * x**3, lambda x: w.detach() * x**3, lambda x: (Tensor([1.0, 2.0]) * x**3).sum()):
        plain = transform(f)
        assert type(plain) in (float, np.ndarray) and np.array_equal(plain, found)
    with no_grad():
        plain = transform(lambda x: w * x**3)
    assert type(plain) in (float, np.ndarray) and np.array_equal(plain, found)


def test_parameters_and_arguments():
    f = lambda x: w * v * x**3   # noqa: E731
    assert type(grad(f, parameters=[w, v])(1.0)) is np.ndarray and type(hessian(f, parameters=[v, w])(1.0)) is np.ndarray
    assert is_lost(grad(f, parameters=[w])(1.0)) and is_lost(hessian(f, parameters=[v])(1.0))
    value, gradient = value_and_grad(f, parameters=[w, v])(1.0)
    assert type(value) is float and type(gradient) is np.ndarray
    assert type(grad(lambda x: W @ x, parameters=[W])(np.ones(2))) is np.ndarray
    assert is_lost(grad(lambda x: W @ x, parameters=[W[0]])(np.ones(2)))
    model = nn.MLP(1, [3, 1], activation="tanh")
    assert type(grad(lambda: model([0.5]) ** 2, parameters=model.parameters())()) is np.ndarray
    assert is_lost(grad(lambda x: model([x]))(0.5)) and is_lost(grad(flatgrad.compile(lambda x: model([x])))(0.5))
    product = lambda x, y: x * y   # noqa: E731
    for g in (product, flatgrad.compile(product)):
        assert type(grad(g)(2.0, 5.0)) is float and type(grad(g, (0, 1))(2.0, w)[0]) is float   # w is a number there
        assert is_lost(grad(g)(2.0, w)) and type(grad(g, 1)(2.0, w)) is float
    assert isinstance(grad(f)(w * 1.0), Value)   # a node
    found = value_and_grad(lambda: (grad(f)(1.0) + w) ** 2, parameters=[w, v])()[1]   # and within a transform
    assert found.tolist() == [2 * 21.0 * 7.0, 2 * 21.0 * 9.0]
    step = np.array([1.0, 1.0])   # descent: the numbers go where they came from
    for _ in range(60):
        step = step - 0.1 * grad(lambda x: ((x * x - W) * (x * x - W)).sum() / 4)(step)
    assert type(step) is np.ndarray and np.allclose(step, [1.0, math.sqrt(2.0)], atol=1e-5)


def test_a_physics_loss_of_numbers_raises():
    model = nn.MLP(1, [4, 1], activation="tanh")

    def u(t):
        return model([t])

    def residual(t):   # of u'' = -u
        return (grad(grad(u))(t) + u(t)) ** 2

    for p in model.parameters():
        assert p.grad == 0.0
    with pytest.raises(ArgumentTypeError, match=r"operand of \+: expected no derivative that is a plain number"):
        residual(0.5).backward()
    assert all(p.grad == 0.0 for p in model.parameters())
    _, gradient = value_and_grad(lambda: residual(0.5), parameters=model.parameters())()
    flatgrad.compile(lambda: residual(0.5))().backward()
    assert np.allclose([p.grad for p in model.parameters()], gradient, rtol=1e-12)


def test_a_step_of_descent_is_a_point():
    g, r = grad(lambda x: w * x * x)(0.5), grad(lambda x: (w * x * x).sum())(np.array([0.5, 1.0]))
    for found in (1.0 - 0.1 * g, 1.0 + g, 1 - g, np.float64(1.0) - g):
        assert isinstance(found, float) and not is_lost(found)
    for found in (np.ones(2) - 0.1 * r, np.ones(2) + r, 1.0 - r, np.subtract(1.0, r)):
        assert type(found) is np.ndarray
    assert is_lost(g - 1.0) and is_lost(r - 1.0) and is_lost(0 + g) and is_lost(sum([g, g])) and is_lost(g - g)
