"""Programs whose derivatives are given by rules, as `_core._ruled` makes them: gradients, local derivatives, and what
is not given."""
import numpy as np
import pytest
from test_stops import pressed, record, slow

from flatgrad import Tensor, Value, _core

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def both(x, t, g, h):
    """x**2 and x t, and then gradients: those of x and t, were the first 1.5 x**2."""
    return [x * x, t * x, 3.0 * x * g + (t * h).sum(), x * h]


def ruled():
    return _core._ruled(record(both, Value(0.5), Tensor([1.0, 2.0]), Value(0.0), Tensor([0.0, 0.0])), 2, 2, (0, 1))


def test_gradients_go_by_the_rule():
    x, t = Value(0.5), Tensor([1.0, 2.0])
    y, u = ruled()([x, t])
    assert y.data == 0.25 and u.numpy().tolist() == [0.5, 1.0]
    (y * 2.0 + u[0] * 5.0 + u[1] * 7.0).backward()
    assert x.grad == 2.0 * 1.5 + 5.0 * 1.0 + 7.0 * 2.0 and t.grad.tolist() == [2.5, 3.5]
    x.grad, t.grad = 0.0, [0.0, 0.0]
    y, u = ruled()([x, t])
    u[1].backward()   # of one result alone
    assert x.grad == 2.0 and t.grad.tolist() == [0.0, 0.5]


def test_local_derivatives_go_by_the_rule():
    x, t = Value(0.5), Tensor([1.0, 2.0])
    y, u = ruled()([x, t])
    assert y._local_grads == (1.5, 0.0, 0.0) and u[1]._local_grads == (2.0, 0.0, 0.5)
    assert [v.data for v in y._children] == [0.5, 1.0, 2.0]
    x.data = 2.0
    assert y._local_grads == (6.0, 0.0, 0.0)


def test_operands_that_do_not_lie_in_order():
    x, t = Value(0.5), Tensor([1.0, 9.0, 2.0])
    y, u = ruled()([x, t[::2]])
    (y + u[1]).backward()
    assert x.grad == 1.5 + 2.0 and t.grad.tolist() == [0.0, 0.0, 0.5]


def test_operands_that_take_no_gradient():
    x, t = Value(0.5), Tensor([1.0, 2.0], requires_grad=False)
    y, u = ruled()([x, t])
    (y + u[1]).backward()
    assert x.grad == 3.5
    rule = ruled()
    outer = record(lambda x: rule([x, Tensor([1.0, 2.0], requires_grad=False) * 2.0])[1][1], x)   # a constant of it
    x.grad = 0.0
    z, = outer([x])
    z.backward()
    assert z.data == 2.0 and x.grad == 4.0


def test_memory_is_that_of_the_rule_as_well():
    none = _core._ruled(record(lambda x, t: [x * x, t * x], Value(0.5), Tensor([1.0, 2.0])), 2, 2, None)
    sizes = [program.mapped(5, [True, False]).stats()["bytes"] for program in (none, ruled())]
    assert sizes[1] > sizes[0] + 500


def test_only_some_operands_have_a_gradient():
    """Of the others the rule may know or not."""
    program = record(lambda x, t, v, g, h: [x * v, t * x, x * h], Value(0.5), Tensor([1.0, 2.0]), Value(3.0), Value(0.0),
                     Tensor([0.0, 0.0]))
    some = _core._ruled(program, 3, 2, (1,))
    x, t, v = Value(0.5), Tensor([1.0, 2.0]), Value(3.0)
    y, u = some([x, t, v])
    assert u[0]._local_grads == (0.5, 0.0) and y._local_grads == (0.0, 0.0)
    assert [w.data for w in u[0]._children] == [1.0, 2.0]
    (y + u[0] + u[1] * 2.0).backward()
    assert (x.grad, t.grad.tolist(), v.grad) == (0.0, [0.5, 1.0], 0.0)
    for of in [x, t, v], [x, v], [v, t], [x]:   # as nodes
        found = _core.written([y, u], [Value(3.0), Tensor([1.0, 2.0])], of)
        assert [None if g is None else g.data.tolist() for g in found] == [[0.5, 1.0] if w is t else None for w in of]


@pytest.mark.parametrize("k", [0, 1])
def test_a_gradient_of_the_rule_that_nobody_asks_for(k):
    x, t = Value(0.5), Tensor([1.0, 2.0])
    y, u = ruled()([x, t])
    found, = _core.written([y, u], [Value(2.0), Tensor([5.0, 7.0])], [(x, t)[k]])
    assert (found.data if k == 0 else found.tolist()) == (2.0 * 1.5 + 5.0 * 1.0 + 7.0 * 2.0, [2.5, 3.5])[k]


def test_without_a_rule_nothing_gets_a_gradient():
    none = _core._ruled(record(lambda x, t: [x * x, t * x], Value(0.5), Tensor([1.0, 2.0])), 2, 2, None)
    x, t = Value(0.5), Tensor([1.0, 2.0])
    y, u = none([x, t])
    assert y._children == () and y._local_grads == ()
    (y + u[0] + x * 3.0).backward()
    assert (x.grad, t.grad.tolist()) == (3.0, [0.0, 0.0])
    with pytest.raises(RuntimeError, match="no gradient flows from here"):
        y.backward()


def test_ctrl_c_in_a_rule():
    """Nothing has been added then."""
    program = record(lambda x, g: [x * x, slow(x) * g], Value(0.5), Value(0.0))
    x = Value(0.5)
    y, = _core._ruled(program, 1, 1, (0,))([x])
    assert pressed(lambda: y.backward() or True, 0) is None
    assert x.grad == 0.0
    y.grad = 0.0
    y.backward()
    assert x.grad == pytest.approx(np.sqrt(3.0 / 66_000), rel=1e-3)   # sin(sin(... of 0.5
