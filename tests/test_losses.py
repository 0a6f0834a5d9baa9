"""Losses against plain Python, finite differences and expressions of Values."""
import contextlib
import copy
import math
import random

import numpy as np
import pytest
from leaks import living

import flatgrad
from flatgrad import Tensor, Value, _core
from flatgrad import errors, losses
from flatgrad.errors import DataError
from flatgrad.losses import (bce_with_logits, binary_cross_entropy, cross_entropy, huber, kl_div, l1, l2, mae,
                             mse, nll)
from flatgrad.nn import MLP

INF, NAN = math.inf, math.nan


pytestmark = pytest.mark.usefixtures("nothing_left_behind")


# ---- the formulas, over floats ----

def reference_mse(prediction, target):
    """Value, and the gradient by each prediction."""
    p, t = np.ravel(prediction).tolist(), np.ravel(target).tolist()
    return (math.fsum((a - b) ** 2 for a, b in zip(p, t, strict=True)) / len(p),
            [2 * (a - b) / len(p) for a, b in zip(p, t)])


def hinge(score, target, reduction="mean"):
    """The formula of `losses.hinge` for targets of any size, which that refuses: one of 2 tells more than one of 1."""
    return losses.paired("hinge", "score", score, target, reduction)


def reference_hinge(score, target):
    s, t = np.ravel(score).tolist(), np.ravel(target).tolist()
    return (math.fsum(max(0.0, 1 - a * b) for a, b in zip(s, t, strict=True)) / len(s),
            [-b / len(s) if 1 - a * b > 0 else 0.0 for a, b in zip(s, t)])


def reference_cross_entropy(logits, labels):
    """With the exponentials as they are: for logits that allow it."""
    rows, labels = np.atleast_2d(logits).tolist(), np.atleast_1d(labels).tolist()
    value, gradient = [], []
    for row, label in zip(rows, labels, strict=True):
        powers = [math.exp(x) for x in row]
        total = math.fsum(powers)
        value.append(-math.log(powers[label] / total))
        gradient += [(x / total - (k == label)) / len(rows) for k, x in enumerate(powers)]
    return math.fsum(value) / len(rows), gradient


def expression_mse(prediction, target):
    terms = [(p - t) * (p - t) for p, t in zip(prediction, target)]   # x**2 would raise where it overflows
    return sum(terms[1:], terms[0]) / len(terms)


def expression_hinge(score, target):
    terms = [(1 - t * s).relu() for s, t in zip(score, target)]
    return sum(terms[1:], terms[0]) / len(terms)


def expression_cross_entropy(rows, labels):
    terms = []
    for row, label in zip(rows, labels):
        powers = [x.exp() for x in row]
        terms.append(-(powers[label] / sum(powers[1:], powers[0])).log())
    return sum(terms[1:], terms[0]) / len(terms)


PAIRED = {"mse": (mse, reference_mse, expression_mse), "hinge": (hinge, reference_hinge, expression_hinge)}
every_paired = pytest.mark.parametrize("name", PAIRED)

SHAPES = [(1,), (2,), (7,), (64,), (1, 1), (5, 1), (1, 5), (4, 3), (9, 17)]


def samples(shape, seed=0):
    """(predictions, targets), neither at a kink."""
    rng = np.random.RandomState(seed)
    return rng.uniform(-2, 2, shape), np.where(rng.uniform(size=shape) < 0.5, -1.0, 1.0)


def logits_and_labels(n_samples, n_classes, seed=0):
    rng = np.random.RandomState(seed)
    return rng.uniform(-3, 3, (n_samples, n_classes)), rng.randint(n_classes, size=n_samples)


def values_of(x):
    """An array's numbers as Values, in lists."""
    return [values_of(row) for row in x] if np.ndim(x) else Value(x)


def interleaved(x):
    """The same with other nodes between them, and garbage."""
    if np.ndim(x):
        return [interleaved(row) for row in x]
    Value(1.0) * 2.0
    value = Value(x)
    value.neighbour = Value(5.0) + 1.0
    return value


def flat(x):
    """The gradients of Values in lists, or of a Tensor."""
    if isinstance(x, list):
        return [g for row in x for g in flat(row)]
    return np.ravel(x.grad).tolist()


# What a prediction may be, made from an array.
PREDICTIONS = {
    "Tensor": Tensor,
    "Values": values_of,
    "interleaved": interleaved,
    "tuples": lambda x: tuple(tuple(row) if isinstance(row, list) else row for row in values_of(x)),
    "objects": lambda x: np.array(values_of(x), dtype=object),
    "rows": lambda x: [Tensor(row) for row in x] if np.ndim(x) == 2 else values_of(x),
}
TARGETS = {
    "array": np.asarray,
    "integers": lambda x: np.asarray(x, dtype=int),
    "float32": lambda x: np.asarray(x, dtype=np.float32),
    "small": lambda x: np.asarray(x, dtype=np.int8),
    "strided": lambda x: np.repeat(np.asarray(x), 2, axis=0)[::2],
    "backwards": lambda x: np.asarray(x)[::-1].copy()[::-1],
    "columns": lambda x: np.asfortranarray(x),
    "read-only": lambda x: np.frombuffer(np.asarray(x).tobytes()).reshape(np.shape(x)),
    "list": lambda x: np.asarray(x).tolist(),
    "tuple": lambda x: tuple(np.asarray(x).tolist()),
    "ints": lambda x: np.asarray(x, dtype=int).tolist(),
    "Tensor": Tensor,
    "constant": lambda x: Tensor(x, requires_grad=False),
    "Values": values_of,
}


def gradients(prediction, kind):
    if kind == "tuples":
        prediction = [list(row) if isinstance(row, tuple) else row for row in prediction]
    if kind == "objects":
        prediction = prediction.tolist()
    return flat(prediction)


@every_paired
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_paired_losses(name, shape, kind):
    loss_of, reference, expression = PAIRED[name]
    x, y = samples(shape)
    prediction = PREDICTIONS[kind](x)
    loss = loss_of(prediction, y)
    value, gradient = reference(x, y)
    assert type(loss) is Value and loss.data == pytest.approx(value, rel=1e-12)
    loss.backward()
    assert gradients(prediction, kind) == pytest.approx(gradient, rel=1e-12, abs=1e-16)
    values = values_of(x.ravel())
    scalar = expression(values, y.ravel().tolist())
    scalar.backward()
    assert loss.data == pytest.approx(scalar.data, rel=1e-12)
    assert gradients(prediction, kind) == pytest.approx(flat(values), rel=1e-12, abs=1e-16)


@every_paired
@pytest.mark.parametrize("shape", [(6,), (6, 1), (4, 3)])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("make", [Tensor, values_of])
def test_targets(name, shape, kind, make):
    loss_of, reference, _ = PAIRED[name]
    x, y = samples(shape)
    prediction, target = make(x), TARGETS[kind](y)
    loss = loss_of(prediction, target)
    value, gradient = reference(x, y)
    assert loss.data == pytest.approx(value, rel=1e-12)
    loss.backward()
    assert flat(prediction) == pytest.approx(gradient, rel=1e-12, abs=1e-16)


@pytest.mark.parametrize("make", [Tensor, values_of])
def test_a_gradient_reaches_targets(make):
    """As it does in the expression."""
    x, y = samples((4, 3))
    target = make(y)
    mse(Tensor(x), target).backward()
    assert flat(target) == pytest.approx([-g for g in reference_mse(x, y)[1]], rel=1e-12)
    target = make(y)
    hinge(Tensor(x), target).backward()
    values = values_of(y.ravel())
    expression_hinge(x.ravel().tolist(), values).backward()
    assert flat(target) == pytest.approx(flat(values), rel=1e-12)


def test_the_same_values_on_both_sides():
    x, y = Value(2.0), Value(5.0)
    loss = mse([x, y, x], [y, y, x])
    loss.backward()
    assert (loss.data, x.grad, y.grad) == (3.0, -2.0, 2.0)
    t = Tensor([1.0, 2.0])
    loss = mse(t, t)
    loss.backward()
    assert loss.data == 0.0 and t.grad.tolist() == [0.0, 0.0]


@every_paired
@pytest.mark.parametrize("shape, other", [((6,), (6, 1)), ((6, 1), (6,)), ((1,), (1, 1)), ((1, 1), (1,))])
@pytest.mark.parametrize("make", [Tensor, values_of, np.array])
@pytest.mark.parametrize("target", [np.array, np.ndarray.tolist, Tensor])
def test_a_column_and_a_vector(name, shape, other, make, target):
    loss_of, reference, _ = PAIRED[name]
    x, y = samples(shape)
    assert loss_of(make(x), target(y.reshape(other))).data == pytest.approx(reference(x, y)[0], rel=1e-12)


@every_paired
def test_one_value(name):
    """What an MLP with one output returns for one sample."""
    loss_of, reference, _ = PAIRED[name]
    for target in (1, 1.0, np.float64(1.0), np.array(1.0), [1.0], np.array([1]), Value(1.0), Tensor([1.0])):
        x = Value(0.25)
        loss = loss_of(x, target)
        loss.backward()
        assert (loss.data, [x.grad]) == reference([0.25], [1.0])
    assert loss_of([Value(0.25)], 1.0).data == loss_of(0.25, 1.0).data == reference([0.25], [1.0])[0]


@every_paired
@pytest.mark.parametrize("make", [Tensor, values_of])
def test_finite_differences(name, make):
    loss_of = PAIRED[name][0]
    x, y = samples((4, 3), seed=1)
    prediction = make(x)
    loss_of(prediction, y).backward()
    check_slopes(lambda at: loss_of(Tensor(at), y).data, x, flat(prediction))


def check_slopes(f, x, gradient):
    """AssertionError where a gradient is not the slope of f, by central differences of 2e-6."""
    for k, g in enumerate(gradient):
        step = np.zeros(x.size)
        step[k] = 1e-6
        step = step.reshape(x.shape)
        assert g == pytest.approx((f(x + step) - f(x - step)) / 2e-6, rel=1e-5, abs=1e-8)


def test_a_wrong_gradient_is_caught():
    """0.1 % off."""
    x, y = samples((4, 3), seed=1)
    for loss_of, reference, _ in PAIRED.values():
        gradient = reference(x, y)[1]
        check_slopes(lambda at: loss_of(Tensor(at), y).data, x, gradient)
        with pytest.raises(AssertionError):
            check_slopes(lambda at: loss_of(Tensor(at), y).data, x, [1.001 * g for g in gradient])
    logits, labels = logits_and_labels(3, 4)
    gradient = reference_cross_entropy(logits, labels)[1]
    check_slopes(lambda at: cross_entropy(Tensor(at), labels).data, logits, gradient)
    with pytest.raises(AssertionError):
        check_slopes(lambda at: cross_entropy(Tensor(at), labels).data, logits, [1.001 * g for g in gradient])


def test_the_kink_of_hinge():
    scores = Tensor([1.0, -1.0, 0.5, 1.0 + 1e-15, 1.0 - 1e-15])
    hinge(scores, [1, -1, 2, 1, 1]).backward()
    assert scores.grad.tolist() == [0.0, 0.0, 0.0, 0.0, -0.2]


@pytest.mark.parametrize("make", [Tensor, values_of])
@pytest.mark.parametrize("prediction, target", [
    (NAN, 1.0), (1.0, NAN), (INF, 1.0), (-INF, 1.0), (1.0, INF), (INF, INF), (0.0, INF), (1e200, -1.0), (1e160, 1e160),
    (0.0, -0.0), (0.0, 0.0), (5e-324, 1.0)])
@every_paired
def test_special_numbers(name, make, prediction, target):
    """As the expression has it: nan and inf are passed on, and not refused."""
    loss_of, _, expression = PAIRED[name]
    x, values = make([prediction, 0.5]), values_of([prediction, 0.5])
    loss, expected = loss_of(x, [target, 1.0]), expression(values, [target, 1.0])
    loss.backward()
    expected.backward()
    assert loss.data == pytest.approx(expected.data, rel=1e-12, nan_ok=True)
    assert flat(x) == pytest.approx(flat(values), rel=1e-12, nan_ok=True)


# ---- cross entropy ----

LOGITS = {kind: make for kind, make in PREDICTIONS.items()}
LABELS = {
    "int64": lambda y: np.asarray(y, dtype=np.int64),
    "int32": lambda y: np.asarray(y, dtype=np.int32),
    "uint8": lambda y: np.asarray(y, dtype=np.uint8),
    "uint64": lambda y: np.asarray(y, dtype=np.uint64),
    "big-endian": lambda y: np.asarray(y, dtype=">i8"),
    "strided": lambda y: np.repeat(y, 3)[::3],
    "backwards": lambda y: np.asarray(y)[::-1].copy()[::-1],
    "read-only": lambda y: np.frombuffer(np.asarray(y, dtype=np.int64).tobytes(), dtype=np.int64),
    "objects": lambda y: np.array([int(k) for k in y], dtype=object),
    "list": lambda y: [int(k) for k in y],
    "list of np.int64": list,
    "tuple": lambda y: tuple(int(k) for k in y),
}


@pytest.mark.parametrize("n_samples, n_classes", [(1, 1), (1, 2), (3, 1), (5, 2), (4, 3), (7, 10), (33, 17)])
@pytest.mark.parametrize("kind", LOGITS)
def test_cross_entropy(n_samples, n_classes, kind):
    x, y = logits_and_labels(n_samples, n_classes)
    logits = LOGITS[kind](x)
    loss = cross_entropy(logits, y)
    value, gradient = reference_cross_entropy(x, y)
    assert type(loss) is Value and loss.data == pytest.approx(value, rel=1e-12, abs=1e-15)
    loss.backward()
    assert gradients(logits, kind) == pytest.approx(gradient, rel=1e-12, abs=1e-16)
    values = values_of(x)
    scalar = expression_cross_entropy(values, y.tolist())
    scalar.backward()
    assert loss.data == pytest.approx(scalar.data, rel=1e-12, abs=1e-15)
    assert gradients(logits, kind) == pytest.approx(flat(values), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("make", [Tensor, values_of, np.array])
def test_labels(kind, make):
    x, y = logits_and_labels(6, 4)
    assert cross_entropy(make(x), LABELS[kind](y)).data == pytest.approx(reference_cross_entropy(x, y)[0], rel=1e-12)


def test_labels_of_two_classes_may_be_bools():
    x, y = logits_and_labels(6, 2)
    value = reference_cross_entropy(x, y)[0]
    assert cross_entropy(Tensor(x), y == 1).data == pytest.approx(value, rel=1e-12)
    assert cross_entropy(Tensor(x), [bool(k) for k in y]).data == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("label", [2, np.int64(2), np.uint8(2), np.array(2), np.array(2, dtype=np.int32)])
@pytest.mark.parametrize("make", [Tensor, values_of, interleaved, np.array])
def test_one_sample(label, make):
    x = np.array([0.5, -1.0, 2.0])
    logits = make(x)
    loss = cross_entropy(logits, label)
    value, gradient = reference_cross_entropy(x, 2)
    assert loss.data == pytest.approx(value, rel=1e-12)
    if make is not np.array:
        loss.backward()
        assert flat(logits) == pytest.approx(gradient, rel=1e-12)


@pytest.mark.parametrize("make", [Tensor, values_of])
def test_finite_differences_of_cross_entropy(make):
    x, y = logits_and_labels(4, 5, seed=2)
    logits = make(x)
    cross_entropy(logits, y).backward()
    check_slopes(lambda at: cross_entropy(Tensor(at), y).data, x, flat(logits))


@pytest.mark.parametrize("make", [Tensor, values_of])
@pytest.mark.parametrize("logits, label, value, gradient", [
    ([1000.0, -1000.0], 0, 0.0, [0.0, 0.0]),
    ([1000.0, -1000.0], 1, 2000.0, [1.0, -1.0]),
    ([1000.0, 1000.0], 1, math.log(2.0), [0.5, -0.5]),
    ([-1000.0, -1000.0, -1000.0], 0, math.log(3.0), [-2 / 3, 1 / 3, 1 / 3]),
    ([1e308, -1e308], 0, 0.0, [0.0, 0.0]),
    ([0.0, -INF], 0, 0.0, [0.0, 0.0]),
    ([0.0, 0.0, -INF], 0, math.log(2.0), [-0.5, 0.5, 0.0]),
    ([0.0, -INF], 1, INF, [1.0, -1.0]),
    ([700.0, 0.0], 1, 700.0, [1.0, -1.0]),
    ([0.0, -40.0], 0, math.exp(-40), [-math.exp(-40), math.exp(-40)]),
    ([3.5], 0, 0.0, [0.0]),
    ([NAN, 0.0], 0, NAN, [NAN, NAN]),
    ([0.0, INF], 0, NAN, [NAN, NAN]),   # as in PyTorch
    ([0.0, INF], 1, NAN, [NAN, NAN]),
    ([-INF, -INF], 0, NAN, [NAN, NAN]),
])
def test_extreme_logits(make, logits, label, value, gradient):
    x = make(logits)
    loss = cross_entropy(x, label)
    loss.backward()
    assert loss.data == pytest.approx(value, rel=1e-12, abs=1e-16, nan_ok=True)
    assert flat(x) == pytest.approx(gradient, rel=1e-12, abs=1e-16, nan_ok=True)


@pytest.mark.parametrize("shift", [0.0, 2.0**10, -2.0**20, 2.0**40])
@pytest.mark.parametrize("make", [Tensor, values_of])
def test_a_shift_of_all_logits_changes_nothing(make, shift):
    """However large: it is the differences that count, and here they are exact."""
    x, y = logits_and_labels(5, 4)
    x = np.round(x * 64) / 64
    logits = make(x + shift)
    loss = cross_entropy(logits, y)
    loss.backward()
    value, gradient = reference_cross_entropy(x, y)
    assert loss.data == pytest.approx(value, rel=1e-12)
    assert flat(logits) == pytest.approx(gradient, rel=1e-12)


def test_a_sample_does_not_depend_on_the_others():
    x = np.array([[1000.0, 0.0], [0.0, 1.0], [-INF, 0.0], [-1000.0, -999.0]])
    logits = Tensor(x)
    cross_entropy(logits, [0, 1, 1, 0]).backward()
    alone = []
    for row, label in zip(x, [0, 1, 1, 0]):
        one = Tensor(row)
        (cross_entropy(one, label) / 4).backward()
        alone.append(one.grad)
    assert np.allclose(logits.grad, alone, rtol=1e-12, atol=0)


# ---- in a graph ----

def test_gradients_arrive_multiplied_and_add_up():
    x, y = samples((5,))
    p = Tensor(x)
    (3.0 * mse(p, y) + hinge(p, y) * hinge(p, y)).backward()
    h, dh = reference_hinge(x, y)
    expected = [3.0 * a + 2.0 * h * b for a, b in zip(reference_mse(x, y)[1], dh)]
    assert p.grad.ravel().tolist() == pytest.approx(expected, rel=1e-12)
    logits, labels = logits_and_labels(5, 3)
    q = Tensor(logits)
    (cross_entropy(q, labels) * -2.0 + cross_entropy(q, labels)).backward()
    assert flat(q) == pytest.approx([-g for g in reference_cross_entropy(logits, labels)[1]], rel=1e-12)


def test_an_array_changed_afterwards_changes_nothing():
    x, y = samples((5,))
    labels = np.array([0, 1, 0])
    p, q = Tensor(x), Tensor(np.ones((3, 2)))
    loss = mse(p, y) + cross_entropy(q, labels)
    gradient = reference_mse(x, y)[1]
    y[:] = 100.0
    labels[:] = 1
    loss.backward()
    assert p.grad.tolist() == pytest.approx(gradient, rel=1e-12)
    assert q.grad[1].tolist() == pytest.approx([1 / 6, -1 / 6])


def test_an_mlp_of_values():
    random.seed(1)
    model = MLP(2, [4, 1])
    twin = copy.deepcopy(model)
    X, y = [[1.0, 2.0], [0.5, -1.0], [-1.0, 0.0]], [1.0, -1.0, 1.0]
    for loss_of, _, expression in PAIRED.values():
        for m, f in ((model, loss_of), (twin, expression)):
            m.zero_grad()
            f([m(x) for x in X], y).backward()
        assert [p.grad for p in model.parameters()] == pytest.approx(
            [p.grad for p in twin.parameters()], rel=1e-12, abs=1e-15)


def test_an_mlp_of_several_outputs():
    random.seed(1)
    model = MLP(2, [4, 3])
    twin = copy.deepcopy(model)
    X = [[1.0, 2.0], [0.5, -1.0], [-1.0, 0.0]]
    cross_entropy([model(x) for x in X], [2, 0, 1]).backward()
    expression_cross_entropy([twin(x) for x in X], [2, 0, 1]).backward()
    assert [p.grad for p in model.parameters()] == pytest.approx(
        [p.grad for p in twin.parameters()], rel=1e-12, abs=1e-15)


@every_paired
def test_collected_at_every_chance(name):
    loss_of, reference, _ = PAIRED[name]
    _core._testing(collect_floor=0)
    x, y = samples((6,))
    prediction = interleaved(x)
    for _ in range(5):
        loss = loss_of(prediction, values_of(y))
        flatgrad.collect()
        loss.backward()
    assert flat(prediction) == pytest.approx([5 * g for g in reference(x, y)[1]], rel=1e-12)
    logits, labels = logits_and_labels(4, 3)
    q = interleaved(logits)
    loss = cross_entropy(q, labels)
    flatgrad.collect()
    loss.backward()
    assert flat(q) == pytest.approx(reference_cross_entropy(logits, labels)[1], rel=1e-12)


@pytest.mark.parametrize("make", [Tensor, values_of, np.array])
def test_as_a_scalar_graph(make):
    x, y = samples((4, 3))
    logits, labels = logits_and_labels(4, 3)
    for loss_of, prediction, target in (
            (mse, x, y), (hinge, x, y), (mse, x[0], y[0]), (hinge, x[:, 0], y[:, :1]), (mse, x[0, 0], y[0, 0]),
            (cross_entropy, logits, labels), (cross_entropy, logits[0], labels[0])):
        if make is Tensor and np.ndim(prediction) == 0:
            prediction = prediction.reshape(1)
        fused = loss_of(make(prediction), target)
        with flatgrad.scalar_graph():
            scalar = loss_of(make(prediction), target)
        assert scalar._op == "/" and fused._op != "/"
        assert fused.data == pytest.approx(scalar.data, rel=1e-12)


def test_a_fused_loss_is_a_few_nodes():
    """And a scalar one is not."""
    t, y = Tensor(np.ones(1000)), Tensor(np.ones(1000), requires_grad=False)
    q, labels = Tensor(np.ones((1000, 4))), np.zeros(1000, dtype=int)
    for loss_of, prediction, target, most in ((mse, t, y, 1010), (hinge, t, y, 1010), (cross_entropy, q, labels, 2)):
        before = living()
        loss = loss_of(prediction, target)
        assert living() - before <= most
        with flatgrad.scalar_graph():
            loss = loss_of(prediction, target)
        assert living() - before > 1500
        del loss


# ---- errors ----

@every_paired
@pytest.mark.parametrize("shape, other", [
    ((3,), (4,)), ((3,), ()), ((), (3,)), ((3,), (1, 3)), ((1, 3), (3,)), ((3,), (3, 3)), ((3, 2), (2, 3)),
    ((3, 2), (6,)), ((3, 1), (3, 2)), ((3,), (1,)), ((3,), (0,)), ((0,), (3,)), ((), (1, 1)), ((0,), (0, 0)),
])
@pytest.mark.parametrize("make", [Tensor, values_of])
@pytest.mark.parametrize("target", [
    np.zeros, lambda shape: np.zeros(shape).tolist(), lambda shape: np.zeros(shape, int)])
def test_shapes_that_do_not_fit(name, shape, other, make, target):
    if make is Tensor and shape in [(), (0,)] or other == (0, 0):
        make = np.array
    with pytest.raises(ValueError) as caught:
        PAIRED[name][0](make(np.zeros(shape)), target(other) if other != (0, 0) else np.zeros(other))
    argument = {"mse": "prediction", "hinge": "score"}[name]
    assert str(caught.value) == f"{argument} and target: expected the same shape, got {shape} and {other}"


@every_paired
@pytest.mark.parametrize("make", [np.zeros, lambda shape: np.zeros(shape, int), lambda shape: np.zeros(shape).tolist()])
def test_more_than_two_axes(name, make):
    for shape in [(3, 2), (3, 2, 1), (3, 2, 4), (3, 2, 1, 1)]:
        for other in [(3, 2, 1), (3, 2, 4)]:
            with pytest.raises((TypeError, ValueError), match="shape|axes|list"):
                PAIRED[name][0](make(shape), make(other))


@every_paired
@pytest.mark.parametrize("prediction, target, error, message", [
    ([], [], ValueError, r"{name}: expected one sample at least, got the shape \(0,\)"),
    ([[], []], [[], []], ValueError, r"{name}: expected one sample at least, got the shape \(2, 0\)"),
    ([[1.0], [1.0, 2.0]], [1.0, 2.0], ValueError, "{name}: expected rows of one length, got 1 and 2"),
    ([1.0, [2.0]], [1.0, 2.0], ValueError, "{name}: expected rows or numbers, got both"),
    ([1.0, 2.0], [[1.0], 2.0], ValueError, "target: expected rows or numbers, got both"),
    ([1.0, 2.0], None, TypeError, "target: expected numbers or Values, got None"),
    ([1.0, 2.0], "ab", TypeError, "target: expected numbers or Values, got 'ab'"),
    ([1.0, 2.0], np.array(["a", "b"]), TypeError, "target: expected numbers or Values, got array"),
    ([1.0, 2.0], np.array([1j, 2.0]), TypeError, "target: expected numbers or Values, got array"),
    (np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), ValueError,
     r"{name}: expected 1 or 2 axes, got the shape \(2, 2, 2\)"),
    ([1.0, 2.0], iter([1.0, 2.0]), TypeError, "target: expected numbers or Values, got <list_iterator"),
    ([1.0, None], [1.0, 2.0], TypeError, "None"),
    ([1.0, 2.0], [1.0, "x"], TypeError, "'x'|str"),
    ([1.0, 2.0], [1.0, 1j], TypeError, "1j|complex"),
    ([[[1.0]]], [[1.0]], (TypeError, ValueError), "list|axes|shape"),
])
def test_what_is_not_numbers(name, prediction, target, error, message):
    before = flatgrad.stats()["nodes"]
    with pytest.raises(error, match=message.replace("{name}", {"mse": "prediction", "hinge": "score"}[name])):
        PAIRED[name][0](prediction, target)
    assert flatgrad.stats()["nodes"] == before


X = np.zeros((4, 3))


@pytest.mark.parametrize("make", [Tensor, values_of])
@pytest.mark.parametrize("logits, target, error, message", [
    (X, [0, 1, 3, 0], ValueError, r"target\[2\]: expected an integer from 0 to 2, got 3"),
    (X, np.array([0, 1, 2, 3]), ValueError,
     r"target\[3\]: expected an integer from 0 to 2, got 3; there are 3 predictions for each sample"),
    (X[:, :1], [0, 1, 0, 0], ValueError, r"got 1; there is one prediction for each sample, as bce_with_logits"),
    (X, np.array([0, -1, 2, 3]), ValueError, r"target\[1\]: expected an integer from 0 to 2, got -1"),
    (X, [-100, 0, 1, 2], ValueError, r"target\[0\]: expected an integer from 0 to 2, got -100"),
    (X, np.array([0, 1, 2, 200], dtype=np.uint8), ValueError, r"target\[3\]: expected an integer from 0 to 2, got 200"),
    (X, np.array([0, 1, 2, -7], dtype=np.int8), ValueError, r"target\[3\]: expected an integer from 0 to 2, got -7"),
    (X, np.array([0, 2**63, 0, 0], dtype=np.uint64), ValueError,
     r"target\[1\]: expected an integer from 0 to 2, got 9223372036854775808"),
    (X, np.array([0, 2**64 - 1, 0, 0], dtype=np.uint64), ValueError,
     r"target\[1\]: expected an integer from 0 to 2, got 18446744073709551615"),
    (X, [0, 0, 0, 10**30], ValueError, r"target\[3\]: expected an integer from 0 to 2, got 1000000"),
    (X, np.arange(8)[::2], ValueError, r"target\[2\]: expected an integer from 0 to 2, got 4"),
    (X, [0, 1.5, 0, 0], TypeError, r"target\[1\]: expected an integer from 0 to 2, got 1.5"),
    (X, [0.0, 1.0, 0.0, 0.0], TypeError, r"target\[0\]: expected an integer from 0 to 2, got 0.0"),
    (X, np.array([0.0, 1.0, 0.0, 0.0]), TypeError, r"target\[0\]: expected an integer from 0 to 2, got .*0.0"),
    (X, [0, 1, NAN, 0], TypeError, r"target\[2\]: expected an integer from 0 to 2, got nan"),
    (X, [0, "1", 0, 0], TypeError, r"target\[1\]: expected an integer from 0 to 2, got '1'"),
    (X, [0, None, 0, 0], TypeError, r"target\[1\]: expected an integer from 0 to 2, got None"),
    (X, [[0, 1], [0]], ValueError, r"target: expected a sequence of integer labels, got \[\[0, 1\], \[0\]\]"),
    (X, None, TypeError, "target: expected an integer from 0 to 2, got None"),
    (X, [0, 1], ValueError,
     r"target: expected one label for each sample, got the shape \(2,\) where that of logits is \(4, 3\)"),
    (X, np.zeros((4, 1), int), ValueError, r"target: expected one label for each sample, got the shape \(4, 1\) where"),
    (X, X.astype(int), ValueError, r"target: expected one label for each sample, got the shape \(4, 3\) where"),
    (X, X, TypeError, r"target\[0\]: expected an integer from 0 to 2, got array"),
    (X, 1, ValueError, r"target: expected one label for each sample, got the shape \(\) where"),
    (X, [], ValueError, r"target: expected one label for each sample, got the shape \(0,\) where"),
    (X[0], 3, ValueError, "target: expected an integer from 0 to 2, got 3"),
    (X[0], -1, ValueError, "target: expected an integer from 0 to 2, got -1"),
    (X[0], np.array(5), ValueError, "target: expected an integer from 0 to 2, got 5"),
    (X[0], 1.0, TypeError, "target: expected an integer from 0 to 2, got .*1.0"),
    (X[0], [1], ValueError, r"target: expected one label for each sample, got the shape \(1,\) where"),
    (X[0], [0, 1, 2], ValueError, r"target: expected one label for each sample, got the shape \(3,\) where"),
])
def test_wrong_labels(make, logits, target, error, message):
    x = make(logits)
    before = flatgrad.stats()["nodes"]
    with pytest.raises(error, match=message):
        cross_entropy(x, target)
    assert flatgrad.stats()["nodes"] == before


def test_labels_that_are_values():
    for make in (Tensor, values_of):
        with pytest.raises(TypeError, match="target"):
            cross_entropy(Tensor(X), make([0.0, 1.0, 2.0, 0.0]))
    with pytest.raises(TypeError, match="target: expected integer labels, got a Value"):
        cross_entropy(Tensor(X[0]), Value(1.0))


@pytest.mark.parametrize("logits, target, error, message", [
    ([], [], ValueError, r"logits: expected the shape \(n_samples, n_classes\) or \(n_classes,\)"),
    ([[], []], [0, 0], ValueError, r"one of each at least, got \(2, 0\)"),
    (np.zeros((0, 3)), [], ValueError, r"one of each at least, got \(0, 3\)"),
    (3.0, 0, ValueError, r"one of each at least, got \(\)"),
    ([[0.0, 1.0], [0.0]], [0, 0], ValueError, "logits: expected rows of one length, got 1 and 2"),
    ([[0.0, 1.0], 0.0], [0, 0], ValueError, "logits: expected rows or numbers, got both"),
    (np.zeros((2, 2, 2)), [[0, 0], [0, 0]], ValueError, r"logits: expected 1 or 2 axes, got the shape \(2, 2, 2\)"),
    (None, 0, TypeError, "logits: expected numbers or Values, got None"),
    ([[0.0, None]], [0], TypeError, "None"),
    ([[0.0, "x"]], [0], TypeError, "'x'|str"),
])
def test_wrong_logits(logits, target, error, message):
    before = flatgrad.stats()["nodes"]
    with pytest.raises(error, match=message):
        cross_entropy(logits, target)
    assert flatgrad.stats()["nodes"] == before


# ---- every loss of pairs: (ours, one loss in plain Python, lowest and highest prediction and target) ----

def log(x):
    return math.log(x) if x > 0 else -INF


def plain_huber(delta):
    return lambda p, t: (p - t) ** 2 / 2 if abs(p - t) <= delta else delta * (abs(p - t) - delta / 2)


def plain_bce(p, t):
    return -(t * max(log(p), -100.0) + (1 - t) * max(log(1 - p), -100.0))


def plain_logits(weight):
    """With the sigmoid as it is: for logits that allow it."""
    return lambda x, t: weight * t * math.log1p(math.exp(-x)) + (1 - t) * math.log1p(math.exp(x))


EVERY = {
    "mse": (mse, lambda p, t: (p - t) ** 2, (-2, 2), (-2, 2)),
    "mae": (mae, lambda p, t: abs(p - t), (-2, 2), (-2, 2)),
    "huber": (huber, plain_huber(1.0), (-2, 2), (-2, 2)),
    "huber, 0.3": (lambda p, t, reduction="mean": huber(p, t, 0.3, reduction), plain_huber(0.3), (-2, 2), (-2, 2)),
    "hinge": (hinge, lambda p, t: max(0.0, 1 - p * t), (-2, 2), (-2, 2)),
    "binary_cross_entropy": (binary_cross_entropy, plain_bce, (0.05, 0.95), (0.05, 0.95)),
    "bce_with_logits": (bce_with_logits, plain_logits(1.0), (-5, 5), (0, 1)),
    "bce_with_logits, 2.5": (lambda p, t, reduction="mean": bce_with_logits(p, t, reduction, 2.5), plain_logits(2.5),
                             (-5, 5), (0, 1)),
    "kl_div": (kl_div, lambda p, t: t * (log(t) - p), (-3, 0), (0.05, 1)),
    "kl_div, logarithms": (lambda p, t, reduction="mean": kl_div(p, t, reduction, log_target=True),
                           lambda p, t: math.exp(t) * (t - p), (-3, 0), (-3, 0)),
}
every_loss = pytest.mark.parametrize("name", EVERY)
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


def pair_of(name, shape, seed=0):
    rng = np.random.default_rng([seed, *shape])
    return rng.uniform(*EVERY[name][2], shape), rng.uniform(*EVERY[name][3], shape)


def plain(name, x, y, reduction):
    terms = [EVERY[name][1](p, t) for p, t in zip(np.ravel(x).tolist(), np.ravel(y).tolist(), strict=True)]
    if reduction == "none":
        return np.reshape(terms, np.shape(x))
    return math.fsum(terms) / (len(terms) if reduction == "mean" else 1)


def data_of(loss):
    return loss.data


@every_loss
@every_reduction
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_every_loss(name, reduction, shape, kind):
    x, y = pair_of(name, shape)
    loss = EVERY[name][0](PREDICTIONS[kind](x), y, reduction=reduction)
    assert type(loss) is (Tensor if reduction == "none" else Value)
    assert np.shape(loss.data) == (shape if reduction == "none" else ())
    assert np.allclose(loss.data, plain(name, x, y, reduction), rtol=1e-12, atol=1e-15)


@every_loss
@pytest.mark.parametrize("shape, other", [((6,), (6, 1)), ((6, 1), (6,)), ((1,), (1, 1)), ((1, 1), (1,))])
@pytest.mark.parametrize("make", [Tensor, values_of, np.array])
def test_none_has_the_shape_of_the_prediction(name, shape, other, make):
    x, y = pair_of(name, shape)
    prediction = make(x)
    for target in y.reshape(other), Tensor(y.reshape(other)):
        loss = EVERY[name][0](prediction, target, reduction="none")
        assert loss.shape == shape and np.allclose(loss.data, plain(name, x, y, "none"), rtol=1e-12, atol=1e-15)
    if make is Tensor:
        loss[-1 if len(shape) == 1 else (-1, 0)].backward()   # and its order
        assert np.flatnonzero(prediction.grad.ravel()).tolist() in ([x.size - 1], [])


@every_loss
@every_reduction
def test_one_value_gives_a_value(name, reduction):
    x, y = pair_of(name, ())
    for prediction in Value(float(x)), float(x), x:
        for target in Value(float(y)), float(y), y, [float(y)]:
            loss = EVERY[name][0](prediction, target, reduction=reduction)
            assert type(loss) is Value and loss.data == pytest.approx(plain(name, x, y, "sum"), rel=1e-12)


@every_loss
@every_reduction
@pytest.mark.parametrize("make", [Tensor, values_of])
def test_slopes_of_both_operands(name, reduction, make):
    """By the finite differences of plain Python; a derivative 0.1 % off is caught."""
    x, y = pair_of(name, (4, 3), seed=1)
    a, b = make(x), make(y)
    weights = np.cos(np.arange(12.0)).reshape(4, 3) + 0.1 if reduction == "none" else 1.5

    def weighted(at_x, at_y):
        return float(np.sum(plain(name, at_x, at_y, reduction) * weights))
    loss = EVERY[name][0](a, b, reduction=reduction) * weights
    (loss.sum() if reduction == "none" else loss).backward()
    check_slopes(lambda at: weighted(at, y), x, flat(a))
    check_slopes(lambda at: weighted(x, at), y, flat(b))
    for f, at, gradient in ((lambda at: weighted(at, y), x, flat(a)), (lambda at: weighted(x, at), y, flat(b))):
        with pytest.raises(AssertionError):
            check_slopes(f, at, [1.001 * g for g in gradient])


@every_loss
@every_reduction
@pytest.mark.parametrize("make", [Tensor, values_of, np.array])
def test_every_loss_as_a_scalar_graph(name, reduction, make):
    for shape in (4, 3), (4, 1), (1, 3), (5,), (1,), ():
        x, y = pair_of(name, shape)
        sides = []
        for scalar in False, True:
            prediction = (values_of if shape == () else make)(x)
            target = (values_of if shape == () else make)(y)
            if scalar:
                with flatgrad.scalar_graph():
                    loss = EVERY[name][0](prediction, target, reduction=reduction)
            else:
                loss = EVERY[name][0](prediction, target, reduction=reduction)
            assert np.shape(loss.data) == (shape if reduction == "none" else ())
            if make is not np.array or reduction != "none":   # which makes a constant
                (loss.sum() if isinstance(loss, Tensor) else loss * 1.0).backward()
            sides.append((loss.data, [] if make is np.array else flat(prediction) + flat(target)
                          if isinstance(prediction, list) else np.ravel([prediction.grad, target.grad])))
        assert np.allclose(sides[0][0], sides[1][0], rtol=1e-12, atol=1e-14)
        assert np.allclose(sides[0][1], sides[1][1], rtol=1e-12, atol=1e-14)


def test_scalar_graphs_at_the_edges():
    """Where a logarithm would fail, or a kink would be another."""
    with flatgrad.scalar_graph():
        assert binary_cross_entropy([0.0, 1.0, 0.0, 1.0, 1e-60], [0, 1, 1, 0, 1], "none").tolist() == [
            0.0, 0.0, 100.0, 100.0, 100.0]
        assert kl_div([-1.0, -2.0], [0.0, 1.0], "none").tolist() == [0.0, 2.0]
        x = [Value(0.0), Value(1000.0), Value(-1000.0)]
        loss = bce_with_logits(x, [1, 0, 1], "sum")
        loss.backward()
        assert loss.data == 2000.0 + math.log(2) and flat(x) == [-0.5, 1.0, -1.0]
        x = [Value(1.0), Value(-1.0), Value(0.0)]
        huber(x, [0.0] * 3, reduction="sum").backward()
        assert flat(x) == [1.0, -1.0, 0.0]
        x = Value(1.5)
        with pytest.raises(ValueError, match="probability: expected a number from 0 to 1, got 1.5"):
            binary_cross_entropy(x, 1)


@pytest.mark.parametrize("make", [Tensor, values_of])
def test_kinks(make):
    x = make([1.0, -1.0, 0.0, -0.0, 3.0])
    mae(x, np.zeros(5), "sum").backward()
    assert flat(x) == [1.0, -1.0, 0.0, 0.0, 1.0]
    x = make([1.0, -1.0, 0.0, -0.5, 3.0])
    huber(x, np.zeros(5), reduction="sum").backward()
    assert flat(x) == [1.0, -1.0, 0.0, -0.5, 1.0]
    x = make([0.0, 1.0])
    binary_cross_entropy(x, [1.0, 0.0], "sum").backward()
    assert flat(x) == pytest.approx([-1e12, 1e12], rel=1e-7)


@pytest.mark.parametrize("logit", [1000.0, -1000.0, 1e308, -1e308, 0.0, 40.0, -40.0])
@pytest.mark.parametrize("make", [Tensor, values_of])
def test_large_logits_of_two_classes(make, logit):
    x = make([logit, logit])
    loss = bce_with_logits(x, [0, 1], "none")
    loss.sum().backward()
    small = math.log1p(math.exp(-abs(logit)))
    assert loss.tolist() == pytest.approx([max(logit, 0.0) + small, max(-logit, 0.0) + small], rel=1e-14, abs=0)
    p = math.exp(-abs(logit)) / (1 + math.exp(-abs(logit)))   # of the class that is less likely
    assert flat(x) == pytest.approx([1 - p, -p] if logit > 0 else [p, p - 1], rel=1e-14, abs=0)


def test_infinite_logits_of_two_classes():
    """What the limit is where the formula has one."""
    x = Tensor([-INF, -INF, INF, INF])
    loss = bce_with_logits(x, [1.0, 0.5, 0.0, 0.5], "none")
    loss.sum().backward()
    assert loss.tolist() == [INF] * 4 and x.grad.tolist() == [-1.0, -0.5, 1.0, 0.5]
    assert np.isnan(bce_with_logits([-INF, INF], [0.0, 1.0], "none").data).all()


def test_bce_with_logits_is_that_of_sigmoid():
    x, y = pair_of("bce_with_logits", (5, 3))
    a, b = Tensor(x), Tensor(x)
    one, other = bce_with_logits(a, y), binary_cross_entropy(b.sigmoid(), y)
    one.backward()
    other.backward()
    assert one.data == pytest.approx(other.data, rel=1e-12)
    assert flat(a) == pytest.approx(flat(b), rel=1e-10)


@pytest.mark.parametrize("make", [Tensor, values_of, np.array])
def test_pos_weight(make):
    x, y = pair_of("bce_with_logits", (5, 3))
    weight = [0.5, 1.0, 4.0]
    expected = [[plain_logits(w)(p, t) for p, t, w in zip(*rows, weight)] for rows in zip(x, y)]
    for given in weight, tuple(weight), np.array(weight):
        assert np.allclose(bce_with_logits(make(x), y, "none", given).data, expected, rtol=1e-12)
    with flatgrad.scalar_graph():
        assert np.allclose(bce_with_logits(make(x), y, "none", weight).data, expected, rtol=1e-12)
    assert bce_with_logits(make(x[:, :1]), y[:, 0], "sum", 3).data == pytest.approx(
        sum(plain_logits(3.0)(p, t) for p, t in zip(x[:, 0], y[:, 0])))
    assert np.allclose(bce_with_logits(make(x[0]), y[0], "none", weight).data, expected[0], rtol=1e-12)


def test_batchmean():
    x, y = pair_of("kl_div", (5, 3))
    for make in Tensor, values_of, np.array:
        assert kl_div(make(x), y, "batchmean").data == pytest.approx(plain("kl_div", x, y, "sum") / 5, rel=1e-12)
        assert kl_div(make(x[0]), y[0], "batchmean").data == pytest.approx(
            plain("kl_div", x[0], y[0], "mean"), rel=1e-12)
    assert kl_div(Value(-1.0), 0.5, "batchmean").data == pytest.approx(0.5 * (math.log(0.5) + 1))


# ---- every way to take labels ----

def plain_nll(rows, labels, reduction, smoothing=0.0, weight=None, ignored=None):
    """From logarithms of probabilities."""
    n_classes = len(rows[0])
    weight = [1.0] * n_classes if weight is None else weight
    terms, total = [], 0.0
    for row, label in zip(rows, labels, strict=True):
        if label == ignored:
            terms.append(0.0)
            continue
        even = math.fsum(-w * x for w, x in zip(weight, row)) / n_classes
        terms.append((1 - smoothing) * -weight[label] * row[label] + (smoothing * even if smoothing else 0.0))
        total += weight[label]
    return terms if reduction == "none" else math.fsum(terms) / (total if reduction == "mean" else 1)


def logarithms(logits):
    return [[x - math.log(math.fsum(math.exp(y) for y in row)) for x in row] for row in np.asarray(logits).tolist()]


LABEL_OPTIONS = [{}, {"weight": [0.5, 1.0, 2.0, 0.25]}, {"ignore_index": 1}, {"ignore_index": -100},
                 {"weight": [0.0, 1.0, 2.0, 0.25], "ignore_index": 3}]


@every_reduction
@pytest.mark.parametrize("options", LABEL_OPTIONS, ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("make", [Tensor, values_of, np.array])
def test_options_of_labels(reduction, options, smoothing, make):
    x, labels = logits_and_labels(6, 4, seed=3)
    labels[0], labels[1] = 2, options.get("ignore_index", 0)
    ignored, weight = options.get("ignore_index"), options.get("weight")

    def expected(at):
        return plain_nll(logarithms(at), labels, reduction, smoothing, weight, ignored)
    for graph in False, True:
        def call(at):
            if not graph:
                return cross_entropy(at, labels, smoothing, reduction, **options)
            with flatgrad.scalar_graph():
                return cross_entropy(at, labels, smoothing, reduction, **options)
        logits = make(x)
        loss = call(logits)
        assert np.allclose(loss.data, expected(x), rtol=1e-11)
        if make is not np.array:
            (loss.sum() if reduction == "none" else loss).backward()
            check_slopes(lambda at: float(np.sum(expected(at))), x, flat(logits))
        if not smoothing:
            rows = make(np.array(logarithms(x)))
            loss = nll(rows, labels, reduction, **options)
            assert np.allclose(loss.data, expected(x), rtol=1e-12)
    if ignored is None:
        for row, label in zip(x, labels):
            one = cross_entropy(make(row), label, smoothing, reduction, **options)
            alone = plain_nll(logarithms([row]), [label], reduction, smoothing, weight)
            assert type(one) is Value and one.data == pytest.approx(np.ravel(alone)[0], rel=1e-11)


@every_reduction
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_large_logits(reduction, smoothing):
    """Of +-1000 and more, with all options."""
    x = Tensor([[1000.0, -1000.0, 0.0], [-1000.0, 1000.0, 1000.0]])
    loss = cross_entropy(x, [1, 2], smoothing, reduction)
    # Logarithms of the probabilities: 0, -2000, -1000; -2000 - log(2), -log(2), -log(2).
    a, b = math.log(2), smoothing / 3
    terms = [(1 - smoothing) * 2000 + b * 3000, (1 - smoothing) * a + b * (2000 + 3 * a)]
    expected = {"mean": sum(terms) / 2, "sum": sum(terms), "none": terms}[reduction]
    assert np.allclose(loss.data, expected, rtol=1e-13)
    (loss.sum() if reduction == "none" else loss).backward()
    gradient = [[1 - b, smoothing - 1 - b, -b], [-b, 0.5 - b, 0.5 - (1 - smoothing) - b]]
    assert np.allclose(x.grad, np.array(gradient) / (2 if reduction == "mean" else 1), rtol=1e-12, atol=1e-15)


def test_another_class_of_probability_0_costs_nothing():
    """-inf at another than the label, where 0 times -inf would be nan."""
    x = Tensor([[0.0, -INF, 0.0], [-INF, 0.0, -INF]])
    for options in {}, {"reduction": "sum"}, {"reduction": "none"}, {"weight": [1.0, 1.0, 1.0]}, {"ignore_index": -100}:
        loss = cross_entropy(x, [0, 1], **options)
        assert np.allclose(np.sum(loss.data), math.log(2) / (2 if "reduction" not in options else 1), rtol=1e-12)
        x.grad = 0.0
        (loss.sum() if isinstance(loss, Tensor) else loss).backward()
        assert np.isfinite(x.grad).all()
    rows = Tensor([[-0.5, -INF], [NAN, -1.0], [-INF, NAN]])
    loss = nll(rows, [0, 1, 5], ignore_index=5)   # and what is in a sample that does not count
    loss.backward()
    assert loss.data == 0.75 and rows.grad.tolist() == [[-0.5, 0.0], [0.0, -0.5], [0.0, 0.0]]


def test_nll_of_log_softmax_is_cross_entropy():
    x, y = logits_and_labels(7, 5)
    for reduction in "mean", "sum", "none":
        a, b = Tensor(x), Tensor(x)
        one, other = nll(a.log_softmax(), y, reduction), cross_entropy(b, y, reduction=reduction)
        assert np.allclose(one.data, other.data, rtol=1e-12)
        for loss in one, other:
            (loss.sum() if reduction == "none" else loss).backward()
        assert np.allclose(a.grad, b.grad, rtol=1e-12, atol=1e-15)


# ---- penalties ----

def test_penalties():
    w, b = Tensor([[1.0, -2.0, 0.0], [4.0, -0.5, 3.0]]), Tensor([-1.0, 2.0])
    values = [Value(-3.0), Value(0.0), Value(2.0)]
    for penalty, expected, slope in ((l1, 18.5, lambda x: float(np.sign(x))), (l2, 48.25, lambda x: 2 * x)):
        for parameters in [w, b, *values], (values[0], w, values[1], b, values[2]), iter([w, *values, b]):
            for x in w, b, *values:
                x.grad = 0.0
            loss = penalty(parameters)
            assert type(loss) is Value and loss.data == expected
            (loss * 0.5).backward()
            assert flat([w, b, *values]) == [0.5 * slope(x) for x in [*w.data.ravel(), *b.data, -3.0, 0.0, 2.0]]
        of_w = penalty(w).data
        assert of_w == penalty([w.T]).data == penalty(list(w)).data == penalty([v for row in w for v in row]).data
        assert penalty(values[0]).data == penalty(values[:1]).data == (3.0 if penalty is l1 else 9.0)
        assert penalty([]).data == 0.0
        with flatgrad.scalar_graph():
            assert penalty([w, b, *values]).data == expected


def test_a_penalty_of_a_model():
    random.seed(1)
    model = MLP(2, [4, 1])
    (l1(model.parameters()) * 0.5 + l2(model.parameters())).backward()
    assert [p.grad for p in model.parameters()] == pytest.approx(
        [0.5 * np.sign(p.data) + 2 * p.data for p in model.parameters()])


def test_l2_of_values_is_one_instruction():
    values = values_of(np.arange(100.0))
    before = living()
    loss = l2(values)
    assert living() == before + 1
    del loss


@pytest.mark.parametrize("penalty", [l1, l2])
@pytest.mark.parametrize("parameters, message", [
    (3.0, "parameters: expected Values and Tensors, got 3.0"),
    (None, "parameters: expected Values and Tensors, got None"),
    ([Value(1.0), 2.0], r"parameters\[1\]: expected a Value or a Tensor, got 2.0"),
    (np.ones(3), r"parameters\[0\]: expected a Value or a Tensor, got .*1.0"),
    ([[Value(1.0)]], r"parameters\[0\]: expected a Value or a Tensor, got \[Value"),
])
def test_wrong_parameters(penalty, parameters, message):
    with pytest.raises(errors.ArgumentTypeError, match=message):
        penalty(parameters)


# ---- classes ----

CLASSES = [
    (losses.MSELoss, {}, mse, "MSELoss(reduction={!r})"), (losses.L1Loss, {}, mae, "L1Loss(reduction={!r})"),
    (losses.HuberLoss, {"delta": 0.5}, huber, "HuberLoss(reduction={!r}, delta=0.5)"),
    (losses.HingeLoss, {}, losses.hinge, "HingeLoss(reduction={!r})"),
    (losses.BCELoss, {}, binary_cross_entropy, "BCELoss(reduction={!r})"),
    (losses.BCEWithLogitsLoss, {"pos_weight": 2}, bce_with_logits, "BCEWithLogitsLoss(reduction={!r}, pos_weight=2.0)"),
    (losses.BCEWithLogitsLoss, {"pos_weight": [2, 1, 1]}, bce_with_logits,
     "BCEWithLogitsLoss(reduction={!r}, pos_weight=[2.0, 1.0, 1.0])"),
    (losses.KLDivLoss, {"log_target": True}, kl_div, "KLDivLoss(reduction={!r}, log_target=True)"),
    (losses.CrossEntropyLoss, {"label_smoothing": 0.1, "weight": [1, 2, 3], "ignore_index": -1}, cross_entropy,
     "CrossEntropyLoss(reduction={!r}, weight=[1.0, 2.0, 3.0], ignore_index=-1, label_smoothing=0.1)"),
    (losses.CrossEntropyLoss, {}, cross_entropy,
     "CrossEntropyLoss(reduction={!r}, weight=None, ignore_index=None, label_smoothing=0.0)"),
    (losses.NLLLoss, {"weight": [1, 2, 3]}, nll, "NLLLoss(reduction={!r}, weight=[1.0, 2.0, 3.0], ignore_index=None)"),
]


@every_reduction
@pytest.mark.parametrize("make, options, function, shown", CLASSES, ids=lambda x: getattr(x, "__name__", None))
def test_a_class_is_its_function(reduction, make, options, function, shown):
    rng = np.random.default_rng(1)
    x = Tensor(rng.uniform(0.1, 0.9, (5, 3)))
    target = rng.integers(3, size=5) if function in (cross_entropy, nll) else rng.uniform(0.1, 0.9, (5, 3))
    if function is losses.hinge:
        target = np.where(target < 0.5, -1.0, 1.0)
    criterion = make(reduction=reduction, **options)
    assert repr(criterion) == shown.format(reduction)
    assert np.array_equal(criterion(x, target).data, function(x, target, reduction=reduction, **options).data)
    assert repr(copy.deepcopy(criterion)) == repr(criterion)
    assert repr(make(**options)) == shown.format("mean")


def test_losses_by_name():
    assert losses.LOSSES == {name: getattr(losses, name) for name in (
        "mse", "mae", "huber", "hinge", "binary_cross_entropy", "bce_with_logits", "cross_entropy", "nll", "kl_div")}
    assert set(losses.__all__) >= set(losses.LOSSES)


# ---- what is refused, with nothing left on the tape ----

T, U = [0.5, 0.25], [0.25, 0.75]


@pytest.mark.parametrize("call, error, message", [
    *[(lambda f=f: f(T, U, reduction="men"), errors.UnknownNameError,
       "reduction: expected one of 'mean', 'sum', 'none', got 'men'; did you mean 'mean'?") for f, *_ in EVERY.values()
      if f is not kl_div and f.__name__ != "<lambda>"],
    (lambda: kl_div(T, U, "batchmeen"), errors.UnknownNameError,
     "reduction: expected one of 'mean', 'batchmean', 'sum', 'none', got 'batchmeen'; did you mean 'batchmean'?"),
    (lambda: mse(T, U, "batchmean"), errors.UnknownNameError, "reduction: expected one of 'mean', 'sum', 'none', got"),
    (lambda: cross_entropy([T, U], [0, 1], reduction="average"), errors.UnknownNameError, "reduction: expected one of"),
    (lambda: nll([T, U], [0, 1], "avg"), errors.UnknownNameError, "reduction: expected one of"),
    (lambda: mse(T, U, None), TypeError, "reduction: expected one of 'mean', 'sum', 'none', got None"),
    (lambda: losses.MSELoss("Mean"), errors.UnknownNameError, "reduction: expected one of .*; did you mean 'mean'?"),
    (lambda: losses.MSELoss(None), TypeError, "reduction: expected one of"),
    (lambda: losses.KLDivLoss("batch"), errors.UnknownNameError, "reduction: expected one of .*'batchmean'"),
    (lambda: losses.KLDivLoss(log_target=1), TypeError, "log_target: expected True or False, got 1"),
    (lambda: kl_div(T, U, log_target="no"), TypeError, "log_target: expected True or False, got 'no'"),
    *[(lambda delta=delta, call=call: call(delta), error, "delta: expected a finite number above 0, got ")
      for delta, error in ((0.0, ValueError), (-1, ValueError), (NAN, ValueError), (INF, ValueError), ("1", TypeError))
      for call in (lambda delta: huber(T, U, delta), lambda delta: losses.HuberLoss(delta=delta))],
    (lambda: binary_cross_entropy([0.5, 1.5], [0, 1]), errors.DataError,
     r"probability\[1\]: expected a number from 0 to 1, got 1.5"),
    (lambda: binary_cross_entropy(Tensor([[0.5], [-0.25]]), [0, 1]), errors.DataError,
     r"probability\[1, 0\]: expected a number from 0 to 1, got -0.25"),
    (lambda: binary_cross_entropy([[Value(0.5), Value(1.0)], [Value(0.5), Value(-INF)]], np.zeros((2, 2))),
     errors.DataError, r"probability\[1, 1\]: expected a number from 0 to 1, got -inf"),
    (lambda: binary_cross_entropy(Value(2.0), 1), errors.DataError,
     "probability.*: expected a number from 0 to 1, got 2.0"),
    (lambda: binary_cross_entropy(T, [0, 2]), errors.DataError, r"target\[1\]: expected a number from 0 to 1, got 2.0"),
    (lambda: binary_cross_entropy([2.0], [0, 1]), errors.ShapeError, "probability and target: expected the same shape"),
    (lambda: binary_cross_entropy([], []), errors.DataError, "probability: expected one sample at least"),
    (lambda: kl_div(T, [0.5, -0.5]), errors.DataError, r"target\[1\]: expected a probability, 0 or more, got -0.5"),
    (lambda: kl_div(T, [0.5, -0.5], "batchmean"), errors.DataError, r"target\[1\]: expected a probability"),
    (lambda: kl_div(T, [0.5, 1000.0], "none", "x"), TypeError, "log_target"),
    (lambda: bce_with_logits(T, U, pos_weight=[1, 2, 3]), errors.ShapeError,
     r"pos_weight: expected a number or one for each column of logits, of shape \(2,\), got the shape \(3,\)"),
    (lambda: bce_with_logits(Value(1.0), 1, pos_weight=[1.0]), errors.ShapeError,
     "pos_weight: expected a number or one"),
    (lambda: bce_with_logits([[1.0], [2.0]], U, pos_weight=[1, 2]), errors.ShapeError, "pos_weight: expected a number"),
    (lambda: bce_with_logits(T, U, pos_weight=-1.0), ValueError,
     "pos_weight: expected a finite number, 0 or more, got -1.0"),
    (lambda: bce_with_logits(T, U, pos_weight=[1.0, -2.0]), ValueError,
     r"pos_weight\[1\]: expected a finite number, 0 or"),
    (lambda: bce_with_logits(T, U, pos_weight=[1.0, NAN]), ValueError,
     r"pos_weight\[1\]: expected a finite number, got nan"),
    (lambda: bce_with_logits(T, U, pos_weight="x"), TypeError,
     "pos_weight: expected a finite number, 0 or more, got 'x'"),
    (lambda: bce_with_logits(T, U, pos_weight=[[1.0, 2.0]]), errors.ShapeError, "pos_weight: expected 1 dimension"),
    (lambda: cross_entropy([T, U], [0, 1], 1.5), ValueError, "label_smoothing: expected a number from 0 to 1, got 1.5"),
    (lambda: cross_entropy([T, U], [0, 1], -0.1), ValueError,
     "label_smoothing: expected a number from 0 to 1, got -0.1"),
    (lambda: cross_entropy([T, U], [0, 1], NAN), ValueError, "label_smoothing: expected a number from 0 to 1, got nan"),
    (lambda: losses.CrossEntropyLoss(label_smoothing="0"), TypeError, "label_smoothing: expected a number from 0 to 1"),
    (lambda: cross_entropy([T, U], [0, 1], weight=[1.0]), errors.ShapeError,
     "weight: expected 2 numbers, one for each class, got 1"),
    (lambda: cross_entropy([T, U], [0, 1], weight=1.0), errors.ShapeError, "weight: expected 1 dimension"),
    (lambda: losses.NLLLoss(weight=[1.0, -1.0]), ValueError,
     r"weight\[1\]: expected a finite number, 0 or more, got -1.0"),
    (lambda: cross_entropy([T, U], [0, 0], weight=[0.0, 1.0]), errors.DataError,
     "weight: expected a label of a weight above 0"),
    (lambda: cross_entropy([T, U], [7, 7], ignore_index=7), errors.DataError,
     "target: expected one label at least that is not ignore_index=7, got none"),
    (lambda: nll([T, U], [0, 2]), errors.DataError, r"target\[1\]: expected an integer from 0 to 1, got 2"),
    (lambda: nll([T, U], [0, 2], "none", ignore_index=3), errors.DataError,
     r"target\[1\]: expected an integer from 0 to 1, or ignore_index=3, got 2"),
    (lambda: nll(T, -1), errors.DataError, "target: expected an integer from 0 to 1, got -1"),
    (lambda: cross_entropy([T, U], [0, -1], reduction="sum"), errors.DataError,
     r"target\[1\]: expected an integer from 0 to 1, got -1"),
    (lambda: cross_entropy([T, U], [0, 1], ignore_index=0.5), TypeError,
     "ignore_index: expected None or an int, got 0.5"),
    (lambda: nll([T, U], [0.0, 1.0]), TypeError, r"target\[0\]: expected an integer from 0 to 1, got 0.0"),
    (lambda: nll([], []), errors.DataError, "log_probabilities: expected the shape"),
    (lambda: nll([T, U], [0]), errors.ShapeError, "target: expected one label for each sample, got the shape"),
])
def test_what_is_refused(call, error, message):
    before = flatgrad.stats()["nodes"]
    with pytest.raises(error, match=message):
        call()
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] == before


@every_loss
@every_reduction
def test_nan_and_inf_are_numbers(name, reduction):
    """They reach the result, and are not refused."""
    function, _, _, targets = EVERY[name]
    good = float(np.mean(targets))
    loss = function([NAN, 0.5 if name == "binary_cross_entropy" else -0.5], [good, good], reduction=reduction)
    assert np.isnan(np.ravel(loss.data)[0])


# ---- targets out of the domain ----

@pytest.mark.parametrize("target, place", [
    ([1, 0], r"target\[1\]: expected -1 or 1, got 0.0"), (np.array([0.0, 1.0]), r"target\[0\]: .* got 0.0"),
    ([[1], [2]], r"target\[1, 0\]: .* got 2.0"), (Tensor([1.0, 0.5], requires_grad=False), r"target\[1\]: .* got 0.5"),
    (Tensor([1.0, 0.0]), r"target\[1\]: .* got 0.0"), ([Value(1.0), Value(0.0)], r"target\[1\]: .* got 0.0"),
    ([1.0, Value(0.998)], r"target\[1\]: .* got 0.998"), ([1.0, math.nan], r"target\[1\]: .* got nan"),
    (np.array([True, False]), r"target\[1\]: .* got 0.0"), ([-1, -1.0000001], r"target\[1\]: .* got -1.0000001"),
    ([[Value(1.0)], [0.0]], r"target\[1, 0\]: .* got 0.0"), (np.array([1, Value(-3.0)]), r"target\[1\]: .* got -3.0"),
], ids=repr)
@pytest.mark.parametrize("fused", [True, False])
def test_hinge_names_the_label_that_is_none(target, place, fused):
    scores = [Value(0.5), Value(-0.5)]
    with contextlib.nullcontext() if fused else flatgrad.scalar_graph():
        with pytest.raises(DataError, match=place):
            losses.hinge(scores, target)
        with pytest.raises(DataError, match=place):
            losses.HingeLoss("none")(scores, target)


def test_hinge_takes_signs_of_every_kind():
    scores = [Value(0.5), Value(-0.5)]
    for target in ([1, -1], [1.0, -1.0], np.array([1, -1], np.int8), Tensor([1.0, -1.0]), [Value(1.0), -1],
                   Tensor([1.0, -1.0], requires_grad=False), [[1], [-1]], [Value(1.0000001), Value(-0.9999)]):
        assert losses.hinge(scores, target).data == pytest.approx(0.5, rel=1e-3)
    assert losses.hinge(scores[0], 1).data == 0.5
    assert losses.hinge(Tensor([[0.5, -0.5]]).T[:, 0], Tensor([[1.0, -1.0]], requires_grad=False).T).data == 0.5
    with pytest.raises(DataError, match="target: expected -1 or 1, got 0.0"):
        losses.hinge(scores[0], 0)


def test_an_error_about_targets_in_a_transform_names_them():
    with pytest.raises(DataError, match=r"target\[0\]"):
        flatgrad.grad(lambda x: losses.hinge([0.5, 0.5], [x, 1.0]))(0.5)
    with pytest.raises(DataError, match=r"probability\[1\]"):
        flatgrad.grad(lambda x: losses.binary_cross_entropy([0.5, x], [0.0, 1.0]))(1.5)
