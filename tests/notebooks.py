"""The notebooks of examples/notebooks: each .ipynb is made of the .py of its name, and keeps the outputs of a run.

    python tests/notebooks.py [NAME ...]           make them, all or those named: run them, and write the .ipynb
    python tests/notebooks.py --check [NAME ...]   run them, and say what is not as the .ipynb has it

A notebook is edited in its .py file: ``# %% [markdown]`` begins a cell of text, whose lines are comments, and ``# %%``
a cell of code. ``# %% varies`` begins one whose numbers differ from run to run or from machine to machine, so that only
the kinds of its outputs are compared. Both commands need nbclient and ipykernel, and matplotlib for the pictures; the
extra `docs` and matplotlib bring all of these.
"""
import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path

from outputs import same_output

NOTEBOOKS = Path(__file__).resolve().parent.parent / "examples" / "notebooks"
MARK = re.compile(r"^# %%(?: (\[markdown\]|varies))?$", re.MULTILINE)
VARIES = "varies"
# Versions are no part of it: they would change with each run.
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"}}


def names():
    return sorted(path.stem for path in NOTEBOOKS.glob("*.py"))


def cells_of(text):
    """The cells of a source as a notebook has them, without outputs."""
    before, *parts = MARK.split(text)
    if before.strip():
        raise ValueError(f"expected '# %%' at the beginning, got {before.splitlines()[0]!r}")
    for k, (kind, body) in enumerate(zip(parts[::2], parts[1::2])):
        body = body.strip("\n")
        cell = {"id": f"cell-{k}", "metadata": {"tags": [VARIES]} if kind == VARIES else {}}
        if kind == "[markdown]":
            lines = body.splitlines()
            wrong = [line for line in lines if line != "#" and not line.startswith("# ")]
            if wrong:
                raise ValueError(f"expected a comment in a cell of text, got {wrong[0]!r}")
            yield {**cell, "cell_type": "markdown", "source": "\n".join(line[2:] for line in lines)}
        else:
            yield {**cell, "cell_type": "code", "source": body, "execution_count": None, "outputs": []}


def source_of(name):
    return (NOTEBOOKS / f"{name}.py").read_text("utf-8")


def kept(name):
    """The notebook as it is in the repository; texts are strings, where a file may have lists of lines."""
    return joined(json.loads((NOTEBOOKS / f"{name}.ipynb").read_text("utf-8")))


def joined(notebook):
    def whole(text):
        return "".join(text) if isinstance(text, list) else text
    for cell in notebook["cells"]:
        cell["source"] = whole(cell["source"])
        for output in cell.get("outputs", ()):
            if "text" in output:
                output["text"] = whole(output["text"])
            if "data" in output:
                output["data"] = {kind: whole(data) for kind, data in output["data"].items()}
    return notebook


def executed(cells):
    """A notebook of these cells, with the outputs of a run in a folder of its own. A cell that fails is an error."""
    import nbclient
    import nbformat
    made = nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": METADATA, "cells": list(cells)})
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(made, timeout=300, kernel_name="python3", record_timing=False,
                                         coalesce_streams=True, resources={"metadata": {"path": folder}})
        client.execute(env={**os.environ, "IPYTHONDIR": folder, "MPLCONFIGDIR": folder})
    made["metadata"] = METADATA
    return joined(json.loads(json.dumps(made)))


def written(notebook):
    """The text of a file: lines of texts stand on lines, so that changes can be read."""
    for cell in notebook["cells"]:
        for place in [cell, *cell.get("outputs", ()), *(output.get("data", {}) for output in cell.get("outputs", ()))]:
            for key in {"source", "text", "text/plain", "text/html", "image/svg+xml"} & set(place):
                place[key] = place[key].splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def printed(cell):
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", "") + "\n"
                   for output in cell["outputs"])


def kinds(cell):
    """What a cell's outputs are; what a stream got in several pieces is one output."""
    found = []
    for output in cell["outputs"]:
        kind = (output["output_type"], output.get("name", ""), *sorted(output.get("data", ())))
        if kind[0] != "stream" or kind not in found[-1:]:
            found.append(kind)
    return found


def differences(before, now):
    """What is not the same in two notebooks, a text for each cell."""
    if [cell["source"] for cell in before["cells"]] != [cell["source"] for cell in now["cells"]]:
        yield "the cells are not those of the source: python tests/notebooks.py makes them anew"
        return
    for k, (old, new) in enumerate(zip(before["cells"], now["cells"])):
        if old["cell_type"] != "code":
            continue
        varies = VARIES in old["metadata"].get("tags", ())
        if kinds(old) != kinds(new):
            yield f"cell {k}: kept are outputs {kinds(old)}, and now there are {kinds(new)}"
        elif not varies and not same_output(printed(old).splitlines(), printed(new).splitlines()):
            yield f"cell {k}: kept is\n{printed(old)}and now there is\n{printed(new)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(names())}")
    arguments = parser.parse_args()
    wrong = 0
    for name in arguments.names or names():
        now = executed(cells_of(source_of(name)))
        if arguments.check:
            found = list(differences(kept(name), now))
            print(f"{name}: {'differs' if found else 'the same'}", *found, sep="\n")
            wrong += bool(found)
        else:
            text = written(now)
            (NOTEBOOKS / f"{name}.ipynb").write_text(text, "utf-8", newline="\n")
            print(f"{name}: {len(text.encode()):,} bytes")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
