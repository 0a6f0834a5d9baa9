"""`python tests/checks`: what it lists, how long it runs, what it says of failures."""
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checks.limits import Limit

FOLDER = Path(__file__).parent / "checks"

PART = '''"""{what}"""
from checks.limits import Unavailable

SHORT = 0.01


def options(parser):
    parser.add_argument("--fail", type=int)
    parser.add_argument("things", nargs="*")


def shrunk(seed):
    return f"print({{seed}})"


def run(limit, options):
    {does}
    for seed in limit:
        assert seed != options.fail
    return f"{{limit.rounds}} rounds, {{limit.seeds}}, {{options.things}}"
'''


def run(*arguments, folder=FOLDER):
    return subprocess.run([sys.executable, str(folder), *arguments], capture_output=True, text=True, timeout=300)


@pytest.fixture
def folder(tmp_path):
    """Checks of three parts: one that passes, one that lacks something, one that ends its process."""
    made = tmp_path / "checks"
    made.mkdir()
    for name in "__init__.py", "__main__.py", "limits.py":
        (made / name).write_text((FOLDER / name).read_text("utf-8"), "utf-8")
    for name, does in ("good", "pass"), ("poor", "raise Unavailable('needs a spoon')"), ("ends", "import os; os._exit(7)"):
        (made / f"{name}.py").write_text(PART.format(what=f"About {name}.", does=does), "utf-8")
    return made


def test_every_part_is_listed_with_what_it_does():
    listed = run()
    assert listed.returncode == 0 and listed.stderr == ""
    parts = [path.stem for path in FOLDER.glob("*.py") if "\ndef run(limit, options):" in path.read_text("utf-8")]
    assert len(parts) >= 6
    for name in parts:
        line, = [line for line in listed.stdout.splitlines() if line.startswith(f"{name} ")]
        assert line.split(None, 1)[1].endswith(".")


def test_rounds_and_seeds(folder):
    done = run("good", "--count", "3", "--seed", "5", "x", folder=folder)
    assert (done.returncode, done.stdout) == (0, "good: 3 rounds, seeds 5 to 7, ['x']\n")
    done = run("good", "--count", "9", "--fail", "2", folder=folder)
    assert done.returncode == 1 and done.stderr.startswith("good: failed with --seed 2\nprint(2)\nTraceback")


def test_a_part_that_ends_its_process_is_told_and_the_others_run(folder):
    done = run("short", folder=folder)
    assert done.returncode == 1 and "good: " in done.stdout
    assert re.search(r"^ends: ended with 7 after \d+ s$", done.stderr, re.MULTILINE)
    assert "poor: left out: needs a spoon\n" in done.stderr
    assert run("short", "good", "poor", folder=folder).returncode == 0


@pytest.mark.parametrize("arguments, code, message", [
    (["poor"], 2, "poor: left out: needs a spoon\n"),
    (["goof"], 2, "checks: expected some of: short ends good poor, got 'goof'\n"),
    (["--count", "1"], 2, "checks: expected the name of a part before '--count'\n"),
    (["good", "--count", "0"], 2, "argument --count: invalid positive int value: '0'"),
    (["good", "--seconds", "nan"], 2, "argument --seconds: invalid positive float value: 'nan'"),
])
def test_mistakes(folder, arguments, code, message):
    done = run(*arguments, folder=folder)
    assert done.returncode == code and message in done.stderr and done.stdout == ""


def test_a_limit_has_one_round_at_least():
    assert list(Limit(seconds=1e-9)) == [0]
    assert [list(seeds) for seeds in Limit(count=7, seed=3).several(3)] == [[3, 4, 5], [6, 7, 8], [9]]
    limit = Limit(count=2)
    with pytest.raises(ZeroDivisionError):
        for _ in limit:
            if limit.rounds == 1:
                raise ZeroDivisionError
    assert limit.seed == 1
