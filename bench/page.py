"""A run as one page of HTML with plots, which needs no network: `html` takes what ``--json`` writes.

The plots are SVG by matplotlib, within the page. A case whose rows have a place on an axis is drawn as curves; ratios
without an axis are drawn as points with their spread, one below the other.
"""
import io
import statistics
from html import escape

from bench import machine
from bench.report import duration, figure
from bench.runner import percentile, place

__all__ = ["html"]

# A colour for each contender, the same in all plots, to be told apart also by those who see few colours (Okabe, Ito).
COLOURS = {"flatgrad": "#0072b2", "micrograd": "#d55e00", "torch": "#e69f00", "torch compiled": "#8a6d00",
           "jax": "#009e73", "jax scan": "#00604a", "numpy": "#cc79a7", "pure Python": "#555555"}
MARKS = {"flatgrad": "o", "micrograd": "s", "torch": "^", "torch compiled": "v", "jax": "D", "jax scan": "d",
         "numpy": "P", "pure Python": "X"}
OTHERS = ["#56b4e9", "#999999", "#7a5195", "#4d9221"]   # of contenders that the tables above do not name

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 0.875rem; } div.wide { overflow-x: auto; }
td, th { padding: 0.2rem 0.6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; } figcaption { color: #444; }
.warning { background: #fff3cd; border-left: 4px solid #b58900; padding: 0.5rem 1rem; } code { font-size: 0.9em; }
"""

LAYOUT = {"svg.fonttype": "none", "svg.hashsalt": "flatgrad", "font.family": "sans-serif", "font.size": 10,
          "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e5e5e5",
          "legend.frameon": False}


def colour(name):
    return COLOURS.get(name) or OTHERS[sum(name.encode()) % len(OTHERS)]


# ---- plots ----

def svg(draw, width, height, columns=1):
    """What ``draw(axes...)`` draws, as text of SVG."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(LAYOUT):
        drawing = Figure(figsize=(width, height), layout="constrained")
        draw(*drawing.subplots(1, columns, squeeze=False)[0])
        out = io.StringIO()
        drawing.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()[out.getvalue().index("<svg"):]


def middle(numbers):
    """The median, and the 10th and 90th percentile."""
    return statistics.median(numbers), percentile(numbers, 0.1), percentile(numbers, 0.9)


def curve(axes, name, points):
    """A line through the medians, with the range of the middle 80 % of rounds: `points` has the rounds at each x."""
    xs = sorted(points)
    medians, lows, highs = zip(*(middle(points[x]) for x in xs))
    axes.fill_between(xs, lows, highs, color=colour(name), alpha=0.25, linewidth=0)
    axes.plot(xs, medians, color=colour(name), marker=MARKS.get(name, "o"), markersize=4, label=name)


def scaled(axes, xs, label, title, shown):
    """Both axes by powers of ten, and what they say: `shown` writes a number of the vertical axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 50.0 * low else (1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: shown(number)))
    for axis in axes.xaxis, axes.yaxis:
        axis.set_minor_locator(NullLocator())
    axes.set_xticks(xs, [f"{x:,}" for x in xs], fontsize=8)
    axes.set_xlabel(label)
    axes.set_title(title, loc="left", fontsize=10)


def unit_time(seconds):
    """A power of ten of a second, for an axis."""
    return duration(1.0001 * seconds).replace(".00", "").replace(".0", "")   # the power may be a bit below what it says


def gathered(rows):
    """Rounds by contender and place: the seconds of all, and the ratios of those that are compared with another."""
    seconds, ratios = {}, {}
    for row in rows:
        for name, times in row["seconds"].items():
            seconds.setdefault(name, {}).setdefault(row["x"], []).extend(times)
        if row["unit"] == "times":
            ratios.setdefault(next(iter(row["seconds"])), {})[row["x"]] = row["rounds"]
    # The order of the plots' legends: that of the colours, then all others.
    order = {name: k for k, name in enumerate(COLOURS)}
    return [dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order)))) for found in (seconds, ratios)]


def time_curves(rows):
    """Two plots: the time of each contender, and its ratio to flatgrad's."""
    seconds, ratios = gathered(rows)
    xs = sorted({row["x"] for row in rows})

    def draw(times, *compared):
        for name, points in seconds.items():
            curve(times, name, points)
        scaled(times, xs, rows[0]["axis"], f"time for one {rows[0]['per']}", unit_time)
        times.legend(fontsize=9)
        for axes in compared:
            for name, points in ratios.items():
                curve(axes, name, points)
            axes.axhline(1.0, color=COLOURS["flatgrad"], linewidth=1)
            scaled(axes, xs, rows[0]["axis"], "time as a multiple of flatgrad's, in paired rounds", "{:,g}".format)
    return svg(draw, 10, 3.8, 1 + bool(ratios))


def figure_curves(rows):
    """One plot of figures that are no times, such as bytes: a curve for each label."""
    series = {}
    for row in rows:
        name = row["label"].removesuffix(f", {place(row['axis'], row['x'])}")
        series.setdefault(name, {})[row["x"]] = row["rounds"]

    def draw(axes):
        for name, points in series.items():
            library = name.split(",")[0]
            xs = sorted(points)
            axes.plot(xs, [statistics.median(points[x]) for x in xs], color=colour(library), label=name,
                      marker=MARKS.get(library, "o"), markersize=4, linestyle="-" if "stats()" in name else "--")
        scaled(axes, sorted({row["x"] for row in rows}), rows[0]["axis"], f"{rows[0]['unit']} for one of them",
               "{:,g}".format)
        axes.legend(fontsize=9)
    return svg(draw, 6, 3.8)


def ratio_points(rows):
    """Ratios of contenders' times, one below the other, each with its spread."""
    def draw(axes):
        for k, row in enumerate(rows):
            median, low, high = middle(row["rounds"])
            name = next(iter(row["seconds"]))
            axes.plot([low, high], [k, k], color=colour(name), linewidth=4, alpha=0.4, solid_capstyle="butt")
            axes.plot([median], [k], color=colour(name), marker=MARKS.get(name, "o"), markersize=5)
            axes.annotate(figure(median), (high, k), (6, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_xscale("log")
        axes.axvline(1.0, color="#1a1a1a", linewidth=1)
        axes.set_yticks(range(len(rows)), [f"{row['case']}: {row['label']}" for row in rows], fontsize=9)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.1)
        axes.set_xlabel("time of the first as a multiple of the second's")
    return svg(draw, 10, 0.8 + 0.26 * len(rows))


# ---- text ----

def cells(tag, line, numbers):
    return "".join(f'<{tag}{" class=number" if k in numbers else ""}>{escape(str(cell))}</{tag}>'
                   for k, cell in enumerate(line))


def table(head, lines, numbers=()):
    """A table; the columns `numbers` are flush right."""
    body = "\n".join(f"<tr>{cells('td', line, numbers)}</tr>" for line in lines)
    top = f"<thead><tr>{cells('th', head, numbers)}</tr></thead>" if head else ""
    return f'<div class="wide"><table>{top}<tbody>\n{body}\n</tbody></table></div>'


def conditions(run):
    """The machine and the versions."""
    at, versions, core = run["machine"], run["versions"], run["core"]
    busy = "unknown" if run["load"] is None else f"{run['load']:.1f} programs were running or waiting as the run began"
    lines = [
        ("processor", f"{at['cpu']}, {at['usable_cores']} of {at['cores']} cores"),
        ("system", at["os"]),
        ("load", busy),
        ("Python", f"{versions['implementation']} {versions['python']} ({run['python_build']})"),
        ("flatgrad", f"{versions['flatgrad']}, compiled by {core['compiler'] or 'an unknown compiler'}, "
         f"assertions {'ON: no build for measurements' if core['assertions'] else 'off'}"),
        ("flags of the C compiler", core["flags"] or "unknown: there is no setup.py here"),
        ("kernels", f"{run['isa']}, of {', '.join(core['levels'])}"),
        ("threads", "one for each contender: " + ", ".join(f"{name}={value}" for name, value in run["threads"].items()
                                                           if name != "python")),
        ("clock", f"{run['clock']}, garbage collector {'on' if run['garbage_collector'] else 'OFF'}"),
        ("code of the benchmarks", run["sources"]),
    ]
    return table((), lines)


def packages(run):
    """The other libraries: what is installed, and what bench/peers.txt pins."""
    lines = []
    for name, wanted in machine.pinned().items():
        found = run["versions"].get(name)
        lines.append((name, found or "not installed", wanted,
                      "" if found is None else "as pinned" if found.split("+")[0] == wanted else "NOT AS PINNED"))
    return table(("library", "here", "pinned", ""), lines)


def all_rows(run):
    """Every figure."""
    lines = []
    for row in run["rows"]:
        times = ", ".join(f"{name} {duration(statistics.median(seconds))}" for name, seconds in row["seconds"].items())
        target = f"{row['target']}, {'met' if row['met'] else 'MISSED'}" if row["target"] else ""
        lines.append((row["case"], row["label"], figure(row["value"]),
                      *("" if row[end] is None else figure(row[end]) for end in ("low", "high")), row["unit"],
                      f"{times} per {row['per']}" if times else "", target, row["note"]))
    head = ("case", "figure", "median", "10 %", "90 %", "unit", "times", "target", "what")
    used = [k for k in range(len(head)) if k < 3 or any(line[k] for line in lines)]
    return table([head[k] for k in used], [[line[k] for k in used] for line in lines],
                 {k for k, name in enumerate(used) if name in (2, 3, 4)})


def curves(run, case, rows):
    """The part of the page for a case with an axis."""
    picture = time_curves(rows) if rows[0]["seconds"] else figure_curves(rows)
    why = run["cases"].get(case, "")
    ends = [f"{escape(skip['label'])}: {escape(skip['reason'])}" for skip in run["skipped"] if skip["case"] == case]
    missing = f"<br>Not here: {'; '.join(ends)}." if ends else ""
    return (f"<h3>{escape(case)}</h3>\n<figure>{picture}\n<figcaption>{escape(why[:1].upper() + why[1:])}.{missing}"
            "</figcaption></figure>")


def html(run):
    """A run as a page.

    Parameters
    ----------
    run : dict
        What ``--json`` writes.

    Returns
    -------
    str
    """
    by_case = {}
    for row in run["rows"]:
        if row["axis"]:
            by_case.setdefault(row["case"], []).append(row)
    ratios = [row for row in run["rows"] if row["seconds"] and not row["axis"] and row["unit"] == "times"]
    parts = [f"<p>{run['processes']} process{'es' * (run['processes'] > 1)} with {run['rounds']} rounds each"
             f"{', quick sizes' if run['quick'] else ''}, begun {escape(run['date'])}. Before the timing, each "
             "contender has to compute the numbers of the others. The contenders run in turns; a ratio is that of two "
             "times of one round. A point is the median of all rounds, and the band or bar around it has the "
             "middle 80 % of them.</p>"]
    if run["core"]["assertions"]:
        parts.append('<p class="warning">This build of flatgrad has assertions on: its times are not those of a '
                     "release.</p>")
    differing = [skip for skip in run["skipped"] if skip["differs"]]
    if differing:
        parts.append('<div class="warning"><p>These contenders computed other numbers, so they were not timed:</p>'
                     + table(("case", "contender", "why"), [(s["case"], s["label"], s["reason"]) for s in differing])
                     + "</div>")
    parts += ["<h2>Machine and versions</h2>", conditions(run), "<h3>The other libraries</h3>", packages(run)]
    if by_case:
        parts += ["<h2>Curves</h2>", *(curves(run, case, rows) for case, rows in by_case.items())]
    if ratios:
        parts += ["<h2>Ratios</h2>", f"<figure>{ratio_points(ratios)}</figure>",
                  "<ul>", *(f"<li><b>{escape(case)}</b>: {escape(run['cases'].get(case, ''))}</li>"
                            for case in dict.fromkeys(row["case"] for row in ratios)), "</ul>"]
    parts += ["<h2>All figures</h2>", all_rows(run)]
    if run["skipped"]:
        parts += ["<h2>What was not measured</h2>",
                  table(("case", "figure", "why"),
                        [(s["case"], s["label"] or "all", s["reason"]) for s in run["skipped"]])]
    parts.append("<h2>Once more</h2>\n<p>In a checkout of this version, <code>python3 dev.py python -m pip install -r "
                 "bench/peers.txt matplotlib</code> installs the other libraries as they are pinned, and <code>python3 "
                 "dev.py python -m bench --report out.html --json out.json</code> measures again. <code>python -m "
                 "bench compare a.json b.json</code> says what has changed between two runs by more than noise.</p>")
    return ('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>flatgrad: benchmarks</title>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>flatgrad: benchmarks</h1>\n"
            + "\n".join(parts) + "\n</body>\n</html>\n")
