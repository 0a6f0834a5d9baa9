"""Types: what mypy, its stubtest and pyright say of the installed package. `python3 dev.py types` brings them."""
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flatgrad

TYPED = Path(__file__).with_name("typed")
# Names that the stub cannot have: attributes of the user's own, of which `label` is declared from the start.
NOT_IN_STUB = "flatgrad._core.Value.__getattr__\nflatgrad._core.Value.label\n"
LEAST_COMPLETE = 0.98
WHOLLY_KNOWN = "flatgrad.viz", "flatgrad.markup"   # whose symbols all have known types


def tool(package, module, *arguments, folder, config=None):
    """The output of a checker, run in a folder of its own on copies of the files in typed/."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}: python3 dev.py types")
    for path in TYPED.glob("*.py"):
        (folder / path.name).write_text(path.read_text("utf-8"), "utf-8")
    if config:
        (folder / "pyrightconfig.json").write_text(json.dumps(config))
    # The checkers look for flatgrad where this Python finds it, which may be a checkout.
    places = str(Path(flatgrad.__file__).parent.parent)
    environ = {**os.environ, "PYTHONPATH": places, **({"MYPYPATH": places} if "site-packages" not in places else {})}
    return subprocess.run([sys.executable, "-m", module, *arguments], cwd=folder, capture_output=True, text=True,
                          timeout=500, env=environ)


def marked(path):
    return {k for k, line in enumerate(path.read_text("utf-8").split("\n"), 1) if line.endswith("# wrong")}


def mypy(folder, *names):
    done = tool("mypy", "mypy", "--strict", "--follow-imports=silent", "--cache-dir=cache", *names, folder=folder)
    return done.stdout + done.stderr, {int(k) for k in re.findall(r"^\w+\.py:(\d+): error", done.stdout, re.MULTILINE)}


def pyright(folder, mode, *names):
    found = tool("pyright", "pyright", "--outputjson", "--pythonpath", sys.executable, *names, folder=folder,
                 config={"typeCheckingMode": mode,
                         "extraPaths": [str(Path(flatgrad.__file__).parent.parent)]}).stdout
    errors = [d for d in json.loads(found)["generalDiagnostics"] if d["severity"] == "error"]
    return [d["message"] for d in errors], {d["range"]["start"]["line"] + 1 for d in errors}


def test_programs_pass_mypy(tmp_path):
    text, lines = mypy(tmp_path, "use.py", "stars.py")
    assert not lines and "Success" in text, text


def test_mypy_finds_what_is_wrong(tmp_path):
    text, lines = mypy(tmp_path, "wrong.py")
    assert lines == marked(TYPED / "wrong.py"), text


@pytest.mark.parametrize("mode", ["basic", "strict"])
def test_programs_pass_pyright(tmp_path, mode):
    # A star import is itself an error in strict mode.
    assert pyright(tmp_path, mode, "use.py", *["stars.py"][:mode == "basic"]) == ([], set())


def test_pyright_finds_what_is_wrong(tmp_path):
    messages, lines = pyright(tmp_path, "basic", "wrong.py")
    assert lines == marked(TYPED / "wrong.py"), messages


def test_the_stub_is_as_the_module(tmp_path):
    (tmp_path / "allowed").write_text(NOT_IN_STUB)
    # How our own modules, which have no stubs, use their types is not in question here.
    (tmp_path / "mypy.ini").write_text("[mypy]\n[mypy-flatgrad.*]\nignore_errors = True\n")
    # That a class has a layout of its own (PEP 800) cannot be said to older checkers.
    done = tool("mypy", "mypy.stubtest", "flatgrad._core", "--ignore-disjoint-bases", "--allowlist", "allowed",
                "--mypy-config-file", "mypy.ini", folder=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_the_public_package_is_typed(tmp_path):
    done = tool("pyright", "pyright", "--verifytypes", "flatgrad", "--ignoreexternal", "--outputjson", "--pythonpath",
                sys.executable, folder=tmp_path)
    report = json.loads(done.stdout)["typeCompleteness"]
    unknown = [symbol["name"] for symbol in report["symbols"] if symbol["isExported"] and not symbol["isTypeKnown"]]
    assert report["completenessScore"] >= LEAST_COMPLETE, unknown
    assert not [name for name in unknown if name.startswith(WHOLLY_KNOWN)]


def test_checkers_see_the_names_that_are_loaded_later():
    source = Path(flatgrad.__file__).read_text("utf-8")
    block = source.partition("if TYPE_CHECKING:\n")[2].partition("\nelse:")[0]
    names = set(re.findall(r"\b(\w+) as \1\b", block))
    assert names == {*flatgrad.SUBMODULES, *flatgrad.LATER, *(set(flatgrad._core.__all__) - set(flatgrad.__all__))}
    nn = Path(flatgrad.nn.__file__).read_text("utf-8").partition("if TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"\b(\w+) as \1\b", nn)) == {*flatgrad.nn.SUBMODULES, *flatgrad.nn.LOADED_LATER,
                                                       *flatgrad.nn.ALSO_LATER}
    listed = re.search(r"__all__ = (\[.*?\])", block, re.DOTALL)[1]
    assert re.findall(r'"(\w+)"', listed) == flatgrad.__all__
