"""SciPy's optimizers on compiled functions: a network on two moons, and the constants of an ODE.

    python examples/scipy_fit.py

`f.flat` is a compiled function of one vector, with its gradient, as `scipy.optimize.minimize` takes it. A network of
337 parameters learns by L-BFGS, and in a trust region by products of the Hessian. Then the four constants of Lotka and
Volterra's equations are found from noisy counts of predators and prey, through 400 steps of the midpoint rule: L-BFGS
gets a loss, and least squares the residuals. The script needs SciPy.
"""
import argparse
import random
import sys
import time

import numpy as np

import flatgrad
from flatgrad import Value, datasets, nn

TRUE, GUESS = (1.1, 0.4, 0.1, 0.4), (0.9, 0.3, 0.08, 0.5)   # births, eaten, grown, deaths
STEP, STEPS = 0.05, 400


def populations(constants):
    births, eaten, grown, deaths = constants

    def rates(prey, predators):
        return births * prey - eaten * prey * predators, grown * prey * predators - deaths * predators

    def step(state, _):
        middle = [x + STEP / 2 * k for x, k in zip(state, rates(*state))]
        state = tuple([x + STEP * k for x, k in zip(state, rates(*middle))])
        return state, flatgrad.stack(list(state))
    return flatgrad.scan(step, (10.0, 5.0), length=STEPS)[1]


def report(name, what, fit):
    start = time.perf_counter()
    found = fit()
    seconds = time.perf_counter() - start
    print(f"{name:13s} {found.nfev:3d} evaluations in {seconds:.2f} s: {np.round(found[what], 3)}")
    return found.x


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        from scipy.optimize import least_squares, minimize
    except ImportError as error:
        sys.exit(f"scipy_fit.py needs scipy, for its methods: {error}; to install it: pip install scipy")

    random.seed(1)
    model = nn.MLP(2, [16, 16, 1], activation="tanh")
    X, y = datasets.make_moons(100, noise=0.1, random_state=1)
    margins = flatgrad.compile(lambda: (1 - 2 * y) * model(X).reshape(len(y)))
    loss = flatgrad.compile(lambda: margins().softplus().mean()
                            + 1e-4 * flatgrad.dot(model.parameters(), model.parameters()))
    loss()   # the first call records the program
    flat = loss.flat
    print("two moons,", len(flat.theta), "parameters")
    report("L-BFGS-B", "fun", lambda: minimize(flat, flat.theta, jac=True, method="L-BFGS-B", options={"maxiter": 999}))
    flat.store(report("trust-ncg", "fun", lambda: minimize(flat, flat.theta, jac=True, method="trust-ncg",
                                                           hessp=flat.hessp)))
    print(f"{(margins().data < 0.0).mean():.0%} right")

    constants = [Value(x) for x in GUESS]
    counts = populations([Value(x) for x in TRUE]).numpy() * np.random.default_rng(1).lognormal(0.0, 0.1, (STEPS, 2))
    residuals = flatgrad.compile(lambda: (populations(constants) - counts).reshape(2 * STEPS))
    squares = flatgrad.compile(lambda: ((populations(constants) - counts) ** 2).mean())
    residuals(), squares()
    print("predators and prey: births, eaten, grown, deaths")
    bounds = [(0.01, 2.0)] * 4   # where the populations do not explode
    report("L-BFGS-B", "x", lambda: minimize(squares.flat, GUESS, jac=True, method="L-BFGS-B", bounds=bounds))
    report("least_squares", "x", lambda: least_squares(residuals.flat.residuals, GUESS, residuals.flat.jac))


if __name__ == "__main__":
    main()
