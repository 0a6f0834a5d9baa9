"""Written derivatives of random functions, of the orders 1 to 3, against numeric derivatives of the next lower order.

A function of one number t is a random program of Tensors, those of tensors.py, whose leaves lie on lines x + t d; its
result is a weighted sum. Derivatives are those of `gradients(create_graph=True)` again and again, of `grad` of `grad`,
of the function compiled, and of its derivative compiled. The oracle is Richardson's extrapolation of differences
of the derivative one order lower, which also estimates its own error (Ridders' method): a derivative may be off by ten
times that estimate and 1e-7 of the largest number met. Where the estimate is above 1e-4 of it, at kinks, nothing is
compared.
"""
import numpy as np

from checks import tensors
from checks.shrink import Calls, script

import flatgrad
from flatgrad import Value, grad

SHORT = 5.0   # seconds
ORDERS = 3
RUNS = 2

BINDINGS = {name: pair[0] for name, pair in tensors.BINDINGS.items()}
BINDINGS["constant"] = "lambda x: flatgrad.Tensor(x, requires_grad=False)"


def nested(f, t, order):
    """By gradients() with create_graph, the last one without."""
    t = Value(t)
    y = f(t)
    for k in range(order):
        y, = flatgrad.gradients([y], [t], create_graph=k + 1 < order, materialize_grads=True)
    return y.data


def of_grad(f, t, order):
    for _ in range(order):
        f = grad(f)
    return float(f(t))


def of_compiled(f, t, order):
    return of_grad(flatgrad.compile(f), t, order)


def compiled_grad(f, t, order):
    """The derivative itself compiled, and differentiated the last time from outside."""
    for _ in range(order - 1):
        f = grad(f)
    return float(grad(flatgrad.compile(f))(t))


WAYS = {
    "create_graph": nested,
    "grad of grad": of_grad,
    "grad of compiled": of_compiled,
    "compiled grad": compiled_grad,
}


def ridders(g, h=0.02, levels=6):
    """The derivative of g at 0, the error that it may have, and the largest number met."""
    table, best, error, largest = [], 0.0, np.inf, 1.0
    for k in range(levels):
        a, b = g(h), g(-h)
        largest = max(largest, abs(a), abs(b))
        row = [(a - b) / (2 * h)]
        for j in range(k):
            factor = 2.0 ** (2 * j + 2)
            row.append((factor * row[j] - table[-1][j]) / (factor - 1))
            now = max(abs(row[-1] - row[-2]), abs(row[-1] - table[-1][j]))
            if now < error:
                best, error = row[-1], now
        table.append(row)
        h /= 2
    return best, error, largest


class Lines(tensors.Drawn):
    """A random program whose leaves are x + t d."""

    unrecorded = 0

    def plan(self, rng):
        self.steps(rng.randint(1, 6))
        self.result = self.total()

    def leaf(self):
        super().leaf()
        name, shape = self.leaves[-1], self.made[self.leaves[-1]]
        x, d = self.lines.pop().partition("(")[2][:-1], self.array(shape)
        self.lines.append(f"{name} = constant({x}) + constant({d}) * t" if shape else f"{name} = {x} + t * {d}")

    def condition(self, a, b):
        return f"({a} - {b}).relu()"   # recorded: no comparison

    def add(self, text, shape):
        return super().add(text.replace(".detach()", ""), shape)


class Check:
    """Runs functions, and counts."""

    def __init__(self):
        self.space = {}
        exec("import numpy, flatgrad", self.space)
        self.space |= {name: eval(text, self.space) for name, text in BINDINGS.items()}
        self.compared, self.unfit = [0] * ORDERS, 0

    def kinked(self, f, order, got):
        """Whether differences of smaller steps give that derivative: there is a kink nearby."""
        for h in (2e-4, 2e-6):
            expected, error, largest = ridders(lambda t: nested(f, t, order - 1), h, 4)
            if abs(got - expected) <= 10 * error + 1e-12 / h * largest:
                return True
        return False

    def shape(self, seed, runs=RUNS):
        found = self.first(seed, runs)
        if found:
            raise AssertionError(f"seed {seed}: {found[0]}:\n" + "\n".join(found[1]))

    def first(self, seed, runs=RUNS):
        """The first derivative that fails, or None."""
        drawn = Lines(seed)
        body = "\n        ".join(drawn.lines)
        rng = np.random.default_rng(seed)
        for _ in range(runs):
            numbers = [rng.normal(size=shape) if shape else float(rng.normal()) for shape in drawn.shapes]
            space = dict(self.space)
            exec(f"def of(n):\n    def program(t):\n        {body}\n        return {drawn.result}\n    return program",
                 space)
            f = space["of"](numbers)
            for order in range(1, ORDERS + 1):
                try:
                    expected, error, largest = ridders(lambda t, order=order: nested(f, t, order - 1))
                except (ArithmeticError, ValueError):
                    self.unfit += 1
                    break
                if not (error <= 1e-4 * largest and largest < 1e6):
                    self.unfit += 1
                    break
                allowed = 10 * error + 1e-7 * largest
                for way, function in WAYS.items():
                    got = function(f, 0.0, order)
                    self.compared[order - 1] += 1
                    if not abs(got - expected) <= allowed and not self.kinked(f, order, got):
                        return (f"{way}, order {order}: {got!r}, expected {expected!r}, {allowed:.1e} allowed",
                                drawn.program(numbers), way, order)
        return None


def calls(way, order):
    """A derivative and a numeric one, for the shrinker."""
    lower = "flatgrad.grad(" * (order - 1) + "program" + ")" * (order - 1)
    ours = {"grad of compiled": "flatgrad.grad(" * order + "flatgrad.compile(program)" + ")" * order,
            "compiled grad": f"flatgrad.grad(flatgrad.compile({lower}))"}.get(way, f"flatgrad.grad({lower})")
    theirs = "(8 * (g(1e-3) - g(-1e-3)) - g(2e-3) + g(-2e-3)) / 12e-3"
    if order == 1:
        lower = "lambda t: float(program(t))"
    return Calls("import numpy, flatgrad", BINDINGS, "t", f"float({ours}(0.0))", f"(lambda g: {theirs})({lower})",
                 lambda a, b: abs(a - b) <= 1e-4 * max(1.0, abs(b)) or not abs(b) < 1e6,
                 "abs(ours - theirs) <= 1e-4 * max(1, abs(theirs))")


def run(limit, options):
    check = Check()
    for seed in limit:
        check.shape(seed)
    return (f"{sum(check.compared)} derivatives of {limit.rounds} functions passed, "
            f"{', '.join(f'{n} of order {k + 1}' for k, n in enumerate(check.compared))}; {check.unfit} more were near "
            f"a kink or large; {limit.seeds}")


def shrunk(seed):
    """The first failing derivative, as a script."""
    found = Check().first(seed)
    if not found:
        return "# no derivative of this function fails"
    return script(found[1], calls(*found[2:]))
