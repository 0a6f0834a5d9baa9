"""The end of the tape: so few ids that code of every kind runs out of them, at every place.

The ids are limited to so many more than are in use, 0, 1, 2 and so on, until the code of one of `subjects` passes.
Before that it ends with a MemoryError that says so. After each, the tape is sound, as many nodes are alive as before,
a step has happened as a whole or not at all, and the code computes what it computed.
"""
import random

from checks.subjects import SUBJECTS, Quiet, bits

from flatgrad import _core

SHORT = 4.0   # seconds

ALL = 0xFFFFFFF0   # ids


def at_every_limit(name, step):
    """How many limits there were, each `step` above the one before."""
    quiet = Quiet(name)
    subject, points, more, passed = quiet.subject, 0, 0, 0
    while passed < 3:
        _core.collect()
        stages, ended = [], False
        _core._testing(limit=_core.stats()["nodes"] + 1 + more)
        try:
            got = subject.work(lambda: stages.append(bits(subject.state()))) if subject.state else subject.work()
            ended = True
        except MemoryError as error:
            assert "nodes" in str(error), f"{name}: {error!r}"
        finally:
            _core._testing(limit=ALL)
        if ended:
            assert bits(got) == quiet.expected, f"{name}: {more} ids: other numbers"
        elif stages:
            assert bits(subject.state()) in (stages[0], quiet.expected), f"{name}: {more} ids: a step was done in part"
        got = None
        quiet.check(f"{more} ids")
        passed = passed + 1 if ended else 0
        points += 1
        more += step
    return points


def run(limit, options):
    points, names = 0, sorted(SUBJECTS)
    for seed in limit:
        rng = random.Random(seed)
        step = rng.randint(3, 40) if limit.short else rng.randint(1, 3)
        points += at_every_limit(names[7 * seed % len(names)], step)
    return f"{limit.rounds} rounds, {limit.seeds}, {points} limits passed"
