"""Random functions, compiled with and without each step of simplification, against themselves uncompiled.

    python tests/fuzz_simplify.py --seconds 60 [--seed N] [--count N] [--dtype float64|float32]

A function is a list of steps: any row of ops.def, sums, dot products, layers of them over a batch, all of these also
written as micrograd's code does; instructions of Tensors, calls of programs, constants, equal steps twice, and results
that nobody reads. Steps whose numbers are outside of a domain or large are not taken. Each function is called with the
numbers that it was recorded with, and with others; values and gradients, by all results and by one alone, are those of
the function itself but for 1e-12 of the largest, and for as much as they change when the operands change by 1e-13 of
themselves. Programs with dtype='float32' take numbers that are floats, and have 1e8 times that room. Each function is
also compiled for a batch of 1 to 67 samples, in lanes. Prints the seed of the function that fails. test_simplify.py and
test_float32.py run some hundred.
"""
import argparse
import itertools
import math
import random
import sys
import time

import numpy as np

import flatgrad
from flatgrad import Tensor, Value, _core

STEPS = ("shared", "dots", "layers", "together")
SUBSETS = [subset for n in range(5) for subset in itertools.combinations(STEPS, n)]
ROWS = [row for row in _core._operations()
        if row["kind"] and row["id"] not in ("COPY", "POWI", "POWC", "BINARY_CROSS_ENTROPY")]
LARGEST = 1e4   # of results and gradients, so that 1e-12 of it tells something


UNITS = {"float64": 1e-13, "float32": 1e-6}   # so much may the operands change


class Unfit(Exception):
    """A function whose numbers or gradients are no test."""


def row_step(draw, n):
    row = draw.choice(ROWS)
    operands = [draw.randrange(n) for _ in range(row["arity"])]

    def apply(values, tensors, row=row["id"], operands=operands):
        values.append(_core._apply(row, *[values[k] for k in operands]))
    return apply


def power_step(draw, n):
    a, k = draw.randrange(n), draw.choice([2, 3, -1, 0.5, 1, -2, 1.7])

    def apply(values, tensors):
        values.append(values[a] ** k)
    return apply


def constant_step(draw, n):
    a, c, kind = draw.randrange(n), draw.choice([0.0, 1.0, -1.0, 2.0, 0.5, draw.uniform(-2, 2)]), draw.randrange(6)

    def apply(values, tensors):
        x = values[a]
        values.append([x + c, c + x, x * c, c * x, x - c, x / (c or 1.0)][kind])
    return apply


def sum_step(draw, n):
    """A sum as Python's sum() makes it, of Values and products."""
    terms = [(draw.randrange(n), draw.randrange(n) if draw.random() < 0.6 else None)
             for _ in range(draw.randrange(1, 12))]
    start, activation = draw.choice([0, 0.0, 0.25, None]), draw.choice([None, "tanh", "relu", "sigmoid", "exp"])
    bias = draw.randrange(n)

    def apply(values, tensors):
        parts = [values[a] if b is None else values[a] * values[b] for a, b in terms]
        total = sum(parts, values[bias] if start is None else start) * 0.25
        values.append(total if activation is None else getattr(total.tanh(), activation)())
    return apply


def layer_step(draw, n):
    """A layer of micrograd's neurons over some samples: a list of dot products in plain Python, or nearly."""
    k, width, batch = draw.randrange(1, 9), draw.randrange(1, 7), draw.randrange(1, 5)
    rows = [[draw.randrange(n) for _ in range(k)] for _ in range(width)]
    biases = [draw.randrange(n) for _ in range(width)] if draw.random() < 0.6 else None
    samples = [[draw.randrange(n) for _ in range(k)] for _ in range(batch)]
    activation, turned = draw.choice([None, "tanh", "relu", "sigmoid", "gelu"]), draw.random() < 0.3
    first = draw.random() < 0.5

    def apply(values, tensors):
        for x in samples:
            for j, w in enumerate(rows):
                products = [values[b] * values[a] if turned else values[a] * values[b] for a, b in zip(w, x)]
                start = values[biases[j]] if biases else 0
                total = sum(products, start) if first or not biases else sum(products) + start
                total = total * 0.125 if activation is None else getattr(total * 0.125, activation)()
                values.append(total)
    return apply


def many_step(draw, n):
    """An operation on many Values, one by one."""
    operands = [(draw.randrange(n), draw.randrange(n)) for _ in range(draw.randrange(2, 40))]
    if draw.random() < 0.5:
        operands = [(a, operands[0][1]) for a, _ in operands]
    kind = draw.choice(["tanh", "sin", "mul", "maximum", "sub", "exp"])

    def apply(values, tensors):
        for a, b in operands:
            x, y = values[a], values[b]
            values.append({"tanh": lambda: x.tanh(), "sin": lambda: x.sin(), "mul": lambda: x * y * 0.5,
                           "maximum": lambda: flatgrad.maximum(x, y), "sub": lambda: x - y,
                           "exp": lambda: (x.tanh()).exp()}[kind]())
    return apply


def again_step(draw, n):
    """Twice the same expression, written twice."""
    a, b = draw.randrange(n), draw.randrange(n)

    def apply(values, tensors):
        values.append((values[a] * values[b]).tanh() + values[a])
        values.append((values[a] * values[b]).tanh() - values[b])
    return apply


def tensor_step(draw, n):
    kind, a, b, c = draw.randrange(17), draw.randrange(n), draw.randrange(1 << 20), draw.randrange(1 << 20)
    several = [draw.randrange(n) for _ in range(6)]

    def apply(values, tensors):
        s, t = tensors[b % len(tensors)], tensors[c % len(tensors)]
        if kind == 0:
            tensors.append((s * values[a]).tanh())
        elif kind == 1:
            tensors.append(flatgrad.stack([values[k] for k in several]).reshape(2, 3))
        elif kind == 2:
            tensors.append(((s @ t.T) @ s * 0.1).tanh())
        elif kind == 3:
            tensors.append(s.softmax() + t)
        elif kind == 4:
            values.append(s.sum() * 0.1)
        elif kind == 5:
            values.extend(s.sum(axis=1).tanh())
        elif kind == 6:
            values.append(s.mean(axis=0)[1] * t[1, 2])
        elif kind == 7:
            values.append(s.logsumexp())
        elif kind == 8:
            values.append(flatgrad.losses.cross_entropy(s, [0, 2]))
        elif kind == 9:
            tensors.append(s.detach() * t.tanh())
        elif kind == 10:
            values.append(values[a].detach() * s[0, 0].tanh())
        elif kind == 11:
            values.append(flatgrad.take(s[0], flatgrad.clip(_core._apply("FLOOR", values[a]), 0, 2)).tanh())
        elif kind == 12:
            tensors.append((s.T.tanh().T + t[0]).sigmoid())
        elif kind == 13:
            values.append(s.max() * 0.5)
        elif kind == 14:
            values.extend([x * values[a] for x in s[1]])
        elif kind == 15:
            tensors.append(s.log_softmax().tanh())
        else:
            y, u = INNER([values[a], s])
            values.append(y)
            tensors.append(u)
    return apply


def inner_program():
    """A program that functions call: an instruction of its own."""
    x, t = Value(0.5), Tensor([[1.0, 2.0, 3.0], [0.5, 0.25, 0.125]])
    recording = _core._Recording([x, t])
    with recording:
        outputs = [(x * t[0, 1]).tanh(), (t * x).sigmoid()]
    return recording.program(outputs)


INNER = inner_program()
KINDS = [row_step] * 4 + [power_step, constant_step, constant_step, sum_step, sum_step, layer_step, layer_step, many_step,
                          again_step, tensor_step, tensor_step]


class Function:
    """A random function of some Values and a Tensor.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed):
        draw = random.Random(seed)
        self.numbers = [draw.uniform(-1.5, 1.5) for _ in range(draw.randrange(2, 6))]
        self.matrix = np.array([[draw.uniform(-1, 1) for _ in range(3)] for _ in range(2)])
        self.captured = [Value(draw.uniform(-1, 1)) for _ in range(draw.randrange(1, 12))]
        self.tensor = Tensor([[draw.uniform(-1, 1) for _ in range(3)] for _ in range(2)])
        self.constant = Tensor([[draw.uniform(-1, 1) for _ in range(3)] for _ in range(2)], requires_grad=False)
        self.steps = []
        values, tensors = self.begin([Value(x) for x in self.numbers], Tensor(self.matrix))
        for _ in range(draw.randrange(2, 18)):
            step = draw.choice(KINDS)(draw, len(values))
            n, m = len(values), len(tensors)
            try:
                step(values, tensors)
                new = [x.data for x in values[n:]] + [x for t in tensors[m:] for x in np.ravel(t.data)]
                fits = all(math.isfinite(x) and abs(x) < LARGEST for x in new)
            except (ValueError, ZeroDivisionError, OverflowError, IndexError):
                fits = False
            if fits:
                self.steps.append(step)
            else:
                del values[n:], tensors[m:]
        count = min(len(values), draw.randrange(1, 12))
        self.results = draw.sample(range(len(values)), count) if draw.random() < 0.5 else range(len(values))[-count:]
        self.result_tensors = draw.sample(range(len(tensors)), draw.randrange(min(len(tensors), 3)))
        self.alone = draw.randrange(1 << 20)
        self.rounds = False   # whether the result of each step is rounded to 32 bits

    def begin(self, xs, t):
        return [*xs, *self.captured], [t, self.tensor, self.constant]

    def __call__(self, xs, t):
        values, tensors = self.begin(xs, t)
        for step in self.steps:
            n, m = len(values), len(tensors)
            step(values, tensors)
            for new in values[n:] + tensors[m:] if self.rounds else ():
                new.data = rounded(new.data) if isinstance(new, Tensor) else float(np.float32(new.data))
        return [values[k] for k in self.results], [tensors[k] for k in self.result_tensors]

    def round(self):
        """Numbers from here on are floats."""
        self.numbers, self.matrix = [float(np.float32(x)) for x in self.numbers], rounded(self.matrix)
        for leaf in (*self.captured, self.tensor, self.constant):
            leaf.data = rounded(leaf.data) if isinstance(leaf, Tensor) else float(np.float32(leaf.data))

    def numbers_of(self, f, numbers, matrix, alone=False):
        """Results of f, and their gradients by all that f depends on: of a weighted sum of them, or of one alone."""
        leaves = [Value(x) for x in numbers] + [Tensor(matrix)]
        for leaf in (*self.captured, self.tensor):
            leaf.grad = np.zeros(leaf.shape) if isinstance(leaf, Tensor) else 0.0
        values, tensors = f(leaves[:-1], leaves[-1])
        nodes = [*values, *(x for t in tensors for x in t.reshape(-1))]
        total = nodes[self.alone % len(nodes)] if alone else sum((x * w for x, w in zip(nodes, WEIGHTS)), Value(0.0))
        try:
            total.backward()
        except RuntimeError:   # it is a constant: gradients stay 0
            pass
        grads = [x for leaf in (*leaves, *self.captured, self.tensor) for x in np.ravel(leaf.grad)]
        return np.array([x.data for x in nodes]), np.array(grads)

    def off_the_tape(self, numbers, matrix, subset):
        """The sum of the results and the gradients, as the compiled function is evaluated without the tape."""
        @flatgrad.compile(simplify=set(subset))
        def total(xs, t):
            values, tensors = self(xs, t)
            nodes = [*values, *(x for t in tensors for x in t.reshape(-1))]
            return sum((x * w for x, w in zip(nodes, WEIGHTS)), Value(0.0))

        value, gradients = flatgrad.value_and_grad(total, (0, 1))(numbers, matrix)
        again, others = flatgrad.value_and_grad(total, parameters=[*self.captured, self.tensor])(numbers, matrix)
        assert value == again or math.isclose(value, again, rel_tol=1e-9)
        return value, np.concatenate([gradients[0], gradients[1].reshape(-1), others])


def rounded(x):
    return np.asarray(x, np.float32).astype(np.float64)


WEIGHTS = [0.5 + (k * 0.618) % 1.0 for k in range(1000)]


def tolerance(function, plain, numbers, matrix, alone, expected, unit=1e-13):
    """How far results and gradients may be off."""
    draw = random.Random(1)
    found = [10 * unit * max(1.0, np.abs(x).max()) + np.zeros(len(x)) for x in expected]
    for x in expected:
        if not np.isfinite(x).all() or np.abs(x).max() > 1e3 * LARGEST:
            raise Unfit
    kept = [x.data for x in function.captured]
    for _ in range(3):
        for x, number in zip(function.captured, kept):
            x.data = number * (1 + unit * draw.uniform(-1, 1))
        try:
            other = function.numbers_of(plain, [x * (1 + unit * draw.uniform(-1, 1)) for x in numbers],
                                        matrix * (1 + unit * draw.uniform(-1, 1)), alone)
        except (ValueError, ZeroDivisionError, OverflowError, IndexError):
            raise Unfit from None
        finally:
            for x, number in zip(function.captured, kept):
                x.data = number
        for k in range(2):
            found[k] += np.abs(other[k] - expected[k]) + 1e-3 * np.abs(other[k] - expected[k]).max()
    if unit > 1e-10:   # where a tanh is nearly 1, its slope depends on what its result is rounded to
        function.rounds = True
        try:
            other = function.numbers_of(plain, numbers, matrix, alone)
        except (ValueError, ZeroDivisionError, OverflowError, IndexError):
            raise Unfit from None
        finally:
            function.rounds = False
        for k in range(2):
            found[k] += 3 * np.abs(other[k] - expected[k])
    return found


def check(seed, subsets=SUBSETS, plain=None, dtype="float64"):
    """Compare one function with its programs; `plain`: what is compared with in its place. How many comparisons."""
    function = Function(seed)
    if dtype == "float32":
        function.round()
    draw = random.Random(seed + 1)
    points = [(function.numbers, function.matrix)]
    points.append(([x * draw.uniform(0.5, 1.2) for x in function.numbers], function.matrix * draw.uniform(0.5, 1.2)))
    if dtype == "float32":
        points = [(rounded(numbers).tolist(), rounded(matrix)) for numbers, matrix in points]
    compared = 0
    programs = {subset: flatgrad.compile(lambda xs, t: function(xs, t), simplify=set(subset), dtype=dtype)
                for subset in subsets}
    for numbers, matrix in points:
        for alone in (False, True):
            try:
                expected = function.numbers_of(plain or function, numbers, matrix, alone)
                allowed = tolerance(function, plain or function, numbers, matrix, alone, expected, UNITS[dtype])
            except (ValueError, ZeroDivisionError, OverflowError, IndexError, Unfit):
                continue
            for subset, program in programs.items():
                try:
                    found = function.numbers_of(program, numbers, matrix, alone)
                except Exception as error:
                    raise AssertionError(f"seed {seed}, simplify={set(subset) or False}") from error
                for what, got, want, most in zip(("results", "gradients"), found, expected, allowed):
                    wrong = ~(np.abs(got - want) <= most) if subset or dtype == "float32" else got != want
                    if wrong.any():
                        k = int(np.argmax(wrong))
                        raise AssertionError(
                            f"seed {seed}, simplify={set(subset) or False}, {what}, {'one alone' if alone else 'all'}, "
                            f"number {k} of {len(got)}: {got[k]!r} compiled, {want[k]!r} not, {most[k]:.2e} allowed\n"
                            f"{program.explain()}")
                compared += 1
            if not alone:
                subset = draw.choice(subsets)
                value, gradients = function.off_the_tape(numbers, matrix, subset)
                wrong = ~(np.abs(gradients - expected[1]) <= allowed[1])
                if wrong.any() or not abs(value - np.dot(expected[0], WEIGHTS[:len(expected[0])])) <= allowed[0].sum():
                    raise AssertionError(f"seed {seed}, simplify={set(subset) or False}, off the tape: {value} and "
                                         f"{gradients.tolist()}, expected {expected[1].tolist()}")
                compared += 1
    return compared


def check_batch(seed, n_samples, dtype="float64", subset=STEPS):
    """Compare a function with its program for a batch, in lanes: one result, and its gradients. Whether it could be."""
    function = Function(seed)
    draw = np.random.default_rng(seed)
    function.results, function.result_tensors = list(function.results)[:1], []
    xs = np.array(function.numbers) * draw.uniform(0.5, 1.2, (n_samples, len(function.numbers)))
    xs[0] = function.numbers
    if dtype == "float32":
        function.round()
        xs = rounded(xs)
    program = flatgrad.compile(lambda x: function(list(x), Tensor(function.matrix, requires_grad=False))[0][0],
                               simplify=set(subset), dtype=dtype)
    plain = [[], []]
    allowed = [[], []]
    shared = len(function.numbers) + 6   # gradients from there on are sums over the samples
    try:
        for x in xs:
            expected = function.numbers_of(function, x.tolist(), function.matrix)
            most = tolerance(function, function, x.tolist(), function.matrix, False, expected, UNITS[dtype])
            for several, more in ((plain, expected), (allowed, most)):
                for k in range(2):
                    several[k].append(more[k])
    except (ValueError, ZeroDivisionError, OverflowError, IndexError, Unfit):
        return False
    leaves = [Tensor(xs), *function.captured, function.tensor]
    for leaf in leaves:
        leaf.grad = np.zeros(leaf.shape) if isinstance(leaf, Tensor) else 0.0
    try:
        batch = flatgrad.vmap(program)(leaves[0])
        (batch * WEIGHTS[0]).sum().backward()
    except RuntimeError:   # it is a constant: gradients stay 0
        pass
    except Exception as error:
        raise AssertionError(f"seed {seed}, batch of {n_samples}, {dtype}") from error
    width = len(function.numbers)
    (values, grads), (of_values, of_grads) = map(np.array, plain), [np.array(x) for x in allowed]
    got = [np.asarray(batch.data), np.asarray(leaves[0].grad), np.concatenate([np.ravel(x.grad) for x in leaves[1:]])]
    want = [values[:, 0], grads[:, :width], grads[:, shared:].sum(axis=0)]
    most = [of_values[:, 0], of_grads[:, :width], of_grads[:, shared:].sum(axis=0)]
    for what, x, y, bound in zip(("results", "gradients of samples", "gradients of what is shared"), got, want, most):
        wrong = ~(np.abs(x - y) <= bound)
        if wrong.any():
            k = tuple(np.argwhere(wrong)[0])
            raise AssertionError(f"seed {seed}, batch of {n_samples}, {dtype}, {what}, {k}: {x[k]!r} compiled, "
                                 f"{y[k]!r} not, {bound[k]:.2e} allowed\n{program.explain()}")
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument("--count", type=int, default=None, help="how many functions; then it takes as long as it takes")
    parser.add_argument("--seed", type=int, default=0, help="the first function's seed (default 0)")
    parser.add_argument("--dtype", choices=sorted(UNITS), default=None, help="of the programs (default: both)")
    options = parser.parse_args()
    dtypes = [options.dtype] if options.dtype else sorted(UNITS)
    end, seed, compared = time.monotonic() + options.seconds, options.seed, 0
    while seed < options.seed + options.count if options.count is not None else time.monotonic() < end:
        try:
            for dtype in dtypes:
                compared += check(seed, SUBSETS if dtype == "float64" else [STEPS, SUBSETS[seed % len(SUBSETS)]],
                                  dtype=dtype)
                compared += check_batch(seed, 1 + seed % 67, dtype, SUBSETS[-1 - seed % len(SUBSETS)])
        except BaseException:
            print(f"fuzz_simplify: failed with --seed {seed}", file=sys.stderr)
            raise
        seed += 1
    print(f"fuzz_simplify: {seed - options.seed} functions, {compared} comparisons passed, seeds {options.seed} to "
          f"{seed - 1}, kernels {flatgrad.stats()['isa']}")


if __name__ == "__main__":
    main()
