"""A compiled function as those see it who write it anew: its program, its parameters, arguments and results.

All exports have the same parameters in the same order: the numbers that the function has captured and that take
gradients, as they lie on the tape, which is the order of ``model.parameters()`` and so of
`flatgrad.nn.utils.parameters_to_vector`. Everything else that it has captured is a constant of the export.
"""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flatgrad import _core
from flatgrad._core import _LEAVES, _Keywords, _Same, _Static
from flatgrad.arguments import shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError
from flatgrad.export.listing import listing
from flatgrad.export.names import groups_of, names_of
from flatgrad.export.names import name_at as name_of_number
from flatgrad.signatures import name_of, parameters_of
from flatgrad.structures import REGISTERED, Node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from flatgrad.export.names import Group
    from flatgrad.nn.layers import MLP
    from flatgrad.program import Compiled, Loaded, Program
    from numpy.typing import NDArray

__all__ = ["Argument", "Exported"]

NUMBER, VALUE, FROZEN, TENSOR, ARRAY = _LEAVES


class Leaf(NamedTuple):
    """A number, () for the shape, or an array: its first slot. `frozen`: it takes no gradients."""

    first: Any
    shape: Any
    frozen: Any


class Argument(NamedTuple):
    """An argument of the function.

    Attributes
    ----------
    place : int or str
        Its position in a call, counted with those that are static; or its keyword.
    name : str
        That of the parameter in Python, with a number behind it if there are several, as for ``*args``.
    tree : Leaf, list, tuple or dict
        A Leaf in place of each number and array; a static part of it is left as None.
    first, count : int
        Its numbers are slots in a row, those of dicts in their order.
    shape : tuple of int
        () for a number, that of an array, that of rows of numbers, or else one dimension.
    """

    place: Any
    name: Any
    tree: Any
    first: Any
    count: Any
    shape: Any


class Exported:
    """What is to be exported of a compiled function.

    Parameters
    ----------
    compiled : Compiled
    arguments : tuple, optional
        Arguments that the function takes, of which the structure counts. None: those of its last program.
    what : str
        The method that asks, for errors.

    Attributes
    ----------
    name : str
        Of the function.
    callee : _Callee
        What computes the results: `listing` of it is a Body.
    arguments : list of Argument
        Those that are not static, in their order: slots of `callee` from 1 on.
    parameters : ndarray of float64
        The parameters, as they are now.
    slots : ndarray of int
        The slot of each parameter.
    names : list of str
        Of each parameter, such as "model.layers.0.weight[3, 1]"; "parameter 17" where no variable that the function reads
        leads there.
    groups : list of Group
        The same for C: a name, an identifier, the first number, shape and strides of those that lie regularly.
    constants : dict of int to float
        What else is captured: the number of each slot.
    results : list of (tuple, bool)
        The shape of each result, and whether it is constant; the results of `callee` are theirs row by row.
    template : object
        The structure of the result, with Holes.
    """

    slots: NDArray[Any]
    parameters: NDArray[Any]
    compiled: Compiled[Any]

    size: int
    constants: dict[int, Any]
    gradients: dict[Any, Any]
    arguments: list[Argument]
    name: str
    what: str
    program: Program
    callee: Any
    template: Any
    results: tuple[Any, ...]

    def __init__(self, compiled: Compiled[Any], arguments: tuple[Any, ...] | None = None, what: str = "export") -> None:
        self.compiled, self.name, self.what = compiled, name_of(compiled.fn), what
        refuse_check(what, compiled)
        program = self.found(arguments)
        if program.core is None:
            raise ArgumentError(f"{what}: {self.name} returns a constant: there is nothing to compute")
        if program.draws is not None:
            raise ArgumentError(f"{what}: {self.name} draws random numbers; give it these as an argument")
        core = program.core
        leaves_captured(what, self.name, core)
        self.program, self.callee, self.template = program, _core._callee(core), program.template
        self.results, body = core.results, listing(self.callee)
        self.size = 0
        self.find_arguments(body.segments)
        numbers, wanted = _core._captured_numbers(core)
        captured = [slot for first, count in body.segments[len(core.shapes):] for slot in range(first, first + count)]
        self.slots = np.array([slot for slot, w in zip(captured, wanted) if w], int)
        self.parameters = np.array([x for x, w in zip(numbers, wanted) if w], float)
        self.constants = {slot: x for slot, x, w in zip(captured, numbers, wanted) if not w}
        for k, (module, name) in enumerate(program.buffers, len(core.shapes) - len(program.buffers)):
            first, count = body.segments[k]
            values = np.ravel(np.asarray(getattr(module, name), float))
            self.constants.update(zip(range(first, first + count), values.tolist()))
        self.wanted = wanted
        self.gradients = {}   # by what they are taken by

    @functools.cached_property
    def paths(self):
        """Of each parameter, as `names_of` has it."""
        found = names_of(self.compiled.fn, self.program.core, self.static_arguments())
        return [path for path, wanted in zip(found, self.wanted) if wanted]

    @functools.cached_property
    def names(self) -> list[str]:
        return [name_of_number(path, k) for k, path in enumerate(self.paths)]

    @functools.cached_property
    def groups(self) -> list[Group]:
        return groups_of(self.paths)

    def static_arguments(self) -> Iterator[tuple[str, MLP]]:
        """(name of the parameter, object) of arguments that are static and no constants."""
        parameters = list((parameters_of(self.compiled.fn) or {}).values())
        for place, part in places_of(self.program.structure):
            if type(part) is tuple and part and part[0] is _Static and type(part[-1]) is _Same:
                yield name_at(parameters, place), part[-1].x

    def found(self, arguments: None) -> Program:
        """The program."""
        compiled = self.compiled
        if arguments is None:
            if not compiled._programs:
                more = "" if self.what == "flat" else ", or give it arguments= that it takes"
                raise ArgumentError(f"{self.what}: {self.name} has no program yet: call it once{more}")
            return next(reversed(compiled._programs.values()))
        if not isinstance(arguments, (tuple, list)):
            raise ArgumentTypeError(f"{self.what}: arguments: expected a tuple of the arguments of {self.name}, got "
                                    f"{shortened(arguments)}")
        key = compiled._key(arguments, {}, [])
        return compiled._find(key) or compiled._record(key, arguments, {})

    def find_arguments(self, segments: tuple[Any, ...]) -> None:
        parameters = [p for p in (parameters_of(self.compiled.fn) or {}).values()]
        places = iter(segments)
        self.arguments = []
        for place, part in places_of(self.program.structure):
            first = self.size + 1
            tree = self.tree_of(part, places)
            if self.size >= first:
                self.arguments.append(Argument(place, name_at(parameters, place), tree, first,
                                               self.size + 1 - first, shape_of(tree, self.size + 1 - first)))

    def tree_of(self, part: str | tuple[Any, ...], places: Any) -> Leaf | list[Any] | dict[str, Leaf] | None:
        """The structure that a part of a key describes."""
        if part in (NUMBER, VALUE, FROZEN) or part[0] in (TENSOR, ARRAY):
            shape = part[1] if type(part) is tuple else ()
            first, count = next(places)
            self.size = first + count - 1
            frozen = not part[2] if part[0] == TENSOR else part == FROZEN or part[0] == ARRAY
            return Leaf(first, shape, frozen)
        kind = part[0]
        if kind is _Static:
            return None
        if issubclass(kind, dict):
            pairs = part[1:] if kind is dict else part[2:]
            return {key: self.tree_of(x, places) for key, x in pairs}
        if not issubclass(kind, (list, tuple)):   # Registered, of program.py
            return Node(REGISTERED[part[1][-1].x], None, [self.tree_of(x, places) for x in part[3:]])
        parts = [self.tree_of(x, places) for x in part[1:]]
        return kind(*parts) if hasattr(kind, "_fields") else kind(parts)

    def gradient(self, by: str = "parameters") -> Any:
        """The program that returns the result, one number, and then its gradient.

        Parameters
        ----------
        by : {"parameters", "arguments", "both"}
            What the gradient is taken by.

        Returns
        -------
        (_Callee, dict of int to int)
            The callee, with the operands of `callee`; and for slots of parameters and arguments to which gradients
            flow, which of its results, counted from 0, is the derivative.
        """
        found = self.gradients.get(by)
        if found is None:
            n_inputs, body = len(self.program.core.shapes), listing(self.callee)
            wanted = [(k < n_inputs) in {"parameters": (False,), "arguments": (True,)}.get(by, (False, True))
                      for k in range(len(body.segments))]
            callee, begins = _core._with_gradients(self.callee, wanted)
            found = self.gradients[by] = callee, {
                body.segments[k].first + j: at + j for k, at in begins for j in range(body.segments[k].count)}
        return found


def places_of(structure: tuple[Any, ...]) -> Iterator[tuple[Any, Any] | None]:
    """The place of each argument, as Argument has it, and what a key says of it."""
    for k, part in enumerate(structure):
        yield from part[1:] if type(part) is tuple and part and part[0] is _Keywords else [(k, part)]


def refuse_check(what: str, compiled: Compiled[Any] | Loaded) -> None:
    """An error for a function whose calls are checked, as those of exports are not."""
    if compiled.check:
        raise ArgumentError(f"{what}: expected a function of compile(check=False), as what is exported does not check, "
                            f"got {name_of(compiled.fn)} with check=True; compile it without that")


def refuse_gradients(what: str, name: str, program: Program, parameters: list[Any] = ()) -> None:
    """An error if an argument takes gradients, which would not flow to it. parameters: of the function."""
    for place, part in places_of(program.structure):
        if takes_gradients(part):
            raise ArgumentTypeError(f"{what}: {name}: {name_at(parameters, place)}: expected numbers and arrays, got a "
                                    "Value or a Tensor that takes a gradient, which would not flow there; write x.data")


def takes_gradients(part: tuple[Any, ...] | str) -> bool:
    """Whether a Value or a Tensor of a part of a key does."""
    if type(part) is not tuple:
        return part == VALUE
    kind = part[0]
    if kind in (TENSOR, ARRAY) or kind is _Static:
        return kind == TENSOR and part[2]
    if issubclass(kind, dict):
        return any(takes_gradients(x) for _, x in (part[1:] if kind is dict else part[2:]))
    return any(map(takes_gradients, part[1:]))


def leaves_captured(what: str, name: str, core: Any) -> list[Any]:
    """The Values and Tensors that a program has captured and gradients flow to; an error if some gradients flow on."""
    leaves, computed = _core._captured_leaves(core)
    if computed:
        raise ArgumentError(f"{what}: {name} has captured the result of an operation, {shortened(computed[0])}, and the "
                            "gradient through it would be lost. Compute it within the function, or write "
                            "x.data for a constant")
    return leaves


def name_at(parameters: list[Any], place: int | str) -> str:
    """The name of the parameter that takes the argument at a position, or by a keyword."""
    if isinstance(place, str):
        return place
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if place < len(positional):
        return positional[place].name
    several = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
    return f"{several[0] if several else 'argument'}_{place - len(positional)}"


def shape_of(tree: Leaf | list[Any] | dict[str, Leaf], count: int) -> tuple[Any, ...]:
    if type(tree) is Leaf:
        return tree.shape
    if isinstance(tree, (list, tuple)):
        shapes = {shape_of(part, 0) if isinstance(part, (Leaf, list, tuple)) else None for part in tree}
        if len(shapes) == 1 and None not in shapes and len(shape := shapes.pop()) < 2:
            return (len(tree), *shape)
    return (count,)
