"""flatgrad's own cases: their contenders and targets. Each case stands for a property that users depend on.

A case is a function of a `Session`: it verifies the results, then compares times or records figures. Libraries other
than micrograd would be further contenders of a case, with further calls of `Session.compare`.
"""
import functools
import os
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench import peers, processes, workloads
from bench.contenders import (MICROGRAD_ITERATIONS, chain_backward, chain_of_values, compare_demo,
                              readme_contender)
from bench.runner import (Contender, Mismatch, Row, at_least, at_most, children_clock, clock, enter, own_copy,
                          repeated, repeated_after)

__all__ = ["CASES"]

CASES = {}

# The number of backward passes after which the tape has given back the memory of an earlier, larger graph. The tape
# waits for some thousands of passes, and the system then takes milliseconds to unmap the memory.
SETTLING = 10_000

# The targets of the chain and of the README expression hold for every Python; their rows name the one that has run.
PYTHON = f"{platform.python_implementation()} {'.'.join(platform.python_version_tuple()[:2])}"

NO_MEMORY_FIGURES = "this system does not say how much memory a process uses"


def case(name, why, needs=None):
    return enter(CASES, name, why, needs)


# ---- time ----

def chain_of_floats(iterations):
    """The same loop on floats, without gradients: the time of Python itself."""
    run = own_copy(workloads.chain)

    def results():
        expected = workloads.chain_gradients(iterations)
        return {**expected, "value": run(*workloads.CHAIN, iterations)}
    return Contender("float", repeated(lambda: run(*workloads.CHAIN, iterations)), results,
                     units=2 * iterations)


@case("chain", "what an operation costs a user's own loop, beyond Python itself")
def chain_case(session):
    iterations = session.size(100_000, 20_000)
    floats = chain_of_floats(iterations)
    values = chain_of_values(workloads.library("flatgrad"), iterations)
    session.verify(floats, values, tolerance=1e-9, exact=["value"])
    session.compare(values, floats, at_most(1.6), per="operation",
                    note=f"{iterations:,} iterations of x = x*a + b, {PYTHON}")

    if session.has("micrograd", "micrograd / flatgrad"):
        iterations = MICROGRAD_ITERATIONS
        values = chain_of_values(workloads.library("flatgrad"), iterations)
        theirs = chain_of_values(workloads.library("micrograd"), iterations)
        session.verify(theirs, values, tolerance=1e-12, exact=["value"])
        session.compare(theirs, values, per="operation",
                        note=f"{iterations:,} iterations, as deep as micrograd can go")


def chain_forward(library, iterations, name):
    """The chain's forward pass alone, without freeing the graph; `chain_backward` leaves freeing out too."""
    run = own_copy(workloads.chain)
    leaves = workloads.chain_leaves(library.Value)
    return Contender(name, repeated_after(lambda: leaves, lambda values: run(*values, iterations)),
                     lambda: workloads.chain_results(run, library.Value, iterations),
                     units=2 * iterations)


@case("chain-backward", "what the gradient adds to the forward pass that it follows")
def chain_backward_case(session):
    iterations = session.size(100_000, 20_000)
    library = workloads.library("flatgrad")
    backward = chain_backward(library, iterations, "backward")
    forward = chain_forward(library, iterations, "forward")
    session.verify(chain_of_floats(iterations), backward, forward, tolerance=1e-9)
    session.compare(backward, forward, at_most(0.25), per="operation",
                    note=f"{iterations:,} iterations of x = x*a + b")

    if session.has("micrograd", "micrograd / flatgrad"):
        iterations = MICROGRAD_ITERATIONS
        ours, theirs = (chain_backward(workloads.library(name), iterations, name)
                        for name in ("flatgrad", "micrograd"))
        session.verify(theirs, ours, tolerance=1e-12)
        session.compare(theirs, ours, per="operation",
                        note=f"backward after {iterations:,} iterations")


@case("readme", "many small graphs, each with its backward: micrograd's README", needs="micrograd")
def readme_case(session):
    ours, theirs = (readme_contender(workloads.library(name)) for name in ("flatgrad", "micrograd"))
    # The figures in micrograd's README, with its number of digits.
    session.check("micrograd", theirs.results(), "its README",
                  {"g": 24.7041, "a.grad": 138.8338, "b.grad": 645.5773}, 1e-6)
    session.verify(theirs, ours, tolerance=1e-12)
    session.compare(theirs, ours, at_least(60), per="expression", note=f"forward and backward, {PYTHON}")


@case("moons", "a step of the training loop that people bring from micrograd", needs="micrograd")
def moons_case(session):
    compare_demo(session, at_least(600))


@case("moons-fused", "the same training by flatgrad's layers, loss and optimizer",
      needs="micrograd")
def moons_fused_case(session):
    problem = workloads.moons_problem()
    trainers = peers.flatgrad_trainer(problem), peers.demo_trainer("micrograd", problem)
    checked = session.size(5, 2)
    ours, theirs = (peers.contender(trainer, 1, checked) for trainer in trainers)
    session.verify(theirs, ours, tolerance=1e-9)
    # The first step of micrograd, which is its fastest, against the mean of our training.
    ours = peers.contender(trainers[0], len(problem.rates), checked)
    session.compare(theirs, ours, at_least(6000), per="step",
                    note="the demo's code / batched layers, losses.hinge, optim.SGD")


def backward_contender(name, make, results):
    """The backward pass alone, from a new Value that make() computes for each pass."""
    def backward(value):
        value.backward()
        return value
    return Contender(name, repeated_after(make, backward), results)


@case("slices", "a backward pass from a part of a result costs about what one from all of it does")
def slices_case(session):
    from flatgrad import Tensor

    rng = np.random.default_rng(0)
    x = Tensor(rng.normal(size=(200, 1000)))
    W = Tensor(rng.normal(size=(session.size(600, 200),) * 2))
    for name, leaf, compute in [("log_softmax", x, lambda: x.log_softmax()), ("product", W, lambda: W @ W),
                                ("elements", W, lambda: (W * 2.0).tanh())]:
        def gradients(part, masked, leaf=leaf, compute=compute):
            """Two ways to the same gradients: a slice, or weights of 0."""
            leaf.grad = 0.0
            z = compute()
            weights = np.zeros(z.shape)
            weights[part] = 1.0
            (z * Tensor(weights, requires_grad=False) if masked else z[part]).sum().backward()
            return {f"gradient {k}": g for k, g in enumerate(leaf.grad.ravel()[::997].tolist())}

        for label, part in [("all rows but one", np.s_[1:]), ("every other row", np.s_[::2]),
                            ("all columns but one", np.s_[:, :-1])]:
            whole = backward_contender(f"{name} whole", lambda compute=compute: compute().sum(),
                                       lambda: gradients(part, True))
            some = backward_contender(f"{name} sliced", lambda compute=compute: compute()[part].sum(),
                                      lambda: gradients(part, False))
            session.verify(whole, some, tolerance=1e-9)
            session.compare(some, whole, at_most(1.5), work=f"{name}, {label}", per="backward")


@case("frozen", "layers without gradients save time, and cost none where they are mixed with others")
def frozen_case(session):
    MLP = workloads.library("flatgrad").MLP
    X = np.random.default_rng(0).normal(size=(4, 100))

    def contender(name, freeze):
        random.seed(0)
        model = MLP(100, [300, 220, 1], activation="tanh")
        freeze(model)

        def results():
            last = model.layers[-1].parameters()
            model.zero_grad()
            (model(X) ** 2).sum().backward()
            return {f"gradient {k}": p.grad for k, p in enumerate(last[::20])}
        return backward_contender(name, lambda: (model(X) ** 2).sum(), results)

    def all_but_the_last(model):
        model.requires_grad_(False)
        model.layers[-1].requires_grad_()

    def every_other(model):
        for p in model.layers[0].parameters()[::2]:
            p.requires_grad = False
    free = contender("free", lambda model: None)
    frozen, mixed = contender("frozen", all_but_the_last), contender("mixed", every_other)
    session.verify(free, frozen, mixed, tolerance=1e-12)
    session.compare(frozen, free, at_most(1.25), per="backward", note="100,000 parameters, all but the last layer frozen")
    session.compare(mixed, free, at_most(1.5), per="backward", note="every other weight of the first layer frozen")


@case("rules", "a user's rule that leads to a large heap does not slow all else down")
def rules_case(session):
    Value = workloads.library("flatgrad").Value
    count = session.size(300_000, 30_000)
    heap = [[k] for k in range(count)]

    def contender(name, objects):
        def steps(x):
            for _ in range(count):
                y = x * 2.0 + 1.0
                y = y * x
            return y

        def made():
            x = Value(1.0)
            x._backward = functools.partial(len, objects)
            return x
        return Contender(name, repeated_after(made, steps), lambda: {"value": steps(made()).data}, units=3 * count)
    large, small = contender("a rule over a heap", heap), contender("a rule over nothing", [])
    session.verify(large, small, tolerance=0.0)
    session.compare(large, small, at_most(1.5), per="operation", note=f"{count:,} lists that the rule leads to")


@case("isolation", "a backward pass pays for its own graph, not for what else is alive")
def isolation_case(session):
    nodes = session.size(5_000_000, 500_000)
    Value = workloads.library("flatgrad").Value

    def alone():
        return [Value(1.25), Value(0.75)], None

    def after_others():
        others = Others(Value, nodes)
        return [Value(1.25), Value(0.75)], others

    def around_others():
        leaves = [Value(1.25), Value(0.75)]
        return leaves, Others(Value, nodes)

    def contender(name, prepare):
        run = own_copy(workloads.ten_nodes)

        def measure(repeats):
            leaves, others = prepare()
            out = run(*leaves)
            for _ in range(SETTLING):
                out.backward()
            start = clock()
            for _ in range(repeats):
                out.backward()
            seconds = clock() - start
            del others   # keeps the other nodes alive until here
            return seconds

        def results():
            leaves, others = prepare()
            numbers = workloads.ten_nodes_results(run, *leaves)
            if others is not None:
                others.check(session.case)
            return numbers
        return Contender(name, measure, results)

    apart = contender("alone", alone)
    above = contender("others below", after_others)
    astride = contender("others between", around_others)
    session.verify(apart, above, astride, tolerance=0.0)
    session.compare(above, apart, at_most(2), per="backward",
                    note=f"ten nodes made after {nodes:,} unrelated ones")
    session.compare(astride, apart, per="backward",
                    note=f"{nodes:,} unrelated nodes between the leaves and the rest")


class Others:
    """Nodes that no other node uses, and a sample of them whose gradients must not change.

    Parameters
    ----------
    Value : type
    nodes : int
        The number of nodes; all are alive as long as this object.
    """

    SAMPLE = 1000   # the distance in nodes between two nodes of the sample

    def __init__(self, Value, nodes):
        self.leaves = workloads.chain_leaves(Value)
        x, a, b = self.leaves
        self.sample = []
        for k in range(nodes // self.SAMPLE):
            x = workloads.chain(x, a, b, self.SAMPLE // 2)
            x.grad = k + 0.5
            self.sample.append(x)

    def check(self, case):
        """Raise Mismatch if a gradient has changed."""
        expected = [0.0] * len(self.leaves) + [k + 0.5 for k in range(len(self.sample))]
        for value, right in zip(self.leaves + self.sample, expected):
            if value.grad != right:
                raise Mismatch(f"{case}: the gradient of an unrelated node was {right!r} and is "
                               f"{value.grad!r} after a backward pass")


# ---- start-up ----

# Name -> (target in milliseconds beyond plain Python, the command without the interpreter); PROGRAM is an empty file.
STARTS = {
    "flatgrad run": (30, ["-c", "import sys; from flatgrad.cli import script; sys.exit(script())", "run", "PROGRAM"]),
    "python -m flatgrad run": (30, ["-m", "flatgrad", "run", "PROGRAM"]),
    "import flatgrad": (15, ["-c", "import flatgrad"]),
    "from flatgrad.nn import MLP": (25, ["-c", "from flatgrad.nn import MLP"]),
    "python -m flatgrad --version": (None, ["-m", "flatgrad", "--version"]),
}


@case("startup", "what a program waits for before its first line, beyond Python's own start")
def startup_case(session):
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "empty.py")
        program.touch()
        # A place for compiled modules, which pip also compiles; independent of the environment variables.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def seconds(arguments):
            command = [sys.executable, *(str(program) if word == "PROGRAM" else word for word in arguments)]
            start = children_clock()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            return children_clock() - start
        plain = ["PROGRAM"]
        for name, (most, arguments) in STARTS.items():
            times = {name: [], "plain Python": []}
            for command in arguments, plain:   # once without timing, to compile the modules
                seconds(command)
            for k in range(session.rounds):
                pairs = [(name, arguments), ("plain Python", plain)]
                for contender, command in pairs if k % 2 == 0 else reversed(pairs):
                    times[contender].append(seconds(command))
            session.rows.append(Row(
                session.case, name, "ms", None if most is None else at_most(most),
                [1e3 * (ours - without) for ours, without in zip(*times.values())], times, "start",
                "a process each, its time less that of python empty.py"))


# ---- memory ----

@case("memory", "how large a graph fits: bytes for each node that is alive")
def memory_case(session):
    nodes = 2_000_000
    ours = processes.run("memory", "flatgrad", nodes)
    session.record("bytes per node, by stats()", ours["bytes"] / ours["nodes"], "bytes",
                   at_most(48), note=f"{nodes:,} nodes, only the last one held")
    session.record("largest on the way, by stats()", ours["worst"], "bytes",
                   note=f"from {nodes // 2:,} nodes on, at the growth of the tape")
    label = "bytes per node, by the system"
    if ours["resident"] is None:
        session.skip(label, NO_MEMORY_FIGURES)
        return
    session.record(label, ours["resident"] / ours["nodes"], "bytes", at_most(48),
                   note="growth of the resident set in a fresh process")
    label = "micrograd, by the system"
    if session.has("micrograd", label):
        theirs = processes.run("memory", "micrograd", session.size(200_000, 50_000))
        session.record(label, theirs["resident"] / theirs["nodes"], "bytes",
                       note=f"{theirs['nodes']:,} nodes")


@case("big-chain", "depth costs neither the stack nor more than a gigabyte")
def big_chain_case(session):
    operations = session.size(10_000_000, 1_000_000)
    figures = processes.run("big-chain", operations)
    session.check("flatgrad", figures["results"], "float",
                  workloads.chain_gradients(operations // 2), 1e-9, exact=["value"])
    what = f"{operations:,} operations"
    session.record("forward", 1e9 * figures["forward"] / operations, "ns", note=f"each of {what}")
    session.record("backward", 1e9 * figures["backward"] / operations, "ns", note=f"each of {what}")
    label = "peak memory"
    if figures["peak"] is None:
        session.skip(label, NO_MEMORY_FIGURES)
    else:
        session.record(label, figures["peak"] / 1e6, "MB", at_most(1000), note="the whole process")
