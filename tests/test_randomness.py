"""Random numbers of which programs draw new ones at each call: the numbers themselves, and that they are those of the
uncompiled function, in the same order."""
import copy
import ctypes
import math
import pickle
import random
import signal
import statistics
import threading

import numpy as np
import pytest

import flatgrad
from flatgrad import Random, Tensor, Value, nn, optim
from flatgrad._core import _Draws
from flatgrad.errors import ArgumentError, ArgumentTypeError, RecordingError, ShapeError
from flatgrad.train import Callback, Trainer

XS = np.linspace(-1.0, 1.0, 21)


def state(source):
    return repr(source.rng.bit_generator.state)


def data(*several):
    return [np.asarray(x.data).tolist() for x in several]


# ---- the numbers ----

def test_uniform_numbers_are_those_of_numpy():
    source, rng = Random(7), np.random.default_rng(7)
    assert source.uniform().data == rng.random() and source.uniform(()).data == rng.random()
    assert source.uniform(5).data.tolist() == rng.random(5).tolist()
    assert source.uniform((2, 3), -1.0, 3.0).data.tolist() == rng.uniform(-1.0, 3.0, (2, 3)).tolist()
    assert source.bernoulli(0.3, (4, 2)).data.tolist() == (rng.random((4, 2)) < 0.3).astype(float).tolist()
    assert state(source) == repr(rng.bit_generator.state)
    assert type(source.uniform()) is Value and not source.uniform(3).requires_grad and source.uniform((1, 1)).ndim == 2


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64,
                                  np.random.PCG64DXSM])
def test_every_generator_of_numpy_is_drawn_from(kind):
    source, rng = Random(np.random.Generator(kind(3))), np.random.Generator(kind(3))
    assert source.uniform(50).data.tolist() == rng.random(50).tolist()
    assert state(source) == repr(rng.bit_generator.state)


def test_normal_numbers_are_quantiles():
    """Of the middles of 2**52 equal parts, one draw for each. Python has the same algorithm."""
    source, bits = Random(1), np.random.default_rng(1).bit_generator
    quantile = statistics.NormalDist().inv_cdf
    expected = [quantile(((raw >> 12) + 0.5) * 2.0 ** -52) for raw in bits.random_raw(5000).tolist()]
    assert np.allclose(source.normal(5000).data, expected, rtol=4e-16, atol=0.0)
    assert state(source) == repr(bits.state)
    same, other = Random(1), Random(1)
    assert np.array_equal(same.normal(100, 2.0, 0.5).data, 2.0 + 0.5 * other.normal(100).data)


def generator_of_bits(words):
    """What stands for a generator, and gives these words of 64 bits."""
    rest = iter(words)
    next64 = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(lambda state: next(rest))
    double = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_void_p)(lambda state: (next(rest) >> 11) * 2.0 ** -53)

    class Bits(ctypes.Structure):
        _fields_ = [(name, ctypes.c_void_p) for name in ("state", "next64", "next32", "double", "raw")]

    class Source:
        lock, keep = threading.RLock(), (next64, double)
        bits = Bits(None, *[ctypes.cast(f, ctypes.c_void_p) for f in (next64, next64, double, next64)])
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        name = b"BitGenerator"
        capsule = new(ctypes.addressof(bits), name, None)

    class Generator:
        bit_generator = Source

    return Generator


def test_normal_numbers_far_out():
    """All three ranges of the algorithm, up to its ends."""
    words = [0, 1 << 12, 5 << 12, 1 << 20, 1 << 30, 1 << 40, 1 << 50, 1 << 60, 1 << 63, (1 << 63) + (1 << 60),
             2 ** 64 - (1 << 40), 2 ** 64 - (1 << 20), 2 ** 64 - 1]
    numbers, = _Draws(generator_of_bits(words), "normal", (len(words),)).draw()
    quantile = statistics.NormalDist().inv_cdf
    assert np.allclose(numbers, [quantile(((raw >> 12) + 0.5) * 2.0 ** -52) for raw in words], rtol=4e-16, atol=0.0)
    assert 8.2 < numbers[-1] < 8.3 and -8.3 < numbers[0] < -8.2


def test_distributions():
    n, source = 200_000, Random(11)
    u, z, b = source.uniform(n).data, source.normal(n).data, source.bernoulli(0.3, n).data
    assert 0.0 <= u.min() and u.max() < 1.0
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n) and abs(u.var() - 1 / 12) < 1e-3
    assert abs(z.mean()) < 5 / math.sqrt(n) and abs(z.var() - 1.0) < 5 * math.sqrt(2 / n)
    assert abs((z ** 3).mean()) < 5 * math.sqrt(15 / n) and abs((z ** 4).mean() - 3.0) < 5 * math.sqrt(96 / n)
    assert set(b.tolist()) == {0.0, 1.0} and abs(b.mean() - 0.3) < 5 * math.sqrt(0.21 / n)
    cdf = np.vectorize(statistics.NormalDist().cdf)   # Kolmogorov and Smirnov's distance, at the level 1e-6
    for numbers, of in ((u, lambda x: x), (z[:20_000], cdf)):
        ordered, count = of(np.sort(numbers)), len(numbers)
        steps = np.arange(count + 1) / count
        assert max((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()) < 2.7 / math.sqrt(count)
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 5 / math.sqrt(n)


def test_seeds_are_independent():
    n = 50_000
    draws = np.array([Random(seed).normal(n).data for seed in range(8)])
    correlations = np.corrcoef(draws) - np.eye(8)
    assert np.abs(correlations).max() < 5 / math.sqrt(n)
    assert len({Random(seed).uniform().data for seed in range(1000)}) == 1000


def test_where_the_numbers_come_from():
    random.seed(5)
    expected = Random().uniform(4).tolist()
    assert Random().uniform(4).tolist() != expected
    random.seed(5)
    assert Random().uniform(4).tolist() == expected == Random(random.Random(5)).uniform(4).tolist()
    rng = np.random.default_rng(3)
    assert Random(rng).rng is rng and Random(rng).uniform().data == np.random.default_rng(3).random()


def test_copies_and_pickles_go_on():
    source = Random(2)
    source.normal(3)
    twins = copy.deepcopy(source), pickle.loads(pickle.dumps(source))
    expected = source.uniform(4).tolist()
    assert all(twin.uniform(4).tolist() == expected for twin in twins) and "Generator(PCG64)" in repr(source)


@pytest.mark.parametrize("call, error, message", [
    (lambda s: s.uniform(-1), ShapeError, "shape: expected at least one element"),
    (lambda s: s.uniform((2, 0)), ShapeError, "shape: expected at least one element"),
    (lambda s: s.uniform((2, 2, 2)), ShapeError, "shape: expected at most two dimensions"),
    (lambda s: s.uniform(2.0), ArgumentTypeError, "shape: expected an int"),
    (lambda s: s.uniform(True), ArgumentTypeError, "shape: expected an int"),
    (lambda s: s.uniform((), 1.0, 0.0), ArgumentError, "high: expected at least low, 1.0, got 0.0"),
    (lambda s: s.uniform((), math.nan), ArgumentError, "low: expected a finite number"),
    (lambda s: s.uniform((), Value(1.0)), ArgumentTypeError, r"low: .* write low \+ \(high - low\) \* source.uniform"),
    (lambda s: s.normal((), Value(1.0)), ArgumentTypeError, r"mean: .* write mean \+ std \* source.normal\(\)"),
    (lambda s: s.normal((), 0.0, -1.0), ArgumentError, "std: expected a finite number, 0 or more"),
    (lambda s: s.normal(3, 0.0, Tensor([1.0])), ArgumentTypeError, "std: "),
    (lambda s: s.bernoulli(1.5), ArgumentError, "p: expected a number from 0 to 1, got 1.5"),
    (lambda s: s.bernoulli(Value(0.5)), ArgumentTypeError, "p: expected a number, got Value"),
    (lambda s: s.bernoulli("x"), ArgumentTypeError, "p: expected"),
    (lambda s: Random("x"), ArgumentTypeError, "rng: expected"),
    (lambda s: Random(-1), ArgumentError, "rng: expected"),
])
def test_wrong_arguments_draw_nothing(call, error, message):
    source = Random(0)
    before = state(source)
    with pytest.raises(error, match=message):
        call(source)
    assert state(source) == before


# ---- programs ----

def noisy(source, w):
    def f(x):
        a, b = source.uniform(), source.normal(3)
        c, d = source.bernoulli(0.4, (2, 3)), source.uniform((), -1.0, 1.0)
        return (w * x * a + (b * c).sum() + d * x).tanh(), b
    return f


@pytest.mark.parametrize("options", [{"simplify": False}, {}, {"check": True}], ids=["as it is", "simplified", "check"])
def test_a_program_draws_what_the_function_draws(options):
    results = []
    for compiled in (False, True):
        source, w = Random(3), Value(0.5)
        f = noisy(source, w)
        if compiled:
            f = flatgrad.compile(f, **options)
        got = []
        for x in (0.5, 1.0, -1.0, 0.25):
            y, b = f(x)
            y.backward()
            got += data(y, b) + [w.grad]
        results.append(got + [state(source)])
    plain, compiled = results
    assert plain[-1] == compiled[-1]
    assert plain == compiled if "simplify" in options else all(map(np.allclose, plain[:-1], compiled[:-1]))


def test_a_second_backward_has_the_numbers_of_the_call():
    source, x = Random(0), Value(1.0)
    f = flatgrad.compile(lambda x: x * source.normal())
    first, second = f(x), f(x)
    for y in (first, first, second):
        before = x.grad
        y.backward()
        assert x.grad - before == y.data
    assert first.data != second.data


def test_recording_takes_nothing():
    """Nor does a call that fails; and one draws even what its result does not depend on."""
    source, twin = Random(0), Random(0)
    f = flatgrad.compile(lambda x: (x - source.uniform()).log())
    with pytest.raises(ValueError):
        flatgrad.compile(lambda x: x.log() * source.uniform())(-1.0)
    assert state(source) == state(twin)
    assert f(2.0).data == (2.0 - twin.uniform()).log().data and state(source) == state(twin)
    g = flatgrad.compile(lambda x: (source.normal(), 5.0)[1])
    h = flatgrad.compile(lambda x: (source.normal(), x * 2.0)[1])
    for use in (g, h, g, h):
        use(1.0)
        twin.normal()
        assert state(source) == state(twin)


def test_several_sources_and_what_is_in_their_place():
    class Model:
        def __init__(self):
            self.source, self.other = Random(1), Random(2)

        def __call__(self, x):
            return x * self.source.uniform() + self.other.uniform() + self.source.uniform()

    model, twin = Model(), Model()
    f = flatgrad.compile(lambda x: model(x), simplify=False)
    for k in range(4):
        if k == 2:
            model.other, twin.other = Random(9), Random(9)
        assert f(0.5).data == twin(Value(0.5)).data
    assert state(model.source) == state(twin.source) and state(model.other) == state(twin.other)


@pytest.mark.parametrize("bad", [
    lambda s: lambda x: x if s.uniform() < 0.5 else -x,
    lambda s: lambda x: x * float(s.normal(2)[0]),
    lambda s: lambda x: x * s.uniform(2).data[0],
    lambda s: lambda x: x * float((s.uniform(3) * 2.0).sum().tanh()),
    lambda s: lambda x: x * [1, 2][s.bernoulli()],
])
def test_the_numbers_are_not_read(bad):
    with pytest.raises(TypeError, match="recorded|integer"):
        flatgrad.compile(bad(Random(1)))(1.0)


def test_check_finds_numbers_drawn_in_another_way():
    rng, source = np.random.default_rng(0), Random(0)
    with pytest.raises(RecordingError):
        flatgrad.compile(lambda x: x * rng.random(), check=True)(1.0)
    f = flatgrad.compile(lambda x: x * source.uniform(), check=True)
    assert f(1.0).data != f(1.0).data


def per_sample(source):
    return lambda x: x * source.uniform() + source.normal() * (x + source.bernoulli() * 2.0) + source.normal(4).sum()


def test_each_sample_of_a_batch_draws_its_own():
    results = []
    for wrap in (flatgrad.vmap, lambda f: flatgrad.vmap(flatgrad.compile(f)),
                 lambda f: flatgrad.compile(lambda xs: flatgrad.vmap(f)(xs)),
                 lambda f: flatgrad.compile(lambda xs: flatgrad.vmap(flatgrad.compile(f))(xs))):
        source = Random(5)
        mapped = wrap(per_sample(source))
        results.append([mapped(XS).tolist() for _ in range(3)] + [state(source)])
    for other in results[1:]:
        assert other[-1] == results[0][-1] and np.allclose(other[:-1], results[0][:-1], rtol=1e-12)


def test_a_batch_of_tables_is_computed_sample_by_sample():
    results = []
    for wrap in (flatgrad.vmap, lambda f: flatgrad.vmap(flatgrad.compile(f)),
                 lambda f: flatgrad.compile(lambda xs: flatgrad.vmap(f)(xs))):
        source = Random(5)
        results.append(wrap(lambda x: (source.uniform((2, 3)) * x).sum())(XS).tolist() + [state(source)])
    for other in results[1:]:
        assert other[-1] == results[0][-1] and np.allclose(other[:-1], results[0][:-1], rtol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_each_step_of_a_scan_draws_its_own(reverse):
    results = []
    for way in ("unrolled", "recorded", "compiled"):
        source, w = Random(5), Value(0.75)

        def step(c, x):
            return c * 0.5 * w + x * source.uniform() + source.normal(2).sum(), c * source.uniform(2)

        def run(xs):
            return flatgrad.scan(step, 0.25, xs, reverse=reverse, unroll=way == "unrolled")

        last, path = (flatgrad.compile(run, simplify=False) if way == "compiled" else run)(XS)
        last.backward()
        results.append(data(last, path) + [w.grad, state(source)])
    assert results[0] == results[1] == results[2]


def test_samples_of_loops_and_loops_of_samples():
    def loop(source):
        return lambda x: flatgrad.scan(lambda c, i: (c + x * source.uniform() - source.normal(), None), 0.1,
                                       length=4)[0] + source.uniform()

    def batches(source):
        return lambda x: flatgrad.scan(lambda c, i: (c + flatgrad.vmap(lambda z: z * source.uniform())(x), None),
                                       np.zeros(len(XS)), length=3)[0]

    for f, wraps in ((loop, (flatgrad.vmap, lambda f: flatgrad.vmap(flatgrad.compile(f)),
                             lambda f: flatgrad.compile(lambda xs: flatgrad.vmap(f)(xs)))),
                     (batches, (lambda f: lambda x: f(Tensor(x)), flatgrad.compile))):
        results = []
        for wrap in wraps:
            source = Random(6)
            results.append(wrap(f(source))(XS).tolist() + [state(source)])
        for other in results[1:]:
            assert other[-1] == results[0][-1] and np.allclose(other[:-1], results[0][:-1], rtol=1e-12)


def test_a_scan_of_tables_says_what_to_do():
    source = Random(0)
    with pytest.raises(ShapeError, match=r"scan: f draws random numbers of the shape \(2, 2\).*unroll=True"):
        flatgrad.scan(lambda c, x: (c + source.uniform((2, 2)).sum(), None), 0.0, length=3)
    assert flatgrad.fori_loop(0, 3, lambda i, c: c + source.uniform(), 0.0).data > 0.0


# ---- training ----

def dropping(seed=4):
    random.seed(seed)
    return nn.Sequential(nn.Layer(2, 8, activation="tanh"), nn.Dropout(0.3), nn.Layer(8, 1, activation="linear"),
                         nn.Dropout(0.1))


X = np.random.default_rng(0).normal(size=(23, 2))
Y = X.sum(axis=1)


def left_by(model):
    return [np.asarray(p.data).tolist() for p in model.parameters()] + [
        repr(m.rng.bit_generator.state) for m in model.modules() if isinstance(m, nn.Dropout)]


def descent(way, steps=30):
    model = dropping()
    optimizer = optim.Adam(model.parameters(), lr=0.02)

    def loss(X, y):
        return ((model(X).reshape(-1) - y) ** 2).mean()

    if way == "minimize":
        losses = flatgrad.compile(loss, simplify=False).minimize(optimizer, X, Y, steps=steps, every=7,
                                                                callback=lambda step, loss: None).tolist()
        return losses, left_by(model)
    f, losses = flatgrad.compile(loss, simplify=False) if way == "calls" else loss, []
    for _ in range(steps):
        value = f(Tensor(X, requires_grad=False), Y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.data)
    return losses, left_by(model)


def test_a_model_with_dropout_trains_compiled_as_it_does_in_python():
    plain = descent("python")
    assert plain == descent("calls") == descent("minimize")
    assert len(set(plain[0])) == 30


def test_batches_of_minimize_draw_as_those_of_a_loop():
    results = []
    for steps in ((13,), (5, 8)):
        source, w = Random(3), Value(0.5)
        f = flatgrad.compile(lambda X, y: (flatgrad.linear(X, [[w, w]]).reshape(-1) * source.normal(len(y))
                                           - y).abs().mean())
        optimizer = optim.SGD([w], lr=0.01)
        results.append([loss for n in steps for loss in f.minimize(
            optimizer, X, Y, steps=n, batch_size=8 if len(steps) == 1 else None)] + [state(source)])
    twin = Random(3)
    for n in [8, 8, 7] * 4 + [8]:
        twin.normal(n)
    assert results[0][-1] == state(twin) and len(results[1]) == 14


@pytest.mark.parametrize("size", [None, 8])
def test_fit_runs_compiled_with_dropout(size):
    results = []
    for engine in ("python", "auto", "compiled"):
        model = dropping()
        trainer = Trainer(model, optim.Adam(model.parameters(), lr=0.02), "mse")
        history = trainer.fit(X, Y, 6, batch_size=size, seed=1, progress=False, engine=engine, validation=0.2)
        results.append((history["loss"], history["val_loss"], left_by(model)))
        assert trainer.engine == ("python: engine='python'" if engine == "python" else "compiled")
    assert results[0] == results[1] == results[2]


def test_a_fit_goes_on_where_a_checkpoint_ends(tmp_path):
    class Noisy(nn.Module):
        def __init__(self):
            self.inner, self.source = dropping(), Random(8)

        def __call__(self, x):
            y = self.inner(x)
            return y + self.source.normal((len(x), 1), 0.0, 0.1) if self.training else y

    def trainer():
        model = Noisy()
        return Trainer(model, optim.SGD(model.parameters(), lr=0.02), "mse")

    whole, first, second = trainer(), trainer(), trainer()
    expected = whole.fit(X, Y, 6, seed=1, progress=False)["loss"]
    assert whole.engine == "compiled"
    first.fit(X, Y, 3, seed=1, progress=False)
    first.save(tmp_path / "half.npz")
    second.load(tmp_path / "half.npz")
    assert second.fit(X, Y, 3, seed=1, progress=False)["loss"] == expected
    assert state(second.model.source) == state(whole.model.source)


def test_a_callback_may_draw_and_replace():
    results = []
    for engine in ("python", "compiled"):
        model = dropping()
        drop = model[1] if hasattr(model, "__getitem__") else model.layers[1]

        class Change(Callback):
            def on_epoch_end(self, trainer, epoch, logs):
                drop.rng.random(3)
                if epoch == 2:
                    drop.p = 0.6
                if epoch == 4:
                    drop.rng = np.random.default_rng(99)

        trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.02), "mse")
        results.append((trainer.fit(X, Y, 7, seed=1, progress=False, engine=engine, callbacks=Change())["loss"],
                        left_by(model)))
    assert results[0] == results[1]


def test_dropout_in_a_program_follows_its_attributes():
    drop, twin = nn.Dropout(0.5, rng=1), nn.Dropout(0.5, rng=1)
    f = flatgrad.compile(lambda x: drop(x))
    for change in (lambda d: None, lambda d: setattr(d, "p", 0.2), lambda d: d.eval(), lambda d: d.train(),
                   lambda d: setattr(d, "rng", np.random.default_rng(5))):
        change(drop)
        change(twin)
        assert f(np.ones(8)).data.tolist() == np.asarray(twin(Tensor(np.ones(8))).data).tolist()
    assert f(np.ones(8)).data.tolist() == twin(Tensor(np.ones(8))).data.tolist()


def test_threads_share_a_source():
    """Each call's numbers are drawn in one go."""
    source = Random(0)
    f = flatgrad.compile(lambda x: x + source.uniform(4))
    found, n = [], 200

    def work():
        for _ in range(n):
            found.append(tuple(f(np.zeros(4)).tolist()))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = np.random.default_rng(0).random((3 * n, 4)).tolist()
    assert sorted(found) == sorted(map(tuple, expected))


def test_ctrl_c_and_other_threads_during_training():
    """The loop has the generator for some steps, and gives it back."""
    source, w = Random(0), Value(0.5)
    f = flatgrad.compile(lambda x: (w * x + source.normal(50).sum() * 0.01) ** 2)
    found, stop = [], threading.Event()

    def draw():
        while not stop.is_set():
            found.append(source.uniform().data)

    thread = threading.Thread(target=draw)
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    thread.start()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            f.minimize(optim.SGD([w], lr=1e-3), 1.0, steps=10**9)
    finally:
        stop.set()
    thread.join(20)
    timer.join()
    assert not thread.is_alive() and len(found) > 1 and 0.0 <= source.uniform().data < 1.0


def test_a_step_that_fails_has_drawn():
    """As a step in Python has."""
    source, twin, w = Random(0), Random(0), Value(1.0)
    f = flatgrad.compile(lambda x: (w * x + source.uniform()).log())
    with pytest.raises(ValueError):
        f.minimize(optim.SGD([w], lr=100.0), 1.0, steps=5)   # the second step
    twin.uniform(2)
    assert state(source) == state(twin) and w.data < -2.0
    w.data = 1.0
    f.minimize(optim.SGD([w], lr=0.0), 2.0, steps=3)
    twin.uniform(3)
    assert state(source) == state(twin)


def test_another_generator_of_a_source_is_seen():
    source = Random(1)
    f = flatgrad.compile(lambda x: source.normal() * x)
    f(1.0)
    source.rng = np.random.default_rng(77)
    found = f(1.0).data
    source.rng = np.random.default_rng(77)
    assert found == f.fn(1.0).data
    with pytest.raises(TypeError, match="rng: expected None, an int"):
        source.rng = "x"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_mean_over_a_batch_with_dropout(dtype, threads):
    drop, w = nn.Dropout(0.5, rng=0), Value(3.0)
    f = flatgrad.compile(lambda x: flatgrad.sum(drop(x)) * w, dtype=dtype)
    X = np.random.default_rng(0).standard_normal((600, 3))
    mean = flatgrad.value_and_grad(f, in_axes=0, parameters=[w], threads=threads)
    value, gradient = mean(X)
    drop.rng = np.random.default_rng(0)
    plain = sum(f.fn(row) for row in X) / len(X)
    plain.backward()
    assert value == pytest.approx(plain.data, rel=1e-5) and gradient[0] == pytest.approx(w.grad, rel=1e-5)
    assert drop.rng.random() == np.random.default_rng(0).random(1801)[-1]   # as many numbers, each once


def test_what_chooses_at_random():
    """As docs/programs.md and the error of bernoulli() say."""
    source, p = flatgrad.Random(0), Value(0.3)
    with pytest.raises(TypeError, match=r"write flatgrad\.where\(flatgrad\.relu\(p - source\.uniform\(\)\), 1\.0, 0\.0\)$"):
        source.bernoulli(p)
    for choose in (lambda: flatgrad.where(source.bernoulli(0.3), 1.0, 0.0),
                   lambda: flatgrad.where(flatgrad.relu(p - source.uniform()), 1.0, 0.0)):
        for call in choose, flatgrad.compile(choose):
            assert np.mean([call().data for _ in range(1000)]) == pytest.approx(0.3, abs=0.06)
