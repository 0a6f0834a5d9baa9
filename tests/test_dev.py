"""dev.py and .ci/run, as far as they can be asked without making an environment."""
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
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("asked, near", [("mons", "moons"), ("tests", "test"), ("Wheels", "wheels"), ("xyzzy", None)])
def test_an_unknown_job_is_one_line_that_says_what_is_near(asked, near):
    done = run(sys.executable, DEV, asked)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("dev.py: expected one of moons, test, python, sanitize, wheels, docs, got "
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
def test_the_files_of_ci_s_parts_are_there():
    text = CI.read_text("utf-8")
    groups = re.findall(r"tests/test_\{(.+?)\}\.py", text)
    assert len(groups) == 2
    for name in ",".join(groups).split(","):
        assert (ROOT / "tests" / f"test_{name}.py").exists(), name
