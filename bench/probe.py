"""The code that runs in a process of its own. A new process has another placement of code and data in memory, and no
leftovers of earlier measurements.

``python -m bench.probe KIND ARGUMENT...`` prints one line of JSON; `processes.run` starts the command and reads the
line.
"""
import gc
import json
import random
import sys
from dataclasses import asdict
from pathlib import Path

from bench import derivative_ways, workloads
from bench.runner import Mismatch, Session, clock

try:
    import resource
except ImportError:   # Windows
    resource = None

STATUS = Path("/proc/self/status")


# ---- asking the system ----

def status_bytes(name):
    """A figure from Linux' status of this process, in bytes; None on other systems."""
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return None


def peak_bytes():
    """The largest resident set so far, in bytes; None if the system does not give it."""
    # The first choice, because on Linux the ru_maxrss of a process starts with its parent's.
    peak = status_bytes("VmHWM")
    if peak is None and resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024
        peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak


def resident_bytes():
    """The current resident set, in bytes; None if the system does not give it.

    If only the peak is known, the function returns the peak: in a fresh process that only allocates, both grow
    together.
    """
    resident = status_bytes("VmRSS")
    return peak_bytes() if resident is None else resident


# ---- the probes ----

def memory(name, nodes):
    """Grow a chain to `nodes` nodes and hold only its end.

    Returns
    -------
    dict
        ``nodes``: the number of living nodes; ``resident``: the growth of the resident set in bytes, or None; and for
        flatgrad ``bytes``: the size of its arrays, ``worst``: the largest number of bytes per node, from half of the
        nodes on.
    """
    nodes = int(nodes)
    Value = workloads.library(name).Value
    x, a, b = workloads.chain_leaves(Value)
    workloads.chain(x, a, b, 100)   # allocates memory that is allocated only once
    stats = None
    if name == "flatgrad":
        from flatgrad import stats
    gc.collect()
    before = resident_bytes()
    alive, worst = 3, 0.0
    while alive < nodes:
        x = workloads.chain(x, a, b, 1000)
        alive += 2000
        if stats is not None and alive >= nodes // 2:
            worst = max(worst, stats()["bytes"] / alive)
    gc.collect()
    after = resident_bytes()
    figures = {"nodes": alive, "resident": None if before is None else after - before}
    if stats is not None:
        figures |= {"bytes": stats()["bytes"], "worst": worst}
        if stats()["nodes"] != alive:
            raise RuntimeError(f"{alive} nodes are alive, flatgrad counts {stats()['nodes']}")
    return figures


def batch_memory(samples, *sizes):
    """Keep the graph of a batch through a multi-layer perceptron alive.

    Returns
    -------
    dict
        Figures of this graph without the parameters: ``values``: the number of computed numbers; ``nodes`` and
        ``operands``; ``bytes``: the growth of flatgrad's arrays; ``resident``: the growth of the resident set, or
        None; ``parameters``: their number.
    """
    import numpy as np
    from flatgrad import Tensor, stats
    from flatgrad.nn import MLP

    sizes = [int(size) for size in sizes]
    model = MLP(sizes[0], sizes[1:])
    X = Tensor(np.random.default_rng(1337).random((int(samples), sizes[0])), requires_grad=False)
    model(X[:1])   # allocates memory that is allocated only once
    gc.collect()
    before, resident = stats(), resident_bytes()
    out = model(X)
    gc.collect()
    after, grown = stats(), resident_bytes()
    if out.shape != (int(samples), sizes[-1]):
        raise RuntimeError(f"the output's shape is {out.shape}")
    figures = {name: after[name] - before[name] for name in ("nodes", "operands", "bytes")
               if name in after}
    return figures | {"resident": None if resident is None else grown - resident,
                      "values": int(samples) * sum(sizes[1:]),
                      "parameters": len(model.parameters())}


def operand_memory(nodes, width, scattered):
    """Keep fused inner products alive, each of two vectors of `width` out of 10,000 Values.

    Returns
    -------
    dict
        ``operands``: the number of operands of all products; ``bytes``: the growth of flatgrad's arrays;
        ``resident``: the growth of the resident set, or None.
    """
    from flatgrad import Value, dot, stats

    nodes, width = int(nodes), int(width)
    leaves = [Value(1.0) for _ in range(10_000)]
    draw = random.Random(1337)
    if scattered == "True":
        draw.shuffle(leaves)
    starts = [draw.randrange(len(leaves) - width) for _ in range(2 * nodes)]
    alive = [None] * nodes
    dot(leaves[:width], leaves[:width])   # allocates memory that is allocated only once
    gc.collect()
    before, resident = stats(), resident_bytes()
    for k in range(nodes):
        i, j = starts[2 * k:2 * k + 2]
        alive[k] = dot(leaves[i:i + width], leaves[j:j + width])
    gc.collect()
    grown = resident_bytes()
    return {"operands": 2 * nodes * width, "bytes": stats()["bytes"] - before["bytes"],
            "resident": None if resident is None else grown - resident}


def create_graph_memory(name, size):
    """Keep a graph alive, and then its gradient by `create_graph` as well.

    Returns
    -------
    dict
        ``graph`` and ``both``: the growth of flatgrad's arrays in bytes; ``what``: what the graph is of.
    """
    import numpy as np
    from flatgrad import Tensor, gradients, stats
    from flatgrad.nn import MLP

    size = int(size)
    if name == "chain":
        leaves = workloads.chain_leaves(workloads.library("flatgrad").Value)
        what = f"{2 * size:,} operations on Values"
    else:
        model = MLP(8, [16, 16, 1], activation="tanh")
        leaves = model.parameters()
        X = Tensor(np.random.default_rng(1337).random((size, 8)), requires_grad=False)
        what = f"{size:,} samples through MLP(8, [16, 16, 1])"
    gc.collect()
    before = stats()["bytes"]
    out = workloads.chain(*leaves, size) if name == "chain" else (model(X) ** 2).sum()
    graph = stats()["bytes"]
    found = gradients(out, leaves, create_graph=True)
    both = stats()["bytes"]
    if len(found) != len(leaves):
        raise RuntimeError(f"{len(found)} gradients by {len(leaves)} leaves")
    return {"graph": graph - before, "both": both - before, "what": what}


def big_chain(operations):
    """Forward and backward pass of one long chain: the results, the seconds of each pass, and the peak bytes."""
    Value = workloads.library("flatgrad").Value
    x, a, b = workloads.chain_leaves(Value)
    start = clock()
    out = workloads.chain(x, a, b, int(operations) // 2)
    forward = clock() - start
    start = clock()
    out.backward()
    backward = clock() - start
    return {"results": {"value": out.data, "x.grad": x.grad, "a.grad": a.grad, "b.grad": b.grad},
            "forward": forward, "backward": backward, "peak": peak_bytes()}


def work(name, repeats):
    """Run a workload `repeats` times on flatgrad; `bench.instructions` counts the instructions from outside."""
    WORK[name](workloads.library("flatgrad"), int(repeats))
    return {}


def work_chain(library, repeats):
    leaves = workloads.chain_leaves(library.Value)
    for _ in range(repeats):
        workloads.chain(*leaves, workloads.WORK_ITERATIONS)


def work_chain_backward(library, repeats):
    leaves = workloads.chain_leaves(library.Value)
    for _ in range(repeats):
        workloads.chain(*leaves, workloads.WORK_ITERATIONS).backward()


def work_readme(library, repeats):
    for _ in range(repeats):
        workloads.readme(library.Value)


def work_moons(library, repeats):
    step, _ = workloads.new_training(workloads.training, library, *workloads.moons())
    for k in range(repeats):
        step(k)


def work_moons_fused(_, repeats):
    new, run_steps = workloads.fused_training(workloads.moons_problem())
    for _ in range(repeats):
        run_steps(new(), 100)


def work_fit(build, new_problem):
    """Trainings of a `workloads.Fit`; each continues from the state after the last one."""
    def work(_, repeats):
        problem = new_problem()
        new, run_epochs = build(problem)
        state = new()
        for _ in range(repeats):
            run_epochs(state, len(problem.rates))
    return work


def work_of(make):
    """The work of a contender, which `make()` returns."""
    def work(_, repeats):
        make().measure(repeats)
    return work


def rosenbrock_work(compiled):
    return work_of(lambda: derivative_ways.flatgrad_hessian(
        "flatgrad", workloads.rosenbrock, workloads.ROSENBROCK, compiled))


WORK = {"chain": work_chain, "chain-backward": work_chain_backward, "readme": work_readme,
        "moons": work_moons, "moons-fused": work_moons_fused,
        "fit-moons": work_fit(workloads.fit_training, workloads.fit_moons_problem),
        "fit-moons-loop": work_fit(workloads.loop_training, workloads.fit_moons_problem),
        "fit-digits": work_fit(workloads.fit_training, workloads.fit_digits_problem),
        "fit-digits-loop": work_fit(workloads.loop_training, workloads.fit_digits_problem),
        "physics": work_of(lambda: derivative_ways.flatgrad_physics(workloads.physics_problem())),
        "physics-compiled": work_of(lambda: derivative_ways.flatgrad_physics(workloads.physics_problem(),
                                                                             compiled=True)),
        "rosenbrock": rosenbrock_work(False), "rosenbrock-compiled": rosenbrock_work(True)}


def case(suite, name, quick, rounds, min_seconds):
    """Measure a case of a suite, for the rounds of one process.

    Returns
    -------
    dict
        ``rows`` and ``skipped`` as for `processes.found`; or ``mismatch``, the text of the error.
    """
    from bench.suites import SUITES   # not above: where instructions are counted, none is needed

    session = Session(quick == "True", int(rounds), min_seconds=float(min_seconds))
    try:
        SUITES[suite][name](session)
    except Mismatch as mismatch:
        return {"mismatch": str(mismatch)}
    return {"rows": [asdict(row) for row in session.rows],
            "skipped": [asdict(skip) for skip in session.skipped]}


PROBES = {"case": case, "memory": memory, "batch-memory": batch_memory,
          "operand-memory": operand_memory, "create-graph-memory": create_graph_memory,
          "big-chain": big_chain, "work": work}

if __name__ == "__main__":
    print(json.dumps(PROBES[sys.argv[1]](*sys.argv[2:])))
