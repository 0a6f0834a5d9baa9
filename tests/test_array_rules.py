"""Optimizers whose rule is NumPy's: states, frozen parameters, groups, what they refuse, and the loops that take them.

Their numbers stand beside PyTorch's in test_torch_optim.py; broken states are in test_files.py.
"""
import copy
import itertools
import math
import pickle

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value
from flatgrad.errors import AnomalyError, ArgumentError, ArgumentTypeError, StateError
from flatgrad.nn import MLP
from flatgrad.optim import Adamax, NAdam, RAdam, Rprop, array_rules, lr_scheduler
from flatgrad.train import Trainer

KINDS = [getattr(flatgrad.optim, name) for name in array_rules.__all__]
every_kind = pytest.mark.parametrize("make", KINDS)
pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def parameters():
    return [Value(1.0), Tensor([[2.0, -3.0], [0.5, 4.0]]), Value(-1.0)]


def numbers(params):
    return np.concatenate([np.ravel(p.data) for p in params])


def take(optimizer, params, steps, start=0):
    """Steps by gradients that depend on their number alone."""
    for t in range(start, start + steps):
        for k, p in enumerate(params):
            four = np.sin(np.arange(4.0).reshape(2, 2) + t + k)
            p.grad = math.cos(2.0 * t + k) + 0.2 if isinstance(p, Value) else four
        optimizer.step()
    return numbers(params)


def reference(kind, x, gradients, lr):
    """The papers' formulas, one number at a time, with the defaults of all the rest."""
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    m = v = u = before = 0.0
    c, s = 1.0, lr
    for t, g in enumerate(gradients, 1):
        m, v, u = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g, max(beta2 * u, abs(g) + eps)
        if kind is Adamax:
            x -= lr / (1 - beta1**t) * m / u
        elif kind is NAdam:
            now, following = (beta1 * (1 - 0.5 * 0.96 ** (k * 0.004)) for k in (t, t + 1))
            c *= now
            step = (1 - now) / (1 - c) * g + following / (1 - c * following) * m
            x -= lr * step / (math.sqrt(v / (1 - beta2**t)) + eps)
        elif kind is RAdam:
            n = 2 / (1 - beta2) - 1
            k = n - 2 * t * beta2**t / (1 - beta2**t)
            r = 1.0
            if k > 5:
                r = math.sqrt((k - 4) * (k - 2) * n / ((n - 4) * (n - 2) * k) * (1 - beta2**t)) / (math.sqrt(v) + eps)
            x -= lr * m / (1 - beta1**t) * r
        else:
            if g * before < 0:
                s, g = max(1e-6, 0.5 * s), 0.0
            elif g * before > 0:
                s = min(50.0, 1.2 * s)
            x, before = x - s * ((g > 0) - (g < 0)), g
    return x


@every_kind
def test_formulas(make):
    gradients = [math.sin(0.7 * t) + 0.1 * (t % 3) for t in range(60)]
    x = Value(1.5)
    optimizer = make([x], lr=0.01)
    for g in gradients:
        x.grad = g
        optimizer.step()
    assert x.data == pytest.approx(reference(make, 1.5, gradients, 0.01), rel=1e-12)
    assert x.data != pytest.approx(reference(make, 1.5, gradients, 0.01001), rel=1e-7)


@every_kind
@pytest.mark.parametrize("at", [0, 1, 7])
def test_states_resume_bit_for_bit(make, at):
    params, others = parameters(), parameters()
    expected = take(make(params), params, 20)
    first = make(others)
    take(first, others, at)
    state = first.state_dict()
    before = repr(state)
    second = make(others, lr=7.0)
    second.load_state_dict(state)
    assert np.array_equal(take(second, others, 20 - at, at), expected)
    assert repr(state) == before
    assert state["param_groups"][0]["lr"] == second.lr == make(parameters()).lr


@every_kind
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_go_on_alone(make, copied):
    params = parameters()
    optimizer = make(params)
    take(optimizer, params, 5)
    others, other = copied((params, optimizer))
    expected = take(optimizer, params, 5, 5)
    assert np.array_equal(take(other, others, 5, 5), expected)
    assert np.array_equal(numbers(params), expected)


@every_kind
def test_groups_and_their_learning_rates(make):
    params, alone = parameters(), [parameters(), parameters()]
    optimizer = make([{"params": params[:1]}, {"params": params[1:], "lr": 0.3}], lr=0.05)
    take(optimizer, params, 9)
    take(make(alone[0], lr=0.05), alone[0], 9)
    take(make(alone[1], lr=0.3), alone[1], 9)
    assert np.array_equal(numbers(params[:1]), numbers(alone[0][:1]))
    assert np.array_equal(numbers(params[1:]), numbers(alone[1][1:]))
    optimizer.zero_grad()
    assert [np.any(p.grad) for p in params] == [False] * 3


@every_kind
def test_what_is_frozen_stays_with_its_state(make):
    params = parameters()
    optimizer = make(params)
    take(optimizer, params, 3)
    before, state = numbers(params), optimizer.state_dict()["state"][0]
    params[0].requires_grad = params[1].requires_grad = False
    after = take(optimizer, params, 2, 3)
    now = optimizer.state_dict()["state"][0]
    assert np.array_equal(after[:5], before[:5]) and after[5] != before[5]
    for name, array in state.items():
        if isinstance(array, np.ndarray):
            assert np.array_equal(now[name][:5], array[:5])
    if make is Rprop:   # whose state does not depend on the number of steps: frozen from the first step on
        optimizer, free = make(params), parameters()
        take(optimizer, params, 1)
        params[0].requires_grad = params[1].requires_grad = True
        for p, q in zip(free, params):
            p.data = q.data
        assert np.array_equal(take(optimizer, params, 4, 1)[:5], take(make(free), free, 4, 1)[:5])


@every_kind
def test_a_closure_and_its_result(make):
    x = Value(3.0)
    optimizer = make([x], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = x * x
        loss.backward()
        return loss

    assert optimizer.step(closure).data == 9.0 and x.data < 3.0 and optimizer.step() is None
    with pytest.raises(ArgumentTypeError, match="closure: expected a callable that returns the loss, got 3"):
        optimizer.step(3)


@every_kind
@pytest.mark.parametrize("change", [
    lambda groups: groups[1].update(lr=-1.0), lambda groups: groups[1].update(lr="x"),
    lambda groups: groups[1].update(maximize=2), lambda groups: groups[1].pop("maximize"), lambda groups: groups.pop()])
def test_a_step_that_fails_changes_nothing(make, change):
    params = parameters()
    optimizer = make([{"params": params[:1]}, {"params": params[1:]}])
    take(optimizer, params, 2)
    before, state = numbers(params), optimizer.state_dict()["state"]
    change(optimizer.param_groups)
    with pytest.raises((ArgumentError, ArgumentTypeError), match="param_groups"):
        optimizer.step()
    assert np.array_equal(numbers(params), before)
    assert repr(state) == repr([optimizer._saved(one) for one in optimizer._state])


@pytest.mark.parametrize("make, options, error, message", [
    (NAdam, {"lr": -1.0}, ValueError, "lr: expected a finite number, 0 or more, got -1.0"),
    (NAdam, {"momentum_decay": -0.1}, ValueError, "momentum_decay: expected a finite number, 0 or more"),
    (NAdam, {"betas": (0.9, 1.0)}, ValueError, r"betas\[1\]: expected a number from 0 to below 1, got 1.0"),
    (NAdam, {"decoupled_weight_decay": 1}, TypeError, "decoupled_weight_decay: expected True or False, got 1"),
    (RAdam, {"betas": 0.9}, TypeError, "betas: expected a pair of numbers, got 0.9"),
    (RAdam, {"eps": math.nan}, ValueError, "eps: expected a finite number, 0 or more, got nan"),
    (Adamax, {"weight_decay": "x"}, TypeError, "weight_decay: expected a finite number, 0 or more, got 'x'"),
    (Rprop, {"etas": (1.5, 0.5)}, ValueError, r"etas: expected a number between 0 and 1, and one above 1, got"),
    (Rprop, {"etas": 0.5}, TypeError, "etas: expected a pair of numbers, got 0.5"),
    (Rprop, {"etas": ("x", 2.0)}, TypeError, r"etas\[0\]: expected a finite number, got 'x'"),
    (Rprop, {"step_sizes": (1.0, 0.5)}, ValueError, r"step_sizes: expected two numbers of 0 or more, the smaller one"),
    (Rprop, {"step_sizes": (-1.0, 0.5)}, ValueError, r"step_sizes: expected two numbers of 0 or more, the smaller one"),
])
def test_wrong_arguments(make, options, error, message):
    with pytest.raises(error, match=message):
        make([Value(1.0)], **options)


@pytest.mark.parametrize("make, name, wrong, message", [
    (NAdam, "mu_product", 1.0, r"\['mu_product'\]: expected a number from 0 to below 1, got 1.0"),
    (NAdam, "mu_product", np.ones(6), r"\['mu_product'\]: expected a number from 0 to below 1"),
    (NAdam, "exp_avg_sq", -np.ones(6), r"\['exp_avg_sq'\]: expected averages of squares, 0 or more, got -1"),
    (Adamax, "exp_inf", -np.ones(6), r"\['exp_inf'\]: expected numbers of 0 or more, got -1"),
    (Rprop, "step_size", -np.ones(6), r"\['step_size'\]: expected numbers of 0 or more, got -1"),
    (RAdam, "step", 2**53 + 1, r"\['step'\]: expected an int, 9007199254740992 at most"),
    (RAdam, "exp_avg", np.ones(5), r"\['exp_avg'\]: expected the shape \(6,\), got \(5,\)"),
])
def test_broken_states(make, name, wrong, message):
    params = parameters()
    optimizer = make(params)
    take(optimizer, params, 2)
    state = optimizer.state_dict()
    state["state"][0][name] = wrong
    with pytest.raises(StateError, match=message):
        optimizer.load_state_dict(state)
    take(optimizer, params, 1, 2)
    others = parameters()
    assert np.array_equal(numbers(params), take(make(others), others, 3))


@every_kind
def test_loops_that_are_compiled_do_not_have_the_rule(make):
    w = Value(3.0)
    loss = flatgrad.compile(lambda x: (w - x) ** 2)
    message = f"minimize: optimizer: expected one whose rule is C, got a {make.__name__}"
    with pytest.raises(ArgumentTypeError, match=message):
        loss.minimize(make([w]), 1.0, steps=3)
    assert w.data == 3.0
    recorded = make([w])
    with pytest.raises(ArgumentTypeError, match="an optimizer's step"):
        flatgrad.compile(lambda x: recorded.step() or x * w)(1.0)
    assert recorded.state_dict()["state"] == [{}] and w.data == 3.0


@every_kind
def test_the_trainer_takes_its_loop_in_python(make):
    X = np.random.default_rng(0).normal(size=(16, 2))
    y = X[:, 0] * X[:, 1]
    model = MLP(2, [4, 1], "tanh", rng=0)
    optimizer = make(model.parameters(), lr=0.02)
    trainer = Trainer(model, optimizer, "mse", scheduler=lr_scheduler.StepLR(optimizer, 10))
    history = trainer.fit(X, y, epochs=40, batch_size=16, progress=False)
    assert trainer.engine == f"python: the optimizer {make.__name__} computes its steps with NumPy"
    assert history["loss"][-1] < history["loss"][0]
    with pytest.raises((ArgumentError, ArgumentTypeError), match=f"{make.__name__} computes its steps with NumPy"):
        trainer.fit(X, y, epochs=1, engine="compiled")


@every_kind
def test_an_anomaly_is_found(make):
    x, t = Value(1.0), Tensor([1.0, 2.0])
    optimizer = make([x, t])
    x.grad, t.grad = 1.0, [1.0, math.inf]
    if make is Rprop:   # no gradient makes its step inf
        t.data = [1.0, math.inf]
        t.grad = [1.0, 1.0]
    with flatgrad.detect_anomaly():
        if make is Rprop:
            assert optimizer.step() is None   # it was inf before
            return
        with pytest.raises(AnomalyError, match="the step of the optimizer made parameter 1 of group 0") as caught:
            optimizer.step()
    assert caught.value.filename == __file__ and caught.value.line == "optimizer.step()"


def test_every_combination_of_kinds_keeps_its_name():
    for first, second in itertools.permutations(KINDS, 2):
        with pytest.raises(StateError, match="is it the state of another class"):
            first([Value(1.0)]).load_state_dict(second([Value(1.0)]).state_dict())
