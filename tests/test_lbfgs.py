"""optim.LBFGS by itself: closed cases, its invariants, state, closures of every kind, and what it does after errors.
tests/test_torch_lbfgs.py compares its iterates with PyTorch's."""
import copy
import json
import math
import pickle
import random

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, errors, losses, nn, optim
from flatgrad.optim import LBFGS
from flatgrad.optim.lbfgs import Point, least_of_cubic
from flatgrad.train import Trainer

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

WOLFE = {"line_search_fn": "strong_wolfe"}
INF, NAN = math.inf, math.nan


def rosenbrock(x, y):
    return (1.0 - x) ** 2 + 100.0 * (y - x * x) ** 2


def closure_of(optimizer, f, calls=None):
    params = optimizer.param_groups[0]["params"]

    def closure():
        if calls is not None:
            calls.append([p.data for p in params])
        optimizer.zero_grad()
        loss = f(*params)
        loss.backward()
        return loss
    return closure


def numbers(optimizer):
    return [p.data for p in optimizer.param_groups[0]["params"]]


def made(f=rosenbrock, start=(-1.5, 2.0), **case):
    optimizer = LBFGS([Value(x) for x in start], **case)
    calls = []
    return optimizer, closure_of(optimizer, f, calls), calls


# ---- what it computes ----

@pytest.mark.parametrize("case", [WOLFE, {}])
def test_rosenbrock(case):
    optimizer, closure, calls = made(max_iter=200, **case)
    assert optimizer.step(closure).data == 12.5   # the loss at the start
    assert numbers(optimizer) == pytest.approx([1.0, 1.0], abs=1e-5)
    assert len(calls) < 110


def test_the_first_steps_by_hand():
    """f = x**2 from 4: the gradient is 8, so the first step is lr / 8 * 8 = lr, and then H is exact, 1/2."""
    optimizer, closure, calls = made(lambda x: x * x, [4.0], lr=0.5)
    optimizer.step(closure)
    assert [x for x, in calls[:2]] == [4.0, 3.5]
    assert calls[2] == [3.5 - 0.5 * 3.5]   # lr times the Newton step
    optimizer, closure, calls = made(lambda x: 0.1 * x * x, [2.0])   # a gradient below 1: lr times it
    optimizer.step(closure)
    assert calls[1] == [pytest.approx(1.6)] and calls[2] == [pytest.approx(0.0, abs=1e-14)]
    state = optimizer.state_dict()["state"][0]
    assert state["H_diag"] == pytest.approx(5.0) and state["n_iter"] == 2 and state["func_evals"] == 3


def test_a_quadratic_takes_one_step_for_each_dimension():
    """With exact line searches, BFGS ends after n; with those of Wolfe it takes some more."""
    rng = np.random.RandomState(1)
    A = rng.normal(size=(8, 8))
    A, b = A @ A.T + np.eye(8), rng.normal(size=8)
    x = Tensor(np.zeros(8))
    optimizer = LBFGS([x], max_iter=60, tolerance_grad=1e-10, tolerance_change=1e-16, **WOLFE)

    def closure():
        optimizer.zero_grad()
        loss = 0.5 * (x @ (A @ x)) - b @ x
        loss.backward()
        return loss
    optimizer.step(closure)
    assert np.allclose(x.data, np.linalg.solve(A, b), atol=1e-8)
    assert optimizer.state_dict()["state"][0]["n_iter"] < 40


def explicit(changes, steps, g):
    """-H g by the definition: H of BFGS as a matrix, one update after the other."""
    n = len(g)
    H = np.eye(n)
    if len(changes):
        H *= (changes[-1] @ steps[-1]) / (changes[-1] @ changes[-1])
    for y, s in zip(changes, steps):
        V = np.eye(n) - np.outer(y, s) / (y @ s)
        H = V.T @ H @ V + np.outer(s, s) / (y @ s)
    return -H @ g


@pytest.mark.parametrize("history_size", [1, 3, 8, 100])
def test_the_direction_is_that_of_the_matrix(history_size):
    rng = np.random.RandomState(2)
    A = rng.normal(size=(5, 5))
    A = A @ A.T + 0.2 * np.eye(5)

    def f(*x):
        return sum(0.5 * float(A[i, j]) * x[i] * x[j] for i in range(5) for j in range(5)) + sum(
            each.sin() for each in x)
    optimizer, closure, calls = made(f, rng.normal(size=5).tolist(), history_size=history_size, max_iter=1,
                                     max_eval=50, tolerance_change=0.0, tolerance_grad=0.0, **WOLFE)
    points, gradients = [], []
    for step in range(14):
        points.append(np.array(numbers(optimizer)))
        closure()
        gradients.append(np.array([p.grad for p in optimizer.param_groups[0]["params"]]))
        optimizer.step(closure)
        changes, steps = np.diff(gradients, axis=0)[-history_size:], np.diff(points, axis=0)[-history_size:]
        state = optimizer.state_dict()["state"][0]
        assert np.allclose(state["old_dirs"], changes, atol=1e-12) and np.allclose(state["old_stps"], steps, atol=1e-12)
        expected = explicit(changes, steps, gradients[-1])
        assert np.allclose(state["d"], expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max())
        assert state["d"] @ gradients[-1] < 0.0   # downhill
        if np.abs(gradients[-1]).max() < 1e-6:
            break


def test_every_line_search_ends_where_the_conditions_hold():
    """The loss falls by 1e-4 of what its slope says at least, and nine tenths of the slope, at most, are left."""
    def f(x, y, z):
        return (3.0 * x).sin() + 0.3 * x * x + (x * y).cosh() + 0.5 * (y - z * z) ** 2
    searched = 0
    for seed in range(20):
        start = np.random.RandomState(seed).uniform(-2, 2, 3).tolist()
        optimizer, closure, _ = made(f, start, max_iter=1, max_eval=100, **WOLFE)
        for _ in range(8):
            loss = optimizer.step(closure)
            params = optimizer.param_groups[0]["params"]
            state = optimizer._state[0]
            slope = state["d"] @ state["prev_flat_grad"]
            after = closure()
            new_slope = state["d"] @ [p.grad for p in params]
            if slope > -1e-6:
                break
            searched += 1
            assert after.data <= loss.data + 1e-4 * state["t"] * slope
            assert abs(new_slope) <= 0.9 * abs(slope) + 1e-12
    assert searched > 60


def test_the_least_of_a_cubic():
    rng = np.random.RandomState(0)
    interior = 0
    for _ in range(200):
        a, b, c, e = rng.normal(size=4)

        def at(t):
            return Point(t, a * t**3 + b * t * t + c * t + e, 3 * a * t * t + 2 * b * t + c, None)
        one, other = at(rng.uniform(-2, 0)), at(rng.uniform(0, 2))
        t = least_of_cubic(one, other, one.t, other.t)
        assert t == least_of_cubic(other, one, one.t, other.t)
        assert one.t <= t <= other.t
        if one.t < t < other.t and abs(at(t).slope) < 1e-9 * (1 + abs(c)):
            interior += 1
            assert 6 * a * t + 2 * b >= 0   # a minimum, not a maximum
    assert interior > 60
    line = [Point(0.0, 0.0, -1.0, None), Point(1.0, -1.0, -1.0, None)]
    assert least_of_cubic(*line, 1.01, 10.0) == 10.0   # downhill as far as allowed
    assert least_of_cubic(line[0], Point(1.0, INF, INF, None), 0.0, 1.0) == 0.5
    assert least_of_cubic(line[0], line[0], 0.0, 1.0) == 0.5


def test_tolerances_and_limits_end_a_step():
    def evaluations(**case):
        optimizer, closure, calls = made(**WOLFE, **case)
        optimizer.step(closure)
        return len(calls), optimizer.state_dict()["state"][0]
    assert evaluations(tolerance_grad=1e9) == (1, {"n_iter": 0, "func_evals": 1})
    count, state = evaluations(max_iter=3, max_eval=50)
    assert state["n_iter"] == 3 and state["func_evals"] == count
    assert evaluations(max_iter=50, max_eval=4)[0] <= 5
    most = evaluations(max_iter=500)[1]["n_iter"]
    assert evaluations(max_iter=500, tolerance_change=1e-2)[1]["n_iter"] < most
    assert evaluations(max_iter=500, tolerance_grad=1.0)[1]["n_iter"] < most
    optimizer, closure, calls = made(max_iter=4)   # without a search, the last loss is not computed
    optimizer.step(closure)
    assert len(calls) == 4
    assert LBFGS([Value(1.0)], max_iter=7).param_groups[0]["max_eval"] == 8
    assert LBFGS([Value(1.0)], max_iter=1).param_groups[0]["max_eval"] == 1


def test_a_smaller_history_forgets_the_oldest():
    optimizer, closure, _ = made(max_iter=12, tolerance_change=0.0, **WOLFE)
    optimizer.step(closure)
    before = optimizer.state_dict()["state"][0]["old_stps"]
    assert len(before) == 11
    optimizer.param_groups[0].update(history_size=3, max_iter=1)
    optimizer.step(closure)
    after = optimizer.state_dict()["state"][0]["old_stps"]
    assert len(after) == 3 and np.array_equal(after[:2], before[-2:])
    optimizer.param_groups[0].update(history_size=5, max_iter=4)
    optimizer.step(closure)
    assert np.array_equal(optimizer.state_dict()["state"][0]["old_stps"][:1], after[2:])


# ---- closures ----

def trained(closure_kind, **case):
    """The numbers after 20 iterations, and what step() has returned, with a closure of this kind."""
    x, y = Value(-1.5), Value(2.0)
    optimizer = LBFGS([x, y], max_iter=20, **WOLFE, **case)
    compiled = flatgrad.compile(lambda: rosenbrock(x, y))

    def backward(f, give=lambda loss: loss):
        def closure():
            optimizer.zero_grad()
            loss = f()
            loss.backward()
            return give(loss)
        return closure
    closure = {
        "graph": backward(lambda: rosenbrock(x, y)), "compiled": backward(compiled),
        "number": backward(compiled, lambda loss: loss.data), "numpy": backward(compiled, lambda loss: np.float64(loss.data)),
        "tensor": backward(lambda: rosenbrock(x, y), lambda loss: flatgrad.stack([loss])),
        "pair": flatgrad.value_and_grad(compiled, parameters=[x, y]),
        "pair of a plain function": flatgrad.value_and_grad(lambda: rosenbrock(x, y), parameters=[x, y]),
        "pair with a Value": lambda: (compiled(), flatgrad.grad(compiled, parameters=[x, y])().tolist()),
    }[closure_kind]
    loss = optimizer.step(closure)
    return (x.data, y.data), loss


@pytest.mark.parametrize("kind", ["compiled", "number", "numpy", "tensor", "pair", "pair of a plain function",
                                  "pair with a Value"])
def test_closures_of_every_kind(kind):
    expected, loss = trained("graph")
    assert loss.data == 12.5 and type(loss) is Value
    found, loss = trained(kind)
    assert found == pytest.approx(expected, rel=1e-9)
    assert float(loss.data if type(loss) is Value else loss.item() if type(loss) is Tensor else loss) == 12.5
    assert type(loss) is {"compiled": Value, "pair with a Value": Value, "numpy": np.float64,
                          "tensor": Tensor}.get(kind, float)


@pytest.mark.parametrize("result, error, message", [
    (None, TypeError, r"closure\(\): expected the loss, a Value or a number, or a pair .*, got None: it has to return"),
    ("1.0", TypeError, r"closure\(\): expected the loss, .*, got '1.0'"), (True, TypeError, "got True"),
    (Tensor([1.0, 2.0]), TypeError, r"closure\(\): expected the loss"), ([1.0], TypeError, r"got \[1.0\]"),
    ((1.0, [1.0]), errors.ShapeError, r"the gradient by 2 parameters, an array of shape \(2,\), got one of shape \(1,\)"),
    ((1.0, "ab"), TypeError, "expected an array of numbers as the gradient, got 'ab'"),
    ((None, [1.0, 2.0]), TypeError, r"closure\(\): expected the loss"), ((1.0, 2.0, 3.0), TypeError, "expected the loss"),
    (NAN, errors.DivergedError, "loss: expected a finite number, got nan$"), (INF, FloatingPointError, "got inf"),
    ((1.0, [NAN, 1.0]), errors.GradientError, "gradient: expected finite numbers, got nan, where the loss is 1.0"),
    ((1.0, [1.0, -INF]), errors.GradientError, "got inf"), ((1.0, [1e200, 1e200]), errors.GradientError, "squares"),
])
def test_what_a_closure_must_not_return(result, error, message):
    optimizer = LBFGS([Value(1.0), Value(2.0)])
    state = optimizer.state_dict()
    with pytest.raises(error, match=message):
        optimizer.step(lambda: result)
    assert numbers(optimizer) == [1.0, 2.0]
    if "squares" not in message:
        assert optimizer.state_dict() == state


@pytest.mark.parametrize("closure", [None, 3.0, "loss"])
def test_a_closure_is_needed(closure):
    with pytest.raises(errors.ArgumentTypeError, match="closure: expected a function that computes the loss"):
        LBFGS([Value(1.0)]).step(closure)
    with pytest.raises(TypeError):
        LBFGS([Value(1.0)]).step()


# ---- errors on the way ----

class Stop(Exception):
    pass


@pytest.mark.parametrize("case", [WOLFE, {}])
@pytest.mark.parametrize("failing", range(1, 30, 4))
def test_after_an_error_the_last_whole_iteration_stands_and_training_goes_on(case, failing):
    optimizer, closure, calls = made(max_iter=100, **case)

    def fails():
        if len(calls) == failing:
            calls.append(None)
            raise Stop
        return closure()
    with pytest.raises(Stop):
        optimizer.step(fails)
    n_iter, t = [optimizer.state_dict()["state"][0][name] for name in ("n_iter", "t")]
    assert t == 0.0   # the last iteration has not moved
    single, other, _ = made(max_iter=1, max_eval=1000, **case)   # the same iterations, one by one
    for _ in range(n_iter - 1):
        single.step(other)
    assert numbers(optimizer) == pytest.approx(numbers(single), rel=1e-9)
    optimizer.step(closure)
    assert numbers(optimizer) == pytest.approx([1.0, 1.0], abs=1e-4)


def test_without_a_search_a_loss_that_is_not_finite_is_an_error():
    optimizer, closure, calls = made(lambda x: x * x, [4.0], lr=1e200)
    with pytest.raises(errors.DivergedError, match=r"got inf after iteration 1 of the step; the parameters are as the "
                                                   r"iteration before left them. A learning rate below 1e\+200 or "
                                                   r"line_search_fn='strong_wolfe' may help"):
        optimizer.step(closure)
    assert numbers(optimizer) == [4.0]


@pytest.mark.parametrize("f, start, least", [
    (lambda x: x - x.log(), 0.1, 1.0),                              # log of a negative number: a domain error
    (lambda x: (x * x).exp() - 20.0 * x, 3.0, 1.40174),              # exp overflows
    (lambda x: (x - 2.0) ** 2 + 1.0 / (x.data > 0.0), 5.0, 2.0),    # 1 / 0
    (lambda x: (x - 1.0) ** 2 * (1e200 * (x - 1.0) ** 2 + 1.0), 3.0, 1.0),   # inf, and gradients of inf
])
def test_a_line_search_goes_back_from_where_there_is_no_loss(f, start, least):
    optimizer, closure, calls = made(f, [start], lr=50.0, max_iter=200, max_eval=2000, **WOLFE)
    try:
        optimizer.step(closure)
    except errors.GradientError:
        assert start == 3.0 and least == 1.0   # at the start, squares of its gradient overflow
        return
    assert numbers(optimizer) == [pytest.approx(least, rel=1e-3)]


@pytest.mark.parametrize("beyond", [(NAN, NAN), (NAN, 1.0), (INF, -1.0), (-INF, 0.0), (-1.0, NAN), (0.0, INF)])
def test_a_line_search_goes_back_from_what_is_not_finite(beyond):
    x = Tensor([5.0])
    optimizer = LBFGS([x], lr=50.0, max_iter=50, max_eval=500, **WOLFE)
    calls = []

    def closure():
        (number,) = x.data
        calls.append(number)
        return ((number - 2.0) ** 2, [2.0 * (number - 2.0)]) if number > 1.0 else (beyond[0], [beyond[1]])
    optimizer.step(closure)
    assert min(calls) < 1.0 and x.data[0] == pytest.approx(2.0, abs=1e-6)


def test_other_errors_go_through_a_line_search():
    optimizer, closure, calls = made(**WOLFE)
    for error in (ValueError("no luck"), errors.ArgumentError("math domain error of my own"), KeyboardInterrupt()):
        def fails():
            if len(calls) > 2:
                calls.clear()
                raise error
            return closure()
        with pytest.raises(type(error)):
            optimizer.step(fails)


def test_an_optimizer_does_not_step_in_a_recording():
    optimizer, closure, _ = made()

    @flatgrad.compile
    def f(x):
        optimizer.step(closure)
        return x
    with pytest.raises(errors.ArgumentTypeError, match="an optimizer's step while a compiled function is recorded"):
        f(1.0)
    assert numbers(optimizer) == [-1.5, 2.0]


# ---- groups, hyperparameters ----

@pytest.mark.parametrize("name, value", [
    ("lr", -1.0), ("lr", NAN), ("lr", "1"), ("max_iter", 0), ("max_iter", 1.5), ("max_eval", 0), ("max_eval", "1"),
    ("tolerance_grad", -1e-9), ("tolerance_change", INF), ("history_size", 0), ("history_size", 2.0),
    ("line_search_fn", "wolfe"), ("line_search_fn", 3), ("line_search_fn", True)])
def test_hyperparameters_are_checked(name, value):
    with pytest.raises((TypeError, ValueError), match=name):
        LBFGS([Value(1.0)], **{name: value})
    optimizer, closure, calls = made()
    optimizer.param_groups[0][name] = value
    with pytest.raises((TypeError, ValueError), match=rf"param_groups\[0\]\['{name}'\]"):
        optimizer.step(closure)
    assert calls == [] and numbers(optimizer) == [-1.5, 2.0]


def test_there_is_one_group():
    x, y = Value(1.0), Value(2.0)
    assert LBFGS([{"params": [x, y], "lr": 0.5}]).lr == 0.5
    with pytest.raises(errors.ArgumentError, match="params: expected one group, as LBFGS .*, got 2"):
        LBFGS([{"params": [x]}, {"params": [y]}])
    optimizer = LBFGS([x])
    with pytest.raises(errors.ArgumentError, match="param_group: LBFGS has one group"):
        optimizer.add_param_group({"params": [y]})
    assert len(optimizer.param_groups) == 1
    with pytest.raises(errors.ArgumentError, match="empty parameter list"):
        LBFGS([])


def test_frozen_parameters_stay_and_do_not_bend_the_others():
    x, y, z = Value(-1.5), Value(2.0), Value(3.0)
    z.requires_grad = False
    optimizer = LBFGS([x, z, y], max_iter=100, **WOLFE)


    def f(x, z, y):
        z.grad = 1e6   # what is there does not count
        return rosenbrock(x, y) + z * x * 0.0
    optimizer.step(closure_of(optimizer, f))
    other, closure, _ = made(max_iter=100, **WOLFE)
    other.step(closure)
    assert (x.data, y.data) == pytest.approx(numbers(other), rel=1e-12) and z.data == 3.0 and z.grad == 1e6

    # Frozen after some iterations, with pairs that know of it; and the gradients of a pair do not count either.
    x, y = Value(-1.5), Value(2.0)
    optimizer = LBFGS([x, y], max_iter=7, **WOLFE)
    optimizer.step(closure_of(optimizer, rosenbrock))
    y.requires_grad = False
    at = y.data
    optimizer.param_groups[0]["max_iter"] = 50
    optimizer.step(closure_of(optimizer, rosenbrock))
    assert y.data == at
    expected, state = x.data, optimizer.state_dict()["state"][0]
    assert state["d"][1] == state["prev_flat_grad"][1] == 0.0 != state["d"][0]
    y.requires_grad = True
    gradient = flatgrad.grad(rosenbrock, (0, 1))
    y.requires_grad = False
    optimizer.step(lambda: (rosenbrock(x, y).data, gradient(x.data, y.data)))
    assert y.data == at and x.data == pytest.approx(expected, abs=1e-3)
    assert optimizer.state_dict()["state"][0]["prev_flat_grad"][1] == 0.0
    assert abs(gradient(x.data, at)[0]) < 1e-4


@pytest.mark.parametrize("make", [
    lambda values: [Tensor(values)], lambda values: [Tensor([values[:2], values[2:]])],
    lambda values: [Value(values[0]), Tensor(values[1:])], lambda values: [Tensor([values[:2], values[2:]]).T.T],
    lambda values: [Value(x) for x in values]])
def test_layouts_of_parameters(make):
    start = [-1.2, 1.0, 0.5, -0.5]
    params = make(start)
    optimizer = LBFGS(params, max_iter=15, **WOLFE)

    def closure():
        optimizer.zero_grad()
        x = [each for p in params for each in (p.reshape(p.size) if isinstance(p, Tensor) else [p])]
        loss = sum(rosenbrock(a, b) for a, b in zip(x, x[1:]))
        loss.backward()
        return loss
    loss = optimizer.step(closure)
    other, others, _ = made(lambda *x: sum(rosenbrock(a, b) for a, b in zip(x, x[1:])), start, max_iter=15, **WOLFE)
    assert other.step(others).data == pytest.approx(loss.data)
    found = np.concatenate([np.ravel(p.data) for p in params])
    assert found == pytest.approx(numbers(other), rel=1e-9)


def test_many_parameters():
    """More numbers than a vector of the processor has, and more pairs than there is room for at first."""
    rng = np.random.RandomState(0)
    scale, target = rng.uniform(0.1, 50.0, 1003), rng.normal(size=1003)
    x = Tensor(np.zeros(1003))
    optimizer = LBFGS([x], max_iter=300, history_size=40, tolerance_grad=1e-8, tolerance_change=0.0, **WOLFE)

    def closure():
        optimizer.zero_grad()
        loss = (scale * (x - target) ** 2).sum()
        loss.backward()
        return loss
    optimizer.step(closure)
    assert np.abs(x.data - target).max() < 1e-5
    assert optimizer.state_dict()["state"][0]["old_dirs"].shape == (40, 1003)


# ---- state ----

def same(one, other):
    """Whether two state dicts are equal, bit for bit."""
    return (one["param_groups"] == other["param_groups"] and list(one["state"][0]) == list(other["state"][0])
            and all(np.array_equal(x, other["state"][0][name]) and np.shape(x) == np.shape(other["state"][0][name])
                    for name, x in one["state"][0].items()))


@pytest.mark.parametrize("case", [{"max_iter": 3}, {"max_iter": 3, "history_size": 4, **WOLFE},
                                  {"max_iter": 15, "history_size": 4, **WOLFE}, {"max_iter": 30, **WOLFE}], ids=str)
@pytest.mark.parametrize("way", ["state", "text", "copy", "deepcopy", "pickle"])
def test_a_state_continues_bit_for_bit(case, way):
    optimizer, closure, _ = made(**case)
    for steps in range(3):
        if way in ("state", "text"):
            state = optimizer.state_dict()
            if way == "text":
                state = json.loads(json.dumps(state, default=lambda x: x.tolist()))
                for name in ("old_dirs", "old_stps"):   # lists of none have no shape
                    if name in state["state"][0]:
                        state["state"][0][name] = np.reshape(state["state"][0][name], (-1, 2))
            other = LBFGS([Value(x) for x in numbers(optimizer)])
            other.load_state_dict(state)
        else:
            other = {"copy": copy.copy, "deepcopy": copy.deepcopy,
                     "pickle": lambda x: pickle.loads(pickle.dumps(x))}[way](optimizer)
        begin = numbers(optimizer)
        optimizer.step(closure)
        expected, state = numbers(optimizer), optimizer.state_dict()
        for p, x in zip(other.param_groups[0]["params"], begin):
            p.data = x
        other.step(closure_of(other, rosenbrock))
        assert numbers(other) == expected
        assert same(other.state_dict(), state)
        assert {**other.param_groups[0], "params": 0} == {**optimizer.param_groups[0], "params": 0}


def test_a_state_is_a_copy():
    optimizer, closure, _ = made(max_iter=4)
    assert optimizer.state_dict()["state"] == [{}]
    optimizer.step(closure)
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    optimizer.step(closure)
    assert same(state, before) and not same(state, optimizer.state_dict())
    assert list(state["state"][0]) == ["n_iter", "func_evals", "d", "t", "old_dirs", "old_stps", "ro", "H_diag",
                                       "prev_flat_grad", "prev_loss"]
    other = LBFGS([Value(0.0), Value(0.0)])
    other.load_state_dict(state)
    other.step(closure_of(other, rosenbrock))
    assert same(state, before)


@pytest.mark.parametrize("change, message", [
    ({"n_iter": -1}, "n_iter"), ({"func_evals": 1.5}, "func_evals"), ({"n_iter": 2**53 + 1}, "n_iter"),
    ({"d": [1.0]}, r"\['d'\]: expected the shape \(2,\), got \(1,\)"), ({"d": [1.0, NAN]}, "d"),
    ({"old_dirs": np.ones((2, 3))}, "old_dirs"), ({"old_stps": np.ones((1, 2))}, "old_stps"), ({"ro": [1.0]}, "ro"),
    ({"ro": [1.0, -1.0, 1.0]}, "ro"), ({"H_diag": 0.0}, "H_diag"), ({"t": -1.0}, r"'t'"), ({"prev_loss": INF}, "prev_loss"),
    ({"t": [1.0]}, "'t'"), ({"momentum_buffer": [0.0, 0.0]}, "momentum_buffer"), ({"ro": "abc"}, "ro"),
])
def test_a_wrong_state_is_refused(change, message):
    optimizer, closure, _ = made(max_iter=4)
    optimizer.step(closure)
    state = optimizer.state_dict()
    before = copy.deepcopy(state)
    with pytest.raises(errors.StateError, match=message):
        optimizer.load_state_dict({**state, "state": [{**state["state"][0], **change}]})
    for name in change:
        if name in state["state"][0]:
            missing = {key: x for key, x in state["state"][0].items() if key != name}
            with pytest.raises(errors.StateError, match=name):
                optimizer.load_state_dict({**state, "state": [missing]})
    assert same(optimizer.state_dict(), before)


def test_states_of_other_optimizers_are_refused():
    optimizer, adam = LBFGS([Value(1.0)]), optim.Adam([Value(1.0)])
    for one, other in ((optimizer, adam), (adam, optimizer)):
        with pytest.raises(errors.StateError):
            one.load_state_dict(other.state_dict())


# ---- with the rest of the package ----

def moons():
    X, y = flatgrad.datasets.make_moons(60, noise=0.1, random_state=1)
    return X, 2 * y - 1


def trainer_of(batch_norm=False, **options):
    random.seed(1337)
    model = nn.MLP(2, [8, 1], activation="tanh")
    optimizer = LBFGS(model.parameters(), lr=0.5, max_iter=5, **WOLFE)
    return Trainer(model, optimizer, "mse", penalty=lambda p: 1e-4 * losses.l2(p), **options)


def test_the_trainer_takes_it():
    X, y = moons()
    trainer = trainer_of(metrics=["accuracy"])
    trainer.optimizer.param_groups[0]["lr"] = 1.0
    history = trainer.fit(X, y, epochs=20, progress=False)
    assert trainer.engine == "python: the optimizer LBFGS evaluates the loss several times in a step"
    assert history.loss[-1] < 0.1 < history.loss[0] and history.accuracy[-1] == 1.0
    random.seed(1337)   # the same by hand
    model = nn.MLP(2, [8, 1], activation="tanh")
    optimizer = LBFGS(model.parameters(), max_iter=5, **WOLFE)
    X, y = Tensor(X, requires_grad=False), Tensor(y[:, None].astype(float), requires_grad=False)
    for epoch in range(20):
        def closure():
            optimizer.zero_grad()
            loss = losses.mse(model(X), y) + 1e-4 * losses.l2(model.parameters())
            loss.backward()
            return loss
        assert optimizer.step(closure).data == history.loss[epoch]
    assert [p.data for p in model.parameters()] == [p.data for p in trainer.model.parameters()]


def test_the_trainer_with_batches_a_schedule_and_a_checkpoint(tmp_path):
    X, y = moons()

    def run(epochs, trainer=None):
        trainer = trainer or trainer_of()
        trainer.scheduler = trainer.scheduler or optim.lr_scheduler.ExponentialLR(trainer.optimizer, 0.9)
        trainer.fit(X, y, epochs=epochs, batch_size=20, seed=3, progress=False)
        return trainer
    whole, part = run(6), run(3)
    part.save(tmp_path / "c.npz")
    again = trainer_of()
    again.scheduler = optim.lr_scheduler.ExponentialLR(again.optimizer, 0.9)
    again.load(tmp_path / "c.npz")
    run(3, again)
    assert [p.data for p in again.model.parameters()] == [p.data for p in whole.model.parameters()]
    assert again.history.loss == whole.history.loss and again.optimizer.lr == pytest.approx(0.5 * 0.9**6)


def test_the_trainer_says_where_the_loss_is_not_finite():
    X, y = moons()
    trainer = trainer_of()
    trainer.optimizer.param_groups[0].update(line_search_fn=None, lr=1e200)
    with pytest.raises(errors.DivergedError, match="after iteration") as caught:
        trainer.fit(X, y, epochs=3, progress=False)
    assert caught.value.epoch == 1 and caught.value.history is trainer.history
    assert all(math.isfinite(p.data) for p in trainer.model.parameters())
    trainer = trainer_of()
    trainer.loss = lambda prediction, target: losses.mse(prediction, target) * INF
    trainer._task.loss = trainer.loss
    with pytest.raises(errors.DivergedError, match="in epoch 1; the model is as the step before left it"):
        trainer.fit(X, y, epochs=3, progress=False)


def test_the_compiled_engines_refuse_it():
    X, y = moons()
    with pytest.raises(errors.ArgumentError, match="engine: .*LBFGS evaluates the loss several times"):
        trainer_of().fit(X, y, epochs=100, progress=False, engine="compiled")
    optimizer, _, _ = made()
    x, y = optimizer.param_groups[0]["params"]
    loss = flatgrad.compile(lambda: rosenbrock(x, y))
    with pytest.raises(errors.ArgumentTypeError, match="minimize: optimizer: expected one that steps by one gradient, "
                                                       "got a LBFGS"):
        loss.minimize(optimizer, steps=3)


def test_clipping_and_schedules_take_it():
    optimizer, closure, _ = made(**WOLFE)
    closure()
    assert optim.clip_grad_norm_(optimizer, 1.0) > 100.0
    schedule = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    for loss in (1.0, 1.0, 1.0):
        schedule.step(loss)
    assert optimizer.lr == pytest.approx(0.01)
    with pytest.raises(errors.ArgumentError):
        optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)


def test_repr():
    assert repr(LBFGS([Value(1.0), Value(2.0)])) == (
        "LBFGS(2 parameters, lr=1.0, max_iter=20, max_eval=25, tolerance_grad=1e-07, tolerance_change=1e-09, "
        "history_size=100, line_search_fn=None)")


# ---- the core's part ----

def test_the_core_refuses_arrays_that_do_not_fit():
    parameters = _core.Parameters([Value(1.0), Tensor([2.0, 3.0])])
    three, two = np.zeros(3), np.zeros(2)
    for call in (lambda: parameters.get_data(two), lambda: parameters.get_grad(two), lambda: parameters.set_data(two),
                 lambda: parameters.set_data(three, 1.0, two), lambda: parameters.clear_frozen(two)):
        with pytest.raises(ValueError, match="expected an array of 3 numbers, got one of 2"):
            call()
    rows, ro = np.zeros((2, 3)), np.ones(2)
    for call in (lambda: _core._lbfgs_pair(rows, rows, 2, three, three, three, 1.0),
                 lambda: _core._lbfgs_pair(rows, rows[:1], 0, three, three, three, 1.0),
                 lambda: _core._lbfgs_pair(rows, rows, 0, three, two, three, 1.0),
                 lambda: _core._lbfgs_pair(rows, rows, 0, two, two, two, 1.0),
                 lambda: _core._lbfgs_direction(rows, rows, ro, 0, 3, 1.0, three, three.copy(), ro),
                 lambda: _core._lbfgs_direction(rows, rows, ro, 2, 2, 1.0, three, three.copy(), ro),
                 lambda: _core._lbfgs_direction(rows, rows, ro, 0, 2, 1.0, three, three.copy(), ro[:1]),
                 lambda: _core._lbfgs_direction(rows, rows, ro, 0, 2, 1.0, two, three.copy(), ro),
                 lambda: _core._dot_and_largest(two, three)):
        with pytest.raises(ValueError, match="expected arrays that fit each other"):
            call()


def test_the_core_moves_numbers():
    a, t, b = Value(1.0), Tensor([[2.0, 3.0], [4.0, 5.0]]), Value(6.0)
    parameters = _core.Parameters([a, t, b])
    (a * 1.0 + (t * [[2.0, 3.0], [4.0, NAN]]).sum() + b * -6.0).backward()
    to = np.empty(6)
    parameters.get_data(to)
    assert to.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert math.isnan(parameters.get_grad(to)) and to[:4].tolist() == [1.0, 2.0, 3.0, 4.0] and to[5] == -6.0
    t.grad = np.ones((2, 2))
    assert parameters.get_grad(to) == 6.0
    b.requires_grad = False
    assert parameters.get_grad(to) == 1.0 and to.tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    parameters.set_data(np.arange(6.0), 2.0, np.ones(6))
    assert [a.data, *t.data.ravel(), b.data] == [2.0, 3.0, 4.0, 5.0, 6.0, 6.0]
    parameters.set_data(-np.arange(6.0))
    assert [a.data, *t.data.ravel(), b.data] == [0.0, -1.0, -2.0, -3.0, -4.0, 6.0]
    x = np.ones(6)
    parameters.clear_frozen(x)
    assert x.tolist() == [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]
