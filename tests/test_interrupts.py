"""Ctrl-C is heard while much of the user's is taken in, and not only after."""
import os
import signal
import time

import numpy as np
import pytest
from checks.saves import at_every_line

import flatgrad
from flatgrad import Tensor, Value, _core, arguments, functional, rules, transforms
from flatgrad.nn import MLP
from flatgrad.optim import SGD
from flatgrad.train import Trainer

pytestmark = [pytest.mark.usefixtures("nothing_left_behind"),
              pytest.mark.skipif(os.name == "nt", reason="no timer")]


def values(count):
    return [Value(1.0) for _ in range(count)]


def parameters():
    items = values(300_000)
    return lambda: _core.Parameters(items)


def inputs_of_grad():
    items = values(300_000)
    y = flatgrad.sum(items)
    return lambda: _core.derivatives([y], items)


def children():
    items = values(400_000)
    return lambda: Value(1.0, items, [1] * len(items))


def prev():
    y = flatgrad.sum(values(300_000))
    return lambda: y._prev


def rows_of_numbers():
    rows = [[1.0] * 20 for _ in range(200_000)]
    return lambda: Tensor(rows, requires_grad=False)


def ints():
    numbers = [1] * 2_000_000
    return lambda: Tensor(numbers, requires_grad=False)


def samples():
    rows = [[1.0] * 20 for _ in range(200_000)]
    return lambda: arguments.samples("X", rows)


def fit():
    rows, targets = [[1.0, 2.0]] * 300_000, [1.0] * 300_000
    model = MLP(2, [1])
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), "mse")
    return lambda: trainer.fit(rows, targets, epochs=1, batch_size=100_000, progress=False)


@pytest.mark.parametrize("make", [parameters, inputs_of_grad, children, prev, rows_of_numbers, ints, samples, fit])
def test_heard_at_once(make):
    work = make()

    def press(number, frame):
        pressed.append(time.perf_counter())
        raise KeyboardInterrupt

    begin = time.perf_counter()
    work()
    whole = time.perf_counter() - begin
    old = signal.signal(signal.SIGALRM, press)
    late = []
    try:
        for part in (0.05, 0.1, 0.2, 0.3, 0.05, 0.1, 0.2, 0.3):   # the machine may be slower or faster than it was
            pressed = []
            try:
                signal.setitimer(signal.ITIMER_REAL, part * whole)
                work()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                late.append(time.perf_counter() - pressed[0])
            assert _core._check()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert late and min(late) < 0.1 + 0.1 * whole
    work()


def test_lists_are_arrays_as_numpy_makes_them():
    for x in ([1.5] * 5000, [1] * 5000, [True] * 4000 + [2], [1] * 4000 + [2.5], [[1, 2]] * 3000, ["a"] * 3000,
              [1] * 3000 + ["2"], [np.float32(1.0)] * 3000, [[1.0, 2.0], (3.0, 4.0)] * 2000):
        expected, found = np.asarray(x), arguments.as_array(x)
        assert found.dtype == expected.dtype and (found == expected).all()
    with pytest.raises(ValueError):
        arguments.as_array([[1.0]] * 3000 + [[1.0, 2.0]])


@pytest.mark.parametrize("act", [list.clear, list.pop, lambda row: row.__setitem__(-1, "a"),
                                 lambda row: row.append(1.0),
                                 lambda row: row.__setitem__(slice(None), [Value(1.0)] * len(row))],
                         ids=["clear", "pop", "a string", "append", "Values"])
def test_a_row_of_floats_that_a_signal_changes(act):
    """It is read to its end as it was, or told, and nothing is left behind."""
    old = signal.signal(signal.SIGALRM, lambda number, frame: act(row))
    try:
        for late in np.linspace(0.001, 0.02, 12):
            row = [1.0] * 1_000_000
            signal.setitimer(signal.ITIMER_REAL, late)
            try:
                assert flatgrad.sum(row).data in (1_000_000.0, 1_000_001.0)
            except RuntimeError as error:
                assert "the list changed while it was read" in str(error)
            except (TypeError, ValueError):   # it changed before, and is no row of numbers any more
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert _core._check()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_rows_of_floats_are_what_numpy_makes_of_them():
    class Own(float):
        pass
    for row in ([0.5], [1, True, 2.5], (1.0, -0.0), [float("nan"), float("inf")], [np.float64(1.5), Own(2.0)],
                [np.float32(0.1), 10**20], [0.1] * 10_000):
        expected = np.asarray(row, dtype=float)
        ones = [Value(1.0)] * len(row)
        for function in flatgrad.sum, flatgrad.max, flatgrad.logsumexp, lambda x: flatgrad.dot(x, ones):
            found, right = function(row).data, function(expected).data
            assert found == right or found != found and right != right


@flatgrad.custom_derivative
def cubed(x):
    return x * x * x


cubed.defvjp(lambda x: (x * x * x, x), lambda x, g: (g * 3.0 * x * x,))


def second_derivatives():
    x, t = Value(0.7), Tensor([0.5, -0.25, 1.0])

    def f(x, t):
        return (x * t).tanh().sum() * cubed(x)
    return (flatgrad.grad(lambda a: flatgrad.grad(lambda b: f(b, t))(a))(0.7), flatgrad.hvp(
        lambda v: f(x, v), t.numpy(), np.array([1.0, 0.0, 2.0])).tolist())


def recorded_rules():
    return flatgrad.grad(flatgrad.compile(lambda x: cubed(cubed(x)) * 2.0))(0.7)


@pytest.mark.parametrize("work", [second_derivatives, recorded_rules])
def test_ctrl_c_at_any_line_leaves_nothing_open(work, nothing_left_behind):
    """What a transform or a rule has begun, it ends."""
    work()   # what is made once
    blocks = _core._open_blocks()

    def check():
        assert transforms.running.get() == () and _core._open_blocks() == blocks
        assert not cubed.inside.get() and cubed.around.get() is None
    files = [module.__file__ for module in (transforms, functional, rules)]
    assert at_every_line(work, check, files) > 40
