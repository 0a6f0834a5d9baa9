"""The real micrograd and flatgrad, side by side.

micrograd is deterministic in its values, but not in the last digits of its gradients: it walks a set
of objects whose order follows their addresses, so a sum of three gradients may associate either way.
Gradients are therefore compared to 1e-12; values, where the arithmetic is the same, to the last bit.
It recurses once for each level of the graph, which limits the graphs here to a few hundred levels.
"""
import functools
import gc
import math
import operator
import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import flatgrad
import flatgrad.nn
import reference
from reference import random_expression, ulps

pytest.importorskip("micrograd")

import micrograd.engine  # noqa: E402
import micrograd.nn  # noqa: E402

MICROGRAD = SimpleNamespace(Value=micrograd.engine.Value)


# ---- its own test expressions ----

def sanity(Value):
    x = Value(-4.0)
    z = 2 * x + 2 + x
    q = z.relu() + z * x
    h = (z * z).relu()
    y = h + q + q * x
    y.backward()
    return y.data, x.grad


def readme(Value):
    a = Value(-4.0)
    b = Value(2.0)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    return g.data, a.grad, b.grad


def test_sanity_expression():
    assert sanity(flatgrad.Value) == sanity(micrograd.engine.Value) == (-20.0, 46.0)


def test_readme_expression():
    got = readme(flatgrad.Value)
    assert got == pytest.approx(readme(micrograd.engine.Value), rel=1e-15)
    assert [f"{x:.4f}" for x in got] == ["24.7041", "138.8338", "645.5773"]


# ---- random graphs ----

EXACT = ["+", "-", "*", "neg", "relu"]
ONE_NODE_EACH = ["+", "*", "neg", "relu", "**"]   # in both; micrograd's - and / are two


def assert_same_result(op, theirs, ours, is_float):
    """The values of one operation on the same operands.

    `is_float`: whether all of micrograd's operands are floats. Where an int took part, as relu's 0
    does, micrograd's 0 has no sign.
    """
    if op not in EXACT:   # micrograd's a / b is a * b**-1, which rounds twice
        assert ulps(theirs, ours) <= 1, (op, theirs, ours)
    else:
        assert theirs == ours, (op, theirs, ours)
        if is_float and ours == 0:
            assert math.copysign(1, theirs) == math.copysign(1, ours), (op, theirs, ours)


class Gradients:
    """Compares gradients and counts those whose plain relative difference is small."""

    def __init__(self):
        self.count = self.close = 0

    def compare(self, theirs, ours, size):
        self.count += 1
        self.close += abs(theirs - ours) <= 1e-12 * abs(theirs)
        assert abs(theirs - ours) <= 1e-12 * size, (theirs, ours, size)


def forward_in_step(expression, engine):
    """The nodes of both packages, compared operation by operation.

    After a `/` or `**` micrograd goes on with our result, so that each operation is compared on the
    same operands and the difference of one does not grow in those after it.
    """
    theirs, ours = [], []
    floats = []   # whether micrograd has computed nothing but floats below the node
    for x in expression.leaves:
        theirs.append(MICROGRAD.Value(x))
        ours.append(engine.Value(x))
        floats.append(type(x) is float)
    for k, (op, operands) in enumerate(expression.steps):
        m = reference.apply(MICROGRAD, op, expression.operands(k, theirs))
        v = reference.apply(engine, op, expression.operands(k, ours))
        is_float = all([floats[x] if isinstance(x, int) else type(x[0]) is float for x in operands])
        assert_same_result(op, m.data, v.data, is_float)
        if op not in EXACT:
            m.data = v.data
        theirs.append(m)
        ours.append(v)
        floats.append(is_float and type(m.data) is float)
    return theirs, ours


def compare(expression, sizes, engine=flatgrad, gradients=None, passes=1, change=None):
    """Run an expression and its backward pass in micrograd and in `engine`; AssertionError if they
    differ.

    Parameters
    ----------
    sizes : list of reference.Value
        The expression's nodes in the reference engine, for the magnitude of the gradients.
    gradients : Gradients, optional
        What to count in.
    passes : int, optional
        How many backward passes in a row.
    change : callable, optional
        Gives each node new data between forward and backward, from its number and its old data.
    """
    gradients = gradients or Gradients()
    theirs, ours = forward_in_step(expression, engine)
    for k, (m, v, r) in enumerate(zip(theirs, ours, sizes, strict=True)):
        if change is not None:
            m.data = v.data = r.data = change(k, v.data)
    for _ in range(passes):
        theirs[-1].backward()
        ours[-1].backward()
        sizes[-1].backward()
    for m, v, r in zip(theirs, ours, sizes):
        gradients.compare(m.grad, v.grad, r.size)


def expressions(seed, count, ops, **options):
    rng = random.Random(seed)
    for _ in range(count):
        yield random_expression(rng, ops, **options)


@pytest.fixture
def no_garbage_collection():
    """micrograd's graphs are cycles; following every allocation costs more than leaving them."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize("seed, count, ops", [
    (1, 5000, EXACT),
    (2, 5000, EXACT + ["/", "**"]),
])
def test_random_graphs(seed, count, ops, no_garbage_collection):
    gradients = Gradients()
    reached = steps = 0
    for k, (expression, sizes) in enumerate(expressions(seed, count, ops)):
        compare(expression, sizes, gradients=gradients)
        steps += len(expression.steps)
        reached += sum([v.size > 0 and v.op is not None for v in sizes])
        if k % 1000 == 999:
            gc.collect()
    assert gradients.close > 0.99 * gradients.count
    assert steps > 12 * count and reached > 0.7 * steps   # the graphs are not mere stubs


@pytest.mark.parametrize("passes", [2, 3])
def test_backward_again(passes, no_garbage_collection):
    """Inner gradients of the first pass flow on in the second."""
    for Value in (micrograd.engine.Value, flatgrad.Value):
        x = Value(2.0)
        y = x * 3 * 1
        for _ in range(passes):
            y.backward()
        assert (x.grad, y.grad) == ({2: 9, 3: 18}[passes], 1)
    gradients = Gradients()
    for expression, sizes in expressions(10 + passes, 1000, ONE_NODE_EACH):
        compare(expression, sizes, gradients=gradients, passes=passes)
    assert gradients.close > 0.99 * gradients.count


@pytest.mark.parametrize("make, once, theirs_twice, ours_twice", [
    (lambda x: 1.0 - x, -1.0, -3.0, -2.0), (lambda x: 1.0 / x, -0.25, -0.75, -0.5)])
def test_backward_again_through_one_node(make, once, theirs_twice, ours_twice):
    """The documented difference: micrograd makes 1 - x from two nodes, 1 + -x, and the second pass
    finds the inner one's gradient from the first. Here it is one node, as is 1 / x."""
    for Value, twice in [(micrograd.engine.Value, theirs_twice), (flatgrad.Value, ours_twice)]:
        x = Value(2.0)
        y = make(x)
        y.backward()
        assert x.grad == once
        y.backward()
        assert x.grad == twice


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_backward_from_inner_nodes(order):
    """Several roots, one after the other, on gradients that are already there."""
    grads = []
    for Value in (micrograd.engine.Value, flatgrad.Value):
        a, b = Value(1.5), Value(-2.0)
        c = a * b
        d = c.relu() + c * a
        e = d * d - c
        for k in order:
            (c, d, e)[k].backward()
        grads.append([v.grad for v in (a, b, c, d, e)])
    assert grads[1] == pytest.approx(grads[0], rel=1e-15)


def test_data_changed_before_backward(no_garbage_collection):
    """Partials are taken at the data that the operands have when backward runs.

    Not with `/`, where micrograd reads a hidden node, b**-1, that still has the old data.
    """
    rng = random.Random(20)
    gradients = Gradients()
    for expression, sizes in expressions(21, 1000, EXACT + ["**"]):
        fresh = [rng.choice([rng.uniform(0.1, 3.0), -rng.uniform(0.1, 3.0)]) for _ in sizes]
        for op, operands in expression.steps:
            if op == "**":   # where a negative base has no real power
                fresh[operands[0]] = abs(fresh[operands[0]])
        compare(expression, sizes, gradients=gradients,
                change=lambda k, data: fresh[k] if k % 3 else data or fresh[k])
    assert gradients.close > 0.99 * gradients.count


def test_relu_of_changed_data():
    """relu's gradient asks for its own data at backward time, not for its operand's."""
    for Value in (micrograd.engine.Value, flatgrad.Value):
        x = Value(2.0)
        y = x.relu()
        x.data = -5.0
        y.backward()
        assert x.grad == 1
        y.data = 0.0
        y.backward()
        assert x.grad == 1


@pytest.mark.parametrize("x, data, grad", [
    (-2.5, 0.0, 0), (0.0, 0.0, 0), (-0.0, -0.0, 0), (5e-324, 5e-324, 1), (math.nan, math.nan, 0),
    (math.inf, math.inf, 1), (-math.inf, 0.0, 0)])
def test_relu_at_the_kink(x, data, grad):
    for Value in (micrograd.engine.Value, flatgrad.Value):
        v = Value(x)
        y = v.relu()
        y.backward()
        assert np.array_equal([y.data, v.grad], [data, grad], equal_nan=True)
        if data == 0 and isinstance(y.data, float):
            assert math.copysign(1, y.data) == math.copysign(1, data)


@pytest.mark.parametrize("left, right", [
    (0.0, -0.0), (-0.0, 0.0), (-0.0, -0.0), (math.inf, math.inf), (math.inf, -math.inf),
    (math.inf, 0.0), (math.nan, 1.0), (1e308, 1e308), (5e-324, 0.5), (1.0, -1.0)])
@pytest.mark.parametrize("op", ["+", "-", "*"])
def test_special_values(op, left, right):
    """To the last bit, the sign of zero included; constants on either side as well."""
    function = reference.OPERATORS[op]
    for make in [lambda V: function(V(left), V(right)), lambda V: function(V(left), right),
                 lambda V: function(left, V(right))]:
        theirs, ours = make(micrograd.engine.Value).data, make(flatgrad.Value).data
        assert np.array_equal(theirs, ours, equal_nan=True)
        assert math.isnan(ours) or math.copysign(1, theirs) == math.copysign(1, ours)


@pytest.mark.parametrize("make, error", [
    (lambda V: V(1.0) / 0, ZeroDivisionError), (lambda V: V(1.0) / V(0.0), ZeroDivisionError),
    (lambda V: 1 / V(0.0), ZeroDivisionError), (lambda V: V(0.0) ** -1, ZeroDivisionError),
    (lambda V: V(0.0) ** -0.5, ZeroDivisionError), (lambda V: V(1e200) ** 2.0, OverflowError),
    (lambda V: V(-1e200) ** 3.0, OverflowError), (lambda V: V(1e-200) ** -2, OverflowError),
    (lambda V: V(1.0) + "a", TypeError), (lambda V: V(1.0) * None, TypeError),
    (lambda V: V(1.0) // 2, TypeError), (lambda V: V(1.0) % 2, TypeError)])
def test_same_errors(make, error):
    for Value in (micrograd.engine.Value, flatgrad.Value):
        with pytest.raises(error):
            make(Value)


def test_op_and_prev():
    """The names of operations and their operands, for code that draws the graph."""
    for Value in (micrograd.engine.Value, flatgrad.Value):
        a, b = Value(2.0), Value(3.0)
        for made, op, prev in [
            (a, "", []), (a + b, "+", [a, b]), (a * b, "*", [a, b]), (a + a, "+", [a]),
            (a**2, "**2", [a]), (a**-0.5, "**-0.5", [a]), (a**2.0, "**2.0", [a]),
            (a.relu(), "ReLU", [a]),
            (Value(1.0, (a, b), "mine"), "mine", [a, b]), (Value(1.0, [a, a], "mine"), "mine", [a]),
        ]:
            assert made._op == op
            assert made._prev == set(prev) and isinstance(made._prev, set)


def test_depth():
    """A chain on which micrograd's recursion gives up."""
    def chain(Value):
        x = Value(1.0)
        y = x
        for _ in range(2 * sys.getrecursionlimit()):
            y = y + 1.0
        y.backward()
        return x.grad

    with pytest.raises(RecursionError):
        chain(micrograd.engine.Value)
    assert chain(flatgrad.Value) == 1.0


# ---- the checks can fail ----

def wrong_engine(**rules):
    """The reference engine with other rules in place of some of its own."""
    rules = {**reference.RULES, **rules}
    return SimpleNamespace(Value=type("Wrong", (reference.Value,), {"rules": rules, "__slots__": ()}))


def add_one_ulp_off(x, y):
    return math.nextafter(x + y, math.inf)


def divide_two_ulps_off(x, y):
    return math.nextafter(math.nextafter(x / y, math.inf), math.inf)


class Forgetful(reference.Value):
    """Zeroes the gradients before each backward pass."""

    __slots__ = ()

    def backward(self):
        for node in self.order():
            node.grad = 0.0
        super().backward()


class Early(reference.Value):
    """Takes its partials from the data at forward time."""

    __slots__ = ("then",)

    @classmethod
    def apply(cls, op, *operands):
        out = super().apply(op, *operands)
        out.then = [x.data for x in out.operands]
        return out

    def backward(self):
        nodes = self.order()
        now = [x.data for x in nodes]
        for node in nodes:
            for x, data in zip(node.operands, getattr(node, "then", ())):
                x.data = data
        super().backward()
        for node, data in zip(nodes, now):
            node.data = data


RULES = reference.RULES
WRONG = [
    ("nothing", wrong_engine(), {}, False),
    ("nothing, two passes", wrong_engine(), {"passes": 2}, False),
    ("relu's gradient at 0",
     wrong_engine(relu=(RULES["relu"][0], lambda z, x: (1.0 if z >= 0.0 else 0.0,))), {}, True),
    ("relu's gradient", wrong_engine(relu=(RULES["relu"][0], lambda z, x: (1.0,))), {}, True),
    ("relu(-0.0)", wrong_engine(relu=(lambda x: x if x > 0.0 else 0.0, RULES["relu"][1])), {}, True),
    ("a sum's last bit", wrong_engine(**{"+": (add_one_ulp_off, RULES["+"][1])}), {}, True),
    ("a quotient's last two", wrong_engine(**{"/": (divide_two_ulps_off, RULES["/"][1])}), {}, True),
    ("a difference's sign of zero",
     wrong_engine(**{"-": (lambda x, y: x - y + 0.0, RULES["-"][1])}), {}, True),
    ("a product's gradient, 1e-11 off",
     wrong_engine(**{"*": (operator.mul, lambda z, x, y: (y, x * (1 + 1e-11)))}), {}, True),
    ("one operand's gradient only",
     wrong_engine(**{"+": (operator.add, lambda z, x, y: (1.0, 0.0))}), {}, True),
    ("gradients zeroed", SimpleNamespace(Value=Forgetful), {"passes": 2}, True),
    ("old data in partials", SimpleNamespace(Value=Early),
     {"change": lambda k, data: abs(data) + 0.25}, True),
]


@pytest.mark.parametrize("engine, options, is_wrong", [row[1:] for row in WRONG],
                         ids=[row[0] for row in WRONG])
def test_a_wrong_engine_is_caught(engine, options, is_wrong):
    """The comparison above, run on engines that are wrong in one place, and on one that is not."""
    ops = ONE_NODE_EACH if options else EXACT + ["/", "**"]

    def compare_all():
        for expression, sizes in expressions(30, 2000, ops):
            compare(expression, sizes, engine=engine, **options)

    if is_wrong:
        with pytest.raises(AssertionError):
            compare_all()
    else:
        compare_all()


# ---- nn ----

NN = [micrograd.nn, flatgrad.nn]


def seeded(nn, make, seed=1337):
    random.seed(seed)
    return make(nn)


def test_the_first_weight():
    for nn in NN:
        model = seeded(nn, lambda nn: nn.MLP(2, [16, 16, 1]))
        assert model.parameters()[0].data == 0.23550571390294128
        assert len(model.parameters()) == 337


@pytest.mark.parametrize("make", [
    lambda nn: nn.Module(), lambda nn: nn.Neuron(0), lambda nn: nn.Neuron(3),
    lambda nn: nn.Neuron(2, nonlin=False), lambda nn: nn.Layer(2, 3),
    lambda nn: nn.Layer(3, 1, nonlin=False), lambda nn: nn.MLP(2, [16, 16, 1]),
    lambda nn: nn.MLP(3, [4, 2]), lambda nn: nn.MLP(1, [1]), lambda nn: nn.MLP(3, [])])
def test_same_draws_order_and_repr(make):
    theirs, ours = [seeded(nn, make) for nn in NN]
    assert [p.data for p in ours.parameters()] == [p.data for p in theirs.parameters()]
    if type(ours) is not flatgrad.nn.Module:   # it has no repr of its own
        assert repr(ours) == repr(theirs)
    assert ours.parameters() is not ours.parameters()
    assert all(p is q for p, q in zip(ours.parameters(), ours.parameters()))
    # The generator is left in the same state.
    assert seeded(NN[0], lambda nn: (make(nn), random.random())[1]) == \
        seeded(NN[1], lambda nn: (make(nn), random.random())[1])


def test_parameters_are_weights_then_bias():
    for nn in NN:
        model = nn.MLP(2, [2, 1])
        expected = [p for layer in model.layers for n in layer.neurons for p in [*n.w, n.b]]
        assert all(p is q for p, q in zip(model.parameters(), expected, strict=True))
        assert [n.nonlin for layer in model.layers for n in layer.neurons] == [True, True, False]


NUMBERS = [0.5, -1.25, 2.0]
INPUTS = {
    "floats": lambda Value: NUMBERS,
    "ints": lambda Value: [1, -2, 3],
    "tuple": lambda Value: tuple(NUMBERS),
    "Values": lambda Value: [Value(x) for x in NUMBERS],
    "array": lambda Value: np.array(NUMBERS),
    "array of ints": lambda Value: np.array([1, -2, 3]),
    "mixed": lambda Value: [Value(0.5), 2, -1.5],
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("make", [
    lambda nn: nn.Neuron(3), lambda nn: nn.Neuron(3, nonlin=False), lambda nn: nn.Layer(3, 4),
    lambda nn: nn.Layer(3, 1), lambda nn: nn.MLP(3, [8, 8, 1]), lambda nn: nn.MLP(3, [5, 2]),
    lambda nn: nn.MLP(3, [])])
@pytest.mark.parametrize("fused", [True, False])
def test_same_outputs_and_gradients(make, kind, fused):
    results = []
    for nn in NN:
        model = seeded(nn, make)
        model.fused = fused   # means nothing to micrograd
        if not model.parameters():
            assert model("anything") == "anything"   # no layers: the input itself
            return
        x = INPUTS[kind](nn.Value)
        out = model(x)
        outs = out if isinstance(out, list) else [out]
        sum(o * o for o in outs).backward()
        values = [v for v in x if hasattr(v, "grad")]
        results.append(((type(out) is list, [o.data for o in outs]),
                        [p.grad for p in model.parameters() + values]))
        model.zero_grad()
        assert all(p.grad == 0 for p in model.parameters())
    (their_data, their_grads), (data, grads) = results
    if fused:
        assert data[0] == their_data[0]
        assert data[1] == pytest.approx(their_data[1], rel=1e-12, abs=1e-300)
    else:
        assert data == their_data   # the sum starts at b and goes left to right in both
    assert grads == pytest.approx(their_grads, rel=1e-12, abs=1e-300)


# ---- the demo ----

def two_moons(count, noise, seed):
    """Two interleaved half circles, labels -1 and 1, as scikit-learn's make_moons lays them out."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, np.pi, count // 2)
    outer, inner = np.c_[np.cos(t), np.sin(t)], np.c_[1 - np.cos(t), 0.5 - np.sin(t)]
    X = np.concatenate([outer, inner]) + rng.normal(scale=noise, size=(count, 2))
    y = np.repeat([-1, 1], count // 2)
    shuffled = rng.permutation(count)
    return X[shuffled], y[shuffled]


def train(nn, Value, X, y, steps):
    """The demo's loop, word for word where it counts."""
    random.seed(1337)
    model = nn.MLP(2, [16, 16, 1])
    losses, accuracies = [], []
    for k in range(steps):
        inputs = [list(map(Value, xrow)) for xrow in X]
        scores = list(map(model, inputs))
        margins = [(1 + -yi * scorei).relu() for yi, scorei in zip(y, scores)]
        data_loss = sum(margins) * (1.0 / len(margins))
        alpha = 1e-4
        reg_loss = alpha * sum((p * p for p in model.parameters()))
        total_loss = data_loss + reg_loss
        accuracy = [(yi > 0) == (scorei.data > 0) for yi, scorei in zip(y, scores)]
        model.zero_grad()
        total_loss.backward()
        learning_rate = 1.0 - 0.9 * k / 100
        for p in model.parameters():
            p.data -= learning_rate * p.grad
        losses.append(total_loss.data)
        accuracies.append(sum(accuracy) / len(accuracy))
        if nn is micrograd.nn:
            del inputs, scores, margins, data_loss, reg_loss, total_loss
            gc.collect()
    return losses, accuracies


@pytest.mark.slow
def test_moons_demo(no_garbage_collection):
    """30 steps of full-batch training: a difference in one step would grow in those after it. test_fused.py does so with
    other ways to train, which it holds against flatgrad's own."""
    X, y = two_moons(100, noise=0.1, seed=1)
    theirs = train(micrograd.nn, micrograd.engine.Value, X, y, 30)
    for nn in flatgrad.nn, SimpleNamespace(MLP=functools.partial(flatgrad.nn.MLP, fused=False)):
        ours = train(nn, flatgrad.Value, X, y, 30)
        assert ours[0] == pytest.approx(theirs[0], rel=1e-9, abs=1e-9)
        assert ours[1] == theirs[1]
        assert ours[1][-1] >= 0.9 > ours[1][0]   # and it learns
