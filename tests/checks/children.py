"""Rounds of a check in a process of its own, so that one that crashes or hangs is reported with its seed."""
import collections
import faulthandler
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["rounds"]

LONGEST = 300   # seconds of one round


def rounds(name, limit, **environment):
    """Let `Rounds` of the module `name` do `round(seed)` for the seeds of a `Limit`.

    Returns
    -------
    collections.Counter
        Its attribute `counts` at the end.

    Raises
    ------
    AssertionError
        If a round fails; ``limit.seed`` is its seed.
    """
    counts = collections.Counter()
    seconds = max(limit.seconds - (time.monotonic() - limit.began), 0.0)
    code = ("from checks import children; "
            f"children.child({name!r}, {seconds}, {limit.count}, {limit.seed}, {limit.short})")
    path = os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment, "PYTHONPATH": path})
    out, err = process.communicate()
    for line in out.splitlines():
        kind, _, rest = line.partition("\t")
        if kind == "seed":
            limit.seed = int(rest)
        elif kind == "counts":
            counts.update(json.loads(rest))
    if process.returncode:
        raise AssertionError(f"the round of --seed {limit.seed} ended with {process.returncode}:\n{err[-6000:]}")
    return counts


def child(name, seconds, count, seed, short):
    """Called in the new process."""
    from checks.limits import Limit

    faulthandler.enable()
    own = os.dup(1)
    os.dup2(2, 1)   # what rounds print does not get between the seeds
    with os.fdopen(own, "w") as told:
        all_rounds = importlib.import_module(f"checks.{name}").Rounds()
        limit = Limit(seconds, count, seed, short)
        all_rounds.limit = limit
        for seed in limit:
            print(f"seed\t{seed}", file=told, flush=True)
            faulthandler.dump_traceback_later(LONGEST, exit=True)
            all_rounds.round(seed)
        faulthandler.cancel_dump_traceback_later()
        print(f"seed\t{limit.seed}", f"counts\t{json.dumps(all_rounds.counts)}", sep="\n", file=told, flush=True)
