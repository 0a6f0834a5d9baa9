"""What a run says about itself: an aligned table for people, JSON for programs."""
import gc
import json
import os
import platform
import statistics
import subprocess
import threading
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

import flatgrad

from bench.runner import CLOCK

__all__ = ["about", "counts_table", "heading", "table", "to_json"]

SCHEMA = 1   # of the JSON; goes up when a reader would have to change


def cpu_name():
    """The processor's name as its maker writes it, as far as the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    if platform.system() == "Darwin":
        try:
            return subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"],
                                  capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass
    return platform.processor() or platform.machine()


def usable_cores():
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def package_version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def about():
    """The machine, the versions and the circumstances of this run.

    Returns
    -------
    dict
        Ready for JSON.
    """
    return {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "usable_cores": usable_cores(),
            "os": platform.platform(),
        },
        "versions": {
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "compiler": platform.python_compiler(),
            **{name: package_version(name) for name in ("flatgrad", "micrograd", "numpy")},
        },
        "isa": flatgrad.stats()["isa"],
        "threads": {
            "python": threading.active_count(),
            **{name: os.environ.get(name) for name in
               ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")},
        },
        "clock": CLOCK,
        "garbage_collector": gc.isenabled(),
    }


def heading(facts):
    """The lines that stand above a table."""
    machine, versions = facts["machine"], facts["versions"]
    packages = ", ".join(f"{name} {versions[name] or 'not installed'}"
                         for name in ("flatgrad", "micrograd", "numpy"))
    return "\n".join([
        f"{machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores, {machine['os']}",
        f"{versions['implementation']} {versions['python']} ({versions['compiler']}), {packages}, "
        f"isa {facts['isa']}, one thread",
    ])


def figure(value):
    """Three digits, or all of the whole ones."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def duration(seconds):
    """A time with the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{figure(seconds / size)} {unit}"
    return f"{figure(seconds / 1e-9)} ns"


def aligned(lines, right):
    """Rows of cells as text, the columns numbered in `right` flush right."""
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join("  ".join(
        cell.rjust(width) if k in right else cell.ljust(width)
        for k, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in lines)


def table(session):
    """The session's rows and what it skipped, as aligned text."""
    lines = [("case", "figure", "median", "10 %", "90 %", "unit", "target", "", "times", "what")]
    previous = None
    for row in session.rows:
        times = ", ".join(f"{name} {duration(statistics.median(seconds))}"
                          for name, seconds in row.times.items())
        lines.append((
            row.case if row.case != previous else "",
            row.label,
            figure(row.value),
            "" if row.low is None else figure(row.low),
            "" if row.high is None else figure(row.high),
            row.unit,
            "" if row.target is None else str(row.target),
            {None: "", True: "met", False: "MISSED"}[row.met],
            f"{times} per {row.per}" if times else "",
            row.note,
        ))
        previous = row.case
    parts = [aligned(lines, right={2, 3, 4})] if session.rows else []
    parts += [f"skipped: {skip.case}{f' ({skip.label})' if skip.label else ''}: {skip.reason}"
              for skip in session.skipped]
    return "\n".join(parts)


def counts_table(tool, counts):
    """Instruction counts as aligned text."""
    lines = [("workload", "instructions", "per")]
    lines += [(c.workload, figure(c.instructions), c.per) for c in counts]
    return f"counted by {tool}\n{aligned(lines, right={1})}"


def to_json(facts, session=None, counts=None, tool=None):
    """All that a run found out, as JSON text.

    Parameters
    ----------
    facts : dict
        From `about`.
    session : Session, optional
        Adds ``quick``, ``processes``, ``rounds``, ``rows`` and ``skipped``.
    counts : list of Count, optional
        Adds ``instructions`` and ``tool``.
    tool : str, optional

    Returns
    -------
    str
    """
    document = dict(facts)
    if session is not None:
        document |= {
            "quick": session.quick,
            "processes": session.processes,
            "rounds": session.rounds,
            "rows": [{
                "case": row.case, "label": row.label, "value": row.value, "unit": row.unit,
                "low": row.low, "high": row.high,
                "target": None if row.target is None else str(row.target), "met": row.met,
                "rounds": row.rounds, "seconds": row.times, "per": row.per, "note": row.note,
            } for row in session.rows],
            "skipped": [vars(skip) for skip in session.skipped],
        }
    if counts is not None:
        document |= {"tool": tool, "instructions": [vars(c) for c in counts]}
    return json.dumps(document, indent=1) + "\n"
