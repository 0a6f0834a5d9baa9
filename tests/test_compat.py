"""`install_as_micrograd` and `python -m flatgrad run`: programs written for micrograd, unchanged.

Each runs in a process of its own, as it decides what `import micrograd` means there.
"""
import json
import re
import signal
import subprocess
import sys

import pytest

README = """\
from micrograd.engine import Value

a = Value(-4.0)
b = Value(2.0)
c = a + b
d = a * b + b**3
c += c + 1
c += 1 + c + (-a)
d += d * 2 + (b + a).relu()
d += 3 * d + (b - a).relu()
e = c - d
f = e**2
g = f / 2.0
g += 10.0 / f
g.backward()
print('README', repr(g.data), repr(a.grad), repr(b.grad))
"""

TRAINING = """\
import random

import micrograd.nn as nn
from micrograd import engine

random.seed(3)
model = nn.MLP(2, [5, 1])
X = [[random.uniform(-1, 1), random.uniform(-1, 1)] for _ in range(12)]
for k in range(8):
    losses = [(1 + -(1 if x > z else -1) * model([engine.Value(x), engine.Value(z)])).relu() for x, z in X]
    loss = sum(losses) * (1 / len(losses)) + 1e-4 * sum(p * p for p in model.parameters())
    model.zero_grad()
    loss.backward()
    for p in model.parameters():
        p.data -= 0.2 * p.grad
    print('step', k, repr(loss.data))
print(model)
"""

OWN_CLASS = """\
import math


class Value:
    __slots__ = ('data', 'grad', '_children', '_local_grads')

    def __init__(self, data, children=(), local_grads=()):
        self.data = data
        self.grad = 0
        self._children = children
        self._local_grads = local_grads

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data + other.data, (self, other), (1, 1))

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def __pow__(self, other): return Value(self.data**other, (self,), (other * self.data**(other - 1),))
    def log(self): return Value(math.log(self.data), (self,), (1 / self.data,))
    def exp(self): return Value(math.exp(self.data), (self,), (math.exp(self.data),))
    def relu(self): return Value(max(0, self.data), (self,), (float(self.data > 0),))
    __radd__ = __add__
    __rmul__ = __mul__

    def backward(self):
        topo, visited = [], set()
        def build_topo(v):
            if v not in visited:
                visited.add(v)
                for child in v._children:
                    build_topo(child)
                topo.append(v)
        build_topo(self)
        self.grad = 1
        for v in reversed(topo):
            for child, local_grad in zip(v._children, v._local_grads):
                child.grad += local_grad * v.grad


x = Value(0.7)
y = Value(1.9, (x,), (2.5,))
z = ((x * y + 3) ** 2).log() + (x * 2).exp() * 0.5 + y.relu()
z.backward()
print(repr(float(z.data)), repr(float(x.grad)), repr(float(y.grad)))
"""
WHERE = "\nprint(Value.__module__)\n"


@pytest.fixture
def python(tmp_path):
    """Run Python in a folder of the test's."""
    def run(*arguments):
        return subprocess.run([sys.executable, *map(str, arguments)], cwd=tmp_path, capture_output=True,
                              text=True, timeout=300)
    return run


@pytest.fixture
def flatgrad_run(python):
    def run(*arguments):
        return python("-m", "flatgrad", "run", *arguments)
    return run


def write_notebook(path, *cells):
    """A notebook of a text cell and these code cells: as lists of lines, or as one string."""
    text = {"cell_type": "markdown", "metadata": {}, "source": ["# Not code\n", "%nor magic"]}
    code = [{"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [],
             "source": cell.splitlines(True) if i % 2 else cell} for i, cell in enumerate(cells)]
    path.write_text(json.dumps({"cells": [text, *code], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


def ok(result, notes=""):
    assert (result.returncode, result.stderr) == (0, notes)
    return result.stdout


def same_numbers(ours, theirs):
    """The same text, the numbers in it within 1e-9."""
    number = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
    assert re.sub(number, "#", ours) == re.sub(number, "#", theirs)
    assert ([float(x) for x in re.findall(number, ours)]
            == pytest.approx([float(x) for x in re.findall(number, theirs)], rel=1e-9, abs=1e-12))
    assert len(re.findall(number, ours)) > 2


# ---- install_as_micrograd ----

@pytest.mark.parametrize("code", [
    "import micrograd, flatgrad.nn; assert not hasattr(micrograd, '__file__')",
    "import micrograd.engine, micrograd.nn, flatgrad.nn as f; assert micrograd.nn.MLP is f.MLP; "
    "assert micrograd.engine.Value is flatgrad.Value",
    "from micrograd import nn, engine; assert nn.Value is engine.Value is flatgrad.Value",
    "from micrograd.engine import *; assert Value is flatgrad.Value",
    "import micrograd; first = micrograd; flatgrad.install_as_micrograd(); import micrograd; "
    "assert micrograd is first",
    "import importlib.util; assert importlib.util.find_spec('micrograd').name == 'micrograd'",
])
def test_the_imports(python, code):
    ok(python("-W", "error", "-c", f"import flatgrad; flatgrad.install_as_micrograd(); {code}"))


def test_there_are_no_other_submodules(python):
    result = python("-c", "import flatgrad; flatgrad.install_as_micrograd(); import micrograd.foo")
    assert result.stderr.endswith("ModuleNotFoundError: No module named 'micrograd.foo'\n")


def test_it_comes_too_late_for_the_real_engine(python):
    pytest.importorskip("micrograd")
    for name in "engine", "nn":
        result = python("-c", f"import micrograd.{name}, flatgrad; flatgrad.install_as_micrograd()")
        assert re.search(r"\nRuntimeError: micrograd\.engine is already imported, from another package: call "
                         r"flatgrad\.install_as_micrograd\(\) before .+\n$", result.stderr)


def test_the_real_package_without_its_modules_is_replaced(python):
    pytest.importorskip("micrograd")
    ok(python("-c", "import micrograd as old, flatgrad; flatgrad.install_as_micrograd(); import micrograd.nn; "
                    "assert old is not micrograd; assert old.nn is micrograd.nn is flatgrad.nn"))


def test_importing_flatgrad_imports_none_of_it(python):
    ok(python("-c", "import flatgrad, sys; assert not {'flatgrad.compat', 'flatgrad.nn', 'json', 'ast'} "
                    "& set(sys.modules)"))


# ---- programs ----

@pytest.mark.parametrize("program", [README, TRAINING], ids=["readme", "training"])
def test_the_same_numbers_from_a_script_and_a_notebook(python, flatgrad_run, tmp_path, program):
    pytest.importorskip("micrograd")
    program += "import sys; print(Value.__module__ if 'Value' in globals() else engine.Value.__module__)\n"
    (tmp_path / "script.py").write_text(program)
    theirs = ok(python("script.py"))
    assert theirs.endswith("\nmicrograd.engine\n")
    write_notebook(tmp_path / "notebook.ipynb", *program.split("\n\n"))
    for name in "script.py", "notebook.ipynb":
        ours = ok(flatgrad_run(name))
        assert ours.endswith("\nflatgrad\n")
        same_numbers(ours.removesuffix("flatgrad\n"), theirs.removesuffix("micrograd.engine\n"))


PROCESS = """\
import os, pickle, sys
import beside
class C: pass
pickle.dumps(C())
print(sys.argv[1:], os.path.basename(sys.argv[0]), __name__, os.path.basename(__file__), os.path.isabs(__file__))
print(os.path.basename(sys.path[0]), sys.modules['__main__'].C is C, __package__, __spec__ and __spec__.name)
print('numpy' in sys.modules, sorted(name for name in globals() if name not in ('beside', 'os', 'pickle', 'sys')))
"""


def test_a_script_meets_what_python_gives_it(python, flatgrad_run, tmp_path):
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "script.py").write_text(PROCESS)
    (folder / "beside.py").write_text("")
    arguments = ["scripts/script.py", "--help", "-m", "x", "--", "--replace-class", "run", ""]
    ours = ok(flatgrad_run(*arguments))
    theirs = ok(python(*arguments))
    assert ours.replace("'__cached__', ", "") == theirs.replace("'__annotations__', ", "").replace("'__cached__', ", "")
    assert "['--help', '-m', 'x', '--', '--replace-class', 'run', '']" in ours
    assert ok(flatgrad_run("--", *arguments)) == ours


def test_a_module_meets_what_python_gives_it(python, flatgrad_run, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("print('imported')")
    (tmp_path / "beside.py").write_text("")
    for name in "__main__", "tool":
        (package / f"{name}.py").write_text(PROCESS + "from . import __name__ as parent; print(parent)")
    for arguments in ["-m", "package", "-x"], ["-m", "package.tool", "--help"]:
        ours, theirs = ok(flatgrad_run(*arguments)), ok(python(*arguments))
        assert ours == theirs.replace("'__annotations__', ", "")
        assert ours.endswith("\npackage\n")
    assert ok(flatgrad_run("-mpackage", "-x")) == ok(flatgrad_run("-m", "package", "-x"))


@pytest.mark.parametrize("end, code, stderr", [
    ("sys.exit(3)", 3, ""), ("sys.exit()", 0, ""), ("sys.exit('no')", 1, "no\n"), ("sys.stdout.close()", 0, ""),
    ("import atexit; atexit.register(lambda: print(sys.modules['__main__'].sys is sys, file=sys.stderr))",
     0, "True\n"),
    ("sys.excepthook = lambda kind, error, trace: print(trace.tb_frame.f_code.co_name, kind.__name__, "
     "file=sys.stderr); 1 / 0", 1, "<module> ZeroDivisionError\n"),
])
def test_how_it_ends(python, flatgrad_run, tmp_path, end, code, stderr):
    (tmp_path / "script.py").write_text(f"import sys\n{end}\n")
    for result in flatgrad_run("script.py"), python("script.py"):
        assert (result.returncode, result.stdout, result.stderr) == (code, "", stderr)


def test_an_interrupt(flatgrad_run, tmp_path):
    (tmp_path / "script.py").write_text("raise KeyboardInterrupt\n")
    result = flatgrad_run("script.py")
    assert result.returncode == 130 and result.stderr.endswith("\nKeyboardInterrupt\n")


FAILING = [
    "def f(x):\n    return 1 / x\n\ntry:\n    f(0)\nexcept ValueError:\n    pass\n",
    "import other\n",
    "import missing\n",
    "def f(:\n",
    "raise OSError(32, 'of the script')\n",
    "from flatgrad.compat import Refusal\nraise Refusal('of the script')\n",
]


@pytest.mark.parametrize("code", FAILING)
def test_a_traceback_is_the_programs(python, flatgrad_run, tmp_path, code):
    (tmp_path / "script.py").write_text(code)
    (tmp_path / "other.py").write_text("def broken(:\n")
    ours, theirs = flatgrad_run("script.py"), python("script.py")
    assert (ours.returncode, ours.stdout, ours.stderr) == (1, "", theirs.stderr)
    assert "script.py" in ours.stderr
    if code.startswith("def f(x)"):  # through Python's own -m, runpy's frames come first
        module = flatgrad_run("-m", "script")
        assert (module.returncode, module.stderr) == (1, theirs.stderr)


def test_a_package_that_fails_while_it_is_imported(flatgrad_run, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("import nowhere\n")
    result = flatgrad_run("-m", "package.tool")
    assert result.returncode == 1
    assert re.fullmatch(r'Traceback \(most recent call last\):\n  File ".+__init__\.py", line 1, in <module>\n'
                        r"(    .+\n)+ModuleNotFoundError: No module named 'nowhere'\n", result.stderr)


# ---- notebooks ----

def test_what_is_ipythons_is_skipped_with_a_note(flatgrad_run, tmp_path):
    write_notebook(
        tmp_path / "n.ipynb",
        "%matplotlib inline\nx = 7\n!pip install 'it\nif x:\n    %timeit x + \\\n       1\nprint(x\n% 4, '''\n%text\n!''')\n",
        "%%bash\nexit 3\n",
        "\n%%time\ny = x + 1\n",
        "files = !ls\nx?\nprint(x, y)\n",
    )
    assert ok(flatgrad_run("n.ipynb"), "".join(f"flatgrad run: note: n.ipynb, cell {line}\n" for line in [
        "1, line 1: skipped: %matplotlib inline",
        "1, line 3: skipped: !pip install 'it",
        "1, line 5: skipped: %timeit x + \\",
        "2, line 1: skipped the cell: %%bash",
        "3, line 2: skipped the line: %%time",
        "4, line 1: skipped: files = !ls",
        "4, line 2: skipped: x?",
    ])) == "3 \n%text\n!\n7 8\n"


def test_a_notebook_is_one_main_module(flatgrad_run, tmp_path):
    write_notebook(tmp_path / "n.ipynb", "import os, sys, pickle\ndef f(): return g()\nclass C: pass",
                   "def g(): return 5\nprint(f(), __name__, sys.argv, os.environ['MPLBACKEND'])",
                   "print(type(pickle.loads(pickle.dumps(C()))) is C, sys.modules['__main__'].g is g)")
    assert ok(flatgrad_run("n.ipynb", "--a", "b")) == "5 __main__ ['n.ipynb', '--a', 'b'] Agg\nTrue True\n"


def test_a_traceback_names_the_cell(flatgrad_run, tmp_path):
    write_notebook(tmp_path / "n.ipynb", "def f(x):\n    return 1 / x", "%pwd\nprint('before')\nf(0)", "print('after')")
    result = flatgrad_run("n.ipynb")
    assert (result.returncode, result.stdout) == (1, "before\n")
    lines = [line for line in result.stderr.splitlines() if not set(line) <= set(" ~^")]
    assert lines == [
        "flatgrad run: note: n.ipynb, cell 2, line 1: skipped: %pwd",
        "Traceback (most recent call last):",
        '  File "n.ipynb, cell 2", line 3, in <module>', "    f(0)",
        '  File "n.ipynb, cell 1", line 2, in f', "    return 1 / x",
        "ZeroDivisionError: division by zero",
    ]
    write_notebook(tmp_path / "n.ipynb", "print('before')", "x = = 1")
    result = flatgrad_run("n.ipynb")
    assert (result.returncode, result.stdout) == (1, "before\n")
    assert result.stderr.startswith('  File "n.ipynb, cell 2", line 1\n    x = = 1\n')


# ---- --replace-class ----

def test_a_class_is_replaced(python, flatgrad_run, tmp_path):
    (tmp_path / "own.py").write_text(OWN_CLASS + WHERE)
    told = "flatgrad run: note: class Value of own.{} is flatgrad's now\n"
    theirs = ok(python("own.py"))
    ours = ok(flatgrad_run("--replace-class", "Value", "own.py"), told.format("py"))
    assert ok(flatgrad_run("own.py")) == theirs and theirs.endswith("\n__main__\n")
    assert ours.endswith("\nflatgrad\n")
    same_numbers(ours.split("\n")[0], theirs.split("\n")[0])
    assert ok(flatgrad_run("--replace-class=Value", "-m", "own"), told.format("py")) == ours
    assert ok(flatgrad_run("--replace-class=own.Value", "own.py"), told.format("py")) == ours

    write_notebook(tmp_path / "own.ipynb", "%pwd", *(OWN_CLASS + WHERE).split("\n\n\n"), OWN_CLASS + WHERE)
    note = "flatgrad run: note: own.ipynb, cell 1, line 1: skipped: %pwd\n"
    result = flatgrad_run("--replace-class", "Value", "own.ipynb")
    assert ok(result, note + 2 * told.format("ipynb")) == ours + ours.split("\n")[0] + "\nflatgrad\n"


def test_another_name_and_the_lines_after_it(flatgrad_run, tmp_path):
    own = OWN_CLASS.replace("Value", "Scalar") + "1 / 0\n"
    (tmp_path / "own.py").write_text(own)
    result = flatgrad_run("--replace-class", "Scalar", "own.py")
    assert result.returncode == 1
    assert f'own.py", line {own.count(chr(10))}, in <module>\n    1 / 0\n' in result.stderr


def test_methods_of_its_own_stay(flatgrad_run, tmp_path):
    own = OWN_CLASS.replace("    def backward", "    def mish(self): return 7\n    soft = mish\n\n    def backward")
    (tmp_path / "own.py").write_text(own + "print(x.mish(), z.soft())\n")
    result = flatgrad_run("--replace-class", "Value", "own.py")
    assert ok(result, "flatgrad run: note: class Value of own.py is flatgrad's now, with its own mish, soft\n").endswith(
        "\n7 7\n")


CANNOT = "argument --replace-class: flatgrad's Value cannot stand in for class Value of p.py: it "
ERRORS = [
    (["--replace-class", "Value", "p.py"], "print(1)\ndef f():\n    class Value: pass",
     "argument --replace-class: p.py has no class Value at its top level"),
    (["--replace-class", "Value", "p.py"], "print(1)\nclass Value: pass", CANNOT + "defines no backward()"),
    (["--replace-class", "Value", "p.py"], "class Value:\n def backward(self): self.data",
     CANNOT + "never uses .grad"),
    (["--replace-class", "Value", "p.py"], "class Value:\n def backward(self): self.d",
     CANNOT + "never uses .data or .grad"),
    (["--replace-class", "Value", "p.py"], "class Value(B, metaclass=M):\n def backward(self): self.data, self.grad",
     CANNOT + "inherits from B"),
    (["--replace-class", "a b", "p.py"], "", "argument --replace-class: expected the name of a class, got 'a b'"),
    (["--replace-class"], "", "argument --replace-class: expected one argument"),
    (["--replace-class", "A", "--replace-class=B", "p.py"], "",
     "argument --replace-class: expected it once, got it twice: A and B"),
    (["--other", "p.py"], "", "unrecognized arguments: --other"),
    ([], "", "expected a script, a notebook or -m MODULE; --help shows examples"),
    (["-m"], "", "argument -m: expected one argument"),
    (["-m", "no_such.module"], "", "no module named no_such.module"),
    (["-m", "email"], "", "no module named email.__main__"),
    (["-m", "sys"], "", "module sys has no source"),
    (["-m", ""], "", "argument -m: expected the name of a module, got ''"),
    (["-m", ".a"], "", "argument -m: expected the name of a module, got '.a'"),
    (["-m", "script.py"], "", "no module named script.py"),
    (["missing.py"], "", "cannot read missing.py: No such file or directory"),
    (["-"], "", "cannot read -: No such file or directory"),
    (["missing.ipynb"], "", "cannot read missing.ipynb: No such file or directory"),
    (["p.ipynb"], "[1]", "p.ipynb: not a notebook: expected an object with a list of cells (notebook format 4)"),
    (["p.ipynb"], '{"cells": [{"cell_type": "code", "source": [1]}]}',
     "p.ipynb: not a notebook: entry 1 of its cells has no source text"),
    (["p.ipynb"], "", "p.ipynb: not a notebook: Expecting value: line 1 column 1 (char 0)"),
]


@pytest.mark.parametrize("arguments, program, message", ERRORS, ids=lambda x: x if isinstance(x, str) else None)
def test_an_error_is_one_line(flatgrad_run, tmp_path, arguments, program, message):
    for name in "p.py", "p.ipynb":
        (tmp_path / name).write_text(program)
    result = flatgrad_run(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"flatgrad run: error: {message}\n")


def test_a_folder_and_bytes_are_no_programs(flatgrad_run, tmp_path):
    (tmp_path / "p.ipynb").write_bytes(b"\xff\x00\x81")
    for name in ".", "p.ipynb":
        result = flatgrad_run(name)
        assert (result.returncode, result.stdout) == (2, "")
        assert re.fullmatch(r"flatgrad run: error: .+\n", result.stderr)


def test_help_teaches(flatgrad_run):
    for arguments in ["--help"], ["-h"], ["--replace-class", "Value", "--help"]:
        help = ok(flatgrad_run(*arguments))
        assert "python -m flatgrad run --replace-class Value gpt.py" in help


# ---- a package micrograd of the program's own ----

OWN_ENGINE = OWN_CLASS[:OWN_CLASS.index("\n\nx = Value")] + "\n\nclass Other:\n    pass\n"
OWN_NN = """\
import random

from micrograd.engine import Value
from .tools import start


class Module:
    def zero_grad(self):
        for p in self.parameters():
            p.grad = 0


class MLP(Module):
    def __init__(self, *sizes):
        random.seed(7)
        self.layers = [[[Value(start()) for _ in range(n)] for _ in range(m)] for n, m in zip(sizes, sizes[1:])]

    def __call__(self, x):
        for layer in self.layers:
            x = [sum((w * v for w, v in zip(row, x)), Value(0.1)).relu() for row in layer]
        return x[0]

    def parameters(self):
        return [w for layer in self.layers for row in layer for w in row]
"""
USES_IT = """\
import sys
import micrograd.nn as nn
from micrograd.engine import Other, Value

model = nn.MLP(2, 3, 1)
for k in range(3):
    out = model([Value(1.0), Value(-2.0 + k)])
    loss = (out * 2.0 + -1.0) ** 2
    loss.backward()
    print(repr(loss.data), [repr(p.grad) for p in model.parameters()][:4])
    model.zero_grad()
"""


@pytest.fixture
def own_package(tmp_path):
    """A folder micrograd with an engine, an nn and more; called with False it gets no __init__.py."""
    def make(init=True, engine=OWN_ENGINE):
        folder = tmp_path / "micrograd"
        folder.mkdir()
        if init:
            (folder / "__init__.py").write_text("")
        (folder / "engine.py").write_text(engine)
        (folder / "nn.py").write_text(OWN_NN)
        (folder / "tools.py").write_text("import random\n\n\ndef start():\n    return random.gauss(0.5, 1.0)\n")
        (tmp_path / "train.py").write_text(USES_IT)
    return make


TOLD = ("note: class Value of micrograd/engine.py is flatgrad's now; micrograd.nn, micrograd.tools stay the program's own "
        "(--nn takes flatgrad.nn)\n")


@pytest.mark.parametrize("init", [True, False])
def test_an_own_package_keeps_its_modules(python, flatgrad_run, tmp_path, own_package, init):
    if not init and python("-c", "import micrograd; micrograd.__file__").returncode == 0:
        pytest.skip("a package that is installed comes before a folder without __init__.py")
    own_package(init)
    theirs = ok(python("train.py"))
    ours = ok(flatgrad_run("train.py"), "flatgrad run: " + TOLD)
    same_numbers(ours, theirs)
    (tmp_path / "install.py").write_text(
        "import flatgrad\nflatgrad.install_as_micrograd()\nflatgrad.install_as_micrograd()\n" + USES_IT
        + "print(Value is flatgrad.Value, nn.MLP is not flatgrad.nn.MLP, Other.__module__)\n")
    ours = ok(python("install.py"), "flatgrad: " + TOLD)
    assert ours.endswith("\nTrue True micrograd.engine\n")
    same_numbers(ours[:ours.rindex("True True")], theirs)


def test_its_nn_is_replaced_when_asked(python, flatgrad_run, tmp_path, own_package):
    own_package()
    (tmp_path / "train.py").write_text("from micrograd.nn import MLP\nfrom micrograd import engine, tools\n"
                                       "print(MLP.__module__, engine.Value.__module__, engine.Other)\n")
    out = ok(flatgrad_run("--nn", "train.py"), "flatgrad run: note: class Value of micrograd/engine.py is flatgrad's now; "
             "micrograd.tools stays the program's own; micrograd.nn is flatgrad.nn, with micrograd's layers and first weights\n")
    assert re.fullmatch(r"flatgrad\.nn\.\w+ flatgrad <class 'micrograd\.engine\.Other'>\n", out)


def test_an_own_engine_that_cannot_be_replaced_stays(python, flatgrad_run, own_package):
    own_package(engine=OWN_ENGINE.replace("            for child, local_grad", "            Value.passes += 1\n"
                                          "            for child, local_grad").replace("    def exp", "    passes = 0\n"
                                                                                       "    def exp"))
    theirs, ours = python("train.py"), flatgrad_run("train.py")
    assert ours.returncode == 0 and ours.stdout == theirs.stdout
    assert ours.stderr == ("flatgrad run: note: class Value of micrograd/engine.py stays the program's own: its passes "
                           "changes with every Value that is made; micrograd.nn, micrograd.tools stay the program's own "
                           "(--nn takes flatgrad.nn)\n")


def test_a_folder_micrograd_with_something_else_is_left_alone(python, flatgrad_run, tmp_path):
    folder = tmp_path / "micrograd"
    folder.mkdir()
    (folder / "__init__.py").write_text("from .mesh import Value\n")
    (folder / "mesh.py").write_text("class Value:\n    unit = 'um'\n")
    (tmp_path / "train.py").write_text("import micrograd\nprint(micrograd.Value.unit, micrograd.mesh.__name__)\n")
    assert flatgrad_run("train.py").stdout == ok(python("train.py")) == "um micrograd.mesh\n"


@pytest.mark.parametrize("layout", ["folder above", "single file"])
def test_an_own_micrograd_that_the_program_puts_on_the_path(python, flatgrad_run, tmp_path, own_package, layout):
    own_package()
    (tmp_path / "scripts").mkdir()
    if layout == "single file":
        engine = (tmp_path / "micrograd" / "engine.py").read_text()
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib" / "micrograd.py").write_text(engine)
        (tmp_path / "scripts" / "train.py").write_text(
            "import sys; sys.path.insert(0, 'lib')\nfrom micrograd import Value\na = Value(3.0); b = a * a + 1\n"
            "b.backward(); print(repr(b.data), repr(a.grad), float(a.data), Value.__module__.split('.')[0])\n")
    else:
        (tmp_path / "scripts" / "train.py").write_text("import sys; sys.path.insert(0, '.')\n" + USES_IT)
    theirs, ours = ok(python("scripts/train.py")), flatgrad_run("scripts/train.py")
    assert ours.returncode == 0 and "is flatgrad's now" in ours.stderr
    same_numbers(ours.stdout.replace("flatgrad", "micrograd"), theirs)


def test_what_is_installed_and_is_not_micrograd_keeps_its_modules(python, tmp_path, own_package):
    own_package()
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "micrograd").rename(tmp_path / "site-packages" / "micrograd")
    (tmp_path / "train.py").write_text("import sys\nsys.path.insert(0, 'site-packages')\nimport flatgrad\n"
                                       "flatgrad.install_as_micrograd()\nimport micrograd.tools, micrograd.engine\n"
                                       "print(micrograd.engine.Value is flatgrad.Value)\n")
    result = python("train.py")
    assert result.stdout == "True\n" and "micrograd.tools stay the program's own" in result.stderr


def test_the_stub_has_what_the_real_modules_have(python):
    real = pytest.importorskip("micrograd.engine")
    import micrograd.nn as real_nn
    names = {module.__name__: sorted(name for name in vars(module) if not name.startswith("__"))
             for module in (real, real_nn)}
    ok(python("-W", "error", "-c", "import flatgrad; flatgrad.install_as_micrograd(); import importlib\n"
              f"for module, names in {names}.items():\n"
              "    for name in names: getattr(importlib.import_module(module), name)\n"
              "from micrograd import Value; from micrograd.nn import *; assert random.uniform and Module"))


# ---- where the class is ----

def split_program(tmp_path):
    """OWN_CLASS in engine.py, and what uses it in main.py."""
    at = OWN_CLASS.index("\n\nx = Value")
    (tmp_path / "engine.py").write_text(OWN_CLASS[:at] + "\n")
    (tmp_path / "main.py").write_text("from engine import Value as V\n" + OWN_CLASS[at:].replace("Value(", "V(")
                                      + "import sys; print(sys.argv[1:], V.__module__.split('.')[0])\n")


@pytest.mark.parametrize("name", ["Value", "engine.Value"])
def test_a_class_in_a_module_beside_the_script(python, flatgrad_run, tmp_path, name):
    split_program(tmp_path)
    theirs = ok(python("main.py", "-x"))
    ours = ok(flatgrad_run("--replace-class", name, "main.py", "-x"),
              "flatgrad run: note: class Value of engine.py is flatgrad's now\n")
    assert ours.endswith("\n['-x'] flatgrad\n") and theirs.endswith("\n['-x'] engine\n")
    same_numbers(ours.split("\n")[0], theirs.split("\n")[0])
    assert not list(tmp_path.glob("__pycache__/engine*")) or ok(python("main.py")) == theirs.replace("['-x']", "[]")
    write_notebook(tmp_path / "n.ipynb", "print(1)", (tmp_path / "main.py").read_text())
    assert same_numbers(ok(flatgrad_run("--replace-class", name, "n.ipynb"),
                           "flatgrad run: note: class Value of engine.py is flatgrad's now\n"), "1\n" + theirs.replace(
                               "['-x'] engine", "[] flatgrad")) is None


def test_one_class_of_two_has_to_be_named(flatgrad_run, tmp_path):
    split_program(tmp_path)
    (tmp_path / "old.py").write_text((tmp_path / "engine.py").read_text())
    (tmp_path / "both.py").write_text("import old\nimport engine\nprint(old.Value is engine.Value)\n")
    result = flatgrad_run("--replace-class", "Value", "both.py")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.endswith("flatgrad run: error: argument --replace-class: flatgrad's Value cannot stand in for class "
                                  "Value of engine.py: the class in old.py has been replaced already; name one of them, such "
                                  "as MODULE.Value\n")
    assert ok(flatgrad_run("--replace-class", "old.Value", "both.py"),
              "flatgrad run: note: class Value of old.py is flatgrad's now\n") == "False\n"


@pytest.mark.parametrize("code, message", [
    ("import engine\n", "main.py has no class Node at its top level, and neither have engine.py, which it imports"),
    ("import json\n", "main.py has no class Node at its top level"),
])
def test_where_it_was_looked_for_is_told(flatgrad_run, tmp_path, code, message):
    split_program(tmp_path)
    (tmp_path / "main.py").write_text(code)
    result = flatgrad_run("--replace-class", "Node", "main.py")
    assert (result.returncode, result.stderr) == (2, f"flatgrad run: error: argument --replace-class: {message}\n")
    (tmp_path / "main.py").write_text("import sys\nsys.path.append('elsewhere')\nimport hidden_engine_of_mine\n")
    result = flatgrad_run("--replace-class", "Node", "main.py")
    assert result.returncode == 1 and "No module named 'hidden_engine_of_mine'" in result.stderr


def test_a_syntax_error_is_that_of_the_script(python, flatgrad_run, tmp_path):
    (tmp_path / "own.py").write_text(OWN_CLASS + "def f(:\n")
    ours, theirs = flatgrad_run("--replace-class", "Value", "own.py"), python("own.py")
    assert (ours.returncode, ours.stdout, ours.stderr) == (1, "", theirs.stderr)
    split_program(tmp_path)
    (tmp_path / "engine.py").write_text(OWN_CLASS + "def f(:\n")
    ours, theirs = flatgrad_run("--replace-class", "Value", "main.py"), python("main.py")
    assert (ours.returncode, ours.stderr.splitlines()[-4:]) == (1, theirs.stderr.splitlines()[-4:])


# ---- --scalar-graph ----

WALK = """\
from micrograd.engine import Value
from micrograd.nn import MLP
import random


def text(v):
    return f"({v._op or round(v.data, 6)} " + " ".join(sorted(map(text, v._prev))) + ")"


random.seed(5)
a, b = Value(2.0), Value(-3.0)
for v in (a - b, a / b, -a, 2.0 - a, 2.0 / a, (a * b - 3).relu() ** 2 / 5, MLP(2, [2, 1])([a, b])):
    v.backward()
    print(text(v), round(v.data, 9), round(a.grad, 9), round(b.grad, 9))
"""


def test_the_scalar_graph_is_micrograds_node_for_node(python, flatgrad_run, tmp_path):
    pytest.importorskip("micrograd")
    (tmp_path / "walk.py").write_text(WALK)
    theirs = ok(python("walk.py"))
    same_numbers(ok(flatgrad_run("--scalar-graph", "walk.py")), theirs)
    assert len(ok(flatgrad_run("walk.py"))) < len(theirs)


def test_the_scalar_graph_is_that_of_threads_too(flatgrad_run, tmp_path):
    (tmp_path / "t.py").write_text("import threading, flatgrad\nfrom micrograd.engine import Value\n"
                                   "def f(): print(flatgrad.dot([Value(1.0), Value(2.0)], [3.0, 4.0])._op)\n"
                                   "t = threading.Thread(target=f); t.start(); t.join()\n")
    assert ok(flatgrad_run("--scalar-graph", "t.py")) == "+\n"
    assert ok(flatgrad_run("t.py")) != "+\n"


# ---- what depends on more than operands ----

LOOKS = {   # where in OWN_CLASS, what instead, before it, and what the program does with it
    "a switch in __init__": ("self.grad = 0\n", "self.grad = 0\n        if not ON: children = ()\n", "ON = True\n", "ON = False"),
    "an attribute of the operand": ("self._local_grads = local_grads\n",
                                    "self._local_grads = local_grads\n        self.gain = 1.0\n", "", "x.gain = 3.0"),
    "a hook in backward": ("                child.grad += local_grad * v.grad",
                           "                child.grad += local_grad * v.grad * scale(v)", "def scale(v): return SCALE[0]\nSCALE = [1.0]\n",
                           "SCALE[0] = 2.0"),
    "a clip far away": ("        return Value(self.data + other.data,", "        return Value(min(self.data + other.data, 12345.0),", "",
                        "x.data = 1e5"),
    "rounding": ("self.data = data\n", "self.data = round(data, 3)\n", "", ""),
    "nan": ("self.data = data\n", "self.data = 0.0 if math.isnan(data) else data\n", "", "x = Value(float('nan'))"),
    "a helper defined anew": ("math.exp(self.data), (self,), (math.exp(self.data),)", "e(self.data), (self,), (e(self.data),)",
                              "def e(x): return math.exp(x)\n", "def e(x): return 2.0 ** x"),
    "a counter elsewhere": ("self.grad = 0\n", "self.grad = 0\n        C.made += 1\n", "class C: made = 0\n", "print(C.made)"),
    "a function's attribute": ("self.grad = 0\n", "self.grad = 0\n        count.n += 1\n", "def count(): pass\ncount.n = 0\n", "print(count.n)"),
    "a log": ("self.grad = 0\n", "self.grad = 0\n        sys.stderr.write('made\\n')\n", "import sys\n", ""),
    "an endless loop": ("    def log(self): ", "    def log(self):\n        n = 1.0\n        while n != 2.0: n = n + (self.data > 2.0)\n        ",
                        "", "x = Value(3.0)"),
    "an operator of a subclass": ("x = Value(0.7)", "class S(Value):\n    def __add__(self, other): return Value(1.0)\n\n\nx = S(0.7)", "", ""),
    "__init__ put on later": ("x = Value(0.7)", "old = Value.__init__\ndef more(self, *a):\n    old(self, *a)\n    self.data *= 2\n\n"
                              "Value.__init__ = more\nx = Value(0.7)", "", ""),
    "an edited graph": ("z.backward()", "z._children = ()\nz.backward()", "", ""),
    "weak references": ("x = Value(0.7)", "import weakref\nx = Value(0.7)", "", ""),
    "its own pickles": ("    def backward", "    def __getstate__(self): return (1, 2, 3)\n\n    def backward", "", ""),
}


SOON = """
import runpy, signal, sys
timer = signal.setitimer
signal.setitimer = lambda which, seconds: timer(which, min(seconds, 0.5))
sys.argv[0] = "flatgrad"
runpy.run_module("flatgrad", run_name="__main__")
"""   # `flatgrad ...`, which gives up on a class much earlier


@pytest.mark.parametrize("what", LOOKS)
def test_what_depends_on_more_than_its_operands_is_not_replaced(python, flatgrad_run, tmp_path, what):
    old, new, before, does = LOOKS[what]
    assert old in OWN_CLASS
    program = "import math\n" + before + OWN_CLASS.replace(old, new)
    if does:   # between the first numbers and some more
        program += does + "\n" + OWN_CLASS[OWN_CLASS.index("y = Value(1.9"):]
    (tmp_path / "own.py").write_text(program)
    if what == "an endless loop" and hasattr(signal, "setitimer"):
        ours = python("-c", SOON, "run", "--replace-class", "Value", "own.py")
        assert "does not end" in ours.stderr
    else:
        ours = flatgrad_run("--replace-class", "Value", "own.py")
    if ours.returncode == 2:
        assert re.fullmatch(r"flatgrad run: error: .+\n", ours.stderr)
    else:   # its own method has stayed
        same_numbers(ok(ours, ours.stderr), ok(python("own.py")))
