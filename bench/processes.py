"""Starts probes, each in a process of its own, and reads their output; `probe` has the code of the probes."""
import json
import subprocess
import sys
from pathlib import Path

from bench.runner import Mismatch, Row, Skip, Target

__all__ = ["ROOT", "ProbeFailed", "command", "found", "run"]

ROOT = Path(__file__).resolve().parent.parent


class ProbeFailed(Exception):
    """The process of a probe ended without a result."""


def command(kind, *arguments):
    """The command line that runs a probe, with the repository's root as working directory."""
    return [sys.executable, "-m", "bench.probe", kind, *map(str, arguments)]


def run(kind, *arguments):
    """The output of a probe.

    Raises
    ------
    ProbeFailed
        The message gives the status of the process and its standard error.
    """
    process = subprocess.run(command(kind, *arguments), cwd=ROOT, capture_output=True, text=True)
    if process.returncode != 0:
        raise ProbeFailed(f"bench.probe {kind} ended with status {process.returncode}:\n"
                           f"{process.stderr.strip()}")
    return json.loads(process.stdout)


def found(figures):
    """Rows and skips from the output of the probe `case`; or raise its Mismatch."""
    if "mismatch" in figures:
        raise Mismatch(figures["mismatch"])
    rows = [Row(**{**row, "target": row["target"] and Target(**row["target"])})
            for row in figures["rows"]]
    return rows, [Skip(**skip) for skip in figures["skipped"]]
