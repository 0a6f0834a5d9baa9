"""The rooms of the border: the files that src/flatgrad/_core.pyx includes, each of which may use those before it. Where a
name is defined and used is read off the sources, and skipped where there are none."""
import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "src" / "flatgrad" / "_core.pyx"
BORDER = CORE.with_name("border")

if not CORE.is_file():
    pytest.skip("there are no sources", allow_module_level=True)

# Types that a room may name before the room that defines them.
TYPES = {"Value", "Tensor", "_Rule", "_Graph"}

# What a room uses of a later one, and why.
CIRCLES = {
    ("handles", "_member"): "Python asks an object itself how it is saved",
    ("handles", "place_in_graph"): "likewise",
    ("handles", "deep_copy"): "likewise",
}


def bare(text):
    """The code without comments and without what is in strings, except what f-strings compute. Lines stay."""
    def blank(match):
        prefix, body = match["prefix"] or "", match[0]
        if "f" in prefix.lower():
            body = "".join(re.findall(r"\{[^{}]*|\n", body)).replace("{", " ; ")
            return f'"" {body}'
        return '""' + "\n" * body.count("\n") if match["quote"] else ""
    return re.sub(r"""#[^\n]*|(?P<prefix>\b[fFbBrR]{1,2})?(?P<quote>\"{3}|'{3}|"|')(?:\\.|(?!(?P=quote)).)*?(?P=quote)""",
                  blank, text, flags=re.DOTALL)


def statements(text):
    """The module-level statements of bare code, decorators apart."""
    found, depth = [], 0
    for line in text.split("\n"):
        if line and not line[0].isspace() and line[0] not in ")]}" and depth == 0:
            found.append([])
        if found:
            found[-1].append(line)
        depth += sum(map(line.count, "([{")) - sum(map(line.count, ")]}"))
    return ["\n".join(lines).rstrip() for lines in found]


def without_brackets(text):
    while True:
        text, found = re.subn(r"\([^()\[\]{}]*\)|\[[^()\[\]{}]*\]|\{[^()\[\]{}]*\}", "", text)
        if not found:
            return text


def declared(declaration):
    """The names in `int a = 1, *b`."""
    declaration = without_brackets(declaration)
    return [names[-1] for part in declaration.split(",") for names in [re.findall(r"\w+", part.split("=")[0])] if names]


def pointer(declaration):
    """The name in `int (*f)(int)`."""
    match = re.search(r"\(\*(\w+)\)\(", declaration)
    return match and match[1]


def defined(statement):
    """The names that a module-level statement defines."""
    head, _, body = statement.partition("\n")
    if re.match(r"cdef class \w+\s*$", head):   # only says that there is one
        return []
    match = re.match(r"(?:cdef )?class (\w+)|def (\w+)|cdef (?:struct|union) (\w+)", head)
    if match:
        return [next(filter(None, match.groups()))]
    if head.startswith("cdef enum"):
        return [part.split("=")[0].strip() for line in body.split("\n") for part in line.split(",") if part.strip()]
    if head.startswith("cdef extern"):
        lines = [re.sub(r"\bctypedef struct |:$", "", line) for line in re.findall(r"^    (\w[^\n]*)", body, re.MULTILINE)]
        return [name for line in lines for name in declared(pointer(line) or line.partition("(")[0].replace('""', ""))]
    if pointer(head):
        return [pointer(head)]
    match = re.match(r'cdef (?:inline )?[\w\[\], *]*?[ *](\w+)(?: "")?\(', head)   # with a name in C, which is blank here
    if match and "=" not in head[:match.end()]:
        return [match[1]]
    if head.startswith("cdef "):
        return declared(statement.removeprefix("cdef ").replace("\n", " "))
    return []


def local(statement):
    """The names that a statement gives a meaning of their own: parameters, variables, fields."""
    names = set()
    for parameters in re.findall(r'(?:\bdef \w+|^cdef [^\n(=]*?\w+(?: "")?)\(((?:[^()]|\([^()]*\))*)\)', statement, re.MULTILINE):
        names |= {name.removesuffix(" not None").split()[-1] for part in parameters.split(",")
                  for name in [part.split("=")[0].strip().lstrip("*")] if name}
    names = {re.sub(r"\W", "", name) for name in names}
    for declaration in re.findall(r"^\s+cdef (?!class)(?:public |readonly )?([^\n]*)", statement, re.MULTILINE):
        names |= set(declared(declaration))
    if re.match(r"cdef (struct|union)", statement):
        names |= {name for line in statement.split("\n")[1:] for name in declared(line)}
    names |= {name for targets in re.findall(r"^\s+((?:\w+(?:\[[^\]\n]*\])?, )*\w+) = ", statement, re.MULTILINE)
              for name in re.findall(r"\w+", targets)}
    names |= {name for targets in re.findall(r"\bfor ([\w, ()]+?) in\b", statement)
              for name in re.findall(r"\w+", targets)}
    names |= {name for found in re.findall(r"\bas (\w+)|^\s+def (\w+)", statement, re.MULTILINE) for name in found}
    shared = {name for line in re.findall(r"^\s+global ([^\n]*)", statement, re.MULTILINE)
              for name in re.findall(r"\w+", line)}
    return names - shared


def used(statement):
    """The names of the module that a statement uses."""
    return set(re.findall(r"(?<![\w.])[A-Za-z_]\w*\b(?!=[^=])", statement)) - local(statement)


@cache
def rooms():
    """Name -> (text, its statements), in the order of dependence."""
    found = {}
    for name in re.findall(r'^include "border/(\w+)\.pxi"$', CORE.read_text("utf-8"), re.MULTILINE):
        text = BORDER.joinpath(f"{name}.pxi").read_text("utf-8")
        found[name] = text, statements(bare(text))
    return found


@cache
def homes():
    """Name -> the rooms that define it."""
    found = {}
    for room, (_, parts) in rooms().items():
        for name in [name for part in parts for name in defined(part)]:
            found.setdefault(name, []).append(room)
    return found


@cache
def uses(room):
    """The names of other rooms that a room uses -> where they are defined."""
    return {name: homes()[name][0] for part in rooms()[room][1] for name in used(part)
            if name in homes() and room not in homes()[name]}


ROOMS = list(rooms())


def test_every_file_is_a_room():
    assert len(set(ROOMS)) == len(ROOMS)
    assert set(ROOMS) == {path.stem for path in BORDER.iterdir()}
    core = [part for part in statements(bare(CORE.read_text("utf-8"))) if not part.startswith(("include", "import", "from",
                                                                                         "cimport", "cdef class"))]
    assert [part.split(" ")[0] for part in core] == ['""', "__all__"]   # and nothing else is said there


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_opens_with_what_it_promises(room):
    text = rooms()[room][0]
    assert text.startswith(f"# {room}.pxi: ")
    head = re.match(r"(?:#[^\n]*\n)+", text)[0]
    others = sorted({home for name, home in uses(room).items() if name not in TYPES and (room, name) not in CIRCLES})
    line = f"Uses {', '.join(others)}." if others else "Uses no other room."
    said = " ".join(part.removeprefix("#").strip() for part in head.split("\n")).partition(" Uses ")[2]
    assert f"Uses {said.strip()}" == line


def test_the_map_shows_every_room():
    """In order, and with the sentence that it opens with."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", ROOT.joinpath("CONTRIBUTING.md").read_text("utf-8").partition(
        "## Rooms of the border")[2], re.MULTILINE)
    heads = {room: re.match(r"(?:# [^\n]*\n)+", text)[0] for room, (text, _) in rooms().items()}
    assert rows == [(room, " ".join(line.removeprefix("# ") for line in head.splitlines()).partition(": ")[2])
                    for room, head in heads.items()]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_uses_those_before_it(room):
    later = ROOMS[ROOMS.index(room):]
    assert {name: home for name, home in uses(room).items()
            if home in later and name not in TYPES and (room, name) not in CIRCLES} == {}


def test_each_circle_is_still_there():
    assert {(room, name) for room, name in CIRCLES if name not in uses(room)} == set()
    assert {(room, name) for room, name in CIRCLES if ROOMS.index(uses(room)[name]) < ROOMS.index(room)} == set()


def test_a_name_has_one_home():
    assert {name: found for name, found in homes().items() if len(found) > 1} == {}


def test_what_is_defined_is_used():
    """By another statement; functions and classes that Python sees are for others to use."""
    parts = [part for _, all_parts in rooms().values() for part in all_parts]
    border, core = (Counter(re.findall(r"\w+", text)) for text in (
        "\n".join(parts), bare(CORE.with_suffix(".pxd").read_text("utf-8"))))
    private = {name for part in parts if part.startswith("cdef ") and not part.startswith("cdef class")
               for name in defined(part)}
    assert {name for name in private if border[name] < 2} == set()
    assert {name for name in core if re.match("(?:fg|FG)_", name) and not border[name] and core[name] < 2} == set()


def test_what_is_imported_is_used():
    everywhere = "\n".join(part for _, parts in rooms().values() for part in parts)
    imports = re.sub(r"\bcimport\b", "import", "\n".join(
        line for line in CORE.read_text("utf-8").split("\n") if re.match(r"(from \S+ )?c?import ", line)))
    names = [alias.asname or alias.name for node in ast.parse(imports).body for alias in node.names]
    assert [name for name in names if not re.search(rf"\b{name}\b", everywhere) and name != "cython"] == []


@pytest.mark.parametrize("path", sorted([CORE, CORE.with_suffix(".pxd"), *BORDER.iterdir()]), ids=lambda path: path.name)
def test_no_line_is_too_long(path):
    lines = path.read_text("utf-8").split("\n")
    assert [k for k, line in enumerate(lines, 1) if len(line) > 120 or line != line.rstrip()] == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_read_in_one_go(room):
    """A class that users see stands in one file: Cython asks for it, and so do its readers."""
    assert rooms()[room][0].count("\n") <= (490 if room in ("value", "tensor") else 450)


@pytest.mark.parametrize("code, names", [
    ("cdef int f(double x, list y) except -1:\n    return 0", ["f"]), ("cdef inline fg_id *g(int a):\n    pass", ["g"]),
    ("cdef fg_id a = 1, *b", ["a", "b"]), ("cdef dict d = {'a': 1,\n    'b': 2}", ["d"]), ("def f(x): pass", ["f"]),
    ("cdef int (*f)() except -1", ["f"]),
    ("cdef enum:\n    A, B = 2\n    C", ["A", "B", "C"]), ("cdef class C:\n    pass", ["C"]), ("cdef class C", []),
    ('cdef extern from "a.h":\n    int f(int x)\n    double (*g)() noexcept\n    PyObject *h', ["f", "g", "h"]),
    ("cdef struct S:\n    int x", ["S"]), ("x = 1", []), ("f(x)", []), ("a.b = c", []),
])
def test_definitions_are_found(code, names):
    assert [name for part in statements(bare(code)) for name in defined(part)] == names


@pytest.mark.parametrize("code, names", [
    ("def f(a, b=c):\n    return a + d", {"c", "d"}), ("def f():\n    '''of x'''\n    y = 1   # z\n    return f'{w} {y}'", {"w"}),
    ("cdef int f(S *s, int n) except -1:\n    cdef int k\n    for k in range(n): g(s.x, k)", {"g", "S"}),
    ("def f():\n    global n\n    n = 1\n", {"n"}), ("f(name=x)", {"f", "x"}),
])
def test_uses_are_found(code, names):
    words = {"def", "return", "cdef", "int", "except", "for", "in", "range", "global", "f"} - ({"f"} & names)
    assert set().union(*[used(part) for part in statements(bare(code))]) - words == names
