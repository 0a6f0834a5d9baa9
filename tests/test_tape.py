"""The tape under Value: lifetimes, popping, collection, memory, failure, interruption."""
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import weakref

import numpy as np
import pytest
import test_ops
from checks import tape
from leaks import living

import flatgrad
from flatgrad import Value, _core
from flatgrad.nn import MLP

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def resident():
    """Resident memory of this process in bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")


# ---- handles ----

def test_prev_hands_out_the_same_objects():
    a, b = Value(2.0), Value(3.0)
    c = a * b
    assert c._prev == {a, b}
    d = c + 1.0
    product = next(v for v in d._prev if v._op == "*")
    assert product is c


def test_a_lost_handle_comes_back_as_one_object():
    c = (Value(2.0) * Value(3.0)) + Value(1.0)
    product = next(v for v in c._prev if v._op == "*")
    assert next(v for v in c._prev if v._op == "*") is product
    assert product.data == 6.0 and sorted(v.data for v in product._prev) == [2.0, 3.0]


def test_gradient_of_a_node_without_handle_is_kept():
    a = Value(2.0)
    c = (a * 3.0) * 5.0
    c.backward()
    assert next(v for v in c._prev if v._op == "*").grad == 5.0


def test_weak_references():
    a = Value(1.0)
    dead = []
    reference = weakref.ref(a, dead.append)
    b = a + 1.0
    assert reference() is a
    del a
    assert reference() is None and dead == [reference]
    assert b.data == 2.0 and {v.data for v in b._prev} == {1.0}


def test_weakref_callback_may_use_the_tape():
    keep = []
    a = Value(1.0)
    b = a * 2.0
    reference = weakref.ref(a, lambda _: (keep.append(Value(5.0) * 6.0), flatgrad.collect()))
    del a
    assert reference() is None and keep[0].data == 30.0
    assert b.data == 2.0 and {v.data for v in b._prev} == {1.0, 2.0}


def test_a_dying_subclass_instance_is_not_handed_out():
    """While its attributes are cleared its node may be reached through a user of it."""
    class Marked(Value):
        pass

    seen = []

    class Finalizer:
        def __del__(self):
            seen.append(next(v for v in user._prev if v.data == 7.0))

    a = Marked(7.0)
    user = a * 2.0
    a.attachment = Finalizer()
    del a
    assert len(seen) == 1 and type(seen[0]) is Value and seen[0].data == 7.0
    seen[0].data = 8.0
    assert next(v for v in user._prev if v.data != 2.0) is seen[0]


def test_an_instance_that_was_replaced_while_it_died_has_no_node():
    """Its node is another Value's by then, and may be gone, with the memory where the tape had it."""
    class Marked(Value):
        pass

    class Finalizer:
        def __del__(self):
            again = next(v for v in graph[-1]._prev if v.data == 7.0)
            seen.append((type(again), again.data))
            del again
            graph.clear()
            flatgrad.collect()

    seen, before = [], flatgrad.stats()["nodes"]
    graph = [Value(0.0) for _ in range(400_000)]   # some megabytes, which the system takes back
    capacity = flatgrad.stats()["capacity"]
    a = Marked(7.0)
    graph.append(a * 2.0)
    a.attachment = Finalizer()
    del a
    assert seen == [(Value, 7.0)]
    assert flatgrad.stats()["nodes"] == before and flatgrad.stats()["capacity"] <= capacity / 4
    assert _core._check()


def test_resurrection():
    kept = []

    class Phoenix(Value):
        def __del__(self):
            kept.append(self)

    a = Phoenix(3.0)
    b = a * 2.0
    del a
    assert kept[0].data == 3.0 and kept[0] in b._prev
    (kept[0] * 4.0).backward()
    assert kept[0].grad == 4.0


def test_initialised_again():
    a = Value(1.0)
    b = a * 2.0
    a.__init__(5.0)
    assert a.data == 5.0 and a in b._prev          # a leaf stays the same node
    b.__init__(9.0, (a,), "made")
    assert b.data == 9.0 and b._prev == {a} and b._op == "made"
    bare = Value.__new__(Value)
    assert bare.data == 0.0 and bare._prev == set()


# ---- popping and collection ----

def test_a_step_goes_when_its_last_handle_does():
    w = Value(0.5)
    before = flatgrad.stats()["nodes"]
    loss = sum((w * float(k) - 1.0) ** 2 for k in range(1000))
    assert flatgrad.stats()["nodes"] > before + 4000
    loss.backward()
    del loss
    assert flatgrad.stats()["nodes"] == before


def test_popping_pooled_nodes():
    x = Value(0.5)
    before = flatgrad.stats()
    for _ in range(10):
        y = flatgrad.clip(flatgrad.where(x, x, 2.0), -1.0, 1.0)
        y = Value(1.0, [y] * 70, "many")
        del y
    after = flatgrad.stats()
    assert (after["nodes"], after["operands"]) == (before["nodes"], before["operands"])


def test_every_tenth_value_is_kept():
    """Interleaved lifetimes are collected without being asked; the kept keep all they have."""
    start, a = living(), Value(1.5)
    collections = flatgrad.stats()["collections"]
    kept = []
    for k in range(300_000):
        v = a * float(k)
        v.grad = k + 0.5
        if k % 10 == 0:
            kept.append((k, v, id(v), hash(v)))
    v = None
    assert flatgrad.stats()["collections"] > collections
    assert flatgrad.stats()["nodes"] < 2 * (2 * len(kept) + start) + 131072
    assert living() == start + 1 + 2 * len(kept)    # a; and a product and its constant each
    for k, v, identity, hashed in kept:
        assert v.data == 1.5 * k and v.grad == k + 0.5
        assert (id(v), hash(v)) == (identity, hashed)
        assert a in v._prev
    kept[-1][1].backward()
    assert a.grad == float(kept[-1][0])
    v = None


def test_collection_renumbers_every_kind_of_node():
    garbage = [Value(float(k)) for k in range(100)]
    x, y = Value(0.25), Value(-3.0)
    results = []
    for k in range(30):
        results += [x + y, x * float(k), -x, x**3, x**0.5, 2.0**x, x.tanh(), flatgrad.maximum(x, y),
                    flatgrad.where(k % 2, x, y), flatgrad.clip(y, x, 4.0),
                    Value(float(k), (x, y, x), f"op{k}")]
        garbage += [x * float(k), flatgrad.where(x, y, x), Value(1.0, (x, y), "dead")]
    expected = [(v.data, v._op, sorted(p.data for p in v._prev)) for v in results]
    before = flatgrad.stats()
    del garbage
    flatgrad.collect()
    assert before["nodes"] - flatgrad.stats()["nodes"] == 100 + 30 * 4
    assert flatgrad.stats()["operands"] < before["operands"]
    assert _core._check()
    assert [(v.data, v._op, sorted(p.data for p in v._prev)) for v in results] == expected
    total = sum(v for v in results if not v._op.startswith("op"))
    total.backward()
    assert x.grad != 0 and y.grad != 0


def test_operands_alone_trigger_collection():
    """Few nodes with many operands each: the pool is reclaimed too."""
    x = Value(1.0)
    collections = flatgrad.stats()["collections"]
    blocker = None
    for _ in range(3000):
        blocker = Value(1.0, [x] * 1000, "wide")    # the one before is under it, so no popping
    assert flatgrad.stats()["collections"] > collections
    assert flatgrad.stats()["operands"] < 2_000_000
    assert blocker._prev == {x}


@pytest.mark.parametrize("seed", range(8))
def test_random_programs_against_a_model(seed):
    """A short form of `python tests/checks tape`."""
    tape.check(seed, 3000)


def test_the_model_catches_a_wrong_gradient(monkeypatch):
    wrong = test_ops.Oracle(lambda x: x.sigmoid() if isinstance(x, Value) else flatgrad.sigmoid(x),
                            test_ops.sigmoid, lambda x, z: [z * (1 - z) * 1.001], [], ulps=1)
    monkeypatch.setitem(test_ops.ORACLE, "SIGMOID", wrong)
    with pytest.raises(AssertionError):
        for seed in range(20):
            tape.check(seed, 3000)


def test_long_chain_of_nodes_with_attachments_does_not_recurse():
    x = Value(1.0)
    for _ in range(200_000):
        x = Value(1.0, (x,), "link")
    x.backward()
    del x
    x = Value(1.0)
    for _ in range(200_000):
        x = Value(1.0, (x,), "link")
    blocker = Value(1.0)   # on top, so that the chain is collected and not popped
    del x
    flatgrad.collect()
    assert blocker.data == 1.0


# ---- backward ----

def test_ten_million_operations():
    """In a process of its own: depth, gradient and peak memory."""
    if sys.platform == "win32":
        pytest.skip("needs resource")
    script = textwrap.dedent("""
        import resource
        from flatgrad import Value
        x, a, b = Value(0.5), Value(0.999), Value(0.001)
        y = x
        for _ in range(5_000_000):
            y = y * a + b
        y.backward()
        slope = 1.0
        for _ in range(5_000_000):
            slope *= 0.999
        assert x.grad == slope, (x.grad, slope)
        assert abs(b.grad - 1000.0) < 1e-6, b.grad
        try:   # ru_maxrss begins with what the process had that started this one
            with open("/proc/self/status") as status:
                print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")))
        except OSError:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 1e9


def test_unrelated_gradients_are_left_alone():
    others = [Value(float(k)) * 2.0 for k in range(1000)]
    for v in others:
        v.grad = 7.0
    x = Value(3.0)
    more = [x * float(k) for k in range(1000)]     # users of x that z does not depend on
    for v in more:
        v.grad = 5.0
    z = x * x + 1.0
    z.backward()
    assert x.grad == 6.0
    assert all(v.grad == 7.0 for v in others) and all(v.grad == 5.0 for v in more)


def test_reachable_nodes_far_apart():
    """Operands spread over the whole tape, across words and summary words of the marks."""
    leaves, values = [], []
    for k in range(40_000):
        leaves.append(Value(1.0 + k))
        if k % 4_000 == 17:
            values.append(leaves[-1] * 2.0)
    y = sum(values, Value(0.0)) * leaves[0]
    y.backward()
    for k, v in enumerate(leaves[1:], 1):
        assert v.grad == (2.0 if k % 4_000 == 17 else 0.0)
    assert leaves[0].grad == sum(2.0 * (1 + k) for k in range(17, 40_000, 4_000))


@pytest.mark.parametrize("size", [1, 2, 62, 63, 64, 65, 127, 128, 129, 4095, 4096, 4097, 8200])
def test_chains_around_word_boundaries(size):
    x = Value(2.0)
    y = x
    for _ in range(size):
        y = y + 1.0
    y.backward()
    assert x.grad == 1.0 and y.data == 2.0 + size


def test_backward_of_a_leaf_and_twice():
    x = Value(3.0)
    assert x.backward() is None and x.grad == 1.0
    y = x * 3.0 * 1.0
    x.grad = 0.0
    y.backward()
    y.backward()
    assert x.grad == 9.0   # micrograd's: the inner product's gradient went 1, then 2


def test_interrupt_between_chunks():
    """Ctrl-C in a long sweep: KeyboardInterrupt, and the tape works on."""
    if sys.platform == "win32":
        pytest.skip("needs setitimer")
    x = Value(1.0)
    y = x
    for _ in range(200_000):
        y = y * 1.0
    before = living()
    _core._testing(sweep_chunk=1)
    made = []

    def handler(signum, frame):
        made.append(Value(2.0) * 3.0)      # runs Python code on the tape, in the middle of a sweep
        flatgrad.collect()
        made[0].backward()
        assert made[0]._children[0].grad == 3.0
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 1e-4)
            while True:
                y.backward()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert _core._check()
    assert made[0].data == 6.0
    made.clear()
    assert living() == before
    _core._testing(sweep_chunk=1 << 18)
    x.grad = 0.0
    node = y
    z = x * 5.0 + 2.0
    z.backward()
    assert x.grad == 5.0
    assert node is y


def test_threads():
    """Each thread's own expressions, on the one tape."""
    wrong = []

    def work(seed):
        rng = random.Random(seed)
        for _ in range(300):
            a, b = Value(rng.uniform(1, 2)), Value(rng.uniform(1, 2))
            c = (a * b + a / b).tanh() * a
            c.backward()
            t = c.data / a.data
            expected = t + a.data * (1 - t * t) * (b.data + 1 / b.data)
            if abs(a.grad - expected) > 1e-12:
                wrong.append((seed, a.grad, expected))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


# ---- memory ----

def test_bytes_per_living_node():
    x = Value(1.0)
    a = Value(1.0)
    for _ in range(2_000_000):
        x = x * a
    stats = flatgrad.stats()
    assert stats["nodes"] >= 2_000_000
    assert stats["bytes"] / stats["nodes"] <= 48


def steps_of_a_small_expression():
    w, b = Value(0.5), Value(0.1)

    def steps(count):
        for k in range(count):
            loss = ((w * 2.0 + b).tanh() - 1.0) ** 2
            w.grad = b.grad = 0.0
            loss.backward()
            w.data -= 0.01 * w.grad
            b.data -= 0.01 * b.grad

    steps(100_000)  # enough for the sanitizers' allocator to come to rest too
    before, held = flatgrad.stats()["nodes"], resident()
    steps(100_000)
    assert flatgrad.stats()["nodes"] == before
    assert resident() - held < 2_000_000


def training_steps():
    random.seed(3)
    model = MLP(2, [16, 16, 1])
    inputs = [[Value(random.uniform(-1, 1)) for _ in range(2)] for _ in range(10)]
    targets = [random.choice([-1.0, 1.0]) for _ in inputs]
    peaks = []

    def step():
        scores = [model(x) for x in inputs]
        loss = sum((1.0 + -t * s).relu() for t, s in zip(targets, scores)) * 0.1
        loss += 1e-4 * sum(p * p for p in model.parameters())
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data -= 0.05 * p.grad
        peaks.append(flatgrad.stats()["nodes"])

    for _ in range(60):
        step()
    warm, held = max(peaks), resident()
    peaks.clear()
    for _ in range(300):
        step()
    assert max(peaks) <= warm
    assert resident() - held < 2_000_000


@needs_proc
@pytest.mark.parametrize("program", [steps_of_a_small_expression, training_steps])
def test_memory_stays_flat(program):
    # In a process of its own: here the allocator has other tests' holes to fill, the sanitizers' above all.
    code = f"import test_tape; test_tape.{program.__name__}()"
    done = subprocess.run([sys.executable, "-c", code], cwd=os.path.dirname(__file__), capture_output=True, text=True,
                          timeout=600)
    assert done.returncode == 0, done.stderr


def test_memory_of_a_large_graph_is_given_back():
    x = Value(1.0)
    for _ in range(1_000_000):
        x = x + 1.0
    large = flatgrad.stats()["bytes"]
    del x
    for _ in range(20_000):
        Value(1.0) + 2.0
    assert flatgrad.stats()["bytes"] < large / 8


# ---- failure ----

def scenarios():
    x, y = Value(2.0), Value(3.0)

    def fill():
        """Enough nodes that every array has to grow, in one operation after another."""
        v = x
        for _ in range(100_000):
            v = v + y
        return v

    return x, {
        "operators": fill,
        "custom": lambda: [Value(1.0, (x, y), "made") for _ in range(10_000)],
        "wide": lambda: Value(1.0, [x, y] * 100_000, "wide"),
        "pooled": lambda: [flatgrad.where(x, 1.0, y) for _ in range(50_000)],
        "neuron": lambda: _core.weighted_sum([x] * 50_000, [1.5] * 50_000, y),
    }


@pytest.mark.parametrize("name", ["operators", "custom", "wide", "pooled", "neuron"])
def test_failed_allocations_change_nothing(name):
    """Fail the first allocation, then the second, ... until the work goes through."""
    # A fresh process, whose tape is still small, so that the work has to grow it.
    script = textwrap.dedent(f"""
        import gc, sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        import flatgrad
        from flatgrad import _core
        from test_tape import scenarios
        x, all_scenarios = scenarios()
        work = all_scenarios[{name!r}]
        flatgrad.collect()
        before = flatgrad.stats()
        for k in [*range(20), *(2**j for j in range(5, 20))]:
            _core._testing(fail_after=k)
            try:
                done = work()
            except MemoryError as error:
                assert "flatgrad" in str(error), error
                done = None
            _core._testing(fail_after=-1)
            assert _core._check()
            if done is not None:
                break
            flatgrad.collect()
            after = flatgrad.stats()
            assert (after["nodes"], after["operands"]) == (before["nodes"], before["operands"])
            assert x.data == 2.0
            z = x * x
            z.backward()
            assert x.grad == 4.0
            x.grad = 0.0
            del z
        else:
            raise AssertionError("never went through")
        print(k)
    """)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) >= 1   # at least one allocation was failed


def test_full_tape():
    x = Value(1.0)
    flatgrad.collect()
    _core._testing(limit=flatgrad.stats()["nodes"] + 3)
    kept = []
    with pytest.raises(MemoryError, match="the tape is full: .* nodes"):
        for _ in range(200_000):
            kept.append(x + 1.0)
    _core._testing(limit=0xFFFFFFF0)
    assert all(v.data == 2.0 for v in kept)
    assert (x * 3.0).data == 3.0


def test_errors_leave_the_tape_as_it_was():
    x = Value(-1.0)
    before = living()
    for bad in [lambda: x.log(), lambda: x / 0, lambda: x**0.5, lambda: x + "a", lambda: 2**53 + x / 0,
                lambda: x * (2**53 + 1), lambda: flatgrad.where(x, x, "b"), lambda: Value("a"),
                lambda: Value(1.0, (x, 2)), lambda: Value(1.0, 3), lambda: Value(1.0, (), 5),
                lambda: _core.weighted_sum([x], [1.0, 2.0], x),
                lambda: _core.weighted_sum([x, x], [1.0, "a"], x)]:
        with pytest.raises((TypeError, ValueError, ArithmeticError)):
            bad()
    assert living() == before and x.data == -1.0 and x.grad == 0.0


def test_code_that_runs_during_conversion():
    """A number's __float__ and an iterable of children may append, drop and collect."""
    kept = []

    class Busy(float):
        def __new__(cls, value):
            return super().__new__(cls, value)

    def children():
        for k in range(10):
            junk = [Value(float(j)) for j in range(100)]
            kept.append(junk[50] * 2.0)
            del junk
            flatgrad.collect()
            yield kept[-1]

    v = Value(1.0, children(), "made")
    assert len(v._prev) == 10 and v._prev == set(kept)
    assert (v + Busy(2.0)).data == 3.0


def test_work_of_backward_does_not_follow_what_is_alive():
    """Counted in words of 64 ids visited, with the graph's leaf far below and much alive between."""
    far = Value(2.0)
    alive = [far * 1.0]
    for _ in range(300_000):
        alive.append(alive[-1] * 1.0)
    z = (far * 3.0 + 1.0) * far
    _core._testing(sweep_chunk=1)
    before = _core._testing()
    z.backward()
    assert far.grad == 13.0
    assert _core._testing() - before <= 3
    before = _core._testing()
    alive[-1].backward()                       # the counter counts
    assert _core._testing() - before > 300_000 // 64


@pytest.mark.parametrize("k", [0, 1, 62, 63, 64, 65, 127, 128, 198, 199])
def test_one_part_that_is_held_keeps_its_instruction(k):
    """Wherever it is: popping looks at the owners of parts 64 at a time."""
    x = flatgrad.Tensor(np.arange(200.0))
    before = flatgrad.stats()["nodes"]
    part = (x * 2.0)[k]   # the Tensor of the products is gone
    assert flatgrad.stats()["nodes"] >= before + 200
    other = Value(7.0)    # which would lie in the place of what was popped
    assert part.data == 2.0 * k
    part.backward()
    assert x.grad.tolist() == [2.0 * (j == k) for j in range(200)] and other.data == 7.0
    del other, part
    assert flatgrad.stats()["nodes"] == before


def test_numbers_of_nodes_go_with_the_tape():
    """Where blocks of detect_anomaly() keep one for each node: no memory for them, and memory that goes back."""
    nodes = _core.stats()["nodes"]
    _core._testing(fail_after=0)
    try:
        with pytest.raises(MemoryError):
            with flatgrad.detect_anomaly():
                pass
    finally:
        _core._testing(fail_after=-1)
    x = Value(1.0)
    with flatgrad.detect_anomaly():
        t = flatgrad.Tensor([1.0] * 300_000)
        large = _core.stats()["bytes"]
        del t
        flatgrad.collect()
        assert _core.stats()["bytes"] < 0.6 * large and _core._check()
        y = x * 2.0 * x
        y.backward()
    assert x.grad == 4.0
    del x, y
    assert _core.stats()["nodes"] <= nodes
