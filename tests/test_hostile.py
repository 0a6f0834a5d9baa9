"""Operands that run code of their own while they are read, and calls that make no sense: never a crash, a wrong
number or an unsound tape.

Each of the three rules at the top of _core.pyx has its enemies here: `__array__`, `__index__`, `__iter__`,
`__len__` and `__bool__` of an operand, finalizers and weak references' callbacks where room is made, and Python's
collector, which runs wherever an object is made. They create Values, drop them, collect, change lists that are
being read, let Values become other nodes, and initialise Tensors a second time.
"""
import contextlib
import copy
import gc
import inspect
import itertools
import math
import operator
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import weakref

from acting import (LOUD, ORDINARY, QUIET, READING, ActingArray, ActingSequence, Finalizer, World, collect, compute,
                    create, drop, every_collection, numbers, renumber)
from checks import memory
import numpy as np
import pytest

import flatgrad as fg
from flatgrad import Tensor, Value, _core, losses, nn, optim

# ---- a class is no array, and what makes no array of itself is none ----

class Returns:
    """An array, says it, and it gives what it has been told to."""

    def __init__(self, result):
        self.result = result

    def __array__(self, dtype=None, copy=None):
        if isinstance(self.result, Exception):
            raise self.result
        return self if self.result is None else self.result

    def __repr__(self):
        return "Returns()"


def boxed(x):
    """An array without dimensions that has the object in it."""
    array = np.empty((), dtype=object)
    array[()] = x
    return array


def of_itself():
    x = Returns(None)
    x.result = boxed(x)
    return x


def array_of_itself():
    array = np.empty((), dtype=object)
    array[()] = array
    return array


def list_of_itself():
    x = []
    x.append(x)
    return x


def rows_of_itself():
    x = [[1.0], [2.0]]
    x[1].append(x)
    return x


def deep(levels=1_200):
    x = []
    for _ in range(levels):
        x = [x]
    return x


class Unprintable:
    def __repr__(self):
        raise KeyError("no")


class Everything:
    """It has every attribute."""

    def __getattr__(self, name):
        return self

    def __repr__(self):
        return "Everything()"


class Posing(Returns):
    """It says that it is an array, to isinstance() as well."""

    __class__ = property(lambda self: np.ndarray)


HOSTILE = {
    "np.ndarray": lambda: np.ndarray, "np.float64": lambda: np.float64, "Tensor": lambda: Tensor,
    "Value": lambda: Value, "int": lambda: int, "list": lambda: list,
    "a class with a hostile metaclass": lambda: Meta("C", (), {}),
    "itself": lambda: Returns(None), "an array of itself": of_itself, "nonsense": lambda: Returns("nonsense"),
    "raising": lambda: Returns(ZeroDivisionError("mine")), "a 0-d array in itself": array_of_itself,
    "a list in itself": list_of_itself, "rows with themselves": rows_of_itself, "a deep list": deep,
    "without a repr": Unprintable, "with every attribute": Everything, "posing": lambda: Posing(None),
    "no Tensor yet": lambda: Tensor.__new__(Tensor),
    "no Parameters yet": lambda: _core.Parameters.__new__(_core.Parameters),
    "of the core": lambda: _core._Run(), "complex": lambda: 1j, "text": lambda: "1.0", "None": lambda: None,
    "negative length": lambda: Sized([1.0, Value(2.0)], -1), "long": lambda: Sized([1.0, Value(2.0)], 10**6),
    "endless": lambda: Sized([1.0, Value(2.0)], 2**62), "three dimensions": lambda: np.ones((2, 2, 2)),
    "objects": lambda: np.array([object(), Value(1.0)], dtype=object), "nothing": lambda: [],
    "infinite int": lambda: 10**400,
}


class Meta(type):
    def __array__(self, dtype=None, copy=None):
        return np.ones(3)


class Sized(list):
    """A list that says another length."""

    def __init__(self, items, length):
        super().__init__(items)
        self.length = length

    def __len__(self):
        return self.length


class SizedTuple(tuple):
    def __len__(self):
        return 10**6


# What writes files, starts programs, replaces parts of flatgrad, or switches the tests' own levers.
DANGEROUS = {"_testing", "own_calls", "install_as_micrograd", "save", "load", "save_state", "run", "main", "recording",
             "_mark_lost", "scalar_graph", "no_grad", "tracing", "_enter_anomaly"}   # the last ones leave a block open


def callables():
    """Every public function and class, the private ones of the core, and the methods of instances."""
    tensor = Tensor([[1.0, 2.0], [3.0, 4.0]])
    owners = {"flatgrad": fg, "_core": _core, "losses": losses, "nn": nn, "optim": optim, "functional": fg.functional}
    for prefix, owner in owners.items():
        for name in sorted(set(getattr(owner, "__all__", ())) | (set(vars(_core)) if owner is _core else set())):
            x = getattr(owner, name)
            if callable(x) and name not in DANGEROUS and not name.startswith("__"):
                yield f"{prefix}.{name}", x
    for name, x in [("Value", Value(2.0)), ("Tensor", tensor), ("Weights", nn.Neuron(2)),
                    ("_rule", Value(1.0)._backward), ("Parameters", _core.Parameters([Value(1.0)])),
                    ("_Attribute", vars(Value)["note"]), ("Layer", nn.Layer(2, 2)), ("MLP", nn.MLP(2, [2, 1])),
                    ("_Run", tensor.__reduce__()[1][0])]:
        for member in sorted(set(dir(type(x))) - set(dir(object)) | {"__init__", "__reduce_ex__"}):
            if member not in DANGEROUS and callable(getattr(x, member, None)):
                yield f"{name}.{member}", getattr(x, member)
        for attribute in ("data", "grad", "_op", "_backward", "w", "b", "nonlin", "activation", "own"):
            yield f"{name}.{attribute} =", lambda value, *, x=x, attribute=attribute: setattr(x, attribute, value)
        for attribute in ("data", "grad", "_op", "w", "shape", "nothing"):
            yield f"del {name}.{attribute}", lambda _, *, x=x, attribute=attribute: delattr(x, attribute)


Value(0.0).note = "so that the class has an attribute of users"


# An array in itself ends NumPy, in `array + 1` already: it is for the calls alone that take arrays.
@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind != "a 0-d array in itself"])
def test_every_call_with_a_hostile_operand(kind):
    """In every place, with ordinary operands in the others."""
    wrong = []
    for name, function in callables():
        v, t = Value(0.5), Tensor([1.0, 2.0])
        for places in [(0,), (0, v), (v, 0), (0, 0), (t, 0), (0, t), (v, v, 0), (t, t, 0), (v, 0, v), (0, t, 0),
                       (0, 0, 0), (v, 0, t, 0)]:
            hostile = HOSTILE[kind]()
            try:
                with contextlib.redirect_stdout(None), np.errstate(all="ignore"):
                    result = function(*[hostile if type(x) is int else x for x in places])
                    if inspect.isgenerator(result):
                        list(itertools.islice(result, 3))
            except RecursionError as error:
                if "deep" not in kind and "itself" not in kind and "themselves" not in kind:
                    wrong.append((name, places, error))
            except ORDINARY:
                pass
            except MemoryError:   # of an honest 2**62 items
                if kind != "endless":
                    wrong.append((name, places, "MemoryError"))
            except Exception as error:
                wrong.append((name, places, error))
            result = None
        fg.set_detect_anomaly(False)   # which one of them switches on
    for cls in (Value, Tensor):   # which functools.wraps asks for, and Python then puts there
        if "__annotations__" in vars(cls):
            del cls.__annotations__
    assert wrong == []
    assert _core._check()


@pytest.mark.parametrize("call", [
    lambda x: fg.sum(x), lambda x: Tensor(x), lambda x: Tensor([1.0]) * x, lambda x: x * Tensor([1.0]),
    lambda x: setattr(Tensor([1.0]), "data", x), lambda x: setattr(Tensor([1.0]), "grad", x),
    lambda x: Tensor([1.0]) @ x, lambda x: fg.linear(x, Tensor([[1.0]])), lambda x: fg.linear([1.0], x),
    lambda x: fg.matvec(x, [1.0]), lambda x: fg.matvec([[1.0]], x), lambda x: fg.dot(x, [1.0]),
    lambda x: fg.softmax(x), lambda x: fg.maximum(Tensor([1.0]), x), lambda x: fg.where(x, Tensor([1.0]), 1.0),
    lambda x: nn.Layer(2, 3)(x), lambda x: nn.MLP(2, [3])(x), lambda x: nn.Neuron(2)(x), lambda x: Value(x),
    lambda x: Value(1.0) * x, lambda x: losses.mse(x, [1.0]), lambda x: losses.cross_entropy(x, [1]),
    lambda x: _core.pairwise("hinge", x, [1.0], "mean"), lambda x: _core.cross_entropy(x, np.array([0])),
    lambda x: nn.BatchNorm(2)(x), lambda x: nn.Embedding(2, 2)(x), lambda x: optim.SGD(x, 0.1),
])
@pytest.mark.parametrize("kind", ["np.ndarray", "np.float64", "Tensor", "itself", "an array of itself",
                                  "a class with a hostile metaclass", "a list in itself", "a 0-d array in itself"])
def test_what_is_no_operand_is_a_type_error(call, kind):
    """Or a ValueError: NumPy's of what it cannot make an array of, ours of what has another shape."""
    other = {"itself": [ValueError], "a list in itself": [ValueError],
             "a 0-d array in itself": [ValueError, RecursionError]}
    with pytest.raises((TypeError, *other.get(kind, ()))):
        call(HOSTILE[kind]())


def nested(levels, shape):
    """Arrays in arrays, or with no levels one in itself."""
    array = innermost = np.full(shape, 2.0, dtype=object)
    for _ in range(levels):
        array, array[(0,) * len(shape)] = np.full(shape, 2.0, dtype=object), array
    if not levels:
        innermost[(0,) * len(shape)] = innermost
    return array


@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow])
def test_arrays_in_arrays(op):
    """In time: NumPy does not count how deep it goes, and the stack is to last on each Python and in each thread."""
    v = Value(3.0)
    assert op(v, nested(3, (1,)))[0][0][0][0].data == op(3.0, 2.0) == op(v, nested(2, (2, 2)))[1, 1].data
    for array in nested(0, (1,)), nested(0, (3,)), nested(0, (2, 2)), nested(200, (1,)), nested(200, (2, 3)):
        for left, right in (v, array), (array, v):
            with pytest.raises(RecursionError, match="operand of .*: expected an array of numbers and Values, got one "
                                                     "that is in itself"):
                op(left, right)
    assert op(nested(30, (1,)), v).shape == (1,)
    assert _core._check()


def test_an_error_of_the_operand_itself_is_not_hidden():
    with pytest.raises(ZeroDivisionError, match="mine"):
        fg.sum(HOSTILE["raising"]())


def test_a_message_about_what_has_no_repr():
    with pytest.raises(TypeError, match="data: expected a real number, got Unprintable whose repr.. raises KeyError"):
        Value(Unprintable())


def test_an_array_in_itself_next_to_a_value():
    for operation in (lambda x: Value(1.0) + x, lambda x: x * Value(1.0)):
        with pytest.raises((RecursionError, TypeError)):
            operation(array_of_itself())


# ---- subclasses of list and tuple ----

@pytest.mark.parametrize("make", [lambda items: Sized(items, 10**6), lambda items: Sized(items, 0),
                                  lambda items: Sized(items, 2**60), lambda items: Sized(items, -1), SizedTuple],
                         ids=["long", "empty", "endless", "negative", "tuple"])
@pytest.mark.parametrize("scalar", [False, True])
def test_a_sequence_has_its_real_size(make, scalar):
    a, b = Value(1.0), Value(2.0)
    layer, neuron, network = nn.Layer(2, 3), nn.Neuron(2), nn.MLP(2, [3, 1])
    with fg.scalar_graph() if scalar else contextlib.nullcontext():
        for function in (
                fg.sum, fg.mean, fg.max, fg.logsumexp, Tensor, layer, neuron, network,
                fg.softmax, fg.log_softmax, lambda x: fg.dot(x, [1.0, 2.0]), lambda x: fg.dot([1.0, 2.0], x, a),
                lambda x: fg.matvec([[1.0, 2.0]], x), lambda x: fg.linear(x, [[1.0, 2.0]], [a]),
                lambda x: fg.linear([1.0, 2.0], [x], None), lambda x: Tensor([[1.0, 2.0]]) * x,
                lambda x: x * Tensor([1.0, 2.0]), lambda x: Tensor([x, x]), lambda x: fg.sum([x, [a, b]], 0),
                lambda x: Tensor([[1.0, 2.0]]) @ x, lambda x: losses.mse(x, [1.0, 2.0]),
                lambda x: _core.pairwise("squared_error", x, [1.0, 2.0], "none"),
                lambda x: _core.cross_entropy(x, np.array([1])),
                lambda x: _core.cross_entropy([x, x], np.array([1, 0])),
                lambda x: _core.weighted_sum(x, [1.0, 2.0], a), lambda x: _core.weighted_sum([a, b], x, a)):
            for items in ([a, b], [a, 2.0], [1.0, 2.0]):
                assert numbers(function(make(items))) == numbers(function(items))


def test_a_sequence_gives_what_iterating_over_it_gives():
    class Doubled(list):
        def __iter__(self):
            return iter([2.0 * x for x in super().__iter__()])

    a = Value(1.0)
    assert fg.sum(Doubled([a, 2.0])).data == 6.0 and fg.dot(Doubled([a]), [3.0]).data == 6.0


# ---- made once ----

def test_a_tensor_keeps_its_numbers():
    t = Tensor([1.0, 2.0, 3.0])
    view, step = t[1:], optim.SGD([t], 0.1)
    for x in (t, view, t * 2.0, Tensor([1.0], requires_grad=False)):
        before = x.tolist(), x.shape, x.requires_grad
        with pytest.raises(RuntimeError, match="keeps its numbers"):
            x.__init__([0.0])
        assert (x.tolist(), x.shape, x.requires_grad) == before
    t.sum().backward()
    neighbour = Tensor([5.0] * 8)
    step.step()
    assert t.tolist() == pytest.approx([0.9, 1.9, 2.9]) and neighbour.tolist() == [5.0] * 8


def test_a_tensor_without_numbers():
    t = Tensor.__new__(Tensor)
    assert (t.shape, t.size, t.tolist(), list(t), repr(t), t.grad.shape) == ((0,), 0, [], [], "Tensor([])", (0,))
    for call in (t.sum, t.backward, t.item, t.exp, lambda: t + 1.0, lambda: t[0], lambda: t @ [1.0], t.detach,
                 lambda: _core.derivatives([t], [Value(1.0)]), lambda: optim.SGD([t], 0.1).step(), lambda: copy.copy(t),
                 lambda: pickle.loads(pickle.dumps(t)), lambda: nn.Layer(2, 2)(t), lambda: setattr(t, "data", [1.0])):
        with contextlib.suppress(*ORDINARY):
            call()
        assert t.shape == (0,) and _core._check()
    t.__init__([1.0, 2.0])
    assert t.tolist() == [1.0, 2.0]
    again = pickle.loads(pickle.dumps(t))
    assert again.tolist() == copy.copy(t).tolist() == copy.deepcopy(t).tolist() == [1.0, 2.0]


def test_a_tensor_made_while_it_is_made():
    t = Tensor.__new__(Tensor)

    class Sneaky:
        def __array__(self, dtype=None, copy=None):
            t.__init__([7.0, 8.0, 9.0])
            return np.ones(2)

    with pytest.raises(RuntimeError, match="keeps its numbers"):
        t.__init__(Sneaky())
    assert t.tolist() == [7.0, 8.0, 9.0]
    t = Tensor.__new__(Tensor)
    for call in (lambda: fg.dot(Sneaky(), t), lambda: Tensor([[1.0], [2.0]]) * t, lambda: fg.where(t, Sneaky(), 1.0)):
        with pytest.raises(TypeError, match="that __init__ has not made"):
            call()


def test_parameters_keep_their_numbers():
    values = [Value(1.0), Value(2.0)]
    parameters = _core.Parameters(values)
    with pytest.raises(RuntimeError, match="cannot be called again"):
        parameters.__init__([Value(1.0) for _ in range(100)])
    assert parameters.count == 2
    kept = parameters.__reduce__()[1][0]
    assert isinstance(kept, tuple) and kept == tuple(values)   # nothing that users could change
    empty = _core.Parameters.__new__(_core.Parameters)
    for call in (empty.zero_grad, lambda: empty.grad_norm(2.0), lambda: empty.shared_with(parameters),
                 lambda: parameters.shared_with(empty), lambda: empty.scale_grad(1.0),
                 lambda: _core.Parameters.step([empty], [{"lr": 0.1}])):
        with pytest.raises(RuntimeError, match="has not been called"):
            call()


@pytest.mark.parametrize("cls", [_core._Rule, _core._Attribute])
def test_what_makes_no_sense_empty_is_never_empty(cls):
    with pytest.raises(TypeError):
        cls.__new__(cls)
    for wrong in (None, 1.0, cls):
        with pytest.raises(TypeError):
            cls(wrong)
    assert not hasattr(cls, "__setstate_cython__")   # which would fill it with anything


def test_a_rule_is_copied_and_pickled_with_its_node():
    a = Value(2.0)
    b = a * a
    b.rule = b._backward
    for c in (copy.deepcopy(b), pickle.loads(pickle.dumps(b))):
        c.grad = 1.0
        c.rule()
        assert next(iter(c._prev)).grad == 4.0


@pytest.mark.parametrize("cls", [_core._Run, _core._Rule, _core._Attribute, Tensor, _core.Parameters])
def test_what_is_laid_out_for_c_has_no_subclasses(cls):
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (cls,), {})


def test_parameters_compare_groups_of_any_length():
    have = _core.Parameters.have
    assert have([{"a": 1, "b": None}], ("a", "b"), [(1, None)])
    for seen in ([()], [(1,)], [(1, None, 2)], [None], []):
        assert not have([{"a": 1, "b": None}], ("a", "b"), seen)
    with pytest.raises(TypeError):
        have([{"a": 1}], ("a",), [[1]])


@pytest.mark.parametrize("row", ["LEAF", "PART", "RUN", "LAYER", "MAP", "SUM", "CUSTOM", "LOCAL", "nothing", ""])
def test_a_row_without_operands_is_not_applied(row):
    for operands in [(), (Value(1.0),), (1.0, 2.0), (Value(1.0),) * 4]:
        with pytest.raises(ValueError, match="row: expected a row"):
            _core._apply(row, *operands)


def test_places_that_are_in_no_part_are_refused():
    t = Tensor([1.0, 2.0])
    for wrong in (-1, 1, 1 << 31, (1 << 32) + 2, 1 << 62, -(1 << 40)):
        for places in ([wrong], [[wrong, 1 << 32]], wrong):
            with pytest.raises(IndexError, match="in none of the parts"):
                _core._moved("x", [t], lambda _, places=places: np.array(places))
    assert _core._moved("x", [t], lambda places: places[0][::-1]).tolist() == [2.0, 1.0]


def test_levers_of_the_tests_take_what_makes_sense():
    for wrong in ({"limit": 2**32 - 1}, {"sweep_chunk": 0}, {"limit": -1}, {"sweep_chunk": -1}):
        with pytest.raises((ValueError, OverflowError)):
            _core._testing(**wrong)


def test_a_saved_tensor_has_no_more_elements_than_numbers():
    restore, (run, *_) = Tensor([1.0]).__reduce__()
    for shape in [(0, 2, 1, 0, 0, 2), (0, 1 << 20, 1 << 20, 0, 0, 2), (0, 1, 2, 0, 0, 1)]:
        with pytest.raises(ValueError, match="damaged"):
            restore(run, *shape, True)


# ---- operands that run code ----

def call(operation, action):
    """The world and what the operation came to: its numbers, or an ordinary error."""
    world = World()
    try:
        return world, numbers(READING[operation](world, ActingArray(world, action), ActingSequence(world, action)))
    except (*ORDINARY, MemoryError) as error:
        assert not isinstance(error, RecursionError)
        return world, type(error)


@pytest.mark.parametrize("operation", READING)
def test_operands_that_act(operation, moving):
    _, expected = call(operation, lambda world: None)
    assert not isinstance(expected, type), "what nothing disturbs succeeds"
    for action in QUIET + LOUD:
        world, got = call(operation, action)
        assert action in LOUD or got == expected, action.__name__
        assert _core._check() and world.tensor.tolist() == [1.0, 2.0, 3.0]
        assert all(math.isfinite(x.data) for x in (world.a, world.b))


@pytest.mark.parametrize("operation", READING)
def test_finalizers_that_act_when_room_is_made(operation, nothing_left_behind):
    _, expected = call(operation, lambda world: None)
    for action in QUIET + LOUD:
        times = []
        for _ in range(3):   # what dies below something living goes when room is made
            world = World()
            garbage = [world.a * 2.0 for _ in range(20)]
            for x in garbage:
                x.finalizer = Finalizer(lambda world=world: (times.append(1), action(world)))
            above = Value(1.0)
            quiet = ActingArray(world, lambda w: None)
            _core._testing(collect_floor=0)
            del garbage, x
            try:
                got = numbers(READING[operation](world, quiet, ActingSequence(world, lambda w: None)))
            except ORDINARY as error:
                got = type(error)
            _core._testing(collect_floor=131072)
            assert action in LOUD or got == expected, action.__name__
            assert _core._check() and above.data == 1.0 and world.tensor.shape == (3,)
            assert world.tensor.tolist() == [1.0, 2.0, 3.0]
        assert times


@pytest.mark.parametrize("operation", READING)
def test_weak_references_that_act(operation, moving):
    _, expected = call(operation, lambda world: None)
    for action in QUIET + LOUD:
        world, kept = World(), []

        def dies(world):
            x = Value(1.0)
            kept.append(weakref.ref(x, lambda _: action(world)))

        try:
            got = numbers(READING[operation](world, ActingArray(world, dies), ActingSequence(world, dies)))
        except ORDINARY as error:
            got = type(error)
        assert action in LOUD or got == expected
        assert _core._check()


@pytest.mark.parametrize("operation", READING)
def test_a_collector_that_acts(operation, moving):
    _, expected = call(operation, lambda world: None)
    for action in QUIET + LOUD:
        world = World()
        acting, iterated = ActingArray(world, lambda w: None), ActingSequence(world, lambda w: None)
        got = None
        with every_collection(lambda: action(world)):
            try:
                got = READING[operation](world, acting, iterated)
            except ORDINARY as error:
                got = type(error)
        assert action in LOUD or numbers(got) == expected, action.__name__
        got = None
        assert _core._check() and world.tensor.tolist() == [1.0, 2.0, 3.0]


ACTIONS = (create, drop, collect, renumber, compute)


@pytest.mark.parametrize("action, moving", [
    *((action, "as it is") for action in ACTIONS),
    *(pytest.param(action, "collecting all the time", marks=[] if action in (drop, compute) else pytest.mark.slow)
      for action in ACTIONS)], indirect=["moving"], ids=lambda part: getattr(part, "__name__", part))
def test_a_collector_that_acts_in_every_call(action, moving):
    """The calls that `python tests/checks memory` has one or more of for every function and member."""
    # One namespace for all: what they change they change for the worse only for each other.
    for name, call_ in memory.CASES.items():
        if name in ("_testing", "collect", "collect cycles", "stats") or "Parameters" in name and "raises" in call_:
            continue
        world = World()
        namespace = {"raises": memory.raises, "raises_or_not": memory.raises_or_not, "pickled": memory.pickled}
        exec(OPERANDS_CODE, namespace)
        exec("def case():\n    " + call_, namespace)
        with every_collection(lambda: action(world), thorough=False):
            namespace["case"]()
        namespace.clear()
        assert _core._check(), name


OPERANDS_CODE = compile(memory.OPERANDS, "operands", "exec")


@pytest.mark.parametrize("around", [contextlib.nullcontext, fg.no_grad, fg.detect_anomaly])
def test_values_that_a_collector_finds_half_made(around):
    """An instance of a subclass is there for the collector before it has its node."""
    class Sub(Value):
        pass

    found = []

    def use():
        for x in gc.get_objects():
            if type(x) is Sub and x not in got:
                found.append(x)
                x.__init__(3.0, (Value(1.0),), "op")
                x.note = 1

    x, got = Value(1.0), []
    for k in range(40):
        garbage = x * 2.0
        garbage.finalizer = Finalizer(use)
        above = Value(2.0)
        _core._testing(collect_floor=0)
        del garbage
        with around():
            got.append(Sub(float(k)))
        _core._testing(collect_floor=131072)
        assert _core._check()
    assert above.data == 2.0 and [y.data for y in got] == [float(k) for k in range(40)]


def test_attributes_that_are_set_while_others_are():
    for _ in range(20):
        x = Value(1.0)

        def other():
            x.other = 1

        with every_collection(other):
            x.note = 2
            garbage = []
            while not hasattr(x, "other"):   # CPython keeps lists for reuse, how many depends on the tests before
                garbage.append([[] for _ in range(200)])
                assert len(garbage) < 1000
        assert x.note == 2 and x.other == 1
        del garbage


def test_a_restored_part_has_one_object():
    """A finalizer asks for the number of a run that is just being restored."""
    t = Tensor([1.0, 2.0, 3.0])
    run = t.__reduce__()[1][0]
    for _ in range(5):
        seen, garbage = [], t[0] * 2.0
        garbage.finalizer = Finalizer(lambda: seen.append(t[1]))
        above = Value(1.0)
        _core._testing(collect_floor=0)
        del garbage
        x = _core._restore_part(Value, run, 1)
        _core._testing(collect_floor=131072)
        assert x is t[1] and all(y is x for y in seen) and above.data == 1.0
        renumbered = [Value(1.0) for _ in range(100)][::7]
        fg.collect()
        assert x.data == 2.0 and _core._check() and len(renumbered) == 15
        del x, seen[:]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python's collector runs between its own instructions only")
def test_parameters_whose_values_move_while_they_are_looked_for():
    """Finding the stretches runs finalizers, which make a Value the handle of another node."""
    for moved, times in itertools.product(range(3), range(1, 4)):
        values = [Value(float(k)) for k in range(3)]
        parameters = _core.Parameters(values)
        state, buffer = {"momentum_buffer": None}, np.zeros(3)
        neighbours = [Value(7.0) for _ in range(3)]
        parameters.sgd(state, buffer, 0.9, 0.0, 0.0, False, False)
        for x in values:
            x.grad = 1.0
        done = []

        def move():
            if len(done) < times:
                done.append(values[moved].__init__(float(moved), (neighbours[0],), "moved"))
                values[moved].grad = 1.0

        with every_collection(move):
            _core.Parameters.step([parameters], [{"lr": 0.5}])
            parameters.zero_grad()
        assert [x.data for x in neighbours] == [7.0] * 3 and _core._check()
        assert [x.grad for x in values] == [0.0] * 3


def test_a_step_writes_its_state_when_all_have_taken_theirs():
    """What was in the state goes, and its finalizer makes a Value of the next group another node's."""
    first, second = [Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]
    after = [Value(7.0) for _ in range(4)]
    groups = [_core.Parameters(first), _core.Parameters(second)]
    for x in (*first, *second):
        x.grad = 1.0
    for parameters in groups:
        parameters.adam({"step": 0}, np.zeros(2), np.zeros(2), None, 0.9, 0.99, 1e-8, 0.0, False, False)
    state = {"momentum_buffer": None}
    groups[0].sgd(state, np.zeros(2), 0.9, 0.0, 0.0, False, False)
    state["momentum_buffer"] = Finalizer(lambda: second[0].__init__(9.0, (Value(1.0),), "moved"))
    _core.Parameters.step(groups, [{"lr": 0.5}, {"lr": 0.5}])
    assert [x.data for x in first] == [0.5, 1.5] and second[0].data == 9.0 and second[1].data == pytest.approx(3.5)
    assert [x.data for x in after] == [7.0] * 4 and _core._check()


def test_groups_that_are_compared_while_they_change():
    class Key(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            seen.clear()
            return str.__eq__(self, other)

    seen = [(1.0, 2.0)]
    with contextlib.suppress(IndexError):
        _core.Parameters.have([{Key("lr"): 1.0, Key("b"): 2.0}], ("lr", "b"), seen)


def test_labels_are_read_once():
    """The user's array is written to while room is made."""
    logits = Tensor([[0.5, 1.0], [2.0, -1.0]])
    expected = _core.cross_entropy(logits, np.array([0, 1])).data
    for wrong in (10**9, -1, 2):
        labels = np.array([0, 1])
        garbage = logits[0, 0] * 2.0
        garbage.finalizer = Finalizer(lambda: labels.__setitem__(slice(None), wrong))
        above = Value(1.0)
        _core._testing(collect_floor=0)
        del garbage
        loss = _core.cross_entropy(logits, labels)
        _core._testing(collect_floor=131072)
        assert loss.data == expected and above.data == 1.0 and labels.tolist() == [wrong] * 2
        loss.backward()


def test_a_pass_that_begins_while_derivatives_are_prepared():
    a, b = Value(1.0), Value(2.0)
    slow = a * 2.0
    slow._backward = lambda: time.sleep(0.005)

    def passes():
        for _ in range(5):
            with contextlib.suppress(RuntimeError):
                slow.backward()

    thread = threading.Thread(target=passes)
    thread.start()
    while thread.is_alive():
        with contextlib.suppress(RuntimeError):
            assert _core.derivatives([b * 3.0], [b]).tolist() == [[3.0]]
    thread.join()
    assert _core._check()


def test_methods_called_with_something_else():
    """In a process of its own: unbound, those of compiled classes took anything for a Value."""
    code = textwrap.dedent("""
        import flatgrad._core as core
        for cls in [x for x in vars(core).values() if isinstance(x, type)]:
            for name, member in list(vars(cls).items()):
                if type(member).__name__ in ("cython_function_or_method", "method_descriptor", "wrapper_descriptor"):
                    for x in (3, object(), "text", [1, 2], None):
                        for more in ((), (1,), (1, 2)):
                            try:
                                member(x, *more)
                            except (TypeError, AttributeError):
                                continue
                            if name not in ("__init__", "__enter__", "__exit__", "__call__"):
                                print(cls.__name__, name, x, more)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
