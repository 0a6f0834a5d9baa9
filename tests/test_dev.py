"""dev.py and .ci/run, as far as they can be asked without making an environment."""
import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEV, CI = ROOT / "dev.py", ROOT / ".ci" / "run"
pytestmark = pytest.mark.skipif(not DEV.exists(), reason="dev.py is not part of an installed package")
needs_ci = pytest.mark.skipif(os.name == "nt" or not CI.exists() or not shutil.which("bash"),
                              reason="needs .ci/run and bash")


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("asked, near", [("mons", "moons"), ("tests", "test"), ("Wheels", "wheels"), ("xyzzy", None)])
def test_an_unknown_job_is_one_line_that_says_what_is_near(asked, near):
    done = run(sys.executable, DEV, asked)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("dev.py: expected one of moons, test, python, sanitize, races, valgrind, wheels, types, docs, got "
                           f"{asked!r}{f'; did you mean {near}?' if near else ''}; python3 dev.py --help says more\n")


def test_help_is_what_dev_py_says_of_itself():
    for arguments, code in ((), 2), (("--help",), 0):
        done = run(sys.executable, DEV, *arguments)
        assert done.returncode == code and "python3 dev.py moons [ARG ...]" in done.stdout + done.stderr


@needs_ci
def test_an_unknown_part_of_ci():
    done = run("bash", CI, "tset")
    assert (done.returncode, done.stdout) == (2, "")
    parts = done.stderr.rstrip().split("expected some of: ")[1].split()
    assert sorted(re.findall(r"^part_(\w+)\(\)", CI.read_text("utf-8"), re.MULTILINE)) == sorted(parts)


@needs_ci
def test_both_workers_of_ci_have_every_part():
    """In their lists, but for the first part of the other one, which nobody else can take before it."""
    text = CI.read_text("utf-8")
    lists = [set(re.search(f'^{name}="(.+)"$', text, re.MULTILINE)[1].split()) for name in ("parts", "first", "second")]
    assert lists[1] | lists[2] == lists[0] and lists[1] - {"sanitize"} >= lists[0] - {"sanitize"}


@needs_ci
def test_the_files_of_ci_s_parts_are_there():
    text = CI.read_text("utf-8")
    groups = re.findall(r"tests/test_\{(.+?)\}\.py", text)
    assert groups
    for name in ",".join(groups).split(","):
        assert (ROOT / "tests" / f"test_{name}.py").exists(), name


@pytest.fixture
def dev(tmp_path, monkeypatch):
    """dev.py as a module, of a checkout of two files."""
    spec = importlib.util.spec_from_file_location("dev", DEV)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checkout = tmp_path / "checkout"
    (checkout / "src").mkdir(parents=True)
    (checkout / "src" / "a.py").write_text("a = 1\n")
    (checkout / "src" / "b.py").write_text("b = 1\n")
    monkeypatch.setattr(module, "ROOT", checkout)
    return module


def test_a_copy_follows_the_checkout_and_keeps_what_builds_made(dev, tmp_path):
    tree = tmp_path / "tree"
    dev.synchronize(tree)
    (tree / "build" / "temp").mkdir(parents=True)
    (tree / "build" / "temp" / "a.o").write_text("compiled")
    (tree / "build" / "lib.linux").mkdir()
    (tree / "src" / "_core.c").write_text("generated")
    times = {name: (tree / "src" / name).stat().st_mtime_ns for name in ("a.py", "b.py")}
    (dev.ROOT / "src" / "b.py").write_text("b = 2\n")
    os.utime(dev.ROOT / "src" / "b.py", (1, 1))   # a source that is older than what was made of the one before it
    (dev.ROOT / "src" / "c.py").write_text("c = 1\n")
    dev.synchronize(tree)
    assert (tree / "src" / "a.py").stat().st_mtime_ns == times["a.py"]
    assert (tree / "src" / "b.py").read_text() == "b = 2\n"
    assert (tree / "src" / "b.py").stat().st_mtime_ns >= times["b.py"]
    (dev.ROOT / "src" / "a.py").unlink()
    dev.synchronize(tree)
    left = sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file())
    assert left == ["build/temp/a.o", "src/_core.c", "src/b.py", "src/c.py"]
    assert not (tree / "build" / "lib.linux").exists()


def test_an_sdist_has_what_the_checkout_has(dev, tmp_path, capsys):
    (dev.ROOT / "MANIFEST.in").write_text("graft docs\nprune docs/_build\n")
    for name in "docs/a.md", "docs/_build/a.html", "notes.txt":   # which is in no folder that the sdist has whole
        (dev.ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (dev.ROOT / name).write_text("text")
    unpacked = shutil.copytree(dev.ROOT, tmp_path / "unpacked", ignore=shutil.ignore_patterns("_build", "notes.txt"))
    (unpacked / "PKG-INFO").write_text("Name: flatgrad")
    dev.same_files(unpacked, dev.ROOT)
    (unpacked / "docs" / "a.md").rename(unpacked / "docs" / "b.md")
    with pytest.raises(SystemExit):
        dev.same_files(unpacked, dev.ROOT)
    assert capsys.readouterr().err == "dev.py: the sdist holds what the checkout does not: docs/b.md\n"
    (unpacked / "docs" / "b.md").unlink()
    with pytest.raises(SystemExit):
        dev.same_files(unpacked, dev.ROOT)
    assert capsys.readouterr().err == "dev.py: the sdist lacks what the checkout holds: docs/a.md\n"


def test_a_second_build_shares_no_object_that_knows_python(dev, tmp_path):
    for folder, made in ("a1", "csrc/tape.o"), ("b2", "src/flatgrad/_core.o"), ("c3", None):
        (tmp_path / "objects" / folder).mkdir(parents=True)
        if made:
            (tmp_path / "objects" / folder / "done").write_text(made)
    dev.only_c(tmp_path / "objects", tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["a1"]


def test_short_wheels_are_of_three_pythons(dev, monkeypatch):
    minor = sys.version_info[1]
    monkeypatch.setattr(dev, "supported", lambda python: (3, int(python)))
    assert dev.some(["1", "2", str(minor), "100", "101"]) == ["1", str(minor), "101"]
    assert dev.some(["1", "2", "3"]) == ["1", "3"] and dev.some([str(minor)]) == [str(minor)]


def test_lists_of_tests_are_of_tests_that_there_are(dev):
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    assert {*dev.OUTSIDE, *dev.LONG_INSIDE, *dev.EVERY_PYTHON, *dev.ONE_PYTHON, *dev.THREADED} <= tests
    assert not set(dev.OUTSIDE) & set(dev.LONG_INSIDE)


def test_a_step_is_told_with_its_seconds(dev, capsys):
    with dev.step("making tea"):
        pass
    assert re.fullmatch(r"dev\.py: making tea: \d+ s\n", capsys.readouterr().out)
    with pytest.raises(ZeroDivisionError), dev.step("spilling it"):
        1 / 0
    assert re.fullmatch(r"dev\.py: spilling it: \d+ s\n", capsys.readouterr().out)



# ---- tests/side_by_side.py ----

FILES = {
    "test_good.py": "def test_a(): pass\n\ndef test_b(): pass",
    "test_bad.py": "def test_c(): assert 1 == 2",
    "test_dies.py": "import os\n\ndef test_d(): os._exit(7)",
    "test_nothing.py": "",
    "test_reads.py": "import os\n\ndef test_e(): assert os.read(0, 99) == b''",
}


def side_by_side(folder, names, *options, processes="2"):
    for name in names:
        (folder / name).write_text(FILES[name])
    files = [folder / name for name in names]
    return subprocess.run([sys.executable, ROOT / "tests" / "side_by_side.py", *options, *files], cwd=folder, timeout=300,
                          capture_output=True, text=True, env={**os.environ, "TEST_PROCESSES": processes})


def test_every_file_is_run_whatever_becomes_of_those_before_it(tmp_path):
    done = side_by_side(tmp_path, FILES, processes="1")
    assert done.returncode == 1
    for text in ("test_good.py: 2 passed", "assert 1 == 2", "test_bad.py: FAILED", "ended with exit code 7",
                 "test_dies.py: FAILED", "test_nothing.py: no tests ran", "5 files: "):
        assert text in done.stdout
    label, *failed = done.stdout.rstrip().split("\n")[-1].split(" ")
    assert (label, [Path(file).name for file in failed]) == ("FAILED:", ["test_bad.py", "test_dies.py"])


def test_options_reach_every_file(tmp_path):
    names = ["test_good.py", "test_bad.py", "test_reads.py"]
    done = side_by_side(tmp_path, names, "--capture=sys", "-k", "test_a or test_e")
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 files: 2 passed" in done.stdout
    assert side_by_side(tmp_path, ["test_good.py"], "-k", "nothing").returncode == 1   # that nothing ran is no success


# ---- setup.py ----

@pytest.fixture
def setup_py(monkeypatch):
    """setup.py's functions by name, without a build."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("FLATGRAD_REPOSITORY", raising=False)
    tree = ast.parse(Path("setup.py").read_text("utf-8"))
    names = {"os": os, "re": re, "Path": Path}
    exec(compile(ast.Module([node for node in tree.body if isinstance(node, ast.FunctionDef)], []), "setup.py", "exec"), names)
    return names


@pytest.fixture
def included(setup_py):
    return setup_py["included"]


def test_a_source_is_compiled_again_for_what_it_includes(included):
    def files(source):
        return {Path(name).name for name, _ in included(source, ["csrc"])[0]}
    kernels = {path.name for path in Path("csrc").glob("kernels_*.h")}
    assert kernels and kernels < files("csrc/kernels.c") | files("csrc/kernels32.c")
    assert files("csrc/ops.c") == {"ops.c", "ops.h", "ops.def", "formulas.def", "base.h"}
    assert {"sweep.h", "block.h", "tape.h", "mem.h"} < files("csrc/sweep.c") and not kernels & files("csrc/sweep.c")
    assert "Python.h" not in included("csrc/tape.c", ["csrc"])[1] and "stdlib.h" in included("csrc/mem.c", ["csrc"])[1]


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_the_compiler_reads_no_other_file(included):
    for source in map(str, Path("csrc").glob("*.c")):
        done = run("gcc", "-MM", "-Icsrc", source)
        assert done.returncode == 0, done.stderr
        read = {os.path.normpath(name) for name in done.stdout.partition(":")[2].replace("\\\n", " ").split()}
        assert read <= {os.path.normpath(name) for name, _ in included(source, ["csrc"])[0]}


def test_what_cannot_fail_makes_no_object(setup_py, tmp_path):
    function = "static void f(void) {\n  x = %s;\n  %s\n  return;\n}\n"
    silent, told = '__Pyx_WriteUnraisable("flatgrad._core.f", 1);', '__Pyx_AddTraceback("flatgrad._core.f");'
    generated = tmp_path / "core.c"
    for made in "PyFloat_FromDouble(y)", "__Pyx_PyLong_From_int64_t((y))", "PyNumber_And(y, z)", "PyLong_FromSsize_t(y)":
        for end, expected in (silent, ["flatgrad._core.f: " + made.partition("(")[0]]), (told, []):
            generated.write_text("int x;\n" + function % ("y", silent) + function % (made, end), "utf-8")
            assert list(setup_py["swallowed"](generated)) == expected
    generated.write_text(function % ("PyFloat_AS_DOUBLE(y) + PyLong_AsLong(y)", silent), "utf-8")
    assert list(setup_py["swallowed"](generated)) == []


def test_one_command_compiles_what_knows_no_python(setup_py):
    commands = [["gcc", *flags.split(), "-O3", "-Wp,-D_FORTIFY_SOURCE=2", "-fPIC"] for flags in (
        "-Wno-unused-result -Wsign-compare -DNDEBUG -fwrapv", "-fno-strict-overflow -Wsign-compare -DNDEBUG -Wall",
        "-fno-strict-overflow -DNDEBUG -fwrapv")]
    for command in commands:
        assert setup_py["without_python_s"](command) == ["gcc", "-DNDEBUG", "-O3", "-Wp,-D_FORTIFY_SOURCE=2", "-fPIC", "-fwrapv"]
    assert setup_py["without_python_s"](["cc", "-O2"]) == ["cc", "-O2"]


def test_a_release_s_links_lead_to_its_tag(setup_py, monkeypatch):
    assert "project_urls" not in setup_py["shown"]() or Path("PKG-INFO").is_file()
    monkeypatch.setenv("FLATGRAD_REPOSITORY", "https://example.org/someone/flatgrad/")
    shown = setup_py["shown"]()
    assert shown["project_urls"]["Issues"] == "https://example.org/someone/flatgrad/issues"
    version = re.search(r"/blob/v(.+?)/", shown["project_urls"]["Changelog"])[1]
    assert f'version = "{version}"' in Path("pyproject.toml").read_text("utf-8")
    links = re.findall(r"(!?)\[[^\[\]]*\]\(([^()\s]+)\)", shown["long_description"])
    begin = f"https://example.org/someone/flatgrad/%s/v{version}/"
    for picture, link in links:
        assert link.startswith(begin % ("raw" if picture else "blob")) or not link.startswith("https://example.org/"), link
        assert "://" in link or link.startswith("#"), link
        assert not link.startswith("https://example.org/") or Path(link.split("/", 7)[7].partition("#")[0]).is_file(), link
    assert len(links) > 5 and any(picture for picture, _ in links)


def test_only_links_to_files_of_ours_are_changed(setup_py):
    whole = setup_py["with_whole_links"]
    for text in ("[a](https://example.org/x)", "[a](#use)", "[0](x)", "[a](no/such.md)", "[a] (README.md)"):
        assert whole(text, "P/", "Q/") == text
    assert whole("[a](README.md#use) ![b](docs/moons.png)", "P/", "Q/") == "[a](P/README.md#use) ![b](Q/docs/moons.png)"


def test_an_sdist_remembers_where_it_is_from(setup_py, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert setup_py["published"]() == ""
    Path("PKG-INFO").write_text("Name: flatgrad\nProject-URL: Repository, https://example.org/a/b\n"
                                "Project-URL: Issues, https://example.org/a/b/issues\n")
    assert setup_py["published"]() == "https://example.org/a/b"
    monkeypatch.setenv("FLATGRAD_REPOSITORY", "example.org/a/b")
    with pytest.raises(SystemExit, match="expected https://host/owner/name, got 'example.org/a/b'"):
        setup_py["published"]()
