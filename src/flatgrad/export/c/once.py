"""What is the same at each step of a scan, or for each sample of a batch, is computed once."""
from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING

import numpy as np

from flatgrad.export.formulas import expression
from flatgrad.export.listing import Segment, View, slots_of

if TYPE_CHECKING:
    from typing import Any

__all__ = ["is_plain", "parted", "reads", "varying_slots"]


def is_plain(op: Any, immediate: Any = None) -> Any:
    """Whether a row is arithmetic alone, which compilers can do in vectors, and move out of loops."""
    text = expression(op, ["x", "y", "w"][:operands_of(op)], immediate=immediate)
    return not set(re.findall(r"(\w+)\(", text)) - {"fabs"}


def operands_of(op: Any) -> Any:
    from flatgrad.export.formulas import ROWS

    return ROWS[op][0]


def reads(i: Any) -> Any:
    """The slots that an instruction reads, an array."""
    if i.operands and type(i.operands[0]) is View:
        return np.concatenate([slots_of(v).ravel() for v in i.operands])
    return np.array(i.operands, int)


def varying_slots(body: Any, varies: Any, always: Any = ()) -> Any:
    """Of each slot, whether it depends on segments of which `varies` says so, or is computed by a row of `always`."""
    found = np.zeros(body.nodes, bool)
    for segment, one in zip(body.segments, varies):
        found[segment.first:segment.first + segment.count] = one
    for i in body.instructions:
        found[i.first:i.first + i.rows * i.cols] = found[reads(i)].any() or i.op in always
    return found


def parted(body: Any, varies: Any) -> Any:
    """A body as two: of what depends on no segment that varies, and of the rest.

    Parameters
    ----------
    body : Body
    varies : list of bool
        Of each segment.

    Returns
    -------
    (Body, Body) or None
        The results of the first are the operands of a last segment or more of the second, row by row. None if there is
        nothing to gain.
    """
    varying = varying_slots(body, varies)
    once = [i for i in body.instructions if not varying[i.first]]
    if not any(i.operands and type(i.operands[0]) is View or not is_plain(i.op, i.immediate) for i in once):
        return None
    computed = np.zeros(body.nodes, bool)
    for i in once:
        computed[i.first:i.first + i.rows * i.cols] = True
    wanted = np.zeros(body.nodes, bool)
    for i in body.instructions:
        if varying[i.first]:
            wanted[reads(i)] = True
    wanted[list(body.results)] = True
    slots = np.flatnonzero(wanted & computed)
    first, rest = copy.copy(body), copy.copy(body)
    first.instructions, first.results = once, tuple(slots.tolist())
    rest.instructions = [i for i in body.instructions if varying[i.first]]
    breaks = np.flatnonzero(np.diff(slots) != 1) + 1
    rest.segments = (*body.segments, *[Segment(int(run[0]), len(run)) for run in np.split(slots, breaks) if len(run)])
    return first, rest
