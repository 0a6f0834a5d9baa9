"""Small graphs, which test whether a class and flatgrad's Value give the same numbers.

A graph is a function; its argument is a function that makes a leaf from a number. The graph returns numbers and texts,
which a program might print.
"""
from __future__ import annotations

import math
import operator
import random
import re

from flatgrad import _core
from flatgrad._core import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["COMPARED", "CONVERTED", "METHODS", "OPERATIONS", "Raised", "STEPS", "TimeUp", "UNARY", "Unfit", "alone",
           "backward", "changed", "diamond", "equal", "graphs_of", "hidden_nodes", "is_binary", "number", "outcome",
           "preset", "programs", "same", "told", "use_of", "with_number"]

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


class Unfit(Exception):
    """flatgrad's Value cannot replace a class; the message is the rest of a sentence that begins with the class."""


class TimeUp(BaseException):
    """A method takes too long with the test numbers."""


class Raised:
    """The result of a graph that ended with an exception."""

    def __init__(self, error: Any) -> None:
        self.error = error


def number(x: Any) -> Any:
    """A datum or gradient as a float; None counts as 0."""
    if x is None:
        return 0.0
    if isinstance(x, complex):
        raise ArithmeticError("complex")  # because flatgrad's Value refuses complex numbers
    if not hasattr(x, "__float__") or type(x).__name__ in ("ndarray", "Tensor"):
        raise Unfit(f"its numbers are of type {type(x).__name__}")
    return float(x)


def outcome(graph: Any, make: Any) -> Any:
    """The result of a graph with leaves from `make`: numbers and texts, or Raised."""
    try:
        return graph(make)
    except (Unfit, TimeUp, KeyboardInterrupt):
        raise
    except BaseException as error:  # also SystemExit
        return Raised(error)


def same(theirs: Any, ours: Any) -> Any:
    """Whether the program would see the same results. Where the program's class fails, flatgrad may give a result."""
    if isinstance(theirs, Raised):
        return True
    if isinstance(ours, Raised):
        return False
    return len(theirs) == len(ours) and all(map(equal, theirs, ours))


def equal(x: Any, y: Any) -> Any:
    if isinstance(x, str) and isinstance(y, str):  # a number in a text may be an int in one and a float in the other
        return NUMBER.sub("#", x) == NUMBER.sub("#", y) and all(
            map(equal, map(float, NUMBER.findall(x)), map(float, NUMBER.findall(y))))
    if isinstance(x, float) and isinstance(y, float):
        return x == y or x != x and y != y or abs(x - y) <= 1e-12 + 1e-9 * max(abs(x), abs(y))
    return x == y


def backward(out: Any, leaves: Any) -> Any:
    """The number of `out`, and the gradients of the leaves after a backward pass from `out`."""
    data = number(out.data)
    out.backward()
    return [data, *(number(leaf.grad) for leaf in leaves)]


def alone(function: Any, numbers: Any) -> Any:
    """The graph of one operation."""
    def graph(make):
        leaves = [make(x) for x in numbers]
        return backward(function(*leaves), leaves)
    return graph


def behind(function: Any, numbers: Any) -> Any:
    """The graph of the operation with another operation after it, so that its rule starts from a gradient other than
    1."""
    def graph(make):
        leaves = [make(x) for x in numbers]
        return backward(function(*leaves) * make(3.0), leaves)
    return graph


def changed(function: Any, numbers: Any) -> Any:
    """The graph of the operation whose operands get other data before the backward pass."""
    def graph(make):
        leaves = [make(x) for x in numbers]
        out = function(*leaves)
        for leaf in leaves:
            leaf.data = number(leaf.data) + 0.5
        return backward(out, leaves)
    return graph


def twice(function: Any, numbers: Any) -> Any:
    """The graph of the operation done twice with the same operands, whose gradients add up."""
    def graph(make):
        leaves = [make(x) for x in numbers]
        return backward(function(*leaves) + function(*leaves), leaves)
    return graph


def result(function: Any, numbers: Any) -> Any:
    """The text of the function's result, for results that are no Values."""
    def graph(make):
        found = function(*[make(x) for x in numbers])
        return [number(found.data)] if hasattr(found, "data") else [found if type(found) is float else repr(found)]
    return graph


PAIRS = [(2.0, -3.0), (-0.7, 0.5), (25.0, 1e-6), (0.0, 1.5), (1.5, 0.0), (1.0, 1.0)]
POWERS: list[tuple[Any, Any]]
POWERS = [(2.0, 3), (-0.7, 2), (0.5, -1), (1e-6, 0.5), (25.0, -0.5), (3.0, 2.5), (0.0, 2), (0.0, 1), (-2.0, 3.0),
          (1.5, 1), (1.5, 0)]
NUMBERS = [0.7, -0.6, 0.0, 2.0, -3.0, 1e-6, 1e-12, 30.0, -30.0, 700.0, -700.0, 1.0, 5.5, -5.5, 11.0, -11.0, 17.0, -17.0,
           60.0, -60.0, 130.0, -130.0]

BINARY: dict[str, Callable[..., Any]]
BINARY = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv,
          "pow": operator.pow}
UNARY: dict[str, Callable[..., Any]] = {"__neg__": operator.neg, "__pos__": operator.pos, "__abs__": abs}
COMPARED = {"__lt__": operator.lt, "__le__": operator.le, "__gt__": operator.gt, "__ge__": operator.ge}
CONVERTED: dict[str, Callable[..., Any] | type[Any]]
CONVERTED = {"__float__": float, "__int__": int, "__round__": round, "__trunc__": math.trunc, "__repr__": repr,
             "__str__": str, "item": lambda v: v.item()}


def uses(function: Any, samples: Any) -> Any:
    """The three graphs with an operation, for each sample of numbers."""
    return [kind(function, numbers) for numbers in samples for kind in (alone, behind, twice)]


def with_number(function: Any, y: Any, reflected: bool = False) -> Any:
    """The operation with a number as one operand."""
    return (lambda a: function(y, a)) if reflected else (lambda a: function(a, y))


def graphs_of(name: Any, limits: Any = ()) -> Any:
    """The graphs that test a method or operator of this name, with numbers on both sides of the limits."""
    word = name.strip("_")
    beyond = [sign * x * factor for x in limits for factor in (0.999, 1.001) for sign in (1, -1)]
    numbers = [(x,) for x in [*NUMBERS, *beyond]]
    pairs = [*PAIRS, *((x, 1.0) for x in beyond), *((1.0, x) for x in beyond)]
    if name in UNARY:
        return uses(UNARY[name], numbers)
    if name in COMPARED:
        return ([result(COMPARED[name], pair) for pair in pairs]
                + [result(with_number(COMPARED[name], y), (x,)) for x, y in pairs])
    if name in CONVERTED:
        return [result(CONVERTED[name], (x,)) for x in NUMBERS[:9]]
    if word in BINARY and name == f"__{word}__":
        samples = [*POWERS, *((x, 2) for x in beyond)] if word == "pow" else pairs
        found = [graph for x, y in samples for graph in uses(with_number(BINARY[word], y), [(x,)])]
        return found + uses(BINARY[word], samples) + [alone(lambda a: BINARY[word](a, a), (x,)) for x, _ in PAIRS]
    if word[:1] == "r" and word[1:] in BINARY and name == f"__{word}__":
        return [graph for x, y in pairs for graph in uses(with_number(BINARY[word[1:]], x, True), [(y,)])]
    return uses(operator.methodcaller(name), numbers)


def programs(names: Any) -> Any:
    """Graphs of some fifteen of these operators each, with values that are used repeatedly."""
    draw = random.Random(7)

    def program(steps, calls):
        def graph(make):
            leaves = values = [make(x) for x in (0.9, -1.3, 0.4)]
            values = list(values)
            for name, i, j, x in steps:
                a, b = values[i % len(values)], values[j % len(values)]
                values.append(names[name](a, b, x))
            out = values[-1]
            for value in values[3:-1]:
                out = out + value * make(0.1)
            seen = []
            for _ in range(calls):
                seen += backward(out, [*leaves, *values[3:], out])
            return seen
        return graph
    return [program([(draw.choice(sorted(names)), draw.randrange(20), draw.randrange(20), draw.uniform(0.5, 1.5))
                     for _ in range(12)], calls) for calls in (1,) * 8]


STEPS: dict[str, Callable[..., Any]]
STEPS = {"__add__": lambda a, b, x: a + b, "__mul__": lambda a, b, x: a * b * x, "__sub__": lambda a, b, x: a - b,
         "__neg__": lambda a, b, x: -a, "__truediv__": lambda a, b, x: a / (b * b + 1.0),
         "__pow__": lambda a, b, x: (a * 0.1) ** 2, "__radd__": lambda a, b, x: x + a,
         "__rmul__": lambda a, b, x: x * a, "__rsub__": lambda a, b, x: x - a,
         "relu": lambda a, b, x: a.relu(), "tanh": lambda a, b, x: a.tanh(), "sigmoid": lambda a, b, x: a.sigmoid(),
         "exp": lambda a, b, x: (a * 0.01).exp(), "log": lambda a, b, x: (a * a + 1.0).log()}


def diamond(calls: Any) -> Any:
    """Graphs with several backward passes."""
    def graph(make):
        a, b = make(2.0), make(-3.0)
        c = a * b
        d = c + a
        e = d * c
        f = e * e + d + c
        seen = []
        for _ in range(calls):
            seen += backward(f, (a, b, c, d, e, f))
        return seen
    return graph


def hidden_nodes(make: Any) -> Any:
    """Two passes over a graph with operations that a class may compose from other operations."""
    a, b = make(2.0), make(-3.0)
    c = (a - b) * a
    d = -c
    backward(d, ())
    return backward(d, (a, b))


def preset(make: Any) -> Any:
    """A pass that starts with gradients other than 0."""
    a, b = make(2.0), make(-3.0)
    c = a * b
    d = c + a
    a.grad, c.grad, d.grad = 0.5, 0.25, 4.0
    return backward(d, (a, b, c, d))


def use_of(name: Any) -> Any:
    """A use of an operator or method: a function of Values, and numbers for them."""
    word = name.strip("_")
    if name in UNARY:
        return UNARY[name], (0.7,)
    if is_binary(name) and word in BINARY:
        return (lambda a: a ** 3, (0.7,)) if word == "pow" else (BINARY[word], (0.7, 1.9))
    if is_binary(name):
        return with_number(BINARY[word[1:]], 2.5, True), (0.7,)
    return operator.methodcaller(name), (0.7,)


def is_binary(name: Any) -> Any:
    word = name.strip("_")
    return name == f"__{word}__" and (word in BINARY or word[:1] == "r" and word[1:] in BINARY)


def told(found: Any) -> Any:
    if isinstance(found, Raised):
        return f"{type(found.error).__name__}: {found.error}"
    return ", ".join([f"{x:.6g}" if isinstance(x, float) else str(x) for x in found[:4]])


# The operations that are methods, and the operators with a use of each.
METHODS = {name for name, member in vars(Value).items() if type(member).__name__ == "method_descriptor"
           and any(row["name"] == name and row["public"] and row["arity"] == 1 for row in _core._operations())}
OPERATIONS: dict[str, Any]
OPERATIONS = {"-": lambda a, b: a - b, "/": lambda a, b: a / b, "neg": lambda a, b: -a, "ReLU": lambda a, b: a.relu(),
           "**2": lambda a, b: a ** 2, "**3": lambda a, b: a ** 3,
           **{row["symbol"]: operator.methodcaller(row["name"]) for row in _core._operations()
              if row["public"] and row["arity"] == 1}}
