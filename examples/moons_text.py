"""The two moons as in rustygrad: samples from a CSV file, the decision boundary as a text picture.

    python examples/moons_text.py [make_moons.csv]

The loop is micrograd's demo, word for word: a network with two hidden layers of 16 neurons, the max-margin loss, L2
regularization, and a learning rate that falls from 1.0 to 0.1. `model(X)` takes all samples at once.

The file has the columns x, y and label, with labels -1 and 1. `write_csv` below has written the file beside this
script. The script prints loss and accuracy of every tenth step, then the picture. At the end the accuracy is 100 %.
"""
import argparse
import random
from pathlib import Path

from flatgrad import dot
from flatgrad.datasets import make_moons, read_csv
from flatgrad.losses import hinge
from flatgrad.nn import MLP
from flatgrad.viz import decision_boundary_text

STEPS = 100


def write_csv(path):
    """Write 100 generated samples in rustygrad's format."""
    X, y = make_moons(100, noise=0.1, random_state=0)
    rows = [f"{x1:.3f},{x2:.3f},{2 * label - 1:.1f}" for (x1, x2), label in zip(X, y)]
    Path(path).write_text("\n".join(["x,y,label", *rows]) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", default=Path(__file__).with_name("make_moons.csv"),
                        help="a CSV file with the columns x, y and label")
    path = parser.parse_args().path
    X, y = read_csv(path)
    random.seed(1337)
    model = MLP(2, [16, 16, 1])
    parameters = model.parameters()
    print(f"{len(X)} samples, {len(parameters)} parameters")

    for k in range(STEPS):
        scores = model(X)
        loss = hinge(scores, y) + 1e-4 * dot(parameters, parameters)
        right = (scores.data[:, 0] > 0) == (y > 0)

        model.zero_grad()
        loss.backward()
        learning_rate = 1.0 - 0.9 * k / STEPS
        for p in parameters:
            p.data -= learning_rate * p.grad

        if k % 10 == 0 or k == STEPS - 1:
            print(f"step {k:2d}  loss {loss.data:.3f}  accuracy {right.mean():.0%}")

    print(decision_boundary_text(model, X, y))


if __name__ == "__main__":
    main()
