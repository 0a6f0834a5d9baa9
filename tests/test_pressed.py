"""Ctrl-C that has been pressed just before a call begins is heard at the first pause within it; a handler that goes on
gets the numbers that there are without it."""
import ctypes
import functools
import gc
import itertools
import math
import operator
import os
import signal
import sys
import weakref

import numpy as np
import pytest

import flatgrad
from flatgrad import Value, _core

pytestmark = [pytest.mark.usefixtures("nothing_left_behind"),
              pytest.mark.skipif(os.name != "posix", reason="needs the C library's raise")]

STEPS = 70_000   # of two operations; a program looks for signals every 65,536


def press():
    """What raises the signal, in C: Python does not hear of it before the next call."""
    return functools.partial(ctypes.PyDLL(None)["raise"], int(signal.SIGINT))


def after_press(function):
    """The result of a call that begins when Ctrl-C has just been pressed."""
    return list(map(operator.methodcaller("__call__"), [press(), function]))[1]


def after_press_with_handler(function):
    """The same with a handler that goes on."""
    heard = []
    old = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        found = after_press(function)
    finally:
        signal.signal(signal.SIGINT, old)
    assert heard == [signal.SIGINT]
    return found


def chain(x):
    y = x
    for _ in range(STEPS):
        y = (y * x).sin()
    return y


@pytest.fixture(scope="module")
def program():
    recording = _core._Recording([x := Value(1.25)])
    with recording:
        y = chain(x)
    return recording.program([y, y * 2.0])


def numbers_of_chain(x):
    """The value and the derivative, by Python."""
    y, dy = x, 1.0
    for _ in range(STEPS):
        y, dy = math.sin(y * x), math.cos(y * x) * (dy * x + y)
    return y, dy


def test_evaluations(program):
    e = _core._Evaluator(program, [0])
    y, dy = numbers_of_chain(1.25)
    for call in (functools.partial(e.values, [1.25]), functools.partial(e.table, [1.25])):
        with pytest.raises(KeyboardInterrupt):
            after_press(call)
        for found in (call(), after_press_with_handler(call)):
            values, table = found if type(found) is tuple else (found, None)
            assert np.allclose(values, [y, 2.0 * y], rtol=1e-12)
            assert table is None or np.allclose(table, [[dy], [2.0 * dy]], rtol=1e-9)


def test_the_rule_of_a_call():
    """The rule of one node is done to its end, or begun again where the call has stopped."""
    xs = np.linspace(0.5, 1.5, 3000)
    for stops in (True, False):
        x = Value(0.75)
        end, _ = flatgrad.scan(lambda c, v: ((c * v).sin() + 0.1 * c, c), x, xs)
        c, dc = 0.75, 1.0
        for v in xs:
            c, dc = math.sin(c * v) + 0.1 * c, math.cos(c * v) * dc * v + 0.1 * dc
        end.grad = 1.0
        if stops:
            with pytest.raises(KeyboardInterrupt):
                after_press(end._backward)
            assert _core._check()
        else:
            after_press_with_handler(end._backward)
            assert x.grad == pytest.approx(dc, rel=1e-9)


def test_the_call_of_a_derivative(program):
    """It is done again when it has been interrupted, or is not there."""
    warm = Value(1.5)
    _core.written([program([warm])[0]], [None], [warm])   # its program is made once
    for number, stops in ((1.125, True), (1.375, False)):   # for the same number that of the last call would be taken
        x = Value(number)
        y = program([x])[0]
        work, nodes = functools.partial(_core.written, [y], [None], [x]), _core.stats()["nodes"]
        if stops:
            with pytest.raises(KeyboardInterrupt):
                after_press(work)
            assert _core._check() and _core.stats()["nodes"] <= nodes
        else:
            found, = after_press_with_handler(work)
            assert found.data == pytest.approx(numbers_of_chain(number)[1], rel=1e-9)


# ---- cycles through the tape ----

class Told:
    """An object of which weak references tell whether it is there."""
    __slots__ = ("__weakref__",)


class Presses:
    """Presses Ctrl-C when it is finalized."""
    __slots__ = ()
    __del__ = staticmethod(press()) if os.name == "posix" else None   # a partial is a method from Python 3.14 on


def garbage(count, *more):
    """Weak references to what is held by nodes in cycles, which have attributes that hold themselves."""
    x, found = Value(1.0), []
    for _ in range(count):
        y = x * 2.0
        y.note = [y, Told(), *[make() for make in more]]
        found.append(weakref.ref(y.note[1]))
    return found


def alive(found):
    return len([ref for ref in found if ref() is not None])


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.collect()


@pytest.fixture
def goes_on():
    """A handler that goes on."""
    old = signal.signal(signal.SIGINT, lambda number, frame: None)
    yield
    signal.signal(signal.SIGINT, old)


def test_the_collector(no_collector):
    """What a handler raises would be lost there: the walk ends, and the next one finds what it has left."""
    found = garbage(40_000)
    with pytest.raises(KeyboardInterrupt):
        after_press(gc.collect)
    assert alive(found) == 40_000 and _core._check()
    gc.collect()
    assert alive(found) == 0


@pytest.mark.parametrize("stops", [False, True])
def test_a_collection_of_the_tape(no_collector, stops):
    """It has done nothing, or begins again."""
    found = garbage(40_000)
    if stops:
        with pytest.raises(KeyboardInterrupt):
            after_press(_core.collect)
        assert alive(found) == 40_000 and _core._check()
        _core.collect()
    else:
        after_press_with_handler(_core.collect)
    assert alive(found) == 0


def test_a_collection_that_is_due(no_collector):
    """Before one of many operations, which are not done."""
    x, found = Value(3.0), garbage(40_000)
    with pytest.raises(KeyboardInterrupt):
        after_press(functools.partial(list, map(operator.mul, itertools.repeat(x, 400_000), itertools.repeat(2.0))))
    assert _core._check() and (x * 2.0).data == 6.0
    gc.collect()
    assert alive(found) == 0


def test_a_tape_that_is_full(no_collector):
    """The operation that needs room has not been done. What the walk has left is found by Python's collector."""
    x, found = Value(3.0), garbage(40_000)
    _core._testing(limit=_core.stats()["nodes"])
    with pytest.raises(KeyboardInterrupt):
        after_press(functools.partial(operator.mul, x, 2.0))
    assert alive(found) == 40_000 and _core._check()
    _core._testing(limit=0xFFFFFFF0)
    assert (x * 2.0).data == 6.0
    gc.collect()
    assert alive(found) == 0


def test_while_cycles_are_emptied(no_collector, goes_on):
    """It ends early, and the rest goes the next time; from Python 3.12 on at once, where asking for signals may run
    Python's collector."""
    found = garbage(5_000, Presses)
    gc.collect()
    assert alive(found) < 5_000 and (alive(found) > 0 or sys.version_info >= (3, 12))
    for _ in range(5):
        gc.collect()
    assert alive(found) == 0


def test_a_collection_that_is_interrupted_while_it_follows_what_is_needed():
    kept = [Value(0.0) for _ in range(40_000)]
    node = Value(1.0) * 2.0
    node.kept = kept
    garbage = Value(1.0) * 2.0
    garbage.itself = [garbage, kept]
    gone = weakref.ref(garbage)
    del garbage
    with pytest.raises(KeyboardInterrupt):
        after_press(flatgrad.collect)
    assert _core._check() and len(node.kept) == 40_000
    after_press_with_handler(flatgrad.collect)
    assert gone() is None and node.kept is kept and kept[-1].data == 0.0


def test_gradients_as_nodes_are_interrupted():
    y = chain(x := Value(1.25))
    before = flatgrad.stats()["nodes"]
    with pytest.raises(KeyboardInterrupt):
        after_press(functools.partial(_core.written, [y], [None], [x]))
    assert _core._check()
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] <= before


def test_backward_of_one_number_of_a_large_product():
    x, w = flatgrad.Tensor(np.full((700, 700), 0.5)), flatgrad.Tensor(np.ones((700, 700)))
    number = (x @ w)[0, 0]
    number.grad = 1.0
    after_press_with_handler(number._backward)
    expected = np.zeros((700, 700))
    expected[0, :] = 1.0
    np.testing.assert_array_equal(x.grad, expected)


@pytest.fixture(scope="module")
def products():
    recording = _core._Recording([x := Value(1.0)])
    with recording:
        y = x
        for _ in range(2 * STEPS):
            y = y * x
    return recording.program([y])


@pytest.mark.parametrize("which", ["program", "products"])
def test_timed_goes_on_after_signals(which, request):
    program = request.getfixturevalue(which)
    heard = []
    old = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
    try:
        found = _core._timed(program, 0.02)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, old)
    assert heard and found["backward"] > 0.0 and all(seconds > 0.0 for seconds in found["kinds"].values())
