"""Colours that show how probable a class is: the probabilities against the logistic function and softmax."""
import math

import numpy as np
import pytest

from flatgrad.errors import ArgumentError, DataError
from flatgrad.viz import plot_decision_boundary
from flatgrad.viz.boundary import FAINTEST_TO_STRONGEST, GRID, Plane, probabilities_of

matplotlib = pytest.importorskip("matplotlib")

X, Y = np.array([[0.0, 0.0], [0.0, 2.0], [2.0, 1.0], [2.0, 0.0]]), [0, 1, 1, 0]


def axes():
    from matplotlib.figure import Figure
    return Figure().subplots()


def up(points):
    return 3.0 * points[:, 1] - 3.0


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def three(points):
    return np.stack([points[:, 0], points[:, 1], 2.0 - points.sum(axis=1)], axis=1)


class Estimator:
    """An estimator with the methods of some names; `predict` is by the second feature."""

    classes_ = np.array([0, 1])

    def __init__(self, *names):
        for name in names:
            setattr(self, name, {"decision_function": up, "predict_proba": self.proba}[name])

    def predict(self, points):
        return (points[:, 1] > 1.0).astype(int)

    @staticmethod
    def proba(points):
        return np.stack([1.0 - sigmoid(up(points)), sigmoid(up(points))], axis=1)


def test_probabilities():
    points = np.random.default_rng(0).normal(size=(50, 2))
    found = probabilities_of(up(points), "logits")
    assert np.allclose(found[:, 1], sigmoid(up(points)), rtol=1e-12) and np.allclose(found.sum(axis=1), 1.0)
    powers = [[math.exp(x) for x in row] for row in three(points).tolist()]
    assert np.allclose(probabilities_of(three(points), "logits"), [[x / sum(row) for x in row] for row in powers], rtol=1e-12)
    assert (probabilities_of(np.array([1e4, -1e4]), "logits") == [[0, 1], [1, 0]]).all()
    assert (probabilities_of(found, "probabilities") == found).all()
    assert np.allclose(probabilities_of(found[:, 1], "probabilities"), found)


@pytest.mark.parametrize("model, confidence", [
    (up, "logits"), (lambda points: sigmoid(up(points)), "probabilities"), (Estimator.proba, "probabilities"),
    (lambda points: up(points)[:, None], "logits"),
    (Estimator("decision_function", "predict_proba"), "logits"), (Estimator("predict_proba"), "probabilities"),
    (Estimator("decision_function", "predict_proba"), "probabilities")])
def test_the_picture_is_as_strong_as_the_class_is_probable(model, confidence):
    ax = plot_decision_boundary(model, X, Y, axes(), confidence=confidence)
    ys = np.linspace(*ax.get_ylim(), GRID)
    expected = np.abs(2.0 * sigmoid(3.0 * ys - 3.0) - 1.0)
    pixels = ax.images[0].get_array()
    low, high = FAINTEST_TO_STRONGEST
    assert np.allclose(pixels[:, 7, 3], low + (high - low) * expected, atol=1e-12)
    assert (pixels[ys > 1.0][:, :, 2] > pixels[ys > 1.0][:, :, 0]).all()   # blue above, vermilion below
    assert (pixels[ys < 1.0][:, :, 2] < pixels[ys < 1.0][:, :, 0]).all()
    shown = {text.get_text() for text in ax.texts}
    assert shown == {"75%", "90%", "99%"} - ({"99%"} if sigmoid(3.0 * ys[-1] - 3.0) < 0.99 else set())
    for text in ax.texts:
        y = text.get_position()[1]
        assert abs(2.0 * sigmoid(3.0 * y - 3.0) - 1.0) == pytest.approx(2 * float(text.get_text()[:-1]) / 100 - 1, abs=0.03)
    ax.figure.canvas.draw()


def test_three_classes():
    ax = plot_decision_boundary(three, X, [0, 1, 2, 0], axes(), confidence="logits")
    points = np.stack(np.meshgrid(np.linspace(*ax.get_xlim(), GRID), np.linspace(*ax.get_ylim(), GRID)), -1).reshape(-1, 2)
    powers = np.exp(three(points))
    most = (powers / powers.sum(axis=1, keepdims=True)).max(axis=1)
    low, high = FAINTEST_TO_STRONGEST
    assert np.allclose(ax.images[0].get_array()[..., 3].ravel(), low + (high - low) * (most - 1 / 3) * 1.5)


@pytest.mark.parametrize("model, options, error, message", [
    (up, dict(confidence="sigmoid"), ValueError, "confidence: expected one of 'logits', 'probabilities', got 'sigmoid'"),
    (up, dict(confidence="probabilities"), DataError,
     "model: expected probabilities, from 0 to 1 and with the sum 1, got -"),
    (three, dict(confidence="probabilities", y=[0, 1, 2, 0]), DataError, "model: expected probabilities, from 0 to 1"),
    (Estimator(), dict(confidence="logits"), ArgumentError,
     "confidence: expected None with an estimator that has no method decision_function that agrees with its labels"),
    (Estimator("decision_function"), dict(confidence="probabilities"), ArgumentError,
     "confidence: expected None with an estimator that has no method predict_proba"),
])
def test_what_is_refused(model, options, error, message):
    ax = axes()
    with pytest.raises(error) as info:
        plot_decision_boundary(**{"model": model, "X": X, "y": Y, "ax": ax, **options})
    assert str(info.value).startswith(message) and not ax.images and not ax.collections


def test_certainty_without_a_scale():
    plane = Plane(up, X, Y, (0, 1), None, 0.0)
    points = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, -9.0]])
    lead = np.abs(up(points)) / 30.0
    assert plane.ask(points).certainty() == pytest.approx(lead / (lead + np.median(lead)))
    assert Plane(Estimator(), X, Y, (0, 1), None, 0.0).ask(points).certainty().tolist() == [0.5] * 4
