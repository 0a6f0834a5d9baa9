"""What other distributions and tools read about the package says what pyproject.toml says."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RECIPE, CITATION = ROOT / "packaging" / "conda-forge" / "recipe.yaml", ROOT / "CITATION.cff"
pytestmark = pytest.mark.skipif(not RECIPE.is_file(), reason="no checkout")


def project(pattern):
    return re.search(pattern, (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)[1]


def test_the_conda_recipe_needs_what_the_project_needs():
    recipe = RECIPE.read_text("utf-8")
    assert re.search(r'^  version: "(.+)"$', recipe, re.MULTILINE)[1] == project('^version = "(.+)"$')
    listed = {name: needs for name, needs in re.findall(r"^ +- ([\w-]+) ([<>=][\w.,<>=]+)$", recipe, re.MULTILINE)}
    needed = dict(re.findall(r'"([\w-]+)([<>=][\w.,<>=]+)"', project(r"^requires = \[(.+)\]$")
                             + project(r"^dependencies = \[(.+)\]$")))
    assert listed == {**needed, "python": project('^requires-python = "(.+)"$')}
    assert f"flatgrad = {project('^flatgrad = .(.+).$')}" in recipe
    assert f"summary: {project('^description = .(.+).$').split(',')[0]}," in recipe


def test_the_citation_names_the_licence_and_no_version():
    citation = CITATION.read_text("utf-8")
    assert f"license: {project('^license = .(.+).$')}\n" in citation
    assert "\nversion:" not in citation   # which stands in pyproject.toml


def test_what_has_not_been_run_says_so():
    for path in (RECIPE, ROOT / "packaging" / "pyodide" / "build.sh"):
        assert "NOT RUN" in path.read_text("utf-8")
    assert (ROOT / "packaging" / "README.md").read_text("utf-8").count("**not run**") == 2
