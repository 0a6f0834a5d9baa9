"""Makes failing programs short, and writes them down as scripts.

A program is a list of lines of Python, most of them `name = expression`. `shrink` leaves out lines, puts what a line
was made of in its place, and puts parts of expressions, shorter lists and rounder numbers in the place of expressions,
as long as the program still fails. `Sides` are what the names in the lines mean here and in the oracle; `Calls` are two
ways to evaluate a function with these lines. `script` writes either down.
"""
import ast
import math
import time
from dataclasses import dataclass, field

__all__ = ["Calls", "Sides", "script", "shrink"]


def shrink(lines, fails, seconds=30.0):
    """The lines of a failing program, as few and as short as were found.

    Parameters
    ----------
    lines : list of str
        The program.
    fails : callable
        Whether a program, such a list, fails as this one does. A program that cannot run does not.
    seconds : float, default 30.0
        When to stop looking.
    """
    end, tried = time.monotonic() + seconds, set()
    lines = [ast.unparse(ast.parse(line)) for line in lines]
    if not fails(lines):
        return lines
    before = None
    while before != lines and time.monotonic() < end:
        before = list(lines)
        for step in without_some, without_one, with_simpler:
            lines = improved(lines, fails, step, end, tried)
    return lines


def improved(lines, fails, step, end, tried):
    """The lines after all changes of one kind that leave the program failing; `tried`: what has been found not to."""
    found = True
    while found:
        found = False
        for other in step(lines):
            if time.monotonic() > end:
                return lines
            if size(other) >= size(lines) or tuple(other) in tried:
                continue
            if fails(other):
                lines, found = other, True
                break
            tried.add(tuple(other))
    return lines


def size(lines):
    return len(lines), sum(map(len, lines))


def without_some(lines):
    """Half of the lines gone, or a quarter, or one."""
    n = len(lines)
    while n > 1:
        n = (n + 1) // 2
        for start in reversed(range(0, len(lines), n)):
            yield lines[:start] + lines[start + n:]
        if n == 1:
            break


def names_of(node):
    return [x.id for x in ast.walk(node) if isinstance(x, ast.Name)]


def without_one(lines):
    """One line gone; what it was made of, or what is older, in the place of what it made."""
    for k in reversed(range(len(lines))):
        statement, = ast.parse(lines[k]).body
        if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
            continue
        made = statement.targets[0].id
        for name in dict.fromkeys(names_of(statement.value)):
            yield lines[:k] + [renamed(line, made, name) for line in lines[k + 1:]]


def renamed(line, old, new):
    tree = ast.parse(line)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == old:
            node.id = new
    return ast.unparse(tree)


def with_simpler(lines):
    """One expression of one line in a simpler form."""
    for k in reversed(range(len(lines))):
        for place, node in enumerate(ast.walk(ast.parse(lines[k]))):
            for other in simpler(node):
                tree = ast.parse(lines[k])
                Put(list(ast.walk(tree))[place], other).visit(tree)
                try:
                    yield lines[:k] + [ast.unparse(ast.fix_missing_locations(tree))] + lines[k + 1:]
                except (AttributeError, ValueError):   # not an expression there
                    pass


class Put(ast.NodeTransformer):
    """One node in the place of another."""

    def __init__(self, old, new):
        self.old, self.new = old, new

    def visit(self, node):
        return self.new if node is self.old else super().visit(node)


def simpler(node):
    """What may stand in the place of an expression."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        for x in (1, 0, 2, 1.0, 2.0, 0.5, 3.0):
            if type(x) is type(node.value):
                yield ast.Constant(x)
        if isinstance(node.value, float) and math.isfinite(node.value):
            for digits in range(4):
                yield ast.Constant(round(node.value, digits))
    elif isinstance(node, (ast.List, ast.Tuple)) and isinstance(node.ctx, ast.Load):
        half = len(node.elts) // 2
        if half > 1:
            yield type(node)(node.elts[:half], ast.Load())
            yield type(node)(node.elts[half:], ast.Load())
        for k in range(len(node.elts)):
            yield type(node)(node.elts[:k] + node.elts[k + 1:], ast.Load())
        yield from [x for x in node.elts if not isinstance(x, ast.Slice)]
    elif isinstance(node, ast.BinOp):
        yield from (node.left, node.right)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
        yield node.value
    elif isinstance(node, ast.Call):
        yield from node.args
        if isinstance(node.func, ast.Attribute):
            yield node.func.value
        if len(node.args) > 1:
            yield ast.Call(node.func, node.args[:-1], node.keywords)
        for k in range(len(node.keywords)):
            yield ast.Call(node.func, node.args, node.keywords[:k] + node.keywords[k + 1:])


@dataclass
class Sides:
    """What the names in a program mean on both sides.

    Attributes
    ----------
    imports : str
        The line that both begin with.
    bindings : dict
        For each name that lines may have, the expressions that stand for it here and in the oracle.
    read : callable
        From a name and what it stands for here, the expressions that are compared, each as text; of what is none of our
        business, none.
    same : callable
        From a number, list or array of ours and of the oracle's, whether they are the same.
    told : str
        `same` as an expression of `ours` and `theirs`.
    """

    imports: str
    bindings: dict
    read: callable
    same: callable
    told: str
    loaded: list = field(default_factory=list)

    def spaces(self):
        """The names of both sides, in a new dictionary each."""
        if not self.loaded:
            common = {}
            exec(self.imports, common)
            self.loaded += [{name: eval(pair[side], common) for name, pair in self.bindings.items()} for side in (0, 1)]
        return [dict(space) for space in self.loaded]

    def difference(self, lines):
        """The first expression that differs, or None; also where a program does not run on both sides."""
        ours, theirs = self.spaces()
        known = set(ours)
        code = compile("\n".join(lines), "<program>", "exec")
        try:
            exec(code, ours)
            exec(code, theirs)
        except Exception:
            return None
        for name in [name for name in ours if name not in known and name != "__builtins__"]:
            for text in self.read(name, ours[name]):
                try:
                    pair = eval(text, ours), eval(text, theirs)
                except Exception:
                    continue
                if not self.same(*pair):
                    return text
        return None

    def fails(self, lines):
        return self.difference(lines) is not None


@dataclass
class Calls:
    """Two ways to evaluate the same function, `program`, whose lines are those of the program.

    Attributes
    ----------
    imports : str
        The line before.
    bindings : dict
        The expressions that names in the lines stand for.
    arguments : str
        Of the function. It returns the last name that a line makes.
    ours, theirs : str
        Expressions, of `program`.
    same, told
        As of Sides.
    """

    imports: str
    bindings: dict
    arguments: str
    ours: str
    theirs: str
    same: callable
    told: str

    def text(self, lines):
        """The script, up to what is asserted."""
        made = [node.targets[0].id for line in lines for node in ast.walk(ast.parse(line))
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
        used = {name for line in [*lines, self.ours, self.theirs, self.imports, *self.bindings.values()]
                for name in names_of(ast.parse(line))}
        own = [name for name, text in self.bindings.items() if name in used and text == f"flatgrad.{name}"]
        bound = f"from flatgrad import {', '.join(own)}\n" if own else ""
        bound += "".join(f"{name} = {text}\n" for name, text in self.bindings.items()
                         if name in used and name not in own)
        body = "".join(f"    {line}\n" for text in lines for line in text.split("\n"))
        return (f"{self.imports}\n{bound}def program({self.arguments}):\n{body}"
                f"    return {made[-1] if made else None}\nours = {self.ours}\ntheirs = {self.theirs}\n")

    def difference(self, lines):
        """The script, if both ways give something, and not the same; otherwise None."""
        space, text = {}, self.text(lines)
        try:
            exec(compile(text, "<program>", "exec"), space)
            return None if self.same(space["ours"], space["theirs"]) else text
        except Exception:
            return None

    def fails(self, lines):
        return self.difference(lines) is not None

    def script(self, lines):
        return f"{self.text(lines)}assert {self.told}, (ours, theirs)"


def script(lines, sides, seconds=30.0):
    """A failing program as a script of a few lines, which ends with an AssertionError."""
    found = sides.difference(lines)
    if found is None:
        return "# the lines alone do not fail:\n" + "\n".join(lines)
    lines = shrink(lines, sides.fails, seconds)
    if isinstance(sides, Calls):
        return sides.script(lines)
    found = sides.difference(lines)
    used = {name for line in [*lines, found] for name in names_of(ast.parse(line))}
    used = [name for name in sides.bindings if name in used]
    body = "".join(f"    {line}\n" for text in lines for line in text.split("\n"))
    calls = [", ".join(sides.bindings[name][side] for name in used) for side in (0, 1)]
    return (f"{sides.imports}\ndef program({', '.join(used)}):\n{body}    return {found}\n"
            f"ours = program({calls[0]})\ntheirs = program({calls[1]})\nassert {sides.told}, (ours, theirs)")
