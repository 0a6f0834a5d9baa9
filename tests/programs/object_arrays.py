"""Numbers in arrays of objects: products of matrices, functions, sums."""
import math

import numpy as np


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

    def exp(self):
        out = Value(math.exp(self.data), (self,), 'exp')

        def _backward():
            self.grad += out.data * out.grad
        out._backward = _backward
        return out

    def __pow__(self, k):
        out = Value(self.data ** k, (self,), f'**{k}')

        def _backward():
            self.grad += k * self.data ** (k - 1) * out.grad
        out._backward = _backward
        return out

    def __neg__(self): return self * -1
    def __radd__(self, other): return self + other
    def __rmul__(self, other): return self * other
    def __sub__(self, other): return self + (-other)
    def __rsub__(self, other): return other + (-self)
    def __truediv__(self, other): return self * other ** -1
    def __rtruediv__(self, other): return other * self ** -1

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


rng = np.random.default_rng(4)
w = np.array([[Value(float(x)) for x in row] for row in rng.normal(size=(2, 3))])
b = np.array([Value(0.1) for _ in range(3)])
x = np.array([[1.0, -2.0], [0.5, 0.25]])
h = np.tanh(x @ w + b)
p = np.exp(h) / np.exp(h).sum(axis=1, keepdims=True)
loss = ((p - np.eye(2, 3)) ** 2).sum() * 0.5 + 0.01 * (w * w).sum()
loss.backward()
print(loss.data)
print([[v.grad for v in row] for row in w], [v.grad for v in b])
w -= 0.5 * np.array([[v.grad for v in row] for row in w])
print([float(v.data) for v in w.ravel()], p.shape, h.dtype)
