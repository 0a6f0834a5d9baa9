"""XOR as in Tiny ML: two inputs, four hidden neurons and an output, all tanh, and 300,000 epochs.

    python examples/xor.py

Each epoch is a step of gradient descent with a learning rate of 0.1, on the sum of the squared errors of all four
rows. A step is four calls: the forward pass, the loss, the backward pass and the update.

The script prints losses during the training, the time of all epochs, a couple of seconds, and the four predictions,
each within 0.01 of its target. (Tiny ML draws the initial weights from 0 to 1; here they are micrograd's, -1 to 1.)
"""
import argparse
import random
import time

from flatgrad import Tensor
from flatgrad.datasets import make_xor
from flatgrad.losses import mse
from flatgrad.nn import MLP
from flatgrad.optim import SGD

EPOCHS = 300_000


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    X, y = make_xor()
    inputs, targets = Tensor(X, requires_grad=False), Tensor(y, requires_grad=False)
    random.seed(1)
    model = MLP(2, [4, 1], activation="tanh", out_activation="tanh")
    optimizer = SGD(model.parameters(), lr=0.1)

    start = time.perf_counter()
    for epoch in range(1, EPOCHS + 1):
        loss = mse(model(inputs), targets, reduction="sum")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if epoch in (1, 10, 100, 1000, 10_000, 100_000, EPOCHS):
            print(f"epoch {epoch:6d}  loss {loss.data:.6f}")
    print(f"{EPOCHS} epochs in {time.perf_counter() - start:.1f} s")

    for row, target, prediction in zip(X, y, model(X).data[:, 0]):
        print(f"{row[0]:.0f} xor {row[1]:.0f} = {target}  prediction {prediction:6.3f}")


if __name__ == "__main__":
    main()
