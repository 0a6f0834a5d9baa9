"""What users get wrong: an error that names the argument, its value and what was expected, and nothing has changed.

The mistakes that are most often made come first, each by itself; then a table of arguments and hostile values.
"""
import math
import os
import random
import re
import threading
import warnings

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, errors, losses, nn, no_grad, optim, storage
from flatgrad.estimators import Classifier
from flatgrad.optim import lr_scheduler
from flatgrad.train import Checkpoint, EarlyStopping, Trainer

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 2))
Y = np.where(X[:, 0] > 0.0, 1.0, -1.0)
LABELS = (X[:, 0] > 0.0).astype(int)


def with_number(array, number):
    result = array.copy()
    result[3, 1] = number
    return result


def made(loss="hinge", outputs=1):
    model = nn.MLP(2, [3, outputs], rng=0)
    return Trainer(model, optim.Adam(model.parameters(), lr=0.1), loss, metrics=["accuracy"])


def everything(trainer):
    """All numbers that a training changes, as text that can be compared."""
    return repr((trainer.model.state_dict(), trainer.optimizer.state_dict(), trainer.epoch, trainer.seed,
                 trainer.history.metrics, trainer.history.epochs, [p.grad for p in trainer.model.parameters()],
                 [module.training for module in trainer.model.modules()]))


# ---- the mistakes that are made most often ----

MISTAKES = {
    "nan in the features": ("hinge", 1, with_number(X, math.nan), Y, errors.DataError,
                            r"X\[3, 1\]: expected a finite number, got nan"),
    "inf in the features": ("hinge", 1, with_number(X, -math.inf), Y, errors.DataError,
                            r"X\[3, 1\]: expected a finite number, got -inf"),
    "too many features": ("hinge", 1, np.ones((12, 3)), Y, errors.ShapeError,
                          "X: the model does not take samples of 3 features: x: expected 2 inputs"),
    "too few features": ("hinge", 1, X[:, :1], Y, errors.ShapeError,
                         "X: the model does not take samples of 1 feature:"),
    "one axis": ("hinge", 1, X[:, 0], Y, errors.ShapeError, r"got the shape \(12,\); numpy.reshape\(X, \(-1, 1\)\)"),
    "no samples": ("hinge", 1, np.empty((0, 2)), [], errors.DataError, r"X: expected one sample .* the shape \(0, 2\)"),
    "no features": ("hinge", 1, np.empty((12, 0)), Y, errors.DataError,
                    r"one feature at least, got the shape \(12, 0\)"),
    "other lengths": ("hinge", 1, X, Y[:5], errors.ShapeError, r"y: expected 12 samples, .*, got the shape \(5,\)"),
    "nan in the targets": ("mse", 1, X, [math.nan] * 12, errors.DataError,
                           r"y\[0\]: expected a finite number, got nan"),
    "a label too large": ("cross_entropy", 2, X, [0, 1, 2] * 4, errors.DataError,
                          r"y\[2\]: expected an integer from 0 to 1, .*, got 2"),
    "a negative label": ("cross_entropy", 2, X, [0, 1, -1] * 4, errors.DataError,
                         r"y\[2\]: expected .* 0 to 1, .* got -1"),
    "labels that are no integers": ("cross_entropy", 2, X, Y * 0.5, errors.ArgumentTypeError,
                                    r"y\[0\]: expected an int"),
    "0 and 1 for the hinge loss": ("hinge", 1, X, LABELS, errors.DataError, r"y\[\d+\]: expected -1 or 1, .* got 0"),
    "-1 and 1 for probabilities": ("bce_with_logits", 1, X, Y, errors.DataError,
                                   r"expected a number from 0 to 1, .*-1"),
    "text": ("mse", 1, [["a", "b"]] * 12, Y, errors.ArgumentTypeError, "X: expected an array of real numbers, got "),
    "complex numbers": ("mse", 1, X * 1j, Y, errors.ArgumentTypeError, "X: expected an array of real numbers, got "),
    "too large for a float": ("mse", 1, [[10**400, 0]] * 12, Y, errors.ArgumentTypeError,
                              "X: expected an array of real"),
    "rows of different lengths": ("mse", 1, [[1.0], [1.0, 2.0]], [1, 2], errors.ArgumentTypeError,
                                  "X: expected an array"),
}


@pytest.mark.parametrize("loss, outputs, samples, targets, error, said", MISTAKES.values(), ids=MISTAKES)
def test_samples_that_nothing_can_be_learnt_from(loss, outputs, samples, targets, error, said):
    trainer = made(loss, outputs)
    before = everything(trainer)
    with pytest.raises(error, match=said):
        trainer.fit(samples, targets, 2, batch_size=4, progress=False)
    assert everything(trainer) == before   # model unchanged
    with pytest.raises(error):
        trainer.evaluate(samples, targets)
    assert everything(trainer) == before


def with_metrics(metrics):
    model = nn.MLP(2, [1])
    return Trainer(model, optim.SGD(model.parameters()), "mse", metrics=metrics)


UNKNOWN = {
    "activation": (lambda: nn.MLP(2, [1], out_activation="Sigmod"),
                   "out_activation: .* got 'Sigmod'; did you mean 'sigmoid'"),
    "layer": (lambda: nn.Layer(2, 1, activation="reul"), "activation: .*got 'reul'; did you mean 'relu'"),
    "init": (lambda: nn.Layer(2, 1, init="xavier_unifrom"), "got 'xavier_unifrom'; did you mean 'xavier_uniform'"),
    "loss": (lambda: made("cross_entrpy"), "loss: .*; did you mean 'cross_entropy'"),
    "metric": (lambda: with_metrics(["acuracy"]), "metrics.*did you mean 'accuracy'"),
    "reduction": (lambda: losses.mse([1.0], [1.0], reduction="means"), "reduction: .*; did you mean 'mean'"),
    "monitor": (lambda: made().fit(X, Y, 1, callbacks=[EarlyStopping("val_los")], validation=0.25, progress=False),
                "monitor: .*; did you mean 'val_loss'"),
    "hyperparameter": (lambda: optim.SGD([{"params": [Value(1.0)], "weight_deca": 0.1}]),
                       "did you mean 'weight_decay'"),
    "estimator's optimizer": (lambda: Classifier(optimizer="adamm").fit(X, LABELS),
                              "optimizer: .*; did you mean 'adam'"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("call, said", UNKNOWN.values(), ids=UNKNOWN)
def test_unknown_names_with_the_nearest_known_one(call, said):
    with pytest.raises(errors.FlatgradError, match=said) as caught:
        call()
    assert isinstance(caught.value, (errors.UnknownNameError, errors.ArgumentError))


def test_a_parameter_in_two_groups():
    model = nn.MLP(2, [3, 1], rng=0)
    parameters = model.parameters()
    optimizer = optim.Adam(parameters[:9], lr=0.1)
    before = repr((optimizer.state_dict(), model.state_dict()))
    said = r"param_group\['params'\]\[1\]: .* in no other group, .*groups\[0\]"
    with pytest.raises(errors.ArgumentError, match=said):
        optimizer.add_param_group({"params": [parameters[9], parameters[4]]})
    assert repr((optimizer.state_dict(), model.state_dict())) == before and len(optimizer.param_groups) == 1
    with pytest.raises(errors.ArgumentError, match="in no other group"):
        optim.SGD([{"params": parameters[:2]}, {"params": parameters[1:3]}])
    optimizer.add_param_group({"params": parameters[9:]})   # and the right one works


@pytest.mark.parametrize("other", [[4, 1], [3, 3, 1], [3]])
def test_a_checkpoint_of_another_architecture(tmp_path, other):
    path = tmp_path / "model.npz"
    trainer = made()
    trainer.fit(X, Y, 2, progress=False)
    nn.MLP(2, other, rng=1).save(path)
    before = everything(trainer)
    said = r"layers\.0\.weight: expected the shape|layers\.\d\.\w+: (missing|not in)"
    with pytest.raises(errors.StateError, match=said):
        trainer.model.load(path)
    assert everything(trainer) == before
    model = nn.MLP(2, other, rng=1)
    Trainer(model, optim.Adam(model.parameters()), "mse").save(path)
    with pytest.raises(errors.StateError, match="model"):
        trainer.load(path)
    assert everything(trainer) == before
    Trainer(trainer.model, optim.SGD(trainer.model.parameters()), "mse").save(path)
    with pytest.raises(errors.StateError, match="optimizer: expected the state of an Adam, got that of a SGD"):
        trainer.load(path)
    assert everything(trainer) == before


def test_an_empty_batch_and_one_of_another_width():
    model = nn.MLP(2, [3, 1], rng=0)
    before = repr(model.state_dict())
    for batch in ([], [[]], np.empty((0, 2)), np.empty((2, 0)), np.ones((2, 3)), [1.0], [[1.0, 2.0], [1.0]]):
        with pytest.raises(ValueError, match="x|expected"):
            model(batch)
    assert repr(model.state_dict()) == before
    for loss in (losses.mse, losses.hinge, losses.bce_with_logits):
        with pytest.raises(ValueError, match="expected"):
            loss([], [])
        with pytest.raises(ValueError, match="expected"):
            loss([1.0, 2.0], [1.0, 2.0, 3.0])


# ---- arguments and hostile values ----

HOSTILE = {
    "None": lambda: None, "text": lambda: "abc", "bytes": lambda: b"x", "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "-1": lambda: -1, "huge": lambda: 10**400, "complex": lambda: 1j, "empty list": lambda: [], "dict": lambda: {},
    "ragged": lambda: [[1.0, 2.0], [3.0]], "3-D": lambda: np.ones((2, 2, 2)), "objects": lambda: np.array([None, "a"]),
    "text array": lambda: np.array(["a", "b"]), "complex array": lambda: np.ones((3, 2)) * 1j, "object": object,
    "generator": lambda: (x for x in (1.0, 2.0)), "class": lambda: int, "Value": lambda: Value(0.5),
    "Values": lambda: [Value(0.5), Value(1.0)], "Tensor": lambda: Tensor([1.0, 2.0]),
    "masked": lambda: np.ma.array([[1.0, 2.0]] * 12, mask=[[True, False]] * 12),
}


class Case:
    """A function of one argument, whose name a message has to have; `takes`: the hostile values that are right."""

    def __init__(self, name, call, takes=""):
        self.name, self.call, self.takes = name, call, takes.split(", ")


def fit_with(**options):
    trainer = made()
    return trainer.fit(**{"X": X, "y": Y, "epochs": 1, "progress": False, **options})


SGD = optim.SGD([Value(1.0)])
CASES = [
    *(Case(name, lambda x, name=name: fit_with(**{name: x}), takes) for name, takes in {
        "X": "", "y": "", "epochs": "huge", "batch_size": "None, huge", "shuffle": "", "seed": "None, huge",
        "validation": "None", "progress": ""}.items()),
    *(Case("path", call) for call in (
        lambda x: storage.save_arrays(x, {}) if not isinstance(x, str) else 1 / 0, storage.load_arrays, Checkpoint,
        lambda x: storage.write_file(x, b""), lambda x: nn.Layer(1, 1).load(x), lambda x: made().load(x))),
    Case("max_bytes", lambda x: storage.load_arrays(os.devnull, x), "None, inf, huge"),
    *(Case(name, lambda x, name=name: optim.Adam([Value(1.0)], **{name: x})) for name in (
        "lr", "betas", "eps", "weight_decay", "amsgrad")),
    Case("params", optim.SGD, "Values, generator"),
    Case("max_norm", lambda x: optim.clip_grad_norm_([Value(1.0)], x), "inf, huge"),
    Case("norm_type", lambda x: optim.clip_grad_norm_([Value(1.0)], 1.0, x), "inf, huge"),
    Case("step_size", lambda x: lr_scheduler.StepLR(SGD, x), "huge"),
    Case("fused", lambda x: nn.Layer(2, 1, fused=x)), Case("fused", lambda x: nn.MLP(2, [1], fused=x)),
    Case("nin", lambda x: nn.Layer(x, 1)), Case("out_activation", lambda x: nn.MLP(2, [1], out_activation=x),
         "None, class"),
    Case("x", lambda x: nn.Neuron(2)(x), "generator, Values, Tensor, objects, text array"),
    Case("x", lambda x: nn.Layer(2, 2)(x), "generator, Values, Tensor, masked"),
    Case("pos_weight", lambda x: losses.bce_with_logits([0.5, 1.0], [0, 1], pos_weight=x), "None"),
    Case("weight", lambda x: losses.cross_entropy([[0.5, 1.0]], [0], weight=x), "None"),
    Case("delta", lambda x: losses.huber([1.0], [2.0], delta=x)),
    Case("eps", lambda x: nn.BatchNorm(2, eps=x)), Case("p", nn.Dropout),
    Case("arrays", lambda x: storage.save_arrays("/nowhere/x", x), "dict"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_arguments_are_named_in_the_message(case, monkeypatch):
    for label, make in HOSTILE.items():
        if label in case.takes or case.name in ("path", "arrays") and label in ("text", "dict"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises((TypeError, ValueError)) as caught:
                case.call(make())
        assert re.search(rf"\b{case.name}\b", str(caught.value)), (label, caught.value)


# ---- what changes under one's hands ----

def test_weights_that_are_no_values_any_more():
    model = nn.MLP(2, [3, 1], rng=0)
    model.layers[0].neurons[0].w = [0.5, 0.25]
    for call in (model.state_dict, lambda: model.load_state_dict({}, strict=False),
                 lambda: list(model.named_parameters())):
        with pytest.raises(errors.ArgumentTypeError, match=r"layers\.0\.weight: expected Values, got float 0\.5"):
            call()
    with pytest.raises(errors.ArgumentTypeError, match="parameters: expected Values, got float 0.5"):
        model.zero_grad()
    with pytest.raises(TypeError, match=r"params\[0\]: .* got float 0\.5"):
        optim.SGD(model.parameters())
    assert math.isfinite(model([1.0, 2.0]).data)   # micrograd's arithmetic takes them


def test_two_parts_of_one_name_are_not_saved_as_one(tmp_path):
    model = nn.Module()
    model.parts = {1: nn.Layer(1, 1), "1": nn.Layer(1, 1)}
    for call in (model.state_dict, lambda: model.save(tmp_path / "x"), lambda: model.load_state_dict({}, strict=False)):
        with pytest.raises(errors.StateError, match=r"parts\.1\.weight: expected one name"):
            call()
    model.parts = {"a/b": nn.Layer(1, 1, rng=0), "../c": nn.Layer(1, 1, rng=1), "": nn.Layer(1, 1, rng=2)}
    before = [p.data for p in model.parameters()]
    model.save(tmp_path / "x")
    for p in model.parameters():
        p.data = 0.0
    model.load(tmp_path / "x")
    assert [p.data for p in model.parameters()] == before


@pytest.mark.parametrize("count", [math.nan, math.inf, 1.5, 1e300])
def test_a_count_that_is_none_is_not_loaded(count):
    model = nn.BatchNorm(2)
    state = model.state_dict()
    with pytest.raises(errors.StateError, match="num_batches_tracked: expected whole numbers, got"):
        model.load_state_dict({**state, "weight": [5.0, 5.0], "num_batches_tracked": count})
    assert repr(model.state_dict()) == repr(state)
    model.load_state_dict({**state, "num_batches_tracked": 3.0})
    assert model.num_batches_tracked == 3 and model.num_batches_tracked.dtype.kind == "i"


def test_a_gradient_is_not_dropped_in_silence():
    with pytest.raises(TypeError, match="pos_weight: expected numbers, as no gradient goes there, got"):
        losses.bce_with_logits(Tensor([[1.0, 2.0]]), [[0, 1]], pos_weight=Tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match="weight: expected numbers"):
        losses.CrossEntropyLoss(weight=[Value(1.0), 2.0])(Tensor([[1.0, 2.0]]), [0])


@pytest.mark.parametrize("path, said", [("{epoch:zz}", "braces"), ("{epoch}{loss}", "braces"), ("", "got ''"),
                                        (b"x", "str or path-like")])
def test_a_path_that_would_fail_after_an_epoch(path, said):
    with pytest.raises((TypeError, ValueError), match=f"path: .*{said}"):
        Checkpoint(path)


def test_a_directory_is_no_path_of_a_checkpoint(tmp_path):
    trainer = made()
    before = everything(trainer)
    with pytest.raises(errors.ArgumentError, match="path: expected one of a file, got the directory"):
        trainer.fit(X, Y, 1, callbacks=[Checkpoint(tmp_path)], progress=False)
    assert everything(trainer) == before


def test_a_callback_may_load_a_trainer_without_a_seed(tmp_path):
    trainer = made()
    trainer.save(tmp_path / "x")
    trainer.fit(X, Y, 3, batch_size=5, seed=1, progress=False,
                callbacks=[lambda trainer, epoch, logs: trainer.load(tmp_path / "x")])
    assert trainer.epoch == 0


# ---- no_grad ----

def test_fit_learns_within_no_grad_as_well():
    alone, within = made(), made()
    alone.fit(X, Y, 3, batch_size=5, seed=1, progress=False)
    with no_grad():
        within.fit(X, Y, 3, batch_size=5, seed=1, progress=False)
        assert (Value(1.0) * 2.0)._op == ""
    assert repr(within.model.state_dict()) == repr(alone.model.state_dict())


def test_no_grad_is_of_one_thread():
    inside, done = threading.Event(), threading.Event()
    there = []

    def predict():
        with no_grad():
            inside.set()
            done.wait(10)
            there.append((Value(1.0) * 2.0)._op)

    thread = threading.Thread(target=predict)
    thread.start()
    inside.wait(10)
    a = Value(3.0)
    y = a * a
    layer = nn.Layer(2, 1, rng=0)(np.ones((2, 2)))
    assert layer.requires_grad
    y.backward()
    done.set()
    thread.join()
    assert (a.grad, there, (a * a)._op) == (6.0, [""], "*")


def test_no_grad_left_twice_and_out_of_order():
    a, b = no_grad(), no_grad()
    a.__enter__(), b.__enter__()
    a.__exit__()
    assert (Value(1.0) * 2.0)._op == ""
    b.__exit__(), b.__exit__(), a.__exit__()
    assert (Value(1.0) * 2.0)._op == "*"
    with a, a:
        assert (Value(1.0) * 2.0)._op == ""
    assert (Value(1.0) * 2.0)._op == "*"


def test_no_grad_does_not_decorate_what_runs_later():
    def generator():
        yield 1

    async def coroutine():
        pass

    async def both():
        yield 1

    for function in (generator, coroutine, both):
        with pytest.raises(TypeError, match="no_grad: expected a function that computes when it is called"):
            no_grad()(function)


def test_a_neuron_takes_no_batch():
    for x in (np.ones((2, 2)), [[1.0, 2.0], [3.0, 4.0]], [Tensor([1.0]), 2.0]):
        with pytest.raises(errors.ArgumentTypeError, match="x: expected one sample, .* a Layer takes several samples"):
            nn.Neuron(2)(x)


CONSTANT = Tensor([1.0], requires_grad=False)


@pytest.mark.parametrize("call, error", [
    (lambda: optim.SGD(["w"]), errors.ArgumentTypeError),
    (lambda: optim.SGD([CONSTANT]), errors.ArgumentError),
    (lambda: optim.SGD([CONSTANT + Value(1.0)]), errors.ArgumentError),
    (lambda: optim.clip_grad_norm_([1.0], 1.0), errors.ArgumentTypeError),
    (lambda: CONSTANT.update(0.1), errors.ArgumentError),
    (lambda: Value(1.0).update(math.nan), errors.ArgumentError),
    (lambda: CONSTANT.sum(axis=1), errors.ArgumentError),
    (lambda: CONSTANT.sum(axis="0"), errors.ArgumentTypeError),
    (lambda: flatgrad.scalar.dot([1.0], [1.0, 2.0]), errors.ShapeError),
    (lambda: flatgrad.scalar.neuron([1.0], [1.0], activation="rleu"), errors.UnknownNameError),
    (lambda: storage.save_arrays("/nowhere/x", {"x": object()}), errors.ArgumentTypeError),
])
def test_errors_are_those_of_the_hierarchy(call, error):
    with pytest.raises(error):
        call()


# ---- leaks ----

def test_failed_calls_leave_nothing_on_the_tape():
    model = nn.MLP(2, [3, 2], rng=0)
    trainer = Trainer(model, optim.SGD(model.parameters()), "cross_entropy")
    flatgrad.collect()
    before = flatgrad.stats()["nodes"]
    for k in range(50):
        for call in (lambda: trainer.fit(X, Y, 1), lambda: model(np.ones((2, 3))), lambda: model([[1.0, 2.0], [1.0]]),
                     lambda: losses.cross_entropy(model(X), [9] * 12), lambda: losses.mse(model(X), np.ones(5)),
                     lambda: model(X) @ model(X), lambda: optim.SGD([*model.parameters(), 1.0]),
                     lambda: model(X).log() if k % 2 else model(X) ** "x", lambda: trainer.predict(X[:, :1])):
            with pytest.raises((TypeError, ValueError)):
                call()
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] == before


def test_long_trainings_do_not_grow():
    random.seed(0)
    trainer = made()
    trainer.fit(X[:4], Y[:4], 5, progress=False)
    flatgrad.collect()
    before = flatgrad.stats()
    trainer.fit(X[:4], Y[:4], 1000, batch_size=2, progress=False)
    for _ in range(100):
        trainer.predict(X)
        trainer.predict_single(X[0])
        trainer.evaluate(X, Y)
    flatgrad.collect()
    after = flatgrad.stats()
    assert (after["nodes"], after["operands"]) == (before["nodes"], before["operands"])
