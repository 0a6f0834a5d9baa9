"""Ctrl-C at every question of the core whether to stop: in long programs, products, scans, lanes and training loops.

`_core._testing(stop_after=k)` presses it at the question after k others, so that each question of a call is met."""
import math
import signal

import numpy as np
import pytest
from checks.subjects import same as same_tree

import flatgrad
from flatgrad import Tensor, Value, _core
from flatgrad.loops import Step

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

LONG = 66_000   # nodes of a chain: more than 2**16, after which a program asks
SIDE = 590      # of a square product: it takes more than 2 * 10**8 multiply-adds, and so two parts


def pressed(work, after):
    """What work returns, or None if Ctrl-C has ended it, pressed at the question after so many."""
    try:
        _core._testing(stop_after=after)
        return work()
    except KeyboardInterrupt:
        return None
    finally:
        _core._testing(stop_after=-1)


def heard(work, after):
    """What work returns though Ctrl-C is pressed at the question after so many, and whether it was."""
    found = []
    old = signal.signal(signal.SIGINT, lambda *args: found.append(1))
    try:
        _core._testing(stop_after=after)
        return work(), bool(found)
    finally:
        _core._testing(stop_after=-1)
        signal.signal(signal.SIGINT, old)


def record(f, *inputs):
    recording = _core._Recording(list(inputs))
    with recording:
        outputs = f(*inputs)
    return recording.program(outputs if isinstance(outputs, list) else [outputs])


def slow(x, count=LONG):
    """So many nodes, one after the other."""
    for _ in range(count):
        x = x.sin()
    return x


def by_hand(x, count=LONG):
    """slow(x) and its derivative."""
    slope = np.ones_like(x)
    for _ in range(count):
        slope, x = slope * np.cos(x), np.sin(x)
    return x, slope


def chain():
    x = Value(0.5)
    program = record(slow, x)
    return lambda: program([x]), [x], by_hand(0.5)[0], [by_hand(0.5)[1]]


def chain_of_two_results():
    x, y = Value(0.5), Value(2.0)
    program = record(lambda x, y: [slow(x) * y, x * y], x, y)
    value, slope = by_hand(0.5)
    return lambda: program([x, y]), [x, y], value * 2.0, [slope * 2.0, value]


def long_product():
    a, b = np.linspace(-1.0, 1.0, SIDE * SIDE).reshape(SIDE, SIDE), np.linspace(0.5, 1.0, SIDE * SIDE).reshape(SIDE, SIDE)
    x, w = Tensor(a), Tensor(b)
    program = record(lambda x: (x @ w).sum(), x)
    ones = np.ones((SIDE, SIDE))
    return lambda: program([x]), [x, w], (a @ b).sum(), [ones @ b.T, a.T @ ones]


def long_product_of_two_results():
    """A backward pass from one of them goes by marks."""
    a = np.linspace(-1.0, 1.0, SIDE * SIDE).reshape(SIDE, SIDE)
    x = Tensor(a)
    program = record(lambda x: [(x @ x.T).sum(), x.sum()], x)
    return lambda: program([x]), [x], (a @ a.T).sum(), [2.0 * np.ones((SIDE, SIDE)) @ a]


def scan_of_few_kept():
    """Whose steps are computed once more on the way back."""
    x, w = Value(0.5), Value(1.0)
    step = Step("scan", lambda c, _: ((c * w).sin(), None), Value(0.0), None).program
    program = step.scanned(LONG, 1, 0, False, 1000)
    value, by_w, slope = 0.5, 0.0, 1.0
    for _ in range(LONG):
        inner = math.cos(value)
        by_w, slope, value = (by_w + value) * inner, slope * inner, math.sin(value)
    return lambda: program([x]), [x, w], value, [slope, by_w]


def scan_of_a_long_product():
    a = np.eye(SIDE)
    x, w = Tensor(a), Tensor(np.full((SIDE, SIDE), 0.001))
    step = Step("scan", lambda c, _: (c @ w, None), x, None).program
    program = step.scanned(1, 1, 0)

    def total():
        y, = program([x])
        return [y.sum()]
    return total, [x, w], 0.001 * SIDE * SIDE, [np.full((SIDE, SIDE), 0.001 * SIDE), np.ones((SIDE, SIDE))]


def mapped(single, f, samples, lanes, *uniform):
    x = Tensor(np.linspace(0.1, 0.9, samples))
    program = record(f, Value(0.5), *uniform).mapped(samples, [True] + [False] * len(uniform), lanes, single)

    def total():
        y, = program([x, *uniform])
        return [y.sum()]
    return total, x


def lanes(single=False):
    """Two blocks of lanes, and a question in each."""
    total, x = mapped(single, lambda x: slow(x, 300), 2048, 1024)
    value, slope = by_hand(x.numpy(), 300)
    return total, [x], value.sum(), [slope]


def lanes_of_floats():
    return lanes(True)


def lanes_with_a_uniform_part():
    y = Value(0.5)
    total, x = mapped(False, lambda x, y: x * slow(y, 5) * slow(x, 300), 2048, 1024, y)
    value, slope = by_hand(x.numpy(), 300)
    same, of_same = by_hand(0.5, 5)
    return total, [y, x], (x.numpy() * same * value).sum(), [
        (x.numpy() * value).sum() * of_same, same * (value + x.numpy() * slope)]


def lanes_with_a_long_uniform_product():
    a = np.linspace(-1.0, 1.0, SIDE * SIDE).reshape(SIDE, SIDE)
    y = Tensor(a)
    total, x = mapped(False, lambda x, y: x * (y @ y.T).sum(), 9, 8, y)
    square = (a @ a.T).sum()
    return total, [y, x], x.numpy().sum() * square, [
        2.0 * x.numpy().sum() * np.ones((SIDE, SIDE)) @ a, np.full(9, square)]


def lanes_of_a_scan(single=False):
    """Whose gradients are those for 1, times the result's."""
    y, length = Value(1.0), 2000 if single else 12_000

    def f(x, y):
        return flatgrad.scan(lambda c, _: ((c * y).sin(), None), x, length=length)[0]
    total, x = mapped(single, f, 20, 8, y)
    value, by_y, slope = x.numpy(), np.zeros(20), np.ones(20)
    for _ in range(length):
        inner = np.cos(value)
        by_y, slope, value = (by_y + value) * inner, slope * inner, np.sin(value)
    return total, [x, y], value.sum(), [slope, by_y.sum()]


def lanes_of_a_scan_of_floats():
    """Which is computed sample by sample."""
    return lanes_of_a_scan(True)


CASES = [chain, chain_of_two_results, long_product, long_product_of_two_results, scan_of_few_kept,
         scan_of_a_long_product, lanes, lanes_of_floats, lanes_with_a_uniform_part, lanes_with_a_long_uniform_product,
         lanes_of_a_scan, lanes_of_a_scan_of_floats]


def gradients(y, leaves):
    return [np.array(slope.data) for slope in flatgrad.gradients(y, leaves)]


def same(found, expected):
    return all(np.array_equal(x, y) for x, y in zip(found, expected, strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_every_question(case):
    """Nothing has changed but what the call has to compute anew, and then it gives the same bits."""
    call, leaves, value, slopes = case()
    whole = leaves[0].data
    kept = call()[0]
    exact = {"rtol": 3e-4, "atol": 1e-6} if case in (lanes_of_floats, lanes_of_a_scan_of_floats) else {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(kept.data, value, **exact)
    expected = gradients(kept, leaves)
    for found, slope in zip(expected, slopes, strict=True):
        np.testing.assert_allclose(found, slope, **exact)
    leaves[0].data = whole * 0.5
    half = call()[0].data
    expected_of_half = gradients(kept, leaves)

    asked = 0
    while True:
        leaves[0].data = whole
        call()
        leaves[0].data = whole * 0.5
        nodes = _core.stats()["nodes"]
        found = pressed(call, asked)
        if found is not None:
            break
        assert _core._check() and _core.stats()["nodes"] <= nodes
        assert same(gradients(kept, leaves), expected_of_half)
        asked += 1
    assert found[0].data == half and 0 < asked < 60
    asked = 0
    while True:
        leaves[0].data = whole
        call()
        leaves[0].data = whole * 0.5   # the pass computes everything once more
        found = pressed(lambda: gradients(kept, leaves), asked)
        if found is not None:
            break
        assert _core._check()
        assert same(gradients(kept, leaves), expected_of_half)
        asked += 1
    assert same(found, expected_of_half) and 0 < asked < 60


def test_ctrl_c_in_an_evaluation():
    w = Tensor(0.5 * np.eye(64) + 0.01)
    v = Value(2.0)

    def f(x):
        for _ in range(5):
            x = (w @ x).tanh()
        return x.sum() * v.log()

    both = flatgrad.value_and_grad(flatgrad.compile(f), parameters=[w, v], in_axes=0)
    rows = np.sin(np.arange(300.0 * 64)).reshape(300, 64)
    expected, asked = both(rows), 0
    while (found := pressed(lambda: both(rows), asked)) is None:
        assert same_tree(both(rows), expected)
        asked += 1
    assert same_tree(found, expected) and asked > 3
    v.data = -1.0
    with pytest.raises(ValueError, match=r"log\(-1.0\)"):
        both(rows)
    v.data = 2.0
    assert same_tree(both(rows), expected)


def timed_product():
    x = Tensor(np.full((SIDE, SIDE), 0.001))
    return record(lambda x: (x @ x).sum(), x), [x]


def timed_products_apart():
    x = Tensor(np.full((SIDE, SIDE), 0.001))
    return record(lambda x: ((x @ x).sin() @ x).sum(), x), [x]


def timed_lanes():
    x, y = Tensor(np.linspace(0.1, 0.9, 2048)), Value(0.5)
    return record(lambda x, y: slow(y, 5) * slow(x, 300), Value(0.5), y).mapped(2048, [True, False], 1024), [x, y]


@pytest.mark.parametrize("case", [timed_product, timed_products_apart, timed_lanes])
def test_ctrl_c_while_a_program_is_timed(case):
    program, leaves = case()
    y, = program(leaves)
    before = np.array(y.data)
    heard = [pressed(lambda: _core._timed(program, 0.0), after) for after in range(24)]
    assert heard[0] is None
    assert np.array_equal(program(leaves)[0].data, before)


@pytest.mark.parametrize("case", [chain, lanes, lanes_with_a_uniform_part, lanes_of_a_scan])
def test_local_derivatives_are_not_interrupted(case):
    """Nobody could begin again: Ctrl-C is heard afterwards."""
    call, leaves, _, slopes = case()
    y, = call()
    if case is not chain:
        y, = y._children[:1] if len(y._children) == 1 else y._children[-1:]
    expected = y._local_grads
    leaves[0].data = leaves[0].data * 0.5
    y._local_grads   # noqa: B018 - the body has other numbers now
    leaves[0].data = leaves[0].data * 2.0
    assert pressed(lambda: y._local_grads, 0) == expected
    if case is chain:
        assert expected == pytest.approx(tuple(slopes))


def test_measurements_and_tables_of_gradients():
    """A measurement is broken off, of instructions of one kind that lie apart as well; a table goes on where it was."""
    apart, slow_part = record(lambda x: (slow(x) * 2.0).sin(), Value(0.5)), Value(0.5)
    uniform = record(lambda x, y: x.sin() * slow(y), Value(0.5), slow_part).mapped(2, [True, False])
    apart([0.5]), uniform([[0.5, 0.25], slow_part])
    for program in (apart, uniform):
        found = [pressed(lambda program=program: _core._timed(program, 0.0), k) is None for k in range(12)]
        assert found[0] and not found[-1] and found == sorted(found, reverse=True) and _core._check()
    table = _core._Evaluator(record(lambda x, y: [slow(x) * y, x * y], Value(0.5), Value(2.0)), [0, 1]).table
    value, slope = by_hand(0.5)
    found = []
    for k in range(4):
        (values, rows), pressed_there = heard(lambda: table([0.5, 2.0]), k)
        found.append(pressed_there)
        np.testing.assert_allclose(values, [value * 2.0, 1.0], rtol=1e-9)
        np.testing.assert_allclose(rows, [[slope * 2.0, value], [2.0, 0.5]], rtol=1e-9)
    assert found[0] and not found[-1]


def test_lanes_whose_gradients_for_one_are_not_there_yet():
    """After calls from which nobody has asked for a gradient, the backward pass computes all."""
    x = Tensor(np.linspace(0.1, 0.9, 2048))
    program, want = record(lambda x: slow(x, 300), Value(0.5)).mapped(2048, [True], 1024, False), by_hand(x.numpy(), 300)[1]
    for after in range(8):
        program([x]), program([x])
        z, = program([x])
        total, x.grad = z.sum(), 0.0
        if pressed(lambda total=total: total.backward() or True, after):
            break
        assert not x.grad.any()
    assert after > 0
    np.testing.assert_allclose(x.grad, want, rtol=1e-9)


@pytest.mark.parametrize("checkpoint", [None, 2000])
def test_lanes_of_a_scan_whose_gradients_for_one_are_not_there_yet(checkpoint):
    y = Value(1.0)

    def step(c, _):
        for _ in range(12):
            c = (c * y).sin()
        return c, None
    total, x = mapped(False, lambda x, y: flatgrad.scan(step, x, length=8000, checkpoint=checkpoint)[0], 20, 8, y)
    first = x.data
    expected = gradients(total()[0], [x, y])
    for asked in range(60):
        for part in 1.01, 1.02, 1.0:   # nobody asks for the gradients of the others
            x.data = first * part
            z, = total()
        found = pressed(lambda z=z: gradients(z, [x, y]), asked)
        if found:
            break
        assert _core._check()
    assert same(found, expected) and asked > 10


def test_a_uniform_part_that_fails_before_lanes_of_a_scan():
    y = Value(2.0)
    total, x = mapped(False, lambda x, y: flatgrad.scan(lambda c, _: (c.sin(), None), x, length=5)[0] * y.log(), 20, 8, y)
    for _ in range(3):
        expected = gradients(total()[0], [x, y])
        y.data = -1.0
        with pytest.raises(ValueError, match=r"log\(-1.0\)"):
            total()
        y.data = 2.0
        assert same(gradients(total()[0], [x, y]), expected)


def test_products_that_go_on_after_ctrl_c():
    """Nothing is added twice: the gradients of a bias, and rows of a table that are there already."""
    a = np.linspace(-1.0, 1.0, SIDE * SIDE).reshape(SIDE, SIDE)
    w, seed = np.cos(a), np.ones((SIDE, SIDE))
    seed[0, 0] = 0.0
    for part, after in ((False, 0), (False, 1), (True, 0), (True, 1)):
        x, weights, bias = Tensor(a), Tensor(w), Tensor(np.ones(SIDE))
        y = flatgrad.linear(x, weights, bias)
        total, of = (y[1:].sum() + y[0, 1:].sum(), seed) if part else (y.sum(), np.ones((SIDE, SIDE)))
        assert heard(total.backward, after) == (None, True)
        for t, expected in ((x, of @ w), (weights, of.T @ a), (bias, of.sum(0))):
            np.testing.assert_allclose(t.grad, expected, rtol=1e-9, atol=1e-9)
    x = Tensor(a)
    for at in (0, 1):   # which of the rows is the long one
        both = lambda x, at=at: [(x @ x.T).sum(), x.sum()][::1 - 2 * at]   # noqa: E731
        table = _core._Evaluator(record(both, x), [0]).table
        for after in (1, 2):
            (values, rows), found = heard(lambda table=table: table([x]), after)
            np.testing.assert_allclose(values[[at, 1 - at]], [(a @ a.T).sum(), a.sum()], rtol=1e-9, atol=1e-6)
            np.testing.assert_allclose(rows[at], (2.0 * np.ones((SIDE, SIDE)) @ a).ravel(), rtol=1e-9, atol=1e-6)
            assert found and rows[1 - at].tolist() == [1.0] * (SIDE * SIDE)
