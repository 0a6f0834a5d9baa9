"""A Trainer's batches of an iterable, and gradients that are clipped: against loops by hand, and PyTorch."""
import itertools
import random

import numpy as np
import pytest

from flatgrad import losses
from flatgrad.datasets import make_moons
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, DivergedError, ShapeError
from flatgrad.nn import MLP
from flatgrad.optim import LBFGS, SGD, Adam, NAdam, clip_grad_norm_, clip_grad_value_
from flatgrad.train import Callback, Trainer

X, LABELS = make_moons(60, noise=0.1, random_state=3)
Y = 2.0 * LABELS - 1.0
PARTS = [(X[:25], Y[:25]), (X[25:50], Y[25:50]), (X[50:], Y[50:])]


def trainer_of(loss="hinge", make=Adam, sizes=(8, 1), lr=0.05, **options):
    random.seed(7)
    model = MLP(2, list(sizes))
    return Trainer(model, make(model.parameters(), lr=lr), loss, **options)


def numbers(trainer):
    return [p.data for p in trainer.model.parameters()]


class Again:
    """An iterable that can be gone through more than once, and counts."""

    def __init__(self, parts=PARTS):
        self.parts, self.passes, self.taken = parts, 0, 0

    def __iter__(self):
        self.passes += 1
        for part in self.parts:
            self.taken += 1
            yield part


# ---- batches of an iterable ----

@pytest.mark.parametrize("given", [
    PARTS, tuple(PARTS), Again(), lambda: iter(PARTS), lambda: ((x.tolist(), y.tolist()) for x, y in PARTS),
    [[x, y[:, None]] for x, y in PARTS]], ids=["list", "tuple", "class", "iterators", "lists", "lists of columns"])
def test_an_iterable_trains_as_arrays_do(given):
    arrays, batches = trainer_of(metrics=["accuracy", "f1"]), trainer_of(metrics=["accuracy", "f1"])
    arrays.fit(X, Y, 4, batch_size=25, shuffle=False, progress=False, engine="python")
    history = batches.fit(given, epochs=4, progress=False)
    assert numbers(arrays) == numbers(batches)
    assert history.epochs == [1, 2, 3, 4] and list(history) == list(arrays.history)
    assert history.accuracy == arrays.history.accuracy and history.f1 == arrays.history.f1
    np.testing.assert_allclose(history.loss, arrays.history.loss, rtol=1e-14)
    assert batches.engine == "python: the batches come from an iterable"
    assert batches.evaluate(given) == arrays.evaluate(X, Y)


def test_labels_stay_labels():
    arrays, batches = trainer_of("cross_entropy", sizes=(8, 2)), trainer_of("cross_entropy", sizes=(8, 2))
    arrays.fit(X, LABELS, 3, batch_size=20, shuffle=False, progress=False)
    batches.fit([(X[k:k + 20], LABELS[k:k + 20]) for k in (0, 20, 40)], epochs=3, progress=False)
    assert numbers(arrays) == numbers(batches)


def test_a_data_loader_of_pytorch():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(LABELS))
    loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True,
                                         generator=torch.Generator().manual_seed(5))
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).double()
    trainer = trainer_of("cross_entropy", SGD, (8, 2), lr=0.1, metrics=["accuracy"])
    with torch.no_grad():
        for layer, own in zip((net[0], net[2]), trainer.model.layers):
            layer.weight.copy_(torch.tensor([[w.data for w in neuron.w] for neuron in own.neurons], dtype=torch.float64))
            layer.bias.copy_(torch.tensor([neuron.b.data for neuron in own.neurons], dtype=torch.float64))
    history = trainer.fit(loader, epochs=3, validation=torch.utils.data.DataLoader(data, batch_size=7),
                          progress=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    theirs = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True,
                                         generator=torch.Generator().manual_seed(5))
    expected = []
    for _ in range(3):
        mean = 0.0
        for inputs, targets in theirs:
            loss = torch.nn.functional.cross_entropy(net(inputs), targets)
            optimizer.zero_grad(); loss.backward(); optimizer.step()
            mean += loss.item() * len(inputs) / 60
        expected.append(mean)
    np.testing.assert_allclose(history.loss, expected, rtol=1e-12)
    assert history.val_accuracy[-1] == np.mean(net(torch.tensor(X)).argmax(dim=1).numpy() == LABELS)


def test_an_epoch_takes_what_there_is_and_no_more():
    given = Again()
    trainer_of().fit(given, epochs=3, progress=False)
    assert (given.passes, given.taken) == (3, 9)
    trainer_of().fit(given, epochs=0, progress=False)
    assert (given.passes, given.taken) == (3, 9)


def test_steps_per_epoch_go_on_where_the_last_epoch_has_ended():
    seen = []

    class See(Callback):
        def on_batch_end(self, trainer, batch, loss):
            seen.append(batch)

    endless = itertools.cycle(PARTS)
    one, other = trainer_of(), trainer_of()
    history = one.fit(endless, epochs=2, steps_per_epoch=4, callbacks=[See()], progress=False)
    assert seen == [1, 2, 3, 4] * 2 and len(history) == 2
    assert next(endless) is PARTS[2]   # eight were taken
    again = Again()
    other.fit(again, epochs=2, steps_per_epoch=4, progress=False)
    assert numbers(one) == numbers(other) and (again.passes, again.taken) == (3, 8)
    generator = (part for part in PARTS)
    trainer_of().fit(generator, epochs=1, progress=False)
    assert list(generator) == []


def test_a_validation_that_is_an_iterable_is_read_once():
    given, pair, iterable = Again(), trainer_of(metrics=["accuracy"]), trainer_of(metrics=["accuracy"])
    pair.fit(X, Y, 3, validation=(X, Y), progress=False)
    iterable.fit(X, Y, 3, validation=given, progress=False)
    assert given.passes == 1
    assert {name: column for name, column in pair.history.items() if name != "time"} == {
        name: column for name, column in iterable.history.items() if name != "time"}
    both = trainer_of()
    both.fit(PARTS, epochs=2, validation=(X[:7], Y[:7]), progress=False)
    assert both.history.val_loss[-1] == both.evaluate(X[:7], Y[:7])["loss"]


@pytest.mark.parametrize("arguments, error, message", [
    ((X,), ArgumentTypeError, "y: expected targets, or None if X is an iterable of batches"),
    ((3,), ArgumentTypeError, "got None and 3"), (({"x": 1},), ArgumentTypeError, "got None and {'x': 1}"),
    (([],), DataError, r"X: expected one batch \(X, y\) at least, got none"),
    (([X],), ArgumentTypeError, r"batch 1: expected a pair \(X, y\) of samples and targets, got array"),
    (([(X, Y, Y)],), ArgumentTypeError, r"batch 1: expected a pair"),
    (([(X, Y[:-1])],), ShapeError, "batch 1: y: expected 60 samples"),
    (([(X[:, :1], Y)],), ShapeError, "batch 1: X: the model does not take samples of 1 feature"),
    (([(X, 0 * Y)],), DataError, r"batch 1: y\[0\]: expected -1 or 1"),
    ((iter(PARTS), None, 2), ArgumentError, "expected an iterable that begins again for each epoch"),
    ((PARTS, None, 2, 16), ArgumentError, "batch_size: expected None for an iterable of batches, got 16"),
])
def test_what_is_refused_changes_nothing(arguments, error, message):
    trainer = trainer_of()
    before = numbers(trainer)
    with pytest.raises(error, match=message):
        trainer.fit(*arguments, progress=False)
    assert numbers(trainer) == before and len(trainer.history) == 0 and trainer.seed is None


@pytest.mark.parametrize("options, error, message", [
    ({"validation": 0.2}, ArgumentError, "because X is an iterable, got 0.2"),
    ({"validation": [1, 2, 3]}, ArgumentTypeError, "expected a pair"),
    ({"validation": Again([(X, Y, Y)])}, ArgumentTypeError, "validation: batch 1: expected a pair"),
    ({"steps_per_epoch": 0}, ArgumentError, "steps_per_epoch"),
    ({"engine": "compiled"}, ArgumentError, "because the batches come from an iterable, got 'compiled'"),
])
def test_options_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        trainer_of().fit(PARTS, epochs=2, progress=False, **options)
    with pytest.raises(ArgumentError, match="steps_per_epoch: expected None where X and y are arrays, got 2"):
        trainer_of().fit(X, Y, 2, steps_per_epoch=2, progress=False)


def test_a_batch_that_is_wrong_later_leaves_the_step_before():
    trainer, until = trainer_of(), trainer_of()
    with pytest.raises(ShapeError, match="batch 3 of epoch 1: X: expected 2 features"):
        trainer.fit([*PARTS[:2], (X[:, :1], Y)], epochs=2, progress=False)
    until.fit(PARTS[:2], epochs=1, progress=False)
    assert numbers(trainer) == numbers(until) and len(trainer.history) == 0
    with pytest.raises(DataError, match="expected 4 batches for epoch 2, got 2: the iterable has no more"):
        trainer_of().fit(iter(PARTS * 2), epochs=2, steps_per_epoch=4, progress=False)
    passes = iter([PARTS, []])
    with pytest.raises(DataError, match="expected one batch for epoch 2, got 0"):
        trainer_of().fit(lambda: next(passes), epochs=2, progress=False)
    with pytest.raises(DivergedError, match=r"in epoch 1, batch 2;"):
        trainer_of("mse", SGD, lr=1e200).fit((part for part in PARTS), epochs=1, progress=False)


def test_what_an_iterable_raises_is_raised():
    def broken():
        yield PARTS[0]
        raise OSError("no more disk")

    with pytest.raises(OSError, match="no more disk"):
        trainer_of().fit(broken, epochs=1, progress=False)


def test_no_graph_is_left():
    from flatgrad import stats

    trainer = trainer_of()
    before = stats()
    trainer.fit(PARTS, epochs=5, progress=False)
    assert stats() == before


def test_progress_without_a_number_of_batches(capsys):
    from flatgrad.train.progress import Bar

    pytest.importorskip("tqdm")
    from tqdm import tqdm

    bar = Bar(tqdm, 1)
    bar.batch(3, None)
    bar.batch(4, 9)
    bar.close(1, {"loss": 1.0})
    shown = capsys.readouterr().err
    assert "batch 3]" in shown and "batch 4 of 9" in shown


# ---- clipping ----

@pytest.mark.parametrize("make", [SGD, Adam, NAdam])
@pytest.mark.parametrize("options, clip", [
    ({"clip_grad_norm": 0.1}, lambda p: clip_grad_norm_(p, 0.1)),
    ({"clip_grad_value": 0.01}, lambda p: clip_grad_value_(p, 0.01)), ({}, lambda p: None)])
def test_clipping_is_the_loop_by_hand_bit_for_bit(make, options, clip):
    by_hand, trainer, free = trainer_of(make=make), trainer_of(make=make, **options), trainer_of(make=make)
    expected = []
    for _ in range(10):
        loss = losses.hinge(by_hand.model(X), Y)
        by_hand.optimizer.zero_grad()
        loss.backward()
        clip(by_hand.model.parameters())
        by_hand.optimizer.step()
        expected.append(loss.data)
    assert trainer.fit(X, Y, 10, progress=False).loss == expected and numbers(trainer) == numbers(by_hand)
    free.fit(X, Y, 10, progress=False)
    assert (numbers(free) != numbers(trainer)) == bool(options)   # that the bounds are ones that bind
    assert trainer.engine == ("python: the optimizer NAdam computes its steps with NumPy" if make is NAdam else "compiled")


def test_clipping_as_in_pytorch():
    torch = pytest.importorskip("torch")
    trainer = trainer_of("mse", SGD, (1,), lr=0.5, clip_grad_norm=0.3)
    neuron = trainer.model.layers[0].neurons[0]
    w = torch.tensor([[v.data for v in neuron.w]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([neuron.b.data], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w, b], lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(torch.tensor(X) @ w.T + b, torch.tensor(Y)[:, None]).backward()
        torch.nn.utils.clip_grad_norm_([w, b], 0.3)
        optimizer.step()
    trainer.fit(X, Y, 20, progress=False)
    np.testing.assert_allclose(numbers(trainer), [*w.tolist()[0], b.item()], rtol=1e-10)


def test_clipping_reaches_a_step_that_evaluates_the_loss_itself():
    trainer, free = (trainer_of("mse", LBFGS, lr=0.1, **options) for options in ({"clip_grad_value": 0.01}, {}))
    assert trainer.fit(X, Y, 3, progress=False).loss != free.fit(X, Y, 3, progress=False).loss


def test_clipping_for_any_optimizer():
    class Plain:
        def __init__(self, parameters):
            self.parameters = parameters

        def zero_grad(self):
            for p in self.parameters:
                p.grad = 0.0

        def step(self):
            self.seen = [p.grad for p in self.parameters]

    model = MLP(2, [3, 1])
    optimizer = Plain(model.parameters())
    Trainer(model, optimizer, "mse", clip_grad_norm=1e-3).fit(X, 100.0 * Y, 1, progress=False)
    assert np.linalg.norm(optimizer.seen) == pytest.approx(1e-3)


@pytest.mark.parametrize("options, error, message", [
    ({"clip_grad_norm": 0.0}, ArgumentError, "clip_grad_norm: expected a .* above 0, got 0.0"),
    ({"clip_grad_value": -1.0}, ArgumentError, "clip_grad_value"),
    ({"clip_grad_norm": "1"}, ArgumentTypeError, "clip_grad_norm"),
    ({"clip_grad_norm": 1.0, "clip_grad_value": 2.0}, ArgumentError, "expected None where clip_grad_norm is given, got 2"),
])
def test_bounds_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        trainer_of(**options)
