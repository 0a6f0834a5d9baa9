"""Times contenders in paired rounds and compares them by ratio.

The figures are meant to be reliable also on a machine that others use:

- A round times every contender once. The order reverses from one round to the next. So no contender always inherits
  the other's caches, and a slow period of the machine affects both.
- The rounds are spread over several processes. The placement of code and data in memory changes the time of a tight
  loop by 10 % and more, and stays the same within a process.
- The figure is the ratio within a round: its median over all rounds, with the 10th and 90th percentile as spread. Times
  are shown only for orientation.
- A timing repeats the work for at least `Session.min_seconds`, and counts processor time, which excludes time of other
  processes. On Windows a timing counts real time, because the clock for processor time is too coarse there.
- The garbage collector is on, as in users' programs: a large part of micrograd's time is the cyclic collector. A full
  collection before each timing is not timed; it frees the garbage of the other contenders.
- Contenders have to give the same results before they are timed. A contender of another library that does not is
  recorded as such, and is not timed; the run then ends with exit code 1.

`cases`, `versus`, `scaling`, `programs`, `derivatives` and `parallel` define the work, and `report` prints the figures.
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
           "children_clock", "clock", "enter", "own_copy", "percentile", "place", "repeated", "repeated_after"]

# On Windows the processor-time clock ticks 64 times a second, although it claims a higher resolution.
CLOCK = "perf_counter" if os.name == "nt" else "process_time"
clock = getattr(time, CLOCK)


def children_clock():
    """The processor time of our child processes that have ended, in seconds."""
    if resource is None:
        return clock()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


INSTALL = {**{name: f"pip install {name}" for name in ("micrograd", "torch", "jax", "scipy")},
           **{name: "pip install 'flatgrad[cluster]'" for name in ("joblib", "distributed")}}


class Mismatch(Exception):
    """Two contenders have computed different numbers, so a comparison of times makes no sense."""


@dataclass(frozen=True)
class Target:
    """A bound for a figure."""

    bound: float
    is_ceiling: bool

    def is_met(self, value):
        return value <= self.bound if self.is_ceiling else value >= self.bound

    def __str__(self):
        return f"{'<=' if self.is_ceiling else '>='} {self.bound:g}"


def at_most(bound):
    """A target that is met by a figure of `bound` or less."""
    return Target(bound, True)


def at_least(bound):
    """A target that is met by a figure of `bound` or more."""
    return Target(bound, False)


@dataclass(frozen=True)
class Contender:
    """One way to do the work of a case.

    Parameters
    ----------
    name : str
        The name in the table.
    measure : callable
        ``measure(repeats)`` does the work `repeats` times and returns its time in seconds, without preparation that is
        not part of the comparison.
    results : callable
        ``results()`` does the work once and returns the numbers on which all contenders must agree, values and
        gradients, by name.
    units : float, optional
        The amount of work in one repeat, for example the number of operations or steps; it may differ between
        contenders: they are compared by the time for one unit.
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
    rounds: list            # the figure of each round; a figure that is no ratio counts as one round
    times: dict             # contender's name: the seconds for one of `per`, in each round
    per: str                # the unit of `times`, such as "operation"
    note: str
    work: str = ""          # the part of the case, if it compares the same contenders several times
    axis: str = ""          # of a point of a curve: what grows along the curve
    x: float | None = None  # and how much of it this point has

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
    """A measurement that is left out, and the reason."""

    case: str
    label: str             # "" for the whole case
    reason: str
    differs: bool = False  # the contender's results are not those of the others


@dataclass
class Session:
    """The rows of one run, and the sizes and rounds of its measurements.

    Parameters
    ----------
    quick : bool
        Whether cases should use their smaller sizes.
    rounds : int
        Rounds of each comparison, in each process.
    processes : int, optional
        The number of processes that measure each case, one after the other.
    min_seconds : float, optional
        The least duration of one timing, in seconds.

    Attributes
    ----------
    rows : list of Row
    skipped : list of Skip
    case : str
        The name of the current case, for the rows that it adds.
    """

    quick: bool
    rounds: int
    processes: int = 1
    min_seconds: float = 0.010
    rows: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    case: str = ""

    def size(self, full, quick):
        """The size for this run: `quick` in a quick run, otherwise `full`."""
        return quick if self.quick else full

    def has(self, package, label=""):
        """Whether `package` can be imported; if not, `label` is recorded as skipped."""
        try:
            importlib.import_module(package)
        except ImportError:
            self.skip(label, f"{package} is not installed: {INSTALL[package]}")
            return False
        return True

    def skip(self, label, reason):
        """Record that `label` of the current case ("" for the whole case) is not measured."""
        skip = Skip(self.case, label, reason)
        if skip not in self.skipped:
            self.skipped.append(skip)

    def verify(self, *contenders, tolerance, exact=()):
        """Check that all contenders compute the same results as the first one.

        Parameters
        ----------
        *contenders : Contender
        tolerance : float
            The largest allowed difference, relative for numbers beyond 1 and absolute below.
        exact : collection of str, optional
            Results that have to be equal to the last bit.

        Raises
        ------
        Mismatch
            The message gives the name of the result and both numbers.
        """
        first = contenders[0]
        expected = first.results()
        for other in contenders[1:]:
            self.check(other.name, other.results(), first.name, expected, tolerance, exact)

    def check(self, name, got, reference, expected, tolerance, exact=()):
        """Like `verify`, for given results: `got` from `name`, `expected` from `reference`."""
        if got.keys() != expected.keys():
            raise Mismatch(f"{self.case}: {name} gives {sorted(got)}, "
                           f"{reference} gives {sorted(expected)}")
        for key, right in expected.items():
            left = got[key]
            allowed = 0.0 if key in exact else tolerance * max(1.0, abs(left), abs(right))
            # In this form of the condition, a nan on either side is a mismatch.
            if not (left == right or abs(left - right) <= allowed):
                raise Mismatch(f"{self.case}: {key}: {name} gives {left!r}, "
                               f"{reference} gives {right!r} (difference allowed: {allowed:.2g})")

    def admits(self, ours, theirs, label, *, tolerance, exact=()):
        """Whether `theirs` computes the results of `ours`, as `verify` checks them.

        If not, `label` of the current case is recorded as a contender whose results differ, with both numbers.
        """
        try:
            self.verify(ours, theirs, tolerance=tolerance, exact=exact)
        except Mismatch as mismatch:
            self.differ(label, mismatch)
            return False
        return True

    def differ(self, label, mismatch):
        """Record that `label` of the current case ("" for the whole case) is not timed because of a `Mismatch`."""
        self.skipped.append(Skip(self.case, label, f"results differ: {mismatch}", differs=True))

    def compare(self, over, under, target=None, *, work="", per="run", rounds=None, note="", at=("", None)):
        """Time two contenders and add the row of their ratio.

        Parameters
        ----------
        over, under : Contender
            The ratio is the time of `over` divided by the time of `under`.
        target : Target, optional
            A target for the median ratio.
        work : str, optional
            The part of the case, if it compares the same contenders several times.
        per : str, optional
            The unit of `Contender.units`.
        rounds : int, optional
            By default the rounds of the session.
        note : str, optional
            A remark for the table.
        at : tuple of str and float, optional
            The axis of a curve, and the place of this point on the axis; `work` names the place.
        """
        work = work or place(*at)
        seconds = self.race(over, under, rounds=rounds or self.rounds)
        ratios = [x / y for x, y in zip(seconds[over.name], seconds[under.name])]
        label = f"{over.name} / {under.name}"
        self.rows.append(Row(self.case, f"{label}, {work}" if work else label, "times", target,
                             ratios, seconds, per, note, work, *at))

    def time(self, contender, *, at, per="run", note=""):
        """Time a contender that has no other to be compared with, and add the row of its time, in microseconds."""
        seconds = self.race(contender, rounds=self.rounds)
        self.rows.append(Row(self.case, f"{contender.name}, {place(*at)}", "us", None,
                             [1e6 * each for each in seconds[contender.name]], seconds, per, note, place(*at), *at))

    def race(self, *contenders, rounds):
        """Time the contenders in `rounds` rounds.

        Returns
        -------
        dict of str to list of float
            For each contender, the seconds for one unit of its work in each round.
        """
        repeats = {c.name: self.repeats(c) for c in contenders}
        seconds = {c.name: [] for c in contenders}
        for k in range(rounds):
            for c in contenders if k % 2 == 0 else reversed(contenders):
                gc.collect()
                seconds[c.name].append(c.measure(repeats[c.name]) / (repeats[c.name] * c.units))
        return seconds

    def repeats(self, contender):
        """The number of repeats that last `min_seconds`. The search for this number is also the warm-up."""
        repeats = 1
        while True:
            seconds = contender.measure(repeats)
            if seconds >= self.min_seconds:
                return repeats
            # Somewhat more than the estimate, and at most ten times as many as before, because the first calls are
            # slow.
            enough = 1.2 * repeats * self.min_seconds / max(seconds, 1e-9)
            repeats = max(repeats + 1, math.ceil(min(enough, 10 * repeats)))

    def record(self, label, value, unit, target=None, *, note="", at=("", None)):
        """Add a row for a figure that is not a ratio of times."""
        if place(*at):
            label = f"{label}, {place(*at)}"
        self.rows.append(Row(self.case, label, unit, target, [value], {}, "", note, place(*at), *at))

    def add(self, rows, skipped):
        """Add the results of another process: new rows, and more rounds for existing rows."""
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
    """A case: a name for the command line, a reason, and a function.

    `needs` names a package for the comparison; without it the case is skipped.
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


def place(axis, x):
    """A place on an axis in words; "" for a figure that is no point of a curve."""
    return f"{axis} {x:,}" if axis else ""


def repeated(work):
    """A `Contender.measure` that calls ``work()`` repeatedly."""
    def measure(repeats):
        start = clock()
        for _ in range(repeats):
            work()
        return clock() - start
    return measure


def repeated_after(setup, work):
    """A `Contender.measure` that times ``work(setup())`` without the setup, and without freeing the result of
    `work`."""
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
    """The function with its own copy of the code, also for inner functions.

    CPython specialises bytecode for the types that it sees. Contenders with shared code would get code specialised
    for the other contender, or code without specialisation.
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
