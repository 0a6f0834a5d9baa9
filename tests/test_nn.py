"""Modules: activations, initialisation and biases of layers, Sequential, and what every Module does:
finding its parts, state dicts, files, modes, the summary."""
import copy
import os
import pickle
import random

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, errors, nn
from flatgrad.nn import MLP, Layer, Module, Neuron, Sequential

ACTIVATIONS = ["linear", "relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "softplus", "tanh", "sigmoid",
               "softmax", flatgrad.tanh, lambda z: z * 2.0]
X = np.random.default_rng(0).normal(size=(5, 3))


def name_of(x):
    return x if isinstance(x, str) else None


def flat(out):
    """The Values of what a module gives."""
    if isinstance(out, Value):
        return [out]
    return [v for item in out for v in flat(item)]


def gradients(model, x):
    """The results, and the parameters' gradients of a weighted sum of them."""
    for p in model.parameters():
        p.grad = 0.0
    out = flat(model(x))
    total = Value(0.0)
    for k, v in enumerate(out):
        total = total + v * (k + 1.0)
    total.backward()
    return np.array([v.data for v in out]), np.array([p.grad for p in model.parameters()])


# ---- layers ----

@pytest.mark.parametrize("x", [X, X.tolist(), X[0].tolist(), X[0], Tensor(X), Tensor(X[0])],
                         ids=["array", "rows", "list", "row", "Tensor", "Tensor of one dimension"])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=name_of)
@pytest.mark.parametrize("nouts", [[4], [1], [4, 2], [4, 1]], ids=str)
def test_an_activation_is_that_of_the_scalar_graph(activation, nouts, x):
    model = MLP(3, nouts, activation=activation, out_activation=activation, rng=3)
    fused = gradients(model, x)
    kind = type(model(x))
    model.fused = False
    for layer in model.layers:
        layer.fused = False
    assert type(model(x)) is kind
    for ours, theirs in zip(fused, gradients(model, x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("activation", ACTIVATIONS[:10])
def test_a_neuron_is_its_layer(activation):
    layer = Layer(3, 2, activation, rng=1)
    for row in X:
        expected = [getattr(sum((w * x for w, x in zip(n.w, row)), n.b), activation)().data if activation != "linear"
                    else sum(w.data * x for w, x in zip(n.w, row)) for n in layer.neurons]
        np.testing.assert_allclose([n(row).data for n in layer.neurons], expected, rtol=1e-14)
        np.testing.assert_allclose([v.data for v in layer(row)], expected, rtol=1e-12)


def test_an_activation_may_be_changed_between_calls():
    layer = Layer(3, 2, "relu", rng=1)
    before = layer(X).data
    for n in layer.neurons:
        n.activation = "gelu"
    np.testing.assert_allclose(layer(X).data, Tensor(flatgrad.linear(X, [n.w for n in layer.neurons])).gelu().data,
                               rtol=1e-14)
    layer.neurons[0].activation = "relu"   # not all the same: each by itself
    np.testing.assert_allclose(layer(X).data[:, 0], before[:, 0], rtol=1e-14)
    assert layer.activation is None and "mixed" in layer.summary()
    for activation in "softmax", "tanh", flatgrad.sigmoid, "linear":
        layer.activation = activation
        assert layer.activation == activation
        np.testing.assert_array_equal(layer(X).data, Layer(3, 2, activation, rng=1)(X).data)
    with pytest.raises(errors.UnknownNameError, match="activation: .*'tahn'"):
        layer.activation = "tahn"
    assert layer.activation == "linear"


def test_a_method_of_ones_own_is_honoured():
    layer = Layer(3, 2, "elu", rng=1)
    was = Value.elu
    try:
        Value.elu = lambda v: v * 5.0
        assert layer(X[0])[0].data == 5.0 * sum(w.data * x for w, x in zip(layer.neurons[0].w, X[0]))
    finally:
        Value.elu = was


def test_without_a_bias():
    model = MLP(3, [4, 2], bias=False, rng=1)
    assert len(model.parameters()) == 3 * 4 + 4 * 2 and list(model.state_dict()) == ["layers.0.weight", "layers.1.weight"]
    W = model.state_dict()
    np.testing.assert_allclose(model(X).data, np.maximum(X @ W["layers.0.weight"].T, 0) @ W["layers.1.weight"].T)
    for other in copy.deepcopy(model), pickle.loads(pickle.dumps(model)):
        assert len(other.parameters()) == 20 and not other.layers[0].neurons[0].has_bias
    assert [p.data for p in Neuron(2, bias=False).parameters()] != [] and len(Neuron(2, bias=False).parameters()) == 2


def test_where_the_weights_come_from():
    random.seed(5)
    theirs = [p.data for p in MLP(3, [4, 2]).parameters()]
    state = random.getstate()
    assert [p.data for p in MLP(3, [4, 2], rng=5).parameters()] == theirs
    assert [p.data for p in MLP(3, [4, 2], rng=random.Random(5)).parameters()] == theirs
    assert random.getstate() == state   # a generator of its own
    generator = np.random.default_rng(1)
    first, second = (MLP(3, [4, 2], rng=generator).state_dict()["layers.0.weight"] for _ in range(2))
    assert not np.array_equal(first, second)
    model = MLP(2, [3], init=0.25)
    assert (model.state_dict()["layers.0.weight"] == 0.25).all()
    array = np.arange(6.0).reshape(3, 2)
    assert np.array_equal(Layer(2, 3, init=array).state_dict()["weight"], array)
    bound = np.sqrt(6 / (50 + 40))
    W = Layer(50, 40, "linear", init="xavier_uniform", rng=1).state_dict()["weight"]
    assert 0.95 * bound < np.abs(W).max() <= bound
    W = Layer(500, 40, "relu", init="he_normal", rng=1).state_dict()["weight"]
    assert np.std(W) == pytest.approx(np.sqrt(2 / 500), rel=0.03)


@pytest.mark.parametrize("make, error, text", [
    (lambda: MLP(2, [3], activation="rellu", out_activation="rellu"), errors.UnknownNameError, "rellu.*did you mean 'relu'"),
    (lambda: Layer(2, 3, activation=3), errors.ArgumentTypeError, "activation: .*got 3"),
    (lambda: Neuron(2, activation="softmax"), errors.UnknownNameError, "activation: .*'softmax'"),
    (lambda: Layer(2, 3, init="he_norml"), errors.UnknownNameError, "init: .*did you mean 'he_normal'"),
    (lambda: Layer(2, 3, init=np.ones((2, 3))), errors.ShapeError, r"init: expected the shape \(3, 2\), got \(2, 3\)"),
    (lambda: Layer(2, 3, init=float("nan")), errors.ArgumentError, "init: .*nan"),
    (lambda: Layer(2, 3, bias="no"), errors.ArgumentTypeError, "bias: .*'no'"),
    (lambda: Layer(2, 3, rng="seed"), errors.ArgumentTypeError, "rng: .*'seed'"),
    (lambda: Layer(-2, 3), ValueError, "nin: .*-2"),
    (lambda: MLP(2, 3), errors.ArgumentTypeError, "nouts: .*3"),
    (lambda: Sequential(Layer(2, 3), "relu"), errors.ArgumentTypeError, r"modules\[1\]: .*'relu'"),
    (lambda: MLP(2, [3])([1.0, 2.0, 3.0]), errors.ShapeError, "x: expected 2 inputs, .*got 3"),
    (lambda: MLP(2, [3])(np.ones((4, 3))), errors.ShapeError, "x: expected 2 inputs, .*got 3"),
    (lambda: Sequential(MLP(2, [3]), MLP(2, [3]))(np.ones((4, 2))), errors.ShapeError, "x: expected 2 inputs, .*got 3"),
    (lambda: Module()(1.0), errors.ArgumentTypeError, "forward"),
])
def test_mistakes(make, error, text):
    with pytest.raises(error, match=text):
        make()


# ---- Sequential ----

def test_modules_in_a_row():
    first, second = Layer(3, 4, "tanh", rng=1), Layer(4, 2, "linear", rng=2)
    model = Sequential(first, flatgrad.tanh, second)
    expected = np.tanh(first(X).data) @ second.state_dict()["weight"].T
    np.testing.assert_allclose(model(X).data, expected, rtol=1e-14)
    assert len(model) == 3 and model[0] is first and list(model)[-1] is second and len(model[1:]) == 2
    assert list(model.state_dict()) == ["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"]
    assert model.parameters() == [*first.parameters(), *second.parameters()]
    plain = Sequential([first, second])
    assert plain([1.0, 2.0, 3.0])[0]._op == "layer"
    plain.fused = False
    assert plain([1.0, 2.0, 3.0])[0]._op == "+"


# ---- what every Module does ----

class Net(Module):
    def __init__(self):
        self.name = "net"
        self.scale = Value(2.0)
        self.rows = [[Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]]
        self.table = Tensor(np.arange(3.0))
        self.constant = Tensor(np.ones(3), requires_grad=False)
        self.blocks = {"a": Layer(2, 1, rng=1), "b": [MLP(1, [1], rng=2)]}
        self.mean = np.zeros(2)

    buffer_names = ("mean",)

    def forward(self, x):
        return self.blocks["b"][0](self.blocks["a"](x)) * self.scale


KEYS = {"scale": (), "rows": (2, 2), "table": (3,), "blocks.a.weight": (1, 2), "blocks.a.bias": (1,),
        "blocks.b.0.layers.0.weight": (1, 1), "blocks.b.0.layers.0.bias": (1,), "mean": (2,)}


def test_a_module_finds_its_parts():
    net = Net()
    assert {key: array.shape for key, array in net.state_dict().items()} == KEYS
    names = [name for name, _ in net.named_parameters()]
    assert names[:6] == ["scale", "rows[0, 0]", "rows[0, 1]", "rows[1, 0]", "rows[1, 1]", "table[0]"]
    assert names[-1] == "blocks.b.0.layers.0.bias[0]" and len(names) == len(set(names)) == 13
    assert [p for _, p in net.named_parameters()] == net.parameters()
    assert [type(child).__name__ for child in net.children()] == ["Layer", "MLP"]
    assert dict(net.named_modules())["blocks.b.0.layers.0"] is net.blocks["b"][0].layers[0]
    net([[1.0, 2.0], [3.0, 4.0]]).sum().backward()
    net.zero_grad()
    assert all(p.grad == 0.0 for p in net.parameters())


def test_tied_weights_are_listed_once():
    class Tied(Module):
        def __init__(self):
            self.first = Layer(2, 2)
            self.second = self.first
    tied = Tied()
    assert len(tied.parameters()) == 6 and [name for name, _ in tied.named_parameters()][0] == "first.weight[0, 0]"


def test_parameters_that_a_class_lists_itself():
    class Old(Module):   # as micrograd's users write
        def __init__(self):
            self.layers = [Layer(2, 3), Layer(3, 1)]

        def parameters(self):
            return [p for layer in self.layers for p in layer.parameters()]
    old = Old()
    assert [p for _, p in old.named_parameters()] == old.parameters() and len(old.parameters()) == 13
    assert list(old.state_dict()) == ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]


def test_a_layer_that_somebody_has_changed():
    layer = Layer(2, 2)
    layer.neurons[1].w.append(Value(1.0))
    assert {key: array.shape for key, array in layer.state_dict().items()} == {
        "neurons.0.weight": (2,), "neurons.0.bias": (), "neurons.1.weight": (3,), "neurons.1.bias": ()}
    layer = Layer(2, 2)
    layer.neurons[0].scale = Value(1.0)
    assert "neurons.0.scale" in layer.state_dict()
    assert Layer(2, 0).state_dict() == {} and Layer(2, 0).parameters() == []


def test_state_dicts_round_trip(tmp_path):
    source, target = Net(), Net()
    for k, p in enumerate(source.parameters()):
        p.data = k + 0.1
    source.mean[:] = 7.0
    target.load_state_dict(source.state_dict())
    assert [p.data for p in target.parameters()] == [p.data for p in source.parameters()]
    assert target.mean.tolist() == [7.0, 7.0] and target.mean is not source.mean
    third = Net()
    source.save(tmp_path / "net.npz")
    assert third.load(tmp_path / "net.npz") == ([], [])
    assert [p.data for p in third.parameters()] == [p.data for p in source.parameters()]
    assert set(np.load(tmp_path / "net.npz").files) == set(KEYS)
    assert [path.name for path in tmp_path.iterdir()] == ["net.npz"]


BAD = {
    "missing": (lambda state: state.pop("scale"), "scale: missing"),
    "extra": (lambda state: state.update(more=1.0), "more: not in the model"),
    "misshapen": (lambda state: state.update(rows=np.ones(3)), r"rows: expected the shape \(2, 2\), got \(3,\)"),
    "text": (lambda state: state.update(scale="two"), "scale: expected an array of numbers, got 'two'"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_state_of_another_model_changes_nothing(kind, tmp_path):
    net = Net()
    before = net.state_dict()
    state = {key: array + 1.0 for key, array in before.items()}
    change, text = BAD[kind]
    change(state)
    with pytest.raises(errors.StateError, match=text):
        net.load_state_dict(state)
    if kind in ("missing", "extra"):
        keys = net.load_state_dict(state, strict=False)
        assert keys == ((["scale"], []) if kind == "missing" else ([], ["more"]))
        net.load_state_dict(before)
    after = net.state_dict()
    assert all(np.array_equal(before[key], after[key]) for key in before)


def test_all_problems_are_named_at_once():
    with pytest.raises(errors.StateError, match="scale: missing.*rows: .*|rows: .*scale: missing"):
        Net().load_state_dict({key: 1.0 if key == "rows" else array for key, array in Net().state_dict().items()
                               if key != "scale"})


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04damaged" * 10])
def test_a_file_of_another_kind(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    net = Net()
    with pytest.raises(errors.StateError, match="file: .*npz"):
        net.load(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        net.load(tmp_path / "none")


def test_a_file_with_pickles_is_not_read(tmp_path):
    np.savez(tmp_path / "file.npz", scale=np.array([print], dtype=object))
    with pytest.raises(errors.StateError):
        Net().load(tmp_path / "file.npz")


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "net.npz"
    Net().save(path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda handle: 1 / 0)   # when all has been written
    with pytest.raises(ZeroDivisionError):
        Net().save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["net.npz"]
    with pytest.raises(FileNotFoundError) as caught:
        Net().save(tmp_path / "missing" / "net.npz")
    assert caught.value.filename == str(tmp_path / "missing" / "net.npz")


def test_modes():
    net = Net()
    assert net.training and net.blocks["a"].training
    assert net.eval() is net and not net.training and not net.blocks["b"][0].layers[0].training
    assert net.train() is net and all(module.training for module in net.modules())
    with pytest.raises(errors.ArgumentTypeError, match="mode: .*1"):
        net.train(1)


def test_the_summary():
    assert Net().summary().splitlines() == [
        "name                 module               parameters",
        "-                    Net                           8",
        "blocks.a             Layer(2, 1, relu)             3",
        "blocks.b.0.layers.0  Layer(1, 1, linear)           2",
        "total                                             13"]
    assert MLP(2, [3], out_activation=flatgrad.tanh).summary().splitlines()[1].split("  ")[1] == "Layer(2, 3, tanh)"


def test_a_list_of_values_that_is_no_matrix():
    class Ragged(Module):
        def __init__(self):
            self.rows = [[Value(1.0)], [Value(1.0), Value(2.0)]]
    assert len(Ragged().parameters()) == 3
    with pytest.raises(errors.ShapeError, match="rows of one length"):
        Ragged().state_dict()


@pytest.mark.parametrize("of", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies(of):
    model = Sequential(Layer(3, 4, "gelu", rng=1), Layer(4, 2, "softmax", rng=2)).eval()
    other = of(model)
    assert np.array_equal(other(X).data, model(X).data) and not other.training
    other.parameters()[0].data += 1.0
    assert not np.array_equal(other(X).data, model(X).data)


def test_star_import_is_as_in_micrograd():
    assert set(nn.__all__) >= {"Module", "Neuron", "Layer", "MLP", "Value", "random"}
