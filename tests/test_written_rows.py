"""The rule of every row of ops.def as nodes (csrc/written_rows.c).

The first derivative is held against the reverse sweep's, at ordinary points, kinks and edges. The second and third are
held against power series of the rows' formulas in decimal numbers of 60 digits: `FORMULAS` has a formula for each row,
made of the arithmetic of `Series` below, which knows nothing of derivatives. At kinks `KINKS` says what they are.
"""
import decimal
import itertools
import math
import random

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core
from test_ops import CONSTANTS, IDS, ORACLE, ROWS, same, special_operands, split

D = decimal.Decimal
DIGITS = decimal.Context(prec=60, Emin=-10**9, Emax=10**9)
ORDER = 3
INF, NAN = math.inf, math.nan
PI = D("3.14159265358979323846264338327950288419716939937510582097494459230781640628621")
FACTORIALS = [1, 1, 2, 6]
UPSTREAM = [1.0, -2.5, 0.0, 1e-300, INF, NAN]   # the gradient that arrives from above


# ---- power series ----

class Series:
    """a + b t + c t**2 + d t**3: arithmetic on numbers that depend on t, up to t**3."""

    def __init__(self, *terms):
        self.terms = [D(x) for x in terms] + [D(0)] * (ORDER + 1 - len(terms))

    @property
    def value(self):
        return self.terms[0]

    def composed(self, derivatives):
        """f(self), from the derivatives of f at the constant term."""
        step = Series(0, *self.terms[1:])
        result, power = Series(0), Series(1)
        for n, derivative in enumerate(derivatives):
            result += power * Series(derivative / FACTORIALS[n])
            power *= step
        return result

    def __add__(self, other):
        return Series(*[x + y for x, y in zip(self.terms, series(other).terms)])

    def __neg__(self):
        return Series(*[-x for x in self.terms])

    def __sub__(self, other):
        return self + -series(other)

    def __rsub__(self, other):
        return series(other) - self

    def __mul__(self, other):
        x, y = self.terms, series(other).terms
        return Series(*[sum(x[k] * y[n - k] for k in range(n + 1)) for n in range(ORDER + 1)])

    def __truediv__(self, other):
        return self * reciprocal(series(other))

    def __rtruediv__(self, other):
        return series(other) / self

    __radd__, __rmul__ = __add__, __mul__


def series(x):
    return x if isinstance(x, Series) else Series(x)


def reciprocal(x):
    a = x.value
    return x.composed([1 / a, -1 / a**2, 2 / a**3, -6 / a**4])


def exp(x):
    return x.composed([DIGITS.exp(x.value)] * 4)


def log(x):
    a = x.value
    return x.composed([DIGITS.ln(a), 1 / a, -1 / a**2, 2 / a**3])


def sqrt(x):
    root = DIGITS.sqrt(x.value)
    return x.composed([root, 1 / (2 * root), -1 / (4 * root**3), 3 / (8 * root**5)])


def sine_of(a):
    """a - a**3 / 6 + ..."""
    term = total = a
    for n in range(1, 60):
        term *= -a * a / (2 * n * (2 * n + 1))
        total += term
    return total


def sin(x):
    s, c = sine_of(x.value), sine_of(x.value + PI / 2)
    return x.composed([s, c, -s, -c])


def cos(x):
    return sin(x + PI / 2)


def tanh(x):
    e = exp(2 * x)
    return (e - 1) / (e + 1)


def sigmoid(x):
    return 1 / (1 + exp(-x))


def normal_density(x):
    return exp(x * x * D("-0.5")) / DIGITS.sqrt(2 * PI)


def erf(x):
    """2 / sqrt(pi) * exp(-a**2) * (a + 2 a**3 / 3 + 4 a**5 / 15 + ...), and the powers of its slope."""
    a = x.value
    term = total = a
    for n in range(1, 300):
        term *= 2 * a * a / (2 * n + 1)
        total += term
    slope = 2 / DIGITS.sqrt(PI) * DIGITS.exp(-a * a)
    return x.composed([slope * total, slope, -2 * a * slope, (4 * a * a - 2) * slope])


def normal_cdf(x):
    return (1 + erf(x / DIGITS.sqrt(D(2)))) / 2


def arctan2(y, x):
    """The angle of the point (x, y): its constant term is not asked for."""
    ratio = 1 / (1 + (y / x) * (y / x))   # the derivative of arctan at y / x
    slope = (y / x).terms
    slope = Series(slope[1], 2 * slope[2], 3 * slope[3]) * ratio
    return Series(D(math.atan2(y.value, x.value)), slope.terms[0], slope.terms[1] / 2, slope.terms[2] / 3)


def power(x, y):
    if all(term == 0 for term in y.terms[1:]) and y.value == int(y.value):   # a negative base as well
        result = Series(1)
        for _ in range(abs(int(y.value))):
            result *= x
        return result if y.value >= 0 else 1 / result
    return exp(y * log(x))


def absolute(x):
    return x if x.value >= 0 else -x


def softplus(x):
    return log(1 + exp(x))


def bce(x, y, w=1):
    return w * y * softplus(-x) + (1 - y) * softplus(x)


def falling(y, order):
    return math.prod([y - n for n in range(int(order.value))], start=Series(1))


def choose(condition, x, y):
    return x if condition else y


def gelu_tanh(x):
    inner = DIGITS.sqrt(2 / PI) * (x + D(0.044715) * x * x * x)
    return x / 2 * (1 + tanh(inner))


def steps(number):
    """A function between the steps of which nothing changes."""
    return lambda *x: Series(number(*[float(term.value) for term in x]))


FORMULAS = {
    "COPY": lambda x: x,
    "NEG": lambda x: -x,
    "POWI": power,
    "EXP": exp,
    "LOG": log,
    "LOG1P": lambda x: log(1 + x),
    "EXPM1": lambda x: exp(x) - 1,
    "SQRT": sqrt,
    "SIN": sin,
    "COS": cos,
    "TAN": lambda x: sin(x) / cos(x),
    "SINH": lambda x: (exp(x) - exp(-x)) / 2,
    "COSH": lambda x: (exp(x) + exp(-x)) / 2,
    "ERF": erf,
    "FLOOR": steps(math.floor),
    "ABS": absolute,
    "RELU": lambda x: choose(x.value > 0, x, Series(0)),
    "LEAKY_RELU": lambda x, a: choose(x.value > 0, x, a * x),
    "ELU": lambda x, a: choose(x.value > 0, x, a * (exp(x) - 1)),
    "GELU": lambda x: x * normal_cdf(x),
    "GELU_TANH": gelu_tanh,
    "SILU": lambda x: x * sigmoid(x),
    "SOFTPLUS": softplus,
    "TANH": tanh,
    "SIGMOID": sigmoid,
    "ADD": lambda x, y: x + y,
    "SUB": lambda x, y: x - y,
    "MUL": lambda x, y: x * y,
    "DIV": lambda x, y: x / y,
    "POW": power,
    "POWC": power,
    "MAXIMUM": lambda x, y: choose(x.value > y.value, x, y),
    "MINIMUM": lambda x, y: choose(x.value < y.value, x, y),
    "ATAN2": arctan2,
    "SQUARED_ERROR": lambda x, y: (x - y) * (x - y),
    "HINGE": lambda x, y: choose((x * y).value < 1, 1 - x * y, Series(0)),
    "ABSOLUTE_ERROR": lambda x, y: absolute(x - y),
    "BINARY_CROSS_ENTROPY": lambda x, y: -y * log(x) - (1 - y) * log(1 - x),
    "BCE_WITH_LOGITS": bce,
    "KL_DIV": lambda x, y: y * (log(y) - x),
    "KL_DIV_LOG": lambda x, y: exp(y) * (y - x),
    "WHERE": lambda c, x, y: choose(c.value != 0, x, y),
    "CLIP": lambda x, lo, hi: choose(hi.value < max(x.value, lo.value), hi, choose(x.value < lo.value, lo, x)),
    "HUBER": lambda x, y, w: choose(absolute(x - y).value <= w.value, (x - y) * (x - y) / 2,
                                    w * (absolute(x - y) - w / 2)),
    "WEIGHTED_BCE_WITH_LOGITS": bce,
    "SIGN": steps(lambda x: math.copysign(1, x)),
    "LOGARITHM": log,
    "LOGIT": lambda x: log(x / (1 - x)),
    "LOGISTIC_DENSITY": lambda x: sigmoid(x) * sigmoid(-x),
    "GELU_SLOPE": lambda x: normal_cdf(x) + x * normal_density(x),
    "GELU_TANH_SLOPE": lambda x: derivative(gelu_tanh, x),
    "SILU_SLOPE": lambda x: sigmoid(x) + x * sigmoid(x) * sigmoid(-x),
    "QUOTIENT": lambda x, y: x / y,
    "GATE": lambda x, y: choose(x.value > 0, y, Series(0)),
    "LESS": steps(lambda x, y: x < y),
    "LESS_EQUAL": steps(lambda x, y: x <= y),
    "EQUAL": steps(lambda x, y: x == y),
    "TANH_SLOPE": lambda x, y: (1 - x * x) * y,
    "SIGMOID_SLOPE": lambda x, y: x * (1 - x) * y,
    "ANGLE_SLOPE": lambda x, y: x / (x * x + y * y),
    "BCE_SLOPE": lambda x, y: sigmoid(x) - y,
    "SHARE": lambda x, y, g: choose(x.value > y.value, g, Series(0)),
    "ELU_SLOPE": lambda x, a, above: choose(x.value > 0, above, a * exp(x)),
    "POWER_SLOPE": lambda x, y, n: falling(y, n) * power(x, y - n),
    "POWER_LOG": lambda x, y, n: power(x, y) * power(log(x), n),
    "WEIGHTED_BCE_SLOPE": lambda x, y, w: (1 - y) * sigmoid(x) - w * y * sigmoid(-x),
}


def derivative(formula, x):
    """f'(x): the term of s in f(x + s), whose part in t**3 is a directional derivative of the fourth order. By
    differences of 60 digits, which leave more than 20."""
    h = D("1e-20")
    return (formula(x + h) - formula(x - h)) / (2 * h)


def along(formula, point, direction):
    """The third derivative along a direction."""
    return formula(*[Series(x, v) for x, v in zip(point, direction)]).terms[3] * 6


def expected_derivatives(formula, point, v, free):
    """By each operand of `free` the derivatives of f, of that along v, and of that along v again."""
    result = [[], [], []]
    for k in free:
        e = [D(int(j == k)) for j in range(len(point))]
        for order in (1, 2, 3):
            with decimal.localcontext(DIGITS):
                if order == 1:
                    x = formula(*[Series(a, b) for a, b in zip(point, e)]).terms[1]
                elif order == 2:   # D_v D_e by the squares of v + e and v - e
                    both = [formula(*[Series(a, b + s * c) for a, b, c in zip(point, v, e)]).terms[2] for s in (1, -1)]
                    x = (both[0] - both[1]) / 2
                else:
                    plus, minus = [along(formula, point, [b + s * c for b, c in zip(v, e)]) for s in (1, -1)]
                    x = (plus - minus - 2 * along(formula, point, e)) / 6
            result[order - 1].append(float(x))
    return result


# ---- ours ----

def zero_like(x):
    return Value(0.0) if type(x) is Value else Tensor(np.zeros(x.shape))


def written(output, inputs, gradient=None):
    """The gradients as Values or Tensors, 0 where there is none."""
    found = _core.written([output], [gradient], inputs)
    return [zero_like(x) if y is None else y for x, y in zip(inputs, found)]


def written_derivatives(apply, inputs, v):
    """As expected_derivatives, of Values or Tensors."""
    result, output = [], apply(*inputs)
    for _ in range(3):
        gradients = written(output, inputs)
        result.append(gradients)
        output = sum([(g if type(g) is Value else g.sum()) * float(c) for g, c in zip(gradients, v)], Value(0.0))
    return result


# ---- first derivatives: as the sweep has them ----

def differs_by_delta(op, point):
    """A delta of 0 or less, and nan, which losses.py does not take: there the slope is cut at -delta first."""
    return op == "HUBER" and not point[2] >= 0


def as_swept(got, expected):
    """To 4 units in the last place; a zero of either sign."""
    return got == expected or same(got, expected, 4)


@pytest.mark.parametrize("op", IDS)
def test_first_derivative_at_special_points(op):
    """Operands at kinks, edges, zeros of both signs, infinities and nan; no errors but the row's own."""
    checked = 0
    for point, upstream in itertools.product(special_operands(op), UPSTREAM):
        try:
            values, operands = split(op, point)
            z = ORACLE[op].apply(*operands)
        except (ArithmeticError, ValueError):
            continue
        if differs_by_delta(op, point) or ORACLE[op].order and not point[-1] <= 1024:
            continue
        g = Value(upstream)
        found = [x.data for x in written(z, values, g)]
        (z * g).backward()
        assert all(map(as_swept, found, [v.grad for v in values])), (op, point, upstream, found,
                                                                     [v.grad for v in values])
        checked += 1
    assert checked >= len(UPSTREAM) * 10


def columns_of(op):
    """The special points as columns, one for each operand, with the immediates that they have."""
    groups = {}
    for point in special_operands(op):
        if differs_by_delta(op, point) or ORACLE[op].order and not point[-1] <= 1024:
            continue
        immediate = (point[1],) if ORACLE[op].immediate else ()
        try:
            ORACLE[op].apply(*[Value(x) for x in point[:len(point) - len(immediate)]],
                             *[int(x) if op == "POWI" else x for x in immediate])
        except (ArithmeticError, ValueError):
            continue
        groups.setdefault(str(immediate), []).append(point)
    for points in groups.values():
        yield points


def map_ulps(op, numbers, points, upstream):
    """How far the kernels may be away: functions are within 2 units in the last place each, and derivatives by an
    exponent are sums. So is one of KL_DIV, log(y) + 1 - x, which may be far less than its terms."""
    if op == "KL_DIV":
        x, y = np.array(points).T
        numbers = upstream * (np.abs(x) + 1.0 + np.abs(np.log(y)) + np.abs(y))
        return 4 * np.spacing(np.abs(numbers))
    return (100 if ORACLE[op].order else 16 if ORACLE[op].libm else 0) * np.spacing(np.abs(numbers))


@pytest.mark.parametrize("op", IDS)
def test_first_derivative_of_instructions_at_special_points(op):
    """All special points as elements of tensors, and of ordinary ones, so that kernels are reached."""
    for points in columns_of(op):
        immediate = points[0][1:] if ORACLE[op].immediate else ()
        given = [int(x) if op == "POWI" else x for x in immediate]
        arity = ROWS[op]["arity"] if not immediate else 1
        for upstream in (1.0, -2.5):
            tensors = [Tensor([p[k] for p in points]) for k in range(arity)]
            z = ORACLE[op].apply(*tensors, *given)
            g = Tensor([upstream] * len(points), requires_grad=False)
            found = [x.data for x in written(z, tensors, g)]
            (z * g).sum().backward()
            for got, tensor in zip(found, tensors):
                expected = tensor.grad
                with np.errstate(all="ignore"):
                    near = (got == expected) | np.isnan(got) & np.isnan(expected) | np.isfinite(expected) & (
                        np.abs(got - expected) <= np.maximum(map_ulps(op, expected, points, upstream),
                                                             4 * np.spacing(np.abs(expected))))
                bad = np.flatnonzero(~near)
                assert not len(bad), (op, points[bad[0]], upstream, got[bad[0]], expected[bad[0]], len(bad))


# ---- second and third derivatives ----

LOW = {"LOG1P": [-0.8], "DIV": [-3, 0.3], "QUOTIENT": [-3, 0.3]}   # from which on numbers are drawn, if not from -3 on
BETWEEN = {"BINARY_CROSS_ENTROPY", "LOGIT"}                        # from 0 to 1
AWAY = 0.05                                                        # from kinks
KINK = {
    "ABS": lambda x: x, "RELU": lambda x: x, "SIGN": lambda x: x, "FLOOR": lambda x: x - round(x),
    "LEAKY_RELU": lambda x, y: x, "ELU": lambda x, y: x, "GATE": lambda x, y: x, "ELU_SLOPE": lambda x, y, w: x,
    "MAXIMUM": lambda x, y: x - y, "MINIMUM": lambda x, y: x - y, "ABSOLUTE_ERROR": lambda x, y: x - y,
    "LESS": lambda x, y: x - y, "LESS_EQUAL": lambda x, y: x - y, "EQUAL": lambda x, y: x - y,
    "SHARE": lambda x, y, w: x - y, "HINGE": lambda x, y: 1 - x * y, "HUBER": lambda x, y, w: abs(x - y) - w,
    "CLIP": lambda x, lo, hi: min(abs(x - lo), abs(x - hi), abs(lo - hi)),
    "TAN": lambda x: abs(math.cos(x)) - 0.2, "ATAN2": lambda y, x: abs(x), "COS": lambda x: 1.0,
    "POWI": lambda x, k: x, "POWC": lambda x, c: x, "ANGLE_SLOPE": lambda x, y: abs(x) + abs(y) - 0.2,
}


def ordinary_points(op, count, seed=1):
    """Points of the row's domain, away from kinks."""
    draw, arity, points = random.Random(f"{op} {seed}"), ROWS[op]["arity"], []
    while len(points) < count:
        point = []
        for k in range(max(arity, 1 + ORACLE[op].immediate)):
            low = LOW.get(op, [-3] * 3)[k] if k < arity else -3
            if k in ORACLE[op].positive or op in ("KL_DIV",) and k == 1 or op == "HUBER" and k == 2:
                low = 0.2
            point.append(draw.uniform(0.05, 0.95) if op in BETWEEN else draw.uniform(low, 3.0))
        if op == "POWI":
            point[1] = draw.choice([-3, -2, -1, 0, 1, 2, 3, 4, 7])
        if op == "POWC":
            point[1] = draw.choice([-1.5, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
        if ORACLE[op].order:
            point[2] = float(draw.choice([1, 2, 3] if op == "POWER_LOG" else [0, 1, 2, 3]))
        if op in KINK and abs(KINK[op](*point)) < AWAY or op == "POWER_LOG" and abs(point[0] - 1) < 0.2:
            continue
        points.append(tuple(point))
    return points


def free_operands(op):
    """Those with derivatives: not the orders, and the constants of powers."""
    return range(1 if ORACLE[op].immediate else ROWS[op]["arity"] - (1 if ORACLE[op].order else 0))


def assert_near(op, point, got, expected):
    for order, (ours, theirs) in enumerate(zip(got, expected, strict=True), 1):
        for x, y in zip(ours, theirs, strict=True):
            assert abs(x - y) <= 1e-9 * max(1.0, abs(y)), (op, point, order, x, y)


def checked_point(op, point, formula):
    """Compare the derivatives of one point; `v`: a direction."""
    free = free_operands(op)
    draw = random.Random(f"{op} {point}")
    v = [D(draw.randint(-8, 8)) / 4 + D("0.125") if k in free else D(0) for k in range(len(point))]
    rest = [int(point[1])] if op == "POWI" else list(point[len(free):])
    inputs = [Value(x) for x in point[:len(free)]]
    got = written_derivatives(lambda *x: ORACLE[op].apply(*x, *rest), inputs, v)
    assert_near(op, point, [[x.data for x in row] for row in got], expected_derivatives(formula, point, v, free))


def test_every_row_has_a_formula():
    assert set(FORMULAS) == set(IDS) == set(ROWS)


@pytest.mark.parametrize("op", IDS)
def test_second_and_third_derivatives(op):
    for point in ordinary_points(op, 40):
        checked_point(op, point, FORMULAS[op])


@pytest.mark.parametrize("op", [op for op in IDS if op not in CONSTANTS])
def test_the_check_catches_a_tenth_of_a_percent(op):
    """Of the formula, which is 0.1 % off in each of its derivatives."""
    def wrong(*x):
        terms = FORMULAS[op](*x).terms
        return Series(terms[0], terms[1], *[term * D("1.001") for term in terms[2:]])

    def first_wrong(*x):
        terms = FORMULAS[op](*x).terms
        return Series(terms[0], terms[1] * D("1.001"), *terms[2:])

    linear = op in ("COPY", "NEG", "ABS", "RELU", "ADD", "SUB", "MAXIMUM", "MINIMUM", "ABSOLUTE_ERROR", "WHERE", "CLIP",
                    "GATE", "SHARE")
    for formula in [first_wrong] + [wrong] * (not linear):
        with pytest.raises(AssertionError):
            for point in ordinary_points(op, 10):
                checked_point(op, point, formula)


@pytest.mark.parametrize("op", IDS)
def test_instructions_have_the_derivatives_of_their_elements(op):
    """Of tensors, of a tensor and a row, a column or a number, to the third derivative."""
    free, rest = free_operands(op), ()
    points = ordinary_points(op, 12, seed=2)
    if ORACLE[op].immediate:
        points = [p for p in ordinary_points(op, 200, seed=2) if p[1] == points[0][1]][:12]
        rest = (int(points[0][1]) if op == "POWI" else points[0][1],)
    elif ORACLE[op].order:
        rest = (2.0,)
    v = [0.75, -1.25, 0.5][:len(free)]
    columns = [np.array([p[k] for p in points]).reshape(3, -1) for k in free]
    shapes = [np.s_[:, :]] * len(free)
    for variant in range(1 + 3 * (len(free) > 1)):
        operands = list(columns)
        if variant:   # one operand is less than the others: it is repeated
            which = variant % len(free)
            operands[which] = columns[which][[np.s_[:1], np.s_[:, :1], np.s_[:1, :1]][variant - 1]]
        full = np.broadcast_arrays(*operands)
        if op in KINK and any(abs(KINK[op](*map(float, x), *rest)) < 0.01 for x in zip(*[a.ravel() for a in full])):
            continue
        tensors = [Tensor(x) for x in operands]
        values = [[Value(x) for x in np.ravel(a)] for a in operands]
        boxes = [np.broadcast_to(np.array(a, dtype=object).reshape(x.shape), full[0].shape)
                 for a, x in zip(values, operands)]
        got = written_derivatives(lambda *x: ORACLE[op].apply(*x, *rest).sum(), tensors, v)
        flat = [x for a in values for x in a]
        directions = [c for c, a in zip(v, values) for _ in a]

        def total(*_):
            return sum([ORACLE[op].apply(*point, *rest) for point in zip(*[b.flat for b in boxes])], Value(0.0))

        expected = written_derivatives(total, flat, directions)
        for ours, theirs in zip(got, expected):
            theirs = [x.data for x in theirs]
            for x in ours:
                mine = np.ravel(x.data)
                np.testing.assert_allclose(mine, theirs[:len(mine)], rtol=1e-10, atol=1e-10, err_msg=f"{op} {variant}")
                theirs = theirs[len(mine):]
            assert theirs == []
    assert shapes


@pytest.mark.parametrize("op", IDS)
def test_second_derivatives_against_differences(op):
    """Those of the sweep over the written gradient, against differences of the gradient."""
    free = free_operands(op)
    for point in ordinary_points(op, 3, seed=3):
        rest = [int(point[1])] if op == "POWI" else list(point[len(free):])
        flatgrad.gradgradcheck(lambda *x: ORACLE[op].apply(*x, *rest), tuple(point[:len(free)]), eps=1e-6, atol=1e-6,
                               rtol=1e-5)


# ---- no errors, and few nodes ----

@pytest.mark.parametrize("op", IDS)
def test_programs_of_derivatives_have_no_errors_of_their_own(op):
    """A program asks for the errors of its rows in every call: none where the row itself has none. Nor has one of the
    third derivatives; those of the first are the sweep's."""
    for points in columns_of(op):
        points = random.Random(op).sample(points, min(len(points), 60))
        immediate = [int(x) if op == "POWI" else x for x in points[0][1:]] if ORACLE[op].immediate else []
        apply, free = ORACLE[op].apply, free_operands(op)
        rest = immediate or [1.0] * ORACLE[op].order

        def first(*x):
            return written(apply(*x, *rest), x)

        def third(*x):
            return written_derivatives(lambda *y: apply(*y, *rest), x, [1.0] * len(x))[2]

        for f in (first, third):
            program = flatgrad.compile(f)
            program(*(points[0] if immediate else ordinary_points(op, 1)[0])[:len(free)])   # recorded here
            for point in points:
                x = [Value(a) for a in point[:len(free)]]
                with np.errstate(all="ignore"):
                    got = [y.data for y in program(*point[:len(free)])]
                if f is first:
                    apply(*x, *rest).backward()
                    assert all(map(as_swept, got, [v.grad for v in x])), (op, point, got, [v.grad for v in x])


NODES = {"COPY": 0, "NEG": 1, "EXP": 1, "RELU": 1, "TANH": 1, "SIGMOID": 1, "ADD": 0, "SUB": 1, "MUL": 2, "MAXIMUM": 2,
         "MINIMUM": 2, "GATE": 1, "SIN": 2, "GELU": 2, "SILU": 2, "SOFTPLUS": 2, "SQRT": 2, "LOG": 1, "DIV": 4}


@pytest.mark.parametrize("op", NODES)
def test_common_derivatives_are_few_nodes(op):
    """Which a graph with create_graph keeps. (The last is a copy for each result.)"""
    values, operands = split(op, ordinary_points(op, 1)[0][:ROWS[op]["arity"]])
    z, g = ORACLE[op].apply(*operands), Value(2.0) * 1.0
    flatgrad.collect()
    before = flatgrad.stats()["nodes"]
    kept = _core.written([z], [g], values)
    copies = sum([y is not None and y._op == "copy" for y in kept])
    assert flatgrad.stats()["nodes"] - before - copies == NODES[op]


# ---- kinks ----

APPLY = {op: ORACLE[op].apply for op in IDS}
KINKS = [   # row, operands, by which of them: the first, second and third derivative
    ("RELU", (0.0,), 0, (0.0, 0.0, 0.0)),
    ("RELU", (-0.0,), 0, (0.0, 0.0, 0.0)),
    ("RELU", (2.0,), 0, (1.0, 0.0, 0.0)),
    ("RELU", (NAN,), 0, (0.0, 0.0, 0.0)),
    ("ABS", (0.0,), 0, (0.0, 0.0, 0.0)),
    ("ABS", (NAN,), 0, (0.0, 0.0, 0.0)),
    ("FLOOR", (2.0,), 0, (0.0, 0.0, 0.0)),
    ("LEAKY_RELU", (0.0, 0.01), 0, (0.01, 0.0, 0.0)),
    ("LEAKY_RELU", (0.0, 0.01), 1, (0.0, 0.0, 0.0)),
    ("ELU", (0.0, 1.5), 0, (1.5, 1.5, 1.5)),      # of the branch alpha * (exp(x) - 1)
    ("ELU", (0.0, 1.5), 1, (0.0, 0.0, 0.0)),
    ("ELU", (-INF, 1.5), 0, (0.0, 0.0, 0.0)),
    ("MAXIMUM", (1.0, 1.0), 0, (0.5, 0.0, 0.0)),
    ("MAXIMUM", (1.0, 1.0), 1, (0.5, 0.0, 0.0)),
    ("MAXIMUM", (NAN, 1.0), 1, (1.0, 0.0, 0.0)),
    ("MINIMUM", (1.0, 1.0), 0, (0.5, 0.0, 0.0)),
    ("MINIMUM", (1.0, 1.0), 1, (0.5, 0.0, 0.0)),
    ("CLIP", (1.0, 1.0, 2.0), 0, (1.0, 0.0, 0.0)),
    ("CLIP", (2.0, 1.0, 2.0), 0, (1.0, 0.0, 0.0)),
    ("CLIP", (1.0, 1.0, 2.0), 1, (0.0, 0.0, 0.0)),
    ("CLIP", (2.0, 1.0, 2.0), 2, (0.0, 0.0, 0.0)),
    ("HUBER", (1.0, 0.0, 1.0), 0, (1.0, 1.0, 0.0)),   # |x - y| = delta is of the parabola
    ("HUBER", (0.0, 1.0, 1.0), 0, (-1.0, 1.0, 0.0)),
    ("HUBER", (1.0, 0.0, 1.0), 2, (0.0, 0.0, 0.0)),
    ("HUBER", (2.0, 0.0, 1.0), 0, (1.0, 0.0, 0.0)),
    ("HINGE", (1.0, 1.0), 0, (0.0, 0.0, 0.0)),
    ("ABSOLUTE_ERROR", (1.0, 1.0), 0, (0.0, 0.0, 0.0)),
    ("WHERE", (0.0, 3.0, 4.0), 0, (0.0, 0.0, 0.0)),
    ("ATAN2", (0.0, 0.0), 0, (0.0, 0.0, 0.0)),
    ("ATAN2", (0.0, 0.0), 1, (0.0, 0.0, 0.0)),
    ("SQRT", (0.0,), 0, (INF, -INF, INF)),
    ("SQRT", (INF,), 0, (0.0, 0.0, 0.0)),
    ("EXP", (-INF,), 0, (0.0, 0.0, 0.0)),
    ("LOG", (INF,), 0, (0.0, -0.0, 0.0)),
    ("TANH", (INF,), 0, (0.0, 0.0, 0.0)),
    ("SIGMOID", (-1000.0,), 0, (0.0, 0.0, 0.0)),
    ("SOFTPLUS", (1000.0,), 0, (1.0, 0.0, 0.0)),
    ("SOFTPLUS", (-1000.0,), 0, (0.0, 0.0, 0.0)),
    ("GELU", (1e100,), 0, (1.0, 0.0, 0.0)),
    ("GELU", (-1e100,), 0, (0.0, 0.0, 0.0)),
    ("SILU", (1e200,), 0, (1.0, 0.0, 0.0)),
    ("ERF", (1e200,), 0, (0.0, 0.0, 0.0)),
    ("BCE_WITH_LOGITS", (1000.0, 1.0), 0, (0.0, 0.0, 0.0)),
    ("BCE_WITH_LOGITS", (-1000.0, 1.0), 0, (-1.0, 0.0, 0.0)),
    ("KL_DIV", (0.5, 0.0), 0, (0.0, 0.0, 0.0)),
    ("POWI", (0.0, 2), 0, (0.0, 2.0, 0.0)),
    ("POWI", (0.0, 1), 0, (1.0, 0.0, 0.0)),
    ("POWI", (0.0, 3), 0, (0.0, 0.0, 6.0)),
    ("POWI", (0.0, 4), 0, (0.0, 0.0, 0.0)),
    ("POWC", (0.0, 2.0), 0, (0.0, 2.0, 0.0)),
    ("POWC", (0.0, 0.5), 0, (INF, -INF, INF)),
    ("POWC", (0.0, 2.5), 0, (0.0, 0.0, INF)),
    ("POW", (0.0, 0.0), 0, (0.0, 0.0, 0.0)),
    ("POW", (0.0, 1.0), 0, (1.0, 0.0, 0.0)),
    ("POW", (0.0, 2.0), 0, (0.0, 2.0, 0.0)),
    ("POW", (0.0, 3.0), 0, (0.0, 0.0, 6.0)),
    ("POW", (0.0, 2.0), 1, (0.0, 0.0, 0.0)),
    ("POW", (0.0, 0.0), 1, (0.0, 0.0, 0.0)),
    ("POW", (-2.0, 2.0), 0, (-4.0, 2.0, 0.0)),
]


@pytest.mark.parametrize("op, point, by, expected", KINKS, ids=[f"{op}{point}" for op, point, *_ in KINKS])
def test_kinks_and_edges(op, point, by, expected):
    values, operands = split(op, point)
    x, z, got = values[by], APPLY[op](*operands), []
    for _ in range(3):
        (z,) = written(z, [x])
        got.append(z.data)
    assert all(map(as_swept, got, expected)), (got, expected)
