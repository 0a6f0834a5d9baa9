"""Drawings of decision boundaries, compared character by character, and pixels and artists with matplotlib."""
import math
import sys
import types

import numpy as np
import pytest

from flatgrad import Tensor
from flatgrad.datasets import make_moons, make_spirals
from flatgrad.errors import (ArgumentError, ArgumentTypeError, DataError, MissingPackageError, ShapeError,
                             UnknownNameError)
from flatgrad.nn import MLP
from flatgrad.viz import decision_boundary_text, plot_decision_boundary, plot_history, plot_regression

CORNERS = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]


def right(points):
    return points[:, 0] - 0.5


def upper(points):
    return points[:, 1] - 0.5


# ---- as text ----

DRAWINGS = {
    "left and right": (right, CORNERS, [-1, 1, -1, 1], 10, 4, """\
 1.15 +----------+
      |.o...:::#:|
      |.....:::::|
      |.....:::::|
      |.o...:::#:|
-0.15 +----------+
       -0.15 1.15"""),
    "up is up": (upper, CORNERS, [0, 0, 1, 1], 10, 4, """\
 1.15 +----------+
      |:#::::::#:|
      |::::::::::|
      |..........|
      |.o......o.|
-0.15 +----------+
       -0.15 1.15"""),
    "a label on the wrong side": (right, CORNERS, [1, 1, -1, 1], 10, 4, """\
 1.15 +----------+
      |.o...:::#:|
      |.....:::::|
      |.....:::::|
      |.#...:::#:|
-0.15 +----------+
       -0.15 1.15"""),
    "the wrong one is on top, whatever the order": (
        right, [[0, 0], [0, 0], [0, 0], [1, 0], [1, 0], [1, 1]], [-1, 1, -1, -1, 1, 1], 10, 4, """\
 1.15 +----------+
      |.....:::#:|
      |.....:::::|
      |.....:::::|
      |.#...:::o:|
-0.15 +----------+
       -0.15 1.15"""),
    "one sample; a score of 0 is not positive": (lambda points: 0 * points[:, 0], [[5, -3]], [1], 5, 3, """\
-2 +-----+
   |.....|
   |..#..|
   |.....|
-4 +-----+
    4   6"""),
    "a single cell": (lambda points: 0 * points[:, 0] + 1, CORNERS[:2], [-1, 1], 1, 1, """\
 1 +-+
   |o|
-1 +-+
    -0.15 1.15"""),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_text(name):
    predict, X, y, width, height, expected = DRAWINGS[name]
    text = decision_boundary_text(predict, X, y, width, height)
    legend = "samples: o negative  # positive   score: . negative  : positive"
    assert text.split("\n") == [*expected.split("\n"), legend]
    assert text.isascii()


def test_the_default_size():
    lines = decision_boundary_text(right, CORNERS, [0, 1, 0, 1]).split("\n")
    assert len(lines) == 20 + 4
    assert {len(line) for line in lines[1:21]} == {6 + 1 + 60 + 1}


def test_the_drawing_depends_on_the_predictor():
    y = [-1, 1, -1, 1]
    drawings = {decision_boundary_text(predict, CORNERS, y)
                for predict in (right, upper, lambda points: -right(points))}
    assert len(drawings) == 3


def test_a_network_is_a_predictor():
    model = MLP(2, [4, 1])
    for neuron in (n for layer in model.layers for n in layer.neurons):
        for w in neuron.w:
            w.data = 1.0
    of_values = decision_boundary_text(lambda points: [model(p) for p in points], CORNERS, [0, 0, 1, 1])
    of_floats = decision_boundary_text(lambda points: [model(p).data for p in points], CORNERS, [0, 0, 1, 1])
    assert of_values == of_floats == decision_boundary_text(model, CORNERS, [0, 0, 1, 1])
    assert ":" in of_values.split("\n")[1]


# ---- as text: what a model may say ----

def test_one_boundary_said_in_many_ways():
    y = np.array([0, 1, 0, 1])
    drawing = decision_boundary_text(right, CORNERS, y)
    for model in (lambda points: right(points)[:, None], lambda points: right(points).tolist(),
                  lambda points: Tensor(right(points)[:, None], requires_grad=False)):
        assert decision_boundary_text(model, CORNERS, y) == drawing
        assert decision_boundary_text(model, Tensor(np.array(CORNERS), requires_grad=False), y[:, None]) == drawing
    for labels in [-1, 1, -1, 1], [False, True, False, True], [-1.0, 1.0, -1.0, 1.0], [-2, 0.5, -2, 0.5]:
        assert decision_boundary_text(right, CORNERS, labels) == drawing
    probability = decision_boundary_text(lambda points: 1 / (1 + np.exp(-right(points))), CORNERS, y, threshold=0.5)
    in_columns = decision_boundary_text(lambda points: np.column_stack([0 * points[:, 0], right(points)]), CORNERS, y)
    in_labels = decision_boundary_text(labelled(lambda points: right(points) > 0), CORNERS, y)
    in_text = labelled(lambda points: np.where(right(points) > 0, "1", "0"))
    named = decision_boundary_text(in_text, CORNERS, y.astype(str))
    scored = decision_boundary_text(right, CORNERS, y.astype(str))
    legend = "samples: o 0  # 1   regions: . 0  : 1"
    expected = "\n".join([*drawing.split("\n")[:-1], legend])
    assert probability == in_columns == in_labels == named == scored == expected != drawing


def test_two_labels_of_any_kind():
    expected = decision_boundary_text(right, CORNERS, [0, 1, 0, 1]).split("\n")[:-1]
    for low, high, legend in ((1, 2, "o 1  # 2   regions: . 1  : 2"),
                              ("no", "yes", "o no  # yes   regions: . no  : yes")):
        text = decision_boundary_text(right, CORNERS, [low, high, low, high])
        assert text.split("\n") == [*expected, f"samples: {legend}"]


THREE = """\
 2.3 +----------+
     |:::::#::::|
     |.::::::::-|
     |.o..::--x-|
-0.3 +----------+
      -0.3   2.3"""


@pytest.mark.parametrize("labels, names", [
    ([0, 1, 2], "012"), ([1, 2, 3], "123"), ([-1.5, 0, 4], ["-1.5", "0", "4"]), (list("abc"), "abc"),
], ids=str)
def test_three_classes(labels, names):
    legend = "samples: o {0}  # {1}  x {2}   regions: . {0}  : {1}  - {2}".format(*names)
    assert decision_boundary_text(three, RGB, labels, 10, 3).split("\n") == [*THREE.split("\n"), legend]
    model = labelled(lambda points: np.array(labels)[three(points).argmax(axis=1)])
    assert decision_boundary_text(model, RGB, labels, 10, 3).split("\n") == [*THREE.split("\n"), legend]


def test_columns_are_of_classes_without_samples_too():
    text = decision_boundary_text(three, RGB[:2], [0, 2], 20, 10)
    assert "-" in "".join(text.split("\n")[1:11]) and text.endswith("samples: o 0  # 1  x 2   regions: . 0  : 1  - 2")


def test_a_sample_on_the_wrong_side_is_on_top():
    X, y = [*RGB, RGB[0]], [0, 1, 2, 2]
    for order in [0, 1, 2, 3], [3, 2, 1, 0]:
        lines = decision_boundary_text(three, np.array(X)[order], np.array(y)[order], 10, 3).split("\n")
        assert lines[3] == "     |.x..::--x-|"


def test_of_equal_scores_the_first_class_wins():
    text = decision_boundary_text(lambda points: np.ones((len(points), 3)), RGB, [0, 1, 2], 10, 3)
    assert set("".join(line[6:16] for line in text.split("\n")[1:4])) == set(".o#x")


def test_other_features_are_at_their_mean():
    X = np.array([[0.0, 5.0, 0.0, -1.0], [1.0, 6.0, 1.0, -1.0], [2.0, 10.0, 0.0, -4.0]])
    seen = []

    def model(points):
        seen.append(points)
        return points[:, 2] - 0.5

    text = decision_boundary_text(model, X, [0, 1, 0], 8, 4, features=(2, 0))
    points, = seen
    assert points.shape == (8 * 4 + 3, 4)
    assert np.allclose(points[:, 1], 7) and np.allclose(points[:, 3], -2)
    assert np.array_equal(points[-3:, [2, 0]], X[:, [2, 0]])
    assert text.split("\n") == """\
 2.3 +--------+
     |o...::::|
     |....::::|
     |....:::#|
     |o...::::|
-0.3 +--------+
      -0.15 1.15
samples: o negative  # positive   score: . negative  : positive
x[2] across, x[0] up; the other features at their mean""".split("\n")


def test_features_in_another_order_and_with_names():
    text = decision_boundary_text(right, CORNERS, [0, 1, 0, 1], features=(1, 0))
    assert text.endswith("\nx[1] across, x[0] up")
    assert text.split("\n")[1:21] != decision_boundary_text(upper, CORNERS, [0, 1, 0, 1]).split("\n")[1:21]
    swapped = np.array(CORNERS)[:, ::-1]
    assert text.split("\n")[:-1] == decision_boundary_text(upper, swapped, [0, 1, 0, 1]).split("\n")
    text = decision_boundary_text(right, CORNERS, [0, 1, 0, 1], feature_names=["width", "height"])
    assert text.endswith("\nwidth across, height up")


class Dropping:
    """What a Module with dropout is like: it must not be asked in training mode."""

    def __init__(self, training, parts=()):
        self.training, self.parts = training, parts

    def modules(self):
        return [self, *self.parts]

    def __call__(self, points):
        assert not any(module.training for module in self.modules())
        if len(points) == 3:
            raise ZeroDivisionError
        return right(points)


def test_a_module_is_asked_in_evaluation_mode_and_left_as_it_was():
    model = Dropping(True, [Dropping(False), Dropping(True)])
    decision_boundary_text(model, CORNERS, [0, 1, 0, 1])
    assert [module.training for module in model.modules()] == [True, False, True]
    with pytest.raises(ZeroDivisionError):
        decision_boundary_text(model, CORNERS[:2], [0, 1], 1, 1)
    assert [module.training for module in model.modules()] == [True, False, True]


def test_estimators_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y = make_moons(60, noise=0.1, random_state=0)
    model = linear_model.LogisticRegression().fit(X, y)
    lines = decision_boundary_text(model, X, y).split("\n")
    assert lines[:-1] == decision_boundary_text(model.decision_function, X, y).split("\n")[:-1]
    assert lines == decision_boundary_text(model.predict_proba, X, y).split("\n")
    X, y = make_spirals(60, 3, random_state=0)
    names = np.array(["a", "b", "c"])[y]
    model = linear_model.LogisticRegression().fit(X, names)
    assert decision_boundary_text(model, X, names) == decision_boundary_text(model.predict_proba, X, names)


RGB = [[0.0, 0.0], [1.0, 2.0], [2.0, 0.0]]   # a sample for each of three classes


def three(points):
    """Scores of three classes: left, up, right."""
    return np.column_stack([-points[:, 0], points[:, 1] - 1, points[:, 0] - 2])


def labelled(says):
    """An estimator: no function, but with the method predict."""
    return types.SimpleNamespace(predict=says)


REFUSALS = [
    (dict(X=[[1.0]], y=[1]), ShapeError, "X: expected 2 features at least, got the shape (1, 1)"),
    (dict(X=[1.0, 2.0], y=[1, 0]), ShapeError, "X: expected 2 dimensions, got the shape (2,)"),
    (dict(X=np.empty((0, 2)), y=[]), DataError,
     "X: expected one sample and one feature at least, got the shape (0, 2)"),
    (dict(X=[[1.0, math.nan]], y=[1]), DataError, "X[0, 1]: expected a finite number, got nan"),
    (dict(X=[["a", "b"]], y=[1]), ArgumentTypeError, "X: expected an array of real numbers, got array([['a', 'b']]"),
    (dict(X=[[-1.5e308, 0], [1.5e308, 0]], y=[0, 1]), DataError, "X: column 0 spans too wide a range to draw"),
    (dict(y=[1]), ShapeError, "y: expected the shape (4,), one for each row of X, got (1,)"),
    (dict(y=[1, 0, math.inf, 1]), DataError, "y[2]: expected a finite number, got inf"),
    (dict(X=[[0.0, 1.0], [2.0]]), ShapeError, "X: expected rows of one length, got [[0.0, 1.0], [2.0]]"),
    (dict(y=[1, 0, 1, [1]]), ShapeError, "y: expected rows of one length, got [1, 0, 1, [1]]"),
    (dict(model=lambda points: [[1.0]] + [[1.0, 2.0]] * (len(points) - 1)), ShapeError,
     "model: expected rows of one length, got [[1.0], "),
    (dict(y=[1, 0, object(), 1]), ArgumentTypeError, "y: expected an array of real numbers, got array([1, 0, <object"),
    (dict(y=[1, 0, 2, 7]), DataError, "y: expected two labels with a model that has one score, got 4: 0, 1, 2, 7"),
    (dict(y=list("aaaa")), DataError, "y: expected two labels with a model that has one score, got 1: a"),
    (dict(model=3), ArgumentTypeError,
     "model: expected a function of points or an estimator, with the method predict, got 3"),
    (dict(model=lambda points: points[None]), ShapeError, "model: expected the shape ("),
    (dict(model=lambda points: points[1:, 0]), ShapeError, "model: expected the shape ("),
    (dict(model=lambda points: points[:, :0]), ShapeError, "model: expected the shape ("),
    (dict(model=lambda points: 1.0), ShapeError, "model: expected the shape ("),
    (dict(model=lambda points: None), ShapeError, "model: expected the shape ("),
    (dict(model=lambda points: points[:, 0] * math.nan), DataError,
     "model: expected finite numbers, got nan for the point ["),
    (dict(model=lambda points: [object()] * len(points)), ArgumentTypeError,
     "model: expected numbers for the points, got <object"),
    (dict(model=lambda points: ["a"] * len(points)), ArgumentTypeError,
     "model: expected scores, which are numbers, got 'a'"),
    (dict(model=lambda points: np.ones((len(points), 3)), y=[3, 5, 3, 5]), ShapeError,
     "model: expected a score for each of the 2 labels of y, 3, 5, got 3"),
    (dict(model=lambda points: np.ones((len(points), 3)), y=[0, 1, 2, 3]), ShapeError,
     "model: expected a score for each of the 4 labels of y, 0, 1, 2, 3, got 3"),
    (dict(model=labelled(lambda points: 2 * np.ones(len(points)))), DataError,
     "model: expected labels of y, 0, 1, got 2; if these are scores, give the function that computes them"),
    (dict(model=labelled(lambda points: ["b"] * len(points))), DataError, "model: expected labels of y, 0, 1, got b; "),
    (dict(model=labelled(right), y=[1, 1, 1, 1]), DataError,
     "y: expected two labels at least with a model that says labels, got 1"),
    (dict(features=(0, 2)), ArgumentError, "features: expected two different numbers from 0 to 1, got (0, 2)"),
    (dict(features=(1, 1)), ArgumentError, "features: expected two different numbers from 0 to 1, got (1, 1)"),
    (dict(features=(0,)), ArgumentError, "features: expected two different numbers from 0 to 1, got (0,)"),
    (dict(features=(0, -1)), ArgumentTypeError, "features: expected two different numbers from 0 to 1, got (0, -1)"),
    (dict(features=1), ArgumentTypeError, "features: expected two different numbers from 0 to 1, got 1"),
    (dict(feature_names=["a"]), ShapeError, "feature_names: expected 2, as X has features, got 1"),
    (dict(feature_names="ab"), ArgumentTypeError, "feature_names: expected a name for each feature, got 'ab'"),
    (dict(threshold=math.nan), ArgumentError, "threshold: expected a finite number, got nan"),
    (dict(model=three, threshold=0.5, y=[0, 1, 2, 2]), ArgumentError, "threshold: expected 0 with a model that has a "
     "score for each class or says the labels, got 0.5"),
]
TEXT_REFUSALS = [
    (dict(width=0), ArgumentError, "width: expected an int, 1 or more, got 0"),
    (dict(height=-1), ArgumentError, "height: expected an int, 1 or more, got -1"),
    (dict(width=2.5), ArgumentTypeError, "width: expected an int, 1 or more, got 2.5"),
    (dict(model=lambda points: np.ones((len(points), 11))), ArgumentError,
     "y: expected 10 classes at most in a picture made of text, got 11"),
]


@pytest.mark.parametrize("arguments, error, message", REFUSALS + TEXT_REFUSALS,
                         ids=lambda value: value if isinstance(value, str) else "")
def test_text_refuses(arguments, error, message):
    arguments = dict(model=right, X=CORNERS, y=[0, 1, 0, 1]) | arguments
    with pytest.raises(error) as info:
        decision_boundary_text(**arguments)
    assert str(info.value).startswith(message)


@pytest.mark.parametrize("scale, offset", [(1e-12, 0), (1e12, 0), (1, 1e15), (0, 1e300), (1e-3, -1e9)])
def test_any_range_can_be_drawn(scale, offset):
    X = np.array(CORNERS) * scale + offset
    lines = decision_boundary_text(lambda points: points[:, 0] - X[:, 0].mean(), X, [0, 1, 0, 1]).split("\n")
    if scale:
        assert [sum(line.count(c) for line in lines[1:21]) for c in "o#"] == [2, 2]


# ---- with matplotlib ----

@pytest.fixture
def figure():
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(3, 3), dpi=100)
    FigureCanvasAgg(figure)
    return figure


def pixels(figure, ax, points):
    """The colours, (red, green, blue) from 0 to 255, drawn at points in data coordinates, under the legend."""
    if ax.get_legend():
        ax.get_legend().set_visible(False)
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())
    columns, rows = ax.transData.transform(points).astype(int).T
    return image[image.shape[0] - 1 - rows, columns, :3].astype(int)


def pixel(figure, ax, x, y):
    return pixels(figure, ax, [(x, y)])[0]


def test_plot_draws_on_the_axes_it_is_given(figure):
    ax = figure.subplots()
    assert plot_decision_boundary(right, CORNERS, [0, 1, 0, 1], ax=ax) is ax
    assert ax.get_xlim() == pytest.approx((-0.15, 1.15))
    assert ax.get_ylim() == pytest.approx((-0.15, 1.15))
    negative, positive = pixel(figure, ax, 0.4, 0.3), pixel(figure, ax, 0.6, 0.3)
    assert negative[0] > negative[2] + 20  # reddish, as in micrograd's picture
    assert positive[2] > positive[0] + 20  # bluish
    assert (pixel(figure, ax, 0.4, 0.7) == negative).all()
    assert (pixel(figure, ax, 0.6, 0.7) == positive).all()
    # The surer, the stronger.
    surely_negative, surely_positive = pixel(figure, ax, 0.05, 0.7), pixel(figure, ax, 0.95, 0.7)
    assert surely_negative[2] < negative[2] - 20 and surely_positive[0] < positive[0] - 20
    # A sample has the colour of its label's region, stronger.
    for label, region in (0, surely_negative), (1, surely_positive):
        sample = pixel(figure, ax, label, 1)
        assert sample[1] < region[1] - 20 and (sample[0] > sample[2]) == (region[0] > region[2])


def test_plot_up_is_up(figure):
    X = np.array(CORNERS) * [1, 5]  # the axes differ, to tell them apart
    ax = plot_decision_boundary(lambda points: points[:, 1] - 1, X, [1, 0, 1, 0], ax=figure.subplots())
    for y, positive in (0.5, False), (1.5, True), (4, True):
        red, _, blue = pixel(figure, ax, 0.5, y)
        assert (blue > red) == positive


def test_plot_draws_samples_by_label_and_regions_by_score(figure):
    good, swapped = figure.subplots(1, 2)
    plot_decision_boundary(right, CORNERS, [0, 1, 0, 1], ax=good)
    plot_decision_boundary(right, CORNERS, [1, 0, 1, 0], ax=swapped)
    assert (pixel(figure, good, 0.2, 0.5) == pixel(figure, swapped, 0.2, 0.5)).all()
    assert (pixel(figure, good, 0, 0) == pixel(figure, swapped, 1, 0)).all()
    assert (pixel(figure, good, 0, 0) != pixel(figure, swapped, 0, 0)).any()


@pytest.mark.parametrize("scores", [
    lambda points: np.ones(len(points)),
    lambda points: -np.ones(len(points)),
    lambda points: np.zeros(len(points)),
    lambda points: 1e300 * right(points),
    lambda points: 1e-300 * right(points),
], ids=["all positive", "all negative", "all zero", "huge", "tiny"])
def test_plot_of_any_scores(figure, scores):
    ax = plot_decision_boundary(scores, CORNERS, [0, 1, 0, 1], ax=figure.subplots())
    red, _, blue = pixel(figure, ax, 0.8, 0.5)
    assert (blue > red) == (scores(np.array([[0.8, 0.5]]))[0] > 0)


def test_plot_without_axes_takes_the_current_ones(monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot
    monkeypatch.setattr(pyplot, "show", lambda *args, **kwargs: pytest.fail("plt.show was called"))
    try:
        _, current = pyplot.subplots()
        assert plot_decision_boundary(right, CORNERS, [0, 1, 0, 1]) is current
        pyplot.close("all")
        assert plot_decision_boundary(right, CORNERS, [0, 1, 0, 1]) is pyplot.gca()
    finally:
        pyplot.close("all")


@pytest.mark.parametrize("arguments, error, message", REFUSALS,
                         ids=lambda value: value if isinstance(value, str) else "")
def test_plot_refuses_and_draws_nothing(figure, arguments, error, message):
    ax = figure.subplots()
    arguments = dict(model=right, X=CORNERS, y=[0, 1, 0, 1]) | arguments
    with pytest.raises(error) as info:
        plot_decision_boundary(**arguments, ax=ax)
    assert str(info.value).startswith(message)
    assert not ax.has_data()


@pytest.mark.parametrize("model, labels", [
    (three, [0, 1, 2]), (three, list("abc")), (labelled(lambda points: three(points).argmax(axis=1)), [0, 1, 2]),
    (lambda points: 1e300 * three(points), [0, 1, 2]), (lambda points: 1e-300 * three(points), [0, 1, 2]),
], ids=["scores", "text", "labels", "huge", "tiny"])
def test_plot_of_three_classes(figure, model, labels):
    ax = plot_decision_boundary(model, RGB, labels, ax=figure.subplots())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [str(label) for label in labels]
    grid = np.array([(x, y) for x in np.linspace(-0.2, 2.2, 9) for y in np.linspace(-0.25, 2.25, 9)])
    scores = np.sort(three(grid), axis=1)
    clear = scores[:, 2] - scores[:, 1] > 0.1   # of the boundary, and of the samples
    grid = grid[clear & (np.linalg.norm(grid[:, None] - RGB, axis=2).min(axis=1) > 0.3)]
    winners = three(grid).argmax(axis=1)
    colours = pixels(figure, ax, grid)
    by_class = [{tuple(colour) for colour in colours[winners == k].tolist()} for k in range(3)]
    assert sum(map(len, by_class)) == len(set.union(*by_class))   # no colour in two regions
    one_shade = not callable(model)
    assert all(len(found) == 1 if one_shade else 1 < len(found) <= 5 for found in by_class)


def test_plot_of_equal_scores_has_a_region(figure):
    ax = plot_decision_boundary(lambda points: np.zeros((len(points), 3)), RGB, [0, 1, 2], ax=figure.subplots())
    colours = set(map(tuple, pixels(figure, ax, [(0.5, 0.5), (1.5, 1.5), (0.2, 2)]).tolist()))
    assert len(colours) == 1 and colours != {(255, 255, 255)}


def test_plot_of_many_classes(figure):
    X, y = make_spirals(60, 12, random_state=0)
    ax = plot_decision_boundary(lambda points: points @ np.random.default_rng(0).normal(size=(2, 12)), X, y,
                                ax=figure.subplots())
    samples = [artist for artist in ax.collections if artist.get_label() in map(str, range(12))]
    assert len({tuple(artist.get_facecolor()[0]) for artist in samples}) == len(samples) == 12
    for k, artist in enumerate(samples):
        assert np.array_equal(artist.get_offsets(), X[y == k])


def test_plot_names_the_axes_and_the_classes(figure):
    left, middle, ax = figure.subplots(1, 3)
    plot_decision_boundary(right, CORNERS, [-1, 1, -1, 1], ax=left)
    assert (left.get_xlabel(), left.get_ylabel(), left.get_title()) == ("x[0]", "x[1]", "")
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["-1", "1"]
    X = np.array([[0.0, 5.0, 0.0], [1.0, 6.0, 1.0]])
    plot_decision_boundary(right, X, ["no", "yes"], ax=middle, features=(2, 0), feature_names=["a", "b", "c"])
    assert (middle.get_xlabel(), middle.get_ylabel()) == ("c", "a")
    assert middle.get_title() == "other features at their mean"
    assert [text.get_text() for text in middle.get_legend().get_texts()] == ["no", "yes"]
    assert middle.get_xlim() == pytest.approx((-0.15, 1.15))
    ax.set_title("mine")
    plot_decision_boundary(right, X, [0, 1], ax=ax)
    assert ax.get_title() == "mine" and len(figure.axes) == 3


def test_the_colours_are_told_apart_without_green():
    """Samples of two classes differ in brightness or in blue, for those who do not tell red from green."""
    from flatgrad.viz.common import COLOURS
    rgb = np.array([[int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)] for colour in COLOURS])
    linear = rgb ** 2.2
    # Vienot, Brettel and Mollon (1999): what a deuteranope sees of linear RGB.
    cones = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    lms = linear @ cones.T
    lms[:, 1] = 0.494207 * lms[:, 0] + 1.24827 * lms[:, 2]
    seen = lms @ np.linalg.inv(cones).T
    seen = np.clip(seen, 0, 1) ** (1 / 2.2)
    distances = [np.linalg.norm(seen[i] - seen[j]) for i in range(len(seen)) for j in range(i)]
    assert np.linalg.norm(seen[0] - seen[1]) > 0.5
    assert min(distances) > 0.08


# ---- histories ----

HISTORY = {"loss": [3.0, 1.0, 0.5, 0.4], "val_loss": [3.5, 1.5, 0.9, 0.8], "accuracy": [0.5, 0.7, 0.8, 0.9],
           "val_accuracy": [0.4, 0.6, 0.7, None], "learning_rate": [0.1] * 4, "time": [0.2] * 4}


def lines_of(ax):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in ax.get_lines()}


def test_plot_history(figure):
    left = figure.subplots()
    assert plot_history(types.SimpleNamespace(epochs=[3, 4, 5, 6], metrics=HISTORY), ax=left) is left
    right_axes, = [ax for ax in figure.axes if ax is not left]
    assert lines_of(left) == {"loss": ([3, 4, 5, 6], HISTORY["loss"]), "val loss": ([3, 4, 5, 6], HISTORY["val_loss"])}
    drawn = lines_of(right_axes)
    assert list(drawn) == ["accuracy", "val accuracy"] and drawn["accuracy"] == ([3, 4, 5, 6], HISTORY["accuracy"])
    assert math.isnan(drawn["val accuracy"][1][3]) and drawn["val accuracy"][1][:3] == [0.4, 0.6, 0.7]
    assert (left.get_xlabel(), left.get_ylabel(), right_axes.get_ylabel()) == ("epoch", "loss", "accuracy")
    assert [text.get_text() for text in right_axes.get_legend().get_texts()] == [
        "loss", "val loss", "accuracy", "val accuracy"]
    loss, val_loss = left.get_lines()
    assert loss.get_color() == val_loss.get_color() != right_axes.get_lines()[0].get_color()
    assert (loss.get_linestyle(), val_loss.get_linestyle()) == ("-", "--")
    assert left.get_yscale() == "linear"
    figure.canvas.draw()
    assert all(tick == int(tick) for tick in left.get_xticks())


@pytest.mark.parametrize("history, metrics, expected", [
    ([3, 2.0, np.float64(1)], None, {"loss": ([1, 2, 3], [3, 2, 1])}),
    (np.array([3.0, 2.0]), None, {"loss": ([1, 2], [3, 2])}),
    (HISTORY, ["loss"], {"loss": ([1, 2, 3, 4], HISTORY["loss"])}),
    (HISTORY, "accuracy", {"accuracy": ([1, 2, 3, 4], HISTORY["accuracy"])}),
    (HISTORY, ("learning_rate",), {"learning rate": ([1, 2, 3, 4], [0.1] * 4)}),
    ({"loss": [1, 2], "mse": [3, 4]}, None, {"loss": ([1, 2], [1, 2]), "mse": ([1, 2], [3, 4])}),
], ids=["losses", "array", "one", "by name", "rate", "errors"])
def test_plot_history_on_one_axis(figure, history, metrics, expected):
    ax = plot_history(history, figure.subplots(), metrics=metrics)
    assert lines_of(ax) == expected and figure.axes == [ax]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(expected)


@pytest.mark.parametrize("losses, scale", [
    ([100.0, 1.0], "linear"), ([101.0, 1.0], "log"), ([101.0, 0.0], "linear"), ([101.0, -1.0], "linear"),
    ([1e100, math.inf, math.nan, 1e-100], "log"), ([math.nan], "linear"), ([1.0], "linear"),
], ids=str)
def test_the_scale_is_logarithmic_over_more_than_two_decades(figure, losses, scale):
    ax = plot_history(losses, figure.subplots())
    assert ax.get_yscale() == scale
    figure.canvas.draw()


@pytest.mark.parametrize("history, metrics, error, message", [
    ([], None, DataError, "history: expected one epoch at least, got none"),
    ({}, None, DataError, "history: expected one epoch at least, got none"),
    ({"time": [1.0]}, None, DataError, "history: expected losses or metrics to draw, got time"),
    ({"loss": [1.0]}, (), DataError, "history: expected losses or metrics to draw, got loss"),
    ({"loss": [1.0, 2.0], "accuracy": [1.0]}, None, ShapeError,
     "history: expected a number for each of 2 epochs, got loss 2, accuracy 1"),
    (types.SimpleNamespace(epochs=[1], metrics={"loss": [1.0, 2.0]}), None, ShapeError,
     "history: expected a number for each of 1 epochs, got loss 2"),
    (3.0, None, ArgumentTypeError, "history: expected a list of numbers under 'loss', got 3.0"),
    ({"loss": ["a"]}, None, ArgumentTypeError, "history: expected a list of numbers under 'loss', got ['a']"),
    (HISTORY, ["los"], UnknownNameError, "metrics: expected one of 'loss', 'val_loss', 'accuracy', 'val_accuracy', "
     "'learning_rate', 'time', got 'los'; did you mean 'loss'?"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_plot_history_refuses_and_draws_nothing(figure, history, metrics, error, message):
    ax = figure.subplots()
    with pytest.raises(error) as info:
        plot_history(history, ax, metrics=metrics)
    assert str(info.value) == message
    assert figure.axes == [ax] and not ax.has_data()


# ---- regressions ----

@pytest.mark.parametrize("column", [lambda x: x, lambda x: x[:, None], lambda x: x.tolist()],
                         ids=["1-D", "2-D", "list"])
def test_plot_regression_of_one_feature(figure, column):
    x = np.array([0.0, 2.0, -1.0])
    ax = figure.subplots()
    assert plot_regression(lambda points: points**2, column(x), [0.1, 3.9, 1], ax) is ax
    samples, = ax.collections
    assert samples.get_offsets().tolist() == [[0, 0.1], [2, 3.9], [-1, 1]]
    curve, = ax.get_lines()
    assert np.allclose(curve.get_ydata(), curve.get_xdata()**2)
    assert (curve.get_xdata()[0], curve.get_xdata()[-1]) == pytest.approx((-1.15, 2.15)) == ax.get_xlim()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x[0]", "y")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["samples", "model"]


def test_plot_regression_of_two_features(figure):
    X = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 0.0]])
    ax = plot_regression(lambda points: points.sum(axis=1), X, [1, 5.5, 4], figure.subplots())
    samples, = ax.collections
    assert samples.get_offsets().tolist() == [[1, 1], [5.5, 5], [4, 4]]
    diagonal, = ax.get_lines()
    assert np.array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert ax.get_xlim() == ax.get_ylim() == pytest.approx((0.775, 5.725)) and ax.get_aspect() == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("target", "prediction")


@pytest.mark.parametrize("model", [
    MLP(1, [4, 1]), labelled(lambda points: points[:, 0].tolist()), lambda points: Tensor(points, requires_grad=False),
], ids=["network", "estimator", "tensor"])
def test_plot_regression_of_models(figure, model):
    ax = plot_regression(model, [0.0, 1.0], [0.0, 1.0], figure.subplots())
    assert len(ax.get_lines()[0].get_ydata()) == 400


@pytest.mark.parametrize("arguments, error, message", [
    (dict(model=None), ArgumentTypeError,
     "model: expected a function of points or an estimator, with the method predict, got None"),
    (dict(X=[0.0, math.nan]), DataError, "X[1, 0]: expected a finite number, got nan"),
    (dict(X=[]), DataError, "X: expected one sample and one feature at least, got the shape (0, 1)"),
    (dict(y=[1.0]), ShapeError, "y: expected the shape (2,), one for each row of X, got (1,)"),
    (dict(y=[1.0, math.inf]), DataError, "y[1]: expected a finite number, got inf"),
    (dict(y=["a", "b"]), ArgumentTypeError, "y: expected an array of real numbers, got array(['a', 'b']"),
    (dict(model=lambda points: np.ones((len(points), 2))), ShapeError,
     "model: expected one number for each of 400 points, got the shape (400, 2) of float64"),
    (dict(model=lambda points: points * math.nan), DataError,
     "model: expected finite numbers, got nan for the point ["),
    (dict(feature_names=["a", "b"]), ShapeError, "feature_names: expected 1, as X has features, got 2"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_plot_regression_refuses_and_draws_nothing(figure, arguments, error, message):
    ax = figure.subplots()
    with pytest.raises(error) as info:
        plot_regression(**(dict(model=lambda points: points, X=[0.0, 1.0], y=[0.0, 1.0], ax=ax) | arguments))
    assert str(info.value).startswith(message)
    assert not ax.has_data()


# ---- all of them ----

PLOTS = [(plot_decision_boundary, (right, CORNERS, [0, 1, 0, 1])), (plot_history, ([3.0, 2.0],)),
         (plot_regression, (lambda points: points, [0.0, 1.0], [0.0, 1.0]))]


@pytest.mark.parametrize("plot, arguments", PLOTS, ids=[plot.__name__ for plot, _ in PLOTS])
def test_plots_follow_matplotlibs_conventions(monkeypatch, plot, arguments):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot
    monkeypatch.setattr(pyplot, "show", lambda *args, **kwargs: pytest.fail("plt.show was called"))
    try:
        _, (first, current) = pyplot.subplots(1, 2)
        assert plot(*arguments) is current
        assert plot(*arguments, ax=first) is first and first.has_data()
        assert len(pyplot.get_fignums()) == 1
        pyplot.close("all")
        with pytest.raises(ArgumentTypeError, match="ax: expected matplotlib.axes.Axes or None, got 'here'"):
            plot(*arguments, ax="here")
        with pytest.raises((ArgumentError, ArgumentTypeError)):
            plot(*[None] * len(arguments))
        assert pyplot.get_fignums() == []   # what fails makes no figure
    finally:
        pyplot.close("all")


@pytest.mark.parametrize("plot, arguments", PLOTS, ids=[plot.__name__ for plot, _ in PLOTS])
def test_plot_without_matplotlib_says_how_to_get_it(monkeypatch, plot, arguments):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError) as info:
        plot(*arguments)
    assert str(info.value) == f"{plot.__name__} needs matplotlib; to install it: pip install 'flatgrad[viz]'"
    decision_boundary_text(right, CORNERS, [0, 1, 0, 1])   # does without


def test_a_history_is_drawn_over_its_own_epochs():
    """It is a mapping as well, and one that does not begin with epoch 1."""
    from flatgrad.train import History
    from flatgrad.viz.curves import series_of

    history = History()
    for epoch in 5, 6, 8:
        history.append(epoch, {"loss": 1.0 / epoch})
    assert series_of(history)[0] == [5, 6, 8] and series_of(dict(history))[0] == [1, 2, 3]
