"""The command line: ``python -m bench --help``."""
import argparse
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path

import bench

ROUNDS, QUICK_ROUNDS = 5, 2   # in each process
PROCESSES, PEERS_PROCESSES = 5, 3   # 1 with --quick
MIN_SECONDS, QUICK_MIN_SECONDS = 0.010, 0.003
KEPT = Path(__file__).with_name("counts.json")


class UsageError(Exception):
    """A mistake of the caller: one line on stderr, exit code 2."""


def main(argv=None):
    """Run the benchmarks.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; by default those of the process.

    Returns
    -------
    int
        Exit code: 0; 1 if contenders disagree or a measurement fails, if with ``--check`` a count has grown, or with
        ``--strict`` if a target is missed or a figure has changed; 2 if the arguments ask for something impossible.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv[:1] == ["compare"]:
            return compare(parse_compare(argv[1:]))
        return run(parse(argv))
    except UsageError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130


def parse(argv):
    """The arguments, parsed by argparse."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=bench.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true",
                        help="smaller graphs and fewer rounds, to see that everything runs")
    parser.add_argument("--rounds", type=positive, metavar="N",
                        help="rounds of each comparison, in each process "
                        f"({ROUNDS}; {QUICK_ROUNDS} with --quick)")
    parser.add_argument("--processes", type=positive, metavar="N",
                        help=f"processes for each case ({PROCESSES}; {PEERS_PROCESSES} with "
                        "--report or a suite that is named; 1 with --quick)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these cases")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    parser.add_argument("--json", metavar="FILE", help="write every figure to FILE")
    parser.add_argument("--report", metavar="FILE",
                        help="write a page of HTML with plots to FILE; without a suite, of the cases of --scaling and "
                        "--peers")
    parser.add_argument("--from", dest="source", metavar="FILE",
                        help="for --report: measure nothing, but take the figures that --json wrote to FILE")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if a target is missed")
    parser.add_argument("--markdown", action="store_true",
                        help="print the tables as Markdown, to be quoted")
    suite = parser.add_mutually_exclusive_group()
    suite.add_argument("--peers", action="store_true",
                       help="compare with micrograd, PyTorch, JAX and NumPy, as far as they are "
                       "installed; --list and --only then are about these cases")
    suite.add_argument("--scaling", action="store_true",
                       help="time and memory by the size of a graph, and by the width, the batch and the depth of a "
                       "network; --list and --only then are about these cases")
    suite.add_argument("--programs", action="store_true",
                       help="compare compiled functions with C by hand, JAX and PyTorch; --list and --only then are "
                       "about these cases")
    suite.add_argument("--derivatives", action="store_true",
                       help="compare derivatives of derivatives with PyTorch and JAX; --list and --only then are about "
                       "these cases")
    suite.add_argument("--exports", action="store_true",
                       help="compare programs as C and as functions of JAX with their replay; --list and --only then "
                       "are about these cases")
    suite.add_argument("--parallel", action="store_true",
                       help="compare one process with several, by joblib and by Dask; --list and --only then are about "
                       "these cases")
    suite.add_argument("--instructions", nargs="?", const="auto", metavar="TOOL",
                       choices=["auto", "perf", "callgrind"],
                       help="count instructions instead, with perf or callgrind")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--check", nargs="?", const=KEPT, metavar="FILE",
                      help="with --instructions: exit code 1 if callgrind counts 5 %% more than the repository keeps; "
                      "skipped, with a message, where valgrind is missing or Python or the compiler is another")
    kept.add_argument("--update", nargs="?", const=KEPT, metavar="FILE",
                      help="with --instructions: keep the counts of callgrind")
    args = parser.parse_args(argv)
    if args.instructions and args.report:
        parser.error("--report has no page of instructions; leave out --report or --instructions")
    if args.source and not args.report:
        parser.error("--from needs --report FILE")
    if (args.check or args.update) and args.instructions not in ("auto", "callgrind"):
        parser.error("--check and --update need --instructions, without perf: its counts depend on the processor")
    return args


def parse_compare(argv):
    """The arguments after ``compare``."""
    parser = argparse.ArgumentParser(
        prog="python -m bench compare",
        description="Compare two runs that --json has saved: the ratio of each figure, with the 99 % interval that the "
        "processes of both runs leave for it, and what has changed by more than this noise.")
    parser.add_argument("before", metavar="A.json", help="the earlier run")
    parser.add_argument("after", metavar="B.json", help="the later run")
    parser.add_argument("--anyway", action="store_true",
                        help="compare even runs of other machines, versions or workloads")
    parser.add_argument("--strict", action="store_true",
                        help="exit code 1 if a figure has changed by more than the noise")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown, to be quoted")
    return parser.parse_args(argv)


def positive(text):
    """An int of at least 1, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected an int of 1 or more, got {text!r}")
    return number


def needed(*packages):
    """UsageError if one of the packages that everything here uses is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"{package} is not installed; run: pip install .")


def run(args):
    """Do the job of the arguments. Returns the exit code."""
    needed("flatgrad", "numpy")
    from bench.byhand import BUILD
    from bench.instructions import WORKLOADS
    from bench.suites import SUITES

    if args.report and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--report needs matplotlib for its plots; run: pip install 'flatgrad[viz]'")
    if args.source:
        check_writable("--report", args.report)
        return draw(args.report, loaded("--from", args.source))
    # "report" is the last suite, so --report chooses it only if no other is named.
    suite = next((name for name in SUITES if getattr(args, name, False)), "cases")
    cases = SUITES[suite]
    if args.list:
        width = max(map(len, cases))
        print("\n".join(f"{name:{width}}  {case.why}" for name, case in cases.items()))
        return 0
    names = chosen(args.only, WORKLOADS if args.instructions else cases)
    for option in "json", "report", "update":
        check_writable(f"--{option}", getattr(args, option))
    if args.check or args.update:
        return kept_counts(args, names)
    if args.instructions:
        return instructions(args, names)
    # torch.compile caches its results in files; with these, a second run would show no compile time.
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", cache)
        os.environ.setdefault(BUILD, cache)   # a compiler runs once for all processes
        return measure(args, suite, names)


def chosen(only, known):
    """The names to run, in the order of `known`."""
    unknown = [name for name in only or () if name not in known]
    if unknown:
        raise UsageError(f"--only: unknown: {', '.join(unknown)}; expected of: {', '.join(known)}")
    return [name for name in known if only is None or name in only]


def check_writable(option, path):
    """UsageError if `path` cannot be written: the error should come before the measurements."""
    if path is None:
        return
    target = Path(path) if Path(path).exists() else Path(path).absolute().parent
    if Path(path).is_dir() or not os.access(target, os.W_OK):
        raise UsageError(f"{option}: cannot write to {path}")


def write(option, path, text):
    """Write the text, if the arguments name a file."""
    if path is None:
        return
    from flatgrad.storage import write_file

    try:
        write_file(path, text.encode())
    except OSError as error:
        raise UsageError(f"{option}: cannot write to {path}: {error.strerror}") from None


def loaded(option, path):
    """The figures that ``--json`` wrote to `path`."""
    try:
        figures = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{option}: cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{option}: expected a file that --json wrote, got {path}: {error}") from None
    if not isinstance(figures, dict) or "rows" not in figures:
        raise UsageError(f"{option}: expected figures that --json wrote, got {path} without rows")
    return figures


def draw(path, figures):
    """Write the page of a run's figures. Returns the exit code."""
    from bench import page

    write("--report", path, page.html(figures))
    return 0


def measure(args, suite, names):
    """Measure cases of a suite. Returns the exit code."""
    from bench import machine, report
    from bench.processes import ProbeFailed
    from bench.runner import Mismatch, Session
    from bench.suites import SUITES

    session = Session(args.quick, args.rounds or (QUICK_ROUNDS if args.quick else ROUNDS),
                      args.processes or (1 if args.quick else
                                         PROCESSES if suite == "cases" else PEERS_PROCESSES),
                      QUICK_MIN_SECONDS if args.quick else MIN_SECONDS)
    facts = machine.about()
    print(report.heading(facts))
    print(f"medians of {session.processes} x {session.rounds} paired rounds (processes x rounds), "
          f"{facts['clock']}, garbage collector on{', quick sizes' if args.quick else ''}\n",
          flush=True)
    for name in names:
        try:
            run_case(session, suite, name)
        except Mismatch as mismatch:
            session.case = name
            session.differ("", mismatch)
        except ProbeFailed as failure:
            print(f"bench: {name}: {failure}", file=sys.stderr)
            return 1
    progress("")
    style = report.markdown if args.markdown else report.aligned
    print(report.grid(session, style) if args.peers else report.table(session, style))
    saved = report.to_json(facts, session, cases=[SUITES[suite][name] for name in names])
    write("--json", args.json, saved)
    if args.report:
        draw(args.report, json.loads(saved))

    differing = [skip for skip in session.skipped if skip.differs]
    for skip in differing:
        print(f"bench: {skip.reason}", file=sys.stderr)
    if differing:
        return 1
    measured = {row.case for row in session.rows}
    missing = [skip for skip in session.skipped if skip.case not in measured]
    if args.only and missing:
        raise UsageError(f"--only {missing[0].case}: {missing[0].reason}")
    return 1 if args.strict and any(row.met is False for row in session.rows) else 0


def run_case(session, suite, name):
    """Measure a case in the session's number of processes; a single process is this one."""
    from bench import processes
    from bench.suites import SUITES

    for k in range(session.processes):
        progress(f"{name} {k + 1}/{session.processes}")
        if session.processes == 1:
            SUITES[suite][name](session)
        else:
            session.add(*processes.found(processes.run("case", suite, name, session.quick,
                                                       session.rounds, session.min_seconds)))


def progress(text):
    """Show the current step on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text:30}\r", end="", file=sys.stderr, flush=True)


def instructions(args, names):
    """Count instructions. Returns the exit code."""
    from bench import machine, report
    from bench.instructions import ToolMissing, chosen_tool, count

    try:
        tool = chosen_tool(args.instructions)
        counts = count(tool, names)
    except ToolMissing as problem:
        raise UsageError(problem) from None
    facts = machine.about()
    print(report.heading(facts))
    style = report.markdown if args.markdown else report.aligned
    print(report.counts_table(tool, counts, style))
    write("--json", args.json, report.to_json(facts, counts=counts, tool=tool))
    return 0


def kept_counts(args, names):
    """Compare counts with those that the repository keeps, or keep new ones. Returns the exit code."""
    from bench import counts
    from bench.instructions import ToolMissing

    try:
        if args.update:
            print(counts.update(args.update, names if args.only else None))
            return 0
        passed, text = counts.check(args.check, names if args.only else None)
    except (ToolMissing, counts.BadFile) as problem:
        raise UsageError(problem) from None
    print(text)
    return 0 if passed else 1


def compare(args):
    """Compare two saved runs. Returns the exit code."""
    needed("flatgrad", "numpy")
    from bench import comparison, report

    before, after = (loaded("compare", path) for path in (args.before, args.after))
    try:
        found = comparison.compare(before, after, args.anyway)
    except comparison.Refused as problem:
        raise UsageError(f"{args.before} and {args.after}: {problem}") from None
    print(comparison.table(found, report.markdown if args.markdown else report.aligned))
    return 1 if args.strict and any(change.changed for change in found.changes) else 0


if __name__ == "__main__":
    sys.exit(main())
