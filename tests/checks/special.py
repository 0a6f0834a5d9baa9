"""Special numbers, in every operation, kernel and lane, against single Values and Python's own.

A table has nan, infinities, zeros of both signs, subnormal, tiny, huge and largest numbers, and the neighbours of 1. A
round takes one row of ops.def with every combination of them (three operands have a part of the table), or one
instruction of many operands with each number at each place of its rows, and does this on every level of kernels of the
machine:

- single Values against Python's `math` and the derivatives by hand of test_ops.py: values, signs of zeros, errors;
- Tensors of 1 to 17 and 33 numbers, so that every point is in many lanes, against single Values: contiguous, with steps
  between the numbers, backwards, and with one operand for all lanes;
- programs, called with Values; in lanes, of doubles and of floats;
- points that are an error, in every lane: the same error, which names the element.

Values of rows that are made of no function of the C library, and their derivatives, are compared to the bit; others
within the units in the last place that test_kernels.py has for them. The rounds begin anew when all have been: another
seed has other lanes. In docs/numbers.md are the tables that ``--table`` prints.
"""
import itertools
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import test_kernels
from test_ops import INTEGERS, ORACLE, ROWS, outcome, same, split

import flatgrad
from flatgrad import Tensor, Value, losses

SHORT = 8.0   # seconds

INF, NAN = math.inf, math.nan
NUMBERS = [NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 2.225073858507201e-308, 2.2250738585072014e-308,
           -2.2250738585072014e-308, 1e-300, -1e-160, 1e-17, 1.0 - 2.0**-53, 1.0 + 2.0**-52, -1.0 + 2.0**-53,
           -1.0 - 2.0**-52, 0.5, 2.0, -3.0, 36.7, 709.78, -745.1, -750.0, 1e16, 1e160, -1e300, 1.7976931348623157e308,
           -1.7976931348623157e308]
FEW = [NAN, INF, -INF, 0.0, -0.0, 1.0, -3.0, 5e-324, 1.0 - 2.0**-53, 40.0, 1e200, -1.7976931348623157e308]
FLOATS = [NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 2.0**-149, -2.0**-149, 2.0**-126, 2.0**-140, -2.0**-70, 2.0**-30,
          1.0 - 2.0**-24, 1.0 + 2.0**-23, -1.0 + 2.0**-24, 0.5, 2.0, -3.0, 17.0, 88.5, -103.875, -110.0, 2.0**27,
          -2.0**62, 3.4028234663852886e38, -3.4028234663852886e38]
LENGTHS = [*range(1, 18), 33]
EPS = 2.0**-52
SIZES = {"float64": EPS, "float32": 2.0**-23}


def weights(n):
    """What the results' gradients are: of both signs, and exact."""
    return np.resize([1.0, -1.5, 0.5, 1.25, -2.0], n)


# ---- single Values ----

def singles(op, points):
    """Of each point the value and the gradients, or the error."""
    found = []
    for point, weight in zip(points, weights(len(points)).tolist()):
        try:
            values, operands = split(op, point)
            z = ORACLE[op].apply(*operands)
        except (ArithmeticError, ValueError) as error:
            found.append(error)
            continue
        (z * weight).backward()
        found.append((z.data, *[v.grad for v in values]))
    return found


def against_python(op, points, found):
    """Single Values have Python's value or its error, and the derivatives by hand."""
    oracle = ORACLE[op]
    for point, got, weight in zip(points, found, weights(len(points)).tolist()):
        expected = outcome(oracle.value, *point)
        if isinstance(expected, type) or isinstance(got, Exception):
            yield type(got) is expected, f"{point}: {got!r}, expected {expected}"
            continue
        units = max(oracle.ulps, test_kernels.UNITS.get(op, 2) if oracle.libm else 0)
        room = allowed(op, [point], np.array([expected]))[0]
        yield (same(got[0], expected, units) or abs(got[0] - expected) <= room,
               f"{point}: {got[0]!r}, expected {expected!r}")
        with np.errstate(all="ignore"):
            operands = [np.float64(x) for x in point[:len(got) - 1]]
            partials = oracle.partials(*operands, *point[len(got) - 1:], np.float64(got[0]))
            for k, partial in enumerate(partials):
                want, has = float(partial) * weight, got[k + 1]
                yield (np.isnan(want) and np.isnan(has) or want == has or
                       abs(want - has) <= 1e-13 * abs(want) + 1e-14 * (1.0 + size_of(point)) + 1e-300
                       ), f"{point}: derivative {k} is {has!r}, expected {want!r}"


# ---- many at once ----

def size_of(point):
    """What may be added up in a derivative: the operands that are numbers, and 1."""
    return min(1.0 + sum(abs(x) for x in point if math.isfinite(x)), 1e300)


def allowed(op, points, values, kind="float64"):
    """How far from the values results may be: not at all, unless functions of the C library are in them."""
    if not ORACLE[op].libm and kind == "float64":
        return np.zeros(len(points))
    bounds = []
    with np.errstate(all="ignore"):
        for point, value in zip(points, values.tolist()):
            if not math.isfinite(value):
                bounds.append(0.0)
                continue
            units = 2 + 3 * min(point[2], 10) if op == "POWER_LOG" else test_kernels.UNITS.get(op, 2)
            size = min(test_kernels.size_of(op, value, *point), 1e308)
            size = abs(value) if math.isnan(size) else size
            if op == "SILU_SLOPE":   # of x * (1 - sigmoid(x)), in which 1 - sigmoid(x) is rounded
                size += abs(point[0])
            if kind == "float32":
                least = float(np.spacing(np.float32(min(size, 3e38))))
                bounds.append((units + 2) * least + 2 * EPS * size)
            else:
                bounds.append(units * float(np.spacing(size)))
    return np.array(bounds)


def different(got, want, room):
    """Where numbers are not those expected: neither nan nor the same to the bit, nor within the room."""
    with np.errstate(all="ignore"):
        as_is = (got == want) & ((got != 0) | (np.signbit(got) == np.signbit(want))) | np.isnan(got) & np.isnan(want)
        return ~(as_is | (np.abs(got - want) <= room) & (room > 0))


def operand(array, way):
    """A Tensor, and what gives its gradient."""
    if way == "plain":
        t = Tensor(array)
        return t, lambda: t.grad
    if way == "backwards":
        t = Tensor(array[::-1])
        return t[::-1], lambda: t.grad[::-1]
    around = np.full(2 * array.size + 1, NAN)
    around[1::2] = array
    t = Tensor(around)
    return t[1::2], lambda: t.grad[1::2]


def elementwise(apply, columns, way):
    """The values and the gradients of a vector of points."""
    operands, gradients = zip(*[operand(column, way) for column in columns])
    return finished(apply(*operands), gradients)


def finished(result, gradients):
    (result * Tensor(weights(result.size), requires_grad=False)).sum().backward()
    return [result.data, *[np.array(gradient()) for gradient in gradients]]


def one_for_all(apply, columns, which):
    """The same with a single Value for operand `which`, whose gradient is a sum."""
    operands, gradients = zip(*[operand(column, "plain") for column in columns])
    v = Value(float(columns[which][0]))
    result = apply(*[v if k == which else x for k, x in enumerate(operands)])
    return finished(result, [g for k, g in enumerate(gradients) if k != which])


def called(program, columns):
    """By calls of a program with Values, one after the other."""
    n = columns[0].size
    found = []
    for k, weight in zip(range(n), weights(n).tolist()):
        values = [Value(float(column[k])) for column in columns]
        z = program(*values)
        (z * weight).backward()
        found.append((z.data, *[v.grad for v in values]))
    return [np.array(column) for column in zip(*found)]


class Report:
    """Counts, and the first few that were wrong."""

    def __init__(self):
        self.count, self.wrong, self.seen = 0, [], set()

    def check(self, fine, words, group=None):
        self.count += 1
        if not fine and (group is None or group not in self.seen):
            self.seen.add(group if group is not None else words)
            if len(self.wrong) < 40:
                self.wrong.append(words)


# Where a float on the way is inf, 0 or rounded, and a double is not: which points, and why.
BEYOND_FLOATS = {
    "ELU": lambda x, y: x < -87 and math.isinf(y),                     # inf * exp(x)
    "POW": lambda x, y: 0 < abs(x) < 1e-9 or abs(y) > 2.0**24,         # x**(y - 1), y - 1
    "TANH_SLOPE": lambda x, y: max(abs(x), abs(y)) > 1e19,             # x * x, 2 * x * y
    "SIGMOID_SLOPE": lambda x, y: max(abs(x), abs(y)) > 1e19,
}
BEYOND_FLOATS["POWC"] = BEYOND_FLOATS["POW"]


def compare(report, op, label, points, found, got, kind="float64"):
    """Results and gradients of a vector against those of single Values; `found` has one of each point, no errors."""
    n = len(points)
    sizes = np.array([size_of(p) for p in points])
    for k, part in enumerate(got):
        want = np.array([f[k] for f in found], dtype=float)
        if k == 0:
            room = allowed(op, points, want, kind)
        elif ORACLE[op].libm or kind == "float32":
            unit = SIZES[kind]
            with np.errstate(over="ignore"):
                room = 64 * unit * (np.abs(want) + 2.0 * sizes) + 1e-300
        else:
            room = np.zeros(n)
        if kind == "float32":
            with np.errstate(over="ignore"):
                want = want.astype(np.float32).astype(float)
            room = room + 2.0**-148
        bad = different(part, want, room)
        what = "value" if k == 0 else f"gradient {k - 1}"
        for at in np.nonzero(bad)[0][:3]:
            report.check(False, f"{op}{points[at]} {label}, {at} of {n}: {what} {part[at]!r}, expected {want[at]!r}",
                         (op, label, k, points[at]))
        report.count += n - int(bad.sum())


def windows(count, n, seed):
    """Stretches of n points, that begin elsewhere for each length and seed, so that a point gets into many lanes."""
    order = [(k + 5 * n + seed) % count for k in range(count)]
    for start in range(0, count, n):
        yield [order[k % count] for k in range(start, start + n)]


def row(op, seed, thin):
    """A row of ops.def: what was compared, and what was wrong."""
    report = Report()
    points = points_of(op, NUMBERS, FEW)[seed % thin::thin]
    found = singles(op, points)
    for fine, words in against_python(op, points, found):
        report.check(fine, f"{op}{words}")
    good = [(p, f) for p, f in zip(points, found) if not isinstance(f, Exception)]
    bad = [(p, f) for p, f in zip(points, found) if isinstance(f, Exception)]
    if not good:   # of so few points none may be in the domain
        return report
    constants = len(good[0][0]) - len(good[0][1]) + 1   # of a power the exponent is no operand of the kernel
    groups = {}
    for point, f in good:
        groups.setdefault(repr(point[len(point) - constants:]), []).append((point, f))
    for group in groups.values():
        vectors(report, op, group, constants, seed, thin)
    errors(report, op, bad[seed % 3::3 if thin == 1 else 17], constants)
    return report


def points_of(op, numbers, few):
    if op == "POWI":
        return [(x, k) for x in numbers for k in INTEGERS]
    if ORACLE[op].order:
        return list(itertools.product(few, few, [0.0, 1.0, 2.0, 3.0, 7.0, NAN]))
    arity = 2 if ORACLE[op].immediate else ROWS[op]["arity"]
    return list(itertools.product(*[numbers if arity < 3 else few] * arity))


def applied(op, point, constants):
    """The row with its constant, as a function of operands."""
    fixed = point[len(point) - constants:]
    if op == "POWI":
        fixed = tuple(int(k) for k in fixed)
    return lambda *x: ORACLE[op].apply(*x, *fixed)


def vectors(report, op, good, constants, seed, thin):
    """All ways to compute many points at once, whose exponents, if these are constant, are the same."""
    points = [p for p, _ in good]
    apply = applied(op, points[0], constants)
    columns = [np.array(c, dtype=float) for c in zip(*points)][:len(points[0]) - constants]
    found = again(op, points)
    lanes = flatgrad.vmap(flatgrad.compile(apply))
    few = thin > 1 or constants
    for n in LENGTHS if not few else [1 + seed % 3, 5 + seed % 4, 17]:
        for at, which in enumerate(windows(len(points), n, seed)):
            part, expected, here = [c[which] for c in columns], found(which), [points[k] for k in which]
            way = ("plain", "apart", "backwards")[(at + n) % 3]
            compare(report, op, way, here, expected, elementwise(apply, part, way))
            if (n + at) % 3 == 0:
                operands, gradients = zip(*[operand(c, "plain") for c in part])
                compare(report, op, "in lanes", here, expected, finished(lanes(*operands), gradients))
    if len(columns) == 2:
        for which, number in itertools.product(range(2), [0.0, -0.0, 1.0, -3.0, 5e-324, INF, NAN]):
            at = [k for k, p in enumerate(points) if repr(p[which]) == repr(number)]
            if at:
                expected = [f[:1] + tuple(g for k, g in enumerate(f[1:]) if k != which) for f in found(at)]
                compare(report, op, f"operand {which} for all", [points[k] for k in at], expected,
                        one_for_all(apply, [c[at] for c in columns], which))
    some = random.Random(seed).sample(range(len(points)), min(len(points), 12 if few else 150))
    program = flatgrad.compile(apply)
    compare(report, op, "compiled", [points[k] for k in some], found(some), called(program, [c[some] for c in columns]))


def again(op, points):
    """The results of single Values, with the weights of the place in the window."""
    known = {}

    def found(which):
        result = []
        for k, weight in zip(which, weights(len(which)).tolist()):
            if (k, weight) not in known:
                values, operands = split(op, points[k])
                z = ORACLE[op].apply(*operands)
                (z * weight).backward()
                known[k, weight] = (z.data, *[v.grad for v in values])
            result.append(known[k, weight])
        return result
    return found


def errors(report, op, bad, constants):
    """The same error in any lane of a Tensor, with the element; and in lanes of a program."""
    for at, (point, error) in enumerate(bad):
        if constants and op == "POWI":
            point = (point[0], int(point[1]))
        apply = applied(op, point, constants)
        operands = point[:len(point) - constants]
        n = LENGTHS[at % len(LENGTHS)]
        lane = at % n
        columns = [np.ones(n) for _ in operands]
        for column, x in zip(columns, operands):
            column[lane] = x
        words = f"{op}{point}, {lane} of {n}"
        nodes = flatgrad.stats()["nodes"]
        try:
            apply(*[Tensor(c) for c in columns])
            report.check(False, f"{words}: no error, expected {error!r}")
        except (ArithmeticError, ValueError) as got:
            report.check(type(got) is type(error) and str(got) == f"{at_element(error, lane)}",
                         f"{words}: {got!r}, expected {error!r}")
        flatgrad.collect()
        report.check(flatgrad.stats()["nodes"] <= nodes, f"{words}: nodes are left")
        program = flatgrad.compile(apply)
        try:
            program(*[1.0 for _ in operands])
            flatgrad.vmap(program)(*columns)
            report.check(False, f"{words}: no error in lanes, expected {error!r}")
        except (ArithmeticError, ValueError) as got:
            report.check(type(got) is type(error), f"{words} in lanes: {got!r}, expected {error!r}")


def at_element(error, lane):
    """The message of a single Value's error as a Tensor has it: before what was expected stands the element."""
    head, _, tail = str(error).partition("; expected")
    return f"{head} at element [{lane}]; expected{tail}"


# ---- floats ----

def floats(op, seed, thin):
    """The row in a program of floats, in lanes, against what doubles give, rounded."""
    report = Report()
    points = points_of(op, FLOATS, [x for x in FLOATS if x in (0.0, 1.0, -3.0, 17.0, 1e8) or not math.isfinite(x)]
                       )[seed % thin::thin]
    groups = {}
    for point, found in zip(points, singles(op, points)):
        constant = point[1:] if ORACLE[op].immediate else ()
        groups.setdefault(repr(constant), []).append((point, found))
    for group in groups.values():
        constants = 1 if ORACLE[op].immediate else 0
        good = [(p, f) for p, f in group if not isinstance(f, Exception) and fits(f[0])
                and not (op in BEYOND_FLOATS and BEYOND_FLOATS[op](*p))]
        if not good:
            continue
        points_here = [p for p, _ in good]
        program = flatgrad.vmap(flatgrad.compile(applied(op, points_here[0], constants), dtype="float32"))
        columns = [np.array(c, dtype=float) for c in zip(*points_here)][:len(points_here[0]) - constants]
        found = again(op, points_here)
        for n in [5 + seed % 13, 33]:
            for which in windows(len(good), n, seed):
                operands, gradients = zip(*[operand(c[which], "plain") for c in columns])
                try:
                    got = finished(program(*operands), gradients)
                except (ArithmeticError, ValueError) as error:
                    report.check(False, f"{op}, floats, {[points_here[k] for k in which]}: {error!r}")
                    continue
                compare(report, op, "floats", [points_here[k] for k in which], found(which), got, "float32")
    return report


def fits(value):
    """Whether a float can be it: the others are an overflow, or inf, as the row says."""
    return not math.isfinite(value) or abs(value) < 3.4e38


# ---- instructions of many operands ----

def closed(name, x):
    """The value of a row by rules of its own: nan beside a nan, inf beside an inf, and so on; None: none known."""
    if name in ("sum", "mean"):
        if any(map(math.isnan, x)) or INF in x and -INF in x:
            return NAN
        return INF if INF in x else -INF if -INF in x else None
    if any(map(math.isnan, x)):
        return NAN
    if name == "max":
        return max(x)
    return INF if INF in x else -INF if set(x) == {-INF} else None


ORDINARY = [0.5, -1.25, 2.0, 0.75, -0.5, 1.5, -2.25, 3.0]


def rows_with(numbers, n, seed):
    """Rows of n ordinary numbers with one special number at a place, or two of them."""
    for at, x in enumerate(numbers):
        base = [ORDINARY[(k + seed) % len(ORDINARY)] for k in range(n)]
        first = (at + seed) % n
        yield base[:first] + [x] + base[first + 1:]
        if n > 1:
            second = (first + 1 + at % (n - 1)) % n
            two = base[:]
            two[first], two[second] = x, numbers[(5 * at + seed) % len(numbers)]
            yield two
    if n > 1:
        for x in numbers:
            yield [x] * n


MANY = {
    "sum": lambda x: flatgrad.sum(x), "mean": lambda x: flatgrad.mean(x), "max": lambda x: flatgrad.max(x),
    "logsumexp": lambda x: flatgrad.logsumexp(x), "softmax": lambda x: flatgrad.softmax(x),
    "log_softmax": lambda x: flatgrad.log_softmax(x),
}


def many(name, seed, thin):
    """sum and its like of rows in each way to lie, by themselves and in lanes, against single operations."""
    report = Report()
    call = MANY[name]
    lanes = {}
    for n in LENGTHS[::3] if thin > 1 else LENGTHS:
        for at, numbers in enumerate(list(rows_with(NUMBERS, n, seed))[seed % thin::thin]):
            x = np.array(numbers)
            t, gradient = operand(x, ("plain", "apart", "backwards")[at % 3])
            got = of_row(call(t), gradient)
            want = ([np.array([closed(name, numbers)]), shared(x)] if name == "max"
                    else single_operations(name, call, numbers))
            words = f"{name}({numbers})"
            if name in ("sum", "mean", "max", "logsumexp"):
                rule = closed(name, numbers)
                report.check(rule is None or same(float(got[0][0]), float(rule), 0) or rule == 0 == got[0][0],
                             f"{words}: {got[0]}, expected {rule}")
            finite = [abs(v) for v in numbers if math.isfinite(v)]
            room = 1e-13 * (1.0 + min(max(finite, default=0.0), 1e300))
            room = room if not any(abs(v) > 1e300 for v in finite) else 1e300
            agree(report, words, got, want, room, name)
            if n not in lanes:
                lanes[n] = flatgrad.vmap(flatgrad.compile(call))
            copies = 1 + at % 17
            batch = Tensor(np.resize(x, (copies, n)))
            z = lanes[n](batch)
            w = np.ones(z.shape) if z.ndim == 1 else np.resize(weights(n), z.shape)
            (z * Tensor(w, requires_grad=False)).sum().backward()
            lane = np.atleast_2d(z.data.reshape(copies, -1))[-1]
            agree(report, f"{words} in {copies} lanes", [lane, batch.grad.reshape(copies, n)[-1]], want, room, name)
    return report


def shared(x):
    """The gradient of max: equal parts for the largest, or for those that are nan. Of single operations, which compare
    two at a time, it is others."""
    wins = np.isnan(x) if np.isnan(x).any() else x == x.max()
    return wins / wins.sum()


def single_operations(name, call, numbers):
    """The same by nodes like micrograd's."""
    if name == "logsumexp" and set(numbers) == {-INF}:   # of which log(0) is an error
        return [np.array([-INF]), np.full(len(numbers), NAN)]
    values = [Value(v) for v in numbers]
    with flatgrad.scalar_graph():
        result = call(values)
    return of_row(result, lambda: np.array([v.grad for v in values]))


def of_row(result, gradient):
    if isinstance(result, Value):
        result.backward()
        return [np.array([result.data]), np.array(gradient())]
    total = flatgrad.dot(result, weights(len(result)))
    data = result.data if isinstance(result, Tensor) else np.array([v.data for v in result])
    total.backward()
    return [np.array(data), np.array(gradient())]


def agree(report, words, got, want, room, name):
    for k, (a, b) in enumerate(zip(got, want)):
        zeros = (a == 0) & (b == 0)   # of sums: their sign is not the same in every order
        bad = different(np.where(zeros, 0.0, a), np.where(zeros, 0.0, b), np.full(a.shape, room))
        report.check(not bad.any(), f"{words}: {'value' if k == 0 else 'gradient'} {a}, expected {b}", (name, words, k))


def entropy(seed, thin):
    """cross_entropy of special logits, against log_softmax and a mean."""
    report = Report()
    for n in (1, 2, 3, 5, 8, 17):
        for at, numbers in enumerate(list(rows_with(NUMBERS, n, seed))[seed % thin::thin]):
            label = at % n
            x, y = Tensor([numbers]), Tensor([numbers])
            z = losses.cross_entropy(x, [label])
            w = -y.log_softmax()[0, label]
            z.backward()
            w.backward()
            finite = max([abs(v) for v in numbers if math.isfinite(v)], default=0.0)
            agree(report, f"cross_entropy({numbers}, {label})", [np.array([z.data]), x.grad],
                  [np.array([w.data]), y.grad], 1e-12 * (1.0 + min(finite, 1e300)), "cross_entropy")
    return report


def product(seed, thin):
    """A layer and a product, one factor with a special number: a zero times inf is nan, in whatever tile it is."""
    report = Report()
    draw = np.random.default_rng(seed)
    shapes = [(m, n, k) for m in (1, 2, 5, 9) for n in (1, 3, 8, 17) for k in (1, 4, 9, 33)]
    for at, (m, n, k) in enumerate(shapes[seed % thin::thin]):
        for number in [NAN, INF, -INF, 5e-324, 1.7976931348623157e308, -0.0]:
            x, w = draw.integers(-3, 4, (m, k)).astype(float), draw.integers(-3, 4, (n, k)).astype(float)
            (x if at % 2 else w)[draw.integers(m if at % 2 else n), draw.integers(k)] = number
            a, b = Tensor(x), Tensor(w)
            z = flatgrad.linear(a, b)
            z.sum().backward()
            with np.errstate(all="ignore"):
                want = np.array([[sum(p * q for p, q in zip(sample, weight)) for weight in w.tolist()]
                                 for sample in x.tolist()])
                dx = np.repeat(np.array([[sum(c) for c in zip(*w.tolist())]]), m, 0)
                dw = np.repeat(np.array([[sum(c) for c in zip(*x.tolist())]]), n, 0)
            for label, got, expected in (("value", z.data, want), ("dx", a.grad, dx), ("dw", b.grad, dw)):
                zeros = (got == 0) & (expected == 0)
                with np.errstate(all="ignore"):
                    room = np.where(np.isfinite(expected), 1e-12 * np.abs(expected) + 1e-300, 0.0)
                bad = different(np.where(zeros, 0.0, got), np.where(zeros, 0.0, expected), room)
                report.check(not bad.any(), f"linear{(m, n, k)} with {number}: {label} {got[bad][:3]}, expected "
                             f"{expected[bad][:3]}", (m, n, k, number, label))
    return report


# ---- the tables of docs/numbers.md ----

EDGES = [NAN, INF, -INF, 0.0, -0.0, 5e-324]
PAIRS = [(NAN, 1.0), (1.0, NAN), (INF, 1.0), (INF, INF), (INF, -INF), (0.0, INF), (1.0, 0.0), (0.0, 0.0), (0.0, -0.0),
         (-0.0, -0.0)]
ROWS_OF_TWO = [(NAN, 1.0), (INF, 1.0), (INF, INF), (INF, -INF), (-INF, 1.0), (-INF, -INF), (-0.0, -0.0), (1.0, 1.0)]
OPERATORS = {"ADD": "x + y", "SUB": "x - y", "MUL": "x * y", "DIV": "x / y", "POW": "x ** y", "NEG": "-x",
             "ABS": "abs(x)"}


def cell(call, numbers):
    """The value, and after a semicolon the derivatives; or the error."""
    values = [Value(x) for x in numbers]
    try:
        z = call(*values)
    except (ArithmeticError, ValueError) as error:
        return type(error).__name__
    z.backward()
    return f"{z.data:.4g}; {', '.join(f'{v.grad:.4g}' for v in values)}"


def header(points):
    names = [", ".join(f"{x:g}" for x in point) for point in points]
    return ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(points)]


def table():
    """The lines of the tables."""
    public = [op for op in ROWS if op in ORACLE and (ROWS[op]["public"] or op in OPERATORS)]
    name = {op: OPERATORS.get(op, f"{ROWS[op]['name']}(x{', y' * (ROWS[op]['arity'] - 1)})") for op in public}
    lines = header([(x,) for x in EDGES])
    for op in [op for op in public if ROWS[op]["arity"] == 1]:
        lines.append(f"| `{name[op]}` | " + " | ".join(cell(ORACLE[op].apply, [x]) for x in EDGES) + " |")
    for k in (2, 3, -1, -2, 0, 0.5, -0.5):
        lines.append(f"| `x ** {k}` | " + " | ".join(cell(lambda x: x**k, [x]) for x in EDGES) + " |")
    lines += ["", *header(PAIRS)]
    for op in [op for op in public if ROWS[op]["arity"] == 2]:
        lines.append(f"| `{name[op]}` | " + " | ".join(cell(ORACLE[op].apply, p) for p in PAIRS) + " |")
    lines += ["", *header(ROWS_OF_TWO)]
    for what, call in MANY.items():
        first = what.endswith("softmax")
        lines.append(f"| `{what}([x, y]){'[0]' if first else ''}` | " + " | ".join(
            cell(lambda *x: call(list(x))[0] if first else call(list(x)), p) for p in ROWS_OF_TWO) + " |")
    return lines


# ---- rounds ----

def cases():
    """All rounds: a kind and a name."""
    rows = [op for op in ROWS if op in ORACLE]
    return ([("row", op) for op in rows] + [("floats", op) for op in rows if op != "COPY"]
            + [("many", name) for name in MANY] + [("entropy", ""), ("product", "")])


def one(kind, name, seed, thin):
    """What a case of this process's level says: a count and a list of words."""
    report = (row(name, seed, thin) if kind == "row" else floats(name, seed, thin) if kind == "floats"
              else many(name, seed, thin) if kind == "many" else entropy(seed, thin) if kind == "entropy"
              else product(seed, thin))
    return report.count, report.wrong


class Level:
    """A process that has one level of kernels, and does cases."""

    def __init__(self, level):
        self.level = level
        paths = os.pathsep.join([str(Path(__file__).resolve().parent.parent), *sys.path])
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from checks import special; special.serve()"], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env={**os.environ, "FLATGRAD_ISA": level, "PYTHONPATH": paths})

    def ask(self, *case):
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"{self.level}: the process ended with {self.process.wait()}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def serve():
    for line in sys.stdin:
        print(json.dumps(one(*json.loads(line))), flush=True)


def options(parser):
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these rows and instructions alone")
    parser.add_argument("--table", action="store_true", help="print the tables of docs/numbers.md, and end")


def run(limit, options):
    if options.table:
        print("\n".join(table()))
        return "that is what docs/numbers.md has"
    from flatgrad import _core
    every = [case for case in cases() if not options.only or case[1] in options.only]
    every = random.Random(1).sample(every, len(every)) if limit.short else every
    levels = [Level(level) for level in _core._kernel_levels()]
    count, wrong = 0, []
    try:
        for seed in limit:
            kind, name = every[seed % len(every)]
            for level in levels:
                level.ask(kind, name, seed // len(every), 11 if limit.short else 1)
            for level in levels:
                compared, words = level.answer()
                count += compared
                wrong += [f"{level.level}: {line}" for line in words]
            if wrong and not options.only:
                break
    finally:
        for level in levels:
            level.close()
    if wrong:
        raise AssertionError("\n".join(wrong))
    return (f"{count:,} numbers the same on {', '.join(level.level for level in levels)}, in {limit.rounds} rounds of "
            f"{len(every)}")
