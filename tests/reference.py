"""A reference engine, and random expressions that any engine can run.

Plain Python, written from the mathematics and Python's `math` and not from the C core, so that what
both compute is right or wrong for two reasons. As in micrograd, `backward` reads the operands' data
at backward time, sets the root's gradient to 1 and adds everywhere else; unlike micrograd it does
not recurse and its order is fixed.

Beside the gradient of a node, the sum over all paths of products of partials, goes its magnitude
`size`: the same sum of the absolute values. Rounding errors are relative to that, so where a
gradient cancels to almost nothing, it is `size` that says what difference is still rounding.
"""
import math
import operator
from dataclasses import dataclass, field


def divide(x, y):
    """x / y as IEEE 754 has it, without an exception."""
    try:
        return x / y
    except ZeroDivisionError:
        sign = math.copysign(1.0, x) * math.copysign(1.0, y)
        return math.nan if x == 0.0 or math.isnan(x) else sign * math.inf


def power(x, y):
    """x**y of floats with Python's exceptions; a complex result is a domain error."""
    z = x**y
    if isinstance(z, complex):
        raise ValueError(f"math domain error: {x} ** {y}")
    return z


def power_or_limit(x, y):
    """x**y as IEEE 754 has it, without an exception."""
    try:
        return power(x, y)
    except ValueError:
        return math.nan
    except (ZeroDivisionError, OverflowError):
        odd = abs(math.fmod(y, 2.0)) == 1.0
        return math.copysign(math.inf, x) if odd else math.inf


def power_partials(z, x, y):
    """d(x**y)/dx and d(x**y)/dy. A constant x**0 has slope 0; 0**y for y >= 0 is flat in y."""
    dx = 0.0 if y == 0.0 else y * power_or_limit(x, y - 1.0)
    if x == 0.0:
        return dx, 0.0 if y >= 0.0 else -math.inf
    return dx, z * (math.log(x) if x > 0.0 else math.nan)


def logistic(x):
    """1 / (1 + exp(-x)); the reciprocal form would overflow far left."""
    return 1.0 / (1.0 + math.exp(-x)) if x > -700.0 else math.exp(x)


def sech_squared(x):
    """The derivative of tanh."""
    return math.cosh(x) ** -2.0 if abs(x) < 300.0 else 0.0 * x if math.isnan(x) else 0.0


def larger(x, y):
    return math.nan if math.isnan(x) or math.isnan(y) else x if x > y else y


def smaller(x, y):
    return -larger(-x, -y)


def larger_partials(z, x, y):
    """Equal operands share; with nan on either side both have all of it, as in PyTorch."""
    if math.isnan(z):
        return 1.0, 1.0
    return (0.5, 0.5) if x == y else (1.0, 0.0) if x > y else (0.0, 1.0)


def smaller_partials(z, x, y):
    return larger_partials(z, -x, -y)


def clip_partials(z, x, lo, hi):
    """The operand that the result is; x itself at the bounds; no bound if both are the same."""
    if lo <= x <= hi:
        return 1.0, 0.0, 0.0
    return 0.0, float(x < lo < hi), float(x > hi or hi < lo)


# What each operation computes, and from its result and operands the partial by each operand.
RULES = {
    "+": (operator.add, lambda z, x, y: (1.0, 1.0)),
    "-": (operator.sub, lambda z, x, y: (1.0, -1.0)),
    "*": (operator.mul, lambda z, x, y: (y, x)),
    "/": (operator.truediv, lambda z, x, y: (divide(1.0, y), divide(-x, y) / y)),
    "**": (power, power_partials),
    "neg": (operator.neg, lambda z, x: (-1.0,)),
    "relu": (lambda x: 0.0 if x < 0.0 else x, lambda z, x: (1.0 if z > 0.0 else 0.0,)),
    "tanh": (math.tanh, lambda z, x: (sech_squared(x),)),
    "sigmoid": (logistic, lambda z, x: (z * logistic(-x),)),
    "exp": (math.exp, lambda z, x: (z,)),
    "log": (math.log, lambda z, x: (divide(1.0, x),)),
    "sqrt": (math.sqrt, lambda z, x: (divide(0.5, z),)),
    "sin": (math.sin, lambda z, x: (math.cos(x),)),
    "cos": (math.cos, lambda z, x: (-math.sin(x),)),
    "abs": (abs, lambda z, x: (0.0 if x == 0.0 else x / z if z < math.inf else math.copysign(1.0, x),)),
    "maximum": (larger, larger_partials),
    "minimum": (smaller, smaller_partials),
    "where": (lambda c, x, y: x if c else y, lambda z, c, x, y: (0.0, 1.0, 0.0) if c else (0.0, 0.0, 1.0)),
    "clip": (lambda x, lo, hi: smaller(larger(x, lo), hi), clip_partials),
}

# An engine may compute these slopes from the result, 1 - z*z and z*(1 - z): where the function is
# flat that difference is all rounding, of the magnitude of what is subtracted.
SIZES = {
    "tanh": lambda z: 1.0 + z * z,
    "sigmoid": lambda z: z * (1.0 + z),
}

ARITY = {op: 1 for op in ("neg", "relu", "tanh", "sigmoid", "exp", "log", "sqrt", "sin", "cos", "abs")}
ARITY |= {op: 2 for op in ("+", "-", "*", "/", "**", "maximum", "minimum")}
ARITY |= {op: 3 for op in ("where", "clip")}


class Value:
    """A number, what it was computed from, its gradient and the gradient's magnitude."""

    __slots__ = ("data", "grad", "size", "op", "operands")

    rules = RULES   # for a subclass to break

    def __init__(self, data, op=None, operands=()):
        self.data = float(data)
        self.grad = 0.0
        self.size = 0.0
        self.op = op
        self.operands = operands

    @classmethod
    def apply(cls, op, *operands):
        """The result of an operation on Values and numbers."""
        operands = tuple([x if isinstance(x, Value) else cls(x) for x in operands])
        return cls(cls.rules[op][0](*[x.data for x in operands]), op, operands)

    def order(self):
        """All nodes below this one and itself, operands before users."""
        nodes, seen, todo = [], set(), [(self, False)]
        while todo:
            node, is_below_done = todo.pop()
            if is_below_done:
                nodes.append(node)
            elif node not in seen:
                seen.add(node)
                todo.append((node, True))
                todo.extend([(x, False) for x in node.operands])
        return nodes

    def backward(self):
        nodes = self.order()
        self.grad = self.size = 1.0
        for node in reversed(nodes):
            if not node.operands:
                continue
            partials = self.rules[node.op][1](node.data, *[x.data for x in node.operands])
            for operand, partial in zip(node.operands, partials):
                size = SIZES[node.op](node.data) if node.op in SIZES else abs(partial)
                operand.grad += partial * node.grad
                operand.size += size * node.size

    def __add__(self, other):
        return self.apply("+", self, other)

    def __radd__(self, other):
        return self.apply("+", other, self)

    def __sub__(self, other):
        return self.apply("-", self, other)

    def __rsub__(self, other):
        return self.apply("-", other, self)

    def __mul__(self, other):
        return self.apply("*", self, other)

    def __rmul__(self, other):
        return self.apply("*", other, self)

    def __truediv__(self, other):
        return self.apply("/", self, other)

    def __rtruediv__(self, other):
        return self.apply("/", other, self)

    def __pow__(self, other):
        return self.apply("**", self, other)

    def __rpow__(self, other):
        return self.apply("**", other, self)

    def __neg__(self):
        return self.apply("neg", self)

    def __abs__(self):
        return self.apply("abs", self)

    def relu(self):
        return self.apply("relu", self)

    def tanh(self):
        return self.apply("tanh", self)

    def sigmoid(self):
        return self.apply("sigmoid", self)

    def exp(self):
        return self.apply("exp", self)

    def log(self):
        return self.apply("log", self)

    def sqrt(self):
        return self.apply("sqrt", self)

    def sin(self):
        return self.apply("sin", self)

    def cos(self):
        return self.apply("cos", self)


def maximum(x, y):
    return Value.apply("maximum", x, y)


def minimum(x, y):
    return Value.apply("minimum", x, y)


def where(condition, x, y):
    return Value.apply("where", condition, x, y)


def clip(x, lo, hi):
    return Value.apply("clip", x, lo, hi)


# ---- the operations by name, on any engine: whatever has a class Value with these operators and
# methods, and the functions maximum, minimum, where and clip ----

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
             "**": operator.pow, "neg": operator.neg, "abs": abs}


def apply(engine, op, operands):
    """An operation of a given engine, spelt as a user would."""
    if op in OPERATORS:
        return OPERATORS[op](*operands)
    if ARITY[op] == 1:
        return getattr(operands[0], op)()
    return getattr(engine, op)(*operands)


# ---- random expressions ----

@dataclass
class Expression:
    """A graph as a recipe.

    Attributes
    ----------
    leaves : list of float or int
        Nodes 0, 1, ...
    steps : list of (op, operands)
        The nodes after them. An operand that is an int is a node's number, a tuple of one number is
        that number itself.
    """

    leaves: list
    steps: list = field(default_factory=list)

    def operands(self, step, nodes):
        return [nodes[x] if isinstance(x, int) else x[0] for x in self.steps[step][1]]

    def run(self, engine):
        """Its nodes, made by `engine`."""
        nodes = [engine.Value(x) for x in self.leaves]
        for k, (op, _) in enumerate(self.steps):
            nodes.append(apply(engine, op, self.operands(k, nodes)))
        return nodes


INTS = [0, 1, -1, 2, -3, 7]
FLOATS = [0.0, -0.0, 0.5, 1.0, -1.5, 2.25, 0.1, -3.7]
EXPONENTS = [0, 1, 2, 3, -1, -2, 0.5, -0.5, 1.5, 2.0, 3.0]


def is_tame(op, x, z, bound):
    """Whether the result is neither huge nor badly conditioned in its operands."""
    if not abs(z) <= bound:
        return False
    if op == "/":
        return abs(x[1]) >= 0.1
    if op == "**":
        return abs(x[1]) <= 4.0 and (x[0] >= 0.1 or (x[0] <= -0.1 and x[1] == int(x[1])))
    if op in ("log", "sqrt"):
        return x[0] >= 0.1
    # Rounding must not decide which side of a kink this is on; the kink itself is welcome.
    if op in ("relu", "abs"):
        return x[0] == 0.0 or abs(x[0]) > 1e-6
    if op in ("maximum", "minimum", "clip"):
        return all(a == b or abs(a - b) > 1e-6 for a in x for b in x)
    return op != "where" or x[0] == 0.0 or abs(x[0]) > 1e-6


def random_expression(rng, ops, max_steps=30, bound=1e6, exponent_values=False):
    """A random graph with shared nodes, equal operands (a + a) and constants on either side.

    Parameters
    ----------
    rng : random.Random
    ops : sequence of str
        What to draw operations from, each equally likely.
    max_steps : int, optional
        Most operations.
    bound : float, optional
        No operand is larger than this.
    exponent_values : bool, optional
        Whether exponents may be nodes and bases constants. If not, all bases are nodes and all
        exponents numbers, which is all that micrograd knows.

    Returns
    -------
    expression : Expression
    nodes : list of Value
        Its nodes, made by this module.
    """
    constants = rng.choice([FLOATS, FLOATS + INTS])   # a share of the graphs are all floats
    leaves = [rng.choice([rng.uniform(-3.0, 3.0), rng.uniform(0.2, 2.0), rng.choice(constants)])
              for _ in range(rng.randint(1, 4))]
    nodes = [Value(x) for x in leaves]
    unused = list(range(len(nodes)))
    expression = Expression(leaves)

    def add(op, operands):
        expression.steps.append((op, operands))
        given = expression.operands(-1, nodes)
        x = [v.data if isinstance(v, Value) else float(v) for v in given]
        try:
            z = RULES[op][0](*x)
        except (ArithmeticError, ValueError):
            z = math.nan
        # The derivative by the exponent is nan for a negative base.
        if not is_tame(op, x, z, bound) or (op == "**" and isinstance(operands[1], int) and x[0] < 0.1):
            expression.steps.pop()
            return
        unused[:] = [k for k in unused if k not in operands] + [len(nodes)]
        nodes.append(Value.apply(op, *given))

    wanted = rng.randint(1, max_steps)
    while len(expression.steps) + len(unused) <= wanted:
        op = rng.choice(ops)
        operands = [rng.choice(unused) if rng.random() < 0.6 else rng.randrange(len(nodes))
                    for _ in range(ARITY[op])]
        if op == "**" and not (exponent_values and rng.random() < 0.5):
            operands[1] = (rng.choice(EXPONENTS),)
        elif ARITY[op] > 1 and rng.random() < 0.35:
            operands[rng.randrange(ARITY[op])] = (rng.choice(constants),)
        elif ARITY[op] > 1 and rng.random() < 0.1:
            operands[1] = operands[0]
        add(op, operands)
    bound *= max_steps
    while len(unused) > 1:   # tie up the loose ends, so that the last node depends on all others
        add("+", unused[:2])
    return expression, nodes


def ulps(x, y):
    """How many steps of float64 lie between two floats; infinity if one is nan and the other not."""
    if math.isnan(x) or math.isnan(y):
        return 0 if math.isnan(x) and math.isnan(y) else math.inf
    if x == y:
        return 0
    if math.isinf(x) or math.isinf(y):
        return math.inf
    return abs(x - y) / math.ulp(min(abs(x), abs(y)))
