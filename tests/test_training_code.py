"""What a penalty may read and call, and its training runs in compiled code all the same: with the numbers of the loop in
Python, also after somebody has changed what it reads."""
import argparse
import dataclasses
import random
import types

import numpy as np
import pytest
from test_training_loop import REAL, X, mlp, same, without_time

from flatgrad import losses
from flatgrad.optim import SGD
from flatgrad.train import Trainer


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
