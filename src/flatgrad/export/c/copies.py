"""Numbers copied from many places to places of one array: as few statements and loops as there are patterns."""
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple


if TYPE_CHECKING:
    from typing import Any

__all__ = ["statements"]

# `count` numbers: from `first` on by `step` in an array, or a text that is the same for all; to `to` on by `apart`.


class Run(NamedTuple):
    source: Any
    first: Any
    step: Any
    to: Any
    apart: Any
    count: Any


MOST = 12   # statements; more numbers from one array go by tables of indices


def statements(name: Any, places: Any, sources: Any, index_table: Any) -> Any:
    """Lines of C that copy numbers to elements of an array.

    Parameters
    ----------
    name : str
        The array.
    places : list of int
    sources : list of (str, int) or (str, None)
        For each place an array and an index; or an expression.
    index_table : callable
        Gives the name of a static const array of whole numbers.

    Returns
    -------
    list of str
    """
    pairs = list(zip(places, sources))
    found = best = runs_of(pairs)
    by_source = runs_of(sorted(pairs, key=lambda x: (x[1][0], x[1][1] or 0)))
    if len(by_source) < len(found):
        found = best = by_source
    lines, k = [], 0
    groups = []
    while k < len(found):
        period, times = repeated(found, k)
        groups.append((found[k:k + period], found[k + period:k + 2 * period], times))
        k += period * times
    if sum(len(group) for group, _, _ in groups) > MOST and len(best) > MOST:
        tabled = by_tables(name, pairs, index_table)
        if len(tabled) < sum(len(group) for group, _, _ in groups):
            return tabled
    for group, after, times in groups:
        if times == 1:
            for run in group:
                lines += run_lines(name, run)
            continue
        lines.append(f"for (int i = 0; i < {times}; i++)" + " {" * (len(group) > 1))
        for run, following in zip(group, after):
            lines += run_lines(name, run, (following.to - run.to, 0 if run.first is None
                                           else following.first - run.first), "    ")
        lines += ["}"] * (len(group) > 1)
    return lines


def runs_of(pairs: Any) -> Any:
    runs = []
    for to, (source, first) in pairs:
        if runs and runs[-1].source == source and (runs[-1].first is None) == (first is None):
            run = runs[-1]
            step = 0 if first is None else first - run.first - (run.count - 1) * run.step
            apart = to - run.to - (run.count - 1) * run.apart
            if run.count == 1 or (step, apart) == (run.step, run.apart):
                runs[-1] = run._replace(step=step, apart=apart, count=run.count + 1)
                continue
            if run.count == 2:   # the second number may rather begin this run
                runs[-1] = run._replace(step=0, apart=0, count=1)
                second = None if first is None else run.first + run.step
                runs.append(Run(source, second, 0 if first is None else first - second, run.to + run.apart,
                                to - run.to - run.apart, 2))
                continue
        runs.append(Run(source, first, 0, to, 0, 1))
    return runs


def repeated(runs: Any, k: Any) -> Any:
    """(how many runs from k on are repeated, how many times): at even distances; (1, 1) if none are."""
    best = 1, 1
    for period in range(1, 5):
        times = 1
        while k + (times + 1) * period <= len(runs) and all(
                follows(runs, k + r, period, times) for r in range(period)):
            times += 1
        if times > 2 and period * times > best[0] * best[1]:
            best = period, times
    return best


def follows(runs: Any, k: Any, period: Any, times: Any) -> Any:
    run, last = runs[k], runs[k + times * period]
    if (run.source, run.count) != (last.source, last.count) or (run.count > 1 and (run.step, run.apart) != (
            last.step, last.apart)) or (run.first is None) != (last.first is None):
        return False
    after = runs[k + period]
    return last.to - run.to == times * (after.to - run.to) and (
        run.first is None or last.first - run.first == times * (after.first - run.first))


def run_lines(name: Any, run: Any, outer: Any = (0, 0), indent: str = "") -> Any:
    lines, variable = [], ""
    if run.count > 1:
        variable = "j" if indent else "i"
        lines.append(f"{indent}for (int {variable} = 0; {variable} < {run.count}; {variable}++)")
    shift = "    " if lines else ""
    rows = "i" if indent else ""
    to = at(name, run.to, (rows, outer[0]), (variable, run.apart))
    source = run.source if run.first is None else at(run.source, run.first, (rows, outer[1]), (variable, run.step))
    return [*lines, f"{indent}{shift}{to} = {source};"]


def at(name: Any, first: Any, *terms: Any) -> Any:
    found = [variable if step == 1 else f"{step} * {variable}" for variable, step in terms if variable and step]
    if first or not found:
        found.insert(0, str(first))
    return f"{name}[{' + '.join(found).replace('+ -', '- ')}]"


def by_tables(name: Any, pairs: Any, index_table: Any) -> Any:
    """A loop for each array, with tables of where to and where from."""
    lines, by_source = [], {}
    for to, (source, first) in pairs:
        if first is None:
            lines.append(f"{name}[{to}] = {source};")
        else:
            by_source.setdefault(source, []).append((to, first))
    for source, found in by_source.items():
        to = [t for t, _ in found]
        steps = [b - a for a, b in zip(to, to[1:])]
        target = at(name, to[0], ("i", steps[0] if steps else 0)) if len(set(steps)) < 2 else (
            f"{name}[{index_table(to)}[i]]")
        lines += [f"for (int i = 0; i < {len(found)}; i++)",
                  f"    {target} = {source}[{index_table([f for _, f in found])}[i]];"]
    return lines
