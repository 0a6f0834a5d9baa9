"""Gradients of any part of an instruction's results, all at once, one by one, and within the whole.

Random programs of Tensors, those of tensors.py; of the results of the last instruction some are chosen, each with a
weight. The gradients of their sum, which reach no other result, are those of the whole with a gradient of 0 beside
them, the sum of those that each result has alone, and what the written derivatives compute, but for 1e-12 of the
largest.
"""
import numpy as np

from checks import tensors
from checks.shrink import Calls, script


SHORT = 4.0   # seconds
RUNS = 4

PARTS = "flatgrad.gradients([flatgrad.stack([y.reshape(-1)[k] * w for k, w in chosen]).sum()], leaves, "
WAYS = {   # of what is reached at once
    "selected": "flatgrad.gradients([(y.reshape(-1)[[k for k, w in chosen]] * numpy.array([w for k, w in chosen]))"
                ".sum()], leaves, materialize_grads=True)",
    "elements": PARTS + "materialize_grads=True)",
    "written": PARTS + "materialize_grads=True, create_graph=True)",
    "backward": "[flatgrad.stack([y.reshape(-1)[k] * w for k, w in chosen]).sum().backward()] and leaves",
}
ORACLES = {
    "whole": "flatgrad.gradients([y], leaves, [numpy.bincount(*zip(*chosen), y.size).reshape(y.shape)], "
             "materialize_grads=True)",
    "one by one": "[sum(several) for several in zip(*[[g.data * w for g in flatgrad.gradients([y.reshape(-1)[k]], "
                  "leaves, materialize_grads=True)] for k, w in chosen])]",
}
BINDINGS = {name: pair[0] for name, pair in tensors.BINDINGS.items()}


class Parts(tensors.Drawn):
    """A random program, of which some results of the last Tensor are chosen."""

    def plan(self, rng):
        self.steps(rng.randint(1, 6))
        self.of = next((name for name in reversed(self.made) if self.made[name] and name not in self.leaves), None)

    def add(self, text, shape):
        return super().add(text.replace(".detach()", " * 1.0"), shape)

    def chosen(self, rng):
        """Which results, and the weight of each, in pairs."""
        size = int(np.prod(self.made[self.of]))
        ks = np.flatnonzero(rng.random(size) < rng.choice([0.1, 0.5, 0.9]))
        if len(ks) == 0:
            ks = rng.integers(size, size=1)
        return list(zip(ks.tolist(), rng.uniform(0.5, 2.0, len(ks)).round(3).tolist()))


def numbers_of(found, backward):
    return [np.asarray(x.grad if backward else getattr(x, "data", x)) for x in found]


def same(ours, theirs):
    scale = max([1.0] + [np.abs(x).max() for x in theirs])
    return all(np.abs(a - b).max() <= 1e-12 * scale for a, b in zip(ours, theirs))


def calls(way, oracle):
    """Both ways, for the shrinker: the program returns y, the leaves, and what is chosen."""
    ours = f"[x.grad for x in {WAYS[way]}]" if way == "backward" else f"numbers({WAYS[way]})"
    bindings = dict(BINDINGS, numbers="lambda found: [numpy.asarray(getattr(x, 'data', x)) for x in found]")
    return Calls("import numpy, flatgrad", bindings, "", f"(lambda y, leaves, chosen: {ours})(*program())",
                 f"(lambda y, leaves, chosen: numbers({ORACLES[oracle]}))(*program())", same,
                 "all(numpy.allclose(a, b, 1e-9, 1e-9) for a, b in zip(ours, theirs))")


class Check:
    """Runs programs, and counts."""

    def __init__(self):
        self.space = {}
        exec("import numpy, flatgrad", self.space)
        self.space |= {name: eval(text, self.space) for name, text in BINDINGS.items()}
        self.ways = {name: eval(f"lambda y, leaves, chosen: {text}", self.space)
                     for name, text in (WAYS | ORACLES).items()}
        self.compared = self.parts = 0

    def shape(self, seed, runs=RUNS):
        found = self.first(seed, runs)
        if found:
            raise AssertionError(f"seed {seed}, {found[0]}: {found[1]} and {found[2]}:\n" + "\n".join(found[3]))

    def first(self, seed, runs=RUNS):
        """The first comparison that fails, or None."""
        drawn = Parts(seed)
        if drawn.of is None:
            return None
        space = dict(self.space)
        body = "\n    ".join(drawn.lines)
        exec(f"def program(n):\n    {body}\n    return {drawn.of}, [{', '.join(drawn.leaves)}]", space)
        rng = np.random.default_rng(seed)
        for _ in range(runs):
            numbers = drawn.numbers(rng)
            chosen = drawn.chosen(rng)
            try:
                y, leaves = space["program"](numbers)
            except (ArithmeticError, ValueError):
                continue
            if not y.requires_grad or not np.abs(y.data).max() < 1e4:
                continue
            self.parts += 1
            oracles = {name: numbers_of(self.ways[name](y, leaves, chosen), False) for name in ORACLES}
            for way in WAYS:
                ours = numbers_of(self.ways[way](y, leaves, chosen), way == "backward")
                for oracle, theirs in oracles.items():
                    self.compared += 1
                    if not same(ours, theirs):
                        return (f"{way} against {oracle}", ours, theirs, drawn.program(numbers),
                                (way, oracle, chosen, drawn))
        return None


def run(limit, options):
    check = Check()
    for seed in limit:
        check.shape(seed)
    return f"{check.parts} parts of {limit.rounds} programs, {check.compared} comparisons passed, {limit.seeds}"


def shrunk(seed):
    """The first failing part, as a script."""
    found = Check().first(seed)
    if not found:
        return "# no part of this program fails"
    way, oracle, chosen, drawn = found[4]
    lines = [*found[3], f"result = ({drawn.of}, [{', '.join(drawn.leaves)}], {chosen})"]
    return script(lines, calls(way, oracle))
