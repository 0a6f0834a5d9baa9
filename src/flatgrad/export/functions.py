"""Compiled functions as functions of arrays of another package: what `to_jax` and `to_torch` return."""
from __future__ import annotations

import numbers
from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import _LEAVES, Tensor, Value, _Keywords, _Same, _Static
from flatgrad.arguments import is_bool, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from flatgrad.export.arrays import Plan, vector
from flatgrad.export.exported import Exported
from flatgrad.export.listing import listing
from flatgrad.signatures import parameters_of
from flatgrad.structures import map_leaves, opened, raised

if TYPE_CHECKING:
    from typing import Any, NoReturn

    from flatgrad.program import Compiled
    from numpy.typing import NDArray

__all__ = ["ArrayFunction"]

NUMBER, VALUE, FROZEN, TENSOR, ARRAY = _LEAVES
NOT_GIVEN = object()


class ArrayFunction:
    """A compiled function of flat parameters and its arguments, over arrays of another package.

    Parameters
    ----------
    compiled : Compiled
    arguments : tuple, optional
        Arguments that it takes, of which the structure counts. None: those of its last program.

    Attributes
    ----------
    what : str
        The method that has made it.
    parameters : ndarray of float64
        What the function has captured and takes gradients, as it was when the export was made.
    names : list of str
        Of each parameter.
    arguments : list of str
        The names of arguments that are not static.
    dtype : str
        "float64" or "float32".
    """

    parameters: NDArray[np.float64]

    __name__: Any
    arguments: tuple[Any, ...] | None
    dtype: Any
    shapes: Any
    template: Any
    places: Any
    by_keyword: Any
    plan: Any
    names: Any
    expected: Any
    keywords: Any

    what = None

    def __init__(self, compiled: Compiled[Any], arguments: tuple[Any, ...] | None = None) -> None:
        exported = Exported(compiled, arguments, self.what)
        self.__name__ = self.__qualname__ = exported.name
        self.parameters, self.names = exported.parameters, exported.names
        self.arguments = [argument.name for argument in exported.arguments]
        self.dtype = compiled.dtype
        self.shapes = [shape for shape, _ in exported.results]
        self.template = map_leaves(lambda name, x: Place(x.number) if type(x).__name__ == "_Hole" else x,
                                   exported.template)
        self.expected, self.keywords = expected_of(exported.program.structure)
        parameters = (parameters_of(compiled.fn) or {}).values()
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self.places = {p.name: k for k, p in enumerate(positional) if p.kind is p.POSITIONAL_OR_KEYWORD}
        self.by_keyword = {k: name for name, k in self.places.items()}
        frozen = [flags for tree in (*self.expected, *self.keywords.values()) if (flags := tree.frozen())]
        objects = [range(a.first, a.first + a.count) for a in exported.arguments] + [exported.slots]
        sizes = [int(np.prod(shape, dtype=int)) for shape in self.shapes]
        self.plan = Plan(listing(exported.callee), objects, exported.constants, [*frozen, False], sizes,
                         name=f"{self.what}: {self.__name__}")

    def engine(self, parameters: Any) -> NoReturn:
        """The Engine for such parameters."""
        raise NotImplementedError

    def __call__(self, parameters: Any = NOT_GIVEN, /, *args: Any, **kwargs: Any) -> Any:
        if parameters is NOT_GIVEN:
            raise ArgumentError(f"{self.__name__}: expected an array of shape ({len(self.parameters)},) by position, "
                                "the parameters, and then the arguments that it was exported for, got no parameters")
        engine = self.engine(parameters)
        results = self.plan.call(engine, self.operands(engine, parameters, args, kwargs))
        results = [x.reshape(shape) for x, shape in zip(results, self.shapes)]
        return raised(map_leaves(lambda name, x: results[x.number] if type(x) is Place else x, self.template))

    def operands(self, engine: Any, parameters: Any, args: Any, kwargs: Any) -> Any:
        """The arrays that the plan takes."""
        name = self.__name__
        size = len(self.parameters)
        flat = leaf("parameters", parameters, None, engine)
        if tuple(flat.shape) != (size,):
            raise ShapeError(f"{name}: parameters: expected an array of shape ({size},), got one of shape "
                             f"{tuple(flat.shape)}")
        values = self.values(args, kwargs)
        if values.keys() != {*range(len(self.expected)), *self.keywords}:
            expected = [f"{len(self.expected)} by position", *self.keywords]
            got = [f"{len(args)} by position", *kwargs]
            raise ArgumentError(f"{name}: expected parameters and the arguments that it was exported for, "
                                f"{', '.join(expected)}, got {', '.join(got)}")
        found = []
        for place, tree in [*enumerate(self.expected), *self.keywords.items()]:
            pieces = []
            label = f"argument {place}" if type(place) is int else place
            tree.collect(f"{name}: {label}", values[place], pieces, engine)
            if pieces:
                whole = pieces[0] if len(pieces) == 1 else engine.joined(pieces)
                found.append(whole.reshape(vector(whole.shape[0])))
        return [*found, flat.reshape(vector(size))]

    def values(self, args: Any, kwargs: Any) -> Any:
        """The arguments by the place where the program has them, a position or a keyword, as Python binds them."""
        values, count = {}, len(self.expected)
        for k, x in enumerate(args):
            values[k if k < count else self.by_keyword.get(k, k)] = x
        for key, x in kwargs.items():
            place = self.places.get(key, count)
            place = place if place < count else key
            if place in values:
                raise ArgumentError(f"{self.__name__}: expected each argument once, got {key} by position and "
                                    "by keyword")
            values[place] = x
        return values

    def __repr__(self) -> str:
        count = len(self.parameters)
        return f"<{self.what} of {self.__name__}: {count} parameter{'s' * (count != 1)}>"


class Place:
    """Where a result goes in the structure."""

    def __init__(self, number: Any) -> None:
        self.number = number


# ---- what arguments have to be like ----

class Number:
    """A number or an array.

    Attributes
    ----------
    shape : tuple of int
    is_frozen : bool
        Whether it takes no gradient in the program.
    """

    shape: Any

    is_frozen: Any

    def __init__(self, shape: Any, is_frozen: bool = False) -> None:
        self.shape, self.is_frozen = shape, is_frozen

    def frozen(self) -> Any:
        """For each number, whether it takes no gradient in the program."""
        return [self.is_frozen] * int(np.prod(self.shape, dtype=int))

    def collect(self, name: Any, x: Any, pieces: Any, engine: Any) -> None:
        """Append the numbers of an argument, as vectors."""
        x = leaf(name, x, self.shape, engine)
        if tuple(x.shape) != self.shape:
            expected = "a number" if self.shape == () else f"an array of shape {self.shape}"
            raise ShapeError(f"{name}: expected {expected}, got an array of shape {tuple(x.shape)}")
        pieces.append(x.reshape(-1))


class Fixed:
    """A static argument."""

    part: Any

    shape = None

    def __init__(self, part: Any) -> None:
        self.part = tuple([x.x if type(x) is _Same else x for x in part[1:]])

    def frozen(self) -> Any:
        return []

    def collect(self, name: Any, x: Any, pieces: Any, engine: Any) -> None:
        if not is_the_same(self.part, x):
            raise ArgumentError(f"{name}: expected the static argument that it was exported for, "
                                f"{shortened(static_value(self.part))}, got {shortened(x)}")


class Several:
    """A list or a tuple.

    Attributes
    ----------
    parts : list
    shape : tuple of int or None
        Of an array that may stand in its place.
    """

    kind: Any
    parts: Any

    shape: Any

    def __init__(self, kind: Any, parts: Any) -> None:
        self.kind, self.parts = kind, parts
        shapes = {part.shape for part in parts}
        self.shape = (len(parts), *shapes.pop()) if len(shapes) == 1 and None not in shapes else None

    def frozen(self) -> Any:
        return [flag for part in self.parts for flag in part.frozen()]

    def collect(self, name: Any, x: Any, pieces: Any, engine: Any) -> None:
        if isinstance(x, (list, tuple)):
            if len(x) != len(self.parts):
                raise ShapeError(f"{name}: expected a {self.kind} of {len(self.parts)}, got one of {len(x)}")
            if self.shape is not None and len(self.shape) == 1 and all(type(part) in PLAIN for part in x):
                pieces.append(engine.operand(np.array(x, float)))
                return
            for k, (part, tree) in enumerate(zip(x, self.parts)):
                tree.collect(f"{name}[{k}]", part, pieces, engine)
        elif hasattr(x, "shape") and hasattr(x, "dtype") and not isinstance(x, (Value, Tensor)):
            if self.shape is None:
                raise ArgumentTypeError(f"{name}: expected a {self.kind}, got an array of shape {tuple(x.shape)}")
            Number(self.shape).collect(name, x, pieces, engine)
        else:
            raise ArgumentTypeError(f"{name}: expected a {self.kind} of {len(self.parts)}"
                                    + (f" or an array of shape {self.shape}" if self.shape else "")
                                    + f", got {shortened(x)}")


class Named:
    """A dict."""

    shape = None

    def __init__(self, parts: Any) -> None:
        self.parts = parts

    def frozen(self) -> Any:
        return [flag for part in self.parts.values() for flag in part.frozen()]

    def collect(self, name: Any, x: Any, pieces: Any, engine: Any) -> None:
        if not isinstance(x, dict) or x.keys() != self.parts.keys():
            raise ArgumentTypeError(f"{name}: expected a dict with the keys {list(self.parts)}, got {shortened(x)}")
        for key, tree in self.parts.items():
            tree.collect(f"{name}[{key!r}]", x[key], pieces, engine)


class Object:
    """An object of a class that `flatgrad.tree` has registered, with what is constant of it."""

    shape = None

    def __init__(self, cls: type[Any], fixed: Fixed, parts: list[Any]) -> None:
        self.cls, self.fixed, self.parts = cls, fixed, parts

    def frozen(self) -> Any:
        return [flag for part in self.parts for flag in part.frozen()]

    def collect(self, name: Any, x: Any, pieces: Any, engine: Any) -> None:
        if type(x) is not self.cls:
            raise ArgumentTypeError(f"{name}: expected a {self.cls.__name__}, got {shortened(x)}")
        node = opened(x)
        self.fixed.collect(f"{name}: what is constant of it", node.aux, pieces, engine)
        if len(node) != len(self.parts):
            raise ArgumentError(f"{name}: expected a {self.cls.__name__} of {len(self.parts)} parts, got one of {len(node)}")
        for k, (part, tree) in enumerate(zip(node, self.parts)):
            tree.collect(node.path(name, k), part, pieces, engine)


PLAIN = (float, int)
NO_NUMBERS = "cSUMm"   # kinds of NumPy's types: complex, text and times


def expected_of(key: Any) -> Any:
    """What positional arguments have to be like, and those by keyword, from the structure of a program's arguments."""
    keywords = {}
    if key and type(key[-1]) is tuple and key[-1] and key[-1][0] is _Keywords:
        keywords = {name: tree_of(part) for name, part in key[-1][1:]}
        key = key[:-1]
    return [tree_of(part) for part in key], keywords


def tree_of(part: Any) -> Any:
    if part in (NUMBER, VALUE, FROZEN):
        return Number((), part == FROZEN)
    kind = part[0]
    if kind in (TENSOR, ARRAY):
        return Number(tuple(part[1]), kind == ARRAY or not part[2])
    if kind is _Static:
        return Fixed(part)
    if issubclass(kind, dict):
        pairs = part[1:] if kind is dict else part[2:]
        return Named({plain_key(key): tree_of(x) for key, x in pairs})
    if not issubclass(kind, (list, tuple)):   # Registered, of program.py
        return Object(part[1][-1].x, Fixed(part[2]), [tree_of(x) for x in part[3:]])
    return Several(kind.__name__, [tree_of(x) for x in part[1:]])


def plain_key(key: Any) -> Any:
    """A dict's key, from what it is within a structure."""
    return key[2] if type(key) is tuple and key and key[0] is _Static and len(key) == 3 else key


def is_the_same(part: Any, x: Any) -> Any:
    """Whether a static argument is the one that a structure has, without the mark of one."""
    kind, noted = part[0], part[1:]
    if type(x) is not kind:
        return False
    if kind in (float, complex):
        return noted[0] == (x.hex() if kind is float else (x.real.hex(), x.imag.hex()))
    if isinstance(x, tuple):
        return len(x) == len(noted) and all(is_the_same(tuple([y.x if type(y) is _Same else y for y in of[1:]]), y)
                                            for of, y in zip(noted, x))
    if kind in (range, slice):
        return all(is_the_same(of[1:], y) for of, y in zip(noted, (x.start, x.stop, x.step)))
    if isinstance(x, np.generic):
        return noted == (x.dtype.str, x.tobytes())
    if kind.__module__ in ("decimal", "fractions"):
        return noted == (str(x),)
    return noted[0] is x or bool(noted[0] == x)


def static_value(part: Any) -> Any:
    """The static argument that a structure has, without the mark of one."""
    kind, noted = part[0], part[1:]
    if kind is float:
        return float.fromhex(noted[0])
    if kind is complex:
        return complex(*map(float.fromhex, noted[0]))
    if issubclass(kind, tuple):
        return tuple([static_value(tuple([y.x if type(y) is _Same else y for y in of[1:]])) for of in noted])
    if kind in (range, slice):
        return kind(*[static_value(of[1:]) for of in noted])
    if issubclass(kind, np.generic):
        return np.frombuffer(noted[1], noted[0])[0]
    return kind(noted[0]) if kind.__module__ in ("decimal", "fractions") else noted[0]


def leaf(name: Any, x: Any, shape: Any, engine: Any) -> Any:
    """A number or an array of the package."""
    if isinstance(x, np.ndarray) and x.dtype == object:   # each object has to be a number
        x = x.tolist()
    if isinstance(x, (list, tuple)):
        return stacked(name, x, engine)
    if isinstance(x, (Value, Tensor)):
        raise ArgumentTypeError(f"{name}: expected a number or an array, got a {type(x).__name__}, to which no "
                                "gradient would flow; write x.data")
    if is_bool(x) or isinstance(x, (str, bytes, dict)) or x is None or isinstance(x, numbers.Complex) and not (
            isinstance(x, numbers.Real)):
        expected = "an array of numbers" if shape is None else f"an array of shape {shape}" if shape else "a number"
        raise ArgumentTypeError(f"{name}: expected {expected}, got {shortened(x)}")
    dtype = getattr(x, "dtype", None)
    if getattr(dtype, "kind", "f") in NO_NUMBERS or getattr(dtype, "is_complex", False):
        raise ArgumentTypeError(f"{name}: expected real numbers, got an array of {dtype}")
    try:
        return engine.operand(x)
    except (TypeError, ValueError, OverflowError) as error:
        raise ArgumentTypeError(f"{name}: expected numbers, got {shortened(x)}: {error}") from error


def stacked(name: Any, xs: Any, engine: Any) -> Any:
    """An array of what a list or a tuple has, of which each part may have a gradient."""
    if all(type(x) in PLAIN for x in xs):
        try:
            return engine.operand(np.array(xs, float))
        except OverflowError as error:   # of an int
            raise ArgumentTypeError(f"{name}: expected numbers, got {shortened(xs)}: {error}") from error
    parts = [leaf(f"{name}[{k}]", x, None if isinstance(x, (list, tuple)) else (), engine) for k, x in enumerate(xs)]
    shapes = {tuple(x.shape): k for k, x in reversed(list(enumerate(parts)))}
    if len(shapes) > 1:
        one, other = sorted(shapes, key=shapes.get)[:2]
        raise ShapeError(f"{name}: expected parts of one shape, got {one} for part {shapes[one]} and {other} "
                         f"for part {shapes[other]}")
    return engine.stacked(parts)
