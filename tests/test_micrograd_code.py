"""Code written against micrograd, run with the real package and through `flatgrad run`."""
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("micrograd")
FOLDER = Path(__file__).resolve().parent.parent / "examples" / "micrograd"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="not in a checkout")
NUMBER = re.compile(r"-?\d+(?:\.\d*)?(?:e[-+]?\d+)?")


def run(*command):
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_script(path, tmp_path):
    """A notebook's code cells as a script, without magics."""
    if path.suffix == ".py":
        return path
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    script = tmp_path / "notebook.py"
    source = [line for cell in cells for line in "".join(cell["source"]).split("\n")]
    if any("matplotlib" in line for line in source):
        source = ["import matplotlib", "matplotlib.use('Agg')", *source]
    script.write_text("\n".join(line for line in source if not line.startswith("%")), "utf-8")
    return script


@pytest.mark.parametrize("name", [
    "checks.py", pytest.param("demo.ipynb", marks=pytest.mark.slow), "trace_graph.ipynb"])
def test_same_output(name, tmp_path):
    if name == "demo.ipynb":
        pytest.importorskip("matplotlib")
    theirs = run(as_script(FOLDER / name, tmp_path))
    ours = run("-m", "flatgrad", "run", FOLDER / name)
    assert theirs.strip() and NUMBER.sub("#", ours) == NUMBER.sub("#", theirs)
    numbers = [float(x) for x in NUMBER.findall(theirs)]
    assert [float(x) for x in NUMBER.findall(ours)] == pytest.approx(numbers, rel=1e-9, abs=1e-9)
    assert len(numbers) >= 4
