"""Graphs as cards with edges, for pictures of our own: what is on each card, and where it goes."""
from __future__ import annotations

from flatgrad import _core
from flatgrad.viz.layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flatgrad._core import Value
    from flatgrad.viz.names import Names

__all__ = ["cards", "printable"]

CARD, HEIGHT = 146.0, 60.0      # of a card, where text has 12 pixels
GAP = 10.0                      # between the bubble of an operation and the card of its result
LONGEST = 14                    # letters in a bubble


def cards(graph: list[Value], root: Value, names: Names) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Layout]:
    """A dict for each Value, one for each edge, and the layout. Operands come before results in `graph`."""
    index = {id(value): k for k, value in enumerate(graph)}
    operands = [[index[id(operand)] for operand in value._children] for value in graph]
    signs = [sign_of(value) or ("rule" if found else "") for value, found in zip(graph, operands)]
    bubbles = [max(28.0, 16 + 7.6 * min(len(sign), LONGEST)) if sign else 0.0 for sign in signs]
    sizes = [(CARD + (bubble + GAP if bubble else 0.0), HEIGHT) for bubble in bubbles]
    layout = Layout(operands, sizes)
    nodes = []
    for k, value in enumerate(graph):
        name = printable(names.name_of(value))
        x, y = layout.place(k)
        nodes.append({"name": name or f"v{k + 1}", "named": bool(name), "sign": signs[k],
                      "kind": names.kind_of(value, not signs[k], value is root), "x": round(x, 1), "y": round(y, 1),
                      "width": round(sizes[k][0], 1), "height": HEIGHT, "bubble": round(bubbles[k], 1)})
    edges = [{"from": operand, "to": k, "path": layout.path(operand, k)}
             for k, found in enumerate(operands) for operand in dict.fromkeys(found)]
    return nodes, edges, layout


def sign_of(value: Value) -> str:
    """What the bubble of a Value says: its operation, and for a layer also the activation."""
    sign = printable(value._op)
    found = _core.instruction(value) if sign == "layer" else None
    activation = found and found[2].get("operation")
    return f"{sign} {activation}" if activation else sign


def printable(text: str) -> str:
    """A text with escapes for what no page may have, such as half a surrogate pair."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
