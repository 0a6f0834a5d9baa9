"""How Sphinx builds the site: `python3 dev.py docs`, with warnings as errors.

The reference is made here: a page for each public module, from its docstrings, in docs/api/. A new
module has one as soon as it can be imported and has an `__all__`.
"""
import importlib.metadata
import importlib.util
import inspect
import os
import re
from pathlib import Path

import flatgrad

HERE = Path(__file__).resolve().parent

project = "flatgrad"
version = release = importlib.metadata.version("flatgrad")
author = copyright = importlib.metadata.metadata("flatgrad")["Author"]

# Where the sources are, as for setup.py. Docstrings have links to their source there, or else to a copy in the site.
REPOSITORY = os.environ.get("FLATGRAD_REPOSITORY", "").rstrip("/")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx_copybutton",
              "sphinx.ext.linkcode" if REPOSITORY else "sphinx.ext.viewcode"]
nb_execution_mode = "off"   # notebooks are shown as they are: tests/test_notebooks.py runs them
copybutton_exclude = ".linenos, .gp, .go"   # of a session in Python what was typed
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"flatgrad {version}"
html_copy_source = html_show_sourcelink = False

myst_heading_anchors = 3   # [text](page.md#heading) works, as on GitHub
pygments_style, pygments_dark_style = "default", "monokai"

# Docstrings are numpydoc. `x` in them is code, and a link where it names something of ours; words of a
# type ("real number") are no names, so an unknown one of these kinds is no error. Any other is.
napoleon_google_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]   # several names on a line are as many attributes
napoleon_use_rtype = False
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [("py:(class|exc|obj)", ".*")]
autodoc_member_order = "bysource"
autodoc_typehints = "none"   # the docstrings say more than the stub
autosummary_generate = False
suppress_warnings = ["ref.footnote"]   # a source that the text does not point to
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"


# ---- the reference ----

# For our own modules.
INTERNAL = {"arguments", "lost", "markup", "signatures", "structures", "transforms", "weighting"}
INNER = ("nn.initialization", "nn.utils")   # in no `__all__`, and what docstrings point to
# The order of the pages; a module that is not named here comes after these.
ORDER = ["flatgrad", "engine", "nn", "nn.initialization", "nn.utils", "losses", "optim", "optim.lr_scheduler", "train",
         "estimators", "functional", "autograd", "rules", "checking", "anomaly", "program", "export", "loops", "groups", "tree", "selection",
         "randomness", "datasets", "viz",
         "errors", "storage", "scalar", "compat"]


def public_modules():
    """Every module that has a page: the package's, and those that one of them has in its `__all__`."""
    found = {"flatgrad": flatgrad}
    for name in set(flatgrad.SUBMODULES) - INTERNAL:
        if importlib.util.find_spec(f"flatgrad.{name}"):
            module = found[name] = importlib.import_module(f"flatgrad.{name}")
            inner = {f"{name}.{each}": getattr(module, each) for each in module.__all__}
            found.update({name: of for name, of in inner.items() if inspect.ismodule(of) and is_ours(of.__name__)})
    found.update((name, importlib.import_module(f"flatgrad.{name}")) for name in INNER)
    rank = {name: k for k, name in enumerate(ORDER)}
    return [found[name] for name in sorted(found, key=lambda name: (rank.get(name, len(rank)), name))]


def is_ours(name, package="flatgrad"):
    return f"{name}.".startswith(f"{package}.")


def own_names(module):
    """What of `__all__`, and of what is loaded later, is documented on the module's page: not what it only
    passes on."""
    names, home = [*module.__all__, *getattr(module, "LOADED_LATER", ())], module.__name__
    if module is flatgrad:   # its `__all__` leaves out what Python has as well, such as sum
        names = sorted({*names, *flatgrad._core.__all__}, key=str.lower)
    for name in names:
        found = getattr(module, name)
        of = getattr(found, "__module__", None) or home
        if not inspect.ismodule(found) and (is_ours(of, home) or not is_ours(of)):
            yield name


def page(module):
    """The text of a module's page: its docstring, a table of what is in it, and then all of that."""
    name, names = module.__name__, list(own_names(module))
    data = [each for each in names if not callable(getattr(module, each))]
    names = [each for each in names if each not in data]
    lines = [name, "=" * len(name), "", f".. automodule:: {name}", "   :no-members:", ""]
    if names:
        lines += [".. autosummary::", "   :nosignatures:", "", *(f"   {each}" for each in names), ""]
    classes = [each for each in names if inspect.isclass(getattr(module, each))]
    for kind, of_kind in (("class", classes), ("function", [each for each in names if each not in classes])):
        for each in of_kind:
            lines += [f".. auto{kind}:: {each}"]
            if kind == "class":
                lines += ["   :members:"]
                if getattr(module, each).__bases__ != (object,):
                    lines += ["   :show-inheritance:"]
            lines += [""]
    for each in data:   # its docstring is its class's
        found = getattr(module, each)
        what = f"The names {', '.join(f'``{key!r}``' for key in found)}." if isinstance(found, dict) else ""
        lines += [f".. py:data:: {name}.{each}", "", f"   {what}", ""]
    return "\n".join(lines)


def summary(module):
    """The first paragraph of a module's docstring, for a cell of a Markdown table."""
    text = " ".join(inspect.getdoc(module).split("\n\n")[0].split())
    return text.replace("``", "`").replace("|", "\\|").removeprefix("flatgrad: ")


def keep(folder, files):
    """Let a folder here have these files and no others; what is as it was stays untouched."""
    folder = HERE / folder
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8", newline="\n")


def write_reference():
    """Write docs/api/*.rst."""
    modules = public_modules()
    pages = {f"{module.__name__}.rst": page(module) for module in modules}
    entries = "".join(f"api/{module.__name__}\n" for module in modules)
    table = "".join(f"| [{module.__name__}](api/{module.__name__}.rst) | {summary(module)} |\n" for module in modules)
    pages["modules.txt"] = f"| module | |\n|---|---|\n{table}\n```{{toctree}}\n:hidden:\n\n{entries}```\n"
    keep("api", pages)


def write_notebooks():
    """Copy examples/notebooks/*.ipynb to docs/notebooks/, where Sphinx finds them."""
    books = {path.name: path.read_text("utf-8") for path in (HERE.parent / "examples" / "notebooks").glob("*.ipynb")}
    keep("notebooks", books)


write_reference()
write_notebooks()


# ---- links to the source ----

def compiled_place(names):
    """(file, line) of a class or function of the border, or of a method of such a class; the row of an operation."""
    border = sorted((HERE.parent / "src" / "flatgrad" / "border").glob("*.pxi"))
    for path in [*border, HERE.parent / "csrc" / "ops.def"]:
        text = path.read_text("utf-8")
        found = re.search(rf'^(?:(?:cdef )?class |def ){names[0]}\b', text, re.MULTILINE) if path in border else None
        if found and names[1:]:   # before the next class
            found = re.compile(rf"^    def {names[1]}\(|^(?:cdef )?class ", re.MULTILINE).search(text, found.end())
            found = found if found and found[0].startswith(" ") else None
        if path not in border:
            found = re.search(rf"^FG_\w+\(\w+, {names[-1]}\b", text, re.MULTILINE)
        if found:
            return path.relative_to(HERE.parent).as_posix(), text.count("\n", 0, found.start()) + 1


def source_of(found, names):
    """(file in the repository, line) of what a name of the reference is, or None."""
    found = inspect.unwrap(found.fget if isinstance(found, property) else found)
    try:
        file, line = Path(inspect.getsourcefile(found)), inspect.getsourcelines(found)[1]
    except (TypeError, OSError):   # compiled, or data
        return compiled_place(names)
    package = Path(flatgrad.__file__).parent
    return (f"src/flatgrad/{file.relative_to(package).as_posix()}", line) if file.is_relative_to(package) else None


def linkcode_resolve(domain, info):
    names, found = info["fullname"].split("."), importlib.import_module(info["module"] or "flatgrad")
    for name in names:
        found = getattr(found, name, None)
    place = source_of(found, names)
    return f"{REPOSITORY}/blob/v{version}/{place[0]}#L{place[1]}" if place else None


def without_compiled(app, env):
    """sphinx.ext.viewcode lists modules that it found no source of, with a link that leads nowhere."""
    if hasattr(env, "_viewcode_modules"):
        env._viewcode_modules = {name: entry for name, entry in env._viewcode_modules.items() if entry}


# ---- docstrings ----

def drop_self(app, what, name, obj, options, signature, returns):
    """Cython writes `Value.backward(self)` into a docstring's first line; Python's way is without."""
    if signature and what == "method":
        signature = re.sub(r"^\((?:self|\$self)(?:, /)?(?:, )?", "(", signature)
    return signature, returns


def name_references(app, what, name, obj, options, lines):
    """numpydoc's references, [1]_, are numbered in each docstring; on a page their names have to differ.
    An author's initial is no item of a list, and 'val_' no reference."""
    for k, line in enumerate(lines):
        line = re.sub(r"(?<![`\[])'\w+_'(?![`\]])", r"``\g<0>``", line)
        line = re.sub(r"\[(\d+)\]_", rf"[#{name}-\1]_", line)
        lines[k] = re.sub(r"^( *\.\. )\[(\d+)\] (?=(.))", rf"\1[#{name}-\2] \\", line)


def setup(app):
    app.connect("env-updated", without_compiled)
    app.connect("autodoc-process-signature", drop_self)
    app.connect("autodoc-process-docstring", name_references)
