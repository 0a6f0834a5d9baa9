"""Pictures of the graph of a Value, with Graphviz or as SVG of our own; `_children` gives the graph."""
from __future__ import annotations

import math

from flatgrad import _core, scalar
from flatgrad._core import Value
from flatgrad.arguments import extra, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError
from flatgrad.viz.drawing import Picture, svg_of_graph
from flatgrad.viz.names import Names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, Literal

    import graphviz

    from flatgrad.viz.names import Named

__all__ = ["draw_dot", "draw_svg", "value_mimebundle"]

COUNTED = 1_000_000  # the limit of counting in the message about a graph that is too large to draw
SHOWN = 60  # the largest number of values in a graph that a notebook draws by itself
# Operations whose picture may change the order of the operands.
FILLS = {"input": "#dcebf9", "weight": "#fbeacb", "bias": "#f0dff5", "between": "#ffffff", "result": "#d8f0df"}
COMMUTATIVE = {"+", "*", "sum", "mean", "max", "logsumexp"}


def draw_dot(root: Value, format: str = "svg", rankdir: Literal["LR", "TB"] = "LR", max_nodes: int = 500,
             expand: bool = False, names: Named = None) -> graphviz.Digraph:
    """Draw the graph of a Value: the Value and all Values from which it was computed.

    Parameters
    ----------
    root : Value
        The Value whose graph is drawn: a result, or any other node.
    format : str, optional
        The format of the rendered picture: 'svg', 'png', 'pdf' or another of `graphviz.FORMATS`.
    rankdir : {'LR', 'TB'}, optional
        Whether operands stand to the left of their result, or above it.
    max_nodes : int, optional
        The largest number of Values to draw.
    expand : bool, optional
        Whether to draw the scalar graph of a fused instruction, such as a neuron of a layer or an element of a softmax:
        every product and sum, with data and gradient. If not, the instruction is one bubble between its operands and
        its result.
    names : Module or mapping of str to Value or Tensor, optional
        Names for nodes without a `label`: a Module's parameters by `named_parameters`, or any nodes. With names, boxes
        have colours: orange for a Module's weights, purple for its biases, blue for other leaves, green for `root`.

    Returns
    -------
    graphviz.Digraph
        Notebooks show this object; `.render(outfile='graph.svg')` writes the picture, `.source` is its text.

    Raises
    ------
    MissingPackageError
        If the Python package graphviz is not installed.
    TypeError, ValueError
        If an argument is not as described, or the graph has more than `max_nodes` Values.

    Notes
    -----
    The look is that of micrograd's `trace_graph` notebook. A Value is a box with its `data`, its `grad` and, in front,
    its attribute `label`, if set. An operation is a bubble between its operands and its result, with one edge for each
    operand: two edges for `a + a`. Where the order of operands matters, as for `a - b`, the first operand is the upper
    one ('LR') or the left one ('TB').

    Names and order of the nodes depend only on the graph, so equal graphs have equal sources.

    With `expand`, the module `flatgrad.scalar` computes the additional Values for the picture, from the current data of
    the operands and the current gradient of the result. The graph itself, its gradients and the tape do not change. If
    the scalar graph of an instruction would leave the domain of one of its operations, such as a logarithm, the
    instruction is drawn as one bubble.

    Rendering needs Graphviz's program `dot` (https://graphviz.org/download), which does not come with the Python
    package. Without `dot`, rendering raises `graphviz.ExecutableNotFound`; this function and `.source` work without
    `dot`. `draw_svg` needs neither.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.viz import draw_dot
    >>> a, b = Value(2.0, label="a"), Value(-3.0, label="b")
    >>> picture = draw_dot((a * b).tanh())  # doctest: +SKIP
    >>> picture.render(outfile="graph.svg")  # doctest: +SKIP

    A neuron of a layer as one bubble, or as two products and a sum:

    >>> from flatgrad import dot
    >>> score = dot([a, b], [b, a])
    >>> draw_dot(score).source.count("shape=record")  # doctest: +SKIP
    3
    >>> draw_dot(score, expand=True).source.count("shape=record")  # doctest: +SKIP
    5
    """
    check_root(root)
    if rankdir not in ("LR", "TB"):
        raise ArgumentError(f"rankdir: expected 'LR' or 'TB', got {rankdir!r}")
    max_nodes = whole("max_nodes", max_nodes, 1)
    graphviz = extra("graphviz", "draw_dot", "viz")
    if not isinstance(format, str) or format not in graphviz.FORMATS:
        raise ArgumentError(
            f"format: expected 'svg', 'png', 'pdf' or another of graphviz.FORMATS, got {format!r}"
        )

    known = Names(names)
    graph = within(expanded_parts if expand else tape_parts, root, "max_nodes", max_nodes)
    picture = graphviz.Digraph(format=format, graph_attr={"rankdir": rankdir})
    # `graph` keeps the Values alive, so their ids are different; Values of a user's class may lack a hash.
    ids = {id(value): f"v{i}" for i, (value, _, _) in enumerate(graph)}
    for value, operands, op in graph:
        name = ids[id(value)]
        kind = known.kind_of(value, not operands and not op, value is root)
        colour = {} if names is None else {"style": "filled", "fillcolor": FILLS[kind]}
        picture.node(name, label=record(value, known.name_of(value)), shape="record", **colour)
        if operands or op:
            bubble = f"op{name[1:]}"
            ordered = len(operands) > 1 and op not in COMMUTATIVE
            picture.node(bubble, label=escaped(op), **({"ordering": "in"} if ordered else {}))
            picture.edges([(ids[id(operand)], bubble) for operand in operands])
            picture.edge(bubble, name)
    if expand:
        del graph, value, operands
        _core.collect()  # the Values made for the picture died in no order, so their nodes are still there
    return picture


def draw_svg(root: Value, *, names: Named = None, max_nodes: int = 500) -> Picture:
    """Draw the graph of a Value, as SVG and without Graphviz.

    Parameters
    ----------
    root : Value
        The Value whose graph is drawn: a result, or any other node.
    names : Module or mapping of str to Value or Tensor, optional
        Names for nodes without a `label`: a Module's parameters by `named_parameters`, in colours for weights and
        biases, or any nodes.
    max_nodes : int, optional
        The largest number of Values to draw.

    Returns
    -------
    Picture
        `.save('graph.svg')` writes it; `.svg` is its text. Notebooks show it by itself, not wider than their cell.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described, or the graph has more than `max_nodes` Values.

    Notes
    -----
    A card is a Value with its name, data and gradient; the bubble before it is the operation that made it.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.viz import draw_svg
    >>> a, b = Value(2.0, label="a"), Value(-3.0, label="b")
    >>> picture = draw_svg((a * b).tanh())
    >>> ">tanh<" in picture.svg
    True
    """
    return Picture(svg_of_graph(checked_graph(root, "max_nodes", max_nodes), root, names))


def value_mimebundle(value: Value, include: Collection[str] | None = None,
                     exclude: Collection[str] | None = None) -> dict[str, str]:
    """The picture of a Value in a notebook: its repr and, for a small graph, a drawing.

    Parameters
    ----------
    value : Value
    include, exclude : collection of str, optional
        MIME types to include or to exclude; as for IPython's `_repr_mimebundle_`.

    Returns
    -------
    dict of str to str
        'text/plain', and 'image/svg+xml' if the graph has at most 60 Values: by `draw_dot`, or by `draw_svg` where the
        package graphviz or the program `dot` is missing or fails.
    """
    bundle = {"text/plain": repr(value)}
    svg = "image/svg+xml"
    wanted = (include is None or svg in include) and (exclude is None or svg not in exclude)
    if wanted and graph_values(value, SHOWN) is not None:
        try:
            import graphviz
        except ImportError:
            bundle[svg] = draw_svg(value).svg
            return bundle
        try:
            bundle[svg] = draw_dot(value).pipe(encoding="utf-8", quiet=True)
        except (graphviz.ExecutableNotFound, graphviz.CalledProcessError):
            bundle[svg] = draw_svg(value).svg
    return bundle


def check_root(root: Any) -> None:
    if not isinstance(root, Value):
        raise ArgumentTypeError(f"root: expected a Value, got {root!r}")


def within(parts: Callable[..., Any], root: Value, name: str, limit: int) -> list[Any]:
    """`parts(root, limit)`, and an error if the graph is larger; `name` is what the caller calls the limit."""
    graph = parts(root, limit)
    if graph is None:
        counted = parts(root, max(COUNTED, limit))
        size = f"more than {COUNTED}" if counted is None else len(counted)
        raise ArgumentError(
            f"root: a graph of {size} values is more than {name}={limit}: "
            f"draw one of the values that it is made of, or raise {name}"
        )
    return graph


def checked_graph(root: Any, name: str, limit: int) -> list[Value]:
    """The Values of a graph, operands before results, after a check of both arguments."""
    check_root(root)
    return within(graph_values, root, name, whole(name, limit, 1))


def graph_values(root: Value, limit: int,
                 operands_of: Callable[[Any], Any] = lambda value: value._children) -> list[Value] | None:
    """All Values from which `root` was computed, and `root` itself. Each comes after its operands; operands keep
    their order. None if there are more than `limit`."""
    order, seen = [], {id(root): root}  # keeps the Values alive, because a dead Value leaves its id to another one
    path = [(root, iter(operands_of(root)))]
    while path:
        value, operands = path[-1]
        for operand in operands:
            if id(operand) not in seen:
                if len(seen) == limit:
                    return None
                seen[id(operand)] = operand
                path.append((operand, iter(operands_of(operand))))
                break
        else:
            order.append(value)
            path.pop()
    return order


def tape_parts(root: Value, limit: int) -> list[tuple[Value, Any, str]] | None:
    """The parts to draw: (Value, its operands, its operation) for each of `graph_values`, or None."""
    values = graph_values(root, limit)
    return None if values is None else [(value, value._children, value._op) for value in values]


def expanded_parts(root: Value, limit: int) -> list[tuple[Value, Any, str]] | None:
    """Like `tape_parts`, with the scalar graphs of fused instructions instead of the instructions."""
    values = graph_values(root, limit, instruction_operands)  # the picture shows all of them
    if values is None:
        return None
    made = {}  # id of a Value -> (the Value, its operands, its operation) that replace the tape's
    count = len(values)
    for elements in fused_elements(values):
        graph = scalar_parts(elements)
        count += len(graph) - len(elements)
        if count > limit:
            return None
        made.update((id(part[0]), part) for part in graph)

    def part(value):
        return made[id(value)] if id(value) in made else (value, instruction_operands(value), value._op)

    return [part(value) for value in graph_values(root, count, lambda value: part(value)[1])]


def fused(value: Value) -> Any:
    """What `scalar.instruction` takes for a Value, and which of its results that is; None for a Value that a single
    operation has made, an element of one among them, or the call of a program."""
    found = _core.instruction(value)
    single = found is None or found[0] == "call" or found[0] == "map" and found[2]["operation"] not in scalar.__all__
    return None if single else found


def instruction_operands(value: Value) -> Any:
    """The operands of a Value; an element of a fused instruction has only those that reach it."""
    instruction = fused(value)
    return value._children if instruction is None else tuple([x for rows in instruction[1] for row in rows for x in row])


def fused_elements(values: list[Value]) -> Any:
    """The results of fused instructions among the Values, as lists of (Value, instruction).

    The elements of one softmax are in one list, because its scalar graph has exponentials in common.
    """
    lists, rows = [], {}
    for value in values:
        instruction = fused(value)
        if instruction is None:
            continue
        name, operands, _, index = instruction
        if name not in ("softmax", "log_softmax"):
            lists.append([(value, instruction)])
            continue
        # A second element with the same index belongs to a second softmax of the same row.
        key = name, tuple([id(x) for x in operands[0][0]])
        if key not in rows or index in rows[key][1]:
            rows[key] = [], set()
            lists.append(rows[key][0])
        rows[key][0].append((value, instruction))
        rows[key][1].add(index)
    return lists


def scalar_parts(elements: Any) -> Any:
    """(Value, its operands, its operation) for the elements of a fused instruction and for all that is
    between them and their operands in its scalar graph; gradients are what the elements' own ask for."""
    name, operands, parameters, _ = elements[0][1]
    copies = {}
    arguments = [leaf_copies(x, copies) for x in operands]
    given = {id(copy): x for x, copy in copies.values()}
    try:
        made = scalar.instruction(name, arguments, 1, 1, **parameters)[0]
        made = [made[instruction[3]] for _, instruction in elements]
        # A constant times each result: their gradients are those of the Values drawn, no operand's is.
        scalar.sum([result * value.grad for result, (value, _) in zip(made, elements)]).backward()
    except (ArithmeticError, ValueError):
        return [(value, instruction_operands(value), value._op) for value, _ in elements]
    shown = {**given, **{id(result): value for result, (value, _) in zip(made, elements)}}
    graph = {}
    for result in made:
        for value in graph_values(result, math.inf):
            if id(value) not in given:
                children = tuple([shown.get(id(x), x) for x in value._children])
                graph[id(value)] = shown.get(id(value), value), children, value._op
    return list(graph.values())


def leaf_copies(operand: Any, copies: dict[int, Any]) -> Any:
    """Leaves with the data of an operand or of a row of them; `copies` gets id -> (operand, leaf)."""
    if not isinstance(operand, Value):
        return [leaf_copies(x, copies) for x in operand]
    return copies.setdefault(id(operand), (operand, Value(operand.data)))[1]


def record(value: Value, name: str) -> str:
    """The text of a Value's box."""
    fields = [escaped(name)] if name else []
    fields += [f"data {decimal(value.data)}", f"grad {decimal(value.grad)}"]
    return "{ " + " | ".join(fields) + " }"


def decimal(x: float) -> str:
    """A number with four decimals, as in micrograd's notebook, or in short form if this has fewer digits."""
    return f"{x:.4f}" if abs(x) < 1e9 or not math.isfinite(x) else f"{x:.4e}"


def escaped(text: str) -> str:
    """A text in a form that Graphviz shows unchanged, in a record and elsewhere."""
    # The package graphviz escapes quotation marks; unescaped, an entity such as &lt; would show as <.
    text = text.replace("\\", "\\\\").replace("&", "&amp;")
    for character in "{}|<>":
        text = text.replace(character, "\\" + character)
    text = "\\n".join(text.splitlines())
    # Other characters, such as NUL or half a surrogate pair, are not allowed in a picture.
    return "".join(c if c.isprintable() else repr(c)[1:-1].replace("\\", "\\\\") for c in text)
