"""What Python tells of a function that is compiled: its name, its parameters, which of them are static, and which names it
reads."""
from __future__ import annotations

import functools
import numbers
import types

from flatgrad.arguments import is_bool
from flatgrad.errors import ArgumentError, ArgumentTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import CodeType
    from typing import Any

__all__ = ["OURS", "first_parameter", "name_of", "names_in", "names_of", "numbers_of", "package_of", "parameters_of",
           "static_parameters"]


def name_of(fn: Any) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def numbers_of(static_argnums: tuple[Any, ...] | int) -> tuple[Any, ...]:
    result = static_argnums if isinstance(static_argnums, (tuple, list)) else (static_argnums,)
    for n in result:
        if not isinstance(n, numbers.Integral) or is_bool(n):
            raise ArgumentTypeError("compile: static_argnums: expected an int or a tuple of int, got "
                                    f"{static_argnums!r}")
    return tuple(map(int, result))


def names_of(static_argnames: tuple[Any, ...] | str) -> tuple[Any, ...]:
    result = static_argnames if isinstance(static_argnames, (tuple, list)) else (static_argnames,)
    for name in result:
        if not isinstance(name, str):
            raise ArgumentTypeError("compile: static_argnames: expected a str or a tuple of str, got "
                                    f"{static_argnames!r}")
    return tuple(result)


def parameters_of(fn: Any) -> Mapping[Any, Any]:
    """The parameters by name; None where Python does not know."""
    import inspect

    try:
        return inspect.signature(fn).parameters
    except (TypeError, ValueError):   # of some functions that are compiled
        return None


def first_parameter(fn: Any) -> Any:
    return next(iter(parameters_of(fn) or [None]))


def static_parameters(fn: Any, static_argnums: tuple[Any, ...], static_argnames: tuple[Any, ...]) -> tuple[Any, Any]:
    """The numbers and the names by which static arguments may come: a parameter has both. A number below 0 counts from
    the end of a call's arguments, where there may be any number of them."""
    parameters = parameters_of(fn) if static_argnums or static_argnames else None
    if parameters is None:
        return set(static_argnums), set(static_argnames)
    positional = [name for name, p in parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    signature = f"{name_of(fn)}({', '.join(map(str, parameters.values()))})"
    any_number, any_name = [any(p.kind is getattr(p, kind) for p in parameters.values())
                            for kind in ("VAR_POSITIONAL", "VAR_KEYWORD")]
    found, names = set(), set(static_argnames)
    for n in static_argnums:
        at = n + len(positional) if n < 0 and not any_number else n
        if not any_number and not 0 <= at < len(positional):
            raise ArgumentError(f"compile: static_argnums: expected numbers of the {len(positional)} positional "
                                f"parameters of {signature}, got {n}")
        found.add(at)
        if 0 <= at < len(positional):   # of one that is positional only nobody gives the name
            names.add(positional[at])
    for name in static_argnames:
        if name in positional:
            found.add(positional.index(name))
        elif not any_name and (name not in parameters or parameters[name].kind is not parameters[name].KEYWORD_ONLY):
            raise ArgumentError(f"compile: static_argnames: expected names of parameters of {signature}, got {name!r}")
    return found, names


OURS = ("flatgrad", "numpy")   # packages whose variables stay what they are


def package_of(fn: Callable[..., Any]) -> str:
    return (fn.__module__ or "").partition(".")[0]


@functools.lru_cache(512)
def names_in(code: CodeType) -> tuple[Any, Any, Any]:
    """The global variables and the attributes that a function reads, and those within it; and what it may ask getattr and
    hasattr for."""
    import dis

    variables, attributes, asked = set(), set(), set()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            variables.add(step.argval)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR"):
            attributes.add(step.argval)
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            more = names_in(part)
            variables |= more[0]
            attributes |= more[1]
            asked |= more[2]
    if not variables.isdisjoint(("getattr", "hasattr")):
        asked |= {x for x in code.co_consts if type(x) is str and x.isidentifier()}
    return frozenset(variables), frozenset(attributes), frozenset(asked)
