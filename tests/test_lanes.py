"""Batches in lanes against loops over their samples: the same values and the same gradients, whatever the batch's length
and however many samples are computed at once."""
import copy
import gc
import os
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
from test_program_core import Plan, record

import flatgrad
from flatgrad import Tensor, Value, _core, nn, vmap
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError


def close(got, want, where=""):
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12, err_msg=str(where))


def clear(items):
    for x in items:
        x.grad = 0.0


def grads(items):
    return [np.ravel(x.grad) for x in items]


def rows_of(x):
    """The samples of a batch."""
    return [x[k] for k in range(len(x))]


def weighted(outputs, weights):
    """A number of all outputs, of which those count that have a weight."""
    return flatgrad.sum([(x * w).sum() if isinstance(x, Tensor) else x * w
                         for x, w in zip(outputs, weights) if w is not None])


# ---- random programs ----

class Case:
    """A random function of one sample, which inputs vary, and a batch."""

    def __init__(self, seed):
        rng = self.rng = random.Random(seed)
        self.plan = Plan(seed)
        self.n = rng.randrange(1, 68)
        self.lanes = rng.choice([0, 0, 8, 16, 40])
        self.varies = [not (isinstance(x, Tensor) and x.ndim == 2) and rng.random() < 0.8 for x in
                       self.plan.inputs(random.Random(seed))]

    def __call__(self, *inputs):
        return [x.reshape(-1) if isinstance(x, Tensor) and x.ndim == 2 else x for x in self.plan(*inputs)]

    def batch(self):
        """New numbers for the inputs, as arrays."""
        samples = [[np.array(x.data) for x in self.plan.inputs(self.rng)] for _ in range(self.n)]
        return [np.stack([s[k] for s in samples]) if varies else samples[0][k] for k, varies in enumerate(self.varies)]

    def program(self):
        program = record(self, *self.plan.inputs(self.rng))
        return program.mapped(self.n, self.varies, self.lanes)


def as_leaf(x):
    return Value(float(x)) if np.ndim(x) == 0 else Tensor(x)


def run_case(case, program, batch, weights):
    """Results and gradients in lanes, and by a loop."""
    found = []
    for in_lanes in (True, False):
        leaves = [as_leaf(x) for x in batch]
        clear([*case.plan.leaves, *case.plan.inner])
        if in_lanes:
            out = program(leaves)
            loss = weighted(out, weights)
        else:
            samples = [case(*[x[k] if varies else x for x, varies in zip(leaves, case.varies)]) for k in range(case.n)]
            out = [flatgrad.stack([sample[j] for sample in samples]) for j in range(len(samples[0]))]
            loss = weighted(out, weights)
        try:
            loss.backward()
        except RuntimeError:   # all is constant, or of frozen leaves
            pass
        found.append(([x.numpy() for x in out], grads([*leaves, *case.plan.leaves])))
    return found


def compare_case(seed):
    case = Case(seed)
    program = case.program()
    for _ in range(2):
        batch = case.batch()
        count = len(case.plan.outputs)
        which = [True] + [case.rng.random() < 0.8 for _ in range(count - 1)]
        weights = [case.rng.uniform(-1, 1) if counts else None for counts in which]
        lanes, loop = run_case(case, program, batch, weights)
        for part in (0, 1):
            for got, want in zip(lanes[part], loop[part]):
                close(got, want, seed)
        for x in case.plan.values:
            x.data = case.rng.uniform(-1, 1)


@pytest.mark.parametrize("part", range(20))
def test_random_programs(part, nothing_left_behind):
    for seed in range(1000 + 20 * part, 1020 + 20 * part):
        compare_case(seed)


def test_the_comparison_can_fail():
    """Where the loop has other numbers by a millionth, it does."""
    failed = 0
    for seed in range(1000, 1010):
        case = Case(seed)
        program = case.program()
        batch = case.batch()
        moved = [x + 1e-6 for x in batch]
        weights = [0.5] * len(case.plan.outputs)
        lanes, loop = run_case(case, program, batch, weights)[0], run_case(case, program, moved, weights)[1]
        try:
            for part in (0, 1):
                for got, want in zip(lanes[part], loop[part]):
                    close(got, want, seed)
        except AssertionError:
            failed += 1
    assert failed >= 5


IN_LEVEL = """
import sys
sys.path.insert(0, {tests!r})
import flatgrad
import test_lanes
for seed in range(5000, 5060):
    test_lanes.compare_case(seed)
print(flatgrad.stats()["isa"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("level", ["baseline", "neon", "avx2", "avx512"])
def test_random_programs_on_every_level(level):
    script = IN_LEVEL.format(tests=os.path.dirname(os.path.abspath(__file__)))
    found = subprocess.run([sys.executable, "-c", script], env={**os.environ, "FLATGRAD_ISA": level}, text=True,
                           capture_output=True)
    if found.returncode and "FLATGRAD_ISA" in found.stderr:
        pytest.skip(f"no {level} here")
    assert found.stdout.strip() == level, found.stderr


# ---- one within the other ----

class Nested:
    """A random function of Values: batches, recurrences and compiled functions within each other, and layers."""

    def __init__(self, seed, depth=0):
        rng = random.Random(seed)
        kinds = ["layer", "layer", "sum", "product", "take", "map"] + ["vmap", "scan", "compiled"] * (depth < 2)
        self.steps = [self.step(rng, rng.choice(kinds), depth) for _ in range(rng.randrange(2, 6))]
        if depth == 0:
            self.steps.append(self.step(rng, rng.choice(["vmap", "scan"]), depth))

    def step(self, rng, kind, depth):
        inner = Nested(rng.getrandbits(40), depth + 1) if kind in ("vmap", "scan", "compiled") else None
        return kind, inner, rng.getrandbits(40)

    def __call__(self, inputs, weights, within=True):
        """The last values; not `within`: as a loop, and called as it is."""
        values = [*weights, *inputs]
        for kind, inner, seed in self.steps:
            rng = random.Random(seed)
            picked = [rng.choice(values) if rng.random() < 0.4 else values[-1 - rng.randrange(min(5, len(values)))]
                      for _ in range(5)]
            values += getattr(self, kind)(rng, picked, weights, inner, within)
        return values[-3:]

    def layer(self, rng, picked, weights, inner, within):
        rows, ins, act = rng.randrange(1, 5), picked[:rng.randrange(2, 5)], rng.choice(["tanh", "relu", None])
        at = rng.choice([lambda i, j: rng.randrange(len(weights)), lambda i, j: (i * len(ins) + j) % len(weights),
                         lambda i, j: (i + j) % len(weights)])
        sums = [sum(weights[at(i, j)] * x for j, x in enumerate(ins)) + weights[i % len(weights)] for i in range(rows)]
        return [getattr(x, act)() if act else x * 0.2 for x in sums]

    def sum(self, rng, picked, weights, inner, within):
        return [flatgrad.logsumexp(picked[:3]) * 0.3 + picked[3]]

    def product(self, rng, picked, weights, inner, within):
        y = Tensor([picked[:2], picked[1:3]]) @ Tensor([[picked[3]], [picked[4]]])
        return [y[0, 0].tanh(), y[1, 0].tanh()]

    def take(self, rng, picked, weights, inner, within):
        return [flatgrad.take(picked[:4], (picked[4].tanh() * 3.9).floor())]

    def map(self, rng, picked, weights, inner, within):
        return [picked[0] * picked[1] * 0.5 - picked[2].tanh(), picked[3].sin()]

    def vmap(self, rng, picked, weights, inner, within):
        f = lambda x: inner([x], weights, within)[-1]  # noqa: E731
        batch = Tensor(picked[:rng.randrange(1, 6)])
        return [vmap(f)(batch).mean() if within else flatgrad.mean([f(x) for x in batch])]

    def scan(self, rng, picked, weights, inner, within):
        def f(carry, x):
            out = inner([carry, x], weights, within)
            return out[-1].tanh(), out[-2]
        end, path = flatgrad.scan(f, picked[0], Tensor(picked[1:rng.randrange(2, 6)]), unroll=not within)
        return [path.mean(), end]

    def compiled(self, rng, picked, weights, inner, within):
        f = lambda *x: inner(x, weights, within)[-2:]  # noqa: E731
        return [x.tanh() for x in (flatgrad.compile(f) if within else f)(*picked[:2])]


def compare_nested(seed):
    rng = random.Random(seed)
    nested = Nested(seed)
    weights = [Value(0.0) for _ in range(rng.randrange(3, 7))]
    compiled = flatgrad.compile(lambda *x: flatgrad.sum(nested(x, weights)), simplify=rng.random() < 0.8)
    for _ in range(2):
        inputs = [Value(rng.uniform(-1.5, 1.5)) for _ in range(2)]
        for w in weights:
            w.data = rng.uniform(-1.0, 1.0)
        seen = []
        for call in (lambda: flatgrad.sum(nested(inputs, weights, False)), lambda: compiled(*inputs)):
            clear(inputs + weights)
            y = call()
            y.backward()
            seen.append([y.data, *(x.grad for x in inputs + weights)])
        np.testing.assert_allclose(seen[1], seen[0], rtol=1e-9, atol=1e-9, err_msg=f"seed {seed}")


@pytest.mark.parametrize("part", range(10))
def test_random_programs_within_each_other(part):
    for seed in range(30 * part, 30 * part + 30):
        compare_nested(seed)


@pytest.mark.parametrize("rows", [[[0, 1, 2], [3, 0, 1]], [[0, 1, 2], [2, 3, 0]], [[0, 1, 2], [1, 2, 3], [2, 3, 4]],
                                  [[2, 1, 0], [3, 2, 1]], [[2, 1, 0], [5, 4, 3]], [[0, 2, 4], [7, 9, 11]],
                                  [[0, 0, 0], [1, 1, 1]], [[0, 0, 0], [0, 0, 1]]])
@pytest.mark.parametrize("varying", [True, False])
@pytest.mark.parametrize("first", [0, 1, None])
@pytest.mark.parametrize("inner", [True, False])
def test_weights_that_are_in_a_layer_more_than_once(rows, varying, first, inner):
    """Also where they lie in order, so that rows overlap."""
    weights = [Value(0.3 + 0.07 * k) for k in range(12)]

    def f(x):
        ins = [x.exp() if inner else x, x.sin(), x.cos()]
        if first is not None:
            ins[1:] = weights[first].sin() * (x if varying else 1.0), weights[3].cos()
        return flatgrad.sum([sum(weights[k] * z for k, z in zip(row, ins)).tanh() * (i + 1.0)
                             for i, row in enumerate(rows)])

    data = np.linspace(-1.0, 1.0, 11)
    flatgrad.sum([f(Value(x)) for x in data]).backward()
    want = grads(weights)
    for batch in (vmap(flatgrad.compile(f)), flatgrad.compile(lambda x: vmap(f)(x))):
        clear(weights)
        batch(data).sum().backward()
        close(grads(weights), want)


# ---- vmap of compiled functions, and within them ----

def both_ways(fn, *args, leaves=(), in_axes=0, out_axes=0):
    """vmap of the plain function, of the compiled one, and within a compiled one: the same results and gradients."""
    found = []
    plain = vmap(fn, in_axes, out_axes)
    for f in (plain, vmap(flatgrad.compile(fn), in_axes, out_axes), flatgrad.compile(plain)):
        for _ in range(2):
            clear(leaves)
            out = f(*args)
            leaves_out = out if isinstance(out, (list, tuple)) else [out]
            flatgrad.sum([x.sum() * (k + 0.5) if isinstance(x, Tensor) else x * (k + 0.5)
                          for k, x in enumerate(leaves_out)]).backward()
            found.append(([np.asarray(x.data) for x in leaves_out], grads(leaves)))
    for results, gradients in found[1:]:
        for got, want in zip(results, found[0][0]):
            assert got.shape == want.shape
            close(got, want)
        for got, want in zip(gradients, found[0][1]):
            close(got, want)


def test_axes_and_structures():
    rng = np.random.default_rng(0)
    w, t, u = Value(0.7), Tensor(rng.normal(size=(3, 4))), Tensor(rng.normal(size=(4, 3)))
    both_ways(lambda x: (w * x).tanh(), rng.normal(size=5), leaves=[w])
    both_ways(lambda row: row.softmax() * w, t, leaves=[w, t])
    both_ways(lambda row: row.softmax() * w, u, leaves=[w, u], in_axes=1)
    both_ways(lambda row: row * 2.0, t, leaves=[t], out_axes=1)
    both_ways(lambda row, k: row.sum() * k + w, t, 3.0, leaves=[w, t], in_axes=(0, None))
    both_ways(lambda row, m: (row @ m).tanh(), t, u, leaves=[t, u], in_axes=(0, None))
    both_ways(lambda row: (row.sum(), row * w, w * 3.0), t, leaves=[w, t], out_axes=(0, 1, None))
    both_ways(lambda row: w * 3.0, t, leaves=[w])
    both_ways(lambda x, y: [x["a"] * y, y], {"a": rng.normal(size=3)}, t[:, 0], leaves=[t])


def test_arguments_by_keyword_and_static_ones():
    f = flatgrad.compile(lambda x, mode, scale=1.0: x.exp() * scale if mode == "exp" else x * scale,
                         static_argnames="mode")
    x = np.array([0.5, 1.0, 1.5])
    mapped = vmap(f, in_axes=(0, None))
    close(mapped(x, "exp", scale=x).numpy(), np.exp(x) * x)
    close(mapped(x, "no", scale=x).numpy(), x * x)
    assert f.cache_info().currsize == 2


def test_a_batch_of_another_length_is_not_recorded_again():
    calls = []
    def f(x):
        calls.append(1)
        return x * x
    compiled = flatgrad.compile(f)
    mapped = vmap(compiled)
    for n in [*range(1, 40), *range(1, 40)]:
        x = np.arange(float(n))
        assert mapped(x).tolist() == (x * x).tolist()
    assert len(calls) == 1 and compiled.cache_info().misses == 1


def test_the_number_of_batches_is_bounded():
    mapped = vmap(flatgrad.compile(lambda x: x * 2.0))
    before = _core._live_programs()
    for n in range(1, 200):
        mapped(np.ones(n))
    gc.collect()
    assert _core._live_programs() - before < 50


def test_results_are_constants_or_arguments():
    w = Value(2.0)
    assert vmap(flatgrad.compile(lambda x: 5.0))(np.ones(3)).tolist() == [5.0] * 3
    assert vmap(flatgrad.compile(lambda x: x))(np.arange(3.0)).tolist() == [0.0, 1.0, 2.0]
    assert vmap(flatgrad.compile(lambda x: [x, x, None]))(np.arange(2.0))[1].tolist() == [0.0, 1.0]
    out = vmap(flatgrad.compile(lambda x: w))(np.ones(4))
    out.sum().backward()
    assert out.tolist() == [2.0] * 4 and w.grad == 4.0


def test_derivatives_of_batches():
    rng = np.random.default_rng(1)
    a, x = rng.normal(size=3), rng.normal(size=(5, 3))
    fn = lambda row, a: flatgrad.dot(row, a).tanh() * row.sum()  # noqa: E731
    compiled = flatgrad.compile(fn)

    def total(f):
        return lambda x, a: vmap(f, in_axes=(0, None))(x, a).mean()

    want = flatgrad.value_and_grad(total(fn), (0, 1))(x, a)
    for f in (total(compiled), flatgrad.compile(total(fn)), flatgrad.compile(total(compiled))):
        got = flatgrad.value_and_grad(f, (0, 1))(x, a)
        close(got[0], want[0])
        for g, w in zip(got[1], want[1]):
            close(g, w)
        close(flatgrad.grad(f)(x, a), want[1][0])
    rows = [flatgrad.jacobian(lambda x: vmap(f, in_axes=(0, None))(x, a))(x) for f in (fn, compiled)]
    close(rows[1], rows[0])
    assert flatgrad.gradcheck(lambda x: vmap(compiled, in_axes=(0, None))(x, a), x, rtol=1e-5)
    per_sample = vmap(flatgrad.grad(compiled), in_axes=(0, None))(x, a)
    close(np.asarray([row.numpy() if isinstance(row, Tensor) else row for row in per_sample]),
          [flatgrad.grad(fn)(row, a) for row in x])


def test_batches_within_batches():
    x, y = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0])
    f = flatgrad.compile(lambda u, v: (u * v).tanh())
    outer = flatgrad.compile(lambda u: vmap(lambda v: f(u, v))(y))
    close(vmap(outer)(x).numpy(), np.tanh(np.outer(x, y)))
    t = Tensor(x)
    out = vmap(outer)(t)
    out.sum().backward()
    close(t.grad, [(y / np.cosh(u * y) ** 2).sum() for u in x])
    assert vmap(vmap(flatgrad.compile(lambda v: v * 2.0)))(np.ones((2, 3))).tolist() == [[2.0] * 3] * 2


def test_what_the_outer_function_computes_is_an_operand():
    w = Value(0.5)

    @flatgrad.compile
    def outer(a, x):
        b = (a * w).exp()
        return vmap(lambda u: (u * b).tanh() + a)(x).sum()

    x = np.array([0.25, -1.0, 2.0])
    for a in (0.3, -0.7):
        leaf = Value(a)
        clear([w])
        outer(leaf, x).backward()
        got = [leaf.grad, w.grad]
        leaf = Value(a)
        clear([w])
        outer.fn(leaf, x).backward()
        close(got, [leaf.grad, w.grad])


def test_take_in_lanes():
    table, index = Tensor(np.arange(12.0).reshape(4, 3)), np.array([3.0, 0.0, 2.0, 3.0, -1.0])
    both_ways(lambda i, u: (flatgrad.take(table, i) * u).tanh(), index, np.linspace(0.1, 0.5, 5), leaves=[table])
    other = Tensor(np.arange(15.0).reshape(5, 3))
    both_ways(lambda row, i: flatgrad.take(row.tanh(), i) * 2.0, other, np.array([0.0, 1.0, 2.0, 0.0, 1.0]),
              leaves=[other])
    f = vmap(flatgrad.compile(lambda i: flatgrad.take(table, i).sum()))
    assert f(np.array([0.0, 1.0])).tolist() == [3.0, 12.0]
    with pytest.raises(IndexError, match=r"position 4: expected a whole number from -4 to 3"):
        f(np.array([0.0, 4.0]))


# ---- which samples count ----

def test_samples_that_are_not_reached_take_no_part():
    """The derivative of the square root at 0 is inf: times a gradient of 0 it would be nan."""
    w = Value(1.0)
    f = vmap(flatgrad.compile(lambda x: (x * w).sqrt()))
    x = Tensor([4.0, 0.0, 9.0])
    out = f(x)
    (out[0] + 2.0 * out[2]).backward()
    assert x.grad.tolist() == [0.25, 0.0, 2.0 / 6.0] and w.grad == 4.0 / 4.0 + 2.0 * 9.0 / 6.0
    pair = vmap(flatgrad.compile(lambda x: (x.sqrt(), x * 2.0)))
    x = Tensor([4.0, 0.0])
    roots, doubles = pair(x)
    doubles.sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]
    x.grad = 0.0
    roots, doubles = pair(x)
    (roots[0] + doubles[1]).backward()
    assert x.grad.tolist() == [0.25, 2.0]
    some = vmap(flatgrad.compile(lambda row: row.sqrt()[0]))
    t = Tensor([[4.0, 0.0]] * 3)
    some(t).sum().backward()
    assert t.grad.tolist() == [[0.25, 0.0]] * 3


def test_partial_derivatives_of_one_result():
    w = Value(3.0)
    x = Tensor([2.0, 5.0])
    out = vmap(flatgrad.compile(lambda u: u * w))(x)
    y = out[1]
    assert sorted(y._local_grads) == [3.0, 5.0] and len(y._children) == 2


def test_frozen_and_constant_operands_stay_as_they_are():
    w, v = Value(3.0), Value(2.0)
    w.requires_grad = False
    w.grad = 7.0
    x = Tensor([2.0, 5.0], requires_grad=False)
    vmap(flatgrad.compile(lambda u: u * w * v))(x).sum().backward()
    assert w.grad == 7.0 and v.grad == 21.0 and not np.any(x.grad)


def test_an_operand_that_is_there_twice():
    x = Tensor([1.0, 2.0, 3.0])
    vmap(flatgrad.compile(lambda u, v: u * v))(x, x).sum().backward()
    assert x.grad.tolist() == [2.0, 4.0, 6.0]


def test_numbers_that_change_between_call_and_backward():
    w, x = Value(3.0), Tensor([1.0, 2.0, 3.0])
    f = vmap(flatgrad.compile(lambda u: (u * w) ** 2))
    out = f(x).sum()
    x.data = [2.0, 2.0, 2.0]
    w.data = 1.0
    out.backward()
    assert x.grad.tolist() == [4.0] * 3 and w.grad == 24.0
    first, second = f(x).sum(), f(Tensor([5.0] * 3)).sum()
    clear([x, w])
    first.backward()
    assert x.grad.tolist() == [4.0] * 3 and w.grad == 24.0 and second.data == 75.0


def test_the_sum_of_gradients_does_not_depend_on_how_many_lanes_there_are_by_more_than_rounding():
    w = Tensor(np.linspace(-1.0, 1.0, 5))
    program = record(lambda x: (w * x).tanh().sum(), Value(0.5))
    x = np.random.default_rng(2).normal(size=333)
    found = []
    for most in (0, 8, 64, 512):
        clear([w])
        program.mapped(len(x), [True], most)([x])[0].sum().backward()
        found.append(w.grad.copy())
        clear([w])
        program.mapped(len(x), [True], most)([x])[0].sum().backward()
        assert w.grad.tolist() == found[-1].tolist()   # the same lanes, the same bits
    for other in found[1:]:
        close(other, found[0])


# ---- faults ----

def test_a_fault_names_the_numbers_of_its_sample():
    w = Value(0.0)
    f = vmap(flatgrad.compile(lambda x: x.log() / 2.0))
    with pytest.raises(ValueError, match=r"log\(-3.0\) in a compiled function"):
        f(np.array([1.0, 2.0, -3.0, 4.0]))
    g = vmap(flatgrad.compile(lambda row: row / 0.0 if False else (row / w)))
    w.data = 1.0
    g(np.ones((3, 2)))
    w.data = 0.0
    with pytest.raises(ZeroDivisionError, match=r"1.0 / 0.0"):
        g(np.ones((3, 2)))
    w.data = 2.0
    assert g(np.ones((3, 2))).tolist() == [[0.5, 0.5]] * 3
    uniform = vmap(flatgrad.compile(lambda x: x + w.log()))
    w.data = 1.0
    uniform(np.ones(2))
    w.data = -1.0
    with pytest.raises(ValueError, match=r"log\(-1.0\)"):
        uniform(np.ones(2))
    assert _core._check()


@pytest.mark.parametrize("n", range(1, 20))
def test_lanes_without_a_sample_raise_nothing(n):
    f = vmap(flatgrad.compile(lambda x: (1.0 / x).log()))
    x = np.linspace(1.0, 2.0, n)
    close(f(x).numpy(), np.log(1.0 / x))


def test_labels_of_hinge_are_checked_at_each_call():
    from flatgrad.losses import hinge
    f = vmap(flatgrad.compile(lambda s, y: hinge(s, y)))
    s = np.array([0.5, -0.5, 2.0])
    assert f(s, np.array([1.0, -1.0, 1.0])).tolist() == [0.5, 0.5, 0.0]
    with pytest.raises(DataError, match="expected -1 or 1, got 3.0"):
        f(s, np.array([1.0, -1.0, 3.0]))
    whole = flatgrad.compile(lambda s, y: vmap(lambda a, b: hinge(a, b))(s, y).mean())
    assert whole(s, np.array([1.0, -1.0, 1.0])).data == pytest.approx(1.0 / 3.0)
    with pytest.raises(DataError, match="expected -1 or 1, got 3.0"):
        whole(s, np.array([1.0, -1.0, 3.0]))


def test_errors():
    f = flatgrad.compile(lambda x: x * 2.0)
    with pytest.raises(ShapeError, match="argument 0: there is no axis 1"):
        vmap(f, in_axes=1)(np.ones(3))
    with pytest.raises(ShapeError, match="there is no axis 1 where 1 are"):
        vmap(f, out_axes=1)(np.ones(3))
    with pytest.raises(ShapeError, match="at most two"):
        vmap(flatgrad.compile(lambda row: Tensor([row, row])))(np.ones((3, 2)))
    with pytest.raises(ArgumentTypeError):
        vmap(flatgrad.compile(lambda x: x * float(x)))(np.ones(3))
    program = record(lambda x: x * 2.0, Value(1.0))
    for args, error in [((0, [True]), ArgumentError), ((2.0, [True]), ArgumentError), ((2, []), ArgumentError),
                        ((2, [True], -1), ArgumentError), ((2, 3), TypeError)]:
        with pytest.raises(error):
            program.mapped(*args)
    with pytest.raises(TypeError):
        program.mapped(2, [True]).mapped(2, [True])
    matrix = record(lambda t: t.sum(), Tensor(np.ones((2, 2))))
    with pytest.raises(ShapeError):
        matrix.mapped(2, [True])


# ---- the life of one ----

def test_copies_and_pickles(nothing_left_behind):
    w = Value(3.0)
    program = record(lambda x, t: [(x * w).tanh(), t * x], Value(0.5), Tensor([1.0, 2.0])).mapped(3, [True, False])
    x = np.array([0.25, 0.5, 0.75])
    want = [r.tolist() for r in program([x, np.array([1.0, 2.0])])]
    for other in (copy.copy(program), copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        assert [r.tolist() for r in other([x, np.array([1.0, 2.0])])] == want
    out = program([Tensor(x), [1.0, 2.0]])[0].sum()
    again = pickle.loads(pickle.dumps(out))
    again.backward()
    out.backward()
    assert again.data == out.data
    stats = program.stats()
    assert stats["samples"] == 3 and stats["lanes"] >= 3 and stats["bytes"] > 0
    del program, other, out, again


def test_damaged_files():
    program = record(lambda x: x * 2.0, Value(0.5)).mapped(3, [True])
    restore, (body, varies, n, counts) = program.__reduce__()[1][0].__reduce__()
    assert restore(body, varies, n, counts) is not None
    for hostile in [((), n, counts), ((True, True), n, counts), ((1,), n, counts), (varies, 0, counts),
                    (varies, 2.0, counts), (varies, n, ()), (varies, n, (2,)), (varies, n, (0, 1)), (varies, n, 3)]:
        with pytest.raises(ValueError):
            restore(body, *hostile)


def test_memory_that_fails(nothing_left_behind):
    w = Value(3.0)
    program = record(lambda x, t: [(x * w).tanh(), t * x], Value(0.5), Tensor([1.0, 2.0]))
    for k in range(200):
        _core._testing(fail_after=k)
        try:
            made = program.mapped(5, [True, True])
        except MemoryError:
            continue
        finally:
            _core._testing(fail_after=-1)
        break
    assert 10 < k < 199
    made([np.ones(5), np.ones((5, 2))])
    del program, made


@pytest.mark.parametrize("moves", [False, True])
def test_while_ids_move(moves, nothing_left_behind):
    _core._testing(collect_floor=0 if moves else 131072)
    m = nn.MLP(2, [4, 1])
    one = lambda x, y: (1.0 - y * m([x[0], x[1]])).relu()  # noqa: E731
    X, y = np.random.default_rng(3).normal(size=(21, 2)), np.array([1.0, -1.0, 1.0] * 7)
    found = []
    for f in (vmap(one), vmap(flatgrad.compile(one)), flatgrad.compile(vmap(one))):
        clear(m.parameters())
        loss = f(X, y).mean()
        garbage = [Value(1.0) for _ in range(5)]
        loss.backward()
        del garbage
        found.append([loss.data, *[p.grad for p in m.parameters()]])
    close(found[1], found[0])
    close(found[2], found[0])
    del m, one, f, loss


def test_ctrl_c_in_lanes():
    import signal
    if sys.platform == "win32":
        pytest.skip("no signals from another process")

    class Stop(Exception):
        pass

    def stop(*args):
        raise Stop

    w = Value(1.0)

    def chain(x):
        for _ in range(300):
            x = (x * w).tanh()
        return x

    f, x = vmap(flatgrad.compile(chain)), Tensor(np.linspace(-1.0, 1.0, 20_000))
    want = f(x)
    want.sum().backward()
    gradients = x.grad.copy(), w.grad
    old = signal.signal(signal.SIGINT, stop)
    try:
        for delay in (0.1, 0.15, 0.2):
            sender = subprocess.Popen([sys.executable, "-c", f"import os, signal, time; time.sleep({delay}); "
                                                             f"os.kill({os.getpid()}, signal.SIGINT)"])
            with pytest.raises(Stop):
                while True:
                    x.data = -x.data   # so that nothing is up to date
                    out = f(x)
                    out.sum().backward()
            sender.wait()
            x.data = np.linspace(-1.0, 1.0, 20_000)
            clear([w, x])
            out = f(x)
            assert out.tolist() == want.tolist()
            out.sum().backward()
            assert x.grad.tolist() == gradients[0].tolist() and w.grad == gradients[1]
    finally:
        signal.signal(signal.SIGINT, old)
    assert _core._check()
