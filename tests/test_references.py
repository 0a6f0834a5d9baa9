"""The collector believes reference counts, and from Python 3.14 on not every reference is counted: a frame's stack
borrows what one of its variables holds. Every place that believes a count, with what it assumes, is tested here on the
Python that runs: `find_dead` in walk.pxi, `handle_of` and `run_object` in handles.pxi, `is_current` in neurons.pxi and
`_Block` in contexts.pxi."""
import gc
import inspect
import sys
import weakref

import pytest

import flatgrad
from flatgrad import Tensor, Value
from flatgrad.nn import Neuron

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


class Owner:
    """An object as anybody's."""


def collect():
    flatgrad.collect()
    gc.collect()
    flatgrad.collect()


# ---- walk.pxi: an object of which more references are counted than are found is held from outside ----

def on_the_stack(v, o, seen):
    """Suspended with its variables on the stack as well, which the stack does not count from 3.14 on."""
    seen.append((v, o, v, o, (yield)))


def twice_on_the_stack(v, o, seen):
    seen.append((v, o, (yield), v, o, (yield)))


def in_an_expression(v, o, seen):
    seen.append(v.data + (v * (yield)).data)
    yield o


def in_a_call_with_keywords(v, o, seen):
    seen.append(dict(v=v, o=o, sent=(yield)))


def in_two_variables(v, o, seen):
    w = u = v
    seen.append((u, w, o, (yield), v))


def in_a_loop(v, o, seen):
    for x in [v]:
        seen.append((x, v, o, (yield)))


def with_a_cell(v, o, seen):
    def inner():
        return v

    seen.append((v, inner(), o, (yield)))


SUSPENDED = [on_the_stack, twice_on_the_stack, in_an_expression, in_a_call_with_keywords, in_two_variables, in_a_loop,
             with_a_cell]


class Awaited:
    def __await__(self):
        return (yield)


async def coroutine(v, o, seen):
    seen.append((v, o, await Awaited(), v))


async def agenerator(v, o, seen):
    yield (v, o, await Awaited(), seen.append(v))


def begun(function, v, o, seen):
    """Called, and run up to where it is suspended first."""
    made = function(v, o, seen)
    running = made if inspect.isgenerator(made) else made.__anext__() if inspect.isasyncgen(made) else made
    running.send(None)
    return made, running


@pytest.mark.parametrize("held", ["v", "o", "generator"])
@pytest.mark.parametrize("function", [*SUSPENDED, coroutine, agenerator], ids=lambda f: f.__name__)
def test_a_suspended_frame_is_not_ended_while_it_can_be_reached(function, held):
    """v leads to o, o to the frame, the frame to both; one of them is held by us, once."""
    seen = []
    v, o = Value(1.5), Owner()
    v.o, o.v = o, v
    o.made, o.running = begun(function, v, o, seen)
    kept = {"v": v, "o": o, "generator": o.made}[held]
    reference = weakref.ref(o)
    del v, o
    for _ in range(3):
        collect()
    o = reference()
    assert o is not None and o.v.o is o and o.v.data == 1.5
    while True:   # it goes on where it was
        try:
            o.running.send(2.0)
        except (StopIteration, StopAsyncIteration):
            break
    if function is agenerator:
        o.made.aclose().close()
    assert len(seen) == 1
    del o, kept
    seen.clear()
    collect()
    assert reference() is None


@pytest.mark.parametrize("function", [*SUSPENDED, coroutine, agenerator], ids=lambda f: f.__name__)
def test_a_suspended_frame_that_nobody_reaches_is_freed(function):
    v, o = Value(1.5), Owner()
    v.o, o.v = o, v
    o.made, o.running = begun(function, v, o, [])
    reference = weakref.ref(o)
    del v, o
    collect()
    assert reference() is None


def test_what_the_frame_of_an_error_holds():
    """The frame of a call that has ended counts its variables, those among them that the caller had lent."""
    def fails(x, y):
        raise ValueError(x.data)

    def run():
        v, o = Value(2.5), Owner()
        v.o, o.v = o, v
        try:
            fails(v, o)
        except ValueError as error:
            o.error = error
        return o.error

    error = run()
    error.__traceback__.tb_next.tb_frame.clear   # a frame object is there
    collect()
    variables = error.__traceback__.tb_next.tb_frame.f_locals
    assert variables["x"].o is variables["y"] and variables["y"].error is error and variables["x"].data == 2.5
    reference = weakref.ref(variables["y"])
    del error, variables
    collect()
    assert reference() is None


def test_lent_to_a_call_that_collects():
    """The variables of a call may borrow from its caller's, over several calls."""
    def innermost(v, o):
        collect()
        return v.data + o.v.data, v.o is o

    def inner(v, o):
        return innermost(v, o)

    def outer():
        v, o = Value(3.0), Owner()
        v.o, o.v = o, v
        return inner(v, o), inner(v=v, o=o), innermost(*(v, o)), weakref.ref(o)

    *results, reference = outer()
    assert results == [(6.0, True)] * 3
    collect()
    assert reference() is None


@pytest.mark.skipif(sys.version_info < (3, 13), reason="f_locals writes to a running frame from 3.13 on")
def test_lent_by_a_variable_that_is_overwritten_meanwhile():
    def inner(v):
        sys._getframe(1).f_locals["v"] = None
        sys._getframe(1).f_locals["o"] = None
        collect()
        return v.data, v.o.v is v

    def outer():
        v, o = Value(3.0), Owner()
        v.o, o.v = o, v
        reference = weakref.ref(o)
        return inner(v), v, o, reference

    result, v, o, reference = outer()
    assert (result, v, o) == ((3.0, True), None, None)
    collect()
    assert reference() is None


def test_on_the_stack_only_while_a_finalizer_collects():
    """Operands and arguments that nothing but a stack holds, while a finalizer, a property and a generator collect."""
    class Final:
        def __init__(self, number):
            self.number = number

        def __del__(self):
            collect()

        def __index__(self):
            collect()
            return self.number

        @property
        def value(self):
            v = Value(self.number)
            v.o = Owner()
            v.o.v = v
            collect()
            return v

    def results(v):
        yield v
        collect()
        yield v * 2.0

    def names(v):
        return v.o.v is v

    assert names(Final(3).value) and names(Final(Final(4).number).value)
    assert (Final(3).value * Final(4).value + Final(5).value).data == 17.0
    assert sum(results(Final(3).value)).data == 9.0
    assert [x.o.v.data for x in (Final(k).value for k in range(3))] == [0.0, 1.0, 2.0]
    assert Tensor([[1.0, 2.0]])[Final(0), Final(1)].data == 2.0
    assert max(Final(1).value, Final(2).value, key=lambda v: (collect(), v.o.v.data)).data == 2.0
    collect()


# ---- handles.pxi: a Value whose count is not 0 is alive ----

def test_a_value_that_waits_to_be_destroyed_is_not_handed_out():
    """Python puts off the destruction of deeply nested objects, and keeps its list of them within them. A finalizer
    asks for the node of a Value that may be in that list, at every depth of a period of it."""
    class Sub(Value):
        pass

    class Final:
        __slots__ = ("asks",)   # put off as well

        def __del__(self):
            self.asks()

    class Plain:
        __slots__ = ()          # not put off

        def __del__(self):
            found.append(result._children[0])

    found = []
    for depth in range(2250, 2650):
        found.clear()
        leaf = Sub(3.0)
        leaf.note = depth
        result = leaf * 2.0
        final = Final()
        final.asks = lambda: found.append(result._children[0])
        nested = [Plain(), final, leaf] if depth % 2 else [leaf, final, Plain()]
        del leaf, final
        for _ in range(depth):
            nested = [nested]
        del nested
        assert len(found) == 2 and result._children[0].data == 3.0
        assert result._children[0] is found[1] or depth % 2 == 0   # what was found first may have been the old one
        result.backward()
        assert result._children[0].grad == 2.0
        result = None


@pytest.mark.parametrize("held", [1, 2])
def test_a_handle_is_one_object_as_long_as_anybody_has_it(held):
    """Also if only a variable that a stack borrows from has it."""
    def same(v, address):
        collect()
        return id(w._children[0]) == address and w._children[0] is v

    for k in range(200):
        v = Value(float(k))
        w = v * 2.0
        assert same(v, id(v))
        if held == 2:
            other = v
            assert same(other, id(v))


# ---- neurons.pxi: a list of weights with one reference is ours alone ----

def test_a_list_of_weights_that_somebody_has_stays_the_neurons():
    def call_then_change(weights, neuron):
        neuron([1.0, 1.0])
        neuron([1.0, 1.0])
        weights[0] = Value(100.0)   # which micrograd would use as well
        return neuron([1.0, 1.0]).data

    neuron = Neuron(2, nonlin=False)
    assert call_then_change(neuron.w, neuron) > 90.0
    weights = neuron.w
    assert call_then_change(weights, neuron) > 90.0
    neuron([1.0, 1.0])
    weights[1] = Value(1000.0)
    assert neuron([1.0, 1.0]).data > 900.0
    neuron.w[0] = Value(-5000.0)
    assert neuron([1.0, 1.0]).data < -900.0
    taken = (lambda: neuron.w)()
    neuron([0.0, 1.0])
    (lambda w: w.__setitem__(1, Value(7000.0)))(taken)
    assert neuron([0.0, 1.0]).data > 900.0


# ---- contexts.pxi: blocks that nobody else has let go of each other one by one ----

def test_a_long_chain_of_blocks_that_are_never_left():
    """Generators that are dropped within their blocks, each with the one around it; no recursion; none stays."""
    def within(depth):
        with flatgrad.no_grad():
            if depth:
                yield from within(depth - 1)
            yield depth

    kept = []
    for _ in range(50):
        one = within(100)
        next(one)
        kept.append(one)
    del one
    kept.reverse()
    while kept:
        kept.pop()
        collect()
    x = Value(2.0)
    assert (x * x)._children == (x, x)
