"""The seed is set before the class is made, and the class draws random numbers in some methods."""
import random

random.seed(1337)


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

    def noisy(self, scale=0.1):
        return self + random.gauss(0, scale)

    def dropped(self, p=0.5):
        return self * (0.0 if random.random() < p else 1 / (1 - p))

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


weights = [Value(random.uniform(-1, 1)) for _ in range(4)]
print([w.data for w in weights])
y = Value(0.0)
for i, w in enumerate(weights):
    y = y + w.noisy().dropped() * (i + 1)
y.backward()
print(y.data, [w.grad for w in weights], random.random())
