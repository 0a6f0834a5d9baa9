"""Physics: the constants of a mass on a spring, found by differentiating through its simulation.

    python examples/spring.py

A mass on a spring, slowed by friction, hits a rubber stop if the mass swings too far: an ``if``. A Runge-Kutta
integrator in plain Python computes the motion. With Values instead of floats, the derivatives of the motion by the
constants are computed too, through every step and ``if``. Adam finds the constants from 40 measurements.

The script prints the number of scalars in one simulation, a derivative with its finite difference, the loss, and the
constants that it has found: within 1 % of the true ones.
"""
import argparse
import math
import random

import flatgrad
from flatgrad import Value
from flatgrad.optim import Adam

NAMES = ["spring", "friction", "stop"]
TRUE, GUESS = [4.0, 0.15, 30.0], [3.0, 0.5, 15.0]
DT, STEPS, EVERY, STOP_AT = 0.05, 200, 5, 0.6   # ten seconds, with a measurement every quarter of a second


def acceleration(x, v, spring, friction, stop):
    force = -spring * x - friction * v
    if x > STOP_AT:
        force = force - stop * (x - STOP_AT)
    return force


def simulate(constants):
    """Positions of a mass that starts at -1.0, at rest, by the classical Runge-Kutta method of fourth order."""
    x, v, positions = -1.0, 0.0, []
    for step in range(1, STEPS + 1):
        v1, a1 = v, acceleration(x, v, *constants)
        v2, a2 = v + DT / 2 * a1, acceleration(x + DT / 2 * v1, v + DT / 2 * a1, *constants)
        v3, a3 = v + DT / 2 * a2, acceleration(x + DT / 2 * v2, v + DT / 2 * a2, *constants)
        v4, a4 = v + DT * a3, acceleration(x + DT * v3, v + DT * a3, *constants)
        x = x + DT / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        v = v + DT / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
        if step % EVERY == 0:
            positions.append(x)
    return positions


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rng = random.Random(1)
    measured = [x + rng.gauss(0.0, 0.002) for x in simulate(TRUE)]   # with floats, so without a graph

    def loss_of(constants):
        return sum((x - m) ** 2 for x, m in zip(simulate(constants), measured)) / len(measured)

    constants = [Value(number) for number in GUESS]
    before = flatgrad.stats()["nodes"]
    loss = loss_of(constants)
    print(flatgrad.stats()["nodes"] - before, "scalars in a simulation and its loss")
    loss.backward()
    difference = (loss_of([3.0 + 1e-6, *GUESS[1:]]) - loss_of([3.0 - 1e-6, *GUESS[1:]])) / 2e-6
    print(f"d loss / d spring: {constants[0].grad:.6f}, by finite differences {difference:.6f}")

    # The parameters are the logarithms of the constants: the constants stay positive, and one learning rate suits all.
    parameters = [Value(math.log(number)) for number in GUESS]
    optimizer = Adam(parameters, lr=0.03)
    for step in range(301):
        constants = [p.exp() for p in parameters]
        loss = loss_of(constants)
        if step % 50 == 0:
            print(f"step {step:3d}  loss {loss.data:.6f}", *(f" {n} {c.data:6.3f}" for n, c in zip(NAMES, constants)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, c, true in zip(NAMES, constants, TRUE):
        print(f"{name:8}  found {c.data:6.3f}  true {true:6.3f}  off by {abs(c.data / true - 1.0):.1%}")


if __name__ == "__main__":
    main()
