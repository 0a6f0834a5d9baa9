"""Programs with dtype='float32': numbers of 32 bits, in lanes and out of them."""
import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

from checks import compiled
import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, losses, nn, optim
from flatgrad.errors import ArgumentError, ArgumentTypeError, RecordingError

HERE = Path(__file__).parent


def single(f, **options):
    return flatgrad.compile(f, dtype="float32", **options)


def is_float(x):
    return bool((np.asarray(x, np.float32) == np.asarray(x)).all())


# ---- functions ----

def expm(x):
    return np.exp(-np.abs(x))


def sigmoid(x):
    return np.where(x >= 0, 1.0, expm(x)) / (1.0 + expm(x))


def erfc(x):
    from math import erfc
    return np.array([erfc(v) for v in x])


def logit(x):
    return 2.0 * np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)


FUNCTIONS = {   # of a double, and where its result is a number
    "exp": (np.exp, (-200.0, 88.72)), "log": (np.log, (0.0, np.inf)), "log1p": (np.log1p, (-1.0, np.inf)),
    "expm1": (np.expm1, (-200.0, 88.72)), "sqrt": (np.sqrt, (0.0, np.inf)), "sin": (np.sin, None),
    "cos": (np.cos, None), "tan": (np.tan, None), "sinh": (np.sinh, (-89.4, 89.4)), "cosh": (np.cosh, (-89.4, 89.4)), "tanh": (np.tanh, None),
    "sigmoid": (sigmoid, None), "softplus": (lambda x: np.maximum(x, 0.0) + np.log1p(expm(x)), None),
    "silu": (lambda x: x * sigmoid(x), None), "gelu": (lambda x: 0.5 * x * erfc(-np.sqrt(0.5) * x), None),
    "gelu_tanh": (lambda x: x * sigmoid(logit(x)), None), "relu": (lambda x: np.where(x < 0.0, 0.0, x), None),
    "erf": (lambda x: 1.0 - erfc(x), (0.5, 9.0)), "abs": (np.abs, None), "floor": (np.floor, None),
    "**2": (lambda x: x * x, (-1e19, 1e19)), "**3": (lambda x: x**3, (-1e12, 1e12)),
    "**-1": (lambda x: 1.0 / x, (1e-37, np.inf)), "**-3": (lambda x: x**-3, (1e-12, 1e12)),
    "**7": (lambda x: x**7, (-1e5, 1e5)), "**100": (lambda x: x**100, (-2.4, 2.4)),
    "**0.5": (lambda x: x**0.5, (0.0, np.inf)), "**2.5": (lambda x: x**2.5, (0.0, 1e15)), "**-7.25": (lambda x: x**-7.25, (2e-5, 1e5)),
}


def floats(step):
    """Floats of all sizes, both signs and denormals, and more of them where functions bend."""
    every = np.arange(0, 2**32, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = np.linspace(-20.0, 20.0, 2**32 // step // 4).astype(np.float32)
    edges = np.array([0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, 1e6, -1e6, 1000001.0, 3e38, -3e38, 1e30, 88.72, -103.9,
                      -104.1])
    return np.concatenate([every[np.isfinite(every)], near, edges.astype(np.float32)]).astype(np.float64)


def function_of(name):
    if name.startswith("**"):
        return lambda x: x ** (float(name[2:]) if "." in name else int(name[2:]))
    return getattr(flatgrad, name) if hasattr(flatgrad, name) else lambda x: abs(x)


def check_function(name, step):
    expected, within = FUNCTIONS[name]
    xs = floats(step)
    if within:
        xs = xs[(xs >= within[0]) & (xs <= within[1]) & ((xs > within[0]) | (name in ("sqrt", "**0.5")))]
    f = flatgrad.vmap(single(function_of(name)))
    with np.errstate(all="ignore"):
        want = expected(xs)
    inside = np.abs(want) < 3.4028234e38
    xs, want = xs[inside], want[inside]
    got = f(xs).data
    assert is_float(got)
    ulps = np.abs(got - want) / np.maximum(np.spacing(np.abs(want).astype(np.float32)).astype(np.float64), 2.0**-149)
    worst = int(np.argmax(ulps))
    assert ulps[worst] <= 2.0, (name, xs[worst], got[worst], want[worst], ulps[worst])
    if name != "**0.5":   # of -0.0 NumPy has the square root
        assert np.array_equal(np.signbit(got[want == 0.0]), np.signbit(want[want == 0.0]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_within_two_units_in_the_last_place(name):
    check_function(name, 65_537)


SPECIAL = {   # of inf, -inf and nan
    "exp": (np.inf, 0.0), "tanh": (1.0, -1.0), "sigmoid": (1.0, 0.0), "softplus": (np.inf, 0.0), "relu": (np.inf, 0.0),
    "silu": (np.inf, np.nan), "gelu": (np.inf, np.nan), "gelu_tanh": (np.inf, np.nan), "expm1": (np.inf, -1.0),
    "**2": (np.inf, np.inf), "**3": (np.inf, -np.inf), "**-1": (0.0, -0.0), "erf": (1.0, -1.0), "abs": (np.inf, np.inf),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_functions_of_inf_and_nan(name):
    for count in (3, 40):
        got = flatgrad.vmap(single(function_of(name)))(np.resize([np.inf, -np.inf, np.nan], count)).data
        want = np.resize([*SPECIAL[name], np.nan], count)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", ["silu", "gelu", "gelu_tanh"])
def test_slopes_at_inf_are_nan(name):
    x = Tensor([np.inf, -np.inf, np.nan, 30.0, -30.0])
    flatgrad.vmap(single(function_of(name)))(x).sum().backward()
    assert np.isnan(x.grad[:3]).all() and x.grad[3] == 1.0 and abs(x.grad[4]) < 1e-10


def test_logarithms_of_inf_and_nan():
    for f in (flatgrad.log, flatgrad.log1p, flatgrad.sqrt, lambda x: x**0.5):
        got = flatgrad.vmap(single(f))(np.array([np.inf, np.nan, 1.0])).data
        assert got[0] == np.inf and np.isnan(got[1]) and np.isfinite(got[2])


ROWS = [row for row in _core._operations() if row["kind"] and row["id"] not in ("COPY", "POWI", "POWC")]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_values_and_gradients_of_all_rows(row):
    """As the rows themselves have them, of a number of samples that no vector divides; and of operands that are the
    same for all."""
    draw = np.random.default_rng(5)
    arity, weights = row["arity"], draw.uniform(0.5, 1.5, 37)

    def f(*xs):
        return _core._apply(row["id"], *xs)

    for same in [(), *[(k,) for k in range(arity) if arity > 1]]:
        xs = [compiled.rounded(draw.uniform(0.1, 0.9, 37)) for _ in range(arity)]
        operands = [Value(x[0]) if k in same else Tensor(x) for k, x in enumerate(xs)]
        result = flatgrad.vmap(single(f), in_axes=tuple(None if k in same else 0 for k in range(arity)))(*operands)
        (result * Tensor(weights, requires_grad=False)).sum().backward()
        for k in range(arity):
            if k in same:
                xs[k] = np.full(37, xs[k][0])
        rows = [[Value(x[i]) for x in xs] for i in range(37)]
        plain = [f(*values) for values in rows]
        sum((z * w for z, w in zip(plain, weights)), Value(0.0)).backward()
        np.testing.assert_allclose(result.data, [z.data for z in plain], rtol=1e-6, atol=1e-7)
        for k in range(arity):
            want = np.array([values[k].grad for values in rows])
            np.testing.assert_allclose(operands[k].grad, want.sum() if k in same else want, rtol=1e-5, atol=1e-6)


# ---- results ----

def test_numbers_are_floats():
    f = single(lambda x, y: (x, x + y, x * y))
    x, y = Value(0.1), Value(0.7)
    results = f(x, y)
    expected = np.float32(0.1), np.float32(0.1) + np.float32(0.7), np.float32(0.1) * np.float32(0.7)
    assert [r.data for r in results] == [float(e) for e in expected]
    (results[2] * 3.0).backward()
    assert (x.grad, y.grad) == (float(np.float32(3.0) * np.float32(0.7)), float(np.float32(3.0) * np.float32(0.1)))
    assert x.data == 0.1


@pytest.mark.parametrize("count", [*range(1, 68)])
def test_batches_of_any_length(count):
    draw = np.random.default_rng(count)
    w, b, c = [Tensor(draw.normal(size=shape)) for shape in ((5, 4), (5,), (5,))]
    xs = draw.normal(size=(count, 4))

    def f(x, c):
        hidden = (x @ w.T + b).tanh()
        return (hidden * c).softmax().logsumexp() + hidden.max() + (hidden * hidden).mean() * x[0]

    found = []
    for g in (lambda x, c: f(x, c), single(f)):
        for leaf in (w, b, c):
            leaf.grad = np.zeros(leaf.shape)
        t = Tensor(xs)
        z = flatgrad.vmap(g, in_axes=(0, None))(t, c)
        (z * Tensor(np.arange(count) - 1.5, requires_grad=False)).sum().backward()
        found.append([z.data, t.grad, w.grad, b.grad, c.grad])
    for got, want in zip(found[1], found[0]):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(want).max()))
    assert is_float(found[1][0]) and not np.array_equal(found[1][0], found[0][0])


@pytest.mark.parametrize("samples", [1, 3, 40])
@pytest.mark.parametrize("widths", [[1], [7, 1], [16, 16, 3], [33, 20]])
def test_layers(samples, widths):
    """Of a program that is called once for all samples: products of whole matrices."""
    draw = np.random.default_rng(samples)
    model = nn.MLP(6, widths, activation="relu" if samples == 3 else "tanh")
    x, y = draw.normal(size=(samples, 6)), draw.normal(size=(samples, widths[-1]))

    def loss(x, y):
        out = model(x)
        out = out.reshape(samples, widths[-1]) if out.ndim == 1 else out
        more = out.T.sum() * 0.1 + out.T.softmax()[0].sum() + losses.cross_entropy(out, [0] * samples)
        return ((out - y) ** 2).mean() + more

    found = []
    for f in (loss, single(loss), single(loss, simplify=False)):
        model.zero_grad()
        t = Tensor(x)
        l = f(t, Tensor(y))
        l.backward()
        found.append([np.array(l.data), t.grad, *[np.array(p.grad) for p in model.parameters()]])
    for several in found[1:]:
        for got, want in zip(several, found[0]):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(want).max()))


def test_wide_layers_against_numpy():
    draw = np.random.default_rng(0)
    x, w = draw.normal(size=(65, 300)).astype(np.float32), draw.normal(size=(130, 300)).astype(np.float32)
    want = x.astype(float) @ w.T.astype(float)
    tensors = Tensor(x.astype(float)), Tensor(w.astype(float))
    z = single(lambda x, w: x @ w.T)(*tensors)
    assert np.abs(z.data - want).max() < 3e-5 * np.abs(want).max()
    seed = draw.normal(size=want.shape).astype(np.float32).astype(float)
    (z * Tensor(seed, requires_grad=False)).sum().backward()
    for got, expected in ((tensors[0].grad, seed @ w), (tensors[1].grad, seed.T @ x)):
        assert np.abs(got - expected).max() < 3e-5 * np.abs(expected).max() and is_float(got)


def test_pytorch_has_the_same_floats():
    torch = pytest.importorskip("torch")
    draw = np.random.default_rng(3)
    x, w1, w2 = [draw.normal(size=shape) for shape in ((20, 6), (8, 6), (3, 8))]
    labels = draw.integers(0, 3, 20)
    leaves = [Tensor(a) for a in (x, w1, w2)]
    f = single(lambda x, w1, w2: losses.cross_entropy((x @ w1.T).gelu() @ w2.T, labels.tolist()))
    l = f(*leaves)
    l.backward()
    theirs = [torch.tensor(a, dtype=torch.float32, requires_grad=True) for a in (x, w1, w2)]
    loss = torch.nn.functional.cross_entropy(torch.nn.functional.gelu(theirs[0] @ theirs[1].T) @ theirs[2].T,
                                             torch.tensor(labels))
    loss.backward()
    assert l.data == pytest.approx(loss.item(), rel=1e-5)
    for ours, other in zip(leaves, theirs):
        np.testing.assert_allclose(ours.grad, other.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_results_that_are_not_reached_and_gradients_twice():
    f = single(lambda x: [x * x, (x.log(), x.sqrt())])
    x = Tensor([1.0, 4.0, 9.0])
    squares, (logs, roots) = flatgrad.vmap(f)(x)
    logs[1].backward()
    assert x.grad.tolist() == [0.0, 0.25, 0.0]
    squares[2].backward()
    assert x.grad.tolist() == [0.0, 0.25, 18.0]
    assert roots.data.tolist() == [1.0, 2.0, 3.0]


# ---- faults ----

@pytest.mark.parametrize("f, x, error", [
    (lambda x: x.log(), -1.0, ValueError), (lambda x: 1.0 / x, 0.0, ZeroDivisionError),
    (lambda x: x**-2, 0.0, ZeroDivisionError),
    (lambda x: x.exp(), 1000.0, OverflowError), (lambda x: x.exp(), 100.0, OverflowError),
    (lambda x: x**0.5, -1.0, ValueError),
    (lambda x: x**3, 1e30, OverflowError), (lambda x: x.sin(), np.inf, ValueError),
    (lambda x: x.log1p(), -2.0, ValueError),
    (lambda x: 1.0 / x, 1e-60, ZeroDivisionError), (lambda x: x.sinh(), 90.0, OverflowError),
    (lambda x: x.sqrt(), -1.0, ValueError), (lambda x: losses.kl_div([x.log()], [x]), -1.0, ValueError),
])
def test_numbers_outside_of_the_domain(f, x, error):
    nodes = flatgrad.stats()["nodes"]
    program = single(f)
    for call in (lambda: program(x), lambda: flatgrad.vmap(program)(np.array([1.0] * 20 + [x] + [1.0] * 20))):
        program(1.0)
        with pytest.raises(error, match="in a compiled function"):
            call()
        assert flatgrad.stats()["nodes"] <= nodes + 1 or program is not None
    assert np.isfinite(program(1.0).data) and np.isfinite(flatgrad.vmap(program)(np.ones(5)).data).all()


def test_sums_and_products_may_be_inf():
    f = single(lambda x: (x * x, x + x))
    assert [z.data for z in f(3e38)] == [np.inf, np.inf]
    assert f(1e300)[0].data == np.inf
    assert f(1e-30)[0].data == 0.0


# ---- instructions that compute in doubles ----

def test_scan_and_take_are_doubles_within():
    table = Tensor(np.arange(12.0).reshape(4, 3) / 7.0)

    def f(x, i):
        end, _ = flatgrad.scan(lambda c, _: (c - 0.1 * c * x, None), x, length=5)
        return end + flatgrad.take(table, i).sum() * x

    for count in (1, 19):
        xs, places = np.linspace(0.1, 0.9, count), np.arange(count) % 4.0
        found = []
        for g in (f, single(f)):
            table.grad, t = np.zeros((4, 3)), Tensor(xs)
            z = flatgrad.vmap(g)(t, places)
            z.sum().backward()
            found.append((z.data, t.grad, table.grad))
        for got, want in zip(found[1], found[0]):
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
        assert is_float(found[1][0])
    with pytest.raises(IndexError):
        flatgrad.vmap(single(f))(np.ones(3), np.array([0.0, 9.0, 1.0]))


def test_vmap_within_a_compiled_function_is_in_floats():
    w = Value(0.3)

    @single
    def loss(xs):
        return flatgrad.vmap(lambda x: (w * x).tanh() ** 2)(xs).mean()

    xs = np.random.default_rng(0).normal(size=50)
    l = loss(xs)
    l.backward()
    one_by_one = flatgrad.vmap(single(lambda x: (w * x).tanh() ** 2))(xs).data
    outer = single(lambda xs: flatgrad.vmap(lambda x: (w * x).tanh() ** 2)(xs))
    assert np.array_equal(outer(xs).data, one_by_one)
    t = np.tanh(0.3 * xs)
    assert np.abs(one_by_one - (t * t).astype(np.float32)).max() > 0.0   # doubles would be rounded once
    assert l.data == pytest.approx((t * t).mean(), rel=1e-6) and is_float(l.data)
    assert w.grad == pytest.approx((2 * t * (1 - t * t) * xs).mean(), rel=1e-5)


# ---- what compiled functions do besides ----

def test_minimize_takes_the_steps_of_a_loop():
    x, y = np.random.default_rng(0).normal(size=(2, 30))

    def train(steps):
        w, b = Value(0.5), Value(0.0)
        f = single(lambda x, y: ((x * w + b - y) ** 2).mean())
        return (*steps(f, optim.SGD([w, b], lr=0.1, momentum=0.5)), w.data, b.data)

    def loop(f, sgd):
        found = []
        for _ in range(20):
            l = f(x, y)
            sgd.zero_grad()
            l.backward()
            sgd.step()
            found.append(l.data)
        return found

    assert train(loop) == train(lambda f, sgd: f.minimize(sgd, x, y, steps=20).tolist())
    assert len(train(lambda f, sgd: f.minimize(sgd, x, y, steps=9, batch_size=8))) == 11


def test_gradients_of_transforms():
    f = single(lambda x: (x * x).sin())
    assert flatgrad.grad(f)(0.7) == pytest.approx(2 * 0.7 * np.cos(0.49), rel=1e-6)
    value, slope = flatgrad.value_and_grad(f)(0.7)
    assert value == pytest.approx(np.sin(0.49), rel=1e-6) and slope == pytest.approx(2 * 0.7 * np.cos(0.49), rel=1e-6)


def test_check():
    single(lambda x: x.exp() * 1e4, check=True)(0.1)
    numbers = iter([1.0, 2.0, 3.0, 4.0])
    f = single(lambda x: x * next(numbers), check=True)
    with pytest.raises(RecordingError, match="recorded as a constant"):
        f(0.5)


def test_each_step_of_simplification():
    ws = [Value(x) for x in np.random.default_rng(1).normal(size=24)]

    def f(*xs):
        return [sum((w * x for w, x in zip(ws[6 * k:], xs)), Value(0.0)).tanh() for k in range(4)]

    xs = np.random.default_rng(2).normal(size=(11, 6))
    want = np.array([[z.data for z in f(*map(Value, x))] for x in xs])
    for subset in compiled.SUBSETS:
        got = flatgrad.vmap(single(f, simplify=set(subset)))(*xs.T)
        np.testing.assert_allclose(np.array([z.data for z in got]).T, want, rtol=1e-5, atol=1e-6)


def test_explain_tells_the_type():
    f = single(lambda x: x * x)
    f(1.0)
    assert "bytes, in float32" in f.explain() and f.dtype == "float32"
    assert "float32" not in flatgrad.compile(lambda x: x).explain()


def doubled(x):
    return x * 2.1


compiled_doubled = single(doubled)


def test_copies_have_the_type():
    w = Value(0.1)
    f = single(lambda x: x * w)
    for g in (f, copy.deepcopy(f), pickle.loads(pickle.dumps(flatgrad.compile(doubled, dtype="float32")))):
        assert g.dtype == "float32" and is_float(g(0.7).data)

    class Model:
        def __init__(self):
            self.w = Value(0.1)

        @flatgrad.compile(dtype=np.float32)
        def __call__(self, x):
            return self.w * x

    assert is_float(Model()(0.3).data) and Model().__call__.dtype == "float32"


def test_a_program_is_saved_with_its_type():
    f = single(lambda x: x * x)
    f(1.0)
    program = next(iter(f._programs.values()))
    for core in (program.run, program.core.mapped(5, [True], 0, True)):
        again = pickle.loads(pickle.dumps(core))
        x = np.full(5, 0.1) if core is not program.run else 0.1
        assert np.array_equal(again([x])[0].data, core([x])[0].data) and is_float(again([x])[0].data)
    restore, state = program.run.__reduce__()[1][0].__reduce__()
    assert len(state) == 5 and state[-1] is True
    with pytest.raises(ValueError, match="damaged"):
        restore(*state[:-1], 1)


@pytest.mark.parametrize("dtype", ["float16", "double", float, int, np.int32, np.dtype("float16")])
def test_types_that_there_are_not(dtype):
    with pytest.raises(ArgumentError, match="dtype: expected 'float64' or 'float32', got"):
        flatgrad.compile(lambda x: x, dtype=dtype)
    with pytest.raises(ArgumentError, match="dtype: expected"):
        flatgrad.compile(dtype=dtype)


def test_types_that_are_none():
    for dtype in (None, 32, ["float32"]):
        with pytest.raises(ArgumentTypeError, match="dtype: expected 'float64' or 'float32', got"):
            flatgrad.compile(lambda x: x, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32")])
def test_names_of_the_type(dtype):
    assert flatgrad.compile(lambda x: x, dtype=dtype).dtype == "float32"
    assert flatgrad.compile(lambda x: x, dtype=np.float64).dtype == "float64"


# ---- random functions ----

@pytest.mark.parametrize("part", [0, 1, 2, *(pytest.param(part, marks=pytest.mark.slow) for part in range(3, 6))])
def test_random_functions(part):
    """A short form of `python tests/checks compiled`."""
    compared = batches = 0
    for seed in range(40 * part, 40 * part + 40):
        subset = compiled.SUBSETS[seed % len(compiled.SUBSETS)]
        compared += compiled.check(seed, [compiled.STEPS, subset], dtype="float32")
        for dtype in ("float32", "float64"):
            batches += compiled.check_batch(seed, 1 + seed % 67, dtype, subset)
    assert compared > 100 and batches > 40


@pytest.mark.slow
@pytest.mark.parametrize("level", [level for level in _core._kernel_levels() if level != flatgrad.stats()["isa"]])
def test_other_levels(level):
    environment = os.environ | {"FLATGRAD_ISA": level}
    here = ["test_functions_are_within", "test_values_and_gradients_of_all_rows", "test_layers", "test_wide_layers",
            "test_functions_of", "test_batches_of_any_length and (1 or 3)"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE / "test_float32.py"),
               "-k", " or ".join(f"({name})" for name in here)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout
    command = [sys.executable, str(HERE / "checks"), "compiled", "--count", "40", "--seed", "2000", "--dtype", "float32"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0 and f"kernels {level}" in done.stdout, done.stderr
