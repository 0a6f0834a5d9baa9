"""Classes that say themselves how they are copied, and what hangs on a Value: rules that are no closures, cells that
are empty, attributes that are there already."""
import copy
import copyreg
import io
import pickle

import numpy as np
import pytest

from flatgrad import Tensor, Value, _core

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


class Registered(Value):
    """Copied as `copyreg` says."""


class Reduced(Value):
    def __reduce__(self):
        return Reduced, (self.data + 100.0,)


class WithState(Value):
    def __reduce_ex__(self, protocol):
        return WithState, (self.data,), self.state


class WithoutState(Value):
    def __reduce_ex__(self, protocol):
        return WithoutState, (self.data + 1.0,)


def reduce_registered(x):
    return Registered, (x.data * 2.0,)


def test_a_class_that_copyreg_knows():
    x = Registered(3.0) * 1.0 + Registered(2.0)
    leaf = Registered(3.0)
    assert copy.copy(leaf).data == 3.0 and pickle.loads(pickle.dumps(leaf)).data == 3.0
    copyreg.pickle(Registered, reduce_registered)
    try:
        assert pickle.loads(pickle.dumps(leaf)).data == 6.0 and pickle.loads(pickle.dumps([x, leaf]))[1].data == 6.0
        for copied in (copy.copy(leaf), copy.deepcopy(leaf)):   # `copy` asks Value.__copy__ first
            assert type(copied) is Registered and copied.data == 3.0
    finally:
        del copyreg.dispatch_table[Registered]
    assert copy.copy(leaf).data == 3.0


def test_where_copyreg_knows_nothing(monkeypatch):
    monkeypatch.setattr(copyreg, "dispatch_table", {})
    x = Value(3.0)
    y = x * 2.0
    assert x in copy.copy(y)._prev and pickle.loads(pickle.dumps(y)).data == 6.0


def test_a_class_that_reduces_itself():
    x = Reduced(3.0)
    assert type(copy.copy(x)) is type(copy.deepcopy(x)) is Reduced
    y = x * 2.0
    assert copy.deepcopy(y).data == 6.0


@pytest.mark.parametrize("state, note", [(({"note": "kept"}, {}), "kept"), (None, None), ((None, {"note": 1}), 1)])
def test_a_class_with_its_own_state(state, note):
    x = WithState(3.0)
    x.state = state
    for copied in (copy.copy(x), copy.deepcopy(x)):
        assert type(copied) is WithState and copied.data == 3.0 and getattr(copied, "note", None) == note
    plain = WithoutState(3.0)
    assert copy.copy(plain).data == 4.0 and copy.deepcopy(plain).data == 4.0


class Sub(Value):
    pass


def test_an_element_of_another_class():
    """What its own dict has goes along."""
    run = (Tensor([1.0, 2.0]) * 3.0).__reduce__()[1][0]
    x = _core._restore_part(Sub, run, 1)
    x.own = [1]
    copied = copy.copy(x)
    assert type(copied) is Sub and copied.data == 6.0 and copied.own is x.own
    assert copy.deepcopy(x).own == [1] and copy.deepcopy(x).own is not x.own


def test_an_element_of_a_tensor():
    """Its copy is an element of a copy of the Tensor; what hangs on it goes along."""
    t = Tensor([1.0, 2.0]) * 3.0
    for note in (None, "kept"):
        x = t[1]
        if note:
            x.note = note
        copied = copy.copy(x)
        assert copied is not x and copied.data == 6.0 and getattr(copied, "note", None) == note
        assert sorted(v.data for v in copied._prev) == sorted(v.data for v in x._prev)


def test_attributes_of_instances_alone():
    """Those of a subclass's own dict, and none of the node."""
    x = Sub(1.0)
    x.own = [1]
    y = x * 2.0
    copied = copy.deepcopy([y, x])
    assert copied[1].own == [1] and copied[1].own is not x.own and copied[1] in copied[0]._prev


def test_pickles_that_need_each_other():
    """Values that are pickled one by one, in a diamond."""
    x = Value(1.0)
    a, b, c = x * 2.0, x * 3.0, x * 4.0
    d, e = a * b, b * c
    f = d * e * a
    for order in ([a, b, c, d, e, f], [x, b, a, e, d, f], [f, e, d, a, b, c, x]):
        with io.BytesIO() as file:
            pickler = pickle.Pickler(file)
            for v in order:
                pickler.dump(v)
            file.seek(0)
            unpickler = pickle.Unpickler(file)
            found = [unpickler.load() for _ in order]
        assert [v.data for v in found] == [v.data for v in order]
        alone = pickle.loads(pickle.dumps(order))
        assert [v.data for v in alone] == [v.data for v in order]


def test_results_of_another_class():
    """A pickle may have them: what their own dicts have is copied, though nothing hangs on the nodes."""
    x = Value(3.0)
    restore, arguments = (x * 2.0).__reduce_ex__(4)[1][0].__reduce__()[:2]
    y = _core._member(restore(*arguments[:3], {0: Sub}), 0)
    y.own = [1]
    copied = copy.deepcopy(y)
    assert type(y) is type(copied) is Sub and copied.data == 6.0 and copied.own == [1] and copied.own is not y.own


def test_rules_that_are_no_closures():
    x, calls = Value(1.0), []
    for rule in (calls.clear, print, len, lambda: None):
        y = x * 2.0
        y._backward = rule
        copied = copy.deepcopy(y)
        assert copied._backward == rule or callable(copied._backward)
        assert copied.data == 2.0


def test_a_rule_with_an_empty_cell():
    x = Value(1.0)

    def made(late):
        def rule():
            return later, x
        if late:
            later = 1
        else:
            del late
        return rule

    y = x * 2.0
    y._backward = made(False)
    copied = copy.deepcopy(y)
    with pytest.raises(NameError):
        copied._backward()
    z = x * 2.0
    z._backward = made(True)
    later, other = copy.deepcopy(z)._backward()
    assert later == 1 and other is not x and other.data == 1.0


class Refuses:
    def __deepcopy__(self, memo):
        raise self.error


def test_a_rule_over_what_cannot_be_copied():
    """The error is told, a ValueError as well: that of an empty cell is another one."""
    held = Refuses()

    def rule():
        return held

    y = Value(1.0) * 2.0
    y._backward = rule
    for error in (ValueError("own"), KeyError("own"), KeyboardInterrupt()):
        held.error = error
        with pytest.raises(type(error)) as caught:
            copy.deepcopy(y)
        assert caught.value is error
        caught = held.error = error = None


# ---- attributes ----

def test_attributes_take_the_place_of_those_that_there_are():
    x = Value(1.0) * 2.0
    x.note = "old"
    x.__setstate__(({"label": "new"}, {}))
    assert x.label == "new" and not hasattr(x, "note")


def test_names_of_special_methods():
    """A pickle may say them. They are no attributes that Value shows."""
    doc = Value.__doc__
    for name in ("__doc__", "__module__", "__own"):
        x = Value(1.0) * 2.0
        x.__setstate__(({name: 3}, {}))
        assert Value.__doc__ == doc and Value.__module__ == "flatgrad"
    setattr(Value, "__plain", 1)
    try:
        x = Value(1.0) * 2.0
        x.__setstate__(({"__plain": 3}, {}))
        assert getattr(x, "__plain") == 3 and getattr(Value(1.0), "__plain") == 1
    finally:
        delattr(Value, "__plain")


class OnlySets:
    def __set__(self, instance, x):
        raise AttributeError("own")


def test_a_name_of_a_descriptor_that_only_sets():
    Value.only_sets = present = OnlySets()
    try:
        x = Value(1.0) * 2.0
        x.__setstate__(({"only_sets": 3}, {}))
        assert Value.__dict__["only_sets"] is present and x.only_sets is present
    finally:
        del Value.only_sets


def test_a_property_that_has_been_taken_away():
    """It does not come back as an attribute."""
    present = Value.__dict__["_op"]
    x = Value(1.0) * 2.0
    del Value._op
    try:
        x.__setstate__(({"_op": "own"}, {}))
        assert "_op" not in Value.__dict__
    finally:
        Value._op = present
    assert x._op == "own"


def test_a_declared_name_that_the_class_has():
    Value.kind_of = 1
    try:
        _core._declare("kind_of", default=2)
        assert Value(1.0).kind_of == 2
        _core._declare("kind_of", default=3)
        assert Value(1.0).kind_of == 3
    finally:
        del Value.kind_of


def test_a_gradient_that_is_kept_on_an_element():
    """An assigned number takes its place, on the element and on its Tensor."""
    t = Tensor([1.0, 2.0])
    _core._keep([t], [Tensor([3.0, 4.0])])
    t[0].grad = 7.0
    assert [float(x.grad) if not isinstance(x.grad, Value) else x.grad.data for x in t] == [7.0, 4.0]
    x = Value(1.0)
    _core._keep([x], [Value(3.0) * 2.0])
    assert x.grad.data == 6.0
    x.grad = 1.0
    assert x.grad == 1.0 and np.isscalar(x.grad)


def test_a_part_is_restored_as_its_class():
    t = Tensor([1.0, 2.0, 3.0])
    restore, (cls, run, number) = t[0].__reduce_ex__(4)[:2]
    assert (cls, number) == (Value, 0)
    part = restore(Reduced, run, 1)
    assert type(part) is Reduced and part.data == 2.0 and t[1] is part and type(t[2]) is Value


def test_a_graph_that_needs_another_twice():
    c = Value(1.0) * 2.0
    d, e = c * 2.0, c * 3.0
    total, product = d + e, d * e
    below = total.__reduce_ex__(4)[1][0]
    assert product.__reduce_ex__(4)[1][0].__reduce__()[1][0] == [below]
    assert pickle.loads(pickle.dumps([total, product]))[1].data == product.data == 24.0


def test_a_saved_call_says_that_a_gradient_flows_where_none_does():
    recording = _core._Recording([x := Value(0.5), Value(2.0)])
    with recording:
        results = [x * 2.0]
    a, b = Value(0.5), Value(3.0)
    out, = recording.program(results)([a, b])
    graph = out.__reduce_ex__(4)[1][1].__reduce__()[1][0]
    restore, (below, saved, ends, classes), *_ = graph.__reduce__()
    assert saved[5].endswith(b"\1\0\0\0")
    saved = (*saved[:5], saved[5][:-4] + bytes(4), *saved[6:])
    again = _core._restore_part(Value, _core._member(restore(below, saved, ends, classes), 0), 0)
    assert again.data == 1.0
    assert [g and g.data for g in _core.written([again], [None], [a, b])] == [2.0, None]
    assert _core.written([again], [None], [b]) == [None]
    again.backward()
    assert (a.grad, b.grad) == (2.0, 0.0)
