"""The form of a checkpoint: dicts, lists, tuples, arrays, numbers, text and None, as named arrays.

One array is JSON text: the tree of dicts and lists. Each dict, tuple and array in the tree is a JSON object that names
its type. The other arrays of the file are the arrays in the tree; each is named by its path. Floats keep all their
bits.
"""
from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from flatgrad.arguments import shortened
from flatgrad.errors import ArgumentTypeError, StateError
from flatgrad.storage import save_arrays, stored_arrays

if TYPE_CHECKING:
    from typing import Any

    from flatgrad._core import _Path
    from flatgrad.storage import Stored

__all__ = ["load_tree", "save_tree"]

FORMAT = "flatgrad.train.Trainer"
VERSION = 1


def save_tree(path: _Path, tree: dict[str, Any]) -> None:
    """Write a dict to a file, completely or not at all."""
    arrays = {}
    structure = packed("", tree, arrays)
    text = json.dumps({"format": FORMAT, "version": VERSION, "tree": structure})
    save_arrays(path, {FORMAT: np.array(text), **arrays})


def load_tree(path: _Path, max_bytes: int | None = None) -> dict[str, Any]:
    """The dict from a file of `save_tree`, or a StateError; `max_bytes` as for `load_arrays`."""
    with stored_arrays(path, max_bytes) as arrays:
        if FORMAT not in arrays:
            raise StateError("expected a checkpoint of a Trainer, got the arrays "
                             f"{', '.join(map(shortened, list(arrays)[:5])) or 'of none'}")
        text = arrays[FORMAT]
        try:
            if text.shape != () or text.dtype.kind != "U":
                raise ValueError(f"its text is {text}")
            whole = json.loads(str(np.asarray(text)))
            version, tree = whole["version"], whole["tree"]
            if version == VERSION:
                return unpacked(tree, arrays)
        except StateError:
            raise
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise StateError(f"expected a checkpoint of a Trainer, got a damaged one ({shortened(error)})") from None
        raise StateError(f"expected a checkpoint of version {VERSION}, got version {shortened(version)}")


def size_of(tree: dict[str, Any]) -> int:
    """The number of bytes of all arrays in a dict."""
    arrays = {}
    packed("", tree, arrays)
    return sum(array.nbytes for array in arrays.values())


def packed(name: str, x: Any, arrays: dict[str, Any]) -> Any:
    """`x` in a form for JSON; arrays in `x` are added to `arrays`."""
    if x is None or isinstance(x, (bool, int, float, str)):
        # A value of a subclass, such as NumPy's float64, becomes a value of the base class.
        return x if type(x) in (type(None), bool, int, float, str) else next(
            kind(x) for kind in (bool, int, float, str) if isinstance(x, kind))
    if isinstance(x, np.generic):
        x = np.asarray(x)
        if x.dtype.kind in "biuf" and x.dtype.itemsize <= 8:
            return x.item()
    if isinstance(x, np.ndarray):
        if x.dtype.hasobject:
            raise ArgumentTypeError(f"{name}: expected an array of numbers, bools or text, got {x!r}")
        while name in arrays:   # keys with a slash may give the same name
            name += "'"
        arrays[name] = x
        return {"array": name}
    if isinstance(x, list):
        return [packed(f"{name}/{k}", item, arrays) for k, item in enumerate(x)]
    if isinstance(x, tuple):
        return {"tuple": [packed(f"{name}/{k}", item, arrays) for k, item in enumerate(x)]}
    if isinstance(x, dict):
        return {"dict": [[packed(name, key, arrays), packed(f"{name}/{key}" if name else str(key), item, arrays)]
                         for key, item in x.items()]}
    raise ArgumentTypeError(f"{name}: expected what a checkpoint can hold, numbers, text, None, arrays, and lists, "
                            f"tuples and dicts of these, got {x!r}")


def unpacked(x: Any, arrays: Stored) -> Any:
    if isinstance(x, list):
        return [unpacked(item, arrays) for item in x]
    if isinstance(x, dict):
        (kind, inner), = x.items()
        if kind == "array":
            return np.asarray(arrays[inner])
        if kind == "tuple":
            return tuple(unpacked(item, arrays) for item in inner)
        if kind == "dict":
            return {unpacked(key, arrays): unpacked(item, arrays) for key, item in inner}
        raise ValueError(f"unknown kind {kind!r}")
    return x
