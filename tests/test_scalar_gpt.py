"""examples/scalar_gpt.py: both engines train alike, it prints what it should, errors are one line."""
import importlib
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
pytestmark = pytest.mark.skipif(not (EXAMPLES / "scalar_gpt.py").exists(),
                                reason="examples/ is not part of an installed package")

NAMES = ["abba", "bo", "cab", "ada"]


def run(*arguments):
    return subprocess.run([sys.executable, str(EXAMPLES / "scalar_gpt.py"), *map(str, arguments)],
                          capture_output=True, text=True, timeout=60)


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
    from flatgrad import Value
    return [Value, module("pure_value").Value]


def test_both_engines_train_alike(module, engines):
    scalar_gpt = module("scalar_gpt")
    documents = [[4, 0, 1, 1, 0, 4], [4, 2, 4], [4, 3, 0, 2, 4]]
    runs = []
    for Value in engines:
        model = scalar_gpt.GPT(Value, 5, random.Random(1))
        losses = [loss.data for loss in scalar_gpt.train(model, documents, 3)]
        runs.append(losses + [p.data for p in model.parameters()])
    assert runs[0] == pytest.approx(runs[1], rel=0, abs=1e-9)
    assert runs[0][0] == pytest.approx(math.log(5), abs=0.5)   # knows nothing yet
    assert runs[0][0] != runs[0][1] != runs[0][2]


def test_adam_is_the_textbooks(module):
    """Three steps on gradients that are known: model.loss is a plain weighted sum."""
    scalar_gpt = module("scalar_gpt")
    from flatgrad import Value

    class Linear:
        def __init__(self):
            self.p = [Value(1.0), Value(-2.0)]

        def parameters(self):
            return self.p

        def loss(self, tokens):
            return self.p[0] * tokens[0] + self.p[1] * tokens[1]

    documents = [[3.0, -1e-7], [-1.0, 2.0], [0.0, 1.0]]
    model = Linear()
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
        assert model.p[k].grad == 0.0


def test_gradients_are_those_of_finite_differences(module, engines):
    scalar_gpt = module("scalar_gpt")
    tokens = [3, 0, 2, 1, 3]
    for Value in engines:
        model = scalar_gpt.GPT(Value, 4, random.Random(2))
        model.loss(tokens).backward()
        for matrix in vars(model).values():
            p = matrix[1][2]
            data, h = p.data, 1e-5
            p.data = data + h
            above = model.loss(tokens).data
            p.data = data - h
            below = model.loss(tokens).data
            p.data = data
            assert p.grad != 0.0
            assert p.grad == pytest.approx((above - below) / (2 * h), rel=1e-4, abs=1e-9)


def test_training_memorises_a_name(module):
    scalar_gpt = module("scalar_gpt")
    from flatgrad import Value
    model = scalar_gpt.GPT(Value, 4, random.Random(3))
    losses = [loss.data for loss in scalar_gpt.train(model, [[3, 0, 1, 2, 0, 3]], 60)]
    assert losses[-1] < 0.1 < 1.0 < losses[0]
    assert model.sample(3, random.Random(4)) == [0, 1, 2, 0]


def test_pure_value(module, engines):
    """Every operation of the class for comparison, against flatgrad's."""
    def f(x, y):
        z = x * y + x / y - y + 2.0 * x + (3.0 - y) + (x - 1.5) + (x + 1.0) / 4.0 + y * 0.5
        return z + 1.0 / x + (-x) ** 2 + y**-0.5 + x.exp() + y.log() + x.relu() + (-y).relu() + 0.1

    results = []
    for Value in engines:
        x, y = Value(0.7), Value(1.9)
        z = f(x, y)
        z.backward()
        results.append([z.data, x.grad, y.grad])
    assert results[1] == pytest.approx(results[0], rel=1e-12)


def test_pure_value_takes_long_graphs(engines):
    x = z = engines[1](1.0)
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
    for output in outputs:
        assert "4 names of 5 different characters\n" in output
        assert "3520 parameters\n" in output   # (2 * 6 + 16 + 4 * 16 + 2 * 64) * 16
        assert re.search(r"^\d{5} nodes in the graph of the first name, '(abba|bo|cab|ada)'$",
                         output, re.MULTILINE)


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
