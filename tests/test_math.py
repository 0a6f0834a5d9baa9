"""Scalars have the numbers of Python's math, bit for bit, on the C library that is there: wheels are linked with the oldest
versions of its functions, and compilers and linkers have functions of their own to offer."""
import math
import random
import struct

import pytest

import flatgrad
from flatgrad import Value

NAMES = ("cos", "cosh", "erf", "exp", "expm1", "log", "log1p", "sin", "sinh", "sqrt", "tan", "tanh")
ENDS = (0.0, -0.0, 1.0, -1.0, 5e-324, 2.2250738585072014e-308, 709.782712893384, -745.1332191019411, 1e-16, 0.5, math.pi)


def differences(ours, theirs, inputs):
    """How many results there are, and the inputs whose results differ in any bit; not where math has an error."""
    compared, different = 0, []
    for given in inputs:
        try:
            want = theirs(*given)
        except (OverflowError, ValueError, ZeroDivisionError):
            continue
        compared += 1
        if struct.pack("d", ours(*given)) != struct.pack("d", want):
            different.append(given)
    return compared, different


def numbers(count):
    draws = random.Random(17)
    wide = (draws.choice((-1, 1)) * 10.0 ** draws.uniform(-300, 300) for _ in range(count // 4))
    return [*ENDS, *(draws.uniform(-30, 30) for _ in range(count // 2)), *map(abs, wide),
            *(10.0 ** draws.uniform(-20, 3) for _ in range(count // 4))]


@pytest.mark.parametrize("name", NAMES)
def test_functions_of_one_number(name):
    ours, theirs = getattr(flatgrad, name), getattr(math, name)
    with flatgrad.no_grad():
        compared, different = differences(lambda x: ours(Value(x)).data, theirs, [(x,) for x in numbers(20_000)])
    assert compared > 12_000 and different == []


def test_powers_and_angles():
    draws = random.Random(18)
    pairs = [(x, y) for x in ENDS for y in ENDS if x or y > 0]
    pairs += [(10.0 ** draws.uniform(-20, 20), draws.uniform(-12, 12)) for _ in range(20_000)]
    with flatgrad.no_grad():
        for ours, theirs in (((lambda x, y: (Value(x) ** y).data), math.pow),
                             ((lambda x, y: flatgrad.atan2(x, Value(y)).data), math.atan2)):
            compared, different = differences(ours, theirs, pairs)
            assert compared > 20_000 and different == []


def test_a_last_bit_is_a_difference():
    assert differences(lambda x: math.nextafter(math.exp(x), 9.0), math.exp, [(0.5,), (1e9,)]) == (1, [(0.5,)])
