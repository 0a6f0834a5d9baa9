"""Structures: lists, tuples and dicts, nested, of numbers, Values, Tensors and arrays; and objects of registered classes.

Users call these arguments and results; JAX calls them pytrees. A leaf is anything else than a list, a tuple, a dict or an
object whose class has been registered by a function of `flatgrad.tree`. A namedtuple keeps its type, and so do an
OrderedDict and a defaultdict; any other subclass of dict becomes a dict. A registered object is taken apart to a Node and
put together again.
"""
from __future__ import annotations

from collections import OrderedDict, defaultdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["REGISTERED", "Kind", "Node", "dict_like", "is_container", "leaves_of", "like", "lowered", "map_leaves",
           "opened", "raised", "same_structure"]

CONTAINERS: tuple[type[Any], ...] = (dict, list, tuple)


class Kind:
    """How objects of a registered class are taken apart and put together.

    Parameters
    ----------
    cls : type
    flatten : callable
        Takes an object, and returns its children and what is constant of it.
    unflatten : callable
        Takes the latter and the children, and returns an object.
    names : list of str, optional
        The attributes that are the children; None where errors number these.
    """

    cls: type[Any]
    flatten: Callable[[Any], Any]
    unflatten: Callable[[Any, Any], Any]
    names: list[str] | None

    def __init__(self, cls: type[Any], flatten: Callable[[Any], Any], unflatten: Callable[[Any, Any], Any],
                 names: list[str] | None = None) -> None:
        self.cls, self.flatten, self.unflatten, self.names = cls, flatten, unflatten, names


REGISTERED: dict[type[Any], Kind] = {}


class Node(tuple):   # type: ignore[type-arg]   # of any parts
    """The children of a registered object, with what puts them together: a tuple for whoever does not ask."""

    kind: Kind
    aux: Any

    def __new__(cls, kind: Kind, aux: Any, children: Any) -> Node:
        node = super().__new__(cls, children)
        node.kind, node.aux = kind, aux
        return node

    def path(self, name: str, k: int) -> str:
        """What errors call child k."""
        return f"{name}[{k}]" if self.kind.names is None else f"{name}.{self.kind.names[k]}"

    def closed(self, parts: list[Any]) -> Any:
        """An object with these children."""
        return self.kind.unflatten(self.aux, tuple(parts))


PLAIN = frozenset({dict, OrderedDict, defaultdict, list, tuple, Node})   # made anew as they are; namedtuples as well


def is_container(x: Any) -> bool:
    """Whether it is no leaf."""
    return isinstance(x, CONTAINERS) or type(x) in REGISTERED


def opened(x: Any) -> Any:
    """A Node in place of a registered object; anything else as it is."""
    kind = REGISTERED.get(type(x)) if REGISTERED else None
    if kind is None:
        return x
    children, aux = kind.flatten(x)
    return Node(kind, aux, children)


def map_leaves(function: Any, tree: Any, name: str = "", check: Callable[..., Any] | None = None) -> Any:
    """The structure with ``function(name, leaf)`` in place of each leaf; the name is that of the whole and the path
    to the leaf, such as ``x[0]['w']``. ``check(name, part)`` is called with each list, tuple and dict."""
    if not isinstance(tree, CONTAINERS):
        if not REGISTERED or type(tree) not in REGISTERED:
            return function(name, tree)
        node = opened(tree)
        return node.closed(mapped_parts(function, node, name, check))
    if type(tree) is Node:
        return Node(tree.kind, tree.aux, mapped_parts(function, tree, name, check))
    if check is not None:
        check(name, tree)
    if isinstance(tree, dict):
        return dict_like(tree, {key: map_leaves(function, part, f"{name}[{key!r}]", check)
                                for key, part in tree.items()})
    return like(tree, [map_leaves(function, part, f"{name}[{k}]", check) for k, part in enumerate(tree)])


def mapped_parts(function: Any, node: Node, name: str, check: Callable[..., Any] | None) -> list[Any]:
    return [map_leaves(function, part, node.path(name, k), check) for k, part in enumerate(node)]


def lowered(tree: Any) -> Any:
    """The structure with Nodes in place of registered objects: lists, tuples and dicts alone. Others of their subclasses
    stay as they are, for who refuses these."""
    if not REGISTERED:
        return tree
    tree = opened(tree)
    if type(tree) not in PLAIN and not (isinstance(tree, tuple) and hasattr(tree, "_fields")):
        return tree
    if isinstance(tree, dict):
        return dict_like(tree, {key: lowered(part) for key, part in tree.items()})
    if type(tree) is Node:
        return Node(tree.kind, tree.aux, map(lowered, tree))
    return like(tree, [lowered(part) for part in tree])


def raised(tree: Any) -> Any:
    """The structure with objects in place of Nodes."""
    if not REGISTERED:
        return tree
    if isinstance(tree, dict):
        return dict_like(tree, {key: raised(part) for key, part in tree.items()})
    return like(tree, [raised(part) for part in tree]) if isinstance(tree, (list, tuple)) else tree


def dict_like(tree: Any, items: dict[Any, Any]) -> dict[Any, Any]:
    """A dict as a dict, an OrderedDict or a defaultdict, as `tree` is."""
    if type(tree) is defaultdict:
        return defaultdict(tree.default_factory, items)
    return OrderedDict(items) if type(tree) is OrderedDict else items


def like(tree: Any, parts: list[Any]) -> Any:
    """The parts, a list, as a list, a tuple or a namedtuple, as `tree` is; of a Node as its object."""
    if isinstance(tree, list):
        return parts
    if type(tree) is Node:
        return tree.closed(parts)
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


def leaves_of(tree: Any) -> list[Any]:
    """The leaves, in order."""
    leaves: list[Any] = []
    append_leaves(tree, leaves)
    return leaves


def append_leaves(tree: Any, leaves: list[Any]) -> None:
    if REGISTERED:
        tree = opened(tree)
    if isinstance(tree, CONTAINERS):
        for part in tree.values() if isinstance(tree, dict) else tree:
            append_leaves(part, leaves)
    else:
        leaves.append(tree)


def same_structure(first: Any, second: Any) -> bool:
    """Whether two structures differ in their leaves alone. None counts as part of the structure, and the order of a
    dict's keys does not."""
    first, second = opened(first), opened(second)
    if isinstance(first, dict):
        return (isinstance(second, dict) and first.keys() == second.keys()
                and all(same_structure(part, second[key]) for key, part in first.items()))
    if isinstance(first, (list, tuple)):
        return (isinstance(second, (list, tuple)) and isinstance(first, list) == isinstance(second, list)
                and len(first) == len(second) and same_kind(first, second)
                and all(map(same_structure, first, second)))
    return not isinstance(second, CONTAINERS) and (first is None) == (second is None)


def same_kind(first: Any, second: Any) -> bool:
    """Whether both or none are Nodes, of one class, with the same constants."""
    if type(first) is not Node or type(second) is not Node:
        return type(first) is not Node and type(second) is not Node
    return first.kind is second.kind and bool(first.aux == second.aux)
