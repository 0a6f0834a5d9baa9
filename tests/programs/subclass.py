"""A class of parameters on top of the class of numbers."""
import random


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


class Parameter(Value):
    """A number that is trained, with Nesterov's momentum."""

    def __init__(self, name, data):
        super().__init__(data)
        self.name = name
        self.speed = 0.0

    def update(self, rate, momentum=0.9):
        self.speed = momentum * self.speed - rate * self.grad
        self.data += momentum * self.speed - rate * self.grad
        self.grad = 0.0

    def __repr__(self):
        return f'{self.name}={self.data:.10f}'


rng = random.Random(8)
slope, offset = Parameter('slope', 0.0), Parameter('offset', 0.0)
rows = [(x, 1.5 * x - 0.7 + rng.gauss(0, 0.1)) for x in (rng.uniform(-2, 2) for _ in range(12))]
for step in range(12):
    loss = sum((slope * x + offset + -y) * (slope * x + offset + -y) for x, y in rows) * (1 / len(rows))
    loss.backward()
    if step % 4 == 0:
        print(step, loss.data, slope.grad, offset.grad)
    slope.update(0.05)
    offset.update(0.05)
print(slope, offset, slope.speed)
print(isinstance(slope, Value), type(slope + offset).__name__)
