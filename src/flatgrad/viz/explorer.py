"""A page in which one steps through the graph of a Value, forward and backward."""
import html
import json
import math
import os
import re

from flatgrad import anomaly
from flatgrad._core import _origins, _visits
from flatgrad.arguments import path_of
from flatgrad.storage import write_file
from flatgrad.viz.graph import checked_graph
from flatgrad.viz.layout import Layout
from flatgrad.viz.names import Names

__all__ = ["explore"]

PAGE = os.path.join(os.path.dirname(__file__), "explorer.html")
CARD, HEIGHT = 146.0, 60.0      # of a node in the page, where text has 12 pixels
GAP = 10.0                      # between the bubble of an operation and the card of its result
LONGEST = 14                    # letters in a bubble
SAME = 1e-9                     # relative, of what a derivative times a gradient may differ from what a visit has added


def explore(root, path, *, names=None, limit=1000):
    """Write a page of HTML in which one steps through the graph of a Value, forward and backward, node by node.

    Parameters
    ----------
    root : Value
        The Value whose graph is shown: a loss, or any other node.
    path : str or path-like
        The file to write, such as ``'graph.html'``. It needs nothing else: no network and no library.
    names : Module or mapping of str to Value or Tensor, optional
        Names of nodes that have no attribute `label`: a Module's parameters by `named_parameters`, as weights and
        biases in colours of their own; or any nodes.
    limit : int, optional
        The largest number of Values in the page.

    Returns
    -------
    str
        `path`.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described, or the graph has more than `limit` Values.
    OSError
        If the file cannot be written. An old file stays as it is.

    Notes
    -----
    The forward steps show the operations in the order in which they were computed, with the data of now. The backward
    steps are those of ``root.backward()``, for gradients that are 0 before: the newest marked node is visited, and its
    rule adds to the gradients of its operands. flatgrad itself runs this pass when the page is made, rules of your own
    included; gradients are afterwards what they were. Results of one instruction, such as a layer, are visited one by
    one here, so the last digits may differ from those of `backward()`. `flatgrad.scalar_graph()` builds a network from
    single operations.

    The page tells the line of code that computed a node if that was done within `flatgrad.detect_anomaly()`, and if
    `explore` is called within the same block.

    Keys: arrows, Home and End step, space plays, + and - zoom, 0 shows all. ``graph.html#step=5`` opens the page at a
    step.

    Examples
    --------
    >>> import os, tempfile
    >>> import flatgrad
    >>> from flatgrad import Value, viz
    >>> a, b = Value(2.0, label="a"), Value(-3.0, label="b")
    >>> with flatgrad.detect_anomaly(), tempfile.TemporaryDirectory() as folder:
    ...     loss = (a * b + b**2).tanh()
    ...     page = viz.explore(loss, os.path.join(folder, "graph.html"))
    ...     os.path.getsize(page) > 10_000
    True
    >>> a.grad
    0.0
    """
    graph = checked_graph(root, "limit", limit)
    path = path_of("path", path)
    data = page_data(graph, root, Names(names))
    found = {"TITLE": html.escape(data["title"]), "DATA": json.dumps(data).replace("<", "\\u003c")}
    with open(PAGE, encoding="utf-8") as file:
        page = re.sub("@(TITLE|DATA)@", lambda match: found[match[1]], file.read())
    write_file(path, page.encode())
    return path


def page_data(graph, root, names):
    """What the page shows, as JSON has it; numbers are text, for nan and inf are not JSON."""
    origins = _origins(graph)
    order = sorted(range(len(graph)), key=lambda k: origins[k][0])   # in which they were computed
    graph, origins = [graph[k] for k in order], [origins[k] for k in order]
    index = {id(value): k for k, value in enumerate(graph)}
    operands = [[index[id(operand)] for operand in value._children] for value in graph]
    signs = [sign_of(value, found) for value, found in zip(graph, operands)]
    bubbles = [max(28.0, 16 + 7.6 * min(len(sign), LONGEST)) if sign else 0.0 for sign in signs]
    sizes = [(CARD + (bubble + GAP if bubble else 0.0), HEIGHT) for bubble in bubbles]
    layout = Layout(operands, sizes)

    nodes = []
    for k, value in enumerate(graph):
        name = printable(names.name_of(value))
        x, y = layout.place(k)
        nodes.append({
            "name": name or f"v{k + 1}", "named": bool(name), "op": printable(value._op), "sign": signs[k],
            "kind": names.kind_of(value, not signs[k], value is root),
            "data": repr(value.data), "operands": operands[k], "where": where(origins[k][1]),
            "x": round(x, 1), "y": round(y, 1), "width": round(sizes[k][0], 1), "height": HEIGHT,
            "bubble": round(bubbles[k], 1)})
    edges = [{"from": operand, "to": k, "path": layout.path(operand, k)}
             for k, found in enumerate(operands) for operand in dict.fromkeys(found)]
    return {"title": nodes[index[id(root)]]["name"] if names.name_of(root) else "graph", "root": index[id(root)], "nodes": nodes, "edges": edges,
            "visits": visits_of(root, graph, index), "width": round(layout.width, 1),
            "height": round(layout.height, 1)}


def sign_of(value, operands):
    """What a bubble says; '' for a leaf."""
    return printable(value._op) or ("rule" if operands else "")


def printable(text):
    """A text with escapes for what no page may have, such as half a surrogate pair."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def where(place):
    """[file, line, function, text] of a line of code, without the folder; None if it is not known."""
    name, line, function, text = anomaly.located(place)
    return None if name is None else [printable(os.path.basename(name) or name), line, function, printable(text or "")]


def visits_of(root, graph, index):
    """[node, [[operand, its gradient then, derivative by it or None], ...]] for each visit of a backward pass."""
    gradients = dict.fromkeys(range(len(graph)), 0.0)
    gradients[index[id(root)]] = 1.0
    visits = []
    for node, operands, after in _visits(root):
        if id(node) not in index:   # of an operand that no picture shows
            continue
        slopes = {}
        for operand, slope in zip(node._children, node._local_grads):
            slopes[id(operand)] = slopes.get(id(operand), 0.0) + slope
        given = {}
        for operand, gradient in zip(operands, after):
            if id(operand) in index:
                k, slope = index[id(operand)], slopes.get(id(operand))
                if not explains(slope, gradients[index[id(node)]], gradients[k], gradient):
                    slope = None
                given[k] = [k, repr(gradient), None if slope is None else repr(slope)]
        gradients.update((k, float(gradient)) for k, gradient, _ in given.values())
        visits.append([index[id(node)], list(given.values())])
    return visits


def explains(slope, incoming, before, after):
    """Whether a derivative is what a visit has added; a rule of a user's may do anything."""
    if slope is None:
        return False
    added = slope * incoming
    if not math.isfinite(before + added) or not math.isfinite(after):
        return before + added == after or (math.isnan(before + added) and math.isnan(after))
    return abs(before + added - after) <= SAME * max(abs(before), abs(added), abs(after))
