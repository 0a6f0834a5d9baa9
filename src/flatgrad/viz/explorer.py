"""A page in which one steps through the graph of a Value, forward and backward."""
from __future__ import annotations

import math
import os

from flatgrad import anomaly
from flatgrad._core import _origins, _visits
from flatgrad.arguments import path_of
from flatgrad.storage import write_file
from flatgrad.viz.cards import cards, printable
from flatgrad.viz.graph import checked_graph
from flatgrad.viz.names import Names
from flatgrad.viz.pages import filled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flatgrad._core import Value, _Path
    from flatgrad.viz.names import Named

__all__ = ["explore"]

SAME = 1e-9                     # relative, of what a derivative times a gradient may differ from what a visit has added


def explore(root: Value, path: _Path, *, names: Named = None, limit: int = 1000) -> str:
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
    write_file(path, filled("explorer.html", data["title"], data).encode())
    return path


def page_data(graph: list[Value], root: Value, names: Names) -> dict[str, Any]:
    """What the page shows, as JSON has it; numbers are text, for nan and inf are not JSON."""
    origins = _origins(graph)
    order = sorted(range(len(graph)), key=lambda k: origins[k][0])   # in which they were computed
    graph, origins = [graph[k] for k in order], [origins[k] for k in order]
    index = {id(value): k for k, value in enumerate(graph)}
    nodes, edges, layout = cards(graph, root, names)
    for value, node, (_, place) in zip(graph, nodes, origins):
        node.update(op=printable(value._op), operands=[index[id(operand)] for operand in value._children],
                    data=repr(value.data), where=where(place))
    title = nodes[index[id(root)]]
    return {"title": title["name"] if title["named"] else "graph", "root": index[id(root)], "nodes": nodes,
            "edges": edges, "visits": visits_of(root, graph, index), "width": round(layout.width, 1),
            "height": round(layout.height, 1)}


def where(place: Any) -> list[Any] | None:
    """[file, line, function, text] of a line of code, without the folder; None if it is not known."""
    name, line, function, text = anomaly.located(place)
    return None if name is None else [printable(os.path.basename(name) or name), line, function, printable(text or "")]


def visits_of(root: Value, graph: list[Value], index: dict[int, int]) -> list[list[Any]]:
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


def explains(slope: float | None, incoming: float, before: float, after: float) -> bool:
    """Whether a derivative is what a visit has added; a rule of a user's may do anything."""
    if slope is None:
        return False
    added = slope * incoming
    if not math.isfinite(before + added) or not math.isfinite(after):
        return before + added == after or (math.isnan(before + added) and math.isnan(after))
    return abs(before + added - after) <= SAME * max(abs(before), abs(added), abs(after))
