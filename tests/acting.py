"""Operands, finalizers and collections that act while they are asked, and what they act on: for the tests and checks of
hostile code."""
import contextlib
import ctypes
import gc
import math
import sysconfig

import flatgrad as fg
import numpy as np
from flatgrad import Tensor, Value, _core, losses, nn

ORDINARY = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError)


def numbers(x):
    """What a result consists of, nan as text."""
    if isinstance(x, Value):
        x = x.data
    elif isinstance(x, Tensor):
        x = x.tolist()
    elif isinstance(x, np.ndarray):
        x = x.tolist()
    if isinstance(x, (list, tuple)):
        return [numbers(item) for item in x]
    return "nan" if isinstance(x, float) and math.isnan(x) else x


class World:
    """What the actions work on."""

    def __init__(self):
        self.a, self.b = Value(0.5), Value(2.0)
        self.values = [Value(1.0), Value(2.0), Value(0.5)]
        self.rows = [[Value(1.0), 2.0], [Value(3.0), Value(4.0)]]
        self.tensor = Tensor([1.0, 2.0, 3.0])
        self.labels = np.array([0, 1])
        self.litter = []
        self.times = 0


def create(w):
    if len(w.litter) < 1000:
        w.litter.extend(Value(9.0) for _ in range(30))


def drop(w):
    w.litter.clear()


def collect(w):
    gc.collect()
    fg.collect()


def renumber(w):
    w.litter[:] = [Value(9.0) for _ in range(30)][::3]
    fg.collect()


def compute(w):
    with contextlib.suppress(RuntimeError):   # another backward pass may be under way
        (fg.dot(w.values[:1], [3.0]) * w.a).backward()


def lengthen(w):
    w.values.append(Value(4.0))
    w.rows.append([1.0])
    w.rows[0].append(Value(5.0))


def shorten(w):
    for x in (w.values, *w.rows, w.rows):
        if x:
            x.pop()


def replace(w):
    w.values[:] = ["text"] * 3
    w.rows[0][:] = [None, None]


def become(w):
    for x in (w.a, w.b, *w.values):
        if isinstance(x, Value):
            x.__init__(3.0, (Value(1.0), Value(2.0)), "op")


def initialise(w):
    for x in (w.tensor,):
        with contextlib.suppress(RuntimeError):
            x.__init__([0.0])


def relabel(w):
    w.labels[:] = 10**6


QUIET = [create, drop, collect, renumber, compute, initialise]   # which change no operand
LOUD = [lengthen, shorten, replace, become, relabel]


class Acting:
    """It acts whenever it is asked for an index or a truth value."""

    def __init__(self, world, action):
        self.world, self.action = world, action

    def act(self):
        self.world.times += 1
        self.action(self.world)

    def __index__(self):
        self.act()
        return 1

    def __bool__(self):
        self.act()
        return False


class ActingArray(Acting):
    def __array__(self, dtype=None, copy=None):
        self.act()
        return np.array([1.0, 2.0, 3.0])


class ActingSequence(Acting):
    def __iter__(self):
        for x in (1.0, 2.0, 3.0):
            self.act()
            yield x
        self.act()

    def __len__(self):
        self.act()
        return 3


class Iterated(list):
    """A list that acts while it is iterated over."""

    def __init__(self, items, acting):
        super().__init__(items)
        self.acting = acting

    def __iter__(self):
        for item in super().__iter__():
            self.acting.act()
            yield item

    def __len__(self):
        self.acting.act()
        return super().__len__()


# What each gives when nothing acts; x: __array__ and __index__, y: __iter__ and __len__.
READING = {
    "dot": lambda w, x, y: fg.dot(w.values, x, w.a), "dot, the other way": lambda w, x, y: fg.dot(x, w.values, w.a),
    "dot of a Tensor": lambda w, x, y: fg.dot(w.tensor, x), "dot of an iterator": lambda w, x, y: fg.dot(w.values, y),
    "linear": lambda w, x, y: fg.linear(w.values, [Iterated([1.0, w.a, 3.0], y), [1.0, 2.0, 3.0]], [w.a, w.b]),
    "linear of a Tensor": lambda w, x, y: fg.linear(
        w.tensor, [Iterated([1.0, 2.0, 3.0], y), [w.a, w.b, 3.0]], None, "gelu"),
    "where": lambda w, x, y: fg.where(w.tensor, w.values, x), "product": lambda w, x, y: w.tensor * x,
    "product of lists": lambda w, x, y: w.tensor * Iterated(w.values, y), "matmul": lambda w, x, y: w.tensor @ x,
    "sum of rows": lambda w, x, y: fg.sum([w.values, Iterated(w.values, y)]),
    "sum along": lambda w, x, y: fg.sum(w.rows, x),
    "softmax along": lambda w, x, y: fg.softmax(w.rows, x),
    "Tensor": lambda w, x, y: Tensor([w.values, Iterated(w.values, y)]),
    "constant": lambda w, x, y: Tensor(w.values, requires_grad=x), "element": lambda w, x, y: w.tensor[x],
    "elements": lambda w, x, y: w.tensor[(x,)], "slice": lambda w, x, y: w.tensor[x:],
    "step": lambda w, x, y: w.tensor[::x],
    "row": lambda w, x, y: Tensor([w.values, [1.0, 2.0, 3.0]])[x],
    "column": lambda w, x, y: Tensor([w.values] * 2)[0, x],
    "reshape": lambda w, x, y: w.tensor.reshape(x, 3), "layer": lambda w, x, y: fixed(nn.Layer(3, 2))(x),
    "layer with a list": lambda w, x, y: with_weights(w)(x), "neuron": lambda w, x, y: with_weights(w).neurons[0](y),
    "network": lambda w, x, y: fixed(nn.MLP(3, [4, 1]))(Iterated(w.values, y)),
    "pairwise": lambda w, x, y: _core.pairwise("squared_error", w.values, x, "sum"),
    "mse": lambda w, x, y: losses.mse(w.tensor, x), "maximum": lambda w, x, y: fg.maximum(w.tensor, x),
    "cross entropy": lambda w, x, y: _core.cross_entropy(w.rows, w.labels),
    "cross entropy of an array": lambda w, x, y: _core.cross_entropy(
        [w.values, Iterated([1.0, 2.0, 3.0], y)], w.labels),
    "weighted sum": lambda w, x, y: _core.weighted_sum(w.values, y, w.a),
    "children": lambda w, x, y: Value(1.0, Iterated(w.values, y), y), "derivatives": lambda w, x, y: _core.derivatives(
        Iterated([w.a * 2.0, w.tensor], y), Iterated([w.a, w.tensor], y)),
    "depends": lambda w, x, y: _core.depends(Iterated([w.a], y), w.values),
    "parameters": lambda w, x, y: _core.Parameters(Iterated([w.a, w.tensor], y)).count,
}


def fixed(module):
    """With weights that are no random numbers."""
    for k, p in enumerate(module.parameters()):
        p.data = 0.25 * (k % 5) - 0.5
    return module


def with_weights(w):
    """A layer of which the world has a list of weights."""
    layer = fixed(nn.Layer(3, 2))
    layer.neurons[0].w = w.values
    return layer


class Finalizer:
    def __init__(self, act):
        self.act = act

    def __del__(self):
        self.act()


@contextlib.contextmanager
def acting_when_room_is_made(act):
    """Garbage whose finalizer acts: it goes when room is made for the next node."""
    garbage = Value(1.0) * 2.0
    garbage.finalizer = Finalizer(act)
    above = Value(1.0)
    _core._testing(collect_floor=0)
    del garbage
    try:
        yield
    finally:
        _core._testing(collect_floor=131072)
    assert _core._check() and above.data == 1.0


@contextlib.contextmanager
def every_collection(function, thorough=True):
    """Run the function whenever Python's collector runs, and that almost wherever an object is made."""
    busy = []

    def callback(phase, info):
        if not busy:
            busy.append(1)
            try:
                function()
            finally:
                busy.pop()

    before, enabled = gc.get_threshold(), gc.isenabled()
    gc.enable()   # a test before may have left it off
    # What CPython keeps for reuse is used up: only new memory makes it collect.
    used = [([], {}, (k,), (k, k), (k, k, k)) for k in range(2100 if thorough else 0)]
    gc.callbacks.append(callback)
    # A Python without the GIL waits for garbage in proportion to what is alive, unless the second number is 0.
    gc.set_threshold(1, 0 if sysconfig.get_config_var("Py_GIL_DISABLED") else 1, 1)
    try:
        yield used
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(callback)
        if not enabled:
            gc.disable()


def cleared(x):
    """x, after what Python's collector does to an object of a cycle that is garbage: it drops what it refers to. Finalizers
    of other objects of the cycle may use it afterwards."""
    at = 24 * ctypes.sizeof(ctypes.c_void_p)   # PyTypeObject.tp_clear
    clear = ctypes.c_void_p.from_address(id(type(x)) + at).value
    ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object)(clear)(x)
    return x
