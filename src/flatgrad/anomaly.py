"""Where the first nan or inf comes from: the operation that made it, with its numbers, and the line of the user's code.

PyTorch has these functions, by the same names, in `torch.autograd`.
"""
from __future__ import annotations

import linecache
import math

from flatgrad._core import _decorated, _detects_anomaly, _enter_anomaly, _leave_anomaly, _set_anomaly
from flatgrad.arguments import flag
from flatgrad.errors import AnomalyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any

    from flatgrad._core import Value, _Function
    from flatgrad.rules import Call

__all__ = ["detect_anomaly", "is_anomaly_enabled", "set_detect_anomaly"]

MOST_SHOWN = 4   # operands in a message

SYMBOLS = {"+", "-", "*", "/", "**"}


class detect_anomaly:
    """A context in which the first nan or inf is an error, which names the operation and the line that made it.

    Forward, each operation is checked as it is done: an AnomalyError is raised at the line that has computed nan, or
    inf from operands that are all finite. Backward, the pass is checked: the error names the operation whose rule made
    the first gradient of nan or inf, and the line that had computed that operation. Also a decorator of functions.

    Raises
    ------
    AnomalyError
        Raised within the block by operations, backward passes and steps of optimizers. An operation that fails leaves
        nothing behind. After a failed pass the gradients that it has computed so far are there to be looked at, and
        after a step the parameters have their new numbers.

    Notes
    -----
    Operands that the user made inf, such as a mask of -inf, are no anomaly, nor is what stays inf because of them; nan
    always is. If an operand was nan before the operation, the error says where the operand comes from, as far as it was
    made in the block. Nodes that were made before it have no line.

    An operation of two Values takes about ten times as long within the block, a step of a network about twice; nothing
    is different outside it. Compiled functions,
    `minimize`, `Trainer.fit`, `vmap`, `scan` and `fori_loop` run operation by operation in Python, so that an error has
    the line of the function; their numbers are the same up to rounding. The block belongs to a context in the sense of
    `contextvars`, as `no_grad` does: other threads are not checked.

    PyTorch's `torch.autograd.detect_anomaly` looks at backward passes alone, for nan alone.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> x = Value(0.0)
    >>> with flatgrad.detect_anomaly():
    ...     try:
    ...         (x.sqrt() * 3.0).backward()
    ...     except flatgrad.errors.AnomalyError as error:
    ...         print(error.phase, error.operation, error.operands, error.gradient, error.result)
    backward sqrt (0.0,) 3.0 inf
    >>> with flatgrad.detect_anomaly():
    ...     try:
    ...         y = Value(1e200) * Value(1e200)
    ...     except flatgrad.errors.AnomalyError as error:
    ...         print(error.phase, error.operation, error.operands, error.result)
    forward * (1e+200, 1e+200) inf
    """

    def __init__(self):
        self._blocks = []

    def __call__(self, function: _Function) -> _Function:
        return _decorated("detect_anomaly", self, function)

    def __enter__(self) -> detect_anomaly:
        _enter_anomaly(self._blocks)
        return self

    def __exit__(self, *exception: object) -> None:
        _leave_anomaly(self._blocks)


class set_detect_anomaly:
    """Switch `detect_anomaly` on or off from here on; as a context, until it ends.

    Parameters
    ----------
    mode : bool
        Whether it is on.

    Raises
    ------
    ArgumentTypeError
        If `mode` is not a bool.

    Examples
    --------
    >>> import flatgrad
    >>> switch = flatgrad.set_detect_anomaly(True)
    >>> flatgrad.is_anomaly_enabled()
    True
    >>> with flatgrad.set_detect_anomaly(False):
    ...     flatgrad.is_anomaly_enabled()
    False
    >>> switch = flatgrad.set_detect_anomaly(False)
    >>> flatgrad.is_anomaly_enabled()
    False
    """

    def __init__(self, mode: bool) -> None:
        mode = flag("set_detect_anomaly: mode", mode)
        self._before = _detects_anomaly()
        _set_anomaly(mode)

    def __enter__(self) -> set_detect_anomaly:
        return self

    def __exit__(self, *exception: object) -> None:
        _set_anomaly(self._before)


def is_anomaly_enabled() -> bool:
    """Whether nan and inf are errors here, by `detect_anomaly` or `set_detect_anomaly`.

    Returns
    -------
    bool

    Examples
    --------
    >>> import flatgrad
    >>> with flatgrad.detect_anomaly():
    ...     flatgrad.is_anomaly_enabled()
    True
    >>> flatgrad.is_anomaly_enabled()
    False
    """
    return _detects_anomaly()


# ---- errors, for the core ----

def located(place: tuple[CodeType, int]) -> tuple[str, int, str, str]:
    """(file, line, function, text of the line) of a place: a code object, and the instruction in it."""
    if place is None:
        return None, None, None, None
    code, at = place
    line = code.co_firstlineno
    for begin, end, number in code.co_lines():
        if begin <= at < end and number is not None:
            line = number
            break
    return code.co_filename, line, code.co_name, linecache.getline(code.co_filename, line).strip() or None


def at_line(place: tuple[CodeType, int]) -> str:
    """A place in words, as tracebacks have them."""
    name, line, function, text = located(place)
    if name is None:
        return "\n  at a line that is not known: it was computed outside detect_anomaly()"
    return f'\n  File "{name}", line {line}, in {function}' + (f"\n    {text}" if text else "")


def computed(facts: dict[str, Any]) -> str:
    """An operation with its numbers, such as 2.0 * 3.0."""
    operation, operands = facts["operation"], facts["operands"]
    if operation in SYMBOLS and len(operands) == 2:
        return f"{operands[0]!r} {operation} {operands[1]!r}"
    if operation.startswith("**"):
        return f"({operands[0]!r}){operation}"
    shown = ", ".join(map(repr, operands[:MOST_SHOWN]))
    if len(operands) > MOST_SHOWN:
        shown += f", ... {len(operands)} numbers, the largest {max(operands, key=magnitude)!r}"
    return f"{operation or 'the operation'}({shown})"


def magnitude(x: float) -> float:
    return -1.0 if math.isnan(x) else abs(x)


def element(facts: dict[str, Any]) -> str:
    return "" if facts["element"] is None else f", at element {list(facts['element'])}"


def named(node: Value) -> str:
    label = getattr(node, "label", "")
    return f" of {label!r}" if isinstance(label, str) and label else ""


def error_of(message: str, phase: str, facts: dict[str, Any], place: tuple[CodeType, int], **more: Any) -> AnomalyError:
    error = AnomalyError(message)
    error.phase, error.operation, error.operands = phase, facts["operation"], facts["operands"]
    error.element, error.result = facts["element"], facts["result"]
    error.filename, error.lineno, error.function, error.line = located(place)
    for name, value in more.items():
        setattr(error, name, value)
    return error


def made(phase: str, facts: dict[str, Any]) -> AnomalyError:
    """An operation has computed nan, or inf of finite numbers."""
    result = facts["result"]
    message = f"{computed(facts)} is {result!r}{element(facts)}"
    if phase == "backward":
        message = f"in a derivative that is written as nodes, {message}. It is that of the operation computed"
    message += at_line(facts["place"])
    for number, leaf, place in facts["origins"]:
        message += f"\nAn operand was {number!r} already; " + ("a leaf made" if leaf else "computed") + at_line(place)
    hint = hint_of(facts["operation"], facts["operands"], result)
    return error_of(message + (f"\n{hint}" if hint else ""), phase, facts, facts["place"])


def hint_of(operation: str, operands: tuple[Any, ...], result: float) -> str | None:
    finite = all(map(math.isfinite, operands))
    if operation == "quotient" and operands[1] == 0.0:
        return "Division by 0."
    if math.isinf(result) and finite:
        return "The result is larger than the largest float, 1.8e308."
    if operation == "*" and any(x == 0.0 for x in operands) and any(map(math.isinf, operands)):
        return "0 times inf is nan."
    if operation in ("+", "-") and len(operands) == 2 and all(map(math.isinf, operands)):
        return "The difference of two inf is nan."
    if operation == "/" and len(operands) == 2 and all(map(math.isinf, operands)):
        return "inf divided by inf is nan."
    if operation in ("softmax", "log_softmax") and operands and all(x == -math.inf for x in operands):
        return "All numbers of the row are -inf: a mask that leaves nothing."
    return None


def from_operation(node: Value, gradient: float, incoming: float, facts: dict[str, Any], made_at: tuple[CodeType, int],
                   k: int) -> AnomalyError:
    """The rule of an operation has made a gradient nan or inf."""
    message = (f"the gradient{named(node)} became {gradient!r} in the backward pass: the rule of {computed(facts)} = "
               f"{facts['result']!r}{element(facts)} gave it to operand {k}, {facts['operands'][k]!r}, for the "
               f"incoming gradient {incoming!r}. The operation was computed{at_line(facts['place'])}")
    hint = gradient_hint(facts["operation"], facts["operands"], k, incoming)
    return error_of(message + (f"\n{hint}" if hint else ""), "backward", facts, facts["place"], node=node,
                    operand=k, gradient=incoming, result=gradient)


def gradient_hint(operation: str, operands: tuple[Any, ...], k: int, incoming: float) -> str | None:
    x = operands[k]
    if operation == "sqrt" and x == 0.0:
        return ("The derivative of sqrt at 0 is inf" + (", and 0 times inf is nan" if incoming == 0.0 else "")
                + ": add a small number before the root.")
    if operation == "/" and k == 1 and abs(x) < 1e-100:
        return "The divisor is close to 0."
    if operation.startswith("**") and x == 0.0:
        return "The derivative of a power below 1 at 0 is inf."
    if not all(map(math.isfinite, operands)):
        return "An operand is not finite itself."
    if math.isfinite(incoming) and abs(incoming) > 1e100:
        return "The incoming gradient is very large itself: gradients grow from one operation to the next."
    return None


def summed(node: Value, gradient: float, facts: dict[str, float | str | tuple[()] | None]) -> AnomalyError:
    """The gradients that users have given are finite, but their sum is not."""
    message = (f"the gradient{named(node)} became {gradient!r} in the backward pass: a sum of the gradients that flow "
               f"to {described(node, facts)}, or what a rule of a user's has added to it")
    return error_of(message + at_line(facts["place"]), "backward", facts, facts["place"], node=node, result=gradient)


def described(node: Value, facts: dict[str, Any]) -> str:
    if not facts["operation"]:
        return f"a leaf, {facts['result']!r}, made"
    return f"the result of {computed(facts)} = {facts['result']!r}{element(facts)}, computed"


def before(node: Value, gradient: float, is_output: bool, facts: dict[str, Any]) -> AnomalyError:
    """A gradient is nan or inf before the pass."""
    if is_output:
        message = f"backward(): the pass begins with the gradient {gradient!r}{named(node)}, of "
    else:
        message = (f"backward(): a gradient{named(node)} is {gradient!r} before the pass, left by an earlier one or "
                   "set by hand; zero_grad() clears it. It is that of ")
    return error_of(message + described(node, facts) + at_line(facts["place"]), "backward", facts, facts["place"],
                    node=node, result=gradient)


def from_rule(node: Value, gradient: float, incoming: float, rule: Callable[..., Any] | Call, facts: dict[str, Any],
              made_at: tuple[CodeType, int] | None, k: int) -> AnomalyError:
    """A rule of a user's has made a gradient nan or inf."""
    function = getattr(rule, "function", rule)
    function = getattr(function, "bwd", function)
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    place = None if code is None else (code, -1)
    name = getattr(function, "__qualname__", type(rule).__name__)
    message = (f"the gradient{named(node)} became {gradient!r} in the backward pass: the rule {name} of "
               f"{computed(facts)} = {facts['result']!r} gave it to operand {k}, {facts['operands'][k]!r}, for the "
               f"incoming gradient {incoming!r}. The rule is{at_line(place)}\n"
               f"The operation was computed{at_line(facts['place'])}")
    return error_of(message, "backward", facts, facts["place"], node=node, operand=k, gradient=incoming,
                    result=gradient, rule=function)


def stepped(node: Value, number: float, gradient: float, lr: float, group: int, at: int,
            place: tuple[CodeType, int]) -> AnomalyError:
    """An optimizer's step has made a parameter nan or inf."""
    facts = {"operation": "step", "operands": (gradient,), "element": None, "result": number}
    message = (f"the step of the optimizer made parameter {at} of group {group}{named(node)} {number!r}, with the "
               f"gradient {gradient!r} and lr={lr!r}")
    return error_of(message + at_line(place), "step", facts, place, node=node, gradient=gradient)
