"""The report of a run: an aligned table as text, and JSON for programs."""
import json
import statistics

from bench.machine import PACKAGES
from bench.versus import COLUMNS, PEERS

__all__ = ["aligned", "counts_table", "duration", "figure", "grid", "heading", "markdown", "table", "to_json"]


def heading(facts):
    """The lines above a table."""
    machine, versions = facts["machine"], facts["versions"]
    packages = ", ".join(f"{name} {versions[name] or 'not installed'}" for name in PACKAGES)
    return "\n".join([
        f"{machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores, {machine['os']}",
        f"{versions['implementation']} {versions['python']} ({versions['compiler']}), {packages}, "
        f"isa {facts['isa']}, one thread",
    ])


def figure(value):
    """A number with three digits, or with all digits before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def duration(seconds):
    """A time with a unit that suits its size."""
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


def markdown(lines, right):
    """A table in Markdown; the first line is the head."""
    rule = ["---:" if k in right else "---" for k in range(len(lines[0]))]
    head, *rest = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *rest]) + "\n"


def skips(session, style):
    """The skipped cases, in the form of `listed`."""
    return listed(style, [
        f"skipped: {skip.case}{f' ({skip.label})' if skip.label else ''}: {skip.reason}"
        for skip in session.skipped])


def listed(style, lines):
    """The lines as text, or as a list in Markdown."""
    return [f"- {line}" for line in lines] if style is markdown else lines


def rows_table(rows, style):
    """A table of rows with all their figures; `style` is `aligned` or `markdown`."""
    lines = [("case", "figure", "median", "10 %", "90 %", "unit", "target", "", "times", "what")]
    previous = None
    for row in rows:
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
    return style(lines, right={2, 3, 4})


def table(session, style):
    """The session's rows and its skipped cases, as text."""
    parts = [rows_table(session.rows, style)] if session.rows else []
    return "\n".join(parts + skips(session, style))


def remarks(case, why, rows):
    """A line about a case of the grid: its description, its notes, its targets."""
    parts = [why]
    for note in dict.fromkeys(row.note for row in rows if row.note):
        about = [row.work or next(iter(row.times)) for row in rows if row.note == note]
        parts.append(note if len(about) == len(rows) else f"{', '.join(about)}: {note}")
    parts += [f"target: {row.label} {row.target}, {'met' if row.met else 'MISSED'}"
              for row in rows if row.target is not None]
    return f"{case}: {'; '.join(parts)}"


def grid(session, style):
    """A suite of contenders as text: a line for each piece of work, a column for each contender.

    Below the grid stand remarks, targets, figures that are no ratios, and skipped cases.
    """
    ratios = [row for row in session.rows if row.times]
    parts = []
    if ratios:
        columns = [name for name in COLUMNS if any(name in row.times for row in ratios)]
        cells, times = {}, {}
        for row in ratios:
            contender, base = row.times
            spread = "" if row.low is None else f" ({figure(row.low)}-{figure(row.high)})"
            missed = " MISSED" if row.met is False else ""
            key = row.case, row.work, row.per
            cells.setdefault(key, {})[contender] = f"{figure(row.value)}{spread}{missed}"
            times.setdefault(key, []).extend(row.times[base])
        lines = [("", "flatgrad", "per", *columns)]
        for (case, work, per), line in cells.items():
            lines.append((f"{case}, {work}" if work else case,
                          duration(statistics.median(times[case, work, per])), per,
                          *[line.get(name, "-") for name in columns]))
        parts += ["Time of each contender as a multiple of flatgrad's, median (10 % - 90 %); below "
                  "1, flatgrad is slower.\n",
                  style(lines, right={1, *range(3, len(lines[0]))}), ""]
        parts += listed(style, [
            remarks(case, PEERS[case].why, [row for row in ratios if row.case == case])
            for case in dict.fromkeys(row.case for row in ratios)])
        parts.append("")
    others = [row for row in session.rows if not row.times]
    if others:
        lines = [("", "", "", "")]
        lines += [(row.label, figure(row.value), row.unit, row.note) for row in others]
        parts += [style(lines, right={1})]
    return "\n".join(parts + skips(session, style))


def counts_table(tool, counts, style):
    """Instruction counts as text."""
    lines = [("workload", "instructions", "per")]
    lines += [(c.workload, figure(c.instructions), c.per) for c in counts]
    return f"counted by {tool}\n{style(lines, right={1})}"


def to_json(facts, session=None, counts=None, tool=None, cases=()):
    """All figures of a run, as JSON text.

    Parameters
    ----------
    facts : dict
        The result of `machine.about`.
    session : Session, optional
        The session; it adds ``quick``, ``processes``, ``rounds``, ``rows`` and ``skipped``.
    counts : list of Count, optional
        The counts; they add ``instructions`` and ``tool``.
    tool : str, optional
    cases : iterable of Case, optional
        The cases, for what they are for.

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
            "cases": {case.name: case.why for case in cases},
            "rows": [{
                "case": row.case, "label": row.label, "value": row.value, "unit": row.unit,
                "low": row.low, "high": row.high,
                "target": None if row.target is None else str(row.target), "met": row.met,
                "rounds": row.rounds, "seconds": row.times, "per": row.per, "note": row.note,
                "work": row.work, "axis": row.axis, "x": row.x,
            } for row in session.rows],
            "skipped": [vars(skip) for skip in session.skipped],
        }
    if counts is not None:
        document |= {"tool": tool, "instructions": [vars(c) for c in counts]}
    return json.dumps(document, indent=1) + "\n"
