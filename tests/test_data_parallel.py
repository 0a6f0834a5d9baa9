"""Data parallel training, examples/data_parallel.py: the same losses whoever computes the gradients, whoever is lost.

Each engine runs in a process of its own, with warnings as errors there and in its workers. When the test is over, all
of its processes are gone.
"""
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="examples/ is not part of an installed package")

ENGINES = ["threads", "processes", "joblib", "dask"]
TIMEOUT = 120   # seconds, of what takes some three

# What all processes import.
PROGRAMS = """\
import os, signal, sys, time
sys.path.insert(0, {examples!r})
import data_parallel


class Deadly:
    '''A program whose fifth call is the end of its process. A file counts the calls.'''

    def __init__(self, flat, file):
        self.flat, self.file = flat, file

    def __call__(self, theta, X, y):
        with open(self.file, "ab") as file:
            file.write(b".")
            calls = file.tell()
        if calls == 5:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        return self.flat(theta, X, y)


class Late:
    '''A program that takes its time.'''

    def __init__(self, flat, seconds):
        self.flat, self.seconds = flat, seconds

    def __call__(self, theta, X, y):
        time.sleep(self.seconds)
        return self.flat(theta, X, y)


def first_is_late(flat, k, workers):
    return Late(flat, 0.01 * (workers - k)), *data_parallel.load(None, k, workers)[1:]


def first_is_deadly(flat, file, k, workers):
    return Deadly(flat, file) if k == 0 else flat, *data_parallel.load(None, k, workers)[1:]
"""

# It prints, as JSON, the losses of one process, and what a test adds to `found`.
SCRIPT = """\
import contextlib, functools, json, os
from programs import data_parallel, first_is_deadly, first_is_late
import engines

data_parallel.STEPS = 25


def losses(engine, load, workers):
    with getattr(engines, "by_" + engine)(load, workers) as gradients:
        return list(data_parallel.train(flat.theta, gradients))


if __name__ == "__main__":
    flat = data_parallel.program(1)
    found = {{"alone": losses("this_process", functools.partial(data_parallel.load, flat), 1)}}
{body}
    print(json.dumps(found))
"""


def run(tmp_path, body):
    """What the script prints with these lines in it."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(body=textwrap.indent(textwrap.dedent(body), "    ")), "utf-8")
    (tmp_path / "programs.py").write_text(PROGRAMS.format(examples=str(EXAMPLES)), "utf-8")
    process = subprocess.Popen([sys.executable, "-W", "error", script], cwd=tmp_path, text=True, encoding="utf-8",
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    finally:
        if os.name != "nt":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
    assert process.returncode == 0 and (err == "" or "dask" in body), err   # Dask may log that it was stopped
    return json.loads(out)


def check_engine(engine):
    if engine == "joblib":
        pytest.importorskip("joblib")
    elif engine == "dask":
        pytest.importorskip("distributed")


def same(losses, expected):
    return len(losses) == len(expected) and np.allclose(losses, expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_losses_are_those_of_one_process(engine, tmp_path):
    """The last of 2 shards of 501 samples is shorter. The first of 3 comes last: the order of the sums remains."""
    check_engine(engine)
    found = run(tmp_path, f"""
        for workers in 1, 2, 3:
            flat = data_parallel.program(workers)
            load = functools.partial(first_is_late if workers == 3 else data_parallel.load, flat)
            found[workers] = losses({engine!r}, load, workers)
        found["in order"] = losses("this_process", functools.partial(data_parallel.load, flat), 3)
        """)
    assert found["alone"][-1] < 0.5 * found["alone"][0]
    assert found["1"] == found["alone"]
    assert same(found["2"], found["alone"])
    assert same(found["3"], found["alone"]) and found["3"] == found["in order"]


def calls_in(tmp_path):
    return (tmp_path / "calls").stat().st_size


def test_a_killed_worker_of_dask_loses_nothing(tmp_path):
    """It is killed while it computes: its shard is loaded again, and its step computed again."""
    pytest.importorskip("distributed")
    found = run(tmp_path, """
        flat = data_parallel.program(2)
        found["in order"] = losses("this_process", functools.partial(data_parallel.load, flat), 2)
        found["killed"] = losses("dask", functools.partial(first_is_deadly, flat, os.path.abspath("calls")), 2)
        """)
    assert calls_in(tmp_path) > len(found["killed"])
    assert found["killed"] == found["in order"] and same(found["killed"], found["alone"])


@pytest.mark.parametrize("engine, error", [("processes", "BrokenProcessPool"), ("joblib", "TerminatedWorkerError")])
def test_a_killed_worker_of_others_is_an_error_and_the_step_can_be_repeated(engine, error, tmp_path):
    check_engine(engine)
    found = run(tmp_path, f"""
        flat = data_parallel.program(2)
        found["in order"] = losses("this_process", functools.partial(data_parallel.load, flat), 2)
        load = functools.partial(first_is_deadly, flat, os.path.abspath("calls"))
        found["errors"] = []

        def gradients(theta, step):
            global divided
            try:
                return divided(theta, step)
            except Exception as error:
                found["errors"].append(type(error).__name__)
                stack.close()
                divided = stack.enter_context(engines.by_{engine}(load, 2))
                return divided(theta, step)

        with contextlib.ExitStack() as stack:
            divided = stack.enter_context(engines.by_{engine}(load, 2))
            found["killed"] = list(data_parallel.train(flat.theta, gradients))
        """)
    assert found["errors"] == [error] and calls_in(tmp_path) == len(found["killed"]) + 1
    assert found["killed"] == found["in order"]


@pytest.mark.parametrize("engine, package", [("joblib", "joblib"), ("dask", "dask")])
def test_without_the_package_the_script_says_what_to_install(engine, package, tmp_path):
    hidden = f"import runpy, sys; sys.modules[{package!r}] = None; sys.argv[1:] = ['--engine', {engine!r}]; "
    script = EXAMPLES / "data_parallel.py"
    done = subprocess.run([sys.executable, "-c", f"{hidden}sys.path.insert(0, {str(EXAMPLES)!r}); "
                           f"runpy.run_path({str(script)!r}, run_name='__main__')"],
                          cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("data_parallel.py: ") and package in done.stderr
    assert done.stderr.endswith("; to install it: pip install 'flatgrad[cluster]'\n")
