"""Calculus of variations: a soap film between two rings, found by minimising its area with Newton's method.

    python examples/catenary.py [catenary.png]

A film that hangs between two rings is a surface of revolution of least area: the integral of 2 pi y sqrt(1 + y'^2) over
x from -1 to 1. Its curve is a catenary, y = cosh(x) for rings of that height. The script replaces the curve by a
polygon of 100 sides, and the integral by a sum. The unknowns are the heights of the 99 corners. Newton's method takes
the gradient and the Hessian of the sum, and begins with a cylinder.

The script prints the area in each step, the gradient, whose digits double near the end, and the greatest distance from
cosh, which in the end is the error of the polygon. It writes a picture of the steps. The picture needs the extra `viz`.
"""
import argparse
import math
import sys

import numpy as np

import flatgrad


def area_of(sides):
    """The area of the film as a function of the heights of the corners within."""
    ring, width = [math.cosh(1.0)], 2.0 / sides

    def area(heights):
        y = flatgrad.cat([ring, heights, ring])
        slope = (y[1:] - y[:-1]) / width
        return math.pi * width * ((y[1:] + y[:-1]) * (1.0 + slope**2).sqrt()).sum()
    return flatgrad.compile(area)


def newton(f, x, steps):
    """For each step the point, the value of `f`, and its gradient."""
    value_and_gradient, hessian = flatgrad.value_and_grad(f), flatgrad.hessian(f)
    for _ in range(steps):
        value, gradient = value_and_gradient(x)
        yield x, value, gradient
        x = x - np.linalg.solve(hessian(x), gradient)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", default="catenary.png",
                        help="the picture to write, in any format of matplotlib")
    path = parser.parse_args().path
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        sys.exit(f"catenary.py needs matplotlib, for the picture: {error}; to install it: pip install matplotlib")
    sides, ring = 100, math.cosh(1.0)
    x = np.linspace(-1.0, 1.0, sides + 1)
    figure = Figure(figsize=(6.4, 4.8), layout="tight")
    axes = figure.subplots()
    axes.plot(x, np.cosh(x), color="0.75", linewidth=6, label="cosh(x)")
    for step, (heights, area, gradient) in enumerate(newton(area_of(sides), np.full(sides - 1, ring), 8)):
        distance = np.abs(heights - np.cosh(x[1:-1])).max()
        print(f"step {step}  area {area:.6f}  gradient {np.abs(gradient).max():.12f}  distance {distance:.6f}")
        if step < 5:
            axes.plot(x, [ring, *heights, ring], label=f"after {step} step{'s' * (step != 1)}")
    print(f"the film's area in closed form: {math.pi * (2.0 + math.sinh(2.0)):.6f}")
    axes.set(xlabel="x", ylabel="y", ylim=(0.0, 1.6), title="a soap film between two rings")
    axes.legend(loc="lower center", ncols=2)
    figure.savefig(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
