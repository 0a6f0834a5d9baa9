"""Programs in fewer and larger instructions: csrc/simplify.c. The results are those of programs as they were recorded."""
import copy
import itertools
import math
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from checks import compiled
import numpy as np
import pytest
from checks.compiled import STEPS, SUBSETS

import flatgrad
from flatgrad import Tensor, Value, _core
from flatgrad.errors import ArgumentTypeError, UnknownNameError

HERE = Path(__file__).parent


def stats_of(f):
    return next(iter(f._programs.values())).core.stats()


def gradients(f, *args, leaves):
    for x in leaves:
        x.grad = 0.0
    result = f(*args)
    result.backward()
    return [result.data, *(x.grad for x in leaves)]


def neurons(width, inputs):
    return [([Value(math.sin(7 * j + k)) for k in range(inputs)], Value(0.1 * j)) for j in range(width)]


def run(layer, x):
    return [sum((w * a for w, a in zip(ws, x)), b).tanh() for ws, b in layer]


# ---- what becomes of a graph ----

def test_a_scalar_network_over_samples_becomes_layers():
    first, second = neurons(8, 3), neurons(2, 8)
    parameters = [p for layer in (first, second) for ws, b in layer for p in [*ws, b]]

    def loss(rows):
        return sum((out - 0.5) ** 2 for x in rows for out in run(second, run(first, x)))

    rows = [[0.1 * i + j for j in range(3)] for i in range(20)]
    f = flatgrad.compile(loss)
    np.testing.assert_allclose(gradients(f, rows, leaves=parameters), gradients(loss, rows, leaves=parameters),
                               rtol=1e-13)
    stats = stats_of(f)
    assert stats["instructions"] == {"layer": 2, "-": 1, "**": 1, "sum": 1}
    counts = stats["simplified"]
    assert list(counts) == ["before", *STEPS] and list(counts.values()) == sorted(counts.values(), reverse=True)
    assert counts["before"] == 20 * (8 * 6 + 8 + 2 * 16 + 2) + 40 * 3 - 1 + 1 and counts["together"] == 5


def test_equal_expressions_are_computed_once():
    def f(x, y):
        return (x * y).exp() + (x * y).exp() * (x * y).exp() + x * 1.0 + (y - 0.0) / 1.0

    shared, plain = [flatgrad.compile(f, simplify=steps) for steps in ({"shared"}, False)]
    x, y = Value(0.5), Value(-0.25)
    np.testing.assert_allclose(gradients(shared, x, y, leaves=[x, y]), gradients(f, x, y, leaves=[x, y]), rtol=1e-14)
    assert gradients(plain, x, y, leaves=[x, y]) == gradients(f, x, y, leaves=[x, y])
    assert stats_of(shared)["instructions"] == {"+": 3, "*": 2, "exp": 1}
    assert sum(stats_of(plain)["instructions"].values()) == 13 and stats_of(plain)["simplified"] == {}


def test_dots_and_operations_that_do_not_wait_are_one_instruction():
    f = flatgrad.compile(lambda xs: sum(x.tanh() * x.sin() for x in xs))
    xs = [Value(0.1 * k) for k in range(50)]
    np.testing.assert_allclose(gradients(f, xs, leaves=xs), gradients(f.fn, xs, leaves=xs), rtol=1e-13)
    assert stats_of(f)["instructions"] == {"tanh": 1, "sin": 1, "layer": 1}


def test_a_few_operations_stay_single():
    f = flatgrad.compile(lambda x, y: (x * y + x * 2.0 + y * 3.0).tanh())
    assert f(0.5, 0.25).data == pytest.approx(math.tanh(0.125 + 1.0 + 0.75), rel=1e-15)
    assert set(stats_of(f)["instructions"]) == {"*", "+", "tanh"}


def test_chains_of_any_depth_and_sums_of_any_length():
    def chain(x):
        for k in range(20000):
            x = x * 0.999 + 0.001
        return x

    x = Value(0.3)
    f = flatgrad.compile(chain)
    np.testing.assert_allclose(gradients(f, x, leaves=[x]), gradients(chain, x, leaves=[x]), rtol=1e-10)
    f = flatgrad.compile(lambda xs: sum(xs))
    xs = [Value(1.0 + k) for k in range(20000)]
    assert gradients(f, xs, leaves=xs) == [20000 * 20001 / 2] + [1.0] * 20000
    assert stats_of(f)["instructions"] == {"sum": 1}


def test_products_of_values_with_themselves():
    xs = [Value(0.1 * k - 2) for k in range(40)]
    f = flatgrad.compile(lambda xs: sum(x * x for x in xs) + sum(x * y for x, y in zip(xs, xs[1:])))
    np.testing.assert_allclose(gradients(f, xs, leaves=xs), gradients(f.fn, xs, leaves=xs), rtol=1e-13)


def test_what_is_detached_stays_so():
    w = Value(2.0)
    f = flatgrad.compile(lambda x: (w * x).detach() * w + sum(w.detach() * w * k for k in range(9)))
    assert gradients(f, 3.0, leaves=[w]) == pytest.approx(gradients(f.fn, 3.0, leaves=[w]), rel=1e-14)
    constant = Tensor([1.0, 2.0], requires_grad=False)
    t = Tensor([1.0, 2.0])
    f = flatgrad.compile(lambda: (t * constant).sum())
    f().backward()
    assert t.grad.tolist() == [1.0, 2.0] and not constant.requires_grad


def test_a_hook_on_a_result_runs():
    w, seen = Value(2.0), []
    f = flatgrad.compile(lambda xs: [sum(w * x for x in xs), w.tanh()])
    a, b = f([1.0, 2.0, 3.0])
    rule = a._backward
    a._backward = lambda: (seen.append(a.grad), rule())
    (a + b).backward()
    assert seen == [1.0] and w.grad == pytest.approx(6.0 + 1 - math.tanh(2.0)**2, rel=1e-14)


def test_results_that_are_operands_constants_and_each_other():
    f = flatgrad.compile(lambda x, y: [x, x * 1.0, x * y, x * y, Value(3.0), y])
    x, y = Value(2.0), Value(5.0)
    out = f(x, y)
    assert [o.data for o in out] == [2.0, 2.0, 10.0, 10.0, 3.0, 5.0]
    sum(out).backward()
    assert x.grad == 2 + 10 and y.grad == 4 + 1


# ---- errors, copies, threads, interrupts, memory ----

@pytest.mark.parametrize("steps", [True, False, {"shared"}, {"dots", "together"}])
def test_numbers_outside_of_a_domain_are_named(steps):
    f = flatgrad.compile(lambda xs: sum(x.log() * x for x in xs), simplify=steps)
    good = [0.5 + 0.1 * k for k in range(30)]
    expected = f(good).data
    bad = [*good[:20], -4.0, *good[21:]]
    with pytest.raises(ValueError, match=re.escape("log(-4.0)")) as caught:
        f(bad)
    with pytest.raises(ValueError) as plain:
        f.fn([Value(x) for x in bad])
    assert type(caught.value) is type(plain.value) and str(plain.value).split(":")[0] in str(caught.value)
    assert f(good).data == expected
    g = flatgrad.compile(lambda xs, y: sum(x / y for x in xs), simplify=steps)
    assert g([1.0] * 20, 2.0).data == 10.0
    with pytest.raises(ZeroDivisionError, match=re.escape("1.0 / 0.0")):
        g([1.0] * 20, 0.0)


@pytest.mark.parametrize("steps", [True, False])
def test_a_constant_outside_of_a_domain_is_an_error_as_without(steps):
    f = flatgrad.compile(lambda x: x + Value(-1.0).log(), simplify=steps)
    with pytest.raises(ValueError, match="log"):
        f(1.0)
    assert f.cache_info().currsize == 0
    g = flatgrad.compile(lambda x: x * 0.0 + (x * 0.0).exp(), simplify=steps)
    assert g(1.0).data == 1.0 and math.isnan(g(math.inf).data)


def test_pickles_and_copies_of_programs_and_graphs():
    layer = neurons(6, 4)
    f = flatgrad.compile(lambda rows: sum(sum(run(layer, x)) for x in rows))
    rows = [[0.1 * i - j for j in range(4)] for i in range(8)]
    total = f(rows)
    core = next(iter(f._programs.values())).core
    for copied in (pickle.loads(pickle.dumps(core)), copy.deepcopy(core)):
        again, = copied([x for row in rows for x in row])
        assert again.data == total.data
        assert copied.stats()["instructions"] == core.stats()["instructions"]
        again.backward()
        leaf = [x for x in copied.captured if isinstance(x, Value)][0]
        assert leaf.grad != 0.0
    graph = pickle.loads(pickle.dumps(total))
    assert graph.data == total.data
    graph.backward()
    for steps in (True, False, {"dots"}):
        made = pickle.loads(pickle.dumps(flatgrad.compile(math_like, simplify=steps)))
        assert made.simplify == flatgrad.compile(math_like, simplify=steps).simplify
        assert copy.deepcopy(made).simplify == made.simplify


def math_like(x):
    return x * x + 1.0


def test_derivatives_of_calls():
    layer = neurons(5, 3)

    def f(x):
        return run(layer, [x[0], x[1], x[2]])

    x = [0.5, -0.25, 1.0]
    got, want = [flatgrad.jacobian(g)(x) for g in (flatgrad.compile(f), f)]
    np.testing.assert_allclose(np.array(got, float), np.array(want, float), rtol=1e-13)
    got, want = [flatgrad.value_and_grad(lambda x, g=g: sum(g(x)))(x) for g in (flatgrad.compile(f), f)]
    np.testing.assert_allclose([got[0], *got[1]], [want[0], *want[1]], rtol=1e-13)


def test_threads_call_one_program():
    layer = neurons(6, 4)
    f = flatgrad.compile(lambda x: sum(run(layer, x)))
    want = {k: f([k / 10] * 4).data for k in range(8)}
    wrong = []

    def work():
        for _ in range(30):
            for k, number in want.items():
                if f([k / 10] * 4).data != number:
                    wrong.append(k)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(sys.platform == "win32", reason="no signals of that kind")
def test_an_interrupted_call_changes_nothing():
    t = Tensor(np.full((300, 300), 0.01))
    w = Value(1.0)

    def long(x):
        u = t * x
        for _ in range(60):
            u = (u @ t).tanh()
        return u.sum() + sum(w * x for _ in range(5))

    f = flatgrad.compile(long)
    expected = f(1.0).data
    timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
    interrupted = False
    end = time.monotonic() + 60
    timer.start()
    try:
        while time.monotonic() < end:
            f(1.0 + time.monotonic() % 0.01)
    except KeyboardInterrupt:
        interrupted = True
    timer.join()
    assert interrupted and f(1.0).data == expected and _core._check()


def dots(xs):
    """Sums of products and more: each is made of instructions whose results stand nowhere in the graph."""
    rows = [xs[k:k + 5] for k in range(0, len(xs), 5)]
    return sum(sum((a * b for a, b in zip(rows[k], rows[-1 - k])), rows[k][0] + rows[k][1]).tanh()
               for k in range(len(rows) // 2))


def test_more_new_values_than_there_is_room_for_at_the_beginning():
    numbers = [math.sin(3 * k + 1) for k in range(700)]
    xs = [Value(x) for x in numbers]
    expected = gradients(dots, xs, leaves=xs)
    f = flatgrad.compile(dots)
    assert gradients(f, xs, leaves=xs) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert stats_of(f)["simplified"]["together"] < 80
    rows = np.reshape(numbers, (-1, 5))
    by_numpy = np.tanh((rows * rows[::-1]).sum(1) + rows[:, 0] + rows[:, 1])[:70].sum()
    assert f(xs).data == pytest.approx(by_numpy, rel=1e-12)


LAYER = neurons(4, 3)


@pytest.mark.parametrize("function, numbers, fewest", [
    (lambda xs: sum(sum(run(LAYER, xs[k:k + 3])) for k in range(0, 15, 3)),
     [0.5 * i - j for i in range(5) for j in range(3)], 40),
    (dots, [0.1 * math.sin(k) for k in range(700)], 40),
], ids=["layers", "dots"])
def test_no_memory_for_a_step_leaves_no_program(function, numbers, fewest):
    want = flatgrad.compile(function)([Value(x) for x in numbers]).data
    living = _core._live_programs()
    for n in itertools.count():
        inputs = [Value(x) for x in numbers]
        recording = _core._Recording(inputs)
        with recording:
            output = function(inputs)
        _core._testing(fail_after=n)
        try:
            program = recording.program([output], STEPS)
        except MemoryError:
            assert _core._live_programs() == living and _core._check()
            continue
        finally:
            _core._testing(fail_after=-1)
        assert program(inputs)[0].data == want
        break
    assert n > fewest


# ---- options, and what is told ----

def test_options():
    def f(x):
        return x

    assert flatgrad.compile(f).simplify == STEPS and flatgrad.compile(f, simplify=False).simplify == ()
    assert flatgrad.compile(f, simplify=("together", "shared")).simplify == ("shared", "together")
    assert flatgrad.compile(simplify=set())(f).simplify == ()
    with pytest.raises(ArgumentTypeError, match="simplify: expected a bool or a set of steps, got 3"):
        flatgrad.compile(f, simplify=3)
    with pytest.raises(UnknownNameError, match="'shard'; did you mean 'shared'"):
        flatgrad.compile(simplify={"shard"})


def test_explain_tells_steps_and_times():
    f = flatgrad.compile(lambda xs: sum(x * x for x in xs))
    f([1.0] * 10)
    text = f.explain()
    assert re.search(r"simplified: 20 instructions at first, 20 after 'shared', 1 after 'dots', 1 after 'layers', "
                     r"1 after 'together'", text), text
    assert re.search(r"milliseconds: \d+\.\d+ to record, \d+\.\d+ to cut, \d+\.\d+ to simplify", text)
    assert all(seconds >= 0 for seconds in stats_of(f)["seconds"].values())
    core = next(iter(f._programs.values())).core
    assert pickle.loads(pickle.dumps(core)).stats()["seconds"] == {}


# ---- random functions ----

@pytest.mark.parametrize("part", [*range(4), *(pytest.param(part, marks=pytest.mark.slow) for part in range(4, 10))])
def test_random_functions(part):
    """A short form of `python tests/checks compiled`."""
    compared = 0
    for seed in range(40 * part, 40 * part + 40):
        compared += compiled.check(seed, [STEPS, SUBSETS[seed % len(SUBSETS)]])
    assert compared > 100


@pytest.mark.slow
@pytest.mark.parametrize("level", [level for level in _core._kernel_levels()
                                   if level != flatgrad.stats()["isa"]])
def test_random_functions_on_other_levels(level):
    command = [sys.executable, str(HERE / "checks"), "compiled", "--count", "40", "--seed", "1000"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600,
                            env=os.environ | {"FLATGRAD_ISA": level})
    assert result.returncode == 0 and f"kernels {level}" in result.stdout, result.stderr


def test_the_check_fails_for_a_function_that_is_another_by_little():
    caught = 0
    for seed in range(20):
        function = compiled.function_of(seed)

        def other(xs, t, function=function):
            values, tensors = function(xs, t)
            return [x * (1 + 1e-10) for x in values], tensors

        try:
            compiled.check(seed, [STEPS], other)
        except AssertionError:
            caught += 1
    assert caught >= 18
