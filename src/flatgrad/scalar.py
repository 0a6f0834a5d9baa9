"""The scalar graphs of the fused instructions: the same results, computed by the operators of Value.

An instruction such as a layer or a softmax is one node of the tape with many operands. This module builds the graph of
single operations for each instruction, as a user of micrograd would write it. These graphs define the value and the
gradient of the instructions; both agree to 1e-12. The instructions are computed by csrc/block_*.c, and
tests/test_fused.py compares the two. Within `scalar_graph()` flatgrad's functions build these graphs, and
`viz.draw_dot(expand=True)` draws them.

The functions take flat sequences of Values and numbers in any mixture. Each function makes new Values and never returns
one of its operands. Sums begin with their first term and go from left to right. Before exponentials are computed, the
largest operand is subtracted from all of them, as a number and not as a Value. The subtraction changes
neither the result nor its derivatives, so no gradient is lost.
"""
from __future__ import annotations

import builtins
import math
import operator

from flatgrad import _core
from flatgrad._core import Value, _activations, maximum, minimum
from flatgrad.errors import ShapeError, UnknownNameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["absolute_error", "bce_with_logits", "binary_cross_entropy", "cross_entropy", "dot", "hinge", "huber",
           "kl_div", "kl_div_log", "log_softmax", "logsumexp", "max", "mean", "neuron", "softmax", "squared_error",
           "sum", "weighted_bce_with_logits"]

# The rows of ops.def that are operators of Python's.
OPERATORS: dict[str, Callable[..., Any]]
OPERATORS = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
             "pow": operator.pow, "powc": operator.pow, "neg": operator.neg}

# The methods of Value that a neuron may apply to its sum.
ACTIVATIONS: tuple[str, ...] = _activations


def sum(xs: Any) -> Value:
    """xs[0] + xs[1] + ..., and 0 if `xs` is empty.

    Parameters
    ----------
    xs : sequence of Value or real number

    Returns
    -------
    Value

    Examples
    --------
    >>> from flatgrad import Value, scalar
    >>> total = scalar.sum([Value(2.0), 3.0, Value(4.0)])
    >>> total.data, [operand.data for operand in total._children]
    (9.0, [5.0, 4.0])
    """
    return total([value(x) for x in xs])


def mean(xs: Any) -> Value:
    """The sum of `xs` divided by their number.

    Parameters
    ----------
    xs : sequence of Value or real number, not empty

    Returns
    -------
    Value

    Raises
    ------
    ValueError
        If `xs` is empty.

    Examples
    --------
    >>> from flatgrad import scalar
    >>> scalar.mean([1.0, 2.0, 6.0]).data
    3.0
    """
    xs = some("xs", xs)
    return sum(xs) / len(xs)


def max(xs: Any) -> Any:
    """The largest of `xs`: maximum(maximum(xs[0], xs[1]), xs[2]), and so on.

    Parameters
    ----------
    xs : sequence of Value or real number, not empty

    Returns
    -------
    Value

    Raises
    ------
    ValueError
        If `xs` is empty.

    Notes
    -----
    Two equal numbers get half the gradient each, as for `maximum`. Of three or more equal numbers, each step divides
    the rest of the gradient in halves, whereas the instruction divides it evenly among all. The result is nan if any
    number is nan.

    Examples
    --------
    >>> from flatgrad import Value, scalar
    >>> xs = [Value(1.0), Value(5.0), Value(5.0)]
    >>> scalar.max(xs).backward()
    >>> [x.grad for x in xs]
    [0.0, 0.5, 0.5]
    """
    xs = [value(x) for x in some("xs", xs)]
    result = xs[0] if len(xs) > 1 else xs[0] * 1.0
    for x in xs[1:]:
        result = maximum(result, x)
    return result


def dot(w: Any, x: Any, b: None = None) -> Value:
    """b + w[0] * x[0] + w[1] * x[1] + ..., the sum of a neuron of micrograd.

    Parameters
    ----------
    w, x : sequence of Value or real number
        Two sequences of equal length.
    b : Value or real number, optional
        The first term of the sum. With None, the sum begins with the first product.

    Returns
    -------
    Value

    Raises
    ------
    ValueError
        If `w` and `x` are not equally long.

    Examples
    --------
    >>> from flatgrad import Value, scalar
    >>> w = [Value(2.0), Value(-1.0)]
    >>> out = scalar.dot(w, [3.0, 4.0], 0.5)
    >>> out.backward()
    >>> out.data, [weight.grad for weight in w]
    (2.5, [3.0, 4.0])
    """
    if len(w) != len(x):
        raise ShapeError(f"x: expected {len(w)} values, as many as weights, got {len(x)}")
    return total(([] if b is None else [value(b)]) + [value(wi) * xi for wi, xi in zip(w, x)])


def neuron(w: Any, x: Any, b: None = None, activation: None = None) -> Value:
    """`dot(w, x, b)`, and an activation of the sum.

    Parameters
    ----------
    w, x, b
        As for `dot`.
    activation : str, optional
        The activation: a method of Value such as 'relu'. None and 'linear' return the sum itself.

    Returns
    -------
    Value

    Raises
    ------
    ValueError
        If `w` and `x` are not equally long, or `activation` is not such a name.

    Examples
    --------
    >>> from flatgrad import scalar
    >>> scalar.neuron([2.0, -1.0], [3.0, 7.0], 0.5, 'relu').data
    0.0
    """
    act = dot(w, x, b)
    if activation in ACTIVATIONS:
        return getattr(act, activation)()
    if activation not in (None, "linear"):
        expected = ", ".join([repr(name) for name in ("linear", *ACTIVATIONS)])
        raise UnknownNameError(f"activation: expected None or one of {expected}, got {activation!r}")
    return act


def logsumexp(xs: Any) -> Value:
    """The logarithm of the sum of exp(x) over `xs`.

    Parameters
    ----------
    xs : sequence of Value or real number, not empty

    Returns
    -------
    Value

    Raises
    ------
    ValueError
        If `xs` is empty, or contains only -inf.

    Examples
    --------
    >>> from flatgrad import scalar
    >>> f"{scalar.logsumexp([1000.0, 1000.0]).data - 1000:.4f}"
    '0.6931'
    """
    # The largest finite number: if an inf is among xs, the result has to be inf, not inf - inf.
    shift = largest("xs", xs, math.isfinite)
    return total([(value(x) - shift).exp() for x in xs]).log() + shift


def softmax(xs: Any) -> list[Value]:
    """exp(x) / (exp(xs[0]) + exp(xs[1]) + ...) for each x of `xs`.

    Parameters
    ----------
    xs : sequence of Value or real number, not empty

    Returns
    -------
    list of Value
        Values that add up to 1.

    Raises
    ------
    ValueError
        If `xs` is empty.

    Examples
    --------
    >>> from flatgrad import scalar
    >>> [p.data for p in scalar.softmax([-1000.0, 1000.0, 1000.0])]
    [0.0, 0.5, 0.5]
    """
    shift = largest("xs", xs)
    exponentials = [(value(x) - shift).exp() for x in xs]
    denominator = total(exponentials)
    return [x / denominator for x in exponentials]


def log_softmax(xs: Any) -> list[Value]:
    """The logarithm of each element of `softmax(xs)`, exact also where softmax is too small for a float.

    Parameters
    ----------
    xs : sequence of Value or real number, not empty

    Returns
    -------
    list of Value

    Raises
    ------
    ValueError
        If `xs` is empty.

    Examples
    --------
    >>> from flatgrad import scalar
    >>> [p.data for p in scalar.log_softmax([-1000.0, 1000.0])]
    [-2000.0, 0.0]
    """
    shift = largest("xs", xs)
    shifted = [value(x) - shift for x in xs]
    denominator = total([x.exp() for x in shifted]).log()
    return [x - denominator for x in shifted]


def cross_entropy(rows: Any, labels: Any) -> Any:
    """The mean over the rows of -log_softmax(row)[label].

    Parameters
    ----------
    rows : sequence of sequence of Value or real number, not empty
        Logits: a row for each sample.
    labels : sequence of int
        The column of each sample's class.

    Returns
    -------
    Value

    Raises
    ------
    ValueError
        If there are no rows, or if the number of labels differs.

    Examples
    --------
    >>> from flatgrad import scalar
    >>> f"{scalar.cross_entropy([[0.0, 0.0], [50.0, 0.0]], [1, 0]).data:.4f}"
    '0.3466'
    """
    if len(rows) != len(labels):
        raise ShapeError(f"labels: expected {len(rows)}, one for each row, got {len(labels)}")
    rows = [[value(x) for x in row] for row in rows]  # so that a number used twice becomes one Value
    return mean([-log_softmax(row)[label] for row, label in zip(rows, labels)])


def squared_error(x: Any, y: Any) -> Any:
    """(x - y)**2.

    Parameters
    ----------
    x, y : Value or real number

    Returns
    -------
    Value

    Examples
    --------
    >>> from flatgrad import scalar
    >>> scalar.squared_error(1.0, 4.0).data
    9.0
    """
    return (value(x) - y) ** 2


def hinge(x: Any, y: Any) -> Value:
    """relu(1 - x * y), the loss of a score `x` whose label `y` is -1 or 1.

    Parameters
    ----------
    x, y : Value or real number

    Returns
    -------
    Value

    Examples
    --------
    >>> from flatgrad import scalar
    >>> scalar.hinge(0.25, 1).data, scalar.hinge(0.25, -1).data, scalar.hinge(3.0, 1).data
    (0.75, 1.25, 0.0)
    """
    return (1.0 - value(x) * y).relu()


def absolute_error(x: Any, y: Any) -> Value:
    """abs(x - y).

    Parameters
    ----------
    x, y : Value or real number

    Returns
    -------
    Value

    Examples
    --------
    >>> from flatgrad import scalar
    >>> scalar.absolute_error(1.0, 4.0).data
    3.0
    """
    return abs(value(x) - y)


def huber(x: Any, y: Any, delta: Any) -> Any:
    """(x - y)**2 / 2 where abs(x - y) is at most `delta`, and beyond `delta` the tangent there.

    Parameters
    ----------
    x, y, delta : Value or real number

    Returns
    -------
    Value

    Examples
    --------
    >>> from flatgrad import scalar
    >>> scalar.huber(1.0, 1.5, 1.0).data, scalar.huber(1.0, 4.0, 1.0).data
    (0.125, 2.5)
    """
    delta = value(delta)
    size = abs(value(x) - y)
    # At a tie, `minimum` halves the gradient of the square and leaves half of the line's, so the sum is right.
    near = minimum(size, delta)
    return near * near * 0.5 + delta * (size - near)


def binary_cross_entropy(x: Any, y: Any) -> Any:
    """-y * log(x) - (1 - y) * log(1 - x), the loss of a probability `x` for an answer `y` from 0 to 1.

    Parameters
    ----------
    x, y : Value or real number

    Returns
    -------
    Value

    Raises
    ------
    ValueError
        If `x` is not from 0 to 1.

    Notes
    -----
    A logarithm below -100 is replaced by the constant -100. The instruction does the same, but there its gradient is
    PyTorch's, whose denominator is at least 1e-12.

    Examples
    --------
    >>> from flatgrad import scalar
    >>> round(scalar.binary_cross_entropy(0.5, 1.0).data, 6), scalar.binary_cross_entropy(0.0, 1.0).data
    (0.693147, 100.0)
    """
    x, y = value(x), value(y)

    def log(p):
        return maximum(p.log(), -100.0) if p.data != 0.0 else p * 0.0 - 100.0
    return (y - 1.0) * log(1.0 - x) - y * log(x)


def bce_with_logits(x: Any, y: Any) -> Any:
    """`binary_cross_entropy(sigmoid(x), y)`, exact for any finite logit `x`.

    Parameters
    ----------
    x, y : Value or real number

    Returns
    -------
    Value

    Examples
    --------
    >>> from flatgrad import scalar
    >>> scalar.bce_with_logits(1000.0, 1.0).data, scalar.bce_with_logits(1000.0, 0.0).data
    (0.0, 1000.0)
    """
    x = value(x)
    return (1.0 - value(y)) * x + logsumexp([0.0, -x])


def weighted_bce_with_logits(x: Any, y: Any, pos_weight: Value) -> Value:
    """`bce_with_logits`, with the term of `y` multiplied by `pos_weight`.

    Parameters
    ----------
    x, y, pos_weight : Value or real number

    Returns
    -------
    Value

    Examples
    --------
    >>> from flatgrad import scalar
    >>> scalar.weighted_bce_with_logits(-1000.0, 1.0, 3.0).data
    3000.0
    """
    x, y = value(x), value(y)
    return (1.0 - y) * x + ((value(pos_weight) - 1.0) * y + 1.0) * logsumexp([0.0, -x])


def kl_div(x: Any, y: Any) -> Any:
    """y * (log(y) - x), a term of the divergence of exp(x) from y; 0 * log(0) is 0.

    Parameters
    ----------
    x, y : Value or real number

    Returns
    -------
    Value

    Raises
    ------
    ValueError
        If `y` is negative.

    Examples
    --------
    >>> import math
    >>> from flatgrad import scalar
    >>> round(scalar.kl_div(math.log(0.25), 0.5).data, 6), scalar.kl_div(-2.0, 0.0).data
    (0.346574, 0.0)
    """
    y = value(y)
    return y * (y.log() - x) if y.data != 0.0 else y * -value(x)


def kl_div_log(x: Any, y: Any) -> Any:
    """exp(y) * (y - x), which is `kl_div(x, exp(y))`.

    Parameters
    ----------
    x, y : Value or real number

    Returns
    -------
    Value

    Examples
    --------
    >>> from flatgrad import scalar
    >>> scalar.kl_div_log(-2.0, 0.0).data
    2.0
    """
    y = value(y)
    return y.exp() * (y - x)


def instruction(name: str, operands: list[list[list[Any]]], rows: Any, cols: int, operation: str | None = None,
                k: int = 0, labels: list[Any] = ()) -> list[list[Value]]:
    """The results of an instruction, a list of Values for each of `rows`: what scalar_graph() makes in its place.

    Parameters
    ----------
    name : str
        Its row of `csrc/ops.def`.
    operands : list of list of list of Value or float
        Each a list of rows, of shapes that fit.
    rows, cols : int
        The shape of the results.
    operation : str, optional
        The row of a map's operation, or of a layer's activation.
    k : int, optional
        The exponent of the operation 'powi'.
    labels : list of int, optional
        The columns of cross entropy's classes.

    Returns
    -------
    list of list of Value

    Examples
    --------
    >>> from flatgrad import scalar
    >>> [[x.data for x in row] for row in scalar.instruction("map", [[[1.0, 2.0]], [[3.0], [4.0]]], 2, 2, "mul")]
    [[3.0, 6.0], [4.0, 8.0]]
    """
    if name == "map":
        return mapped(operation, k, operands, rows, cols)
    if name == "layer":
        x, w, (b,) = operands if len(operands) == 3 else (*operands, [[None] * cols])
        return [[neuron(weights, row, bias, operation) for weights, bias in zip(w, b)] for row in x]
    x, = operands
    if name == "cross_entropy":
        return [[cross_entropy(x, labels)]]
    if name in ("softmax", "log_softmax"):
        return [globals()[name](row) for row in x]
    if rows * cols == 1:
        x = [[item for row in x for item in row]]
    return [[globals()[name](row) for row in x]]


def mapped(operation: str, k: int, operands: list[list[list[Any]]], rows: Any, cols: int) -> list[list[Value]]:
    """The results of a row of `csrc/ops.def` on each element of operands, which are repeated along a length of 1."""
    if operation == "powi":
        operation, operands = "pow", [*operands, [[k]]]
    function = OPERATORS.get(operation) or globals().get(operation) or getattr(_core, operation)
    if len(operands) == 3 and operation in __all__:   # one Value for a parameter that several have in common
        operands = [*operands[:2], [[value(x) for x in row] for row in operands[2]]]
    pick = [[[row[j % len(row)] for j in range(cols)] for row in x] for x in operands]
    return [[value(function(*items)) for items in zip(*[x[i % len(x)] for x in pick])] for i in range(rows)]


def value(x: Any) -> Value:
    """`x` as a Value: a number becomes a constant of the graph."""
    return x if isinstance(x, Value) else Value(x)


def total(terms: list[Value]) -> Value:
    """The sum of new Values, or a new node if there are fewer than two."""
    if not terms:
        return Value(0.0)
    result = terms[0] if len(terms) > 1 else terms[0] * 1.0
    for x in terms[1:]:
        result = result + x
    return result


def largest(name: str, xs: Any, among: Callable[..., Any] = lambda x: not math.isnan(x)) -> float:
    """The largest of those `xs` for which `among` is true, as a number; 0 if there are none; an error if `xs` is
    empty."""
    return builtins.max([number for number in map(float, some(name, xs)) if among(number)], default=0.0)


def some(name: str, xs: Any) -> list[Any]:
    """`xs`, or an error if it is empty."""
    if len(xs) == 0:
        raise ShapeError(f"{name}: expected at least one value, got none")
    return xs
