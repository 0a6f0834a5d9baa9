"""Fits by L-BFGS for the suite `python -m bench --exports`: SciPy's over functions of one vector, flatgrad's own, and
PyTorch's. Each ends at the first evaluation that has reached a goal."""
import functools
import random

import numpy as np

from bench import peers
from bench.runner import Contender, repeated

__all__ = ["Moons", "Predators", "least_squares_fit", "own_fit", "scipy_fit", "torch_fit"]

MOST = 2_000   # evaluations
HISTORY = 10   # pairs that L-BFGS keeps, SciPy's default


class Reached(Exception):
    """The goal of a fit has been reached."""


class Fit:
    """A contender that fits until the loss is at the goal.

    Parameters
    ----------
    name : str
    run : callable
        ``run(check)`` runs the optimizer, which calls ``check(loss)`` after each evaluation.
    goal : float
    """

    def __init__(self, name, run, goal):
        self.run, self.goal, self.evaluations = run, goal, 0
        self.contender = Contender(name, repeated(self.fit), lambda: {"reached": float(self.fit())})

    def check(self, loss):
        self.evaluations += 1
        if loss <= self.goal:
            raise Reached

    def fit(self):
        """Whether it has reached the goal."""
        self.evaluations = 0
        try:
            self.run(self.check)
        except Reached:
            return True
        return False


class Moons:
    """A network of 337 parameters on two moons: logistic loss and a penalty."""

    goal = 0.011

    def __init__(self):
        import flatgrad
        from flatgrad import nn
        from flatgrad.datasets import make_moons

        random.seed(1)
        self.model = nn.MLP(2, [16, 16, 1], activation="tanh")
        self.parameters = self.model.parameters()
        X, y = make_moons(100, noise=0.1, random_state=1)
        self.args = X, 2.0 * y - 1.0

        @flatgrad.compile
        def loss(X, y):
            margins = -y * self.model(X).reshape(len(y))
            return margins.softplus().mean() + 1e-4 * flatgrad.dot(self.parameters, self.parameters)
        loss(*self.args)
        self.loss, self.theta = loss, loss.flat.theta

    def torch(self):
        """The parameters and the loss, as one writes them with PyTorch."""
        t, at, layers = peers.torch(), 0, []
        for n_in, n_out in (2, 16), (16, 16), (16, 1):
            rows = self.theta[at:at + n_out * (n_in + 1)].reshape(n_out, n_in + 1)   # the weights of a neuron, its bias
            at += rows.size
            layer = t.nn.Linear(n_in, n_out, dtype=t.float64)
            with t.no_grad():
                layer.weight.copy_(t.tensor(rows[:, :-1]))
                layer.bias.copy_(t.tensor(rows[:, -1]))
            layers += [layer, t.nn.Tanh()]
        model = t.nn.Sequential(*layers[:-1])
        X, y = map(t.tensor, self.args)
        parameters = list(model.parameters())

        def loss():
            penalty = sum((p * p).sum() for p in parameters)
            return t.nn.functional.softplus(-y * model(X)[:, 0]).mean() + 1e-4 * penalty
        return parameters, loss


class Predators:
    """The constants of Lotka and Volterra's equations, from noisy counts of predators and prey after each step of the
    midpoint rule."""

    true, guess, step = (1.1, 0.4, 0.1, 0.4), (0.9, 0.3, 0.08, 0.5), 0.05

    def __init__(self, steps):
        import flatgrad
        from flatgrad import Value

        self.steps = steps
        noise = np.random.default_rng(1).lognormal(0.0, 0.1, (steps, 2))
        counts = self.populations([Value(x) for x in self.true]).numpy() * noise
        self.parameters, self.theta, self.args = [Value(x) for x in self.guess], np.array(self.guess), (counts,)
        self.loss = flatgrad.compile(lambda counts: ((self.populations(self.parameters) - counts) ** 2).mean())
        self.residuals = flatgrad.compile(
            lambda counts: (self.populations(self.parameters) - counts).reshape(2 * steps))
        self.loss(counts), self.residuals(counts)
        best = self.loss.flat.value(self.true, counts)
        self.goal = least_value(self, best) * 1.0001

    def populations(self, constants):
        import flatgrad

        births, eaten, grown, deaths = constants

        def rates(prey, predators):
            return births * prey - eaten * prey * predators, grown * prey * predators - deaths * predators

        def step(state, _):
            middle = [x + self.step / 2 * k for x, k in zip(state, rates(*state))]
            state = tuple([x + self.step * k for x, k in zip(state, rates(*middle))])
            return state, flatgrad.stack(list(state))
        return flatgrad.scan(step, (10.0, 5.0), length=self.steps)[1]

    def torch(self):
        t = peers.torch()
        constants = t.tensor(self.guess, dtype=t.float64, requires_grad=True)
        counts, signs = t.tensor(self.args[0]), t.tensor([1.0, -1.0], dtype=t.float64)

        def loss():
            alone, together = constants[[0, 3]] * signs, constants[[1, 2]] * -signs
            state, path = t.tensor([10.0, 5.0], dtype=t.float64), []
            for _ in range(self.steps):
                middle = state + self.step / 2 * (alone * state + together * state[0] * state[1])
                state = state + self.step * (alone * middle + together * middle[0] * middle[1])
                path.append(state)
            return ((t.stack(path) - counts) ** 2).mean()
        return [constants], loss


def least_value(problem, best):
    """The least loss, by some steps of Newton's method from the true constants."""
    flat, theta = problem.loss.flat, np.array(problem.true)
    for _ in range(20):
        theta = theta - np.linalg.solve(flat.hessian(theta, *problem.args), flat.gradient(theta, *problem.args))
    return min(best, flat.value(theta, *problem.args))


# ---- contenders ----

def scipy_fit(problem, bounds=None):
    from scipy.optimize import minimize

    flat, args = problem.loss.flat, problem.args

    def run(check):
        def evaluate(theta):
            found = flat(theta, *args)
            check(found[0])
            return found
        minimize(evaluate, problem.theta, jac=True, method="L-BFGS-B", bounds=bounds,
                 options={"maxcor": HISTORY, "maxfun": MOST, "maxiter": MOST, "ftol": 0.0, "gtol": 0.0})
    return Fit("SciPy's L-BFGS-B", run, problem.goal)


def least_squares_fit(problem):
    from scipy.optimize import least_squares

    flat, args = problem.residuals.flat, problem.args

    def run(check):
        def residuals(theta):
            found = flat.residuals(theta, *args)
            check(found @ found / len(found))
            return found
        least_squares(residuals, problem.theta, lambda theta: flat.jac(theta, *args), max_nfev=MOST)
    return Fit("SciPy's least_squares", run, problem.goal)


def own_fit(problem):
    """flatgrad.optim.LBFGS, on the Values themselves."""
    import flatgrad
    from flatgrad.nn.utils import vector_to_parameters

    evaluate = flatgrad.value_and_grad(problem.loss, parameters=problem.parameters)

    def run(check):
        vector_to_parameters(problem.theta, problem.parameters)
        optimizer = flatgrad.optim.LBFGS(problem.parameters, max_iter=MOST, max_eval=MOST, tolerance_grad=0.0,
                                         tolerance_change=0.0, history_size=HISTORY, line_search_fn="strong_wolfe")

        def closure():
            found = evaluate(*problem.args)
            check(found[0])
            return found
        optimizer.step(closure)
    return Fit("optim.LBFGS", run, problem.goal)


def torch_fit(problem):
    t = peers.torch()
    parameters, loss = problem.torch()
    initial = [p.detach().clone() for p in parameters]

    def run(check):
        with t.no_grad():
            for p, x in zip(parameters, initial):
                p.copy_(x)
        optimizer = t.optim.LBFGS(parameters, max_iter=MOST, max_eval=MOST, tolerance_grad=0.0, tolerance_change=0.0,
                                  history_size=HISTORY, line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            value = loss()
            value.backward()
            check(value.item())
            return value
        optimizer.step(closure)
    return Fit("PyTorch's LBFGS", run, problem.goal)


def call_contenders(problem):
    """One evaluation: as a function of a vector, and of the Values."""
    import flatgrad

    flat, args, theta = problem.loss.flat, problem.args, problem.theta
    by_values = functools.partial(flatgrad.value_and_grad(problem.loss, parameters=problem.parameters), *args)
    by_vector = functools.partial(flat, theta, *args)

    def found(evaluate):
        value, gradient = evaluate()
        return {"loss": value, **{f"gradient {k}": float(g) for k, g in enumerate(gradient)}}
    direction = np.ones(len(theta))
    return (Contender("f.flat", repeated(by_vector), lambda: found(by_vector)),
            Contender("value_and_grad", repeated(by_values), lambda: found(by_values)),
            Contender("f.flat.hessp", repeated(lambda: flat.hessp(theta, direction, *args)), dict))
