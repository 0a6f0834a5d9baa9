"""Masked arrays of NumPy: nothing computes with what is masked, and one with nothing masked is an array."""
import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, losses, nn
from flatgrad.errors import DataError
from flatgrad.nn.functional import one_hot

V = Value(2.0)
T, ROWS = Tensor([1.0, 2.0, 3.0]), Tensor(np.ones((2, 2)))
SQUARES = flatgrad.compile(lambda x: (x * x).sum())
SAMPLES = flatgrad.compile(flatgrad.vmap(lambda x: x * V))
LINEAR, SQUARE, NETWORK = nn.Linear(3, 2, rng=0), nn.Linear(2, 2, rng=0), nn.MLP(2, [2])

CALLS = {   # of an array of three numbers
    "v * m": lambda m: V * m, "v ** m": lambda m: V**m, "t + m": lambda m: T + m, "m / v": lambda m: np.divide(m, V),
    "t @ m": lambda m: T @ m, "np.maximum": lambda m: np.maximum(T, m), "np.outer": lambda m: np.outer(T, m),
    "np.where": lambda m: np.where([True, False, True], T, m), "t < m": lambda m: T < m,
    "sum": flatgrad.sum, "mean": flatgrad.mean, "softmax": flatgrad.softmax, "logsumexp": flatgrad.logsumexp,
    "stack": lambda m: flatgrad.stack([T, m]), "cat": lambda m: flatgrad.cat([T, m]),
    "clip": lambda m: flatgrad.clip(T, m, 9.0),
    "where": lambda m: flatgrad.where(m, T, 0.0), "where, taken": lambda m: flatgrad.where(T, m, 0.0),
    "dot": lambda m: flatgrad.dot([V, V, V], m), "take": lambda m: flatgrad.take(m, V),
    "positions": lambda m: flatgrad.take(T, m),
    "Tensor": Tensor, "data": lambda m: setattr(Tensor([0.0] * 3), "data", m), "grad": lambda m: setattr(T, "grad", m),
    "grad of": flatgrad.grad(lambda x: (x * x).sum()),
    "grad, constant": lambda m: flatgrad.grad(lambda x, y: (x * y).sum())(np.ones(3), m),
    "hvp": lambda m: flatgrad.hvp(lambda x: (x * x).sum(), m, np.ones(3)),
    "hvp, direction": lambda m: flatgrad.hvp(lambda x: (x * x).sum(), np.ones(3), m),
    "compiled": SQUARES, "vmap": flatgrad.vmap(lambda x: x * V), "vmap, compiled": SAMPLES,
    "scan": lambda m: flatgrad.scan(lambda c, x: (c + x, c), Value(0.0), m),
    "mse": lambda m: losses.mse(T, m), "hinge": lambda m: losses.hinge(T, m),
    "mse, prediction": lambda m: losses.mse(m, T), "one_hot": lambda m: one_hot(m.astype(int)),
    "cross_entropy": lambda m: losses.cross_entropy(Tensor(np.ones((3, 4))), m.astype(int)),
    "Linear": LINEAR, "Linear, rows": lambda m: SQUARE(np.ma.stack([m[1:], m[1:]])), "MLP": lambda m: NETWORK(m[1:]),
    "MLP, rows": lambda m: NETWORK(np.ma.stack([m[1:], m[1:]])), "ReLU": nn.ReLU(),
    "state": lambda m: LINEAR.load_state_dict({"weight": np.ma.stack([m, m]), "bias": np.zeros(2)}),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_is_masked_is_refused_and_changes_nothing(name):
    before = T.tolist(), T.grad.tolist(), LINEAR.weight.tolist(), LINEAR.bias.tolist()
    with pytest.raises(DataError, match="expected numbers, got an array with [12] of them masked"):
        CALLS[name](np.ma.array([0.0, 1.0, 2.0], mask=[0, 0, 1]))
    assert before == (T.tolist(), T.grad.tolist(), LINEAR.weight.tolist(), LINEAR.bias.tolist())


@pytest.mark.parametrize("make", [np.ma.array, lambda x: np.ma.array(x, mask=[0, 0, 0]),
                                  lambda x: np.asarray(x).view(Other)])
def test_other_arrays_are_arrays(make):
    for name in ("v * m", "t + m", "sum", "Tensor", "compiled", "vmap", "mse", "Linear", "stack"):
        x = [0.0, 1.0, 2.0]
        ours, plain = CALLS[name](make(x)), CALLS[name](np.array(x))
        data = [y.tolist() if isinstance(y, Tensor) else y.data if isinstance(y, Value) else [v.data for v in y]
                for y in (ours, plain)]
        assert data[0] == data[1]


class Other(np.ndarray):
    """A subclass of somebody's."""
