"""Every instruction-set level that the build and the processor have computes the same.

Run as a program, this file computes all cases, or those of the groups that are named after the path of the file to
write, with the kernels that FLATGRAD_ISA names, and pickles the outcomes: values, and gradients for a different weight
on every element. The tests run it once for each level and compare the outcomes with each other, with NumPy (in long
double where functions are involved), Python's `math` and the derivatives of test_ops.ORACLE, and with graphs of single
operations. Files of outcomes that FLATGRAD_OUTCOMES names, separated as in PATH, are further levels, such as that of an
emulated processor.

What is a sum may differ by 1e-12 of what is added up without regard to signs, a transcendental function
by 2 units in the last place from Python's, or from what Decimal makes of it, and all else not at all. In losses that
add something to a function these are units of what is added up without regard to signs.
"""
import decimal
import functools
import itertools
import math
import os
import pickle
import random
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple
from collections.abc import Callable

import numpy as np
import pytest
from test_ops import ORACLE, ROWS, F, gelu_logit, log_sigmoid, sigmoid, special_operands

import flatgrad
from flatgrad import Tensor, Value, _core, losses, nn, optim

INF, NAN = math.inf, math.nan
TOLERANCE = 1e-12
TINY = 1e-300   # what is smaller may differ: subnormal numbers have few digits
LEVELS = ["baseline", "neon", "avx2", "avx512"]   # of all processors, from the plainest up
L = np.longdouble

# Numbers of lanes, rows, columns and terms: all small ones, and around what one vector, a few of them, the
# tile of a product, the chunk of a sum (128) and the blocks of a product (30 or 40 rows, 96 or 240 columns, 256
# terms) hold.
LENGTHS = [*range(1, 41), 63, 64, 65, 127, 128, 129, 130, 257, 300]
EDGES = [1, 2, 3, 5, 6, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 33, 47, 49, 63, 64, 65, 95, 96, 97, 127, 130,
         239, 240, 241, 255, 256, 257, 300]
MATRICES = [(1, 1), (1, 6), (6, 1), (3, 4), (2, 17), (7, 9), (13, 16), (5, 33), (40, 3), (3, 130)]


class Near(NamedTuple):
    """An expected array. What is got may be away by TOLERANCE * scale; None: not by a bit."""

    value: Any
    scale: Any


class Case(NamedTuple):
    """What to compute and to expect. `outcomes` are arrays: the result, then gradients."""

    name: str
    outcomes: Callable   # of nothing
    expected: Callable   # of nothing: as many Near
    exact: Any = ()      # which outcomes have the same bits on each level; True: all
    scalar: Any = None   # the same as `outcomes` by a graph of single operations
    apart: float = 1.0   # how many times the scale that graph may be away


# ---- operands: Tensors that lie in different ways ----

# The shape of a larger array and where in it the operand lies, for (rows, columns) and for (n,).
VIEWS = {
    "plain": (lambda r, c: (r, c), lambda a: a),
    "transposed": (lambda r, c: (c, r), lambda a: a.T),
    "rows apart": (lambda r, c: (2 * r + 1, c), lambda a: a[1::2]),
    "columns apart": (lambda r, c: (r, 2 * c + 1), lambda a: a[:, 1::2]),
    "inside": (lambda r, c: (r + 2, c + 3), lambda a: a[1:-1, 2:-1]),
    "backwards": (lambda r, c: (r, c), lambda a: a[::-1, ::-1]),
    "transposed, apart": (lambda r, c: (c, 2 * r + 1), lambda a: a[:, 1::2].T),
}
ROW_VIEWS = {
    "plain": (lambda n: (n,), lambda a: a),
    "apart": (lambda n: (2 * n + 1,), lambda a: a[1::2]),
    "inside": (lambda n: (n + 3,), lambda a: a[2:-1]),
    "backwards": (lambda n: (n,), lambda a: a[::-1]),
    "a column": (lambda n: (n, 3), lambda a: a[:, 1]),
}
WITHOUT_GRADIENT = ("number", "array", "constant")


def placed(array, kind):
    """An operand that holds the numbers, and a function that gets its gradient, None if it has none."""
    array = np.asarray(array, dtype=float)
    if kind == "number":
        return float(array), None
    if kind == "array":
        return array, None
    if kind == "constant":
        return Tensor(array, requires_grad=False), None
    if kind == "value":
        v = Value(float(array))
        return v, lambda: np.array(v.grad)
    if kind == "values":   # one by one, and made in another order
        values = np.empty(array.size, dtype=object)
        for i in np.random.default_rng(array.size).permutation(array.size):
            values[i] = Value(array.flat[i])
        values = values.reshape(array.shape)
        return values.tolist(), lambda: np.vectorize(lambda v: v.grad, otypes=[float])(values)
    larger, view = (VIEWS if array.ndim == 2 else ROW_VIEWS)[kind]
    around = np.full(larger(*array.shape), NAN)   # would be noticed if it were read
    view(around)[...] = array
    t = Tensor(around)
    inside = view(t)

    def gradient():
        grads = t.grad.copy()
        result = view(grads).copy()
        view(grads)[...] = 0.0
        assert not grads.any(), f"a gradient outside of the operand, which is {kind}"
        return result
    return inside, gradient


def kinds(k, *shapes, more=()):
    """A way to lie for each operand; many combinations as k goes up."""
    result = []
    for shape in shapes:
        names = ["value", "number"] if shape == () else [*(VIEWS if len(shape) == 2 else ROW_VIEWS), *more]
        result.append(names[k % len(names)])
        k = k // len(names) + 3 * k + 1
    return result


def numbers(*shape, seed=0, low=-2.0, high=2.0):
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape)


@functools.lru_cache(None)
def weights(shape):
    signs = np.where(numbers(*shape, seed=98) < 0, -1.0, 1.0)
    result = np.asarray(numbers(*shape, seed=99, low=0.5, high=1.5) * signs)
    result.flags.writeable = False   # it is everyone's
    return result


def flat(x):
    if isinstance(x, (list, tuple, Tensor)):
        return [v for part in x for v in flat(part)]
    return [x]


def weighted(result):
    """The data of the result, and a sum that hands the weights down to the bit."""
    if isinstance(result, Tensor):
        return result.data, (result * weights(result.shape)).sum()
    if isinstance(result, Value):
        return np.array(result.data), result * float(weights(()))
    data = np.array([v.data for v in result])
    return data, flatgrad.dot(result, weights(data.shape))


def outcomes_of(call, arrays, where):
    """The result of call(operands), and each operand's gradient of the weighted sum of the results."""
    operands, gradients = zip(*[placed(array, kind) for array, kind in zip(arrays, where, strict=True)])
    data, total = weighted(call(*operands))
    total.backward()
    if all(np.all(np.abs(x) < 1e100) for x in arrays):   # once more, for it has to add to what is there
        weighted(call(*operands))[1].backward()
        return [data, *[gradient() / 2 for gradient in gradients if gradient]]
    return [data, *[gradient() for gradient in gradients if gradient]]


def scalar_outcomes_of(call, arrays, where, shape):
    """The same by a graph of single operations on Values."""
    operands, gradients = [], []
    for array, kind in zip(arrays, where, strict=True):
        constant = kind in WITHOUT_GRADIENT
        operand, gradient = (array, None) if constant else placed(array, "values" if np.ndim(array) else "value")
        operands.append(operand)
        gradients += [] if constant else [gradient]
    with flatgrad.scalar_graph():
        results = flat(call(*operands))
        total = Value(0.0)
        for v, weight in zip(results, weights(shape).flat, strict=True):
            total = total + v * float(weight)
    total.backward()
    return [np.array([v.data for v in results]).reshape(shape), *[gradient() for gradient in gradients]]


# ---- elementwise rows of ops.def ----

LIBM = {op for op in ORACLE if ORACLE[op].libm}   # 2 units in the last place
KINKED = {"RELU", "ABS", "MAXIMUM", "MINIMUM", "WHERE", "CLIP", "ABSOLUTE_ERROR", "HUBER", "SIGN", "LESS", "LESS_EQUAL",
          "EQUAL", "GATE", "SHARE"}   # on whole numbers and halves, for ties
PROBABILITIES = {("BINARY_CROSS_ENTROPY", 0), ("BINARY_CROSS_ENTROPY", 1), ("LOGIT", 0)}
IMMEDIATES = {"POWI": [2, 3, -1, -2, 7, 0, 1], "POWC": [0.5, -1.5, 2.25]}


# ---- functions for which C libraries are not precise enough, or which are made of several ----

D = decimal.Decimal
DIGITS = decimal.Context(prec=45, Emin=-10**8, Emax=10**8)
ROOT_PI = D("1.77245385090551602729816748334114518279754945612238712821381")
HALF = D("0.5")


def exp_of(x):
    return DIGITS.exp(D(x))


def expm1_of(x):
    x = D(x)
    return x + x * x / 2 + x**3 / 6 if abs(x) < D("1e-12") else exp_of(x) - 1


def log1p_exp_of(x):
    """log(1 + exp(-|x|))"""
    e = exp_of(-abs(x))
    return e - e * e / 2 if e < D("1e-20") else DIGITS.ln(1 + e)


def erfc_of(t):
    t = D(t)
    if t < 0:
        return 2 - erfc_of(-t)
    if t < D("2.5"):   # erf(t) = 2 / sqrt(pi) * exp(-t**2) * (t + 2 t**3 / 3 + 4 t**5 / 15 + ...)
        term = total = t
        for n in range(1, 90):
            term *= 2 * t * t / (2 * n + 1)
            total += term
        return 1 - 2 / ROOT_PI * exp_of(-t * t) * total
    fraction = t   # erfc(t) = exp(-t**2) / sqrt(pi) / (t + 1/2 / (t + 2/2 / (t + 3/2 / ...)))
    for n in range(120, 0, -1):
        fraction = t + n * HALF / fraction
    return exp_of(-t * t) / ROOT_PI / fraction


PRECISE = {   # of numbers below 700; each as csrc/ops.def rounds what it gives to a function
    "SIGMOID": lambda x: 1 / (1 + exp_of(-x)),
    "EXPM1": expm1_of,
    "SINH": lambda x: (expm1_of(x) - expm1_of(-x)) / 2,
    "COSH": lambda x: (exp_of(x) + exp_of(-x)) / 2,
    "SOFTPLUS": lambda x: D(max(x, 0.0)) + log1p_exp_of(x),
    "SILU": lambda x: D(x) / (1 + exp_of(-x)),
    "GELU": lambda x: D(x) / 2 * erfc_of(-math.sqrt(0.5) * x),
    "GELU_TANH": lambda x: D(x) / (1 + exp_of(-gelu_logit(x))),
    "ELU": lambda x, y: D(x) if x > 0 else D(y) * expm1_of(x),
}
# On the plainest level the first three are products with a result of the C library; the others are sums and products.
UNITS = {"GELU": 4, "GELU_TANH": 3, "SILU": 3, "GELU_TANH_SLOPE": 6, "SILU_SLOPE": 4, "LOGISTIC_DENSITY": 4,
         "POWER_SLOPE": 4, "ANGLE_SLOPE": 4}   # of the last, 2 are the hypot of some C libraries, twice


def value_of(op, *point):
    """As csrc/ops.def says, from Decimal where there is an entry above, else from Python's `math`."""
    if op in PRECISE and all(abs(x) < 700 for x in point) and point[0] != 0:
        with decimal.localcontext(DIGITS):
            return float(PRECISE[op](*point))
    if op == "SIGMOID":   # ORACLE's is farther than 2 units in the last place from this one
        e = math.exp(-abs(point[0]))
        return 1.0 / (1.0 + e) if point[0] >= 0.0 else e / (1.0 + e)
    if op == "SILU":
        return point[0] * value_of("SIGMOID", *point)
    return ORACLE[op].value(*point)


def size_of(op, value, *point):
    """What is added up to the value, without regard to signs."""
    if op == "KL_DIV":
        x, y = point
        return abs(value + x * y) + abs(x * y)
    if op == "LOGIT":
        return abs(value) + 2 * abs(math.log1p(-point[0])) if 0 < point[0] < 1 else abs(value)
    if op == "GELU_SLOPE":   # Phi(x) and x times the density there
        return abs(value) + abs(2 * value - math.erfc(-point[0] * math.sqrt(0.5)))
    if op == "GELU_TANH_SLOPE":
        return abs(value) + abs(2 * (value - sigmoid(gelu_logit(point[0]))))
    if op == "SILU_SLOPE":
        return abs(value) + abs(2 * (value - sigmoid(point[0])))
    if op in ("BCE_SLOPE", "WEIGHTED_BCE_SLOPE"):
        x, y, w = (*point, 1.0)[:3]
        return min(abs(value) + 2 * (1 + abs(y) + abs(w * y)) * math.exp(log_sigmoid(-abs(x))) + abs(y), 1e308)
    if op in ("BCE_WITH_LOGITS", "WEIGHTED_BCE_WITH_LOGITS"):
        x, y, w = (*point, 1.0)[:3]
        return abs(value) - 2 * (1 + abs((w - 1) * y)) * log_sigmoid(abs(x))
    return abs(value)


def bound_of(op, values, points):
    """How far from the values the results may be, as a scale."""
    sizes = [size_of(op, value, *point) for value, point in zip(values.tolist(), points)]
    units = [2 + 3 * min(point[2], 10) for point in points] if op == "POWER_LOG" else UNITS.get(op, 2)
    return units * np.spacing(np.array(sizes, dtype=float)) / TOLERANCE


def sample(op, which, shape):
    x = numbers(*shape, seed=10 + which, low=-3.0, high=3.0)
    if op in KINKED:
        return np.round(x * 2) / 2
    if which in ORACLE[op].positive:
        return np.abs(x) + 0.05
    if ORACLE[op].order and which == 2:
        return np.rint(np.abs(x))
    if (op, which) in PROBABILITIES:
        return np.abs(x) / 3.0
    if op == "POWI" or (op, which) == ("DIV", 1):
        return x + np.where(x < 0, -0.25, 0.25)
    return x


def each_element(arrays):
    return list(zip(*[np.asarray(x).ravel().tolist() for x in np.broadcast_arrays(*arrays)]))


def summed_to(shape, x):
    """`x` added up over what an operand of that shape was broadcast along."""
    x = x.sum(axis=tuple(range(x.ndim - len(shape))))
    return x.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True).reshape(shape)


def elementwise_expected(op, arrays, where, immediate):
    """By test_ops.ORACLE, one element at a time."""
    shape = np.broadcast_shapes(*[np.shape(x) for x in arrays])
    points = [point + immediate for point in each_element(arrays)]
    value = np.array([value_of(op, *point) for point in points], dtype=float)
    with np.errstate(all="ignore"):
        partials = np.array([ORACLE[op].partials(*map(F, point[:len(arrays)]), *immediate, F(z))
                             for point, z in zip(points, value)], dtype=float)
        result = [Near(value.reshape(shape), bound_of(op, value, points).reshape(shape) if op in LIBM else None)]
        for k, x in enumerate(arrays):
            terms = partials[:, k].reshape(shape) * weights(shape)
            sizes = np.abs(terms) + (np.abs(weights(shape)) if op in LIBM else 0.0)
            if where[k] not in WITHOUT_GRADIENT:
                result.append(Near(summed_to(np.shape(x), terms), summed_to(np.shape(x), sizes)))
    return result


def elementwise_scalar(op, arrays, where, immediate):
    operands = [placed(x, "number" if kind == "number" else "values" if np.ndim(x) else "value")
                for x, kind in zip(arrays, where)]
    shape = np.broadcast_shapes(*[np.shape(x) for x in arrays])
    total = Value(0.0)
    data = []
    boxes = []
    for operand, _ in operands:
        box = np.empty(np.shape(operand), dtype=object)
        box[...] = operand
        boxes.append(box)
    for point, weight in zip(np.broadcast(*boxes) if len(boxes) > 1 else zip(boxes[0].flat),
                             weights(shape).flat):
        z = ORACLE[op].apply(*point, *immediate)
        data.append(z.data)
        total = total + z * float(weight)
    total.backward()
    return [np.array(data).reshape(shape), *[gradient() for (_, gradient), kind in zip(operands, where)
                                             if kind not in WITHOUT_GRADIENT]]


def elementwise(op, arrays, where, immediate=(), label=""):
    shape = np.broadcast_shapes(*[np.shape(x) for x in arrays])
    exact = [0] if op not in LIBM else []
    differentiable = [x for x, kind in zip(arrays, where) if kind not in WITHOUT_GRADIENT]
    exact += [k + 1 for k, x in enumerate(differentiable) if op not in LIBM and np.shape(x) == shape]
    return Case(
        f"{op}{list(immediate)} of {', '.join(f'{np.shape(x)} {kind}' for x, kind in zip(arrays, where))}{label}",
        lambda: outcomes_of(lambda *x: ORACLE[op].apply(*x, *immediate), arrays, where),
        lambda: elementwise_expected(op, arrays, where, immediate), exact,
        lambda: elementwise_scalar(op, arrays, where, immediate), 2.0 if op in PRECISE else 1.0)


def arity(op):
    return 1 if op in IMMEDIATES else ROWS[op]["arity"]


def rows_of_arity(n):
    return [op for op in ROWS if op in ORACLE and arity(op) == n]


def unary():
    count = itertools.count()
    for op in rows_of_arity(1):
        for immediate in IMMEDIATES.get(op, [None]):
            shapes = [(n,) for n in LENGTHS] + MATRICES if immediate in (None, 2, 0.5) else [(11,), (5, 33)]
            for shape in shapes:
                yield elementwise(op, [sample(op, 0, shape)], kinds(next(count), shape),
                                  () if immediate is None else (immediate,))


def binary_shapes(r, c):
    return [((r, c), (r, c)), ((r, c), (c,)), ((c,), (r, c)), ((r, c), (1, c)), ((r, c), (r, 1)), ((r, 1), (r, c)),
            ((r, 1), (1, c)), ((c,), (r, 1)), ((r, c), ()), ((), (r, c)), ((r, c), (1, 1)), ((1,), (r, c))]


def ternary_shapes(r, c):
    full, row, column, one = (r, c), (c,), (r, 1), ()
    return [(full, full, full), (full, one, one), (full, row, column), (column, row, one), (one, full, row),
            (row, one, full), (full, full, one), (one, column, full), (full, column, row)]


def several(n, of_lengths, of_matrix):
    count = itertools.count()
    for op in rows_of_arity(n):
        shapes = [s for length in LENGTHS for s in of_lengths(length)]
        shapes += [s for r, c in MATRICES for s in of_matrix(r, c)]
        for operands in shapes:
            where = kinds(next(count), *operands, more=["constant", "array", "values"])
            if set(where) <= {"number", "value", "array", "values", "constant"}:   # no Tensor that has a gradient
                at = next(k for k, shape in enumerate(operands) if shape)
                where[at] = "plain"
            yield elementwise(op, [sample(op, k, shape) for k, shape in enumerate(operands)], where)


def binary():
    return several(2, lambda n: [((n,), (n,)), ((n,), ()), ((), (n,))], binary_shapes)


def ternary():
    return several(3, lambda n: [((n,), (n,), (n,)), ((n,), (), ())], ternary_shapes)


# ---- special numbers, and what is an error ----

def by_outcome(op):
    """The special points that have a result, and those that are an error, with the error."""
    good, bad = [], []
    points = special_operands(op)
    for point in points if op not in IMMEDIATES else [p for p in points if abs(p[1]) < 100]:
        try:
            if op in IMMEDIATES:
                ORACLE[op].apply(Value(point[0]), int(point[1]) if op == "POWI" else point[1])
            else:
                ORACLE[op].apply(*map(Value, point))
            good.append(point)
        except (ArithmeticError, ValueError) as error:
            bad.append((point, error))
    return good, bad


def special():
    """Every combination of special numbers, as lanes beside each other."""
    for op in ROWS:
        if op not in ORACLE:
            continue
        good, _ = by_outcome(op)
        if op in IMMEDIATES:
            for k, points in itertools.groupby(sorted(good, key=lambda p: (math.isnan(p[1]), p[1])), lambda p: p[1]):
                immediate = int(k) if op == "POWI" else k
                yield elementwise(op, [np.array([p[0] for p in points])], ["plain"], (immediate,), ", special")
            continue
        columns = [np.array(x) for x in zip(*good)]
        yield elementwise(op, columns, ["plain"] * arity(op), label=", special")
        if arity(op) == 2:   # against one number: the loops are others
            for which, one in itertools.product(range(2), [0.0, -0.0, 1.0, -3.0, 1e-200, 1e200, 5e-324, INF, NAN]):
                others = [p[1 - which] for p in good if str(p[which]) == str(one)]
                pair, where = [np.array(others), np.array(one)], ["plain", "number"]
                if others:
                    yield elementwise(op, pair[::1 if which else -1], where[::1 if which else -1],
                                      label=f", special, operand {which} is {one}")


def mistakes(op, point, error, n):
    """In how many of the lanes a bad point is not the error that it is by itself."""
    arity_of = arity(op)
    good = [1.0] * arity_of
    count = 0
    for lane in range(n):
        lanes = np.array([point[:arity_of] if i == lane else good for i in range(n)]).T
        before = flatgrad.stats()["nodes"]
        operands = [Tensor(x) for x in lanes]
        try:
            ORACLE[op].apply(*operands, *point[arity_of:])
            count += 1
        except (ArithmeticError, ValueError) as got:
            count += not (type(got) is type(error) and f" at element [{lane}]" in str(got)
                          and str(got).replace(f" at element [{lane}]", "") == str(error))
        del operands
        flatgrad.collect()
        count += flatgrad.stats()["nodes"] > before
    return count


def errors():
    for op in ROWS:
        kinds_of_error = {}
        for point, error in by_outcome(op)[1] if op in ORACLE else []:
            if op == "POWI":
                point = (point[0], int(point[1]))
            kinds_of_error.setdefault((type(error), math.isinf(point[0])), (point, error))
        for point, error in kinds_of_error.values():
            for n in 1, 2, 3, 5, 8, 13, 19:
                yield Case(f"{op}{point} is an error in any of {n} lanes",
                           functools.partial(lambda *a: [np.array(mistakes(*a))], op, point, error, n),
                           lambda: [Near(np.array(0), None)], True)


# ---- functions that the kernels compute themselves, densely ----

def power_of_two(x):
    """2**x, about, with the same bits on every machine."""
    whole = np.floor(x)
    return np.ldexp(1.0 + (x - whole), whole.astype(int))


def dense(op, count):
    def spread(low, high):
        return np.random.default_rng(5).uniform(low, high, count)
    powers = power_of_two(np.random.default_rng(6).uniform(-1074, 1023.99, count))
    either = powers * np.where(spread(-1, 1) < 0, -1.0, 1.0)
    around_one = np.float64(1.0) + np.arange(-50, 50) * 2.0**-52
    edges = np.array([0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1.0, -1.0, INF, NAN])
    if op == "EXP":
        return np.concatenate([spread(-746, 709.78), spread(-1, 1), spread(-745.2, -700), either[np.abs(either) < 700],
                               np.arange(-1000, 1000) * math.log(2) / 2, edges,
                               [709.7, 709.782712893384, -745.13, -745.2, -708.4, -750.0, -1e300, -INF]])
    if op == "LOG":
        numbers_of = np.concatenate([powers, spread(0.3, 3), around_one, np.exp2(np.arange(-1074, 1024)),
                                     math.sqrt(2.0) * np.exp2(np.arange(-1000, 1000)), np.abs(edges)])
        return numbers_of[~(numbers_of <= 0)]
    if op == "TANH":
        return np.concatenate([spread(-22, 22), spread(-1, 1), spread(0.59, 0.61), either, edges,
                               [0.6, -0.6, np.nextafter(0.6, 0), 19.06, 19.07, 710.0, -1e300, -INF]])
    if op == "SIGMOID":
        return np.concatenate([spread(-746, 40), spread(-2, 2), either, edges,
                               [36.7, 36.8, 709.7, 710.0, -709.7, -710.0, -745.2, -750.0, -1e300, -INF]])
    if op == "LOG1P":
        numbers_of = np.concatenate([powers, spread(-1, 1), either, around_one - 1, around_one - 2, edges])
        return numbers_of[~(numbers_of <= -1)]
    if op in ("EXPM1", "SINH", "COSH"):
        return np.concatenate([spread(-50, 709), spread(-1, 1), either[np.abs(either) < 700], edges,
                               np.arange(-900, 900) * math.log(2) / 2, [709.7, -709.7, -37.0, -36.0]])
    if op == "ERF":
        return np.concatenate([spread(-6, 6), spread(-1, 1), spread(0.64, 0.66), either, edges, [-INF, 27.0, -5.9]])
    if op in ("SOFTPLUS", "SILU", "GELU", "GELU_TANH"):
        return np.concatenate([spread(-40, 40), spread(-2, 2), spread(-36, -20), either, edges,
                               [-38.0, -700.0, 700.0, -744.0, -800.0]])
    if op == "SQRT":
        return np.concatenate([powers, spread(0, 4), edges[edges != -1]])[1:].clip(0)
    return np.concatenate([spread(-10, 10), spread(-1e5, 1e5), either, edges[np.isfinite(edges)]])


GRADIENTS = {   # of a row whose result is z, to the bit
    "EXP": lambda x, z, dz: z * dz, "LOG": lambda x, z, dz: dz / x, "TANH": lambda x, z, dz: (1.0 - z * z) * dz,
    "SIGMOID": lambda x, z, dz: z * (1.0 - z) * dz, "SQRT": lambda x, z, dz: dz / (2.0 * z),
    "EXPM1": lambda x, z, dz: (z + 1.0) * dz, "LOG1P": lambda x, z, dz: dz / (1.0 + x),
    "TAN": lambda x, z, dz: (1.0 + z * z) * dz,
    "SIN": lambda x, z, dz: flatgrad.cos(Tensor(x)).data * dz,
    "COS": lambda x, z, dz: -flatgrad.sin(Tensor(x)).data * dz,
    "SINH": lambda x, z, dz: flatgrad.cosh(Tensor(x)).data * dz,
    "COSH": lambda x, z, dz: flatgrad.sinh(Tensor(x)).data * dz,
    "SOFTPLUS": lambda x, z, dz: flatgrad.sigmoid(Tensor(x)).data * dz,
    "POWI": lambda x, k, z, dz: slope_of_power(x, k) * dz, "POWC": lambda x, c, z, dz: slope_of_power(x, c) * dz,
}


def slope_of_power(x, k):
    return 2.0 * x if k == 2 else 3.0 * (x * x) if k == 3 else k * (Tensor(x) ** (k - 1)).data


def different(x, y):
    """In how many places x and y are not the same to the bit; any nan is the same as another."""
    return int(np.sum(~((x == y) & (np.signbit(x) == np.signbit(y)) | np.isnan(x) & np.isnan(y))))


def dense_outcomes(op, x, *immediate):
    """The values; in how many places the gradient is not what follows from them; and how many values are
    others if a lane has another place."""
    def apply(t):
        return ORACLE[op].apply(t, *immediate)
    t = Tensor(x)
    result = apply(t)
    z, w = result.data, weights(x.shape)
    (result * w).sum().backward()
    with np.errstate(all="ignore"):
        wrong = different(t.grad, 0.0 + GRADIENTS[op](x, *immediate, z, w)) if op in GRADIENTS else 0
    moved = sum(different(apply(Tensor(x[k:])).data, z[k:]) for k in range(1, 8))
    moved += different(apply(Tensor(x[::-1])).data, z[::-1])
    moved += sum(different(apply(Tensor(x[k:k + 1])).data, z[k:k + 1]) for k in range(0, x.size, x.size // 50))
    return [z, np.array(wrong), np.array(moved)]


def dense_case(op, x, *immediate):
    def expected():
        points = [(v, *immediate) for v in x.tolist()]
        value = np.array([value_of(op, *point) for point in points])
        return [Near(value, bound_of(op, value, points) if op in LIBM else None), Near(np.array(0), None),
                Near(np.array(0), None)]
    return Case(f"{op}{list(immediate)} of {x.size} numbers", functools.partial(dense_outcomes, op, x, *immediate),
                expected, (1, 2) if op in LIBM else True)


POWERS = [3, -2, 4, 5, 7, -5, 16, 33, 64, -64, 65, -129, 1001, 10**9 + 1, 0.5, -0.5, 1 / 3, 1.5, -2.5, 0.001, 1e4, -1e9]


def dense_power(k, count):
    """Numbers that have a power and a gradient: of all sizes, and where it nearly overflows or is nearly lost."""
    size = np.random.default_rng(7).uniform(-1080, 1023.9, count) / k
    x = np.concatenate([power_of_two(size.clip(-1074, 1023.99)), np.random.default_rng(8).uniform(0.5, 2.0, count // 4),
                        1.0 + np.arange(-9, 9) * 2.0**-52, [INF, 5e-324, 1.7e308], [0.0] * (k > 0)])
    x = np.concatenate([x, -x]) if isinstance(k, int) else np.concatenate([x, [NAN]])
    return np.array([v for v in x.tolist() if has_power(v, k) and has_power(v, k - 1)])


def has_power(x, k):
    """Whether Python has a result."""
    try:
        x**k
    except ArithmeticError:
        return False
    return True


def dense_cases(count):
    for op in ("EXP", "EXPM1", "LOG", "LOG1P", "TANH", "SIGMOID", "SIN", "COS", "TAN", "SINH", "COSH", "ERF", "SQRT",
               "GELU", "GELU_TANH", "SILU", "SOFTPLUS"):
        yield dense_case(op, dense(op, count // 20 + 500 if op in PRECISE else count))   # Decimal takes its time
    for k in POWERS:
        yield dense_case("POWI" if isinstance(k, int) else "POWC", dense_power(k, count // 16), k)


def functions():
    return dense_cases(8000)


# ---- products ----

ACTIVATIONS = {   # the function of long doubles, and its derivative from the result
    None: (lambda s: s, lambda z: 1.0), "relu": (lambda s: np.maximum(s, 0), lambda z: z > 0),
    "tanh": (np.tanh, lambda z: 1 - z * z), "sigmoid": (lambda s: 1 / (1 + np.exp(-s)), lambda z: z * (1 - z)),
}


def linear_expected(x, W, b, activation, where):
    """Of activation(x @ W.T + b). Errors of the sums reach the activation's derivative."""
    rows = np.atleast_2d(x)
    sums, size = rows @ W.T + (0 if b is None else b), np.abs(rows) @ np.abs(W).T + (0 if b is None else np.abs(b))
    function, derivative = ACTIVATIONS[activation]
    z = function(sums)
    shape = z.shape[1:] if x.ndim == 1 else z.shape
    w = weights(shape).reshape(z.shape)
    d = w * derivative(z)
    d_size = np.abs(w) * (1 + size if activation in ("tanh", "sigmoid") else 1)
    result = [Near(z.reshape(shape), (size + np.abs(z)).reshape(shape))]
    gradients = [Near((d @ W).reshape(x.shape), (d_size @ np.abs(W)).reshape(x.shape)),
                 Near(d.T @ rows, d_size.T @ np.abs(rows)), Near(d.sum(0), d_size.sum(0))]
    return result + [g for g, kind in zip(gradients, where) if kind not in WITHOUT_GRADIENT]


def linear(m, n, k, at, activation=None, bias=True, where=None, scalar=False):
    """The layer; m = 0 is one sample in a flat Tensor."""
    x, W, b = numbers(*([m] * (m > 0)), k, seed=1), numbers(n, k, seed=2), numbers(n, seed=3)
    arrays = [x, W, b][:2 + bias]
    where = (where or kinds(at, x.shape, W.shape, b.shape))[:len(arrays)]

    def call(x, W, b=None):
        return flatgrad.linear(x, W, b, activation)
    shape = (n,) if m == 0 else (m, n)
    return Case(f"linear{(m, n, k)} {activation} of {', '.join(where)}", lambda: outcomes_of(call, arrays, where),
                lambda: linear_expected(x, W, b if bias else None, activation, where), (),
                (lambda: scalar_outcomes_of(call, arrays, where, shape)) if scalar else None)


def layers():
    count = itertools.count()
    names = list(ACTIVATIONS)
    for m, n, k in itertools.product([1, 2, 3, 4, 5, 8, 9], [1, 2, 3, 4, 7, 8, 9, 16], [1, 2, 3, 4, 5, 8, 17]):
        at = next(count)
        yield linear(m, n, k, at, names[at % 4], at % 3 > 0, scalar=at % 5 == 0)
    for edge in EDGES:
        for m, n, k in (edge, 10, 7), (9, edge, 11), (6, 13, edge), (edge, 2, 5), (2, edge, 6), (3, 3, edge):
            at = next(count)
            yield linear(m, n, k, at, names[at % 4], at % 3 > 0)
    for edge, other in itertools.product(EDGES, [1, 2, 3, 9, 16, 33]):
        at = next(count)
        yield linear(0, edge, other, at, names[at % 4], at % 3 > 0, scalar=edge < 20 and other < 20)
        yield linear(0, other, edge, at, names[at % 4], at % 3 > 0)
        yield linear(edge, 1, other, at, names[at % 4], at % 3 > 0)
    pick = random.Random(1)
    for at in range(60):   # past the blocks in two or three ways
        m, n, k = [pick.choice(EDGES) for _ in range(3)]
        yield linear(m, n, k, 31 * at, names[at % 4], at % 3 > 0)
    plain = ["plain"] * 3
    yield linear(64, 128, 784, 0, "relu", where=plain)
    yield linear(64, 10, 128, 0, where=plain)
    yield linear(300, 250, 260, 0, "tanh", where=["transposed", "columns apart", "apart"])
    yield linear(260, 300, 257, 0, "sigmoid", where=["plain", "transposed", "plain"])
    yield linear(300, 245, 513, 0, where=["rows apart", "inside", "backwards"])
    for m, n, k in (0, 5, 7), (3, 4, 5), (20, 30, 40), (0, 40, 40):   # Values one by one, and constants
        x_kinds = ["values", "plain", "constant", "array"]
        for where in itertools.product(x_kinds, ["values", "plain", "constant"], ["values", "plain"]):
            yield linear(m, n, k, 0, "tanh", where=list(where), scalar=m * n * k < 100)


@functools.lru_cache(1)
def product_expected(x_shape, y_shape):
    """Of the product, and of the gradients of both factors."""
    x, y = numbers(*x_shape, seed=4), numbers(*y_shape, seed=5)
    columns, rows = x.reshape(-1, x.shape[-1]), y.reshape(y.shape[0], -1)
    d = weights((x @ y).shape).reshape(columns.shape[0], rows.shape[1])
    return [Near(x @ y, np.abs(x) @ np.abs(y)),
            Near((d @ rows.T).reshape(x.shape), (np.abs(d) @ np.abs(rows).T).reshape(x.shape)),
            Near((columns.T @ d).reshape(y.shape), (np.abs(columns).T @ np.abs(d)).reshape(y.shape))]


def product(x_shape, y_shape, where):
    x, y = numbers(*x_shape, seed=4), numbers(*y_shape, seed=5)
    return Case(f"{x_shape} @ {y_shape} of {', '.join(where)}", lambda: outcomes_of(lambda x, y: x @ y, [x, y], where),
                lambda: [near for near, kind in zip(product_expected(x_shape, y_shape), ["plain", *where])
                         if kind != "constant"])


def products():
    count = itertools.count()
    for m, n, k in [*itertools.product([1, 2, 5, 8], [1, 3, 9], [1, 4, 17]), (70, 90, 110), (97, 241, 257)]:
        for where in itertools.product(VIEWS, VIEWS):
            yield product((m, k), (k, n), where)
    for edge in EDGES:
        for x_shape, y_shape in (((edge, 9), (9, 12)), ((10, edge), (edge, 7)), ((5, 6), (6, edge)), ((edge, 7), (7,)),
                                 ((6, edge), (edge,)), ((edge,), (edge, 5)), ((8,), (8, edge)), ((edge,), (edge,))):
            yield product(x_shape, y_shape, kinds(next(count), x_shape, y_shape))
    for where in ("constant", "plain"), ("plain", "constant"):
        yield product((33, 70), (70, 20), where)


def sharing():
    """Expressions whose operands are, or overlap, each other, of a square x; also for arrays of Values."""
    return {
        "x @ x": lambda x: x @ x, "x @ x.T": lambda x: x @ x.T, "x.T @ x": lambda x: x.T @ x,
        "x @ x[0]": lambda x: x @ x[0], "x @ x[:, 0]": lambda x: x @ x[:, 0], "x[1] @ x": lambda x: x[1] @ x,
        "x[1] @ x[:, 1]": lambda x: x[1] @ x[:, 1], "x[1] @ x[1]": lambda x: x[1] @ x[1],
        "x[:-1] @ x[:, 1:]": lambda x: x[:-1] @ x[:, 1:], "x * x": lambda x: x * x, "x - x.T": lambda x: x - x.T,
        "x * x[::-1, ::-1]": lambda x: x * x[::-1, ::-1], "x[:, :-1] * x[:, 1:]": lambda x: x[:, :-1] * x[:, 1:],
        "x[:-1] * x[1:]": lambda x: x[:-1] * x[1:], "x + x[0]": lambda x: x + x[0],
        "x * x[:, :1]": lambda x: x * x[:, :1], "x[:1] * x": lambda x: x[:1] * x, "x * x[1, 1]": lambda x: x * x[1, 1],
    }


def shared_outcomes(call, n):
    t = Tensor(numbers(n, n, seed=9))
    data, total = weighted(call(t))
    total.backward()
    return [data, t.grad]


def shared_expected(call, n):
    """By an array of Values, whose sums are taken in NumPy's order; scaled by the largest."""
    values = np.empty((n, n), dtype=object)
    for at, number in np.ndenumerate(numbers(n, n, seed=9)):
        values[at] = Value(number)
    result = np.asarray(call(values), dtype=object)
    total = Value(0.0)
    for v, weight in zip(result.flat, weights(result.shape).flat):
        total = total + v * float(weight)
    total.backward()
    data, grads = [np.vectorize(lambda v: getattr(v, name), otypes=[float])(x)
                   for name, x in [("data", result), ("grad", values)]]
    return [Near(data, n * np.abs(data).max()), Near(grads, n * np.abs(grads).max())]


def shared():
    """One Tensor in several places of an instruction."""
    for n, (name, call) in itertools.product([2, 3, 4, 5, 8, 9, 17, 33], sharing().items()):
        yield Case(f"{name}, {n}", functools.partial(shared_outcomes, call, n),
                   functools.partial(shared_expected, call, n))


def dots():
    """dot and matvec: flat lists of Values too."""
    for n, where in itertools.product(LENGTHS, [["plain"] * 3, ["values"] * 3, ["apart", "values", "value"],
                                                ["backwards", "a column", "value"], ["values", "constant", "value"]]):
        w, x, b = numbers(n, seed=6), numbers(n, seed=7), np.array(0.75)
        where = [where[0], where[1], "value"]

        def expected(w=w, x=x, b=b, where=where):
            d, size = float(weights(())), np.abs(weights(()))
            gradients = [Near(d * x, size * np.abs(x)), Near(d * w, size * np.abs(w)), Near(np.array(d), size)]
            return [Near(w @ x + b, np.abs(w) @ np.abs(x) + b),
                    *[g for g, kind in zip(gradients, where) if kind != "constant"]]
        arrays = [w, x, b]
        yield Case(f"dot of {n} {where}", functools.partial(outcomes_of, flatgrad.dot, arrays, where), expected, (),
                   functools.partial(scalar_outcomes_of, flatgrad.dot, arrays, where, ()) if n < 70 else None)
    for n, k in itertools.product([1, 2, 3, 7, 8, 9, 17], [1, 3, 4, 8, 17, 40]):
        for where in ["plain", "plain", "plain"], ["values", "values", "values"], ["rows apart", "values", "apart"]:
            W, x, b = numbers(n, k, seed=6), numbers(k, seed=7), numbers(n, seed=8)

            def expected(W=W, x=x, b=b, where=where):
                value, dx, dW, db = linear_expected(x, W, b, None, ["plain"] * 3)
                return [value, dW, dx, db]
            yield Case(f"matvec of {n, k} {where}", functools.partial(outcomes_of, flatgrad.matvec, [W, x, b], where),
                       expected, (), functools.partial(scalar_outcomes_of, flatgrad.matvec, [W, x, b], where, (n,)))


# ---- reductions and losses: formulas on rows of long doubles ----

def shares(x):
    """The part of softmax and its kin: (exp(x - largest), largest, their sum)."""
    largest = x.max(1, keepdims=True)
    e = np.exp(x - largest)
    return e, largest, e.sum(1, keepdims=True)


def sum_rows(x, w):
    gradient = np.repeat(w[:, None], x.shape[1], axis=1)
    return x.sum(1), np.abs(x).sum(1), gradient, np.abs(gradient)


def mean_rows(x, w):
    return tuple(part / x.shape[1] for part in sum_rows(x, w))


def max_rows(x, w):
    largest = x.max(1, keepdims=True)
    wins = (x == largest) | (np.isnan(x) & np.isnan(largest))
    gradient = np.where(wins, w[:, None] / wins.sum(1, keepdims=True), 0)
    first = x[np.arange(len(x)), x.argmax(1)]   # of zeros of both signs
    return first, None, gradient, np.abs(gradient)


def logsumexp_rows(x, w):
    e, largest, total = shares(x)
    p = np.where(largest == INF, np.exp(x - INF), e / total)   # beside an inf, 0
    value = np.where(np.isfinite(largest), largest + np.log(total), largest)[:, 0]
    return value, np.abs(largest[:, 0]) + np.abs(value) + 1, w[:, None] * p, np.abs(w[:, None] * p)


def softmax_rows(x, w):
    e, _, total = shares(x)
    p = e / total
    mean = (p * w).sum(1, keepdims=True)
    return p, p, p * (w - mean), p * (np.abs(w) + (p * np.abs(w)).sum(1, keepdims=True))


def log_softmax_rows(x, w):
    e, largest, total = shares(x)
    value = x - largest - np.log(total)
    p = np.exp(value)
    size = np.abs(w).sum(1, keepdims=True)
    return value, np.abs(x - largest) + 1, w - w.sum(1, keepdims=True) * p, np.abs(w) + size * p * (1 + np.abs(value))


REDUCTIONS = {"sum": sum_rows, "mean": mean_rows, "max": max_rows, "logsumexp": logsumexp_rows,
              "softmax": softmax_rows, "log_softmax": log_softmax_rows}


def reduction_expected(name, x, axis):
    down = axis == 0 and x.ndim == 2
    rows = x.reshape(1, -1) if axis is None or x.ndim == 1 else x.T if down else x
    keeps = name.endswith("softmax")
    shape = x.shape if keeps else () if len(rows) == 1 and (axis is None or x.ndim == 1) else (len(rows),)
    w = weights(shape)
    w = w.reshape(x.shape).T if keeps and down else w.reshape(rows.shape if keeps else len(rows))
    with np.errstate(all="ignore"):
        value, size, gradient, gradient_size = REDUCTIONS[name](rows.astype(L), w.astype(L))

        def back(part, to):
            return None if part is None else np.asarray(part.T if down and part.ndim == 2 else part,
                                                        dtype=float).reshape(to)
        return [Near(back(value, shape), back(size, shape)),
                Near(back(gradient, x.shape), back(gradient_size, x.shape))]


def reduction(name, x, axis, kind, scalar=False, label=""):
    call = functools.partial(getattr(flatgrad, name), axis=axis)
    shape = reduction_expected(name, np.zeros(x.shape), axis)[0].value.shape
    return Case(f"{name} of {x.shape} {kind}, axis {axis}{label}", lambda: outcomes_of(call, [x], [kind]),
                lambda: reduction_expected(name, x, axis), True if name == "max" else (),
                (lambda: scalar_outcomes_of(call, [x], [kind], shape)) if scalar else None)


def reductions():
    count = itertools.count()
    for name in REDUCTIONS:
        axes = [0, 1, -1] if name.endswith("softmax") else [None, 0, 1]
        for n in LENGTHS:
            x = numbers(n, seed=20, low=-30.0, high=30.0)
            for kind in [*ROW_VIEWS, "values"]:
                yield reduction(name, x, -1, kind, scalar=n < 41 and kind == "apart")
        for shape, axis in itertools.product([*MATRICES, (2, 2), (17, 5), (33, 31), (65, 130), (3, 300)], axes):
            x = numbers(*shape, seed=21, low=-30.0, high=30.0)
            if name == "max":
                x = np.round(x / 4)   # ties; an odd number of them, which the scalar graph divides otherwise
            for kind in kinds(next(count), shape) + ["plain", "values"]:
                yield reduction(name, x, axis, kind, scalar=x.size < 300 and name != "max" and kind == "plain")


SPECIAL_ROWS = [
    [0.0, 0.0], [-0.0, -0.0], [-0.0, 0.0], [1e300, 1e300], [1e300, -1e300, 0.0], [709.7, 710.0, -745.2],
    [1e-310, 5e-324, 0.0], [-745.2, 0.0], [INF, 0.0], [INF, INF, 1.0], [-INF, 0.0], [-INF, -INF], [NAN, 0.0],
    [0.0, NAN], [NAN, INF], [-INF, NAN], [1e6, 1e6 + 1, 1e6 - 3], [1e12, 1e12 + 1], [-1000.0, -1001.0],
]


def special_rows():
    """Special numbers at the head and tail of rows of ordinary ones that do not hide them."""
    for name, head, n in itertools.product(REDUCTIONS, SPECIAL_ROWS, [0, 1, 2, 5, 8, 13, 30]):
        for tail in [head] if n == 0 else [head + n * [head[0]], n * [head[-1]] + head]:
            yield reduction(name, np.array(tail), -1, "plain", label=f" {head} at {len(tail)}, {tail[0]}")


def cross_entropy_case(r, c, kind, at, special_logits=None):
    x = numbers(r, c, seed=30, low=-20.0, high=20.0) if special_logits is None else np.array(special_logits)
    labels = np.random.default_rng(at).integers(0, c, r)

    def call(logits):
        return losses.cross_entropy(logits, labels)

    def expected():
        with np.errstate(all="ignore"):
            e, largest, total = shares(x.astype(L))
            picked = (x - largest)[np.arange(r), labels]
            terms = np.log(total)[:, 0] - picked
            p, onehot = e / total, np.arange(c) == labels[:, None]
            w = float(weights(())) / r
            return [Near(np.array((terms / r).sum(), dtype=float), float((1 + np.abs(picked)).sum() / r)),
                    Near((w * (p - onehot)).astype(float), (np.abs(w) * (p + onehot)).astype(float))]
    scalar = special_logits is None and x.size < 300
    return Case(f"cross_entropy of {(r, c)} {kind} {special_logits or ''}", lambda: outcomes_of(call, [x], [kind]),
                expected, (), (lambda: scalar_outcomes_of(call, [x], [kind], ())) if scalar else None)


def pair_case(name, shape, where):
    x, y = numbers(*shape, seed=31), numbers(*shape, seed=32)
    if name == "hinge":
        y = np.where(y < 0, -1.0, 1.0)

    def expected():
        w = float(weights(())) / x.size
        if name == "mse":
            terms, dx, dy = (x - y) ** 2, 2 * (x - y) * w, -2 * (x - y) * w
        else:
            terms = np.maximum(1 - x * y, 0)
            dx, dy = -y * w * (terms > 0), -x * w * (terms > 0)
        return [Near(np.array(terms.mean()), terms.mean()), Near(dx, np.abs(dx)),
                *[Near(dy, np.abs(dy)) for _ in [0] if where[1] != "array"]]
    call = getattr(losses, name)
    return Case(f"{name} of {shape} {', '.join(where)}", lambda: outcomes_of(call, [x, y], where), expected, (),
                (lambda: scalar_outcomes_of(call, [x, y], where, ())) if x.size < 300 else None)


def of_losses():
    count = itertools.count()
    for r, c in [(1, 1), (1, 2), (2, 1), (3, 10), (7, 9), (8, 8), (17, 3), (4, 33), (64, 10), (130, 17), (3, 300)]:
        for kind in [*VIEWS, "values"]:
            yield cross_entropy_case(r, c, kind, next(count))
    for row in SPECIAL_ROWS:
        yield cross_entropy_case(1, len(row), "plain", 0, [row])
    for name, n in itertools.product(["mse", "hinge"], LENGTHS):
        for where in [*zip(ROW_VIEWS, ["array", "plain", "array", "apart", "array"]), ("values", "array")]:
            yield pair_case(name, (n,), list(where))
    for name, shape, kind in itertools.product(["mse", "hinge"], [(3, 4), (13, 16), (40, 1)], VIEWS):
        yield pair_case(name, shape, [kind, "array"])


# ---- optimizers and training ----

SGD = [{}, {"weight_decay": 0.1}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
       {"momentum": 0.8, "nesterov": True}]
ADAM = [{}, {"weight_decay": 0.1}, {"amsgrad": True},
        {"amsgrad": True, "weight_decay": 0.1, "betas": (0.7, 0.95), "eps": 1e-3}]
ADAM += [{"betas": (0.3, 0.9), "maximize": True}]   # so that 1 - beta1 is not the smaller part
ADAMW = [{}, {"weight_decay": 0.5, "amsgrad": True}]
RMSPROP = [{}, {"momentum": 0.9, "weight_decay": 0.1}, {"centered": True, "alpha": 0.3},
           {"centered": True, "momentum": 0.5, "maximize": True}]
ADAGRAD = [{"lr_decay": 0.5}, {"weight_decay": 0.1, "initial_accumulator_value": 0.5, "maximize": True}]
ADADELTA = [{}, {"weight_decay": 0.1, "rho": 0.5, "maximize": True}]
STEPS = 4


def gradients_of_step(n, step):
    g = numbers(n, seed=40 + step)
    g[::7] = 0.0
    return g if step < 3 else g * 1e-3


def optimizer_outcomes(kind, options, n, one_by_one):
    p = numbers(n, seed=40)
    def parts(x):
        return x if one_by_one else [part for part in np.split(x, [(n + 1) // 2]) if part.size]
    holders = [(Value if one_by_one else Tensor)(part) for part in parts(p)]
    optimizer = getattr(optim, kind)(holders, lr=0.05, **options)
    result = []
    for step in range(STEPS):
        for holder, part in zip(holders, parts(gradients_of_step(n, step)), strict=True):
            holder.grad = part
        optimizer.step()
        result.append(np.concatenate([np.atleast_1d(holder.data) for holder in holders]))
    return result


def optimizer_expected(kind, options, n):
    """PyTorch's formulas as they stand."""
    p = numbers(n, seed=40)
    m, v, v_max, size = np.zeros(n), np.zeros(n), np.zeros(n), np.abs(p)
    u, total = np.zeros(n), np.full(n, options.get("initial_accumulator_value", 0.0))
    momentum, decay = options.get("momentum", 0.0), options.get("weight_decay", 0.01 if kind == "AdamW" else 0.0)
    beta1, beta2 = options.get("betas", (0.9, 0.999))
    alpha, rho = options.get("alpha", 0.99), options.get("rho", 0.9)
    result = []
    for step in range(STEPS):
        d = gradients_of_step(n, step) * (-1.0 if options.get("maximize") else 1.0)
        if kind == "AdamW":
            p = p * (1 - 0.05 * decay)
        else:
            d = d + decay * p
        if kind == "SGD":
            m = d if step == 0 else momentum * m + (1 - options.get("dampening", 0.0)) * d
            p = p - 0.05 * (d + momentum * m if options.get("nesterov") else m if momentum else d)
        elif kind == "RMSprop":
            v, u = alpha * v + (1 - alpha) * d * d, alpha * u + (1 - alpha) * d
            m = momentum * m + d / (np.sqrt(v - u * u if options.get("centered") else v) + 1e-8)
            p = p - 0.05 * m
        elif kind == "Adagrad":
            total = total + d * d
            p = p - 0.05 / (1 + step * options.get("lr_decay", 0.0)) * d / (np.sqrt(total) + 1e-10)
        elif kind == "Adadelta":
            v = rho * v + (1 - rho) * d * d
            m = np.sqrt(u + 1e-6) / np.sqrt(v + 1e-6) * d
            u = rho * u + (1 - rho) * m * m
            p = p - 0.05 * m
        else:
            m, v = beta1 * m + (1 - beta1) * d, beta2 * v + (1 - beta2) * d * d
            v_max = np.maximum(v_max, v)
            root = np.sqrt((v_max if options.get("amsgrad") else v) / (1 - beta2 ** (step + 1)))
            p = p - 0.05 * (m / (1 - beta1 ** (step + 1))) / (root + options.get("eps", 1e-8))
        size = size + 1.0
        result.append(Near(p, size))
    return result


def clipped(n, one_by_one):
    """Norms of gradients of several sizes, and the gradients once they are clipped."""
    g = numbers(n, seed=41)
    holders = [Value(x) for x in g] if one_by_one else [Tensor(g)]

    def fill(scale):
        for holder, part in zip(holders, g * scale if one_by_one else [g * scale]):
            holder.grad = part
    result = []
    for norm_type, scale in CLIPS:
        fill(scale)
        norm = optim.clip_grad_norm_(holders, 0.5 * scale, norm_type)
        result += [np.array(norm / scale), np.concatenate([np.atleast_1d(h.grad) for h in holders]) / scale]
    fill(1.0)
    optim.clip_grad_value_(holders, 0.7)
    return [*result, np.concatenate([np.atleast_1d(h.grad) for h in holders])]


CLIPS = [(2.0, 1.0), (2.0, 2.0**600), (1.0, 1.0), (INF, 1.0), (3.0, 1.0), (3.0, 2.0**400), (2.0, 2.0**-600)]


def clipped_expected(n):
    g, result = L(numbers(n, seed=41)), []
    for norm_type, scale in CLIPS:
        norm = np.abs(g).max() if norm_type == INF else (np.abs(g) ** L(norm_type)).sum() ** (1 / L(norm_type))
        factor = min(L(1), 0.5 * L(scale) / (norm * L(scale) + L(1e-6)))
        result += [Near(norm.astype(float), float(norm)), Near((g * factor).astype(float), np.abs(g).astype(float))]
    return [*result, Near(np.clip(g.astype(float), -0.7, 0.7), None)]


def optimizers():
    for kind, several_options in [("SGD", SGD), ("Adam", ADAM), ("AdamW", ADAMW), ("RMSprop", RMSPROP),
                                  ("Adagrad", ADAGRAD), ("Adadelta", ADADELTA)]:
        for options, n, one_by_one in itertools.product(several_options, LENGTHS, [False, True]):
            yield Case(f"{kind} {options} of {n} {'Values' if one_by_one else 'in Tensors'}",
                       functools.partial(optimizer_outcomes, kind, options, n, one_by_one),
                       functools.partial(optimizer_expected, kind, options, n), True)
    for n, one_by_one in itertools.product(LENGTHS, [False, True]):
        yield Case(f"clipped {n} {'Values' if one_by_one else 'in a Tensor'}",
                   functools.partial(clipped, n, one_by_one), functools.partial(clipped_expected, n), (2 * len(CLIPS),))


def trained(activation, sizes, batch):
    """The losses and parameters of some steps of training, and the last gradients."""
    random.seed(3)
    model = nn.MLP(sizes[0], list(sizes[1:]), activation=activation)
    x, labels = numbers(batch, sizes[0], seed=50), np.arange(batch) % sizes[-1]
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    history = []
    for _ in range(3):
        rows = x.tolist()
        loss = losses.cross_entropy([model(row) for row in rows] if batch < 8 else model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.data)
    return [np.array(history), np.array([p.data for p in model.parameters()]),
            np.array([p.grad for p in model.parameters()])]


def by_single_operations(*arguments):
    with flatgrad.scalar_graph():
        return trained(*arguments)


def training():
    for arguments in itertools.product(["relu", "tanh", "sigmoid"], [(2, 3), (3, 9, 4), (7, 17, 8, 2)], [3, 20]):
        yield Case(f"training of {arguments}", functools.partial(trained, *arguments),
                   lambda a=arguments: [Near(x, 10 * np.abs(x).max()) for x in by_single_operations(*a)])


# ---- running the cases ----

def some_of(group, share):
    """One of `share` cases, as their names fall: of every operation, size and way to lie there are some."""
    return lambda: (case for case in group() if zlib.crc32(case.name.encode()) % share == 0)


WHOLE = (special, errors, functions, layers, shared, dots, special_rows, of_losses, training)
THINNED = {unary: 2, binary: 3, ternary: 2, products: 3, reductions: 2, optimizers: 2}   # all of these: slow, below
GROUPS = {group.__name__: group for group in WHOLE}
GROUPS |= {group.__name__: some_of(group, share) for group, share in THINNED.items()}


def more_functions():
    return dense_cases(400_000)


def more_layers():
    pick = random.Random(2)
    for at in range(1500):
        m, n, k = [pick.choice(EDGES) if pick.random() < 0.5 else pick.randint(1, 40) for _ in range(3)]
        if m * n * k < 4e6:
            yield linear(m, n, k, pick.randrange(10**6), pick.choice(list(ACTIVATIONS)), pick.random() < 0.7,
                         scalar=m * n * k < 5000)


MORE = {"more_functions": more_functions, "more_layers": more_layers}
MORE |= {f"all_{group.__name__}": group for group in THINNED}


def compute(path, names):
    """What the program does: the outcomes of the groups' cases, by name."""
    results = {name: {case.name: case.outcomes() for case in {**GROUPS, **MORE}[name]()} for name in names}
    assert _core._check()
    Path(path).write_bytes(pickle.dumps((flatgrad.stats()["isa"], results)))


def with_level(level, *arguments, **options):
    """A Python process that has the level."""
    environment = {**os.environ, "FLATGRAD_ISA": level}
    return subprocess.Popen([sys.executable, *arguments], env=environment, text=True, **options)


def imported(level):
    """What an import with that FLATGRAD_ISA says: the level that runs, or the error."""
    process = with_level(level, "-c", "import flatgrad; print(flatgrad.stats()['isa'])",
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate()
    assert process.returncode in (0, 1), err
    return out.strip() if process.returncode == 0 else err.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def levels():
    """Those that work here, from the plainest up."""
    return [level for level in LEVELS if imported(level) == level]


def outcomes_by_level(levels, names, folder):
    paths = {level: folder / level for level in levels}
    processes = [with_level(level, __file__, path, *names) for level, path in paths.items()]
    assert [process.wait() for process in processes] == [0] * len(levels)
    result = {}
    for level, path in paths.items():
        isa, result[level] = pickle.loads(path.read_bytes())
        assert isa == level
    for path in filter(None, os.environ.get("FLATGRAD_OUTCOMES", "").split(os.pathsep)):
        isa, theirs = pickle.loads(Path(path).read_bytes())
        if set(names) <= set(theirs):
            result[isa] = theirs
    return result


@pytest.fixture(scope="module")
def outcomes(levels, tmp_path_factory):
    return outcomes_by_level(levels, list(GROUPS), tmp_path_factory.mktemp("levels"))


@functools.lru_cache(None)
def expectations(group):
    return [(case, case.expected()) for case in {**GROUPS, **MORE}[group]()]


# ---- comparing ----

def wrong(got, expected, scale=None):
    """Where `got` is not as expected: an array of bools."""
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        return np.array([True])
    with np.errstate(all="ignore"):
        same = (got == expected) & (np.signbit(got) == np.signbit(expected)) | np.isnan(got) & np.isnan(expected)
        if scale is not None:
            same |= np.isfinite(expected) & (np.abs(got - expected) <= TOLERANCE * scale + TINY)
    return ~same


def differences(name, got, expected, scale=None):
    """A line of text if there are any."""
    bad = wrong(got, expected, scale)
    if not bad.any():
        return []
    if np.shape(got) != np.shape(expected):
        return [f"{name}: shape {np.shape(got)}, expected {np.shape(expected)}"]
    at = tuple(int(i[0]) for i in np.nonzero(np.atleast_1d(bad)))
    x, y = np.atleast_1d(got)[at], np.atleast_1d(expected)[at]
    return [f"{name}: {bad.sum()} of {bad.size}, the first at {at}: {x!r}, expected {y!r}"]


def is_exact(case, k):
    return case.exact is True or k in case.exact


def against_oracle(group, results):
    report = []
    for case, expected in expectations(group):
        assert len(results[case.name]) == len(expected), case.name
        for k, (got, near) in enumerate(zip(results[case.name], expected)):
            report += differences(f"{case.name}, outcome {k}", got, *near)
    return report


def against_each_other(group, by_level):
    report = []
    plainest, *others = by_level
    for case, expected in expectations(group):
        for level, (k, near) in itertools.product(others, enumerate(expected)):
            with np.errstate(over="ignore"):
                scale = None if is_exact(case, k) else 2 * near.scale
            report += differences(f"{case.name}, outcome {k}, {level} and {plainest}",
                                  by_level[level][group][case.name][k], by_level[plainest][group][case.name][k], scale)
    return report


def against_single_operations(group, results):
    report = []
    checked = 0
    for case, expected in expectations(group):
        if case.scalar:
            for k, (got, single, near) in enumerate(zip(results[case.name], case.scalar(), expected, strict=True)):
                exact = is_exact(case, k) and group.removeprefix("all_") in ("unary", "binary", "ternary", "special")
                with np.errstate(over="ignore"):
                    scale = None if exact or near.scale is None else case.apart * near.scale
                report += differences(f"{case.name}, outcome {k}", got, single, scale)
                checked += 1
    return report, checked


def check(report):
    assert not report, "\n".join([f"{len(report)} differences", *report[:10]])


@pytest.mark.parametrize("group", GROUPS)
def test_every_level_is_right(outcomes, group):
    check([f"{level}: {line}" for level in outcomes for line in against_oracle(group, outcomes[level][group])])


@pytest.mark.parametrize("group", GROUPS)
def test_levels_agree(outcomes, group):
    if len(outcomes) == 1:
        pytest.skip("there is one level only")
    check(against_each_other(group, outcomes))


HAVE_SCALAR = ["unary", "binary", "ternary", "special", "layers", "dots", "reductions", "of_losses"]


@pytest.mark.parametrize("group", HAVE_SCALAR)
def test_the_best_level_is_the_scalar_graph(outcomes, levels, group):
    """Others follow: they agree with it."""
    report, checked = against_single_operations(group, outcomes[levels[-1]][group])
    check(report)
    assert checked > 50


@pytest.mark.slow
@pytest.mark.parametrize("group", MORE)
def test_more_of_the_same(levels, group, tmp_path):
    by_level = outcomes_by_level(levels, [group], tmp_path)
    check([f"{level}: {line}" for level in levels for line in against_oracle(group, by_level[level][group])])
    check(against_each_other(group, by_level))
    check(against_single_operations(group, by_level[levels[-1]][group])[0])
    expectations.cache_clear()


# ---- the checker can fail ----

@pytest.mark.parametrize("group", GROUPS)
def test_the_checker_catches_one_wrong_number(outcomes, levels, group):
    """One element of an outcome, off by 1e-10, or by the least there is where no error is allowed."""
    results = outcomes[levels[-1]][group]
    caught = possible = 0
    for case, expected in expectations(group):
        for k, (value, scale) in enumerate(expected):
            got = np.atleast_1d(results[case.name][k]).astype(float)
            with np.errstate(all="ignore"):
                share = np.where(np.isfinite(got), np.abs(got) / (np.abs(got) if scale is None else scale), 0)
            at = np.unravel_index(np.argmax(np.nan_to_num(share)), got.shape)
            off = got.copy()
            off[at] = np.nextafter(got[at], 0) if scale is None else got[at] * (1 - 1e-10)
            if np.nan_to_num(share)[at] > 0.02 and np.abs(got[at]) > 1e-280:
                possible += 1
                caught += wrong(off.reshape(np.shape(value)), value, scale).sum() == 1
    assert caught == possible and (possible >= 7 or group == "errors")


def test_the_checker_tells_levels_apart(outcomes):
    """The least difference between levels, in what is the same to the bit on each."""
    first, *rest = outcomes
    for group in ("unary", "binary", "ternary", "special", "optimizers") if rest else ():
        off = {level: dict(results) for level, results in outcomes.items()}
        case = next(case for case, _ in expectations(group) if is_exact(case, 0))
        changed = [x.copy() for x in outcomes[rest[-1]][group][case.name]]
        at = np.flatnonzero(np.isfinite(changed[0]))[-1]
        changed[0].flat[at] = np.nextafter(changed[0].flat[at], INF)
        off[rest[-1]][group] = {**outcomes[rest[-1]][group], case.name: changed}
        assert len(against_each_other(group, off)) == 1


@pytest.mark.parametrize("got, expected, scale, is_wrong", [
    (1.0, 1.0, None, False), (1.0, 1.0 + 2.0**-52, None, True), (1.0, 1.0 + 5e-13, 1.0, False),
    (1.0, 1.0 + 2e-12, 1.0, True), (0.0, -0.0, None, True), (0.0, -0.0, 1.0, False), (NAN, NAN, None, False),
    (NAN, 1.0, 1.0, True), (1.0, NAN, 1.0, True), (INF, INF, None, False), (INF, -INF, INF, True),
    (1.0, INF, INF, True), (INF, 1.0, 1.0, True), ([1.0], 1.0, 1.0, True), (1.0, 2.0, NAN, True),
])
def test_the_checker(got, expected, scale, is_wrong):
    assert bool(wrong(got, expected, scale).any()) == is_wrong


# ---- which level runs ----

FLAGS = {"avx2": "avx2 fma", "avx512": "avx512f avx512dq avx512bw avx512vl"}   # as Linux calls them


def test_an_unknown_level_is_an_error_that_names_those_that_work(levels):
    assert levels
    for name in "nonsense", "AVX2", " avx2", "sse9", *[level for level in LEVELS if level not in levels]:
        assert imported(name) == (f"ImportError: FLATGRAD_ISA={name!r}: expected one of {', '.join(levels)}, "
                                  "which this build has and this processor can run")


def test_the_best_level_is_the_default(levels):
    assert imported("") == levels[-1]


def test_this_process_has_the_level_it_should(levels):
    assert flatgrad.stats()["isa"] == (os.environ.get("FLATGRAD_ISA") or levels[-1])


@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="reads /proc")
def test_the_levels_are_what_the_processor_has(levels):
    flags = set()
    for line in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines():
        if line.startswith("flags"):
            flags = set(line.partition(":")[2].split())
            break
    built = [level for level in LEVELS if level.encode() + b"\0" in Path(_core.__file__).read_bytes()]
    assert levels == [level for level in built if set(FLAGS.get(level, "").split()) <= flags]


if __name__ == "__main__":
    compute(sys.argv[1], sys.argv[2:] or list(GROUPS))
