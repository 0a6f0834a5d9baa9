"""Compares two saved runs: the ratio of each figure, and whether it has changed by more than the noise.

Rounds within a process share the placement of code and data in memory, so they are no independent measurements; the
processes are. Each process gives one number, the median of its rounds. The interval is Welch's for the difference of
the means of the numbers' logarithms, at 99 %. With a single process in either run there is no interval.
"""
import math
import statistics
from dataclasses import dataclass, field

from bench.report import duration, figure

__all__ = ["Change", "Comparison", "Refused", "compare", "table"]

# Student's t at 99 %, two-sided, by the degrees of freedom.
STUDENT = {1: 63.657, 2: 9.925, 3: 5.841, 4: 4.605, 5: 4.033, 6: 3.708, 7: 3.500, 8: 3.356, 10: 3.170, 12: 3.055,
           15: 2.947, 20: 2.846, 30: 2.750, 60: 2.661, 120: 2.618}


class Refused(Exception):
    """The runs cannot be compared; the message has the differences."""


@dataclass(frozen=True)
class Change:
    """A figure of both runs, or a contender's time."""

    case: str
    label: str
    unit: str            # "s" for a time
    before: float
    after: float
    interval: tuple | None   # the low and the high end of after / before; None: one process does not show its noise

    @property
    def ratio(self):
        """How many times the earlier figure the later one is; nan if the earlier is 0."""
        return self.after / self.before if self.before else math.nan

    @property
    def changed(self):
        """Whether the change exceeds the noise; None if that cannot be known."""
        return None if self.interval is None else not self.interval[0] <= 1.0 <= self.interval[1]


@dataclass
class Comparison:
    """What two runs have in common, and what they have not."""

    changes: list
    warnings: list = field(default_factory=list)


def conditions(run):
    """What has to be the same in two runs, by its name: not the version of flatgrad, nor how its core was compiled."""
    found = {"schema": run.get("schema"), "quick sizes": run.get("quick"), "the benchmarks' code": run.get("sources"),
             "isa": run.get("isa"), "clock": run.get("clock"), "garbage collector": run.get("garbage_collector"),
             "Python's build": run.get("python_build")}
    for group in "machine", "threads":
        found |= {f"{group} {name}": value for name, value in run.get(group, {}).items()}
    found |= {name: value for name, value in run.get("versions", {}).items() if name != "flatgrad"}
    return found


def compare(before, after, anyway=False):
    """Compare two runs.

    Parameters
    ----------
    before, after : dict
        The contents of two files that ``--json`` wrote.
    anyway : bool, optional
        Whether to compare runs of other machines, versions or workloads too.

    Returns
    -------
    Comparison

    Raises
    ------
    Refused
        If the runs are of other machines, versions or workloads, unless `anyway`; or have no figure in common.
    """
    one, two = conditions(before), conditions(after)
    differences = [f"{name}: {one.get(name)} and {two.get(name)}" for name in {**one, **two}
                   if one.get(name) != two.get(name)]
    if differences and not anyway:
        raise Refused(f"not the same machine, versions or workload ({'; '.join(differences)}); "
                      "--anyway compares them all the same")
    rows, others = ({(row["case"], row["label"]): row for row in run["rows"]} for run in (before, after))
    changes = []
    for key, row in rows.items():
        other = others.get(key)
        if other is not None and row["unit"] == other["unit"] and row["per"] == other["per"]:
            changes += changes_of(before, row, after, other)
    if not changes:
        raise Refused("no figure is in both: expected runs of the same cases")
    warnings = [f"not the same: {difference}" for difference in differences]
    for name, mine, theirs in ("first", rows, others), ("second", others, rows):
        only = [f"{case} ({label})" for case, label in mine if (case, label) not in theirs]
        if only:
            warnings.append(f"only in the {name}: {', '.join(only)}")
    return Comparison(changes, warnings)


def changes_of(before, row, after, other):
    """The change of a row, and those of its contenders' times, if the row has any."""
    yield change(row["case"], row["label"], row["unit"], before, row["rounds"], after, other["rounds"])
    for name, seconds in row["seconds"].items():
        if name in other["seconds"] and row["unit"] != "us":   # such a row is a time already
            label = f"{name}, {row['work']}" if row["work"] else name
            yield change(row["case"], f"  {label}", "s", before, seconds, after, other["seconds"][name])


def change(case, label, unit, before, rounds, after, other_rounds):
    one, two = of_processes(before, rounds), of_processes(after, other_rounds)
    return Change(case, label, unit, statistics.median(rounds), statistics.median(other_rounds), welch(one, two))


def of_processes(run, rounds):
    """The median of each process; `rounds` has those of one process after those of the other."""
    size = len(rounds) // run["processes"]
    if size * run["processes"] != len(rounds):   # a process that has measured less, such as one without a package
        return [statistics.median(rounds)]
    return [statistics.median(rounds[k * size:(k + 1) * size]) for k in range(run["processes"])]


def welch(one, two):
    """The 99 % interval of the ratio of two geometric means, from independent numbers; None if there are too few, or
    numbers that have no logarithm."""
    if min(len(one), len(two)) < 2 or min(*one, *two) <= 0.0:
        return None
    means, errors, degrees = [], [], []
    for numbers in one, two:
        logs = [math.log(number) for number in numbers]
        means.append(statistics.fmean(logs))
        errors.append(statistics.variance(logs) / len(logs))
        degrees.append(len(logs) - 1)
    error = sum(errors)
    change = means[1] - means[0]
    if error == 0.0:   # counts and bytes, which repeat exactly
        return math.exp(change), math.exp(change)
    freedom = error**2 / sum(e**2 / d for e, d in zip(errors, degrees))
    half = student(freedom) * math.sqrt(error)
    return math.exp(change - half), math.exp(change + half)


def student(freedom):
    """Student's t at 99 %. Between two degrees of freedom it is interpolated by their inverse; t is convex in this, so
    it is never too small."""
    below = max((number for number in STUDENT if number <= freedom), default=1)
    above = min((number for number in STUDENT if number > freedom), default=None)
    if above is None or freedom <= below:
        return STUDENT[below]
    share = (1.0 / below - 1.0 / freedom) / (1.0 / below - 1.0 / above)
    return STUDENT[below] + share * (STUDENT[above] - STUDENT[below])


def shown(change, number):
    """A number with its unit; a ratio has none."""
    if change.unit == "s":
        return duration(number)
    return figure(number) if change.unit == "times" else f"{figure(number)} {change.unit}"


def table(comparison, style):
    """The comparison as text; `style` is `report.aligned` or `report.markdown`."""
    lines = [("case", "figure", "before", "after", "ratio", "99 %", "")]
    previous = None
    for each in comparison.changes:
        interval = "" if each.interval is None else "-".join(f"{end:.3f}" for end in each.interval)
        verdict = {None: "noise unknown", False: "", True: "MORE" if each.ratio > 1.0 else "LESS"}[each.changed]
        lines.append((each.case if each.case != previous else "", each.label, shown(each, each.before),
                      shown(each, each.after), f"{each.ratio:.3f}", interval, verdict))
        previous = each.case
    changed = [each for each in comparison.changes if each.changed]
    summary = (f"{len(changed)} of {len(comparison.changes)} figures have changed by more than the noise"
               + (": " + "; ".join(f"{each.case}, {each.label.strip()}: {100.0 * (each.ratio - 1.0):+.1f} %"
                                   for each in changed) if changed else "."))
    if any(each.changed is None for each in comparison.changes):
        summary += ("\nWhere the noise is unknown, a run had a single process, or the figure has no logarithm; "
                    "--processes 5 shows the noise.")
    return "\n".join([style(lines, right={2, 3, 4}), summary, *comparison.warnings])
