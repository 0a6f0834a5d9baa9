"""A decorator makes Values of numbers, and one makes the rule known."""
import functools


def lifted(method):
    @functools.wraps(method)
    def wrapper(self, other):
        return method(self, other if isinstance(other, Value) else Value(other))
    return wrapper


class Value:
    registry = []

    def __init__(self, data, _children=(), _op=''):
        self.data = data
        self.grad = 0.0
        self._prev = set(_children)
        self._op = _op
        self._backward = lambda: None

    @lifted
    def __add__(self, other):
        """Sum."""
        out = Value(self.data + other.data, (self, other), '+')

        def _backward():
            self.grad += out.grad
            other.grad += out.grad
        out._backward = _backward
        return out

    @lifted
    def __mul__(self, other):
        """Product."""
        out = Value(self.data * other.data, (self, other), '*')

        def _backward():
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad
        out._backward = _backward
        return out

    @lifted
    def __sub__(self, other):
        """Difference."""
        out = Value(self.data - other.data, (self, other), '-')

        def _backward():
            self.grad += out.grad
            other.grad -= out.grad
        out._backward = _backward
        return out

    def __radd__(self, other): return self + other
    def __rmul__(self, other): return self * other
    def __rsub__(self, other): return Value(other) - self

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


a, b = Value(0.4), Value(1.6)
y = 3 * (a - b) * a + (2 - b) * 0.5
y.backward()
print(y.data, a.grad, b.grad)
print(Value.registry, (a - 1).data, (1 - a).data)
