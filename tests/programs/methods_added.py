"""The class grows after it is made, a function at a time."""
import math


class Value:
    def __init__(self, data, parents=(), op=''):
        self.data = data
        self.grad = 0.0
        self._prev = set(parents)
        self._op = op
        self._backward = lambda: None

    def __repr__(self):
        return f'Value({self.data})'


def add(self, other):
    other = other if isinstance(other, Value) else Value(other)
    out = Value(self.data + other.data, (self, other), '+')

    def _backward():
        self.grad += out.grad
        other.grad += out.grad
    out._backward = _backward
    return out


def mul(self, other):
    other = other if isinstance(other, Value) else Value(other)
    out = Value(self.data * other.data, (self, other), '*')

    def _backward():
        self.grad += other.data * out.grad
        other.grad += self.data * out.grad
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


Value.__add__ = Value.__radd__ = add
Value.__mul__ = Value.__rmul__ = mul
Value.backward = backward


def sine(self):
    out = Value(math.sin(self.data), (self,), 'sin')

    def _backward():
        self.grad += math.cos(self.data) * out.grad
    out._backward = _backward
    return out


Value.sin = sine
Value.double = lambda self: self * 2
Value.origin = 'made here'

x = Value(0.9)
y = (x * x).sin().double() + 3 * x
y.backward()
print(y, x.grad, x.origin)
print((2 * x).sin().data, x.double().data, y._op, sorted(v.data for v in y._prev))
