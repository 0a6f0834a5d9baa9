"""The C of bodies: every instruction and kind of view against NumPy, compiled programs against themselves.

The oracle `computed` knows the instructions from the head of csrc/block.h, not from the writer: it gathers operands
slot by slot, and computes with NumPy's functions.
"""
import ctypes
import shutil
from random import Random

import numpy as np
import pytest
from others import other, run

import flatgrad
from flatgrad import nn
from flatgrad.export import formulas
from flatgrad.export.c.body import body_function, helper_definitions, literal
from flatgrad.export.exported import Exported
from flatgrad.export.listing import Body, Instruction, View, listing, slots_of

COMPILERS = [c for c in ("gcc", "clang") if shutil.which(c)]
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror"]
TYPES = {"float64": ("double", np.float64), "float32": ("float", np.float32)}

pytestmark = pytest.mark.skipif(not COMPILERS, reason="no gcc or clang")


# ---- C, compiled ----

class Functions:
    """The functions of a file: each body once."""

    def __init__(self, dtype="float64"):
        self.dtype, self.found, self.texts, self.helpers, self.formulas = dtype, {}, [], {}, {}

    def of(self, callee):
        key = id(callee)
        if key not in self.found:
            body = callee if isinstance(callee, Body) else listing(callee)
            name = f"body_{len(self.found)}"
            self.found[key] = name, None, callee, body
            text = body_function(body, name, {}, self.dtype, self)
            self.found[key] = name, text.work, callee, body
            self.texts.append(text.text)
            self.helpers.update(dict.fromkeys(text.helpers))
            self.formulas.update(dict.fromkeys(text.formulas))
        return self.found[key][:2]

    def source(self):
        real = TYPES[self.dtype][0]
        entries = []
        for name, _, _, body in self.found.values():
            arguments = "".join(f"a[{k}], " for k in range(len(body.segments)))
            signature = f"void run_{name}(const {real} *const *a, {real} *out, {real} *work)"
            entries.append(f"{signature};\n{signature}\n{{\n    (void)a;\n    {name}({arguments}out, work);\n}}\n")
        return "\n".join(["#include <math.h>\n", formulas.definitions(tuple(self.formulas), self.dtype) + "\n",
                          helper_definitions(self.helpers, self.dtype), *self.texts, *entries])


@pytest.fixture
def compiled(tmp_path):
    """Compiles Functions, without a warning by any compiler, and gives for each callee what runs it."""
    def compile_all(functions, compiler=COMPILERS[0], flags=("-O0",)):
        name = f"bodies{len(list(tmp_path.iterdir()))}"   # a library that is loaded stays as it is
        source, library = tmp_path / f"{name}.c", tmp_path / f"{name}.so"
        source.write_text(functions.source())
        extra = ["-Wdouble-promotion"] if functions.dtype == "float32" else []
        for also in COMPILERS:
            if also != compiler:
                run(also, *WARNINGS, *extra, "-fsyntax-only", source)
        run(compiler, *WARNINGS, *extra, *flags, "-fPIC", "-shared", "-o", library, source, "-lm")
        loaded = ctypes.CDLL(str(library))
        return {id(callee): runner(getattr(loaded, f"run_{name}"), work, body, functions.dtype)
                for name, work, callee, body in functions.found.values()}
    return compile_all


def runner(function, work, body, dtype):
    """The function of a body as a function of all its operands in a row."""
    real = TYPES[dtype][1]

    def run(operands):
        operands = np.asarray(operands, real)
        arrays = [np.array(operands[s.first - 1:s.first - 1 + s.count]) for s in body.segments]
        pointers = (ctypes.c_void_p * max(len(arrays), 1))(*[a.ctypes.data for a in arrays])
        guard = 7.25   # numbers behind the arrays stay as they are
        out, room = np.full(len(body.results) + 4, guard, real), np.full(work + 4, np.nan, real)
        room[work:] = guard
        function(pointers, ctypes.c_void_p(out.ctypes.data), ctypes.c_void_p(room.ctypes.data))
        assert (out[-4:] == guard).all() and (room[work:] == guard).all()
        return out[:-4]
    return run


# ---- the oracle ----

def computed(body, operands):
    """The results of a body, by NumPy."""
    number = np.full(body.nodes + 1, np.nan)
    number[1:len(operands) + 1] = operands
    for slot, value in body.constants.items():
        number[slot] = value
    for i in body.instructions:
        found = result_of(i, number)
        number[i.first:i.first + i.rows * i.cols] = np.ravel(found)
    return number[list(body.results)]


def result_of(i, number):
    with np.errstate(all="ignore"):
        if i.operands and not isinstance(i.operands[0], View):
            return formulas.evaluate(i.op, np, [number[s] for s in i.operands], i.immediate)
        views = [number[slots_of(v)] for v in i.operands]
        x = views[0]
        single = i.rows * i.cols == 1
        if i.op == "MAP":
            return np.broadcast_to(formulas.evaluate(i.param, np, views, i.immediate), (i.rows, i.cols))
        if i.op == "LAYER":
            z = x @ views[1].T + (views[2] if len(views) == 3 else 0.0)
            return z if i.param == "LEAF" else formulas.evaluate(i.param, np, [z], i.immediate)
        if i.op in ("SUM", "MEAN", "MAX"):
            return getattr(np, i.op.lower())(x, axis=None if single else 1)
        if i.op == "TAKE":
            positions = views[1][0].astype(int)
            return x[positions] if i.immediate == 0 else x[np.arange(len(x)), positions]
        if single and i.op == "LOGSUMEXP":
            x = x.reshape(1, -1)
        most = x.max(axis=1, keepdims=True)
        total = np.log(np.exp(x - most).sum(axis=1, keepdims=True))
        if i.op == "LOGSUMEXP":
            return most + total
        logs = x - most - total
        if i.op == "CROSS_ENTROPY":
            return -logs[np.arange(len(x)), list(i.labels)].mean()
        return np.exp(logs) if i.op == "SOFTMAX" else logs


# ---- bodies at random ----

class Maker:
    """A body of instructions at random."""

    def __init__(self, seed):
        self.rng = Random(seed)
        self.segments = [self.rng.choice([1, 3, 40, 200]) for _ in range(self.rng.randint(1, 3))] + [300]
        self.area = sum(self.segments)
        self.nodes = self.area + 2   # a hole
        self.constants, self.instructions = {}, []
        self.many = []               # (first, count) of numbers that lie in a row
        first = 1
        for count in self.segments:
            self.many.append((first, count))
            first += count
        values = [0.5, -1.25, 0.1, 3.0, 1e-3, 0.5]
        for value in values + [self.rng.uniform(-1, 1) for _ in range(40)]:
            self.constants[self.nodes] = value
            self.nodes += 1
        self.many.append((self.nodes - 46, 46))

    def slot(self):
        first, count = self.rng.choice(self.many[-6:] if self.rng.random() < 0.5 else self.many)
        return first + self.rng.randrange(count)

    def view(self, rows, cols):
        """A view of any kind."""
        rng = self.rng
        kind = rng.choice(["dense", "dense", "apart", "turned", "repeated", "listed", "rows listed", "columns listed",
                           "one"])
        if kind in ("dense", "apart", "turned", "repeated"):
            down, across = {"dense": (cols, 1), "apart": (cols + rng.randint(1, 3), 1), "turned": (1, rows),
                            "repeated": rng.choice([(0, 1), (1, 0), (0, 2)])}[kind]
            need = down * (rows - 1) + across * (cols - 1) + 1
            places = [(f, c) for f, c in self.many if c >= need]
            if places:
                first, count = rng.choice(places)
                return View(rows, cols, first + rng.randint(0, count - need), down if rows > 1 else 0,
                            across if cols > 1 else 0, None)
        if kind == "one":
            return View(rows, cols, 0, 0, 0, (self.slot(),) * (rows * cols))
        if kind == "rows listed":      # rows from anywhere
            starts = [rng.choice([(f, c) for f, c in self.many if c >= cols] or [(self.area - 299, 300)])
                      for _ in range(rows)]
            return View(rows, cols, 0, 0, 0, tuple(f + j for f, _ in starts for j in range(cols)))
        if kind == "columns listed":   # even, but told as a list
            first, step = self.area - 299, rng.randint(1, 3)
            slots = [first + (i + step * j) % 300 for i in range(rows) for j in range(cols)]
            return View(rows, cols, 0, 0, 0, tuple(slots))
        return View(rows, cols, 0, 0, 0, tuple(self.slot() for _ in range(rows * cols)))

    def add(self, op, rows, cols, operands, param="", immediate=0, labels=()):
        self.instructions.append(Instruction(op, self.nodes, rows, cols, param, immediate, tuple(operands),
                                             tuple(labels), None))
        self.many.append((self.nodes, rows * cols))
        self.nodes += rows * cols + self.rng.randint(0, 1)

    def size(self):
        return self.rng.choice([1, 1, 2, 3, 4, 5, 7, 16, 17, 20])

    def instruction(self):
        rng = self.rng
        m, n, k = self.size(), self.size(), self.size()
        kind = rng.choice(["single", "single", "like", "map", "map", "map", "layer", "layer", "layer", "reduction",
                           "softmax", "cross entropy", "take"])
        one, two = ["TANH", "RELU", "SIGMOID", "NEG", "SIN"], ["ADD", "MUL", "SUB", "GATE", "TANH_SLOPE"]
        three = ["WHERE"]
        row = rng.choice(one + two + three)
        arity = 1 if row in one else 2 if row in two else 3
        if kind == "single":
            self.add(row, 1, 1, [self.slot() for _ in range(arity)])
        elif kind == "like":           # a loop in C, if none needs another
            count = rng.randint(2, 9)
            firsts = [self.slot() for _ in range(arity)]
            steps = [rng.choice([0, 1, 1, 2]) for _ in range(arity)]
            if all(f + s * count <= self.area for f, s in zip(firsts, steps)) or rng.random() < 0.3:
                for j in range(count):
                    operands = [min(f + s * j, self.area) if f <= self.area else f for f, s in zip(firsts, steps)]
                    self.instructions.append(Instruction(row, self.nodes, 1, 1, "", 0, tuple(operands), (), None))
                    self.nodes += 1
                self.many.append((self.nodes - count, count))
        elif kind == "map":
            shapes = [(m, n)] + [rng.choice([(m, n), (m, n), (1, n), (m, 1), (1, 1)]) for _ in range(arity - 1)]
            rng.shuffle(shapes)
            self.add("MAP", m, n, [self.view(*shape) for shape in shapes], row)
        elif kind == "layer":
            views = [self.view(m, k), self.view(n, k)] + [self.view(1, n)] * rng.randint(0, 1)
            self.add("LAYER", m, n, views, rng.choice(["LEAF", "LEAF", "RELU", "TANH", "SIGMOID"]))
        elif kind == "reduction":
            shape = rng.choice([(1, 1), (1, m), (m, 1)])
            self.add(rng.choice(["SUM", "SUM", "MEAN", "MAX", "LOGSUMEXP"]), *shape, [self.view(m, n)])
        elif kind == "softmax":
            self.add(rng.choice(["SOFTMAX", "LOG_SOFTMAX"]), m, n, [self.view(m, n)])
        elif kind == "cross entropy":
            self.add("CROSS_ENTROPY", 1, 1, [self.view(m, n)], labels=[rng.randrange(n) for _ in range(m)])
        else:
            self.take(m, n, k)

    def take(self, m, n, k):
        rng = self.rng
        each = rng.randint(0, 1)
        count, length = (m, n) if each else (k, m)
        first = self.nodes
        for _ in range(count):
            self.constants[self.nodes] = float(rng.randint(-length, length - 1))
            self.nodes += 1
        if rng.random() < 0.7:         # numbers that are computed
            for j in range(count):
                self.instructions.append(Instruction("COPY", self.nodes, 1, 1, "", 0, (first + j,), (), None))
                self.nodes += 1
            first = self.nodes - count
        positions = View(1, count, first, 0, 1, None)
        self.add("TAKE", *((1, m) if each else (k, n)), [self.view(m, n), positions], immediate=each)

    def body(self, count):
        for _ in range(count):
            self.instruction()
        results = []
        for _ in range(self.rng.randint(1, 6)):
            first, size = self.rng.choice(self.many[-4:] if self.rng.random() < 0.7 else self.many)
            results += range(first, first + size)
        order = self.rng.random()
        if order < 0.3:
            self.rng.shuffle(results)
        elif order < 0.6:              # apart from each other
            results = [x for pair in zip(results, results[::-1]) for x in pair]
        first, segments = 1, []
        for size in self.segments:
            segments.append((first, size))
            first += size
        return Body({"segments": segments, "area": self.area, "nodes": self.nodes, "constants": self.constants,
                     "instructions": [tuple(i) for i in self.instructions], "results": tuple(results)})


def compare(run, body, seed, tolerance):
    operands = np.random.default_rng(seed).uniform(-1.0, 1.0, sum(s.count for s in body.segments))
    if tolerance > 1e-6:
        operands = operands.astype(np.float32).astype(float)
    expected, found = computed(body, operands), run(operands)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("dtype", TYPES)
def test_bodies_at_random(compiled, dtype, compiler):
    seeds = range(COMPILERS.index(compiler), 60, len(COMPILERS))   # each by one compiler
    bodies = [Maker(seed).body(1 + seed % 25) for seed in seeds]
    functions = Functions(dtype)
    for body in bodies:
        functions.of(body)
    run = compiled(functions, compiler, ("-O2",))
    for seed, body in zip(seeds, bodies, strict=True):
        compare(run[id(body)], body, seed, 1e-11 if dtype == "float64" else 2e-3)


def body_of(segments, instructions, results, constants=None, nodes=None):
    """A Body by hand."""
    first, found = 1, []
    for count in segments:
        found.append((first, count))
        first += count
    nodes = nodes or max(i[1] + i[2] * i[3] for i in instructions) + 1
    return Body({"segments": found, "area": first - 1, "nodes": nodes, "constants": constants or {},
                 "instructions": [tuple(i) for i in instructions], "results": tuple(results)})


POINTS = [-2.5, -1.0, -0.3, -0.0, 0.0, 0.2, 0.9, 1.0, 3.0]


@pytest.mark.parametrize("dtype", TYPES)
def test_every_row_alone_and_as_a_loop(compiled, dtype):
    functions, cases = Functions(dtype), []
    for op, (arity, _) in formulas.ROWS.items():
        immediate = 3 if op == "POWI" else 0
        n = len(POINTS)
        single = [(op, 3 * n + 1 + k, 1, 1, "", immediate, tuple(j * n + 1 + k for j in range(arity)), (), None)
                  for k in (1, n - 1)]
        single[1] = (op, 3 * n + 3, *single[1][2:])
        wide = ("MAP", 3 * n + 5, 1, n, op, immediate, tuple(View(1, n, j * n + 1, 0, 1, None) for j in range(arity)),
                (), None)
        body = body_of([n, n, n], [*single, wide], [single[0][1], single[1][1], *range(wide[1], wide[1] + n)])
        functions.of(body)
        cases.append((op, body))
    run = compiled(functions)
    rng = np.random.default_rng(0)
    for op, body in cases:
        for _ in range(4):
            operands = np.array([rng.permutation(POINTS) for _ in range(3)]).ravel().astype(TYPES[dtype][1])
            if op in ("POWER_SLOPE", "POWER_LOG"):
                operands[2 * len(POINTS):] = 2.0
            tolerance = 1e-12 if dtype == "float64" else 2e-5
            expected = computed(body, operands.astype(float))
            with np.errstate(over="ignore"):
                expected = expected.astype(TYPES[dtype][1])
            np.testing.assert_allclose(run[id(body)](operands), expected, rtol=tolerance, atol=tolerance, err_msg=op)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_is_at_a_position_that_is_none_is_nan(compiled, dtype):
    table, numbers = View(3, 2, 1, 2, 1, None), View(1, 5, 7, 0, 1, None)
    rows = ("TAKE", 12, 5, 2, "", 0, (table, numbers), (), None)
    each = ("TAKE", 22, 1, 3, "", 1, (View(3, 2, 1, 2, 1, None), View(1, 3, 7, 0, 1, None)), (), None)
    body = body_of([6, 5], [rows, each], range(12, 25))
    functions = Functions(dtype)
    functions.of(body)
    run = compiled(functions)[id(body)]
    table, none = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [np.nan, np.nan]
    for wrong in (1e30, -1e30, np.nan, np.inf, -np.inf, 3.0, -4.0, 0.5, -0.25):
        found = run([*table, -3.0, wrong, 2.0, wrong, -1.0])
        np.testing.assert_array_equal(found[:10].reshape(5, 2), [[0.0, 1.0], none, [4.0, 5.0], none, [4.0, 5.0]])
        assert np.isnan(found[10:]).all()
    assert run([*table, 1.0, -2.0, 0.0, 0.0, 0.0])[10:].tolist() == [1.0, 2.0, 4.0]


def test_numbers_are_exact(compiled):
    values = [0.1, -1.0 / 3.0, 5e-324, 1.7976931348623157e308, np.inf, -np.inf, np.nan, -0.0, 2.0**53, 1e16, 123456.0]
    for dtype, (_, kind) in TYPES.items():
        constants = {2 + k: v for k, v in enumerate(values)}
        n = len(values)
        instructions = [("MUL", 2 + n + k, 1, 1, "", 0, (1, 2 + k), (), None) for k in range(n)]
        body = body_of([1], instructions[::2], [*range(2, 2 + n), *(i[1] for i in instructions[::2])], constants,
                       2 + 2 * n)
        functions = Functions(dtype)
        functions.of(body)
        found = compiled(functions)[id(body)]([1.0])
        with np.errstate(over="ignore"):
            exact = np.array(values, kind)
        np.testing.assert_array_equal(found[:n], exact)
        np.testing.assert_array_equal(found[n:], exact[::2])
        assert np.signbit(found[:n]).tolist() == np.signbit(exact).tolist()
    assert literal(0.1) == "0.1" and literal(0.1, "float32") == "0.1f" and literal(1e16) == "1e+16"


def test_no_numbers_in_a_sum(compiled):
    views = View(2, 0, 0, 0, 0, None), View(3, 0, 0, 0, 0, None), View(1, 3, 1, 0, 1, None)
    body = body_of([3], [("LAYER", 4, 2, 3, "LEAF", 0, views, (), None)], range(4, 10))
    functions = Functions()
    functions.of(body)
    assert compiled(functions)[id(body)]([1.0, 2.0, 3.0]).tolist() == [1.0, 2.0, 3.0] * 2


def test_infinities_in_rows(compiled):
    x = View(3, 2, 1, 2, 1, None)
    ops = ["LOGSUMEXP", "MAX", "SUM"]
    body = body_of([6], [(op, 7 + 3 * k, 3, 1, "", 0, (x,), (), None) for k, op in enumerate(ops)], range(7, 16))
    functions = Functions()
    functions.of(body)
    found = compiled(functions)[id(body)]([-np.inf, -np.inf, np.inf, 1.0, np.nan, 2.0]).reshape(3, 3)
    inf, nan = np.inf, np.nan
    np.testing.assert_array_equal(found, [[-inf, inf, nan], [-inf, inf, nan], [-inf, inf, nan]])


# ---- programs ----

def operands_of(exported, arguments=()):
    body = listing(exported.callee)
    numbers = np.zeros(body.area)
    numbers[exported.slots - 1] = exported.parameters
    for slot, value in exported.constants.items():
        numbers[slot - 1] = value
    flat = np.concatenate([np.ravel(a) for a in arguments]) if arguments else []
    numbers[:len(flat)] = flat
    return np.concatenate([numbers[s.first - 1:s.first - 1 + s.count] for s in body.segments])


def programs():
    """(name, function, arguments, parameters)."""
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((100, 2)), rng.choice([-1.0, 1.0], 100)
    Xs = flatgrad.Tensor(X, requires_grad=False)
    model = nn.MLP(2, [16, 16, 1])
    parameters = model.parameters()

    def moons():
        return flatgrad.losses.hinge(model(Xs), y) + 1e-4 * flatgrad.dot(parameters, parameters)
    yield "moons", moons, (), parameters
    small = nn.MLP(2, [4, 1])
    yield "one sample", lambda x, t: (small(x) - t) ** 2, ([0.3, -0.7], 0.5), small.parameters()
    C = flatgrad.Tensor(rng.standard_normal((20, 5)), requires_grad=False)
    classes = nn.MLP(5, [7, 3])
    labels = rng.integers(0, 3, 20).tolist()
    yield "classes", lambda: flatgrad.losses.cross_entropy(classes(C), labels), (), classes.parameters()
    ws = [flatgrad.Value(v) for v in rng.uniform(0.2, 1.0, 6)]

    def scalars(a, b):
        z = a
        for w in ws:
            z = (z * w + b).tanh() + (w ** 2 + 1.0).log() / (w.exp() + 0.5)
        return z.sigmoid() * z + flatgrad.softmax(ws)[2]
    yield "scalars", scalars, (0.4, -1.2), ws
    inner = flatgrad.compile(scalars)
    yield "calls", lambda a: inner(a, ws[0]) * inner(ws[1], 2.0) + inner(a, a), (0.1,), ws


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("flags", [("-O0", "-g", "-fsanitize=address,undefined"), ("-O3",),
                                   ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno")])
def test_programs(compiler, flags, tmp_path):
    for name, fn, arguments, parameters in programs():
        fn = flatgrad.compile(fn)
        for p in parameters:
            p.grad = 0.0
        value = fn(*arguments)
        value.backward()
        exported = Exported(fn)
        callee, at = exported.gradient()
        operands = operands_of(exported, arguments)
        found = run_alone(callee, operands, compiler, flags, tmp_path)
        gradient = [found[at[slot]] if slot in at else 0.0 for slot in exported.slots.tolist()]
        expected = {id(p): p.grad for p in parameters}
        assert len(gradient) == len(expected)
        np.testing.assert_allclose(found[0], value.data, rtol=1e-13, err_msg=name)
        np.testing.assert_allclose(gradient, list(expected.values()), rtol=1e-12, atol=1e-15, err_msg=name)


def run_alone(callee, operands, compiler, flags, folder):
    """The results of a callee, by a program of its own: so that the sanitizers see it."""
    functions = Functions()
    name, work = functions.of(callee)
    body = listing(callee)
    starts = np.cumsum([0] + [s.count for s in body.segments]).tolist()
    given = ", ".join(literal(x) for x in operands)
    pointers = "".join(f"a + {start}, " for start in starts[:-1])
    main = (f"#include <stdio.h>\n#include <stdlib.h>\nint main(void)\n{{\n"
            f"    static const double a[] = {{{given or '0.0'}}};\n"
            f"    double *out = malloc({len(body.results)} * sizeof *out), *work = malloc({work} * sizeof *work);\n"
            f"    {name}({pointers}out, work);\n"
            f"    for (int i = 0; i < {len(body.results)}; i++)\n        printf(\"%.17g\\n\", out[i]);\n"
            "    free(out);\n    free(work);\n    return 0;\n}\n")
    source, program = folder / "alone.c", folder / "alone"
    source.write_text(functions.source() + main)
    done = other(compiler, "-std=c11", *flags, "-o", program, source, "-lm")
    if done.returncode and "-fsanitize" in " ".join(flags):
        pytest.skip(f"{compiler} has no sanitizers here")
    assert done.returncode == 0, done.stderr[:3000]
    return np.array(run(program).split(), float)


def test_a_long_body_is_cut(compiled):
    """So many single operations are several functions, and numbers go from one to the next."""
    rng, n, instructions = Random(5), 5000, []
    for k in range(n):
        slot = 4 + k
        old = slot - 1 - rng.choice([0, 1, 5, 20]) if rng.random() < 0.9 else rng.randrange(1, slot)
        op, operands = (("TANH", (max(old, 1),)) if k % 3 == 0 else
                        (rng.choice(["ADD", "MUL", "SUB"]), (slot - 1, max(old, 1))))
        instructions.append((op, slot, 1, 1, "", 0, operands, (), None))
    body = body_of([3], instructions, [4 + n - 1, 100, 4 + n - 2, 2])
    functions = Functions()
    functions.of(body)
    assert functions.source().count("static void") > 2
    run = compiled(functions)[id(body)]
    operands = [0.3, -0.2, 0.9]
    np.testing.assert_allclose(run(operands), computed(body, operands), rtol=1e-11)


def test_work_is_used_again():
    """Of a chain of maps one array remains, and of results none."""
    n, count = 100, 20
    instructions = [("MAP", 1 + n * (k + 1), 1, n, "TANH", 0, (View(1, n, 1 + n * k, 0, 1, None),), (), None)
                    for k in range(count)]
    last = 1 + n * count
    functions = Functions()
    assert functions.of(body_of([n], instructions, [last]))[1] == n
    assert functions.of(body_of([n], instructions[:1], range(n + 1, 2 * n + 1)))[1] == 0
    outer = ("MAP", n + 1, 4, 5, "MUL", 0, (View(4, 1, 1, 1, 0, None), View(1, 5, 5, 0, 1, None)), (), None)
    rows = [x for i in range(4) for x in [*range(n + 1 + 5 * i, n + 6 + 5 * i), 1]]
    assert functions.of(body_of([n], [outer], rows))[1] == 0


def test_results_lie_apart(compiled):
    """Of an elementwise instruction, in rows with others between; another one reads them there."""
    outer = ("MAP", 11, 4, 5, "MUL", 0, (View(4, 1, 1, 1, 0, None), View(1, 5, 5, 0, 1, None)), (), None)
    sums = ("SUM", 31, 4, 1, "", 0, (View(4, 5, 11, 5, 1, None),), (), None)
    sine = ("MAP", 36, 1, 10, "SIN", 0, (View(1, 10, 1, 0, 1, None),), (), None)
    rows = [x for i in range(4) for x in [*range(11 + 5 * i, 16 + 5 * i), 31 + i]]
    body = body_of([10], [outer, sums, sine], rows + [x for i in range(10) for x in (2, 36 + i)])
    functions = Functions()
    assert functions.of(body)[1] <= 4
    operands = np.linspace(-1.0, 2.0, 10)
    np.testing.assert_allclose(compiled(functions)[id(body)](operands), computed(body, operands), rtol=1e-14)
