"""What users of PyTorch write: modules in containers, buffers, hooks, functions and losses, beside PyTorch's."""
import copy
import pickle
import warnings

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, nn
from flatgrad.errors import ArgumentError, ArgumentTypeError
from flatgrad.nn import functional

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = pytest.mark.usefixtures("nothing_left_behind")
X = np.random.default_rng(3).normal(size=(4, 3))


def net_of(module, tensor):
    """The same program for both."""
    class Net(module.Module):
        def __init__(self):
            super().__init__()
            self.body = module.ModuleList([module.Linear(3, 4), module.Linear(4, 4)])
            self.heads = module.ModuleDict({"mean": module.Linear(4, 2), "scale": module.Linear(4, 2, bias=False)})
            self.factors = module.ParameterList([module.Parameter(tensor([1.0, 2.0]))])
            self.shifts = module.ParameterDict({"a": module.Parameter(tensor([0.5, -0.5]))})
            self.register_buffer("centre", tensor([0.1, 0.2, 0.3]))
            self.register_buffer("aside", tensor([1.0]), persistent=False)

        def forward(self, x, twice=False):
            x = x - self.centre
            for layer in self.body:
                x = module.functional.relu(layer(x))
            x = self.heads["mean"](x) * self.factors[0] + self.heads["scale"](x) + self.shifts["a"]
            return x * 2.0 if twice else x
    return Net()


def both():
    ours = net_of(nn, lambda x: x)
    theirs = net_of(torch.nn, lambda x: torch.tensor(x, dtype=torch.float64)).double()
    theirs.load_state_dict({name: torch.tensor(array) for name, array in ours.state_dict().items()})
    return ours, theirs


def test_keys_numbers_and_gradients():
    ours, theirs = both()
    assert sorted(ours.state_dict()) == sorted(theirs.state_dict())
    assert {name: array.shape for name, array in ours.state_dict().items()} == {
        name: tuple(t.shape) for name, t in theirs.state_dict().items()}
    out, expected = ours(X, twice=True), theirs(torch.tensor(X), twice=True)
    assert np.allclose(out.data, expected.detach().numpy(), rtol=1e-12)
    nn.MSELoss()(out, np.ones((4, 2))).backward()
    torch.nn.MSELoss()(expected, torch.ones(4, 2, dtype=torch.float64)).backward()
    for name, p in theirs.named_parameters():
        found = ours
        for part in name.split("."):
            found = (found[int(part)] if part.isdigit() else found[part] if isinstance(found, nn.ModuleDict)
                     else getattr(found, part))
        assert np.allclose(found.grad, p.grad.numpy(), rtol=1e-11, atol=1e-14), name
    ours.centre = ours.centre + 1.0
    assert not np.allclose(ours(X).data, out.data / 2.0)
    assert len(ours.buffers()) == 1 and ours.aside.tolist() == [1.0]


def test_linear_begins_as_theirs():
    layer = nn.Linear(100, 200, rng=0)
    for numbers in (layer.weight.data, layer.bias.data):
        assert 0.09 < np.abs(numbers).max() <= 0.1 and abs(np.std(numbers) - 0.1 / 3**0.5) < 0.005


def test_apply_goes_in_their_order():
    seen = [[], []]
    for net, names in zip(both(), seen):
        assert net.apply(lambda module, names=names: names.append(type(module).__name__)) is net
    assert seen[0] == seen[1]
    with pytest.raises(ArgumentTypeError, match="fn: expected a callable, got 3"):
        both()[0].apply(3)


def test_hooks_run_in_their_order():
    told = []
    for net in both():
        said = []
        layer = net.body[0]
        handles = [
            layer.register_forward_pre_hook(lambda m, args, said=said: said.append(("first", len(args)))),
            layer.register_forward_pre_hook(lambda m, args: (args[0] * 2.0,)),
            layer.register_forward_pre_hook(lambda m, args: args[0] + 1.0, prepend=True),
            layer.register_forward_hook(lambda m, args, out, said=said: said.append(("out", type(m).__name__))),
            layer.register_forward_hook(lambda m, args, out: out * 3.0),
            net.register_forward_hook(lambda m, args, kw, out, said=said: said.append(sorted(kw)), with_kwargs=True),
            net.register_forward_pre_hook(lambda m, args, kw: (args, {"twice": True}), with_kwargs=True)]
        x = X if net.__class__.__mro__[-2] is nn.Module or isinstance(net, nn.Module) else torch.tensor(X)
        numbers = [net(x)]
        for handle in handles:
            handle.remove()
            handle.remove()
            numbers.append(net(x))
        with net.register_forward_hook(lambda m, args, out: 0.0 * out):
            numbers.append(net(x))
        told.append((said, [n.detach().numpy() for n in numbers]))
    assert told[0][0] == told[1][0] and len(told[0][0]) > 5
    for a, b in zip(told[0][1], told[1][1], strict=True):
        assert np.allclose(a, b, rtol=1e-11, atol=1e-14)


def test_hooks_of_layers_that_run_in_one_call():
    model = nn.MLP(2, [3, 2, 1], "tanh", rng=0)
    plain, seen = model([1.0, 2.0]).data, []
    handles = [layer.register_forward_hook(lambda m, args, out: seen.append(type(m))) for layer in model.layers]
    assert model([1.0, 2.0]).data == plain and seen == [type(layer) for layer in model.layers]
    assert [each.__name__ for each in seen] == ["Layer"] * 3 and repr(model) == repr(copy.deepcopy(model))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), copy.copy(model.layers[0])):
        assert other([1.0, 2.0]) is not None and len(seen) == 3 or isinstance(other, nn.Layer)
    handles.append(model.layers[0].neurons[0].register_forward_hook(lambda m, args, out: out * 0.0))
    assert model([1.0, 2.0]).data != plain
    assert type(pickle.loads(pickle.dumps(model)).layers[0].neurons[0]) is nn.Neuron
    for handle in handles:
        handle.remove()
    assert [type(layer) for layer in model.layers] == [nn.Layer] * 3 and model([1.0, 2.0]).data == plain
    with pytest.raises(ArgumentTypeError, match="hook: expected a callable, got 3"):
        model.register_forward_hook(3)
    with pytest.raises(ArgumentTypeError, match="pre-hook with_kwargs: expected None or a pair"):
        with model.register_forward_pre_hook(lambda m, args, kwargs: 3, with_kwargs=True):
            model([1.0, 2.0])


OF_ONE = [("relu", {}), ("relu6", {}), ("hardtanh", {}), ("hardtanh", {"min_val": -0.5, "max_val": 2.0}),
          ("leaky_relu", {"negative_slope": 0.3}), ("elu", {"alpha": 0.7}), ("gelu", {}),
          ("gelu", {"approximate": "tanh"}),
          ("silu", {}), ("mish", {}), ("softplus", {}), ("softsign", {}), ("tanh", {}), ("sigmoid", {}),
          ("logsigmoid", {}), ("softmax", {"dim": 1}), ("softmax", {"dim": 0}), ("log_softmax", {"dim": -1}),
          ("softmin", {"dim": 1}), ("dropout", {"training": False})]
LABELS = np.array([0, 2, 1, 1])
ODDS = 1.0 / (1.0 + np.exp(-X))
OF_TWO = [("mse_loss", X, X[::-1], {}), ("l1_loss", X, X[::-1], {"reduction": "sum"}),
          ("huber_loss", X, X[::-1], {"delta": 0.5}),
          ("smooth_l1_loss", X, X[::-1], {"beta": 0.5}), ("smooth_l1_loss", X, X[::-1], {"reduction": "none"}),
          ("binary_cross_entropy", ODDS, ODDS[::-1], {}),
          ("binary_cross_entropy_with_logits", X, ODDS, {"reduction": "none"}),
          ("cross_entropy", X, LABELS, {"label_smoothing": 0.1}), ("cross_entropy", X, LABELS, {"ignore_index": 1}),
          ("nll_loss", X, LABELS, {"reduction": "sum"}), ("kl_div", X, ODDS, {"reduction": "batchmean"})]


def same(name, x, rest, options):
    ours, theirs = Tensor(x.copy()), torch.tensor(x.copy(), requires_grad=True)
    got = getattr(functional, name)(ours, *rest, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = getattr(F, name)(theirs, *[torch.tensor(r.copy()) for r in rest], **options)
    assert np.allclose(got.data, expected.detach().numpy(), rtol=1e-12, atol=1e-15)
    w = np.cos(np.arange(got.data.size)).reshape(got.data.shape) if np.ndim(got.data) else 1.0
    flatgrad.sum(got * w).backward() if np.ndim(got.data) else got.backward()
    (expected * torch.tensor(w)).sum().backward()
    assert np.allclose(ours.grad, theirs.grad.numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name, options", OF_ONE)
def test_functions(name, options):
    same(name, X, (), options)


@pytest.mark.parametrize("name, x, target, options", OF_TWO)
def test_losses(name, x, target, options):
    same(name, x, (target,), options)


def test_every_function_is_compared():
    assert {row[0] for row in [*OF_ONE, *OF_TWO]} == {*functional.__all__} - {"linear", "one_hot"}
    assert functional.linear is flatgrad.linear
    for labels in ([0, 2, 1], [[0, 1], [3, 0]]):
        assert functional.one_hot(labels).tolist() == F.one_hot(torch.tensor(labels)).tolist()
        assert functional.one_hot(labels, 5).tolist() == F.one_hot(torch.tensor(labels), 5).tolist()
    for wrong, message in (([0.5], "integer labels, got"), ([0, 7], "labels from 0 to 4, got 7"), ([-1], "got -1")):
        with pytest.raises((TypeError, ValueError), match=message):
            functional.one_hot(wrong, 5)


@pytest.mark.parametrize("name", [name for name in nn.ALSO_LATER if name.endswith("Loss")])
def test_losses_are_modules(name):
    loss = getattr(nn, name)()
    assert isinstance(loss, nn.Module) and isinstance(loss, getattr(flatgrad.losses, name)) and not loss.parameters()
    assert repr(loss.eval()) == repr(getattr(flatgrad.losses, name)())
    target = LABELS if name in ("CrossEntropyLoss", "NLLLoss") else ODDS
    assert loss(ODDS, target).data == getattr(flatgrad.losses, name)()(ODDS, target).data


def test_containers_and_what_they_refuse():
    a, b, c = nn.Identity(), nn.Linear(1, 1), nn.Identity()
    items = nn.ModuleList([a]).append(b)
    items.insert(0, c)
    assert list(items) == [c, a, b] and items[-1] is b and list(items[:2]) == [c, a] and b in items
    items[1] = b
    del items[0]
    assert len(items) == 2 and items[0] is items[1] is b and len(items.parameters()) == 2
    for change, message in ((lambda: items.append(3), r"modules\[2\]: expected a Module, got 3"),
                            (lambda: nn.ModuleList(3), "modules: expected an iterable, got 3"),
                            (lambda: nn.ParameterList([[1.0]]),
                             r"modules\[0\]: expected a Value or a leaf Tensor, got"),
                            (lambda: nn.ModuleDict({"a": 3}), r"modules\['a'\]: expected a Module, got 3"),
                            (lambda: nn.ModuleDict({3: a}), "key: expected a str, got 3"),
                            (lambda: nn.ModuleDict(3), "modules: expected a dict, got 3"),
                            (lambda: nn.Parameter("x"), "data: expected a number or an array of numbers, got 'x'")):
        with pytest.raises(ArgumentTypeError, match=message):
            change()
    parts = nn.ModuleDict({"x": a})
    parts["y"] = b
    for key in ("train", "a.b", ""):
        with pytest.raises(ArgumentError,
                           match="key: expected a name without a dot that is no attribute of ModuleDict"):
            parts[key] = a
    assert parts.keys() == ["x", "y"] == list(parts)
    assert parts.pop("x") is a and parts.items() == [("y", b)] and len(parts) == 1
    with pytest.raises(KeyError):
        parts["x"]
    frozen = nn.Parameter([1.0, 2.0], requires_grad=False)
    assert isinstance(frozen, nn.Parameter) and nn.ParameterList([frozen]).parameters() and not frozen.requires_grad
    assert isinstance(nn.Parameter(3), Value) and not isinstance(Tensor([1.0], requires_grad=False), nn.Parameter)


def test_buffers_of_single_modules():
    class Own(nn.Module):
        pass

    one, other = Own(), Own()
    one.register_buffer("mean", Tensor([1.0, 2.0]))
    other.mean = 3.0   # an attribute like any other
    assert list(one.state_dict()) == ["mean"] and list(other.state_dict()) == [] and other.mean == 3.0
    assert copy.deepcopy(one).mean.tolist() == pickle_of(one.state_dict())["mean"].tolist() == [1.0, 2.0]
    one.load_state_dict({"mean": [3.0, 4.0]})
    program = flatgrad.compile(lambda x: flatgrad.dot(x, one.mean))
    assert program([1.0, 1.0]).data == 7.0
    one.mean = np.array([0.0, 1.0])
    assert program([1.0, 1.0]).data == 1.0   # read at each call
    one.register_buffer("mean", None)
    assert one.mean is None and list(one.state_dict()) == []
    del one.mean
    assert not hasattr(one, "mean")
    for name in ("train", "no name", 3):
        with pytest.raises((ArgumentError, ArgumentTypeError), match="name: expected a"):
            one.register_buffer(name, [1.0])
    with pytest.raises(ArgumentTypeError, match="tensor: expected an array of numbers or None, got 'x'"):
        one.register_buffer("text", "x")


def pickle_of(x):
    return pickle.loads(pickle.dumps(x))
