"""Every loss against PyTorch in float64: values and the gradients of both operands, random and extreme."""
import math
import random

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, losses

torch = pytest.importorskip("torch")
torch.set_num_threads(1)   # small problems
F = torch.nn.functional

INF, NAN = math.inf, math.nan
REDUCTIONS = ("mean", "sum", "none")

pytestmark = [pytest.mark.usefixtures("nothing_left_behind"),
              pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss:UserWarning")]


def their_hinge(score, target, reduction):
    """They have no such function; the operations are theirs."""
    loss = torch.relu(1 - target * score)
    return {"mean": loss.mean, "sum": loss.sum, "none": lambda: loss}[reduction]()


def smooth(f, **options):
    return lambda *operands, reduction: f(*operands, reduction=reduction, **options)


# name: (ours, theirs, the range of predictions, the range of targets, points)
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, 1e-200, 1000.0, -1000.0, 40.0, -40.0, 1e160, 1e308, INF, -INF, NAN]
UNIT = [0.0, 1.0, 0.5, 1e-300, 5e-324, 1e-50, 1e-13, 1 - 1e-16, 1 - 1e-13, 0.25]
LOGS = [0.0, -1.0, -0.25, -1000.0, -745.0, -1e300, 2.0, -INF, NAN]
PAIRS = {
    "mse": (losses.mse, F.mse_loss, (-3, 3), (-3, 3), SPECIAL, SPECIAL),
    "mae": (losses.mae, F.l1_loss, (-3, 3), (-3, 3), SPECIAL, SPECIAL),
    "huber": (losses.huber, F.huber_loss, (-3, 3), (-3, 3), SPECIAL, SPECIAL),
    "huber 0.3": (smooth(losses.huber, delta=0.3), smooth(F.huber_loss, delta=0.3), (-3, 3), (-3, 3), SPECIAL, SPECIAL),
    "huber 1e6": (smooth(losses.huber, delta=1e6), smooth(F.huber_loss, delta=1e6), (-3, 3), (-3, 3), SPECIAL, SPECIAL),
    "hinge": (losses.hinge, their_hinge, (-3, 3), (-1, 1), [x for x in SPECIAL if math.isfinite(x)], [-1.0, 1.0]),
    "binary_cross_entropy": (losses.binary_cross_entropy, F.binary_cross_entropy, (0, 1), (0, 1), UNIT, UNIT),
    "bce_with_logits": (losses.bce_with_logits, F.binary_cross_entropy_with_logits, (-9, 9), (0, 1), SPECIAL, UNIT),
    "bce_with_logits 2.5": (
        smooth(losses.bce_with_logits, pos_weight=2.5),
        smooth(F.binary_cross_entropy_with_logits, pos_weight=torch.tensor(2.5)), (-9, 9), (0, 1), SPECIAL, UNIT),
    "bce_with_logits 0": (
        smooth(losses.bce_with_logits, pos_weight=0.0),
        smooth(F.binary_cross_entropy_with_logits, pos_weight=torch.tensor(0.0)), (-9, 9), (0, 1), SPECIAL, UNIT),
    "kl_div": (losses.kl_div, F.kl_div, (-5, 0), (0.01, 1), LOGS, [*UNIT, 2.0, NAN]),
    "kl_div of logarithms": (smooth(losses.kl_div, log_target=True), smooth(F.kl_div, log_target=True),
                             (-5, 0), (-5, 0), LOGS, LOGS),
}


def values_of(x):
    return [values_of(row) for row in x] if np.ndim(x) else Value(x)


def gradient_of(x):
    if isinstance(x, Tensor):
        return x.grad
    return np.vectorize(lambda v: v.grad, otypes=[float])(np.array(x, dtype=object))


def assert_same(got, expected, absolute=1e-15):
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    assert np.allclose(got, expected, rtol=1e-10, atol=absolute, equal_nan=True), (got, expected)


def data_of(loss):
    return loss.data if isinstance(loss, (Value, Tensor)) else loss


def compare(ours, theirs, prediction, target, reduction="mean", make=Tensor, number=False):
    """AssertionError if values or gradients differ; number: the target is an array, and gets none."""
    x, y = make(prediction), target if number else make(target)
    a, b = torch.tensor(prediction, requires_grad=True), torch.tensor(target, requires_grad=not number)
    loss, their_loss = ours(x, y, reduction=reduction), theirs(a, b, reduction=reduction)
    assert np.shape(data_of(loss)) == their_loss.shape
    # Different weights for the losses of 'none', so that none takes another's place.
    weights = np.cos(np.arange(their_loss.numel())).reshape(their_loss.shape) + 0.1
    total = (loss * weights).sum() if isinstance(loss, Tensor) else loss * float(weights)
    total.backward()
    (their_loss * torch.tensor(weights)).sum().backward()
    assert_same(data_of(loss), their_loss, 1e-13)
    assert_same(gradient_of(x), a.grad)
    if not number:
        assert_same(gradient_of(y), b.grad)


def random_pair(name, shape, seed):
    rng = np.random.RandomState(seed)
    (low, high), (least, most) = PAIRS[name][2:4]
    target = rng.uniform(least, most, shape)
    return rng.uniform(low, high, shape), np.where(target < 0, -1.0, 1.0) if name == "hinge" else target


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (1, 1), (5, 1), (1, 5), (9, 4)])
def test_pairs(name, reduction, shape):
    for seed in range(2):
        prediction, target = random_pair(name, shape, seed)
        for make in (Tensor, values_of) if shape else (values_of,):
            for number in True, False:
                compare(*PAIRS[name][:2], np.array(prediction), np.array(target), reduction, make, number)


@pytest.mark.parametrize("name", PAIRS)
def test_extreme_pairs(name):
    """Every combination, one by one and beside each other."""
    ours, theirs, _, _, xs, ys = PAIRS[name]
    points = np.array([(x, y) for x in xs for y in ys])
    if name == "kl_div":   # their x / x is rounded where x times the gradient from above is a subnormal number
        points = points[(points[:, 1] == 0) | ~(np.abs(points[:, 1]) < 2.3e-308)]
    if name.startswith("bce_with_logits"):
        # At -inf their value is nan, see test_losses.py; and (1 - y) * x - log_sigmoid(x) is rounded as x is.
        points = points[(points[:, 0] != -INF) & ~((points[:, 0] == -1000) & (points[:, 1] == 1e-13))]
    for x, y in points:
        compare(ours, theirs, np.array([x]), np.array([y]), "sum")
    compare(ours, theirs, points[:, 0].copy(), points[:, 1].copy(), "none")


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_pos_weight_of_each_column(reduction):
    weight = np.array([0.5, 1.0, 4.0])
    ours = smooth(losses.bce_with_logits, pos_weight=weight)
    theirs = smooth(F.binary_cross_entropy_with_logits, pos_weight=torch.tensor(weight))
    for shape in (3,), (5, 3), (1, 3):
        for make in Tensor, values_of:
            compare(ours, theirs, *random_pair("bce_with_logits", shape, 1), reduction, make)


@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("shape", [(4,), (5, 3), (5, 1)])
def test_batchmean(log_target, shape):
    prediction, target = random_pair("kl_div of logarithms" if log_target else "kl_div", shape, 2)
    for make in Tensor, values_of:
        compare(smooth(losses.kl_div, log_target=log_target), smooth(F.kl_div, log_target=log_target),
                prediction, target, "batchmean", make)


# ---- of labels ----

def compare_labels(ours, theirs, x, labels, make=Tensor, **options):
    ours_x, theirs_x = make(x), torch.tensor(x, requires_grad=True)
    their_options = dict(options)
    if "weight" in options:
        their_options["weight"] = torch.tensor(options["weight"])
    loss, their_loss = ours(ours_x, labels, **options), theirs(theirs_x, torch.as_tensor(labels), **their_options)
    assert np.shape(data_of(loss)) == their_loss.shape
    weights = np.cos(np.arange(their_loss.numel())).reshape(their_loss.shape) + 0.1
    ((loss * weights).sum() if isinstance(loss, Tensor) else loss * float(weights)).backward()
    (their_loss * torch.tensor(weights)).sum().backward()
    assert_same(data_of(loss), their_loss, 1e-13)
    assert_same(gradient_of(ours_x), theirs_x.grad)


OPTIONS = [{}, {"weight": True}, {"ignore_index": 1}, {"ignore_index": -100}, {"weight": True, "ignore_index": 0}]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("n_samples, n_classes", [(1, 2), (5, 2), (7, 4)])
def test_cross_entropy_and_nll(reduction, options, label_smoothing, n_samples, n_classes):
    rng = np.random.RandomState(n_classes)
    options = dict(options)
    if "weight" in options:
        options["weight"] = rng.uniform(0.1, 2, n_classes)
    for spread in 1.0, 300.0, 1e5:
        x = rng.normal(scale=spread, size=(n_samples, n_classes))
        labels = rng.randint(n_classes, size=n_samples)
        labels[0] = n_classes - 1 if n_classes > 2 or options.get("ignore_index") == 0 else 0   # one counts
        if options.get("ignore_index") == -100:
            labels[1:][::2] = -100
        for make in (Tensor, values_of) if spread == 1.0 else (Tensor,):
            compare_labels(losses.cross_entropy, F.cross_entropy, x, labels, make, reduction=reduction,
                           label_smoothing=label_smoothing, **options)
            compare_labels(losses.cross_entropy, F.cross_entropy, x[0], labels[0], make, reduction=reduction,
                           label_smoothing=label_smoothing, **options)
            if not label_smoothing:
                compare_labels(losses.nll, F.nll_loss, x, labels, make, reduction=reduction, **options)
                compare_labels(losses.nll, F.nll_loss, x[0], labels[0], make, reduction=reduction, **options)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("logits", [
    [1000.0, -1000.0], [-1000.0, 1000.0], [1000.0, 1000.0], [-1000.0, -1000.0], [0.0, -INF], [-INF, 0.0],
    [1e308, -1e308], [NAN, 0.0], [-INF, -INF], [0.0, -745.0], [745.0, 0.0], [0.0, INF], [-INF, INF],
])
def test_extreme_logits(logits, reduction):
    for label in 0, 1:
        for x, y in (np.array(logits), np.int64(label)), (np.array([[0.5, -0.5], logits]), np.array([1, label])):
            for smoothing in (0.0, 0.2) if np.isfinite(logits).all() else (0.0,):
                compare_labels(losses.cross_entropy, F.cross_entropy, x, y, reduction=reduction,
                               label_smoothing=smoothing)
            compare_labels(losses.nll, F.nll_loss, x, y, reduction=reduction)


# ---- classes, penalties, and whether a difference is noticed ----

@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_classes_have_their_names_and_options(reduction):
    rng = np.random.RandomState(3)
    weight, nn = rng.uniform(0.5, 2, 4), torch.nn
    x, y = rng.normal(size=(6, 4)), rng.uniform(0.1, 0.9, size=(6, 4))
    p = 1 / (1 + np.exp(-x))
    for name, options, prediction, target in (
            ("MSELoss", {}, x, y), ("L1Loss", {}, x, y), ("HuberLoss", {"delta": 0.4}, x, y), ("BCELoss", {}, p, y),
            ("BCEWithLogitsLoss", {"pos_weight": weight}, x, y), ("KLDivLoss", {"log_target": True}, x, y),
            ("KLDivLoss", {}, x, y)):
        theirs = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        compare(lambda a, b, reduction: getattr(losses, name)(reduction=reduction, **options)(a, b),
                lambda a, b, reduction: getattr(nn, name)(reduction=reduction, **theirs)(a, b),
                prediction, target, reduction)
    labels = rng.randint(4, size=6)
    for name, options in (("CrossEntropyLoss", {"label_smoothing": 0.1, "ignore_index": 2}), ("NLLLoss", {})):
        compare_labels(
            lambda a, b, weight: getattr(losses, name)(weight=weight, reduction=reduction, **options)(a, b),
            lambda a, b, weight: getattr(nn, name)(weight=weight, reduction=reduction, **options)(a, b),
            x, labels, weight=weight)


def test_penalties():
    rng = np.random.RandomState(4)
    w, b, values = rng.normal(size=(3, 4)), np.array([0.0, -0.0, 1.0]), rng.normal(size=5)
    for ours, theirs in (losses.l1, lambda t: t.abs().sum()), (losses.l2, lambda t: (t**2).sum()):
        mine = [Tensor(w), Tensor(b), *values_of(values)]
        them = [torch.tensor(x, requires_grad=True) for x in (w, b, values)]
        penalty, their_penalty = ours(mine), theirs(torch.cat([t.flatten() for t in them]))
        penalty.backward()
        their_penalty.backward()
        assert_same(penalty.data, their_penalty, 0)
        for got, expected in zip((mine[0].grad, mine[1].grad, gradient_of(mine[2:])), them, strict=True):
            assert_same(got, expected.grad, 0)


def test_an_mlp_trains_as_theirs():
    """Twenty steps of gradient descent on a layer, by each loss of scores of any size."""
    rng = np.random.RandomState(5)
    X, y = rng.normal(size=(20, 3)), rng.uniform(size=(20, 2)).round()
    for name in "mse", "mae", "huber", "bce_with_logits":
        W, b = rng.normal(size=(2, 3)), np.zeros(2)
        ours, theirs = [Tensor(W), Tensor(b)], [torch.tensor(x, requires_grad=True) for x in (W, b)]
        for _ in range(20):
            losses.LOSSES[name](flatgrad.linear(X, *ours), y).backward()
            PAIRS[name][1](F.linear(torch.tensor(X), *theirs), torch.tensor(y)).backward()
            for mine, them in zip(ours, theirs):
                mine.data = mine.data - 0.1 * mine.grad
                mine.grad = 0.0
                with torch.no_grad():
                    them -= 0.1 * them.grad
                them.grad = None
        assert_same(ours[0].data, theirs[0])


@pytest.mark.parametrize("name", PAIRS)
def test_a_difference_is_noticed(name):
    """Of 0.1 % in the gradient of one operand alone."""
    ours, theirs, *_ = PAIRS[name]
    prediction, target = random_pair(name, (4, 3), 1)
    compare(ours, theirs, prediction, target)

    class Off(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, grad):
            return grad * 1.001
    for operand in range(2):
        with pytest.raises(AssertionError):
            compare(ours, lambda *operands, reduction: theirs(
                *[Off.apply(x) if k == operand else x for k, x in enumerate(operands)], reduction=reduction),
                prediction, target)


def test_random_options_at_random():
    """The combination of options that none of the tests above has thought of."""
    rng = random.Random(6)
    for seed in range(60):
        numbers = np.random.RandomState(seed)
        n, c = rng.randint(2, 9), rng.randint(2, 6)
        labels = numbers.randint(c, size=n)
        options = {"reduction": rng.choice(REDUCTIONS), "label_smoothing": rng.choice([0.0, 0.0, rng.random()])}
        if rng.random() < 0.5:
            options["weight"] = numbers.uniform(0.1, 3, c)
        if rng.random() < 0.5:
            options["ignore_index"] = int(rng.choice([int(labels[1]), -1, -100]))
            labels[0] = (labels[1] + 1) % c
            if options["ignore_index"] < 0:
                labels[-1] = options["ignore_index"]
        compare_labels(losses.cross_entropy, F.cross_entropy, numbers.normal(scale=5, size=(n, c)), labels,
                       rng.choice([Tensor, values_of]), **options)
