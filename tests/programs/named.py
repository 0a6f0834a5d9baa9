"""A constructor with arguments of its own: a name, and whether a gradient is wanted."""
import math


class Value:
    def __init__(self, data, _prev=(), _op='', name=None, requires_grad=True):
        self.data = float(data)
        self.grad = 0.0
        self._prev = set(_prev)
        self._op = _op
        self.name = name or 'unnamed'
        self.requires_grad = requires_grad
        self._backward = lambda: None

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other, name='constant')
        out = Value(self.data + other.data, (self, other), '+')

        def _backward():
            self.grad += out.grad
            other.grad += out.grad
        out._backward = _backward
        return out

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other, name='constant')
        out = Value(self.data * other.data, (self, other), '*')

        def _backward():
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad
        out._backward = _backward
        return out

    def cos(self):
        out = Value(math.cos(self.data), (self,), 'cos')

        def _backward():
            self.grad -= math.sin(self.data) * out.grad
        out._backward = _backward
        return out

    def update(self, rate):
        if self.requires_grad:
            self.data -= rate * self.grad

    def __repr__(self):
        return f'{self.name}: {self.data:.9f} {self.grad:+.9f} {self.requires_grad}'

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


place = Value(1, name='place')
target = Value(data=0.25, name='target', requires_grad=False)
for step in range(4):
    gap = place.cos() + target * -1
    loss = gap * gap
    place.grad = target.grad = 0.0
    loss.backward()
    print(step, loss, place, target, sep=' | ')
    for v in (place, target):
        v.update(0.3)
print(sorted(v.name for v in gap._prev))
