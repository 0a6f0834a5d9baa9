"""Numbers by class methods, a default of nothing, and a cache of constants."""
import random


class Value:
    _cache = {}

    def __init__(self, data=0.0, _children=(), _op=''):
        self.data = data
        self.grad = 0.0
        self._prev = set(_children)
        self._op = _op
        self._backward = lambda: None

    @classmethod
    def zeros(cls, n): return [cls() for _ in range(n)]

    @classmethod
    def uniform(cls, n, seed):
        rng = random.Random(seed)
        return [cls(rng.uniform(-1, 1)) for _ in range(n)]

    @classmethod
    def constant(cls, x):
        if x not in cls._cache:
            cls._cache[x] = cls(x, _op='const')
        return cls._cache[x]

    @staticmethod
    def dot(us, vs):
        return sum((u * v for u, v in zip(us, vs)), Value())

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


us, vs = Value.uniform(3, 1), Value.uniform(3, 2)
total = Value.zeros(2)
total[0] = Value.dot(us, vs) * Value.constant(2) + Value.constant(2)
total[0].backward()
print(total[0].data, total[1].data, [u.grad for u in us], [v.grad for v in vs])
print(Value.constant(2) is Value.constant(2), Value.constant(2).grad, len(Value._cache), Value.constant(2)._op)
