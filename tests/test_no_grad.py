"""`no_grad`: results are the same numbers, and leaves; nothing is kept of how they came about."""
import gc

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, no_grad
from flatgrad.nn import MLP
from test_ops import ORACLE, ROWS

pytestmark = pytest.mark.usefixtures("moving")


def nodes():
    flatgrad.collect()
    return flatgrad.stats()["nodes"]


def some_numbers(n):
    return [0.3 + 0.4 * k for k in range(n)]


@pytest.mark.parametrize("op", [op for op in ROWS if op in ORACLE])
def test_every_operation_gives_the_same_number_as_a_leaf(op):
    values = [Value(x) if not ORACLE[op].immediate or k == 0 else x
              for k, x in enumerate(ORACLE[op].points[0] if ROWS[op]["arity"] > 1 or ORACLE[op].immediate
                                    else [ORACLE[op].points[0]])]
    recorded = ORACLE[op].apply(*values)
    with no_grad():
        result = ORACLE[op].apply(*values)
    assert result.data == recorded.data and (result._op, result._prev) == ("", set())
    result.backward()
    assert result.grad == 1.0 and all(v.grad == 0.0 for v in values if isinstance(v, Value))


@pytest.mark.parametrize("call", [
    lambda t: t + 1.0, lambda t: t.tanh(), lambda t: t @ t.T, lambda t: t.sum(), lambda t: t.sum(axis=0), lambda t: t.softmax(),
    lambda t: t[[1, 0]], lambda t: flatgrad.linear(t, [[1.0, 2.0, 3.0]], [0.5], "gelu"), lambda t: t.logsumexp(axis=1),
    lambda t: flatgrad.dot(list(t[0]), [1.0, 2.0, 3.0]), lambda t: flatgrad.softmax(list(t[0]))[1],
    lambda t: flatgrad.losses.cross_entropy(t, [0, 2]), lambda t: flatgrad.losses.mse(t, np.ones((2, 3))),
])
def test_instructions_give_the_same_numbers(call):
    t = Tensor([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])
    recorded = call(t)
    with no_grad():
        result = call(t)
    assert np.array_equal(np.asarray(result.data), np.asarray(recorded.data)) and result._op == ""
    if isinstance(result, Tensor):
        assert result.requires_grad is False and result.shape == recorded.shape
        with pytest.raises(RuntimeError, match="no gradient flows"):
            result.sum().backward()
    else:
        result.backward()   # a leaf, as in micrograd
    assert not t.grad.any()


@pytest.mark.parametrize("x", [[1.0, 2.0], [[1.0, 2.0], [3.0, 4.0]], np.ones((3, 2))], ids=["sample", "rows", "array"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "elu", "softmax", flatgrad.tanh])
def test_a_network_leaves_nothing_but_its_results(x, activation):
    model = MLP(2, [4, 4, 3], activation=activation)
    expected = [v.data for row in (model(x) if np.ndim(x) == 2 else [model(x)]) for v in row]
    before = nodes()
    with no_grad():
        out = model(x)
    assert flatgrad.stats()["nodes"] - before <= len(expected) + 1 or callable(activation) or activation == "softmax"
    assert [v.data for row in (out if np.ndim(x) == 2 else [out]) for v in row] == expected
    gc.collect()
    assert nodes() - before <= len(expected) + 1
    del out
    assert nodes() == before


def test_results_go_on_as_operands():
    a = Value(3.0)
    with no_grad():
        b = a * a
    c = b * a
    c.backward()
    assert (a.grad, b.grad) == (9.0, 3.0)


def test_it_nests_and_ends_with_an_exception():
    a = Value(2.0)
    with no_grad():
        with no_grad():
            pass
        assert (a * a)._op == ""
    with pytest.raises(ZeroDivisionError), no_grad():
        a / 0.0
    assert (a * a)._op == "*"


def test_it_decorates():
    @no_grad()
    def square(x):
        return x * x

    a = Value(2.0)
    assert square(a)._op == "" and square(a).data == 4.0 and (a * a)._op == "*"


def test_an_operation_of_ones_own_is_a_leaf():
    a = Value(2.0)
    with no_grad():
        b = Value(a.data**3, (a,), "cube")
        c = Value(8.0, (a,), (12.0,))
        with pytest.raises(TypeError, match="_children"):
            Value(1.0, ("a",), "cube")
        with pytest.raises(TypeError, match="local_grads"):
            Value(1.0, (a,), ("x",))
    for v in b, c:
        assert v._prev == set() and v.data == 8.0
        v.backward()
    assert a.grad == 0.0


def test_memory_does_not_grow():
    model = MLP(2, [16, 16, 1])
    X = np.ones((100, 2))
    with no_grad():
        x = Value(1.0)
        for _ in range(3):
            model(X)
        before = nodes()
        for _ in range(2000):
            x = x * 1.0 + 0.0
            model(X)
    assert nodes() - before <= 3


def test_scalar_graphs_as_well():
    a = Value(2.0)
    with no_grad(), flatgrad.scalar_graph():
        y = flatgrad.dot([a, a], [3.0, 4.0])
        z = MLP(1, [2])([a])
    assert y.data == 14.0 and y._prev == set() and z[0]._prev == set()
