"""The C of formulas: a parser for the part of the language that they use, and what they say computed on arrays.

Expressions have numbers, names, calls, casts, arithmetic, comparisons, ``&&``, ``||``, ``!`` and ``?:``; statements are
declarations, assignments, ``if`` with ``return``, ``return``, and ``for``.
"""
from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flatgrad.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["Evaluation", "TOKEN", "expression_of", "parameters_of", "statements_of", "tokens_of"]

TOKEN = re.compile(r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<suffix>f?)|(?P<name>\w+)"
                   r"|(?P<sign>\+\+|[-+*/|<>=!]=|&&|\|\||[-+*/<>=!?:(){},;]))")
TYPES = ("double", "float", "int", "int32_t")
LEVELS = (("||",), ("&&",), ("==", "!="), ("<", "<=", ">", ">="), ("+", "-"), ("*", "/"))


class Token(NamedTuple):
    kind: Any
    text: Any
    suffix: Any
    start: Any
    end: Any


class Choice(NamedTuple):   # spans: where both stand in the text
    condition: Any
    first: Any
    second: Any
    spans: Any


def tokens_of(text: str) -> list[Token]:
    """The words of a text, as a list of Tokens."""
    found, at = [], 0
    while text[at:].strip():
        match = TOKEN.match(text, at)
        assert match, f"unknown C: {text[at:]}"
        kind = "number" if match["number"] else "name" if match["name"] else "sign"
        found.append(Token(kind, match[kind], match["suffix"] or "", match.start(kind), match.end()))
        at = match.end()
    return found


class Parser:
    """Reads a text from left to right. An expression becomes a number (float or int), a name (str), a Choice, or a
    tuple of what is done and the operands; a statement a tuple of its kind and its parts."""

    at: int
    tokens: list[Token]

    def __init__(self, text: str) -> None:
        self.tokens, self.at = tokens_of(text), 0

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead].text if self.at + ahead < len(self.tokens) else ""

    def take(self, *expected: Any) -> Token:
        token = self.tokens[self.at]
        assert not expected or token.text in expected, f"expected {expected}, got {token.text}"
        self.at += 1
        return token

    def takes(self, *texts: Any) -> bool:
        """Whether the next word is one of these, which is then passed."""
        if self.peek() in texts:
            self.at += 1
            return True
        return False

    def several(self, read: Callable[..., Any], end: str) -> list[Any]:
        """What `read` reads, with commas between."""
        found = [read()] if self.peek() != end else []
        while self.takes(","):
            found.append(read())
        self.take(end)
        return found

    def spanned(self) -> tuple[Any, Any]:
        start = self.tokens[self.at].start
        found = self.expression()
        return found, (start, self.tokens[self.at - 1].end)

    def expression(self) -> Any:
        condition = self.level(0)
        if not self.takes("?"):
            return condition
        first, before = self.spanned()
        self.take(":")
        second, behind = self.spanned()
        return Choice(condition, first, second, (before, behind))

    def level(self, n: int) -> Any:
        if n == len(LEVELS):
            return self.unary()
        found = self.level(n + 1)
        while self.peek() in LEVELS[n]:
            found = (self.take().text, found, self.level(n + 1))
        return found

    def unary(self) -> Any:
        if self.peek() in ("-", "!"):
            return (self.take().text, self.unary())
        if self.peek() == "(" and self.peek(1) in TYPES:
            self.take()
            name = self.take().text
            self.take(")")
            return ("cast", name, self.unary())
        return self.primary()

    def primary(self) -> Any:
        token = self.take()
        if token.kind == "number":
            return number_of(token)
        if token.text == "(":
            found = self.expression()
            self.take(")")
            return found
        assert token.kind == "name", f"unknown C: {token.text}"
        return ("call", token.text, self.several(self.expression, ")")) if self.takes("(") else token.text

    def block(self) -> list[Any]:
        """The statements between braces, or one."""
        if not self.takes("{"):
            return [self.statement()]
        found = []
        while not self.takes("}"):
            found.append(self.statement())
        return found

    def statement(self) -> tuple[Any, ...]:
        if self.takes("return"):
            found = ("return", self.expression())
        elif self.takes("if"):
            self.take("(")
            condition = self.expression()
            self.take(")")
            return ("if", condition, self.block())
        elif self.takes("for"):
            self.take("(")
            start, condition = self.statement(), self.expression()
            self.take(";")
            step = self.assignment()
            self.take(")")
            return ("for", start, condition, step, self.block())
        elif self.peek() in ("const", *TYPES):
            self.takes("const")
            found = ("declare", self.take(*TYPES).text, self.several(self.declared, ";"))
            return found
        else:
            found = self.assignment()
        self.take(";")
        return found

    def declared(self) -> tuple[Any, Any]:
        name = self.take().text
        self.take("=")
        return name, self.expression()

    def assignment(self) -> tuple[Any, Any, Any]:
        """A name gets a new number."""
        name = self.take().text
        sign = self.take("=", "+=", "-=", "*=", "/=", "|=", "++").text
        if sign == "++":
            return ("assign", name, ("+", name, 1.0))
        value = self.expression()
        return ("assign", name, value if sign == "=" else (sign[0], name, value))

    def done(self, found: Any) -> Any:
        assert self.at == len(self.tokens), f"unknown C: {self.peek()}"
        return found


def number_of(token: Token) -> float:
    if token.text.isdigit():
        return int(token.text)
    return float(np.float32(token.text)) if token.suffix else float(token.text)


@lru_cache(None)
def expression_of(text: str) -> tuple[Any, ...] | Choice | str:
    """An expression, read."""
    parser = Parser(text)
    return parser.done(parser.expression())


@lru_cache(None)
def statements_of(text: str) -> list[Any]:
    """The statements of a function, read."""
    parser = Parser(text + "}")
    parser.tokens.insert(0, Token("sign", "{", "", 0, 0))
    return parser.done(parser.block())


@lru_cache(None)
def parameters_of(text: str) -> tuple[Any, ...]:
    """The parameters of a function as (type, name), of "(double x, double y)"."""
    return tuple(tuple(parameter.split()) for parameter in text.strip("()").split(","))


# ---- computed ----

NAMES: dict[str, tuple[Any, ...]]
NAMES = {"fabs": ("abs",), "pow": ("power", "pow"), "atan2": ("arctan2", "atan2")}   # others have their name everywhere
CONSTANTS = {"NAN": math.nan, "INFINITY": math.inf}
BY_MATH = ("erf", "erfc")   # NumPy has none
ARITHMETIC: dict[str, np.ufunc] = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}
COMPARISONS: dict[str, Callable[..., Any]]
COMPARISONS = {"<": lambda x, y: x < y, "<=": lambda x, y: x <= y, ">": lambda x, y: x > y,
               ">=": lambda x, y: x >= y, "==": lambda x, y: x == y, "!=": lambda x, y: x != y}


def is_number(x: NDArray[Any] | float) -> bool:
    return isinstance(x, (int, float))   # so are bools


def is_decided(condition: Any) -> bool:
    """Whether a condition is known to hold, or not to hold, for all elements."""
    return isinstance(condition, (bool, np.bool_)) or (
        isinstance(condition, np.ndarray) and condition.size > 0 and bool(condition.all() == condition.any()))


def holds(condition: Any) -> bool:
    return bool(condition) if np.ndim(condition) == 0 else bool(condition.all())


def is_traced(x: Any) -> bool:
    """Whether an array stands for one that JAX will know later."""
    if not type(x).__module__.startswith("jax"):
        return False
    from jax.core import Tracer

    return isinstance(x, Tracer)


class Evaluation:
    """Computes expressions on arrays.

    What is a number stays one for as long as no array has a part in it. Where all elements are known to go the same way
    the other is not computed.

    Parameters
    ----------
    xp : namespace
        As NumPy, jax.numpy or torch.
    operands : list of array and of number
    functions : dict of str to (parameters, body)
        Of formulas.def.
    constants : dict of str to float
    """

    xp: ModuleType | None
    functions: dict[str, Any]

    like: Any
    constants: dict[str, float]

    def __init__(self, xp: ModuleType | None, operands: list[Any], functions: dict[str, Any],
                 constants: dict[str, Any]) -> None:
        self.xp, self.functions, self.constants = xp, functions, {**CONSTANTS, **constants}
        self.like = next((x for x in operands if not is_number(x)), None)

    def array(self, x: NDArray[Any] | float) -> NDArray[Any]:
        """A number as an array of the operands' type."""
        if not is_number(x):
            return x
        if isinstance(x, bool):
            return self.xp.asarray(x)
        device = {"device": self.like.device} if self.xp.__name__ == "torch" else {}
        return self.xp.asarray(float(x), dtype=self.like.dtype, **device)

    def value(self, found: str | tuple[Any, ...] | float, known: dict[str, Any]) -> bool | NDArray[Any] | float:
        """What an expression is, with `known` what the names stand for."""
        if isinstance(found, (int, float)):
            return found
        if isinstance(found, str):
            return known[found] if found in known else self.constants[found]
        if isinstance(found, Choice):
            return self.chosen(self.value(found.condition, known), lambda: self.value(found.first, known),
                               lambda: self.value(found.second, known))
        if found[0] == "call":
            return self.called(found[1], [self.value(x, known) for x in found[2]])
        if found[0] == "cast":
            return self.value(found[2], known)
        x = self.value(found[1], known)
        if len(found) == 2:
            return -x if found[0] == "-" else not x if is_number(x) else ~x
        if found[0] in ("&&", "||") and is_decided(x):
            return self.value(found[2], known) if holds(x) == (found[0] == "&&") else holds(x)
        return self.joined(found[0], x, self.value(found[2], known))

    def joined(self, sign: str, x: NDArray[Any] | float, y: float | NDArray[Any]) -> bool | NDArray[Any] | float:
        if sign in COMPARISONS:
            return COMPARISONS[sign](x, y)
        if sign in ("&&", "||", "|"):
            return x & y if sign == "&&" else x | y
        if is_number(x) and is_number(y):
            with np.errstate(all="ignore"):
                return float(ARITHMETIC[sign](float(x), float(y)))
        return x + y if sign == "+" else x - y if sign == "-" else x * y if sign == "*" else x / y

    def chosen(self, condition: Any, first: Callable[..., Any], second: Callable[..., Any]) -> Any:
        if is_number(condition) or is_decided(condition):
            return first() if holds(condition) else second()
        return self.where(condition, first(), second())

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        if is_number(x) and is_number(y):
            if x == y or (x != x and y != y):
                return x
            if isinstance(x, bool):
                return condition if x else ~condition
        return self.xp.where(condition, self.array(x), self.array(y))

    def called(self, name: str, arguments: list[Any]) -> Any:
        if name in self.functions:
            parameters, body = self.functions[name]
            return self.run(statements_of(body), dict(zip([p for _, p in parameters_of(parameters)], arguments)))
        if all(map(is_number, arguments)):
            with np.errstate(all="ignore"):
                found = function_of(np, name)(*[np.array([float(x)]) for x in arguments])   # of scalars, ** is another
            return found.item()
        return function_of(self.xp, name)(*map(self.array, arguments))

    def run(self, statements: list[Any], known: dict[str, Any]) -> Any:
        """What statements return."""
        for k, (kind, *parts) in enumerate(statements):
            if kind == "return":
                return self.value(parts[0], known)
            if kind == "if":
                return self.chosen(self.value(parts[0], known), lambda: self.run(parts[1], dict(known)),
                                   lambda: self.run(statements[k + 1:], known))
            self.step(kind, parts, known)
        raise AssertionError("a function without a return")

    def step(self, kind: str, parts: list[Any] | tuple[str, list[tuple[Any, ...]]], known: dict[str, Any]) -> None:
        """A statement that gives names new numbers."""
        if kind == "declare":
            for name, value in parts[1]:
                value = self.value(value, known)
                known[name] = bool(value) if parts[0] == "int" else value   # ints are true or false
        elif kind == "assign":
            known[parts[0]] = self.value(parts[1], known)
        else:
            start, condition, counted, body = parts
            self.step(start[0], start[1:], known)
            self.repeat(condition, [*body, counted], counted[1], known)

    def repeat(self, condition: tuple[str, tuple[str, str, str], tuple[str, str, float]],
               body: list[tuple[str, str, tuple[Any, ...]]], counter: str, known: dict[str, Any]) -> None:
        """A loop: as often as the last of the elements needs, where they differ."""
        while True:
            going = self.value(condition, known)
            if is_number(going) or is_decided(going):
                if not holds(going):
                    return
                for kind, *parts in body:
                    self.step(kind, parts, known)
                continue
            if is_traced(going):
                return self.repeat_traced(condition, body, known)
            if not bool(going.any()):
                return
            known.update(self.repeated(going, body, known, counter))

    def repeated(self, going: Any, body: list[tuple[str, str, tuple[Any, ...]]], known: dict[str, Any],
                 counter: str | None = None) -> dict[str, Any]:
        """The names that a loop's body gives new numbers, where it is not at its end."""
        new = dict(known)
        for kind, *parts in body:
            self.step(kind, parts, new)
        return {name: x if name == counter else self.where(going, x, known[name])
                for name, x in new.items() if x is not known[name]}

    def repeat_traced(self, condition: Any, body: Any, known: Any) -> None:
        """The same where JAX knows the numbers only later."""
        from jax import lax

        going = self.value(condition, known)
        shapes = {name: x.shape for name, x in self.repeated(going, body, known).items()}
        start = {name: self.xp.broadcast_to(self.array(known[name]), shape) for name, shape in shapes.items()}
        known.update(lax.while_loop(
            lambda state: self.value(condition, known | state).any(),
            lambda state: state | self.repeated(self.value(condition, known | state), body, known | state), start))


def function_of(xp: ModuleType, name: str) -> np.ufunc | Callable[..., Any]:
    """What a namespace has for a function of the C library."""
    found = [f for n in NAMES.get(name, (name,)) if (f := getattr(xp, n, None))]
    if not found and (special := getattr(special_of(xp), name, None)):
        found = [special]
    if xp is np and name == "pow":
        return power_of_rows
    if not found and xp is np and name in BY_MATH:
        return lambda x: np.vectorize(getattr(math, name), otypes=[float])(x).astype(np.asarray(x).dtype)
    if not found:
        raise ArgumentError(f"xp: expected a namespace with {name}, got {xp!r}")
    return found[0]


def power_of_rows(x: Any, y: NDArray[Any]) -> NDArray[Any]:
    """The power as the C library has it: of an exponent without a dimension NumPy takes square roots."""
    x, y = np.broadcast_arrays(x, y)
    return np.power(x.flatten(), y.flatten()).reshape(x.shape)


def special_of(xp: Any) -> None:
    if xp.__name__ == "jax.numpy":
        from jax.scipy import special

        return special
    return getattr(xp, "special", None)
