"""``python -m flatgrad bench``: a short comparison of flatgrad with the real micrograd, on the user's machine."""
from __future__ import annotations

import gc
import importlib
import math
import os
import random
import statistics
import sys
import time
import types

from flatgrad.cli.common import positive_number
from flatgrad.cli.info import facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from flatgrad._core import Tensor, Value
    from flatgrad.nn.layers import MLP
    from flatgrad.optim.optimizers import SGD

__all__ = ["add"]

HELP = """\
Measure on this machine how much faster flatgrad is than micrograd. One case is the expression of
micrograd's README, forward and backward. The other is a training step of micrograd's two-moons
demo, with 100 samples and 337 parameters. flatgrad runs the step twice: with the demo's own code,
and with flatgrad's layers, loss and optimizer.

Before the timing, both have to give the same results and gradients. Then each round times every
contender once, in an order that reverses from one round to the next, with the garbage collector
on, as in programs. The figure is the ratio within a round, micrograd's time divided by
flatgrad's: its median over the rounds, and its 10th and 90th percentile. A ratio below 1 would
mean that flatgrad is slower. Other work on the machine widens the spread. The times, also
medians, are for orientation."""

EXAMPLES = """\
examples:
  python -m flatgrad bench
      some six seconds
  python -m flatgrad bench --seconds 60
      more rounds, a steadier median
  FLATGRAD_ISA=baseline python -m flatgrad bench
      without the processor's vector instructions beyond the oldest

The comparison needs micrograd: pip install 'flatgrad[bench]'. The full benchmark, with more
cases, several processes, PyTorch and JAX, is in flatgrad's repository: python -m bench"""

FULL = "The full benchmark is in flatgrad's repository: python -m bench --help"
INSTALL = "pip install 'flatgrad[bench]'"

SAMPLES = 100       # the number of samples of the moons
TOLERANCE = 1e-9
LEAST_ROUNDS = 3
LEAST_SECONDS = 0.003   # the shortest time that is measured at once

# On Windows the processor-time clock ticks 64 times a second, although it claims a higher resolution.
clock: Callable[..., Any] = time.perf_counter if os.name == "nt" else time.process_time


def add(commands: Any) -> None:
    """Add the command to argparse's."""
    sub = commands.add_parser("bench", help="measure how much faster than micrograd this machine runs flatgrad",
                              description=HELP, epilog=EXAMPLES)
    sub.set_defaults(command=bench, parser=sub)
    sub.add_argument("--seconds", type=positive_number, default=6.0, metavar="S",
                     help="about how long to measure (default: %(default)g)")


def bench(args: Any) -> int:
    """Compare the speed of flatgrad with micrograd's."""
    found = facts()
    print(f"flatgrad {found['flatgrad']} with {found['isa']['in_use']} kernels, {found['python']}\n"
          f"{found['processor']}, {found['platform']}\n", flush=True)
    try:
        theirs = library("micrograd")
    except ImportError:
        theirs = None
        print(f"micrograd is not installed, so there is nothing to compare with: {INSTALL}\n")
    ours = library("flatgrad")

    print(f"{'':38}{'micrograd':>11}{'flatgrad':>11}{'times faster':>15}{'10 to 90 %':>19}{'rounds':>9}" if theirs else
          f"{'':38}{'flatgrad':>11}", flush=True)
    # The step of some 300 ms gets most of the time.
    for share, cases in (0.3, expression_cases(ours, theirs)), (0.7, moons_cases(ours, theirs)):
        try:
            verify(cases)
        except Mismatch as mismatch:
            print(f"{args.parser.prog.removeprefix('python -m ')}: error: {mismatch}", file=sys.stderr)
            return 1
        report(cases, race([run for _, _, run, _ in cases], share * args.seconds))
    print(f"\n{FULL}")
    return 0


def library(name: str) -> Any:
    """The classes of the package `name`, which has the modules of micrograd."""
    return types.SimpleNamespace(name=name, Value=importlib.import_module(f"{name}.engine").Value,
                                 MLP=importlib.import_module(f"{name}.nn").MLP)


# ---- the code that is timed ----
# A case is (library, label, run, results): `run()` is timed, and `results()` has to be equal for all.

def expression(Value: type[Any]) -> tuple[Any, Any, Any]:
    """The expression of micrograd's README, forward and backward."""
    a = Value(-4.0)
    b = Value(2.0)
    c = a + b
    d = a * b + b**3
    c += c + 1
    c += 1 + c + (-a)
    d += d * 2 + (b + a).relu()
    d += 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    g = f / 2.0
    g += 10.0 / f
    g.backward()
    return a, b, g


def expression_cases(ours: Any, theirs: Any) -> list[tuple[str, str, Callable[..., Any], Callable[..., Any]]]:
    """The README's expression, in each library."""
    cases = []
    for library in filter(None, (theirs, ours)):
        run = own_copy(expression)

        def results(run=run, Value=library.Value):
            a, b, g = run(Value)
            return [g.data, a.grad, b.grad]
        cases.append((library.name, "micrograd's README expression", lambda run=run, Value=library.Value: run(Value),
                      results))
    return cases


def demo_step(model: Any, Value: type[Any], X: list[list[float]], y: list[float]) -> Any:
    """A step of micrograd's two-moons demo, with the demo's code."""
    inputs = [list(map(Value, row)) for row in X]
    scores = list(map(model, inputs))
    losses = [(1 + -label * score).relu() for label, score in zip(y, scores)]
    data_loss = sum(losses) * (1.0 / len(losses))
    reg_loss = 1e-4 * sum((p * p for p in model.parameters()))
    total_loss = data_loss + reg_loss
    model.zero_grad()
    total_loss.backward()
    for p in model.parameters():
        p.data -= 0.1 * p.grad
    return total_loss


def layers_step(model: MLP, X: Tensor, y: Tensor, parameters: list[Value], optimizer: SGD) -> Value:
    """The same step with flatgrad's layers, loss and optimizer."""
    from flatgrad import dot
    from flatgrad.losses import hinge

    total_loss = hinge(model(X), y) + 1e-4 * dot(parameters, parameters)
    optimizer.zero_grad()
    total_loss.backward()
    optimizer.step()
    return total_loss


def moons_cases(ours: Any, theirs: Any) -> list[tuple[str, str, Callable[..., Any], Callable[..., Any]]]:
    """A step of the demo with each library's classes, and with flatgrad's layers."""
    from flatgrad import Tensor
    from flatgrad.datasets import make_moons
    from flatgrad.optim import SGD

    X, y = make_moons(SAMPLES, noise=0.1, random_state=1337)
    y = 2.0 * y - 1.0
    rows, labels = X.tolist(), y.tolist()
    cases = []

    def case(library, label, step_of):
        random.seed(1337)
        model = library.MLP(2, [16, 16, 1])
        step = step_of(model)

        def results():
            loss = step()   # the first step, so that all models are the same
            return [loss.data, *(p.data for p in model.parameters())]
        cases.append((library.name, label, step, results))

    def by_demo(Value):
        step = own_copy(demo_step)
        return lambda model: lambda: step(model, Value, rows, labels)

    def by_layers(model):
        parameters = model.parameters()
        optimizer = SGD(parameters, lr=0.1)
        inputs, targets = Tensor(X, requires_grad=False), Tensor(y, requires_grad=False)
        return lambda: layers_step(model, inputs, targets, parameters, optimizer)

    if theirs:
        case(theirs, "", by_demo(theirs.Value))
    case(ours, "moons step, the demo's code", by_demo(ours.Value))
    case(ours, "moons step, flatgrad's layers and loss", by_layers)
    return cases


def own_copy(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its own copy of the bytecode. CPython specialises bytecode for the types that it sees, so
    contenders with shared bytecode would slow each other down."""
    def copied(code):
        return code.replace(co_consts=tuple(copied(c) if isinstance(c, types.CodeType) else c for c in code.co_consts))
    return types.FunctionType(copied(function.__code__), function.__globals__, function.__name__)


# ---- measuring ----

class Mismatch(Exception):
    """Two libraries have computed different numbers, so a comparison of times makes no sense."""


def verify(cases: list[tuple[str, str, Callable[..., Any], Callable[..., Any]]]) -> None:
    """Check that all cases compute the same numbers as the first one."""
    expected = None
    for name, label, _, results in cases:
        got = results()
        if expected is None:
            first, expected = name, got
        # In this form of the condition, a nan on either side is a mismatch.
        for x, y in zip(got, expected, strict=True):
            if not abs(x - y) <= TOLERANCE * max(1.0, abs(x), abs(y)):
                raise Mismatch(f"{label}: {name} gives {x!r}, {first} gives {y!r}; expected the same")


def race(contenders: list[Callable[..., Any]], seconds: float) -> list[list[float]]:
    """Time the contenders in rounds, for about `seconds` seconds.

    Returns
    -------
    list of list of float
        For each contender, the seconds of its run in each round.
    """
    end = time.perf_counter() + seconds
    repeats = [enough(run) for run in contenders]
    times = [[] for _ in contenders]
    order = list(range(len(contenders)))
    while len(times[0]) < LEAST_ROUNDS or time.perf_counter() < end:
        for k in order:
            gc.collect()   # no contender spends time on another's garbage
            times[k].append(timed(contenders[k], repeats[k]) / repeats[k])
        order.reverse()
    return times


def timed(run: Callable[..., Any], repeats: int) -> float:
    """The seconds that `repeats` calls take."""
    start = clock()
    for _ in range(repeats):
        run()
    return clock() - start


def enough(run: Callable[..., Any]) -> int:
    """The number of calls that last `LEAST_SECONDS`. The search for this number is also the warm-up."""
    repeats = 1
    while True:
        seconds = timed(run, repeats)
        if seconds >= LEAST_SECONDS:
            return repeats
        # Somewhat more than the estimate, and at most ten times as many as before, because the first calls are slow.
        wanted = 1.2 * repeats * LEAST_SECONDS / max(seconds, 1e-9)
        repeats = max(repeats + 1, math.ceil(min(wanted, 10 * repeats)))


def report(cases: list[tuple[str, str, Callable[..., Any], Callable[..., Any]]], times: list[list[float]]) -> None:
    """Print a line for each case of flatgrad."""
    reference = times[0] if cases[0][0] == "micrograd" else None
    for (name, label, _, _), own in zip(cases, times):
        if name == "micrograd":
            continue
        line = f"{label:38}"
        if reference:
            line += f"{duration(statistics.median(reference)):>11}"
        line += f"{duration(statistics.median(own)):>11}"
        if reference:
            ratios = sorted(x / y for x, y in zip(reference, own))
            low, high = (percentile(ratios, fraction) for fraction in (0.1, 0.9))
            spread = f"{shown(low)} to {shown(high)}"
            line += f"{shown(statistics.median(ratios)):>15}{spread:>19}{len(ratios):9}"
        print(line, flush=True)


def percentile(ordered: list[float], fraction: float) -> float:
    """The value below which `fraction` (0 to 1) of the sorted values lie, interpolated linearly."""
    position = fraction * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def duration(seconds: float) -> str:
    """A time with three digits and its unit."""
    for unit, scale in ("s", 1.0), ("ms", 1e-3), ("us", 1e-6):
        if seconds >= scale or unit == "us":
            return f"{seconds / scale:.3g} {unit}"


def shown(ratio: float) -> str:
    """A ratio with three digits, or with all digits before the point."""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"
