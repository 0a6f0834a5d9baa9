"""The package as a whole: what is installed, the type stub, the docstrings' examples, and those rules
of the house that a machine can check. Rules about sources are skipped where there are none."""
import ast
import builtins
import doctest
import importlib
import importlib.metadata
import pkgutil
import re
from pathlib import Path

import pytest

import flatgrad
from flatgrad import Value, _core

ROOT = Path(__file__).resolve().parent.parent
CSRC, PYTHON = ROOT / "csrc", ROOT / "src" / "flatgrad"
PUBLIC_ROWS = [row for row in _core._operations() if row["public"]]


def read(path):
    return path.read_text("utf-8")


# ---- what is installed ----

def test_the_version_stands_once():
    version = re.search(r'^version = "(.+)"$', read(ROOT / "pyproject.toml"), re.MULTILINE)[1]
    try:
        assert importlib.metadata.version("flatgrad") == version == flatgrad.__version__
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("flatgrad is imported from its sources, not installed")
    sources = [ROOT / "setup.py", ROOT / "dev.py", *PYTHON.rglob("*.p[yx]*"), *CSRC.iterdir()]
    sources = [path for path in sources if path.suffix != ".pyc"]
    assert [path.name for path in sources if version in read(path)] == []


def test_the_wheel_holds_what_runs_and_nothing_else():
    try:
        files = importlib.metadata.files("flatgrad") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    in_place = PYTHON in Path(_core.__file__).resolve().parents
    if in_place or not any(file.match("*.dist-info/WHEEL") for file in files):
        pytest.skip("flatgrad is not installed from a wheel")
    names = {file.name for file in files if file.parts[0] == "flatgrad" and file.suffix != ".pyc"}
    compiled = {name for name in names if name.startswith("_core.") and name.endswith((".so", ".pyd"))}
    assert len(compiled) == 1
    assert names - compiled == {path.name for path in PYTHON.rglob("*") if path.suffix in (".py", ".html")} | {
        "_core.pyi", "py.typed"}
    assert {file.parts[0] for file in files if file.parts[0][0] not in "._"} <= {
        "flatgrad", next(file.parts[0] for file in files if file.match("*.dist-info/WHEEL"))}


def test_every_package_is_named_to_the_build():
    if not (ROOT / "src").is_dir():
        pytest.skip("there are no sources")
    named = re.search(r"^packages = \[(.+)\]$", read(ROOT / "pyproject.toml"), re.MULTILINE)[1]
    found = {".".join(["flatgrad", *path.parent.relative_to(PYTHON).parts]) for path in PYTHON.rglob("__init__.py")}
    assert set(re.findall(r'"(.+?)"', named)) == found


def test_what_is_loaded_later_is_listed():
    listed = dir(flatgrad)
    assert {"Value", "Tensor", "no_grad", "nn", "optim", "train", "viz", "grad", "gradcheck", "install_as_micrograd",
            "__version__"} <= set(listed)
    assert [name for name in listed if not hasattr(flatgrad, name)] == []


# ---- the type stub ----

STUB = Path(_core.__file__).with_name("_core.pyi")


def declared(body):
    """Name -> its last declaration, of a module's or class's body."""
    names = {}
    for node in body:
        if isinstance(node, ast.AnnAssign):
            names[node.target.id] = node
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names[node.name] = node
    return names


@pytest.fixture(scope="module")
def stub():
    return declared(ast.parse(read(STUB)).body)


def test_the_package_says_that_it_is_typed():
    assert STUB.with_name("py.typed").is_file()


def test_the_stub_declares_the_module(stub):
    public = {name for name, value in vars(_core).items()
              if getattr(value, "__module__", None) in (_core.__name__, "flatgrad") and not name.startswith("_")}
    assert {name for name in stub if not name.startswith("_")} == public
    for_our_modules = {"Parameters", "Weights", "all_signs", "are_values", "cross_entropy", "depends", "derivatives",
                       "instruction", "layer_forward", "network_forward", "own_calls", "pairwise", "recording",
                       "tracing", "weighted_sum", "written"}
    assert set(_core.__all__) == public - for_our_modules
    lists = [node.value for node in ast.parse(read(STUB)).body
             if isinstance(node, (ast.Assign, ast.AugAssign)) and "__all__" in ast.unparse(node)]
    assert sum((ast.literal_eval(names) for names in lists), []) == _core.__all__


def test_the_stub_declares_the_members_of_value(stub):
    every_class_has = {"__doc__", "__module__", "__new__", "__eq__", "__ne__", "__repr__", "__slotnames__"}
    of_users = {name for name, member in vars(Value).items() if isinstance(member, _core._Attribute)}
    assert (set(declared(stub["Value"].body)) - {"__getattr__"}   # which is how a stub says it
            == set(vars(Value)) - every_class_has - of_users)


@pytest.mark.parametrize("row", PUBLIC_ROWS, ids=lambda row: row["id"])
def test_the_stub_declares_the_operation(stub, row):
    arguments = stub[row["name"]].args
    by_position, others = [arguments.posonlyargs, arguments.args][::1 if row["default"] is None else -1]
    assert [argument.arg for argument in by_position] == row["operands"].split(", ") and not others
    assert [ast.literal_eval(default) for default in arguments.defaults] == (
        [] if row["default"] is None else [row["default"]])
    assert (row["name"] in declared(stub["Value"].body)) == hasattr(Value, row["name"])


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="no checkout")
def test_the_readme_lists_the_operation():
    listed = read(ROOT / "README.md").replace("`", " ").split()
    assert [row["name"] for row in PUBLIC_ROWS if row["name"] not in listed] == []


def test_stats_returns_what_the_stub_says(stub):
    types = {name: node.annotation.id for name, node in declared(stub["_Stats"].body).items()}
    assert types == {name: type(value).__name__ for name, value in flatgrad.stats().items()}


# ---- the docstrings' examples ----

def examples():
    for module in ["flatgrad", *(module.name for module in pkgutil.walk_packages(flatgrad.__path__, "flatgrad.")
                                 if not module.name.endswith("__main__"))]:
        for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module)):
            if test.examples and " (line " not in test.name:  # Cython lists some a second time
                yield pytest.param(test, id=test.name)


@pytest.mark.parametrize("example", list(examples()))
def test_example(example):
    report = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=report.append)
    assert result.failed == 0, "".join(report)


# ---- rules of the house: C ----

C_FILES = sorted([*CSRC.glob("*.[ch]"), *CSRC.glob("*.def")])

# Files of a layer include headers of their own and earlier layers only, and from outside the project
# the headers of the C standard library that have no business with files, processes or signals. A name with ".c" is
# where that file stands if its header stands earlier, for its parts to know it.
C_LAYERS = ["base real formulas", "simd32", "simd", "ops mem marks kernels_lanes",
            "record draws kernels rows updates kernels_elementary kernels_elementary32", "kernels_powers kernels32",
            "kernels_rows kernels_rows32",
            "kernels_elementwise kernels_matvec kernels_softmax kernels_optimizers kernels_norms kernels_batch",
            "kernels_gemm kernels_code", "kernels_layer", "kernels.c kernels32.c", "cpu tape", "block block_leaves",
            "block_matrix block_build", "block_reached block_steps",
            "block_layer block_map block_rows block_take block_call", "block.c block_operands calls", "callback",
            "sweep simplify",
            "written", "written_gradients written_rows written_blocks program", "program_cut scan training",
            "lanes_code", "lanes_scan", "lanes_batch", "lanes_batch32 lanes", "evaluate"]
C_LIBRARY = set("assert errno float limits math stdbool stddef stdint stdlib string time".split())
C_COMPILER = {"intrin", "immintrin", "arm_neon"}
FORBIDDEN_CALLS = re.compile(r"\b(exit|_Exit|abort|longjmp|setjmp|getenv|system|\w*printf|puts)\s*\(")


def bare(c):
    """C without comments, preprocessor lines and what is in strings."""
    c = re.sub(r"/\*.*?\*/|//[^\n]*", " ", c, flags=re.DOTALL)
    c = re.sub(r'"(?:\\.|[^"\\\n])*"', '""', c)
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", c, flags=re.MULTILINE)


def mutable_globals(c):
    """The declarations of data that outlives a call and is not constant."""
    c = bare(c)
    found = re.findall(r"^[ \t]+(static\b(?! (?:inline )?const\b)[^;=]*)", c, flags=re.MULTILINE)
    while "{" in c:
        c, replaced = re.subn(r"\{[^{}]*\}", "@", c)
        assert replaced, "unbalanced braces"
    for declaration in re.sub(r"\)\s*@", ");", c).split(";"):
        declared_as = declaration.split("=")[0].strip()
        is_constant = re.search(r"\bconst\b", declared_as) and not re.search(r"\*(?!\s*const\b)", declared_as)
        is_type = re.match(r"typedef\b|(struct|enum|union)\b\s*\w*\s*@?$", declared_as)
        if declared_as and not (is_constant or is_type or "(" in declared_as):
            found.append(declared_as)
    return found


@pytest.mark.parametrize("path", C_FILES, ids=lambda path: path.name)
def test_c_has_no_state_of_its_own(path):
    assert mutable_globals("" if path.suffix == ".def" else read(path)) == []


@pytest.mark.parametrize("c", [
    "int n;", "static double x = 1.0;", "static const char *p;", "int f(void)\n{\n    static int n;\n}",
    "struct s { int a; } s;", "fg_tape *live;", "static int table[2] = {1, 2};",
])
def test_state_in_c_is_found(c):
    assert len(mutable_globals(c)) == 1


@pytest.mark.parametrize("c", [
    "static int f(int x)\n{\n    int n = 0;\n    if (x) {\n        n = 1;\n    }\n    return n;\n}",
    "extern const t table[N];", "const t table[N] = {{1}, {2}};", "static const char *const p = \"int n;\";",
    "typedef struct s {\n    int a;\n} s;", "enum { A, B };", "struct s;", "/* int n; */", "#define A \\\n    int n;\n",
])
def test_what_is_not_state_in_c_is_let_be(c):
    assert mutable_globals(c) == []


@pytest.mark.parametrize("path", C_FILES, ids=lambda path: path.name)
def test_c_includes_only_what_it_may_know(path):
    layer = {name: rank for rank, names in enumerate(C_LAYERS) for name in names.split()}
    own = layer.get(path.name, layer.get(path.stem))
    assert own is not None, "say in C_LAYERS where it stands"
    for kind, name in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)', read(path), re.MULTILINE):
        stem = name.rpartition(".")[0]
        if kind == "<":
            assert stem in C_LIBRARY | C_COMPILER
        else:
            assert (CSRC / name).is_file()
            assert layer[stem] < own or stem == path.stem
            # block_matrix.h and its like are parts of block, and nobody else's business; kernels32.c has those of kernels
            assert "_" not in stem or stem.split("_")[0] == path.stem.removesuffix("32").split("_")[0]
    assert not FORBIDDEN_CALLS.search(bare(read(path)))


def test_opcodes_have_an_order_in_one_file_alone():
    opcodes = {row["id"] for row in _core._operations()} | set(
        "LEAF UNARY_END UNARY_LAST BINARY_END BINARY_LAST CUSTOM LOCAL BLOCK_END RUN PART FROZEN OPS".split())
    found = {(path.name, name) for path in C_FILES if path.name != "ops.h"
             for pair in re.findall(r"[<>]=?\s*(?:\(int\))?FG_(\w+)|\bFG_(\w+)\s*[<>]=?", bare(read(path)))
             for name in pair if name in opcodes}
    # Memory of 7 bits, and a trick with the bits of an opcode: both are asserted where they stand.
    assert found <= {("tape.h", "OPS"), ("block_leaves.h", "FROZEN")}


def test_every_place_in_c_is_taken():
    files = {path.name for path in C_FILES}
    assert [name for names in C_LAYERS for name in names.split()
            if not files & {name, f"{name}.c", f"{name}.h", f"{name}.def"}] == []


# ---- rules of the house: Python, and files in general ----

# A module imports from earlier layers only; "flatgrad" is what `from flatgrad import name` reaches, and the
# modules of a package stand where it does, in an order of their own.
PYTHON_LAYERS = ["errors structures", "arguments markup", "storage read_only", "_core",
                 "anomaly array_functions descent randomness scalar signatures", "flatgrad engine", "export",
                 "datasets losses optim program selection", "nn", "loops", "lost", "evaluations groups rules transforms",
                 "autograd checking functional tree viz",
                 "train weighting", "estimators", "compat", "cli", "__main__"]


def layers_of(name):
    """Where a module stands: its rank, and for a module of a package, that and the package."""
    rank = {known: rank for rank, names in enumerate(PYTHON_LAYERS) for known in names.split()}
    return rank[name.split(".")[0]]


def imports_of(path, whole, known):
    """The modules of package `whole` that a file imports anywhere, without the package's name; of it itself `known`. What
    only type checkers import is not among them."""
    imported = []
    tree = ast.parse(read(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            imported += [f"{whole}.{alias.name}" if node.module == whole and alias.name in known else node.module
                         for alias in node.names]
    return {name.removeprefix(f"{whole}.") for name in imported if name.split(".")[0] == whole}


@pytest.mark.parametrize("path", sorted(PYTHON.rglob("*.py")), ids=lambda path: path.relative_to(PYTHON).as_posix())
def test_python_imports_only_what_it_may_know(path):
    parts = path.relative_to(PYTHON).with_suffix("").parts
    own = ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "flatgrad"
    known = {name for names in PYTHON_LAYERS for name in names.split()}
    assert own.split(".")[0] in known, "say in PYTHON_LAYERS where it stands"
    package = own.split(".")[0]
    assert {name for name in imports_of(path, "flatgrad", known)
            if name.split(".")[0] != package and layers_of(name) >= layers_of(own)} == set()


BENCH = sorted((ROOT / "bench").glob("*.py"))
BENCH_LAYERS = ["__init__", "runner workloads", "processes peers machine", "contenders byhand program_peers derivative_peers",
                "ways derivative_ways flat_ways", "export_ways", "cases versus programs derivatives exports parallel",
                "flat_fits scaling", "suites", "probe instructions report", "counts comparison page", "__main__"]


@pytest.mark.skipif(not BENCH, reason="bench/ is not part of an installed package")
def test_the_benchmarks_have_an_order():
    rank = {name: rank for rank, names in enumerate(BENCH_LAYERS) for name in names.split()}
    assert {path.stem for path in BENCH} == set(rank), "say in BENCH_LAYERS where it stands"
    for path in BENCH:
        for name in imports_of(path, "bench", rank):
            assert rank["__init__" if name == "bench" else name] < rank[path.stem], (path.name, name)


@pytest.mark.skipif(not BENCH, reason="bench/ is not part of an installed package")
def test_every_file_of_csrc_and_bench_is_on_the_map():
    page = read(ROOT / "CONTRIBUTING.md")
    for folder, stems in ("csrc", {path.stem for path in C_FILES}), ("bench", {path.stem for path in BENCH}):
        table = re.search(rf"^\| {folder}/ \|.*\n(?:\|.*\n)+", page, re.MULTILINE)[0]
        assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(stems)


def test_only_the_core_names_c_headers():
    headers = re.compile("|".join(rf"\b{path.stem}\.h\b" for path in CSRC.glob("*.h")))
    assert {path.name for path in PYTHON.rglob("*") if path.suffix in (".py", ".pyx", ".pxi", ".pxd", ".pyi")
            and headers.search(read(path))} <= {"_core.pyx", "_core.pxd"}


def test_the_border_calls_no_function_of_ours_for_one_of_python_s():
    """The module has a sum(), a max() and a min() of Values, and in its own files these are what the names mean."""
    ours = [name for name, thing in vars(_core).items() if callable(thing) and hasattr(builtins, name) and name != "abs"]
    assert "sum" in ours   # abs() of a number is Python's: Cython knows it, as no file of the border defines another
    called = re.compile(rf"(?<![\w.`\"'])({'|'.join(ours)})\(")
    found = []
    for path in sorted((PYTHON / "border").glob("*.pxi")):
        code = re.sub(r'""".*?"""|"[^"\n]*"|\bc?p?def [^:]*', "", read(path), flags=re.DOTALL)
        code = "\n".join(line.partition("#")[0] for line in code.split("\n"))
        found += [(path.name, name) for name in called.findall(code)]
    assert found == []


def sources():
    """The text files that we write."""
    made = re.compile(r"\.git$|\.venv|build$|dist$|wheelhouse$|.*\.egg-info$|\..*_cache$")
    written = {"", ".c", ".cfg", ".def", ".h", ".in", ".md", ".pxd", ".pxi", ".py", ".pyi", ".pyx", ".toml", ".yml"}
    for top in ROOT.iterdir():
        if not made.match(top.name):
            for path in [top] if top.is_file() else top.rglob("*"):
                if path.is_file() and path.suffix in written and path.name not in ("_core.c", "PKG-INFO"):
                    yield path


def test_no_file_names_a_place_of_one_machine():
    place = re.compile(r"(?<![\w.])/(?:home|root|work|Users|opt|tmp)/|pypi\.org|pythonhosted\.org")
    assert [(str(path.relative_to(ROOT)), found[0]) for path in sources()
            for found in [place.search(read(path))] if found] == []


# The files of tests in which a clock of the wall may stand, and for what.
CLOCKS = {"test_anomaly_edges.py": "an end for a wait", "test_simplify.py": "an end for a wait",
          "test_train.py": "the trainer's own clock"}


def test_no_test_depends_on_how_busy_the_machine_is():
    """A bound on time is one of the processor's (`time.process_time`), which other programs do not use up."""
    files = [path for path in sorted((ROOT / "tests").glob("test_*.py"))
             if re.search(r"\b(perf_counter|monotonic|time\.time)(_ns)?\(", path.read_text("utf-8"))]
    assert {path.name for path in files} == set(CLOCKS)
