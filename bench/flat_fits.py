"""Cases of the suite `python -m bench --exports`: compiled functions as functions of one vector, and fits by L-BFGS.

A fit begins at the same parameters for all contenders, and ends at the first evaluation of the loss that has reached
the case's goal; the notes say how many evaluations of the loss and its gradient that takes. L-BFGS keeps 10 pairs, and
searches by Wolfe's conditions.
"""
import pickle

from bench import flat_ways
from bench.exports import EXPORTS
from bench.runner import at_most, enter

__all__ = ["EXPORTS"]


def fits(session, ours, own):
    """Compare fits of SciPy with flatgrad's own."""
    for fit in ours:
        session.verify(own.contender, fit.contender, tolerance=0.0)
    for fit in ours:
        session.compare(fit.contender, own.contender, per="fit",
                        note=f"{fit.evaluations} evaluations, and {own.evaluations}")


def with_torch(session, problem, fits_of_ours, rounds):
    """Compare fits with PyTorch's."""
    if not session.has("torch", "fits / PyTorch's LBFGS"):
        return
    torch = flat_ways.torch_fit(problem)
    session.verify(fits_of_ours[0].contender, torch.contender, tolerance=0.0)
    for fit in fits_of_ours:
        session.compare(fit.contender, torch.contender, at_most(1), per="fit", rounds=rounds,
                        note=f"{fit.evaluations} evaluations, and {torch.evaluations}")


@enter(EXPORTS, "flat", "the loss of the moons network and its gradient as a function of one vector")
def flat_case(session):
    problem = flat_ways.Moons()
    flat, by_values, product = flat_ways.call_contenders(problem)
    session.verify(by_values, flat, tolerance=0.0)
    session.compare(flat, by_values, at_most(1.1), per="call")
    session.compare(product, flat, per="call")
    session.record("pickle of f.flat", len(pickle.dumps(problem.loss.flat)), "bytes", at_most(20_000),
                   note=f"{len(problem.theta)} parameters, 100 samples in a call")


@enter(EXPORTS, "fit-moons", "L-BFGS on two moons, 337 parameters, tanh, logistic loss: to a loss of 0.011", "scipy")
def fit_moons_case(session):
    problem = flat_ways.Moons()
    problem.goal = session.size(problem.goal, 0.1)
    own, ours = flat_ways.own_fit(problem), flat_ways.scipy_fit(problem)
    fits(session, [ours], own)
    with_torch(session, problem, [ours, own], session.rounds)


@enter(EXPORTS, "fit-ode", "four constants of predators and prey from noisy counts, through 400 steps of the midpoint "
       "rule: to the least loss within 0.01 %", "scipy")
def fit_ode_case(session):
    problem = flat_ways.Predators(session.size(400, 60))
    own = flat_ways.own_fit(problem)
    ours = [flat_ways.scipy_fit(problem, [(0.01, 2.0)] * 4), flat_ways.least_squares_fit(problem)]
    fits(session, ours, own)
    with_torch(session, problem, [*ours, own], min(session.rounds, 3))
