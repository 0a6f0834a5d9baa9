"""Pictures of graphs: the source that Graphviz gets, what a notebook shows, the examples.

The package graphviz is needed for nearly all of it; the program `dot` for little, which is skipped.
"""
import gc
import html
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import flatgrad
from flatgrad import Value
from flatgrad.nn import MLP, Layer
from flatgrad.viz import draw_dot, draw_svg, value_mimebundle
from flatgrad.viz.graph import expanded_parts, tape_parts

graphviz = pytest.importorskip("graphviz")

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="the program dot is not installed")

LABELS = ["a", "{a|b}", "<b>", "a > b", "a\\nb", "c:\\", '"quoted"', '\\"', "x & y", "&lt;", "\\N \\G",
          "w\u2080 \u03b8", "x\x00y", "\udc80", "{", "}|{"]


class Drawing:
    """Boxes, bubbles and edges of a source: name -> text, name -> text, [(from, to)]."""

    def __init__(self, picture):
        lines = [line.strip() for line in picture.source.split("\n")]
        nodes = [re.match(r'"?([^"]+?)"? \[label=(?:"(.*)"|(\w+))( shape=record)?', line) for line in lines]
        nodes = [(m[1], m[2] if m[3] is None else m[3], bool(m[4])) for m in nodes if m]
        self.boxes = {name: text for name, text, is_box in nodes if is_box}
        self.bubbles = {name: text for name, text, is_box in nodes if not is_box}
        self.edges = [tuple(line.split(" -> ")) for line in lines if " -> " in line]

    def sizes(self):
        return len(self.boxes), len(self.bubbles), len(self.edges)


def chain(n):
    a = value = Value(1.0)
    for _ in range(n):
        value = value + a
    return value


def neuron():
    w, x = Value(0.5, label="w"), Value(-2.0, label="x")
    return (w * x + 3.0).relu()


# ---- structure ----

def expressions():
    a, b = Value(2.0), Value(3.0)
    shared = a * b
    yield "leaf", a, (1, 0, 0)
    yield "a + b", a + b, (3, 1, 3)
    yield "a + a: an edge for each operand", a + a, (2, 1, 3)
    yield "a constant is a box", a * 7, (3, 1, 3)
    yield "unary", a.tanh(), (2, 1, 2)
    yield "a constant power has one operand", a**2, (2, 1, 2)
    yield "a shared value is drawn once", shared + shared * a, (5, 3, 9)
    yield "neuron", neuron(), (6, 3, 8)
    yield "a custom operation", Value(1.0, (a, b), "mine"), (3, 1, 3)
    yield "a custom operation without a name", Value(1.0, (a, b)), (3, 1, 3)
    yield "a leaf with an operation", Value(1.0, (), "in"), (1, 1, 1)


@pytest.mark.parametrize("root, sizes", [pytest.param(*row, id=name) for name, *row in expressions()])
def test_structure(root, sizes):
    assert Drawing(draw_dot(root)).sizes() == sizes


def test_the_whole_source():
    a, b = Value(2.0, label="a"), Value(-3.0, label="b")
    c = (a - b) * a
    c.label = "c"
    c.backward()
    assert draw_dot(c, rankdir="TB").source == """\
digraph {
	graph [rankdir=TB]
	v0 [label="{ a | data 2.0000 | grad 7.0000 }" shape=record]
	v1 [label="{ b | data -3.0000 | grad -2.0000 }" shape=record]
	v2 [label="{ data 5.0000 | grad 2.0000 }" shape=record]
	op2 [label="-" ordering=in]
	v0 -> op2
	v1 -> op2
	op2 -> v2
	v3 [label="{ c | data 10.0000 | grad 1.0000 }" shape=record]
	op3 [label="*"]
	v2 -> op3
	v0 -> op3
	op3 -> v3
}
"""


def test_a_network_is_drawn_as_its_graph_says():
    model = MLP(2, [3, 1])
    with flatgrad.scalar_graph():
        out = model([1.0, 2.0])
    nodes, edges, stack = {out}, 0, [out]
    while stack:
        value = stack.pop()
        edges += len(value._children) + bool(value._op)
        new = set(value._children) - nodes
        nodes |= new
        stack += new
    drawing = Drawing(draw_dot(out))
    assert drawing.sizes() == (len(nodes), sum(1 for value in nodes if value._op), edges)
    assert sorted(drawing.bubbles.values()).count("ReLU") == 3
    # Every edge joins what is there, and what stands before.
    order = [*drawing.boxes]
    for tail, head in drawing.edges:
        assert (tail in drawing.boxes) == (head in drawing.bubbles)
        if tail in drawing.boxes:
            assert order.index(tail) < order.index("v" + head.removeprefix("op"))


def test_equal_graphs_have_equal_sources():
    first = neuron()
    noise = [Value(float(i)) for i in range(100)]
    second = neuron()
    assert draw_dot(first).source == draw_dot(first).source == draw_dot(second).source
    assert len(noise) == 100


def test_drawing_changes_nothing():
    out = neuron()
    out.backward()
    before = [(v.data, v.grad) for v in (out, *out._children)]
    draw_dot(out)
    assert [(v.data, v.grad) for v in (out, *out._children)] == before


def test_subclasses_without_hash_and_with_odd_equality():
    class Odd(Value):
        __hash__ = None

        def __eq__(self, other):
            return True

    a, b = Odd(1.0, label="a"), Odd(2.0, label="b")
    assert Drawing(draw_dot(a * b + a)).sizes() == (4, 2, 6)


# ---- texts ----

@pytest.mark.parametrize("data, text", [
    (0.1234567, "0.1235"), (-2, "-2.0000"), (1e-9, "0.0000"), (123456.5, "123456.5000"),
    (1e300, "1.0000e+300"), (-1e9, "-1.0000e+09"), (float("inf"), "inf"), (float("nan"), "nan"),
])
def test_numbers(data, text):
    assert Drawing(draw_dot(Value(data))).boxes == {"v0": f"{{ data {text} | grad 0.0000 }}"}


@pytest.mark.parametrize("label, field", [
    ("x", "x"), ("", None), (None, None), (0, "0"), (("w", 1), "('w', 1)"),
    ("{ } | < >", r"\{ \} \| \< \>"), ("\\", "\\\\"), ("a\nb", r"a\nb"), ("a\r\nb", r"a\nb"),
    ('say "x"', r"say \"x\""), ("a & b", "a &amp; b"), ("\x00", r"\\x00"), ("\u03b8", "\u03b8"),
])
def test_labels(label, field):
    value = Value(1.0)
    value.label = label
    text = Drawing(draw_dot(value)).boxes["v0"]
    assert text == ("{ " if field is None else f"{{ {field} | ") + "data 1.0000 | grad 0.0000 }"


@needs_dot
@pytest.mark.parametrize("label", LABELS, ids=ascii)
def test_dot_shows_labels_as_they_are(label):
    out = Value(1.0, (Value(2.0, label=label),), label)
    svg = draw_dot(out).pipe(encoding="utf-8")
    texts = [html.unescape(text).replace("\xa0", " ") for text in re.findall("<text[^>]*>(.*?)</text>", svg)]
    shown = label.replace("\x00", r"\x00").replace("\udc80", r"\udc80")
    assert texts.count(shown) == 2
    assert len(texts) == 3 + 2 + 1


# ---- arguments and limits ----

REFUSALS = [
    (dict(root=1.5), TypeError, "root: expected a Value, got 1.5"),
    (dict(root=[Value(1.0)]), TypeError, "root: expected a Value, got ["),
    (dict(rankdir="RL"), ValueError, "rankdir: expected 'LR' or 'TB', got 'RL'"),
    (dict(rankdir=["LR"]), ValueError, "rankdir: expected 'LR' or 'TB', got ['LR']"),
    (dict(format="word"), ValueError,
     "format: expected 'svg', 'png', 'pdf' or another of graphviz.FORMATS, got 'word'"),
    (dict(format=None), ValueError,
     "format: expected 'svg', 'png', 'pdf' or another of graphviz.FORMATS, got None"),
    (dict(max_nodes=0), ValueError, "max_nodes: expected an int, 1 or more, got 0"),
    (dict(max_nodes=1.5), TypeError, "max_nodes: expected an int, 1 or more, got 1.5"),
]


@pytest.mark.parametrize("arguments, error, message", REFUSALS,
                         ids=[f"{name}={value!r:.6}" for row in REFUSALS for name, value in row[0].items()])
def test_refusals(arguments, error, message):
    with pytest.raises(error) as info:
        draw_dot(**{"root": Value(1.0), **arguments})
    assert str(info.value).startswith(message)


def test_format_and_direction():
    picture = draw_dot(Value(1.0), "png", "TB")
    assert isinstance(picture, graphviz.Digraph)
    assert picture.format == "png" and "rankdir=TB" in picture.source
    default = draw_dot(Value(1.0))
    assert default.format == "svg" and "rankdir=LR" in default.source


def test_max_nodes_is_the_last_size_that_is_drawn():
    root = chain(9)
    assert Drawing(draw_dot(root, max_nodes=10)).sizes() == (10, 9, 27)
    with pytest.raises(ValueError, match="^root: a graph of 10 values is more than max_nodes=9: draw one "
                                         "of the values that it is made of, or raise max_nodes$"):
        draw_dot(root, max_nodes=9)


def test_a_large_graph_is_refused_at_once():
    root = chain(100_000)
    start = time.process_time()
    with pytest.raises(ValueError, match="a graph of 100001 values is more than max_nodes=500"):
        draw_dot(root)
    assert time.process_time() - start < 5  # a tenth of a second, on a machine with nothing else to do


def test_counting_has_an_end(monkeypatch):
    monkeypatch.setattr("flatgrad.viz.graph.COUNTED", 50)
    with pytest.raises(ValueError, match="a graph of more than 50 values is more than max_nodes=20"):
        draw_dot(chain(100), max_nodes=20)
    with pytest.raises(ValueError, match="a graph of 50 values is more than max_nodes=20"):
        draw_dot(chain(49), max_nodes=20)
    with pytest.raises(ValueError, match="a graph of more than 50 values is more than max_nodes=80"):
        draw_dot(chain(100), max_nodes=80)


def test_a_deep_graph_can_be_drawn():
    assert Drawing(draw_dot(chain(5000), max_nodes=10_000)).sizes() == (5001, 5000, 15_000)


def test_without_graphviz_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(ImportError, match=r"pip install 'flatgrad\[viz\]'"):
        draw_dot(Value(1.0))


# ---- fused instructions ----

def row_of(label, *numbers):
    return [Value(x, label=f"{label}{i}") for i, x in enumerate(numbers)]


def layer_of(nout, **options):
    random.seed(5)
    return Layer(2, nout, **options)


# Each is a function of two rows of three Values; within scalar_graph() it builds the scalar graph.
FUSED = {
    "sum": lambda x, w: flatgrad.sum(x),
    "sum of one": lambda x, w: flatgrad.sum(x[:1]),
    "mean": lambda x, w: flatgrad.mean(x),
    "mean of shared values": lambda x, w: flatgrad.mean([x[0], x[1], x[0]]) * x[0],
    "max": lambda x, w: flatgrad.max(x),
    "max, two are equal": lambda x, w: flatgrad.max([x[0], x[1], x[1]]),
    "dot": lambda x, w: flatgrad.dot(w, x),
    "dot with a bias": lambda x, w: flatgrad.dot(w[:2], x[:2], w[2]),
    "dot of a row with itself": lambda x, w: flatgrad.dot(x, x),
    "matvec": lambda x, w: flatgrad.matvec([w, x], x, w[:2])[1],
    "linear": lambda x, w: flatgrad.linear(x, [w, x], w[:2])[0] * 2.0,
    "linear, relu": lambda x, w: flatgrad.linear(x, [x], w[:1], activation="relu")[0],
    "linear, relu at 0": lambda x, w: flatgrad.linear(x, [w], [-flatgrad.dot(w, x)], activation="relu")[0],
    "linear, tanh": lambda x, w: flatgrad.linear(x, [w], activation="tanh")[0],
    "linear, sigmoid": lambda x, w: flatgrad.linear(x, [w], activation="sigmoid")[0],
    "logsumexp": lambda x, w: flatgrad.logsumexp(x) * 3.0,
    "softmax": lambda x, w: flatgrad.softmax(x)[1],
    "all of a softmax": lambda x, w: flatgrad.dot(flatgrad.softmax(x), w),
    "two softmaxes of a row": lambda x, w: flatgrad.softmax(x)[1] * flatgrad.softmax(x)[1],
    "log_softmax": lambda x, w: flatgrad.dot(flatgrad.log_softmax(x)[:2], w[:2]),
    "cross_entropy": lambda x, w: flatgrad.losses.cross_entropy([x, w], [2, 0]),
    "mse": lambda x, w: flatgrad.losses.mse(x, w),
    "mae": lambda x, w: flatgrad.losses.mae(x, w),
    "huber": lambda x, w: flatgrad.losses.huber(x, w, 0.75),
    "hinge": lambda x, w: flatgrad.losses.paired("hinge", "score", x, w, "sum"),
    "binary_cross_entropy": lambda x, w: flatgrad.losses.binary_cross_entropy(
        [v.sigmoid() for v in x], [v.sigmoid() for v in w]),
    "bce_with_logits": lambda x, w: flatgrad.losses.bce_with_logits(x, w),
    "bce_with_logits, weighted": lambda x, w: flatgrad.losses.bce_with_logits(x, [1.0, 0.0, 0.5], pos_weight=3.0),
    "kl_div": lambda x, w: flatgrad.losses.kl_div(x, [v.sigmoid() for v in w]),
    "kl_div, logarithms": lambda x, w: flatgrad.losses.kl_div(x, w, log_target=True),
    "nll": lambda x, w: flatgrad.losses.nll([x, w], [2, 0]),
    "l2": lambda x, w: flatgrad.losses.l2([*x, *w]),
    "attention": lambda x, w: flatgrad.dot(flatgrad.softmax([flatgrad.dot(x, w) * 0.5, x[0]]), w[:2]),
    "a layer": lambda x, w: flatgrad.sum(layer_of(3)(x[:2])),
    "a linear layer": lambda x, w: layer_of(1, nonlin=False)(x[:2]),
    "two layers": lambda x, w: layer_of(1)([layer_of(1)(x[:2]), layer_of(1)(w[:2])]),
}


def fused_and_scalar(name):
    """The result of FUSED[name] by fused instructions and by the scalar graph, after backward()."""
    results = []
    for scalar in False, True:
        x, w = row_of("x", 0.5, 2.0, -1.25), row_of("w", -0.75, 1.5, 0.25)
        if scalar:
            with flatgrad.scalar_graph():
                root = FUSED[name](x, w)
        else:
            root = FUSED[name](x, w)
        root.backward()
        results.append(root)
    return results


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_instruction_is_drawn_as_its_scalar_graph(name):
    fused, scalar = fused_and_scalar(name)
    ours, theirs = expanded_parts(fused, 1000), tape_parts(scalar, 1000)
    drawings = []
    for parts in ours, theirs:
        places = {id(value): i for i, (value, _, _) in enumerate(parts)}
        drawings.append([(getattr(value, "label", None), op, [places[id(x)] for x in operands])
                         for value, operands, op in parts])
    assert drawings[0] == drawings[1]
    def grad(value, op):   # of numbers, nobody has asked for it
        return value.grad if op or getattr(value, "label", None) else 0.0
    for get in lambda v, op: v.data, grad:
        assert [get(value, op) for value, _, op in ours] == pytest.approx(
            [get(value, op) for value, _, op in theirs], rel=1e-12, abs=1e-15)
    # And so is the text, but for the last of its four decimals.
    assert Drawing(draw_dot(fused, expand=True)).sizes() == Drawing(draw_dot(scalar)).sizes()


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_instruction_is_one_bubble(name):
    fused, scalar = fused_and_scalar(name)
    ours, theirs = Drawing(draw_dot(fused)), Drawing(draw_dot(scalar))
    assert len(ours.boxes) < len(theirs.boxes)
    names = {"layer", "sum", "mean", "max", "logsumexp", "softmax", "log_softmax", "cross_entropy"}
    assert names & set(ours.bubbles.values())
    assert not names & set(theirs.bubbles.values())


def test_the_whole_source_of_an_expanded_neuron():
    """The number has a box as well, whose gradient nobody has asked for."""
    w, x = row_of("w", 2.0), row_of("x", -3.0)
    c = flatgrad.dot(w, x, 4.0)
    c.label = "c"
    c.backward()
    assert draw_dot(c, expand=True, rankdir="TB").source == """\
digraph {
	graph [rankdir=TB]
	v0 [label="{ data 4.0000 | grad 0.0000 }" shape=record]
	v1 [label="{ w0 | data 2.0000 | grad -3.0000 }" shape=record]
	v2 [label="{ x0 | data -3.0000 | grad 2.0000 }" shape=record]
	v3 [label="{ data -6.0000 | grad 1.0000 }" shape=record]
	op3 [label="*"]
	v1 -> op3
	v2 -> op3
	op3 -> v3
	v4 [label="{ c | data -2.0000 | grad 1.0000 }" shape=record]
	op4 [label="+"]
	v0 -> op4
	v3 -> op4
	op4 -> v4
}
"""


def test_elements_of_tensors_are_expanded():
    """Only the row and the column that an element comes from are its operands."""
    a, b = flatgrad.Tensor([[1.0, 2.0], [3.0, 4.0]]), flatgrad.Tensor([[0.5, -1.0], [2.0, 0.25]])
    c = a @ b
    for k, value in enumerate(a[1]):
        value.label = f"a1{k}"
    c[1, 0].backward()
    drawing = Drawing(draw_dot(c[1, 0], expand=True))
    assert drawing.sizes() == (7, 3, 9)
    assert sorted(drawing.boxes.values()) == sorted([
        "{ a10 | data 3.0000 | grad 0.5000 }", "{ a11 | data 4.0000 | grad 2.0000 }",
        "{ data 0.5000 | grad 3.0000 }", "{ data 2.0000 | grad 4.0000 }",
        "{ data 1.5000 | grad 1.0000 }", "{ data 8.0000 | grad 1.0000 }", "{ data 9.5000 | grad 1.0000 }"])
    assert Drawing(draw_dot(c[1, 0])).sizes() == (5, 1, 5)
    # An elementwise operation is a single one already.
    mapped = (a * b)[0, 1]
    assert draw_dot(mapped, expand=True).source == draw_dot(mapped).source
    assert Drawing(draw_dot(mapped)).sizes() == (3, 1, 3)


def test_expanding_a_graph_without_fused_instructions_changes_nothing():
    out = neuron()
    out.backward()
    assert draw_dot(out, expand=True).source == draw_dot(out).source
    assert draw_dot(Value(1.0), expand=True).source == draw_dot(Value(1.0)).source


def test_expanding_leaves_no_trace():
    x, w = row_of("x", 0.5, 2.0, -1.25), row_of("w", -0.75, 1.5, 0.25)
    held = [*x, *w]
    hidden = layer_of(3)
    held += hidden.parameters()
    out = hidden(x[:2])
    root = flatgrad.logsumexp(out) + flatgrad.dot(flatgrad.softmax(x), w)
    root.backward()
    held += [*out, root]
    gc.collect()
    flatgrad.collect()
    before = [(v.data, v.grad, v._op, v._prev) for v in held]
    nodes = flatgrad.stats()["nodes"]
    for _ in range(3):
        draw_dot(root, expand=True)
        assert flatgrad.stats()["nodes"] == nodes
    with pytest.raises(ValueError, match="max_nodes"):
        draw_dot(root, expand=True, max_nodes=30)
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] == nodes
    assert [(v.data, v.grad, v._op, v._prev) for v in held] == before


def test_max_nodes_counts_what_is_drawn():
    xs = row_of("x", 1.0, 2.0, 3.0, 4.0)
    total = flatgrad.sum(xs)
    assert Drawing(draw_dot(total, max_nodes=5)).sizes() == (5, 1, 5)
    assert Drawing(draw_dot(total, max_nodes=7, expand=True)).sizes() == (7, 3, 9)
    with pytest.raises(ValueError, match="^root: a graph of 7 values is more than max_nodes=6: "):
        draw_dot(total, max_nodes=6, expand=True)
    with pytest.raises(ValueError, match="^root: a graph of 7 values is more than max_nodes=3: "):
        draw_dot(total, max_nodes=3, expand=True)


def test_a_large_expanded_graph_is_refused_at_once(monkeypatch):
    monkeypatch.setattr("flatgrad.viz.graph.COUNTED", 20_000)
    w = row_of("w", *[1.0] * 100)
    rows = [w]
    for _ in range(3):
        rows.append(flatgrad.matvec([w] * 100, rows[-1]))
    start = time.process_time()
    with pytest.raises(ValueError, match="a graph of more than 20000 values is more than max_nodes=500"):
        draw_dot(flatgrad.sum(rows[-1]), expand=True)
    assert time.process_time() - start < 10


def test_numbers_of_now_are_expanded():
    """Data changed after the forward pass, and a gradient set by hand."""
    w, x = row_of("w", 2.0, 1.0), row_of("x", -3.0, 0.5)
    out = flatgrad.dot(w, x)
    w[0].data, out.grad = 10.0, 7.0
    products = [value for value, _, op in expanded_parts(out, 100) if op == "*"]
    assert [(v.data, v.grad) for v in products] == [(-30.0, 7.0), (0.5, 7.0)]
    assert (out.data, w[0].grad, x[0].grad) == (-5.5, 0.0, 0.0)


def test_what_has_no_scalar_graph_stays_one_bubble():
    """The logarithm of a sum of exponentials that are all 0."""
    infinity = float("inf")
    out = flatgrad.logsumexp(row_of("x", -infinity, -infinity)) + 1.0
    assert draw_dot(out, expand=True).source == draw_dot(out).source


# ---- in a notebook ----

@needs_dot
def test_a_notebook_shows_a_small_graph():
    out = neuron()
    bundle = value_mimebundle(out)
    assert bundle.keys() == {"text/plain", "image/svg+xml"}
    assert bundle["text/plain"] == repr(out)
    assert "<svg" in bundle["image/svg+xml"] and "ReLU" in bundle["image/svg+xml"]
    assert value_mimebundle(chain(59)).keys() == bundle.keys()


@needs_dot
@pytest.mark.parametrize("arguments, has_picture", [
    (dict(include=["image/svg+xml"]), True), (dict(include={"text/plain"}), False),
    (dict(exclude={"image/svg+xml"}), False), (dict(exclude=["text/html"]), True),
])
def test_a_picture_that_is_not_wanted_is_not_drawn(arguments, has_picture):
    assert ("image/svg+xml" in value_mimebundle(neuron(), **arguments)) == has_picture


@pytest.mark.parametrize("missing", ["graphviz", "dot", "a small graph"])
def test_a_notebook_shows_our_own_picture_or_text_otherwise(monkeypatch, tmp_path, missing):
    out = neuron()
    if missing == "graphviz":
        monkeypatch.setitem(sys.modules, "graphviz", None)
    elif missing == "dot":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        out = chain(60)
    bundle = value_mimebundle(out)
    assert bundle.pop("text/plain") == repr(out)
    assert bundle == ({} if missing == "a small graph" else {"image/svg+xml": draw_svg(out).svg})


def test_a_dot_that_fails_leaves_our_own_picture(monkeypatch, capfd):
    def fails(*args, **kwargs):
        raise graphviz.CalledProcessError(1, ["dot"])

    monkeypatch.setattr(graphviz.Digraph, "pipe", fails)
    out = neuron()
    assert value_mimebundle(out) == {"text/plain": repr(out), "image/svg+xml": draw_svg(out).svg}
    assert capfd.readouterr() == ("", "")


# ---- what notebooks bring along ----

def trace(root):
    nodes, edges = set(), set()

    def build(v):
        if v not in nodes:
            nodes.add(v)
            for child in v._prev:
                edges.add((child, v))
                build(child)

    build(root)
    return nodes, edges


def notebook_draw_dot(root):
    """In the style of micrograd's notebook: recursion, sets, `id`."""
    dot = graphviz.Digraph(format="svg", graph_attr={"rankdir": "LR"})
    nodes, edges = trace(root)
    for n in nodes:
        uid = str(id(n))
        dot.node(name=uid, label="{ %s | data %.4f | grad %.4f }" % (n.label, n.data, n.grad), shape="record")
        if n._op:
            dot.node(name=uid + n._op, label=n._op)
            dot.edge(uid + n._op, uid)
    for n1, n2 in edges:
        dot.edge(str(id(n1)), str(id(n2)) + n2._op)
    return dot


def test_the_notebooks_own_drawing_works():
    a, b, c = (Value(x, label=name) for x, name in [(2.0, "a"), (-3.0, "b"), (10.0, "c")])
    e = a * b
    e.label = "e"
    d = e + c
    d.label = "d"
    out = d.tanh()
    out.label = "out"
    out.backward()
    theirs, ours = Drawing(notebook_draw_dot(out)), Drawing(draw_dot(out))
    assert theirs.sizes() == ours.sizes() == (6, 3, 8)
    assert sorted(theirs.boxes.values()) == sorted(ours.boxes.values())


def test_the_notebooks_own_drawing_of_values_that_nobody_holds():
    def without_labels(root):
        nodes, edges = trace(root)
        return len(nodes), len({(id(a), id(b)) for a, b in edges})

    x = Value(1.0)
    assert without_labels(((x * 2 + 1) * (x + 3)).relu()) == (9, 9)


# ---- the examples ----

@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="examples/ is not part of an installed package")
@pytest.mark.parametrize("name, values", [("expression", 8), ("neuron", 10), ("mlp", 25)])
@pytest.mark.parametrize("has_dot", [pytest.param(True, marks=needs_dot), False])
def test_examples(tmp_path, monkeypatch, name, values, has_dot):
    if not has_dot:
        monkeypatch.setenv("PATH", str(tmp_path))
    for arguments, path in ([], f"{name}.svg"), ([str(tmp_path / "x.svg")], str(tmp_path / "x.svg")):
        process = subprocess.run([sys.executable, str(EXAMPLES / f"draw_{name}.py"), *arguments],
                                 cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert process.returncode == 0, process.stderr
        path = path if has_dot else path.replace(".svg", ".dot")
        assert process.stdout.startswith(f"{path}: {values} values") and process.stdout.count("\n") == 1
        written = (tmp_path / path).read_text("utf-8")
        assert ("<svg" if has_dot else "digraph {") in written and "grad 1.0000" in written
