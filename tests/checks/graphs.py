"""Random graphs of Values, the same lines in the real micrograd and in flatgrad.

All of micrograd's operators with Values, ints and floats on either side, relu, powers, sum(), neurons, layers and MLPs
with the same weights, several backward passes from several Values, gradients set back and data changed in between. A
shape is drawn once, and run with many numbers: each run is a graph. What one raises, the other raises.

Data are micrograd's to the last bit. A quotient and a power, which micrograd rounds otherwise, are within 2 units in
the last place, and micrograd goes on with ours. A gradient is micrograd's to the last bit where the order in which
micrograd adds is defined, and no quotient or power is on the way: micrograd walks sets, so beyond two summands the
order is defined only where each summand's operation depends on the next one's. Other gradients, and all that comes
out of layers, may differ by 1e-12 of the sum of the magnitudes that they are sums of. `_op` and `_prev` are compared
once for each shape.
"""
import array
import collections
import gc
import math
import random

from checks.limits import Unavailable
from checks.shrink import Sides, script

import flatgrad
import flatgrad.nn
from flatgrad import Value

SHORT = 5.0   # seconds
RUNS = 40     # of one shape

NUMBERS = [0, 1, -1, 2, -3, 7, 0.0, -0.0, 0.5, 1.0, -1.5, 2.25]
EXPONENTS = [0, 1, 2, 3, -1, -2, 0.5, -0.5, 1.5, 2.0, 3.0]


def close(ours, theirs):
    if isinstance(theirs, (list, tuple)):
        return len(ours) == len(theirs) and all(map(close, ours, theirs))
    return (abs(ours - theirs) <= 1e-9 * max(1.0, abs(theirs)) or not math.isfinite(theirs) and not math.isfinite(ours))


def read(name, x):
    if hasattr(x, "grad"):
        return [f"{name}.data", f"{name}.grad"]
    if hasattr(x, "parameters"):
        return [f"[p.grad for p in {name}.parameters()]", f"[p.data for p in {name}.parameters()]"]
    return [f"[x.data for x in {name}]"] if isinstance(x, list) else []


BINDINGS = {"Value": ("flatgrad.Value", "micrograd.engine.Value"), "MLP": ("flatgrad.nn.MLP", "micrograd.nn.MLP"),
            "zip": ("zip", "zip"), "sum": ("sum", "sum")}
SIDES = Sides("import numpy, flatgrad.nn, micrograd.nn", BINDINGS, read, close,
              "numpy.allclose(ours, theirs, 1e-9, 1e-9)")
EXACT = Sides(SIDES.imports, BINDINGS, read, lambda ours, theirs: ours == theirs or ours != ours, "ours == theirs")


class Model:
    """micrograd's Value once more, that knows of each gradient whether the order of its sum is defined, and of what
    magnitudes it is the sum."""

    order = 0

    def __init__(self, data, operands=(), op="", rule=None):
        self.data, self.grad, self.size = data, 0, 0.0
        self.operands, self.op, self.rule = operands, op, rule
        self.dirty, self.exact = False, True   # whether a gradient was here before the pass; whether it is defined
        self.floats = isinstance(data, float) and op != "ReLU" and all(x.floats for x in operands)
        Model.order += 1
        self.order = Model.order

    def __add__(self, other):
        other = other if isinstance(other, Model) else Model(other)
        return Model(self.data + other.data, (self, other), "+", lambda z: (1, 1))

    def __mul__(self, other):
        other = other if isinstance(other, Model) else Model(other)
        return Model(self.data * other.data, (self, other), "*", lambda z: (other.data, self.data))

    def __pow__(self, k):
        return Model(self.data**k, (self,), "**", lambda z: (k * self.data**(k - 1),))

    def relu(self):
        return Model(0 if self.data < 0 else self.data, (self,), "ReLU", lambda z: (z.data > 0,))

    def __neg__(self):
        return self * -1

    def __radd__(self, other):
        return self + other

    def __sub__(self, other):
        return self + (-other)

    def __rsub__(self, other):
        return other + (-self)

    def __rmul__(self, other):
        return self * other

    def __truediv__(self, other):
        out = self * other**-1
        out.op = "/"
        return out

    def __rtruediv__(self, other):
        return Model(other) / self

    def backward(self):
        found, todo = {self}, [self]
        while todo:
            for x in todo.pop().operands:
                if x not in found:
                    found.add(x)
                    todo.append(x)
        nodes = sorted(found, key=lambda v: -v.order)
        below = {}   # the nodes that each depends on
        for v in reversed(nodes):
            below[v] = {v}.union(*[below[x] for x in v.operands])
        self.grad, self.size, self.exact, self.dirty = 1, 1.0, True, False
        users = collections.defaultdict(list)
        for v in nodes:   # in some order, that of ours
            came = users[v]
            ordered = all(b in below[a] for a, b in zip(came, came[1:]))
            if not ordered and not v.dirty and len(came) > 1 and all(came[2:] and came[2] in below[a]
                                                                     for a in came[:2]):
                ordered = all(b in below[a] for a, b in zip(came[2:], came[3:]))
            if v is not self:
                v.exact = v.exact and (ordered or len(came) == 2 and not v.dirty) and all(
                    u.exact and u.op not in ("**", "/") for u in came)
            for x, partial in zip(v.operands, v.rule(v) if v.operands else ()):
                users[x].append(v)
                x.grad += partial * v.grad
                x.size += abs(partial) * v.size
        for v in nodes:
            v.dirty = True


class Layers:
    """micrograd's nn of Models."""

    def __init__(self):
        import inspect

        import micrograd.nn

        self.names = {"Value": Model, "__name__": "layers"}
        text = inspect.getsource(micrograd.nn).replace("from micrograd.engine import Value", "")
        exec(compile(text, "<micrograd.nn of Models>", "exec"), self.names)


def shape(rng):
    """The lines of a random program, of the numbers n[0], n[1], ..., how many these are, and which lines' results
    micrograd rounds otherwise."""
    lines, n, rounded = [], 0, []
    values, unused, layers = [], [], rng.random() < 0.03
    passes = rng.choice([1, 1, 1, 1, 2, 3])

    def number():
        nonlocal n
        n += 1
        return f"n[{n - 1}]"

    def add(text):
        values.append(f"v{len(values)}")
        lines.append(f"{values[-1]} = {text}")
        unused.append(values[-1])
        return values[-1]

    def pick():
        name = rng.choice(unused) if unused and rng.random() < 0.6 else rng.choice(values)
        if name in unused:
            unused.remove(name)
        return name

    for _ in range(rng.randint(1, 4)):
        add(f"Value({number()})")
    if layers:
        width, sizes = rng.randint(1, 3), [rng.randint(2, 3) for _ in range(rng.randrange(2))] + [rng.randint(1, 3)]
        lines.append(f"m = MLP({width}, {sizes})")
        count = sum((a + 1) * b for a, b in zip([width] + sizes, sizes))
        numbers = ", ".join(number() for _ in range(count))
        lines.append(f"for p, x in zip(m.parameters(), [{numbers}]): p.data = x")
        for k in range(rng.randint(1, 3)):
            inputs = [rng.choice(values) if rng.random() < 0.5 else number() for _ in range(width)]
            lines.append(f"o{k} = m([{', '.join(inputs)}])")
            if sizes[-1] == 1:
                lines[-1] = lines[-1].replace(f"o{k}", f"v{len(values)}", 1)
                values.append(f"v{len(values)}")
                unused.append(values[-1])
            else:
                add(f"sum(o{k})")
        passes = 1
    hidden = passes == 1   # whether there may be operations that are several nodes in micrograd
    for _ in range(rng.randint(1, 10)):
        several = ["-", "/"] if hidden else ["+", "*"]
        kind = rng.choice(["+", "+", "*", "*", *several, "neg", "relu", "**", "sum"])
        a = pick()
        if kind == "neg":
            add(f"-{a}")
        elif kind == "relu":
            add(f"{a}.relu()")
        elif kind == "**":
            rounded.append(add(f"{a} ** {rng.choice(EXPONENTS)}"))
        elif kind == "sum":
            terms = ", ".join([a] + [pick() for _ in range(rng.randint(0, 3))])
            add(f"sum([{terms}])" if rng.random() < 0.6 else f"sum([{terms}], {rng.choice([pick(), number()])})")
        else:
            b = number() if rng.random() < 0.3 else a if rng.random() < 0.1 else pick()
            both = (a, b) if rng.random() < 0.7 else (b, a)
            new = add(f"{both[0]} {kind} {both[1]}")
            if kind == "/":
                rounded.append(new)
    while len(unused) > 1 and rng.random() < 0.8:
        a, b = unused.pop(0), unused.pop(0)
        add(f"{a} + {b}")
    root = values[-1]
    for k in range(passes):
        lines.append(f"{root if rng.random() < 0.7 else rng.choice(values)}.backward()")
        if k + 1 < passes and rng.random() < 0.3:
            for name in values if rng.random() < 0.5 else rng.sample(values, 1):
                lines.append(f"{name}.grad = 0")
        if k + 1 < passes and not rounded and rng.random() < 0.3:
            lines.append(f"{rng.choice(values)}.data = {number()}")
    if layers and rng.random() < 0.5:
        lines.append("for p in m.parameters(): p.data -= 0.5 * p.grad")
        lines.append("m.zero_grad()" if rng.random() < 0.7 else f"{root}.grad = 0")
        if rng.random() < 0.5:
            lines += [f"w = m([{', '.join(['0.5'] * width)}])", f"{'w' if sizes[-1] == 1 else 'w[0]'}.backward()"]
    return lines, n, rounded, layers


class Shape:
    """A random program, and what runs it."""

    def __init__(self, seed):
        self.rng = rng = random.Random(seed)
        self.lines, self.n, self.rounded, self.layers = shape(rng)
        self.names = [line.split(" = ")[0] for line in self.lines if line[0] == "v" and " = " in line and
                      "." not in line.split(" = ")[0]]
        result = [*self.names, *(["m"] if self.layers else [])]
        ours, theirs = [], []
        for line in self.lines:
            ours.append(line)
            theirs.append(line)
            name = line.split(" = ")[0]
            if name in self.rounded:   # micrograd goes on with our number
                theirs += [f"q.append({name}.data)", f"{name}.data = d.pop()"]
                ours.append(f"d.append({name}.data)")
        self.ours, self.theirs = [function(text, result) for text in (ours, theirs)]
        self.exact = None

    def numbers(self):
        rng, found = self.rng, []
        some = rng.random() < 0.3
        for _ in range(self.n):
            found.append(rng.choice(NUMBERS) if some and rng.random() < 0.5 else rng.uniform(-3.0, 3.0))
        return found

    def program(self, numbers):
        """Its lines with their numbers."""
        lines = []
        for line in self.lines:
            for k in reversed(range(self.n)):
                line = line.replace(f"n[{k}]", repr(numbers[k]))
            lines.append(line)
        return lines


def nearly_zero(values):
    """Whether micrograd has a number that the other order of a neuron's sum may round to 0."""
    return any(0.0 < abs(v.data) < 1e-12 for v in values if hasattr(v, "data"))


def at_error(error):
    """The values that a program had when this was raised."""
    return error.__traceback__.tb_next.tb_frame.f_locals.values()


def function(lines, result):
    space = {}
    body = "\n    ".join(lines)
    exec(f"def program(Value, MLP, n, d, q):\n    {body}\n    return {', '.join(result)},", space)
    return space["program"]


class Check:
    """Runs shapes on both sides, and counts."""

    def __init__(self):
        try:
            import micrograd.engine
            import micrograd.nn
        except ImportError:
            raise Unavailable("needs micrograd: pip install micrograd") from None
        self.micrograd = micrograd
        self.layers = Layers().names
        self.graphs = self.raised = self.left_out = self.exact = self.defined = self.looked = 0

    def shape(self, seed, runs=RUNS):
        """All runs of a shape; AssertionError if one differs."""
        one = Shape(seed)
        for _ in range(runs):
            numbers = one.numbers()
            wrong = self.graph(one, numbers)
            if wrong:
                raise AssertionError(f"seed {seed}: {wrong}:\n" + "\n".join(one.program(numbers)))

    def graph(self, one, numbers):
        """What is wrong with one graph, or None."""
        self.graphs += 1
        d, q = [], []
        try:
            ours = one.ours(Value, flatgrad.nn.MLP, numbers, d, None)
        except (ArithmeticError, ValueError) as error:
            ours = error
        given = d[::-1]
        try:
            theirs = one.theirs(self.micrograd.engine.Value, self.micrograd.nn.MLP, numbers, given, q)
        except (ArithmeticError, TypeError, IndexError) as error:   # of complex numbers, and of no number of ours
            theirs = error
        if isinstance(ours, Exception):
            self.raised += 1
            if type(ours) is ValueError:   # what is complex in micrograd is refused
                return None if q and isinstance(q[-1], complex) else f"{ours!r}, no complex number in micrograd"
            known = type(theirs) is type(ours) or isinstance(theirs, IndexError) and (
                q[-1] > 1e300 or one.layers and type(ours) is ZeroDivisionError and nearly_zero(at_error(theirs)))
            return None if known else f"{ours!r} but {theirs!r}"
        if isinstance(theirs, Exception):
            found = [*ours[:-1], *ours[-1].parameters()] if one.layers else ours
            extreme = isinstance(theirs, ArithmeticError) and not all(
                1e-90 < abs(v.data) < 1e90 and math.isfinite(v.grad) for v in found)
            if extreme or any(isinstance(x, complex) for x in q):   # in the slope of a power, where ours is inf or 0
                self.raised += 1
                return None
            return f"{theirs!r} in micrograd only"
        if one.rounded:
            for x, y in zip(d, q):
                if x != y and not abs(x - y) <= (1e-9 * max(1.0, abs(y)) if one.layers else 2 * math.ulp(y)):
                    if one.layers and nearly_zero(theirs):   # a root of it is complex, or large against it
                        self.left_out += 1
                        return None
                    return f"{x!r} but {y!r}"
        if one.exact is None:
            self.look(one, numbers, d)
            wrong = self.structure(one, ours, theirs)
            if wrong:
                return wrong
        if one.layers:
            ours, theirs = [*ours[:-1], *ours[-1].parameters()], [*theirs[:-1], *theirs[-1].parameters()]
        x = [v.data for v in ours] + [v.grad for v in ours]
        y = [v.data for v in theirs] + [v.grad for v in theirs]
        self.exact += one.exact[1]
        self.defined += len(ours)
        try:
            if array.array("d", x).tobytes() == array.array("d", y).tobytes():
                return None
        except OverflowError:   # an int of micrograd's
            return None
        return self.differs(one, numbers, d, x, y)

    def models(self, one, numbers, d):
        found = one.theirs(Model, self.layers["MLP"], numbers, d[::-1], [])
        return [*found[:-1], *found[-1].parameters()] if one.layers else found

    def look(self, one, numbers, d):
        """Which data and gradients of a shape must be the same to the last bit, and how many gradients."""
        models = self.models(one, numbers, d)
        flags = [not one.layers] * len(models) + [v.exact and not one.layers for v in models]
        one.exact = flags, sum(flags[len(models):])

    def structure(self, one, ours, theirs):
        """What is wrong with `_op` and `_prev`, or None."""
        names = [{id(v): k for k, v in enumerate(side)} for side in (ours, theirs)]
        lines = {line.split(" = ")[0]: line for line in one.lines}
        for name, v, m in zip(one.names, ours, theirs):
            if m._op == "ReLU" or "**" in m._op or lines[name].count(" + ") == 1 and "n[" not in lines[name] or (
                    lines[name].count(" * ") == 1 and "n[" not in lines[name]):
                self.looked += 1
                prev = [{at.get(id(x)) for x in x._prev} for x, at in ((v, names[0]), (m, names[1]))]
                if v._op != m._op or prev[0] != prev[1] or not isinstance(v._prev, set):
                    return f"{name}: {v._op!r} of {prev[0]}, in micrograd {m._op!r} of {prev[1]}"
        return None

    def differs(self, one, numbers, d, x, y):
        """Whether what is not the same bits differs by more than it may; what, or None."""
        flags, models = one.exact[0], None
        large = any(abs(a) > 2.0**53 for a in y)   # ints beyond are exact in micrograd
        for k, (a, b) in enumerate(zip(x, y)):
            if a == b:
                if a == 0.0 and isinstance(b, float) and math.copysign(1.0, a) != math.copysign(1.0, b):
                    models = models or self.models(one, numbers, d)
                    if flags[k] and k < len(models) and models[k].floats:
                        return f"{k} of {len(x)}: {a!r}, in micrograd {b!r}"
                continue
            if a != a and b != b:
                continue
            models = models or self.models(one, numbers, d)
            if flags[k] and not large:
                return f"number {k} of {len(x)} is {a!r}, in micrograd {b!r}"
            size = models[k].data if k < len(models) else models[k - len(models)].size
            if one.layers:   # whose data are sums as well
                size = max([1.0] + [v.size for v in models]) * max([1.0] + [abs(v.data) for v in models])**2
            if not abs(a - b) <= 1e-12 * abs(size) and math.isfinite(size):
                return f"number {k} of {len(x)} is {a!r}, in micrograd {b!r}, of magnitudes {size!r}"
        return None


def options(parser):
    parser.add_argument("--runs", type=int, default=RUNS, help=f"graphs of each shape (default {RUNS})")


def run(limit, options):
    check = Check()
    gc.collect()
    gc.disable()   # micrograd's graphs are cycles: it is cheaper to look for them now and then
    try:
        for seed in limit:
            check.shape(seed, options.runs)
            if limit.rounds % 25 == 24:
                gc.collect()
    finally:
        gc.enable()
    return (f"{check.graphs} graphs of {limit.rounds} shapes, {limit.seeds}; {check.exact} of {check.defined} "
            f"gradients to the last bit, the others to rounding; {check.raised} graphs raised on both sides"
            + (f"; {check.left_out} divided by what one order of a neuron's sum rounds to 0, or took its root"
               if check.left_out else ""))


def shrunk(seed, runs=RUNS):
    """The first failing run of a shape, as a script."""
    check, one = Check(), Shape(seed)
    for _ in range(runs):
        numbers = one.numbers()
        if check.graph(one, numbers):
            lines = one.program(numbers)
            return script(lines, SIDES if SIDES.fails(lines) or one.layers or one.rounded else EXACT)
    return "# no run of this shape fails"
