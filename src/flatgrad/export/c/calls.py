"""C functions of what a body calls: a loop over the steps of a scan, and one over the samples of a batch."""
from __future__ import annotations

from flatgrad.errors import ArgumentError
from flatgrad.export.c.blocks import WIDTHS, Blocks, is_of_numbers
from flatgrad.export.c.body import body_function, helper_definitions, joined
from flatgrad.export.c.once import parted
from flatgrad.export.c.shared import content, listed, with_shared_scans
from flatgrad.export.formulas import definitions
from flatgrad.export.listing import Body, Lanes, Scan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Functions", "copied", "real_of"]

SMALL = 64   # numbers that are kept on the stack, where compilers may take them apart


def real_of(dtype: Any) -> Any:
    """The type of numbers in C."""
    return {"float64": "double", "float32": "float"}[dtype]


def copied(to: Any, source: Any, count: Any, pad: str = "    ") -> Any:
    """Statements that copy numbers: `to` and `source` are texts that a number or a sum can follow."""
    if count <= 2:
        return "".join(f"{pad}{indexed(to, k)} = {indexed(source, k)};\n" for k in range(count))
    return f"{pad}for (int j = 0; j < {count}; j++)\n{pad}    {indexed(to, 'j')} = {indexed(source, 'j')};\n"


def indexed(place: Any, k: Any) -> Any:
    """An element behind a place, which is a pointer and an offset: "out", 3 or "out", "2 * k"."""
    pointer, offset = place if type(place) is tuple else (place, 0)
    return f"{pointer}[{plus(offset, k)}]"


def plus(a: Any, b: Any) -> Any:
    if type(a) is int and type(b) is int:
        return a + b
    return b if a == 0 else a if b == 0 else f"{a} + {b}"


def shifted(pointer: Any, offset: Any) -> Any:
    """A pointer to an element."""
    return pointer if offset == 0 else f"{pointer} + {offset}"


class Functions:
    """The C functions of callees, each written once.

    Parameters
    ----------
    name : str
        Names of functions begin with that.
    dtype : {"float64", "float32"}

    Attributes
    ----------
    texts : list of str
        Definitions, in an order in which each function stands above those that call it.
    """

    name: Any
    dtype: Any

    known: Any
    counts: Any
    blocks: Any
    texts: Any
    real: Any
    helpers: Any
    formulas: Any

    def __init__(self, name: Any, dtype: Any) -> None:
        self.name, self.dtype, self.real = name, dtype, real_of(dtype)
        self.texts, self.helpers, self.formulas = [], set(), set()
        self.known = {}   # by what a callee consists of: the name of its function, and its work
        self.counts = {}
        self.blocks = {lanes: Blocks(self, lanes) for lanes in WIDTHS}

    def of(self, callee: Any) -> Any:
        """The C function of a callee.

        Returns
        -------
        (str, int)
            Its name, and the numbers of its work array.
        """
        found = listed(callee)
        if found is None:
            raise ArgumentError(f"to_c: {self.name}: Python computes a part of it, a call of a function with a "
                                "derivative of its own that is not recorded; C can only have what is")
        key = type(found), content(found)
        if key not in self.known:
            kind, write = {Body: ("call", self.body), Scan: ("scan", self.of_scan),
                           Lanes: ("batch", self.of_lanes)}[type(found)]
            self.known[key] = write(found, self.new_name(kind))
        return self.known[key]

    def new_name(self, kind: Any) -> Any:
        self.counts[kind] = number = self.counts.get(kind, 0) + 1
        return f"{self.name}_{kind}_{number}"

    def body(self, body: Any, name: Any, places: Any = None, pointers: Any = None, outs: Any = None) -> Any:
        """Write the function of a body under that name, with arguments as for `body_function`.

        Returns
        -------
        (str, int)
            As `of`.
        """
        text = body_function(with_shared_scans(body), name, places or {}, self.dtype, self, pointers, outs)
        self.texts.append(text.text)
        self.helpers.update(text.helpers)
        self.formulas.update(text.formulas)
        return name, text.work

    def of_scan(self, scan: Any, name: Any) -> Any:
        """A loop over the steps. The carry and the next carry are two arrays that change places; small ones are copied,
        so that compilers keep them in registers."""
        step, n, room = listed(scan.step), scan.n_carry, Room(self.real)
        pointers = [f"a{k}" for k in range(len(scan.segments))]
        first_same = scan.carries + scan.xs
        places, at = {}, 0
        for k, segment in enumerate(step.segments):
            for j in range(segment.count):
                places[segment.first + j] = ("carry", at + j) if k < scan.carries else (pointers[k], j)
            at += segment.count
        step, more = self.once(step, [k < first_same for k in range(len(pointers))], places, room)
        outs = [("next", n), *[(f"out{k}", size) for k, size in enumerate(scan.sizes)]]
        of_step, work = self.body(step, self.new_name("step"), places,
                                  ["carry", *pointers[scan.carries:], *more], outs)
        room.array("carry", n, "")
        room.array("next", n, "")
        lines, at = [], 0
        for k in range(scan.carries):
            lines.append(copied(("carry", at), pointers[k], scan.segments[k].count))
            at += scan.segments[k].count
        given, base = ["carry"], n
        for k in range(scan.carries, first_same):
            given.append(rows(pointers[k], step.segments[k].count, "k"))
        given += [*pointers[first_same:], *more, "next"]
        for size in scan.sizes:
            given.append(rows(shifted("out", base), size, "k"))
            base += size * scan.length
        lines.append(f"    for (int k = {scan.length - 1}; k >= 0; k--) {{\n" if scan.backwards else
                     f"    for (int k = 0; k < {scan.length}; k++) {{\n")
        lines.append(called(of_step, [*given, room.rest()], " " * 8))
        if n <= SMALL:
            lines.append(copied("carry", "next", n, " " * 8))
        else:
            lines.append(f"        {self.real} *const other = carry;\n        carry = next;\n        next = other;\n")
        lines += ["    }\n", copied("out", "carry", n)]
        return self.finished(name, pointers, room, lines, work)

    def of_lanes(self, lanes: Any, name: Any) -> Any:
        """A loop over the samples."""
        program, room = listed(lanes.program), Room(self.real)
        pointers = [f"a{k}" for k in range(len(lanes.segments))]
        places = {}
        program, more = self.once(program, lanes.varies, places, room)
        if lanes.samples >= min(WIDTHS) and is_of_numbers(program):
            return self.of_blocks(lanes, name, program, pointers, room)
        outs = [(f"out{k}", count) for k, (_, count, _) in enumerate(lanes.groups)]
        of_sample, work = self.body(program, self.new_name("sample"), places, [*pointers, *more], outs)
        begins, sums, base = [], [], 0
        given = [rows(p, segment.count, "i") if varies else p
                 for p, varies, segment in zip(pointers, lanes.varies, program.segments)]
        given += more
        for k, (_, count, summed) in enumerate(lanes.groups):
            if summed:
                room.array(f"sum{k}", count)
                given.append(f"sum{k}")
                begins.append(filled(("out", base), count))
                sums.append(f"        for (int j = 0; j < {count}; j++)\n            "
                            f"{indexed(('out', base), 'j')} += sum{k}[j];\n")
            else:
                given.append(rows(shifted("out", base), count, "i"))
            base += count * (1 if summed else lanes.samples)
        return self.finished(name, pointers, room, [
            *begins, f"    for (int i = 0; i < {lanes.samples}; i++) {{\n",
            called(of_sample, [*given, room.rest()], " " * 8), *sums, "    }\n"], work)

    def of_blocks(self, lanes: Any, name: Any, program: Any, pointers: Any, room: Any) -> Any:
        """A loop over blocks of samples; the last block has the last sample several times, if there are too few."""
        varies = [*lanes.varies, *[False] * (len(program.segments) - len(pointers))]
        width = next(width for width in WIDTHS if width <= lanes.samples)
        of_block, work = self.blocks[width].of(program, tuple(varies), [count for _, count, _ in lanes.groups])
        given, gathered, scattered, begins, base, n = [], [], [], [], 0, lanes.samples
        whole = n % width == 0
        for k, (segment, one) in enumerate(zip(program.segments, varies)):
            if not one:
                given.append(pointers[k] if k < len(pointers) else shifted("once", offset_of(program, pointers, k)))
                continue
            room.array(f"in{k}", segment.count * width)
            given.append(f"in{k}")
            sample = "i + l" if whole else f"(i + l < {n} ? i + l : {n - 1})"
            if segment.count == 1:
                gathered.append(f"            in{k}[l] = {pointers[k]}[{sample}];\n")
            else:
                row = rows_at(segment.count, f"({sample})" if whole else sample)
                gathered.append(f"            for (int j = 0; j < {segment.count}; j++)\n"
                                f"                in{k}[{width} * j + l] = {pointers[k]}[{row} + j];\n")
        for k, (_, count, summed) in enumerate(lanes.groups):
            room.array(f"result{k}", count * width)
            given.append(f"result{k}")
            place = plus(base, rows_at(count, "(i + l)"))
            begin, j, at = ("", 0, "l") if count == 1 else (
                f"            for (int j = 0; j < {count}; j++)\n    ", "j", f"{width} * j + l")
            if summed:
                begins.append(filled(("out", base), count))
                scattered.append(f"{begin}            {indexed(('out', base), j)} += result{k}[{at}];\n")
            else:
                scattered.append(f"{begin}            {indexed(('out', place), j)} = result{k}[{at}];\n")
            base += count * (1 if summed else n)
        limit = f"l < {width}" if whole else f"l < {width} && i + l < {n}"
        if gathered:
            gathered = [f"        for (int l = 0; l < {width}; l++) {{\n", *gathered, "        }\n"]
        return self.finished(name, pointers, room, [
            *begins, f"    for (int i = 0; i < {n}; i += {width}) {{\n", *gathered,
            called(of_block, [*given, room.rest()], " " * 8),
            f"        for (int l = 0; {limit}; l++) {{\n", *scattered, "        }\n    }\n"], work)

    def once(self, body: Any, varies: Any, places: Any, room: Any) -> Any:
        """Compute before a loop what it would compute again and again.

        Parameters
        ----------
        body : Body
            What the loop calls.
        varies : list of bool
            Of each segment, whether it is another one each time.
        places : dict
            Of the body's operands; those that it has from now on are added.
        room : Room
            Of the function with the loop.

        Returns
        -------
        (Body, list of str)
            What is left of the body, and the pointers that it takes besides.
        """
        found = parted(body, varies)
        if found is None:
            return body, []
        first, rest = found
        pointers = [f"a{k}" for k, one in enumerate(varies) if not one]
        function, work = self.body(first, self.new_name("once"), None, pointers)
        room.array("once", len(first.results))
        places.update((slot, ("once", j)) for j, slot in enumerate(first.results))
        room.calls.append((function, [*pointers, "once"], work))
        return rest, ["once"]

    def finished(self, name: Any, pointers: Any, room: Any, lines: Any, work: Any) -> Any:
        """Keep the text of a function with a loop."""
        parameters = [f"const {self.real} *restrict {p}" for p in pointers]
        parameters += [f"{self.real} *restrict {p}" for p in ("out", "work")]
        calls = [called(function, [*given, room.rest()], "    ") for function, given, _ in room.calls]
        head = joined(f"static void {name}(", parameters, ")")
        self.texts.append("".join([head, "\n{\n", *room.lines, *calls, *lines, "}\n"]))
        return name, room.used + max([work, *[of_call for _, _, of_call in room.calls]])

    def known_blocks(self) -> Any:
        """Whether there are functions for blocks of samples."""
        return any(blocks.known for blocks in self.blocks.values())

    def text(self) -> Any:
        """All functions, and what they call of formulas and helpers."""
        found = [definitions(sorted(self.formulas), self.dtype), helper_definitions(sorted(self.helpers), self.dtype)]
        found += self.texts
        return "\n".join([text.rstrip("\n") + "\n" for text in found if text])


class Room:
    """The arrays of a function: small ones are variables, large ones lie in its work array.

    Parameters
    ----------
    real : str

    Attributes
    ----------
    lines : list of str
        Their declarations.
    calls : list of (str, list of str, int)
        What is called at the beginning: a function, its arguments, and the numbers of its work array.
    used : int
        Numbers of the work array.
    """

    real: Any

    lines: Any
    calls: Any
    used: Any

    def __init__(self, real: Any) -> None:
        self.real, self.lines, self.calls, self.used = real, [], [], 0

    def array(self, name: Any, count: Any, const: str = "const ") -> None:
        if count <= SMALL:
            self.lines.append(f"    {self.real} {name}[{max(count, 1)}]{' = {0}' * (count == 0)};\n")
        else:
            self.lines.append(f"    {self.real} *{const}{name} = {shifted('work', self.used)};\n")
            self.used += count

    def rest(self) -> Any:
        """The work array behind these."""
        return shifted("work", self.used)


def offset_of(program: Any, pointers: Any, k: Any) -> Any:
    """Where the numbers of a segment are that were computed once."""
    return sum(segment.count for segment in program.segments[len(pointers):k])


def rows_at(count: Any, k: Any) -> Any:
    return k if count == 1 else f"{count} * {k}"


def rows(pointer: Any, count: Any, k: Any) -> Any:
    """The row at a place, of so many numbers."""
    return f"{pointer} + {k}" if count == 1 else f"{pointer} + {count} * {k}" if count else pointer


def called(function: Any, arguments: Any, pad: Any) -> Any:
    """A call, in lines that are not too long."""
    return "".join(f"{pad}{line}\n" for line in joined(f"{function}(", arguments, ");").split("\n"))


def filled(place: Any, count: Any, pad: str = "    ") -> Any:
    """Statements that set numbers to 0."""
    if count == 1:
        return f"{pad}{indexed(place, 0)} = 0;\n"
    return f"{pad}for (int j = 0; j < {count}; j++)\n{pad}    {indexed(place, 'j')} = 0;\n"
