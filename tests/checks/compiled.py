"""Random functions, compiled with and without each step of simplification, against themselves uncompiled.

A function is a list of steps: any row of ops.def, sums, dot products, layers of them over a batch, all of these also
written as micrograd's code does; instructions of Tensors, calls of programs, constants, equal steps twice, and results
that nobody reads. Steps whose numbers are outside of a domain or large are not taken. Each function is called with the
numbers that it was recorded with, and with others; values and gradients, by all results and by one alone, are those of
the function itself but for 1e-12 of the largest, and for as much as they change when the operands change by 1e-13 of
themselves. Programs with dtype='float32' take numbers that are floats, and have 1e8 times that room. Each function is
also compiled for a batch of 1 to 67 samples, in lanes. Functions of odd seeds have scans, loops, custom rules, groups
and random numbers too. Each fourth seed also trains an MLP, by Trainer.fit and by minimize, bit for bit as the loop in
Python does. test_simplify.py and test_float32.py run some hundred.
"""
import ast
import itertools
import math
import random

import numpy as np

from checks.shrink import Calls, script

import flatgrad
from flatgrad import Tensor, Value, _core

SHORT = 8.0   # seconds

STEPS = ("shared", "dots", "layers", "together")
SUBSETS = [subset for n in range(5) for subset in itertools.combinations(STEPS, n)]
ROWS = [row for row in _core._operations()
        if row["kind"] and row["id"] not in ("COPY", "POWI", "POWC", "BINARY_CROSS_ENTROPY")]
OPTIMIZERS = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta")
LARGEST = 1e4   # of results and gradients, so that 1e-12 of it tells something


UNITS = {"float64": 1e-13, "float32": 1e-6}   # so much may the operands change


class Unfit(Exception):
    """A function whose numbers or gradients are no test."""


def row_step(draw, v, t, made):
    row = draw.choice(ROWS)
    operands = [v[draw.randrange(len(v))] for _ in range(row["arity"])]
    return [f"{made.value()} = apply({row['id']!r}, {', '.join(operands)})"]


def power_step(draw, v, t, made):
    a, k = v[draw.randrange(len(v))], draw.choice([2, 3, -1, 0.5, 1, -2, 1.7])
    return [f"{made.value()} = {a} ** {k}"]


def constant_step(draw, v, t, made):
    a, c = v[draw.randrange(len(v))], draw.choice([0.0, 1.0, -1.0, 2.0, 0.5, draw.uniform(-2, 2)])
    kind = draw.randrange(6)
    text = ["{a} + {c}", "{c} + {a}", "{a} * {c}", "{c} * {a}", "{a} - {c}", "{a} / {d}"][kind]
    return [f"{made.value()} = {text.format(a=a, c=c, d=c or 1.0)}"]


def sum_step(draw, v, t, made):
    """A sum as Python's sum() makes it, of Values and products."""
    terms = [(v[draw.randrange(len(v))], v[draw.randrange(len(v))] if draw.random() < 0.6 else None)
             for _ in range(draw.randrange(1, 12))]
    start, activation = draw.choice([0, 0.0, 0.25, None]), draw.choice([None, "tanh", "relu", "sigmoid", "exp"])
    bias = v[draw.randrange(len(v))]
    parts = ", ".join(a if b is None else f"{a} * {b}" for a, b in terms)
    total = f"sum([{parts}], {bias if start is None else start}) * 0.25"
    return [f"{made.value()} = " + (total if activation is None else f"({total}).tanh().{activation}()")]


def layer_step(draw, v, t, made):
    """A layer of micrograd's neurons over some samples: a list of dot products in plain Python, or nearly."""
    k, width, batch = draw.randrange(1, 9), draw.randrange(1, 7), draw.randrange(1, 5)
    rows = [[v[draw.randrange(len(v))] for _ in range(k)] for _ in range(width)]
    biases = [v[draw.randrange(len(v))] for _ in range(width)] if draw.random() < 0.6 else None
    samples = [[v[draw.randrange(len(v))] for _ in range(k)] for _ in range(batch)]
    activation, turned = draw.choice([None, "tanh", "relu", "sigmoid", "gelu"]), draw.random() < 0.3
    first = draw.random() < 0.5
    lines = []
    for x in samples:
        for j, w in enumerate(rows):
            products = ", ".join(f"{b} * {a}" if turned else f"{a} * {b}" for a, b in zip(w, x))
            start = biases[j] if biases else 0
            total = f"sum([{products}], {start})" if first or not biases else f"(sum([{products}]) + {start})"
            lines.append(f"{made.value()} = {total} * 0.125" if activation is None else
                         f"{made.value()} = ({total} * 0.125).{activation}()")
    return lines


def many_step(draw, v, t, made):
    """An operation on many Values, one by one."""
    n = len(v)
    operands = [(v[draw.randrange(n)], v[draw.randrange(n)]) for _ in range(draw.randrange(2, 40))]
    if draw.random() < 0.5:
        operands = [(a, operands[0][1]) for a, _ in operands]
    text = {"tanh": "{x}.tanh()", "sin": "{x}.sin()", "mul": "{x} * {y} * 0.5", "maximum": "flatgrad.maximum({x}, {y})",
            "sub": "{x} - {y}", "exp": "{x}.tanh().exp()"}[draw.choice(["tanh", "sin", "mul", "maximum", "sub", "exp"])]
    return [f"{made.value()} = {text.format(x=a, y=b)}" for a, b in operands]


def again_step(draw, v, t, made):
    """Twice the same expression, written twice."""
    a, b = v[draw.randrange(len(v))], v[draw.randrange(len(v))]
    return [f"{made.value()} = ({a} * {b}).tanh() + {a}", f"{made.value()} = ({a} * {b}).tanh() - {b}"]


def tensor_step(draw, v, t, made):
    kind, a = draw.randrange(17), v[draw.randrange(len(v))]
    b, c = t[draw.randrange(1 << 20) % len(t)], t[draw.randrange(1 << 20) % len(t)]
    several = ", ".join(v[draw.randrange(len(v))] for _ in range(6))
    if kind in (0, 1, 2, 3, 9, 12, 15):
        text = {0: f"({b} * {a}).tanh()", 1: f"flatgrad.stack([{several}]).reshape(2, 3)",
                2: f"({b} @ {c}.T @ {b} * 0.1).tanh()", 3: f"{b}.softmax() + {c}", 9: f"{b}.detach() * {c}.tanh()",
                12: f"({b}.T.tanh().T + {c}[0]).sigmoid()", 15: f"{b}.log_softmax().tanh()"}[kind]
        return [f"{made.tensor()} = {text}"]
    if kind == 5:
        return [f"{made.value()}, {made.value()} = {b}.sum(axis=1).tanh()"]
    if kind == 14:
        return [f"{made.value()}, {made.value()}, {made.value()} = [x * {a} for x in {b}[1]]"]
    if kind == 16:
        return [f"{made.value()}, {made.tensor()} = INNER([{a}, {b}])"]
    text = {4: f"{b}.sum() * 0.1", 6: f"{b}.mean(axis=0)[1] * {c}[1, 2]", 7: f"{b}.logsumexp()",
            8: f"flatgrad.losses.cross_entropy({b}, [0, 2])", 10: f"{a}.detach() * {b}[0, 0].tanh()",
            11: f"flatgrad.take({b}[0], flatgrad.clip(apply('FLOOR', {a}), 0, 2)).tanh()", 13: f"{b}.max() * 0.5"}[kind]
    return [f"{made.value()} = {text}"]


def loop_step(draw, v, t, made):
    """Loops, custom rules, groups of samples: what is a program within the program."""
    kind, steps = draw.randrange(6), draw.randrange(1, 7)
    a, b, c = (v[draw.randrange(len(v))] for _ in range(3))
    s = t[draw.randrange(len(t))]
    if kind == 0:
        return [f"{made.value()} = fori_loop(0, {steps}, lambda k, x: (x * {a} + {b} * 0.1).tanh(), {c})"]
    if kind == 1:
        return [f"{made.value()}, _ = scan(lambda x, y: ((x * {a} + y).tanh(), x * y), {b}, {s}[0])"]
    if kind == 2:
        return [f"{made.tensor()}, _ = scan(lambda x, y: ((x * y * 0.5 + {s}).tanh(), x.sum()), {s}, {s}[1])"]
    if kind == 3:
        return [f"{made.value()} = ruled({a}, {b})", f"{made.tensor()} = ruled({s}, {s}.tanh())"]
    if kind == 4:
        samples = f"[[{a}, {b}], [{c}], [{b}, {a}], [{c}, {c}, {a}]]"
        return [f"{made.value()} = grouped(chained)({samples}, [{a}, {b}, {c}, {c}]).sum()"]
    step = f"lambda x, _: ((x * {a} - 0.1).sin(), x)"
    return [f"{made.value()} = scan({step}, {b}, length={steps}, reverse=True)[1].sum()"]


def random_step(draw, v, t, made):
    """Random numbers, which are further inputs of a program."""
    a, b, s = v[draw.randrange(len(v))], v[draw.randrange(len(v))], t[draw.randrange(len(t))]
    if draw.random() < 0.5:
        return [f"{made.value()} = {a} * (random.uniform() - 0.5) + {b} * random.bernoulli(0.5)"]
    return [f"{made.tensor()} = {s} + {a} * random.normal((2, 3), std=0.3)"]


def inner_program():
    """A program that functions call: an instruction of its own."""
    x, t = Value(0.5), Tensor([[1.0, 2.0, 3.0], [0.5, 0.25, 0.125]])
    recording = _core._Recording([x, t])
    with recording:
        outputs = [(x * t[0, 1]).tanh(), (t * x).sigmoid()]
    return recording.program(outputs)


def chained(numbers, x):
    """For grouped: lists of different lengths."""
    for y in numbers:
        x = (x * y + 0.5).tanh()
    return x


def rule():
    """x * sin(y) with a rule of its own."""
    @flatgrad.custom_derivative
    def ruled(x, y):
        return x * flatgrad.sin(y)

    ruled.defvjp(lambda x, y: (ruled(x, y), (x, y)),
                 lambda saved, g: (g * flatgrad.sin(saved[1]), g * saved[0] * flatgrad.cos(saved[1])))
    return ruled


KINDS = [row_step] * 4 + [power_step, constant_step, constant_step, sum_step, sum_step, layer_step, layer_step,
                          many_step, again_step, tensor_step, tensor_step]
LOOPS = KINDS + [loop_step] * 4
MORE = LOOPS + [random_step] * 2
NAMES = {"flatgrad": flatgrad, "apply": _core._apply, "INNER": inner_program(), "fori_loop": flatgrad.fori_loop,
         "scan": flatgrad.scan, "grouped": flatgrad.grouped, "ruled": rule(), "chained": chained}


class Made:
    """Names for what a step makes."""

    def __init__(self, n):
        self.n, self.values, self.tensors = n, [], []

    def value(self):
        self.values.append(f"v{self.n + len(self.values)}")
        return self.values[-1]

    def tensor(self):
        self.tensors.append(f"t{self.n}_{len(self.tensors)}")
        return self.tensors[-1]


class Function:
    """A random function of some Values and a Tensor.

    Parameters
    ----------
    seed : int
    kinds : list of callable, optional
        What its steps are drawn from.

    Attributes
    ----------
    lines : list of list of str
        The code of its steps.
    """

    def __init__(self, seed, kinds=None):
        draw = random.Random(seed)
        self.numbers = [draw.uniform(-1.5, 1.5) for _ in range(draw.randrange(2, 6))]
        self.matrix = np.array([[draw.uniform(-1, 1) for _ in range(3)] for _ in range(2)])
        self.captured = [Value(draw.uniform(-1, 1)) for _ in range(draw.randrange(1, 12))]
        self.tensor = Tensor([[draw.uniform(-1, 1) for _ in range(3)] for _ in range(2)])
        self.constant = Tensor([[draw.uniform(-1, 1) for _ in range(3)] for _ in range(2)], requires_grad=False)
        self.lines, self.rounds, self.compiled = [], False, {}   # rounds: whether each result is rounded to 32 bits
        self.random = flatgrad.Random(seed)
        v = [*(f"xs[{k}]" for k in range(len(self.numbers))), *(f"c[{k}]" for k in range(len(self.captured)))]
        t = ["t", "tensor", "constant"]
        space = self.space(xs=[Value(x) for x in self.numbers], t=Tensor(self.matrix))
        for _ in range(draw.randrange(2, 18)):
            made = Made(len(v))
            lines = draw.choice(kinds or KINDS)(draw, v, t, made)
            try:
                for line in lines:
                    exec(line, space)
                new = [space[name].data for name in made.values]
                new += [x for name in made.tensors if name in space for x in np.ravel(space[name].data)]
                fits = all(math.isfinite(x) and abs(x) < LARGEST for x in new)
            except (ValueError, ZeroDivisionError, OverflowError, IndexError):
                fits = False
            if fits:
                self.lines.append(lines)
                v += made.values
                t += [name for name in made.tensors if np.shape(getattr(space.get(name), "data", 0)) == (2, 3)]
        count = min(len(v), draw.randrange(1, 12))
        self.results = draw.sample(range(len(v)), count) if draw.random() < 0.5 else range(len(v))[-count:]
        self.result_tensors = draw.sample(range(len(t)), draw.randrange(min(len(t), 3)))
        self.alone = draw.randrange(1 << 20)
        self.values, self.tensors = v, t

    def space(self, **others):
        return {**NAMES, "c": self.captured, "tensor": self.tensor, "constant": self.constant, "random": self.random,
                "rounded": rounded_node, **others}

    def body(self):
        """The lines, with rounding after each step if so."""
        for lines in self.lines:
            yield from lines
            if self.rounds:
                for name in sorted({node.id for line in lines for node in ast.walk(ast.parse(line).body[0].targets[0])
                                    if isinstance(node, ast.Name)}):
                    yield f"rounded({name})"

    def __call__(self, xs, t):
        key = self.rounds, tuple(self.results), tuple(self.result_tensors)
        if key not in self.compiled:
            body = "".join(f"    {line}\n" for line in self.body())
            space = self.space()
            exec(f"def function(xs, t):\n{body}    return [{', '.join(self.values[k] for k in self.results)}], "
                 f"[{', '.join(self.tensors[k] for k in self.result_tensors)}]", space)
            self.compiled[key] = space["function"]
        return self.compiled[key](xs, t)

    def begin(self):
        """The same random numbers at each call."""
        self.random.rng = np.random.default_rng(len(self.lines))

    def round(self):
        """Numbers from here on are floats."""
        self.numbers, self.matrix = [float(np.float32(x)) for x in self.numbers], rounded(self.matrix)
        for leaf in (*self.captured, self.tensor, self.constant):
            leaf.data = rounded(leaf.data) if isinstance(leaf, Tensor) else float(np.float32(leaf.data))

    def numbers_of(self, f, numbers, matrix, alone=False):
        """Results of f, and their gradients by all that f depends on: of a weighted sum of them, or of one alone."""
        self.begin()
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

        self.begin()
        value, gradients = flatgrad.value_and_grad(total, (0, 1))(numbers, matrix)
        self.begin()
        again, others = flatgrad.value_and_grad(total, parameters=[*self.captured, self.tensor])(numbers, matrix)
        assert value == again or math.isclose(value, again, rel_tol=1e-9)
        return value, np.concatenate([gradients[0], gradients[1].reshape(-1), others])


def rounded_node(x):
    x.data = rounded(x.data) if isinstance(x, Tensor) else float(np.float32(x.data))


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


def function_of(seed):
    """The function that a check compiles: half of them with loops, rules and the like."""
    return Function(seed, MORE if seed % 2 else KINDS)


def check(seed, subsets=SUBSETS, plain=None, dtype="float64"):
    """Compare one function with its programs; `plain`: what is compared with in its place. How many comparisons."""
    function = function_of(seed)
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
                    wrong = ~(np.abs(got - want) <= most) if subset or dtype == "float32" or seed % 2 else got != want
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
    function = Function(seed, LOOPS if seed % 2 else KINDS)
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


def check_training(seed):
    """Hold steps in compiled code against the loop in Python, bit for bit: of Compiled.minimize, and of Trainer.fit."""
    draw, rng = random.Random(seed), np.random.default_rng(seed)
    n, width, several = draw.randrange(5, 40), draw.randrange(1, 4), draw.random() < 0.4
    sizes = [draw.randrange(2, 7) for _ in range(draw.randrange(0, 3))] + [draw.randrange(2, 4) if several else 1]
    X = rng.normal(size=(n, width))
    y = rng.integers(sizes[-1], size=n) if several else rng.choice([-1.0, 1.0], n)
    loss = "cross_entropy" if several else draw.choice(["mse", "hinge", "mae", "huber"])
    activation, noise = draw.choice(["relu", "tanh", "sigmoid", "gelu"]), draw.choice([0.0, 0.1])
    optimizer, rate = draw.choice(OPTIMIZERS), draw.choice([0.01, 0.1])
    epochs, size = draw.randrange(5, 8), draw.choice([None, 1, 3, 8])
    steps, penalty = draw.randrange(5, 30), draw.random() < 0.5

    def made():
        random.seed(seed)
        model = flatgrad.nn.MLP(width, sizes, activation=activation)
        return model, getattr(flatgrad.optim, optimizer)(model.parameters(), lr=rate)

    def numbers(model):
        return np.concatenate([np.ravel(p.data) for p in model.parameters()])

    found = []
    for engine in ("compiled", "python"):
        model, stepper = made()
        trainer = flatgrad.train.Trainer(model, stepper, loss, penalty=(
            (lambda parameters: 1e-3 * flatgrad.losses.l2(parameters)) if penalty else None))
        history = trainer.fit(X, y, epochs, size, seed=seed, progress=False, engine=engine)
        found.append([*numbers(model), *history.loss])
    for engine in ("compiled", "python"):
        model, stepper = made()
        source = flatgrad.Random(seed)

        @flatgrad.compile
        def total(X, target):
            outputs = model(X + noise * source.normal(X.shape) if noise else X)
            return (flatgrad.losses.cross_entropy(outputs, y) if several else
                    ((outputs.reshape(-1) - target) ** 2).mean())

        data = Tensor(X, requires_grad=False), Tensor(y.astype(float), requires_grad=False)
        if engine == "compiled":
            losses = total.minimize(stepper, *data, steps=steps).tolist()
        else:
            losses = []
            for _ in range(steps):
                value = total(*data)
                losses.append(value.data)
                stepper.zero_grad()
                value.backward()
                stepper.step()
        found.append([*numbers(model), *losses])
    for what, (one, other) in ("Trainer.fit", found[:2]), ("minimize", found[2:]):
        if not np.array_equal(one, other, equal_nan=True):
            k = int(np.argmax(np.array(one) != np.array(other)))
            raise AssertionError(f"seed {seed}, {what}, {loss}, {optimizer}: number {k} of {len(one)}: {one[k]!r} "
                                 f"compiled, {other[k]!r} in Python")
    return 2


def options(parser):
    parser.add_argument("--dtype", choices=sorted(UNITS), default=None, help="of the programs (default: both)")


def run(limit, options):
    dtypes, compared, trained = [options.dtype] if options.dtype else sorted(UNITS), 0, 0
    for seed in limit:
        if seed % 4 == 0:
            trained += check_training(seed)
        for dtype in dtypes:
            compared += check(seed, SUBSETS if dtype == "float64" else [STEPS, SUBSETS[seed % len(SUBSETS)]],
                              dtype=dtype)
            compared += check_batch(seed, 1 + seed % 67, dtype, SUBSETS[-1 - seed % len(SUBSETS)])
    return (f"{limit.rounds} functions, {compared} comparisons, and {trained} training loops bit for bit, passed, "
            f"{limit.seeds}, kernels {flatgrad.stats()['isa']}")


IMPORTS = """import numpy, flatgrad
from flatgrad import Tensor, Value, _core
def results(f):
    random.rng = numpy.random.default_rng(0)
    for x in (*c, tensor): x.grad = 0.0
    xs, t = [Value(x) for x in numbers], Tensor(matrix)
    y = f(xs, t)
    y.backward()
    return numpy.concatenate([numpy.ravel(x) for x in (y.data, *[x.grad for x in (*xs, t, *c, tensor)])])"""


def calls(function, way, numbers, matrix, dtype):
    """A function and a way to compile it, for the shrinker."""
    bindings = {
        "apply": "_core._apply", "INNER": "flatgrad.compile(lambda x, t: ((x * t[0, 1]).tanh(), (t * x).sigmoid()))",
        "fori_loop": "flatgrad.fori_loop", "scan": "flatgrad.scan", "grouped": "flatgrad.grouped",
        "ruled": "lambda x, y: x * flatgrad.sin(y)",
        "chained": "lambda numbers, x: chained(numbers[1:], (x * numbers[0] + 0.5).tanh()) if numbers else x",
        "c": f"[Value(x) for x in {[x.data for x in function.captured]}]", "numbers": repr(numbers),
        "matrix": repr(np.asarray(matrix).tolist()), "tensor": f"Tensor({function.tensor.data.tolist()})",
        "constant": f"Tensor({function.constant.data.tolist()}, requires_grad=False)", "random": "flatgrad.Random(0)"}
    room = 1e-3 if dtype == "float32" else 1e-9
    return Calls(IMPORTS, bindings, "xs, t", f"results({way})", "results(program)",
                 lambda a, b: np.allclose(a, b, room, room) or not np.isfinite(b).all(),
                 f"numpy.allclose(ours, theirs, {room}, {room})")


def shrunk(seed):
    """The first comparison of a seed that fails, as a script, if it fails by much."""
    for dtype, kinds in itertools.product(sorted(UNITS), (MORE, LOOPS) if seed % 2 else (KINDS,)):
        function = Function(seed, kinds)
        nodes = [*(function.values[k] for k in function.results), *(function.tensors[k] + ".sum()"
                                                                  for k in function.result_tensors)]
        lines = [line for several in function.lines for line in several]
        lines.append("y = " + " + ".join(f"{x} * {round(w, 3)}" for x, w in zip(nodes, WEIGHTS)))
        draw = random.Random(seed + 1)
        numbers = [x * draw.uniform(0.5, 1.2) for x in function.numbers]
        matrix = function.matrix * draw.uniform(0.5, 1.2)
        for subset, (x, t) in itertools.product(SUBSETS, [(function.numbers, function.matrix), (numbers, matrix)]):
            way = f"flatgrad.compile(program, simplify={set(subset) or False}, dtype={dtype!r})"
            of = calls(function, way, x, t, dtype)
            if of.fails(lines):
                return script(lines, of)
    return "# no result differs by much"
