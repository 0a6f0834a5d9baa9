"""Trainer.fit against PyTorch's plain loop in float64: the losses of 50 epochs."""
import random

import numpy as np
import pytest

from flatgrad import losses, optim
from flatgrad.datasets import make_moons
from flatgrad.nn import MLP
from flatgrad.optim import lr_scheduler
from flatgrad.train import Trainer

torch = pytest.importorskip("torch")
torch.set_num_threads(1)   # these tensors are too small for more

X, LABELS = make_moons(60, noise=0.1, random_state=3)
EPOCHS = 50


def twins(n_outputs):
    """The same network twice."""
    random.seed(2)
    ours = MLP(2, [8, 8, n_outputs])
    theirs = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU(),
                                 torch.nn.Linear(8, n_outputs)).double()
    names = dict(zip(("0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"), ours.state_dict().values()))
    theirs.load_state_dict({name: torch.tensor(array) for name, array in names.items()})
    return ours, theirs


def hinge(scores, target):
    return torch.relu(1 - scores * target).mean()


LOSSES = {
    "hinge": (1, 2.0 * LABELS - 1.0, hinge),
    "mse": (1, 0.5 * X[:, 0] - X[:, 1], torch.nn.functional.mse_loss),
    "bce_with_logits": (1, LABELS, torch.nn.functional.binary_cross_entropy_with_logits),
    "cross_entropy": (2, LABELS, torch.nn.functional.cross_entropy),
}


@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize("optimizer, options", [("SGD", {"lr": 0.02, "momentum": 0.9}), ("Adam", {"lr": 0.01})])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_losses_are_those_of_the_plain_loop(loss, optimizer, options, batch_size):
    n_outputs, y, their_loss = LOSSES[loss]
    ours, theirs = twins(n_outputs)
    our_optimizer = getattr(optim, optimizer)(ours.parameters(), **options)
    their_optimizer = getattr(torch.optim, optimizer)(theirs.parameters(), **options)
    their_scheduler = torch.optim.lr_scheduler.StepLR(their_optimizer, 20, 0.5)
    trainer = Trainer(ours, our_optimizer, loss, scheduler=lr_scheduler.StepLR(our_optimizer, 20, 0.5),
                      penalty=lambda parameters: 1e-3 * losses.l2(parameters))
    history = trainer.fit(X, y, EPOCHS, batch_size=batch_size, seed=9, validation=(X[:20], y[:20]), progress=False)

    inputs, target = torch.tensor(X), torch.tensor(y if n_outputs > 1 else np.asarray(y, np.float64)[:, None])

    def objective(rows):
        penalty = sum((p**2).sum() for p in theirs.parameters())
        return their_loss(theirs(inputs[rows]), target[rows]) + 1e-3 * penalty

    expected, measured = [], []
    for epoch in range(1, EPOCHS + 1):
        order = np.random.default_rng([9, epoch]).permutation(60) if batch_size else np.arange(60)
        size, mean = batch_size or 60, 0.0
        for k in range(0, 60, size):
            rows = torch.tensor(order[k:k + size])
            result = objective(rows)
            their_optimizer.zero_grad()
            result.backward()
            their_optimizer.step()
            mean += result.item() * len(rows) / 60
        their_scheduler.step()
        expected.append(mean)
        with torch.no_grad():
            measured.append(objective(torch.arange(20)).item())
    np.testing.assert_allclose(history.loss, expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(history.val_loss, measured, rtol=0, atol=1e-9)
    np.testing.assert_allclose(trainer.predict(X).reshape(60, -1), theirs(inputs).detach().numpy(), rtol=0, atol=1e-8)
