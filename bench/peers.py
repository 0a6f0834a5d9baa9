"""The contenders besides flatgrad: each trains a `workloads.Problem` as users of its library would write it.

A function in `TRAINERS` takes a problem and returns a `Trainer`. A function in `FITTERS` takes a `workloads.Fit`, and
its steps are epochs. All compute in float64 and on one thread. Each function imports its library itself;
`Session.has` finds out whether a library is installed.
"""
import gc
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench import workloads
from bench.runner import Contender, own_copy, repeated_after

__all__ = ["FITTERS", "PACKAGES", "TRAINERS", "Trainer", "compiler_missing", "contender", "fit_trainer", "jax",
           "stepped", "torch"]

# The package of a contender, where the names differ.
PACKAGES = {"torch compiled": "torch", "jax scan": "jax"}


@dataclass(frozen=True)
class Trainer:
    """The training of one library.

    Parameters
    ----------
    name : str
        The name in the table.
    new : callable
        ``new()`` returns an initial state, with the initial parameters.
    run : callable
        ``run(state, steps)`` trains, changes the state, and returns the losses of the steps.
    parameters : callable
        ``parameters(state)`` gives numbers in micrograd's order.
    note : str, optional
        A remark for the table.
    """

    name: str
    new: Callable
    run: Callable
    parameters: Callable
    note: str = ""


def contender(trainer, steps, checked):
    """A contender whose repeat is a training of `steps` steps from new initial parameters; making the parameters is not
    timed. Its results are those of the first `checked` steps."""
    def results():
        state = trainer.new()
        losses = trainer.run(state, checked)
        numbers = {f"loss of step {k}": float(loss) for k, loss in enumerate(losses)}
        return numbers | {f"parameter {k}": float(p)
                          for k, p in enumerate(trainer.parameters(state))}
    return Contender(trainer.name, repeated_after(trainer.new, lambda s: trainer.run(s, steps)),
                     results, units=steps)


def seconds_of(work):
    """The time that ``work()`` takes: real time, because compilers run in other processes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# ---- flatgrad and micrograd ----

def flatgrad_trainer(problem):
    """flatgrad's own layers, losses and optimizers, as in its README."""
    new, run = own_copy(workloads.fused_training)(problem)
    return Trainer("flatgrad", new, run, lambda state: [p.data for p in state[1]])


def fit_trainer(problem):
    """`Trainer.fit`, for a `workloads.Fit`."""
    new, run = workloads.fit_training(problem)
    return Trainer("flatgrad", new, run,
                   lambda trainer: [p.data for p in trainer.model.parameters()])


def loop_trainer(problem):
    """A plain loop around the same model, loss and optimizer, for comparison with the Trainer."""
    new, run = own_copy(workloads.loop_training)(problem)
    return Trainer("flatgrad loop", new, run, lambda state: [p.data for p in state[1]])


def demo_trainer(name, problem):
    """micrograd's demo, unchanged, with the Value and MLP of the package `name`."""
    library, build = workloads.library(name), own_copy(workloads.training)
    if problem.loss != "hinge":
        raise ValueError(f"the demo trains with a hinge loss, not {problem.loss}")

    def run(state, steps):
        step, _ = state
        return [step(k)[0] for k in range(steps)]
    return Trainer(name, lambda: workloads.new_training(build, library, problem.X, problem.y), run,
                   lambda state: [p.data for p in state[1].parameters()])


def tanh_trainer(name, problem):
    """Scalar code for layers of tanh. micrograd has no tanh, so it is added as in micrograd's lecture, with a closure
    for the derivative."""
    library = workloads.library(name)
    Value, rates = library.Value, problem.rates
    X, y = problem.X.tolist(), problem.y.tolist()

    def tanh(x):
        t = math.tanh(x.data)
        out = Value(t, (x,), "tanh")

        def _backward():
            x.grad += (1 - t**2) * out.grad
        out._backward = _backward
        return out

    def new():
        model = library.MLP(problem.sizes[0], list(problem.sizes[1:]))
        for p, number in zip(model.parameters(), problem.initial.tolist()):
            p.data = number
        return model

    def run(model, steps):
        found = []
        for k in range(steps):
            scores = []
            for x in X:
                for layer in model.layers:
                    x = [tanh(sum((wi * xi for wi, xi in zip(n.w, x)), n.b)) for n in layer.neurons]
                scores.append(x[0])
            loss = sum((score - yi)**2 for score, yi in zip(scores, y)) * (1.0 / len(y))
            model.zero_grad()
            loss.backward()
            for p in model.parameters():
                p.data -= rates[k] * p.grad
            found.append(loss.data)
        return found

    return Trainer(name, new, run, lambda model: [p.data for p in model.parameters()])


def micrograd_trainer(problem):
    """micrograd, except for the large network, where a step would take minutes."""
    if problem.loss == "cross_entropy":
        return None
    return (demo_trainer if problem.loss == "hinge" else tanh_trainer)("micrograd", problem)


# ---- NumPy, with derivatives written by hand ----

def numpy_trainer(problem):
    """All parameters in one array and all gradients in another, so that the update is one operation; weights and biases
    are views of the arrays."""
    rates, decay, X, y = problem.rates, problem.decay, problem.X, problem.y
    column = y[:, None].astype(float)
    rows = np.arange(len(y))
    relu = problem.activation == "relu"
    out_tanh = problem.out_activation == "tanh"
    depth = len(problem.sizes) - 1

    def views(flat):
        layers, start = [], 0
        for n_in, n_out in zip(problem.sizes, problem.sizes[1:]):
            middle = start + n_out * n_in
            layers.append((flat[start:middle].reshape(n_out, n_in), flat[middle:middle + n_out]))
            start = middle + n_out
        return layers

    def new():
        flat = np.concatenate([np.concatenate([w.ravel(), b]) for w, b in problem.layers()])
        grad = np.empty_like(flat)
        return flat, views(flat), grad, views(grad)

    def hinge(scores):
        margin = 1.0 - column * scores
        inside = margin > 0.0
        return (margin * inside).sum() / len(y), column * inside / -len(y)

    def cross_entropy(scores):
        shifted = scores - scores.max(axis=1, keepdims=True)
        powers = np.exp(shifted)
        totals = powers.sum(axis=1)
        d = powers / totals[:, None]
        d[rows, y] -= 1.0
        d /= len(y)
        return (np.log(totals) - shifted[rows, y]).sum() / len(y), d

    def mse(scores):
        difference = scores - column
        return (difference * difference).sum() / len(y), (2.0 / len(y)) * difference

    loss_of = {"hinge": hinge, "cross_entropy": cross_entropy, "mse": mse}[problem.loss]

    def run(state, steps):
        flat, layers, grad, grads = state
        found = []
        for k in range(steps):
            outs = [X]
            for i, (w, b) in enumerate(layers):
                z = outs[-1] @ w.T
                z += b
                if i < depth - 1:
                    z = np.maximum(z, 0.0, out=z) if relu else np.tanh(z, out=z)
                elif out_tanh:
                    np.tanh(z, out=z)
                outs.append(z)
            loss, d = loss_of(outs[-1])
            for i in range(depth - 1, -1, -1):
                out, (w, _), (dw, db) = outs[i + 1], layers[i], grads[i]
                if i < depth - 1 and relu:
                    d *= out > 0.0
                elif i < depth - 1 or out_tanh:
                    d *= 1.0 - out * out
                np.matmul(d.T, outs[i], out=dw)
                d.sum(axis=0, out=db)
                if i:
                    d = d @ w
            if decay:
                loss += decay * (flat @ flat)
                grad += 2.0 * decay * flat
            flat -= rates[k] * grad
            found.append(loss)
        return found

    return Trainer("numpy", new, run, lambda state: problem.flat(state[1]))


# ---- PyTorch ----

def torch():
    """PyTorch, on one thread."""
    import torch
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    forget_imports()
    return torch


def forget_imports():
    """Exclude the objects of a large import from the garbage collector's runs, as in a process without this
    import."""
    gc.collect()
    gc.freeze()


def torch_losses(torch, problem):
    """The loss as a function of scores and parameters, and the targets in a form for the loss."""
    F = torch.nn.functional
    y = torch.from_numpy(problem.y)
    if problem.loss == "cross_entropy":
        data_loss, target = F.cross_entropy, y
    else:
        target = y.double()[:, None]
        data_loss = {"hinge": lambda scores, target: torch.relu(1 - target * scores).mean(),
                     "mse": F.mse_loss}[problem.loss]
    if not problem.decay:
        return (lambda scores, target, parameters: data_loss(scores, target)), target
    return (lambda scores, target, parameters: data_loss(scores, target)
            + problem.decay * sum((p * p).sum() for p in parameters)), target


def torch_model(t, problem):
    """A module with the initial parameters."""
    nn = t.nn
    functions = {"relu": nn.ReLU, "tanh": nn.Tanh}
    parts = []
    for i, (w, b) in enumerate(problem.layers()):
        layer = nn.Linear(w.shape[1], w.shape[0], dtype=t.float64)
        with t.no_grad():
            layer.weight.copy_(t.from_numpy(w))
            layer.bias.copy_(t.from_numpy(b))
        last = i == len(problem.sizes) - 2
        function = functions.get(problem.out_activation if last else problem.activation)
        parts += [layer] + ([function()] if function else [])
    return nn.Sequential(*parts)


def torch_parameters(problem, model):
    """The parameters of a model, in micrograd's order."""
    arrays = [p.detach().numpy() for p in model.parameters()]
    return problem.flat(list(zip(arrays[::2], arrays[1::2])))


def torch_trainer(problem):
    """PyTorch without compilation: modules, a loss, an optimizer."""
    t = torch()
    loss_of, target = torch_losses(t, problem)
    X, rates = t.from_numpy(problem.X), problem.rates

    def new():
        model = torch_model(t, problem)
        return model, t.optim.SGD(model.parameters(), lr=rates[0])

    def run(state, steps):
        model, optimizer = state
        parameters = list(model.parameters())
        group = optimizer.param_groups[0]
        found = []
        for k in range(steps):
            loss = loss_of(model(X), target, parameters)
            optimizer.zero_grad()
            loss.backward()
            group["lr"] = rates[k]
            optimizer.step()
            found.append(loss.detach())
        return found

    return Trainer("torch", new, run, lambda state: torch_parameters(problem, state[0]))


def torch_fitter(problem):
    """The plain loop of PyTorch's tutorials over the batches of a `workloads.Fit`. The loop gets the indices of each
    batch's rows."""
    t = torch()
    loss_of, target = torch_losses(t, problem)
    X, n_samples = t.from_numpy(problem.X), len(problem.X)
    rows, whole = problem.rows(), [(X, target)]
    if rows is not None:
        rows, whole = [[t.from_numpy(r) for r in batches] for batches in rows], None

    def new():
        model = torch_model(t, problem)
        return model, getattr(t.optim, problem.optimizer)(model.parameters(), lr=problem.rates[0])

    def run(state, epochs):
        model, optimizer = state
        parameters = list(model.parameters())
        found = []
        for k in range(epochs):
            total = 0.0
            for inputs, targets in whole or ((X[r], target[r]) for r in rows[k]):
                loss = loss_of(model(inputs), targets, parameters)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.item() * len(targets)
            found.append(total / n_samples)
        return found

    return Trainer("torch", new, run, lambda state: torch_parameters(problem, state[0]))


def compiler_missing():
    """The reason why torch.compile cannot work here; None if it can."""
    compiler = os.environ.get("CXX")
    names = [compiler] if compiler else ["g++", "clang++"]
    if any(shutil.which(name.split()[0]) for name in names):
        return None
    return f"no C++ compiler ({' or '.join(names)}): apt-get install g++"


def torch_compiled_trainer(problem):
    """One function for the whole step: loss, gradient and update, compiled by torch.compile."""
    t = torch()
    loss_of, target = torch_losses(t, problem)
    X = t.from_numpy(problem.X)
    rates = [t.tensor(rate, dtype=t.float64) for rate in problem.rates]
    functions = {"relu": t.relu, "tanh": t.tanh, "linear": lambda x: x}
    inner, outer = functions[problem.activation], functions[problem.out_activation]

    def loss(parameters, x):
        for i in range(0, len(parameters), 2):
            x = t.nn.functional.linear(x, parameters[i], parameters[i + 1])
            x = (outer if i == len(parameters) - 2 else inner)(x)
        return loss_of(x, target, parameters)

    @t.compile(fullgraph=True)
    def step(parameters, x, rate):
        grads, value = t.func.grad_and_value(loss)(parameters, x)
        for p, g in zip(parameters, grads):
            p.sub_(rate * g)
        return value

    def new():
        return [t.from_numpy(array.copy()) for layer in problem.layers() for array in layer]

    def run(parameters, steps):
        with t.no_grad():
            return [step(parameters, X, rates[k]) for k in range(steps)]

    def parameters(state):
        arrays = [p.numpy() for p in state]
        return problem.flat(list(zip(arrays[::2], arrays[1::2])))

    compiling = seconds_of(lambda: run(new(), 2))
    return Trainer("torch compiled", new, run, parameters,
                   note=f"{compiling:.1f} s to compile")


# ---- JAX ----

def jax():
    """JAX on the processor, in float64. JAX reads the number of threads from the environment when it starts; `bench`
    has set one thread there."""
    import jax
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    # With a second thread, JAX would run ahead of Python, and its waiting would count as work.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    forget_imports()
    return jax


def jax_step(problem):
    """The step as a function of parameters and learning rate, and the initial parameters."""
    j = jax()
    jnp = j.numpy
    X, y = jnp.asarray(problem.X), jnp.asarray(problem.y)
    column = y[:, None]
    functions = {"relu": j.nn.relu, "tanh": jnp.tanh, "linear": lambda x: x}
    inner, outer = functions[problem.activation], functions[problem.out_activation]
    data_loss = {
        "hinge": lambda scores: j.nn.relu(1 - column * scores).mean(),
        "cross_entropy": lambda scores: -jnp.take_along_axis(
            j.nn.log_softmax(scores), column, axis=1).mean(),
        "mse": lambda scores: ((scores - column)**2).mean(),
    }[problem.loss]

    def loss(parameters):
        x = X
        for i, (w, b) in enumerate(parameters):
            x = x @ w.T + b
            x = (outer if i == len(parameters) - 1 else inner)(x)
        value = data_loss(x)
        if problem.decay:
            value += problem.decay * sum((p * p).sum() for layer in parameters for p in layer)
        return value

    def step(parameters, rate):
        value, grads = j.value_and_grad(loss)(parameters)
        return j.tree.map(lambda p, g: p - rate * g, parameters, grads), value

    def new():
        return [[(jnp.asarray(w), jnp.asarray(b)) for w, b in problem.layers()]]

    def parameters(state):
        return problem.flat([(np.asarray(w), np.asarray(b)) for w, b in state[0]])

    return j, step, new, parameters


def jax_trainer(problem):
    """One compiled call for each step."""
    j, step, new, parameters = jax_step(problem)
    return stepped(j, "jax", step, [j.numpy.asarray(rate) for rate in problem.rates], new, parameters)


def stepped(j, name, step, given, new, parameters):
    """A Trainer whose `step`, of the state and of one of `given`, is compiled by `jax.jit` and called for each step."""
    step = j.jit(step)

    def run(state, steps):
        carry, found = state[0], []
        for k in range(steps):
            carry, loss = step(carry, given[k])
            found.append(loss)
        state[0] = j.block_until_ready(carry)
        return found

    compiling = seconds_of(lambda: run(new(), 1))
    return Trainer(name, new, run, parameters, note=f"{compiling:.1f} s to compile")


def jax_scan_trainer(problem):
    """One call for all steps; the loop is compiled with the steps."""
    j, step, new, parameters = jax_step(problem)
    loop = j.jit(lambda p, rates: j.lax.scan(step, p, rates))
    rates = np.array(problem.rates)

    def run(state, steps):
        state[0], losses = j.block_until_ready(loop(state[0], rates[:steps]))
        return losses

    compiling = seconds_of(lambda: run(new(), len(rates)))
    return Trainer("jax scan", new, run, parameters, note=f"{compiling:.1f} s to compile")


# In the order of the table's columns.
TRAINERS = {"micrograd": micrograd_trainer, "torch": torch_trainer,
            "torch compiled": torch_compiled_trainer, "jax": jax_trainer,
            "jax scan": jax_scan_trainer, "numpy": numpy_trainer}

FITTERS = {"flatgrad loop": loop_trainer, "torch": torch_fitter}
