"""examples/: each script runs without a warning, and prints and writes what examples/README.md says."""
import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from outputs import same_output

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="examples/ is not part of an installed package")

HELPERS = {"drawing.py", "engines.py", "pure_value.py"}   # imported by others, and named in the README
NEEDS = {"draw_expression.py": "graphviz", "draw_neuron.py": "graphviz", "draw_mlp.py": "graphviz",
         "moons_png.py": "matplotlib", "sine.py": "matplotlib", "digits.py": "sklearn",
         "data_parallel.py": "joblib distributed",
         "newton_rosenbrock.py": "matplotlib scipy", "scipy_fit.py": "scipy",
         "oscillator.py": "matplotlib", "curvature.py": "matplotlib", "catenary.py": "matplotlib",
         "export_jax.py": "jax"}
WRITES = {"draw_expression.py": "expression.svg", "draw_neuron.py": "neuron.svg", "draw_mlp.py": "mlp.svg",
          "moons_png.py": "decision_boundary.png", "sine.py": "sine.png", "oscillator.py": "oscillator.png",
          "curvature.py": "curvature.png", "explore_neuron.py": "neuron.html", "catenary.py": "catenary.png",
          "newton_rosenbrock.py": "newton_rosenbrock.png"}

ENTRY = re.compile(r"^```text\n\$ python (.+)\n((?s:.*?))^```$", re.MULTILINE)


def entries():
    """{command without python: the lines that it prints} as the README has them."""
    readme = EXAMPLES / "README.md"
    if not readme.exists():
        return {}
    found = ENTRY.findall(readme.read_text("utf-8"))
    return {command: output.splitlines() for command, output in found}


def script_of(command):
    return next((Path(word).name for word in command.split() if word.startswith("examples/")), None)


def run(command, folder):
    """A command of the README, in another folder, with warnings as errors."""
    words = [str(EXAMPLES.parent / word) if word.startswith("examples/") else word for word in command.split()]
    return subprocess.run([sys.executable, "-W", "error", *words], cwd=folder, capture_output=True, text=True,
                          timeout=300)


@pytest.mark.parametrize("command", entries())
def test_what_the_readme_says(command, tmp_path):
    script = script_of(command)
    for package in NEEDS.get(script, "").split():
        pytest.importorskip(package)
    if NEEDS.get(script) == "graphviz" and not shutil.which("dot"):
        pytest.skip("without Graphviz's program dot its source is written: tests/test_draw.py")
    if script == "export_c.py" and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler")
    done = run(command, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert same_output(entries()[command], done.stdout.splitlines()), done.stdout

    written = [path.name for path in tmp_path.iterdir()]
    assert written == ([WRITES[script]] if script in WRITES else [])
    for name in written:
        content = (tmp_path / name).read_bytes()
        assert content.startswith(b"\x89PNG") and len(content) > 10_000 if name.endswith(".png") else b"<svg" in content


def test_each_script_has_an_entry():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == {script_of(command) for command in entries()} - {"checks.py"} | HELPERS
    text = (EXAMPLES / "README.md").read_text("utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert set(headings) == scripts - HELPERS | {"Notebooks", "micrograd/"} and len(headings) == len(set(headings))
    for name in HELPERS:
        assert f"`{name}`" in text


def test_each_script_says_how_to_run_it():
    for path in EXAMPLES.glob("*.py"):
        if path.name not in HELPERS:
            source = path.read_text("utf-8")
            assert source.startswith('"""') and f"\n    python examples/{path.name}" in source
            # Short, and imported without doing anything.
            if path.name not in {"expression.py", "scalar_gpt.py"} and not path.name.startswith("draw_"):
                assert source.count("\n") < 80 and source.endswith('if __name__ == "__main__":\n    main()\n')


@pytest.mark.parametrize("expected, got, same", [
    ("loss 0.911  accuracy 50%", "loss 0.912   accuracy 50%", True),
    ("loss 0.911  accuracy 50%", "loss 0.931  accuracy 50%", False),
    ("loss 0.911  accuracy 50%", "loss 0.911  accuracy 53%", False),
    ("8 of 8 right", "7 of 8 right", False),
    ("8 of 8 right", "8.0 of 8 right", False),
    ("prediction  1.000", "prediction -1.000", False),
    ("loss 0.000005", "loss 0.000006", True),
    ("loss 0.000005", "loss 0.000050", False),
    ("300 epochs in 1.4 s", "300 epochs in 22.0 s", True),
    ("300 epochs in 1.4 s", "301 epochs in 1.4 s", False),
    ("test accuracy 97.6%", "test accuracy 97.6", False),
    ("a ... b", "a long b", True),
    ("a ... b", "a long c", False),
    ("  |..::..|", "  |..:...|", True),
    ("  |..::..|", "  |......#|", False),
    ("  |..::..|", "  |..::...|", False),
    ("one\n...\nfour", "one\ntwo\nthree\nfour", True),
    ("one\n...\nfour", "one\ntwo\nthree", False),
    ("one\ntwo", "one", False),
    ("one", "one\ntwo", False),
    ("wrote a.png", "wrote b.png", False),
])
def test_the_comparison_tells_outputs_apart(expected, got, same):
    assert same_output(expected.split("\n"), got.split("\n")) is same


def load(name):
    """A script as a module; it has to do nothing yet."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_csv_file_is_what_the_script_writes(tmp_path):
    load("moons_text").write_csv(tmp_path / "moons.csv")
    written = (tmp_path / "moons.csv").read_text("utf-8")
    assert written == (EXAMPLES / "make_moons.csv").read_text("utf-8")
    assert written.splitlines()[0] == "x,y,label" and written.count("\n") == 101


def test_moons_of_another_file(tmp_path):
    (tmp_path / "points.csv").write_text("x,y,label\n0,0,-1\n0.1,0,-1\n2,1,1\n2,1.1,1\n", "utf-8")
    done = run("examples/moons_text.py points.csv", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 samples, 337 parameters\n") and "step 99  loss 0.0" in done.stdout


@pytest.mark.parametrize("script, module, package, purpose", [
    ("digits", "sklearn", "scikit-learn", "its data"),
    ("moons_png", "matplotlib", "matplotlib", "the picture"),
    ("newton_rosenbrock", "scipy", "scipy", "its method"), ("scipy_fit", "scipy", "scipy", "its methods"),
    *[(name, "matplotlib", "matplotlib", "the picture")
       for name in ("sine", "newton_rosenbrock", "oscillator", "curvature", "catenary")],
    *[(f"draw_{what}", "graphviz", "graphviz", "the picture") for what in ("expression", "neuron", "mlp")],
])
def test_without_a_package_an_example_says_what_is_missing(script, module, package, purpose, tmp_path, monkeypatch):
    for other in NEEDS.get(f"{script}.py", "").split():
        if other != module:
            pytest.importorskip(other)   # or that is what the script tells of
    (tmp_path / f"{module}.py").write_text(f'raise ModuleNotFoundError("No module named {module!r}", name="{module}")')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    done = run(f"examples/{script}.py", tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (f"{script}.py needs {package}, for {purpose}: No module named '{module}'; to install it: "
                           f"pip install {package}\n")


def test_the_gradient_of_the_simulation_is_that_of_finite_differences():
    """Through the integrator and its branches, for each constant, on both sides of the stop."""
    from flatgrad import Value

    spring = load("spring")
    constants = [Value(number) for number in spring.TRUE]
    positions = spring.simulate(constants)
    assert min(x.data for x in positions) < 0.0 and max(x.data for x in positions) > spring.STOP_AT
    sum((x * x for x in positions), Value(0.0)).backward()
    for k, number in enumerate(spring.TRUE):
        h = 1e-6 * number
        ends = [sum(x * x for x in spring.simulate([*spring.TRUE[:k], number + d, *spring.TRUE[k + 1:]]))
                for d in (h, -h)]
        assert constants[k].grad == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5)


def test_the_compiled_pendulum_is_the_plain_one_and_its_gradient_that_of_finite_differences():
    import flatgrad

    ode = load("ode")

    def loss(constants):
        return (ode.simulate(constants) ** 2).mean()
    plain, compiled = [flatgrad.value_and_grad(f)(ode.TRUE) for f in (loss, flatgrad.compile(loss))]
    assert compiled[0] == pytest.approx(plain[0], rel=1e-12) and compiled[1] == pytest.approx(plain[1], rel=1e-9)
    for k, number in enumerate(ode.TRUE):
        h = 1e-6 * number
        ends = [loss([*ode.TRUE[:k], number + d, *ode.TRUE[k + 1:]]).data for d in (h, -h)]
        assert compiled[1][k] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5)


def test_the_residual_of_the_oscillator_is_that_of_finite_differences():
    """And of the exact solution it is 0."""
    import numpy as np
    from flatgrad import Tensor
    from flatgrad.nn import MLP

    oscillator = load("oscillator")
    d, w, h = oscillator.D, oscillator.W, 1e-3

    def left_side(u, t):
        before, now, after = u(t - h), u(t), u(t + h)
        return (after - 2 * now + before) / h**2 + d * w * (after - before) / h + w**2 * now
    t = np.linspace(0.5, 7.0, 9)
    assert left_side(oscillator.exact, t) == pytest.approx(np.zeros(9), abs=1e-5)
    assert oscillator.exact(np.array([0.0, h]))[:2] == pytest.approx([1.0, 1.0 - w**2 * h**2 / 2], abs=1e-8)
    random.seed(3)
    model = MLP(1, [5, 1], activation="tanh")

    def u(t):
        return oscillator.solution(model, Tensor(t[:, None])).data[:, 0]
    assert oscillator.residual(model, Tensor(t[:, None])).data[:, 0] == pytest.approx(left_side(u, t), abs=1e-5)


def test_the_film_converges_as_newtons_method_and_as_the_polygon():
    import numpy as np

    catenary = load("catenary")
    distances = []
    for sides in 20, 40:
        heights, _, gradient = list(catenary.newton(catenary.area_of(sides), np.full(sides - 1, np.cosh(1.0)), 9))[-1]
        assert np.abs(gradient).max() < 1e-12
        distances.append(np.abs(heights - np.cosh(np.linspace(-1.0, 1.0, sides + 1)[1:-1])).max())
    assert distances[0] / distances[1] == pytest.approx(4.0, rel=0.01)


def test_the_curvatures_are_those_of_differences_of_gradients():
    import flatgrad
    import numpy as np
    from flatgrad.nn import MLP

    curvature = load("curvature")
    random.seed(3)
    model = MLP(2, [3, 1], activation="tanh")
    rng = np.random.default_rng(0)
    loss = curvature.loss_of(model, rng.normal(size=(7, 2)), np.array([0, 1, 0, 1, 1, 0, 1]))
    parameters, rows, h = model.parameters(), [], 1e-5
    gradient = flatgrad.grad(loss, parameters=parameters)
    for p in parameters:
        x, ends = p.data, []
        for p.data in (x + h, x - h):
            ends.append(gradient())
        p.data = x
        rows.append((ends[0] - ends[1]) / (2 * h))
    assert curvature.eigenvalues(loss, model) == pytest.approx(np.linalg.eigvalsh(rows), abs=1e-7)


def test_compiled_examples_train_alike(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    moons, gpt = load("compiled_moons"), load("compiled_gpt")
    X, y = moons.make_moons(20, noise=0.1, random_state=0)
    plain, compiled = [moons.train(X.tolist(), (2 * y - 1).tolist(), way)[0] for way in (False, True)]
    assert [k for pair in compiled[:20] for k in pair] == pytest.approx([k for pair in plain[:20] for k in pair])

    monkeypatch.setattr(gpt, "STEPS", 12)
    documents, letters = gpt.data()
    losses = [gpt.train(kind, documents[:4], len(letters) + 1)[1] for kind in (gpt.scalar_gpt.GPT, gpt.GPT)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-9) and len(set(losses[0])) == 12


SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name not in HELPERS)


# Runs a script with several arguments, one after the other, in one process; prints code, output and errors of each.
ASK = """
import contextlib, io, json, os, runpy, sys
script, *several = sys.argv[1:]
sys.path[0], answers = os.path.dirname(script), []
for arguments in several:
    sys.argv[:] = [script, *arguments.split()]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            runpy.run_path(script, run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
    answers.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_answers_help_and_takes_no_arguments_that_it_does_not_know(script, tmp_path):
    docstring = (EXAMPLES / script).read_text("utf-8").split('"""')[1]
    done = subprocess.run([sys.executable, "-W", "error", "-c", ASK, str(EXAMPLES / script), "--help", "--stpes 3", "a.xyz more"],
                          cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    (code, printed, errors), *several = json.loads(done.stdout)
    assert (code, errors) == (0, "") and printed.startswith(f"usage: {script} [-h]")
    if script != "scalar_gpt.py":   # which has options to speak of
        assert " ".join(docstring.split()) in " ".join(printed.split())
    for code, printed, errors in several:
        assert code == 2 and printed == ""
        assert errors.splitlines()[-1].startswith(f"{script}: error: unrecognized arguments: ")
    assert len(several) == 2 and not list(tmp_path.iterdir())
