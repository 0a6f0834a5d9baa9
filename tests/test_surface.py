"""The loss over a plane of the parameters: against losses written with NumPy, principal components by eigenvectors, and
filters by their own norms; and that the parameters are afterwards what they were."""
import math
import random
import struct

import numpy as np
import pytest

from flatgrad import Tensor, Value
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError
from flatgrad.losses import mse
from flatgrad.nn import MLP, Conv2d, Dropout, LayerNorm, Linear, Module, Neuron, Sequential
from flatgrad.nn.utils import parameters_to_vector
from flatgrad.viz import loss_surface

X = np.random.default_rng(0).normal(size=(20, 3))
Y = X @ [1.0, -2.0, 0.5] + 0.25


def bits(model):
    return [struct.pack("<d", p.data) for p in model.parameters()] + [module.training for module in model.modules()]


def linear():
    random.seed(1)
    model = Linear(3, 1)
    return model, lambda: mse(model(Tensor(X, requires_grad=False)).reshape(20), Y)


@pytest.mark.parametrize("given", [False, True])
def test_losses_are_those_of_numpy(given):
    model, loss = linear()
    directions = np.random.default_rng(1).normal(size=(2, 4)) if given else None
    before = bits(model)
    surface = loss_surface(model, loss, directions=directions, span=2.0, steps=4, rng=0)
    assert bits(model) == before and surface.path is surface.shares is None
    assert (surface.center == [p.data for p in model.parameters()]).all()
    assert surface.alphas.tolist() == surface.betas.tolist() == np.linspace(-2.0, 2.0, 4).tolist()
    if given:
        assert (surface.directions == directions).all()
    names = [name for name, _ in model.named_parameters()]
    weights, bias = [names.index(f"weight[0, {k}]") for k in range(3)], names.index("bias[0]")
    for i, alpha in enumerate(surface.alphas):
        for j, beta in enumerate(surface.betas):
            point = surface.center + alpha * surface.directions[0] + beta * surface.directions[1]
            expected = np.mean((X @ point[weights] + point[bias] - Y)**2)
            assert surface.losses[j, i] == pytest.approx(expected, rel=1e-12)


def filters(model):
    """The weights of each filter, as lists of places among the parameters, by hand."""
    at, found, zero = 0, [], []
    for module in model.modules():
        if isinstance(module, (Linear, Conv2d)):
            shape = np.shape(module.weight.data)
            size = math.prod(shape[1:])
            for _ in range(shape[0]):
                found.append(list(range(at, at + size)))
                at += size
            zero += range(at, at + shape[0])
            at += shape[0]
        elif isinstance(module, LayerNorm):
            rest = len(module.parameters())
            zero += range(at, at + rest)
            at += rest
    assert at == len(model.parameters())
    return found, zero


def test_a_direction_has_the_length_of_each_filter():
    model = Sequential(Conv2d(2, 3, 2, size=(4, 4)), LayerNorm(27), Linear(27, 2))
    found, zero = filters(model)
    assert len(found) == 5 and len(zero) == 3 + 54 + 2
    center = parameters_to_vector(model.parameters())
    surface = loss_surface(model, lambda: 0.0, steps=2, rng=7)
    plain = loss_surface(model, lambda: 0.0, steps=2, rng=7, normalize=False).directions
    assert (plain == np.random.default_rng(7).standard_normal((2, len(center)))).all()
    for direction, drawn in zip(surface.directions, plain):
        assert (direction[zero] == 0).all()
        for members in found:
            assert np.linalg.norm(direction[members]) == pytest.approx(np.linalg.norm(center[members]), rel=1e-12)
            ratio = direction[members] / drawn[members]
            assert ratio == pytest.approx(ratio[0], rel=1e-12)


def test_layers_of_neurons_and_a_neuron_have_filters():
    model = MLP(3, [2, 1])
    direction = loss_surface(model, lambda: 0.0, steps=2, rng=0).directions[0]
    named = dict(zip((name for name, _ in model.named_parameters()), direction))
    for layer in range(2):
        for neuron, weights in enumerate(model.layers[layer].neurons):
            ours = [named[f"layers.{layer}.weight[{neuron}, {k}]"] for k in range(len(weights.w))]
            assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm([w.data for w in weights.w]))
            assert named[f"layers.{layer}.bias[{neuron}]"] == 0
    neuron = Neuron(3)
    direction = loss_surface(neuron, lambda: 0.0, steps=2, rng=0).directions[0]
    assert np.linalg.norm(direction) == pytest.approx(np.linalg.norm([w.data for w in neuron.w]))
    assert np.count_nonzero(direction) == 3


def test_principal_components_of_a_path():
    model, loss = linear()
    rng = np.random.default_rng(3)
    center = parameters_to_vector(model.parameters())
    path = [center + rng.normal(size=4) * [3.0, 1.0, 0.1, 0.1] for _ in range(12)] + [center]
    surface = loss_surface(model, loss, path=path, steps=9)
    sizes, vectors = np.linalg.eigh(np.cov(np.array(path).T))
    for k in range(2):
        assert abs(vectors[:, -1 - k] @ surface.directions[k]) == pytest.approx(1.0, abs=1e-9)
    assert surface.shares == pytest.approx(sizes[::-1][:2] / sizes.sum())
    expected = (np.array(path) - center) @ surface.directions.T
    assert surface.path == pytest.approx(expected, abs=1e-12) and surface.path[-1] == pytest.approx([0, 0], abs=1e-12)
    assert surface.alphas[0] < surface.path[:, 0].min() and surface.alphas[-1] > surface.path[:, 0].max()
    assert surface.betas[0] < surface.path[:, 1].min() and surface.betas[-1] > surface.path[:, 1].max()


def test_given_directions_need_not_be_orthogonal():
    model, loss = linear()
    center, directions = parameters_to_vector(model.parameters()), [[1.0, 0, 0, 0], [1.0, 1.0, 0, 0]]
    path = [center + a * np.array(directions[0]) + b * np.array(directions[1]) for a, b in [(2, -1), (1, 3), (0, 0)]]
    surface = loss_surface(model, loss, path=path, directions=directions, steps=3)
    assert surface.path == pytest.approx(np.array([[2, -1], [1, 3], [0, 0]]), abs=1e-12)
    assert surface.shares is None


class Odd(Module):
    """A module whose parameters are hard to restore: a zero with a sign, the smallest number, and one of many digits."""

    def __init__(self):
        self.w = Tensor([[-0.0, 5e-324, 0.1 + 0.2, 1e300]])


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("last", [0, 3, 8])
def test_parameters_are_restored_whatever_happens(error, last):
    model = Sequential(Odd(), Dropout(0.5))
    model[1].eval()   # its own mode stays
    before, gradients = bits(model), [p.grad for p in model.parameters()]
    seen = []

    def loss():
        assert not model.training
        seen.append(bits(model)[:4])
        if len(seen) > last:
            raise error("on purpose")
        return Value(1.0)

    with pytest.raises(error, match="on purpose"):
        loss_surface(model, loss, steps=3, rng=0)
    assert bits(model) == before and len(seen) == last + 1 and [p.grad for p in model.parameters()] == gradients
    assert last == 0 or seen[-1] != seen[0]   # they did change in between


def test_dropout_is_off_and_nan_is_kept():
    model = Sequential(Linear(3, 4), Dropout(0.5), Linear(4, 1))
    losses = [loss_surface(model, lambda: mse(model(X).reshape(20), Y), steps=3, rng=0).losses for _ in range(2)]
    assert (losses[0] == losses[1]).all() and model.training
    numbers = iter([1.0, math.nan, math.inf, Value(2.0), Tensor([3.0]), np.float32(4.0), 5, -math.inf, np.array(6.0)])
    surface = loss_surface(model, lambda: next(numbers), steps=3, rng=0)
    assert repr(surface.losses.ravel().tolist()) == "[1.0, nan, inf, 2.0, 3.0, 4.0, 5.0, -inf, 6.0]"
    assert repr(surface) == "<loss surface of 3 x 3 points, from 1 to 6>"


@pytest.mark.parametrize("options, error, message", [
    (dict(model=3), ArgumentTypeError, "model: expected a Module, got 3"),
    (dict(model=MLP), ArgumentTypeError, "model: expected a Module, got <class"),
    (dict(model=Dropout(0.5)), ArgumentError, "model: expected one that has parameters, got none"),
    (dict(loss=Value(1.0)), ArgumentTypeError, "loss: expected a function without arguments"),
    (dict(loss=lambda: "low"), ArgumentTypeError, "loss: what it returns: expected a Value or a number, got 'low'"),
    (dict(loss=lambda: Tensor([1.0, 2.0])), ArgumentTypeError, "loss: what it returns: expected a Value or a number"),
    (dict(span=0), ArgumentError, "span: expected a finite number above 0, got 0"),
    (dict(steps=1), ArgumentError, "steps: expected an int, 2 or more, got 1"),
    (dict(normalize=1), ArgumentTypeError, "normalize: expected True or False, got 1"),
    (dict(rng="a"), ArgumentTypeError, "rng: expected None, an int or a generator"),
    (dict(directions=3), ArgumentTypeError, "directions: expected None or two arrays, got 3"),
    (dict(directions=([1.0], [2.0])), ShapeError, "directions[0]: expected 4 numbers, one for each parameter, got 1"),
    (dict(directions=([1.0, 0, 0, 0], [-2.0, 0, 0, 0])), ArgumentError, "directions: expected two that are not 0 and"),
    (dict(directions=([0.0] * 4, [-2.0, 0, 0, 0])), ArgumentError, "directions: expected two that are not 0 and"),
    (dict(path=3), ArgumentTypeError, "path: expected arrays of parameters, got 3"),
    (dict(path=[[1.0] * 4] * 2), ShapeError, "path: expected three points at least, got 2"),
    (dict(path=[[1.0] * 4, [2.0] * 4, [math.nan] * 4]), DataError, "path[2][0]: expected a finite number, got nan"),
    (dict(path=[[1.0] * 4, [2.0] * 4, [4.0] * 4]), DataError, "path: expected points that span a plane"),
])
def test_what_is_refused(options, error, message):
    model, loss = linear()
    before = bits(model)
    with pytest.raises(error) as info:
        loss_surface(**{"model": model, "loss": loss, **options})
    assert str(info.value).startswith(message) and bits(model) == before


def test_weights_of_zero_have_no_direction():
    model, loss = linear()
    for p in model.parameters():
        p.data = 0.0
    with pytest.raises(DataError, match="^model: expected weights that are not all 0"):
        loss_surface(model, loss)
    assert loss_surface(model, loss, normalize=False, steps=2).losses.shape == (2, 2)


@pytest.mark.parametrize("losses", ["all", "wide", "flat", "partly", "none"])
@pytest.mark.parametrize("projection", [None, "3d"])
def test_a_surface_is_drawn(losses, projection):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    model, loss = linear()
    center = parameters_to_vector(model.parameters())
    path = [center + k * np.eye(4)[k % 2] for k in range(3, -1, -1)]
    surface = loss_surface(model, loss, path=path, steps=6)
    if losses != "all":
        surface.losses = {"wide": 10.0**np.arange(36.0).reshape(6, 6), "flat": np.ones((6, 6)),
                          "partly": np.where(np.eye(6), math.nan, 2.0) * np.arange(6), "none": np.full((6, 6), math.inf)
                          }[losses]
    ax = Figure().add_subplot(projection=projection)
    if losses == "none":
        with pytest.raises(DataError, match="^losses: expected a finite loss at least, got none"):
            surface.plot(ax)
        assert repr(surface) == "<loss surface of 6 x 6 points, nowhere finite>"
        return
    assert surface.plot(ax) is ax
    assert ax.get_xlabel() == f"direction 1: {surface.shares[0]:.0%} of the variance"
    if projection:
        assert ax.get_title() == ("log10 of the loss" if losses == "wide" else "loss")
    else:
        assert (ax.lines[0].get_xydata() == surface.path).all() and ax.lines[-1].get_xydata().tolist() == [[0, 0]]
    ax.figure.canvas.draw()
