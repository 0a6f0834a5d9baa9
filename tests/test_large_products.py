"""Products that are made in blocks: in the results of any shape, and with pauses between the blocks.

Between blocks Python's signal handlers run, and a step that was stopped goes on where it was. The oracle is NumPy.
"""
import signal

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor

# Few terms in many results; columns in parts; rows in parts; terms in parts.
SHAPES = [(900, 900, 250), (96, 8200, 300), (5000, 100, 450), (40, 60, 90_000)]


class Handler:
    """Counts signals, which come every few milliseconds."""

    def __enter__(self):
        self.count = 0
        self.old = signal.signal(signal.SIGALRM, self.note)
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        return self

    def __exit__(self, *exception):
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, self.old)

    def note(self, number, frame):
        self.count += 1


def numbers(rng, *shape):
    return rng.integers(-3, 4, size=shape).astype(float)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
@pytest.mark.parametrize("wanted", ["all", "weights", "x"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layers_in_blocks(shape, wanted):
    """All numbers are small and whole, so sums in any order are the same."""
    m, n, k = shape
    rng = np.random.default_rng(m)
    x, w, b, g = numbers(rng, m, k), numbers(rng, n, k), numbers(rng, n), numbers(rng, m, n)
    operands = [Tensor(x, requires_grad=wanted != "weights"), Tensor(w, requires_grad=wanted != "x"), Tensor(b)]
    with Handler() as handler:
        z = flatgrad.linear(*operands)
        (z * g).sum().backward()
    np.testing.assert_array_equal(z.data, x @ w.T + b)
    for operand, expected in zip(operands, (g @ w, g.T @ x, g.sum(axis=0)), strict=True):
        if operand.requires_grad:
            np.testing.assert_array_equal(operand.grad, expected)
    assert handler.count > 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
@pytest.mark.parametrize("wanted", ["all", "weights"])
def test_some_of_the_results(wanted):
    """Most rows and columns are reached, others are not."""
    m, n, k = 900, 900, 400
    rng = np.random.default_rng(5)
    x, w, b, g = numbers(rng, m, k), numbers(rng, n, k), numbers(rng, n), numbers(rng, m, n)
    g[::3] = 0.0
    g[1, :7] = 0.0
    operands = [Tensor(x, requires_grad=wanted != "weights"), Tensor(w), Tensor(b)]
    with Handler() as handler:
        z = flatgrad.linear(*operands)
        rows = np.flatnonzero(g.any(axis=1))
        (z[rows[1:]] * g[rows[1:]]).sum().backward()
    g[rows[0]] = 0.0
    for operand, expected in zip(operands, (g @ w, g.T @ x, g.sum(axis=0)), strict=True):
        if operand.requires_grad:
            np.testing.assert_array_equal(operand.grad, expected)
    assert handler.count > 0
