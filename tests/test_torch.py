"""Every operation against PyTorch's float64 scalars: values, gradients, kinks and edges. Then its
optimizers' trajectories and its losses.

PyTorch is what flatgrad follows where micrograd and Python have no say. Where they do, the two tables
RAISES and DIFFERS below say how and why the results are not PyTorch's, and the tests hold us to them
in both directions.
"""
import itertools
import math
import operator
import random
from types import SimpleNamespace

import numpy as np
import pytest

import flatgrad
import reference
from flatgrad import Tensor, Value
from flatgrad.losses import cross_entropy, hinge, mse
from flatgrad.optim import SGD, Adam
from reference import ulps

torch = pytest.importorskip("torch")

INF, NAN = math.inf, math.nan

# The operation on flatgrad's Values, and on PyTorch's tensors.
OPERATIONS = {
    "neg": (operator.neg, operator.neg),
    "relu": (flatgrad.relu, torch.relu),
    "tanh": (flatgrad.tanh, torch.tanh),
    "sigmoid": (flatgrad.sigmoid, torch.sigmoid),
    "exp": (flatgrad.exp, torch.exp),
    "log": (flatgrad.log, torch.log),
    "log1p": (flatgrad.log1p, torch.log1p),
    "expm1": (flatgrad.expm1, torch.expm1),
    "sqrt": (flatgrad.sqrt, torch.sqrt),
    "sin": (flatgrad.sin, torch.sin),
    "cos": (flatgrad.cos, torch.cos),
    "tan": (flatgrad.tan, torch.tan),
    "sinh": (flatgrad.sinh, torch.sinh),
    "cosh": (flatgrad.cosh, torch.cosh),
    "erf": (flatgrad.erf, torch.erf),
    "floor": (flatgrad.floor, torch.floor),
    "abs": (flatgrad.abs, torch.abs),
    "gelu": (flatgrad.gelu, torch.nn.functional.gelu),
    "gelu_tanh": (flatgrad.gelu_tanh, lambda x: torch.nn.functional.gelu(x, approximate="tanh")),
    "silu": (flatgrad.silu, torch.nn.functional.silu),
    # Its default is the identity above 20, which is off by up to 2e-9 there.
    "softplus": (flatgrad.softplus, lambda x: torch.nn.functional.softplus(x, threshold=500.0)),
    "leaky_relu": (flatgrad.leaky_relu, torch.nn.functional.leaky_relu),
    **{f"leaky_relu, {a}": (lambda x, a=a: flatgrad.leaky_relu(x, a),
                            lambda x, a=a: torch.nn.functional.leaky_relu(x, a)) for a in (0.2, 1.0)},
    "elu": (flatgrad.elu, torch.nn.functional.elu),
    "elu, 0.5": (lambda x: flatgrad.elu(x, 0.5), lambda x: torch.nn.functional.elu(x, 0.5)),
    "+": (operator.add, operator.add),
    "-": (operator.sub, operator.sub),
    "*": (operator.mul, operator.mul),
    "/": (operator.truediv, operator.truediv),
    "**": (operator.pow, operator.pow),
    "maximum": (flatgrad.maximum, torch.maximum),
    "minimum": (flatgrad.minimum, torch.minimum),
    "atan2": (flatgrad.atan2, torch.atan2),
    "where": (flatgrad.where, lambda condition, x, y: torch.where(condition != 0, x, y)),
    "clip": (flatgrad.clip, torch.clamp),
}
ARITY = {name: 1 for name in OPERATIONS} | reference.ARITY | {"atan2": 2}


def add_power(k):
    """x**k and k**x for a constant k, which are operations of their own in both."""
    OPERATIONS[f"x**{k}"] = (lambda x: x**k,) * 2
    OPERATIONS[f"{k}**x"] = (lambda x: k**x,) * 2
    ARITY[f"x**{k}"] = ARITY[f"{k}**x"] = 1


EXPONENTS = [0, 1, 2, 3, -1, -2, 7, 0.0, 2.0, 0.5, -0.5, 1.5, 2.5, INF, -INF, NAN, 1e300]
for _k in EXPONENTS:
    add_power(_k)

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 3.0, -3.0, 2.5, 0.3, 1e-200, 1e200, -1e200, 5e-324, 1e308,
           709.0, 710.0, -700.0, -750.0, 40.0, -40.0, INF, -INF, NAN]
FEWER = [0.0, -0.0, 1.0, -1.0, 2.5, INF, -INF, NAN]   # for three operands
UPSTREAM = [1.0, -2.5, 0.0, INF, NAN]                 # the gradient that arrives from above


def special_points(op):
    return itertools.product(SPECIAL if ARITY[op] < 3 else FEWER, repeat=ARITY[op])


def is_finite(*x):
    return all(math.isfinite(a) for a in x)


def power_raises(x, y):
    try:
        reference.power(float(x), float(y))
    except (ArithmeticError, ValueError):
        return True
    return False


# Where Python's floats and `math` raise, as micrograd does with them, so do we; PyTorch goes on with
# inf or nan.
RAISES = {
    "exp": lambda x: is_finite(x) and x > 709.79,
    "log": lambda x: x <= 0.0,
    "log1p": lambda x: x <= -1.0,
    "sqrt": lambda x: x < 0.0,
    "expm1": lambda x: is_finite(x) and x > 709.79,
    "sinh": lambda x: is_finite(x) and abs(x) > 710.48,
    "cosh": lambda x: is_finite(x) and abs(x) > 710.48,
    "tan": math.isinf,
    "sin": math.isinf,
    "cos": math.isinf,
    "/": lambda x, y: y == 0.0,
    "**": power_raises,
}
RAISES |= {f"x**{k}": lambda x, k=k: power_raises(x, k) for k in EXPONENTS}
RAISES |= {f"{k}**x": lambda x, k=k: power_raises(k, x) for k in EXPONENTS}

# Where we differ for a reason: the operation, a condition on the operands (x) and on the gradient from
# above (d), and the reason.
DIFFERS = [
    ("relu", lambda x, d: math.isnan(x[0]) and d != 0.0 and not math.isnan(d),
     "micrograd's derivative asks whether the result is > 0, which nan is not; PyTorch's is 1"),
    ("relu", lambda x, d: x[0] <= 0.0 and not is_finite(d),
     "micrograd multiplies the gradient by 0 or 1, and 0 * inf is nan; PyTorch selects"),
    *[(op, lambda x, d: math.isnan(x[0]) and not math.isnan(d),
       "a nan has a nan for a derivative; PyTorch's is 1") for op in ("elu", "elu, 0.5")],
    *[(f"x**{k}", lambda x, d: not is_finite(d),
       "micrograd multiplies the gradient by 0, and 0 * inf is nan; PyTorch selects") for k in (0, 0.0)],
    ("**", lambda x, d: x[1] == 0.0 and not is_finite(d), "as x**0"),
    ("x**0.5", lambda x, d: x[0] == 0.0 and math.copysign(1, x[0]) < 0,
     "(-0.0)**0.5 is 0.0 in Python; PyTorch takes the square root, -0.0"),
    ("x**0.5", lambda x, d: x[0] == -INF, "(-inf)**0.5 is inf in Python; PyTorch takes the square root, nan"),
    ("x**-0.5", lambda x, d: x[0] == -INF, "(-inf)**-0.5 is 0.0 in Python; PyTorch takes the square root"),
    ("atan2", lambda x, d: 0 < max(map(abs, x)) < 1e-160 or any([1e160 < abs(a) < INF for a in x]),
     "PyTorch's squares are 0 or inf, and its derivatives 0; ours are those of the angle"),
    ("atan2", lambda x, d: math.isinf(d) and 5e-324 in map(abs, x),
     "the derivative is rounded to 0, and 0 * inf is nan; PyTorch multiplies by inf first"),
    ("x**1.5", lambda x, d: x[0] == -INF and d != 0.0 and not math.isnan(d),
     "its slope is 1.5 * x**0.5, with x**0.5 as above"),
]
def why(op, x, d):
    return [reason for name, condition, reason in DIFFERS if name == op and condition(x, d)]


def tensor(x):
    return torch.tensor(float(x), dtype=torch.float64, requires_grad=True)


def ours(op, x, d):
    values = [Value(a) for a in x]
    z = OPERATIONS[op][0](*values)
    (z * d).backward()
    return z.data, [v.grad for v in values]


def theirs(op, x, d):
    tensors = [tensor(a) for a in x]
    z = OPERATIONS[op][1](*tensors)
    (z * d).backward()
    return z.item(), [0.0 if t.grad is None else t.grad.item() for t in tensors]


def same_value(op, x, y):
    """Within two steps of float64; zeros have the same sign. PyTorch's gelu, x * (1 + erf(...)) / 2 or
    x * (1 + tanh(...)) / 2, has lost as much below 0 as it has been rounded at 1."""
    return op in ("gelu", "gelu_tanh") and abs(x - y) <= 1e-15 or ulps(x, y) <= 2 and (x != 0 or y != 0 or math.copysign(1, x) == math.copysign(1, y))


def same_gradient(op, x, y, d):
    """To 1e-12; more loosely only where both compute 1 - z with a z next to 1."""
    if math.isnan(x) or math.isnan(y) or math.isinf(x) or math.isinf(y):
        return ulps(x, y) == 0
    rounding = 1e-15 * abs(d) if op in ("tanh", "sigmoid", "gelu", "gelu_tanh") and is_finite(d) else 1e-322
    return abs(x - y) <= 1e-12 * abs(y) + rounding


def is_same(op, got, expected, d):
    return same_value(op, got[0], expected[0]) and all(
        [same_gradient(op, a, b, d) for a, b in zip(got[1], expected[1], strict=True)])


def test_every_operation_is_here():
    assert set(reference.ARITY) <= set(OPERATIONS)
    names = {row["name"] for row in flatgrad._core._operations() if row["public"]}
    assert names <= set(OPERATIONS)


@pytest.mark.parametrize("op", OPERATIONS)
def test_ordinary_points(op):
    rng = random.Random(op)
    checked = 0
    for _ in range(200):
        x = [rng.choice([rng.uniform(-3, 3), rng.uniform(0.1, 5), float(rng.randint(-3, 3))])
             for _ in range(ARITY[op])]
        d = rng.uniform(-2, 2)
        if op in RAISES and RAISES[op](*x):
            continue
        got, expected = ours(op, x, d), theirs(op, x, d)
        assert is_same(op, got, expected, d), (op, x, d, got, expected)
        checked += 1
    assert checked >= 50


@pytest.mark.parametrize("op", OPERATIONS)
def test_special_points(op):
    """Kinks, domain edges, signed zeros, ties, infinities and nan; and such gradients from above."""
    for x in special_points(op):
        for d in UPSTREAM:
            expected = theirs(op, x, d)
            if op in RAISES and RAISES[op](*x):
                with pytest.raises((ArithmeticError, ValueError)):
                    ours(op, x, d)
                assert not math.isfinite(expected[0]), (op, x, expected)   # no result of theirs is lost
                continue
            got = ours(op, x, d)   # never an error
            if why(op, x, d):
                continue
            assert is_same(op, got, expected, d), (op, x, d, got, expected)


@pytest.mark.parametrize("op, condition, reason", DIFFERS)
def test_differences_are_real(op, condition, reason):
    """Each reason in the table is needed."""
    points = [(x, d) for x in special_points(op) for d in UPSTREAM
              if condition(x, d) and not RAISES.get(op, lambda *x: False)(*x)]
    assert any(not is_same(op, ours(op, x, d), theirs(op, x, d), d) for x, d in points)


def test_abs_of_nan():
    for d in UPSTREAM:
        assert is_same("abs", ours("abs", [NAN], d), theirs("abs", [NAN], d), d)


@pytest.mark.parametrize("op, x, value, grads", [
    ("relu", [0.0], 0.0, [0.0]), ("relu", [-0.0], -0.0, [0.0]), ("abs", [0.0], 0.0, [0.0]),
    ("maximum", [2.0, 2.0], 2.0, [0.5, 0.5]), ("minimum", [2.0, 2.0], 2.0, [0.5, 0.5]),
    ("maximum", [NAN, 1.0], NAN, [1.0, 1.0]), ("minimum", [1.0, NAN], NAN, [1.0, 1.0]),
    ("clip", [1.0, 1.0, 2.0], 1.0, [1.0, 0.0, 0.0]), ("clip", [2.0, 1.0, 2.0], 2.0, [1.0, 0.0, 0.0]),
    ("clip", [0.0, 1.0, 1.0], 1.0, [0.0, 0.0, 0.0]), ("clip", [0.0, 2.0, 1.0], 1.0, [0.0, 0.0, 1.0]),
    ("sqrt", [0.0], 0.0, [INF]), ("x**0.5", [0.0], 0.0, [INF]), ("x**0", [0.0], 1.0, [0.0]),
    ("**", [0.0, 0.0], 1.0, [0.0, 0.0]), ("**", [0.0, 2.0], 0.0, [0.0, 0.0]),
    ("**", [0.0, 0.5], 0.0, [INF, 0.0]), ("**", [-2.0, 2.0], 4.0, [-4.0, NAN]),
    ("where", [NAN, 1.0, 2.0], 1.0, [0.0, 1.0, 0.0]), ("where", [-0.0, 1.0, 2.0], 2.0, [0.0, 0.0, 1.0]),
])
def test_edges_by_hand(op, x, value, grads):
    """The edges that documentation promises, spelt out; PyTorch agrees."""
    for side in (ours, theirs):
        got = side(op, x, 1.0)
        assert is_same(op, got, (value, grads), 1.0), (side, got)


# ---- random expressions ----

def as_tensor(x):
    return x if isinstance(x, torch.Tensor) else tensor(x)


TORCH = SimpleNamespace(
    Value=tensor,
    maximum=lambda x, y: torch.maximum(as_tensor(x), as_tensor(y)),
    minimum=lambda x, y: torch.minimum(as_tensor(x), as_tensor(y)),
    where=lambda c, x, y: torch.where(as_tensor(c) != 0, as_tensor(x), as_tensor(y)),
    clip=lambda x, lo, hi: torch.clamp(as_tensor(x), as_tensor(lo), as_tensor(hi)),
)


def compare(expression, sizes, engine=flatgrad):
    """Run an expression on both; AssertionError if values or gradients differ.

    Each goes on with its own rounded results, so a difference in one operation reaches those after
    it: the bound is looser than that of one operation.

    Returns
    -------
    close, count : int
        How many gradients are within 1e-12, of how many.
    """
    got, expected = expression.run(engine), expression.run(TORCH)
    for t in expected:
        t.retain_grad()
    for nodes in (got, expected, sizes):
        nodes[-1].backward()
    close = 0
    for v, t, r in zip(got, expected, sizes, strict=True):
        grad = 0.0 if t.grad is None else t.grad.item()
        assert v.data == pytest.approx(t.item(), rel=1e-10, abs=1e-10)
        assert abs(v.grad - grad) <= 1e-10 * r.size, (v, grad, r.size)
        close += abs(v.grad - grad) <= 1e-12 * abs(grad)
    return close, len(sizes)


def expressions(seed, count):
    rng = random.Random(seed)
    for _ in range(count):
        yield reference.random_expression(rng, list(reference.ARITY), bound=1e3, exponent_values=True)


def test_random_expressions():
    results = [compare(expression, sizes) for expression, sizes in expressions(1, 1000)]
    assert sum(close for close, _ in results) > 0.99 * sum(count for _, count in results)


@pytest.mark.parametrize("op", reference.ARITY)
def test_a_wrong_derivative_is_caught(op):
    """The comparison, run on an engine with one derivative 0.1 % off."""
    forward, partials = reference.RULES[op]
    rules = {**reference.RULES, op: (forward, lambda *x: [p * 1.001 for p in partials(*x)])}
    Wrong = type("Wrong", (reference.Value,), {"rules": rules, "__slots__": ()})
    engine = SimpleNamespace(Value=Wrong, **{
        name: lambda *x, name=name: Wrong.apply(name, *x)
        for name in ("maximum", "minimum", "where", "clip")})
    with pytest.raises(AssertionError):
        for expression, sizes in expressions(2, 200):
            compare(expression, sizes, engine)


# ---- optimizers ----

TRAJECTORIES = [
    (SGD, {}), (SGD, {"lr": 0.05}), (SGD, {"lr": 0.05, "weight_decay": 0.1}), (SGD, {"lr": 0.02, "momentum": 0.9}),
    (SGD, {"lr": 0.02, "momentum": 0.9, "dampening": 0.5}), (SGD, {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": 0.02, "momentum": 0.8, "dampening": 0.25, "weight_decay": 0.3}),
    (SGD, {"lr": 0.02, "momentum": 0.8, "weight_decay": 0.3, "nesterov": True}), (SGD, {"lr": 0.02, "dampening": 0.5}),
    (Adam, {}), (Adam, {"lr": 0.05}), (Adam, {"lr": 0.05, "amsgrad": True}),
    # Not smaller betas without amsgrad: their dance around the minimum is chaotic, and a difference in
    # the last bit grows tenfold in ten steps.
    (Adam, {"lr": 0.05, "betas": (0.9, 0.8)}),
    (Adam, {"lr": 0.05, "eps": 0.1, "weight_decay": 0.1}), (Adam, {"lr": 0.1, "betas": (0.0, 0.0)}),
    (Adam, {"lr": 0.05, "betas": (0.8, 0.6), "weight_decay": 0.2, "amsgrad": True}),
]


def follow(make, case, their_case, schedule=lambda t, lr: lr):
    """100 steps down the same bumpy bowl, from single Values and a Tensor; AssertionError where they part."""
    rng = np.random.RandomState(7)
    start, weights = rng.uniform(-2, 2, 11), rng.uniform(0.5, 2, 11)
    ours = [*[Value(x) for x in start[:5]], Tensor(start[5:].reshape(2, 3))]
    x = torch.tensor(start, requires_grad=True)
    optimizer, theirs = make(ours, **case), getattr(torch.optim, make.__name__)([x], **their_case)
    lr, their_lr = optimizer.lr, theirs.param_groups[0]["lr"]
    for t in range(100):
        optimizer.lr, theirs.param_groups[0]["lr"] = schedule(t, lr), schedule(t, their_lr)
        optimizer.zero_grad()
        theirs.zero_grad()
        values = [*ours[:5], *ours[5][0], *ours[5][1]]
        terms = [w * (v - 0.5) ** 2 + (v * 3.0).sin() * 0.5 for w, v in zip(weights.tolist(), values)]
        loss = sum(terms[1:], terms[0])
        loss.backward()
        their_loss = (torch.tensor(weights) * (x - 0.5) ** 2 + (x * 3.0).sin() * 0.5).sum()
        their_loss.backward()
        optimizer.step()
        theirs.step()
        data = np.concatenate([[v.data for v in ours[:5]], ours[5].data.ravel()])
        assert loss.data == pytest.approx(their_loss.item(), rel=1e-9)
        assert np.allclose(data, x.detach().numpy(), rtol=1e-9, atol=1e-12), (t, data, x)


@pytest.mark.parametrize("make, case", TRAJECTORIES)
def test_trajectories(make, case):
    follow(make, case, case)
    follow(make, case, case, schedule=lambda t, lr: lr * 0.97**t)


@pytest.mark.parametrize("make, case, other", [
    (SGD, {"lr": 0.05}, {"lr": 0.0501}), (SGD, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}),
    (SGD, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 1e-4}), (SGD, {}, {"weight_decay": 1e-4}),
    (Adam, {"lr": 0.1, "betas": (0.5, 0.5)}, {"lr": 0.1, "betas": (0.5, 0.5), "amsgrad": True}),
    (Adam, {}, {"eps": 1e-7}), (Adam, {}, {"betas": (0.9, 0.9999)}), (Adam, {}, {"weight_decay": 1e-4}),
])
def test_another_trajectory_is_caught(make, case, other):
    with pytest.raises(AssertionError):
        follow(make, case, other)


@pytest.mark.parametrize("make", [SGD, Adam])
def test_arguments_have_their_order_and_defaults(make):
    theirs = getattr(torch.optim, make.__name__)([tensor(1.0)]).param_groups[0]
    ours = make([Value(1.0)]).param_groups[0]
    assert list(ours) == [name for name in theirs if name in ours]
    assert {k: v for k, v in ours.items() if k != "params"} == {k: theirs[k] for k in ours if k != "params"}


@pytest.mark.parametrize("make, case", [
    *[(make, case) for make in (SGD, Adam) for case in ({"lr": -0.1}, {"lr": NAN}, {"weight_decay": -1e-9})],
    (SGD, {"momentum": -0.1}), (SGD, {"nesterov": True}), (SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
    *[(Adam, {"betas": betas}) for betas in ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9))], (Adam, {"eps": -1e-8}),
])
def test_what_they_refuse_we_refuse(make, case):
    if "lr" not in case or case["lr"] == case["lr"] or make is Adam:   # their SGD takes nan
        with pytest.raises(ValueError):
            getattr(torch.optim, make.__name__)([tensor(1.0)], **case)
    with pytest.raises(ValueError):
        make([Value(1.0)], **case)


# ---- losses ----

F = torch.nn.functional
LOSSES = {
    "mse": (mse, F.mse_loss),
    # They have no function for it; the operations are theirs.
    "hinge": (hinge, lambda score, target: torch.relu(1 - target * score).mean()),
    "cross_entropy": (cross_entropy, F.cross_entropy),
}


def compare_losses(name, prediction, target, make=Tensor, scale=1.0):
    """AssertionError if values or gradients differ; `scale` is what the gradient comes multiplied by."""
    x, y = make(prediction), torch.tensor(prediction, requires_grad=True)
    loss, their_loss = LOSSES[name][0](x, target), LOSSES[name][1](y, torch.as_tensor(target))
    (loss * scale).backward()
    (their_loss * scale).backward()
    assert loss.data == pytest.approx(their_loss.item(), rel=1e-10, abs=1e-13, nan_ok=True)
    grad = x.grad if make is Tensor else np.vectorize(lambda v: v.grad)(np.array(x, dtype=object))
    assert np.allclose(grad, y.grad.numpy(), rtol=1e-10, atol=1e-15, equal_nan=True), (grad, y.grad)


def values(x):
    return [values(row) for row in x] if np.ndim(x) else Value(x)


@pytest.mark.parametrize("name", ["mse", "hinge"])
@pytest.mark.parametrize("shape", [(1,), (7,), (100,), (5, 1), (1, 5), (13, 9)])
@pytest.mark.parametrize("make", [Tensor, values])
def test_losses(name, shape, make):
    for seed in range(5):
        rng = np.random.RandomState(seed)
        target = np.where(rng.uniform(size=shape) < 0.5, -1.0, 1.0)
        compare_losses(name, rng.normal(scale=2, size=shape), target, make, scale=rng.normal())


@pytest.mark.parametrize("n_samples, n_classes", [(1, 1), (1, 2), (5, 2), (16, 10), (7, 33)])
@pytest.mark.parametrize("spread", [1.0, 10.0, 300.0, 1e5])
@pytest.mark.parametrize("make", [Tensor, values])
def test_cross_entropy(n_samples, n_classes, spread, make):
    for seed in range(5):
        rng = np.random.RandomState(seed)
        logits = rng.normal(scale=spread, size=(n_samples, n_classes))
        compare_losses("cross_entropy", logits, rng.randint(n_classes, size=n_samples), make, scale=rng.normal())
        compare_losses("cross_entropy", logits[0], rng.randint(n_classes), make)
        compare_losses("cross_entropy", rng.normal(size=n_classes) + spread * 1e3, rng.randint(n_classes), make)


@pytest.mark.parametrize("logits", [
    [1000.0, -1000.0], [-1000.0, 1000.0], [1000.0, 1000.0], [-1000.0, -1000.0], [0.0, -INF], [-INF, 0.0],
    [1e308, -1e308], [NAN, 0.0], [-INF, -INF], [0.0, -745.0], [745.0, 0.0], [0.0, INF], [-INF, INF],
])
def test_extreme_logits(logits):
    for label in (0, 1):
        compare_losses("cross_entropy", np.array(logits), label)
        compare_losses("cross_entropy", np.array([[0.5, -0.5], logits]), np.array([1, label]))


@pytest.mark.parametrize("prediction, target", [
    (NAN, 1.0), (1.0, NAN), (INF, 1.0), (-INF, 1.0), (1.0, INF), (INF, INF), (1e200, -1.0), (0.0, -0.0)])
def test_special_numbers_in_mse(prediction, target):
    compare_losses("mse", np.array([prediction, 0.5]), np.array([target, 1.0]))


def test_a_wrong_loss_is_caught(monkeypatch):
    rng = np.random.RandomState(1)
    x, y = rng.normal(size=(5, 3)), rng.randint(3, size=5)
    for name, target in (("mse", rng.normal(size=(5, 3))), ("hinge", np.sign(x)), ("cross_entropy", y)):
        compare_losses(name, x, target)
        loss_of, theirs = LOSSES[name]
        monkeypatch.setitem(LOSSES, name, (loss_of, lambda p, t, f=theirs: f(p * (1 + 1e-8), t)))
        with pytest.raises(AssertionError):
            compare_losses(name, x, target)
