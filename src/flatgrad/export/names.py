"""Names of the numbers that a function has captured, as its Python says them; and for C, groups of numbers with one name.

A name is a path from a variable that the function reads. In Modules it goes on as in `Module.named_parameters`, as
``'model.layers.0.weight[3, 1]'``, and elsewhere as one writes it, ``"theta['mass']"``. Looking for names takes a time that
is linear in what the variables lead to, and runs no code of users: no property, no ``__getattr__``, no ``__eq__``.
"""
from __future__ import annotations

import functools
import re
import sys
import types
from collections import OrderedDict, defaultdict, deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flatgrad import _core
from flatgrad._core import Tensor, Value, Weights, _Replays
from flatgrad.arguments import shortened
from flatgrad.signatures import OURS, names_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad.nn.layers import Neuron

__all__ = ["Group", "Stem", "groups_of", "name_at", "names_of"]


class Stem(NamedTuple):
    """What the names of numbers in one array or list begin with.

    Attributes
    ----------
    text : str
    parts : tuple of (str, object)
        What it is made of: kinds and what each is, see `spelled`.
    joined : bool
        Whether indices stand in one pair of brackets: those of Tensors, and in Modules.
    """

    text: Any
    parts: Any
    joined: Any


class Group(NamedTuple):
    """Numbers that one name stands for.

    Attributes
    ----------
    name : str
        With i, j, ... for indices: ``'layers[0].neurons[i].w[j]'``.
    identifier : str
        The same for C, in capitals, without the indices, and without the variable if all names begin with the same one.
    first : int
        The first number.
    shape, strides : tuple of int
        Number (i, j) is first + i * strides[0] + j * strides[1].
    """

    name: Any
    identifier: Any
    first: Any
    shape: Any
    strides: Any


MOST = 1_000_000   # objects that are looked into
DEEPEST = 64       # attributes and indices of a name
LINES = 48         # groups, for which an index in the middle of a name is told as a number
MOST_GROUPS = 256

ROOT, ATTRIBUTE, KEY, AT, CHILD, ANY = "root", "attribute", "key", "at", "child", "any"

SHOWN = frozenset(map(id, (bool, int, float, str, bytes, type(None))))   # keys of these types are named

CONTAINERS = (list, tuple, deque, dict)
ITERATE: dict[type[Any], Any] = {kind: kind.__iter__ for kind in (list, tuple, deque)}
NOTHING = frozenset(map(id, (bool, int, float, complex, str, bytes, bytearray, type(None), type(...), range, slice, set,
                             frozenset)))   # ids, as a class of a user may define how it is hashed and compared

OF_PYTHON = types.MemberDescriptorType, types.GetSetDescriptorType   # attributes that are read by no code of users

# How Python itself reads these, whatever a class says.
bases_of = type.__dict__["__mro__"].__get__
attributes_of = type.__dict__["__dict__"].__get__


def names_of(fn: Any, core: Any, given: Iterator[Any] = ()) -> list[Any]:
    """What a function calls the numbers that its program has captured.

    Parameters
    ----------
    fn : callable
    core : _Program
    given : iterable of (str, object)
        Static arguments, by the names of their parameters.

    Returns
    -------
    list of ((Stem, tuple of int) or None)
        For each number, in the order of `_core._captured_numbers`; the tuple has its indices. None: no variable that the
        function reads leads there.
    """
    walk = Walk(core)
    for name, x in given:
        walk.root(name, "", x)
    walk.look()
    walk.root("", "", fn)
    walk.look()
    return walk.names()


def name_at(name: tuple[Any, Any] | None, k: int) -> str:
    """The name of number `k`, of which `names_of` says that."""
    if name is None:
        return f"parameter {k}"
    stem, index = name
    if stem.joined and index:
        return f"{stem.text}[{', '.join(map(str, index))}]"
    return stem.text + "".join([f"[{i}]" for i in index])


class Root:
    """A variable, and the function that reads it."""

    name: str
    function: str

    def __init__(self, name: str, function: str) -> None:
        self.name, self.function = name, function


class Walk:
    """Goes from variables to Values and Tensors that a program has captured.

    Parameters
    ----------
    core : _Program
    """

    captured: set[int]
    looked_at: set[int]
    roots: deque[Any]
    found: list[Any]
    seen: set[int]
    kept: list[Any]
    queue: deque[Any]

    def __init__(self, core: Any) -> None:
        self.core = core
        self.captured = set(map(id, core.captured))
        self.seen, self.kept = set(), []   # ids, and what they are of, so that nothing else gets the id
        self.looked_at = set()   # ids of classes
        self.roots = deque()
        self.found = []   # (Value or Tensor, parts, index, whether joined)

    def root(self, name: str, function: str, x: Any, *more: Any) -> None:
        """A variable to be looked at, after those that are known."""
        if id(type(x)) not in NOTHING:
            self.roots.append((((ROOT, Root(name, function)), *more), x))

    def look(self) -> None:
        """Go as far as variables lead: in all directions at once, so that short names come first."""
        while self.roots and len(self.kept) < MOST:
            parts, x = self.roots.popleft()
            self.queue = deque([(x, parts, (), False)])
            while self.queue and len(self.kept) < MOST:
                self.visit(*self.queue.popleft())

    def visit(self, x: Any, parts: tuple[Any, ...], pending: tuple[Any, ...], inside: bool) -> None:
        """Look at an object, and put those that it has into the queue.

        Parameters
        ----------
        x : object
        parts : tuple
            The path to the last object with attributes, and the attribute.
        pending : tuple
            Indices and keys from there on.
        inside : bool
            Whether that object is a Module.
        """
        kind = type(x)
        bases = bases_of(kind)
        if has(bases, Value) or has(bases, Tensor):
            if _core._is_captured(self.captured, x):
                self.note(x, has(bases, Tensor), parts, pending, inside)
            return
        if id(x) in self.seen or len(parts) + len(pending) > DEEPEST:
            return
        self.seen.add(id(x))
        self.kept.append(x)
        container = next((base for base in CONTAINERS if has(bases, base)), None)
        if container is not None:
            self.visit_container(x, container, parts, pending, inside)
        elif kind is np.ndarray:
            if x.dtype == object:
                for index, item in zip(np.ndindex(x.shape), x.ravel().tolist()):
                    self.queue.append((item, parts, pending + tuple([(AT, k) for k in index]), inside))
        elif kind is types.FunctionType:
            self.visit_function(x)
        elif kind is types.MethodType:
            self.root((parameters_of(x.__func__) or ["self"])[0], "", x.__self__)
            self.root("", "", x.__func__)
        elif kind is functools.partial:
            names = parameters_of(x.func)
            for k, item in enumerate(x.args):
                self.root(names[k] if k < len(names) else f"argument_{k}", "", item)
            for name, item in x.keywords.items():
                self.root(name, "", item)
            self.root("", "", x.func)
        elif has(bases, _Replays):
            self.root("", "", (own_dict(x) or {}).get("fn"))
        elif has(bases, types.ModuleType) or any(is_of(base, "flatgrad.optim") for base in bases):
            return   # what a function reads of a module is a root
        elif has(bases, type):
            self.visit_class(x, parts + pending, False)
        else:
            self.visit_object(x, bases, parts, pending, inside)

    def note(self, x: Tensor | Value, is_tensor: bool, parts: tuple[Any, ...], pending: tuple[Any, ...],
             inside: bool) -> None:
        index = ()
        if not is_tensor:
            while pending and pending[-1][0] == AT:
                index, pending = (pending[-1][1], *index), pending[:-1]
        if inside:
            pending = as_children(pending)
        self.found.append((x, parts + pending, index, inside or is_tensor))

    def visit_container(self, x: Any, container: type[Any], parts: tuple[Any, ...], pending: tuple[Any, ...],
                        inside: bool) -> None:
        inside = inside and container is not deque   # where a Module looks for parameters
        if container is dict:
            items = [((AT if not inside and type(key) is int and 0 <= key < 2**31 else KEY, key), item)
                     for key, item in list(dict.items(x))]
        else:
            kind = KEY if inside and not is_list_of_values(x) else AT
            items = [((kind, k), item) for k, item in enumerate(ITERATE[container](x))]
            if inside and not pending and parts[-1] == (ATTRIBUTE, "neurons") and self.visit_neurons(items, parts[:-1]):
                return
        for place, item in items:
            if id(type(item)) not in NOTHING:
                self.queue.append((item, parts, (*pending, place), inside))

    def visit_neurons(self, items: list[tuple[tuple[Any, ...], Neuron]], parts: tuple[Any, ...]) -> bool:
        """Those of a layer, of which the state dict knows as of two arrays. False: it does not."""
        neurons = [neuron_of(item) for _, item in items]
        if not neurons or None in neurons or len({(len(w), b is None) for w, b in neurons}) > 1 or not neurons[0][0]:
            return False
        for i, (w, b) in enumerate(neurons):
            for j, x in enumerate(w):
                self.queue.append((x, (*parts, (ATTRIBUTE, "weight")), ((AT, i), (AT, j)), True))
            if b is not None:
                self.queue.append((b, (*parts, (ATTRIBUTE, "bias")), ((AT, i),), True))
        return True

    def visit_object(self, x: Any, bases: tuple[Any, ...], parts: tuple[Any, ...], pending: tuple[Any, ...],
                     inside: bool) -> None:
        is_module = any(is_of(base, "flatgrad.nn.module") for base in bases)
        if inside and is_module:   # as in its state dict
            pending = as_children(pending)
        parts += pending
        neuron = neuron_of(x)
        if neuron is not None:
            self.attribute("weight" if is_module else "w", neuron[0], parts, is_module)
            self.attribute("bias" if is_module else "b", neuron[1], parts, is_module)
        own = own_dict(x)
        for name, item in list(own.items()) if own else ():
            if type(name) is str:
                self.attribute(name, item, parts, is_module)
        for base in bases:
            if of_users(base):
                for name, entry in attributes_of(base).items():
                    if type(entry) is types.MemberDescriptorType:   # of __slots__
                        try:
                            self.attribute(name, entry.__get__(x), parts, is_module)
                        except AttributeError:   # it has none yet
                            pass
                self.visit_class(base, parts, is_module)

    def visit_class(self, x: type[Any], parts: tuple[Any, ...], is_module: bool) -> None:
        """What a class has, which its instances have as well."""
        if not of_users(x) or id(x) in self.looked_at:
            return
        self.looked_at.add(id(x))
        self.kept.append(x)
        for name, entry in [pair for pair in attributes_of(x).items() if type(pair[0]) is str]:
            if type(entry) is staticmethod or type(entry) is classmethod:
                entry = entry.__func__
            for function in (entry.fget, entry.fset) if type(entry) is property else (entry,):
                if type(function) is types.FunctionType:
                    self.root("", "", function)
                elif name[:2] != "__" and not has(OF_PYTHON, type(function)):
                    self.attribute(name, function, parts, is_module)

    def attribute(self, name: str, x: Any, parts: tuple[Any, ...], is_module: bool) -> None:
        if id(type(x)) not in NOTHING:
            self.queue.append((x, (*parts, (ATTRIBUTE, name)), (), is_module))

    def visit_function(self, fn: Callable[..., Any]) -> None:
        """The variables that a function reads: Modules first, which tell names best."""
        variables = []
        code = fn.__code__
        for name, cell in zip(code.co_freevars, fn.__closure__ or ()):
            try:
                variables.append((name, cell.cell_contents))
            except ValueError:   # it has none yet
                pass
        positional = code.co_varnames[:code.co_argcount]
        defaults = fn.__defaults__ or ()
        variables += zip(positional[len(positional) - len(defaults):], defaults)
        variables += (fn.__kwdefaults__ or {}).items()
        attributes = ()
        if of_users(fn):
            named, attributes, _ = names_in(code)
            order = {name: k for k, name in enumerate(code.co_names)}
            for name in sorted(named, key=lambda name: (order.get(name, len(order)), name)):
                if name in fn.__globals__:
                    variables.append((name, fn.__globals__[name]))
        for name, x in sorted(variables, key=lambda pair: not is_module(pair[1])):
            if not has(bases_of(type(x)), types.ModuleType):
                self.root(name, code.co_name, x)
            elif not is_known(name_of_module(x)):
                for attribute in sorted(attributes & own_dict(x).keys()):
                    self.root(name, code.co_name, own_dict(x)[attribute], (ATTRIBUTE, attribute))

    def names(self) -> list[Any]:
        """The name of each number, or None."""
        names = [None] * len(_core._captured_numbers(self.core)[0])
        places = iter(_core._captured_places(self.core, [x for x, *_ in self.found]))
        stems, roots = {}, {}
        for x, parts, index, joined in self.found:
            stem = None
            for more in [()] if not has(bases_of(type(x)), Tensor) else np.ndindex(Tensor.shape.__get__(x)):
                place = next(places)
                if place < 0 or names[place] is not None:
                    continue
                if stem is None:
                    stem = stems.get((parts, joined))
                if stem is None:
                    named = ((ROOT, said(parts[0][1], roots)), *parts[1:])
                    stem = stems[parts, joined] = Stem(spelled(named), named, joined)
                names[place] = stem, index + more
        return names


def said(root: Root, roots: dict[str, Any]) -> str:
    """The name of a variable, with that of the function if another one has its name."""
    text, count = root.name, 1
    while roots.setdefault(text, root) is not root:
        text = f"{root.function}.{root.name}" if count == 1 and root.function else f"{root.name}_{count + 1}"
        count += 1
    return text


def spelled(parts: tuple[Any, ...] | list[tuple[str, str]]) -> str:
    """A path as text."""
    text = ""
    for kind, part in parts:
        if kind == ROOT:
            text += part
        elif kind in (ATTRIBUTE, CHILD):
            text += f".{part if type(part) is str else shown(part)}"
        else:
            text += f"[{part if kind == ANY else shown(part)}]"
    return text.lstrip(".")


def shown(key: str | tuple[int, int] | int) -> str:
    return shortened(key) if id(type(key)) in SHOWN else "key"


def as_children(places: tuple[Any, ...]) -> tuple[Any, ...]:
    """Indices and keys as a state dict has them, with dots."""
    return tuple([(CHILD, key) for _, key in places])


# ---- looking at objects ----

def is_list_of_values(x: Any, depth: int = 0) -> bool:
    """Whether the state dict knows this as one array: as in flatgrad.nn.module, without code of users."""
    container = next((base for base in (list, tuple) if has(bases_of(type(x)), base)), None)
    items = list(ITERATE[container](x)) if container is not None and depth < DEEPEST else []
    return bool(items) and all([has(bases_of(type(item)), Value) or is_list_of_values(item, depth + 1)
                                for item in items])


def has(classes: tuple[Any, ...], kind: type[Any]) -> bool:
    """Whether that class is there; `in` might compare it by code of a user."""
    return any([known is kind for known in classes])


def own_dict(x: Any) -> dict[str, Any] | None:
    """The dict with the attributes of an object, or None: what Python has, not what a class says that it has."""
    for base in bases_of(type(x)):
        entry = attributes_of(base).get("__dict__")
        if entry is not None:
            own = entry.__get__(x) if has(OF_PYTHON, type(entry)) else None
            return own if type(own) is dict else None
    return None


def package_of(name: str | None) -> str:
    return name.partition(".")[0] if type(name) is str else ""


def is_known(name: str | None) -> bool:
    return package_of(name) in OURS or package_of(name) in sys.stdlib_module_names


def of_users(x: Callable[..., Any] | type[Any]) -> bool:
    """Whether a class or a function is neither Python's nor ours."""
    own = attributes_of(x).get("__module__") if has(bases_of(type(x)), type) else x.__module__
    return not is_known(own)


def is_of(base: type[Any], module: str) -> bool:
    own = attributes_of(base).get("__module__")
    return type(own) is str and (own == module or own.startswith(module + "."))


def is_module(x: Any) -> bool:
    return any(is_of(base, "flatgrad.nn.module") for base in bases_of(type(x)))


def name_of_module(x: ModuleType) -> str:
    return own_dict(x).get("__name__")


def neuron_of(x: Any) -> tuple[list[Value], Value] | None:
    """The weights and the bias of a neuron; None if it has other weights than a list, or is none."""
    if not has(bases_of(type(x)), Weights):
        return None
    try:
        w, b = Weights.w.__get__(x), Weights.b.__get__(x)
    except AttributeError:   # it has none yet
        return None
    if type(w) is not list and type(w) is not tuple:
        return None
    return list(w), b if Weights.has_bias.__get__(x) else None


def parameters_of(fn: Callable[..., Any]) -> tuple[Any, ...]:
    """The names of positional parameters."""
    return fn.__code__.co_varnames[:fn.__code__.co_argcount] if type(fn) is types.FunctionType else ()


# ---- names in C ----

def groups_of(names: list[tuple[Stem, tuple[Any, ...]] | None], lines: int = LINES) -> list[Group]:
    """What C calls numbers: one name for those of an array, wherever these lie.

    Parameters
    ----------
    names : list of ((Stem, tuple of int) or None)
        As `names_of` has them, of numbers in this order.
    lines : int, optional
        If there are more names than that, elements of a list of objects share theirs.

    Returns
    -------
    list of Group
        By their first numbers, `MOST_GROUPS` of the largest. Identifiers are all different.

    Examples
    --------
    >>> from flatgrad.export.names import Stem, groups_of
    >>> w, b = [Stem(f"net.{name}", (("root", "net"), ("attribute", name)), True) for name in "wb"]
    >>> for group in groups_of([(w, (0, 0)), (w, (0, 1)), (b, (0,)), (w, (1, 0)), (w, (1, 1)), (b, (1,))]):
    ...     print(group.name, group.identifier, group.first, group.shape, group.strides)
    net.w[i, j] W 0 (2, 2) (3, 1)
    net.b[i] B 2 (2,) (3,)
    """
    by_stem, unknown = OrderedDict(), []
    for k, name in enumerate(names):
        if name is None:
            if not unknown or unknown[-1][0] + unknown[-1][1] != k:
                unknown.append([k, 0])
            unknown[-1][1] += 1
        else:
            by_stem.setdefault(name[0], []).append((name[1], k))
    best = None
    for merged in range(1 + max([len(numbered(stem)) for stem in by_stem], default=0)):
        found = blocks_of(by_stem, merged)
        if best is None or len(found) < len(best):
            best = found
        if len(found) <= lines:
            break
    found = [*(best or ()), *[(first, ((ROOT, "parameter"), (AT, first)), False, (count,), (1,)) for first, count in unknown]]
    if len(found) > MOST_GROUPS:
        found = sorted(found, key=lambda block: -np.prod(block[3]))[:MOST_GROUPS]
    found.sort(key=lambda block: block[0])
    roots = {parts[0] for _, parts, *_ in found}
    common = len(roots) == 1 and all(any(kind in (ATTRIBUTE, KEY) for kind, _ in parts) for _, parts, *_ in found)
    taken, groups = set(), []
    for first, parts, joined, shape, strides in found:
        identifier = unique(identifier_of(parts[common:]), taken)
        groups.append(Group(lettered(parts, joined, len(shape)), identifier, first, shape, strides))
    return groups


def numbered(stem: Stem) -> list[Any]:
    """Where a name has indices that are followed by attributes."""
    return [k for k, (kind, part) in enumerate(stem.parts) if kind in (AT, CHILD) and type(part) is int]


def blocks_of(by_stem: OrderedDict[Any, Any], merged: int) -> list[tuple[int | tuple[Any, ...], ...]]:
    """Blocks of numbers that lie regularly: (first, parts, whether joined, shape, strides). The last `merged` indices
    that are followed by attributes are indices of blocks."""
    found = defaultdict(list)
    for stem, numbers in by_stem.items():
        at = numbered(stem)
        at = at[max(len(at) - merged, 0):]
        parts = tuple([(ANY, kind) if k in at else (kind, part) for k, (kind, part) in enumerate(stem.parts)])
        own = tuple([stem.parts[k][1] for k in at])
        depth = len(numbers[0][0])
        found[parts + ((ANY, AT),) * depth, stem.joined].extend([(own + index, k) for index, k in numbers])
    blocks = []
    for (parts, joined), numbers in found.items():
        index, places = np.array([i for i, _ in numbers]).reshape(len(numbers), -1), np.array([k for _, k in numbers])
        cut(blocks, parts, joined, index, places)
    return blocks


def cut(blocks: list[Any], parts: tuple[tuple[str, str], tuple[str, str]], joined: bool, index: NDArray[Any],
        places: NDArray[Any]) -> None:
    """Add the numbers as a block, if they lie regularly, or cut them by the first index."""
    shape = tuple((index.max(0) + 1).tolist()) if index.shape[1] else ()
    at = next((k for k, (kind, _) in enumerate(parts) if kind == ANY), None)
    if len(places) == np.prod(shape, dtype=float):
        order = np.argsort(np.ravel_multi_index(tuple(index.T), shape)) if shape else np.arange(1)
        block = places[order].reshape(shape)
        first = block.flat[0]
        strides = tuple([int(np.take(block, 1, axis).flat[0] - first) if size > 1 else 1
                         for axis, size in enumerate(shape)])
        if (block == first + sum((s * k for s, k in zip(strides, np.indices(shape))), np.zeros(shape, int))).all():
            blocks.append((int(first), parts, joined, shape, strides))
            return
    order = np.argsort(index[:, 0], kind="stable")
    ends = np.flatnonzero(np.diff(index[order, 0])) + 1
    for chosen in np.split(order, ends):
        value = int(index[chosen[0], 0])
        cut(blocks, (*parts[:at], (parts[at][1], value), *parts[at + 1:]), joined, index[chosen, 1:], places[chosen])


LETTERS = "ijklmn"


def lettered(parts: tuple[Any, Any], joined: bool, count: int) -> str:
    """The name of a block, with letters for indices."""
    letters = list(LETTERS[:count]) if count <= len(LETTERS) else [f"i{k}" for k in range(count)]
    last = len(parts)
    while last > 1 and parts[last - 1][0] in (ANY, AT):   # those of the number itself
        last -= 1
    text = spelled([(ATTRIBUTE if part == CHILD else ANY, letters.pop(0)) if kind == ANY else (kind, part)
                    for kind, part in parts[:last]])
    index = [letters.pop(0) if kind == ANY else str(part) for kind, part in parts[last:]]
    return text + ("[" + ", ".join(index) + "]" if joined and index else "".join([f"[{i}]" for i in index]))


def identifier_of(parts: tuple[Any, Any]) -> str:
    words = [part if type(part) is str else shown(part) for kind, part in parts if kind != ANY]
    text = re.sub(r"[^A-Za-z0-9]+", "_", "_".join(words)).strip("_").upper()
    return text or "PARAMETER"


def unique(text: str, taken: set[str]) -> str:
    count, name = 1, text
    while name in taken:
        count += 1
        name = f"{text}_{count}"
    taken.add(name)
    return name
