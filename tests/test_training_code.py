"""Training in compiled code with gradients that are clipped, and with penalties that read a user's settings: the numbers of
the loop in Python bit for bit, also after somebody has changed what is read."""
import argparse
import dataclasses
import random
import types

import numpy as np
import pytest
from test_training_loop import REAL, X, mlp, same, without_time

from flatgrad import Tensor, Value, losses, nn
from flatgrad.errors import DivergedError
from flatgrad.optim import SGD, Adam
from flatgrad.train import Trainer


# ---- clipping ----

def scattered():
    """A network whose weights do not lie in a row, one of them frozen, and a Tensor."""
    random.seed(3)
    apart, model = [], nn.MLP(2, [5, 2])
    for neuron in model.layers[0].neurons:
        apart += [Value(0.0), Value(1.0)]
        neuron.w[1] = Value(neuron.w[1].data)
    model.layers[0].neurons[2].w[0].requires_grad = False
    model.scale, model.apart = Tensor([[1.5, 0.5]]), apart
    return model


class Scaled(nn.Module):
    def __init__(self, inner):
        self.inner, self.scale = inner, inner.scale

    def __call__(self, x):
        return self.inner(x) * self.scale


def one_group(model, size):
    return SGD(model.parameters(), lr=0.05 / size, momentum=0.5)


def three_groups(model, size):
    parameters = model.parameters()
    return Adam([{"params": parameters[:4]}, {"params": parameters[4:9], "lr": 0.1}, {"params": parameters[9:]}], lr=0.01)


@pytest.mark.parametrize("size", [1.0, 1e-170, 1e170], ids=["usual", "squares underflow", "squares overflow"])
@pytest.mark.parametrize("clip", ["clip_grad_norm", "clip_grad_value"])
@pytest.mark.parametrize("optimizer", [one_group, three_groups])
def test_clipped_steps_are_those_of_python(optimizer, clip, size):
    found = []
    for engine, bound in ("python", 0.02 * size), ("compiled", 0.02 * size), ("compiled", None):
        model = Scaled(scattered())
        trainer = Trainer(model, optimizer(model, size), lambda p, y: losses.mse(p, y) * size, **{clip: bound})
        trainer.fit(X, REAL, 6, batch_size=20, seed=1, progress=False, engine=engine)
        found.append([without_time(trainer.history), [np.asarray(p.data).tolist() for p in model.parameters()],
                      [np.asarray(p.grad).tolist() for p in model.parameters()]])
    same(found)
    assert repr(found[1]) != repr(found[2])   # the bound is one that binds


class Rooted(Scaled):
    """One parameter has an infinite gradient in the first step, and nan comes of it, or all gradients are 0."""

    def __init__(self, inner, factor):
        super().__init__(inner)
        self.root, self.factor = Value(0.0), factor

    def __call__(self, x):
        return super().__call__(x) * self.factor + self.root.sqrt() * (1.0 - self.factor)


@pytest.mark.parametrize("factor", [0.0, 0.5])
@pytest.mark.parametrize("optimizer", [one_group, three_groups])
def test_norms_of_gradients_that_are_0_or_infinite(optimizer, factor):
    found = []
    for engine in "python", "compiled":
        model = Rooted(scattered(), factor)
        if factor == 0.0:
            model.root = Value(4.0)
            model.root.requires_grad = False
        trainer = Trainer(model, optimizer(model, 1.0), "mse", clip_grad_norm=0.1)
        try:
            trainer.fit(X, REAL, 6, batch_size=20, seed=1, progress=False, engine=engine)
        except DivergedError as error:
            found.append(["diverged in", error.epoch])
        found.append([without_time(trainer.history), [np.asarray(p.data).tolist() for p in model.parameters()],
                      [np.asarray(p.grad).tolist() for p in model.parameters()]])
    assert repr(found[:len(found) // 2]) == repr(found[len(found) // 2:])   # nan as well
    assert ("diverged in" in repr(found)) == (factor > 0.0)


def test_a_bound_is_that_of_the_beginning_of_a_fit():
    found = []
    for engine in "python", "compiled":
        model = mlp()

        def change(trainer, epoch, logs):
            trainer.clip_grad_norm = 1e-6
            model.layers[0].neurons[0].w[0] = Value(0.25)   # it is recorded again

        trainer = Trainer(model, SGD(model.parameters(), lr=0.05), "mse", clip_grad_norm=0.02)
        trainer.fit(X, REAL, 4, batch_size=20, seed=1, progress=False, engine=engine, callbacks=change)
        found.append([without_time(trainer.history), [p.data for p in model.parameters()]])
    same(found)


@pytest.mark.parametrize("clip", ["clip_grad_norm", "clip_grad_value"])
def test_gradients_that_are_not_finite_are_clipped_alike(clip):
    found = []
    for engine in "python", "compiled":
        model = mlp((1,))
        trainer = Trainer(model, SGD(model.parameters(), lr=0.05), lambda p, y: (losses.mse(p, y) * 0.0).sqrt(),
                          **{clip: 0.5})
        with pytest.raises(DivergedError):
            trainer.fit(X, REAL[:, :1], 4, progress=False, engine=engine)
        found.append([without_time(trainer.history), [(p.data, p.grad) for p in model.parameters()]])
    same(found)


# ---- penalties ----

def with_a_module_around(what):
    """A penalty that reads a module from a variable of the function around it, and a function that changes that."""
    module = np if what == "numpy" else losses

    def read(parameters):
        return 0.01 * module.l2(parameters)

    def read_within(parameters):
        return sum(0.01 * module.l2([p]) for p in parameters)

    def read_in_a_list(parameters):
        return sum([0.01 * module.l2([p]) for p in parameters])

    def hand_on(parameters):
        functions = module
        return 0.01 * functions.l2(parameters)

    def use_numpy(parameters):
        return losses.l2(parameters) * module.exp(1.0)

    def change():
        nonlocal module
        module = types.SimpleNamespace(l2=lambda parameters: 3.0 * losses.l2(parameters))

    return {"read": read, "within": read_within, "list": read_in_a_list, "hands on": hand_on, "numpy": use_numpy,
            "changes": read}[what], change


@pytest.mark.parametrize("what, reason", [("read", "compiled"), ("within", "compiled"), ("list", "compiled"),
                                          ("changes", "compiled"), ("hands on", "uses the module 'module'"),
                                          ("numpy", "uses the module 'module'")])
def test_a_penalty_that_reads_a_module_around(what, reason):
    found = []
    for engine in "python", "auto":
        given, change = with_a_module_around(what)
        model = mlp()
        trainer = Trainer(model, SGD(model.parameters(), lr=0.01), "mse", penalty=given)
        trainer.fit(X, REAL, 6, batch_size=20, seed=1, progress=False, engine=engine,
                    callbacks=lambda *_: change() if what == "changes" else None)
        assert reason in trainer.engine or engine == "python"
        found.append([without_time(trainer.history), [p.data for p in model.parameters()]])
    same(found)


class Settings:
    scale = 2

    def __init__(self):
        self.decay = 1e-3

    @property
    def product(self):
        return self.decay * self.scale

    def __call__(self, parameters):
        return self.decay * losses.l2(parameters)


@dataclasses.dataclass
class Given:
    decay: float = 1e-3


class Slotted:
    __slots__ = ("decay",)

    def __init__(self):
        self.decay = 1e-3


class Elsewhere(Settings):
    def __getattr__(self, name):
        return random.random()


class CountingCalls(Settings):
    def __call__(self, parameters):
        self.decay += 1e-3
        return self.decay * losses.l2(parameters)


@pytest.mark.parametrize("make, read, reason", [
    (Settings, "decay", "compiled"), (Settings, "product", "compiled"), (Settings, None, "compiled"),
    (lambda: argparse.Namespace(decay=1e-3), "decay", "compiled"), (Given, "decay", "compiled"),
    (lambda: types.SimpleNamespace(decay=1e-3), "decay", "compiled"), (Slotted, "decay", "has a Slotted"),
    (Elsewhere, "other", "uses the module 'random'"), (CountingCalls, None, "writes 'decay'"),
])
def test_a_penalty_that_reads_settings(make, read, reason):
    found = []
    for engine in "python", "auto":
        settings, model = make(), mlp()

        def change(trainer, epoch, logs):
            settings.decay = {3: 0.5, 5: 0.1}.get(epoch, settings.decay)

        penalty = {None: settings, "decay": lambda ps: settings.decay * losses.l2(ps),
                   "product": lambda ps: settings.product * losses.l2(ps),
                   "other": lambda ps: settings.other * losses.l2(ps)}[read]
        trainer = Trainer(model, SGD(model.parameters(), lr=0.01), "mse", penalty=penalty)
        random.seed(3)
        trainer.fit(X, REAL, 6, batch_size=20, seed=1, progress=False, engine=engine, callbacks=change)
        assert reason in trainer.engine or engine == "python"
        found.append([without_time(trainer.history), [p.data for p in model.parameters()]])
    same(found)


# ---- buffers of some objects of a class ----

class Sometimes(nn.Module):
    def __init__(self, scale=None):
        self.out = nn.Linear(2, 2, rng=0)
        if scale is not None:
            self.register_buffer("scale", scale)
        else:
            self.scale = 0.5

    def forward(self, x):
        return self.out(x) * self.scale


def test_a_buffer_of_another_object_of_the_class():
    other = Sometimes([2.0])
    other.scale.flags.writeable = False
    found = []
    of_its_own = "python: the model, Sometimes, has buffers of its own, from register_buffer()"
    for engine, make, changes, said in [("python", Sometimes, True, "python: engine='python'"),
                                        ("auto", Sometimes, True, of_its_own), ("auto", Sometimes, False, "compiled"),
                                        ("auto", lambda: other, False, of_its_own)]:
        model = make()

        def change(trainer, epoch, logs):
            if changes and epoch == 3:
                del model.scale
                model.register_buffer("scale", [1.5])

        trainer = Trainer(model, SGD(model.parameters(), lr=0.1), "mse")
        trainer.fit(X, REAL, 6, batch_size=20, seed=1, progress=False, engine=engine, callbacks=change)
        assert trainer.engine == said
        found.append([without_time(trainer.history), [p.data for p in model.parameters()]])
    same(found[:2])


def test_what_is_no_property_of_the_shape_is_not_called_so():
    class Log(nn.Module):
        def __init__(self):
            self.out = nn.Linear(2, 2, rng=0)

        def forward(self, x):
            return self.out(x).log()

    model = Log()
    with pytest.raises(ValueError, match=r"^math domain error: log\(-.* at element"):
        Trainer(model, SGD(model.parameters()), "mse").fit(-X, REAL, 6, progress=False)
