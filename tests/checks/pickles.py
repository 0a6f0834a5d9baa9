"""Damaged pickles: bytes, and what the functions that restore are given, changed at random.

Whatever pickles is pickled: graphs of Values and Tensors, with attributes, rules and subclasses, layers, models,
optimizers, schedules, Trainers, compiled and flat functions, recorded calls of programs, random generators. Bytes are
flipped, cut out, overwritten and doubled, or the arguments of our functions that restore are swapped, left out and
replaced by strange ones. Loading them ends with an ordinary error, or with something that can be used: printed,
copied, computed and differentiated, with ordinary errors. Afterwards the tape is sound, and as many nodes are alive
as before. Names that were not in the pickle are not looked up: a pickle may call anything, so those from elsewhere
are not to be loaded.
"""
import collections
import contextlib
import copy
import io
import pickle
import random
import warnings

import flatgrad as fg
import numpy as np
from checks import children
from checks.files import cut, cut_out, double, flip_bits
from flatgrad import Tensor, Value, nn, optim
from flatgrad.export.flat import loaded_plans
from flatgrad.optim import lr_scheduler

from leaks import nodes

SHORT = 4.0   # seconds

ROOM = 4 << 30   # bytes of address space that a round may take

ERRORS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError, EOFError, ImportError,
          pickle.PickleError, MemoryError, AssertionError, OSError, SystemError)


class Sub(Value):
    pass


W = Value(0.5)
T = Tensor([0.5, -0.25])


def plain(x):
    return (x * W).sin() + (T * x).sum()


def looped(x):
    end, path = fg.scan(lambda c, v: (c * W + v, c * v), x, T)
    return end * path.sum()


def of_rows(x):
    return fg.vmap(lambda v: (v * W).tanh())(x).sum()


compiled, compiled_loop = fg.compile(plain), fg.compile(looped)
compiled_rows = fg.compile(of_rows)


@fg.compile
def loss(x):
    return ((W * x).sin() * T).sum()


def graphs():
    a, t = Value(0.5), Tensor([[1.0, 2.0], [0.5, -1.0]])
    y = ((a * t).tanh().sum() + a.exp()) ** 2
    y.note, a.owner = "a note", [y, {"a": a}]
    sub = Sub(1.0) * a
    sub.more = (t[0], t[:, 1])
    return [y, a, t, sub, t[0, 1], (t @ t).softmax(1), Value(1.0, (a, y), (2.0, 3.0))]


def modules():
    model = nn.Sequential(nn.Layer(2, 3, rng=1), nn.LayerNorm(3), nn.Dropout(0.1, rng=2), nn.Layer(3, 1, rng=3))
    model(np.ones((2, 2))).sum().backward()
    optimizer = optim.Adam(model.parameters(), 0.1, amsgrad=True)
    optimizer.step()
    return [model, nn.MLP(2, [3, 1], rng=1), optimizer, lr_scheduler.CosineAnnealingLR(optimizer, 10),
            optim.LBFGS([Tensor([1.0])])]


def programs():
    row = np.linspace(0.0, 1.0, 4)
    loss(0.5), compiled(0.5), compiled_loop(0.5), compiled_rows(row)
    return [compiled, compiled_loop(0.5), compiled_rows(row), compiled(Value(0.25)), loss.flat,
            fg.Random(np.random.default_rng(3))]


def each_alone():
    return {f"{f.__name__} {k}": x for f in (graphs, modules, programs) for k, x in enumerate(f())}


STRANGE = [None, -1, 0, 1, 2, 2**31, 2**32 - 1, 2**63 - 1, -2**63, 2**64, 1.5, float("nan"), "", "text", b"", b"\0" * 8,
           b"\xff" * 64, (), [], {}, [None], Value, Tensor]


class Restoring(pickle.Unpickler):
    """It looks up what the pickle had, and gives to some of our functions something else."""

    def __init__(self, data, names, rng, often):
        super().__init__(io.BytesIO(data))
        self.names, self.rng, self.often = names, rng, often

    def find_class(self, module, name):
        if (module, name) not in self.names:
            raise pickle.UnpicklingError(f"{module}.{name} was not in it")
        found = super().find_class(module, name)
        if isinstance(found, type) or not module.startswith("flatgrad") or self.rng.random() >= self.often:
            return found
        rng = self.rng   # the unpickler's own memo has the function: no cycle through it
        return lambda *given: found(*changed(given, rng))


def changed(x, rng):
    """A tuple, of which something is other than it was."""
    x = list(x)
    if not x:
        return x
    k, kind = rng.randrange(len(x)), rng.randrange(6)
    if kind == 0:
        x[k] = rng.choice(STRANGE)
    elif kind == 1:
        del x[k]
    elif kind == 2:
        x.insert(k, rng.choice(x))
    elif kind == 3:
        j = rng.randrange(len(x))
        x[k], x[j] = x[j], x[k]
    elif isinstance(x[k], tuple):
        x[k] = tuple(changed(x[k], rng))
    elif isinstance(x[k], list):
        x[k] = changed(x[k], rng)
    elif isinstance(x[k], dict):
        x[k] = dict(zip(x[k], changed(x[k].values(), rng)))
    elif isinstance(x[k], bytes) and x[k]:
        data = bytearray(x[k])
        if rng.random() < 0.5:   # a number of four or eight bytes
            at = rng.randrange(len(data)) // 4 * 4
            data[at:at + 4] = rng.choice([b"\0\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f",
                                          bytes(data[:4]), bytes([rng.randrange(256), 0, 0, 0])])[:len(data) - at]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        x[k] = bytes(data)
    elif isinstance(x[k], np.ndarray):
        x[k] = rng.choice([x[k].reshape(-1)[:-1], x[k].astype(object), x[k].astype("f4"), x[k][..., None]])
    elif isinstance(x[k], int):
        x[k] = x[k] + rng.choice([-1, 1, 2, 2**31, -2**31])
    else:
        x[k] = rng.choice(STRANGE)
    return x


def overwrite(data, rng):
    at = rng.randrange(len(data))
    new = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", bytes([rng.randrange(256)]), b"0", b".", b"R", b"(",
                      b"b"])
    return data[:at] + new + data[at + len(new):]


def swap(data, rng):
    """Two stretches of the same length in each other's place."""
    n = rng.randrange(1, 40)
    a, b = sorted(rng.randrange(max(len(data) - n, 1)) for _ in range(2))
    return data if a + n > b else data[:a] + data[b:b + n] + data[a + n:b] + data[a:a + n] + data[b + n:]


class Rounds:
    """What `children` runs."""

    def __init__(self):
        self.counts = collections.Counter()
        with contextlib.suppress(ImportError):
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))
        self.saved = {}
        for name, x in each_alone().items():
            data = pickle.dumps(x, protocol=4)
            found = set()

            class Looking(pickle.Unpickler):
                def find_class(self, module, name):
                    found.add((module, name))
                    return super().find_class(module, name)

            Looking(io.BytesIO(data)).load()
            self.saved[name] = data, found
        x = found = None
        fg.grad(compiled)(0.5), fg.grad(compiled_loop)(0.5)
        nodes()

    def round(self, seed):
        rng = random.Random(seed)
        name = rng.choice(sorted(self.saved))
        data, names = self.saved[name]
        loaded_plans.clear()   # which keep programs
        before = nodes() if seed % 10 == 0 else None
        damage = rng.choice([flip_bits, flip_bits, overwrite, cut, cut_out, double, swap, None, None, None, None])
        if damage is not None:
            data = damage(data, rng)
        loaded = None
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                loaded = Restoring(data, names, rng, 0.0 if damage else rng.choice([0.2, 1.0])).load()
            except (*ERRORS, RecursionError) as error:
                self.refused(error)
            else:
                self.counts["loaded"] += 1
                self.use(loaded)
        loaded = None
        loaded_plans.clear()
        assert fg._core._check(), f"{name}: the tape is unsound"
        if before is not None:
            now = nodes()
            assert now <= before, f"{name}: {now} nodes are alive, not {before}"

    def refused(self, error):
        own_of_numpy = "/numpy/" in str(error)   # of what is in a pickle of NumPy's
        assert not isinstance(error, SystemError) or own_of_numpy, repr(error)
        self.counts["refused"] += 1

    def use(self, x):
        """Do what one does with such a thing; errors are ordinary ones."""
        for what in (repr, self.backward, self.call, copy.deepcopy, pickle.dumps, self.step):
            try:
                what(x)
            except (*ERRORS, RecursionError) as error:
                assert not isinstance(error, SystemError), repr(error)

    def backward(self, x):
        if isinstance(x, (Value, Tensor)):
            x._op, x.data, x.grad
            y = x if isinstance(x, Value) else x.sum()
            y._children, y._prev, y._local_grads
            y.backward()
            fg.gradients(y, x, create_graph=True)

    def call(self, x):
        if isinstance(x, nn.Module):
            x(np.ones((2, 2))).sum().backward()
        elif isinstance(x, fg.Random):
            x.normal(3)
        elif callable(x) and not isinstance(x, type):
            x(0.5).backward() if isinstance(x, type(compiled)) else x([0.5, 0.25, 0.125], 0.5)

    def step(self, x):
        if isinstance(x, optim.Optimizer):
            x.zero_grad(), x.step(), x.state_dict()
        elif hasattr(x, "step"):
            x.step()


def run(limit, options):
    counts = children.rounds("pickles", limit)
    return f"{limit.rounds} pickles, {limit.seeds}: {counts['refused']} refused, {counts['loaded']} loaded and used"
