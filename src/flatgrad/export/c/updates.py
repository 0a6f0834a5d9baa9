"""The step of training in C: the state of an optimizer, the functions that begin with today's, and the update.

The formulas are those of csrc/updates.def, which the compiled part computes with: here they are its text, for the
hyperparameters that the optimizer has.
"""
from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flatgrad import _core
from flatgrad.arguments import shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError
from flatgrad.export.c.body import literal, table
from flatgrad.export.c.specialized import specialized, written

if TYPE_CHECKING:
    from typing import Any

__all__ = ["RULES", "Update", "write_step"]


class Rule(NamedTuple):
    """How an optimizer updates.

    Attributes
    ----------
    loop : str
        The function of updates.def.
    arrays : dict of str to str
        The names of its arrays there, and in the optimizer's state.
    flags : callable
        ``flags(h)``: its first arguments by name, from the hyperparameters.
    fields : callable
        ``fields(h)``: the settings by name, but for those of a step: lr, first, correction1 and correction2.
    counts : callable
        ``counts(h, state)``: whether a step depends on how many there were.
    """

    loop: Any
    arrays: Any
    flags: Any
    fields: Any
    counts: Any


RULES = {
    "SGD": Rule(
        "sgd_loop", {"m": "momentum_buffer"},
        lambda h: {"decay": h["weight_decay"] != 0.0, "momentum": h["momentum"] != 0.0, "nesterov": h["nesterov"]},
        lambda h: h,
        # A buffer of zeros gives the same as none, unless a share of the first gradient is left out.
        lambda h, state: h["momentum"] != 0.0 != h["dampening"] and state.get("momentum_buffer") is None),
    "Adam": Rule(
        "adam_loop", {"m": "exp_avg", "v": "exp_avg_sq", "v_max": "max_exp_avg_sq"},
        lambda h: {"decay": h["weight_decay"] != 0.0 and not h["decoupled_weight_decay"], "amsgrad": h["amsgrad"],
                   "decoupled": h["weight_decay"] != 0.0 and h["decoupled_weight_decay"],
                   "low": 1.0 - h["betas"][0] < 0.5},
        lambda h: {**h, "beta1": h["betas"][0], "beta2": h["betas"][1]},
        lambda h, state: True),
    "RMSprop": Rule(
        "rmsprop_loop", {"v": "square_avg", "mean": "grad_avg", "m": "momentum_buffer"},
        lambda h: {"centered": h["centered"], "momentum": h["momentum"] != 0.0},
        lambda h: h, lambda h, state: False),
    "Adagrad": Rule(
        "adagrad_loop", {"total": "sum"}, lambda h: {}, lambda h: h, lambda h, state: h["lr_decay"] != 0.0),
    "Adadelta": Rule(
        "adadelta_loop", {"v": "square_avg", "u": "acc_delta"}, lambda h: {}, lambda h: {**h, "alpha": h["rho"]},
        lambda h, state: False),
}

FEW = 4   # stretches of parameters, each with a line of its own


class Group(NamedTuple):
    """A group of an optimizer.

    Attributes
    ----------
    hyperparameters : dict
        Checked.
    state : dict
        As the optimizer has it.
    lr : float
    function : str
        The C function of its update.
    arrays : list of str
        The arrays of the state that it takes.
    names : list of str
        What else it takes: of lr, first, correction1 and correction2.
    counts : bool
        Whether it depends on how many steps there were.
    stretches : list of (int, int, int)
        (first parameter, first number of the arrays in the state, how many).
    """

    hyperparameters: Any
    state: Any
    lr: Any
    function: Any
    arrays: Any
    names: Any
    counts: Any
    stretches: Any


class Update:
    """The update of an optimizer, in C.

    Parameters
    ----------
    exported : Exported
    optimizer : Optimizer
    name : str
        The function's in C.
    dtype : {"float64", "float32"}

    Attributes
    ----------
    title : str
        The optimizer with its hyperparameters, for comments.
    groups : list of Group
    count : int
        How many of the parameters it updates.
    functions : str
        The C functions of the update.
    """

    exported: Any
    name: Any
    dtype: Any

    kind: Any
    rule: Any
    hyperparameters: Any
    title: Any
    count: Any
    arrays: Any
    functions: Any
    used: Any
    groups: Any

    def __init__(self, exported: Any, optimizer: Any, name: Any, dtype: Any) -> None:
        self.kind = kind_of(optimizer)
        self.rule = RULES[self.kind]
        self.exported, self.name, self.dtype = exported, name, dtype
        self.real = "float" if dtype == "float32" else "double"
        self.hyperparameters = checked(optimizer)
        self.title = f"{type(optimizer).__name__}({'; '.join(map(shown, self.hyperparameters))})"
        stretches, at = self.places(optimizer)
        self.count = len(at)
        self.arrays = {}   # of the state: what they begin with
        self.groups, self.functions = [], ""
        functions = {}   # by their texts
        for k, h in enumerate(self.hyperparameters):
            state = optimizer._state[k]
            text, arrays, names = self.function(h, state)
            if stretches[k] and text not in functions:
                functions[text] = f"{name}_update" + f"_{len(functions) + 1}" * bool(functions)
                head = f"/* {self.kind}'s, of n parameters p with the gradient g. */\nstatic void {functions[text]}"
                self.functions += f"{head}{text}\n"
            for array in arrays if stretches[k] else ():
                self.begin(array, h, state, at, k)
            self.groups.append(Group(h, state, h["lr"], functions.get(text), arrays, names, self.rule.counts(h, state),
                                     stretches[k]))
        self.functions = self.functions.rstrip("\n") + "\n"
        self.used = [k for k, group in enumerate(self.groups) if group.stretches]

    # ---- where parameters are ----

    def places(self, optimizer: Any) -> Any:
        """Which parameters each group updates: for each the stretches; and for each parameter that is updated, in the
        order of the state's arrays, (group, number in the group)."""
        e = self.exported
        order = np.full(len(e.wanted) + 1, -1)   # the last: of what is not captured
        order[:-1][np.array(e.wanted, bool)] = np.arange(len(e.parameters))
        owner = np.full((len(e.parameters), 2), -1)
        for k, parameters in enumerate(optimizer._parameters):
            found = order[np.array(_core._captured_places(e.program.core, parameters.values), int)]
            numbers = np.flatnonzero(found >= 0)
            owner[found[numbers], 0], owner[found[numbers], 1] = k, numbers
        updated = np.flatnonzero(owner[:, 0] >= 0)
        if not len(updated):
            raise ArgumentError(f"to_c: optimizer: expected one with parameters that {e.name} captures, got "
                                f"{shortened(optimizer)}")
        stretches = [[] for _ in self.hyperparameters]
        cuts = np.flatnonzero((np.diff(updated) != 1) | (np.diff(owner[updated, 0]) != 0)) + 1
        for part in np.split(np.arange(len(updated)), cuts):
            stretches[owner[updated[part[0]], 0]].append((int(updated[part[0]]), int(part[0]), len(part)))
        return stretches, owner[updated]

    def begin(self, array: Any, h: Any, state: Any, at: Any, group: Any) -> None:
        """What an array of the state begins with, for the parameters of a group."""
        numbers = self.arrays.setdefault(array, np.zeros(self.count))
        mine = at[:, 0] == group
        kept = state.get(array)
        if kept is not None:
            numbers[mine] = kept[at[mine, 1]]
        elif array == "sum":
            numbers[mine] = h["initial_accumulator_value"]

    # ---- the functions ----

    def function(self, h: Any, state: Any) -> Any:
        """(C of the function from its parameters on, the arrays of the state and the numbers that it takes)."""
        texts = _core._updates()
        functions = {name: (names_of(parameters), body) for name, (parameters, _, body) in texts.items()}
        parameters, body = functions[self.rule.loop]
        given = {name: ("name", name) for name in ("lr", "correction1", "correction2")}
        given["first"] = ("name", "first") if self.kind == "SGD" and self.rule.counts(h, state) else False
        fields = {**{name: x for name, x in self.rule.fields(h).items() if name != "lr"}, **given}
        flags = {name: bool(x) for name, x in self.rule.flags(h).items()}
        statements, used = specialized(body, flags, fields, functions)
        arrays = [name for name in self.rule.arrays if name in used]
        names = [name for name in parameters_of_step(fields) if name in used]
        parameters = ["int n", f"{self.real} *restrict p", f"const {self.real} *restrict g",
                      *[f"{self.real} *restrict {name}" for name in arrays],
                      *[f"{'int' if name == 'first' else self.real} {name}" for name in names]]
        head = wrapped(f"({', '.join(parameters)})")
        return (f"{head}\n{{\n{written(statements, self.dtype, literal)}}}\n", [self.rule.arrays[a] for a in arrays],
                names)

    # ---- the state ----

    def runs(self) -> Any:
        """Whether the corrections of Adam are kept in the state, one step after the other, and not computed by powers
        of the number of steps: in floats, of which powers would be less exact, and need more code."""
        return self.kind == "Adam" and self.dtype == "float32"

    def fields(self) -> Any:
        """(type, name, number for each group or array of numbers, comment) of the state."""
        groups, found = [self.groups[k] for k in self.used], []
        found.append((self.real, "lr", [group.lr for group in groups], "the learning rate, which may be changed"))
        if any(group.counts for group in groups):
            steps = [self.steps(group) for group in groups]
            if self.runs():
                for j in (0, 1):
                    found.append((self.real, f"correction{j + 1}",
                                  [1.0 - group.hyperparameters["betas"][j] ** steps[k] for k, group in enumerate(groups)],
                                  f"1 - beta{j + 1} to the power of the number of steps"))
            else:
                same = len(set(steps)) == 1
                found.append(("unsigned long", "step", steps[:1] if same else steps, "how many steps there were"))
        return found + [(self.real, name, numbers, ARRAYS[name]) for name, numbers in self.arrays.items()]

    def steps(self, group: Any) -> Any:
        return int(group.state.get("step", 0))

    def declaration(self) -> Any:
        """The type of the state."""
        lines = []
        for kind, name, numbers, comment in self.fields():
            several = f"[{len(numbers)}]" if len(numbers) > 1 or name in ARRAYS else ""
            of_groups = ", of each group" if several and name not in ARRAYS else ""
            lines.append((f"    {kind} {name}{several};", f"/* {comment}{of_groups} */"))
        width = max(len(line) for line, _ in lines)
        return ("typedef struct {\n" + "".join(f"{line:{width}} {comment}\n" for line, comment in lines)
                + f"}} {self.name}_state;\n")

    def start(self) -> Any:
        """(tables, statements) of the function that sets the state s."""
        tables, lines, alike = [], [], {}
        for kind, name, numbers, _ in self.fields():
            if name not in ARRAYS:
                for k, x in enumerate(numbers):
                    text = str(x) if kind == "unsigned long" else literal(x, self.dtype)
                    lines.append(f"    s->{name}{f'[{k}]' if len(numbers) > 1 else ''} = {text};\n")
            elif len(set(numbers.tolist())) == 1:
                alike[name] = literal(float(numbers[0]), self.dtype)
            else:
                tables.append(table(f"{self.name}_{name}", self.real, [literal(x, self.dtype) for x in numbers.tolist()])
                              + "\n\n")
                alike[name] = f"{self.name}_{name}[j]"
        filled = "".join([f"        s->{name}[j] = {x};\n" for name, x in alike.items()])
        if alike:
            braces = ("{", "    }\n") if len(alike) > 1 else ("", "")
            lines.append(f"    for (int j = 0; j < {self.count}; j++) {braces[0]}".rstrip() + f"\n{filled}{braces[1]}")
        return "".join(tables), "".join(lines)

    # ---- a step ----

    def statements(self, p: Any, g: Any) -> Any:
        """The statements of a step that update the parameters.

        Parameters
        ----------
        p, g : str
            C for pointers to the first parameter and to its gradient. The state is s.
        """
        lines = []
        groups = [self.groups[k] for k in self.used]
        several = {name: len(numbers) > 1 for _, name, numbers, _ in self.fields()}
        for k, group in enumerate(groups):
            def at(name):
                return f"s->{name}[{k}]" if several[name] else f"s->{name}"

            given = {"lr": at("lr"), "first": f"{at('step')} == 0" if "first" in group.names else ""}
            h = group.hyperparameters
            if self.kind == "Adam":
                t = f"t{k}" if several.get("step") else "t"
                if not self.runs() and (k == 0 or several["step"]):
                    lines.append(f"    const double {t} = (double)({at('step')} + 1);\n")
                for j, beta in enumerate(h["betas"]):
                    name = f"correction{j + 1}"
                    if self.runs():
                        keep = literal(1.0 - beta, self.dtype)
                        lines.append(f"    {at(name)} = {at(name)} * {literal(beta, self.dtype)} + {keep};\n")
                        given[name] = at(name)
                    else:
                        given[name] = f"1.0 - pow({literal(beta, self.dtype)}, {t})"
            if self.kind == "Adagrad" and group.counts:
                decay, one = literal(h["lr_decay"], self.dtype), literal(1.0, self.dtype)
                given["lr"] = f"{at('lr')} / ({one} + ({self.real}){at('step')} * {decay})"
            scalars = [given[name] for name in group.names]
            for text in self.calls(group, p, g, scalars):
                lines.append(text)
        if "step" in several:
            lines += [f"    s->step[{k}]++;\n" for k in range(len(groups))] if several["step"] else ["    s->step++;\n"]
        return "".join(lines)

    def calls(self, group: Any, p: Any, g: Any, scalars: Any) -> Any:
        def call(pad, count, first, offset):
            parts = [count, plus(p, first), plus(g, first), *[plus(f"s->{name}", offset) for name in group.arrays],
                     *scalars]
            return wrapped(f"{pad}{group.function}({', '.join(parts)});") + "\n"

        stretches = group.stretches
        if len(stretches) <= FEW:
            return [call("    ", str(count), first, offset) for first, offset, count in stretches]
        rows = ", ".join("{%d, %d, %d}" % stretch for stretch in stretches)
        table = f"static const unsigned {'short' if max(map(max, stretches)) < 2**16 else 'int'} at[{len(stretches)}][3]"
        inner = call("            ", "at[k][2]", "at[k][0]", "at[k][1]")
        return [f"    {{\n        {table} = {{\n" + wrapped(f"            {rows}") + "\n        };\n"
                f"        for (int k = 0; k < {len(stretches)}; k++)\n{inner}    }}\n"]


ARRAYS = {"momentum_buffer": "the momentum", "exp_avg": "averages of gradients",
          "exp_avg_sq": "averages of their squares", "max_exp_avg_sq": "the largest of these",
          "square_avg": "averages of squares of gradients", "grad_avg": "averages of gradients",
          "sum": "sums of squares of gradients", "acc_delta": "averages of squares of updates"}


def kind_of(optimizer: Any) -> Any:
    """The name of the rule that an optimizer goes by; an error if it has none that C knows."""
    module = "flatgrad.optim.optimizers"
    kinds = {cls.__name__: cls for cls in type(optimizer).__mro__ if cls.__module__ == module}
    expected = f"to_c: optimizer: expected one of {', '.join(RULES)} or AdamW, of flatgrad.optim"
    if "Optimizer" not in kinds:
        raise ArgumentTypeError(f"{expected}, got {shortened(optimizer)}")
    kind = next((name for name in RULES if name in kinds), None)
    if optimizer._needs_closure:
        raise ArgumentTypeError(f"{expected}, got a {type(optimizer).__name__}, which computes the loss several times in "
                                "a step; with to_c(gradient=True) a program in C may do that")
    if kind is None or any(getattr(type(optimizer), name) is not getattr(kinds[kind], name) for name in ("step", "_use")):
        raise ArgumentTypeError(f"{expected}, got a {type(optimizer).__name__}, whose step() is a rule in Python")
    return kind


def checked(optimizer: Any) -> Any:
    """The hyperparameters of each group, as a step of the optimizer checks them."""
    found = []
    for k, group in enumerate(optimizer.param_groups):
        missing = [name for name in optimizer._checks if name not in group]
        if missing:
            raise ArgumentError(f"param_groups[{k}]: expected the key {missing[0]!r}, got the keys {list(group)}")
        h = {name: check(f"param_groups[{k}][{name!r}]", group[name]) for name, check in optimizer._checks.items()}
        optimizer._check_together(f"param_groups[{k}]: ", h)
        found.append(h)
    if len(found) != len(optimizer._parameters):
        raise ArgumentError(f"param_groups: expected {len(optimizer._parameters)} groups, got {len(found)}; "
                            "add_param_group() adds one")
    return found


def shown(h: Any) -> Any:
    return ", ".join(f"{name}={x!r}" for name, x in h.items())


def names_of(parameters: Any) -> Any:
    """The names in a list of parameters in C."""
    return tuple(re.findall(r"(\w+)[,)]", parameters))


def parameters_of_step(fields: Any) -> Any:
    return [name for name, x in fields.items() if x == ("name", name)]


def plus(pointer: Any, offset: Any) -> Any:
    return pointer if offset == 0 else f"{pointer} + {offset}"


def wrapped(line: Any, width: int = 100) -> Any:
    """A line cut at spaces after commas."""
    indent = re.match(" *", line)[0]
    out = []
    while len(line) > width and (cut := line.rfind(", ", len(indent) + 1, width)) > 0:
        out.append(line[:cut + 1])
        line = f"{indent}    {line[cut + 2:]}"
    return "\n".join([*out, line])


# ---- the function of a step ----

def write_step(file: Any, optimizer: Any) -> None:
    """Add the state of an optimizer to a file, and the functions that set it and take a step.

    Parameters
    ----------
    file : File
    optimizer : Optimizer

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If C has no such step: the optimizer goes by a rule of its own, or by several evaluations of the loss; it has no
        parameter of the function; or the function returns several numbers, or has its parameters as constants.
    """
    e, name, real = file.exported, file.name, file.real
    kind_of(optimizer)
    if not file.has_struct:
        raise ArgumentError(f"to_c: optimizer: expected None, as {e.name} captures no parameters, got "
                            f"{shortened(optimizer)}" if not file.count else
                            "to_c: parameters: expected 'struct' with an optimizer, which changes them, got 'constant'")
    n_results = sum([int(np.prod(shape)) for shape, _ in e.results])
    if n_results != 1:
        raise ArgumentError(f"to_c: optimizer: expected None, as {e.name} returns {n_results} numbers, and training needs "
                            f"one, the loss; got {shortened(optimizer)}")
    update = Update(e, optimizer, name, file.dtype)
    function, work = file.gradient_body("parameters")
    n = 1 + file.count   # the loss, and its gradient
    more, memory, place = file.work_for(n + work)
    p, inputs = file.parameters, file.taken()[1:]
    head = file.prototype(real, f"{name}_step", [f"{name}_parameters *{p}", f"{name}_state *s", *inputs, *more])
    start = f"void {name}_state_start({name}_state *s)"
    tables, statements = update.start()
    call = ", ".join([*file.given(), place, f"{place} + 1", f"{place} + {n}" if work else "0"])
    lines = [memory, f"    {function}({call});\n", update.statements(f"{p}->value", f"{place} + 1"),
             f"    return {place}[0];\n"]
    file.declared += [
        f"/* What {update.title.partition('(')[0]} keeps from a step to the next. */\n{update.declaration()}",
        f"/* Sets the state to that of the optimizer when this file was written. */\n{start};\n",
        f"/* Takes a step of training, which changes the parameters, and returns the loss before it. */\n{head};\n"]
    file.defined += [f"{tables}{start}\n{{\n{statements}}}\n", f"{update.functions}\n{head}\n{{\n{''.join(lines)}}}\n"]
    file.told.append(f"{name}_step() is a step of {update.title}"
                     + (f"; it updates {update.count} of the parameters." if update.count < file.count else "."))
    arguments = ", ".join([f"&{p}", "&s", *[f.name for f in file.inputs], *[f"&{file.work}"] * len(more)])
    digits = '"%.9g\\n", (double)' if file.dtype == "float32" else '"%.17g\\n", '
    file.example += [(f"static {name}_state s;", f"{name}_state_start(&s);"),
                     ("", "for (int step = 0; step < 3; step++)"), ("", f"    printf({digits}{name}_step({arguments}));")]
