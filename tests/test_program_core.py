"""Programs as the border has them: what is recorded, cut out of the tape, and called as one instruction. The oracle is the
same function called as it is; where that is not enough, finite differences."""
import copy
import gc
import math
import pickle
import random
import struct
import threading

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, nn
from flatgrad._core import _Program, _Recording
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError


def record(f, *inputs):
    """The program of f(*inputs), which returns something or a list."""
    recording = _Recording(inputs)
    with recording:
        outputs = f(*inputs)
        outputs = outputs if isinstance(outputs, list) else [outputs]
    return recording.program(outputs)


def leaf_like(x):
    """A leaf with the same number or numbers."""
    return Tensor(x.data) if isinstance(x, Tensor) else Value(x.data)


def bits(x):
    """The numbers of something, so that 0.0 differs from -0.0 and nan equals itself."""
    return np.ravel(x).astype(float).tobytes()


def flat(items):
    return [number for x in items for number in np.ravel(x.data)]


def total(items, factors):
    """A number of some items, each times a factor; None leaves one out."""
    terms = [x.sum() * c if isinstance(x, Tensor) else x * c for x, c in zip(items, factors) if c is not None]
    return flatgrad.sum(terms)


def clear(items):
    for x in items:
        x.grad = 0.0


# ---- a program gives what its function gives ----

def compared(f, inputs, leaves=(), factors=None, grads=0.0, times=2):
    """Call f and its program alternately, with gradients: all numbers are the same, bit for bit."""
    program = record(f, *[leaf_like(x) for x in inputs])
    for k in range(times):
        found = []
        for run in (f, lambda *args: program(list(args))):
            given = [leaf_like(x) for x in inputs]
            out = run(*given)
            out = out if isinstance(out, list) else [out]
            weights = [1.5 - 0.7 * j for j in range(len(out))] if factors is None else factors
            for x in [*given, *leaves]:
                x.grad = grads
            loss = total(out, weights)
            loss.backward()
            found.append([bits(x.data) for x in out] + [bits(loss.data)] + [bits(x.grad) for x in [*given, *leaves]])
        assert found[0] == found[1]
        inputs = [type(x)(np.asarray(x.data) * 0.75 + 0.1 * (k + 1)) if isinstance(x, Tensor)
                  else Value(x.data * 0.75 + 0.1) for x in inputs]
    assert _core._check()
    return program


def test_scalars():
    w, b = Value(3.0), Value(0.5)
    program = compared(lambda x, y: ((x * w + b).tanh() * y + 2.0) ** 2 / (w * w + 1.0), [Value(0.3), Value(-0.7)],
                       [w, b], grads=0.25)
    assert set(program.captured) == {w, b}


def test_every_row():
    x, y, w = Value(0.3), Value(0.6), Value(0.9)
    for row in _core._operations():
        if 1 <= row["arity"] <= 3 and row["id"] != "POWI":
            compared(lambda *xs: _core._apply(row["id"], *xs, w) if len(xs) < row["arity"] else
                     _core._apply(row["id"], *xs), [x, y][:max(1, row["arity"] - 1)], [w], grads=0.5)


def test_layers_and_products():
    model = nn.MLP(3, [4, 2])
    compared(lambda x: model(x).sum(), [Tensor([[1.0, 2.0, 0.5], [0.1, -0.2, 0.3]])], model.parameters())
    W, b = Tensor(np.arange(12.0).reshape(4, 3) / 10), Tensor([0.1, 0.2, 0.3, 0.4])
    compared(lambda x: [flatgrad.linear(x, W, b, "tanh"), x @ W.T, (x[1:] * W[2]).softmax()],
             [Tensor([[1.0, 2.0, 0.5], [0.1, -0.2, 0.3]])], [W, b], grads=2.0)


def test_a_model_of_single_values_stays_affine():
    model = nn.MLP(3, [4, 4, 1])
    program = record(lambda x: model(list(x)), Tensor([1.0, 2.0, 3.0]))
    assert len(program.captured) == len(model.parameters()) == program.stats()["captured"]
    assert program.stats()["instructions"] == {"layer": 3}
    assert program.stats()["bytes"] < 6000


def test_constants_are_folded():
    def f(x):
        c = Value(2.0) * Value(3.0)
        return x * (c + 1.0) + Tensor([1.0, 2.0]).sum()
    program = compared(f, [Value(0.5)])
    assert program.stats()["instructions"] == {"*": 1, "+": 1} and program.stats()["constants"] == 2


def test_results_that_nothing_computes():
    w, W, c = Value(2.0), Tensor([1.0, 2.0]), Value(7.0)
    x = Value(3.0)
    program = record(lambda x: [x, w, W, Value(4.0), x * c, x], x)
    a, b, t, four, d, again = program([5.0])
    assert [a.data, b.data, t.tolist(), four.data, d.data, again.data] == [5.0, 2.0, [1.0, 2.0], 4.0, 35.0, 5.0]
    x = Value(6.0)
    a, b, t, four, d, again = program([x])
    (a + b * 2.0 + t.sum() + four + d + again * 10.0).backward()
    assert (x.grad, w.grad, W.grad.tolist(), c.grad) == (18.0, 2.0, [1.0, 1.0], 6.0)


def test_results_that_another_is_computed_from():
    w = Value(2.0)
    def f(x):
        y = x * w
        return [y, y.tanh() * w]
    compared(f, [Value(0.3)], [w])
    compared(f, [Value(0.3)], [w], [None, 1.0])
    compared(f, [Value(0.3)], [w], [1.0, None])


def test_finite_differences():
    w, W = Value(0.7), Tensor([[0.1, 0.2], [0.3, 0.4]])
    program = record(lambda x, t: [(t @ W).tanh().sum() * x, flatgrad.logsumexp(t * w)], Value(0.3), Tensor([0.5, 0.6]))
    assert flatgrad.gradcheck(lambda x, t, *_: program([x, t]), (0.3, np.array([0.5, 0.6]), w, W), rtol=1e-5)


# ---- random programs ----

SAFE = [lambda a: a.tanh(), lambda a: a.sigmoid(), lambda a: a.relu(), lambda a: a.tanh().exp(), lambda a: -a,
        lambda a: (a * a + 1.0).log(), lambda a: (a * a + 0.5).sqrt(), lambda a: abs(a), lambda a: a.sin(),
        lambda a: a * 0.5, lambda a: 1.0 - a, lambda a: a.tanh() ** 3, lambda a: a.softplus() * 0.5,
        lambda a: a.leaky_relu(), lambda a: a.gelu(), lambda a: a.detach() * a.tanh(), lambda a: (a.tanh() + 2.0) ** 0.5]
PAIRS = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a.tanh() * b, lambda a, b: a / (b * b + 1.0),
         lambda a, b: flatgrad.maximum(a, b), lambda a, b: flatgrad.minimum(a, b),
         lambda a, b: flatgrad.where((a.relu()), a, b), lambda a, b: flatgrad.clip(a, -0.5, b.sigmoid())]
TO_VALUE = [lambda t: t.sum() * 0.1, lambda t: t.mean(), lambda t: t.max(), lambda t: flatgrad.logsumexp(t),
            lambda t: t.reshape(-1)[0], lambda t: flatgrad.dot(t.reshape(-1), t.reshape(-1)) * 0.1]
TO_TENSOR = [lambda t: t.T, lambda t: t.softmax(), lambda t: t.log_softmax() * 0.1, lambda t: t[::-1],
             lambda t: t.reshape(-1).reshape(t.shape), lambda t: flatgrad.cat([t, t])[:len(t)], lambda t: t[[0] * len(t)],
             lambda t: (t.T @ t if t.ndim == 2 else t) * 0.2]


class Plan:
    """A random function: the same operations at each call."""

    def __init__(self, seed):
        rng = self.rng = random.Random(seed)
        self.n_values, self.n_tensors = rng.randrange(4), rng.randrange(3)
        if self.n_values + self.n_tensors == 0:
            self.n_values = 1
        self.shapes = [(rng.randrange(1, 4), rng.randrange(1, 4)) if rng.random() < 0.7 else (rng.randrange(1, 6),)
                       for _ in range(self.n_tensors)]
        self.values = [Value(rng.uniform(-1, 1)) for _ in range(rng.randrange(5))]
        self.tensors = [Tensor(np.reshape([rng.uniform(-1, 1) for _ in range(math.prod(s))], s))
                        for s in ((2, 3), (3,))[:rng.randrange(3)]]
        self.inner = [v.tanh() for v in self.values[:1]] + [t * 2.0 for t in self.tensors[:1]]
        self.frozen = self.values[-1:] if rng.random() < 0.2 else []
        for v in self.frozen:
            v.requires_grad = False
        self.steps = [(rng.random(), rng.random(), rng.random(), rng.random()) for _ in range(rng.randrange(1, 25))]
        self.outputs = [rng.random() for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        self.leaves = self.values + self.tensors

    def inputs(self, rng):
        return ([Value(rng.uniform(-1, 1)) for _ in range(self.n_values)]
                + [Tensor(np.reshape([rng.uniform(-1, 1) for _ in range(math.prod(s))], s)) for s in self.shapes])

    def __call__(self, *inputs):
        made = [*self.values, *self.tensors, *self.inner, *inputs]
        def pick(pool, at):
            return pool[int(at * len(pool))]
        for kind, a, b, c in self.steps:
            tensors = [x for x in made if isinstance(x, Tensor)]
            values = [x for x in made if isinstance(x, Value)]
            if kind < 0.35 or not tensors and kind > 0.6:
                new = pick(SAFE, c)(pick(made, 1 - (1 - a) ** 2 if a < 1 else a))
            elif kind < 0.6:
                x, y = pick(made, a), pick(values or made, b)
                new = pick(PAIRS, c)(x, y) if isinstance(y, Value) or not isinstance(x, Tensor) else x
            elif kind < 0.75:
                new = pick(TO_VALUE, c)(pick(tensors, a))
            elif kind < 0.9:
                new = pick(TO_TENSOR, c)(pick(tensors, a))
            elif len(values) > 1:
                count = 1 + int(c * 5)
                several = [pick(values, (a * (j + 1)) % 1) for j in range(count)]
                new = [flatgrad.sum(several), flatgrad.dot(several, [0.5] * count),
                       flatgrad.softmax(several)[0], Tensor(several)][int(b * 4)]
            else:
                new = made[0]
            made.append(new)
        made = made[-4:] if len(made) > 4 else made
        return [pick(made, at) for at in self.outputs]


@pytest.mark.parametrize("part", range(20))
def test_random_programs(part):
    """Values are the same in each bit. Gradients are too, but where a slot is an operand twice, or a result is an
    operand: then they are added in another order."""
    exact = 0
    for seed in range(50 * part, 50 * part + 50):
        plan = Plan(seed)
        rng = random.Random(seed)
        program = record(lambda *inputs: plan(*inputs), *plan.inputs(rng))
        for _ in range(2):
            inputs = plan.inputs(rng)
            weights = [rng.uniform(-1, 1) if rng.random() < 0.8 or k == 0 else None for k in range(len(plan.outputs))]
            found = []
            for run in (plan, lambda *args: program(list(args))):
                given = [leaf_like(x) for x in inputs]
                out = run(*given)
                clear([*given, *plan.leaves, *plan.inner])
                loss = total(out, weights)
                loss.backward()
                found.append(([bits(x.data) for x in out], bits(loss.data),
                              [np.ravel(x.grad) for x in [*given, *plan.leaves]]))
            assert found[0][:2] == found[1][:2], seed
            for one, other in zip(found[0][2], found[1][2]):
                np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14, err_msg=str(seed))
            exact += all(bits(one) == bits(other) for one, other in zip(found[0][2], found[1][2]))
            for x in plan.values:
                x.data = rng.uniform(-1, 1)
    assert exact > 80 and _core._check()
