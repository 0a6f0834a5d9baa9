"""Scans within batches, all steps in lanes, against the same steps in Python, sample by sample."""
import gc
import itertools
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from test_program_core import record

import flatgrad
from flatgrad import Tensor, Value, _core, vmap


def close(got, want, where=""):
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-11, err_msg=str(where))


def clear(items):
    for x in items:
        x.grad = 0.0


def grads(items):
    return [np.ravel(x.grad) for x in items]


# ---- random steps ----

class Steps:
    """A random scan as a function of one sample: of numbers a and b, a vector v and a matrix or a vector xs."""

    WEIGHTS = 4

    def __init__(self, seed):
        rng = random.Random(seed)
        self.seed = seed
        self.length = rng.choice([1, 2, 3, 5, 8, 13])
        self.n_carry = rng.randrange(1, 5)
        self.xs = rng.choice([None, 1, 2])
        self.backwards = rng.random() < 0.3
        self.checkpoint = rng.choice([None, None, 1, 2, 3, 20])
        self.n_outputs = rng.randrange(0, 4)
        self.takes = rng.random() < 0.1
        self.rows = rng.random() < 0.1   # of softmax, which is done sample by sample
        self.count = rng.randrange(1, 14)
        self.picks = [rng.random() < 0.5 for _ in range(self.n_outputs)]
        self.at = rng.randrange(self.length)

    def more(self, rng, pool, weights, v):
        """Another number of some in the pool."""
        x, y, z = [rng.choice(pool) if rng.random() < 0.6 else pool[-1 - rng.randrange(min(4, len(pool)))]
                   for _ in range(3)]
        kind = rng.randrange(22)
        if kind < 4:
            return [x + y, x - y, x * y, 0.3 * x - y][kind]
        if kind < 8:
            return [x + y * z, x - y * z, y * z - x, (x * y + y * z) * 0.5][kind - 4]
        if kind < 12:
            return [x.sin(), x.cos(), x.tanh(), -x][kind - 8]
        if kind < 16:
            return [(x.tanh() * 0.5).exp(), x / (1.5 + y.sin()), (x * x + 1.0).sqrt(), x ** 2 * 0.2][kind - 12]
        if kind < 19:
            return [flatgrad.maximum(x, y), flatgrad.where(flatgrad.maximum(x, 0.0), y, z), x.relu() + weights[0]][
                kind - 16]
        if kind == 19:
            return flatgrad.dot([x, y, z], [weights[0], z, weights[1]]).tanh()
        if kind == 20:
            return (v * Tensor([x, y, z])).tanh().sum() + weights[2].sin() * weights[3]
        if self.takes:
            return flatgrad.take([x, y, z], (z.tanh() * 2.9).floor())
        if self.rows:
            return flatgrad.softmax([x, y, z])[1]
        return flatgrad.mean([x, y, z]) * weights[1].exp()

    def body(self, a, b, v, weights):
        def step(carry, x):
            rng = random.Random(self.seed + 1)
            pool = [*carry, a, b, *weights]
            if self.xs == 1:
                pool.append(x)
            elif self.xs == 2:
                pool += [x[0], x[1]]
            pool.append(a * weights[0] + b)
            for _ in range(self.count):
                pool.append(self.more(rng, pool, weights, v))
            after = []
            for k in range(self.n_carry):
                kind = rng.random()
                after.append(pool[-1 - k % len(pool)].tanh() if kind < 0.5 else rng.choice(carry) if kind < 0.65
                             else rng.choice(pool).sin() if kind < 0.75 else after[-1] if after and kind < 0.85
                             else rng.choice(pool[-3:]) * 0.3)
            outputs = [rng.choice([*pool, *after]) for _ in range(self.n_outputs)]
            return after, outputs if outputs else None
        return step

    def __call__(self, a, b, v, xs, weights, unroll):
        start = [a, b, v[0] * 0.5, 0.25][:self.n_carry]
        last, paths = flatgrad.scan(self.body(a, b, v, weights), start, None if self.xs is None else xs,
                                    length=self.length, reverse=self.backwards, checkpoint=self.checkpoint,
                                    unroll=unroll)
        paths = [path if whole else path[self.at] for path, whole in zip(paths or [], self.picks)]
        return [*last, *paths]

    def numbers(self, rng, n):
        shape = {None: (1,), 1: (self.length,), 2: (self.length, 2)}[self.xs]
        size = int(np.prod(shape))
        return [np.array([rng.uniform(-1, 1) for _ in range(n)]), np.array([rng.uniform(-1, 1) for _ in range(n)]),
                np.array([[rng.uniform(-1, 1) for _ in range(3)] for _ in range(n)]),
                np.array([[rng.uniform(-1, 1) for _ in range(size)] for _ in range(n)]).reshape(n, *shape)]


def compare(seed):
    rng = random.Random(seed)
    steps = Steps(seed)
    weights = [Value(rng.uniform(-1, 1)) for _ in range(Steps.WEIGHTS)]
    weights[3].requires_grad = rng.random() < 0.8
    n, lanes = rng.randrange(1, 68), rng.choice([0, 0, 8, 16, 40])
    varies = [rng.random() < 0.7, True, rng.random() < 0.5, steps.xs != 2 and rng.random() < 0.5]
    if not any(varies):
        varies[0] = True
    sample = [x[0] for x in steps.numbers(rng, 1)]
    leaf = lambda x: Value(float(x)) if np.ndim(x) == 0 else Tensor(x)  # noqa: E731
    program = record(lambda *x: steps(*x, weights, False), *map(leaf, sample)).mapped(n, varies, lanes)
    count = len(steps(*map(leaf, sample), weights, False))
    for _ in range(2):
        batch = [x if varying else x[0] for x, varying in zip(steps.numbers(rng, n), varies)]
        some = [True] + [rng.random() < 0.7 for _ in range(count - 1)]
        rng.shuffle(some)
        factors = [rng.uniform(-1, 1) if counts else None for counts in some]
        samples = range(n) if rng.random() < 0.7 else sorted(rng.sample(range(n), rng.randrange(1, n + 1)))
        seen = []
        for in_lanes in (True, False):
            leaves = [leaf(x) for x in batch]
            clear(weights)
            if in_lanes:
                out = program(leaves)
            else:
                each = [steps(*[x[k] if varying else x for x, varying in zip(leaves, varies)], weights, True)
                        for k in range(n)]
                out = [flatgrad.stack([one[j] for one in each]) for j in range(count)]
            loss = flatgrad.sum([x[k].sum() * w if x.ndim > 1 else x[k] * w for x, w in zip(out, factors)
                                 if w is not None for k in samples])
            try:
                loss.backward()
            except RuntimeError:   # all is constant
                pass
            seen.append(([x.numpy() for x in out], grads([*leaves, *weights])))
        for part in (0, 1):
            for got, want in zip(seen[0][part], seen[1][part]):
                close(got, want, seed)
        for w in weights:
            w.data = rng.uniform(-1, 1)


@pytest.mark.parametrize("part", [*range(8), *(pytest.param(part, marks=pytest.mark.slow) for part in range(8, 20))])
def test_random_steps(part, nothing_left_behind):
    for seed in range(20 * part, 20 * part + 20):
        compare(seed)


IN_LEVEL = """
import sys
sys.path.insert(0, {tests!r})
import flatgrad
import test_lanes_scan
for seed in range(7000, 7060):
    test_lanes_scan.compare(seed)
print(flatgrad.stats()["isa"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("level", ["baseline", "neon", "avx2", "avx512"])
def test_random_steps_on_every_level(level):
    script = IN_LEVEL.format(tests=os.path.dirname(os.path.abspath(__file__)))
    found = subprocess.run([sys.executable, "-c", script], env={**os.environ, "FLATGRAD_ISA": level}, text=True,
                           capture_output=True)
    if found.returncode and "FLATGRAD_ISA" in found.stderr:
        pytest.skip(f"no {level} here")
    assert found.stdout.strip() == level, found.stderr


# ---- one result of each sample: its gradients may be computed with it ----

def pendulum(length, checkpoint=None):
    def end(x, v, k, c):
        def step(state, _):
            x, v = state
            return (x + 0.05 * v, v - 0.05 * (k * x.sin() + c * v)), None
        (x, v), _ = flatgrad.scan(step, (x, v), length=length, checkpoint=checkpoint)
        return (x - 0.3) ** 2 + v * v
    return end


@pytest.mark.parametrize("shared", [(), (3,), (2, 3)])
@pytest.mark.parametrize("n", [1, 8, 9, 100])
@pytest.mark.parametrize("length", [1, 40, 5000])
def test_all_samples_or_some(shared, n, length):
    """Backward passes in all ways, again and again: the same gradients, to the last bit where all is the same."""
    rng = np.random.default_rng(n)
    fn = pendulum(length)
    rows = [rng.uniform(0.5, 1.5, n) for _ in range(4)]
    leaves = [Value(row[0]) if k in shared else Tensor(row) for k, row in enumerate(rows)]
    axes = tuple(None if k in shared else 0 for k in range(4))
    mapped = vmap(flatgrad.compile(fn), in_axes=axes)
    compiled = flatgrad.compile(fn)

    def each(losses_of, total):
        clear(leaves)
        out = losses_of()
        total(out).backward()
        return grads(leaves)

    def one_by_one():
        return [compiled(*[x if k in shared else x[i] for k, x in enumerate(leaves)]) for i in range(n)]
    weights = rng.normal(size=n)
    totals = [lambda out: flatgrad.sum([out[i] for i in range(n)]),
              lambda out: flatgrad.sum([out[i] * float(weights[i]) for i in range(n)]),
              lambda out: flatgrad.sum([out[i] * 0.5 for i in range(0, n, 3)])]
    for total in totals:
        want = each(one_by_one, total)
        first = each(lambda: mapped(*leaves), total)
        for got, w in zip(first, want):
            np.testing.assert_allclose(got, w, rtol=1e-8, atol=1e-9)
        for _ in range(3):   # whether the last call's gradients were asked for or not
            mapped(*leaves)
            assert [x.tolist() for x in each(lambda: mapped(*leaves), total)] == [x.tolist() for x in first]
    out = mapped(*leaves)
    clear(leaves)
    out.sum().backward()
    once = grads(leaves)
    leaves[0].data = leaves[0].data * 0.5   # gradients are those at the present numbers
    clear([*leaves, out])
    out.sum().backward()
    assert grads(leaves)[0].tolist() != once[0].tolist()
    want = each(one_by_one, totals[0])
    clear([*leaves, out])
    out.sum().backward()
    for got, w in zip(grads(leaves), want):
        np.testing.assert_allclose(got, w, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("checkpoint", [None, 1, 7, 64, 300])
def test_stretches_do_not_change_results(checkpoint):
    rng = np.random.default_rng(1)
    rows = [rng.uniform(0.5, 1.5, 21) for _ in range(4)]
    found = []
    for every in (None, checkpoint):
        leaves = [Tensor(row) for row in rows]
        out = vmap(flatgrad.compile(pendulum(200, every)))(*leaves)
        out.sum().backward()
        found.append((out.tolist(), [x.tolist() for x in grads(leaves)]))
    assert found[0] == found[1]


def test_a_scan_too_long_for_near_memory():
    def fn(x, w):
        last, path = flatgrad.scan(lambda c, _: ((c * w).sin() + x, c), x, length=30_000)
        return last + path.mean()
    x, w = np.linspace(0.1, 0.9, 9), Value(0.7)
    mapped = vmap(flatgrad.compile(fn), in_axes=(0, None))
    t = Tensor(x)
    out = mapped(t, w)
    out.sum().backward()
    got = [out.numpy(), t.grad.copy(), w.grad]
    t, clear_w = Tensor(x), clear([w])
    each = [fn(t[k], w) for k in range(9)]
    flatgrad.sum(each).backward()
    for g, want in zip(got, ([y.data for y in each], t.grad, w.grad)):
        np.testing.assert_allclose(g, want, rtol=1e-9)


def test_infinite_slopes_where_nothing_flows():
    """Of results that nobody uses no gradient flows, not even 0 times inf."""
    def fn(x, y):
        (a, b), roots = flatgrad.scan(lambda c, _: ((c[0] * 0.5, c[1].sqrt()), c[0].sqrt()), (x, y), length=4)
        return a, b, roots[3], roots[0]
    x, y = Tensor([1.0, 0.0, 2.0] * 4), Tensor([0.0, 1.0, 0.0] * 4)
    for used, flows in (([0], "x"), ([1], "y"), ([2], "x"), ([0, 2], "x")):
        seen = []
        for f in (vmap(flatgrad.compile(fn)), vmap(fn)):
            clear([x, y])
            out = f(x, y)
            flatgrad.sum([out[k].sum() for k in used]).backward()
            seen.append(grads([x, y]))
        np.testing.assert_array_equal(seen[0][0], seen[1][0])
        np.testing.assert_array_equal(seen[0][1], seen[1][1])


# ---- faults, interrupts and memory ----

def test_a_fault_is_that_of_the_first_sample_at_fault():
    def fn(x, w):
        return flatgrad.scan(lambda c, _: ((c - 1.0).sqrt() * w, None), x, length=3)[0]
    compiled = flatgrad.compile(fn)
    mapped = vmap(compiled, in_axes=(0, None))
    x = np.full(20, 90.0)
    assert np.isfinite(mapped(x, 2.0).numpy()).all()
    for at in ([3], [19, 4], [0], [7, 12]):
        bad = x.copy()
        bad[at] = [1.25 - 0.1 * k for k in range(len(at))]
        with pytest.raises(ValueError) as expected:
            compiled(bad[min(at)], 2.0)
        with pytest.raises(ValueError) as got:
            mapped(bad, 2.0)
        assert str(got.value).split(" in ")[0] == str(expected.value).split(" in ")[0]
    want = [compiled(v, 2.0).data for v in x]
    np.testing.assert_allclose(mapped(x, 2.0).numpy(), want, rtol=1e-12)
    with pytest.raises(ValueError, match="inf"):
        vmap(flatgrad.compile(lambda x: flatgrad.scan(lambda c, _: ((c * c).sin(), None), x, length=2)[0]))(
            np.array([1.0, 2.0, np.inf]))
    assert _core._check()


def test_sines_of_large_numbers():
    fn = lambda x: flatgrad.scan(lambda c, _: (c * 40.0, c.sin() + c.cos()), x, length=7)[1]  # noqa: E731
    x, t = np.linspace(-3.0, 3.0, 19), Tensor(np.linspace(-3.0, 3.0, 19))
    out = vmap(flatgrad.compile(fn))(t)
    angles = np.stack(list(itertools.accumulate([x] + [40.0] * 6, np.multiply)), 1)   # rounded alike
    np.testing.assert_allclose(out.numpy(), np.sin(angles) + np.cos(angles), rtol=1e-12, atol=1e-13)
    out.sum().backward()
    np.testing.assert_allclose(t.grad, ((np.cos(angles) - np.sin(angles)) * 40.0 ** np.arange(7)).sum(1), rtol=1e-9)


def test_memory_that_fails(nothing_left_behind):
    w = Value(0.3)
    fn = lambda x: flatgrad.scan(lambda c, y: ((c * w).sin() + y, c), x[0], x, length=5)[1].sum()  # noqa: E731
    program = record(fn, Tensor(np.ones(5)))
    for k in range(300):
        _core._testing(fail_after=k)
        try:
            made = program.mapped(70, [True], 8)
        except MemoryError:
            continue
        finally:
            _core._testing(fail_after=-1)
        break
    assert 20 < k < 299
    before = made.stats()["bytes"]
    x = Tensor(np.ones((70, 5)))
    made([x])[0].sum().backward()
    assert made.stats()["bytes"] >= before > 70 * 5 * 8
    assert _core._check()
    gc.collect()


def test_ctrl_c(nothing_left_behind):
    import signal
    if sys.platform == "win32":
        pytest.skip("no signals from another thread")

    class Stop(Exception):
        pass

    def stop(*args):
        raise Stop

    fn = pendulum(20_000)
    rows = [Tensor(np.linspace(0.5, 1.5, 3000)) for _ in range(4)]
    mapped = vmap(flatgrad.compile(fn))
    small = [Tensor(row.data[:9]) for row in rows]
    want = vmap(flatgrad.compile(fn))(*small).tolist()
    old = signal.signal(signal.SIGINT, stop)
    try:
        mapped(*rows).sum().backward()
        once = [row.grad.copy() for row in rows]
        for delay in (0.05, 0.3):
            for row in rows:
                row.grad = np.zeros(3000)
            passes = 0
            # From another process: a thread of this one would have to wait for the GIL.
            press = subprocess.Popen(["sh", "-c", f"sleep {delay}; kill -INT {os.getpid()}"])
            with pytest.raises(Stop):
                while True:
                    mapped(*rows).sum().backward()
                    passes += 1
            press.wait()
            assert any(all(np.allclose(row.grad, k * g, rtol=1e-12, atol=0.0) for row, g in zip(rows, once))
                       for k in (passes, passes + 1))   # of whole passes
    finally:
        signal.signal(signal.SIGINT, old)
    assert mapped(*small).tolist() == want
    assert _core._check()


def test_scans_whose_steps_call_batches_and_scans():
    """Inside out: these steps are computed sample by sample, and right all the same."""
    inner = flatgrad.compile(lambda u, c: (u * c).sin())
    batch = np.array([0.3, 0.6, 0.9])

    def of_batches(x):
        return flatgrad.scan(lambda c, _: (vmap(inner, in_axes=(0, None))(batch, c).sum() * 0.5, None), x, length=4)[0]

    def of_scans(x):
        return flatgrad.scan(lambda c, _: (flatgrad.fori_loop(0, 3, lambda i, y: (y * c).sin() + 0.2, c), c), x,
                             length=4)[0]
    for fn in (of_batches, of_scans):
        seen = []
        for f in (vmap(flatgrad.compile(fn)), vmap(fn)):
            x = Tensor(np.linspace(0.2, 1.4, 11))
            out = f(x)
            out.sum().backward()
            seen.append((out.numpy(), x.grad))
        close(seen[0][0], seen[1][0])
        close(seen[0][1], seen[1][1])


def test_how_many_carries_are_kept():
    """As many as the steps have stretches; in one stretch, where that needs little, unless `checkpoint` says how long."""
    def memory(checkpoint):
        scanned = record(lambda c: c * 1.001 + 0.1, Value(0.5)).scanned(1000, 1, 0, False, checkpoint)
        return record(lambda x: scanned([x])[0], Value(0.5)).mapped(8, [True]).stats()["bytes"]
    least = memory(1000)
    more = [memory(every) - least for every in (1, 0, 2, 10, 100)]
    assert more[0] >= 8 * 999 and [999 * x for x in more] == [more[0] * (k - 1) for k in (1000, 1, 500, 100, 10)]


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_of_more_nodes_than_are_computed_in_lanes(bias):
    """It has more products and sums than there may be: the samples are computed one by one."""
    n = 129
    w, b = np.cos(np.arange(n * n)).reshape(n, n) / n, np.linspace(0.1, 0.5, n) * bias
    weights, offsets, start = Tensor(w), Tensor(b), Tensor(np.ones((2, n)) * [[1.0], [2.0]])

    def final(c):
        return flatgrad.scan(lambda c, _: (flatgrad.linear(c, weights, offsets if bias else None), None), c, length=2)[0]
    found, = record(final, Tensor(np.ones(n))).mapped(2, [True])([start])
    found.sum().backward()
    np.testing.assert_allclose(found.numpy(), (start.numpy() @ w.T + b) @ w.T + b, rtol=1e-10)
    np.testing.assert_allclose(start.grad, [np.ones(n) @ w @ w] * 2, rtol=1e-10, atol=1e-14)
