"""nn's modules against PyTorch's, in float64 with the same parameters: outputs, all gradients, the inputs'
included, running statistics, and the gains and bounds of the initialisers."""
import copy

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, nn
from flatgrad.nn import initialization

torch = pytest.importorskip("torch")

TOLERANCE = 1e-10

# ours -> (theirs, the shape that theirs takes a sample in)
CASES = {
    "Linear": (lambda: nn.Linear(5, 3), lambda: torch.nn.Linear(5, 3), (5,)),
    "Linear no bias": (lambda: nn.Linear(5, 3, bias=False), lambda: torch.nn.Linear(5, 3, bias=False), (5,)),
    "LayerNorm": (lambda: nn.LayerNorm(5), lambda: torch.nn.LayerNorm(5), (5,)),
    "LayerNorm eps": (lambda: nn.LayerNorm(5, eps=0.1), lambda: torch.nn.LayerNorm(5, eps=0.1), (5,)),
    "LayerNorm no bias": (lambda: nn.LayerNorm(5, bias=False), lambda: torch.nn.LayerNorm(5, bias=False), (5,)),
    "LayerNorm plain": (lambda: nn.LayerNorm(5, elementwise_affine=False),
                        lambda: torch.nn.LayerNorm(5, elementwise_affine=False), (5,)),
    "Conv1d": (lambda: nn.Conv1d(3, 4, 3, length=9), lambda: torch.nn.Conv1d(3, 4, 3), (3, 9)),
    "Conv1d strided": (lambda: nn.Conv1d(2, 3, 2, stride=3, padding=2, length=9),
                       lambda: torch.nn.Conv1d(2, 3, 2, stride=3, padding=2), (2, 9)),
    "Conv1d dilated": (lambda: nn.Conv1d(2, 3, 3, dilation=3, padding=1, bias=False, length=9),
                       lambda: torch.nn.Conv1d(2, 3, 3, dilation=3, padding=1, bias=False), (2, 9)),
    "Conv1d one window": (lambda: nn.Conv1d(2, 3, 4, length=4), lambda: torch.nn.Conv1d(2, 3, 4), (2, 4)),
    "Conv1d one channel": (lambda: nn.Conv1d(1, 1, 4, length=7), lambda: torch.nn.Conv1d(1, 1, 4), (1, 7)),
    "Conv2d": (lambda: nn.Conv2d(2, 3, 3, size=(5, 6)), lambda: torch.nn.Conv2d(2, 3, 3), (2, 5, 6)),
    "Conv2d uneven": (lambda: nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=(0, 2), dilation=(2, 1), size=(6, 5)),
                      lambda: torch.nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=(0, 2), dilation=(2, 1)),
                      (2, 6, 5)),
    "Conv2d padded": (lambda: nn.Conv2d(1, 2, 3, stride=2, padding=1, size=5),
                      lambda: torch.nn.Conv2d(1, 2, 3, stride=2, padding=1), (1, 5, 5)),
    "MaxPool1d": (lambda: nn.MaxPool1d(2, 3, length=9), lambda: torch.nn.MaxPool1d(3), (2, 9)),
    "MaxPool1d strided": (lambda: nn.MaxPool1d(2, 3, 2, length=8), lambda: torch.nn.MaxPool1d(3, 2), (2, 8)),
    "MaxPool2d": (lambda: nn.MaxPool2d(2, 2, size=(5, 4)), lambda: torch.nn.MaxPool2d(2), (2, 5, 4)),
    "AvgPool1d": (lambda: nn.AvgPool1d(2, 3, 1, length=7), lambda: torch.nn.AvgPool1d(3, 1), (2, 7)),
    "AvgPool2d": (lambda: nn.AvgPool2d(2, (2, 3), (1, 2), size=(5, 7)), lambda: torch.nn.AvgPool2d((2, 3), (1, 2)),
                  (2, 5, 7)),
}
CASES.update({
    name: (lambda name=name, options=options: getattr(nn, name)(**options),
           lambda name=name, options=options: getattr(torch.nn, name)(**options, **extra.get(name, {})), (5,))
    for extra in [{"Softmax": {"dim": -1}, "LogSoftmax": {"dim": -1}}]
    for name, options in [("ReLU", {}), ("LeakyReLU", {"negative_slope": 0.3}), ("ELU", {"alpha": 0.7}), ("GELU", {}),
                          ("SiLU", {}), ("Softplus", {}), ("Tanh", {}), ("Sigmoid", {}), ("Softmax", {}),
                          ("LogSoftmax", {})]})
CASES["GELU tanh"] = (lambda: nn.GELU("tanh"), lambda: torch.nn.GELU("tanh"), (5,))
CELLS = {
    "RNNCell": (nn.RNNCell, torch.nn.RNNCell, {}),
    "RNNCell relu": (nn.RNNCell, torch.nn.RNNCell, {"nonlinearity": "relu"}),
    "RNNCell no bias": (nn.RNNCell, torch.nn.RNNCell, {"bias": False}),
    "LSTMCell": (nn.LSTMCell, torch.nn.LSTMCell, {}),
    "LSTMCell no bias": (nn.LSTMCell, torch.nn.LSTMCell, {"bias": False}),
    "GRUCell": (nn.GRUCell, torch.nn.GRUCell, {}),
    "GRUCell no bias": (nn.GRUCell, torch.nn.GRUCell, {"bias": False}),
}


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture(params=["fused", "scalar"])
def mode(request):
    if request.param == "scalar":
        with flatgrad.scalar_graph():
            yield request.param
    else:
        yield request.param


def paired(ours, theirs, rng):
    """Both with the same random parameters, handed over by the state dict."""
    theirs = theirs.double()
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.tensor(rng.normal(size=p.shape)))
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    return ours, theirs


def assert_close(ours, theirs, tolerance=TOLERANCE):
    theirs = np.zeros(()) if theirs is None else theirs.detach().numpy()
    ours = np.asarray(ours)
    np.testing.assert_allclose(ours, theirs.reshape(ours.shape) if theirs.size == ours.size else theirs,
                               rtol=tolerance, atol=tolerance)


def assert_same_parameter_gradients(ours, theirs):
    names = dict(theirs.named_parameters())
    assert list(names) == [key for key, _ in ours.named_values()]
    for key, values in ours.named_values():
        assert_close(values.grad, names[key].grad if names[key].grad is not None else torch.zeros(1))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n", [1, 4])
def test_a_batch(name, n, rng, mode):
    ours, theirs, shape = CASES[name]
    ours, theirs = paired(ours(), theirs(), rng)
    data = rng.normal(size=(n, *shape))
    x, xt = Tensor(data.reshape(n, -1)), torch.tensor(data, requires_grad=True)
    y, yt = ours(x), theirs(xt)
    assert y.shape == (n, yt[0].numel())
    assert_close(y.data, yt)
    weight = rng.normal(size=y.shape)
    (y * weight).sum().backward()
    (yt.reshape(n, -1) * torch.tensor(weight)).sum().backward()
    assert_close(x.grad, xt.grad)
    assert_same_parameter_gradients(ours, theirs)


@pytest.mark.parametrize("name", CASES)
def test_a_sample(name, rng):
    ours, theirs, shape = CASES[name]
    ours, theirs = paired(ours(), theirs(), rng)
    data = rng.normal(size=shape)
    x, xt = [flatgrad.Value(v) for v in data.reshape(-1)], torch.tensor(data, requires_grad=True)
    y, yt = ours(x), theirs(xt)
    assert isinstance(y, list)
    assert_close([v.data for v in y], yt)
    weight = rng.normal(size=len(y))
    flatgrad.dot(y, weight).backward()
    (yt.reshape(-1) * torch.tensor(weight)).sum().backward()
    assert_close([v.grad for v in x], xt.grad)
    assert_same_parameter_gradients(ours, theirs)


@pytest.mark.parametrize("name", CASES)
def test_an_array_without_gradient(name, rng):
    ours, theirs, shape = CASES[name]
    ours, theirs = paired(ours(), theirs(), rng)
    data = rng.normal(size=(3, *shape))
    y, yt = ours(data), theirs(torch.tensor(data))
    assert_close(y.data, yt)
    if y.requires_grad and list(theirs.parameters()):
        (y * y).sum().backward()
        (yt * yt).sum().backward()
        assert_same_parameter_gradients(ours, theirs)


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None},
                                     {"momentum": 0.7, "eps": 0.01}], ids=str)
def test_batch_norm(options, rng, mode):
    ours, theirs = paired(nn.BatchNorm(3, **options), torch.nn.BatchNorm1d(3, **options), rng)
    for step in range(5):
        if step == 3:
            ours.eval(), theirs.eval()
        ours.zero_grad(), theirs.zero_grad()
        data = rng.normal(2.0, 3.0, size=(6, 3))
        x, xt = Tensor(data), torch.tensor(data, requires_grad=True)
        y, yt = ours(x), theirs(xt)
        assert_close(y.data, yt)
        weight = rng.normal(size=y.shape)
        (y * weight).sum().backward()
        (yt * torch.tensor(weight)).sum().backward()
        assert_close(x.grad, xt.grad)
        assert_same_parameter_gradients(ours, theirs)
        state, state_t = ours.state_dict(), theirs.state_dict()
        assert set(state) == set(state_t)
        for key in state:
            assert_close(state[key], state_t[key])
            assert state[key].shape == tuple(state_t[key].shape)


def test_batch_norm_of_a_sample_after_eval(rng):
    ours, theirs = paired(nn.BatchNorm(3), torch.nn.BatchNorm1d(3), rng)
    batch = rng.normal(size=(6, 3))
    ours(batch), theirs(torch.tensor(batch))
    ours.eval(), theirs.eval()
    assert_close([v.data for v in ours(batch[0].tolist())], theirs(torch.tensor(batch[:1])))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("form", ["batch", "sample"])
def test_cells_over_time(name, form, rng, mode):
    """Three steps from no state, and three from one, with gradients to all inputs and states."""
    ours, theirs, options = CELLS[name]
    ours, theirs = paired(ours(3, 4, **options), theirs(3, 4, **options), rng)
    is_lstm = isinstance(ours, nn.LSTMCell)
    n = 2 if form == "batch" else 1

    def both(shape):
        data = rng.normal(size=shape)
        theirs = torch.tensor(data if form == "batch" else data[0], requires_grad=True)
        return Tensor(data) if form == "batch" else [flatgrad.Value(v) for v in data[0]], theirs

    for given in (False, True):
        ours.zero_grad(), theirs.zero_grad()
        leaves = []
        state = state_t = None
        if given:
            leaves += [both((n, 4)) for _ in range(1 + is_lstm)]
            state = tuple(a for a, _ in leaves) if is_lstm else leaves[0][0]
            state_t = tuple(b for _, b in leaves) if is_lstm else leaves[0][1]
        for _ in range(3):
            leaves.append(both((n, 3)))
            state, state_t = ours(leaves[-1][0], state), theirs(leaves[-1][1], state_t)
        for a, b in zip(state, state_t) if is_lstm else [(state, state_t)]:
            assert isinstance(a, Tensor if form == "batch" else list)
            assert_close(a.data if form == "batch" else [v.data for v in a], b)
        if form == "batch":
            total = sum((a * a).sum() for a in (state if is_lstm else [state]))
        else:
            total = sum(v * v for a in (state if is_lstm else [state]) for v in a)
        total.backward()
        sum((b * b).sum() for b in (state_t if is_lstm else [state_t])).backward()
        for a, b in leaves:
            assert_close(a.grad if form == "batch" else [v.grad for v in a], b.grad)
        assert_same_parameter_gradients(ours, theirs)


def test_embedding(rng, mode):
    ours, theirs = paired(nn.Embedding(7, 3), torch.nn.Embedding(7, 3), rng)
    indices = np.array([[0, 3, 3], [6, 3, 1]])
    y, yt = ours(indices), theirs(torch.tensor(indices)).reshape(2, -1)
    assert_close(y.data, yt)
    weight = rng.normal(size=y.shape)
    (y * weight).sum().backward()
    (yt * torch.tensor(weight)).sum().backward()
    assert_same_parameter_gradients(ours, theirs)


def test_dropout_scales_as_pytorchs():
    theirs = torch.nn.Dropout(0.2)(torch.ones(1000, dtype=torch.float64))
    ours = nn.Dropout(0.2, rng=1)(np.ones((1, 1000)))
    assert set(np.round(ours.data[0], 12)) == set(np.round(theirs.numpy(), 12)) == {0.0, 1.25}
    assert torch.equal(torch.nn.Dropout(1.0)(torch.ones(3)), torch.zeros(3))
    assert nn.Dropout(1.0)(np.ones((1, 3))).data.tolist() == [[0.0, 0.0, 0.0]]


def test_a_small_convolutional_network(rng):
    """Layers one after the other, without anything between them but the activation."""
    conv, pool, second = nn.Conv2d(1, 3, 3, padding=1, size=(6, 6)), nn.MaxPool2d(3, 2, size=(6, 6)), None
    second = nn.Conv2d(3, 2, 2, size=pool.output_size)
    theirs = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.Tanh(), torch.nn.MaxPool2d(2),
                                 torch.nn.Conv2d(3, 2, 2)).double()
    for module, index in ((conv, 0), (second, 3)):
        module.load_state_dict({key: value.numpy() for key, value in theirs[index].state_dict().items()})
    x = rng.normal(size=(4, 1, 6, 6))
    y, yt = second(pool(conv(x).tanh())), theirs(torch.tensor(x))
    assert_close(y.data, yt)
    (y * y).mean().backward()
    (yt * yt).mean().backward()
    assert_same_parameter_gradients(conv, theirs[0])
    assert_same_parameter_gradients(second, theirs[3])


# ---- the tests themselves ----

def test_a_wrong_gradient_would_be_seen(rng):
    ours, theirs = paired(nn.LayerNorm(5), torch.nn.LayerNorm(5), rng)
    x = rng.normal(size=(2, 5))
    (ours(x) * ours(x)).sum().backward()
    (theirs(torch.tensor(x)) ** 2).sum().backward()
    assert_same_parameter_gradients(ours, theirs)
    ours.weight.grad = ours.weight.grad * (1 + 1e-9)
    with pytest.raises(AssertionError):
        assert_same_parameter_gradients(ours, theirs)


# ---- initialisers ----

@pytest.mark.parametrize("activation", ["linear", "sigmoid", "tanh", "relu", "leaky_relu"])
def test_gains(activation):
    assert initialization.gain(activation) == pytest.approx(torch.nn.init.calculate_gain(activation), rel=1e-15)


@pytest.mark.parametrize("activation", ["linear", "tanh", "relu", "leaky_relu"])
@pytest.mark.parametrize("shape", [(40, 25), (8, 3, 5, 5)], ids=str)
@pytest.mark.parametrize("name", ["kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal"])
def test_distributions(name, shape, activation):
    """Bounds of uniform ones and moments of all; PyTorch's own draws have to pass as well."""
    function, gain = getattr(torch.nn.init, name + "_"), torch.nn.init.calculate_gain(activation)
    torch.manual_seed(1)
    theirs = torch.empty(shape, dtype=torch.float64)
    if name.startswith("kaiming"):
        function(theirs, a=0.01, nonlinearity=activation)
    else:
        function(theirs, gain=gain)
    fan_in, fan_out = torch.nn.init._calculate_fan_in_and_fan_out(theirs)
    assert (fan_in, fan_out) == initialization.fans(shape)
    std = gain * (2 / (fan_in + fan_out)) ** 0.5 if name.startswith("xavier") else gain / fan_in**0.5
    ours = np.array(initialization.weights(name, shape, activation, rng=2))
    n = ours.size
    for sample in (ours, theirs.numpy()):
        assert abs(sample.mean()) < 4 * std / n**0.5
        # The variance of a sample's variance: from the fourth moment, 3 std^4 if normal, 1.8 if uniform.
        assert abs(sample.var() / std**2 - 1) < 4 * ((2 if "normal" in name else 0.8) / n) ** 0.5
        if "uniform" in name:
            assert 0.97 * 3**0.5 * std < np.abs(sample).max() <= 3**0.5 * std
        else:
            assert np.abs(sample).max() > 2.2 * std


def test_the_default_of_convolutions_and_cells_is_pytorchs():
    for ours, theirs in [(nn.Conv2d(3, 20, 5, size=9, rng=1), torch.nn.Conv2d(3, 20, 5)),
                         (nn.LSTMCell(10, 16, rng=1), torch.nn.LSTMCell(10, 16)),
                         (nn.RNNCell(10, 16, rng=1), torch.nn.RNNCell(10, 16))]:
        state = ours.state_dict()
        for key, value in theirs.state_dict().items():
            bound = 1 / (75 if isinstance(ours, nn.Conv2d) else 16) ** 0.5
            for array in (state[key], value.numpy()):
                assert 0.7 * bound < np.abs(array).max() <= bound * (1 + 1e-6)   # theirs are float32


def test_a_state_dict_goes_both_ways(rng):
    """Ours is loaded by PyTorch, but for a convolution's weight, which has to be given its shape."""
    for ours, theirs in [(nn.LSTMCell(3, 4), torch.nn.LSTMCell(3, 4)), (nn.BatchNorm(3), torch.nn.BatchNorm1d(3)),
                         (nn.Embedding(3, 4), torch.nn.Embedding(3, 4)), (nn.LayerNorm(3), torch.nn.LayerNorm(3)),
                         (nn.GRUCell(3, 4), torch.nn.GRUCell(3, 4)), (nn.RNNCell(3, 4), torch.nn.RNNCell(3, 4))]:
        theirs = theirs.double()
        theirs.load_state_dict({key: torch.tensor(value) for key, value in ours.state_dict().items()})
        for key, value in theirs.state_dict().items():
            assert np.array_equal(ours.state_dict()[key], value.numpy())
    clone = copy.deepcopy(ours)
    assert np.array_equal(clone.weight_ih.data, ours.weight_ih.data)


# ---- extreme inputs ----

EXTREME = {
    "large": lambda rng, shape: 1e6 * rng.normal(size=shape),
    "small": lambda rng, shape: 1e-9 * rng.normal(size=shape),
    "far from 0": lambda rng, shape: 1e4 + rng.normal(size=shape),
    "constant": lambda rng, shape: np.full(shape, 0.75),
    "zero": lambda rng, shape: np.zeros(shape),
    "saturating": lambda rng, shape: 1000.0 * rng.choice([-1.0, 1.0], size=shape),
}


@pytest.mark.parametrize("kind", EXTREME)
@pytest.mark.parametrize("name", [*CASES, "BatchNorm", "BatchNorm eval", *CELLS])
def test_extreme_inputs(name, kind, rng):
    """Compared by the largest number of each array, as differences of large numbers have no more digits."""
    if "MaxPool" in name and kind in ("constant", "zero", "saturating"):
        pytest.skip("equal largest numbers share the gradient, where PyTorch gives it to the first")
    if name in CASES:
        ours, theirs, shape = CASES[name]
        ours, theirs = paired(ours(), theirs(), rng)
    elif name in CELLS:
        ours, theirs, options = CELLS[name]
        (ours, theirs), shape = paired(ours(3, 4, **options), theirs(3, 4, **options), rng), (3,)
    else:
        (ours, theirs), shape = paired(nn.BatchNorm(3), torch.nn.BatchNorm1d(3), rng), (3,)
        if name.endswith("eval"):
            ours.eval(), theirs.eval()
    data = EXTREME[kind](rng, (5, *shape))
    x, xt = Tensor(data.reshape(5, -1)), torch.tensor(data, requires_grad=True)
    y, yt = ours(x), theirs(xt)
    if isinstance(ours, nn.LSTMCell):
        y, yt = y[0], yt[0]
    weight = rng.normal(size=y.shape)
    (y * weight).sum().backward()
    (yt.reshape(5, -1) * torch.tensor(weight)).sum().backward()
    names = dict(theirs.named_parameters())
    for a, b in [(y.data, yt), (x.grad, xt.grad), *((v.grad, names[key].grad) for key, v in ours.named_values())]:
        b = np.zeros(a.shape) if b is None else b.detach().numpy().reshape(a.shape)
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * max(np.abs(b).max(), 1e-3))
