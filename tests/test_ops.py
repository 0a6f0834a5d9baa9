"""Every row of csrc/ops.def: values, errors and gradients, at ordinary and at special points.

The oracle is Python's own arithmetic and `math` for values and errors, hand-written derivatives
(evaluated by NumPy, whose division has no exceptions) and finite differences for gradients. A row
without an entry in ORACLE fails `test_every_row_has_an_oracle`.
"""
import inspect
import itertools
import math
from functools import partial

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core

INF, NAN = math.inf, math.nan
F = np.float64


class Oracle:
    """What one row should do.

    apply: the operation on Values (or numbers); value: the same on floats, raising Python's errors;
    partials: the derivatives at float64 operands, given the result; points: ordinary operands for
    finite differences, away from kinks; ulps: how far from `value` the result may be; whole: an integer that
    every operand may be; positive: which operands have to be positive in random data; libm: whether it is made of
    functions of the C library, so that the kernels of two levels may differ by 2 ulps; order: whether the last operand
    is one, which has no derivative.
    """

    def __init__(self, apply, value, partials, points, ulps=0, immediate=False, whole=2, positive=(), libm=False,
                 order=False):
        self.apply, self.value, self.partials = apply, value, partials
        self.points, self.ulps, self.immediate, self.whole = points, ulps, immediate, whole
        self.positive, self.libm, self.order = positive, libm, order


def real_power(x, y):
    if -INF < x < 0 and math.isfinite(y) and y != int(y):
        raise ValueError("complex in Python")
    return x**y


def power_dx(x, y):
    return F(0) if y == 0 else y * x ** (y - 1)


def power_dy(x, y, z):
    return F(0) if x == 0 and y >= 0 else z * np.log(x)


def sign(x):
    return F(int(x > 0) - int(x < 0))   # 0 at nan as well


def larger(x, y):
    return NAN if math.isnan(x) or math.isnan(y) else max(x, y)


def smaller(x, y):
    return NAN if math.isnan(x) or math.isnan(y) else min(x, y)


def share(wins, ties, nans):
    """The gradient of maximum: all to the larger, half each when equal, all to both beside a nan."""
    return F(1) if wins or nans else F(0.5) if ties else F(0)


def either_nan(*operands):
    return any(math.isnan(x) for x in operands)


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else math.exp(x)


def normal_cdf(x):
    return 0.5 * math.erfc(-x * math.sqrt(0.5))


def gelu_logit(x):
    """(1 + tanh(u)) / 2 is sigmoid(2 * u), in which nothing cancels."""
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


def dgelu_tanh(x):
    s = sigmoid(gelu_logit(x))
    return s + x * s * (1 - s) * 2 * math.sqrt(2 / math.pi) * (1 + 0.134145 * x**2)


def softplus(x):
    return x if math.isnan(x) else max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def expm1(x):
    """math.expm1 where it does not overflow."""
    return INF if x >= 700 else math.expm1(x)


def logarithm(x):
    return math.log(x) if x > 0 else -INF if x == 0 else NAN


def log_sigmoid(x):
    return (x if x < 0 else 0.0) - math.log1p(math.exp(-abs(x)))


def binary_cross_entropy(x, y):
    if not (0 <= x <= 1 or math.isnan(x)) or not (0 <= y <= 1 or math.isnan(y)):
        raise ValueError("no probability")
    return (y - 1) * larger(math.log1p(-x) if x < 1 else NAN if math.isnan(x) else -INF, -100.0) - y * larger(
        logarithm(x), -100.0)


def binary_cross_entropy_partials(x, y, z):
    return [(x - y) / F(larger((1 - x) * x, float(np.float32(1e-12)))), np.log1p(-x) - np.log(x)]


def datan2(x, y):
    """x / (x**2 + y**2), and 0 at (0, 0)."""
    return F(0) if x == y == 0 else x / np.hypot(x, y) / np.hypot(x, y)


def unlikely(x):
    """The smaller of sigmoid(x) and sigmoid(-x), whose difference to 0 or 1 is not rounded away."""
    return np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))


def weighted_bce_with_logits(x, y, w):
    """(1 - y) * x - (1 + (w - 1) * y) * log_sigmoid(x), in which x <= 0 does not cancel."""
    return ((1 - y) * x if x > 0 else -w * y * x) + ((w - 1) * y + 1) * math.log1p(math.exp(-abs(x)))


def weighted_bce_with_logits_partials(x, y, w, z):
    factor = (w - 1) * y + 1
    return [(1 - y) - factor * unlikely(x) if x > 0 else factor * unlikely(x) - w * y,
            -x - (w - 1) * log_sigmoid(x), -y * log_sigmoid(x)]


def kl_div(x, y):
    if y < 0:
        raise ValueError("no probability")
    return (0.0 if y == 0 else y * logarithm(y)) - y * x


def huber(x, y, delta):
    e = abs(x - y)
    return 0.5 * e * e if e <= delta else delta * (e - 0.5 * delta)


def huber_partials(x, y, delta, z):
    e = x - y
    slope = delta if e > delta else -delta if e < -delta else e
    return [slope, -slope, F(0) if abs(e) <= delta else abs(e) - delta]


# Of rows for derivatives, which have a result for all operands as IEEE numbers do.

def quiet(function):
    """The same of float64 numbers, whose arithmetic has no errors."""
    def result(*operands):
        with np.errstate(all="ignore"):
            return float(function(*map(F, operands)))
    return result


def stable_sigmoid(x):
    return np.where(x > 0, 1 / (1 + np.exp(-np.abs(x))), unlikely(x))


def dgelu(x):
    return normal_cdf(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def d2gelu(x):
    return (0 if abs(x) > 1e100 and math.isfinite(x) else 2 - x * x) * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def d2gelu_tanh(x):
    """By the product rule, with (x * sigmoid(u))'' = 2 s' u' + x (s'' u'**2 + s' u'')."""
    u, a = gelu_logit(x), 2 * math.sqrt(2 / math.pi)
    du, d2u = a * (1 + 3 * 0.044715 * x * x), a * 6 * 0.044715 * x
    ds = unlikely(u) * (1 - unlikely(u))
    return ds * (2 * du + x * d2u - x * np.tanh(u / 2) * du**2)


def d2silu(x):
    s = unlikely(x)
    return s * (1 - s) * (2 - x * np.tanh(x / 2))


def libm_power(x, y):
    """pow of the C library, which has no errors; NumPy takes square roots of its own."""
    try:
        return F(math.pow(x, y))
    except OverflowError:
        return F(-INF if x < 0 and y % 2 == 1 else INF)
    except ValueError:
        return F(math.copysign(INF, x) if x == 0 and y % 2 == 1 else INF if x == 0 else NAN)


def how_many(order):
    return math.ceil(order) if 0 < order <= 1024 else 0


def falling(y, order, start=1):
    """start * y * (y - 1) * ..., of factors for 0, 1, 2 ... below the order, at most 1024."""
    return F(math.prod([y - i for i in range(how_many(order))], start=start)) if not order > 1024 else F(NAN)


def power_slope(x, y, order):
    factors = falling(y, order)
    return F(0) if factors == 0 else falling(y, order, libm_power(x, y - order))


def power_slope_dy(x, y, order):
    """With the factors' derivative as the sum of their products without one of them."""
    n = how_many(order)
    slope = F(sum([math.prod([y - j for j in range(n) if j != i]) for i in range(n)]))
    by_power = (falling(y, order) if order <= 1024 else F(NAN)) * power_log(x, y - order, 1.0)
    return slope * libm_power(x, y - order) + by_power if order > 0 else by_power


def power_log(x, y, order):
    return F(0) if x == 0 and y >= 0 else libm_power(x, y) * libm_power(np.log(x), order)


def power_log_dx(x, y, order):
    lower = libm_power(x, y - 1) if order == 1 else power_log(x, y - 1, order - 1)
    return y * power_log(x, y - 1, order) + order * lower


def angle_slope_partials(x, y, z):
    """In polar coordinates cos(t) / r has the derivatives -cos(2t) / r**2 and -sin(2t) / r**2."""
    across, along = datan2(x, y), datan2(y, x)
    return [(along - across) * (along + across), -2 * across * along]


def weighted_bce_slope(x, y, w):
    return weighted_bce_with_logits_partials(x, y, w, None)[0]


ONE = [0.3, 1.7, -0.8, 2.5, -3.25]
POSITIVE = [0.3, 1.7, 12.5]
TWO = [(0.3, 1.7), (-2.5, 0.4), (3.0, -1.25), (-0.7, -6.0)]

ORACLE = {
    "NEG": Oracle(lambda x: -x, lambda x: -x, lambda x, z: [F(-1)], ONE),
    "COPY": Oracle(partial(_core._apply, "COPY"), lambda x: x, lambda x, z: [F(1)], ONE),
    "RELU": Oracle(flatgrad.relu, lambda x: 0.0 if x < 0 else x,
                   lambda x, z: [F(1) if z > 0 else F(0)], ONE),
    "TANH": Oracle(flatgrad.tanh, math.tanh, lambda x, z: [1 - z * z], ONE, ulps=1, libm=True),
    "SIGMOID": Oracle(flatgrad.sigmoid, sigmoid, lambda x, z: [z * (1 - z)], ONE, ulps=1, libm=True),
    "EXP": Oracle(flatgrad.exp, math.exp, lambda x, z: [z], ONE, ulps=1, libm=True),
    "LOG": Oracle(flatgrad.log, math.log, lambda x, z: [1 / x], POSITIVE, ulps=1, positive=(0,), libm=True),
    "LOG1P": Oracle(flatgrad.log1p, math.log1p, lambda x, z: [1 / (1 + x)], [0.3, 1.7, -0.8, 12.5], ulps=1,
                    positive=(0,), libm=True),
    "EXPM1": Oracle(flatgrad.expm1, math.expm1, lambda x, z: [z + 1], ONE, ulps=1, libm=True),
    "SQRT": Oracle(flatgrad.sqrt, math.sqrt, lambda x, z: [1 / (2 * z)], POSITIVE, positive=(0,)),
    "SIN": Oracle(flatgrad.sin, math.sin, lambda x, z: [np.cos(x)], ONE, ulps=1, libm=True),
    "COS": Oracle(flatgrad.cos, math.cos, lambda x, z: [-np.sin(x)], ONE, ulps=1, libm=True),
    "TAN": Oracle(flatgrad.tan, math.tan, lambda x, z: [1 + z * z], ONE, ulps=1, libm=True),
    "SINH": Oracle(flatgrad.sinh, math.sinh, lambda x, z: [np.cosh(x)], ONE, ulps=1, libm=True),
    "COSH": Oracle(flatgrad.cosh, math.cosh, lambda x, z: [np.sinh(x)], ONE, ulps=1, libm=True),
    "ERF": Oracle(flatgrad.erf, math.erf, lambda x, z: [2 / np.sqrt(np.pi) * np.exp(-x * x)], ONE, ulps=1, libm=True),
    "FLOOR": Oracle(flatgrad.floor, lambda x: float(np.floor(x)), lambda x, z: [F(0)], ONE),
    "ABS": Oracle(flatgrad.abs, abs, lambda x, z: [sign(x)], ONE),
    "GELU": Oracle(flatgrad.gelu, lambda x: 0.5 * x * math.erfc(-x * math.sqrt(0.5)),  # normal_cdf may be subnormal
                   lambda x, z: [normal_cdf(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)], ONE, ulps=16,
                   libm=True),
    "GELU_TANH": Oracle(flatgrad.gelu_tanh, lambda x: x * sigmoid(gelu_logit(x)),
                        lambda x, z: [dgelu_tanh(x)], ONE, ulps=16, libm=True),
    "SILU": Oracle(flatgrad.silu, lambda x: x * sigmoid(x),
                   lambda x, z: [sigmoid(x) * (1 + x * (1 - sigmoid(x)))], ONE, ulps=2, libm=True),
    "SOFTPLUS": Oracle(flatgrad.softplus, softplus, lambda x, z: [sigmoid(x)], ONE, ulps=1, libm=True),
    "LEAKY_RELU": Oracle(flatgrad.leaky_relu, lambda x, y: x if x > 0 else y * x,
                         lambda x, y, z: [F(1) if x > 0 else y, F(0) if x > 0 else x], TWO),
    "ELU": Oracle(flatgrad.elu, lambda x, y: x if x > 0 else y * expm1(x),
                  lambda x, y, z: [F(1) if x > 0 else y * np.exp(x), F(0) if x > 0 else F(expm1(x))], TWO, ulps=1,
                  libm=True),
    "ADD": Oracle(lambda x, y: x + y, lambda x, y: x + y, lambda x, y, z: [F(1), F(1)], TWO),
    "SUB": Oracle(lambda x, y: x - y, lambda x, y: x - y, lambda x, y, z: [F(1), F(-1)], TWO),
    "MUL": Oracle(lambda x, y: x * y, lambda x, y: x * y, lambda x, y, z: [y, x], TWO),
    "DIV": Oracle(lambda x, y: x / y, lambda x, y: x / y,
                  lambda x, y, z: [1 / y, -(x / y) / y], TWO, ulps=1),
    "SQUARED_ERROR": Oracle(partial(_core._apply, "SQUARED_ERROR"), lambda x, y: (x - y) * (x - y),
                            lambda x, y, z: [2 * (x - y), -2 * (x - y)], TWO),
    "HINGE": Oracle(partial(_core._apply, "HINGE"), lambda x, y: 0.0 if 1 - x * y < 0 else 1 - x * y,
                    lambda x, y, z: [F(z > 0) * -y, F(z > 0) * -x], TWO),
    "ABSOLUTE_ERROR": Oracle(partial(_core._apply, "ABSOLUTE_ERROR"), lambda x, y: abs(x - y),
                             lambda x, y, z: [sign(x - y), -sign(x - y)], TWO),
    "BINARY_CROSS_ENTROPY": Oracle(partial(_core._apply, "BINARY_CROSS_ENTROPY"), binary_cross_entropy,
                                   binary_cross_entropy_partials, [(0.3, 0.8), (0.9, 0.25), (0.5, 0.6)], whole=1,
                                   libm=True),
    "BCE_WITH_LOGITS": Oracle(partial(_core._apply, "BCE_WITH_LOGITS"),
                              lambda x, y: ((1 - y) * x if x > 0 else -y * x) + math.log1p(math.exp(-abs(x))),
                              lambda x, y, z: [(1 - y) - unlikely(x) if x > 0 else unlikely(x) - y, -x], TWO,
                              libm=True),
    "KL_DIV": Oracle(partial(_core._apply, "KL_DIV"), kl_div,
                     lambda x, y, z: [-y, np.log(y) + y / y - x], [(-0.3, 1.7), (-2.5, 0.4), (3.0, 1.25)],
                     positive=(1,), libm=True),
    "KL_DIV_LOG": Oracle(partial(_core._apply, "KL_DIV_LOG"), lambda x, y: math.exp(y) * (y - x),
                         lambda x, y, z: [-np.exp(y), z + np.exp(y)], TWO, libm=True),
    "HUBER": Oracle(partial(_core._apply, "HUBER"), huber, huber_partials,
                    [(0.3, 1.7, 1.0), (0.3, 0.5, 1.0), (-2.5, 0.4, 0.7), (3.0, 2.5, 2.0)]),
    "WEIGHTED_BCE_WITH_LOGITS": Oracle(partial(_core._apply, "WEIGHTED_BCE_WITH_LOGITS"),
                                       weighted_bce_with_logits, weighted_bce_with_logits_partials,
                                       [(0.3, 1.7, 2.0), (-2.5, 0.4, 0.7), (3.0, 0.8, 1.5), (-0.7, 1.0, 3.0)],
                                       libm=True),
    "POW": Oracle(lambda x, y: x**y, real_power,
                  lambda x, y, z: [power_dx(x, y), power_dy(x, y, z)],
                  [(0.3, 1.7), (2.5, -0.4), (3.0, 2.0), (7.5, 3.0)], ulps=1, positive=(0,), libm=True),
    # The two below have one operand and a constant; the constant comes from the point.
    "POWC": Oracle(lambda x, c: x**c, real_power, lambda x, c, z: [power_dx(x, F(c))],
                   [(0.3, 1.7), (2.5, -0.5), (3.0, 2.0), (-3.0, 3.0)], ulps=1, immediate=True,
                   positive=(0,), libm=True),
    "POWI": Oracle(lambda x, k: x ** int(k), real_power, lambda x, k, z: [power_dx(x, F(k))],
                   [(0.3, 2), (-2.5, 3), (3.0, -1), (-1.5, -2), (1.25, 7), (0.5, 1), (0.5, 0)],
                   ulps=1, immediate=True, libm=True),
    "MAXIMUM": Oracle(flatgrad.maximum, larger,
                      lambda x, y, z: [share(x > y, x == y, either_nan(x, y)),
                                       share(y > x, x == y, either_nan(x, y))], TWO),
    "MINIMUM": Oracle(flatgrad.minimum, smaller,
                      lambda x, y, z: [share(x < y, x == y, either_nan(x, y)),
                                       share(y < x, x == y, either_nan(x, y))], TWO),
    "ATAN2": Oracle(flatgrad.atan2, math.atan2,
                    lambda y, x, z: [datan2(x, y), -datan2(y, x)], TWO, ulps=1, libm=True),
    "WHERE": Oracle(flatgrad.where, lambda c, x, y: x if c != 0 else y,
                    lambda c, x, y, z: [F(0), F(c != 0), F(c == 0)],
                    [(1.0, 0.3, 1.7), (0.0, 0.3, 1.7), (-2.0, 4.0, 5.0)]),
    "CLIP": Oracle(flatgrad.clip, lambda x, lo, hi: smaller(larger(x, lo), hi),
                   lambda x, lo, hi, z: [F(lo <= x <= hi), F(x < lo < hi), F(x > hi or hi < lo)],
                   [(0.3, -1.0, 1.0), (-3.0, -1.0, 1.0), (2.5, -1.0, 1.0), (0.5, 2.0, 1.0)]),
    "SIGN": Oracle(partial(_core._apply, "SIGN"), lambda x: float(sign(x)), lambda x, z: [F(0)], ONE),
    "LOGARITHM": Oracle(partial(_core._apply, "LOGARITHM"), quiet(np.log), lambda x, z: [1 / x], POSITIVE, ulps=1,
                        positive=(0,), libm=True),
    "LOGIT": Oracle(partial(_core._apply, "LOGIT"), quiet(lambda x: np.log(x) - np.log1p(-x)),
                    lambda x, z: [1 / (x * (1 - x))], [0.3, 0.8, 0.55], ulps=1, whole=0.25, libm=True),
    "LOGISTIC_DENSITY": Oracle(partial(_core._apply, "LOGISTIC_DENSITY"),
                               quiet(lambda x: unlikely(x) * (1 - unlikely(x))),
                               lambda x, z: [-np.tanh(x / 2) * unlikely(x) * (1 - unlikely(x))], ONE, ulps=4,
                               libm=True),
    "GELU_SLOPE": Oracle(partial(_core._apply, "GELU_SLOPE"), quiet(dgelu), lambda x, z: [d2gelu(x)], ONE, ulps=16,
                         libm=True),
    "GELU_TANH_SLOPE": Oracle(partial(_core._apply, "GELU_TANH_SLOPE"), quiet(dgelu_tanh),
                              lambda x, z: [d2gelu_tanh(x)], ONE, ulps=16, libm=True),
    "SILU_SLOPE": Oracle(partial(_core._apply, "SILU_SLOPE"), quiet(lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x)))),
                         lambda x, z: [d2silu(x)], ONE, ulps=4, libm=True),
    "QUOTIENT": Oracle(partial(_core._apply, "QUOTIENT"), quiet(lambda x, y: x / y),
                       lambda x, y, z: [1 / y, -(x / y) / y], TWO),
    "GATE": Oracle(partial(_core._apply, "GATE"), lambda x, y: float(x > 0) * y,
                   lambda x, y, z: [F(0), F(x > 0)], TWO),
    "LESS": Oracle(partial(_core._apply, "LESS"), lambda x, y: float(x < y), lambda x, y, z: [F(0), F(0)], TWO),
    "LESS_EQUAL": Oracle(partial(_core._apply, "LESS_EQUAL"), lambda x, y: float(x <= y),
                         lambda x, y, z: [F(0), F(0)], TWO),
    "EQUAL": Oracle(partial(_core._apply, "EQUAL"), lambda x, y: float(x == y or math.isnan(x) and math.isnan(y)),
                    lambda x, y, z: [F(0), F(0)], TWO),
    "TANH_SLOPE": Oracle(partial(_core._apply, "TANH_SLOPE"), lambda x, y: (1 - x * x) * y,
                         lambda x, y, z: [-2 * x * y, 1 - x * x], TWO),
    "SIGMOID_SLOPE": Oracle(partial(_core._apply, "SIGMOID_SLOPE"), lambda x, y: x * (1 - x) * y,
                            lambda x, y, z: [(1 - 2 * x) * y, x * (1 - x)], TWO),
    "ANGLE_SLOPE": Oracle(partial(_core._apply, "ANGLE_SLOPE"), quiet(datan2), angle_slope_partials, TWO, ulps=4,
                          libm=True),
    "BCE_SLOPE": Oracle(partial(_core._apply, "BCE_SLOPE"),
                        quiet(lambda x, y: (1 - y) - unlikely(x) if x > 0 else unlikely(x) - y),
                        lambda x, y, z: [unlikely(x) * (1 - unlikely(x)), F(-1)], TWO, libm=True),
    "SHARE": Oracle(partial(_core._apply, "SHARE"),
                    quiet(lambda x, y, w: 0.0 if x < y else w / 2 if x == y else w),
                    lambda x, y, w, z: [F(0), F(0), share(x > y, x == y, either_nan(x, y))],
                    [(0.3, 1.7, 2.0), (1.7, 0.3, 2.0), (2.5, 0.5, -3.0), (0.7, -6.0, 0.4)]),
    "ELU_SLOPE": Oracle(partial(_core._apply, "ELU_SLOPE"), quiet(lambda x, y, w: w if x > 0 else y * np.exp(x)),
                        lambda x, y, w, z: [F(0) if x > 0 else y * np.exp(x), F(0) if x > 0 else np.exp(x),
                                            F(x > 0)],
                        [(0.3, 1.7, 1.0), (-2.5, 0.4, 1.0), (-0.3, 2.0, 0.0)], libm=True),
    "POWER_SLOPE": Oracle(partial(_core._apply, "POWER_SLOPE"), quiet(power_slope),
                          lambda x, y, n, z: [power_slope(x, y, n + 1), power_slope_dy(x, y, n), F(0)],
                          [(0.3, 1.7, 1.0), (2.5, -0.4, 2.0), (3.0, 2.0, 1.0), (7.5, 3.5, 0.0)], ulps=2,
                          positive=(0,), libm=True, order=True),
    "POWER_LOG": Oracle(partial(_core._apply, "POWER_LOG"), quiet(power_log),
                        lambda x, y, n, z: [power_log_dx(x, y, n), power_log(x, y, n + 1), F(0)],
                        [(0.3, 1.7, 1.0), (2.5, -0.4, 2.0), (3.0, 2.0, 1.0), (7.5, 3.5, 3.0)], ulps=1,
                        positive=(0,), libm=True, order=True),
    "WEIGHTED_BCE_SLOPE": Oracle(partial(_core._apply, "WEIGHTED_BCE_SLOPE"), quiet(weighted_bce_slope),
                                 lambda x, y, w, z: [((w - 1) * y + 1) * unlikely(x) * (1 - unlikely(x)),
                                                     -stable_sigmoid(x) - w * stable_sigmoid(-x),
                                                     -y * stable_sigmoid(-x)],
                                 [(0.3, 1.7, 2.0), (-2.5, 0.4, 0.7), (3.0, 0.8, 1.5), (-0.7, 1.0, 3.0)], libm=True),
}

# Block instructions, leaves and nodes that users make have rules of their own: no arity, or none.
ROWS = {row["id"]: row for row in _core._operations() if row["arity"] > 0}
IDS = [i for i in ROWS if i in ORACLE]

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 3.0, -3.0, 2.5, 1e-200, 1e200, -1e200, 5e-324,
           1.7976931348623157e308, 709.0, 710.0, -750.0, 40.0, INF, -INF, NAN]
ORDERS = [0.0, 1.0, 2.0, 3.0, 7.0, 1e200, NAN]
INTEGERS = [0, 1, 2, 3, -1, -2, -3, 7, 64, -1023, 2**31 - 1, -(2**31) + 1]


def arity(op):
    return ROWS[op]["arity"]


def same(a, b, ulps):
    """Equal as IEEE numbers, the sign of zero included, or within `ulps`."""
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    if a == b:
        return a != 0 or math.copysign(1, a) == math.copysign(1, b)
    return not math.isinf(a) and not math.isinf(b) and abs(a - b) <= ulps * max(math.ulp(a), math.ulp(b))


def outcome(function, *operands):
    """The result, or the type of the error."""
    try:
        return function(*operands)
    except (ArithmeticError, ValueError) as error:
        return type(error)


def special_operands(op):
    if ORACLE[op].immediate:
        return itertools.product(SPECIAL, INTEGERS if op == "POWI" else SPECIAL)
    if ORACLE[op].order:
        return itertools.product(SPECIAL, SPECIAL, ORDERS)
    return itertools.product(*[SPECIAL if arity(op) < 3 else SPECIAL[::2] + [NAN]] * arity(op))


def split(op, point):
    """(Values for the differentiable operands, all operands to apply)."""
    point = point if isinstance(point, tuple) else (point,)
    if ORACLE[op].immediate:
        x = Value(point[0])
        return [x], [x, int(point[1]) if op == "POWI" else float(point[1])]
    values = [Value(x) for x in point]
    return values, values


def gradients(op, point):
    values, operands = split(op, point)
    z = ORACLE[op].apply(*operands)
    z.backward()
    return [v.grad for v in values]


# ---- the table is whole ----

def test_every_row_has_an_oracle():
    assert set(ORACLE) == set(ROWS)


@pytest.mark.parametrize("op", IDS)
def test_row_is_described(op):
    row = ROWS[op]
    assert row["formula"]
    operands = [1.5, 2] if ORACLE[op].immediate else [float(ORACLE[op].whole)] * arity(op)
    z = ORACLE[op].apply(*[Value(operands[0]), *operands[1:]])
    assert type(z) is Value
    values, operands = split(op, ORACLE[op].points[0])
    z = ORACLE[op].apply(*operands)
    assert z._prev == set(values)
    assert z._op == row["symbol"] + (f"{operands[1]}" if ORACLE[op].immediate else "")
    if row["public"]:
        function = getattr(flatgrad, row["name"])
        assert row["formula"] in function.__doc__ and row["edge"] in function.__doc__
        assert f">>> z = flatgrad.{row['name']}(" in function.__doc__   # which test_package.py runs
        assert function.__text_signature__ == (
            f"({row['operands']}, /)" if row["default"] is None else f"({row['operands']}={row['default']})")
        assert hasattr(Value, row["name"]) == (row["arity"] == 1 or row["default"] is not None)


# ---- values and errors ----

@pytest.mark.parametrize("op", IDS)
def test_value_at_special_points(op):
    """Python's result to the last bit (or ulp), or Python's error, with nothing left on the tape."""
    oracle = ORACLE[op]
    flatgrad.collect()
    before = flatgrad.stats()["nodes"]
    for point in special_operands(op):
        expected = outcome(oracle.value, *point)
        got = outcome(lambda *p: oracle.apply(*split(op, p)[1]).data, *point)
        if isinstance(expected, type):
            assert got is expected, (op, point, got, expected)
        else:
            assert not isinstance(got, type), (op, point, got, expected)
            assert same(got, expected, oracle.ulps), (op, point, got, expected)
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] == before


@pytest.mark.parametrize("op", [i for i in IDS if not ORACLE[i].immediate])
def test_numbers_as_operands(op):
    """Any operand may be a plain float or int; the result is the same."""
    apply = ORACLE[op].apply
    for point in ORACLE[op].points + [(float(ORACLE[op].whole),) * arity(op)]:
        point = point if isinstance(point, tuple) else (point,)
        expected = apply(*[Value(x) for x in point]).data
        for which in itertools.product([False, True], repeat=arity(op)):
            if not any(which) and not ROWS[op]["public"]:
                continue  # Python's own operators on numbers
            got = apply(*[Value(x) if is_value else x for x, is_value in zip(point, which)])
            assert type(got) is Value and same(got.data, expected, 1), (op, point, which)
            if all(x == int(x) for x in point):
                ints = [Value(x) if is_value else int(x) for x, is_value in zip(point, which)]
                assert same(apply(*ints).data, expected, 1), (op, point, which)


@pytest.mark.parametrize("op", [i for i in IDS if ROWS[i]["public"]])
def test_method_is_the_function(op):
    if arity(op) == 1:
        for x in POSITIVE:
            method = getattr(Value(x), ROWS[op]["name"])
            assert method().data == ORACLE[op].apply(x).data
            assert method()._op == ROWS[op]["symbol"]


@pytest.mark.parametrize("op", [i for i in IDS if ROWS[i]["public"]])
def test_wrong_calls(op):
    function = getattr(flatgrad, ROWS[op]["name"])
    good = [Value(1.5)] * arity(op)
    takes = f"{arity(op)} operand" if ROWS[op]["default"] is None else "1 or 2 operand"
    for count in {0, 1, 2, 3, 4} - {arity(op), arity(op) - (ROWS[op]["default"] is not None)}:
        with pytest.raises(TypeError, match=rf"{ROWS[op]['name']}\(\) takes {takes}"):
            function(*[Value(1.0)] * count)
    names = ROWS[op]["operands"].split(", ")
    for k, name in enumerate(names):
        for bad in ["1", None, [1.0], 1j, 2**53 + 1]:
            with pytest.raises((TypeError, ValueError), match=f"{name}: expected"):
                function(*good[:k], bad, *good[k + 1:])


@pytest.mark.parametrize("op", [i for i in IDS if ROWS[i]["default"] is not None])
def test_a_second_operand_with_a_default(op):
    name, default = ROWS[op]["name"], ROWS[op]["default"]
    first, second = ROWS[op]["operands"].split(", ")
    for x in Value(-0.7), Tensor([-0.7, 2.5]):
        function, method = getattr(flatgrad, name), getattr(x, name)
        assert inspect.signature(function).parameters[second].default == default
        expected = [np.asarray(function(x, y).data).tolist() for y in (default, 0.3)]
        other = {second: 0.3}
        for y, calls in zip(expected, [
                (function(x), function(**{first: x}), method()),
                (function(x, **other), function(**other, **{first: x}), method(0.3), method(**other))]):
            assert [np.asarray(z.data).tolist() for z in calls] == [y] * len(calls)
        for wrong in [lambda: function(**{second: 0.3}), lambda: function(x, 0.3, **{second: 0.3}),
                      lambda: method(x=x), lambda: method(0.3, 0.3), lambda: function(x, slope=0.3)]:
            with pytest.raises(TypeError, match=rf"{name}\(\) takes 1 or 2 operands \({first}, {second}\)"):
                wrong()


def test_which_activations_a_layer_does_itself():
    """Those whose derivative follows from the result: see `fused` in ops.def."""
    fused = [op for op in IDS if ROWS[op]["fused"]]
    assert "RELU" in fused
    for op, x in itertools.product(fused, SPECIAL):
        operand = Value(x)
        result = ORACLE[op].apply(operand)
        result.backward()
        with np.errstate(all="ignore"):
            expected = ORACLE[op].partials(None, F(result.data))[0]
        assert same(operand.grad, float(expected), 0), (op, x)


# ---- gradients ----

def finite_differences(op, point):
    """Central differences of the oracle's float function, one for each differentiable operand."""
    point = point if isinstance(point, tuple) else (point,)
    result = []
    for k in range(1 if ORACLE[op].immediate else len(point)):
        h = 1e-5 * max(1.0, abs(point[k]))
        up, down = list(point), list(point)
        up[k] += h
        down[k] -= h
        result.append((ORACLE[op].value(*up) - ORACLE[op].value(*down)) / (up[k] - down[k]))
    return result if not ORACLE[op].order else [*result[:-1], 0.0]


def assert_gradients_match_differences(op, point, grads):
    for got, expected in zip(grads, finite_differences(op, point), strict=True):
        assert got == pytest.approx(expected, rel=1e-6, abs=1e-9), (op, point)


@pytest.mark.parametrize("op", IDS)
def test_gradient_against_finite_differences(op):
    for point in ORACLE[op].points:
        if op == "WHERE":  # a step in the condition is a jump, not a slope: check the others
            differences = finite_differences("WHERE", point)[1:]
            assert gradients(op, point) == pytest.approx([0.0, *differences], rel=1e-6, abs=1e-9)
        else:
            assert_gradients_match_differences(op, point, gradients(op, point))


CONSTANTS = {"FLOOR", "SIGN", "LESS", "LESS_EQUAL", "EQUAL"}   # between their steps: all derivatives are 0


@pytest.mark.parametrize("op", [i for i in IDS if i != "WHERE" and i not in CONSTANTS])
def test_the_checker_catches_a_tenth_of_a_percent(op):
    """The same check on derivatives that are 0.1 % off, one operand at a time."""
    caught = 0
    for point in ORACLE[op].points:
        grads = gradients(op, point)
        for k, grad in enumerate(grads):
            if grad == 0:
                continue
            wrong = [g * 1.001 if j == k else g for j, g in enumerate(grads)]
            with pytest.raises(AssertionError):
                assert_gradients_match_differences(op, point, wrong)
            caught += 1
    assert caught >= len(gradients(op, ORACLE[op].points[0]))


@pytest.mark.parametrize("op", IDS)
def test_gradient_at_special_points(op):
    """The hand-written derivatives, at kinks, edges, signed zeros, infinities and nan; no errors."""
    checked = 0
    for point in special_operands(op):
        try:
            values, operands = split(op, point)
            z = ORACLE[op].apply(*operands)
        except (ArithmeticError, ValueError):
            continue
        z.backward()
        with np.errstate(all="ignore"):
            operands = [F(x) for x in point] if not ORACLE[op].immediate else [F(point[0]), point[1]]
            expected = ORACLE[op].partials(*operands, F(z.data))
        for v, slope in zip(values, expected, strict=True):
            if math.isnan(slope) or math.isinf(slope):
                assert same(v.grad, float(slope), 0), (op, point, v.grad, slope)
            else:
                assert v.grad == pytest.approx(float(slope), rel=1e-14, abs=5e-324), (op, point)
        checked += 1
    assert checked >= len(SPECIAL) // 2


@pytest.mark.parametrize("op", IDS)
def test_gradient_is_scaled_by_the_result_and_added(op):
    """z feeds a product, so dz is not 1; and a second use of an operand adds to its gradient."""
    for point in ORACLE[op].points:
        alone = gradients(op, point)
        values, operands = split(op, point)
        ((ORACLE[op].apply(*operands) * 3.0) + sum(v * 0.5 for v in values)).backward()
        assert [v.grad for v in values] == pytest.approx([3 * g + 0.5 for g in alone], rel=1e-14)


@pytest.mark.parametrize("op", [i for i in IDS if arity(i) == 2 and not ORACLE[i].immediate])
def test_same_operand_twice(op):
    """x op x: both partials add up in one gradient."""
    number = ORACLE[op].points[0][0] if op == "BINARY_CROSS_ENTROPY" else 1.5
    x = Value(number)
    ORACLE[op].apply(x, x).backward()
    y, z = Value(number), Value(number)
    ORACLE[op].apply(y, z).backward()
    assert x.grad == pytest.approx(y.grad + z.grad, rel=1e-15, abs=1e-15)


@pytest.mark.parametrize("apply", [
    lambda x: x.sqrt(), lambda x: x**0.5, lambda x: (x + 1e-200) ** -1 * 1e300 / 1e-100])
def test_zero_gradient_is_not_skipped(apply):
    """0 * inf is nan: a zero dz through an infinite derivative must not come out as 0."""
    x = Value(0.0)
    (apply(x) * 0.0).backward()
    assert math.isnan(x.grad)


# ---- the words ----

@pytest.mark.parametrize("call, error, words", [
    (lambda: Value(1.0) / 0, ZeroDivisionError, r"1\.0 / 0\.0; expected a nonzero divisor"),
    (lambda: 0.0 / Value(0.0), ZeroDivisionError, r"0\.0 / 0\.0"),
    (lambda: Value(0.0) ** -1, ZeroDivisionError, r"0\.0 \*\* -1"),
    (lambda: Value(1e200) ** 2, OverflowError, r"1e\+200 \*\* 2"),
    (lambda: Value(1000.0).exp(), OverflowError, r"exp\(1000\.0\); expected x below 709\.79"),
    (lambda: Value(-1.0).log(), ValueError, r"log\(-1\.0\); expected x > 0"),
    (lambda: flatgrad.log(0), ValueError, r"log\(0\.0\)"),
    (lambda: Value(-8.0) ** (1 / 3), ValueError, r"-8\.0 \*\* 0\.333"),
    (lambda: Value(-1.0).sqrt(), ValueError, r"sqrt\(-1\.0\); expected x >= 0"),
    (lambda: flatgrad.sin(INF), ValueError, r"sin\(inf\); expected a finite x"),
])
def test_error_names_operation_and_operands(call, error, words):
    with pytest.raises(error, match=words):
        call()
