"""Metrics of classes and of numbers: against scikit-learn, against counts by hand, and in a Trainer."""
import functools
import random

import numpy as np
import pytest

from flatgrad import losses
from flatgrad.datasets import make_moons
from flatgrad.errors import ArgumentError, DataError, ShapeError
from flatgrad.nn import MLP
from flatgrad.optim import Adam
from flatgrad.train import METRICS, Trainer, accuracy, f1, precision, recall, rmse, roc_auc, top_k_accuracy

OF_COUNTS = {"precision": precision, "recall": recall, "f1": f1}


def samples_of(n, n_classes, seed):
    """Scores with ties, and labels of which some classes may be missing."""
    rng = np.random.default_rng(seed)
    return rng.integers(-4, 5, (n, n_classes)) / 4.0, rng.integers(0, n_classes, n)


def theirs(name):
    metrics = pytest.importorskip("sklearn.metrics")
    return functools.partial(getattr(metrics, f"{name}_score"), zero_division=0)


# ---- against scikit-learn ----

@pytest.mark.parametrize("name", OF_COUNTS)
@pytest.mark.parametrize("average", [None, "binary", "macro", "micro", "weighted"])
def test_counts_of_one_column(name, average):
    for seed in range(20):
        scores, labels = samples_of(1 + seed, 2, seed)
        own = OF_COUNTS[name](scores[:, 0], labels, threshold=0.25, average=average)
        assert own == pytest.approx(theirs(name)(labels, scores[:, 0] > 0.25, average=average or "binary"), abs=1e-15)
        signs = OF_COUNTS[name](scores[:, :1], 2 * labels - 1, average=average)
        expected = theirs(name)(labels, scores[:, 0] > (0.0 if labels.min() == 0 else 0.5), average=average or "binary")
        assert signs == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("name", OF_COUNTS)
@pytest.mark.parametrize("average", [None, "macro", "micro", "weighted"])
@pytest.mark.parametrize("n_classes", [3, 5])
def test_counts_of_labels(name, average, n_classes):
    for seed in range(20):
        scores, labels = samples_of(1 + seed, n_classes, seed)
        own = OF_COUNTS[name](scores, labels, average=average)
        assert own == pytest.approx(theirs(name)(labels, scores.argmax(axis=1), average=average or "macro"), abs=1e-15)


@pytest.mark.parametrize("name", OF_COUNTS)
def test_counts_of_two_columns_are_those_of_the_second_class(name):
    scores, labels = samples_of(50, 2, 0)
    assert OF_COUNTS[name](scores, labels) == pytest.approx(theirs(name)(labels, scores.argmax(axis=1)))


@pytest.mark.parametrize("name", OF_COUNTS)
@pytest.mark.parametrize("average", [None, "macro", "micro", "weighted"])
def test_counts_of_several_labels_for_a_sample(name, average):
    rng = np.random.default_rng(3)
    for n in (1, 2, 30):
        scores, target = rng.random((n, 4)), rng.integers(0, 2, (n, 4))
        own = OF_COUNTS[name](scores, target, average=average)
        assert own == pytest.approx(theirs(name)(target, scores > 0.5, average=average or "macro"), abs=1e-15)


@pytest.mark.parametrize("k", [1, 2, 3, 9])
def test_top_k(k):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, labels = np.random.default_rng(1).random((80, 5)), samples_of(80, 5, 1)[1]
    own = top_k_accuracy(scores, labels, k)
    if k < 5:
        assert own == metrics.top_k_accuracy_score(labels, scores, k=k, labels=range(5))
    assert own == np.mean([labels[i] in np.argsort(-scores[i])[:k] for i in range(80)])
    assert top_k_accuracy(scores, np.eye(5)[labels], k) == own


def test_the_first_of_equal_scores_is_the_larger_one():
    scores, labels = samples_of(300, 4, 2)
    assert top_k_accuracy(scores, labels, 1) == accuracy(scores, labels)
    assert top_k_accuracy([[1.0, 1.0, 1.0]] * 3, [0, 1, 2], 2) == 2 / 3


def test_roc_auc():
    metrics = pytest.importorskip("sklearn.metrics")
    for seed in range(20):
        scores, labels = samples_of(40, 4, seed)
        two, p = labels % 2, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        assert roc_auc(scores[:, 0], two) == pytest.approx(metrics.roc_auc_score(two, scores[:, 0]))
        assert roc_auc(scores[:, :1], 2 * two - 1) == pytest.approx(metrics.roc_auc_score(two, scores[:, 0]))
        assert roc_auc(scores[:, :2], two) == pytest.approx(metrics.roc_auc_score(two, scores[:, 1] - scores[:, 0]))
        assert roc_auc(p, labels) == pytest.approx(metrics.roc_auc_score(labels, p, multi_class="ovr"))
        several = np.random.default_rng(seed).integers(0, 2, (40, 4))
        assert roc_auc(scores, several) == pytest.approx(metrics.roc_auc_score(several, scores))


def test_rmse():
    metrics = pytest.importorskip("sklearn.metrics")
    p, t = np.random.default_rng(0).normal(size=(2, 20, 3))
    assert rmse(p, t) == pytest.approx(metrics.root_mean_squared_error(t, p))
    assert rmse(p[:, 0], t[:, :1]) == pytest.approx(metrics.root_mean_squared_error(t[:, 0], p[:, 0]))


# ---- by hand ----

def test_counts_by_hand():
    prediction, target = [0.9, 0.8, 0.2, 0.7, 0.1], [1, 0, 1, 1, 0]
    assert (precision(prediction, target), recall(prediction, target)) == (2 / 3, 2 / 3)
    assert (precision(prediction, target, threshold=0.85), recall(prediction, target, 0.85)) == (1.0, 1 / 3)
    assert f1(prediction, target, 0.85) == 0.5
    assert precision([0.0, 0.0], [1, 0]) == 0.0 == recall([0.9], [0]) == f1([0.1], [0])
    # Of class 0 one of two, of class 1 none of one, of class 2 one of one.
    assert recall([[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]], [0, 0, 1, 2]) == pytest.approx((0.5 + 0.0 + 1.0) / 3)
    assert roc_auc([1.0, 2.0, 3.0], [0, 0, 1]) == 1.0 and roc_auc([1.0, 1.0], [1, 0]) == 0.5


@pytest.mark.parametrize("call, error, message", [
    (lambda: precision([[0.1, 0.9, 0.0]], [1], average="binary"), ArgumentError, "expected 'macro', 'micro' or 'weigh"),
    (lambda: f1([0.1], [1], average="makro"), ArgumentError, "did you mean 'macro'"),
    (lambda: recall([[0.1, 0.9]], [2]), DataError, r"target\[0\]: expected a label from 0 to 1, got 2"),
    (lambda: recall([[0.1, 0.9]], [0.5]), DataError, r"target\[0\]: expected a label from 0 to 1, got 0.5"),
    (lambda: f1([[0.1, 0.9]], [[0, 1, 1]]), ShapeError, "the same shape"),
    (lambda: top_k_accuracy([0.1, 0.2], [0, 1]), ShapeError, "a column for each class"),
    (lambda: top_k_accuracy([[0.1, 0.2]], [0], 0), ArgumentError, "k: expected"),
    (lambda: roc_auc([0.1, 0.2], [1, 1]), DataError, "samples of both classes for roc_auc, got 2 positive ones of 2"),
    (lambda: roc_auc(np.eye(3), [0, 1, 1]), DataError, "samples of class 2 and of others for roc_auc, got 0 of 3"),
    (lambda: precision([], []), DataError, "one sample at least"),
])
def test_what_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- in a Trainer ----

X, LABELS = make_moons(60, noise=0.2, random_state=3)


def trainer_of(loss, n_outputs, metrics):
    random.seed(7)
    model = MLP(2, [8, n_outputs])
    return Trainer(model, Adam(model.parameters(), lr=0.05), loss, metrics)


@pytest.mark.parametrize("loss, n_outputs, y, classes", [
    ("hinge", 1, 2 * LABELS - 1, lambda out: out > 0), ("bce_with_logits", 1, LABELS, lambda out: out > 0),
    ("mse", 1, LABELS, lambda out: out > 0.5), ("cross_entropy", 2, LABELS, lambda out: out.argmax(axis=1)),
])
def test_a_trainer_knows_the_threshold(loss, n_outputs, y, classes):
    metrics = ["accuracy", "precision", "recall", "f1", "roc_auc"]
    trainer = trainer_of(loss, n_outputs, {**dict(zip(metrics, metrics)), "macro": functools.partial(f1, average="macro"),
                                           "half": functools.partial(accuracy, threshold=0.5)})
    trainer.fit(X, y, 3, progress=False)
    predicted = classes(trainer.predict(X)).astype(int)
    found = trainer.evaluate(X, y)
    hits = np.sum((predicted == 1) & (LABELS == 1))
    assert found["accuracy"] == np.mean(predicted == LABELS)
    assert found["precision"] == pytest.approx(hits / max(1, predicted.sum()))
    assert found["recall"] == pytest.approx(hits / LABELS.sum())
    assert found["f1"] == pytest.approx(2 * hits / (predicted.sum() + LABELS.sum()))
    others = np.sum((predicted == 0) & (LABELS == 0))
    assert found["macro"] == pytest.approx(found["f1"] / 2 + others / (120 - predicted.sum() - LABELS.sum()))
    if n_outputs == 1:
        assert found["half"] == np.mean((trainer.predict(X) > 0.5) == LABELS)
    assert set(trainer.history) >= set(metrics)


def test_compiled_steps_measure_the_same():
    runs = []
    for engine in ("compiled", "python"):
        trainer = trainer_of("hinge", 1, ["precision", "recall", "f1", "roc_auc"])
        trainer.fit(X, 2 * LABELS - 1, 5, batch_size=16, seed=1, progress=False, engine=engine)
        runs.append({name: numbers for name, numbers in trainer.history.items() if name != "time"})
    assert runs[0] == runs[1]


def test_several_labels_for_a_sample_in_a_trainer():
    y = np.column_stack([LABELS, X[:, 0] > 0, X[:, 1] > 0])
    trainer = trainer_of(losses.bce_with_logits, 3, ["f1", "roc_auc"])
    trainer.fit(X, y, 60, progress=False)
    found, predicted = trainer.evaluate(X, y), trainer.predict(X) > 0
    counts = [2 * np.sum(predicted[:, k] & (y[:, k] == 1)) / (predicted[:, k].sum() + y[:, k].sum()) for k in range(3)]
    assert found["f1"] == pytest.approx(np.mean(counts)) and found["f1"] > 0.8


def test_every_metric_has_its_name():
    assert all(name == function.__name__ for name, function in METRICS.items())
