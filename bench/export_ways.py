"""Programs in other languages for the suite `python -m bench --exports`: as C that a compiler of this machine has
compiled, as functions of JAX, and as they are replayed."""
import ctypes
import subprocess
from functools import cache

import numpy as np

from bench import byhand, contenders, peers, ways, workloads
from bench.peers import Trainer
from bench.runner import Contender, repeated

__all__ = ["c_compilers", "c_document", "c_loop_trainer", "c_pendulums", "c_pendulums_in_lanes", "document",
           "jax_document", "jax_pendulum", "jax_trainer", "pendulum", "replayed_document", "replayed_lanes",
           "replayed_pendulum"]


@cache
def c_compilers():
    """The compilers that there are, as the first word of a command."""
    import shutil

    return [name for name in ("gcc", "clang") if shutil.which(name)]


def library(source, name, compiler):
    """A text in C as a library of ctypes, with the flags of the contenders by hand but in standard C."""
    import flatgrad

    folder = byhand.build_folder()
    c, file = folder / f"{name}-{compiler}.c", folder / f"{name}-{compiler}.so"
    c.write_text(source, encoding="utf-8")
    flags = ["-std=c11" if flag.startswith("-std") else flag for flag in byhand.FLAGS]
    for target in byhand.TARGETS[flatgrad.stats()["isa"]]:
        command = [compiler, *flags, *target, "-o", str(file), str(c), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return ctypes.CDLL(str(file))
    raise OSError(f"{c.name}: {done.stderr.strip().splitlines()[0]}")


def taken(c, what):
    """`what` where functions of the C take an array for numbers in between."""
    return what if f"{c.name}_work" in c.header else ""


# ---- trainings ----

def moons_loss(problem):
    """What `ways.compiled_state` has: a compiled loss, parameters, and an optimizer."""
    return ways.compiled_state(problem)()


LOOP = """
void train(double *parameters, const double *rates, int steps, double *losses)
{{
    static {name}_state state;
    {work}
    {name}_parameters p;
    for (int k = 0; k < {count}; k++)
        p.value[k] = parameters[k];
    {name}_state_start(&state);
    for (int k = 0; k < steps; k++) {{
        state.lr = rates[k];
        losses[k] = {name}_step(&p, &state{given});
    }}
    for (int k = 0; k < {count}; k++)
        parameters[k] = p.value[k];
}}
"""


def c_loop_trainer(problem, compiler):
    """The whole training in a loop around the step of the exported program."""
    loss, parameters, optimizer = moons_loss(problem)
    c = loss.to_c(optimizer=optimizer, name="training")
    source = c.source + LOOP.format(name=c.name, count=len(parameters), given=taken(c, ", &work"),
                                    work=taken(c, f"static {c.name}_work work;"))
    train = library(source, f"training-{len(parameters)}", compiler).train
    rates, losses = np.array(problem.rates), np.empty(len(problem.rates))
    initial = np.array([p.data for p in parameters])

    def run(state, steps):
        train(byhand.doubles(state), byhand.doubles(rates), steps, byhand.doubles(losses))
        return losses[:steps]
    return Trainer(f"C by {compiler}", initial.copy, run, list, note=f"{c.source.count(chr(10)):,} lines")


def jax_trainer(problem):
    """A call of the exported loss and its gradient for each step, compiled by `jax.jit`."""
    j = peers.jax()
    loss, _, _ = moons_loss(problem)
    exported = loss.to_jax()

    def step(p, rate):
        value, gradient = j.value_and_grad(exported)(p)
        return p - rate * gradient, value

    def new():
        return [j.numpy.asarray(exported.parameters)]
    return peers.stepped(j, "to_jax", step, [j.numpy.asarray(rate) for rate in problem.rates], new,
                         lambda state: np.asarray(state[0]).tolist())


# ---- a document of the GPT: the loss and its gradient ----

def document(problem):
    """The compiled loss of examples/scalar_gpt.py, and a document."""
    import random

    import flatgrad

    scalar_gpt = contenders.example("scalar_gpt")
    model = ways.with_initial(scalar_gpt.GPT(scalar_gpt.load_engine("flatgrad"), 27, random.Random(0)), problem)
    loss, tokens = flatgrad.compile(model.loss), problem.documents[0].astype(float).tolist()
    loss(tokens)
    return loss, tokens, model


def found(value, gradient):
    return {"loss": float(value), **workloads.numbers_of("gradient", gradient)}


def replayed_document(problem):
    loss, tokens, _ = document(problem)
    flat, theta = loss.flat, loss.flat.theta
    return Contender("replay", repeated(lambda: flat(theta, tokens)), lambda: found(*flat(theta, tokens)))


REPEATED = """
double work_times(int times, const double *theta, const double *tokens, double *gradient)
{{
    {work}
    double sum = 0.0;
    for (int k = 0; k < times; k++)
        sum = {name}_gradient((const {name}_parameters *)theta, tokens, ({name}_parameters *)gradient{given});
    return sum;
}}
"""


def c_document(problem, compiler):
    loss, tokens, _ = document(problem)
    c = loss.to_c(name="document")
    work = library(c.source + REPEATED.format(name=c.name, given=taken(c, ", &work"),
                                              work=taken(c, f"static {c.name}_work work;")),
                   f"document-{len(loss.flat.theta)}", compiler).work_times
    work.restype = ctypes.c_double
    theta, tokens = loss.flat.theta, np.array(tokens)
    gradient = np.empty_like(theta)
    given = [byhand.doubles(x) for x in (theta, tokens, gradient)]
    return Contender(f"C by {compiler}", repeated(lambda: work(1, *given)), lambda: found(work(1, *given), gradient))


def jax_document(problem):
    j = peers.jax()
    loss, tokens, _ = document(problem)
    exported = loss.to_jax()
    step = j.jit(j.value_and_grad(exported))
    theta, tokens = j.numpy.asarray(exported.parameters), j.numpy.asarray(tokens)
    compiling = peers.seconds_of(lambda: j.block_until_ready(step(theta, tokens)))
    return (Contender("to_jax", repeated(lambda: j.block_until_ready(step(theta, tokens))),
                      lambda: found(*step(theta, tokens))), f"{compiling:.1f} s to compile")


# ---- pendulums ----

def pendulum(task):
    """The compiled loss of one trajectory."""
    import flatgrad

    loss = flatgrad.compile(ways.end_loss(task))
    loss(*task.numbers[:, 0].tolist())
    return loss


def replayed_pendulum(task):
    """One after the other."""
    import flatgrad

    gradient = flatgrad.value_and_grad(pendulum(task), (2, 3, 4))
    columns = task.numbers.T.tolist()

    def work():
        return [gradient(*column) for column in columns]

    def results():
        losses, gradients = zip(*work())
        return task.results(losses, zip(*gradients))
    return Contender("replay", repeated(work), results, units=task.count)


ONE_BY_ONE = """
void solve(const double *numbers, int count, double *found)
{{
    {work}
    for (int i = 0; i < count; i++) {{
        double d[5];
        found[i] = {name}_gradient(numbers[i], numbers[count + i], numbers[2 * count + i], numbers[3 * count + i],
                                   numbers[4 * count + i], &d[0], &d[1], &d[2], &d[3], &d[4]{given});
        for (int k = 0; k < 3; k++)
            found[(k + 1) * count + i] = d[k + 2];
    }}
}}
"""


def c_pendulums(task, compiler):
    """One trajectory after the other."""
    c = pendulum(task).to_c(gradient="arguments", name="trajectory")
    solve = library(c.source + ONE_BY_ONE.format(name=c.name, given=taken(c, ", &work"),
                                                 work=taken(c, f"static {c.name}_work work;")),
                    f"trajectory-{task.method}", compiler).solve
    return solved(task, solve, f"C by {compiler}")


def solved(task, solve, name):
    numbers, answers = np.ascontiguousarray(task.numbers), np.empty((4, task.count))

    def work():
        solve(byhand.doubles(numbers), task.count, byhand.doubles(answers))

    def results():
        work()
        return task.results(answers[0], answers[1:])
    return Contender(name, repeated(work), results, units=task.count)


def c_pendulums_in_lanes(task, compiler):
    """All trajectories by the exported `vmap`: the gradient of the sum of the losses."""
    import flatgrad

    mapped = flatgrad.vmap(flatgrad.compile(ways.end_loss(task)))

    @flatgrad.compile
    def total(x, v, k, c, t):
        return mapped(x, v, k, c, t).sum()
    c = total.to_c(gradient="arguments", name="trajectories", arguments=[flatgrad.Tensor(row) for row in task.numbers])
    source = c.source + f"""
double solve(const double *numbers, double *slopes)
{{
    {taken(c, f"static {c.name}_work work;")}
    enum {{ N = {task.count} }};
    return {c.name}_gradient(numbers, numbers + N, numbers + 2 * N, numbers + 3 * N, numbers + 4 * N, slopes,
                             slopes + N, slopes + 2 * N, slopes + 3 * N, slopes + 4 * N{taken(c, ", &work")});
}}
"""
    solve = library(source, f"trajectories-{task.method}", compiler).solve
    solve.restype = ctypes.c_double
    numbers, slopes = np.ascontiguousarray(task.numbers), np.empty((5, task.count))

    def work():
        return solve(byhand.doubles(numbers), byhand.doubles(slopes))

    def results():
        return sums(work(), slopes[2:])
    return Contender(f"C by {compiler}, vmap", repeated(work), results, units=task.count)


def sums(total, slopes):
    """What is compared of trajectories that are computed together."""
    return {"sum": float(total), **workloads.numbers_of("slope", np.ravel(slopes))}


def replayed_lanes(task):
    """All trajectories in lanes, value and gradient off the tape."""
    import flatgrad

    mapped = flatgrad.vmap(flatgrad.compile(ways.end_loss(task)))
    gradient = flatgrad.value_and_grad(flatgrad.compile(lambda x, v, k, c, t: mapped(x, v, k, c, t).sum()), (2, 3, 4))
    rows = list(task.numbers)
    return Contender("replay, vmap", repeated(lambda: gradient(*rows)),
                     lambda: sums(*[part if n == 0 else np.array(part) for n, part in enumerate(gradient(*rows))]),
                     units=task.count)


def jax_pendulum(task):
    """All trajectories by `jax.vmap` of the exported loss of one."""
    j = peers.jax()
    exported = pendulum(task).to_jax()
    step = j.jit(j.vmap(j.value_and_grad(lambda *a: exported(exported.parameters, *a), (2, 3, 4))))
    rows = [j.numpy.asarray(row) for row in task.numbers]
    compiling = peers.seconds_of(lambda: j.block_until_ready(step(*rows)))

    def results():
        value, slopes = step(*rows)
        return sums(np.asarray(value).sum(), np.array(slopes))
    return (Contender("to_jax", repeated(lambda: j.block_until_ready(step(*rows))), results, units=task.count),
            f"{compiling:.1f} s to compile")
