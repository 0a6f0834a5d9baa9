"""y = x1 + x2 as in micrograd-rust: a network of 16 and 16 neurons learns addition from six samples.

    python examples/linear_sum.py

The code works sample by sample and scalar by scalar, as in micrograd's lecture. Inputs are numbers, and the output is a
Value. The loss is written with Python's operators, and a loop updates each parameter.

The script prints the loss, and the network's answers for two sums that are not in the samples: both within 0.05.
"""
import argparse
import random

from flatgrad.nn import MLP

TRAIN = [(1, 1), (1, 4), (4, 1), (4, 4), (2, 3), (3, 2)]
TEST = [(2, 2), (3, 3)]
EPOCHS = 1000
LEARNING_RATE = 0.01


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    random.seed(0)
    # Xavier's initial weights are smaller than micrograd's, so the network is smoother between the samples.
    model = MLP(2, [16, 16, 1], init="xavier_uniform")
    print(f"{len(model.parameters())} parameters")

    for epoch in range(EPOCHS + 1):
        loss = sum((model(x) - sum(x)) ** 2 for x in TRAIN) / len(TRAIN)
        if epoch in (0, 1, 10, 100, EPOCHS):
            print(f"epoch {epoch:4d}  loss {loss.data:.6f}")
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.update(LEARNING_RATE)   # p.data -= LEARNING_RATE * p.grad

    for x1, x2 in TEST:
        print(f"{x1} + {x2} = {model([x1, x2]).data:.2f}")


if __name__ == "__main__":
    main()
