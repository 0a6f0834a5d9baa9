"""Programs of batches against one program call for each sample: operands of every layout, faults, and positions."""
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from test_stops import record, slow

import flatgrad
from flatgrad import Tensor, Value, _core, nn

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

FROZEN = Value(7.0)
FROZEN.requires_grad = False
SAMPLES = 5   # of 8 lanes, so that some have none
U = Tensor(np.linspace(0.5, 1.5, 6).reshape(2, 3))
C = Tensor(np.arange(1.0, 7.0).reshape(2, 3) / 4.0, requires_grad=False)


def program_of(f, *others):
    """Of a sample, six numbers that are a matrix, and of whatever else f takes."""
    def flat(t, *others):
        y = f(t.reshape(2, 3), *others)
        return y.reshape(-1) if isinstance(y, Tensor) else y
    return record(flat, Tensor(np.ones(6)), *others)


CASES = {
    "reversed rows and a constant": lambda t: (t[::-1] * 2.0).sin() + t * C[::-1],
    "a uniform matrix with a gradient": lambda t: (t[:, ::-1] * U).tanh() * 3.0,
    "transposed": lambda t: (t.T @ U).tanh() + t.T @ t,
    "a product of columns": lambda t: t[:, :1].T @ U[:, :1],
    "a product of a transposed": lambda t: U.T[:, :1] * (U.T @ t)[:, :1],
    "the largest of uniform and varying": lambda t: flatgrad.max([t[0, 0], U[1, 2], t[1, 2]]) + t.max(1) + U.max(),
    "the largest of columns": lambda t: t.T.max(1) + (t * 0.0 + 1.0).max(),
    "cross entropy with uniform logits": lambda t: flatgrad.losses.cross_entropy(
        flatgrad.stack([t[0], U[1], t[1] * U[0]]), [2, 0, 1]),
    "softmax of columns": lambda t: flatgrad.softmax(t.T, 1) + flatgrad.log_softmax(t.T[::-1], 1),
    "logsumexp of all": lambda t: t.logsumexp() + t[:, ::-1].logsumexp(1).sum() + t.T.logsumexp(),
    "means of parts": lambda t: t[:, ::2].mean() + t[::-1].sum(1).sum() + t.mean(0).sum(),
    "clipped between": lambda t: flatgrad.clip(t[::-1], 0.3, 1.1) + flatgrad.where(U, t, C),
    "where, with a number": lambda t: flatgrad.where(C, t, 2.0) + flatgrad.where(C, t, U[0, 1]) * U ** t,
    "where, with a row": lambda t: flatgrad.where(U - 1.0, t, U[0]) + flatgrad.where(U - 1.0, t[0], t),
    "listed elements": lambda t: flatgrad.dot([t[0, 0], t[1, 2], t[0, 1]], [U[0, 0], t[1, 1], U[1, 1]]) + flatgrad.max(
        [U[0, 0], t[1, 2], t[0, 0]]),
    "cross entropy of listed logits": lambda t: flatgrad.losses.cross_entropy(
        [[t[0, 0], U[0, 0], U[0, 1]], [U[1, 1], t[1, 2], t[0, 1]]], [2, 0]),
    "a column and a matrix": lambda t: t[:, :1] * t + flatgrad.where(t[:, :1], t, 2.0),
    "taken from what has a gradient and what has none": lambda t: flatgrad.take([t[0, 0], FROZEN, t[0, 1]], [1, 2, 0]) * t[0],
    "a layer without operands": lambda t: flatgrad.linear([], [[], []], [t[0, 0], t[1, 1]])[0] * t,
    "a layer": lambda t: flatgrad.linear(t[:, ::-1], U, [U[0, 0], t[0, 1]]).relu(),
}


@pytest.mark.parametrize("samples", [1, SAMPLES])
@pytest.mark.parametrize("single", [False, True], ids=["doubles", "floats"])
@pytest.mark.parametrize("name", CASES)
def test_each_sample_is_computed_alone(name, single, samples):
    check_each_sample(CASES[name], single, samples)


def check_each_sample(f, single, samples):
    rng = np.random.default_rng(7)
    t = Tensor(np.round(rng.uniform(0.2, 2.0, (samples, 6)), 2))
    program = program_of(f)
    mapped = program.mapped(samples, [True], 0, single)
    U.grad = 0.0
    found, = mapped([t])
    weight = rng.uniform(1.0, 2.0, found.shape)
    (found * weight).sum().backward()
    of_all, of_uniform = t.grad.copy(), U.grad.copy()
    U.grad = 0.0
    close = {"rtol": 2e-4, "atol": 1e-5} if single else {"rtol": 1e-11, "atol": 1e-13}
    for k in range(samples):
        row = Tensor(t.numpy()[k])
        expected, = program([row])
        np.testing.assert_allclose(found.numpy()[k], expected.data, **close)
        one = expected * weight[k]
        (one.sum() if isinstance(one, Tensor) else one).backward()
        np.testing.assert_allclose(of_all[k], row.grad, **close)
    np.testing.assert_allclose(of_uniform, U.grad, **close)
    U.grad = 0.0


@pytest.mark.parametrize("single", [False, True], ids=["doubles", "floats"])
@pytest.mark.parametrize("at", [(0, 0), (3, 5), (4, 2)])
@pytest.mark.parametrize("f", [lambda t: t[::-1].log(), lambda t: (t * C).sqrt(), lambda t: t[:, ::-1] ** 0.5])
def test_the_fault_is_told(f, at, single):
    numbers = np.linspace(0.5, 1.5, SAMPLES * 6).reshape(SAMPLES, 6)
    numbers[at] = -3.0
    program = program_of(f)
    with pytest.raises(ValueError) as expected:
        program([Tensor(numbers[at[0]])])
    with pytest.raises(ValueError) as found:
        program.mapped(SAMPLES, [True], 0, single)([Tensor(numbers)])
    assert str(found.value) == str(expected.value)
    numbers[at] = 1.0
    program.mapped(SAMPLES, [True], 0, single)([Tensor(numbers)])


@pytest.mark.skipif(not sys.platform.startswith("linux") or "PYTHONMALLOC" in os.environ,
                    reason="asks Linux how large the process is, in which sanitizers keep what is free")
def test_memory_of_samples_is_given_back():
    def f(t):
        for _ in range(20):
            t = t.sin()
        return t.sum()
    program, t, pages = record(f, Tensor(np.ones(1000))), Tensor(np.ones((16, 1000))), []
    for _ in range(60):
        program.mapped(16, [True])([t])   # of more than a megabyte
        pages.append(int(Path("/proc/self/statm").read_text().split()[0]))
    assert (pages[-1] - pages[9]) * os.sysconf("SC_PAGE_SIZE") < 25e6


@pytest.mark.parametrize("single", [False, True], ids=["doubles", "floats"])
@pytest.mark.parametrize("at", [(0, 0), (3, 5), (4, 2)])
def test_the_fault_of_a_uniform_base(at, single):
    """In the backward pass, where the exponents have changed, it is no error."""
    base = Tensor(-C.numpy(), requires_grad=False)
    program = program_of(lambda t: base ** t).mapped(SAMPLES, [True], 0, single)
    numbers = np.ones((SAMPLES, 6))
    t = Tensor(numbers)
    y, = program([t])
    numbers[at] = 0.5
    with pytest.raises(ValueError, match=rf"-{C.numpy().reshape(-1)[at[1]]} \*\* 0.5"):
        program([Tensor(numbers)])
    t.data = numbers
    y.sum().backward()
    assert np.isnan(t.grad).all()   # the derivative by the exponent of a negative base


def test_one_sample_of_floats_by_itself():
    f = flatgrad.compile(lambda x: (x * U[0]).tanh().sum(), dtype="float32")
    value, slope = flatgrad.value_and_grad(f, in_axes=0)(np.array([[0.5, 1.0, 2.0]]))
    x = np.array([0.5, 1.0, 2.0]) * U.numpy()[0]
    np.testing.assert_allclose(np.sum(value), np.tanh(x).sum(), rtol=1e-6)
    np.testing.assert_allclose(np.reshape(slope, -1), U.numpy()[0] * (1.0 - np.tanh(x) ** 2), rtol=1e-5)


@pytest.mark.parametrize("single", [False, True], ids=["doubles", "floats"])
def test_the_largest_with_nan(single):
    t = Tensor(np.array([[1.0, np.nan, 3.0], [4.0, 2.0, 4.0], [np.nan, np.nan, 0.0]]))
    program = record(lambda t: t.max(), Tensor(np.ones(3)))
    y, = program.mapped(3, [True], 0, single)([t])
    np.testing.assert_array_equal(y.numpy(), [np.nan, 4.0, np.nan])
    y.sum().backward()
    np.testing.assert_array_equal(t.grad, [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


LAYER = nn.Layer(2, 2, activation="tanh", rng=1)

STEPS = {
    "a layer": lambda c, x: (flatgrad.linear(c, U[:, :2], U[1, :2]), None),
    "a layer with an activation": lambda c, x: (flatgrad.linear(c, U[:, :2]).tanh() * x, c[0]),
    "sums of rows": lambda c, x: ((flatgrad.stack([c, c * x]).sum(1) * 0.25).sin(), c.mean()),
    "means of rows": lambda c, x: (flatgrad.stack([c * U[0, 0], c]).mean(1).cos() + x, c.sum()),
    "changing places": lambda c, x: (flatgrad.stack([c[1], c[0]]) * 1.0, c[0] * x),
    "the sample is the next": lambda c, x: ([x, c[0]], c[1]),
    "the carries change places": lambda c, x: ([c[1], c[0]], c[0] * x + c[1]),
    "a large layer": lambda c, x: (flatgrad.linear(flatgrad.linear(c, np.ones((9, 2))), np.ones((9, 9)) / 90.0)[:2], c[0]),
    "long sums": lambda c, x: (flatgrad.stack([c * x] * 40).T.sum(1) / 40.0, flatgrad.stack([c] * 40).mean()),
    "a fused layer": lambda c, x: (LAYER(c), c[1]),
    "the same for all steps": lambda c, x: ((U[0, 0].log() + U[0, 1] * c).sin(), x * U[1, 1].exp()),
    "many values": lambda c, x: (slow(c[0], 33_000) * c, None),
}


def scanning(name):
    def f(t):
        last, path = flatgrad.scan(STEPS[name], t[0, :2] if "change" not in name and "next" not in name
                                   else [t[0, 0], t[0, 1]], t[1])
        total = last.sum() if isinstance(last, Tensor) else last[0] * 2.0 + last[1]
        return total if path is None else total + (path * U[0]).sum()
    return f


@pytest.mark.parametrize("single", [False, True], ids=["doubles", "floats"])
@pytest.mark.parametrize("name", STEPS)
def test_scans_in_lanes(name, single):
    check_each_sample(scanning(name), single, 11)


@pytest.mark.parametrize("f", [*(scanning(name) for name in STEPS if name != "many values"),
                               CASES["listed elements"]])
def test_memory_that_fails(f):
    program, living, points = program_of(f), _core._live_programs(), 0
    for n in range(300):
        _core._testing(fail_after=n)
        try:
            mapped = program.mapped(11, [True], 8)
        except MemoryError:
            assert _core._live_programs() == living
            points += 1
            continue
        finally:
            _core._testing(fail_after=-1)
        break
    assert points > 20 and len(mapped([np.ones((11, 6))])) == 1


@pytest.mark.parametrize("at", [0, 6, 10])
def test_a_scan_that_fails_in_a_lane(at):
    """Forward it is an error; where data have changed since, the backward pass goes on with nan, for that sample."""
    program = program_of(lambda t: flatgrad.scan(lambda c, x: ((c + x).sqrt(), None), t[0, 0], t[1])[0])
    numbers = np.linspace(0.5, 1.5, 66).reshape(11, 6)
    t, mapped = Tensor(numbers), program.mapped(11, [True])
    y, = mapped([t])
    y.sum().backward()
    expected, t.grad = t.grad.copy(), np.zeros((11, 6))
    bad = numbers.copy()
    bad[at, 4] = -9.0
    with pytest.raises(ValueError, match=r"sqrt\(-"):
        mapped([bad])
    y, = mapped([t])
    t.data = bad
    y.sum().backward()
    np.testing.assert_allclose(np.delete(t.grad, at, 0), np.delete(expected, at, 0), rtol=1e-12)
    assert np.isnan(t.grad[at]).any()


def test_what_is_the_same_for_all_steps_and_fails():
    w = Value(2.0)
    program = program_of(lambda t: flatgrad.scan(lambda c, x: (c * w.log() + x, None), t[0, 0], t[1])[0])
    mapped = program.mapped(11, [True])
    t = Tensor(np.ones((11, 6)))
    mapped([t])
    w.data = -2.0
    with pytest.raises(ValueError, match=r"log\(-2.0\)"):
        mapped([t])
    w.data = 2.0
    mapped([t])


def test_two_scans_of_different_widths():
    def f(t):
        return flatgrad.scan(lambda c, _: (c.sin(), None), t[0, 0], length=3)[0] * flatgrad.scan(
            lambda c, _: (slow(c, 60), None), t[0, 1], length=900)[0]
    check_each_sample(f, False, 70)


def taken(t, p):
    return flatgrad.take(t, p) * 2.0


def picked(t, p):
    return flatgrad.pick(t, p) * 2.0


def of_constants(t, p):
    return flatgrad.take(C, p) * t[0, 0]


def by_hand(f, t, p):
    p = p.astype(int)
    return (t[p] if f is taken else t[np.arange(2), p] if f is picked else C.numpy()[p] / 2.0 * t[0, 0]) * 2.0


@pytest.mark.parametrize("single", [False, True], ids=["doubles", "floats"])
@pytest.mark.parametrize("f", [taken, picked, of_constants])
def test_positions_of_each_sample(f, single):
    t, p = Tensor(np.linspace(0.5, 2.0, SAMPLES * 6).reshape(SAMPLES, 6)), Tensor(np.array(
        [[0, 1], [1, 1], [-1, 0], [-2, -1], [1, 0]], float))
    program = program_of(f, Tensor([0.0, 0.0])).mapped(SAMPLES, [True, True], 0, single)
    found, = program([t, p])
    for k in range(SAMPLES):
        expected = by_hand(f, t.numpy()[k].reshape(2, 3), p.numpy()[k])
        np.testing.assert_allclose(found.numpy()[k], expected.reshape(-1), rtol=2e-7)
    found.sum().backward()
    slopes = np.zeros((SAMPLES, 2, 3))
    for k in range(SAMPLES):
        at = p.numpy()[k].astype(int)
        if f is of_constants:
            slopes[k, 0, 0] = C.numpy()[at].sum()
        else:
            np.add.at(slopes[k], at if f is taken else (np.arange(2), at), 2.0)
    np.testing.assert_allclose(t.grad.reshape(slopes.shape), slopes, rtol=2e-7)
    assert not p.grad.any()
    t.grad = np.zeros_like(t.grad)
    again, = program([t, p])
    again[3].sum().backward()   # of one sample's results
    np.testing.assert_allclose(t.grad.reshape(slopes.shape)[3], slopes[3], rtol=2e-7)
    assert not np.delete(t.grad, 3, 0).any()
    t.grad = np.zeros_like(t.grad)
    again, = program([t, p])
    again.reshape(-1)[1].backward()   # of one of its results
    assert 0 < np.count_nonzero(t.grad) <= 3
    assert np.count_nonzero(t.grad[1:]) == 0


@pytest.mark.parametrize("single", [False, True], ids=["doubles", "floats"])
@pytest.mark.parametrize("f", [taken, picked])
@pytest.mark.parametrize("wrong", [-4.0, 3.0, 0.5, np.nan])
def test_positions_that_are_none(f, wrong, single):
    """They are an error, and of data that change after the call nothing is taken."""
    numbers = np.zeros((SAMPLES, 2))
    t, p = Tensor(np.linspace(0.5, 2.0, SAMPLES * 6).reshape(SAMPLES, 6)), Tensor(numbers)
    program = program_of(f, Tensor([0.0, 0.0])).mapped(SAMPLES, [True, True], 0, single)
    found, = program([t, p])
    numbers[2, 1] = wrong
    with pytest.raises((IndexError, ValueError), match=f"{'nan' if np.isnan(wrong) else wrong:}".rstrip("0").rstrip(".")):
        program([t, Tensor(numbers)])
    p.data = numbers
    found.sum().backward()
    slopes = np.zeros((SAMPLES, 2, 3))
    for k in range(SAMPLES):
        for j in range(2):
            if (k, j) != (2, 1):
                slopes[k, 0 if f is taken else j] += 2.0 * (np.ones(3) if f is taken else np.eye(3)[0])
    found = t.grad.reshape(slopes.shape)
    np.testing.assert_allclose(np.delete(found, 2, 0), np.delete(slopes, 2, 0), rtol=2e-7)


def test_too_many_operands_or_results():
    """What an id cannot count is refused before any memory is taken."""
    most = (1 << 30) - 1
    five = Tensor([1.0] * 5)
    with pytest.raises(MemoryError):
        record(lambda t: t.sum(), five).mapped(most, [True])
    with pytest.raises(MemoryError):
        record(lambda x: [x * 2.0, x * 3.0, x * 4.0, x * 5.0, x * 6.0], Value(1.0)).mapped(most, [False])
    step = flatgrad.loops.Step("scan", lambda c, x: (c * x[0], None), Value(0.0), five).program
    with pytest.raises(MemoryError):
        step.scanned(most, 1, 1)
    step = flatgrad.loops.Step("scan", lambda c, x: (c * 0.5, [c, c * 2.0, c * 3.0, c * 4.0, c * 5.0]), Value(0.0),
                               None).program
    with pytest.raises(MemoryError):
        step.scanned(most, 1, 0)
