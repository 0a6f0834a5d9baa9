"""Attributes with defaults: `label`, class attributes, and those that the package declares."""
import copy
import gc
import pickle
import weakref

import pytest
from leaks import living

import flatgrad
from flatgrad import Value, _core


@pytest.fixture(autouse=True)
def class_as_it_was(nothing_left_behind):
    before = set(vars(Value))
    yield
    for name in set(vars(Value)) - before:
        delattr(Value, name)


# ---- label ----

def test_label_of_any_value():
    x, y = Value(1.0), Value(2.0, label="y")
    assert x.label == (x + y).label == Value(1, label=None).label == Value.label == "" and y.label == "y"
    layer = flatgrad.nn.Layer(2, 2)
    assert [v.label for v in (*layer([x, y]), *layer.parameters(), flatgrad.Tensor([1.0])[0])] == [""] * 9
    assert repr(Value(1.0)) == "Value(data=1.0, grad=0.0)"


def test_label_deleted():
    x = Value(1.0)
    for _ in range(2):
        with pytest.raises(AttributeError, match="label: cannot be deleted: nobody has set this Value's"):
            del x.label
        x.label = "x"
        del x.label
        assert x.label == ""


def test_an_unset_label_takes_no_memory():
    before = flatgrad.stats()["nodes"], living()
    x = Value(1.0, label="")
    assert x.label == "" and _core._check()
    with pytest.raises(AttributeError, match="label"):
        del x.label
    y = Value(1.0, label="y")
    y.__init__(2.0)
    assert y.label == "y"
    y.__init__(2.0, label="")
    assert y.label == ""
    del x, y
    assert (flatgrad.stats()["nodes"], living()) == before


def test_label_of_a_class_with_another_default():
    try:
        Value.label = "none"
        assert Value(1.0).label == "none" and Value(1.0, label="").label == ""
    finally:
        _core._declare("label", default="")


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_label_of_copies(again):
    for x in (Value(1.0), Value(1.0) * 2.0):
        assert again(x).label == ""
        with pytest.raises(AttributeError):
            del again(x).label
        x.label = "x"
        assert again(x).label == "x"


# ---- class attributes ----

@pytest.mark.parametrize("default", ["", None, 0, (1, 2), [1], int, len, Value(5.0)], ids=repr)
def test_a_class_attribute_is_the_default(default):
    Value.tag = default
    v, w = Value(1.0), Value(2.0)
    assert v.tag is default
    with pytest.raises(AttributeError, match="tag"):
        del v.tag
    v.tag = "q"
    assert v.tag == "q" and w.tag is (v * w).tag is Value.tag is default
    del v.tag
    assert v.tag is default
    with pytest.raises(AttributeError, match="tag"):
        del v.tag
    v.tag = "q"
    Value.tag = "z"
    assert w.tag == "z"
    w.tag = "w"
    assert (v.tag, w.tag, Value(1.0).tag) == ("q", "w", "z")
    del Value.tag
    assert not hasattr(Value, "tag") and not hasattr(w, "tag")
    w.tag = "w"
    assert v.tag == "q" and not hasattr(Value(1.0), "tag")
    del default


@pytest.mark.parametrize("member", [lambda self: 1, property(lambda self: 1), staticmethod(len), classmethod(len)],
                         ids=["function", "property", "staticmethod", "classmethod"])
def test_methods_and_properties_are_no_defaults(member):
    Value.tag = member
    v = Value(1.0)
    with pytest.raises(AttributeError):
        v.tag = 5
    assert vars(Value)["tag"] is member


def test_special_names_are_no_defaults():
    v, members = Value(1.0), dict(vars(Value))
    for name in ("__doc__", "__module__"):
        with pytest.raises(AttributeError):
            setattr(v, name, "text")
    assert dict(vars(Value)) == members


def test_class_attributes_and_subclasses():
    class Named(Value):
        kind = "own"

    class Slots(Value):
        __slots__ = ("mine",)

    class Constant(Value):
        __slots__ = ()
        tag = "constant"

    Value.tag, v = "all", Value(1.0)
    n, s, c = Named(1.0), Slots(2.0), Constant(3.0)
    assert (n.tag, s.tag, c.tag, n.label) == ("all", "all", "constant", "")
    n.tag, s.tag, s.mine, n.kind = "n", "s", "m", "k"
    assert (n.tag, s.tag, v.tag, s.mine, n.kind, Named.kind) == ("n", "s", "all", "m", "k", "own")
    assert vars(n) == {"tag": "n", "kind": "k"}
    with pytest.raises(AttributeError):
        c.tag = 5
    del n.tag, s.tag, n.kind
    assert (n.tag, s.tag, n.kind) == ("all", "all", "own")
    for x in (n, s):
        with pytest.raises(AttributeError, match="tag"):
            del x.tag


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_copies_have_their_own_and_the_class_s(again):
    Value.tag = ["shared"]
    for x in (Value(1.0), Value(1.0) * 2.0):
        assert again(x).tag is Value.tag
        x.tag = ["own"]
        assert again(x).tag == ["own"]
        del x.tag


def test_pickles_find_their_attribute_behind_a_class_attribute():
    v = Value(1.0)
    v.tag = "q"
    saved = pickle.dumps(v)
    del Value.tag
    Value.tag = "class"
    assert pickle.loads(saved).tag == "q" and Value(1.0).tag == "class"


# ---- attributes that the package declares ----

def test_declared_defaults():
    _core._declare("tag", default="d")
    v, w = Value(1.0), Value(2.0)
    assert v.tag == Value.tag == "d"
    v.tag = "q"
    _core._declare("tag", default="e")
    assert (v.tag, w.tag) == ("q", "e")
    _core._declare("tag")
    assert v.tag == "q" and not hasattr(w, "tag") and not hasattr(Value, "tag")


def test_declared_factories():
    calls = []

    def factory():
        calls.append(None)
        return {}

    _core._declare("memo", factory=factory)
    v, w = Value(1.0), Value(2.0)
    assert not hasattr(Value, "memo") and not calls
    v.memo["a"] = 1
    assert v.memo == {"a": 1} and w.memo == {} and len(calls) == 2
    w.memo = 5
    assert w.memo == 5 and len(calls) == 2
    del v.memo
    assert v.memo == {} and len(calls) == 3
    product = v * w
    product.memo["kept"] = True
    result = product + 1.0
    del product
    flatgrad.collect()
    assert result._children[0].memo == {"kept": True}
    assert copy.deepcopy(v).memo == pickle.loads(pickle.dumps(v)).memo == v.memo

    class Named(Value):
        pass

    n = Named(1.0)
    n.memo[1] = 2
    assert n.memo == {1: 2} and vars(n) == {}
    n.memo = "own"
    assert n.memo == "own"
    del n.memo
    assert n.memo == {1: 2}


def test_a_factory_that_uses_the_value_and_the_tape():
    v = Value(1.0) * 2.0

    def factory():
        for _ in range(3):
            flatgrad.collect()
            [Value(1.0) + 1.0 for _ in range(100)]
        v.memo = "first"
        return "second"

    _core._declare("memo", factory=factory)
    assert v.memo == "first" and v.memo == "first" and v.data == 2.0


def test_a_factory_that_raises():
    _core._declare("memo", factory=lambda: 1 / 0)
    v = Value(1.0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            v.memo
    v.memo = 1
    assert v.memo == 1


def test_a_cycle_through_what_a_factory_made():
    _core._declare("memo", factory=list)
    v = Value(1.0) * 2.0
    v.memo.append(v)
    reference = weakref.ref(v)
    del v
    gc.collect()
    flatgrad.collect()
    assert reference() is None


@pytest.mark.parametrize("arguments, error, words", [
    ((5,), TypeError, "name: expected a str, got int 5"), (("data",), ValueError, "name: expected one that .*'data'"),
    (("relu",), ValueError, "'relu'"), (("_op",), ValueError, "'_op'"), (("_backward",), ValueError, "'_backward'"),
    (("__doc__",), ValueError, "'__doc__'"), (("__class__",), ValueError, "'__class__'")])
def test_what_cannot_be_declared(arguments, error, words):
    before = dict(vars(Value))
    with pytest.raises(error, match=words):
        _core._declare(*arguments)
    with pytest.raises(TypeError, match="factory: expected a callable, got int 3"):
        _core._declare("memo", factory=3)
    assert dict(vars(Value)) == before
