"""A model, a loss and a training loop of your own: a Module of four Values, and all parts of the loop.

    python examples/custom_loop.py

The model is a line with a bend: four constants with a clear meaning. One measurement in ten is far off, so the loss is
the absolute error, on which outliers have little effect. The loop has mini-batches, a group of parameters with its own
learning rate, clipped gradients, a schedule, and a validation that decides when to stop and which state to keep.

The script prints losses during the training, whether it stopped early, and the found and the true constants: all within
0.1. The best fit by squared errors would be half a unit too high, because of the outliers.
"""
import argparse
import random

import flatgrad
from flatgrad import Value
from flatgrad.nn import Module
from flatgrad.optim import Adam, clip_grad_norm_
from flatgrad.optim.lr_scheduler import CosineAnnealingLR

TRUE = {"start": 1.0, "slope": 0.5, "bend": -1.5, "knee": 2.0}
EPOCHS, BATCH, PATIENCE = 200, 20, 30


class BentLine(Module):
    """start + slope * x, plus bend * (x - knee) for x beyond the knee."""

    def __init__(self, start=0.0, slope=0.0, bend=0.0, knee=1.0):
        self.start, self.slope, self.bend, self.knee = Value(start), Value(slope), Value(bend), Value(knee)

    def __call__(self, x):
        return self.start + self.slope * x + self.bend * flatgrad.maximum(x - self.knee, 0.0)


def absolute_error(model, samples):
    return flatgrad.mean([flatgrad.maximum(error, -error) for error in (model(x) - y for x, y in samples)])


def make_samples(count, rng):
    model = BentLine(**TRUE)
    xs = [rng.uniform(0.0, 4.0) for _ in range(count)]
    return [(x, model(x).data + (rng.uniform(3.0, 7.0) if rng.random() < 0.1 else rng.gauss(0.0, 0.1))) for x in xs]


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rng = random.Random(2)
    train, validation = make_samples(200, rng), make_samples(100, rng)
    model = BentLine()
    optimizer = Adam([{"params": [model.start, model.slope, model.bend]}, {"params": [model.knee], "lr": 0.02}], 0.05)
    scheduler = CosineAnnealingLR(optimizer, T_max=EPOCHS)

    best, best_epoch, best_state = float("inf"), 0, None
    for epoch in range(1, EPOCHS + 1):
        rng.shuffle(train)
        for k in range(0, len(train), BATCH):
            loss = absolute_error(model, train[k:k + BATCH])
            optimizer.zero_grad()
            loss.backward()
            clip_grad_norm_(optimizer, 1.0)
            optimizer.step()
        scheduler.step()
        with flatgrad.no_grad():
            score = absolute_error(model, validation).data
        if score < best:
            best, best_epoch, best_state = score, epoch, model.state_dict()
        if epoch in (1, 2, 5, 10, 20, 50):
            print(f"epoch {epoch:2d}  loss {loss.data:.3f}  validation {score:.3f}")
        if epoch - best_epoch >= PATIENCE:
            break
    model.load_state_dict(best_state)
    print(f"stopped before epoch {EPOCHS}: {epoch < EPOCHS}, best validation {best:.3f}")
    for name, true in TRUE.items():
        print(f"{name:5}  found {getattr(model, name).data:5.2f}  true {true:5.2f}")


if __name__ == "__main__":
    main()
