"""Layers and perceptrons against PyTorch: values, and gradients by parameters and inputs."""
import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor
from flatgrad.nn import MLP, Layer, Sequential

torch = pytest.importorskip("torch")
F = torch.nn.functional

ACTIVATIONS = {
    "linear": lambda x: x, "relu": torch.relu, "leaky_relu": F.leaky_relu, "elu": F.elu, "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu,
    "softplus": lambda x: F.softplus(x, threshold=40), "tanh": torch.tanh,   # beyond, it is the identity in any case
    "sigmoid": torch.sigmoid, "softmax": lambda x: torch.softmax(x, -1),
}
SCALES = {"ordinary": 1.0, "tiny": 1e-150, "large": 30.0, "huge": 1e4}


def near(ours, theirs):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10 * np.abs(theirs).max() + 1e-300)


def twin(sizes, activations):
    """PyTorch's layers of the same sizes, in float64, with the same weights each time: where a sigmoid is nearly 1, its
    slope is known to few digits alone."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(a, b, dtype=torch.float64) for a, b in zip(sizes, sizes[1:])]

    def forward(x):
        for layer, activation in zip(layers, activations, strict=True):
            x = ACTIVATIONS[activation](layer(x))
        return x
    return layers, forward


def compare(model, sizes, activations, scale):
    layers, forward = twin(sizes, activations)
    rng = np.random.default_rng(len(activations))
    X, weights = scale * rng.normal(size=(6, sizes[0])), rng.normal(size=(6, sizes[-1]))
    # PyTorch's own numbers, by its own names: the orientation is the same.
    keys = [f"layers.{k}.{name}" for k in range(len(layers)) for name in ("weight", "bias")]
    arrays = [p.detach().numpy() for layer in layers for p in (layer.weight, layer.bias)]
    model.load_state_dict(dict(zip(keys, arrays, strict=True)))
    x, y = Tensor(X), torch.tensor(X, requires_grad=True)
    out, expected = model(x), forward(y)
    (out * weights).sum().backward()
    (expected * torch.tensor(weights)).sum().backward()
    near(out.data, expected)
    near(x.grad, y.grad)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for key, p in zip(keys, [p for layer in layers for p in (layer.weight, layer.bias)], strict=True):
        near([g for name, g in gradients.items() if name.startswith(key + "[")], p.grad.reshape(-1))
    sample = model(X[0].tolist())
    near([v.data for v in (sample if isinstance(sample, list) else [sample])], expected[0])


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "scalar graph"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_perceptron(activation, fused, scale):
    if activation != "softmax" or fused:
        model = MLP(3, [5, 4, 2], activation=activation, fused=fused)
        compare(model, [3, 5, 4, 2], [activation, activation, "linear"], SCALES[scale])


def test_another_activation_in_each_layer():
    sizes, names = [4] * (len(ACTIVATIONS) + 1), list(ACTIVATIONS)
    compare(Sequential([Layer(4, 4, name) for name in names]), sizes, names, 1.0)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name not in ("linear", "softmax")])
def test_functions_and_methods(name):
    X = np.random.default_rng(0).normal(size=(4, 5)) * 3
    for apply in getattr(flatgrad, name), lambda t: getattr(t, name)():
        t, y = Tensor(X), torch.tensor(X, requires_grad=True)
        out, expected = apply(t), ACTIVATIONS[name](y)
        out.sum().backward()
        expected.sum().backward()
        near(out.data, expected)
        near(t.grad, y.grad)


def test_the_comparison_can_fail():
    with pytest.raises(AssertionError):
        compare(MLP(3, [5, 2], activation="elu"), [3, 5, 2], ["silu", "linear"], 1.0)
    with pytest.raises(AssertionError):
        compare(MLP(3, [5, 2], activation=lambda z: z.elu(1.001)), [3, 5, 2], ["elu", "linear"], 1.0)
