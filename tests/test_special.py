"""Special numbers and the last digit: short forms of `python tests/checks special` and `ulps`, and docs/numbers.md."""
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checks import special, ulps

import flatgrad
from flatgrad import Tensor

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "numbers.md"
needs_page = pytest.mark.skipif(not PAGE.exists(), reason="not in a checkout")
LONG = pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="needs long doubles of 64 bits")


@pytest.mark.parametrize("kind, name", special.cases())
def test_a_part_of_the_table(kind, name):
    count, wrong = special.one(kind, name, 5, 37)
    assert not wrong and count > 0


def test_each_level_has_its_turn():
    done = subprocess.run([sys.executable, str(TESTS / "checks"), "special", "--short", "--count", "2"],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert all(level in done.stdout for level in flatgrad._core._kernel_levels())


@pytest.mark.parametrize("place, part, change", [
    ("elementwise", 0, lambda z: np.where(z == 0, -z, z)),             # the sign of a zero
    ("elementwise", 0, lambda z: np.where(np.isnan(z), np.inf, z)),
    ("elementwise", 1, lambda z: np.where(np.isinf(z), np.nan, z)),
    ("elementwise", 1, lambda z: z * (1.0 + 2.0**-52)),
    ("called", 0, lambda z: z * (1.0 - 2.0**-53)),
    ("finished", 1, lambda z: z * (1.0 + 1e-12)),
])
def test_one_wrong_number_is_found(monkeypatch, place, part, change):
    true = getattr(special, place)

    def off(*arguments):
        parts = true(*arguments)
        return [change(z) if k == part else z for k, z in enumerate(parts)]
    monkeypatch.setattr(special, place, off)
    with np.errstate(all="ignore"):
        assert special.one("row", "MUL", 0, 7)[1]


def test_an_error_in_another_lane_is_found(monkeypatch):
    monkeypatch.setattr(special, "at_element", lambda error, lane: f"{error} at {lane + 1}")
    assert any("expected" in words for words in special.one("row", "LOG", 0, 1)[1])


@LONG
@pytest.mark.parametrize("name", ulps.FUNCTIONS)
@pytest.mark.parametrize("dtype, bound", [("float64", 3), ("float32", 4)])
def test_a_few_points_are_within_the_bound(name, dtype, bound):
    x = ulps.points(name, dtype, 11, 10_000)
    units, at = ulps.worst(ulps.errors(ulps.Function(name, dtype)(x), *ulps.reference(name, dtype, x)), x)
    assert 0.3 < units <= ulps.FUNCTIONS[name][bound], at


@LONG
def test_two_units_more_are_found():
    x = ulps.points("exp", "float64", 3, 1000)
    got, (exact, unit) = flatgrad.exp(Tensor(x)).data, ulps.reference("exp", "float64", x)
    assert ulps.errors(got, exact, unit).max() < 1.2
    assert ulps.errors(got + 2 * unit, exact, unit).min() > 0.8
    assert ulps.worst(np.array([0.5, np.nan, 0.7]), np.arange(3.0)) == (np.inf, 1.0)


@needs_page
def test_the_page_has_the_tables():
    page = PAGE.read_text("utf-8")
    for part in "\n".join(special.table()).split("\n\n"):
        assert part in page, part.split("\n")[0]


@needs_page
def test_the_page_has_the_bounds():
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+)[^|]*\| ([\d.]+) \| ([\d.]+)[^|]*\|$",
                      PAGE.read_text("utf-8"), re.MULTILINE)
    assert [name for name, *_ in rows] == list(ulps.FUNCTIONS)
    for name, bound, seen, bound32, seen32 in rows:
        assert (float(bound), float(bound32)) == ulps.FUNCTIONS[name][3:5]
        assert float(seen) <= float(bound) and float(seen32) <= float(bound32)
