"""Processes made from one that has values, a tape, programs and threads: by fork, spawn and forkserver. A child of a
fork has a tape of its own, with the same nodes; the others have what is pickled for them."""
import multiprocessing
import os
import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, nn

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

METHODS = multiprocessing.get_all_start_methods()
forking = pytest.mark.skipif(not hasattr(os, "fork") or "tsan" in os.environ.get("LD_PRELOAD", ""),
                             reason="no fork, or none that the thread sanitizer allows")


def program(text, **options):
    """Run a program of its own: the tests' process has threads, of which Python warns when it forks."""
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(text)], timeout=300, text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


# Every one of these forks, and what comes after is checked in the child and in the parent.
FORKS = """
    import gc, os, sys, threading, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)   # a fork of a process with threads
    import numpy as np
    import flatgrad
    from flatgrad import Tensor, Value, _core, nn

    def in_child(check):
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                check()
                assert _core._check()
                status = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        return child

    def joined(child):
        assert os.waitpid(child, 0)[1] == 0
"""


@forking
def test_the_tape_after_a_fork():
    """Both go on with the graph: passes, collections, growth and dropping in one are not seen by the other."""
    program(FORKS + """
    x, model = Value(3.0), nn.MLP(2, [4, 1])
    y = x * x + 1.0
    z = model([1.0, 2.0]) ** 2
    t = Tensor([[1.0, 2.0], [3.0, 4.0]])
    s = (t @ t).sum()
    y.owner = lambda: y      # a cycle through the tape
    nodes = flatgrad.stats()["nodes"]

    def check():
        global y, z, s
        assert flatgrad.stats()["nodes"] == nodes
        y.backward(); z.backward(); s.backward()
        assert (x.grad, y.data, t.grad[0, 0]) == (6.0, 10.0, 1.0 + 2.0 + 1.0 + 3.0)
        kept = [x * k for k in range(300_000)]
        flatgrad.collect()
        assert kept[-1].data == 3.0 * 299_999
        del kept, y, z, s
        gc.collect()
        flatgrad.collect()
        assert flatgrad.stats()["nodes"] < nodes
        x.data = -1.0
        joined(in_child(lambda: None))   # a child of a child

    children = [in_child(check) for _ in range(3)]
    w = y * 2.0
    w.backward()
    for child in children:
        joined(child)
    assert (x.data, x.grad, w.data) == (3.0, 12.0, 20.0)
    assert _core._check()
    """)


@forking
def test_within_blocks_and_rules():
    """A fork within no_grad(), within a backward rule and within a rule's collection."""
    program(FORKS + """
    x = Value(2.0)
    with flatgrad.no_grad():
        def check():
            assert not (x * x)._children
        child = in_child(check)
        assert not (x * x)._children
    joined(child)
    assert (x * x)._children == (x, x)

    y = Value(x.data * 3.0, (x,))
    def rule():
        flatgrad.collect()
        children.append(in_child(check))
        x.grad += 3.0 * y.grad
    def check():
        z = x * 5.0
        z.backward()
        assert x.grad == 5.0
        flatgrad.collect()
    children, y._backward = [], rule
    (y * 2.0).backward()
    joined(*children)
    assert x.grad == 6.0
    """)


@forking
def test_programs_after_a_fork():
    """Programs that were recorded before, new ones, and the pool of threads, which the child makes anew."""
    program(FORKS + """
    f = flatgrad.compile(lambda x: (x * x).tanh() + flatgrad.exp(-x))
    g = flatgrad.value_and_grad(f, in_axes=0, threads=2)
    x = np.linspace(0.0, 1.0, 5000)
    value, gradient = g(x)
    single = flatgrad.value_and_grad(f)
    one = single(0.5)
    source = flatgrad.Random(7)
    noisy = flatgrad.compile(lambda x: x + source.normal())
    noisy(0.0)

    def check():
        again, slopes = g(x)
        assert np.array_equal(value, again) and np.array_equal(gradient, slopes)
        assert single(0.5) == one and f(0.5).data == one[0]
        h = flatgrad.value_and_grad(flatgrad.compile(lambda x: x ** 3), in_axes=0, threads=3)
        assert np.allclose(h(x)[1], 3.0 * x ** 2 / len(x))   # of the mean
        threads = [threading.Thread(target=lambda: results.append(single(0.5))) for _ in range(4)]
        results = []
        for t in threads: t.start()
        for t in threads: t.join()
        assert results == [one] * 4

    before = source.rng.bit_generator.state
    drawn = []
    def draws():
        check()
        os.write(pipe, repr([noisy(0.0).data for _ in range(3)]).encode())
    read, pipe = os.pipe()
    children = [in_child(draws), in_child(check)]
    for child in children:
        joined(child)
    assert source.rng.bit_generator.state == before   # the child's numbers are its own ...
    assert os.read(read, 1000).decode() == repr([noisy(0.0).data for _ in range(3)])   # ... and the same ones
    check()
    """)


@forking
@pytest.mark.parametrize("who", ["the main thread", "another thread"])
def test_a_fork_while_another_thread_evaluates(who):
    """The thread is in the middle of a copy of a program, without the GIL: the child, which has no such thread, makes
    another copy."""
    program(FORKS + f"""
    who = {who!r}
    """ + """
    f = flatgrad.compile(lambda x: flatgrad.fori_loop(0, 2000, lambda k, s: s * 0.999 + flatgrad.sin(s), x))
    g = flatgrad.value_and_grad(f)
    expected = g(0.25)
    over, rounds = threading.Event(), []

    def works():
        while not over.is_set():
            rounds.append(g(0.25))

    def check():
        for _ in range(3):
            assert g(0.25) == expected
        x = Value(2.0)
        (x * x).backward()
        assert x.grad == 4.0
        values, slopes = flatgrad.value_and_grad(f, in_axes=0, threads=2)(np.full(8, 0.25))
        assert np.allclose(values, expected[0], rtol=1e-9) and np.allclose(slopes, expected[1] / 8, rtol=1e-6)

    def forks():
        for k in range(10):
            time.sleep(0.003 * k)
            joined(in_child(check))

    threads = [threading.Thread(target=works) for _ in range(2)]
    for t in threads: t.start()
    if who == "the main thread":
        forks()
    else:
        forking = threading.Thread(target=forks)
        forking.start()
        forking.join()
    over.set()
    for t in threads: t.join()
    assert len(rounds) > 0 and set(rounds) == {expected}
    assert g(0.25) == expected
    """)


@forking
def test_ctrl_c_in_the_child_of_another_thread():
    """The thread that forks is the main one of the child, and an evaluation in it heeds Ctrl-C."""
    program(FORKS + """
    import signal
    k = Value(0.5)
    f = flatgrad.compile(lambda x: flatgrad.scan(lambda s, _: (s - 1e-9 * k * s.sin(), None), x, length=3_000_000)[0])
    g = flatgrad.value_and_grad(f, parameters=[k])
    g(1.0)
    began = time.process_time()
    g(1.0)
    whole = time.process_time() - began

    def check():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        press = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
        began = time.process_time()
        try:
            press.start()
            g(1.0)
            press.join()
        except KeyboardInterrupt:
            assert time.process_time() - began < 0.7 * whole, "it ran on"
        else:
            raise AssertionError("it was not heard")
        assert g(1.0) == g(1.0)

    forking = threading.Thread(target=lambda: joined(in_child(check)))
    threading.excepthook = lambda error: os._exit(1)
    forking.start()
    forking.join()
    """)


# ---- multiprocessing, by each start method ----

def trained(arguments):
    """In a worker: take a part of the rows, and give the loss, the gradients and a new number."""
    model, rows, source = arguments
    loss = sum((model(row) - sum(row)) ** 2 for row in rows)
    model.zero_grad()
    loss.backward()
    return loss.data, [p.grad for p in model.parameters()], source.normal().data


def sent_back(arguments):
    v, t = arguments
    out = (v * v + t.sum()).tanh()
    return out, t * 2.0


def compiled(number):
    f = flatgrad.compile(lambda x: x * x * x)
    batch = flatgrad.value_and_grad(f, in_axes=0, threads=2)
    return flatgrad.value_and_grad(f)(number), batch(np.full(4, number))[1].tolist()


def method(name):
    return pytest.param(name, marks=[pytest.mark.filterwarnings("ignore::DeprecationWarning")])   # fork with threads


@pytest.mark.parametrize("name", [method(name) for name in METHODS])
def test_workers(name):
    if name != "spawn" and "tsan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the thread sanitizer allows no fork of a process with threads")
    random.seed(5)
    model = nn.MLP(2, [3, 1])
    rows = [[0.5, -1.0], [2.0, 0.25], [1.0, 1.0], [-0.5, 3.0]]
    jobs = [(model, rows[k:k + 1], flatgrad.Random(k)) for k in range(4)]
    expected = [trained((model, part, flatgrad.Random(k))) for k, (_, part, _) in enumerate(jobs)]
    with multiprocessing.get_context(name).Pool(2) as pool:
        found = pool.map(trained, jobs)
        out, doubled = pool.apply(sent_back, ((Value(0.5), Tensor([[0.1, 0.2]])),))
        results = pool.map(compiled, [1.0, 2.0, 3.0])
    assert found == expected
    assert [p.grad for p in model.parameters()] == expected[-1][1]   # those of here
    assert out.data == (Value(0.5) * Value(0.5) + Tensor([[0.1, 0.2]]).sum()).tanh().data and out._op == "tanh"
    out.backward()
    assert doubled.data.tolist() == [[0.2, 0.4]]
    assert results == [((x ** 3, 3 * x ** 2), [3 * x ** 2 / 4] * 4) for x in (1.0, 2.0, 3.0)]
