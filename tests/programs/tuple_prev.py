"""Operands in a tuple, in order; the same operand twice stays twice."""
import math


class Value:
    def __init__(self, data, _prev=(), _op=''):
        self.data = data
        self.grad = 0
        self._backward = lambda: None
        self._prev = _prev
        self._op = _op

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

    def log(self):
        out = Value(math.log(self.data), (self,), 'log')

        def _backward():
            self.grad += (1/self.data) * out.grad
        out._backward = _backward
        return out

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
        self.grad = 1
        for v in reversed(topo):
            v._backward()


def show(v, indent=0):
    print('  ' * indent + f'{v._op or "leaf"} {v.data:.6f} {v.grad:.6f} {len(v._prev)}')
    for child in v._prev:
        show(child, indent + 1)


a, b = Value(1.5), Value(0.25)
square = a * a
y = (square + b).log() * b + square
y.backward()
show(y)
first, second = square._prev
print(first is second is a, type(y._prev).__name__, a.grad, b.grad)
a.color = 'lightgreen'
print(square._prev[0].color)
