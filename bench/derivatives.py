"""The suite `python -m bench --derivatives`: derivatives of derivatives against PyTorch and JAX.

A case first compares the numbers of all contenders, with those by hand where there are some. Every ratio has flatgrad's
time below. JAX is compiled by `jax.jit` unless its name says otherwise, and PyTorch runs eagerly, with `create_graph`.
"""
import numpy as np

from bench import derivative_peers, derivative_ways, processes, workloads
from bench.runner import Contender, at_least, at_most, enter

__all__ = ["DERIVATIVES"]

DERIVATIVES = {}


def case(name, why, needs=None):
    return enter(DERIVATIVES, name, why, needs)


def race(session, plain, tolerance, per, rivals):
    """Compare rivals, after checking their numbers against those of `plain`. `rivals`: the name of a contender, a
    function that makes it, or it and a note, and pairs of a contender of ours and a target."""
    for name, make, ours in rivals:
        if all([session.has(name.split()[0], f"{name} / {contender.name}") for contender, _ in ours]):
            made = make()
            rival, note = made if isinstance(made, tuple) else (made, "")
            session.verify(plain, rival, tolerance=tolerance)
            for contender, target in ours:
                session.compare(rival, contender, target, per=per, note=note)


@case("physics", "a physics-informed network: the gradient of mean((u'' + u)**2) by 321 parameters, 50 points")
def physics_case(session):
    problem = workloads.physics_problem()
    plain = derivative_ways.flatgrad_physics(problem)
    nested = derivative_ways.flatgrad_physics(problem, "grad of grad", mapped=True)
    compiled = derivative_ways.flatgrad_physics(problem, "compiled", compiled=True)
    lanes = derivative_ways.flatgrad_physics(problem, "lanes", mapped=True, compiled=True)
    session.verify(plain, nested, compiled, lanes, tolerance=1e-10)
    for contender, note in ((nested, "of one point after the other, without compile"),
                            (compiled, "without and with compile"), (lanes, "grad of grad, with compile and vmap")):
        session.compare(plain, contender, per="step", note=note)
    race(session, plain, 1e-10, "step", [
        ("torch", lambda: derivative_peers.torch_physics_contender(problem), [(plain, at_least(8)), (compiled, None)]),
        ("jax", lambda: derivative_peers.jax_physics_contender(problem), [(plain, None), (compiled, at_least(2))]),
        ("jax of sums", lambda: derivative_peers.jax_physics_contender(problem, "jax of sums", mapped=False),
         [(compiled, None)])])


@case("rosenbrock", "the Hessian of Rosenbrock's function of 4 variables, in scalars")
def rosenbrock_case(session):
    f, x = workloads.rosenbrock, workloads.ROSENBROCK
    plain = derivative_ways.flatgrad_hessian("flatgrad", f, x)
    compiled = derivative_ways.flatgrad_hessian("compiled", f, x, compiled=True)
    session.verify(derivative_ways.by_hand(workloads.rosenbrock_hessian, x), plain, compiled, tolerance=1e-12)
    session.compare(plain, compiled, per="Hessian", note="without and with compile")
    race(session, plain, 1e-12, "Hessian", [
        ("torch", lambda: derivative_peers.torch_rosenbrock_contender(f, x), [(plain, at_least(50))]),
        ("jax", lambda: derivative_peers.jax_rosenbrock_contender(f, x), [(plain, None), (compiled, at_least(1))]),
        ("jax without jit", lambda: derivative_peers.jax_rosenbrock_contender(f, x, "jax without jit", jit=False),
         [(plain, None)])])


@case("hessian", "the Hessian of the loss of MLP(2, [16, 16, 1]), 337 x 337, 100 samples of two moons")
def hessian_case(session):
    problem = workloads.smooth_moons_problem(session.size(100, 10))
    f, x = derivative_ways.by_vector(problem), problem.initial
    plain = derivative_ways.flatgrad_hessian("flatgrad", f, x)
    compiled = derivative_ways.flatgrad_hessian("compiled", f, x, compiled=True)
    session.verify(plain, compiled, turned(plain), turned(compiled), tolerance=1e-10)
    session.compare(plain, compiled, per="Hessian", note="without and with compile")
    race(session, plain, 1e-10, "Hessian", [
        ("torch", lambda: derivative_peers.torch_hessian_contender(problem), [(plain, None)]),
        ("jax", lambda: derivative_peers.jax_hessian_contender(problem), [(plain, None), (compiled, None)])])


def turned(contender):
    """Only results: a contender's matrix, turned over; the same if it is symmetric."""
    def results():
        numbers = list(contender.results().values())
        return workloads.numbers_of("element", np.reshape(numbers, (int(len(numbers) ** 0.5), -1)).T)
    return Contender(f"{contender.name}, turned", None, results)


@case("create-graph", "the memory of a graph and of its gradient with create_graph, against that of the graph")
def memory_case(session):
    """Of several sizes together, because arrays grow by steps."""
    for name, size in ("chain", session.size(100_000, 10_000)), ("batch", session.size(1_000, 100)):
        found = [processes.run("create-graph-memory", name, round(factor * size))
                 for factor in session.size((1.0, 1.2, 1.4, 1.7, 2.0), (1.0, 1.4))]
        graph, both = (sum(figures[what] for figures in found) for what in ("graph", "both"))
        session.record(f"{name}: both / graph", both / graph, "times", at_most(4),
                       note=f"{found[0]['graph'] / 1e6:.3g} MB and more, of {found[0]['what']} and more, by stats()")
