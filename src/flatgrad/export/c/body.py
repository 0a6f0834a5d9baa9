"""The text of a C function that computes a body: a line or a loop for each instruction of its listing."""
from __future__ import annotations

import re
from math import inf, isfinite, nan
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flatgrad.export import formulas
from flatgrad.export.c import elementary
from flatgrad.export.c.copies import statements
from flatgrad.export.c.helpers import HELPERS, helper_definitions
from flatgrad.export.c.plan import CONSTANT, LOCAL, VECTOR, Grid, Plan

if TYPE_CHECKING:
    from typing import Any

__all__ = ["BodyText", "body_function", "helper_definitions", "literal", "table"]


class BodyText(NamedTuple):
    """A C function.

    Attributes
    ----------
    text : str
        Its definition, with tables of constants and functions of its parts before it if it needs any.
    work : int
        How many numbers its work array has.
    helpers : tuple of str
        What it calls of `helper_definitions`.
    formulas : tuple of str
        What it calls of `formulas.definitions`.
    """

    text: Any
    work: Any
    helpers: Any
    formulas: Any


WIDTH = 116
WORD = re.compile(r"\b[A-Za-z_]\w*\b")


def body_function(body: Any, name: Any, places: Any, dtype: Any, functions: Any, pointers: Any = None,
                  outs: Any = None) -> Any:
    """The C function of a body.

    Its signature is ``static void name(const real *restrict a0, ..., real *restrict out, real *restrict work)``, with a
    pointer for each segment. It writes the results to `out`, in the order of ``body.results``.

    Parameters
    ----------
    body : Body
    name : str
    places : dict of int to (str, int) or float
        For slots of the area: the pointer and the index there, or the number itself. The default for slots that are
        missing is their segment's pointer ``a0``, ``a1``, ...
    dtype : {"float64", "float32"}
    functions : object
        ``functions.of(callee)`` gives the name of the C function of a callee, which has the same signature, and the
        numbers of its work array.
    pointers : iterable of str, optional
        The pointers of the signature, in order. None: those of the segments.
    outs : list of (str, int), optional
        In place of ``out``, several pointers: their names, and how many of the results go there, in order.

    Returns
    -------
    BodyText
    """
    return Writer(body, name, places, dtype, functions, pointers, outs).written()


def literal(value: Any, dtype: str = "float64") -> Any:
    """A number in C, exact."""
    single = dtype == "float32"
    if single:
        with np.errstate(over="ignore"):
            value = np.float32(value)
    if not isfinite(value):
        text = {inf: "INFINITY", -inf: "-INFINITY"}.get(float(value), "NAN")
        return text if single else f"(double){text}" if text[0] != "-" else f"-(double){text[1:]}"
    text = str(value) if single else repr(float(value))
    if "." not in text and "e" not in text:
        text += ".0"
    return text + "f" * single


def table(name: Any, kind: Any, texts: Any) -> Any:
    """The definition of a static const array."""
    lines, line = [], "   "
    for text in texts:
        if len(line) + len(text) + 2 > WIDTH:
            lines.append(line)
            line = "   "
        line += f" {text},"
    return "\n".join([f"static const {kind} {name}[{len(texts)}] = {{", *lines, line.rstrip(","), "};"])


class Writer:
    """Writes the function of a body."""

    name: Any
    dtype: Any
    functions: Any

    callees: Any
    plan: Any
    outs: Any
    pointers: Any
    tables: Any
    index_tables: Any
    lines: Any
    helpers: Any
    formulas: Any
    declared: Any

    def __init__(self, body: Any, name: Any, places: Any, dtype: Any, functions: Any, pointers: Any, outs: Any) -> None:
        self.name, self.dtype, self.functions = name, dtype, functions
        self.real = "float" if dtype == "float32" else "double"
        self.callees = {}
        self.plan = Plan(body, name, places, self.wants, dtype, outs)
        self.outs = ["out"] if outs is None else [out for out, _ in outs]
        self.pointers = [f"a{k}" for k in range(len(body.segments))] if pointers is None else list(pointers)
        self.helpers, self.formulas = {}, {}
        self.tables = {t.name: table(t.name, self.real, [literal(x, dtype) for x in t.values])
                       for t in self.plan.tables}
        self.index_tables = {}
        self.lines, self.declared = [], set()

    def wants(self, callee: Any) -> Any:
        """How many numbers the work array of a callee has."""
        self.callees[id(callee)] = name, work = self.functions.of(callee)
        return work

    def written(self) -> Any:
        plan, parts, names = self.plan, [], []
        part = 0
        for k, step in enumerate(plan.steps):
            if step.part != part:
                parts.append(self.lines)
                self.lines, self.declared, part = [], set(), step.part
            for copy in plan.copies[k]:
                self.copy(copy.store, enumerate(copy.slots.tolist()))
            (getattr(self, f"write_{step.op.lower()}") if step.wide else self.write_single)(k, step)
            for store, pairs in plan.results[k]:
                self.copy(store, pairs)
        for store, pairs in plan.results[-1]:
            self.copy(store, pairs)
        parts.append(self.lines)
        texts = []
        if len(parts) > 1:
            names = [f"{self.name}_part_{k + 1}" for k in range(len(parts))]
            texts = [self.function(name, lines) for name, lines in zip(names, parts)]
            arguments = ", ".join([*self.pointers, *self.outs, "work"])
            parts = [[f"{name}({arguments});" for name in names]]
        texts.append(self.function(self.name, parts[0]))
        words = set(WORD.findall("\n".join(texts)))
        texts = [text for name, text in self.tables.items() if name in words] + texts
        return BodyText("\n\n".join(texts) + "\n", plan.work, tuple(self.helpers), tuple(self.formulas))

    def function(self, name: Any, lines: Any) -> Any:
        real = self.real
        parameters = [f"const {real} *restrict {p}" for p in self.pointers]
        parameters += [f"{real} *restrict {p}" for p in (*self.outs, "work")]
        text = joined(f"static void {name}(", parameters, ")")
        words = set(WORD.findall("\n".join(lines)))
        ends = [f"(void){p};" for p in [*self.pointers, *self.outs, "work"] if p not in words]
        if ends:
            lines = [*lines, " ".join(ends)]
        return "\n".join([text, "{", *("    " + line if line else "" for line in lines), "}"])

    # ---- numbers ----

    def number(self, slot: Any) -> Any:
        owner = self.plan.owner[slot]
        if owner == CONSTANT:
            return literal(self.plan.value.get(slot, 0.0), self.dtype)
        if owner == LOCAL or slot in self.declared:
            return f"v{slot}"
        return self.element(self.plan.stores[owner], int(self.plan.index[slot]))

    @staticmethod
    def element(store: Any, index: Any, terms: Any = ()) -> Any:
        """A number of a store; terms: variables and their steps."""
        return f"{store.name}[{sum_of(store.offset + index, terms)}]"

    @staticmethod
    def pointer(store: Any, index: int = 0, terms: Any = ()) -> Any:
        at = sum_of(store.offset + index, terms)
        return store.name if at == "0" else f"{store.name} + {at}"

    def result(self, step: Any) -> Any:
        """The store of a step's results and where they begin in it."""
        return self.plan.stores[self.plan.owner[step.first]], int(self.plan.index[step.first])

    def call(self, name: Any, *arguments: Any) -> Any:
        """A call of a helper."""
        self.helpers[name] = None
        return f"{name}({', '.join(map(str, arguments))})"

    def formula(self, op: Any, operands: Any, immediate: Any, count: int = 1) -> Any:
        """The expression of a row; in a long loop by functions that compilers vectorise."""
        text = formulas.expression(op, operands, self.dtype, immediate)
        if count >= VECTOR and self.dtype == "float64":
            text = elementary.substituted(text.replace("fg_sigmoid(", "fg_logistic("))
        for name in WORD.findall(text):
            if name in HELPERS or name in elementary.TEXTS:
                self.helpers[name] = None
            elif name in formulas.FUNCTIONS or name in formulas.VALUES:
                self.formulas[name] = None
        return text

    # ---- statements ----

    def put(self, *lines: Any) -> None:
        self.lines += lines

    def assign(self, left: Any, right: Any, indent: str = "") -> None:
        text = f"{indent}{left} = {right};"
        if len(text) > WIDTH:
            text = f"{indent}{left} =\n        {indent}{right};"
        self.put(*text.split("\n"))

    def loops(self, rows: Any, cols: Any, body: Any) -> None:
        """body(terms of row, terms of column, indent) within two loops; a loop of one round is none."""
        row = col = indent = ""
        if rows > 1 and cols > 1:
            row, col = "i", "j"
        elif rows > 1:
            row = "i"
        elif cols > 1:
            col = "i"
        for variable, count in ((row, rows), (col, cols)):
            if variable:
                self.put(f"{indent}for (int {variable} = 0; {variable} < {count}; {variable}++)")
                indent += "    "
        body(row, col, indent)

    def copy(self, store: Any, pairs: Any) -> None:
        """Copy numbers to places of a store."""
        plan = self.plan
        pairs, sources = list(pairs), []
        constants = [slot for _, slot in pairs if plan.owner[slot] == CONSTANT]
        tabled = None
        if len({plan.value.get(slot, 0.0) for slot in constants}) > 8:
            texts = [literal(plan.value.get(slot, 0.0), self.dtype) for slot in constants]
            tabled = f"{self.name}_table_{len(self.tables)}"
            self.tables[tabled] = table(tabled, self.real, texts)
        at = 0
        for place, slot in pairs:
            owner = plan.owner[slot]
            if owner == CONSTANT and tabled:
                sources.append((tabled, at))
                at += 1
            elif owner in (CONSTANT, LOCAL):
                sources.append((self.number(slot), None))
            else:
                source = plan.stores[owner]
                sources.append((source.name, source.offset + int(plan.index[slot])))
        places = [store.offset + place for place, _ in pairs]
        self.put(*statements(store.name, places, sources, self.index_table))

    def index_table(self, numbers: Any, kind: Any = None) -> Any:
        """The name of a static const array of these whole numbers, none below 0."""
        key = kind or ("int" if max(numbers) > 65535 else "unsigned short"), *numbers
        name = self.index_tables.get(key)
        if name is None:
            name = self.index_tables[key] = f"{self.name}_index_{len(self.index_tables)}"
            self.tables[name] = table(name, key[0], list(map(str, key[1:])))
        return name

    def write_single(self, k: Any, step: Any) -> None:
        text = self.formula(step.op, [self.number(slot) for slot in step.operands], step.immediate)
        slot = step.first
        if self.plan.owner[slot] == LOCAL:
            self.assign(f"const {self.real} v{slot}", text)
        elif self.plan.read_here[slot]:
            place = self.number(slot)
            self.assign(f"const {self.real} v{slot}", text)
            self.assign(place, f"v{slot}")
            self.declared.add(slot)
        else:
            self.assign(self.number(slot), text)

    def write_map(self, k: Any, step: Any) -> None:
        rows, cols = self.plan.loops[k]
        target = self.plan.targets[k]

        def body(row, col, indent):
            operands = []
            for operand in self.plan.operands[k]:
                if isinstance(operand, Grid):
                    operands.append(self.element(operand.store, operand.first,
                                                 ((row, operand.down), (col, operand.across))))
                else:
                    operands.append(self.number(operand))
            text = self.formula(step.param, operands, step.immediate, rows * cols)
            place = self.element(target.store, target.first, ((row, target.down), (col, target.across)))
            self.assign(place, text, indent)
        [x] = self.plan.operands[k] if len(step.operands) == 1 else [None]
        if self.plan.is_array_function(k) and x.across == 1:
            self.put(self.call(elementary.LOOPS[step.param], cols, self.pointer(x.store, x.first),
                               self.pointer(target.store, target.first)) + ";")
        else:
            self.loops(rows, cols, body)

    def write_layer(self, k: Any, step: Any) -> None:
        layer = self.plan.operands[k][0]
        m, n, depth = step.rows, step.cols, step_depth(step)
        store, first = self.result(step)
        x, w, b = layer.x, layer.w, layer.b
        bias = (self.pointer(b.store, b.first), b.across) if b else ("0", 0)
        out = self.pointer(store, first)
        if layer.form in ("dot", "dot_apart"):
            self.write_dot(step, layer, depth)
            return
        if layer.form == "product":
            apart = w.across
            pointer = self.pointer(w.store, w.first)
            if layer.spare:
                self.put(self.turned(n, depth, w, layer.spare))
                pointer, apart = self.pointer(layer.spare), n
            self.put(self.call("fg_product", m, n, depth, self.pointer(x.store, x.first), x.down, x.across, pointer,
                               apart, *bias, out) + ";")
        elif layer.form == "plain":
            self.put(self.call("fg_layer", m, n, depth, self.pointer(x.store, x.first), x.down, x.across,
                               self.pointer(w.store, w.first), w.down, w.across, *bias, out) + ";")
        else:
            if layer.swapped:
                m, n = n, m
            target, at = (layer.spare, 0) if layer.spare else (store, first)

            def body(row, col, indent):
                pointers = self.pointer(w.store, w.first), self.pointer(x.store, x.first, ((row, x.down),))
                given = bias
                if b and layer.swapped:   # the same for all of a row
                    given = self.pointer(b.store, b.first, ((row, b.across),)), 0
                result = self.pointer(target, at, ((row, n),))
                if layer.form == "rows":
                    text = self.call("fg_rows_dot", n, depth, pointers[0], w.down, pointers[1], *given, result)
                else:
                    text = self.call("fg_columns_sum", n, depth, pointers[0], w.across, pointers[1], x.across, *given,
                                     result)
                self.put(f"{indent}{text};")
            self.loops(m, 1, body)
            if layer.spare:
                self.put(self.call("fg_turned", m, n, self.pointer(target), n, out) + ";")
        self.activate(step)

    def turned(self, n: Any, depth: Any, w: Any, spare: Any) -> Any:
        """Copies w turned."""
        pointer = self.pointer(w.store, w.first)
        if w.across == 1 or depth == 1:
            return self.call("fg_turned", n, depth, pointer, w.down, self.pointer(spare)) + ";"
        return (f"for (int i = 0; i < {n}; i++)\n    for (int j = 0; j < {depth}; j++)\n        "
                f"{self.element(spare, 0, (('i', 1), ('j', n)))} = "
                f"{self.element(w.store, w.first, (('i', w.down), ('j', w.across)))};")

    def write_dot(self, step: Any, layer: Any, depth: Any) -> None:
        x, w, b = layer.x, layer.w, layer.b
        if layer.form == "dot":
            text = self.call("fg_dot", depth, self.pointer(x.store, x.first), self.pointer(w.store, w.first))
        elif depth <= 4:
            text = " + ".join(f"{self.element(x.store, x.first + p * x.across)} * "
                              f"{self.element(w.store, w.first + p * w.across)}" for p in range(depth))
        else:
            text = self.call("fg_dot_apart", depth, self.pointer(x.store, x.first), x.across,
                             self.pointer(w.store, w.first), w.across)
        if b:
            text = f"{self.element(b.store, b.first)} + {text}" if text else self.element(b.store, b.first)
        store, first = self.result(step)
        self.assign(self.element(store, first), text or literal(0.0, self.dtype))
        self.activate(step)

    def activate(self, step: Any) -> None:
        if step.param == "LEAF":
            return
        store, first = self.result(step)

        def body(row, col, indent):
            place = self.element(store, first, ((col, 1),))
            self.assign(place, self.formula(step.param, [place], step.immediate, step.rows * step.cols), indent)
        self.loops(1, step.rows * step.cols, body)

    def along_rows(self, k: Any, step: Any, one: Any, many: Any = None) -> None:
        """A reduction: `one` is the C of a row, or of all, by its length and pointer."""
        [x] = self.plan.operands[k]
        m, n = step.operands[0].shape
        if step.rows * step.cols == 1:
            m, n = 1, m * n
        store, first = self.result(step)

        def body(row, col, indent):
            text = one(n, self.pointer(x.store, x.first, ((row, x.down),)))
            self.assign(self.element(store, first, ((row, 1),)), text, indent)
        self.loops(m, 1, body)

    def write_sum(self, k: Any, step: Any, mean: bool = False) -> None:
        [x] = self.plan.operands[k]
        m, n = step.operands[0].shape
        if step.rows * step.cols > 1 and x.across != 1 and n > 1:   # x lies turned
            store, first = self.result(step)
            self.put(self.call("fg_sum_columns", m, n, self.pointer(x.store, x.first), x.across,
                               self.pointer(store, first)) + ";")
            if mean:
                def body(row, col, indent):
                    self.put(f"{indent}{self.element(store, first, ((col, 1),))} /= {literal(n, self.dtype)};")
                self.loops(1, m, body)
            return
        self.along_rows(k, step, lambda n, x: self.call("fg_sum", n, x) + (
            f" / {literal(n, self.dtype)}" if mean else ""))

    def write_mean(self, k: Any, step: Any) -> None:
        self.write_sum(k, step, mean=True)

    def write_max(self, k: Any, step: Any) -> None:
        self.along_rows(k, step, lambda n, x: self.call("fg_largest", n, x))

    def write_logsumexp(self, k: Any, step: Any) -> None:
        self.along_rows(k, step, lambda n, x: self.call("fg_logsumexp", n, x))

    def write_softmax(self, k: Any, step: Any, helper: str = "fg_softmax") -> None:
        [x] = self.plan.operands[k]
        self.put(self.call(helper, step.rows, step.cols, self.pointer(x.store, x.first), x.down,
                           self.pointer(*self.result(step))) + ";")

    def write_log_softmax(self, k: Any, step: Any) -> None:
        self.write_softmax(k, step, "fg_log_softmax")

    def write_cross_entropy(self, k: Any, step: Any) -> None:
        [x] = self.plan.operands[k]
        m, n = step.operands[0].shape
        labels = self.index_table(step.labels, "int")
        store, first = self.result(step)
        self.assign(self.element(store, first), self.call(
            "fg_cross_entropy", m, n, self.pointer(x.store, x.first), x.down, labels))

    def write_take(self, k: Any, step: Any) -> None:
        x, p = self.plan.operands[k]
        m, n = step.operands[0].shape
        store, first = self.result(step)
        count = step.operands[1].size
        each = step.immediate == 1

        def position(row):
            number = self.element(p.store, p.first, ((row, p.across),)) if isinstance(p, Grid) else self.number(p)
            return self.call("fg_position", number, n if each else m)
        row = "i" if count > 1 else ""
        self.put(f"for (int i = 0; i < {count}; i++) {{" if row else "{")
        self.put(f"    const int at = {position(row)};")
        inner, col = "    ", ""
        if each:
            to, of = ((row, 1),), ((row, x.down), ("at", x.across))
        else:
            if n > 1:
                self.put("    for (int j = 0; j < %d; j++)" % n)
                inner, col = "        ", "j"
            to, of = ((row, n), (col, 1)), (("at", x.down), (col, x.across))
        self.assign(self.element(store, first, to), f"at < 0 ? {literal(nan, self.dtype)} : {self.element(x.store, x.first, of)}", inner)
        self.put("}")

    def write_call(self, k: Any, step: Any) -> None:
        name, _ = self.callees[id(step.callee)]
        work = self.plan.works.get(k)
        arguments = [self.pointer(g.store, g.first) for g in self.plan.operands[k]]
        arguments += [self.pointer(*self.result(step)), self.pointer(work) if work else "0"]
        self.put(*joined(f"{name}(", arguments, ");").split("\n"))


def step_depth(step: Any) -> Any:
    return step.operands[0].shape[1]


def sum_of(constant: Any, terms: Any) -> Any:
    """C for a constant and variables with their steps."""
    found = [variable if factor == 1 else f"{factor} * {variable}" for variable, factor in terms if variable and factor]
    if constant or not found:
        found.insert(0, str(constant))
    return " + ".join(found).replace("+ -", "- ")


def joined(start: Any, parts: Any, end: Any) -> Any:
    """Arguments in lines."""
    lines, line = [], start
    for k, part in enumerate(parts):
        part += "," if k < len(parts) - 1 else end
        if len(line) + len(part) + 1 > WIDTH:
            lines.append(line.rstrip())
            line = " " * len(start)
        line += part + " "
    return "\n".join([*lines, line.rstrip()])

