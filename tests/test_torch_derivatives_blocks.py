"""Second and third derivatives of every layer, activation and loss against PyTorch's, in float64: in random directions,
by inputs and parameters. tests/test_torch_modules.py and its like have the first."""
import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, losses, nn
from flatgrad._core import _activations

torch = pytest.importorskip("torch")
modules = pytest.importorskip("test_torch_modules")
criteria = pytest.importorskip("test_torch_losses")
networks = pytest.importorskip("test_torch_nn")
F = torch.nn.functional

TOLERANCE = 1e-9
pytestmark = pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss:UserWarning")
ORDERS = 3


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def flat(x):
    return [v for item in x for v in flat(item)] if isinstance(x, (list, tuple)) else [x]


def total(parts, numbers):
    """A sum of the elements, each with a weight of its own."""
    out = Value(0.0)
    for part, number in zip(parts, numbers, strict=True):
        if isinstance(part, Value):
            out = out + part * float(number)
        elif part is not None:
            out = out + flatgrad.sum(part * number)
    return out


def their_total(parts, numbers):
    return sum([(part * torch.tensor(number)).sum() for part, number in zip(parts, numbers, strict=True)
                if part is not None], torch.zeros((), dtype=torch.float64))


def levels(out, inputs, directions):
    """The gradients of order 1, 2 and 3; each is that of the sum of the one before, times directions."""
    found, operands = [], flat(inputs)
    for order in range(ORDERS):
        gradients = _core.written([out], [None], operands)
        found.append([np.zeros(np.shape(x.data)) if g is None else np.array(g.data)
                      for g, x in zip(gradients, operands)])
        if order + 1 < ORDERS:
            out = total(gradients, [part for x, d in zip(inputs, directions[order])
                                    for part in (d.reshape(-1) if isinstance(x, list) else [d])])
    out.backward()   # the numeric sweep through what is written last
    found.append([np.array(x.grad) for x in operands])
    return [grouped(inputs, iter(each)) for each in found]


def grouped(inputs, arrays):
    """An array for each input, of which some are lists of Values."""
    return [np.array([next(arrays) for _ in flat(x)]) if isinstance(x, list) else next(arrays) for x in inputs]


def their_levels(out, inputs, directions):
    found = []
    for order in range(ORDERS):
        if not out.requires_grad:
            found.append([np.zeros(x.shape) for x in inputs])
            continue
        gradients = torch.autograd.grad(out, inputs, create_graph=True, allow_unused=True)
        found.append([np.zeros(x.shape) if g is None else g.detach().numpy() for g, x in zip(gradients, inputs)])
        if order + 1 < ORDERS:
            out = their_total(gradients, directions[order])
    return found


def compare(out, inputs, their_out, their_inputs, rng):
    """out: a Tensor or a Value; inputs: Tensors, Values and lists of Values, and theirs of as many numbers."""
    shapes = [(len(flat(x)),) if isinstance(x, list) else np.shape(x.data) for x in inputs]
    directions = [[rng.normal(size=shape) for shape in shapes] for _ in range(ORDERS - 1)]
    their_directions = [[d.reshape(tuple(x.shape)) for d, x in zip(each, their_inputs)] for each in directions]
    weight = rng.normal(size=np.shape(out.data))
    if isinstance(out, Value):
        weighted, their_weighted = out.sin() * float(weight), their_out.sin() * torch.tensor(weight)
    else:
        weighted = (out.sin() * weight).sum()
        their_weighted = (their_out.reshape(weight.shape).sin() * torch.tensor(weight)).sum()
    theirs = their_levels(their_weighted, their_inputs, their_directions)
    for order, (got, expected) in enumerate(zip(levels(weighted, inputs, directions), [*theirs, theirs[-1]])):
        scale = max([1.0] + [np.abs(x).max() for x in expected])
        for one, other in zip(got, expected):
            np.testing.assert_allclose(one, other.reshape(one.shape), rtol=TOLERANCE, atol=TOLERANCE * scale,
                                       err_msg=f"order {order + 1}")


def parameters_of(ours, theirs):
    """The parameters of both, in the same order; ours as they are kept."""
    names, kept = dict(theirs.named_parameters()), dict(ours.named_values())
    assert list(names) == list(kept)
    return list(kept.values()), list(names.values())


# ---- layers ----

def composed(module, x):
    """What a module of PyTorch's computes, in single operations where its own have no right third derivative."""
    if not isinstance(module, (torch.nn.LayerNorm, torch.nn.BatchNorm1d)):
        return module(x)
    axis = -1 if isinstance(module, torch.nn.LayerNorm) else 0
    centred = x - x.mean(axis, keepdim=True)
    out = centred * ((centred**2).mean(axis, keepdim=True) + module.eps) ** -0.5
    out = out if module.weight is None else out * module.weight
    out = out if module.bias is None else out + module.bias
    assert torch.allclose(out, module(x), rtol=1e-12, atol=1e-12)
    return out


@pytest.mark.parametrize("name", modules.CASES)
@pytest.mark.parametrize("n", [1, 3])
def test_layers(name, n, rng):
    ours, theirs, shape = modules.CASES[name]
    ours, theirs = modules.paired(ours(), theirs(), rng)
    data = rng.normal(size=(n, *shape))
    x, xt = Tensor(data.reshape(n, -1)), torch.tensor(data, requires_grad=True)
    mine, them = parameters_of(ours, theirs)
    compare(ours(x), [x, *mine], composed(theirs, xt), [xt, *them], rng)


@pytest.mark.parametrize("name", modules.CELLS)
def test_cells_over_time(name, rng):
    ours, theirs, options = modules.CELLS[name]
    ours, theirs = modules.paired(ours(3, 4, **options), theirs(3, 4, **options), rng)
    data = rng.normal(size=(3, 2, 3))
    xs, xts = [Tensor(x) for x in data], [torch.tensor(x, requires_grad=True) for x in data]
    state = state_t = None
    for x, xt in zip(xs, xts):
        state, state_t = ours(x, state), theirs(xt, state_t)
    out, out_t = (state[0] * state[1], state_t[0] * state_t[1]) if isinstance(state, tuple) else (state, state_t)
    mine, them = parameters_of(ours, theirs)
    compare(out, [*xs, *mine], out_t, [*xts, *them], rng)


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"eval": True}], ids=str)
def test_batch_norm(options, rng):
    options = dict(options)
    evaluated = options.pop("eval", False)
    ours, theirs = modules.paired(nn.BatchNorm(3, **options), torch.nn.BatchNorm1d(3, **options), rng)
    data = rng.normal(2.0, 3.0, size=(6, 3))
    if evaluated:
        ours(data), theirs(torch.tensor(data))
        ours.eval(), theirs.eval()
    x, xt = Tensor(data), torch.tensor(data, requires_grad=True)
    mine, them = parameters_of(ours, theirs)
    compare(ours(x), [x, *mine], theirs(xt) if evaluated else composed(theirs, xt), [xt, *them], rng)


def test_embedding(rng):
    ours, theirs = modules.paired(nn.Embedding(7, 3), torch.nn.Embedding(7, 3), rng)
    indices = np.array([[0, 3, 3], [6, 3, 1]])
    mine, them = parameters_of(ours, theirs)
    compare(ours(indices), mine, theirs(torch.tensor(indices)), them, rng)


def test_dropout(rng):
    ours = nn.Dropout(0.4, rng=1)
    data = rng.normal(size=(4, 5))
    mask = nn.Dropout(0.4, rng=1)(np.ones((4, 5))).data
    x, xt = Tensor(data), torch.tensor(data, requires_grad=True)
    compare(ours(x), [x], xt * torch.tensor(mask), [xt], rng)


def test_flatten(rng):
    data = rng.normal(size=(3, 4))
    x, xt = Tensor(data), torch.tensor(data, requires_grad=True)
    compare(nn.Flatten()(x), [x], xt.flatten(1), [xt], rng)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
@pytest.mark.parametrize("n", [1, 5])
def test_perceptrons(activation, fused, n, rng):
    """Neurons, layers and MLPs, whose weights are Values, and by all of these at once."""
    sizes = (3, 4, 2)
    layers, forward = networks.twin(sizes, [activation, "linear"])
    model = nn.MLP(3, [4, 2], activation=activation, fused=fused)
    keys = [f"layers.{k}.{name}" for k in range(2) for name in ("weight", "bias")]
    them = [p for layer in layers for p in (layer.weight, layer.bias)]
    model.load_state_dict(dict(zip(keys, [p.detach().numpy() for p in them])))
    data = rng.normal(size=(n, 3))
    x, xt = Tensor(data), torch.tensor(data, requires_grad=True)
    kept = dict(model.named_values())
    compare(model(x), [x, *[kept[key] for key in keys]], forward(xt), [xt, *them], rng)


def test_one_layer_after_the_other(rng):
    model = nn.Sequential(nn.Layer(3, 4, "tanh", rng=1), nn.LayerNorm(4), nn.Layer(4, 1, "sigmoid", rng=2))
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1),
                                 torch.nn.Sigmoid()).double()
    mine, them = [values for _, values in model.named_values()], list(theirs.parameters())
    with torch.no_grad():
        for p, values in zip(them, mine, strict=True):
            p.copy_(torch.tensor(np.array([v.data for v in flat(values)])).reshape(p.shape))
    data = rng.normal(size=(5, 3))
    x, xt = Tensor(data), torch.tensor(data, requires_grad=True)
    out = xt
    for module in theirs:
        out = composed(module, out)
    compare(model(x), [x, *mine], out, [xt, *them], rng)


def test_a_neuron(rng):
    model = nn.Neuron(3, activation="tanh")
    data, weights = rng.normal(size=3), [p.data for p in model.parameters()]
    x, xt = [Value(v) for v in data], torch.tensor(data, requires_grad=True)
    w, b = [torch.tensor(p, dtype=torch.float64, requires_grad=True) for p in (weights[:3], weights[3])]
    compare(model(x), [x, *[v for _, v in model.named_values()]], torch.tanh(xt @ w + b), [xt, w, b], rng)


def test_attention(rng):
    """Made of products and a softmax, with weights in three roles."""
    data, weights = rng.normal(size=(5, 4)), rng.normal(size=(3, 4, 4))
    x, xt = Tensor(data), torch.tensor(data, requires_grad=True)
    ws, wts = [Tensor(w) for w in weights], [torch.tensor(w, requires_grad=True) for w in weights]
    q, k, v = [x @ w for w in ws]
    qt, kt, vt = [xt @ w for w in wts]
    compare((q @ k.T * 0.5).softmax() @ v, [x, *ws], (qt @ kt.T * 0.5).softmax(-1) @ vt, [xt, *wts], rng)


def test_every_layer_and_activation_is_here():
    ours = {name for name in (*nn.LOADED_LATER, "Neuron", "Layer", "MLP", "Sequential")}
    here = {name.split()[0] for name in (*modules.CASES, *modules.CELLS)}
    here |= {"BatchNorm", "Embedding", "Dropout", "Flatten", "Neuron", "Layer", "MLP", "Sequential"}
    assert ours == here
    assert set(networks.ACTIVATIONS) == {"linear", "softmax", *_activations}


# ---- losses ----

def their_huber(delta):
    """PyTorch's own has no third derivative."""
    def loss(x, y, reduction):
        size = (x - y).abs()
        each = torch.where(size <= delta, (x - y) ** 2 / 2, delta * (size - delta / 2))
        return each if reduction == "none" else getattr(each, reduction)()
    return loss


@pytest.mark.parametrize("reduction", criteria.REDUCTIONS)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 1), (1, 5), (4, 3)], ids=str)
@pytest.mark.parametrize("name", criteria.PAIRS)
def test_losses(name, shape, reduction, rng):
    ours, theirs = criteria.PAIRS[name][:2]
    if name.startswith("huber"):
        theirs = their_huber(float(name.partition(" ")[2] or 1.0))
    prediction, target = criteria.random_pair(name, shape, 3)
    prediction, target = np.array(prediction), np.array(target)
    x, y = [Tensor(a) if shape else Value(float(a)) for a in (prediction, target)]
    xt, yt = [torch.tensor(a, requires_grad=True) for a in (prediction, target)]
    compare(ours(x, y, reduction=reduction), [x, y], theirs(xt, yt, reduction=reduction), [xt, yt], rng)


@pytest.mark.parametrize("options", criteria.OPTIONS, ids=str)
@pytest.mark.parametrize("reduction", criteria.REDUCTIONS)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_losses_of_labels(reduction, options, label_smoothing, rng):
    options = dict(options)
    if "weight" in options:
        options["weight"] = rng.uniform(0.1, 2, 4)
    their_options = {k: torch.tensor(v) if k == "weight" else v for k, v in options.items()}
    logits, labels = rng.normal(size=(6, 4)), np.array([3, 1, 2, 0, 1, 2])
    x, xt = Tensor(logits), torch.tensor(logits, requires_grad=True)
    compare(losses.cross_entropy(x, labels, reduction=reduction, label_smoothing=label_smoothing, **options), [x],
            F.cross_entropy(xt, torch.tensor(labels), reduction=reduction, label_smoothing=label_smoothing,
                            **their_options), [xt], rng)
    x, xt = Tensor(logits), torch.tensor(logits, requires_grad=True)
    compare(losses.nll(x, labels, reduction=reduction, **options), [x],
            F.nll_loss(xt, torch.tensor(labels), reduction=reduction, **their_options), [xt], rng)


@pytest.mark.parametrize("ours, theirs", [(losses.l1, lambda t: t.abs().sum()), (losses.l2, lambda t: (t**2).sum())],
                         ids=["l1", "l2"])
def test_penalties(ours, theirs, rng):
    data = rng.normal(size=(3, 4))
    x, xt = Tensor(data), torch.tensor(data, requires_grad=True)
    compare(ours([x]), [x], theirs(xt), [xt], rng)


def test_every_loss_is_here():
    assert {name.split()[0] for name in criteria.PAIRS} | {"cross_entropy", "nll"} == set(losses.LOSSES)


# ---- the test itself ----

@pytest.mark.parametrize("power", [1, 2, 3])
def test_a_difference_is_noticed(power, rng):
    """Theirs differ by a term of which only the derivative of one order is not 0 there."""
    x, xt = Tensor(np.zeros((3, 4))), torch.zeros((3, 4), dtype=torch.float64, requires_grad=True)
    with pytest.raises(AssertionError, match=f"order {power}"):
        compare(x.exp(), [x], xt.exp() + 1e-7 * xt**power, [xt], rng)
