"""functools.total_ordering over == and <."""
from functools import total_ordering


@total_ordering
class Value:
    def __init__(self, data, _children=(), _op=''):
        self.data = data
        self.grad = 0.0
        self._prev = set(_children)
        self._op = _op
        self._backward = lambda: None

    def __eq__(self, other): return self.data == getattr(other, 'data', other)

    def __lt__(self, other): return self.data < getattr(other, 'data', other)
    def __hash__(self): return id(self)

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


values = [Value(x) for x in (0.5, -1.0, 2.0)]
y = max(values) * min(values) + (values[0] if values[0] >= 0.5 else values[1])
y.backward()
print(y.data, [v.grad for v in values])
print(values[0] <= values[1], values[2] > 1, values[1] != -1, sorted(values)[0].data, 3 > values[2])
