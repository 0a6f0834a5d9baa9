"""`python tests/checks stateful`: some runs, and that a mistake of the tape is found."""
import pytest

pytest.importorskip("hypothesis")

from checks import stateful  # noqa: E402


def test_some_runs():
    stateful.check(1, examples=20)


def test_a_wrong_model_is_found(monkeypatch):
    monkeypatch.setitem(stateful.OPERATIONS, "+", (stateful.OPERATIONS["+"][0], lambda z, x, y: (1.0, 2.0)))
    with pytest.raises(AssertionError):
        for seed in range(20):   # which runs hypothesis thinks of depends on its version
            stateful.check(seed, examples=20, shrink=False)
