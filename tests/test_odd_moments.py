"""What happens at moments that are seldom: operations within a rule, a collection within a collection, a walk that is
too long, an allocation of the core that fails while a call or its derivative is made, lines whose names are none."""
import gc
import pickle
import weakref

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, compile, detect_anomaly
from flatgrad.errors import DataError
from flatgrad.loops import Step
from leaks import living
from test_program_core import record

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def test_an_operation_of_a_user_within_a_rule():
    """It becomes a node of its own, though a leaf that nothing uses is on top."""
    x, made = Value(2.0), []
    y = x * 3.0

    def rule():
        made.append(Value(7.0, (x,), (5.0,), "own"))
        x.grad += 3.0 * y.grad
    y._backward = rule
    (y * 2.0).backward()
    assert x.grad == 6.0 and made[0].data == 7.0 and made[0]._local_grads == (5.0,) and _core._check()
    x.grad = 0.0
    made[0].backward()
    assert x.grad == 5.0


def test_an_operation_of_a_user_on_what_has_attributes():
    """What pickle makes is a leaf on top; it may have been given an attribute before it is made."""
    x = Value(2.0)
    for note in (False, True):
        y = Value.__new__(Value)
        if note:
            y.note = "kept"
        y.__init__(7.0, (x,), (5.0,), "own")
        assert y.data == 7.0 and y._prev == {x} and _core._check()
        x.grad = 0.0
        y.backward()
        assert x.grad == 5.0


def test_derivatives_with_a_rule_that_lets_go():
    """Nodes that die during a pass are disposed of after it."""
    x = Value(2.0)
    for _ in range(3):
        chain = x * 1.5
        for _ in range(100):
            chain = chain * 1.0
        kept = [chain]
        y = x * 3.0

        def rule(y=y, kept=kept):
            kept.clear()
            x.grad += 3.0 * y.grad
        y._backward = rule
        chain = None
        nodes = _core.stats()["nodes"]
        assert _core.derivatives([y * 2.0], [x]).tolist() == [[6.0]]
        assert _core._check() and _core.stats()["nodes"] <= nodes + 2
        y._backward = lambda: None
        y = rule = None
        gc.collect()


class Told:
    __slots__ = ("__weakref__",)


def test_how_many_nodes_a_collection_frees():
    x = Value(1.0)
    y = [x * k for k in range(1, 6)]   # of each a constant and a product
    before = living()
    y[1] = y[3] = None
    assert flatgrad.collect() == 4 == before - living() and flatgrad.collect() == 0


def test_a_collection_within_a_collection():
    """While cycles are emptied the callback of a weak reference has the tape collected."""
    gc.collect()
    refs, heard = [], []

    def act(ref):
        heard.append(ref)
        _core.collect()

    for _ in range(5):
        y = Value(1.0) * 2.0
        y.note = [y, Told()]
        refs.append(weakref.ref(y.note[1], act))
    y = None
    for _ in range(3):
        gc.collect()
    assert len(heard) == 5 and _core._check()


def test_a_walk_that_is_too_long():
    """A collection of the tape looks at no more than it is worth; Python's collector looks at all."""
    gc.collect()
    gc.disable()
    try:
        x, held = Value(1.0), Value(1.0) * 2.0
        held.note = 1
        _core._testing(collect_floor=64)
        for _ in range(1000):   # collections with a walk each, before which nothing counts
            x = x * 1.0
        y = Value(1.0) * 2.0
        y.note = [y, [[] for _ in range(200_000)], told := Told()]
        there = weakref.ref(told)
        y = told = None
        for _ in range(1000):
            x = x * 1.0
        assert there() is not None
        gc.collect()
        assert there() is None and held.note == 1
    finally:
        gc.enable()


def test_attributes_that_come_while_others_are_given():
    """Before Python 3.12 making the dict of them may run the collector, and its callbacks."""
    x = Value(1.0)
    x.first = x.second = 0   # names that are declared
    threshold, acted = gc.get_threshold(), []
    for _ in range(50):
        v = Value(1.0)

        def act(phase, info, v=v):
            acted.append(phase)
            v.first = 1

        gc.callbacks.append(act)
        gc.set_threshold(1)
        v.second = 2
        gc.set_threshold(*threshold)
        gc.callbacks.remove(act)
        assert v.second == 2 and getattr(v, "first", 1) == 1
    assert acted


# ---- lines ----

class Name(str):
    """No plain string, as a file's name that no compiler gives."""
    act = None

    def __hash__(self):
        act, Name.act = Name.act, None
        if act:
            act()
        return super().__hash__()

    __eq__ = str.__eq__


def test_a_line_whose_file_has_no_plain_name():
    """The operation fails, and nothing is left of it; but of what the name has done meanwhile."""
    def call(x):
        return x * 2.0

    call.__code__ = call.__code__.replace(co_filename=Name("own"))
    if type(call.__code__.co_filename) is not Name:
        pytest.skip("this Python has plain names alone")
    x, made = Value(3.0), []
    for operand in (x, Tensor([1.0, 2.0])):
        for act in (None, lambda: made.append(Value(7.0, (x,), (5.0,), "own"))):
            with detect_anomaly():
                nodes, Name.act = _core.stats()["nodes"], act
                with pytest.raises(TypeError):
                    call(operand)
                Name.act = None
                assert _core.stats()["nodes"] <= nodes or act is not None
            assert _core._check()
    for y in made:
        assert y.data == 7.0 and y._local_grads == (5.0,) and y._prev == {x}
        x.grad = 0.0
        y.backward()
        assert x.grad == 5.0


def test_results_of_instructions_without_gradients():
    """Single results of many operands become leaves, and their operands go."""
    values = [Value(float(k)) for k in range(10)]
    nodes = _core.stats()["nodes"]
    with flatgrad.no_grad():
        found = [flatgrad.sum(values), flatgrad.max(values), flatgrad.logsumexp(values), flatgrad.dot(values, values),
                 Value(1.0, values, [1.0] * 10, "own"), values[1] * 2.0, values[1] + 3.0]
    assert [v._prev for v in found[:4]] == [set()] * 4
    assert _core.stats()["nodes"] <= nodes + 2 * len(found) and _core._check()


# ---- allocations of the core ----

def failing(make, work, most=400):
    """Let the k-th allocation of the core fail for each k, until the work is done: its result."""
    for k in range(most):
        given = make()
        nodes = _core.stats()["nodes"]
        _core._testing(fail_after=k)
        try:
            found = work(*given)
        except MemoryError:
            found = None
        finally:
            _core._testing(fail_after=-1)
        assert _core._check()
        if found is not None:
            return found, k
        assert _core.stats()["nodes"] <= nodes + 40   # what a cycle through the traceback may hold
    raise AssertionError("it always fails")


def fresh(f):
    def make():
        x, t = Value(0.5), Tensor([1.0, 2.0, 3.0])
        return compile(f), x, t
    return make


FUNCTIONS = {
    "program": lambda x, t: (x * t).sin().sum() * x,
    "scan": lambda x, t: flatgrad.scan(lambda c, v: ((c * v).sin(), c), x, t)[0],
    "batch": lambda x, t: flatgrad.vmap(lambda v: (v * x).sin())(t).sum(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_allocations_that_fail(name):
    f = FUNCTIONS[name]
    x, t = Value(0.5), Tensor([1.0, 2.0, 3.0])
    first, = flatgrad.gradients(f(x, t), [x], create_graph=True)
    second, = flatgrad.gradients(first, [x])

    def derivatives(g, x, t):
        one, = flatgrad.gradients(g(x, t), [x], create_graph=True)
        two, = flatgrad.gradients(one, [x])
        return one.data, float(two)

    def saved(g, x, t):
        return pickle.dumps(g(x, t))

    found, points = failing(fresh(f), derivatives)
    assert np.allclose(found, (first.data, float(second)), rtol=1e-12) and points > 3
    data, points = failing(fresh(f), saved)
    assert pickle.loads(data).data == pytest.approx(f(x, t).data, rel=1e-12) and points > 3


# ---- the tape ----

def test_nodes_of_a_tensor_that_die_below_the_top():
    """They are collected at once where that frees much, and where it has not, the next ones wait."""
    keep, large, top = Tensor(np.ones(150_000)), Tensor(np.ones(150_000)), Value(1.0)
    before = flatgrad.stats()
    del large
    after = flatgrad.stats()
    assert after["nodes"] <= before["nodes"] - 150_000 and after["collections"] == before["collections"] + 1
    counts = []
    for _ in range(3):
        small, top = Tensor(np.ones(4)), Value(2.0)
        del small
        counts.append(flatgrad.stats()["collections"])
    assert counts == [counts[0]] * 3 and keep.numpy().sum() == 150_000.0 and top.data == 2.0 and _core._check()


def test_a_tape_that_shrinks_while_it_is_watched():
    with detect_anomaly():
        x = Value(2.0)
        many = [Value(1.0) for _ in range(300_000)]
        capacity = flatgrad.stats()["capacity"]
        del many
        assert flatgrad.stats()["capacity"] < capacity
        y = x * 3.0
        y.backward()
    assert x.grad == 3.0 and _core._check()


def test_an_instruction_without_operands_is_kept_by_a_collection():
    many, biases = [Value(1.0) for _ in range(1000)], [Value(1.0), Value(2.0)]
    outputs, more = flatgrad.linear([], [[], []], biases), Value(0.0)
    _core._testing(collect_floor=0)
    del many
    for _ in range(10):
        more = more + 1.0
    _core._testing(collect_floor=131072)
    (outputs[0] * 3.0 + outputs[1]).backward()
    assert [b.grad for b in biases] == [3.0, 1.0] and _core._check()
    double = compile(lambda b: flatgrad.stack(flatgrad.linear([], [[], []], [b, b * 2.0])).sum())
    assert flatgrad.value_and_grad(double)(3.0) == (9.0, 3.0)


# ---- programs ----

def test_a_program_of_programs_that_is_not_copied():
    x = Value(0.5)
    sine, cosine = record(lambda x: x.sin() * 2.0, x), record(lambda x: x.cos() * 2.0, x)
    outer = record(lambda x: sine([x])[0] * cosine([x])[0], x)
    for k in range(1000):
        _core._testing(fail_after=k)
        try:
            evaluator = _core._Evaluator(outer, [0])
            break
        except MemoryError:
            continue
        finally:
            _core._testing(fail_after=-1)
    value, gradient = evaluator([0.25])
    assert k > 20 and np.allclose([value, *gradient], [2.0 * np.sin(0.5), 4.0 * np.cos(0.5)], rtol=1e-12)


def test_operands_from_both_sides_of_where_a_recording_begins():
    """They lie in a row before, and not in the program."""
    x = Tensor([3.0, 4.0])
    known, recording = Tensor([1.0, 2.0]), _core._Recording([x])
    with recording:
        y = x * 2.0
        z = flatgrad.stack([known, y])
        both = [(z * 3.0).tanh(), z * 2.0]
    first, second = recording.program(both)([Tensor([0.5, 1.0])])
    expected = np.array([[1.0, 2.0], [1.0, 2.0]])
    assert np.allclose(first.numpy(), np.tanh(expected * 3.0), rtol=1e-12) and np.allclose(second.numpy(), expected * 2.0)


def test_some_results_of_what_is_taken_from_a_constant_or_in_a_scan():
    table, t = Tensor(np.arange(12.0).reshape(4, 3), requires_grad=False), Tensor(np.ones((2, 3)))
    made = record(lambda i, t: [flatgrad.take(table, i) * t], Tensor([0.0, 0.0]), t)
    result, = made([Tensor([1.0, 2.0]), t])
    result[0].sum().backward()
    assert t.grad.tolist() == [[3.0, 4.0, 5.0], [0.0, 0.0, 0.0]]
    t.grad = 0.0
    made = record(lambda i, t, c: [flatgrad.take(c, i) * t], Tensor([0.0, 0.0]), t, Tensor(np.ones((4, 3))))
    result, = made([Tensor([1.0, 2.0]), t, table])
    result[0].sum().backward()
    assert t.grad.tolist() == [[3.0, 4.0, 5.0], [0.0, 0.0, 0.0]]
    step = Step("scan", lambda c, x: (c * 0.5, flatgrad.take(c, [x, 1])[0]), Tensor([1.0, 2.0, 3.0]), Value(1.0))
    carry = Tensor([1.0, 2.0, 3.0])
    _, found = step.program.scanned(3, 1, 1)([carry, Tensor([2.0, 0.0, 1.0])])
    (found * [1.0, 10.0, 100.0]).sum().backward()
    assert found.tolist() == [3.0, 0.5, 0.5] and carry.grad.tolist() == [5.0, 25.0, 1.0]


def test_signs_that_are_the_same_for_all_samples():
    program = record(flatgrad.losses.hinge, Tensor([0.5, 0.25]), Tensor([1.0, -1.0])).mapped(2, [True, False])
    x = Tensor([[0.5, 0.25], [1.0, 2.0]])
    assert program([x, Tensor([1.0, -1.0])])[0].tolist() == [0.875, 1.5]
    with pytest.raises(DataError, match="target: expected -1 or 1, got -2.0"):
        program([x, Tensor([1.0, -2.0])])


def test_a_finalizer_gives_attributes_while_the_first_is_given():
    """Python's collector runs where the dict for them is made; from 3.12 on, later."""
    kept = [{} for _ in range(200)]   # those that Python keeps for later are in use

    class Late:
        def __del__(self):
            x.other = 2
    old = gc.get_threshold()
    for count in range(1, 12):
        x = Value(1.0)
        late = Late()
        late.itself = late
        del late
        gc.set_threshold(count, 1, 1)
        x.note = 1
        gc.set_threshold(*old)
        gc.collect()
        assert (x.note, x.other) == (1, 2) and kept
