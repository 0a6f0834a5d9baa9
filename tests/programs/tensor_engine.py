"""The data are arrays: an engine of tensors, in which scalars are a special case."""
import numpy as np


class Value:
    def __init__(self, data, _children=(), _op=''):
        self.data = np.asarray(data, dtype=float)
        self.grad = np.zeros_like(self.data)
        self._prev = set(_children)
        self._op = _op
        self._backward = lambda: None

    @staticmethod
    def fitted(grad, shape):
        while grad.ndim > len(shape):
            grad = grad.sum(0)
        for axis, n in enumerate(shape):
            if n == 1:
                grad = grad.sum(axis, keepdims=True)
        return grad

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data + other.data, (self, other), '+')

        def _backward():
            self.grad += Value.fitted(out.grad, self.data.shape)
            other.grad += Value.fitted(out.grad, other.data.shape)
        out._backward = _backward
        return out

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data * other.data, (self, other), '*')

        def _backward():
            self.grad += Value.fitted(other.data * out.grad, self.data.shape)
            other.grad += Value.fitted(self.data * out.grad, other.data.shape)
        out._backward = _backward
        return out

    def __matmul__(self, other):
        out = Value(self.data @ other.data, (self, other), '@')

        def _backward():
            self.grad += out.grad @ other.data.T
            other.grad += self.data.T @ out.grad
        out._backward = _backward
        return out

    def sum(self):
        out = Value(self.data.sum(), (self,), 'sum')

        def _backward():
            self.grad += np.ones_like(self.data) * out.grad
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
        self.grad = np.ones_like(self.data)
        for v in reversed(topo):
            v._backward()


x = Value([[1.0, -2.0], [0.5, 3.0], [2.0, 0.0]])
w, b = Value([[0.5], [-1.0]]), Value([[0.1]])
error = x @ w + b + np.array([[1.0], [-1.0], [0.5]])
loss = (error * error).sum()
loss.backward()
print(loss.data)
print(w.grad.tolist(), b.grad.tolist())
print(x.grad.tolist())
