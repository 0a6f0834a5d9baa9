"""Where a recorded function has found things: whether they are there still, by hand for each kind of place."""
import gc

import pytest

from acting import cleared
from flatgrad import Value, _core, nn


def cell_of(x):
    def function():
        return x

    def empty():
        nonlocal x
        del x

    return function.__closure__[0], empty


EQUAL = [(10**6, int("1000000"), 10**6 + 1), (10**6, int("1000000"), 1e6), (0.5, float("0.5"), 0.25),
         (0.0, float("0.0"), -0.0), ("ab c", "".join(["ab", " c"]), "ab d"), (True, True, False), (1, 1, True)]


@pytest.mark.parametrize("kind", ["dict", "cell"])
@pytest.mark.parametrize("x, equal, other", EQUAL)
def test_equal_numbers_and_texts_are_the_same(x, equal, other, kind):
    for now, expected in ((x, True), (equal, True), (other, False)):
        places = _core._Places()
        if kind == "dict":
            names = {"a": x}
            places.dicts.append((names, "a", x))
            assert places.hold()
            names["a"] = now
        else:
            cell, _ = cell_of(x)
            places.cells.append((cell, x))
            assert places.hold()
            cell.cell_contents = now
        assert places.hold() is expected


@pytest.mark.parametrize("make", [list, object, lambda: Value(1.0), lambda: (object(),)])
def test_another_object_is_another(make):
    names, x = {"a": 1}, make()
    names["a"] = x
    places = _core._Places()
    places.dicts.append((names, "a", x))
    assert places.hold()
    names["a"] = make()
    assert not places.hold()
    names["a"] = x
    assert places.hold()


def test_a_name_that_was_not_there():
    names, places = {}, _core._Places()
    places.dicts.append((names, "a", _core._MISSING))
    assert places.hold() and places
    names["a"] = 1
    assert not places.hold()


def test_a_cell_that_is_empty():
    cell, empty = cell_of(3)
    places = _core._Places()
    places.cells.append((cell, 3))
    assert places.hold()
    empty()
    assert not places.hold()
    cell.cell_contents = 3
    assert places.hold()


@pytest.mark.parametrize("make", [list, lambda items: dict(enumerate(items))])
def test_what_is_in_a_container(make):
    a, b = object(), object()
    for before, after in (([], [a]), ([a], []), ([a, b], [a]), ([a, b], [b, a]), ([a], [a, b]), ([a], [b])):
        container, places = make(before), _core._Places()
        places.lists.append((container, tuple(before)))
        assert places.hold()
        container.clear()
        container.extend(after) if make is list else container.update(make(after))
        assert not places.hold()
        container.clear()
        container.extend(before) if make is list else container.update(make(before))
        assert places.hold()


@pytest.mark.parametrize("kind, wrong", [(kind, wrong) for kind, size in zip(
    ("dicts", "lists", "cells", "neurons", "functions"), (3, 2, 2, 4, 4)) for wrong in (
        [None] * size, (None,) * (size - 1), (None,) * (size + 1), None, ())])
def test_places_of_a_wrong_form(kind, wrong):
    places = _core._Places()
    getattr(places, kind).append(wrong)
    with pytest.raises(TypeError, match="places: got"):
        places.hold()
    getattr(places, kind).clear()
    assert places.hold() and not places


def test_places_that_the_collector_has_cleared():
    places = _core._Places()
    places.dicts.append(({}, "a", _core._MISSING))
    assert places.hold() and not cleared(places).hold()


# ---- neurons ----

class Named(Value):
    pass


def noted(neuron):
    places = _core._Places()
    assert places.note_neuron(neuron, {id(neuron.b)})
    assert places.hold()
    return places


def test_which_neurons_are_noted():
    neuron, places = nn.Neuron(3), _core._Places()
    for captured, expected in ((set(), False), ({id(neuron.b)}, True), ({id(neuron.w[0])}, True), ({id(neuron.w[2])}, True),
                               ({id(neuron)}, False)):
        assert places.note_neuron(neuron, captured) is expected
    assert len(places.neurons) == 3
    neuron.w = [Value(1.0), Named(2.0)]
    assert not places.note_neuron(neuron, {id(neuron.b)})   # a Value of a class with operators of its own, maybe
    assert len(places.neurons) == 3


def test_a_neuron_that_computes_with_the_same_in_another_list():
    neuron = nn.Neuron(3)
    places, w = noted(neuron), list(neuron.w)
    for same in (list(w), tuple(w), w):
        neuron.w = same
        for _ in range(2):
            assert places.hold()


@pytest.mark.parametrize("change", ["longer", "shorter", "another", "order", "class", "bias", "activation", "in place"])
def test_a_neuron_that_computes_with_something_else(change):
    neuron = nn.Neuron(3, nonlin=True)
    places, w, b = noted(neuron), list(neuron.w), neuron.b
    if change in ("longer", "shorter", "another", "order", "class"):
        neuron.w = {"longer": [*w, Value(1.0)], "shorter": w[:2], "another": [*w[:2], Value(1.0)], "order": w[::-1],
                    "class": [*w[:2], Named(1.0)]}[change]
    elif change == "bias":
        neuron.b = Value(0.0)
    elif change == "activation":
        neuron.activation = "tanh"
    else:
        neuron.w[1] = Value(2.0)
    for _ in range(2):
        assert not places.hold()
    neuron.w, neuron.b, neuron.activation = w, b, "relu"
    assert places.hold()
    gc.collect()
    assert _core._check()
