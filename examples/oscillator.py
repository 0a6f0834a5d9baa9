"""A physics-informed network: a network learns the motion of a damped oscillator from its equation alone.

    python examples/oscillator.py [oscillator.png]

The equation is u'' + 2 d w u' + w^2 u = 0, with u(0) = 1 and u'(0) = 0. With a network N, u(t) = 1 + tanh(t)^2 N(t/2)
begins as it should. The loss is the mean square of the equation's left side, the residual, at 100 times. So second
derivatives by time enter the loss, and training takes third derivatives. ``flatgrad.compile`` records the loss with
its derivatives, and L-BFGS minimises it.

The script prints losses and the greatest error against the exact solution, and writes a picture of the solution and of
the residual. The picture needs the extra `viz`.
"""
import argparse
import random
import sys

import numpy as np

import flatgrad
from flatgrad.nn import MLP
from flatgrad.optim import LBFGS

D, W, END = 0.1, 2.0, 8.0   # damping ratio, frequency, and the last time


def solution(model, t):
    return 1.0 + flatgrad.tanh(t) ** 2 * model(t / 2.0)


def residual(model, t):
    """What is left of the equation at each t."""
    u = solution(model, t)
    du, = flatgrad.gradients(u.sum(), t, create_graph=True)
    d2u, = flatgrad.gradients(du.sum(), t, create_graph=True)
    return d2u + 2.0 * D * W * du + W**2 * u


def exact(t):
    damped = W * np.sqrt(1.0 - D**2)
    return np.exp(-D * W * t) * (np.cos(damped * t) + D * W / damped * np.sin(damped * t))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", default="oscillator.png",
                        help="the picture to write, in any format of matplotlib")
    path = parser.parse_args().path
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        sys.exit(f"oscillator.py needs matplotlib, for the picture: {error}; to install it: pip install matplotlib")
    random.seed(0)
    model = MLP(1, [16, 16, 1], activation="tanh", init="xavier_uniform")
    times = flatgrad.Tensor(np.linspace(0.0, END, 100)[:, None])
    loss = flatgrad.compile(lambda: (residual(model, times) ** 2).mean())
    optimizer = LBFGS(model.parameters(), max_iter=2000, tolerance_change=0.0, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        (total := loss()).backward()
        return total
    print(f"loss {optimizer.step(closure).data:.2f} at first, {loss().data:.5f} in the end")
    t = np.linspace(0.0, END, 400)
    points = flatgrad.Tensor(t[:, None])
    u = solution(model, points).data[:, 0]
    print(f"greatest error {np.abs(u - exact(t)).max():.4f}")
    figure = Figure(figsize=(9.6, 4.0), layout="tight")
    left, right = figure.subplots(1, 2)
    left.plot(t, exact(t), color="0.75", linewidth=5, label="exact")
    left.plot(t, u, label="network")
    left.legend(title="u(t)")
    right.plot(t, residual(model, points).data, label="u'' + 2 d w u' + w$^2$ u")
    right.legend(title="the residual")
    figure.savefig(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
