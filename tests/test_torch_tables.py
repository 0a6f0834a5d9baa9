"""docs/pytorch-names.md has each public name of PyTorch once, and is right about which of them flatgrad has."""
import fnmatch
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import flatgrad
from flatgrad import nn, optim

torch = pytest.importorskip("torch")

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "pytorch-names.md").read_text("utf-8")
SECTIONS = {"torch.nn": (torch.nn, nn), "torch.optim": (torch.optim, optim),
            "torch.optim.lr_scheduler": (torch.optim.lr_scheduler, optim.lr_scheduler),
            "torch.Tensor": (torch.Tensor, flatgrad.Tensor)}


def rows_of(section):
    """(names and patterns, what flatgrad has) of each row."""
    text = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)[1]
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [(re.findall(r"`([^`]+)`", theirs), ours.strip()) for theirs, ours in rows]


def public(module):
    """Its public names; of lr_scheduler without what it imports."""
    names = [name for name in dir(module) if not name.startswith("_")
             and not inspect.ismodule(getattr(module, name, None))]
    if module is torch.optim.lr_scheduler:
        return [name for name in names if inspect.isclass(getattr(module, name))
                and getattr(module, name).__module__ == module.__name__ and not name.startswith("_")]
    return names


def missing(names, rows):
    """Names that no row has."""
    known = [each for row, _ in rows for each in row]
    return [name for name in names if not any(fnmatch.fnmatchcase(name, each) for each in known)]


@pytest.mark.parametrize("section", SECTIONS)
def test_each_name_of_theirs_is_told(section):
    names, rows = public(SECTIONS[section][0]), rows_of(section)
    assert len(names) >= 12 and missing(names, rows) == []
    assert missing([*names, "Xyzzy3"], rows) == ["Xyzzy3"]   # one more would be noticed


@pytest.mark.parametrize("section", SECTIONS)
def test_the_rows_are_right(section):
    ours, rows = SECTIONS[section][1], rows_of(section)
    names = [name for row, _ in rows for name in row]
    assert len(names) == len(set(names))
    for row, told in rows:
        for name in row:
            if told.startswith("the same"):
                assert hasattr(ours, name), f"{name} is not there"
            elif "*" not in name:
                assert not hasattr(ours, name), f"{name} is there"
        for name in re.findall(r"`np\.([\w.]+)`", told):
            assert callable(getattr(np.linalg if "." in name else np, name.rpartition(".")[2]))
        for name in re.findall(r"`flatgrad\.(\w+)`", told):
            assert hasattr(flatgrad, name)


def test_patterns_cover_nothing_that_is_there():
    """But for names that a row has as they are."""
    for section, (theirs, ours) in SECTIONS.items():
        plain = {name for row, _ in rows_of(section) for name in row if "*" not in name}
        assert [name for name in public(theirs) if name not in plain and hasattr(ours, name)] == []
