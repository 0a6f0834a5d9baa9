"""Ctrl-C is heard while much of the user's is taken in, and not only after."""
import contextlib
import gc
import os
import signal
import subprocess
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
        pressed.append(time.process_time())
        raise KeyboardInterrupt

    begin = time.process_time()
    work()
    whole = time.process_time() - begin
    old = signal.signal(signal.SIGPROF, press)
    late = []
    try:
        for part in (0.05, 0.1, 0.2, 0.3, 0.05, 0.1, 0.2, 0.3):   # of the time of the processor
            pressed = []
            try:
                signal.setitimer(signal.ITIMER_PROF, part * whole)
                work()
                signal.setitimer(signal.ITIMER_PROF, 0)
            except KeyboardInterrupt:
                late.append(time.process_time() - pressed[0])
            assert _core._check()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)
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


def derivatives_of_a_chain(y, x):
    return _core.derivatives([y], [x])[0, 0]


def gradients_of_a_chain(y, x):
    got, = _core._gradients([y], [np.ones(1)], [x])
    return got[0]


@pytest.mark.parametrize("derive", [derivatives_of_a_chain, gradients_of_a_chain])
@pytest.mark.parametrize("around", [contextlib.nullcontext, flatgrad.detect_anomaly])
@pytest.mark.skipif(os.name != "posix", reason="needs a shell and kill")
def test_a_handler_of_ctrl_c_does_not_change_what_a_derivative_is(derive, around):
    """While gradients are put aside no handler is run: what it adds to gradients is neither lost nor part of them."""
    x, heard = Value(1.0), []
    y = x
    for _ in range(20_000):
        y = y + x

    def handler(number, frame):
        heard.append(1)
        y.backward()   # the same nodes
        x.grad = 5.0 * len(heard)

    old = signal.signal(signal.SIGINT, handler)
    press = subprocess.Popen(["sh", "-c", f"for k in 1 2 3 4 5 6 7 8; do sleep 0.02; kill -INT {os.getpid()}; done"])
    _core._testing(sweep_chunk=1)
    try:
        until = time.process_time() + 20.0
        with around():
            while press.poll() is None or not heard:
                assert derive(y, x) == 20_001.0
                assert x.grad == 5.0 * len(heard)
                assert time.process_time() < until
    finally:
        press.wait()
        signal.signal(signal.SIGINT, old)


@pytest.mark.parametrize("derive", [derivatives_of_a_chain, gradients_of_a_chain])
@pytest.mark.parametrize("around", [contextlib.nullcontext, flatgrad.detect_anomaly])
def test_a_collector_at_a_pause_does_not_change_what_a_derivative_is(derive, around):
    """Since Python 3.12 whoever looks for signals may run the collector, and its callbacks."""
    x, acted = Value(1.0), []
    y = x
    for _ in range(300):
        y = y + x

    def act(phase, info):
        acted.append(phase)
        y.backward()

    threshold = gc.get_threshold()
    _core._testing(sweep_chunk=1)
    gc.callbacks.append(act)
    gc.set_threshold(1)
    try:
        with around():
            for _ in range(20):
                assert derive(y, x) == 301.0
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(act)
    assert acted
