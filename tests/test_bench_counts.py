"""The instruction counts that the repository keeps: a check fails if one grows without its line, and says if it cannot."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "bench" / "__main__.py").exists():
    pytest.skip("bench/ is not part of an installed package", allow_module_level=True)
sys.path.insert(0, str(ROOT))
counts = pytest.importorskip("bench.counts")

# In the place of valgrind: a start of 10^6 instructions, and so many in each repeat. Each workload has another number.
FAKE = """
import sys
from bench import instructions
EACH = {name: 1000 * (1000 + k) for k, name in enumerate(instructions.WORKLOADS)}
instructions.shutil.which = lambda name: name
instructions.TOOLS["callgrind"] = lambda command, environment: 10**6 + EACH[command[-2]] * int(command[-1])
"""


def run(*arguments, patch=FAKE, timeout=120):
    return subprocess.run([sys.executable, "-c", f"{patch}\nimport sys\nfrom bench.__main__ import main\n"
                           f"sys.exit(main({['--instructions', *arguments]!r}))"],
                          cwd=ROOT, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def file(tmp_path):
    """A file with counts of this environment, and of another one."""
    path = tmp_path / "counts.json"
    other = {**counts.environment(), "python": "CPython 3.9.1", "counts": {"chain": 1.0}}
    path.write_text(json.dumps({"environments": [other]}))
    process = run("--update", str(path))
    assert process.returncode == 0 and f"{len(counts.HOT)} of {len(counts.HOT)} counts changed" in process.stdout
    return path


def test_counts_that_are_kept_pass(file):
    process = run("--check", str(file))
    assert process.returncode == 0, process.stdout + process.stderr
    assert [line.split()[0] for line in process.stdout.splitlines()] == [
        name for name in counts.WORKLOADS if name in counts.HOT]
    assert process.stdout.count("+0.0 %") == len(counts.HOT)


@pytest.mark.parametrize("factor, passes", [(1.04, True), (1.06, False)])
def test_growth_by_more_than_5_percent_fails_until_its_line_is_changed(file, factor, passes):
    planted = f'{FAKE}\nEACH["readme"] *= {factor}'
    process = run("--check", str(file), patch=planted)
    assert process.returncode == (not passes) and ("GROWN" in process.stdout) is not passes
    if not passes:
        [line] = [line for line in process.stdout.splitlines() if "GROWN" in line]
        assert line.startswith("readme ") and "+6.0 %" in line and "--update" in process.stdout
        before = file.read_text().splitlines()
        assert run("--update", str(file), patch=planted).returncode == 0
        changed = [new for old, new in zip(before, file.read_text().splitlines(), strict=True) if old != new]
        assert len(changed) == 1 and "readme" in changed[0]
        assert run("--check", str(file), patch=planted).returncode == 0


def test_a_count_that_falls_passes_and_is_said(file):
    process = run("--check", str(file), patch=f'{FAKE}\nEACH["chain"] *= 0.5\nEACH["chain-backward"] *= 0.75')
    assert process.returncode == 0 and process.stdout.count("fallen: keep the new count") == 1


def test_small_changes_and_other_environments_keep_their_lines(file):
    before = file.read_text()
    assert run("--update", str(file), patch=f'{FAKE}\nEACH["readme"] *= 1.005').returncode == 0
    assert file.read_text() == before and json.loads(before)["environments"][0]["python"] == "CPython 3.9.1"
    process = run("--update", str(file), "--only", "fit-digits")   # not a hot path by itself
    assert process.returncode == 0 and "fit-digits" in json.loads(file.read_text())["environments"][1]["counts"]
    assert "fit-digits" in run("--check", str(file)).stdout


def test_a_hot_path_whose_count_is_not_kept_fails(file):
    kept = json.loads(file.read_text())
    del kept["environments"][1]["counts"]["moons"]
    file.write_text(json.dumps(kept))
    process = run("--check", str(file))
    assert process.returncode == 1 and "NOT KEPT" in process.stdout
    assert run("--check", str(file), "--only", "chain").returncode == 0


@pytest.mark.parametrize("key, value", [("python", "CPython 3.11.99"), ("compiler", "GCC: (another) 99"),
                                        ("python_build", "GCC 99, --with-lto"), ("system", "Linux riscv64 glibc 2.99")])
def test_another_python_or_compiler_is_skipped_with_a_message(file, key, value):
    kept = json.loads(file.read_text())
    kept["environments"] = [{**kept["environments"][1], key: value}]
    file.write_text(json.dumps(kept))
    process = run("--check", str(file))
    assert process.returncode == 0 and process.stdout.startswith("skipped: ") and len(process.stdout.splitlines()) == 1
    assert f"{key}: here {counts.environment()[key]}, kept for {value}" in process.stdout


def test_without_valgrind_a_check_is_skipped_and_an_update_refused(file):
    missing = "import shutil\nshutil.which = lambda name: None"
    process = run("--check", str(file), patch=missing)
    assert process.returncode == 0 and process.stdout.startswith("skipped: ") and "valgrind" in process.stdout
    process = run("--update", str(file), patch=missing)
    assert process.returncode == 2 and "valgrind is not installed" in process.stderr


@pytest.mark.parametrize("text", ["no JSON", "{}", '{"environments": [{"counts": {"chain": 0}}]}', '{"environments": [1]}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    path = tmp_path / "counts.json"
    path.write_text(text)
    process = run("--check", str(path))
    assert process.returncode == 2 and str(path) in process.stderr and len(process.stderr.splitlines()) == 1


def test_the_kernels_are_those_that_valgrind_knows():
    assert counts.level(["baseline", "avx2", "avx512"]) == "avx2" and counts.level(["baseline"]) == "baseline"
    assert counts.level(["baseline", "neon"]) == "neon"
    process = run("--update", "/dev/null", "--only", "readme", patch=f"""{FAKE}
fake = instructions.TOOLS["callgrind"]
def counted(command, environment):
    assert environment["FLATGRAD_ISA"] == {counts.environment()["isa"]!r}, environment["FLATGRAD_ISA"]
    return fake(command, environment)
instructions.TOOLS["callgrind"] = counted
from bench import counts
counts.read = lambda path: []""")
    assert process.returncode == 0, process.stderr


def test_the_repository_keeps_every_hot_path():
    kept = counts.read(ROOT / "bench" / "counts.json")
    assert kept and all(set(each["counts"]) >= set(counts.HOT) and set(each["counts"]) <= set(counts.WORKLOADS)
                        for each in kept)
    assert all(each.keys() == {*counts.environment(), "counts"} for each in kept)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("valgrind"), reason="there is no valgrind")
def test_work_that_is_planted_in_a_hot_path_fails_by_valgrind(tmp_path):
    """One more operation in ten of micrograd's README expression."""
    path = tmp_path / "counts.json"
    process = run("--update", str(path), "--only", "readme", patch="", timeout=590)
    assert process.returncode == 0, process.stderr
    process = run("--check", str(path), "--only", "readme", timeout=590, patch="""
from bench import processes
right = processes.command
planted = '''import sys
from bench import probe, workloads
right = workloads.readme
def readme(Value):
    out = right(Value)
    out[0] + 1.0, out[1] * 2.0, out[2] - 3.0
    return out
workloads.readme = readme
probe.work(*sys.argv[1:])'''
processes.command = lambda kind, *arguments: [right(kind)[0], "-c", planted, *map(str, arguments)]""")
    assert process.returncode == 1 and "readme " in process.stdout and "GROWN" in process.stdout, process.stdout
