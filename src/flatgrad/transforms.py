"""What the transforms of `flatgrad.functional` share: where a function is differentiated, and tables of derivatives.

A transform calls a function with nodes in place of its arguments' numbers. At the outermost call these are new leaves,
and a numeric sweep gives plain numbers. An argument is *linked* if it is a node that somebody else differentiates by or
records. Then copies of such nodes take their places, and the derivatives are written: they are nodes as well, and
depend on the arguments. A copy is a node of its own, so a derivative by it is one by this argument alone.
"""
from __future__ import annotations

import inspect
import itertools
import math
import numbers
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import (Tensor, Value, _apply, _held_below, _Within, _is_recorded, _is_recording, _is_unrecorded,
                            _refuse_masked, cat, depends, derivatives, dot, recording, stack, tracing, written)
from flatgrad.arguments import shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from flatgrad.lost import are_lost, mark, plain
from flatgrad.structures import REGISTERED, Node, map_leaves, opened, same_structure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad.read_only import Grad

__all__ = ["Point", "Table", "differentiating"]

# The leaves of every transform that runs in this context: in this thread, task of asyncio or generator.
running: Any = ContextVar("flatgrad.transforms.running", default=())

NODES = (Value, Tensor)


class Point:
    """Where a function is differentiated: its arguments, with nodes in place of their numbers.

    Parameters
    ----------
    name : str
        The transform.
    args : list or tuple
    positions : iterable of int
        Of the arguments to differentiate by.
    more : iterable
        What the derivatives depend on besides, such as tangents.
    prefix : str
        What errors call the arguments.
    parameters : list of Value and Tensor, optional
        By which to differentiate in place of arguments.

    Attributes
    ----------
    args : list
        What the function is called with.
    leaves : list of Value and Tensor
        The nodes to differentiate by, in order.
    linked : bool
        Whether derivatives are nodes; link() finds it out.
    lost : bool
        Whether derivatives are numbers that depend on leaves besides, of which `flatgrad.lost` tells; link() finds it
        out.
    single : bool
        Whether the user has named one argument, and not a tuple of them.
    aux
        What the function has returned besides its result.
    """

    name: str

    linked: bool
    args: list[Any]
    leaves: list[Any]
    aux: None
    single: bool
    by_parameters: bool
    lost: bool

    def __init__(self, name: str, args: Sequence[Any], positions: tuple[Any, ...] | range, more: tuple[Any, ...] = (),
                 prefix: str = "argument {}", parameters: list[Any] | None = None) -> None:
        nodes = []
        for n in positions:
            nodes_in(args[n], nodes)
        for part in more:
            nodes_in(part, nodes)
        self.name, self.linked = name, bool(nodes) and are_linked(nodes)
        self.args, self.leaves, self.aux, self.single = list(args), parameters or [], None, True
        self.by_parameters, self.lost = parameters is not None, False
        if parameters is None and (are_lost(args) or are_lost(more)) and is_outermost():
            self.args, self.lost = [map_leaves(lambda name, x: plain(x), x) for x in args], True
        for n in positions:
            self.args[n] = map_leaves(self.stand_in, self.args[n], prefix.format(n))

    def stand_in(self, name: str, x: Any) -> Value | Tensor:
        """The node that stands for one number or array."""
        if isinstance(x, NODES):
            leaf = copied(x) if self.linked else Value(x.data) if isinstance(x, Value) else Tensor(x.data)
        else:
            leaf = leaf_of(self.name, name, x)
        self.leaves.append(leaf)
        return leaf

    def call(self, f: Callable[..., Any], kwargs: Mapping[str, Any], has_aux: bool = False) -> Any:
        """What f returns; with `has_aux` the first part, and the second one is kept."""
        output = called(f, self.args, kwargs, self.leaves, [] if self.by_parameters else None)
        if not self.by_parameters and not _is_recording():   # which refuses backward()
            for leaf in self.leaves:
                refuse_swept(self.name, leaf.grad)
        if has_aux:
            output, self.aux = split(self.name, output)
        return output

    def link(self, items: list[Any]) -> None:
        """Find out whether derivatives of these results are nodes."""
        if not self.linked:
            self.linked = are_linked_results(items if self.aux is None else items + nodes_in(self.aux, []))
        if not self.linked:
            self.lost = is_outermost() and (self.lost or depends_besides(items, self.leaves))

    def marked(self, derivative: Any) -> Any:
        """A derivative of this point; with lost.py's numbers, if there is something to lose."""
        return mark(derivative) if self.lost and not self.linked else derivative

    def auxiliary(self) -> Any:
        """What the function has returned besides, with numbers where derivatives are numbers."""
        return self.aux if self.linked else as_numbers(self.aux)

    def gradient_of(self, output: Value | Tensor, positions: tuple[Any, ...], args: Sequence[Any],
                    leaves: None = None) -> list[Any]:
        """For each of these arguments the gradient of a Value in the argument's structure. `leaves` stand for their
        numbers; by default those of the point."""
        leaves = self.leaves if leaves is None else leaves
        if self.linked:
            return self.structured(positions, args, written_by([output], None, leaves), leaves)
        row = Reader(derivatives([output], leaves)[0])
        return [row.structure_of(args[n]) for n in positions]

    def structured(self, positions: tuple[int], args: Sequence[Any], gradients: list[Value],
                   leaves: list[Value] | None = None) -> list[Any]:
        """Gradients as nodes, one for each leaf, in the structures of the arguments."""
        rest = iter(zip(self.leaves if leaves is None else leaves, gradients))
        return [map_leaves(lambda name, x: node_or_zeros(*next(rest)), args[n]) for n in positions]

    def filled(self, gradients: list[Any]) -> list[Any]:
        """Gradients by the leaves with zeros in place of None."""
        return [node_or_zeros(*pair) for pair in zip(self.leaves, gradients)]


# ---- what is linked ----

def nodes_in(x: Any, found: list[Value]) -> list[Any]:
    """All Values and Tensors of a structure, appended to a list, which is returned."""
    if REGISTERED:
        x = opened(x)
    if isinstance(x, NODES):
        found.append(x)
    elif isinstance(x, dict):
        for part in x.values():
            nodes_in(part, found)
    elif isinstance(x, (list, tuple)):
        for part in x:
            nodes_in(part, found)
    return found


def are_linked(nodes: list[Any]) -> bool:
    """Whether one of these nodes is the result of an operation, or what somebody differentiates by or records."""
    if _is_unrecorded():
        return False
    if _is_recording():
        return True
    return any(has_operands(x) for x in nodes) or depends_on_outer(nodes)


def are_linked_results(nodes: list[Any]) -> bool:
    """Whether one of these results depends on what somebody else differentiates by, or records."""
    if not running.get() and not _is_recording() or _is_unrecorded():
        return False
    return depends_on_outer(nodes) or _is_recording() and any(_is_recorded(x) for x in nodes)


def is_outermost() -> bool:
    """Whether derivatives as numbers are for the user, who may still want a gradient of them."""
    return not running.get() and not _is_recording() and not _is_unrecorded()


def depends_besides(items: list[Any], leaves: list[Any]) -> bool:
    """Whether gradients of these results flow to leaves that somebody holds, besides those. A result that is a leaf has
    constant derivatives."""
    computed = [x for x in items if has_operands(x) and not is_constant(x)]
    return bool(computed) and _held_below(computed, leaves)


def has_operands(x: Any) -> bool:
    return bool(x._op or isinstance(x, Value) and x._children)


def depends_on_outer(nodes: list[Any]) -> bool:
    """Whether one of these nodes depends on what a transform under way differentiates by."""
    return bool(nodes) and any(depends(nodes, leaves) for leaves in reversed(running.get()))


def depends_on_outer_copies(output: Value) -> bool:
    """Whether a node depends on the argument of a transform that is a node of another's graph, and so no leaf."""
    copies = [leaf for leaves in running.get() for leaf in leaves if has_operands(leaf)]
    return bool(copies) and depends([output], copies)


def differentiating(leaves: list[Any]) -> Any:
    """A context in which derivatives that depend on some Values and Tensors are nodes: who enters it differentiates by
    these."""
    return _Within(running, (*running.get(), leaves))


def called(f: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], leaves: list[Any],
           fresh: list[Any] | None = None) -> Any:
    """f(*args, **kwargs), while `leaves` are registered as leaves to differentiate by.

    fresh: the leaves that no one else holds; by default all. `float` refuses Values computed from these.
    """
    with differentiating(leaves), recording(), tracing(leaves if fresh is None else fresh):
        return f(*args, **kwargs)


def refuse_swept(name: str, gradient: float | Grad) -> None:
    """An error for a gradient that a backward pass within f has left at a leaf."""
    if gradient != 0.0 if type(gradient) is float else not isinstance(gradient, NODES) and gradient.any():
        raise ArgumentTypeError(
            f"{name}: f has called backward() on what it computes from its arguments: those gradients are numbers, "
            "and a derivative through them would be lost. Take flatgrad.grad or flatgrad.gradients within f")


# ---- arguments ----

def callable_(name: str, f: Callable[..., Any]) -> None:
    if not callable(f):
        raise ArgumentTypeError(f"{name}: f: expected a callable, got {described(f)}")


def argument_numbers(argnums: int | tuple[int, int]) -> tuple[Any, Any]:
    """The ints in `argnums`, and whether `argnums` is a single int."""
    single = not isinstance(argnums, (tuple, list))
    result = [argnums] if single else list(argnums)
    for n in result:
        if not isinstance(n, numbers.Integral) or isinstance(n, (bool, np.bool_)):
            raise ArgumentTypeError(f"argnums: expected an int or a tuple of int, got {argnums!r}")
    if not result or len(set(result)) != len(result):
        raise ArgumentError(f"argnums: expected an int or a tuple of different ints, got {argnums!r}")
    return tuple(int(n) for n in result), single


def positions_of(argnums: tuple[Any, ...], args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments that `argnums` means, counted from 0."""
    positions = []
    for n in argnums:
        if not -len(args) <= n < len(args):
            raise ArgumentError(f"argnums: {n} is out of range for {len(args)} positional "
                                f"argument{'s' * (len(args) != 1)}"
                                + ("; arguments by keyword are not differentiated by" if kwargs else ""))
        positions.append(n % len(args))
    if len(set(positions)) != len(positions):
        raise ArgumentError(f"argnums: expected different arguments, got {argnums} for {len(args)} arguments")
    return tuple(positions)


class Named:
    """The arguments of a function that `argnames` means, by whatever way a call gives them.

    Parameters
    ----------
    name : str
        The transform.
    f : callable
    argnums : int or tuple of int
        Has to be the default.
    argnames : str or tuple of str

    Attributes
    ----------
    single : bool
        Whether it is one name, and not a tuple of them.
    """

    single: bool
    names: Sequence[str]
    signature: inspect.Signature | None

    def __init__(self, name: str, f: Callable[..., Any], argnums: int | tuple[int, ...],
                 argnames: str | Sequence[str]) -> None:
        self.single = isinstance(argnames, str)
        names = [argnames] if isinstance(argnames, str) else argnames
        if not isinstance(names, (list, tuple)) or not all(isinstance(x, str) for x in names):
            raise ArgumentTypeError(f"argnames: expected a str or a tuple of str, got {argnames!r}")
        if not names or len(set(names)) != len(names):
            raise ArgumentError(f"argnames: expected a str or a tuple of different str, got {argnames!r}")
        if argnums != 0:
            raise ArgumentError(f"{name}: expected one of argnums and argnames, got argnums={argnums!r} and "
                                f"argnames={argnames!r}")
        self.names = names
        try:
            self.signature = inspect.signature(f)
        except (TypeError, ValueError):   # of some functions in C
            self.signature = None
            return
        parameters = self.signature.parameters
        any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for x in names:
            p = parameters.get(x)
            if p is None and not any_name or p is not None and p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                raise ArgumentError(f"argnames: expected names of the parameters {self.signature}, got {x!r}")

    def found(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """A function, arguments by position and by keyword that are the same call, and the positions of those named."""
        if self.signature is not None:
            bound = self.signature.bind(*args, **kwargs)   # raises Python's own errors
            args, kwargs = bound.args, bound.kwargs
        places = {}
        for k, x in enumerate(() if self.signature is None else self.signature.parameters.values()):
            if x.kind not in (x.POSITIONAL_ONLY, x.POSITIONAL_OR_KEYWORD):
                break
            places[x.name] = k
        positions, moved, count = [], [], len(args)
        for name in self.names:
            if name in kwargs:   # of a parameter by keyword alone
                positions.append(count + len(moved))
                moved.append(name)
            elif places.get(name, count) < count:
                positions.append(places[name])
            else:
                raise ArgumentError(f"argnames: expected {name!r} among the arguments of the call, got {count} by position"
                                    + (f" and {', '.join(kwargs)} by keyword" if kwargs else ""))
        if not moved:
            return f, args, kwargs, tuple(positions)
        args = (*args, *[kwargs[name] for name in moved])
        kwargs = {name: x for name, x in kwargs.items() if name not in moved}
        return lambda *a, **kw: f(*a[:count], **dict(zip(moved, a[count:])), **kw), args, kwargs, tuple(positions)


def described(x: Any) -> str:
    return f"{type(x).__name__} {shortened(x)}"


def is_real(x: Any) -> bool:
    return isinstance(x, numbers.Real) and not isinstance(x, (bool, np.bool_))


def real(name: str, x: Any) -> float:
    """The real number x as a float."""
    try:
        return float(x)
    except OverflowError:
        raise ArgumentError(f"{name}: expected a number that float64 holds, got {shortened(x)}") from None


def leaf_of(transform: str, name: str, x: Any) -> Value | Tensor:
    """A new leaf for a number or an array."""
    if isinstance(x, np.ndarray):
        check_array(transform, name, x)
        return Value(float(x)) if x.ndim == 0 else Tensor(np.asarray(x, np.float64))
    if is_real(x):
        return Value(real(name, x))
    raise ArgumentTypeError(f"{transform}: {name}: expected a real number, an array, a Value, a Tensor, or a "
                            f"list, tuple or dict of them, got {described(x)}{advice(x)}")


def advice(x: Any) -> str:
    """What to do with an object of a class that may be meant as a structure."""
    if hasattr(type(x), "__dataclass_fields__"):
        return f"; flatgrad.tree.register_dataclass({type(x).__name__}) makes it a structure"
    return ""


def check_array(transform: str, name: str, x: Any, kinds: str = "iuf", what: str = "real numbers") -> None:
    _refuse_masked(f"{transform}: {name}", x)
    if x.dtype.kind not in kinds:
        raise ArgumentTypeError(f"{transform}: {name}: expected an array of {what}, got one of dtype {x.dtype} and "
                                f"shape {x.shape}")
    if x.ndim > 2 or x.size == 0:
        raise ShapeError(f"{transform}: {name}: expected an array of at most two dimensions and at least one element, "
                         f"got the shape {x.shape}")


def shape_of(x: Any) -> tuple[Any, ...]:
    """The shape of a Value, a Tensor, an array or a number."""
    return tuple(x.shape) if isinstance(x, (np.ndarray, Tensor)) else ()


def has_names(x: Any) -> bool:
    """Whether a dict or a registered object is in a structure: then its leaves have shapes. Lists of numbers have one."""
    return (isinstance(x, dict) or type(x) in REGISTERED
            or isinstance(x, (list, tuple)) and any(map(has_names, x)))


def map_shaped(function: Callable[[Any], Any], tree: Any) -> Any:
    """The structure with ``function(part)`` in place of each part that has a shape."""
    return map_leaves(lambda name, x: function(x), tree) if has_names(tree) else function(tree)


def shaped_parts(tree: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The parts that have a shape, in order, each after its path."""
    return paths_in_order(tree, tree, name) if has_names(tree) else iter([(name, tree)])


def input_shape(transform: str, name: str, x: Any) -> tuple[Any, ...]:
    """The shape of a part of an argument that Point has accepted."""
    if isinstance(x, (list, tuple)):
        return stacked(f"{transform}: {name}",
                       [input_shape(transform, f"{name}[{k}]", part) for k, part in enumerate(x)])
    return shape_of(x)


def stacked(name: str, shapes: list[Any]) -> tuple[Any, ...]:
    """The shape of a list of parts with these shapes."""
    for k, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ShapeError(f"{name}: expected parts of one shape, got {shapes[0]} in the first and {shape} in number "
                             f"{k}")
    return (len(shapes), *(shapes[0] if shapes else ()))


def with_shapes_of(transform: str, name: str, given: float, what: str, tree: float) -> list[float]:
    """The leaves of `given`, which has to have the structure of `tree` and its shapes: numbers, arrays of float64,
    Values and Tensors."""
    if not same_structure(tree, given):
        raise ArgumentTypeError(f"{transform}: {name}: expected the structure of {what}, got {shortened(given)} for "
                                f"{shortened(tree)}")
    found, shapes = [], [shape_of(x) for x in leaves_in_order(tree, tree)]

    def leaf(path, x):
        if isinstance(x, np.ndarray):
            check_array(transform, path, x)
            x = np.asarray(x, np.float64)
        elif is_real(x):
            x = real(f"{transform}: {path}", x)
        elif not isinstance(x, NODES):
            raise ArgumentTypeError(f"{transform}: {path}: expected a real number, an array, a Value or a Tensor, got "
                                    f"{described(x)}")
        if shape_of(x) != shapes[len(found)]:
            raise ShapeError(f"{transform}: {path}: expected the shape of {what}, {shapes[len(found)]}, got "
                             f"{shape_of(x)}")
        found.append(x if shape_of(x) or isinstance(x, Value) else float(x))

    for path, x in paths_in_order(tree, given, name):
        leaf(path, x)
    return found


def leaves_in_order(tree: float, given: float) -> list[float]:
    """The leaves of `given`, in the order in which `tree`, of the same structure, has them."""
    return [x for _, x in paths_in_order(tree, given, "")]


def paths_in_order(tree: float, given: float, name: str) -> Iterator[tuple[str, float]]:
    tree, given = opened(tree), opened(given)
    if isinstance(tree, dict):
        for key, part in tree.items():
            yield from paths_in_order(part, given[key], f"{name}[{key!r}]")
    elif isinstance(tree, (list, tuple)):
        for k, part in enumerate(tree):
            yield from paths_in_order(part, given[k], tree.path(name, k) if type(tree) is Node else f"{name}[{k}]")
    else:
        yield name, given


# ---- results ----

def split(name: Any, output: Any) -> Any:
    """The two parts of what a function with ``has_aux=True`` returns."""
    if not isinstance(output, tuple) or len(output) != 2:
        raise ArgumentTypeError(f"{name}: expected f to return a pair, as has_aux is True: what is differentiated, and "
                                f"something else; got {described(output)}")
    return output


def one_number(name: str, output: Value | Tensor | float) -> Value | Tensor:
    """What f has returned, as a Value or a Tensor."""
    if type(output) is Value:
        return output
    if isinstance(output, Tensor) and output.size != 1:
        raise ShapeError(f"{name}: expected f to return one number, got a Tensor of shape {output.shape}; jacobian "
                         "takes functions of many outputs")
    if is_real(output):
        output = Value(real(f"{name}: the result of f", output))
    if not isinstance(output, NODES):
        many = "; jacobian takes functions of many outputs" if isinstance(output, (list, tuple, np.ndarray)) else ""
        raise ArgumentTypeError(f"{name}: expected f to return a Value, a Tensor of one element or a number, got "
                                f"{described(output)}{many}")
    return output


def flattened(transform: str, name: str, output: Any) -> tuple[Any, Any]:
    """The result of a function as a flat list of Values and Tensors, and the shape of the result."""
    if isinstance(output, Tensor):
        return [output], output.shape
    if isinstance(output, Value):
        return [output], ()
    if is_real(output):
        return [Value(real(f"{transform}: {name}", output))], ()
    if isinstance(output, np.ndarray) and output.dtype.kind in "iufO":
        output = output.tolist()   # a list of Values or numbers; a single one for a 0-d array
        if not isinstance(output, list):
            return flattened(transform, name, output)
    if isinstance(output, (list, tuple)):
        parts = [flattened(transform, f"{name}[{k}]", part) for k, part in enumerate(output)]
        return [item for items, _ in parts for item in items], stacked(f"{transform}: {name}",
                                                                       [shape for _, shape in parts])
    raise ArgumentTypeError(f"{transform}: {name}: expected a Value, a Tensor, a number or a list of them, got "
                            f"{described(output)}{advice(output)}")


def as_nodes(transform: str, name: str, output: Value) -> Value:
    """The result of a function as a structure of Values and Tensors."""
    def node(path, x):
        if isinstance(x, NODES):
            return x
        if isinstance(x, np.ndarray) and x.dtype.kind == "O" and x.ndim == 0:
            return node(path, x.item())
        if isinstance(x, np.ndarray) and x.dtype.kind == "O" and 1 <= x.ndim <= 2 and x.size:   # NumPy's of Values
            parts = [node(path, part) for part in x.ravel()]
            with recording():
                return joined(parts).reshape(*x.shape)
        if isinstance(x, np.ndarray):
            check_array(transform, path, x)
            return Value(float(x)) if x.ndim == 0 else Tensor(np.asarray(x, np.float64), requires_grad=False)
        if is_real(x):
            return Value(real(f"{transform}: {path}", x))
        raise ArgumentTypeError(f"{transform}: {path}: expected a Value, a Tensor, a number, or a list, tuple or dict "
                                f"of them, got {described(x)}")

    return map_leaves(node, output, name)


def as_numbers(tree: Value) -> float:
    """The structure with floats in place of Values, and arrays in place of Tensors; anything else stays."""
    return map_leaves(lambda name, x: x.data if isinstance(x, Value) else x.numpy() if isinstance(x, Tensor) else x,
                      tree)


def as_value(output: Value) -> Value:
    """A Value, or a Tensor of one element, as a Value."""
    return output if isinstance(output, Value) else output.reshape(1)[0]


def is_constant(x: Any) -> bool:
    return isinstance(x, Tensor) and not x.requires_grad


def written_by(outputs: list[Value], seeds: list[Value] | None, leaves: list[Any]) -> list[Any]:
    """The gradients by the leaves as nodes, or None where nothing depends on one."""
    seeds = [None] * len(outputs) if seeds is None else seeds
    pairs = [(x, seed) for x, seed in zip(outputs, seeds) if not is_constant(x)]
    return written([x for x, _ in pairs], [seed for _, seed in pairs], leaves)


def copied(x: Any) -> Value | Tensor:
    """A node with the numbers of another, which differs from it in derivatives."""
    if is_constant(x):
        return x * Tensor(np.ones(x.shape))
    return _apply("COPY", x)


def node_or_zeros(leaf: Value | Tensor, gradient: Value | Tensor) -> Value | Tensor:
    if gradient is not None:
        return gradient
    return Value(0.0) if isinstance(leaf, Value) else Tensor(np.zeros(leaf.shape), requires_grad=False)


def inner(nodes: list[Value], weights: list[float]) -> Value:
    """The sum of all products of nodes, None for 0, with numbers, arrays or nodes of the same shapes: a Value."""
    pairs = [(x, w) for x, w in zip(nodes, weights) if x is not None]
    values = [(x, w) for x, w in pairs if isinstance(x, Value)]
    terms = [(x * w).sum() for x, w in pairs if isinstance(x, Tensor)]
    if values:
        terms.append(dot(*map(list, zip(*values))))
    total = terms[0] if terms else Value(0.0)
    for term in terms[1:]:
        total = total + term
    return total


def seed_leaves(outputs: Any) -> Any:
    """New leaves in the shapes of these outputs, at 0: derivatives are linear in their seeds."""
    return [Value(0.0) if isinstance(x, Value) else Tensor(np.zeros(x.shape)) for x in outputs]


class Reader:
    """Returns the numbers of a row of derivatives in the structure of the arguments."""

    row: NDArray[Any]

    at: int

    def __init__(self, row: NDArray[Any]) -> None:
        self.row, self.at = row, 0

    def structure_of(self, x: Any) -> Any:
        return map_leaves(self.next, x)

    def next(self, name: str, x: Any) -> float | NDArray[Any]:
        size = x.size if isinstance(x, (np.ndarray, Tensor)) else 1
        self.at += size
        part = self.row[self.at - size:self.at]
        return part.reshape(x.shape).copy() if isinstance(x, (np.ndarray, Tensor)) else float(part[0])


# ---- tables ----

class Table:
    """The derivatives of some numbers, one in each row, by all leaves.

    Parameters
    ----------
    numbers : ndarray, shape (n_rows, n_numbers), or None
    rows : list of lists, or None
        For each row its gradients by the leaves, nodes or None.
    leaves : list of Value and Tensor

    Attributes
    ----------
    begins : list of int
        For each leaf the column of its first number; and how many columns there are.
    """

    numbers: NDArray[Any] | None
    rows: list[Any] | None
    leaves: list[Any]

    begins: list[int]

    def __init__(self, numbers: NDArray[Any] | None, rows: list[Any] | None, leaves: list[Any]) -> None:
        self.numbers, self.rows, self.leaves = numbers, rows, leaves
        self.begins = list(itertools.accumulate([math.prod(shape_of(leaf)) for leaf in leaves], initial=0))

    def after(self, first: int, count: int) -> int:
        """The leaf after so many numbers from leaf `first` on."""
        return self.begins.index(self.begins[first] + count, first)

    def block(self, first: int, after: int, first_leaf: int, after_leaf: int,
              shape: tuple[Any, ...]) -> NDArray[Any] | Tensor:
        """The derivatives of some rows by some leaves: an array, or where they are nodes a Value, a Tensor, or for more
        than two dimensions an array of Values."""
        if self.rows is None:
            return self.numbers[first:after, self.begins[first_leaf]:self.begins[after_leaf]].reshape(shape)
        leaves = self.leaves[first_leaf:after_leaf]
        parts = [node_or_zeros(*pair) for row in self.rows[first:after]
                 for pair in zip(leaves, row[first_leaf:after_leaf])]
        if 0 in shape:
            return np.zeros(shape)
        if len(parts) == 1 and shape_of(parts[0]) == shape:
            return parts[0]
        if len(shape) <= 2:
            return joined(parts).reshape(*shape) if shape else as_value(joined(parts))
        result = np.empty(math.prod(shape), object)
        result[:] = [value for part in parts for value in elements(part)]
        return result.reshape(shape)


def table_of(outputs: list[Value], leaves: list[Any]) -> Table:
    """The derivatives of some Values by the leaves, as nodes: one written sweep for each."""
    return Table(None, [written_by([x], None, leaves) for x in outputs], leaves)


def elements(x: Any) -> list[Value]:
    """The elements of a Value or a Tensor, row by row, as Values."""
    if isinstance(x, Value):
        return [x]
    return list(x) if x.ndim == 1 else [element for row in x for element in row]


def joined(parts: list[Any]) -> Tensor:
    """A Tensor of one dimension with all elements of Values and Tensors."""
    if all(isinstance(x, Value) for x in parts):
        return stack(parts)
    rows = [stack([x]) if isinstance(x, Value) else x if x.ndim == 1 else x.reshape(-1) for x in parts]
    return rows[0] if len(rows) == 1 else cat(rows)
