"""Finds a class in the source of a program, and adds a call after the class that replaces it by flatgrad's Value.

Python first makes the class as it is written, with its decorators. Then `stand_in.replace` examines the class and
returns the new meaning of its name. Later uses of the name get flatgrad's Value.
"""
from __future__ import annotations

import ast
import builtins
import os
import symtable
import sys
import warnings
from importlib.machinery import PathFinder, SourceFileLoader

from flatgrad.compat.common import Refusal, Stop, installed, note, place, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from flatgrad._core import _Path

__all__ = ["Job", "definitions", "modules_in", "parse"]

OURS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
LIBRARY = os.path.join(os.path.dirname(os.path.realpath(os.__file__)), "")

CHANGING = {"add", "append", "clear", "discard", "extend", "insert", "pop", "remove", "update"}  # methods of containers

jobs: list[Any] = []  # a call in a program's source gives the index of its Job here


class Job:
    """A class to replace, wherever the program defines it; also the finder of the modules that define it.

    Parameters
    ----------
    wanted : str
        The name of the class, or module.name.
    root : str, optional
        The folder from which the program imports its modules.
    package : str, optional
        The package whose modules are searched. None: all imported modules that are not installed packages.
    whole : bool
        Whether the run has to end if flatgrad's Value cannot replace the class.
    main : str, optional
        The name of the program's own module.
    scalar_graph : bool
        Whether the graph has to be the class's graph, node for node.

    Attributes
    ----------
    done : list of str
        The files in which the class has been replaced.
    rest : str
        An addition to the note about the replacement.
    read, written, patched : set of str
        The attributes that the program reads, except within the class itself; the attributes and global variables
        that it writes, except within the class; and the attributes of the class that it sets by the class's name.
    subclasses : set of str
        The names that subclasses of the class define.
    modules : set of str
        The modules that the program imports.
    """

    wanted: Any

    main: Any
    root: Any
    call: Any
    module: Any
    told: Any
    written: Any
    name: Any
    package: Any
    whole: Any
    scalar_graph: Any
    done: Any
    rest: Any
    read: Any
    patched: Any
    subclasses: Any
    modules: Any

    def __init__(self, wanted: Any, root: Any = None, package: Any = None, *, main: str = "", whole: bool = True,
                 scalar_graph: bool = False) -> None:
        self.main = main
        self.module, _, self.name = wanted.rpartition(".")
        self.wanted, self.package, self.whole, self.scalar_graph = wanted, package, whole, scalar_graph
        self.root = None if root is None else os.path.join(os.path.realpath(root), "")
        self.done, self.rest, self.told = [], "", False
        self.read, self.written, self.patched, self.subclasses, self.modules = set(), set(), set(), set(), set()
        self.call = len(jobs)
        jobs.append(self)

    def covers(self, module: Any, path: _Path) -> Any:
        """Whether to search this module for the class."""
        if self.module:
            return module == self.module or module.endswith("." + self.module)
        if self.package is not None:
            return module == self.package or module.startswith(self.package + ".")
        path = os.path.realpath(path)
        return not path.startswith((os.path.join(OURS, ""), LIBRARY)) and not installed(path)

    @property
    def covers_main(self) -> Any:
        """Whether to search the program's own file for the class."""
        return self.package is None and f".{self.main}".endswith(f".{self.module}" if self.module else "")

    def give_up(self, path: _Path, reason: Any, draft: bool = False) -> None:
        """Keep the program's class in this file, or end the run if `whole`."""
        if self.whole and not draft:
            raise Stop(f"argument --replace-class: flatgrad's Value cannot stand in for class {self.name} of "
                       f"{place(path)}: {reason}")
        self.told = True
        note(f"class {self.name} of {place(path)} stays the program's own: {reason}{self.rest}")

    def learn(self, tree: Any) -> None:
        """Record the attributes and names that a module of the program reads and writes."""
        inside = {id(part) for body, at in classes(tree, self.name) for statement in body[at:complete(body, at)[0] + 1]
                  if statement is body[at] or changes(statement, self.name) for part in ast.walk(statement)}
        variables = {name for part in ast.walk(tree) if isinstance(part, ast.Global) for name in part.names}
        seen = set()
        for part in ast.walk(tree):
            if isinstance(part, (ast.Import, ast.ImportFrom)):
                self.modules |= {alias.name for alias in part.names} | {getattr(part, "module", None)}
            elif id(part) in inside:
                continue
            elif isinstance(part, ast.Attribute):
                of_class = getattr(part.value, "id", getattr(part.value, "attr", None)) == self.name
                kind = self.read if isinstance(part.ctx, ast.Load) else self.patched if of_class else self.written
                kind.add(part.attr)
            elif isinstance(part, ast.Call) and getattr(part.func, "id", None) == "setattr" and len(part.args) > 1:
                self.written.add(getattr(part.args[1], "value", None))
            elif isinstance(part, ast.Call) and getattr(part.func, "attr", None) in CHANGING:
                self.written.add(getattr(part.func.value, "attr", None))  # v.<name>.clear()
            elif isinstance(part, ast.ClassDef) and any(
                    getattr(base, "id", getattr(base, "attr", None)) == self.name for base in part.bases):
                self.subclasses |= {"", *(name for statement in part.body for name in bound(statement))}
        for body in blocks(tree.body):
            for statement in body:
                if not isinstance(statement, (ast.Import, ast.ImportFrom)) and (
                        isinstance(statement, (*DEFINING, ast.AugAssign)) or not hasattr(statement, "body")):
                    names = bound(statement)
                    variables |= names & seen
                    seen |= names
        self.written |= variables - {self.name}

    def check_done(self) -> None:
        """At the end of the program: report if the program had no such class."""
        if not self.done and not self.told:
            note(f"no module that the program imported has a class {self.wanted} at its top level: nothing was "
                 "replaced")

    def find_spec(self, module: Any, path: _Path = None, target: Any = None) -> Any:
        """For `sys.meta_path`: finds only the modules that define the class."""
        spec = PathFinder.find_spec(module, path, target)
        if (spec is None or type(spec.loader) is not SourceFileLoader or not self.covers(module, spec.origin)
                or not definitions(spec.origin, self.name)):
            return None
        spec.loader = Loader(self, module, spec.origin)
        return spec

    def in_program(self, cells: Any, path: _Path, package: Any) -> Any:
        """The program's own sources, with the call after each definition of the class.

        Parameters
        ----------
        cells : list of (str or bytes, str)
            The sources and their names in tracebacks.
        path : str
            The program's file.
        package : str
            The package from which relative imports start.

        Raises
        ------
        Refusal
            If there is no such class in the program and its modules, or if a definition is not a class that fits.
        """
        trees = []
        for code, _ in cells:
            try:
                trees.append(parse(code))
            except (SyntaxError, ValueError):
                trees.append(None)  # the error is reported when the cell is run
        known = [tree for tree in trees if tree is not None]
        modules, unknown = imported(known, self.root, package)
        for tree in [*known, *filter(None, (read(path) for _, path in modules))]:
            self.learn(tree)
        if None not in trees and not installed(path) and not os.path.realpath(path).startswith(LIBRARY):
            check_there(self, known, shown(path), modules, unknown)
        if not self.covers_main:
            return cells
        with_class = [k for k, tree in enumerate(trees) if tree is not None and fit(tree, self.name)]
        return [(code if k not in with_class else self.with_calls(tree, path, draft=k != with_class[-1]), name)
                for k, (tree, (code, name)) in enumerate(zip(trees, cells))]

    def with_calls(self, tree: Any, path: _Path, draft: bool = False) -> Any:
        """The module's syntax tree, with the call after each definition of the class. Line numbers do not change.

        draft: whether the class is defined again later, as in notebooks; then this definition may stay.
        """
        put_calls(tree, self, path, draft)
        return tree


class Loader(SourceFileLoader):
    """Loads a module in which a class is replaced, without reading or writing bytecode files."""

    def __init__(self, job: Any, module: Any, path: _Path) -> None:
        super().__init__(module, path)
        self.job = job

    def get_code(self, module: Any) -> Any:
        tree = self.job.with_calls(parse(self.get_data(self.path)), self.path)
        return compile(tree, self.path, "exec", dont_inherit=True)


def parse(source: Any) -> Any:
    """The syntax tree, without the parser's warnings: they appear when the source is compiled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def read(path: _Path) -> Any:
    """The syntax tree of a file; None if the file cannot be read or is not Python."""
    try:
        with open(path, "rb") as file:
            return parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return None


# ---- search for the class ----

def blocks(body: Any) -> Iterator[Any]:
    """The lists of statements that are executed with a module: its own, and those within if, try, with and so on."""
    yield body
    for statement in body:
        if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for field in ("body", "orelse", "finalbody"):
                yield from blocks(getattr(statement, field, []))
            for handler in getattr(statement, "handlers", []):
                yield from blocks(handler.body)


def classes(tree: Any, name: Any) -> Any:
    """The definitions of classes with this name: each as the list of statements and the index in the list."""
    return [(body, at) for body in blocks(tree.body) for at, statement in enumerate(body)
            if isinstance(statement, ast.ClassDef) and statement.name == name]


def definitions(path: _Path, name: Any) -> Any:
    """The definitions in a file that flatgrad's Value might replace."""
    try:
        with open(path, "rb") as file:
            if name.encode() not in file.read():
                return []
    except OSError:
        return []
    tree = read(path)
    return [] if tree is None else fit(tree, name)


def fit(tree: Any, name: Any) -> Any:
    """The definitions of classes with this name that flatgrad's Value might replace."""
    return [at for at in classes(tree, name) if why_not(*at) is None]


def why_not(body: Any, at: Any) -> Any:
    """The reason why flatgrad's Value cannot replace the class, as the rest of "it ..."; or None."""
    node = body[at]
    bases = [base for base in node.bases if ast.unparse(base) not in ("object", node.name)]
    if bases or any(keyword.arg == "metaclass" for keyword in node.keywords):
        return "inherits from " + ", ".join(map(ast.unparse, bases or [k.value for k in node.keywords]))
    names = {part.name for part in node.body if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))}
    names |= {target.id for part in node.body if isinstance(part, ast.Assign) for target in part.targets
              if isinstance(target, ast.Name)}
    names |= {target.attr for part in body[at:] for target in getattr(part, "targets", [])
              if isinstance(target, ast.Attribute) and getattr(target.value, "id", None) == node.name}
    if "backward" not in names:
        return "defines no backward()"
    used = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    unused = [f".{name}" for name in ("data", "grad") if name not in used]
    return f"never uses {' or '.join(unused)}" if unused else None


def modules_in(folder: Any, package: Any) -> Any:
    """The modules of a package, as files by their names, without names that begin with two underscores."""
    found = {package: os.path.join(folder, "__init__.py")}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.endswith(".py") and not name.startswith("__"):
            found[f"{package}.{name[:-3]}"] = path
        elif name.isidentifier() and os.path.isfile(os.path.join(path, "__init__.py")):
            found.update(modules_in(path, f"{package}.{name}"))
    return found


def imported(trees: Any, root: Any, package: str = "") -> Any:
    """The files below `root` that a program may import, directly or indirectly, according to its import statements.

    Parameters
    ----------
    trees : list of ast.Module
        The program's own file.
    root : str
        The folder in which modules are found.
    package : str
        The package from which relative imports start.

    Returns
    -------
    list of (str, str)
        Name of the module and path.
    bool
        Whether there are modules that only the program itself can find, or modules that are not Python.
    """
    found, todo, tops = {}, [(tree, package) for tree in trees], set()
    broken = False
    while todo:
        tree, package = todo.pop()
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")[:len(package.split(".")) - node.level + 1] if node.level else []
                module = ".".join([*filter(None, above), *([node.module] if node.module else [])])
                names = [module, *(f"{module}.{alias.name}".lstrip(".") for alias in node.names)]
                tops |= {module.split(".")[0]} if module and not node.level else set()
            if isinstance(node, ast.Import):
                tops |= {name.split(".")[0] for name in names}
            for name in names:
                parts = name.split(".")
                for count in range(1, len(parts) + 1):
                    module = ".".join(parts[:count])
                    path = os.path.join(root, *parts[:count])
                    for file, inside in ((path + ".py", ".".join(parts[:count - 1])),
                                         (os.path.join(path, "__init__.py"), module)):
                        if module and module not in found and os.path.isfile(file):
                            found[module] = file
                            tree = read(file)
                            broken |= tree is None
                            if tree is not None:
                                todo.append((tree, inside))
    unknown = broken or any(top not in found and top not in sys.builtin_module_names and top not in sys.modules
                  and PathFinder.find_spec(top) is None for top in tops)
    return sorted(found.items()), unknown


def check_there(job: Any, trees: Any, target: Any, modules: Any, unknown: Any) -> None:
    """Raise `Refusal` if neither the program nor the modules from its folder define the class, or if the name is not
    a class that fits."""
    places = [(tree, target) for tree in trees if job.covers_main]
    modules = [(name, path) for name, path in modules if job.covers(name, path)]
    for _, path in modules:
        tree = read(path)
        if tree is not None:
            places.append((tree, place(path)))
    reasons = []
    for tree, where in places:
        for body, at in classes(tree, job.name):
            reason = why_not(body, at)
            if reason is None:
                return
            reasons.append((reason, where))
    if reasons:
        reason, where = reasons[-1]
        raise Refusal(f"argument --replace-class: flatgrad's Value cannot stand in for class {job.name} of {where}: "
                      f"it {reason}")
    if unknown:
        return  # Job.check_done reports at the end if the class was never found
    if job.module:
        raise Refusal(f"argument --replace-class: {target} imports no module {job.module} with a class {job.name} at "
                      "its top level")
    others = ", ".join(place(path) for _, path in modules)
    raise Refusal(f"argument --replace-class: {target} has no class {job.name} at its top level"
                  + (f", and neither have {others}, which it imports" if others else ""))


# ---- the call ----

def put_calls(tree: Any, job: Any, path: _Path, draft: Any) -> None:
    """Add the call that replaces the class after each of its definitions in a module."""
    found = fit(tree, job.name)
    for k, (body, _) in reversed(list(enumerate(found))):  # from the end, so that the earlier indices stay right
        at = found[k][1]
        after, reason = complete(body, at)
        later = draft or k < len(found) - 1
        if reason is not None:
            job.give_up(path, reason, later)
            continue
        new = ast.parse(f"{job.name} = __import__('flatgrad.compat.stand_in', fromlist=['replace']).replace("
                        f"{job.name}, {job.call}, {path!r}, {later})").body[0]
        for part in ast.walk(new):
            ast.copy_location(part, body[after])
        body.insert(after + 1, new)


def complete(body: Any, at: Any) -> Any:
    """The index of the statement after which the class is complete, and the reason if it is used before this statement.

    Names in its methods may be defined after the class, and programs put methods on a class after its definition.
    """
    node = body[at]
    known = set(dir(builtins)) | {node.name} | {name for statement in body[:at] for name in bound(statement)}
    needed, end = global_names(node) - known, at
    for k in range(at + 1, len(body)):
        statement = body[k]
        if bound(statement) & needed:
            needed |= global_names(statement) - known
            end = k
        elif changes(statement, node.name) and all(
                isinstance(between, DEFINING) for between in body[end + 1:k]):
            end = k
    for statement in body[at + 1:end]:
        if not isinstance(statement, DEFINING) and not changes(statement, node.name) and (
                node.name in global_names(statement)):
            return end, (f"line {statement.lineno} uses it, and line {body[end].lineno} defines after that what its "
                         "methods need")
    return end, None


DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def bound(statement: Any) -> Any:
    """The names that a statement defines: functions, classes, modules, variables."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    return {part.id for part in ast.walk(statement) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}


def global_names(statement: Any) -> Any:
    """The names that a statement reads from its module, also within functions and classes."""
    found, todo = set(), [symtable.symtable(ast.unparse(statement), "", "exec")]
    while todo:
        table = todo.pop()
        todo += table.get_children()
        found |= {symbol.get_name() for symbol in table.get_symbols()
                  if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module")}
    return found


def changes(statement: Any, name: Any) -> Any:
    """Whether a statement sets an attribute of the class: Name.attribute = ..., or setattr(Name, ...)."""
    if isinstance(statement, ast.Assign):
        return all(isinstance(target, ast.Attribute) and getattr(target.value, "id", None) == name
                   for target in statement.targets)
    call = statement.value if isinstance(statement, ast.Expr) else None
    return (isinstance(call, ast.Call) and getattr(call.func, "id", None) == "setattr" and len(call.args) > 1
            and getattr(call.args[0], "id", None) == name)
