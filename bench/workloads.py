"""The code that is timed. Its functions take the classes to use, so that every contender runs the same code.

This module measures nothing, and imports no contender at the top: `cases` reports contenders that are not installed.
"""
import importlib
import math
import random
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

__all__ = ["CHAIN", "ROSENBROCK", "WORK_ITERATIONS", "Fit", "Names", "Pendulums", "Problem", "chain", "chain_gradients",
           "chain_leaves", "chain_results", "digits_problem", "fit_digits_problem", "fit_moons_problem", "fit_training",
           "flatgrad_model", "flatgrad_samples", "fused_training", "library", "loop_training", "moons", "moons_problem",
           "moons_results", "names_problem", "network_loss", "network_problem", "new_training",
           "numbers_of", "pairs", "pairs_results", "pendulums", "physics_numbers", "physics_problem",
           "products", "readme", "readme_formula", "readme_results", "rosenbrock", "rosenbrock_hessian",
           "smooth_moons_problem", "ten_nodes", "ten_nodes_results", "training", "xor_problem"]


def library(name):
    """The classes of the package `name`, which has micrograd's modules: `name`, `Value` and `MLP`."""
    return SimpleNamespace(name=name, Value=importlib.import_module(f"{name}.engine").Value,
                           MLP=importlib.import_module(f"{name}.nn").MLP)


# ---- the chain: two operations an iteration, each on the result of the one before ----

# The initial x, a and b. a is so close to 1 that after millions of steps no gradient is subnormal, which would be slow,
# and none is 0, which would test nothing.
CHAIN = (1.0, 0.999999, 0.000002)

WORK_ITERATIONS = 10_000   # iterations of the chain in each repeat whose instructions are counted


def chain(x, a, b, iterations):
    """x * a + b, with the result as the next x."""
    for _ in range(iterations):
        x = x * a + b
    return x


def chain_leaves(Value):
    """x, a and b as Values."""
    return [Value(number) for number in CHAIN]


def chain_results(run, Value, iterations):
    """Value and gradients of the chain on Values; `run` is `chain`, or a copy of it."""
    x, a, b = chain_leaves(Value)
    out = run(x, a, b, iterations)
    out.backward()
    return {"value": float(out.data), "x.grad": float(x.grad), "a.grad": float(a.grad),
            "b.grad": float(b.grad)}


def chain_gradients(iterations):
    """The gradients of the chain on floats, computed in forward mode."""
    x, a, b = CHAIN
    dx, da, db = 1.0, 0.0, 0.0
    for _ in range(iterations):
        dx, da, db = dx * a, da * a + x, db * a + 1.0
        x = x * a + b
    return {"value": x, "x.grad": dx, "a.grad": da, "b.grad": db}


# ---- a sum of terms, in pairs: a graph of any size, and of the depth of a tree ----

def pairs(a, b, terms):
    """The sum of ``a*(k/terms) + b``, by pairs and pairs of pairs: 3 * terms - 1 operations."""
    row = [a * (k / terms) + b for k in range(terms)]
    while len(row) > 1:
        row = [x + y for x, y in zip(row[::2], row[1::2])] + row[len(row) // 2 * 2:]
    return row[0]


def pairs_results(run, Value, terms):
    """Value and gradients; `run` is a copy of `pairs`."""
    a, b = Value(0.5), Value(-0.125)
    out = run(a, b, terms)
    out.backward()
    return {"value": float(out.data), "a.grad": float(a.grad), "b.grad": float(b.grad)}


# ---- the expression in micrograd's README ----

def readme(Value):
    """Forward and backward pass; returns the inputs and the result."""
    a = Value(-4.0)
    b = Value(2.0)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    return a, b, g


def readme_results(run, Value):
    """Value and gradients; `run` is `readme`, or a copy of it."""
    a, b, g = run(Value)
    return {"g": float(g.data), "a.grad": float(a.grad), "b.grad": float(b.grad)}


def readme_formula(a, b, relu):
    """The same expression as a function of a and b, for libraries that differentiate functions."""
    c = a + b
    d = a * b + b**3
    c = c + (c + 1)
    c = c + (1 + c + (-a))
    d = d + (d * 2 + relu(b + a))
    d = d + (3 * d + relu(b - a))
    e = c - d
    f = e**2
    return f / 2.0 + 10.0 / f


# ---- micrograd's two-moons demo ----

def moons(samples=100, noise=0.1, seed=1337):
    """Two interleaved half circles.

    Parameters
    ----------
    samples : int, optional
        The number of points; half of them belong to each class.
    noise : float, optional
        Standard deviation of the normal noise on both coordinates.
    seed : int, optional

    Returns
    -------
    X : ndarray, shape (samples, 2)
    y : ndarray of int, shape (samples,)
        -1 for the upper half circle, 1 for the lower.
    """
    draw = random.Random(seed)
    half = samples // 2
    points = []
    for k in range(samples):
        lower = k >= half
        angle = math.pi * (k - half if lower else k) / (half - 1)
        x, y = math.cos(angle), math.sin(angle)
        if lower:
            x, y = 1.0 - x, 0.5 - y
        points.append((draw.gauss(x, noise), draw.gauss(y, noise), 1 if lower else -1))
    draw.shuffle(points)
    return np.array([p[:2] for p in points]), np.array([p[2] for p in points])


def training(Value, model, X, y):
    """A function ``step(k)`` that does one step of micrograd's demo and returns loss and accuracy.

    `loss` and the body of `step` are micrograd's demo.ipynb (A. Karpathy, MIT licence), unchanged except for the
    printing, because they stand for the code of users.
    """
    # loss function
    def loss(batch_size=None):

        # inline DataLoader :)
        if batch_size is None:
            Xb, yb = X, y
        else:
            ri = np.random.permutation(X.shape[0])[:batch_size]
            Xb, yb = X[ri], y[ri]
        inputs = [list(map(Value, xrow)) for xrow in Xb]

        # forward the model to get scores
        scores = list(map(model, inputs))

        # svm "max-margin" loss
        losses = [(1 + -yi*scorei).relu() for yi, scorei in zip(yb, scores)]
        data_loss = sum(losses) * (1.0 / len(losses))
        # L2 regularization
        alpha = 1e-4
        reg_loss = alpha * sum((p*p for p in model.parameters()))
        total_loss = data_loss + reg_loss

        # also get accuracy
        accuracy = [(yi > 0) == (scorei.data > 0) for yi, scorei in zip(yb, scores)]
        return total_loss, sum(accuracy) / len(accuracy)

    def step(k):
        # forward
        total_loss, acc = loss()

        # backward
        model.zero_grad()
        total_loss.backward()

        # update (sgd)
        learning_rate = 1.0 - 0.9*k/100
        for p in model.parameters():
            p.data -= learning_rate * p.grad

        return total_loss.data, acc

    return step


def new_training(build, library, X, y):
    """The step function for a model from the fixed seed, and the model; `build` is `training`."""
    random.seed(1337)
    model = library.MLP(2, [16, 16, 1])
    return build(library.Value, model, X, y), model


def moons_results(build, library, X, y, steps):
    """Losses and accuracies of some steps, then every parameter and its last gradient."""
    step, model = new_training(build, library, X, y)
    results = {}
    for k in range(steps):
        loss, accuracy = step(k)
        results[f"loss of step {k}"] = float(loss)
        results[f"accuracy of step {k}"] = float(accuracy)
    for k, p in enumerate(model.parameters()):
        results[f"parameter {k}"] = float(p.data)
        results[f"gradient {k}"] = float(p.grad)
    return results


# ---- training of a multi-layer perceptron, in each library as its users would write it ----

@dataclass(frozen=True)
class Problem:
    """A training task: data, network and loss, so that contenders with different code do the same.

    A step computes the loss of all samples, including `decay` times the sum of squares of all parameters, and its
    gradient. Then the step subtracts ``rates[k]`` times the gradient from the parameters.

    Parameters
    ----------
    sizes : tuple of int
        The number of inputs, then the number of neurons of each layer.
    activation, out_activation : str
        "relu", "tanh" or "linear": for the layers before the last one, and for the last one.
    X : ndarray, shape (n_samples, n_inputs)
    y : ndarray, shape (n_samples,)
        Labels: -1 and 1 for "hinge" and "mse", 0 to n_outputs - 1 for "cross_entropy"; not read for "residual".
    loss : str
        "hinge": mean of max(0, 1 - y*score); "cross_entropy": mean of -log softmax(scores)[y];
        "mse": mean of (score - y)**2; "residual": mean of (u'' + u)**2, where u is the network.
    decay : float
    rates : list of float
        The learning rate of each step; a training has as many steps.
    initial : ndarray, shape (n_parameters,)
        In micrograd's order: layer by layer and neuron by neuron, the weights, then the bias.
    """

    sizes: tuple
    activation: str
    out_activation: str
    X: np.ndarray
    y: np.ndarray
    loss: str
    decay: float
    rates: list
    initial: np.ndarray

    def layers(self):
        """The initial parameters as arrays: a weight of shape (n_out, n_in) and a bias of shape
        (n_out,) for each layer."""
        layers, start = [], 0
        for n_in, n_out in zip(self.sizes, self.sizes[1:]):
            end = start + n_out * (n_in + 1)
            both = self.initial[start:end].reshape(n_out, n_in + 1)
            layers.append((both[:, :-1].copy(), both[:, -1].copy()))
            start = end
        return layers

    @staticmethod
    def flat(layers):
        """The inverse of `layers`: one array in micrograd's order from arrays for each layer."""
        return np.concatenate([np.column_stack([w, b]).ravel() for w, b in layers])


def drawn(sizes, scaled=False):
    """Parameters as drawn by micrograd's MLP after ``random.seed(1337)``: weights from [-1, 1], biases 0. If `scaled`,
    the weights are divided by the root of the number of inputs, which wide layers need."""
    draw = random.Random(1337)
    parameters = []
    for n_in, n_out in zip(sizes, sizes[1:]):
        scale = n_in**-0.5 if scaled else 1.0
        for _ in range(n_out):
            parameters += [scale * draw.uniform(-1, 1) for _ in range(n_in)] + [0.0]
    return np.array(parameters)


def moons_problem():
    """micrograd's demo: 337 parameters, and its 100 steps."""
    sizes = (2, 16, 16, 1)
    return Problem(sizes, "relu", "linear", *moons(), "hinge", 1e-4,
                   [1.0 - 0.9*k/100 for k in range(100)], drawn(sizes))


def digits_problem(steps=20):
    """A network of the size that is usual for handwritten digits: 109,386 parameters, and a batch of 64 random
    pictures."""
    sizes = (784, 128, 64, 10)
    rng = np.random.default_rng(1337)
    return Problem(sizes, "relu", "linear", rng.random((64, sizes[0])), rng.integers(0, 10, 64),
                   "cross_entropy", 0.0, [0.1] * steps, drawn(sizes, scaled=True))


def xor_problem():
    """Exclusive or with 17 parameters, tanh in both layers; a step uses all four samples."""
    sizes = (2, 4, 1)
    X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return Problem(sizes, "tanh", "tanh", X, np.array([-1, 1, 1, -1]), "mse", 0.0, [0.1] * 100,
                   drawn(sizes))


def network_problem(width, depth, batch):
    """A network of 8 inputs and `depth` layers of `width` tanh, and one more tanh, on `batch` samples."""
    sizes = (8, *[width] * depth, 1)
    X = np.random.default_rng(0).normal(size=(batch, 8))
    steps = 20 if batch * sum(map(math.prod, zip(sizes, sizes[1:]))) < 100_000 else 3
    return Problem(sizes, "tanh", "tanh", X, np.where(X[:, 0] * X[:, 1] > 0.0, 1, -1), "mse", 0.0, [0.05] * steps,
                   drawn(sizes, scaled=True))


def physics_problem():
    """A network u(x) for a harmonic oscillator, 321 parameters, and 50 points at which u'' + u should be 0."""
    sizes = (1, 16, 16, 1)
    return Problem(sizes, "tanh", "linear", np.linspace(0.0, 6.0, 50)[:, None], np.zeros(50), "residual", 0.0, [],
                   drawn(sizes, scaled=True))


def smooth_moons_problem(samples=100):
    """The two moons for a network of tanh, 337 parameters, whose loss has second derivatives."""
    sizes = (2, 16, 16, 1)
    return Problem(sizes, "tanh", "linear", *moons(samples), "mse", 0.0, [], drawn(sizes, scaled=True))


def network_loss(problem, flat, X, y, tanh):
    """The mean of the squared errors of a network of tanh whose parameters are cut out of a vector, in micrograd's
    order; `tanh` and the arrays are those of any library."""
    start, x = 0, X
    for k, (n_in, n_out) in enumerate(zip(problem.sizes, problem.sizes[1:])):
        both = flat[start:start + n_out * (n_in + 1)].reshape(n_out, n_in + 1)
        start += n_out * (n_in + 1)
        x = x @ both[:, :-1].T + both[:, -1]
        if k < len(problem.sizes) - 2:
            x = tanh(x)
    return ((x[:, 0] - y) ** 2).mean()


def numbers_of(name, array):
    """The elements of an array as results of a Contender."""
    return {f"{name} {k}": float(number) for k, number in enumerate(np.ravel(array))}


def physics_numbers(loss, gradient):
    """The results of a step: the loss, and its gradient in micrograd's order."""
    return {"loss": float(loss)} | numbers_of("gradient", gradient)


ROSENBROCK = np.array([-1.2, 1.0, -0.5, 0.8])   # where its Hessian is taken


def rosenbrock(x):
    """Rosenbrock's function of several variables, in scalars: 0 where all are 1."""
    x = [x[k] for k in range(len(ROSENBROCK))]
    return sum(100.0 * (b - a**2)**2 + (1.0 - a)**2 for a, b in zip(x, x[1:]))


def rosenbrock_hessian(x):
    """Its Hessian by hand."""
    n = len(x)
    hessian = np.zeros((n, n))
    for k in range(n - 1):
        hessian[k, k] += 1200.0 * x[k]**2 - 400.0 * x[k + 1] + 2.0
        hessian[k + 1, k + 1] += 200.0
        hessian[k, k + 1] = hessian[k + 1, k] = -400.0 * x[k]
    return hessian


def flatgrad_model(problem):
    """flatgrad's MLP with the initial parameters."""
    from flatgrad.nn import MLP
    model = MLP(problem.sizes[0], problem.sizes[1:], activation=problem.activation,
                out_activation=problem.out_activation)
    for p, number in zip(model.parameters(), problem.initial):
        p.data = number
    return model


def flatgrad_samples(problem):
    """X and y as Tensors, which need no conversion in a call; labels stay arrays."""
    import flatgrad
    y = problem.y
    if problem.loss != "cross_entropy":
        y = flatgrad.Tensor(y, requires_grad=False)
    return flatgrad.Tensor(problem.X, requires_grad=False), y


def fused_training(problem):
    """The training with flatgrad's own layers, loss and optimizer.

    Returns
    -------
    new : callable
        ``new()`` returns a model with the initial parameters, a list of the parameters, and the optimizer.
    run : callable
        ``run(state, steps)`` trains the state from `new`, and returns the loss of each step.
    """
    import flatgrad
    from flatgrad import losses, optim

    X, y = flatgrad_samples(problem)
    data_loss = getattr(losses, problem.loss)
    decay, rates = problem.decay, problem.rates

    def new():
        model = flatgrad_model(problem)
        parameters = model.parameters()
        return model, parameters, optim.SGD(parameters, lr=rates[0])

    def run(state, steps):
        model, parameters, optimizer = state
        found = []
        for k in range(steps):
            loss = data_loss(model(X), y)
            if decay:
                loss = loss + decay * flatgrad.dot(parameters, parameters)
            optimizer.zero_grad()
            loss.backward()
            optimizer.lr = rates[k]
            optimizer.step()
            found.append(loss.data)
        return found

    return new, run


# ---- training by epochs and batches, with `Trainer.fit` and with equivalent loops ----

@dataclass(frozen=True)
class Fit(Problem):
    """A `Problem` whose steps use batches.

    `rates` has the learning rate of each epoch, all equal; a training has as many epochs. The loss of an epoch is the
    mean of its batches' losses, weighted by their numbers of samples.

    Parameters
    ----------
    optimizer : str
        "SGD" or "Adam": the name in flatgrad and PyTorch, with the defaults of both.
    batch_size : int or None
        The number of samples in a batch; None for all samples, in their order.
    seed : int
        The seed of the order of samples.
    """

    optimizer: str
    batch_size: int | None = None
    seed: int = 1337

    def rows(self):
        """For each epoch, for each batch, an array of its samples' indices, drawn as in `Trainer.fit`; None if a batch
        has all samples."""
        if self.batch_size is None:
            return None
        n_samples = len(self.X)
        orders = (np.random.default_rng([self.seed, epoch]).permutation(n_samples)
                  for epoch in range(1, 1 + len(self.rates)))
        return [np.split(order, range(self.batch_size, n_samples, self.batch_size))
                for order in orders]


def fit_moons_problem():
    """micrograd's demo with a single learning rate: 100 epochs of one batch."""
    problem = moons_problem()
    return Fit(**{**vars(problem), "rates": [0.1] * len(problem.rates)}, optimizer="SGD")


def fit_digits_problem(epochs=5):
    """MLP(64, [64, 10]) with 4,810 parameters, in batches of 64. Generated pictures have the shape of scikit-learn's
    digits: 1,797 of 8 x 8 with 17 shades. Each picture is the pattern of its class plus noise."""
    sizes = (64, 64, 10)
    rng = np.random.default_rng(1337)
    patterns, labels = rng.uniform(0, 16, (10, sizes[0])), rng.integers(0, 10, 1797)
    noisy = patterns[labels] + rng.normal(0.0, 6.0, (len(labels), sizes[0]))
    X = np.clip(np.round(noisy), 0, 16) / 16
    return Fit(sizes, "relu", "linear", X, labels, "cross_entropy", 0.0, [0.001] * epochs,
               drawn(sizes, scaled=True), "Adam", batch_size=64)


def fit_training(problem):
    """The training of a `Fit` with `Trainer.fit`.

    Returns
    -------
    new : callable
        ``new()`` returns a Trainer with the initial parameters.
    run : callable
        ``run(trainer, epochs)`` trains, and returns the loss of each epoch.
    """
    from flatgrad import losses, optim
    from flatgrad.train import Trainer

    decay = problem.decay

    def penalty(parameters):
        return decay * losses.l2(parameters)

    def new():
        model = flatgrad_model(problem)
        optimizer = getattr(optim, problem.optimizer)(model.parameters(), lr=problem.rates[0])
        return Trainer(model, optimizer, problem.loss, penalty=penalty if decay else None)

    def run(trainer, epochs):
        history = trainer.fit(problem.X, problem.y, epochs, problem.batch_size, seed=problem.seed,
                              progress=False)
        return history.loss

    return new, run


def loop_training(problem):
    """The same training in a plain loop, without the other work of a Trainer: the loop checks nothing and keeps only
    the losses.

    Returns
    -------
    new : callable
        ``new()`` returns a model with the initial parameters, a list of the parameters, and the optimizer.
    run : callable
        ``run(state, epochs)`` trains the state from `new`, and returns the loss of each epoch.
    """
    from flatgrad import losses, optim

    data_loss, l2 = getattr(losses, problem.loss), losses.l2
    X, y, decay, n_samples = problem.X, problem.y, problem.decay, len(problem.X)
    rows = problem.rows()
    whole = [flatgrad_samples(problem)] if rows is None else None

    def new():
        model = flatgrad_model(problem)
        parameters = model.parameters()
        return model, parameters, getattr(optim, problem.optimizer)(parameters, lr=problem.rates[0])

    def run(state, epochs):
        model, parameters, optimizer = state
        found = []
        for k in range(epochs):
            total = 0.0
            for inputs, targets in whole or ((X[r], y[r]) for r in rows[k]):
                loss = data_loss(model(inputs), targets)
                if decay:
                    loss = loss + decay * l2(parameters)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.data * len(targets)
            found.append(total / n_samples)
        return found

    return new, run


# ---- the GPT of examples/scalar_gpt.py, in each library as its users would write it ----

@dataclass(frozen=True)
class Names:
    """Training of a character-level GPT on names of eight letters: nine positions each. Adam has betas of 0.85 and 0.99
    and an epsilon of 1e-8.

    Parameters
    ----------
    documents : ndarray of int32, shape (n_documents, 10)
        Tokens from 0 to 26; 26 is at both ends.
    batch : int
        How many documents a step takes, in turn; its loss is the mean of theirs.
    rates : list of float
        The learning rate of each step; a training has as many steps.
    initial : ndarray, shape (4192,)
        The matrices of SHAPES one after the other, row by row.
    """

    documents: np.ndarray
    batch: int
    rates: list
    initial: np.ndarray

    SHAPES = {"token": (27, 16), "position": (16, 16), "query": (16, 16), "key": (16, 16), "value": (16, 16),
              "mix": (16, 16), "up": (64, 16), "down": (16, 64), "out": (27, 16)}

    def batches(self, steps):
        """The documents of each step, as an array of shape (steps, batch, 10)."""
        rows = np.arange(steps * self.batch) % len(self.documents)
        return self.documents[rows].reshape(steps, self.batch, -1)

    @classmethod
    def matrices(cls, flat):
        """The matrices by name, as views of an array with all parameters."""
        found, start = {}, 0
        for name, (rows, columns) in cls.SHAPES.items():
            found[name] = flat[start:start + rows * columns].reshape(rows, columns)
            start += rows * columns
        return found


def names_problem(batch, steps):
    """Invented names, consonant by vowel."""
    draw = random.Random(1337)
    vowels = [0, 4, 8, 14, 20]
    documents = [[26, *(draw.choice(vowels) if k % 2 else draw.randrange(26) for k in range(8)), 26] for _ in range(96)]
    count = sum(rows * columns for rows, columns in Names.SHAPES.values())
    initial = np.array([draw.gauss(0.0, 0.08) for _ in range(count)])
    return Names(np.array(documents, np.int32), batch, [0.01 * (1 - k / 1000) for k in range(steps)], initial)


# ---- a pendulum, step by step ----

@dataclass(frozen=True)
class Pendulums:
    """Damped pendulums x'' = -k sin(x) - c x' + t, each from its own start and with its own constants. The loss of a
    trajectory is ``(x - 0.3)**2 + v**2`` at its end; what is wanted are the losses and their gradients by k, c and t.

    Parameters
    ----------
    method : str
        "euler", or "rk4" for the classical method of Runge and Kutta.
    numbers : ndarray, shape (5, n_trajectories)
        The rows x, v, k, c, t.
    steps : int
    """

    method: str
    numbers: np.ndarray
    steps: int = 1000

    H = 0.01   # seconds a step

    @property
    def count(self):
        """The number of trajectories."""
        return self.numbers.shape[1]

    def step(self, x, v, k, c, t, sin):
        """Angle and speed after a step, of any class that has the operators and a function `sin`."""
        h = self.H

        def acceleration(x, v):
            return t - k * sin(x) - c * v
        if self.method == "euler":
            return x + h * v, v + h * acceleration(x, v)
        a1 = acceleration(x, v)
        v2 = v + 0.5 * h * a1
        a2 = acceleration(x + 0.5 * h * v, v2)
        v3 = v + 0.5 * h * a2
        a3 = acceleration(x + 0.5 * h * v2, v3)
        v4 = v + h * a3
        a4 = acceleration(x + h * v3, v4)
        return x + h / 6 * (v + 2 * (v2 + v3) + v4), v + h / 6 * (a1 + 2 * (a2 + a3) + a4)

    @staticmethod
    def loss(x, v):
        return (x - 0.3) ** 2 + v * v

    @staticmethod
    def results(losses, gradients):
        """The numbers by name, for `Contender.results`: of all trajectories, from arrays of all."""
        rows = {"loss": losses, **{f"d{name}": row for name, row in zip("kct", gradients)}}
        return {f"{name} of trajectory {k}": float(number) for name, row in rows.items()
                for k, number in enumerate(row)}


def pendulums(method, count, steps):
    """Trajectories that differ in everything."""
    i = np.arange(count)
    k = i * (1000 / count)
    return Pendulums(method, np.array([-2 + 0.004 * k, 0.5 * np.sin(i), 4 + 0.002 * k, 0.1 + 0.0002 * k,
                                       0.2 * np.cos(3.0 * i)]), steps)


# ---- a small graph, for the cost of a backward pass apart from its nodes ----

def ten_nodes(a, b):
    """An expression of ten nodes, including the two leaves."""
    c = a * b
    d = c + a
    e = d * b
    f = e + c
    g = f * d
    h = g - e
    i = h * h
    return i + g


def ten_nodes_results(run, a, b):
    """Value and gradients of `ten_nodes` on Values; their gradients are 0 before."""
    out = run(a, b)
    out.backward()
    return {"value": out.data, "a.grad": a.grad, "b.grad": b.grad}


# ---- products ----

def products(n_samples, n_out, n_in):
    """``x @ w.T``, as functions without arguments: flatgrad's, whose results are new nodes, and NumPy's, into an array
    that is there."""
    import flatgrad

    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal((rows, n_in)) for rows in (n_samples, n_out))
    out = np.empty((n_samples, n_out))
    leaves = flatgrad.Tensor(x), flatgrad.Tensor(w)
    return lambda: flatgrad.linear(*leaves), lambda: np.matmul(x, w.T, out=out)
