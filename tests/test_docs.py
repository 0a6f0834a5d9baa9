"""The Python in README.md and docs/*.md, run as it stands there; and pages that name what there is.

The blocks of a page run from top to bottom in one namespace, in a process and a folder of their own.
A block is plain Python, and then what it prints has to be what the ```text block right below it says, or
nothing; or it is a doctest (`>>>`). `...` in what is expected stands for anything. A comment above a
block, which no reader sees, can say that it needs something: `<!-- needs: torch -->`. It is skipped
where a package, a program (`program:dot`) or a name in a module of flatgrad is missing.

    python tests/test_docs.py docs/start.md       runs one page and says what differs
"""
import contextlib
import doctest
import importlib
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import pytest

import flatgrad

ROOT = Path(__file__).resolve().parent.parent
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if path.is_file()]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
BLOCK = re.compile(r"(?:^<!-- needs: (?P<needs>[^\n]*?) -->\n+)?^```python\n(?P<code>.*?)^```\n"
                   r"(?:\n*^```text\n(?P<output>.*?)^```\n)?", re.DOTALL | re.MULTILINE)


def blocks(text):
    """(line, what it needs, its code, what it should print) of each block of Python on a page."""
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code"))
        yield line, (found["needs"] or "").split(), found["code"], found["output"] or ""


def is_there(name):
    """Whether a module, a name in one or a program can be had: 'torch', 'flatgrad.nn.MLP', 'program:dot'."""
    if name.startswith("program:"):
        return shutil.which(name.removeprefix("program:")) is not None
    package, *rest = name.split(".")
    if importlib.util.find_spec(package) is None:
        return False
    found = importlib.import_module(package)   # what is there and broken is an error
    for part in rest:
        module = f"{getattr(found, '__name__', '')}.{part}"
        if hasattr(found, "__path__") and importlib.util.find_spec(module):
            found = importlib.import_module(module)
            continue
        try:
            found = getattr(found, part)
        except (AttributeError, ModuleNotFoundError):   # flatgrad's own __getattr__ imports
            return False
    return True


def run(code, expected, namespace, at):
    """What went wrong in a block, '' if nothing did."""
    report = []
    if code.lstrip().startswith(">>>"):
        example = doctest.DocTestParser().get_doctest(code, namespace, at, at, 0)
        doctest.DocTestRunner(optionflags=OPTIONS).run(example, out=report.append, clear_globs=False)
        namespace.update(example.globs)
        return "".join(report)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code, at, "exec"), namespace)
    except BaseException:
        return traceback.format_exc()
    if doctest.OutputChecker().check_output(expected, printed.getvalue(), OPTIONS):
        return ""
    return f"expected:\n{expected}\nprinted:\n{printed.getvalue()}"


def run_page(text, name):
    """Run a page's blocks. Returns how many ran, the names that the others need, and a report of failures."""
    namespace, ran, missing, failures = {"__name__": "__main__"}, 0, [], []
    for line, needs, code, expected in blocks(text):
        absent = [need for need in needs if not is_there(need)]
        if absent:
            missing += absent
            continue
        ran += 1
        wrong = run(code, expected, namespace, f"{name}, line {line}")
        if wrong:
            failures.append(f"{name}, line {line}:\n{wrong}")
    return ran, missing, "\n".join(failures)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page, tmp_path):
    if not any(True for _ in blocks(page.read_text("utf-8"))):
        return
    environ = {**os.environ, "MPLBACKEND": "Agg", "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-W", "error", __file__, page], cwd=tmp_path, env=environ,
                          capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"\d+ blocks? ran", done.stdout)


@pytest.mark.parametrize("text, failed", [
    ("```python\n>>> 1 + 1\n2\n```\n", ""),
    ("```python\n>>> 1 + 1\n3\n```\n", "Expected:\n    3"),
    ("```python\nprint(1.25)\n```\n\n```text\n1.2...\n```\n", ""),
    ("```python\nprint(1.25)\n```\n\n```text\n1.3\n```\n", "expected:\n1.3"),
    ("```python\nprint(1.25)\n```\n", "printed:\n1.25"),
    ("```python\nx = 1\n```\n\n```python\n>>> x\n1\n```\n\n```python\nassert x == 1\n```\n", ""),
    ("```python\nx = 1 / 0\n```\n", "ZeroDivisionError"),
    ("<!-- needs: no_such_package -->\n```python\nx = 1 / 0\n```\n", ""),
    ("<!-- needs: flatgrad.Value.no_such_name -->\n\n```python\nx = 1 / 0\n```\n", ""),
    ("<!-- needs: flatgrad.no_such_module.name -->\n```python\nx = 1 / 0\n```\n", ""),
    ("<!-- needs: flatgrad.nn.MLP -->\n```python\nx = 1 / 0\n```\n", "ZeroDivisionError"),
])
def test_what_a_page_says_is_checked(text, failed):
    ran, missing, report = run_page(text, "page")
    assert bool(report) == bool(failed)
    assert failed in report
    assert ran + len(missing) == text.count("```python")


def test_every_block_of_python_is_found():
    for page in PAGES:
        text = page.read_text("utf-8")
        assert len(list(blocks(text))) == len(re.findall(r"^[ \t]*```[ \t]*(?:python|py|pycon)\b", text, re.MULTILINE)), page.name
        assert text.count("<!-- needs:") == sum(bool(needs) for _, needs, _, _ in blocks(text)), page.name


def test_c_is_that_of_the_sources():
    sources = "".join(path.read_text("utf-8") for path in sorted((ROOT / "csrc").iterdir()))
    for page in PAGES:
        for code in re.findall(r"^```c\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            assert code in sources, page.name


def test_names_are_there():
    named = set()
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        for package, name in re.findall(r"`(flatgrad|losses)\.([a-zA-Z_.]+\w)(?=[`(])", text):
            named.add(f"flatgrad.{name}" if package == "flatgrad" else f"flatgrad.losses.{name}")
    assert len(named) > 10
    assert {name for name in named if not is_there(name)} == set()


def test_the_reference_tells_what_flatgrad_has_of_other_modules():
    rows = re.findall(r"^\| `flatgrad\.(\w+)` \| (.+) \|$", (ROOT / "docs" / "api.md").read_text("utf-8"), re.MULTILINE)
    told = {name: module for module, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert {name for name, module in told.items()
            if getattr(flatgrad, name) is not getattr(importlib.import_module(f"flatgrad.{module}"), name)} == set()
    elsewhere = {name: getattr(getattr(flatgrad, name), "__module__", None) or "" for name in dir(flatgrad)}
    assert {name for name, of in elsewhere.items() if of.startswith("flatgrad.") and of != "flatgrad._core"} == set(told)


def without_code(text):
    return re.sub(r"^```(?!{).*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """The anchors of a page's headings, as GitHub and MyST name them: of what it includes as well."""
    text = page.read_text("utf-8")
    included = [page.parent / name for name in re.findall(r"^```{include} (\S+)$", text, re.MULTILINE)]
    found = {anchor for path in included if path.is_file() for anchor in anchors(path)}
    for heading in re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE):
        heading = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", heading).replace(" ", "-"))
    return found


def lost_anchors(page):
    """The links of a page to headings that are not there."""
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", without_code(page.read_text("utf-8"))):
        path = page.parent / target if target else page
        if "://" not in target and path.suffix == ".md" and anchor not in anchors(path):
            yield f"{page.name}: {target}#{anchor}"


def test_links_to_headings_lead_somewhere():
    others = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "examples" / "README.md"]
    assert [lost for page in (*PAGES, *others) if page.is_file() for lost in lost_anchors(page)] == []


def test_a_link_to_a_heading_that_is_not_there_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# On `nan`, and inf\n```\n# no heading\n```\n```{include} third.md\n```\n", "utf-8")
    (tmp_path / "third.md").write_text("## More\n", "utf-8")
    page = tmp_path / "page.md"
    page.write_text("## Here\n[a](#here) [b](other.md#on-nan-and-inf) [c](other.md#more) [d](other.md#no-heading) [e](#gone)\n", "utf-8")
    assert list(lost_anchors(page)) == ["page.md: other.md#no-heading", "page.md: #gone"]


def test_links_lead_somewhere():
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target and not target.startswith("api/"):   # made by docs/conf.py
                assert (page.parent / target).exists(), f"{page.name}: {target}"
                if page.parent != ROOT and target.endswith(".md"):   # Sphinx knows the pages of docs/ only
                    assert (page.parent / target).resolve() in PAGES, f"{page.name}: {target}"


if __name__ == "__main__":
    path, before = Path(sys.argv[1]), os.getcwd()
    text = path.read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:   # pages write files
        os.chdir(folder)
        try:
            count, lacking, wrong = run_page(text, path.name)
        finally:
            os.chdir(before)
    print(f"{count} block{'s' * (count != 1)} ran", *(f"skipped: no {name}" for name in lacking), sep="\n")
    print(wrong, end="")
    sys.exit(bool(wrong))
