"""Times contenders in paired rounds and compares them by ratio.

The promise is a figure that holds on a machine that others use too:

- A round times every contender once. The order turns round from one round to the next, so that
  neither always inherits the other's caches, and a slow stretch of the machine falls on both.
- The rounds are spread over several processes. Where the system happens to place code and data
  moves a tight loop by 10 % and more, and stays the same for as long as a process lives.
- The figure is the ratio within a round, its median over all rounds, with the 10th and 90th
  percentile as spread. Times are shown only for orientation.
- A timing repeats the work until it lasts `Session.min_seconds`, and counts processor time (not on
  Windows, where its clock is too coarse): time taken by other processes is no part of it.
- The garbage collector is on, as users have it: a good part of micrograd's time is the cyclic
  collector. A full collection before each timing, which is not timed, keeps each contender from
  paying for another's garbage.
- Contenders are compared by their results before they are timed.

What to time is for `cases` and `versus` to say, and how to show it for `report`.
"""
import gc
import importlib
import math
import os
import statistics
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field

try:
    import resource
except ImportError:   # Windows
    resource = None

__all__ = ["CLOCK", "Case", "Contender", "Mismatch", "Row", "Session", "Skip", "Target", "at_least", "at_most",
           "children_clock", "clock", "enter", "own_copy", "percentile", "repeated", "repeated_after"]

# On Windows the processor-time clock ticks 64 times a second, whatever resolution it claims.
CLOCK = "perf_counter" if os.name == "nt" else "process_time"
clock = getattr(time, CLOCK)


def children_clock():
    """The processor time of processes that we started and that have ended, in seconds."""
    if resource is None:
        return clock()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


INSTALL = {name: f"pip install {name}" for name in ("micrograd", "torch", "jax")}


class Mismatch(Exception):
    """Two contenders computed different numbers, so there is nothing to time."""


@dataclass(frozen=True)
class Target:
    """A bound that a figure should keep."""

    bound: float
    is_ceiling: bool

    def is_met(self, value):
        return value <= self.bound if self.is_ceiling else value >= self.bound

    def __str__(self):
        return f"{'<=' if self.is_ceiling else '>='} {self.bound:g}"


def at_most(bound):
    """A target that a figure meets by being `bound` or less."""
    return Target(bound, True)


def at_least(bound):
    """A target that a figure meets by being `bound` or more."""
    return Target(bound, False)


@dataclass(frozen=True)
class Contender:
    """One way of doing a case's work.

    Parameters
    ----------
    name : str
        As it stands in the table.
    measure : callable
        ``measure(repeats)`` does the work that often and returns the seconds it took, leaving out
        whatever preparation is no part of the comparison.
    results : callable
        ``results()`` does the work once and returns the numbers that all contenders must agree on,
        values and gradients, by name.
    units : float, optional
        How many of what the comparison counts, operations or steps for example, one repeat does.
        They may differ: contenders are compared by the time for one.
    """

    name: str
    measure: Callable[[int], float]
    results: Callable[[], dict]
    units: float = 1


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    case: str
    label: str
    unit: str               # "times" for a ratio
    target: Target | None   # None: for information
    rounds: list            # what each round found; a figure that is no ratio counts as one round
    times: dict             # contender's name: seconds for one of `per`, in each round
    per: str                # what `times` are for, such as "operation"
    note: str
    work: str = ""          # what of the case, if it compares the same contenders several times

    @property
    def value(self):
        """The median over the rounds."""
        return statistics.median(self.rounds)

    @property
    def low(self):
        """The 10th percentile of the rounds; None if there is only one."""
        return percentile(self.rounds, 0.1) if len(self.rounds) > 1 else None

    @property
    def high(self):
        """The 90th percentile of the rounds; None if there is only one."""
        return percentile(self.rounds, 0.9) if len(self.rounds) > 1 else None

    @property
    def met(self):
        """Whether the target is met; None if there is none."""
        return None if self.target is None else self.target.is_met(self.value)


@dataclass(frozen=True)
class Skip:
    """What was not measured, and why."""

    case: str
    label: str   # "" for the whole case
    reason: str


@dataclass
class Session:
    """What is measured in one run, and how carefully.

    Parameters
    ----------
    quick : bool
        Whether cases should take their smaller sizes.
    rounds : int
        Rounds of each comparison, in each process.
    processes : int, optional
        How many processes measure each case, one after the other.
    min_seconds : float, optional
        How long one timing lasts at the least, in seconds.

    Attributes
    ----------
    rows : list of Row
    skipped : list of Skip
    case : str
        The name of the case under way, for the rows that it adds.
    """

    quick: bool
    rounds: int
    processes: int = 1
    min_seconds: float = 0.010
    rows: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    case: str = ""

    def size(self, full, quick):
        """The size for this run."""
        return quick if self.quick else full

    def has(self, package, label=""):
        """Whether `package` can be imported; if not, `label` is noted as skipped."""
        try:
            importlib.import_module(package)
        except ImportError:
            self.skip(label, f"{package} is not installed: {INSTALL[package]}")
            return False
        return True

    def skip(self, label, reason):
        """Note that `label` of the present case ("" for all of it) is not measured."""
        self.skipped.append(Skip(self.case, label, reason))

    def verify(self, *contenders, tolerance, exact=()):
        """Check that all contenders compute what the first one does.

        Parameters
        ----------
        *contenders : Contender
        tolerance : float
            Largest difference allowed, relative for numbers beyond 1 and absolute below.
        exact : collection of str, optional
            Results that must be equal to the last bit.

        Raises
        ------
        Mismatch
            With the name of the result and both numbers.
        """
        first = contenders[0]
        expected = first.results()
        for other in contenders[1:]:
            self.check(other.name, other.results(), first.name, expected, tolerance, exact)

    def check(self, name, got, reference, expected, tolerance, exact=()):
        """Like `verify`, for results at hand: `got` by `name`, `expected` by `reference`."""
        if got.keys() != expected.keys():
            raise Mismatch(f"{self.case}: {name} gives {sorted(got)}, "
                           f"{reference} gives {sorted(expected)}")
        for key, right in expected.items():
            left = got[key]
            allowed = 0.0 if key in exact else tolerance * max(1.0, abs(left), abs(right))
            # Written so that a nan on either side is a mismatch.
            if not (left == right or abs(left - right) <= allowed):
                raise Mismatch(f"{self.case}: {key}: {name} gives {left!r}, "
                               f"{reference} gives {right!r} (difference allowed: {allowed:.2g})")

    def compare(self, over, under, target=None, *, work="", per="run", rounds=None, note=""):
        """Race two contenders and add the row of their ratio.

        Parameters
        ----------
        over, under : Contender
            The ratio is the time of `over` divided by the time of `under`.
        target : Target, optional
            For the median ratio.
        work : str, optional
            What of the case, if it compares the same contenders several times.
        per : str, optional
            What the times are for: the unit of `Contender.units`.
        rounds : int, optional
            By default those of the session.
        note : str, optional
            A remark for the table.
        """
        seconds = self.race(over, under, rounds=rounds or self.rounds)
        ratios = [x / y for x, y in zip(seconds[over.name], seconds[under.name])]
        label = f"{over.name} / {under.name}"
        self.rows.append(Row(self.case, f"{label}, {work}" if work else label, "times", target,
                             ratios, seconds, per, note, work))

    def race(self, *contenders, rounds):
        """Time the contenders in `rounds` rounds.

        Returns
        -------
        dict of str to list of float
            Per contender, the seconds for one unit of its work in each round.
        """
        repeats = {c.name: self.repeats(c) for c in contenders}
        seconds = {c.name: [] for c in contenders}
        for k in range(rounds):
            for c in contenders if k % 2 == 0 else reversed(contenders):
                gc.collect()
                seconds[c.name].append(c.measure(repeats[c.name]) / (repeats[c.name] * c.units))
        return seconds

    def repeats(self, contender):
        """How many repeats last `min_seconds`. Finding out is the warm-up as well."""
        repeats = 1
        while True:
            seconds = contender.measure(repeats)
            if seconds >= self.min_seconds:
                return repeats
            # A little more than seems needed, and at most tenfold: the first calls are slow.
            enough = 1.2 * repeats * self.min_seconds / max(seconds, 1e-9)
            repeats = max(repeats + 1, math.ceil(min(enough, 10 * repeats)))

    def record(self, label, value, unit, target=None, *, note=""):
        """Add a row for a figure that is no ratio of times."""
        self.rows.append(Row(self.case, label, unit, target, [value], {}, "", note))

    def add(self, rows, skipped):
        """Take over what another process found: new rows, and more rounds for those there are."""
        known = {(row.case, row.label): row for row in self.rows}
        for row in rows:
            same = known.get((row.case, row.label))
            if same is None:
                self.rows.append(row)
                continue
            same.rounds.extend(row.rounds)
            for name, times in row.times.items():
                same.times[name].extend(times)
        self.skipped += [skip for skip in skipped if skip not in self.skipped]


@dataclass(frozen=True)
class Case:
    """A name for the command line, the reason to exist, and what to run.

    `needs` names a package without which there is nothing to compare with.
    """

    name: str
    why: str
    needs: str | None
    run: Callable

    def __call__(self, session):
        session.case = self.name
        if self.needs is None or session.has(self.needs):
            self.run(session)


def enter(cases, name, why, needs=None):
    """Enter the decorated function into the dict `cases`."""
    def decorate(function):
        cases[name] = Case(name, why, needs, function)
        return function
    return decorate


def repeated(work):
    """A `Contender.measure` that calls ``work()`` again and again."""
    def measure(repeats):
        start = clock()
        for _ in range(repeats):
            work()
        return clock() - start
    return measure


def repeated_after(setup, work):
    """A `Contender.measure` that times ``work(setup())`` without the setup, and without the end of
    what `work` returns."""
    def measure(repeats):
        seconds = 0.0
        for _ in range(repeats):
            state = setup()
            start = clock()
            result = work(state)
            seconds += clock() - start
            state = result = None  # noqa: F841  (here, where it is not timed)
        return seconds
    return measure


def own_copy(function):
    """The function with a code of its own, that of inner functions included.

    CPython rewrites bytecode for the types that it meets. Contenders that shared their code would
    leave each other with the wrong version, or with none.
    """
    copy = types.FunctionType(copied_code(function.__code__), function.__globals__,
                              function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def copied_code(code):
    return code.replace(co_consts=tuple(
        copied_code(c) if isinstance(c, types.CodeType) else c for c in code.co_consts))


def percentile(values, fraction):
    """The value below which `fraction` (0 to 1) of the values lie, interpolated linearly."""
    ordered = sorted(values)
    position = fraction * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
