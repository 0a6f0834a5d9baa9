"""The suite `python -m bench --peers`: flatgrad against other libraries.

Every row's ratio is a contender's time divided by flatgrad's, so flatgrad loses where a figure is below 1. A case
compares flatgrad with each contender in turn, micrograd first, before the imports of large packages leave objects in
memory.
"""
import random
from types import SimpleNamespace

from bench import contenders, peers, processes, workloads
from bench.runner import Contender, at_least, enter, own_copy, repeated, repeated_after

__all__ = ["COLUMNS", "PEERS"]

PEERS = {}

# The contenders, in the order of the table's columns.
COLUMNS = [*peers.TRAINERS, "pure Python", "flatgrad loop"]

# The steps for which a slow contender is timed: whole trainings would take minutes.
MICROGRAD_STEPS = 1


def case(name, why, needs=None):
    return enter(PEERS, name, why, needs)


def torch_library():
    """PyTorch's tensors of one number, in place of Values."""
    torch = peers.torch()

    def Value(number):
        return torch.tensor(number, dtype=torch.float64, requires_grad=True)
    return SimpleNamespace(name="torch", Value=Value)


def libraries(session):
    """The installed libraries that work on single numbers."""
    for name, library in (("micrograd", lambda: workloads.library("micrograd")),
                          ("torch", torch_library)):
        if session.has(name, f"{name} / flatgrad"):
            yield library()


# ---- single numbers ----

def jax_readme():
    """The expression of micrograd's README as a compiled function of a and b, which are JAX arrays already. The work is
    done when a call returns, because `peers.jax` has turned off asynchronous dispatch."""
    jax = peers.jax()
    function = jax.jit(jax.value_and_grad(
        lambda a, b: workloads.readme_formula(a, b, jax.nn.relu), argnums=(0, 1)))
    inputs = jax.numpy.asarray(-4.0), jax.numpy.asarray(2.0)

    def results():
        g, (a, b) = function(*inputs)
        return {"g": float(g), "a.grad": float(a), "b.grad": float(b)}
    return Contender("jax", repeated(lambda: function(*inputs)), results)


@case("readme", "the expression of micrograd's README, forward and backward")
def readme_case(session):
    ours = contenders.readme_contender(workloads.library("flatgrad"))

    def compare(theirs, note=""):
        if session.admits(ours, theirs, f"{theirs.name} / flatgrad", tolerance=1e-12):
            session.compare(theirs, ours, per="expression", note=note)
    for library in libraries(session):
        compare(contenders.readme_contender(library))
    if session.has("jax", "jax / flatgrad"):
        compare(jax_readme(), note="compiled beforehand")


@case("chain", "a user's own loop of small operations, forward and backward")
def chain_case(session):
    iterations = contenders.MICROGRAD_ITERATIONS
    flatgrad = workloads.library("flatgrad")
    makers = {"forward": contenders.chain_of_values,
              "backward": lambda library, n: contenders.chain_backward(library, n, library.name)}
    ours = {work: make(flatgrad, iterations) for work, make in makers.items()}
    for library in libraries(session):
        for work, make in makers.items():
            theirs = make(library, iterations)
            if session.admits(ours[work], theirs, f"{theirs.name} / flatgrad, {work}", tolerance=1e-9):
                session.compare(theirs, ours[work], work=work, per="operation",
                                note=f"{iterations:,} iterations of x = x*a + b")


@case("moons-demo", "micrograd's two-moons demo, its code unchanged", needs="micrograd")
def moons_demo_case(session):
    contenders.compare_demo(session)


# ---- trainings, with each library's own layers, loss and optimizer ----

def compare_trainings(session, problem, checked, targets):
    """Compare all trainings of the problem, after checking the first `checked` steps.

    `targets` has the targets of contenders, by their names.
    """
    flatgrad = peers.flatgrad_trainer(problem)
    steps = len(problem.rates)
    ours = peers.contender(flatgrad, steps, checked)
    for name, make in peers.TRAINERS.items():
        label = f"{name} / flatgrad"
        if not session.has(peers.PACKAGES.get(name, name), label):
            continue
        missing = peers.compiler_missing() if name == "torch compiled" else None
        if missing:
            session.skip(label, missing)
            continue
        trainer = own_copy(make)(problem)
        if trainer is None:   # far too slow
            continue
        slow = name == "micrograd" and problem.loss == "hinge"
        theirs = peers.contender(trainer, MICROGRAD_STEPS if slow else steps, checked)
        if session.admits(ours, theirs, label, tolerance=1e-9):
            session.compare(theirs, ours, targets.get(name), per="step", note=trainer.note)


@case("moons", "the demo's training: 100 samples, 337 parameters, hinge loss, SGD")
def moons_case(session):
    compare_trainings(session, workloads.moons_problem(), session.size(5, 2),
                      {"torch": at_least(4)})


@case("digits", "MLP(784, [128, 64, 10]), a batch of 64, cross-entropy, SGD")
def digits_case(session):
    compare_trainings(session, workloads.digits_problem(session.size(20, 3)), 3,
                      {"torch": at_least(1)})


@case("xor", "a 2-4-1 network of tanh on four samples, squared error, SGD")
def xor_case(session):
    compare_trainings(session, workloads.xor_problem(), 20, {"torch": at_least(20)})


# ---- trainings by epochs and batches ----

def compare_fits(session, problem):
    """Compare `Trainer.fit` with plain loops, after checking all epochs."""
    epochs = len(problem.rates)
    ours = peers.contender(peers.fit_trainer(problem), epochs, epochs)
    for name, make in peers.FITTERS.items():
        label = f"{name} / flatgrad"
        if name == "flatgrad loop" or session.has(name, label):
            theirs = peers.contender(make(problem), epochs, epochs)
            if session.admits(ours, theirs, label, tolerance=1e-9):
                session.compare(theirs, ours, per="epoch")


@case("fit-moons", "Trainer.fit against plain loops: the moons in one batch, hinge loss, L2, SGD")
def fit_moons_case(session):
    compare_fits(session, workloads.fit_moons_problem())


@case("fit-digits", "Trainer.fit against plain loops: 1,797 generated pictures of 8 x 8 in batches "
      "of 64, MLP(64, [64, 10]), cross-entropy, Adam")
def fit_digits_case(session):
    compare_fits(session, workloads.fit_digits_problem(session.size(5, 2)))


# ---- a model written in scalars ----

def gpt_contender(name, engine, documents, vocabulary, rounds=1):
    """examples/scalar_gpt.py with one of its engines. A repeat trains `rounds` times on each document; the results are
    those of the first time."""
    # Each contender has its own copy of the module, for the reason given in `own_copy`.
    scalar_gpt = contenders.example("scalar_gpt")

    def new():
        return scalar_gpt.GPT(engine, vocabulary, random.Random(42))

    def train(model, steps):
        return [loss.data for loss in scalar_gpt.train(model, documents, steps)]
    steps = rounds * len(documents)

    def results():
        model = new()
        losses = train(model, len(documents))
        numbers = {f"loss of step {k}": float(loss) for k, loss in enumerate(losses)}
        return numbers | {f"parameter {k}": float(p.data)
                          for k, p in enumerate(model.parameters())}
    return Contender(name, repeated_after(new, lambda model: train(model, steps)), results,
                     units=steps)


@case("gpt", "the character GPT of examples/, written in scalars, a name of eight letters a step")
def gpt_case(session):
    names = ["argparse", "builtins", "calendar", "colorsys"][:session.size(4, 1)]
    letters = sorted(set("".join(names)))
    end = len(letters)
    documents = [[end, *map(letters.index, name), end] for name in names]
    flatgrad = contenders.example("scalar_gpt").load_engine("flatgrad")
    ours = gpt_contender("flatgrad", flatgrad, documents, end + 1, rounds=25)
    theirs = gpt_contender("pure Python", contenders.example("pure_value"), documents, end + 1)
    session.verify(theirs, ours, tolerance=1e-9)
    session.compare(theirs, ours, at_least(250), per="step", note="Adam included")


# ---- memory ----

@case("memory", "what the graph of a batch takes, against a scalar's node")
def memory_case(session):
    sizes, samples = (784, 128, 64, 10), 100
    what = f"{samples} samples through MLP(784, [128, 64, 10])"
    ours = processes.run("batch-memory", samples, *sizes)
    session.record("batch's graph, by stats()", ours["bytes"] / 1e6, "MB", note=what)
    session.record("bytes per value computed", ours["bytes"] / ours["values"], "bytes",
                   note=f"{ours['values']:,} values, data and gradient in them")
    if ours["resident"] is not None:
        session.record("batch's graph, by the system", ours["resident"] / 1e6, "MB",
                       note="growth of the resident set in a fresh process")
    width, nodes = 64, session.size(20_000, 5_000)
    for where, scattered in (("scattered", True), ("neighbours", False)):
        ours = processes.run("operand-memory", nodes, width, scattered)
        session.record(f"bytes per operand, {where}", ours["bytes"] / ours["operands"], "bytes",
                       note=f"{nodes:,} flatgrad.dot of two vectors of {width} Values, by stats()")
    label = "micrograd, the same in scalars"
    if session.has("micrograd", label):
        theirs = processes.run("memory", "micrograd", session.size(200_000, 50_000))
        # A product and a sum for each weight, and a relu for each neuron except those of the last layer.
        nodes = samples * (sum(2 * a * b for a, b in zip(sizes, sizes[1:])) + sum(sizes[1:-1]))
        if theirs["resident"] is not None:
            session.record(label, nodes * theirs["resident"] / theirs["nodes"] / 1e6, "MB",
                           note=f"that batch: {nodes:,} nodes at "
                           f"{theirs['resident'] / theirs['nodes']:.0f} bytes, extrapolated")
