"""Samples of several structures in one batch: the results of one sample after the other, in their order."""
import random

import numpy as np
import pytest

import flatgrad
from flatgrad import Random, Tensor, Value
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from flatgrad.program import MOST_PROGRAMS

RNG = random.Random(0)
TEXTS = [[RNG.random() for _ in range(RNG.randint(1, 6))] for _ in range(40)] + [[0.5] * 7] * 5 + [[0.25] * 9] * 20


def folded(w):
    def f(numbers):
        total = 0.0
        for x in numbers:
            total = (total * w + x).tanh()
        return total
    return f


def of_each(f, *lists):
    """What `grouped` promises, sample by sample."""
    return flatgrad.stack([f(*[[Value(x) for x in part] for part in sample]) for sample in zip(*lists)])


WAYS = {
    "plain": lambda f: flatgrad.grouped(f),
    "compiled": lambda f: flatgrad.grouped(flatgrad.compile(f)),
    "bit for bit": lambda f: flatgrad.grouped(flatgrad.compile(f, simplify=False)),
    "checked": lambda f: flatgrad.grouped(flatgrad.compile(f, check=True)),
    "in a program": lambda f: flatgrad.compile(lambda *lists: flatgrad.grouped(f)(*lists)),
    "a program in one": lambda f: flatgrad.compile(lambda *lists: flatgrad.grouped(flatgrad.compile(f))(*lists)),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_it_is_one_sample_after_the_other(way):
    w = Value(0.5)
    expected = of_each(folded(w), TEXTS)
    (expected * np.arange(len(TEXTS))).sum().backward()
    gradient, w.grad = w.grad, 0.0
    f = way(folded(w))
    for _ in range(2):
        got = f(TEXTS)
        (got * np.arange(len(TEXTS))).sum().backward()
        assert got.shape == (len(TEXTS),) and np.allclose(got.data, expected.data, rtol=1e-13)
        assert np.isclose(w.grad, gradient, rtol=1e-12)
        w.grad = 0.0


@pytest.mark.parametrize("count", [1, 3, 4, 7, 8, 9, 17])
def test_any_number_of_samples(count):
    """Also those that do not fill their lanes: what fills them takes no part."""
    w = Value(0.5)
    f = flatgrad.grouped(flatgrad.compile(folded(w)))
    expected = of_each(folded(w), TEXTS[-count:])
    expected.sum().backward()
    gradient, w.grad = w.grad, 0.0
    got = f(TEXTS[-count:])
    got.sum().backward()
    assert got.shape == (count,) and np.allclose(got.data, expected.data) and np.isclose(w.grad, gradient)


def test_gradients_flow_to_arguments():
    leaves = [[Value(x) for x in text] for text in TEXTS]
    f = flatgrad.compile(folded(Value(0.5)))
    flatgrad.grouped(f)(leaves).sum().backward()
    got = [[x.grad for x in row] for row in leaves]
    twins = [[Value(x) for x in text] for text in TEXTS]
    for row in twins:
        f(row).backward()
    for row, twin in zip(got, twins):
        assert np.allclose(row, [x.grad for x in twin])


@pytest.mark.parametrize("compiled", [False, True])
def test_structures_of_arguments_and_results(compiled):
    w = Value(2.0)

    def f(sample, kind, vector, table):
        x = sum(sample["numbers"]) * w if kind == "sum" else sample["numbers"][0] * w
        return {"a": x, "b": (vector * w, vector.sum() + x), "c": None if table is None else table.sum()}

    samples = [{"numbers": [float(k + j) for j in range(1 + k % 3)]} for k in range(20)]
    kinds = ["sum" if k % 4 else "first" for k in range(20)]
    vectors = [np.array([k, 1.0]) if k % 2 else Tensor([float(k), 1.0]) for k in range(20)]
    tables = [np.full((1 + k % 2, 2), float(k)) for k in range(20)]
    got = flatgrad.grouped(flatgrad.compile(f) if compiled else f)(samples, kinds, vectors, tables)
    assert got["b"][0].shape == (20, 2)
    for k in range(20):
        one = f(samples[k], kinds[k], Tensor(vectors[k]) if k % 2 else vectors[k], Tensor(tables[k]))
        assert np.allclose([got["a"].data[k], *got["b"][0].data[k], got["b"][1].data[k], got["c"].data[k]],
                           [one["a"].data, *one["b"][0].data, one["b"][1].data, one["c"].data])
    assert flatgrad.grouped(f)(samples, kinds, vectors, [None] * 20)["c"] is None


def test_static_arguments_make_groups():
    f = flatgrad.compile(lambda x, n: x * n, static_argnums=1)
    assert flatgrad.grouped(f)([1.0, 2.0, 3.0, 4.0, 5.0], [2, 3, 2, 3, 2]).tolist() == [2.0, 6.0, 6.0, 12.0, 10.0]
    assert f.cache_info().currsize == 2


def test_each_sample_draws_its_own():
    """Group by group, in both ways; lanes that nobody uses draw nothing."""
    results = []
    for compiled in (False, True):
        source = Random(3)

        def f(numbers):
            return sum(numbers) * source.uniform() + source.normal()

        g = flatgrad.grouped(flatgrad.compile(f) if compiled else f)
        results.append(g(TEXTS).tolist() + g(TEXTS[:5]).tolist() + g(TEXTS).tolist() + [source.uniform().data])
    assert np.allclose(*results) and results[0][-1] == results[1][-1]


def test_memory_is_bounded():
    f = flatgrad.compile(folded(Value(0.5)))
    g = flatgrad.grouped(f)
    for n in range(1, MOST_PROGRAMS + 20):
        assert g([[0.5] * n] * 5).shape == (5,)
    assert f.cache_info().currsize == MOST_PROGRAMS
    for count in range(1, 60):
        g([[0.5]] * count)
    assert len(next(reversed(f._programs.values())).batches) <= 8
    plain = flatgrad.grouped(folded(Value(0.5)))
    for n in range(1, MOST_PROGRAMS + 20):
        plain([[0.5] * n])


def test_numbers_are_checked():
    f = flatgrad.grouped(flatgrad.compile(lambda x: x.log()))
    with pytest.raises(ValueError, match="log"):
        f([1.0, 2.0, -1.0, 3.0, 4.0])
    with pytest.raises(ArgumentError, match="a number that float64 holds"):
        f([2 ** 53 + 1] * 5)
    assert np.allclose(f([1, True + 1, np.float32(3.0), np.array(4.0), 5.0]).data, np.log([1, 2, 3, 4, 5]), rtol=1e-15)
    assert np.isnan(flatgrad.grouped(flatgrad.compile(lambda x: x * 2))([float("nan")] * 5).data).all()


@pytest.mark.parametrize("call, error, message", [
    (lambda: flatgrad.grouped(3.0), ArgumentTypeError, "grouped: fn: expected a callable, got 3.0"),
    (lambda: flatgrad.grouped(abs)(), ArgumentError, "expected at least one list of samples"),
    (lambda: flatgrad.grouped(abs)([]), ArgumentError, "expected at least one list of samples"),
    (lambda: flatgrad.grouped(abs)(np.ones(3)), ArgumentTypeError, "argument 0: expected a list of samples"),
    (lambda: flatgrad.grouped(lambda x, y: x)([1.0], [1.0, 2.0]), ShapeError, "argument 1: expected 1 samples"),
    (lambda: flatgrad.grouped(lambda x: x if isinstance(x, list) else [x])([1.0, [1.0, 2.0]]), ShapeError, None),
    (lambda: flatgrad.grouped(lambda x: flatgrad.stack(x))([[1.0], [1.0, 2.0]]), ShapeError,
     "the result of fn: expected the same shape for all samples"),
    (lambda: flatgrad.grouped(lambda x: x)([[1.0], [1.0, 2.0]]), ArgumentTypeError,
     "the result of fn: expected the same structure for all samples"),
    (lambda: flatgrad.grouped(abs)([object.__new__]), Exception, None),
])
def test_what_is_refused(call, error, message):
    if message is None:
        with pytest.raises((TypeError, ValueError)):
            call()
    else:
        with pytest.raises(error, match=message):
            call()
