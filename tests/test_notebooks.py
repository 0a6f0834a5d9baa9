"""examples/notebooks: each .ipynb has the cells of its source, small outputs without anything of a machine, and the
outputs of a run from now. The run needs nbclient, ipykernel and matplotlib; CI has them in the part `docs`."""
import copy
import json
import re

import notebooks
import pytest

pytestmark = pytest.mark.skipif(not notebooks.NOTEBOOKS.is_dir(),
                                reason="examples/ is not part of an installed package")
NAMES = notebooks.names()
# What a machine, a user or a process leaves in an output: folders, addresses, numbers of processes.
OF_A_MACHINE = re.compile(r"(?<![\w.])/(?:home|root|tmp|usr|work|var|Users|private)/|[A-Z]:\\|site-packages"
                          r"|\b0x[0-9a-f]{6,}\b|ipykernel_\d+")


def cell(source="x", *outputs, tags=()):
    return {"id": "a", "cell_type": "code", "metadata": {"tags": list(tags)}, "source": source,
            "outputs": list(outputs), "execution_count": 1}


def stream(text, name="stdout"):
    return {"output_type": "stream", "name": name, "text": text}


def shown(**data):
    return {"output_type": "display_data", "metadata": {}, "data": {key.replace("_", "/"): data[key] for key in data}}


def book(*cells):
    return {"cells": list(cells)}


def test_there_are_notebooks():
    assert {"gpt", "moons", "physics", "tape", "ten_minutes"} <= set(NAMES)
    assert {path.stem for path in notebooks.NOTEBOOKS.glob("*.ipynb")} == set(NAMES)
    listed = (notebooks.NOTEBOOKS.parent / "README.md").read_text("utf-8")
    assert [name for name in NAMES if f"(notebooks/{name}.ipynb)" not in listed] == []
    assert sum(path.stat().st_size for path in notebooks.NOTEBOOKS.glob("*.ipynb")) < 1_500_000


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_has_the_cells_of_its_source(name):
    book = notebooks.kept(name)
    bare = [{**each, "outputs": [], "execution_count": None} if each["cell_type"] == "code" else each
            for each in book["cells"]]
    assert bare == list(notebooks.cells_of(notebooks.source_of(name)))
    assert book["metadata"] == notebooks.METADATA and (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    ran = [each["execution_count"] for each in book["cells"] if each["cell_type"] == "code"]
    assert ran == list(range(1, len(ran) + 1))   # all of them, from top to bottom
    assert book["cells"][0]["source"].startswith("# ")   # a title


@pytest.mark.parametrize("name", NAMES)
def test_outputs_have_nothing_of_a_machine(name):
    for each in notebooks.kept(name)["cells"]:
        for output in each.get("outputs", ()):
            assert output["output_type"] != "error" and output.get("name") != "stderr"
            texts = [output.get("text", ""),
                     *(text for kind, text in output.get("data", {}).items() if kind != "image/png")]
            assert [OF_A_MACHINE.findall(text) for text in texts if OF_A_MACHINE.search(text)] == []


@pytest.mark.parametrize("text, found", [
    ("File /" "home/me/a.py", True), ("at 0x7f3a2b1c4d50", True), ("/" "tmp/a/3.py", True), ("ipykernel_12", True),
    ("C:\\Users", True), ("a / b and c/d", False), ("0x1f", False), ("see /usr/bin", True),
])
def test_the_checker_knows_a_machine(text, found):
    assert bool(OF_A_MACHINE.search(text)) is found


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    for each in notebooks.kept(name)["cells"]:
        if each["cell_type"] == "markdown":
            for target in re.findall(r"\]\(([^)#]+)\)", each["source"]):
                assert (notebooks.NOTEBOOKS / target).is_file(), target


@pytest.mark.filterwarnings("ignore")   # those of nbclient and its like; a cell's are in its outputs
@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_run_gives_the_kept_outputs(name):
    for package in "nbclient", "ipykernel", "matplotlib":
        pytest.importorskip(package)
    now = notebooks.executed(notebooks.cells_of(notebooks.source_of(name)))
    assert list(notebooks.differences(notebooks.kept(name), now)) == []


def test_the_checker_finds_a_changed_number_in_a_real_notebook():
    now = notebooks.kept("ten_minutes")
    old = copy.deepcopy(now)
    first = next(each for each in old["cells"] if each.get("outputs"))
    assert "14.0000" in first["outputs"][0]["text"]
    first["outputs"][0]["text"] = first["outputs"][0]["text"].replace("14.0000", "14.3000")
    [found] = notebooks.differences(old, now)
    assert "kept is" in found and "14.3000" in found and "14.0000" in found


@pytest.mark.parametrize("old, now, same", [
    (cell("x", stream("loss 0.911\n")), cell("x", stream("loss 0.912\n")), True),
    (cell("x", stream("loss 0.911\n")), cell("x", stream("loss 0.941\n")), False),
    (cell("x", stream("loss 0.911\n")), cell("y", stream("loss 0.911\n")), False),
    (cell("x", stream("1.2 ms a step\n")), cell("x", stream("9.8 ms a step\n")), True),
    (cell("x", stream("names: a\n")), cell("x", stream("names: b\n")), False),
    (cell("x", stream("names: a\n"), tags=["varies"]), cell("x", stream("names: b\n")), True),
    (cell("x", stream("names: a\n"), tags=["varies"]), cell("x"), False),
    (cell("x", stream("1\n")), cell("x", stream("1\n", "stderr")), False),
    (cell("x", shown(image_png="a", text_plain="Figure")), cell("x", shown(image_png="b", text_plain="Figure")), True),
    (cell("x", shown(image_png="a", text_plain="Figure")), cell("x", shown(text_plain="Figure")), False),
    (cell("x", shown(text_plain="3.0")), cell("x", shown(text_plain="4.0")), False),
])
def test_the_checker_compares(old, now, same):
    assert (list(notebooks.differences(book(old), book(now))) == []) is same


def test_the_checker_finds_another_number_of_cells():
    assert len(list(notebooks.differences(book(cell()), book(cell(), cell())))) == 1


@pytest.mark.filterwarnings("ignore")
def test_a_cell_that_fails_is_an_error():
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="no_such_name"):
        notebooks.executed(notebooks.cells_of("# %%\nno_such_name\n"))


def test_a_source_becomes_cells_and_a_file():
    text = "# %% [markdown]\n# # Title\n#\n# words\n\n# %%\nx = 1\n\nx\n\n# %% varies\nprint(x)\n"
    first, second, third = cells = list(notebooks.cells_of(text))
    assert (first["cell_type"], first["source"]) == ("markdown", "# Title\n\nwords")
    assert (second["cell_type"], second["source"], second["metadata"]) == ("code", "x = 1\n\nx", {})
    assert third["metadata"] == {"tags": ["varies"]}
    second["outputs"] = [stream("1\n2\n")]
    again = notebooks.joined(json.loads(notebooks.written({"cells": copy.deepcopy(cells)})))
    assert again["cells"] == cells


@pytest.mark.parametrize("text, wrong", [("x = 1\n# %%\n", "expected '# %%'"),
                                         ("# %% [markdown]\nwords\n", "expected a comment")])
def test_a_source_that_is_none(text, wrong):
    with pytest.raises(ValueError, match=wrong):
        list(notebooks.cells_of(text))
