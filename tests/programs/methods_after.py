"""A whole class, to which operations are added, and one of which is replaced, later."""
import math


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

    def tanh(self):
        out = Value(math.tanh(self.data), (self,), 'tanh')

        def _backward():
            self.grad += (1 - out.data ** 2) * out.grad
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


def cosine(self):
    out = Value(math.cos(self.data), (self,), 'cos')

    def _backward():
        self.grad -= math.sin(self.data) * out.grad
    out._backward = _backward
    return out


Value.cos = cosine
Value.note = ''
Value.squared = property(lambda self: self * self)

x = Value(0.6)
y = x.cos() * 2 + x.tanh() + x.squared
y.backward()
print(y.data, x.grad, repr(y.note))


def steep_tanh(self):
    t = math.tanh(5 * self.data)
    out = Value(t, (self,), 'steep')

    def _backward():
        self.grad += 5 * (1 - t * t) * out.grad
    out._backward = _backward
    return out


Value.tanh = steep_tanh
x.grad = 0.0
x.note = 'seen'
z = x.tanh() + x
z.backward()
print(z.data, x.grad, x.note, x.squared.data, x.cos().data)
