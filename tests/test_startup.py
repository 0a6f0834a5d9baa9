"""What is imported before a user's first line runs: nothing that is not needed. No test here measures time; that is
for ``python -m bench --only startup``.

Each module that we bring in has a reason here. What it imports itself, which differs from one Python to the next, is
found by importing it without us.
"""
import json
import subprocess
import sys

import pytest

from flatgrad import cli
from flatgrad.cli import common, program

LISTING = "import sys; print('modules', *sys.modules)"

# Module of the standard library -> why it is needed from the start.
CORE_NEEDS = {
    "__future__": "annotations are not evaluated",
    "collections.abc": "Cython declares its memoryviews to be Sequences",
    "contextvars": "no_grad() belongs to a context",
    "copyreg": "pickles",
    "gc": "the collector is told of cycles through the tape",
    "math": "checks of arguments",
    "operator": "indices",
    "os": "FLATGRAD_ISA",
}
CORE = {"flatgrad", "flatgrad._core", "flatgrad.arguments", "flatgrad.errors"}

NN_NEEDS = {
    "collections": "what load_state_dict returns is a namedtuple",
    "random": "it is among what `from micrograd.nn import *` gives, and weights come from it",
    "reprlib": "a layer may lead back to itself",
    "threading": "which modules are being entered",
}
NN = {"flatgrad.nn", "flatgrad.nn.initialization", "flatgrad.nn.layers", "flatgrad.nn.module", "flatgrad.scalar"}

RUN_NEEDS = {
    "importlib.machinery": "the loader of the program",
    "importlib.util": "python -m has it anyway",
    "zlib": "whether the micrograd that is installed is the one that we stand in for",
}
RUN = {"flatgrad.cli", "flatgrad.cli.program", "flatgrad.compat", "flatgrad.compat.common", "flatgrad.compat.install",
       "flatgrad.compat.running", "flatgrad.engine", "micrograd", "micrograd.engine", "micrograd.nn"}

SCRIPT = ["-c", "import sys; from flatgrad.cli import script; sys.exit(script())"]   # as pip's program does it


def modules(folder, *arguments):
    """The names of the modules that Python, run with these arguments, has in the end."""
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done
    heading, *names = done.stdout.splitlines()[-1].split(" ")
    assert heading == "modules"
    return {name for name in names if name != "cython_runtime" and not name.startswith("_cython_")}


def brought(folder, needs, arguments, plain=("-c",)):
    """The modules beyond those of plain Python and of what is needed from the standard library."""
    imports = "".join(f"import {name}; " for name in needs)
    return modules(folder, *arguments) - modules(folder, *plain, imports + LISTING)


def test_import_flatgrad_imports_nothing_else(tmp_path):
    assert brought(tmp_path, CORE_NEEDS, ["-c", f"import flatgrad; {LISTING}"]) == CORE


def test_the_networks_import_nothing_else(tmp_path):
    arguments = ["-c", f"from flatgrad.nn import MLP; MLP(2, [2, 1])([1.0, 2.0]).backward(); {LISTING}"]
    assert brought(tmp_path, CORE_NEEDS | NN_NEEDS, arguments) == CORE | NN


@pytest.mark.parametrize("start", [["-m", "flatgrad"], SCRIPT], ids=["python -m flatgrad", "flatgrad"])
@pytest.mark.parametrize("named", [["program.py"], ["-m", "program"]], ids=" ".join)
def test_run_imports_what_the_program_needs(tmp_path, start, named):
    (tmp_path / "program.py").write_text(LISTING)
    needs = CORE_NEEDS | NN_NEEDS | RUN_NEEDS
    if start[0] == "-m":
        needs["runpy"] = "python -m"
    if named[0] == "-m":
        needs["tokenize"] = "importlib decodes the source of a module with it"
    extra = brought(tmp_path, needs, [*start, "run", *named, "--help", "x"])
    assert extra - {"flatgrad.__main__"} <= CORE | NN | RUN
    assert "flatgrad.compat" in extra


def test_a_command_imports_its_own_module(tmp_path):
    """--help of one command, and the version, wait for no other."""
    (tmp_path / "atend.py").write_text(f"import atexit\natexit.register(lambda: exec({LISTING!r}))\n")
    run = ["-c", "import sys, atend; from flatgrad.cli import script; sys.exit(script())"]
    families = {f"flatgrad.cli.{name}" for name in cli.COMMANDS.values()} - {"flatgrad.cli.program"}
    for arguments, own in {("xor", "--help"): {"flatgrad.cli.problems"}, ("run", "--help"): set(),
                           ("run", "--replace-class", "V", "missing.py"): set(), ("--version",): set()}.items():
        done = subprocess.run([sys.executable, *run, *arguments], cwd=tmp_path, capture_output=True, text=True,
                              timeout=300)
        names = set(done.stdout.splitlines()[-1].split(" "))
        assert "modules" in names and names & families == own, arguments
        assert "numpy" not in names


def test_each_command_is_where_the_table_says():
    parser = common.Parser()
    commands = parser.add_subparsers()
    for name in dict.fromkeys(cli.COMMANDS.values()):
        module = __import__(f"flatgrad.cli.{name}", fromlist=[name])
        before = set(commands.choices)
        module.add(commands, []) if module is program else module.add(commands)
        assert [command for command in commands.choices if command not in before] == [
            command for command, family in cli.COMMANDS.items() if family == name]
    assert list(commands.choices) == list(cli.COMMANDS)


@pytest.mark.parametrize("argv", [
    ["a.py"], ["a.py", "--help"], ["a b.py", "-m", "x"], [""], ["-m", "a.b"], ["-m", "a.b", "--version", "run"],
    ["-m", ""], ["-"], ["-", "x"], ["--", "a.py"], ["-ma.b", "x"], ["-m=a"], ["-m", "-x", "y"], ["-m", "--", "a.py"],
    ["--replace-class", "V", "a.py", "x"], ["-m", "a", "--replace-class", "V"],
    ["--replace-class", "V", "-m", "a", "b"], ["--replace-class=V", "a.py"], ["--nonsense", "a.py"],
    ["-m", "a", "-m", "b"], ["\u00e9.py", ""], ["-5", "a.py"],
], ids=" ".join)
def test_without_argparse_the_same_is_run(argv, monkeypatch, capsys):
    """Whatever is started without it is what argparse would have started."""
    started = []

    def end(main):
        try:
            return main()
        except SystemExit as error:
            return error.code, capsys.readouterr()
    monkeypatch.setattr(program, "start", lambda *what, **options: started.append((
        *what, {name: option for name, option in options.items() if option})))
    codes = [end(lambda: cli.main(["run", *argv]))]
    monkeypatch.setattr(program, "without_options", lambda argv: None)
    codes.append(end(lambda: cli.main(["run", *argv])))
    assert codes[0] == codes[1]
    assert started == [] or len(started) == 2
    assert started[:1] == started[1:]


def test_a_program_that_cannot_be_run_is_told_as_argparse_tells_it(tmp_path):
    told = []
    for argv in ["missing.py"], ["--", "missing.py"]:
        done = subprocess.run([sys.executable, "-m", "flatgrad", "run", *argv], cwd=tmp_path, capture_output=True,
                              text=True, timeout=300)
        told.append((done.returncode, done.stdout, done.stderr))
    assert told[0] == told[1]
    assert told[0][:2] == (2, "") and told[0][2].startswith("flatgrad run: error: cannot read missing.py: ")


# ---- what is imported later works the same ----

LATE = """
import json, sys
import flatgrad
from flatgrad import Value, no_grad
early = "contextlib" in sys.modules
with no_grad():
    first = (Value(1.0) * 2.0)._op
def entered():
    with no_grad():
        yield
generator = entered()
next(generator)
outside = (Value(1.0) * 2.0)._op    # the generator is suspended
generator.close()
import contextlib, copy, pickle
@contextlib.contextmanager
def quiet():
    with no_grad():
        yield
with quiet():
    inside = (Value(1.0) * 2.0)._op
@no_grad()
def double(x):
    "Twice x."
    return x * 2.0
once, again = double(Value(1.0))._op, double(Value(1.0))._op
after = (Value(1.0) * 2.0)._op
x = Value(3.0)
y = x * x
found = copy.deepcopy([x, y])
found[1].backward()
print(json.dumps([first, outside, inside, once, again, after, found[0].grad, x.grad, double.__name__, double.__doc__]))
"""


def test_contextlib_may_come_after_us(tmp_path):
    done = subprocess.run([sys.executable, "-c", LATE], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    assert json.loads(done.stdout) == ["", "*", "", "", "", "*", 6.0, 0.0, "double", "Twice x."]
