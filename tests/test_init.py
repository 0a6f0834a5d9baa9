"""Initialisers: what they draw, from what, and what they refuse. tests/test_torch_modules.py has PyTorch's side."""
import math
import random
import statistics
import subprocess
import sys

import numpy as np
import pytest

from flatgrad import errors
from flatgrad.nn.initialization import NAMES, fans, gain, source, weights

DRAWN = [name for name in NAMES if name not in ("zeros", "ones")]


def flat(rows):
    return [x for row in rows for x in row]


def test_uniform_is_what_micrograd_draws():
    random.seed(11)
    expected = [[random.uniform(-1, 1) for _ in range(3)] for _ in range(4)]
    random.seed(11)
    assert weights("uniform", (4, 3)) == expected
    assert weights("uniform", (4, 3), rng=11) == weights("uniform", (4, 3), rng=random.Random(11)) == expected


@pytest.mark.parametrize("name", DRAWN)
def test_a_seed_is_what_random_seed_gives(name):
    random.seed(3)
    expected = weights(name, (4, 3), "relu")
    state = random.getstate()
    assert weights(name, (4, 3), "relu", 3) == weights(name, (4, 3), "relu", np.int64(3)) == expected
    assert random.getstate() == state   # a generator of one's own leaves that of the module alone
    assert weights(name, (4, 3), "relu", 4) != expected


@pytest.mark.parametrize("name", DRAWN)
def test_numpys_generator_draws_one_by_one(name):
    """Row by row, and as many at once as before: two layers can share a generator."""
    rng = np.random.default_rng(3)
    first, second = weights(name, (2, 3), rng=rng), weights(name, (4, 3), rng=rng)
    rng = np.random.default_rng(3)
    together = [weights(name, (1, 3), rng=rng)[0] for _ in range(6)]
    if "xavier" not in name and "glorot" not in name:   # whose scale depends on the number of rows
        assert first + second == together
    assert all(type(x) is float for x in flat(first))
    rng = np.random.default_rng(3)
    singles = [rng.uniform(-1.0, 1.0) for _ in range(6)]
    assert flat(weights("uniform", (2, 3), rng=np.random.default_rng(3))) == singles


@pytest.mark.parametrize("rng", [random.Random(2), np.random.default_rng(2)], ids=["random", "numpy"])
@pytest.mark.parametrize("shape", [(100, 80), (40, 8, 5, 5)], ids=str)
@pytest.mark.parametrize("name", DRAWN)
def test_spread(name, shape, rng):
    """The standard deviation, within 5 of its own standard errors, and the bounds of uniform ones."""
    fan_in = math.prod(shape[1:])
    fan_out = shape[0] * math.prod(shape[2:])
    scale = 5 / 3
    expected = {"uniform": 1 / math.sqrt(3), "normal": 1.0, "kaiming": scale / math.sqrt(fan_in),
                "he": scale / math.sqrt(fan_in), "xavier": scale * math.sqrt(2 / (fan_in + fan_out)),
                "glorot": scale * math.sqrt(2 / (fan_in + fan_out))}[name.split("_")[0]]
    rows = weights(name, shape, "tanh", rng)
    assert [len(row) for row in rows] == [fan_in] * shape[0]
    numbers = flat(rows)
    error = math.sqrt((2.0 if "normal" in name else 0.8) / len(numbers)) / 2
    assert abs(statistics.pstdev(numbers) / expected - 1) < 5 * error
    assert abs(statistics.fmean(numbers)) < 5 * expected / math.sqrt(len(numbers))
    if "uniform" in name:
        assert 0.99 < max(map(abs, numbers)) / (expected * math.sqrt(3)) <= 1 + 1e-12


def test_a_wrong_spread_would_be_seen():
    with pytest.raises(AssertionError):
        test_spread("he_normal", (100, 80), type("Wider", (random.Random,), {
            "gauss": lambda self, mean, deviation: random.Random.gauss(self, mean, 1.1 * deviation)})(2))


@pytest.mark.parametrize("alias, name", [("he_uniform", "kaiming_uniform"), ("he_normal", "kaiming_normal"),
                                         ("glorot_uniform", "xavier_uniform"), ("glorot_normal", "xavier_normal")])
def test_aliases(alias, name):
    assert weights(alias, (3, 4), "relu", 1) == weights(name, (3, 4), "relu", 1)


def test_constants():
    assert weights("zeros", (2, 3)) == weights(0, (2, 3)) == weights(0.0, (2, 3)) == [[0.0] * 3] * 2
    assert weights("ones", (2, 3)) == weights(np.float64(1), (2, 3)) == [[1.0] * 3] * 2
    assert weights(-2, (1, 2)) == [[-2.0, -2.0]]
    rows = weights("zeros", (2, 2))
    rows[0][0] = 1.0
    assert rows[1] == [0.0, 0.0]


def test_arrays_and_callables():
    array = np.arange(6).reshape(2, 3)
    assert weights(array, (2, 3)) == weights(array.tolist(), (2, 3)) == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    kernels = np.arange(12).reshape(2, 3, 2)
    assert weights(kernels, (2, 3, 2)) == weights(kernels.reshape(2, 6), (2, 3, 2)) == kernels.reshape(2, 6).tolist()
    seen = []

    def init(shape, rng):
        seen.append((shape, rng))
        return [[rng.uniform(0, 1) for _ in range(shape[1])] for _ in range(shape[0])]

    drawn = weights(init, (2, 3), rng=5)
    rng = random.Random(5)
    assert flat(drawn) == [rng.uniform(0, 1) for _ in range(6)]
    assert weights(init, (2, 3)) != drawn
    assert seen[0][0] == (2, 3) and isinstance(seen[0][1], random.Random) and seen[1][1] is random


@pytest.mark.parametrize("name", NAMES)
def test_no_inputs_and_no_outputs(name):
    assert weights(name, (3, 0)) == [[], [], []]
    assert weights(name, (0, 3)) == weights(name, (0, 0)) == []


def test_gains():
    assert gain("linear") == gain(None) == gain("sigmoid") == gain("softmax") == gain(math.tanh) == 1.0
    assert gain("tanh") == 5 / 3
    assert gain("leaky_relu") == math.sqrt(2 / (1 + 0.01**2))
    for name in ("relu", "elu", "gelu", "gelu_tanh", "silu", "softplus"):
        assert gain(name) == math.sqrt(2)
    assert weights("he_normal", (2, 2), "relu", 1)[0][0] == pytest.approx(
        math.sqrt(2) * weights("he_normal", (2, 2), "linear", 1)[0][0], rel=1e-15)


def test_fans():
    assert fans((3, 2)) == (2, 3)
    assert fans((8, 3, 5)) == (15, 40)
    assert fans((8, 3, 5, 4)) == (60, 160)


def test_source():
    assert source(None) is random is source(random)
    for rng in (random.Random(1), np.random.default_rng(1)):
        assert source(rng) is rng


@pytest.mark.parametrize("arguments, error, message", [
    (("kaimin_uniform", (2, 2)), errors.UnknownNameError, r"init: .*did you mean 'kaiming_uniform'\?"),
    (("he", (2, 2)), errors.UnknownNameError, "init: expected one of 'uniform', .*got 'he'"),
    (("uniform", (2, 2), "rely"), errors.UnknownNameError, r"activation: .*did you mean 'relu'\?"),
    (("uniform", (2, 2), 3), errors.ArgumentTypeError, "activation: expected one of .*got 3"),
    ((math.nan, (2, 2)), errors.ArgumentError, "init: expected a finite number, got nan"),
    ((math.inf, (2, 2)), errors.ArgumentError, "init: expected a finite number, got inf"),
    ((True, (2, 2)), errors.ArgumentTypeError, "init: expected a name, .*got True"),
    ((None, (2, 2)), errors.ArgumentTypeError, "init: expected a name, .*got None"),
    (([[1.0, 2.0]], (2, 2)), errors.ShapeError, r"init: expected the shape \(2, 2\), got \(1, 2\)"),
    (([[1.0], [2.0, 3.0]], (2, 2)), errors.ArgumentTypeError, "init: expected an array"),
    (([[1.0, math.nan], [2.0, 3.0]], (2, 2)), errors.DataError, r"init\[0, 1\]: expected a finite number, got nan"),
    ((lambda shape, rng: np.zeros((2, 3)), (3, 2)), errors.ShapeError,
     r"init\(\): expected the shape \(3, 2\), got \(2, 3\)"),
    ((lambda shape, rng: np.full(shape, math.inf), (1, 2)), errors.DataError, r"init\(\)\[0, 0\]: .*got inf"),
    ((lambda shape, rng: "x", (1, 2)), errors.ArgumentTypeError, r"init\(\): expected an array"),
    (("uniform", (2,)), errors.ShapeError, r"shape: expected \(nout, nin\), got \(2,\)"),
    (("uniform", 2), errors.ArgumentTypeError, "shape: expected a tuple of ints, got 2"),
    (("uniform", (2, -1)), errors.ArgumentError, r"shape\[1\]: expected an int, 0 or more, got -1"),
    (("uniform", (2, 2), "relu", "x"), errors.ArgumentTypeError, "rng: expected None, an int, .*got 'x'"),
    (("uniform", (2, 2), "relu", 1.0), errors.ArgumentTypeError, "rng: expected None, an int, .*got 1.0"),
    (("uniform", (2, 2), "relu", True), errors.ArgumentTypeError, "rng: expected None, an int, .*got True"),
    (("uniform", (2, 2), "relu", -1), errors.ArgumentError, "rng: expected an int, 0 or more, got -1"),
])
def test_bad_arguments(arguments, error, message):
    state = random.getstate()
    with pytest.raises(error, match=message):
        weights(*arguments)
    assert random.getstate() == state


def test_micrograds_programs_do_without_numpy():
    code = ("import sys; from flatgrad import nn; from flatgrad.nn import *; from flatgrad.nn import initialization as i; "
            "MLP(2, [3, 1]); i.weights('he_normal', (2, 3), 'relu', 1); print('numpy' in sys.modules, 'Dropout' in dir(nn))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "False True\n", done.stderr
