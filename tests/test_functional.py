"""grad, value_and_grad, jacobian, gradcheck, and what they build on: derivatives, detach, update.

Oracles: backward() on a graph built anew, micrograd, finite differences, and derivatives by hand. What must not
happen is tested as much: a changed gradient, a stale one in a result, a second derivative that is 0 in silence. What
there is besides of higher order is in test_higher_order.py.
"""
import collections
import fractions
import functools
import gc
import inspect
import math
import random
import threading

import numpy as np
import pytest
from micrograd.engine import Value as Micrograd

import flatgrad
from flatgrad import Tensor, Value, _core, checking, functional, grad, gradcheck, jacobian, no_grad, value_and_grad
from flatgrad._core import depends, derivatives
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, GradcheckError, ShapeError
from flatgrad.nn import MLP

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


@pytest.fixture(autouse=True)
def no_trace_left():
    yield
    assert functional.running.get() == ()


def ruled(x, slope, log=None):
    """slope * x, as an operation of a user's own with a closure."""
    out = Value(slope * x.data, (x,), "ruled")

    def rule():
        if log is not None:
            log.append(out.grad)
        Value(1.0) * x   # nodes come and go
        x.grad += slope * out.grad

    out._backward = rule
    return out


# ---- derivatives, against backward() ----

class Graph:
    """A random graph: the same for the same seed."""

    def __init__(self, seed, custom):
        rng = random.Random(seed)
        # Between the inputs, so that they do not all share a word of 64 slots.
        self.others = [Tensor(np.zeros(rng.choice([1, 70, 200]))) for _ in range(6)]
        numbers = np.random.default_rng(seed)
        rows, cols = rng.randint(1, 3), rng.randint(1, 4)
        self.inputs = []
        for other in self.others[:3]:
            self.others.append(Tensor(other.data))
            self.inputs.append(Value(rng.uniform(-1, 1)))
        self.inputs += [Tensor(numbers.uniform(-1, 1, (rows, cols))), Tensor(numbers.uniform(-1, 1, cols))]
        constant = Tensor(numbers.uniform(-1, 1, (rows, cols)), requires_grad=False)
        values, tensors = self.inputs[:3], [*self.inputs[3:4], constant]
        vectors = self.inputs[4:]
        makers = [
            lambda: values.append(rng.choice(values) * rng.choice(values) - rng.choice(values)),
            lambda: values.append((rng.choice(values) + rng.uniform(-1, 1)).tanh()),
            lambda: values.append(rng.choice(values) ** rng.randint(1, 3)),
            lambda: values.append(Value(0.5, (rng.choice(values), rng.choice(values)), (2.0, -3.0))),
            lambda: values.append(rng.choice(tensors)[rng.randrange(rows), rng.randrange(cols)]),
            lambda: values.append(flatgrad.dot(rng.sample(values, 3), rng.sample(values, 3))),
            lambda: values.extend(flatgrad.linear(rng.sample(values, 3), numbers.uniform(-1, 1, (2, 3)).tolist())),
            lambda: tensors.append(rng.choice(tensors) * rng.choice(tensors)),
            lambda: tensors.append(rng.choice(tensors) + rng.choice(vectors)),
            lambda: tensors.append(rng.choice(tensors) * rng.choice(values)),
            lambda: tensors.append(rng.choice(tensors).softmax()),
            lambda: vectors.append(rng.choice(tensors).mean(axis=0) if rows > 1 else rng.choice(tensors)[0]),
            lambda: vectors.append(rng.choice(tensors)[rng.randrange(rows)]),
            lambda: values.append(flatgrad.dot(rng.choice(vectors), rng.choice(vectors))),
            lambda: values.append(rng.choice(tensors).sum()),
        ]
        if custom:
            makers.append(lambda: values.append(ruled(rng.choice(values), 1.5)))
        for _ in range(25):
            rng.choice(makers)()
            if rng.random() < 0.2:
                self.others.append(Tensor(np.zeros(90)))
        self.all = values + tensors + vectors + self.others
        self.outputs = rng.sample(values, 2) + [rng.choice(tensors), rng.choice(vectors), rng.choice(self.inputs)]


def elements(nodes):
    """(Value, whether its Tensor is constant) for every number, row by row."""
    result = []
    for node in nodes:
        if isinstance(node, Value):
            result.append((node, False))
        else:
            rows = [node] if node.ndim == 1 else node
            result += [(element, not node.requires_grad) for row in rows for element in row]
    return result


@pytest.mark.parametrize("custom", [False, True], ids=["ours", "custom"])
@pytest.mark.parametrize("seed", range(40))
def test_derivatives_are_those_of_backward_on_a_fresh_graph(seed, custom, moving):
    graph = Graph(seed, custom)
    for k, (element, _) in enumerate(elements(graph.all)):
        element.grad = 0.25 * k - 1.1
    before = [element.grad for element, _ in elements(graph.all)]
    table = derivatives(graph.outputs, graph.inputs)
    assert [element.grad for element, _ in elements(graph.all)] == before
    for k, (_, constant) in enumerate(elements(graph.outputs)):
        fresh = Graph(seed, custom)
        if not constant:
            try:
                elements(fresh.outputs)[k][0].backward()
            except RuntimeError:   # it is computed from constants alone
                assert not table[k].any()
        assert table[k].tolist() == [element.grad for element, _ in elements(fresh.inputs)]
    assert len(table) == k + 1 and table.any()
    assert _core._check()


def test_an_output_may_be_an_input_and_need_not_depend_on_one():
    x, y = Value(2.0), Value(3.0)
    z = x * y
    assert derivatives([x, z, Value(1.0)], [x, y, z]).tolist() == [[1, 0, 0], [3, 2, 1], [0, 0, 0]]
    assert derivatives([z], [x, x]).tolist() == [[3, 3]]
    assert derivatives([], [x]).shape == (0, 1) and derivatives([z], []).shape == (1, 0)


def test_inputs_that_nothing_reaches_give_0_whatever_their_gradients():
    inputs = [Value(1.0) for _ in range(1000)]
    table = Tensor(np.ones((40, 25)))
    for custom in (False, True):
        for k, x in enumerate(inputs):
            x.grad = k + 1.0
        table.grad = 7.0
        y = inputs[700] * 2.0 + table[20, 3]
        if custom:
            y = ruled(y, 1.0)
        result = derivatives([y, inputs[3]], [*inputs, table])
        expected = np.zeros((2, 2000))
        expected[0, 700], expected[0, 1000 + 20 * 25 + 3], expected[1, 3] = 2.0, 1.0, 1.0
        assert np.array_equal(result, expected)
        assert [x.grad for x in inputs] == [k + 1.0 for k in range(1000)] and (table.grad == 7.0).all()


def test_a_large_graph_among_others():
    """More than a word of summaries, and an old graph below and above."""
    weights = Tensor(np.ones((300, 40)))
    old = (weights * 2.0).sum()
    old.backward()
    gradients = weights.grad.copy()
    x = Value(3.0)
    y = x
    for _ in range(9000):
        y = y * 0.5 + x * 0.5
    z = y * weights[7, 3] + weights[8].sum()
    later = [z * 2.0 for _ in range(5000)]
    later[-1].backward()
    kept = [v.grad for v in (x, y, z, old)]
    gradients[7, 3] += 2.0 * y.data
    gradients[8] += 2.0
    assert derivatives([z], [x, weights[7, 3], weights[8, 0], old])[0].tolist() == pytest.approx([1.0, 3.0, 1.0, 0.0])
    assert [v.grad for v in (x, y, z, old)] == kept and np.array_equal(weights.grad, gradients)


def test_a_constant_tensor_is_no_input_and_as_an_output_it_is_constant():
    x = Tensor([1.0, 2.0])
    fixed = Tensor(x * 2.0, requires_grad=False)
    assert derivatives([fixed, fixed * x], [x]).tolist() == [[0, 0], [0, 0], [2, 0], [0, 4]]
    with pytest.raises(ValueError, match=r"inputs\[1\].*requires_grad=False"):
        derivatives([x[0]], [x, fixed])


@pytest.mark.parametrize("make, slopes", [
    (lambda t, fixed: (t * fixed)[1], [0.0, 4.0]),
    (lambda t, fixed: (fixed * t)[1], [0.0, 4.0]),
    (lambda t, fixed: flatgrad.where(1.0, fixed * 1.0, t)[0], [0.0, 0.0]),
    (lambda t, fixed: fixed.softmax()[0], [0.0, 0.0]),
    (lambda t, fixed: flatgrad.linear(fixed, [[t[0], t[1]], [1.0, 1.0]])[0], [2.0, 4.0]),
    (lambda t, fixed: flatgrad.linear(t, fixed.reshape(2, 1) @ Tensor([[1.0, 1.0]]), fixed)[1], [4.0, 4.0]),
    (lambda t, fixed: fixed.reshape(2, 1).sum(axis=1)[0], [0.0, 0.0]),
])
def test_one_result_of_an_instruction_gives_a_constant_operand_no_gradient_either(make, slopes):
    t = Tensor([1.0, 2.0])
    fixed = Tensor(t * 2.0, requires_grad=False)
    one = make(t, fixed)
    assert derivatives([one], [t]).tolist() == [slopes]
    try:
        one.backward()
    except RuntimeError as error:   # `fixed` is all that it is computed from
        assert "no gradient flows" in str(error) and not any(slopes)
    assert t.grad.tolist() == slopes and fixed.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("function", [derivatives, depends])
def test_derivatives_of_something_else(function):
    with pytest.raises(TypeError, match=r"outputs\[1\]: expected a Value or a Tensor, got float 2.0"):
        function([Value(1.0), 2.0], [])
    with pytest.raises(TypeError, match="inputs: expected an iterable"):
        function([], 3.0)


@pytest.mark.parametrize("interrupt", [KeyError, KeyboardInterrupt])
def test_an_exception_in_a_rule_leaves_all_gradients(interrupt, moving):
    x, other, log = Value(2.0), Value(5.0), []
    bad = Value(2.0, (x,), "bad")

    def rule():
        other.grad += 10.0
        x.grad += 10.0
        log.append(Value(1.0) * other)   # a node that stays
        log[-1].grad = 3.0
        raise interrupt("from the rule")

    bad._backward = rule
    inner = bad * other
    out = inner * x + bad
    for k, node in enumerate((x, other, bad, inner, out)):
        node.grad = float(k)
    with pytest.raises(interrupt, match="from the rule"):
        derivatives([out], [x])
    assert [node.grad for node in (x, other, bad, inner, out)] == [0, 1, 2, 3, 4]
    assert len(log) == 1 and log[0].grad == 0.0
    assert _core._check()
    with pytest.raises(interrupt):
        grad(lambda y: y * inner)(2.0)
    assert other.grad == 1.0
    assert derivatives([x * x], [x]).tolist() == [[4.0]]
    bad._backward = print   # the rule and bad have held each other


def test_a_rule_may_write_to_what_the_outputs_do_not_reach(moving):
    """All gradients are put back, not only those of the nodes that a sweep visits."""
    x, apart, idle = Value(2.0), Value(5.0), Value(1.0) * 3.0
    y = Value(6.0, (x,), "three times")

    def rule():
        x.grad += 3.0 * y.grad
        apart.grad += 100.0
        idle.grad -= 1.0

    y._backward = rule
    x.grad, apart.grad, idle.grad, y.grad = 1.0, 2.0, 3.0, 4.0
    assert derivatives([y, y * 2.0], [x, apart]).tolist() == [[3.0, 100.0], [6.0, 100.0]]
    assert (x.grad, apart.grad, idle.grad, y.grad) == (1.0, 2.0, 3.0, 4.0)
    y._backward = print   # the rule and y have held each other


def test_a_rule_reads_gradients_of_this_pass_alone_and_may_start_another(moving):
    x, log = Value(2.0), []
    y = ruled(x, 3.0, log)
    y.grad = x.grad = 50.0
    z = y * 2.0
    assert derivatives([z, z, y], [x]).ravel().tolist() == [6.0, 6.0, 3.0] and log == [2.0, 2.0, 1.0]
    other = ruled(x, 5.0, log)
    seen = []

    def rule():
        seen.append(derivatives([other, x * x], [x]).ravel().tolist())
        seen.append(depends([other], [x]))
        seen.append(grad(lambda v: v * v)(3.0))
        before = x.grad
        (x * 7.0).backward()
        x.grad += y.grad
        seen.append(x.grad - before)

    y._backward = rule
    assert derivatives([z, z], [x]).ravel().tolist() == [9.0, 9.0]
    assert seen == [[5.0, 4.0], True, 6.0, 9.0] * 2 and (x.grad, y.grad, other.grad) == (50.0, 50.0, 0.0)
    y.backward()
    assert x.grad == 58.0
    y._backward = other._backward = print   # the rules and the nodes have held each other


def test_a_rule_that_keeps_a_node_of_its_own_starts_from_zero_in_each_pass():
    x, kept = Value(2.0), []
    y = Value(2.0, (x,), "helped")

    def rule():
        kept or kept.append(Value(0.0))
        kept[0].grad += y.grad
        x.grad += kept[0].grad

    y._backward = rule
    assert derivatives([y, y * 3.0, y], [x]).ravel().tolist() == [1.0, 3.0, 1.0]
    assert derivatives([y], [x]).tolist() == [[1.0]] and kept[0].grad == 0.0
    y._backward = print   # the rule and y have held each other


def test_rules_that_make_the_tape_grow(moving):
    x, kept = Value(2.0), []
    y = Value(2.0, (x,), "growing")

    def rule():
        kept.extend([x * float(k) for k in range(3000)])
        gc.collect()
        flatgrad.collect()
        x.grad += y.grad

    y._backward = rule
    x.grad = 4.0
    assert derivatives([y * 2.0, y * 3.0], [x]).ravel().tolist() == [2.0, 3.0] and x.grad == 4.0
    y._backward = print   # the rule and y have held each other


def test_interrupts_are_looked_for():
    x = y = Value(1.0)
    for _ in range(1000):
        y = y + x
    _core._testing(sweep_chunk=1)
    pauses = _core._testing()
    assert derivatives([y], [x]).tolist() == [[1001.0]] and _core._testing() > pauses


def test_depends():
    x, y = Value(2.0), Value(3.0)
    t = Tensor([[1.0, 2.0], [3.0, 4.0]])
    z = (x * t[0, 1]).tanh()
    assert depends([z], [x]) and depends([z], [t]) and depends([z], [y, t[0, 1]]) and depends([x], [x])
    assert not depends([z], [y]) and not depends([x], [z]) and not depends([z], [t[0, 0]])
    assert depends([y, z], [x]) and not depends([], [x]) and not depends([x], [])
    row = t[1] * 2.0
    assert depends([row], [t[1]]) and not depends([row], [t[0]])
    column = t[:, 1].sum()
    assert depends([column], [t[0, 1]]) and not depends([column], [t[:, 0]])
    assert not depends([z.detach(), row.detach()], [x, t])
    many = [x * 1.0 for _ in range(10_000)]
    assert depends([many[5000] * 2.0], [many[5000]]) and not depends([many[5000] * 2.0], [many[4999], many[5001]])


# ---- detach, update ----

def test_detach():
    x = Value(3.0)
    y = x * 2.0
    y.grad = 5.0
    z = y.detach()
    assert (z.data, z.grad, z._op, z._children) == (6.0, 0.0, "", ()) and z is not y

    class Named(Value):
        pass

    assert type(Named(1.0).detach()) is Value
    t = Tensor([[1.0, 2.0]])
    u = (t * 3.0).T.detach()
    assert not u.requires_grad and u._op == "" and u.tolist() == [[3.0], [6.0]]
    t.data = 0.0
    assert u.tolist() == [[3.0], [6.0]]
    (t * Tensor([5.0, 6.0]).detach()).sum().backward()
    assert t.grad.tolist() == [[5.0, 6.0]]


def test_update():
    x, t = Value(3.0), Tensor([[1.0, 2.0], [3.0, 4.0]])
    x.grad, t.grad = 2.0, [[1.0, 0.0], [2.0, 3.0]]
    assert x.update(0.5) is None and t.update(1) is None
    assert (x.data, x.grad, t.tolist(), t.grad[1, 1]) == (2.0, 2.0, [[0.0, 2.0], [1.0, 1.0]], 3.0)
    t[:, 1].update(np.float64(2.0))
    assert t.tolist() == [[0.0, 2.0], [1.0, -5.0]]
    for bad, error in ((math.nan, ValueError), (math.inf, ValueError), ("1", TypeError), (None, TypeError)):
        for node in (x, t):
            with pytest.raises(error, match="lr: expected a"):
                node.update(bad)
    assert x.data == 2.0
    for other in (t * 2.0, t.detach()):
        with pytest.raises(ValueError, match="expected a leaf Tensor that requires a gradient"):
            other.update(0.1)


def test_micrograd_rust_loop_fits_a_line():
    w, b = Value(0.0), Value(0.0)
    for _ in range(300):
        loss = flatgrad.mean([(w * x + b - (2.0 * x + 1.0))**2 for x in (-1.0, 0.0, 2.0)])
        w.grad = b.grad = 0.0
        loss.backward()
        w.update(0.2)
        b.update(0.2)
    assert (w.data, b.data) == pytest.approx((2.0, 1.0), abs=1e-6)


# ---- grad ----

def test_grad_against_micrograd(moving):
    def f(a, b):
        c = a * b + b**3
        d = (c + a).relu() * 2 - c / (b * b + 1)
        return d + a * -3.0

    for a, b in ((2.0, 3.0), (-1.5, 0.25), (0.0, -2.0)):
        x, y = Micrograd(a), Micrograd(b)
        z = f(x, y)
        z.backward()
        value, gradient = value_and_grad(f, argnums=(0, 1))(a, b)
        assert value == z.data and gradient == pytest.approx((x.grad, y.grad), rel=1e-14)
        assert [type(number) for number in (value, *gradient)] == [float] * 3
        assert grad(f)(a, b) == gradient[0]
        assert grad(f, 1)(a, b) == grad(f, -1)(a, b) == grad(f, argnums=1)(a, b) == gradient[1]


Point = collections.namedtuple("Point", "x y")


def test_the_gradient_has_the_structure_of_the_argument(moving):
    gradient = grad(lambda x: x**2)
    for x in (3.0, 3, np.float32(3.0), np.int64(3), Value(3.0), fractions.Fraction(3)):
        assert gradient(x) == 6.0 and type(gradient(x)) is float
    zero = gradient(np.array(3.0))
    assert isinstance(zero, np.ndarray) and zero.shape == () and zero == 6.0

    def total(x):
        if isinstance(x, dict):
            return flatgrad.sum([total(part) for part in x.values()])
        if isinstance(x, (list, tuple)):
            return flatgrad.sum([total(part) for part in x])
        return (x * x).sum() if isinstance(x, Tensor) else x * x

    assert grad(total)([1.0, (2, [3.0]), []]) == [2.0, (4.0, [6.0]), []]
    result = grad(total)({"b": [1.0], "a": Value(2.0), 3: Point(4.0, 5)})
    assert result == {"b": [2.0], "a": 4.0, 3: (8.0, 10.0)} and list(result) == ["b", "a", 3]
    assert type(result[3]) is Point and result[3].y == 10.0
    matrix = np.arange(6.0).reshape(2, 3)
    for x in (matrix, matrix.astype(np.float32), matrix.astype(int), np.asfortranarray(matrix), Tensor(matrix),
              Tensor(matrix, requires_grad=False), Tensor(matrix.T).T):
        result = grad(total)(x)
        assert isinstance(result, np.ndarray) and result.dtype == np.float64
        assert np.array_equal(result, 2 * matrix)
    row = grad(total)([matrix[0], 1.0, Tensor(matrix)[1]])
    assert [np.array_equal(a, b) for a, b in zip(row, [2 * matrix[0], 2.0, 2 * matrix[1]], strict=True)] == [True] * 3
    assert row[0].base is None   # nothing that keeps the others' memory


def test_what_f_is_given():
    seen = []

    def f(*args, **kwargs):
        seen.append((args, kwargs))
        return args[1] * 2.0

    captured = Value(4.0)
    given = ["as it is"]
    assert grad(f, 1)(given, captured, key=captured) == 2.0
    (first, second), kwargs = seen[0]
    assert first is given and kwargs["key"] is captured
    assert type(second) is Value and second is not captured and second.data == 4.0
    grad(lambda *args: (seen.append(args), args[1].sum())[1], argnums=(0, 1))([1.0, 2], np.ones((1, 2)))
    (row, matrix), = seen[1:]
    assert [type(x) for x in row] == [Value, Value] and type(matrix) is Tensor and matrix.requires_grad


def test_results_that_are_constants_or_tensors():
    assert value_and_grad(lambda x: 3)(2.0) == (3.0, 0.0)
    assert value_and_grad(lambda x: np.float64(3.5))([1.0, 2.0]) == (3.5, [0.0, 0.0])
    assert value_and_grad(lambda x: Value(3.0))(2.0) == (3.0, 0.0)
    assert value_and_grad(lambda x: x)(2.0) == (2.0, 1.0)
    value, gradient = value_and_grad(lambda x: x * 3.0)(np.array([2.0]))
    assert value == 6.0 and type(value) is float and gradient.tolist() == [3.0]
    assert grad(lambda x: x.reshape(1, 1))(np.array([2.0])).tolist() == [1.0]
    assert grad(lambda x: x.detach() * x)(3.0) == 3.0
    assert grad(lambda x: (x * x.detach()).sum())(np.array([3.0, 4.0])).tolist() == [3.0, 4.0]
    assert math.isnan(grad(lambda x: x * math.nan)(1.0)) and grad(lambda x: x**2)(math.inf) == math.inf


def test_captured_parameters_are_untouched():
    rng = random.Random(3)
    model = MLP(2, [4, 1])
    parameters = model.parameters()
    for p in parameters:
        p.grad = rng.uniform(-1, 1)
    shared = (parameters[0] * parameters[1]).tanh()
    shared.backward()
    table = [(p.data, p.grad) for p in (*parameters, shared)]
    x = [0.5, -0.25]
    result = grad(lambda x: model(x) * shared)(x)
    assert [(p.data, p.grad) for p in (*parameters, shared)] == table
    for k, step in ((0, (1e-6, 0.0)), (1, (0.0, 1e-6))):
        ends = [model([a + sign * h for a, h in zip(x, step, strict=True)]).data * shared.data for sign in (1, -1)]
        assert result[k] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-8)
    jacobian(lambda x: [model(x), shared])(x)
    assert [(p.data, p.grad) for p in (*parameters, shared)] == table
    assert [p.data for p in model.parameters()] == [p.data for p in parameters]
    del parameters, p, model, shared


def test_grad_keeps_name_documentation_and_signature():
    def loss(w, x, *, scale=1.0):
        """The loss."""
        return w * x * scale

    for transform in (grad, value_and_grad, jacobian):
        transformed = transform(loss)
        assert transformed.__name__ == "loss" and transformed.__doc__ == "The loss."
        assert inspect.signature(transformed) == inspect.signature(loss) and transformed.__wrapped__ is loss
    assert grad(loss)(2.0, 3.0, scale=2.0) == 6.0
    assert grad(loss, (1, 0))(2.0, 3.0, scale=2.0) == (4.0, 6.0)
    assert grad(functools.partial(loss, 5.0))(3.0) == 5.0
    assert grad(MLP(1, [1]))([2.0]) != [0.0]
    assert grad(Value.tanh)(0.0) == 1.0


@pytest.mark.parametrize("make", [grad, value_and_grad, jacobian])
def test_bad_arguments_of_the_transforms(make):
    with pytest.raises(ArgumentTypeError, match=f"{make.__name__}: f: expected a callable, got int 3"):
        make(3)
    for bad in (1.0, "0", None, True, (0, 1.5), [True]):
        with pytest.raises(ArgumentTypeError, match="argnums: expected an int or a tuple of int"):
            make(abs, bad)
    for bad in ((), (1, 1)):
        with pytest.raises(ArgumentError, match="argnums: expected an int or a tuple of different ints"):
            make(abs, bad)
    calls = []
    f = make(lambda x, y=0.0: calls.append(x), argnums=1)
    for args, kwargs in (((1.0,), {}), ((1.0,), {"y": 2.0}), ((), {"x": 1.0})):
        with pytest.raises(ArgumentError, match=f"argnums: 1 is out of range for {len(args)} positional argument"):
            f(*args, **kwargs)
    with pytest.raises(ArgumentError, match="arguments by keyword are not differentiated by"):
        f(1.0, y=2.0)
    with pytest.raises(ArgumentError, match="expected different arguments"):
        make(f, argnums=(1, -1))(1.0, 2.0)
    x = Value(2.0)
    for bad, error, message in (
            ("1", ArgumentTypeError, "argument 0: expected a real number.*got str '1'"),
            ([1.0, None], ArgumentTypeError, r"argument 0\[1\]: .*got NoneType None"),
            ({"a": (1.0, True)}, ArgumentTypeError, r"argument 0\['a'\]\[1\]: .*got bool True"),
            (1j, ArgumentTypeError, "argument 0: .*got complex 1j"),
            (10**400, ArgumentError, "argument 0: expected a number that float64 holds"),
            (np.ones(2, bool), ArgumentTypeError, "expected an array of real numbers, got one of dtype bool"),
            (np.ones(2, complex), ArgumentTypeError, "dtype complex128"),
            (np.array([x], dtype=object), ArgumentTypeError, "dtype object"),
            (np.ones((1, 2, 3)), ShapeError, r"shape \(1, 2, 3\)"),
            (np.ones((0, 2)), ShapeError, r"shape \(0, 2\)"),
            ([x * 2.0, "1"], ArgumentTypeError, r"argument 0\[1\]: expected a real number.*got str '1'")):
        with pytest.raises(error, match=message):
            make(lambda x: calls.append(x), 0)(bad)
    assert calls == []


def test_results_of_another_type():
    for output in (None, "x", True, object()):
        with pytest.raises(ArgumentTypeError, match="grad: expected f to return a Value, a Tensor of one"):
            grad(lambda x: output)(1.0)
    for output in ([Value(1.0)], np.ones(1)):
        with pytest.raises(ArgumentTypeError, match="jacobian takes functions of many outputs"):
            value_and_grad(lambda x: output)(1.0)
    with pytest.raises(ShapeError, match=r"value_and_grad: .*Tensor of shape \(2,\); jacobian takes"):
        value_and_grad(lambda x: x * 2.0)(np.ones(2))
    with pytest.raises(ArgumentTypeError, match="got bool False"):
        grad(lambda x: x > 3.0)(1.0)
    with pytest.raises(ArgumentError, match="the result of f: expected a number that float64 holds"):
        grad(lambda x: 10**400)(1.0)


def test_an_error_in_f_is_its_own():
    class Mine(Exception):
        pass

    def f(x):
        raise Mine("from f")

    for call in (grad(f), value_and_grad(f), jacobian(f), lambda x: gradcheck(f, x)):
        with pytest.raises(Mine, match="from f") as caught:
            call(1.0)
        del caught
        assert functional.running.get() == ()
    with pytest.raises(ValueError, match="math domain error"):
        grad(flatgrad.log)(-1.0)


# ---- transforms within transforms ----

def cube(x):
    return x**3


NESTED = {   # a function of x that has transforms within it, and its derivative at 1.5
    "grad of grad": (grad(cube), 9.0),
    "the argument": (lambda x: grad(cube)(x) * x, 20.25),
    "in a list": (lambda x: grad(lambda y: y[0] * 2.0)([x])[0] + x, 1.0),
    "computed from it": (lambda x: grad(cube)(x * 2.0) + x, 37.0),
    "another argument": (lambda x: grad(lambda y, z: y * z)(2.0, x) + x, 2.0),
    "by keyword": (lambda x: grad(lambda y, z: y * z)(2.0, z=x) + x, 2.0),
    "captured": (lambda x: grad(lambda y: x * y * y)(2.0) + x, 5.0),
    "captured after an operation": (lambda x: grad(lambda y, z=None: x.tanh() * y)(2.0) + x,
                                    2.0 - math.tanh(1.5) ** 2),
    "captured, the whole result": (lambda x: value_and_grad(lambda y: x)(2.0)[0] + x, 2.0),
    "value": (lambda x: value_and_grad(cube)(x)[0] * x, 13.5),
    "jacobian": (lambda x: jacobian(lambda y: [y, y * x])(2.0)[1] + x, 2.0),
    "gradcheck, captured": (lambda x: x if gradcheck(lambda y: x * y, 2.0) else 0.0, 1.0),
    "two levels up": (lambda x: grad(lambda y: grad(lambda z: x * x * z)(1.0) * y)(2.0), 3.0),
    "of the argument of the middle": (lambda x: grad(lambda y: grad(lambda z: y * z * z)(x) * y)(x), 12.0),
}


@pytest.mark.parametrize("name", NESTED)
def test_transforms_nest(name, moving):
    f, expected = NESTED[name]
    for x in (1.5, Value(1.5)):
        assert grad(f)(x) == pytest.approx(expected, rel=1e-14) and type(grad(f)(x)) is float
        value, gradient = value_and_grad(f)(x)
        assert gradient == grad(f)(x) and type(value) is float
        assert jacobian(f)(x) == gradient and jacobian(lambda x: [f(x), x])(x).tolist() == [gradient, 1.0]
        assert gradcheck(f, float(x.data) if isinstance(x, Value) else x, rtol=1e-6)
    assert functional.running.get() == ()


@pytest.mark.parametrize("inner", [
    lambda t: grad(lambda u: (u * u).sum())(t),
    lambda t: grad(lambda u: u**2)(t[1]),
    lambda t: grad(lambda u: u.sum())(t[0:1]),
    lambda t: grad(lambda u: u.sum())(t.reshape(2, 1)),
    lambda t: grad(lambda u: (u * t[1]).sum())(np.ones(2)),
    lambda t: grad(lambda u: flatgrad.dot(u, t))([1.0, 2.0]),
    lambda t: jacobian(lambda u: u * t * t)(t),
])
def test_transforms_nest_through_tensors(inner):
    def f(t):
        return t.sum() + flatgrad.sum(inner(t))

    assert gradcheck(f, np.array([1.0, 2.0]), rtol=1e-6)
    assert np.array_equal(jacobian(f)(np.array([1.0, 2.0])), grad(f)(np.array([1.0, 2.0])))


def test_a_check_changes_no_number_of_a_transform_around_it():
    for f in (lambda x: gradcheck(cube, x) * x, lambda x: gradcheck(cube, [1.0, x]) * x,
              lambda x: flatgrad.gradgradcheck(cube, x) * x):
        with pytest.raises(ArgumentTypeError, match="what a transform around this check differentiates by; pass its n"):
            grad(f)(1.5)
    with pytest.raises(ArgumentTypeError, match="got the result .* of the operation"):
        grad(lambda x: gradcheck(cube, x * 2.0) * x)(1.5)
    assert functional.running.get() == ()


def test_backward_inside_a_transform_is_no_second_derivative():
    def f(x):
        y = x**3
        y.backward()
        return x * x.grad

    for outer in (grad, value_and_grad, jacobian):
        with pytest.raises(ArgumentTypeError, match=r"f has called backward\(\) on what it computes from its arg"):
            outer(f)(2.0)
    other = Value(3.0)

    def on_its_own(x):
        (other * other).backward()
        return x * other.grad

    assert grad(on_its_own)(2.0) == 6.0


def test_transforms_inside_that_are_constants_are_allowed():
    assert grad(lambda x: x * grad(cube)(2.0))(5.0) == 12.0
    assert grad(lambda x: x * grad(cube)(x.detach()))(2.0) == 12.0
    assert grad(lambda x: x * grad(cube)(x.data))(2.0) == 12.0
    parameter = Value(3.0)
    assert grad(lambda x: x * grad(lambda y: parameter * y)(parameter))(2.0) == 3.0
    assert grad(lambda x: x * grad(lambda y, z: y * y)(3.0, x))(2.0) == 6.0   # z is not used
    leaked = []
    grad(lambda x: leaked.append(x) or x)(2.0)
    assert grad(lambda x: x * grad(cube)(leaked[0]))(5.0) == 12.0   # its trace has ended


def test_finite_differences_of_grad_give_the_second_derivative():
    h = 1e-5
    second = (grad(cube)(2.0 + h) - grad(cube)(2.0 - h)) / (2 * h)
    assert second == pytest.approx(12.0, rel=1e-8)


def test_a_transform_in_another_thread_is_no_part_of_this_one():
    results = []

    def f(x):
        thread = threading.Thread(target=lambda: results.append(grad(cube)(2.0)))
        thread.start()
        thread.join()
        return x * results[-1]

    assert grad(f)(1.0) == 12.0


# ---- no_grad ----

def test_no_grad_around_a_transform_makes_no_difference_and_inside_it_makes_constants():
    def f(x):
        with no_grad():
            constant = x * 5.0
        return constant * x

    for call in (lambda: grad(cube)(2.0) == 12.0, lambda: value_and_grad(f)(2.0) == (20.0, 10.0),
                 lambda: jacobian(lambda x: x * 2.0)(np.ones(2)).tolist() == [[2, 0], [0, 2]],
                 lambda: gradcheck(lambda x: (x * x).sum(), np.ones((2, 2)))):
        assert call()
        with no_grad():
            assert call()
            assert (Value(2.0) * 2.0)._op == ""   # as before
        assert no_grad()(call)()
    with no_grad(), pytest.raises(KeyError):
        grad({}.__getitem__)(1.0)
    with no_grad():
        assert grad(grad(cube))(1.0) == 6.0
    with no_grad():
        assert (Value(2.0) * 2.0)._op == ""
    assert (Value(2.0) * 2.0)._op == "*"


# ---- jacobian ----

def test_jacobian_by_hand(moving):
    result = jacobian(lambda r, phi: (r * phi.cos(), r * phi.sin()), argnums=(0, 1))(2.0, 0.5)
    assert [part.shape for part in result] == [(2,), (2,)]
    assert np.allclose(np.transpose(result), [[math.cos(0.5), -2 * math.sin(0.5)], [math.sin(0.5), 2 * math.cos(0.5)]],
                       rtol=1e-15)
    a = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(jacobian(lambda x: Tensor(a) @ x)(np.ones(3)), a)
    assert np.array_equal(jacobian(lambda x: flatgrad.matvec(a, x))([1.0, 1.0, 1.0]), a)
    result = jacobian(lambda x: x.T)(a)
    assert result.shape == (3, 2, 2, 3)
    assert all(result[i, j, k, m] == (i == m and j == k) for i, j, k, m in np.ndindex(3, 2, 2, 3))
    assert jacobian(lambda x: x * x)(3.0).tolist() == 6.0 and jacobian(cube)(2.0).shape == ()
    assert jacobian(lambda x: [])(2.0).shape == (0,)
    assert jacobian(lambda x: [])([2.0]).shape == (0, 1)


def test_shapes_of_outputs_and_inputs():
    shapes = {(): 2.0, (1,): [2.0], (2,): np.ones(2), (2, 1): [[1.0], [2.0]], (2, 3): Tensor(np.ones((2, 3))),
              (3, 2): [np.ones(2)] * 3}
    outputs = {(): 1.0, (2,): [Value(1.0), 2], (1, 2): [Tensor([1.0, 2.0])], (2, 2): ((1.0, 2), [Value(3.0), 4.0]),
               (3, 1): Tensor(np.ones((3, 1))), (2, 1, 1): [Tensor([[1.0]]), [[2.0]]],
               (2, 0): [[], []], (4,): np.array([Value(1.0)] * 4), (1, 1): np.ones((1, 1))}
    for output_shape, output in outputs.items():
        for input_shape, x in shapes.items():
            result = jacobian(lambda _: output)(x)
            assert result.shape == output_shape + input_shape and not result.any()


def test_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match=r"result of f: expected parts of one shape, got \(1,\) in the first and \(\)"):
        jacobian(lambda x: [[x], x])(1.0)
    with pytest.raises(ShapeError, match=r"jacobian: argument 0: expected parts of one shape"):
        jacobian(lambda x: x[0])([1.0, [2.0]])
    with pytest.raises(ArgumentTypeError, match=r"jacobian: argument 1\['a'\]: expected a real number, .*got str"):
        jacobian(lambda x, y: x, argnums=1)(1.0, {"a": "one"})
    for bad in ({"a": "one"}, None, "ab", [Value(1.0), None], {1.0}, np.array(["a"])):
        with pytest.raises(ArgumentTypeError, match=r"jacobian: the result of f.*: expected a Value, a Tensor"):
            jacobian(lambda x: bad)(1.0)


# ---- gradcheck ----

def test_gradcheck_passes_what_is_right(moving):
    assert gradcheck(lambda x: x.tanh() * x**3, 0.7) is True
    assert gradcheck(lambda x, y: x / y + (x * y).exp(), (0.5, 2.0), rtol=1e-6)
    assert gradcheck(lambda x: x.softmax(), np.array([[0.1, -0.4, 2.0], [1.0, 0.0, -1.0]]), rtol=1e-6)
    assert gradcheck(lambda x, y: [x[0] * y["b"], x[1].sum()], ([0.5, np.ones(2)], {"b": -1.0}))
    assert gradcheck(lambda x: 3.0, 1.0) and gradcheck(lambda x: [], 1.0)
    assert gradcheck(lambda x, y: (x * y).sum(), (Tensor([1.0, 2.0]), Tensor([3.0, 4.0], requires_grad=False)))
    assert gradcheck(lambda x: x * 1e-3, np.float32(0.5)) and gradcheck(lambda x: x**2, np.array(2.0))


def test_gradcheck_of_a_model_by_its_parameters():
    model = MLP(2, [3, 1])
    parameters = tuple(model.parameters())
    for k, p in enumerate(parameters):
        p.grad = 0.5 * k
    before = [(p.data, p.grad) for p in parameters]
    model(np.array([0.5, -0.3]).tolist())
    assert gradcheck(lambda *_: model([0.5, -0.3])**2, parameters, rtol=1e-5)
    assert [(p.data, p.grad) for p in parameters] == before
    del model, parameters, p


def scaled_rule(wrong):
    def f(x):
        return Value(math.sin(x.data), (x,), (math.cos(x.data) * (1.0 + wrong),))
    return f


def scaled_closure(wrong):
    def f(x):
        out = Value(math.sin(x.data), (x,), "sin")

        def rule():
            x.grad += math.cos(x.data) * (1.0 + wrong) * out.grad

        out._backward = rule
        return out
    return f


@pytest.mark.parametrize("make", [scaled_rule, scaled_closure])
@pytest.mark.parametrize("x", [0.3, -2.0, 40.0])
def test_gradcheck_catches_a_rule_that_is_wrong_by_a_thousandth(make, x):
    assert gradcheck(make(0.0), x, rtol=1e-5)
    for wrong in (1e-3, -1e-3):
        assert not gradcheck(make(wrong), x, atol=1e-6, rtol=1e-5, raise_exception=False)
        with pytest.raises(GradcheckError, match="the derivative of output by inputs is .* by finite differences"):
            gradcheck(make(wrong), x, atol=1e-6, rtol=1e-5)
    for wrong in (5e-3, -5e-3):   # the defaults, which are PyTorch's, are coarser
        assert not gradcheck(make(wrong), x, raise_exception=False)
    assert gradcheck(make(0.9e-3), x)


def test_gradcheck_catches_one_wrong_element_and_names_it():
    def f(x, y):
        t = y * 2.0
        return [[x["a"], t[0, 1]], [Value(y.data[1, 2], (y[1, 2],), (1.004,)), t[1, 0]]]

    with pytest.raises(GradcheckError) as caught:
        gradcheck(f, ({"a": 1.0}, np.arange(6.0).reshape(2, 3)))
    assert str(caught.value).startswith("gradcheck: the derivative of output[1, 0] by inputs[1][1, 2] is 1.004, and by "
                                        "finite differences 1")
    assert "at most atol + rtol * |1| = 0.00101, got 0.004" in str(caught.value)
    assert "1 of 28 derivatives do not pass" in str(caught.value)


def test_gradcheck_of_a_kink_and_of_a_hidden_dependence():
    assert not gradcheck(flatgrad.relu, 0.0, raise_exception=False)
    assert not gradcheck(lambda x: Value(x.data**2), 3.0, raise_exception=False)
    assert not gradcheck(lambda x: x.data**2, 3.0, raise_exception=False)
    assert not gradcheck(lambda x: x * x.detach(), 3.0, raise_exception=False)


def test_gradcheck_of_what_is_not_finite_or_not_deterministic():
    with pytest.raises(GradcheckError, match=r"output\[1\] is inf; expected a finite number"):
        gradcheck(lambda x: [x, x * math.inf], 1.0)
    with pytest.raises(GradcheckError, match=r"output is nan where inputs is 1.0 - 1e-06"):
        gradcheck(lambda x: x if x.data >= 1.0 else x * math.nan, 1.0)
    with pytest.raises(GradcheckError, match="the derivative of output by inputs is nan"):
        gradcheck(lambda x: Value(x.data, (x,), (math.nan,)), 1.0)
    numbers = iter(range(100))
    with pytest.raises(GradcheckError, match="f is not deterministic: .*returned 0.0 and 1.0"):
        gradcheck(lambda x: x * float(next(numbers)), 1.0)
    with pytest.raises(GradcheckError, match="derivatives of f are not deterministic"):
        gradcheck(lambda x: Value(x.data, (x,), (next(numbers),)), 1.0)
    with pytest.raises(GradcheckError, match=r"not deterministic: .*\[1.0\] and \[1.0, 1.0\]"):
        gradcheck(lambda x, n=[0]: n.append(0) or [x] * (len(n) - 1), 1.0)
    with pytest.raises(GradcheckError, match=r"f returns the shape \(1,\), but \(2,\) where inputs is 1.0 \+ 1e-06"):
        gradcheck(lambda x: [x] * (1 + (x.data != 1.0)), 1.0)
    for f in (lambda x: x * math.inf, lambda x: x * float(next(numbers))):
        assert gradcheck(f, 1.0, raise_exception=False) is False


def test_bad_arguments_of_gradcheck():
    f, x = abs, Value(1.0)
    for bad, error, message in (
            (3, ArgumentTypeError, "inputs: expected a float, got the integer 3; pass 3.0"),
            (([1.0, np.int64(3)],), ArgumentTypeError, r"inputs\[0\]\[1\]: expected a float, got the integer"),
            (np.arange(3), ArgumentTypeError, "inputs: expected an array of floats, got one of dtype int64"),
            ((1.0, True), ArgumentTypeError, r"inputs\[1\]: expected a real number"),
            (math.nan, DataError, "inputs: expected a finite number, got nan"),
            ((1.0, [np.array([[1.0, math.inf]])]), DataError, r"inputs\[1\]\[0\]\[0, 1\]: expected a finite number"),
            (x * 2.0, ArgumentTypeError, "the operation '\\*'; pass its number, .data"),
            ((Tensor([1.0]) * 2.0,), ArgumentTypeError, r"inputs\[0\]: expected numbers or leaves"),
            (Tensor([1.0], requires_grad=False), ArgumentError, "inputs: expected one number at least"),
            ((), ArgumentError, "inputs: expected one number at least"),
            ([], ArgumentError, "inputs: expected one number at least"),
            (1e12, ArgumentError, "eps: 1e-06 is too small a step from inputs, which is 1000000000000.0")):
        with pytest.raises(error, match=message):
            gradcheck(f, bad, raise_exception=False)
    for name, bad, error in (("eps", 0.0, ArgumentError), ("eps", "1", ArgumentTypeError), ("atol", -1, ArgumentError),
                             ("rtol", math.nan, ArgumentError), ("raise_exception", 1, ArgumentTypeError)):
        with pytest.raises(error, match=f"^{name}: expected"):
            gradcheck(f, 1.0, **{name: bad})
    with pytest.raises(ArgumentTypeError, match="gradcheck: f: expected a callable"):
        gradcheck(None, 1.0)
    with pytest.raises(ArgumentTypeError, match="gradcheck: the result of f: expected a Value"):
        gradcheck(lambda x: None, 1.0)


def test_gradcheck_leaves_its_inputs_as_they_were(moving):
    x, t = Value(0.5), Tensor([[1.0, 2.0], [3.0, 4.0]])
    x.grad, t.grad = 7.0, [[1.0, 2.0], [3.0, 4.0]]

    def state():
        return x.data, x.grad, t.tolist(), t.grad.tolist()

    before = state()

    def f(a, b):
        assert a is x and b[0] is t
        (a * b[0][0, 0]).backward()   # even so
        return a * b[0]

    assert gradcheck(f, (x, [t])) and state() == before
    assert not gradcheck(lambda a, b: Value(a.data, (a,), (3.0,)), (x, [t]), raise_exception=False)
    assert state() == before
    for interrupt in (KeyError, KeyboardInterrupt):
        calls = []

        def interrupted(a, b):
            calls.append(a)
            if len(calls) == 5:
                raise interrupt
            return a * b[0][1, 1]

        with pytest.raises(interrupt):
            gradcheck(interrupted, (x, [t]))
        assert state() == before
    with pytest.raises(ZeroDivisionError):
        gradcheck(lambda a, b: a / (t.data[0, 0] - (1.0 + 1e-6)), (x, [t]))
    assert state() == before
    view = t[:, 1]
    assert gradcheck(lambda v: v * v, view) and gradcheck(lambda v, w: v * w[0], (view, [x])) and state() == before


def test_gradcheck_with_an_input_twice():
    x = Value(0.5)
    assert gradcheck(lambda a, b: a * b * a, (x, x), rtol=1e-6)
    t = Tensor([1.0, 2.0])
    assert gradcheck(lambda a, b: a * b, (t, t[0]), rtol=1e-6)


# ---- what is left behind ----

def test_nothing_is_left_of_many_calls():
    model = MLP(2, [3, 1])
    f = grad(lambda x: model(x))
    f([1.0, 2.0])
    gc.collect()
    flatgrad.collect()
    nodes = flatgrad.stats()["nodes"]
    for _ in range(50):
        f([1.0, 2.0])
        jacobian(lambda t: t.softmax())(np.ones(3))
        gradcheck(lambda x: x.tanh(), 1.0)
        jacobian(f)([1.0, 2.0])
        with pytest.raises(ArgumentTypeError):
            grad(f)([1.0, 2.0])
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] == nodes
    del model, f


def test_the_names_are_the_package_s():
    assert flatgrad.grad is functional.grad and functional.jacrev.__name__ == "jacrev"
    assert set(functional.__all__) == {"grad", "value_and_grad", "jacobian", "jacrev", "jacfwd", "hessian", "hvp",
                                       "jvp", "vjp", "stop_gradient"}
    assert flatgrad.gradcheck is checking.gradcheck and set(checking.__all__) == {"gradcheck", "gradgradcheck"}
    assert all(getattr(flatgrad, name) is getattr(module, name) for module in (functional, checking)
               for name in module.__all__)
