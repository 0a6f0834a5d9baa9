"""A mistake on purpose: sigmoid's derivative has the wrong sign."""
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

    def sigmoid(self):
        out = Value(1 / (1 + math.exp(-self.data)), (self,), 'sigmoid')

        def _backward():
            self.grad += out.data * (out.data - 1) * out.grad
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


# It is trained as if nothing were wrong.
xs = [(-1.0, 0.5), (0.3, -0.8), (0.9, 0.6), (-0.4, -0.2)]
ys = [1.0, 0.0, 1.0, 0.0]
w1, w2, b = Value(0.4), Value(-0.3), Value(0.1)
for step in range(8):
    loss = Value(0.0)
    for (x1, x2), y in zip(xs, ys):
        out = (w1 * x1 + w2 * x2 + b).sigmoid()
        loss = loss + (out + -y) * (out + -y)
    for p in (w1, w2, b):
        p.grad = 0.0
    loss.backward()
    print(step, loss.data, w1.grad, w2.grad, b.grad)
    for p in (w1, w2, b):
        p.data -= 0.1 * p.grad
