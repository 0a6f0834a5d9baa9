"""A gradient is None until there is one."""
import math


class Value:
    def __init__(self, data):
        self.data = data
        self.grad = None
        self._prev = []
        self._slopes = []

    @staticmethod
    def wrap(x):
        return x if isinstance(x, Value) else Value(x)

    @classmethod
    def node(cls, data, prev, slopes):
        out = cls(data)
        out._prev, out._slopes = prev, slopes
        return out

    def __add__(self, other):
        other = self.wrap(other)
        return self.node(self.data + other.data, [self, other], [1.0, 1.0])

    def __mul__(self, other):
        other = self.wrap(other)
        return self.node(self.data * other.data, [self, other], [other.data, self.data])

    def sigmoid(self):
        s = 1 / (1 + math.exp(-self.data))
        return self.node(s, [self], [s * (1 - s)])

    def backward(self):
        order, seen = [], set()

        def visit(v):
            if v not in seen:
                seen.add(v)
                for p in v._prev:
                    visit(p)
                order.append(v)
        visit(self)
        self.grad = 1.0
        for v in reversed(order):
            for p, slope in zip(v._prev, v._slopes):
                p.grad = slope * v.grad if p.grad is None else p.grad + slope * v.grad


a, b, unused = Value(0.3), Value(-1.2), Value(5.0)
h = (a * b + 0.5).sigmoid()
y = h * a + h
print(a.grad, y.grad)
y.backward()
print(y.data, h.data, y.grad)
print(a.grad, b.grad, h.grad, unused.grad)
for v in (a, b, unused):
    if v.grad is not None:
        v.data -= 0.1 * v.grad
    v.grad = None
print(a.data, b.data, unused.data, a.grad)
