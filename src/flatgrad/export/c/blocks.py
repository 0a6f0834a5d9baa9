"""Bodies of single numbers for several samples at once: each number is an array with one for each of them.

The arrays of operands and results have the samples of a number side by side, so that the loops over samples, which have
nothing else in them, become vector instructions.
"""
from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from flatgrad.export import formulas
from flatgrad.export.c import elementary
from flatgrad.export.c.body import joined, literal
from flatgrad.export.c.once import reads, varying_slots
from flatgrad.export.c.shared import content, listed, with_shared_scans
from flatgrad.export.listing import Scan, View, slots_of

if TYPE_CHECKING:
    from typing import Any

__all__ = ["WIDTHS", "Blocks", "is_of_numbers"]

WIDTHS = 32, 8   # samples in a block: loops of 8 are unrolled and then seldom become vectors, if there are more
MOST = 400    # instructions of a body
ELEMENTS = 16    # of an elementwise instruction


def is_of_numbers(body: Any) -> Any:
    """Whether a body can be written so: single operations, small elementwise ones, and scans of the like."""
    count = 0
    for i in body.instructions:
        if i.op == "CALL":
            found = listed(i.callee)
            if not isinstance(found, Scan) or not is_of_numbers(listed(found.step)):
                return False
        elif type(i.operands[0]) is View and (i.op != "MAP" or i.rows * i.cols > ELEMENTS):
            return False
        count += 1 if i.op == "CALL" else i.rows * i.cols
    return count <= MOST


class Blocks:
    """The functions of bodies and scans for a block of samples, each written once.

    Parameters
    ----------
    functions : Functions
        Keeps the texts.
    lanes : int
        How many samples.
    """

    functions: Any
    lanes: Any

    real: Any
    known: Any

    def __init__(self, functions: Any, lanes: Any) -> None:
        self.functions, self.lanes, self.real, self.known = functions, lanes, functions.real, {}

    def of(self, callee: Any, varies: Any, outs: Any = None) -> Any:
        """The C function of a callee.

        Parameters
        ----------
        callee : Body or Scan
        varies : tuple of bool
            Of each segment, whether it differs from sample to sample; the others are as ever.
        outs : list of int
            Of a body, how many of its results go to each of several arrays.

        Returns
        -------
        (str, int)
            Its name, and the numbers of its work array. All results differ from sample to sample.
        """
        key = content(callee), tuple(varies), tuple(outs or ())
        if key not in self.known:
            self.known[key] = (self.of_scan(callee, varies) if isinstance(callee, Scan) else
                               Writer(self, callee, varies, outs).written())
        return self.known[key]

    def kept(self, name: Any, pointers: Any, outs: Any, lines: Any) -> None:
        parameters = [f"const {self.real} *restrict {p}" for p in pointers]
        parameters += [f"{self.real} *restrict {p}" for p in (*outs, "work")]
        words = set(re.findall(r"\w+", "\n".join(lines)))
        unused = [f"(void){p};" for p in (*pointers, *outs, "work") if p not in words]
        lines = lines + [" ".join(unused)] * bool(unused)
        head = joined(f"static void {name}(", parameters, ")")
        self.functions.texts.append("\n".join([head, "{", *[f"    {line}" for line in lines], "}", ""]))

    def of_scan(self, scan: Any, varies: Any) -> Any:
        step, n = listed(scan.step), scan.n_carry
        name = self.functions.new_name("scan")
        of_step, work = self.of(step, (True,) * scan.carries + varies[scan.carries:], [n, *scan.sizes])
        pointers = [f"a{k}" for k in range(len(varies))]
        lines = [f"{self.real} *carry = work, *next = work + {n * self.lanes};"]
        at = 0
        for k in range(scan.carries):
            source = f"{pointers[k]}[{self.lanes} * j + l]" if varies[k] else f"{pointers[k]}[j]"
            lines += [f"for (int j = 0; j < {scan.segments[k].count}; j++)",
                      f"    for (int l = 0; l < {self.lanes}; l++)",
                      f"        carry[{self.lanes} * j + l + {at * self.lanes}] = {source};"]
            at += scan.segments[k].count
        given = []
        for k, segment in enumerate(step.segments):
            if k < scan.carries:
                given.append(f"carry + {segment_offset(step, k) * self.lanes}")
            elif k < scan.carries + scan.xs:
                given.append(f"{pointers[k]} + {segment.count * (self.lanes if varies[k] else 1)} * k")
            else:
                given.append(pointers[k])
        given.append("next")
        base = n
        for size in scan.sizes:
            given.append(f"out + {base * self.lanes} + {size * self.lanes} * k")
            base += size * scan.length
        call = joined(f"{of_step}(", [*given, f"work + {2 * n * self.lanes}"], ");").split("\n")
        lines += [f"for (int k = {scan.length - 1}; k >= 0; k--) {{" if scan.backwards else
                  f"for (int k = 0; k < {scan.length}; k++) {{", *[f"    {line}" for line in call],
                  f"    {self.real} *const other = carry;", "    carry = next;", "    next = other;", "}",
                  f"for (int j = 0; j < {n * self.lanes}; j++)", "    out[j] = carry[j];"]
        self.kept(name, pointers, ["out"], lines)
        return name, 2 * n * self.lanes + work


def segment_offset(body: Any, k: Any) -> Any:
    return sum(segment.count for segment in body.segments[:k])


class Writer:
    """Writes the function of a body."""

    varying: Any
    blocks: Any
    outs: Any
    varies: Any

    body: Any
    place: Any
    singles: Any
    lines: Any
    level: Any
    array: Any
    work: Any
    functions: Any
    dtype: Any
    lanes: Any
    stage: Any

    def __init__(self, blocks: Any, body: Any, varies: Any, outs: Any) -> None:
        self.blocks, self.functions, self.dtype = blocks, blocks.functions, blocks.functions.dtype
        self.body, self.lanes = with_shared_scans(body), blocks.lanes
        body = self.body
        self.varying = varying_slots(body, varies, ("CALL",))
        self.place = {}   # of a slot that lies in memory: the array, and the index there
        self.lines, self.work, self.outs, self.varies = [], 0, outs, varies
        for k, segment in enumerate(body.segments):
            self.place.update((segment.first + j, (f"a{k}", j)) for j in range(segment.count))
        self.singles = self.taken_apart()

    def taken_apart(self) -> Any:
        """The instructions, elementwise ones element by element, without those of which nobody needs the result."""
        found = []
        for i in self.body.instructions:
            if i.op != "MAP":
                found.append(i)
                continue
            views = [np.broadcast_to(slots_of(v), (i.rows, i.cols)).ravel().tolist() for v in i.operands]
            found += [i._replace(op=i.param, first=i.first + k, rows=1, cols=1, operands=tuple(v[k] for v in views))
                      for k in range(i.rows * i.cols)]
        needed, kept = set(self.body.results), []
        for i in reversed(found):
            if i.op == "CALL" or i.first in needed:
                needed.update(reads(i).tolist())
                kept.append(i)
        return kept[::-1]

    def written(self) -> Any:
        body, functions = self.body, self.functions
        name = functions.new_name("block")
        names = [f"out{k}" for k in range(len(self.outs))]
        of_result = [(out, k) for out, count in zip(names, self.outs) for k in range(count)]
        self.mark_stages()
        group = []
        for i in [*self.singles, None]:
            if i is not None and i.op != "CALL":
                group.append(i)
                continue
            self.write_group(group)
            group = []
            if i is not None:
                self.write_call(i)
        lines = []
        for (out, k), slot in zip(of_result, body.results):
            lines.append(f"    {out}[{self.lanes * k} + l] = {self.text(slot, None)};")
        self.lines += [f"for (int l = 0; l < {self.lanes}; l++) {{", *lines, "}"]
        pointers = [f"a{k}" for k in range(len(body.segments))]
        self.blocks.kept(name, pointers, names, self.lines)
        return name, self.work

    # ---- loops ----

    def mark_stages(self) -> None:
        """For each instruction the loop that it is in: numbers of several loops are arrays."""
        self.stage, calls = {}, 0
        self.level = {}
        for i in self.singles:
            if i.op == "CALL":
                calls += 1
                for k in range(i.rows * i.cols):
                    self.level[i.first + k] = 0
                continue
            level = max([self.level.get(s, 0) for s in i.operands], default=0)
            kind = self.kind(i)
            self.stage[i.first] = calls, level, kind
            self.level[i.first] = level + (kind == 1)
        used = {}
        for i in self.singles:
            own = None if i.op == "CALL" else self.stage[i.first]
            for s in reads(i).tolist():
                if s in self.stage:
                    used.setdefault(s, set()).add(own)
        for s in self.body.results:
            if s in self.stage:
                used.setdefault(s, set()).add(None)
        self.array = {s for s, stages in used.items() if self.varying[s] and (stages - {self.stage[s]}
                                                                               or self.stage[s][2] == 1)}

    def kind(self, i: Any) -> Any:
        """0: arithmetic, in vectors; 1: a call for each number."""
        text = self.formula(i, ["x", "y", "w"][:len(i.operands)])
        return int(bool(set(re.findall(r"(\w+)\(", text)) - {"fabs", *elementary.OWN.values()}))

    def formula(self, i: Any, operands: Any) -> Any:
        text = formulas.expression(i.op, operands, self.dtype, i.immediate)
        if self.dtype == "float64":
            text = elementary.substituted(text)
            self.functions.helpers.update(name for name in re.findall(r"(\w+)\(", text) if name in elementary.TEXTS)
        return text

    def text(self, slot: Any, stage: Any) -> Any:
        """A number within a loop over samples."""
        slot = int(slot)
        if slot in self.body.constants:
            return literal(self.body.constants[slot], self.dtype)
        if slot in self.place:
            pointer, index = self.place[slot]
            return f"{pointer}[{self.lanes * index} + l]" if self.varying[slot] else f"{pointer}[{index}]"
        if self.varying[slot] and slot in self.array:   # an array, and where it is computed a constant as well
            return f"v{slot}_" if self.stage[slot] == stage else f"v{slot}[l]"
        return f"v{slot}"

    def write_group(self, group: Any) -> None:
        real = self.blocks.real
        for i in group:
            self.functions.formulas.update(formulas.needs(i.op, i.immediate))
            if not self.varying[i.first]:
                text = self.formula(i, [self.text(s, None) for s in i.operands])
                self.lines.append(f"const {real} v{i.first} = {text};")
        group = [i for i in group if self.varying[i.first]]
        for stage in sorted({self.stage[i.first] for i in group}):
            here = [i for i in group if self.stage[i.first] == stage]
            self.lines += [f"{real} v{i.first}[{self.lanes}];" for i in here if i.first in self.array]
            if stage[2] == 1:
                for i in here:
                    self.write_calls(i)
                continue
            self.lines.append(f"for (int l = 0; l < {self.lanes}; l++) {{")
            for i in here:
                text, name = self.formula(i, [self.text(s, stage) for s in i.operands]), f"v{i.first}"
                if i.first in self.array:
                    self.lines += [f"    const {real} {name}_ = {text};", f"    {name}[l] = {name}_;"]
                else:
                    self.lines.append(f"    const {real} {name} = {text};")
            self.lines.append("}")

    def write_calls(self, i: Any) -> None:
        """A row that is a call for each number."""
        loop = elementary.LOOPS.get(i.op) if self.dtype == "float64" else None
        operand = int(i.operands[0])
        if loop:
            source = f"v{operand}" if operand in self.array else None
            if operand in self.place and self.varying[operand]:
                pointer, index = self.place[operand]
                source = f"{pointer} + {self.lanes * index}"
            if source:
                self.functions.helpers.add(loop)
                self.lines.append(f"{loop}({self.lanes}, {source}, v{i.first});")
                return
        text = self.formula(i, [self.text(s, None) for s in i.operands])
        self.lines += [f"for (int l = 0; l < {self.lanes}; l++)", f"    v{i.first}[l] = {text};"]

    # ---- calls ----

    def write_call(self, i: Any) -> None:
        scan = listed(i.callee)
        given, varies = [], []
        for view in i.operands:
            slots = slots_of(view).ravel().tolist()
            varies.append(bool(self.varying[slots].any()))
            given.append(self.pointer(slots, varies[-1]))
        function, work = self.blocks.of(scan, tuple(varies))
        size = i.rows * i.cols
        out = self.room(size * self.lanes)
        self.place.update((i.first + k, ("work", out // self.lanes + k)) for k in range(size))
        inner = self.room(work)
        self.lines += joined(f"{function}(", [*given, f"work + {out}", f"work + {inner}"], ");").split("\n")

    def room(self, count: Any) -> Any:
        at = -(-self.work // self.lanes) * self.lanes
        self.work = at + count
        return at

    def pointer(self, slots: Any, varying: Any) -> Any:
        """Numbers in a row: where they lie, or copied to the work array."""
        places = [self.place.get(s) for s in slots]
        if None not in places and all(self.varying[s] == varying for s in slots) and all(
                p == (places[0][0], places[0][1] + k) for k, p in enumerate(places)):
            pointer, index = places[0]
            return f"{pointer} + {index * (self.lanes if varying else 1)}"
        at = self.room(len(slots) * (self.lanes if varying else 1))
        if all(s in self.body.constants for s in slots) and len({repr(self.body.constants[s]) for s in slots}) == 1:
            self.lines += [f"for (int j = 0; j < {len(slots)}; j++)",
                           f"    work[{at} + j] = {literal(self.body.constants[slots[0]], self.dtype)};"]
        elif varying:
            self.lines += [f"for (int l = 0; l < {self.lanes}; l++) {{", *[
                f"    work[{at + self.lanes * k} + l] = {self.text(s, None)};" for k, s in enumerate(slots)], "}"]
        else:
            self.lines += [f"work[{at + k}] = {self.text(s, None)};" for k, s in enumerate(slots)]
        return f"work + {at}"
