"""copy, deepcopy and pickle of Values, graphs and modules."""
import copy
import copyreg
import functools
import gc
import math
import pickle
import random

import pytest

import flatgrad
from flatgrad import Value, _core
from flatgrad.nn import MLP


@pytest.fixture(autouse=True)
def nothing_left_behind():
    gc.collect()
    flatgrad.collect()
    before = flatgrad.stats()["nodes"]
    yield
    gc.collect()
    flatgrad.collect()
    assert _core._check()
    assert flatgrad.stats()["nodes"] == before


def through_pickle(protocol):
    return lambda x: pickle.loads(pickle.dumps(x, protocol))


INDEPENDENT = [copy.deepcopy, *[through_pickle(p) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)]]


def every_operation(x, y):
    """A graph with each kind of node."""
    z = x * y + x / (y - 3.0) - x**2 + (x * x + 1.0) ** 0.5 + abs(y) ** x + 2.0**x
    z = z + x.tanh() + x.exp().log() + (x * x).sqrt() + x.sin() + x.cos() + y.sigmoid() + y.relu() + -x
    z = flatgrad.where(x, z, y) + flatgrad.clip(y, x, 4.0) + flatgrad.maximum(x, y) * flatgrad.minimum(y, z)
    return Value(2.0, (z, x, z), (0.5, 3.0, -1.0)) + Value(1.0, (x, y), "custom") * 2.0


@pytest.mark.parametrize("duplicate", INDEPENDENT)
def test_a_graph_and_its_leaves(duplicate):
    x, y = Value(0.75), Value(1.5, label="y")
    z = every_operation(x, y)
    z.grad = 5.0
    z2, x2, y2 = duplicate((z, x, y))
    assert (z2.data, z2.grad, z2._op) == (z.data, z.grad, z._op) and y2.label == "y"
    z.backward()
    assert x2.grad == y2.grad == 0.0
    z2.backward()
    assert (x2.grad, y2.grad) == (x.grad, y.grad)
    x2.data = 3.0
    assert x.data == 0.75


@pytest.mark.parametrize("duplicate", INDEPENDENT)
def test_what_is_shared_stays_shared(duplicate):
    x = Value(2.0)
    h = x * 3.0
    a, b = h + 1.0, h * h
    a2, h2, b2, again = duplicate([a, h, b, a])
    assert again is a2 and h2 in a2._prev and h2 in b2._prev and h2 is not h
    (a2 + b2).backward()
    assert h2.grad == 1.0 + 2 * 6.0 and x.grad == 0.0


def test_copy_shares_the_operands():
    x = Value(2.0)
    y = x * 3.0
    y.label = "y"
    z = copy.copy(y)
    assert z is not y and (z.data, z._op, z.label) == (6.0, "*", "y") and x in z._prev
    z.label = "z"
    z.data = 7.0
    assert y.label == "y" and y.data == 6.0
    z.backward()
    assert x.grad == 3.0 and y.grad == 0.0


@pytest.mark.parametrize("duplicate", [copy.copy, *INDEPENDENT])
def test_a_leaf(duplicate):
    for data in (1.5, -0.0, math.inf, 5e-324):
        v = Value(data)
        v.grad = -2.5
        w = duplicate(v)
        assert w is not v and type(w) is Value and repr(w) == repr(v) and w._prev == set()


@pytest.mark.parametrize("duplicate", INDEPENDENT)
def test_a_module(duplicate):
    random.seed(2)
    model = MLP(3, [4, 4, 1])
    other = duplicate(model)
    x = [0.5, -1.0, 2.0]
    assert other(x).data == model(x).data
    other(x).backward()
    assert any(p.grad for p in other.parameters()) and not any(p.grad for p in model.parameters())


@pytest.mark.parametrize("duplicate", INDEPENDENT)
def test_a_deep_graph(duplicate):
    x = y = Value(1.0)
    for _ in range(20_000):
        y = y * 0.9999 + 0.1
    x2, y2 = duplicate((x, y))
    y2.backward()
    y.backward()
    assert x2.grad == x.grad != 0.0


class Named(Value):
    """A subclass with attributes."""

    def __init__(self, data, name):
        super().__init__(data)
        self.name = name


class Slotted(Value):
    __slots__ = ("mark",)


@pytest.mark.parametrize("duplicate", [copy.copy, *INDEPENDENT])
def test_subclasses(duplicate):
    v = duplicate(Named(2.0, ["n"]))
    assert type(v) is Named and v.data == 2.0 and v.name == ["n"]
    w = Slotted(3.0)
    w.mark = "m"
    w = duplicate(w)
    assert type(w) is Slotted and w.data == 3.0 and w.mark == "m"


@pytest.mark.parametrize("duplicate", INDEPENDENT)
def test_attributes_that_lead_back(duplicate):
    v = Value(1.0)
    v.me, v.others = v, [v, {"v": v}]
    w = duplicate(v)
    assert w.me is w and w.others[0] is w and w.others[1]["v"] is w and w is not v


def test_a_deep_copy_of_a_closure_works_on_the_copy():
    def tanh(x):
        t = math.tanh(x.data)
        out = Value(t, (x,), "tanh")

        def _backward():
            x.grad += (1 - t * t) * out.grad

        out._backward = _backward
        return out

    x = Value(0.5)
    y = tanh(tanh(x)) * 3.0
    x2, y2 = copy.deepcopy((x, y))
    y2.backward()
    assert x.grad == 0.0 and x2.grad != 0.0
    y.backward()
    assert x2.grad == x.grad
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(y)   # local functions cannot be pickled, which Python says


def test_copyreg_and_total_ordering():
    @functools.total_ordering
    class Ordered(Value):
        def __lt__(self, other):
            return self.data < other.data

    assert Ordered(1.0) <= Ordered(2.0) and Ordered(3.0) > Ordered(2.0)
    copyreg.pickle(Value, lambda v: (Value, (v.data + 100.0,)))
    try:
        assert pickle.loads(pickle.dumps(Value(1.0))).data == 101.0
    finally:
        del copyreg.dispatch_table[Value]


# ---- damaged and hostile ----

def good():
    x = Value(0.5)
    return _core._restore, (Value, (x * 2.0 + x**3 + Value(1.0, (x,), (4.0,))).__reduce_ex__(4)[1][1])


def test_the_good_one_is_good():
    restore, arguments = good()
    assert restore(*arguments).data == 0.5 * 2.0 + 0.5**3 + 1.0


def damage(saved, rng):
    """One thing anywhere in the nested tuples replaced by something else."""
    if not isinstance(saved, tuple) or not saved or rng.random() < 0.15:
        return rng.choice([None, -1, 2, 10**30, -5, 1.5, "x", "ADD", "LEAF", "LOCAL", (), (1,), (0, 0), [], {},
                           b"", Value, {"_op": 3}, {"_backward": 3}, {3: 3}, math.nan, True])
    k = rng.randrange(len(saved))
    return saved[:k] + (damage(saved[k], rng),) + saved[k + 1:]


def test_damaged_graphs_raise_or_are_sound():
    rng = random.Random(4)
    restore, arguments = good()
    raised = 0
    for _ in range(5_000):
        try:
            value = restore(Value, damage(arguments[1], rng))
        except ValueError as error:
            assert "a saved Value is damaged" in str(error)
            raised += 1
        else:
            value.backward()   # another graph, but one that works
            value._prev, value._op, repr(value)
            del value
        assert _core._check()
    assert raised > 3_000


def test_truncated_bytes():
    x = Value(0.5)
    data = pickle.dumps(x * 2.0 + x**3, 4)
    for length in range(len(data)):
        with pytest.raises((EOFError, pickle.UnpicklingError)):
            pickle.loads(data[:length])
    assert _core._check()


@pytest.mark.parametrize("state", [None, 3, (), (1, 2, 3), (3, {}), ({3: 3}, {}), ({"_backward": 3}, {}),
                                   ({"_op": 3}, {}), (None, None)])
def test_damaged_state(state):
    with pytest.raises(ValueError, match="a saved Value is damaged"):
        Value(1.0).__setstate__(state)


def test_class_must_be_a_value():
    restore, arguments = good()
    for cls in (int, 3, None, object):
        with pytest.raises(ValueError, match="expected a subclass of Value"):
            restore(cls, arguments[1])
