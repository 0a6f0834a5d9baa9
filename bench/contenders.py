"""The contenders of several suites: Values and classes of a library, for any library."""
import importlib.util

from bench import processes, workloads
from bench.runner import Contender, own_copy, repeated, repeated_after

__all__ = ["MICROGRAD_ITERATIONS", "chain_backward", "chain_of_values", "compare_demo", "example",
           "readme_contender"]

# micrograd sorts the graph by recursion, with one frame for each operation of a chain. Python stops at 1,000 frames;
# this number of iterations leaves some frames to the callers.
MICROGRAD_ITERATIONS = 400


def chain_of_values(library, iterations):
    """The chain's forward pass on a library's Values. All repeats use the same leaves."""
    run = own_copy(workloads.chain)
    leaves = workloads.chain_leaves(library.Value)
    return Contender(library.name, repeated(lambda: run(*leaves, iterations)),
                     lambda: workloads.chain_results(run, library.Value, iterations),
                     units=2 * iterations)


def chain_backward(library, iterations, name):
    """The chain's backward pass alone, each time on a new graph, because on an old graph gradients compound."""
    run = own_copy(workloads.chain)
    leaves = workloads.chain_leaves(library.Value)

    def backward(graph):
        graph.backward()
        return graph
    return Contender(name, repeated_after(lambda: run(*leaves, iterations), backward),
                     lambda: workloads.chain_results(run, library.Value, iterations),
                     units=2 * iterations)


def readme_contender(library):
    """The expression of micrograd's README, forward and backward, with a library's Values."""
    run = own_copy(workloads.readme)
    return Contender(library.name, repeated(lambda: run(library.Value)),
                     lambda: workloads.readme_results(run, library.Value))


def compare_demo(session, target=None):
    """micrograd's demo, with unchanged code, in both packages."""
    X, y = workloads.moons()

    def contender(library, steps):
        build = own_copy(workloads.training)

        def train(step):
            for k in range(steps):
                step(k)
        return Contender(
            library.name,
            repeated_after(lambda: workloads.new_training(build, library, X, y)[0], train),
            lambda: workloads.moons_results(build, library, X, y, session.size(5, 2)), units=steps)
    libraries = [workloads.library(name) for name in ("flatgrad", "micrograd")]
    ours, theirs = (contender(library, 1) for library in libraries)
    session.verify(theirs, ours, tolerance=1e-9)
    # The best case for micrograd: its garbage collector has no garbage from earlier steps.
    session.compare(theirs, ours, target, work="first step", per="step",
                    note="100 samples, 337 parameters, the demo's code")
    if not session.quick:
        steps = 5
        ours, theirs = (contender(library, steps) for library in libraries)
        session.compare(theirs, ours, work="in a loop", per="step", rounds=1,
                        note=f"mean of {steps} steps, with the garbage that they leave")


def example(name):
    """A fresh import of a module of examples/."""
    file = processes.ROOT / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
