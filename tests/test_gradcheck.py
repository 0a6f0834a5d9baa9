"""Every layer, activation, loss and penalty held against finite differences by `flatgrad.gradcheck`: by
inputs, targets and parameters."""
import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, losses, nn
from flatgrad._core import _operations
from test_ops import ORACLE

RNG = np.random.default_rng(5)
X = RNG.normal(size=(4, 6))
PRECISE = {"eps": 1e-6, "atol": 1e-7, "rtol": 1e-5}   # 0.1 % wrong is caught


def smooth_points(op):
    """Operands away from kinks, as test_ops has them."""
    return [point if isinstance(point, tuple) else (point,) for point in ORACLE[op].points]


# ---- operations ----

@pytest.mark.parametrize("op", [row["id"] for row in _operations() if row["id"] in ORACLE])
def test_operation(op):
    oracle = ORACLE[op]
    for point in smooth_points(op):
        point = tuple(map(float, point)) if not oracle.immediate else point
        if oracle.immediate:
            flatgrad.gradcheck(lambda x: oracle.apply(x, point[1]), float(point[0]), **PRECISE)
        elif oracle.order:
            flatgrad.gradcheck(lambda *x: oracle.apply(*x, point[-1]), point[:-1], **PRECISE)
        else:
            flatgrad.gradcheck(oracle.apply, point, **PRECISE)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "logsumexp", "softmax", "log_softmax"])
@pytest.mark.parametrize("axis", [0, 1])
def test_reduction(reduce, axis):
    flatgrad.gradcheck(lambda x: getattr(x, reduce)(axis=axis), X, **PRECISE)


# ---- modules ----

MODULES = {
    "Linear": lambda: nn.Linear(6, 3, rng=1),
    **{f"Layer({name})": (lambda name=name: nn.Layer(6, 3, name, init="xavier_normal", rng=1))
       for name in nn.layers.ACTIVATIONS},
    "Layer(a function)": lambda: nn.Layer(6, 3, lambda z: z.tanh() * 2.0, rng=1),
    "Layer(bias=False)": lambda: nn.Layer(6, 3, "tanh", bias=False, rng=1),
    "MLP": lambda: nn.MLP(6, [5, 3], activation="gelu", out_activation="softmax", init="he_uniform", rng=1),
    "MLP, not fused": lambda: nn.MLP(6, [5, 3], activation="silu", init="he_uniform", rng=1, fused=False),
    "Sequential": lambda: nn.Sequential(nn.Layer(6, 4, "tanh", rng=1), nn.LayerNorm(4), nn.Layer(4, 2, "linear", rng=2)),
    "BatchNorm": lambda: nn.BatchNorm(6, track_running_stats=False),
    "BatchNorm, evaluating": lambda: nn.BatchNorm(6).eval(),
    "LayerNorm": lambda: nn.LayerNorm(6),
    "RNNCell": lambda: nn.RNNCell(6, 3, rng=1),
    "RNNCell(relu)": lambda: nn.RNNCell(6, 3, nonlinearity="relu", rng=1),
    "LSTMCell": lambda: nn.LSTMCell(6, 3, rng=1),
    "GRUCell": lambda: nn.GRUCell(6, 3, rng=1),
    "Conv1d": lambda: nn.Conv1d(2, 3, 2, length=3, padding=1, rng=1),
    "Conv2d": lambda: nn.Conv2d(1, 2, 2, size=(2, 3), rng=1),
    "MaxPool1d": lambda: nn.MaxPool1d(2, 2, length=3),
    "MaxPool2d": lambda: nn.MaxPool2d(1, 2, 1, size=(2, 3)),
    "AvgPool1d": lambda: nn.AvgPool1d(2, 2, 1, length=3),
    "AvgPool2d": lambda: nn.AvgPool2d(1, 2, size=(2, 3)),
    "Dropout, evaluating": lambda: nn.Dropout(0.5).eval(),
    **{name: (lambda name=name: getattr(nn, name)()) for name in nn.activations.__all__},
}


@pytest.mark.parametrize("name", MODULES)
def test_module(name):
    model = MODULES[name]()

    def outputs(x, *parameters):
        out = model(x)
        return out[0] * 2.0 + out[1] if isinstance(out, tuple) else out   # h and c of an LSTM

    # The parameters themselves, which the model uses.
    assert flatgrad.gradcheck(outputs, (X, *model.parameters()), **PRECISE)


def test_embedding():
    model = nn.Embedding(5, 3, rng=1)
    assert flatgrad.gradcheck(lambda *parameters: model(np.array([[0, 3], [3, 1]])), tuple(model.parameters()), **PRECISE)


def test_dropout():
    def outputs(x):   # the same mask at each call
        return nn.Dropout(0.5, rng=3)(x)
    assert flatgrad.gradcheck(outputs, X, **PRECISE)


def test_every_module_is_here():
    here = {name.split(",")[0].split("(")[0] for name in MODULES}
    assert set(nn.LOADED_LATER) - {"Embedding", "Dropout"} <= here   # which are checked above


# ---- losses ----

P, Q = RNG.uniform(0.1, 0.9, size=(2, 4, 3))
Z, T = RNG.normal(size=(2, 4, 3))
LABELS = np.array([0, 2, 1, 2])
LOSSES = {
    "mse": (losses.mse, (Z, T)),
    "mae": (losses.mae, (Z, T)),
    "huber": (lambda x, y, **o: losses.huber(x, y, delta=0.7, **o), (Z, T)),
    "hinge": (losses.hinge, (Z, np.sign(T))),
    "binary_cross_entropy": (losses.binary_cross_entropy, (P, Q)),
    "bce_with_logits": (losses.bce_with_logits, (Z, Q)),
    "bce_with_logits, pos_weight": (lambda x, y, **o: losses.bce_with_logits(x, y, pos_weight=[0.5, 1.0, 3.0], **o), (Z, Q)),
    "cross_entropy": (lambda x, **o: losses.cross_entropy(x, LABELS, **o), (Z,)),
    "cross_entropy, label_smoothing": (lambda x, **o: losses.cross_entropy(x, LABELS, label_smoothing=0.2, **o), (Z,)),
    "nll": (lambda x, **o: losses.nll(x, LABELS, **o), (np.log(P),)),
    "kl_div": (losses.kl_div, (np.log(P), Q)),
    "kl_div, log_target": (lambda x, y, **o: losses.kl_div(x, y, log_target=True, **o), (np.log(P), np.log(Q))),
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss(name, reduction):
    loss, inputs = LOSSES[name]
    assert flatgrad.gradcheck(lambda *x: loss(*x, reduction=reduction), inputs, **PRECISE)


def test_every_loss_is_here():
    assert {name.partition(",")[0] for name in LOSSES} == set(losses.LOSSES)


@pytest.mark.parametrize("penalty", [losses.l1, losses.l2])
def test_penalty(penalty):
    model = nn.MLP(2, [3, 1], init="he_normal", rng=1)
    values = tuple(p for p in model.parameters() if p.data != 0.0)
    assert flatgrad.gradcheck(lambda *p: penalty(model.parameters()), values, **PRECISE)
    assert flatgrad.gradcheck(lambda t: penalty([t]), Tensor(X), **PRECISE)


# ---- the check itself ----

def test_a_derivative_wrong_by_a_thousandth_is_caught():
    def wrong(x):
        return flatgrad.Value(np.tanh(x.data), (x,), ((1.0 - np.tanh(x.data) ** 2) * 1.001,))
    with pytest.raises(flatgrad.errors.GradcheckError):
        flatgrad.gradcheck(wrong, 0.5, **PRECISE)
