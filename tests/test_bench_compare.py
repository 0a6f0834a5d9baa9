"""The comparison of two saved runs: what exceeds the noise, and which runs cannot be compared."""
import copy
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "bench" / "__main__.py").exists():
    pytest.skip("bench/ is not part of an installed package", allow_module_level=True)
sys.path.insert(0, str(ROOT))
comparison = pytest.importorskip("bench.comparison")


def row(label, rounds, unit="times", **seconds):
    return {"case": "chain", "label": label, "unit": unit, "per": "operation", "work": "", "rounds": rounds,
            "seconds": seconds}


def saved(*rows, processes=5, **facts):
    """A run, as --json writes it."""
    return {"schema": 1, "quick": False, "sources": "0123", "isa": "avx2", "clock": "process_time",
            "garbage_collector": True, "python_build": "GCC 12.2.0", "processes": processes, "rounds": 5,
            "machine": {"cpu": "a processor", "cores": 2, "usable_cores": 2, "os": "Linux"}, "threads": {"python": 1},
            "versions": {"python": "3.11.7", "flatgrad": "0.1.0", "torch": None}, "rows": list(rows), "skipped": [],
            **facts}


def noisy(draw, processes=5, rounds=5, factor=1.0):
    """Rounds as a machine gives them: a process is 10 % off for its placement, and a round 3 % more."""
    return [factor * placed * math.exp(draw.gauss(0.0, 0.03))
            for placed in (math.exp(draw.gauss(0.0, 0.10)) for _ in range(processes)) for _ in range(rounds)]


def share_of_changes(factor, processes, runs=1000):
    draw = random.Random(17)
    found = [comparison.compare(saved(row("a", noisy(draw, processes)), processes=processes),
                                saved(row("a", noisy(draw, processes, factor=factor)), processes=processes)).changes[0]
             for _ in range(runs)]
    return sum(change.changed for change in found) / runs


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_noise_is_seldom_called_a_change(processes):
    assert share_of_changes(1.0, processes) <= 0.02   # 1 % of 1,000, with some room


def test_a_change_beyond_the_noise_is_found():
    assert share_of_changes(1.5, 5) >= 0.95
    assert share_of_changes(3.0, 3) >= 0.9   # three processes find only large ones


def test_the_interval_is_that_of_scipy_or_wider():
    stats = pytest.importorskip("scipy.stats")
    draw = random.Random(3)
    for one, two in (2, 2), (3, 5), (5, 5), (9, 14):
        a, b = ([math.exp(draw.gauss(0.0, 0.1)) for _ in range(n)] for n in (one, two))
        logs = [[math.log(x) for x in numbers] for numbers in (b, a)]
        test = stats.ttest_ind(*logs, equal_var=False)
        right = test.confidence_interval(0.99)
        low, high = map(math.log, comparison.welch(a, b))
        assert low <= right.low + 1e-12 and high >= right.high - 1e-12
        assert abs((low + high) - (right.low + right.high)) < 1e-12
    for k in range(100, 20_000, 7):   # and hardly wider
        assert 1.0 <= comparison.student(k / 100) / stats.t.ppf(0.995, k / 100) < (1.6 if k < 200 else 1.05), k


def test_bytes_that_repeat_exactly_have_no_noise():
    def compared(before, after):
        return comparison.compare(saved(row("bytes", [before] * 5, "bytes")),
                                  saved(row("bytes", [after] * 5, "bytes"))).changes[0]
    assert compared(34.0, 34.0).changed is False and compared(34.0, 34.1).changed is True


def test_with_one_process_the_noise_is_unknown():
    found = comparison.compare(saved(row("a", [1.0, 1.1]), processes=1), saved(row("a", [9.0, 9.1]), processes=1))
    assert found.changes[0].changed is None
    from bench.report import aligned
    assert "noise unknown" in comparison.table(found, aligned)


# ---- as a command ----

def compare(tmp_path, before, after, *arguments):
    for name, run in ("a", before), ("b", after):
        (tmp_path / f"{name}.json").write_text(run if isinstance(run, str) else json.dumps(run))
    return subprocess.run([sys.executable, "-m", "bench", "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json"),
                           *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)


ONE = saved(row("flatgrad / float", [1.5, 1.51, 1.49, 1.5, 1.52], flatgrad=[30e-9] * 5, float=[20e-9] * 5))
TWO = saved(row("flatgrad / float", [3.0, 3.01, 2.99, 3.0, 3.02], flatgrad=[60e-9] * 5, float=[20e-9] * 5))


def test_a_change_is_named_with_its_ratio_and_strict_fails(tmp_path):
    process = compare(tmp_path, ONE, TWO)
    assert process.returncode == 0, process.stderr
    first, ours, floats = process.stdout.splitlines()[1:4]
    assert first.split()[:6] == ["chain", "flatgrad", "/", "float", "1.50", "3.00"] and first.endswith("MORE")
    assert "2.000" in first and ours.split()[:5] == ["flatgrad", "30.0", "ns", "60.0", "ns"] and ours.endswith("MORE")
    assert "1.000" in floats and "MORE" not in floats
    assert "2 of 3 figures have changed by more than the noise: chain, flatgrad / float: +100.0 %" in process.stdout
    assert compare(tmp_path, ONE, TWO, "--strict").returncode == 1
    assert compare(tmp_path, ONE, ONE, "--strict").returncode == 0
    assert "| chain | flatgrad / float | 1.50 | 3.00 | 2.000 |" in compare(tmp_path, ONE, TWO, "--markdown").stdout


@pytest.mark.parametrize("change, words", [
    (lambda run: run["machine"].update(cpu="another processor"), "machine cpu: a processor and another processor"),
    (lambda run: run.update(quick=True), "quick sizes: False and True"),
    (lambda run: run.update(sources="4567"), "the benchmarks' code: 0123 and 4567"),
    (lambda run: run.update(isa="avx512"), "isa: avx2 and avx512"),
    (lambda run: run["versions"].update(torch="2.13.0"), "torch: None and 2.13.0"),
    (lambda run: run["versions"].update(python="3.12.1"), "python: 3.11.7 and 3.12.1"),
    (lambda run: run["threads"].update(OMP_NUM_THREADS="2"), "threads OMP_NUM_THREADS: None and 2"),
])
def test_other_machines_and_workloads_are_refused_unless_asked(tmp_path, change, words):
    other = copy.deepcopy(TWO)
    change(other)
    process = compare(tmp_path, ONE, other)
    assert process.returncode == 2 and process.stdout == ""
    assert words in process.stderr and "--anyway" in process.stderr and len(process.stderr.splitlines()) == 1
    process = compare(tmp_path, ONE, other, "--anyway")
    assert process.returncode == 0 and f"not the same: {words}" in process.stdout


def test_another_version_of_flatgrad_is_what_a_comparison_is_for(tmp_path):
    other = copy.deepcopy(TWO)
    other["versions"]["flatgrad"] = "0.2.0"
    assert compare(tmp_path, ONE, other).returncode == 0


def test_what_only_one_run_has_is_named_and_nothing_in_common_is_refused(tmp_path):
    more = saved(*ONE["rows"], row("torch / flatgrad", [2.0] * 5))
    assert "only in the second: chain (torch / flatgrad)" in compare(tmp_path, ONE, more).stdout
    assert "only in the first: chain (torch / flatgrad)" in compare(tmp_path, more, ONE).stdout
    process = compare(tmp_path, ONE, saved(row("torch / flatgrad", [2.0] * 5)))
    assert process.returncode == 2 and "no figure is in both" in process.stderr


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"instructions": []}'])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path, text):
    process = compare(tmp_path, ONE, text)
    assert process.returncode == 2 and "b.json" in process.stderr and len(process.stderr.splitlines()) == 1


def test_two_quick_runs_can_be_compared(tmp_path):
    files = [str(tmp_path / f"{name}.json") for name in "ab"]
    for file in files:
        process = subprocess.run([sys.executable, "-m", "bench", "--quick", "--only", "chain-backward", "--processes",
                                  "2", "--rounds", "1", "--json", file], cwd=ROOT, capture_output=True, text=True,
                                 timeout=300)
        assert process.returncode == 0, process.stderr
    process = subprocess.run([sys.executable, "-m", "bench", "compare", *files], cwd=ROOT, capture_output=True,
                             text=True)
    assert process.returncode == 0, process.stderr
    assert "backward / forward" in process.stdout and "noise unknown" not in process.stdout
