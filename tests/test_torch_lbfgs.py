"""L-BFGS against PyTorch's, in float64: the iterates of every step, the state, and what a step returns."""
import itertools
import math

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, losses, nn, optim

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

RNG = np.random.RandomState(5)
A = RNG.normal(size=(6, 6))
A = A @ A.T + 0.1 * np.eye(6)
START6 = RNG.normal(size=6)


def rosenbrock(x):
    return sum(100.0 * (x[k + 1] - x[k] * x[k]) ** 2 + (1.0 - x[k]) ** 2 for k in range(len(x) - 1))


def quadratic(x):
    return sum(0.5 * float(A[i, j]) * x[i] * x[j] for i in range(6) for j in range(6)) - x[0] + 2.0 * x[5]


def bumps(x):
    """Not convex, so that the line search has to look around."""
    return sum((3.0 * each).sin() * (1.0 + k) + 0.1 * each * each for k, each in enumerate(x)) + x[0] * x[1]


def logistic(x):
    points = [(-1.0, 0.3, 1.0), (0.5, -0.8, -1.0), (0.2, 0.9, 1.0), (-0.4, -1.3, -1.0), (1.5, 0.1, -1.0)]
    return sum((1.0 + (-(t * (a * x[0] + b * x[1] + x[2]))).exp()).log() for a, b, t in points) + 0.01 * x[0] * x[0]


def plane(x):
    """Linear: the line search goes as far as it may."""
    return 2.0 * x[0] - 0.5 * x[1]


PROBLEMS = {"rosenbrock": (rosenbrock, [-1.5, 2.0]), "rosenbrock of 5": (rosenbrock, [-1.2, 1.0, 0.5, -0.5, 1.5]),
            "quadratic": (quadratic, START6.tolist()), "bumps": (bumps, [0.3, -0.8, 1.7]),
            "logistic": (logistic, [0.0, 0.0, 0.0]), "plane": (plane, [1.0, 1.0])}
WOLFE = {"line_search_fn": "strong_wolfe"}
CASES = [(name, {**search, **case}) for name, search, case in itertools.product(
    PROBLEMS, [WOLFE, {}], [{}, {"history_size": 3}, {"max_iter": 1}, {"max_iter": 7, "max_eval": 5}, {"lr": 0.1},
                            {"tolerance_grad": 1e-2}, {"tolerance_change": 1e-3}, {"tolerance_change": 0.0}, {"lr": 0.5, "max_iter": 2}])
         if (name, {**search, **case}) != ("plane", {**WOLFE, "lr": 0.1})]   # a cubic that is a line but for rounding


def both(f, start, case):
    """Two optimizers with their parameters and closures, and lists of the points where these were called."""
    ours, theirs = [Value(x) for x in start], [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in start]
    found = []
    for params, module in ((ours, optim), (theirs, torch.optim)):
        points = []

        def closure(params=params, points=points):
            points.append([float(p.data) for p in params])
            for p in params:
                p.grad = 0.0 if isinstance(p, Value) else None
            loss = f(params)
            loss.backward()
            return loss
        found.append((params, module.LBFGS(params, **case), closure, points))
    return found


def array_of(x):
    return x.numpy() if isinstance(x, torch.Tensor) else np.array([array_of(row) for row in x] if type(x) is list else x)


def follow(f, start, case, steps=3, rtol=1e-9, other=None, evaluations=25):
    """AssertionError where the two part. Rounding in a sum grows from one iterate to the next, so that the points of
    later evaluations are not compared."""
    (x, ours, closure, points), (y, theirs, their_closure, their_points) = both(f, start, case)
    if other is not None:
        theirs = torch.optim.LBFGS(y, **other)
    for _ in range(steps):
        loss, expected = ours.step(closure), theirs.step(their_closure)
        if len(their_points) <= evaluations:
            assert loss.data == pytest.approx(expected.item(), rel=rtol, abs=rtol)
            assert len(points) == len(their_points)
            state, their_state = ours.state_dict()["state"][0], theirs.state[y[0]]
            assert [state[name] for name in ("n_iter", "func_evals")] == [
                their_state[name] for name in ("n_iter", "func_evals")]
            if state["n_iter"] > 0:
                for name in ("d", "t", "old_dirs", "old_stps", "ro", "H_diag", "prev_flat_grad", "prev_loss"):
                    got, expected = np.array(state[name]), array_of(their_state[name])
                    assert got.size == expected.size, name
                    assert np.allclose(got.ravel(), expected.ravel(), rtol=0.0,
                                       atol=1e3 * rtol * np.abs(expected).max(initial=0.0)), name
    n = min(evaluations, len(their_points))
    assert len(points) >= n
    scale = np.abs(their_points[:n]).max()
    assert np.allclose(points[:n], their_points[:n], rtol=0.0, atol=rtol * scale)


@pytest.mark.parametrize("name, case", CASES, ids=str)
def test_the_iterates(name, case):
    follow(*PROBLEMS[name], case)


@pytest.mark.parametrize("name, case, other", [
    ("quadratic", {}, {"lr": 1.0 + 1e-7}), ("quadratic", {"history_size": 3}, {"history_size": 4}),
    ("rosenbrock", WOLFE, {**WOLFE, "max_iter": 19}), ("rosenbrock", {}, WOLFE), ("bumps", WOLFE, {**WOLFE, "lr": 0.9}),
    ("quadratic", {}, {"tolerance_grad": 1e-2}), ("quadratic", {}, {"tolerance_change": 1e-2}),
    ("quadratic", {}, {"max_eval": 8}),
])
def test_a_difference_is_caught(name, case, other):
    with pytest.raises(AssertionError):
        follow(*PROBLEMS[name], case, other=other)


@pytest.mark.parametrize("case", [{}, WOLFE, {**WOLFE, "max_eval": 3}, {"max_iter": 3}], ids=str)
def test_batches_that_change_from_step_to_step(case):
    """Then a pair of changes is one of two functions, and may have no curvature at all."""
    for k in range(4):
        batch = []

        def f(x):
            return quadratic(x) * (1.1 + math.cos(batch[0])) + 2.0 * sum(each * each for each in x) + batch[0] * x[3]
        (x, ours, closure, points), (y, theirs, their_closure, their_points) = both(f, START6, case)
        for step in range(3):
            batch[:] = [(0.7 * k + 1.9 * step) % 5.0]
            assert ours.step(closure).data == pytest.approx(theirs.step(their_closure).item(), rel=1e-9)
            assert len(points) == len(their_points)
            assert np.allclose(points, their_points, rtol=1e-8, atol=1e-8)


def test_hyperparameters_and_learning_rates_that_change():
    (x, ours, closure, points), (y, theirs, their_closure, their_points) = both(rosenbrock, [-1.5, 2.0], {"lr": 0.3})
    schedules = [optim.lr_scheduler.StepLR(ours, 1, 0.5), torch.optim.lr_scheduler.StepLR(theirs, 1, 0.5)]
    for k in range(4):
        for optimizer, call, schedule in zip((ours, theirs), (closure, their_closure), schedules):
            optimizer.param_groups[0]["max_iter"] = 4 + k
            optimizer.step(call)
            schedule.step()
        assert ours.lr == theirs.param_groups[0]["lr"]
    assert len(points) == len(their_points) and np.allclose(points, their_points, rtol=1e-9)


def test_names_and_defaults():
    for case in ({}, {"max_iter": 7}, {"max_iter": 7, "max_eval": 3, **WOLFE}):
        ours = optim.LBFGS([Value(1.0)], **case).param_groups[0]
        theirs = torch.optim.LBFGS([torch.tensor(1.0, requires_grad=True)], **case).param_groups[0]
        assert {**ours, "params": 0} == {**theirs, "params": 0} and list(ours) == list(theirs)


@pytest.mark.parametrize("case", [WOLFE, {}], ids=str)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_perceptron(case, compiled):
    """With its weights as Values, half of them frozen in the end, against PyTorch's of the same numbers."""
    X = np.random.RandomState(0).uniform(-1.0, 1.0, (30, 2))
    Y = np.sin(3.0 * X[:, :1]) * X[:, 1:]
    model = nn.MLP(2, [8, 1], activation="tanh")
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    numbers = np.array([p.data for p in model.parameters()])
    hidden, out = numbers[:24].reshape(8, 3), numbers[24:]
    for parameter, array in zip(net.parameters(), (hidden[:, :2], hidden[:, 2], out[None, :8], out[8:])):
        parameter.data = torch.tensor(array)
    ours = optim.LBFGS(model.parameters(), lr=0.5, **case)
    theirs = torch.optim.LBFGS(net.parameters(), lr=0.5, **case)
    x, y = torch.tensor(X), torch.tensor(Y)

    def loss():
        return losses.mse(model(X), Y)

    if compiled:
        loss = flatgrad.compile(loss)

    def closure():
        ours.zero_grad()
        result = loss()
        result.backward()
        return result

    def their_closure():
        theirs.zero_grad()
        result = torch.nn.functional.mse_loss(net(x), y)
        result.backward()
        return result

    for step in range(3):
        found, expected = ours.step(closure), theirs.step(their_closure)
        assert found.data == pytest.approx(expected.item(), rel=1e-7)
    assert loss().data < 0.5 * float(np.mean(Y**2))
    before = net[0].weight.detach().clone()
    model.layers[0].requires_grad_(False)
    net[0].requires_grad_(False)
    net[0].weight.grad = net[0].bias.grad = None
    ours, theirs = optim.LBFGS(model.parameters(), **case), torch.optim.LBFGS(net.parameters(), **case)
    if not compiled:
        assert ours.step(closure).data == pytest.approx(theirs.step(their_closure).item(), rel=1e-6)
        assert loss().data == pytest.approx(their_closure().item(), rel=1e-5)
    assert torch.equal(before, net[0].weight)


@pytest.mark.parametrize("case", [WOLFE, {}], ids=str)
def test_tensors_and_values_together(case):
    start = np.array([-1.2, 1.0, 0.5, -0.5, 1.5])
    value, tensor = Value(start[0]), Tensor(start[1:].reshape(2, 2))
    ours = optim.LBFGS([value, tensor], **case)
    y = torch.tensor(start, requires_grad=True)
    theirs = torch.optim.LBFGS([y], **case)

    def closure():
        ours.zero_grad()
        loss = rosenbrock([value, *tensor.reshape(4)])
        loss.backward()
        return loss

    def their_closure():
        theirs.zero_grad()
        loss = rosenbrock(list(y))
        loss.backward()
        return loss

    ours.step(closure), theirs.step(their_closure)
    assert np.allclose([value.data, *tensor.data.ravel()], y.detach().numpy(), rtol=1e-8)


def test_where_nothing_gets_better():
    """At the floor of rounding the line search ends by its own tolerance, whatever `tolerance_change` says."""
    case = {**WOLFE, "tolerance_change": 0.0, "tolerance_grad": 0.0, "max_iter": 100, "max_eval": 1000}
    for f, start in (quadratic, START6), (bumps, [0.3, -0.8, 1.7]):
        (x, ours, closure, points), (y, theirs, their_closure, their_points) = both(f, start, case)
        for _ in range(3):
            ours.step(closure), theirs.step(their_closure)
        assert len(points) < 400 and len(their_points) < 400
        assert np.allclose(points[-1], their_points[-1], atol=1e-6)


@pytest.mark.parametrize("seed", range(60))
def test_losses_and_gradients_of_any_kind(seed):
    """They come from a list, whatever the parameters: the line search meets all that it may meet."""
    rng = np.random.RandomState(seed)
    table = np.round(np.cumsum(rng.normal(-0.3, 1.0, 60)), 3), rng.normal(0.0, 1.0, (60, 3)) + [-2.0, -2.0, 0.0]
    case = {**WOLFE, "max_iter": 5, "max_eval": 40, "lr": [1.0, 0.1, 3.0][seed % 3]}
    y = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    x = Tensor(np.zeros(3))
    called = []
    for params, module in ((x, optim), (y, torch.optim)):
        points = []

        def closure():
            points.append(params.detach().numpy().copy())
            k = len(points) - 1
            if params is y:
                y.grad = torch.tensor(table[1][k])
                return float(table[0][k])
            return float(table[0][k]), table[1][k]
        module.LBFGS([params], **case).step(closure)
        called.append(np.array([*points, params.detach().numpy()]))
    ours, theirs = called
    finite = np.isfinite(theirs).all(axis=1)   # PyTorch divides 0 by 0 in some, and goes on
    count = len(theirs) if finite.all() else int(finite.argmin())
    assert ours.shape == theirs.shape or not finite.all()
    assert np.allclose(ours[:count], theirs[:count], rtol=1e-9, atol=1e-12 * np.abs(theirs[:count]).max())
