"""Memory that fails while a program is simplified, at every allocation: there is no program then, and nothing is lost."""
import itertools

import numpy as np
import pytest
from checks.compiled import STEPS

from flatgrad import Value, _core

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def one_product_each(xs):
    """Sums of a product and two others: the product is put among the others."""
    return [(a * b + c + d).tanh() for a, b, c, d in zip(xs[::4], xs[1::4], xs[2::4], xs[3::4])]


def one_long_sum(xs):
    total = xs[0] * xs[1]
    for x in xs[2:]:
        total = total + x
    return [total]


def sums_alone(xs):
    return [(xs[k] + xs[k + 1] + xs[k + 2] + xs[k + 3]).exp() for k in range(len(xs) - 3)]


def dots_of_rows(xs):
    """Dot products of the same length, which are joined."""
    rows = [xs[k:k + 6] for k in range(0, len(xs) - 5, 6)]
    return [sum((a * b for a, b in zip(x, y)), 0.0) for x, y in itertools.combinations(rows[:12], 2)]


def dots_of_their_own(xs):
    """Dot products that have no list in common."""
    rows = [xs[k:k + 5] for k in range(0, len(xs) - 4, 5)]
    return [sum((a * b for a, b in zip(x, y))) for x, y in zip(rows[::2], rows[1::2])]


def products_of_one_list(xs):
    """A layer: the same x, many lists of weights."""
    x = xs[:5]
    return [sum((a * b for a, b in zip(x, xs[k:k + 5])), xs[k]).relu() for k in range(5, min(len(xs), 300) - 5)]


@pytest.mark.parametrize("function", [one_product_each, one_long_sum, sums_alone, dots_of_rows, dots_of_their_own,
                                      products_of_one_list])
def test_every_allocation(function):
    points = 0
    for count, before in itertools.product((24, 51, 68, 97, 210, 390), range(8)):   # lists grow at other places
        numbers = 0.5 * np.sin(np.arange(1.0, count + 1.0))
        inputs = [Value(x) for x in numbers]
        recording = _core._Recording(inputs)
        with recording:
            outputs = [x.sin() for x in inputs[:before]] + function(inputs)
        expected = [y.data for y in outputs]
        living = _core._live_programs()
        for n in itertools.count():
            _core._testing(fail_after=n)
            try:
                program = recording.program(outputs, STEPS)
            except MemoryError:
                assert _core._live_programs() == living
                continue
            finally:
                _core._testing(fail_after=-1)
            break
        assert n > 15 and _core._check()
        points += n
        np.testing.assert_allclose([y.data for y in program(inputs)], expected, rtol=1e-12)
        del program, outputs, recording
    assert points > 500
