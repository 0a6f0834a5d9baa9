"""The rows of csrc/ops.def as other languages have them: the C of flatgrad.export.formulas, compiled, and the same text
computed by NumPy, JAX and PyTorch, against the rows themselves."""
import ctypes
import itertools
import math
import os
import random
import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from others import run
from test_ops import IDS, INTEGERS, ORACLE, ROWS, same, special_operands, split

from flatgrad import _core, errors
from flatgrad.export import expressions, formulas

COMPILERS = sorted({os.path.realpath(found): found for name in ("cc", "gcc", "clang")
                    if os.name == "posix" and (found := shutil.which(name))}.values())
WARNINGS = ["-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wdouble-promotion", "-Wfloat-conversion", "-Wshadow",
            "-Werror"]
FLOATS = {"float64": np.float64, "float32": np.float32}
SMALL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 3.0, -3.0, 2.5, -0.25, math.inf, -math.inf, math.nan]   # also floats


def arity(op):
    return ROWS[op]["arity"]


def random_points(op, count=40):
    """Ordinary operands; the immediate of POWI is the last of them."""
    draw, points = random.Random(op), []
    for _ in range(count):
        point = [draw.uniform(0.05, 0.95) * (1 if draw.random() < 0.6 else draw.choice([-1, 3])) for _ in
                 range(arity(op))]
        for k in ORACLE[op].positive:
            point[k] = abs(point[k])
        if op == "LOGIT" or op == "BINARY_CROSS_ENTROPY":
            point = [draw.uniform(0.05, 0.95) for _ in point]
        if ORACLE[op].order:
            point[-1] = float(draw.randrange(1, 5))
        if ORACLE[op].immediate:
            point = [point[0], draw.choice(INTEGERS[:8]) if op == "POWI" else point[-1]]
        points.append(tuple(point))
    return points


def result(op, point):
    """What the row has as its result, or None where it is an error."""
    try:
        return ORACLE[op].apply(*split(op, point)[1]).data
    except (ArithmeticError, ValueError):
        return None


def by_immediate(op, points):
    """Operands and results of the row, for each immediate: (immediate, array of operands, array of results)."""
    found = {}
    for point in points:
        z = result(op, point)
        if z is not None:
            found.setdefault(int(point[1]) if op == "POWI" else None, []).append((*point[:arity(op)], z))
    return [(k, np.array(rows)[:, :-1], np.array(rows)[:, -1]) for k, rows in found.items()]


SPECIAL = {op: by_immediate(op, [*special_operands(op), *random_points(op)]) for op in IDS}


def ordinary(op):
    """Points that are floats, near 1 or at kinks and at the ends."""
    points = [tuple(np.float32(point).tolist()) for point in [*random_points(op)]]
    first = SMALL if arity(op) < 3 else SMALL[::2] + [math.nan]
    whole = [(x, k) for x in SMALL for k in (0, 1, 2, 3, -1, -2)]
    orders = [point for point in itertools.product(first, first, [0.0, 1.0, 2.0, 3.0])]
    return by_immediate(op, points + (whole if op == "POWI" else orders if ORACLE[op].order else
                                      list(itertools.product(first, repeat=2 if ORACLE[op].immediate else arity(op)))))


ORDINARY = {op: ordinary(op) for op in IDS}


# ---- C ----

def source(dtype, **changed):
    """C with a function for each row and immediate: on arrays."""
    real = "double" if dtype == "float64" else "float"
    parts = ["#include <float.h>", "#include <math.h>", "#include <stddef.h>",
             changed.get("definitions") or formulas.definitions([name for op in IDS for name in formulas.needs(op)], dtype)]
    for op in IDS:
        for immediate, *_ in SPECIAL[op]:
            operands = [f"x[{arity(op)} * i + {k}]" if k else f"x[{arity(op)} * i]" for k in range(arity(op))]
            parts.append(f"void {name_of(op, immediate)}(size_t n, const {real} *x, {real} *z);\n"
                         f"void {name_of(op, immediate)}(size_t n, const {real} *x, {real} *z)\n{{\n"
                         f"    for (size_t i = 0; i < n; i++)\n"
                         f"        z[i] = {formulas.expression(op, operands, dtype, immediate)};\n}}")
    return "\n\n".join(parts) + "\n"


def name_of(op, immediate):
    return f"row_{op}" + (f"_{immediate}".replace("-", "minus_") if immediate is not None else "")


def compiled(compiler, folder, text):
    path = folder / "rows.c"
    path.write_text(text)
    run(compiler, "-std=c11", "-O2", "-ffp-contract=off", *WARNINGS, "-shared", "-fPIC", path, "-o", folder / "rows.so",
        "-lm")
    return ctypes.CDLL(str(folder / "rows.so"))


def computed(library, op, immediate, points, dtype):
    points = np.ascontiguousarray(points, FLOATS[dtype])
    found = np.empty(len(points), FLOATS[dtype])
    function = getattr(library, name_of(op, immediate))
    function.restype, function.argtypes = None, [ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]
    function(len(points), points.ctypes.data, found.ctypes.data)
    return found


@pytest.fixture(scope="module", params=COMPILERS or [None], ids=lambda path: os.path.basename(path or "none"))
def libraries(request, tmp_path_factory):
    """The rows as C of both types."""
    if request.param is None:
        pytest.skip("there is no C compiler")
    return {dtype: compiled(request.param, tmp_path_factory.mktemp(dtype), source(dtype)) for dtype in FLOATS}


def differing(op, found, expected, points, ulps=0):
    """The points where numbers differ, by more than some ulps."""
    return [(op, *point.tolist(), z, want) for point, z, want in zip(points, found.tolist(), expected.tolist())
            if not same(z, want, ulps)]


@pytest.mark.parametrize("op", IDS)
def test_c_gives_the_same_numbers(op, libraries):
    """To the last bit: both call the same C library."""
    for immediate, points, expected in SPECIAL[op]:
        assert differing(op, computed(libraries["float64"], op, immediate, points, "float64"), expected, points) == []


def allowed(op, immediate, points, expected, unit):
    """How far results may be off: some units, and as much as they change when the operands change by one."""
    most = 16 * unit * np.abs(expected)
    for k in range(arity(op)):
        for way in (-1, 1):
            moved = points.copy()
            moved[:, k] *= 1 + way * unit
            if ORACLE[op].order and k == arity(op) - 1:
                continue
            with np.errstate(all="ignore"):
                other = np.broadcast_to(formulas.evaluate(op, np, list(moved.T), immediate), len(points))
                change = 4 * np.abs(other - expected)
            most += np.where(np.isfinite(change) & (change < 1e3 * unit * (1 + np.abs(expected))), change, 0)
    return most


def far_off(op, immediate, points, found, expected, unit, tiny):
    found = np.asarray(found, float)
    with np.errstate(all="ignore"):
        off = np.abs(found - expected) > allowed(op, immediate, points, expected, unit) + tiny
    off[~np.isfinite(expected)] = False
    off |= (np.isnan(found) != np.isnan(expected)) | (np.isinf(expected) & (found != expected))
    off |= (found == 0) & (expected == 0) & (np.signbit(found) != np.signbit(expected))
    return [(op, immediate, *points[k], found[k], expected[k]) for k in np.flatnonzero(off)]


@pytest.mark.parametrize("op", IDS)
def test_c_of_floats_gives_the_numbers_of_floats(op, libraries):
    for immediate, points, expected in ORDINARY[op]:
        found = computed(libraries["float32"], op, immediate, points, "float32")
        assert far_off(op, immediate, points, found, expected, 2.0**-24, 1e-45) == []


def test_the_check_fails_for_a_formula_that_is_another(tmp_path):
    """By the last digit of a constant; and for one whose kink is elsewhere."""
    if not COMPILERS:
        pytest.skip("there is no C compiler")
    text = source("float64")
    for k, (old, new, op) in enumerate([("FG_DENSITY 0.398942280401432", "FG_DENSITY 0.398942280401433", "GELU_SLOPE"),
                                        ("x > 0.0 ? 1.0 : x < 0.0", "x >= 0.0 ? 1.0 : x < 0.0", "SIGN")]):
        assert old in text
        (tmp_path / str(k)).mkdir()
        library = compiled(COMPILERS[0], tmp_path / str(k), text.replace(old, new))
        (immediate, points, expected), = SPECIAL[op]
        assert differing(op, computed(library, op, immediate, points, "float64"), expected, points)


@pytest.mark.parametrize("compiler", COMPILERS, ids=os.path.basename)
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_definition_is_clean_c_by_itself(compiler, dtype, tmp_path):
    """Also the functions that no forward rule needs, each with what it needs alone."""
    names = [name for name, *_ in _core._formulas()[1]]
    texts = [formulas.definitions([name], dtype) for name in names] + [formulas.definitions(names[::-1], dtype)]
    assert [text for text in texts if any(len(line) > 110 or line != line.rstrip() for line in text.split("\n"))] == []
    for k, text in enumerate([texts[-1], "\n\n".join(dict.fromkeys("\n\n".join(texts[:-1]).split("\n\n")))]):
        path = tmp_path / f"{k}.c"   # the second: in any order that the single ones have
        path.write_text("#include <float.h>\n#include <math.h>\n#include <stdint.h>\n"
                        + text.replace("static inline", "static inline __attribute__((unused))") + "\n")
        run(compiler, "-std=c11", *WARNINGS, "-fsyntax-only", path)


def test_definitions_hold_what_is_needed_and_no_more():
    def defined(text):
        return [line.split("(")[0].split()[-1] if line.startswith("static") else line.split()[1]
                for line in text.split("\n") if line.startswith(("static", "#define"))]

    assert defined(formulas.definitions(["fg_d2gelu_tanh"])) == [
        "FG_SQRT_2_PI", "FG_GELU_CUBE", "fg_sigmoid", "fg_logistic_density", "fg_d2gelu_tanh"]
    assert formulas.definitions([]) == "" and formulas.needs("ADD") == () == formulas.needs("POWI", 7)
    relu = formulas.definitions(["fg_relu"], "float32")
    assert relu.startswith("#if ") and relu.count("static inline float fg_relu(float x)") == 2 and "FLT_TRUE_MIN" in relu


def test_operands_are_taken_whole():
    assert formulas.expression("MUL", ["a + b", "-c"]) == "(a + b) * (-c)"
    assert formulas.expression("MAXIMUM", ["a + b", "-c"]) == "fg_maximum(a + b, -c)"
    assert formulas.expression("NEG", ["x[i + 1]"]) == "-x[i + 1]"
    assert formulas.expression("SQUARED_ERROR", ["y", "x"]) == "(y - x) * (y - x)"


@pytest.mark.parametrize("call, kind, message", [
    (lambda: formulas.expression("TAHN", ["x"]), errors.UnknownNameError, "op: expected one of .*, got 'TAHN'"),
    (lambda: formulas.expression("ADD", ["x"]), errors.ArgumentError, "arguments: expected 2 for ADD, got "),
    (lambda: formulas.expression("POWI", ["x"]), errors.ArgumentError, "immediate: expected an int .* got None"),
    (lambda: formulas.expression("ADD", ["x", "y"], "half"), errors.UnknownNameError, "dtype: expected one of "),
    (lambda: formulas.needs("LAYER"), errors.UnknownNameError, "op: expected one of "),
    (lambda: formulas.definitions(["fg_nothing"]), errors.UnknownNameError, "names: expected one of "),
    (lambda: formulas.evaluate("ADD", np, [1.0]), errors.ArgumentError, "operands: expected 2 for ADD, got 1"),
    (lambda: formulas.evaluate("GELU", SimpleNamespace(__name__="nothing"), [np.ones(2)]), errors.ArgumentError,
     "xp: expected a namespace with erfc"),
])
def test_wrong_calls(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


# ---- computed on arrays ----

class Arrays:
    """NumPy, JAX or PyTorch: `array` makes an array of theirs, and `check` is told what its type is."""

    def __init__(self, name):
        self.name = name
        if name == "numpy":
            self.xp, self.array = np, np.asarray
        elif name == "torch":
            self.xp = pytest.importorskip("torch")
            self.array = lambda x: self.xp.asarray(np.array(x))
        else:
            jax = pytest.importorskip("jax")
            self.xp, self.array, self.jax = jax.numpy, jax.numpy.asarray, jax

    def wide(self):
        """JAX takes float64 within this alone."""
        return self.jax.enable_x64(True) if self.name == "jax" else np.errstate(all="ignore")

    def evaluate(self, op, operands, immediate):
        with np.errstate(all="ignore"):
            found = formulas.evaluate(op, self.xp, [x if isinstance(x, float) else self.array(x) for x in operands],
                                      immediate)
        return found


@pytest.fixture(params=["numpy", "jax", "torch"])
def arrays(request):
    made = Arrays(request.param)
    with made.wide():
        yield made


# NumPy's own functions, and XLA's, are some units off. XLA counts what is below the normal numbers as 0, also on the
# way; PyTorch takes some exponentials for small that are subnormal, and makes inf of the largest numbers.
UNIT = {"numpy": 2.0**-53, "jax": 2.0**-49, "torch": 2.0**-53}
TINY = {"numpy": 1e-310, "jax": 2.3e-308, "torch": 1e-307}
LIMITS = {"numpy": (0, math.inf), "jax": (1e-150, 700), "torch": (2.3e-308, math.inf)}   # of operands
LARGEST = {"numpy": math.inf, "jax": 8.9e307, "torch": 8.9e307}   # of results


def within(name, points, expected):
    """Where a package computes with numbers that it can keep."""
    (low, high), size = LIMITS[name], np.abs(points)
    kept = (size == 0) | ~np.isfinite(size) | (size >= low) & (size <= high)
    result = np.abs(expected)
    return kept.all(axis=1) & ((result == 0) | ~np.isfinite(result) | (result >= low) & (result <= LARGEST[name]))


@pytest.mark.parametrize("op", IDS)
def test_arrays_give_the_same_numbers(op, arrays):
    for immediate, points, expected in SPECIAL[op]:
        numbers = [0.0, -0.0, 0.5, 1.0, 2.0, 3.0, -1.0, math.inf] if arity(op) > 1 else []
        for columns in [list(points.T), *([*points.T[:-1], number] for number in numbers)]:
            chosen = np.array([same(x, y, 0) for x, y in zip(points[:, -1], np.broadcast_to(columns[-1], len(points)))])
            found = np.asarray(arrays.evaluate(op, columns, immediate))
            assert found.dtype == np.float64 and found.shape == (len(points),)
            chosen &= within(arrays.name, points, expected)
            assert far_off(op, immediate, points[chosen], found[chosen], expected[chosen], UNIT[arrays.name],
                           TINY[arrays.name]) == []


@pytest.mark.parametrize("op", IDS)
def test_arrays_of_floats_stay_arrays_of_floats(op, arrays):
    for immediate, points, expected in ORDINARY[op]:
        found = np.asarray(arrays.evaluate(op, list(np.float32(points.T)), immediate))
        assert found.dtype == np.float32
        assert far_off(op, immediate, points, found, expected, 2.0**-24, 1e-37) == []
        for k in range(min(2, len(points))):   # of no dimension, and with numbers among the operands
            point = points[k].tolist()
            for operands in ([np.float32(point[0]).reshape(()), *point[1:]],
                             [*point[:-1], np.full(3, point[-1], np.float32)]):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = arrays.evaluate(op, operands, immediate)
                assert np.asarray(found).dtype == np.float32 and tuple(found.shape) == operands[-1 if np.ndim(
                    operands[-1]) else 0].shape


@pytest.mark.parametrize("op", IDS)
def test_numbers_stay_numbers(op, arrays):
    for immediate, points, expected in ORDINARY[op]:
        for point, want in zip(points.tolist(), expected.tolist()):
            found = formulas.evaluate(op, arrays.xp, point, immediate)
            assert isinstance(found, float) and same(found, want, 2 * (ORACLE[op].ulps + ORACLE[op].libm)), (op, point)


def test_what_is_not_taken_is_not_computed():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert formulas.evaluate("SIGMOID", np, [np.array([800.0, 900.0])]).tolist() == [1.0, 1.0]
        assert formulas.evaluate("KL_DIV", np, [np.array([1.0]), np.zeros(1)]).tolist() == [0.0]


def test_jax_takes_all_of_it_under_jit():
    """Also the loops of the slopes of powers, of an order that is not known yet; and under vmap."""
    arrays = Arrays("jax")
    with arrays.wide():
        for op in IDS:
            immediate, points, _ = ORDINARY[op][0]
            operands = [arrays.array(x) for x in points.T]

            def evaluated(*operands, op=op, immediate=immediate):
                return formulas.evaluate(op, arrays.xp, operands, immediate)

            plain = np.asarray(evaluated(*operands))
            for other in arrays.jax.jit(evaluated), arrays.jax.vmap(evaluated):
                assert far_off(op, immediate, points, np.asarray(other(*operands)), plain, UNIT["jax"], TINY["jax"]) == []


# ---- the parser ----

def test_the_parser_knows_the_rank_of_operators():
    for text, same_as in [("a + b * -c < d && e || !f", "(((a + (b * (-c))) < d) && e) || (!f)"),
                          ("a == b < c", "a == (b < c)"), ("a / b / c", "(a / b) / c")]:
        assert expressions.expression_of(text) == expressions.expression_of(same_as)
    choice = expressions.expression_of("a < 1 ? b : c ? 2 : 2.5e-3")
    assert choice[:2] == (("<", "a", 1), "b") and choice.second[:3] == ("c", 2, 2.5e-3)
    assert expressions.expression_of("a - b - c") == ("-", ("-", "a", "b"), "c")
    assert expressions.expression_of("(double)1e-12f") == ("cast", "double", float(np.float32(1e-12)))


@pytest.mark.parametrize("text", ["a +", "a b", "a ? b", "f(a", "a @ b", "1 +* 2"])
def test_the_parser_refuses_what_it_does_not_know(text):
    with pytest.raises((AssertionError, IndexError)):
        expressions.expression_of(text)
