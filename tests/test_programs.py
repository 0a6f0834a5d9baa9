"""`python -m flatgrad run` on programs that bring their own engine: tests/programs/, in the layouts and manners
in which such programs are written, some of them with mistakes on purpose.

Each runs three ways: by Python with its own engine, by `flatgrad run`, and by `flatgrad run --scalar-graph`. What it
prints is the same, each number to 1e-9, or the run ends with exit code 2 and one line that says why. `CASES` says
which, and is what the table in docs/own-engines.md is made of.
"""
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).resolve().parent / "programs"
GUIDE = Path(__file__).resolve().parent.parent / "docs" / "own-engines.md"
OURS = "ours"        # flatgrad's engine, the same numbers
MESSAGE = "message"  # one line that says why not
LEFT = "left"        # there is nothing to replace: as with Python, the same numbers


@dataclass(frozen=True)
class Case:
    """A program, and what becomes of it."""

    name: str                # file or folder in tests/programs
    layout: str
    manner: str
    outcome: str = OURS
    kept: str = ""           # methods that stay the user's, as the note on stderr has them
    says: str = ""           # what the message matches
    options: str = "--replace-class Value"
    program: str = ""        # what is run in its folder; the file itself if there is none
    cls: str = "Value"
    scalar: str = ""         # the outcome with --scalar-graph, if it is another


ALONE, BESIDE, PACKAGE, LOCAL, NOTEBOOK = (
    "single file", "module beside the script", "package", "local micrograd/", "notebook")
CASES = [
    # Layouts.
    Case("module_beside", BESIDE, "closures", program="main.py"),
    Case("package_relative", PACKAGE, "typed, relative imports, `-m`", program="-m littlegrad.train 20"),
    Case("package_main", PACKAGE, "`__main__`, `-` and `/` of its own", program="-m pocketgrad"),
    Case("src_layout", PACKAGE, "found by way of `sys.path`", program="scripts/entropy.py"),
    Case("star_import", BESIDE, "`import *`, prints when imported", program="main.py"),
    Case("colours", BESIDE, "`_prev` as a tuple, colours, Adam's state on the numbers", program="main.py"),
    Case("scalar_alias", BESIDE, "class `Scalar`, imported as `V`", program="pendulum.py",
         options="--replace-class Scalar", cls="Scalar"),
    Case("two_of_a_name", BESIDE, "two classes of one name, one meant", program="main.py",
         options="--replace-class engine.Value"),
    Case("local_micrograd", LOCAL, "its own `nn`, trainer and text drawing", program="train.py", options=""),
    Case("local_micrograd_value", LOCAL, "the class in `value.py`", program="main.py", options=""),
    Case("unrelated_micrograd", LOCAL, "something else of that name", LEFT, program="profile.py", options=""),
    Case("notebook_lecture.ipynb", NOTEBOOK, "the class grows over the cells"),
    Case("notebook_engine", NOTEBOOK, "imports a local engine", program="demo.ipynb"),
    Case("fallback_import.py", ALONE, "a class under `try`/`except`"),
    Case("in_a_function.py", ALONE, "a class made in a function", MESSAGE, says="has no class Value at its top level"),
    Case("class_twice.py", ALONE, "`class Value(Value)`"),
    # Manners.
    Case("lecture.py", ALONE, "as in the lecture, the reverse pass by hand"),
    Case("microgpt_step.py", ALONE, "local gradients, slots: a tiny transformer"),
    Case("typed_keywords.py", ALONE, "typed, children and local gradients by keyword alone"),
    Case("lambdas.py", ALONE, "lambdas"),
    Case("dataclass_node.py", ALONE, "a dataclass"),
    Case("slots_closures.py", ALONE, "slots, closures"),
    Case("own_nn.py", ALONE, "layers, Adam and momentum of its own"),
    Case("gradient_check.py", ALONE, "difference quotients"),
    Case("extras.py", ALONE, "methods, properties, class attributes, defaults"),
    Case("named.py", ALONE, "`name=` and `requires_grad=` that rules do not look at"),
    Case("gated.py", ALONE, "`requires_grad=` that rules look at", MESSAGE, says="its __add__ gives other numbers"),
    Case("tuple_prev.py", ALONE, "`_prev` as a tuple"),
    Case("resetting.py", ALONE, "`backward()` resets gradients"),
    Case("none_grads.py", ALONE, "gradients begin as `None`"),
    Case("seeded.py", ALONE, "`backward(seed=...)`"),
    Case("subclass.py", ALONE, "`class Parameter(Value)`"),
    Case("subclass_operations.py", ALONE, "`class Max(Value)`, with a rule of its own"),
    Case("decorated.py", ALONE, "decorated operators"),
    Case("methods_added.py", ALONE, "all operators put on the class later"),
    Case("methods_after.py", ALONE, "`Value.cos = ...`, and `Value.tanh` replaced later"),
    Case("own_functions.py", ALONE, "`leaky(alpha=)`, `softplus`, `abs`, `cube`"),
    Case("power_of_value.py", ALONE, "powers by Values and of numbers"),
    Case("label_second.py", ALONE, "`Value(data, label)`"),
    Case("label_computed.py", ALONE, "labels made of those of the operands", MESSAGE, says="label of a Value was read"),
    Case("in_place.py", ALONE, "`+=` and `-=` of its own"),
    Case("equal_by_data.py", ALONE, "`==` and `<` by data, hash by identity"),
    Case("equal_by_value.py", ALONE, "`==` and hash by data", MESSAGE, says="its __add__"),
    Case("codegen.py", ALONE, "prints a graph of sums and products as Python"),
    Case("codegen_minus.py", ALONE, "prints a graph with `-` and `/` as Python"),
    Case("dot_text.py", ALONE, "prints a graph as dot"),
    Case("class_per_operation.py", ALONE, "one class an operation", MESSAGE, says="a class on top of it has _backward"),
    Case("counted_operations.py", ALONE, "counts numbers in the class",
         MESSAGE, says="its __init__ uses more than its operands: operations"),
    Case("counted_ids.py", ALONE, "ids by `itertools.count`", MESSAGE, says="uid of a Value was read"),
    Case("global_tape.py", ALONE, "a list of all numbers",
         MESSAGE, says="its __init__ uses more than its operands: tape"),
    Case("backprop_by_name.py", ALONE, "`backprop()`, and `backward` for the rule of a number",
         MESSAGE, says=r"it defines no backward\(\)"),
    Case("other_names.py", ALONE, "`val` instead of `data`", MESSAGE, says=r"it never uses \.data"),
    Case("tensor_engine.py", ALONE, "arrays as data",
         MESSAGE, says="its __add__ uses more than its operands: ndim, shape"),
    Case("values_only.py", ALONE, "operators that take no numbers"),
    Case("changed_closures.py", ALONE, "data change before the reverse pass, rules read them then"),
    Case("changed_tuples.py", ALONE, "data change before the reverse pass, local gradients are settled",
         MESSAGE, says="data was changed between"),
    Case("changed_mixed.py", ALONE, "data change before the reverse pass, some rules read them then",
         MESSAGE, says="data was changed between"),
    Case("two_losses.py", ALONE, "two passes over a shared part", MESSAGE, says="a second backward pass", scalar=OURS),
    Case("no_grad_flag.py", ALONE, "a switch that operators look at",
         MESSAGE, says="its __add__ uses more than its operands: recording, on"),
    Case("no_grad_global.py", ALONE, "a variable of the module that operators look at",
         MESSAGE, says="its __add__ uses more than its operands: recording"),
    Case("no_grad_class.py", ALONE, "a variable of the class that operators look at",
         MESSAGE, says="its __add__ uses more than its operands: recording"),
    Case("seed_first.py", ALONE, "random numbers in the class, the seed set before it"),
    Case("random_default.py", ALONE, "`Value()` draws a number",
         MESSAGE, says="its __init__ uses more than its operands: random"),
    Case("prints.py", ALONE, "operators that print", MESSAGE, says="its __add__ uses more than its operands: print"),
    Case("logged.py", ALONE, "operators that append to a list",
         MESSAGE, says="its __add__ uses more than its operands: history"),
    Case("safe.py", ALONE, "division by 0 and `log` of 0 give numbers", kept="__truediv__"),
    Case("capped.py", ALONE, "`relu` and `sigmoid` flat beyond a limit", kept="relu"),
    Case("clipped_rules.py", ALONE, "rules that clip gradients", MESSAGE, says="its __mul__ gives other numbers"),
    Case("clamped_data.py", ALONE, "data clamped and rounded", MESSAGE,
         says="its __init__ uses more than its operands: round"),
    Case("fractions_as_data.py", ALONE, "Fractions", MESSAGE, says="it takes texts for numbers"),
    Case("snapshots.py", ALONE, "`copy`, `deepcopy`, `pickle`"),
    Case("operation_renamed.py", ALONE, "operations made by functions, `_op` set afterwards"),
    Case("graph_cut.py", ALONE, "`_prev` and `_backward` taken away", MESSAGE, says="the program sets _prev"),
    Case("depth.py", ALONE, "an attribute computed from those of the operands",
         MESSAGE, says="its __init__ goes by the number"),
    Case("marked.py", ALONE, "`backward()` marks numbers"),
    Case("conversions.py", ALONE, "`float`, `bool`, `int`, `<`, `format`, `str`, `abs`, `round`"),
    Case("data_property.py", ALONE, "`data` as a property"),
    Case("constructors.py", ALONE, "class methods, defaults, a cache"),
    Case("stepwise.py", ALONE, "rules called by hand"),
    Case("averaged.py", ALONE, "`backward()` divides by uses", MESSAGE, says="its __add__"),
    Case("powers_of_ints.py", ALONE, "powers by repeated products"),
    Case("asked_softly.py", ALONE, "`getattr` with a default for what operators compute",
         MESSAGE, says="cost of a Value was read"),
    Case("object_arrays.py", ALONE, "arrays of objects"),
    Case("ordered.py", ALONE, "`functools.total_ordering`"),
    Case("own_lists.py", ALONE, "a list and a dict on each number"),
    Case("reloaded", BESIDE, "the module is reloaded", program="main.py"),
    # Mistakes.
    Case("wrong_sigmoid.py", ALONE, "mistake: the sign of `sigmoid`'s derivative", kept="sigmoid"),
    Case("wrong_relu.py", ALONE, "mistake: `relu`'s derivative times its result", kept="relu"),
    Case("wrong_tanh.py", ALONE, "mistake: `tanh`'s derivative without the square", kept="tanh"),
    Case("wrong_exp.py", ALONE, "mistake: a factor in `exp`'s derivative", kept="exp"),
    Case("wrong_rsub.py", ALONE, "mistake: `2 - v` is `v - 2`", kept="__rsub__"),
    Case("wrong_rtruediv.py", ALONE, "mistake: `2 / v` is `v / 2`", kept="__rtruediv__"),
    Case("wrong_pow.py", ALONE, "mistake: the rule of `**` assigns",
         MESSAGE, says="the gradients of its __pow__ do not add up"),
    Case("sub_without_gradient.py", ALONE, "mistake: `-` has no rule", kept="__sub__"),
    Case("relu_at_zero.py", ALONE, "`relu`'s derivative is 1 at 0", kept="relu"),
    Case("log_with_epsilon.py", ALONE, "`log` adds 0.001", kept="log"),
    Case("clipped_exp.py", ALONE, "`exp` is clipped beyond 30", kept="exp"),
    Case("backward_twice.py", ALONE, "two passes over one graph", MESSAGE, says="a second backward pass", scalar=OURS),
    Case("breadth_first.py", ALONE, "mistake: a reverse pass level by level", kept="backward"),
    Case("seen_too_late.py", ALONE, "mistake: a reverse pass that visits some numbers twice", kept="backward"),
    Case("recursive.py", ALONE, "a reverse pass as a sum over paths", kept="backward"),
]

REPORT = '''\
import atexit, json, os, sys

def report():
    # Of each class of that name in the program's modules, whether it is flatgrad's or on top of it.
    flatgrad = sys.modules.get("flatgrad")
    name, here, found = os.environ["CASE_CLASS"], os.getcwd(), {}
    for key, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if key != "__main__" and not (file and os.path.abspath(file).startswith(here + os.sep)):
            continue
        cls = vars(module).get(name)
        if isinstance(cls, type):
            found[key] = flatgrad is not None and issubclass(cls, flatgrad.Value)
    with open(os.environ["CASE_REPORT"], "w") as file:
        json.dump(found, file)

if "CASE_REPORT" in os.environ:
    atexit.register(report)
'''
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def numbers(text):
    return [float(x) for x in NUMBER.findall(text)]


def same(ours, theirs):
    """Whether the text is the same, and each number in it within 1e-9."""
    return (NUMBER.sub("#", ours) == NUMBER.sub("#", theirs)
            and numbers(ours) == pytest.approx(numbers(theirs), rel=1e-9, abs=1e-12, nan_ok=True))


@dataclass
class Result:
    """What a run of a program gave."""

    code: int
    printed: str
    errors: str
    classes: dict   # module -> whether its class of the name is flatgrad's


@pytest.fixture(scope="session")
def watched(tmp_path_factory):
    """A folder whose sitecustomize tells which classes a program ended with."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "sitecustomize.py").write_text(REPORT)
    return folder


def notebook_as_script(path):
    """The code cells of a notebook, without IPython's lines."""
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
    script = path.with_suffix(".script.py")
    script.write_text("\n".join(line for line in lines if not line.startswith("%")), "utf-8")
    return script.name


@pytest.fixture
def run(tmp_path, watched):
    """Run a program of tests/programs all three ways at once, each in a copy of its folder."""
    def start(case, way):
        folder = tmp_path / way
        source = PROGRAMS / case.name
        if source.is_dir():
            shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir()
            shutil.copy(source, folder)
        program = (case.program or case.name).split()
        if way == "python":
            arguments = program
            if program[-1].endswith(".ipynb"):
                arguments = [notebook_as_script(folder / program[-1])]
        else:
            scalar = ["--scalar-graph"] if way == "scalar" else []
            arguments = ["-m", "flatgrad", "run", *case.options.split(), *scalar, *program]
        path = os.pathsep.join(filter(None, [str(watched), os.environ.get("PYTHONPATH")]))
        environment = dict(os.environ, PYTHONPATH=path, PYTHONDONTWRITEBYTECODE="1", PYTHONIOENCODING="utf-8",
                           CASE_CLASS=case.cls, CASE_REPORT=str(tmp_path / f"{way}.json"))
        return subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment, encoding="utf-8",
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(case):
        processes = {way: start(case, way) for way in ("python", "flatgrad", "scalar")}
        try:
            results = {}
            for way, process in processes.items():
                printed, errors = process.communicate(timeout=300)
                report = tmp_path / f"{way}.json"
                classes = json.loads(report.read_text()) if report.exists() else {}
                results[way] = Result(process.returncode, printed, errors, classes)
            return results
        finally:
            for process in processes.values():
                if process.poll() is None:
                    process.kill()
                    process.communicate()
    return run


def outcome(ours, theirs):
    """What became of a program; fails if it printed other numbers without a word."""
    if ours.code == 2:
        lines = ours.errors.splitlines()
        assert lines and lines[-1].startswith("flatgrad run: "), ours.errors
        return MESSAGE
    assert ours.code == 0, ours.errors
    assert same(ours.printed, theirs.printed), (
        f"{ours.printed}\n--- and not ---\n{theirs.printed}\n--- stderr ---\n{ours.errors}")
    assert all(line.startswith("flatgrad run: ") for line in ours.errors.splitlines()), ours.errors
    return OURS if any(ours.classes.values()) else LEFT


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_program_with_its_own_engine(case, run):
    results = run(case)
    theirs = results["python"]
    assert (theirs.code, theirs.errors) == (0, "")
    assert len(numbers(theirs.printed)) >= 5
    assert not any(theirs.classes.values())
    for way, expected in ("flatgrad", case.outcome), ("scalar", case.scalar or case.outcome):
        ours = results[way]
        assert outcome(ours, theirs) == expected, ours.errors
        assert re.search(case.says if expected == MESSAGE else rf"\b{case.kept}\b" if case.kept else "", ours.errors)


def test_each_program_is_a_case():
    assert sorted(case.name for case in CASES) == sorted(
        path.name for path in PROGRAMS.iterdir() if path.name != "__pycache__")


def table():
    """The table of docs/own-engines.md, as lines, and a sentence that counts."""
    words = {OURS: "the same numbers", LEFT: "the same numbers, nothing replaced", MESSAGE: "a message"}

    def cell(case, outcome):
        return words[outcome] + (f"; `{case.kept}` stays the program's" if case.kept and outcome == OURS else "")

    def row(case):
        first, second = cell(case, case.outcome), cell(case, case.scalar or case.outcome)
        place = "" if case.layout == ALONE else f"{case.layout}: "
        return f"| {place}{case.manner} | {first} | {second if second != first else 'so too'} |"
    outcomes = [case.outcome for case in CASES]
    return ["| a program | with `--replace-class` | and `--scalar-graph` |", "|---|---|---|", *map(row, CASES), "",
            f"Of these {len(CASES)} programs {outcomes.count(OURS)} run on flatgrad's engine and print the numbers of "
            f"their own, {outcomes.count(MESSAGE)} end", "in a message, and one has no engine."]


@pytest.mark.skipif(not GUIDE.exists(), reason="the documentation is not installed")
def test_the_table_in_the_guide():
    assert "\n".join(table()) in GUIDE.read_text("utf-8")


if __name__ == "__main__":
    print("\n".join(table()))
