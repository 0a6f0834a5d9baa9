"""Derivatives as nodes by some operands alone: the same numbers as by all, and none for the others.

A rule writes nodes only for operands whose gradients are wanted. Here each row of ops.def, each layer and each
instruction along rows is differentiated by every choice of its operands. The derivatives by all of them are held
against oracles in test_written_rows.py and test_written_blocks.py.
"""
import itertools

import numpy as np
import pytest

from flatgrad import Tensor, _core
from test_ops import IDS, ORACLE, ROWS, split
from test_written_rows import free_operands, ordinary_points


def choices(n):
    """Each choice of at least one of n, but all."""
    return [some for size in range(1, n) for some in itertools.combinations(range(n), size)]


def numbers(found):
    return [None if x is None else np.array(x.data, copy=True) for x in found]


def assert_same(found, expected, message):
    for x, y in zip(found, expected, strict=True):
        assert (x is None) == (y is None), message
        if x is not None:
            np.testing.assert_array_equal(x, y, err_msg=str(message))


SEVERAL = [op for op in IDS if ROWS[op]["arity"] > 1]


@pytest.mark.parametrize("op", SEVERAL)
def test_rows_by_some_operands(op):
    for point in ordinary_points(op, 4, seed=4):
        values, operands = split(op, point)
        z = ORACLE[op].apply(*operands)
        every = numbers(_core.written([z], [None], values))
        for some in choices(len(values)):
            found = numbers(_core.written([z], [None], [values[k] for k in some]))
            assert_same(found, [every[k] for k in some], (op, point, some))


@pytest.mark.parametrize("op", SEVERAL)
def test_rows_of_tensors_by_some_operands(op):
    """Operands of 2 x 3, and the last of them as one row; with a third of the results' gradients, and with all."""
    free, points = free_operands(op), ordinary_points(op, 60, seed=5)
    rest = points[0][len(free):]
    points = [p for p in points if p[len(free):] == rest][:6]
    if len(free) < 2 or len(points) < 6:
        return
    columns = [np.array([p[k] for p in points]).reshape(2, 3) for k in free]
    columns[-1] = columns[-1][:1]
    tensors = [Tensor(x) for x in columns]
    z = ORACLE[op].apply(*tensors, *rest)
    for output in (z, z[1:], [z[0, 0], z[1, 1]]):
        outputs = output if isinstance(output, list) else [output]
        every = numbers(_core.written(outputs, [None] * len(outputs), tensors))
        for some in choices(len(tensors)):
            found = numbers(_core.written(outputs, [None] * len(outputs), [tensors[k] for k in some]))
            assert_same(found, [every[k] for k in some], (op, some))
