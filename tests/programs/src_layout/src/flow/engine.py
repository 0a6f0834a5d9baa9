import math


class Value:
    """A scalar with a gradient."""
    count_of_leaves = 0   # never used by this program

    def __init__(self, data, children=(), op='', label=''):
        self.data = data
        self.grad = 0.0
        self._backward = lambda: None
        self._prev = set(children)
        self._op = op
        self.label = label

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data + other.data, children=(self, other), op='+')

        def step():
            self.grad += out.grad
            other.grad += out.grad
        out._backward = step
        return out

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data * other.data, children=(self, other), op='*')

        def step():
            self.grad += out.grad * other.data
            other.grad += out.grad * self.data
        out._backward = step
        return out

    __radd__ = __add__
    __rmul__ = __mul__

    def log(self):
        out = Value(math.log(self.data), children=(self,), op='log')

        def step():
            self.grad += out.grad / self.data
        out._backward = step
        return out

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
