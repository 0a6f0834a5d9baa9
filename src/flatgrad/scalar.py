"""What each fused instruction is made of: the same results, computed by the operators of Value.

An instruction such as a layer or a softmax is one node of the tape with many operands. Here is the
graph of single operations that it stands for, as one would write it with micrograd: the definition of
the instruction's value and gradient, which agree with it to 1e-12: csrc/block_*.c is the other expression
of the same, and tests/test_fused.py holds one against the other. `scalar_graph()` has flatgrad's
functions build these graphs, and `viz.draw_dot(expand=True)` draws them.

The functions take flat sequences of Values and numbers, mixed as one likes. Each makes new Values and
never hands one of its operands back. Sums begin with their first term and go from left to right.
Exponentials are taken after the largest of them has been subtracted, as a number and not as a Value:
shifting all of them changes neither the result nor its derivatives, so no gradient is lost.
"""
import builtins
import math

from flatgrad._core import Value, _activations, maximum, minimum
from flatgrad.errors import ShapeError, UnknownNameError

__all__ = ["absolute_error", "bce_with_logits", "binary_cross_entropy", "cross_entropy", "dot", "hinge", "huber",
           "kl_div", "kl_div_log", "log_softmax", "logsumexp", "max", "mean", "neuron", "softmax", "squared_error",
           "sum", "weighted_bce_with_logits"]

# The methods of Value that may follow a neuron's sum.
ACTIVATIONS = _activations


def sum(xs):
    """xs[0] + xs[1] + ..., and 0 if there is none.

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


def mean(xs):
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


def max(xs):
    """The largest: maximum(maximum(xs[0], xs[1]), xs[2]), and so on.

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
    Two that are equal share the gradient half and half, as for `maximum`; of three or more the last two
    share half and half what is left at each step, whereas the instruction shares evenly among all. nan
    if any is nan.

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


def dot(w, x, b=None):
    """b + w[0] * x[0] + w[1] * x[1] + ..., the sum that a neuron of micrograd computes.

    Parameters
    ----------
    w, x : sequence of Value or real number
        Equally many.
    b : Value or real number, optional
        Where the sum begins. None begins it with the first product.

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


def neuron(w, x, b=None, activation=None):
    """`dot(w, x, b)`, and a function of it.

    Parameters
    ----------
    w, x, b
        As for `dot`.
    activation : str, optional
        The function: a method of Value such as 'relu'. None and 'linear' take the sum as it is.

    Returns
    -------
    Value

    Raises
    ------
    ValueError
        If `w` and `x` are not equally long, or `activation` is none of the above.

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


def logsumexp(xs):
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
        If `xs` is empty, or holds nothing but -inf.

    Examples
    --------
    >>> from flatgrad import scalar
    >>> f"{scalar.logsumexp([1000.0, 1000.0]).data - 1000:.4f}"
    '0.6931'
    """
    # Of the finite ones: an inf among them is the result, and not inf - inf.
    shift = largest("xs", xs, math.isfinite)
    return total([(value(x) - shift).exp() for x in xs]).log() + shift


def softmax(xs):
    """exp(x) / (exp(xs[0]) + exp(xs[1]) + ...) for each x of `xs`.

    Parameters
    ----------
    xs : sequence of Value or real number, not empty

    Returns
    -------
    list of Value
        They add up to 1.

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


def log_softmax(xs):
    """The logarithm of each of `softmax(xs)`, exact where that is too small for a float.

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


def cross_entropy(rows, labels):
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
        If there are no rows, or not as many labels.

    Examples
    --------
    >>> from flatgrad import scalar
    >>> f"{scalar.cross_entropy([[0.0, 0.0], [50.0, 0.0]], [1, 0]).data:.4f}"
    '0.3466'
    """
    if len(rows) != len(labels):
        raise ShapeError(f"labels: expected {len(rows)}, one for each row, got {len(labels)}")
    rows = [[value(x) for x in row] for row in rows]  # one Value for a number that is used twice
    return mean([-log_softmax(row)[label] for row, label in zip(rows, labels)])


def squared_error(x, y):
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


def hinge(x, y):
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


def absolute_error(x, y):
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


def huber(x, y, delta):
    """(x - y)**2 / 2 where abs(x - y) is at most `delta`, and beyond that the line that goes on from there.

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
    # At a tie `minimum` halves the gradient of the square and leaves half of the line's: the sum is right.
    near = minimum(size, delta)
    return near * near * 0.5 + delta * (size - near)


def binary_cross_entropy(x, y):
    """-y * log(x) - (1 - y) * log(1 - x), the loss of a probability `x` where the answer is `y`, 0 to 1.

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
    A logarithm below -100 counts as -100, a constant. The instruction says the same, but its gradient there
    is PyTorch's, which divides by 1e-12 at least.

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


def bce_with_logits(x, y):
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


def weighted_bce_with_logits(x, y, pos_weight):
    """`bce_with_logits` whose term of `y` is multiplied by `pos_weight`.

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


def kl_div(x, y):
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


def kl_div_log(x, y):
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


def value(x):
    """`x` as a Value: a number becomes a constant of the graph."""
    return x if isinstance(x, Value) else Value(x)


def total(terms):
    """The sum of Values that one has just made, or a node of its own if there are fewer than two."""
    if not terms:
        return Value(0.0)
    result = terms[0] if len(terms) > 1 else terms[0] * 1.0
    for x in terms[1:]:
        result = result + x
    return result


def largest(name, xs, among=lambda x: not math.isnan(x)):
    """The largest of `xs` that is `among`, as a number, 0 if none is; an error if there are no `xs`."""
    return builtins.max([number for number in map(float, some(name, xs)) if among(number)], default=0.0)


def some(name, xs):
    """`xs`, or an error if it is empty."""
    if len(xs) == 0:
        raise ShapeError(f"{name}: expected at least one value, got none")
    return xs
