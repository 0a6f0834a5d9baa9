"""Random programs of Tensors, the same lines in PyTorch and in flatgrad.

Indexing, slices, broadcasting, transposes, reshapes, reductions, products, softmax, losses, stacking, where, maximum,
NumPy's functions, detached and unrecorded parts, updates of data, gradients from one element or many, and derivatives
of derivatives, in float64. Left out are elements selected within no_grad, which here are still the leaf's, and second
derivatives of elu at 0. A program is drawn once, and run with several numbers: results and gradients are PyTorch's but
for 1e-11 of the largest, and for as much as they change when the operands change by 1e-13 of themselves.
FLATGRAD_ISA=baseline (or avx2) in the environment checks another level of kernels.
"""
import importlib.util
import random

import numpy as np

from checks.limits import Unavailable
from checks.shrink import Sides, script

import flatgrad

SHORT = 8.0   # seconds
RUNS = 12      # of one program
LARGEST = 1e5  # of results and gradients, so that 1e-11 of it tells something

UNARY = ["{}.tanh()", "{}.sigmoid()", "{}.relu()", "{}.sin()", "{}.cos()", "{}.abs()", "-{}", "square({})",
         "({}.abs() + 0.5).log()", "(square({}) + 0.25).sqrt()", "{}.tanh().exp()", "{}.tanh().expm1()",
         "square({}).log1p()", "{} ** 2", "{} ** 3", "(square({}) + 0.5) ** -0.75", "1.5 ** {}.tanh()", "{} * 0.5",
         "0.75 - {}", "1.25 / (square({}) + 1)", "{}.erf()", "{}.tanh().sinh()", "gelu({})", "silu({})",
         "softplus({})", "leaky_relu({})", "elu({} + 0.3)", "clip({}, -0.5, 0.75)", "{}.detach()", "{} + {}.detach()"]
BINARY = ["{} + {}", "{} - {}", "{} * {}", "{} * {}", "{} / (square({}) + 0.5)", "maximum({}, {})", "minimum({}, {})",
          "atan2({}, square({}) + 0.1)", "(square({}) + 0.5) ** {}.tanh()"]
REDUCED = ["{}.sum({})", "{}.mean({})", "{}.logsumexp({})", "amax({}, {})", "amin({}, {})", "prod({}.tanh(), {})",
           "var({}, {})"]
ALONG = ["{}.softmax({})", "{}.log_softmax({})", "cumsum({}, {})"]

IN_TORCH = {"gelu": "torch.nn.functional.gelu", "silu": "torch.nn.functional.silu",
            "softplus": "lambda x: torch.nn.functional.softplus(x, threshold=500.0)",
            "leaky_relu": "torch.nn.functional.leaky_relu", "elu": "torch.nn.functional.elu", "clip": "torch.clip",
            "maximum": "torch.maximum", "minimum": "torch.minimum", "atan2": "torch.atan2", "where": "torch.where",
            "square": "torch.square", "stack": "torch.stack", "cat": "torch.cat", "no_grad": "torch.no_grad"}
BINDINGS = {
    **{name: (f"flatgrad.{name}", text) for name, text in IN_TORCH.items()},
    "Tensor": ("flatgrad.Tensor", "lambda x: torch.tensor(x, dtype=torch.float64, requires_grad=True)"),
    "Value": ("flatgrad.Value", "lambda x: torch.tensor(x, dtype=torch.float64, requires_grad=True)"),
    "array": ("lambda x: numpy.array(x, float)", "lambda x: torch.tensor(x, dtype=torch.float64)"),
    "linear": ("flatgrad.linear", "torch.nn.functional.linear"),
    "amax": ("lambda x, axis: x.max(axis)", "torch.amax"),
    "amin": ("lambda x, axis: x.min(axis)", "torch.amin"),
    "prod": ("numpy.prod", "torch.prod"),
    "var": ("numpy.var", "lambda x, axis: torch.var(x, axis, correction=0)"),
    "cumsum": ("numpy.cumsum", "torch.cumsum"),
    "outer": ("numpy.outer", "torch.outer"),
    "mse": ("flatgrad.losses.mse", "torch.nn.functional.mse_loss"),
    "l1": ("flatgrad.losses.mae", "torch.nn.functional.l1_loss"),
    "huber": ("lambda x, y: flatgrad.losses.huber(x, y, delta=0.731)",
              "lambda x, y: torch.nn.functional.huber_loss(x, y, delta=0.731)"),
    "bce_with_logits": ("flatgrad.losses.bce_with_logits", "torch.nn.functional.binary_cross_entropy_with_logits"),
    "cross_entropy": ("flatgrad.losses.cross_entropy",
                      "lambda x, k: torch.nn.functional.cross_entropy(x, torch.tensor(k))"),
    "update": ("lambda x, lr: x.update(lr)", "lambda x, lr: None if x.grad is None else x.data.sub_(lr * x.grad)"),
    "grads": ("lambda y, x: flatgrad.gradients(y, x, create_graph=True, materialize_grads=True)",
              "lambda y, x: torch.autograd.grad(y, x, create_graph=True, allow_unused=True, materialize_grads=True)"),
}


def read(name, x):
    """What is compared: of leaves, which are called x0, x1, ..., also the gradients."""
    if not hasattr(x, "data"):
        return []
    return [f"{name}.data", f"{name}.grad"] if name[0] == "x" else [f"{name}.data"]


def same(ours, theirs):
    return np.allclose(ours, 0.0 if theirs is None else theirs, 1e-9, 1e-9, equal_nan=True)


SIDES = Sides("import numpy, flatgrad, torch", BINDINGS, read, same, "numpy.allclose(ours, theirs, 1e-9, 1e-9)")


class Drawn:
    """A random program.

    Attributes
    ----------
    lines : list of str
        Its arrays are n[0], n[1], ..., in it.
    shapes : list of tuple
        Theirs.
    leaves : list of str
    result : str
    """

    unrecorded = 0.02   # so many results are made within no_grad

    def __init__(self, seed):
        self.rng = rng = random.Random(seed)
        self.lines, self.shapes, self.leaves, self.made = [], [], [], {}
        self.dims = [rng.choice([1, 2, 3, 4, 5, 2, 3, 4, 7, 8, 9, 17]) for _ in range(3)]
        for _ in range(rng.randint(1, 3)):
            self.leaf()
        self.plan(rng)

    def plan(self, rng):
        """The lines after the leaves."""
        if rng.random() < 0.12:   # twice the same leaves, with a pass and a step in between
            self.steps(rng.randint(1, 4))
            self.pass_back(self.total())
            for name in self.leaves:
                if rng.random() < 0.7:
                    self.lines.append(f"update({name}, {rng.choice([0.1, 0.4, -0.25])})")   # not to 0 for the squares of the end
            self.made = {name: self.made[name] for name in self.leaves}
        self.steps(rng.randint(2, 9))
        self.result = self.total()
        if rng.random() < 0.3:
            self.again(self.result)
        else:
            self.pass_back(self.result)

    def array(self, shape):
        self.shapes.append(shape)
        return f"n[{len(self.shapes) - 1}]"

    def leaf(self):
        name = f"x{len(self.leaves)}"
        first, both = tuple(self.dims[:1]), tuple(self.dims[:2])
        shape = self.rng.choice([(), first, both, both, tuple(self.dims[1:]), (1, both[1]), (both[0], 1)])
        self.lines.append(f"{name} = {'Tensor' if shape else 'Value'}({self.array(shape)})")
        self.leaves.append(name)
        self.made[name] = shape

    def add(self, text, shape):
        name = f"v{len(self.lines)}"
        line = f"{name} = {text}"
        computes = not (text[-1] == "]" or ".T" in text or "reshape" in text or "cumsum" in text)
        self.lines.append(f"with no_grad(): {line}" if computes and self.rng.random() < self.unrecorded else line)
        self.made[name] = tuple(shape)
        return name

    def pick(self, test=lambda shape: True):
        names = [name for name, shape in self.made.items() if test(shape)]
        if not names:
            return None, None
        name = self.rng.choice(names[-4:] if self.rng.random() < 0.5 else names)
        return name, self.made[name]

    def steps(self, n):
        kinds = [self.unary, self.unary, self.binary, self.binary, self.reduce, self.along, self.index, self.index,
                 self.form, self.product, self.join, self.choose, self.loss]
        for _ in range(n):
            self.rng.choice(kinds)()

    def unary(self):
        name, shape = self.pick()
        text = self.rng.choice(UNARY)
        self.add(text.format(*[name] * text.count("{}")), shape)

    def binary(self):
        a, shape = self.pick()
        if self.rng.random() < 0.2:
            b, other = f"array({self.array(shape)})" if shape else "0.5", shape
            text = self.rng.choice(["{} + {}", "{} * {}", "{} - {}"])
            self.add(text.format(*(a, b) if self.rng.random() < 0.5 or shape else (b, a)), shape)
            return
        b, other = self.pick(lambda other: fits(shape, other))
        if b is None:   # it is large
            return
        self.add(self.rng.choice(BINARY).format(a, b), np.broadcast_shapes(shape, other))

    def reduce(self):
        name, shape = self.pick(len)
        if name is None:
            return
        if self.rng.random() < 0.25:
            self.add(self.rng.choice(["{}.sum()", "{}.mean()", "{}.max()", "{}.min()"]).format(name), ())
            return
        axis = self.rng.randrange(-len(shape), len(shape))
        text = self.rng.choice(REDUCED)
        if text.startswith("var") and shape[axis] < 2:
            return
        left = list(shape)
        if text.startswith(("{}.sum", "{}.mean")) and self.rng.random() < 0.4 and len(shape) == 2:
            left[axis] = 1
            self.add(text.replace("({})", "({}, keepdims=True)").format(name, axis), left)
        else:
            del left[axis]
            self.add(text.format(name, axis), left)

    def along(self):
        name, shape = self.pick(len)
        if name is not None:
            self.add(self.rng.choice(ALONG).format(name, self.rng.randrange(-len(shape), len(shape))), shape)

    def part(self, length):
        """An index of one axis, and how many it selects, None if the axis goes."""
        rng = self.rng
        kind, start = rng.randrange(5), rng.randrange(length)
        if kind == 0:
            return str(start - rng.choice([0, length])), None
        if kind == 1:
            chosen = [rng.randrange(-length, length) for _ in range(rng.randint(1, length + 1))]
            return str(chosen), len(chosen)
        if kind == 2:
            return ":", length
        stop, step = rng.randint(start + 1, length), rng.choice([1, 1, 2, 3])
        return f"{start}:{stop}" + f":{step}" * (step > 1), len(range(start, stop, step))

    def index(self):
        name, shape = self.pick(len)
        if name is None:
            return
        text, left = self.part(shape[0])
        left = [] if left is None else [left]
        if len(shape) == 2:
            if self.rng.random() < 0.7:
                other, more = self.part(shape[1])
                if text[0] == "[" and other[0] == "[":   # pairs
                    chosen = [self.rng.randrange(shape[1]) for _ in range(left[0])]
                    other, more = str(chosen), None
                text, left = f"{text}, {other}", left + [more] * (more is not None)
            else:
                left.append(shape[1])
        self.add(f"{name}[{text}]", left)

    def form(self):
        name, shape = self.pick(len)
        if name is None:
            return
        if len(shape) == 2 and self.rng.random() < 0.5:
            self.add(f"{name}.T", shape[::-1])
            return
        count = int(np.prod(shape))
        rows = self.rng.choice([k for k in range(1, count + 1) if count % k == 0])
        text, left = self.rng.choice([(f"{rows}, {count // rows}", (rows, count // rows)), ("-1", (count,)),
                                      (f"{rows}, -1", (rows, count // rows))])
        self.add(f"{name}.reshape({text})", left)

    def product(self):
        a, shape = self.pick(len)
        if a is None:
            return
        b, other = self.pick(lambda other: other and other[0] == shape[-1])
        if self.rng.random() < 0.3 and len(shape) == 2:
            w, weights = self.pick(lambda other: len(other) == 2 and other[1] == shape[1])
            bias, _ = self.pick(lambda other: other == (weights[0],))
            self.add(f"linear({a}, {w}{f', {bias}' * (bias is not None)})", (shape[0], weights[0]))
        elif b is not None and self.rng.random() < 0.7:
            self.add(f"{a} @ {b}", shape[:-1] + other[1:])
        elif len(shape) == 1:
            b, other = self.pick(lambda other: len(other) == 1)
            self.add(f"outer({a}, {b})", shape + other)
        else:
            self.add(*self.rng.choice([(f"{a} @ {a}.T", (shape[0],) * 2), (f"{a}.T @ {a}", (shape[1],) * 2)]))

    def join(self):
        a, shape = self.pick()
        b, other = self.pick(lambda other: other == shape)
        if len(shape) < 2 and self.rng.random() < 0.5:
            axis = self.rng.randrange(len(shape) + 1)
            self.add(f"stack([{a}, {b}], {axis})", shape[:axis] + (2,) + shape[axis:])
        elif shape:
            axis = self.rng.randrange(len(shape))
            self.add(f"cat([{a}, {b}], {axis})", shape[:axis] + (2 * shape[axis],) + shape[axis + 1:])

    def choose(self):
        a, shape = self.pick(len)
        if a is not None:
            b, other = self.pick(lambda other: fits(shape, other))
            c, more = self.pick(lambda other: other == shape)
            if b is not None:
                self.add(f"where({self.condition(a, b)}, {c}, {b})", np.broadcast_shapes(shape, other))

    def condition(self, a, b):
        """A comparison, in which what is equal but for rounding, such as a sum and the end of a cumsum, is on one side."""
        return f"{a} {self.rng.choice(['>', '<='])} {b} + 0.001"

    def loss(self):
        a, shape = self.pick(len)
        if a is None:
            return
        kind = self.rng.choice(["mse", "mse", "l1", "huber", "bce_with_logits", "cross_entropy"])
        if kind == "cross_entropy":
            if len(shape) == 2:
                labels = [self.rng.randrange(shape[1]) for _ in range(shape[0])]
                self.add(f"cross_entropy({a}, {labels})", ())
            return
        b, _ = self.pick(lambda other: other == shape)
        target = f"{b}.sigmoid().detach()" if kind == "bce_with_logits" else b
        self.add(f"{kind}({a}, {target})", ())

    def total(self):
        """One number that depends on the last results, and on each leaf."""
        rng, terms = self.rng, []
        names = list(self.made)
        for name in dict.fromkeys(names[-1:] + rng.sample(names, min(len(names), rng.randint(0, 2)))):
            shape = self.made[name]
            if not shape:
                terms.append(name)
            elif rng.random() < 0.7:
                terms.append(f"({name} * array({self.array(shape)})).sum()")
            else:
                terms.append(f"{name}.{rng.choice(['sum', 'mean'])}()")
        for name in self.leaves:
            if rng.random() < 0.5 or name == self.leaves[0]:
                terms.append(f"square({name})" + ".sum()" * (self.made[name] != ()))
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {' + '.join(terms)}")
        return name

    def pass_back(self, name):
        candidates = [made for made, shape in self.made.items() if shape and made not in self.leaves]
        all_recorded = not any("no_grad" in line or "detach" in line for line in self.lines)
        if candidates and self.rng.random() < 0.1 and all_recorded:
            first = self.rng.choice(candidates)
            self.lines.append(f"v{len(self.lines)} = {name} + ({first} * array({self.array(self.made[first])})).sum()")
            name = f"v{len(self.lines) - 1}"
        self.lines.append(f"{name}.backward()")

    def again(self, name):
        """Derivatives of derivatives."""
        for _ in range(self.rng.choice([1, 1, 1, 2])):
            grads = [f"g{len(self.lines)}{name}" for name in self.leaves]
            self.lines.append(f"{', '.join(grads)}, = grads({name}, [{', '.join(self.leaves)}])")
            terms = [f"({g} * {g}{'' if self.rng.random() < 0.5 else ' * 0.5'}){'.sum()' * (self.made[leaf] != ())}"
                     for g, leaf in zip(grads, self.leaves)]
            terms += [f"square({leaf})" + ".sum()" * (self.made[leaf] != ()) for leaf in self.leaves]
            name = f"v{len(self.lines)}"
            self.lines.append(f"{name} = {' + '.join(terms)}")
        self.lines.append(f"{name}.backward()")
        self.result = name

    def numbers(self, rng):
        found = []
        for shape in self.shapes:
            x = rng.normal(size=shape) if rng.random() < 0.85 else rng.integers(-2, 3, shape).astype(float)
            found.append(x if shape else float(x))
        return found

    def program(self, numbers):
        """Its lines with their numbers."""
        lines = []
        for line in self.lines:
            for k in reversed(range(len(self.shapes))):
                line = line.replace(f"n[{k}]", repr(np.asarray(numbers[k]).tolist()))
            lines.append(line)
        return lines


def fits(a, b):
    """Whether two shapes broadcast to at most two dimensions, not too large."""
    try:
        return int(np.prod(np.broadcast_shapes(a, b))) <= 400
    except ValueError:
        return False


class Check:
    """Runs programs on both sides, and counts."""

    def __init__(self):
        if importlib.util.find_spec("torch") is None:
            raise Unavailable("needs PyTorch: pip install torch")
        import torch

        torch.set_num_threads(1)
        self.torch = torch
        self.spaces = SIDES.spaces()
        self.spaces[0]["array"] = lambda x: x   # they are arrays
        self.programs = self.unfit = 0

    def functions(self, drawn):
        body = "\n    ".join(drawn.lines)
        result = ", ".join([drawn.result, *drawn.leaves])
        text = compile(f"def program(n):\n    {body}\n    return {result}", "<program>", "exec")
        found = []
        for space in self.spaces:
            space = dict(space)
            exec(text, space)
            found.append(space["program"])
        return found

    def ours(self, function, numbers):
        result, *leaves = function(numbers)
        return [result.data, *[x.grad for x in leaves]]

    def theirs(self, function, numbers):
        result, *leaves = function(numbers)
        return [result.detach().numpy(), *[np.zeros(x.shape) if x.grad is None else x.grad.numpy() for x in leaves]]

    def shape(self, seed, runs=RUNS):
        drawn = Drawn(seed)
        functions, rng = self.functions(drawn), np.random.default_rng(seed)
        for _ in range(runs):
            numbers = drawn.numbers(rng)
            wrong = self.program(functions, numbers)
            if wrong:
                raise AssertionError(f"seed {seed}: {wrong}:\n" + "\n".join(drawn.program(numbers)))

    def program(self, functions, numbers):
        """What is wrong with one program, or None."""
        try:
            expected = self.theirs(functions[1], numbers)
        except RuntimeError as error:
            if "ZeroTensors are immutable" not in str(error):   # a defect of PyTorch's
                raise
            self.unfit += 1
            return None
        flat = np.concatenate([np.ravel(x) for x in expected])
        largest = np.abs(flat).max()
        if not largest < LARGEST:
            self.unfit += 1
            return None
        self.programs += 1
        try:
            found = self.ours(functions[0], numbers)
        except Exception as error:
            return repr(error)
        got = np.concatenate([np.ravel(x) for x in found])
        off = np.abs(got - flat)
        if off.max() <= 1e-11 * max(1.0, largest):
            return None
        allowed = self.allowed(functions[1], numbers, flat)
        wrong = ~(off <= allowed)
        if wrong.any():
            k = int(np.argmax(wrong))
            return f"number {k} of {len(flat)} is {got[k]!r}, in PyTorch {flat[k]!r}, {allowed[k]:.1e} allowed"
        return None

    def allowed(self, function, numbers, flat):
        """How far numbers may be off, from how far they move with the operands."""
        rng, found = np.random.default_rng(1), 1e-11 * max(1.0, np.abs(flat).max()) + np.zeros(len(flat))
        for unit in [1e-13] * 9 + [1e-12]:
            moved = [np.asarray(x) * (1 + unit * rng.uniform(-1, 1, np.shape(x)))
                     + unit * rng.uniform(-1, 1, np.shape(x)) for x in numbers]
            other = np.concatenate([np.ravel(x) for x in self.theirs(function, moved)])
            found += 3 * np.abs(other - flat)
        return found


def options(parser):
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each program, with other numbers (default {RUNS})")


def run(limit, options):
    check = Check()
    for seed in limit:
        check.shape(seed, options.runs)
    return (f"{check.programs} programs of {limit.rounds} shapes, {limit.seeds}; {check.unfit} more had numbers too "
            f"large, or PyTorch could not; kernels {flatgrad.stats()['isa']}")


def shrunk(seed, runs=RUNS):
    """The first failing run of a program, as a script."""
    check, drawn, rng = Check(), Drawn(seed), np.random.default_rng(seed)
    functions = check.functions(drawn)
    for _ in range(runs):
        numbers = drawn.numbers(rng)
        if check.program(functions, numbers):
            return script(drawn.program(numbers), SIDES)
    return "# no run of this program fails"
