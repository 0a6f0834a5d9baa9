"""y = x1 + x2 as in micrograd-rust: a network of 16 and 16 neurons learns to add from six samples.

    python examples/linear_sum.py

Sample by sample and scalar by scalar, as in micrograd's lecture: what goes in are numbers, what comes out
is a Value, the loss is written with Python's operators, and each parameter is updated by hand.

Prints the loss, and what the network says about two sums that it has not seen: both within 0.05.
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
    # Xavier's first weights are smaller than micrograd's: the network is smoother between the samples.
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
