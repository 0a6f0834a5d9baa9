"""What the checks of faults work on: code of users, of every kind, that can be run again and again.

SUBJECTS has functions that set something up and return a `Subject`. Its `work` sets all numbers anew, computes, and
returns numbers: the same bits each time, whatever came of the run before, unless a fault ends it. Where an operation
is to happen as a whole or not at all, `state` returns what it changes.
"""
import contextvars
import copy
import gc
import math
import os
import pickle
import shutil
import struct
import tempfile
import weakref

import flatgrad as fg
import numpy as np
from flatgrad import Tensor, Value, losses, nn, optim, storage
from flatgrad.datasets import make_moons, read_csv
from flatgrad.optim import lr_scheduler
from flatgrad.train import Callback, Trainer

from leaks import living

__all__ = ["ACT", "Quiet", "Subject", "SUBJECTS", "bits", "made", "same"]

X, LABELS = make_moons(24, noise=0.1, random_state=5)
Y = 2.0 * LABELS - 1.0


class Subject:
    """Code of a user.

    Parameters
    ----------
    work : callable
        Returns numbers, the same ones whenever it comes to its end.
    state : callable, optional
        Returns the numbers that `work` changes in one step, after it has set them: of a fault they are what they were
        before the step, or after it. `work` then takes a function, which it calls before the step.
    steps : int, optional
        How many steps of training `work` takes.
    is_shared : bool, optional
        Whether several threads may run `work` of one subject at the same time.
    """

    def __init__(self, work, state=None, steps=1, is_shared=False):
        self.work, self.state, self.steps, self.is_shared = work, state, steps, is_shared


ACT = contextvars.ContextVar("act", default=None)   # no attribute or cell, which compiled functions would watch


def user():
    """What all functions of users, such as rules, callbacks and what is compiled, call besides."""
    act = ACT.get()
    if act is not None:
        act()


def bits(x):
    """All of a tree that can be told from another, bit by bit; 0.0 and -0.0 are two numbers, all nans are one."""
    if isinstance(x, (Value, Tensor)):
        x = x.data
    if isinstance(x, dict):
        return dict, [(bits(key), bits(value)) for key, value in x.items()]
    if isinstance(x, (list, tuple)):
        return type(x), [bits(item) for item in x]
    if isinstance(x, np.ndarray):
        return x.dtype.str, x.shape, x.tobytes()
    if isinstance(x, (float, np.floating)):
        return float, b"nan" if math.isnan(x) else struct.pack("d", x)
    return type(x), x


def same(x, y):
    return bits(x) == bits(y)


SUBJECTS = {}


def subject(f):
    SUBJECTS[f.__name__] = f
    return f


def made(name):
    """The subject, after two runs: what is made once is made; its numbers; and how many nodes are alive now."""
    found = SUBJECTS[name]()
    expected = bits(found.work())
    if bits(found.work()) != expected:
        raise AssertionError(f"{name}: two runs differ")
    gc.collect()
    return found, expected, living()


class Quiet:
    """That `work` of a subject leaves nothing and computes right after whatever came before.

    It makes the subject, and `check` says whether all is as it was: nodes, the tape, and after another run the numbers.
    """

    def __init__(self, name):
        self.name = name
        self.subject, self.expected, self.living = made(name)

    def check(self, what):
        assert fg._core._check(), f"{self.name}: {what}: the tape is unsound"
        now = living()
        if now > self.living:
            gc.collect()   # a cycle through a traceback, say
            now = living()
        assert now <= self.living, f"{self.name}: {what}: {now} nodes are alive, not {self.living}"
        got = bits(self.subject.work())
        assert got == self.expected, f"{self.name}: {what}: other numbers afterwards"


# ---- graphs ----

@subject
def scalars():
    a, b = Value(-4.0), Value(2.0)

    def work():
        a.grad = b.grad = 0.0
        c = a + b
        d = a * b + b**3
        c += c + 1
        c += 1 + c + (-a)
        d += d * 2 + (b + a).relu()
        d += 3 * d + (b - a).relu()
        e = c - d
        f = e**2
        g = f / 2.0
        g += 10.0 / f
        g.backward()
        return g.data, a.grad, b.grad
    return Subject(work)


@subject
def functions():
    x = Value(0.7)

    def work():
        x.grad = 0.0
        y = x.exp() + x.log() * x.tanh() - x.sin() / x.sqrt() + fg.maximum(x, 0.5) + fg.clip(x * 3.0, 0.0, 1.0)
        y = y + x.gelu() + x.sigmoid() + abs(x) + fg.where(x, x, 2.0) + x**0.5 + 2.0**x
        y.backward()
        return y.data, x.grad
    return Subject(work)


@subject
def chain():
    x = Value(1.0)

    def work():
        x.grad = 0.0
        y = x
        for _ in range(400):
            y = y * 1.001 + 0.5
        y.backward()
        return y.data, x.grad
    return Subject(work)


@subject
def tensors():
    t, w = Tensor(np.linspace(-1.0, 1.0, 12).reshape(4, 3)), Tensor(np.linspace(0.5, 2.0, 6).reshape(3, 2))
    labels = np.array([0, 1, 1, 0])

    def work():
        t.grad = w.grad = 0.0
        h = (t @ w).tanh() * 2.0 - t[:, :2].exp()
        y = losses.cross_entropy(h, labels) + h.softmax(1)[0, 1] + h.T.reshape(-1).logsumexp() + t[::2].mean()
        y = y + fg.sum([h[0, 0], 1.0, h[1, 1]]) + fg.dot(h[0], [1.0, 2.0]) + h[[0, 2], [1, 0]].sum()
        y.backward()
        return y.data, t.grad, w.grad
    return Subject(work)


@subject
def array_functions():
    t, u = Tensor([[1.0, 2.0, 0.5], [0.25, 3.0, 1.5]]), Tensor([0.5, 0.25, 0.125])
    places = Value(1.0)

    def work():
        t.grad = u.grad = 0.0
        y = np.concatenate([t, [u]]).sum() + np.stack([u, u * 2.0]).mean() + np.where(t.numpy() > 1.0, t, 0.0).sum()
        y = y + np.tanh(t).sum() + np.clip(u, 0.2, 0.4).sum() + fg.take(u, places) + fg.pick([u[0], u[1]], places)
        y = y + fg.cat([u, u]).max() + np.transpose(t).sum() + fg.softmax(np.array([u[0], u[1]]))[0]
        y.backward()
        return y.data, t.grad, u.grad
    return Subject(work)


@subject
def network():
    model = nn.Sequential(nn.Layer(2, 6, rng=1), nn.LayerNorm(6), nn.Layer(6, 1, rng=2))
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    first, before = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())

    def work():
        model.load_state_dict(first)
        optimizer.load_state_dict(before)
        found = []
        for _ in range(3):
            loss = losses.mse(model(X).reshape(-1), Y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.data)
        return found, model.state_dict()
    return Subject(work, steps=3)


@subject
def micrograd_network():
    model = nn.MLP(2, [4, 1])
    parameters = model.parameters()

    def work():
        for k, p in enumerate(parameters):
            p.data, p.grad = 0.3 * (k % 7) - 0.8, 0.0
        with fg.scalar_graph():
            scores = [model(list(map(Value, x))) for x in X[:4]]
            loss = sum((1 + -y * score).relu() for score, y in zip(scores, Y)) + sum(p * p for p in parameters) * 1e-4
            loss.backward()
        for p in parameters:
            p.data -= 0.1 * p.grad
        return loss.data, [p.data for p in parameters]
    return Subject(work)


@subject
def own_rules():
    """Rules as micrograd's: closures that use their own node, which are cycles through the tape."""
    a = Value(0.5)

    def doubled(x):
        out = Value(2.0 * x.data, (x,), "doubled")

        def _backward():
            user()
            x.grad += 2.0 * out.grad
        out._backward = _backward
        return out

    def work():
        a.grad = 0.0
        y = a
        for _ in range(5):
            y = doubled(y) * a
        y.backward()
        return y.data, a.grad
    return Subject(work)


@subject
def subclass_cycles():
    class Sub(Value):
        pass

    a = Sub(0.5)

    def work():
        a.grad = 0.0
        y = a
        for _ in range(5):
            y = (y * a).tanh() + a
            y.itself, y.before = y, a
        y.backward()
        return y.data, a.grad
    return Subject(work)


@subject
def custom_derivatives():
    @fg.custom_derivative
    def softer(x, t):
        user()
        return fg.log(1.0 + fg.exp(x)), t * x

    softer.defvjp(lambda x, t: (user(), (softer(x, t), (x, t)))[1],
                  lambda kept, g: user() or (g[0] / (1.0 + fg.exp(-kept[0])) + (g[1] * kept[1]).sum(), g[1] * kept[0]))
    x, t = Value(0.3), Tensor([1.0, 2.0])
    compiled = fg.compile(lambda x, t: softer(x, t)[0] * softer(x * 2.0, t)[1].sum())

    def work():
        x.grad = t.grad = 0.0
        one, two = softer(x, t)
        y = one * two.sum() + compiled(x, t)
        y.backward()
        slope, = fg.gradients(softer(x, t)[0] * x, x, create_graph=True)
        curvature, = fg.gradients(slope, x)
        return y.data, x.grad, t.grad, slope.data, curvature.data
    return Subject(work)


@subject
def derivatives_of_derivatives():
    x, t = Value(0.7), Tensor([0.5, -0.25, 1.0])

    def f(x, t):
        user()
        return (x * t).tanh().sum() * x + fg.softmax(t * x)[0] ** 2

    def work():
        slope, = fg.gradients(f(x, t), x, create_graph=True)
        second = fg.gradients(slope, [x, t])
        return (slope.data, second[0].data, second[1].numpy(), fg.hessian(lambda v: f(v[0], t))([0.7]).tolist(),
                fg.grad(lambda a: fg.grad(lambda b: f(b, t))(a))(0.7), fg.jvp(lambda b: f(b, t), (0.7,), (1.0,)),
                fg.hvp(lambda v: f(x, v), t.numpy(), np.array([1.0, 0.0, 2.0])))
    return Subject(work)


@subject
def checks_of_gradients():
    t = Tensor([0.5, -0.25])

    def f(v):
        user()
        return (v.exp() * v).sum()

    def work():
        return fg.gradcheck(f, (t,)), fg.gradgradcheck(f, (t,))
    return Subject(work)


# ---- programs ----

def step_of(w):
    def step(state, x):
        user()
        angle, speed = state
        speed = speed - 0.05 * (w[0] * fg.sin(angle) + w[1] * speed) + 0.01 * x
        return (angle + 0.05 * speed, speed), angle
    return step


@subject
def recordings():
    """Compiled anew in each run: recorded, cut out and simplified."""
    w = [Value(0.5), Value(0.25)]
    t = Tensor([[0.5, 1.0], [2.0, -1.0]])
    row = np.linspace(0.0, 1.0, 6)

    def work():
        for v in (*w, t):
            v.grad = 0.0

        @fg.compile
        def f(x, u):
            (angle, speed), path = fg.scan(step_of(w), (x, 0.0), u)
            many = fg.vmap(lambda v: user() or (w[0] * v).tanh() + w[1])(u)
            return angle * speed + path.sum() + many.mean() + (t @ u[:2]).tanh().sum() + (x * w[0] + 0.0) * 1.0

        y = f(0.7, row)
        y.backward()
        return y.data, [v.grad for v in (*w, t)]
    return Subject(work)


@subject
def replays():
    w = [Value(0.5), Value(0.25)]
    model = nn.MLP(2, [3, 1], activation="tanh")
    for k, p in enumerate(model.parameters()):
        p.data = 0.3 * (k % 5) - 0.6
    row = np.linspace(0.0, 1.0, 8)

    @fg.compile
    def f(x, u):
        return ((model(u).reshape(-1) * x).tanh() + w[0]).mean() * w[1]

    @fg.compile
    def scanned(x, u):
        (angle, speed), path = fg.scan(step_of(w), (x, 0.0), u)
        return angle * speed + path.sum()

    lanes = fg.vmap(fg.compile(lambda x, v: (w[0] * x + v).sin() * w[1]), in_axes=(0, None))

    def work():
        parameters = [*w, *model.parameters()]
        for p in parameters:
            p.grad = 0.0
        y = f(0.5, X) + f(Value(0.25), X[:4]) + scanned(0.5, row) + lanes(row, 0.5).sum()
        y.backward()
        return y.data, [p.grad for p in parameters]
    return Subject(work)


@subject
def floats32():
    t = Tensor([[0.5, 1.0], [2.0, -1.0]])
    f = fg.compile(lambda x: (t @ x).tanh().sum(), dtype="float32")
    both = fg.value_and_grad(f)

    def work():
        return both(np.array([0.5, 0.25])), f.flat([0.5, 1.0, 2.0, 3.0], np.array([0.5, 0.25]))
    return Subject(work, is_shared=True)


@subject
def evaluations():
    w = Value(0.5)

    @fg.compile
    def f(x, u):
        return (u * x * w).sin().sum() + fg.fori_loop(0, 5, lambda k, y: user() or y * x * 0.5, x)

    gradient, both, jacobian = fg.grad(f), fg.value_and_grad(f, argnums=(0, 1)), fg.jacobian(
        fg.compile(lambda u: (u * w).tanh()))
    of_batch = fg.value_and_grad(fg.compile(lambda x, y: (w * x - y) ** 2), parameters=[w], in_axes=0, threads=2)
    row = np.linspace(0.0, 1.0, 5)

    def work():
        return gradient(0.5, row), both(0.5, row), jacobian(row), of_batch(row, row * 2.0)
    return Subject(work, is_shared=True)


@subject
def derived_programs():
    w = Value(0.5)
    f = fg.compile(lambda x: (x * w).tanh() * x.exp())

    def work():
        w.grad = 0.0
        hessian = fg.hessian(fg.compile(lambda u: user() or ((u * w).tanh() * u).sum()))(np.array([0.5, 0.25]))
        g = fg.compile(lambda x: fg.grad(f)(x) * x)
        y = g(0.5)
        y.backward()
        return hessian, y.data, w.grad, fg.grad(fg.grad(f))(0.5)
    return Subject(work)


@subject
def minimize():
    w, t = Value(3.0), Tensor([0.5, 0.25])
    f = fg.compile(lambda x, y: ((x @ t) * w - y).square().mean())
    calls = []

    def work():
        found = []
        for make in (lambda: optim.SGD([w, t], 0.05, momentum=0.9), lambda: optim.Adam([w, t], 0.05),
                     lambda: optim.RMSprop([w, t], 0.01)):
            w.data, t.data = 3.0, [0.5, 0.25]
            del calls[:]
            optimizer = make()
            schedule = lr_scheduler.StepLR(optimizer, 3)
            found.append((f.minimize(optimizer, X, Y, steps=9, batch_size=7, seed=3, every=4,
                                     callback=lambda step, loss: user() or calls.append((step, loss)),
                                     schedule=schedule),
                          w.data, t.numpy(), list(calls)))
        return found
    return Subject(work, steps=27)


@subject
def flat():
    w, t = Value(3.0), Tensor([0.5, 0.25])
    f = fg.compile(lambda x: ((x @ t) * w).square().mean())
    residuals = fg.compile(lambda x: (x @ t) * w)

    def work():
        theta = [2.0, 1.0, 0.5]
        return (f.flat(theta, X), f.flat.hessp(theta, [1.0, 0.0, 1.0], X), f.flat.hessian(theta, X),
                residuals.flat.jac(theta, X[:3]), f.flat.theta)
    return Subject(work, is_shared=True)


@subject
def exports():
    w, t = Value(3.0), Tensor([0.5, 0.25])
    f = fg.compile(lambda x: (fg.softmax(x * t) * w).square().sum().log1p() + fg.sin(x[0]) * w)
    example = np.array([0.5, 1.0])

    def work():
        f(example)
        source = f.to_c(optimizer=optim.SGD([w, t], 0.1, momentum=0.9))
        return str(source), repr(f), f.explain() is not None
    return Subject(work)


@subject
def draws():
    w = Value(0.5)
    rng = fg.Random(np.random.default_rng(3))
    f = fg.compile(lambda x: (rng.normal(4) * w * x).sum() + rng.uniform() + rng.bernoulli(0.5))

    def work():
        w.grad = 0.0
        rng.rng = np.random.default_rng(3)
        y = f(0.5) + f(0.25)
        y.backward()
        return y.data, w.grad
    return Subject(work)


# ---- steps that happen as a whole, or not at all ----

def stepping(make):
    def a_step():
        w, t, group = Value(0.0), Tensor([0.0, 0.0]), [Value(0.0), Value(0.0)]
        everything = [w, *group, t]
        optimizer = make([w, *group, t])
        for p in everything:
            p.grad = 0.5
        optimizer.step()
        before = copy.deepcopy(optimizer.state_dict())

        def state():
            return [p.data for p in everything], optimizer.state_dict()

        def work(armed=lambda: None):
            optimizer.load_state_dict(before)
            for k, p in enumerate(everything):
                p.data, p.grad = 0.5 * k - 1.0, 0.25 * k + 0.5
            armed()
            optimizer.step()
            return copy.deepcopy(state())
        return Subject(work, state)
    return a_step


for rule, make in {
        "sgd": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
        "adam": lambda p: optim.Adam(p, 0.1, amsgrad=True), "adamw": lambda p: optim.AdamW(p, 0.1),
        "rmsprop": lambda p: optim.RMSprop(p, 0.1, momentum=0.9, centered=True),
        "adagrad": lambda p: optim.Adagrad(p, 0.1), "adadelta": lambda p: optim.Adadelta(p, 0.1),
        "groups": lambda p: optim.SGD([{"params": p[:2], "lr": 0.3}, {"params": p[2:]}], 0.1, momentum=0.5)}.items():
    SUBJECTS[f"step_of_{rule}"] = stepping(make)


@subject
def lbfgs():
    t = Tensor([0.0, 0.0])

    def work():
        t.data = [-1.0, 1.5]
        optimizer = optim.LBFGS([t], max_iter=8, line_search_fn="strong_wolfe")

        def closure():
            user()
            optimizer.zero_grad()
            loss = (1.0 - t[0]) ** 2 + 100.0 * (t[1] - t[0] ** 2) ** 2
            loss.backward()
            return loss
        return optimizer.step(closure).data, t.numpy()
    return Subject(work, steps=8)


# ---- training, and files ----

class Computing(Callback):
    """It computes, as callbacks may."""

    def __init__(self):
        self.seen = []

    def on_epoch_end(self, trainer, epoch, logs):
        user()
        x = Value(2.0)
        y = x * x * logs["loss"]
        y.backward()
        self.seen.append((y.data, x.grad))


def fitting(model_of, loss, make, targets, penalty=None):
    def fit():
        model = model_of()
        first = copy.deepcopy(model.state_dict())
        optimizer = make(model.parameters())
        before = copy.deepcopy(optimizer.state_dict())

        def work():
            model.load_state_dict(first)
            optimizer.load_state_dict(before)
            trainer, callback = Trainer(model, optimizer, loss, penalty=penalty), Computing()
            history = trainer.fit(X, targets, 3, 7, seed=2, validation=(X[:5], targets[:5]), callbacks=[callback],
                                  progress=False)
            if len(history) < 3:   # Ctrl-C ends fit after a whole update
                raise KeyboardInterrupt
            return history["loss"], history["val_loss"], model.state_dict(), callback.seen, trainer.predict(X[:2])
        return Subject(work, steps=12)
    return fit


SUBJECTS["fit"] = fitting(lambda: nn.MLP(2, [5, 1], rng=1), "hinge",
                          lambda p: optim.SGD(p, 0.05, momentum=0.9), Y)
SUBJECTS["fit_of_layers"] = fitting(lambda: nn.Sequential(nn.Layer(2, 4, rng=1), nn.BatchNorm(4),
                                                          nn.Layer(4, 2, activation="linear", rng=3)),
                                    "cross_entropy", lambda p: optim.Adam(p, 0.05), LABELS)


@subject
def pickles():
    a, t = Value(0.5), Tensor([1.0, 2.0])
    model = nn.MLP(2, [3, 1], rng=1)
    optimizer = optim.Adam(model.parameters(), 0.1)
    rng = fg.Random(np.random.default_rng(4))

    def work():
        y = (a * t).tanh().sum() * a
        y.note = "a note"
        saved = pickle.dumps([y, a, t, model, optimizer, rng])
        again, a_again, t_again, model_again, optimizer_again, rng_again = pickle.loads(saved)
        again.backward()
        copied = copy.deepcopy([y, a])
        copied[0].backward()
        return (again.data, a_again.grad, t_again.grad, again.note, model_again.state_dict(),
                optimizer_again.state_dict(), rng_again.uniform(2).numpy(), copied[1].grad)
    return Subject(work)


@subject
def files():
    model = nn.MLP(2, [3, 1], rng=1)
    trainer = Trainer(model, optim.SGD(model.parameters(), 0.1, momentum=0.9), "hinge")
    trainer.fit(X, Y, 1, 8, seed=1, progress=False)
    folder = tempfile.mkdtemp()
    path, table = os.path.join(folder, "x.npz"), os.path.join(folder, "x.csv")

    def work():
        trainer.save(path)
        trainer.load(path)
        model.save(path)
        model.load(path)
        storage.save_arrays(path, {"a": np.arange(30.0), "b": np.array("text")})
        with open(table, "w") as file:
            file.write("x,y,label\n1.5,2,a\n-3,1e-3,b\n")
        found = storage.load_arrays(path), [np.asarray(x) for x in read_csv(table, target="y", features=["x"])[:2]]
        assert set(os.listdir(folder)) <= {"x.npz", "x.csv"}
        return found

    weakref.finalize(work, shutil.rmtree, folder)
    return Subject(work)


class Finalizer:
    def __del__(self):
        user()


@subject
def collections():
    """Cycles through the tape of every kind, and what is above them."""
    a = Value(0.5)

    def work():
        for _ in range(5):
            x = a * 2.0
            x.finalizer = Finalizer()
            x._backward = lambda x=x: x
            y = x * a
            y.owner = [y, x]
        del x, y
        fg.collect()
        above = a * 3.0
        fg.collect()
        return above.data, a.data
    return Subject(work)


@subject
def failures():
    """Calls that fail: nothing changes."""
    a, t = Value(-1.0), Tensor([1.0, -2.0])
    f = fg.compile(lambda x: x.log() + a)

    def failing(call, *arguments):
        try:
            call(*arguments)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            return
        raise AssertionError(f"{call} has not failed")

    def work():
        for call, *arguments in (a.log,), (t.sqrt,), (Value, "x"), (Tensor, [[1.0], [2.0, 3.0]]), (f, -1.0), \
                (fg.dot, [a], [1.0, 2.0]), (t.__matmul__, [1.0]), (fg.max, []), (a.__pow__, 0.5), \
                (a.__truediv__, 0.0), \
                (t.backward,), (losses.mse, t, [1.0]), (fg.grad(f), -1.0), (f, "x"), (t.__getitem__, 7):
            failing(call, *arguments)
        a.grad = 0.0
        y = f(2.0) * 1.0
        y.backward()
        return y.data, a.grad
    return Subject(work)


@subject
def errors_in_rules():
    a = Value(0.5)

    def fails():
        user()
        raise ZeroDivisionError("mine")

    @fg.custom_derivative
    def wrong(x):
        return x * 2.0

    wrong.defvjp(lambda x: (wrong(x), x), lambda kept, g: fails())

    def work():
        for make in (lambda: a * 2.0, lambda: wrong(a)):
            y = make()
            if y._op != "rule" and "wrong" not in y._op:
                y._backward = fails
            try:
                (y * a).backward()
            except ZeroDivisionError:
                pass
            else:
                raise AssertionError("no error of the rule")
        a.grad = 0.0
        y = a * a
        y.backward()
        return y.data, a.grad
    return Subject(work)
