"""Pictures: of a two-class predictor over the plane, as text or with matplotlib; and of the graph
behind a Value, with Graphviz.

A predictor here is any function from points to scores, and a graph is what `_children` says: nothing
knows nn. matplotlib and graphviz are the extra `viz`, imported by the functions that need them.
"""
import math
import operator

import numpy as np

from flatgrad import _core, scalar
from flatgrad._core import Value

__all__ = ["decision_boundary_text", "draw_dot", "plot_decision_boundary", "value_mimebundle"]

# (negative, positive): faint for regions, bold for samples.
REGIONS = (".", ":")
SAMPLES = ("o", "#")

MARGIN = 0.15  # of the samples' range, added on each side
GRID = 200  # points along each axis of a plot

COUNTED = 1_000_000  # values of a graph that is too large to draw, for the message; more are "more"
SHOWN = 60  # values of a graph that a notebook draws unasked
# Operations whose picture need not keep the operands' order.
COMMUTATIVE = {"+", "*", "sum", "mean", "max", "logsumexp"}

# The elements of a fused instruction, computed by single operations from its operands and parameters.
EXPANSIONS = {
    "layer": lambda x, w, b, activation: [scalar.neuron(w, x, b, activation)],
    "sum": lambda xs: [scalar.sum(xs)],
    "mean": lambda xs: [scalar.mean(xs)],
    "max": lambda xs: [scalar.max(xs)],
    "logsumexp": lambda xs: [scalar.logsumexp(xs)],
    "softmax": scalar.softmax,
    "log_softmax": scalar.log_softmax,
    "cross_entropy": lambda rows, labels: [scalar.cross_entropy(rows, labels)],
}
# The same of elementwise losses. Any other elementwise operation is a single one already.
EXPANSIONS |= {loss.__name__: lambda *operands, of=loss: [of(*operands)] for loss in (
    scalar.squared_error, scalar.hinge, scalar.absolute_error, scalar.huber, scalar.binary_cross_entropy,
    scalar.bce_with_logits, scalar.weighted_bce_with_logits, scalar.kl_div, scalar.kl_div_log)}


def decision_boundary_text(predict, X, y, width=60, height=20):
    """Draw the regions where a score is positive and where not, and the samples, as text.

    Parameters
    ----------
    predict : callable
        From points, an ndarray of shape `(n, 2)`, to finite scores, of shape `(n,)`; called once.
    X : array_like, shape (n_samples, 2)
        Samples, finite.
    y : array_like, shape (n_samples,)
        Labels: positive for one class; 0 or negative for the other.
    width, height : int, optional
        Size of the drawing in characters, without the axes around it.

    Returns
    -------
    str
        Lines without one at the end, in ASCII.

    Raises
    ------
    TypeError, ValueError
        If an argument, or what `predict` returns, is not as described.

    Notes
    -----
    A region's character is the sign of the score in the middle of its cell; a score of 0 is not
    positive. Where samples share a cell, one on the wrong side of the boundary is shown.

    Examples
    --------
    >>> from flatgrad.viz import decision_boundary_text
    >>> X, y = [[0.0, 0.0], [2.0, 1.0]], [-1, 1]
    >>> print(decision_boundary_text(lambda points: points[:, 0] - 1, X, y, width=20, height=4))
     1.15 +--------------------+
          |..........:::::::#::|
          |..........::::::::::|
          |..........::::::::::|
          |..o.......::::::::::|
    -0.15 +--------------------+
           -0.3             2.3
    samples: o negative  # positive   score: . negative  : positive
    """
    width, height = (
        whole_number(name, n) for name, n in (("width", width), ("height", height))
    )
    X, y = check_samples(X, y)
    (x_low, x_high), (y_low, y_high) = axis_range(X, 0), axis_range(X, 1)

    centres_x = x_low + (np.arange(width) + 0.5) / width * (x_high - x_low)
    centres_y = y_high - (np.arange(height) + 0.5) / height * (y_high - y_low)
    cells = grid_points(centres_x, centres_y)
    scores = check_scores(predict, np.concatenate([cells, X]))
    rows = (scores[: len(cells)] > 0).reshape(height, width)
    canvas = [[REGIONS[positive] for positive in row] for row in rows.tolist()]

    columns = np.minimum((X[:, 0] - x_low) / (x_high - x_low) * width, width - 1).astype(int)
    lines = np.minimum((y_high - X[:, 1]) / (y_high - y_low) * height, height - 1).astype(int)
    wrong = (scores[len(cells):] > 0) != (y > 0)
    for i in np.argsort(wrong, kind="stable"):  # the wrong ones last, so on top
        canvas[lines[i]][columns[i]] = SAMPLES[int(y[i] > 0)]

    top, bottom, left, right = (f"{end:.3g}" for end in (y_high, y_low, x_low, x_high))
    indent = max(len(top), len(bottom))
    rule = "+" + "-" * width + "+"
    return "\n".join([
        f"{top:>{indent}} {rule}",
        *(f"{'':{indent}} |{''.join(row)}|" for row in canvas),
        f"{bottom:>{indent}} {rule}",
        f"{'':{indent}}  {left} {right:>{max(width - len(left) - 1, 0)}}",
        f"samples: {SAMPLES[0]} negative  {SAMPLES[1]} positive   "
        f"score: {REGIONS[0]} negative  {REGIONS[1]} positive",
    ])


def plot_decision_boundary(predict, X, y, ax=None):
    """Draw the regions where a score is positive and where not, and the samples, on axes.

    Parameters
    ----------
    predict, X, y
        As for `decision_boundary_text`.
    ax : matplotlib.axes.Axes, optional
        Where to draw. None takes `matplotlib.pyplot.gca()`.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, its limits set to what is drawn. Nothing is shown and nothing saved.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If an argument, or what `predict` returns, is not as described.

    Notes
    -----
    The boundary is interpolated linearly between the points of a grid of 200 by 200.

    Examples
    --------
    >>> from matplotlib.figure import Figure  # doctest: +SKIP
    >>> from flatgrad.viz import plot_decision_boundary
    >>> figure = Figure()  # doctest: +SKIP
    >>> X, y = [[0.0, 0.0], [2.0, 1.0]], [-1, 1]
    >>> ax = plot_decision_boundary(
    ...     lambda points: points[:, 0] - 1, X, y, ax=figure.subplots())  # doctest: +SKIP
    >>> figure.savefig("boundary.png")  # doctest: +SKIP
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "matplotlib is needed for this picture: pip install 'flatgrad[viz]'"
        ) from error

    X, y = check_samples(X, y)
    x_range, y_range = axis_range(X, 0), axis_range(X, 1)
    xs, ys = np.linspace(*x_range, GRID), np.linspace(*y_range, GRID)
    scores = check_scores(predict, grid_points(xs, ys)).reshape(GRID, GRID)
    if ax is None:
        from matplotlib import pyplot
        ax = pyplot.gca()

    # Scaled to [-1, 1], so that the levels need not follow the scores; the zero stays where it is.
    scores = scores / (np.abs(scores).max() or 1.0)
    ends = matplotlib.colormaps["Spectral"]([0.0, 1.0])
    ax.contourf(xs, ys, scores, levels=[-1.0, 0.0, 1.0], colors=list(ends), alpha=0.4)
    if scores.min() < 0 < scores.max():
        ax.contour(xs, ys, scores, levels=[0.0], colors="0.2", linewidths=1.2)
    for positive, colour in enumerate(ends):
        side = X[(y > 0) == bool(positive)]
        ax.scatter(side[:, 0], side[:, 1], s=40, color=[colour], edgecolors="white", linewidths=0.8)
    ax.set_xlim(x_range)
    ax.set_ylim(y_range)
    return ax


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
    ImportError
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
        raise TypeError(f"root: expected a Value, got {root!r}")
    if rankdir not in ("LR", "TB"):
        raise ValueError(f"rankdir: expected 'LR' or 'TB', got {rankdir!r}")
    max_nodes = whole_number("max_nodes", max_nodes)
    try:
        import graphviz
    except ImportError as error:
        raise ImportError(
            "graphviz is needed for this picture: pip install 'flatgrad[viz]'"
        ) from error
    if not isinstance(format, str) or format not in graphviz.FORMATS:
        raise ValueError(
            f"format: expected 'svg', 'png', 'pdf' or another of graphviz.FORMATS, got {format!r}"
        )

    parts = expanded_parts if expand else tape_parts
    graph = parts(root, max_nodes)
    if graph is None:
        counted = parts(root, max(COUNTED, max_nodes))
        size = f"more than {COUNTED}" if counted is None else len(counted)
        raise ValueError(
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


def instruction_operands(value):
    """The operands of a Value; an element of a fused instruction has only those that reach it."""
    name, operands, _ = _core.instruction(value) or (None, (), {})
    if name == "layer":
        x, w, b = operands
        return (*x, *w) if b is None else (*x, *w, b)
    if name == "cross_entropy":
        return tuple([x for row in operands[0] for x in row])
    return operands[0] if name in EXPANSIONS else value._children


def fused_elements(values):
    """The Values that fused instructions have computed, as lists of (Value, instruction).

    The elements of one softmax come together, since its scalar graph has exponentials in common.
    """
    lists, rows = [], {}
    for value in values:
        instruction = _core.instruction(value)
        if instruction is not None and instruction[0] == "map":
            instruction = instruction[2]["operation"], instruction[1], {}
        if instruction is None or instruction[0] not in EXPANSIONS:
            continue
        name, operands, parameters = instruction
        if "index" not in parameters:
            lists.append([(value, instruction)])
            continue
        # A second element of one index is of a second softmax of the same row.
        key = name, tuple([id(x) for x in operands[0]])
        if key not in rows or parameters["index"] in rows[key][1]:
            rows[key] = [], set()
            lists.append(rows[key][0])
        rows[key][0].append((value, instruction))
        rows[key][1].add(parameters["index"])
    return lists


def scalar_parts(elements):
    """(Value, its operands, its operation) for the elements of a fused instruction and for all that is
    between them and their operands in its scalar graph; gradients are what the elements' own ask for."""
    name, operands, parameters = elements[0][1]
    copies = {}
    arguments = [leaf_copies(x, copies) for x in operands]
    given = {id(copy): x for x, copy in copies.values()}
    parameters = {key: parameter for key, parameter in parameters.items() if key != "index"}
    try:
        made = EXPANSIONS[name](*arguments, **parameters)
        made = [made[instruction[2].get("index", 0)] for _, instruction in elements]
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
    if operand is None:
        return None
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


def check_samples(X, y):
    """`X` and `y` as float64 arrays that fit each other."""
    X, y = to_floats("X", X), to_floats("y", y)
    if X.ndim != 2 or X.shape[1] != 2 or len(X) == 0:
        raise ValueError(f"X: expected shape (n_samples, 2), n_samples at least 1, got {X.shape}")
    if y.shape != (len(X),):
        raise ValueError(f"y: expected shape ({len(X)},), a label for each row of X, got {y.shape}")
    return X, y


def check_scores(predict, points):
    """One finite score for each point."""
    scores = to_floats("predict", predict(points))
    if scores.shape != (len(points),):
        raise ValueError(
            f"predict: expected scores of shape ({len(points)},) for as many points, "
            f"got {scores.shape}"
        )
    return scores


def to_floats(name, values):
    """A float64 array of finite numbers."""
    try:
        values = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: expected an array of numbers: {error}") from None
    finite = np.isfinite(values)
    if not finite.all():
        raise ValueError(f"{name}: expected finite numbers, got {values[~finite][0]}")
    return values


def axis_range(X, axis):
    """(low, high) of an axis, wider than the samples and never empty."""
    low, high = float(X[:, axis].min()), float(X[:, axis].max())
    # 1 where all samples agree, and more where 1 would be lost in rounding.
    margin = MARGIN * (high - low) or max(1.0, 1e-6 * abs(low))
    low, high = low - margin, high + margin
    if not math.isfinite(high - low):
        raise ValueError(f"X: column {axis} spans too wide a range to draw")
    return low, high


def grid_points(xs, ys):
    """Points (n, 2) of the grid, row by row: all of `xs` at `ys[0]`, and so on."""
    return np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)


def whole_number(name, value):
    """An int of 1 or more."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {value!r}") from None
    if number < 1:
        raise ValueError(f"{name}: expected 1 or more, got {value!r}")
    return number
