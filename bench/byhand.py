"""Contenders in C, each written by hand for one problem: ``rivals/*.c``, which a C compiler of this machine compiles.

They are the bar: the same float64 computation in lanes, with nothing recorded, interpreted or allocated. Their results
are compared with flatgrad's before they are timed, as those of all contenders.
"""
import atexit
import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from bench.peers import Trainer
from bench.runner import Contender, repeated

__all__ = ["BUILD", "compiler_missing", "mlp_trainer", "names_trainer", "pendulum_contender"]

SOURCES = Path(__file__).with_name("rivals")

# The environment variable with the folder for what is compiled, so that all processes of a run use the same.
BUILD = "FLATGRAD_BENCH_BUILD"

FLAGS = ["-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared"]

# The instruction set, as for flatgrad itself; the first flags that the compiler takes.
TARGETS = {"avx512": [["-march=native"]], "avx2": [["-march=native", "-mno-avx512f"], ["-mavx2", "-mfma"]],
           "neon": [["-mcpu=native"], []], "baseline": [[]]}


def compiler():
    """The words of the compiler's command, or None."""
    named = os.environ.get("CC")
    for command in [named] if named else ["cc", "gcc", "clang"]:
        words = shlex.split(command)
        if shutil.which(words[0]):
            return words
    return None


def compiler_missing():
    """The reason why nothing can be compiled here; None if it can."""
    if os.name == "nt":
        return "the contenders in C need GNU C"
    if compiler() is None:
        return f"no C compiler ({os.environ.get('CC') or 'cc, gcc or clang'}): apt-get install gcc"
    try:
        library("xor")   # the smallest
    except OSError as error:
        return str(error)
    return None


@functools.cache
def build_folder():
    folder = os.environ.get(BUILD)
    if folder is None:
        folder = tempfile.mkdtemp(prefix="rivals")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@functools.cache
def library(name):
    """A file of rivals/ as a library of ctypes.

    Raises
    ------
    OSError
        If it cannot be compiled.
    """
    import flatgrad

    file = build_folder() / f"{name}.so"
    if not file.exists():
        part = file.with_name(f"{name}.{os.getpid()}.so")   # renamed when it is whole
        for target in TARGETS[flatgrad.stats()["isa"]]:
            command = [*compiler(), *FLAGS, *target, "-o", str(part), str(SOURCES / f"{name}.c"), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                break
        else:
            raise OSError(f"{name}.c: {(done.stderr.strip() or 'the compiler failed').splitlines()[0]}")
        part.replace(file)
    return ctypes.CDLL(str(file))


def doubles(array):
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_double))


def mlp_trainer(problem):
    """The training of a `workloads.Problem`: of moons_problem or xor_problem, or with other rates."""
    sizes, steps = problem.sizes, len(problem.rates)
    fits = {"moons": ((2, 16, 16, 1), "relu", "linear", "hinge", (100, 2)),
            "xor": ((2, 4, 1), "tanh", "tanh", "mse", (4, 2))}
    task = (sizes, problem.activation, problem.out_activation, problem.loss, problem.X.shape)
    [name] = [name for name, fit in fits.items() if fit == task]   # else there is no contender by hand
    train = getattr(library(name), f"{name}_train")
    X, y = np.ascontiguousarray(problem.X), problem.y.astype(float)
    rates, losses = np.array(problem.rates), np.empty(steps)
    decay = [ctypes.c_double(problem.decay)] if name == "moons" else []
    pointers = [doubles(array) for array in (X, y, rates, losses)]

    def new():
        return np.concatenate([part.ravel() for layer in problem.layers() for part in layer])

    def run(state, steps):
        train(doubles(state), pointers[0], pointers[1], *decay, pointers[2], ctypes.c_ssize_t(steps), pointers[3])
        return losses[:steps]

    def parameters(state):
        layers, start = [], 0
        for n_in, n_out in zip(sizes, sizes[1:]):
            middle, end = start + n_out * n_in, start + n_out * (n_in + 1)
            layers.append((state[start:middle].reshape(n_out, n_in), state[middle:end]))
            start = end
        return problem.flat(layers)

    return Trainer("C", new, run, parameters, note="by hand, in lanes of samples")


def names_trainer(problem):
    """The training of a `workloads.Names` in batches of 16."""
    if problem.batch != 16 or len(problem.documents) % 16:
        raise ValueError(f"by hand there are batches of 16, not {problem.batch}")
    train = library("gpt").gpt_train
    documents = np.ascontiguousarray(problem.documents, np.int32)
    rates, losses = np.array(problem.rates), np.empty(len(problem.rates))

    def run(state, steps):
        train(doubles(state), documents.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
              ctypes.c_ssize_t(len(documents)), doubles(rates), ctypes.c_ssize_t(steps), doubles(losses))
        return losses[:steps]

    return Trainer("C", problem.initial.copy, run, list, note="by hand, in lanes of documents")


def pendulum_contender(task):
    """All trajectories of a `workloads.Pendulums`."""
    solve = getattr(library("pendulum"), f"pendulum_{task.method}")
    numbers, found = np.ascontiguousarray(task.numbers), np.empty((4, task.count))
    arguments = (doubles(numbers), ctypes.c_ssize_t(task.count), ctypes.c_ssize_t(task.steps), ctypes.c_double(task.H),
                 doubles(found))

    def work():
        if solve(*arguments) != 0:
            raise ValueError("by hand there are at least 16 trajectories and at most 1,000 steps, not "
                             f"{task.count} and {task.steps}")

    def results():
        work()
        return task.results(found[0], found[1:])
    return Contender("C", repeated(work), results, units=task.count)
