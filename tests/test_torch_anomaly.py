"""detect_anomaly against PyTorch's: which operation both blame for the first gradient of nan."""
import random
import re
import warnings

import pytest

import flatgrad
from flatgrad import Value

torch = pytest.importorskip("torch")

# What is planted: 0 times an infinite derivative. Which function of PyTorch's, and which operation, has it.
PLANTED = {"sqrt": (lambda x: x.sqrt(), "SqrtBackward0", "sqrt"), "power": (lambda x: x**0.5, "PowBackward0", "**0.5")}


def program(leaves, seed, plant):
    """A random program with it in it; always the same of a seed."""
    rng = random.Random(seed)
    nodes, count = list(leaves), rng.randrange(4, 25)
    at = rng.randrange(count)
    for k in range(count):
        x, y = rng.choice(nodes), rng.choice(nodes)
        nodes.append(rng.choice([lambda: x + y, lambda: x - y, lambda: x * y, x.tanh, x.sigmoid, lambda: x * 0.5])())
        if k == at:
            zero = x - x
            nodes.append(plant(zero) * 0.0 + nodes[-1])
    total = nodes[0] * 1.0
    for x in nodes[1:]:
        total = total + x
    return total


@pytest.mark.parametrize("name", PLANTED)
def test_both_blame_the_same_operation(name):
    plant, theirs, ours = PLANTED[name]
    for seed in range(100):
        numbers = [random.Random(seed + k).uniform(-1.0, 1.0) for k in range(3)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")   # it says that it is slow, and where the operation was
            watching = torch.autograd.detect_anomaly()
        with watching, pytest.warns(UserWarning):
            leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in numbers]
            with pytest.raises(RuntimeError) as caught:
                program(leaves, seed, plant).backward()
        blamed = re.search(r"Function '(\w+)' returned nan", str(caught.value))[1]
        with flatgrad.detect_anomaly(), pytest.raises(flatgrad.errors.AnomalyError) as caught:
            program([Value(x) for x in numbers], seed, plant).backward()
        error = caught.value
        assert (blamed, error.operation, error.phase) == (theirs, ours, "backward"), seed
        assert error.gradient == 0.0 and error.result != error.result and error.operands[0] == 0.0
