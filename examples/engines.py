"""For data_parallel.py: the gradients of all shards of a batch, by threads, by processes, by joblib and by Dask.

Each engine takes `load`, where ``load(k, workers)`` is shard k: a function of the flat parameters and samples, such as
`loss.flat`, and arrays with a row for each step. It gives a function ``gradients(theta, step)`` that returns, for each
shard in its order, the number of samples, their mean loss, and its gradient. The samples stay with the workers.
"""
import contextlib
import functools
import logging
import os
import pickle
import signal
import tempfile


def gradient(theta, step, shard):
    """The number of samples of a shard in a step's batch, their mean loss, and its gradient."""
    flat, *arrays = shard
    batch = [array[step % len(array)] for array in arrays]
    return len(batch[0]), *flat(theta, *batch)


def mean(parts):
    """The mean loss of a batch and its gradient, from what its shards give, in their order."""
    samples = sum(n for n, _, _ in parts)
    return sum(n / samples * loss for n, loss, _ in parts), sum(n / samples * gradient for n, _, gradient in parts)


@contextlib.contextmanager
def by_this_process(load, workers=1):
    """Without an engine: one shard after the other."""
    shards = [load(k, workers) for k in range(workers)]
    yield lambda theta, step: [gradient(theta, step, shard) for shard in shards]


@contextlib.contextmanager
def by_threads(load, workers):
    """Threads of this process: a function of `flat` needs no lock of Python's."""
    from concurrent.futures import ThreadPoolExecutor

    shards = [load(k, workers) for k in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        yield lambda theta, step: list(pool.map(lambda shard: gradient(theta, step, shard), shards))


@contextlib.contextmanager
def by_processes(load, workers):
    """Processes of Python's own, each with its shard."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with contextlib.ExitStack() as stack:
        pools = [stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), keep, (load, k, workers)))
                 for k in range(workers)]

        def gradients(theta, step):
            futures = [pool.submit(kept_gradient, theta, step) for pool in pools]
            return [future.result() for future in futures]

        yield gradients


kept = []   # in such a process: its shard


def keep(load, k, workers):
    kept[:] = [load(k, workers)]


def kept_gradient(theta, step):
    return gradient(theta, step, kept[0])


@contextlib.contextmanager
def by_joblib(load, workers):
    """Processes of joblib's. A shard is a file, which a worker reads when it first has to."""
    from joblib import Parallel, delayed

    with tempfile.TemporaryDirectory() as folder, Parallel(workers, batch_size=1) as parallel:
        paths = [os.path.join(folder, f"shard {k}") for k in range(workers)]
        for k, path in enumerate(paths):
            with open(path, "wb") as file:
                pickle.dump(load(k, workers), file)
        yield lambda theta, step: parallel(delayed(gradient_of_file)(theta, step, path) for path in paths)


@functools.lru_cache
def read(path):
    with open(path, "rb") as file:
        return pickle.load(file)


def gradient_of_file(theta, step, path):
    return gradient(theta, step, read(path))


@contextlib.contextmanager
def by_dask(load, workers, kill_at=None):
    """A cluster, here on this machine. To load a shard is a task too, which Dask repeats where a worker is lost.

    At the step `kill_at` one worker is killed.
    """
    from dask.distributed import Client, LocalCluster

    with (LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL)
          as cluster, Client(cluster) as client):
        client.wait_for_workers(workers)
        processes = client.run(os.getpid)
        names = sorted(processes)
        shards = [client.submit(load, k, workers, pure=False, workers=names[k], allow_other_workers=True)
                  for k in range(workers)]

        def gradients(theta, step):
            if step == kill_at:
                os.kill(processes[names[0]], getattr(signal, "SIGKILL", signal.SIGTERM))
            return client.gather([client.submit(gradient, theta, step, shard, pure=False) for shard in shards])

        yield gradients
