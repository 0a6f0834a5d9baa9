"""Confusion matrices, histograms, and updates beside data; against NumPy and numbers by hand."""
import math
import random

import numpy as np
import pytest

from flatgrad import Tensor
from flatgrad.nn import MLP
from flatgrad.optim import SGD
from flatgrad.viz import UpdateRatios, plot_confusion, plot_histograms
from flatgrad.viz.diagnosis import confusion

matplotlib = pytest.importorskip("matplotlib")


def axes():
    from matplotlib.figure import Figure
    return Figure().subplots()


def test_counts_are_those_of_pairs():
    rng = np.random.default_rng(0)
    y, said = rng.integers(0, 4, 200), rng.integers(1, 5, 200)
    classes, counts = confusion(y, said)
    assert classes == [0, 1, 2, 3, 4]
    assert counts.tolist() == [[sum((y == a) & (said == b)) for b in classes] for a in classes]
    assert confusion(["b", "a"], ["a", "a"])[1].tolist() == [[1, 0], [1, 0]]
    assert confusion(Tensor([0.0, 1.0]), [0, 1])[1].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("normalize, shown", [(False, ["1", "1", "0", "2"]), (True, ["0.50", "0.50", "0.00", "1.00"])])
def test_cells_of_a_confusion_matrix(normalize, shown):
    ax = axes()
    assert plot_confusion(["cat", "cat", "dog", "dog"], ["cat", "dog", "dog", "dog"], ax, normalize=normalize) is ax
    assert [text.get_text() for text in ax.texts] == shown
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog"]
    assert ax.images[0].get_array().tolist() == [[0.5, 0.5], [0.0, 1.0]]   # rows are labels
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("prediction", "label")


@pytest.mark.parametrize("y, said, message", [
    ([[0]], [0], "y: expected 1 dimension, got the shape (1, 1)"),
    ([0, 1], [0], "predictions: expected 2, one for each label in y, got 1"),
    ([], [], "y: expected one sample at least, got none"),
    ([0], ["a"], "predictions: expected labels like those in y, got numbers and text"),
    ([math.nan], [0], "y: expected finite numbers, got nan or inf"),
    ([None], [0], "y: expected labels, numbers or text, got [None]"),
])
def test_confusion_refuses(y, said, message):
    with pytest.raises((TypeError, ValueError)) as info:
        plot_confusion(y, said, axes())
    assert str(info.value) == message


def test_histograms_are_densities():
    ax = plot_histograms({"first": np.linspace(0, 1, 101), "second": Tensor([[0.0, 1.0], [1.0, 1.0]])}, axes(), bins=4)
    first, second = ax.lines
    assert first.get_xdata().tolist() == [0.125, 0.375, 0.625, 0.875]
    assert math.isclose(sum(first.get_ydata()) * 0.25, 1.0) and second.get_ydata().tolist() == [1.0, 0.0, 0.0, 3.0]
    assert second.get_label() == "second: mean 0.75, std 0.43"


def test_histograms_of_a_model():
    random.seed(1)
    model = MLP(2, [4, 1])
    model([1.0, 2.0]).backward()
    ax = plot_histograms(model, axes())
    names = ["layers.0.weight", "layers.1.weight"]
    assert [line.get_label().split(":")[0] for line in ax.lines] == names and ax.get_xlabel() == "value"
    ax = plot_histograms(model, axes(), grad=True)
    grads = [p.grad for name, p in model.named_parameters() if name.startswith("layers.1.weight")]
    assert f"mean {np.mean(grads):.2g}" in ax.lines[1].get_label() and ax.get_xlabel() == "gradient"


@pytest.mark.parametrize("series, options, message", [
    (3, {}, "series: expected a Module or a dict of names and numbers, got 3"),
    ({}, {}, "series: expected numbers under each name, got none"), ({"a": []}, {}, "series: expected numbers under"),
    ({"a": [math.inf]}, {}, "series['a'][0]: expected a finite number, got inf"),
    ({"a": [1.0]}, dict(bins=0), "bins: expected an int, 1 or more, got 0"),
    ({"a": [1.0]}, dict(grad=1), "grad: expected True or False, got 1"),
])
def test_histograms_refuse(series, options, message):
    with pytest.raises((TypeError, ValueError)) as info:
        plot_histograms(series, axes(), **options)
    assert str(info.value).startswith(message)


def test_ratios_are_those_of_makemore():
    """log10 of (lr * grad).std() / data.std(), with SGD, and the data before the step."""
    random.seed(2)
    model = MLP(3, [5, 1])
    watch, optimizer = UpdateRatios(model), SGD(model.parameters(), lr=0.01)
    expected = []
    for _ in range(4):
        loss = (model([1.0, -2.0, 0.5]) - 3.0)**2
        optimizer.zero_grad()
        loss.backward()
        weights = [p for name, p in model.named_parameters() if name.startswith("layers.0.weight")]
        data, grad = np.array([p.data for p in weights]), np.array([p.grad for p in weights])
        expected.append(np.log10(0.01 * grad.std() / data.std()))
        optimizer.step()
        watch.record()
    assert list(watch.ratios) == ["layers.0.weight", "layers.1.weight"]
    assert np.allclose(watch.ratios["layers.0.weight"], expected, rtol=0, atol=1e-9)
    watch.record()   # no update
    assert watch.ratios["layers.0.weight"][-1] == -math.inf
    ax = watch.plot(axes())
    assert [line.get_label() for line in ax.lines[:2]] == list(watch.ratios)
    assert np.allclose(ax.lines[0].get_ydata()[:4], expected) and math.isnan(ax.lines[0].get_ydata()[-1])


def test_ratios_refuse():
    with pytest.raises(TypeError, match="^model: expected a Module, got 3"):
        UpdateRatios(3)
    with pytest.raises(ValueError, match="expected one step at least, got none"):
        UpdateRatios(MLP(1, [2])).plot(axes())
    with pytest.raises(TypeError, match="^ax: expected matplotlib.axes.Axes or None"):
        plot_confusion([0], [0], ax=3)
