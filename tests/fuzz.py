"""Random programs on the tape against a model of plain Python objects.

    python tests/fuzz.py --seconds 60 [--seed N]

Values of every kind are made, dropped, changed, differentiated, looked up through `_prev`, collected,
and made while memory is short; the model does the same with one Python object a node and the
derivatives of test_ops.ORACLE. After every backward pass each living Value must have the model's
gradient. Prints the seed of the round that fails. test_tape.py runs a few rounds of it.
"""
import argparse
import gc
import heapq
import math
import random
import sys
import time
import weakref

import numpy as np
from test_ops import IDS, ORACLE, ROWS, F

import flatgrad
from flatgrad import Value, _core


class Node:
    """The model of a node: what flatgrad's must agree with."""

    count = 0

    def __init__(self, data, op="LEAF", operands=(), constant=None):
        self.data, self.grad, self.op = float(data), 0.0, op
        self.operands, self.constant = operands, constant
        Node.count += 1
        self.order = Node.count

    def backward(self):
        self.grad = 1.0
        queue, seen = [(-self.order, self)], {self.order}
        while queue:
            _, node = heapq.heappop(queue)
            if node.op in ("LEAF", "CUSTOM"):
                partials = [0.0] * len(node.operands)
            elif node.op == "LOCAL":
                partials = node.constant
            else:
                arguments = [F(n.data) for n in node.operands]
                if ORACLE[node.op].immediate:
                    arguments.append(node.constant)
                with np.errstate(all="ignore"):
                    partials = ORACLE[node.op].partials(*arguments, F(node.data))
            for operand, partial in zip(node.operands, partials, strict=True):
                if node.op != "CUSTOM":
                    chosen = partial == 0 and node.op in ("WHERE", "CLIP", "MAXIMUM", "MINIMUM")
                    operand.grad += 0.0 if chosen else float(partial) * node.grad
                if operand.order not in seen:
                    seen.add(operand.order)
                    heapq.heappush(queue, (-operand.order, operand))


def ruled(data, operands, partials):
    """A node with a backward rule that uses it: a cycle."""
    out = Value(data, operands, "ruled")

    def rule():
        for operand, partial in zip(operands, partials, strict=True):
            operand.grad += partial * out.grad

    out._backward = rule
    return out


class Named(Value):
    """A subclass with attributes of its own."""

    def __init__(self, data, name):
        super().__init__(data)
        self.name = name


class Round:
    """One random program."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.pairs = []      # (Value, Node), both alive
        self.references = []  # to some Values that may be dead by now

    def number(self):
        return self.rng.choice([self.rng.uniform(-3, 3), 0.0, 1.0, -1.0, 2.0, 0.5])

    def pick(self):
        return self.rng.choice(self.pairs)

    def add(self, value, node):
        assert type(value) in (Value, Named)
        assert value.data == node.data or abs(value.data - node.data) <= 4 * math.ulp(node.data), (
            value, node.op, node.data, [n.data for n in node.operands])
        node.data = value.data   # an ulp in exp must not grow through the program
        if abs(value.data) < 1e6:
            self.pairs.append((value, node))

    def leaf(self):
        data = self.number()
        value = self.rng.choice([
            lambda: Value(data), lambda: Value(np.float64(data)), lambda: Named(data, "n"),
            lambda: Value(data=data), lambda: Value(np.array([data]))])()
        self.add(value, Node(data))

    def operation(self):
        op = self.rng.choice(IDS)
        operands, nodes = [], []
        oracle = ORACLE[op]
        for k in range(2 if oracle.immediate else ROWS[op]["arity"]):
            if k == 1 and oracle.immediate:
                operands.append(self.rng.choice([0, 1, 2, 3, -1, -2]) if op == "POWI"
                                else self.rng.choice([0.5, 1.5, -0.5, 2.0, 0.0]))
            elif (operands or ROWS[op]["public"]) and self.rng.random() < 0.2:
                number = self.number()
                operands.append(self.rng.choice([float, np.float64])(number))
                nodes.append(Node(number))
            else:
                value, node = self.pick()
                operands.append(value)
                nodes.append(node)
        numbers = [n.data for n in nodes]
        constant = operands[1] if oracle.immediate else None
        if constant is not None:
            numbers.append(constant)
        if op == "POW" and not isinstance(operands[1], Value):
            return    # a constant exponent is another row
        try:
            expected = oracle.value(*numbers)
        except (ArithmeticError, ValueError) as error:
            expected = type(error)   # the error itself would keep this frame alive
        try:
            value = oracle.apply(*operands)
        except (ArithmeticError, ValueError) as error:
            assert type(error) is expected, (op, numbers, error, expected)
            return
        assert not isinstance(expected, type), (op, numbers, value, expected)
        self.add(value, Node(expected, op, nodes, constant))

    def custom(self):
        chosen = [self.pick() for _ in range(self.rng.randrange(1, 6))]
        data = self.number()
        self.add(Value(data, [v for v, _ in chosen], "made"),
                 Node(data, "CUSTOM", [n for _, n in chosen]))

    def local(self):
        """A node with partial derivatives of the user's, as numbers or in a closure that uses it."""
        chosen = [self.pick() for _ in range(self.rng.randrange(0, 5))]
        operands, nodes = [v for v, _ in chosen], [n for _, n in chosen]
        partials, data = [self.number() for _ in chosen], self.number()
        if self.rng.random() < 0.5:
            value = Value(data, operands, partials)
        else:
            value = ruled(data, operands, partials)
        self.add(value, Node(data, "LOCAL", nodes, partials))

    def attribute(self):
        """Something hung on a Value, mostly with a way back to it."""
        value, other = self.pick()[0], self.pick()[0]
        value.friend = self.rng.choice([other, [value, (other,)], {"self": value}, lambda: (value, other),
                                        "label", value.relu, value._backward])

    def neuron(self):
        chosen = [self.pick() for _ in range(5)]
        x = [self.pick(), self.pick()]
        value = _core.weighted_sum([chosen[0][0], chosen[1][0]], [x[0][0], x[1][0]], chosen[2][0])
        total = chosen[2][1]
        for (_, w), (_, xi) in zip(chosen, x):
            product = Node(w.data * xi.data, "MUL", [w, xi])
            total = Node(total.data + product.data, "ADD", [total, product])
        self.add(value, total)

    def drop(self):
        for _ in range(min(len(self.pairs), self.rng.choice([1, 1, 2, 10]))):
            self.pairs.pop(self.rng.randrange(len(self.pairs)))

    def change(self):
        value, node = self.pick()
        if self.rng.random() < 0.5:
            value.data = node.data = self.number()
        else:
            value.grad = node.grad = self.number()

    def look_up(self):
        value, node = self.pick()
        operands = {n.order: n.data for n in node.operands}
        assert sorted(v.data for v in value._prev) == sorted(operands.values()), (value, node.op)
        for parent in value._prev:
            for other, other_node in self.pairs:
                assert (other is parent) <= (other_node.order in operands)

    def backward(self):
        if self.rng.random() < 0.5:
            for value, node in self.pairs:
                value.grad = node.grad = 0.0
        value, node = self.pick()
        value.backward()
        node.backward()
        for v, n in self.pairs:
            assert close(v.grad, n.grad), (n.op, v, n.grad)
        for v, n in self.pairs:   # no drift from one pass to the next
            n.grad = v.grad

    def collect(self):
        flatgrad.collect()
        assert _core._check()
        self.references = [reference for reference in self.references if reference() is not None]
        self.references += [weakref.ref(v) for v, _ in self.rng.sample(self.pairs, min(5, len(self.pairs)))]

    def short_of_memory(self):
        """Operations that may or may not fit; those that do not must leave no trace."""
        _core._testing(fail_after=0)
        try:
            for _ in range(20):
                before = len(self.pairs)
                try:
                    self.rng.choice([self.leaf, self.operation, self.custom, self.local, self.neuron])()
                except MemoryError:
                    assert len(self.pairs) == before
        finally:
            _core._testing(fail_after=-1)

    def run(self, steps):
        flatgrad.collect()
        before = flatgrad.stats()
        actions = {self.leaf: 8, self.operation: 40, self.custom: 3, self.neuron: 4, self.local: 6,
                   self.attribute: 4, self.drop: 24,
                   self.change: 5, self.look_up: 4, self.backward: 6, self.collect: 1,
                   self.short_of_memory: 1}
        choices, weights = list(actions), list(actions.values())
        for _ in range(steps):
            if len(self.pairs) < 3:
                self.leaf()
            else:
                self.rng.choices(choices, weights)[0]()
            if len(self.pairs) > 200:
                del self.pairs[:self.rng.randrange(200)]
        self.collect()
        self.pairs.clear()     # then nothing may be left
        for _ in range(3):     # a cycle may lead over what Python's collector has to release first
            flatgrad.collect()
            gc.collect()
        flatgrad.collect()
        assert [reference() for reference in self.references if reference() is not None] == []
        after = flatgrad.stats()
        assert (after["nodes"], after["operands"]) == (before["nodes"], before["operands"])


def run(seed, steps):
    """One round; every other one collects before each operation, so that ids always move."""
    _core._testing(collect_floor=0 if seed % 2 else 131072)
    try:
        Round(seed).run(steps)
    finally:
        _core._testing(collect_floor=131072)


def close(got, expected):
    """Equal but for rounding: the model multiplies the same factors in another order."""
    if not math.isfinite(expected):
        return not math.isfinite(got)   # which of inf and nan may depend on the order as well
    return abs(got - expected) <= 1e-9 * max(1.0, abs(expected))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="the first round's seed (default 0)")
    options = parser.parse_args()
    end, seed = time.monotonic() + options.seconds, options.seed
    while time.monotonic() < end:
        try:
            run(seed, 3000)
        except BaseException:
            print(f"fuzz: failed with --seed {seed}", file=sys.stderr)
            raise
        seed += 1
    print(f"fuzz: {seed - options.seed} rounds of 3000 steps passed, seeds {options.seed} to {seed - 1}")


if __name__ == "__main__":
    main()
