"""Chains of millions of operations on a thread's stack of 512 KiB: nothing recurses.

    python tests/checks deep --depth 10000000

Each kind of chain is built, differentiated, walked, collected and dropped in a thread with a small stack, in a process
of its own: an overflow of the stack ends it. A chain's gradient is known in closed form.
"""
import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import flatgrad
from flatgrad import Tensor, Value

SHORT = 10.0
STACK = 512 * 1024

# A kind of chain is a function of the number of links. It says how many gradients it compared.


def values(n):
    """The operations of micrograd, in turn: x -> -(x * 1.0 + 1.0) + 1.0 is -x."""
    x = y = Value(0.5)
    for _ in range(n // 4):
        y = -(y * 1.0 + 1.0) + 1.0
    y.backward()
    assert x.grad == (-1.0)**(n // 4)
    return 1


def popped(n):
    """A chain that is never differentiated, and dies from its end, and one that dies while its end lives."""
    y = Value(1.0)
    for _ in range(n):
        y = y + 1.0
    assert y.data == n + 1.0
    del y
    y = Value(1.0, _op="held")
    for _ in range(n):
        y = y.detach() + 1.0
    flatgrad.collect()
    assert y.data == n + 1.0
    return 0


def handles(n):
    """A chain of which somebody holds each Value, with an attribute."""
    n = min(n, 1_000_000)
    chain = [Value(0.5)]
    for k in range(n):
        chain.append(chain[-1] + 1.0)
        chain[-1].label = k
    chain[-1].backward()
    assert all(v.grad == 1.0 for v in chain[::997])
    while chain:
        chain.pop(len(chain) // 2)
        del chain[len(chain) // 2:]
    return 1


def hooks(n):
    """Operations of one's own, of a class of one's own: each with a function of Python, which holds its result."""
    class Own(Value):
        pass
    n = min(n, 1_000_000)
    x = y = Own(0.5)
    for _ in range(n):
        out = Own(y.data, (y,), "own")

        def backward(y=y, out=out):
            y.grad += out.grad
        out._backward = backward
        y = out
    y.backward()
    assert x.grad == 1.0
    return 1


def tensors(n):
    x = y = Tensor([[0.5, 1.5]])
    for _ in range(n // 8):
        y = y[:, ::-1].T.T + 1.0
    y.sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0]]
    return 2


def written(n):
    """A derivative of a derivative."""
    n = min(n, 1_000_000)
    x = y = Value(0.75)
    for _ in range(n):
        y = y * 1.0
    y = y * y
    slope, = flatgrad.gradients(y, x, create_graph=True)
    slope.backward()
    assert (slope.data, x.grad) == (1.5, 2.0)
    return 2


def programs(n):
    n = min(n, 200_000)

    def function(x):
        for _ in range(n):
            x = x * 1.0 + 0.0
        return x * x
    compiled = flatgrad.compile(function, simplify=False)
    for x in Value(0.75), Value(0.25):
        compiled(x).backward()
        assert x.grad == 2 * x.data
    return 2


def scans(n):
    x = Value(0.75)
    out = flatgrad.fori_loop(0, n // 10, lambda k, x: x * 1.0, x)
    out.backward()
    assert (out.data, x.grad) == (0.75, 1.0)
    return 1


def copies(n):
    """Copies and pickles of a graph, and of Values in a deep structure of lists."""
    n = min(n, 200_000)
    x = y = Value(0.5)
    for _ in range(n):
        y = y + 1.0
    for x2, y2 in copy.deepcopy([x, y]), pickle.loads(pickle.dumps([x, y])):
        y2.backward()
        assert (y2.data, x2.grad, x.grad) == (y.data, 1.0, 0.0)
    return 2


def walks(n):
    """The walk that micrograd's users write, by `_prev`, without recursion; what a Value says of itself."""
    n = min(n, 300_000)
    y = Value(0.5)
    for _ in range(n):
        y = y + 1.0
    v, count = y, 0
    while v._prev:
        v = max(v._prev, key=lambda p: len(p._prev) or -p.data)
        count += 1
    assert count == n and repr(y)
    return 0


KINDS = {f.__name__: f for f in (values, popped, handles, hooks, tensors, written, programs, scans, copies,
                                 walks)}


def child(name, depth):
    """A kind of chain, in a thread with a small stack."""
    told = []

    def work():
        before = nodes()
        told.append(KINDS[name](depth))
        left = nodes() - before
        assert left == 0, f"{left} nodes are left"
    threading.stack_size(STACK)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    print(told[0] if told else "failed")


def nodes():
    gc.collect()
    flatgrad.collect()
    return flatgrad.stats()["nodes"]


def options(parser):
    parser.add_argument("--depth", type=int, default=None, metavar="N", help="operations (default 10 million; 100,000 "
                        "in `short`), of kinds that hold an object for each a million at most")
    parser.add_argument("--kind", choices=KINDS, nargs="+", default=list(KINDS))


def run(limit, options):
    depth, compared = options.depth or (100_000 if limit.short else 10_000_000), 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])}
    for name in options.kind:
        done = subprocess.run([sys.executable, "-c", f"from checks import deep; deep.child({name!r}, {depth})"],
                              capture_output=True, text=True, env=environment)
        assert done.returncode == 0 and done.stdout.strip().isdigit(), \
            f"{name}: ended with {done.returncode}: {done.stderr[-2000:]}"
        compared += int(done.stdout)
    return f"{len(options.kind)} kinds of chains of up to {depth:,} operations on a stack of 512 KiB, {compared} gradients"
