"""Data parallel training: workers share the samples of each step, and their gradients are averaged.

    python examples/data_parallel.py
    python examples/data_parallel.py --engine dask --kill

`loss.flat` is a compiled loss as a function of one flat vector of parameters. It is pickled with its program, so other
processes have it. Each worker loads its shard of every batch once. At each step it gets the parameters and returns its
gradient. Gradients are added in the order of the shards. With `--kill` a worker of Dask's is killed in mid-training:
Dask loads its shard again, and computes the step again. `engines.py` has the code for each engine.
"""
import argparse
import functools
import random
import sys

import engines
import numpy as np

import flatgrad
from flatgrad.datasets import make_moons
from flatgrad.nn import MLP

STEPS, BATCHES, SAMPLES = 100, 4, 501   # samples of a batch


def program(workers):
    """The mean loss of a batch, as a function of the parameters and the batch."""
    random.seed(1)
    model = MLP(2, [16, 16, 1], activation="tanh")

    @flatgrad.compile
    def loss(X, y):
        return ((model(X).reshape(len(y)) - y) ** 2).mean()

    flat = loss.flat.of(model.parameters())
    for k in {0, workers - 1}:   # the sizes that shards have: what `flat` has been called with, a pickle can compute
        engines.gradient(flat.theta, 0, load(flat, k, workers))
    return flat


def load(flat, k, workers):
    """Shard k: the program, and its samples of each batch. They might as well come from a file of its own."""
    X, y = make_moons(BATCHES * SAMPLES, noise=0.1, random_state=1)
    mine = np.array_split(np.arange(SAMPLES), workers)[k]
    return flat, X.reshape(BATCHES, SAMPLES, 2)[:, mine], 2.0 * y.reshape(BATCHES, SAMPLES)[:, mine] - 1.0


def train(theta, gradients):
    """The loss of each step of gradient descent with momentum."""
    velocity = 0.0
    for step in range(STEPS):
        loss, gradient = engines.mean(gradients(theta, step))
        velocity = 0.9 * velocity - 0.05 * gradient
        theta = theta + velocity
        yield loss


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["threads", "processes", "joblib", "dask"], default="joblib")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill", action="store_true", help="kill a worker of Dask's in mid-training")
    args = parser.parse_args()
    flat = program(args.workers)
    with engines.by_this_process(functools.partial(load, flat)) as gradients:
        alone = list(train(flat.theta, gradients))
    options = {"kill_at": STEPS // 2} if args.kill and args.engine == "dask" else {}
    try:
        with getattr(engines, f"by_{args.engine}")(functools.partial(load, flat), args.workers, **options) as gradients:
            losses = list(train(flat.theta, gradients))
    except ModuleNotFoundError as error:
        sys.exit(f"data_parallel.py: {error}; to install it: pip install 'flatgrad[cluster]'")
    for step in (*range(0, STEPS, 20), STEPS - 1):
        print(f"step {step:2d}  one process {alone[step]:.6f}  {args.workers} workers {losses[step]:.6f}")
    print(f"the same to 1e-12: {np.allclose(alone, losses, rtol=1e-12, atol=0.0)}")


if __name__ == "__main__":
    main()
