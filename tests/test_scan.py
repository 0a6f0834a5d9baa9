"""scan and fori_loop as one instruction against the same loop in Python (unroll=True): the same numbers and gradients,
bit for bit, whatever else is done with them."""
import copy
import gc
import os
import pickle
import random
import signal
import subprocess
import sys
import time

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


UNARY = [lambda a: a.tanh(), lambda a: a.sigmoid(), lambda a: a.relu(), lambda a: a.sin(), lambda a: -a,
         lambda a: a * 0.5, lambda a: (a * a + 0.5).sqrt(), lambda a: a.cos(), lambda a: 1.0 - a,
         lambda a: a.tanh() ** 3,
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


# ---- only what is reached ----

def test_results_that_are_not_reached_take_no_part():
    """As 0 times an infinite derivative would be nan."""
    w = Value(0.0)
    def step(c, x):
        bad = w.sqrt()   # infinite derivative at 0
        return (c[0] * 2.0, c[1] + bad, c[0]), (c[1] * 1.0, c[2] + x)
    for k in range(3):
        compared(step, (Value(1.0), Value(2.0), Value(3.0)), np.arange(5.0), [w],
                 [1.0 if j == 2 * (k > 1) else None for j in range(5)])
        assert w.grad == 0.0
    (a, b, c), (y, z) = scan(step, (Value(1.0), Value(2.0), Value(3.0)), np.arange(5.0))
    y[0].backward()
    assert w.grad == 0.0
    z[4].backward()
    assert w.grad == 0.0
    y[1].backward()
    assert w.grad == np.inf


def test_a_carry_that_moves_along():
    """Gradients come to another part of the carry at each step."""
    xs = Tensor(np.arange(6.0))
    init = tuple(Value(float(k)) for k in range(4))
    def step(c, x):
        return (c[1], c[2], c[3], c[0] + x * x), c[0]
    for length in range(1, 7):
        for k in range(4):
            compared(step, init, xs[:length], factors=[1.0 if j == k else None for j in range(5)], exact=False)
    last, ys = scan(step, init, xs)
    last[3].backward()
    assert [x.grad for x in init] == [0.0, 1.0, 0.0, 0.0]
    assert xs.grad.tolist() == [0.0, 2.0, 0.0, 0.0, 0.0, 10.0]
    assert set(last[3]._prev) == {init[1], xs[1], xs[5]}
    assert dict(zip(last[3]._children, last[3]._local_grads)) == {init[1]: 1.0, xs[1]: 2.0, xs[5]: 10.0}
    assert set(ys[4]._prev) == {init[0], xs[0]} and ys[0]._prev == {init[0]}
    assert flatgrad._core.depends([last[3]], [init[1]])


def test_single_outputs():
    w, xs = Value(0.5), Tensor(np.linspace(-1, 1, 9))
    for reverse in (False, True):
        for k in range(9):
            grads = []
            for unroll in (True, False):
                w.grad, xs.grad = 0.0, 0.0
                _, ys = scan(lambda c, x: ((c * w + x).tanh(), c * x), Value(0.25), xs, reverse=reverse, unroll=unroll)
                ys[k].backward()
                grads.append(bits([w.grad, *xs.grad]))
            assert grads[0] == grads[1]


# ---- with everything else ----

def loss_of(w, xs, **options):
    carry, ys = scan(lambda c, x: ((c * w + x).tanh(), c * w), Value(0.25), xs, **options)
    return carry + (ys * ys).sum()


XS = np.array([0.3, -0.2, 0.9, 0.1])


def test_transforms():
    for transform in (flatgrad.grad, flatgrad.value_and_grad):
        assert transform(lambda w: loss_of(w, XS))(0.7) == transform(lambda w: loss_of(w, XS, unroll=True))(0.7)
    def path(v, unroll):
        return scan(lambda c, x: (c * v[0] + x * v[1], c * x), Value(0.5), XS, unroll=unroll)[1]
    got, want = [flatgrad.jacobian(lambda v: path(v, u))(np.array([0.3, 0.4])) for u in (False, True)]
    assert bits(got) == bits(want)
    assert flatgrad.gradcheck(lambda w, xs: loss_of(w, xs), (0.7, XS))
    with pytest.raises(TypeError, match="transform"):
        flatgrad.grad(lambda w: float(loss_of(w, XS)))(0.5)


def test_scans_in_scans():
    w = Value(0.9)
    def outer(c, row, unroll=False):
        inner, path = scan(lambda a, x: ((a * w + x).tanh(), a * c), c, row, unroll=unroll)
        return inner + c * 0.5, path.sum()
    rows = np.random.default_rng(0).normal(size=(5, 3))
    compared(outer, Value(0.2), rows, [w], exact=False)
    found = []
    for u in (False, True):
        w.grad = 0.0
        c, ys = scan(lambda c, row: outer(c, row, u), Value(0.2), rows, unroll=u)
        (c + ys.sum()).backward()
        found.append((c.data, ys.tolist(), w.grad))
    assert found[0][:2] == found[1][:2] and found[0][2] == pytest.approx(found[1][2], rel=1e-13)
    def add(i, a):
        return fori_loop(0, 4, lambda j, b: fori_loop(1, 3, lambda k, c: c + i * j * k, b), a)
    three = fori_loop(0, 3, add, 0.0)
    assert three.data == sum(i * j * k for i in range(3) for j in range(4) for k in range(1, 3))


@pytest.mark.parametrize("simplify", [True, False])
def test_a_scan_in_a_compiled_function(simplify):
    w = Value(0.9)
    @flatgrad.compile(simplify=simplify)
    def f(c, xs, v):
        z = v * w   # captured by the step from the outer recording
        last, ys = scan(lambda c, x: ((c * z + x).tanh(), c * w), c * v, xs)
        return last, ys.sum()
    assert f.explain().startswith("compile")
    for _ in range(3):
        v, xs = Value(0.5), Tensor(XS)
        w.grad = 0.0
        a, b = f(0.25, xs, v)
        (a + b * 2.0).backward()
        got = a.data, b.data, w.grad, v.grad, xs.grad.tolist()
        v2, xs2 = Value(0.5), Tensor(XS)
        w.grad = 0.0
        z = v2 * w
        last, ys = scan(lambda c, x: ((c * z + x).tanh(), c * w), v2 * 0.25, xs2, unroll=True)
        (last + ys.sum() * 2.0).backward()
        assert simplify or got[:2] == (last.data, ys.sum().data)   # w comes out of the sum
        np.testing.assert_allclose([*got[:4], *got[4]], [last.data, ys.sum().data, w.grad, v2.grad, *xs2.grad], rtol=1e-14)
        w.data *= 0.9
    assert f.cache_info().misses == 1
    checked = flatgrad.compile(lambda c, xs: scan(lambda c, x: (c * w + x, c), c, xs)[0], check=True)
    assert checked(1.0, XS).data == checked(1.0, XS).data


def test_a_compiled_function_in_a_scan():
    w = Value(0.9)
    cell = flatgrad.compile(lambda c, x: (c * w + x).tanh())
    cell(0.1, 0.2)
    compared(lambda c, x: (cell(c, x), cell(x, c)), Value(0.3), Tensor(XS), [w], exact=False)
    assert cell.cache_info().currsize >= 1


def test_models_and_optimizers():
    model = nn.MLP(2, [4, 2], rng=1)
    optimizer = flatgrad.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(5):
        state, path = scan(lambda s, x: (list(model([s[0] + x, s[1]])), s[0]), [0.1, 0.2], XS)
        loss = (path * path).sum() + state[1] ** 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.data)
    assert losses[-1] < losses[0]


def test_buffers_and_modes():
    """A BatchNorm in eval() reads its statistics, which may change between two calls of a compiled function."""
    norm = nn.BatchNorm(2)
    norm.eval()
    def step(c, x):
        y = norm([c, x])
        return y[0] * 0.5 + y[1], y[1]
    compiled = flatgrad.compile(lambda c, xs: scan(step, c, xs))
    for mean in (0.0, 0.5):
        norm.running_mean = np.full(2, mean)
        found = [leaves(out) for out in (compiled(0.25, XS), scan(step, 0.25, XS), scan(step, 0.25, XS, unroll=True))]
        for out in found[:2]:
            for got, want in zip(out, found[2]):
                np.testing.assert_allclose(got.data, want.data, rtol=1e-13)
    assert compiled.cache_info().misses == 1


def test_errors_that_are_caught():
    def step(c, x):
        try:
            float(c)
        except TypeError:
            pass
        return c, None
    with pytest.raises(ArgumentTypeError, match="went on after the error"):
        scan(step, Value(0.5), XS)


def test_copies_and_pickles():
    w = Value(0.9)
    def total(w, **options):
        last, ys = scan(lambda c, x: ((c * w + x).tanh(), (c, c * x)), Value(0.25), Tensor(XS), **options)
        return last + ys[0].sum() * ys[1].sum()
    for how in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        y = total(w)
        v, other = how([w, y])
        assert other.data == y.data and v is not w
        v.data, v.grad = 0.5, 0.0   # the gradient is that at the present data
        other.backward()
        w.data, w.grad = 0.5, 0.0
        y.backward()
        assert v.grad == w.grad
        w.data = 0.9
    step = flatgrad.loops.Step("scan", lambda c, x: (c * w + x, c), Value(0.0), Value(0.0))
    program = step.program.scanned(3, 1, 1)
    for other in (copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        assert other([1.0, [1.0, 2.0, 3.0]])[0].data == program([1.0, [1.0, 2.0, 3.0]])[0].data
        assert other.stats() == program.stats()


def test_hooks_on_results():
    w, calls = Value(0.9), []
    last, ys = scan(lambda c, x: (c * w + x, c), Value(0.25), XS)
    rule = ys[2]._backward
    y = ys[2]
    y._backward = lambda: (calls.append(y.grad), rule())
    (ys.sum() + last).backward()
    plain = Value(0.9)
    l2, y2 = scan(lambda c, x: (c * plain + x, c), Value(0.25), XS, unroll=True)
    (y2.sum() + l2).backward()
    assert calls == [1.0] and w.grad == pytest.approx(plain.grad, rel=1e-15)


def test_no_grad_and_constants():
    w = Value(0.9)
    with flatgrad.no_grad():
        last, ys = scan(lambda c, x: (c * w + x, c), Value(0.25), XS)
    assert last._prev == set() and not ys.requires_grad
    assert last.data == scan(lambda c, x: (c * w + x, c), Value(0.25), XS)[0].data
    X = Tensor(XS, requires_grad=False)
    t, _ = scan(lambda c, x: (c * 2.0 + x, None), np.zeros(1), X)
    assert not t.requires_grad
    with pytest.raises(RuntimeError, match="no gradient flows"):
        t.sum().backward()
    w.requires_grad = False
    v = Value(0.5)
    last, _ = scan(lambda c, x: (c * w + x * v, None), np.zeros(2), X)
    last.sum().backward()
    assert w.grad == 0.0 and v.grad != 0.0 and not X.grad.any()


def test_mutation_between_forward_and_backward():
    w, c, xs = Value(0.9), Value(0.25), Tensor(XS)
    def run():
        return scan(lambda c, x: ((c * w + x).tanh(), None), c, xs)[0]
    first = run()
    second = run() * 3.0   # the same f would share nothing
    for change in (lambda: None, lambda: setattr(w, "data", 0.4), lambda: setattr(xs, "data", XS * 2.0),
                   lambda: setattr(c, "data", -1.0)):
        change()
        w.grad = 0.0
        first.backward()
        got = w.grad
        w.grad = 0.0
        run().backward()
        assert got == w.grad
    second.backward()
    assert _core._check()


def test_one_program_called_again_and_again():
    w = Value(0.9)
    program = flatgrad.loops.Step("scan", lambda c, x: ((c * w + x).tanh(), c), Value(0.0), Value(0.0)).program
    three, five = program.scanned(3, 1, 1), program.scanned(5, 1, 1, True, 2)
    a, _ = three([Value(0.5), XS[:3]])
    b, _ = five([Value(0.1), [*XS, 0.5]])
    c, _ = three([Value(-0.5), XS[1:]])
    d, = [program([0.3, 0.4])[0]]
    grads = []
    for y in (a, b, c, d, a, c, b):
        w.grad = 0.0
        y.backward()
        grads.append(w.grad)
    assert grads[0] == grads[4] and grads[2] == grads[5] and grads[1] == grads[6]
    f = lambda c, x: ((c * w + x).tanh(), c)   # noqa: E731
    for k, y in enumerate([scan(f, Value(0.5), XS[:3])[0], scan(f, Value(0.1), np.array([*XS, 0.5]), reverse=True)[0],
                           scan(f, Value(-0.5), XS[1:])[0]]):
        w.grad = 0.0
        y.backward()
        assert w.grad == grads[k]


def test_aliases():
    """The same Value as the first carry, twice, as an x and captured."""
    found = []
    for unroll in (True, False):
        w = Value(0.7)
        (a, b), ys = scan(lambda c, x: ((c[0] * w + x, c[1] + c[0]), c[0]), (w, w), flatgrad.stack([w, w, Value(0.1)]),
                          unroll=unroll)
        (a * 1.5 + b * 0.8 + ys[1]).backward()
        found.append(w.grad)
    assert found[0] == pytest.approx(found[1], rel=1e-14)
    last, _ = scan(lambda c, _: (c * w, None), w, length=4)
    w.grad = 0.0
    last.backward()
    assert w.grad == pytest.approx(5 * 0.7 ** 4, rel=1e-14)
    pair, _ = scan(lambda c, _: ((c[1], c[0]), None), (w, Value(2.0)), length=3)
    assert pair[1] is not w and pair[1].data == 0.7


def test_structures():
    State = __import__("collections").namedtuple("State", "b a")
    init = {"z": 1.0, "m": State([Value(2.0)], None), "t": np.ones(2)}
    def step(s, _):
        after = {"t": s["t"] * 2.0, "m": State([s["m"].b[0] + s["z"]], None), "z": s["z"] + 1.0}
        return after, (s["z"], None, {"q": s["t"]})
    found = [scan(step, init, length=3, unroll=u) for u in (False, True)]
    for end, out in found:
        assert list(end) == ["t", "m", "z"] and type(end["m"]) is State and end["m"].a is None
        assert out[1] is None and out[2]["q"].shape == (3, 2)
    assert [bits(x.data) for x in leaves(found[0])] == [bits(x.data) for x in leaves(found[1])]
    assert scan(lambda c, x: (None, x * 2.0), None, np.arange(3.0))[1].tolist() == [0.0, 2.0, 4.0]
    assert scan(lambda c, x: (c, None), None, length=3) == (None, None)
    assert scan(lambda c, x: (c, 5.0), 1.0, length=3)[1].tolist() == [5.0] * 3
    assert scan(lambda c, x: (7.0, c), 1.0, length=3)[1].tolist() == [1.0, 7.0, 7.0]
    assert scan(lambda c, x: (c, np.ones(2)), 1.0, length=3)[1].tolist() == [[1.0, 1.0]] * 3
    assert fori_loop(0, 3, lambda i, v: v, None) is None


# ---- what is refused ----

@pytest.mark.parametrize("f, words", [
    (lambda c, x: (c if c > 0 else -c, None), "a comparison while a step of flatgrad.scan is recorded"),
    (lambda c, x: (c * float(x), None), "while a step of flatgrad.scan is recorded"),
    (lambda c, x: (c + W.data, None), "while a step of flatgrad.scan is recorded"),
    (lambda c, x: (c * [1, 2][x], None), "integer"),
    (lambda c, x: (c + sum(range(x)), None), "integer"),
    (lambda c, x: (c + nn.Dropout(0.5)(c), None), "while a step of flatgrad.scan is recorded"),
    (lambda c, x: (c + len(nn.MLP(1, [1]).parameters()), None), "while a step of flatgrad.scan is recorded"),
])
def test_numbers_are_not_read(f, words):
    with pytest.raises(TypeError, match=rf"(?s){words}.*scan\(..., unroll=True\) runs the steps one by one in Python"):
        scan(f, Value(0.5), XS)
    assert scan(f, Value(0.5), np.array([1.0, 0.0]), unroll=True)[0].data >= 0.0 if words != "integer" else True


W = Value(0.5)


def test_what_a_recording_cannot_have():
    with pytest.raises(TypeError, match="rule of its own"):
        scan(lambda c, x: (Value(1.0, (c,), (2.0,)), None), Value(0.5), XS)
    with pytest.raises(TypeError, match=r"fori_loop\(..., unroll=True\)"):
        fori_loop(0, 3, lambda i, v: v + [1, 2, 3][i], 0.0)
    assert fori_loop(0, 3, lambda i, v: v + [1, 2, 3][i], 0.0, unroll=True).data == 6.0
    with pytest.raises(ZeroDivisionError, match="^division by zero$"):
        scan(lambda c, x: 1 / 0, Value(0.5), XS)


def test_bad_arguments():
    for call, error, words in [
            (lambda: scan(lambda c, x: (c, x), 0.0, length=2, checkpoint=0), ArgumentError, "checkpoint: expected an"),
            (lambda: scan(lambda c, x: (c, x), 0.0, length=2, unroll=1), ArgumentTypeError, "unroll: expected True"),
            (lambda: fori_loop(0, 2, lambda i, v: v, 0.0, unroll=None), ArgumentTypeError, "unroll: expected True"),
            (lambda: scan(lambda c, x: (c, np.ones((2, 2))), 0.0, length=2), ShapeError, "at most two"),
            (lambda: scan(lambda c, x: (c, "a"), 0.0, length=2), ArgumentTypeError, "the output of f"),
            (lambda: fori_loop(2 ** 60, 2 ** 60 + 1, lambda i, v: v, 0.0), ArgumentError, "2\\*\\*53")]:
        with pytest.raises(error, match=words):
            call()
    program = flatgrad.loops.Step("scan", lambda c, x: (c + x, c), Value(0.0), Value(0.0)).program
    for wrong in ((0, 1, 1), (1, 2, 1), (1, 1, 2), (1, 3, 0), (-1, 1, 1), (1.0, 1, 1), (1, 1, 1, False, -1)):
        with pytest.raises(ValueError):
            program.scanned(*wrong)
    with pytest.raises(RuntimeError):
        program.scanned(2, 1, 1).scanned(2, 1, 1)
    with pytest.raises(MemoryError):
        program.scanned((1 << 30) - 1, 1, 1)


def test_a_step_outside_of_a_domain():
    before = flatgrad.stats()["nodes"]
    with pytest.raises(ValueError, match=r"-0.5.* in step 2 of a scan|step 2"):
        scan(lambda c, x: (c - 1.0, (c + 0.0).log()), Value(1.5), np.zeros(4))
    gc.collect()
    assert flatgrad.stats()["nodes"] <= before + 1
    with pytest.raises(ZeroDivisionError, match="step 1 of a scan"):
        scan(lambda c, x: (c / x, None), Value(1.5), np.array([1.0, 0.0]))


def test_signs_are_checked_at_each_call():
    w = Value(0.5)
    def step(c, x):
        return c + flatgrad.losses.hinge([x["x"] * w], [x["y"]]), None
    good = {"x": np.array([1.0, 2.0, 3.0]), "y": np.array([1.0, -1.0, 1.0])}
    assert scan(step, 0.0, good)[0].data == scan(step, 0.0, good, unroll=True)[0].data
    with pytest.raises(DataError, match="expected -1 or 1, got 0.5"):
        scan(step, 0.0, {"x": good["x"], "y": np.array([1.0, -1.0, 0.5])})


# ---- long ones ----

def test_a_million_steps():
    w = Value(1.0 - 1e-7)
    end, _ = scan(lambda c, _: (c * w, None), 1.0, length=1_000_000)
    end.backward()
    assert w.grad == pytest.approx(1e6 * w.data ** 999_999, rel=1e-8)
    xs = np.full(100_000, 1e-5)
    total, ys = scan(lambda c, x: (c + x * w, c), 0.0, xs)
    w.grad = 0.0
    (total + ys[50_000]).backward()
    assert w.grad == pytest.approx(1.5, rel=1e-6)


def test_memory_is_that_of_a_stretch():
    w = Value(0.5)
    program = flatgrad.loops.Step("scan", lambda c, x: ((c * w).sin(), None), Value(0.0), None).program
    sizes = {n: program.scanned(n, 1, 0).stats()["bytes"] for n in (1000, 1_000_000)}
    assert sizes[1_000_000] < 1_000_000
    assert program.scanned(1_000_000, 1, 0, False, 1000).stats()["bytes"] < 100_000


def test_ctrl_c():
    class Stop(Exception):
        pass
    def stop(*args):
        raise Stop
    w = Value(0.5)
    step = flatgrad.loops.Step("scan", lambda c, _: (c * w + 1.0, None), Value(0.0), None)
    program = step.program.scanned(200_000, 1, 0)
    old = signal.signal(signal.SIGINT, stop)
    try:
        c = Value(0.25)
        with pytest.raises(Stop):
            _core._testing(stop_after=0)
            program([c])
        z, = program([c])
        before = z.data
        c.data = 0.5   # so that the backward pass computes the steps once more
        with pytest.raises(Stop):
            _core._testing(stop_after=0)
            z.backward()
        assert (w.grad, c.grad, z.data) == (0.0, 0.0, before)
        z.backward()
        assert w.grad != 0.0
    finally:
        signal.signal(signal.SIGINT, old)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill")
@pytest.mark.parametrize("f, init, length", [
    (lambda c, _: ((c * 0.999).sin(), None), 0.5, 40_000_000),
    (lambda c, _: (flatgrad.matvec(MATRIX, c), None), np.ones(400), 40_000),
    (lambda c, _: (fori_loop(0, 1000, lambda k, a: (a * 0.999).sin(), c), None), 0.5, 40_000),
])
def test_an_interrupt_is_heard_soon(f, init, length):
    class Stop(Exception):
        pass
    def stop(*args):
        raise Stop
    old = signal.signal(signal.SIGINT, stop)
    try:
        start = time.process_time()
        press = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -INT {os.getpid()}"])
        with pytest.raises(Stop):
            scan(f, init, length=length)
        assert time.process_time() - start < 0.8   # 0.4 where nothing else is done
        press.wait()
    finally:
        signal.signal(signal.SIGINT, old)


MATRIX = np.full((400, 400), 0.001)


def test_memory_that_fails_in_c():
    w = Value(0.7)
    program = flatgrad.loops.Step("scan", lambda c, x: ((c * w + x).tanh(), c * x), Value(0.5), Value(0.25)).program
    gc.collect()
    before = _core._live_programs()
    for n in range(100):
        _core._testing(fail_after=n)
        try:
            scanned = program.scanned(50, 1, 1)
        except MemoryError:
            _core._testing(fail_after=-1)
            assert _core._live_programs() == before and _core._check()
            continue
        finally:
            _core._testing(fail_after=-1)
        break
    assert n > 15
    assert scanned([0.5, np.ones(50)])[0].data == scan(
        lambda c, x: ((c * w + x).tanh(), c * x), 0.5, np.ones(50), unroll=True)[0].data


def test_nothing_leaks():
    w = Value(0.5)
    def work():
        last, ys = scan(lambda c, x: ((c * w + x).tanh(), c), Value(0.25), XS)
        (last + ys.sum()).backward()
        pickle.loads(pickle.dumps(last)).backward()
        try:
            scan(lambda c, x: (c.log(), None), Value(0.25), XS)
        except ValueError:
            pass
    work()
    gc.collect()
    nodes, programs = flatgrad.stats()["nodes"], _core._live_programs()
    for _ in range(50):
        work()
    gc.collect()
    assert flatgrad.stats()["nodes"] <= nodes and _core._live_programs() == programs


def test_damaged_files():
    w = Value(0.5)
    program = flatgrad.loops.Step("scan", lambda c, x: ((c * w + x).tanh(), c * x), Value(0.5), Value(0.25)).program
    restore, parts = program.scanned(4, 1, 1).__reduce__()[1][0].__reduce__()
    assert restore(*parts) is not None
    rng = random.Random(0)
    wrong = [None, -1, 0, 1, 2, 3, 1 << 40, "x", (), (1,), (2,), (1, 1), (0,), (1 << 29,), True, False, 1.0]
    for k in range(len(parts)):
        for x in wrong:
            changed = list(parts)
            changed[k] = x
            try:
                made = restore(*changed)
            except (ValueError, TypeError, MemoryError):
                continue
            assert made is not None
    for _ in range(300):
        changed = [parts[0], *[rng.choice(wrong) for _ in parts[1:]]]
        try:
            restore(*changed)
        except (ValueError, TypeError, MemoryError):
            pass
    assert _core._check()


def test_a_wrong_step_is_noticed():
    """The comparison of this file can fail: here the steps of the loop in Python differ from the recorded one."""
    w, calls = Value(0.7), []
    def step(c, _):
        calls.append(1)
        return c * w * (1.0 if len(calls) > 1 else 1.0 + 1e-15), None
    with pytest.raises(AssertionError):
        compared(step, Value(0.5), captured=[w], length=5)


# ---- positions, by which the gradients of each step go elsewhere ----

TAKING = {
    "position of x": lambda t: lambda c, x: (c * 0.5 + flatgrad.take(t, x), None),
    "position of the carry": lambda t: lambda c, x: (
        c * 0.5 + flatgrad.take(t, flatgrad.clip((c * c * 0.1).floor(), 0, 2)), c),
    "two of them": lambda t: lambda c, x: (c + flatgrad.take(t, x) * flatgrad.take(t, 2.0 - x), flatgrad.take(t, x)),
    "computed": lambda t: lambda c, x: (c, flatgrad.take([q.exp() * c for q in t], x)),
}


@pytest.mark.parametrize("checkpoint", [None, 1, 2])
@pytest.mark.parametrize("name", TAKING)
def test_each_step_takes_from_its_own_position(name, checkpoint):
    found = []
    for options in ({"unroll": True}, {"checkpoint": checkpoint}):
        t, init = [Value(1.0), Value(2.0), Value(3.0)], Value(1.5)
        last, ys = scan(TAKING[name](t), init, np.array([0.0, 2.0, 2.0, 1.0, 0.0]), **options)
        out = last if ys is None else last + (ys * np.arange(1.0, 6.0)).sum()
        out.backward()
        found.append([out.data, init.grad, *[q.grad for q in t]])
    assert found[1] == pytest.approx(found[0], rel=1e-14, abs=0) and any(found[0][2:])
    for way in (lambda f: f, flatgrad.compile):
        def outputs(t):
            return scan(lambda c, x: (c, flatgrad.take(t, x)), 0.0, np.array([0.0, 2.0, 2.0]), checkpoint=checkpoint)[1]
        assert np.array_equal(flatgrad.jacobian(way(outputs))([1.0, 2.0, 3.0]), np.eye(3)[[0, 2, 2]])


def test_what_a_step_does_not_take_is_not_visited():
    """Else 0 * inf, of a root of 0 that no step takes."""
    x, y = Value(0.0), Value(2.0)
    def loss(**options):
        return scan(lambda c, k: (c + flatgrad.take([x.sqrt(), y * c, y], k), None), 1.0, np.array([1.0, 2.0, 1.0]),
                    **options)[0]
    loss(unroll=True).backward()
    expected, x.grad, y.grad = [x.grad, y.grad], 0.0, 0.0
    loss().backward()
    assert [x.grad, y.grad] == expected and expected[0] == 0.0
