"""Reads the code cells of a notebook, and removes IPython's syntax from them."""
from __future__ import annotations

import json
import linecache
import re

from flatgrad.compat.common import note
from flatgrad.compat.source import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flatgrad._core import _Path

__all__ = ["read"]


def read(source: Any, path: _Path) -> Any:
    """The code cells of a notebook, in order: pairs of a source and its name in tracebacks.

    Raises ValueError or RecursionError if `source` is no notebook.
    """
    named = []
    for number, cell in enumerate(code_cells(json.loads(source)), 1):
        name = f"{path}, cell {number}"
        # With a modification time of None the entry stays, although there is no such file.
        linecache.cache[name] = (len(cell), None, cell.splitlines(True), name)
        named.append((without_magics(cell, name), name))
    return named


def code_cells(notebook: Any) -> Any:
    """The sources of a notebook's code cells."""
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise ValueError("expected an object with a list of cells (notebook format 4)")
    sources = []
    for number, cell in enumerate(cells, 1):
        source = cell.get("source") if isinstance(cell, dict) else None
        lines = [source] if isinstance(source, str) else source
        if not (isinstance(lines, list) and all(isinstance(line, str) for line in lines)):
            raise ValueError(f"entry {number} of its cells has no source text")
        if cell.get("cell_type") == "code":
            sources.append("".join(lines))
    return sources


# ---- IPython's syntax ----

RUN_THEIR_CELL = ("%%time", "%%capture")  # cell magics around Python code that later cells may need
IPYTHON_LINE = re.compile(r"\s*(?:[%!?]|[\w.,\s\[\]*]+=\s*[%!]|[\w.]+\?{1,2}\s*$)")


def without_magics(cell: Any, name: Any) -> Any:
    """A cell's source as Python, with the same number of lines; IPython's lines are reported and skipped."""
    lines, notes = cell.split("\n"), {}
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    if lines[first].startswith("%%"):
        magic = lines[first].split()[0]
        if magic not in RUN_THEIR_CELL:
            note(f"{name}, line {first + 1}: skipped the cell: {lines[first].strip()}")
            return ""
        notes[first] = f"skipped the line: {lines[first].strip()}"
        lines[first] = ""
    # In Python too, a line within an expression or a string may begin with % or !. So a line counts as IPython's only
    # where Python's parser stops.
    while True:
        try:
            parse("\n".join(lines))
        except SyntaxError as error:
            at = (error.lineno or 0) - 1
            if not (0 <= at < len(lines) and IPYTHON_LINE.match(lines[at])):
                break  # the cell has an error, which is reported when the cell is run
            notes[at] = f"skipped: {lines[at].strip()}"
            indent = lines[at][:len(lines[at]) - len(lines[at].lstrip())]
            continued = lines[at].endswith("\\")
            lines[at] = indent + "pass"
            while continued and at + 1 < len(lines):
                at += 1
                continued = lines[at].endswith("\\")
                lines[at] = ""
        except ValueError:  # because of a null character
            break
        else:
            break
    for i in sorted(notes):  # the parser may have stopped at a later line first
        note(f"{name}, line {i + 1}: {notes[i]}")
    return "\n".join(lines)
