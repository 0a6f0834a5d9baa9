"""Physics: the constants of a damped pendulum, found by differentiating through its simulation, as a program.

    python examples/ode.py

A pendulum with friction is driven by a constant torque: x'' = -k sin(x) - c x' + t. ``flatgrad.scan`` carries angle
and speed through a Runge-Kutta integrator. The loss compares the angles with measurements, and its gradient by k, c
and t goes back through all steps. ``flatgrad.compile`` records the simulation and its loss once. Adam finds the
constants; each of its steps replays the program.

The script prints a derivative with its finite difference, losses, the constants found, all within 1 % of the true
ones, and the time of a step without and with `compile`.
"""
import argparse
import math
import random
import time

import flatgrad
from flatgrad.optim import Adam

TRUE, GUESS = [4.0, 0.15, 0.5], [3.0, 0.3, 0.2]   # k, c, t
DT, STEPS, START = 0.05, 200, (2.0, 0.0)          # ten seconds, from this angle and speed


def step(x, v, k, c, t):
    """Angle and speed a moment later, by the classical Runge-Kutta method of fourth order."""
    def acceleration(x, v):
        return t - k * flatgrad.sin(x) - c * v
    a1 = acceleration(x, v)
    v2, a2 = v + DT / 2 * a1, acceleration(x + DT / 2 * v, v + DT / 2 * a1)
    v3, a3 = v + DT / 2 * a2, acceleration(x + DT / 2 * v2, v + DT / 2 * a2)
    v4, a4 = v + DT * a3, acceleration(x + DT * v3, v + DT * a3)
    return x + DT / 6 * (v + 2 * (v2 + v3) + v4), v + DT / 6 * (a1 + 2 * (a2 + a3) + a4)


def simulate(constants):
    """The angle after each step, a Tensor."""
    def body(state, _):
        state = step(*state, *constants)
        return state, state[0]
    return flatgrad.scan(body, START, length=STEPS)[1]


def train(loss, steps):
    """The constants that Adam finds, and the mean time of a step in milliseconds."""
    logs = [flatgrad.Value(math.log(number)) for number in GUESS]   # parameters that keep the constants positive
    optimizer, start = Adam(logs, lr=0.02), time.perf_counter()
    for k in range(steps):
        constants = [x.exp() for x in logs]
        total = loss(constants)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if k % 50 == 0 and steps > 50:
            print(f"step {k:3d}  loss {total.data:.6f} ", "  ".join(f"{x.data:.3f}" for x in constants))
    return constants, 1e3 * (time.perf_counter() - start) / steps


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    random.seed(1)
    measured = [x.data + random.gauss(0.0, 0.01) for x in simulate(TRUE)]

    def plain(constants):
        return ((simulate(constants) - measured) ** 2).mean()

    loss = flatgrad.compile(plain)
    derivative = flatgrad.grad(loss)(GUESS)[0]
    ends = [plain([GUESS[0] + d, *GUESS[1:]]).data for d in (1e-6, -1e-6)]
    print(f"d loss / d k: {derivative:.5f}, by finite differences {(ends[0] - ends[1]) / 2e-6:.5f}")
    constants, compiled = train(loss, 301)
    for name, found, true in zip("kct", constants, TRUE):
        print(f"{name}  found {found.data:.3f}  true {true:.3f}  off by {abs(found.data / true - 1.0):.1%}")
    print(f"{train(plain, 5)[1]:.3f} ms a step, compiled {compiled:.3f} ms")


if __name__ == "__main__":
    main()
