"""Names that are looked for where they are not: the error says where there is one."""
import importlib

import pytest

import flatgrad
from flatgrad import arguments, nn
from flatgrad.errors import ArgumentTypeError


@pytest.mark.parametrize("name", arguments.ELSEWHERE)
def test_a_hint_leads_somewhere(name):
    found = flatgrad
    for part in arguments.ELSEWHERE[name].split("(")[0].split(",")[0].split(".")[1:]:
        found = getattr(found, part)
    assert name not in dir(nn)


@pytest.mark.parametrize("module, name, place", [
    ("flatgrad.nn", "HingeLoss", "flatgrad.losses.HingeLoss"), ("flatgrad.nn", "LSTM", "flatgrad.nn.LSTMCell"),
    ("flatgrad.losses", "mse_loss", "flatgrad.losses.mse"), ("flatgrad", "Adam", "flatgrad.optim.Adam"),
    ("flatgrad", "tensor", "flatgrad.Tensor"), ("flatgrad", "MLP", "flatgrad.nn.MLP"),
    ("flatgrad.optim", "softmax", "flatgrad.softmax"), ("flatgrad.optim", "Adma", None), ("flatgrad", "softmx", None),
    ("flatgrad.nn", "xyzzy", None), ("flatgrad.losses", "__wrapped__", None)])
def test_an_unknown_name(module, name, place):
    module = importlib.import_module(module)
    with pytest.raises(AttributeError) as info:
        getattr(module, name)
    message = f"module {module.__name__!r} has no attribute {name!r}"
    assert str(info.value).startswith(f"{message}; there is {place}" if place else message)
    assert place or str(info.value) == message
    assert (info.value.name, info.value.obj) == (name, module)   # by which Python says what is near
    assert not hasattr(module, name)


@pytest.mark.parametrize("make", [
    lambda activation: nn.MLP(2, [3, 1], activation=activation), lambda activation: nn.Layer(2, 3, activation),
    lambda activation: nn.MLP(2, [3, 1], out_activation=activation),
    lambda activation: setattr(nn.Layer(2, 3), "activation", activation)])
def test_an_activation_s_class_is_no_activation(make):
    with pytest.raises(ArgumentTypeError, match=r"^activation: expected a name or a function, such as 'relu' or ReLU"
                                                r"\(\), got the class Tanh$"):
        make(nn.Tanh)
