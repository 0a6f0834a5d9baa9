"""A curve through noisy points: regression with the Trainer, early stopping, and two plots.

    python examples/sine.py [sine.png]

A network with two tanh layers fits 200 noisy samples of a sine wave. A fifth of the samples is held out for validation.
When the validation loss has not improved for 200 epochs, training stops and restores the best parameters.

The script prints the losses and the error against the wave without noise, which is less than half of the noise. It
writes a picture of the fit and of the history. The picture needs the extra `viz`.
"""
import argparse
import random
import sys

import numpy as np

from flatgrad.nn import MLP
from flatgrad.optim import Adam
from flatgrad.train import EarlyStopping, Trainer
from flatgrad.viz import plot_regression

NOISE = 0.2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", default="sine.png", help="the picture to write, in any format of matplotlib")
    path = parser.parse_args().path
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        sys.exit(f"sine.py needs matplotlib, for the picture: {error}; to install it: pip install matplotlib")
    rng = np.random.RandomState(2)
    x = rng.uniform(-3.0, 3.0, size=(200, 1))
    y = np.sin(2.0 * x[:, 0]) + rng.normal(scale=NOISE, size=200)

    random.seed(2)
    model = MLP(1, [16, 16, 1], activation="tanh", init="xavier_uniform")
    trainer = Trainer(model, Adam(model.parameters(), lr=0.01), "mse")
    history = trainer.fit(x, y, 3000, seed=2, validation=0.2, callbacks=[EarlyStopping(patience=200)], progress=False)

    print(f"loss {history.loss[0]:.3f} at first, best validation loss {min(history.val_loss):.3f}")
    grid = np.linspace(-2.8, 2.8, 200)
    error = np.sqrt(((trainer.predict(grid[:, None]) - np.sin(2.0 * grid)) ** 2).mean())
    print(f"noise {NOISE}, error against the wave itself {error:.2f}")

    figure = Figure(figsize=(9.6, 4.0), layout="tight")
    left, right = figure.subplots(1, 2)
    plot_regression(model, x, y, ax=left)
    history.plot(ax=right)
    right.set_yscale("log")
    figure.savefig(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
