"""One number out of a row's domain among many that are in it: the error is the scalar's, and names the element.

For every row of ops.def that has a domain, with operands that have a number for each element and such that have one for
all; the number that is out of it stands first, in the middle of a vector of lanes, behind whole vectors and last.
"""
import math

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core
from test_ops import IDS, ORACLE, ROWS, special_operands, split
from test_written_rows import ordinary_points

pytestmark = pytest.mark.usefixtures("nothing_left_behind")
LANES = 37


def outcome(op, point):
    try:
        return ORACLE[op].apply(*split(op, point)[1]).data
    except (ArithmeticError, ValueError) as error:
        return error.with_traceback(None)   # whose frames have Values


def faults(op):
    """Points that are out of the domain, one for each text of an error."""
    found = {}
    for point in special_operands(op):
        got = outcome(op, point)
        if isinstance(got, Exception):
            found.setdefault((type(got), point[1:] if ORACLE[op].immediate else ()), point)
    return list(found.values())


WITH_DOMAIN = [op for op in IDS if faults(op)]


def test_which_rows_have_a_domain():
    assert {"LOG", "LOG1P", "SQRT", "SIN", "COS", "TAN", "EXP", "EXPM1", "SINH", "COSH", "POWI", "POW", "POWC", "DIV",
            "BINARY_CROSS_ENTROPY", "KL_DIV", "KL_DIV_LOG"} <= set(WITH_DOMAIN)


def check_fault(op, points, place, error, alike=()):
    """Columns of the points, but one number for all of those operands of which all are alike."""
    immediate = ORACLE[op].immediate
    columns = [np.array([p[k] for p in points]) for k in range(1 if immediate else ROWS[op]["arity"])]
    rest = [int(points[0][1]) if op == "POWI" else points[0][1]] if immediate else []
    operands = [Tensor(x[:1] if k in alike else x) for k, x in enumerate(columns)]
    flatgrad.collect()
    nodes = flatgrad.stats()["nodes"]
    with pytest.raises(type(error)) as raised:
        ORACLE[op].apply(*operands, *rest)
    assert f"[{place}]" in str(raised.value), (op, str(raised.value))
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] <= nodes and _core._check()


@pytest.mark.parametrize("place", [0, 5, 20, LANES - 1])
@pytest.mark.parametrize("op", WITH_DOMAIN)
def test_the_element_that_is_out_of_the_domain(op, place):
    for bad in faults(op):
        good = [p for p in ordinary_points(op, 200, seed=7)
                if not isinstance(outcome(op, (*p[:1], *bad[1:]) if ORACLE[op].immediate else p), Exception)][:LANES]
        if ORACLE[op].immediate:
            good = [(p[0], *bad[1:]) for p in good]
        if len(good) < LANES:
            continue
        good[place] = bad
        check_fault(op, good, place, outcome(op, bad))


@pytest.mark.parametrize("op", [op for op in WITH_DOMAIN if ROWS[op]["arity"] == 2 and not ORACLE[op].immediate])
@pytest.mark.parametrize("alike", [0, 1])
def test_an_operand_that_is_one_number(op, alike):
    """The other's number at one place is at fault with it."""
    checked = 0
    for bad in faults(op):
        good = [tuple(bad[alike] if k == alike else x for k, x in enumerate(p))
                for p in ordinary_points(op, 200, seed=8)]
        good = [p for p in good if not isinstance(outcome(op, p), Exception)][:LANES]
        if len(good) < LANES or not math.isfinite(bad[alike]):
            continue
        good[20] = bad
        check_fault(op, good, 20, outcome(op, bad), alike=(alike,))
        checked += 1
    assert checked or op in ("DIV", "QUOTIENT", "KL_DIV", "KL_DIV_LOG", "BINARY_CROSS_ENTROPY", "POW", "POWC")


@pytest.mark.parametrize("number", [1.0, -1.0, 1.0 + 2.0**-30, 0.5, -0.0, math.inf, math.nan])
def test_the_slope_of_the_lowest_power(number):
    """Its exponent less 1 is no 32-bit integer."""
    k = -2**31
    value, tensor = Value(number), Tensor([number] * LANES)
    try:
        z = value ** k
    except ArithmeticError as error:
        with pytest.raises(type(error)):
            tensor ** k
        return
    z.backward()
    (tensor ** k).sum().backward()
    np.testing.assert_allclose(tensor.grad, [value.grad] * LANES, rtol=1e-12)


@pytest.mark.parametrize("name, number", [("sin", math.inf), ("cos", math.inf), ("log", -1.0)])
def test_the_steps_of_scans_in_lanes(name, number):
    """An error that names the row; of a lenient function C's result, in that sample alone."""
    t = Tensor([0.5, 1.0, 1.5])
    f = flatgrad.compile(lambda x: (flatgrad.vmap(
        lambda v: flatgrad.scan(lambda c, _: (getattr(c, name)() + 3.0, None), v, length=2)[0])(t) * x).sum())
    strict = (f(1.0), f.flat)[1]
    lenient = strict.lenient
    assert lenient([0.5, 1.0, 1.5], 1.0)[0] == strict([0.5, 1.0, 1.5], 1.0)[0] == f(1.0).data
    bad = [0.5, number, 1.5]
    with pytest.raises(ValueError, match=name):
        strict(bad, 1.0)
    value, slope = lenient(bad, 1.0)
    assert math.isnan(value) and math.isnan(slope[1])
    np.testing.assert_array_equal(slope[[0, 2]], strict([0.5, 1.0, 1.5], 1.0)[1][[0, 2]])


@pytest.mark.parametrize("op", [op for op in WITH_DOMAIN if not ORACLE[op].immediate])
def test_programs_have_the_errors_of_their_rows(op):
    """A program that was recorded at an ordinary point is called with every special one."""
    program = flatgrad.compile(lambda *x: ORACLE[op].apply(*x))
    program(*ordinary_points(op, 1)[0])
    failed = 0
    for point in special_operands(op):
        expected = outcome(op, point)
        if isinstance(expected, Exception):
            with pytest.raises(type(expected)):
                program(*point)
            failed += 1
        else:
            np.testing.assert_array_equal(program(*point).data, expected)
    assert failed
