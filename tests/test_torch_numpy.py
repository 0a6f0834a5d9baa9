"""NumPy's functions on Tensors, and the functions that go with them, against PyTorch's of the same meaning: values and
gradients, at ties, kinks and zeros too."""
import numpy as np
import pytest

import flatgrad as fg
from flatgrad import Tensor

torch = pytest.importorskip("torch")

rng = np.random.default_rng(11)
VECTORS = [rng.uniform(-2.0, 2.0, 6), np.array([1.0, -1.0, 1.0, 0.0, 2.0, 2.0]), np.zeros(6)]
MATRICES = [rng.uniform(-2.0, 2.0, (3, 4)),
    np.array([[1.0, 1.0, 0.0, -1.0], [2.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])]
BOTH = VECTORS + MATRICES
OTHER = rng.uniform(-2.0, 2.0, 6)

# Ours, PyTorch's, and what it is tried on.
PAIRS = {
    "square": (np.square, torch.square, BOTH), "t.square": (lambda t: t.square(), torch.square, BOTH),
    "abs": (np.abs, torch.abs, BOTH), "sign": (lambda t: np.sign(t) * t, lambda t: torch.sign(t) * t, BOTH),
    "floor": (lambda t: np.floor(t) * t, lambda t: torch.floor(t) * t, BOTH),
    "maximum": (lambda t: np.maximum(t, 0.0), lambda t: torch.maximum(t, torch.zeros(())), BOTH),
    "minimum": (lambda t: np.minimum(t, OTHER), lambda t: torch.minimum(t, torch.tensor(OTHER)), VECTORS),
    "clip": (lambda t: np.clip(t, -1.0, 1.0), lambda t: torch.clip(t, -1.0, 1.0), BOTH),
    "t.clip, max": (lambda t: t.clip(max=1.0), lambda t: t.clip(max=1.0), BOTH),
    "t.clip, min": (lambda t: t.clip(min=0.0), lambda t: t.clip(min=0.0), BOTH),
    "where": (lambda t: np.where(t > 0.0, t, 2.0 * t), lambda t: torch.where(t > 0.0, t, 2.0 * t), BOTH),
    "max": (np.max, torch.amax, BOTH), "min": (np.min, torch.amin, BOTH),
    "t.min": (lambda t: t.min(), torch.amin, BOTH),
    **{f"{name}, {axis}, {keep}": (lambda t, f=ours, a=axis, k=keep: f(t, a, k), lambda t, f=theirs, a=axis, k=keep: f(
        t, dim=a, keepdim=k), MATRICES) for name, ours, theirs in [
            ("sum", fg.sum, torch.sum), ("mean", fg.mean, torch.mean), ("max", fg.max, torch.amax),
            ("min", fg.min, torch.amin),
            ("logsumexp", fg.logsumexp, torch.logsumexp)]
       for axis in (0, 1, -1, (0, 1), (-2,), (1, 0)) for keep in (False, True)},
    "prod": (np.prod, torch.prod, BOTH), "prod, axis": (lambda t: np.prod(t, axis=1), lambda t: torch.prod(t, 1),
    MATRICES),
    "cumsum": (lambda t: np.cumsum(t, -1), lambda t: torch.cumsum(t, -1), BOTH),
    "cumprod": (lambda t: np.cumprod(t, -1), lambda t: torch.cumprod(t, -1), BOTH),
    "std": (lambda t: np.std(t, ddof=1), torch.std, [VECTORS[0], *MATRICES]),
    "var": (lambda t: np.var(t, axis=0), lambda t: torch.var(t, 0, correction=0), MATRICES),
    "norm": (np.linalg.norm, torch.linalg.norm, BOTH),
    "norm, 1": (lambda t: np.linalg.norm(t, 1), lambda t: torch.linalg.norm(t, 1), BOTH),
    "norm, inf": (lambda t: np.linalg.norm(t, np.inf), lambda t: torch.linalg.norm(t, torch.inf), VECTORS),
    "norm, axis": (lambda t: np.linalg.norm(t, axis=1), lambda t: torch.linalg.norm(t, dim=1), MATRICES),
    "dot": (lambda t: np.dot(t, t), lambda t: torch.dot(t, t), VECTORS),
    "outer": (lambda t: np.outer(t, t), lambda t: torch.outer(t, t), VECTORS),
    "matmul": (lambda t: np.matmul(t, t.T), lambda t: t @ t.T, MATRICES),
    "inner": (lambda t: np.inner(t, t), lambda t: torch.inner(t, t), BOTH),
    "cat": (lambda t: fg.cat([t, 2.0 * t], -1), lambda t: torch.cat([t, 2.0 * t], -1), BOTH),
    "stack": (lambda t: fg.stack([t, 2.0 * t], 1), lambda t: torch.stack([t, 2.0 * t], 1), VECTORS),
    "concatenate": (lambda t: np.concatenate([t, t]), lambda t: torch.concatenate([t, t]), BOTH),
    "hstack": (lambda t: np.hstack([t, t]), lambda t: torch.hstack([t, t]), BOTH),
    "vstack": (lambda t: np.vstack([t, t]), lambda t: torch.vstack([t, t]), BOTH),
    "roll": (lambda t: np.roll(t, 2), lambda t: torch.roll(t, 2), BOTH),
    "flip": (np.flip, lambda t: torch.flip(t, tuple(range(t.ndim))), BOTH),
    "tile": (lambda t: np.tile(t, 2), lambda t: torch.tile(t, (2,)), BOTH), "tril": (np.tril, torch.tril, MATRICES),
    "diff": (np.diff, torch.diff, BOTH), "trapezoid": (np.trapezoid if hasattr(np, "trapezoid") else np.trapz,
    torch.trapezoid, BOTH),
    "sort": (lambda t: np.sort(t, -1), lambda t: torch.sort(t, dim=-1, stable=True)[0], BOTH),
    "diag": (np.diag, torch.diag, VECTORS),
    "take": (lambda t: np.take(t, [1, 0, 1]), lambda t: torch.take(t, torch.tensor([1, 0, 1])), BOTH),
    "transpose": (np.transpose, lambda t: t.T, MATRICES),
    "reshape": (lambda t: np.reshape(t, (2, -1)), lambda t: t.reshape(2, -1), BOTH),
    "squeeze": (lambda t: np.squeeze(np.expand_dims(t, 0), 0), lambda t: t.unsqueeze(0).squeeze(0), VECTORS),
}


@pytest.mark.parametrize("name", PAIRS)
def test_values_and_gradients(name):
    ours, theirs, arrays = PAIRS[name]
    for x in arrays:
        t, other = Tensor(x), torch.tensor(x, requires_grad=True)
        mine, other_result = ours(t), theirs(other)
        weights = np.cos(np.arange(other_result.numel())).reshape(tuple(other_result.shape))
        assert getattr(mine, "shape", ()) == tuple(other_result.shape)
        np.testing.assert_allclose(mine.data, other_result.detach().numpy(), rtol=1e-13, atol=1e-15)
        ((mine * weights).sum() if isinstance(mine, Tensor) else mine).backward()
        (other_result * torch.tensor(weights)).sum().backward()
        np.testing.assert_allclose(t.grad, other.grad.numpy(), rtol=1e-12, atol=1e-14)


def test_positions_and_comparisons():
    for x in BOTH:
        t, other = Tensor(x), torch.tensor(x)
        assert t.argmax() == other.argmax().item() and t.argmin() == other.argmin().item()
        assert t.argmax(-1) == pytest.approx(other.argmax(-1).numpy()) and t.argmin(0) == pytest.approx(other.argmin(0).numpy())
        assert (t == 1.0).tolist() == (other == 1.0).tolist() and (t <= t.T.T).tolist() == (other <= other).tolist()
        assert (t == None) is (other == None) is False   # noqa: E711


def test_pytorch_refuses_the_same():
    t, other = Tensor([1.0, 2.0]), torch.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(TypeError, match="requires a gradient"):
        np.array(t)
    with pytest.raises(RuntimeError, match="requires grad"):
        other.numpy()
