"""Sweeps that pause: within a user's rule, in another thread, for a signal. Whatever is done meanwhile, each goes on
where it was, and memory comes and goes as always."""
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def ruled(x, rule):
    """2 * x, by a rule of the user's, which is run in between."""
    out = Value(2.0 * x.data, (x,), "ruled")

    def backward():
        rule()
        x.grad += 2.0 * out.grad

    out._backward = backward
    return out


def test_backward_in_another_thread_while_a_rule_sleeps():
    inside, over = threading.Event(), threading.Event()
    x = Value(3.0)
    y = ruled(x * 1.0, lambda: (inside.set(), over.wait(30))) * 1.0
    thread = threading.Thread(target=y.backward)
    thread.start()
    assert inside.wait(30)
    w = Value(1.5)
    before = flatgrad.stats()["nodes"]
    peak = 0
    for _ in range(3000):
        total = w
        for _ in range(100):
            total = total * 1.0
        total.backward()
        peak = max(peak, flatgrad.stats()["nodes"])
    del total
    assert w.grad == 3000.0
    assert peak < before + 1000, "popped as always"
    held = [Value(float(k)) * 2.0 for k in range(400_000)]
    for v in held[1::2]:   # what is above goes, and what lies between is collected
        v.backward()
    last = held[-1]
    held.clear()
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] < before + 1000, "collected as always"
    over.set()
    thread.join()
    assert x.grad == 2.0 and last._children[0].grad == 2.0


def test_threads_with_rules_of_their_own():
    """Many sweeps at a time, each with pauses, over graphs that share parameters."""
    shared = [Value(float(k)) for k in range(4)]
    errors, rounds, workers = [], 30, 6
    results = {}

    def work(n):
        rng = random.Random(n)
        total = 0.0
        try:
            for _ in range(rounds):
                own = Value(1.0)
                y = own
                for _ in range(20):
                    y = ruled(y, lambda: time.sleep(0.0)) if rng.random() < 0.3 else y * 2.0
                    if rng.random() < 0.1:
                        flatgrad.collect()
                (y + shared[n % 4] * 0.0).backward()
                total += own.grad
            results[n] = total
        except Exception as error:   # a thread's would only be printed
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert results == {n: 2.0**20 * rounds for n in range(workers)}
    gc.collect()


def test_sweeps_within_sweeps():
    """A rule differentiates, another one in it, ten deep, with collections that renumber in between."""
    _core._testing(collect_floor=0)
    x = Value(1.0)
    seen = []

    def nested(depth):
        garbage = [Value(1.0) * 2.0 for _ in range(50)]
        y = x * 1.0
        out = ruled(y, lambda: nested(depth - 1) if depth else None) * 1.0 + garbage[7]
        del garbage
        flatgrad.collect()
        out.backward()
        seen.append((depth, y.grad, out.grad))

    nested(10)
    assert x.grad == 2.0 * 11 and seen == [(depth, 2.0, 1.0) for depth in range(11)]


@pytest.mark.parametrize("floor", [0, 131072])
def test_what_a_sweep_has_still_to_visit_is_kept_and_renumbered(floor):
    """Before, in and after the graph there is what goes while the sweep pauses."""
    _core._testing(collect_floor=floor)
    rng = random.Random(1)
    for _ in range(30):
        litter = [Value(0.0) for _ in range(rng.randrange(300))]
        x = Value(1.0)
        t = Tensor(np.arange(rng.randrange(1, 200)) + 1.0)
        litter += [Value(0.0) * 1.0 for _ in range(rng.randrange(300))]
        y = (t * x).tanh()
        held = [y]
        z = ruled(y[1:].sum() if y.size > 1 else y.sum(), lambda: (held.clear(), litter.clear(), flatgrad.collect()))
        z = ruled(z * 1.0, lambda: [Value(2.0) * 3.0 for _ in range(rng.randrange(100))])
        expected = y.data[1:] if y.size > 1 else y.data
        del y
        z.backward()
        gradient = 4.0 * (1.0 - expected**2)
        np.testing.assert_allclose(x.grad, (gradient * (t.data[1:] if t.size > 1 else t.data)).sum(), rtol=1e-12)
        np.testing.assert_allclose(t.grad[1:] if t.size > 1 else t.grad, gradient, rtol=1e-12, atol=1e-300)
        assert _core._check()


def test_a_rule_that_raises_ends_its_own_sweep_alone():
    x = Value(1.0)

    def fail():
        raise KeyError("rule")

    def outer():
        with pytest.raises(KeyError):
            (ruled(x, fail) * 1.0).backward()

    y = ruled(x, outer) * 1.0
    y.backward()
    assert x.grad == 2.0
    assert _core._check()


def test_gradients_put_aside_are_those_of_the_transform_alone():
    """While `grad` looks at signals or runs a rule, another thread may differentiate a graph of its own."""
    errors, stop = [], threading.Event()
    w = Value(0.0)

    def other():
        count = 0
        while not stop.is_set():
            try:
                (w * 2.0).backward()
                count += 1
            except RuntimeError as error:   # a rule's writes are undone: this thread's would be, too
                assert "another thread" in str(error)
        if w.grad != 2.0 * count:
            errors.append((w.grad, count))

    thread = threading.Thread(target=other)
    thread.start()
    try:
        for _ in range(50):
            assert flatgrad.grad(lambda x: ruled(x, lambda: time.sleep(0.0)) * x)(3.0) == 12.0
            assert flatgrad.grad(lambda x: x * x)(3.0) == 6.0
    finally:
        stop.set()
        thread.join()
    assert not errors


def test_no_memory_for_a_sweep_changes_nothing():
    x = Value(1.0)
    y = x
    for _ in range(100_000):   # more than the marks at hand
        y = y * 1.0
    _core._testing(fail_after=0)
    try:
        for _ in range(3):
            try:
                y.backward()
            except MemoryError:
                assert (y.grad, x.grad) == (0.0, 0.0)
    finally:
        _core._testing(fail_after=-1)
    x.grad = 0.0
    z = x * 2.0
    z.backward()
    assert x.grad == 2.0


# ---- memory after a peak ----

PEAKS = """
import numpy as np
import flatgrad
from flatgrad import Tensor, Value

def memory():
    return flatgrad.stats()["bytes"]

small = memory()
y = Tensor(np.zeros(1_000_000)) * 2.0
assert memory() > small + 60_000_000
del y
assert memory() < small + 6_000_000
y = Tensor(np.zeros(1_000_000)) * 2.0
above = Value(1.0)
del y
assert memory() < small + 6_000_000, "held by what is above"
held = [Value(0.0) for _ in range(500_000)]
top = Value(2.0)
held.clear()
flatgrad.collect()
assert memory() < small + 6_000_000
w = Tensor(np.zeros((2, 1000)))
kept = w @ np.zeros((1000, 2))
y = Tensor(np.zeros((1500, 1500))) @ np.zeros((1500, 1500))
del y
assert memory() < small + 6_000_000, "the scratch memory of an instruction that is gone"
kept.sum().backward()
assert (above.data, top.data) == (1.0, 2.0)
"""


def test_memory_goes_back_after_a_peak():
    """In a process of its own: memory goes back at once a few times, and then once a second."""
    subprocess.run([sys.executable, "-c", PEAKS], check=True)


def test_memory_stays_in_a_loop_that_needs_it_again():
    sizes = set()
    x = Tensor(np.zeros(300_000))
    for step in range(200):
        loss = (x * 2.0).sum()
        loss.backward()
        del loss
        if step > 20:
            sizes.add(flatgrad.stats()["bytes"])
    assert min(sizes) > 5_000_000 and len(sizes) <= 3


# ---- Ctrl-C in a long instruction ----

@pytest.mark.skipif(sys.platform == "win32", reason="needs kill")
@pytest.mark.parametrize("what", ["forward", "backward", "part"])
@pytest.mark.parametrize("returns", [False, True])
def test_interrupt_within_a_long_instruction(what, returns):
    """In a product of thousands of rows and columns; a handler that returns leaves the result as it would be."""
    n = 1200
    a, b = Tensor(np.ones((n, n)), requires_grad=False), Tensor(np.ones((n, n)))
    hits = []

    def handler(number, frame):
        hits.append(Tensor(np.ones((5, 5))) @ np.ones((5, 5)))
        flatgrad.collect()
        if not returns:
            raise KeyboardInterrupt

    old = signal.signal(signal.SIGINT, handler)
    try:
        for delay in range(1, 40):   # until it comes while that is under way
            z = None if what == "forward" else (a @ b).sum() if what == "backward" else (a @ b)[::2].sum()
            b.grad = 0.0
            killer = subprocess.Popen([sys.executable, "-c", f"import os, signal, time; time.sleep({delay * 0.004}); "
                                       f"os.kill({os.getpid()}, signal.SIGINT)"])
            raised, passes = False, 0
            try:
                while killer.poll() is None and not hits:
                    b.grad = 0.0
                    passes += 1
                    if z is None:
                        y = a @ b
                        assert y[n - 1, n - 1].data == n and y[0, 0].data == n
                    else:
                        z.backward()
                        rows = n if what == "backward" else n // 2
                        assert (b.grad == passes * rows).all()   # inner gradients compound
                killer.wait()
            except KeyboardInterrupt:
                raised = True
                killer.wait()
            if hits:
                break
        assert hits and raised == (not returns)
    finally:
        signal.signal(signal.SIGINT, old)
    assert _core._check()
