"""Counts the instructions of flatgrad's workloads with a tool from outside the process.

A count hardly depends on other programs on the machine, so two builds of flatgrad can be compared by a run with each.
Each workload runs twice, short and long. The difference of the counts, divided by the extra work, excludes start-up
and warm-up. `counts` compares with the counts that the repository keeps.
"""
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench import processes
from bench.workloads import WORK_ITERATIONS

__all__ = ["TOOLS", "WORKLOADS", "Count", "ToolMissing", "chosen_tool", "count"]


class ToolMissing(Exception):
    """The tool cannot count here; the message gives the reason and advice."""


@dataclass(frozen=True)
class Workload:
    """A workload, its numbers of repeats, and the amount of work in a repeat."""

    short: int        # repeats of the short run: enough for the warm-up
    long: int         # repeats of the long run; callgrind, slow and hardly noisy, adds only a tenth
    units: int        # the number of `per` in one repeat
    per: str
    less: str | None  # another workload whose count is part of this one's, and is subtracted


WORKLOADS = {
    "chain": Workload(5, 55, 2 * WORK_ITERATIONS, "operation", None),
    "chain-backward": Workload(5, 55, 2 * WORK_ITERATIONS, "operation", "chain"),
    "readme": Workload(2_000, 12_000, 1, "expression", None),
    "moons": Workload(3, 13, 1, "step", None),
    "moons-fused": Workload(3, 13, 100, "step", None),
    "fit-moons": Workload(3, 13, 100, "epoch", None),
    "fit-moons-loop": Workload(3, 13, 100, "epoch", None),
    "fit-digits": Workload(2, 6, 5 * 29, "batch", None),
    "fit-digits-loop": Workload(2, 6, 5 * 29, "batch", None),
    "physics": Workload(10, 60, 1, "step", None),
    "physics-compiled": Workload(10, 60, 1, "step", None),
    "rosenbrock": Workload(20, 220, 1, "Hessian", None),
    "rosenbrock-compiled": Workload(20, 1_020, 1, "Hessian", None),
}


@dataclass(frozen=True)
class Count:
    """The number of instructions for one of `per`."""

    workload: str
    instructions: float
    per: str


def perf(command, environment):
    """User-space instructions, from the processor's counter, read by Linux' ``perf stat``."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        run(["perf", "stat", "-x", ",", "-e", "instructions:u", "-o", str(report), "--", *command],
            environment)
        text = report.read_text() if report.exists() else ""
    counted = re.search(r"^(\d+),[^,]*,instructions", text, re.MULTILINE)
    if counted is None:
        raise ToolMissing("perf does not count instructions on this machine; "
                          "try --instructions callgrind")
    return int(counted.group(1))


def callgrind(command, environment):
    """Instructions in valgrind's simulation. Slow, but needs no hardware counters."""
    with tempfile.TemporaryDirectory() as folder:
        report = run(["valgrind", "--tool=callgrind",
                      f"--callgrind-out-file={Path(folder) / 'callgrind.out'}", *command],
                     environment)
    counted = re.search(r"Collected : (\d+)", report)
    if counted is None:
        raise ToolMissing(f"valgrind gave no count: {last_line(report)}")
    return int(counted.group(1))


TOOLS = {"perf": perf, "callgrind": callgrind}
PROGRAMS = {"perf": "perf", "callgrind": "valgrind"}


def run(command, environment):
    """Run a tool with a probe; returns the standard error of both."""
    process = subprocess.run(command, cwd=processes.ROOT, env=environment, capture_output=True,
                             text=True)
    if process.returncode != 0:
        raise ToolMissing(f"{command[0]} ended with status {process.returncode}: "
                          f"{last_line(process.stderr)}")
    return process.stderr


def last_line(text):
    """The last line of a program's output, which has the reason of a failure."""
    return (text.strip().splitlines() or ["no message"])[-1]


def chosen_tool(name):
    """The name of the tool to use: `name`, or for "auto" the first tool that works here.

    Raises
    ------
    ToolMissing
        If the tool is not installed, or does not work.
    """
    problems = []
    for tool in TOOLS if name == "auto" else [name]:
        if shutil.which(PROGRAMS[tool]) is None:
            problems.append(f"{PROGRAMS[tool]} is not installed")
        elif tool == "perf":   # often installed, but without permission to count
            try:
                perf(processes.command("work", "readme", 1), same_every_time())
                return tool
            except ToolMissing as problem:
                problems.append(str(problem))
        else:
            return tool
    raise ToolMissing(f"cannot count instructions: {'; '.join(problems)}; "
                      "install perf (the package linux-perf or linux-tools) or valgrind")


def same_every_time():
    """An environment in which every Python process does the same work."""
    return {**os.environ, "PYTHONHASHSEED": "0"}


def count(tool, names):
    """Count workloads.

    Parameters
    ----------
    tool : str
        The name of a tool in `TOOLS`.
    names : iterable of str
        Names in `WORKLOADS`.

    Returns
    -------
    list of Count
    """
    pairs = {}
    for name in dict.fromkeys(each for wanted in names for each in (wanted, WORKLOADS[wanted].less) if each):
        work = WORKLOADS[name]
        more = work.long - work.short
        pairs[name] = work.short, work.short + (-(-more // 10) if tool == "callgrind" else more)
    runs = [(name, repeats) for name, pair in pairs.items() for repeats in pair]
    # A simulated count does not depend on what else runs.
    with ThreadPoolExecutor((os.cpu_count() or 1) if tool == "callgrind" else 1) as pool:
        totals = dict(zip(runs, pool.map(
            lambda run: TOOLS[tool](processes.command("work", *run), same_every_time()), runs)))

    def difference(name):
        short, long = pairs[name]
        return (totals[name, long] - totals[name, short]) / ((long - short) * WORKLOADS[name].units)

    counts = []
    for name in names:
        work = WORKLOADS[name]
        less = difference(work.less) if work.less else 0.0
        counts.append(Count(name, difference(name) - less, work.per))
    return counts
