"""The benchmarks run, say what they should, and refuse to time what is wrong.

Nothing here asserts a speed: a test must not depend on what else the machine does.
"""
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "bench" / "__main__.py").exists(),
                                reason="bench/ is not part of an installed package")


def run(*command):
    """Python with these arguments, in the repository's root; what it printed, as text."""
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True,
                          timeout=120)


def bench(*arguments):
    return run("-m", "bench", *arguments)


def patched(patch, *arguments):
    """The benchmarks, after the lines `patch` have changed something in them."""
    return run("-c", f"import sys\nfrom bench import runner, workloads\n{patch}\n"
                     f"from bench.__main__ import main\nsys.exit(main({list(arguments)!r}))")


def test_quick_run_writes_table_and_json(tmp_path):
    file = tmp_path / "figures.json"
    process = bench("--quick", "--json", str(file), "--only", "chain", "chain-backward")
    assert process.returncode == 0, process.stderr
    assert "flatgrad / float" in process.stdout and "backward / forward" in process.stdout
    figures = json.loads(file.read_text())

    assert figures["quick"] is True and figures["garbage_collector"] is True
    assert figures["machine"].keys() == {"cpu", "cores", "usable_cores", "os"}
    assert {"python", "flatgrad", "micrograd", "numpy"} <= figures["versions"].keys()
    assert figures["versions"]["flatgrad"] and figures["isa"] and figures["date"]
    assert figures["threads"]["OMP_NUM_THREADS"]
    rows = {(row["case"], row["label"]): row for row in figures["rows"]}
    assert {name for name, _ in rows} == {"chain", "chain-backward"}
    row = rows["chain", "flatgrad / float"]
    assert row["target"] == "<= 2.2" and row["unit"] == "times"
    assert isinstance(row["met"], bool)
    assert len(row["rounds"]) == figures["processes"] * figures["rounds"]
    assert row["low"] <= row["value"] <= row["high"]
    assert row["seconds"].keys() == {"flatgrad", "float"}
    assert all(len(times) == len(row["rounds"]) for times in row["seconds"].values())


def test_rounds_of_several_processes_come_together(tmp_path):
    file = tmp_path / "figures.json"
    process = bench("--quick", "--processes", "2", "--rounds", "2", "--json", str(file),
                    "--only", "chain-backward")
    assert process.returncode == 0, process.stderr
    rows = json.loads(file.read_text())["rows"]
    assert [len(row["rounds"]) for row in rows] == [4] * len(rows)


def test_wrong_derivative_is_caught():
    process = patched("right = workloads.chain_gradients\n"
                      "def wrong(n):\n"
                      "    return {**right(n), 'a.grad': 1.001 * right(n)['a.grad']}\n"
                      "workloads.chain_gradients = wrong", "--quick", "--only", "chain")
    assert process.returncode == 1
    assert "a.grad" in process.stderr and len(process.stderr.splitlines()) == 1
    ours, wrong = map(float, re.findall(r"gives ([0-9.e+-]+)", process.stderr))
    assert abs(wrong / ours - 1.001) < 1e-6


def test_verify_compares_every_number():
    process = run("-c", """
from bench.runner import Contender, Mismatch, Session
session = Session(quick=True, rounds=1)
def contender(name, **results):
    return Contender(name, None, lambda: results)
one = contender("one", value=1.0, grad=2.0)
session.verify(one, contender("two", value=1.0, grad=2.0 + 1e-13), tolerance=1e-12)
for other in (contender("two", value=1.0, grad=2.002), contender("two", value=1.0),
              contender("two", value=1.0, grad=float("nan"))):
    try:
        session.verify(one, other, tolerance=1e-12)
    except Mismatch as mismatch:
        assert "one" in str(mismatch) and "two" in str(mismatch)
    else:
        raise AssertionError("a difference went by")
try:
    session.verify(one, contender("two", value=1.0 + 1e-15, grad=2.0), tolerance=1, exact=["value"])
except Mismatch:
    pass
else:
    raise AssertionError("a difference in the last bit went by")
""")
    assert process.returncode == 0, process.stderr


def test_missed_target_fails_only_if_strict():
    harder = "import bench.cases\nbench.cases.at_most = lambda bound: runner.at_most(0.0)"
    command = ["--quick", "--rounds", "1", "--only", "chain-backward"]
    process = patched(harder, *command)
    assert process.returncode == 0, process.stderr
    assert "MISSED" in process.stdout
    assert patched(harder, *command, "--strict").returncode == 1


def test_unknown_case_names_the_known_ones():
    process = bench("--only", "chian")
    assert process.returncode == 2
    assert "chian" in process.stderr and "chain-backward" in process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_unwritable_json_is_refused_before_measuring(tmp_path):
    process = bench("--json", str(tmp_path / "missing" / "figures.json"))
    assert process.returncode == 2
    assert "--json" in process.stderr and len(process.stderr.splitlines()) == 1


def test_without_micrograd_its_cases_are_skipped():
    hidden = "sys.modules['micrograd'] = None"
    process = patched(hidden, "--quick", "--rounds", "1", "--only", "chain")
    assert process.returncode == 0, process.stderr
    assert "flatgrad / float" in process.stdout
    assert "pip install micrograd" in process.stdout
    process = patched(hidden, "--quick", "--only", "readme")
    assert process.returncode == 2
    assert "pip install micrograd" in process.stderr


def test_list_and_instructions_without_a_tool():
    process = bench("--list")
    assert process.returncode == 0
    assert len(process.stdout.splitlines()) >= 7
    process = patched("import shutil\nshutil.which = lambda name: None", "--instructions")
    assert process.returncode == 2
    assert "valgrind" in process.stderr and len(process.stderr.splitlines()) == 1
