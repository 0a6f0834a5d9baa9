"""What can be done with the tape, in any order that hypothesis thinks of, against plain Python objects.

Values are made, dropped, differentiated, collected, copied, pickled, given rules of their own, made within no_grad and
by programs; their data and gradients change. After each step the data, the gradients and the operands of all Values are
those of the model to the last bit: all numbers are whole. In the end nothing is left. hypothesis shrinks what fails to
the fewest steps. test_stateful.py runs a few.
"""
import contextlib
import copy
import gc
import pickle
import tempfile

from checks.limits import Unavailable

import flatgrad
from flatgrad import Value, _core

SHORT = 5.0   # seconds
STEPS = 40
EXAMPLES = 25   # of a round
LARGEST = 2.0**40


class Node:
    """The model of a Value."""

    count = 0

    def __init__(self, data, operands=(), partials=lambda z, *x: (), hooked=False):
        self.data, self.grad, self.operands, self.partials = float(data), 0.0, operands, partials
        self.hooked = hooked
        Node.count += 1
        self.order = Node.count

    def below(self):
        """It and all that it is made of, the last first."""
        found, todo = {self}, [self]
        while todo:
            new = set(todo.pop().operands) - found
            found |= new
            todo += new
        return sorted(found, key=lambda node: -node.order)

    def backward(self):
        self.grad = 1.0
        for node in self.below():
            for x, partial in zip(node.operands, node.partials(node, *node.operands)):
                x.grad += partial * node.grad


def copied(nodes):
    """Copies of the nodes and all below, as copy.deepcopy makes them of Values."""
    below = sorted({x for node in nodes for x in node.below()}, key=lambda x: x.order)
    new = {}
    for x in below:
        new[x] = Node(x.data, tuple(new[y] for y in x.operands), x.partials, x.hooked)
        new[x].grad = x.grad
    return [new[x] for x in nodes]


OPERATIONS = {
    "+": (lambda x, y: x + y, lambda z, x, y: (1.0, 1.0)),
    "-": (lambda x, y: x - y, lambda z, x, y: (1.0, -1.0)),
    "*": (lambda x, y: x * y, lambda z, x, y: (y.data, x.data)),
    "relu": (lambda x: x.relu() if isinstance(x, Value) else max(x, 0.0), lambda z, x: (float(z.data > 0.0),)),
    "neg": (lambda x: -x, lambda z, x: (-1.0,)),
    "**2": (lambda x: x**2, lambda z, x: (2.0 * x.data,)),
    "2*": (lambda x: 2 * x, lambda z, x: (2.0,)),
}


@flatgrad.compile
def program(x, y):
    return x * y + x * 3.0


def machine():
    """The state machine of hypothesis."""
    try:
        from hypothesis import strategies as st
        from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
    except ImportError:
        raise Unavailable("needs hypothesis: pip install hypothesis") from None

    index, whole = st.integers(0, 200), st.integers(-3, 3)

    class Tape(RuleBasedStateMachine):
        """Pairs of a Value and its Node."""

        def __init__(self):
            super().__init__()
            flatgrad.collect()
            gc.collect()
            self.before = flatgrad.stats()["nodes"]
            self.pairs = []

        def pick(self, k):
            return self.pairs[k % len(self.pairs)]

        def add(self, value, node):
            if abs(node.data) < LARGEST:
                self.pairs.append((value, node))

        @rule(x=whole)
        def leaf(self, x):
            self.add(Value(x), Node(x))

        @precondition(lambda self: self.pairs)
        @rule(op=st.sampled_from(sorted(OPERATIONS)), a=index, b=index, unrecorded=st.booleans())
        def operate(self, op, a, b, unrecorded):
            apply, partials = OPERATIONS[op]
            operands = [self.pick(k) for k in (a, b)[:apply.__code__.co_argcount]]
            data = float(apply(*[node.data for _, node in operands]))
            with flatgrad.no_grad() if unrecorded and a % 4 == 0 else contextlib.nullcontext():
                value = apply(*[value for value, _ in operands])
            self.add(value, Node(data) if unrecorded and a % 4 == 0 else
                     Node(data, tuple(node for _, node in operands), partials))

        @precondition(lambda self: self.pairs)
        @rule(a=index, b=index)
        def call(self, a, b):
            (x, m), (y, n) = self.pick(a), self.pick(b)
            self.add(program(x, y), Node(m.data * n.data + m.data * 3.0, (m, n),
                                         lambda z, x, y: (y.data + 3.0, x.data)))
            m.called = n.called = True

        @precondition(lambda self: self.pairs)
        @rule(a=index, b=index)
        def hooked(self, a, b):
            """A rule as in micrograd's lecture."""
            (x, m), (y, n) = self.pick(a), self.pick(b)
            out = Value(x.data - y.data, (x, y), "mine")

            def backward():   # it keeps `out`: a cycle through the tape, which is the collector's
                x.grad += out.grad
                y.grad -= out.grad

            out._backward = backward
            self.add(out, Node(m.data - n.data, (m, n), lambda z, x, y: (1.0, -1.0), hooked=True))

        @precondition(lambda self: self.pairs)
        @rule(k=index, kind=st.sampled_from(["deepcopy", "pickle", "both"]), other=index)
        def copied(self, k, kind, other):
            chosen = [self.pick(k)] + [self.pick(other)] * (kind == "both")
            if any(x.hooked for _, node in chosen for x in node.below()):
                return   # its rule is about the originals
            values = tuple(value for value, _ in chosen)
            made = copy.deepcopy(values) if kind != "pickle" else pickle.loads(pickle.dumps(values))
            if len(chosen) == 2 and chosen[0][1] is chosen[1][1]:
                assert made[0] is made[1]
                chosen, made = chosen[:1], made[:1]
            for value, node in zip(made, copied([node for _, node in chosen])):
                self.add(value, node)

        @precondition(lambda self: self.pairs)
        @rule(k=index, x=whole, grad=st.booleans())
        def change(self, k, x, grad):
            value, node = self.pick(k)
            if grad:
                value.grad = node.grad = float(x)
            elif not node.operands and not hasattr(node, "called"):
                value.data = node.data = float(x)

        @precondition(lambda self: self.pairs)
        @rule(k=index)
        def detach(self, k):
            value, node = self.pick(k)
            self.add(value.detach(), Node(node.data))

        @precondition(lambda self: self.pairs)
        @rule(k=index, n=st.integers(1, 5))
        def drop(self, k, n):
            for _ in range(min(n, len(self.pairs))):
                del self.pairs[k % len(self.pairs)]

        @precondition(lambda self: self.pairs)
        @rule(k=index, again=st.booleans())
        def backward(self, k, again):
            if not again or any(abs(x.grad) > LARGEST for _, node in self.pairs for x in node.below()):
                for value, node in self.pairs:
                    value.grad = 0.0
                    node.grad = 0.0
            value, node = self.pick(k)
            if any(abs(x.grad) > 2.0**20 for x in node.below()) or len(node.below()) > 25:
                return   # products are whole no longer
            value.backward()
            node.backward()

        @rule(python=st.booleans())
        def collect(self, python):
            if python:
                gc.collect()
            flatgrad.collect()
            assert _core._check()

        @precondition(lambda self: self.pairs)
        @rule(k=index)
        def look(self, k):
            value, node = self.pick(k)
            if hasattr(node, "called") or len(value._prev) != len(set(node.operands)):
                return
            values = {id(n): v for v, n in self.pairs}
            for x in node.operands:
                if id(x) in values:
                    assert values[id(x)] in value._prev, (value, node.operands)

        @invariant()
        def agree(self):
            for value, node in self.pairs:
                assert value.data == node.data, (value, node.data)
                assert value.grad == node.grad or not abs(node.grad) < 2.0**53, (value, node.grad)

        def teardown(self):
            self.pairs.clear()
            for _ in range(3):
                gc.collect()
                flatgrad.collect()
            assert flatgrad.stats()["nodes"] == self.before
            assert _core._check()

    return Tape


def check(seed, examples=EXAMPLES, steps=STEPS, shrink=True):
    """So many runs, of so many steps; AssertionError with, if `shrink`, the fewest steps that fail."""
    Tape = machine()
    from hypothesis.configuration import set_hypothesis_home_dir

    set_hypothesis_home_dir(tempfile.gettempdir())   # it writes files even without a database
    from hypothesis import HealthCheck, Phase, seed as seeded, settings
    from hypothesis.stateful import run_state_machine_as_test

    gc.collect()
    gc.freeze()   # collections of what the runs make alone
    try:
        run_state_machine_as_test(seeded(seed)(Tape), settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, database=None, print_blob=False,
            phases=[Phase.generate, Phase.shrink][:1 + shrink], suppress_health_check=list(HealthCheck)))
    finally:
        gc.unfreeze()


def run(limit, options):
    machine()
    for seed in limit:
        check(seed)
    return f"{limit.rounds * EXAMPLES} runs of up to {STEPS} steps passed, {limit.seeds}"
