"""Every operation against PyTorch's float64 scalars: values, gradients, kinks and edges.

PyTorch is what flatgrad follows where micrograd and Python have no say. Where they do, the two tables
RAISES and DIFFERS below say how and why the results are not PyTorch's, and the tests hold us to them
in both directions.
"""
import itertools
import math
import operator
import random
from types import SimpleNamespace

import pytest

import flatgrad
import reference
from flatgrad import Value
from reference import ulps

torch = pytest.importorskip("torch")

INF, NAN = math.inf, math.nan

# The operation on flatgrad's Values, and on PyTorch's tensors.
OPERATIONS = {
    "neg": (operator.neg, operator.neg),
    "relu": (flatgrad.relu, torch.relu),
    "tanh": (flatgrad.tanh, torch.tanh),
    "sigmoid": (flatgrad.sigmoid, torch.sigmoid),
    "exp": (flatgrad.exp, torch.exp),
    "log": (flatgrad.log, torch.log),
    "sqrt": (flatgrad.sqrt, torch.sqrt),
    "sin": (flatgrad.sin, torch.sin),
    "cos": (flatgrad.cos, torch.cos),
    "abs": (flatgrad.abs, torch.abs),
    "+": (operator.add, operator.add),
    "-": (operator.sub, operator.sub),
    "*": (operator.mul, operator.mul),
    "/": (operator.truediv, operator.truediv),
    "**": (operator.pow, operator.pow),
    "maximum": (flatgrad.maximum, torch.maximum),
    "minimum": (flatgrad.minimum, torch.minimum),
    "where": (flatgrad.where, lambda condition, x, y: torch.where(condition != 0, x, y)),
    "clip": (flatgrad.clip, torch.clamp),
}
ARITY = dict(reference.ARITY)


def add_power(k):
    """x**k and k**x for a constant k, which are operations of their own in both."""
    OPERATIONS[f"x**{k}"] = (lambda x: x**k,) * 2
    OPERATIONS[f"{k}**x"] = (lambda x: k**x,) * 2
    ARITY[f"x**{k}"] = ARITY[f"{k}**x"] = 1


EXPONENTS = [0, 1, 2, 3, -1, -2, 7, 0.0, 2.0, 0.5, -0.5, 1.5, 2.5, INF, -INF, NAN, 1e300]
for _k in EXPONENTS:
    add_power(_k)

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 3.0, -3.0, 2.5, 0.3, 1e-200, 1e200, -1e200, 5e-324, 1e308,
           709.0, 710.0, -700.0, -750.0, 40.0, -40.0, INF, -INF, NAN]
FEWER = [0.0, -0.0, 1.0, -1.0, 2.5, INF, -INF, NAN]   # for three operands
UPSTREAM = [1.0, -2.5, 0.0, INF, NAN]                 # the gradient that arrives from above


def special_points(op):
    return itertools.product(SPECIAL if ARITY[op] < 3 else FEWER, repeat=ARITY[op])


def is_finite(*x):
    return all(math.isfinite(a) for a in x)


def power_raises(x, y):
    try:
        reference.power(float(x), float(y))
    except (ArithmeticError, ValueError):
        return True
    return False


# Where Python's floats and `math` raise, as micrograd does with them, so do we; PyTorch goes on with
# inf or nan.
RAISES = {
    "exp": lambda x: is_finite(x) and x > 709.79,
    "log": lambda x: x <= 0.0,
    "sqrt": lambda x: x < 0.0,
    "sin": math.isinf,
    "cos": math.isinf,
    "/": lambda x, y: y == 0.0,
    "**": power_raises,
}
RAISES |= {f"x**{k}": lambda x, k=k: power_raises(x, k) for k in EXPONENTS}
RAISES |= {f"{k}**x": lambda x, k=k: power_raises(k, x) for k in EXPONENTS}

# Where we differ for a reason: the operation, a condition on the operands (x) and on the gradient from
# above (d), and the reason.
DIFFERS = [
    ("relu", lambda x, d: math.isnan(x[0]) and d != 0.0 and not math.isnan(d),
     "micrograd's derivative asks whether the result is > 0, which nan is not; PyTorch's is 1"),
    ("relu", lambda x, d: x[0] <= 0.0 and not is_finite(d),
     "micrograd multiplies the gradient by 0 or 1, and 0 * inf is nan; PyTorch selects"),
    *[(f"x**{k}", lambda x, d: not is_finite(d),
       "micrograd multiplies the gradient by 0, and 0 * inf is nan; PyTorch selects") for k in (0, 0.0)],
    ("**", lambda x, d: x[1] == 0.0 and not is_finite(d), "as x**0"),
    ("x**0.5", lambda x, d: x[0] == 0.0 and math.copysign(1, x[0]) < 0,
     "(-0.0)**0.5 is 0.0 in Python; PyTorch takes the square root, -0.0"),
    ("x**0.5", lambda x, d: x[0] == -INF, "(-inf)**0.5 is inf in Python; PyTorch takes the square root, nan"),
    ("x**-0.5", lambda x, d: x[0] == -INF, "(-inf)**-0.5 is 0.0 in Python; PyTorch takes the square root"),
    ("x**1.5", lambda x, d: x[0] == -INF and d != 0.0 and not math.isnan(d),
     "its slope is 1.5 * x**0.5, with x**0.5 as above"),
]
def why(op, x, d):
    return [reason for name, condition, reason in DIFFERS if name == op and condition(x, d)]


def tensor(x):
    return torch.tensor(float(x), dtype=torch.float64, requires_grad=True)


def ours(op, x, d):
    values = [Value(a) for a in x]
    z = OPERATIONS[op][0](*values)
    (z * d).backward()
    return z.data, [v.grad for v in values]


def theirs(op, x, d):
    tensors = [tensor(a) for a in x]
    z = OPERATIONS[op][1](*tensors)
    (z * d).backward()
    return z.item(), [0.0 if t.grad is None else t.grad.item() for t in tensors]


def same_value(x, y):
    """Within two steps of float64; zeros have the same sign."""
    return ulps(x, y) <= 2 and (x != 0 or y != 0 or math.copysign(1, x) == math.copysign(1, y))


def same_gradient(op, x, y, d):
    """To 1e-12; more loosely only where both compute 1 - z with a z next to 1."""
    if math.isnan(x) or math.isnan(y) or math.isinf(x) or math.isinf(y):
        return ulps(x, y) == 0
    rounding = 1e-15 * abs(d) if op in ("tanh", "sigmoid") and is_finite(d) else 1e-322
    return abs(x - y) <= 1e-12 * abs(y) + rounding


def is_same(op, got, expected, d):
    return same_value(got[0], expected[0]) and all(
        [same_gradient(op, a, b, d) for a, b in zip(got[1], expected[1], strict=True)])


def test_every_operation_is_here():
    assert set(reference.ARITY) <= set(OPERATIONS)
    names = {row["name"] for row in flatgrad._core._operations() if row["public"]}
    assert names <= set(OPERATIONS)


@pytest.mark.parametrize("op", OPERATIONS)
def test_ordinary_points(op):
    rng = random.Random(op)
    checked = 0
    for _ in range(200):
        x = [rng.choice([rng.uniform(-3, 3), rng.uniform(0.1, 5), float(rng.randint(-3, 3))])
             for _ in range(ARITY[op])]
        d = rng.uniform(-2, 2)
        if op in RAISES and RAISES[op](*x):
            continue
        got, expected = ours(op, x, d), theirs(op, x, d)
        assert is_same(op, got, expected, d), (op, x, d, got, expected)
        checked += 1
    assert checked >= 50


@pytest.mark.parametrize("op", OPERATIONS)
def test_special_points(op):
    """Kinks, domain edges, signed zeros, ties, infinities and nan; and such gradients from above."""
    for x in special_points(op):
        for d in UPSTREAM:
            expected = theirs(op, x, d)
            if op in RAISES and RAISES[op](*x):
                with pytest.raises((ArithmeticError, ValueError)):
                    ours(op, x, d)
                assert not math.isfinite(expected[0]), (op, x, expected)   # no result of theirs is lost
                continue
            got = ours(op, x, d)   # never an error
            if why(op, x, d):
                continue
            assert is_same(op, got, expected, d), (op, x, d, got, expected)


@pytest.mark.parametrize("op, condition, reason", DIFFERS)
def test_differences_are_real(op, condition, reason):
    """Each reason in the table is needed."""
    points = [(x, d) for x in special_points(op) for d in UPSTREAM
              if condition(x, d) and not RAISES.get(op, lambda *x: False)(*x)]
    assert any(not is_same(op, ours(op, x, d), theirs(op, x, d), d) for x, d in points)


def test_abs_of_nan():
    for d in UPSTREAM:
        assert is_same("abs", ours("abs", [NAN], d), theirs("abs", [NAN], d), d)


@pytest.mark.parametrize("op, x, value, grads", [
    ("relu", [0.0], 0.0, [0.0]), ("relu", [-0.0], -0.0, [0.0]), ("abs", [0.0], 0.0, [0.0]),
    ("maximum", [2.0, 2.0], 2.0, [0.5, 0.5]), ("minimum", [2.0, 2.0], 2.0, [0.5, 0.5]),
    ("maximum", [NAN, 1.0], NAN, [1.0, 1.0]), ("minimum", [1.0, NAN], NAN, [1.0, 1.0]),
    ("clip", [1.0, 1.0, 2.0], 1.0, [1.0, 0.0, 0.0]), ("clip", [2.0, 1.0, 2.0], 2.0, [1.0, 0.0, 0.0]),
    ("clip", [0.0, 1.0, 1.0], 1.0, [0.0, 0.0, 0.0]), ("clip", [0.0, 2.0, 1.0], 1.0, [0.0, 0.0, 1.0]),
    ("sqrt", [0.0], 0.0, [INF]), ("x**0.5", [0.0], 0.0, [INF]), ("x**0", [0.0], 1.0, [0.0]),
    ("**", [0.0, 0.0], 1.0, [0.0, 0.0]), ("**", [0.0, 2.0], 0.0, [0.0, 0.0]),
    ("**", [0.0, 0.5], 0.0, [INF, 0.0]), ("**", [-2.0, 2.0], 4.0, [-4.0, NAN]),
    ("where", [NAN, 1.0, 2.0], 1.0, [0.0, 1.0, 0.0]), ("where", [-0.0, 1.0, 2.0], 2.0, [0.0, 0.0, 1.0]),
])
def test_edges_by_hand(op, x, value, grads):
    """The edges that documentation promises, spelt out; PyTorch agrees."""
    for side in (ours, theirs):
        got = side(op, x, 1.0)
        assert is_same(op, got, (value, grads), 1.0), (side, got)


# ---- random expressions ----

def as_tensor(x):
    return x if isinstance(x, torch.Tensor) else tensor(x)


TORCH = SimpleNamespace(
    Value=tensor,
    maximum=lambda x, y: torch.maximum(as_tensor(x), as_tensor(y)),
    minimum=lambda x, y: torch.minimum(as_tensor(x), as_tensor(y)),
    where=lambda c, x, y: torch.where(as_tensor(c) != 0, as_tensor(x), as_tensor(y)),
    clip=lambda x, lo, hi: torch.clamp(as_tensor(x), as_tensor(lo), as_tensor(hi)),
)


def compare(expression, sizes, engine=flatgrad):
    """Run an expression on both; AssertionError if values or gradients differ.

    Each goes on with its own rounded results, so a difference in one operation reaches those after
    it: the bound is looser than that of one operation.

    Returns
    -------
    close, count : int
        How many gradients are within 1e-12, of how many.
    """
    got, expected = expression.run(engine), expression.run(TORCH)
    for t in expected:
        t.retain_grad()
    for nodes in (got, expected, sizes):
        nodes[-1].backward()
    close = 0
    for v, t, r in zip(got, expected, sizes, strict=True):
        grad = 0.0 if t.grad is None else t.grad.item()
        assert v.data == pytest.approx(t.item(), rel=1e-10, abs=1e-10)
        assert abs(v.grad - grad) <= 1e-10 * r.size, (v, grad, r.size)
        close += abs(v.grad - grad) <= 1e-12 * abs(grad)
    return close, len(sizes)


def expressions(seed, count):
    rng = random.Random(seed)
    for _ in range(count):
        yield reference.random_expression(rng, list(reference.ARITY), bound=1e3, exponent_values=True)


def test_random_expressions():
    results = [compare(expression, sizes) for expression, sizes in expressions(1, 1000)]
    assert sum(close for close, _ in results) > 0.99 * sum(count for _, count in results)


@pytest.mark.parametrize("op", reference.ARITY)
def test_a_wrong_derivative_is_caught(op):
    """The comparison, run on an engine with one derivative 0.1 % off."""
    forward, partials = reference.RULES[op]
    rules = {**reference.RULES, op: (forward, lambda *x: [p * 1.001 for p in partials(*x)])}
    Wrong = type("Wrong", (reference.Value,), {"rules": rules, "__slots__": ()})
    engine = SimpleNamespace(Value=Wrong, **{
        name: lambda *x, name=name: Wrong.apply(name, *x)
        for name in ("maximum", "minimum", "where", "clip")})
    with pytest.raises(AssertionError):
        for expression, sizes in expressions(2, 200):
            compare(expression, sizes, engine)
