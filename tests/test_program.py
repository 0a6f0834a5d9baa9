"""flatgrad.compile: what is replayed is what the function computes; what would go stale is refused."""
import copy
import gc
import math
import pickle
import random
import re
import signal
import sys
import threading
from collections import namedtuple

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, nn, optim
from flatgrad.errors import ArgumentError, ArgumentTypeError, RecordingError, ShapeError
from flatgrad.train import Trainer

Pair = namedtuple("Pair", "first second")
TABLE = Tensor([1.0, 2.0, 3.0])


@flatgrad.compile
def at_module_level(x):
    return x * 2.0


def gradients(leaves):
    return [np.asarray(leaf.grad).tolist() for leaf in leaves]


def both_ways(fn, leaves, *args, rtol=1e-12):
    """The result of a function of Values and Tensors, compiled and not, with the gradients of these leaves; compiled
    twice, so that a replay is among it."""
    runs = []
    compiled = flatgrad.compile(fn)
    for f in (fn, compiled, compiled):
        for leaf in leaves:
            leaf.grad = 0.0
        out = f(*args)
        total = out if isinstance(out, Value) else out.sum()
        total.backward()
        runs.append((np.asarray(out.data), gradients(leaves)))
    for data, grads in runs[1:]:
        np.testing.assert_allclose(data, runs[0][0], rtol=rtol, atol=1e-13)
        for got, want in zip(grads, runs[0][1]):
            np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-13)
    assert compiled.cache_info()[:2] == (1, 1)


# ---- what it computes ----

def test_a_decorator_with_and_without_options():
    @flatgrad.compile
    def square(x):
        """Of x."""
        return x * x

    @flatgrad.compile(static_argnums=1)
    def power(x, n):
        return x**n

    assert square(3.0).data == 9.0 and square.__name__ == "square" and square.__doc__ == "Of x."
    assert power(2.0, 3).data == 8.0 and power(2.0, 4).data == 16.0
    assert power.cache_info().misses == 2 and power.cache_info().hits == 0


def test_gradients_flow_to_arguments_and_captured_leaves():
    w, x = Value(3.0), Value(2.0)
    f = flatgrad.compile(lambda x: (w * x).tanh() + x)
    for _ in range(3):
        w.grad = x.grad = 0.0
        (f(x) * 5.0).backward()
        slope = 1 - math.tanh(w.data * x.data) ** 2
        assert w.grad == pytest.approx(5 * slope * x.data) and x.grad == pytest.approx(5 * (slope * w.data + 1))
        w.data, x.data = w.data / 7, x.data / 3
    assert f.cache_info() == (2, 1, 128, 1)


def test_an_argument_may_be_the_result_of_operations():
    a = Value(0.5)
    f = flatgrad.compile(lambda x, y: x * y)
    out = f(a * 2.0, f(a, a)) + a
    out.backward()
    assert out.data == 0.5 * 2 * 0.25 + 0.5
    assert a.grad == pytest.approx(3 * 2 * 0.25 + 1)


def test_micrograds_demo_with_one_decorator():
    random.seed(1)
    model = nn.MLP(2, [8, 8, 1], fused=False) if "fused" in nn.MLP.__init__.__kwdefaults__ else nn.MLP(2, [8, 8, 1])
    rng = np.random.default_rng(0)
    X = [[float(v) for v in row] for row in rng.normal(size=(20, 2))]
    y = [1.0 if a * b > 0 else -1.0 for a, b in X]

    def loss(X, y):
        scores = [model(x) for x in X]
        losses = [(1 + -yi * score).relu() for yi, score in zip(y, scores)]
        return sum(losses) * (1.0 / len(losses)) + 1e-4 * sum(p * p for p in model.parameters())

    both_ways(loss, model.parameters(), X, y, rtol=1e-9)


def test_training_is_the_same_as_without():
    def train(compiled):
        random.seed(2)
        model = nn.MLP(2, [6, 1])
        optimizer = optim.Adam(model.parameters(), lr=0.05)
        X = np.random.default_rng(3).normal(size=(30, 2))
        y = (X[:, :1] * X[:, 1:] > 0) * 1.0

        def loss(X, y):
            return flatgrad.losses.mse(model(Tensor(X, requires_grad=False) if isinstance(X, np.ndarray) else X), y)

        f = flatgrad.compile(loss) if compiled else loss
        history = []
        for _ in range(40):
            total = f(X, y)
            model.zero_grad()
            total.backward()
            optimizer.step()
            history.append(total.data)
        return history

    np.testing.assert_allclose(train(True), train(False), rtol=1e-9)


@pytest.mark.parametrize("make", [
    lambda p: optim.SGD(p, lr=0.05, momentum=0.9), lambda p: optim.Adam(p, lr=0.02), lambda p: optim.AdamW(p, lr=0.02),
    lambda p: optim.RMSprop(p, lr=0.01), lambda p: optim.Adagrad(p, lr=0.05), lambda p: optim.Adadelta(p, lr=1.0)])
def test_optimizers_with_a_compiled_loss(make):
    X, y = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [-1.0, 1.0, 1.0, -1.0]

    def train(compiled):
        random.seed(3)
        model = nn.MLP(2, [4, 1])
        optimizer = make(model.parameters())
        loss = lambda X, y: sum([(model(x) - t) ** 2 for x, t in zip(X, y)]) / 4  # noqa: E731
        if compiled:
            loss = flatgrad.compile(loss)
        for _ in range(30):
            total = loss(X, y)
            optimizer.zero_grad()
            total.backward()
            optim.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return [p.data for p in model.parameters()], loss

    parameters, loss = train(True)
    np.testing.assert_allclose(parameters, train(False)[0], rtol=1e-8)
    assert loss.cache_info()[:2] == (29, 1)


class Net(nn.Module):
    def __init__(self):
        self.inner = nn.MLP(2, [4, 1])

    def forward(self, x):
        return self.inner(x)


class CompiledNet(Net):
    @flatgrad.compile
    def forward(self, x):
        return self.inner(x)


def test_a_trainer_with_a_compiled_loss_and_a_compiled_model():
    X, y = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.5, 0.5]]), np.array([-1.0, 1.0, 1.0, -1.0, 0.0])
    squares = lambda prediction, target: ((prediction - target) ** 2).mean()  # noqa: E731
    compiled = flatgrad.compile(squares)

    def fit(make, loss):
        random.seed(5)
        model = make()
        trainer = Trainer(model, optim.Adam(model.parameters(), lr=0.05), loss)
        history = trainer.fit(X, y, epochs=20, batch_size=2, seed=1, progress=False)
        return history.loss, trainer.predict(X), model

    plain = fit(Net, squares)
    for make, loss in ((Net, compiled), (CompiledNet, squares), (CompiledNet, compiled)):
        losses, predicted, model = fit(make, loss)
        np.testing.assert_allclose(losses, plain[0], rtol=1e-8)
        np.testing.assert_allclose(predicted, plain[1], rtol=1e-8)
    assert compiled.cache_info().misses <= 4 and model.forward.cache_info().misses <= 4   # by batches and modes


def test_structures_of_arguments_and_results():
    @flatgrad.compile
    def f(p, xs, pair, *, scale):
        return {"a": [p["w"] * x * scale for x in xs], "b": Pair(pair.first + pair.second, (1.5, None, "text")),
                "t": p["t"] * 2.0}

    out = f({"w": Value(2.0), "t": Tensor([1.0, 2.0])}, [1.0, 2], Pair(3.0, np.float64(4.0)), scale=0.5)
    assert [v.data for v in out["a"]] == [1.0, 2.0]
    assert type(out["b"]) is Pair and out["b"].first.data == 7.0 and out["b"].second == (1.5, None, "text")
    assert out["t"].tolist() == [2.0, 4.0] and isinstance(out["t"], Tensor)


def test_every_structure_has_a_program_of_its_own():
    f = flatgrad.compile(lambda x: sum(x))
    assert f([1.0, 2.0]).data == 3.0 and f([1.0, 2.0, 3.0]).data == 6.0 and f((1.0, 2.0)).data == 3.0
    assert f([4.0, 5.0]).data == 9.0
    assert f.cache_info() == (1, 3, 128, 3)
    f.clear()
    assert f.cache_info() == (0, 0, 128, 0)
    g = flatgrad.compile(lambda t: t.sum())
    assert g(np.ones(3)).data == 3.0 and g(np.ones((3, 1))).data == 3.0 and g(Tensor([1.0, 1.0, 1.0])).data == 3.0
    assert g.cache_info().misses == 3


def test_programs_are_bounded():
    f = flatgrad.compile(lambda x, n: x * n, static_argnums=(1,))
    for n in range(200):
        assert f(2.0, n).data == 2.0 * n
    assert f.cache_info() == (0, 200, 128, 128)
    assert f(2.0, 199).data == 398.0 and f.cache_info().hits == 1
    assert f(2.0, 0).data == 0.0 and f.cache_info().misses == 201


def test_static_arguments_are_told_apart_by_type_and_value():
    f = flatgrad.compile(lambda x, flag: x * 2.0 if flag is True else x * 3.0, static_argnames="flag")
    assert f(1.0, flag=True).data == 2.0 and f(1.0, flag=1).data == 3.0 and f(1.0, flag=1.0).data == 3.0
    assert f.cache_info().misses == 3
    g = flatgrad.compile(lambda x, mode: x.relu() if mode == "relu" else x.tanh())
    assert g(-1.0, "relu").data == 0.0 and g(-1.0, "tanh").data == math.tanh(-1.0)


def test_methods():
    class Model(nn.Module):
        def __init__(self, w):
            self.w = Value(w)

        @flatgrad.compile
        def loss(self, x):
            return (self.w * x) ** 2

        @flatgrad.compile(static_argnums=2)
        def power(self, x, n):
            return self.w * x**n

    a, b = Model(2.0), Model(3.0)
    assert [a.loss(1.0).data, b.loss(1.0).data, a.loss(2.0).data] == [4.0, 9.0, 16.0]
    assert a.power(2.0, 3).data == 16.0
    a.loss(1.0).backward()
    assert a.w.grad == 4.0 and b.w.grad == 0.0
    twin = copy.deepcopy(a)
    twin.w.data = 10.0
    assert twin.loss(1.0).data == 100.0 and a.loss(1.0).data == 4.0
    assert a.loss is a.loss and len(a.parameters()) == 1

    class Slots:
        __slots__ = ()

        @flatgrad.compile
        def f(self, x):
            return x

    with pytest.raises(ArgumentTypeError, match="nowhere to keep its programs"):
        Slots().f(1.0)


def test_a_program_within_a_program_is_part_of_it():
    inner = flatgrad.compile(lambda x: x * x)
    outer = flatgrad.compile(lambda x: inner(x) + inner(x + 1.0))
    assert outer(2.0).data == 13.0 and inner.cache_info().misses == 0


def test_transforms_of_programs():
    f = flatgrad.compile(lambda x, y: (x * y).tanh() + y)
    plain = f.fn
    assert flatgrad.grad(f, (0, 1))(0.3, 0.7) == flatgrad.grad(plain, (0, 1))(0.3, 0.7)
    assert flatgrad.value_and_grad(f)(0.3, 0.7) == flatgrad.value_and_grad(plain)(0.3, 0.7)
    g = flatgrad.compile(lambda x: [x[0] * x[1], x[1].exp()])
    np.testing.assert_array_equal(flatgrad.jacobian(g)([2.0, 3.0]), flatgrad.jacobian(g.fn)([2.0, 3.0]))
    assert flatgrad.gradcheck(f, (0.3, 0.7))


def test_vmap_with_programs():
    x = np.linspace(-1.0, 1.0, 7)
    w = Value(0.5)
    fn = lambda x: (w * x).tanh() * x  # noqa: E731
    want = flatgrad.vmap(fn)(x).tolist()
    np.testing.assert_allclose(flatgrad.vmap(flatgrad.compile(fn))(x).tolist(), want, rtol=1e-12)   # in lanes
    both = flatgrad.compile(flatgrad.vmap(fn))
    for _ in range(2):
        np.testing.assert_allclose(both(x).tolist(), want, rtol=1e-12)


def test_no_grad_and_constants():
    w = Value(2.0)
    f = flatgrad.compile(lambda x: w * x)
    with flatgrad.no_grad():
        out = f(3.0)   # recorded here, and yet it is a program for gradients
    assert out.data == 6.0 and out._children == ()
    f(3.0).backward()
    assert w.grad == 3.0 and f.cache_info().misses == 1
    constant = flatgrad.compile(lambda x: 5.0)
    assert constant(1.0) == 5.0


def test_an_argument_or_a_captured_leaf_may_be_the_result():
    w, t = Value(2.0), Tensor([1.0, 2.0])
    f = flatgrad.compile(lambda x: (x, w, t, x))
    x = Value(3.0)
    out = f(x)
    assert [out[0].data, out[1].data, out[2].tolist(), out[3].data] == [3.0, 2.0, [1.0, 2.0], 3.0]
    (out[0] * out[1] * out[2].sum() + out[3]).backward()
    assert (x.grad, w.grad, t.grad.tolist()) == (7.0, 9.0, [6.0, 6.0])


def test_frozen_leaves():
    w, v = Value(2.0), Value(3.0)
    f = flatgrad.compile(lambda x: w * v * x)
    w.requires_grad = False
    f(1.0).backward()
    assert (w.grad, v.grad) == (0.0, 2.0)
    w.requires_grad = True
    f(1.0).backward()
    assert (w.grad, v.grad) == (3.0, 4.0)


def test_errors_of_operations_are_those_of_the_function():
    f = flatgrad.compile(lambda x, y: (x / y).log())
    assert f(1.0, 2.0).data == math.log(0.5)
    with pytest.raises(ZeroDivisionError):
        f(1.0, 0.0)
    with pytest.raises(ValueError):
        f(-1.0, 2.0)
    assert f(1.0, 2.0).data == math.log(0.5)


def test_an_error_while_recording_leaves_nothing_behind():
    def broken(x):
        y = x * 2.0
        raise KeyError(y)

    f = flatgrad.compile(broken)
    gc.collect()
    before = flatgrad.stats()["nodes"]
    for _ in range(3):
        with pytest.raises(KeyError):
            f(1.0)
    gc.collect()
    assert flatgrad.stats()["nodes"] == before and f.cache_info().currsize == 0


# ---- what would go stale ----

@pytest.mark.parametrize("read", [
    lambda x: x.data, lambda x: float(x), lambda x: int(x), lambda x: round(x), lambda x: x > 0.0, lambda x: 0.0 < x,
    lambda x: math.sin(x), lambda x: range(x), lambda x: [1, 2, 3][x], lambda x: "%f" % x, lambda x: f"{x:.2f}",
    lambda x: x.item(), lambda x: x.grad, lambda x: x.backward(), lambda x: np.asarray([x], float),
    lambda x: abs(x) if x < 0 else x, lambda x: copy.deepcopy(x), lambda x: pickle.dumps(x),
    lambda x: setattr(x, "data", 1.0), lambda x: x.update(0.1), lambda x: max(x, x + 1.0), lambda x: sorted([x, x + 1]),
    lambda x: Tensor([x]).tolist(), lambda x: Tensor([x]).data, lambda x: Tensor([x]).numpy(), lambda x: Tensor([x]) > 0,
    lambda x: flatgrad.argmax([x, x]), lambda x: np.argmax(Tensor([x, x])), lambda x: np.sign(Tensor([x])),
], ids=["data", "float", "int", "round", "gt", "lt", "math", "range", "index", "percent", "format", "item", "grad",
        "backward", "asarray", "if", "deepcopy", "pickle", "assign", "update", "max", "sorted", "tolist",
        "Tensor.data", "numpy", "Tensor gt", "argmax", "np.argmax", "np.sign"])
def test_reading_a_number_is_refused_at_the_line(read):
    def f(x):
        return x * 2.0 + (read(x * 1.5) and 0.0)

    with pytest.raises((RecordingError, TypeError)) as caught:
        flatgrad.compile(f)(1.0)
    assert any(entry.name == "f" for entry in caught.traceback)
    w = Value(2.0)
    with pytest.raises((RecordingError, TypeError)):
        flatgrad.compile(lambda x: x + (read(w) and 0.0))(1.0)
    f = flatgrad.compile(lambda x: x * 2.0)   # and then all is as before
    assert f(1.0).data == 2.0 and w.data == 2.0


def test_detach_stops_gradients_and_reads_nothing():
    f = flatgrad.compile(lambda x: x.detach() * x)
    x = Value(2.0)
    assert f(3.0).data == 9.0 and f(x).data == 4.0
    f(x).backward()
    assert x.grad == 2.0


def test_copies_of_results_are_recorded_and_copies_of_numbers_refused():
    f = flatgrad.compile(lambda x: copy.copy(x * 2.0))
    assert [f(k).data for k in (1.0, 3.0)] == [2.0, 6.0]
    w, t = Value(1.0), Tensor([1.0])
    for copied in (lambda x: copy.copy(x), lambda x: copy.copy(w) * x, lambda x: copy.copy(t) * x):
        g = flatgrad.compile(copied)
        try:
            outs = []
            for k in (1.0, 3.0):
                w.data, t.data = k, [k]
                outs.append(np.ravel(g(k).data)[0])
        except ArgumentTypeError:
            continue
        assert outs in ([1.0, 9.0], [1.0, 3.0])   # read afresh


def test_showing_a_traced_value_is_allowed():
    texts = []
    flatgrad.compile(lambda x: texts.append(repr(x * 2.0)) or x)(1.0)
    assert len(texts) == 1


def test_parameters_and_random_numbers_are_refused():
    with pytest.raises(ArgumentTypeError, match="a neuron: made while a compiled function is recorded"):
        flatgrad.compile(lambda x: nn.MLP(2, [2, 1])([x, x]))(1.0)
    for make in (nn.Dropout, flatgrad.Random, lambda: flatgrad.Random(3)):
        with pytest.raises(ArgumentTypeError, match="a source of random numbers: made while a compiled function is"):
            flatgrad.compile(lambda t: make() and t)(np.ones(4))


def test_check_finds_what_is_stale():
    scale = [1.0]
    f = flatgrad.compile(lambda x: x * scale[0], check=True)
    assert f(2.0).data == 2.0
    scale[0] = 3.0
    with pytest.raises(RecordingError, match="result 0 is 2.0 by the program and 6.0 by the function"):
        f(2.0)
    w = Value(1.0)
    rng = random.Random(0)
    g = flatgrad.compile(lambda x: w * x * rng.random(), check=True)
    with pytest.raises(RecordingError, match="recorded as a constant"):
        g(2.0)


def test_check_passes_where_nothing_is_stale():
    w, t = Value(2.0), Tensor([1.0, -1.0])
    f = flatgrad.compile(lambda x, y: {"a": w * x, "b": (t * y).tanh(), "c": 3}, check=True)
    for x in (1.0, 2.0):
        assert f(x, np.array([x, 2.0]))["a"].data == 2 * x


def test_check_does_not_mistake_rounding_for_a_difference():
    w = Value(0.1)
    f = flatgrad.compile(lambda x, y: x * w * 1e12 + (y * w + x * y) - x * w * 1e12, check=True)
    for k in range(50):   # what is left after the large terms is mostly rounding
        f(0.1 + k, 0.7 * k).backward()
    assert "after 'dots'" not in f.explain()


# ---- arguments that are not taken ----

@pytest.mark.parametrize("call, error, words", [
    (lambda: flatgrad.compile(3), ArgumentTypeError, "fn: expected a callable, got 3"),
    (lambda: flatgrad.compile(len, static_argnums="x"), ArgumentTypeError, "static_argnums: expected an int"),
    (lambda: flatgrad.compile(static_argnums=1.5), ArgumentTypeError, "static_argnums: expected an int"),
    (lambda: flatgrad.compile(len, static_argnames=(1,)), ArgumentTypeError, "static_argnames: expected a str"),
    (lambda: flatgrad.compile(len, check=1), ArgumentTypeError, "check: expected True or False, got 1"),
    (lambda: flatgrad.compile(lambda x: x)({1, 2}), ArgumentTypeError, "argument 0: expected a number"),
    (lambda: flatgrad.compile(lambda x: x)([1.0, {"a": {2.0}}]), ArgumentTypeError, r"argument 0\[1\]\['a'\]"),
    (lambda: flatgrad.compile(lambda x: x)(np.ones((2, 2, 2))), ShapeError, r"argument 0: .* the shape \(2, 2, 2\)"),
    (lambda: flatgrad.compile(lambda x: x)(np.array(["a"])), ArgumentTypeError, "argument 0: expected an array of numbers"),
    (lambda: flatgrad.compile(lambda x: x)(2**53 + 1), ArgumentError, "argument 0: expected a number that float64 holds"),
    (lambda: flatgrad.compile(lambda x: x)(np.array([1, 2**53 + 1])), ArgumentError,
     r"argument 0\[1\]: expected a number that float64 holds, got 9007199254740993"),
    (lambda: flatgrad.compile(lambda x: x)(x=np.array([[1], [2**64 - 1]], np.uint64)), ArgumentError,
     r"x\[1, 0\]: expected a number that float64 holds"),
    (lambda: flatgrad.compile(lambda x: x)(10**400), ArgumentError, "argument 0: expected a number that float64 holds"),
    (lambda: flatgrad.compile(lambda x: x, static_argnums=0)(Value(1.0)), ArgumentTypeError, "expected a static argument"),
    (lambda: flatgrad.compile(lambda x: np.array([x], object))(1.0), ArgumentTypeError, "an array of objects"),
])
def test_what_is_not_taken(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_errors_name_the_place_in_nested_arguments():
    f = flatgrad.compile(lambda *x, **y: 0.0, static_argnames="mode")
    deep = [[1.0, 2.0], ([3.0], {"a": [4.0, {5.0}]})]
    for call, place in ((lambda: f(1.0, deep), r"argument 1\[1\]\[1\]\['a'\]\[1\]: expected a number"),
                        (lambda: f(data=deep), r"data\[1\]\[1\]\['a'\]\[1\]: expected a number"),
                        (lambda: f({(1, Value(1.0)): 2.0}), r"argument 0: a key\[1\]: expected a static argument"),
                        (lambda: f([[np.array(["a"])]]), r"argument 0\[0\]\[0\]: expected an array of numbers"),
                        (lambda: f(mode=[1.0]), "mode: expected a number"),
                        (lambda: flatgrad.vmap(f)([np.array(["a"])]), r"argument 0\[0\]: expected an array")):
        with pytest.raises(ArgumentTypeError, match=place):
            call()


@pytest.mark.parametrize("length", [0, 1, 32, 33, 100])
@pytest.mark.parametrize("kind", [list, tuple])
def test_long_and_short_rows_of_numbers(kind, length):
    f = flatgrad.compile(lambda rows: sum((x for row in rows for x in row), Value(0.0)))
    row = kind(range(length))
    for rows in ([row, row], (row, [1.0]), [row], [row, [Value(3.0)], kind([1, 2.5])]):
        want = sum(x.data if isinstance(x, Value) else x for each in rows for x in each)
        for _ in range(2):
            assert f(rows).data == want
    assert f.cache_info()[:2] == (4, 4)


@pytest.mark.parametrize("call, error, words", [
    (lambda: [f(k) for f in [flatgrad.compile(lambda k: flatgrad.take(TABLE, k))] for k in (1.0, 7.0)], IndexError,
     "position 7: expected a whole number from -3 to 2, in a compiled function$"),
    (lambda: flatgrad.scan(lambda c, k: (c + flatgrad.take(TABLE, k), None), 0.0, np.array([0.0, 1.0, 9.0])),
     IndexError,
     "position 9: expected a whole number from -3 to 2, in step 2 of a scan$"),
    (lambda: flatgrad.scan(lambda c, _: (c, None), 0.0, length=10**30), ArgumentError,
     r"scan: length: expected less than 2\*\*30, got 1000000"),
    (lambda: flatgrad.scan(lambda c, _: (c, None), 0.0, length=2 * 10**9), ArgumentError, "scan: length: expected"),
    (lambda: flatgrad.scan(lambda c, _: (c, None), 0.0, length=2, checkpoint=2**30), ArgumentError,
     r"scan: checkpoint: expected less than 2\*\*30, got 1073741824"),
    (lambda: flatgrad.fori_loop(-1, 2**30, lambda i, c: c, 0.0), ArgumentError, "fori_loop: upper - lower: expected"),
])
def test_errors_name_what_is_at_fault(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_transforms_are_recorded():
    """Once they were refused there: tests/test_compiled_derivatives.py has more."""
    assert flatgrad.compile(lambda x: flatgrad.grad(lambda y: y * y)(x))(2.0).data == 4.0
    found = flatgrad.compile(lambda x: flatgrad.jacobian(lambda y: y * y)(x * 2.0))(np.ones(2))
    assert found.data.tolist() == [[4.0, 0.0], [0.0, 4.0]]
    value, slope = flatgrad.compile(lambda x: flatgrad.value_and_grad(lambda y: y * y)(x + 1.0))(2.0)
    assert (value.data, slope.data) == (9.0, 6.0)
    assert flatgrad.scan(lambda c, _: (flatgrad.grad(lambda y: y * y)(c), None), 1.0, length=2)[0].data == 4.0


def test_subclasses_of_value_are_refused():
    class Own(Value):
        pass

    with pytest.raises(ArgumentTypeError, match="of the subclass Own"):
        flatgrad.compile(lambda x: x)(Own(1.0))


# ---- copies, threads, looking at it ----

class Scaled(nn.Module):
    def __init__(self, w):
        self.w = Value(w)

    @flatgrad.compile
    def forward(self, x):
        return self.w * x


class Shifted(Scaled):
    def __init__(self, w, b):
        super().__init__(w)
        self.b = Value(b)

    @flatgrad.compile
    def forward(self, x):
        return super().forward(x) + self.b


class Plain:
    def __init__(self, w):
        self.w = Value(w)

    def power(self, x, n):
        return self.w * x**n


Plain.power = flatgrad.compile(Plain.power, static_argnums=2)   # no name is set


@pytest.mark.parametrize("again", [
    lambda x: pickle.loads(pickle.dumps(x)), lambda x: pickle.loads(pickle.dumps(x, 0)), copy.deepcopy])
def test_copies_of_instances_with_compiled_methods(again):
    model, plain = Shifted(3.0, 1.0), Plain(2.0)
    for _ in range(2):
        assert model(2.0).data == 7.0 and Scaled.forward.__get__(model)(2.0).data == 6.0
        assert plain.power(3.0, 2).data == 18.0
    assert model.forward.cache_info()[:2] == (1, 1)   # the one of the class above is another
    twin, other = again((model, plain))
    twin.w.data = other.w.data = 10.0
    assert twin.forward(2.0).data == twin(2.0).data == 21.0 and other.power(2.0, 3).data == 80.0
    assert twin.forward is not model.forward and twin.forward is twin.forward
    assert twin.forward.cache_info()[:2] == (1, 1)
    assert model.forward(2.0).data == 7.0 and plain.power(3.0, 2).data == 18.0
    method, owner = again((model.forward, model))
    owner.b.data = 0.0
    assert method is owner.forward and method(2.0).data == 6.0 and model.forward(2.0).data == 7.0
    method = again(plain.power)
    assert method(3.0, 2).data == 18.0
    shallow = copy.copy(model)
    shallow.w = Value(0.0)
    assert shallow.forward(2.0).data == 1.0 and model.forward(2.0).data == 7.0
    model.train(False)
    assert again(model).forward(2.0).data == 7.0


def test_pickle_and_copies():
    assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level or \
        pickle.loads(pickle.dumps(at_module_level))(2.0).data == 4.0
    w = Value(3.0)
    out = flatgrad.compile(lambda x: w * x)(2.0)
    twin_out, twin_w = pickle.loads(pickle.dumps((out, w)))
    twin_out.backward()
    assert (twin_w.grad, w.grad, twin_out.data) == (2.0, 0.0, 6.0)
    other_out, other_w = copy.deepcopy((out, w))
    other_out.backward()
    assert (other_w.grad, w.grad) == (2.0, 0.0)


def test_explain_says_what_a_program_consists_of():
    f = flatgrad.compile(lambda x, y: (x * y).tanh())
    assert "no programs" in f.explain()
    f(1.0, [2.0] * 1 and 2.0)
    text = f.explain()
    assert "1 program" in text and "(number, number)" in text and "tanh" in text
    assert "compiled" in repr(f)


def test_explain_measures_and_changes_nothing():
    """The numbers of the last call are those of the next backward pass, ints among them, and calls within."""
    w, source = Value(0.3), flatgrad.Random(1)
    table = [Value(0.5), Value(1.5), Value(2.5)]

    def f(x, k):
        last, _ = flatgrad.scan(lambda c, i: (c * w + x.sin(), None), x, length=5)
        return flatgrad.take(table, k) * last + source.normal(3).sum(), last

    results = []
    for explained in (False, True):
        w.grad = 0.0
        source = flatgrad.Random(1)
        g, x = flatgrad.compile(f), Value(0.7)
        h = flatgrad.compile(lambda x: x * w + source.uniform())
        got = []
        for k in (0.0, 2, 1):
            y, z = g(x, k)
            batch = flatgrad.vmap(h)(np.array([1.0, 0.1, 0.3]))
            if explained:
                text = g.explain(time=True)
                assert "random numbers: 3 at each call" in text and "a call of 5 steps of " in text
                assert re.search(r"microseconds: [\d.e+-]+ forward \(\d+ % \w.*\), [\d.e+-]+ backward", text)
                text = h.explain(time=True)
                assert "vmap: 3 samples in" in text and "microseconds a sample: " in text
            (y * z).backward()
            batch.sum().backward()
            got += [y.data, z.data, x.grad, w.grad, *batch.tolist(), g(x, k)[0].data]
        results.append(got)
    assert results[0] == results[1]


def test_explain_of_what_takes_no_gradient():
    f = flatgrad.compile(lambda x: flatgrad.floor(x.sum()) if hasattr(flatgrad, "floor") else x.sum())
    f(np.ones(3))
    assert "backward" in f.explain(time=True)
    constant = flatgrad.compile(lambda x: 5.0)
    constant(1.0)
    assert "a constant" in constant.explain(time=True)
    with pytest.raises(ArgumentTypeError, match="explain: time: expected"):
        f.explain(time=1)


def test_ctrl_c_ends_a_measurement():
    """And leaves the numbers of the last call."""
    w = Value(0.5)
    f = flatgrad.compile(lambda x: flatgrad.scan(lambda c, i: ((c * w).sin() + x, None), x, length=300_000)[0])
    x = Value(0.25)
    y = f(x)
    f(x).backward()
    expected, x.grad, w.grad = (x.grad, w.grad), 0.0, 0.0
    timer = threading.Timer(0.05, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(1000):
            f.explain(time=True)
    timer.join()
    y.backward()
    assert (x.grad, w.grad) == expected and f(x).data == y.data


def test_threads_may_call_one_program():
    w = Value(2.0)
    f = flatgrad.compile(lambda x: (w * x).tanh() * x)
    want = {k: f.fn(k / 10).data for k in range(40)}
    wrong = []

    def work():
        for _ in range(20):
            for k, expected in want.items():
                if f(k / 10).data != pytest.approx(expected, rel=1e-12):
                    wrong.append(k)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_nothing_is_left_when_a_compiled_function_goes():
    gc.collect()
    before = flatgrad.stats()["nodes"]
    for _ in range(5):
        w = Value(1.0)
        f = flatgrad.compile(lambda x, w=w: w * x)
        f(2.0).backward()
        del f, w
    gc.collect()
    assert flatgrad.stats()["nodes"] == before


# ---- random programs ----

def random_function(rng, leaves):
    """A function of three numbers and a vector, of scalar and Tensor operations."""
    seed = rng.randrange(1 << 30)

    def f(x, y, z, t):
        draw = random.Random(seed)
        values, tensors = [x, y, z, *leaves], [t]
        for _ in range(draw.randrange(3, 25)):
            kind = draw.randrange(10)
            a, b = draw.choice(values), draw.choice(values)
            if kind < 4:
                values.append([a + b, a - b, a * b, flatgrad.maximum(a, b)][kind])
            elif kind == 4:
                values.append(getattr(flatgrad, draw.choice(["tanh", "sigmoid", "relu", "sin"]))(a))
            elif kind == 5:
                values.append(sum((u * v for u, v in zip(values, reversed(values))), 0.1).tanh())
            elif kind == 6:
                tensors.append((draw.choice(tensors) * a).tanh())
            elif kind == 7:
                values.append(flatgrad.dot(draw.choice(tensors), draw.choice(tensors)).tanh())
            elif kind == 8:
                tensors.append(draw.choice(tensors).softmax() + draw.choice(tensors))
            else:
                values.append(draw.choice(tensors).sum() * 0.1)
        return sum(values).tanh() + sum(u.sum() for u in tensors).tanh()

    return f


@pytest.mark.parametrize("seed", range(60))
def test_random_programs(seed):
    rng = random.Random(seed)
    leaves = [Value(rng.uniform(-1, 1)) for _ in range(3)]
    args = [Value(rng.uniform(-1, 1)), rng.uniform(-1, 1), Value(rng.uniform(-1, 1)),
            Tensor([rng.uniform(-1, 1) for _ in range(4)])]
    both_ways(random_function(rng, leaves), [*leaves, args[0], args[2], args[3]], *args, rtol=1e-9)


# ---- positions that are arguments ----

def test_take_and_pick_at_other_positions_than_the_recorded_ones():
    rng = np.random.default_rng(0)
    values = [Value(v) for v in rng.normal(size=5)]
    rows = [[Value(v) for v in row] for row in rng.normal(size=(4, 3))]
    table, matrix = Tensor(rng.normal(size=6)), Tensor(rng.normal(size=(4, 3)))
    leaves = [*values, *[v for row in rows for v in row], table, matrix]

    def f(k, several, each, x):
        scaled = [v * x for v in values]
        return (flatgrad.take(values, k) * 2.0 + flatgrad.take(scaled, k) ** 2 + flatgrad.take(table, several).sum()
                + flatgrad.dot(flatgrad.pick(matrix, each), [1.0, 2.0, 3.0, 4.0]) + sum(flatgrad.take(rows, k)) * x
                + flatgrad.take(matrix * x, several).sum() + flatgrad.pick(values, k).tanh())

    inner = flatgrad.compile(f)
    functions = {"plain": f, "compiled": inner, "nested": flatgrad.compile(lambda *args: inner(*args) * 1.0)}
    for _ in range(20):
        args = (int(rng.integers(-4, 4)), [int(k) for k in rng.integers(-4, 4, size=3)],
                [int(k) for k in rng.integers(-3, 3, size=4)], float(rng.normal()))
        found = {}
        for name, fn in functions.items():
            for leaf in leaves:
                leaf.grad = 0.0
            x = Value(args[3])
            out = fn(*args[:3], x)
            out.backward()
            found[name] = [out.data, x.grad, *np.concatenate([np.ravel(g) for g in gradients(leaves)])]
        np.testing.assert_allclose(found["compiled"], found["plain"], rtol=1e-12)
        np.testing.assert_allclose(found["nested"], found["plain"], rtol=1e-12)


def test_transforms_of_take_at_other_positions():
    f = flatgrad.compile(lambda table, k: [flatgrad.take(table, k) ** 2, flatgrad.take([v * 3.0 for v in table], k)])
    table = [1.0, 2.0, 3.0]
    for k in (0, 2, 1, -1):
        want = np.zeros((2, 3))
        want[:, k] = 2 * table[k], 3.0
        np.testing.assert_array_equal(flatgrad.jacobian(f)(table, k), want)
        np.testing.assert_array_equal(flatgrad.grad(lambda t, k: sum(f(t, k)))(table, k), want.sum(axis=0))
    values = [Value(v) for v in table]
    f(values, 0)
    out = f(values, 2)[0]
    assert dict(zip(out._children, out._local_grads))[values[2]] == 6.0
    twin, twins = pickle.loads(pickle.dumps((out, values)))
    twin.backward()
    assert [v.grad for v in twins] == [0.0, 0.0, 6.0]


def test_a_table_of_constants_and_a_position_that_is_an_argument():
    f = flatgrad.compile(lambda k, x: flatgrad.take([1.0, 2.0, 4.0], k) * x + flatgrad.take(np.eye(2), k)[0])
    assert [f(k, 3.0).data for k in (0, 1, 0, -1)] == [4.0, 6.0, 4.0, 12.0]


@pytest.mark.parametrize("k", [3, -4, 0.5, math.nan])
def test_a_position_that_is_none(k):
    f = flatgrad.compile(lambda k: flatgrad.take([Value(1.0), Value(2.0), Value(4.0)], k) * 2.0)
    g = flatgrad.compile(lambda t, k: flatgrad.pick(t, [k, k]).sum())
    table = np.ones((2, 3))
    f(1), g(table, 1)
    for call in (lambda: f(k), lambda: g(table, k), lambda: flatgrad.take([Value(1.0)] * 3, Value(k))):
        with pytest.raises(IndexError, match=rf"position {k:.17g}: expected a whole number from -3 to 2"):
            call()
    assert f(1).data == 4.0 and g(table, 0).data == 2.0


# ---- what decides by identity, or by more than numbers ----

@pytest.mark.parametrize("ask", [
    lambda x, w: bool(x), lambda x, w: not x, lambda x, w: x == 2.0, lambda x, w: x != 2.0, lambda x, w: 2.0 == x,
    lambda x, w: x == w, lambda x, w: w == x, lambda x, w: x in [w], lambda x, w: 2.0 in [x], lambda x, w: [w].count(x),
    lambda x, w: x or 1.0, lambda x, w: any([x]), lambda x, w: list(filter(None, [x])), lambda x, w: w and 1.0,
    lambda x, w: w == 1.0, lambda x, w: (x * w) == np.float64(2.0), lambda x, w: [x] == [w],
    lambda x, w: x == True,  # noqa: E712
    lambda x, w: {"a": x} == {"a": w}, lambda x, w: [x, w].remove(w), lambda x, w: x in Tensor([1.0, 2.0]),
], ids=range(21))
def test_the_truth_and_equality_of_a_traced_value_are_refused_at_the_line(ask):
    w = Value(1.0)
    plain = ask(Value(3.0), w)   # and nothing is refused elsewhere

    def f(x):
        return x * 2.0 + (0.0 if ask(x, w) else 1.0)

    with pytest.raises(ArgumentTypeError, match="while a compiled function is recorded") as caught:
        flatgrad.compile(f)(2.0)
    assert any(entry.name == "f" for entry in caught.traceback)
    assert repr(ask(Value(3.0), w)) == repr(plain)


def test_identity_is_as_ever():
    a, b = Value(1.0), Value(1.0)
    assert a == a and a != b and not a == b and bool(a) and bool(Value(0.0)) and a in [b, a] and [b, a].index(a) == 1
    assert a != 1.0 and a != None and a != "a" and (a == 1.0) is False and len({a, b, a}) == 2  # noqa: E711

    class Sized(Value):
        def __len__(self):
            return 0

    assert not Sized(1.0)

    @flatgrad.compile
    def f(x, xs, bias=None):
        seen, table = {x, a}, {x: 1.0, b: 2.0}
        assert x in seen and table[x] == 1.0 and x is not None and x != None and x == x and xs[0] in xs  # noqa: E711
        return x * table[b] + sum(xs) + (0.0 if bias is None else bias)

    assert [f(1.0, [2.0, 3.0]).data, f(2.0, [2.0, 3.0]).data] == [7.0, 9.0]
    assert f(1.0, [2.0, 3.0], bias=1.0).data == 8.0


class Box:
    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize("make", [
    lambda x: {x}, lambda x: Box(x), lambda x: [Box(x)], lambda x: (x for _ in range(2)), lambda x: map(abs, [x]),
    lambda x: (lambda: x), lambda x: {"a": frozenset([x])}, lambda x: {x: 1.0}, lambda x: {(1, x): 1.0},
    lambda x: zip([x], [x]), lambda x: [x].__iter__(), lambda x: Ellipsis, lambda x: {"a": x}.values(),
    lambda x: bytearray(2),
    lambda x: __import__("collections").deque([x]), lambda x: __import__("types").SimpleNamespace(x=x),
    lambda x: __import__("collections").Counter(a=1), lambda x: nn.Module(), lambda x: np.array([x], object),
], ids=range(19))
def test_results_of_other_kinds_are_refused(make):
    with pytest.raises(ArgumentTypeError, match="the result.*: expected"):
        flatgrad.compile(lambda x: make(x))(1.0)


def test_results_that_are_constants_and_repeated():
    from collections import OrderedDict, defaultdict
    array = np.array([1.0, 2.0])

    @flatgrad.compile
    def f(x):
        y = x * 2.0
        return {"y": y, "again": (y, [y]), "array": array, "x": x, "text": "a", "none": None, "yes": True, "n": 3}

    first, second = f(1.0), f(2.0)
    assert second["y"] is second["again"][0] and second["y"] is second["again"][1][0] and second["y"].data == 4.0
    assert first["array"] is not second["array"] and first["array"] is not array
    first["array"][0] = 100.0
    array[1] = 50.0
    assert f(1.0)["array"].tolist() == [1.0, 2.0] and (f(1.0)["n"], f(1.0)["yes"]) == (3, True)
    g = flatgrad.compile(lambda d, e: (OrderedDict(e, b=d["a"]), e, d))
    for x in (1.0, 2.0):
        one, two, three = g(defaultdict(float, a=x), OrderedDict(a=x))
        assert type(one) is type(two) is OrderedDict and one["b"].data == x and three["missing"] == 0.0
    h = flatgrad.compile(lambda d: d["missing"] + d["a"])
    assert h(defaultdict(lambda: 2.0, a=1.0)).data == 3.0
    x = Value(3.0)
    out = flatgrad.compile(lambda x: x)(x)
    assert out is not x and out.data == 3.0 and out._children == (x,)   # a copy


# ---- modes and buffers of modules ----

def test_a_program_is_that_of_the_mode():
    drop = nn.Dropout(1.0)
    w = Value(2.0)
    f = flatgrad.compile(lambda x: (drop([x, x])[0] if drop.training else drop([x, x])[1]) * w)
    drop.eval()
    assert f(1.0).data == 2.0 and f(3.0).data == 6.0 and f.cache_info() == (1, 1, 128, 1)
    drop.train()
    assert f(1.0).data == f(3.0).data == 0.0
    drop.eval()
    assert f(1.0).data == 2.0

    class Model(nn.Module):
        def __init__(self):
            self.w, self.inner = Value(2.0), nn.Dropout(0.0)

        def __call__(self, x):
            return self.w * x if self.training else self.w * x + (1.0 if self.inner.training else 5.0)

    model = Model()
    g = flatgrad.compile(lambda x: model(x))
    for _ in range(3):
        for mode, inner, want in ((True, True, 2.0), (False, True, 3.0), (False, False, 7.0), (True, False, 2.0)):
            model.train(mode)
            model.inner.train(inner)
            assert g(1.0).data == want
    assert g.cache_info().currsize <= 4 and g.cache_info().hits >= 7 and "number" in g.explain()
    assert Model.training is True and model.training is True and "training" in vars(model)
    with pytest.raises(ArgumentTypeError, match="training: assigned to while a compiled function is recorded"):
        flatgrad.compile(lambda x: model.eval() and x)(1.0)
    g.clear()
    assert g(1.0).data == 2.0 and g.cache_info().currsize == 1


def test_running_statistics_are_read_at_each_call_and_not_written():
    norm = nn.BatchNorm(2)
    x = np.array([[1.0, 2.0], [3.0, 5.0], [0.0, 1.0]])
    f = flatgrad.compile(lambda x: norm(x).sum())
    with pytest.raises(ArgumentTypeError, match=r"running statistics: updated .*eval\(\)"):
        f(x)
    norm.eval()
    for _ in range(3):
        np.testing.assert_allclose(f(x).data, norm(x).sum().data, rtol=1e-12)
        norm.train()(x + 1.0)
        norm.eval()
        norm.running_mean[0] += 0.5
    assert f.cache_info().misses == 2   # one of them was refused
    norm.weight.grad = 0.0
    f(x).backward()
    got = norm.weight.grad.tolist()
    norm.weight.grad = 0.0
    norm(x).sum().backward()
    np.testing.assert_allclose(got, norm.weight.grad.tolist(), rtol=1e-12)
    batch = nn.BatchNorm(2, track_running_stats=False)
    g = flatgrad.compile(lambda x: (batch(x) * x).sum())
    for k in (1.0, 2.0):
        np.testing.assert_allclose(g(x * k).data, (batch(x * k) * (x * k)).sum().data, rtol=1e-12)

    class Own(nn.Module):
        buffer_names = ("scale", "count")

        def __init__(self):
            self.scale, self.count = np.array([1.0, 2.0]), np.array(3.0)

        def __call__(self, x):
            return (x * self.scale).sum() * self.count

        def write(self, x):
            self.scale = np.array([0.0, 0.0])
            return x

    own = Own()
    h = flatgrad.compile(lambda x: own(x) + own(x))
    assert h(np.array([1.0, 1.0])).data == 18.0
    own.load_state_dict({"scale": np.array([5.0, 5.0]), "count": np.array(1.0)})
    assert h(np.array([1.0, 1.0])).data == 20.0 and h.cache_info().hits == 1
    with pytest.raises(ArgumentTypeError, match="scale: a buffer assigned to"):
        flatgrad.compile(own.write)(1.0)
    assert own.scale.tolist() == [5.0, 5.0] and pickle.loads(pickle.dumps(norm)).running_mean.shape == (2,)


# ---- static arguments ----

def test_static_arguments_are_told_apart_by_whatever_could_be_told():
    f = flatgrad.compile(lambda x, n: x * 2.0, static_argnames="n")
    for misses, n in enumerate([1, 1.0, True, 0.0, -0.0, (1, 2), (1.0, 2), (1, (True,)), (1, (1,)), math.nan, (math.nan,),
                                range(3), np.float64(1.0), np.float32(1.0), np.int64(1), 1j, complex(-0.0, 1.0),
                                "a", b"a", None, frozenset([1]), frozenset([1.0]), Pair(1, 2), __import__("fractions").Fraction(1, 2)]):
        f(1.0, n=n), f(1.0, n=copy.deepcopy(n))
        assert f.cache_info().misses == misses + 1, n
    f.explain()

    class Equal:
        def __init__(self, x):
            self.x = x

        def __eq__(self, other):
            return True

        def __hash__(self):
            return 1

    g = flatgrad.compile(lambda x, c: x * c.x)
    one, two = Equal(1.0), Equal(2.0)
    assert [g(1.0, one).data, g(1.0, two).data, g(1.0, one).data] == [1.0, 2.0, 1.0]
    assert g.cache_info() == (1, 2, 128, 2)
    h = flatgrad.compile(lambda d: d[1] * (2.0 if type(next(iter(d))) is int else 3.0))
    assert [h({1: 1.0}).data, h({1.0: 1.0}).data, h({True: 1.0}).data] == [2.0, 3.0, 3.0]


def test_requires_grad_of_arguments_and_captured_leaves_decides_which_program():
    w = Value(3.0)
    t = Tensor([1.0, 2.0])
    f = flatgrad.compile(lambda x: (x * 2.0 if x.requires_grad else x * 5.0) + (w if w.requires_grad else 0.0)
                         + (t.sum() if t.requires_grad else 0.0))
    x, fixed = Value(1.0), Value(1.0)
    fixed.requires_grad = False
    for _ in range(2):
        for on in (True, False):
            w.requires_grad = on
            assert [f(x).data, f(fixed).data] == [5.0 + 3.0 * on, 8.0 + 3.0 * on]
            t.requires_grad = False
            assert [f(x).data, f(fixed).data] == [2.0 + 3.0 * on, 5.0 + 3.0 * on]
            t.requires_grad = True
    x.grad = fixed.grad = 0.0
    (f(x) + f(fixed)).backward()
    assert (x.grad, fixed.grad) == (2.0, 0.0)


@pytest.mark.parametrize("read", [lambda x: x.label, lambda x: x._prev, lambda x: x._op, lambda x: x._children])
def test_other_attributes_of_arguments_are_refused(read):
    f = flatgrad.compile(lambda x: x * 2.0 if read(x) else x * 3.0)
    for x in (1.0, Value(1.0), Value(1.0) * 2.0):
        with pytest.raises(ArgumentTypeError, match="of an argument: read while a compiled function is recorded"):
            f(x)

    @flatgrad.compile
    def g(x):
        x.label = "x"
        y = x * 2.0
        y.label = x.label + "y"
        return y * (1.0 if y._op == "*" and y.label == "xy" else 0.0)

    assert g(1.0).data == 2.0


@pytest.mark.parametrize("x, words", [
    (iter([1.0]), r"write list\(\.\.\.\)"), ((v for v in [1.0]), r"write list\(\.\.\.\)"),
    (map(abs, [1.0]), "write list"), (zip([1.0]), "write list"), ({"a": 1.0}.values(), "write list"), ({1.0: 2.0}.keys(), "write list"),
    (__import__("collections").Counter(a=1), r"subclass Counter; write dict\(\.\.\.\)"),
    (type("Own", (list,), {})([1.0]), r"subclass Own; write list\(\.\.\.\)"),
    (__import__("collections").deque([1.0]), "expected a number"), ([iter([1.0])], r"argument 0\[0\]"),
    ({Value(1.0): 2.0}, "a key: expected a static argument"), (__import__("array").array("d", [1.0]), "argument 0"),
])
def test_arguments_whose_elements_would_be_those_of_the_first_call(x, words):
    with pytest.raises(ArgumentTypeError, match=words):
        flatgrad.compile(lambda xs: sum(xs))(x)


def test_static_parameters_by_number_and_by_name():
    def f(x, n=2, *, k=1):
        assert type(n) is type(k) is int
        return x**n * k

    for options in ({"static_argnums": 1, "static_argnames": "k"}, {"static_argnums": -1, "static_argnames": ["k"]},
                    {"static_argnames": ("n", "k")}):
        g = flatgrad.compile(f, **options)
        assert [g(2.0).data, g(2.0, 3).data, g(2.0, n=3).data, g(2.0, n=3, k=2).data] == [4.0, 8.0, 8.0, 16.0]
    for options, words in (({"static_argnums": 2}, "of the 2 positional parameters of f.x, n=2, "),
                           ({"static_argnums": -3}, "got -3"), ({"static_argnames": "m"}, "got 'm'")):
        with pytest.raises(ArgumentError, match=words):
            flatgrad.compile(f, **options)
    several = flatgrad.compile(lambda *xs, **more: xs[0] * xs[-1] * more["n"], static_argnums=-1, static_argnames="n")
    assert several(1.0, 2.0, 3, n=2).data == 6.0 and several(1.0, 3, n=2).data == 6.0

    class Model:
        @flatgrad.compile(static_argnums=(2,))
        def power(self, x, n=2):
            assert type(n) is int
            return x**n

        @flatgrad.compile(static_argnames=("n", "self"))
        def other(self, x, n=2):
            return x**n

    m = Model()
    assert [m.power(2.0, 3).data, m.power(2.0, n=3).data, m.power(2.0).data, m.other(2.0, 3).data] == [8, 8, 4, 8]


def test_kinds_of_functions():
    class Model:
        scale = 2.0

        @staticmethod
        @flatgrad.compile
        def twice(x):
            return x * 2.0

        @classmethod
        @flatgrad.compile
        def scaled(cls, x):
            return x * cls.scale

        @property
        @flatgrad.compile
        def loss(self):
            return Value(3.0) * self.scale

    class Other(Model):
        scale = 5.0

    assert Model.twice(2.0).data == Model().twice(2.0).data == 4.0
    assert [Model.scaled(1.0).data, Other.scaled(1.0).data, Model().scaled(3.0).data] == [2.0, 5.0, 6.0]
    assert Model().loss.data == 6.0
    for wrong in (classmethod, staticmethod, property):
        with pytest.raises(ArgumentTypeError, match=f"write @{wrong.__name__} above @flatgrad.compile"):
            flatgrad.compile(wrong(lambda x: x))

    def generator(x):
        yield x

    async def coroutine(x):
        return x

    async def both(x):
        yield x

    class Called:
        def __call__(self, x):
            yield x

    for fn in (generator, coroutine, both, Called()):
        with pytest.raises(ArgumentTypeError, match="has yield or async"):
            flatgrad.compile(fn)


def test_what_contains_itself():
    xs = [1.0]
    xs.append(xs)
    with pytest.raises(ArgumentError, match="an argument contains itself"):
        flatgrad.compile(lambda xs: xs[0])(xs)

    def f(x):
        out = [x]
        out.append(out)
        return out

    with pytest.raises(ArgumentError, match="the result contains itself"):
        flatgrad.compile(f)(1.0)


# ---- layers and losses ----

def test_labels_and_indices_that_are_arguments():
    logits, table = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]]), nn.Embedding(4, 2)
    losses = flatgrad.losses
    for labels in ([0, 1, 1], np.array([0, 1, 1])):
        for loss in (losses.cross_entropy, losses.nll):
            with pytest.raises(ArgumentTypeError, match="target: .* a static argument, .*flatgrad.pick"):
                flatgrad.compile(lambda x, y: loss(x * 1.0, y))(logits, labels)
        with pytest.raises(ArgumentTypeError, match=r"indices: .*flatgrad.take\(embedding.weight, indices\)"):
            flatgrad.compile(lambda k: table(k))(labels)
    with pytest.raises(ArgumentTypeError, match="indices: .*flatgrad.take"):
        flatgrad.compile(lambda k: table(k))(1)
    f = flatgrad.compile(lambda x, y: losses.cross_entropy(x, y) + table(y).sum(), static_argnames="y")
    g = flatgrad.compile(lambda x, y: -flatgrad.pick(x.log_softmax(), y).mean() + flatgrad.take(table.weight, y).sum())
    for y in ((0, 1, 1), (1, 1, 0), (0, 0, 0)):
        want = losses.cross_entropy(logits, y).data + table(y).sum().data
        assert f(logits, y).data == pytest.approx(want) and g(logits, np.array(y)).data == pytest.approx(want)
    assert (f.cache_info().misses, g.cache_info().misses) == (3, 1)
    with pytest.raises(IndexError, match="position 0: the table has no elements"):
        flatgrad.take([], 0)


@pytest.mark.parametrize("make", [
    lambda: nn.Conv1d(1, 2, 3, length=6), lambda: nn.Conv1d(1, 2, 3, padding=1, length=6),
    lambda: nn.Conv2d(1, 1, 2, size=(2, 3)), lambda: nn.MaxPool1d(1, 2, length=6),
    lambda: nn.AvgPool2d(1, 2, size=(2, 3)),
    lambda: nn.LayerNorm(6), lambda: nn.Layer(6, 2), lambda: nn.MLP(6, [3, 1]), lambda: nn.Softmax(), lambda: nn.GELU(),
    lambda: nn.RNNCell(6, 2), lambda: nn.GRUCell(6, 2), lambda: nn.BatchNorm(6).eval(),
], ids=range(13))
@pytest.mark.parametrize("form", ["array", "rows", "row", "Values", "Tensor"])
def test_layers_on_arguments_of_all_forms(make, form):
    random.seed(0)
    layer, rng = make(), np.random.default_rng(0)
    f = flatgrad.compile(lambda x: layer(x))
    for _ in range(3):
        x = rng.normal(size=(3, 6))
        given = {"array": x, "rows": x.tolist(), "row": x[0].tolist(), "Values": [Value(v) for v in x[0]],
                 "Tensor": Tensor(x)}[form]
        found = []
        for fn in (f, layer):
            layer.zero_grad()
            out = fn(given)
            parts = [v for v in (out if isinstance(out, (list, tuple)) else [out])]
            total = sum((v if isinstance(v, Value) else v.sum()) * 1.5 for v in parts)
            if layer.parameters():
                total.backward()
            found.append([total.data, *[p.grad for p in layer.parameters()]])
        np.testing.assert_allclose(found[0], found[1], rtol=1e-9, atol=1e-12)


# ---- captured leaves that others take the place of ----

weight_of_the_module, factor_of_the_module = Value(2.0), 3.0


def helper_of_the_module(x):
    return weight_of_the_module * x * factor_of_the_module


def test_what_takes_the_place_of_a_captured_leaf_is_recorded_anew(monkeypatch):
    f = flatgrad.compile(lambda x: helper_of_the_module(x) + weight_of_the_module)
    assert f(1.0).data == 8.0 and f(1.0).data == 8.0 and f.cache_info().misses == 1
    monkeypatch.setitem(globals(), "weight_of_the_module", Value(5.0))
    assert f(1.0).data == 20.0 and f.cache_info().misses == 2
    f(1.0).backward()
    assert weight_of_the_module.grad == 4.0
    monkeypatch.setitem(globals(), "factor_of_the_module", 1.0)
    assert f(1.0).data == 10.0 and f.cache_info().misses == 3
    monkeypatch.setitem(globals(), "factor_of_the_module", float("1.0"))   # the same number
    monkeypatch.setitem(globals(), "helper_of_the_module", lambda x: x)
    assert f(1.0).data == 6.0

    model, params, table, scale = nn.MLP(2, [3, 1]), [Value(1.0), Value(2.0)], {"a": Value(3.0)}, 1.0
    g = flatgrad.compile(lambda x: model([x, x]) * scale + params[0] * table["a"])
    for change in (lambda: None, lambda: model.layers.__setitem__(0, nn.Layer(2, 3)), lambda: params.reverse(),
                   lambda: table.update(a=Value(-1.0)), lambda: setattr(model.layers[1].neurons[0], "b", Value(1.0)),
                   lambda: model.layers[1].neurons[0].w.__setitem__(1, Value(1.5)),
                   lambda: model.layers[1].neurons.__setitem__(0, nn.Neuron(3)),
                   lambda: setattr(model.layers[0].neurons[0], "w", [Value(1.0), Value(2.0)]),
                   lambda: params.__setitem__(0, Value(7.0)), lambda: setattr(model, "layers", [nn.Layer(2, 1)])):
        change()
        for _ in range(2):
            assert g(0.5).data == pytest.approx(g.fn(0.5).data, rel=1e-12)
    assert g.cache_info()[:2] == (10, 10)
    for scale in (2.0, 3.0):
        assert g(0.5).data == pytest.approx(g.fn(0.5).data, rel=1e-12)
    model = nn.MLP(2, [1])
    assert g(0.5).data == pytest.approx(g.fn(0.5).data, rel=1e-12)
    assert g.cache_info() == (10, 13, 128, 1)


def test_attributes_of_an_instance_that_are_replaced():
    class Model:
        def __init__(self):
            self.w, self.steps, self.history = Value(2.0), 0, []

        @flatgrad.compile
        def loss(self, x):
            return self.w * x

    m = Model()
    for w in (2.0, 3.0):
        for _ in range(3):
            assert m.loss(2.0).data == 2.0 * w
            m.steps += 1
            m.history.append(m.loss(1.0))   # is no matter of the program
        m.w = Value(3.0)
    assert m.loss.cache_info().misses == 2
    m.loss(1.0).backward()
    assert m.w.grad == 1.0

    @flatgrad.compile
    def by_argument(model, x):
        return model.w * x

    assert by_argument(m, 2.0).data == 6.0
    m.w = Value(4.0)
    assert by_argument(m, 2.0).data == 8.0
    del m.w
    with pytest.raises(AttributeError):
        by_argument(m, 2.0)


act_of_the_module, extra_of_the_module, table_of_the_module = Value.tanh, None, [1.0, 2.0]


def activated(x):
    return act_of_the_module(x) + (0.0 if extra_of_the_module is None else extra_of_the_module)


def test_any_variable_that_is_rebound_is_seen(monkeypatch):
    w = Value(0.5)
    f = flatgrad.compile(lambda x: activated(w * x) * table_of_the_module[-1] + max(1.0, 2.0))
    for misses, (name, new) in enumerate((
            ("act_of_the_module", Value.tanh), ("act_of_the_module", Value.relu), ("extra_of_the_module", Value(2.0)),
            ("extra_of_the_module", 3), ("extra_of_the_module", 3.0), ("extra_of_the_module", np.float64(4.0)),
            ("table_of_the_module", (1.0, 3.0)), ("table_of_the_module", np.array([5.0])),
            ("table_of_the_module", {-1: 6.0}), ("max", lambda x, y: 7.0)), 1):
        monkeypatch.setitem(globals(), name, new)
        for _ in range(3):
            assert f(1.5).data == pytest.approx(f.fn(1.5).data, rel=1e-12)
        assert f.cache_info().misses == misses


def test_any_variable_around_it_that_is_rebound_is_seen():
    class Config:
        scale, inner = 1.0, None

    class Other(Config):
        scale = 5.0

    w, act, k, kind, table = Value(0.5), Value.tanh, None, Config, np.array([1.0])
    config, unrelated = Config(), 0
    config.inner = Config()
    config.scale = config.inner.scale = 2.0

    def helper(x, factor=2.0, *, shift=1.0):
        return act(x) * factor + shift

    @flatgrad.compile
    def f(x):
        y = helper(w * x) * kind.scale * table[0] * config.scale * config.inner.scale
        return y if k is None else y * k

    def expect(misses):
        for _ in range(3):
            nonlocal unrelated
            unrelated += 1
            assert f(1.5).data == pytest.approx(f.fn(1.5).data, rel=1e-12)
        assert f.cache_info().misses == misses

    expect(1)
    act = Value.sin
    expect(2)
    k = Value(3.0)
    expect(3)
    kind = Other
    expect(4)
    table = np.array([3.0])
    expect(5)
    config.scale = 3.0
    expect(6)
    config.inner.scale = 4.0
    expect(7)
    config.unrelated = config.inner.unrelated = 4.0
    expect(7)
    config.inner = Other()
    expect(8)
    helper.__defaults__ = (7.0,)
    expect(9)
    helper.__kwdefaults__ = {"shift": 0.5}
    expect(10)


def test_attributes_that_a_method_reads_are_seen():
    class Part:
        def __init__(self):
            self.w, self.rate, self.counter = Value(1.5), 2.0, 0

        @property
        def faster(self):
            return self.rate * 2.0

        def __call__(self, x):
            return self.w * x * self.faster

    class Model(nn.Module):
        def __init__(self):
            self.parts, self.k, self.scale, self.act, self.steps = [Part(), Part()], None, 2.0, Value.tanh, 0

        @flatgrad.compile
        def forward(self, x):
            y = self.mixed(x) * self.scale
            return y if self.k is None else y * self.k

        def mixed(self, x):
            return self.act(self.parts[0](x) + self.parts[1](x))

        def fit(self):
            self.steps += 1

    model = Model()
    free = flatgrad.compile(lambda x: model.mixed(x))
    for misses, change in enumerate((lambda: None, lambda: setattr(model, "k", Value(2.0)),
                                     lambda: setattr(model, "scale", 3.0), lambda: setattr(model, "act", Value.sin),
                                     lambda: setattr(model.parts[1], "rate", 0.5),
                                     lambda: setattr(model, "k", None)), 1):
        change()
        for _ in range(3):
            model.fit()
            model.parts[0].counter += 1
            assert model.forward(0.25).data == pytest.approx(Model.forward.fn(model, 0.25).data, rel=1e-12)
            assert free(0.25).data == pytest.approx(model.mixed(0.25).data, rel=1e-12)
        assert model.forward.cache_info().misses == misses


def test_check_finds_a_replaced_leaf_that_nothing_else_finds():
    class Hidden:
        __slots__ = ("w",)

    hidden = Hidden()
    hidden.w = Value(2.0)
    f = flatgrad.compile(lambda x: hidden.w * x, check=True)
    assert f(1.0).data == 2.0
    hidden.w = Value(2.0)   # of the same number: its gradient tells
    with pytest.raises(RecordingError, match="the gradient by number 0"):
        f(1.0)
    f.clear()
    assert f(1.0).data == 2.0
    hidden.w = Value(3.0)
    with pytest.raises(RecordingError, match="result 0 is 2.0 by the program and 3.0 by the function"):
        f(1.0)


# ---- what docs/programs-in-detail.md says of backward passes ----

def test_data_that_change_between_forward_and_backward():
    w = Value(2.0)
    fn = lambda x: (w * x) * (w * x)  # noqa: E731
    for f, want in ((fn, 2 * 6.0 * 3.0), (flatgrad.compile(fn), 2 * 15.0 * 3.0)):
        w.data, w.grad = 2.0, 0.0
        y = f(3.0)
        w.data = 5.0
        y.backward()
        assert (w.grad, y.data) == (want, 36.0)
    x = Value(3.0)
    f = flatgrad.compile(lambda x: x * x * w)
    y = f(x)
    f(7.0)
    x.data = 4.0
    y.backward()
    assert x.grad == 2 * 4.0 * 5.0


def test_a_second_backward():
    w = Value(2.0)
    fn = lambda x: (w * x) * (w * x)  # noqa: E731
    for f, want in ((fn, 108.0), (flatgrad.compile(fn), 72.0)):
        w.grad = 0.0
        y = f(3.0)
        y.backward()
        assert w.grad == 36.0
        y.backward()
        assert w.grad == want
    w.grad = 0.0
    y = flatgrad.compile(fn)(3.0)
    z = y * 2.0
    z.backward()
    z.backward()
    assert (y.grad, w.grad) == (4.0, 36.0 * (2.0 + 4.0))   # as in micrograd, outside of the function


def test_an_error_of_the_recording_that_the_function_catches():
    def f(x):
        try:
            return x * 2.0 if x > 0.0 else x
        except TypeError:
            return x * 100.0

    compiled = flatgrad.compile(f)
    for _ in range(2):
        with pytest.raises(ArgumentTypeError, match="it went on after the error: a comparison while a compiled function"):
            compiled(1.0)

    @flatgrad.compile
    def g(x):
        try:
            return (x / 0.0) * 1.0
        except ZeroDivisionError:   # of the function's own
            return x * 3.0

    assert g(1.0).data == 3.0


# ---- attributes that a class has, until an instance has its own ----

class WithDefault:
    gain = 1.0

    def __init__(self):
        self.w = Value(2.0)

    def act(self, x):
        return x

    def __call__(self, x):
        return self.act(self.w * x) * self.gain * getattr(self, "more", 1.0)


@pytest.mark.parametrize("name, x, expected", [
    ("gain", 5.0, 10.0), ("act", lambda x: x * 7.0, 14.0), ("more", 3.0, 6.0)])
def test_an_attribute_in_place_of_the_class_s_is_seen(name, x, expected):
    thing = WithDefault()
    f = flatgrad.compile(lambda x: thing(x))
    assert f(1.0).data == 2.0
    for _ in range(2):   # also once it was there and has gone
        setattr(thing, name, x)
        assert f(1.0).data == expected
        delattr(thing, name)
        assert f(1.0).data == 2.0


def test_a_value_replaced_in_a_list_of_a_subclass_is_seen():
    weights = type("Weights", (list,), {})([Value(2.0)])
    f = flatgrad.compile(lambda x: weights[0] * x)
    assert f(1.0).data == 2.0
    weights[0] = Value(50.0)
    assert f(1.0).data == 50.0


@pytest.mark.parametrize("count", [20, 300])   # and more than are kept
@pytest.mark.parametrize("mapped", [False, True])
def test_threads_that_use_several_programs_at_once(count, mapped):
    w, errors = Value(2.0), []
    f = flatgrad.compile(lambda x, k: w * x)
    call = (lambda k: flatgrad.vmap(f, (0, None))(np.ones(2), k)) if mapped else (lambda k: f(1.0, k))

    def work(i):
        try:
            for n in range(500 if mapped else 2000):
                call(str(n * (i + 1) % count))
        except Exception as error:
            errors.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert errors == []
