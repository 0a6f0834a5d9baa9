"""Re-entrant operands, finalizers and callbacks: whatever they do at whatever moment, nothing breaks.

A round makes one call of `acting.READING`, or of this module, with operands that act when they are asked for an
array, an index, a length, a number, an item or the next of them; or one of `memory`; or it runs the code of one of
`subjects`, whose rules, callbacks, closures and compiled functions act. Finalizers, callbacks of weak references and
of Python's collector act besides. To act is to create and drop Values, collect, make ids change, do backward passes,
call the compiled function again, run other code of a user, copy and pickle, change lists and arrays, initialise
Values and Tensors again, throw into generators, and raise, at random. Where nothing acts but what changes no operand,
the numbers are those without; an error is an ordinary one; and afterwards the tape is sound, as many nodes are alive
as before, and code computes what it computed.
"""
import collections
import contextlib
import copy
import pickle
import random
import weakref

import flatgrad as fg
import numpy as np
from checks import children, memory
from checks.subjects import ACT, SUBJECTS, Quiet, bits
from flatgrad import Tensor, Value, _core, losses, nn, optim
from flatgrad.train import Trainer

from acting import (LOUD, ORDINARY, QUIET, READING, ActingArray, ActingSequence, Finalizer, Iterated, World,
                    every_collection, numbers)
from leaks import nodes

SHORT = 5.0   # seconds


class Mine(ValueError):
    """An error of the user's."""


# ---- what they do besides ----

def call_again(w):
    with contextlib.suppress(RuntimeError):
        w.compiled([1.0, 2.0, 3.0])


def differentiate(w):
    with contextlib.suppress(RuntimeError):
        fg.grad(w.plain)(0.5), fg.value_and_grad(w.plain_compiled)(0.5)


def save(w):
    pickle.loads(pickle.dumps([w.tensor, Value(1.0) * 2.0]))
    copy.deepcopy([w.tensor])


def step(w):
    for p in w.own.params:
        p.grad = 1.0
    w.own.optimizer.step()


def scribble(w):
    w.array[:] = 1e6


def throw(w):
    for x in list(w.generators):
        with contextlib.suppress(*ORDINARY, StopIteration):
            x.throw(Mine("thrown"))


def raise_error(w):
    raise Mine("raised")


def give_gradients(w):
    w.tensor.grad = 1.0
    w.a.grad = 2.0


CALM = [*QUIET, call_again, differentiate, save, step]
WILD = [*LOUD, scribble, throw, raise_error]


class Own:
    """An optimizer that belongs to the actions."""

    def __init__(self):
        self.params = [Value(1.0), Tensor([1.0, 2.0])]
        self.optimizer = optim.Adam(self.params, 0.1)


class Larger(World):
    """With a compiled function, a model and data."""

    def __init__(self):
        super().__init__()
        a, tensor = self.a, self.tensor
        self.compiled = fg.compile(lambda x: (fg.dot(tensor, x) * a).sin())
        self.plain = lambda x: (x * a).sin()
        self.plain_compiled = fg.compile(self.plain)
        self.array = np.array([1.0, 2.0, 3.0])
        self.generators = weakref.WeakSet()
        self.own = Own()
        self.model = nn.MLP(3, [2, 1], rng=1)


def rows(w, y, count=4):
    return [Iterated([0.5 * k, 1.0, 2.0], y) for k in range(count)]


def generator(w, items, acting):
    def generate():
        for item in items:
            acting.act()
            yield item
        acting.act()
    made = generate()
    w.generators.add(made)
    return made


def fitted(w, X, y):
    trainer = Trainer(w.model, optim.SGD(w.model.parameters(), 0.1), "mse")
    trainer.fit(X, y, 2, 2, seed=1, progress=False)
    return [p.data for p in w.model.parameters()]


def minimized(w, y):
    f = fg.compile(lambda x, t: (w.a * x - t) ** 2)
    return f.minimize(optim.SGD([w.a], 0.1), 1.0, 2.0, steps=6, every=2, callback=lambda step, loss: y.act()).tolist()


def with_rule(w, x, y):
    @fg.custom_derivative
    def own(v):
        return v * 2.0

    own.defvjp(lambda v: (y.act(), (own(v), v))[1], lambda v, g: y.act() or (g * 2.0,))
    w.b.grad = 0.0
    own(w.b * 1.0).backward()
    return w.b.grad


def micrograd_rule(w, x, y):
    out = w.b * 2.0
    out._backward = y.act
    top = out * 3.0
    top.backward()
    return top.data


class Aside(ActingSequence):
    """It may also act only where nothing is recorded: what is computed there is a part of what is."""

    def act_aside(self):
        if not _core._is_recording():
            self.act()


class Float(float):
    """Its own methods act."""

    def __new__(cls, number, acting):
        self = super().__new__(cls, number)
        self.acting = acting
        return self

    def __float__(self):
        self.acting.act()
        return float.__float__(self)

    def __repr__(self):
        self.acting.act()
        return "Float"

    def __eq__(self, other):
        self.acting.act()
        return float(self) == other

    def __hash__(self):
        self.acting.act()
        return hash(0.5)


class Items:
    """A sequence by __len__ and __getitem__."""

    def __init__(self, items, acting):
        self.items, self.acting = items, acting

    def __len__(self):
        self.acting.act()
        return len(self.items)

    def __getitem__(self, k):
        self.acting.act()
        return self.items[k]


CALLS = {
    **READING,
    "compiled": lambda w, x, y: w.compiled([Float(1.0, y), 2.0, Float(3.0, y)]),
    "compiled of an array": lambda w, x, y: w.compiled(w.array),
    "compile": lambda w, x, y: fg.compile(lambda v: (y.act_aside(), fg.dot(w.tensor, v))[1])(w.array),
    "grad": lambda w, x, y: fg.grad(lambda v: (y.act(), fg.dot(w.tensor, v))[1])([Float(1.0, y), 2.0, 3.0]),
    "value and grad": lambda w, x, y: fg.value_and_grad(w.compiled)(w.array)[0],
    "jacobian": lambda w, x, y: fg.jacobian(lambda v: (y.act(), w.tensor * v)[1])(w.array),
    "hessian": lambda w, x, y: fg.hessian(lambda v: (y.act(), fg.dot(v * v, v))[1])(w.array),
    "vmap": lambda w, x, y: fg.vmap(lambda v: (y.act(), v * w.a)[1])(w.array),
    "scan": lambda w, x, y: fg.scan(lambda c, v: (y.act_aside(), (c * v, c))[1], w.a, w.array)[1],
    "fori_loop": lambda w, x, y: fg.fori_loop(0, 3, lambda k, v: (y.act_aside(), v * w.a)[1], 1.0),
    "gradients": lambda w, x, y: [g.data for g in fg.gradients(
        Iterated([w.a * 2.0, w.b * 3.0], y), Iterated([w.a, w.b], y))],
    "written": lambda w, x, y: [g.data for g in fg.gradients(
        w.a * w.a * w.b, Iterated([w.a, w.b], y), create_graph=True)],
    "generator": lambda w, x, y: fg.sum(generator(w, [w.a, 2.0, w.b], y)),
    "generator in a dot": lambda w, x, y: fg.dot(generator(w, w.values, y), generator(w, [1.0, 2.0, 3.0], y)),
    "generator in SGD": lambda w, x, y: len(optim.SGD(generator(w, [w.a, w.tensor], y), 0.1).param_groups[0]["params"]),
    "float": lambda w, x, y: Value(Float(0.5, y)) * Float(2.0, y) + Float(1.0, y), "floats": lambda w, x, y: fg.sum(
        [Float(0.5, y), w.a, Float(2.0, y)]), "power": lambda w, x, y: w.b ** Float(3.0, y),
    "fit": lambda w, x, y: fitted(w, rows(w, y), Iterated([1.0, 0.0, 1.0, 0.0], y)),
    "predict": lambda w, x, y: w.model(rows(w, y)), "minimize": lambda w, x, y: minimized(w, y),
    "rule": with_rule, "micrograd's rule": micrograd_rule,
    "load_state_dict": lambda w, x, y: w.model.load_state_dict(
        {name: Items(list(value), y) if np.ndim(value) == 1 else value
         for name, value in w.model.state_dict().items()}),
    "take": lambda w, x, y: fg.take(Iterated(w.values, y), w.a * 0.0 + 1.0), "cat": lambda w, x, y: fg.cat(
        Iterated([w.tensor, w.tensor], y)), "stack": lambda w, x, y: fg.stack(Iterated([w.tensor, w.tensor], y)),
    "concatenate": lambda w, x, y: np.concatenate(Iterated([w.tensor, w.tensor], y)),
    "clip": lambda w, x, y: fg.clip(w.tensor, Float(0.0, y), Float(1.5, y)),
    "losses": lambda w, x, y: losses.huber(w.tensor, Iterated([1.0, 2.0, 5.0], y), delta=Float(1.0, y)),
    "clip_grad_norm_": lambda w, x, y: optim.clip_grad_norm_(generator(w, [w.own.params[0]], y), Float(1.0, y)),
    "deepcopy": lambda w, x, y: copy.deepcopy(Iterated([w.a, w.tensor], y))[0],
    "pickle": lambda w, x, y: pickle.loads(pickle.dumps([w.a * w.b, w.tensor]))[0],
    "evaluate": lambda w, x, y: w.plain_compiled.flat([0.5], Float(1.0, y)),
}

LEFT_OUT = {"_testing", "collect", "collect cycles", "stats"}


class Rounds:
    """What `children` runs."""

    def __init__(self):
        self.counts, self.subjects = collections.Counter(), {}
        self.case_names = [name for name, code in memory.CASES.items() if name not in LEFT_OUT
                           and not ("Parameters" in name and "raises" in code)]
        self.operands = compile(memory.OPERANDS, "operands", "exec")

    def round(self, seed):
        self.rng = rng = random.Random(seed)
        self.is_calm = rng.random() < 0.5
        self.actions = rng.sample(CALM, rng.randint(1, 4))
        if not self.is_calm:
            self.actions += rng.sample(WILD, rng.randint(1, 3))
        self.depth, self.most = 0, rng.choice([1, 5, 50])
        kind = rng.random()
        try:
            (self.call if kind < 0.6 else self.case if kind < 0.75 else self.code)(rng)
        finally:
            _core._testing(collect_floor=131072)
            ACT.set(None)
        assert _core._check()

    def act(self, world):
        """Do something, but not within itself, and only so often."""
        if self.depth or self.most <= 0:
            return
        self.depth += 1
        self.most -= 1
        self.counts["acts"] += 1
        try:
            self.rng.choice(self.actions)(world)
        finally:
            self.depth -= 1

    def act_quietly(self, world):
        """The same where Python would print the error."""
        with contextlib.suppress(*ORDINARY, MemoryError):
            self.act(world)

    @contextlib.contextmanager
    def besides(self, world, rng, kept):
        """Finalizers, weak references and the collector act as well."""
        moving = rng.random() < 0.4
        if rng.random() < 0.4:
            garbage = [world.a * 2.0 for _ in range(10)]
            for x in garbage:
                x.finalizer = Finalizer(lambda: self.act_quietly(world))
            kept.append(Value(1.0))   # above them
            del garbage, x
        if rng.random() < 0.3:
            dying = [Value(1.0) for _ in range(5)]
            kept.extend(weakref.ref(x, lambda _: self.act_quietly(world)) for x in dying)
            kept.append(Value(1.0))
            world.litter.extend(dying)
            del dying
        if moving:
            _core._testing(collect_floor=0)
        if rng.random() < 0.3:
            with every_collection(lambda: self.act_quietly(world), thorough=rng.random() < 0.1):
                yield
        else:
            yield
        _core._testing(collect_floor=131072)

    def call(self, rng):
        """One call with operands that act."""
        name = rng.choice(sorted(CALLS))
        before = nodes()
        world = Larger()
        quiet = ActingArray(world, lambda w: None), Aside(world, lambda w: None)
        expected = numbers(CALLS[name](world, *quiet))
        world, kept = Larger(), []
        x, y = ActingArray(world, self.act), Aside(world, self.act)
        got = None
        try:
            with self.besides(world, rng, kept):
                got = CALLS[name](world, x, y)
        except (*ORDINARY, MemoryError) as error:
            assert not isinstance(error, RecursionError), repr(error)
            assert not self.is_calm, f"{name}: {error!r} of {[f.__name__ for f in self.actions]}"
            self.counts["errors"] += 1
        else:
            assert not self.is_calm or same_numbers(numbers(got), expected), f"{name}: {numbers(got)}, not {expected}"
        assert _core._check(), name
        got = world.compiled = world.plain = world.plain_compiled = world = x = y = quiet = expected = None
        kept.clear()
        now = nodes()
        assert now <= before, f"{name}: {now} nodes are alive, not {before}, of {[f.__name__ for f in self.actions]}"
        self.counts["calls"] += 1

    def case(self, rng):
        """One of `memory`, while the collector and finalizers act: for what changes no operand."""
        self.actions = [f for f in self.actions if f in CALM]
        name = rng.choice(self.case_names)
        world, kept = Larger(), []
        namespace = {"raises": memory.raises, "raises_or_not": memory.raises_or_not, "pickled": memory.pickled}
        exec(self.operands, namespace)
        exec("def case():\n    " + memory.CASES[name], namespace)
        with self.besides(world, rng, kept):
            namespace["case"]()
        namespace.clear()
        assert _core._check(), name
        self.counts["cases"] += 1

    def code(self, rng):
        """Code of a user, whose functions act; and after a wild one it computes what it computed."""
        name = rng.choice(sorted(SUBJECTS))
        if name not in self.subjects:
            if len(self.subjects) > 8:
                self.subjects.clear()
            self.subjects[name] = Quiet(name)
        quiet = self.subjects[name]
        before = nodes()
        world, kept = Larger(), []
        actions = [f for f in self.actions if f is not raise_error or not self.is_calm]
        if rng.random() < 0.3:   # other code, within this one
            other = rng.choice(["scalars", "tensors", "micrograd_network", "step_of_adam", "own_rules"])
            inner = Quiet(other)
            actions.append(lambda w: inner.subject.work())
        self.actions, got = actions, None

        def act():
            if not _core._is_recording():   # what is computed then is a part of what is recorded
                self.act(world)

        ACT.set(act)
        try:
            with self.besides(world, rng, kept):
                got = quiet.subject.work()
        except (*ORDINARY, MemoryError) as error:
            assert not self.is_calm, f"{name}: {error!r}"
            self.counts["errors"] += 1
        ACT.set(None)
        if got is not None:
            assert not self.is_calm or bits(got) == quiet.expected, f"{name}: other numbers"
        got = world.compiled = world.plain = world.plain_compiled = world = inner = act = None
        self.actions = actions = ()
        kept.clear()
        quiet.living = max(before, nodes())
        assert quiet.living == before, f"{name}: {quiet.living} nodes are alive, not {before}"
        quiet.check("afterwards")
        self.counts["codes"] += 1


def same_numbers(x, y):
    return bits(x) == bits(y)


def run(limit, options):
    counts = children.rounds("operands", limit)
    return (f"{limit.rounds} rounds passed, {limit.seeds}: {counts['calls']} calls, {counts['cases']} cases of memory "
            f"and {counts['codes']} programs, during which something acted {counts['acts']} times; "
            f"{counts['errors']} errors")
