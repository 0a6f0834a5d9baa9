"""Operations that users make: `_backward` closures, local gradients, attributes; and their lifetimes."""
import functools
import gc
import math
import random
import weakref

import pytest
from leaks import living

import flatgrad
from flatgrad import Value, _core


pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def tanh(self):
    """As in micrograd's lecture: the closure uses its own node, which makes a cycle."""
    t = math.tanh(self.data)
    out = Value(t, (self,), "tanh")

    def _backward():
        self.grad += (1 - t**2) * out.grad

    out._backward = _backward
    return out


def local_tanh(x):
    t = math.tanh(x.data)
    return Value(t, (x,), (1 - t * t,))


# ---- rules ----

@pytest.mark.parametrize("custom", [tanh, local_tanh])
def test_custom_operation_in_a_graph(custom):
    x, y = Value(0.5), Value(-1.5)
    z = (custom(custom(x * y) + x) * y).relu() + custom(y)
    z.backward()
    a, b = Value(0.5), Value(-1.5)
    w = ((a * b).tanh() + a).tanh() * b
    w = w.relu() + b.tanh()
    w.backward()
    assert z.data == w.data
    assert (x.grad, y.grad) == pytest.approx((a.grad, b.grad), rel=1e-14)


@pytest.mark.parametrize("custom", [tanh, local_tanh])
def test_deep_chain_of_custom_operations(custom):
    x = y = Value(1e-3)
    for _ in range(20_000):
        y = custom(y)
    y.backward()
    slope = 1.0
    t = 1e-3
    for _ in range(20_000):
        t = math.tanh(t)
        slope *= 1 - t * t
    assert y.data == t and x.grad == pytest.approx(slope, rel=1e-9)


def test_hooks_run_once_and_in_order():
    calls = []
    x = Value(1.0)
    a = Value(2.0, (x,), "a")
    b = Value(3.0, (a, x), "b")
    c = Value(4.0, (b, a), "c")
    for v, name in ((a, "a"), (b, "b"), (c, "c")):
        v._backward = lambda name=name: calls.append(name)
    unrelated = Value(5.0, (a,), "unrelated")
    unrelated._backward = lambda: calls.append("unrelated")
    (c * 2.0).backward()
    assert calls == ["c", "b", "a"]


def test_rule_of_a_builtin_node_can_be_called_and_replaced():
    x = Value(3.0)
    y = x * x
    y.grad = 2.0
    assert y._backward() is None and x.grad == 12.0
    assert Value(1.0)._backward() is None
    x.grad = y.grad = 0.0
    rule, calls = y._backward, []

    def logged():
        calls.append(y.grad)
        rule()

    y._backward = logged
    assert y._backward is logged
    (y * 5.0).backward()
    assert calls == [5.0] and x.grad == 30.0


def test_a_leaf_may_have_a_rule():
    x, calls = Value(1.0), []
    x._backward = lambda: calls.append(x.grad)
    (x * 4.0).backward()
    assert calls == [4.0]


def test_rule_that_raises():
    x = Value(1.0)
    bad = Value(2.0, (x,), "bad")

    def rule():
        raise KeyError("from the rule")

    bad._backward = rule
    with pytest.raises(KeyError, match="from the rule") as caught:
        (bad * 2.0).backward()
    assert caught.traceback[-1].name == "rule"
    del caught
    assert _core._check()
    (x * 3.0).backward()
    assert x.grad == 3.0


def test_rule_that_builds_drops_and_collects():
    x = Value(1.0)
    out = Value(2.0, (x,), "busy")
    kept = []

    def rule():
        junk = [Value(float(k)) * 2.0 for k in range(200_000)]
        kept.append(junk[77])
        del junk
        flatgrad.collect()
        x.grad += 7.0 * out.grad
        kept[0].backward()   # a pass within a pass

    out._backward = rule
    (out * 1.0).backward()
    assert x.grad == 7.0 and kept[0].data == 154.0 and kept[0]._children[0].grad == 2.0


def test_rule_has_to_be_callable():
    x = Value(1.0)
    with pytest.raises(TypeError, match="_backward: expected a callable, got int 3"):
        x._backward = 3


# ---- local gradients ----

def test_local_gradients():
    x, y = Value(2.0), Value(3.0)
    z = Value(6.0, (x, y, x), (3.0, 2, 0.5))
    assert z._children == (x, y, x) and z._local_grads == (3.0, 2.0, 0.5) and z._prev == {x, y}
    z.backward()
    assert (x.grad, y.grad) == (3.5, 2.0)
    z = Value(1.0, children=(x,), local_grads=[4.0])
    assert z._local_grads == (4.0,)
    assert Value(1.0, (), ())._children == ()


def test_children_and_local_gradients_of_builtin_nodes():
    x, y = Value(2.0), Value(3.0)
    assert (x * y)._children == (x, y) and (x * y)._local_grads == (3.0, 2.0)
    assert (x * x)._children == (x, x)
    assert (x**3)._children == (x,) and (x**3)._local_grads == (12.0,)
    assert (x**0.5)._children == (x,)
    assert flatgrad.where(1.0, x, y)._local_grads == (0.0, 1.0, 0.0)
    assert x._children == () and x._local_grads == ()
    z = x / y
    z.backward()
    assert (x.grad, y.grad) == z._local_grads


@pytest.mark.parametrize("arguments, error, words", [
    ((1.0, (), 3), TypeError, "_op: expected a str, or the local gradients, got int 3"),
    ((1.0, (), (1.0,)), ValueError, "local_grads: expected 0 numbers, one for each child, got 1"),
    ((1.0, (Value,), (1.0,)), TypeError, r"_children\[0\]: expected a Value"),
])
def test_wrong_local_gradients(arguments, error, words):
    with pytest.raises(error, match=words):
        Value(*arguments)


def test_wrong_local_gradient_is_named():
    with pytest.raises(TypeError, match=r"local_grads\[1\]: expected a real number, got str 'a'"):
        Value(1.0, (Value(1.0), Value(2.0)), (1.0, "a"))


# ---- attributes ----

def test_attributes():
    v = Value(1.0, label="v")
    w = Value(2.0)
    w.label, w.extra = "w", {"any": "thing"}
    assert v.label == "v" and w.label == "w" and w.extra == {"any": "thing"}
    assert not hasattr(v, "extra") and getattr(v, "other", 5) == 5
    with pytest.raises(AttributeError, match="no attribute 'extra'"):
        v.extra
    with pytest.raises(AttributeError, match="type object 'Value' has no attribute 'extra'"):
        Value.extra
    del w.extra
    assert not hasattr(w, "extra")
    with pytest.raises(AttributeError, match="extra"):
        del w.extra
    with pytest.raises(AttributeError):
        del w.never
    v._op = "input"
    assert v._op == "input"
    for name in ("_prev", "tanh"):
        with pytest.raises(AttributeError):
            setattr(v, name, 1)


def test_attributes_stay_with_the_node():
    x = Value(2.0)
    h = x * 3.0
    h.label = "h"
    out = h.tanh()
    del h
    flatgrad.collect()
    h = next(iter(out._prev))
    assert h.label == "h" and h.data == 6.0


def test_attributes_of_a_subclass_are_its_own():
    class Named(Value):
        label = "default"

        def __init__(self, data, name):
            super().__init__(data)
            self.name = name

    Value(1.0, label="plain").name = "installs the name in Value"
    v = Named(1.0, "n")
    assert v.name == "n" and vars(v) == {"name": "n"} and v.label == "default"
    v.label = "mine"
    assert v.label == "mine"
    assert type(v + v) is Value

    class Fixed(Value):
        @property
        def label(self):
            return "fixed"

    v = Fixed(1.0)
    with pytest.raises(AttributeError):
        v.label = "other"
    assert v.label == "fixed"


# ---- lifetimes ----

def test_closures_do_not_leak():
    x = Value(0.5)
    y = tanh(tanh(tanh(x)) * 2.0)
    reference = weakref.ref(y)
    before = flatgrad.stats()["nodes"]
    del y
    assert reference() is not None     # the cycle keeps it, until ...
    assert flatgrad.collect() >= 5
    assert reference() is None and flatgrad.stats()["nodes"] < before


def test_needed_rules_are_kept():
    """Nobody holds the custom nodes' handles, but a held node needs them."""
    x = Value(0.5)
    y = tanh(tanh(x)) * 3.0
    gc.collect()
    for _ in range(3):
        flatgrad.collect()
    y.backward()
    t = math.tanh(math.tanh(0.5))
    assert x.grad == pytest.approx(3.0 * (1 - t * t) * (1 - math.tanh(0.5) ** 2), rel=1e-14)


@pytest.mark.parametrize("hold", [
    lambda f, out: f, lambda f, out: [f], lambda f, out: out, lambda f, out: f.__closure__,
    lambda f, out: (lambda: out), lambda f, out: functools.partial(f),
    lambda f, out: type("Holder", (), {"f": staticmethod(f)})])
def test_what_is_held_from_outside_is_kept(hold):
    def make(x):
        out = Value(2.0, (x,), "made")

        def rule():
            x.grad += 5.0 * out.grad

        out._backward = rule
        return out, rule

    x = Value(0.5)
    out, rule = make(x)
    reference = weakref.ref(out)
    held = hold(rule, out)
    del out, rule
    flatgrad.collect()
    out = reference()
    assert out is not None and out.data == 2.0
    out.backward()
    assert x.grad == 5.0
    del out, held
    gc.collect()
    flatgrad.collect()
    assert reference() is None


@pytest.mark.parametrize("attach", [
    lambda v: setattr(v, "me", v), lambda v: setattr(v, "me", [v, (v, {v: v})]),
    lambda v: setattr(v, "_backward", lambda: v.grad), lambda v: setattr(v, "_backward", v.relu),
    lambda v: setattr(v, "_backward", functools.partial(print, v)),
    lambda v: setattr(v, "_backward", v._backward),
    lambda v: setattr(v, "_backward", lambda v=v: v), lambda v: setattr(v, "me", {v})])
def test_other_cycles(attach):
    v = Value(1.0) * 2.0
    attach(v)
    reference = weakref.ref(v)
    del v
    gc.collect()
    flatgrad.collect()
    assert reference() is None


def test_cycles_over_several_nodes():
    a, b, c = Value(1.0), Value(2.0), Value(3.0)
    a.other, b.other, c.other = b, c, a     # to newer nodes as well
    references = [weakref.ref(v) for v in (a, b, c)]
    keep = a
    del a, b, c
    flatgrad.collect()
    assert all(reference() is not None for reference in references)
    assert keep.other.other.other is keep
    del keep
    flatgrad.collect()
    assert all(reference() is None for reference in references)


def test_long_chain_of_closures_is_released_without_recursion():
    y = Value(0.1)
    for _ in range(100_000):
        y = tanh(y)
    del y
    flatgrad.collect()


def test_training_with_a_custom_operation_leaves_memory_flat():
    w = Value(0.5)
    before = living()
    peak = 0

    def steps(count):
        nonlocal peak
        for _ in range(count):
            loss = (tanh(w * 2.0) - 0.3) ** 2
            w.grad = 0.0
            loss.backward()
            w.data -= 0.01 * w.grad
            peak = max(peak, flatgrad.stats()["nodes"])

    steps(100_000)
    warm, peak = peak, 0
    steps(100_000)
    assert peak <= warm + 100   # a collection comes at one point of a step or at another
    assert living() == before


def test_random_lifetimes_of_closures():
    """Custom nodes made and dropped at random, collected before every operation."""
    rng = random.Random(5)
    _core._testing(collect_floor=0)
    living = {}
    for step in range(4_000):
        if len(living) < 4 or rng.random() < 0.6:
            v = rng.choice(list(living)) if living else Value(0.5)
            v = rng.choice([tanh, local_tanh, Value.tanh])(v)
            if rng.random() < 0.2:
                v.friend = rng.choice(list(living)) if living else v
            living[v] = v.data
        else:
            del living[rng.choice(list(living))]
        v = None
        if step % 100 == 0:
            root = rng.choice(list(living))
            v = root
            while v._prev:
                v.grad = 0.0
                v = next(iter(v._prev))
            v.grad = 0.0
            root.backward()
            v = root
            slope = 1.0
            while v._prev:
                assert v.grad == pytest.approx(slope, rel=1e-12)
                slope *= 1 - v.data**2
                v = next(iter(v._prev))
            assert v.grad == pytest.approx(slope, rel=1e-12)
            root = v = None
            assert _core._check()
        if len(living) > 60:
            living.clear()
    for v, data in living.items():
        assert v.data == data
    living.clear()
    v = None


def test_failed_allocations():
    x = Value(1.0)
    before = living()
    for k in range(3):
        _core._testing(fail_after=k)
        try:
            v = Value(1.0, (x,), (2.0,))
            v.label = "label"
            tanh(v)
        except MemoryError:
            pass
        v = None
        _core._testing(fail_after=-1)
        assert _core._check()
        assert living() == before


# ---- a rule taken away ----

def kinds_of_nodes(x):
    """A node of each kind: one operand and two, a leaf, an instruction's only result, and one of many."""
    layer = flatgrad.nn.Layer(1, 2, "linear")
    return {"a product": x * 3.0, "a function": x.tanh(), "a leaf": x, "a sum": flatgrad.sum([x, x, 1.0]),
            "an element": flatgrad.softmax([x, 2.0 * x])[1], "a neuron of a layer": layer([x])[0],
            "local gradients": Value(3.0, (x,), (5.0,))}


@pytest.mark.parametrize("kind", kinds_of_nodes(Value(0.5)))
def test_a_deleted_rule_is_the_operation_s_own_again(kind):
    def gradient(change):
        random.seed(0)
        x = Value(0.5)
        node = kinds_of_nodes(x)[kind]
        change(node)
        (2.0 * node).backward()
        return x.grad

    calls = []

    def replaced(node):
        node._backward = lambda: calls.append(node)

    def replaced_and_deleted(node):
        replaced(node)
        del node._backward
        assert type(node._backward) is type(Value(1.0)._backward)

    expected = gradient(lambda node: None)
    assert gradient(replaced_and_deleted) == expected and not calls
    gradient(replaced)
    assert len(calls) == 1


def test_only_a_replaced_rule_can_be_deleted():
    x = Value(1.0)
    for _ in range(2):
        with pytest.raises(AttributeError, match="_backward: the rule of the operation itself cannot be deleted"):
            del x._backward
        x._backward = lambda: None
        del x._backward


def test_a_rule_that_is_deleted_may_hold_the_last_of_its_nodes():
    """What its closure held goes with it, finalizers included, and nothing else is touched."""
    x = Value(2.0)
    y = x * x

    class Final:
        def __del__(self):
            for _ in range(1000):
                Value(1.0) + 1.0
            flatgrad.collect()

    y._backward = lambda final=Final(), held=[Value(1.0) * 2.0 for _ in range(100)]: None
    del y._backward
    y.backward()
    assert (x.grad, y.data) == (4.0, 4.0)


def test_a_rule_may_delete_itself():
    x = Value(2.0)
    y = x * x
    z = y + 1.0

    def once():
        x.grad += 100.0
        del y._backward

    y._backward = once
    z.backward()
    assert x.grad == 100.0
    x.grad = y.grad = z.grad = 0.0
    z.backward()
    assert x.grad == 4.0
