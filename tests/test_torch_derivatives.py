"""First, second and third derivatives of every operation and loss against PyTorch in float64: at 1,000 points each, and
at kinks, edges, infinities and nan. The derivatives of a function f of x are taken along a direction v: the gradient of
f, that of f' v, and that of f'' v v, so that all mixed derivatives count.

DIFFERS says where ours are not PyTorch's, and why; test_torch.py has the same for values and first derivatives.
"""
import itertools
import math

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value
from test_written_rows import written

torch = pytest.importorskip("torch")

from test_torch import ARITY, FEWER, OPERATIONS, RAISES, SPECIAL  # noqa: E402
from test_torch_losses import PAIRS  # noqa: E402

torch.set_num_threads(1)   # small problems

INF, NAN = math.inf, math.nan
ORDERS = (1, 2, 3)
POINTS = 1000


# ---- derivatives, theirs and ours ----

def ours(f, columns, v):
    """For each order the gradients by each operand, as arrays."""
    tensors, result = [Tensor(x) for x in columns], []
    z = f(*tensors).sum()
    for _ in ORDERS:
        gradients = written(z, tensors)
        result.append([np.array(g.data) for g in gradients])
        z = sum([(g * c).sum() for g, c in zip(gradients, v)], Value(0.0))
    return result


def ours_of_values(f, points, v):
    """The same of single Values, one point after the other."""
    result = [[[] for _ in v] for _ in ORDERS]
    for n, point in enumerate(points):
        values = [Value(x) for x in point]
        z = f(*values)
        for order in ORDERS:
            gradients = written(z, values)
            for k, g in enumerate(gradients):
                result[order - 1][k].append(g.data)
            z = sum([g * float(c[n]) for g, c in zip(gradients, v)], Value(0.0))
    return [[np.array(x) for x in row] for row in result]


def theirs(f, columns, v):
    tensors, result = [torch.tensor(x, requires_grad=True) for x in columns], []
    z = f(*tensors).sum()
    for _ in ORDERS:
        found = [None] * len(tensors)
        if z.requires_grad:
            found = torch.autograd.grad(z, tensors, create_graph=True, allow_unused=True)
        gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(tensors, found)]
        result.append([(g.detach() + torch.zeros_like(x.detach())).numpy() for x, g in zip(tensors, gradients)])
        z = sum([(g * torch.tensor(c)).sum() for g, c in zip(gradients, v)])
    return result


def same(got, expected):
    """Element by element: to 1e-9, infinities and nan the same."""
    with np.errstate(all="ignore"):
        near = np.abs(got - expected) <= 1e-9 * np.maximum(1.0, np.abs(expected))
    return (got == expected) | np.isnan(got) & np.isnan(expected) | np.isfinite(expected) & near


def compare(name, got, expected, columns, skip=lambda x, order: False):
    for order, mine, others in zip(ORDERS, got, expected, strict=True):
        for k, (a, b) in enumerate(zip(mine, others, strict=True)):
            for i in np.flatnonzero(~same(a, b)):
                point = [float(x[i]) for x in columns]
                assert skip(point, order), (name, point, f"order {order}", f"operand {k}", a[i], b[i])


# ---- operations ----

def positive(op):
    """Operands that are drawn above 0: by which they are."""
    if op in ("log", "sqrt", "**") or op.startswith("x**"):
        return {0}
    return set()


def domain(op):
    """Constant bases that are 0 or negative, and what overflows everywhere, have no ordinary points."""
    if "**x" in op and float(op.removesuffix("**x")) <= 0 or op in ("x**1e+300", "1e+300**x"):
        return False
    return "inf" not in op and "nan" not in op


def ordinary(op, count, seed):
    draw, arity = np.random.default_rng(seed), ARITY[op]
    columns = [draw.uniform(-3, 3, count) for _ in range(arity)]
    for k in positive(op):
        columns[k] = np.abs(columns[k]) + 0.05
    if op == "log1p":
        columns[0] = np.abs(columns[0]) - 0.95
    if op == "tan":
        columns[0] = columns[0] * 0.4
    return columns, [draw.uniform(-1, 1, count) for _ in range(arity)]


@pytest.mark.parametrize("op", [op for op in OPERATIONS if domain(op)])
def test_a_thousand_ordinary_points(op):
    columns, v = ordinary(op, POINTS, 1)
    compare(op, ours(OPERATIONS[op][0], columns, v), theirs(OPERATIONS[op][1], columns, v), columns)


@pytest.mark.parametrize("op", [op for op in OPERATIONS if domain(op)])
def test_single_values(op):
    columns, v = ordinary(op, 40, 2)
    compare(op, ours_of_values(OPERATIONS[op][0], list(zip(*columns)), v), theirs(OPERATIONS[op][1], columns, v),
            columns)


# An operation, a condition on the operands and on the order of the derivative, and the reason.
DIFFERS = [
    ("relu", lambda x, n: math.isnan(x[0]) and n == 1, "as in test_torch.py"),
    *[(op, lambda x, n: math.isnan(x[0]), "a nan has a nan for a derivative; PyTorch's are 1, 0 and 0")
      for op in ("elu", "elu, 0.5")],
    *[(op, lambda x, n: x[0] == 0 and n > 1,
       "0 is of the branch alpha * (exp(x) - 1), in the second derivative as in the first; PyTorch's is 0 there")
      for op in ("elu", "elu, 0.5")],
    *[(op, lambda x, n: x[0] == 710.0, "PyTorch's vectors overflow too early") for op in ("sinh", "cosh")],
    ("erf", lambda x, n: abs(x[0]) > 1e154 and n > 1, "PyTorch multiplies 0 by an infinite square"),
    ("gelu", lambda x, n: abs(x[0]) > 1e154 and n > 1, "PyTorch multiplies 0 by an infinite square"),
    ("gelu_tanh", lambda x, n: abs(x[0]) >= 40 and n == 3, "PyTorch multiplies 0 by inf"),
    ("**", lambda x, n: x[0] == 0 and n > 1,
     "the derivative by the exponent is 0 at x = 0 by agreement, and so are its derivatives; PyTorch multiplies by log(0)"),
    ("**", lambda x, n: x[1] in (0.0, 1.0) and n > 1,
     "PyTorch takes the derivative of x**y by x as 0 for all y near 0, so that its second derivatives are not symmetric"),
    ("**", lambda x, n: (abs(x[0]) < 1e-150 or abs(x[1]) > 1e150 or math.isinf(x[0])) and n > 1,
     "factors that overflow or vanish, in another order"),
    *[(op, lambda x, n: n > 1, "as ** at 0") for op in ("0**x", "0.0**x")],
    *[(op, lambda x, n: x[0] == 0 and math.copysign(1, x[0]) < 0 or x[0] == -INF,
       "powers of -0.0 and -inf, of which PyTorch takes the square root") for op in ("x**0.5", "x**1.5", "x**2.5")],
    ("x**1e+300", lambda x, n: n > 2, "1e300**2 overflows; PyTorch multiplies 0 by inf"),
    ("atan2", lambda x, n: x[0] == 0 and x[1] == 0 and n > 1, "all derivatives at (0, 0) are 0; PyTorch's are nan"),
    ("atan2", lambda x, n: 0 < max(map(abs, x)) < 1e-100 or any([1e100 < abs(a) < INF for a in x]),
     "PyTorch's squares are 0 or inf"),
]


def skip(op):
    conditions = [condition for name, condition, _ in DIFFERS if name == op]
    return lambda x, n: any(condition(x, n) for condition in conditions)


def special(op):
    raises = RAISES.get(op, lambda *x: False)
    points = itertools.product(SPECIAL if ARITY[op] < 3 else FEWER, repeat=ARITY[op])
    points = [p for p in points if not raises(*p)]
    columns = [np.array(x) for x in zip(*points)]
    return columns, [np.full(len(points), c) for c in (1.0, 0.5, 0.25)[:len(columns)]]


@pytest.mark.parametrize("op", OPERATIONS)
def test_special_points(op):
    columns, v = special(op)
    if columns:
        compare(op, ours(OPERATIONS[op][0], columns, v), theirs(OPERATIONS[op][1], columns, v), columns, skip(op))


@pytest.mark.parametrize("op, condition, reason", DIFFERS)
def test_differences_are_real(op, condition, reason):
    columns, v = special(op)
    with pytest.raises(AssertionError):
        compare(op, ours(OPERATIONS[op][0], columns, v), theirs(OPERATIONS[op][1], columns, v), columns,
                lambda x, n: not condition(x, n))


@pytest.mark.parametrize("op", ["tanh", "*", "**", "gelu", "atan2"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_tenth_of_a_percent_is_caught(op, order):
    columns, v = ordinary(op, 50, 3)
    got = ours(OPERATIONS[op][0], columns, v)
    got[order - 1] = [x * 1.001 for x in got[order - 1]]
    if (op, order) != ("*", 3):   # which is 0
        with pytest.raises(AssertionError):
            compare(op, got, theirs(OPERATIONS[op][1], columns, v), columns)


# ---- losses ----

def drawn(draw, name, which, span, count):
    if name == "hinge" and which == 1:
        return draw.choice([-1.0, 1.0], count)
    return draw.uniform(*span, count)


def of_pairs(name):
    mine, other = PAIRS[name][:2]
    return lambda *x: mine(*x, reduction="none"), lambda *x: other(*x, reduction="none")


def their_cross_entropy(x, y):
    """Without the 1e-12 that their second derivative has beside x."""
    return -y * torch.log(x) - (1 - y) * torch.log1p(-x)


@pytest.mark.parametrize("name", PAIRS)
def test_losses_at_a_thousand_points(name):
    draw = np.random.default_rng(1)
    mine, other = of_pairs(name)
    if name == "binary_cross_entropy":
        other = their_cross_entropy
    columns = [drawn(draw, name, k, PAIRS[name][2 + k], POINTS) for k in range(2)]
    v = [draw.uniform(-1, 1, POINTS) for _ in range(2)]
    if name == "hinge":   # a target that moves is none
        targets = columns.pop()
        compare(name, ours(lambda x: mine(x, targets), columns, v[:1]),
                theirs(lambda x: other(x, torch.tensor(targets)), columns, v[:1]), columns)
        return
    compare(name, ours(mine, columns, v), theirs(other, columns, v), columns)


LOSSES_DIFFER = [
    *[(name, lambda x, n, delta=delta: n > 1 and abs(abs(x[0] - x[1]) - delta) <= 1e-6 * delta,
       "|x - y| = delta is of the parabola, in the second derivative as in the first; PyTorch's is 0 there")
      for name, delta in (("huber", 1.0),)],
    ("binary_cross_entropy", lambda x, n: n > 1 and not 1e-3 < x[0] < 1 - 1e-3,
     "near 0 and 1 PyTorch's second derivative has 1e-12 in other places than its first"),
]


def losses_at_special_points(name):
    mine, other = of_pairs(name)
    points = list(itertools.product(*PAIRS[name][4:6]))
    columns = [np.array(x) for x in zip(*points)]
    v = [np.full(len(points), c) for c in (1.0, 0.5)]
    if name == "hinge":
        targets = columns[1]
        return (ours(lambda x: mine(x, targets), columns[:1], v[:1]),
                theirs(lambda x: other(x, torch.tensor(targets)), columns[:1], v[:1]), columns)
    return ours(mine, columns, v), theirs(other, columns, v), columns


@pytest.mark.parametrize("name", PAIRS)
def test_losses_at_special_points(name):
    conditions = [condition for other, condition, _ in LOSSES_DIFFER if other == name]
    compare(name, *losses_at_special_points(name), lambda x, n: any(condition(x, n) for condition in conditions))


@pytest.mark.parametrize("name, condition, reason", LOSSES_DIFFER)
def test_differences_of_losses_are_real(name, condition, reason):
    with pytest.raises(AssertionError):
        compare(name, *losses_at_special_points(name), lambda x, n: not condition(x, n))


# ---- several rows on top of each other ----

def network(x, y, tanh, exp):
    return tanh(x * y + 0.5) * exp(-x * x) + tanh(y - x) ** 3 / (1.5 + x * x)


def test_a_function_of_many_rows():
    columns, v = ordinary("*", POINTS, 4)
    compare("network", ours(lambda x, y: network(x, y, flatgrad.tanh, flatgrad.exp), columns, v),
            theirs(lambda x, y: network(x, y, torch.tanh, torch.exp), columns, v), columns)
