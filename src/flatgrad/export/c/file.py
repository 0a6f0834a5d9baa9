"""A file of C11 of an `Exported`: what it declares, its parameters, the functions that users call, and its head."""
from __future__ import annotations

import re
import textwrap

from flatgrad._core import _Hole
from flatgrad.arguments import shortened
from flatgrad.export.c.body import joined, literal, table
from flatgrad.export.c.calls import SMALL, Functions, copied, real_of
from flatgrad.export.c.identifiers import Names, identifier
from flatgrad.export.c.signature import inputs_of, outputs_of, shape_text, size_of
from flatgrad.export.listing import listing
from flatgrad.structures import map_leaves

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["File"]

ON_STACK = 256   # numbers of work that a function has on its stack; more are given to it
WIDTH = 100
OF_STEP = ("s", "t", *[f"t{k}" for k in range(8)], "k", "at", "step")   # names in a step of training


class File:
    """A file, and its header.

    Parameters
    ----------
    exported : Exported
    name : str
        The function's in C; all other names of the file that others see begin with it.
    dtype : {"float64", "float32"}
    by : {None, "parameters", "arguments", "both"}
        What the gradient is taken by. None: there is none.
    constant : bool
        Whether the parameters are a table of constants.
    stem : str
        The name of the file, without its ending.

    Attributes
    ----------
    real : str
        The type of numbers.
    names : Names
        At file scope.
    local : Names
        Of parameters of functions, and of variables of the example.
    inputs, outputs : list of Field
    parameters, gradient, work : str
        What parameters of functions are called: those, the gradient by them, and memory for numbers in between.
    functions : Functions
    declared, defined : list of str
        What header and file have, and what only the file has, in order.
    example : list of (str, str)
        Declarations and statements of the example in the file's head.
    told : list of str
        Paragraphs of the head.
    """

    exported: Any
    name: Any
    dtype: Any
    by: Any
    constant: Any
    stem: Any

    count: Any
    has_struct: Any
    names: Any
    local: Any
    inputs: Any
    outputs: Any
    returns: Any
    parameters: Any
    gradient: Any
    work: Any
    slopes: Any
    functions: Any
    example: Any
    needed: Any
    bodies: Any
    told: Any
    real: Any
    declared: Any
    defined: Any

    def __init__(self, exported: Any, name: Any, dtype: Any, by: Any, constant: Any, stem: Any) -> None:
        self.exported, self.name, self.dtype, self.real = exported, name, dtype, real_of(dtype)
        self.by, self.constant, self.stem = by, constant, stem
        self.count = len(exported.parameters)
        self.has_struct = bool(self.count) and not constant
        public = [f"{name}_{end}" for end in ("gradient", "parameters", "start", "step", "state", "work", "values",
                                              "state_start", "update")]
        self.names = Names([name, *public])
        self.local = Names([name, *public, "work", "j", *OF_STEP])
        self.inputs = [field for field in inputs_of(exported.arguments, self.local) if field.slots]
        self.outputs = [field for field in outputs_of(exported.template, exported.results, self.local) if field.slots]
        self.returns = len(self.outputs) == 1 and len(self.outputs[0].slots) == 1
        self.parameters = self.local.new("p", "parameters")
        self.gradient = self.local.new("gradient", "by_parameters")
        self.work = self.local.new("w", "memory")
        self.slopes = [field._replace(name=self.local.new(f"d{field.name}", f"gradient_{field.name}"))
                       for field in self.inputs]
        self.functions = Functions(name, dtype)
        self.declared, self.defined, self.told = [], [], []
        self.example = []
        self.needed = 0   # numbers of the work array
        self.bodies = {}   # what `gradient_body` has found
        if self.has_struct:
            self.write_parameters()
        self.write_forward()
        if by is not None:
            self.write_gradient()

    # ---- what functions take ----

    def taken(self) -> Any:
        """The parameters of each function, before those for results and for work."""
        found = [f"const {self.name}_parameters *{self.parameters}"] if self.has_struct else []
        return found + [f"const {self.real} {f.name}[{shape_text(f.shape)}]" if f.shape else f"{self.real} {f.name}"
                        for f in self.inputs]

    def pointer(self, field: Any) -> Any:
        return f"{self.real} {field.name}[{shape_text(field.shape)}]" if field.shape else f"{self.real} *{field.name}"

    def given(self) -> Any:
        """What the C function of a callee gets of these, pointers."""
        found = [f"{self.parameters}->value"] if self.has_struct else []
        return found + [f.name if f.shape else f"&{f.name}" for f in self.inputs]

    def body(self, callee: Any, outs: Any = None) -> Any:
        """The C function of a callee with the operands of the exported one.

        Parameters
        ----------
        callee : _Callee
        outs : list of (str, list of int or None), optional
            Pointers for its results, and which of them go there; 0.0 in place of None. None: all to one.

        Returns
        -------
        (str, int)
            Its name, and the numbers of its work array; it is called with `given`, its results and that array.
        """
        e, pointers, places = self.exported, [], dict(self.exported.constants)
        body = listing(callee)
        if outs is not None:
            body.constants, zero, results = {**body.constants, body.nodes: 0.0}, body.nodes, body.results
            body.nodes += 1
            body.results = tuple([zero if k is None else results[k] for _, numbers in outs for k in numbers])
            outs = [(pointer, len(numbers)) for pointer, numbers in outs]
        if self.has_struct:
            pointers.append("parameters")
            places.update((slot, ("parameters", k)) for k, slot in enumerate(e.slots.tolist()))
        elif self.count > SMALL:
            places.update((slot, (f"{self.name}_values", k)) for k, slot in enumerate(e.slots.tolist()))
        else:
            places.update(zip(e.slots.tolist(), e.parameters.tolist()))
        for k, field in enumerate(self.inputs):
            pointers.append(f"a{k}")
            places.update((slot, (f"a{k}", j)) for j, slot in enumerate(field.slots))
        return self.functions.body(body, self.functions.new_name("body"), places, pointers, outs)

    def work_for(self, count: Any) -> Any:
        """What a function that needs so much work takes, has as a variable, and gives on."""
        if count <= ON_STACK:
            return [], f"    {self.real} work[{count}];\n" if count else "", "work" if count else "0"
        self.needed = max(self.needed, count)
        return [f"{self.name}_work *{self.work}"], "", f"{self.work}->number"

    # ---- what the file has ----

    def write_parameters(self) -> None:
        name, p = self.name, self.parameters
        groups = self.exported.groups
        count, place = f"{name}_count", f"{name}_at_"   # f and F are two functions
        if name.islower():
            count, place = f"{name}_parameters".upper(), place.upper()
        lines = [(f"    {self.names.new(count)} = {self.count}", "how many there are")]
        lines += [(f"    {self.names.new(place + group.identifier)} = {group.first}", told_of(group))
                  for group in groups]
        width = max(len(line) for line, _ in lines) + 1
        lines = [f"{line + ',' * (k + 1 < len(lines)):{width}} /* {commented(text)} */\n"
                 for k, (line, text) in enumerate(lines)]
        self.declared.append(f"/* Where parameters are: the first of each name. */\nenum {{\n{''.join(lines)}}};\n\n"
                             f"typedef struct {{\n    {self.real} value[{self.count}];\n}} {name}_parameters;\n")
        self.declared.append(f"/* Sets the parameters to those that the function had when this file was written. */\n"
                             f"void {name}_start({name}_parameters *{p});\n")
        self.defined.append(
            self.values() + f"\nvoid {name}_start({name}_parameters *{p})\n{{\n"
            + copied(f"{p}->value", f"{name}_values", self.count) + "}\n")
        self.example.append((f"static {name}_parameters {p};", f"{name}_start(&{p});"))

    def values(self) -> Any:
        """The parameters as a table."""
        texts = [literal(x, self.dtype) for x in self.exported.parameters.tolist()]
        return table(f"{self.name}_values", self.real, texts) + "\n"

    def write_forward(self) -> None:
        outs = [(f"out{k}", list(field.slots)) for k, field in enumerate(self.outputs)]
        function, count = self.body(self.exported.callee, outs)
        results = [] if self.returns else self.outputs
        self.declared.append(f"/* {'Returns the result' if self.returns else 'Computes the results'} of "
                             f"{self.exported.name}. */\n")
        given = [f"&{self.outputs[0].name}"] if self.returns else [f.name for f in results]
        self.write(self.name, function, count, given, results, False)

    def gradient_body(self, by: Any) -> Any:
        """The C function of the result and then its gradient, in arrays of the parameters and of each argument.

        Parameters
        ----------
        by : {"parameters", "arguments", "both"}

        Returns
        -------
        (str, int)
            As `body`.
        """
        if by not in self.bodies:
            callee, at = self.exported.gradient(by)
            outs = [("out", [0])]
            if by != "arguments":
                outs.append(("by_parameters", list(map(at.get, self.exported.slots.tolist()))))
            if by != "parameters":
                outs += [(f"by_a{k}", list(map(at.get, field.slots))) for k, field in enumerate(self.inputs)]
            self.bodies[by] = self.body(callee, outs)
        return self.bodies[by]

    def write_gradient(self) -> None:
        of_parameters = self.by != "arguments"
        fields = self.slopes if self.by != "parameters" else []
        by = {"parameters": "its parameters", "arguments": "its arguments", "both": "its parameters and arguments"}
        self.declared.append(f"/* Returns the result, and writes its gradient by {by[self.by]}. */\n")
        if of_parameters:
            self.example.append((f"static {self.name}_parameters {self.gradient};", ""))
        given = [f"&{self.outputs[0].name}", *[f"{self.gradient}->value"] * of_parameters, *[f.name for f in fields]]
        self.write(f"{self.name}_gradient", *self.gradient_body(self.by), given, fields, of_parameters)

    def write(self, name: Any, function: Any, count: Any, given: Any, results: Any, gradient: Any) -> None:
        """A function that calls one of a body."""
        more, memory, work = self.work_for(count)
        parameters = self.taken() + [f"{self.name}_parameters *{self.gradient}"] * gradient
        head = self.prototype(self.real if self.returns else "void", name,
                              [*parameters, *map(self.pointer, results), *more])
        self.declared[-1] += f"{head};\n"
        self.defined.append(
            f"{head}\n{{\n{memory}" + f"    {self.real} {self.outputs[0].name};\n" * self.returns
            + f"    {joined(f'{function}(', [*self.given(), *given, work], ');')}\n".replace("\n", "\n    ").rstrip(" ")
            + f"    return {self.outputs[0].name};\n" * self.returns + "}\n")
        self.show(name, results, more, gradient)

    def prototype(self, result: Any, name: Any, parameters: Any) -> Any:
        return joined(f"{result} {name}(", parameters or ["void"], ")")

    # ---- the head ----

    def show(self, function: Any, results: Any, more: Any, gradient: bool = False) -> None:
        """A call of a function, for the example."""
        given = [f"&{self.parameters}"] if self.has_struct else []
        given += [f.name for f in self.inputs] + ([f"&{self.gradient}"] if gradient else [])
        given += [f.name if f.shape else f"&{f.name}" for f in results] + [f"&{self.work}"] * len(more)
        for f in results:
            self.example.append((f"{'static ' * (size_of(f.shape) > 8)}{self.real} "
                                 f"{f.name}{f'[{shape_text(f.shape)}]' if f.shape else ''};", ""))
        call = f"{function}({', '.join(given)})"
        cast = "(double)" * (self.dtype == "float32")
        digits = "%.9g" if self.dtype == "float32" else "%.17g"
        if self.returns:
            self.example.append(("", f'printf("{digits}\\n", {cast}{call});'))
        else:
            first = self.outputs[0]
            self.example.append(("", f"{call};"))
            self.example.append(("", f'printf("{digits}\\n", {cast}{first.name}{"[0]" if first.shape else ""});'))

    def usage(self) -> Any:
        """The example: a whole program."""
        variables = []
        for f in self.inputs:
            size = size_of(f.shape)
            half = literal(0.5, self.dtype)
            if not f.shape:
                variables.append(f"const {self.real} {f.name} = {half};")
            elif size <= 8:
                variables.append(f"const {self.real} {f.name}[{shape_text(f.shape)}] = "
                                 f"{{{', '.join([half] * size)}}};")
            else:
                variables.append(f"static {self.real} {f.name}[{shape_text(f.shape)}];")
        if self.needed:
            variables.append(f"static {self.name}_work {self.work};")
        variables += [line for line, _ in self.example if line]
        lines = ["#include <stdio.h>", "", f'#include "{self.stem}.h"', "", "int main(void)", "{"]
        lines += [f"    {line}" for line in (*variables, *[line for _, line in self.example if line], "return 0;")]
        return [*lines, "}"]

    def head(self) -> Any:
        e, lines = self.exported, []
        first = f"{self.stem}.c: the compiled function {e.name} of Python, written by flatgrad in C11."
        lines += textwrap.wrap(first, WIDTH - 3)
        lines += ["", *textwrap.wrap(
            "It needs nothing but the mathematics of C's library, allocates no memory and has no variables that keep "
            "anything: functions may run in several threads, each with its own arguments. Results lie apart from "
            "arguments.", WIDTH - 3)]
        table = [(f.name, f"{f.path}{self.shape_told(f)}") for f in self.inputs]
        if table:
            lines += ["", "Arguments:", ""]
            width = max(len(name) for name, _ in table)
            lines += [f"    {name:{width}}  {text}" for name, text in table]
        if not self.returns:
            lines += ["", "Results:", ""]
            width = max(len(f.name) for f in self.outputs)
            lines += [f"    {f.name:{width}}  {f.path}{self.shape_told(f)}" for f in self.outputs]
        constants = constants_in(e.template)
        if constants:
            lines += ["", "Constants among the results of Python, which nobody computes here:", ""]
            lines += [f"    {path} = {text}" for path, text in constants]
        if self.count:
            kept = "in a struct" if self.has_struct else "constants of this file"
            lines += ["", *textwrap.wrap(f"Parameters: {self.count}, {kept}, in the order of "
                                         "flatgrad.nn.utils.parameters_to_vector().", WIDTH - 3)]
        if self.needed:
            size = self.needed * (4 if self.dtype == "float32" else 8)
            lines += ["", *textwrap.wrap(
                f"{self.name}_work has room for numbers in between, {size:,} bytes; they may be anything before a "
                "call, and are nothing after it.", WIDTH - 3)]
        for paragraph in self.told:
            lines += ["", *textwrap.wrap(paragraph, WIDTH - 3)]
        lines += ["", "Where Python raises an error, as for the logarithm of a negative number, there is nan or inf.",
                  "", "An example:", ""]
        lines += [f"    {line}".rstrip() for line in self.usage()]
        lines += ["", "To compile it:", "", f"    cc -std=c11 -O3 main.c {self.stem}.c -lm"]
        if self.functions.known_blocks():
            lines += ["", "With -march=native as well, or -mavx2, loops over samples are several times faster."]
        text = "\n".join(f" * {commented(line)}".rstrip() for line in lines)
        return f"/*{text[2:]}\n */\n"

    def shape_told(self, field: Any) -> Any:
        return f", {' x '.join(map(str, field.shape))} numbers" if field.shape else ""

    # ---- all of it ----

    def declarations(self) -> Any:
        guard = f"FLATGRAD_{self.name}{'' if self.stem == self.name else '_' + identifier(self.stem)}_H"
        own = list(self.declared)
        if self.needed:
            own.insert(1 if self.has_struct else 0,
                       f"typedef struct {{\n    {self.real} number[{self.needed}];\n}} {self.name}_work;\n")
        return (f"#ifndef {guard}\n#define {guard}\n\n#ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n"
                + "\n".join(own) + "\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n")

    def source(self) -> Any:
        text = self.functions.text()
        parts = [self.head(), "#include <float.h>\n#include <math.h>\n", self.declarations()]
        if self.count > SMALL and self.constant:
            parts.append(self.values())
        return "\n".join([*parts, text, *self.defined])

    def header(self) -> Any:
        return f"/* {self.stem}.h: declares what {self.stem}.c defines, and explains. */\n{self.declarations()}"


def commented(text: Any) -> Any:
    """A text as it may stand in a comment."""
    return text.replace("*/", "* /").replace("/*", "/ *")


def constants_in(template: Any) -> Any:
    """(path, text) of what a result has besides numbers that are computed, None apart."""
    found = []

    def leaf(path, x):
        if type(x) is not _Hole and x is not None:
            found.append((path, shortened(x)))
    map_leaves(leaf, template, "result")
    return found


def told_of(group: Any) -> Any:
    """Where the numbers of a Group are, for a comment."""
    letters = re.findall(r"(?<=[\[ .])(?:[i-n]|i\d+)(?=[\], .]|$)", group.name)[:len(group.shape)]
    name = group.name
    for letter, size in zip(letters, group.shape):
        if size == 1:
            name = re.sub(rf"(?<=[\[ .]){letter}(?=[\], .]|$)", "0", name)
    steps = [f"{step} {letter}" if step > 1 else letter
             for letter, step, size in zip(letters, group.strides, group.shape) if size > 1]
    if not steps:
        return name
    below = [f"{letter} < {size}" for letter, size in zip(letters, group.shape) if size > 1]
    return f"{name} is number {' + '.join(([str(group.first)] if group.first else []) + steps)}, {', '.join(below)}"
