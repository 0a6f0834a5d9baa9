"""`to_c`: files of C, compiled by the compilers that are here, against the functions themselves."""
import os
import pickle
import re
import shutil
from collections import namedtuple

import numpy as np
import pytest
from c_files import COMPILERS, WARNINGS, Functions, library, needs_compiler, run

import flatgrad
from flatgrad import Tensor, Value, nn
from flatgrad.errors import ArgumentError, ArgumentTypeError, UnknownNameError
from flatgrad.export.c.identifiers import Names, identifier, is_reserved

Point = namedtuple("Point", "x y")


# ---- functions, each with arguments ----

CASES = {}


def case(*args):
    """A function that makes a function, and gives the parameters that it captures; `args` are what the former takes."""
    def put(make):
        CASES[make.__name__] = make, args
        return make
    return put


@case(2.0, 5.0)
def scalars():
    w = Value(3.0)
    return lambda x, y: (w * x - y) ** 2, [w]


@case([1.0, 2.0, 3.0], [[1.0, -2.0], [0.5, 4.0]])
def lists():
    w = [Value(0.5), Value(-1.5)]
    return lambda x, rows: sum(w[0] * a for a in x) * (rows[0][1] - w[1] * rows[1][0]).tanh() + rows[1][1], w


@case({"a": 2.0, "b": [1.0, 0.5]}, Point(0.3, 0.7))
def structures():
    w = Value(1.25)
    return lambda d, p: (d["a"] * p.x + w).exp() + d["b"][1] * p.y / d["b"][0], [w]


@case(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), Tensor([0.5, -0.5, 0.25]))
def tensors():
    w = Tensor([[0.1, 0.2], [0.3, 0.4]])
    b = Tensor([1.0, 2.0, 3.0])
    return lambda x, y: ((w @ x + b) * y).tanh().sum() + (x[0] * y).mean(), [w, b]


@case(2.0, "cosine", 3)
def statics():
    return lambda x, kind, n: {"cosine": x.cos, "sine": x.sin}[kind]() * n + x, []


@case(1.5, 2.0, 0.5)
def several():
    def f(first, *rest, scale=2.0):
        return first * rest[0] + rest[1] * scale
    return f, []


@case([1.0, 2.0])
def constants():
    kept, free = Value(2.0), Value(3.0)
    kept.requires_grad = False
    offset = Tensor([0.5, 0.25], requires_grad=False)
    return lambda x: kept * x[0] * free + (offset * flatgrad.stack(x)).sum() + 1e-7, [free]


@case([0.3, -0.7, 1.1, 0.2])
def mlp():
    model = nn.MLP(4, [8, 8, 1])
    for k, p in enumerate(model.parameters()):
        p.data = 0.5 * np.sin(3.0 * k + 1.0)
    return lambda x: model(x) ** 2, model.parameters()


@case(np.sin(np.arange(60.0)).reshape(12, 5), np.cos(np.arange(12.0)))
def mlp_batch():
    model = nn.MLP(5, [6, 1])
    for k, p in enumerate(model.parameters()):
        p.data = 0.5 * np.cos(2.0 * k + 1.0)

    def f(X, y):
        return ((model(X).reshape(12) - y) ** 2).mean()
    return f, model.parameters()


@case(np.linspace(-1.0, 2.0, 11), np.linspace(0.5, 1.5, 11))
def lanes():
    w = Value(0.5)
    sample = flatgrad.compile(lambda x, y: (w * x).tanh() * y + w.exp())
    return lambda x, y: (flatgrad.vmap(sample)(x, y) ** 2).sum(), [w]


@case(np.linspace(-1.0, 2.0, 21).reshape(7, 3))
def lanes_of_layers():
    model = nn.MLP(3, [4, 2])
    for k, p in enumerate(model.parameters()):
        p.data = 0.5 * np.cos(k + 1.0)
    sample = flatgrad.compile(lambda x: (model(x)[0] * model(x)[1]).tanh())
    return lambda X: flatgrad.vmap(sample)(X).mean(), model.parameters()


@case(1.0, 0.5)
def scan():
    k, c = Value(2.0), Value(0.1)

    def f(x, v):
        def step(state, _):
            x, v = state
            return (x + 0.01 * v, v - 0.01 * (k * x.sin() + c * v)), None
        (x, v), _ = flatgrad.scan(step, (x, v), length=300)
        return (x - 0.3) ** 2 + v * v
    return f, [k, c]


@case(0.5, np.sin(np.arange(40.0)))
def scan_backwards():
    w = Value(0.9)

    def f(x, xs):
        def step(c, x):
            c = (w * c + x).tanh()
            return c, c * x
        c, ys = flatgrad.scan(step, x, xs, reverse=True)
        return (ys * ys).sum() + c
    return f, [w]


@case(0.5, np.sin(np.arange(40.0)), np.cos(np.arange(80.0)).reshape(40, 2))
def scan_of_everything():
    w = Value(0.9)

    def f(x, xs, rows):
        def step(carry, x):
            a, b, c = carry
            return (b, w * c + x[0], a), (a, x[1][0] * b, x[1][1], w)
        (a, b, c), (p, q, r, s) = flatgrad.scan(step, (x, x * 2.0, w), (xs, rows))
        return a * b + c + (p * q).sum() + (r * s).mean()
    return f, [w]


@case([0.1] * 40, np.sin(np.arange(24.0)).reshape(6, 4))
def recurrent():
    U = Tensor(0.1 * np.sin(np.arange(1600.0)).reshape(40, 40))
    V = Tensor(0.1 * np.cos(np.arange(160.0)).reshape(40, 4))

    def f(h, xs):
        def step(h, x):
            h = (U @ h + V @ x).tanh()
            return h, h.sum()
        h, sums = flatgrad.scan(step, flatgrad.stack(h), xs)
        return (h * h).sum() + (sums * sums).mean()
    return f, [U, V]


@case(0.7)
def nested():
    w = Value(0.3)

    def f(x):
        def outer(c, _):
            def inner(d, _):
                return d + 0.1 * (w * d).sin(), d
            d, ds = flatgrad.scan(inner, c, length=7)
            return d * 0.5 + ds.mean(), d
        c, ds = flatgrad.scan(outer, x, length=5)
        return c * c + ds.sum()
    return f, [w]


@case(np.linspace(0.5, 2.0, 48).reshape(16, 3), 0.25)
def lanes_of_many_kinds():
    w, v = Value(0.5), Value(1.5)

    def sample(row, shift):
        x, y, z = row
        big = (x * w).sin() * (y * v).exp() - (z + shift).log() * (x * y).cos()
        return big.tanh() * w.exp() + (x * z).sqrt() + flatgrad.where(big - 0.25, x, y.relu()) + big**3 + w**1.5
    sample = flatgrad.compile(sample)
    return lambda X, shift: (flatgrad.vmap(sample, in_axes=(0, None))(X, shift) ** 2).mean(), [w, v]


@case(np.linspace(-1.0, 1.0, 30).reshape(10, 3), np.linspace(0.0, 1.0, 20))
def scans_in_lanes():
    k = Value(0.7)

    @flatgrad.compile
    def sample(row, xs):
        def step(c, x):
            a, b = c
            return (b, (k * a + x * b).sin()), (a * x, b)
        (a, b), (p, q) = flatgrad.scan(step, (row[0], row[1]), xs, reverse=True)

        def outer(c, r):
            def inner(d, _):
                return d * k.cos() + row[2] * r, None
            return flatgrad.scan(inner, c, length=3)[0], c
        d, ds = flatgrad.scan(outer, a + b, p)
        return d + ds[4] * q[3] + b
    return lambda X, xs: flatgrad.vmap(sample, in_axes=(0, None))(X, xs).sum(), [k]


@case(np.linspace(-1.0, 1.0, 9), np.linspace(0.0, 2.0, 9))
def scan_in_lanes():
    k = Value(2.0)

    @flatgrad.compile
    def end(x, v):
        def step(state, _):
            return (state[0] + 0.05 * state[1], state[1] - 0.05 * k * state[0].sin()), None
        (x, v), _ = flatgrad.scan(step, (x, v), length=30)
        return (x - 0.3) ** 2 + v * v
    return lambda x, v: flatgrad.vmap(end)(x, v).mean(), [k]


@case(0.5, np.linspace(0.0, 1.0, 6))
def lanes_in_scan():
    w = Value(1.5)
    sample = flatgrad.compile(lambda a, b: (a * b * w).tanh())

    def f(c, xs):
        def step(c, _):
            return flatgrad.vmap(sample, in_axes=(None, 0))(c, xs).sum() * 0.3, c
        c, cs = flatgrad.scan(step, c, length=4)
        return c + cs.sum()
    return f, [w]


@case(0.75, [1.0, -2.0])
def rule():
    w = Value(1.5)

    @flatgrad.custom_derivative
    def rounded(x):
        return (x * 4.0).floor() / 4.0
    rounded.defvjp(lambda x: (rounded(x), x), lambda x, slope: (slope * 3.0 * x,))
    return lambda x, rows: rounded(w * x) ** 2 + sum(rounded(r) * w for r in rows), [w]


@case(2.0)
def captures_nothing():
    return lambda x: x * x + 1.0, []


@case(-1.0, 0.0, 3.0)
def clashes():
    return lambda y0, gamma, double: y0.exp() + gamma.sin() * double, []


@case(0.5)
def local_names():
    w = Value(2.0)
    return lambda p: p * w, [w]


@case(1.0, 2.0, [3.0, 4.0])
def nothing_flows():
    w = Value(2.0)
    return lambda x, y, unused: w * x + (w * y).floor(), [w]


def leaves(x):
    """An argument with Values and Tensors that take gradients in place of its numbers."""
    if isinstance(x, dict):
        return {key: leaves(part) for key, part in x.items()}
    if hasattr(x, "_fields"):
        return type(x)(*map(leaves, x))
    if isinstance(x, (list, tuple)):
        return type(x)(map(leaves, x))
    if isinstance(x, (np.ndarray, Tensor)):
        return Tensor(np.array(x.data if isinstance(x, Tensor) else x))
    return Value(x) if type(x) in (int, float) else x


def flat(x, of):
    """The numbers of a structure of leaves in a row: `of` each."""
    if isinstance(x, dict):
        x = list(x.values())
    if isinstance(x, (list, tuple)):
        return [number for part in x for number in flat(part, of)]
    return np.ravel(of(x)).tolist() if isinstance(x, (Value, Tensor)) else []


def gradient_of(x):
    return np.zeros(np.shape(x.data)) if x.grad is None else x.grad


class Expected:
    """A case, and what Python makes of it: by a call of the compiled function and a backward pass."""

    def __init__(self, name, dtype):
        make, self.args = CASES[name]
        fn, self.leaves = make()
        self.f = flatgrad.compile(fn, dtype=dtype)
        given = [leaves(x) for x in self.args]
        result = self.f(*given)
        result.backward()
        self.value = result.data
        self.parameters = flat(self.leaves, lambda p: p.data)
        self.by_parameters = flat(self.leaves, gradient_of)
        self.by_arguments = flat(given, gradient_of)
        by = "both" if self.leaves else "arguments"
        self.made = self.f.to_c(name=f"{name}_{dtype[-2:]}", gradient=by)
        self.inputs = [self.parameters] * bool(self.leaves)


@pytest.fixture(scope="module", params=["float64", "float32"])
def cases(request, tmp_path_factory):
    """All cases in one library, compiled once."""
    expected = {name: Expected(name, request.param) for name in CASES}
    lib = library(tmp_path_factory.mktemp(request.param), [e.made for e in expected.values()])
    for e in expected.values():
        e.c = Functions(e.made, lib)
    return request.param, expected


def close(got, expected, dtype, what):
    got, expected = np.ravel(got), np.ravel(expected)
    assert got.shape == expected.shape, what
    size = max(1.0, np.abs(expected).max(initial=0.0))
    assert np.abs(got - expected).max(initial=0.0) <= size * (1e-12 if dtype == "float64" else 2e-5), what


@needs_compiler
def test_values_and_gradients_are_those_of_the_program(cases):
    dtype, expected = cases
    for name, e in expected.items():
        given = [*e.inputs, *arguments_of(e)]
        close(e.c.value(*given), e.value, dtype, name)
        close(e.c.gradient(*given), e.value, dtype, name)
        written = {key: x for key, x in e.c.written.items() if key not in ("w", "memory")}
        if e.leaves:
            close(written.pop("gradient"), e.by_parameters, dtype, name)
        close(np.concatenate([np.zeros(0), *written.values()]), e.by_arguments, dtype, name)


@needs_compiler
def test_the_start_is_the_parameters_of_today(cases):
    dtype, expected = cases
    for name, e in expected.items():
        if e.leaves:
            assert e.c.start().tolist() == np.asarray(e.parameters, dtype).tolist(), name


def arguments_of(e):
    """The numbers of the arguments as the C function takes them: by the sizes in its header."""
    numbers = flat([leaves(x) for x in e.args], lambda x: x.data)
    _, parameters = e.c.prototypes[e.made.name]
    given = []
    for parameter in parameters:
        if "*" in parameter.split("[")[0]:   # a struct
            continue
        size = re.search(r"\[([\d *]+)\]", parameter)
        size = eval(size[1]) if size else 1
        given.append(numbers[:size] if "[" in parameter else numbers[0])
        del numbers[:size]
    assert numbers == []
    return given


def steps(length):
    k, c = Value(2.0), Value(0.1)

    def f(x, v):
        def step(state, _):
            x, v = state
            return (x + 0.001 * v, v - 0.001 * (k * x.sin() + c * v)), None
        (x, v), _ = flatgrad.scan(step, (x, v), length=length)
        return (x - 0.3) ** 2 + v * v
    return flatgrad.compile(f), [k, c]


@needs_compiler
def test_ten_thousand_steps_are_a_short_file(tmp_path):
    f, parameters = steps(10_000)
    made = f.to_c(arguments=(1.0, 0.5), gradient="both", name="ode")
    assert len(made.source) < 20_000 and made.work < 170_000
    x, v = Value(1.0), Value(0.5)
    loss = f(x, v)
    loss.backward()
    c = Functions(made, library(tmp_path, [made]))
    assert c.gradient([2.0, 0.1], 1.0, 0.5) == pytest.approx(loss.data, rel=1e-12)
    assert c.written["gradient"] == pytest.approx([p.grad for p in parameters], rel=1e-10)
    assert [c.written["dx"][0], c.written["dv"][0]] == pytest.approx([x.grad, v.grad], rel=1e-10)


def test_the_forward_scan_of_a_gradient_is_computed_once():
    made = steps(100)[0].to_c(arguments=(1.0, 0.5), name="ode")
    body = re.search(r"(ode_body_\d+)\(p->value", made.source[made.source.rindex("double ode_gradient"):])[1]
    text = re.search(rf"static void {body}\(.*?\n}}", made.source, re.DOTALL)[0]
    assert len(re.findall(r"ode_scan_\d+\(", text)) == 2   # forward and back


# ---- as it stands ----

@needs_compiler
@pytest.mark.parametrize("name", ["scalars", "lists", "structures", "mlp", "scan_of_everything", "constants", "lanes"])
def test_the_example_of_the_head_runs_as_it_stands(name, tmp_path):
    make, args = CASES[name]
    f = flatgrad.compile(make()[0])
    made = f.to_c(tmp_path / "file.c", arguments=args, name="function")
    head = made.source[:made.source.index("*/")]
    lines = [line.removeprefix(" *").removeprefix("     ") for line in head.split("\n")]
    begin, end = lines.index("#include <stdio.h>"), lines.index("}")
    (tmp_path / "main.c").write_text("\n".join(lines[begin:end + 1]) + "\n")
    command = next(line for line in lines if line.startswith("cc ")).split()
    run(COMPILERS[0], *command[1:], *WARNINGS[1:], "-o", tmp_path / "main", cwd=tmp_path)
    printed = run(tmp_path / "main").split()
    assert len(printed) == 2 and printed[0] == printed[1]


def both_ways(tmp_path, made, source, *command):
    (tmp_path / "loss.h").write_text(made.header)
    (tmp_path / "loss.c").write_text(made.source)
    (tmp_path / f"main{command[1]}").write_text(source)
    run(command[0], *command[2:], "-c", tmp_path / f"main{command[1]}", "-o", tmp_path / "main.o")


@needs_compiler
def test_the_header_is_for_cpp_as_well(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    w = Value(3.0)
    made = flatgrad.compile(lambda x, y: (w * x[0] - y + x[1]) ** 2).to_c(arguments=([1.0, 2.0], 5.0), name="loss")
    (tmp_path / "loss.h").write_text(made.header)
    (tmp_path / "loss.c").write_text(made.source)
    (tmp_path / "main.cpp").write_text(
        '#include <cstdio>\n#include "loss.h"\n#include "loss.h"\n'
        "int main() { loss_parameters p, g; const double x[2] = {2.0, 1.0}; loss_start(&p);\n"
        'double y = loss_gradient(&p, x, 5.0, &g); std::printf("%g %g\\n", y, g.value[0]); }\n')
    run(COMPILERS[0], *WARNINGS, "-c", tmp_path / "loss.c", "-o", tmp_path / "loss.o")
    run("g++", "-Wall", "-Wextra", "-Werror", "-pedantic", "-o", tmp_path / "main", tmp_path / "main.cpp",
        tmp_path / "loss.o", "-lm")
    assert run(tmp_path / "main").split() == ["4", "8"]


@needs_compiler
def test_the_file_takes_its_own_header(tmp_path):
    w = Value(3.0)
    made = flatgrad.compile(lambda x: w * x).to_c(arguments=(1.0,), name="loss")
    (tmp_path / "loss.h").write_text(made.header)
    (tmp_path / "all.c").write_text('#include "loss.h"\n' + made.source)
    run(COMPILERS[0], *WARNINGS, "-c", tmp_path / "all.c", "-o", tmp_path / "all.o")


@needs_compiler
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_no_warnings_no_variables_no_memory(compiler, dtype, tmp_path):
    flags = ["-Wdouble-promotion"] if dtype == "float32" else []
    objects = []
    for name, (make, args) in CASES.items():
        made = flatgrad.compile(make()[0], dtype=dtype).to_c(arguments=args, name=f"f_{name}")
        (tmp_path / f"{name}.c").write_text(made.source)
        objects.append(f"{name}.o")
    run(compiler, *WARNINGS, *flags, "-O2", "-c", *[f"{name}.c" for name in CASES], cwd=tmp_path)
    if shutil.which("nm") is None:
        pytest.skip("no nm")
    symbols = [line.split()[-2:] for line in run("nm", *objects, cwd=tmp_path).split("\n") if len(line.split()) > 1]
    kinds = {kind for kind, _ in symbols}
    assert kinds <= set("TtRrU")   # functions, constants, and what they call
    called = {name for kind, name in symbols if kind == "U"}
    end = "f" if dtype == "float32" else ""
    assert called <= {f + end for f in ("sin", "cos", "tanh", "exp", "floor", "pow", "sinh", "cosh", "log",
                                           "sqrt")} | {
        "memcpy", "memset", "memmove", f"sincos{end}"}   # the compilers' own; that of glibc for both at once
    assert any(name.startswith("tanh") for name in called)


# ---- names ----

def test_names_of_c():
    for text, name in (("x", "x"), ("α", "alpha"), ("λ_1", "lambda_1"), ("Δt", "Deltat"), ("é", "e"),
                       ("x'[3]", "x_3"), ("3d", "x3d"), ("", "x"), ("日", "u65e5"), ("_hidden__", "hidden")):
        assert identifier(text) == name
    names = Names(["taken"])
    assert [names.new(text) for text in ("x", "x", "x", "taken", "double", "y0", "gamma", "exp", "expf", "e x", "class",
                                         "é", "e")] == [
        "x", "x_", "x_2", "taken_", "double_", "y0_", "gamma_", "exp_", "expf_", "e_x", "class_", "e", "e_"]
    for name in ("j1", "y0", "lgammaf", "int", "inline", "main", "index", "memcpy", "M_PI", "_X", "fg_powi", "size_t",
                 "uint8_t", "printf", "NULL", "I", "this"):
        assert is_reserved(name), name
    for name in ("x", "gamma_", "j3", "moons", "M", "total", "int_"):
        assert not is_reserved(name), name


@needs_compiler
def test_no_name_of_c_is_in_the_way(tmp_path):
    def f(exp, π, restrict, out, work, a0, v3, carry, j, f, p, w, gradient, sin_, double, parameters):
        parts = exp, π, restrict, out, work, a0, v3, carry, j, f, p, w, gradient, sin_, double, parameters
        return sum((k + 1.0) * x.exp() for k, x in enumerate(parts)) * weight
    weight = Value(0.5)
    made = flatgrad.compile(f).to_c(arguments=(0.0,) * 16, gradient="both")
    assert made.name == "f"
    c = Functions(made, library(tmp_path, [made]))
    assert c.gradient([0.5], *[0.0] * 16) == 68.0
    written = {key: x for key, x in c.written.items()}
    assert sorted(x[0] for x in written.values()) == [0.5 * k for k in range(1, 17)] + [136.0]


def test_names_of_functions_and_files():
    square = flatgrad.compile(lambda x: x * x)
    square(3.0)
    assert square.to_c().name == "function"
    assert square.to_c(name="area").name == "area"

    @flatgrad.compile
    def sin(x):
        return x * x
    sin(1.0)
    assert sin.to_c().name == "sin_"
    assert "double sin_(double x)" in sin.to_c().header


def test_a_lambda_is_called_as_its_file(tmp_path):
    square = flatgrad.compile(lambda x: x * x)
    square(3.0)
    made = square.to_c(tmp_path / "area.c")
    assert made.name == "area" and (tmp_path / "area.c").read_text() == made.source == str(made)
    assert (tmp_path / "area.h").read_text() == made.header
    assert repr(made).startswith("<C of area: ")
    other = square.to_c(str(tmp_path / "2-D-file.c"))
    assert other.name == "x2_D_file" and '#include "2-D-file.h"' in other.source
    assert pickle.loads(pickle.dumps(made)).source == made.source


# ---- several results ----

@needs_compiler
def test_several_results_have_names(tmp_path):
    w = Value(2.0)

    def f(x, y):
        total = x + y
        return {"total": total, "x": w * x, "rows": [flatgrad.stack([x, y]), flatgrad.stack([y, total])],
                "pair": (total, 3.0), "text": "no number"}
    made = flatgrad.compile(f).to_c(arguments=(1.0, 2.0), gradient=False, name="f")
    c = Functions(made, library(tmp_path, [made]))
    c.value([2.0], 1.0, 2.0)
    assert {key: x.tolist() for key, x in c.written.items()} == {
        "total": [3.0], "x_result": [2.0], "rows": [1.0, 2.0, 2.0, 3.0], "pair_0": [3.0]}
    assert "double rows[2 * 2]" in made.header


@needs_compiler
def test_one_array_is_written_where_it_belongs(tmp_path):
    a = flatgrad.compile(lambda x: flatgrad.stack(x) * 2.0).to_c(arguments=([1.0, 2.0, 3.0],), gradient=False, name="a")
    b = flatgrad.compile(lambda x: (x[1], x[0], x[1] + 1.0)).to_c(arguments=([1.0, 2.0],), gradient=False, name="b")
    lib = library(tmp_path, [a, b])
    assert Functions(a, lib).value([1.0, 2.0, 3.0]).tolist() == [2.0, 4.0, 6.0]
    assert Functions(b, lib).value([1.0, 2.0]).tolist() == [2.0, 1.0, 3.0]
    assert "double result[3]" in a.header and "double result[3]" in b.header


# ---- parameters that are constants ----

@needs_compiler
def test_parameters_may_be_constants(tmp_path):
    few, many = nn.MLP(2, [3, 1]), nn.MLP(4, [16, 1])
    made, expected = [], []
    for k, (model, x) in enumerate(((few, [0.5, -0.25]), (many, [0.5, -0.25, 1.0, 2.0]))):
        f = flatgrad.compile(lambda x, model=model: model(x).tanh())
        given = [Value(number) for number in x]
        result = f(given)
        result.backward()
        expected.append((x, result.data, [v.grad for v in given]))
        made.append(f.to_c(parameters="constant", name=f"f{k}x"))
        assert "_parameters" not in made[-1].header and "_start" not in made[-1].source
        with pytest.raises(ArgumentError, match="its parameters are constants"):
            f.to_c(parameters="constant", gradient="parameters")
    lib = library(tmp_path, made)
    for one, (x, value, gradient) in zip(made, expected):
        c = Functions(one, lib)
        assert c.gradient(x) == pytest.approx(value, rel=1e-13)
        assert next(iter(c.written.values())) == pytest.approx(gradient, rel=1e-12)


def test_what_the_gradient_is_taken_by():
    w = Value(2.0)
    f = flatgrad.compile(lambda x: w * x, )
    f(1.0)
    assert "gradient" not in f.to_c(gradient=False, name="f").header
    assert "f_parameters *gradient);" in f.to_c(gradient=True, name="f").header
    assert "double x, double *dx);" in f.to_c(gradient="arguments", name="f").header
    assert "double x, f_parameters *gradient, double *dx);" in f.to_c(gradient="both", name="f").header
    assert "double *dx" in flatgrad.compile(lambda x: x * x).to_c(arguments=(1.0,), name="f").header


def test_order_of_parameters_is_that_of_the_vector():
    model = nn.MLP(3, [4, 2])
    f = flatgrad.compile(lambda x: sum(model(x)))
    f([1.0, 2.0, 3.0])
    made = f.to_c(name="f")
    values = re.search(r"f_values\[26\] = \{(.*?)\}", made.source, re.DOTALL)[1]
    assert [float(x) for x in values.split(",")] == nn.utils.parameters_to_vector(model.parameters()).tolist()


# ---- errors ----

@pytest.mark.parametrize("options, kind, text", [
    ({"path": 5}, ArgumentTypeError, "to_c: path: expected a str or path-like object, got 5"),
    ({"path": ""}, ArgumentError, "to_c: path: expected the path of a file, got ''"),
    ({"path": "moons"}, ArgumentError, "to_c: path: expected the path of a file that ends in .c, got 'moons'"),
    ({"path": "folder/.c"}, ArgumentError, "that ends in .c, got 'folder/.c'"),
    ({"name": 3}, ArgumentTypeError, "to_c: name: expected an identifier of C, got 3"),
    ({"name": "a b"}, ArgumentError, "to_c: name: expected an identifier of C, got 'a b'"),
    ({"name": "é"}, ArgumentError, "expected an identifier of C, got 'é'"),
    ({"name": "double"}, ArgumentError, "got 'double', which is a keyword"),
    ({"name": "y0"}, ArgumentError, "got 'y0', which is a name of the C library"),
    ({"gradient": "parameter"}, UnknownNameError, "did you mean 'parameters'"),
    ({"gradient": 1}, ArgumentTypeError, "expected True, False, 'parameters', 'arguments' or 'both', got 1"),
    ({"dtype": "float16"}, UnknownNameError, "to_c: dtype: expected one of 'float64', 'float32', got 'float16'"),
    ({"dtype": 3}, ArgumentTypeError, "to_c: dtype: expected one of"),
    ({"parameters": "table"}, UnknownNameError, "to_c: parameters: expected one of 'struct', 'constant', got 'table'"),
    ({"arguments": 3.0}, ArgumentTypeError, "to_c: arguments: expected a tuple of the arguments of f, got 3.0"),
])
def test_wrong_options_are_told(options, kind, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    w = Value(2.0)

    @flatgrad.compile
    def f(x):
        return w * x
    f(1.0)
    with pytest.raises(kind) as error:
        f.to_c(**{"path": "file.c", **options})
    assert text in str(error.value)
    assert os.listdir(tmp_path) == []


def test_functions_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    w, random = Value(2.0), flatgrad.Random(0)

    def refused(f, *args, **options):
        with pytest.raises(ArgumentError) as error:
            flatgrad.compile(f).to_c("file.c", arguments=args, **options)
        assert os.listdir(tmp_path) == []
        return str(error.value)

    def pair(x):
        return w * x, x
    assert "pair returns 2 numbers, and a gradient is that of one; got True" in refused(pair, 1.0)
    assert "has no parameters to take it by, as it captures none" in refused(
        lambda x: x * x, 1.0, gradient="parameters")
    assert "has no arguments to take it by" in refused(lambda: w * w, gradient="arguments")
    assert "has no arguments to take it by" in refused(lambda: w * w, parameters="constant")
    assert "returns a constant" in refused(lambda x: 3.0, 1.0)
    assert "draws random numbers" in refused(lambda x: x * random.uniform(), 1.0)
    with pytest.raises(ArgumentError, match="has no program yet"):
        flatgrad.compile(lambda x: x).to_c()


def test_what_python_computes_is_refused(monkeypatch):
    from flatgrad.export.c import calls
    monkeypatch.setattr(calls, "listed", lambda callee: None)
    w = Value(2.0)
    sample = flatgrad.compile(lambda x: w * x)
    f = flatgrad.compile(lambda x: flatgrad.vmap(sample)(x).sum())
    with pytest.raises(ArgumentError, match="to_c: f: Python computes a part of it"):
        f.to_c(arguments=(np.ones(4),), name="f")


def test_both_files_or_none(tmp_path, monkeypatch):
    square = flatgrad.compile(lambda x: x * x)
    square(3.0)
    path = tmp_path / "area.c"
    (tmp_path / "area.h").mkdir()
    with pytest.raises(OSError):
        square.to_c(path)
    assert os.listdir(tmp_path) == ["area.h"]
    (tmp_path / "area.h").rmdir()
    (tmp_path / "area.h").write_text("before")
    from flatgrad import storage
    whole, written = storage.write_file, []

    def fails(path, parts):
        if str(path).endswith(".c"):
            raise OSError("no room")
        written.append(path)
        whole(path, parts)
    monkeypatch.setattr(storage, "write_file", fails)
    with pytest.raises(OSError, match="no room"):
        square.to_c(path)
    assert len(written) == 2 and os.listdir(tmp_path) == ["area.h"]
    assert (tmp_path / "area.h").read_text() == "before"
    (tmp_path / "area.h").unlink()
    with pytest.raises(OSError, match="no room"):
        square.to_c(path)
    assert os.listdir(tmp_path) == []


@needs_compiler
def test_what_is_the_same_each_time_is_computed_once(tmp_path):
    w, table = Value(0.3), Tensor(np.sin(np.arange(100.0)))

    def in_scan(x, xs):
        def step(c, x):
            return c * w.exp() + x * flatgrad.tanh(table).sum(), None
        return flatgrad.scan(step, x, xs)[0]

    sample = flatgrad.compile(lambda x: x * w.exp() + w.sin())
    made = [flatgrad.compile(in_scan).to_c(arguments=(0.5, np.linspace(0.0, 0.1, 5)), name="f", gradient="both"),
            flatgrad.compile(lambda x: flatgrad.vmap(sample)(x).sum()).to_c(arguments=(np.ones(3),), name="g")]
    assert "f_once_1(" in made[0].source and "g_once_1(" in made[1].source
    lib = library(tmp_path, made)
    x, xs = Value(0.5), Tensor(np.linspace(0.0, 0.1, 5))
    result = in_scan(x, xs)
    result.backward()
    f, g = (Functions(one, lib) for one in made)
    assert f.gradient([w.data, *table.data], 0.5, xs.data) == pytest.approx(result.data, rel=1e-12)
    assert f.written["gradient"] == pytest.approx([w.grad, *table.grad], rel=1e-11)
    assert f.written["dxs"] == pytest.approx(xs.grad, rel=1e-12)
    w.grad = 0.0
    total = sum(sample(Value(1.0)) for _ in range(3))
    total.backward()
    assert g.gradient([0.3], np.ones(3)) == pytest.approx(total.data, rel=1e-13)
    assert g.written["gradient"] == pytest.approx([w.grad], rel=1e-12)


def test_arrays_take_gradients_where_these_are_asked_for():
    w = Value(2.0)
    f = flatgrad.compile(lambda x, n: (w * x["a"] * n[1]).sum())
    f({"a": np.ones(3)}, [1.0, 2.0])
    assert "dx" not in f.to_c(name="f").header
    for by in ("arguments", "both"):
        with pytest.raises(ArgumentError, match=r"as x\['a'\] was an array or a frozen Value at the last call"):
            f.to_c(name="f", gradient=by)
    frozen = Tensor([1.0, 2.0, 3.0], requires_grad=False)
    for by in ("arguments", "both"):
        made = f.to_c(name="f", gradient=by, arguments=({"a": frozen}, [1.0, 2.0]))
        assert "double dx_a[3]" in made.header and "by_a0[i] = 0.0" not in made.source


@needs_compiler
@pytest.mark.parametrize("flags", [["-O2"], ["-O3", "-mavx2"]], ids=" ".join)
@pytest.mark.parametrize("count", [8, 31, 32, 45])
def test_samples_in_blocks(count, flags, tmp_path):
    """Each block is whole but the last; vectors have functions of their own, where the processor has them."""
    if "-mavx2" in flags and flatgrad.stats()["isa"] not in ("avx2", "avx512"):
        pytest.skip("no AVX2")
    w = Value(0.8)
    sample = flatgrad.compile(lambda x, y: ((w * x).sin() * y.exp()).tanh() + (x * y).cos() - (x + 2.0).log())
    f = flatgrad.compile(lambda x, y: (flatgrad.vmap(sample, in_axes=(0, None))(x, y) ** 2).sum())
    x, y = Tensor(np.sin(np.arange(count) * 3.0)), Value(0.3)
    result = f(x, y)
    result.backward()
    made = f.to_c(name="f", gradient="both")
    assert "_block_1(" in made.source and "-march=native" in made.source
    c = Functions(made, library(tmp_path, [made], *flags))
    assert c.gradient([0.8], x.data, 0.3) == pytest.approx(result.data, rel=1e-12)
    assert c.written["gradient"] == pytest.approx([w.grad], rel=1e-11)
    assert c.written["dx"] == pytest.approx(x.grad, rel=1e-11, abs=1e-12)
    assert c.written["dy"] == pytest.approx([y.grad], rel=1e-11)


@pytest.mark.parametrize("export", ["to_c", "to_jax", "to_torch", "flat"])
def test_captured_results_of_operations_are_refused(export):
    w = Value(2.0)
    doubled = w * 2.0
    f = flatgrad.compile(lambda x: doubled * x)
    f(1.0)
    with pytest.raises(ArgumentError, match=f"{export}: .*captured the result of an operation, Value"):
        f.flat([1.0], 1.0) if export == "flat" else getattr(f, export)()
    constant = doubled.data
    f = flatgrad.compile(lambda x: constant * x * w)
    f(1.0)
    assert f(1.0).data == 8.0 and f.flat([3.0], 1.0) == (12.0, [4.0]) and "4.0" in str(f.to_c())


@pytest.mark.parametrize("name", ["m", "M", "DBL_MAX", "FLT_MAX", "M_PI", "fg_sum", "FG_", "flt", "int8_t", "_X"])
def test_a_name_that_begins_as_reserved_ones_do(name):
    made = Names().new(name)
    assert not is_reserved(made) and Names([made]).new(name) != made
    w = Value(2.0)
    f = flatgrad.compile(lambda x: {name: x * w, "y": w})
    f.fn.__name__ = name
    scope = {}
    exec(f"def function({name}): return {name} * w", {"w": w}, scope)
    scope["function"].__name__ = name
    for each in f, flatgrad.compile(scope["function"]):
        each(1.0)
        assert str(each.to_c(gradient=False)) and str(each.to_c(gradient=False, name="m"))


@needs_compiler
def test_headers_of_several_functions_in_one_program(tmp_path):
    w, g_w = Value(2.0), Value(3.0)
    a, b, c = (flatgrad.compile(f) for f in (lambda x: x * w + g_w, lambda x: x * w, lambda x: x * w * 2.0))
    for f, name, file in ((a, "f", "f.c"), (b, "F", "Fbig.c"), (c, "f_g", "f_g.c")):
        f(1.0)
        f.to_c(tmp_path / file, name=name)
    b.to_c(tmp_path / "other.c", name="F_other")
    (tmp_path / "main.c").write_text("""
#include "f.h"
#include "Fbig.h"
#include "f_g.h"
#include "other.h"
int main(void)
{
    f_parameters p;
    F_parameters q;
    f_g_parameters r;
    f_start(&p);
    F_start(&q);
    f_g_start(&r);
    return f(&p, 1.0) + F(&q, 1.0) + f_g(&r, 1.0) == 11.0 ? 0 : 1;
}
""")
    run(COMPILERS[0], *WARNINGS, "-o", tmp_path / "a.out", *sorted(tmp_path.glob("*.c")), "-lm")
    run(tmp_path / "a.out")


def test_constants_among_results_are_told():
    w = Value(2.0)
    f = flatgrad.compile(lambda x: {"a": x * w, "b": (x, 2.0, None), "/*": np.ones(3)})
    f(1.0)
    head = str(f.to_c(gradient=False)).partition("#include")[0]
    assert "result['b'][1] = 2.0" in head and "result['/ *'] = array([1., 1., 1.])" in head and head.count("/*") == 1


@pytest.mark.parametrize("path", ["main.c", "math.c", "STDIO.c", "a b.c", "-o.c", "x*y.c", 'q".c', "a\nb.c", "a\0b.c", ".c"])
def test_names_of_files_that_c_cannot_be_told_of(tmp_path, path):
    f = flatgrad.compile(lambda x: x * x)
    f(1.0)
    with pytest.raises(ArgumentError, match="to_c: path: expected"):
        f.to_c(os.path.join(tmp_path, path))
    assert not list(tmp_path.iterdir())
