"""The suite `python -m bench --parallel`: a batch divided among threads, processes, joblib and Dask.

The engines are those of `examples/engines.py`. A ratio is the time of a step in one process, divided by that of an
engine: the speed-up. Before the timing, losses and gradients are compared. All times are by the clock on the wall, for
the work is done elsewhere. The engines' own time, the bytes of a step and the time of a sample are figures as well:
`docs/many-machines.md` computes from these what many machines would do.
"""
import contextlib
import functools
import importlib
import logging
import os
import pickle
import random
import statistics
import sys
import time

import numpy as np

from bench import processes
from bench.runner import Contender, enter

__all__ = ["PARALLEL"]

PARALLEL = {}
PACKAGES = {"threads": None, "processes": None, "joblib": "joblib", "dask": "distributed"}   # an engine and its package
WORKERS = [n for n in (1, 2, 4, 8, 16, 32) if n <= max(2, os.cpu_count() or 1)]
# The networks: sizes, samples of a batch, and of a batch in a quick run.
PROBLEMS = {"moons": ((2, 16, 16, 1), (1_000, 50_000), (400,)),
            "pictures": ((64, 256, 256, 10), (256, 2_048), (64,))}


def engines():
    """The module of the examples. Workers get the path with all of `sys.path`."""
    folder = str(processes.ROOT / "examples")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module("engines")


def program(name, shards):
    """The mean loss of a network, as a function of the parameters and a batch, for batches as in these shards."""
    import flatgrad
    from flatgrad.nn import MLP

    (n_in, *layers), _, _ = PROBLEMS[name]
    random.seed(1)
    model = MLP(n_in, layers, activation="tanh", init="xavier_uniform")

    def mean_of_samples(X, y):   # a program of one sample is short
        return flatgrad.vmap(lambda x, target: ((model(x) - target) ** 2).mean())(X, y).mean()

    def mean_of_rows(X, y):      # for matrix products
        return ((model(X) - y) ** 2).mean()

    loss = flatgrad.compile(mean_of_samples if name == "moons" else mean_of_rows)
    flat = loss.flat.of(model.parameters())
    for _, X, y in shards:   # what it has been called with, a worker can compute
        flat(flat.theta, X[0], y[0])
    return flat


def load(flat, name, samples, k, workers):
    """Shard k of the only batch."""
    sizes = PROBLEMS[name][0]
    random_numbers = np.random.default_rng(1)
    X, y = random_numbers.random((1, samples, sizes[0])), random_numbers.random((1, samples, sizes[-1]))
    mine = np.array_split(np.arange(samples), workers)[k]
    return flat, X[:, mine], y[:, mine]


def contender(name, gradients, theta):
    """One way to compute a step; timed by the clock on the wall."""
    mean = engines().mean

    def measure(repeats):
        start = time.perf_counter()
        for _ in range(repeats):
            mean(gradients(theta, 0))
        return time.perf_counter() - start

    def results():
        loss, gradient = mean(gradients(theta, 0))
        return {"loss": loss, "norm": float(np.linalg.norm(gradient)), "first": float(gradient[0])}

    return Contender(name, measure, results)


def case(name, why, needs=None):
    return enter(PARALLEL, name, why, needs)


def speed_up(session, name):
    """Compare one process with each engine, for each size of a batch and number of workers."""
    _, sizes, quick = PROBLEMS[name]
    known = [engine for engine, package in PACKAGES.items() if package is None or session.has(package, engine)]
    counts = session.size(WORKERS, [2])
    for samples in session.size(sizes, quick):
        flat = program(name, [load(None, name, samples, k, n) for n in [1, *counts] for k in (0, n - 1)])
        shard = functools.partial(load, flat, name, samples)
        with engines().by_this_process(shard) as gradients:
            alone = contender("one process", gradients, flat.theta)
            for engine in known:
                for workers in counts:
                    with getattr(engines(), f"by_{engine}")(shard, workers) as gradients:
                        divided = contender(f"{engine} {workers}", gradients, flat.theta)
                        session.verify(alone, divided, tolerance=1e-10)
                        session.compare(alone, divided, work=f"{samples:,} samples", per="step")
            seconds = min(alone.measure(1) for _ in range(3))
        session.record(f"a sample of {samples:,}", 1e6 * seconds / samples, "us", note="loss and gradient, one process")
    there, back = len(pickle.dumps((flat.theta, 0))), len(pickle.dumps(engines().gradient(flat.theta, 0, shard(0, 1))))
    session.record("bytes of a step", there + back, "bytes", note="for each worker: parameters there, gradient back")
    session.record("bytes of the program", len(pickle.dumps(flat)), "bytes", note="once for each worker")


@case("overhead", "a step of one sample for each worker: next to nothing to compute")
def overhead_case(session):
    flat = program("moons", [load(None, "moons", 1, 0, 1)])
    for engine, package in PACKAGES.items():
        if package is not None and not session.has(package, engine):
            continue
        for workers in session.size(WORKERS, [2]):
            shard = functools.partial(load, flat, "moons", workers)
            with getattr(engines(), f"by_{engine}")(shard, workers) as gradients:
                steps = contender(engine, gradients, flat.theta)
                steps.measure(session.size(20, 2))   # processes start
                times = [steps.measure(1) for _ in range(session.size(50, 5))]
            session.record(f"{engine} {workers}", 1e3 * statistics.median(times), "ms a step")


@case("tasks", "what Dask's scheduler needs for each task that is empty", needs="distributed")
def tasks_case(session):
    from dask.distributed import Client, LocalCluster

    def seconds(client, count):
        start = time.perf_counter()
        client.gather([client.submit(abs, k, pure=False) for k in range(count)])
        return time.perf_counter() - start

    few, many = session.size((10, 1_000), (10, 100))
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0",
                                                   silence_logs=logging.CRITICAL))
        client = stack.enter_context(Client(cluster))
        seconds(client, many)
        took = [min(seconds(client, count) for _ in range(3)) for count in (few, many)]
    session.record("a task", 1e3 * (took[1] - took[0]) / (many - few), "ms", note="one after the other")


@case("moons", "MLP(2, [16, 16, 1]), 337 parameters: few bytes")
def moons_case(session):
    speed_up(session, "moons")


@case("pictures", "MLP(64, [256, 256, 10]), 85,002 parameters: many bytes")
def pictures_case(session):
    speed_up(session, "pictures")
