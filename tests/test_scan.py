"""scan and fori_loop as one instruction against the same loop in Python (unroll=True): the same numbers and gradients, bit
for bit, whatever else is done with them."""
import copy
import gc
import pickle
import random
import signal

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, fori_loop, nn, scan
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError


def bits(x):
    """The numbers of something, so that 0.0 differs from -0.0 and nan equals itself."""
    return np.ravel(x).astype(float).tobytes()


def leaves(tree):
    return [x for x in flatgrad.structures.leaves_of(tree) if x is not None]


def weighted(nodes, factors):
    """A number of several nodes; a factor of None leaves one out."""
    total = Value(0.0)
    for node, factor in zip(nodes, factors):
        if factor is None:
            continue
        elements = [node] if isinstance(node, Value) else list(node.reshape(-1))
        for k, element in enumerate(elements):
            total = total + element * (factor + 0.125 * k)
    return total


def compared(f, init, xs=None, captured=(), factors=None, exact=True, **options):
    """f as one instruction, with and without checkpoints, against the steps in Python: equal numbers and gradients."""
    found, nodes = [], leaves([init, xs])
    watched = [x for x in (*nodes, *captured) if isinstance(x, (Value, Tensor))]
    for how in ({"unroll": True}, {}, {"checkpoint": 1}, {"checkpoint": 3}, {"checkpoint": 1000}):
        for x in watched:
            x.grad = 0.25
        result = leaves(scan(f, init, xs, **options, **how))
        weights = [1.5 - 0.7 * k for k in range(len(result))] if factors is None else factors
        weighted(result, weights).backward()
        found.append(([bits(x.data) for x in result], [np.array(x.grad) for x in watched]))
        for x in watched:
            x.grad = 0.0
    for data, grads in found[1:]:
        assert data == found[0][0]
        for got, want in zip(grads, found[0][1]):
            if exact:
                assert bits(got) == bits(want), (got, want)
            else:
                np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)
        assert all(bits(a) == bits(b) for a, b in zip(grads, found[1][1]))   # stretches change nothing at all
    assert _core._check()


# ---- against the loop in Python ----

def test_a_pendulum():
    g, c, dt = Value(9.81), Value(0.1), Value(0.01)
    def step(state, _):
        angle, speed = state
        return (angle + dt * speed, speed - dt * (g * angle.sin() + c * speed)), angle
    compared(step, (0.5, Value(0.0)), captured=[g, c, dt], length=40)


def test_a_recurrent_layer():
    rng = np.random.default_rng(0)
    W, U, b = Tensor(rng.normal(size=(4, 4)) / 2), Tensor(rng.normal(size=(4, 3))), Tensor(rng.normal(size=4))
    def step(h, x):
        h = (flatgrad.linear(h, W, b) + x @ U.T).tanh()
        return h, h
    xs = rng.normal(size=(7, 3))
    compared(step, np.zeros(4), xs, [W, U, b])
    compared(step, Tensor(rng.normal(size=4)), Tensor(xs), [W, U, b], factors=[None, 1.0])
    compared(step, Tensor(rng.normal(size=4)), Tensor(xs), [W, U, b], factors=[1.0, None], reverse=True)


def test_a_model_of_single_values():
    model = nn.MLP(2, [4, 1])
    compared(lambda c, x: ((c + model([c, x]) * 0.1), c * x), Value(0.3), np.array([0.1, -0.4, 0.7, 0.2]),
             model.parameters())


UNARY = [lambda a: a.tanh(), lambda a: a.sigmoid(), lambda a: a.relu(), lambda a: a.sin(), lambda a: -a, lambda a: a * 0.5,
         lambda a: (a * a + 0.5).sqrt(), lambda a: a.cos(), lambda a: 1.0 - a, lambda a: a.tanh() ** 3,
         lambda a: a.leaky_relu(), lambda a: a.detach() * 0.5 + a * 0.25]
BINARY = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a.tanh() * b.tanh(), lambda a, b: a / (b * b + 1.0),
          lambda a, b: flatgrad.maximum(a, b), lambda a, b: flatgrad.where(flatgrad.maximum(a, 0.0), a, b)]


def random_step(rng, n_carry, n_out, captured):
    """A step on scalars, as a function of lists; the same operations at each call."""
    plan = [(rng.randrange(len(UNARY)), rng.randrange(len(BINARY)), rng.random(), rng.random(), rng.random() < 0.4)
            for _ in range(rng.randrange(1, 12))]
    ends = [rng.random() for _ in range(n_carry + n_out)]
    clip = [rng.random() < 0.5 for _ in range(n_carry)]
    def step(carry, xs):
        pool = [*carry, *xs, *captured]
        for u, b, p, q, one in plan:
            first, second = pool[int(p * len(pool))], pool[int(q * len(pool))]
            pool.append(UNARY[u](first) if one else BINARY[b](first, second))
        picked = [pool[-1 - int(p * p * len(pool))] for p in ends]
        return ([x.tanh() if on else x for x, on in zip(picked, clip)], picked[n_carry:])
    return step


def different(step, n_carry, captured):
    """Whether results of the step are new nodes, and none twice in the next carry: then the gradients are rounded as
    those of the loop."""
    carry, xs = [Value(0.1 * k) for k in range(n_carry)], [Value(0.3), Value(0.4)]
    after, outputs = step(carry, xs)
    given = {id(x) for x in (*carry, *xs, *captured)}
    return len({id(x) for x in after}) == n_carry and not given & {id(x) for x in (*after, *outputs)}


@pytest.mark.parametrize("seed", range(60))
def test_random_steps(seed):
    rng = random.Random(seed)
    w = [Value(rng.uniform(-1, 1)) for _ in range(rng.randrange(3))]
    captured = [*w, *[x * 1.5 for x in w]]   # leaves, and not
    n_carry, n_out, length = rng.randrange(1, 4), rng.randrange(0, 3), rng.randrange(1, 9)
    step = random_step(rng, n_carry, n_out, captured)
    init = [Value(rng.uniform(-1, 1)) if rng.random() < 0.7 else rng.uniform(-1, 1) for _ in range(n_carry)]
    xs = [np.array([rng.uniform(-1, 1) for _ in range(length)]), Tensor([rng.uniform(-1, 1) for _ in range(length)])]
    factors = [None if rng.random() < 0.3 else rng.uniform(-1, 1) for _ in range(n_carry + n_out)]
    factors[rng.randrange(len(factors))] = 1.0
    compared(step, init, xs, captured, factors, exact=different(step, n_carry, captured), reverse=rng.random() < 0.5)


def test_random_steps_are_mostly_compared_bit_for_bit():
    exact = 0
    for seed in range(60):
        rng = random.Random(seed)
        w = [Value(rng.uniform(-1, 1)) for _ in range(rng.randrange(3))]
        captured = [*w, *[x * 1.5 for x in w]]
        n_carry, n_out, _ = rng.randrange(1, 4), rng.randrange(0, 3), rng.randrange(1, 9)
        exact += different(random_step(rng, n_carry, n_out, captured), n_carry, captured)
    assert exact >= 15
