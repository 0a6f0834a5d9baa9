"""Replaces a program's own class by flatgrad's Value; the program's additions stay, and so do the numbers.

`replace` is called right after the class has been made, and computes small graphs with the class and with flatgrad's
Value. Operators and methods that give the same numbers and gradients become flatgrad's; the others stay the program's.
Attributes that flatgrad's Value does not have stay the program's too. All of these are put on Value itself, because
operations return this class. Then `replace` computes all graphs again. If a number differs, Value gets back its former
attributes, and the class is not replaced.
"""
from __future__ import annotations

import builtins
import contextlib
import dis
import functools
import inspect
import io
import itertools
import operator
import random
import signal
import sys
import threading
import types
import warnings

from flatgrad._core import Value
from flatgrad.compat import source
from flatgrad.compat.common import note, place
from flatgrad.compat.graphs import (COMPARED, CONVERTED, METHODS, OPERATIONS, STEPS, UNARY, Raised, TimeUp, Unfit,
                                    backward, changed, diamond, equal, graphs_of, hidden_nodes, is_binary, number,
                                    outcome, preset, programs, same, told, use_of)
from flatgrad.compat.own import (NATIVE, Missing, WithPass, backward_of, backward_once, backward_to_none,
                                 backward_unchanged, constructor, declare, differ, grad_or_none, native_backward,
                                 native_init, put_on, set_grad_or_none, take_off)
from flatgrad.compat.reading import constants, decides, foreign

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from flatgrad._core import _Path

__all__ = ["replace"]

replaced: dict[Any, Any] = {}  # file -> Job


def replace(cls: Any, call: Any, path: _Path, draft: Any) -> Any:
    """The new meaning of a class's name; the program calls this function after the definition of the class.

    Parameters
    ----------
    cls : type
        The class as it was written.
    call : int
        The index of the `source.Job` to which the call belongs.
    path : str
        The file of the definition.
    draft : bool
        Whether the class is defined again later.

    Returns
    -------
    type
        flatgrad's Value, or `cls` if the class cannot be replaced.

    Raises
    ------
    common.Stop
        If the class cannot be replaced, and the job says that the run then has to end.
    """
    job = source.jobs[call]
    try:
        elsewhere = [other for other in replaced if other != path]
        if elsewhere:
            raise Unfit(f"the class in {place(elsewhere[0])} has been replaced already; name one of them, such as "
                        f"MODULE.{cls.__name__}")
        take_off()  # a notebook may define its class again
        try:
            with limited(10):
                study = Study(cls, job)
                study.put_on()
        except TimeUp:
            raise Unfit("one of its methods does not end for the numbers that it was tried with") from None
        except Exception as error:
            if isinstance(error, Unfit):
                raise
            raise Unfit(f"trying it fails with {type(error).__name__}: {error}") from error
    except Unfit as reason:
        take_off()
        job.give_up(path, str(reason), draft)
        return cls
    replaced[path] = job
    job.done.append(path)
    note(f"class {cls.__name__} of {place(path)} is flatgrad's now{study.told()}{job.rest}")
    return Value


# ---- a class ----

FORBIDDEN = ("__new__", "__setattr__", "__getattribute__", "__del__", "__delattr__", "__getstate__", "__setstate__",
             "__reduce__", "__reduce_ex__", "__init_subclass__", "__set_name__")
LEFT = {"__module__", "__dict__", "__weakref__", "__doc__", "__slots__", "__qualname__", "__annotations__", "__init__",
        "__static_attributes__", "__firstlineno__", "__dataclass_fields__", "__dataclass_params__", "__annotate__",
        "__annotate_func__", "__annotations_cache__", "__replace__", "__hash__", "backward"}
OURS_ALREADY = ("data", "grad", "_prev", "_children", "_local_grads", "_op", "_backward", "requires_grad")


class Study:
    """The behaviour of a class, and the changes that flatgrad's Value needs for the same behaviour.

    Raises `Unfit` if no changes give this behaviour.
    """

    make: Any
    cls: Any
    job: Any

    members: Any
    not_run: Any
    stored: Any
    no_grad: Any
    seen: Any
    prev: Any
    op: Any
    local: Any
    rule: Any
    by_node: Any
    roles: Any
    freezes: Any
    passes: Any
    backward: Any
    compounds: Any
    missing: Any
    computed: Any
    differs: Any
    kept: Any
    extra: Any
    captures: Any
    defaults: Any
    factories: Any
    aliases: Any
    marks: Any

    def __init__(self, cls: Any, job: Any) -> None:
        self.cls, self.job = cls, job
        self.members = {name: member for base in reversed(cls.__mro__[:-1]) for name, member in vars(base).items()}
        for name in FORBIDDEN:
            if name in self.members:
                raise Unfit(f"it defines {name}")
        self.look_at_code()
        self.kept, self.extra, self.missing, self.differs, self.captures = {}, {}, [], [], False
        self.not_run = set()  # operators and methods that must not be run, because of their side effects
        state = State(cls, self.members)
        with quiet():
            try:
                self.look_at_construction()
                self.look_at_attributes()
                self.look_at_parameters()
                self.look_at_methods()
                self.look_at_backward()
            finally:
                changed = state.restore()
        if changed:
            raise Unfit(f"its {changed} changes with every Value that is made")

    # -- the dependencies of its code, before any of it is run --

    def look_at_code(self) -> None:
        init = self.members.get("__init__")
        if "weakref" in self.job.modules:
            raise Unfit("the program has weak references, and of a graph of flatgrad's only what the program holds has "
                        "objects")
        patched = sorted(name for name in self.job.patched if is_binary(name) or name in UNARY
                         or name in ("__init__", "backward"))
        if patched:
            raise Unfit(f"the program puts another {patched[0]} on it later")
        own = {name for name, member in self.members.items() if isinstance(member, types.FunctionType)}
        theirs = self.job.subclasses & (own | {*OURS_ALREADY, *FORBIDDEN}) - {"__init__", "__repr__", "__str__"}
        if theirs:
            raise Unfit(f"a class on top of it has {', '.join(sorted(theirs))} of its own")
        self.stored = set()
        if "__dataclass_fields__" in self.members and "__post_init__" not in self.members:
            self.stored = set(self.members["__dataclass_fields__"])
        elif isinstance(init, types.FunctionType):
            self.stored = {step.argval for step in dis.get_instructions(init) if step.opname == "STORE_ATTR"}
            self.refuse_foreign("__init__", init)
            if decides(init) or constants(init):
                raise Unfit("its __init__ goes by the number that it is given")
        elif init is not None:
            raise Unfit(f"its __init__ is a {type(init).__name__}")
        for name in ("__add__", "__mul__"):
            if isinstance(self.members.get(name), types.FunctionType):
                self.refuse_foreign(name, self.members[name])

    def refuse_foreign(self, name: Any, function: Any) -> None:
        found = foreign(function, self.cls, self.stored | {"data", "grad"}, self.job)
        if found:
            raise Unfit(f"its {name} uses more than its operands: {', '.join(found)}")

    # -- its constructor --

    def look_at_construction(self) -> None:
        for more in ((), ((),), ((), "")):
            try:
                one = self.cls(2.0, *more)
                break
            except (Exception, SystemExit) as error:
                reason = error
        else:
            raise Unfit(f"{self.cls.__name__}(2.0) fails with {type(reason).__name__}: {reason}")
        self.more = more
        self.make = lambda x: self.cls(x, *more)
        for name in ("data", "grad"):
            if not hasattr(one, name):
                raise Unfit(f"{self.cls.__name__}(2.0) has no {name}")
        self.no_grad = one.grad is None
        if number(one.data) != 2.0 or number(one.grad) != 0.0:
            raise Unfit(f"{self.cls.__name__}(2.0) begins with data {one.data} and grad {one.grad}")
        try:
            none = self.cls()
        except Exception:
            pass
        else:
            default = inspect.signature(self.cls).parameters
            default = next(iter(default.values())).default if default else None
            if none.data != default:
                raise Unfit(f"{self.cls.__name__}() makes a number of its own")
        if any(converts(self.make, text, (str, float, int)) for text in ("2", "1/2")):
            raise Unfit("it takes texts for numbers")
        if converts(self.make, [2.0, 3.0], list):
            raise Unfit("its data may be arrays")

    # -- its attributes --

    def look_at_attributes(self) -> None:
        a, b = self.make(2.0), self.make(5.0)
        try:
            results = [a + b, a * b]
        except Exception as error:
            raise Unfit(f"a + b or a * b fails with {type(error).__name__}: {error}") from error
        if not all(type(out) is self.cls for out in results):
            raise Unfit("a + b is not of the class")
        probes = [a, b, *results]
        names = dict.fromkeys([name for out in probes for name in attributes(out)])
        self.seen = set(names)
        self.prev = self.op = self.local = self.rule = None
        self.defaults, self.factories, self.computed, self.aliases, self.marks = {}, {}, {}, {}, []
        kinds = {name: ([getattr(out, name, inspect) for out in probes], None) for name in names  # a module: none
                 if name not in ("data", "grad")}
        kinds = {name: (found, self.kind_of(found, a, b)) for name, (found, _) in kinds.items()}
        results[1].backward()
        for name, (found, kind) in kinds.items():
            if found == [2.0, 5.0, 7.0, 10.0]:
                kinds[name] = found, "data"
            elif kind in ("default", "factory"):
                now = [getattr(out, name, inspect) for out in probes]
                if now[0] == a.grad != found[0] and now[1] == b.grad:
                    kinds[name] = found, "grad"
                elif now != found:  # the backward pass uses it
                    self.marks.append(name)
        operations = [name for name, (_, kind) in kinds.items() if kind == "op"]
        operation = next((name for name in operations if "op" in name.lower()), operations[0] if operations else None)
        for name, (found, kind) in kinds.items():
            if kind in ("prev", "local", "rule") and getattr(self, kind) is None:
                setattr(self, kind, (name, found))
            elif name == operation:
                self.op = name, found
            elif kind == "default":
                self.defaults[name] = found[0]
            elif kind == "factory":
                self.factories[name] = type(found[0])
            elif kind == "op":
                self.computed[name] = found[0]  # the operators compute it
            elif kind in ("data", "grad"):
                self.aliases[name] = kind
            else:
                self.missing.append(name)
        # A program that reads the graph has to get the graph of its own class, node for node.
        self.by_node = self.job.scalar_graph or any(kind is not None and kind[0] in self.job.read
                                                    for kind in (self.prev, self.op))
        if self.prev is not None and self.prev[0] in self.job.written:
            raise Unfit(f"the program sets {self.prev[0]}")
        for name in (*self.missing, *self.computed, *self.factories):
            if name in OURS_ALREADY:
                raise Unfit(f"its {name} is not what flatgrad's is")

    def kind_of(self, found: Any, a: Any, b: Any) -> Any:
        """The kind of an attribute, by its values for two leaves, a sum and a product."""
        leaf, other, add, mul = found
        if any(x is inspect for x in found):
            return "missing"
        if isinstance(add, (set, frozenset, tuple, list)) and len(add) == 2 and all(x is a or x is b for x in add):
            return "prev"
        if isinstance(add, tuple) and isinstance(mul, tuple) and len(mul) == 2 and all(
                isinstance(x, (int, float)) for x in (*add, *mul)) and list(mul) == [5.0, 2.0]:
            return "local"
        if callable(add) and (leaf is None or callable(leaf)):
            return "rule"
        try:
            if leaf == other and isinstance(add, str) and add != leaf and mul != leaf:
                return "op"
            if not (leaf == other == add == mul):
                return "missing"
        except Exception:
            return "missing"
        if leaf is other is add or isinstance(leaf, (str, int, float, bool, tuple, frozenset, type(None))):
            return "default"
        return "factory" if type(leaf) in (list, dict, set) and not leaf else "missing"

    # -- the parameters of its constructor --

    def look_at_parameters(self) -> None:
        """The role of each parameter of `__init__`: data, children, op, local, or the attribute that the parameter
        sets."""
        parameters = list(inspect.signature(self.members["__init__"]).parameters.values())[1:] \
            if isinstance(self.members.get("__init__"), types.FunctionType) else []
        if not parameters or parameters[0].kind not in (inspect.Parameter.POSITIONAL_ONLY,
                                                        inspect.Parameter.POSITIONAL_OR_KEYWORD):
            raise Unfit("its __init__ does not take a number first")
        self.parameters = parameters
        self.roles = {parameters[0].name: "data"}
        for k, parameter in enumerate(parameters[1:], 1):
            self.roles[parameter.name] = (None if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
                                          else self.role_of(parameter.name, k))
        for name in [role[1:] for role in self.roles.values() if role and role[1:] in self.defaults]:
            parameter = next(known for known, role in self.roles.items() if role == "." + name)
            with contextlib.suppress(Exception):
                left, right = (self.cls(x, *self.more, **{parameter: text}) for x, text in ((2.0, "p"), (3.0, "q")))
                if any(getattr(out, name) != self.defaults[name] for out in (left + right, left * right)):
                    self.computed[name] = self.defaults.pop(name)
        self.look_at_frozen()

    def look_at_frozen(self) -> None:
        """Whether `requires_grad` has flatgrad's meaning, or is an attribute that the class's rules do not read."""
        self.freezes = "requires_grad" in self.defaults
        if not self.freezes:
            return
        x, y = self.make(2.0), self.make(3.0)
        x.requires_grad = False
        backward(x * y, ())
        if number(x.grad) == 3.0 and number(y.grad) == 2.0:
            self.freezes = False
        elif number(x.grad) != 0.0 or number(y.grad) != 2.0 or self.defaults["requires_grad"] is not True:
            raise Unfit("its requires_grad is not what flatgrad's is")

    def role_of(self, name: Any, k: Any) -> Any:
        base = self.make(2.0)
        child = self.make(7.0)

        def made(value, **more):
            given = {parameter.name: value for parameter, value in zip(self.parameters[1:], self.more)}
            return self.cls(2.0, **{**given, **more, name: value})
        for value in ((child,), [child], {child}):
            with contextlib.suppress(Exception):
                out = made(value)
                if self.prev is not None and [*getattr(out, self.prev[0])] == [child]:
                    return "children"
        children = next((known for known, role in self.roles.items() if role == "children"), None)
        if self.local is not None and children is not None:
            with contextlib.suppress(Exception):
                if tuple(getattr(made((0.625,), **{children: (child,)}), self.local[0])) == (0.625,):
                    return "local"
        for value in ("zz", 0.625, True, False, print):
            with contextlib.suppress(Exception):
                out = made(value)
                became = [attribute for attribute in attributes(out)
                          if getattr(out, attribute) is value or getattr(out, attribute) == value == "zz"]
                became = [attribute for attribute in became if getattr(base, attribute, inspect) is not value]
                if len(became) == 1:
                    if self.op is not None and became[0] == self.op[0]:
                        return "op"
                    return f".{became[0]}"
        return None

    # -- its methods --

    def look_at_methods(self) -> None:
        for name, member in self.members.items():
            if name in LEFT or isinstance(member, (types.MemberDescriptorType, types.GetSetDescriptorType)):
                continue
            if name in OURS_ALREADY or name == "label":
                if isinstance(member, property):
                    self.check_property(name)
                elif isinstance(member, types.FunctionType) and name not in self.seen:
                    raise Unfit(f"its {name} is a method")
                continue
            if name not in NATIVE or not isinstance(member, types.FunctionType):
                self.extra[name] = member
            elif not self.like_ours(name, member):
                self.kept[name] = member
        for name in ("__add__", "__mul__"):
            if name in self.differs:
                raise Unfit(f"its {name} gives other numbers or gradients")
        if {"__add__", "__mul__"} <= self.kept.keys() and not self.by_node:
            raise Unfit("its + and * depend on more than their operands' data")

    def check_property(self, name: Any) -> None:
        setter = self.members[name].fset
        if name in ("data", "grad") and setter is not None and not decides(setter) and not foreign(
                setter, self.cls, self.stored | {"data", "grad"}, self.job):
            one = self.make(2.0)
            setattr(one, name, 4.5)
            if number(getattr(one, name)) == 4.5:
                return
        raise Unfit(f"its {name} is a property")

    def like_ours(self, name: Any, member: Any) -> Any:
        """Whether flatgrad's method may replace the class's method."""
        if name not in UNARY and name not in COMPARED and name not in CONVERTED and not is_binary(name):
            parameters = list(inspect.signature(member).parameters.values())[1:]
            if len(parameters) > 0 or name not in METHODS:
                return False  # numbers alone cannot show that they are equal
        known = self.of_the_graph() | ({self.op[0]} if self.op else set())
        if foreign(member, self.cls, known, self.job):
            self.not_run.add(name)
            return False
        graphs = graphs_of(name, constants(member)[:8])
        theirs = [outcome(graph, self.make) for graph in graphs]
        if all(isinstance(found, Raised) for found in theirs):
            # All calls failed, so the comparison shows nothing. A NameError may be gone when the method is used.
            return not any(isinstance(found.error, NameError) for found in theirs)
        if all(same(found, outcome(graph, Value)) for graph, found in zip(graphs, theirs)):
            if name not in COMPARED and name not in CONVERTED:
                graph = changed(*use_of(name))
                self.captures = self.captures or not same(outcome(graph, self.make), outcome(graph, Value))
            return not self.by_node or self.same_shape(name)
        if name not in CONVERTED:
            self.differs.append(name)
        if name not in COMPARED and name not in CONVERTED:
            for once, both in self.repeated(graphs, theirs):
                if isinstance(once, list) and isinstance(both, list) and len(once) == len(both) and not all(
                        equal(2 * x, y) for x, y in zip(once, both)):
                    raise Unfit(f"the gradients of its {name} do not add up where it is used twice")
        return False

    def of_the_graph(self) -> Any:
        """The attributes that have the same meaning in flatgrad's Value, or that cannot be read there."""
        return {"data", "grad", *self.aliases, *self.missing, *self.computed,
                *(kind[0] for kind in (self.prev, self.local, self.rule) if kind)}

    def repeated(self, graphs: Any, theirs: Any) -> Any:
        """The results of an operation by itself, and done twice with the same operands."""
        kinds = [graph.__qualname__.split(".")[0] for graph in graphs]
        return [(theirs[k], theirs[k + 2]) for k in range(len(kinds) - 2)
                if kinds[k:k + 3] == ["alone", "behind", "twice"]]

    def same_shape(self, name: Any) -> Any:
        """Whether flatgrad's operation makes the same nodes, with the same names and operands."""
        if self.prev is None or self.op is None:
            return True
        if name in COMPARED or name in CONVERTED:
            return True
        function, values = use_of(name)
        attribute, name_of = self.prev[0], self.op[0]

        def theirs(out):
            return (str(getattr(out, name_of)), *sorted(map(theirs, getattr(out, attribute) or ()), key=repr))

        def ours(out):
            operands = out._prev if isinstance(self.prev[1][2], (set, frozenset)) else out._children
            return (out._op, *sorted(map(ours, operands), key=repr))
        try:
            return theirs(function(*map(self.make, values))) == ours(function(*map(Value, values)))
        except Exception:
            return True

    # -- its backward pass --

    def look_at_backward(self) -> None:
        self.passes = [diamond(1), preset, diamond(2), diamond(3)]
        theirs = [outcome(graph, self.make) for graph in self.passes]
        if isinstance(theirs[0], Raised):
            raise Unfit(f"its backward() fails with {type(theirs[0].error).__name__}: {theirs[0].error}")
        one = self.make(2.0)
        returned = (one + one).backward()
        parameters = list(inspect.signature(self.cls.backward).parameters.values())[1:]
        self.backward = "theirs"
        self.compounds = False
        function = self.members["backward"]
        found = ["more"]
        if isinstance(function, types.FunctionType):
            found = foreign(function, self.cls, self.of_the_graph(), self.job)
            around = [name for name in found if name in function.__globals__ or hasattr(builtins, name) or " " in name]
            if around:
                raise Unfit(f"its backward uses more than the graph: {', '.join(around)}")
        if returned is None and not parameters and not found:
            for kind in (None, "all", "inner"):
                passes = backward_of(kind)
                if all(same(found, outcome(graph, functools.partial(WithPass, passes)))
                       for graph, found in zip(self.passes, theirs)):
                    self.backward = kind
                    break
        if self.backward != "theirs":
            for name in self.marks:
                self.defaults.pop(name, None)
                self.factories.pop(name, None)
                self.missing.append(name)
        if self.backward is None:
            # In micrograd, - and / are several nodes each; a second pass over them also compounds their gradients.
            self.compounds = not same(outcome(hidden_nodes, self.make), outcome(hidden_nodes, Value))

    # -- the result --

    def put_on(self) -> None:
        """Put the program's own attributes on Value, and compute all graphs again."""
        cls = self.cls
        if cls.__name__ != "Value":
            put_on("__name__", cls.__name__)
        for name, default in self.defaults.items():
            if name not in OURS_ALREADY and not (name == "label" and default == ""):
                declare(name, default=default)
        for name, factory in self.factories.items():
            declare(name, factory=factory)
        for name, known in self.aliases.items():
            put_on(name, property(operator.attrgetter(known), lambda v, x, known=known: setattr(v, known, x)))
        for name in self.missing:
            put_on(name, Missing(name))
        for name in self.computed:
            put_on(name, Missing(name))
        if "requires_grad" in self.defaults and not self.freezes:
            declare("_own_requires_grad", default=self.defaults["requires_grad"])
            put_on("requires_grad", property(lambda v: v._own_requires_grad,
                                             lambda v, x: setattr(v, "_own_requires_grad", x)))
        for name, member in {**self.extra, **self.kept}.items():
            put_on(name, member)
        if "__eq__" in self.extra or "__eq__" in self.kept:
            put_on("__hash__", self.members.get("__hash__") or NATIVE["__hash__"])
            if "__ne__" not in self.members:
                put_on("__ne__", differ)
        if self.prev is not None:
            self.put_prev(*self.prev)
        if self.op is not None:
            self.put_op(*self.op)
        if self.local is not None and self.local[0] != "_local_grads":
            put_on(self.local[0], property(lambda v: v._local_grads))
        if self.rule is not None and self.rule[0] != "_backward":
            put_on(self.rule[0], property(lambda v: v._backward, lambda v, rule: setattr(v, "_backward", rule)))
        if self.no_grad:
            put_on("grad", property(grad_or_none, set_grad_or_none))
        if self.backward == "theirs":
            put_on("backward", cls.backward)
        else:
            passes = backward_of(self.backward)
            if self.compounds and not self.by_node:
                passes = backward_once
            if self.captures:
                passes = backward_unchanged(passes)
            if self.no_grad:
                put_on("backward", backward_to_none(passes))
            elif passes is not native_backward:
                put_on("backward", passes)
        init = self.init()
        if init is not None:
            put_on("__init__", init)
        self.compare()

    def put_prev(self, name: Any, found: Any) -> None:
        kind, leaf = type(found[2]), found[0]
        if (name, kind) in (("_prev", set), ("_children", tuple)) and leaf is not None:
            return

        def get(v):
            operands = v._children if name != "_children" else NATIVE["_children"].__get__(v)
            return leaf if leaf is None and not operands else kind(operands)

        def set_(v, operands):
            grad = v.grad
            native_init(v, v.data, tuple(operands or ()), NATIVE["_op"].__get__(v))
            v.grad = grad
        put_on(name, property(get, set_))

    def put_op(self, name: Any, found: Any) -> None:
        ours = dict(zip(("", "+", "*"), (found[0], found[2], found[3])))
        a, b = self.make(0.7), self.make(1.9)
        for symbol, function in OPERATIONS.items():
            with contextlib.suppress(Exception):
                ours[symbol] = getattr(function(a, b), name)
        ours = {symbol: text for symbol, text in ours.items() if symbol != text}
        if name == "_op" and not ours:
            return
        native = NATIVE["_op"]
        put_on(name, property(lambda v: ours.get(native.__get__(v), native.__get__(v)),
                              lambda v, text: native.__set__(v, text)))

    def init(self) -> Any:
        """An `__init__` with the class's parameters; None if flatgrad's own has the same parameters."""
        order = [(parameter.name, self.roles[parameter.name]) for parameter in self.parameters]
        ours = [("data",), ("_children", "children"), ("_op", "local_grads"), ("label",)]
        roles = [("data",), ("children",), ("op", "local"), (".label",)]
        if len(order) <= 4 and all(name in names and role in expected
                                   for (name, role), names, expected in zip(order, ours, roles)) and all(
                parameter.kind == parameter.POSITIONAL_OR_KEYWORD for parameter in self.parameters) and (
                self.parameters[0].default is inspect.Parameter.empty) and not (
                len(order) > 3 and self.defaults.get("label", "") not in ("", None)) and (
                order[2:3] != [("local_grads", "op")]) and order[2:3] != [("_op", "local")] and not self.computed:
            return None
        return constructor(self)

    def compare(self) -> None:
        """Compute the graphs of the class again with its replacement, and compare."""
        make = Value if not self.more else lambda x: Value(x, *self.more)
        names = {name: step for name, step in STEPS.items()
                 if callable(getattr(self.cls, name, None)) and name not in self.not_run}
        graphs = [(name, graph) for name in self.members
                  if name in NATIVE and name not in LEFT and name not in OURS_ALREADY and name != "label"
                  and (name in METHODS or name in UNARY or name in COMPARED or name in CONVERTED or is_binary(name))
                  and (name in self.kept and name not in self.not_run or name in ("__add__", "__mul__"))
                  for graph in graphs_of(name)]
        graphs += [("backward", graph) for graph in self.passes]
        usable = {name: step for name, step in names.items()
                  if not isinstance(outcome(lambda make, step=step: backward(step(make(0.9), make(-1.3), 1.1), ()),
                                            self.make), Raised)}
        graphs += [("a program", graph) for graph in programs(usable)]
        state = State(self.cls, self.members)
        with quiet():
            try:
                theirs = [outcome(graph, self.make) for _, graph in graphs]
            finally:
                state.restore()
            with self.named():
                for (name, graph), found in zip(graphs, theirs):
                    ours = outcome(graph, make)
                    if not same(found, ours):
                        raise Unfit(f"{name} gives {told(found)} with it, and {told(ours)} with flatgrad's Value in "
                                    "its place")

    @contextlib.contextmanager
    def named(self):
        """A context in which its methods find flatgrad's Value under the name of the class."""
        spaces = [member.__globals__ for member in self.members.values() if isinstance(member, types.FunctionType)]
        spaces = [space for space in {id(space): space for space in spaces}.values()
                  if space.get(self.cls.__name__) is self.cls]
        for space in spaces:
            space[self.cls.__name__] = Value
        try:
            yield
        finally:
            for space in spaces:
                space[self.cls.__name__] = self.cls

    def told(self) -> Any:
        """The rest of the note about the replacement."""
        extra = [name for name in self.extra if not (name.startswith("__") and name.endswith("__"))]
        own = [*extra, *(name for name in self.extra if name not in extra), *self.kept,
               *(["backward"] if self.backward == "theirs" else [])]
        text = f", with its own {', '.join(own)}" if own else ""
        if self.differs:
            text += f" ({', '.join(self.differs)}: other numbers or gradients than flatgrad's)"
        if self.missing or self.computed:
            text += f", without {', '.join([*self.missing, *(f'{name} of results' for name in self.computed)])}"
        return text


def converts(make: Any, data: Any, kind: Any) -> Any:
    """Whether a class converts such data to a type other than these."""
    try:
        return not isinstance(make(data).data, kind)
    except Exception:
        return False


def attributes(out: Any) -> Any:
    """The names of an object's attributes."""
    slots = [name for base in type(out).__mro__ for name in
             ([base.__slots__] if isinstance(vars(base).get("__slots__"), str) else vars(base).get("__slots__", ()))]
    return [*getattr(out, "__dict__", ()), *(name for name in slots if name not in ("__dict__", "__weakref__"))]


# ---- state that must not change ----

class State:
    """Numbers and containers of the class and its modules, and random states; making Values may change them."""

    random: Any
    kept: Any

    def __init__(self, cls: Any, members: Any) -> None:
        modules = {id(member.__globals__): member.__globals__ for member in members.values()
                   if isinstance(member, types.FunctionType)}
        self.random = random.getstate(), "numpy" in sys.modules and sys.modules["numpy"].random.get_state()
        self.kept = [(functools.partial(setattr, cls) if space is not modules.get(id(space)) else space.__setitem__,
                      space, name, x, content(x))
                     for space in (vars(cls), *modules.values()) for name, x in space.items()
                     if not name.startswith("__") and (isinstance(x, (int, float, list, dict, set))
                                                       or type(x) is itertools.count)]

    def restore(self) -> Any:
        """Restore what has changed, and return the name of a change that matters."""
        random.setstate(self.random[0])
        if self.random[1]:
            sys.modules["numpy"].random.set_state(self.random[1])
        matters = None
        for put_back, space, name, x, before in self.kept:
            if space.get(name) is x and (isinstance(x, (int, float)) or content(x) == before):
                continue
            if type(x) is itertools.count:
                x = itertools.count(*before)
            else:
                matters = name
                if isinstance(x, list):
                    x[:] = before
                elif isinstance(x, (dict, set)):
                    x.clear()
                    x.update(before)
            put_back(name, x)
        return matters


def content(x: Any) -> Any:
    """The content of an object, if it can be compared and restored; for itertools.count the next number and the
    step."""
    if type(x) is itertools.count:
        text = repr(x)[6:-1].split(", ")
        return [int(part) for part in text] if all(part.lstrip("-").isdigit() for part in text) else [0]
    return IdentityList(x) if isinstance(x, list) else x.copy() if isinstance(x, (dict, set)) else x


class IdentityList(list[object]):
    """A list that equals a list of the very same objects."""

    __hash__ = None

    def __eq__(self, other: Any) -> bool:
        return len(self) == len(other) and all(map(operator.is_, self, other))


@contextlib.contextmanager
def quiet():
    """A context without output and warnings."""
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def limited(seconds):
    """A context that raises TimeUp after some seconds, on systems with such a signal."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number, frame):
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
