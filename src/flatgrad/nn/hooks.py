"""Forward hooks: functions that a module calls before and after its own call.

A module with hooks is of a class of its own, a subclass of the module's class with the same name. So modules without
hooks cost nothing, and a layer with hooks is called by itself, also in a network whose layers run in one call.
"""
from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any

from flatgrad.errors import ArgumentTypeError

__all__ = ["Handle", "add"]

NAME = "_hooks"   # of the attribute


class Hooks:
    """The hooks of a module, each with its handle; not a dict, in which a module would look for modules."""

    def __init__(self, kind: type) -> None:
        self.kind = kind   # the module's class without hooks
        self.before: dict[Handle, tuple[Callable[..., Any], bool]] = {}
        self.after: dict[Handle, tuple[Callable[..., Any], bool]] = {}


class Handle:
    """What registering a hook returns; `remove` removes the hook, as does the end of a ``with`` block."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def remove(self) -> None:
        """Remove the hook. A second call does nothing."""
        module, self._module = self._module, None
        hooks = None if module is None else vars(module).get(NAME)
        if hooks is None:
            return
        for some in (hooks.before, hooks.after):
            some.pop(self, None)
        if not hooks.before and not hooks.after:
            module.__class__ = hooks.kind
            del vars(module)[NAME]

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


def add(module: Any, where: str, hook: Callable[..., Any], prepend: bool, with_kwargs: bool) -> Handle:
    """Add a hook to a module, `where` is 'before' or 'after'; the handle removes it."""
    if not callable(hook):
        raise ArgumentTypeError(f"hook: expected a callable, got {hook!r}")
    handle = Handle(module)
    if NAME not in vars(module):
        hooks, kind = Hooks(type(module)), hooked(type(module))
        module.__class__ = kind
        vars(module)[NAME] = hooks
    some = getattr(vars(module)[NAME], where)
    others = dict(some) if prepend else {}
    if prepend:
        some.clear()
    some[handle] = hook, with_kwargs
    some.update(others)
    return handle


def new(kind: type, *arguments: Any) -> Any:
    """A new object, not yet initialised."""
    return kind.__new__(kind, *arguments)


def without_hooks(state: Any) -> Any:
    """The state of a module, a dict or a tuple that has one, without its hooks."""
    if isinstance(state, dict):
        return {name: value for name, value in state.items() if name != NAME}
    return tuple(map(without_hooks, state)) if type(state) is tuple else state


def hooked(kind: type) -> type:
    """A subclass whose call runs hooks. Copies and pickles of its objects are of the class itself and have no hooks."""
    def call(self: Any, *inputs: Any, **options: Any) -> Any:
        hooks = vars(self)[NAME]
        for hook, with_kwargs in list(hooks.before.values()):
            changed = hook(self, inputs, options) if with_kwargs else hook(self, inputs)
            if changed is None:
                continue
            if not with_kwargs:
                inputs = changed if isinstance(changed, tuple) else (changed,)
            elif isinstance(changed, tuple) and len(changed) == 2:
                inputs, options = changed
            else:
                raise ArgumentTypeError("a forward pre-hook with_kwargs: expected None or a pair of the arguments and "
                                        f"the keyword arguments, got {changed!r}")
        out = kind.__call__(self, *inputs, **options)   # type: ignore[operator]
        for hook, with_kwargs in list(hooks.after.values()):
            changed = hook(self, inputs, options, out) if with_kwargs else hook(self, inputs, out)
            out = out if changed is None else changed
        return out

    def reduce(self: Any, protocol: int) -> Any:
        found = kind.__reduce_ex__(self, protocol)   # type: ignore[arg-type]
        if not isinstance(found, tuple):
            return found
        make, arguments, *rest = found
        arguments = tuple(kind if each is type(self) else each for each in arguments)
        if make is type(self):
            make = kind
        elif make is copyreg.__newobj__:   # for which pickle wants an object of this very class
            make = new
        return (make, arguments, *map(without_hooks, rest))

    names = {"__call__": call, "__reduce_ex__": reduce, "__module__": kind.__module__,
             "__qualname__": kind.__qualname__,
             "__doc__": kind.__doc__}
    return type(kind)(kind.__name__, (kind,), names)
