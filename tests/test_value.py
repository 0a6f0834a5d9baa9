"""How a Value behaves as a Python object, and nn's errors.

What the operations compute is test_ops.py's; what lies on the tape, test_tape.py's.
"""
import gc
import math
import operator
import random
import re
import sys
import threading
import weakref
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import numpy as np
import pytest

import flatgrad
import flatgrad.engine
import reference
from flatgrad import Value, _core
from flatgrad.errors import ArgumentError, ArgumentTypeError
from flatgrad.nn import MLP, Layer, Module, Neuron
from reference import ulps

INF, NAN = math.inf, math.nan

NUMPY_INTS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64,
              np.intc, np.uintc, np.longlong, np.ulonglong, np.intp]
NUMPY_FLOATS = [np.float16, np.float32, np.float64, np.longdouble]
NUMPY_REALS = [*NUMPY_INTS, *NUMPY_FLOATS, np.bool_]

BINARY = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
          "**": operator.pow}
IN_PLACE = {"+": operator.iadd, "-": operator.isub, "*": operator.imul, "/": operator.itruediv,
            "**": operator.ipow}
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge]


class MyFloat(float):
    pass


class MyInt(IntEnum):
    SEVEN = 7


@pytest.fixture(autouse=True, scope="module")
def short_garbage_collections():
    """What is there already need not be looked at again each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def intact_tape():
    yield
    assert _core._check()


def nodes():
    """Living nodes."""
    gc.collect()
    flatgrad.collect()
    return flatgrad.stats()["nodes"]


def same(x, y):
    """The same float, the sign of zero included."""
    return (math.isnan(x) and math.isnan(y)) or (x == y and math.copysign(1, x) == math.copysign(1, y))


# ---- what is a number ----

NUMBERS = [
    (3, 3.0), (0, 0.0), (-7, -7.0), (2.5, 2.5), (-0.0, -0.0), (True, 1.0), (False, 0.0),
    (INF, INF), (-INF, -INF), (NAN, NAN), (5e-324, 5e-324), (MyFloat(1.5), 1.5), (MyInt.SEVEN, 7.0),
    (2**53, 2.0**53), (-(2**53), -(2.0**53)), (2**53 + 2, 2.0**53 + 2), (10**22, 1e22),
    (2**1023, 2.0**1023), (-(2**1000), -(2.0**1000)),
    *[(kind(1), 1.0) for kind in NUMPY_REALS],
    *[(kind(0.5), 0.5) for kind in NUMPY_FLOATS],
    (np.int8(-128), -128.0), (np.uint64(2**63), 2.0**63), (np.float16(0.1), 0.0999755859375),
    (np.float32(0.1), 0.10000000149011612), (np.float64(NAN), NAN), (np.float32(-INF), -INF),
    *[(np.array(2, kind), 2.0) for kind in [*NUMPY_INTS, *NUMPY_FLOATS]],
    (np.array(True), 1.0), (np.array([1.5]), 1.5), (np.array([[3]]), 3.0), (np.array([True]), 1.0),
    (np.array([0.1], np.float32), 0.10000000149011612), (np.ones((1, 1, 1)), 1.0),
    (np.arange(10.0)[3:4], 3.0),
]

# What else: the error and what its message quotes.
NOT_NUMBERS = [
    (2**53 + 1, ValueError, "9007199254740993"), (-(2**53) - 1, ValueError, "-9007199254740993"),
    (10**400, ValueError, "1329 bits"), (np.uint64(2**64 - 1), ValueError, str(2**64 - 1)),
    (np.int64(2**63 - 1), ValueError, str(2**63 - 1)),
    (np.array([2**53 + 1]), ValueError, "9007199254740993"),
    ("1", TypeError, "str '1'"), (b"1", TypeError, "bytes b'1'"), (None, TypeError, "None"),
    ([1.0], TypeError, "list [1.0]"), ((1.0,), TypeError, "tuple (1.0,)"), ({}, TypeError, "dict {}"),
    (1j, TypeError, "complex 1j"), (Fraction(1, 2), TypeError, "Fraction(1, 2)"),
    (Decimal(1), TypeError, "Decimal('1')"), (object(), TypeError, "object"), (float, TypeError, "float"),
    (np.complex64(1), TypeError, "complex64"), (np.complex128(1), TypeError, "complex128"),
    (np.str_("1"), TypeError, "str"), (np.bytes_(b"1"), TypeError, "bytes"),
    (np.datetime64("2020-01-01"), TypeError, "datetime64"),
    (np.void(b"1"), TypeError, "void"), (np.array([1.0, 2.0]), TypeError, "array([1., 2.])"),
    (np.array([]), TypeError, "array([]"), (np.zeros((2, 0)), TypeError, "array"),
    (np.array(1j), TypeError, "1.j"), (np.array("1"), TypeError, "'1'"),
    (np.array([None]), TypeError, "None"), (np.array(1, "m8[s]"), TypeError, "timedelta64"),
    (range(1), TypeError, "range(0, 1)"), ("x" * 1000, TypeError, "..."),
]


def ids(table):
    return [f"{type(row[0]).__name__} {re.sub(' at 0x.*', '', repr(row[0])):.30}" for row in table]


@pytest.mark.parametrize("number, expected", NUMBERS, ids=ids(NUMBERS))
def test_conversion(number, expected):
    for v in [Value(number), Value(data=number), Value(number, ()), Value(number, (), "")]:
        assert type(v) is Value and type(v.data) is float and same(v.data, expected)
        assert type(v.grad) is float and same(v.grad, 0.0)
        assert v._op == "" and v._prev == set()
    v = Value(99.0)
    v.data = v.grad = number
    assert type(v.data) is float and same(v.data, expected)
    assert type(v.grad) is float and same(v.grad, expected)
    made = Value(number, (v,), "made")
    assert same(made.data, expected) and made.grad == 0.0


@pytest.mark.parametrize("number, error, words", NOT_NUMBERS, ids=ids(NOT_NUMBERS))
def test_refused(number, error, words):
    """TypeError or ValueError that names the argument, its value and what was expected."""
    v = Value(1.5)
    v.grad = 2.5
    before = nodes()
    for name, attempt in [
        ("data", lambda: Value(number)), ("data", lambda: Value(data=number)),
        ("data", lambda: Value(number, (v,), "made")), ("data", lambda: v.__init__(number)),
        ("data", lambda: setattr(v, "data", number)), ("grad", lambda: setattr(v, "grad", number)),
    ]:
        with pytest.raises(error) as caught:
            attempt()
        message = str(caught.value)
        assert message.startswith(f"{name}: expected a") and words in message and len(message) < 300
    assert nodes() == before
    assert (v.data, v.grad) == (1.5, 2.5)


def test_a_value_is_not_data():
    v = Value(1.5)
    for attempt in [lambda: Value(v), lambda: setattr(v, "data", v), lambda: setattr(v, "grad", v)]:
        with pytest.raises(TypeError, match=r"(data|grad): expected a real number, got a Value; .*\.data"):
            attempt()
    with pytest.raises(TypeError, match="data: expected a real number, got ndarray"):
        Value(np.array([v]))
    assert v.data == 1.5


def test_attributes():
    v = Value(1.5)
    for name in ["data", "grad"]:
        with pytest.raises(AttributeError):
            delattr(v, name)
    with pytest.raises(AttributeError):
        Value._prev.__set__(v, set())
    with pytest.raises(AttributeError, match="nonsense"):
        v.nonsense
    assert (v.data, v.grad) == (1.5, 0.0)


# ---- making one ----

def test_one_class():
    assert flatgrad.engine.Value is flatgrad.Value is Value
    assert Value.__name__ == "Value" and Value.__module__.startswith("flatgrad")


@pytest.mark.parametrize("arguments, keywords", [
    ((), {}), ((1.0, (), "", "", 4), {}), ((1.0,), {"data": 2.0}), ((1.0,), {"name": "x"}),
    ((1.0, None), {}), ((1.0, 3), {}), ((1.0, ["a"]), {}), ((1.0, (), 5), {}), ((1.0, (), None), {}),
    ((1.0, [Value(1.0), 2.0]), {}), ((), {"_op": "x"})])
def test_wrong_arguments(arguments, keywords):
    before = nodes()
    with pytest.raises(TypeError):
        Value(*arguments, **keywords)
    assert nodes() == before


@pytest.mark.parametrize("name, arguments, words", [
    ("_children", (1.0, [Value(1.0), 2.5]), r"_children\[1\]: expected a Value, got float 2\.5"),
    ("_children", (1.0, 3), r"_children: expected an iterable of Values, got int 3"),
    ("_op", (1.0, (), 5), r"_op: expected a str, or the local gradients, got int 5"),
])
def test_wrong_arguments_are_named(name, arguments, words):
    with pytest.raises(TypeError, match=words):
        Value(*arguments)


@pytest.mark.parametrize("collect", [tuple, list, set, frozenset, iter, lambda c: (v for v in c),
                                     lambda c: dict.fromkeys(c), lambda c: np.array(c)])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 70])
def test_children(collect, count):
    children = [Value(float(k)) for k in range(count)]
    v = Value(1.0, collect(children), "mine")
    assert v._prev == set(children) and isinstance(v._prev, set)
    assert v._op == "mine" and v.data == 1.0
    assert {id(c) for c in v._prev} == {id(c) for c in children}
    by_keyword = Value(1.0, _op="mine", _children=collect(children))
    assert by_keyword._prev == set(children) and by_keyword._op == "mine"


def test_repeated_children():
    a, b = Value(1.0), Value(2.0)
    assert Value(1.0, [a, b, a, a], "mine")._prev == {a, b}
    assert Value(1.0, (a, a))._prev == {a}


def test_children_keep_the_subgraph():
    made = Value(1.0, [Value(2.0) * Value(3.0)], "mine")
    flatgrad.collect()
    (product,) = made._prev
    assert product.data == 6.0 and sorted(v.data for v in product._prev) == [2.0, 3.0]


def test_children_from_a_busy_generator():
    """One that makes and drops Values and collects, all while the constructor waits."""
    kept = []

    def children():
        for k in range(20):
            junk = [Value(float(k)) * 2.0 for _ in range(50)]
            kept.append(junk[25])
            del junk
            flatgrad.collect()
            yield kept[-1]
        assert Value(5.0, (kept[0],), "inner")._op == "inner"

    v = Value(1.0, children(), "mine")
    assert v._prev == set(kept) and [x.data for x in kept] == [2.0 * k for k in range(20)]


def test_children_whose_iteration_fails():
    def children():
        yield Value(1.0)
        raise KeyError("no more")

    before = nodes()
    with pytest.raises(KeyError):
        Value(1.0, children(), "mine")
    assert nodes() == before


def test_backward_stops_at_a_made_node():
    """flatgrad has no derivative for it: its own gradient is set, and what is below gets none."""
    a, b = Value(2.0), Value(3.0)
    c = a * b
    made = Value(6.0, (c, a), "mine")
    y = made * b
    y.backward()
    assert made.grad == 3.0 and b.grad == 6.0 and a.grad == c.grad == 0.0
    made.grad = 0.0
    made.backward()
    assert made.grad == 1.0 and a.grad == 0.0


def test_init_again_on_a_leaf():
    a = Value(2.0)
    a.grad = 5.0
    y = a * 3.0
    a.__init__(7.0)
    assert (a.data, a.grad, a._op, a._prev) == (7.0, 0.0, "", set())
    y.backward()
    assert a.grad == 3.0 and a in y._prev


def test_init_again_on_a_result():
    """It becomes a leaf, or a node with the children given; the old node stays for its users."""
    a = Value(2.0)
    y = a * 3.0
    z = y * 5.0
    y.__init__(7.0)
    assert (y.data, y.grad, y._op, y._prev) == (7.0, 0.0, "", set())
    (y * 2.0).backward()
    assert y.grad == 2.0 and a.grad == 0.0
    z.backward()
    assert a.grad == 15.0
    y.__init__(1.0, (a, z), "mine")
    assert (y.data, y._op, y._prev) == (1.0, "mine", {a, z})
    y.__init__(3.0)
    assert (y.data, y._op, y._prev) == (3.0, "", set())
    y.__init__(4.0, (y,), "mine")   # its own child: the node it was before
    assert y._op == "mine" and [v.data for v in y._prev] == [3.0]


def test_without_init():
    v = Value.__new__(Value)
    assert (v.data, v.grad, v._op, v._prev) == (0.0, 0.0, "", set())
    (v * 2.0).backward()
    assert v.grad == 2.0


# ---- identity ----

def test_equality_and_hash_are_identity():
    a, b = Value(1.0), Value(1.0)
    assert a == a and not a != a and a != b and not a == b
    assert a != 1.0 and not a == 1.0 and 1.0 != a and a != np.float64(1.0) and a != "a"
    assert hash(a) == hash(a) and len({a, b, a}) == 2 and {a: 1, b: 2}[b] == 2
    assert a in [b, a] and a not in [b] and [b, a].index(a) == 1
    nan = Value(NAN)
    assert nan == nan


def test_hash_outlives_collection():
    junk = [Value(float(k)) for k in range(1000)]
    kept = {v: v.data for v in junk[::10]}
    del junk
    assert flatgrad.collect() > 800
    assert all(kept[v] == v.data for v in list(kept))


@pytest.mark.parametrize("data", [0, 0.0, -0.0, 1.0, NAN, INF])
def test_truth(data):
    assert bool(Value(data)) is True and (not Value(data)) is False


def test_weak_references():
    called = []
    v = Value(1.0)
    reference = weakref.ref(v, called.append)
    assert reference() is v and weakref.getweakrefcount(v) == 1 and called == []
    table = weakref.WeakKeyDictionary({v: "label"})
    names = weakref.WeakValueDictionary(x=v)
    assert table[v] == "label" and names["x"] is v
    del v
    assert reference() is None and called == [reference] and len(table) == len(names) == 0


def test_weak_reference_to_an_operand():
    """The handle dies; the node lives on for its user, and gets another handle when asked for."""
    a = Value(2.0)
    c = a * 3.0
    reference = weakref.ref(a)
    a.grad = 7.0
    del a
    assert reference() is None
    again = min(c._prev)
    assert (again.data, again.grad) == (2.0, 7.0) and again is min(c._prev)
    assert weakref.ref(again)() is again


def test_weak_reference_callback_may_use_values():
    made = []
    a = Value(2.0)
    reference = weakref.ref(a, lambda r: made.append(Value(1.0) * 5.0))
    b = [a * float(k) for k in range(10)]
    del a, b
    flatgrad.collect()
    assert reference() is None and made[0].data == 5.0


def test_one_handle_for_a_node():
    """_prev hands out the very objects, so graph walkers may use `is`, `id` and sets."""
    a, b = Value(2.0), Value(3.0)
    c = a.tanh()
    assert next(iter(c._prev)) is a
    d = a * b + c
    flatgrad.collect()
    product = next(v for v in d._prev if v is not c)
    assert product._prev == {a, b} and {id(v) for v in product._prev} == {id(a), id(b)}
    assert next(v for v in d._prev if v is not c) is product
    d._prev.clear()   # a set of their own
    assert len(d._prev) == 2


def test_graph_walk():
    """The loop of every drawing function."""
    x = Value(0.5)
    y = (x * 2.0 + 1.0).tanh() * x
    seen, edges = set(), set()

    def walk(v):
        if v not in seen:
            seen.add(v)
            for child in v._prev:
                edges.add((child, v))
                walk(child)

    walk(y)
    assert x in seen and len(seen) == 7 and len(edges) == 7
    assert sorted(v._op for v in seen) == ["", "", "", "*", "*", "+", "tanh"]


# ---- as text and as a number ----

@pytest.mark.parametrize("data", [0, -0.0, 1.5, 1e100, 1e-7, INF, -INF, NAN, 0.1, 123456789.0])
def test_repr(data):
    v = Value(data)
    v.grad = -2.5
    expected = f"Value(data={float(data)}, grad=-2.5)"
    assert repr(v) == str(v) == f"{v}" == f"{v!r}" == format(v) == "%s" % v == expected
    assert f"{[v]}" == f"[{expected}]"


@pytest.mark.parametrize("spec", [".4f", ".2e", "+.3g", ">12.3f", "<8.1f", "^9", "010.2f", ",.2f", "%",
                                  "f", "e", "g", " .1f", "_.0f"])
@pytest.mark.parametrize("data", [1234.5678, -0.0, INF, NAN, 1e-9])
def test_format(spec, data):
    assert format(Value(data), spec) == format(float(data), spec)
    assert f"{Value(data):{spec}}" == f"{data:{spec}}"


def test_wrong_format():
    for spec in ["d", "s", "x", "nonsense"]:
        with pytest.raises(ValueError):
            format(Value(1.0), spec)


@pytest.mark.parametrize("data", [2.5, 3.5, -2.5, 0.0, -0.0, 1e300, 2.675, -7.0])
def test_as_number(data):
    v = Value(data)
    for got, expected in [(float(v), data), (int(v), int(data)), (round(v), round(data)),
                          (round(v, 2), round(data, 2)), (round(v, -1), round(data, -1)),
                          (round(v, None), round(data)), (math.floor(v), math.floor(data)),
                          (math.ceil(v), math.ceil(data)), (complex(v), complex(data)),
                          (math.fabs(v), math.fabs(data)), ("%.3f" % v, "%.3f" % data),
                          (np.float64(v), data), (np.asarray([v, v], float).tolist(), [data, data])]:
        assert type(got) is type(expected) or type(got) is np.float64
        assert got == expected
    assert math.copysign(1, float(v)) == math.copysign(1, data)


@pytest.mark.parametrize("convert, data, error", [
    (int, NAN, ValueError), (int, INF, OverflowError), (round, NAN, ValueError),
    (round, -INF, OverflowError), (lambda v: round(v, "a"), 1.0, TypeError),
    (lambda v: round(v, 1.5), 1.0, TypeError), (operator.index, 1.0, TypeError), (range, 1.0, TypeError),
    (lambda v: [1, 2][v], 1.0, TypeError), (len, 1.0, TypeError), (iter, 1.0, TypeError),
    (lambda v: v(), 1.0, TypeError), (lambda v: v[0], 1.0, TypeError)])
def test_not_as_number(convert, data, error):
    with pytest.raises(error):
        convert(Value(data))


# ---- comparisons ----

@pytest.mark.parametrize("compare", COMPARISONS)
@pytest.mark.parametrize("kind", [Value, float, int, bool, Fraction, Decimal, MyFloat, *NUMPY_REALS])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_comparison(compare, kind, number):
    before = nodes()
    v, other = Value(1.0), kind(number)
    plain = float(other)
    assert bool(compare(v, other)) is compare(1.0, plain)
    assert bool(compare(other, v)) is compare(plain, 1.0)
    del v, other
    assert nodes() == before


@pytest.mark.parametrize("compare", COMPARISONS)
@pytest.mark.parametrize("special", [NAN, INF, -INF, -0.0, 2**53 + 1, 10**400, -(10**400), 1.0])
def test_comparison_with_special_values(compare, special):
    for data in [1.0, 2.0**53, INF, NAN, 0.0]:
        v = Value(data)
        assert compare(v, special) is compare(data, special)
        assert compare(special, v) is compare(special, data)
        assert compare(v, v) is compare(data, data)
        if isinstance(special, float):
            assert compare(v, Value(special)) is compare(data, special)
            assert bool(compare(np.float64(special), v)) is compare(special, data)


@pytest.mark.parametrize("compare", COMPARISONS)
@pytest.mark.parametrize("other", ["a", None, [1.0], 1j, object(), {}])
def test_comparison_refused(compare, other):
    v = Value(1.0)
    with pytest.raises(TypeError):
        compare(v, other)
    with pytest.raises(TypeError):
        compare(other, v)


def test_sorting():
    values = [Value(x) for x in [3.0, -1.0, 2.0, -5.0]]
    assert [v.data for v in sorted(values)] == [-5.0, -1.0, 2.0, 3.0]
    assert max(values) is values[0] and min(values) is values[3]
    assert sorted(values, reverse=True)[0] is values[0]


def test_comparison_with_arrays_is_elementwise():
    v, array = Value(2.0), np.array([1.0, 2.0, 3.0])
    for compare in COMPARISONS:
        assert compare(v, array).tolist() == compare(2.0, array).tolist()
        assert compare(array, v).tolist() == compare(array, 2.0).tolist()


# ---- the operators on every pair of operands ----

OPERANDS = [2, 3, 2.5, True, MyFloat(2.5), MyInt.SEVEN, *[kind(2) for kind in NUMPY_REALS],
            *[kind(2.5) for kind in NUMPY_FLOATS], np.array(2), np.array(2.5), np.array(True)]


def assert_operation(op, result, left, right, a, b):
    """`result` is left op right, and right its gradients on those of a, b that are Values."""
    x, y = reference.Value(left), reference.Value(right)
    expected = reference.Value.apply(op, x, y)
    assert type(result) is Value
    assert ulps(result.data, expected.data) <= (op == "**")
    assert result.grad == 0.0
    result.backward()
    expected.backward()
    for operand, oracle in [(a, x), (b, y)]:
        if type(operand) is Value:
            assert operand.grad == pytest.approx(oracle.grad, rel=1e-14)


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("number", OPERANDS, ids=ids([(x,) for x in OPERANDS]))
def test_operators_with_numbers(op, number):
    plain = float(number)
    function = BINARY[op]
    v = Value(3.0)
    assert_operation(op, function(v, number), 3.0, plain, v, None)
    v = Value(3.0)
    assert_operation(op, function(number, v), plain, 3.0, None, v)
    # The number is a leaf of the graph, but not in _prev if it is a constant exponent.
    v = Value(3.0)
    prev = function(v, number)._prev
    assert v in prev and sorted(p.data for p in prev) == sorted([3.0] + [plain] * (op != "**"))
    prev = function(number, v)._prev
    assert v in prev and sorted(p.data for p in prev) == sorted([3.0, plain])


@pytest.mark.parametrize("op", BINARY)
def test_operators_with_values(op):
    a, b = Value(3.0), Value(2.5)
    assert_operation(op, BINARY[op](a, b), 3.0, 2.5, a, b)
    a = Value(3.0)
    twice = BINARY[op](a, a)
    assert twice._prev == {a}
    twice.backward()
    x = reference.Value(3.0)
    reference.Value.apply(op, x, x).backward()
    assert a.grad == pytest.approx(x.grad, rel=1e-14)


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("kind", [int, float, bool, np.float64, np.int32, Value])
def test_in_place(op, kind):
    """A new Value under the old name; the old one is as it was."""
    other = kind(2.0)
    plain = float(other)
    v = old = Value(3.0)
    v = IN_PLACE[op](v, other)
    assert v is not old and (old.data, old._op) == (3.0, "")
    assert_operation(op, v, 3.0, plain, old, other)
    if not isinstance(other, Value):
        number, v = other, Value(3.0)
        number = IN_PLACE[op](number, v)
        assert_operation(op, number, plain, 3.0, None, v)


def test_unary_operators():
    v = Value(-3.0)
    assert type(-v) is Value and (-v).data == 3.0 and (-v)._op == "neg"
    assert (+v).data == -3.0
    assert type(abs(v)) is Value and abs(v).data == 3.0 and abs(v)._op == "abs"
    (abs(v) * 2.0 + -v + +v).backward()
    assert v.grad == -2.0
    assert same((-Value(0.0)).data, -0.0) and same((-Value(-0.0)).data, 0.0)
    with pytest.raises(TypeError):
        ~v


def test_sum():
    values = [Value(float(k)) for k in range(5)]
    for total, expected in [(sum(values), 10.0), (sum(values, Value(1.0)), 11.0), (sum(values, 0.5), 10.5),
                            (sum(v * v for v in values), 30.0), (sum([values[1], 2, 2.5]), 5.5)]:
        assert type(total) is Value and total.data == expected
    sum(values).backward()
    assert all(v.grad == 1.0 for v in values)
    assert type(sum([values[2]])) is Value
    assert math.prod(values[1:]).data == 24.0


UNSUPPORTED = [None, "a", b"a", [1.0], (1.0,), {}, object(), 1j, np.complex64(1), np.complex128(1),
               np.str_("a"), np.bytes_(b"a"), np.datetime64("2020-01-01"), Decimal(1), np.array(["a"]),
               np.array([1j]), np.array([None]), float]


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("other", UNSUPPORTED, ids=ids([(x,) for x in UNSUPPORTED]))
def test_unsupported_operands(op, other):
    v = Value(3.0)
    before = nodes()
    for attempt in [lambda: BINARY[op](v, other), lambda: BINARY[op](other, v),
                    lambda: IN_PLACE[op](v, other)]:
        with pytest.raises(TypeError):
            attempt()
    assert nodes() == before
    assert (v.data, v.grad) == (3.0, 0.0)


@pytest.mark.parametrize("unit", ["ns", "us", "D"])
def test_a_time_is_not_a_number(unit):
    number = np.timedelta64(1, unit)
    v = Value(3.0)
    for attempt in [lambda: Value(number), lambda: v.__init__(number)]:
        with pytest.raises(TypeError, match="data: expected a real number, got timedelta64"):
            attempt()
    for function in BINARY.values():
        for attempt in [lambda: function(v, number), lambda: function(number, v)]:
            with pytest.raises(TypeError, match="unsupported operand|expected numbers and Values, got times"):
                attempt()


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 10**400, np.uint64(2**64 - 1)])
def test_ints_that_do_not_fit(op, number):
    v = Value(3.0)
    before = nodes()
    for attempt in [lambda: BINARY[op](v, number), lambda: BINARY[op](number, v)]:
        with pytest.raises(ValueError, match="expected a number that float64 holds exactly"):
            attempt()
    assert nodes() == before


@pytest.mark.parametrize("other", [2, 2.5, Value(2.0), np.float64(2), np.int64(2), np.array([2.0])],
                         ids=lambda x: type(x).__name__)
def test_operators_that_values_do_not_have(other):
    v = Value(3.0)
    before = nodes()
    for attempt in [
        lambda: v // other, lambda: other // v, lambda: v % other, lambda: other % v,
        lambda: divmod(v, other), lambda: divmod(other, v), lambda: pow(v, other, 3),
        lambda: pow(v, 2, other), lambda: v & other, lambda: v | other, lambda: v ^ other,
        lambda: v << other, lambda: v >> other,
    ]:
        with pytest.raises(TypeError):
            attempt()
    with pytest.raises(TypeError):
        pow(2, v, 3)
    with pytest.raises((TypeError, ValueError)):   # NumPy's word for an operand without dimensions
        v @ other
    assert nodes() == before


def test_operators_of_others_have_their_say():
    """An operand that we do not know may know us."""
    class Other:
        def __radd__(self, v):
            return "radd"

        def __rpow__(self, v):
            return "rpow"

        def __lt__(self, v):
            return "lt"

    v = Value(1.0)
    assert v + Other() == "radd" and v ** Other() == "rpow" and (Other() < v) == "lt"
    assert Value.__add__(v, Other()) is NotImplemented
    with pytest.raises(TypeError):
        v * Other()


def test_operators_as_methods():
    v = Value(3.0)
    assert v.__add__(2).data == 5.0 and v.__radd__(2).data == 5.0 and v.__rsub__(2).data == -1.0
    assert v.__rtruediv__(6.0).data == 2.0 and v.__rpow__(2.0).data == 8.0 and v.__pow__(2).data == 9.0
    assert Value.__mul__(v, v).data == 9.0 and v.__neg__().data == -3.0


# ---- NumPy arrays ----

ARRAYS = [np.array([1.5, 2.5]), np.array([1, 2, 3]), np.array([[1.0, 2.0], [3.0, 4.0]]),
          np.array([[1], [2]]), np.array([True, True]), np.array([1.5, 2.5], np.float32),
          np.array([1, 2], np.uint8), np.array([1.5, 2], object), np.array([]), np.zeros((0, 3)),
          np.arange(6.0).reshape(2, 3)[:, ::2] + 1, np.ones((2, 1, 3))]


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_operators_with_arrays(op, array):
    v = Value(2.0)
    for side, result, pairs in [
        ("left", BINARY[op](v, array), [(2.0, float(x)) for x in array.flat]),
        ("right", BINARY[op](array, v), [(float(x), 2.0) for x in array.flat]),
    ]:
        assert type(result) is np.ndarray and result.dtype == object and result.shape == array.shape
        for z, (x, y) in zip(result.flat, pairs, strict=True):
            assert v in z._prev
            v.grad = 0.0
            assert_operation(op, z, x, y, *([v, None] if side == "left" else [None, v]))


@pytest.mark.parametrize("op", BINARY)
def test_operators_with_arrays_of_values(op):
    a, b = Value(1.5), Value(2.5)
    array, v = np.array([a, b]), Value(2.0)
    assert array.dtype == object and array[0] is a
    function = BINARY[op]
    for result, expected in [
        (function(array, v), [(1.5, 2.0), (2.5, 2.0)]), (function(v, array), [(2.0, 1.5), (2.0, 2.5)]),
        (function(array, array[::-1]), [(1.5, 2.5), (2.5, 1.5)]),
        (function(array, 2.0), [(1.5, 2.0), (2.5, 2.0)]), (function(2, array), [(2.0, 1.5), (2.0, 2.5)]),
        (function(array, np.array([2.0, 3.0])), [(1.5, 2.0), (2.5, 3.0)]),
        (function(np.float32(2), array), [(2.0, 1.5), (2.0, 2.5)]),
    ]:
        assert result.dtype == object and all(type(z) is Value for z in result)
        assert [z.data for z in result] == pytest.approx([function(x, y) for x, y in expected], rel=1e-15)


def test_array_without_dimensions_is_a_number():
    """As in NumPy itself, where np.array(2.0) * 3.0 is no array."""
    v = Value(3.0)
    assert type(np.array(2.0) * v) is type(v * np.array(2.0)) is Value
    assert type(np.array(v, object) * 2.0) is Value


def test_arrays_of_values():
    a, b = Value(2.0), Value(3.0)
    array, weights = np.array([a, b]), np.array([10.0, 100.0])
    for result, expected in [
        (np.dot(array, weights), 320.0), (np.dot(weights, array), 320.0), (array @ weights, 320.0),
        (weights @ array, 320.0), (array @ array, 13.0), (array.sum(), 5.0), (np.sum(array), 5.0),
        (np.sum([a, b]), 5.0), (array.prod(), 6.0), (array.mean(), 2.5), ((array * weights).sum(), 320.0),
        (((array - 1.0) ** 2).sum(), 5.0),
    ]:
        assert type(result) is Value and result.data == expected
    np.dot(array, weights).backward()
    assert (a.grad, b.grad) == (10.0, 100.0)
    matrix = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert [z.data for z in matrix @ array] == [8.0, 18.0, 28.0]
    assert [z.data for z in array @ matrix.T] == [8.0, 18.0, 28.0]
    assert [z.data for z in np.outer(array, array).flat] == [4.0, 6.0, 6.0, 9.0]
    assert [z.data for z in -array] == [-2.0, -3.0] and [z.data for z in abs(-array)] == [2.0, 3.0]
    assert [z.data for z in np.exp(array)] == [math.exp(2.0), math.exp(3.0)]
    assert [z._op for z in np.tanh(array)] == ["tanh"] * 2
    assert array.astype(float).tolist() == [2.0, 3.0]
    assert (array > 2.5).tolist() == [False, True]
    assert array.max() is b and np.argmin(array) == 0


# ---- names of operations and their operands ----

a_, b_, c_ = Value(2.0), Value(3.0), Value(0.5)   # operands of the table below
GRAPH = [
    (lambda: a_ + b_, "+", {a_, b_}), (lambda: a_ - b_, "-", {a_, b_}), (lambda: a_ * b_, "*", {a_, b_}),
    (lambda: a_ / b_, "/", {a_, b_}), (lambda: -a_, "neg", {a_}), (lambda: abs(a_), "abs", {a_}),
    (lambda: a_**2, "**2", {a_}), (lambda: a_**-1, "**-1", {a_}), (lambda: a_**0, "**0", {a_}),
    (lambda: a_**2.0, "**2.0", {a_}), (lambda: a_**-0.5, "**-0.5", {a_}), (lambda: a_**1e-7, "**1e-07", {a_}),
    (lambda: a_**b_, "**", {a_, b_}), (lambda: a_**a_, "**", {a_}),
    (lambda: a_.relu(), "ReLU", {a_}), (lambda: a_.tanh(), "tanh", {a_}),
    (lambda: a_.sigmoid(), "sigmoid", {a_}), (lambda: a_.exp(), "exp", {a_}), (lambda: a_.log(), "log", {a_}),
    (lambda: a_.sqrt(), "sqrt", {a_}), (lambda: a_.sin(), "sin", {a_}), (lambda: a_.cos(), "cos", {a_}),
    (lambda: a_.abs(), "abs", {a_}), (lambda: flatgrad.relu(a_), "ReLU", {a_}),
    (lambda: flatgrad.abs(a_), "abs", {a_}), (lambda: flatgrad.maximum(a_, b_), "maximum", {a_, b_}),
    (lambda: flatgrad.minimum(a_, b_), "minimum", {a_, b_}),
    (lambda: flatgrad.where(a_, b_, c_), "where", {a_, b_, c_}),
    (lambda: flatgrad.clip(a_, b_, c_), "clip", {a_, b_, c_}),
    (lambda: flatgrad.clip(a_, a_, a_), "clip", {a_}),
    (lambda: Value(1.0, (a_,), "mine"), "mine", {a_}), (lambda: Value(1.0), "", set()),
    (lambda: Value(1.0, (), "label"), "label", set()), (lambda: Value(1.0, (a_,)), "", {a_}),
]


@pytest.mark.parametrize("make, op, prev", GRAPH)
def test_op_and_prev(make, op, prev):
    z = make()
    assert z._op == op and type(z._op) is str
    assert z._prev == prev and type(z._prev) is set
    assert {id(v) for v in z._prev} == {id(v) for v in prev}


@pytest.mark.parametrize("make, data", [
    (lambda: a_ + 7, [2.0, 7.0]), (lambda: 7 - a_, [2.0, 7.0]), (lambda: 7**a_, [2.0, 7.0]),
    (lambda: a_ + 2, [2.0, 2.0]), (lambda: flatgrad.maximum(a_, 1), [1.0, 2.0]),
    (lambda: flatgrad.clip(a_, 0, 1), [0.0, 1.0, 2.0]), (lambda: flatgrad.exp(1), [1.0]),
    (lambda: flatgrad.where(True, a_, 4.0), [1.0, 2.0, 4.0]), (lambda: 2 * Value(3.0), [2.0, 3.0])])
def test_constants_are_leaves(make, data):
    prev = make()._prev
    assert sorted(v.data for v in prev) == data
    assert all(v._op == "" and v._prev == set() for v in prev)


# ---- subclasses and methods put in from outside ----

class Labelled(Value):
    """The subclass that people write."""

    def __init__(self, data, label="", **keywords):
        super().__init__(data, **keywords)
        self.label = label

    def squared(self):
        return self * self


def test_subclass():
    v = Labelled(3.0, "x")
    v.colour = "red"
    assert isinstance(v, Value) and (v.data, v.label, v.colour) == (3.0, "x", "red")
    w = v * 2.0 + 1
    assert type(w) is Value and type(v.squared()) is Value and type(2.0 - v) is Value
    assert type(v + v) is Value and type(Value(1.0) + v) is Value and type(v.tanh()) is Value
    (v * v).backward()
    assert v.grad == 6.0
    (product,) = [p for p in w._prev if p._op == "*"]
    assert next(p for p in product._prev if p.data == 3.0) is v
    made = Labelled(1.0, "y", _children=(v,), _op="mine")
    assert made._prev == {v} and made._op == "mine" and made.label == "y"
    assert repr(v) == "Value(data=3.0, grad=6.0)"
    with pytest.raises(TypeError):
        Labelled("3")


def test_subclass_handle_is_kept_apart():
    """A subclass instance dies; its node, still used, comes back as a plain Value."""
    v = Labelled(3.0, "x")
    w = v * 2.0
    reference = weakref.ref(v)
    del v
    assert reference() is None
    again = max(w._prev)
    assert type(again) is Value and again.data == 3.0


def test_subclass_with_a_finalizer():
    """One that makes Values, collects, and holds on to the dying object."""
    kept = []

    class Final(Value):
        def __del__(self):
            kept.append((self, self.data, Value(1.0) * 2.0))
            flatgrad.collect()

    before = nodes()
    v = Final(3.0)
    y = v * 2.0
    del v
    v, data, made = kept.pop()
    assert (data, v.data, made.data) == (3.0, 3.0, 2.0) and v in y._prev
    y.backward()
    assert v.grad == 2.0
    del v, y, made
    assert nodes() == before and kept == []   # a finalizer runs once


def test_subclass_in_a_cycle():
    before = nodes()
    v = Labelled(1.0, "x")
    v.label = v
    y = v * 2.0
    reference = weakref.ref(v)
    del v
    gc.collect()
    assert reference() is None and min(y._prev).data == 1.0
    del y
    assert nodes() == before


def test_subclass_without_init_or_with_slots():
    class Bare(Value):
        def __init__(self):
            pass

    class Slotted(Value):
        __slots__ = ("label",)

    assert (Bare().data, (Bare() + 1.0).data) == (0.0, 1.0)
    v = Slotted(2.0)
    v.label = "x"
    assert v.label == "x" and (v * 2).data == 4.0


def test_subclass_operators():
    class Loud(Value):
        def __add__(self, other):
            return Loud(self.data + getattr(other, "data", other) + 100)

        def __radd__(self, other):
            return Loud(-1.0)

        def relu(self):
            return "relu"

    v = Loud(1.0)
    assert (v + 2).data == 103.0 and type(v + 2) is Loud and (2 + v).data == -1.0
    assert (Value(2.0) + v).data == -1.0   # the subclass on the right goes first, as ever in Python
    assert v.relu() == "relu" and (v * 2.0).data == 2.0
    assert sum([v, v]).data == 100.0 - 1.0 + 1.0


@pytest.fixture
def patch():
    """Sets attributes of Value, and puts back what was there."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield lambda name, new: monkeypatch.setattr(Value, name, new, raising=False)
    v = Value(2.0)
    y = (v * 3.0 + 1.0).relu() - 4.0 / v
    y.backward()
    assert (y.data, v.grad) == (5.0, 4.0)
    assert not hasattr(Value, "double")
    random.seed(1)
    assert type(MLP(2, [3, 1])([1.0, 2.0])) is Value


def test_new_method(patch):
    """As notebooks add them, with micrograd's constructor for the result."""
    patch("double", lambda self: Value(self.data * 2, (self,), "double"))
    v = Value(3.0)
    assert v.double().data == 6.0 and v.double()._op == "double" and v.double()._prev == {v}


def test_replaced_method(patch):
    patch("tanh", lambda self: (2.0 * self).sigmoid() * 2.0 - 1.0)
    v = Value(0.5)
    y = v.tanh()
    y.backward()
    assert y._op == "-" and y.data == pytest.approx(math.tanh(0.5), rel=1e-14)
    assert v.grad == pytest.approx(1 - math.tanh(0.5) ** 2, rel=1e-14)
    assert flatgrad.tanh(v)._op == "tanh"


@pytest.mark.parametrize("name, special", [("+", "__add__"), ("-", "__sub__"), ("*", "__mul__"),
                                           ("/", "__truediv__"), ("**", "__pow__")])
def test_replaced_operator(patch, name, special):
    original = getattr(Value, special)
    patch(special, lambda self, other: original(self, other) if isinstance(other, Value) else "patched")
    v = Value(3.0)
    assert BINARY[name](v, 2.0) == BINARY[name](v, 2) == "patched"
    assert ulps(BINARY[name](v, v).data, BINARY[name](3.0, 3.0)) <= 1
    assert type(BINARY[name](2.0, v)) is Value   # that is the reflected method's


def test_replaced_others(patch):
    patch("__repr__", lambda self: f"<{self.data}>")
    patch("__neg__", lambda self: "neg")
    patch("__lt__", lambda self, other: "lt")
    v = Value(3.0)
    assert repr(v) == "<3.0>" and -v == "neg" and (v < v) == "lt"


def test_replaced_init(patch):
    original = Value.__init__

    def init(self, data, *rest):
        original(self, data * 10, *rest)

    patch("__init__", init)
    assert Value(3.0).data == 30.0 and (Value(1.0) + 2.0).data == 12.0
    assert Neuron(1).b.data == 0.0


@pytest.mark.parametrize("name, calls", [("relu", 4), ("__add__", 12), ("__mul__", 12)])
def test_nn_honours_replaced_operations(patch, name, calls):
    """A counting wrapper sees each of the operations of 4 neurons with 3 weights.

    They are the scalar graph, to the bit; a layer's one node is so to 1e-12, and no nearer on every level.
    """
    random.seed(4)
    layer = Layer(3, 4)
    x = [0.5, Value(-1.0), 2]
    fused = [v.data for v in layer(x)]
    with flatgrad.scalar_graph():
        expected = [v.data for v in layer(x)]
    original = getattr(Value, name)
    seen = []

    def counting(self, *operands):
        seen.append(self)
        return original(self, *operands)

    patch(name, counting)
    assert [v.data for v in layer(x)] == expected
    assert len(seen) == calls
    np.testing.assert_allclose(fused, expected, rtol=1e-12, atol=0)


def test_nn_takes_subclasses():
    class Scaled(Value):
        def __mul__(self, other):
            return Value.__mul__(self, other) * 10.0

    neuron = Neuron(2, nonlin=False)
    neuron.w = [Scaled(1.0), Value(2.0)]
    assert neuron([3.0, 4.0]).data == 38.0
    neuron.b = Labelled(5.0, "bias")
    assert neuron([3.0, 4.0]).data == 43.0


# ---- Python's errors, and none where Python has none ----

ERRORS = [
    (lambda v: v(1.0) / 0, ZeroDivisionError, ["1.0", "/", "0.0"]),
    (lambda v: v(1.5) / 0.0, ZeroDivisionError, ["1.5", "/", "0.0"]),
    (lambda v: v(1.5) / v(-0.0), ZeroDivisionError, ["1.5", "/", "-0.0"]),
    (lambda v: 7 / v(0.0), ZeroDivisionError, ["7.0", "/", "0.0"]),
    (lambda v: v(INF) / False, ZeroDivisionError, ["inf", "/", "0.0"]),
    (lambda v: v(NAN) / np.float64(0), ZeroDivisionError, ["nan", "/", "0.0"]),
    (lambda v: v(0.0) ** -1, ZeroDivisionError, ["0.0", "**", "-1"]),
    (lambda v: v(-0.0) ** -3, ZeroDivisionError, ["-0.0", "**", "-3"]),
    (lambda v: v(0.0) ** -0.5, ZeroDivisionError, ["0.0", "**", "-0.5"]),
    (lambda v: v(0.0) ** v(-1.0), ZeroDivisionError, ["0.0", "**", "-1.0"]),
    (lambda v: 0 ** v(-1.0), ZeroDivisionError, ["0.0", "**", "-1.0"]),
    (lambda v: v(1e200) ** 2, OverflowError, ["1e+200", "**", "2"]),
    (lambda v: v(1e200) ** 2.5, OverflowError, ["1e+200", "**", "2.5"]),
    (lambda v: v(-1e200) ** v(3.0), OverflowError, ["-1e+200", "**", "3.0"]),
    (lambda v: 10 ** v(400.0), OverflowError, ["10.0", "**", "400.0"]),
    (lambda v: v(2.0) ** 2**40, OverflowError, ["2.0", "**", str(float(2**40))]),
    (lambda v: v(1e-200) ** -2, OverflowError, ["1e-200", "**", "-2"]),
    (lambda v: v(1000.0).exp(), OverflowError, ["exp", "1000.0"]),
    (lambda v: flatgrad.exp(710), OverflowError, ["exp", "710.0"]),
    (lambda v: v(-1.0).log(), ValueError, ["log", "-1.0"]),
    (lambda v: v(0.0).log(), ValueError, ["log", "0.0"]),
    (lambda v: v(-0.0).log(), ValueError, ["log", "-0.0"]),
    (lambda v: v(-INF).log(), ValueError, ["log", "-inf"]),
    (lambda v: v(-1.0).sqrt(), ValueError, ["sqrt", "-1.0"]),
    (lambda v: flatgrad.sqrt(-5e-324), ValueError, ["sqrt", "-5e-324"]),
    (lambda v: v(-8.0) ** (1 / 3), ValueError, ["-8.0", "**", "0.333"]),
    (lambda v: v(-8.0) ** v(0.5), ValueError, ["-8.0", "**", "0.5"]),
    (lambda v: (-8) ** v(0.5), ValueError, ["-8.0", "**", "0.5"]),
    (lambda v: v(INF).sin(), ValueError, ["sin", "inf"]),
    (lambda v: v(-INF).cos(), ValueError, ["cos", "-inf"]),
]


@pytest.mark.parametrize("attempt, error, words", ERRORS, ids=[" ".join(row[2]) for row in ERRORS])
def test_python_errors(attempt, error, words):
    """The type that Python's floats raise, with the operation and its operands in the message."""
    made = []

    def value(data):
        made.append(Value(data))
        made[-1].grad = 0.25
        return made[-1]

    with pytest.raises(error) as caught:
        attempt(value)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "expected" in str(caught.value)
    assert all(v.grad == 0.25 and v._prev == set() for v in made)
    caught = None
    before = nodes()
    with pytest.raises(error):
        attempt(lambda data: next(v for v in made if same(v.data, data)))
    assert nodes() == before


def test_an_error_changes_nothing_around_it():
    """The expression so far keeps working."""
    a = Value(2.0)
    y = a * 3.0
    before = nodes()
    for attempt in [lambda: y / (a - 2.0), lambda: (y - 7.0).log(), lambda: (y * 200.0).exp(),
                    lambda: (a - 2.0) ** -1, lambda: y + "a", lambda: (y - 10.0) ** 0.5]:
        with pytest.raises((ArithmeticError, ValueError, TypeError)):
            attempt()
        assert nodes() == before
    z = y + 1.0
    z.backward()
    assert z.data == 7.0 and a.grad == 3.0


SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.0, -3.0, 0.5, INF, -INF, NAN, 1e308, -1e308, 5e-324, 1e-308]


@pytest.mark.parametrize("op", BINARY)
def test_special_operands_as_floats_have_it(op):
    """Infinities, nan, signed zeros and overflow: Python's result or Python's error."""
    function = BINARY[op]
    for x in SPECIAL:
        for y in SPECIAL:
            try:
                expected = function(x, y)
            except ArithmeticError as error:
                expected = type(error)
            if isinstance(expected, complex):
                expected = ValueError
            for attempt in [lambda: function(Value(x), Value(y)), lambda: function(Value(x), y),
                            lambda: function(x, Value(y))]:
                if isinstance(expected, type):
                    with pytest.raises(expected):
                        attempt()
                else:
                    got = attempt().data
                    assert same(got, expected) or (op == "**" and ulps(got, expected) <= 1), (x, y, got)


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "sin", "cos", "tanh", "fabs"])
def test_special_operands_as_math_has_it(name):
    method = {"fabs": "abs"}.get(name, name)
    for x in [*SPECIAL, 709.0, 709.8, -745.0, -1000.0, 1e22]:
        try:
            expected = getattr(math, name)(x)
        except (ValueError, OverflowError) as error:
            with pytest.raises(type(error)):
                getattr(Value(x), method)()
            continue
        got = getattr(Value(x), method)().data
        assert same(got, expected) or ulps(got, expected) <= 1, (x, got)


@pytest.mark.parametrize("make, grad", [
    (lambda x: x**0.5, INF), (lambda x: x**0, 0.0), (lambda x: x**0.0, 0.0), (lambda x: x**1, 1.0),
    (lambda x: x**2, 0.0), (lambda x: x**1.5, 0.0), (lambda x: x.sqrt(), INF), (lambda x: x**Value(0.0), 0.0),
    (lambda x: x**Value(0.5), INF), (lambda x: x * INF, INF), (lambda x: x.relu(), 0.0),
    (lambda x: abs(x), 0.0), (lambda x: 0.0**x, 0.0)])
def test_backward_at_zero_never_raises(make, grad):
    x = Value(0.0)
    assert make(x).backward() is None
    assert x.grad == grad


def test_backward_with_changed_data_never_raises():
    """Data set to where the forward pass would have raised."""
    for make, data, grad in [
        (lambda x: x**-1, 0.0, -INF), (lambda x: 1.0 / x, 0.0, -INF), (lambda x: x.log(), 0.0, INF),
        (lambda x: x**0.5, -1.0, NAN), (lambda x: x.log(), -2.0, -0.5), (lambda x: x**2, 1e308, INF),
        (lambda x: x.sin(), INF, NAN)]:
        x = Value(1.0)
        y = make(x)
        x.data = data
        assert y.backward() is None
        assert same(x.grad, grad) or data == 1e308 and x.grad == 2e308


# ---- backward ----

def test_backward_adds_and_never_zeroes():
    x = Value(3.0)
    y = x * x
    x.grad = 100.0
    y.grad = 50.0
    assert y.backward() is None
    assert x.grad == 106.0 and y.grad == 1.0   # the root's is set
    y.backward()
    assert x.grad == 112.0
    z = y * 2.0
    z.backward()
    assert y.grad == 3.0 and x.grad == 112.0 + 18.0
    with pytest.raises(TypeError):
        y.backward(1.0, False, 2.0)


def test_backward_of_a_leaf():
    x = Value(3.0)
    x.grad = 5.0
    x.backward()
    assert x.grad == 1.0


def test_backward_reads_data_at_backward_time():
    x, y = Value(3.0), Value(4.0)
    z = x * y + x**2
    x.data, y.data = 5.0, 7.0
    z.backward()
    assert (z.data, x.grad, y.grad) == (21.0, 17.0, 5.0)


def test_backward_through_a_million_operations():
    x = Value(0.5)
    y = x
    for _ in range(500_000):
        y = y * 1.0 + 0.0
    y.backward()
    assert x.grad == 1.0
    y, x.grad = x, 0.0
    for _ in range(1_000_000):
        y = y + x
    y.backward()
    assert x.grad == 1_000_001.0 and y.data == 500_000.5
    del y   # no recursion here either
    assert nodes() < 1_000_000


def test_threads():
    """Expressions built and differentiated in several threads at once."""
    errors = []

    def work(seed):
        rng = random.Random(seed)
        try:
            for _ in range(150):
                expression, expected = reference.random_expression(rng, list(reference.ARITY), max_steps=20)
                got = expression.run(flatgrad)
                got[-1].backward()
                expected[-1].backward()
                for v, r in zip(got, expected):
                    assert v.data == pytest.approx(r.data, rel=1e-9, abs=1e-9)
                    assert abs(v.grad - r.grad) <= 1e-8 * r.size
        except BaseException as error:
            errors.append((seed, error))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(5)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []


def test_random_expressions_against_the_reference():
    """All operations mixed; the values' own rounding is carried along, so not to the last bit."""
    rng = random.Random(8)
    close = count = 0
    for _ in range(1500):
        expression, expected = reference.random_expression(rng, list(reference.ARITY), exponent_values=True)
        got = expression.run(flatgrad)
        got[-1].backward()
        expected[-1].backward()
        for v, r in zip(got, expected, strict=True):
            assert v.data == pytest.approx(r.data, rel=1e-9, abs=1e-9)
            assert abs(v.grad - r.grad) <= 1e-8 * r.size
            close += abs(v.grad - r.grad) <= 1e-12 * abs(r.grad)
            count += 1
    assert close > 0.99 * count


# ---- nn ----

@pytest.mark.parametrize("model, expected", [
    (Neuron(3), 3), (Layer(3, 2), 3), (Layer(3, 1), 3), (MLP(3, [4, 1]), 3), (Neuron(0), 0)])
def test_wrong_number_of_inputs(model, expected):
    for got in {0, expected - 1, expected + 1, expected + 5} - {-1, expected}:
        for make in [list, tuple, iter, np.array, lambda x: [Value(k) for k in x]]:
            x = make([1.0] * got)
            before = nodes()
            with pytest.raises(ValueError, match=rf"x: expected {expected} inputs.* got {got}$"):
                model(x)
            assert nodes() == before


def test_wrong_number_of_inputs_inside():
    model = MLP(2, [3, 1])
    model.layers[1] = Layer(4, 1)
    with pytest.raises(ValueError, match="expected 4 inputs.* got 3"):
        model([1.0, 2.0])


@pytest.mark.parametrize("x", [["a", "b"], [None, None], [1.0, 1j], [1.0, [2.0]], 5, None])
def test_wrong_inputs(x):
    for model in [Neuron(2), Layer(2, 2), MLP(2, [2, 1])]:
        before = nodes()
        with pytest.raises(TypeError):
            model(x)
        assert nodes() == before


@pytest.mark.parametrize("make, error, words", [
    (lambda: MLP(2, 3), TypeError, r"nouts: expected a sequence of .*sizes, got 3; write MLP\(2, \[3\]\)"),
    (lambda: MLP(2, None), TypeError, "nouts: expected a sequence of .*sizes, got None$"),
    (lambda: MLP(2, None), TypeError, "nouts: .* got None"),
    (lambda: MLP(2, [3, "1"]), ArgumentTypeError, "expected an int, got '1'"),
    (lambda: MLP(2, [3, 1.0]), ArgumentTypeError, r"expected an int, got 1\.0"),
    (lambda: MLP(2.0, [3]), ArgumentTypeError, r"nin: expected an int, got 2\.0"),
    (lambda: MLP("2", [3]), ArgumentTypeError, "nin: expected an int, got '2'"),
    (lambda: MLP(2, [3, -1]), ArgumentError, "nout: expected 0 or more, got -1"),
    (lambda: MLP(-2, [3]), ArgumentError, "nin: expected 0 or more, got -2"),
    (lambda: Layer(2, -3), ArgumentError, "nout: expected 0 or more, got -3"),
    (lambda: Layer(-2, 3), ArgumentError, "nin: expected 0 or more, got -2"),
    (lambda: Layer(2, None), ArgumentTypeError, "nout: expected an int, got None"),
    (lambda: Neuron(-1), ArgumentError, "nin: expected 0 or more, got -1"),
    (lambda: Neuron(2.5), ArgumentTypeError, r"nin: expected an int, got 2\.5"),
    (lambda: Neuron(Value(2.0)), ArgumentTypeError, "nin: expected an int"),
    (lambda: Neuron(2, linear=True), TypeError, "linear"),
])
def test_wrong_sizes(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("nouts", [[4, 1], (4, 1), np.array([4, 1]), range(4, 0, -3)])
def test_sizes_may_be_any_sequence(nouts):
    random.seed(1)
    model = MLP(np.int64(2), nouts)
    assert repr(model) == ("MLP of [Layer of [ReLUNeuron(2), ReLUNeuron(2), ReLUNeuron(2), ReLUNeuron(2)], "
                           "Layer of [LinearNeuron(4)]]")
    assert len(model.parameters()) == 17 and type(model([1.0, 2.0])) is Value


def test_module():
    assert Module().parameters() == [] and Module().zero_grad() is None

    class Pair(Module):
        def __init__(self):
            self.parts = [Neuron(1), Neuron(2)]

        def parameters(self):
            return [p for part in self.parts for p in part.parameters()]

    pair = Pair()
    for p in pair.parameters():
        p.grad = 3.0
    pair.zero_grad()
    assert [p.grad for p in pair.parameters()] == [0.0] * 5


def test_neuron_is_the_scalar_graph():
    """Drawn, it looks like micrograd's: b + w0 * x0 + w1 * x1, then relu."""
    neuron = Neuron(2)
    x = [Value(1.0), Value(2.0)]
    act = neuron(x)
    assert act._op == "ReLU"
    (total,) = act._prev
    assert total._op == "+"
    (last,) = [v for v in total._prev if v._op == "*"]
    assert last._prev == {neuron.w[1], x[1]}
    (first_sum,) = total._prev - {last}
    assert first_sum._op == "+" and neuron.b in first_sum._prev
    (first,) = first_sum._prev - {neuron.b}
    assert first._op == "*" and first._prev == {neuron.w[0], x[0]}


def test_outputs_come_unwrapped_if_alone():
    assert type(MLP(2, [3, 1])([1.0, 2.0])) is Value and type(Layer(2, 1)([1.0, 2.0])) is Value
    out = MLP(2, [3, 2])([1.0, 2.0])
    assert type(out) is list and [type(v) for v in out] == [Value, Value]
    assert Layer(2, 0)([1.0, 2.0]) == []
