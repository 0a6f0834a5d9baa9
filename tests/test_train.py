"""The training loop: against a loop by hand bit for bit, what it leaves behind, and what it refuses."""
import builtins
import copy
import functools
import gc
import math
import os
import pickle
import random
import signal
import threading

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, losses, nn
from flatgrad.datasets import make_moons
from flatgrad.errors import (ArgumentError, ArgumentTypeError, DataError, DivergedError, ShapeError, StateError,
                             UnknownNameError)
from flatgrad.nn import MLP, Module
from flatgrad.optim import SGD, Adam, lr_scheduler
from flatgrad.storage import load_arrays, save_arrays
from flatgrad.train import (Callback, Checkpoint, EarlyStopping, History, Trainer, accuracy, mae, mse, r2)

X, LABELS = make_moons(60, noise=0.1, random_state=3)
Y = 2.0 * LABELS - 1.0


def model_of(sizes=(8, 1), seed=7, nin=2, **options):
    random.seed(seed)
    return MLP(nin, list(sizes), **options)


def trainer_of(loss="hinge", optimizer=SGD, sizes=(8, 1), nin=2, metrics=(), penalty=None, seed=7, **options):
    model = model_of(sizes, seed, nin)
    return Trainer(model, optimizer(model.parameters(), **{"lr": 0.05, **options}), loss, metrics, penalty=penalty)


def numbers(model):
    return [p.data for p in model.parameters()]


def state_of(trainer):
    """All that an error must not change."""
    return pickle.dumps([numbers(trainer.model), [module.training for module in trainer.model.modules()],
                         trainer.optimizer.state_dict(), trainer.history.to_dict(), trainer.epoch, trainer.seed])


# ---- the loop ----

@pytest.mark.parametrize("penalised", [False, True])
def test_a_fit_is_the_loop_by_hand_bit_for_bit(penalised):
    penalty = (lambda parameters: 1e-3 * losses.l2(parameters)) if penalised else None
    model = model_of()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    expected = []
    for _ in range(25):
        loss = losses.hinge(model(X), Y)
        if penalised:
            loss = loss + 1e-3 * losses.l2(model.parameters())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.data)
    trainer = trainer_of(momentum=0.9, penalty=penalty)
    history = trainer.fit(X, Y, 25, progress=False)
    assert history.loss == expected
    assert numbers(trainer.model) == numbers(model)


@pytest.mark.parametrize("shuffle", [False, True])
def test_mini_batches_are_the_loop_by_hand_bit_for_bit(shuffle):
    model = model_of((8, 2))
    optimizer = Adam(model.parameters(), lr=0.05)
    expected = []
    for epoch in range(1, 6):
        order = np.random.default_rng([11, epoch]).permutation(60) if shuffle else np.arange(60)
        mean = 0.0
        for rows in (order[:25], order[25:50], order[50:]):
            loss = losses.cross_entropy(model(X[rows]), LABELS[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mean += loss.data * (len(rows) / 60)
        expected.append(mean)
    trainer = trainer_of("cross_entropy", Adam, (8, 2))
    assert trainer.fit(X, LABELS, 5, batch_size=25, shuffle=shuffle, seed=11, progress=False).loss == expected
    assert numbers(trainer.model) == numbers(model)


def test_a_batch_of_all_samples_is_one_batch():
    all_of_them, more = trainer_of(), trainer_of()
    assert (all_of_them.fit(X, Y, 3, progress=False).loss
            == more.fit(X, Y, 3, batch_size=1000, seed=1, progress=False).loss)


def test_the_seed_decides_and_the_system_if_there_is_none():
    runs = [trainer_of().fit(X, Y, 3, batch_size=7, seed=seed, progress=False).loss for seed in (1, 1, 2, None, None)]
    assert runs[0] == runs[1]
    assert len({tuple(run) for run in runs}) == 4


def test_epochs_add_up():
    once, twice = trainer_of(optimizer=Adam), trainer_of(optimizer=Adam)
    once.fit(X, Y, 6, batch_size=16, seed=5, progress=False)
    first = twice.fit(X, Y, 2, batch_size=16, seed=5, progress=False)
    assert first.epochs == [1, 2]
    assert twice.fit(X, Y, 4, batch_size=16, progress=False) is first is twice.history
    assert first.epochs == [1, 2, 3, 4, 5, 6] and twice.epoch == 6
    assert first.loss == once.history.loss and numbers(once.model) == numbers(twice.model)


def test_no_epochs_are_no_epochs():
    trainer = trainer_of()
    before = numbers(trainer.model)
    assert len(trainer.fit(X, Y, 0)) == 0
    assert numbers(trainer.model) == before


@pytest.mark.parametrize("X_given, y", [(X.tolist(), Y.tolist()), (X, Y[:, None]), (Tensor(X, requires_grad=False), Y),
                                        (np.asfortranarray(X), Y.astype(int)), (X[::-1][::-1], Y.astype(np.float32))])
def test_samples_may_be_anything_that_is_an_array(X_given, y):
    assert trainer_of().fit(X_given, y, 3, progress=False).loss == trainer_of().fit(X, Y, 3, progress=False).loss


def test_a_loss_of_ones_own_gets_targets_of_the_shape_of_the_prediction():
    seen = []

    def loss(prediction, target):
        seen.append((prediction.shape, target.shape))
        return ((prediction - target) ** 2).mean()

    own, known = trainer_of(loss), trainer_of("mse")
    np.testing.assert_allclose(own.fit(X, Y, 5, progress=False).loss, known.fit(X, Y, 5, progress=False).loss,
                               rtol=1e-12)
    assert set(seen) == {((1, 1), (1, 1)), ((60, 1), (60, 1))}


def test_a_loss_of_ones_own_may_take_labels():
    own = trainer_of(lambda logits, target: losses.cross_entropy(logits, target), sizes=(8, 2), metrics="accuracy")
    known = trainer_of("cross_entropy", sizes=(8, 2), metrics="accuracy")
    assert own.fit(X, LABELS, 3, progress=False).loss == known.fit(X, LABELS, 3, progress=False).loss
    assert own.history.accuracy == known.history.accuracy


def test_a_model_may_be_any_callable_with_parameters():
    class Line:
        def __init__(self):
            self.w = [Value(0.0), Value(0.0)]

        def parameters(self):
            return self.w

        def __call__(self, rows):
            return [row[0] * self.w[0] + row[1] * self.w[1] for row in rows]

    line = Line()
    trainer = Trainer(line, SGD(line.parameters(), lr=0.1), "mse", metrics=["r2"])
    target = X @ [2.0, -3.0]
    trainer.fit(X, target, 200, batch_size=20, seed=0, progress=False)
    np.testing.assert_allclose([w.data for w in line.w], [2.0, -3.0], atol=0.01)
    assert trainer.history.r2[-1] > 0.999
    np.testing.assert_allclose(trainer.predict(X), target, atol=0.05)
    with pytest.raises(ArgumentTypeError, match=r"model: expected one with state_dict\(\)"):
        trainer.save("nowhere.npz")
    assert not os.path.exists("nowhere.npz")


def test_the_loss_falls_on_several_outputs():
    trainer = trainer_of("mse", Adam, (16, 2), metrics=["mse", "mae", "r2"])
    history = trainer.fit(X, np.stack([X[:, 0] * X[:, 1], X[:, 0] - 1], axis=1), 300, progress=False)
    assert history.loss[-1] < 0.01 and history.r2[-1] > 0.9
    np.testing.assert_allclose(history.mse, history.loss, rtol=1e-12)
    assert trainer.predict(X).shape == (60, 2)


# ---- modes and memory ----

class Noisy(Module):
    """A model that says in which mode it was called, with a buffer and a generator of its own."""

    buffer_names = ("calls",)

    def __init__(self, seed=0):
        self.inner = model_of()
        self.rng = np.random.default_rng(seed)
        self.twister = random.Random(seed)
        self.calls = np.zeros(2)
        self.modes = []

    def __call__(self, x):
        self.modes.append((self.training, self.inner.training, x.shape[0]))
        if not self.training:
            return self.inner(x)
        self.calls = self.calls + [1.0, self.rng.random()]
        return self.inner(x) * (1.0 + 0.1 * self.rng.standard_normal() + 0.1 * self.twister.random())


def test_modes_are_right_and_come_back():
    model = Noisy()
    model.inner.layers[0].eval()
    before = [module.training for module in model.modules()]
    trainer = Trainer(model, SGD(model.parameters(), lr=0.01), "hinge")
    trainer.fit(X, Y, 2, validation=(X[:9], Y[:9]), progress=False)
    assert [mode for mode in model.modes if mode[2] > 1] == [(True, True, 60), (False, False, 9)] * 2
    assert all(mode == (False, False, 1) for mode in model.modes if mode[2] == 1)
    assert [module.training for module in model.modules()] == before
    model.modes.clear()
    trainer.predict(X)
    trainer.evaluate(X, Y)
    trainer.predict_single(X[0])
    assert {mode[:2] for mode in model.modes} == {(False, False)}
    assert [module.training for module in model.modules()] == before


def test_a_model_with_its_own_way_of_modes_keeps_it():
    class Frozen(Noisy):
        def train(self, mode=True):
            super().train(mode)
            self.inner.eval()
            return self

    model = Frozen()
    Trainer(model, SGD(model.parameters(), lr=0.01), "hinge").fit(X, Y, 2, validation=0.2, progress=False)
    assert [mode[:2] for mode in model.modes if mode[2] == 48] == [(True, False)] * 2


def test_drawn_batches_leave_nothing_to_collect():
    inputs, targets = np.random.default_rng(0).normal(size=(1800, 64)), np.ones(1800)
    trainer = trainer_of("mse", sizes=(2, 1), nin=64, lr=0.001)
    flatgrad.collect()
    before = flatgrad.stats()["collections"]
    trainer.fit(inputs, targets, 5, batch_size=64, seed=1, progress=False)
    assert flatgrad.stats()["collections"] == before


def test_no_graph_is_left():
    trainer = trainer_of(metrics=["accuracy"])
    trainer.fit(X, Y, 1, progress=False)
    gc.collect()
    flatgrad.collect()
    before = flatgrad.stats()["nodes"]
    for _ in range(3):
        trainer.fit(X, Y, 3, batch_size=13, validation=0.2, progress=False)
        trainer.predict(X)
        trainer.evaluate(X, Y)
    gc.collect()
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] == before


# ---- validation ----

def test_validation_is_what_evaluate_says():
    trainer = trainer_of(metrics=["accuracy", "mse"], penalty=lambda parameters: 1e-3 * losses.l2(parameters))
    history = trainer.fit(X[:40], Y[:40], 4, validation=(X[40:], Y[40:]), progress=False)
    assert list(history) == ["loss", "accuracy", "mse", "val_loss", "val_accuracy", "val_mse", "learning_rate", "time"]
    assert trainer.evaluate(X[40:], Y[40:]) == {
        "loss": history.val_loss[-1], "accuracy": history.val_accuracy[-1], "mse": history.val_mse[-1]}


def test_validation_does_not_change_the_training():
    with_it, without = trainer_of(optimizer=Adam), trainer_of(optimizer=Adam)
    with_it.fit(X, Y, 5, batch_size=16, seed=2, validation=(X[:9], Y[:9]), progress=False)
    without.fit(X, Y, 5, batch_size=16, seed=2, progress=False)
    assert with_it.history.loss == without.history.loss and numbers(with_it.model) == numbers(without.model)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_fraction_is_held_out(shuffle):
    model = Noisy()
    trainer = Trainer(model, SGD(model.parameters(), lr=0.01), "hinge")
    trainer.fit(X, Y, 1, validation=0.25, shuffle=shuffle, seed=4, progress=False)
    assert [mode[2] for mode in model.modes if mode[2] > 1] == [45, 15]
    held = np.sort(np.random.default_rng([4, 0]).permutation(60)[45:]) if shuffle else np.arange(45, 60)
    assert trainer.evaluate(X[held], Y[held])["loss"] == trainer.history.val_loss[-1]


def test_large_samples_go_in_parts():
    from flatgrad.train import trainer as module

    trainer = trainer_of(metrics=["accuracy"])
    many, targets = np.tile(X, (150, 1)), np.tile(Y, 150)
    assert len(many) > 2 * module.CHUNK
    model = trainer.model
    np.testing.assert_array_equal(trainer.predict(many), model(many).data[:, 0])
    measured = trainer.evaluate(many, targets)
    assert measured["loss"] == pytest.approx(losses.hinge(model(many), targets).data, rel=1e-12)
    assert measured["accuracy"] == accuracy(model(many).data, targets)


# ---- predictions ----

def test_predictions():
    one, two = trainer_of(), trainer_of("cross_entropy", sizes=(8, 3))
    assert one.predict(X).shape == (60,) and two.predict(X).shape == (60, 3)
    single = one.predict_single([0.5, -0.5])
    assert type(single) is float and single == one.predict([[0.5, -0.5]])[0]
    np.testing.assert_array_equal(two.predict_single(X[4]), two.predict(X[4:5])[0])
    assert all(p.grad == 0.0 for p in one.model.parameters())
    for wrong in ([1.0, 2.0, 3.0], [[1.0, 2.0]], [math.nan, 1.0], [], "ab"):
        with pytest.raises((ArgumentError, ArgumentTypeError), match=r"^x"):
            one.predict_single(wrong)


# ---- metrics ----

def test_accuracy():
    assert accuracy([-1.0, 0.0, 2.0, 0.1], [-1, 1, 1, 1]) == 0.75
    assert accuracy([0.2, 0.6, 0.5], [0, 1, 0]) == 1.0
    assert accuracy([[-3.0], [0.2]], [0, 1], threshold=0) == 1.0
    assert accuracy([[1, 2, 3], [3, 2, 1], [1, 1, 0]], [2, 1, 0]) == 2 / 3
    assert accuracy([[1, 2], [2, 1]], [[0, 1], [0, 1]]) == 0.5
    for wrong in (([1.0], [1.0, 2.0]), ([], []), ([[[1.0]]], [1]), ([[1.0, 2.0]], [[1.0, 2.0, 3.0]])):
        with pytest.raises(ArgumentError):
            accuracy(*wrong)


@pytest.mark.parametrize("loss, target, output, right", [
    ("hinge", [-1, 1], [-0.1, 0.1], 1.0), ("hinge", [1, 1], [0.2, 0.3], 1.0),
    ("bce_with_logits", [0, 1], [-0.1, 0.1], 1.0), ("binary_cross_entropy", [0, 1], [0.4, 0.6], 1.0),
    ("mse", [0, 1], [0.4, 0.6], 1.0), ("mse", [-1, 1], [-0.1, 0.1], 1.0), ("bce_with_logits", [1, 1], [0.6, 0.4], 1.0),
    (losses.BCEWithLogitsLoss(), [0, 1], [-0.1, 0.1], 1.0), (functools.partial(losses.hinge), [1, 1], [0.2, 0.3], 1.0),
])
def test_accuracy_knows_the_loss(loss, target, output, right):
    class Given(Module):
        def __init__(self):
            self.w = Value(1.0)

        def __call__(self, x):
            return x[:, :1] * self.w

    model = Given()
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), loss, "accuracy")
    assert trainer.evaluate(np.array(output)[:, None], target)["accuracy"] == right


def test_metrics_against_formulas():
    p, t = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0])
    assert mse(p, t) == pytest.approx((0.25 + 1) / 3) and mae(p, t[:, None]) == pytest.approx(0.5)
    assert r2(p, t) == pytest.approx(1 - 1.25 / np.sum((t - t.mean()) ** 2))
    assert r2([1.0, 1.0], [1.0, 1.0]) == 1.0 and r2([1.0, 2.0], [1.0, 1.0]) == 0.0
    both = np.stack([p, t], axis=1)
    assert r2(both, np.stack([t, t], axis=1)) == pytest.approx((r2(p, t) + 1) / 2)


@pytest.mark.parametrize("function", ["accuracy_score", "r2_score", "mean_squared_error", "mean_absolute_error"])
def test_metrics_against_scikit_learn(function):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    ours = {"accuracy_score": accuracy, "r2_score": r2, "mean_squared_error": mse, "mean_absolute_error": mae}[function]
    if function == "accuracy_score":
        scores, labels = rng.normal(size=(50, 4)), rng.integers(4, size=50)
        assert ours(scores, labels) == metrics.accuracy_score(labels, scores.argmax(axis=1))
    else:
        p, t = rng.normal(size=(2, 50, 3))
        assert ours(p, t) == pytest.approx(getattr(metrics, function)(t, p), rel=1e-12)


def test_metrics_may_be_functions():
    def largest(prediction, target):
        assert prediction.shape == target.shape == (60,)
        return np.abs(prediction - target).max()

    trainer = trainer_of("mse", metrics={"worst": largest, "error": "mse"})
    history = trainer.fit(X, Y, 2, batch_size=16, progress=False)
    assert len(history.worst) == 2 and type(history.worst[0]) is float
    assert list(trainer.evaluate(X, Y)) == ["loss", "worst", "error"]
    assert list(trainer_of(metrics=functools.partial(largest)).metrics) == ["largest"]


@pytest.mark.parametrize("metrics, error, message", [
    ("acuracy", UnknownNameError, "did you mean 'accuracy'"), ([3], ArgumentTypeError, "got 3"),
    (3, ArgumentTypeError, "got 3"), (["mse", "mse"], ArgumentError, "got 'mse'"),
    ({"loss": "mse"}, ArgumentError, "got 'loss'"), ({"val_x": "mse"}, ArgumentError, "val_"),
])
def test_metrics_that_are_refused(metrics, error, message):
    with pytest.raises(error, match=message):
        trainer_of(metrics=metrics)


# ---- history ----

def test_history():
    history = trainer_of(metrics=["accuracy"]).fit(X, Y, 3, progress=False)
    assert history.epochs == [1, 2, 3] and len(history) == 3 and bool(history)
    assert history["loss"] is history.loss and "loss" in history and "val_loss" not in history
    assert history.learning_rate == [0.05] * 3 and all(seconds > 0 for seconds in history.time)
    copies = [pickle.loads(pickle.dumps(history)), copy.deepcopy(history)]
    assert copies == [history, history] and copies[0].loss is not history.loss
    table = history.to_dict()
    assert list(table) == ["epoch", "loss", "accuracy", "learning_rate", "time"]
    table["loss"].clear()
    assert len(history.loss) == 3
    assert repr(history).startswith("History of 3 epochs: loss ")
    assert repr(History()) == "History of 0 epochs" and "loss" in dir(history)
    with pytest.raises(UnknownNameError, match="did you mean 'accuracy'"):
        history["acuracy"]
    with pytest.raises(AttributeError):
        history.val_loss
    assert history != 3


def test_a_name_that_comes_later_is_nan_before():
    trainer = trainer_of()
    trainer.fit(X, Y, 1, progress=False)
    trainer.fit(X, Y, 1, validation=0.2, progress=False)
    history = trainer.fit(X, Y, 1, progress=False)
    assert np.isnan(history.val_loss).tolist() == [True, False, True]
    assert {len(numbers) for numbers in history.metrics.values()} == {3}


# ---- callbacks ----

class Log(Callback):
    def __init__(self):
        self.events = []

    def on_fit_begin(self, trainer):
        self.events.append("begin")

    def on_epoch_begin(self, trainer, epoch):
        self.events.append(f"epoch {epoch}")

    def on_batch_end(self, trainer, batch, loss):
        self.events.append(f"batch {batch}")

    def on_epoch_end(self, trainer, epoch, logs):
        assert trainer.epoch == epoch and logs["loss"] == trainer.history.loss[-1]
        self.events.append(f"end of {epoch}")

    def on_fit_end(self, trainer):
        self.events.append("end")


def test_callbacks_are_called_in_order():
    log, seen = Log(), []
    trainer_of().fit(X, Y, 2, batch_size=40, progress=False,
                     callbacks=[log, lambda trainer, epoch, logs: seen.append((epoch, set(logs)))])
    assert log.events == ["begin", "epoch 1", "batch 1", "batch 2", "end of 1", "epoch 2", "batch 1", "batch 2",
                          "end of 2", "end"]
    assert seen == [(1, {"loss", "learning_rate", "time"}), (2, {"loss", "learning_rate", "time"})]


def test_a_callback_may_be_alone_and_may_stop():
    trainer = trainer_of()
    assert len(trainer.fit(X, Y, 9, callbacks=lambda trainer, epoch, logs: epoch == 2 and trainer.stop("enough"),
                           progress=False)) == 2
    assert trainer.stopped == "enough"
    trainer.fit(X, Y, 1, callbacks=Callback(), progress=False)
    assert trainer.stopped is None


@pytest.mark.parametrize("callbacks", [3, [3], [EarlyStopping], ["loss"]])
def test_callbacks_that_are_refused(callbacks):
    with pytest.raises(ArgumentTypeError, match="callbacks"):
        trainer_of().fit(X, Y, 1, callbacks=callbacks, progress=False)


def scripted(numbers, **options):
    """A metric that gives these numbers, and EarlyStopping that looks at it."""
    numbers = iter(numbers)
    return {"script": lambda prediction, target: next(numbers)}, EarlyStopping("script", **options)


@pytest.mark.parametrize("numbers_, options, epochs, best", [
    ([3, 2, 2, 2, 9, 9], {"patience": 3}, 5, 2),
    ([3, 2, 1.95, 1.9, 1.5, 9, 9, 9], {"patience": 3, "min_delta": 0.2}, 8, 5),
    ([1, 2, 3, 2, 1, 9], {"patience": 2, "mode": "max"}, 5, 3),
    ([math.nan, 5, math.nan, 4, math.nan, math.nan], {"patience": 2}, 6, 4),
    ([1, 2, 3], {"patience": 0}, 2, 1),
])
def test_early_stopping(numbers_, options, epochs, best):
    metrics, stopping = scripted(numbers_, **options)
    trainer = trainer_of(metrics=metrics)
    states = []
    trainer.fit(X, Y, 20, progress=False, callbacks=[lambda trainer, epoch, logs: states.append(numbers(trainer.model)),
                                                     stopping])
    assert trainer.epoch == epochs and stopping.best_epoch == best
    assert numbers(trainer.model) == states[best - 1] != states[-1]
    assert f"of epoch {best}" in trainer.stopped


def test_early_stopping_keeps_the_last_step_if_asked_to_or_if_it_does_not_stop():
    for restore, epochs in ((False, 20), (True, 3)):
        metrics, stopping = scripted([1, 2, 3, 4, 5], patience=4, restore_best=restore)
        trainer, plain = trainer_of(metrics=metrics), trainer_of()
        trainer.fit(X, Y, epochs, callbacks=stopping, progress=False)
        plain.fit(X, Y, trainer.epoch, progress=False)
        assert numbers(trainer.model) == numbers(plain.model)


def test_early_stopping_begins_anew_once_it_has_stopped():
    metrics, stopping = scripted([1, 2, 3, 2, 2, 2, 2], patience=2)
    trainer = trainer_of(metrics=metrics)
    assert len(trainer.fit(X, Y, 9, callbacks=stopping, progress=False)) == 3
    assert len(trainer.fit(X, Y, 9, callbacks=stopping, progress=False)) == 6


@pytest.mark.parametrize("make", [lambda: EarlyStopping("val_los"), lambda: Checkpoint("x.npz", monitor="val_los")])
def test_a_monitor_that_does_not_exist(make):
    trainer = trainer_of()
    before = state_of(trainer)
    with pytest.raises(UnknownNameError, match="expected one of 'loss', 'val_loss', 'learning_rate', 'time', got "
                                               "'val_los'; did you mean 'val_loss'"):
        trainer.fit(X, Y, 3, validation=0.2, callbacks=[make()], progress=False)
    assert state_of(trainer) == before


@pytest.mark.parametrize("make, error", [
    (lambda: EarlyStopping(patience=-1), ArgumentError), (lambda: EarlyStopping(min_delta=-1.0), ArgumentError),
    (lambda: EarlyStopping(mode="least"), UnknownNameError), (lambda: EarlyStopping(restore_best=1), ArgumentTypeError),
    (lambda: Checkpoint("x", every=0), ArgumentError), (lambda: Checkpoint("x", save_best_only=True), ArgumentError),
    (lambda: Checkpoint(3), TypeError),
])
def test_callbacks_with_wrong_arguments(make, error):
    with pytest.raises(error):
        make()


def test_a_checkpoint_in_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(ArgumentError, match="path: expected one in a directory that exists"):
        trainer_of().fit(X, Y, 1, callbacks=Checkpoint(tmp_path / "no" / "x.npz"), progress=False)


def test_checkpoints(tmp_path):
    metrics, _ = scripted([3, 2, 4, 1, 5, 0])
    trainer = trainer_of(metrics=metrics)
    trainer.fit(X, Y, 6, progress=False, callbacks=[
        Checkpoint(tmp_path / "every.npz", every=4), Checkpoint(tmp_path / "{epoch:02d}.npz", every=3),
        Checkpoint(tmp_path / "best.npz", monitor="script", save_best_only=True)])
    assert sorted(os.listdir(tmp_path)) == ["03.npz", "06.npz", "best.npz", "every.npz"]
    epochs = {name: trainer_of().load(tmp_path / name).epoch for name in os.listdir(tmp_path)}
    assert epochs == {"03.npz": 3, "06.npz": 6, "best.npz": 6, "every.npz": 4}


# ---- schedulers ----

def test_a_scheduler_steps_after_each_epoch():
    history = scheduled(lr_scheduler.StepLR, step_size=2, gamma=0.1).fit(X, LABELS, 5, 17, progress=False)
    np.testing.assert_allclose(history.learning_rate, [0.05, 0.05, 0.005, 0.005, 0.0005])


def test_a_scheduler_steps_after_each_batch():
    trainer = scheduled(lr_scheduler.LambdaLR, "batch", lr_lambda=lambda step: 0.5 ** step)
    assert trainer.fit(X, LABELS, 3, 20, progress=False).learning_rate == [0.05, 0.05 / 8, 0.05 / 64]


@pytest.mark.parametrize("validation", [None, 0.3])
def test_a_plateau_is_one_of_the_validation_loss_if_there_is_one(validation):
    trainer = scheduled(lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.5, threshold=0.0)
    seen = []
    step = trainer.scheduler.step
    trainer.scheduler.step = lambda metric: (seen.append(metric), step(metric))
    history = trainer.fit(X, LABELS, 9, 17, validation=validation, progress=False)
    assert seen == history["loss" if validation is None else "val_loss"]


def test_a_scheduler_of_another_optimizer():
    trainer = trainer_of()
    with pytest.raises(ArgumentError, match="^scheduler: expected one of this optimizer"):
        Trainer(trainer.model, trainer.optimizer, "mse", scheduler=lr_scheduler.StepLR(trainer_of().optimizer, 2))


# ---- saving and going on ----

def scheduled(scheduler, interval="epoch", **options):
    trainer = trainer_of("cross_entropy", Adam, (8, 2))
    return Trainer(trainer.model, trainer.optimizer, "cross_entropy", scheduler=scheduler(trainer.optimizer, **options),
                   scheduler_interval=interval)


MAKERS = {
    "sgd": lambda: trainer_of(momentum=0.9, metrics=["accuracy"]),
    "adam": lambda: scheduled(lr_scheduler.StepLR, step_size=3, gamma=0.5),
    "cycle": lambda: scheduled(lr_scheduler.OneCycleLR, "batch", max_lr=0.1, total_steps=40),
    "plateau": lambda: scheduled(lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.5, threshold=0.2),
    "noisy": lambda: (lambda model: Trainer(model, Adam(model.parameters(), lr=0.01), "hinge"))(Noisy(1)),
}


def fit(trainer, epochs, **options):
    y = LABELS if trainer.loss is losses.cross_entropy else Y
    return trainer.fit(X, y, epochs, batch_size=17, validation=0.2, progress=False, **options)


@pytest.mark.parametrize("kind", MAKERS)
def test_training_goes_on_bit_for_bit(kind, tmp_path):
    path = tmp_path / "run.npz"
    whole = MAKERS[kind]()
    fit(whole, 10, seed=3, callbacks=[EarlyStopping(patience=50)])
    first = MAKERS[kind]()
    fit(first, 5, seed=3, callbacks=[EarlyStopping(patience=50)])
    first.save(path)
    random.seed(0)
    second = MAKERS[kind]()
    for p in second.model.parameters():
        p.data += 1.0
    stopping = EarlyStopping(patience=50)
    assert second.load(path) is second and second.epoch == 5 and second.seed == 3
    fit(second, 5, callbacks=[stopping])
    ours, theirs = second.history.to_dict(), whole.history.to_dict()
    assert ours.pop("time") != theirs.pop("time")
    assert ours == theirs
    assert numbers(second.model) == numbers(whole.model)
    np.testing.assert_equal(second.optimizer.state_dict(), whole.optimizer.state_dict())
    assert stopping.best_epoch == np.argmin(whole.history.val_loss) + 1
    if kind == "noisy":
        assert second.model.calls.tolist() == whole.model.calls.tolist()


def test_what_is_counted_goes_on(tmp_path):
    def run(numbers_):
        metrics, stopping = scripted(numbers_, patience=4)
        return trainer_of(metrics=metrics), stopping

    whole, stopping = run([5, 4, 6, 6, 6, 6, 6, 6])
    whole.fit(X, Y, 20, 17, seed=1, callbacks=[stopping], progress=False)
    first, stopping = run([5, 4, 6, 6])
    # Saved by a callback that stands before the one that counts.
    with pytest.raises(DivergedError):
        first.fit(X, Y, 9, 17, seed=1, callbacks=[Checkpoint(tmp_path / "x.npz"), stopping, Crash(4)], progress=False)
    second, stopping = run([6, 6, 6, 6])
    second.load(tmp_path / "x.npz")
    second.fit(X, Y, 20, 17, callbacks=[stopping], progress=False)
    assert whole.epoch == second.epoch == 6
    assert numbers(whole.model) == numbers(second.model)   # those of epoch 2, which the second has never seen


class Crash(Callback):
    runs_last = True

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, trainer, epoch, logs):
        if epoch == self.epoch:
            raise DivergedError("as if")


def test_a_checkpoint_of_something_else_changes_nothing(tmp_path):
    path = str(tmp_path / "x.npz")
    saved = trainer_of(momentum=0.9)
    saved.fit(X, Y, 2, progress=False)
    saved.save(path)
    for other, message in [
        (trainer_of(sizes=(9, 1)), "layers.0.weight: expected the shape"),
        (trainer_of(sizes=(8, 8, 1)), "layers.2.weight: missing"),
        (trainer_of(optimizer=Adam), "optimizer: expected the state of an Adam, got that of a SGD"),
        ((lambda model: Trainer(model, SGD(model.parameters()), "mse"))(Noisy()), "model: expected the generators"),
    ]:
        other.fit(X, Y, 1, progress=False)
        before = state_of(other)
        with pytest.raises(StateError, match=message) as caught:
            other.load(path)
        assert path in str(caught.value)
        assert state_of(other) == before


def test_a_part_that_fails_late_changes_nothing(tmp_path):
    path = tmp_path / "x.npz"
    trainer = trainer_of(momentum=0.9)
    trainer.fit(X, Y, 2, progress=False)
    trainer.save(path)
    arrays = load_arrays(path)
    name, = (name for name in arrays if name.startswith("optimizer/"))
    for change in (lambda: arrays.__setitem__(name, arrays[name][:-1]), lambda: arrays.pop(name)):
        change()
        save_arrays(path, arrays)
        other = trainer_of(momentum=0.9, seed=8)
        before = state_of(other)
        with pytest.raises(StateError):
            other.load(path)
        assert state_of(other) == before


@pytest.mark.parametrize("content", [
    b"no archive", {"weights": np.zeros(3)}, {"flatgrad.train.Trainer": np.array("no json")},
    {"flatgrad.train.Trainer": np.array("[]")},
    {"flatgrad.train.Trainer": np.array('{"version": 1, "tree": {"a": 1}}')},
    {"flatgrad.train.Trainer": np.array('{"version": 1, "tree": {"dict": []}}')},
    {"flatgrad.train.Trainer": np.array('{"version": 2, "tree": {"dict": []}}')},
    {"flatgrad.train.Trainer": np.zeros(2)},
])
def test_a_file_of_something_else(tmp_path, content):
    path = tmp_path / "x.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_arrays(path, content)
    trainer = trainer_of()
    before = state_of(trainer)
    with pytest.raises(StateError, match="x.npz"):
        trainer.load(path)
    assert state_of(trainer) == before
    with pytest.raises(OSError):
        trainer.load(tmp_path / "nothing.npz")


def test_a_tree_comes_back_as_it_was(tmp_path):
    from flatgrad.train.checkpoint import load_tree, save_tree

    tree = {"a": [1, 2.5, None, True, "text", (1, ("b", [])), {}],
            "b": {"c/d": np.arange(3), 5: np.array([True, False])},
            "b/c": {"d": np.eye(2)}, "floats": [math.inf, -math.inf, 0.1, -0.0, 5e-324], "big": 2**120}
    save_tree(tmp_path / "x.npz", tree)
    back = load_tree(tmp_path / "x.npz")
    np.testing.assert_equal(back, tree)
    assert type(back["a"][5]) is tuple and math.copysign(1, back["floats"][3]) == -1
    save_tree(tmp_path / "x.npz", {"x": np.float64(1.5), "n": np.int64(3), "nan": math.nan})
    back = load_tree(tmp_path / "x.npz")
    assert back["x"] == 1.5 and type(back["n"]) is int and math.isnan(back["nan"])
    for wrong in (object(), {1, 2}, np.array([None])):
        with pytest.raises(ArgumentTypeError, match="^a/0: expected"):
            save_tree(tmp_path / "y.npz", {"a": [wrong]})
    assert not (tmp_path / "y.npz").exists()


# ---- what goes wrong ----

NAN_X, INF_X = X.copy(), X.copy()
NAN_X[3, 1], INF_X[5, 0] = math.nan, -math.inf
NAN_Y = Y.copy()
NAN_Y[7] = math.nan


@pytest.mark.parametrize("loss, sizes, arguments, error, message", [
    ("hinge", (8, 1), (NAN_X, Y, 3), DataError, r"^X\[3, 1\]: expected a finite number, got nan"),
    ("hinge", (8, 1), (INF_X, Y, 3), DataError, r"^X\[5, 0\]: expected a finite number, got -inf"),
    ("hinge", (8, 1), (X, NAN_Y, 3), DataError, r"^y\[7\]: expected a finite number, got nan"),
    ("hinge", (8, 1), (X[:, :1], Y, 3), ShapeError, r"^X: the model does not take samples of 1 feature: .*2 inputs"),
    ("hinge", (8, 1), (np.ones((60, 3)), Y, 3), ShapeError, r"^X: the model does not take samples of 3 features"),
    ("hinge", (8, 1), (X[0], Y, 3), ShapeError, r"^X: expected 2 dimensions, got the shape \(2,\)"),
    ("hinge", (8, 1), (X[:0], Y[:0], 3), DataError, r"^X: expected one sample and one feature at least"),
    ("hinge", (8, 1), ([["a", "b"]], [1], 3), ArgumentTypeError, r"^X: expected an array of real numbers"),
    ("hinge", (8, 1), (X, Y[:-1], 3), ShapeError, r"^y: expected 60 samples, as many as X has, got the shape \(59,\)"),
    ("hinge", (8, 1), (X, LABELS, 3), DataError, r"^y\[\d+\]: expected -1 or 1, as the loss 'hinge' takes it, got 0"),
    ("hinge", (8, 1), (X, np.ones((60, 2)), 3), ShapeError, r"^y: expected the shape \(60, 1\)"),
    ("mse", (8, 3), (X, Y, 3), ShapeError, r"^y: expected the shape \(60, 3\), which is that of the model's outputs"),
    ("mse", (8, 1), (X, np.ones((60, 1, 1)), 3), ShapeError, r"^y: expected the shape \(n_samples,\)"),
    ("mse", (8, 1), (X, Value(1.0), 3), ArgumentTypeError, r"^y: expected an array of numbers, got a Value"),
    ("cross_entropy", (8, 2), (X, LABELS * 2, 3), DataError, r"^y\[\d+\]: expected an integer from 0 to 1, .*got 2"),
    ("cross_entropy", (8, 2), (X, LABELS - 1, 3), DataError, r"^y\[\d+\]: expected an integer from 0 to 1, .*got -1"),
    ("cross_entropy", (8, 2), (X, Y, 3), ArgumentTypeError, r"^y\[0\]: expected an integer from 0 to 1"),
    ("cross_entropy", (8, 2), (X, LABELS[:, None], 3), ShapeError, r"^y: expected one label for each sample"),
    ("cross_entropy", (8, 2), (X, ["a"] * 60, 3), ArgumentTypeError, r"^y: expected an array of real numbers"),
    (losses.NLLLoss(), (8, 2), (X, LABELS + 1, 3), DataError, r"^y\[\d+\]: expected an integer from 0 to 1"),
    ("bce_with_logits", (8, 1), (X, Y, 3), DataError, r"^y\[\d+\]: expected a number from 0 to 1"),
    ("hinge", (8, 1), (X, Y, -1), ArgumentError, r"^epochs: expected an int, 0 or more, got -1"),
    ("hinge", (8, 1), (X, Y, 1.5), ArgumentTypeError, r"^epochs"),
    ("hinge", (8, 1), (X, Y, 3, 0), ArgumentError, r"^batch_size: expected an int, 1 or more, got 0"),
    ("hinge", (8, 1), (X, Y, 3, 2.0), ArgumentTypeError, r"^batch_size"),
    ("hinge", (8, 1), (X, Y, 3, None, 1), ArgumentTypeError, r"^shuffle"),
    ("hinge", (8, 1), (X, Y, 3, None, True, -1), ArgumentError, r"^seed"),
    ("hinge", (8, 1), (X, Y, 3, None, True, 1, 1.0), ArgumentError, r"^validation: expected None, a pair"),
    ("hinge", (8, 1), (X, Y, 3, None, True, 1, math.nan), ArgumentError, r"^validation"),
    ("hinge", (8, 1), (X, Y, 3, None, True, 1, "some"), ArgumentTypeError, r"^validation"),
    ("hinge", (8, 1), (X, Y, 3, None, True, 1, (X,)), ArgumentTypeError, r"^validation: expected a pair"),
    ("hinge", (8, 1), (X[:1], Y[:1], 3, None, True, 1, 0.5), DataError, r"^validation: .*1 sample$"),
    ("hinge", (8, 1), (X, Y, 3, None, True, 1, (NAN_X, Y)), DataError, r"^validation\[0\]\[3, 1\]: expected a finite"),
    ("hinge", (8, 1), (X, Y, 3, None, True, 1, (X, Y[1:])), ShapeError, r"^validation\[1\]: expected 60 samples"),
    ("hinge", (8, 1), (X, Y, 3, None, True, 1, (X[:, :1], Y)), ShapeError, r"^validation\[0\]: expected 2 features"),
    (losses.MSELoss(reduction="none"), (8, 1), (X, Y, 3), ArgumentError, r"^loss: expected a function that returns a"),
    (lambda p, t: 3.0, (8, 1), (X, Y, 3), ArgumentError, r"^loss: expected a function that returns a Value"),
])
def test_bad_input_changes_nothing(loss, sizes, arguments, error, message):
    trainer = trainer_of(loss, Adam, sizes)
    before = state_of(trainer)
    with pytest.raises(error, match=message):
        trainer.fit(*arguments, progress=False)
    assert state_of(trainer) == before


def test_labels_that_are_ignored_are_no_error():
    trainer = trainer_of(losses.CrossEntropyLoss(ignore_index=-100), sizes=(8, 2))
    labels = LABELS.copy()
    labels[3] = -100
    assert len(trainer.fit(X, labels, 2, progress=False)) == 2
    other = trainer_of(functools.partial(losses.cross_entropy, ignore_index=-1), sizes=(8, 2))
    with pytest.raises(DataError, match="got -100"):
        other.fit(X, labels, 1, progress=False)


def test_constructor_errors():
    model = model_of()
    optimizer = SGD(model.parameters())
    for arguments, error, message in [
        ((3, optimizer, "mse"), ArgumentTypeError, "^model: expected a Module, got 3"),
        ((model, "adam", "mse"), ArgumentTypeError, "^optimizer: expected an Optimizer, .* got 'adam'"),
        ((model, SGD, "mse"), ArgumentTypeError, "^optimizer"),
        ((model, optimizer, "hing"), UnknownNameError, "^loss: .*did you mean 'hinge'"),
        ((model, optimizer, 3), ArgumentTypeError, "^loss"),
        ((model, optimizer, losses.MSELoss), ArgumentTypeError, "^loss"),
        ((model, optimizer, "mse", (), 3), ArgumentTypeError, "^scheduler"),
        ((model, SGD(model_of().parameters()), "mse"), ArgumentError, "^optimizer: .* none of them"),
    ]:
        with pytest.raises(error, match=message):
            Trainer(*arguments)
    with pytest.raises(ArgumentTypeError, match="^penalty"):
        Trainer(model, optimizer, "mse", penalty=0.1)
    with pytest.raises(UnknownNameError, match="did you mean 'epoch'"):
        Trainer(model, optimizer, "mse", scheduler_interval="epochs")


def test_a_loss_that_diverges():
    trainer = trainer_of("mse", lr=1e6)
    with pytest.raises(DivergedError, match=r"loss: expected a finite number, got (inf|nan) in epoch \d+; "
                                            r".*learning rate below 1e\+06") as caught:
        trainer.fit(X * 10, Y, 500, progress=False)
    error = caught.value
    assert isinstance(error, ArithmeticError)
    assert error.history is trainer.history and error.epoch == len(error.history) + 1
    assert np.isfinite(error.history.loss).all()
    with pytest.raises(DivergedError, match="batch 1 of 3"):
        trainer.fit(X * 10, Y, 500, batch_size=20, progress=False)
    trainer = trainer_of("mse")
    trainer.model.layers[0].neurons[1].w[0].data = math.inf
    with pytest.raises(DivergedError, match=r"in epoch 1; .* There its parameter layers\.0\.weight\[1, 0\] is inf$"):
        trainer.fit(X, Y, 5, progress=False)


def test_an_error_in_the_middle_leaves_whole_epochs():
    trainer, plain = trainer_of(), trainer_of()
    with pytest.raises(ZeroDivisionError):
        trainer.fit(X, Y, 9, callbacks=lambda trainer, epoch, logs: 1 / (epoch - 4), progress=True)
    plain.fit(X, Y, 4, progress=False)
    assert trainer.epoch == 4 and trainer.history.loss == plain.history.loss
    assert numbers(trainer.model) == numbers(plain.model)


# ---- KeyboardInterrupt ----

def test_ctrl_c_returns_the_history_so_far():
    class Press(Callback):
        def on_batch_end(self, trainer, batch, loss):
            if trainer.epoch == 2 and batch == 2:
                signal.raise_signal(signal.SIGINT)

    log = Log()
    trainer, plain = trainer_of(momentum=0.9), trainer_of(momentum=0.9)
    history = trainer.fit(X, Y, 9, batch_size=20, shuffle=False, callbacks=[Press(), log], progress=True)
    assert history.epochs == [1, 2] and trainer.stopped == "KeyboardInterrupt" and log.events[-1] == "end"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    plain.fit(X, Y, 2, batch_size=20, shuffle=False, progress=False)
    for rows in (slice(20), slice(20, 40)):   # and the two steps of the third epoch
        plain.optimizer.zero_grad()
        losses.hinge(plain.model(X[rows]), Y[rows]).backward()
        plain.optimizer.step()
    assert numbers(trainer.model) == numbers(plain.model)
    assert trainer.fit(X, Y, 1, progress=False).epochs == [1, 2, 3]


def test_ctrl_c_does_not_come_between_the_halves_of_a_step():
    trainer, plain = trainer_of(optimizer=Adam), trainer_of(optimizer=Adam)
    step = trainer.optimizer.step

    def pressed():
        if trainer.epoch == 1:
            signal.raise_signal(signal.SIGINT)
        step()

    trainer.optimizer.step = pressed
    assert len(trainer.fit(X, Y, 9, progress=False)) == 1
    del trainer.optimizer.step
    plain.fit(X, Y, 2, progress=False)
    assert numbers(trainer.model) == numbers(plain.model)   # the step was done, its epoch does not count
    np.testing.assert_equal(trainer.optimizer.state_dict(), plain.optimizer.state_dict())


def test_other_handlers_and_threads_are_let_be():
    before = signal.signal(signal.SIGINT, lambda signum, frame: None)
    try:
        handler = signal.getsignal(signal.SIGINT)
        seen = []
        trainer_of().fit(X, Y, 1, callbacks=lambda *_: seen.append(signal.getsignal(signal.SIGINT)), progress=False)
        assert seen == [handler] and signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    trainer = trainer_of()
    thread = threading.Thread(target=trainer.fit, args=(X, Y, 2), kwargs={"progress": False})
    thread.start()
    thread.join()
    assert trainer.epoch == 2


def test_a_keyboard_interrupt_raised_by_hand():
    def press(trainer, epoch, logs):
        if epoch == 3:
            raise KeyboardInterrupt

    trainer = trainer_of()
    assert trainer.fit(X, Y, 9, callbacks=press, progress=False).epochs == [1, 2, 3]


# ---- progress ----

def test_progress_by_tqdm(capsys):
    pytest.importorskip("tqdm")
    threads = threading.active_count()
    trainer_of().fit(X, Y, 30, batch_size=20)
    out, err = capsys.readouterr()
    assert out == "" and "30/30" in err and "loss 0." in err
    assert threading.active_count() == threads
    trainer_of().fit(X, Y, 3, progress=False)
    assert capsys.readouterr() == ("", "")


def test_progress_without_tqdm(capsys, monkeypatch):
    own_import = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == "tqdm":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return own_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    trainer_of().fit(X, Y, 30, batch_size=20)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("epoch 30 of 30: loss 0.") and err.count("\n") == 1


def test_progress_is_shown_at_most_ten_times_a_second(monkeypatch):
    from flatgrad.train import trainer as module

    class Counted:
        due = 0.0

        def epoch(self, done, logs):
            assert module.time.perf_counter() >= self.due   # the trainer's clock
            self.due = module.time.perf_counter() + 0.1

        def close(self, done, logs):
            self.done = done

    bar = Counted()
    monkeypatch.setattr(module, "progress_of", lambda epochs: bar)
    history = trainer_of().fit(X, Y, 2000)
    assert bar.done == len(history) == 2000


# ---- with the rest of the package ----

def test_a_history_draws_itself():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    history = trainer_of(metrics=["accuracy"]).fit(X, Y, 3, validation=0.2, progress=False)
    ax = figure.subplots()
    assert history.plot(ax=ax, metrics=["loss", "val_loss"]) is ax
    assert [line.get_ydata().tolist() for line in ax.get_lines()][:2] == [history.loss, history.val_loss]


def test_dropout_and_batch_norm_go_on_bit_for_bit(tmp_path):
    def trainer():
        model = nn.Sequential(nn.Layer(2, 8, rng=1), nn.BatchNorm(8), nn.Dropout(0.3, rng=2),
                              nn.Layer(8, 2, "linear", rng=3))
        return Trainer(model, Adam(model.parameters(), lr=0.01), "cross_entropy")

    whole, first, second = trainer(), trainer(), trainer()
    fit(whole, 10, seed=1)
    fit(first, 4, seed=1)
    first.save(tmp_path / "x.npz")
    fit(second.load(tmp_path / "x.npz"), 6)
    assert second.history.loss == whole.history.loss and second.history.val_loss == whole.history.val_loss
    np.testing.assert_equal(second.model.state_dict(), whole.model.state_dict())
    assert whole.predict(X).tolist() == whole.predict(X).tolist()   # nothing is dropped


def test_an_index_out_of_range_says_so():
    model = nn.Sequential(nn.Embedding(3, 4, rng=0), nn.Layer(8, 1, "linear", rng=1))
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), "mse")
    assert trainer.fit([[0, 1], [2, 0]], [0.0, 1.0], 5, progress=False).loss[-1] < trainer.history.loss[0]
    with pytest.raises(DataError, match=r"^indices\[0, 1\]: expected 0 to 2, got 3"):
        trainer.fit([[0, 3]], [0.0], 1, progress=False)


# ---- habits ----

LABELS_OF_TEXT = r"^y: expected an array of real numbers, got text, such as '.'; names, y = numpy.unique\("


@pytest.mark.parametrize("y, message", [
    (["a", "b"] * 30, LABELS_OF_TEXT), (np.array(["0", "1"] * 30), LABELS_OF_TEXT),
    (np.array(["a", "b"] * 30, object), LABELS_OF_TEXT), ("y", LABELS_OF_TEXT), (None, "^y: expected (targets|an array of real)"),
    (np.zeros(60, "datetime64[D]"), "^y: expected an array of real numbers, got array"), ({1, 2}, "^y: expected an array"),
    ({"a": 1}, "^y: expected an array of real numbers, got array"), (b"0", "^y: expected an array of real numbers")],
    ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("loss, sizes", [("mse", (8, 1)), ("cross_entropy", (8, 2))])
def test_targets_that_are_no_numbers(loss, sizes, y, message):
    trainer = trainer_of(loss, Adam, sizes)
    before = state_of(trainer)
    for use in (lambda: trainer.fit(X, y, 1, progress=False), lambda: trainer.evaluate(X, y),
                lambda: trainer.fit(X, np.zeros(60, int), 1, validation=(X, y), progress=False)):
        with pytest.raises(ArgumentTypeError, match=message.replace("^y", r"^(y|validation\[1\])")):
            use()
    assert repr(state_of(trainer)) == repr(before)


@pytest.mark.parametrize("samples", [
    "X", None, [["1", "2"]] * 60, np.array([["1", "2"]] * 60), np.array([["1", 2]] * 60, object),
    np.zeros((60, 2), "datetime64[D]"), np.zeros((60, 2), "timedelta64[s]"), {"a": [1.0]}, b"ab"],
    ids=lambda value: type(value).__name__)
def test_samples_that_are_no_numbers(samples):
    """Text is none, though NumPy would read numbers in it; and a date is none, which NumPy would count in days."""
    trainer = trainer_of("mse", Adam, (8, 1))
    for use in lambda: trainer.fit(samples, np.zeros(60), 1, progress=False), lambda: trainer.predict(samples):
        with pytest.raises(ArgumentTypeError, match="^X: expected an array of real numbers, got "):
            use()


def test_a_history_is_a_dict_and_makes_a_data_frame():
    trainer = trainer_of("mse", Adam, (8, 1), metrics=["mae"])
    history = trainer.fit(X, np.zeros(60), 3, progress=False)
    assert isinstance(history, dict) and list(history) == ["loss", "mae", "learning_rate", "time"]
    assert list(history.items()) == [(name, history[name]) for name in history] and len(history) == 3
    assert history.metrics is history and dict(history) == {name: history[name] for name in history}
    for other in copy.deepcopy(history), pickle.loads(pickle.dumps(history)):
        assert other == history and other.epochs == history.epochs and other.loss == history.loss
    with pytest.raises(UnknownNameError, match="name: expected one of 'loss', .*got 'los'"):
        history["los"]
    for name in "items", "update", "plot":   # which are methods of a History
        with pytest.raises(ArgumentError, match="^metrics: expected other names than"):
            trainer_of("mse", Adam, (8, 1), metrics={name: mae})
    assert history.get("los") is None and not hasattr(history, "los")
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(history)
    assert list(frame.columns) == list(history) and frame["loss"].tolist() == history.loss
    assert pandas.DataFrame(history.to_dict())["epoch"].tolist() == [1, 2, 3]
    assert pandas.DataFrame(History()).empty
