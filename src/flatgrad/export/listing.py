"""What a program consists of: the instructions that writers of other languages go by.

A listing numbers slots from 1 on: first those of the operands, its area, then constants and the results of
instructions.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flatgrad import _core

if TYPE_CHECKING:
    from typing import Any

__all__ = ["Body", "Instruction", "Lanes", "Scan", "View", "listing"]


class Instruction(NamedTuple):
    """One instruction.

    Attributes
    ----------
    op : str
        The ID of its row in ops.def, such as "TANH", or "LAYER".
    first : int
        The first slot of its results, which lie in a row.
    rows, cols : int
        Of the results; 1 and 1 for a single operation.
    param : str
        What a "LAYER" or a "MAP" does with each element: the ID of a row, "LEAF" for nothing.
    immediate : int
        The exponent of "POWI", also as `param`; for "TAKE", 0: rows of the table, 1: an element of each row.
    operands : tuple of int or of View
        The slots of a single operation, or the views of an instruction of many.
    labels : tuple of int
        Of "CROSS_ENTROPY", one for each row.
    callee : _Callee or None
        What a "CALL" computes; `listing` tells what that is.
    """

    op: Any
    first: Any
    rows: Any
    cols: Any
    param: Any
    immediate: Any
    operands: Any
    labels: Any
    callee: Any


class View(NamedTuple):
    """A matrix of slots.

    Attributes
    ----------
    rows, cols : int
    first : int
        The slot of the first element; 0 where the slots are listed.
    down, across : int
        From a row to the next, and from a column to the next; 0 where a row or a column is repeated.
    listed : tuple of int or None
        All slots row by row, where they lie in no order.
    constant : bool
        Whether no gradient flows through it: where it was detached, or its numbers take none, as those of arrays.
    """

    rows: Any
    cols: Any
    first: Any
    down: Any
    across: Any
    listed: Any
    constant: Any = False


class Segment(NamedTuple):   # operands in a row
    first: Any
    count: Any


def slots_of(view: Any) -> Any:
    """The slots of a View, an array of its rows and columns."""
    if view.listed is not None:
        return np.array(view.listed).reshape(view.rows, view.cols)
    return view.first + view.down * np.arange(view.rows)[:, None] + view.across * np.arange(view.cols)


class Body:
    """A program.

    Attributes
    ----------
    segments : tuple of Segment
        Its operands: of inputs, then of what is captured.
    area, nodes : int
        Slots 1 to `area` are operands, and holes that nobody reads; all slots are below `nodes`.
    constants : dict of int to float
    instructions : list of Instruction
    results : tuple of int
        Slots; some may be the same, or operands, or constants.
    ruled : bool
        Whether its gradients go by a rule, of which these instructions know nothing: that of `custom_derivative`.
    rule, gives
        That rule: a callee or None, and for each segment the first of its results, from 1 on, or 0.
    """

    segments: tuple[Any, ...]
    instructions: list[Instruction]
    results: tuple[Any, ...]
    area: int
    nodes: int
    constants: dict[int, Any]
    ruled: bool
    rule: None
    gives: None

    def __init__(self, found: dict[str, Any]) -> None:
        self.segments = tuple(Segment(*x) for x in found["segments"])
        self.area, self.nodes, self.constants = found["area"], found["nodes"], found["constants"]
        self.instructions = [instruction(x) for x in found["instructions"]]
        self.results = found["results"]
        self.ruled, self.rule, self.gives = "rule" in found, found.get("rule"), found.get("gives")


class Scan:
    """A program that is computed for one step after the other.

    Its operands are the first carry, the x of all steps, and what is the same at each step; its results are the last
    carry, and the outputs of all steps, of each output one step after the other.

    Attributes
    ----------
    segments : tuple of Segment
    step : _Callee
        Its program: from the carry, x and the rest to the next carry and the outputs.
    length : int
    carries, xs : int
        How many segments are those of the carry, and of x.
    n_carry, n_x : int
        Numbers of each step.
    sizes : tuple of int
        Numbers of each output at a step.
    backwards : bool
        Whether the first step takes the last x and gives the last output.
    n_results : int
    """

    segments: Any

    def __init__(self, found: Any) -> None:
        self.segments = tuple(Segment(*x) for x in found["segments"])
        for name in ("step", "length", "carries", "xs", "n_carry", "n_x", "sizes", "backwards", "n_results"):
            setattr(self, name, found[name])


class Lanes:
    """A program that is computed for each sample of a batch.

    An operand that varies has a row for each sample; the results are those of one group after the other, each with a
    row for each sample, or one row with sums over them.

    Attributes
    ----------
    segments : tuple of Segment
    program : _Callee
        Of one sample.
    varies : tuple of bool
        For each segment.
    samples : int
    groups : tuple of (int, int, bool)
        The first result of a sample, how many, and whether they are summed.
    n_results : int
    """

    segments: Any

    def __init__(self, found: Any) -> None:
        self.segments = tuple(Segment(*x) for x in found["segments"])
        for name in ("program", "varies", "samples", "groups", "n_results"):
            setattr(self, name, found[name])


def instruction(found: tuple[int | str, ...]) -> Instruction:
    op, first, rows, cols, param, immediate, operands, labels, callee = found
    if operands and type(operands[0]) is tuple:
        operands = tuple(View(*x) for x in operands)
    return Instruction(op, first, rows, cols, param, immediate, operands, labels, callee)


KINDS: dict[str, type[Any]] = {"body": Body, "scan": Scan, "lanes": Lanes}


def listing(callee: Any) -> Body:
    """What a callee of `_core` consists of.

    Returns
    -------
    Body, Scan, Lanes or None
        None if Python computes it: it is no list of instructions.
    """
    found = _core._listed(callee)
    kind = KINDS.get(found["kind"])
    return kind and kind(found)
