"""Bad arguments of what our modules alone call about programs, and damaged programs: the error, and that nothing has come
of it."""
import contextvars
import subprocess
import sys

import numpy as np
import pytest

from acting import acting_when_room_is_made
from flatgrad import Tensor, Value, _core, dot, losses
from flatgrad._core import _Program
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError
from leaks import nodes
from test_program_core import record

W = Value(0.5)
UNMADE = "a program is made by a recording"
DAMAGED = "a saved Value is damaged"


def refused(call, error, match):
    """It is an error, and as many nodes are there as before."""
    before = nodes()
    with pytest.raises(error, match=match):
        call()
    assert nodes() == before and _core._check() and W.data == 0.5


def with_rule(x, y):
    """x * y * W, and six times its gradients."""
    recording = _core._Recording([x, y])
    with recording:
        result = x * y * W
        _core._add_input(recording, seed := Tensor([1.0, 1.0]))
        gradients = [seed * y, seed * x]
        return recording.program([result, *[(g if isinstance(z, Tensor) else g.sum()) * 3.0 for g, z in zip(gradients, (x, y))]])


BOTH = with_rule(Value(0.5), Tensor([1.0, 2.0]))
RULED = _core._ruled(BOTH, 2, 1, (0, 1))
SCANNED = record(lambda c: c * 2.0, Value(0.5)).scanned(3, 1, 0)
FORM = "expected a recorded program and its form"


# ---- programs with rules ----

@pytest.mark.parametrize("program, operands, results, places, error, match", [
    (None, 2, 1, (0, 1), TypeError, "incorrect type"),
    (_Program(), 2, 1, (0, 1), ArgumentError, FORM),
    (SCANNED, 1, 1, None, ArgumentError, FORM),
    (BOTH, -1, 1, (0, 1), ArgumentError, FORM),
    (BOTH, 2, 1.0, (0, 1), ArgumentError, FORM),
    (BOTH, 0, 1, (0, 1), ArgumentError, FORM),
    (BOTH, 2, 0, (0, 1), ArgumentError, FORM),
    (BOTH, 2, 1, [0, 1], ArgumentError, FORM),
    (BOTH, 2, 1, (0, -1), ArgumentError, FORM),
    (BOTH, 3, 1, (0, 1), ArgumentError, "expected 4 inputs and 3 results, got 3 and 3"),
    (BOTH, 2, 1, (0,), ArgumentError, "expected 3 inputs and 2 results, got 3 and 3"),
    (BOTH, 2, 1, None, ArgumentError, "expected 2 inputs and 1 results, got 3 and 3"),
    (BOTH, 4, 3, None, ArgumentError, "expected 4 inputs and 3 results, got 3 and 3"),
    (BOTH, 2, 1, (0, 2), ArgumentError, "places: expected different ones of 2 operands"),
    (BOTH, 2, 1, (1, 1), ArgumentError, "places: expected different ones of 2 operands"),
])
def test_rules_of_bad_arguments(program, operands, results, places, error, match):
    refused(lambda: _core._ruled(program, operands, results, places), error, match)


def test_a_program_with_a_rule():
    x, y = Value(2.0), Tensor([3.0, 5.0])
    out, = RULED([x, y])
    assert out.tolist() == [3.0, 5.0]
    out.sum().backward()
    assert (x.grad, y.grad.tolist(), W.grad) == (24.0, [6.0, 6.0], 0.0)
    listed = _core._listed(_core._callee(RULED))
    assert listed["gives"] == (1, 2, 0) and listed["rule"] is not None


def test_a_program_whose_gradients_nobody_asks_for():
    program = _core._ruled(record(lambda x, y: [x * y, x + W], Value(1.0), Value(2.0)), 2, 2, None)
    assert [out.data for out in program([3.0, 4.0])] == [12.0, 3.5]
    listed = _core._listed(_core._callee(program))
    assert listed["gives"] == (0, 0, 0) and listed["rule"] is None


def test_a_program_with_a_rule_checks_its_targets():
    """-1 or 1 are asked of an operand, and of what is called with only for the rule."""
    program = record(lambda x, y, seed, z: [losses.hinge(x, y), (x + losses.hinge(x, z)) * seed], Tensor([0.5, 2.0]),
                     Tensor([1.0, -1.0], requires_grad=False), Value(1.0), Tensor([1.0, -1.0], requires_grad=False))
    ruled = _core._ruled(program, 2, 1, (0,))
    x, signs = Tensor([0.5, 2.0]), Tensor([1.0, -1.0])
    out = ruled([x, signs, signs])[0]
    assert out.data == 0.5 * (0.5 + 3.0)
    out.backward()
    assert x.grad.tolist() == [0.5 + 0.5 * (0.5 + 3.0), 2.0 + 0.5 * (0.5 + 3.0)]
    refused(lambda: ruled([x, [1.0, 0.5], signs]), DataError, "target: expected -1 or 1, got 0.5")


STATE = RULED.__reduce__()[1][0].__reduce__()[1]
OTHER = _core._ruled(record(lambda x, y, s: [x + y, s, s], Value(0.5), Value(1.0), Value(1.0)), 2, 1, (0, 1))
OTHER_RULE = OTHER.__reduce__()[1][0].__reduce__()[1][1]
SWAPPED = _core._ruled(with_rule(Tensor([1.0, 2.0]), Value(0.5)), 2, 1, (0, 1))
SWAPPED_RULE = SWAPPED.__reduce__()[1][0].__reduce__()[1][1]


@pytest.mark.parametrize("k, value, match", [
    (0, [], "a program with a rule has no body"),
    (0, (), "a program with a rule has no body"),
    (0, (1, 2), "a program with a rule has no body"),
    (1, _core._Body(), "a program has another rule"),
    (1, OTHER_RULE, "a program has another rule"),
    (2, None, "a program has another rule, which gives None"),
    (2, [1, 2, 0], "a program has another rule"),
    (2, (1, 2), "a program has another rule"),
    (2, (1, 3, 0), "a program has another rule"),
    (2, (4, 2, 0), "a program has another rule"),
    (2, (1, -2, 0), "a program has another rule"),
    (1, SWAPPED_RULE, "a program has another rule"),
])
def test_damaged_programs_with_rules(k, value, match):
    good = _core._restore_ruled(*STATE)
    assert _core._listed(good)["gives"] == (1, 2, 0)
    refused(lambda: _core._restore_ruled(*STATE[:k], value, *STATE[k + 1:]), ValueError, f"{DAMAGED}: {match}")


# ---- programs, as they are called and made of others ----

@pytest.mark.parametrize("given, got", [([0.5, [1.0] * 5], r"\(5,\)"), ([0.5, [[1.0]]], r"\(1, 1\)"), ([0.5, 1.0], r"\(\)"),
                                        ([0.5, np.ones((2, 2))], r"\(2, 2\)")])
def test_operands_of_other_shapes(given, got):
    refused(lambda: RULED(given), ShapeError, rf"operands\[1\]: expected the shape \(2,\).*got {got}")


@pytest.mark.parametrize("got", [(2, 4), (3, 3), (3, 2), (6,)])
def test_matrices_of_other_shapes(got):
    program = record(lambda x: x * W, Tensor(np.ones((2, 3))))
    refused(lambda: program([np.ones(got)]), ShapeError, rf"expected the shape \(2, 3\).*got \({str(got)[1:-1]}\)")


def test_a_program_that_was_not_made():
    made = _Program()
    for call in (lambda: made([]), made.stats, lambda: _core._callee(made), lambda: _core._captured_numbers(made),
                 lambda: _core._captured_frozen(made), lambda: _core._timed(made), lambda: _core._listed(_core._Callee()),
                 lambda: _core._listed(_core._Body()), lambda: _core._with_gradients(_core._Body(), [])):
        refused(call, RuntimeError, UNMADE)
    refused(made.__reduce__, ValueError, f"{DAMAGED}: no program")
    refused(lambda: made.scanned(1, 0, 0), RuntimeError, "a step is made by a recording")
    refused(lambda: made.mapped(1, []), TypeError, "expected a program of one sample")


@pytest.mark.parametrize("wanted, seeds, match", [
    ([True], False, "wanted: expected 2 bools, at least one, got list"), ([True] * 3, False, "wanted: expected 2 bools"),
    ([True] * 2, False, r"seeds: expected True for a program of 2 results")])
def test_gradients_that_are_not_there(wanted, seeds, match):
    program = record(lambda x: [x * W, x + W], Value(1.0))
    refused(lambda: _core._with_gradients(_core._callee(program), wanted, seeds), ArgumentError, match)


def test_calls_are_computed_once_a_program_with_gradients_is_made():
    """While it is made they are not."""
    program, x = record(lambda x: x * x * 3.0, Value(2.0)), Value(1.5)
    for _ in range(2):
        y, = program([x])
        slope, = _core.written([y], [None], [x])
        assert (slope.data, _core.written([slope], [None], [x])[0].data) == (9.0, 6.0)
        _core._with_gradients(_core._callee(program), [True])


def test_what_is_captured_may_be_the_second_number_of_the_tape():
    code = """
from flatgrad import Value, compile
a, b = Value(1.0), Value(3.0)
f = compile(lambda x: x * b)
f(2.0).backward()
assert (b.grad, a.grad) == (2.0, 0.0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_a_number_that_lies_behind_the_inputs():
    """A row of the last input and of what was computed next is no part of the inputs."""
    recording = _core._Recording([x := Value(0.5)])
    with recording:
        _core._add_input(recording, last := Value(1.0))
        program = recording.program([dot([last, last.exp()], [2.0, 3.0]) * x])
    x, last = Value(0.5), Value(0.0)
    y, = program([x, last])
    y.backward()
    assert (y.data, last.grad, x.grad) == (1.5, 2.5, 3.0)


def test_gradients_of_a_program_without_operands():
    program = record(lambda: Value(2.0) * 3.0)
    refused(lambda: _core._with_gradients(_core._callee(program), [], True), ArgumentError, "expected 0 bools, at least")


def test_what_python_computes_has_no_instructions():
    class Rule:
        shapes = ((),)

    found = _core._listed(_core._restore_callback((2, 3), 4))
    assert found == {"kind": "callback", "segments": ((1, 2), (3, 3)), "n_results": 4}


@pytest.mark.parametrize("lanes", [-1, 2**20 + 1, 1.0, None])
def test_a_batch_in_so_many_lanes(lanes):
    program = record(lambda x: x * W, Value(1.0))
    refused(lambda: program.mapped(3, [True], lanes), ArgumentError, "most_lanes: expected an int from 0 to")
    assert program.mapped(3, [True], 2**20)([[1.0, 2.0, 4.0]])[0].tolist() == [0.5, 1.0, 2.0]


def test_steps_of_other_shapes():
    step = record(lambda c, x: [c + x.sum(), x * c], Value(0.5), Tensor([1.0, 2.0]))
    turned = record(lambda c, d: [d * 1.0, c * 1.0], Value(0.5), Tensor([1.0, 2.0]))
    refused(lambda: turned.scanned(3, 2, 0), ShapeError, r"carry 0: expected the shape \(\), got \(2,\)")
    grown = record(lambda c: [c * Tensor([1.0, 2.0])], Value(0.5))
    refused(lambda: grown.scanned(3, 1, 0), ShapeError, r"carry 0: expected the shape \(\), got \(2,\)")
    for f, x in ((lambda c, x: [c + x.sum()], Tensor([[1.0, 2.0]])), (lambda c, x: [c, x * Tensor([[1.0]])], Value(1.0))):
        wide = record(f, Value(0.5), x)
        refused(lambda wide=wide: wide.scanned(3, 1, 1), ShapeError, "expected numbers or one dimension at each step")
    refused(lambda: step.scanned(2**29, 1, 1), MemoryError, f"xs and outputs of {2**29} steps do not fit")
    signs = record(lambda c, x: [c * 1.0, losses.hinge(x, c)], Tensor([1.0, -1.0], requires_grad=False),
                   Tensor([0.5, 2.0]))
    refused(lambda: signs.scanned(3, 1, 1), ArgumentTypeError, "have to be -1 or 1, and are a carry")
    assert step.scanned(2, 1, 1)([1.0, [[1.0, 2.0], [3.0, 4.0]]])[0].data == 11.0


def test_a_call_of_too_many_nodes():
    steps = record(lambda c: [c + 1.0, c * 2.0], Value(0.5)).scanned(2**30 - 1, 1, 0)
    refused(lambda: steps([1.0]), MemoryError, f"a call of {2**30 + 2} nodes and .* operands does not fit on the tape")


def test_targets_in_a_recording_of_somebody_else():
    """Another context than the one that records: numbers are checked, and not noted."""
    program = record(lambda x, y: losses.hinge(x, y), Tensor([0.5, 2.0]), Tensor([1.0, -1.0], requires_grad=False))
    recording = _core._Recording([Value(1.0)])
    with recording:
        found = contextvars.Context().run(lambda: program([[0.5, 2.0], [1.0, -1.0]])[0].data)
    assert found == 0.5 * (0.5 + 3.0)
    with _core._Recording([Value(1.0)]), pytest.raises(DataError, match="target: expected -1 or 1, got 2.0"):
        contextvars.Context().run(program, [[0.5, 2.0], [1.0, 2.0]])


@pytest.mark.parametrize("change", ["longer", "shorter", "frozen"])
def test_operands_that_change_while_room_is_made(change):
    program = record(lambda a, x, y: [(x * W).sum() + y * a], Value(1.0), Tensor([1.0, 2.0]), Value(1.0))
    for _ in range(3):
        xs, fired = [Value(1.0), 2.0], []

        def act():
            if change == "frozen":
                W.requires_grad = False
                W.requires_grad = True
            else:
                xs.append(3.0) if change == "longer" else xs.pop()
            fired.append(1)

        with acting_when_room_is_made(act):
            try:
                out = program([1.0, xs, 4.0])[0]
            except RuntimeError as error:
                assert "a list changed while it was read" in str(error) and change != "frozen"
            else:
                assert out.data == 5.5 and (not fired or change == "frozen")
    assert fired


# ---- damaged programs ----

FIRST = record(lambda x, t: [(t * W).sum() * x, t * 1.0], Value(0.5), Tensor([1.0, 2.0])).__reduce__()[1]
BODY, CAPTURED, PIECES, COUNTS, SHAPES, RESULTS, SIGNS = FIRST


@pytest.mark.parametrize("k, value, match", [
    (0, _core._Body(), "expected Values"), (1, None, "expected Values"), (1, (3,), "expected Values"),
    (2, None, "other pieces than segments"), (2, ((0, 0),), "other pieces than segments"),
    (2, ((0, 0, 1), (0, 0, 1)), "other pieces than segments"), (3, (0,), "other pieces than segments"),
    (3, (1, 1), "other pieces than segments"), (2, ((1, 0, 1),), "has the piece"), (2, ((0, 0, 0),), "has the piece"),
    (2, ((0, 1, 1),), "has the piece"), (4, ((2,), (2,)), "input 0 of a program is not of the shape"),
    (4, ((), (3,)), "input 1 of a program is not of the shape"), (4, ((), (0,)), "an operand or a result of shape"),
    (4, None, "has no shapes"), (5, None, "has no shapes"), (5, (((), 1),), "has no shapes"),
    (5, (((), False),), "another number of results"), (5, (), "another number of results"),
    (6, None, "has the signs"), (6, (0,), "has the signs"), (6, (99,), "has the signs"),
])
def test_damaged_programs(k, value, match):
    assert _core._restore_program(*FIRST)([2.0, [1.0, 3.0]])[0].data == 4.0
    refused(lambda: _core._restore_program(*FIRST[:k], value, *FIRST[k + 1:]), ValueError, f"{DAMAGED}: .*{match}")


def test_a_damaged_program_that_captures_too_much():
    values = (W, Value(1.0))
    refused(lambda: _core._restore_program(BODY, values, ((0, 0, 1), (1, 0, 1)), (0, 2), SHAPES, RESULTS, SIGNS),
            ValueError, "has captured another number of Values")


# ---- programs of few nodes ----

def test_a_program_without_operands():
    """It is copied and evaluated like another one; by what it has no gradient is told."""
    program = record(lambda: [Value(2.0).exp(), Value(3.0) * 1.0])
    evaluator = _core._Evaluator(program, [])
    assert evaluator.values([]).tolist() == [np.exp(2.0), 3.0]
    refused(lambda: evaluator.table([]), ValueError, "wanted: expected inputs")
    caller = record(lambda x: x * program([])[0], Value(1.0))
    value, gradient = _core._Evaluator(caller, [0])([2.0])
    assert value == 2.0 * np.exp(2.0) and gradient.tolist() == [np.exp(2.0)]


def test_a_scan_that_neither_carries_nor_computes():
    program = record(lambda x: [x], W)
    assert program.scanned(3, 0, 1)([[1.0, 2.0, 3.0]])[0].tolist() == [1.0, 2.0, 3.0]
    assert program.scanned(3, 0, 0)([1.5])[0].tolist() == [1.5, 1.5, 1.5]


def test_a_program_of_as_many_nodes_as_there_may_be():
    x, made = Value(0.5), []
    recording = _core._Recording([x])
    with recording:
        y = x
        for _ in range(100):
            y = y.sin()
    for limit in (10, 50, 102, 103):
        _core._testing(limit=limit)
        try:
            made.append(recording.program([y]))
        except MemoryError:
            made.append(None)
        finally:
            _core._testing(limit=0xFFFFFFF0)
    assert made[:3] == [None] * 3 and made[3]([0.5])[0].data == y.data and _core._check()


@pytest.mark.parametrize("slopes", [(), ((2.0,),)], ids=["a rule", "derivatives"])
def test_a_node_of_a_user_is_no_part_of_a_program(slopes):
    refused(lambda: record(lambda x: Value(3.0, (x,), *slopes, "own"), W), ArgumentTypeError,
            "a Value with a rule of its own")


@pytest.mark.parametrize("wide", ["operands", "results"])
def test_a_saved_scan_of_more_numbers_than_there_may_be(wide):
    """So many steps that the operands, or the results, of all of them are more than 2**32."""
    program = (record(lambda c, x: [c + x.sum(), c * 2.0], W, Tensor(np.ones(4))) if wide == "operands" else
               record(lambda c, x: [c + x, Tensor(np.ones(4)) * c], W, Value(2.0)))
    body = program.scanned(3, 1, 1).__reduce__()[1][0]
    restore, (step, length, *others) = body.__reduce__()[:2]
    before = nodes()
    with pytest.raises(MemoryError, match="the tape is full"):
        restore(step, 2**30 - 1, *others)
    assert length == 3 and nodes() == before and _core._check()
