"""What nobody can reach any more is freed, whatever objects hang between the nodes: as Python's collector frees the
same program with micrograd. And what somebody can reach stays."""
import abc
import collections
import dataclasses
import functools
import gc
import itertools
import math
import os
import random
import subprocess
import sys
import threading
import types
import weakref

import pytest
from micrograd.engine import Value as Micrograd

import flatgrad
from flatgrad import Tensor, Value

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


class Owner:
    """An object as anybody's."""


class Slotted:
    __slots__ = ("v", "other", "__weakref__")


class Op:
    """An operation as an object, as many write it."""

    def __init__(self, cls, x):
        self.x = x
        self.out = cls(math.tanh(x.data), (x,), "tanh")
        self.out._backward = self.backward

    def backward(self):
        self.x.grad += (1 - self.out.data**2) * self.out.grad


@dataclasses.dataclass(eq=False)
class Record:
    v: object = None
    more: list = dataclasses.field(default_factory=list)


# ---- shapes of cycles: each takes the class of Values and a function that watches objects ----

def op_object(V, watch):
    op = Op(V, V(0.5))
    watch(op, op.out, op.x)


def op_chain(V, watch):
    x = V(0.5)
    for _ in range(50):
        op = Op(V, x)
        watch(op, op.out)
        x = op.out * 2.0


def owner(V, watch):
    o, v = Owner(), V(1.0)
    o.v, v.owner = v, o
    watch(o, v)


def owners_in_a_ring(V, watch):
    objects, values = [Owner() for _ in range(30)], [V(k) for k in range(30)]
    for k in range(30):
        objects[k].v, values[k].owner = values[(k + 1) % 30], objects[k]
    watch(*objects, *values)


def slots(V, watch):
    o, v = Slotted(), V(1.0)
    o.v, v.owner = v, o
    watch(o, v)


def namespace(V, watch):
    v = V(1.0)
    v.owner = types.SimpleNamespace(v=v)
    watch(v, v.owner)


def generator(V, watch):
    def counting(v):
        while True:
            yield v

    v = V(1.0)
    v.generator = counting(v)
    next(v.generator)
    watch(v, v.generator)


def generator_not_begun(V, watch):
    v = V(1.0)
    v.generator = (v * k for k in itertools.count())
    g = (v.data for v in [v])
    v.other = g
    watch(v, v.generator, g)


def coroutine(V, watch):
    async def wait(v):
        await asyncio_like()
        return v

    @types.coroutine
    def asyncio_like():
        yield 1

    v = V(1.0)
    v.task = wait(v)
    v.task.send(None)
    watch(v, v.task)


def containers(V, watch):
    v = V(1.0)
    v.hung = [collections.deque([v]), collections.defaultdict(list, {1: v}), collections.OrderedDict(v=v),
              {v}, frozenset([v]), (v, (v,)), {"v": v}, {v: 1}, collections.Counter([v]),
              collections.ChainMap({"v": v}), types.MappingProxyType({"v": v})]
    watch(v, v.hung[0], v.hung[3], v.hung[4])


def tuples_of_values_only(V, watch):
    v, w = V(1.0), V(2.0)
    v.hung, w.hung = (w, v), {"v": v}
    gc.collect()   # which stops to look at such tuples
    watch(v, w)


def partials(V, watch):
    v = V(1.0)
    v._backward = functools.partial(print, v, sep=functools.partial(int, v))
    watch(v, v._backward)


def bound_method(V, watch):
    class Layer:
        def rule(self):
            self.v.grad += 1

    o, v = Layer(), V(1.0)
    o.v, v._backward = v, o.rule
    watch(o, v, Layer)


def weak(V, watch):
    v, o = V(1.0), Owner()
    o.weak, v.weak = weakref.ref(v), weakref.ref(o)
    v.o = o
    o.v = v
    watch(v, o)


def weak_with_callback(V, watch):
    v, o = V(1.0), Owner()
    v.o, o.v = o, v
    o.weak = weakref.ref(v, lambda _, o=o: None)
    watch(v, o)


def weak_dictionaries(V, watch):
    v = V(1.0)
    v.keys, v.values = weakref.WeakKeyDictionary({v: v}), weakref.WeakValueDictionary({1: v})
    watch(v, v.keys)


def dataclass(V, watch):
    v = V(1.0)
    v.record = Record(v, [v])
    watch(v, v.record)


def local_class(V, watch):
    """A class that dies with what made it."""
    v = V(1.0)

    class Local:
        held = v

        def method(self):
            return v

    v.owner = Local()
    watch(v, v.owner, Local)


def local_class_alone(V, watch):
    v = V(1.0)
    v.cls = type("Local", (Owner,), {"v": v})
    watch(v, v.cls)


def abstract(V, watch):
    class Base(abc.ABC):
        @abc.abstractmethod
        def f(self):
            ...

    class Derived(Base):
        def f(self):
            return self.v

    v = V(1.0)
    v.owner = Derived()
    v.owner.v = v
    watch(v, v.owner, Base, Derived)


def executed(V, watch):
    """The globals of a function that are no module's."""
    space = {"Value": V, "__name__": "__main__"}
    exec("def rule():\n    v.grad += 1\nv = Value(1.0)\nv._backward = rule", space)
    watch(space["v"], space["rule"])


def module_that_is_not_imported(V, watch):
    module = types.ModuleType("nowhere")
    exec("v = None\ndef rule():\n    return v", module.__dict__)
    module.v = V(1.0)
    module.v.module = module
    module.v._backward = module.rule
    watch(module, module.v)


def property_and_descriptors(V, watch):
    v = V(1.0)
    v.hung = [property(lambda self: v), staticmethod(lambda: v), classmethod(lambda cls: v)]
    watch(v, v.hung[0].fget)


def iterators(V, watch):
    v = V(1.0)
    v.hung = [iter([v]), iter((v,)), iter({v}), iter({"v": v}.values()), zip([v], [1]), map(id, [v]), filter(None, [v]),
              enumerate([v]), reversed([v]), itertools.chain([v]), itertools.repeat(v), itertools.cycle([v]),
              slice(v, None), iter(lambda: v, None)]
    watch(v, v.hung[-1])


def exception(V, watch):
    v = V(1.0)
    try:
        raise ValueError(v)
    except ValueError as error:
        v.error = error
    watch(v, v.error)


def cache(V, watch):
    @functools.lru_cache(maxsize=8)
    def f(v):
        return v

    v = V(1.0)
    f(v)
    v.f = f
    watch(v, f)


def thread_local(V, watch):
    v = V(1.0)
    v.local = threading.local()
    v.local.v = v
    watch(v, v.local)


def closures(V, watch):
    def tanh(x):
        out = V(math.tanh(x.data), (x,), "tanh")

        def rule():
            x.grad += (1 - out.data**2) * out.grad

        out._backward = rule
        watch(out, rule)
        return out

    tanh(tanh(V(0.5)) * 2.0)


def annotated(V, watch):
    v = V(1.0)

    def rule(a: v = 1, *, b=v):
        ...

    rule.me = rule
    v._backward = rule
    watch(v, rule)


def subclass(V, watch):
    class Named(V):
        def __init__(self, data, name):
            super().__init__(data)
            self.name = name

    v, w = Named(1.0, "v"), Named(2.0, "w")
    v.other, w.other = w, [v]
    v.hung = Owner()
    v.hung.v = w
    watch(v, w, v.hung, Named)


def own_attribute_of_the_class(V, watch):
    class Slots(V):
        __slots__ = ("mark",)

    v = Slots(1.0)
    v.mark = Owner()
    v.mark.v = v
    v.owner = v.mark
    watch(v, v.mark)


def finalizer(V, watch):
    class Final:
        def __del__(self):
            seen.append(self.v.owner is self)

    seen = []
    o, v = Final(), V(1.0)
    o.v, v.owner = v, o
    watch(o, v)
    return seen


def generator_with_a_finally(V, watch):
    def counting(v):
        try:
            yield v
        finally:
            seen.append(v.data)

    seen = []
    v = V(3.0)
    v.generator = counting(v)
    next(v.generator)
    watch(v, v.generator)
    return seen


# Held, in some way.

def held_by_the_user(V, watch):
    o, v = Owner(), V(1.0)
    o.v, v.owner = v, o
    watch(o, v)
    return o


def held_far_away(V, watch):
    v = w = V(1.0)
    for _ in range(100):   # each leads to the next by an attribute alone
        o = Owner()
        o.v = V(2.0)
        w.owner, w = o, o.v
        watch(o, w)
    return v


def held_as_an_operand(V, watch):
    op = Op(V, V(0.5))
    o = Owner()
    op.out.owner, o.v = o, op.out
    watch(op, op.out, o)
    y = op.out
    for _ in range(20):
        y = y * 2.0
    return y


def held_by_a_frame(V, watch):
    def counting():
        o, v = Owner(), V(1.0)
        o.v, v.owner = v, o
        watch(o, v)
        yield

    g = counting()
    next(g)
    return g


def held_by_a_class(V, watch):
    class Local:
        pass

    v = V(1.0)
    Local.v, v.owner = v, Local
    watch(v)
    return Local


def held_by_an_object_array(V, watch):
    numpy = pytest.importorskip("numpy")
    o, v = Owner(), V(1.0)
    o.v, v.owner = v, o
    array = numpy.empty(1, dtype=object)
    array[0] = o
    watch(o, v)
    return array


def half_held(V, watch):
    """One of two cycles that share a Value below."""
    x = V(1.0)
    a, b = Owner(), Owner()
    a.v, b.v = x * 2.0, x * 3.0
    a.v.owner, b.v.owner = a, b
    watch(a, a.v, b, b.v)   # not x: a node that is needed may do without its object
    return b


SHAPES = [shape for name, shape in list(globals().items())
          if isinstance(shape, types.FunctionType) and shape.__code__.co_varnames[:2] == ("V", "watch")]


def weak_references(objects):
    """To those of the objects that can have them."""
    return [weakref.ref(x) for x in objects if type(x).__weakrefoffset__]


def survivors(shape, V):
    """Which of the watched objects live: first what the program returned is held, then nothing is."""
    watched = []

    def watch(*objects):
        watched.extend(weak_references(objects))

    held = shape(V, watch)
    result = []
    for _ in range(2):
        gc.collect()
        flatgrad.collect()
        gc.collect()
        result.append([reference() is not None for reference in watched])
        held = str(held) if isinstance(held, list) and all(type(x) in (bool, float) for x in held) else None
        result.append(held)
    return result


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_as_much_survives_as_with_micrograd(shape):
    expected = survivors(shape, Micrograd)
    assert survivors(shape, Value) == expected
    assert not any(expected[2])


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_pythons_collector_alone_frees_them(shape):
    watched = []
    shape(Value, lambda *objects: watched.extend(weak_references(objects)))
    for _ in range(3):   # after a finalizer has held on to it, or has begun another round
        gc.collect()
    assert [reference() for reference in watched if reference() is not None] == []


def test_finalizers_see_what_was_there():
    class Final:
        def __del__(self):
            seen.append((self.v.owner is self, self.v.data, self.v.label))

    seen = []
    o = Final()
    o.v = Value(3.0, label="v")
    o.v.owner = o
    del o
    flatgrad.collect()
    assert seen == [(True, 3.0, "v")]


def test_a_finalizer_runs_once_and_may_hold_on():
    class Final:
        def __del__(self):
            kept.append(self)

    kept = []
    o = Final()
    o.v = Value(3.0) * 2.0
    o.v.owner = o
    del o
    flatgrad.collect()
    (o,) = kept
    assert o.v.owner is o and o.v.data == 6.0
    o.v.backward()
    reference = weakref.ref(o)
    kept.clear()
    del o
    flatgrad.collect()
    assert reference() is None and not kept


def test_a_finalizer_that_builds_collects_and_drops():
    class Final:
        def __del__(self):
            self.v.owner = None
            self.v.more = [Value(k) * 2.0 for k in range(1000)]
            flatgrad.collect()
            gc.collect()

    references = []
    for _ in range(20):
        o = Final()
        o.v = Value(3.0)
        o.v.owner = o
        references.append(weakref.ref(o))
        o = None
    flatgrad.collect()
    flatgrad.collect()
    assert not any(reference() for reference in references)


def test_weak_callbacks():
    called = []
    o, v = Owner(), Value(1.0)
    o.v, v.owner = v, o
    references = [weakref.ref(o, called.append), weakref.ref(v, called.append)]
    finalize = weakref.finalize(o, called.append, "finalized")
    del o, v
    flatgrad.collect()
    assert len(called) == 3 and not finalize.alive and not any(reference() for reference in references)


def test_tensors_and_rules():
    def instruction():
        t = Tensor([[1.0, 2.0], [3.0, 4.0]])
        y = (t @ t).sum()
        o = Owner()
        o.t, o.rule, o.row, y.owner = t, y._backward, (t * 2.0)[1], o
        o.row[0].owner = o
        return o

    def parts_and_leaves():
        t = Tensor([[1.0, 2.0], [3.0, 4.0]])
        o = Owner()
        o.t = t * 2.0
        o.t[0, 0].owner, t[1, 1].owner = o, o
        return o

    for make in (instruction, parts_and_leaves):
        o = make()
        reference = weakref.ref(o)
        flatgrad.collect()
        assert reference() is o
        del o
        flatgrad.collect()
        assert reference() is None


def test_held_by_another_threads_frame():
    ready, done = threading.Event(), threading.Event()
    references, seen = [], []

    def work():
        o, v = Owner(), Value(5.0)
        o.v, v.owner = v, o
        references.append(weakref.ref(o))
        ready.set()
        done.wait()
        seen.append((o.v.data, v.owner is o))

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    flatgrad.collect()
    gc.collect()
    assert references[0]() is not None
    done.set()
    thread.join()
    assert seen == [(5.0, True)]
    flatgrad.collect()
    assert references[0]() is None


def test_held_by_code_in_c():
    """A sort's key function, and an iterator within C, hold what only they know of."""
    def make(k):
        o = Owner()
        o.v = Value(k)
        o.v.owner = o
        return o

    def key(o):
        flatgrad.collect()
        gc.collect()
        return -o.v.data

    ordered = sorted((make(k) for k in range(5)), key=key)
    assert [o.v.owner.v.data for o in ordered] == [4.0, 3.0, 2.0, 1.0, 0.0]


def test_a_running_generator():
    def counting():
        v = Value(1.0)
        v.me = me
        for _ in range(5):
            flatgrad.collect()
            gc.collect()
            v = v * 2.0 + v.me.gi_running
            v.me = me
            yield v.data

    me = counting()
    assert list(me) == [3.0, 7.0, 15.0, 31.0, 63.0]


@pytest.mark.parametrize("seed", range(6))
def test_random_programs(seed):
    """Objects and Values that refer to each other at random, some of them held: as many live as with micrograd."""
    def make(k, V, things):
        some = [rng.choice(things) for _ in range(rng.randrange(3))]
        kind = rng.randrange(9)
        if kind < 3:
            operands = [x for x in some if isinstance(x, V)]
            return V(float(k), tuple(operands), "made") if operands else V(float(k))
        if kind == 3:
            return types.SimpleNamespace(hung=some)
        if kind == 4:
            return functools.partial(print, *some)
        if kind == 5:
            return (lambda *more: lambda: more)(*some)
        if kind == 6:
            return collections.deque(some)
        if kind == 7:
            return set(map(id, some)) and {x for x in some if x.__hash__} or set()
        o = Slotted()
        o.v = some
        return o

    def program(V):
        things = [V(0.0), Owner()]
        for k in range(300):
            things.append(make(k, V, things))
            x, y = rng.choice(things), rng.choice(things)
            if isinstance(x, (V, Owner, types.SimpleNamespace)):
                setattr(x, rng.choice("abc"), y)
            elif isinstance(x, Slotted):
                x.other = y
            elif isinstance(x, collections.deque):
                x.append(y)
        held = [rng.choice(things) for _ in range(rng.randrange(4))]
        return held, weak_references([x for x in things if not isinstance(x, V)])

    result = []
    for V in (Micrograd, Value):
        rng = random.Random(seed)
        held, references = program(V)
        alive = []
        while True:
            gc.collect()
            flatgrad.collect()
            gc.collect()
            alive.append([reference() is not None for reference in references])
            if not held:
                break
            held.pop()
        result.append(alive)
    assert result[0] == result[1]


def test_alive_while_collected_all_the_time(moving):
    """With ids that change at every operation, and a walk before each."""
    rng = random.Random(7)
    held = {}
    for step in range(1_500):
        o = Owner()
        o.v = rng.choice(list(held)).v * 2.0 if held else Value(1.0)
        o.v.owner, o.number = o, o.v.data
        if len(held) < 8 or rng.random() < 0.3:
            held[o] = None
        elif rng.random() < 0.5:
            del held[rng.choice(list(held))]
        for other in held:
            assert other.v.owner is other and other.v.data == other.number


@pytest.mark.slow
def test_memory_stays_flat_without_asking():
    """Objects that lead back to their Values, in a loop."""
    def step(k):
        op = Op(Value, Value(float(k % 7)))
        op.out.owner = types.SimpleNamespace(op=op, v=op.out)

    gc.disable()   # the tape's own collections do it
    try:
        peak = []
        for k in range(150_000):
            step(k)
            if k % 1000 == 0:
                peak.append(flatgrad.stats()["nodes"])
    finally:
        gc.enable()
    assert max(peak) < 150_000


@pytest.mark.skipif(os.name == "nt", reason="no signals to send")
def test_interrupted():
    """Ctrl-C while cycles are looked for: at once, and the next time they are freed."""
    program = """if True:
        import gc, os, signal, threading, time
        import flatgrad
        from flatgrad import Value
        signal.signal(signal.SIGINT, signal.default_int_handler)   # which a shell's background job is born without
        gc.disable()
        class Owner: pass
        def make():
            for k in range(400_000):
                o = Owner()
                o.v = Value(1.0)
                o.v.owner = o
                o.others = [o, [o], [o], [o]]
        make()
        def press():
            time.sleep(0.03)
            pressed.append(time.process_time())
            os.kill(os.getpid(), signal.SIGINT)
        pressed = []
        def wait():   # the jump back may raise, and to Python 3.14 it lies outside of a try around the loop
            while True:   # one walk may be faster than the thread
                flatgrad.collect()
                if not pressed:
                    make()
        try:
            threading.Thread(target=press).start()
            wait()
        except KeyboardInterrupt:
            late = time.process_time() - pressed[0]
        assert late < 2.0, late
        flatgrad.collect()
        gc.collect()
        flatgrad.collect()
        assert flatgrad.stats()["nodes"] == 0, flatgrad.stats()
        """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)
