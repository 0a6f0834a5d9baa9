"""Random functions as C, as JAX and as PyTorch, against themselves.

The functions are those of compiled.py, each simplified by other steps; of each, a weighted sum of all results is
written in C, with its gradients by all parameters and arguments, and made a function of JAX and of PyTorch. Some are
functions of a batch, in lanes, and some are the step of a loop. The C of `batch` functions is compiled as one library.
Values and gradients, at the numbers that a function was recorded with and at others, are those of the function itself
but for 1e-12 of the largest, and for as much as they change when the operands change by 1e-13 of themselves; with
dtype='float32', for 1e8 times that. What is not installed is left out.
test_export_fuzz.py runs some dozen.
"""
import importlib.util
import random
import tempfile
from pathlib import Path

import c_files
import numpy as np

from checks import compiled
from checks.compiled import SUBSETS, UNITS, Unfit
from checks.limits import Unavailable

import flatgrad
from flatgrad import Tensor, Value, _core

SHORT = 6.0   # seconds

FAULTS = (ValueError, ZeroDivisionError, OverflowError, IndexError, Unfit)
INTO = ("c", "jax", "torch")
KINDS = ("plain", "plain", "plain", "plain", "lanes", "loop")


def installed(into):
    return bool(c_files.COMPILERS) if into == "c" else importlib.util.find_spec(into) is not None


def function_of(seed):
    """One without rows that take not all numbers for an operand, and whose written derivatives, which exports have, are
    other than the sweep's beyond: the order of a power's slope is a constant, and delta of huber is not below 0."""
    rows = compiled.ROWS
    compiled.ROWS = [row for row in rows if row["id"] not in ("POWER_SLOPE", "POWER_LOG", "HUBER")]
    try:
        return compiled.Function(seed)
    finally:
        compiled.ROWS = rows


class Case:
    """A random function of a vector and a matrix, one number, compiled; and what it gives at some points.

    Parameters
    ----------
    seed : int
    dtype : {"float64", "float32"}
    """

    def __init__(self, seed, dtype="float64"):
        self.seed, self.dtype, self.kind = seed, dtype, KINDS[seed % len(KINDS)]
        self.function = function = function_of(seed)
        function.alone = 0
        if dtype == "float32":
            function.round()
        draw = random.Random(seed + 1)
        width = len(function.numbers)
        self.samples = draw.randrange(1, 21) if self.kind != "plain" else 1
        first = np.array(function.numbers)
        if self.kind == "lanes":
            first = first * np.array([[draw.uniform(0.5, 1.2) for _ in range(width)] for _ in range(self.samples)])
        plain = self.of_samples if self.kind == "lanes" else self.of_loop if self.kind == "loop" else self.total
        self.plain = plain
        self.program = flatgrad.compile(self.in_lanes if self.kind == "lanes" else self.in_a_loop if self.kind == "loop"
                                        else lambda xs, t: plain(xs, t), simplify=set(SUBSETS[seed % len(SUBSETS)]),
                                        dtype=dtype)
        self.points = []
        for x, t in [(first, function.matrix), (first * draw.uniform(0.5, 1.2),
                                                function.matrix * draw.uniform(0.5, 1.2))]:
            if dtype == "float32":
                x, t = compiled.rounded(x), compiled.rounded(t)
            try:
                self.points.append((x, t, *self.expected(x, t)))
            except FAULTS:
                pass

    def total(self, xs, t):
        """A weighted sum of the results of the random function."""
        values, tensors = self.function(list(xs), t)
        nodes = [*values, *(x for y in tensors for x in y.reshape(-1))]
        return sum((x * w for x, w in zip(nodes, compiled.WEIGHTS)), Value(0.0))

    def of_samples(self, xs, t):
        return sum((self.total(x, t) for x in xs), Value(0.0)) / self.samples

    def in_lanes(self, xs, t):
        return flatgrad.vmap(self.total, in_axes=(0, None))(xs, t).sum() / self.samples

    def step(self, carry, t):
        """The next numbers of a loop, near those before."""
        y = (self.total(list(carry), t) * 0.1).tanh()
        return [x * 0.9 + y * (0.1 / (k + 1)) for k, x in enumerate(carry)]

    def of_loop(self, xs, t):
        carry = list(xs)
        for _ in range(self.samples):
            carry = self.step(carry, t)
        return sum(carry, Value(0.0))

    def in_a_loop(self, xs, t):
        carry = flatgrad.loops.fori_loop(0, self.samples, lambda k, carry: self.step(carry, t), list(xs))
        return sum(carry, Value(0.0))

    def evaluated(self, f, x, t):
        """The value, and the gradients by xs, t and the captured numbers as the function has them."""
        leaves = [Tensor(x), Tensor(t), *self.function.captured, self.function.tensor]
        for leaf in leaves:
            leaf.grad = np.zeros(leaf.shape) if isinstance(leaf, Tensor) else 0.0
        result = f(leaves[0], leaves[1])
        try:
            result.backward()
        except RuntimeError:   # it is a constant: gradients stay 0
            pass
        return np.array([result.data]), np.concatenate([np.ravel(leaf.grad) for leaf in leaves])

    def expected(self, x, t):
        """What the function gives, and how far others may be off."""
        found = self.evaluated(self.plain, x, t)

        class Moved:   # what `tolerance` asks for
            captured = self.function.captured
            numbers_of = staticmethod(lambda f, x, t, alone: self.evaluated(f, np.array(x).reshape(shape), t))

            def __setattr__(_, name, value):
                setattr(self.function, name, value)

        shape = x.shape
        allowed = compiled.tolerance(Moved(), self.plain, x.ravel().tolist(), t, False, found, UNITS[self.dtype])
        return found, allowed

    def arguments(self):
        return Tensor(self.points[0][0]), Tensor(self.points[0][1])

    def compare(self, into, k, value, gradient):
        """Hold what was found at point k against the function."""
        *_, (results, gradients), (of_results, of_gradients) = self.points[k]
        for what, got, want, most in (("value", value, results, of_results),
                                      ("gradient", gradient, gradients, of_gradients)):
            got = np.ravel(np.asarray(got, float))
            wrong = ~(np.abs(got - want) <= most)
            if wrong.any():
                j = int(np.argmax(wrong))
                raise AssertionError(f"seed {self.seed}, {self.kind}, {into}, {self.dtype}, point {k}, {what}, number {j} "
                                     f"of {len(got)}: {got[j]!r}, expected {want[j]!r}, {most[j]:.2e} allowed")


def places(case, exported):
    """Where the captured numbers are among the parameters of an export, or -1: those that the program does not read are
    none, and elements of the constant are parameters too."""
    core = next(reversed(case.program._programs.values())).core
    kept = {place: k for k, place in enumerate(np.flatnonzero(_core._captured_numbers(core)[1]).tolist())}
    assert len(exported) == len(kept)
    return [kept.get(place, -1) for place in
            _core._captured_places(core, [*case.function.captured, case.function.tensor])]


def spread(found, at):
    """Gradients by the captured numbers, 0 where the program reads none."""
    return np.array([0.0 if place < 0 else found[place] for place in at])


def check_c(cases, compiler=None):
    """Compare functions with their C, one library of all of them. How many comparisons."""
    made = [case.program.to_c(arguments=case.arguments(), gradient="both" if case.has_parameters else "arguments",
                              name=f"f{case.seed}") for case in cases]
    compared = 0
    with tempfile.TemporaryDirectory() as folder:
        library = c_files.library(Path(folder), made, compiler=compiler)
        for case, c in zip(cases, made):
            f = c_files.Functions(c, library)
            begin = []
            if case.has_parameters:
                f.start()
                begin = [f.written["p"].copy()]
            at = places(case, begin[0] if begin else [])
            for k, (x, t, *_) in enumerate(case.points):
                value = f.value(*begin, x, t)
                other = f.gradient(*begin, x, t)
                written = list(f.written.values())[:2 + bool(begin)]   # not the room for numbers in between
                assert value == other or case.dtype == "float32" or abs(value - other) <= case.points[k][3][0][0]
                by_captured = spread(written.pop(0), at) if begin else spread([], at)
                case.compare("C", k, value, np.concatenate([*written, by_captured]))
                compared += 1
    return compared


def check_jax(case):
    """Compare a function with that of JAX, jitted."""
    import jax

    jax.config.update("jax_enable_x64", True)
    g = case.program.to_jax(arguments=case.arguments())
    both, at = jax.jit(jax.value_and_grad(g, (0, 1, 2))), places(case, g.parameters)
    for k, (x, t, *_) in enumerate(case.points):
        kind = np.dtype(case.dtype)
        value, (captured, dx, dt) = both(g.parameters.astype(kind), x.astype(kind), t.astype(kind))
        case.compare("JAX", k, value, np.concatenate([np.ravel(dx), np.ravel(dt), spread(np.asarray(captured), at)]))
    return len(case.points)


def check_torch(case):
    """Compare a function with that of PyTorch."""
    import torch

    g = case.program.to_torch(arguments=case.arguments())
    at = places(case, g.parameters)
    for k, (x, t, *_) in enumerate(case.points):
        leaves = [torch.tensor(np.asarray(y, case.dtype), requires_grad=True) for y in (g.parameters, x, t)]
        value = g(*leaves)
        captured, dx, dt = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
        case.compare("PyTorch", k, value.detach(), np.concatenate([np.ravel(dx), np.ravel(dt), spread(captured, at)]))
    return len(case.points)


def cases_of(seeds, dtype):
    """The functions of some seeds that are a test."""
    found = []
    for seed in seeds:
        case = Case(seed, dtype)
        if case.points:
            try:
                case.program(*case.arguments())
            except FAULTS:
                continue
            except Exception as error:
                raise AssertionError(f"seed {seed}, {case.kind}") from error
            core = next(reversed(case.program._programs.values())).core
            if core is not None:   # it is no constant
                case.has_parameters = any(_core._captured_numbers(core)[1])
                found.append(case)
    return found


def check(seeds, dtype="float64", into=INTO, compiler=None):
    """Compare the functions of some seeds with what they are exported into. How many comparisons with each."""
    cases, compared = cases_of(seeds, dtype), dict.fromkeys(into, 0)
    for one in into:
        if one == "c":
            compared["c"] += check_c(cases, compiler)
            continue
        for case in cases:
            try:
                compared[one] += {"jax": check_jax, "torch": check_torch}[one](case)
            except AssertionError:
                raise
            except Exception as error:
                raise AssertionError(f"seed {case.seed}, {case.kind}, {one}, {dtype}") from error
    return compared


def options(parser):
    parser.add_argument("--batch", type=int, default=25, help="how many are compiled as one library (default 25)")
    parser.add_argument("--into", default=",".join(filter(installed, INTO)),
                        help="into what, of c, jax and torch (default: all that are installed)")
    parser.add_argument("--dtype", choices=sorted(UNITS), default="float64", help="of the programs (default float64)")


def run(limit, options):
    into = [x for x in options.into.split(",") if x]
    if not into:
        raise Unavailable("needs gcc, clang, jax or torch")
    compared = dict.fromkeys(into, 0)
    for seeds in limit.several(options.batch):
        for name, count in check(seeds, options.dtype, into).items():
            compared[name] += count
    return (f"{limit.rounds} functions, {limit.seeds}, {options.dtype}; comparisons: "
            f"{', '.join(f'{count} with {name}' for name, count in compared.items())}")
