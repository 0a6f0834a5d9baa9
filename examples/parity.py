"""Parity of three bits as in RustGrad: 3-8-8-1 with ReLU, learning rate 0.01, 10,000 epochs.

    python examples/parity.py

The samples are the corners of a cube; neighbours are always of different classes. The class says whether an odd number
of coordinates is 1. The Trainer has the loop, and keeps the loss of each epoch.

The script prints losses during the training and the eight predictions, which are all right. A ReLU may die, so training
can fail for some initial weights; it succeeds for each of the seeds 0 to 19.
"""
import argparse
import random

from flatgrad.datasets import make_parity
from flatgrad.nn import MLP
from flatgrad.optim import SGD
from flatgrad.train import Trainer

EPOCHS = 10_000


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    X, y = make_parity(3, signed=True)
    random.seed(0)
    model = MLP(3, [8, 8, 1])
    trainer = Trainer(model, SGD(model.parameters(), lr=0.01), "mse")
    history = trainer.fit(X, y, EPOCHS, progress=False)

    print(model.summary())
    for epoch in 1, 10, 100, 1000, EPOCHS:
        print(f"epoch {epoch:5d}  loss {history.loss[epoch - 1]:.6f}")
    predictions = trainer.predict(X)
    for row, target, prediction in zip(X, y, predictions):
        print("{:2.0f} {:2.0f} {:2.0f}".format(*row), f" parity {target:2d}  prediction {prediction:6.3f}")
    print(f"{((predictions > 0) == (y > 0)).sum()} of {len(y)} right")


if __name__ == "__main__":
    main()
