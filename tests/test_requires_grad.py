"""`requires_grad = False`: a leaf whose gradient stays what it is, whatever computes with it, and which optimizers
leave alone; and backward passes from what no gradient can flow from."""
import copy
import pickle
import random

import numpy as np
import pytest

import flatgrad as fg
from flatgrad import Tensor, Value, _core, no_grad, optim
from flatgrad.nn import MLP
from flatgrad.errors import ArgumentError, ArgumentTypeError

pytestmark = pytest.mark.usefixtures("moving")

OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1), "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "Adam": lambda p: optim.Adam(p, lr=0.1), "AdamW": lambda p: optim.AdamW(p, lr=0.1, amsgrad=True),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.1, momentum=0.5, centered=True),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.1), "Adadelta": lambda p: optim.Adadelta(p, lr=0.1),
    "NAdam": optim.NAdam, "RAdam": optim.RAdam, "Adamax": optim.Adamax, "Rprop": optim.Rprop,
}

# What computes with a frozen leaf p and another x.
USES = {
    "operators": lambda p, x: p * x + p ** 2 - x / p, "same twice": lambda p, x: p * p * x, "functions": lambda p, x: (p * x).tanh() + p.exp(),
    "dot": lambda p, x: fg.dot([p, x], [x, 2.0]), "sum": lambda p, x: fg.sum([p, x, p]), "max": lambda p, x: fg.max([p, p, x]) * x,
    "softmax": lambda p, x: fg.softmax([p, x])[0] + fg.log_softmax([x, p])[1], "logsumexp": lambda p, x: fg.logsumexp([p, x]),
    "layer": lambda p, x: fg.linear([x, 2.0], [[p, 1.0], [p, p]], [p, p], "tanh")[1] * x,
    "tensor": lambda p, x: (Tensor([p, x, 1.0]) * Tensor([x, p, 2.0])).sum(), "where": lambda p, x: fg.where(1.0, p, x) + x,
    "local": lambda p, x: Value(3.0, (p, x), (2.0, 5.0)), "losses": lambda p, x: fg.losses.mse([p, x], [x, p]),
    "cross_entropy": lambda p, x: fg.losses.cross_entropy([[p, x], [x, p]], [0, 1]),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_the_gradient_stays_and_the_others_get_theirs(use):
    p, x = Value(0.75), Value(0.5)
    use(p, x).backward()
    expected = x.grad
    for held in 0.0, -0.0, 2.5, float("inf"):
        p, x = Value(0.75), Value(0.5)
        p.grad = held
        p.requires_grad = False
        y = use(p, x)
        y.backward()
        assert p.grad == held and np.copysign(1.0, p.grad) == np.copysign(1.0, held) and x.grad == expected
        assert p.requires_grad is False and x.requires_grad and y.requires_grad
        p.grad, x.grad = 7.0, 0.0
        use(p, x).backward()
        assert p.grad == 7.0 and x.grad == expected
        table = _core.derivatives([use(p, x)], [x])
        assert table.tolist() == [[expected]] and p.grad == 7.0
        with pytest.raises(ValueError, match=r"inputs\[0\]: .*requires_grad=False"):
            _core.derivatives([use(p, x)], [p])
        p.requires_grad = True
        assert p.grad == 7.0
        p.grad = 0.0
        use(p, x).backward()
        assert p.grad != 0.0 or use is USES["max"]


def test_a_rule_that_adds_to_it_does_not_change_it():
    p, x = Value(3.0), Value(2.0)
    p.grad = 1.0
    p.requires_grad = False
    out = Value(6.0, (p, x), "mul")

    def rule():
        p.grad += x.data * out.grad
        x.grad += p.data * out.grad
    out._backward = rule
    (out * 2.0).backward()
    assert (p.grad, x.grad) == (1.0, 6.0)


def test_only_leaves_and_only_bools():
    x = Value(3.0)
    for y in (x * 2.0, fg.dot([x], [2.0]), Tensor([x]).tanh()[0], Value(1.0, (x,), "op")):
        with pytest.raises(ArgumentError, match=r"requires_grad: expected a leaf.*\.detach\(\)"):
            y.requires_grad = False
        y.requires_grad = True
        assert y.requires_grad is True
    for wrong in 0, 1, None, "False", 0.0, []:
        for leaf in x, Tensor([1.0, 2.0]):
            with pytest.raises(ArgumentTypeError, match="requires_grad: expected True or False"):
                leaf.requires_grad = wrong
            assert leaf.requires_grad is True
            with pytest.raises(AttributeError):
                del leaf.requires_grad
    with no_grad():
        y = x * 2.0
    y.requires_grad = False   # a leaf
    x.requires_grad = np.False_
    assert not y.requires_grad and not x.requires_grad
    x.__init__(4.0)
    assert x.requires_grad and x.data == 4.0 and x.grad == 0.0


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("kind", ["values", "tensor", "a part of a tensor"])
def test_optimizers_leave_it_alone(make, kind):
    def train(frozen_at, also_before):
        random.seed(3)
        w = [Value(0.5 + 0.25 * k) for k in range(6)] if kind == "values" else [Tensor([0.5 + 0.25 * k for k in range(6)])]
        flat = w if kind == "values" else list(w[0])
        leaves = flat[1:3] if kind != "tensor" else w
        if also_before:
            for leaf in leaves:
                leaf.requires_grad = False
        optimizer = make(w)
        seen = []
        for step in range(6):
            if step == frozen_at:
                for leaf in leaves:
                    leaf.requires_grad = False
            if step == 4:
                for leaf in leaves:
                    leaf.requires_grad = True
            optimizer.zero_grad()
            loss = fg.sum([p * p * p for p in flat]) + flat[0] * flat[1] + Value(1.0)
            loss.backward()
            optim.clip_grad_norm_(w, 1e9)
            optimizer.step()
            seen.append([p.data for p in flat])
        return seen

    free, frozen = train(None, False), train(2, False)
    stay = [1, 2] if kind != "tensor" else range(6)
    assert free[:2] == frozen[:2] and free[3] != frozen[3]
    for k in range(6):
        assert (frozen[2][k] == frozen[1][k] == frozen[3][k]) == (k in stay)
        assert frozen[4][k] != frozen[3][k]
    before = train(None, True)
    assert all(before[3][k] == 0.5 + 0.25 * k for k in stay)


def test_zero_grad_norms_and_clips_see_the_gradient_that_it_keeps():
    p, q = Value(1.0), Value(1.0)
    p.grad, q.grad = 3.0, 4.0
    p.requires_grad = False
    parameters = _core.Parameters([p, q])
    assert parameters.grad_norm(2.0) == 5.0
    (p * q * 100.0).backward()
    assert (p.grad, q.grad) == (3.0, 104.0)
    parameters.scale_grad(2.0)
    assert (p.grad, q.grad) == (6.0, 208.0)
    parameters.clip_grad(5.0)
    assert (p.grad, q.grad) == (5.0, 5.0)
    parameters.zero_grad()
    assert (p.grad, q.grad) == (0.0, 0.0)
    p.update(0.1)
    assert p.data == 1.0


def models():
    random.seed(1)
    return MLP(3, [8, 8, 2], activation="tanh")


@pytest.mark.parametrize("frozen", ["all but the last", "all but the first", "the weights", "every second", "biases"])
@pytest.mark.parametrize("fused", [True, False])
def test_layers(frozen, fused):
    X = np.linspace(-1.0, 1.0, 15).reshape(5, 3)

    def gradients(freeze):
        model = models()
        model.fused = fused
        chosen = {"all but the last": [p for layer in model.layers[:-1] for p in layer.parameters()],
                  "all but the first": [p for layer in model.layers[1:] for p in layer.parameters()],
                  "the weights": [w for layer in model.layers for n in layer.neurons for w in n.w],
                  "every second": model.parameters()[::2],
                  "biases": [n.b for layer in model.layers for n in layer.neurons]}[frozen]
        for p in chosen if freeze else ():
            p.requires_grad = False
        (model(X) ** 2).sum().backward()
        model(list(X[0]))[0].backward()
        chosen = {id(p) for p in chosen}
        return [(p.grad, id(p) in chosen) for p in model.parameters()]

    for (free, _), (kept, is_frozen) in zip(gradients(False), gradients(True)):
        assert kept == (0.0 if is_frozen else pytest.approx(free, rel=1e-12, abs=1e-15))


def test_a_module():
    model = models()
    assert model.requires_grad_(False) is model and not any(p.requires_grad for p in model.parameters())
    assert model.layers[1].requires_grad_() is model.layers[1]
    assert [p.requires_grad for layer in model.layers for p in layer.parameters()[:1]] == [False, True, False]
    for again in pickle.loads(pickle.dumps(model)), copy.deepcopy(model):
        assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in model.parameters()]
        again.load_state_dict(models().requires_grad_().state_dict())   # numbers alone
        assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in model.parameters()]
    with pytest.raises(ArgumentTypeError, match="requires_grad"):
        model.requires_grad_("no")
    assert len(model.parameters()) == len(models().parameters())


def test_a_module_of_tensors_keeps_its_parameters():
    class Scale(fg.nn.Module):
        def __init__(self):
            self.weight, self.data = Tensor([1.0, 2.0]), Tensor([5.0], requires_grad=False)

        def __call__(self, x):
            return (self.weight * x).sum()

    model = Scale().requires_grad_(False)
    assert not model.weight.requires_grad and len(model.parameters()) == 2 and list(model.state_dict()) == ["weight"]
    assert model.requires_grad_().weight.requires_grad


def test_tensors():
    W = Tensor([[1.0, 2.0], [3.0, 4.0]])
    row, y = W[0], (W * W).sum()
    W.grad = 1.0
    W.requires_grad = False
    assert not W.requires_grad and not row.requires_grad and not W.T.requires_grad and not W[0, 1].requires_grad
    z = Value(1.0)
    (y + (W @ [z, 1.0]).sum() + (row * z).sum() + W.tanh().sum() + W[[1]].sum()).backward()
    assert (W.grad == 1.0).all() and z.grad == 7.0
    W.grad = [[1.0, 2.0], [3.0, 4.0]]
    assert W.grad.tolist() == [[1.0, 2.0], [3.0, 4.0]] and W.T.grad.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert W[1, 0].grad == 3.0
    for again in copy.copy(W), copy.deepcopy(W), pickle.loads(pickle.dumps(W)):
        assert not again.requires_grad and again.tolist() == W.tolist()
    assert (copy.deepcopy(W).grad == W.grad).all()
    W.update(1.0)
    assert W.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    W.requires_grad = True
    W.grad = 0.0
    (W * W).sum().backward()
    assert (W.grad == 2.0 * W.data).all() and row.requires_grad
    W[0, 1].requires_grad = False
    W.grad = 0.0
    (W * W).sum().backward()
    assert W.grad.tolist() == [[2.0, 0.0], [6.0, 8.0]] and W.requires_grad
    again = pickle.loads(pickle.dumps(W))
    assert [v.requires_grad for v in [*again[0], *again[1]]] == [True, False, True, True]


def test_a_frozen_leaf_that_has_a_rule():
    """Alone in a row, with others, and the first of a column of a matrix."""
    x, values = Tensor(np.arange(6.0).reshape(2, 3)), [Value(1.0), Value(2.0), Value(3.0)]
    values[0]._backward = lambda: None
    values[0].requires_grad = False
    fg.dot(values, [x[0, 0], x[0, 1], x[1, 2]]).backward()
    assert x.grad.tolist() == [[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]] and [v.grad for v in values] == [0.0, 1.0, 5.0]
    w = Tensor(np.arange(6.0).reshape(2, 3))
    w[0, 0].requires_grad = False
    (w.T @ Tensor(np.ones((2, 2)))).sum().backward()
    assert w.grad.tolist() == [[0.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    w.grad = 0.0
    (w[:, 0] * 2.0).sum().backward()
    w[:, 0].sum().backward()
    assert w.grad.tolist() == [[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]]


def test_tensors_that_refuse():
    W = Tensor([[1.0, 2.0], [3.0, 4.0]])
    for t, wrong in (W[0], "whole leaf Tensor, got a view"), (W * 2.0, r"leaf Tensor, got the result.*\.detach\(\)"):
        with pytest.raises(ArgumentError, match=wrong):
            t.requires_grad = False
        assert t.requires_grad and W.requires_grad
        t.requires_grad = True
    constant = Tensor([1.0, 2.0], requires_grad=False)
    with pytest.raises(ArgumentError, match="leaf Tensor"):
        (constant * 2.0).requires_grad = True
    constant.requires_grad = False
    constant.requires_grad = True
    (constant * constant).sum().backward()
    assert constant.requires_grad and constant.grad.tolist() == [2.0, 4.0]


def test_copies_of_values():
    p = Value(3.0)
    p.grad, p.label = 2.0, "p"
    p.requires_grad = False
    y = p * 4.0
    for again in copy.copy(p), copy.deepcopy(p), pickle.loads(pickle.dumps(p)):
        assert (again.requires_grad, again.data, again.grad, again.label) == (False, 3.0, 2.0, "p")
    q = Value(3.0)
    q.requires_grad = False
    assert not copy.deepcopy(q).requires_grad and not pickle.loads(pickle.dumps([q, q]))[0].requires_grad
    other = copy.deepcopy([p, y])
    other[1].backward()
    assert other[0].grad == 2.0
    assert p.detach().requires_grad


def test_gradcheck_leaves_out_what_is_frozen():
    p, x = Value(3.0), Value(2.0)
    p.requires_grad = False
    assert fg.gradcheck(lambda p, x: p * x * x, (p, x))
    with pytest.raises(ArgumentError, match="one number at least"):
        fg.gradcheck(lambda p: p * p, p)
    assert fg.grad(lambda x: x * p)(2.0) == 3.0 and p.grad == 0.0
    assert fg.grad(lambda p: p * p)(p) == 6.0   # by its number, as of any argument


def test_many_random_graphs_with_some_leaves_frozen():
    def gradients(seed, chosen):
        rng = random.Random(seed)
        leaves = [Value(rng.uniform(0.5, 1.5)) for _ in range(5)]
        nodes = list(leaves)
        for k in chosen:
            leaves[k].grad = 0.5
            leaves[k].requires_grad = False
        for _ in range(20):
            a, b = rng.choice(nodes), rng.choice(nodes)
            nodes.append(rng.choice([lambda: a + b, lambda: a * b, lambda: a.tanh(), lambda: fg.mean([a, b, a]),
                                     lambda: fg.softmax([a, b])[1], lambda: (Tensor([a, b]) * b).sum()])())
        fg.sum(nodes).backward()
        fg.collect()
        assert _core._check()
        return [p.grad for p in leaves]

    for seed in range(40):
        chosen = random.Random(-seed).sample(range(5), seed % 4 + 1)
        free = gradients(seed, ())
        assert gradients(seed, chosen) == [0.5 if k in chosen else free[k] for k in range(5)]


# ---- backward from a constant ----

def test_backward_from_what_no_gradient_flows_from():
    c, w = Tensor([1.0], requires_grad=False), Tensor([[1.0, 2.0]], requires_grad=False)
    for y in (c, c.sum(), c.mean(), (c * 2.0)[0], c.tanh(), (w @ [1.0, 2.0])[0], fg.dot(w[0], [1.0, 2.0]), w.logsumexp(),
              fg.losses.mse(c, [2.0]), fg.losses.cross_entropy(w, [1]), c[[0]].sum()):
        with pytest.raises(RuntimeError, match=r"backward\(\): no gradient flows from here"):
            y.backward()
        assert np.all(y.grad == 0.0) and not c.grad.any()
    x = Value(3.0)
    x.backward()
    (x * 2.0).backward()
    (c * x).sum().backward()
    assert x.grad == 4.0
    y = c.sum()
    y._backward = lambda: None   # a rule of one's own
    y.backward()
    assert y.grad == 1.0


def test_backward_of_what_is_frozen():
    p = Value(3.0)
    p.requires_grad = False
    W, b = Tensor([[1.0, 2.0]]), Tensor([0.5])
    W.requires_grad = b.requires_grad = False
    model = models().requires_grad_(False)
    X = Tensor([[1.0, 2.0, 3.0]], requires_grad=False)
    for y in (p, p * p, p.tanh().exp(), fg.linear(np.ones((1, 2)), W, b).sum(), fg.dot([p, p], np.ones(2)), model(X).sum(),
              (model(X) * p).tanh().mean() + p):
        with pytest.raises(RuntimeError, match="no gradient flows"):
            y.backward()
        assert y.grad == 0.0
    model.layers[0].requires_grad_()
    model(X).sum().backward()
    assert any(q.grad for q in model.layers[0].parameters()) and not any(q.grad for q in model.layers[1].parameters())
    p.requires_grad = True
    p.backward()
    assert p.grad == 1.0


# ---- attributes whose names are nearly one that means something ----

@pytest.mark.parametrize("moving", ["as it is"], indirect=True)
@pytest.mark.parametrize("name, known", [
    ("gard", "grad"), ("grda", "grad"), ("gad", "grad"), ("gradd", "grad"), ("Grad", "grad"), ("drad", "grad"), ("adta", "data"),
    ("dta", "data"), ("daata", "data"), ("DATA", "data"), ("require_grad", "requires_grad"), ("requires_gard", "requires_grad"),
    ("requires_gradient", "requires_grad"), ("requiresgrad", "requires_grad"),
])
@pytest.mark.parametrize("subclass", [False, True])
def test_a_near_miss_warns_once(name, known, subclass, moving):
    import subprocess
    import sys
    program = f"""
import warnings
from flatgrad import Value
Class = type("Mine", (Value,), {{}}) if {subclass} else Value
v, w = Class(1.0), Class(2.0)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    v.{name} = 5
    v.{name} = 6
    w.{name} = 7
assert (v.{name}, w.{name}, v.grad, v.data) == (6, 7, 0.0, 1.0)
print([(w.category.__name__, str(w.message)) for w in seen])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert result.count("UserWarning") == 1 and f"'{name}'" in result and f"did you mean '{known}'" in result


@pytest.mark.parametrize("moving", ["as it is"], indirect=True)
def test_other_names_do_not_warn(moving, recwarn):
    class Mine(Value):
        pass

    for v in Value(1.0), Mine(1.0):
        for name in ("label", "color", "owner", "x", "y", "z", "name", "tag", "date", "dates", "grid", "grade", "gray", "rad",
                     "grads", "gradient", "database", "metadata", "size", "note", "depth", "_gard", "__data", "d", "g", "data2",
                     "grad_fn", "grad2", "old_grad", "requires", "is_leaf", "detached", "updated", "items", "value", "id"):
            setattr(v, name, name)
            assert getattr(v, name) == name
        v.grad, v.data, v.requires_grad, v._op = 1.0, 2.0, False, "op"
    assert [str(w.message) for w in recwarn] == []
