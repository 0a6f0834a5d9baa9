"""Structures of numbers, Values, Tensors and arrays, which JAX calls pytrees: lists, tuples, namedtuples, dicts, nested,
and objects of classes that are registered here.

Transforms such as `flatgrad.grad`, loops and `flatgrad.compile` take these as arguments and return them. Here are the
functions for those who update parameters by hand, or give them to an optimizer of one flat vector, with the names of
`jax.tree`, `jax.tree_util` and `jax.flatten_util`.
"""
from __future__ import annotations

import builtins
import dataclasses
import functools
import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from flatgrad._core import Tensor, Value
from flatgrad.arguments import shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from flatgrad.lost import are_lost, mark, plain
from flatgrad.structures import REGISTERED, Kind, leaves_of, map_leaves, same_structure
from flatgrad.transforms import NODES, advice, check_array, described, is_real, joined, leaves_in_order, real, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["flatten", "leaves", "map", "ravel_pytree", "reduce", "register_dataclass", "register_pytree_node",
           "register_pytree_node_class", "structure", "unflatten", "Structure"]

Cls = TypeVar("Cls", bound=type)


# ---- classes ----

def register_pytree_node(nodetype: type[Any], flatten_func: Callable[[Any], tuple[Iterable[Any], Any]],
                         unflatten_func: Callable[[Any, Any], Any]) -> None:
    """Make objects of a class structures.

    Parameters
    ----------
    nodetype : type
        The class itself; its subclasses are registered on their own.
    flatten_func : callable
        Takes an object, and returns a pair: its children, numbers or structures, in a list or tuple; and what is constant
        of it, which can be compared with ``==``, and for `flatgrad.compile` has to be hashable.
    unflatten_func : callable
        Takes what is constant and a tuple of children, and returns an object.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described, or the class is registered already, or is one of lists, tuples, dicts, Values
        or Tensors.

    Notes
    -----
    `jax.tree_util.register_pytree_node`. `unflatten_func` is called with Values and Tensors, with arrays, and with other
    objects that stand for these, so it should not look at its children.

    Examples
    --------
    >>> import flatgrad
    >>> class Line:
    ...     def __init__(self, slope, offset):
    ...         self.slope, self.offset = slope, offset
    >>> flatgrad.tree.register_pytree_node(Line, lambda line: ((line.slope, line.offset), None),
    ...                                    lambda aux, children: Line(*children))
    >>> gradient = flatgrad.grad(lambda line: line.slope * 3.0 + line.offset)(Line(2.0, 1.0))
    >>> gradient.slope, gradient.offset
    (3.0, 1.0)
    """
    register("register_pytree_node", nodetype, flatten_func, unflatten_func)


def register(name: str, nodetype: type[Any], flatten_func: Callable[[Any], Any], unflatten_func: Callable[..., Any],
             names: list[str] | None = None) -> None:
    if not isinstance(nodetype, type):
        raise ArgumentTypeError(f"{name}: nodetype: expected a class, got {described(nodetype)}")
    for what, x in ("flatten_func", flatten_func), ("unflatten_func", unflatten_func):
        if not callable(x):
            raise ArgumentTypeError(f"{name}: {what}: expected a callable, got {described(x)}")
    if issubclass(nodetype, (list, tuple, dict)):
        raise ArgumentError(f"{name}: nodetype: expected a class of your own, got {nodetype.__name__}: lists, tuples, "
                            "namedtuples and dicts are structures without being registered")
    if issubclass(nodetype, (*NODES, np.ndarray, int, float, type(None))):
        raise ArgumentError(f"{name}: nodetype: expected a class of structures, got {nodetype.__name__}, whose objects are "
                            "numbers or arrays")
    if nodetype in REGISTERED:
        raise ArgumentError(f"{name}: nodetype: expected a class that is not registered yet, got {nodetype.__name__}")

    def checked(x: Any) -> tuple[Any, Any]:
        found = flatten_func(x)
        if not isinstance(found, tuple) or len(found) != 2:
            raise ArgumentTypeError(f"flatten_func of {nodetype.__name__}: expected a pair, the children and what is "
                                    f"constant, got {described(found)}")
        try:
            return tuple(found[0]), found[1]
        except TypeError:
            raise ArgumentTypeError(f"flatten_func of {nodetype.__name__}: expected a list or a tuple of children, got "
                                    f"{described(found[0])}") from None

    REGISTERED[nodetype] = Kind(nodetype, checked, unflatten_func, names)


def register_pytree_node_class(cls: Cls) -> Cls:
    """The same as a decorator, for a class that has the two functions as methods.

    Parameters
    ----------
    cls : type
        Has a method ``tree_flatten()`` and a class method ``tree_unflatten(aux, children)``.

    Returns
    -------
    type
        The class.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        As `register_pytree_node`; also if there are no such methods.

    Notes
    -----
    `jax.tree_util.register_pytree_node_class`.

    Examples
    --------
    >>> import flatgrad
    >>> @flatgrad.tree.register_pytree_node_class
    ... class Pair:
    ...     def __init__(self, a, b):
    ...         self.a, self.b = a, b
    ...     def tree_flatten(self):
    ...         return (self.a, self.b), None
    ...     @classmethod
    ...     def tree_unflatten(cls, aux, children):
    ...         return cls(*children)
    >>> flatgrad.tree.leaves({"x": Pair(1.0, 2.0), "y": [3.0]})
    [1.0, 2.0, 3.0]
    """
    if not isinstance(cls, type):
        raise ArgumentTypeError(f"register_pytree_node_class: cls: expected a class, got {described(cls)}")
    for method in ("tree_flatten", "tree_unflatten"):
        if not callable(getattr(cls, method, None)):
            raise ArgumentTypeError(f"register_pytree_node_class: cls: expected a class with a method {method}, got "
                                    f"{cls.__name__}")
    register("register_pytree_node_class", cls, lambda x: x.tree_flatten(), cls.tree_unflatten)  # type: ignore[attr-defined]
    return cls


def register_dataclass(nodetype: Cls, data_fields: Sequence[str] | None = None,
                       meta_fields: Sequence[str] | None = None) -> Cls:
    """Make objects of a dataclass structures.

    Parameters
    ----------
    nodetype : type
        A class of `dataclasses.dataclass`.
    data_fields : sequence of str, optional
        The fields that are children. By default all that `meta_fields` does not name, but for those with
        ``metadata={"static": True}``.
    meta_fields : sequence of str, optional
        The fields that are constant. By default all others.

    Returns
    -------
    type
        The class, so that this is a decorator as well, above ``@dataclass``.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        As `register_pytree_node`; also if a field is not there, is in both, or in none.

    Notes
    -----
    `jax.tree_util.register_dataclass`. Objects are put together by the class's constructor, so a ``__post_init__`` runs,
    and fields with ``init=False`` are its own. Errors name children as attributes.

    Examples
    --------
    >>> import flatgrad
    >>> from dataclasses import dataclass, field
    >>> @flatgrad.tree.register_dataclass
    ... @dataclass
    ... class Spring:
    ...     k: float
    ...     rest: float
    ...     name: str = field(default="", metadata={"static": True})
    >>> flatgrad.grad(lambda s, x: s.k * (x - s.rest) ** 2 / 2)(Spring(10.0, 1.0, "left"), 3.0)
    Spring(k=2.0, rest=-20.0, name='left')
    """
    name = "register_dataclass"
    if not isinstance(nodetype, type) or not dataclasses.is_dataclass(nodetype):
        raise ArgumentTypeError(f"{name}: nodetype: expected a class of dataclasses.dataclass, got {described(nodetype)}")
    fields = {field.name: field for field in dataclasses.fields(nodetype) if field.init}
    data, meta = [None if given is None else field_names(name, what, given, fields)
                  for what, given in (("data_fields", data_fields), ("meta_fields", meta_fields))]
    if data is None and meta is None:
        meta = [key for key, field in fields.items() if field.metadata.get("static", False)]
    if data is None:
        data = [key for key in fields if key not in (meta or ())]
    if meta is None:
        meta = [key for key in fields if key not in data]
    for key in fields:
        if (key in data) == (key in meta):
            raise ArgumentError(f"{name}: expected each field of {nodetype.__name__} in one of data_fields and meta_fields, "
                                f"got {key!r} in {'both' if key in data else 'none'}")
    data_names, meta_names = data, meta

    def flatten_func(x: Any) -> tuple[Any, Any]:
        return [getattr(x, key) for key in data_names], tuple([getattr(x, key) for key in meta_names])

    def unflatten_func(aux: Any, children: Any) -> Any:
        return nodetype(**dict(zip(meta_names, aux)), **dict(zip(data_names, children)))

    register(name, nodetype, flatten_func, unflatten_func, data_names)
    return nodetype


def field_names(name: str, what: str, given: Sequence[str], fields: dict[str, Any]) -> list[str]:
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise ArgumentTypeError(f"{name}: {what}: expected a list of str, got {described(given)}")
    for key in given:
        if key not in fields:
            raise ArgumentError(f"{name}: {what}: expected names of {list(fields)}, got {shortened(key)}")
    return list(given)


# ---- structures ----

class Structure:
    """The structure of something without its leaves, as `flatten` and `structure` return it.

    Parameters
    ----------
    tree : structure
        Of which this is the structure; its leaves do not count.

    Attributes
    ----------
    num_leaves : int

    Notes
    -----
    `jax.tree_util.PyTreeDef`. Two are equal if the structures differ in their leaves alone. None is part of a structure.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.tree.structure({"w": [1.0, 2.0]}) == flatgrad.tree.structure({"w": [3.0, 4.0]})
    True
    """

    num_leaves: int

    def __init__(self, tree: Any) -> None:
        self._tree = map_leaves(lambda name, x: None if x is None else LEAF, tree)
        self.num_leaves = len(leaves(self._tree))

    def unflatten(self, leaves: Iterable[Any]) -> Any:
        """The structure with these leaves.

        Parameters
        ----------
        leaves : iterable
            As many as there were.

        Returns
        -------
        structure

        Raises
        ------
        ArgumentError
            If there are more or fewer.
        """
        given = list(leaves)
        if len(given) != self.num_leaves:
            raise ArgumentError(f"unflatten: leaves: expected {self.num_leaves}, as the structure has, got {len(given)}")
        rest = iter(given)
        return map_leaves(lambda name, x: None if x is None else next(rest), self._tree)

    def __eq__(self, other: object) -> bool:
        return same_structure(self._tree, other._tree) if isinstance(other, Structure) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Structure({self._tree!r})"


class Leaf:
    """Stands for a leaf."""

    def __repr__(self) -> str:
        return "*"


LEAF: Leaf = Leaf()


def map(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """The structure with ``f(leaf)`` in place of each leaf.

    Parameters
    ----------
    f : callable
        Takes a leaf of `tree`, and one of each of `rest`.
    tree : structure
    *rest : structure
        In the structure of `tree`.

    Returns
    -------
    structure
        Like `tree`. None stays None, as in JAX.

    Raises
    ------
    ArgumentTypeError
        If one of `rest` has another structure.

    Notes
    -----
    `jax.tree.map`.

    Examples
    --------
    >>> import flatgrad
    >>> def loss(p):
    ...     return (p["w"][0] - 1.0) ** 2 + (p["w"][1] - 2.0) ** 2 + p["b"] ** 2
    >>> p = {"w": [0.0, 0.0], "b": 1.0}
    >>> flatgrad.tree.map(lambda x, g: x - 0.5 * g, p, flatgrad.grad(loss)(p))
    {'w': [1.0, 2.0], 'b': 0.0}
    """
    if not callable(f):
        raise ArgumentTypeError(f"map: f: expected a callable, got {described(f)}")
    for k, other in enumerate(rest):
        if not same_structure(tree, other):
            raise ArgumentTypeError(f"map: expected the structure of tree, {shortened(structure(tree))}, in all others, got "
                                    f"{shortened(structure(other))} in number {k + 1}")
    columns = [iter(leaves_in_order(tree, other)) for other in rest]

    def leaf(name: str, x: Any) -> Any:
        others = [next(column) for column in columns]
        return None if x is None else f(x, *others)

    return map_leaves(leaf, tree)


def leaves(tree: Any) -> list[Any]:
    """The leaves of a structure, in order; None is none.

    Parameters
    ----------
    tree : structure

    Returns
    -------
    list

    Notes
    -----
    `jax.tree.leaves`, where dicts are in the order of sorted keys; here they are in their own order.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.tree.leaves({"w": [1.0, 2.0], "b": None, "c": (3.0,)})
    [1.0, 2.0, 3.0]
    """
    return [x for x in leaves_of(tree) if x is not None]


def structure(tree: Any) -> Structure:
    """What `flatten` returns besides the leaves.

    Parameters
    ----------
    tree : structure

    Returns
    -------
    Structure

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.tree.structure([1.0, (2.0, 3.0)])
    Structure([*, (*, *)])
    """
    return Structure(tree)


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """The leaves, and the structure that they were in.

    Parameters
    ----------
    tree : structure

    Returns
    -------
    list, Structure

    Notes
    -----
    `jax.tree.flatten`.

    Examples
    --------
    >>> import flatgrad
    >>> found, structure = flatgrad.tree.flatten({"w": [1.0, 2.0], "b": 3.0})
    >>> found, flatgrad.tree.unflatten(structure, [10.0 * x for x in found])
    ([1.0, 2.0, 3.0], {'w': [10.0, 20.0], 'b': 30.0})
    """
    return leaves(tree), Structure(tree)


def unflatten(treedef: Structure, leaves: Iterable[Any]) -> Any:
    """A structure with these leaves.

    Parameters
    ----------
    treedef : Structure
        As `flatten` and `structure` return it.
    leaves : iterable
        As many as it had.

    Returns
    -------
    structure

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described.

    Notes
    -----
    `jax.tree.unflatten`.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.tree.unflatten(flatgrad.tree.structure((0.0, [0.0])), [1.0, 2.0])
    (1.0, [2.0])
    """
    if not isinstance(treedef, Structure):
        raise ArgumentTypeError(f"unflatten: treedef: expected a Structure, got {described(treedef)}")
    return treedef.unflatten(leaves)


def reduce(function: Callable[[Any, Any], Any], tree: Any, *initializer: Any) -> Any:
    """`functools.reduce` over the leaves.

    Parameters
    ----------
    function : callable
        Takes what it has returned last and the next leaf.
    tree : structure
    *initializer : object, optional
        What it begins with; by default the first leaf.

    Returns
    -------
    object

    Raises
    ------
    TypeError
        If there is nothing to begin with.

    Notes
    -----
    `jax.tree.reduce`.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.tree.reduce(lambda total, x: total + x * x, {"w": [1.0, 2.0], "b": 3.0}, 0.0)
    14.0
    """
    return functools.reduce(function, leaves(tree), *initializer)


# ---- one flat vector ----

def ravel_pytree(pytree: Any) -> tuple[NDArray[Any] | Tensor, Callable[[Any], Any]]:
    """All numbers of a structure as one flat vector, and the function back.

    Parameters
    ----------
    pytree : number, array, Value, Tensor, or structure of them

    Returns
    -------
    flat : ndarray of float64 or Tensor, shape (n,)
        The leaves in order, arrays row by row. It is a Tensor, through which gradients flow, if a leaf is a Value or a
        Tensor.
    unravel : callable
        Takes a vector of n numbers and returns a structure like `pytree`: of an array or a list, floats and arrays; of a
        Tensor, Values and Tensors, through which gradients flow.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If a leaf is no number and no array of numbers. None stays None.
    ShapeError
        If a Tensor has to be made of an array of more than two dimensions; by `unravel`, if its argument has another
        shape.

    Notes
    -----
    `jax.flatten_util.ravel_pytree`, which takes dicts in the order of sorted keys; here they are in their own order.
    All numbers are float64 afterwards, also those that were ints.

    Examples
    --------
    With SciPy's optimizers and others that know vectors alone:

    >>> import flatgrad
    >>> import numpy as np
    >>> flat, unravel = flatgrad.ravel_pytree({"w": np.array([[1.0, 2.0]]), "b": 3.0})
    >>> flat, unravel(10.0 * flat)
    (array([1., 2., 3.]), {'w': array([[10., 20.]]), 'b': 30.0})
    >>> flatgrad.grad(lambda x: unravel(x)["b"] * unravel(x)["w"].sum())(flat)
    array([3., 3., 3.])
    """
    places: list[tuple[int, int, tuple[int, ...]]] = []
    found: list[Any] = []
    begin = 0

    def leaf(path: str, x: Any) -> Any:
        nonlocal begin
        if x is None:
            return None
        if isinstance(x, np.ndarray) and x.dtype.kind in "biuf":
            x = np.asarray(x, np.float64) if not are_lost((x,)) else x
        elif is_real(x):
            x = x if are_lost((x,)) else real(f"ravel_pytree: {path}", x)
        elif not isinstance(x, NODES):
            if isinstance(x, np.ndarray):
                check_array("ravel_pytree", path, x)   # has an error for it
            raise ArgumentTypeError(f"ravel_pytree: {path}: expected a real number, an array, a Value, a Tensor, or a "
                                    f"structure of them, got {described(x)}{advice(x)}")
        found.append(x)
        shape = shape_of(x)
        places.append((begin, begin + math.prod(shape), shape))
        begin += math.prod(shape)
        return len(places) - 1

    template = map_leaves(leaf, pytree, "pytree")
    size = begin

    def unravel(flat: Any) -> Any:
        x = flat if isinstance(flat, (Tensor, np.ndarray)) else np.asarray(flat)
        if x.shape != (size,):
            raise ShapeError(f"unravel: flat: expected the shape ({size},), got {x.shape}")
        if not isinstance(x, Tensor) and x.dtype.kind not in "biuf":
            check_array("unravel", "flat", x)
        lost = are_lost((x,))
        x = x if isinstance(x, Tensor) else np.array(plain(x), np.float64)

        def part(name: str, place: int | None) -> Any:
            if place is None:
                return None
            first, after, shape = places[place]
            if not shape:
                return x[first] if isinstance(x, Tensor) else float(x[first])
            if isinstance(x, Tensor) and (len(shape) > 2 or first == after):
                raise ShapeError(f"unravel: flat: expected an array, as a Tensor has one or two dimensions and at least one "
                                 f"element, and a leaf has the shape {shape}")
            return x[first:after].reshape(*shape) if isinstance(x, Tensor) else x[first:after].reshape(shape).copy()

        tree = map_leaves(part, template)
        return mark(tree) if lost else tree

    if any(isinstance(x, NODES) for x in found):
        parts = []
        for x in found:
            if isinstance(x, np.ndarray) and (x.ndim > 2 or x.size == 0):
                raise ShapeError("ravel_pytree: pytree: expected arrays of one or two dimensions and at least one element "
                                 f"beside Values and Tensors, got the shape {x.shape}")
            if not isinstance(x, NODES):
                x = Tensor(np.ravel(plain(x)), requires_grad=False)
            if isinstance(x, Value) or x.size:
                parts.append(x)
        return joined(parts), unravel
    flat: Any = np.concatenate([np.zeros(0), *[np.ravel(plain(x)) for x in found]])
    if builtins.any(are_lost((x,)) for x in found):
        flat = mark(flat)
    return flat, unravel
