"""Tensor: values against NumPy, gradients against object arrays of Values, hand-written derivatives and
finite differences; views, lifetimes, failure.

An object array of Values runs the same expression as a Tensor, one operation of the tape for each
number, which is the scalar graph without any code of Tensor's. The derivatives of single operations
are test_ops.ORACLE's.
"""
import copy
import gc
import itertools
import math
import operator
import os
import pickle
import re
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
from leaks import nodes
from test_ops import IDS, ORACLE, ROWS, F

import flatgrad
from flatgrad import Tensor, Value, _core, losses
from flatgrad.nn import MLP, Layer

INF, NAN = math.inf, math.nan


pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def numbers(*shape, seed=0, low=-3.0, high=3.0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def objects(array):
    """An array of Values: the same numbers, one by one."""
    array = np.asarray(array, dtype=float)
    result = np.empty(array.shape, dtype=object)
    for index in np.ndindex(array.shape):
        result[index] = Value(array[index])
    return result


def data_of(x):
    if isinstance(x, (Tensor, Value)):
        return np.asarray(x.data)
    return np.vectorize(lambda v: v.data, otypes=[float])(x)


def grad_of(x):
    if isinstance(x, (Tensor, Value)):
        return np.asarray(x.grad)
    return np.vectorize(lambda v: v.grad, otypes=[float])(x)


def assert_close(got, expected, rel=1e-12, scale=0.0):
    """Equal to a relative 1e-12, or to that of what was added up."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, (got.shape, expected.shape)
    np.testing.assert_allclose(got, expected, rtol=rel, atol=rel * scale + 1e-300)


# ---- construction ----

GRID = [[1.0, -2.0, 0.5], [3.0, 4.0, -1.5]]

SOURCES = {
    "nested lists": lambda: GRID,
    "tuples": lambda: tuple([tuple(row) for row in GRID]),
    "a list of arrays": lambda: [np.array(row) for row in GRID],
    "an array": lambda: np.array(GRID),
    "float32": lambda: np.array(GRID, dtype=np.float32),
    "columns first": lambda: np.array(GRID, order="F"),
    "a view with steps": lambda: np.repeat(np.repeat(GRID, 2, axis=0), 3, axis=1)[::2, ::3],
    "a view backwards": lambda: np.array(GRID)[::-1, ::-1][::-1, ::-1],
    "an array that cannot be written": lambda: np.broadcast_to(np.array(GRID), (2, 3)),
    "an object array of numbers": lambda: np.array(GRID, dtype=object),
    "NumPy scalars": lambda: [[np.float64(x) for x in row] for row in GRID],
    "Values": lambda: [[Value(x) for x in row] for row in GRID],
    "an object array of Values": lambda: objects(GRID),
    "Values and numbers": lambda: [[Value(x) if x > 0 else x for x in row] for row in GRID],
    "a Tensor": lambda: Tensor(GRID),
    "a transposed Tensor": lambda: Tensor(np.array(GRID).T).T,
    "a list of Tensors": lambda: [Tensor(row) for row in GRID],
}


@pytest.mark.parametrize("kind", SOURCES)
def test_construction(kind, moving):
    t = Tensor(SOURCES[kind]())
    assert (t.shape, t.ndim, t.size, len(t)) == ((2, 3), 2, 6, 2)
    assert t.requires_grad is True
    constant = t.detach()
    for array in t.data, t.numpy(), t.data.copy(), t.data + 0.0, np.asarray(constant), np.array(constant):
        assert isinstance(array, np.ndarray) and array.dtype == np.float64 and array.shape == (2, 3)
        assert (type(array) is np.ndarray and array.flags.writeable) != (type(array) is type(t.data))
        assert array.tolist() == GRID
    assert t.tolist() == GRID and all(type(x) is float for row in t.tolist() for x in row)
    assert isinstance(t.grad, np.ndarray) and t.grad.tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("source, expected", [
    ([1, 2, 3], [1.0, 2.0, 3.0]), (range(3), [0.0, 1.0, 2.0]), ([True, False], [1.0, 0.0]),
    (np.array([1, 2], dtype=np.int8), [1.0, 2.0]), (np.array([True, False]), [1.0, 0.0]),
    (np.array([2**53, -(2**53)]), [2.0**53, -(2.0**53)]), ([2.5], [2.5]), ([[2.5]], [[2.5]]),
    ([INF, -INF], [INF, -INF]), ((1, 2.5), [1.0, 2.5]),
])
def test_construction_from_numbers(source, expected):
    t = Tensor(source)
    assert t.data.tolist() == expected and t.shape == np.shape(expected)


def test_special_numbers_are_kept_to_the_bit():
    t = Tensor([-0.0, NAN, 5e-324, 1.7976931348623157e308])
    assert math.copysign(1, t.data[0]) == -1 and math.isnan(t.data[1])
    assert t.data[2:].tolist() == [5e-324, 1.7976931348623157e308]


@pytest.mark.parametrize("source", [
    1.0, np.array(1.0), np.zeros((2, 2, 2)), [[[1.0]]], [1.0, [2.0]], [[1.0, 2.0], [3.0]], ["1", "2"], "12",
    b"12", None, [None], [1j], np.array([1j]), {1: 2}, [2**53 + 1], np.array(["a"]), object(),
    {1.0, 2.0}, frozenset([1.0]), bytearray(b"12"),
    np.array([None]), np.array(["2020-01-01"], dtype="datetime64[D]"), [Value(1.0), "a"],
    [[Value(1.0)], [2.0, 3.0]], [Value(1.0), [2.0]], Value(1.0), [2**2000], [object()],
], ids=lambda x: re.sub(" at 0x.*", "", ascii(x))[:40])
def test_what_is_no_tensor(source):
    before = nodes()
    with pytest.raises((TypeError, ValueError), match="data"):
        Tensor(source)
    assert nodes() == before


def test_wrong_calls_of_tensor():
    for call in (lambda: Tensor(), lambda: Tensor([1.0], True, 3), lambda: Tensor([1.0], grad=True),
                 lambda: Tensor([1.0]).sum(0, 1), lambda: Tensor([1.0]).relu(1)):
        with pytest.raises(TypeError):
            call()


def test_gradients_flow_back_through_construction(moving):
    x, y = Value(2.0), Value(3.0)
    t = Tensor([[x, 1.0], [y, x]])
    (t * np.array([[1.0, 10.0], [100.0, 1000.0]])).sum().backward()
    assert (x.grad, y.grad) == (1001.0, 100.0)
    u = Tensor(t)
    t.grad = x.grad = y.grad = 0.0
    (u * u).sum().backward()
    assert t.grad.tolist() == u.grad.tolist() == [[4.0, 2.0], [6.0, 4.0]]
    assert (x.grad, y.grad) == (8.0, 6.0)


def test_a_copy_has_data_of_its_own():
    x = Value(2.0)
    t = Tensor([x, x])
    t.data = [5.0, 6.0]
    assert x.data == 2.0
    x.data = 7.0
    assert t.data.tolist() == [5.0, 6.0]
    source = np.array([1.0, 2.0])
    u = Tensor(source)
    source[0] = 9.0
    assert u.data.tolist() == [1.0, 2.0]


# ---- data, grad and numbers ----

def test_data_and_grad_are_copies():
    t = Tensor(GRID)
    for array in t.data.copy(), t.grad.copy(), t.numpy(), np.asarray(t.detach()):
        array[:] = 99.0
    assert t.data.tolist() == GRID and t.grad.tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("name", ["data", "grad"])
def test_setting(name, moving):
    t = Tensor(GRID)
    setattr(t, name, 7)
    assert getattr(t, name).tolist() == [[7.0] * 3] * 2
    for new in GRID, tuple(GRID), np.array(GRID), np.array(GRID, order="F"), np.array(GRID, dtype=np.float32):
        setattr(t, name, 0.0)
        setattr(t, name, new)
        assert getattr(t, name).tolist() == GRID
    setattr(t, name, getattr(t, name) * 2)
    assert getattr(t, name).tolist() == (np.array(GRID) * 2).tolist()
    setattr(t, name, np.float64(1.5))
    assert getattr(t, name).tolist() == [[1.5] * 3] * 2
    assert getattr(t[1, 2], name) == 1.5
    setattr(t[1, 2], name, -4.0)
    assert getattr(t, name).tolist() == [[1.5] * 3, [1.5, 1.5, -4.0]]


@pytest.mark.parametrize("name", ["data", "grad"])
@pytest.mark.parametrize("bad", [
    [1.0, 2.0], [[1.0], [2.0]], np.zeros((3, 2)), np.zeros((2, 3, 1)), [1.0, 2.0, 3.0], "abc", None, [["a"] * 3] * 2,
    1j, [[1.0, 2.0, 3.0], [4.0]],
], ids=lambda x: ascii(x)[:30])
def test_setting_what_does_not_fit(name, bad):
    t = Tensor(GRID)
    t.grad = GRID
    with pytest.raises((TypeError, ValueError), match=name):
        setattr(t, name, bad)
    assert t.data.tolist() == t.grad.tolist() == GRID
    with pytest.raises(AttributeError):
        delattr(t, name)


@pytest.mark.parametrize("name", ["data", "grad"])
def test_the_message_names_both_shapes(name):
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        setattr(Tensor(GRID), name, np.zeros((3, 2)))


def test_shape_attributes_cannot_be_set():
    t = Tensor(GRID)
    for name in "shape", "ndim", "size", "T":
        with pytest.raises(AttributeError):
            setattr(t, name, 1)


def test_item():
    assert Tensor([2.5]).item() == Tensor([[2.5]]).item() == 2.5
    assert type(Tensor([2]).item()) is float
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        Tensor(GRID).item()


def test_repr_names_shape_or_numbers():
    assert repr(Tensor([1.0, 2.5])).startswith("Tensor(") and "2.5" in repr(Tensor([1.0, 2.5]))
    assert len(repr(Tensor(np.zeros((1000, 1000))))) < 1000


def test_asarray_with_a_type():
    assert np.asarray(Tensor(GRID, requires_grad=False), dtype=np.float32).dtype == np.float32
    assert np.asarray(Tensor([1.0, 2.0], requires_grad=False), dtype=int).tolist() == [1, 2]


# ---- indexing, views, iteration ----

INDICES = [
    np.s_[0], np.s_[-1], np.s_[1], np.s_[1, 2], np.s_[-1, -3], np.s_[1:], np.s_[:], np.s_[::-1], np.s_[::2],
    np.s_[-2:], np.s_[1:2, 1:], np.s_[:, 0], np.s_[:, -1], np.s_[:, 1:3], np.s_[0, :], np.s_[0, ::-1],
    np.s_[:, ::-2], np.s_[2:0:-1, 0], np.s_[1, 1:2], np.s_[:2, :2], np.s_[:, :], np.s_[np.int64(1)],
    np.s_[np.int8(1), np.int64(-1)], np.s_[0:1], np.s_[0:1, 0:1], np.s_[:100, -100:],
]
FANCY = [
    [0, 2], [2, 0, 2, 2], [-1], np.array([1, 1, 0]), np.array([-1, -2], dtype=np.int8),
    np.array([True, False, True]), [False, True, True], np.array([[0, 1]])[0],
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing(index, moving):
    array = numbers(3, 4)
    t = Tensor(array)
    expected = array[index]
    part = t[index]
    if np.ndim(expected) == 0:
        assert type(part) is Value and part.data == expected
    else:
        assert type(part) is Tensor and part.shape == expected.shape
        assert part.data.tolist() == expected.tolist()
    # What is taken shares its gradients with what it was taken from.
    seed = numbers(*np.shape(expected), seed=1)
    out = part * seed
    (out if isinstance(out, Value) else out.sum()).backward()
    grads = np.zeros((3, 4))
    grads[index] = seed
    assert t.grad.tolist() == grads.tolist()
    assert np.array_equal(part.grad, seed)
    part.grad = 0.25
    part.data = -1.0
    array[index], grads[index] = -1.0, 0.25
    assert t.data.tolist() == array.tolist() and t.grad.tolist() == grads.tolist()


@pytest.mark.parametrize("index", FANCY, ids=str)
@pytest.mark.parametrize("shape", [(3,), (3, 4)])
def test_rows_by_an_array_are_copies(index, shape, moving):
    array = numbers(*shape)
    t = Tensor(array)
    expected = array[index]
    part = t[index]
    assert type(part) is Tensor and part.shape == expected.shape and part.data.tolist() == expected.tolist()
    seed = numbers(*expected.shape, seed=1)
    (part * seed).sum().backward()
    grads = np.zeros(shape)
    np.add.at(grads, np.asarray(index), seed)
    assert_close(t.grad, grads)
    part.data = -1.0
    assert t.data.tolist() == array.tolist()


@pytest.mark.parametrize("index", [3, -4, (0, 4), (0, -5), (3, 0), [0, 3], np.array([-4])], ids=str)
def test_an_index_out_of_range(index):
    t = Tensor(numbers(3, 4))
    with pytest.raises(IndexError):
        t[index]


@pytest.mark.parametrize("index", [
    "a", 1.0, None, (0, 1, 2), (0, "a"), [0.5], {}, np.array([1.5]), [True, False], np.array([True] * 4), True,
    Value(1.0)], ids=lambda x: ascii(x)[:20])
def test_a_wrong_index(index):
    t = Tensor(numbers(3, 4))
    with pytest.raises((IndexError, TypeError)):
        t[index]


def test_a_flat_tensor_takes_one_index():
    t = Tensor([1.0, 2.0, 3.0])
    assert t[1].data == 2.0 and t[-1].data == 3.0 and t[::-1].tolist() == [3.0, 2.0, 1.0]
    with pytest.raises(IndexError):
        t[0, 0]
    with pytest.raises(IndexError):
        t[3]


def test_elements_cannot_be_assigned():
    t = Tensor([1.0, 2.0])
    with pytest.raises(TypeError):
        t[0] = 5.0
    with pytest.raises(TypeError):
        del t[0]


def test_iteration():
    t = Tensor(GRID)
    rows = list(t)
    assert [type(row) for row in rows] == [Tensor] * 2 and [row.tolist() for row in rows] == GRID
    assert [v.data for row in t for v in row] == [x for row in GRID for x in row]
    a, b, c = t[0]
    assert type(a) is Value and (a.data, b.data, c.data) == (1.0, -2.0, 0.5)
    (a * b + c).backward()
    assert t.grad.tolist() == [[-2.0, 1.0, 1.0], [0.0] * 3]
    assert [v.data for v in reversed(t[1])] == [-1.5, 4.0, 3.0]


def test_an_element_is_one_object():
    t = Tensor([1.0, 2.0, 3.0])
    a = t[1]
    assert t[1] is a and t[-2] is a and t[1:][0] is a and list(t)[1] is a
    y = a * 2.0
    assert a in y._prev
    a.label = "middle"
    del a, y
    assert t[1].label == "middle"


def test_views_of_views(moving):
    array = numbers(6, 5)
    t = Tensor(array)
    view, expected = t[1:, ::-1][::2].T[1:4], array[1:, ::-1][::2].T[1:4]
    assert view.data.tolist() == expected.tolist()
    (view * expected).sum().backward()
    grads = np.zeros((6, 5))
    grads[1:, ::-1][::2].T[1:4] = expected
    assert t.grad.tolist() == grads.tolist() and view.grad.tolist() == expected.tolist()


@pytest.mark.parametrize("shape", [(3, 4), (4,), (1, 4), (4, 1)])
def test_transposed(shape, moving):
    array = numbers(*shape)
    t = Tensor(array)
    assert t.T.shape == array.T.shape and t.T.data.tolist() == array.T.tolist()
    (t.T * array.T).sum().backward()
    assert t.grad.tolist() == array.tolist() and t.T.grad.tolist() == array.T.tolist()
    assert t.T.T.data.tolist() == array.tolist()


@pytest.mark.parametrize("new", [(12,), (2, 6), (4, 3), (-1,), (3, -1), (-1, 2), (1, 12), (12, 1)])
@pytest.mark.parametrize("make", [lambda t: t, lambda t: t.T, lambda t: t[:, ::-1], lambda t: t.reshape(2, 6)])
def test_reshape(new, make, moving):
    array = numbers(3, 4)
    t = Tensor(array)
    expected = make(array).reshape(new)
    for part in make(t).reshape(*new), make(t).reshape(new), make(t).reshape(list(new)):
        assert part.shape == expected.shape and part.data.tolist() == expected.tolist()
        t.grad = 0.0
        (part * expected).sum().backward()
        assert t.grad.tolist() == array.tolist()


@pytest.mark.parametrize("new", [(5,), (2, 5), (-1, 5), (-1, -1), (2, 2, 3), (0,), (-2, 6), (), ("a",),
                                 (1.5, 8), (None,)])
def test_wrong_shapes_to_reshape_to(new):
    with pytest.raises((TypeError, ValueError)):
        Tensor(numbers(3, 4)).reshape(*new)


def test_the_message_of_reshape_names_both_shapes():
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(5, 2\)|\(5, 2\).*\(3, 4\)"):
        Tensor(numbers(3, 4)).reshape(5, 2)


# ---- elementwise operations ----

CROSSING = {"GELU_SLOPE", "GELU_TANH_SLOPE", "SILU_SLOPE"}   # sums of numbers near 1 that pass through 0
EXACT = {"NEG", "RELU", "ABS", "ADD", "SUB", "MUL", "DIV", "SQRT", "MAXIMUM", "MINIMUM", "WHERE", "CLIP"}
PAIRS = [((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 4), (1, 4)), ((3, 4), (3, 1)), ((3, 4), ()), ((3, 4), (1,)),
         ((3, 4), (1, 1)), ((4,), (4,)), ((4,), (3, 1)), ((4,), (1, 4)), ((4,), (1,)), ((4,), ()), ((4,), (3, 4)),
         ((1,), (4,)), ((3, 1), (1, 4)), ((3, 1), (4,)), ((1, 4), (3, 1)), ((1, 1), (3, 4))]

# What stands beside a Tensor: of each shape that it comes in, the operand, and whether it has a gradient.
KINDS = {
    "Tensor": (Tensor, lambda shape: shape != (), True),
    "constant": (lambda a: Tensor(a, requires_grad=False), lambda shape: shape != (), False),
    "array": (np.array, lambda shape: True, False),
    "array of float32": (lambda a: np.array(a, dtype=np.float32), lambda shape: True, False),
    "Value": (lambda a: Value(float(a)), lambda shape: shape == (), True),
    "float": (float, lambda shape: shape == (), False),
    "NumPy scalar": (np.float64, lambda shape: shape == (), False),
}


def ordinary(op, k, shape, seed=0):
    """Operands in the domain, away from kinks; float32 holds them."""
    low, high = (0.25, 3.0) if ORACLE[op].positive or op == "DIV" else (-3.0, 3.0)
    if op == "BINARY_CROSS_ENTROPY":
        low, high = 0.05, 0.95
    array = np.round(numbers(*shape, seed=seed + 17 * k, low=low, high=high) * 1024) / 1024
    if op == "WHERE" and k == 0:
        array = np.floor(array) % 2
    return array


def expected_value(op, arrays):
    return np.vectorize(ORACLE[op].value, otypes=[float])(*arrays)


def expected_gradients(op, arrays, result, seed):
    """ORACLE's derivatives, element by element, summed over what was broadcast."""
    def partials(*point):
        *point, z = point
        found = ORACLE[op].partials(*[F(x) for x in point], F(z))
        return tuple(found) + (F(0),) * (len(arrays) - len(found))

    full = np.broadcast_arrays(*arrays, result)
    with np.errstate(all="ignore"):
        slopes = [np.vectorize(lambda *point: partials(*point)[k], otypes=[float])(*full) for k in range(len(arrays))]
    for slope, array in zip(slopes, arrays):
        contribution = np.where(slope == 0, 0.0, slope * seed)
        size = np.abs(contribution)
        for axis in range(contribution.ndim - array.ndim):
            contribution, size = contribution.sum(axis=0), size.sum(axis=0)
        for axis, length in enumerate(array.shape):
            if length == 1 and contribution.shape[axis] != 1:
                contribution = contribution.sum(axis=axis, keepdims=True)
                size = size.sum(axis=axis, keepdims=True)
        yield contribution, size.max(initial=0.0)


def check_elementwise(op, arrays, operands, has_gradient, apply=None):
    apply = apply or ORACLE[op].apply
    expected = expected_value(op, arrays)
    z = apply(*operands)
    assert type(z) is Tensor and z.shape == expected.shape and z.requires_grad is True
    if op in EXACT:
        assert z.data.tolist() == expected.tolist()
    else:
        assert_close(z.data, expected, rel=2e-15, scale=float(op in CROSSING))
    seed = numbers(*expected.shape, seed=99)
    (z * seed).sum().backward()
    assert_close(z.grad, seed, rel=0)
    for operand, wanted, (grads, size) in zip(operands, has_gradient,
                                              expected_gradients(op, arrays, z.data, seed)):
        if wanted:
            assert_close(operand.grad, grads.reshape(np.shape(operand.grad)), scale=size)
        elif isinstance(operand, Tensor):
            assert not operand.grad.any()


@pytest.mark.parametrize("op", [i for i in IDS if ROWS[i]["arity"] == 1 and not ORACLE[i].immediate])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (1,), (1, 1), (37,), (9, 17)])
def test_unary(op, shape, moving):
    array = ordinary(op, 0, shape)
    forms = [ORACLE[op].apply]
    if ROWS[op]["public"]:
        forms += [lambda t: getattr(t, ROWS[op]["name"])(), getattr(flatgrad, ROWS[op]["name"])]
    if op == "ABS":
        forms.append(abs)
    for apply in forms:
        check_elementwise(op, [array], [Tensor(array)], [True], apply)
    views = [(Tensor(array.T).T, array), (Tensor(array[::-1].copy())[::-1], array)]
    for view, of in views:
        check_elementwise(op, [of], [view], [True])


@pytest.mark.parametrize("op", ["POWC", "POWI"])
@pytest.mark.parametrize("constant", [0, 1, 2, 3, -1, -2, 7, 0.5, -0.5, 1.5, np.int64(2), np.float64(0.5)])
def test_constant_powers(op, constant, moving):
    if (op == "POWI") != isinstance(constant, (int, np.integer)):
        return
    array = ordinary("POW", 0, (3, 4)) * (np.array([1, -1, 1, -1]) if op == "POWI" else 1)
    t = Tensor(array)
    z = t**constant
    assert_close(z.data, expected_value(op, [array, np.array(float(constant))]), rel=2e-15)
    z.sum().backward()
    assert_close(t.grad, float(constant) * array ** float(constant - 1))


BINARY = [i for i in IDS if ROWS[i]["arity"] == 2 and not ORACLE[i].immediate]


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("left, right", PAIRS + [pair[::-1] for pair in PAIRS if pair[0] != pair[1]], ids=str)
def test_binary(op, left, right):
    """Every kind of operand on either side of a Tensor, of every shape that it can be broadcast from."""
    count = 0
    for a, b in itertools.product(KINDS, repeat=2):
        if "Tensor" not in (a, b) and "constant" not in (a, b):
            continue
        (make_a, fits_a, has_a), (make_b, fits_b, has_b) = KINDS[a], KINDS[b]
        if not (fits_a(left) and fits_b(right)) or not (has_a or has_b):
            continue
        if op == "POW" and not has_b:
            continue   # a constant exponent is another row
        arrays = [ordinary(op, 0, left), ordinary(op, 1, right)]
        check_elementwise(op, arrays, [make_a(arrays[0]), make_b(arrays[1])], [has_a, has_b])
        count += 1
    assert count >= 2


@pytest.mark.parametrize("op", BINARY)
def test_binary_while_ids_move(op):
    _core._testing(collect_floor=0)
    for left, right in PAIRS:
        test_binary(op, left, right)


@pytest.mark.parametrize("exponent", [np.array([0.5, 2.0, -1.0, 3.0]), np.array([[2], [3]]), np.float64(2.5),
                                      np.array(1.5)], ids=str)
def test_powers_with_arrays_as_exponents(exponent):
    base = numbers(2, 4, low=0.5)
    t = Tensor(base)
    z = t**exponent
    assert_close(z.data, base**exponent, rel=1e-14)
    z.sum().backward()
    assert_close(t.grad, exponent * base ** (exponent - 1.0))
    u = Tensor(numbers(2, 4))
    z = abs(exponent) ** u
    assert_close(z.data, abs(exponent) ** u.data, rel=1e-14)
    z.sum().backward()
    assert_close(u.grad, abs(exponent) ** u.data * np.log(abs(exponent)) * np.ones((2, 4)))


@pytest.mark.parametrize("op", ["WHERE", "CLIP"])
@pytest.mark.parametrize("shapes", [((3, 4),) * 3, ((3, 4), (4,), ()), ((), (3, 4), (3, 1)), ((4,), (3, 1), (1, 4)),
                                    ((3, 1), (), (4,)), ((), (), (3, 4)), ((4,), (4,), (4,)),
                                    ((1,), (4,), (1, 1))], ids=str)
def test_ternary(op, shapes, moving):
    for kinds in itertools.product(["Tensor", "Value", "array", "float"], repeat=3):
        if "Tensor" not in kinds:
            continue
        if not all(KINDS[kind][1](shape) for kind, shape in zip(kinds, shapes)):
            continue
        arrays = [ordinary(op, k, shape) for k, shape in enumerate(shapes)]
        if op == "CLIP":   # no ties, and bounds mostly in order
            arrays[1], arrays[2] = arrays[1] - 0.7501, arrays[2] + 0.7502
        operands = [KINDS[kind][0](array) for kind, array in zip(kinds, arrays)]
        check_elementwise(op, arrays, operands, [KINDS[kind][2] for kind in kinds])


@pytest.mark.parametrize("apply", [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow,
                                   flatgrad.maximum, flatgrad.minimum])
@pytest.mark.parametrize("left, right", [((3, 4), (3,)), ((3, 4), (4, 3)), ((3,), (4,)), ((2, 3), (3, 3)),
                                         ((3, 4), (2, 1))],
                         ids=str)
def test_shapes_that_cannot_be_broadcast(apply, left, right):
    a, b = numbers(*left, low=1.0), numbers(*right, low=1.0)
    before = nodes()
    for x, y in (Tensor(a), Tensor(b)), (Tensor(a), b), (a, Tensor(b)):
        with pytest.raises(ValueError) as info:
            apply(x, y)
        assert str(left) in str(info.value) and str(right) in str(info.value)
    del x, y, info
    assert nodes() == before


@pytest.mark.parametrize("bad", ["a", None, 1j, object(), {}, np.array(["a", "b", "c"]), np.array([1j, 1j, 1j])],
                         ids=lambda x: ascii(x)[:20])
def test_operands_of_other_types(bad):
    t = Tensor([1.0, 2.0, 3.0])
    for function in operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.matmul:
        for call in lambda: function(t, bad), lambda: function(bad, t):
            with pytest.raises(TypeError):
                call()
    for function in flatgrad.maximum, flatgrad.minimum:
        with pytest.raises(TypeError):
            function(t, bad)
    with pytest.raises(TypeError):
        flatgrad.relu(bad)


def test_augmented_assignment():
    t = u = Tensor([1.0, 2.0])
    t += 1.0
    t *= u
    t -= np.array([0.5, 0.5])
    t /= 2.0
    t **= 2
    assert u.tolist() == [1.0, 2.0] and t.tolist() == [0.5625, 7.5625]
    t.sum().backward()
    assert u.grad.tolist() == [2 * 0.75 * 1.5, 2 * 2.75 * 2.5]


# ---- domains ----

@pytest.mark.parametrize("apply, bad, error", [
    (lambda t: t.log(), -2.5, ValueError), (lambda t: t.log(), 0.0, ValueError),
    (lambda t: t.sqrt(), -2.5, ValueError),
    (lambda t: t.exp(), 1000.0, OverflowError), (lambda t: t.sin(), INF, ValueError),
    (lambda t: t.cos(), -INF, ValueError),
    (lambda t: 1.0 / t, 0.0, ZeroDivisionError), (lambda t: t / t, 0.0, ZeroDivisionError),
    (lambda t: np.ones(3) / t, 0.0, ZeroDivisionError), (lambda t: t**-1, 0.0, ZeroDivisionError),
    (lambda t: t**0.5, -2.5, ValueError), (lambda t: t**2, 1e200, OverflowError), (lambda t: t**t, -2.5, ValueError),
    (flatgrad.log, -2.5, ValueError),
])
@pytest.mark.parametrize("where", [(0, 0), (1, 2), (0, 1)])
def test_a_domain_error_changes_nothing(apply, bad, error, where):
    array = numbers(2, 3, low=1.0, high=2.0)
    array[where] = bad
    t = Tensor(array)
    t.grad = GRID
    before = nodes()
    with pytest.raises(error) as info:
        apply(t)
    assert repr(bad) in str(info.value)   # the operand that it was
    del info
    assert nodes() == before
    assert t.data.tolist() == array.tolist() and t.grad.tolist() == GRID


def test_the_message_says_which_element_it_was():
    array = np.ones((4, 5))
    array[2, 3] = -2.5
    with pytest.raises(ValueError, match=r"log\(-2\.5\).*\b2, 3\b"):
        Tensor(array).log()
    with pytest.raises(ValueError, match=r"log\(-2\.5\).*\b1\b"):
        Tensor([1.0, -2.5, 1.0]).log()


@pytest.mark.parametrize("size", [1, 3, 4, 8, 9, 64, 65])
def test_a_domain_error_at_every_place_of_a_vector(size):
    for bad in range(size):
        array = np.ones(size)
        array[bad] = -1.0
        with pytest.raises(ValueError, match="math domain error"):
            Tensor(array).log()


@pytest.mark.parametrize("op", [i for i in IDS if ROWS[i]["arity"] == 1 and not ORACLE[i].immediate])
def test_special_points(op):
    """As the scalar operation does it, for each number alone and in company."""
    for x in [0.0, -0.0, 1.0, -1.0, 1e-200, -1e200, 5e-324, 709.0, 710.0, -750.0, 40.0, INF, -INF, NAN]:
        value = Value(x)
        try:
            out = ORACLE[op].apply(value)
        except (ArithmeticError, ValueError) as error:
            for size in 1, 5:
                with pytest.raises(type(error)):
                    ORACLE[op].apply(Tensor([1.0] * (size - 1) + [x]))
            continue
        out.backward()
        for size in 1, 5, 17:
            t = Tensor([x] * size)
            z = ORACLE[op].apply(t)
            z.sum().backward()
            for got, expected in (z.data, out.data), (t.grad, value.grad):
                np.testing.assert_allclose(got, [expected] * size, rtol=2e-15, atol=0)
                assert math.isnan(expected) or (np.signbit(got) == (math.copysign(1, expected) < 0)).all()


@pytest.mark.parametrize("op", BINARY)
def test_special_points_of_two_operands(op):
    points = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e200, -1e200, 5e-324, INF, -INF, NAN]
    for x, y in itertools.product(points, repeat=2):
        a, b = Value(x), Value(y)
        try:
            out = ORACLE[op].apply(a, b)
        except (ArithmeticError, ValueError) as error:
            with pytest.raises(type(error)):
                ORACLE[op].apply(Tensor([1.0, x, 1.0]), Tensor([1.0, y, 1.0]))
            continue
        out.backward()
        t, u = Tensor([1.0, x, 1.0]), Tensor([1.0, y, 1.0])
        z = ORACLE[op].apply(t, u)
        z.sum().backward()
        got = [z.data[1], t.grad[1], u.grad[1]]
        np.testing.assert_allclose(got, [out.data, a.grad, b.grad], rtol=2e-15, atol=0, err_msg=f"{op} {x} {y}")


def test_nan_and_inf_stay_where_they_are():
    t = Tensor([[1.0, NAN], [INF, 2.0]])
    z = t * 2.0 + 1.0
    assert np.array_equal(z.data, [[3.0, NAN], [INF, 5.0]], equal_nan=True)
    z[1, 1].backward()
    assert t.grad.tolist() == [[0.0, 0.0], [0.0, 2.0]]
    assert np.isnan(t.sum().data) and np.isnan(t.sum(axis=0).data[1]) and t.sum(axis=0).data[0] == INF


def test_a_zero_gradient_is_not_skipped():
    """0 * inf is nan and stays nan, as in the scalar graph."""
    for scalar in True, False:
        w, x = objects([INF, 1.0]), objects([2.0, 3.0])
        if not scalar:
            w, x = Tensor([INF, 1.0]), Tensor([2.0, 3.0])
        ((w * x).sum() * 0.0).backward()
        assert np.isnan(grad_of(x)[0]) and grad_of(x)[1] == 0.0
        w, x = (objects([INF, 1.0]), objects([2.0, 3.0])) if scalar else (Tensor([INF, 1.0]), Tensor([2.0, 3.0]))
        ((w @ x) * 0.0).backward()
        assert np.isnan(grad_of(x)[0]) and grad_of(x)[1] == 0.0


# ---- products of matrices ----

SHAPES = [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((1, 1), (1, 1)), ((1, 3), (3, 1)),
          ((3, 1), (1, 3)), ((1,), (1, 4)), ((5, 1), (1,)), ((17, 9), (9, 13)), ((4, 33), (33, 1)), ((1,), (1,)),
          ((8, 64), (64,)), ((64,), (64, 8)), ((31,), (31,))]


@pytest.mark.parametrize("left, right", SHAPES, ids=str)
@pytest.mark.parametrize("kinds", ["both", "left", "right", "array on the right", "array on the left"])
def test_matmul(left, right, kinds, moving):
    a, b = numbers(*left), numbers(*right, seed=1)
    expected = a @ b
    seed = numbers(*expected.shape, seed=2)
    x = a if kinds == "array on the left" else Tensor(a, requires_grad=kinds != "right")
    y = b if kinds == "array on the right" else Tensor(b, requires_grad=kinds != "left")
    z = x @ y
    scale = np.abs(a).max() * np.abs(b).max() * a.shape[-1]
    if expected.ndim == 0:
        assert type(z) is Value
        (z * float(seed)).backward()
    else:
        assert type(z) is Tensor and z.shape == expected.shape
        (z * seed).sum().backward()
    assert_close(z.data, expected, scale=scale)
    a2, b2 = np.atleast_2d(a), b.reshape(-1, 1) if b.ndim == 1 else b
    s2 = seed.reshape(len(a2), b2.shape[1])
    for operand, wanted, grads in ((x, kinds in ("both", "left", "array on the right"), (s2 @ b2.T).reshape(left)),
                                   (y, kinds in ("both", "right", "array on the left"), (a2.T @ s2).reshape(right))):
        if wanted:
            assert_close(operand.grad, grads, scale=10 * scale)
        elif isinstance(operand, Tensor):
            assert not operand.grad.any()


@pytest.mark.parametrize("left, right", [((2, 3), (2, 3)), ((3,), (4,)), ((2, 3), (2,)), ((3,), (4, 3)),
                                         ((2, 3), (4, 5))], ids=str)
def test_matmul_of_shapes_that_do_not_fit(left, right):
    for x, y in ((Tensor(numbers(*left)), Tensor(numbers(*right))), (Tensor(numbers(*left)), numbers(*right)),
                 (numbers(*left), Tensor(numbers(*right)))):
        with pytest.raises(ValueError) as info:
            x @ y
        assert str(left) in str(info.value) and str(right) in str(info.value)


def test_matmul_takes_no_numbers():
    t = Tensor([1.0, 2.0])
    for call in lambda: t @ 2.0, lambda: 2.0 @ t, lambda: t @ Value(1.0), lambda: Value(1.0) @ t:
        with pytest.raises((TypeError, ValueError)):
            call()


@pytest.mark.parametrize("make", [lambda t: t.T, lambda t: t[:, ::-1], lambda t: t[::2, 1:],
                                  lambda t: t.reshape(2, 12),
                                  lambda t: t[::-1].T[1:], lambda t: t[:, 2], lambda t: t[1], lambda t: t[[2, 0, 2]]])
def test_matmul_of_views(make, moving):
    a = numbers(4, 6)
    t, o = Tensor(a), objects(a)
    x, y = make(t), make(o)
    product, expected = x @ x.T, y @ y.T
    assert_close(data_of(product), data_of(expected), scale=50)
    (product if isinstance(product, Value) else product.sum()).backward()
    (expected if isinstance(expected, Value) else expected.sum()).backward()
    assert_close(t.grad, grad_of(o), scale=50)


# ---- reductions ----

def split_gradient(array, axis):
    """The largest share the gradient."""
    best = array == array.max(axis=axis, keepdims=True)
    return best / best.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize("shape, axis", [((5,), None), ((3, 4), None), ((3, 4), 0), ((3, 4), 1), ((3, 4), -1),
                                         ((3, 4), -2), ((1, 4), 0), ((4, 1), 1), ((1, 1), None), ((65,), None),
                                         ((9, 33), 0), ((9, 33), 1), ((1,), None)])
@pytest.mark.parametrize("name", ["sum", "mean", "max", "logsumexp"])
def test_reductions(name, shape, axis, moving):
    array = numbers(*shape)
    formula = {"sum": np.sum, "mean": np.mean, "max": np.max,
               "logsumexp": lambda a, axis: np.log(np.exp(a).sum(axis=axis))}[name]
    expected = formula(array, axis=axis)
    t = Tensor(array)
    z = getattr(t, name)(axis=axis)
    if axis is None:
        assert type(z) is Value
        assert type(getattr(t, name)()) is Value
    else:
        assert type(z) is Tensor and z.shape == expected.shape
        assert getattr(t, name)(axis).data.tolist() == z.data.tolist()
        assert getattr(flatgrad, name)(t, axis=axis).data.tolist() == z.data.tolist()
    assert_close(z.data, expected, scale=array.size)
    seed = numbers(*expected.shape, seed=1)
    (z * seed if axis is None else (z * seed).sum()).backward()
    wide = seed if axis is None else np.expand_dims(seed, axis)
    slope = {"sum": lambda: np.ones(shape), "mean": lambda: np.full(shape, expected.size / array.size),
             "max": lambda: split_gradient(array, axis),
             "logsumexp": lambda: np.exp(array) / np.exp(array).sum(axis=axis, keepdims=True)}[name]()
    assert_close(t.grad, slope * wide, scale=1.0)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "logsumexp", "softmax", "log_softmax"])
def test_axes_that_are_not_there(name):
    t = Tensor(GRID)
    for axis in 2, -3, 100:
        with pytest.raises((ValueError, IndexError), match="axis"):
            getattr(t, name)(axis=axis)
    for axis in ("a", 0.5, [0], ("a",), (0.5, 1), *([(0, 1)] if "softmax" in name else [])):
        with pytest.raises(TypeError, match="axis"):
            getattr(t, name)(axis=axis)
    for axis in () if "softmax" in name else ((), (0, 0), (0, -2), (0, 2), (None,)):
        with pytest.raises((ValueError, IndexError), match="axis"):
            getattr(t, name)(axis=axis)
    with pytest.raises((ValueError, IndexError), match="axis"):
        getattr(Tensor([1.0, 2.0]), name)(axis=1)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "logsumexp"])
def test_the_axis_of_a_flat_tensor(name):
    t = Tensor([1.0, 3.0, 2.0])
    for axis in 0, -1:
        assert float(getattr(t, name)(axis=axis)) == getattr(t, name)().data


@pytest.mark.parametrize("array, axis", [([3.0, 1.0, 3.0], None), ([[2.0, 2.0], [1.0, 2.0]], 0),
                                         ([[2.0, 2.0], [1.0, 2.0]], 1), ([INF, 1.0, INF], None), ([-INF, -INF], None),
                                         ([0.0, -0.0], None)])
def test_the_largest_two_share_the_gradient(array, axis):
    """As maximum does it; with two of them, the same as a chain of maximum."""
    t, o = Tensor(array), objects(array)
    z = t.max(axis=axis)
    (z if isinstance(z, Value) else z.sum()).backward()
    maximum = np.frompyfunc(flatgrad.maximum, 2, 1)
    expected = maximum.reduce(o if axis is not None else o.reshape(-1), axis=axis or 0)
    (expected if isinstance(expected, Value) else expected.sum()).backward()
    assert t.grad.tolist() == grad_of(o).tolist() == split_gradient(np.array(array), axis).tolist()


@pytest.mark.parametrize("count", [3, 4, 5, 9])
def test_more_than_two_share_evenly(count):
    """Unlike a chain of maximum, which halves again and again, and like PyTorch's amax."""
    t = Tensor([1.0] + [2.0] * count)
    t.max().backward()
    assert t.grad.tolist() == [0.0] + [1 / count] * count


def test_the_largest_beside_nan():
    t = Tensor([[1.0, NAN], [3.0, 2.0]])
    z = t.max(axis=1)
    assert math.isnan(z.data[0]) and z.data[1] == 3.0 and math.isnan(t.max().data)
    z[1].backward()
    assert t.grad.tolist() == [[0.0, 0.0], [1.0, 0.0]]


# ---- softmax and its relatives ----

def exact_softmax(a, axis):
    e = np.exp(a - a.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize("shape, axis", [((5,), -1), ((5,), 0), ((3, 4), -1), ((3, 4), 1), ((3, 4), 0), ((3, 4), -2),
                                         ((1, 4), 0), ((1,), 0), ((33, 65), 1), ((33, 65), 0)])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax(name, shape, axis, moving):
    array = numbers(*shape)
    p = exact_softmax(array, axis)
    expected = p if name == "softmax" else np.log(p)
    t = Tensor(array)
    z = getattr(t, name)(axis=axis)
    assert type(z) is Tensor and z.shape == shape
    assert_close(z.data, expected)
    assert getattr(flatgrad, name)(t, axis=axis).data.tolist() == z.data.tolist()
    if axis == -1:
        assert getattr(t, name)().data.tolist() == z.data.tolist()
    seed = numbers(*shape, seed=1)
    (z * seed).sum().backward()
    grads = (p * (seed - (p * seed).sum(axis=axis, keepdims=True)) if name == "softmax"
             else seed - p * seed.sum(axis=axis, keepdims=True))
    assert_close(t.grad, grads, scale=10.0)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_nothing_overflows(name):
    array = np.array([[1000.0, 999.0, -1000.0], [-1000.0, -1001.0, -5000.0], [1e300, -1e300, 0.0]])
    t = Tensor(array)
    z = getattr(t, name)(axis=1)
    p = exact_softmax(array, 1)
    tail = math.log(1 + math.exp(-1))
    expected = {"softmax": p, "logsumexp": [1000 + tail, -1000 + tail, 1e300],
                "log_softmax": [[-tail, -1 - tail, -2000 - tail], [-tail, -1 - tail, -4000 - tail],
                                [0.0, -2e300, -1e300]]}
    assert_close(z.data, expected[name])
    z.sum().backward()
    assert np.isfinite(t.grad).all()


def test_one_row_with_nan_or_inf_does_not_touch_the_others():
    t = Tensor([[1.0, NAN], [1.0, 2.0], [INF, 0.0], [-INF, 0.0], [-INF, -INF]])
    z = t.softmax(axis=1).data
    assert np.isnan(z[0]).all() and np.isnan(z[2]).any() and z[3].tolist() == [0.0, 1.0] and np.isnan(z[4]).all()
    assert_close(z[1], exact_softmax(np.array([1.0, 2.0]), 0))
    z = t.logsumexp(axis=1).data
    assert math.isnan(z[0]) and z[2] == INF and z[3] == 0.0 and z[4] == -INF
    assert_close(z[1], 2 + math.log(1 + math.exp(-1)))
    assert t.log_softmax(axis=1).data[3].tolist() == [-INF, 0.0]


# ---- whole expressions, against an array of Values ----

def each(function):
    """A function of a Value on every element of an array of them."""
    return np.frompyfunc(function, 1, 1)


ON_TENSORS = SimpleNamespace(
    relu=lambda x: x.relu(), max=lambda x, axis=None: x.max(axis), softmax=lambda x, axis: x.softmax(axis),
    logsumexp=lambda x, axis=None: x.logsumexp(axis), maximum=flatgrad.maximum, tensor=Tensor,
    tanh=flatgrad.tanh, exp=flatgrad.exp, where=flatgrad.where)


def object_softmax(x, axis):
    e = np.exp(x)
    return e / e.sum(axis=axis, keepdims=True)


def object_max(x, axis=None):
    return np.frompyfunc(flatgrad.maximum, 2, 1).reduce(x if axis is not None else x.reshape(-1), axis=axis or 0)


ON_OBJECTS = SimpleNamespace(
    relu=each(flatgrad.relu), max=object_max, softmax=object_softmax,
    logsumexp=lambda x, axis=None: np.log(np.array(np.exp(x).sum(axis=axis), dtype=object))[()],
    maximum=np.frompyfunc(flatgrad.maximum, 2, 1), tensor=lambda x: np.array(x, dtype=object),
    tanh=each(flatgrad.tanh), exp=each(flatgrad.exp),
    where=lambda c, x, y: np.vectorize(flatgrad.where, otypes=[object])(c, x, np.array(y, dtype=object)))

# Of a (4, 3), b (3, 5), r (3,), c (5,) and a Value s.
EXPRESSIONS = {
    "a layer": lambda a, b, r, c, s, f: f.relu(a @ b + c),
    "two layers": lambda a, b, r, c, s, f: f.tanh(f.relu(a @ b + c) @ b.T * 0.1) + r,
    "t * t": lambda a, b, r, c, s, f: a * a,
    "t @ t.T": lambda a, b, r, c, s, f: a @ a.T,
    "t.T @ t": lambda a, b, r, c, s, f: (b.T @ b) * 0.5 - c,
    "t + t[0]": lambda a, b, r, c, s, f: a + a[0],
    "t[0] + t": lambda a, b, r, c, s, f: a[0] - a * a[:, :1],
    "t + an element": lambda a, b, r, c, s, f: a + a[1, 2],
    "t * t[::-1]": lambda a, b, r, c, s, f: a * a[::-1] + a[:, ::-1],
    "overlapping slices": lambda a, b, r, c, s, f: a[1:] * a[:-1],
    "row @ t": lambda a, b, r, c, s, f: (a[1] @ b) * (r @ b),
    "row @ row": lambda a, b, r, c, s, f: (r @ r) * (a[0] @ a[0]),
    "Gram matrix, elements, slices": lambda a, b, r, c, s, f: (a @ a.T)[1:, 2] + (a @ a.T)[0, 0],
    "a Value broadcast": lambda a, b, r, c, s, f: (a * s + s / 2.0) * s,
    "a Value made of a Tensor": lambda a, b, r, c, s, f: a * (r.sum() * s),
    "softmax": lambda a, b, r, c, s, f: f.softmax(a, 1) @ b,
    "softmax by column": lambda a, b, r, c, s, f: f.softmax(a * s, 0) * a,
    "attention": lambda a, b, r, c, s, f: f.softmax(a @ a.T * 0.3, 1) @ a + a,
    "logsumexp": lambda a, b, r, c, s, f: f.logsumexp(a, 1) - a[:, 0],
    "cross-entropy by hand": lambda a, b, r, c, s, f: (f.logsumexp(a @ b, 1).sum() - (a @ b)[0, 3]) / 4.0,
    "sums": lambda a, b, r, c, s, f: a.sum(axis=0) * a.mean(axis=0) + a.sum() * r - a.mean(),
    "normalisation": lambda a, b, r, c, s, f: (
        (a - a.mean(axis=0)) / (((a - a.mean(axis=0)) ** 2).mean(axis=0) + 0.1) ** 0.5 * r),
    "maximum": lambda a, b, r, c, s, f: f.maximum(a, r) + f.max(a, 1).reshape(4, 1) - f.max(b),
    "where": lambda a, b, r, c, s, f: f.where(np.arange(12).reshape(4, 3) % 2, a * r, s),
    "reshape and transpose": lambda a, b, r, c, s, f: (a.reshape(3, 4) @ a).T @ b.reshape(3, 5) + a.T.reshape(-1)[:5],
    "constants on the left": lambda a, b, r, c, s, f: (
        1.0 - a * np.arange(3.0) + np.arange(4.0)[:, None] / (a * a + 1.0)),
    "Values, put together": lambda a, b, r, c, s, f: f.tensor([[r[0], s], [s, r[1] * s]]) @ f.tensor([s, c[0]]),
    "elements, one by one": lambda a, b, r, c, s, f: sum([v * v for row in a for v in row]) + sum([v * s for v in r]),
    "powers": lambda a, b, r, c, s, f: (a * a) ** 1.5 + a**3 + 2.0**a,
    "a long chain": lambda a, b, r, c, s, f: f.tanh(f.tanh(f.tanh(f.tanh(a) * r + s) * a) * r + s) - a,
}


def leaves(make):
    return [make(numbers(*shape, seed=k, low=-1.5, high=1.5)) for k, shape in enumerate([(4, 3), (3, 5), (3,), (5,)])]


def total(z, seed=7):
    """A sum with different weights, so that a gradient that is off by a factor or a place shows."""
    if isinstance(z, Value):
        return z * 1.5
    return (z * numbers(*z.shape, seed=seed)).sum()


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions(name, moving):
    results = []
    for make, f in (Tensor, ON_TENSORS), (objects, ON_OBJECTS):
        operands = [*leaves(make), Value(0.75)]
        z = EXPRESSIONS[name](*operands, f)
        total(z).backward()
        results.append([data_of(z), *[grad_of(x) for x in operands]])
    (data, *grads), (expected, *expected_grads) = results
    assert_close(data, expected, scale=np.abs(expected).max())
    for got, wanted in zip(grads, expected_grads):
        assert_close(got, wanted, scale=1 + np.abs(wanted).max())


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_against_finite_differences(name):
    arrays = leaves(np.array) + [np.array(0.75)]

    def run(arrays):
        operands = [Tensor(x) for x in arrays[:4]] + [Value(float(arrays[4]))]
        return operands, total(EXPRESSIONS[name](*operands, ON_TENSORS))

    operands, z = run(arrays)
    z.backward()
    rng = np.random.default_rng(3)
    for _ in range(4):
        step = [rng.normal(size=x.shape) for x in arrays]
        h = 1e-6
        up = run([x + h * d for x, d in zip(arrays, step)])[1].data
        down = run([x - h * d for x, d in zip(arrays, step)])[1].data
        slope = sum([float((x.grad * d).sum()) for x, d in zip(operands, step)])
        assert slope == pytest.approx((up - down) / (2 * h), rel=1e-5, abs=1e-6)


# ---- backward ----

@pytest.mark.parametrize("t", [[2.0], [[2.0]]])
def test_backward_of_one_number(t):
    x = Tensor(t)
    z = x * 3.0
    assert z.backward() is None
    assert z.grad.reshape(-1).tolist() == [1.0] and x.grad.reshape(-1).tolist() == [3.0]


@pytest.mark.parametrize("shape", [(2,), (2, 3), (1, 2)])
def test_backward_needs_one_number(shape):
    with pytest.raises((ValueError, RuntimeError), match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        Tensor(numbers(*shape)).backward()


def test_backward_adds():
    x = Tensor([1.0, 2.0])
    z = (x * x).sum()
    z.backward()
    z.grad = 0.0
    y = (x * 3.0).sum()
    y.backward()
    assert x.grad.tolist() == [5.0, 7.0]


def test_two_passes_compound_as_in_micrograd():
    """Elementwise operations are a node for each number, so the second pass finds inner gradients."""
    x, o = Tensor([2.0, 3.0]), objects([2.0, 3.0])
    for z in ((x * 3.0) * x)[1], ((o * 3.0) * o)[1]:
        for _ in range(3):
            z.backward()
    assert x.grad.tolist() == grad_of(o).tolist()


def test_backward_through_some_elements_only(moving):
    """Gradients of the others, from earlier passes, do not leak."""
    x = Tensor([1.0, 2.0, 3.0])
    y = x * 2.0
    z = y * y
    y.grad = [100.0, 200.0, 300.0]
    z.grad = [7.0, 8.0, 9.0]
    z[1].backward()
    assert x.grad.tolist() == [0.0, 2 * (200.0 + 8.0), 0.0]
    assert y.grad.tolist() == [100.0, 208.0, 300.0] and z.grad.tolist() == [7.0, 1.0, 9.0]
    x.grad = y.grad = 0.0
    z[0].backward()
    z[2].backward()
    assert x.grad.tolist() == [8.0, 0.0, 24.0]


STALE = {
    "layer": lambda x: (x @ x.T + 1.0),
    "map": lambda x: x * 3.0,
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(1),
    "softmax by column": lambda x: x.softmax(0),
    "sum by row": lambda x: x.sum(axis=1).reshape(3, 1),
    "mean by column": lambda x: x.mean(axis=0).reshape(1, 3),
    "max by row": lambda x: x.max(axis=1).reshape(3, 1),
    "logsumexp by row": lambda x: x.logsumexp(axis=1).reshape(1, 3),
    "copy": lambda x: x[[0, 1, 2]],
    "product": lambda x: x @ np.array([[1.0, 2.0, 0.5], [0.0, 1.0, 1.0], [2.0, 2.0, 2.0]]),
}


@pytest.mark.parametrize("name", STALE)
@pytest.mark.parametrize("index", [np.s_[0, 0], np.s_[-1, -1], np.s_[0], np.s_[-1:], np.s_[:, 0], np.s_[:, -1:],
                                   np.s_[::2]], ids=str)
def test_no_stale_gradient_leaks(name, index, moving):
    """With old gradients in what is not reached, the same as without."""
    array = numbers(3, 3)
    grads = []
    for stale in 0.0, 1e6:
        x = Tensor(array)
        y = STALE[name](x)
        reached = np.zeros(y.shape)
        reached[index] = 1.0
        y.grad = (1.0 - reached) * stale
        part = y[index]
        total(part).backward()
        grads.append(x.grad)
        assert (y.grad * (1 - reached) == (1 - reached) * stale).all()
    assert_close(*grads, scale=1.0)
    assert grads[0].any()


@pytest.mark.parametrize("name", STALE)
def test_one_element_after_the_other_is_all_of_them(name, moving):
    array = numbers(3, 3)
    grads = []
    for one_by_one in True, False:
        x = Tensor(array)
        y = STALE[name](x)
        if one_by_one:
            for row in y:
                for v in row:
                    v.backward()
            assert (y.grad == 1.0).all()
        else:
            y.sum().backward()
        grads.append(x.grad)
    assert_close(*grads, scale=10.0)


@pytest.mark.parametrize("make", [
    lambda x, c: flatgrad.minimum(x, 5.0 - x), lambda x, c: flatgrad.maximum(-x, x),
    lambda x, c: flatgrad.clip(x, x - 1.0, x * 3.0),
    lambda x, c: flatgrad.where(c, x, x * 2.0), lambda x, c: x.relu() - 1.0, lambda x, c: abs(x)])
@pytest.mark.parametrize("gradient", [NAN, INF, 0.0])
@pytest.mark.parametrize("index", [np.s_[0], np.s_[2], np.s_[1:], np.s_[:]], ids=str)
def test_what_was_not_chosen_gets_nothing(make, gradient, index):
    """Of one element or of all: nan and inf go where the scalar graph sends them."""
    numbers, conditions = [1.0, 2.0, -0.5], np.array([1.0, 0.0, 1.0])
    t, o = Tensor(numbers), [Value(x) for x in numbers]
    part = make(t, conditions)[index] * gradient
    (part if isinstance(part, Value) else part.sum()).backward()
    for k in np.arange(3)[index].reshape(-1):
        (make(o[k], float(conditions[k])) * gradient).backward()
    assert np.array_equal(t.grad, [v.grad for v in o], equal_nan=True)


def test_the_largest_is_that_of_backward_time():
    """As with a chain of maximum, when data has been changed after the forward pass."""
    t = Tensor([1.0, 5.0, 2.0])
    z = t.max()
    t.data = [1.0, 3.0, 4.0]
    z.backward()
    assert t.grad.tolist() == [0.0, 0.0, 1.0]
    t.grad = 0.0
    (t.reshape(1, 3).max(axis=1) * 2.0).sum().backward()
    assert t.grad.tolist() == [0.0, 0.0, 2.0]


def test_operands_are_what_those_of_values_are():
    t, v = Tensor([4.0, 9.0]), Value(4.0)
    assert (t**0.5)[0]._prev == (t**2)[0]._prev == {t[0]}
    assert (t**0.5)[0]._op == (v**0.5)._op and (t**2)[0]._op == (v**2)._op
    assert len((t**0.5)[0]._children) == len((t**0.5)[0]._local_grads) == 1
    for make, ours in [(lambda x: x + 1.0, 2), (lambda x: 1.0 - x, 2), (lambda x: x.tanh(), 1),
                       (lambda x: -x, 1), (lambda x: x / x, 2),
                       (lambda x: flatgrad.where(1.0, x, x), 3), (lambda x: 2.0**x, 2)]:
        assert make(t)[0]._op == make(v)._op and len(make(t)[0]._children) == len(make(v)._children) == ours
        assert make(t)[0]._local_grads == pytest.approx(make(v)._local_grads, rel=1e-15)


def test_data_changed_before_backward():
    """Partials are taken at the data of backward time, as in micrograd."""
    for make in Tensor, objects:
        x, w = make(numbers(2, 3)), make(numbers(3, seed=1))
        z = x @ w
        for part, new in (x, numbers(2, 3, seed=5)), (w, numbers(3, seed=6)):
            if isinstance(part, Tensor):
                part.data = new
            else:
                for v, number in zip(part.reshape(-1), new.reshape(-1)):
                    v.data = number
        (z * np.array([1.0, 10.0])).sum().backward()
        assert_close(grad_of(x), np.outer([1.0, 10.0], numbers(3, seed=6)))
        assert_close(grad_of(w), np.array([1.0, 10.0]) @ numbers(2, 3, seed=5))


def test_a_result_may_be_given_data():
    x = Tensor([1.0, 2.0])
    y = x * 3.0
    y.data = [10.0, 20.0]
    (y * y).sum().backward()
    assert x.grad.tolist() == [60.0, 120.0]


# ---- requires_grad=False ----

def test_constants_have_no_gradient(moving):
    c, t = Tensor(GRID, requires_grad=False), Tensor(GRID)
    assert c.requires_grad is False and c[0].requires_grad is False and c.T.requires_grad is False
    for z in ((c * t).sum(), (c @ t.T).sum(), (t / (c * c + 1.0)).sum(), flatgrad.maximum(c, t * 2.0).sum(),
              c[0] @ t[1]):
        z.backward()
        assert not c.grad.any() and t.grad.any()
        t.grad = 0.0


def test_results_of_constants():
    c = Tensor(GRID, requires_grad=False)
    assert (c * 2.0).data.tolist() == (np.array(GRID) * 2).tolist()
    assert c.sum().data == np.sum(GRID)
    with pytest.raises(RuntimeError, match="no gradient flows"):
        (c * 2.0).sum().backward()
    assert not c.grad.any()
    v = Value(3.0)
    (c * v).sum().backward()
    assert v.grad == np.sum(GRID)


def test_a_constant_of_values_lets_no_gradient_through():
    v = Value(2.0)
    c = Tensor([v, 1.0], requires_grad=False)
    (c * Tensor([3.0, 3.0])).sum().backward()
    assert v.grad == 0.0 and c.data.tolist() == [2.0, 1.0]


# ---- empty ----

@pytest.mark.parametrize("source", [np.zeros(0), np.zeros((0, 3)), np.zeros((2, 0)), [], [[]], [[], []]], ids=repr)
def test_there_are_no_empty_tensors(source):
    with pytest.raises(ValueError, match="data: expected at least one element"):
        Tensor(source)


@pytest.mark.parametrize("index", [np.s_[0:0], np.s_[:, 3:3], np.s_[5:], np.s_[1, 4:]], ids=str)
def test_there_are_no_empty_slices(index):
    with pytest.raises(IndexError, match="no element"):
        Tensor(GRID)[index]
    for none in np.array([False, False]), np.zeros(0, dtype=int):
        with pytest.raises((IndexError, ValueError)):
            Tensor(GRID)[none]


@pytest.mark.parametrize("operand", [np.zeros((0, 3)), np.zeros(0)], ids=repr)
def test_there_are_no_empty_results(operand):
    t = Tensor(GRID)
    for work in lambda: t + operand, lambda: operand * t, lambda: operand @ t.T, lambda: t @ operand.T:
        with pytest.raises(ValueError):
            work()


# ---- lifetimes ----

def test_elements_outlive_their_tensor(moving):
    v = Tensor([1.0, 2.0, 3.0])[1]
    flatgrad.collect()
    y = v * 5.0
    y.backward()
    assert (v.data, v.grad, y.data) == (2.0, 5.0, 10.0)


def test_a_tensor_outlives_its_elements(moving):
    t = Tensor([1.0, 2.0, 3.0])
    for v in t:
        v.grad = v.data * 10
    del v
    flatgrad.collect()
    assert t.grad.tolist() == [10.0, 20.0, 30.0]


def test_views_outlive_their_base(moving):
    t = Tensor(numbers(4, 5))
    view, column = t[1:3], t.T[2]
    t.grad = 3.0
    del t
    junk = [Value(1.0) for _ in range(100)]
    flatgrad.collect()
    assert view.data.tolist() == numbers(4, 5)[1:3].tolist() and (view.grad == 3.0).all()
    assert column.data.tolist() == numbers(4, 5)[:, 2].tolist()
    column.data = 9.0
    assert (view.data[:, 2] == 9.0).all()
    assert len(junk) == 100


def test_operands_live_as_long_as_what_is_made_of_them(moving):
    x = Value(2.0)
    z = (Tensor([x, 3.0]) * Tensor([[1.0, 2.0], [3.0, 4.0]])).tanh().sum(axis=0).max()
    flatgrad.collect()
    z.backward()
    assert x.grad == pytest.approx(sum([k / math.cosh(2.0 * k) ** 2 for k in (1.0, 3.0)]) if z.data < 0 else x.grad)
    part = (Tensor(GRID) @ Tensor(GRID).T)[0, 1]
    flatgrad.collect()
    part.backward()
    parents = sorted([(v.data, v.grad) for v in part._prev])
    assert parents == sorted([(3.0, 1.0), (4.0, -2.0), (-1.5, 0.5), (1.0, 3.0), (-2.0, 4.0), (0.5, -1.5)])


def test_a_step_goes_when_its_last_handle_does():
    w = Tensor(numbers(8, 8))
    before = flatgrad.stats()
    for _ in range(5):
        loss = ((w @ w).relu() + 1.0).softmax(1).sum()
        loss.backward()
        del loss
        after = flatgrad.stats()
        assert (after["nodes"], after["operands"]) == (before["nodes"], before["operands"])


def test_steps_leave_memory_flat():
    w = Tensor(numbers(20, 20) * 0.1)
    peaks = []
    for _ in range(800):   # a collection every 80 steps; the arrays have grown to their size by the third
        kept = [(w @ w).relu().sum() for _ in range(3)]
        kept[1].backward()
        del kept[0], kept[-1]
        peaks.append(flatgrad.stats()["bytes"])
    assert max(peaks[400:]) <= max(peaks[:400])


def test_long_chains_do_not_recurse():
    start = nodes()
    t = Tensor([1.0, 2.0])
    for ending in "popped", "collected", "pickled":
        x = t
        for _ in range(100_000 if ending != "pickled" else 10_000):
            x = x * 1.0
        t.grad = 0.0
        x.sum().backward()
        assert t.grad.tolist() == [1.0, 1.0]
        blocker = Value(1.0) if ending == "collected" else None   # on top, so that nothing is popped
        if ending == "pickled":
            assert pickle.loads(pickle.dumps(x)).tolist() == copy.deepcopy(x).tolist() == [1.0, 2.0]
        del x
        assert nodes() == start + 3 + (blocker is not None)
        del blocker


def test_garbage_of_every_order(moving):
    """Tensors, elements and results released in random orders; what is held stays right."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        a = numbers(4, 3, seed=int(rng.integers(1000)))
        t = Tensor(a)
        things = [(t, a), (t[1], a[1]), (t.T, a.T), (t[2, 1], a[2, 1]), (t * 2.0, a * 2.0), (t @ t.T, a @ a.T),
                  (t.sum(axis=0), a.sum(axis=0)), ((t * 3.0)[1], a[1] * 3.0), ((t @ t.T)[2, 3], (a @ a.T)[2, 3]),
                  (t[[1, 1]], a[[1, 1]]), (t.max(), a.max())]
        del t
        while things:
            things.pop(int(rng.integers(len(things))))
            if rng.random() < 0.5:
                flatgrad.collect()
            for thing, expected in things:
                assert_close(thing.data, expected, scale=10.0)


def test_attributes_on_elements_survive_their_tensor():
    t = Tensor([1.0, 2.0])
    t[1].label = "b"
    view = t[1:]
    del t
    flatgrad.collect()
    assert view[0].label == "b"


def test_a_user_rule_on_an_element(moving):
    """`_backward` assigned to an element of a result runs in place of that element's rule."""
    x = Tensor([1.0, 2.0, 3.0])
    y = x * 10.0
    ran = []
    v = y[1]
    v._backward = lambda: ran.append(v.grad)
    (y * np.array([1.0, 5.0, 7.0])).sum().backward()
    assert ran == [5.0] and x.grad.tolist() == [10.0, 0.0, 70.0]
    del v, y, ran
    gc.collect()


def test_a_cycle_through_an_attribute_is_found():
    """An element that leads back to its Tensor."""
    for attach in (lambda t: setattr(t[0], "friend", t), lambda t: setattr(t[0], "friend", [t * 2.0]),
                   lambda t: setattr((t * 2.0)[1], "friend", lambda: t),
                   lambda t: setattr(t.sum(), "friend", {"t": t})):
        t = Tensor([1.0, 2.0])
        attach(t)
        del t
        gc.collect()


def test_a_rule_that_holds_its_tensor():
    """out._backward = closure over the Tensor, as one writes it for Values."""
    x = Tensor([1.0, 2.0])
    out = x * 3.0

    def rule():
        x.grad = x.grad + out.grad

    out[0]._backward = rule
    out.sum().backward()
    assert x.grad.tolist() == [1.0, 4.0] or x.grad.tolist() == [1.0, 1.0 + 3.0]
    del out, rule, x
    gc.collect()


# ---- copies ----

def through_pickle(protocol):
    return lambda x: pickle.loads(pickle.dumps(x, protocol))


INDEPENDENT = [copy.deepcopy, *[through_pickle(p) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)]]


@pytest.mark.parametrize("duplicate", INDEPENDENT)
def test_duplicates(duplicate, moving):
    t = Tensor(GRID)
    t.grad = 5.0
    u = duplicate(t)
    assert type(u) is Tensor and u.data.tolist() == GRID and (u.grad == 5.0).all() and u.requires_grad is True
    u.data = 0.0
    assert t.data.tolist() == GRID
    assert duplicate(Tensor(GRID, requires_grad=False)).requires_grad is False


@pytest.mark.parametrize("duplicate", INDEPENDENT)
def test_duplicates_of_a_graph(duplicate, moving):
    x, s = Tensor(GRID), Value(2.0)
    z = ((x @ x.T) * s).softmax(1).max()
    x2, s2, z2 = duplicate((x, s, z))
    z.backward()
    assert not x2.grad.any() and s2.grad == 0.0
    assert z2.data == z.data
    z2.backward()
    assert x2.grad.tolist() == x.grad.tolist() and s2.grad == s.grad


@pytest.mark.parametrize("duplicate", INDEPENDENT)
def test_duplicates_share_what_was_shared(duplicate):
    t = Tensor(GRID)
    view, v = t[1], t[0, 1]
    t2, view2, v2, again = duplicate([t, view, v, t])
    assert again is t2
    t2.data = 7.0
    assert (view2.data == 7.0).all() and v2.data == 7.0 and t2[0, 1] is v2
    assert t.data.tolist() == GRID


def test_copy():
    t = Tensor(GRID)
    u = copy.copy(t)
    assert u is not t and u.data.tolist() == GRID


# ---- failure ----

def scenarios():
    """Work that has to grow the tape and its pool; returns what has to stay as it is, too."""
    t, v = Tensor([[2.0, 3.0], [4.0, 5.0]]), Value(0.5)
    a = np.full((300, 300), 0.25)
    rows = a.tolist()

    def program():
        x = Tensor(a, requires_grad=True)
        y = (x @ x.T + v).tanh()
        return (y[:, 0] + t[0, 0]).softmax() @ y

    model = MLP(300, [100, 50, 10])

    return t, v, {
        "a network": lambda: [model(rows[0]) for _ in range(200)],
        "a network and a batch": lambda: model(a),
        "a network and Values": lambda: model([[v] * 300] * 100),
        "scalar graphs": lambda: Layer(300, 100, fused=False)(rows[0]),
        "cross-entropy": lambda: losses.cross_entropy(Tensor(a), range(300)),
        "hinge": lambda: losses.hinge(Tensor(a), np.sign(a)),
        "a deep copy": lambda: copy.deepcopy(Tensor([[v] * 300] * 300)),
        "a tensor": lambda: Tensor(a),
        "of Values": lambda: Tensor([[v] * 300] * 300),
        "a copy": lambda: [Tensor(t) for _ in range(20_000)],
        "map": lambda: [t * v + t for _ in range(10_000)],
        "map of the large": lambda: Tensor(a) * t[0, 0] + v,
        "matmul": lambda: Tensor(a) @ a,
        "rows": lambda: t[[0, 1] * 50_000],
        "softmax": lambda: Tensor(a).softmax(0),
        "reductions": lambda: [t.sum(axis=0) + t.max() + t.logsumexp(axis=1) for _ in range(10_000)],
        "wide sum": lambda: flatgrad.sum([v, 1.0] * 100_000),
        "dot": lambda: flatgrad.dot([v] * 100_000, [1.5] * 100_000, v),
        "linear": lambda: flatgrad.linear([1.0] * 300, rows, activation="relu"),
        "handles": lambda: list(Tensor(a).reshape(-1)),
        "a program": program,
    }


@pytest.mark.parametrize("name", ["a network", "a network and a batch", "a network and Values", "scalar graphs",
                                  "cross-entropy", "hinge", "a deep copy", "a tensor", "of Values", "a copy", "map",
                                  "map of the large", "matmul", "rows",
                                  "softmax", "reductions", "wide sum", "dot", "linear", "handles", "a program"])
def test_failed_allocations_change_nothing(name):
    """Fail the first allocation, then the second, ... until the work goes through."""
    # A fresh process, whose tape is still small, so that the work has to grow it.
    script = textwrap.dedent(f"""
        import gc, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import flatgrad
        from flatgrad import _core
        from test_tensor import scenarios
        t, v, all_scenarios = scenarios()
        work = all_scenarios[{name!r}]
        flatgrad.collect()
        before = flatgrad.stats()
        for k in [*range(20), *(2**j for j in range(5, 20))]:
            _core._testing(fail_after=k)
            try:
                done = work()
            except MemoryError as error:
                assert "flatgrad" in str(error), error
                done = None
            _core._testing(fail_after=-1)
            assert _core._check()
            if done is not None:
                break
            flatgrad.collect()
            after = flatgrad.stats()
            assert (after["nodes"], after["operands"]) == (before["nodes"], before["operands"])
            assert t.tolist() == [[2.0, 3.0], [4.0, 5.0]] and v.data == 0.5
            z = (t * t).sum() * v
            z.backward()
            assert t.grad.tolist() == [[2.0, 3.0], [4.0, 5.0]] and v.grad == 54.0, (t.grad, v.grad)
            t.grad = v.grad = 0.0
            del z
        else:
            raise AssertionError("never went through")
        print(k)
    """)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) >= 1   # at least one allocation was failed


def test_a_full_tape():
    t, v = Tensor(np.ones((400, 1000))), Value(2.0)
    before = nodes()
    _core._testing(limit=before + 5)   # there may be room for a few results, but not for these
    for work in (lambda: t * v, lambda: t @ t.T @ t, lambda: Tensor(t.data), lambda: t.softmax(1), lambda: Tensor(t),
                 lambda: flatgrad.linear(t, np.ones((1000, 1000))), lambda: flatgrad.sum([1.0, v] * 400_000),
                 lambda: list(flatgrad.softmax([v] * 400_000)), lambda: t[[0] * 400], lambda: t.T.reshape(-1)):
        with pytest.raises(MemoryError, match="the tape is full"):
            work()
        assert nodes() == before and _core._check()
    _core._testing(limit=0xFFFFFFF0)
    assert (t * v).sum().data == 800_000.0


def test_errors_leave_the_tape_as_it_was():
    t = Tensor(GRID)
    before = nodes()
    for bad in [lambda: t + Tensor([1.0, 2.0]), lambda: t @ t, lambda: t.log(), lambda: t / 0.0, lambda: t + "a",
                lambda: Tensor([1.0, "a"]), lambda: Tensor([t[0, 0], "a"]), lambda: t[5], lambda: t.sum(axis=2),
                lambda: t.reshape(4), lambda: t.softmax(axis=3), lambda: t * [[1.0], [2.0], [3.0]],
                lambda: t * (2**53 + 1),
                lambda: flatgrad.linear(t, [[1.0, 2.0]]), lambda: flatgrad.where(t, t, "b"), lambda: t.backward()]:
        with pytest.raises((TypeError, ValueError, ArithmeticError, IndexError, RuntimeError)):
            bad()
    assert nodes() == before
    assert t.data.tolist() == GRID and not t.grad.any()


def test_code_that_runs_during_conversion():
    """Iterables and numbers that append, drop and collect while they are read."""
    kept = []

    class Busy(float):
        def __float__(self):
            kept.append(Tensor([1.0, 2.0]) * 2.0)
            flatgrad.collect()
            return 3.0

    class Rows:
        def __iter__(self):
            for k in range(3):
                kept.append(Value(float(k)) * 2.0)
                flatgrad.collect()
                yield kept[-1]

    t = Tensor(list(Rows()))
    assert t.tolist() == [0.0, 2.0, 4.0]
    assert (t * Busy(3.0)).tolist() == [0.0, 6.0, 12.0]
    assert flatgrad.dot(Rows(), list(Rows())).data == 20.0
