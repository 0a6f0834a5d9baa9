"""The curvature of a loss: eigenvalues of the Hessian of a small network, before and after training.

    python examples/curvature.py [curvature.png]

A network of 2-16-16-1 with tanh learns two moons. The Hessian of its loss has 337 x 337 second derivatives by the
parameters. Its eigenvalues are the curvatures of the loss in 337 directions. In most directions the loss is nearly
flat. In a few it is steep, and the steepest sets a limit to the learning rate of gradient descent.

The script prints the loss and some eigenvalues before and after training, and writes a picture of all. The picture
needs the extra `viz`.
"""
import argparse
import random
import sys

import numpy as np

import flatgrad
from flatgrad.datasets import make_moons
from flatgrad.losses import bce_with_logits
from flatgrad.nn import MLP
from flatgrad.optim import Adam


def loss_of(model, X, y):
    """The loss of a model, -log(p) of the classes, as a compiled function."""
    X, y = flatgrad.Tensor(X, requires_grad=False), flatgrad.Tensor(y, requires_grad=False)
    return flatgrad.compile(lambda: bce_with_logits(model(X), y))


def eigenvalues(loss, model):
    """Of the Hessian by all parameters, in ascending order."""
    return np.linalg.eigvalsh(flatgrad.hessian(loss, parameters=model.parameters())())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", default="curvature.png",
                        help="the picture to write, in any format of matplotlib")
    path = parser.parse_args().path
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        sys.exit(f"curvature.py needs matplotlib, for the picture: {error}; to install it: pip install matplotlib")
    X, y = make_moons(100, noise=0.1, random_state=0)
    random.seed(1337)
    model = MLP(2, [16, 16, 1], activation="tanh", init="xavier_uniform")
    loss = loss_of(model, X, y)
    figure = Figure(figsize=(6.4, 4.8), layout="tight")
    axes = figure.subplots()
    for title, steps in ("before training", 0), ("after training", 300):
        loss.minimize(Adam(model.parameters(), lr=0.01), steps=steps)
        spectrum = eigenvalues(loss, model)
        near = (np.abs(spectrum) < 1e-3 * spectrum[-1]).mean()
        print(f"{title}: loss {loss().data:.4f}, eigenvalues from {spectrum[0]:.4f} to {spectrum[-1]:.4f}, "
              f"{near:.0%} of {len(spectrum)} below a thousandth of the largest")
        axes.plot(spectrum, ".", label=title)
    axes.set_yscale("symlog", linthresh=1e-6)
    axes.set(xlabel="direction", ylabel="curvature", title="eigenvalues of the Hessian")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
