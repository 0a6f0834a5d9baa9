"""Training for a million steps: memory stays where it was.

    python tests/checks long --steps 1000000 replays fit        these kinds, so many steps
    python tests/checks long --list                             the kinds

The kinds are those of `subjects`: scalar code, rules, cycles, failing calls, errors in rules, optimizers, Trainers,
compiled functions, minimize, evaluations, files; "interrupts" is scalar code and a compiled function with a Ctrl-C in
each step. Each runs in a process of its own. After a tenth of its steps memory is measured ten times: the largest
resident set of the last five is less than a MiB above that of the first five, as many nodes are alive, Python has as
many blocks of memory, but for some dozens, and None, 0.0, the classes and whatever else all share have as many
references (a Cython before 3.2 makes classes of which every object keeps a reference: these are left out); on a debug
build of Python, `sys.gettotalrefcount` as well, if NumPy is a debug build, too. The numbers are the same bits at the
end as at the beginning.
"""
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import flatgrad as fg
import numpy as np
from checks.limits import Unavailable
from checks.subjects import SUBJECTS, Subject, bits
from flatgrad import Tensor, Value, _core

from leaks import living

SHORT = 8.0   # seconds

MOST = 1 << 20   # bytes of growth
FEW = 200        # blocks and references: the last numbers of a loop, and what Python keeps for reuse
SHARED = [None, True, (), 0.0, 1, "", ..., NotImplemented, Value, float, int, tuple, list, dict, object]


def keep_their_class():
    """Whether objects that are gone still hold their class: those of classes by a Cython before 3.2."""
    before = sys.getrefcount(Tensor)
    for _ in range(100):
        Tensor([1.0])
    return sys.getrefcount(Tensor) - before >= 100


if not keep_their_class():
    SHARED += [x for x in vars(_core).values() if isinstance(x, type) and x is not Value]


def interrupts():
    x = Value(0.5)
    f = fg.compile(lambda v: (v * x).sin())

    def work():
        x.grad = 0.0
        try:
            y = x * 2.0
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("no KeyboardInterrupt")
        except KeyboardInterrupt:
            pass
        out = x * 3.0
        out._backward = lambda: signal.raise_signal(signal.SIGINT)
        for call in (out * y).backward, lambda: fg.fori_loop(0, 3, lambda k, v: signal.raise_signal(signal.SIGINT), x):
            try:
                call()
                raise AssertionError("no KeyboardInterrupt")
            except KeyboardInterrupt:
                pass
        x.grad = 0.0
        y = f(0.25)
        y.backward()
        return y.data, x.grad
    return Subject(work)


QUICK = ["errors_in_rules", "fit", "interrupts", "own_rules", "replays"]
KINDS = {**SUBJECTS, "interrupts": interrupts}


def resident():
    """Bytes of memory that the process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measured():
    now = living()
    gc.collect()
    total = 0
    if hasattr(sys, "gettotalrefcount"):   # NumPy's np.zeros itself keeps a reference to the type of numbers
        total = sys.gettotalrefcount() - sum(sys.getrefcount(np.dtype(kind)) for kind in "?bBhHiIlLqQefdgFDG")
    return resident(), now, sys.getallocatedblocks(), total, [sys.getrefcount(x) for x in SHARED]


def child(name, steps):
    """So many steps of one kind; prints its figures, or raises."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    subject = KINDS[name]()
    expected = bits(subject.work())
    runs, measures, began = max(steps // subject.steps, 10), [], time.perf_counter()
    first = runs // 10
    for k in range(runs):
        subject.work()
        if k >= first and (k - first) % max((runs - first) // 10, 1) == 0:
            measures.append(measured())
    assert bits(subject.work()) == expected, f"{name}: other numbers at the end"
    measures.append(measured())
    seconds = time.perf_counter() - began
    memory, nodes, blocks, references, shared = zip(*measures)
    half = len(memory) // 2

    def grown(numbers):
        """From the first half to the second: the tape's own room comes and goes, and Python keeps some things."""
        return max(numbers[half:]) - max(numbers[:half])

    growth, most = grown(memory), max(map(grown, zip(*shared)))
    figures = (f"{name}: {runs * subject.steps} steps, {seconds:.0f} s, {growth // 1024:+d} KiB, "
               f"{nodes[-1] - nodes[0]:+d} nodes, {grown(blocks):+d} blocks, "
               f"{grown(references):+d} references of all, {most:+d} of what is shared")
    assert growth < MOST and nodes[-1] == nodes[0] and grown(blocks) < FEW and most < FEW, figures
    # One that is lost in each run would be about half of the runs.
    assert grown(references) < max(5 * FEW, runs // 4) or not has_debug_numpy(), figures
    print(figures, flush=True)


def has_debug_numpy():
    """Whether NumPy counts its references: its own file has the letter of a debug build in its name."""
    from numpy.linalg import _umath_linalg

    return "d-" in os.path.basename(_umath_linalg.__file__)


def options(parser):
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="names of subjects, or interrupts; all of them")
    parser.add_argument("--steps", type=int, help="of each kind (default 1000000, short 1000)")
    parser.add_argument("--list", action="store_true", help="the kinds")


def run(limit, options):
    if options.list:
        return " ".join(KINDS)
    if not sys.platform.startswith("linux"):
        raise Unavailable("needs Linux")
    unknown = [name for name in options.kinds if name not in KINDS]
    if unknown:
        raise SystemExit(f"no such kinds: {unknown}")
    names = options.kinds or sorted(KINDS)
    steps = options.steps or (1000 if limit.short else 1_000_000)
    if limit.short and not options.kinds:
        names = QUICK
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])}
    wrong = []
    for name in names:
        done = subprocess.run([sys.executable, "-c", f"from checks import long; long.child({name!r}, {steps})"],
                              env=environment, capture_output=True, text=True)
        if done.returncode:
            wrong.append(f"{name}: ended with {done.returncode}: {done.stderr[-2000:]}")
        elif not limit.short:
            print(done.stdout, end="", flush=True)
    if wrong:
        raise AssertionError("\n".join(wrong))
    return f"{len(names)} kinds, {steps} steps of each: memory flat"
