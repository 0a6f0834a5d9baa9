"""Differential checks: short forms, and that they find a wrong gradient and print it as a script of a few lines."""
import numpy as np
import pytest
from checks import compiled, graphs, shrink, slices, written
from checks.limits import Limit

import flatgrad

SECONDS = 20.0   # for one program to shrink, at most


def first_failure(check, most=400):
    """The first seed that fails."""
    for seed in range(most):
        try:
            check(seed)
        except AssertionError:
            return seed
    raise LookupError("none fails")


def fails(script):
    try:
        exec(compile(script, "<script>", "exec"), {})
    except AssertionError:
        return True
    return False


def assert_told(script, monkeypatch, lines=10):
    """The script is short, runs, fails as long as the fault is there, and passes without."""
    assert len(script.splitlines()) <= lines, script
    assert fails(script), script
    monkeypatch.undo()
    assert not fails(script), script


# ---- what is found ----

def test_a_wrong_rule_of_micrograd(monkeypatch):
    engine = pytest.importorskip("micrograd.engine")

    def relu(self):   # whose derivative is 1 everywhere
        out = engine.Value(0 if self.data < 0 else self.data, (self,), "ReLU")

        def backward():
            self.grad += out.grad
        out._backward = backward
        return out

    monkeypatch.setattr(engine.Value, "relu", relu)
    graphs.SIDES.loaded.clear()
    seed = first_failure(graphs.Check().shape)
    assert_told(graphs.shrunk(seed), monkeypatch)


def test_a_last_bit(monkeypatch):
    """What only the comparison bit for bit finds."""
    engine = pytest.importorskip("micrograd.engine")
    multiply = engine.Value.__mul__

    def wrong(self, other):
        out = multiply(self, other)
        rule = out._backward

        def backward():
            grad = out.grad
            out.grad = grad * (1 + 2**-52)
            rule()
            out.grad = grad
        out._backward = backward
        return out

    monkeypatch.setattr(engine.Value, "__mul__", wrong)
    seed = first_failure(graphs.Check().shape)
    assert_told(graphs.shrunk(seed), monkeypatch)


def test_a_wrong_second_derivative(monkeypatch):
    monkeypatch.setattr(flatgrad, "silu", lambda x: x * flatgrad.stop_gradient(flatgrad.sigmoid(x)))
    seed = first_failure(written.Check().shape)
    assert_told(written.shrunk(seed), monkeypatch)


def test_a_wrong_written_gradient(monkeypatch):
    gradients = flatgrad.gradients

    def wrong(*args, create_graph=False, **options):
        found = gradients(*args, create_graph=create_graph, **options)
        return [g * 2.0 for g in found] if create_graph else found

    monkeypatch.setattr(flatgrad, "gradients", wrong, raising=False)
    seed = first_failure(slices.Check().shape)
    assert_told(slices.shrunk(seed), monkeypatch)


def test_a_wrong_program(monkeypatch):
    def wrong(f=None, **options):
        return lambda xs, t: f([xs[0].detach(), *xs[1:]], t)

    monkeypatch.setattr(flatgrad, "compile", wrong, raising=False)
    for seed in range(50):
        script = compiled.shrunk(seed)
        if not script.startswith("#"):
            break
    assert_told(script, monkeypatch, lines=25)


def test_an_unpaired_exception_is_a_failure(monkeypatch):
    engine = pytest.importorskip("micrograd.engine")

    def refused(self, k):
        raise OverflowError("none today")

    monkeypatch.setattr(engine.Value, "__pow__", refused)
    with pytest.raises(AssertionError, match="OverflowError"):
        for seed in range(50):
            graphs.Check().shape(seed)


# ---- how programs shrink ----

def test_lines_go_and_expressions_get_simpler():
    lines = ["a = 1.25", "b = a * 3.5", "c = b + 7.0", "d = max([b, c, 2.0], key=abs) + a", "e = d - c"]

    def fails(lines):
        space = {}
        try:
            exec("\n".join(lines), space)
        except Exception:
            return False
        return any(isinstance(x, float) and x > 3 for name, x in space.items())

    assert shrink.shrink(lines, fails) in (["b = 3.5"], ["c = 7.0"], ["b = 4.0"])
    assert shrink.shrink(["a = 1"], lambda lines: False) == ["a = 1"]


def test_a_program_that_does_not_fail_is_told_as_it_is():
    assert shrink.script(["v0 = Value(1.0)"], graphs.SIDES).startswith("# the lines alone do not fail:\nv0 = ")


# ---- some seconds of each ----

def test_graphs():
    pytest.importorskip("micrograd")
    check = graphs.Check()
    for seed in range(40):
        check.shape(10**6 + seed, runs=10)
    assert check.graphs == 400 and check.raised < 80 and check.exact > 0.6 * check.defined and check.looked > 30


@pytest.mark.parametrize("part", [slices, written])
def test_short_forms(part):
    told = part.run(Limit(count=25, seed=10**6), None)
    assert "seeds 1000000 to 1000024" in told


def test_training_loops():
    for seed in range(6):
        assert compiled.check_training(seed) == 2


def test_loops_and_rules_and_random_numbers():
    kinds = ["fori_loop(", "scan(", "ruled(", "grouped(", "random."]
    lines = [line for seed in range(1, 81, 2) for several in compiled.Function(seed, compiled.MORE).lines
             for line in several]
    assert all(any(kind in line for line in lines) for kind in kinds)
    for seed in (1, 3, 5, 7):
        assert compiled.check(seed, [(), compiled.STEPS])
    assert np.isfinite(compiled.Function(3, compiled.MORE).matrix).all()
