from __future__ import annotations

import math
from typing import Callable


class Value:
    """One scalar of the graph."""

    def __init__(self, data: float, parents: tuple[Value, ...] = (), op: str = '') -> None:
        self.data = float(data)
        self.grad = 0.0
        self._prev = set(parents)
        self._op = op
        self._backward: Callable[[], None] = lambda: None

    @staticmethod
    def wrap(x: Value | float) -> Value:
        return x if isinstance(x, Value) else Value(x)

    def __add__(self, other: Value | float) -> Value:
        other = Value.wrap(other)
        out = Value(self.data + other.data, (self, other), '+')

        def backward() -> None:
            self.grad += out.grad
            other.grad += out.grad
        out._backward = backward
        return out

    def __mul__(self, other: Value | float) -> Value:
        other = Value.wrap(other)
        out = Value(self.data * other.data, (self, other), '*')

        def backward() -> None:
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad
        out._backward = backward
        return out

    def tanh(self) -> Value:
        t = math.tanh(self.data)
        out = Value(t, (self,), 'tanh')

        def backward() -> None:
            self.grad += (1 - t * t) * out.grad
        out._backward = backward
        return out

    def __neg__(self) -> Value:
        return self * -1.0

    def __sub__(self, other: Value | float) -> Value:
        return self + (-Value.wrap(other))

    __radd__ = __add__
    __rmul__ = __mul__

    def backward(self) -> None:
        # Without recursion: a node is put down once its children are.
        order: list[Value] = []
        seen: set[Value] = set()
        stack = [(self, False)]
        while stack:
            node, done = stack.pop()
            if done:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((child, False) for child in node._prev)
        self.grad = 1.0
        for node in reversed(order):
            node._backward()
