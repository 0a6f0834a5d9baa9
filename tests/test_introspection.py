"""What tools that look at objects see of Value and Tensor: signatures, names, homes, help."""
import copy
import doctest
import inspect
import pickle
import pydoc
import re

import pytest

import flatgrad
import flatgrad.engine
from flatgrad import Tensor, Value, _core

CLASSES = {"Value": Value, "Tensor": Tensor}
LATER = {"__class__", "__init_subclass__", "__subclasshook__"}   # without a signature in any class of Python


@pytest.mark.parametrize("name", CLASSES)
def test_signatures_of_classes(name):
    cls = CLASSES[name]
    signature = inspect.signature(cls)
    assert str(signature) == {
        "Value": "(data, _children=(), _op='', label=None, *, children=None, local_grads=None)",
        "Tensor": "(data, requires_grad=True)"}[name]
    signature.bind([1.0])
    cls(*signature.bind([1.0] if cls is Tensor else 1.0).args)

    assert cls.__doc__.startswith("A ") and f"{name}(" not in cls.__doc__.partition("\n\n")[0]


def test_signatures_of_subclasses():
    class Own(Value):
        def __init__(self, one, two=2):
            pass

    class Same(Value):
        pass

    assert str(inspect.signature(Own)) == "(one, two=2)" and inspect.signature(Same) == inspect.signature(Value)


@pytest.mark.parametrize("name", CLASSES)
def test_signatures_of_members(name):
    cls = CLASSES[name]
    without = []
    for member in sorted(set(dir(cls)) - LATER):
        if callable(getattr(cls, member, None)):
            try:
                inspect.signature(getattr(cls, member))
            except ValueError:
                without.append(member)
    assert without == []
    x = cls(2.0) if cls is Value else cls([2.0])
    for member in ("relu", "tanh", "backward", "leaky_relu", "__add__", "__radd__", "__mul__"):
        bound, unbound = (inspect.signature(getattr(owner, member)).parameters for owner in (x, cls))
        assert len(unbound) == len(bound) + 1 and next(iter(unbound)) == "self"


def test_signatures_of_functions():
    for name in _core.__all__:
        assert inspect.signature(getattr(flatgrad, name)) is not None
    for row in _core._operations():
        if row["public"]:
            assert list(inspect.signature(getattr(flatgrad, row["name"])).parameters)[:row["arity"]] == (
                row["operands"].split(", ")[:row["arity"]])


@pytest.mark.parametrize("name", CLASSES)
def test_home(name):
    cls = CLASSES[name]
    assert (cls.__module__, cls.__name__, cls.__qualname__) == ("flatgrad", name, name)
    assert repr(cls) == f"<class 'flatgrad.{name}'>" and pickle.loads(pickle.dumps(cls)) is cls is copy.deepcopy(cls)
    assert b"_core" not in pickle.dumps(cls)
    assert flatgrad.engine.Value is Value and inspect.getmodule(cls) is flatgrad
    found = {test.name: len(test.examples) for test in doctest.DocTestFinder().find(flatgrad)}
    assert found[f"flatgrad.{name}"] > 0 and found["flatgrad.Value.backward"] > 0


def test_messages_name_the_class_as_python_does_its_own():
    for expression in ["v + 'a'", "v.nothing", "v()", "v[0]", "Value.relu(5)", "v.relu(1)", "t.nothing", "t()", "Value.nothing"]:
        with pytest.raises((TypeError, AttributeError)) as caught:
            eval(expression, {"v": Value(1.0), "t": Tensor([1.0]), "Value": Value})
        assert "_core" not in str(caught.value) and ("Value" in str(caught.value) or "Tensor" in str(caught.value))


@pytest.mark.parametrize("x", [Value, Value.relu, Value.backward, Value(1.0), Tensor, flatgrad.tanh],
                         ids=["Value", "relu", "backward", "a Value", "Tensor", "tanh"])
def test_help(x):
    text = pydoc.plain(pydoc.render_doc(x))
    assert "Value" in text
    if x is Value.relu:
        assert re.search(r"relu\(self, /\)( unbound flatgrad.Value method)?\n    max\(x, 0\), as one node of the graph", text)


def test_names_of_rules():
    v = Value(2.0)
    for x, name in [
            (v, "Value.__init__.<locals>.<lambda>"), (v + v, "Value.__add__.<locals>._backward"),
            (3 - v, "Value.__sub__.<locals>._backward"), (v / 2, "Value.__truediv__.<locals>._backward"),
            (-v, "Value.__neg__.<locals>._backward"), (v**v, "Value.__pow__.<locals>._backward"),
            (v**3, "Value.__pow__.<locals>._backward"), (v**0.5, "Value.__pow__.<locals>._backward"),
            (v.tanh(), "Value.tanh.<locals>._backward"), (v.elu(), "Value.elu.<locals>._backward"),
            (abs(v), "Value.abs.<locals>._backward"), (flatgrad.maximum(v, 1), "maximum.<locals>._backward"),
            (flatgrad.sum([v, v]), "sum.<locals>._backward"), (Value(1.0, (v,)), "Value.__init__.<locals>.<lambda>"),
            (flatgrad.nn.Layer(2, 2)([v, v])[1], "layer.<locals>._backward"), (Tensor([1.0])[0], "Value.__init__.<locals>.<lambda>")]:
        rule = x._backward
        assert rule.__qualname__ == name and rule.__name__ == name.rpartition(".")[2]
        assert inspect.signature(rule) == inspect.Signature() and copy.copy(rule).__qualname__ == name

    def mine():
        pass

    v._backward = mine
    assert v._backward.__name__ == "mine"


def test_a_partial_derivative_has_its_sign_where_it_is_zero():
    x, y = Value(1.0), Value(-0.0)
    assert repr((x * y)._local_grads) == "(-0.0, 1.0)"
    assert repr((y * y)._local_grads) == "(-0.0, -0.0)"
    assert repr(y.sin()._local_grads) == "(1.0,)"
