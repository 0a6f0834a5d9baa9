"""`python -m flatgrad` as a user meets it: output, files, exit codes, and one line for every error."""
import ast
import contextlib
import importlib.metadata
import io
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest

import flatgrad
from flatgrad import __version__
from flatgrad.cli import main, script
from flatgrad.cli import bench as bench_module
from flatgrad.cli.moons import train
from flatgrad.cli.training import RATES
from flatgrad.datasets import make_moons
from flatgrad.nn import MLP
from flatgrad.optim import OPTIMIZERS
from flatgrad.viz import decision_boundary_text

STEP = re.compile(r"step +(\d+)   loss +(\S+)   accuracy +([\d.]+)%")
PNG = b"\x89PNG\r\n\x1a\n"

# Runs the command line after a statement that prepares the process.
WRAPPER = "import runpy, sys; {}; sys.argv[0] = 'flatgrad'; runpy.run_module('flatgrad', run_name='__main__')"
WITHOUT_MATPLOTLIB = ["-c", WRAPPER.format("sys.modules['matplotlib'] = None")]
INTERRUPTIBLE = ["-c", WRAPPER.format(
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)")]


@pytest.fixture
def cli(tmp_path):
    """Run the command line in an empty folder; matplotlib keeps its cache where it was."""
    def run(*arguments, python=("-m", "flatgrad"), **kwargs):
        return subprocess.run([sys.executable, "-W", "error::RuntimeWarning", *python, *map(str, arguments)],
                              cwd=tmp_path, capture_output=True, text=True, timeout=300, **kwargs)
    return run


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run a command line in this process and an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(line):
        try:
            code = main(shlex.split(line))
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()
    return run


@pytest.fixture
def no_pictures(monkeypatch):
    """Without matplotlib, which takes longer than the training."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)


def write_moons(path, labels=(-1.0, 1.0), n=60):
    """A file like that of the demo: three digits, labels as floats."""
    X, y = make_moons(n, noise=0.1, random_state=3)
    rows = [f"{x:.3f},{z:.3f},{labels[label]}" for (x, z), label in zip(X, y)]
    path.write_text("\n".join(["x,y,label", *rows, ""]))
    return path


def steps(stdout):
    return [(int(k), float(loss), float(accuracy)) for k, loss, accuracy in STEP.findall(stdout)]


# ---- the main job ----

def test_moons_with_its_defaults(cli, tmp_path):
    pytest.importorskip("matplotlib")
    result = cli("moons")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.split("\n")
    assert lines[0] == "Number of parameters 337"
    log = steps(result.stdout)
    assert [k for k, _, _ in log] == [*range(0, 100, 10), 99]
    assert len({len(line) for line in lines[1:12]}) == 1  # aligned
    assert log[0][1] == pytest.approx(0.8958, abs=1e-3)
    assert log[-1][1] < 0.05 and log[-1][2] >= 99
    assert lines[-2] == "Wrote decision_boundary.png"

    drawing = lines[13:35]
    assert drawing[0].endswith("-+") and drawing[-1].endswith("-+") and len(drawing) == 22
    for character in "o#.:":
        assert "".join(drawing[1:-1]).count(character) > 20

    from matplotlib import image
    assert [path.name for path in tmp_path.iterdir()] == ["decision_boundary.png"]
    picture = image.imread(tmp_path / "decision_boundary.png")[:, :, :3]
    assert picture.shape == (480, 640, 3)
    red, blue = picture[:, :, 0], picture[:, :, 2]
    assert np.mean(red > blue + 0.05) > 0.2 and np.mean(blue > red + 0.05) > 0.2


@pytest.mark.parametrize("labels", [(-1.0, 1.0), (0, 1)], ids=str)
def test_moons_on_a_file(cli, tmp_path, labels):
    write_moons(tmp_path / "samples.csv", labels)
    result = cli("moons", "--data", "samples.csv", "--out", "picture.png", python=WITHOUT_MATPLOTLIB)
    assert (result.returncode, result.stderr) == (0, "")
    assert steps(result.stdout)[-1][2] >= 98


def test_the_file_is_what_is_trained_on(cli, tmp_path):
    logs = set()
    for n in 20, 60:
        write_moons(tmp_path / "samples.csv", n=n)
        logs.add(cli("moons", "--data", "samples.csv", "--steps", 2, python=WITHOUT_MATPLOTLIB).stdout)
    assert len(logs) == 2


def test_one_seed_one_result(cli, tmp_path):
    pytest.importorskip("matplotlib")
    first, second = (
        (cli("moons", "--seed", 7, "--steps", 15, "--out", "a.png").stdout, (tmp_path / "a.png").read_bytes())
        for _ in range(2))
    assert first == second and first[1].startswith(PNG)
    other = cli("moons", "--seed", 8, "--steps", 15, python=WITHOUT_MATPLOTLIB)
    assert steps(other.stdout) != steps(first[0])


@pytest.mark.parametrize("arguments, parameters, printed", [
    (["--steps", 1], 337, [0]),
    (["--steps", 21], 337, [0, 10, 20]),
    (["--steps", 12, "--hidden", 3], 13, [0, 10, 11]),
    (["--steps", 1, "--hidden", 4, 5, 6], 4 * 3 + 5 * 5 + 6 * 6 + 7, [0]),
], ids=str)
def test_options(command, no_pictures, arguments, parameters, printed):
    code, out, err = command(" ".join(map(str, ["moons", *arguments])))
    assert (code, err) == (0, "")
    assert out.startswith(f"Number of parameters {parameters}\n")
    assert [k for k, _, _ in steps(out)] == printed


def test_without_matplotlib(cli, tmp_path):
    result = cli("moons", "--steps", 2, python=WITHOUT_MATPLOTLIB)
    assert (result.returncode, result.stderr) == (0, "")
    assert "+" + "-" * 60 + "+" in result.stdout
    assert result.stdout.endswith("\nNo picture without matplotlib; to get it: pip install 'flatgrad[viz]'\n")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_picture_is_replaced_once_training_is_done(cli, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "out.PNG"
    out.write_bytes(b"old")
    assert cli("moons", "--lr", "1e200", "--out", out).returncode == 1
    assert out.read_bytes() == b"old"
    assert cli("moons", "--steps", 1, "--out", out).returncode == 0
    assert out.read_bytes().startswith(PNG)


def test_training_is_micrograds():
    """The same losses and accuracies as micrograd's classes with the demo's loop, step by step."""
    nn, engine = pytest.importorskip("micrograd.nn"), pytest.importorskip("micrograd.engine")
    X, y = make_moons(16, noise=0.1, random_state=1)
    X, y = X.tolist(), (2.0 * y - 1.0).tolist()
    count = 6

    random.seed(1337)
    ours = list(train(MLP(2, [8, 8, 1]), X, y, count))

    random.seed(1337)
    model = nn.MLP(2, [8, 8, 1])
    theirs = []
    for k in range(count):
        scores = [model(list(map(engine.Value, row))) for row in X]
        hinge = [(1 + -label * score).relu() for label, score in zip(y, scores)]
        loss = sum(hinge) * (1.0 / len(hinge)) + 1e-4 * sum(p * p for p in model.parameters())
        hits = [(label > 0) == (score.data > 0) for label, score in zip(y, scores)]
        theirs.append((k, loss.data, sum(hits) / len(hits)))
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data -= (1.0 - 0.9 * k / count) * p.grad

    assert np.array(ours) == pytest.approx(np.array(theirs), rel=1e-9, abs=1e-12)
    assert ours[-1][1] < ours[0][1]


def test_the_drawing_is_of_the_trained_network(cli):
    result = cli("moons", "--steps", 30, "--seed", 5, "--hidden", 6, python=WITHOUT_MATPLOTLIB)
    X, y = make_moons(100, noise=0.1, random_state=5)
    y = 2.0 * y - 1.0
    random.seed(5)
    model = MLP(2, [6, 1])

    def drawing():
        return decision_boundary_text(lambda points: [model(point) for point in points], X, y)

    assert drawing() not in result.stdout
    for _ in train(model, X.tolist(), y.tolist(), 30):
        pass
    assert drawing() in result.stdout


# ---- errors ----

GOOD = "x,y,label\n1,2,1\n3,4,-1\n"
ERRORS = {
    "--steps 0": "argument --steps: expected an integer of 1 or more, got '0'",
    "--steps -1": "argument --steps: expected an integer of 1 or more, got '-1'",
    "--steps abc": "argument --steps: expected an integer of 1 or more, got 'abc'",
    "--steps 1.5": "argument --steps: expected an integer of 1 or more, got '1.5'",
    "--hidden 16 0": "argument --hidden: expected an integer of 1 or more, got '0'",
    "--hidden": "argument --hidden: expected at least one argument",
    "--seed -1": "argument --seed: expected an integer from 0 to 4294967295, got '-1'",
    "--seed 4294967296": "argument --seed: expected an integer from 0 to 4294967295, got '4294967296'",
    "--rate 3": "unrecognized arguments: --rate 3",
    "--data missing.csv": "cannot read missing.csv: No such file or directory",
    "--data bad.csv": "bad.csv: line 3, column y: expected a finite number, got 'nan'",
    "--data nolabel.csv": "nolabel.csv: line 1: no column label, "
                          "expected x, y and label between commas, got 'x, y'",
    "--data oneclass.csv": "oneclass.csv: line 2, column label: 1, as in all the file, "
                           "expected samples of both classes",
    "--data binary.csv": "binary.csv: line 1: not text in UTF-8",
    "--out missing/a.png": "cannot write missing/a.png: No such file or directory",
    "--data far.csv": "far.csv: expected coordinates up to 5e+307, got y from -1e+308 to 2",
    "--data good --out good": "argument --out: expected another file than --data's, got 'good'",
}


@pytest.mark.parametrize("arguments", ERRORS)
def test_an_error_is_one_line(command, tmp_path, arguments):
    (tmp_path / "good").write_text(GOOD)
    (tmp_path / "bad.csv").write_text("x,y,label\n1,2,1\n3,nan,-1\n")
    (tmp_path / "nolabel.csv").write_text("x,y\n1,2\n")
    (tmp_path / "oneclass.csv").write_text("x,y,label\n1,2,1\n")
    (tmp_path / "far.csv").write_text("x,y,label\n1,2,1\n3,-1e308,-1\n")
    (tmp_path / "binary.csv").write_bytes(b"\x89PNG\r\n\x1a\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert command(f"moons {arguments}") == (2, "", f"flatgrad moons: error: {ERRORS[arguments]}\n")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("arguments", ["--data .", "--out ."])
def test_a_folder_is_not_a_file(command, arguments):
    code, out, err = command(f"moons {arguments}")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"flatgrad moons: error: cannot (read|write) \.: .+\n", err)


def test_an_unwritable_picture_is_found_without_matplotlib_too(cli):
    result = cli("moons", "--out", "missing/a.png", python=WITHOUT_MATPLOTLIB)
    assert (result.returncode, result.stdout) == (2, "")


@pytest.mark.parametrize("arguments, what", [
    (["--lr", "1e200"], "the loss is nan at step 1"),
    (["--lr", "1e200", "--steps", 1], ""),  # the first loss is finite, what the update leaves is not
    (["--lr", "30"], r"the loss went from 0\.8958 to \d\.\d+e\+1\d"),
])
def test_divergence_is_told(cli, tmp_path, arguments, what):
    result = cli("moons", *arguments)
    assert result.returncode == 1
    assert re.fullmatch(rf"flatgrad moons: error: training diverged: {what}.*\. Try a smaller --learning-rate .+\n",
                        result.stderr)
    assert not list(tmp_path.iterdir())


def test_a_rising_loss_is_told(cli):
    hint = "\nThe loss went up. Try a smaller --learning-rate or another --seed.\n"
    for arguments, expected in (["--lr", "3"], True), ([], False):
        result = cli("moons", *arguments, python=WITHOUT_MATPLOTLIB)
        assert result.returncode == 0
        assert (hint in result.stdout) == expected


# ---- the process ----

def test_no_command_prints_help(cli):
    result = cli()
    assert (result.returncode, result.stdout) == (2, "")
    assert "python -m flatgrad moons" in result.stderr and "usage:" in result.stderr


@pytest.mark.parametrize("arguments", [["sun"], ["--lr"]], ids=str)
def test_unknown_commands(cli, arguments):
    result = cli(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"flatgrad: error: .+\n", result.stderr) and arguments[0] in result.stderr


def test_version(cli):
    assert cli("--version").stdout == f"flatgrad {__version__}\n"


def test_help_teaches(cli):
    result = cli("moons", "--help")
    assert result.returncode == 0
    for text in "python -m flatgrad moons --data points.csv", "x,y,label", "--hidden", "(default: 1337)":
        assert text in result.stdout


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupt_is_quiet(tmp_path):
    with subprocess.Popen([sys.executable, *INTERRUPTIBLE, "moons", "--steps", "10000000"], cwd=tmp_path,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            for _ in range(3):
                process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=300)
        finally:
            process.kill()
    assert (process.returncode, stderr) == (130, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX pipes")
@pytest.mark.parametrize("lines", [0, 1])
def test_a_reader_that_leaves_is_not_an_error(tmp_path, lines):
    # Steps enough to be still at it, and to fill the pipe.
    with subprocess.Popen([sys.executable, "-m", "flatgrad", "moons", "--steps", "100000"], cwd=tmp_path,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        stderr = process.stderr.read()
    assert (process.returncode, stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(cli):
    result = cli("moons", "--steps", 1, "--out", "/dev/full")
    assert "Traceback" not in result.stderr
    if result.returncode:  # 0 without matplotlib
        assert result.returncode == 2
        assert result.stderr == "flatgrad moons: error: cannot write /dev/full: No space left on device\n"
    with open("/dev/full", "w") as full:
        result = subprocess.run([sys.executable, "-m", "flatgrad", "moons"], stdout=full,
                                stderr=subprocess.PIPE, text=True, timeout=300)
    assert (result.returncode, result.stderr) == (
        2, "flatgrad: error: standard output: No space left on device\n")


@pytest.mark.skipif(os.name != "posix", reason="other systems encode file names otherwise")
def test_output_that_cannot_show_a_file_name(cli):
    pytest.importorskip("matplotlib")
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = cli("moons", "--steps", 1, "--out", "caf\u00e9.png", env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("Wrote caf\\xe9.png\n")


# ---- moons: another network, optimizer, start ----

def test_the_options_reach_the_training(command, no_pictures):
    defaults = steps(command("moons --steps 11 --out a.png")[1])
    spelt_out = steps(command("moons --steps 11 --out a.png --activation relu --optimizer sgd --learning-rate 1 "
                              "--batch-size 100")[1])
    assert spelt_out == defaults
    logs = {tuple(steps(command(f"moons --steps 11 --out a.png {options}")[1])) for options in (
        "", "--activation tanh", "--optimizer Adam", "--lr 0.5", "--batch-size 20")}
    assert len(logs) == 5
    assert {log[0][1] for log in logs if log[0][1] != defaults[0][1]} != set()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns_the_moons(command, no_pictures, name):
    code, out, err = command(f"moons --optimizer {name} --out a.png")
    assert (code, err) == (0, "") and steps(out)[-1][2] >= 95


def test_every_optimizer_that_has_a_name_has_a_rate():
    assert list(RATES) == list(OPTIMIZERS)


def test_each_pass_takes_every_sample_once():
    from flatgrad.cli.training import batches

    X, y = np.arange(14.0).reshape(7, 2), np.arange(7.0)
    feed = batches(X, y, 3, seed=5)
    passes = []
    for _ in range(2):
        got = [next(feed) for _ in range(3)]
        assert [len(targets) for _, targets in got] == [3, 3, 1]
        passes.append([number for _, targets in got for number in targets.data.tolist()])
        assert sorted(passes[-1]) == y.tolist()
        assert all((inputs.data[:, 0] == 2 * targets.data).all() for inputs, targets in got)
    assert passes[0] != passes[1]


def test_a_saved_network_is_where_training_goes_on(command, no_pictures, tmp_path):
    code, out, err = command("moons --steps 20 --save model.npz --out a.png")
    assert (code, err) == (0, "") and "\nWrote model.npz\n" in out
    model = MLP(2, [16, 16, 1])
    model.load(tmp_path / "model.npz")
    first_loss = next(train(model, *moons_of(1337), 1))[1]
    out = command("moons --steps 1 --load model.npz --out a.png")[1]
    assert steps(out)[0][1] == pytest.approx(first_loss, abs=1e-6)
    assert first_loss < steps(command("moons --steps 1 --out a.png")[1])[0][1]


def moons_of(seed):
    X, y = make_moons(100, noise=0.1, random_state=seed)
    return X, 2.0 * y - 1.0


def test_a_learning_rate_that_is_too_large_is_told(command, tmp_path):
    code, out, err = command("moons --learning-rate 1e8 --save model.npz")
    assert code == 1 and err.endswith(
        "Try a smaller --learning-rate or another --seed.\n") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# ---- the small problems ----

def test_xor(command):
    code, out, err = command("xor")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "network 2-4-1, 17 parameters; 4 samples"
    assert lines[2] == "epoch        loss  0 0 -> 0  0 1 -> 1  1 0 -> 1  1 1 -> 0"
    rows = [list(map(float, line.split())) for line in lines[3:-2]]
    assert [row[0] for row in rows] == [0, 10, 20, 50, 100, 200, 500, 1000, 2000]
    assert rows[-1][2:] == pytest.approx([0, 1, 1, 0], abs=0.1)
    assert rows[-1][1] == pytest.approx(np.square(np.subtract(rows[-1][2:], [0, 1, 1, 0])).mean(), abs=1e-4)
    assert rows[-1][1] < 0.01 < rows[0][1]
    assert re.fullmatch(r"Learnt: all 4 rows are right; the worst output is 0\.\d{4} off\.", lines[-1])


def test_parity(command):
    code, out, err = command("parity")
    assert (code, err) == (0, "")
    assert out.startswith("network 3-8-8-1, 113 parameters; 8 samples\n") and "10000" in out
    rows = re.findall(r"^([01]) ([01]) ([01]) +([01]) +(-?[\d.]+)  right$", out, re.MULTILINE)
    assert len(rows) == 8
    for *bits, wanted, output in rows:
        assert sum(map(int, bits)) % 2 == int(wanted) and float(output) == pytest.approx(int(wanted), abs=0.1)
    assert "\nLearnt: all 8 rows are right;" in out and "wrong" not in out


def test_sum(command):
    code, out, err = command("sum --add 0.5 0.25 --add -30 -40")
    assert (code, err) == (0, "")
    assert out.startswith("network 2-16-16-1, 337 parameters; 6 samples\n")
    rows = [list(map(float, row)) for row in re.findall(
        r"^ *(-?[\d.]+) +(-?[\d.]+) +(-?[\d.]+) +(-?[\d.]+) +([+-][\d.]+)$", out, re.MULTILINE)]
    assert [row[:2] for row in rows] == [[0.4, 0.3], [0.6, 0.8], [0.5, 0.25], [-30, -40]]
    for x1, x2, total, output, error in rows:
        assert total == pytest.approx(x1 + x2) and error == pytest.approx(output - total, abs=2e-4)
    assert all(abs(row[-1]) < 0.1 for row in rows[:2]) and abs(rows[3][-1]) > 1
    assert re.search(r"\nLearnt: the sums of the test samples are at most 0\.0\d+ off\.\n$", out)


@pytest.mark.parametrize("line, network, samples", [
    ("parity --bits 1 --epochs 1", "1-8-8-1", 2), ("parity --bits 4 --epochs 1", "4-16-16-1", 16),
    ("parity --bits 5 --epochs 1", "5-32-32-1", 32), ("parity --bits 8 --epochs 1", "8-64-64-1", 256),
    ("parity --bits 2 --epochs 1 --hidden 3 4 5", "2-3-4-5-1", 4), ("xor --epochs 1 --hidden 7", "2-7-1", 4),
    ("sum --epochs 1 --hidden 3 3", "2-3-3-1", 6),
])
def test_networks(command, line, network, samples):
    code, out, err = command(line)
    assert (code, err) == (0, "")
    assert re.match(rf"network {network}, \d+ parameters; {samples} samples\n", out)


@pytest.mark.parametrize("line", ["xor", "parity", "sum"])
def test_the_seed_and_the_learning_rate_are_those_of_the_options(command, line):
    logs = [command(f"{line} --epochs 20 {options}")[1] for options in (
        "--seed 7", "--seed 7", "--seed 8", "--seed 7 --lr 0.02")]
    assert logs[0] == logs[1] and len(set(logs)) == 3


def test_only_the_wrong_rows_of_many_are_shown(command):
    out = command("parity --bits 8 --epochs 1")[1]
    assert len(re.findall("  wrong$", out, re.MULTILINE)) == 32 and "  right" not in out.partition("output")[2]
    more, wrong = re.search(r"\nand (\d+) more that are wrong\n\nNot learnt: (\d+) of 256", out).groups()
    assert int(more) + 32 == int(wrong)


@pytest.mark.parametrize("line, told", [
    ("xor --hidden 1", r"Not learnt: [1-4] of 4 rows are wrong after 2,000 epochs\."),
    ("parity --epochs 5", r"Not learnt: [1-8] of 8 rows are wrong after 5 epochs\."),
    ("sum --epochs 3", r"Not learnt well: a sum of the test samples is \d\.\d+ off after 3 epochs; 0\.1 would do\."),
])
def test_what_is_not_learnt_is_told(command, line, told):
    code, out, err = command(line)
    assert (code, err) == (0, "")
    assert re.search(rf"\n\n{told}\nTry another --seed, .+\n$", out) and "Learnt" not in out


@pytest.mark.parametrize("line", ["parity --lr 1e9", "sum --lr 100", "sum --lr 1e200 --epochs 1"])
def test_divergence_of_small_problems_is_told(command, line):
    code, _, err = command(line)
    assert code == 1
    assert re.fullmatch(rf"flatgrad {line.split()[0]}: error: training diverged: the loss is (inf|nan) at epoch \d+\. "
                        r"Try a smaller --lr than .+\.\n", err)


# Of the 20 seeds that the help speaks of, the first: all 20 succeed at each level of the kernels.
SEEDS = """
import contextlib, io, sys
from flatgrad import stats
from flatgrad.cli import main
learnt = []
for line in sys.argv[2:]:
    for seed in range(int(sys.argv[1])):
        out = io.TextIOWrapper(io.BytesIO(), write_through=True)
        with contextlib.redirect_stdout(out):
            assert main([*line.split(), "--seed", str(seed)]) == 0
        learnt.append(b"Learnt: " in out.buffer.getvalue())
print(stats()["isa"], learnt.count(False))
"""


@pytest.mark.parametrize("level", flatgrad._core._kernel_levels())
def test_every_seed_learns_at_every_level(level):
    result = subprocess.run([sys.executable, "-c", SEEDS, "5", "xor", "parity", "sum"], capture_output=True, text=True,
                            timeout=300, env=os.environ | {"FLATGRAD_ISA": level})
    assert (result.stdout, result.stderr) == (f"{level} 0\n", "")


# ---- bench ----

HEADER = re.compile(r"flatgrad \S+ with \w+ kernels, \w+ [\d.]+\S*\n.+\n\n")
TIME, RATIO = r"[\d.e+]+ (?:s|ms|us)", r"[\d.,e-]+"


def test_bench(command, monkeypatch):
    pytest.importorskip("micrograd")
    monkeypatch.setattr(bench_module, "SAMPLES", 10)
    code, out, err = command("bench --seconds 0.1")
    assert (code, err) == (0, "")
    assert HEADER.match(out)
    rows = re.findall(rf"^(m.*?)  +({TIME}) +({TIME})  +({RATIO}) +({RATIO}) to ({RATIO}) +(\d+)$", out, re.MULTILINE)
    assert [row[0] for row in rows] == ["micrograd's README expression", "moons step, the demo's code",
                                        "moons step, flatgrad's layers and loss"]
    for row in rows:
        middle, low, high = (float(number.replace(",", "")) for number in row[3:6])
        assert 1 < low <= middle <= high and int(row[6]) >= 3
    assert out.endswith("\n\nThe full benchmark is in flatgrad's repository: python -m bench --help\n")


def test_bench_without_micrograd(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "micrograd", None)
    monkeypatch.setitem(sys.modules, "micrograd.engine", None)
    code, out, err = command("bench --seconds 0.1")
    assert (code, err) == (0, "")
    assert "\nmicrograd is not installed, so there is nothing to compare with: pip install 'flatgrad[bench]'\n" in out
    assert len(re.findall(rf"^m.*  +{TIME}$", out, re.MULTILINE)) == 3 and "faster" not in out


def test_bench_times_nothing_that_is_wrong(command, monkeypatch):
    """A library whose numbers are off by a millionth is found out."""
    wrong = types.SimpleNamespace(name="micrograd", Value=lambda x: flatgrad.Value(x * (1 + 1e-6)), MLP=MLP)
    right = bench_module.library("flatgrad")
    monkeypatch.setattr(bench_module, "library", lambda name: wrong if name == "micrograd" else right)
    code, out, err = command("bench --seconds 0.1")
    assert code == 1
    assert re.fullmatch("flatgrad bench: error: micrograd's README expression: flatgrad gives .+, micrograd gives .+\n", err)
    assert out.splitlines()[-1].split()[:2] == ["micrograd", "flatgrad"]   # the head of a table without rows


def test_rounds_alternate_and_percentiles_interpolate(monkeypatch):
    calls = []
    monkeypatch.setattr(bench_module, "LEAST_SECONDS", 0.0)
    times = bench_module.race([lambda: calls.append("a"), lambda: calls.append("b")], 0.0)
    assert [len(one) for one in times] == [3, 3]
    assert "".join(calls) == "ab" + "abbaab"
    assert bench_module.percentile([1.0, 2.0, 4.0], 0.75) == 3.0 and bench_module.percentile([5.0], 0.9) == 5.0
    assert [bench_module.duration(x) for x in (1.5, 0.0123, 4.56e-6, 5e-8)] == ["1.5 s", "12.3 ms", "4.56 us", "0.05 us"]
    assert [bench_module.shown(x) for x in (2067.8, 69.34, 0.5)] == ["2,068", "69.3", "0.5"]


def test_contenders_do_not_share_bytecode():
    first, second = bench_module.own_copy(bench_module.demo_step), bench_module.own_copy(bench_module.demo_step)
    assert first.__code__ is not second.__code__
    inner = [[code for code in function.__code__.co_consts if isinstance(code, types.CodeType)] for function in (first, second)]
    assert inner[0] and all(x is not y for x, y in zip(*inner))


# ---- info ----

def test_info(command):
    code, out, err = command("info")
    assert (code, err) == (0, "")
    for text in (f"flatgrad    {__version__}", np.__version__, flatgrad.stats()["isa"], "FLATGRAD_ISA=baseline python",
                 "matplotlib", "graphviz", "tqdm", "scikit-learn", "micrograd", "bytes per node"):
        assert text in out


def test_info_as_json(command):
    found = json.loads(command("info --json")[1])
    assert (found["flatgrad"], found["numpy"]) == (__version__, np.__version__)
    assert found["isa"]["in_use"] == flatgrad.stats()["isa"] in found["isa"]["available"]
    assert found["isa"]["available"][0] == "baseline" and found["isa"]["FLATGRAD_ISA"] == os.environ.get("FLATGRAD_ISA")
    assert set(flatgrad.stats()) - {"isa"} < set(found["tape"])
    assert found["tape"]["bytes_per_node"] == pytest.approx(found["tape"]["bytes"] / found["tape"]["capacity"], abs=0.06)
    assert found["bytes_per_value"] == sys.getsizeof(flatgrad.Value(1.0))
    for name, extra in found["extras"].items():
        try:
            assert extra["version"] == importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            assert extra["version"] is None


def test_info_says_how_to_get_what_is_missing(command, monkeypatch):
    for name in "matplotlib", "tqdm", "sklearn", "micrograd":
        monkeypatch.setitem(sys.modules, name, None)
    out = command("info")[1]
    for install in "'flatgrad[viz]'", "'flatgrad[train]'", "scikit-learn", "'flatgrad[bench]'":
        assert f"  not installed: pip install {install}\n" in out
    extras = json.loads(command("info --json")[1])["extras"]
    assert [name for name, extra in extras.items() if extra["version"] is None][:1] == ["matplotlib"]


def test_what_info_calls_extras_are_extras():
    from flatgrad.cli.info import EXTRAS

    try:
        known = importlib.metadata.metadata("flatgrad").get_all("Provides-Extra")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("flatgrad is imported from its sources, not installed")
    for _, install, _ in EXTRAS.values():
        for extra in re.findall(r"flatgrad\[(\w+)\]", install):
            assert extra in known


def test_info_names_the_level_that_was_chosen(cli):
    result = cli("info", env=os.environ | {"FLATGRAD_ISA": "baseline"})
    assert "kernels     baseline, as FLATGRAD_ISA=baseline says\n" in result.stdout


# ---- bad arguments of the commands, and names ----

BAD = {
    "moons --activation Relux": "argument --activation: expected one of relu, leaky_relu, elu, gelu, gelu_tanh, silu, "
                                "softplus, tanh, sigmoid, linear, got 'Relux'; did you mean relu?",
    "moons --optimizer adm": "argument --optimizer: expected one of sgd, adam, adamw, rmsprop, adagrad, adadelta, "
                             "nadam, radam, adamax, rprop, got 'adm'; did you mean adam?",
    "moons --optimizer 7": "argument --optimizer: expected one of sgd, adam, adamw, rmsprop, adagrad, adadelta, "
                           "nadam, radam, adamax, rprop, got '7'",
    "moons --learning-rate 0": "argument --learning-rate/--lr: expected a number above 0, got '0'",
    "moons --lr nan": "argument --learning-rate/--lr: expected a number above 0, got 'nan'",
    "moons --batch-size 0": "argument --batch-size: expected an integer of 1 or more, got '0'",
    "moons --load missing.npz": "cannot read missing.npz: No such file or directory",
    "moons --load text": "argument --load: expected a file that --save wrote, got text",
    "moons --load other.npz": "argument --load: expected the weights of a network 2-16-16-1, as --hidden says, "
                              "got other.npz with layers of 3 1",
    "moons --save model.txt": "argument --save: expected a name that ends in .npz, got 'model.txt'",
    "moons --save missing/a.npz": "cannot write missing/a.npz: No such file or directory",
    "moons --save a --out a": "argument --save: expected another file than --out's, got 'a'",
    "moons --load text --out text": "argument --out: expected another file than --load's, got 'text'",
    "xor --epochs 0": "argument --epochs: expected an integer of 1 or more, got '0'",
    "xor --lr inf": "argument --lr/--learning-rate: expected a number above 0, got 'inf'",
    "xor --hidden 0": "argument --hidden: expected an integer of 1 or more, got '0'",
    "xor --bits 3": "unrecognized arguments: --bits 3",
    "xor 3": "unrecognized arguments: 3",
    "parity --seed -1": "argument --seed: expected an integer from 0 to 4294967295, got '-1'",
    "parity --bits 9": "argument --bits: expected an integer from 1 to 8, got '9'",
    "parity --bits two": "argument --bits: expected an integer from 1 to 8, got 'two'",
    "sum --add 1": "argument --add: expected 2 arguments",
    "sum --add 1 nan": "argument --add: expected a finite number, got 'nan'",
    "bench --seconds 0": "argument --seconds: expected a number above 0, got '0'",
    "bench --seconds soon": "argument --seconds: expected a number above 0, got 'soon'",
    "info --yaml": "unrecognized arguments: --yaml",
    "xor --epoks=3": "unrecognized arguments: --epoks=3; did you mean --epochs?",
    "moons --hiden 3": "unrecognized arguments: --hiden 3; did you mean --hidden?",
}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_argument_is_one_line(command, tmp_path, line):
    (tmp_path / "text").write_text("x,y\n")
    MLP(2, [3, 1]).save(tmp_path / "other.npz")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code, out, err = command(line)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err == f"flatgrad {line.split()[0]}: error: {BAD[line]}\n"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("line, near", [("sun", "sum"), ("mooons", "moons"), ("XOR", "xor"), ("benchmark", "bench"), ("?", "")])
def test_an_unknown_command_has_a_suggestion(command, line, near):
    suggestion = f"; did you mean {near}?" if near else ""
    assert command(line) == (2, "", f"flatgrad: error: unknown command {line!r}, expected one of moons, xor, parity, sum, "
                                    f"run, bench, info{suggestion}\n")


# ---- what the help says ----

COMMANDS = "moons xor parity sum run bench info".split()


def help_of(name):
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stopped:
        main([*name.split(), "--help"])
    assert stopped.value.code == 0
    return out.buffer.getvalue().decode().replace(os.linesep, "\n")


def test_the_first_help_has_a_line_for_every_command(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = help_of("").split("commands:\n")[1].split("\n\n")[0].splitlines()[1:]
    assert [line.split()[0] for line in lines] == COMMANDS and all(len(line.split()) > 4 for line in lines)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, help_of(name).splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_purpose_and_examples(name):
    text = help_of(name)
    assert text.startswith(f"usage: python -m flatgrad {name} ")
    description = text.partition("\n\n")[2].partition("\n\n")[0]
    assert len(description.split()) > 10
    assert f"examples:\n  python -m flatgrad {name}" in text


EXAMPLES = list(dict.fromkeys(
    line.strip() for name in ["", *COMMANDS] for line in help_of(name).splitlines()
    if line.startswith("  python -m flatgrad ") and "[" not in line and line.split()[3] != "run"))


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_of_the_help_run(command, no_pictures, tmp_path, monkeypatch, line):
    write_moons(tmp_path / "points.csv")
    if "--load" in line:
        command("moons --steps 1 --save model.npz")
    if "bench" in line:   # without waiting for micrograd
        ours = bench_module.library("flatgrad")
        monkeypatch.setattr(bench_module, "library", lambda name: types.SimpleNamespace(**{**vars(ours), "name": name}))
        line += " --seconds 0.01"   # of two, argparse takes the last
    if line.endswith("300000"):
        line = line[:-2]
    if line.endswith("--help"):
        return   # help_of has run it
    code, out, err = command(line.removeprefix("python -m flatgrad "))
    assert (code, err) == (0, "")
    says = {"--activation linear": "accuracy  88.0%", "xor --hidden 1": "Not learnt", "parity --hidden 2": "Not learnt",
            "sum --epochs 20": "Not learnt", "--lr 0.01": "Learnt", "--bits 2": "Learnt", "--bits 5": "Learnt"}
    for part, text in says.items():
        assert part not in line or text in out


def test_the_example_of_a_file_is_one(command, tmp_path):
    indented = re.search(r"begins like this.*?\n((?: {10}.+\n)+)", help_of("moons"))[1]
    (tmp_path / "points.csv").write_text(textwrap.dedent(indented))
    assert command("moons --data points.csv --steps 1")[::2] == (0, "")


OWN_VALUE = """\
class Value:
    def __init__(self, data, parents=()):
        self.data, self.grad, self.parents, self.rule = data, 0.0, parents, lambda: None

    def __add__(self, other):
        out = Value(self.data + other.data, (self, other))
        def rule():
            self.grad += out.grad
            other.grad += out.grad
        out.rule = rule
        return out

    def __mul__(self, other):
        out = Value(self.data * other.data, (self, other))
        def rule():
            self.grad += out.grad * other.data
            other.grad += out.grad * self.data
        out.rule = rule
        return out

    def backward(self):
        order = []
        def visit(v):
            if v not in order:
                for parent in v.parents:
                    visit(parent)
                order.append(v)
        visit(self)
        self.grad = 1.0
        for v in reversed(order):
            v.rule()
"""


def test_examples_of_run(cli, tmp_path):
    shows = ("import sys\nassert 'numpy' not in sys.modules\nprint(Value.__module__.split('.')[0], *sys.argv[1:])\n")
    (tmp_path / "mypackage").mkdir()
    for name in "gpt.py", "mypackage/train.py":
        (tmp_path / name).write_text(OWN_VALUE + shows)
    (tmp_path / "engine.py").write_text(OWN_VALUE)
    (tmp_path / "train.py").write_text("from engine import Value\n" + shows)
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": "print('cell')"}
    (tmp_path / "demo.ipynb").write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    expected = {"train.py --steps 100": "engine --steps 100\n", "demo.ipynb": "cell\n", "-m mypackage.train": "__main__\n",
                "--replace-class Value gpt.py": "flatgrad\n", "--replace-class engine.Value train.py": "flatgrad\n"}
    lines = [line.split()[3:] for line in help_of("run").partition("examples:")[2].splitlines() if "python -m flatgrad" in line]
    assert [" ".join(line[1:]) for line in lines] == list(expected)
    for line, text in zip(lines, expected.values()):
        result = cli(*line)
        assert (result.returncode, result.stdout) == (0, text)
        assert re.fullmatch(r"(flatgrad run: note: class Value of \w+\.py is flatgrad's now\n)?", result.stderr)


@pytest.mark.parametrize("name", ["moons", "xor", "parity", "sum"])
def test_the_python_in_the_help_does_the_same(command, no_pictures, name):
    code = textwrap.dedent(help_of(name).partition("the same in Python:\n")[2])
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 13
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(ast.parse(code), name, "exec"), {})
    final = float(out.getvalue())
    printed = command(name)[1]
    if name == "moons":   # the last step's loss
        shown = steps(printed)[-1][1]
    else:
        shown = float(re.findall(r"^ *\d+ +(\S+)  ", printed, re.MULTILINE)[-1])
    assert shown == pytest.approx(final, rel=1e-3, abs=1e-6)


# ---- the program that pip installs ----

def test_the_script_finds_modules_as_python_m_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["bin", *sys.path[1:]])
    monkeypatch.setattr(sys, "argv", ["bin/flatgrad", "info", "--json"])
    assert script() == 0
    assert sys.path[0] == os.getcwd() and json.loads(capsys.readouterr().out)["flatgrad"] == __version__
