"""`requires_grad` against PyTorch: the same model, partly frozen, trained side by side; and what backward() refuses."""
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import flatgrad as fg  # noqa: E402
from flatgrad import Tensor, Value, losses, optim  # noqa: E402
from flatgrad.nn import MLP  # noqa: E402

OPTIMIZERS = {
    "SGD": (lambda p: optim.SGD(p, lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
                 lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01)),
    "Adam": (lambda p: optim.Adam(p, lr=0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    "RMSprop": (lambda p: optim.RMSprop(p, lr=0.01), lambda p: torch.optim.RMSprop(p, lr=0.01)),
}


def pair():
    random.seed(2)
    ours = MLP(3, [5, 4, 1], activation="tanh")
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4), torch.nn.Tanh(),
                                 torch.nn.Linear(4, 1)).double()
    numbers = ours.state_dict()
    theirs.load_state_dict({f"{2 * k}.{kind}": torch.tensor(numbers[f"layers.{k}.{kind}"])
                            for k in range(3) for kind in ("weight", "bias")})
    return ours, theirs


@pytest.mark.parametrize("make, their_make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("frozen", [[0], [1], [2], [0, 1], [0, 2]])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_frozen_layer(make, their_make, frozen, when):
    ours, theirs = pair()
    layers = [theirs[0], theirs[2], theirs[4]]
    rng = np.random.default_rng(4)
    X, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 1))

    def freeze():
        for k in frozen:
            ours.layers[k].requires_grad_(False)
            layers[k].requires_grad_(False)

    if when == "before":
        freeze()
    optimizer, their_optimizer = make(ours.parameters()), their_make(theirs.parameters())
    if when == "after":
        freeze()
    for _ in range(10):
        optimizer.zero_grad()
        their_optimizer.zero_grad()
        losses.mse(ours(X), y).backward()
        torch.nn.functional.mse_loss(theirs(torch.tensor(X)), torch.tensor(y)).backward()
        optimizer.step()
        their_optimizer.step()
    for k, layer in enumerate(layers):
        for kind in "weight", "bias":
            assert np.allclose(ours.state_dict()[f"layers.{k}.{kind}"], getattr(layer, kind).detach().numpy(), rtol=1e-9)


def test_flags_and_errors_are_theirs():
    v, t = Value(3.0), torch.tensor(3.0, requires_grad=True)
    for x in v, t:
        assert x.requires_grad
        y = x * 2.0
        with pytest.raises((ValueError, RuntimeError), match="leaf"):
            y.requires_grad = False
        x.requires_grad = False   # after the graph has been built
        y.backward()
        assert not x.requires_grad and not x.grad
        for result in x, x * x, x.exp():
            with pytest.raises(RuntimeError):
                result.backward()
        x.requires_grad = True
        (x * x).backward()
        assert float(x.grad) == 6.0


def test_backward_from_a_constant():
    ours, theirs = Tensor([1.0, 2.0], requires_grad=False), torch.tensor([1.0, 2.0])
    for x in ours, theirs:
        for result in x.sum(), x.mean(), (x * x).sum(), x.softmax(-1)[0], x[:1]:
            with pytest.raises(RuntimeError):
                result.backward()
    with fg.no_grad(), torch.no_grad():
        ours, theirs = Tensor([1.0, 2.0]) * 2.0, torch.tensor([1.0, 2.0], requires_grad=True) * 2.0
    for x in ours, theirs:
        with pytest.raises(RuntimeError):
            x.sum().backward()
