"""Operations that functions of the program make, and name afterwards."""
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

    def exp(self):
        out = Value(math.exp(self.data), (self,), 'exp')

        def _backward():
            self.grad += out.data * out.grad
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


def sigmoid(v):
    e = v.exp()
    out = Value(e.data / (1 + e.data), (v,), 'exp')
    out._op = 'sigmoid'

    def _backward():
        v.grad += out.data * (1 - out.data) * out.grad
    out._backward = _backward
    return out


a, b = Value(0.5), Value(-1.5)
h = sigmoid(a * b)
y = h * a + b
y.backward()
print(h._op, len(h._prev), y.data, a.grad, b.grad, h.grad)
