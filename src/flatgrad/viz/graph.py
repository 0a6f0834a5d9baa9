"""Pictures of the graph behind a Value, with Graphviz: a graph is what `_children` says."""
import math

from flatgrad import _core, scalar
from flatgrad._core import Value
from flatgrad.arguments import extra, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError

__all__ = ["draw_dot", "value_mimebundle"]

COUNTED = 1_000_000  # values of a graph that is too large to draw, for the message; more are "more"
SHOWN = 60  # values of a graph that a notebook draws unasked
# Operations whose picture need not keep the operands' order.
COMMUTATIVE = {"+", "*", "sum", "mean", "max", "logsumexp"}


def draw_dot(root, format="svg", rankdir="LR", max_nodes=500, expand=False):
    """Draw the graph of a Value: everything that it was computed from.

    Parameters
    ----------
    root : Value
        The result, or any node, whose graph to draw.
    format : str, optional
        What the picture renders to: 'svg', 'png', 'pdf' or another of `graphviz.FORMATS`.
    rankdir : {'LR', 'TB'}, optional
        Operands stand left of their result, or above it.
    max_nodes : int, optional
        The largest number of Values to draw.
    expand : bool, optional
        Whether to draw the result of a fused instruction, such as a neuron of a layer or an element
        of a softmax, as the scalar graph that the instruction stands for: every product and sum, with
        data and gradient. If not, the instruction is one bubble between its operands and its result.

    Returns
    -------
    graphviz.Digraph
        Notebooks show it; `.render(outfile='graph.svg')` writes it, `.source` is its text.

    Raises
    ------
    MissingPackageError
        If the Python package graphviz is not installed.
    TypeError, ValueError
        If an argument is not as described, or the graph has more than `max_nodes` Values.

    Notes
    -----
    The look is that of micrograd's `trace_graph` notebook: a Value is a box with its `data`, its
    `grad` and, in front, its attribute `label` if it has one; an operation is a bubble between its
    operands and its result, with one edge for each operand, so two for `a + a`. Where it matters,
    as for `a - b`, the first operand is the upper one ('LR') or the left one ('TB').

    Names and order of the nodes depend on the graph only, so equal graphs have equal sources.

    What `expand` adds is computed for the picture, by the module `flatgrad.scalar`, from the operands'
    data and the result's gradient as they are now. It leaves no trace: the graph itself, its gradients
    and the tape stay as they were. An instruction whose scalar graph would leave the domain of one of
    its operations, such as a logarithm's, is drawn as one bubble all the same.

    Rendering needs Graphviz itself, the program `dot` (https://graphviz.org/download), which does not
    come with the Python package. Without it rendering raises `graphviz.ExecutableNotFound`; this
    function and `.source` do without.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.viz import draw_dot
    >>> a, b = Value(2.0, label="a"), Value(-3.0, label="b")
    >>> picture = draw_dot((a * b).tanh())  # doctest: +SKIP
    >>> picture.render(outfile="graph.svg")  # doctest: +SKIP

    A neuron of a layer is one bubble, or two products and a sum:

    >>> from flatgrad import dot
    >>> score = dot([a, b], [b, a])
    >>> draw_dot(score).source.count("shape=record")  # doctest: +SKIP
    3
    >>> draw_dot(score, expand=True).source.count("shape=record")  # doctest: +SKIP
    5
    """
    if not isinstance(root, Value):
        raise ArgumentTypeError(f"root: expected a Value, got {root!r}")
    if rankdir not in ("LR", "TB"):
        raise ArgumentError(f"rankdir: expected 'LR' or 'TB', got {rankdir!r}")
    max_nodes = whole("max_nodes", max_nodes, 1)
    graphviz = extra("graphviz", "draw_dot", "viz")
    if not isinstance(format, str) or format not in graphviz.FORMATS:
        raise ArgumentError(
            f"format: expected 'svg', 'png', 'pdf' or another of graphviz.FORMATS, got {format!r}"
        )

    parts = expanded_parts if expand else tape_parts
    graph = parts(root, max_nodes)
    if graph is None:
        counted = parts(root, max(COUNTED, max_nodes))
        size = f"more than {COUNTED}" if counted is None else len(counted)
        raise ArgumentError(
            f"root: a graph of {size} values is more than max_nodes={max_nodes}: "
            "draw one of the values that it is made of, or raise max_nodes"
        )

    picture = graphviz.Digraph(format=format, graph_attr={"rankdir": rankdir})
    # Alive in `graph`, the Values have different ids; those of the user's own class may lack a hash.
    names = {id(value): f"v{i}" for i, (value, _, _) in enumerate(graph)}
    for value, operands, op in graph:
        name = names[id(value)]
        picture.node(name, label=record(value), shape="record")
        if operands or op:
            bubble = f"op{name[1:]}"
            ordered = len(operands) > 1 and op not in COMMUTATIVE
            picture.node(bubble, label=escaped(op), **({"ordering": "in"} if ordered else {}))
            picture.edges([(names[id(operand)], bubble) for operand in operands])
            picture.edge(bubble, name)
    if expand:
        del graph, value, operands
        _core.collect()  # the Values made for the picture went in no order, so they are still there
    return picture


def value_mimebundle(value, include=None, exclude=None):
    """What a notebook shows for a Value: its repr and, of a small graph, the picture.

    Parameters
    ----------
    value : Value
    include, exclude : collection of str, optional
        MIME types that are wanted, or not; as for IPython's `_repr_mimebundle_`.

    Returns
    -------
    dict of str to str
        'text/plain', and 'image/svg+xml' if the graph has at most 60 Values and both the package
        graphviz and the program `dot` are there and work.
    """
    bundle = {"text/plain": repr(value)}
    svg = "image/svg+xml"
    wanted = (include is None or svg in include) and (exclude is None or svg not in exclude)
    if wanted and graph_values(value, SHOWN) is not None:
        try:
            import graphviz
        except ImportError:
            return bundle
        try:
            bundle[svg] = draw_dot(value).pipe(encoding="utf-8", quiet=True)
        except (graphviz.ExecutableNotFound, graphviz.CalledProcessError):
            pass
    return bundle


def graph_values(root, limit, operands_of=lambda value: value._children):
    """All Values that `root` is made of, itself included, each after its operands and these in their
    order; None if there are more than `limit`."""
    order, seen = [], {id(root): root}  # kept alive: a Value that goes would leave its id to another
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


def tape_parts(root, limit):
    """What to draw: (Value, its operands, its operation) for each of `graph_values`, or None."""
    values = graph_values(root, limit)
    return None if values is None else [(value, value._children, value._op) for value in values]


def expanded_parts(root, limit):
    """As `tape_parts`, with the scalar graphs of fused instructions in place of these."""
    values = graph_values(root, limit, instruction_operands)  # all of them are drawn
    if values is None:
        return None
    made = {}  # id of a Value -> (the Value, its operands, its operation), where the tape says another
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


def fused(value):
    """What `scalar.instruction` takes for a Value, and which of its results that is; None for a Value that a single
    operation has made, an element of one among them."""
    found = _core.instruction(value)
    return None if found is None or found[0] == "map" and found[2]["operation"] not in scalar.__all__ else found


def instruction_operands(value):
    """The operands of a Value; an element of a fused instruction has only those that reach it."""
    instruction = fused(value)
    return value._children if instruction is None else tuple([x for rows in instruction[1] for row in rows for x in row])


def fused_elements(values):
    """The Values that fused instructions have computed, as lists of (Value, instruction).

    The elements of one softmax come together, since its scalar graph has exponentials in common.
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
        # A second element of one index is of a second softmax of the same row.
        key = name, tuple([id(x) for x in operands[0][0]])
        if key not in rows or index in rows[key][1]:
            rows[key] = [], set()
            lists.append(rows[key][0])
        rows[key][0].append((value, instruction))
        rows[key][1].add(index)
    return lists


def scalar_parts(elements):
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


def leaf_copies(operand, copies):
    """Leaves with the data of an operand or of a row of them; `copies` gets id -> (operand, leaf)."""
    if not isinstance(operand, Value):
        return [leaf_copies(x, copies) for x in operand]
    return copies.setdefault(id(operand), (operand, Value(operand.data)))[1]


def record(value):
    """The text of a Value's box."""
    label = getattr(value, "label", None)
    fields = [] if label is None or label == "" else [escaped(str(label))]
    fields += [f"data {decimal(value.data)}", f"grad {decimal(value.grad)}"]
    return "{ " + " | ".join(fields) + " }"


def decimal(x):
    """Four decimals, as micrograd's notebook has them, unless that were a row of digits."""
    return f"{x:.4f}" if abs(x) < 1e9 or not math.isfinite(x) else f"{x:.4e}"


def escaped(text):
    """A text that Graphviz shows as it is, in a record and elsewhere."""
    # The package graphviz escapes quotation marks; an entity such as &lt; would show as <.
    text = text.replace("\\", "\\\\").replace("&", "&amp;")
    for character in "{}|<>":
        text = text.replace(character, "\\" + character)
    text = "\\n".join(text.splitlines())
    # Others, such as NUL or half a surrogate pair, cannot stand in a picture.
    return "".join(c if c.isprintable() else repr(c)[1:-1].replace("\\", "\\\\") for c in text)
