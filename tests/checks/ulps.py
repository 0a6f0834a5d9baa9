"""How far exp, log, tanh and sigmoid, and what else the kernels compute, are from the exact result.

A round takes one function, of doubles or of floats, on every level of kernels of the machine, and 32,768 points: half
of them or more where the function bends, the others of all sizes, with bits at random. The result is compared with
that of long doubles of 64 bits, whose error is below 0.002 units; for floats with that of doubles, to below 0.0001
units. A unit is the last place of the result. The largest error and where it was are kept for each function, and
printed at the end; a round fails where it is above the bound, which docs/numbers.md has. ``--points 100000000`` is
that many for each function and type; ``--every`` takes all floats that there are instead, 2**32 of them, in steps.
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import flatgrad
from checks.limits import Unavailable
from flatgrad import Tensor

SHORT = 5.0   # seconds

L = np.longdouble
AT_ONCE = 1 << 15   # numbers: they stay in the cache


def sigmoid(x):
    """By the exponential that does not overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


# The function of long doubles, where it bends, where it has a finite result; and the bounds for doubles and floats.
FUNCTIONS = {
    "exp": (np.exp, (-745.2, 709.78), (-750.0, 709.782712893384), 1.2, 1.2),
    "log": (np.log, (0.25, 4.0), (0.0, np.inf), 0.9, 0.9),
    "tanh": (np.tanh, (-20.0, 20.0), (-np.inf, np.inf), 1.5, 1.5),
    "sigmoid": (sigmoid, (-40.0, 40.0), (-np.inf, np.inf), 2.1, 2.1),
    "expm1": (np.expm1, (-40.0, 40.0), (-np.inf, 709.782712893384), 1.5, 0.6),
    "log1p": (np.log1p, (-0.99, 4.0), (-1.0, np.inf), 1.0, 0.6),
    "sin": (np.sin, (-100.0, 100.0), (-1e15, 1e15), 0.9, 1.6),
    "cos": (np.cos, (-100.0, 100.0), (-1e15, 1e15), 0.9, 1.6),
    "sinh": (np.sinh, (-40.0, 40.0), (-710.47, 710.47), 1.8, 0.6),
    "cosh": (np.cosh, (-40.0, 40.0), (-710.47, 710.47), 1.4, 0.6),
    "softplus": (softplus, (-40.0, 40.0), (-np.inf, np.inf), 1.8, 1.8),
}
MAIN = ("exp", "log", "tanh", "sigmoid")
LIMITS32 = {"exp": (-104.0, 88.72), "expm1": (-104.0, 88.72), "sinh": (-89.4, 89.4), "cosh": (-89.4, 89.4)}


def points(name, dtype, seed, count):
    """Numbers for which the function has a finite result."""
    draw = np.random.default_rng(seed)
    _, bends, within, _, _ = FUNCTIONS[name]
    if dtype == "float64":
        bits = draw.integers(0, 2**64, count // 2, dtype=np.uint64).view(np.float64)
    else:
        bits = draw.integers(0, 2**32, count // 2, dtype=np.uint32).view(np.float32)
        bends = LIMITS32.get(name, bends)
    with np.errstate(all="ignore"):
        spread = inside(name, dtype, bits.astype(np.float64))
    near = draw.uniform(*bends, count - spread.size)
    return np.concatenate([near.astype(np.float32).astype(np.float64) if dtype == "float32" else near, spread])


def inside(name, dtype, x):
    low, high = LIMITS32.get(name, FUNCTIONS[name][2]) if dtype == "float32" else FUNCTIONS[name][2]
    with np.errstate(invalid="ignore"):
        x = x[np.isfinite(x) & (x >= low) & (x <= high)]
    return x[x > low] if low in (0.0, -1.0) else x


def reference(name, dtype, x):
    """The exact result, nearly, and the unit of its last place."""
    with np.errstate(all="ignore"):
        if dtype == "float64":
            exact = FUNCTIONS[name][0](x.astype(L))
            return exact, np.spacing(np.abs(exact).astype(np.float64))
        exact = FUNCTIONS[name][0](x)
        return exact, np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)


def errors(got, exact, unit):
    """In units of the last place of the result."""
    with np.errstate(all="ignore"):
        return np.abs((got - exact).astype(np.float64)) / unit


class Function:
    """One function as this process's kernels have it."""

    def __init__(self, name, dtype):
        self.name, self.dtype = name, dtype
        self.call = getattr(flatgrad, name)
        if dtype == "float32":
            self.call = flatgrad.vmap(flatgrad.compile(self.call, dtype="float32"))

    def __call__(self, x):
        with flatgrad.no_grad():
            return self.call(Tensor(x, requires_grad=False)).data


def worst(units, x):
    """The largest error, and where; inf where a result is not finite."""
    if not x.size:
        return 0.0, 0.0
    at = int(np.argmax(np.where(np.isfinite(units), units, np.inf)))
    return (float(units[at]) if np.isfinite(units[at]) else float("inf")), float(x[at])


def serve(given, made, size):
    """Answer a line with a function, a type and a count: its results for as many numbers of one file into another."""
    x, results, known = np.memmap(given, float, "r", shape=size), np.memmap(made, float, "r+", shape=size), {}
    for line in sys.stdin:
        name, dtype, count = json.loads(line)
        if (name, dtype) not in known:
            known[name, dtype] = Function(name, dtype)
        results[:count] = known[name, dtype](np.array(x[:count]))
        print("done", flush=True)


class Level:
    """A process that has one level of kernels; the numbers and the results go through files in a folder."""

    def __init__(self, level, folder, size):
        self.level, made = level, str(Path(folder, level))
        self.results = np.memmap(made, float, "w+", shape=size)
        paths = os.pathsep.join([str(Path(__file__).resolve().parent.parent), *sys.path])
        self.process = subprocess.Popen(
            [sys.executable, "-c",
             f"from checks import ulps; ulps.serve({str(Path(folder, 'x'))!r}, {made!r}, {size})"],
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "FLATGRAD_ISA": level, "PYTHONPATH": paths})

    def ask(self, *question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()

    def answer(self, count):
        if self.process.stdout.readline() != "done\n":
            raise AssertionError(f"{self.level}: the process ended with {self.process.wait()}")
        return np.array(self.results[:count])

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def one_round(name, dtype, levels, shared, seed, part, found):
    """Measure, and keep the largest error of each level in `found`. part: which floats in order, or None."""
    if part is None:
        x = points(name, dtype, seed, AT_ONCE)
    else:
        bits = np.arange(part * AT_ONCE, (part + 1) * AT_ONCE, dtype=np.uint64).astype(np.uint32)
        with np.errstate(invalid="ignore"):
            x = inside(name, dtype, bits.view(np.float32).astype(np.float64))
    shared[:x.size] = x
    for level in levels:
        level.ask(name, dtype, x.size)
    exact, unit = reference(name, dtype, x)
    bound = FUNCTIONS[name][3 if dtype == "float64" else 4]
    for level in levels:
        units, at = worst(errors(level.answer(x.size), exact, unit), x)
        known = found.setdefault((name, dtype, level.level), [0, -1.0, 0.0])
        known[0] += x.size
        if units > known[1]:
            known[1:] = units, at
        words = f"{name}({at!r}) of {dtype}, {level.level}: {units:.3f} units, expected {bound} at most"
        assert units <= bound, words


def options(parser):
    parser.add_argument("--points", type=int, metavar="N", help="so many points for each function and type")
    parser.add_argument("--only", nargs="*", choices=FUNCTIONS, metavar="NAME", help="these functions alone")
    parser.add_argument("--dtype", choices=("float64", "float32"), help="this type alone")
    parser.add_argument("--level", help="this level alone")
    parser.add_argument("--every", action="store_true", help="every float, instead of some at random")


def run(limit, options):
    from flatgrad import _core
    if np.finfo(L).nmant < 63:
        raise Unavailable("needs long doubles of 64 bits")
    names = options.only or (list(FUNCTIONS) if limit.short or not options.points else MAIN)
    types = [options.dtype] if options.dtype else ["float32"] if options.every else ["float64", "float32"]
    questions = [(name, dtype) for name in names for dtype in types]
    rounds = None
    if options.every:
        rounds = 2**32 // AT_ONCE * len(questions)
    elif options.points:
        rounds = -(-options.points // AT_ONCE) * len(questions)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        shared = np.memmap(Path(folder, "x"), float, "w+", shape=AT_ONCE)
        levels = [Level(level, folder, AT_ONCE)
                  for level in ([options.level] if options.level else _core._kernel_levels())]
        try:
            for seed in limit if rounds is None else range(limit.first, limit.first + rounds):
                limit.seed = seed
                name, dtype = questions[seed % len(questions)]
                one_round(name, dtype, levels, shared, seed, seed // len(questions) if options.every else None, found)
        finally:
            for level in levels:
                level.close()
    for (name, dtype, level), (count, units, at) in sorted(found.items()):
        if not limit.short:
            print(f"{name:9} {dtype} {level:9} {count:13,} points: {units:.4f} units at {at!r}")
    worst = {}
    for (name, _, _), (_, units, _) in found.items():
        worst[name] = max(units, worst.get(name, 0.0))
    return f"{sum(known[0] for known in found.values()):,} results; units: " + ", ".join(
        f"{name} {units:.2f}" for name, units in worst.items())
