"""Arguments that single calls refuse, or take in a way of their own: one line for each, with what comes of it."""
import copy
import gc
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest

import flatgrad as fg
from acting import acting_when_room_is_made, cleared
from flatgrad import Tensor, Value, _core, nn
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from leaks import nodes
from test_program_core import record

A, B, C = Value(1.0), Value(2.0), Value(3.0)
T, CONSTANT = Tensor([[1.0, 2.0], [3.0, 4.0]]), Tensor([1.0, 2.0], requires_grad=False)


class Named(Value):
    pass


class Iterated:
    def __iter__(self):
        raise LookupError("no items")


class Number:
    def __float__(self):
        raise LookupError("no number")


LARGE = np.broadcast_to(0.0, 2**30)   # of one number
ROW_LIKE_FIRST = r"\[1\]: expected a row like the first, got float 2.0"
WHOLE = r"inputs\[0\]: expected a leaf Value or a whole leaf Tensor"

REFUSED = [
    (lambda: fg.sum(LARGE), MemoryError, r"sum\(\): x: 1073741824 elements do not fit on the tape"),
    (lambda: T + 10**400, ValueError, r"operand of \+: expected a number that float64 holds exactly, got "),
    (lambda: (2**53 + 1) / T, ValueError, "operand of /: expected a number that float64 holds exactly, got the int 900"),
    (lambda: T ** (2**53 + 1), ValueError, r"operand of \*\*: expected a number that float64 holds exactly"),
    (lambda: fg.sum([1.0, 10**400]), ValueError, r"sum\(\): x\[1\]: expected a number that float64 holds exactly"),
    (lambda: fg.dot([1.0, -10**30], [1.0, 2.0]), ValueError, r"dot\(\): \w\[1\]: expected a number that float64 holds"),
    (lambda: T[0] * [1.0, 2**100 + 1], ValueError, r"operand of \*\[1\]: expected a number that float64 holds exactly"),
    (lambda: T * LARGE, MemoryError, "1073741824 elements do not fit on the tape"),
    (lambda: fg.sum([[1.0], 2.0]), TypeError, "x" + ROW_LIKE_FIRST),
    (lambda: Tensor([[Value(1.0)], 2.0]), TypeError, "data" + ROW_LIKE_FIRST),
    (lambda: nn.Neuron(2)(Iterated()), LookupError, "no items"),
    (lambda: fg.matvec(T, [[1.0, 2.0]]), ShapeError, r"matvec\(\): x: expected one dimension, got list"),
    (lambda: fg.linear([1.0, 2.0], T, [[1.0], [2.0]]), ShapeError, r"b: expected 2 numbers.*got shape \(2, 1\)"),
    (lambda: fg.linear([1.0, 2.0], T, [1.0]), ShapeError, r"b: expected 2 numbers.*got shape \(1,\)"),
    (lambda: T @ np.array(1.0), ShapeError, r"@: shapes \(2, 2\) and \(\): expected one or two dimensions"),
    (lambda: np.array(1.0) @ T, ShapeError, r"@: shapes \(\) and \(2, 2\): expected one or two dimensions"),
    (lambda: T.sum(0, keepdims=1), ArgumentTypeError, "keepdims: expected True or False, got int 1"),
    (lambda: fg.sum([], keepdims=True), ShapeError, r"expected at least one element, got shape \(0,\)"),
    (lambda: fg.sum([], 0), ShapeError, r"expected at least one element, got shape \(0,\)"),
    (lambda: fg.softmax([]), ShapeError, r"expected at least one element, got shape \(0,\)"),
    (lambda: fg.argmax(3), ArgumentTypeError, "expected a Tensor, an array or a list, got int 3"),
    (lambda: fg.argmax(object()), ArgumentTypeError, "expected a Tensor, an array or a list, got object"),
    (lambda: fg.argmax(list), ArgumentTypeError, "expected a Tensor, an array or a list, got type"),
    (lambda: CONSTANT.__array__(copy=False), ValueError, "copy: the numbers of a Tensor are on the tape"),
    (lambda: A.__array_ufunc__(np.add, "at", A, 0, 1), ArgumentTypeError, "np.add.at: expected an array to change"),
    (lambda: A.__array_ufunc__(np.add, "at"), TypeError, "at"),
    (lambda: A.__array_ufunc__(np.add, 3, A), ArgumentTypeError, "expected a ufunc and the name of its method"),
    (lambda: A.__array_ufunc__(np.negative, "__call__", 1.0, out=A), ArgumentTypeError, "out: expected an array"),
    (lambda: Value(1.0, (), [2.0], local_grads=[1.0]), TypeError, "_op: expected a str, or the local gradients"),
    (lambda: Value(1.0, (), 3), TypeError, "_op: expected a str, or the local gradients, got int 3"),
    (lambda: _core.Weights().b, AttributeError, "'Weights' object has no attribute 'b'"),
    (lambda: _core.Weights().w, AttributeError, "'Weights' object has no attribute 'w'"),
    (lambda: _core._Recording([T[1:]]), ArgumentError, WHOLE),
    (lambda: _core._Recording([T[0]]), ArgumentError, WHOLE),
    (lambda: _core._Recording([T.T]), ArgumentError, WHOLE),
    (lambda: _core._Recording([T * 1.0]), ArgumentError, WHOLE),
    (lambda: _core._Recording.__new__(_core._Recording).program([A]), RuntimeError, "a recording that has been entered"),
    (lambda: _core._Recording([A]).program([A]), RuntimeError, "expected a recording that has been entered"),
    (lambda: _core._in_floats(record(lambda c: c * 2.0, Value(0.5)).scanned(3, 1, 0)), TypeError, "one sample"),
    (lambda: _core._refuse_lost("x", fg.lost.LostArray((60,))), ArgumentTypeError, "x: .*got an array of it: it comes"),
]


@pytest.mark.parametrize("k", range(len(REFUSED)))
def test_what_is_refused(k):
    call, error, match = REFUSED[k]
    before = nodes()
    with pytest.raises(error, match=match):
        call()
    assert nodes() == before and _core._check()
    assert (A.data, A.grad, T.tolist()) == (1.0, 0.0, [[1.0, 2.0], [3.0, 4.0]])


TAKEN = [
    (lambda: T.sum(0, keepdims=np.True_).tolist(), [[4.0, 6.0]]),
    (lambda: CONSTANT.__array__(np.float32).dtype.name, "float32"), (lambda: CONSTANT.__array__(int).tolist(), [1, 2]),
    (lambda: CONSTANT.__array__().dtype.name, "float64"),
    (lambda: fg.argmax(iter([1.0, 3.0, 2.0])), 1),
    (lambda: copy.copy(T * 2.0).tolist(), [[2.0, 4.0], [6.0, 8.0]]),
    (lambda: A.__array_ufunc__(np.negative, "__call__", T), NotImplemented),
    (lambda: A.__array_ufunc__(np.negative, "__call__", 1.0, out=(T,)), NotImplemented),
    (lambda: A.__array_ufunc__(np.negative, "__call__", 1.0, out=T), NotImplemented),
    (lambda: Value(1.0, label="x").label, "x"), (lambda: Value(1.0, label="").label, ""),
    (lambda: Value(1.0, label=3).label, 3), (lambda: Named(1.0, label="").label, ""),
    (lambda: Value(1.0, label=b"").label, b""),
]


@pytest.mark.parametrize("k", range(len(TAKEN)))
def test_what_is_taken(k):
    call, expected = TAKEN[k]
    before = nodes()
    found = call()
    assert found is expected or found == expected
    found = None
    assert nodes() == before and _core._check()


def test_whether_an_operand_has_changed():
    for make, change, expected in (
            (lambda: Value(2.0).log(), None, False), (lambda: A.log(), (A, -1.0), True), (lambda: A.log(), (A, 4.0), True),
            (lambda: Value(math.nan).sin(), None, False), (lambda: A.sin(), (A, math.nan), True),
            (lambda: A * B, (B, 7.0), True), (lambda: fg.where(A, B, C), None, False),
            (lambda: fg.where(A, B, C), (B, 7.0), True), (lambda: fg.where(A, B, C), (C, 7.0), False)):
        y, before = make(), [x.data for x in (A, B, C)]
        if change:
            change[0].data = change[1]
        assert _core._changed_since(y) is expected
        A.data, B.data, C.data = before


def test_a_neuron_of_a_subclass():
    """A layer of one neuron, and of two, compute with the operators of the class."""
    seen = []

    class Loud(Value):
        def __mul__(self, other):
            seen.append(other)
            return Value.__mul__(self, other)
        __rmul__ = __mul__

    for nout in (1, 2):
        layer = nn.Layer(2, nout, rng=1)
        x = [Loud(1.0), 2.0]
        plain = layer([1.0, 2.0])
        seen.clear()
        found = layer(x)
        found, plain = ([found], [plain]) if nout == 1 else (found, plain)
        assert np.allclose([y.data for y in found], [y.data for y in plain], rtol=1e-14) and len(seen) == nout


def test_a_network_with_a_layer_that_is_not_fused():
    model = nn.MLP(3, [4, 2], rng=1)
    x = [0.5, -1.0, 2.0]
    expected = [y.data for y in model(x)]
    model.layers[1].fused = False
    assert _core.network_forward(model.layers, x) is NotImplemented
    assert np.allclose([y.data for y in model(x)], expected, rtol=1e-14)


def test_a_watch_that_is_left_twice():
    watch = _core._Watch([A])
    assert watch.__exit__(None, None, None) is None
    with watch:
        assert watch.__enter__() is watch
        (A * 2.0).data
    assert watch.read == "data: read" and watch.__exit__(None, None, None) is None
    (A * 3.0).data
    assert not _core._is_recording()


def test_buffers_have_names():
    recording = _core._Recording([Value(1.0)])
    with recording:
        made = [_core._buffer_input(x, name, lambda: Tensor([1.0], requires_grad=False))
                for x, name in ((T, "a"), (T, "b"), (C, "a"), (T, "a"), (T, "b"), (C, "a"))]
    assert made[:3] == made[3:] and len({id(x) for x in made}) == 3
    assert _core._buffer_input(T, "a", None) is None   # outside of a recording


# ---- optimizers ----

def test_a_step_without_a_rule_does_nothing():
    values = [Value(1.0), Value(2.0), Value(3.0)]
    parameters, groups = _core.Parameters(values), [{"lr": 0.5}]

    def step():
        for x in values:
            x.grad = 1.0
        return _core.Parameters.step([parameters], groups)

    assert step() and [x.data for x in values] == [1.0, 2.0, 3.0]
    two, three = np.zeros(2), np.zeros(3)
    for arrays in ((two, three, three), (three, two, three), (three, three, two)):
        with pytest.raises(ValueError, match=r"state: expected arrays of shape \(3,\)"):
            parameters.adam({"step": 0}, *arrays, 0.9, 0.99, 1e-8, 0.0, False, False)
        assert step() and [x.data for x in values] == [1.0, 2.0, 3.0]
    parameters.sgd({}, None, 0.0, 0.0, 0.0, False, False)
    assert step() and [x.data for x in values] == [0.5, 1.5, 2.5]
    with pytest.raises(ValueError, match="state: expected arrays"):
        parameters.sgd({}, two, 0.9, 0.0, 0.0, False, False)
    assert step() and [x.data for x in values] == [0.5, 1.5, 2.5]
    assert not _core.Parameters.step([parameters], []) and not _core.Parameters.step([], groups)
    assert _core.Parameters([]).get_grad(np.zeros(0)) == 0.0


def test_groups_that_are_none():
    have = _core.Parameters.have
    assert have([{"a": 1}], ("a",), [(1,)])
    for groups in (({"a": 1},), [[1]], [None], [], [{"a": 1}, {"a": 1}], {"a": 1}):
        assert not have(groups, ("a",), [(1,)])


# ---- saved graphs ----

def saved():
    """A graph of two nodes above A, and where its parts are."""
    graph = (A * 2.0 + A).__reduce_ex__(4)[1][0].__reduce__()[1]
    assert graph[1][1] == ("LEAF", "MUL", "ADD")
    return graph


@pytest.mark.parametrize("name", ["PART", "FROZEN", "nothing", "", None, b"MUL", 3])
def test_a_saved_graph_of_unknown_operations(name):
    below, graph, ends, classes = saved()
    members = _core._restore_graph(below, graph, ends, classes)
    assert _core._member(members, 0).data == 3.0
    members = None
    before = nodes()
    with pytest.raises(ValueError, match="a saved Value is damaged: it has the unknown operation"):
        _core._restore_graph(below, (graph[0], ("LEAF", name, "ADD"), *graph[2:]), ends, classes)
    assert nodes() == before and _core._check()


@pytest.mark.parametrize("key", ["a", None, 1.0, -1, 7])
def test_a_saved_graph_with_classes_of_no_member(key):
    below, graph, ends, _ = saved()
    with pytest.raises(ValueError, match="a saved Value is damaged: expected a subclass of Value"):
        _core._restore_graph(below, graph, ends, {key: Named})
    assert type(_core._member(_core._restore_graph(below, graph, ends, {0: Named}), 0)) is Named and _core._check()


def numbers(*items):
    return b"".join(k.to_bytes(4, "little", signed=True) for k in items)


@pytest.mark.parametrize("integers, programs, match", [
    ((0, 0, 1, 2, 1, 1, 0, 1, 2, 0), (), "an instruction has a shape"),
    ((1, 0, 1, 2, 1, 1, 0, 1, 2, 0), None, "an instruction has a shape"),      # another program than there is
    ((0, 0, 1, 1, 0, 1, 0, 1, 2, 0), None, "has operands of other shapes"),    # a result that is the node itself
    ((0, 0, 2, 1, 1, 1, 0, 1, 2, 0), None, "has operands of other shapes"),    # in a column
    ((0, 0, 1, 3, 1, 1, 0, 1, 2, 0), None, "has operands of other shapes"),    # three of two results
    ((0, 0, 1, 2, 1, 0, 0), None, "has operands of other shapes"),             # no operands
    ((0, 0, 1, 2, 1, 1, 0, 1, 1, 0), None, "has operands of other shapes"),    # a shorter one
    ((0, 0, 1, 2, 1, 1, 1, 1, 2, 0, 0), None, "has operands of other shapes"),   # labels
])
def test_a_saved_call_of_another_form(integers, programs, match):
    program = record(lambda t: [t * 2.0], Tensor([1.0, 2.0]))
    body = program.__reduce__()[1][0]
    ends = (Value(1.0), Value(2.0))

    def graph(integers, bodies):
        count = integers[2] * integers[3]
        return (3, ("CALL",), b"\0", numbers(-1, -2), b"", numbers(*integers), b"", bytes(8 * count), bytes(8 * count), b"",
                b"", *bodies)

    good = _core._restore_graph([], graph((0, 0, 1, 2, 1, 1, 0, 1, 2, 0), [(body,)]), ends, None)
    assert good is not None
    before = nodes()
    with pytest.raises(ValueError, match=f"a saved Value is damaged: .*{match}"):
        _core._restore_graph([], graph(integers, [] if programs == () else [(body,)]), ends, None)
    assert nodes() == before and _core._check()


def test_a_saved_graph_with_a_frozen_number_that_is_no_leaf():
    below, graph, ends, classes = saved()
    for frozen in (numbers(), numbers(0), numbers(1), numbers(2, 1)):
        y = _core._member(_core._restore_graph(below, (*graph[:10], frozen), ends, classes), 0)
        A.grad = 0.0
        y.backward()
        assert (y.data, A.grad) == (3.0, 3.0) and _core._check()
    A.grad = 0.0
    for frozen in (numbers(3), numbers(-1)):
        with pytest.raises(ValueError, match="a saved Value is damaged: it has the frozen number"):
            _core._restore_graph(below, (*graph[:10], frozen), ends, classes)


def test_an_element_of_a_tensor_with_a_class_of_its_own():
    run = Tensor([1.0, 2.0]).__reduce__()[1][0]
    x = _core._restore_part(Named, run, 1)
    x.__dict__["mine"] = 3
    y = pickle.loads(pickle.dumps(x))
    assert type(y) is Named and (y.data, y.mine) == (2.0, 3) and _core._check()


# ---- rules that have gone ----

def test_a_node_whose_rule_has_gone():
    """As that of a released cycle, of which somebody has kept the node: it passes nothing on."""
    def rule():
        raise AssertionError("it has gone")

    x = Value(2.0)
    y = x * 3.0
    y._backward = rule
    kept = [d for d in gc.get_referrers(rule) if type(d) is dict and d.get("_backward") is rule]
    assert len(kept) == 1
    kept[0].clear()
    (y * 2.0).backward()
    assert y.grad == 2.0 and x.grad == 0.0
    slope, = _core.written([y * 2.0], [None], [x])
    assert slope is None or slope.data == 0.0
    assert _core._check()


# ---- in a process of its own ----

def alone(code):
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_numbers_of_python_without_numpy():
    alone("""
import sys
from fractions import Fraction
import flatgrad
from flatgrad import Value
a = Value(0.5)
assert a < Fraction(3, 4) and not a < Fraction(1, 4) and "numpy" not in sys.modules
for call in (lambda: flatgrad.sum([a, a], keepdims=1), lambda: a.__array_ufunc__(len, "__call__", a)):
    try:
        call()
    except TypeError as error:
        assert "expected" in str(error)
    else:
        raise AssertionError
assert "numpy" not in sys.modules
""")


def test_operators_and_init_put_on_the_class():
    alone("""
from flatgrad import Value, nn
made, seen = [], []
init, multiply = Value.__init__, Value.__mul__
layer = nn.Neuron(2)
plain = layer([1.0, 2.0]).data
Value.__mul__ = lambda self, other: seen.append(1) or multiply(self, other)
import flatgrad
with flatgrad.scalar_graph():
    assert abs(layer([1.0, 2.0]).data - plain) < 1e-12 and len(seen) == 2
Value.__init__ = lambda self, *args, **options: made.append(args) or init(self, *args, **options)
assert Value(3.0).data == 3.0 and made == [(3.0,)]
""")


def test_whole_numbers_of_any_size():
    program = record(lambda x: x * 2.0, Value(1.0))
    for number in (2**70, -2**70, 2**60):
        assert program([number])[0].data == 2.0 * number
    with pytest.raises((ValueError, OverflowError)):
        program([10**400])


def test_a_layer_of_more_results_than_fit_on_the_tape():
    layer = nn.Layer(1, 2**14)
    before = nodes()
    with pytest.raises(MemoryError, match="x: a layer over 65536 samples does not fit on the tape"):
        layer(np.ones((2**16, 1)))
    assert nodes() == before and _core._check()


# ---- contexts ----

def test_tracings_that_end_in_another_order():
    x, y = Value(1.0), Value(2.0)
    first, second = _core.tracing([x]), _core.tracing([y])
    first.__enter__(), second.__enter__()
    first.__exit__()
    assert float(x) == 1.0
    with pytest.raises(ArgumentTypeError, match="that a transform"):
        float(y)
    for _ in range(2):
        second.__exit__()
        assert (float(x), float(y)) == (1.0, 2.0)


@pytest.mark.parametrize("name", ["label", "note", "_op", "_prev"])
def test_what_an_argument_has_attached_is_not_read(name):
    """A leaf stands for it; what was made before or is made in the recording has its own."""
    before, x = Value(1.0), Value(1.0)
    before.note = "a note"
    with _core._Recording([x]):
        after = Value(2.0)
        after.note = "a note"
        for other in (before, after):
            assert getattr(other, name) == {"label": "", "note": "a note", "_op": "", "_prev": set()}[name]
        with pytest.raises(ArgumentTypeError, match="of an argument: read while a compiled function is recorded"):
            getattr(x, name)


def test_a_recording_that_the_collector_has_cleared():
    recording = cleared(_core._Recording([Value(1.0)]))
    with pytest.raises(RuntimeError, match="expected a recording that has been entered"):
        recording.program([A])
    recording = _core._Recording([Value(1.0)])
    recording.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="expected a recording that has been entered"):
        recording.program([A])
    recording = cleared(_core._Watch([A]))
    assert recording.__exit__(None, None, None) is None and not _core._is_recording() and _core._check()


@pytest.mark.parametrize("change", ["fewer", "another", "x"])
def test_a_layer_that_changes_while_room_is_made(change):
    heard = []
    for _ in range(4):
        layer, x = nn.Layer(2, 3, rng=1), [Value(1.0), 2.0]
        expected, fired = [y.data for y in layer(x)], []

        def act():
            if change == "fewer":
                layer.neurons.pop()
            elif change == "another":
                layer.neurons[0] = lambda x: Value(7.0)
            else:
                x.append(3.0)
            fired.append(1)

        with acting_when_room_is_made(act):
            try:
                found = [y.data for y in layer(x)]
            except RuntimeError as error:
                assert change == "x" and "the list changed while it was read" in str(error)
            else:
                if fired:
                    expected = {"fewer": expected[:2], "another": [7.0, *expected[1:]], "x": None}[change]
                assert np.allclose(found, expected, rtol=1e-14)
        heard += fired
    assert heard
