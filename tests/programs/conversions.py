"""The number as a float, a truth value, an int, a key to sort by, and text of its own."""
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

    def __neg__(self): return self * -1
    def __radd__(self, other): return self + other
    def __rmul__(self, other): return self * other
    def __float__(self): return float(self.data)
    def __int__(self): return int(self.data)
    def __bool__(self): return self.data > 0.5

    def __lt__(self, other): return self.data < (other.data if isinstance(other, Value) else other)
    def __gt__(self, other): return self.data > (other.data if isinstance(other, Value) else other)
    def __format__(self, spec): return '<' + format(self.data, spec or '.2f') + '>'
    def __str__(self): return f'v{self.data:g}'
    def __abs__(self): return self if self.data >= 0 else -self
    def __round__(self, digits=0): return Value(round(self.data, digits))

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


values = [Value(x) for x in (0.25, -3.75, 2.125)]
y = sum(abs(v) for v in values) * max(values)
y.backward()
print(f'{y} {y:.4f}', y, [str(v) for v in values], [v.grad for v in values])
print([bool(v) for v in values], [int(v) for v in values], math.fsum(map(float, values)))
print([v.data for v in sorted(values)], round(values[2], 1).data, values[0] < 1, 0 > values[1])
