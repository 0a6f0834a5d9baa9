"""examples/scalar_gpt.py: both engines train alike, it prints what it should, errors are one line."""
import importlib
import math
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import flatgrad

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
pytestmark = pytest.mark.skipif(not (EXAMPLES / "scalar_gpt.py").exists(),
                                reason="examples/ is not part of an installed package")

NAMES = ["abba", "bo", "cab", "ada"]


def run(*arguments):
    return subprocess.run([sys.executable, str(EXAMPLES / "scalar_gpt.py"), *map(str, arguments)],
                          capture_output=True, text=True, timeout=300)


@pytest.fixture
def names(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("\n".join(NAMES) + "\n\n")
    return file


@pytest.fixture
def module(monkeypatch):
    """Imports a module of examples/ by name."""
    monkeypatch.syspath_prepend(EXAMPLES)
    yield importlib.import_module
    for name in "scalar_gpt", "pure_value":
        sys.modules.pop(name, None)


@pytest.fixture
def engines(module):
    load_engine = module("scalar_gpt").load_engine
    return [load_engine("flatgrad"), load_engine("python")]


def test_both_engines_train_alike(module, engines):
    scalar_gpt = module("scalar_gpt")
    documents = [[4, 0, 1, 1, 0, 4], [4, 2, 4], [4, 3, 0, 2, 4]]
    runs = []
    for engine in engines:
        model = scalar_gpt.GPT(engine, 5, random.Random(1))
        losses = [loss.data for loss in scalar_gpt.train(model, documents, 9)]
        runs.append(losses + [p.data for p in model.parameters()])
    assert runs[0] == pytest.approx(runs[1], rel=0, abs=1e-9)
    assert runs[0][0] == pytest.approx(math.log(5), abs=0.5)   # knows nothing yet
    assert len(set(runs[0][:9])) == 9


def test_engines_are_what_they_say(engines):
    """That the numbers agree would not tell if both engines were the same one."""
    fused, plain = engines
    assert fused.Value is flatgrad.Value
    for name in "dot", "matvec", "softmax", "take":
        assert getattr(fused, name) is getattr(flatgrad, name)
    assert fused.Adam is flatgrad.optim.Adam
    for name in "Value", "dot", "matvec", "softmax", "take", "Adam":
        assert getattr(plain, name).__module__ == "pure_value"


def test_linear_layers_are_fused(module, engines):
    """With flatgrad the graph has no products and sums but those that the model writes as scalars,
    and a matrix times a vector is one instruction: its results, and a node that computes them."""
    scalar_gpt = module("scalar_gpt")
    engine = engines[0]
    model = scalar_gpt.GPT(engine, 5, random.Random(1))
    x = model.token[0]
    for product, nodes in ((lambda: engine.dot(x, x), 1),
                           (lambda: engine.matvec(model.up, x), 64 + 1)):
        before = flatgrad.stats()["nodes"]
        result = product()
        assert flatgrad.stats()["nodes"] - before == nodes
        del result

    tokens = [4, 0, 1, 1, 0, 4]
    loss = model.loss(tokens)
    nodes = {loss}
    stack = [loss]
    while stack:
        new = set(stack.pop()._prev) - nodes
        nodes |= new
        stack += new
    counts = Counter(node._op for node in nodes)
    positions, width = len(tokens) - 1, scalar_gpt.WIDTH
    # Per position three sums of two vectors, and an epsilon in three rmsnorms; then the mean.
    assert counts["+"] == positions * (3 * width + 3) + positions - 1
    # The query is scaled, and three vectors are normalised.
    assert counts["*"] == positions * (width + 3 * width)


def test_parts_of_the_engines_are_alike(engines):
    """dot, matvec and softmax: values, and gradients of a sum with a weight for each."""
    rng = random.Random(5)
    numbers = [[rng.uniform(-2.0, 2.0) for _ in range(4)] for _ in range(4)]
    runs = []
    for engine in engines:
        *matrix, x = [[engine.Value(number) for number in row] for row in numbers]
        y = engine.matvec(matrix, x)
        results = [*y, *engine.softmax(y), engine.dot(matrix[0], x), engine.dot(x, x)]
        loss = engine.Value(0.0)
        for k, result in enumerate(results, 1):
            loss = loss + result * k
        loss.backward()
        runs.append([r.data for r in results] + [v.grad for row in (*matrix, x) for v in row])
    assert runs[0] == pytest.approx(runs[1], rel=1e-12, abs=1e-12)
    assert runs[1][:3] == pytest.approx([math.fsum(a * b for a, b in zip(row, numbers[3]))
                                         for row in numbers[:3]], rel=1e-12)
    assert math.fsum(runs[1][3:6]) == pytest.approx(1.0, rel=1e-12)
    assert runs[1][3] / runs[1][4] == pytest.approx(math.exp(runs[1][0] - runs[1][1]), rel=1e-12)


def test_adam_is_the_textbooks(module, engines):
    """Three steps on gradients that are known: model.loss is a plain weighted sum."""
    scalar_gpt = module("scalar_gpt")

    class Linear:
        def __init__(self, engine):
            self.engine = engine
            self.p = [engine.Value(1.0), engine.Value(-2.0)]

        def parameters(self):
            return self.p

        def loss(self, tokens):
            return self.p[0] * tokens[0] + self.p[1] * tokens[1]

    documents = [[3.0, -1e-7], [-1.0, 2.0], [0.0, 1.0]]
    for engine in engines:
        model = Linear(engine)
        list(scalar_gpt.train(model, documents, 3))
        for k, p in enumerate([1.0, -2.0]):
            m = v = 0.0
            for t in 1, 2, 3:
                g = documents[t - 1][k]
                m = 0.85 * m + 0.15 * g
                v = 0.99 * v + 0.01 * g * g
                rate = 0.01 * (1 - (t - 1) / 3)
                p -= rate * (m / (1 - 0.85**t)) / (math.sqrt(v / (1 - 0.99**t)) + 1e-8)
            assert model.p[k].data == pytest.approx(p, rel=1e-12)
            assert model.p[k].grad == documents[2][k]   # of the last step alone


def test_gradients_are_those_of_finite_differences(module, engines):
    scalar_gpt = module("scalar_gpt")
    tokens = [3, 0, 2, 1, 3]
    for engine in engines:
        model = scalar_gpt.GPT(engine, 4, random.Random(2))
        model.loss(tokens).backward()
        for matrix in model.matrices():
            p = matrix[1][2]
            data, h = p.data, 1e-5
            p.data = data + h
            above = model.loss(tokens).data
            p.data = data - h
            below = model.loss(tokens).data
            p.data = data
            assert p.grad != 0.0
            assert p.grad == pytest.approx((above - below) / (2 * h), rel=1e-4, abs=1e-9)


def test_training_memorises_a_name(module, engines):
    scalar_gpt = module("scalar_gpt")
    model = scalar_gpt.GPT(engines[0], 4, random.Random(3))
    losses = [loss.data for loss in scalar_gpt.train(model, [[3, 0, 1, 2, 0, 3]], 60)]
    assert losses[-1] < 0.1 < 1.0 < losses[0]
    assert model.sample(3, random.Random(4)) == [0, 1, 2, 0]


def test_pure_value(module, engines):
    """Every operation of the class for comparison, against flatgrad's."""
    def f(x, y):
        z = x * y + x / y - y + 2.0 * x + (3.0 - y) + (x - 1.5) + (x + 1.0) / 4.0 + y * 0.5
        return z + 1.0 / x + (-x) ** 2 + y**-0.5 + x.exp() + y.log() + x.relu() + (-y).relu() + 0.1

    results = []
    for engine in engines:
        x, y = engine.Value(0.7), engine.Value(1.9)
        z = f(x, y)
        z.backward()
        results.append([z.data, x.grad, y.grad])
    assert results[1] == pytest.approx(results[0], rel=1e-12)


def test_pure_value_takes_long_graphs(engines):
    x = z = engines[1].Value(1.0)
    for _ in range(20_000):
        z = z + x
    z.backward()
    assert x.grad == 20_001.0


def test_command_prints_the_same_with_both_engines(names):
    outputs = []
    for engine in "flatgrad", "python":
        process = run("--data", names, "--steps", 4, "--samples", 3, "--engine", engine)
        assert process.returncode == 0, process.stderr
        assert process.stderr == ""
        outputs.append(process.stdout)
    losses, samples = ([re.findall(pattern, output, re.MULTILINE) for output in outputs]
                       for pattern in (r"^step +(\d+)  loss (\d\.\d{4})$", r"^sample: ([abcdo]*)$"))
    assert [step for step, _ in losses[0]] == ["1", "4"]
    assert losses[0] == losses[1]
    assert len(samples[0]) == 3 and samples[0] == samples[1]
    nodes = []
    for output in outputs:
        assert "4 names of 5 different characters\n" in output
        assert "3520 parameters\n" in output   # (2 * 6 + 16 + 4 * 16 + 2 * 64) * 16
        [count] = re.findall(r"^(\d+) nodes in the graph of the first name, '(?:abba|bo|cab|ada)'$",
                             output, re.MULTILINE)
        nodes.append(int(count))
    assert 3520 < nodes[0] < nodes[1] / 3


def test_names_of_modules_are_the_default():
    process = run("--steps", 11, "--samples", 1)
    assert process.returncode == 0, process.stderr
    assert re.findall(r"^step +(\d+) ", process.stdout, re.MULTILINE) == ["1", "10", "11"]
    assert process.stdout.count("sample: ") == 1
    again = run("--steps", 11, "--samples", 1).stdout
    assert again.splitlines()[-1] == process.stdout.splitlines()[-1]
    other = run("--steps", 1, "--samples", 0, "--seed", 7).stdout
    assert "sample" not in other
    assert other.splitlines()[2] != process.stdout.splitlines()[2]


def test_long_lines_are_cut(tmp_path, module):
    file = tmp_path / "names.txt"
    file.write_text("  ab\t\n" + "abcdefghij" * 4 + "\nüç\n", encoding="utf-8")
    assert module("scalar_gpt").read_names(file) == ["ab", "abcdefghijabcde", "üç"]
    process = run("--data", file, "--steps", 3)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("content, message", [
    (None, "No such file or directory"),
    (b"", "no names in it; expected one per line"),
    (b" \n\n", "no names in it; expected one per line"),
    (b"\xff\xfe\x00", "not UTF-8 text"),
])
def test_bad_file(tmp_path, content, message):
    file = tmp_path / "names.txt"
    if content is not None:
        file.write_bytes(content)
    process = run("--data", file)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == f"scalar_gpt.py: error: argument --data: {file}: {message}\n"


@pytest.mark.parametrize("arguments, named", [
    (["--steps", "0"], "'0'"), (["--steps", "ten"], "'ten'"), (["--samples", "-1"], "'-1'"),
    (["--seed", "x"], "'x'"), (["--engine", "torch"], "'torch'"), (["--epochs", "3"], "--epochs"),
    (["--data"], "--data"),
])
def test_bad_option(arguments, named):
    process = run(*arguments)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.count("\n") == 1 and named in process.stderr


def test_help():
    process = run("--help")
    assert process.returncode == 0
    for option in "--data", "--steps", "--seed", "--samples", "--engine":
        assert option in process.stdout
