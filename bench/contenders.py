"""The contenders that both suites have: a library's own Values and classes, whichever library it is."""
from bench import workloads
from bench.runner import Contender, own_copy, repeated, repeated_after

__all__ = ["MICROGRAD_ITERATIONS", "chain_backward", "chain_of_values", "compare_demo", "readme_contender"]

# micrograd sorts the graph by recursion, one frame for each operation of a chain, and Python stops
# it at 1,000 frames: this many iterations leave some to whoever called us.
MICROGRAD_ITERATIONS = 400


def chain_of_values(library, iterations):
    """The chain's forward on a library's Values. The leaves stay from one repeat to the next."""
    run = own_copy(workloads.chain)
    leaves = workloads.chain_leaves(library.Value)
    return Contender(library.name, repeated(lambda: run(*leaves, iterations)),
                     lambda: workloads.chain_results(run, library.Value, iterations),
                     units=2 * iterations)


def chain_backward(library, iterations, name):
    """The chain's backward alone, on a new graph each time: on an old one gradients compound."""
    run = own_copy(workloads.chain)
    leaves = workloads.chain_leaves(library.Value)

    def backward(graph):
        graph.backward()
        return graph
    return Contender(name, repeated_after(lambda: run(*leaves, iterations), backward),
                     lambda: workloads.chain_results(run, library.Value, iterations),
                     units=2 * iterations)


def readme_contender(library):
    """micrograd's README, forward and backward, with a library's Values."""
    run = own_copy(workloads.readme)
    return Contender(library.name, repeated(lambda: run(library.Value)),
                     lambda: workloads.readme_results(run, library.Value))


def compare_demo(session, target=None):
    """micrograd's demo, its code unchanged, with both packages."""
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
    # Where micrograd is at its best: no garbage from earlier steps waits for its collector.
    session.compare(theirs, ours, target, work="first step", per="step",
                    note="100 samples, 337 parameters, the demo's code")
    if not session.quick:
        steps = 5
        ours, theirs = (contender(library, steps) for library in libraries)
        session.compare(theirs, ours, work="in a loop", per="step", rounds=1,
                        note=f"mean of {steps} steps, with the garbage that they leave")
