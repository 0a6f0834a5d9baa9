"""Instruction counts of the hot paths, which the repository keeps in `counts.json`: checks them and updates them.

A count depends on Python and on how it and the core were compiled, so the file has a list of counts for each
environment. Where none is that of this machine, or valgrind is missing, nothing can be checked; the message says why.
The kernels are those of the best level that valgrind knows, on every machine.
"""
import json
import os
import platform
from contextlib import contextmanager
from pathlib import Path

from bench import machine
from bench.instructions import WORKLOADS, ToolMissing, chosen_tool, count

__all__ = ["GROWTH", "HOT", "BadFile", "check", "environment", "update"]

GROWTH = 0.05   # the growth of a count that needs a new line in the file
STAYS = 0.01    # an update leaves the line of a count that has changed by less

# The workloads whose counts are kept: small graphs by hand, whole trainings, and programs. Some minutes in callgrind.
HOT = ("chain", "chain-backward", "readme", "moons", "moons-fused", "fit-moons", "physics-compiled", "rosenbrock",
       "rosenbrock-compiled")


class BadFile(Exception):
    """The file of kept counts cannot be read; the message names it."""


def level(levels):
    """The best level of kernels in `levels` that valgrind can run: it does not know AVX-512."""
    return [name for name in levels if name != "avx512"][-1]


def environment():
    """What a count depends on, besides the code that is counted: a dict of texts."""
    core = machine.build()
    return {"python": f"{platform.python_implementation()} {platform.python_version()}",
            "python_build": machine.python_build(),
            "compiler": (core["compiler"] or "unknown") + (", assertions on" if core["assertions"] else ""),
            "system": " ".join([platform.system(), platform.machine(), *platform.libc_ver()]).strip(),
            "isa": level(core["levels"])}


@contextmanager
def kernels_of(isa):
    """The kernels of a level, in the processes that are counted."""
    before = os.environ.get("FLATGRAD_ISA")
    os.environ["FLATGRAD_ISA"] = isa
    try:
        yield
    finally:
        if before is None:
            del os.environ["FLATGRAD_ISA"]
        else:
            os.environ["FLATGRAD_ISA"] = before


def counted(names, isa):
    """The counts of workloads by callgrind: a dict, rounded as they are kept."""
    with kernels_of(isa):
        return {each.workload: round(each.instructions, 1 if each.instructions < 10_000 else None)
                for each in count("callgrind", names)}


def read(path):
    """The list of environments in the file, each a dict with ``counts``; empty if there is no file yet."""
    try:
        text = Path(path).read_text("utf-8")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadFile(f"cannot read {path}: {error.strerror}") from None
    try:
        kept = json.loads(text)["environments"]
        for each in kept:
            if not all(float(number) > 0.0 for number in each["counts"].values()):
                raise ValueError("a count that is not positive")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFile(f"{path}: expected counts as --update writes them: {error}") from None
    return kept


def matching(kept, here):
    """The environment in `kept` that is `here`; None if there is none."""
    return next((each for each in kept if all(each.get(key) == value for key, value in here.items())), None)


def nearest(kept, here):
    """The differences between `here` and the most similar of `kept`, in words."""
    if not kept:
        return "the file has no counts yet"
    most = max(kept, key=lambda each: sum(each.get(key) == value for key, value in here.items()))
    return "; ".join(f"{key}: here {value}, kept for {most.get(key)}"
                     for key, value in here.items() if most.get(key) != value)


def check(path, names=None):
    """Compare counts with those that a file keeps.

    Parameters
    ----------
    path : str or Path
    names : list of str, optional
        Workloads; by default `HOT` and all that the file keeps for this environment.

    Returns
    -------
    passed : bool
        False if a count has grown by more than `GROWTH`, or is not kept; True also if nothing could be checked.
    text : str
        A line for each workload; or the reason why nothing was checked.
    """
    kept, here = read(path), environment()
    try:
        chosen_tool("callgrind")
    except ToolMissing as problem:
        return True, f"skipped: {problem}"
    match = matching(kept, here)
    if match is None:
        return True, f"skipped: no counts are kept for this Python and compiler: {nearest(kept, here)}"
    if names is None:
        names = [name for name in WORKLOADS if name in HOT or name in match["counts"]]
    return judged(match["counts"], counted(names, here["isa"]), path)


def judged(kept, found, path):
    """Whether the counts `found` pass, and what to say: `kept` has those of the file."""
    lines, passed = [], True
    for name, number in found.items():
        before = kept.get(name)
        if before is None:
            passed, verdict = False, "NOT KEPT"
        else:
            change = number / before - 1.0
            verdict = f"{before:,} were kept: {100.0 * change:+.1f} %"
            if change > GROWTH:
                passed, verdict = False, f"{verdict}, GROWN by more than {100.0 * GROWTH:g} %"
            elif change < -GROWTH:
                verdict += ", fallen: keep the new count, so that it stays"
        lines.append(f"{name:20} {number:>14,} instructions a{'n' if WORKLOADS[name].per[0] in 'aeo' else ''} "
                     f"{WORKLOADS[name].per}; {verdict}")
    if not passed:
        lines.append(f"If the growth is meant, python -m bench --instructions --update keeps the new counts in {path}; "
                     "say in the commit why they grow.")
    return passed, "\n".join(lines)


def update(path, names=None):
    """Keep the counts of this environment in a file; returns what to say.

    The lines of other environments, of other workloads, and of counts that have hardly changed, stay as they are.
    """
    kept, here = read(path), environment()
    chosen_tool("callgrind")
    match = matching(kept, here)
    old = match["counts"] if match else {}
    if names is None:
        names = [name for name in WORKLOADS if name in HOT or name in old]
    found = counted(names, here["isa"])
    changed = {name: number for name, number in found.items()
               if name not in old or abs(number / old[name] - 1.0) >= STAYS}
    new = {**old, **changed}
    entry = {**here, "counts": {name: new[name] for name in WORKLOADS if name in new}}
    kept = [entry if each is match else each for each in kept] if match else [*kept, entry]
    Path(path).write_text(json.dumps({"environments": kept}, indent=1) + "\n", "utf-8", newline="\n")
    lines = [f"{name:20} {old.get(name, 'new')} -> {number}" for name, number in changed.items()]
    return "\n".join(lines + [f"{path}: {len(changed)} of {len(found)} counts changed"])
