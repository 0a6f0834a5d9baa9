"""Weights as pictures, and the activations of layers over a training; against arrays by hand and NumPy."""
import math
import random

import numpy as np
import pytest

from flatgrad import Tensor
from flatgrad.errors import ArgumentTypeError, DataError, UnknownNameError
from flatgrad.nn import MLP, Conv2d, LayerNorm, Linear, Module, Neuron, ReLU, Sequential, Tanh
from flatgrad.optim import SGD
from flatgrad.train import Trainer
from flatgrad.viz import ActivationStats, UpdateRatios, plot_weights
from flatgrad.viz.weights import tiles

matplotlib = pytest.importorskip("matplotlib")


def axes():
    from matplotlib.figure import Figure
    return Figure().subplots()


def picture(ax):
    return np.ma.filled(ax.images[0].get_array().astype(float), math.nan)


# ---- weights ----

def test_a_matrix_is_drawn_as_it_is():
    matrix = np.array([[1.0, -3.0, 0.5], [0.0, 2.0, -1.0]])
    for given in (matrix, matrix.tolist(), Tensor(matrix)):
        ax = axes()
        assert plot_weights(given, ax) is ax
        assert (picture(ax) == matrix).all() and ax.images[0].get_clim() == (-3.0, 3.0)
        assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("input", "output", "")
    red, green, blue, _ = ax.images[0].to_rgba(np.array([[3.0, -3.0, 0.0]]))[0].T
    assert blue[0] > red[0] and red[1] > blue[1] and red[2] == green[2] == blue[2] == 1.0


def test_a_module_gives_its_weights_by_name():
    random.seed(1)
    model = MLP(4, [3, 2])
    for name, layer in ((None, 0), ("layers.1.weight", 1)):
        ax = plot_weights(model, axes(), name=name)
        assert (picture(ax) == [[w.data for w in neuron.w] for neuron in model.layers[layer].neurons]).all()
        assert ax.get_title() == f"layers.{layer}.weight"
    with pytest.raises(UnknownNameError, match=r"^name: expected one of 'layers.0.weight', 'layers.1.weight', got 'layers.0"):
        plot_weights(model, axes(), name="layers.0.weigt")
    ax = axes()
    ax.set_title("mine")
    assert plot_weights(Linear(2, 2), ax).get_title() == "mine"


def test_neurons_have_pictures_in_the_shape_of_their_inputs():
    model = Linear(6, 5)
    weights = np.array(model.weight.data)
    found = picture(plot_weights(model, axes(), shape=(2, 3)))
    assert found.shape == (8, 7)   # three above each other, two side by side, with lines between
    assert np.isnan(found[2]).all() and np.isnan(found[:, 3]).all() and np.isnan(found[6:, 4:]).all()
    for k in range(5):
        row, column = k // 2 * 3, k % 2 * 4
        assert (found[row:row + 2, column:column + 3] == weights[k].reshape(2, 3)).all()
    assert picture(plot_weights(model, axes(), shape=(2, 3), most=1)).tolist() == weights[0].reshape(2, 3).tolist()


def test_channels_stand_side_by_side():
    model = Conv2d(2, 3, 2, size=(4, 4))
    found, weights = picture(plot_weights(model, axes(), shape=(2, 2))), np.array(model.weight.data).reshape(3, 2, 2, 2)
    assert found.shape == (8, 5)
    for output in range(3):
        for channel in range(2):
            assert (found[3 * output:3 * output + 2, 3 * channel:3 * channel + 2] == weights[output, channel]).all()


@pytest.mark.parametrize("count, shape, grid", [(1, (4, 4), (1, 1)), (16, (4, 4), (4, 4)), (10, (4, 4), (3, 4)),
                                                (9, (1, 9), (9, 1)), (2, (9, 1), (1, 2))])
def test_a_grid_is_about_a_square(count, shape, grid):
    found = tiles(np.ones((count, shape[0] * shape[1])), shape, 100)
    assert found.shape == tuple(n * (size + 1) - 1 for n, size in zip(grid, shape))


@pytest.mark.parametrize("weights, options, message", [
    (3, {}, "weights: expected a Module or a matrix, (n_outputs, n_inputs), got the shape (1,)"),
    ([1.0, 2.0], {}, "weights: expected a Module or a matrix, (n_outputs, n_inputs), got the shape (2,)"),
    (np.zeros((0, 3)), {}, "weights: expected numbers, got the shape (0, 3)"),
    ([[1.0, math.nan]], {}, "weights[0, 1]: expected a finite number, got nan"),
    ([[1.0]], dict(name="w"), "name: expected None with a matrix, got 'w'"),
    (Neuron(2), {}, "weights: expected a Module that has a matrix of weights, got one whose parameters are ['"),
    ([[1.0, 2.0]], dict(shape=3), "shape: expected None or two ints, such as (28, 28), got 3"),
    ([[1.0, 2.0]], dict(shape=(0, 2)), "shape[0]: expected an int, 1 or more, got 0"),
    ([[1.0, 2.0]], dict(shape=(3, 1)), "shape: expected height * width to divide 2, the number of inputs, got (3, 1)"),
    ([[1.0, 2.0]], dict(most=0), "most: expected an int, 1 or more, got 0"),
])
def test_pictures_of_weights_refuse(weights, options, message):
    ax = axes()
    with pytest.raises((TypeError, ValueError)) as info:
        plot_weights(weights, ax, **options)
    assert str(info.value).startswith(message) and not ax.images


# ---- activations ----

def test_activations_and_gradients_are_those_of_numpy():
    """A network of two layers by hand, with the gradients of its outputs, at each of three steps."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(10, 3)) * 3.0, rng.normal(size=(10, 1))
    model = Sequential(Linear(3, 4), Tanh(), LayerNorm(4), Linear(4, 4), ReLU(), Linear(4, 1))
    stats, optimizer = ActivationStats(model), SGD(model.parameters(), lr=0.1)
    assert list(stats.mean) == [f"layers.{k}" for k in range(6)]
    expected = []
    for _ in range(3):
        first, second, third = (([p.data.copy() for p in (layer.weight, layer.bias)]) for layer in (model[0], model[3], model[5]))
        optimizer.zero_grad()
        ((model(Tensor(X, requires_grad=False)) - y) ** 2).sum().backward()
        a = X @ first[0].T + first[1]
        b = np.tanh(a)
        c = (b - b.mean(axis=1, keepdims=True)) / np.sqrt(b.var(axis=1, keepdims=True) + 1e-5)
        c = c * expected_scale(model, 2)[0] + expected_scale(model, 2)[1]
        d = c @ second[0].T + second[1]
        e = np.maximum(d, 0.0)
        f = e @ third[0].T + third[1]
        df = 2.0 * (f - y)
        de = df @ third[0]
        expected.append([(a,), (b,), (c, (de * (d > 0)) @ second[0]), (d, de * (d > 0)), (e, de), (f, df)])
        stats.record()
        optimizer.step()
    for step, layers in enumerate(expected):
        for name, (data, *grad) in zip(stats.mean, layers):
            found = [getattr(stats, what)[name][step] for what in ("mean", "std", "saturated", "zero")]
            assert found == pytest.approx([data.mean(), data.std(), (abs(data) > 0.97).mean(), (data == 0).mean()], abs=1e-12)
            for each in grad:
                assert stats.grad_std[name][step] == pytest.approx(each.std(), rel=1e-9)
    assert 0 < stats.saturated["layers.1"][0] < 1 and 0 < stats.zero["layers.4"][0] < 1
    for what in ("std", "mean", "saturated", "zero", "grad_std"):
        ax = stats.plot(axes(), what)
        assert [line.get_label() for line in ax.lines] == list(stats.mean)
        assert ax.lines[1].get_xydata().tolist() == [[k + 1, x] for k, x in enumerate(getattr(stats, what)["layers.1"])]
        assert ax.get_yscale() == ("log" if what == "grad_std" else "linear")


def expected_scale(model, place):
    return [np.array([p.data for p in model[place].parameters()])[part] for part in (slice(0, 4), slice(4, 8))]


def test_single_samples_and_evaluation():
    model = MLP(2, [3, 1], activation="tanh")
    stats = ActivationStats(model)
    hidden = model.layers[0]([1.0, 2.0])
    model([1.0, 2.0]).backward()
    assert stats.record() is None
    assert stats.mean["layers.0"] == pytest.approx([np.mean([v.data for v in hidden])])
    weights = [w.data for w in model.layers[1].neurons[0].w]
    assert stats.grad_std["layers.0"] == pytest.approx([np.std(weights)]) and stats.grad_std["layers.1"] == [0.0]
    model.eval()
    model([1.0, 2.0])
    with pytest.raises(DataError, match=r"^record\(\): expected a forward pass in training mode since the last call, got none"):
        stats.record()
    model.train()
    stats.remove()
    model([1.0, 2.0])
    with pytest.raises(DataError, match="got none"):
        stats.record()
    assert type(model.layers[0]).__call__ is type(MLP(1, [1]).layers[0]).__call__ and len(stats.mean["layers.0"]) == 1


def test_a_trainer_records_each_step():
    X, y = np.random.default_rng(0).normal(size=(20, 2)), np.zeros(20)
    losses = []
    for watched in (False, True):
        random.seed(3)
        model = MLP(2, [4, 1])
        stats, ratios = (ActivationStats(model), UpdateRatios(model)) if watched else (None, None)
        trainer = Trainer(model, SGD(model.parameters(), lr=0.1), "mse")
        trainer.fit(X, y, 3, batch_size=5, seed=0, progress=False, validation=(X, y), callbacks=[stats, ratios] if watched else [])
        losses.append(trainer.history.loss)
    assert losses[0] == losses[1] and len(stats.std["layers.0"]) == len(ratios.ratios["layers.0.weight"]) == 12
    assert all(x > 0 for x in stats.grad_std["layers.0"]) and all(math.isfinite(x) for x in ratios.ratios["layers.1.weight"])


class Pair(Module):
    """A module that returns no numbers of the graph."""

    def __init__(self):
        self.inner = Linear(1, 1)

    def __call__(self, x):
        return {"out": self.inner(x)}


def test_what_is_not_a_number_is_nan():
    model = Sequential(Linear(1, 1))
    stats = ActivationStats(model)
    model[0].register_forward_hook(lambda module, args, output: {"out": output}, prepend=True)
    model(Tensor([[1.0]]))
    stats.record()
    assert math.isnan(stats.mean["layers.0"][0]) and math.isnan(stats.grad_std["layers.0"][0])
    assert not stats.plot(axes()).lines[0].get_ydata()[0] > 0
    alone = ActivationStats(Pair())
    assert list(alone.mean) == ["inner"]
    assert list(ActivationStats(Linear(1, 1)).mean) == ["Linear"]


def test_activations_refuse():
    for model in (3, MLP):
        with pytest.raises(ArgumentTypeError, match="^model: expected a Module, got "):
            ActivationStats(model)
    stats = ActivationStats(MLP(1, [1]))
    with pytest.raises(DataError, match=r"^plot\(\): expected one step at least, got none"):
        stats.plot(axes())
    with pytest.raises(UnknownNameError, match="^what: expected one of 'std', 'mean', .*, got 'sd'; did you mean 'std'"):
        stats.plot(axes(), "sd")
