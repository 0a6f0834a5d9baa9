"""Passes from given gradients, as our modules begin them: seeds that do not fit, outputs without a gradient, and what
dies while a pass is on its way."""
import os
import subprocess
import threading
import time

import numpy as np
import pytest

from flatgrad import Tensor, Value, _core
from flatgrad.errors import ArgumentTypeError, ShapeError
from acting import Finalizer
from leaks import nodes
from test_program_core import record


def refused(call, error, match, *leaves):
    """It is an error, as many nodes are there as before, and these leaves have no gradient."""
    before = nodes()
    with pytest.raises(error, match=match):
        call()
    assert nodes() == before and _core._check() and all(np.all(x.grad == 0.0) for x in leaves)


# ---- seeds ----

@pytest.mark.parametrize("size", [0, 1, 2, 4])
def test_a_pass_from_a_tensor_has_a_seed_for_each_element(size):
    t = Tensor([1.0, 2.0, 3.0])
    out = t * 2.0
    refused(lambda: _core._sweep_from(out, np.ones(size)), ShapeError, f"seed: expected 3 numbers, got {size}", t)
    _core._sweep_from(out, np.array([1.0, 0.5, 0.0]))
    assert t.grad.tolist() == [2.0, 1.0, 0.0]


@pytest.mark.parametrize("sizes", [(2, 3), (1, 2), (1, 4), (0, 3), (1, 3, 3)])
def test_gradients_have_a_seed_for_each_element(sizes):
    a, t = Value(2.0), Tensor([1.0, 2.0, 3.0])
    outs = [a * 3.0, t * a]
    outs_ = [*outs, a][:len(sizes)]
    refused(lambda: _core._gradients(outs_, [np.ones(n) for n in sizes], [a, t]), ShapeError,
            r"seeds\[\d\]: expected a number for each element", a, t)
    found = _core._gradients(outs, [np.ones(1), np.ones(3)], [a, t])
    assert found[0].tolist() == [9.0] and found[1].tolist() == [2.0] * 3


def test_gradients_of_constants_are_none():
    """A constant among the outputs: nothing flows from it, and the others are as without it."""
    a, c = Value(2.0), Tensor([1.0, 2.0], requires_grad=False)
    assert _core._gradients([c], [np.ones(2)], [a])[0] is None
    found = _core._gradients([c, a * 3.0, c * 2.0], [np.ones(2), np.full(1, 0.5), np.ones(2)], [a])
    assert found[0].tolist() == [1.5] and a.grad == 0.0


@pytest.mark.parametrize("given, error, match", [
    ([Value(1.0), None], TypeError, r"grad_outputs\[0\]: expected a Tensor, got Value"),
    ([None, Tensor([1.0])], TypeError, r"grad_outputs\[1\]: expected a Value, got Tensor"),
    ([Tensor([1.0]), None], ShapeError, r"grad_outputs\[0\]: expected the shape \(3,\) of the output, got \(1,\)"),
    ([Tensor([[1.0], [1.0], [1.0]]), None], ShapeError, r"grad_outputs\[0\]: .*got \(3, 1\)"),
    ([None], ValueError, "grad_outputs: expected 2, one for each output, got 1"),
])
def test_written_gradients_of_other_shapes(given, error, match):
    t = Tensor([1.0, 2.0, 3.0])
    outs = [t * t, t.sum()]
    refused(lambda: _core.written(outs, given, [t]), error, match, t)
    found, = _core.written(outs, [Tensor([1.0, 0.0, 2.0]), Value(0.5)], [t])
    assert found.tolist() == [2.5, 0.5, 12.5]


@pytest.mark.parametrize("label, shown", [(None, r"_op='\*'\) is"), ("", r"_op='\*'\) is"), ("loss", r"label='loss'\) is"),
                                          (3, r"_op='\*'\) is")])
def test_a_rule_of_numbers_is_named(label, shown):
    a = Value(2.0)
    out = a * 3.0
    out._backward = lambda: None
    if label is not None:
        out.label = label
    refused(lambda: _core.written([out], [None], [a]), ArgumentTypeError, shown, a)


# ---- what dies in a pass ----

def passes():
    a = Value(2.0)
    t = Tensor([1.0, 2.0])

    def chain(rule):
        x = a * 3.0
        x._backward = rule
        return x

    return {
        "backward": lambda rule: (chain(rule) * 2.0).backward(),
        "with a seed": lambda rule: _core._sweep_with(chain(rule) * 2.0, 0.5),
        "from a Tensor": lambda rule: _core._sweep_from(t * chain(rule), np.ones(2)),
        "gradients": lambda rule: _core._gradients([chain(rule) * 2.0], [np.ones(1)], [a]),
        "visits": lambda rule: _core._visits(chain(rule) * 2.0),
    }


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", passes())
def test_what_dies_in_a_pass_is_gone_after_it(name, fails):
    call, gone = passes()[name], []
    before = nodes()

    def rule():
        x = Value(1.0) * 2.0
        x.finalizer = Finalizer(lambda: gone.append(1))
        del x
        if fails:
            raise LookupError("a rule")

    for _ in range(3):
        if fails:
            with pytest.raises(LookupError, match="a rule"):
                call(rule)
        else:
            call(rule)
        assert gone == [1] and _core._check()
        gone.clear()
    assert nodes() == before


def test_another_thread_waits_for_a_pass_that_puts_all_gradients_aside():
    """Rules may write to any gradient, so one pass has them all."""
    x, found = Value(2.0), []
    y = x * 3.0

    def hooked():
        z = x * 2.0
        z._backward = lambda: setattr(x, "grad", x.grad + 2.0 * z.grad)
        return z * 1.0

    def other():
        try:
            found.append(_core._gradients([hooked()], [np.ones(1)], [x]))
        except RuntimeError as error:
            found.append(str(error))

    def rule():
        x.grad += 3.0 * y.grad
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    y._backward = rule
    assert _core._gradients([y * 2.0], [np.ones(1)], [x])[0].tolist() == [6.0]
    assert len(found) == 1 and "another thread is within a transform of a graph" in found.pop()
    other()
    assert found[0][0].tolist() == [2.0] and x.grad == 0.0 and _core._check()


# ---- Ctrl-C ----

@pytest.mark.skipif(os.name == "nt", reason="no kill")
@pytest.mark.parametrize("kind", ["body", "lanes"])
def test_programs_that_are_timed_hear_ctrl_c(kind):
    """They pause within a step: it has more nodes than are computed without."""
    def chain(x):
        for _ in range(70_000):
            x = x.tanh()
        return x

    program = record(chain, Value(0.5))
    program = program.mapped(2, [True]) if kind == "lanes" else program
    program([[0.25, 0.5] if kind == "lanes" else 0.25])
    for k in range(8):   # in each of its measurements
        press = subprocess.Popen(["sh", "-c", f"sleep {0.05 + 0.2 * k}; kill -INT {os.getpid()}"])
        with pytest.raises(KeyboardInterrupt):
            _core._timed(program, 0.3)
            time.sleep(30.0)
        assert press.wait(30.0) == 0 and _core._check()
    found = _core._timed(program, 0.0)
    assert found["forward"] > 0.0 and found["backward"] > 0.0 and set(found["kinds"]) <= {"tanh"}


def test_what_is_timed():
    """Instructions of one kind that lie apart are all of it; a program that computes next to nothing takes no time."""
    program = record(lambda x: ((x.exp() * 2.0).exp() + x.exp().exp()).tanh().exp(), Value(0.1))
    program([0.1])
    assert set(_core._timed(program, 0.0)["kinds"]) == {"exp", "*", "+", "tanh"}
    nothing = record(lambda x: [x], Value(0.5))
    nothing([1.0])
    least = [_core._timed(nothing, 0.0) for _ in range(200)]
    assert min(x["forward"] for x in least) == 0.0 and all(x["forward"] >= 0.0 and x["kinds"] == {} for x in least)
    constant = record(lambda x: x * 2.0, Tensor([1.0], requires_grad=False))
    constant([[1.0]])
    assert _core._timed(constant, 0.0)["backward"] is None
    with pytest.raises(TypeError, match="_timed.*: expected a program of one sample or of a batch"):
        _core._timed(record(lambda c: c * 2.0, Value(0.5)).scanned(3, 1, 0))


def test_numbers_without_a_last_bit_to_turn_stay_as_they_are():
    """Those that are large or not finite are timed as they are, and all are there again after it."""
    program = record(lambda x: x * 2.0, Value(0.5))
    for x in (float("inf"), float("nan"), -1e300, 3.0, 0.3):
        program([x])
        assert _core._timed(program, 0.0)["forward"] >= 0.0
        y, = program([x])
        assert np.array_equal(y.data, 2.0 * x, equal_nan=True)
