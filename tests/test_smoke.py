"""The whole in under a second: run this first."""
import random
import runpy
from pathlib import Path

import pytest

import flatgrad
from flatgrad import Value
from flatgrad.nn import MLP


def test_expression_example(capsys):
    example = Path(__file__).parent.parent / "examples" / "expression.py"
    if not example.exists():
        pytest.skip("not in a checkout")
    runpy.run_path(str(example))
    assert capsys.readouterr().out == "g     = 24.7041\ndg/da = 138.8338\ndg/db = 645.5773\n"


def test_a_network_learns():
    random.seed(1)
    model = MLP(2, [4, 1])
    losses = []
    for _ in range(200):
        loss = sum((model([x, y]) - (x - y)) ** 2 for x in (0.0, 1.0) for y in (0.0, 1.0))
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data -= 0.02 * p.grad
        losses.append(loss.data)
    assert losses[-1] < 0.01 * losses[0]


def test_submodules_and_version():
    assert flatgrad.engine.Value is flatgrad.Value is Value
    assert flatgrad.nn.MLP is MLP
    assert flatgrad.__version__.count(".") == 2
    assert set(flatgrad.stats()) >= {"nodes", "capacity", "bytes", "collections", "isa"}
    with pytest.raises(AttributeError, match="no attribute 'tanhh'"):
        flatgrad.tanhh


def test_star_import_leaves_builtins_alone():
    names = {}
    exec("from flatgrad import *", names)
    assert names["Value"] is Value and "abs" not in names and names["tanh"](0.0).data == 0.0
