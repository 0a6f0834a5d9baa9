"""Data that change between an operation and its rule, which was settled by then."""
import math


class Value:
    __slots__ = ('data', 'grad', '_children', '_local_grads')

    def __init__(self, data, children=(), local_grads=()):
        self.data = data
        self.grad = 0
        self._children = children
        self._local_grads = local_grads

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data + other.data, (self, other), (1, 1))

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def exp(self): return Value(math.exp(self.data), (self,), (math.exp(self.data),))
    def __radd__(self, other): return self + other
    def __rmul__(self, other): return self * other

    def backward(self):
        topo, visited = [], set()

        def build(v):
            if v not in visited:
                visited.add(v)
                for child in v._children:
                    build(child)
                topo.append(v)
        build(self)
        self.grad = 1
        for v in reversed(topo):
            for child, local in zip(v._children, v._local_grads):
                child.grad += local * v.grad


w, x = Value(2.0), Value(3.0)
y = w * x + x.exp()
w.data = 10.0           # after the product is made, before its rule runs
x.data = -1.0
y.backward()
print(y.data, w.grad, x.grad)
z = (w + x) * w
w.data += 1
z.backward()
print(z.data, w.grad, x.grad)
