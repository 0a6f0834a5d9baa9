"""nn's modules beyond micrograd's: against plain Python and finite differences, as samples and batches, in
state dicts, in training and evaluation, and with bad input. tests/test_torch_modules.py has PyTorch's side."""
import copy
import math
import pickle
import random

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, errors, nn
from flatgrad.nn.inputs import as_rows

ACTIVATIONS = {
    "ReLU": (nn.ReLU, lambda x: max(x, 0.0)),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.2), lambda x: x if x > 0 else 0.2 * x),
    "ELU": (lambda: nn.ELU(1.5), lambda x: x if x > 0 else 1.5 * math.expm1(x)),
    "GELU": (nn.GELU, lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
    "GELU tanh": (lambda: nn.GELU("tanh"),
                  lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    "SiLU": (nn.SiLU, lambda x: x / (1 + math.exp(-x))),
    "Softplus": (nn.Softplus, lambda x: math.log1p(math.exp(x))),
    "Tanh": (nn.Tanh, math.tanh),
    "Sigmoid": (nn.Sigmoid, lambda x: 1 / (1 + math.exp(-x))),
}
# name -> (the module, how many numbers a sample has, and its output)
MODULES = {
    "Linear": (lambda: nn.Linear(3, 4), 3, 4),
    "LayerNorm": (lambda: nn.LayerNorm(6, eps=1e-3), 6, 6),
    "BatchNorm": (lambda: nn.BatchNorm(4, eps=1e-3), 4, 4),
    "BatchNorm eval": (lambda: nn.BatchNorm(4).eval(), 4, 4),
    "RNNCell": (lambda: nn.RNNCell(3, 4), 3, 4),
    "LSTMCell": (lambda: nn.LSTMCell(3, 4), 3, 4),
    "GRUCell": (lambda: nn.GRUCell(3, 4), 3, 4),
    "Conv1d": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1, length=5), 10, 9),
    "Conv2d": (lambda: nn.Conv2d(2, 2, 2, dilation=2, padding=1, size=(3, 4)), 24, 24),
    "MaxPool1d": (lambda: nn.MaxPool1d(2, 2, length=5), 10, 4),
    "MaxPool2d": (lambda: nn.MaxPool2d(1, 2, 1, size=(3, 4)), 12, 6),
    "AvgPool1d": (lambda: nn.AvgPool1d(2, 3, length=6), 12, 4),
    "AvgPool2d": (lambda: nn.AvgPool2d(1, (2, 1), size=(4, 3)), 12, 6),
    "Dropout": (lambda: nn.Dropout(0.4, rng=1), 5, 5),
    "Softmax": (nn.Softmax, 4, 4),
    "LogSoftmax": (nn.LogSoftmax, 4, 4),
    **{name: (make, 4, 4) for name, (make, _) in ACTIVATIONS.items()},
}
FROM_SAMPLES = [name for name in MODULES if name != "BatchNorm"]


@pytest.fixture(autouse=True)
def seed():
    random.seed(17)


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def first(out):
    """The output, of an LSTMCell its first."""
    return out[0] if isinstance(out, tuple) else out


def moved(module, rng):
    """With parameters that are nowhere special, as ones and zeros are."""
    for _, values in module.named_values():
        values.data = values.data + rng.normal(0.0, 0.3, size=values.shape)
    return module


def test_every_module_is_here():
    here = {name.split()[0] for name in MODULES}
    assert set(nn.LOADED_LATER) - {"Embedding", "Flatten"} <= here   # which take and give other things


# ---- values and gradients ----

@pytest.mark.parametrize("name", MODULES)
def test_gradients_are_finite_differences(name, rng):
    make, width, n_out = MODULES[name]
    module = moved(make(), rng)
    data, weight = rng.normal(size=(3, width)), rng.normal(size=(3, n_out))
    x = Tensor(data)
    state, fresh = module.state_dict(), copy.deepcopy(module)

    def loss(data):
        again = copy.deepcopy(fresh)   # the same masks, and running statistics as they were
        again.load_state_dict(state)
        return float((first(again(data)).data * weight).sum())

    (first(module(x)) * weight).sum().backward()
    h = 1e-6

    def difference(array, place, f):
        kept = array[place]
        array[place] = kept + h
        above = f()
        array[place] = kept - h
        below = f()
        array[place] = kept
        return (above - below) / (2 * h)

    for place in np.ndindex(data.shape):
        assert x.grad[place] == pytest.approx(difference(data, place, lambda: loss(data)), rel=1e-5, abs=1e-7)
    for key, values in module.named_values():
        grad = values.grad
        for place in np.ndindex(values.shape):
            assert grad[place] == pytest.approx(difference(state[key], place, lambda: loss(data)), rel=1e-5,
                                                abs=1e-7), (key, place)


@pytest.mark.parametrize("name", MODULES)
def test_a_scalar_graph_gives_the_same(name, rng):
    make, width, n_out = MODULES[name]
    module = moved(make(), rng)
    data, weight = rng.normal(size=(3, width)), rng.normal(size=(3, n_out))
    results = []
    for scalar in (False, True):
        again, x = copy.deepcopy(module), Tensor(data)
        if scalar:
            with flatgrad.scalar_graph():
                out = first(again(x))
                (out * weight).sum().backward()
        else:
            out = first(again(x))
            (out * weight).sum().backward()
        results.append([out.data, x.grad, *(values.grad for _, values in again.named_values())])
    for ours, scalars in zip(*results):
        np.testing.assert_allclose(ours, scalars, rtol=1e-12, atol=1e-12)


class Array:
    """A column of another library: a sequence that NumPy can read."""

    def __init__(self, data):
        self.data = data

    def __array__(self, dtype=None, copy=None):
        return self.data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, k):
        return self.data[k]


@pytest.mark.parametrize("name", FROM_SAMPLES)
def test_samples_are_rows_of_a_batch(name, rng):
    make, width, n_out = MODULES[name]
    module = make().eval() if name == "Dropout" else moved(make(), rng)
    data = rng.normal(size=(3, width))
    batch = first(module(Tensor(data)))
    assert isinstance(batch, Tensor) and batch.shape == (3, n_out)
    for other in (data, data.tolist(), [[Value(v) for v in row] for row in data], [Tensor(row) for row in data],
                  np.array([[Value(v) for v in row] for row in data]), np.asfortranarray(data)):
        out = first(module(other))
        if name == "Dropout":
            assert out is other
            continue
        assert isinstance(out, Tensor)
        np.testing.assert_allclose(out.data, batch.data, rtol=1e-14, atol=1e-15)
    if name == "Dropout":
        return
    for sample in (data[1].tolist(), tuple(data[1]), [Value(v) for v in data[1]], iter(data[1]),
                   [Value(data[1, 0]), *data[1, 1:]]):
        out = first(module(sample))
        assert isinstance(out, list) and all(isinstance(y, Value) for y in out)
        np.testing.assert_allclose([y.data for y in out], batch.data[1], rtol=1e-14, atol=1e-15)
    for sample in (Tensor(data[1]), data[1], np.array([Value(v) for v in data[1]]), Array(data[1])):
        out = first(module(sample))
        assert isinstance(out, Tensor) and out.shape == (n_out,)
        np.testing.assert_allclose(out.data, batch.data[1], rtol=1e-14, atol=1e-15)
        np.testing.assert_array_equal((out + out).data, 2 * out.data)   # two lists would be joined
    view = first(module(Tensor(np.ascontiguousarray(data.T)).T))   # whose rows do not lie in order
    np.testing.assert_allclose(view.data, batch.data, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", FROM_SAMPLES)
def test_gradients_reach_the_values_of_a_list(name, rng):
    make, width, n_out = MODULES[name]
    module = moved(make(), rng)
    data, weight = rng.normal(size=width), rng.normal(size=n_out)
    values, tensor = [Value(v) for v in data], Tensor(data.reshape(1, -1))
    flatgrad.dot(first(copy.deepcopy(module)(values)), weight).backward()
    (first(copy.deepcopy(module)(tensor)) * weight).sum().backward()
    np.testing.assert_allclose([v.grad for v in values], tensor.grad[0], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_a_value(name):
    make, formula = ACTIVATIONS[name]
    for x in (-2.0, -0.3, 0.7, 3.0):
        y = make()(Value(x))
        assert isinstance(y, Value)
        assert y.data == pytest.approx(formula(x), rel=1e-13, abs=1e-15)
        assert [v.data for v in make()([x])] == [pytest.approx(y.data, rel=1e-15)]
        assert make()(np.array([[x]])).data == pytest.approx(y.data, rel=1e-15)


def test_a_value_by_itself():
    assert nn.Softmax()(Value(3.0)).data == 1.0
    assert nn.LogSoftmax()(Value(3.0)).data == 0.0
    assert nn.LayerNorm(1)(Value(3.0)).data == 0.0
    x = Value(3.0)
    y = nn.Dropout(0.5, rng=0)(x)   # which keeps the first
    y.backward()
    assert y.data == 6.0 and x.grad == 2.0
    one = nn.AvgPool1d(1, 2, length=2)([1.0, 3.0])   # one output: as a Layer of one neuron
    assert isinstance(one, Value) and one.data == 2.0
    assert nn.AvgPool1d(1, 2, length=2)([[1.0, 3.0]]).shape == (1, 1)


def test_convolution_by_hand():
    conv = nn.Conv1d(2, 1, 2, stride=2, padding=1, length=3)
    conv.load_state_dict({"weight": [[1.0, 10.0, 100.0, 1000.0]], "bias": [0.5]})
    # Channels 0 1 2 3 0 and 0 4 5 6 0; windows at 0 and 2.
    assert [y.data for y in conv([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])] == [4010.5, 6532.5]
    x = np.arange(1.0, 7.0)
    assert conv(np.array([x, x]).reshape(2, 2, 3)).tolist() == conv(np.array([x, x])).tolist()


def test_padding_is_zero_even_next_to_infinity():
    conv = nn.Conv1d(1, 1, 1, padding=1, bias=False, init=1.0, length=2)
    for x in ([[math.inf, 3.0]], Tensor([[math.inf, 3.0]])):
        assert conv(x).tolist() == [[0.0, math.inf, 3.0, 0.0]]


def test_equal_largest_numbers_share_the_gradient():
    x = Tensor([[2.0, 2.0, 1.0, 3.0]])
    nn.MaxPool1d(1, 2, length=4)(x).sum().backward()
    assert x.grad.tolist() == [[0.5, 0.5, 0.0, 1.0]]


def test_nan_goes_through():
    """As in PyTorch: models do not check what losses and the Trainer do."""
    for name in FROM_SAMPLES:
        if not name.startswith(("Dropout", "ReLU")):
            make, width, _ = MODULES[name]
            assert any(math.isnan(y.data) for y in first(make()([math.nan] * width))), name


def test_cells_take_any_form_of_state(rng):
    cell = nn.LSTMCell(2, 3)
    x, h, c = rng.normal(size=2), rng.normal(size=3), rng.normal(size=3)
    expected = [[v.data for v in part] for part in cell(x.tolist(), (h, c))]
    for state in [(h.tolist(), c.tolist()), (Tensor(h), Tensor(c)), ([Value(v) for v in h], c), (h[None], [c]), [h, c]]:
        assert [[v.data for v in part] for part in cell(x, state)] == expected
    for cell in (nn.RNNCell(2, 3), nn.GRUCell(2, 3)):
        np.testing.assert_allclose([v.data for v in cell(x)], [v.data for v in cell(x, np.zeros(3))], rtol=1e-14)
    zeros = (np.zeros(3), np.zeros(3))
    cell = nn.LSTMCell(2, 3)
    np.testing.assert_allclose([[v.data for v in p] for p in cell(x)], [[v.data for v in p] for p in cell(x, zeros)],
                               rtol=1e-14)


def test_embedding(rng):
    table = nn.Embedding(5, 2)
    data = table.weight.data
    assert table(3).shape == (2,) and table(3).tolist() == data[3].tolist()
    assert table(np.int64(3)).tolist() == data[3].tolist()
    assert table([3, 0, 3]).tolist() == data[[3, 0, 3]].tolist()
    assert table([[3, 0, 3], [1, 1, 1]]).tolist() == data[[[3, 0, 3], [1, 1, 1]]].reshape(2, 6).tolist()
    assert table(np.array([[3.0], [1.0]])).tolist() == data[[3, 1]].tolist()
    table([[3, 0, 3], [1, 1, 1]]).sum().backward()
    assert table.weight.grad.tolist() == [[1.0, 1.0], [3.0, 3.0], [0.0, 0.0], [2.0, 2.0], [0.0, 0.0]]
    table.zero_grad()
    table(4).sum().backward()
    assert table.weight.grad.sum() == table.weight.grad[4].sum() == 2.0
    assert nn.Embedding(2, 2, init=[[1, 2], [3, 4]]).weight.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_numbers_are_constants():
    """No gradient is computed for samples that are only numbers."""
    for x in ([1.0, 2.0], [[1, 2], [3, 4]], np.ones((2, 2)), np.ones(2, dtype=np.float32), Tensor([1.0], False), 3.0):
        assert not as_rows(x)[0].requires_grad
    for x in (Tensor([1.0]), Value(1.0), [1.0, Value(2.0)], [[1.0], [Value(2.0)]], [Tensor([1.0])]):
        assert as_rows(x)[0].requires_grad


# ---- dropout ----

def test_dropout_drops_and_keeps_the_mean():
    drop = nn.Dropout(0.3, rng=2)
    y = drop(np.ones((100, 200))).data
    assert set(y.reshape(-1)) == {0.0, 1 / 0.7}
    assert abs((y == 0).mean() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / y.size)
    assert not np.array_equal(drop(np.ones((100, 200))).data, y)


def test_dropout_after_eval_is_the_input_itself():
    drop = nn.Dropout(0.5)
    x = Tensor([[1.0, 2.0]])
    assert drop.eval()(x) is x
    assert drop.train()(x) is not x
    assert nn.Dropout(0.0)(x) is x
    assert nn.Dropout(1)([1.0, 2.0])[1].data == 0.0


def test_dropout_draws_from_what_it_is_given():
    x = np.ones((3, 7))

    def masks(drop):
        return [drop(x).tolist() for _ in range(3)]

    expected = masks(nn.Dropout(rng=5))
    assert masks(nn.Dropout(rng=5)) == masks(nn.Dropout(rng=np.random.default_rng(5))) == expected
    assert masks(nn.Dropout(rng=6)) != expected
    shared = np.random.default_rng(5)
    assert nn.Dropout(rng=shared).rng is shared
    random.seed(1)
    expected = masks(nn.Dropout())
    assert masks(nn.Dropout()) != expected
    assert masks(nn.Dropout(rng=random.Random(1))) == expected
    random.seed(1)
    assert masks(nn.Dropout()) == expected
    drop = nn.Dropout(rng=5)
    clone = copy.deepcopy(drop)
    assert masks(clone) == masks(drop)


# ---- batch norm ----

def test_running_statistics_follow():
    norm = nn.BatchNorm(2, momentum=0.25)
    norm([[1.0, 0.0], [3.0, 4.0]])
    assert norm.running_mean.tolist() == [0.5, 0.5]
    assert norm.running_var.tolist() == [0.75 + 0.25 * 2.0, 0.75 + 0.25 * 8.0]
    assert norm.num_batches_tracked == 1 and norm.num_batches_tracked.shape == ()
    before = norm.state_dict()
    norm.eval()([[5.0, 5.0], [7.0, 7.0]])
    assert all(np.array_equal(before[key], array) for key, array in norm.state_dict().items())
    mean = nn.BatchNorm(1, momentum=None)
    for batch in ([[1.0], [3.0]], [[4.0], [8.0]]):
        mean(batch)
    assert mean.running_mean.tolist() == [4.0] and mean.running_var.tolist() == [5.0]
    plain = nn.BatchNorm(1, track_running_stats=False)
    assert plain.running_mean is None and set(plain.state_dict()) == {"weight", "bias"}
    assert plain.eval()([[1.0], [3.0]]).data[1, 0] == pytest.approx(1.0, rel=1e-4)


def test_a_failed_call_leaves_the_running_statistics():
    norm = nn.BatchNorm(2)
    before = norm.state_dict()
    for x in ([[1.0, 2.0]], [1.0, 2.0], [[1.0], [2.0]], [], np.zeros((0, 2))):
        with pytest.raises(errors.FlatgradError):
            norm(x)
    zero = nn.BatchNorm(2, eps=0)
    with pytest.raises(ZeroDivisionError):
        zero([[1.0, 2.0], [1.0, 3.0]])
    for module in (norm, zero):
        assert all(np.array_equal(before[key], array) for key, array in module.state_dict().items())


def test_copies_have_running_statistics_of_their_own():
    norm = nn.BatchNorm(1)
    for clone in (copy.copy(norm), copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        clone([[1.0], [3.0]])
        assert clone.num_batches_tracked == 1 and isinstance(clone.num_batches_tracked, np.ndarray)
    assert norm.running_mean.tolist() == [0.0] and norm.num_batches_tracked == 0


# ---- parameters, state dicts, modes ----

@pytest.mark.parametrize("make, shapes", [
    (lambda: nn.LayerNorm(3), {"weight": (3,), "bias": (3,)}),
    (lambda: nn.BatchNorm(3), {"weight": (3,), "bias": (3,), "running_mean": (3,), "running_var": (3,),
                               "num_batches_tracked": ()}),
    (lambda: nn.RNNCell(2, 3), {"weight_ih": (3, 2), "weight_hh": (3, 3), "bias_ih": (3,), "bias_hh": (3,)}),
    (lambda: nn.LSTMCell(2, 3), {"weight_ih": (12, 2), "weight_hh": (12, 3), "bias_ih": (12,), "bias_hh": (12,)}),
    (lambda: nn.GRUCell(2, 3, bias=False), {"weight_ih": (9, 2), "weight_hh": (9, 3)}),
    (lambda: nn.Conv1d(2, 4, 3, length=5), {"weight": (4, 6), "bias": (4,)}),
    (lambda: nn.Conv2d(2, 4, (3, 2), bias=False, size=5), {"weight": (4, 12)}),
    (lambda: nn.Embedding(5, 2), {"weight": (5, 2)}),
    (lambda: nn.Dropout(), {}), (lambda: nn.MaxPool1d(1, 2, length=4), {}), (lambda: nn.ReLU(), {}),
])
def test_state_dicts(make, shapes, tmp_path):
    module, other = make(), make()
    for _, values in other.named_values():
        values.data = values.data + 1.0
    state = module.state_dict()
    assert {key: array.shape for key, array in state.items()} == shapes
    assert len(module.parameters()) == sum(math.prod(shape) for key, shape in shapes.items()
                                           if key.split("_")[0] in ("weight", "bias"))
    assert other.load_state_dict(state) == ([], [])
    module.save(tmp_path / "module.npz")
    third = make()
    third.load(tmp_path / "module.npz")
    for again in (other, third, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert all(np.array_equal(array, state[key]) for key, array in again.state_dict().items())
        assert repr(again) == repr(module)
    if shapes:
        key = next(iter(shapes))
        with pytest.raises(errors.StateError, match=f"{key}: expected the shape"):
            module.load_state_dict({**state, key: np.zeros((2, 2, 2))})
        with pytest.raises(errors.StateError, match=f"{key}: missing"):
            module.load_state_dict({k: v for k, v in state.items() if k != key})


def test_pytorchs_shapes_of_kernels_are_loaded():
    weight = np.arange(24.0).reshape(2, 3, 2, 2)
    conv = nn.Conv2d(3, 2, 2, size=4)
    conv.load_state_dict({"weight": weight, "bias": [0.0, 0.0]})
    assert np.array_equal(conv.weight.data, weight.reshape(2, 12))
    with pytest.raises(errors.StateError, match=r"weight: expected the shape \(2, 12\), got \(3, 2, 2, 2\)"):
        conv.load_state_dict({"weight": weight.reshape(3, 2, 2, 2), "bias": [0.0, 0.0]})
    with pytest.raises(errors.StateError, match=r"weight: expected the shape \(2, 12\), got \(2, 10\)"):
        conv.load_state_dict({"weight": np.zeros((2, 5, 2)), "bias": [0.0, 0.0]})


def test_one_model_of_many_modules(rng):
    """Modules in attributes and lists: found, named, switched, and trained by a step down the gradient."""
    conv = nn.Conv2d(1, 3, 3, padding=1, size=(4, 4), rng=1)
    pool = nn.MaxPool2d(3, 2, size=conv.output_size)
    model = nn.Sequential(conv, nn.Tanh(), pool, nn.LayerNorm(pool.out_features),
                          nn.Layer(pool.out_features, 6, activation="gelu", init="he_normal", rng=2),
                          nn.BatchNorm(6), nn.Dropout(0.2, rng=3), nn.Layer(6, 1, activation="linear", rng=4))
    names = [name for name, _ in model.named_parameters()]
    assert set(names) == {f"{key}{list(place)}" for key, array in model.state_dict().items()
                          if key.endswith(("weight", "bias")) for place in np.ndindex(array.shape)}
    assert names[0] == "layers.0.weight[0, 0]" and len(names) == len(set(names)) == len(model.parameters())
    X, y = rng.normal(size=(8, 1, 4, 4)), rng.normal(size=(8, 1))

    def loss():
        return ((model(X) - y) ** 2).mean()

    losses = []
    for _ in range(30):
        model.zero_grad()
        out = loss()
        out.backward()
        for _, values in model.named_values():
            if isinstance(values, Tensor):
                values.data = values.data - 0.02 * values.grad
        for p in [p for k in (4, 7) for p in model[k].parameters()]:
            p.data -= 0.02 * p.grad
        losses.append(out.data)
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    model.eval()
    assert not any(module.training for module in model.modules())
    sample = model(X[2].reshape(-1).tolist())
    assert sample.data == pytest.approx(model(X).data[2, 0], rel=1e-12)
    assert loss().data == loss().data
    assert "Conv2d(1, 3, (3, 3), padding=(1, 1), size=(4, 4))" in model.summary()


def test_a_recurrent_network_learns_to_remember():
    """Whether the first of three numbers was 1: gradients through time."""
    cell, read = nn.GRUCell(1, 4, rng=1), nn.Layer(4, 1, activation="sigmoid", rng=2)
    X = np.array([[[float(k >> b & 1)] for k in range(8)] for b in range(3)])

    def predict():
        h = None
        for x in X:
            h = cell(x, h)
        return read(h)

    for _ in range(150):
        cell.zero_grad(), read.zero_grad()
        ((predict() - X[0]) ** 2).mean().backward()
        for _, values in cell.named_values():
            values.data = values.data - 3.0 * values.grad
        for p in read.parameters():
            p.data -= 3.0 * p.grad
    assert ((predict().data > 0.5) == X[0]).all()


def test_no_grad():
    for name in FROM_SAMPLES:
        make, width, n_out = MODULES[name]
        module, data = make(), np.random.default_rng(0).normal(size=(3, width))
        expected = first(copy.deepcopy(module)(Tensor(data))).data
        with flatgrad.no_grad():
            for x in (Tensor(data), data, [[Value(v) for v in row] for row in data]):
                out = first(copy.deepcopy(module)(x))
                np.testing.assert_allclose(out.data, expected, rtol=1e-14, atol=1e-15)
                assert not out.requires_grad


@pytest.mark.parametrize("make, text", [
    (lambda: nn.Dropout(0.3), "Dropout(0.3)"), (lambda: nn.LayerNorm(16), "LayerNorm(16)"),
    (lambda: nn.LayerNorm(16, bias=False), "LayerNorm(16, bias=False)"),
    (lambda: nn.LayerNorm(16, elementwise_affine=False), "LayerNorm(16, elementwise_affine=False)"),
    (lambda: nn.BatchNorm(4, momentum=None), "BatchNorm(4, momentum=None)"),
    (lambda: nn.RNNCell(2, 3, nonlinearity="relu"), "RNNCell(2, 3, nonlinearity='relu')"),
    (lambda: nn.LSTMCell(2, 3, bias=False), "LSTMCell(2, 3, bias=False)"),
    (lambda: nn.Conv1d(1, 2, 3, stride=2, length=9), "Conv1d(1, 2, 3, stride=2, length=9)"),
    (lambda: nn.Conv2d(1, 2, 3, size=9), "Conv2d(1, 2, (3, 3), size=(9, 9))"),
    (lambda: nn.MaxPool1d(1, 2, length=4), "MaxPool1d(1, 2, length=4)"),
    (lambda: nn.MaxPool2d(1, 2, 1, size=4), "MaxPool2d(1, (2, 2), stride=(1, 1), size=(4, 4))"),
    (lambda: nn.Embedding(5, 2), "Embedding(5, 2)"), (lambda: nn.ReLU(), "ReLU()"),
    (lambda: nn.LeakyReLU(0.2), "LeakyReLU(negative_slope=0.2)"), (lambda: nn.GELU("tanh"), "GELU(approximate='tanh')"),
    (lambda: nn.ELU(), "ELU()"), (lambda: nn.Flatten(), "Flatten()"),
])
def test_reprs(make, text):
    assert repr(make()) == text
    assert text in make().summary()


def test_flatten():
    x = np.arange(24.0).reshape(2, 3, 4)
    assert nn.Flatten()(x).tolist() == x.reshape(2, 12).tolist()
    for same in (Tensor([[1.0]]), [1.0, 2.0], x[0], Value(1.0)):
        assert nn.Flatten()(same) is same
    with pytest.raises(errors.ShapeError, match=r"x: expected one sample at least, got the shape \(0, 3, 4\)"):
        nn.Flatten()(x[:0])


# ---- bad input ----

@pytest.mark.parametrize("make, error, message", [
    (lambda: nn.Dropout(1.1), errors.ArgumentError, "p: expected a number from 0 to 1, got 1.1"),
    (lambda: nn.Dropout(-0.1), errors.ArgumentError, "p: expected a number from 0 to 1, got -0.1"),
    (lambda: nn.Dropout(math.nan), errors.ArgumentError, "p: expected a number from 0 to 1, got nan"),
    (lambda: nn.Dropout("0.5"), errors.ArgumentTypeError, "p: expected a number from 0 to 1, got '0.5'"),
    (lambda: nn.Dropout(rng=1.5), errors.ArgumentTypeError, "rng: expected None, an int .*got 1.5"),
    (lambda: nn.BatchNorm(0), errors.ArgumentError, "num_features: expected an int, 1 or more, got 0"),
    (lambda: nn.BatchNorm(2, eps=-1), errors.ArgumentError, "eps: expected a finite number, 0 or more, got -1"),
    (lambda: nn.BatchNorm(2, eps=math.nan), errors.ArgumentError, "eps: .*got nan"),
    (lambda: nn.BatchNorm(2, momentum=2), errors.ArgumentError, "momentum: expected a number from 0 to 1, or None, got 2"),
    (lambda: nn.BatchNorm(2, affine=1), errors.ArgumentTypeError, "affine: expected True or False, got 1"),
    (lambda: nn.LayerNorm(2.0), errors.ArgumentTypeError, "normalized_shape: expected an int, 1 or more, got 2.0"),
    (lambda: nn.LayerNorm(2, bias=None), errors.ArgumentTypeError, "bias: expected True or False, got None"),
    (lambda: nn.RNNCell(2, 0), errors.ArgumentError, "hidden_size: expected an int, 1 or more, got 0"),
    (lambda: nn.RNNCell(2, 2, nonlinearity="tan"), errors.UnknownNameError, "nonlinearity: .*did you mean 'tanh'?"),
    (lambda: nn.LSTMCell("2", 2), errors.ArgumentTypeError, "input_size: expected an int, 1 or more, got '2'"),
    (lambda: nn.GRUCell(2, 2, rng="x"), errors.ArgumentTypeError, "rng: expected None, an int, .*got 'x'"),
    (lambda: nn.Conv1d(0, 1, 1, length=3), errors.ArgumentError, "in_channels: expected an int, 1 or more, got 0"),
    (lambda: nn.Conv1d(1, 1, 4, length=3), errors.ShapeError, "kernel_size: .*reaches over 4 where there are 3"),
    (lambda: nn.Conv1d(1, 1, 2, dilation=3, length=3), errors.ShapeError, "kernel_size: .*over 4 where there are 3"),
    (lambda: nn.Conv1d(1, 1, 1, stride=0, length=3), errors.ArgumentError, "stride: expected an int, 1 or more, got 0"),
    (lambda: nn.Conv1d(1, 1, 1, padding=-1, length=3), errors.ArgumentError, "padding: expected an int, 0 or more"),
    (lambda: nn.Conv1d(1, 1, (1, 1), length=3), errors.ShapeError, r"kernel_size: expected an int, got \(1, 1\)"),
    (lambda: nn.Conv1d(1, 1, 1), TypeError, "length"),
    (lambda: nn.Conv1d(1, 1, 1, length=3, init="ones "), errors.UnknownNameError, "init: .*did you mean 'ones'?"),
    (lambda: nn.Conv2d(1, 1, 2, size=(3,)), errors.ShapeError, r"size: expected an int, or 2 of them, got \(3,\)"),
    (lambda: nn.Conv2d(1, 1, 2.5, size=3), errors.ArgumentTypeError, "kernel_size: expected an int, or 2 .*got 2.5"),
    (lambda: nn.Conv2d(1, 1, (2, 0), size=3), errors.ArgumentError, r"kernel_size\[1\]: expected an int, 1 or more"),
    (lambda: nn.Conv2d(1, 1, (2, 4), size=3), errors.ShapeError, r"kernel_size: .*over \(2, 4\) where there are \(3, 3\)"),
    (lambda: nn.MaxPool1d(1, 4, length=3), errors.ShapeError, "kernel_size: .*over 4"),
    (lambda: nn.AvgPool2d(1, 2, 0, size=3), errors.ArgumentError, "stride: expected an int, 1 or more, got 0"),
    (lambda: nn.Embedding(0, 2), errors.ArgumentError, "num_embeddings: expected an int, 1 or more, got 0"),
    (lambda: nn.Embedding(2, -2), errors.ArgumentError, "embedding_dim: expected an int, 1 or more, got -2"),
    (lambda: nn.Embedding(2, 2, init=math.nan), errors.ArgumentError, "init: expected a finite number, got nan"),
    (lambda: nn.LeakyReLU(math.inf), errors.ArgumentError, "negative_slope: expected a finite number, got inf"),
    (lambda: nn.ELU("1"), errors.ArgumentTypeError, "alpha: expected a finite number, got '1'"),
    (lambda: nn.GELU("tan"), errors.UnknownNameError, "approximate: .*did you mean 'tanh'?"),
    (lambda: nn.Convd, AttributeError, "has no attribute 'Convd'"),
])
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ACTIVATIONS
                                  and name not in ("Dropout", "Softmax", "LogSoftmax")])
def test_wrong_widths(name, nothing_left_behind):
    make, width, _ = MODULES[name]
    module = make()
    state = module.state_dict()
    for x in ([[0.0] * (width + 1)] * 2, Tensor([[0.0] * (width - 1)] * 2), np.zeros((2, width + 1))):
        with pytest.raises(errors.ShapeError, match=rf"x: expected {width} .*got the shape \(2, {np.shape(x)[1]}\)"):
            module(x)
    for x in ([Value(0.0)] * (width + 1), np.zeros(width + 1), Tensor(np.zeros(width + 1))):
        with pytest.raises(errors.ShapeError, match=rf"x: expected {width} .*got the shape \({width + 1},\)"):
            module(x)
    assert all(np.array_equal(state[key], array) for key, array in module.state_dict().items())


@pytest.mark.parametrize("name", FROM_SAMPLES)
@pytest.mark.parametrize("x, error, message", [
    ([], errors.DataError, "x: expected one number at least, got an empty list"),
    (np.zeros((0, 3)), errors.DataError, r"x: expected one number at least, got the shape \(0, 3\)"),
    ([[]], errors.FlatgradError, "x: expected"),
    ([[1.0, 2.0], [1.0]], errors.ShapeError, "x: expected rows of one length"),
    ([1.0, "2"], errors.ArgumentTypeError, r"x\[1\]: expected a real number, got str '2'"),
    ("12", errors.ArgumentTypeError, "x: expected a list or an array"),
    (None, errors.ArgumentTypeError, "x: expected a list or an array"),
    ({1.0: 2}, errors.ArgumentTypeError, "x: expected a list or an array"),
    (np.array([1j, 2j]), errors.ArgumentTypeError, "x: expected real numbers"),
    (np.zeros((2, 2, 2, 2, 2)), errors.ShapeError, "x: expected at most 2 dimensions"),
])
def test_bad_samples(name, x, error, message, nothing_left_behind):
    with pytest.raises(error, match=message):
        MODULES[name][0]()(x)


def test_arrays_of_more_dimensions_have_to_be_of_the_layers():
    with pytest.raises(errors.ShapeError, match=r"x: expected samples of the shape \(2, 3\), got \(3, 2\)"):
        nn.Conv1d(2, 1, 1, length=3)(np.zeros((4, 3, 2)))
    with pytest.raises(errors.ShapeError, match=r"x: expected samples of the shape \(1, 2, 3\), got \(1, 3, 2\)"):
        nn.MaxPool2d(1, 2, size=(2, 3))(np.zeros((4, 1, 3, 2)))


def test_one_sample_has_no_variance():
    for x in ([1.0, 2.0], [[1.0, 2.0]], Tensor([1.0, 2.0])):
        with pytest.raises(errors.DataError, match="x: expected two samples or more, .*eval"):
            nn.BatchNorm(2)(x)


@pytest.mark.parametrize("cell, state, error, message", [
    (nn.RNNCell, [1.0, 2.0], errors.ShapeError, r"h: expected 3 numbers in a sample, got the shape \(2,\)"),
    (nn.RNNCell, np.zeros((2, 3)), errors.ShapeError, "h: expected one row for each sample, 1, got 2"),
    (nn.GRUCell, "x", errors.ArgumentTypeError, "h: expected a list or an array"),
    (nn.GRUCell, [], errors.DataError, "h: expected one number at least"),
    (nn.LSTMCell, [1.0, 2.0, 3.0], errors.ArgumentTypeError, r"state: expected a pair \(h, c\), got"),
    (nn.LSTMCell, ([0.0] * 3, [0.0]), errors.ShapeError, r"c: expected 3 numbers in a sample, got the shape \(1,\)"),
    (nn.LSTMCell, ([[0.0] * 3] * 2, [0.0] * 3), errors.ShapeError, "h: expected one row for each sample, 1, got 2"),
])
def test_bad_states(cell, state, error, message):
    with pytest.raises(error, match=message):
        cell(2, 3)([1.0, 2.0], state)


@pytest.mark.parametrize("indices, error, message", [
    (5, errors.DataError, "indices: expected 0 to 4, got 5"),
    (-1, errors.DataError, "indices: expected 0 to 4, got -1"),
    ([0, 5], errors.DataError, r"indices\[1\]: expected 0 to 4, got 5"),
    ([[0, 1], [2, -7]], errors.DataError, r"indices\[1, 1\]: expected 0 to 4, got -7"),
    ([0.0, math.nan], errors.DataError, r"indices\[1\]: expected 0 to 4, got nan"),
    ([0.0, math.inf], errors.DataError, r"indices\[1\]: expected 0 to 4, got inf"),
    ([0.0, 1.5], errors.ArgumentTypeError, r"indices\[1\]: expected a whole number, got 1.5"),
    ([], errors.DataError, r"indices: expected .*one at least, got the shape \(0,\)"),
    ([[0, 1], [2]], errors.ShapeError, "indices: expected .*rows of one length"),
    (np.zeros((1, 1, 1), dtype=int), errors.ShapeError, r"indices: expected .*got the shape \(1, 1, 1\)"),
    ("ab", errors.ArgumentTypeError, "indices: expected an int, .*got 'ab'"),
    (True, errors.ArgumentTypeError, "indices: expected an int, .*got True"),
    ([True, False], errors.ArgumentTypeError, r"indices: expected an int, .*got \[True, False\]"),
    ([Value(1.0)], errors.ArgumentTypeError, "indices: expected an int"),
    (Value(1.0), errors.ArgumentTypeError, "indices: expected an int"),
    (None, errors.ArgumentTypeError, "indices: expected an int, .*got None"),
    (10**30, errors.FlatgradError, "indices: expected"),
])
def test_bad_indices(indices, error, message):
    with pytest.raises(error, match=message):
        nn.Embedding(5, 2)(indices)


# ---- how many instructions a module takes, as the docstrings say ----

def instructions(*outs):
    """The instructions behind Tensors, each once: what saving their numbers finds."""
    graphs = {}   # alive: what one has, another refers to
    for out in outs:
        _, (run, *_) = out.__reduce__()
        _, (graph, _) = run.__reduce__()
        graphs[id(graph)] = graph
    found = 0
    for graph in graphs.values():
        _, (_, saved, *_), _ = graph.__reduce__()
        found += sum(saved[1][op] not in ("LEAF", "RUN") for op in saved[2])
    return found


@pytest.mark.parametrize("make, count", [
    (lambda: nn.RNNCell(6, 3), 4), (lambda: nn.GRUCell(6, 3), 10), (lambda: nn.LSTMCell(6, 3), 11),
    (lambda: nn.BatchNorm(6), 9), (lambda: nn.BatchNorm(6).eval(), 4), (lambda: nn.LayerNorm(6), 9),
    (lambda: nn.Conv1d(2, 3, 2, length=3), 3), (lambda: nn.Conv1d(2, 3, 2, length=3, padding=1), 5),
    (lambda: nn.MaxPool1d(2, 2, length=3), 2), (lambda: nn.Dropout(), 1), (lambda: nn.GELU(), 1),
], ids=["RNN", "GRU", "LSTM", "BatchNorm", "BatchNorm after eval", "LayerNorm", "Conv1d", "padded", "MaxPool", "Dropout", "GELU"])
def test_the_instructions_of_a_module(make, count):
    model, x = make(), Tensor(np.random.default_rng(0).normal(size=(4, 6)))
    if isinstance(model, nn.LSTMCell):
        h, c = model(x, (Tensor(np.full((4, 3), 0.25)), Tensor(np.full((4, 3), 0.5))))
        assert instructions(h, c) == count
    elif isinstance(model, (nn.RNNCell, nn.GRUCell)):
        assert instructions(model(x, Tensor(np.full((4, 3), 0.25)))) == count
    else:
        assert instructions(model(x)) == count
