"""Training in compiled code: the numbers of the loop in Python bit for bit, which way a fit takes, and what it leaves."""
import functools
import math
import os
import pickle
import random
import signal
import threading
import time

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, losses, nn
from flatgrad.errors import ArgumentError, ArgumentTypeError, DivergedError, UnknownNameError
from flatgrad.optim import SGD, Adadelta, Adagrad, Adam, AdamW, RMSprop, lr_scheduler
from flatgrad.train import Callback, EarlyStopping, Trainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(45, 2))
LABELS = (X[:, 0] * X[:, 1] > 0).astype(int) + (X[:, 0] > 1)
SIGNS = np.sign(X[:, 0])
REAL = np.sin(X)

OPTIMIZERS = {
    "sgd": functools.partial(SGD, lr=0.05),
    "momentum": functools.partial(SGD, lr=0.02, momentum=0.9, weight_decay=1e-3, dampening=0.1),
    "nesterov": functools.partial(SGD, lr=0.02, momentum=0.9, nesterov=True),
    "ascent": functools.partial(SGD, lr=0.001, maximize=True),
    "adam": functools.partial(Adam, lr=0.01),
    "amsgrad": functools.partial(Adam, lr=0.01, weight_decay=0.01, amsgrad=True, betas=(0.3, 0.9)),
    "adamw": functools.partial(AdamW, lr=0.01),
    "rmsprop": functools.partial(RMSprop, lr=0.01, momentum=0.5, centered=True),
    "adagrad": functools.partial(Adagrad, lr=0.05, lr_decay=0.1),
    "adadelta": functools.partial(Adadelta, lr=0.5),
}

TARGETS = {"mse": REAL, "mae": REAL, "huber": REAL, "hinge": SIGNS, "bce_with_logits": (SIGNS + 1) / 2,
           "cross_entropy": LABELS}


def mlp(sizes=(8, 2), seed=7):
    random.seed(seed)
    return nn.MLP(2, list(sizes))


class Dense(nn.Module):
    def __init__(self, nin, nout, rng):
        self.weight, self.bias = Tensor(rng.normal(size=(nout, nin))), Tensor(rng.normal(size=nout))

    def __call__(self, x):
        return flatgrad.linear(x, self.weight, self.bias)


def linear(seed=7):
    rng = np.random.default_rng(seed)
    return nn.Sequential(Dense(2, 6, rng), flatgrad.tanh, Dense(6, 2, rng))


def without_time(history):
    return {name: column for name, column in history.to_dict().items() if name != "time"}


def left_by(trainer):
    return [without_time(trainer.history), [p.data.tolist() if isinstance(p, Tensor) else p.data
                                            for p in trainer.model.parameters()],
            [p.grad.tolist() if isinstance(p, Tensor) else p.grad for p in trainer.model.parameters()],
            repr(trainer.optimizer.state_dict()), trainer.epoch, trainer.stopped]


def both(make, *arguments, engine="compiled", **options):
    """What a fit leaves that takes one way and the other."""
    found = []
    for way in "python", engine:
        trainer = make()
        trainer.fit(*arguments, progress=False, engine=way, **options)
        assert trainer.engine.startswith("python" if way == "python" else "compiled"), trainer.engine
        found.append(left_by(trainer))
    return found


def same(found):
    assert repr(found[0]) == repr(found[1])


# ---- the same numbers ----

@pytest.mark.parametrize("model", [mlp, linear])
@pytest.mark.parametrize("batches", [{}, {"batch_size": 10}, {"batch_size": 10, "shuffle": False}, {"batch_size": 15}],
                         ids=["whole", "drawn", "fixed", "even"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_and_batches(optimizer, batches, model):
    def make():
        made = model()
        return Trainer(made, OPTIMIZERS[optimizer](made.parameters()), "mse")

    same(both(make, X, REAL, 6, seed=3, **batches, engine="auto"))


@pytest.mark.parametrize("metrics", [(), ("accuracy",)])
@pytest.mark.parametrize("loss", TARGETS)
def test_losses_and_metrics(loss, metrics):
    y = TARGETS[loss]
    if metrics and loss in ("mse", "mae", "huber"):
        metrics = ("r2", "mae")
    sizes = (5, 3) if loss == "cross_entropy" else (5, 1) if y.ndim == 1 else (5, 2)

    def make():
        model = mlp(sizes)
        return Trainer(model, SGD(model.parameters(), lr=0.05, momentum=0.9), loss, metrics)

    same(both(make, X, y, 5, batch_size=20, seed=3, validation=0.2, engine="auto"))
    same(both(make, X, y, 9, seed=3, engine="auto"))


@pytest.mark.parametrize("interval", ["epoch", "batch"])
@pytest.mark.parametrize("schedule", [
    lambda o: lr_scheduler.StepLR(o, 2, 0.5), lambda o: lr_scheduler.CosineAnnealingLR(o, 7),
    lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=40),
    lambda o: lr_scheduler.LambdaLR(o, lambda n: 1 / (1 + n))])
def test_schedules(schedule, interval):
    def make():
        model = mlp()
        optimizer = Adam(model.parameters(), lr=0.01)
        return Trainer(model, optimizer, "mse", scheduler=schedule(optimizer), scheduler_interval=interval)

    same(both(make, X, REAL, 6, batch_size=15, seed=1, engine="auto"))


def test_a_plateau_and_early_stopping():
    def make():
        model = mlp()
        optimizer = SGD(model.parameters(), lr=0.3)
        return Trainer(model, optimizer, "mse", scheduler=lr_scheduler.ReduceLROnPlateau(optimizer, patience=1))

    found = []
    for engine in "python", "auto":
        trainer = make()
        trainer.fit(X, REAL, 60, batch_size=20, seed=2, validation=0.3, progress=False, engine=engine,
                    callbacks=EarlyStopping(patience=3))
        found.append(left_by(trainer))
    assert trainer.engine == "compiled" and trainer.stopped
    same(found)


def test_a_penalty_and_layers_of_ones_own():
    class Own(nn.Module):
        def __init__(self):
            self.inner, self.scale, self.power = mlp((4, 1)), Value(1.5), 2

        def __call__(self, x):
            return self.inner(x) * self.scale ** self.power

    def make():
        model = Own()
        return Trainer(model, SGD(model.parameters(), lr=0.01), lambda p, y: losses.mse(p, y),
                       penalty=lambda parameters: 1e-3 * losses.l2(parameters))

    same(both(make, X, SIGNS, 6, batch_size=20, seed=1, engine="auto"))


def test_tied_frozen_and_unused_parameters_and_groups():
    def make():
        model, unused, other = mlp((4, 2)), Value(3.0), Tensor([1.0, 2.0])
        model.layers[0].neurons[0].w[0].requires_grad = False
        model.layers[0].neurons[1].w[1] = model.layers[0].neurons[2].w[1]   # tied
        model.layers[1].neurons[0].b.requires_grad = False
        own = model.parameters()
        return Trainer(model, AdamW([{"params": own[:9] + [unused]}, {"params": own[9:-2], "lr": 0.5},
                                     {"params": [other], "weight_decay": 0.5}], lr=0.01), "mse"), unused, other

    found = []
    for engine in "python", "auto":
        trainer, unused, other = make()
        trainer.fit(X, REAL, 5, batch_size=20, seed=4, progress=False, engine=engine)
        found.append([left_by(trainer), unused.data, unused.grad, other.data.tolist()])
    assert trainer.engine == "compiled" and unused.data != 3.0 and other.data[0] != 1.0
    same(found)


def test_gradients_of_what_is_not_updated_add_up():
    found = []
    for engine in "python", "compiled":
        model = mlp()
        own = model.parameters()
        own[-1].grad = 0.25
        Trainer(model, SGD(own[:-1], lr=0.01), "mse").fit(X, REAL, 5, batch_size=20, seed=4, progress=False,
                                                          engine=engine)
        found.append([own[-1].grad, own[-1].data])
    same(found)
    assert found[0][0] != 0.25


@pytest.mark.parametrize("engine", ["auto", "compiled"])
def test_gradients_of_parameters_that_are_not_read_begin_at_0(engine):
    def make():
        model, unused, frozen, other = mlp((4, 2)), Value(3.0), Value(2.0), Tensor([1.0, 2.0])
        unused.grad, frozen.grad = 7.0, 5.0
        other.grad = 4.0
        model.parameters()[0].grad = 6.0
        frozen.requires_grad = False
        return Trainer(model, SGD([*model.parameters(), unused, frozen, other], lr=0.1, momentum=0.5), "mse"), (
            unused, frozen, other)

    found = []
    for way in "python", engine:
        trainer, others = make()
        trainer.fit(X, REAL, 5, batch_size=20, seed=4, progress=False, engine=way)
        found.append([left_by(trainer), [repr((p.data, p.grad)) for p in others]])
    assert trainer.engine == "compiled"
    same(found)
    assert others[0].grad == 0.0 and others[0].data == 3.0


def test_fits_go_on_either_way():
    found = []
    for ways in ["python"] * 4, ["auto", "python", "compiled", "auto"]:
        model = linear()
        trainer = Trainer(model, SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True), "mse")
        for way in ways:
            trainer.fit(X, REAL, 3, batch_size=16, seed=5, progress=False, engine=way)
        found.append(left_by(trainer))
    same(found)


def test_long_fits_are_the_same():
    def make():
        model = mlp((3, 1))
        return Trainer(model, Adam(model.parameters(), lr=0.01), "mse")

    same(both(make, X[:4], REAL[:4, 0], 3000, engine="auto"))


def test_against_torch():
    torch = pytest.importorskip("torch")
    model = linear()
    theirs = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)).double()
    with torch.no_grad():
        for p, q in zip(theirs.parameters(), [q for dense in model.layers[::2] for q in (dense.weight, dense.bias)]):
            p.copy_(torch.tensor(q.data))
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.01)
    expected = []
    for _ in range(50):
        loss = torch.nn.functional.mse_loss(theirs(torch.tensor(X)), torch.tensor(REAL))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    trainer = Trainer(model, Adam(model.parameters(), lr=0.01), "mse")
    assert np.allclose(trainer.fit(X, REAL, 50, progress=False).loss, expected, rtol=1e-10)
    assert trainer.engine == "compiled"


# ---- minimize ----

def scalar_loss(model):
    @flatgrad.compile
    def loss(X, y, scale):
        errors = [(model(x) - target) ** 2 for x, target in zip(X, y)]
        return scale * sum(errors) / len(errors)

    return loss


XOR, TRUTH = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [-1.0, 1.0, 1.0, -1.0]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_minimize_is_the_loop_over_calls(optimizer):
    found = []
    for way in "python", "minimize":
        model = mlp((4, 1))
        loss, own = scalar_loss(model), OPTIMIZERS[optimizer](model.parameters())
        if way == "minimize":
            numbers = loss.minimize(own, XOR, TRUTH, 0.5, steps=60).tolist()
        else:
            numbers = []
            for _ in range(60):
                total = loss(XOR, TRUTH, 0.5)
                own.zero_grad()
                total.backward()
                own.step()
                numbers.append(total.data)
        found.append([numbers, [p.data for p in model.parameters()], [p.grad for p in model.parameters()],
                      repr(own.state_dict())])
    same(found)


@pytest.mark.parametrize("kind", ["lists", "arrays"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_minimize_in_batches(shuffle, kind):
    data, target = (X.tolist(), SIGNS.tolist()) if kind == "lists" else (X, SIGNS)
    found = []
    for way in "python", "minimize":
        model = mlp((4, 1))
        loss, own = scalar_loss(model), Adam(model.parameters(), lr=0.01)
        if kind == "arrays":
            loss = flatgrad.compile(lambda X, y, scale, model=model: scale * losses.mse(model(X), y))
        if way == "minimize":
            numbers = loss.minimize(own, data, target, 2.0, steps=13, batch_size=20, shuffle=shuffle, seed=5,
                                    every=2, callback=lambda step, loss: None).tolist()
        else:
            numbers, epoch = [], 0
            while len(numbers) < 13:
                epoch += 1
                order = np.random.default_rng([5, epoch]).permutation(45) if shuffle else np.arange(45)
                for rows in (order[:20], order[20:40], order[40:])[:13 - len(numbers)]:
                    total = loss([data[k] for k in rows] if kind == "lists" else X[rows],
                                 [target[k] for k in rows] if kind == "lists" else SIGNS[rows], 2.0)
                    own.zero_grad()
                    total.backward()
                    own.step()
                    numbers.append(total.data)
        found.append([numbers, [p.data for p in model.parameters()]])
    same(found)


SCHEDULES = {
    "step": lambda own: lr_scheduler.StepLR(own, 3, 0.5),
    "exponential": lambda own: lr_scheduler.ExponentialLR(own, 0.9),
    "cosine": lambda own: lr_scheduler.CosineAnnealingLR(own, 7),
    "lambda": lambda own: lr_scheduler.LambdaLR(own, lambda epoch: 1 / (1 + epoch)),
    "cycle": lambda own: lr_scheduler.OneCycleLR(own, 0.1, total_steps=60),
    "sequence": lambda own: lr_scheduler.SequentialLR(own, [lr_scheduler.ConstantLR(own, 0.1, 9),
                                                            lr_scheduler.ExponentialLR(own, 0.95)], [8]),
}


@pytest.mark.parametrize("every", [1, 7, 1000])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_minimize_with_a_schedule(schedule, every, monkeypatch):
    monkeypatch.setattr("flatgrad.descent.AHEAD", 5)
    found = []
    for way in "python", "minimize":
        model, numbers, seen = mlp((4, 1)), [], []
        parameters = model.parameters()
        loss = scalar_loss(model)
        own = Adam([{"params": parameters[:5]}, {"params": parameters[5:], "lr": 0.03}], lr=0.01)
        rates = SCHEDULES[schedule](own)
        if way == "minimize":
            numbers = loss.minimize(own, XOR, TRUTH, 0.5, steps=40, schedule=rates, every=every,
                                    callback=lambda step, _: seen.append([step, own.lr])).tolist()
        for step in range(40 if way == "python" else 0):
            total = loss(XOR, TRUTH, 0.5)
            own.zero_grad()
            total.backward()
            own.step()
            rates.step()
            numbers.append(total.data)
            if (step + 1) % every == 0:
                seen.append([step + 1, own.lr])
        found.append([numbers, seen, [p.data for p in parameters], repr(own.state_dict()), repr(rates.state_dict())])
    same(found)


@pytest.mark.parametrize("kind", ["function", "function of groups", "array", "array of groups"])
def test_minimize_with_given_rates(kind):
    several = "groups" in kind
    rates = [[0.1 / (k + 1), 0.02 * (k % 3)] if several else 0.1 / (k + 1) for k in range(30)]
    schedule = rates.__getitem__ if "function" in kind else np.array(rates)
    found = []
    for way in "python", "minimize":
        model, numbers = mlp((4, 1)), []
        parameters = model.parameters()
        loss, own = scalar_loss(model), SGD([{"params": parameters[:5]}, {"params": parameters[5:]}], momentum=0.5)
        if way == "minimize":
            numbers = loss.minimize(own, XOR, TRUTH, 0.5, steps=30, schedule=schedule).tolist()
        for step in range(30 if way == "python" else 0):
            for group, lr in zip(own.param_groups, rates[step] if several else [rates[step]] * 2):
                group["lr"] = lr
            total = loss(XOR, TRUTH, 0.5)
            own.zero_grad()
            total.backward()
            own.step()
            numbers.append(total.data)
        found.append([numbers, [p.data for p in parameters], repr(own.state_dict())])
    same(found)


@pytest.mark.parametrize("kind", ["fault", "schedule"])
def test_a_schedule_is_where_the_steps_are_after_an_error(kind):
    found = []
    for way in "python", "minimize":
        w = Value(1.0)
        loss, own = flatgrad.compile(lambda x, w=w: (w * x).log() if kind == "fault" else w * x), SGD([w], lr=0.3)
        rates = lr_scheduler.OneCycleLR(own, 0.5, total_steps=6 if kind == "schedule" else 60, cycle_momentum=False)
        with pytest.raises(ValueError) as raised:
            if way == "minimize":
                loss.minimize(own, -1.0 if kind == "schedule" else 1.0, steps=50, schedule=rates)
            for _ in range(50):
                total = loss(-1.0 if kind == "schedule" else 1.0)
                own.zero_grad()
                total.backward()
                own.step()
                rates.step()
        found.append([type(raised.value), str(raised.value), w.data, own.lr, repr(rates.state_dict())])
    same(found)


@pytest.mark.parametrize("schedule, message", [
    ("cosine", "minimize: schedule: expected an LRScheduler, a function"),
    ([0.1, 0.2], r"minimize: schedule: expected 3 learning rates.* shape \(2,\)"),
    ([[0.1, 0.2]] * 3, r"minimize: schedule: expected 3 learning rates.* shape \(3, 2\)"),
    ([0.1, -0.5, 0.2], "minimize: schedule: expected learning rates that are finite and 0 or more, got -0.5"),
    (lambda step: -1.0 * step, r"minimize: schedule\(1\): expected .*-1.0"),
    (lambda step: [0.1, 0.2], r"minimize: schedule\(0\): expected a learning rate, or one for each of 1 groups"),
    (lr_scheduler.StepLR(SGD([Value(1.0)], lr=0.1), 2), "minimize: schedule: expected a schedule of this optimizer"),
    (lr_scheduler.ReduceLROnPlateau(SGD([Value(1.0)], lr=0.1)), "schedule: expected an LRScheduler that goes"),
])
def test_minimize_refuses_schedules(schedule, message):
    w = Value(2.0)
    with pytest.raises((ArgumentError, ArgumentTypeError), match=message):
        flatgrad.compile(lambda x: (w * x) ** 2).minimize(SGD([w], lr=0.1), 1.0, steps=3, schedule=schedule)
    assert w.data == 2.0


def test_minimize_a_batch_in_lanes():
    tokens, found = np.arange(60.0).reshape(30, 2) % 7.0, []
    for way in "python", "minimize":
        rng = np.random.default_rng(1)
        table, weights = Tensor(rng.normal(size=(7, 3))), Tensor(rng.normal(size=(1, 3)))
        own = Adam([table, weights], lr=0.01)

        def one(pair):
            return (flatgrad.linear(flatgrad.take(table, pair[0]), weights).tanh()[0] - pair[1]) ** 2

        loss = flatgrad.compile(lambda batch, one=one: flatgrad.vmap(one)(batch).mean())
        if way == "minimize":
            numbers = loss.minimize(own, tokens, steps=40, batch_size=8, shuffle=False,
                                    schedule=lambda step: 0.01 / (step + 1)).tolist()
        else:
            numbers = []
            for step in range(40):
                own.lr = 0.01 / (step + 1)
                total = loss(tokens[step % 4 * 8:step % 4 * 8 + 8])
                own.zero_grad()
                total.backward()
                own.step()
                numbers.append(total.data)
        found.append([numbers, table.data.tolist(), weights.data.tolist(), repr(own.state_dict())])
    same(found)


def test_minimize_records_once():
    recorded, table = [], Tensor([1.0, 2.0])

    def squares(x, table):
        recorded.append(x)
        return (table * table * x).sum()

    squares = flatgrad.compile(squares)
    own = SGD([table], lr=0.01)

    def again(step, number):   # the program of the loop around is not to be had
        squares.minimize(SGD([w], lr=0.1), 2.0, w, steps=2)

    w = Tensor([3.0, 4.0])
    for _ in range(2):
        squares.minimize(own, 2.0, table, steps=3)
    assert len(recorded) == 1
    squares.minimize(own, 2.0, table, steps=3, every=3, callback=again)
    assert len(recorded) == 2
    with pytest.raises(RuntimeError, match="no gradient flows"):
        squares.minimize(SGD([Value(1.0)], lr=0.1), 2.0, Tensor([1.0, 2.0], requires_grad=False))
    squares.clear()
    squares.minimize(own, 2.0, table, steps=3)
    assert len(recorded) == 4
    expected = 1.0
    for _ in range(12):
        expected -= 0.01 * 4.0 * expected
    assert abs(table.data[0] - expected) < 1e-12


def test_minimize_updates_a_tensor_whose_elements_are_captured():
    table = Tensor([1.0, 2.0])
    first = table[0]
    flatgrad.compile(lambda x: first * first * x).minimize(SGD([table], lr=0.25), 1.0, steps=1)
    assert table.data.tolist() == [0.5, 2.0]


def test_minimize_arguments_and_callbacks():
    w, x, seen = Value(3.0), Tensor([1.0, 2.0]), []
    loss = flatgrad.compile(lambda w, x: (w * x * x).sum() ** 2)

    def look(step, number):
        seen.append((step, number, w.data))
        return step == 6

    losses_ = loss.minimize(SGD([w, x], lr=1e-3), w, x, steps=50, every=3, callback=look)
    v, y = Value(3.0), Tensor([1.0, 2.0])
    own, expected = SGD([v, y], lr=1e-3), []
    for _ in range(6):
        total = loss(v, y)
        own.zero_grad()
        total.backward()
        own.step()
        expected.append(total.data)
    assert losses_.tolist() == expected and w.data == v.data and x.data.tolist() == y.data.tolist()
    assert [step for step, *_ in seen] == [3, 6] and seen[-1][1:] == (losses_[5], w.data)


def test_minimize_sets_all_gradients_to_0():
    w, z, still = Value(1.0), Value(5.0), Tensor([1.0, 2.0])
    z.grad = 7.0
    still.grad = 3.0
    loss = flatgrad.compile(lambda x, y: (w * x - y) ** 2)
    loss.minimize(SGD([w, z, still], lr=0.1), 1.0, 2.0, steps=3)
    assert (z.data, z.grad) == (5.0, 0.0)
    assert still.data.tolist() == [1.0, 2.0] and still.grad.tolist() == [0.0, 0.0]


def test_minimize_goes_on_with_nan():
    w = Value(3.0)
    loss = flatgrad.compile(lambda x: w * w * x)
    assert np.isnan(loss.minimize(SGD([w], lr=1e200), 1e200, steps=5)[-1])


@pytest.mark.parametrize("arguments, options, message", [
    (("SGD", 1.0), {}, "minimize: optimizer"), ((None, 1.0), {"steps": -1}, "minimize: steps"),
    ((None, 1.0), {"batch_size": 0}, "minimize: batch_size"), ((None, 1.0), {"batch_size": 2}, "minimize: batch_size"),
    ((None, 1.0), {"every": 0}, "minimize: every"), ((None, 1.0), {"callback": 3}, "minimize: callback"),
    ((None, 1.0), {"shuffle": 3}, "minimize: shuffle"), ((None, [1.0]), {}, "returns a Value"),
    ((None, [1.0, [2.0, 3.0]]), {"batch_size": 1}, "minimize: argument 0"),
    ((None, Value(1.0)), {"steps": "x"}, "minimize: steps"), ((None, Tensor([1.0])), {}, "a loss that is a Value"),
])
def test_minimize_refuses(arguments, options, message):
    w = Value(3.0)
    loss = flatgrad.compile(lambda x: [w] if isinstance(x, list) else w * x)
    optimizer = SGD([w], lr=0.1) if arguments[0] is None else arguments[0]
    with pytest.raises((TypeError, ValueError), match=message):
        loss.minimize(optimizer, *arguments[1:], **options)
    assert w.data == 3.0


# ---- which way ----

class Counting(nn.Module):
    def __init__(self):
        self.inner, self.calls = mlp(), 0

    def __call__(self, x):
        self.calls += 1
        return self.inner(x)


class Drawing(nn.Module):
    def __init__(self):
        self.inner = mlp()

    def __call__(self, x):
        return self.inner(x) * random.random()


class GivenGenerator(nn.Module):
    def __init__(self):
        self.inner = mlp()
        self.generator = np.random.default_rng(1)
        self.drop = nn.Dropout(0.5, rng=self.generator)

    def __call__(self, x):
        return self.drop(self.inner(x)) * self.generator.normal()


class DrawingFromDropout(GivenGenerator):
    def __init__(self):
        super().__init__()
        del self.generator

    def __call__(self, x):
        return self.drop(self.inner(x)) * self.drop.rng.normal()


class OwnSGD(SGD):
    pass


SCALE = 2.0


@pytest.mark.parametrize("model, optimizer, loss, options, reason", [
    (Counting, SGD, "mse", {}, "writes 'calls'"),
    (Drawing, SGD, "mse", {}, "uses the module 'random'"),
    (lambda: GivenGenerator(), SGD, "mse", {}, "has a Generator, which may be another at each step"),
    (lambda: DrawingFromDropout(), SGD, "mse", {}, "uses 'rng'"),
    (lambda: nn.Sequential(nn.Layer(2, 2), nn.BatchNorm(2)), SGD, "mse", {}, "BatchNorm"),
    (mlp, OwnSGD, "mse", {}, "the optimizer OwnSGD"),
    (mlp, SGD, "mse", {"callbacks": type("C", (Callback,), {"on_batch_end": lambda *_: None})()}, "on_batch_end"),
    (mlp, SGD, "mse", {"epochs": 1}, "fewer than"),
    (mlp, SGD, "mse", {"engine": "python"}, "engine='python'"),
    (mlp, SGD, lambda p, y: losses.mse(p, y) * np.exp(1.0), {}, "uses the module 'np'"),
])
def test_the_loop_in_python_says_why(model, optimizer, loss, options, reason):
    made = model()
    trainer = Trainer(made, optimizer(made.parameters(), lr=0.01), loss)
    trainer.fit(X, REAL, **{"epochs": 5, "progress": False, **options})
    assert trainer.engine.startswith("python: ") and reason in trainer.engine


def test_a_way_that_is_impossible_is_an_error():
    model = nn.Sequential(nn.Layer(2, 2), nn.BatchNorm(2))
    trainer = Trainer(model, SGD(model.parameters(), lr=0.01), "mse")
    before = left_by(trainer)
    with pytest.raises(ArgumentError, match="engine: expected 'auto' or 'python', because .*, got 'compiled'"):
        trainer.fit(X, REAL, 5, progress=False, engine="compiled")
    same([before, left_by(trainer)])
    with pytest.raises(UnknownNameError, match="engine"):
        trainer.fit(X, REAL, 5, progress=False, engine="fast")


def test_what_a_callback_changes_counts():
    def make():
        model = mlp()
        return Trainer(model, SGD(model.parameters(), lr=0.01), "mse")

    def change(trainer, epoch, logs):
        own = trainer.model.parameters()
        own[0].data = 0.5
        trainer.optimizer.param_groups[0]["lr"] = 0.01 * (epoch + 1)
        own[1].requires_grad = epoch % 2 == 0
        if epoch == 3:
            trainer.model.layers[0].activation = "relu"
        if epoch == 4:
            trainer.optimizer.param_groups[0]["momentum"] = 0.5

    same(both(make, X, REAL, 8, batch_size=20, seed=1, callbacks=change, engine="auto"))


def test_parameters_are_there_when_python_looks():
    seen = {}
    for engine in "python", "auto":
        model = mlp()
        seen[engine] = []
        Trainer(model, SGD(model.parameters(), lr=0.01), "mse").fit(
            X, REAL, 5, batch_size=20, seed=1, progress=False, engine=engine,
            callbacks=lambda *_: seen[engine].append([p.data for p in model.parameters()]))
    assert seen["python"] == seen["auto"]


class Scaled(nn.Module):
    factor = 1.0

    def __init__(self):
        self.inner = mlp()

    def __call__(self, x):
        return self.inner(x) * self.factor


def squares(p, y, k=1.0):
    return losses.mse(p, y) * k


def activation_at_the_end(trainer, epoch, logs):
    trainer.model.inner.layers[-1].activation = "tanh"


def class_attribute(trainer, epoch, logs):
    Scaled.factor += 1.0


def defaults(trainer, epoch, logs):
    squares.__defaults__ = (squares.__defaults__[0] + 1.0,)


def weight(trainer, epoch, logs):
    trainer.model.inner.layers[0].neurons[0].w[0] = Value(0.25)


def rule(trainer, epoch, logs):
    if epoch == 3:
        trainer.model.inner.parameters()[0]._backward = lambda: None


def helper(trainer, epoch, logs):
    Scaled.__call__ = lambda self, x: self.inner(x) * 3.0


def penalty(trainer, epoch, logs):
    trainer.penalty, trainer.model = losses.l2, None
    activation_at_the_end(type("T", (), {"model": trainer.kept}), epoch, logs)


@pytest.mark.parametrize("change", [activation_at_the_end, class_attribute, defaults, weight, rule, helper, penalty])
def test_what_a_recording_depends_on_may_change_between_epochs(change, monkeypatch):
    found, call = [], Scaled.__call__
    for engine in "python", "auto":
        monkeypatch.setattr(Scaled, "factor", 1.0)
        monkeypatch.setattr(Scaled, "__call__", call)
        monkeypatch.setattr(squares, "__defaults__", (1.0,))
        model = Scaled()
        trainer = Trainer(model, SGD(model.parameters(), lr=0.01), squares)
        trainer.kept = model
        trainer.fit(X, REAL, 6, batch_size=20, seed=1, progress=False, engine=engine, callbacks=change)
        assert trainer.engine.startswith("compiled" if engine == "auto" and change is not rule else "python")
        found.append([without_time(trainer.history), [p.data for p in model.parameters()]])
    same(found)


def reading(what):
    def make():
        model = mlp()
        optimizer = SGD(model.parameters(), lr=0.01)
        schedule = lr_scheduler.StepLR(optimizer, 1, 0.5)
        box = []
        loss = {
            "epoch": lambda p, y: losses.mse(p, y) * (1 + box[0].epoch),
            "history": lambda p, y: losses.mse(p, y) * (1 + len(box[0].history)),
            "lr": lambda p, y: losses.mse(p, y) * optimizer.lr,
            "groups": lambda p, y: losses.mse(p, y) * optimizer.param_groups[0]["lr"],
            "last_epoch": lambda p, y: losses.mse(p, y) * (1 + schedule.last_epoch),
            "step": lambda p, y, step=schedule.step: losses.mse(p, y),
            "nodes": lambda p, y: losses.mse(p, y) + 0.0 * flatgrad.stats()["nodes"],
        }[what]
        trainer = Trainer(model, optimizer, loss, scheduler=schedule)
        box.append(trainer)
        return trainer

    return make


@pytest.mark.parametrize("what, reason", [("epoch", "has a Trainer"), ("history", "has a Trainer"), ("lr", "has a SGD"),
                                          ("groups", "has a SGD"), ("last_epoch", "has a StepLR"),
                                          ("step", "has a StepLR"), ("nodes", "stats")])
def test_a_loss_that_reads_the_training_goes_to_python(what, reason):
    found = []
    for engine in "python", "auto":
        trainer = reading(what)()
        trainer.fit(X, REAL, 6, batch_size=20, seed=1, progress=False, engine=engine)
        found.append(left_by(trainer))
    same(found)
    assert trainer.engine.startswith("python: ") and reason in trainer.engine


def test_a_loss_that_changes_a_list_goes_to_python():
    kept = []

    def loss(p, y):
        mine = kept
        mine += [1.0]
        return losses.mse(p, y)

    model = mlp()
    trainer = Trainer(model, SGD(model.parameters(), lr=0.01), loss)
    trainer.fit(X, REAL, 6, progress=False)
    assert trainer.engine == "python: the model, the loss or the penalty changes something when it is called"


@pytest.mark.parametrize("how", ["rule", "computed"])
def test_leaves_that_are_none_go_to_python(how):
    found = []
    for engine in "python", "auto":
        model, scale = mlp(), Value(2.0) * 3.0
        if how == "rule":
            model.parameters()[0]._backward = lambda: None
        trainer = Trainer(model, SGD(model.parameters(), lr=0.01),
                          "mse" if how == "rule" else lambda p, y: losses.mse(p, y) * scale)
        trainer.fit(X, REAL, 6, batch_size=20, seed=1, progress=False, engine=engine)
        found.append(left_by(trainer))
    same(found)
    expected = "a parameter of the optimizer, Value" if how == "rule" else "captures or is given Value"
    assert trainer.engine.startswith("python: ") and expected in trainer.engine
    with pytest.raises(ArgumentError, match=expected):
        trainer.fit(X, REAL, 6, progress=False, engine="compiled")


def test_minimize_says_which_leaf_is_none():
    w, scale = Value(3.0), Value(2.0) * 3.0
    loss = flatgrad.compile(lambda x: (w * x * scale) ** 2)
    with pytest.raises(ArgumentError, match="minimize: expected leaves, but the function captures .*6.0"):
        loss.minimize(SGD([w], lr=0.1), 1.0)
    w._backward = lambda: None
    with pytest.raises(ArgumentError, match="minimize: expected leaves, but a parameter of the optimizer.*3.0"):
        flatgrad.compile(lambda x: w * x).minimize(SGD([w], lr=0.1), 1.0)
    assert w.data == 3.0


@pytest.mark.parametrize("engine", ["python", "auto", "compiled"])
def test_a_loss_without_parameters(engine):
    model = mlp()
    trainer = Trainer(model, SGD(model.parameters(), lr=0.01), lambda p, y: (y * y).sum())
    with pytest.raises(RuntimeError, match="no gradient flows"):
        trainer.fit(X, REAL, 6, progress=False, engine=engine)
    assert trainer.epoch == 0


def test_minimize_a_loss_without_parameters():
    w = Value(1.0)
    with pytest.raises(RuntimeError, match="no gradient flows"):
        flatgrad.compile(lambda x: (x * x).sum()).minimize(SGD([w], lr=0.1), X)
    loss = flatgrad.compile(lambda x: w * x)

    def freeze(step, number):
        w.requires_grad = False

    with pytest.raises(RuntimeError, match="no gradient flows"):
        loss.minimize(SGD([w], lr=0.1), 1.0, steps=5, every=2, callback=freeze)
    with pytest.raises(RuntimeError, match="no gradient flows"):
        loss.minimize(SGD([w], lr=0.1), 1.0)


def test_minimize_does_not_check():
    w = Value(1.0)
    loss = flatgrad.compile(lambda x: (w * x) ** 2, check=True)
    with pytest.raises(ArgumentError, match="minimize: expected a function of compile.check=False"):
        loss.minimize(SGD([w], lr=0.1), 1.0)
    assert w.data == 1.0


def test_minimize_ends_by_true_of_numpy_and_has_a_limit():
    w = Value(1.0)
    loss = flatgrad.compile(lambda x: (w * x) ** 2)
    assert len(loss.minimize(SGD([w], lr=0.1), 1.0, callback=lambda step, number: np.bool_(step == 4))) == 4
    with pytest.raises(ArgumentError, match="minimize: steps: expected at most .*, got 10000"):
        loss.minimize(SGD([w], lr=0.1), 1.0, steps=10**30)


def closs(p, y):
    return losses.mse(p, y)


@pytest.mark.parametrize("make, loss, y, x, message", [
    (lambda: mlp((4, 3)), losses.CrossEntropyLoss(weight=[1.0, 2.0, 3.0]), LABELS, X, "without weights of classes"),
    (lambda: mlp((4, 3)), "nll", LABELS, X, "of losses that take labels only cross_entropy"),
    (lambda: mlp((4, 3)), lambda p, y: losses.cross_entropy(p, y, label_smoothing=0.1), LABELS, X,
     "of losses that take labels only cross_entropy"),
    (lambda: nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Layer(8, 3)), "cross_entropy", LABELS,
     np.abs(X).astype(int), "the recording says: indices: "),
])
def test_why_not_compiled_is_a_sentence(make, loss, y, x, message):
    trainer = Trainer(model := make(), SGD(model.parameters(), lr=0.01), loss)
    with pytest.raises(ArgumentError, match=f"engine: expected 'auto' or 'python', because .*{message}"):
        trainer.fit(x, y, 5, progress=False, engine="compiled")


def test_a_compiled_loss_goes_to_python():
    trainer = Trainer(model := mlp(), SGD(model.parameters(), lr=0.01), flatgrad.compile(closs))
    trainer.fit(X, REAL, 5, progress=False)
    assert trainer.engine.startswith("python: the loss, closs is or calls a function of flatgrad.compile")


def test_schedules_with_functions_that_change_something():
    def make():
        model, box = Scaled(), [1.0]

        def rate(n):
            box[0] += 1.0
            return 1 / (1 + n)

        optimizer = SGD(model.parameters(), lr=0.01)
        return Trainer(model, optimizer, lambda p, y: losses.mse(p, y) * box[0],
                       scheduler=lr_scheduler.LambdaLR(optimizer, rate), scheduler_interval=interval)

    for interval in "epoch", "batch":
        found = []
        for engine in "python", "auto":
            trainer = make()
            trainer.fit(X, REAL, 6, batch_size=20, seed=1, progress=False, engine=engine)
            found.append(left_by(trainer))
        same(found)
        assert trainer.engine.startswith("compiled" if interval == "epoch" else "python: the schedule, LambdaLR")


# ---- ends ----

@pytest.mark.parametrize("batches", [{}, {"batch_size": 10}])
def test_a_loss_that_diverges(batches):
    found = []
    for engine in "python", "compiled":
        model = linear()
        trainer = Trainer(model, SGD(model.parameters(), lr=1e6), "mse")
        with pytest.raises(DivergedError) as raised:
            trainer.fit(X, REAL * 1e100, 50, progress=False, engine=engine, seed=1, **batches)
        found.append([str(raised.value), raised.value.epoch, left_by(trainer)])
    same(found)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
@pytest.mark.parametrize("sizes, batches", [((2, 1), {}), ((2, 1), {"batch_size": 7}), ((100, 100, 1), {})])
def test_ctrl_c(sizes, batches):
    model = mlp(sizes)
    trainer = Trainer(model, Adam(model.parameters(), lr=1e-5), "mse")
    pressed = []

    def press():
        pressed.append(time.process_time())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(0.8, press)
    timer.start()
    history = trainer.fit(X, REAL[:, 0], 10**9, progress=False, **batches, seed=1)
    took = time.process_time() - pressed[0]
    assert trainer.engine == "compiled" and trainer.stopped == "KeyboardInterrupt"
    assert took < 1.0   # a tenth of it where nothing else runs
    assert len(history) == trainer.epoch
    steps = trainer.optimizer.state_dict()["state"][0]["step"]
    n_batches = 1 if not batches else math.ceil(45 / 7)
    assert trainer.epoch * n_batches <= steps <= (trainer.epoch + 1) * n_batches
    again = mlp(sizes)   # the state is that after whole steps
    if not batches and sizes == (2, 1):
        other = Trainer(again, Adam(again.parameters(), lr=1e-5), "mse")
        other.fit(X, REAL[:, 0], steps, progress=False)
        assert [p.data for p in again.parameters()] == [p.data for p in model.parameters()]


def test_other_threads_run():
    ran = []
    stop = threading.Event()

    def count():
        while not stop.is_set():
            ran.append((Value(2.0) * 3.0).data)
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        model = mlp()
        trainer = Trainer(model, SGD(model.parameters(), lr=0.01), "mse")
        trainer.fit(X, REAL, 20_000, progress=False)
    finally:
        stop.set()
        thread.join()
    assert trainer.engine == "compiled" and len(ran) > 5 and set(ran) == {6.0}


def test_nothing_is_left_on_the_tape():
    from flatgrad import _core

    model = mlp()
    trainer = Trainer(model, SGD(model.parameters(), lr=0.01), "mse")
    trainer.fit(X, REAL, 5, progress=False)
    programs, before = _core._live_programs(), flatgrad.stats()["nodes"]
    trainer.fit(X, REAL, 20, progress=False, batch_size=10)
    assert _core._live_programs() == programs and flatgrad.stats()["nodes"] == before


def test_a_trainer_of_compiled_steps_is_saved(tmp_path):
    model = mlp()
    trainer = Trainer(model, Adam(model.parameters(), lr=0.01), "mse")
    trainer.fit(X, REAL, 5, progress=False)
    trainer.save(tmp_path / "run.npz")
    other = mlp(seed=1)
    loaded = Trainer(other, Adam(other.parameters(), lr=0.5), "mse").load(tmp_path / "run.npz")
    assert loaded.fit(X, REAL, 5, progress=False).loss == trainer.fit(X, REAL, 5, progress=False).loss
    assert pickle.loads(pickle.dumps(model)).parameters()[0].data == model.parameters()[0].data


def replace_value(w, things):
    things["scale"] = Value(5.0)


def replace_constant(w, things):
    things["model"].gain = 3.0


def stop_dropping(w, things):
    things["drop"].eval()


@pytest.mark.parametrize("change", [replace_value, replace_constant, stop_dropping])
@pytest.mark.parametrize("batch_size", [None, 3])   # of 8 samples: the last batch of an epoch has 2
def test_a_callback_may_replace_what_the_loss_reads(change, batch_size):
    X = np.random.default_rng(1).standard_normal(8)

    def training(compiled):
        w = Value(1.0)
        things = {"scale": Value(1.0), "model": type("Model", (), {})(), "drop": nn.Dropout(0.5, rng=0)}
        things["model"].gain = 1.0
        model, drop = things["model"], things["drop"]
        loss = flatgrad.compile(lambda x: flatgrad.mean(drop(w * x - 1.0) ** 2) * things["scale"] * model.gain,
                                simplify=False)
        optimizer = SGD([w], lr=0.1)

        def callback(step, total):
            if step == 4:
                change(w, things)
        if compiled:
            return loss.minimize(optimizer, X, steps=9, batch_size=batch_size, shuffle=False, callback=callback), w.data
        losses = []
        for step in range(9):
            first = 0 if batch_size is None else step % 3 * batch_size
            total = loss(X[first:first + (batch_size or 8)])
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            losses.append(total.data)
            callback(step + 1, total.data)
        return losses, w.data

    (losses, w), (expected, w_expected) = training(True), training(False)
    assert losses.tolist() == expected and w == w_expected


def test_a_callback_may_add_a_group():
    w, v = Value(1.0), Value(1.0)
    f = flatgrad.compile(lambda x: (w * x - v) ** 2)

    def train(schedule=None):
        optimizer = SGD([w], lr=0.1)

        def callback(step, loss):
            if step == 2:
                optimizer.add_param_group({"params": [v]})
        return f.minimize(optimizer, 2.0, steps=4, callback=callback, schedule=schedule)

    train()
    assert v.data != 1.0
    with pytest.raises(ArgumentError, match="schedule: expected one of 2 parameter groups"):
        train([0.1] * 4)


@pytest.mark.parametrize("nodes", [40_000, 140_000])
def test_a_program_of_more_nodes_than_are_computed_without_a_pause(nodes):
    """65,536 of them: two and more stretches, and a program that ends within one, of which nothing beyond is computed."""
    w, optimizers = [Value(0.5), Value(0.5)], []

    def chain(k):
        x = w[k]
        for i in range(nodes // 4):
            x = (x * (0.7 + i % 3) + 0.125).tanh() * w[k]
        return (x - 0.25) ** 2

    compiled = flatgrad.compile(lambda: chain(0))
    optimizers = [SGD([v], lr=0.01, momentum=0.5) for v in w]
    found = list(compiled.minimize(optimizers[0], steps=3))
    losses_ = []
    for _ in range(3):
        loss = chain(1)
        optimizers[1].zero_grad()
        loss.backward()
        optimizers[1].step()
        losses_.append(loss.data)
    assert found == losses_ and w[0].data == w[1].data
