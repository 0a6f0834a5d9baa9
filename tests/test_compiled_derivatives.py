"""Derivatives that are compiled, and derivatives of what is compiled, against the same without a program."""
import gc

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, compile, grad, hessian, jacobian, nn, optim, value_and_grad, vmap
from flatgrad.errors import ArgumentTypeError
from flatgrad.train import Trainer


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def bits(x):
    return np.ravel(x.data if isinstance(x, (Value, Tensor)) else x).astype(float).tobytes()


def near(got, want, tolerance=1e-13):
    got, want = [np.asarray(x.data if isinstance(x, (Value, Tensor)) else x) for x in (got, want)]
    return np.abs(got - want).max() <= tolerance * max(1.0, np.abs(want).max())


SCALARS = {
    "exp": lambda x: x.exp(), "log": lambda x: x.log(), "log1p": lambda x: x.log1p(), "expm1": lambda x: x.expm1(),
    "sqrt": lambda x: x.sqrt(), "sin": lambda x: x.sin(), "cos": lambda x: x.cos(), "tan": lambda x: x.tan(),
    "sinh": lambda x: x.sinh(), "cosh": lambda x: x.cosh(), "tanh": lambda x: x.tanh(), "erf": lambda x: x.erf(),
    "abs": lambda x: abs(x) * x, "relu": lambda x: x.relu() * x, "leaky_relu": lambda x: x.leaky_relu(0.1) * x,
    "elu": lambda x: x.elu(), "gelu": lambda x: x.gelu(), "gelu_tanh": lambda x: x.gelu_tanh(),
    "silu": lambda x: x.silu(), "softplus": lambda x: x.softplus(), "sigmoid": lambda x: x.sigmoid(),
    "integer power": lambda x: x**5, "power": lambda x: x**2.5, "power of": lambda x: 1.5**x, "powers": lambda x: x**x,
    "quotient": lambda x: (x + 1.0) / (x * x + 2.0), "atan2": lambda x: flatgrad.atan2(x, x * x + 1.0),
    "maximum": lambda x: flatgrad.maximum(x * x, x), "minimum": lambda x: flatgrad.minimum(x * x, x),
    "where": lambda x: flatgrad.where(x, x.sin(), x.cos()), "clip": lambda x: flatgrad.clip(x * x * x, 0.01, 0.5),
}


def composed(name):
    return lambda x: SCALARS[name](x * 0.7 + 0.1) * x


@pytest.mark.parametrize("name", SCALARS)
def test_rows_bit_for_bit(name):
    """The program of a derivative computes what its nodes do."""
    f = composed(name)
    second = grad(grad(f))
    program = compile(second, simplify=False)
    for x in (0.3, 0.9, 1.7):
        assert bits(program(x)) == bits(second(x)), x
    assert program.cache_info().currsize == 1


@pytest.mark.parametrize("name", SCALARS)
def test_rows(name):
    f = composed(name)
    want = [f, grad(f), grad(grad(f)), grad(grad(grad(f)))]
    of_program, program = compile(f), compile(grad(grad(grad(f))))
    inner = compile(grad(compile(grad(compile(grad(f))))))
    for x in (0.3, 0.9, 1.7):
        third = want[3](x)
        assert near(program(x), third) and near(inner(x), third)
        assert near(grad(grad(grad(of_program)))(x), third)
        assert near(grad(program)(x), grad(want[3])(x))
        assert near(hessian(of_program)(x), want[2](x))
    xs = np.array([0.3, 0.9, 1.7] * 4)
    for mapped in (vmap(program), vmap(want[3]), compile(vmap(want[3]))):
        assert near(mapped(xs), [want[3](x) for x in xs], 1e-12)


LABELS = np.array([1, 0])
TENSORS = {
    "softmax": lambda x: (x.softmax() * numbers(0, 6)).sum(), "log_softmax": lambda x: (x.log_softmax() * x).sum(),
    "logsumexp": lambda x: x.logsumexp() * x[0], "max": lambda x: x.max() * x.min() * x[1],
    "mean": lambda x: (x * x * x).mean() * x.sum(), "dot": lambda x: (x[:3] @ x[3:]) ** 2,
    "layer": lambda x: (flatgrad.linear(x.reshape(2, 3), x.reshape(2, 3), x[:2], "tanh")).sum(),
    "matrix": lambda x: ((x.reshape(2, 3) @ x.reshape(3, 2)) * x[2]).sum() * x[0],
    "cross_entropy": lambda x: flatgrad.losses.cross_entropy(x.reshape(2, 3) * x[0], LABELS),
    "take": lambda x: flatgrad.take(x * x, Value(2.0)) * x[0] * flatgrad.take(x, Value(5.0)),
    "cat": lambda x: (flatgrad.cat([x[2:], x[:2]]) * x).sum() * x[3], "mse": lambda x: flatgrad.losses.mse(
        x * x, x),
}


@pytest.mark.parametrize("name", TENSORS)
def test_instructions(name):
    f, x = TENSORS[name], numbers(1, 6)
    want = hessian(f)(x)
    assert want.any() and near(want, want.T)
    assert near(compile(hessian(f))(x), want) and near(hessian(compile(f))(x), want)
    assert near(compile(jacobian(compile(grad(compile(f)))))(x), want)
    assert near(jacobian(compile(grad(f)))(x), want)
    third = grad(lambda x: (hessian(f)(x) * numbers(2, 6, 6)).sum())(x)
    assert near(grad(compile(lambda x: (hessian(f)(x) * numbers(2, 6, 6)).sum()))(x), third)
    assert near(grad(lambda x: (compile(hessian(f))(x) * numbers(2, 6, 6)).sum())(x), third)


def test_hessian_of_a_compiled_function_in_structures():
    def f(p, q):
        return p["a"] ** 2 * p["b"].sum() * q[1] + flatgrad.sin(q[0]) * p["b"][0]

    p, q = {"a": 3.0, "b": np.array([1.0, 2.0])}, [0.5, 2.0]
    for argnums in (0, 1, (0, 1), (1, 0)):
        got, want = [hessian(g, argnums)(p, q) for g in (compile(f), f)]
        same_leaves(got, want)
    x = numbers(3, 2, 3)
    cubic = (lambda x: (x * x).sum() * x[0, 1])
    got, want = [hessian(g)(x) for g in (compile(cubic), cubic)]
    assert got.shape == want.shape == (2, 3, 2, 3) and near(got, want)


def same_leaves(got, want):
    assert type(got) is type(want)
    if isinstance(want, dict):
        assert list(got) == list(want)
        got, want = list(got.values()), list(want.values())
    if isinstance(want, (list, tuple)):
        assert len(got) == len(want)
        for pair in zip(got, want):
            same_leaves(*pair)
    else:
        assert np.shape(got) == np.shape(want) and near(got, want)


def test_hessian_of_a_compiled_function_is_of_its_own():
    f = compile(lambda x: (x * x).sum() * x[0])
    h, x = hessian(f), np.array([1.0, 2.0])
    first = h(x)
    first[:] = 0.0   # the user's own array
    assert near(h(x), [[6.0, 4.0], [4.0, 2.0]]) and f.cache_info() == (0, 0, 128, 0)
    static = compile(lambda x, n: x**n, static_argnums=1)
    assert near(hessian(static)(2.0, 3), 12.0) and near(hessian(static)(2.0, 4), 48.0)
    constant = hessian(compile(lambda x: 3.0))
    assert constant(1.0) == 0.0 and constant(2.0) == 0.0 and hessian(compile(lambda x: x * 2.0))(1.0) == 0.0
    with pytest.raises(ArgumentTypeError, match="hessian: argument 0: expected a real number"):
        h("text")
    with pytest.raises(ArgumentTypeError, match="hessian: expected f to return a Value"):
        hessian(compile(lambda x: [x]))(1.0)
    assert type(hessian(compile(lambda x: x**3))(Value(2.0))) is float
    y = Value(2.0) * 1.0
    assert isinstance(hessian(compile(lambda x: x**3))(y), Value)   # of a result: with a graph


def test_the_method_of_a_model():
    class Model:
        def __init__(self):
            self.w = Value(2.0)

        @compile
        def energy(self, x):
            return (self.w * x) ** 3

    model = Model()
    assert near(hessian(model.energy)(2.0), 96.0) and near(hessian(model.energy, parameters=[model.w])(2.0), [[96.0]])


def test_what_is_captured_is_read_at_each_call():
    w = Value(2.0)

    def f(x):
        return (w * x).sin() * x

    made = [hessian(compile(f)), compile(grad(grad(f))), compile(hessian(f)), grad(compile(grad(f)))]
    for new in (lambda: None, lambda: setattr(w, "data", 0.7)):
        new()
        for h in made:
            assert near(h(0.4), grad(grad(f))(0.4))
    w = Value(-1.5)   # another object
    for h in made:
        assert near(h(0.4), grad(grad(f))(0.4))
    w.requires_grad = False
    for h in made:
        assert near(h(0.4), grad(grad(f))(0.4))


def test_numbers_drawn_anew_at_each_call():
    def function():
        source = flatgrad.Random(5)
        return lambda x: (x * source.normal()).sin() * x

    got, want = compile(grad(grad(function()))), grad(grad(function()))
    assert [near(got(0.4), want(0.4)) for _ in range(4)] == [True] * 4


def test_check_and_float32():
    f = composed("tanh")
    assert near(compile(grad(grad(f)), check=True)(0.4), grad(grad(f))(0.4))
    assert near(compile(hessian(TENSORS["softmax"]), check=True)(numbers(1, 6)), hessian(TENSORS["softmax"])(numbers(1, 6)))
    single = compile(grad(grad(f)), dtype="float32")(0.4)
    assert single.data == float(np.float32(single.data)) and near(single, grad(grad(f))(0.4), 1e-6)
    assert near(hessian(compile(TENSORS["softmax"], dtype="float32"))(numbers(1, 6)),
                hessian(TENSORS["softmax"])(numbers(1, 6)), 1e-5)


def test_scans_and_batches_within():
    k = Value(0.6)

    def f(x):
        end, ys = flatgrad.scan(lambda c, t: ((c * k + t * x).tanh(), c * x), x, np.linspace(0, 1, 5))
        return end * ys.sum() + vmap(lambda t: (t * x).sin() * k)(np.linspace(0, 1, 9)).sum()

    def plain(x):
        end, ys = flatgrad.scan(lambda c, t: ((c * k + t * x).tanh(), c * x), x, np.linspace(0, 1, 5), unroll=True)
        return end * ys.sum() + sum([(t * x).sin() * k for t in np.linspace(0, 1, 9)])

    for n in range(1, 4):
        got, program, want = f, compile(f), plain
        for _ in range(n):
            got, program, want = grad(got), grad(program), grad(want)
        x = 0.4
        assert near(got(x), want(x)) and near(compile(got)(x), want(x)) and near(program(x), want(x))
        assert near(compile(program)(x), want(x))
    xs = numbers(4, 12)
    assert near(vmap(compile(grad(grad(f))))(xs), [grad(grad(plain))(x) for x in xs])


# ---- in training ----

def physics(model, times):
    """u'' + u of a network, squared, as a mean over times: one sample at a time, and all at once."""
    def u(t):
        return model([t])

    def residual(t):
        return (grad(grad(u))(t) + u(t)) ** 2

    def by_samples():
        return vmap(residual)(times).mean()

    def at_once():
        t = Tensor(times.reshape(-1, 1))
        out = model(t)
        slope, = flatgrad.gradients(out.sum(), t, create_graph=True)
        bend, = flatgrad.gradients(slope.sum(), t, create_graph=True)
        return ((bend + out) ** 2).mean()

    return by_samples, at_once


def test_a_physics_loss():
    model = nn.MLP(1, [5, 4, 1], activation="tanh", rng=np.random.default_rng(1))
    parameters, times = model.parameters(), np.linspace(0.0, 1.0, 13)
    by_samples, at_once = physics(model, times)
    want = value_and_grad(at_once, parameters=parameters)()
    for loss in (compile(by_samples), compile(at_once), compile(at_once, simplify=False)):
        for _ in range(2):
            value, gradient = value_and_grad(loss, parameters=parameters)()
            assert near(value, want[0]) and near(gradient, want[1], 1e-12)
        for p in parameters:
            p.grad = 0.0
        loss().backward()
        assert near([p.grad for p in parameters], want[1], 1e-12)
    second = hessian(at_once, parameters=parameters)()
    assert near(hessian(compile(at_once), parameters=parameters)(), second, 1e-12)
    assert near(hessian(compile(by_samples), parameters=parameters)(), second, 1e-12)


def test_minimize_is_the_loop():
    found = []
    for how in ("loop", "minimize"):
        model = nn.MLP(1, [4, 1], activation="tanh", rng=np.random.default_rng(1))
        loss = compile(physics(model, np.linspace(0.0, 1.0, 9))[1])
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        if how == "minimize":
            losses = loss.minimize(optimizer, steps=20)
        else:
            losses = []
            for _ in range(20):
                value = loss()
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                losses.append(value.data)
        found.append((bits(losses), bits([p.data for p in model.parameters()])))
    assert found[0] == found[1]


def test_a_trainer_with_a_gradient_in_its_penalty():
    x = np.linspace(-1, 1, 16).reshape(-1, 1)
    y = np.sin(3 * x[:, 0])
    found = []
    for compiled in (True, False):
        model = nn.MLP(1, [5, 1], activation="tanh", rng=np.random.default_rng(2))

        def penalty(parameters, model=model):
            slope = grad(lambda t: model([t]))
            return 0.1 * (slope(Value(-1.0)) ** 2 + slope(Value(1.0)) ** 2)

        trainer = Trainer(model, optim.Adam(model.parameters(), lr=0.01), "mse", penalty=penalty)
        trainer.fit(x, y, epochs=3, batch_size=8, seed=1, engine="compiled" if compiled else "python")
        found.append([p.data for p in model.parameters()])
        assert (trainer.engine == "compiled") is compiled
    assert near(found[0], found[1], 1e-12)


def test_drawn():
    draw_dot = pytest.importorskip("graphviz") and flatgrad.viz.draw_dot
    x = Value(0.5)
    f = compile(lambda x: (x * x).sin())
    first, = flatgrad.gradients(f(x), x, create_graph=True)
    second, = flatgrad.gradients(first, x, create_graph=True)
    assert "call" in draw_dot(second).source


def test_nothing_is_left():
    def once():
        f = compile(lambda x: (x * x).sum() * x[0])
        x = np.array([1.0, 2.0])
        hessian(f)(x), compile(hessian(f))(x), grad(lambda x: hessian(f)(x).sum())(x)

    once()
    gc.collect()
    flatgrad.collect()
    before = flatgrad.stats()["nodes"], _core._live_programs()
    for _ in range(3):
        once()
    gc.collect()
    flatgrad.collect()
    assert (flatgrad.stats()["nodes"], _core._live_programs()) == before and _core._check()
