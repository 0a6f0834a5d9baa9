"""The instruction counts that the repository keeps: a check fails if one grows, or says why it cannot."""
import json
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "bench" / "__main__.py").exists():
    pytest.skip("bench/ is not part of an installed package", allow_module_level=True)
sys.path.insert(0, str(ROOT))
counts = pytest.importorskip("bench.counts")
instructions = pytest.importorskip("bench.instructions")
main = pytest.importorskip("bench.__main__").main


class Tool:
    """In the place of valgrind: a start of 10^6 instructions, and `each` of them in a repeat of a workload."""

    def __init__(self, monkeypatch, capsys):
        self.each = {name: 1000 * (1000 + k) for k, name in enumerate(counts.WORKLOADS)}
        self.each["chain-backward"] *= 2   # of which the chain's are subtracted
        self.isa = counts.environment()["isa"]
        self.capsys = capsys
        monkeypatch.setitem(instructions.TOOLS, "callgrind", self.count)
        monkeypatch.setattr(instructions.shutil, "which", lambda name: name)

    def count(self, command, environment):
        assert environment["FLATGRAD_ISA"] == self.isa != "avx512"
        return 10**6 + self.each[command[-2]] * int(command[-1])

    def run(self, *arguments):
        """The exit code and the output of the command."""
        code = main(["--instructions", *map(str, arguments)])
        out, err = self.capsys.readouterr()
        return code, out + err


@pytest.fixture
def tool(monkeypatch, capsys):
    return Tool(monkeypatch, capsys)


@pytest.fixture
def file(tool, tmp_path):
    """A file with counts of this environment, and of another one."""
    path = tmp_path / "counts.json"
    other = {**counts.environment(), "python": "CPython 3.9.1", "counts": {"chain": 1.0}}
    path.write_text(json.dumps({"environments": [other]}))
    code, text = tool.run("--update", path)
    assert code == 0 and f"{len(counts.HOT)} of {len(counts.HOT)} counts changed" in text
    return path


def test_counts_that_are_kept_pass(tool, file):
    code, text = tool.run("--check", file)
    assert code == 0, text
    assert [line.split()[0] for line in text.splitlines()] == [name for name in counts.WORKLOADS if name in counts.HOT]
    assert text.count("+0.0 %") == len(counts.HOT)


@pytest.mark.parametrize("factor, passes", [(1.04, True), (1.06, False)])
def test_growth_by_more_than_5_percent_fails_until_its_line_is_changed(tool, file, factor, passes):
    tool.each["readme"] *= factor
    code, text = tool.run("--check", file)
    assert code == (not passes) and ("GROWN" in text) is not passes
    if not passes:
        [line] = [line for line in text.splitlines() if "GROWN" in line]
        assert line.startswith("readme ") and "+6.0 %" in line and "--update" in text
        before = file.read_text().splitlines()
        assert tool.run("--update", file)[0] == 0
        changed = [new for old, new in zip(before, file.read_text().splitlines()) if old != new]
        assert len(changed) == 1 and "readme" in changed[0]
        assert tool.run("--check", file)[0] == 0


def test_a_count_that_falls_passes_and_is_said(tool, file):
    tool.each["readme"] *= 0.9
    code, text = tool.run("--check", file)
    assert code == 0 and text.count("fallen: keep the new count") == 1


def test_small_changes_and_other_environments_keep_their_lines(tool, file):
    before = file.read_text()
    tool.each["readme"] *= 1.005
    assert tool.run("--update", file)[0] == 0
    assert file.read_text() == before and json.loads(before)["environments"][0]["python"] == "CPython 3.9.1"
    assert tool.run("--update", file, "--only", "fit-digits")[0] == 0   # not a hot path by itself
    assert "fit-digits" in json.loads(file.read_text())["environments"][1]["counts"]
    assert "fit-digits" in tool.run("--check", file)[1]


def test_a_hot_path_whose_count_is_not_kept_fails(tool, file):
    kept = json.loads(file.read_text())
    del kept["environments"][1]["counts"]["moons"]
    file.write_text(json.dumps(kept))
    code, text = tool.run("--check", file)
    assert code == 1 and "NOT KEPT" in text
    assert tool.run("--check", file, "--only", "chain")[0] == 0


@pytest.mark.parametrize("key, value", [("python", "CPython 3.11.99"), ("compiler", "GCC: (another) 99"),
                                        ("python_build", "GCC 99, --with-lto"), ("system", "Linux riscv64 glibc 2.99")])
def test_another_python_or_compiler_is_skipped_with_a_message(tool, file, key, value):
    kept = json.loads(file.read_text())
    kept["environments"] = [{**kept["environments"][1], key: value}]
    file.write_text(json.dumps(kept))
    code, text = tool.run("--check", file)
    assert code == 0 and text.startswith("skipped: ") and len(text.splitlines()) == 1
    assert f"{key}: here {counts.environment()[key]}, kept for {value}" in text


def test_without_valgrind_a_check_is_skipped_and_an_update_refused(tool, file, monkeypatch):
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    code, text = tool.run("--check", file)
    assert code == 0 and text.startswith("skipped: ") and "valgrind" in text
    code, text = tool.run("--update", file)
    assert code == 2 and "valgrind is not installed" in text


@pytest.mark.parametrize("text", ["no JSON", "{}", '{"environments": [{"counts": {"chain": 0}}]}',
                                  '{"environments": [1]}'])
def test_a_damaged_file_is_refused(tool, tmp_path, text):
    path = tmp_path / "counts.json"
    path.write_text(text)
    code, said = tool.run("--check", path)
    assert code == 2 and str(path) in said and len(said.splitlines()) == 1


def test_the_kernels_are_those_that_valgrind_knows():
    assert counts.level(["baseline", "avx2", "avx512"]) == "avx2" and counts.level(["baseline"]) == "baseline"
    assert counts.level(["baseline", "neon"]) == "neon"


def test_the_repository_keeps_every_hot_path():
    kept = counts.read(ROOT / "bench" / "counts.json")
    assert kept and all(set(each["counts"]) >= set(counts.HOT) and set(each["counts"]) <= set(counts.WORKLOADS)
                        for each in kept)
    assert all(each.keys() == {*counts.environment(), "counts"} for each in kept)


# Three more operations, beside the two dozen of micrograd's README expression.
PLANTED = """
import sys
from bench import probe, workloads
right = workloads.readme
def readme(Value):
    found = right(Value)
    found[0] + 1.0, found[1] * 2.0, found[2] - 3.0
    return found
workloads.readme = readme
probe.work(*sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("valgrind"), reason="there is no valgrind")
def test_work_that_is_planted_in_a_hot_path_fails_by_valgrind(tmp_path, monkeypatch, capsys):
    path = tmp_path / "counts.json"
    def run(*arguments):
        code = main(["--instructions", *arguments, str(path), "--only", "readme"])
        out, err = capsys.readouterr()
        return code, out + err
    code, text = run("--update")
    assert code == 0, text
    monkeypatch.setattr(instructions.processes, "command",
                        lambda kind, *arguments: [sys.executable, "-c", PLANTED, *map(str, arguments)])
    code, text = run("--check")
    assert code == 1 and text.startswith("readme ") and "GROWN" in text, text
