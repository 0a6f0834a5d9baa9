"""The benchmarks run, say what they should, and refuse to time what is wrong.

Nothing here asserts a speed: a test must not depend on what else the machine does.
"""
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "bench" / "__main__.py").exists(),
                                reason="bench/ is not part of an installed package")


def run(*command):
    """Python with these arguments, in the repository's root; what it printed, as text."""
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True,
                          timeout=300)


def bench(*arguments):
    return run("-m", "bench", *arguments)


def patched(patch, *arguments):
    """The benchmarks, after the lines `patch` have changed something in them."""
    return run("-c", f"import sys\nfrom bench import runner, workloads\n{patch}\n"
                     f"from bench.__main__ import main\nsys.exit(main({list(arguments)!r}))")


def test_quick_run_writes_table_and_json(tmp_path):
    file = tmp_path / "figures.json"
    process = bench("--quick", "--json", str(file), "--only", "chain", "chain-backward")
    assert process.returncode == 0, process.stderr
    assert "flatgrad / float" in process.stdout and "backward / forward" in process.stdout
    figures = json.loads(file.read_text())

    assert figures["quick"] is True and figures["garbage_collector"] is True
    assert figures["machine"].keys() == {"cpu", "cores", "usable_cores", "os"}
    assert {"python", "flatgrad", "micrograd", "numpy"} <= figures["versions"].keys()
    assert figures["versions"]["flatgrad"] and figures["isa"] and figures["date"]
    assert figures["threads"]["OMP_NUM_THREADS"]
    rows = {(row["case"], row["label"]): row for row in figures["rows"]}
    assert {name for name, _ in rows} == {"chain", "chain-backward"}
    row = rows["chain", "flatgrad / float"]
    assert row["target"] == "<= 1.6" and row["unit"] == "times"
    assert isinstance(row["met"], bool)
    assert len(row["rounds"]) == figures["processes"] * figures["rounds"]
    assert row["low"] <= row["value"] <= row["high"]
    assert row["seconds"].keys() == {"flatgrad", "float"}
    assert all(len(times) == len(row["rounds"]) for times in row["seconds"].values())


def test_rounds_of_several_processes_come_together(tmp_path):
    file = tmp_path / "figures.json"
    process = bench("--quick", "--processes", "2", "--rounds", "2", "--json", str(file),
                    "--only", "chain-backward")
    assert process.returncode == 0, process.stderr
    rows = json.loads(file.read_text())["rows"]
    assert [len(row["rounds"]) for row in rows] == [4] * len(rows)


def test_wrong_derivative_is_caught():
    process = patched("right = workloads.chain_gradients\n"
                      "def wrong(n):\n"
                      "    return {**right(n), 'a.grad': 1.001 * right(n)['a.grad']}\n"
                      "workloads.chain_gradients = wrong", "--quick", "--only", "chain")
    assert process.returncode == 1
    assert "a.grad" in process.stderr and len(process.stderr.splitlines()) == 1
    ours, wrong = map(float, re.findall(r"gives ([0-9.e+-]+)", process.stderr))
    assert abs(wrong / ours - 1.001) < 1e-6


def test_verify_compares_every_number():
    process = run("-c", """
from bench.runner import Contender, Mismatch, Session
session = Session(quick=True, rounds=1)
def contender(name, **results):
    return Contender(name, None, lambda: results)
one = contender("one", value=1.0, grad=2.0)
session.verify(one, contender("two", value=1.0, grad=2.0 + 1e-13), tolerance=1e-12)
for other in (contender("two", value=1.0, grad=2.002), contender("two", value=1.0),
              contender("two", value=1.0, grad=float("nan"))):
    try:
        session.verify(one, other, tolerance=1e-12)
    except Mismatch as mismatch:
        assert "one" in str(mismatch) and "two" in str(mismatch)
    else:
        raise AssertionError("a difference went by")
try:
    session.verify(one, contender("two", value=1.0 + 1e-15, grad=2.0), tolerance=1, exact=["value"])
except Mismatch:
    pass
else:
    raise AssertionError("a difference in the last bit went by")
""")
    assert process.returncode == 0, process.stderr


def test_missed_target_fails_only_if_strict():
    harder = "import bench.cases\nbench.cases.at_most = lambda bound: runner.at_most(0.0)"
    command = ["--quick", "--rounds", "1", "--only", "chain-backward"]
    process = patched(harder, *command)
    assert process.returncode == 0, process.stderr
    assert "MISSED" in process.stdout
    assert patched(harder, *command, "--strict").returncode == 1


def test_unknown_case_names_the_known_ones():
    process = bench("--only", "chian")
    assert process.returncode == 2
    assert "chian" in process.stderr and "chain-backward" in process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_unwritable_json_is_refused_before_measuring(tmp_path):
    process = bench("--json", str(tmp_path / "missing" / "figures.json"))
    assert process.returncode == 2
    assert "--json" in process.stderr and len(process.stderr.splitlines()) == 1


def test_without_micrograd_its_cases_are_skipped():
    hidden = "sys.modules['micrograd'] = None"
    process = patched(hidden, "--quick", "--rounds", "1", "--only", "chain")
    assert process.returncode == 0, process.stderr
    assert "flatgrad / float" in process.stdout
    assert "pip install micrograd" in process.stdout
    process = patched(hidden, "--quick", "--only", "readme")
    assert process.returncode == 2
    assert "pip install micrograd" in process.stderr


HIDDEN = "sys.modules['torch'] = sys.modules['jax'] = None"   # quick, and the same everywhere


def test_contenders_with_different_units_are_compared_by_one():
    process = run("-c", """
from bench.runner import Contender, Session
session = Session(quick=True, rounds=3)
slow = Contender("slow", lambda repeats: 10.0 * repeats, None, units=5)    # 2 seconds for one
fast = Contender("fast", lambda repeats: 50.0 * repeats, None, units=100)  # half a second
session.compare(slow, fast, work="here", per="step")
[row] = session.rows
assert row.rounds == [4.0] * 3 and row.label == "slow / fast, here" and row.per == "step", row
assert row.times == {"slow": [2.0] * 3, "fast": [0.5] * 3}, row
""")
    assert process.returncode == 0, process.stderr


def test_peers_quick_run_writes_grid_and_json(tmp_path):
    file = tmp_path / "figures.json"
    process = patched(HIDDEN, "--peers", "--quick", "--json", str(file), "--only", "readme", "xor")
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    [head] = [line for line in lines if line.split()[:2] == ["flatgrad", "per"]]
    assert head.split() == ["flatgrad", "per", "micrograd", "numpy"]
    [readme] = [line for line in lines if line.startswith("readme ")]
    assert readme.split()[-1] == "-" and " expression " in readme
    for name in "torch", "torch compiled", "jax", "jax scan":
        package = name.split()[0]
        assert (f"skipped: xor ({name} / flatgrad): {package} is not installed: pip install {package}"
                in process.stdout)
    rows = json.loads(file.read_text())["rows"]
    assert [(row["case"], row["label"]) for row in rows] == [
        ("readme", "micrograd / flatgrad"), ("xor", "micrograd / flatgrad"),
        ("xor", "numpy / flatgrad")]
    assert all(row["seconds"].keys() == set(row["label"].split(" / ")) for row in rows)


def test_fits_quick_run_against_loops_of_our_own_and_of_torch(tmp_path):
    file = tmp_path / "figures.json"
    process = bench("--peers", "--quick", "--json", str(file), "--only", "fit-moons", "fit-digits")
    assert process.returncode == 0, process.stderr
    rows = json.loads(file.read_text())["rows"]
    torch = ["torch"] if importlib.util.find_spec("torch") else []
    assert [(row["case"], row["label"], row["per"]) for row in rows] == [
        (case, f"{name} / flatgrad", "epoch") for case in ("fit-moons", "fit-digits")
        for name in ["flatgrad loop", *torch]]
    [head] = [line for line in process.stdout.splitlines() if line.split()[:1] == ["flatgrad"]]
    assert head.split("per")[1].split() == [*torch, "flatgrad", "loop"]
    assert torch or "skipped: fit-digits (torch / flatgrad): torch is not" in process.stdout


@pytest.mark.parametrize("case", ["fit-moons", "fit-digits"])
def test_fits_that_compute_something_else_are_caught(case):
    process = patched(f"""{HIDDEN}
from dataclasses import replace
from bench import peers
right = peers.loop_trainer
peers.FITTERS["flatgrad loop"] = lambda problem: right(replace(
    problem, rates=[1.001 * rate for rate in problem.rates]))""", "--peers", "--quick", "--only",
                      case)
    assert process.returncode == 1
    assert "flatgrad loop gives" in process.stderr and len(process.stderr.splitlines()) == 1


def test_every_fit_is_the_same_in_every_loop():
    """Batches that do not come out even, and one of all samples, with both optimizers."""
    process = run("-c", """
import numpy as np
from bench import peers, workloads
from bench.runner import Session
session = Session(quick=True, rounds=1)
rng = np.random.default_rng(0)
X = rng.normal(size=(11, 3))
signs, labels = np.where(rng.random(11) < 0.5, -1, 1), rng.integers(0, 4, 11)
for loss, sizes, y in ("hinge", (3, 5, 1), signs), ("cross_entropy", (3, 5, 4), labels):
    for optimizer in "SGD", "Adam":
        for batch_size in None, 4, 11:
            problem = workloads.Fit(
                sizes, "tanh", "linear", X, y, loss, 0.01, [0.05] * 3,
                workloads.drawn(sizes, scaled=True), optimizer, batch_size, seed=7)
            ours = peers.contender(peers.fit_trainer(problem), 3, 3)
            assert len(ours.results()) == 3 + len(problem.initial)
            for name, make in peers.FITTERS.items():
                if name == "flatgrad loop" or session.has(name):
                    session.verify(ours, peers.contender(make(problem), 3, 3), tolerance=1e-11)
""")
    assert process.returncode == 0, process.stderr


def test_peers_in_processes_of_their_own_as_markdown():
    process = bench("--peers", "--quick", "--processes", "2", "--rounds", "1", "--markdown",
                    "--only", "readme")   # the cheapest
    assert process.returncode == 0, process.stderr
    lines = iter(process.stdout.splitlines())
    head = next(line for line in lines if line.startswith("|  | flatgrad | per | micrograd |"))
    others = head.count("|") - 5   # torch and jax, where they are installed
    assert next(lines) == "| --- | ---: | --- |" + " ---: |" * (1 + others)
    assert re.fullmatch(r"\| readme \| [\d.,]+ [mun]s \| expression "
                        r"\|( [\d.,]+ \([\d.,]+-[\d.,]+\) \|){%d}" % (1 + others), next(lines))


def test_peers_that_compute_something_else_are_caught():
    process = patched(f"""{HIDDEN}
from dataclasses import replace
from bench import peers
def wrong(problem):
    return peers.numpy_trainer(replace(problem, rates=[1.001 * rate for rate in problem.rates]))
peers.TRAINERS["numpy"] = wrong""", "--peers", "--quick", "--only", "xor")
    assert process.returncode == 1
    assert "numpy gives" in process.stderr and "flatgrad gives" in process.stderr
    assert len(process.stderr.splitlines()) == 1


def test_every_training_is_the_same_in_every_library():
    """Of those installed, NumPy at the least; on problems that differ from the ones timed."""
    process = run("-c", """
import numpy as np
from bench import peers, workloads
from bench.runner import Session, own_copy
session = Session(quick=True, rounds=1)
rng = np.random.default_rng(0)
X = rng.normal(size=(7, 3))
signs, labels = np.where(rng.random(7) < 0.5, -1, 1), rng.integers(0, 4, 7)
for loss, sizes, y in (("hinge", (3, 5, 1), signs), ("mse", (3, 5, 4, 1), signs),
                       ("cross_entropy", (3, 5, 4), labels)):
    for inner, outer in ("relu", "linear"), ("tanh", "linear"), ("tanh", "tanh"):
        initial = workloads.drawn(sizes, scaled=True)
        problem = workloads.Problem(sizes, inner, outer, X, y, loss, 0.01, [0.1, 0.05, 0.2],
                                    initial)
        assert (problem.flat(problem.layers()) == initial).all()
        ours = peers.contender(peers.flatgrad_trainer(problem), 1, 3)
        assert len(ours.results()) == 3 + len(initial)
        for name in "torch", "jax", "jax scan", "numpy":
            if session.has(peers.PACKAGES.get(name, name)):
                trainer = own_copy(peers.TRAINERS[name])(problem)
                theirs = peers.contender(trainer, 1, 3)
                session.verify(ours, theirs, tolerance=1e-11)
""")
    assert process.returncode == 0, process.stderr


def test_grid_shows_misses_notes_and_what_is_no_ratio():
    process = run("-c", """
from bench import report
from bench.runner import Row, Session, at_least
session = Session(quick=True, rounds=2)
session.rows = [
    Row("xor", "torch / flatgrad", "times", at_least(20), [18.0, 20.0],
        {"torch": [18e-6, 20e-6], "flatgrad": [1e-6, 1e-6]}, "step", ""),
    Row("xor", "jax / flatgrad", "times", None, [0.5], {"jax": [1e-6], "flatgrad": [2e-6]}, "step",
        "a | remark")]
session.case = "memory"
session.record("bytes per value", 17.5, "bytes", note="of a batch")
session.skip("", "no room")
print(report.grid(session, report.markdown))
""")
    assert process.returncode == 0, process.stderr
    assert "| xor | 1.00 us | step | 19.0 (18.2-19.8) MISSED | 0.50 |" in process.stdout
    assert "; jax: a | remark; target: torch / flatgrad >= 20, MISSED" in process.stdout
    assert "| bytes per value | 17.5 | bytes | of a batch |" in process.stdout
    assert process.stdout.endswith("\n- skipped: memory: no room\n")


def test_torch_compiled_needs_a_compiler():
    process = run("-c", """
import os, shutil
from bench import peers
os.environ.pop("CXX", None)
shutil.which = lambda name: None
assert "g++" in peers.compiler_missing()
shutil.which = lambda name: name
assert peers.compiler_missing() is None
os.environ["CXX"] = "ccache c++"
shutil.which = lambda name: name if name == "ccache" else None
assert peers.compiler_missing() is None
""")
    assert process.returncode == 0, process.stderr


def test_peers_list_and_what_does_not_go_together():
    process = bench("--peers", "--list")
    assert process.returncode == 0
    assert {"readme", "chain", "moons-demo", "moons", "digits", "xor", "fit-moons", "fit-digits",
            "gpt", "memory"} == {line.split()[0] for line in process.stdout.splitlines()}
    process = bench("--peers", "--only", "big-chain")
    assert process.returncode == 2 and "big-chain" in process.stderr and "xor" in process.stderr
    assert bench("--peers", "--instructions").returncode == 2


# ---- compiled functions against C by hand ----

def programs(*arguments, patch=HIDDEN, **environment):
    """The suite with a patch, in an environment that is changed."""
    command = (f"import os, sys\nos.environ.update({environment!r})\n{patch}\n"
               f"from bench.__main__ import main\nsys.exit(main({['--programs', '--quick', *arguments]!r}))")
    return run("-c", command)


def test_programs_list():
    process = bench("--programs", "--list")
    assert process.returncode == 0
    assert [line.split()[0] for line in process.stdout.splitlines()] == [
        "moons-step", "moons-loop", "xor-epoch", "xor-loop", "mlp", "mlp-loop", "gpt-document", "gpt-batch",
        "pendulum-euler", "pendulum-rk4", "recording", "float32", "products"]
    assert bench("--programs", "--peers").returncode == 2


def test_programs_quick_run_has_goals_beside_its_figures(tmp_path):
    file = tmp_path / "figures.json"
    process = programs("--rounds", "1", "--json", str(file))
    assert process.returncode == 0, process.stderr
    assert "skipped: xor-loop (jax fori_loop / " in process.stdout
    figures = json.loads(file.read_text())
    rows = {(row["case"], row["label"]): row for row in figures["rows"]}
    with_c = {case for case, label in rows if label.endswith(" / C")}
    skipped = {skip["case"] for skip in figures["skipped"] if skip["label"].endswith(" / C")}
    assert with_c | skipped == {"moons-step", "moons-loop", "xor-epoch", "xor-loop", "gpt-batch", "pendulum-euler",
                                "pendulum-rk4"} and not with_c & skipped
    assert all(rows[case, "flatgrad / compiled"]["unit"] == "times" for case in ("moons-step", "gpt-document"))
    assert rows["recording", "record and lay out"]["target"] == "<= 100"
    assert rows["pendulum-euler", "first call"]["unit"] == "ms"


@pytest.mark.parametrize("isa", ["avx512", "avx2", "neon", "baseline"])
@pytest.mark.parametrize("compiler", ["gcc", pytest.param("clang", marks=pytest.mark.slow)])
def test_what_is_written_by_hand_computes_what_flatgrad_does(isa, compiler):
    """In lanes of every width: eight, four and two."""
    if not shutil.which(compiler):
        pytest.skip(f"without {compiler}")
    process = run("-c", f"""
import os
os.environ["CC"], os.environ["FLATGRAD_ISA"] = {compiler!r}, {isa!r}
from dataclasses import replace
from bench import byhand, peers, ways, workloads
from bench.runner import Session
try:
    import flatgrad
except ImportError as error:
    raise SystemExit(3 if "FLATGRAD_ISA" in str(error) else 4)   # this processor has no such instructions
byhand.FLAGS += ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wno-psabi", "-Werror"]
session = Session(quick=True, rounds=1)
assert byhand.compiler_missing() is None, byhand.compiler_missing()
for problem in workloads.moons_problem(), workloads.xor_problem():
    problem = replace(problem, rates=problem.rates[:10])
    session.verify(*(peers.contender(make(problem), 1, 10) for make in (peers.flatgrad_trainer, byhand.mlp_trainer)),
                   tolerance=1e-11)
problem = workloads.names_problem(16, 3)
session.verify(*(peers.contender(make(problem), 1, 3) for make in (ways.names_trainer, byhand.names_trainer)),
               tolerance=1e-11)
for method in "euler", "rk4":
    task = workloads.pendulums(method, 37, 100)   # not a multiple of the lanes
    session.verify(ways.pendulums_one_by_one(task), byhand.pendulum_contender(task), tolerance=1e-11)
""")
    if process.returncode == 3:
        pytest.skip(f"this processor has no {isa}")
    assert process.returncode == 0, process.stderr


def test_without_a_c_compiler_its_contenders_are_skipped(tmp_path):
    process = programs("--rounds", "1", "--only", "xor-epoch", CC=str(tmp_path / "no-cc"))
    assert process.returncode == 0, process.stderr
    assert f"skipped: xor-epoch (compiled / C): no C compiler ({tmp_path / 'no-cc'})" in process.stdout
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    broken.chmod(0o755)
    process = programs("--rounds", "1", "--only", "xor-epoch", CC=str(broken))
    assert process.returncode == 0, process.stderr
    assert "skipped: xor-epoch (compiled / C): xor.c: out of order" in process.stdout


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="without a C compiler")
def test_c_that_computes_something_else_is_caught():
    process = programs("--rounds", "1", "--only", "xor-epoch", patch=HIDDEN + """
from dataclasses import replace
from bench import byhand
right = byhand.mlp_trainer
byhand.mlp_trainer = lambda problem: right(replace(problem, rates=[1.001 * rate for rate in problem.rates]))""")
    assert process.returncode == 1
    assert "C gives" in process.stderr and "flatgrad gives" in process.stderr
    assert len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize("package", ["torch", "jax"])
def test_other_libraries_compute_what_flatgrad_does_in_programs(package):
    pytest.importorskip(package)
    process = run("-c", f"""
from bench import peers, program_peers, ways, workloads
from bench.runner import Session
session = Session(quick=True, rounds=1)
problem = workloads.names_problem(2, 2)
ours = peers.contender(ways.names_trainer(problem), 1, 2)
for make in {{"torch": [program_peers.torch_names_trainer],
             "jax": [program_peers.jax_names_trainer, program_peers.jax_names_scan_trainer]}}[{package!r}]:
    session.verify(ours, peers.contender(make(problem), 1, 2), tolerance=1e-9)
task = workloads.pendulums("rk4", 16, 20)
made = program_peers.{package}_pendulum_contender(task)
session.verify(ways.pendulums_one_by_one(task), made[0] if isinstance(made, tuple) else made, tolerance=1e-9)
""")
    assert process.returncode == 0, process.stderr


# ---- derivatives of derivatives ----

def derivatives(*arguments, patch=HIDDEN):
    """The suite with a patch."""
    return run("-c", f"import sys\n{patch}\nfrom bench.__main__ import main\n"
                     f"sys.exit(main({['--derivatives', '--quick', '--rounds', '1', *arguments]!r}))")


def test_derivatives_list():
    process = bench("--derivatives", "--list")
    assert process.returncode == 0
    assert [line.split()[0] for line in process.stdout.splitlines()] == ["physics", "rosenbrock", "hessian",
                                                                         "create-graph"]
    assert bench("--derivatives", "--programs").returncode == 2


def test_derivatives_quick_run_has_goals_and_skips_what_is_not_installed(tmp_path):
    file = tmp_path / "figures.json"
    process = derivatives("--json", str(file))
    assert process.returncode == 0, process.stderr
    assert "skipped: physics (torch / flatgrad): torch is not installed" in process.stdout
    assert "skipped: rosenbrock (jax / compiled): jax is not installed" in process.stdout
    rows = {(row["case"], row["label"]): row for row in json.loads(file.read_text())["rows"]}
    assert {case for case, _ in rows} == {"physics", "rosenbrock", "hessian", "create-graph"}
    assert rows["physics", "flatgrad / compiled"]["unit"] == "times"
    for name in "chain", "batch":
        row = rows["create-graph", f"{name}: both / graph"]
        assert row["target"] == "<= 4" and row["value"] > 1.0


@pytest.mark.parametrize("case, patch", [
    ("rosenbrock", "right = workloads.rosenbrock_hessian\nworkloads.rosenbrock_hessian = lambda x: 1.001 * right(x)"),
    ("physics", """
from bench import derivative_ways
right = derivative_ways.physics_loss
def wrong(problem, model, mapped=False):
    loss = right(problem, model, mapped)
    return (lambda X: 1.001 * loss(X)) if mapped else loss
derivative_ways.physics_loss = wrong"""),
])
def test_derivatives_that_are_wrong_are_caught(case, patch):
    process = derivatives("--only", case, patch=f"{HIDDEN}\nfrom bench import workloads\n{patch}")
    assert process.returncode == 1
    assert f"{case}: " in process.stderr and len(process.stderr.splitlines()) == 1


@pytest.mark.parametrize("package", ["torch", "jax"])
def test_other_libraries_compute_the_derivatives_that_flatgrad_does(package):
    pytest.importorskip(package)
    process = run("-c", f"""
import numpy as np
from bench import derivative_peers, derivative_ways, workloads
from bench.runner import Session
session = Session(quick=True, rounds=1)

def check(kind, ours, *arguments):
    made = getattr(derivative_peers, f"{package}_{{kind}}_contender")(*arguments)
    session.verify(ours, made[0] if isinstance(made, tuple) else made, tolerance=1e-10)
problem = workloads.physics_problem()
check("physics", derivative_ways.flatgrad_physics(problem), problem)
f, x = workloads.rosenbrock, np.array([0.3, -0.7, 1.1, 0.9])
check("rosenbrock", derivative_ways.flatgrad_hessian("flatgrad", f, x), f, x)
problem = workloads.smooth_moons_problem(10)
check("hessian", derivative_ways.flatgrad_hessian("flatgrad", derivative_ways.by_vector(problem), problem.initial),
      problem)
""")
    assert process.returncode == 0, process.stderr


# ---- several workers ----

def parallel(*arguments, patch):
    """The suite with a patch."""
    return run("-c", f"import sys\n{patch}\nfrom bench.__main__ import main\n"
                     f"sys.exit(main({['--parallel', '--quick', '--rounds', '1', *arguments]!r}))")


HIDDEN_ENGINES = "sys.modules['joblib'] = sys.modules['distributed'] = None"


def test_parallel_list():
    process = bench("--parallel", "--list")
    assert process.returncode == 0
    assert [line.split()[0] for line in process.stdout.splitlines()] == ["overhead", "tasks", "moons", "pictures"]


def test_parallel_quick_run_skips_what_is_not_installed(tmp_path):
    file = tmp_path / "figures.json"
    process = parallel("--json", str(file), "--only", "overhead", "moons", patch=HIDDEN_ENGINES)
    assert process.returncode == 0, process.stderr
    assert "skipped: moons (joblib): joblib is not installed: pip install 'flatgrad[cluster]'" in process.stdout
    rows = {(row["case"], row["label"]): row for row in json.loads(file.read_text())["rows"]}
    assert rows["overhead", "threads 2"]["unit"] == "ms a step" and rows["overhead", "processes 2"]["value"] > 0.0
    assert rows["moons", "one process / threads 2, 400 samples"]["unit"] == "times"
    assert 2 * 8 * 337 < rows["moons", "bytes of a step"]["value"] < 2 * 8 * 337 + 1000   # parameters and gradient


def test_a_wrong_gradient_of_workers_is_caught():
    process = parallel("--only", "moons", patch=f"""{HIDDEN_ENGINES}
import contextlib
from bench import parallel
engines = parallel.engines()
right = engines.by_threads
@contextlib.contextmanager
def wrong(load, workers):
    with right(load, workers) as gradients:
        yield lambda theta, step: [(n, loss, 1.001 * gradient) for n, loss, gradient in gradients(theta, step)]
engines.by_threads = wrong""")
    assert process.returncode == 1
    assert "threads 2 gives" in process.stderr and len(process.stderr.splitlines()) == 1


def test_list_and_instructions_without_a_tool():
    process = bench("--list")
    assert process.returncode == 0
    assert len(process.stdout.splitlines()) >= 7
    process = patched("import shutil\nshutil.which = lambda name: None", "--instructions")
    assert process.returncode == 2
    assert "valgrind" in process.stderr and len(process.stderr.splitlines()) == 1


# ---- exports ----

def exports(*arguments, patch=HIDDEN):
    """The suite with a patch."""
    return run("-c", f"import sys\n{patch}\nfrom bench.__main__ import main\n"
                     f"sys.exit(main({['--exports', '--quick', '--rounds', '1', *arguments]!r}))")


def test_exports_list():
    process = bench("--exports", "--list")
    assert process.returncode == 0
    assert [line.split()[0] for line in process.stdout.splitlines()] == ["moons", "xor", "gpt", "pendulum", "flat",
                                                                         "fit-moons", "fit-ode"]
    assert bench("--exports", "--programs").returncode == 2


def test_exports_quick_run_has_goals_and_skips_what_is_not_installed(tmp_path):
    file = tmp_path / "figures.json"
    process = exports("--only", "xor", "flat", "--json", str(file))
    assert process.returncode == 0, process.stderr
    assert "skipped: xor (to_jax / compiled): jax is not installed" in process.stdout
    rows = {(row["case"], row["label"]): row for row in json.loads(file.read_text())["rows"]}
    for compiler in filter(shutil.which, ("gcc", "clang")):
        assert rows["xor", f"C by {compiler} / loop"]["target"] == "<= 1.5"
    assert rows["flat", "pickle of f.flat"]["target"] == "<= 20000"


@pytest.mark.skipif(not shutil.which("gcc"), reason="there is no gcc")
def test_exports_that_are_wrong_are_caught():
    process = exports("--only", "xor", patch=f"""{HIDDEN}
from bench import export_ways
right = export_ways.library
export_ways.library = lambda source, *names: right(source.replace("losses[k] =", "losses[k] = 1.001 *"), *names)""")
    assert process.returncode == 1
    assert "xor: " in process.stderr and len(process.stderr.splitlines()) == 1
