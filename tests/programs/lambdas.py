"""Each rule is a lambda."""
import math


class Value:
    def __init__(self, data, prev=(), op=''):
        self.data = data
        self.grad = 0.0
        self._prev = set(prev)
        self._op = op
        self._backward = lambda: None

    def gain(self, amount):
        self.grad += amount

    def __add__(self, other):
        other = Value.of(other)
        out = Value(self.data + other.data, (self, other), '+')
        out._backward = lambda: (self.gain(out.grad), other.gain(out.grad))
        return out

    def __mul__(self, other):
        other = Value.of(other)
        out = Value(self.data * other.data, (self, other), '*')
        out._backward = lambda: (self.gain(other.data * out.grad), other.gain(self.data * out.grad))
        return out

    def _map(self, y, slope, op):
        out = Value(y, (self,), op)
        out._backward = lambda: self.gain(slope * out.grad)
        return out

    def exp(self): return self._map(math.exp(self.data), math.exp(self.data), 'exp')
    def sin(self): return self._map(math.sin(self.data), math.cos(self.data), 'sin')
    def sqrt(self): return self._map(self.data ** 0.5, 0.5 * self.data ** -0.5, 'sqrt')
    def __neg__(self): return self * -1
    def __sub__(self, other): return self + -Value.of(other)

    @classmethod
    def of(cls, x):
        return x if isinstance(x, cls) else cls(x)

    def backward(self):
        order, seen = [], set()
        walk = lambda v: v in seen or (seen.add(v), [walk(p) for p in v._prev], order.append(v))
        walk(self)
        self.grad = 1.0
        for v in order[::-1]:
            v._backward()


a, b = Value(0.7), Value(2.5)
y = (a * b + a.sin()).exp() - b.sqrt() * (a - 3)
z = y * y + b
z.backward()
print(y.data, z.data)
print(a.grad, b.grad, y.grad)
a.gain(1)
print(a.grad)
