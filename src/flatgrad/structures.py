"""Structures: lists, tuples and dicts, nested, of numbers, Values, Tensors and arrays.

Users call these arguments and results; JAX calls them pytrees. A leaf is anything else than a list, a tuple or a dict.
A namedtuple keeps its type, and so do an OrderedDict and a defaultdict; any other subclass of dict becomes a dict.
"""
from __future__ import annotations

from collections import OrderedDict, defaultdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["dict_like", "leaves_of", "like", "map_leaves", "same_structure"]


def map_leaves(function: Any, tree: Any, name: str = "", check: Callable[..., Any] | None = None) -> Any:
    """The structure with ``function(name, leaf)`` in place of each leaf; the name is that of the whole and the path
    to the leaf, such as ``x[0]['w']``. ``check(name, part)`` is called with each list, tuple and dict."""
    if not isinstance(tree, (dict, list, tuple)):
        return function(name, tree)
    if check is not None:
        check(name, tree)
    if isinstance(tree, dict):
        return dict_like(tree, {key: map_leaves(function, part, f"{name}[{key!r}]", check)
                                for key, part in tree.items()})
    return like(tree, [map_leaves(function, part, f"{name}[{k}]", check) for k, part in enumerate(tree)])


def dict_like(tree: Any, items: dict[Any, Any]) -> dict[Any, Any]:
    """A dict as a dict, an OrderedDict or a defaultdict, as `tree` is."""
    if type(tree) is defaultdict:
        return defaultdict(tree.default_factory, items)
    return OrderedDict(items) if type(tree) is OrderedDict else items


def like(tree: Any, parts: list[Any]) -> Any:
    """The parts, a list, as a list, a tuple or a namedtuple, as `tree` is."""
    if isinstance(tree, list):
        return parts
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


def leaves_of(tree: Any) -> list[Any]:
    """The leaves, in order."""
    leaves = []
    map_leaves(lambda name, leaf: leaves.append(leaf), tree)
    return leaves


def same_structure(first: Any, second: Any) -> bool:
    """Whether two structures differ in their leaves alone. None counts as part of the structure, and the order of a
    dict's keys does not."""
    if isinstance(first, dict):
        return (isinstance(second, dict) and first.keys() == second.keys()
                and all(same_structure(part, second[key]) for key, part in first.items()))
    if isinstance(first, (list, tuple)):
        return (isinstance(second, (list, tuple)) and isinstance(first, list) == isinstance(second, list)
                and len(first) == len(second) and all(map(same_structure, first, second)))
    return not isinstance(second, (dict, list, tuple)) and (first is None) == (second is None)
