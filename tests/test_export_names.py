"""Names of parameters: those of the Python program, found without running code of users; and groups of them for C."""
import functools
import random
import re
import sys
import time
import types
from collections import OrderedDict, deque, namedtuple

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value
from flatgrad.export.exported import Exported
from flatgrad.export.names import MOST_GROUPS, Stem, groups_of
from flatgrad.nn import MLP, LayerNorm, Module, Neuron, Sequential
from flatgrad.optim import Adam


def names(fn, *args):
    compiled = fn if isinstance(fn, flatgrad.program.Compiled) else flatgrad.compile(fn)
    compiled(*args)
    return Exported(compiled).names


# ---- what leads to them ----

W = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
SCALE = Value(3.0)


def helper(x):
    return x * SCALE


def test_globals_also_those_of_other_functions():
    assert names(lambda x: helper(x) + W.sum(), 1.0) == [*[f"W[{i}, {j}]" for i in (0, 1) for j in (0, 1, 2)], "SCALE"]


def test_closures_lists_and_dicts():
    theta = {"mass": Value(1.0), 3: Value(2.0), (1, 2): Value(2.5), "of": [Value(3.0), (Value(4.0), Value(5.0))],
             -1: Value(6.0)}
    w = [Value(0.5), Value(0.25)]

    def fn(x):
        return (theta["mass"] * theta[3] * x + theta[1, 2] + theta["of"][0] + theta["of"][1][0] * theta["of"][1][1]
                + w[1] * w[0] + theta[-1])

    assert names(fn, 1.0) == ["theta['mass']", "theta[3]", "theta[key]", "theta['of'][0]", "theta['of'][1][0]",
                              "theta['of'][1][1]", "theta[-1]", "w[0]", "w[1]"]


def test_defaults_and_partial():
    a, b, c = Value(1.0), Value(2.0), Value(3.0)

    def fn(first, x, k=b, *, only=c):
        return first * x + k * only

    assert names(functools.partial(fn, a), 1.0) == ["first", "k", "only"]
    assert names(lambda x: functools.partial(fn, a)(x), 1.0) == ["a", "k", "only"]


def test_methods_and_objects():
    class Base:
        __slots__ = ("inner", "never")

        def __init__(self):
            self.inner = types.SimpleNamespace(w=[Value(1.0), Value(2.0)])

    class Model(Base):
        shared = Value(7.0)

        def __init__(self):
            super().__init__()
            self.scale, self.more = Value(3.0), deque([Value(4.0)])

        def loss(self, x):
            return self.inner.w[0] * x + self.inner.w[1] * self.scale + self.more[0] + self.shared

        @flatgrad.compile
        def compiled(self, x):
            return self.loss(x)

    model = Model()
    expected = ["inner.w[0]", "inner.w[1]", "scale", "more[0]"]
    assert sorted(names(model.loss, 1.0)) == sorted(["self." + name for name in (*expected, "shared")])
    assert sorted(names(model.compiled, 1.0)) == sorted(["self." + name for name in (*expected, "shared")])
    assert sorted(names(lambda x: model.loss(x), 1.0)) == sorted(["model." + name for name in (*expected, "shared")])


def test_what_a_method_reads():
    class Model:
        def __call__(self, x):
            return self.times(x)

        def times(self, x):
            return x * SCALE

        @property
        def half(self):
            raise AssertionError("nobody asked for it")

    model = Model()
    assert names(lambda x: model(x), 1.0) == ["SCALE"] == names(model, 1.0)


def test_modules_of_python():
    module = types.ModuleType("somebodys")
    module.w = [Value(1.0), Value(2.0)]

    def fn(x):
        return somebodys.w[0] * x + somebodys.w[1]

    globals()["somebodys"] = module
    try:
        assert names(fn, 1.0) == ["somebodys.w[0]", "somebodys.w[1]"]
    finally:
        del globals()["somebodys"]


def test_classes_named_tuples_and_arrays_of_objects():
    class Config:
        w = Value(1.0)

    pair = namedtuple("Pair", "a b")(Value(2.0), Value(3.0))
    array = np.array([[Value(4.0), Value(5.0)], [Value(6.0), Value(7.0)]], dtype=object)
    several = [Tensor([1.0, 2.0]), Tensor([3.0])]

    def fn(x):
        return Config.w * x + pair.a * pair.b + array[0, 1] * array[1, 0] + several[0].sum() + several[1].sum()

    assert names(fn, 1.0) == ["Config.w", "pair[0]", "pair[1]", "array[0][1]", "array[1][0]", "several[0][0]",
                              "several[0][1]", "several[1][0]"]


def test_static_arguments():
    model = MLP(2, [1])
    assert names(flatgrad.compile(lambda net, x: net(x)), model, [1.0, 2.0]) == [
        "net.layers.0.weight[0, 0]", "net.layers.0.weight[0, 1]", "net.layers.0.bias[0]"]


def test_two_variables_of_one_name():
    def outer():
        w = Value(1.0)

        def inner(x):
            return x * w
        return inner

    first, second = outer(), outer()
    assert names(lambda x: first(x) + second(x), 1.0) == ["w", "inner.w"]


def test_frozen_numbers_are_no_parameters():
    w, b = Value(1.0), Value(2.0)
    b.requires_grad = False
    assert names(lambda x: w * x + b, 1.0) == ["w"]


def test_what_no_variable_leads_to():
    hidden = iter([Value(1.0), Value(2.0)])
    a, b = next(hidden), next(hidden)
    box = [a]
    kept = {"b": b}
    fn = flatgrad.compile(lambda x: x * box[0] + kept["b"])
    fn(1.0)
    kept.clear()
    exported = Exported(fn)
    assert exported.names == ["box[0]", "parameter 1"]
    assert [(g.name, g.identifier, g.first) for g in exported.groups][1] == ("parameter[1]", "PARAMETER_1", 1)


# ---- modules ----

class Model(Module):
    def __init__(self):
        self.body = Sequential(MLP(3, [4, 2]), LayerNorm(2))
        self.heads = {"left": MLP(2, [1]), "right": [MLP(2, [2]), Neuron(2)]}
        self.scale = Value(2.0)
        self.table = [[Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]]
        self.loose = {"a": Value(5.0), 3: [Value(6.0), {"b": Tensor([7.0, 8.0])}, [[Value(9.0)], [Value(10.0)]]]}
        self.matrix = Tensor([[1.0, 2.0]])
        self.parent = self

    def __call__(self, x):
        h = self.body(x)
        left, right = self.heads["left"](h), self.heads["right"]
        return (left + sum(right[0](h)) + right[1](h) + self.scale * self.table[0][1] * self.table[0][0] * self.table[1][0]
                * self.table[1][1] + self.loose["a"] + self.loose[3][0] + self.loose[3][1]["b"].sum()
                + self.loose[3][2][0][0] * self.loose[3][2][1][0] + self.matrix.sum())


def test_modules_as_named_parameters():
    model = Model()
    compiled = flatgrad.compile(lambda x: model(x))
    compiled([1.0, 2.0, 3.0])
    exported = Exported(compiled)
    known = {name: value.data for name, value in model.named_parameters()}
    got = {name.removeprefix("model."): x for name, x in zip(exported.names, exported.parameters)}
    assert {"loose.a", "loose.3.0", "loose.3.1.b[1]", "loose.3.2[1, 0]"} <= set(got)
    assert got == known
    keys = {re.sub(r"\[.*", "", name) for name in known}
    assert keys == set(model.state_dict())


def test_a_layer_that_the_program_has_changed():
    model = MLP(2, [2, 1])
    model.layers[0].neurons[1].w = [Value(1.0), Value(2.0), Value(3.0)]
    n = model.layers[0].neurons
    expected = [name for name, _ in model.named_parameters()]
    fn = flatgrad.compile(lambda x: n[0](x) + n[1]([*x, 1.0]) + model.layers[1](x))
    fn([1.0, 2.0])
    assert sorted(Exported(fn).names) == sorted([f"model.{name}" for name in expected])


def test_optimizers_do_not_give_names():
    model = MLP(2, [1])
    optimizer = Adam(model.parameters())
    assert names(lambda x: (optimizer, model)[1](x), [1.0, 2.0])[0] == "model.layers.0.weight[0, 0]"


# ---- hostile objects ----

class Hostile:
    """Nothing of it may run."""

    def __init__(self, w):
        vars(self).update(w=w, me=self)

    def fail(self, *_):
        if Hostile.armed:
            raise AssertionError("this is code of the user")
        return NotImplemented

    armed = False
    __eq__ = __bool__ = __len__ = __iter__ = fail
    __hash__ = None

    @property
    def danger(self):
        self.fail()

    def __getattribute__(self, name):
        if Hostile.armed:
            raise AssertionError(f"somebody asks for {name}")
        return object.__getattribute__(self, name)

    def __getattr__(self, name):
        raise AssertionError(f"somebody asks for {name}")


class Meta(type):
    def __getattribute__(cls, name):
        if Hostile.armed:
            raise AssertionError(f"somebody asks for {name}")
        return super().__getattribute__(name)

    def __instancecheck__(cls, x):
        raise AssertionError

    def __hash__(cls):
        assert not Hostile.armed
        return 1

    def __eq__(cls, other):
        assert not Hostile.armed
        return cls is other


class OfMeta(metaclass=Meta):
    pass


class OwnDict:
    @property
    def __dict__(self):
        assert not Hostile.armed
        return {}

    @property
    def __class__(self):
        if Hostile.armed:
            raise AssertionError
        return OwnDict


class OwnList(list):
    def __iter__(self):
        assert not Hostile.armed
        return super().__iter__()


class OwnMapping(dict):
    def items(self):
        raise AssertionError

    def __iter__(self):
        assert not Hostile.armed
        return super().__iter__()


def test_no_code_of_users_runs():
    w, b, c = Value(1.0), Value(2.0), Value(3.0)
    thing, other, own = Hostile(w), OfMeta(), OwnDict()
    other.w = b
    items = OwnList([c])
    mapping = OwnMapping({"thing": thing, "items": items, "other": [other], "own": own})
    items.append(mapping)
    holder = types.SimpleNamespace(mapping=mapping)

    def fn(x):
        return holder.mapping["thing"].w * x + holder.mapping["items"][0] + other.w

    compiled = flatgrad.compile(fn)
    assert compiled(2.0).data == 7.0
    exported = Exported(compiled)
    Hostile.armed = True
    try:
        found = exported.names
    finally:
        Hostile.armed = False
    assert sorted(found) == [
        "holder.mapping['items'][0]", "holder.mapping['other'][0].w", "holder.mapping['thing'].w"]


def test_deep_and_long_structures():
    w = Value(1.0)
    deep = [w]
    for _ in range(200_000):
        deep = [deep]
    keys = {("k" * 10_000): Value(2.0)}
    data = [[float(i)] for i in range(10_000)]
    fn = flatgrad.compile(lambda x: x * w + next(iter(keys.values())) + len(data) + len(deep))
    fn(1.0)
    began = time.process_time()
    found = Exported(fn).names
    assert time.process_time() - began < 5.0
    assert found[0] == "w" and len(found[1]) < 200
    while deep:   # or Python frees it by recursion
        deep = deep[0] if type(deep[0]) is list else None


def test_many_numbers_in_linear_time():
    def seconds(n):
        t = Tensor([0.5] * n)
        rows = [[Value(0.5) for _ in range(10)] for _ in range(n // 100)]
        fn = flatgrad.compile(lambda x: (t * x).sum() + sum([p for row in rows for p in row], Value(0.0)))
        fn(1.0)
        exported = Exported(fn)
        began = time.process_time()
        assert exported.names[n - 1] == f"t[{n - 1}]"
        assert [g.shape for g in exported.groups] == [(n,), (n // 100, 10)]
        return time.process_time() - began

    seconds(1000)
    assert min(seconds(20_000) for _ in range(3)) < 30 * min(seconds(2000) for _ in range(3)) + 0.05


# ---- groups ----

def test_groups_of_a_perceptron():
    model = MLP(2, [16, 16, 1])
    fn = flatgrad.compile(lambda x: model(x))
    fn([1.0, 2.0])
    exported = Exported(fn)
    assert [tuple(g) for g in exported.groups] == [
        ("model.layers.0.weight[i, j]", "LAYERS_0_WEIGHT", 0, (16, 2), (3, 1)),
        ("model.layers.0.bias[i]", "LAYERS_0_BIAS", 2, (16,), (3,)),
        ("model.layers.1.weight[i, j]", "LAYERS_1_WEIGHT", 48, (16, 16), (17, 1)),
        ("model.layers.1.bias[i]", "LAYERS_1_BIAS", 64, (16,), (17,)),
        ("model.layers.2.weight[i, j]", "LAYERS_2_WEIGHT", 320, (1, 16), (1, 1)),
        ("model.layers.2.bias[i]", "LAYERS_2_BIAS", 336, (1,), (1,))]
    check_groups(exported)


class Plain:
    """Micrograd's classes, as one writes them."""

    def __init__(self, sizes):
        self.layers = [types.SimpleNamespace(neurons=[
            types.SimpleNamespace(w=[Value(random.random()) for _ in range(n)], b=Value(0.0)) for _ in range(m)])
            for n, m in zip(sizes, sizes[1:])]

    def __call__(self, x):
        for layer in self.layers:
            x = [sum((w * a for w, a in zip(n.w, x)), n.b) for n in layer.neurons]
        return x[0]


def test_groups_of_plain_objects():
    model = Plain([2, 16, 16, 1])
    fn = flatgrad.compile(lambda x: model(x))
    fn([1.0, 2.0])
    exported = Exported(fn)
    assert exported.names[3:6] == ["model.layers[0].neurons[1].w[0]", "model.layers[0].neurons[1].w[1]",
                                   "model.layers[0].neurons[1].b"]
    assert [tuple(g) for g in exported.groups][:2] == [
        ("model.layers[0].neurons[i].w[j]", "LAYERS_0_NEURONS_W", 0, (16, 2), (3, 1)),
        ("model.layers[0].neurons[i].b", "LAYERS_0_NEURONS_B", 2, (16,), (3,))]
    check_groups(exported)


def check_groups(exported):
    """Each group's name with numbers for its letters is the name of the number at its place, and nothing is left out."""
    seen = set()
    for g in exported.groups:
        for index in np.ndindex(g.shape):
            k = g.first + sum(i * s for i, s in zip(index, g.strides))
            name = g.name
            for letter, i in zip("ijklmn", index):
                name = re.sub(rf"(?<=[\[ ]){letter}(?=[\],])", str(i), name)
            assert exported.names[k] == name
            seen.add(k)
    assert seen == set(range(len(exported.parameters)))
    identifiers = [g.identifier for g in exported.groups]
    assert len(set(identifiers)) == len(identifiers)
    assert all(re.fullmatch("[A-Z0-9_]+", name) for name in identifiers)


def test_groups_where_some_are_frozen():
    t = Tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    t[1, 0].requires_grad = False
    fn = flatgrad.compile(lambda x: (t * x).sum())
    fn(1.0)
    exported = Exported(fn)
    assert [(g.name, g.identifier) for g in exported.groups] == [
        ("t[0, i]", "T_0"), ("t[1, 1]", "T_1_1"), ("t[2, i]", "T_2")]
    check_groups(exported)


def test_many_irregular_groups():
    stem = Stem("w", (("root", "w"),), False)
    order = np.random.default_rng(0).permutation(5000).tolist()
    found = groups_of([(stem, (k,)) for k in order])
    assert len(found) == MOST_GROUPS
    assert all(found[k].first < found[k + 1].first for k in range(len(found) - 1))


@pytest.mark.parametrize(("key", "identifier"), [
    ("größe", "GR_E"), ("", "THETA_2"), ("a b", "A_B"), ("a-b", "A_B_2"), ("3", "3"), ("/* */", "THETA_3"), ("\n\"", "X")])
def test_identifiers_are_c(key, identifier):
    theta = OrderedDict([("", Value(0.0)), (key, Value(1.0)), (key + "_", Value(2.0)), ("x", Value(3.0))])
    fn = flatgrad.compile(lambda x: x * theta[""] + theta[key] * theta[key + "_"] + theta["x"])
    fn(1.0)
    exported = Exported(fn)
    check_groups(exported)
    assert all("\n" not in name and name.isprintable() for name in exported.names)


def test_no_parameters():
    fn = flatgrad.compile(lambda x: x * 2.0)
    fn(1.0)
    exported = Exported(fn)
    assert exported.names == [] == exported.groups


def test_names_are_looked_for_when_they_are_asked_for(monkeypatch):
    fn = flatgrad.compile(lambda x: W.sum() * x)
    fn(1.0)
    exported = Exported(fn)
    assert not {"names", "paths", "groups"} & set(vars(exported))
    assert exported.names is exported.names
    assert sys.modules["flatgrad.export.names"].MOST > 1000
