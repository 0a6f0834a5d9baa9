"""Drawings of decision boundaries, compared character by character, and pixels with matplotlib."""
import builtins
import math
import sys

import numpy as np
import pytest

import flatgrad
from flatgrad.nn import MLP
from flatgrad.viz import decision_boundary_text, plot_decision_boundary

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
    assert of_values == of_floats
    assert ":" in of_values.split("\n")[1]


SHAPE = "X: expected shape (n_samples, 2), n_samples at least 1, got "
REFUSALS = [
    (dict(X=[[1.0, 2.0, 3.0]], y=[1]), ValueError, SHAPE + "(1, 3)"),
    (dict(X=np.empty((0, 2)), y=[]), ValueError, SHAPE + "(0, 2)"),
    (dict(X=[[1.0, math.nan]], y=[1]), ValueError, "X: expected finite numbers, got nan"),
    (dict(X=[["a", "b"]], y=[1]), ValueError, "X: expected an array of numbers: "),
    (dict(X=[[-1.5e308, 0], [1.5e308, 0]], y=[0, 1]), ValueError,
     "X: column 0 spans too wide a range to draw"),
    (dict(y=[1]), ValueError, "y: expected shape (4,), a label for each row of X, got (1,)"),
    (dict(y=[1, 0, math.inf, 1]), ValueError, "y: expected finite numbers, got inf"),
    (dict(predict=lambda points: points), ValueError, "predict: expected scores of shape ("),
    (dict(predict=lambda points: 1.0), ValueError, "predict: expected scores of shape ("),
    (dict(predict=lambda points: points[:, 0] * math.nan), ValueError,
     "predict: expected finite numbers, got nan"),
    (dict(predict=lambda points: None), ValueError, "predict: expected finite numbers, got nan"),
    (dict(predict=lambda points: [object()] * len(points)), TypeError,
     "predict: expected an array of numbers: "),
]
SIZE_REFUSALS = [
    (dict(width=0), ValueError, "width: expected 1 or more, got 0"),
    (dict(height=-1), ValueError, "height: expected 1 or more, got -1"),
    (dict(width=2.5), TypeError, "width: expected an int, got 2.5"),
]


@pytest.mark.parametrize("arguments, error, message", REFUSALS + SIZE_REFUSALS,
                         ids=lambda value: value if isinstance(value, str) else "")
def test_text_refuses(arguments, error, message):
    arguments = dict(predict=right, X=CORNERS, y=[0, 1, 0, 1]) | arguments
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


def pixel(figure, ax, x, y):
    """The colour, (red, green, blue) from 0 to 255, drawn at a point in data coordinates."""
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())
    column, row = ax.transData.transform((x, y)).astype(int)
    return image[image.shape[0] - 1 - row, column, :3].astype(int)


def test_plot_draws_on_the_axes_it_is_given(figure):
    ax = figure.subplots()
    assert plot_decision_boundary(right, CORNERS, [0, 1, 0, 1], ax=ax) is ax
    assert ax.get_xlim() == pytest.approx((-0.15, 1.15))
    assert ax.get_ylim() == pytest.approx((-0.15, 1.15))
    negative, positive = pixel(figure, ax, 0.4, 0.3), pixel(figure, ax, 0.6, 0.3)
    assert negative[0] > negative[2] + 20  # reddish, as in micrograd's picture
    assert positive[2] > positive[0] + 20  # bluish
    assert (pixel(figure, ax, 0.1, 0.7) == negative).all()
    assert (pixel(figure, ax, 0.9, 0.7) == positive).all()
    # A sample has the colour of its label's region, stronger.
    for label, region in (0, negative), (1, positive):
        sample = pixel(figure, ax, label, 1)
        assert sample[1] < region[1] - 50 and (sample[0] > sample[2]) == (region[0] > region[2])


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
    arguments = dict(predict=right, X=CORNERS, y=[0, 1, 0, 1]) | arguments
    with pytest.raises(error) as info:
        plot_decision_boundary(**arguments, ax=ax)
    assert str(info.value).startswith(message)
    assert not ax.has_data()


def test_plot_without_matplotlib_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'flatgrad\[viz\]'"):
        plot_decision_boundary(right, CORNERS, [0, 1, 0, 1])


def test_text_does_without_matplotlib(monkeypatch):
    plain_import = builtins.__import__

    def without(name, *args, **kwargs):
        assert not name.startswith("matplotlib")
        return plain_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    decision_boundary_text(right, CORNERS, [0, 1, 0, 1])
    with pytest.raises(AssertionError):  # the guard works
        plot_decision_boundary(right, CORNERS, [0, 1, 0, 1])
    assert flatgrad.__version__
