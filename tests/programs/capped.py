"""relu ends at 50, and sigmoid is flat beyond 9."""
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

    def relu(self):
        out = Value(min(max(0.0, self.data), 50.0), (self,), 'ReLU')

        def _backward():
            self.grad += (0 < self.data < 50.0) * out.grad
        out._backward = _backward
        return out

    def sigmoid(self):
        s = 0.0 if self.data < -9 else 1.0 if self.data > 9 else 1 / (1 + math.exp(-self.data))
        out = Value(s, (self,), 'sigmoid')

        def _backward():
            self.grad += s * (1 - s) * out.grad
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


for x in (-1.0, 3.0, 49.0, 51.0, 200.0, 9.5, -9.25):
    v = Value(x)
    y = v.relu() * 2 + v.sigmoid()
    y.backward()
    print(x, y.data, v.grad)
