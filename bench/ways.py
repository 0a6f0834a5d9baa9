"""flatgrad's own ways through the problems of the suite `python -m bench --programs`: as it is, compiled, and more.

A function without a way yet returns None, and says what belongs there. The suite then measures the best way that there
is, and lists the missing one among the skipped.
"""
import math
import random
from functools import reduce
from operator import add, mul
from types import SimpleNamespace

import numpy as np

from bench import contenders, workloads
from bench.peers import Trainer
from bench.runner import Contender, own_copy, repeated, repeated_after

__all__ = ["batch_of", "compiled_pendulums", "compiled_trainer", "lanes_of_names", "lanes_of_pendulums",
           "loop_of_names", "loop_trainer", "names_trainer", "pendulums_one_by_one", "scalar_names",
           "scalar_names_in_lanes", "scalars_contender", "tensors_of_pendulums"]


# ---- trainings of a workloads.Problem; as it is: peers.flatgrad_trainer ----

def compiled_state(problem):
    """A function that makes a compiled loss, the parameters, and the optimizer."""
    import flatgrad
    from flatgrad import losses, optim

    X, y = workloads.flatgrad_samples(problem)
    data_loss, decay = getattr(losses, problem.loss), problem.decay

    def new():
        model = workloads.flatgrad_model(problem)
        parameters = model.parameters()

        @flatgrad.compile
        def loss():
            total = data_loss(model(X), y)
            return total + decay * flatgrad.dot(parameters, parameters) if decay else total
        loss()   # recorded
        optimizer = optim.SGD(parameters, lr=problem.rates[0])
        loss.minimize(optimizer, steps=0)   # likewise
        return loss, parameters, optimizer
    return new


def steps_at(rates):
    """A function of a state (loss, parameters, optimizer) and a number of steps at these learning rates."""
    def run(state, steps):
        loss, _, optimizer = state
        found = []
        for k in range(steps):
            total = loss()
            optimizer.zero_grad()
            total.backward()
            optimizer.lr = rates[k]
            optimizer.step()
            found.append(total.data)
        return found
    return run


def compiled_trainer(problem):
    """One call of a compiled loss for each step, then backward and a step of the optimizer."""
    return Trainer("compiled", compiled_state(problem), steps_at(problem.rates),
                   lambda state: [p.data for p in state[1]])


def loop_trainer(problem):
    """The whole training in one call of `minimize`, with the learning rates as its schedule."""
    new, rates = compiled_state(problem), problem.rates

    def run(state, steps):
        loss, _, optimizer = state
        return loss.minimize(optimizer, steps=steps, schedule=rates[:steps]).tolist()

    return Trainer("loop", new, run, lambda state: [p.data for p in state[1]])


def scalars_contender(name, compiled, steps, checked):
    """micrograd's demo with its scalar code, as it is or with its loss compiled; the optimizer is flatgrad's."""
    import flatgrad
    from flatgrad import optim
    from flatgrad.nn import MLP

    X, y = workloads.moons()
    X, y = X.tolist(), y.tolist()

    def new():
        random.seed(1337)
        model = MLP(2, [16, 16, 1])

        def loss():
            scores = list(map(model, X))
            losses = [(1 + -yi * score).relu() for yi, score in zip(y, scores)]
            return sum(losses) * (1.0 / len(losses)) + 1e-4 * sum(p * p for p in model.parameters())
        if compiled:
            loss = flatgrad.compile(loss)
            loss()
        return loss, model, optim.SGD(model.parameters(), lr=1.0)

    run = steps_at([1.0 - 0.9 * k / 100 for k in range(max(steps, checked))])

    def results():
        state = new()
        losses = run(state, checked)
        return ({f"loss of step {k}": loss for k, loss in enumerate(losses)}
                | {f"parameter {k}": p.data for k, p in enumerate(state[1].parameters())})
    return Contender(name, repeated_after(new, lambda state: run(state, steps)), results, units=steps)


# ---- the GPT ----

def with_initial(model, problem):
    """The model of examples/scalar_gpt.py with the parameters of a `workloads.Names`."""
    for p, number in zip(model.parameters(), problem.initial):
        p.data = number
    return model


def names_trainer(problem, name="flatgrad", compiled=False, lanes=False, loop=False):
    """examples/scalar_gpt.py; compiled: the loss of a batch is one call; lanes: with a document in each lane; loop: all
    steps in one call of `minimize`."""
    import flatgrad

    scalar_gpt = contenders.example("scalar_gpt")   # a copy of its own, for the reason given in `own_copy`
    engine = scalar_gpt.load_engine("flatgrad")
    batches, rates = problem.batches(len(problem.rates)), problem.rates
    n_tokens = batches.shape[2]
    documents = batches.reshape(-1, n_tokens).astype(float)
    batches = list(batches.astype(float)) if lanes else batches.tolist()

    def new():
        model = with_initial(scalar_gpt.GPT(engine, 27, random.Random(0)), problem)

        def loss(batch):
            losses = [model.loss(tokens) for tokens in batch]
            return losses[0] if len(losses) == 1 else sum(losses[1:], losses[0]) / len(losses)

        def loss_in_lanes(batch):
            return flatgrad.vmap(lambda tokens: model.loss([tokens[k] for k in range(n_tokens)]))(batch).mean()
        if lanes:
            loss = flatgrad.compile(loss_in_lanes)
            loss(batches[0])
        elif compiled:
            loss = flatgrad.compile(loss)
            loss(batches[0])
        optimizer = engine.Adam(model.parameters(), rates[0], scalar_gpt.BETAS, scalar_gpt.EPS)
        if loop:
            loss.minimize(optimizer, documents[:problem.batch], steps=0, batch_size=problem.batch)   # recorded
        return loss, model, optimizer

    def run(state, steps):
        loss, _, optimizer = state
        found = []
        if loop:
            return loss.minimize(optimizer, documents[:steps * problem.batch], steps=steps, batch_size=problem.batch,
                                 shuffle=False, schedule=rates[:steps]).tolist()
        for k in range(steps):
            total = loss(batches[k])
            optimizer.zero_grad()
            total.backward()
            optimizer.lr = rates[k]
            optimizer.step()
            found.append(total.data)
            total = None   # the graph, before the next one
        return found

    return Trainer(name, own_copy(new), own_copy(run), lambda state: [p.data for p in state[1].parameters()])


def lanes_of_names(problem):
    """A batch in lanes: `flatgrad.vmap` of the loss of one document, within a compiled function."""
    return names_trainer(problem, "lanes", lanes=True)


def loop_of_names(problem):
    """The whole training in one call, with a document of a batch in each lane."""
    return names_trainer(problem, "loop", lanes=True, loop=True)


def scalar_names(problem):
    """The GPT in scalar operations alone, and a compiled function of a document: its loss, some 70,000 nodes."""
    import flatgrad
    from flatgrad import Value

    def dot(a, b):
        return reduce(add, map(mul, a, b))

    def softmax(x):
        powers = [xi.exp() for xi in x]
        total = reduce(add, powers)
        return [power / total for power in powers]
    scalar_gpt = contenders.example("scalar_gpt")
    engine = SimpleNamespace(Value=Value, dot=dot, matvec=lambda matrix, x: [dot(row, x) for row in matrix],
                             softmax=softmax, take=flatgrad.take)
    model = with_initial(scalar_gpt.GPT(engine, 27, random.Random(0)), problem)
    return model, flatgrad.compile(model.loss)


def scalar_names_in_lanes(model, length):
    """A function of documents of that length, a row for each: their losses, in lanes."""
    import flatgrad

    return flatgrad.vmap(flatgrad.compile(lambda tokens: model.loss([tokens[k] for k in range(length)])))


# ---- the pendulums ----

def end_loss(task):
    """The loss of one trajectory, or of all in Tensors, as a function of x, v, k, c and t."""
    import flatgrad

    def loss(x, v, *constants):
        def body(state, _):
            return task.step(*state, *constants, flatgrad.sin), None
        (x, v), _ = flatgrad.scan(body, (x, v), length=task.steps)
        return task.loss(x, v)
    return loss


def one_by_one(name, task, loss):
    """A call of `loss` and a backward pass for each trajectory."""
    from flatgrad import Value

    columns = task.numbers.T.tolist()

    def work():
        losses, gradients = [], []
        for x, v, *constants in columns:
            constants = [Value(number) for number in constants]
            total = loss(x, v, *constants)
            total.backward()
            losses.append(total.data)
            gradients.append([c.grad for c in constants])
        return losses, gradients

    def results():
        losses, gradients = work()
        return task.results(losses, zip(*gradients))
    return Contender(name, repeated(work), results, units=task.count)


def pendulums_one_by_one(task):
    """Values and Python's own loop, for each trajectory."""
    def loss(x, v, *constants):
        for _ in range(task.steps):
            x, v = task.step(x, v, *constants, lambda x: x.sin() if hasattr(x, "sin") else math.sin(x))
        return task.loss(x, v)
    return one_by_one("flatgrad", task, loss)


def compiled_pendulums(task):
    """One trajectory compiled, with `flatgrad.scan`; a call and a backward pass for each."""
    import flatgrad

    return one_by_one("compiled", task, flatgrad.compile(end_loss(task)))


def tensors_of_pendulums(task, name="tensors", compiled=False):
    """All trajectories in Tensors, as in PyTorch."""
    import flatgrad
    from flatgrad import Tensor

    loss = end_loss(task)

    def total(*rows):
        losses = loss(*rows)
        return losses.sum(), losses
    if compiled:
        total = flatgrad.compile(total)
    x, v = [Tensor(row, requires_grad=False) for row in task.numbers[:2]]

    def work():
        constants = [Tensor(row) for row in task.numbers[2:]]
        result, losses = total(x, v, *constants)
        result.backward()
        return losses.data, [c.grad for c in constants]
    return Contender(name, repeated(work), lambda: task.results(*map(np.array, work())), units=task.count)


def lanes_of_pendulums(task):
    """The trajectories in lanes: value and gradient of `flatgrad.vmap` of the compiled `end_loss`, with the scan as one
    instruction."""
    import flatgrad
    from flatgrad import Tensor

    loss = flatgrad.vmap(flatgrad.compile(end_loss(task)))
    x, v = [Tensor(row, requires_grad=False) for row in task.numbers[:2]]

    def work():
        constants = [Tensor(row) for row in task.numbers[2:]]
        losses = loss(x, v, *constants)
        losses.sum().backward()
        return losses.data, [c.grad for c in constants]
    return Contender("lanes", repeated(work), lambda: task.results(*map(np.array, work())), units=task.count)


# ---- types of numbers ----

def batch_of(work, count, dtype):
    """The mean over a batch of ten tanh or gelu in turn, or of the losses of an MLP, by numbers of that type."""
    import flatgrad
    from flatgrad import nn

    rng = np.random.default_rng(0)
    width = 16 if work == "mlp" else 1
    X = rng.standard_normal((count, width)) if width > 1 else rng.standard_normal(count)
    random.seed(0)
    model = nn.MLP(16, [64, 64, 10])
    weight = flatgrad.Value(1.0)

    def sample(x):
        if work == "mlp":
            return (model(x) ** 2).sum()
        x = weight * x
        for _ in range(10):
            x = getattr(x, work)()
        return x
    mean = flatgrad.vmap(flatgrad.compile(sample, dtype=dtype))
    leaves = model.parameters() if work == "mlp" else [weight]

    def step():
        loss = mean(X).mean()
        loss.backward()
        return loss

    def results():
        for p in leaves:
            p.grad = 0.0
        return {"loss": step().data, **{f"gradient {k}": p.grad for k, p in enumerate(leaves)}}
    return Contender(dtype, repeated(step), results)
