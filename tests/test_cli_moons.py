"""``python -m flatgrad moons`` on coordinates of any size, and the formats of its picture."""
import re

import numpy as np
import pytest
from test_cli import PNG, STEP, WITHOUT_MATPLOTLIB, cli, command

from flatgrad.datasets import make_moons, read_csv
from flatgrad.nn import MLP

__all__ = ["cli", "command"]   # fixtures


def moved(path, scale, offset):
    """A file of the moons in other units; returns the labels."""
    X, y = make_moons(100, noise=0.1, random_state=0)
    rows = (X * scale + offset).tolist()
    path.write_text("x,y,label\n" + "".join(f"{a!r},{b!r},{label}\n" for (a, b), label in zip(rows, y.tolist())))
    return y


@pytest.mark.parametrize("scale, offset", [
    ([20000, 10], [50000, 40]), ([1, 1000], 0), (1e-6, 0), ([1, 1e-3], 0), (1, 1e9), (1e300, 0), (1e-300, 1e-300)], ids=str)
def test_coordinates_of_any_size_are_learnt(command, tmp_path, scale, offset):
    moved(tmp_path / "a.csv", scale, offset)
    code, out, err = command("moons --data a.csv --out a.png")
    assert (code, err) == (0, "")
    assert re.search(r"^Standardised for training: \(x - .+\) / .+, \(y - .+\) / .+$", out, re.MULTILINE)
    _, loss, accuracy = STEP.findall(out)[-1]
    assert float(loss) < 0.1 and float(accuracy) > 98


def test_coordinates_of_a_few_units_are_left_alone(command, tmp_path):
    moved(tmp_path / "a.csv", 4, 5)
    code, out, _ = command("moons --data a.csv --out a.png --lr 0.1")
    assert code == 0 and "Standardised" not in out


def test_a_column_of_one_number_is_not_divided_by_0(command, tmp_path):
    (tmp_path / "a.csv").write_text("x,y,label\n1000,0.1,1\n2000,0.1,0\n1100,0.1,1\n2100,0.1,0\n")
    code, out, err = command("moons --data a.csv --out a.png")
    assert (code, err) == (0, "") and "nan" not in out and float(STEP.findall(out)[-1][2]) == 100


def test_saved_weights_are_of_the_units_of_the_file(command, tmp_path):
    y = moved(tmp_path / "a.csv", [20000, 10], [50000, 40])
    assert command("moons --data a.csv --out a.png --save a.npz --hidden 8")[0] == 0
    model = MLP(2, [8, 1])
    model.load(tmp_path / "a.npz")
    X, _ = read_csv(tmp_path / "a.csv")
    scores = model(X).data[:, 0]
    accuracy = 100 * ((scores > 0) == (y > 0)).mean()
    assert accuracy > 90
    out = command("moons --data a.csv --out b.png --load a.npz --steps 1 --hidden 8")[1]
    expected = np.maximum(0.0, 1 - (2 * y - 1) * scores).mean()
    assert float(STEP.findall(out)[0][1]) == pytest.approx(expected, abs=0.05)   # and the penalty
    assert float(STEP.findall(out)[0][2]) == pytest.approx(accuracy)


BEGINNINGS = {"png": PNG, "svg": b"<?xml", "pdf": b"%PDF", "jpg": b"\xff\xd8", "": PNG, "SVG": b"<?xml"}


@pytest.mark.parametrize("ending", BEGINNINGS)
def test_the_ending_says_the_format(command, tmp_path, ending):
    pytest.importorskip("matplotlib")
    name = f"a.{ending}" if ending else "a"
    pictures = []
    for _ in range(2):
        assert command(f"moons --steps 2 --out {name}")[0] == 0
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0].startswith(BEGINNINGS[ending]) and pictures[0] == pictures[1]


def test_a_format_that_there_is_not(cli, command):
    pytest.importorskip("matplotlib")
    code, out, err = command("moons --out a.xyz")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"flatgrad moons: error: argument --out: expected a name that ends in \.pdf, \.png, \.svg, "
                        r".+ or \.\w+, got 'a\.xyz'\n", err)
    result = cli("moons", "--out", "a.xyz", python=WITHOUT_MATPLOTLIB)
    assert result.returncode == 2 and "expected a name that ends in .pdf, .png or .svg, got 'a.xyz'" in result.stderr


@pytest.mark.parametrize("line", ["sum --lr 3 --epochs 50", "parity --lr 3 --epochs 50"])
def test_small_problems_that_explode_are_told(command, line):
    code, _, err = command(line)
    assert code == 1 and re.search(r"error: training diverged: the loss is \d\.\d+e\+\d+ at epoch 50", err)
