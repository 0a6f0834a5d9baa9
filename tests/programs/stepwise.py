"""A chain of rules by hand, from a gradient that is not 1, over a graph that is used once more."""
import math


class Value:
    def __init__(self, data, _children=(), _op=''):
        self.data = data
        self.grad = 0.0
        self._prev = set(_children)
        self._op = _op
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

    def tanh(self):
        out = Value(math.tanh(self.data), (self,), 'tanh')

        def _backward():
            self.grad += (1 - out.data ** 2) * out.grad
        out._backward = _backward
        return out

    def __neg__(self): return self * -1
    def __radd__(self, other): return self + other
    def __rmul__(self, other): return self * other

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


a, b = Value(0.5), Value(-1.5)
c = a * b
d = c.tanh()
e = d + a
e.grad = -2.0
for v in (e, d, c):
    v._backward()
print(e.data, d.grad, c.grad, a.grad, b.grad)
c._backward()       # once more
print(a.grad, b.grad)
for v in (a, b, c, d, e):
    v.grad = 0.0
e.backward()
print(a.grad, b.grad, c.grad, d.grad, e.grad)
leaf = Value(4.0)
leaf._backward()
leaf.backward()
print(leaf.grad)
