"""flatgrad.gradients, and backward with a gradient to begin with or with create_graph: numbers by hand, and what becomes
of gradients that are Values."""
import copy
import gc
import math
import pickle
import random
import threading

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, gradients, nn, no_grad, optim
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError

pytestmark = pytest.mark.usefixtures("nothing_left_behind", "moving")


def numbers(found):
    return [None if g is None else np.asarray(g.data).tolist() for g in found]


# ---- gradients ----

@pytest.mark.parametrize("create_graph", [False, True])
def test_products_by_hand(create_graph):
    x, w, t = Value(2.0), Value(3.0), Tensor([1.0, 2.0, 5.0])
    y, z = x * w + x**3, t * w
    assert numbers(gradients(y, x, create_graph=create_graph)) == [15.0]
    assert numbers(gradients([y], (w, x), create_graph=create_graph)) == [2.0, 15.0]
    assert numbers(gradients([y, y, x], [x, w], [1.0, 10.0, 0.5], create_graph)) == [165.5, 22.0]
    assert numbers(gradients([z, y], [t, w], [[1.0, 0.0, 2.0], None], create_graph)) == [[3.0, 0.0, 6.0], 13.0]
    assert numbers(gradients(z, [t, w], grad_outputs=Tensor([1.0, 0.0, 2.0]), create_graph=create_graph)) == [
        [3.0, 0.0, 6.0], 11.0]
    assert [x.grad, w.grad, y.grad, *t.grad, *z.grad] == [0.0] * 9


@pytest.mark.parametrize("create_graph", [False, True])
def test_inputs_may_be_results_outputs_and_parts(create_graph):
    x, t = Value(2.0), Tensor([[1.0, 2.0], [3.0, 4.0]])
    y = x * x
    z = y * 3.0
    assert numbers(gradients(z, [y, x, z], create_graph=create_graph)) == [3.0, 12.0, 1.0]
    rows = t * t
    s = rows[1].sum() + rows[0, 0]
    assert numbers(gradients(s, [t, t.T, t[1], t[0, 0], rows], create_graph=create_graph)) == [
        [[2.0, 0.0], [6.0, 8.0]], [[2.0, 6.0], [0.0, 8.0]], [6.0, 8.0], 2.0, [[1.0, 0.0], [1.0, 1.0]]]


def test_results_are_of_the_inputs_types_and_shapes():
    x, t = Value(2.0), Tensor([[1.0, 2.0]])
    g, h = gradients((t * x).sum(), [x, t])
    assert isinstance(g, Value) and not g._children and isinstance(h, Tensor) and h.shape == (1, 2)
    assert not h.requires_grad and h._op == ""
    g, h = gradients((t * x * x).sum(), [x, t], create_graph=True)
    assert g._children and h.requires_grad
    assert numbers(gradients([g, h], [x, t], [1.0, [[1.0, 1.0]]])) == [14.0, [[4.0, 4.0]]]


def test_orders_one_after_the_other():
    x = Value(0.3)
    g, expected = x.sin() * x.exp(), complex(1.0, 1.0)
    for order in range(1, 6):
        g, = gradients(g, x, create_graph=True)
        assert g.data == pytest.approx(math.exp(0.3) * (expected**order * (math.cos(0.3) + 1j * math.sin(0.3))).imag,
                                       rel=1e-13)


def test_an_input_that_nothing_depends_on():
    x, other, t = Value(2.0), Value(3.0), Tensor([1.0, 2.0])
    y = x * x
    for create_graph in False, True:
        with pytest.raises(RuntimeError, match=r"inputs\[1\]: no output depends on Value\(data=3.0.*allow_unused"):
            gradients(y, [x, other], create_graph=create_graph)
        assert numbers(gradients(y, [x, other, t], None, create_graph, True)) == [4.0, None, None]
        assert numbers(gradients(y, [x, other, t], None, create_graph, materialize_grads=True)) == [4.0, 0.0, [0.0, 0.0]]
    with pytest.raises(ArgumentError, match="allow_unused: expected True or None with materialize_grads=True"):
        gradients(y, [x, other], allow_unused=False, materialize_grads=True)
    # 0 is a number, and no None.
    assert numbers(gradients(x * 0.0, [x])) == [0.0]


@pytest.mark.parametrize("call, error, message", [
    (lambda x, t: gradients(3.0, x), ArgumentTypeError, "outputs: expected a Value or a Tensor, or a list .* got float"),
    (lambda x, t: gradients([x, 3.0], x), ArgumentTypeError, r"outputs\[1\]: expected a Value or a Tensor, got float"),
    (lambda x, t: gradients(x, None), ArgumentTypeError, "inputs: expected a Value"),
    (lambda x, t: gradients(x, []), ArgumentError, "inputs: expected at least one"),
    (lambda x, t: gradients([], x), ArgumentError, "outputs: expected at least one"),
    (lambda x, t: gradients(t * x, x), ShapeError, r"grad_outputs\[0\]: expected a gradient of shape \(3,\)"),
    (lambda x, t: gradients(t * x, x, 1.0), ShapeError, r"expected the shape \(3,\) of the output, got \(\)"),
    (lambda x, t: gradients(t * x, x, [[1.0, 2.0]]), ShapeError, r"expected the shape \(3,\) of the output, got \(2,\)"),
    (lambda x, t: gradients(x, x, "a"), TypeError, r"grad_outputs\[0\]: expected a real number, got str 'a'"),
    (lambda x, t: gradients(x, x, [1.0, 2.0]), ArgumentError, "grad_outputs: expected 1, one for each output, got 2"),
    (lambda x, t: gradients([x, x], x, 1.0), ArgumentTypeError, "grad_outputs: expected a list or tuple"),
    (lambda x, t: gradients(x, x, create_graph=1), ArgumentTypeError, "create_graph: expected True or False, got 1"),
    (lambda x, t: gradients(x, x, allow_unused=2), ArgumentTypeError, "allow_unused: expected True or False"),
    (lambda x, t: gradients(x, t.detach()), ArgumentError, r"inputs\[0\]: expected .* that requires a gradient"),
    (lambda x, t: gradients(t.detach()[0:1] * 2.0, x), RuntimeError, r"outputs\[0\]: no gradient flows from"),
    (lambda x, t: x.backward("a"), TypeError, r"backward\(\): gradient: expected a real number"),
    (lambda x, t: x.backward(Tensor([1.0, 2.0])), ShapeError, r"gradient: expected the shape \(\) .* got \(2,\)"),
    (lambda x, t: t.backward(), ShapeError, r"backward\(\): expected a Tensor of one element, got shape \(3,\)"),
    (lambda x, t: t.backward(create_graph=True), ShapeError, "expected a Tensor of one element"),
    (lambda x, t: t.backward([1.0]), ShapeError, r"gradient: expected the shape \(3,\)"),
    (lambda x, t: x.backward(create_graph=None), ArgumentTypeError, "create_graph: expected True or False, got None"),
])
def test_mistakes_change_nothing(call, error, message):
    x, t = Value(2.0), Tensor([1.0, 2.0, 3.0])
    with pytest.raises(error, match=message):
        call(x, t)
    assert x.grad == 0.0 and t.grad.tolist() == [0.0] * 3


@pytest.mark.parametrize("create_graph", [False, True])
def test_frozen_leaves_and_no_grad(create_graph):
    x, w = Value(2.0), Value(3.0)
    y = x * w * w
    w.requires_grad = False
    with no_grad():
        g, = gradients(y, x, create_graph=create_graph)
    assert g.data == 9.0 and bool(g._children) == create_graph
    with pytest.raises(ArgumentError, match="requires_grad=False"):
        gradients(y, w, create_graph=create_graph)


def test_in_a_compiled_function():
    def slope(x):
        return 3 * x**2 * math.sin(x) + x**3 * math.cos(x)

    def curvature(x):
        return 6 * x * math.sin(x) + 6 * x**2 * math.cos(x) - x**3 * math.sin(x)

    f = flatgrad.compile(lambda x: gradients(x**3 * x.sin(), x, create_graph=True)[0] * x)
    g = flatgrad.compile(lambda x: gradients(x**3 * x.sin(), x)[0] * x)
    for number in (0.5, 2.0):
        x = Value(number)
        for function, second in (f, curvature(number)), (g, 0.0):
            x.grad = 0.0
            y = function(x)
            y.backward()
            assert y.data == pytest.approx(slope(number) * number, rel=1e-13)
            assert x.grad == pytest.approx(slope(number) + number * second, rel=1e-13)


def test_numeric_gradients_put_nodes_and_gradients_back():
    x, t = Value(2.0), Tensor(np.arange(300.0))
    y = (t * x).exp().sum() * 1e-200
    y.backward()
    before = [x.grad, *t.grad, y.grad], flatgrad.stats()["nodes"]
    g = gradients(y, [x, t])
    assert numbers(g) == [before[0][0], before[0][1:-1]]
    del g
    flatgrad.collect()
    assert ([x.grad, *t.grad, y.grad], flatgrad.stats()["nodes"]) == before


# ---- backward with a gradient ----

def test_a_gradient_to_begin_with():
    x, t = Value(2.0), Tensor([[1.0, 2.0], [3.0, 4.0]])
    y, z = x * x, t * t
    y.backward(3.0)
    assert (x.grad, y.grad) == (12.0, 3.0)
    y.backward(gradient=Value(-1.0))   # an own gradient is set, and not added to
    assert (x.grad, y.grad) == (8.0, -1.0)
    z.backward([[1.0, 0.0], [0.0, 10.0]])
    assert t.grad.tolist() == [[2.0, 0.0], [0.0, 80.0]] and z.grad.tolist() == [[1.0, 0.0], [0.0, 10.0]]
    z.T.backward(np.zeros((2, 2)))
    assert t.grad.tolist() == [[2.0, 0.0], [0.0, 80.0]]
    z[0:1, 0:1].backward(2.0)
    assert t.grad.tolist() == [[6.0, 0.0], [0.0, 80.0]]


def test_a_gradient_for_a_leaf():
    t = Tensor([1.0, 2.0])
    t.backward([3.0, 4.0])
    assert t.grad.tolist() == [3.0, 4.0]


def test_users_rules_are_run_by_numbers_alone():
    x = Value(2.0, label="x")
    y = Value(8.0, (x,), "cube", label="y")
    y._backward = lambda: setattr(x, "grad", x.grad + 12.0 * y.grad)
    z = y * 2.0
    z.backward(0.5)
    assert x.grad == 12.0
    assert numbers(gradients(z, x)) == [24.0] and x.grad == 12.0
    local = Value(8.0, (x,), (12.0,))
    for output, shown in (z, r"Value\(data=8.0, _op='cube', label='y'\).*_backward"), (local * 2.0, "local gradients"):
        for call in (lambda: gradients(output, x, create_graph=True), lambda: output.backward(create_graph=True)):
            with pytest.raises(ArgumentTypeError, match=f"{shown}.*custom_derivative"):
                call()
    assert x.grad == 12.0
    del y._backward


# ---- backward with create_graph ----

def test_leaves_have_values_as_gradients():
    x, w = Value(2.0), Value(3.0)
    y = x**3 * w
    y.backward(create_graph=True)
    g = x.grad
    assert isinstance(g, Value) and g.data == 36.0 and w.grad.data == 8.0 and y.grad == 0.0
    assert x.grad is g
    x.grad = 0.0
    w.grad = 0.0
    g.backward()
    assert (x.grad, w.grad) == (36.0, 12.0)


def test_tensors_and_their_views_and_elements():
    t = Tensor([[1.0, 2.0], [3.0, 4.0]])
    (t * t * t).sum().backward(create_graph=True)
    g = t.grad
    assert isinstance(g, Tensor) and g.tolist() == [[3.0, 12.0], [27.0, 48.0]] and t.T.grad.tolist() == g.T.tolist()
    assert t[1].grad.tolist() == [27.0, 48.0] and t[0, 1].grad.data == 12.0 and isinstance(t[0, 1].grad, Value)
    t.grad = 0.0
    assert t.grad.tolist() == [[0.0, 0.0], [0.0, 0.0]] and t[0, 1].grad == 0.0
    g[1].sum().backward()
    assert t.grad.tolist() == [[0.0, 0.0], [18.0, 24.0]]


def test_gradients_add_up_and_are_cleared():
    x = Value(2.0)
    y = x**3
    y.backward()
    assert x.grad == 12.0 and y.grad == 1.0
    y.backward(create_graph=True)
    assert x.grad.data == 24.0   # 12 of it a constant
    assert numbers(gradients(x.grad, x)) == [12.0]
    y.backward(gradient=Value(2.0), create_graph=True)
    assert x.grad.data == 48.0 and numbers(gradients(x.grad, x)) == [36.0]
    assert y.grad == 1.0
    x.grad = 0.0
    assert x.grad == 0.0 and isinstance(x.grad, float)
    y.backward(create_graph=True)
    (x * 1.0).backward()   # adds a number
    assert x.grad == 13.0 and isinstance(x.grad, float)


@pytest.mark.parametrize("clear", ["assign", "module", "optimizer", "group", "update"])
def test_what_makes_numbers_of_them(clear):
    random.seed(1)
    model = nn.MLP(2, [3, 1])
    for again in range(2):
        (model([1.0, 2.0]) ** 2 + model([-1.0, -2.0]) ** 2).backward(create_graph=True)
        assert all(isinstance(p.grad, Value) for p in model.parameters())
        found = [p.grad.data for p in model.parameters()]
        if clear == "assign":
            for p in model.parameters():
                p.grad = 0.0
        elif clear == "module":
            model.zero_grad()
        elif clear == "optimizer":
            optim.SGD(model.parameters(), 0.1).zero_grad()
        elif clear == "group":
            optim.Adam([{"params": model.parameters()}], 0.1).zero_grad()
        else:
            continue
        assert all(type(p.grad) is float and p.grad == 0.0 for p in model.parameters())
        assert any(found)


def test_a_gradient_of_0_is_one_that_can_be_cleared():
    x, w = Value(0.0), Value(3.0)
    y = x * x * w
    y.backward(create_graph=True)
    assert isinstance(x.grad, Value) and x.grad.data == 0.0 and repr(x) == "Value(data=0.0, grad=0.0)"
    optim.SGD([x, w], 0.1).zero_grad()
    assert x.grad == 0.0 and type(x.grad) is float
    y.backward(create_graph=True)
    assert numbers(gradients(x.grad, x)) == [6.0]   # once, and not twice
    x.grad = -0.0
    assert type(x.grad) is float


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 0.1, momentum=0.9), lambda p: optim.Adam(p, 0.1)])
def test_optimizers_read_the_numbers(make):
    found = []
    for create_graph in False, True:
        x, t = Value(2.0), Tensor([1.0, -3.0])
        optimizer = make([x, t])
        for _ in range(3):
            optimizer.zero_grad()
            (x**3 + (t * t).sum() * x).backward(create_graph=create_graph)
            optim.clip_grad_norm_([x, t], 2.0)
            optimizer.step()
        found.append([x.data, *t.data])
    assert found[0] == pytest.approx(found[1], rel=1e-12)


def test_clipping_makes_numbers_unless_it_changes_nothing():
    x = Value(2.0)
    (x**3).backward(create_graph=True)
    optim.clip_grad_norm_([x], 100.0)
    assert isinstance(x.grad, Value)
    optim.clip_grad_norm_([x], 1.0)
    assert type(x.grad) is float and x.grad == pytest.approx(1.0)


def test_copies_and_pickles_have_numbers():
    x, t = Value(2.0), Tensor([1.0, 2.0])
    x.color = "red"
    (x**3 + (t * t).sum()).backward(create_graph=True)
    for again in (copy.copy, copy.deepcopy, lambda z: pickle.loads(pickle.dumps(z))):
        y = again(x)
        assert type(y.grad) is float and y.grad == 12.0 and y.color == "red"
    for again in copy.deepcopy, lambda z: pickle.loads(pickle.dumps(z)):
        u = again(t)
        assert isinstance(u.grad, np.ndarray) and u.grad.tolist() == [2.0, 4.0] and type(u[0].grad) is float
    assert isinstance(x.grad, Value) and isinstance(t.grad, Tensor)


def test_a_leaf_that_is_frozen_afterwards():
    x, t = Value(2.0), Tensor([1.0, 2.0, 3.0])
    y = x**3 + (t**3).sum()
    y.backward(create_graph=True)
    x.requires_grad = False
    t[1].requires_grad = False
    assert x.grad.data == 12.0 and t[1].grad.data == 12.0
    y.backward(create_graph=True)
    assert x.grad.data == 12.0 and t.grad.tolist() == [6.0, 12.0, 54.0]
    x.requires_grad = True
    assert x.grad.data == 12.0


def test_leaves_that_nobody_holds_and_results_stay():
    x = Value(2.0)
    y = x * 5.0 + 1.0
    z = y * y
    z.backward(create_graph=True)
    assert (y.grad, z.grad) == (0.0, 0.0) and x.grad.data == 110.0
    loss = (x.grad - 100.0) ** 2
    x.grad = 0.0
    loss.backward()   # through nodes of the graph, none of which has been added to
    assert x.grad == 2 * 10.0 * 50.0


def test_a_gradient_penalty_is_trained_by_every_pass():
    """The gradient of a loss with a gradient in it, by backward alone, is that by finite differences."""
    w = Value(0.7)

    def penalty(number):
        x = Value(number)
        (w * x).tanh().backward(create_graph=True)
        found = x.grad ** 2 + (w * 2.0) ** 2
        w.grad = 0.0
        return found

    loss = penalty(1.3)
    loss.backward()
    exact = w.grad
    w.grad = 0.0
    low, high = [], []
    for eps, found in (-1e-6, low), (1e-6, high):
        w.data = 0.7 + eps
        found.append(penalty(1.3).data)
    assert exact == pytest.approx((high[0] - low[0]) / 2e-6, rel=1e-8)


def test_cycles_are_freed():
    """A leaf has its gradient, whose graph has the leaf."""
    gc.collect()
    flatgrad.collect()
    before = flatgrad.stats()["nodes"]
    for _ in range(3):
        x, t = Value(2.0), Tensor([1.0, 2.0])
        (x**3 + (t * t * x).sum()).backward(create_graph=True)
        x.grad = x.grad.data + 1.0
    del x, t
    gc.collect()
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] == before


def test_clearing_frees_the_graph_at_once():
    x = Value(2.0)
    y = x**5
    flatgrad.collect()
    before = flatgrad.stats()["nodes"]
    y.backward(create_graph=True)
    assert flatgrad.stats()["nodes"] > before
    optim.SGD([x], 0.1).zero_grad()
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] == before


def test_finalizers_and_threads():
    class Noisy(Value):
        def __del__(self):
            Value(1.0).sin()
            flatgrad.collect()

    x = Noisy(2.0)
    for _ in range(3):
        y = Noisy(1.0) * x**3
        y.backward(create_graph=True)
    assert x.grad.data == 36.0
    failed = []

    def work():
        try:
            for _ in range(20):
                v = Value(1.5)
                (v**4).backward(create_graph=True)
                h, = gradients(v.grad, v)
                assert h.data == 12 * 1.5**2
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    del x, y


def test_plain_passes_are_what_they_were():
    """A leaf that once had a Value."""
    x = Value(2.0)
    y = x * x
    y.backward(create_graph=True)
    x.grad = 0.0
    y.backward()
    y.backward()
    assert x.grad == 8.0 and type(x.grad) is float
    assert _core._check()
