"""What notebooks show of Tensors, Modules, histories, Trainers and films, read back from its HTML; and the magic of
`%load_ext flatgrad`, in a shell of IPython if that is installed."""
import math
import random
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value
from flatgrad.errors import ArgumentTypeError
from flatgrad.markup import curve
from flatgrad.nn import MLP, Linear, Sequential
from flatgrad.optim import SGD
from flatgrad.train import History, Trainer


class Tables(HTMLParser):
    """The texts of the cells, row by row, and of the caption; all tags have to be closed in order."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.captions, self.open = [], [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "caption":
            self.captions.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += text
        if self.open and self.open[-1] == "caption":
            self.captions[-1] += text


def shown(x):
    tables = Tables(x._repr_html_())
    assert len(tables.captions) >= 1
    return tables.captions[0], tables.rows


def test_a_small_tensor_is_whole():
    assert shown(Tensor([1.0, -2.5, math.nan])) == ("Tensor (3,)", [["0", "1", "2"], ["1", "-2.5", "nan"]])
    assert shown(Tensor([[1.0, 2.0], [3.0, 1 / 3]], requires_grad=False)) == (
        "Tensor (2, 2), requires_grad=False", [["", "0", "1"], ["0", "1", "2"], ["1", "3", "0.3333"]])
    assert shown(Tensor([[1.0, 0.0]]).relu())[0] == "Tensor (1, 2), ReLU"


@pytest.mark.parametrize("shape", [(10, 8), (11, 8), (10, 9), (200, 300), (8,), (400,)])
def test_a_tensor_is_elided_in_the_middle(shape):
    tensor = Tensor(np.arange(math.prod(shape), dtype=float).reshape(shape))
    caption, rows = shown(tensor)
    assert caption == f"Tensor {shape}"
    matrix = np.atleast_2d(tensor.data)
    height, width = matrix.shape
    down = list(range(height)) if height <= 10 else [*range(5), None, *range(height - 5, height)]
    across = list(range(width)) if width <= 8 else [*range(4), None, *range(width - 4, width)]
    first = len(shape) > 1
    assert rows[0] == [""] * first + ["\u2026" if i is None else str(i) for i in across]
    for k, row in zip(down, rows[1:], strict=True):
        if first:
            assert row[0] == ("\u22ee" if k is None else str(k))
        assert row[first:] == ["\u22ee" if k is None else "\u2026" if i is None else f"{matrix[k, i]:.4g}" for i in across]


def test_a_large_tensor_makes_a_small_page():
    assert len(Tensor(np.zeros((1000, 1000)))._repr_html_()) < 20_000


def test_a_module_is_its_summary():
    model = Sequential(MLP(2, [16, 1]), Linear(1, 1000))
    caption, rows = shown(model)
    assert caption == "Sequential" and ["  ".join(row).split() for row in rows] == [
        line.split() for line in model.summary().split("\n")]


def fitted():
    random.seed(1)
    model = MLP(2, [4, 1])
    trainer = Trainer(model, SGD(model.parameters(), lr=0.1), "mse", metrics=["mae"])
    trainer.fit([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0.0, 1.0, 2.0], epochs=7, validation=0.34, seed=0, progress=False)
    return trainer


def test_a_history_has_its_numbers_and_curves():
    history = fitted().history
    caption, rows = shown(history)
    assert caption.startswith("History of 7 epochs, ") and rows[0] == ["", "first", "last", "lowest", "highest"]
    assert [row[0] for row in rows[1:]] == list(history)
    for name, *cells in rows[1:]:
        numbers = history[name]
        assert cells == [f"{x:.4g}" for x in (numbers[0], numbers[-1], min(numbers), max(numbers))]
    page = history._repr_html_()
    svg = ET.fromstring(page[page.index("<svg"):])
    titles = [title.text for title in svg.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["loss", "mae", "val_loss", "val_mae"]
    assert shown(History()) == ("History of 0 epochs", []) and "<svg" not in History()._repr_html_()
    history.append(8, {"loss": math.nan, "extra": 1.0})
    assert shown(history)[1][-1] == ["extra", "nan", "1", "1", "1"]


def test_a_curve_goes_through_its_numbers():
    numbers = [1.0, math.nan, 4.0, 2.0]
    found = ET.fromstring(curve([1, 2, 3, 4], {"loss": numbers})).findall("{http://www.w3.org/2000/svg}path")
    path = found[0].get("d")
    assert path.count("M") == 2 and path.count("L") == 1
    points = [tuple(map(float, part.replace("h.01", "").split())) for part in path.replace("L", "M").split("M")[1:]]
    assert [x for x, _ in points] == pytest.approx([58, 58 + 356 * 2 / 3, 414], abs=0.06)
    ys = [y for _, y in points]
    assert ys == pytest.approx([102, 10, 10 + 92 * 2 / 3], abs=0.06)   # the largest is above
    wide = ET.fromstring(curve([1, 2, 3], {"loss": [1e-4, 1.0, 1e4], "val_loss": [1.0, 1.0, 1.0]}))
    first, second = wide.findall("{http://www.w3.org/2000/svg}path")
    assert [float(part.split()[1].replace("h.01", "")) for part in first.get("d").replace("L", "M").split("M")[1:]] == [
        102.0, 56.0, 10.0]   # a logarithm
    assert second.get("stroke") == first.get("stroke") and second.get("stroke-dasharray") and not first.get("stroke-dasharray")
    assert len(curve(range(100_000), {"loss": [1.0] * 100_000})) < 10_000
    for nothing in ([1], {"loss": [1.0]}), ([1, 2], {"loss": [math.nan, math.inf]}), ([1, 2], {}):
        assert curve(*nothing) == ""


def test_a_trainer_says_where_it_is():
    trainer = fitted()
    caption, rows = shown(trainer)
    found = dict(row for row in rows if len(row) == 2)
    assert caption == "Trainer" and found["model"] == "MLP, 17 parameters" and found["optimizer"] == repr(trainer.optimizer)
    assert (found["loss"], found["metrics"], found["epochs"], found["engine"]) == ("mse", "mae", "7", trainer.engine)
    assert trainer.history._repr_html_() in trainer._repr_html_()
    fresh = Trainer(trainer.model, trainer.optimizer, "mse")
    assert dict(shown(fresh)[1])["epochs"] == "0" and "History" not in fresh._repr_html_()


def test_texts_are_escaped():
    class Hostile(MLP):
        def __repr__(self):
            return "<b>&amp;"

    Hostile.__name__ = "<i>"
    caption, rows = shown(Hostile(1, [1]))
    assert caption == "<i>"
    history = History()
    history.append(1, {"<script>loss": 1.0})
    history.append(2, {"<script>loss": 2.0})
    assert "<script>" not in history._repr_html_() and shown(history)[1][1][0] == "<script>loss"


# ---- IPython ----

def shell():
    """A shell of IPython, in a process of its own: it replaces much of Python's own."""
    pytest.importorskip("IPython")
    return ("from IPython.core.interactiveshell import InteractiveShell\n"
            "import sys; shell = InteractiveShell.instance(); shell.cache_size = 0\n"
            "def run(cell):\n"
            "    result = shell.run_cell(cell)\n"
            "    result.raise_error()\n"
            "    return result.result\n")


def in_shell(code, tmp_path, fine=True):
    done = subprocess.run([sys.executable, "-c", shell() + code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode == 0) is fine, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_magic_puts_flatgrad_in_the_place_of_micrograd(tmp_path):
    said = in_shell("run('%load_ext flatgrad')\nrun('%micrograd')\nrun('%micrograd --nn')\n"
                    "run('from micrograd.engine import Value; import micrograd.nn')\n"
                    "import flatgrad\nassert run('Value') is flatgrad.Value and run('micrograd.nn') is flatgrad.nn\n"
                    "run('from micrograd.engine import Value')\nrun('%load_ext flatgrad')\n", tmp_path)
    assert said.count("import micrograd now means flatgrad\n") == 2


def test_the_magic_comes_too_late(tmp_path):
    pytest.importorskip("micrograd")
    said = in_shell("run('import micrograd.engine')\nrun('%load_ext flatgrad')\nrun('%micrograd')\n", tmp_path, fine=False)
    assert "%micrograd: micrograd.engine is already imported" in said and "restart the kernel first" in said


def test_the_magic_knows_its_options(tmp_path):
    said = in_shell("run('%load_ext flatgrad')\nrun('%micrograd --all')\n", tmp_path, fine=False)
    assert "%micrograd: expected no more than --nn and --scalar-graph, got --all" in said


def test_a_shell_shows_tables_and_pictures(tmp_path):
    in_shell("import flatgrad\nfrom flatgrad.nn import MLP\nfrom flatgrad.train import History\n"
             "show = lambda x: shell.display_formatter.format(x)[0]\n"
             "for x in flatgrad.Tensor([1.0, 2.0]), MLP(2, [2, 1]), History():\n"
             "    found = show(x)\n"
             "    assert found['text/html'] == x._repr_html_() and found['text/plain'] == repr(x), found\n"
             "x = flatgrad.Value(2.0)\nassert 'image/svg+xml' in show(x * x)\n", tmp_path)


@pytest.mark.parametrize("given", [None, 3, object()])
def test_what_is_no_shell_is_refused(given):
    with pytest.raises(ArgumentTypeError, match="^ipython: expected the shell of IPython, which %load_ext flatgrad gives"):
        flatgrad.load_ipython_extension(given)


def test_a_shell_is_any_object_that_takes_a_magic():
    taken = {}

    class Shell:
        def register_magic_function(self, function, kind, name):
            taken[name] = kind, function

    flatgrad.load_ipython_extension(Shell())
    assert list(taken) == ["micrograd"] and taken["micrograd"][0] == "line" and taken["micrograd"][1].__doc__
    assert Value(1.0)._repr_mimebundle_()["text/plain"] == repr(Value(1.0))
