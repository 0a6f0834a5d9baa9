"""Scans that go the same steps become one.

The derivative of a scan is written as two: one forward with the carries as outputs, and one backwards. Beside the scan
whose results are wanted, the former computes the same numbers once more.
"""
from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from flatgrad.export.listing import Body, Lanes, Scan, View, listing, slots_of

if TYPE_CHECKING:
    from typing import Any

__all__ = ["content", "listed", "with_shared_scans"]


def listed(callee: Any) -> Any:
    """The listing of a callee, or of a scan that has been made here."""
    return callee if isinstance(callee, (Body, Scan, Lanes)) else listing(callee)


def content(callee: Any) -> Any:
    """What a callee consists of, hashable: callees with the same compute the same."""
    found = listed(callee)
    if isinstance(found, Body):
        return (found.segments, found.area, tuple(map(repr, found.constants.items())), tuple(
            [i._replace(callee=content(i.callee) if i.op == "CALL" else None) for i in found.instructions]),
            found.results)
    if isinstance(found, Scan):
        return (found.segments, content(found.step), found.length, found.carries, found.xs, found.sizes,
                found.backwards)
    if isinstance(found, Lanes):
        return found.segments, content(found.program), found.varies, found.samples, found.groups
    return id(callee)   # Python computes it


def with_shared_scans(body: Any) -> Any:
    """The same body, with one scan for all those that compute the same carries of the same operands.

    Parameters
    ----------
    body : Body

    Returns
    -------
    Body
    """
    groups = {}
    for at, i in enumerate(body.instructions):
        scan = listed(i.callee) if i.op == "CALL" else None
        if type(scan) is Scan:
            operands = tuple(slots_of(v).tobytes() for v in i.operands)
            key = operands, scan.segments, scan.length, scan.carries, scan.xs, scan.backwards
            groups.setdefault(key, []).append((at, scan))
    moved, first = {}, body.nodes   # by the place of an instruction: what stands there now, or None
    slots = np.arange(body.nodes)
    for found in groups.values():
        for alike in [alike for alike in by_carry(found) if len(alike) > 1]:
            scan = joint([scan for _, scan in alike])
            i = body.instructions[alike[0][0]]
            moved[alike[0][0]] = i._replace(first=first, cols=scan.n_results, callee=scan)
            output = first + scan.n_carry
            for at, one in alike:
                moved.setdefault(at, None)
                begin = body.instructions[at].first
                slots[begin:begin + one.n_carry] = first + np.arange(one.n_carry)
                n_outputs = one.n_results - one.n_carry
                slots[begin + one.n_carry:begin + one.n_results] = output + np.arange(n_outputs)
                output += n_outputs
            first += scan.n_results
    if not moved:
        return body
    result = copy.copy(body)
    result.nodes = first
    now = [moved.get(k, i) for k, i in enumerate(body.instructions)]
    result.instructions = [moved_operands(i, slots) for i in now if i is not None]
    result.results = tuple(slots[list(body.results)].tolist())
    return result


def moved_operands(i: Any, slots: Any) -> Any:
    """An instruction with other slots for its operands."""
    return i._replace(operands=tuple([moved_view(x, slots) if type(x) is View else int(slots[x]) for x in i.operands]))


def moved_view(view: Any, slots: Any) -> Any:
    old = slots_of(view)
    new = slots[old]
    shift = new.flat[0] - old.flat[0] if new.size else 0
    if (new - old == shift).all():
        if view.listed is None:
            return view._replace(first=int(view.first + shift))
        return view._replace(listed=tuple((old + shift).ravel().tolist()))
    return View(view.rows, view.cols, 0, 0, 0, tuple(new.ravel().tolist()))


def by_carry(found: Any) -> Any:
    """(place, scan) of scans of the same operands, those together whose steps compute the same next carry."""
    groups = {}
    known = Known()
    for at, scan in found:
        step = listed(scan.step)
        numbers = known.of(step)
        groups.setdefault(tuple(numbers[list(step.results[:scan.n_carry])].tolist()), []).append((at, scan))
    return groups.values()


class Known:
    """Numbers for what slots of several bodies compute: those with the same number compute the same."""

    numbers: Any

    def __init__(self):
        self.numbers = {}

    def number(self, key: Any) -> Any:
        return self.numbers.setdefault(key, len(self.numbers))

    def of(self, body: Any) -> Any:
        """That of each slot."""
        found = np.full(body.nodes, -1)
        for s in body.segments:
            for slot in range(s.first, s.first + s.count):
                found[slot] = self.number(("operand", slot))
        for slot, x in body.constants.items():
            found[slot] = self.number(repr(x))
        for i in body.instructions:
            whole = self.number(self.key(i, found))
            for k in range(i.rows * i.cols):
                found[i.first + k] = self.number((whole, k))
        return found

    @staticmethod
    def key(i: Any, found: Any) -> Any:
        """What an instruction computes, with these numbers for its operands."""
        operands = tuple([(x.rows, x.cols, found[slots_of(x)].tobytes()) if type(x) is View else int(found[x])
                          for x in i.operands])
        if i.op in ("ADD", "MUL") and type(i.operands[0]) is int:
            operands = tuple(sorted(operands))
        callee = content(i.callee) if i.op == "CALL" else None
        return i.op, i.rows, i.cols, i.param, i.immediate, operands, i.labels, callee


def joint(scans: Any) -> Any:
    """One scan with the outputs of several, one after the other."""
    result = copy.copy(scans[0])
    steps = [listed(scan.step) for scan in scans]
    n = result.n_carry
    result.step = body = copy.copy(steps[0])
    body.instructions, body.constants, outputs = list(body.instructions), dict(body.constants), []
    known = Known()
    slot_of = {}   # the slot of what has that number
    for k, number in enumerate(known.of(body).tolist()):
        slot_of.setdefault(number, k)
    outputs += body.results[n:]
    for step in steps[1:]:
        slots = np.arange(step.nodes)
        numbers = known.of(step)
        for slot, x in step.constants.items():
            at = slot_of.get(numbers[slot])
            if at is None:
                at = slot_of[numbers[slot]] = body.nodes
                body.constants[at] = x
                body.nodes += 1
            slots[slot] = at
        for i in step.instructions:
            at = slot_of.get(numbers[i.first])
            if at is None:
                at = body.nodes
                body.nodes += i.rows * i.cols
                body.instructions.append(moved_operands(i, slots)._replace(first=at))
                for k in range(i.rows * i.cols):
                    slot_of[numbers[i.first + k]] = at + k
            slots[i.first:i.first + i.rows * i.cols] = at + np.arange(i.rows * i.cols)
        outputs += slots[list(step.results[n:])].tolist()
    body.results = (*body.results[:n], *outputs)
    result.sizes = tuple(size for scan in scans for size in scan.sizes)
    result.n_results = n + sum(result.sizes) * result.length
    return result


