"""Slots and closures."""
import math


class Value:
    __slots__ = 'data', 'grad', 'label', '_op', '_prev', '_backward'

    def __init__(self, data, _children=(), _op='', label=''):
        self.data = data
        self.grad = 0.0
        self.label = label
        self._op = _op
        self._prev = set(_children)
        self._backward = lambda: None

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data + other.data, (self, other), '+')

        def _backward():
            self.grad += out.grad
            other.grad += out.grad
        out._backward = _backward
        return out

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data * other.data, (self, other), '*')

        def _backward():
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad
        out._backward = _backward
        return out

    def atan(self):
        out = Value(math.atan(self.data), (self,), 'atan')

        def _backward():
            self.grad += out.grad / (1 + self.data ** 2)
        out._backward = _backward
        return out

    def backward(self):
        topo, visited = [], set()

        def build(v):
            if v not in visited:
                visited.add(v)
                for child in v._prev:
                    build(child)
                topo.append(v)
        build(self)
        self.grad = 1.0
        for v in reversed(topo):
            v._backward()


a, b = Value(1.25, label='a'), Value(-0.5)
b.label = 'b'
c = a * b + a.atan()
d = c * c + b * 3
d.backward()
for v in (a, b, c, d):
    print(v.label or '-', v._op or '-', v.data, v.grad)
b.label = 'bee'
print([v.label for v in (a, b, d)])
