"""The two moons as in "Micrograd in Rust": hidden layers of 16 and 32 neurons, and a picture.

    python examples/moons_png.py [decision_boundary.png]

The training is the one of moons_text.py, 100 steps on all samples at once, in PyTorch's style: the optimizer updates
all parameters in one call, and a scheduler lowers the learning rate from 1.0 to 0.1.

The script prints loss and accuracy of every tenth step, 100 % at the end, and writes the picture. The picture needs the
extra `viz`.
"""
import argparse
import random
import sys

from flatgrad import Tensor
from flatgrad.datasets import make_moons
from flatgrad.losses import hinge, l2
from flatgrad.nn import MLP
from flatgrad.optim import SGD
from flatgrad.optim.lr_scheduler import LinearLR
from flatgrad.viz import plot_decision_boundary

STEPS = 100
ALPHA = 1e-4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", default="decision_boundary.png",
                        help="the picture to write, in any format of matplotlib")
    path = parser.parse_args().path
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        sys.exit(f"moons_png.py needs matplotlib, for the picture: {error}; to install it: pip install matplotlib")
    X, y = make_moons(100, noise=0.1, random_state=0)
    y = 2.0 * y - 1.0                       # the max-margin loss needs -1 and 1
    random.seed(1337)
    model = MLP(2, [16, 32, 1])
    print(f"{len(model.parameters())} parameters")

    # Converted once: arrays would be converted to Tensors in each step.
    inputs, targets = Tensor(X, requires_grad=False), Tensor(y, requires_grad=False)
    optimizer = SGD(model.parameters(), lr=1.0)
    scheduler = LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=STEPS)
    for step in range(STEPS):
        scores = model(inputs)
        loss = hinge(scores, targets) + ALPHA * l2(model.parameters())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if step % 10 == 0 or step == STEPS - 1:
            accuracy = ((scores.data[:, 0] > 0) == (y > 0)).mean()
            print(f"step {step:2d}  loss {loss.data:.4f}  accuracy {accuracy:.0%}")

    figure = Figure(figsize=(6.4, 4.8), layout="tight")
    plot_decision_boundary(model, X, y, ax=figure.subplots())
    figure.savefig(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
