"""The C functions of updates.def for settings that are known: what does not depend on anything else is computed.

Expressions are numbers, or tuples of what they are and their parts: ("name", text), ("field", name) of the settings h,
("element", array) of number i, ("call", function, arguments), ("-", x) and ("not", x), (sign, x, y), and ("?", condition,
x, y). Statements are ("declare", type, whether const, name, x), ("for", statements), ("if", condition, statements,
statements), ("set", target, sign, x) and ("return", x).
"""
from __future__ import annotations

import math
import re
from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["parse", "specialized", "written"]

TOKEN = re.compile(r"\s*(?:(?P<number>\d+\.?\d*)|(?P<word>\w+)|(?P<sign>\+\+|->|[-+*/<>=!]=|&&|\|\||[-+*/<>=!?:(){}\[\],;]))")
LEVELS = (("&&",), ("==", "!="), ("<", "<=", ">", ">="), ("+", "-"), ("*", "/"))
RANK = {sign: k for k, signs in enumerate(LEVELS) for sign in signs}
HIGHEST = len(LEVELS)
TYPES = ("double", "int", "size_t")


class Parser:
    """Reads the part of C that updates.def is written in."""

    at: Any
    words: Any

    def __init__(self, text: Any) -> None:
        self.words, self.at, position = [], 0, 0
        while text[position:].strip():
            match = TOKEN.match(text, position)
            assert match, f"unknown C: {text[position:]}"
            self.words.append(match[0].strip())
            position = match.end()

    def peek(self) -> Any:
        return self.words[self.at] if self.at < len(self.words) else ""

    def take(self, *expected: Any) -> Any:
        word = self.peek()
        assert word and (not expected or word in expected), f"expected {expected}, got {word!r}"
        self.at += 1
        return word

    def takes(self, word: Any) -> Any:
        if self.peek() == word:
            self.at += 1
            return True
        return False

    def statements(self) -> Any:
        found = []
        while self.peek() not in ("", "}"):
            found += self.statement()
        return found

    def block(self) -> Any:
        self.take("{")
        found = self.statements()
        self.take("}")
        return found

    def statement(self) -> Any:
        if self.takes("for"):
            while not self.takes(")"):   # all loops are over i, from 0 to n
                self.take()
            return [("for", self.block())]
        if self.takes("if"):
            self.take("(")
            condition = self.expression()
            self.take(")")
            return [("if", condition, self.block(), self.block() if self.takes("else") else [])]
        if self.takes("return"):
            found = [("return", self.expression())]
        elif self.peek() in ("const", *TYPES):
            const, found = self.takes("const"), []
            kind = self.take(*TYPES)
            while not found or self.takes(","):
                name = self.take()
                self.take("=")
                found.append(("declare", kind, const, name, self.expression()))
        else:
            target, sign = self.primary(), self.take("=", "-=", "+=")
            found = [("set", target, sign, self.expression())]
        self.take(";")
        return found

    def expression(self) -> Any:
        condition = self.level(0)
        if not self.takes("?"):
            return condition
        first = self.expression()
        self.take(":")
        return "?", condition, first, self.expression()

    def level(self, rank: Any) -> Any:
        if rank == HIGHEST:
            return ("-", self.level(rank)) if self.takes("-") else self.primary()
        found = self.level(rank + 1)
        while self.peek() in LEVELS[rank]:
            found = (self.take(), found, self.level(rank + 1))
        return found

    def primary(self) -> Any:
        word = self.take()
        if word[0].isdigit():
            return float(word) if "." in word else int(word)
        if word == "(":
            found = self.expression()
            self.take(")")
            return found
        if self.takes("->"):
            return "field", self.take()
        if self.takes("["):
            self.take("i")
            self.take("]")
            return "element", word
        if self.takes("("):
            arguments = []
            while not self.takes(")"):
                arguments.append(self.expression())
                self.takes(",")
            return "call", word, tuple(arguments)
        return "name", word


@lru_cache(64)
def parse(text: Any) -> Any:
    return Parser(text).statements()


# ---- what is left of a function, if some is known ----

ARITHMETIC: dict[str, Callable[..., Any]]
ARITHMETIC = {"+": lambda x, y: x + y, "-": lambda x, y: x - y, "*": lambda x, y: x * y, "/": lambda x, y: x / y,
              "<": lambda x, y: x < y, "<=": lambda x, y: x <= y, ">": lambda x, y: x > y, ">=": lambda x, y: x >= y,
              "==": lambda x, y: x == y, "!=": lambda x, y: x != y, "&&": lambda x, y: bool(x and y)}


def is_number(x: Any) -> Any:
    return not isinstance(x, tuple)


class Known:
    """What is known of names and of settings.

    Parameters
    ----------
    names : dict of str to expression
    fields : dict of str to expression
        Of the settings.
    functions : dict of str to (tuple of str, str)
        Those that may be called: the names of their parameters, and their bodies.
    """

    fields: Any
    functions: Any

    names: Any

    def __init__(self, names: Any, fields: Any, functions: Any) -> None:
        self.names, self.fields, self.functions = dict(names), fields, functions

    def folded(self, x: Any) -> Any:
        """An expression in which what is known has been computed, in doubles as C does it."""
        if is_number(x) or x[0] == "element":
            return x
        kind = x[0]
        if kind == "name":
            return self.names.get(x[1], x)
        if kind == "field":
            return self.fields[x[1]]
        if kind == "call":
            return self.called(x[1], [self.folded(part) for part in x[2]])
        if kind == "?":
            condition = self.folded(x[1])
            if is_number(condition):
                return self.folded(x[2] if condition else x[3])
            return kind, condition, self.folded(x[2]), self.folded(x[3])
        parts = [self.folded(part) for part in x[1:]]
        if len(parts) == 1:
            return -parts[0] if is_number(parts[0]) else (kind, parts[0])
        if all(map(is_number, parts)) and not (kind == "/" and parts[1] == 0):
            return ARITHMETIC[kind](*parts)
        if kind == "*" and 1.0 in parts:   # that is exact
            return parts[1 - parts.index(1.0)]
        if kind == "*" and -1.0 in parts:
            return "-", parts[1 - parts.index(-1.0)]
        return kind, *parts

    def called(self, name: Any, arguments: Any) -> Any:
        if name in self.functions:
            parameters, body = self.functions[name]
            (_, result), = parse(body)
            return Known(dict(zip(parameters, arguments)), {}, self.functions).folded(result)
        if name == "sqrt" and is_number(arguments[0]):
            return math.sqrt(arguments[0])
        return "call", name, tuple(arguments)

    def left(self, statements: Any) -> Any:
        """The statements that are left, those of a function from its declarations on."""
        found = []
        for statement in statements:
            kind = statement[0]
            if kind == "declare":
                _, of, const, name, x = statement
                x = self.folded(x)
                if const and (is_number(x) or x[0] == "name"):
                    self.names[name] = x
                else:
                    self.names.pop(name, None)
                    found.append((kind, of, const, name, x))
            elif kind == "for":
                found.append((kind, self.left(statement[1])))
            elif kind == "if":
                condition = self.folded(statement[1])
                if is_number(condition):
                    found += self.left(statement[2 if condition else 3])
                else:
                    found.append((kind, condition, self.left(statement[2]), self.left(statement[3])))
            elif kind == "set":
                found.append((*statement[:3], self.folded(statement[3])))
            else:
                found.append((kind, self.folded(statement[1])))
        return found


def specialized(body: Any, names: Any, fields: Any, functions: Any) -> Any:
    """The statements of a function that are left if some names and fields are known.

    Returns
    -------
    (list of statements, set of str)
        And all names that occur in them.
    """
    found = Known(names, fields, functions).left(parse(body))
    while True:   # without declarations that nobody needs any more
        used = set().union(*map(used_in, found))
        needed = [x for x in found if x[0] != "declare" or x[3] in used]
        if needed == found:
            return found, used
        found = needed


def used_in(x: Any) -> Any:
    """The names that occur in a statement or an expression."""
    if isinstance(x, list):
        return set().union(*map(used_in, x))
    if not isinstance(x, tuple):
        return set()
    if x[0] in ("name", "element"):
        return {x[1]}
    if x[0] == "declare":
        return used_in(x[4])
    return set().union(*[used_in(list(part) if x[0] == "call" and isinstance(part, tuple) else part) for part in x[1:]])


# ---- as text ----

MACROS = ("isinf", "isfinite", "isnan")


def written(statements: Any, dtype: Any, literal: Any, pad: str = "    ") -> Any:
    """Statements as lines of C.

    Parameters
    ----------
    statements : list
    dtype : {"float64", "float32"}
    literal : callable
        ``literal(x, dtype)``, a number as text.
    pad : str, optional
        What stands before each.

    Returns
    -------
    str
    """
    def text(x, rank=-1):
        """An expression, in brackets if its rank is lower."""
        if is_number(x):
            return str(int(x)) if isinstance(x, int) else literal(x, dtype)
        kind = x[0]
        if kind == "name":
            return x[1]
        if kind == "element":
            return f"{x[1]}[i]"
        if kind == "call":
            return f"{x[1]}{'f' * (dtype == 'float32' and x[1] not in MACROS)}({', '.join(map(text, x[2]))})"
        if kind == "?":
            whole, own = f"{text(x[1], 0)} ? {text(x[2])} : {text(x[3])}", -1
        elif len(x) == 2:
            whole, own = f"-{text(x[1], HIGHEST)}", HIGHEST
        else:
            own = RANK[kind]
            whole = f"{text(x[1], own)} {kind} {text(x[2], own + 1)}"
        return f"({whole})" if own < rank else whole

    lines = []
    for statement in statements:
        kind = statement[0]
        if kind == "declare":
            of = "float" if dtype == "float32" and statement[1] == "double" else statement[1]
            lines.append(f"{pad}{'const ' * statement[2]}{of} {statement[3]} = {text(statement[4])};\n")
        elif kind == "for":
            lines += [f"{pad}for (int i = 0; i < n; i++) {{\n", written(statement[1], dtype, literal, pad + "    "),
                      f"{pad}}}\n"]
        elif kind == "if":
            lines += [f"{pad}if ({text(statement[1])}) {{\n", written(statement[2], dtype, literal, pad + "    ")]
            if statement[3]:
                lines += [f"{pad}}} else {{\n", written(statement[3], dtype, literal, pad + "    ")]
            lines.append(f"{pad}}}\n")
        elif kind == "set":
            lines.append(f"{pad}{text(statement[1])} {statement[2]} {text(statement[3])};\n")
        else:
            lines.append(f"{pad}return {text(statement[1])};\n")
    return "".join(lines)
