"""The suite `python -m bench --exports`: programs as C and as functions of JAX, against their replay.

A case first compares the numbers of all contenders with those of the replay, whose time is below in each ratio. The C
that `to_c` writes is compiled by gcc and by clang, with the flags of the C by hand. JAX has one thread.
"""
from dataclasses import replace

from bench import byhand, export_ways, peers, ways, workloads
from bench.runner import at_most, enter

__all__ = ["EXPORTS"]   # `flat_fits` has some more

EXPORTS = {}


def case(name, why, needs=None):
    return enter(EXPORTS, name, why, needs)


def in_c(session, replay, make, per, target, tolerance=1e-11, note=""):
    """Compare what `make` makes for each compiler with the replay. Returns the contenders."""
    made = []
    if not export_ways.c_compilers():
        session.skip("C", "neither gcc nor clang is there")
    for compiler in export_ways.c_compilers():
        contender = make(compiler)
        contender, more = contender if isinstance(contender, tuple) else (contender, note)
        session.verify(replay, contender, tolerance=tolerance)
        session.compare(contender, replay, target, per=per, note=more)
        made.append(contender)
    return made


def in_jax(session, replay, make, per, tolerance=1e-11):
    if session.has("jax", f"to_jax / {replay.name}"):
        contender, note = make()
        session.verify(replay, contender, tolerance=tolerance)
        session.compare(contender, replay, per=per, note=note)


@case("moons", "two moons, 100 samples, 337 parameters, hinge loss, L2, SGD: steps in a loop")
def moons_case(session):
    problem = workloads.moons_problem()
    problem = replace(problem, rates=problem.rates + [0.01] * session.size(300, 30))
    steps, checked = len(problem.rates), session.size(20, 2)

    def made(trainer):
        return peers.contender(trainer, steps, checked), trainer.note
    replay = made(ways.loop_trainer(problem))[0]
    ours = in_c(session, replay, lambda compiler: made(export_ways.c_loop_trainer(problem, compiler)), "step",
                at_most(1.5))
    missing = byhand.compiler_missing()
    if missing:
        session.skip("C by hand", missing)
    else:
        hand = made(byhand.mlp_trainer(problem))[0]
        session.verify(replay, hand, tolerance=1e-9)
        for contender in ours:
            session.compare(contender, hand, at_most(2), per="step", note="C: by hand, in lanes of samples")
    single = made(ways.compiled_trainer(problem))[0]
    in_jax(session, single, lambda: made(export_ways.jax_trainer(problem)), "step", 1e-9)


@case("xor", "exclusive or, 2-4-1 of tanh, squared error, SGD: epochs in a loop")
def xor_case(session):
    problem = replace(workloads.xor_problem(), rates=[0.1] * session.size(2_000, 100))

    def made(trainer):
        return peers.contender(trainer, len(problem.rates), 20), trainer.note
    replay = made(ways.loop_trainer(problem))[0]
    in_c(session, replay, lambda compiler: made(export_ways.c_loop_trainer(problem, compiler)), "epoch", at_most(1.5))
    single = made(ways.compiled_trainer(problem))[0]
    in_jax(session, single, lambda: made(export_ways.jax_trainer(problem)), "epoch", 1e-9)


@case("gpt", "the GPT of examples/, 9 positions: the loss of a document and its gradient")
def gpt_case(session):
    problem = workloads.names_problem(1, 1)
    replay = export_ways.replayed_document(problem)
    in_c(session, replay, lambda compiler: export_ways.c_document(problem, compiler), "document", at_most(1.5))
    in_jax(session, replay, lambda: export_ways.jax_document(problem), "document")


@case("pendulum", "a damped pendulum, 1,000 steps of Euler's method through scan, and its gradient")
def pendulum_case(session):
    task = workloads.pendulums("euler", session.size(100, 16), session.size(1000, 50))
    replay = export_ways.replayed_pendulum(task)
    ours = in_c(session, replay, lambda compiler: export_ways.c_pendulums(task, compiler), "trajectory", at_most(1.5),
                1e-8, "one by one")
    lanes = export_ways.replayed_lanes(task)
    together = in_c(session, lanes, lambda compiler: export_ways.c_pendulums_in_lanes(task, compiler), "trajectory",
                    at_most(1.5), 1e-8, "all in one call, in lanes")
    missing = byhand.compiler_missing()
    if missing:
        session.skip("C by hand", missing)
    else:
        hand = byhand.pendulum_contender(task)
        session.verify(replay, hand, tolerance=1e-8)
        for contender in (*ours, *together):
            session.compare(contender, hand, per="trajectory", note="C: by hand, in lanes")
    in_jax(session, lanes, lambda: export_ways.jax_pendulum(task), "trajectory", 1e-8)
