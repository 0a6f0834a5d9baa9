"""`python tests/checks tensors`: some programs, and that a wrong gradient is found and printed as a script."""
import pytest
from checks import tensors
from checks.limits import Limit
from test_shrink import assert_told, first_failure

import flatgrad

pytest.importorskip("torch")


def test_programs():
    check = tensors.Check()
    for seed in range(60):
        check.shape(10**6 + seed, runs=3)
    assert check.programs > 150
    assert "kernels" in tensors.run(Limit(count=2), type("Options", (), {"runs": 2}))


def test_a_wrong_gradient(monkeypatch):
    monkeypatch.setattr(flatgrad, "silu", lambda x: x * flatgrad.stop_gradient(flatgrad.sigmoid(x)))
    tensors.SIDES.loaded.clear()
    try:
        seed = first_failure(tensors.Check().shape)
        assert_told(tensors.shrunk(seed), monkeypatch)
    finally:
        tensors.SIDES.loaded.clear()


def test_what_programs_are_made_of():
    """Each kind of operation is in some program."""
    lines = " ".join(line for seed in range(400) for line in tensors.Drawn(seed).lines)
    for name in [*tensors.BINDINGS, ".T", ".reshape(", ".softmax(", ".log_softmax(", " @ ", ".detach()", "keepdims",
                 ":2]", "grads(", ".backward()"]:
        assert name in lines, name
