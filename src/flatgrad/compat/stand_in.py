"""flatgrad's Value in the place of a program's own class: with all that is the program's, and the same numbers.

`replace` is called right after the class has been made. It computes small graphs with the class, and the same with
flatgrad's Value. Operators and methods that give the same numbers and gradients are flatgrad's from then on; those that
do not stay the program's, and so does all that flatgrad's Value does not have: it is put on Value itself, which has to
be the class that operations return. Then all the graphs are computed again: either every number is as it was, or Value
is given back what it had, and the class is not replaced.
"""
import contextlib
import functools
import inspect
import io
import itertools
import math
import operator
import random
import re
import types
import warnings

from flatgrad import _core
from flatgrad._core import Value
from flatgrad.compat import common, source
from flatgrad.compat.common import Stop, note, place

__all__ = ["replace"]

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
native_init = Value.__init__
native_backward = Value.backward
native_grad = Value.grad
NATIVE = dict(vars(Value))

replaced = {}  # by file: the Job


class Unfit(Exception):
    """Why flatgrad's Value cannot stand in for a class: the rest of a sentence that begins with the class."""


def replace(cls, call, path, draft):
    """What the name of a class is to mean: called by the program, after the class.

    Parameters
    ----------
    cls : type
        The class as it was written.
    call : int
        Which `source.Job` it belongs to.
    path : str
        The file.
    draft : bool
        Whether the class is defined once more later.

    Returns
    -------
    type
        flatgrad's Value, or `cls` if the class has to stay.

    Raises
    ------
    common.Stop
        If it has to stay and the job says that then the run is to end.
    """
    job = source.jobs[call]
    try:
        elsewhere = [other for other in replaced if other != path]
        if elsewhere:
            raise Unfit(f"the class in {place(elsewhere[0])} has been replaced already; name one of them, such as "
                        f"MODULE.{cls.__name__}")
        take_off()  # a notebook may define its class again
        study = Study(cls, job)
        study.put_on()
    except Unfit as reason:
        take_off()
        job.give_up(path, str(reason), draft)
        return cls
    replaced[path] = job
    job.done.append(path)
    note(f"class {cls.__name__} of {place(path)} is flatgrad's now{study.told()}{job.rest}")
    return Value


# ---- what is put on Value ----

put = {}  # the names that have been put on Value


def put_on(name, member):
    put.setdefault(name, None)
    setattr(Value, name, member)


def take_off():
    """Give Value back what it had."""
    for name in put:
        if name in NATIVE:
            setattr(Value, name, NATIVE[name])
        elif name in vars(Value):
            delattr(Value, name)
    put.clear()


# ---- small graphs ----

class Raised:
    """What a graph came to that ended in an exception."""

    def __init__(self, error):
        self.error = error


def number(x):
    """A datum or gradient as a float; None counts as 0."""
    if x is None:
        return 0.0
    if isinstance(x, complex):
        raise ArithmeticError("complex")  # as flatgrad's Value has it
    if not hasattr(x, "__float__") or type(x).__name__ in ("ndarray", "Tensor"):
        raise Unfit(f"its numbers are of type {type(x).__name__}")
    return float(x)


def outcome(graph, make):
    """What a graph gives whose leaves `make` makes: numbers and texts, or Raised."""
    try:
        return graph(make)
    except (Unfit, KeyboardInterrupt):
        raise
    except Exception as error:
        return Raised(error)


def same(theirs, ours):
    """Whether the program would see the same. What fails with its own class may do better."""
    if isinstance(theirs, Raised):
        return True
    if isinstance(ours, Raised):
        return False
    return len(theirs) == len(ours) and all(map(equal, theirs, ours))


def equal(x, y):
    if isinstance(x, str) and isinstance(y, str):  # the numbers of a text may be an int here and a float there
        return NUMBER.sub("#", x) == NUMBER.sub("#", y) and all(
            map(equal, map(float, NUMBER.findall(x)), map(float, NUMBER.findall(y))))
    if isinstance(x, float) and isinstance(y, float):
        return x == y or x != x and y != y or abs(x - y) <= 1e-12 + 1e-9 * max(abs(x), abs(y))
    return x == y


def backward(out, leaves):
    """The number of `out`, and the gradients after a backward pass from it."""
    data = number(out.data)
    out.backward()
    return [data, *(number(leaf.grad) for leaf in leaves)]


def alone(function, numbers):
    """The graph of one operation."""
    def graph(make):
        leaves = [make(x) for x in numbers]
        return backward(function(*leaves), leaves)
    return graph


def behind(function, numbers):
    """The operation, and one after it: its rule has another gradient than 1 to start from."""
    def graph(make):
        leaves = [make(x) for x in numbers]
        return backward(function(*leaves) * make(3.0), leaves)
    return graph


def changed(function, numbers):
    """The operation, whose operands get other data before the backward pass."""
    def graph(make):
        leaves = [make(x) for x in numbers]
        out = function(*leaves)
        for leaf in leaves:
            leaf.data = number(leaf.data) + 0.5
        return backward(out, leaves)
    return graph


def twice(function, numbers):
    """The operation done twice with the same operands, whose gradients add up."""
    def graph(make):
        leaves = [make(x) for x in numbers]
        return backward(function(*leaves) + function(*leaves), leaves)
    return graph


def result(function, numbers):
    """What is no Value: the text of what the function returns."""
    def graph(make):
        found = function(*[make(x) for x in numbers])
        return [number(found.data)] if hasattr(found, "data") else [found if type(found) is float else repr(found)]
    return graph


PAIRS = [(2.0, -3.0), (-0.7, 0.5), (25.0, 1e-6), (0.0, 1.5), (1.5, 0.0), (1.0, 1.0)]
POWERS = [(2.0, 3), (-0.7, 2), (0.5, -1), (1e-6, 0.5), (25.0, -0.5), (3.0, 2.5), (0.0, 2), (0.0, 1), (-2.0, 3.0),
          (1.5, 1), (1.5, 0)]
NUMBERS = [0.7, -0.6, 0.0, 2.0, -3.0, 1e-6, 1e-12, 30.0, -30.0, 700.0, -700.0, 1.0, 5.5, -5.5, 11.0, -11.0, 17.0, -17.0,
           60.0, -60.0, 130.0, -130.0]

BINARY = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv,
          "pow": operator.pow}
UNARY = {"__neg__": operator.neg, "__pos__": operator.pos, "__abs__": abs}
COMPARED = {"__lt__": operator.lt, "__le__": operator.le, "__gt__": operator.gt, "__ge__": operator.ge}
CONVERTED = {"__float__": float, "__int__": int, "__round__": round, "__trunc__": math.trunc, "__repr__": repr,
             "__str__": str, "item": lambda v: v.item()}


def uses(function, samples):
    """The three graphs with an operation, for each sample of numbers."""
    return [kind(function, numbers) for numbers in samples for kind in (alone, behind, twice)]


def with_number(function, y, reflected=False):
    """The operation with a number on one side."""
    return (lambda a: function(y, a)) if reflected else (lambda a: function(a, y))


def graphs_of(name):
    """The graphs that show what a method or operator of that name does."""
    word = name.strip("_")
    if name in UNARY:
        return uses(UNARY[name], [(x,) for x in NUMBERS])
    if name in COMPARED:
        return ([result(COMPARED[name], pair) for pair in PAIRS]
                + [result(with_number(COMPARED[name], y), (x,)) for x, y in PAIRS])
    if name in CONVERTED:
        return [result(CONVERTED[name], (x,)) for x in NUMBERS[:9]]
    if word in BINARY and name == f"__{word}__":
        samples = POWERS if word == "pow" else PAIRS
        found = [graph for x, y in samples for graph in uses(with_number(BINARY[word], y), [(x,)])]
        return found + uses(BINARY[word], samples) + [alone(lambda a: BINARY[word](a, a), (x,)) for x, _ in PAIRS]
    if word[:1] == "r" and word[1:] in BINARY and name == f"__{word}__":
        return [graph for x, y in PAIRS for graph in uses(with_number(BINARY[word[1:]], x, True), [(y,)])]
    return uses(operator.methodcaller(name), [(x,) for x in NUMBERS])


def programs(names):
    """Graphs of some fifteen of these operators each, with values that are used again and again."""
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


STEPS = {"__add__": lambda a, b, x: a + b, "__mul__": lambda a, b, x: a * b * x, "__sub__": lambda a, b, x: a - b,
         "__neg__": lambda a, b, x: -a, "__truediv__": lambda a, b, x: a / (b * b + 1.0),
         "__pow__": lambda a, b, x: (a * 0.1) ** 2, "__radd__": lambda a, b, x: x + a,
         "__rmul__": lambda a, b, x: x * a, "__rsub__": lambda a, b, x: x - a,
         "relu": lambda a, b, x: a.relu(), "tanh": lambda a, b, x: a.tanh(), "sigmoid": lambda a, b, x: a.sigmoid(),
         "exp": lambda a, b, x: (a * 0.01).exp(), "log": lambda a, b, x: (a * a + 1.0).log()}


def diamond(calls):
    """Graphs whose backward pass is run several times."""
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


def hidden_nodes(make):
    """Two passes over a graph with operations that a class may make of others."""
    a, b = make(2.0), make(-3.0)
    c = (a - b) * a
    d = -c
    backward(d, ())
    return backward(d, (a, b))


def preset(make):
    """A pass over gradients that are there already."""
    a, b = make(2.0), make(-3.0)
    c = a * b
    d = c + a
    a.grad, c.grad, d.grad = 0.5, 0.25, 4.0
    return backward(d, (a, b, c, d))


# ---- a class ----

FORBIDDEN = ("__new__", "__setattr__", "__getattribute__", "__del__", "__delattr__")
LEFT = {"__module__", "__dict__", "__weakref__", "__doc__", "__slots__", "__qualname__", "__annotations__", "__init__",
        "__init_subclass__", "__static_attributes__", "__firstlineno__", "__match_args__", "__dataclass_fields__",
        "__dataclass_params__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__replace__", "__hash__",
        "__getstate__", "backward"}
OURS_ALREADY = ("data", "grad", "_prev", "_children", "_local_grads", "_op", "_backward", "requires_grad")


class Study:
    """What a class does, and what of it flatgrad's Value needs to do the same.

    Raises `Unfit` if that cannot be had.
    """

    def __init__(self, cls, job):
        self.cls, self.job = cls, job
        self.members = {name: member for base in reversed(cls.__mro__[:-1]) for name, member in vars(base).items()}
        for name in FORBIDDEN:
            if name in self.members:
                raise Unfit(f"it defines {name}")
        self.kept, self.extra, self.missing, self.differs, self.captures = {}, {}, [], [], False
        state = State(cls, self.members)
        with quiet() as printed:
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
        if printed.getvalue():
            raise Unfit("it prints when Values are made or used")

    # -- how one is made --

    def look_at_construction(self):
        for more in ((), ((),), ((), "")):
            try:
                one = self.cls(2.0, *more)
                break
            except Exception as error:
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

    # -- what it has --

    def look_at_attributes(self):
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
        self.defaults, self.factories, self.computed, self.aliases = {}, {}, {}, {}
        kinds = {name: ([getattr(out, name, inspect) for out in probes], None) for name in names  # a module is nobody's
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
                elif now != found:  # its backward pass uses it
                    kinds[name] = found, "missing"
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
                self.computed[name] = found[0]  # the operators make it
            elif kind in ("data", "grad"):
                self.aliases[name] = kind
            else:
                self.missing.append(name)
        # Who reads the graph is to read the class's own, node for node.
        self.by_node = self.job.scalar_graph or any(kind is not None and kind[0] in self.job.read
                                                    for kind in (self.prev, self.op))
        if self.prev is not None and self.prev[0] in self.job.written:
            raise Unfit(f"the program sets {self.prev[0]}")
        for name in (*self.missing, *self.computed, *self.factories):
            if name in OURS_ALREADY:
                raise Unfit(f"its {name} is not what flatgrad's is")

    def kind_of(self, found, a, b):
        """What an attribute is, by its values for two leaves, a sum and a product."""
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

    # -- what it can be made with --

    def look_at_parameters(self):
        """The role of each parameter of `__init__`: data, children, op, local, or the attribute that it becomes."""
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

    def look_at_frozen(self):
        """Whether `requires_grad` is flatgrad's, or an attribute that its rules do not look at."""
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

    def role_of(self, name, k):
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

    # -- what it does --

    def look_at_methods(self):
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

    def check_property(self, name):
        if name in ("data", "grad"):
            one = self.make(2.0)
            setattr(one, name, 4.5)
            if number(getattr(one, name)) == 4.5:
                return
        raise Unfit(f"its {name} is a property")

    def like_ours(self, name, member):
        """Whether flatgrad's method may take the place of the class's."""
        if name not in UNARY and name not in COMPARED and name not in CONVERTED and not is_binary(name):
            parameters = list(inspect.signature(member).parameters.values())[1:]
            if len(parameters) > 0 or name not in METHODS:
                return False  # not to be compared by numbers alone
        graphs = graphs_of(name)
        theirs = [outcome(graph, self.make) for graph in graphs]
        if all(isinstance(found, Raised) for found in theirs):
            # Nothing is known of it. What it fails with may be over when it is used.
            return not any(isinstance(found.error, NameError) for found in theirs)
        if all(same(found, outcome(graph, Value)) for graph, found in zip(graphs, theirs)):
            if name not in COMPARED and name not in CONVERTED:
                graph = changed(*use_of(name))
                self.captures = self.captures or not same(outcome(graph, self.make), outcome(graph, Value))
                self.check_constant(name, member)
            return not self.by_node or self.same_shape(name)
        if name not in CONVERTED:
            self.differs.append(name)
        if name not in COMPARED and name not in CONVERTED:
            for once, both in self.repeated(graphs, theirs):
                if isinstance(once, list) and isinstance(both, list) and len(once) == len(both) and not all(
                        equal(2 * x, y) for x, y in zip(once, both)):
                    raise Unfit(f"the gradients of its {name} do not add up where it is used twice")
        return False

    def check_constant(self, name, member):
        """That the method reads no variable of the class or its module which the program writes: what it does then
        depends on more than its operands."""
        code = member.__code__
        codes = [code, *(part for part in code.co_consts if isinstance(part, types.CodeType))]
        words = {word for part in codes for word in part.co_names} - self.seen - {*OURS_ALREADY, "label", self.cls.__name__}
        for word in sorted(words & self.job.written):
            if callable(self.members.get(word)):
                continue  # a method, or a function of math that is called as it is
            raise Unfit(f"its {name} reads {word}, which the program changes")

    def repeated(self, graphs, theirs):
        """What an operation gave alone, and done twice with the same operands."""
        kinds = [graph.__qualname__.split(".")[0] for graph in graphs]
        return [(theirs[k], theirs[k + 2]) for k in range(len(kinds) - 2)
                if kinds[k:k + 3] == ["alone", "behind", "twice"]]

    def same_shape(self, name):
        """Whether flatgrad's operation makes the same nodes, by names and operands."""
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

    def look_at_backward(self):
        self.passes = [diamond(1), preset, diamond(2), diamond(3)]
        theirs = [outcome(graph, self.make) for graph in self.passes]
        if isinstance(theirs[0], Raised):
            raise Unfit(f"its backward() fails with {type(theirs[0].error).__name__}: {theirs[0].error}")
        one = self.make(2.0)
        returned = (one + one).backward()
        parameters = list(inspect.signature(self.cls.backward).parameters.values())[1:]
        self.backward = "theirs"
        self.compounds = False
        if returned is None and not parameters:
            for kind in (None, "all", "inner"):
                passes = backward_of(kind)
                if all(same(found, outcome(graph, functools.partial(WithPass, passes)))
                       for graph, found in zip(self.passes, theirs)):
                    self.backward = kind
                    break
        if self.backward is None:
            # micrograd's - and / are several nodes each, whose gradients a second pass over them compounds too.
            again = hidden_nodes
            self.compounds = not same(outcome(again, self.make), outcome(again, Value))
        if self.backward != "theirs":
            self.check_constant("backward", self.cls.backward)

    # -- the result --

    def put_on(self):
        """Put what is the program's on Value, and compute all graphs again."""
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

    def put_prev(self, name, found):
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

    def put_op(self, name, found):
        ours = dict(zip(("", "+", "*"), (found[0], found[2], found[3])))
        a, b = self.make(0.7), self.make(1.9)
        for symbol, function in SYMBOLS.items():
            with contextlib.suppress(Exception):
                ours[symbol] = getattr(function(a, b), name)
        ours = {symbol: text for symbol, text in ours.items() if symbol != text}
        if name == "_op" and not ours:
            return
        native = NATIVE["_op"]
        put_on(name, property(lambda v: ours.get(native.__get__(v), native.__get__(v)),
                              lambda v, text: native.__set__(v, text)))

    def init(self):
        """An `__init__` with the class's parameters; None if flatgrad's own does."""
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

    def compare(self):
        """All graphs that the class computed, computed by its stand-in."""
        make = Value if not self.more else lambda x: Value(x, *self.more)
        names = {name: step for name, step in STEPS.items() if callable(getattr(self.cls, name, None))}
        graphs = [(name, graph) for name in self.members
                  if name in NATIVE and name not in LEFT and name not in OURS_ALREADY and name != "label"
                  and (name in METHODS or name in UNARY or name in COMPARED or name in CONVERTED or is_binary(name))
                  and (name in self.kept or name in ("__add__", "__mul__")) for graph in graphs_of(name)]
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
                        raise Unfit(f"{name} gives {told(found)} with it, and {told(ours)} with flatgrad's Value in its "
                                    "place")

    @contextlib.contextmanager
    def named(self):
        """While its methods find flatgrad's Value under the name of the class."""
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

    def told(self):
        """The rest of the line that tells what has been done."""
        extra = [name for name in self.extra if not (name.startswith("__") and name.endswith("__"))]
        own = [*extra, *(name for name in self.extra if name not in extra), *self.kept,
               *(["backward"] if self.backward == "theirs" else [])]
        text = f", with its own {', '.join(own)}" if own else ""
        if self.differs:
            text += f" ({', '.join(self.differs)}: other numbers or gradients than flatgrad's)"
        if self.missing or self.computed:
            text += f", without {', '.join([*self.missing, *(f'{name} of results' for name in self.computed)])}"
        return text


METHODS = {name for name, member in NATIVE.items() if type(member).__name__ == "method_descriptor"
           and any(row["name"] == name and row["public"] and row["arity"] == 1 for row in _core._operations())}
SYMBOLS = {"-": lambda a, b: a - b, "/": lambda a, b: a / b, "neg": lambda a, b: -a, "ReLU": lambda a, b: a.relu(),
           "**2": lambda a, b: a ** 2, "**3": lambda a, b: a ** 3,
           **{row["symbol"]: operator.methodcaller(row["name"]) for row in _core._operations()
              if row["public"] and row["arity"] == 1}}


def use_of(name):
    """A use of an operator or method: a function of Values, and numbers for them."""
    word = name.strip("_")
    if name in UNARY:
        return UNARY[name], (0.7,)
    if is_binary(name) and word in BINARY:
        return (lambda a: a ** 3, (0.7,)) if word == "pow" else (BINARY[word], (0.7, 1.9))
    if is_binary(name):
        return with_number(BINARY[word[1:]], 2.5, True), (0.7,)
    return operator.methodcaller(name), (0.7,)


def is_binary(name):
    word = name.strip("_")
    return name == f"__{word}__" and (word in BINARY or word[:1] == "r" and word[1:] in BINARY)


def converts(make, data, kind):
    """Whether a class makes of such data something that is of none of these kinds."""
    try:
        return not isinstance(make(data).data, kind)
    except Exception:
        return False


def attributes(out):
    """The names of an object's attributes."""
    slots = [name for base in type(out).__mro__ for name in
             ([base.__slots__] if isinstance(vars(base).get("__slots__"), str) else vars(base).get("__slots__", ()))]
    return [*getattr(out, "__dict__", ()), *(name for name in slots if name not in ("__dict__", "__weakref__"))]


def differ(self, other):
    """What Python makes of a class's own `__eq__`."""
    answer = self.__eq__(other)
    return answer if answer is NotImplemented else not answer


def declare(name, **what):
    if name in NATIVE and name != "label":
        raise Unfit(f"its attribute {name} has the name of something else of flatgrad's Value")
    put.setdefault(name, None)
    _core._declare(name, **what)


def told(found):
    if isinstance(found, Raised):
        return f"{type(found.error).__name__}: {found.error}"
    return ", ".join([f"{x:.6g}" if isinstance(x, float) else str(x) for x in found[:4]])


# ---- backward passes that set gradients to 0 first ----

def backward_of(kind):
    """flatgrad's backward pass, before which gradients become 0: of `all` that it reaches, or of the `inner` nodes."""
    if kind is None:
        return native_backward

    def backward(self):
        _core._clear_gradients(self, kind == "all")
        native_backward(self)
    return backward


def backward_once(self):
    """flatgrad's backward pass, if it is the first over the nodes that stand for several of the class's own."""
    if _core._second_pass(self):
        stop("a second backward pass over a graph with - or /, which flatgrad has as one node each: the program's own "
             "class adds up gradients in more nodes; --scalar-graph has them too")
    native_backward(self)


def backward_unchanged(passes):
    """A backward pass for a class whose rules use the data that operands had when the operation was done."""
    def backward(self):
        if _core._changed_since(self):
            stop("data was changed between an operation and the backward pass through it: flatgrad's gradients are those at "
                 "the new data, and those of the program's own class at the old")
        passes(self)
    return backward


def stop(reason):
    raise Stop(reason) if common.speaker == "flatgrad run" else RuntimeError(reason)


# ---- gradients that are None until a pass reaches them: 0.0, and those of 0 that one has reached are -0.0 ----

def grad_or_none(v):
    x = native_grad.__get__(v)
    return x if x else None if math.copysign(1.0, x) > 0 else 0.0


def set_grad_or_none(v, x):
    native_grad.__set__(v, 0.0 if x is None else x if x else -0.0)


def backward_to_none(passes):
    def backward(self):
        passes(self)
        _core._sign_zeros(self)
    return backward


class WithPass:
    """A Value with another backward pass, to try that."""

    def __init__(self, passes, x):
        self.passes, self.value = passes, x if isinstance(x, Value) else Value(x)

    def wrap(self, other, function):
        return WithPass(self.passes, function(self.value, other.value))

    def __add__(self, other):
        return self.wrap(other, operator.add)

    def __mul__(self, other):
        return self.wrap(other, operator.mul)

    def backward(self):
        self.passes(self.value)

    @property
    def data(self):
        return self.value.data

    @property
    def grad(self):
        return self.value.grad

    @grad.setter
    def grad(self, x):
        self.value.grad = x


class Missing:
    """An attribute that the class's own operators and constructor compute, and flatgrad's do not; it may be set."""

    def __init__(self, name):
        self.name, self.own = name, f"_own_{name}"
        _core._declare(self.own)

    def __get__(self, v, owner):
        if v is None:
            return self
        try:
            return getattr(v, self.own)
        except AttributeError:  # which hasattr and the like would take for an answer
            stop(f"{self.name} of a Value was read: it is made by the program's own class, and this Value is by flatgrad, "
                 "in its place; run the program without the class being replaced")

    def __set__(self, v, x):
        setattr(v, self.own, x)


# ---- its constructor ----

def constructor(study):
    """An `__init__` with the parameters of the class's own, each put where that puts it."""
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


def refuse(name):
    raise TypeError(f"{name}: flatgrad's Value, in the place of the program's own class, does not know what to do with "
                    "this argument; run the program without it being replaced")


# ---- what must be as it was ----

class State:
    """Numbers and containers of the class and its modules, which making Values may change."""

    def __init__(self, cls, members):
        spaces = {id(member.__globals__): member.__globals__ for member in members.values()
                  if isinstance(member, types.FunctionType)}
        self.cls, self.spaces, self.random = cls, list(spaces.values()), random.getstate()
        self.kept = [(space, name, x, content(x)) for space in (vars(cls), *self.spaces) for name, x in space.items()
                     if not name.startswith("__") and (isinstance(x, (int, float, list, dict, set))
                                                       or type(x) is itertools.count)]

    def restore(self):
        """Put back what has changed; the name of one that matters."""
        changed = None
        random.setstate(self.random)
        for space, name, x, before in self.kept:
            now = space.get(name)
            if now is x and content(x) == before:
                continue
            if type(x) is itertools.count:
                x = itertools.count(*before)
            else:
                changed = name
                if isinstance(x, list):
                    x[:] = before
                elif isinstance(x, (dict, set)):
                    x.clear()
                    x.update(before)
            if space is self.spaces or isinstance(space, dict):
                space[name] = x
            else:
                setattr(self.cls, name, x)
        return changed


def content(x):
    """What there is in it, as far as that can be compared and put back; a count's next number and step."""
    if type(x) is itertools.count:
        text = repr(x)[6:-1].split(", ")
        return [int(part) for part in text] if all(part.lstrip("-").isdigit() for part in text) else [0]
    return IdentityList(x) if isinstance(x, list) else x.copy() if isinstance(x, (dict, set)) else x


class IdentityList(list):
    """A list that equals one of the very same objects."""

    __hash__ = None

    def __eq__(self, other):
        return len(self) == len(other) and all(map(operator.is_, self, other))


@contextlib.contextmanager
def quiet():
    """Nothing printed, nothing warned of."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield printed
