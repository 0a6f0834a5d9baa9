"""Weights are copied, deep and flat, pickled and put back."""
import copy
import pickle


def nothing():
    """The rule of a number that was not computed."""


class Value:
    def __init__(self, data, _children=(), _op=''):
        self.data = data
        self.grad = 0.0
        self._prev = set(_children)
        self._op = _op
        self._backward = nothing

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


w = [Value(0.5), Value(-1.0)]
best, lowest = None, float('inf')
for rate in (0.1, 0.9, 0.2, 1.4):
    loss = (w[0] * 2 + w[1] - 3) * (w[0] * 2 + w[1] - 3) + w[1] * w[1]
    for p in w:
        p.grad = 0.0
    loss.backward()
    if loss.data < lowest:
        best, lowest = copy.deepcopy([p.data for p in w]), loss.data
    print(rate, loss.data, [p.grad for p in w])
    for p in w:
        p.data -= rate * p.grad * 0.2
flat = copy.copy(w[0])
flat.data += 100
deep = copy.deepcopy(w)
deep[1].data = 0.0
back = pickle.loads(pickle.dumps(w))
print(best, lowest, w[0].data, flat.data, w[1].data, deep[1].data)
print([p.data for p in back], [p.grad for p in back], back[0] is w[0])
