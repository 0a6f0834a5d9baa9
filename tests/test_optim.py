"""Optimizers against their formulas in plain Python: trajectories, groups, state, layouts, errors."""
import copy
import json
import math
import pickle
import random
from fractions import Fraction

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, errors
from flatgrad.nn import MLP
from flatgrad.optim import (SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RMSprop, clip_grad_norm_,
                            clip_grad_value_)


INF, NAN, MINUS = math.inf, math.nan, -1.0


pytestmark = pytest.mark.usefixtures("nothing_left_behind")


# ---- the formulas, over lists of floats ----

def reference_sgd(x, gradient, state, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False,
                  maximize=False):
    """One step; x and state change in place."""
    if maximize:
        return reference_sgd(x, [-g for g in gradient], state, lr, momentum, dampening, weight_decay, nesterov)
    first = momentum != 0 and "b" not in state
    if first:
        state["b"] = [None] * len(x)
    for i, g in enumerate(gradient):
        d = g + weight_decay * x[i]
        if momentum != 0:
            b = state["b"][i] = d if first else momentum * state["b"][i] + (1 - dampening) * d
            d = d + momentum * b if nesterov else b
        x[i] = x[i] - float(lr) * d


def reference_adam(x, gradient, state, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False,
                   maximize=False, decoupled_weight_decay=False):
    state["t"] = t = state.get("t", 0) + 1
    m, v, largest = [state.setdefault(name, [0.0] * len(x)) for name in ("m", "v", "largest")]
    for i, g in enumerate(gradient):
        d = -g if maximize else g
        if decoupled_weight_decay:
            x[i] = x[i] - float(lr) * weight_decay * x[i]
        else:
            d = d + weight_decay * x[i]
        m[i] = betas[0] * m[i] + (1 - betas[0]) * d
        v[i] = betas[1] * v[i] + (1 - betas[1]) * d * d
        scale = v[i]
        if amsgrad:
            scale = largest[i] = max(largest[i], v[i])
        mean, square = m[i] / (1 - betas[0] ** t), scale / (1 - betas[1] ** t)
        x[i] = x[i] - float(lr) * mean / (math.sqrt(square) + eps)


def reference_adamw(x, gradient, state, weight_decay=1e-2, **hyperparameters):
    reference_adam(x, gradient, state, weight_decay=weight_decay, decoupled_weight_decay=True, **hyperparameters)


def reference_rmsprop(x, gradient, state, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0,
                      centered=False, maximize=False):
    v, a, b = [state.setdefault(name, [0.0] * len(x)) for name in "vab"]
    for i, g in enumerate(gradient):
        d = (-g if maximize else g) + weight_decay * x[i]
        v[i] = alpha * v[i] + (1 - alpha) * d * d
        a[i] = alpha * a[i] + (1 - alpha) * d
        size = math.sqrt(v[i] - a[i] ** 2 if centered else v[i]) + eps
        b[i] = momentum * b[i] + d / size
        x[i] = x[i] - lr * b[i]


def reference_adagrad(x, gradient, state, lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0,
                      eps=1e-10, maximize=False):
    state["t"] = t = state.get("t", 0) + 1
    total = state.setdefault("sum", [initial_accumulator_value] * len(x))
    for i, g in enumerate(gradient):
        d = (-g if maximize else g) + weight_decay * x[i]
        total[i] += d * d
        x[i] = x[i] - lr / (1 + (t - 1) * lr_decay) * d / (math.sqrt(total[i]) + eps)


def reference_adadelta(x, gradient, state, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0, maximize=False):
    v, u = [state.setdefault(name, [0.0] * len(x)) for name in "vu"]
    for i, g in enumerate(gradient):
        d = (-g if maximize else g) + weight_decay * x[i]
        v[i] = rho * v[i] + (1 - rho) * d * d
        s = math.sqrt(u[i] + eps) / math.sqrt(v[i] + eps) * d
        u[i] = rho * u[i] + (1 - rho) * s * s
        x[i] = x[i] - lr * s


REFERENCE = {SGD: reference_sgd, Adam: reference_adam, AdamW: reference_adamw, RMSprop: reference_rmsprop,
             Adagrad: reference_adagrad, Adadelta: reference_adadelta}

SGD_CASES = [
    {}, {"lr": 0.1}, {"lr": 0}, {"lr": 0.05, "weight_decay": 0.1}, {"lr": 0.02, "momentum": 0.9},
    {"lr": 0.02, "momentum": 0.5, "dampening": 0.3}, {"lr": 0.02, "momentum": 0.9, "nesterov": True},
    {"lr": 0.01, "momentum": 0.9, "dampening": 0.9, "weight_decay": 0.2},
    {"lr": 0.01, "momentum": 0.8, "weight_decay": 0.2, "nesterov": True},
    {"lr": 0.01, "momentum": 1.0, "dampening": -0.5}, {"lr": 0.1, "dampening": 0.5},
    {"lr": 0.01, "maximize": True}, {"lr": 0.01, "maximize": True, "momentum": 0.5, "weight_decay": 0.1},
]
ADAM_CASES = [
    {}, {"lr": 0.1}, {"lr": 0.05, "betas": (0.8, 0.9)}, {"lr": 0.05, "betas": (0, 0.5)},
    {"lr": 0.05, "betas": (0.5, 0.0)}, {"lr": 0.05, "eps": 0.1}, {"lr": 0.05, "weight_decay": 0.1},
    {"lr": 0.05, "amsgrad": True}, {"lr": 0.1, "betas": (0.5, 0.6), "weight_decay": 0.3, "amsgrad": True},
    {"lr": 0.05, "maximize": True, "weight_decay": 0.1},
]
ADAMW_CASES = [
    {}, {"lr": 0.05, "weight_decay": 0.5}, {"lr": 0.05, "betas": (0.3, 0.9), "amsgrad": True}, {"weight_decay": 0.0},
    {"lr": 0.05, "maximize": True}, {"lr": 0.05, "betas": (0.2, 0.9)},
]
RMSPROP_CASES = [
    {}, {"lr": 0.1, "alpha": 0.9}, {"eps": 0.1, "weight_decay": 0.1}, {"momentum": 0.9}, {"centered": True},
    {"centered": True, "momentum": 0.5, "weight_decay": 0.1, "maximize": True}, {"alpha": 0.3, "centered": True},
]
ADAGRAD_CASES = [
    {}, {"lr": 0.5}, {"lr": 0.5, "lr_decay": 0.1}, {"lr": 0.5, "initial_accumulator_value": 2.0, "eps": 0.1},
    {"lr": 0.1, "weight_decay": 0.1, "maximize": True},
]
ADADELTA_CASES = [{}, {"lr": 0.5, "rho": 0.5}, {"eps": 0.01, "weight_decay": 0.1}, {"maximize": True, "eps": 1e-3}]
CASES = [(make, case) for make, cases in zip(REFERENCE, (SGD_CASES, ADAM_CASES, ADAMW_CASES, RMSPROP_CASES,
                                                         ADAGRAD_CASES, ADADELTA_CASES)) for case in cases]
NAMES = [f"{make.__name__}-{'-'.join(f'{k}={v}' for k, v in case.items())}" for make, case in CASES]
every_case = pytest.mark.parametrize("make, case", CASES, ids=NAMES)

# One of each kind, with all that it can remember.
STATEFUL = [
    (SGD, {"lr": 0.02, "momentum": 0.9, "dampening": 0.1}), (SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    (Adam, {"lr": 0.05}), (Adam, {"lr": 0.05, "amsgrad": True}), (AdamW, {"lr": 0.05, "weight_decay": 0.2}),
    (RMSprop, {"lr": 0.05, "momentum": 0.5, "centered": True}), (Adagrad, {"lr": 0.2, "lr_decay": 0.1}),
    (Adadelta, {"lr": 0.8, "weight_decay": 0.1}),
]
every_kind = pytest.mark.parametrize("make, case", STATEFUL, ids=[
    "sgd", "nesterov", "adam", "amsgrad", "adamw", "rmsprop", "adagrad", "adadelta"])


# ---- parameters as users have them ----

N = 23   # not a multiple of any vector's width


def start():
    rng = random.Random(5)
    return [rng.uniform(-2, 2) for _ in range(N)]


def contiguous():
    return [Value(x) for x in start()]


def scattered():
    """Garbage and living nodes between them, and not in the order of their ids."""
    values, between = [], []
    for k, x in enumerate(start()):
        garbage = [Value(0.0) * 2.0 for _ in range(k % 5)]
        values.append(Value(x))
        between.append(values[-1] * 3.0)
        del garbage
    random.Random(6).shuffle(values)
    values[0].between = between   # lives as long
    return values


def runs():
    """Some in rows, some alone, backwards."""
    values = contiguous()
    return values[10:20] + values[:3] + [values[22]] + values[9:2:-1] + values[20:22]


def tensors():
    x = start()
    return [Tensor(np.reshape(x[:12], (3, 4))), Tensor(x[12:])]


def mixed():
    x = start()
    return [Value(x[0]), Tensor(x[1:6]), Value(x[6]), Value(x[7]), Tensor([x[8:10], x[10:12]]), *map(Value, x[12:])]


LAYOUTS = [contiguous, scattered, runs, tensors, mixed]


def flat(params, name):
    """Data or gradients of all, one after the other."""
    return np.concatenate([np.ravel(getattr(p, name)) for p in params])


def set_flat(params, name, numbers):
    numbers = list(numbers)
    for p in params:
        if isinstance(p, Value):
            setattr(p, name, numbers.pop(0))
        else:
            setattr(p, name, np.reshape([numbers.pop(0) for _ in range(p.size)], p.shape))
    assert not numbers


def slope(x):
    """The gradient of a bumpy bowl, from plain floats."""
    return [(1 + i % 3) * (x[i] - 0.5) + math.cos(3 * x[i]) * x[i - 1] for i in range(len(x))]


def gradients_of_step(t):
    """Of several sizes and both signs, the same wherever the parameters are.

    Those of a function would carry one side's rounding into the next step, and Adam, which divides by
    the gradient's size, makes that as large as a step near a minimum.
    """
    rng = random.Random(t)
    return [rng.gauss(0.3, 1.0) * 10.0 ** (i % 5 - 3) for i in range(N)]


def close(got, expected, rel=1e-12):
    return np.allclose(got, expected, rtol=rel, atol=1e-14)


def follow(optimizer, params, reference, steps=100, each_step=lambda t, hyperparameters: None, **hyperparameters):
    """Run both side by side; AssertionError where they part."""
    x, state = flat(params, "data").tolist(), {}
    for t in range(steps):
        each_step(t, hyperparameters)
        optimizer.zero_grad()
        assert not flat(params, "grad").any()
        set_flat(params, "grad", gradients_of_step(t))
        optimizer.step()
        reference(x, gradients_of_step(t), state, **hyperparameters)
        assert close(flat(params, "data"), x), (t, flat(params, "data") - x)
    return x


@every_case
@pytest.mark.parametrize("layout", LAYOUTS)
def test_trajectory(make, case, layout):
    params = layout()
    optimizer = make(params, **case)
    before = flat(params, "data")
    follow(optimizer, params, REFERENCE[make], steps=100 if layout is mixed else 30, **case)
    assert case.get("lr") == 0 or (flat(params, "data") != before).all()


@every_kind
@pytest.mark.parametrize("layout", LAYOUTS)
def test_renumbered_between_steps(make, case, layout):
    """Garbage comes and goes, so that every step finds the parameters elsewhere."""
    floor = [Value(1.0) * 2.0 for _ in range(200)]
    params = layout()
    optimizer = make(params, **case)
    keep = []

    def each_step(t, _):
        del floor[::3]
        keep.append(Value(t) * 3.0)
        flatgrad.collect()
        assert _core._check()

    follow(optimizer, params, REFERENCE[make], steps=40, each_step=each_step, **case)


@every_kind
def test_a_parameter_that_becomes_another_node(make, case):
    """By __init__, which makes a result of a leaf: its slot is another then."""
    params = contiguous()
    optimizer = make(params, **case)
    x, state = start(), {}
    for t in range(12):
        k = (5 * t) % N
        if t % 3 == 2:
            params[k].__init__(x[k], (params[k - 1],), "again")
        elif t % 3 == 1:
            params[k].__init__(x[k])
        set_flat(params, "grad", gradients_of_step(t))
        optimizer.step()
        REFERENCE[make](x, gradients_of_step(t), state, **case)
        assert close(flat(params, "data"), x)
        if t % 4 == 3:
            flatgrad.collect()
        optimizer.zero_grad()
        assert not flat(params, "grad").any()


@every_kind
def test_collected_at_every_chance(make, case):
    _core._testing(collect_floor=0)
    params = scattered()
    optimizer = make(params, **case)

    def each_step(t, _):
        x = sum((p * p for p in params), Value(0.0))
        x.backward()

    follow(optimizer, params, REFERENCE[make], steps=40, each_step=each_step, **case)


@pytest.mark.parametrize("make, case, wrong", [
    (SGD, {"lr": 0.1}, {"lr": 0.1001}),
    (SGD, {"lr": 0.02, "momentum": 0.9}, {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": 0.02, "momentum": 0.9, "dampening": 1e-6}, {"lr": 0.02, "momentum": 0.9}),
    (SGD, {"lr": 0.02, "weight_decay": 1e-7}, {"lr": 0.02}),
    (Adam, {"lr": 0.1, "eps": 1e-8}, {"lr": 0.1, "eps": 1.1e-8}),
    (Adam, {"lr": 0.1}, {"lr": 0.1, "betas": (0.9, 0.9991)}),
    (Adam, {"lr": 0.1}, {"lr": 0.1, "weight_decay": 1e-7}),
    (Adam, {"lr": 0.1, "betas": (0.5, 0.5)}, {"lr": 0.1, "betas": (0.5, 0.5), "amsgrad": True}),
    (AdamW, {"lr": 0.1}, {"lr": 0.1, "weight_decay": 0.010001}), (RMSprop, {}, {"alpha": 0.99001}),
    (RMSprop, {"momentum": 0.5}, {"momentum": 0.50001}), (RMSprop, {"centered": True}, {}),
    (Adagrad, {"lr": 0.1}, {"lr": 0.1, "lr_decay": 1e-6}), (Adagrad, {}, {"initial_accumulator_value": 1e-9}),
    (Adadelta, {}, {"rho": 0.90001}), (Adadelta, {}, {"eps": 1.001e-6}), (Adadelta, {}, {"maximize": True}),
])
def test_a_difference_is_caught(make, case, wrong):
    params = contiguous()
    with pytest.raises(AssertionError):
        follow(make(params, **case), params, REFERENCE[make], **wrong)


def test_the_first_steps_by_hand():
    x = Value(1.0)
    optimizer = SGD([x], lr=0.5, momentum=0.5, dampening=0.75)
    x.grad = 1.0
    optimizer.step()
    assert x.data == 0.5          # the first gradient enters undamped
    optimizer.step()
    assert x.data == 0.5 - 0.5 * (0.5 + 0.25)
    y = Value(1.0)
    optimizer = Adam([y], lr=0.25, eps=0.0)
    y.grad = -1e-3
    optimizer.step()
    assert y.data == pytest.approx(1.25, rel=1e-15)   # the first step is lr, whatever the gradient
    assert y.grad == -1e-3


# ---- hyperparameters change ----

@every_kind
def test_learning_rate_of_every_step(make, case):
    params = contiguous()
    optimizer = make(params, **case)

    def each_step(t, hyperparameters):
        hyperparameters["lr"] = case["lr"] / (1 + 0.1 * t)
        if t % 2:
            optimizer.lr = hyperparameters["lr"]
        else:
            optimizer.param_groups[0]["lr"] = hyperparameters["lr"]
        assert optimizer.lr == optimizer.param_groups[0]["lr"] == hyperparameters["lr"]

    follow(optimizer, params, REFERENCE[make], each_step=each_step, **case)


@pytest.mark.parametrize("make, schedule", [
    (SGD, {"momentum": [0.0, 0.9, 0.5, 0.0, 0.9]}),
    (SGD, {"momentum": [0.9] * 5, "nesterov": [True, False, True, True, False]}),
    (SGD, {"momentum": [0.9] * 5, "dampening": [0.0, 0.5, 0.25, 0, 0.1], "weight_decay": [0, 0.1, 0.2, 0, 1]}),
    (Adam, {"betas": [(0.9, 0.999), (0.8, 0.99), (0.0, 0.5), [0.5, 0.9], (0.9, 0.9)], "eps": [0, 1e-8, 0.1, 1e-3, 1]}),
    (Adam, {"weight_decay": [0.0, 0.1, 0.2, 0.0, 1], "lr": [0.1, 0.01, np.float32(0.1), 1, np.float64(0.01)]}),
])
def test_every_hyperparameter_is_read_anew(make, schedule):
    params = contiguous()
    optimizer = make(params)

    def each_step(t, hyperparameters):
        for name, values in schedule.items():
            hyperparameters[name] = optimizer.param_groups[0][name] = values[t // 5]

    follow(optimizer, params, REFERENCE[make], steps=25, each_step=each_step)


def test_amsgrad_switched_on():
    """The largest average is that since then: what was before is not known."""
    params = contiguous()
    optimizer = Adam(params, lr=0.05)
    state, x = {}, flat(params, "data").tolist()
    for t in range(20):
        optimizer.param_groups[0]["amsgrad"] = t >= 10
        set_flat(params, "grad", gradients_of_step(t))
        optimizer.step()
        reference_adam(x, gradients_of_step(t), state, lr=0.05, amsgrad=t >= 10)
        assert close(flat(params, "data"), x)


@pytest.mark.parametrize("make", [SGD, Adam])
def test_attributes(make):
    a, b = Value(1.0), Value(2.0)
    optimizer = make(params=[a, b], lr=1)
    assert isinstance(optimizer, Optimizer)
    assert optimizer.lr == 1.0 and type(optimizer.lr) is float
    [group] = optimizer.param_groups
    assert group["params"] == [a, b] and type(group["params"]) is list
    optimizer.lr = np.float32(0.5)
    assert group["lr"] == 0.5 and type(group["lr"]) is float
    optimizer.lr *= 0.5
    assert group["lr"] == 0.25


def test_defaults_are_those_of_pytorch():
    x = [Value(0.0)]
    adam = {"params": x, "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False,
            "maximize": False, "decoupled_weight_decay": False}
    for make, expected in [
        (SGD, {"params": x, "lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False,
               "maximize": False}),
        (Adam, adam), (AdamW, {**adam, "weight_decay": 1e-2, "decoupled_weight_decay": True}),
        (RMSprop, {"params": x, "lr": 1e-2, "momentum": 0.0, "alpha": 0.99, "eps": 1e-8, "centered": False,
                   "weight_decay": 0.0, "maximize": False}),
        (Adagrad, {"params": x, "lr": 1e-2, "lr_decay": 0.0, "eps": 1e-10, "weight_decay": 0.0,
                   "initial_accumulator_value": 0.0, "maximize": False}),
        (Adadelta, {"params": x, "lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0, "maximize": False}),
    ]:
        optimizer = make(x)
        assert optimizer.param_groups == [expected] and list(optimizer.param_groups[0]) == list(expected)
        assert {"params": x, **optimizer.defaults} == expected


def test_the_order_of_arguments():
    x = [Value(0.0)]
    for optimizer, expected in [
        (SGD(x, 0.1, 0.2, 0.0, 0.4, True), (0.1, 0.2, 0.0, 0.4, True, False)),
        (Adam(x, 0.1, (0.2, 0.3), 0.4, 0.5, True), (0.1, (0.2, 0.3), 0.4, 0.5, True, False, False)),
        (AdamW(x, 0.1, (0.2, 0.3), 0.4, 0.5, True), (0.1, (0.2, 0.3), 0.4, 0.5, True, False, True)),
        (RMSprop(x, 0.1, 0.2, 0.3, 0.4, 0.5, True), (0.1, 0.5, 0.2, 0.3, True, 0.4, False)),
        (Adagrad(x, 0.1, 0.2, 0.3, 0.4, 0.5), (0.1, 0.2, 0.5, 0.3, 0.4, False)),
        (Adadelta(x, 0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.3, 0.4, False)),
    ]:
        assert tuple(optimizer.param_groups[0].values())[1:] == expected
        assert type(optimizer)(x, maximize=True).param_groups[0]["maximize"] is True
        with pytest.raises(TypeError, match="foreach"):
            type(optimizer)(x, foreach=True)


def test_repr():
    x = [Value(0.0), Tensor([1.0, 2.0])]
    assert repr(SGD(x, lr=0.1, momentum=0.9)) == (
        "SGD(3 parameters, lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False)")
    assert repr(Adadelta([{"params": x[0]}, {"params": x[1], "lr": 0.5}])) == (
        "Adadelta(1 parameter, lr=1.0, rho=0.9, eps=1e-06, weight_decay=0.0, maximize=False; "
        "2 parameters, lr=0.5, rho=0.9, eps=1e-06, weight_decay=0.0, maximize=False)")


# ---- which parameters ----

@every_kind
def test_tied_weights_are_updated_once(make, case):
    params = contiguous()
    optimizer = make(params + params[:5] + params[::-1], **case)
    assert optimizer.param_groups[0]["params"] == params
    follow(optimizer, params, REFERENCE[make], **case)


@every_kind
def test_an_element_of_a_tensor_is_updated_once(make, case):
    tensor, value = Tensor(start()[1:]), Value(start()[0])
    params = [value, tensor]
    optimizer = make([value, tensor, tensor[0], tensor[5], value], **case)
    follow(optimizer, params, REFERENCE[make], **case)


def test_parts_of_a_tensor():
    t = Tensor(np.arange(6.0).reshape(2, 3))

    def changed(*params):
        t.data, t.grad = np.arange(6.0).reshape(2, 3), 1.0
        SGD(params, lr=1.0).step()
        return (np.arange(6.0).reshape(2, 3) - t.data).tolist()

    everything = [[1.0] * 3] * 2
    assert changed(t) == changed(t, t[0], t[1, 2]) == changed(t, t.reshape(-1)) == changed(t[0], t[1]) == everything
    assert changed(*t) == changed(*t[0], *t[1]) == changed(t[:1], t[0], *t[1], t[:]) == everything
    assert changed(t[1]) == changed(t[1:]) == changed(*t[1]) == [[0.0] * 3, [1.0] * 3]
    assert changed(t[0, 2], t[1, 0]) == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    with pytest.raises(ValueError, match=r"params\[1\]: some of its elements are in an earlier parameter"):
        SGD([t[0], t])


def test_values_that_compare_equal_are_different_parameters():
    class Equal(Value):
        def __eq__(self, other):
            return True

        __hash__ = None

    a, b = Equal(1.0), Equal(2.0)
    a.grad = b.grad = 1.0
    SGD([a, b], lr=0.5).step()
    assert (a.data, b.data) == (0.5, 1.5)


@pytest.mark.parametrize("container", [list, tuple, iter, lambda x: (p for p in x),
                                       lambda x: {k: p for k, p in enumerate(x)}.values(),
                                       lambda x: np.array(x, dtype=object)])
def test_any_iterable(container):
    params = contiguous()
    follow(SGD(container(params), lr=0.1), params, reference_sgd, steps=3, lr=0.1)


def test_a_result_that_is_used_as_a_parameter():
    """As in micrograd's loops: data is data, wherever the number came from."""
    w = Value(3.0) * 0.1
    w.grad = 1.0
    SGD([w], lr=0.5).step()
    assert w.data == 3.0 * 0.1 - 0.5


def test_the_optimizer_keeps_its_parameters_alive():
    optimizer = SGD([Value(1.0), Tensor([2.0, 3.0])], lr=0.5)
    for _ in range(100):
        Value(9.0) * 2.0
    flatgrad.collect()
    value, tensor = optimizer.param_groups[0]["params"]
    value.grad, tensor.grad = 1.0, [1.0, 2.0]
    optimizer.step()
    assert value.data == 0.5 and tensor.data.tolist() == [1.5, 2.0]


def test_the_callers_list_is_not_kept():
    params = [Value(1.0)]
    optimizer = SGD(params, lr=0.5)
    params[0].grad = 1.0
    params.append(Value(5.0))
    params[1].grad = 1.0
    optimizer.step()
    assert [p.data for p in params] == [0.5, 5.0] and len(optimizer.param_groups[0]["params"]) == 1


def test_nothing_else_changes():
    """Neighbours on the tape, and the gradients."""
    before, x, after = Value(1.0), Value(2.0), Value(3.0)
    y = x * after
    y.backward()
    for optimizer in (SGD([x], lr=0.5, momentum=0.5), Adam([x])):
        optimizer.step()
        assert (before.data, after.data, y.data, y.grad, x.grad, after.grad) == (1.0, 3.0, 6.0, 1.0, 3.0, 2.0)
        optimizer.zero_grad()
        assert (y.grad, x.grad, after.grad) == (1.0, 0.0, 2.0)
        x.grad = 3.0


def test_a_step_makes_no_nodes():
    params = contiguous()
    for optimizer in (SGD(params, momentum=0.5), Adam(params)):
        before = flatgrad.stats()["nodes"]
        optimizer.step()
        optimizer.zero_grad()
        assert flatgrad.stats()["nodes"] == before


# ---- nan and infinities ----

@every_kind
def test_a_nan_stays_where_it_is(make, case):
    params = contiguous()
    optimizer = make(params, **case)
    set_flat(params, "grad", [NAN if k == 3 else 0.5 for k in range(N)])
    optimizer.step()
    assert [k for k, x in enumerate(flat(params, "data")) if math.isnan(x)] == [3]
    optimizer.zero_grad()
    assert not flat(params, "grad").any()


def test_infinities():
    """0 * inf is nan. Only a weight decay of 0 is left out, as in PyTorch."""
    x, y = Value(INF), Value(1.0)
    optimizer = SGD([x, y], lr=0.0)
    optimizer.step()
    assert (x.data, y.data) == (INF, 1.0)
    y.grad = INF
    optimizer.step()
    assert x.data == INF and math.isnan(y.data)
    optimizer.param_groups[0]["weight_decay"] = 0.1
    optimizer.step()
    assert math.isnan(x.data)


def test_adam_without_a_gradient():
    """0 / (0 + eps): no step, and no nan."""
    x = Value(1.5)
    optimizer = Adam([x], lr=0.1, amsgrad=True)
    for _ in range(3):
        optimizer.step()
    assert x.data == 1.5


def test_adam_far_out():
    """beta**t underflows, and the correction becomes 1."""
    x = Value(0.0)
    optimizer = Adam([x], lr=0.125, betas=(0.5, 0.5), eps=0.0)
    x.grad = 4.0
    for _ in range(2000):
        optimizer.step()
    assert x.data == pytest.approx(-250.0, rel=1e-12)


# ---- a step that fails ----

@pytest.mark.parametrize("make, case, name, wrong", [
    (SGD, {"momentum": 0.9}, "lr", "fast"), (SGD, {"momentum": 0.9}, "weight_decay", None),
    (SGD, {"momentum": 0.9}, "dampening", [1.0]), (Adam, {}, "lr", "fast"), (Adam, {}, "eps", None),
    (Adam, {}, "betas", (0.9, "x")), (Adam, {}, "betas", 0.9), (Adam, {"amsgrad": True}, "weight_decay", "x"),
])
@pytest.mark.parametrize("steps_before", [0, 3])
def test_a_failed_step_changes_nothing(make, case, name, wrong, steps_before):
    params, twins = contiguous(), contiguous()
    optimizer, twin = make(params, lr=0.1, **case), make(twins, lr=0.1, **case)

    def both(count):
        for _ in range(count):
            for o, p in ((optimizer, params), (twin, twins)):
                set_flat(p, "grad", slope(flat(p, "data").tolist()))
                o.step()

    both(steps_before)
    right = optimizer.param_groups[0][name]
    optimizer.param_groups[0][name] = wrong
    before = flat(params, "data")
    with pytest.raises((TypeError, ValueError)):
        optimizer.step()
    assert (flat(params, "data") == before).all()
    optimizer.param_groups[0][name] = right
    both(5)
    assert (flat(params, "data") == flat(twins, "data")).all()


# ---- copies ----

def through_pickle(protocol):
    return lambda x: pickle.loads(pickle.dumps(x, protocol))


INDEPENDENT = [copy.deepcopy, *[through_pickle(p) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)]]
X = [[0.5, -1.0], [1.5, 2.0], [-0.25, 0.75], [1.0, 1.0]]
Y = [1.0, -1.0, 1.0, -1.0]


def train(model, optimizer, steps):
    """Losses, to the bit what any copy of the model has: instructions may round by where their operands lie."""
    losses = []
    for _ in range(steps):
        with flatgrad.scalar_graph():
            loss = sum(((model(x) - y) ** 2 for x, y in zip(X, Y)), Value(0.0)) / len(X)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.data)
    return losses


@every_kind
@pytest.mark.parametrize("duplicate", INDEPENDENT)
@pytest.mark.parametrize("steps_before", [0, 1, 5])
def test_a_model_and_its_optimizer(make, case, duplicate, steps_before):
    random.seed(3)
    model = MLP(2, [5, 1])
    optimizer = make(model.parameters(), **case)
    train(model, optimizer, steps_before)
    model2, optimizer2 = duplicate((model, optimizer))
    # Side by side and not one after the other: whatever they shared would show.
    pairs = [(train(model, optimizer, 1), train(model2, optimizer2, 1)) for _ in range(20)]
    assert all(a == b for a, b in pairs) and len({a[0] for a, _ in pairs}) == 20
    assert all(p is q for p, q in zip(optimizer2.param_groups[0]["params"], model2.parameters(), strict=True))
    assert repr(optimizer2) == repr(optimizer)
    optimizer2.lr = 7.0
    assert optimizer.lr == case["lr"]


@every_kind
@pytest.mark.parametrize("duplicate", INDEPENDENT)
def test_tensors_and_their_optimizer(make, case, duplicate):
    params = mixed()
    optimizer = make(params, **case)
    follow(optimizer, params, REFERENCE[make], steps=5, **case)
    params2, optimizer2 = duplicate((params, optimizer))
    for _ in range(5):
        for o, p in ((optimizer, params), (optimizer2, params2)):
            set_flat(p, "grad", slope(flat(p, "data").tolist()))
            o.step()
        assert (flat(params, "data") == flat(params2, "data")).all()
    set_flat(params2, "data", [0.0] * N)
    assert flat(params, "data").all()


@every_kind
@pytest.mark.parametrize("duplicate", INDEPENDENT)
def test_an_optimizer_alone_has_parameters_of_its_own(make, case, duplicate):
    params = contiguous()
    optimizer = make(params, **case)
    set_flat(params, "grad", slope(start()))
    optimizer.step()
    before = flat(params, "data")
    other = duplicate(optimizer)
    others = other.param_groups[0]["params"]
    assert (flat(others, "data") == before).all() and (flat(others, "grad") == slope(start())).all()
    other.step()
    assert (flat(params, "data") == before).all() and (flat(others, "data") != before).all()


@every_kind
def test_a_shallow_copy_shares_the_parameters_only(make, case):
    """Going on with the copy, from the same parameters, is going on with the original."""
    params = contiguous()
    optimizer = make(params, **case)
    for _ in range(3):
        set_flat(params, "grad", slope(flat(params, "data").tolist()))
        optimizer.step()
    other = copy.copy(optimizer)
    assert all(p is q for p, q in zip(other.param_groups[0]["params"], params, strict=True))
    other.lr = 0.5
    assert optimizer.lr == case["lr"]
    other.lr = case["lr"]
    at, results = flat(params, "data"), []
    for o in (optimizer, other):
        set_flat(params, "data", at)
        for _ in range(3):
            set_flat(params, "grad", slope(flat(params, "data").tolist()))
            o.step()
        results.append(flat(params, "data"))
    assert (results[0] == results[1]).all()


@pytest.mark.parametrize("duplicate", [copy.copy, *INDEPENDENT])
def test_attributes_of_the_users_own(duplicate):
    optimizer = Adam([Value(1.0)])
    optimizer.note = "mine"
    optimizer.param_groups[0]["initial_lr"] = 0.25
    other = duplicate(optimizer)
    assert other.note == "mine" and other.param_groups[0]["initial_lr"] == 0.25
    other.step()


# ---- training ----

@pytest.mark.parametrize("make, case", [
    (SGD, {"lr": 0.05}), (SGD, {"lr": 0.02, "momentum": 0.9}), (Adam, {"lr": 0.02})])
def test_training_as_with_a_loop_over_parameters(make, case):
    """The whole way, with gradients from backward(), beside the formulas on a model's twin."""
    random.seed(4)
    model = MLP(2, [6, 1])
    twin = copy.deepcopy(model)
    losses = train(model, make(model.parameters(), **case), 100)
    state = {}
    for t in range(100):
        loss = sum(((twin(x) - y) ** 2 for x, y in zip(X, Y)), Value(0.0)) / len(X)
        assert losses[t] == pytest.approx(loss.data, rel=1e-9, abs=1e-15)
        twin.zero_grad()
        loss.backward()
        data = [p.data for p in twin.parameters()]
        REFERENCE[make](data, [p.grad for p in twin.parameters()], state, **case)
        for p, x in zip(twin.parameters(), data):
            p.data = x
    assert losses[-1] < 0.2 * losses[0]


# ---- errors ----

@pytest.mark.parametrize("make, case, error, message", [
    *[(make, *row) for make in (SGD, Adam) for row in [
        ({"lr": -0.1}, ValueError, "lr: expected a finite number, 0 or more, got -0.1"),
        ({"lr": NAN}, ValueError, "lr: expected a finite number, 0 or more, got nan"),
        ({"lr": INF}, ValueError, "lr: expected a finite number, 0 or more, got inf"),
        ({"lr": 10**400}, ValueError, "lr: expected a finite number"),
        ({"lr": "0.1"}, TypeError, "lr: expected a finite number, 0 or more, got '0.1'"),
        ({"lr": None}, TypeError, "lr: expected a finite number, 0 or more, got None"),
        ({"lr": 1j}, TypeError, "lr: expected a finite number, 0 or more, got 1j"),
        ({"lr": Value}, TypeError, "lr: expected a finite number"),
        ({"weight_decay": -1}, ValueError, "weight_decay: expected a finite number, 0 or more, got -1"),
        ({"weight_decay": "x"}, TypeError, "weight_decay: expected a finite number, 0 or more, got 'x'"),
    ]],
    (SGD, {"momentum": -0.9}, ValueError, "momentum: expected a finite number, 0 or more, got -0.9"),
    (SGD, {"momentum": True, "dampening": INF}, ValueError, "dampening: expected a finite number, got inf"),
    (SGD, {"dampening": "x"}, TypeError, "dampening: expected a finite number, got 'x'"),
    (SGD, {"nesterov": True}, ValueError,
     "nesterov: expected momentum above 0 and dampening 0 with it, got momentum=0.0, dampening=0.0"),
    (SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ValueError,
     "nesterov: expected momentum above 0 and dampening 0 with it, got momentum=0.9, dampening=0.1"),
    (SGD, {"nesterov": 1, "momentum": 0.9}, TypeError, "nesterov: expected True or False, got 1"),
    (Adam, {"betas": (1.0, 0.9)}, ValueError, r"betas\[0\]: expected a number from 0 to below 1, got 1.0"),
    (Adam, {"betas": (0.9, 1.5)}, ValueError, r"betas\[1\]: expected a number from 0 to below 1, got 1.5"),
    (Adam, {"betas": (0.9, -0.5)}, ValueError, r"betas\[1\]: expected a number from 0 to below 1, got -0.5"),
    (Adam, {"betas": (NAN, 0.9)}, ValueError, r"betas\[0\]: expected a number from 0 to below 1, got nan"),
    (Adam, {"betas": ("a", 0.9)}, TypeError, r"betas\[0\]: expected a number from 0 to below 1, got 'a'"),
    (Adam, {"betas": 0.9}, TypeError, r"betas: expected a pair of numbers, got 0.9"),
    (Adam, {"betas": (0.9, 0.99, 0.999)}, TypeError, r"betas: expected a pair of numbers, got \(0.9, 0.99, 0.999\)"),
    (Adam, {"eps": -1e-8}, ValueError, "eps: expected a finite number, 0 or more, got -1e-08"),
    (Adam, {"eps": None}, TypeError, "eps: expected a finite number, 0 or more, got None"),
    (Adam, {"amsgrad": "no"}, TypeError, "amsgrad: expected True or False, got 'no'"),
])
def test_wrong_hyperparameters(make, case, error, message):
    with pytest.raises(error, match=message):
        make([Value(1.0)], **case)


@pytest.mark.parametrize("make", [SGD, Adam])
@pytest.mark.parametrize("params, error, message", [   # made when the test runs: nothing stays on the tape
    (lambda: [], ValueError, "params: optimizer got an empty parameter list"),
    (lambda: iter(()), ValueError, "params: optimizer got an empty parameter list"),
    (lambda: None, TypeError, "params: expected an iterable of Values and Tensors, such as .*, got None"),
    (lambda: Value(2.0), TypeError, "params: expected an iterable of Values and Tensors.* got Value.data=2.0"),
    (lambda: Tensor([2.0]), TypeError, "params: expected an iterable of Values and Tensors.* got a Tensor"),
    (lambda: {Value(2.0)}, TypeError, "params: expected an iterable of Values and Tensors.* got a set"),
    (lambda: MLP(1, [1]), TypeError, "params: expected an iterable .* such as model.parameters.., got MLP of"),
    (lambda: [Value(2.0), 3.0], TypeError, r"params\[1\]: expected a Value or a Tensor, got .*3.0"),
    (lambda: "ab", TypeError, r"params\[0\]: expected a Value or a Tensor, got .*'a'"),
    (lambda: [[Value(2.0)]], TypeError, r"params\[0\]: expected a Value or a Tensor, got .*\[Value"),
    (lambda: [Value(1.0), Tensor([1.0, 2.0]) * 2.0], ValueError, r"params\[1\]: expected a leaf .*'\*'.*\(2,\)"),
    (lambda: [Value(1.0), Tensor([Value(1.0), 2.0])], ValueError, r"params\[1\]: expected a leaf .*'copy'.*\(2,\)"),
    (lambda: [Tensor([1.0, 2.0], requires_grad=False)], ValueError,
     r"params\[0\]: expected a .*Tensor .*requires_grad=False.*\(2,\)"),
    (lambda: [Value(1.0)] * 2 + [Tensor([[1.0, 2.0], [3.0, 4.0]]).T], ValueError,
     r"params\[2\]: expected a Tensor whose elements lie in order, got a view of shape \(2, 2\)"),
])
def test_wrong_parameters(make, params, error, message):
    with pytest.raises(error, match=message):
        make(params())


def test_what_an_iterable_raises_comes_through():
    def parameters():
        yield Value(1.0)
        raise TypeError("of the caller's own")

    with pytest.raises(TypeError, match="^of the caller's own$"):
        SGD(parameters())


@pytest.mark.parametrize("value", [-1.0, NAN, "x", None])
def test_a_wrong_learning_rate_is_not_taken(value):
    optimizer = SGD([Value(1.0)], lr=0.5)
    with pytest.raises((TypeError, ValueError), match="lr: expected a finite number, 0 or more, got"):
        optimizer.lr = value
    assert optimizer.lr == 0.5


def test_the_base_class_has_no_step():
    with pytest.raises(NotImplementedError, match=r"Optimizer has no step\(\)"):
        Optimizer([Value(1.0)], lr=0.1).step()


# ---- groups ----

EVERY_CLASS = [SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta]
every_class = pytest.mark.parametrize("make", EVERY_CLASS)


@every_kind
@pytest.mark.parametrize("added_at", [None, 0, 7])
def test_groups_with_hyperparameters_of_their_own(make, case, added_at):
    """Each group goes as a whole optimizer of its own would."""
    params, own = mixed(), {"lr": 0.01, "weight_decay": 0.3}
    first, second = params[:4], params[4:]
    groups = [{"params": first}, {"params": iter(second), **own}]
    optimizer = make(groups if added_at is None else groups[:1], **case)
    states, numbers = [{}, {}], [flat(first, "data").tolist(), flat(second, "data").tolist()]
    for t in range(20):
        if t == added_at:
            optimizer.add_param_group(groups[1])
        set_flat(params, "grad", gradients_of_step(t))
        optimizer.step()
        split = len(numbers[0])
        REFERENCE[make](numbers[0], gradients_of_step(t)[:split], states[0], **case)
        if added_at is None or t >= added_at:
            REFERENCE[make](numbers[1], gradients_of_step(t)[split:], states[1], **{**case, **own})
        assert close(flat(params, "data"), numbers[0] + numbers[1])
    optimizer.zero_grad()
    assert not flat(params, "grad").any()
    assert [len(group["params"]) for group in optimizer.param_groups] == [4, len(second)]
    assert "lr" in groups[1] and set(groups[0]) == {"params"}   # the caller's dicts are as they were


def test_a_group_may_be_a_single_parameter_or_none():
    x, t = Value(1.0), Tensor([1.0, 2.0])
    optimizer = SGD([{"params": x}, {"params": t}, {"params": []}], lr=1.0, momentum=0.5)
    x.grad, t.grad = 1.0, 1.0
    optimizer.step()
    assert (x.data, t.data.tolist()) == (0.0, [0.0, 1.0])
    assert repr(optimizer).count("0 parameters") == 1


@pytest.mark.parametrize("first, second, message", [
    (lambda x, t: [x], lambda x, t: [x], r"\['params'\]\[0\]: .* in no other group, got one .* in param_groups\[0\]"),
    (lambda x, t: [t], lambda x, t: [x, t], r"\['params'\]\[1\]: .* in param_groups\[0\]"),
    (lambda x, t: [x, t], lambda x, t: [t[1, 0]], r"\['params'\]\[0\]: .* in param_groups\[0\]"),
    (lambda x, t: [x, t[0, 1]], lambda x, t: [t], r"\['params'\]\[0\]: .* in param_groups\[0\]"),
    (lambda x, t: [t[0]], lambda x, t: [x, t[1], t.reshape(-1)], r"\['params'\]\[2\]: .* others are not"),
    (lambda x, t: [t[0]], lambda x, t: [x, t[1], t[0, 0]], r"\['params'\]\[2\]: .* in param_groups\[0\]"),
])
def test_a_parameter_in_two_groups(first, second, message):
    x, t = Value(1.0), Tensor([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(ValueError, match=r"params\[1\]" + message):
        Adam([{"params": first(x, t)}, {"params": second(x, t)}])
    optimizer = Adam(first(x, t), lr=0.5)
    before = repr(optimizer), copy.copy(optimizer.param_groups)
    with pytest.raises(ValueError, match=r"param_group" + message):
        optimizer.add_param_group({"params": second(x, t)})
    assert (repr(optimizer), optimizer.param_groups) == before
    optimizer.step()


@pytest.mark.parametrize("group, error, message", [
    (lambda: {"params": [Value(1.0)], "learning_rate": 0.1}, errors.UnknownNameError, "key of .*got 'learning_rate'"),
    (lambda: {"params": [Value(1.0)], "Momentum": 0.1}, errors.UnknownNameError, "did you mean 'momentum'"),
    (lambda: {"params": [Value(1.0)], "lr": -1.0}, errors.ArgumentError, r"\['lr'\]: expected a finite number, 0 or"),
    (lambda: {"params": [Value(1.0)], "momentum": "x"}, errors.ArgumentTypeError, r"\['momentum'\]: expected a fini"),
    (lambda: {"params": [Value(1.0)], "nesterov": True}, errors.ArgumentError, "nesterov: expected momentum above 0"),
    (lambda: {"param": [Value(1.0)]}, errors.ArgumentError, "expected a dict with the key 'params', got the keys"),
    (lambda: {"params": [Value(1.0), 2.0]}, TypeError, r"\['params'\]\[1\]: expected a Value or a Tensor, got .*2.0"),
    (lambda: {"params": 2.0}, errors.ArgumentTypeError, r"\['params'\]: expected an iterable of Values and Tensors"),
    (lambda: {"params": {Value(2.0)}}, errors.ArgumentTypeError, r"\['params'\]: expected an iterable .* got a set"),
    (lambda: [Value(1.0)], errors.ArgumentTypeError, "expected a dict with the key 'params', got .*Value"),
])
def test_wrong_groups(group, error, message):
    with pytest.raises(error, match=message):
        SGD([{"params": [Value(1.0)]}, group()], lr=0.1)
    optimizer = SGD([Value(1.0)], lr=0.1)
    before = repr(optimizer)
    with pytest.raises(error, match=message):
        optimizer.add_param_group(group())
    assert repr(optimizer) == before and len(optimizer.param_groups) == len(optimizer._state) == 1
    optimizer.step()


def test_dicts_and_parameters_do_not_mix():
    with pytest.raises(TypeError, match=r"params\[0\]: expected a dict with the key 'params'"):
        SGD([Value(1.0), {"params": [Value(2.0)]}])
    with pytest.raises(TypeError, match="params: expected an iterable of Values and Tensors.* got a dict"):
        SGD({"params": [Value(2.0)]})


# ---- what a step finds in the groups ----

def stepped(make, case, steps=3):
    params = contiguous()
    optimizer = make([{"params": params[:9]}, {"params": params[9:]}], **case)
    for t in range(steps):
        set_flat(params, "grad", gradients_of_step(t))
        optimizer.step()
    return params, optimizer


@every_class
@pytest.mark.parametrize("wrong", ["x", NAN, INF, MINUS, None, 1j, [0.1], np.array([0.1, 0.2, 0.3]), Value])
@pytest.mark.parametrize("group", [0, 1])
def test_every_wrong_hyperparameter_is_named(make, wrong, group):
    """In the second group as well: the first has not stepped then."""
    params, optimizer = stepped(make, {})
    before, state = flat(params, "data"), optimizer.state_dict()
    for name, right in list(optimizer.param_groups[group].items()):
        if name == "params" or (name == "dampening" and wrong is MINUS):
            continue
        optimizer.param_groups[group][name] = wrong
        with pytest.raises((errors.ArgumentError, errors.ArgumentTypeError),
                           match=rf"^param_groups\[{group}\]\['{name}'\]: expected"):
            optimizer.step()
        del optimizer.param_groups[group][name]
        with pytest.raises(errors.ArgumentError, match=rf"^param_groups\[{group}\]: expected the key '{name}'"):
            optimizer.step()
        optimizer.param_groups[group][name] = right
        assert (flat(params, "data") == before).all() and same_state(optimizer.state_dict(), state)
    optimizer.step()
    assert (flat(params, "data") != before).any()


def test_pairs_that_change_in_place():
    x = Value(1.0)
    optimizer = Adam([x], betas=[0.9, 0.999])
    optimizer.param_groups[0]["betas"] = betas = [0.9, 0.999]
    optimizer.step()
    betas[1] = 2.0
    with pytest.raises(ValueError, match=r"param_groups\[0\]\['betas'\]\[1\]: expected a number from 0 to below 1"):
        optimizer.step()


def test_groups_that_were_tampered_with():
    params = contiguous()
    optimizer = SGD(params, lr=0.1)
    optimizer.param_groups[0]["params"] = params[1:]
    with pytest.raises(ValueError, match=r"param_groups\[0\]\['params'\]: expected the parameters that"):
        optimizer.step()
    optimizer.param_groups[0]["params"] = params[:]   # another list of the same is none
    optimizer.step()
    optimizer.param_groups.append({"params": [Value(1.0)], **optimizer.defaults})
    with pytest.raises(ValueError, match="param_groups: expected 1 groups, got 2; add_param_group"):
        optimizer.step()


@every_class
@pytest.mark.parametrize("lr", [1, np.float32(0.5), np.float64(0.25), np.int64(1), Fraction(1, 2)])
def test_learning_rates_of_any_type(make, lr):
    params, twins = contiguous(), contiguous()
    optimizer, twin = make(params), make(twins, lr=float(lr))
    for t in range(3):
        optimizer.param_groups[0]["lr"] = lr
        for o, p in ((optimizer, params), (twin, twins)):
            set_flat(p, "grad", gradients_of_step(t))
            o.step()
    assert (flat(params, "data") == flat(twins, "data")).all()


# ---- closures ----

@every_class
def test_a_closure_is_called_first_and_its_loss_comes_back(make):
    x = Value(3.0)
    optimizer = make([x], lr=0.1)
    twin = Value(3.0)
    other = make([twin], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (x - 1.0) ** 2
        loss.backward()
        return loss

    for _ in range(3):
        other.zero_grad()
        ((twin - 1.0) ** 2).backward()
        assert other.step() is None
        expected = (x.data - 1.0) ** 2
        assert optimizer.step(closure).data == expected
        assert x.data == twin.data


def test_wrong_closures():
    x = Value(1.0)
    x.grad = 1.0
    optimizer = SGD([x], lr=0.5)
    with pytest.raises(TypeError, match="closure: expected a callable that returns the loss, got 3.0"):
        optimizer.step(3.0)
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    assert x.data == 1.0


# ---- a class of the user's own ----

class Signs(Optimizer):
    def __init__(self, params, lr=0.5, decay=0.0):
        super().__init__(params, {"lr": lr, "decay": decay})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= group["lr"] * math.copysign(1.0, p.grad) + group["decay"]


def test_a_class_of_the_users_own():
    x, y, z = Value(1.0), Value(2.0), Value(3.0)
    x.grad, y.grad, z.grad = 1.0, -1.0, 1.0
    optimizer = Signs([{"params": [x]}, {"params": [y], "decay": 1.0}], lr=0.25)
    optimizer.add_param_group({"params": z, "lr": 3.0})
    optimizer.step()
    assert (x.data, y.data, z.data) == (0.75, 1.25, 0.0)
    assert optimizer.defaults == {"lr": 0.25, "decay": 0.0}
    optimizer.zero_grad()
    assert x.grad == y.grad == z.grad == 0.0
    other = Signs([{"params": [Value(1.0)]}, {"params": [Value(1.0)]}, {"params": [Value(1.0)]}])
    other.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in other.param_groups] == [0.25, 0.25, 3.0]
    assert repr(copy.deepcopy(optimizer)) == repr(optimizer)
    with pytest.raises(errors.UnknownNameError, match="did you mean 'decay'"):
        Signs([{"params": [Value(1.0)], "decai": 1.0}])
    with pytest.raises(errors.StateError):
        other.load_state_dict(SGD([Value(1.0)]).state_dict())


# ---- state dicts ----

def same_state(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same_state(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same_state, a, b))
    return np.array_equal(a, b) and type(a) is type(b)


@every_kind
@pytest.mark.parametrize("steps_before", [0, 1, 5])
@pytest.mark.parametrize("through", [lambda x: x, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)),
                                     lambda x: json.loads(json.dumps(x, default=np.ndarray.tolist))])
def test_a_state_dict_goes_round(make, case, steps_before, through):
    params, optimizer = stepped(make, case, steps_before)
    optimizer.param_groups[1]["lr"] = 0.0123
    state = optimizer.state_dict()
    twins = contiguous()
    set_flat(twins, "data", flat(params, "data"))
    twin = make([{"params": twins[:9]}, {"params": twins[9:]}], lr=9.0)
    loaded = through(state)
    twin.load_state_dict(loaded)
    assert same_state(twin.state_dict(), state) and repr(twin) == repr(optimizer)
    kept = [array for group in state["state"] for array in group.values() if isinstance(array, np.ndarray)]
    assert len(kept) == 2 * sum(name != "step" for name in state["state"][0])
    for array in kept:   # copies, on the way in and out
        array[:] = NAN
    for t in range(5):
        for o, p in ((optimizer, params), (twin, twins)):
            set_flat(p, "grad", gradients_of_step(t))
            o.step()
        assert (flat(params, "data") == flat(twins, "data")).all()


def test_what_a_state_dict_has():
    optimizer = Adam([Value(1.0), Tensor([1.0, 2.0])], amsgrad=True)
    hyperparameters = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": True,
                       "maximize": False, "decoupled_weight_decay": False, "count": 3}
    assert optimizer.state_dict() == {"state": [{}], "param_groups": [hyperparameters]}
    optimizer.step()
    state = optimizer.state_dict()
    assert state["param_groups"] == [hyperparameters] and state["state"][0].pop("step") == 1
    assert {name: array.tolist() for name, array in state["state"][0].items()} == dict.fromkeys(
        ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"], [0.0] * 3)
    sgd = SGD([Value(1.0)], momentum=0.5)
    assert sgd.state_dict()["state"] == [{}]
    sgd.step()
    assert list(sgd.state_dict()["state"][0]) == ["momentum_buffer"]


@pytest.mark.parametrize("make", EVERY_CLASS)
@pytest.mark.parametrize("other", EVERY_CLASS)
@pytest.mark.parametrize("steps", [0, 1])
def test_the_state_of_another_class(make, other, steps):
    _, optimizer = stepped(make, {}, 2)
    _, theirs = stepped(other, {}, steps)
    before = optimizer.state_dict()
    if make is other:
        optimizer.load_state_dict(theirs.state_dict())
        assert same_state(optimizer.state_dict(), theirs.state_dict())
        return
    with pytest.raises(errors.StateError, match=r"state_dict\['param_groups'\]\[0\].*expected"):
        optimizer.load_state_dict(theirs.state_dict())
    assert same_state(optimizer.state_dict(), before)


def broken(path, value):
    def change(state):
        for key in path[:-1]:
            state = state[key]
        if value is KeyError:
            del state[path[-1]]
        else:
            state[path[-1]] = value
    return change


@pytest.mark.parametrize("change, message", [
    (broken(["state"], KeyError), r"state_dict: expected the keys \['state', 'param_groups'\], got none of .*'state'"),
    (broken(["more"], 1), "state_dict: .* got 'more' as well"),
    (broken(["state"], [{}]), r"state_dict\['state'\]: expected a list for 2 groups, got one of length 1"),
    (broken(["param_groups"], None), r"state_dict\['param_groups'\]: expected a list for 2 groups, got None"),
    (broken(["param_groups", 1], 3), r"state_dict\['param_groups'\]\[1\]: expected a dict, got 3"),
    (broken(["param_groups", 1, "lr"], KeyError), r"\['param_groups'\]\[1\]: .* got none of the name 'lr'"),
    (broken(["param_groups", 1, "rho"], 0.5), r"\['param_groups'\]\[1\]: .* got 'rho' as well"),
    (broken(["param_groups", 1, "lr"], NAN), r"\['param_groups'\]\[1\]\['lr'\]: expected a finite number, 0 or more"),
    (broken(["param_groups", 1, "betas"], (0.9, "x")), r"\['betas'\]\[1\]: expected a number from 0 to below 1"),
    (broken(["param_groups", 1, "count"], 13), r"\['count'\]: expected 14, the number of parameters, got 13"),
    (broken(["param_groups", 1, "count"], "x"), r"\['count'\]: expected an int, 0 or more, got 'x'"),
    (broken(["state", 1], None), r"state_dict\['state'\]\[1\]: expected a dict, got None"),
    (broken(["state", 1, "exp_avg"], KeyError), r"\['state'\]\[1\]: .* got none of the name 'exp_avg'"),
    (broken(["state", 1, "sum"], [0.0]), r"\['state'\]\[1\]: .* got 'sum' as well"),
    (broken(["state", 1, "exp_avg"], np.zeros(13)), r"\['exp_avg'\]: expected the shape \(14,\), got \(13,\)"),
    (broken(["state", 1, "exp_avg"], np.zeros((14, 1))), r"\['exp_avg'\]: expected the shape \(14,\), got \(14, 1\)"),
    (broken(["state", 1, "exp_avg"], 3.0), r"\['exp_avg'\]: expected the shape \(14,\), got \("),
    (broken(["state", 1, "exp_avg"], "x"), r"\['exp_avg'\]: expected an array of real numbers, got 'x'"),
    (broken(["state", 1, "exp_avg"], np.full(14, NAN)), r"\['exp_avg'\]\[0\]: expected a finite number, got nan"),
    (broken(["state", 1, "exp_avg_sq"], np.full(14, -1.0)), r"\['exp_avg_sq'\]: expected averages of squares, 0 or"),
    (broken(["state", 1, "step"], -1), r"\['step'\]: expected an int, 0 or more, got -1"),
    (broken(["state", 1, "step"], 1.5), r"\['step'\]: expected an int, 0 or more, got 1.5"),
])
def test_broken_state_dicts(change, message):
    params, optimizer = stepped(Adam, {})
    before, data = optimizer.state_dict(), flat(params, "data")
    state = optimizer.state_dict()
    change(state)
    with pytest.raises(errors.StateError, match=message):
        optimizer.load_state_dict(state)
    assert same_state(optimizer.state_dict(), before) and (flat(params, "data") == data).all()
    optimizer.step()


@pytest.mark.parametrize("state", [None, [], "x", {}])
def test_what_is_no_state_dict(state):
    with pytest.raises(errors.StateError, match="^state_dict: expected"):
        SGD([Value(1.0)]).load_state_dict(state)


def test_the_state_of_another_model():
    state = SGD(contiguous()).state_dict()
    with pytest.raises(errors.StateError, match="expected 1, the number of parameters, got 23"):
        SGD([Value(1.0)]).load_state_dict(state)


def test_keys_of_schedulers_and_of_the_users_own_are_part_of_it():
    optimizer, other = SGD([Value(1.0)]), SGD([Value(1.0)])
    optimizer.param_groups[0]["initial_lr"] = 0.5
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["initial_lr"] == 0.5
    optimizer.param_groups[0]["note"] = "mine"
    with pytest.raises(errors.StateError, match="got 'note' as well"):
        other.load_state_dict(optimizer.state_dict())
    optimizer.load_state_dict(optimizer.state_dict())


# ---- clipping ----

def test_clipping_a_whole_optimizer_is_clipping_its_parameters():
    for norm_type in (1.0, 2.0, 3.0, INF):
        params, twins = mixed(), mixed()
        optimizer = SGD([{"params": params[:2]}, {"params": params[2:5]}, {"params": params[5:]}])
        for p in (params, twins):
            set_flat(p, "grad", gradients_of_step(1))
        expected = np.linalg.norm(gradients_of_step(1), norm_type)
        assert clip_grad_norm_(optimizer, 0.5, norm_type) == pytest.approx(expected, rel=1e-14)
        assert clip_grad_norm_(iter(twins), 0.5, norm_type) == pytest.approx(expected, rel=1e-14)
        assert close(flat(params, "grad"), np.array(gradients_of_step(1)) * 0.5 / (expected + 1e-6))
        assert close(flat(params, "grad"), flat(twins, "grad"))
        clip_grad_value_(optimizer, 0.01)
        assert np.abs(flat(params, "grad")).max() == 0.01


@pytest.mark.parametrize("make", [
    lambda p: p, lambda p: [p], lambda p: (x for x in [p]), lambda p: _core.Parameters([p]), lambda p: SGD([p])])
def test_what_may_be_clipped(make):
    for p, g in ((Value(1.0), -4.0), (Tensor([1.0]), [-4.0])):
        p.grad = g
        assert clip_grad_norm_(make(p), 2.0) == 4.0
        assert np.ravel(p.grad) == pytest.approx(-2.0, rel=1e-6)
        clip_grad_value_(make(p), 0.25)
        assert np.ravel(p.grad) == -0.25
        assert np.ravel(p.data) == 1.0


def test_norms_that_need_no_clipping():
    params = contiguous()
    set_flat(params, "grad", gradients_of_step(1))
    clip_grad_norm_(params, INF)
    clip_grad_norm_(params, 1e9)
    assert flat(params, "grad").tolist() == gradients_of_step(1)
    assert clip_grad_norm_([], 1.0) == 0.0
    params[3].grad = NAN
    assert math.isnan(clip_grad_norm_(SGD([{"params": params[:2]}, {"params": params[2:]}]), INF))
    params[3].grad = INF
    assert clip_grad_norm_(SGD([{"params": params[:2]}, {"params": params[2:]}]), INF) == INF
    assert flat(params, "grad").tolist()[4:] == gradients_of_step(1)[4:]


def test_a_norm_does_not_overflow():
    params = [Value(0.0) for _ in range(4)]
    set_flat(params, "grad", [3e200, 0.0, 0.0, 4e200])
    for whole in (params, SGD([{"params": params[:2]}, {"params": params[2:]}])):
        assert clip_grad_norm_(whole, INF) == pytest.approx(5e200, rel=1e-14)
    clip_grad_norm_(params, 5.0)
    assert close(flat(params, "grad"), [3.0, 0.0, 0.0, 4.0])
    set_flat(params, "grad", [3e-200, 0.0, 0.0, 4e-200])
    assert clip_grad_norm_(params, 5.0) == pytest.approx(5e-200, rel=1e-14)


@pytest.mark.parametrize("g", [NAN, INF, -INF])
def test_norms_that_are_not_finite(g):
    params = contiguous()
    set_flat(params, "grad", [g] + [1.0] * (N - 1))
    with pytest.raises(RuntimeError, match=r"the norm of order 2 of the gradients is (nan|inf), expected a finite"):
        clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert flat(params, "grad").tolist()[1:] == [1.0] * (N - 1)


@pytest.mark.parametrize("arguments, error, message", [
    ({"max_norm": -1.0}, ValueError, "max_norm: expected a number, 0 or more, got -1.0"),
    ({"max_norm": NAN}, ValueError, "max_norm: expected a number, 0 or more, got nan"),
    ({"max_norm": "1"}, TypeError, "max_norm: expected a number, 0 or more, got '1'"),
    ({"norm_type": 0}, ValueError, "norm_type: expected a number above 0 or inf, got 0"),
    ({"norm_type": -2}, ValueError, "norm_type: expected a number above 0 or inf, got -2"),
    ({"norm_type": "two"}, TypeError, "norm_type: expected a number above 0 or inf, got 'two'"),
    ({"error_if_nonfinite": 1}, TypeError, "error_if_nonfinite: expected True or False, got 1"),
    ({"parameters": 3.0}, TypeError, "parameters: expected an Optimizer, or an iterable of Values and Tensors"),
    ({"parameters": [3.0]}, TypeError, r"parameters\[0\]: expected a Value or a Tensor, got"),
])
def test_wrong_arguments_of_clipping(arguments, error, message):
    x = Value(1.0)
    x.grad = 7.0
    with pytest.raises(error, match=message):
        clip_grad_norm_(**{"parameters": [x], "max_norm": 1.0, **arguments})
    for wrong in (-1.0, NAN, None):
        with pytest.raises((TypeError, ValueError), match="clip_value: expected a number, 0 or more, got"):
            clip_grad_value_([x], wrong)
    assert x.grad == 7.0
