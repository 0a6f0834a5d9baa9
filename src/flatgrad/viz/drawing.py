"""Pictures of graphs and of networks as SVG of our own, without Graphviz."""
from __future__ import annotations

import html
import math
import os
import re

from flatgrad.arguments import path_of, shortened, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError
from flatgrad.storage import write_file
from flatgrad.viz.cards import GAP, LONGEST, cards, printable
from flatgrad.viz.names import Names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flatgrad._core import Value, _Path
    from flatgrad.nn import Module
    from flatgrad.viz.names import Named

__all__ = ["Picture", "draw_network", "svg_of_graph"]

# The colours of kinds: dark enough for white text, on light pages and dark ones.
COLOURS = {"input": "#1f6fb8", "weight": "#a86208", "bias": "#8a3fa0", "between": "#5d6b7c", "result": "#14803c"}
INK, SOFT, EDGE = "#1b2430", "#768493", "#8b97a5"
PLUS, MINUS = "#0072B2", "#D55E00"   # weights above and below 0, as in plots of two classes
FONT = "font-family=\"system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\""
WIDEST, THINNEST = 3.0, 0.4          # of a line for a weight
ACROSS, UP, RADIUS = 170.0, 40.0, 13.0   # between layers, between neurons, of a neuron
MATRIX = re.compile(r"(?:(.*)\.)?weight\[(\d+), (\d+)\]")


class Picture:
    """A picture as SVG, which notebooks show, not wider than their cell.

    Attributes
    ----------
    svg : str
        The text of the picture.

    Examples
    --------
    >>> from flatgrad.nn import MLP
    >>> from flatgrad.viz import draw_network
    >>> draw_network(MLP(2, [3, 1])).svg[:4]
    '<svg'
    """

    svg: str

    def __init__(self, svg: str) -> None:
        self.svg = svg

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<picture of {len(self.svg)} characters of SVG>"

    def save(self, path: _Path) -> None:
        """Write the picture to a file, such as ``'network.svg'``.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        ArgumentTypeError, ArgumentError
            If `path` is not a path that ends in ``.svg``.
        OSError
            If the file cannot be written.
        """
        path = path_of("path", path)
        if os.path.splitext(path)[1].lower() != ".svg":
            raise ArgumentError(f"path: expected a file that ends in '.svg', got {path!r}; viz.draw_dot writes other kinds")
        write_file(path, self.svg.encode())


def frame(width: float, height: float, parts: list[str]) -> str:
    """The SVG around some parts; it shrinks with its place."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" style="max-width: 100%; height: auto" {FONT} font-size="12">\n'
            + "\n".join(parts) + "\n</svg>\n")


def text(x: float, y: float, words: str, fill: str = INK, anchor: str = "start", **more: object) -> str:
    options = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return (f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" text-anchor="{anchor}"{options}>'
            f"{html.escape(printable(words))}</text>")


def number(x: float) -> str:
    """A number with four digits."""
    return f"{x:.4g}"


# ---- graphs ----

def svg_of_graph(graph: list[Value], root: Value, names: Named = None) -> str:
    """The picture of a graph, in the look of `explore`; operands come before results in `graph`."""
    nodes, edges, layout = cards(graph, root, Names(names))
    parts = ['<g transform="translate(12 12)">']
    parts += [f'<path d="{edge["path"]}" fill="none" stroke="{EDGE}" stroke-width="1.4"/>' for edge in edges]
    for value, node in zip(graph, nodes):
        colour, left = COLOURS[node["kind"]], -node["width"] / 2
        card, top = left + (node["bubble"] + GAP if node["bubble"] else 0.0), -node["height"] / 2
        wide, right = node["width"] / 2 - card, node["width"] / 2 - 10
        parts.append(f'<g transform="translate({node["x"]} {node["y"]})"><title>{html.escape(node["name"])}: data '
                     f"{value.data!r}, grad {value.grad!r}</title>")
        if node["bubble"]:
            sign = node["sign"] if len(node["sign"]) <= LONGEST else node["sign"][:LONGEST - 1] + "\u2026"
            parts.append(f'<path d="M{left + node["bubble"]:.1f} 0H{card:.1f}" stroke="{colour}" stroke-width="1.4"/>'
                         f'<rect x="{left:.1f}" y="-14" width="{node["bubble"]}" height="28" rx="14" fill="{colour}"/>')
            parts.append(text(left + node["bubble"] / 2, 4.5, sign, "#ffffff", "middle", font_weight=650))
        parts.append(f'<rect x="{card:.1f}" y="{top}" width="{wide:.1f}" height="{node["height"]}" rx="7" '
                     f'fill="#ffffff" stroke="{colour}" stroke-width="1.4"/>'
                     f'<rect x="{card:.1f}" y="{top + 7}" width="4" height="{node["height"] - 14}" fill="{colour}"/>')
        if node["named"]:
            name = node["name"] if len(node["name"]) <= 17 else "\u2026" + node["name"][-16:]
            parts.append(text(card + 12, top + 16, name, font_weight=650))
        for label, x, y in (("data", value.data, 33), ("grad", value.grad, 50)):
            parts += [text(card + 12, top + y, label, SOFT, font_size=11),
                      text(right, top + y, number(x), INK if label == "data" else "#c2410c", "end")]
        parts.append("</g>")
    parts.append("</g>")
    return frame(layout.width + 24, layout.height + 24, parts)


# ---- networks ----

def draw_network(model: Module, *, most: int = 12) -> Picture:
    """Draw a network as its layers: a circle for each neuron, and a line for each weight.

    Parameters
    ----------
    model : Module
        A module whose parameters are weights of layers that follow each other, such as an MLP or a Sequential of
        Layers.
    most : int, optional
        How many neurons of a layer are drawn. Of more than that, three dots stand for those in the middle.

    Returns
    -------
    Picture
        `.save('network.svg')` writes it; `.svg` is its text. Notebooks show it by itself.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described.

    Notes
    -----
    Lines are blue for weights above 0 and orange below, and wider for larger ones: relative to the largest weight of
    the layer. Under a layer stands its activation, and how many neurons it has. Each line and each circle tells its
    numbers when the mouse is on it.

    Examples
    --------
    >>> from flatgrad.nn import MLP
    >>> from flatgrad.viz import draw_network
    >>> picture = draw_network(MLP(2, [16, 16, 1]))
    >>> picture.svg.count("<circle")   # 2 inputs, 11 of 16 neurons and the output
    25
    """
    most = whole("most", most, 2)
    layers = layers_of(model)
    counts = [layers[0]["inputs"], *[layer["outputs"] for layer in layers]]
    shown = [list(range(count)) if count <= most else [*range(most - 2), None, count - 1] for count in counts]
    rows = max(map(len, shown))
    x = [40 + RADIUS + ACROSS * k for k in range(len(counts))]
    y = [[30 + RADIUS + UP * (k + (rows - len(places)) / 2) for k in range(len(places))] for places in shown]
    parts = []
    for k, layer in enumerate(layers):
        finite = [abs(value.data) for value in layer["weights"].values() if math.isfinite(value.data)]
        largest = max(finite, default=0.0) or 1.0
        for i, output in enumerate(shown[k + 1]):
            for j, given in enumerate(shown[k]):
                value = layer["weights"].get((output, given))
                if value is not None:   # None is where the dots are
                    size = abs(value.data) / largest if math.isfinite(value.data) else 1.0
                    parts.append(f'<line x1="{x[k] + RADIUS:.1f}" y1="{y[k][j]:.1f}" x2="{x[k + 1] - RADIUS:.1f}" '
                                 f'y2="{y[k + 1][i]:.1f}" stroke="{MINUS if value.data < 0 else PLUS}" '
                                 f'stroke-width="{THINNEST + (WIDEST - THINNEST) * size:.2f}" '
                                 f'stroke-opacity="{0.25 + 0.6 * size:.2f}">'
                                 f"<title>{html.escape(layer['name'])}weight[{output}, {given}]: data {value.data!r}, "
                                 f"grad {value.grad!r}</title></line>")
    for k, places in enumerate(shown):
        colour = COLOURS["input" if k == 0 else "result" if k == len(layers) else "between"]
        for place, at in zip(places, y[k]):
            if place is None:
                parts += [f'<rect x="{x[k] - 2:.1f}" y="{at + d - 2:.1f}" width="4" height="4" rx="2" fill="{SOFT}"/>'
                          for d in (-8, 0, 8)]
                continue
            bias = layers[k - 1]["biases"].get(place) if k else None
            told = f"input {place}" if k == 0 else f"neuron {place}"
            told += "" if bias is None else f": bias {bias.data!r}, grad {bias.grad!r}"
            parts.append(f'<circle cx="{x[k]:.1f}" cy="{at:.1f}" r="{RADIUS:g}" fill="{colour}" stroke="#ffffff" '
                         f'stroke-width="2"><title>{told}</title></circle>')
        low = 30 + UP * rows + 16
        count = counts[k]
        parts.append(text(x[k], low, f"{count} input{'s' * (count != 1)}" if k == 0 else str(count), SOFT, "middle"))
        if k:
            parts.append(text(x[k], low + 17, layers[k - 1]["activation"], SOFT, "middle", font_weight=650))
    return Picture(frame(x[-1] + RADIUS + 40, 30 + UP * rows + 48, parts))


def layers_of(model: Module) -> list[dict[str, Any]]:
    """The layers of a network in order: name, weights by (output, input), biases by output, sizes, activation."""
    if not callable(getattr(model, "named_parameters", None)) or isinstance(model, type):
        raise ArgumentTypeError(f"model: expected a Module, got {shortened(model)}")
    found = {}
    for name, value in model.named_parameters():
        match = MATRIX.fullmatch(name)
        if match:
            path = match[1] or ""
            layer = found.setdefault(path, {"name": f"{path}." if path else "", "weights": {}, "biases": {}})
            layer["weights"][int(match[2]), int(match[3])] = value
    for name, value in model.named_parameters():
        path, _, rest = name.rpartition(".")
        if path in found and (match := re.fullmatch(r"bias\[(\d+)\]", rest)):
            found[path]["biases"][int(match[1])] = value
    for path, layer in found.items():
        layer["outputs"], layer["inputs"] = (1 + max(place[k] for place in layer["weights"]) for k in (0, 1))
        layer["activation"] = activation_of(model, path)
    layers = list(found.values())
    if not layers:
        raise ArgumentError("model: expected a Module that has layers with weights, got one whose parameters are "
                            f"{shortened([name for name, _ in model.named_parameters()])}")
    for left, right in zip(layers, layers[1:]):
        if left["outputs"] != right["inputs"]:
            raise ArgumentError(f"model: expected layers that follow each other, got {left['outputs']} outputs of "
                                f"{left['name']}weight and {right['inputs']} inputs of {right['name']}weight")
    return layers


def activation_of(model: Any, path: str) -> str:
    """The name of a layer's activation; '' where it has none of its own."""
    module = model
    for part in filter(None, path.split(".")):
        module = module[int(part)] if part.isdigit() else getattr(module, part, ())
    neuron = next(iter(getattr(module, "neurons", ())), None)
    name = getattr(neuron, "activation", None)
    return name if isinstance(name, str) else ""
