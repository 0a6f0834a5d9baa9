"""Two operations that are classes on top of the number's, one with a rule and one with operands alone."""


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

    def __neg__(self): return self * -1
    def __radd__(self, other): return self + other
    def __rmul__(self, other): return self * other
    def __sub__(self, other): return self + (-other)
    def __rsub__(self, other): return other + (-self)

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


class Max(Value):
    def __init__(self, left, right):
        super().__init__(max(left.data, right.data), (left, right), 'max')
        self.chosen = left if left.data > right.data else right

        def _backward():
            self.chosen.grad += self.grad
        self._backward = _backward


class Stop(Value):
    """Passes its number on, and no gradient."""

    def __init__(self, inner):
        super().__init__(inner.data, (inner,), 'stop')


a, b = Value(2.0), Value(-1.0)
top = Max(a * b, b)
y = top * a + Stop(a * a) * b - Max(a, b)
y.backward()
print(y.data, top.grad, a.grad, b.grad)
print(top._op, isinstance(top, Value), type(top * 2).__name__, top.chosen.data)
