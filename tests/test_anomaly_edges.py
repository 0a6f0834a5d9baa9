"""detect_anomaly at its edges: lines of code that is nobody's, blocks that were left elsewhere, memory that fails,
operands that were nan or inf already, and gradients that nobody can see."""
import _thread
import contextvars
import gc
import math
import operator
import time

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, detect_anomaly, optim, set_detect_anomaly
from flatgrad.errors import AnomalyError

pytestmark = pytest.mark.usefixtures("nothing_left_behind")
INF, NAN = math.inf, math.nan


def anomaly(function, *args):
    with detect_anomaly(), pytest.raises(AnomalyError) as caught:
        function(*args)
    return str(caught.value)


def in_thread(function, *arguments):
    """A call in a copy of this context, by a thread in which no Python code is running around it; and the context."""
    context, done = contextvars.copy_context(), []
    _thread.start_new_thread(context.run, (done.extend, map(function, *[[x] for x in arguments])))
    until = time.monotonic() + 20.0
    while not done and time.monotonic() < until:
        time.sleep(0.001)
    return done[0], context


# ---- lines ----

@pytest.mark.parametrize("name", ["<frozen own>", "<__array_function__ internals>", "/somewhere/numpy/own.py",
                                  flatgrad.__file__])
def test_lines_of_others_are_not_named(name):
    """Those of Python's own start, of NumPy and ours: the line that called them is."""
    namespace = {}
    exec(compile("def call(x):\n    return x * x", name, "exec"), namespace)

    def here(x):
        return namespace["call"](x)

    text = anomaly(here, Value(1e200))
    assert "in here" in text and "in call" not in text


def test_where_no_python_code_is_running():
    """The operation has no line; where there is only code of others, the innermost is named."""
    x = Value(0.0)
    with detect_anomaly():
        y, _ = in_thread(flatgrad.sqrt, x)
        with pytest.raises(AnomalyError, match=r"rule of sqrt\(0.0\)[\s\S]*computed\n  at a line that is not known"):
            y.backward()
        x.grad = 0.0
        namespace = {"flatgrad": flatgrad}
        exec(compile("def call(x):\n    return flatgrad.sqrt(x)", "<frozen own>", "exec"), namespace)
        y, _ = in_thread(namespace["call"], x)
        with pytest.raises(AnomalyError, match=r'rule of sqrt\(0.0\)[\s\S]*File "<frozen own>", line 2, in call'):
            y.backward()


@pytest.mark.parametrize("make, is_on", [(flatgrad.no_grad, _core._is_unrecorded),
                                         (detect_anomaly, flatgrad.is_anomaly_enabled)])
def test_blocks_that_a_thread_without_python_code_enters(make, is_on):
    block = make()
    entered, context = in_thread(operator.methodcaller("__enter__"), block)
    assert entered is block and context.run(is_on) and not is_on()
    context.run(block.__exit__, None, None, None)
    assert not context.run(is_on) and _core._open_blocks() == (0, 0)


def test_a_block_that_the_first_function_of_a_thread_enters():
    """Of a manager's `__enter__` the block around the `with` counts: here there is none."""
    class Manager:
        def __enter__(self):
            self.block = flatgrad.no_grad()
            self.block.__enter__()
            return self

    manager = Manager()
    _, context = in_thread(operator.methodcaller("__enter__"), manager)
    assert context.run(_core._is_unrecorded)
    context.run(manager.block.__exit__, None, None, None)
    assert not context.run(_core._is_unrecorded)


def test_a_block_that_was_left_elsewhere_does_not_count():
    """A context keeps what was around when it was copied."""
    with flatgrad.no_grad():
        context = contextvars.copy_context()
        assert context.run(_core._is_unrecorded)
        with detect_anomaly():
            inner = contextvars.copy_context()
    with detect_anomaly():
        assert not context.run(_core._is_unrecorded) and not inner.run(_core._is_unrecorded)
        assert not inner.run(flatgrad.is_anomaly_enabled)
        assert inner.run(operator.mul, Value(2.0), 3.0)._op == "*"


def test_memory_of_places_is_given_back():
    x = Value(2.0)
    before = flatgrad.stats()["bytes"]
    for _ in range(3):
        with detect_anomaly():
            assert flatgrad.stats()["bytes"] > before and (x * 3.0).data == 6.0
        flatgrad.collect()
        assert flatgrad.stats()["bytes"] == before


def test_begin_without_memory():
    for k in range(20):
        _core._testing(fail_after=k)
        try:
            with detect_anomaly():
                pass
            break
        except MemoryError:
            assert not flatgrad.is_anomaly_enabled() and _core._open_blocks() == (0, 0)
        finally:
            _core._testing(fail_after=-1)
    assert k > 0
    assert math.isinf((Value(1e200) * 1e200).data)
    assert "is inf" in anomaly(lambda: Value(1e200) * 1e200)


def test_chunks_of_sweeps_within():
    with detect_anomaly():
        _core._testing(sweep_chunk=1)
        x = Value(0.0)
        with pytest.raises(AnomalyError, match="sqrt"):
            x.sqrt().backward()


# ---- operands that were so already ----

def test_inf_of_inf_is_none():
    """Whichever operand it is, also in a user's own operation; nan always is one."""
    x, y = Value(INF), Value(2.0)
    with detect_anomaly():
        assert (x + y).data == (y + x).data == flatgrad.dot([x, y], [y, y]).data == INF
        assert Value(INF, (x, y), "own").data == Value(INF, (y, x), "own").data == INF
        assert Value(INF, (), "own").data == INF and math.isnan(Value(NAN, (), "own").data)
        assert Value(INF).data == INF and math.isnan(Value(NAN).data)
    for children, origin in (((x, y), True), ((y, x), True), ((y, y), False)):
        text = anomaly(lambda: Value(NAN, children, "own"))   # noqa: B023
        assert "is nan" in text and ("An operand was inf already" in text) == origin
    assert "is inf" in anomaly(lambda: Value(INF, (y, y), "own"))


# ---- gradients ----

def test_a_gradient_that_an_operation_above_a_rule_has_made():
    """The rule of the user runs between; the operation is named."""
    x = Value(0.0)
    with detect_anomaly():
        own = Value(1.0, (x,), "own")
        own._backward = lambda: setattr(x, "grad", x.grad + 1.0)
        y = own + flatgrad.sqrt(x)
        with pytest.raises(AnomalyError, match="sqrt"):
            y.backward()


def test_rules_that_make_finite_gradients():
    x = Value(3.0)
    with detect_anomaly():
        own = Value(1.0, (x, x), "own")
        own._backward = lambda: setattr(x, "grad", x.grad + 2.0 * own.grad)
        (own * 5.0).backward()
    assert x.grad == 10.0


def test_an_operation_beside_a_call_by_python():
    """Both use the operand; the call's gradient is finite."""
    twice = flatgrad.custom_derivative(lambda x: x * 2.0)
    twice.defvjp(lambda x: (x * 2.0, None), lambda _, g: (g * 2.0,))
    x = Value(0.0)
    with detect_anomaly():
        y = flatgrad.sqrt(x)
        z = twice(x) + y
        with pytest.raises(AnomalyError, match="sqrt"):
            z.backward()


def test_gradients_that_nobody_can_see():
    """That of a leaf that has gone, or of a number, is of no interest; that of an element of a Tensor is."""
    with detect_anomaly():
        big = Value(INF)
        gone, t = Value(0.0), Tensor([1.0, 2.0])
        y = big + gone * 0.0 + (t * gone).sum()
        del gone
        y.backward()
        assert t.grad.tolist() == [0.0, 0.0]
        z = Value(INF)
        w = (z * 1.0) + 2.0
        w.backward()
        assert z.grad == 1.0
    with detect_anomaly():
        gone, t = Value(0.0), Tensor([1.0, 2.0])
        y = flatgrad.sqrt(gone) * t[0]
        del gone
        y.backward()   # inf, which nobody sees
        assert t.grad.tolist() == [0.0, 0.0]
        with pytest.raises(AnomalyError, match="sqrt"):
            (flatgrad.sqrt(t - np.array([1.0, 0.0])).sum()).backward()


def test_a_step_where_nobody_watches():
    x = Value(1.0)
    optimizer = optim.SGD([x], lr=1.0)
    with detect_anomaly():
        x.grad = INF
        contextvars.Context().run(optimizer.step)
        assert x.data == -INF
        with pytest.raises(AnomalyError):
            optimizer.step()


def test_the_switch_in_a_context_of_its_own():
    set_detect_anomaly(True)
    try:
        assert not contextvars.Context().run(flatgrad.is_anomaly_enabled)
        with pytest.raises(AnomalyError):
            Value(1e200) * 1e200
    finally:
        set_detect_anomaly(False)
    gc.collect()
