"""The rows of ops.def for other languages: each as C, and computed on arrays of NumPy, JAX or PyTorch.

All of it is read off the texts that the compiled part is made of, csrc/ops.def and csrc/formulas.def.

Examples
--------
>>> from flatgrad.export import formulas
>>> formulas.expression("SILU", ["v3"])
'v3 * fg_sigmoid(v3)'
>>> formulas.needs("SILU")
('fg_sigmoid',)
>>> print(formulas.definitions(formulas.needs("SILU"), "float32"))
static inline float fg_sigmoid(float x)
{
    if (x >= 0.0f)
        return 1.0f / (1.0f + expf(-x));
    const float e = expf(x);
    return e / (1.0f + e);
}
"""
from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from flatgrad import _core
from flatgrad.arguments import one_of
from flatgrad.errors import ArgumentError
from flatgrad.export.expressions import (TYPES, Choice, Evaluation, expression_of, is_number, parameters_of,
                                         statements_of, tokens_of)

if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

__all__ = ["definitions", "evaluate", "expression", "needs"]

ROWS, ALL = _core._formulas()
FUNCTIONS = {name: (parameters, body) for name, parameters, _, body, condition in ALL if parameters and not condition}
VALUES = {name: float(body) for name, parameters, _, body, _ in ALL if not parameters}
OPERANDS = ("x", "y", "w")
WIDTH, INDENT = 100, "    "
MACROS = ("isnan", "isinf", "isfinite")   # of any type
WORDS = ("if", "for", "return", "const", *TYPES)
ATOM = re.compile(r"[\w.]+(\[[\w .+*]*\])?")


def forward_of(op: str) -> tuple[Any, Any]:
    """The letters of a row's operands, and its result."""
    arity, text = ROWS[one_of("op", op, ROWS)]
    return OPERANDS[:arity], text


def inlined(text: str, immediate: int | None) -> str:
    """A result whose function has an immediate: that of the function, for this number."""
    if not re.search(r"\bk\b", text):
        return text
    if not isinstance(immediate, int):
        raise ArgumentError(f"immediate: expected an int for {text}, got {immediate!r}")
    _, name, _ = expression_of(text)
    parameters, body = FUNCTIONS[name]
    assert [p for _, p in parameters_of(parameters)] == ["x", "k"], "the one function with an immediate"
    (_, found), = statements_of(body)
    text, start = body, body.index("return") + len("return")
    span = start, body.rindex(";")
    while isinstance(found, Choice):
        taken = Evaluation(None, [], {}, {}).value(found.condition, {"k": immediate})
        found, span = (found.first, found.spans[0]) if taken else (found.second, found.spans[1])
    return text[slice(*span)].replace("(double)k", f"{immediate}.0").strip()


def expression(op: str, arguments: list[str], dtype: str = "float64", immediate: int | None = None) -> str:
    """The result of a row, as an expression in C.

    Parameters
    ----------
    op : str
        The row's ID.
    arguments : sequence of str
        C for each operand, without side effects: it may stand several times in the result.
    dtype : str, optional
        "float64" or "float32".
    immediate : int, optional
        The exponent of "POWI".

    Returns
    -------
    str
        It may end in an operator of any rank: `?:` too.

    Raises
    ------
    UnknownNameError
        `op` is no row, or `dtype` neither of the two.
    ArgumentError
        The row has another number of operands, or an immediate that is missing.

    Examples
    --------
    >>> from flatgrad.export import formulas
    >>> formulas.expression("LEAKY_RELU", ["v1", "0.01"])
    'v1 > 0.0 ? v1 : 0.01 * v1'
    >>> formulas.expression("POWI", ["x[2]"], "float32", immediate=3)
    'powf(x[2], 3.0f)'
    """
    letters, text = forward_of(op)
    if len(arguments) != len(letters):
        raise ArgumentError(f"arguments: expected {len(letters)} for {op}, got {arguments!r}")
    return written(inlined(text, immediate), dtype, dict(zip(letters, arguments)))


def written(text: str, dtype: str, given: tuple[()] | dict[str, str] = ()) -> str:
    """C for numbers of that type, and with other texts for some names."""
    single = one_of("dtype", dtype, ("float64", "float32")) == "float32"
    tokens, out, at = tokens_of(text), [], 0
    for k, token in enumerate(tokens):
        word = text[token.start:token.end]
        if token.kind == "name" and word in given:
            beside = [tokens[j].text if 0 <= j < len(tokens) else "" for j in (k - 1, k + 1)]
            alone = beside[0] in ("(", ",", "") and beside[1] in (")", ",", "")
            word = given[word] if alone or ATOM.fullmatch(given[word]) else f"({given[word]})"
        elif single:
            called = k + 1 < len(tokens) and tokens[k + 1].text == "("
            if token.kind == "number" and not token.suffix and not token.text.isdigit():
                word += "f"
            elif word == "double":
                word = "float"
            elif word.startswith("DBL_"):
                word = "FLT_" + word.removeprefix("DBL_")
            elif token.kind == "name" and called and word not in FUNCTIONS and word not in (*MACROS, *WORDS):
                word += "f"
        out += [text[at:token.start], word]
        at = token.end
    return "".join(out) + text[at:]


def names_in(text: str) -> tuple[Any, ...]:
    """The functions and constants of formulas.def that a text names, each once."""
    return tuple(dict.fromkeys(token.text for token in tokens_of(text)
                               if token.text in FUNCTIONS or token.text in VALUES))


def needs(op: str, immediate: None = None) -> tuple[Any, ...]:
    """The functions and constants that the expression of a row names, for `definitions`.

    Parameters
    ----------
    op : str
        The row's ID.
    immediate : int, optional
        As for `expression`; it makes no difference.

    Returns
    -------
    tuple of str

    Raises
    ------
    UnknownNameError
        `op` is no row.

    Examples
    --------
    >>> from flatgrad.export import formulas
    >>> formulas.needs("GELU"), formulas.needs("ADD")
    (('FG_SQRT_HALF',), ())
    """
    return names_in(inlined(forward_of(op)[1], immediate or 0))


def definitions(names: list[str], dtype: str = "float64") -> str:
    """The functions and constants of these names, and those that they need, in C.

    They go by ``<math.h>``, and `fg_relu` also by ``<float.h>``.

    Parameters
    ----------
    names : iterable of str
        Of `needs`, in any order, and some may be there several times.
    dtype : str, optional
        "float64" or "float32".

    Returns
    -------
    str
        Without an end of the last line; "" if there are none.

    Raises
    ------
    UnknownNameError
        A name or `dtype` is unknown.

    Examples
    --------
    >>> from flatgrad.export import formulas
    >>> print(formulas.definitions(["fg_sign", "FG_DENSITY"]))
    #define FG_DENSITY 0.39894228040143267794 /* sqrt(1 / (2 pi)), the normal density at 0 */
    <BLANKLINE>
    static inline double fg_sign(double x)
    {
        return x > 0.0 ? 1.0 : x < 0.0 ? -1.0 : 0.0;
    }
    """
    wanted, new = set(), [one_of("names", name, [row[0] for row in ALL]) for name in names]
    while new:
        wanted |= set(new)
        new = [name for row in ALL if row[0] in new for name in names_in(row[3]) if name not in wanted]
    lines, blocks = [], []
    for name, parameters, comment, body, condition in ALL:
        if name not in wanted:
            continue
        if not parameters:
            lines.append(f"#define {name} {written(body, dtype)}" + f" /* {comment} */" * bool(comment))
            continue
        head = wrapped(f"/* {comment} */", " * ", [" "]) + "\n" if comment else ""
        block = f"{head}static inline {written(f'double {name}{parameters}', dtype)}\n" + laid_out(written(body, dtype))
        if blocks and blocks[-1].startswith("#if") and not blocks[-1].endswith("#endif"):
            blocks[-1] += f"\n#else\n{block}\n#endif"
        else:
            blocks.append(f"#if {condition}\n{block}" if condition else block)
    return "\n\n".join(["\n".join(lines)] * bool(lines) + blocks)


def laid_out(body: str) -> str:
    """The statements of a function on lines of their own, within braces."""
    lines, line, depth, inside, once = ["{"], "", 1, 0, 0
    tokens, at = tokens_of(body), 0
    for k, token in enumerate(tokens):
        line += body[at:token.end] if line else token.text + token.suffix
        at = token.end
        inside += {"(": 1, ")": -1}.get(token.text, 0)
        behind = tokens[k + 1].text if k + 1 < len(tokens) else ""
        heads = token.text == ")" and inside == 0 and line.startswith("if (")
        if inside or not (token.text in (";", "{", "}") or heads):
            continue
        depth -= token.text == "}"
        lines.append(wrapped(INDENT * (depth + once) + line, INDENT))
        depth += token.text == "{"
        once, line = int(heads and behind != "{"), ""
    return "\n".join([*lines, "}"])


def wrapped(line: str, further: str, marks: tuple[str, str, str, str] | list[str] = (" : ", " ? ", " + ", " ")) -> str:
    """A line cut at the first of these marks that it has, as late as may be; what follows has `further` before it."""
    indent = re.match(" *", line)[0]
    out = []
    while len(line) > WIDTH:
        cuts = (line.rfind(mark, len(indent) + len(further) + 1, WIDTH) for mark in marks)
        cut = next((cut for cut in cuts if cut > 0), WIDTH)
        out.append(line[:cut])
        line = indent + further + line[cut + 1:]
    return "\n".join([*out, line])


def evaluate(op: str, xp: ModuleType, operands: list[Any], immediate: int | None = None) -> Any:
    """The result of a row, computed with another package.

    Parameters
    ----------
    op : str
        The row's ID.
    xp : namespace
        `numpy`, `jax.numpy`, `torch`, or one with their functions.
    operands : sequence of array and of number
        They are broadcast. Numbers take the type of the arrays.
    immediate : int, optional
        The exponent of "POWI".

    Returns
    -------
    array or float
        A float if all operands are numbers.

    Raises
    ------
    UnknownNameError
        `op` is no row.
    ArgumentError
        The row has another number of operands, or an immediate that is missing; `xp` lacks a function.

    Notes
    -----
    Where elements go different ways both are computed, so that NumPy may warn. The order of "POWER_SLOPE" is best a
    number: within `jax.jit` it has to be one.

    Examples
    --------
    >>> import numpy as np
    >>> from flatgrad.export import formulas
    >>> formulas.evaluate("RELU", np, [np.array([-1.0, 2.0])])
    array([0., 2.])
    """
    letters, text = forward_of(op)
    if len(operands) != len(letters):
        raise ArgumentError(f"operands: expected {len(letters)} for {op}, got {len(operands)}")
    evaluation = Evaluation(xp, operands, FUNCTIONS, VALUES)
    found = evaluation.value(expression_of(inlined(text, immediate)), dict(zip(letters, operands)))
    if evaluation.like is None:
        return found
    shape = np.broadcast_shapes(*[() if is_number(x) else tuple(x.shape) for x in operands])
    found = evaluation.array(found)
    if found.dtype != evaluation.like.dtype:
        found = xp.asarray(found, dtype=evaluation.like.dtype)
    return found if tuple(found.shape) == shape else xp.broadcast_to(found, shape)
