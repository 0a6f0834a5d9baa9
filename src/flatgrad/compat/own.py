"""The changes to flatgrad's Value when it replaces a program's own class, and their removal."""
from __future__ import annotations

import inspect
import math
import operator

from flatgrad import _core
from flatgrad._core import Value
from flatgrad.compat import common
from flatgrad.compat.common import Stop
from flatgrad.compat.graphs import Unfit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["Missing", "NATIVE", "WithPass", "backward_of", "backward_once", "backward_to_none", "backward_unchanged",
           "constructor", "declare", "differ", "grad_or_none", "native_backward", "native_init", "put_on",
           "set_grad_or_none", "take_off"]

NATIVE = dict(vars(Value))  # the attributes of Value before any change
native_init, native_backward, native_grad = Value.__init__, Value.backward, Value.grad

put: list[Any] = []  # the names of attributes that have been added to Value


def put_on(name: Any, member: Any) -> None:
    put.append(name)
    setattr(Value, name, member)


def take_off() -> None:
    """Restore Value's own attributes."""
    for name in put:
        if name in NATIVE:
            setattr(Value, name, NATIVE[name])
        elif name in vars(Value):
            delattr(Value, name)
    put.clear()


def declare(name: Any, **what: Any) -> None:
    if name in NATIVE and name != "label":
        raise Unfit(f"its attribute {name} has the name of something else of flatgrad's Value")
    put.append(name)
    _core._declare(name, **what)


def differ(self: Any, other: Any) -> Any:
    """The `!=` that Python derives from a class's own `__eq__`."""
    answer = self.__eq__(other)
    return answer if answer is NotImplemented else not answer


# ---- backward passes that set gradients to 0 first ----

def backward_of(kind: Any) -> Any:
    """flatgrad's backward pass, but gradients are first set to 0: of `all` nodes that it reaches, or of `inner`
    nodes."""
    if kind is None:
        return native_backward

    def backward(self):
        _core._clear_gradients(self, kind == "all")
        native_backward(self)
    return backward


def backward_once(self: Any) -> None:
    """flatgrad's backward pass; a second pass over nodes that are several nodes in the class ends the run."""
    if _core._second_pass(self):
        stop("a second backward pass over a graph with - or /, which flatgrad has as one node each: the program's own "
             "class adds up gradients in more nodes; --scalar-graph has them too")
    native_backward(self)


def backward_unchanged(passes: Any) -> Any:
    """A backward pass for a class whose rules use the operands' data at the time of the operation."""
    def backward(self):
        if _core._changed_since(self):
            stop("data was changed between an operation and the backward pass through it: flatgrad's gradients are "
                 "those at the new data, and those of the program's own class at the old")
        passes(self)
    return backward


def stop(reason: Any) -> NoReturn:
    raise Stop(reason) if common.speaker == "flatgrad run" else RuntimeError(reason)


# ---- gradients that are None before a pass reaches them: stored as 0.0; a reached gradient of 0 is stored as -0.0 ----

def grad_or_none(v: Any) -> Any:
    x = native_grad.__get__(v)
    return x if x else None if math.copysign(1.0, x) > 0 else 0.0


def set_grad_or_none(v: Any, x: Any) -> None:
    native_grad.__set__(v, 0.0 if x is None else x if x else -0.0)


def backward_to_none(passes: Any) -> Any:
    def backward(self):
        passes(self)
        _core._sign_zeros(self)
    return backward


class Missing:
    """An attribute that the class's operators and constructor compute and flatgrad's do not; a program may set it."""

    name: Any

    own: Any

    def __init__(self, name: Any) -> None:
        self.name, self.own = name, f"_own_{name}"
        declare(self.own)

    def __get__(self, v: Any, owner: Any) -> Any:
        if v is None:
            return self
        try:
            return getattr(v, self.own)
        except AttributeError:  # hasattr and similar functions would treat it as an answer
            stop(f"{self.name} of a Value was read: it is made by the program's own class, and this Value is by "
                 "flatgrad, in its place; run the program without the class being replaced")

    def __set__(self, v: Any, x: Any) -> None:
        setattr(v, self.own, x)


class WithPass:
    """A Value with another backward pass, for tests of this pass."""

    passes: Any

    value: Any

    def __init__(self, passes: Any, x: Any) -> None:
        self.passes, self.value = passes, x if isinstance(x, Value) else Value(x)

    def wrap(self, other: Any, function: Any) -> Any:
        return WithPass(self.passes, function(self.value, other.value))

    def __add__(self, other: Any) -> Any:
        return self.wrap(other, operator.add)

    def __mul__(self, other: Any) -> Any:
        return self.wrap(other, operator.mul)

    def backward(self) -> None:
        self.passes(self.value)

    @property
    def data(self) -> Any:
        return self.value.data

    @property
    def grad(self) -> Any:
        return self.value.grad

    @grad.setter
    def grad(self, x: Any) -> None:
        self.value.grad = x


# ---- the constructor of the class ----

def constructor(study: Any) -> Any:
    """An `__init__` with the parameters of the class's own; each sets what it sets in the class."""
    space = {"native": native_init, "refuse": refuse}
    head, lines, native, kind = ["self"], [], {}, None
    for k, parameter in enumerate(study.parameters):
        role, name = study.roles[parameter.name], parameter.name
        if name in space or name == "self":
            raise Unfit(f"its __init__ has a parameter {name}")
        if parameter.kind == parameter.KEYWORD_ONLY and kind != parameter.KEYWORD_ONLY:
            head.append("*")
        kind = parameter.kind
        if kind == parameter.VAR_POSITIONAL or kind == parameter.VAR_KEYWORD:
            head.append(("*" if kind == parameter.VAR_POSITIONAL else "**") + name)
            lines.append(f"if {name}: refuse({name!r})")
            continue
        space[f"default_{k}"] = parameter.default
        head.append(name if parameter.default is inspect.Parameter.empty else f"{name}=default_{k}")
        if role is None:
            lines.append(f"if {name} is not default_{k}: refuse({name!r})")
        elif role.startswith("."):
            always = role[1:] in study.computed or parameter.default is inspect.Parameter.empty
            lines.append(("" if always else f"if {name} is not default_{k}: ") + f"self.{role[1:]} = {name}")
        else:
            native[role] = name
    children = native.get("children")
    call = [native["data"], f"() if {children} is None else {children}" if children else "()"]
    if "op" in native:
        lines.insert(0, f"if type({native['op']}) is not str: {native['op']} = str({native['op']} or '')")
        call.append(native["op"])
    if "local" in native:
        call += ([] if "op" in native else ["''"]) + ["None", f"local_grads={native['local']} or None"]
    at = 1 if "op" in native else 0
    lines.insert(at, f"native(self, {', '.join(call)})")
    code = f"def __init__({', '.join(head)}):\n" + "".join(f"    {line}\n" for line in lines)
    exec(code, space)
    return space["__init__"]


def refuse(name: Any) -> NoReturn:
    raise TypeError(f"{name}: flatgrad's Value, in the place of the program's own class, does not know what to do with "
                    "this argument; run the program without it being replaced")
