"""Pictures of graphs and networks that need no Graphviz, and names and colours in all of them."""
import random
import re
import xml.etree.ElementTree as ElementTree

import pytest

from flatgrad import Value
from flatgrad.errors import ArgumentError
from flatgrad.nn import MLP, Dropout, Layer, Neuron, Sequential
from flatgrad.viz import draw_dot, draw_network, draw_svg
from flatgrad.viz.drawing import MINUS, PLUS
from flatgrad.viz.graph import FILLS

SVG = "{http://www.w3.org/2000/svg}"


def parsed(picture):
    return ElementTree.fromstring(picture.svg)


def texts(picture):
    return [element.text for element in parsed(picture).iter(f"{SVG}text")]


def network():
    random.seed(4)
    return MLP(2, [3, 1], activation="tanh")


# ---- graphs ----

def test_a_graph_shows_names_numbers_and_operations():
    a, b = Value(2.0, label="a"), Value(-3.0)
    c = (a * b).tanh()
    c.backward()
    picture = draw_svg(c, names={"b": b, "unused": Value(1.0)})
    found = texts(picture)
    assert found.count("data") == found.count("grad") == 4
    assert {"a", "b", "*", "tanh", "2", "-3", "-6", f"{c.data:.4g}", f"{a.grad:.4g}"} <= set(found)
    titles = [element.text for element in parsed(picture).iter(f"{SVG}title")]
    assert f"a: data 2.0, grad {a.grad!r}" in titles
    assert len(list(parsed(picture).iter(f"{SVG}rect"))) == 2 * 4 + 2
    assert picture._repr_svg_() == picture.svg and "max-width: 100%" in picture.svg


def test_a_layer_tells_its_activation():
    found = texts(draw_svg(network()([1.0, 2.0])))
    assert found.count("layer tanh") == 3 and found.count("layer") == 1
    assert "layer" in texts(draw_svg(Value(1.0, (Value(2.0),), "layer")))   # an operation of a user's


@pytest.mark.parametrize("label", ["<b>", "a & b", '"', "x\x00y", "\udc80", "</svg>", "w" * 40, "\u03b8"])
def test_labels_are_escaped(label, tmp_path):
    root = Value(1.0, (Value(2.0, label=label),), label)
    draw_svg(root).save(tmp_path / "graph.svg")
    found = [element.text for element in ElementTree.parse(tmp_path / "graph.svg").iter(f"{SVG}text")]
    shown = label.replace("\x00", r"\x00").replace("\udc80", r"\udc80")
    assert (shown in found) == (len(label) < 17)


def test_parameters_have_names_and_colours():
    neuron = Neuron(2)
    out = neuron([Value(1.0), Value(2.0, label="mine")])
    source = draw_dot(out, names=neuron).source if has_graphviz() else None
    assert {"weight[0]", "weight[1]", "bias", "mine"} <= set(texts(draw_svg(out, names=neuron)))
    if source is not None:
        kinds = {name: re.search(rf"{re.escape(name)} \|.*fillcolor=\"([^\"]+)\"", source)[1]
                 for name in ("weight[0]", "weight[1]", "bias", "mine")}
        assert kinds == {"weight[0]": FILLS["weight"], "weight[1]": FILLS["weight"], "bias": FILLS["bias"],
                         "mine": FILLS["input"]}
        assert source.count(FILLS["result"]) == 1 and "fillcolor" not in draw_dot(out).source
        assert "weight[0]" in draw_dot(out, names=neuron, expand=True).source


def has_graphviz():
    try:
        import graphviz  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("arguments, message", [
    (dict(root=3), "root: expected a Value, got 3"),
    (dict(max_nodes=2), "root: a graph of 3 values is more than max_nodes=2: "),
    (dict(max_nodes=0), "max_nodes: expected an int, 1 or more, got 0"),
    (dict(names=[1]), r"names: expected None, a Module, or a dict of names and Values or Tensors, got \[1\]"),
])
def test_refusals(arguments, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        draw_svg(**{"root": Value(1.0) + Value(2.0), **arguments})


# ---- networks ----

def test_a_network_is_drawn_as_layers():
    model = network()
    root = parsed(draw_network(model))
    circles = [(float(c.get("cx")), c.find(f"{SVG}title").text) for c in root.iter(f"{SVG}circle")]
    columns = sorted({x for x, _ in circles})
    assert [sum(x == column for x, _ in circles) for column in columns] == [2, 3, 1]
    lines = {line.find(f"{SVG}title").text: line.get("stroke") for line in root.iter(f"{SVG}line")}
    weights = {f"{name}: data {p.data!r}, grad {p.grad!r}": PLUS if p.data >= 0 else MINUS
               for name, p in model.named_parameters() if "weight" in name}
    assert lines == weights and len(weights) == 9 and set(lines.values()) == {PLUS, MINUS}
    assert [t.text for t in root.iter(f"{SVG}text")] == ["2 inputs", "3", "tanh", "1", "linear"]
    assert circles[2][1] == "neuron 0: bias 0.0, grad 0.0"


def test_the_largest_weight_has_the_widest_line():
    model = network()
    for k, p in enumerate(p for name, p in model.named_parameters() if "layers.0.weight" in name):
        p.data = 0.5 * (k + 1)
    widths = [float(line.get("stroke-width")) for line in parsed(draw_network(model)).iter(f"{SVG}line")][:6]
    assert widths == sorted(widths) and widths[-1] == 3.0 and len(set(widths)) == 6


def test_dots_stand_for_the_middle_of_a_large_layer():
    root = parsed(draw_network(MLP(2, [100, 1]), most=5))
    assert len(list(root.iter(f"{SVG}circle"))) == 2 + 4 + 1 and len(list(root.iter(f"{SVG}rect"))) == 3
    assert "neuron 99: bias 0.0, grad 0.0" in [t.text for t in root.iter(f"{SVG}title")]
    assert float(root.get("height")) < 300


def test_other_networks():
    assert draw_network(Sequential(Layer(4, 8), Dropout(0.1), Layer(8, 3))).svg.count("<circle") == 15
    assert draw_network(Layer(2, 2)).svg.count("<line") == 4
    zero = Layer(1, 1)
    zero.neurons[0].w[0].data = 0.0
    parsed(draw_network(zero))
    zero.neurons[0].w[0].data = float("nan")
    assert "nan" not in parsed(draw_network(zero)).find(f"{SVG}line").get("stroke-width")


@pytest.mark.parametrize("model, options, message", [
    (3, {}, "model: expected a Module, got 3"), (MLP, {}, "model: expected a Module, got"),
    (Dropout(0.5), {}, "model: expected a Module that has layers with weights, got one whose parameters are"),
    (Sequential(Layer(2, 3), Layer(2, 1)), {}, "model: expected layers that follow each other, got 3 outputs of "
                                               "layers.0.weight and 2 inputs of layers.1.weight"),
    (MLP(1, [1]), dict(most=1), "most: expected an int, 2 or more, got 1"),
])
def test_networks_that_are_refused(model, options, message):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}"):
        draw_network(model, **options)


def test_save_refuses_what_is_no_path():
    with pytest.raises(TypeError, match="^path: expected a str or path-like object, got 3"):
        draw_network(MLP(1, [1])).save(3)
    with pytest.raises(ArgumentError, match=r"path: expected a file that ends in '\.svg', got .*png"):
        draw_network(MLP(1, [1])).save("network.png")
