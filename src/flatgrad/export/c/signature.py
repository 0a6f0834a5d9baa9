"""Arguments and results of a Python function as parameters of a C function."""
from __future__ import annotations


from typing import TYPE_CHECKING, NamedTuple

from flatgrad._core import _Hole
from flatgrad.export.exported import Leaf
from flatgrad.structures import Node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from flatgrad._core import _Path

__all__ = ["Field", "inputs_of", "outputs_of", "parts_of", "shape_text", "size_of"]

MOST_FIELDS = 16   # of one argument: what has more parts is passed as one array


class Field(NamedTuple):
    """A parameter of C.

    Attributes
    ----------
    path : str
        What it is in Python, as text: "x['a'][0]".
    name : str
        Its name in C.
    shape : tuple of int
        () for a number.
    slots : sequence of int
        Its numbers row by row: their slots, or of a result which of the results they are.
    """

    path: Any
    name: Any
    shape: Any
    slots: Any


def size_of(shape: Any) -> Any:
    size = 1
    for n in shape:
        size *= n
    return size


def shape_text(shape: Any) -> Any:
    """What stands between the brackets of an array."""
    return " * ".join(map(str, shape))


def inputs_of(arguments: Any, names: Any) -> Any:
    """The fields of a list of `Argument`.

    Parameters
    ----------
    arguments : list of Argument
    names : Names
    """
    fields = []
    for argument in arguments:
        found = list(parts_of(argument.tree, argument.name, argument.name, leaf_of))
        if len(found) > MOST_FIELDS:
            found = [(argument.name, argument.name, (argument.count,),
                      [slot for _, _, _, slots in found for slot in slots])]
        fields += [Field(path, names.new(name), shape, slots) for path, name, shape, slots in found]
    return fields


def outputs_of(template: Any, results: Any, names: Any) -> Any:
    """The fields of a result.

    Parameters
    ----------
    template : object
        Its structure, with Holes.
    results : list of (tuple, bool)
        The shape of each Value and Tensor.
    names : Names
    """
    begins, at = [], 0
    for shape, _ in results:
        begins.append(at)
        at += size_of(shape)

    def hole(x):
        if type(x) is not _Hole:
            return None
        shape = results[x.number][0]
        return shape, range(begins[x.number], begins[x.number] + size_of(shape))
    found = list(parts_of(template, "result", "", hole))
    if len(found) > MOST_FIELDS:
        found = [("result", "result", (sum(len(slots) for _, _, _, slots in found),),
                  [k for _, _, _, slots in found for k in slots])]
    return [Field(path, names.new(name or "result", f"{name or 'value'}_result"), shape, slots)
            for path, name, shape, slots in found]


def leaf_of(x: Any) -> Any:
    return (x.shape, range(x.first, x.first + size_of(x.shape))) if type(x) is Leaf else None


def parts_of(x: Any, path: _Path, name: Any, leaf: Any, whole: bool = True) -> Iterator[Any]:
    """(path, name, shape, slots) of each part of a structure that is a number or an array, or if `whole` a list of the
    like with one shape. leaf(x): the shape and the slots of a leaf, None of anything else."""
    found = array_of(x, leaf) if whole else leaf(x)
    if found is not None:
        yield (path, name, *found)
        return
    if isinstance(x, dict):
        parts = [(f"[{key!r}]", str(key), part) for key, part in x.items()]
    elif type(x) is Node:
        parts = [(x.path("", k), key, part) for k, (key, part) in enumerate(zip(x.kind.names or map(str, range(len(x))), x))]
    elif hasattr(x, "_fields"):
        parts = [(f".{key}", key, part) for key, part in zip(x._fields, x)]
    else:
        parts = [(f"[{k}]", str(k), part) for k, part in enumerate(x)] if isinstance(x, (list, tuple)) else []
    for place, key, part in parts:
        yield from parts_of(part, path + place, named(name, key), leaf, whole)


def named(name: Any, part: Any) -> Any:
    return f"{name}_{part}" if name else part if not part[:1].isdigit() else f"result_{part}"


def array_of(x: Any, leaf: Any) -> Any:
    """The shape and the slots of a number, an array, or a list of those with the same shape; or None."""
    found = leaf(x)
    if found is not None or type(x) is Node or not isinstance(x, (list, tuple)) or hasattr(x, "_fields") or not x:
        return found
    parts = [array_of(part, leaf) for part in x]
    if None in parts or len({shape for shape, _ in parts}) > 1:
        return None
    return (len(parts), *parts[0][0]), [slot for _, slots in parts for slot in slots]
