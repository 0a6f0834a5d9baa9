"""Scans within batches, all steps in lanes, against the same steps in Python, sample by sample."""
import gc
import os
import random
import subprocess
import sys
import threading

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


@pytest.mark.parametrize("part", range(20))
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


@pytest.mark.parametrize("level", ["baseline", "neon", "avx2", "avx512"])
def test_random_steps_on_every_level(level):
    script = IN_LEVEL.format(tests=os.path.dirname(os.path.abspath(__file__)))
    found = subprocess.run([sys.executable, "-c", script], env={**os.environ, "FLATGRAD_ISA": level}, text=True,
                           capture_output=True)
    if found.returncode and "FLATGRAD_ISA" in found.stderr:
        pytest.skip(f"no {level} here")
    assert found.stdout.strip() == level, found.stderr
