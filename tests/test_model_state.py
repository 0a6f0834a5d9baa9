"""What belongs to a model and its training: parameters in dicts and lists of any kind, and draws from its generators."""
import copy
import pickle
import random
import re

import numpy as np
import pytest

from flatgrad import Tensor, Value, losses, nn
from flatgrad.errors import ArgumentTypeError, DataError, ShapeError
from flatgrad.optim import SGD
from flatgrad.randomness import Random
from flatgrad.train import Trainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 2))
Y = X @ [0.5, -1.0]


# ---- parameters ----

class Holding(nn.Module):
    def __init__(self, start=1.0):
        self.out = nn.Linear(2, 1, rng=0)
        self.gains = {"a": Value(start), "b": {"c": Tensor([start, 2.0])}, "text": "t", 3: None}
        self.mats = [Tensor([start, 2.0]), Tensor([[3.0]])]
        self.maybe = (Value(start), None, "text", [Value(4.0), 5.0])
        self.gains["itself"] = self.gains
        self.kept = {"result": Value(1.0) * 2.0, "constant": Tensor([1.0], requires_grad=False), "array": np.ones(3)}

    def __call__(self, x):
        scale = self.gains["a"] * self.gains["b"]["c"][1] * self.mats[1][0, 0] * self.maybe[0] * self.maybe[3][0]
        return self.out(x) * scale + self.mats[0][0]


KEYS = ["gains.a", "gains.b.c", "mats.0", "mats.1", "maybe.0", "maybe.3.0", "out.weight", "out.bias"]


def test_parameters_in_dicts_and_in_lists_with_other_things():
    model = Holding()
    assert list(model.state_dict()) == KEYS
    assert len(model.parameters()) == 1 + 2 + 2 + 1 + 1 + 1 + 3 == len(list(model.named_parameters()))
    assert [name for name, _ in model.named_parameters()][:4] == ["gains.a", "gains.b.c[0]", "gains.b.c[1]", "mats.0[0]"]
    other = Holding(7.0)
    other.load_state_dict(model.state_dict())
    assert other.gains["a"].data == 1.0 and other.mats[0].data.tolist() == [1.0, 2.0] and other.maybe[0].data == 1.0


@pytest.mark.parametrize("engine", ["python", "auto"])
def test_they_are_trained_and_zeroed(engine):
    model = Holding()
    before = [p.data for p in model.parameters()]
    Trainer(model, SGD(model.parameters(), lr=1e-3), "mse").fit(X, Y, 8, progress=False, engine=engine)
    moved = [p.data != old for p, old in zip(model.parameters(), before)]
    assert sum(moved) == len(moved) - 2   # two elements that the model does not read
    model.zero_grad()
    assert not any(p.grad for p in model.parameters())


# ---- generators ----

class Noisy(nn.Module):
    def __init__(self, kind):
        self.inner = nn.Linear(2, 1, rng=0)
        self.noise = {"flatgrad": lambda: Random(3), "random": lambda: random.Random(3),
                      "numpy": lambda: np.random.default_rng(3)}[kind]()

    def __call__(self, x):
        draw = self.noise.gauss(0.0, 1.0) if isinstance(self.noise, random.Random) else self.noise.normal()
        return self.inner(x) + draw


def trainer_of(kind):
    model = Noisy(kind)
    return Trainer(model, SGD(model.parameters(), lr=0.05), "mse")


def drawn(model):
    rng = getattr(model.noise, "rng", model.noise)
    return repr(rng.getstate() if isinstance(rng, random.Random) else rng.bit_generator.state)


KINDS = ["flatgrad", "random", "numpy"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_in_parts_draws_what_one_fit_draws(kind, tmp_path):
    whole, parts, resumed = trainer_of(kind), trainer_of(kind), trainer_of(kind)
    whole.fit(X, Y, 6, batch_size=15, seed=1, progress=False)
    parts.fit(X, Y, 2, batch_size=15, seed=1, progress=False)
    parts.save(tmp_path / "trainer.npz")
    parts.fit(X, Y, 4, batch_size=15, progress=False)
    resumed.load(tmp_path / "trainer.npz").fit(X, Y, 4, batch_size=15, progress=False)
    assert whole.history.loss == parts.history.loss == resumed.history.loss


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_is_the_loop_by_hand(kind):
    trainer, by_hand = trainer_of(kind), trainer_of(kind)
    trainer.fit(X, Y, 3, progress=False, shuffle=False)
    expected = []
    for _ in range(3):
        loss = losses.mse(by_hand.model(Tensor(X, requires_grad=False)), Tensor(Y[:, None], requires_grad=False))
        by_hand.model.zero_grad()
        loss.backward()
        by_hand.optimizer.step()
        expected.append(loss.data)
    assert trainer.history.loss == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("y, epochs, error", [(Y, 0, None), (np.full(40, np.nan), 2, DataError), (Y[:5], 2, ShapeError),
                                              (Value(1.0), 2, ArgumentTypeError)])
def test_a_fit_of_no_epoch_draws_nothing(kind, y, epochs, error):
    trainer = trainer_of(kind)
    before = drawn(trainer.model)
    if error is None:
        trainer.fit(X, y, epochs, progress=False)
    else:
        with pytest.raises(error, match="^y"):
            trainer.fit(X, y, epochs, progress=False)
    assert drawn(trainer.model) == before


# ---- targets ----

def test_targets_may_be_a_tensor():
    found = []
    for y in Y, Tensor(Y, requires_grad=False), Tensor(Y[:, None]):
        model = nn.Linear(2, 1, rng=0)
        trainer = Trainer(model, SGD(model.parameters(), lr=0.05), "mse", metrics=["r2"])
        trainer.fit(Tensor(X, requires_grad=False), y, 3, seed=1, progress=False, validation=(X, y))
        found.append((trainer.history.loss, trainer.history.r2, trainer.evaluate(X, y)))
    assert found[0] == found[1] == found[2]


# ---- parameters of layers ----

LAYERS = {"Linear": lambda: nn.Linear(2, 3), "Conv1d": lambda: nn.Conv1d(1, 2, 3, length=6),
          "LayerNorm": lambda: nn.LayerNorm(4), "Conv2d": lambda: nn.Conv2d(1, 2, 3, size=6),
          "BatchNorm": lambda: nn.BatchNorm(4),
          "Embedding": lambda: nn.Embedding(5, 2), "RNNCell": lambda: nn.RNNCell(2, 3),
          "LSTMCell": lambda: nn.LSTMCell(2, 3), "GRUCell": lambda: nn.GRUCell(2, 3)}


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_put_in_the_place_of_a_parameter_is_one(name):
    layer = LAYERS[name]()
    tensors = {key: x for key, x in vars(layer).items() if isinstance(x, Tensor)}
    assert set(tensors) == set(layer.state_dict()) - set(layer.buffer_names)
    for key, tensor in tensors.items():
        for wrong, said in [(np.array(tensor.data), "ndarray"), (tensor.tolist(), "list"), (2.0, "float 2.0"),
                            (Value(2.0), "Value"), (tensor - 0.1 * tensor, "the result of '-'"), (tensor.sum(), "the result of 'sum'"),
                            (Tensor(tensor.data, requires_grad=False), "a constant; write")]:
            start = re.escape(f"{key}: expected a parameter of the {name}, nn.Parameter(array), or None, got {said}")
            with pytest.raises(TypeError, match=f"(?s)^{start}.*{key}"):
                setattr(layer, key, wrong)
            assert getattr(layer, key) is tensor
        other = Tensor(tensor.data)
        setattr(layer, key, other)
        assert getattr(layer, key) is other and layer.state_dict().keys() >= tensors.keys()
        again = pickle.loads(pickle.dumps(layer))
        np.testing.assert_array_equal(getattr(copy.deepcopy(again), key).data, other.data)
    with pytest.raises(AttributeError):
        layer.never   # noqa: B018


def test_a_layer_without_bias_and_one_that_loses_it():
    layer = nn.Linear(2, 3)
    layer.bias = None
    assert set(layer.state_dict()) == {"weight"}
    np.testing.assert_array_equal(layer([[1.0, 2.0]]).data, [[1.0, 2.0]] @ layer.weight.data.T)
    del layer.bias
    with pytest.raises(AttributeError):
        del layer.bias
