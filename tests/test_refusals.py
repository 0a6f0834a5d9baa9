"""What private functions of the compiled module refuse. Our own modules never give them that; pickles and the curious
may. Every error says what was expected, and afterwards the tape, the operands and the arrays are as they were."""
import re

import numpy as np
import pytest

from flatgrad import Tensor, Value, _core
from flatgrad.errors import ArgumentError, ShapeError

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

MOST = 2**30   # of elements: so many fit on no tape


def refused(error, words, function, *arguments, kept=(), **named):
    """The call ends with that error, and no node is made; `kept`: arrays that stay as they are."""
    before, numbers = _core.stats()["nodes"], [x.copy() for x in kept]
    with pytest.raises(error, match=re.escape(words)):
        function(*arguments, **named)
    assert _core.stats()["nodes"] == before and _core._check()
    for x, number in zip(kept, numbers):
        assert x.tobytes() == number.tobytes()


def recorded(operands, function):
    recording = _core._Recording(operands)
    with recording:
        results = function(*operands)
    return recording.program(results)


class Programs:
    """x of two numbers -> the mean of (x - a)**2; the same with a result for each of x; x.y * a of two inputs; and the
    step of a scan."""

    def __init__(self):
        self.a = Value(0.5)
        self.mean = recorded([Tensor([0.0, 0.0])], lambda x: [((x - self.a)**2).mean()])
        self.parts = recorded([Tensor([0.0, 0.0])], lambda x: [(x - self.a)**2])
        self.dot = recorded([Tensor([1.0, 2.0]), Tensor([3.0, 4.0])], lambda x, y: [(x @ y) * self.a])
        self.step = recorded([Value(0.5), Value(0.25)], lambda c, v: [c * self.a + v])


def unmade(cls):
    """As pickle makes one, before anything is known of it."""
    return cls.__new__(cls)


# ---- evaluators ----

@pytest.mark.parametrize("arguments, words", [   # of `mean`, which has one input
    *(({"wanted": wanted}, "expected some of 1 inputs, and whether each of them varies")
      for wanted in ([1], [-1], [0.0], ["0"], [True], [0, 1])),
    *(({"wanted": [0], "varies": varies}, "expected some of 1 inputs, and whether each of them varies")
      for varies in ([], [True, False])),
    *(({"wanted": [], "n_samples": n}, f"n_samples: expected a number of samples, got {type(n).__name__}")
      for n in (0, -1, MOST, 2**70, 1.0, True, "1")),
    *(({"wanted": [], **more, "places": [0]}, "places: expected None besides inputs, parameters or samples")
      for more in ({"wanted": [0]}, {"parameters": []}, {"varies": [True]})),
    *(({"wanted": [], "places": places, "begin": begin}, "places: expected some of 1 captured numbers")
      for places, begin in (([1], 0), ([-2], 0), (["0"], 0), ([0.0], 0), ([0, -1], 3), ([0], -1))),
])
def test_evaluators_of_other_inputs(arguments, words):
    refused(ValueError, words, _core._Evaluator, Programs().mean, **arguments)


def test_evaluators_of_no_program():
    programs = Programs()
    made = _core._Evaluator(programs.mean, [0])
    for function, program in ((_core._Evaluator, unmade(_core._Program)),
                              (_core._Evaluator, programs.mean.mapped(3, [True])), (made.__init__, programs.mean)):
        refused(TypeError, "an evaluator is made once, of a program of one sample", function, program, [0])
    assert made([np.ones(2)])[0] == 0.25
    refused(ValueError, "expected a program of one result", _core._Evaluator, programs.parts, [0], varies=[True])


def test_evaluators_that_are_not_made():
    """Each call of one that `__init__` has not seen, and of one that is for samples, or is not."""
    programs = Programs()
    x, numbers = [np.ones(2)], np.zeros(1)
    one = _core._Evaluator(programs.mean, [0])
    samples = _core._Evaluator(programs.mean, [0], varies=[True], n_samples=3)
    of_one = {"__call__": (x,), "values": (x,), "table": (x,)}
    of_samples = {"shared": ([None],), "sum": (numbers, [], [], 0, 1, 1, 1.0, numbers)}
    for name, arguments in {**of_one, **of_samples}.items():
        refused(RuntimeError, "__init__ has not been called", getattr(unmade(_core._Evaluator), name), *arguments)
    for name, arguments in of_one.items():
        refused(RuntimeError, "this evaluator is for a batch", getattr(samples, name), *arguments)
    for name, arguments in of_samples.items():
        refused(RuntimeError, "this evaluator is for one sample", getattr(one, name), *arguments)


def test_operands_of_an_evaluator():
    programs = Programs()
    e = _core._Evaluator(programs.dot, [1])
    x, y = np.array([1.0, 2.0]), np.array([3.0, 5.0])
    value, gradient = e([x, y])
    assert value == 13.0 * 0.5 and gradient.tolist() == [0.5, 1.0]
    assert _core._Evaluator(programs.dot, [])([x, y])[1].shape == (0,)
    shape = "operands[1]: expected the shape (2,) that the program was recorded with"
    for call in (e, e.values, e.table):
        for given in ([], [x], [x, y, y]):
            refused(ArgumentError, f"operands: expected 2, one for each input, got {len(given)}", call, given)
        for wrong in (np.ones(3), np.ones((1, 2)), np.ones((2, 1)), np.ones((2, 2)), np.ones(1), 1.0, Value(1.0),
                      Tensor([[1.0, 2.0]]), Tensor([1.0]), [1.0, 2.0, 3.0], [Value(1.0), 1.0], [Value(1.0)]):
            refused(ShapeError, shape, call, [x, wrong])
    for first in (-1, 1):
        refused(ValueError, "wanted: expected inputs", e.table, [x, y], first=first)
    for wanted, parameters in (([], None), ([], [programs.a])):
        refused(ValueError, "wanted: expected inputs", _core._Evaluator(programs.dot, wanted, parameters).table, [x, y])


def test_samples_of_an_evaluator():
    """The arrays have to reach as far as the samples."""
    programs = Programs()
    e = _core._Evaluator(programs.dot, [0], varies=[True, False], n_samples=3)
    rng = np.random.default_rng(0)
    x, y, to, none = rng.normal(size=(3, 2)), rng.normal(size=2), np.zeros((3, 2)), np.zeros(0)
    shared, long, short = e.shared([None, y]), np.ones((9, 2)), np.ones((2, 2))
    narrow, wide = np.ones((3, 1)), np.ones((3, 3))
    assert e.sum(shared, [x], [to], 1, 2, 1, 1.0, none) == pytest.approx((x[1:] @ y).sum() * 0.5, rel=1e-14)
    assert np.allclose(to, [[0.0, 0.0], y * 0.5, y * 0.5], rtol=1e-14)
    words = "expected the numbers of this program, and samples"
    for wrong in ((shared[:-1], [x], [to], 0, 3, 2), (np.append(shared, 0.0), [x], [to], 0, 3, 2),
                  (shared, [], [to], 0, 3, 2), (shared, [x, x], [to], 0, 3, 2), (shared, [x], [], 0, 3, 2),
                  (shared, [x], [to, to], 0, 3, 2), (shared, [x], [to], -1, 3, 2), (shared, [x], [to], 0, 0, 2),
                  (shared, [x], [to], 0, -1, 2), (shared, [x], [to], 0, 3, 0), (shared, [x], [to], 0, 3, -1)):
        refused(ValueError, words, e.sum, *wrong, 1.0, none, kept=[to, shared])
    refused(ValueError, words, e.sum, shared, [x], [to], 0, 3, 2, 1.0, np.zeros(1), kept=[to])
    for name, columns, rows in (("columns", lambda z: [z], [long]), ("to", lambda z: [long], None)):
        for wrong, first, count in ((short, 0, 3), (narrow, 0, 3), (wide, 0, 3), (x, 1, 3), (x, 0, 4), (x, 3, 1),
                                    (x, 2**62, 2**62), (x, 2**63 - 1, 1)):
            if name == "to" and first > 2**32:
                continue   # the columns are refused before
            refused(ValueError, f"{name}: expected a row for each sample", e.sum, shared, columns(wrong),
                    rows or [wrong], first, count, 2, 1.0, none, kept=[to, wrong, long])
    assert e.sum(shared, [x], [to], 0, 3, 2, 1.0, none) == pytest.approx((x @ y).sum() * 0.5, rel=1e-14)


def test_numbers_that_depend_on_the_tape():
    """With parameters an evaluator has no numbers where gradients would flow through the tape: what is captured was
    computed, or an operand takes a gradient."""
    programs = Programs()
    x, y, a = np.array([1.0, 2.0]), np.array([3.0, 5.0]), programs.a
    e = _core._Evaluator(programs.dot, [], [a])
    samples = _core._Evaluator(programs.dot, [], [a], varies=[True, False], n_samples=2)
    frozen = Tensor(y, requires_grad=False)
    assert e([x, frozen])[1].tolist() == [13.0]
    assert samples.shared([None, frozen]) is not None and samples.shared([None, y]) is not None
    assert e([x, Tensor(y)]) == (None, None) and samples.shared([None, Tensor(y)]) is None
    assert e([Tensor(x), Tensor(y)]) == (None, None) and e([Tensor(x), frozen]) == (None, None)
    step = _core._Evaluator(programs.step, [], [a])
    assert step([Value(2.0), Value(3.0)]) == (None, None)
    value, gradient = step([2.0, 3.0])
    assert value == 4.0 and gradient.tolist() == [2.0]
    b = Value(0.25) * 2.0
    computed = recorded([Value(1.0)], lambda v: [v * b])
    e = _core._Evaluator(computed, [], [a])
    samples = _core._Evaluator(computed, [], [a], varies=[True], n_samples=2)
    assert e([3.0]) == (None, None) and samples.shared([None]) is None
    single = recorded([Value(1.0)], lambda v: [v * a])
    e = _core._Evaluator(single, [], [a])
    v = Value(3.0)
    assert e([v]) == (None, None)
    v.requires_grad = False
    assert e([v])[1].tolist() == [3.0]


def test_numbers_of_many_captured_values():
    """They are read from the tape, wherever they are; not where one of them was computed."""
    values = [Value(1.0), Value(2.0), Value(4.0), Value(5.0)]
    program = recorded([Value(1.0)], lambda v: [_core.dot(values, [v, v * 2.0, v * 3.0, v * 4.0])])
    e = _core._Evaluator(program, [], values)
    value, gradient = e([2.0])
    assert value == 2.0 * (1.0 + 4.0 + 12.0 + 20.0) and gradient.tolist() == [2.0, 4.0, 6.0, 8.0]
    values[1].data = 7.0
    assert e([2.0])[0] == 2.0 * (1.0 + 14.0 + 12.0 + 20.0)
    values[0].__init__(9.0, (Value(1.0),), "own")   # another node, which is computed
    assert e([2.0]) == (None, None)
    values[1] = Value(7.0) * 1.0
    computed = recorded([Value(1.0)], lambda v: [_core.dot(values, [v, v * 2.0, v * 3.0, v * 4.0])])
    assert _core._Evaluator(computed, [], values[:1])([2.0]) == (None, None)


def test_vectors_of_an_evaluator():
    programs = Programs()
    e = _core._Evaluator(programs.mean, [], places=[0])
    x = np.array([1.0, 2.0])
    assert e([x], np.array([1.0]))[0] == 0.5
    for wrong in ("1", b"1", {0: 1.0}, None, Value(1.0), Tensor([1.0]), [Value(1.0)]):
        refused(TypeError, "theta: expected an array of 1 numbers, got", e, [x], wrong)
    for wrong in (np.ones(2), np.ones((1, 1)), 1.0, [1.0, 2.0], []):
        refused(ShapeError, "theta: expected an array of shape (1,)", e, [x], wrong)


def test_many_operands():
    """More than an evaluator has room for on C's stack."""
    programs = Programs()
    count = 40
    program = recorded([Value(0.0) for _ in range(count)],
                       lambda *v: [sum(x * (k + 1.0) for k, x in enumerate(v)), v[0] * v[1]])
    numbers = np.random.default_rng(1).normal(size=count).tolist()
    expected = [sum(x * (k + 1.0) for k, x in enumerate(numbers)), numbers[0] * numbers[1]]
    e = _core._Evaluator(program, [0, 39])
    assert np.allclose(e.values(numbers), expected, rtol=1e-12)
    values, table = e.table(numbers)
    assert np.allclose(values, expected, rtol=1e-12) and table.tolist() == [[1.0, 40.0], [numbers[1], 0.0]]
    with pytest.raises(ArgumentError, match="operands: expected 40, one for each input, got 41"):
        e.values([*numbers, 1.0])


def test_a_fault_in_all_results():
    """`values` says where, and gives its copy back."""
    programs = Programs()
    program = recorded([Tensor([1.0, 2.0])], lambda x: [x.log(), x * programs.a])
    e = _core._Evaluator(program, [0])
    for call in (e.values, e.table):
        refused(ValueError, "log", call, [np.array([1.0, -1.0])])
        found = call([np.array([1.0, 4.0])])
        assert np.allclose(found[0] if type(found) is tuple else found, [0.0, np.log(4.0), 0.5, 2.0], rtol=1e-14)


# ---- programs ----

def test_programs_that_are_not_made():
    programs = Programs()
    empty, batch = unmade(_core._Program), programs.mean.mapped(3, [True])
    one = "a program of one sample is made by a recording"
    refused(RuntimeError, "a program is made by a recording", _core._takes_gradients, empty)
    for program in (empty, batch):
        refused(RuntimeError, one, _core._captured_leaves, program)
        refused(RuntimeError, one, _core._differentiated, program, [True])
        refused(RuntimeError, one, _core._detached, program)
    for wanted in ([], [True, True]):
        refused(ValueError, "wanted: expected 1 bools, one for each number that is captured", _core._differentiated,
                programs.mean, wanted)
    body, shapes, *rest = _core._detached(programs.mean)
    for other in ((unmade(_core._Body), shapes), (body, list(shapes)), (body, None)):
        refused(ValueError, "a program has no shapes", _core._attached, *other, *rest, np.ones(1))


@pytest.mark.parametrize("cls", ["_Body", "_Scan", "_Lanes", "_Callback"])
def test_callees_that_are_not_made(cls):
    x = unmade(getattr(_core, cls))
    refused(ValueError, "no call" if cls == "_Callback" else "no program", x.__reduce__)


def test_bodies():
    """What _restore_body takes: the run of the operands, that of the results, and segments of the operands."""
    programs = Programs()
    restore, (operands, results, segments) = programs.mean.__reduce__()[1][0].__reduce__()
    assert segments == ((1, 2), (3, 1))
    for other in (None, [], ((1, 2), 3), ((1, 2), (3,)), ((1, 2), (3, 1.0)), ((1, 2), (True, 1)), ((1.0, 2), (3, 1))):
        refused(ValueError, "expected the segments of a program", restore, operands, results, other)
    for other in (((0, 2), (3, 1)), ((1, 2), (2, 2)), ((1, 2), (4, 1)), ((1, 3), (3, 1)), ((1, 2), (3, 2)), ((1, 0),),
                  ((1, -1),), ((2**70, 1),), ((1, 2**70),), ((-1, 2),)):
        refused(ValueError, "a program of 3 operands has the segment", restore, operands, results, other)
    refused(ValueError, "the operands of a program are no leaves", restore, results, results, ((1, 1),))
    three = Tensor([1.0, 2.0, 3.0])
    saved = [(three * three).__reduce__()[1][0],   # no copies
             three.__reduce__()[1][0],
             Tensor([[1.0, 2.0], [3.0, 4.0]]).T.reshape(4).__reduce__()[1][0]]   # copies in two rows
    for other in saved:
        refused(ValueError, "the results of a program are no copies", restore, operands, other, segments)


def test_programs():
    """What _restore_program takes: shapes of at most two dimensions."""
    body, captured, pieces, counts, shapes, results, signs = Programs().mean.__reduce__()[1]
    restore = _core._restore_program
    for wrong in ((1, 1, 2), (0,), (2, 0), (2.0,), [2], None, (-2,), (MOST,)):
        refused(ValueError, "a program has an operand or a result of shape", restore, body, captured, pieces, counts,
                (wrong,), results, signs)
        refused(ValueError, "a program has an operand or a result of shape", restore, body, captured, pieces, counts,
                shapes, ((wrong, False),), signs)


def test_scans():
    programs = Programs()
    restore, arguments = programs.step.scanned(3, 1, 1).__reduce__()[1][0].__reduce__()
    good = dict(zip(("step", "length", "carries", "xs", "sizes", "backwards", "checkpoint"), arguments))
    for name, wrong in (("step", [unmade(_core._Body)]), ("length", [0, -1, 1.0, True, MOST, "3"]),
                        ("carries", [-1, 1.0, None]), ("xs", [-1, 1.0, True]), ("checkpoint", [-1, MOST, 2.0]),
                        ("backwards", [0, 1, None]), ("sizes", [None, [], (0,), (1.0,), (-1,), (MOST,)])):
        for x in wrong:
            refused(ValueError, "expected the steps of a scan", restore, *{**good, name: x}.values())
    for name, x in (("carries", 2), ("carries", 0), ("xs", 3), ("sizes", (1,)), ("sizes", (1, 1))):
        refused(ValueError, "the step of a scan has other operands and results", restore, *{**good, name: x}.values())


def test_batches():
    programs = Programs()
    restore, arguments = programs.parts.mapped(3, [True]).__reduce__()[1][0].__reduce__()
    body, varies, n_samples, counts = arguments
    assert varies == (True, False) and counts == (2,)
    for other in ((unmade(_core._Body), varies), (body, list(varies)), (body, None), (body, (True,)), (body, (True, 0)),
                  (body, (True, False, False))):
        refused(ValueError, "which operands of a program vary", restore, *other, n_samples, counts)
    for other in (0, -1, MOST, 2**70, 3.0, True, None):
        refused(ValueError, "a program for", restore, body, varies, other, counts)
    for other in (None, [2], (2.0,), (0, 2), (True, 1), (MOST,), (-MOST,), (2**70,)):
        refused(ValueError, "the groups of results of a program", restore, body, varies, n_samples, other)
    for other in ((), (1,), (3,), (1, 1, 1), (-3,)):
        refused(ValueError, "a program has 2 results, not groups of", restore, body, varies, n_samples, other)
    for other in (None, 0, 1, "x"):
        refused(ValueError, "whether a program is of floats", restore, body, varies, n_samples, counts, other)


def test_calls_by_python():
    for counts, n_results in ((None, 1), ([1], 1), ((1.0,), 1), ((0,), 1), ((-1,), 1), ((True,), 1), ((MOST,), 1),
                              ((1,), 0), ((1,), -1), ((1,), 1.0), ((1,), None), ((1,), MOST)):
        refused(ValueError, "a call with operands of", _core._restore_callback, counts, n_results)
    made = _core._restore_callback((1, 3), 2)
    assert made.__reduce__() == (_core._restore_callback, ((1, 3), 2))


# ---- graphs ----

def test_graphs():
    x = Value(0.5)
    z = x * 2.0
    z.note = "kept"
    t = Tensor([1.0, 2.0]) * x
    graph = z.__reduce_ex__(4)[1][0]
    of_runs = (t[0] + z).__reduce_ex__(4)[1][0]
    for function, *arguments in ((_core._member, 0), (_core._Graph.__setstate__, []), (_core._Graph.__reduce__,)):
        refused(ValueError, "expected a position in a graph" if arguments == [0] else "no nodes", function,
                unmade(_core._Graph), *arguments)
    for index in ("0", 0.0, True):
        refused(ValueError, "expected a position in a graph", _core._member, graph, index)
    restore, arguments, *_ = of_runs.__reduce__()
    restored = restore(*arguments)
    run = next(k for k in range(99) if type(_core._member(restored, k)) is _core._Run)
    refused(ValueError, "expected a list of attributes", restored.__setstate__, ())
    for entry in ([0, -1, {}, {}], (0, -1, {}), (0, -1, {}, {}, {}), 0, None):
        refused(ValueError, "its attributes are", restored.__setstate__, [entry])
    for which in ("0", None, 0.0, -1, 99):
        refused(ValueError, "its attributes are of", restored.__setstate__, [(which, -1, {}, {})])
    for number in ("0", None, 0.0):
        refused(ValueError, "its attributes are of", restored.__setstate__, [(0, number, {}, {})])
    for number, extra in ((-1, {}), (99, {}), (2**70, {}), (0, None), (0, [])):
        refused(ValueError, "its attributes are of", restored.__setstate__, [(run, number, extra, {})])


# ---- arrays ----

def test_pairs_of_lbfgs():
    """Each array has to fit the others; of no numbers all sums are 0."""
    rng = np.random.default_rng(2)
    good = {"changes": rng.normal(size=(2, 3)), "steps": rng.normal(size=(2, 3)), "row": 1,
            "gradient": rng.normal(size=3), "before": rng.normal(size=3), "direction": rng.normal(size=3), "t": 0.5}
    kept = [x for x in good.values() if type(x) is np.ndarray]
    for name, wrong in (("row", -1), ("row", 2), ("changes", np.ones((2, 2))), ("steps", np.ones((3, 3))),
                        ("steps", np.ones((2, 4))), ("before", np.ones(4)), ("direction", np.ones(2)),
                        ("gradient", np.ones(2))):
        refused(ValueError, "expected arrays that fit each other", _core._lbfgs_pair, *{**good, name: wrong}.values(),
                kept=kept)
    none = np.ones((2, 0)), np.ones(0)
    assert _core._lbfgs_pair(none[0], none[0], 0, *[none[1]] * 3, 0.5) == (0.0, 0.0)
    y, s = good["gradient"] - good["before"], good["direction"] * 0.5
    assert _core._lbfgs_pair(*good.values()) == pytest.approx((y @ s, y @ y), rel=1e-14)
    assert np.array_equal(good["changes"][1], y) and np.array_equal(good["steps"][1], s)


def test_directions_of_lbfgs():
    rng = np.random.default_rng(3)
    good = {"changes": rng.normal(size=(2, 3)), "steps": rng.normal(size=(2, 3)), "ro": np.ones(2), "first": 0,
            "count": 2, "scale": 0.5, "gradient": rng.normal(size=3), "direction": np.zeros(3), "work": np.zeros(2)}
    kept = [x for x in good.values() if type(x) is np.ndarray]
    for name, wrong in (("count", -1), ("count", 3), ("first", -1), ("first", 2), ("work", np.ones(1)),
                        ("steps", np.ones((3, 3))), ("ro", np.ones(3)), ("changes", np.ones((2, 2))),
                        ("steps", np.ones((2, 4))), ("direction", np.ones(4)), ("gradient", np.ones(2))):
        refused(ValueError, "expected arrays that fit each other", _core._lbfgs_direction,
                *{**good, name: wrong}.values(), kept=kept)
    _core._lbfgs_direction(*{**good, "first": 7, "count": 0}.values())   # of no pairs, wherever they begin
    assert np.array_equal(good["direction"], -0.5 * good["gradient"])
    none = np.ones((2, 0)), np.ones(0)
    assert _core._lbfgs_direction(none[0], none[0], np.ones(2), 0, 2, 1.0, none[1], none[1].copy(), np.ones(2)) is None
    assert _core._dot_and_largest(none[1], none[1]) == (0.0, 0.0)


def test_pairs_of_operands():
    x = Tensor([1.0, 2.0])
    for name, more, got in (("squared_error", {"parameter": 1.0}, 3), ("huber", {}, 2)):
        arity = 5 - got
        refused(ValueError, f"parameter: {name} has {arity} operands, got {got}", _core.pairwise, name, x, x, "mean",
                **more)
    for shape in ((3,), (1,), (2, 2), (0,), ()):
        refused(ShapeError, "prediction and target: shapes", _core.pairwise, "squared_error", x, np.ones(shape), "mean")
    refused(ShapeError, "prediction and target: shapes", _core.pairwise, "squared_error", Tensor(np.ones((3, 2))),
            np.ones((2, 2)), "sum")
    for parameter in (np.ones((2, 2)), np.ones(3), np.ones((2, 1)), np.ones((3, 1))):
        refused(ShapeError, "parameter: shape", _core.pairwise, "huber", x, x, "mean", parameter)


def test_gradients_that_are_kept():
    """A Tensor's have to be as many, and in order; None leaves a gradient as it is."""
    x, v = Tensor([1.0, 2.0, 3.0]), Value(1.0)
    x.grad, v.grad = np.array([4.0, 5.0, 6.0]), 7.0
    for g in (Tensor([1.0, 2.0]), Tensor([[1.0, 2.0, 3.0]])[:, ::-1], Tensor([[1.0], [2.0], [3.0]]),
              Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[:, 0:1], Tensor([1.0, 9.0, 2.0, 9.0, 3.0])[::2],
              Tensor([[1.0, 2.0], [3.0, 4.0]])):
        refused(ShapeError, "gradients: expected 3 elements in order", _core._keep, [v, x], [Value(2.0), g])
    assert x.grad.tolist() == [4.0, 5.0, 6.0] and v.grad == 7.0
    _core._keep([v, x], [None, None])
    assert x.grad.tolist() == [4.0, 5.0, 6.0] and v.grad == 7.0
    kept = Tensor([8.0, 9.0, 10.0])
    _core._keep([v, x], [Value(2.0), kept])
    assert x.grad.tolist() == [8.0, 9.0, 10.0] and v.grad.data == 2.0
