"""The suite `python -m bench --scaling`: how time and memory grow with a graph, and with a network that is trained.

Each case is a curve: it measures at several places of an axis, and compares with the other libraries at each of them. A
contender that takes too long, or cannot do the work at all, ends earlier; its end is recorded as skipped.
"""
import math

from bench import peers, processes, versus, workloads
from bench.runner import Contender, enter, own_copy, place, repeated

__all__ = ["SCALING"]

SCALING = {}

# torch.compile and lax.scan compile for seconds at each point, so they are left to `versus`.
TRAINERS = ("micrograd", "torch", "jax", "numpy")

CHECKED = 3   # the steps whose numbers are compared

# The most that a slow contender is given, some tenths of a second: terms of a sum, and products in a step.
MOST_TERMS = 10_000
MOST_PRODUCTS = {"micrograd": 70_000}


def case(name, why):
    return enter(SCALING, name, why)


# ---- a graph of single numbers ----

def pairs_contender(library, terms):
    """Forward and backward pass of a sum of terms."""
    run = own_copy(workloads.pairs)
    a, b = library.Value(0.5), library.Value(-0.125)
    return Contender(library.name, repeated(lambda: run(a, b, terms).backward()),
                     lambda: workloads.pairs_results(run, library.Value, terms), units=3 * terms - 1)


@case("size", "a graph of single numbers, forward and backward: a sum of terms a*x + b, in pairs")
def size_case(session):
    libraries = list(versus.libraries(session))
    for terms in session.size((10, 100, 1_000, 10_000, 100_000, 1_000_000), (10, 100)):
        ours = pairs_contender(workloads.library("flatgrad"), terms)
        at = "operations", ours.units
        compared = False
        for library in libraries:
            label = f"{library.name} / flatgrad"
            if terms > MOST_TERMS:
                session.skip(label, f"timed up to {place(at[0], 3 * MOST_TERMS - 1)}, for the time that it takes")
                continue
            theirs = pairs_contender(library, terms)
            if session.admits(ours, theirs, f"{label}, {place(*at)}", tolerance=1e-9):
                session.compare(theirs, ours, per="operation", at=at)
                compared = True
        if not compared:
            session.time(ours, per="operation", at=at)


# ---- a network ----

def compare_trainings(session, axis, problems):
    """Compare trainings of the problems, a dict of the places on the axis."""
    for x, problem in problems.items():
        at = axis, x
        steps = len(problem.rates)
        products = len(problem.X) * sum(map(math.prod, zip(problem.sizes, problem.sizes[1:])))
        ours = peers.contender(peers.flatgrad_trainer(problem), steps, CHECKED)
        for name in TRAINERS:
            label = f"{name} / flatgrad"
            if not session.has(peers.PACKAGES.get(name, name), label):
                continue
            if products > MOST_PRODUCTS.get(name, math.inf):
                session.skip(label, f"timed up to {MOST_PRODUCTS[name]:,} products a step, for the time that it takes")
                continue
            label = f"{label}, {place(*at)}"
            # The first step of micrograd, the slowest, stands for all.
            timed = 1 if name == "micrograd" else steps
            theirs = peers.contender(own_copy(peers.TRAINERS[name])(problem), timed, CHECKED)
            try:
                same = session.admits(ours, theirs, label, tolerance=1e-9)
            except RecursionError:
                session.skip(label, "RecursionError: its backward pass has a frame for each operation of a path")
                continue
            if same:
                session.compare(theirs, ours, per="step", at=at)


@case("width", "a training step of a network with two hidden layers of tanh, on 32 samples")
def width_case(session):
    compare_trainings(session, "width", {
        width: workloads.network_problem(width, 2, 32) for width in session.size((4, 16, 64, 256, 512), (4, 16))})


@case("batch", "a training step of a network with two hidden layers of 16 tanh")
def batch_case(session):
    compare_trainings(session, "batch", {
        batch: workloads.network_problem(16, 2, batch) for batch in session.size((1, 10, 100, 1_000, 10_000), (1, 10))})


@case("depth", "a training step of a network with hidden layers of 16 tanh, on 4 samples")
def depth_case(session):
    compare_trainings(session, "depth", {
        depth: workloads.network_problem(16, depth, 4) for depth in session.size((1, 2, 4, 8, 16, 32, 64), (1, 4))})


# ---- memory ----

@case("nodes", "the memory of a node of a graph of single numbers")
def nodes_case(session):
    for nodes in session.size((100_000, 300_000, 1_000_000, 3_000_000), (20_000, 50_000)):
        for name in "flatgrad", "micrograd":
            if name == "micrograd" and (nodes > 300_000 or not session.has(name, "micrograd, by the system")):
                continue
            figures = processes.run("memory", name, nodes)
            for where, key in (("stats()", "bytes"), ("the system", "resident")):
                if figures.get(key) is not None:
                    session.record(f"{name}, by {where}", figures[key] / figures["nodes"], "bytes",
                                   at=("nodes", figures["nodes"]))
