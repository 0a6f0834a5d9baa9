"""flatgrad.compile: what is replayed is what the function computes; what would go stale is refused."""
import copy
import gc
import math
import pickle
import random
import threading
from collections import namedtuple

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, nn, optim
from flatgrad.errors import ArgumentError, ArgumentTypeError, RecordingError, ShapeError

Pair = namedtuple("Pair", "first second")


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
    drop = nn.Dropout(0.5)
    with pytest.raises(ArgumentTypeError, match="dropout"):
        flatgrad.compile(lambda t: drop(t))(np.ones(4))


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
    (lambda: flatgrad.compile(lambda x: x)(10**400), ArgumentError, "argument 0: expected a number that float64 holds"),
    (lambda: flatgrad.compile(lambda x: x, static_argnums=0)(Value(1.0)), ArgumentTypeError, "expected a static argument"),
    (lambda: flatgrad.compile(lambda x: np.array([x], object))(1.0), ArgumentTypeError, "an array of objects"),
])
def test_what_is_not_taken(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_subclasses_of_value_are_refused():
    class Own(Value):
        pass

    with pytest.raises(ArgumentTypeError, match="of the subclass Own"):
        flatgrad.compile(lambda x: x)(Own(1.0))


# ---- copies, threads, looking at it ----

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
