"""Newton's method in Rosenbrock's valley: second derivatives, SciPy, and a plot of the paths.

    python examples/newton_rosenbrock.py [newton_rosenbrock.png]

Three ways lead to the minimum at (1, 1): Newton's method in a loop of a few lines, with the Hessian of
`flatgrad.hessian`; SciPy's trust-exact, with the same functions; and L-BFGS, which learns the curvature from gradients.
The script prints the number of steps, and how many digits of Newton's last points are right: their number about doubles
with each step. It writes a picture of the paths. The script needs SciPy, and the picture matplotlib.
"""
import argparse
import sys

import numpy as np

import flatgrad


def rosenbrock(x):
    return (1.0 - x[0]) ** 2 + 100.0 * (x[1] - x[0] ** 2) ** 2


grad, hessian = flatgrad.grad(rosenbrock), flatgrad.hessian(rosenbrock)


def newton(x):
    """The points of Newton's method; a step that leads upwards is halved."""
    path = [x]
    while rosenbrock(path[-1]) > 1e-20:
        x, step = path[-1], np.linalg.solve(hessian(path[-1]), grad(path[-1]))
        while rosenbrock(x - step) > rosenbrock(x):
            step /= 2.0
        path.append(x - step)
    return np.array(path)


def lbfgs(start):
    """The points of L-BFGS, one iteration at a time."""
    path, x = [start], flatgrad.Tensor(start)
    optimizer = flatgrad.optim.LBFGS([x], max_iter=1, max_eval=20, tolerance_change=0.0, line_search_fn="strong_wolfe")
    while optimizer.step(lambda: (rosenbrock(x).data, grad(x))) > 1e-12:
        path.append(x.numpy())
    return np.array(path)


def draw(paths, figure):
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    x = np.meshgrid(np.linspace(-1.6, 1.6, 300), np.linspace(-0.6, 1.8, 300))
    left.contourf(*x, np.log10(rosenbrock(x) + 1e-3), 24, cmap="Greys", alpha=0.4)
    for (name, path), marker in zip(paths.items(), "osx"):
        left.plot(*path.T, marker=marker, markersize=5, linewidth=1.2)
        right.semilogy(rosenbrock(path.T) + 1e-20, marker=marker, markersize=4, linewidth=1.0, label=name)
    left.set(title="Paths in Rosenbrock's valley", xlabel="x", ylabel="y")
    right.set(title="Height above the minimum", xlabel="step")
    right.legend()
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", default="newton_rosenbrock.png", help="the picture to write")
    path = parser.parse_args().path
    try:
        from matplotlib.figure import Figure
        from scipy.optimize import minimize
    except ModuleNotFoundError as error:
        package, purpose = ("scipy", "its method") if "scipy" in error.name else ("matplotlib", "the picture")
        sys.exit(f"newton_rosenbrock.py needs {package}, for {purpose}: {error}; to install it: pip install {package}")
    trust = [start := np.array([-1.2, 1.0])]
    minimize(rosenbrock, start, jac=grad, hess=hessian, method="trust-exact", tol=1e-9, callback=trust.append)
    paths = {"Newton": newton(start), "SciPy's trust-exact": np.array(trust), "L-BFGS": lbfgs(start)}
    for name, points in paths.items():
        print(f"{name}: {len(points) - 1} steps to", points[-1].round(4))
    print("right digits of Newton's last points:", *-np.log10(abs(paths["Newton"][-4:] - 1.0).max(axis=1)).round(1))
    draw(paths, Figure(figsize=(10.0, 4.2), layout="tight")).savefig(path, dpi=120)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
