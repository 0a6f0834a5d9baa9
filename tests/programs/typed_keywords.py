"""Annotated; what belongs to the graph is by keyword alone; slots in another order."""
from __future__ import annotations

import math


class Value:
    """A number, and how the result depends on it."""

    __slots__ = ("_children", "_local_grads", "data", "grad")

    def __init__(self, data: float, *, children: tuple[Value, ...] = (),
                 local_grads: tuple[float, ...] = ()) -> None:
        self.data = data
        self.grad = 0.0
        self._children = children
        self._local_grads = local_grads

    def __repr__(self) -> str:
        return f"Value(data={self.data}, grad={self.grad})"

    def __add__(self, other: Value | float) -> Value:
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data + other.data, children=(self, other), local_grads=(1.0, 1.0))

    def __mul__(self, other: Value | float) -> Value:
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data * other.data, children=(self, other), local_grads=(other.data, self.data))

    def __pow__(self, k: float) -> Value:
        return Value(self.data**k, children=(self,), local_grads=(k * self.data ** (k - 1),))

    def exp(self) -> Value:
        e = math.exp(self.data)
        return Value(e, children=(self,), local_grads=(e,))

    def log(self) -> Value:
        return Value(math.log(self.data), children=(self,), local_grads=(1.0 / self.data,))

    def __neg__(self) -> Value: return self * -1
    def __radd__(self, other: float) -> Value: return self + other
    def __sub__(self, other: Value | float) -> Value: return self + (-other)
    def __rmul__(self, other: float) -> Value: return self * other
    def __truediv__(self, other: Value | float) -> Value: return self * other**-1

    def backward(self) -> None:
        topo: list[Value] = []
        visited: set[Value] = set()

        def build(node: Value) -> None:
            if node not in visited:
                visited.add(node)
                for child in node._children:
                    build(child)
                topo.append(node)
        build(self)
        self.grad = 1.0
        for node in reversed(topo):
            for child, local in zip(node._children, node._local_grads):
                child.grad += local * node.grad


counts = [[3, 1, 2], [0, 4, 1], [2, 2, 5]]   # how often a letter follows another
logits = [[Value(0.1 * (i - j)) for j in range(3)] for i in range(3)]
for step in range(6):
    loss = Value(0.0)
    for row, seen in zip(logits, counts):
        total = sum((x.exp() for x in row), Value(0.0))
        loss = loss - sum(n * (x.exp() / total).log() for n, x in zip(seen, row) if n)
    loss = loss / sum(map(sum, counts))
    for x in (x for row in logits for x in row):
        x.grad = 0.0
    loss.backward()
    for x in (x for row in logits for x in row):
        x.data -= x.grad
    print(step, loss)
for row in logits:
    print(*row)
