"""Training in C: the steps of `to_c(optimizer=...)` are those of the optimizers, from today's state on."""
import ctypes
import re
import types

import numpy as np
import pytest
from c_files import COMPILERS, WARNINGS, needs_compiler, run

import flatgrad
from flatgrad import Tensor, Value, _core
from flatgrad.errors import ArgumentError, ArgumentTypeError
from flatgrad.export.c.specialized import parse, specialized, written
from flatgrad.export.c.updates import RULES, Update
from flatgrad.export.exported import Exported
from flatgrad.nn import MLP
from flatgrad.optim import LBFGS, SGD, Adadelta, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop, array_rules

OPTIMIZERS = [
    (SGD, {}), (SGD, {"weight_decay": 0.01}), (SGD, {"momentum": 0.9}), (SGD, {"momentum": 0.9, "dampening": 0.25}),
    (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}), (SGD, {"momentum": 0.5, "maximize": True}),
    (SGD, {"maximize": True, "weight_decay": 0.5}), (SGD, {"dampening": 0.5}), (SGD, {"momentum": 1.0, "dampening": 1.5}),
    (Adam, {}), (Adam, {"weight_decay": 0.01}), (Adam, {"amsgrad": True}), (Adam, {"betas": (0.3, 0.99), "eps": 1e-3}),
    (Adam, {"maximize": True, "weight_decay": 0.1, "amsgrad": True}), (Adam, {"betas": (0.0, 0.0)}),
    (Adam, {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    (AdamW, {}), (AdamW, {"amsgrad": True, "betas": (0.5, 0.9)}), (AdamW, {"weight_decay": 0.0}),
    (AdamW, {"maximize": True}), (Adam, {"eps": 0.0}),
    (RMSprop, {}), (RMSprop, {"centered": True}), (RMSprop, {"momentum": 0.9}), (RMSprop, {"alpha": 0.25}),
    (RMSprop, {"centered": True, "momentum": 0.9, "weight_decay": 0.01, "maximize": True}),
    (RMSprop, {"alpha": 0.1, "centered": True}), (RMSprop, {"alpha": 1.0}), (RMSprop, {"alpha": 0.0}),
    (Adagrad, {}), (Adagrad, {"lr_decay": 0.1}), (Adagrad, {"initial_accumulator_value": 0.5, "weight_decay": 0.01}),
    (Adagrad, {"maximize": True}),
    (Adadelta, {}), (Adadelta, {"rho": 0.5, "eps": 1e-3}), (Adadelta, {"weight_decay": 0.01, "maximize": True}),
]
ids = [f"{kind.__name__}-{'-'.join(f'{k}={v}' for k, v in options.items())}" for kind, options in OPTIMIZERS]
every_optimizer = pytest.mark.parametrize(("kind", "options"), OPTIMIZERS, ids=ids)


def compiled_c(folder, source, *flags, compiler=None, name="made"):
    path = folder / f"{name}.c"
    path.write_text(source)
    out = folder / f"{name}.so"
    run(compiler or COMPILERS[0], *WARNINGS, *(flags or ["-O0"]), "-fPIC", "-shared", "-o", out, path, "-lm")
    return ctypes.CDLL(str(out))


TYPES = {"double": ctypes.c_double, "float": ctypes.c_float, "unsigned long": ctypes.c_ulong}


def struct_of(text, name):
    """The struct of that name that a text declares."""
    body = re.search(r"typedef struct \{\n((?:(?!typedef)[^}])*)\} " + name + ";", text)[1]
    fields = [(field, TYPES[kind] * int(count[1:-1]) if count else TYPES[kind])
              for kind, field, count in re.findall(r"^    ([\w ]+) (\w+)(\[\d+\])?;", body, re.MULTILINE)]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


# ---- the update alone ----

def rows(n, seed):
    """Gradients of some steps, with numbers of all kinds."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(6, n)) * 10.0**rng.integers(-9, 9, (6, n))
    found[2, 0], found[3, 1], found[1, 2], found[:, 3] = 0.0, -0.0, 1e200, 0.0
    return found


@needs_compiler
@every_optimizer
def test_the_update_is_the_kernels_bit_for_bit(kind, options, tmp_path):
    w = Tensor(np.linspace(-2.0, 2.0, 13))
    fn = flatgrad.compile(lambda x: (w * x).sum())
    fn(1.0)
    optimizer = kind([w], lr=0.1, **options)
    update = Update(Exported(fn), optimizer, "f", "float64")
    tables, start = update.start()
    lib = compiled_c(tmp_path, f"#include <math.h>\n{update.declaration()}{update.functions}{tables}"
                     f"void start(f_state *s);\nvoid start(f_state *s)\n{{\n{start}}}\n"
                     "void step(double *p, const double *g, f_state *s);\n"
                     f"void step(double *p, const double *g, f_state *s)\n{{\n{update.statements('p', 'g')}}}\n")
    state, p = struct_of(update.declaration(), "f_state")(), w.data.copy()
    lib.start(ctypes.byref(state))
    for g in rows(13, 1):
        w.grad = g
        optimizer.step()
        lib.step(p.ctypes.data_as(ctypes.c_void_p), g.ctypes.data_as(ctypes.c_void_p), ctypes.byref(state))
        # A first momentum of -0.0 is 0.0 in C: signs of zeros alone may differ.
        assert (p + 0.0).tobytes() == (w.data + 0.0).tobytes()
        for name, numbers in optimizer.state_dict()["state"][0].items():
            if isinstance(numbers, np.ndarray):
                assert (np.array(getattr(state, name)) + 0.0).tobytes() == (numbers + 0.0).tobytes(), name


def test_rules_are_all_that_there_are():
    kinds = {name for name in flatgrad.optim.__all__ if isinstance(getattr(flatgrad.optim, name), type)
             and issubclass(getattr(flatgrad.optim, name), Optimizer)}
    assert kinds == {*RULES, *array_rules.__all__, "AdamW", "LBFGS", "Optimizer"}
    assert {rule.loop for rule in RULES.values()} | {"lerp"} == set(_core._updates())


# ---- what is known is computed ----

def left(text, **known):
    fields = {"lr": ("name", "lr"), "eps": 0.5}
    functions = {"lerp": (("low", "x", "to", "weight"), "return low ? x + to * weight : to - (x - to);")}
    found, used = specialized(text, known, fields, functions)
    return written(found, "float64", lambda x, dtype: repr(float(x)), "").split("\n")[:-1]


@pytest.mark.parametrize(("text", "known", "expected"), [
    ("p[i] -= h->lr * g[i];", {}, ["p[i] -= lr * g[i];"]),
    ("const double a = h->eps, b = a + a; p[i] = b * g[i];", {}, ["p[i] = g[i];"]),
    ("const double a = h->eps; p[i] = -a * g[i] - (g[i] - a);", {}, ["p[i] = -0.5 * g[i] - (g[i] - 0.5);"]),
    ("p[i] = f ? g[i] : m[i];", {"f": False}, ["p[i] = m[i];"]),
    ("p[i] = (f ? g[i] : m[i]) * k;", {"k": 2.0}, ["p[i] = (f ? g[i] : m[i]) * 2.0;"]),
    ("if (f && k) { p[i] = 1.0; } else { p[i] = 2.0; }", {"f": True, "k": False}, ["p[i] = 2.0;"]),
    ("if (x < 1.0) { p[i] = 1.0; } else { p[i] += x; }", {},
     ["if (x < 1.0) {", "    p[i] = 1.0;", "} else {", "    p[i] += x;", "}"]),
    ("p[i] = lerp(low, m[i], g[i] - x, k);", {"low": True, "k": 0.25}, ["p[i] = m[i] + (g[i] - x) * 0.25;"]),
    ("p[i] = lerp(low, m[i], g[i] - x, k);", {"low": False, "k": 0.25}, ["p[i] = g[i] - x - (m[i] - (g[i] - x));"]),
    ("p[i] = sqrt(k) * x / (x / y) * -1.0;", {"k": 4.0}, ["p[i] = -(2.0 * x / (x / y));"]),
    ("const double unused = h->lr / x; p[i] = 1.0;", {}, ["p[i] = 1.0;"]),
    ("p[i] = x / z;", {"x": 1.0, "z": 0.0}, ["p[i] = 1.0 / 0.0;"]),
    ("double x = a; x = x + 1.0; p[i] = x;", {"a": 2.0}, ["double x = 2.0;", "x = x + 1.0;", "p[i] = x;"]),
])
def test_what_is_left(text, known, expected):
    assert left(text, **known) == expected


@pytest.mark.parametrize("name", _core._updates())
def test_texts_are_read_whole(name):
    """Said again with nothing known they are the same, but for brackets, commas and types."""
    body = _core._updates()[name][2]
    assert bare(said(parse(body))) == bare(body)


def bare(c):
    return re.sub(r"[\s(),;{}]|\b(const|double|int|size_t)\b", "", c)


def said(x):
    """A statement or an expression, or several, as words."""
    if isinstance(x, list):
        return " ".join(map(said, x))
    if not isinstance(x, tuple):
        return repr(x)
    kind = x[0]
    if kind in ("name", "field", "element"):
        return {"name": "{}", "field": "h->{}", "element": "{}[i]"}[kind].format(x[1])
    if kind == "call":
        return f"{x[1]}({', '.join(map(said, x[2]))})"
    if kind == "?":
        return f"{said(x[1])} ? {said(x[2])} : {said(x[3])}"
    if kind == "for":
        return f"for (size_t i = 0; i < n; i++) {said(x[1])}"
    if kind == "if":
        return f"if ({said(x[1])}) {said(x[2])}" + f" else {said(x[3])}" * bool(x[3])
    if kind == "declare":
        return f"{x[1]} {x[3]} = {said(x[4])}"
    if kind == "set":
        return f"{said(x[1])} {x[2]} {said(x[3])}"
    if kind == "return":
        return f"return {said(x[1])}"
    return f"-{said(x[1])}" if len(x) == 2 else f"{said(x[1])} {kind} {said(x[2])}"


# ---- whole steps ----

class Trainer:
    """The functions of a file that trains."""

    def __init__(self, made, folder, **options):
        self.made, self.lib = made, compiled_c(folder, made.source, **options)
        name = made.name
        self.p, self.s = [struct_of(made.header, f"{name}_{end}")() for end in ("parameters", "state")]
        has_work = re.search(rf"{name}_work;", made.header)
        self.work = [ctypes.byref(struct_of(made.header, f"{name}_work")())] if has_work else []
        self.real = ctypes.c_float if "float value" in made.header else ctypes.c_double
        getattr(self.lib, f"{name}_start")(ctypes.byref(self.p))
        getattr(self.lib, f"{name}_state_start")(ctypes.byref(self.s))

    def step(self, x, y):
        function = getattr(self.lib, f"{self.made.name}_step")
        function.restype = self.real
        return function(ctypes.byref(self.p), ctypes.byref(self.s), (self.real * len(x))(*x), self.real(y), *self.work)

    @property
    def parameters(self):
        return np.array(self.p.value)


def problem(seed=3, sizes=(5, 4, 1)):
    model = MLP(2, list(sizes), activation="tanh", rng=seed)
    scale = Value(0.75)
    return model, scale, flatgrad.compile(lambda x, y: (scale * model(x) - y) ** 2)


DATA = [([0.5, -1.0], 0.25), ([1.5, 0.75], -0.5), ([-0.25, 2.0], 1.0), ([0.1, 0.2], 0.3)]


def train(loss, optimizer, samples):
    losses = []
    for x, y in samples:
        out = loss(x, y)
        losses.append(out.data)
        optimizer.zero_grad()
        out.backward()
        optimizer.step()
    return losses


def rate(options):
    """A learning rate with which nothing grows so that rounding does."""
    return 1e-9 if options.get("alpha") == 1.0 else 1e-3 if "maximize" in options or "dampening" in options else 0.02


def numbers(loss):
    return Exported(loss).parameters


def check(loss, optimizer, trainer, steps=12, rtol=1e-12):
    for k in range(steps):
        x, y = DATA[k % len(DATA)]
        expected, = train(loss, optimizer, [(x, y)])
        assert trainer.step(x, y) == pytest.approx(expected, rel=rtol, abs=rtol)
        assert trainer.parameters == pytest.approx(numbers(loss), rel=rtol, abs=rtol)


@needs_compiler
@every_optimizer
def test_steps(kind, options, tmp_path):
    """Also from the middle of a training, with another learning rate."""
    model, scale, loss = problem()
    optimizer = kind([*model.parameters(), scale], lr=rate(options), **options)
    args = ([1.0, 2.0], 3.0)
    check(loss, optimizer, Trainer(loss.to_c(arguments=args, optimizer=optimizer, name="net"), tmp_path))
    train(loss, optimizer, DATA * 2)
    optimizer.lr /= 4
    again = tmp_path / "again"
    again.mkdir()
    check(loss, optimizer, Trainer(loss.to_c(arguments=args, optimizer=optimizer, name="net"), again))


@needs_compiler
def test_the_learning_rate_is_a_field(tmp_path):
    model, scale, loss = problem()
    optimizer = Adam([scale, *model.parameters()], lr=0.1)
    trainer = Trainer(loss.to_c(arguments=([1.0, 2.0], 3.0), optimizer=optimizer, name="net"), tmp_path)
    for k in range(8):
        optimizer.lr = trainer.s.lr = 0.1 / (1 + k)
        check(loss, optimizer, trainer, steps=1)
    assert trainer.s.step == 8


@needs_compiler
@pytest.mark.parametrize("kind", [SGD, Adam, Adagrad])
def test_groups_and_parameters_that_stay(kind, tmp_path):
    model, scale, loss = problem()
    other, frozen = Value(9.0), model.layers[1].parameters()[7]
    frozen.requires_grad = False
    p = model.parameters()
    options = {"SGD": {"momentum": 0.5}, "Adam": {"weight_decay": 0.1}, "Adagrad": {"lr_decay": 0.5}}[kind.__name__]
    optimizer = kind([{"params": p[20:30][::-1], "lr": 0.05}, {"params": [other, *p[:9]], **options},
                      {"params": p[31:40:2], "lr": 0.01}], lr=0.02)
    train(loss, optimizer, DATA[:2])
    optimizer.add_param_group({"params": [scale, p[15]], **options})
    made = loss.to_c(arguments=([1.0, 2.0], 3.0), optimizer=optimizer, name="net")
    trainer = Trainer(made, tmp_path)
    before = trainer.parameters
    check(loss, optimizer, trainer)
    changed = trainer.parameters != before
    assert sum(changed) == 9 + 9 + 5 + 2 and len(changed) == 44   # of 45 numbers
    assert list(trainer.s.lr) == [0.05, 0.02, 0.01, 0.02]
    assert "of the parameters." in made.source


@needs_compiler
def test_scattered_parameters(tmp_path):
    model, scale, loss = problem()
    optimizer = AdamW(model.parameters()[::2], lr=0.05)
    check(loss, optimizer, Trainer(loss.to_c(arguments=([1.0, 2.0], 3.0), optimizer=optimizer, name="net"), tmp_path))


@needs_compiler
def test_parameters_to_which_nothing_flows(tmp_path):
    model, scale, loss = problem()
    dead = Value(2.0)
    loss = flatgrad.compile(lambda x, y: (scale * model(x) - y) ** 2 + (dead * x[0]).floor())
    optimizer = SGD([*model.parameters(), dead, scale], lr=0.05, weight_decay=0.25)
    loss([1.0, 2.0], 3.0)
    trainer = Trainer(loss.to_c(optimizer=optimizer, name="net"), tmp_path)
    check(loss, optimizer, trainer)
    assert dead.data == pytest.approx(2.0 * (1.0 - 0.05 * 0.25) ** 12, rel=1e-12)


@needs_compiler
@every_optimizer
def test_float32(kind, options, tmp_path):
    model, scale, loss = problem()
    optimizer = kind([*model.parameters(), scale], lr=rate(options), **options)
    train(loss, optimizer, DATA)
    made = loss.to_c(arguments=([1.0, 2.0], 3.0), optimizer=optimizer, name="net", dtype="float32")
    trainer = Trainer(made, tmp_path, *(), compiler=COMPILERS[0])
    assert "double" not in re.sub(r"/\*.*?\*/", "", made.source, flags=re.DOTALL)
    check(loss, optimizer, trainer, steps=6, rtol=2e-3)


@needs_compiler
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_no_warnings(compiler, dtype, tmp_path):
    flags = ["-O2", "-Wdouble-promotion", "-Wshadow", "-Wmissing-prototypes"]
    for k, (kind, options) in enumerate(OPTIMIZERS[::4]):
        model, scale, loss = problem()
        p = model.parameters()
        optimizer = kind([{"params": p[::3]}, {"params": [*p[1::3], scale], "lr": 0.3}], lr=0.02, **options)
        made = loss.to_c(arguments=([1.0, 2.0], 3.0), optimizer=optimizer, name="net", dtype=dtype)
        compiled_c(tmp_path, made.source, *flags, compiler=compiler, name=f"f{k}")


@needs_compiler
def test_the_example_in_the_head_trains(tmp_path):
    model, scale, loss = problem()
    optimizer = Adam([*model.parameters(), scale], lr=0.1)
    made = loss.to_c(tmp_path / "net.c", arguments=([1.0, 2.0], 3.0), optimizer=optimizer)
    lines = made.source.splitlines()
    first = lines.index(" *     #include <stdio.h>")
    example = [line[7:] for line in lines[first:lines.index(" *     }") + 1]]
    (tmp_path / "main.c").write_text("\n".join(example) + "\n")
    run(COMPILERS[0], *WARNINGS, "-o", tmp_path / "a.out", tmp_path / "main.c", tmp_path / "net.c", "-lm")
    printed = [float(word) for word in run(tmp_path / "a.out").split()]
    assert printed[-3:] == pytest.approx(train(loss, optimizer, [([0.5, 0.5], 0.5)] * 3), rel=1e-12)


@needs_compiler
def test_names_of_arguments_that_the_step_needs(tmp_path):
    w = Value(0.5)
    loss = flatgrad.compile(lambda s, t, k, p, at, step: (w * s + t * k - p * at - step) ** 2)
    args = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    optimizer = Adam([w])
    made = loss.to_c(arguments=args, optimizer=optimizer, name="g")
    lib = compiled_c(tmp_path, made.source)
    p, s = struct_of(made.header, "g_parameters")(), struct_of(made.header, "g_state")()
    lib.g_start(ctypes.byref(p))
    lib.g_state_start(ctypes.byref(s))
    lib.g_step.restype = ctypes.c_double
    expected = loss(*args)
    assert lib.g_step(ctypes.byref(p), ctypes.byref(s), *map(ctypes.c_double, args)) == pytest.approx(expected.data, rel=1e-12)
    expected.backward()
    optimizer.step()
    assert p.value[0] == pytest.approx(w.data, rel=1e-12)


def test_gradients_are_written_where_they_go():
    """Those of weights, between which there are biases, without a copy."""
    model = MLP(2, [16, 16, 1], rng=1)
    made = flatgrad.compile(lambda x, y: (1.0 - y * model(x)).relu()).to_c(arguments=([1.0, 2.0], 1.0), name="net")
    assert made.work == 0
    assert re.search(r"by_parameters\[48 \+ 17 \* i \+ j\] = by_parameters\[64 \+ 17 \* i\] \* work\[j\];", made.source)


# ---- errors ----

class SignDescent(Optimizer):
    def step(self):
        pass


class OwnAdam(Adam):
    def step(self, closure=None):
        return super().step(closure)


@pytest.mark.parametrize(("make", "error", "message"), [
    (lambda p: 3, ArgumentTypeError, "expected one of SGD, Adam, RMSprop, Adagrad, Adadelta or AdamW, of flatgrad.optim, "
     "got 3"),
    (lambda p: types.SimpleNamespace(param_groups=[]), ArgumentTypeError, "of flatgrad.optim, got namespace"),
    (lambda p: LBFGS(p), ArgumentTypeError, "got a LBFGS, which computes the loss several times in a step"),
    (lambda p: NAdam(p), ArgumentTypeError, "got a NAdam, whose step() is a rule in Python"),
    (lambda p: SignDescent(p, lr=0.1), ArgumentTypeError, "got a SignDescent, whose step() is a rule in Python"),
    (lambda p: OwnAdam(p), ArgumentTypeError, "got a OwnAdam, whose step() is a rule in Python"),
    (lambda p: Adam([Value(1.0)]), ArgumentError, "expected one with parameters that loss captures, got Adam"),
])
def test_optimizers_that_c_does_not_know(make, error, message):
    model, scale, _ = problem()

    def loss(x, y):
        return (scale * model(x) - y) ** 2

    with pytest.raises(error, match=re.escape(message)):
        flatgrad.compile(loss).to_c(arguments=([1.0, 2.0], 3.0), optimizer=make(model.parameters()))


def test_hyperparameters_are_checked():
    model, scale, loss = problem()
    optimizer = Adam(model.parameters())
    optimizer.param_groups[0]["betas"] = (0.5, 1.5)
    before = optimizer.state_dict()
    with pytest.raises(ArgumentError, match=r"param_groups\[0\]\['betas'\]"):
        loss.to_c(arguments=([1.0, 2.0], 3.0), optimizer=optimizer)
    optimizer.param_groups[0]["betas"] = (0.5, 0.5)
    loss.to_c(arguments=([1.0, 2.0], 3.0), optimizer=optimizer)
    assert optimizer.state_dict()["state"] == before["state"] == [{}]   # an export changes nothing


def test_what_cannot_be_trained():
    model, scale, loss = problem()
    optimizer = Adam([scale])
    with pytest.raises(ArgumentError, match="parameters: expected 'struct' with an optimizer, which changes them"):
        loss.to_c(arguments=([1.0, 2.0], 3.0), optimizer=optimizer, parameters="constant")
    with pytest.raises(ArgumentError, match="optimizer: expected None, as .* captures no parameters, got Adam"):
        flatgrad.compile(lambda x: x * x).to_c(arguments=(2.0,), optimizer=optimizer)
    two = flatgrad.compile(lambda x: (x * scale, x))
    with pytest.raises(ArgumentError, match="returns 2 numbers, and training needs one, the loss"):
        two.to_c(arguments=(2.0,), optimizer=optimizer, gradient=False)


def test_the_tests_can_fail(tmp_path):
    if not COMPILERS:
        pytest.skip("no C compiler")
    model, scale, loss = problem()
    optimizer = Adam([*model.parameters(), scale], lr=0.02)
    made = loss.to_c(arguments=([1.0, 2.0], 3.0), optimizer=optimizer, name="net")
    wrong = types.SimpleNamespace(name=made.name, header=made.header, source=made.source.replace("0.999", "0.9991"))
    with pytest.raises(AssertionError):
        check(loss, optimizer, Trainer(wrong, tmp_path))
