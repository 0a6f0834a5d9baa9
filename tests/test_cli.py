"""`python -m flatgrad` as a user meets it: output, files, exit codes, and one line for every error."""
import os
import random
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from flatgrad import __version__
from flatgrad.__main__ import train
from flatgrad.datasets import make_moons
from flatgrad.nn import MLP
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
                              cwd=tmp_path, capture_output=True, text=True, timeout=60, **kwargs)
    return run


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
def test_options(cli, arguments, parameters, printed):
    result = cli("moons", *arguments, python=WITHOUT_MATPLOTLIB)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"Number of parameters {parameters}\n")
    assert [k for k, _, _ in steps(result.stdout)] == printed


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
    (tmp_path / "huge.csv").write_text("x,y,label\n1e300,0,1\n-1e300,0,0\n")
    assert cli("moons", "--data", "huge.csv", "--out", out).returncode == 1
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
    "--lr 3": "unrecognized arguments: --lr 3",
    "--data missing.csv": "cannot read missing.csv: No such file or directory",
    "--data bad.csv": "bad.csv: line 3, column y: expected a finite number, got 'nan'",
    "--data nolabel.csv": "nolabel.csv: line 1: no column label, "
                          "expected x, y and label between commas, got 'x, y'",
    "--data oneclass.csv": "oneclass.csv: line 2, column label: 1, as in all the file, "
                           "expected samples of both classes",
    "--data binary.csv": "binary.csv: line 1: not text in UTF-8",
    "--out missing/a.png": "cannot write missing/a.png: No such file or directory",
    "--out a.pdf": "argument --out: expected a name that ends in .png, got 'a.pdf'",
    "--data good --out good": "argument --out: expected another file than --data's, got 'good'",
}


@pytest.mark.parametrize("arguments", ERRORS)
def test_an_error_is_one_line(cli, tmp_path, arguments):
    (tmp_path / "good").write_text(GOOD)
    (tmp_path / "bad.csv").write_text("x,y,label\n1,2,1\n3,nan,-1\n")
    (tmp_path / "nolabel.csv").write_text("x,y\n1,2\n")
    (tmp_path / "oneclass.csv").write_text("x,y,label\n1,2,1\n")
    (tmp_path / "binary.csv").write_bytes(b"\x89PNG\r\n\x1a\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = cli("moons", *arguments.split())
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"flatgrad moons: error: {ERRORS[arguments]}\n"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("arguments", ["--data .", "--out ."])
def test_a_folder_is_not_a_file(cli, arguments):
    result = cli("moons", *arguments.split())
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"flatgrad moons: error: cannot (read|write) \.: .+\n", result.stderr)


def test_an_unwritable_picture_is_found_without_matplotlib_too(cli):
    result = cli("moons", "--out", "missing/a.png", python=WITHOUT_MATPLOTLIB)
    assert (result.returncode, result.stdout) == (2, "")


@pytest.mark.parametrize("size, arguments, what", [
    ("1e300", [], "the loss is nan at step 1"),
    ("1e308", ["--steps", 1], ""),  # the first loss is finite, what the update leaves is not
])
def test_divergence_is_told(cli, tmp_path, size, arguments, what):
    (tmp_path / "huge.csv").write_text(f"x,y,label\n{size},0,1\n-{size},0,0\n")
    result = cli("moons", "--data", "huge.csv", *arguments)
    assert result.returncode == 1
    assert re.fullmatch(rf"flatgrad moons: error: training diverged: {what}.*; coordinates reach "
                        rf"{re.escape(f'{float(size):g}')}\. Scale x and y .+\n", result.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["huge.csv"]


def test_a_rising_loss_is_told(cli, tmp_path):
    (tmp_path / "large.csv").write_text("x,y,label\n1000,2000,1\n-1000,3,0\n")
    hint = "\nThe loss went up. Scale x and y to a few units, or try another --seed.\n"
    for arguments, expected in (["--data", "large.csv"], True), ([], False):
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
            _, stderr = process.communicate(timeout=30)
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
                                stderr=subprocess.PIPE, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (
        2, "flatgrad: error: standard output: No space left on device\n")


@pytest.mark.skipif(os.name != "posix", reason="other systems encode file names otherwise")
def test_output_that_cannot_show_a_file_name(cli):
    pytest.importorskip("matplotlib")
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = cli("moons", "--steps", 1, "--out", "caf\u00e9.png", env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("Wrote caf\\xe9.png\n")
