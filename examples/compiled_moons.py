"""micrograd's demo of two moons as a program: the demo's loss, scalar by scalar, with one decorator.

    python examples/compiled_moons.py

The model is micrograd's MLP 2-16-16-1, and the loss is its demo's: the max-margin loss of 100 samples, one after the
other, and L2 regularization. Under ``flatgrad.compile`` Python runs the function once, in the first step. Later steps
replay what it did. The samples are constants of the program, since they are numbers that the function captures. The
parameters are read afresh at each call, and ``backward()`` gives them their gradients.

The script trains 100 steps twice, as it is and compiled. It prints loss and accuracy of some steps, which are the same
both ways, and the time of a step, without the first.
"""
import argparse
import random
import time

import flatgrad
from flatgrad.datasets import make_moons
from flatgrad.nn import MLP

STEPS = 100


def loss_of(model, X, y):
    """The demo's loss function: the total loss and the scores."""
    def loss():
        scores = list(map(model, X))
        losses = [(1 + -yi * score).relu() for yi, score in zip(y, scores)]   # max-margin
        data_loss = sum(losses) * (1.0 / len(losses))
        reg_loss = 1e-4 * sum(p * p for p in model.parameters())
        return data_loss + reg_loss, scores
    return loss


def train(X, y, compiled):
    """Loss and accuracy of each step, and the seconds for a step after the first."""
    random.seed(1337)
    model = MLP(2, [16, 16, 1])
    loss = loss_of(model, X, y)
    if compiled:
        loss = flatgrad.compile(loss)   # or @flatgrad.compile above a function that stands by itself
    history = []
    for k in range(STEPS):
        total, scores = loss()
        model.zero_grad()
        total.backward()
        learning_rate = 1.0 - 0.9 * k / STEPS
        for p in model.parameters():
            p.data -= learning_rate * p.grad
        right = [(score.data > 0) == (yi > 0) for score, yi in zip(scores, y)]
        history.append((total.data, sum(right) / len(right)))
        if k == 0:
            start = time.perf_counter()
    return history, (time.perf_counter() - start) / (STEPS - 1)


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    X, y = make_moons(100, noise=0.1, random_state=0)
    X, y = X.tolist(), (2 * y - 1).tolist()
    plain, compiled = train(X, y, False), train(X, y, True)
    for k in (*range(0, STEPS, 20), STEPS - 1):
        print(f"step {k:2d}  loss {plain[0][k][0]:.4f}  compiled {compiled[0][k][0]:.4f}  "
              f"accuracy {compiled[0][k][1]:.0%}")
    print(f"{1e3 * plain[1]:.3f} ms a step, compiled {1e3 * compiled[1]:.3f} ms")


if __name__ == "__main__":
    main()
