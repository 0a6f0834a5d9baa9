"""Structures: lists, tuples and dicts, nested, of numbers, Values, Tensors and arrays.

Users call these arguments and results; JAX calls them pytrees. A leaf is anything else than a list, a tuple or a dict.
A namedtuple keeps its type; a subclass of dict becomes a dict.
"""

__all__ = ["leaves_of", "like", "map_leaves", "same_structure"]


def map_leaves(function, tree, name=""):
    """The structure with ``function(name, leaf)`` in place of each leaf; the name is that of the whole and the path
    to the leaf, such as ``x[0]['w']``."""
    if isinstance(tree, dict):
        return {key: map_leaves(function, part, f"{name}[{key!r}]") for key, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        return like(tree, [map_leaves(function, part, f"{name}[{k}]") for k, part in enumerate(tree)])
    return function(name, tree)


def like(tree, parts):
    """The parts, a list, as a list, a tuple or a namedtuple, as `tree` is."""
    if isinstance(tree, list):
        return parts
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


def leaves_of(tree):
    """The leaves, in order."""
    leaves = []
    map_leaves(lambda name, leaf: leaves.append(leaf), tree)
    return leaves


def same_structure(first, second):
    """Whether two structures differ in their leaves alone. None counts as part of the structure, and the order of a
    dict's keys does not."""
    if isinstance(first, dict):
        return (isinstance(second, dict) and first.keys() == second.keys()
                and all(same_structure(part, second[key]) for key, part in first.items()))
    if isinstance(first, (list, tuple)):
        return (isinstance(second, (list, tuple)) and isinstance(first, list) == isinstance(second, list)
                and len(first) == len(second) and all(map(same_structure, first, second)))
    return not isinstance(second, (dict, list, tuple)) and (first is None) == (second is None)
