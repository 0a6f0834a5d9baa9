"""Decision boundaries of estimators: their scores, classes and DataFrames; and where the legend is."""
import math
import types

import numpy as np
import pytest
from test_viz import CORNERS, figure, right, three

from flatgrad.datasets import make_spirals
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, UnknownNameError
from flatgrad.estimators import Classifier
from flatgrad.viz import boundary, decision_boundary_text, plot_decision_boundary

__all__ = ["figure"]   # the fixture


class Estimator:
    """Three classes by what `three` says, in words, with any of scikit-learn's methods for scores."""

    classes_ = np.array(["bee", "cow", "dog"])

    def __init__(self, **methods):
        vars(self).update(methods)

    def predict(self, points):
        return self.classes_[three(points).argmax(axis=1)]


def doubled(points):
    """Scores of as many pairs as classes, as one-against-one classifiers have them: not of the classes."""
    return -three(points)


@pytest.mark.parametrize("methods, graded", [
    ({}, False), ({"decision_function": three}, True), ({"predict_proba": three}, True),
    ({"decision_function": doubled}, False), ({"decision_function": doubled, "predict_proba": three}, True),
    ({"decision_function": lambda points: three(points)[:, :2]}, False),
    ({"decision_function": lambda points: three(points) * math.inf}, False),
], ids=["labels", "decision", "probabilities", "of pairs", "of pairs, probabilities", "two columns", "infinite"])
def test_an_estimator_s_scores_are_used_where_they_say_what_it_predicts(methods, graded):
    labels = ["cow", "bee", "dog", "cow"]
    plane = boundary.Plane(Estimator(**methods), CORNERS, labels, (0, 1), None, 0.0)
    verdict = plane.ask(np.random.default_rng(0).normal(size=(500, 2)))
    assert verdict.graded == graded and (len(np.unique(verdict.scores)) > 2) == graded
    assert verdict.names == ["bee", "cow", "dog"] and verdict.codes.tolist() == [1, 0, 2, 1]


def test_an_estimator_knows_more_classes_than_the_samples_have():
    text = decision_boundary_text(Estimator(decision_function=three), CORNERS, ["dog", "dog", "bee", "bee"])
    assert text.split("\n")[-1] == "samples: o bee  # cow  x dog   regions: . bee  : cow  - dog"
    # A class that it does not know is a sample's all the same.
    with pytest.raises(DataError, match="model: expected labels of y"):
        decision_boundary_text(Estimator(decision_function=three), CORNERS, ["dog", "dog", "bee", "emu"])


@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_our_classifiers_boundary_is_no_staircase(loss, n_classes):
    X, y = make_spirals(40, n_classes, random_state=0)
    model = Classifier((4,), loss=loss, epochs=3, random_state=0).fit(X, y)
    plane = boundary.Plane(model, X, y, (0, 1), None, 0.0)
    points = np.random.default_rng(0).normal(size=(500, 2))
    verdict = plane.ask(points)
    assert verdict.graded and len(np.unique(verdict.scores)) > 400
    assert (model.classes_[verdict.winners] == model.predict(points)).all()


class Frame:
    """As much of a pandas.DataFrame as is asked of it."""

    iloc = None

    def __init__(self, rows, columns):
        self.rows, self.columns = np.asarray(rows, float), list(columns)

    def __array__(self, dtype=None, copy=None):
        return self.rows.astype(dtype or float)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, name):
        return self.rows[:, self.columns.index(name)]


def test_the_columns_of_a_frame_name_the_axes(figure):
    frame = Frame(CORNERS, ["height", "width"])
    ax = plot_decision_boundary(right, frame, [0, 1, 0, 1], ax=figure.subplots())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("height", "width")
    assert decision_boundary_text(right, frame, [0, 1, 0, 1]).endswith("\nheight across, width up")
    ax = plot_decision_boundary(right, frame, [0, 1, 0, 1], ax=ax, feature_names=["a", "b"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("a", "b")
    numbered = Frame(CORNERS, [0, 1])
    ax = plot_decision_boundary(right, numbered, [0, 1, 0, 1], ax=ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x[0]", "x[1]")


def test_an_estimator_fitted_on_a_frame_is_asked_with_one():
    frame = Frame(CORNERS, ["height", "width"])
    model = types.SimpleNamespace(feature_names_in_=np.array(frame.columns), classes_=np.array([0, 1]),
                                  predict=lambda points: (points["width"] > 0.5).astype(int))
    lines = decision_boundary_text(model, frame, [0, 1, 0, 1]).split("\n")
    assert lines[2].strip(" |") == ":" * 60 and lines[-5].strip(" |") == "." * 60


@pytest.mark.parametrize("layout", [None, "tight", "constrained"])
def test_the_legend_is_beside_the_boundary_and_within_the_figure(figure, layout):
    figure.set_size_inches(10, 4)
    figure.set_layout_engine(layout)
    axes = figure.subplots(1, 2)
    for _ in range(3):   # drawing again makes no axes narrower
        for ax in axes:
            ax.clear()
            plot_decision_boundary(right, CORNERS, ["a long name", "b", "b", "b"], ax=ax)
        figure.canvas.draw()
        boxes = [part.get_window_extent() for ax in axes for part in (ax, ax.get_legend())]
        for box, following in zip(boxes, boxes[1:]):
            assert box.x1 < following.x0
        assert boxes[-1].x1 <= figure.bbox.x1 and boxes[0].width > 0.2 * figure.bbox.width
    ax = figure.add_axes([0.1, 0.1, 0.8, 0.8])
    for _ in range(3 if layout is None else 0):
        plot_decision_boundary(right, CORNERS, ["a long name", "b", "b", "b"], ax=ax)
        box = ax.get_window_extent()
        assert box.x1 < ax.get_legend().get_window_extent().x0
        assert ax.get_legend().get_window_extent().x1 <= figure.bbox.x1 and box.width > 0.4 * figure.bbox.width


def test_features_by_their_names(figure):
    frame = Frame(np.hstack([CORNERS, CORNERS]), ["a", "b", "c", "d"])
    ax = plot_decision_boundary(right, frame, [0, 1, 0, 1], ax=figure.subplots(), features=("d", "b"))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("d", "b")
    ax = plot_decision_boundary(right, frame.rows, [0, 1, 0, 1], ax=ax, features=("s", 0), feature_names=list("pqrs"))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("s", "p")
    with pytest.raises(UnknownNameError, match="^features: expected one of 'a', 'b', 'c', 'd', got 'e'"):
        plot_decision_boundary(right, frame, [0, 1, 0, 1], ax=ax, features=("e", "a"))
    with pytest.raises(ArgumentError, match="^features: expected two different numbers from 0 to 3, got"):
        plot_decision_boundary(right, frame, [0, 1, 0, 1], ax=ax, features="a")


def test_a_class_is_no_model():
    with pytest.raises(ArgumentTypeError, match="^model: expected .*, got the class Classifier and not one made by it"):
        decision_boundary_text(Classifier, CORNERS, [0, 1, 0, 1])
