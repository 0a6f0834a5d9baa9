"""The suite `python -m bench --programs`: compiled functions against C by hand, JAX and PyTorch.

A case first compares the numbers of all contenders with those of flatgrad as it is, without `compile`. A ratio with C
has flatgrad's time above and C's below, so it says how far flatgrad is from the bar. The other ratios have flatgrad's
time below. Where flatgrad has several ways, `best` is the one that the goals are about; `ways` has them all, and the
places of those to come.
"""
from dataclasses import replace

import numpy as np

from bench import byhand, peers, program_peers, ways, workloads
from bench.runner import Contender, Row, at_least, at_most, enter, own_copy, repeated

__all__ = ["PROGRAMS"]

PROGRAMS = {}


def case(name, why, needs=None):
    return enter(PROGRAMS, name, why, needs)


def best_of(session, ready, *wanted):
    """The first of the wanted ways that there is, as pairs of a name and a Contender or Trainer; else the one that is
    `ready`."""
    for name, way in wanted:
        if way is not None:
            return way
        session.skip(name, f"flatgrad has no such way yet; its place is in bench/ways.py; {ready.name} stands in")
    return ready


def against(session, plain, best, name, make, target=None, *, per, needs=None, tolerance=1e-9, work=""):
    """Make a contender, compare its numbers with those of `plain` and its time with that of `best`.

    `make` returns a Contender, or a pair of one and a note. `needs` is a package, or "C" for a C compiler.
    """
    over, under = (best.name, name) if needs == "C" else (name, best.name)
    label = f"{over} / {under}"
    if needs == "C":
        missing = byhand.compiler_missing()
        if missing:
            session.skip(label, missing)
            return
    elif needs is not None and not session.has(needs, label):
        return
    made = make()
    other, note = made if isinstance(made, tuple) else (made, "")
    session.verify(plain, other, tolerance=tolerance)
    pair = (best, other) if needs == "C" else (other, best)
    session.compare(*pair, target, per=per, note=note, work=work)


def timed(session, contender, label, unit, target=None, *, per, note=""):
    """A row of a contender's own time for one unit of its work."""
    size = {"us": 1e-6, "ms": 1e-3}[unit]
    seconds = session.race(contender, rounds=session.rounds)
    session.rows.append(Row(session.case, label, unit, target, [s / size for s in seconds[contender.name]], seconds,
                            per, note))


# ---- trainings of small networks ----

def training(session, problem, checked, per, loop, goals):
    """Compare the ways through a `workloads.Problem`. `loop`: about the whole training in one call; else about a call a
    step. `goals` has targets by the names of contenders, and names only those of interest."""
    steps = len(problem.rates)

    def made(make):
        trainer = own_copy(make)(problem)
        return peers.contender(trainer, steps, checked), trainer.note
    plain, compiled = (made(make)[0] for make in (peers.flatgrad_trainer, ways.compiled_trainer))
    session.verify(plain, compiled, tolerance=1e-9)
    best = compiled
    if loop:
        trainer = ways.loop_trainer(problem)
        best = best_of(session, compiled, ("loop", trainer and peers.contender(trainer, steps, checked)))
        session.verify(plain, best, tolerance=1e-9)
    session.compare(plain, best, per=per, note="without and with compile")
    rivals = {"C": ("C", lambda: made(byhand.mlp_trainer)),
              "torch": ("torch", lambda: made(peers.torch_trainer)),
              "jax": ("jax", lambda: made(peers.jax_trainer)),
              "jax scan": ("jax", lambda: made(peers.jax_scan_trainer)),
              "jax fori_loop": ("jax", lambda: program_peers.jax_fori_contender(problem, checked))}
    for name, (needs, make) in rivals.items():
        if name in goals:
            against(session, plain, best, name, make, goals[name], per=per, needs=needs)
    return best


@case("moons-step", "two moons, 100 samples, 337 parameters, hinge loss, L2, SGD: a call a step")
def moons_step_case(session):
    checked = session.size(20, 2)
    training(session, workloads.moons_problem(), checked, "step", False,
             {"C": None, "torch": None, "jax": at_least(3)})
    scalars, compiled = (ways.scalars_contender(name, name != "scalars", 20, checked)
                         for name in ("scalars", "compiled scalars"))
    session.verify(scalars, compiled, tolerance=1e-9)
    session.compare(scalars, compiled, per="step", note="the demo's code, sample by sample")


@case("moons-loop", "the same training in one call")
def moons_loop_case(session):
    problem = workloads.moons_problem()
    problem = replace(problem, rates=problem.rates + [0.01] * session.size(900, 100))
    training(session, problem, session.size(20, 2), "step", True, {"C": at_most(2.5), "jax scan": at_least(2)})


@case("xor-epoch", "exclusive or, 2-4-1 of tanh, squared error, SGD: a call an epoch")
def xor_epoch_case(session):
    training(session, workloads.xor_problem(), 20, "epoch", False, {"C": None, "torch": None, "jax": at_least(5)})


@case("xor-loop", "the same training in one call")
def xor_loop_case(session):
    problem = replace(workloads.xor_problem(), rates=[0.1] * session.size(20_000, 1_000))
    training(session, problem, 20, "epoch", True,
             {"C": None, "jax scan": at_least(3), "jax fori_loop": at_least(1.7)})


@case("mlp", "MLP(784, [128, 64, 10]), a batch of 64, cross-entropy, SGD: a call a step")
def mlp_case(session):
    training(session, workloads.digits_problem(session.size(20, 3)), 3, "step", False,
             {"torch": None, "jax": at_least(1.2)})


@case("mlp-loop", "the same training in one call")
def mlp_loop_case(session):
    problem = workloads.digits_problem(3)
    problem = replace(problem, rates=problem.rates + problem.rates[-1:] * session.size(197, 1))
    training(session, problem, 3, "step", True, {"jax scan": at_least(1.2)})


# ---- the GPT ----

def names(session, problem, *wanted):
    """The contenders of a `workloads.Names`: as it is, the best way, and a function that makes one of a Trainer."""
    steps, checked = len(problem.rates), 2

    def made(trainer):
        return replace(peers.contender(trainer, steps, checked), units=steps * problem.batch), trainer.note
    plain, compiled = (made(ways.names_trainer(problem, name, name == "compiled"))[0]
                       for name in ("flatgrad", "compiled"))
    session.verify(plain, compiled, tolerance=1e-9)
    best = best_of(session, compiled, *((name, trainer and made(trainer)[0]) for name, trainer in wanted))
    session.verify(plain, best, tolerance=1e-9)
    session.compare(plain, best, per="document", note="without and with compile")
    return plain, best, made


@case("gpt-document", "the GPT of examples/, 9 positions, with Adam: a document a call")
def gpt_document_case(session):
    problem = workloads.names_problem(1, session.size(96, 4))
    plain, best, made = names(session, problem)
    for name, make, target in (("torch", program_peers.torch_names_trainer, None),
                               ("jax", program_peers.jax_names_trainer, at_least(1.5)),
                               ("jax scan", program_peers.jax_names_scan_trainer, None)):
        against(session, plain, best, name, lambda make=make: made(make(problem)), target, per="document",
                needs=peers.PACKAGES.get(name, name))


@case("gpt-batch", "the same in batches of 16")
def gpt_batch_case(session):
    problem = workloads.names_problem(16, session.size(24, 2))
    plain, best, made = names(session, problem, ("loop", ways.loop_of_names(problem)),
                              ("lanes", ways.lanes_of_names(problem)))
    for name, make, target in (("C", byhand.names_trainer, at_most(2.5)),
                               ("torch", program_peers.torch_names_trainer, None),
                               ("jax", program_peers.jax_names_trainer, at_least(2)),
                               ("jax scan", program_peers.jax_names_scan_trainer, at_least(2))):
        against(session, plain, best, name, lambda make=make: made(make(problem)), target, per="document",
                needs=peers.PACKAGES.get(name, name))


# ---- pendulums ----

def pendulum_case(session, method, most):
    task = workloads.pendulums(method, session.size(1000, 16), session.size(1000, 50))
    plain = ways.pendulums_one_by_one(task)
    tensors = ways.tensors_of_pendulums(task)
    compiled = ways.compiled_pendulums(task)
    compiled_tensors = ways.tensors_of_pendulums(task, "compiled tensors", compiled=True)
    best = ways.lanes_of_pendulums(task)
    session.verify(plain, tensors, compiled, compiled_tensors, best, tolerance=1e-8)
    timed(session, best, best.name, "us", at_most(most), per="trajectory",
          note=f"{task.count:,} trajectories of {task.steps:,} steps, gradient by three constants")
    for other, note in ((plain, "Values, one by one"), (compiled, "one by one"), (tensors, "all in Tensors"),
                        (compiled_tensors, "all in Tensors, compiled")):
        session.compare(other, best, per="trajectory", note=note)
    for name, make, needs in (("C", byhand.pendulum_contender, "C"),
                              ("torch", program_peers.torch_pendulum_contender, "torch"),
                              ("jax", program_peers.jax_pendulum_contender, "jax")):
        against(session, plain, best, name, lambda make=make: make(task), per="trajectory", needs=needs,
                tolerance=1e-8)
    new = ways.compiled_pendulums
    first = replace(task, numbers=task.numbers[:, :1])
    timed(session, Contender("first call", repeated(lambda: new(first).results()), None), "first call", "ms",
          at_most(100), per="program", note="recording, laying out, a trajectory and its gradient")


@case("pendulum-euler", "a damped pendulum, 1,000 steps of Euler's method through scan, and its gradient")
def pendulum_euler_case(session):
    pendulum_case(session, "euler", 4)


@case("pendulum-rk4", "the same by the method of Runge and Kutta")
def pendulum_rk4_case(session):
    pendulum_case(session, "rk4", 20)


# ---- recording ----

@case("recording", "the GPT in scalar operations alone: to record it, and one lane of it")
def recording_case(session):
    from flatgrad import stats

    problem = workloads.names_problem(1, 1)
    model, loss = ways.scalar_names(problem)
    tokens = problem.documents[0].tolist()[:session.size(10, 3)]

    def gradients(total):
        model_parameters = model.parameters()
        for p in model_parameters:
            p.grad = 0.0
        total.backward()
        return {"loss": total.data, **{f"gradient {k}": p.grad for k, p in enumerate(model_parameters)}}

    def record():
        loss.clear()
        return loss(tokens)

    before = stats()["nodes"]
    total = model.loss(tokens)
    nodes = stats()["nodes"] - before
    total = None  # noqa: F841
    plain = Contender("flatgrad", repeated(lambda: model.loss(tokens).backward()),
                      lambda: gradients(model.loss(tokens)))
    recorded = Contender("recorded", repeated(record), lambda: gradients(record()))
    lane = Contender("one lane", repeated(lambda: loss(tokens).backward()), lambda: gradients(loss(tokens)))
    session.verify(plain, recorded, lane, tolerance=1e-9)
    timed(session, recorded, "record and lay out", "ms", at_most(100), per="program", note=f"{nodes:,} nodes")
    timed(session, lane, "loss and gradient, one lane", "us", at_most(50), per="document")
    session.compare(plain, lane, per="document", note="without and with compile")
    tokens_of = np.array(problem.documents[:8, :len(tokens)], float)
    in_lanes = ways.scalar_names_in_lanes(model, len(tokens))
    eight = Contender("8 lanes", repeated(lambda: in_lanes(tokens_of).sum().backward()),
                      lambda: gradients(in_lanes(tokens_of).sum()), units=8)
    session.verify(Contender("one by one", None, lambda: gradients(sum(map(loss, tokens_of.astype(int).tolist())))),
                   eight, tolerance=1e-9)
    timed(session, eight, "loss and gradient, 8 lanes", "us", at_most(8), per="document")


# ---- float32 ----

@case("float32", "loss and gradient of a batch, in lanes of 64-bit and of 32-bit numbers")
def float32_case(session):
    for work in ("gelu", "tanh", "mlp"):
        count = session.size({"gelu": 4096, "tanh": 4096, "mlp": 256}[work], 64)
        doubles, floats = (ways.batch_of(work, count, dtype) for dtype in ("float64", "float32"))
        session.verify(doubles, floats, tolerance=1e-4)
        session.compare(doubles, floats, work=work, per="batch", note=f"{count:,} samples")


# ---- products ----

PRODUCTS = [(16, 16, 16), (64, 64, 64), (256, 256, 256), (1000, 1000, 1000), (128, 64, 784), (64, 784, 128),
            (100, 16, 16)]   # samples, outputs, inputs


@case("products", "a batch through a linear layer: flatgrad.linear against the product of NumPy's BLAS")
def products_case(session):
    for sizes in PRODUCTS:
        sizes = [min(size, session.size(1000, 64)) for size in sizes]
        ours, numpys = workloads.products(*sizes)
        contenders = [Contender(name, repeated(work), lambda work=work: numbers_of(work()))
                      for name, work in (("numpy", numpys), ("flatgrad", ours))]
        session.verify(*contenders, tolerance=1e-9)
        session.compare(*contenders, at_least(0.95), work="x".join(map(str, sizes)), per="call",
                        note="the results are nodes of the tape")


def numbers_of(product):
    product = np.asarray(getattr(product, "data", product))
    return {"sum": product.sum().item(), "last": product[-1, -1].item(), "norm": np.linalg.norm(product).item()}
