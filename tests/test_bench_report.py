"""The page of a run: self-contained, with the run's figures; a library that computes other numbers is not timed."""
import importlib.util
import json
import re
import statistics
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "bench" / "__main__.py").exists(),
                                reason="bench/ is not part of an installed package")
needs_matplotlib = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="there is no matplotlib")

HIDDEN = "sys.modules['torch'] = sys.modules['jax'] = None"   # quick, and the same everywhere


def run(*command):
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=300)


def patched(patch, *arguments):
    """The benchmarks, after the lines `patch` have changed something in them."""
    return run("-c", f"import sys\n{patch}\nfrom bench.__main__ import main\nsys.exit(main({list(arguments)!r}))")


class Page(HTMLParser):
    """What is open at the end, the cells of all tables, how many plots there are, and what a browser would load."""

    VOID = {"meta", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.plots, self.loads = [], [], 0, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.plots += tag == "svg"
        self.loads += [value for name, value in attributes
                       if name.split(":")[-1] in ("href", "src") and value[:1] != "#"]
        if tag in ("script", "link", "iframe", "object", "img"):
            self.loads.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.loads += [value for name, value in attributes
                       if name.split(":")[-1] in ("href", "src") and value[:1] != "#"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The figures and the page of a quick run, without large libraries."""
    folder = tmp_path_factory.mktemp("report")
    process = patched(HIDDEN, "--quick", "--only", "size", "batch", "nodes", "xor", "--json", str(folder / "run.json"),
                      "--report", str(folder / "run.html"))
    assert process.returncode == 0, process.stderr
    return folder


@needs_matplotlib
def test_the_page_needs_no_network_and_has_the_figures_of_the_run(saved):
    figures = json.loads((saved / "run.json").read_text())
    text = (saved / "run.html").read_text("utf-8")
    page = Page(text)
    assert page.open == [] and page.loads == [] and not re.search(r"@import|url\((?!#)", text)
    assert page.plots == 4   # three curves, and the ratios of xor
    found = {(row[0], row[1]): row for row in page.rows if len(row) > 4}
    from bench.report import figure
    for row in figures["rows"]:
        assert found[row["case"], row["label"]][2] == figure(statistics.median(row["rounds"]))
    facts = {row[0]: row[1] for row in page.rows if len(row) == 2}
    assert figures["machine"]["cpu"] in facts["processor"] and facts["system"] == figures["machine"]["os"]
    assert figures["isa"] in facts["kernels"] and figures["core"]["flags"] == facts["flags of the C compiler"]
    assert "-std=c11" in facts["flags of the C compiler"]
    pins = {row[0]: row[1:] for row in page.rows if len(row) == 4}
    wanted = dict(re.findall(r"^(\w+)==([\d.]+)", (ROOT / "bench" / "peers.txt").read_text("utf-8"), re.MULTILINE))
    assert {name: row[1] for name, row in pins.items() if name in wanted} == wanted
    assert pins["micrograd"][0] == figures["versions"]["micrograd"]


@needs_matplotlib
def test_curves_have_places_ratios_and_spread(saved):
    rows = json.loads((saved / "run.json").read_text())["rows"]
    size = [row for row in rows if row["case"] == "size"]
    assert [(row["axis"], row["x"], row["label"]) for row in size] == [
        ("operations", x, f"micrograd / flatgrad, operations {x}") for x in (29, 299)]
    batch = {(row["label"].split(" / ")[0], row["x"]) for row in rows if row["case"] == "batch"}
    assert batch == {(name, x) for name in ("micrograd", "numpy") for x in (1, 10)}
    assert all(len(row["rounds"]) == 2 and row["low"] <= row["value"] <= row["high"] for row in size)
    nodes = {row["label"].split(",")[0] for row in rows if row["case"] == "nodes"}
    assert nodes == {"flatgrad", "micrograd"}


@needs_matplotlib
def test_a_saved_run_is_drawn_without_measuring_and_words_are_escaped(saved, tmp_path):
    figures = json.loads((saved / "run.json").read_text())
    figures["cases"]["size"] = "a < b & <script>alert(1)</script>"
    figures["core"]["assertions"] = True
    figures["versions"]["micrograd"] = "0.0.9"
    (tmp_path / "odd.json").write_text(json.dumps(figures))
    process = run("-m", "bench", "--report", str(tmp_path / "odd.html"), "--from", str(tmp_path / "odd.json"))
    assert process.returncode == 0 and process.stdout == "", process.stderr
    page = Page((tmp_path / "odd.html").read_text("utf-8"))
    assert page.loads == [] and page.plots == 4
    assert "A &lt; b &amp; &lt;script&gt;" in (tmp_path / "odd.html").read_text("utf-8")
    assert "assertions on" in (tmp_path / "odd.html").read_text("utf-8")
    assert ["micrograd", "0.0.9", "0.1.0", "NOT AS PINNED"] in page.rows


@needs_matplotlib
def test_a_library_that_computes_other_numbers_is_shown_as_such_and_not_timed(tmp_path):
    process = patched(f"""{HIDDEN}
from dataclasses import replace
from bench import peers
right = peers.numpy_trainer
peers.TRAINERS["numpy"] = lambda problem: right(replace(problem, rates=[1.001 * rate for rate in problem.rates]))""",
                      "--quick", "--rounds", "1", "--only", "batch", "--json", str(tmp_path / "run.json"), "--report",
                      str(tmp_path / "run.html"))
    assert process.returncode == 1
    assert len(process.stderr.splitlines()) == 2 and "numpy gives" in process.stderr   # at both places of the curve
    figures = json.loads((tmp_path / "run.json").read_text())
    assert {row["label"].split(" / ")[0] for row in figures["rows"]} == {"micrograd"}
    differing = [skip for skip in figures["skipped"] if skip["differs"]]
    assert [skip["label"] for skip in differing] == ["numpy / flatgrad, batch 1", "numpy / flatgrad, batch 10"]
    page = Page((tmp_path / "run.html").read_text("utf-8"))
    for skip in differing:
        assert ["batch", skip["label"], skip["reason"]] in page.rows and "numpy gives" in skip["reason"]
    assert "computed other numbers" in (tmp_path / "run.html").read_text("utf-8")


@pytest.mark.parametrize("patch, arguments, words", [
    ("import importlib.util as u\nfound = u.find_spec\n"
     "u.find_spec = lambda name: None if name == 'matplotlib' else found(name)",
     ["--report", "FOLDER/page.html"], "pip install 'flatgrad[viz]'"),
    ("", ["--report", "FOLDER/missing/page.html"], "--report: cannot write"),
    ("", ["--report", "FOLDER/page.html", "--from", "FOLDER/none.json"], "--from: cannot read"),
    ("", ["--report", "FOLDER/page.html", "--from", str(ROOT / "README.md")], "--from: expected a file that --json"),
])
@needs_matplotlib
def test_what_cannot_be_drawn_is_refused_before_measuring(tmp_path, patch, arguments, words):
    process = patched(patch, *(word.replace("FOLDER", str(tmp_path)) for word in arguments))
    assert process.returncode == 2 and process.stdout == ""
    assert words in process.stderr and len(process.stderr.splitlines()) == 1


def test_what_does_not_go_together_is_refused():
    for arguments in (["--report", "x.html", "--instructions"], ["--from", "x.json"], ["--check"],
                      ["--instructions", "perf", "--update"]):
        process = run("-m", "bench", *arguments)
        assert process.returncode == 2 and "error: " in process.stderr, arguments


SCALING = ["size", "width", "batch", "depth", "nodes"]


def test_the_list_of_scaling():
    process = run("-m", "bench", "--scaling", "--list")
    assert [line.split()[0] for line in process.stdout.splitlines()] == SCALING


@needs_matplotlib
def test_the_list_of_the_report():
    process = run("-m", "bench", "--report", "unused.html", "--list")
    both = [line.split()[0] for line in process.stdout.splitlines()]
    assert both[:5] == SCALING and {"readme", "moons", "digits", "xor", "gpt"} <= set(both)
    assert not (ROOT / "unused.html").exists()
