"""Programs written for micrograd, run on flatgrad: by one call, or without touching them.

`install_as_micrograd` decides what `import micrograd` means. `run` is `python -m flatgrad run`: it
executes a script, a notebook or a module as Python would, and leaves options and error lines of its
own to the command line.
"""
import ast
import builtins
import importlib.machinery
import importlib.util
import json
import linecache
import os
import re
import sys
import traceback
import types
import warnings

from flatgrad import Value, engine, nn

__all__ = ["install_as_micrograd", "run"]


class Refusal(ValueError):
    """What `run` was asked for cannot be run; nothing of it has been."""


# ---- import micrograd ----

def install_as_micrograd():
    """Make ``import micrograd`` mean flatgrad in this process, whether or not micrograd is installed.

    From then on `micrograd.engine` is `flatgrad.engine`, and `micrograd.nn` is `flatgrad.nn`. To be
    called before the first import of micrograd; a second call changes nothing.

    Raises
    ------
    RuntimeError
        If micrograd's own `engine` or `nn` has been imported: Values of two classes would meet.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.install_as_micrograd()  # doctest: +SKIP
    >>> from micrograd.engine import Value  # doctest: +SKIP
    >>> Value is flatgrad.Value  # doctest: +SKIP
    True
    """
    modules = {"engine": engine, "nn": nn}
    for name, module in modules.items():
        if sys.modules.get(f"micrograd.{name}") not in (None, module):
            raise RuntimeError(
                f"micrograd.{name} is already imported, from another package: call "
                "flatgrad.install_as_micrograd() before the first import of micrograd"
            )
    old = sys.modules.get("micrograd")
    if old is None or not hasattr(old, "__flatgrad__"):
        package = types.ModuleType("micrograd", "flatgrad, under micrograd's name.")
        package.__spec__ = importlib.machinery.ModuleSpec("micrograd", None, is_package=True)
        package.__package__ = "micrograd"
        package.__path__ = []  # no other submodules, so that the real package's cannot get in
        package.__flatgrad__ = True
        sys.modules["micrograd"] = package
    for name, module in modules.items():
        sys.modules[f"micrograd.{name}"] = module
        # `old` may be the real package, imported by someone without its modules.
        for package in (old, sys.modules["micrograd"]):
            if package is not None:
                setattr(package, name, module)


# ---- python -m flatgrad run ----

def run(target, arguments=(), *, module=False, replace_class=None):
    """Run a program as ``__main__`` of this process, with flatgrad for micrograd.

    Parameters
    ----------
    target : str
        Path of a script, or of a notebook if it ends in ``.ipynb``; with `module`, a module's name.
    arguments : sequence of str, optional
        For the program's `sys.argv`.
    module : bool, optional
        Whether `target` is a module, found and run as ``python -m`` does.
    replace_class : str, optional
        The name of a class of the program, to be replaced by `flatgrad.Value`.

    Returns
    -------
    int
        0; 1 after an exception, which has been printed from the program's own frames on; 130 after
        an interrupt.

    Raises
    ------
    SystemExit
        As the program does.
    Refusal
        If there is no such program, a notebook is broken, or flatgrad cannot stand in for the class.

    Notes
    -----
    The process is the program's from here on: `sys.modules['__main__']`, `sys.argv` and `sys.path`
    stay as they are set, for whatever the program leaves to threads and `atexit`.
    """
    main = types.ModuleType("__main__")
    main.__builtins__ = builtins
    try:
        install_as_micrograd()
        if module:
            spec = find_module(target)
            cells = [(spec.loader.get_source(spec.name), spec.origin)]
            if cells[0][0] is None:
                raise Refusal(f"module {target} has no source")
            sys.argv = [spec.origin, *arguments]
            main.__spec__, main.__file__, main.__loader__ = spec, spec.origin, spec.loader
            main.__package__, main.__cached__ = spec.parent, spec.cached
        else:
            cells = read_cells(target)
            sys.argv = [target, *arguments]
            if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
                sys.path[0] = os.path.dirname(os.path.realpath(target))
            if is_notebook(target):
                os.environ.setdefault("MPLBACKEND", "Agg")  # there is no front end to draw in
            else:
                main.__file__, main.__cached__ = os.path.abspath(target), None
                main.__loader__ = importlib.machinery.SourceFileLoader("__main__", main.__file__)
        if replace_class is not None:
            cells = with_class_replaced(cells, replace_class, target)
        sys.modules["__main__"] = main
        for code, name in cells:
            exec(compile(code, name, "exec", dont_inherit=True), main.__dict__)
    except (SystemExit, Refusal) as error:
        if isinstance(error, Refusal) and sys.modules["__main__"] is main:
            return failed(error)  # raised by the program: it may well call `run` itself
        raise
    except BaseException as error:
        return failed(error)
    return 0


def failed(error):
    """Show an exception that left the program, without our frames, and return the exit code."""
    ours = {__file__, importlib.util.find_spec.__code__.co_filename}
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in ours:
        frames = frames.tb_next
    error.__traceback__ = frames
    if sys.excepthook is sys.__excepthook__:
        # The hook itself may not know the lines of a notebook's cells.
        traceback.print_exception(type(error), error, frames)
    else:
        sys.excepthook(type(error), error, frames)
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def note(text):
    """Tell something about the program, apart from its output."""
    print(f"flatgrad run: note: {text}", file=sys.stderr)


def find_module(name):
    """The spec of what ``python -m name`` runs."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise Refusal(f"argument -m: expected the name of a module, got {name!r}")
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name += ".__main__"
            spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # one that a package above it misses
        spec = None
    except ValueError:  # __main__, that is ourselves
        spec = None
    if spec is None:
        raise Refusal(f"no module named {name}")
    if not hasattr(spec.loader, "get_source"):
        raise Refusal(f"module {name} has no source")
    return spec


def is_notebook(path):
    """Whether `path` is to be read as a notebook."""
    return path.lower().endswith(".ipynb")


def read_cells(path):
    """What is to be executed, in order: pairs of a source and the name that tracebacks give it."""
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        raise Refusal(f"cannot read {shown(path)}: {error.strerror}") from error
    except ValueError as error:  # a null character
        raise Refusal(f"cannot read {shown(path)}: {error}") from error
    if not is_notebook(path):
        return [(source, os.path.abspath(path))]
    try:
        cells = code_cells(json.loads(source))
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{shown(path)}: not a notebook: {error}") from error
    named = []
    for number, cell in enumerate(cells, 1):
        name = f"{path}, cell {number}"
        # No time of change: the entry stays, though no file has that name.
        linecache.cache[name] = (len(cell), None, cell.splitlines(True), name)
        named.append((without_magics(cell, name), name))
    return named


def shown(path):
    """`path` as messages show it: quoted only if it has characters that do not print."""
    return path if path.isprintable() and path else repr(path)


def code_cells(notebook):
    """The sources of a notebook's code cells."""
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise ValueError("expected an object with a list of cells (notebook format 4)")
    sources = []
    for number, cell in enumerate(cells, 1):
        source = cell.get("source") if isinstance(cell, dict) else None
        lines = [source] if isinstance(source, str) else source
        if not (isinstance(lines, list) and all(isinstance(line, str) for line in lines)):
            raise ValueError(f"entry {number} of its cells has no source text")
        if cell.get("cell_type") == "code":
            sources.append("".join(lines))
    return sources


# ---- IPython's syntax in notebooks ----

RUN_THEIR_CELL = ("%%time", "%%capture")  # cell magics around Python that later cells may need
IPYTHON_LINE = re.compile(r"\s*(?:[%!?]|[\w.,\s\[\]*]+=\s*[%!]|[\w.]+\?{1,2}\s*$)")


def without_magics(cell, name):
    """A cell's source as Python, line for line: what is IPython's is told, and skipped."""
    lines, notes = cell.split("\n"), {}
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    if lines[first].startswith("%%"):
        magic = lines[first].split()[0]
        if magic not in RUN_THEIR_CELL:
            note(f"{name}, line {first + 1}: skipped the cell: {lines[first].strip()}")
            return ""
        notes[first] = f"skipped the line: {lines[first].strip()}"
        lines[first] = ""
    # A line may begin with % or ! in Python too, within an expression or a string. So a line counts
    # as IPython's only if it is where Python's parser stops.
    while True:
        try:
            parse("\n".join(lines))
        except SyntaxError as error:
            at = (error.lineno or 0) - 1
            if not (0 <= at < len(lines) and IPYTHON_LINE.match(lines[at])):
                break  # an error of the cell's, for its turn
            notes[at] = f"skipped: {lines[at].strip()}"
            indent = lines[at][:len(lines[at]) - len(lines[at].lstrip())]
            continued = lines[at].endswith("\\")
            lines[at] = indent + "pass"
            while continued and at + 1 < len(lines):
                at += 1
                continued = lines[at].endswith("\\")
                lines[at] = ""
        except ValueError:  # a null character
            break
        else:
            break
    for i in sorted(notes):  # the parser may stop at a later line first
        note(f"{name}, line {i + 1}: {notes[i]}")
    return "\n".join(lines)


def parse(source):
    """The syntax tree, without the warnings: those come when the source is compiled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


# ---- --replace-class ----

def with_class_replaced(cells, name, target):
    """The cells, in which each top-level definition of class `name` imports flatgrad's Value instead.

    Line numbers stay. Raises `Refusal` if there is no such class or one is something else.
    """
    replaced, found, lacking = [], False, {}
    for code, filename in cells:
        try:
            tree = parse(code)
        except (SyntaxError, ValueError):
            replaced.append((code, filename))  # to be reported when its turn comes
            continue
        for i, node in enumerate(tree.body):
            if isinstance(node, ast.ClassDef) and node.name == name:
                found = True
                why = why_not(node)
                if why:
                    raise Refusal(f"argument --replace-class: flatgrad's Value cannot stand in for "
                                  f"class {name} of {shown(target)}: it {why}")
                lacking.update((method, None) for method in methods(node)
                               if not hasattr(Value, method))
                alias = ast.alias(name="Value", asname=name)
                new = ast.ImportFrom(module="flatgrad.engine", names=[alias], level=0)
                tree.body[i] = ast.fix_missing_locations(ast.copy_location(new, node))
        replaced.append((tree, filename))
    if not found:
        raise Refusal(f"argument --replace-class: {shown(target)} has no class {name} "
                      "at its top level")
    if lacking:
        note(f"flatgrad's Value, now class {name} of {target}, lacks its methods "
             f"{', '.join(lacking)}")
    return replaced


def why_not(node):
    """Why flatgrad's Value cannot stand in for a class, as the rest of "it ..."; or None."""
    if any(not (isinstance(base, ast.Name) and base.id == "object") for base in node.bases):
        return f"inherits from {', '.join(map(ast.unparse, node.bases))}"
    if "backward" not in methods(node):
        return "defines no backward()"
    used = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    unused = [f".{name}" for name in ("data", "grad") if name not in used]
    return f"never uses {' or '.join(unused)}" if unused else None


def methods(node):
    """The names of a class's methods, those that are set from others included, in order."""
    names = []
    for statement in node.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.append(statement.name)
        elif (isinstance(statement, ast.Assign)
              and (isinstance(statement.value, ast.Lambda)
                   or getattr(statement.value, "id", None) in names)):
            names += [name.id for name in statement.targets if isinstance(name, ast.Name)]
    return names
