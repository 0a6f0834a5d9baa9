"""The training loop in C as our modules call it: which numbers of the tape it works on, against NumPy, and bad arguments:
the error, and that nothing has come of it."""
import contextlib
import signal
import sys

import numpy as np
import pytest

import flatgrad
from acting import every_collection
from flatgrad import Tensor, Value, _core, losses
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError
from leaks import nodes
from test_program_core import record

W, B = Value(0.5), Value(-0.25)
COLUMN = np.array([[0.5], [0.25], [0.75], [1.0], [0.125]])
RNG = np.random.default_rng(0)


def squares(rows):
    return record(lambda x: [((x * W + B) ** 2).mean(), x * W], Tensor(np.ones((rows, 1)), requires_grad=False))


def learners(values=(W, B)):
    made = _core.Parameters(list(values))
    made.sgd({}, None, 0.0, 0.0, 0.0, False, False)
    return made


INF = float("inf")
TWO, ONE, LEARNERS = squares(2), squares(1), learners()
SCANNED = record(lambda c: c * 2.0, Value(0.5)).scanned(3, 1, 0)
GIVEN = {"programs": [TWO, ONE], "rows": [2, 1], "n_samples": 5, "parameters": [LEARNERS], "columns": [COLUMN],
         "starts": [[0], [0]], "fixed": [[], []], "labels": None, "picky": False, "draws": None, "begin": 0, "most_norm": INF, "most": INF}


def loop(**options):
    return _core._Loop(*{**GIVEN, **options}.values())


def refused(call, error, match):
    """It is an error, and as many nodes are there as before."""
    before = nodes()
    with pytest.raises(error, match=match):
        call()
    assert nodes() == before and _core._check() and (W.data, B.data) == (0.5, -0.25)


# ---- which numbers ----

POINT = np.array([[0.5, -1.0, 2.0, 0.25]])


def of_point(f, count, values, **options):
    """Three steps on POINT[:, :count] to get f(x) to 1, and their losses."""
    x = np.ascontiguousarray(POINT[:, :count])
    program = record(lambda x: (f(x[0]) - 1.0) ** 2, Tensor(x, requires_grad=False))
    made, found = _core._Loop([program], [1], 1, [learners(values)], [x], [[0]], options.pop("fixed", [[]])), np.zeros(3)
    assert made.run(3, [0.1], None, found) == (3, None)
    return x[0], found


def descent(x, w, moving):
    """The same in NumPy, where only those of `moving` move: numbers, sums of gradients of the others, losses."""
    w, total, found = np.array(w), np.zeros(len(w)), []
    for _ in range(3):
        found.append((w @ x - 1.0) ** 2)
        gradient = 2.0 * (w @ x - 1.0) * x
        w = w - 0.1 * gradient * moving
        total += gradient * np.logical_not(moving)
    return w, total, found


M, N = np.linspace(-0.5, 0.5, 24).reshape(4, 6), Tensor(np.cos(np.arange(30.0)).reshape(5, 6), requires_grad=False)
LAYOUTS = {
    "sums of rows": lambda t, x: ((t * x).sum(1) ** 2).sum(),
    "a sum of some columns": lambda t, x: t[:, ::2].sum() * x.sum(),
    "a mean of some columns": lambda t, x: t[:, 1:3].mean() ** 2 * x.sum(),
    "every other number of a row": lambda t, x: (t[1, ::2].exp() * 2.0).sum() * x[0, 0],
    "weights of a layer that stay": lambda t, x: flatgrad.linear(t, N).tanh().sum(),
    "a product with weights that stay": lambda t, x: (flatgrad.linear(t, N) ** 2).sum() * 0.1}


@pytest.mark.parametrize("name", LAYOUTS)
def test_operands_of_other_layouts(name):
    """Against steps of gradient descent on the tape."""
    x, f, found = np.linspace(0.5, 1.5, 6).reshape(1, 6), LAYOUTS[name], np.zeros(3)
    t, other = Tensor(M), Tensor(M)
    program = record(lambda x: f(t, x), Tensor(x, requires_grad=False))
    assert _core._Loop([program], [1], 1, [learners([t])], [x], [[0]], [[]]).run(3, [0.1], None, found) == (3, None)
    for k in range(3):
        other.grad = 0.0
        y = f(other, Tensor(x, requires_grad=False))
        y.backward()
        np.testing.assert_allclose(found[k], y.data, rtol=1e-12)
        other.data = other.numpy() - 0.1 * other.grad
    np.testing.assert_allclose(t.numpy(), other.numpy(), rtol=1e-12)


def test_values_that_do_not_lie_in_order():
    values = [Value(0.25 * k) for k in range(7)]
    x, found = of_point(lambda x: flatgrad.dot(values[::2], x), 4, values[::2])
    w, _, losses_ = descent(x, [0.0, 0.5, 1.0, 1.5], [True] * 4)
    assert np.allclose([v.data for v in values[::2]], w, rtol=1e-13) and np.allclose(found, losses_, rtol=1e-13)
    assert [v.data for v in values[1::2]] == [0.25, 0.75, 1.25]


@pytest.mark.parametrize("moving", [[0, 1, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 1]])
def test_some_elements_of_a_tensor_are_updated(moving):
    t = Tensor([0.5, 0.25, -0.5, 1.0])
    x, found = of_point(lambda x: flatgrad.dot(t, x), 4, [t[k] for k in range(4) if moving[k]])
    w, total, losses_ = descent(x, t.numpy() * 0.0 + [0.5, 0.25, -0.5, 1.0], moving)
    assert np.allclose(t.data, w, rtol=1e-13) and np.allclose(found, losses_, rtol=1e-13)
    assert np.allclose(t.grad[np.logical_not(moving)], total[np.logical_not(moving)], rtol=1e-13)


def test_what_is_captured_and_frozen_stays():
    a, b = Value(0.5), Value(0.25)
    b.requires_grad = False
    x, found = of_point(lambda x: a * x[0] + b * x[1], 2, [a])
    w, _, losses_ = descent(x, [0.5, 0.25], [True, False])
    assert np.allclose(a.data, w[0], rtol=1e-13) and np.allclose(found, losses_, rtol=1e-13)
    assert (b.data, b.grad) == (0.25, 0.0)


def test_arguments_that_steps_cannot_read():
    matrix = Tensor([[1.0, 2.0, 3.0], [0.5, 1.0, 2.0]])
    for given, match in ((matrix[:, :2].T, "elements do not lie in order"), (W, "read twice"),
                         (Value(1.0) * 2.0, "computed outside of the loop")):
        program = record(lambda x, y: (x * W).sum() + (y if isinstance(y, Value) else y.sum()),
                         Tensor(np.ones((2, 1)), requires_grad=False),
                         Value(1.0) if isinstance(given, Value) else Tensor(np.ones((2, 2))))
        made = loop(**{**EVEN, "programs": [program], "fixed": [[(2, given)]]})
        refused(made.look, ArgumentError, match)
        refused(lambda made=made: made.run(2, [0.1], None, np.zeros(2)), ArgumentError, match)


def test_values_that_lay_in_a_row_when_they_were_recorded():
    values = [Value(0.25 * k) for k in range(4)]
    program = record(lambda x: (flatgrad.dot(values, x[0]) - 1.0) ** 2, Tensor(POINT, requires_grad=False))
    made, found = _core._Loop([program], [1], 1, [learners(values[:2])], [POINT], [[0]], [[]]), np.full(1, 7.0)
    values[2].__init__(3.0, (values[3],), "made")   # another node now
    with pytest.raises(ArgumentError, match=r"Value\(data=3.0.*computed outside of the loop"):
        made.run(1, [0.1], None, found)
    assert [v.data for v in values] == [0.0, 0.25, 3.0, 0.75] and found[0] == 7.0 and made.done == 0


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python's collector runs between its own instructions only")
def test_values_that_are_frozen_while_a_loop_looks_for_them():
    """And no longer frozen afterwards, whenever the collector runs within look()."""
    for times in range(1, 40, 3):
        values, done = [Value(float(k)) for k in range(3)], []
        program = record(lambda x, values=values: flatgrad.dot(values, [1.0, 2.0, 3.0]) + x, Value(1.0))
        made = _core._Loop([program], [1], 1, [learners(values)], [], [[]], [[(0, np.ones(1))]])

        def freeze():
            if len(done) < times:
                x = values[len(done) % 3]
                x.requires_grad = False
                x.requires_grad = True
                done.append(x)

        with every_collection(freeze):
            places = made.look()
        assert sum(count for _, count, _ in places) == 3 and done and _core._check()
        found = np.zeros(1)
        assert made.run(1, [0.5], None, found) == (1, None) and found[0] == 9.0
        assert [v.data for v in values] == [-0.5, 0.0, 0.5]


# ---- bad arguments ----

EVEN = {"programs": [TWO], "rows": [2], "starts": [[0]], "fixed": [[]], "n_samples": 4, "columns": [COLUMN[:4]]}
FORMS = "programs: expected one or two"
BATCHES = "rows: expected those of the batches"


@pytest.mark.parametrize("options, error, match", [
    (dict(programs=[], rows=[], starts=[], fixed=[]), ValueError, FORMS),
    (dict(programs=[TWO] * 3, rows=[2, 2, 1], starts=[[0]] * 3, fixed=[[]] * 3), ValueError, FORMS),
    (dict(rows=[2]), ValueError, FORMS),
    (dict(starts=[[0]]), ValueError, FORMS),
    (dict(fixed=[[]]), ValueError, FORMS),
    (dict(n_samples=0), ValueError, FORMS),
    (dict(n_samples=-1), ValueError, FORMS),
    (dict(programs=[TWO, TWO]), ValueError, FORMS),
    (dict(rows=[0, 1]), ValueError, BATCHES),
    (dict(rows=[6, 1]), ValueError, BATCHES),
    (dict(rows=[2, 2]), ValueError, BATCHES),
    (dict(EVEN, n_samples=5), ValueError, BATCHES),
    (dict(begin=-2), ValueError, "begin: expected a sample"),
    (dict(begin=6), ValueError, "begin: expected a sample"),
    (dict(begin=1), ValueError, "begin: expected a sample"),
    *((bounds, ValueError, "most_norm and most: expected numbers above 0, and one of them at most")
      for bounds in (dict(most_norm=0.0), dict(most_norm=float("nan")), dict(most=-1.0), dict(most_norm=1.0, most=1.0))),
    (dict(parameters=[LEARNERS, [W]]), ArgumentTypeError, r"parameters: expected Parameters, got list \[Value"),
    (dict(columns=[COLUMN[:4]]), ValueError, r"columns\[0\]: expected 5 rows, got 4"),
    (dict(columns=[COLUMN, COLUMN[:, :0]]), ValueError, r"columns\[1\]: expected 5 rows"),
    (dict(columns=[COLUMN[:, 0]]), ValueError, "dimensions"),
    (dict(programs=[3, ONE]), ArgumentTypeError, r"programs\[0\]: expected a _Program, got int 3"),
    (dict(programs=[TWO, _core._Program()]), ArgumentTypeError, r"programs\[1\]: expected a _Program"),
    (dict(programs=[SCANNED, ONE]), ArgumentTypeError, r"programs\[0\]: expected a _Program"),
    (dict(draws=[_core._Draws(RNG, "normal", (3,)), None]), ValueError, r"draws\[0\]: expected numbers"),
    (dict(programs=[record(lambda x: x * W, Tensor([[1.0], [1.0]])), ONE]), ArgumentError, r"shape \(2, 1\)"),
    (dict(programs=[record(lambda x: x, Value(1.0)), ONE]), ArgumentError, "the loss does not depend on anything"),
    (dict(starts=[[-1], [0]]), ValueError, r"starts\[0\]\[0\]: -1 is no operand"),
    (dict(starts=[[0], [1]]), ValueError, r"starts\[1\]\[0\]: 1 is no operand"),
    (dict(fixed=[[(-1, W)], []]), ValueError, r"fixed\[0\]: -1 is no operand that Value"),
    (dict(fixed=[[], [(1, W)]]), ValueError, r"fixed\[1\]: 1 is no operand that Value"),
    (dict(fixed=[[(1, np.ones(2))], []]), ValueError, r"fixed\[0\]: 1 is no operand that .*array"),
    (dict(labels=np.zeros(4, np.int64)), ValueError, "labels: expected 5, got 4"),
    (dict(labels=np.zeros(5, np.int64)), ArgumentError, "labels: expected a program with one cross entropy"),
    (dict(labels=np.zeros(5)), ValueError, "Buffer dtype mismatch"),
])
def test_a_loop_of_bad_arguments(options, error, match):
    made = _core._Loop.__new__(_core._Loop)

    def call():
        made.__init__(*{**GIVEN, **options}.values())

    refused(call, error, match)
    for unmade in (made.look, lambda: made.run(1, [0.1], None, np.zeros(1)), lambda: made.flows(0, [])):
        refused(unmade, RuntimeError, "__init__ has not been called")


def test_a_loop_is_made_once():
    made = loop()
    refused(lambda: made.__init__(*GIVEN.values()), RuntimeError, "a loop is made once")
    assert made.run(2, [0.0], None, np.zeros(2)) == (2, None)
    failed = _core._Loop.__new__(_core._Loop)
    refused(lambda: failed.__init__(*{**GIVEN, "labels": np.zeros(3, np.int64)}.values()), ValueError, "labels")
    refused(lambda: failed.__init__(*GIVEN.values()), RuntimeError, "a loop is made once")   # it has memory already


STEPS = "expected steps, a learning rate for each of the parameters, and room for losses"
SAMPLES = np.arange(5)


@pytest.mark.parametrize("steps, rates, order, size, kept, error, match", [
    (-1, [0.1], None, 3, None, ValueError, STEPS),
    (4, [0.1], None, 3, None, ValueError, STEPS),
    (3, [], None, 3, None, ValueError, STEPS),
    (3, [0.1, 0.1], None, 3, None, ValueError, STEPS),
    (3, np.zeros((0, 1)), None, 3, None, ValueError, STEPS),
    (3, np.zeros((2, 1)), None, 3, None, ValueError, "rates: expected those of each step"),
    (3, np.zeros((3, 2)), None, 3, None, ValueError, "rates: expected those of each step"),
    (3, np.zeros((3, 0)), None, 3, None, ValueError, "rates: expected those of each step"),
    (3, [0.1], SAMPLES[:4], 3, None, ValueError, "order: expected one for each epoch"),
    (4, [0.1], SAMPLES, 4, None, ValueError, "order: expected one for each epoch"),
    (3, [0.1], SAMPLES - 1, 3, None, ValueError, r"order\[0\]: expected a sample from 0 to 4, got -1"),
    (3, [0.1], SAMPLES + 1, 3, None, ValueError, r"order\[4\]: expected a sample from 0 to 4, got 5"),
    (3, [0.1], None, 3, np.zeros((4, 1)), ValueError, "kept: expected room for the other results"),
    (3, [0.1], None, 3, np.zeros((5, 2)), ValueError, "kept: expected room for the other results"),
    (3, [0.1], None, 3, np.zeros((5, 0)), ValueError, "kept: expected room for the other results"),
])
def test_steps_of_bad_arguments(steps, rates, order, size, kept, error, match):
    made, found = loop(), np.full(size, 7.0)
    refused(lambda: made.run(steps, rates, order, found, kept), error, match)
    assert (found == 7.0).all() and made.done == 0
    assert made.run(3, [0.0], SAMPLES, np.zeros(3)) == (3, None)   # and it is as good as new


def test_a_loop_without_other_results_keeps_none():
    one = record(lambda x: ((x * W) ** 2).mean(), Tensor(np.ones((2, 1)), requires_grad=False))
    made = loop(**{**EVEN, "programs": [one]})
    refused(lambda: made.run(2, [0.1], None, np.zeros(2), np.zeros((4, 0))), ValueError, "kept: expected room")


def test_no_steps():
    made, found = loop(), np.full(1, 7.0)
    assert made.run(0, [0.1], None, found) == (0, None) and found[0] == 7.0
    assert (W.data, B.data) == (0.5, -0.25)


def test_a_loop_that_updates_nothing():
    found = [np.zeros(3), np.zeros(3)]
    for rates, into in zip(([], np.zeros((3, 0))), found):
        made = loop(parameters=[])
        assert made.run(3, rates, None, into) == (3, None)
    y = COLUMN[:, 0] * 0.5 - 0.25
    expected = [np.mean(part ** 2) for part in (y[:2], y[2:4], y[4:])]
    assert np.allclose(found, [expected, expected], rtol=1e-14) and (W.data, B.data) == (0.5, -0.25)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_are_looked_at_again_at_each_run(label):
    labels = np.array([0, 1, 2, 1])
    program = record(lambda x: losses.cross_entropy(x * W, labels[:2]), Tensor(np.ones((2, 3)), requires_grad=False))
    made = loop(**{**EVEN, "programs": [program], "columns": [np.ones((4, 3))], "labels": labels})
    assert made.run(2, [0.0], None, np.zeros(2)) == (2, None)
    labels[2] = label
    refused(lambda: made.run(2, [0.1], None, np.zeros(2)), DataError, rf"target\[2\]: expected 0 to 2, got {label}")
    labels[2] = 2
    assert made.run(2, [0.0], None, np.zeros(2)) == (2, None)


def test_a_loop_in_a_recording():
    made = loop()
    recording = _core._Recording([Value(1.0)])
    with recording:
        with pytest.raises(ArgumentTypeError, match="training while a compiled function is recorded"):
            made.run(1, [0.1], None, np.zeros(1))
    assert made.done == 0


def test_which_inputs_gradients_flow_to():
    x = Value(1.0)
    program = record(lambda x, y: (x * W).sum() + y * 0.0, Tensor(np.ones((2, 1)), requires_grad=False), x)
    made = loop(**{**EVEN, "programs": [program], "parameters": []})
    made.look()
    assert not made.flows(0, [0]) and made.flows(0, [1]) and made.flows(0, [0, 1]) and not made.flows(0, [])
    for wrong in (-1, 2):
        refused(lambda wrong=wrong: made.flows(0, [wrong]), IndexError, f"inputs: expected numbers below 2, got {wrong}")
    detached = record(lambda x: (x * W.detach()).sum() + B, Tensor(np.ones((2, 1)), requires_grad=False))
    for values, flows in (([W], False), ([B], True), ([Value(1.0)], False)):
        made = loop(**{**EVEN, "programs": [detached], "parameters": [learners(values)]})
        made.look()
        assert made.flows(0, []) == flows


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that send signals")
def test_a_loop_that_runs_is_left_alone():
    """A handler of signals runs between two steps."""
    steps, found = 20_000_000, []
    made = loop()

    class Enough(Exception):
        pass

    def handler(number, frame):
        for call in (made.look, lambda: made.run(1, [0.1], None, np.zeros(1))):
            with contextlib.suppress(RuntimeError):
                call()
                raise AssertionError("a loop within itself")
            found.append(1)
        raise Enough

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Enough):
            made.run(steps, [0.0], None, np.zeros(steps))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert found == [1, 1] and 0 < made.done < steps
    assert made.run(3, [0.0], None, np.zeros(3)) == (3, None)
