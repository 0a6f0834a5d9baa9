"""In the manner of a lecture: labels, one neuron, the reverse pass by hand and then by itself."""
import math


class Value:

    def __init__(self, data, _children=(), _op='', label=''):
        self.data = data
        self.grad = 0.0
        self._backward = lambda: None
        self._prev = set(_children)
        self._op = _op
        self.label = label

    def __repr__(self):
        return f"Value(data={self.data})"

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data + other.data, (self, other), '+')

        def _backward():
            self.grad += 1.0 * out.grad
            other.grad += 1.0 * out.grad
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
        x = self.data
        t = (math.exp(2*x) - 1)/(math.exp(2*x) + 1)
        out = Value(t, (self,), 'tanh')

        def _backward():
            self.grad += (1 - t**2) * out.grad
        out._backward = _backward
        return out

    def backward(self):
        topo = []
        visited = set()

        def build_topo(v):
            if v not in visited:
                visited.add(v)
                for child in v._prev:
                    build_topo(child)
                topo.append(v)
        build_topo(self)

        self.grad = 1.0
        for node in reversed(topo):
            node._backward()


def neuron():
    x1, x2 = Value(2.0, label='x1'), Value(0.0, label='x2')
    w1, w2 = Value(-3.0, label='w1'), Value(1.0, label='w2')
    b = Value(6.7, label='b')
    x1w1 = x1*w1; x1w1.label = 'x1*w1'
    x2w2 = x2*w2; x2w2.label = 'x2*w2'
    s = x1w1 + x2w2; s.label = 's'
    n = s + b; n.label = 'n'
    o = n.tanh(); o.label = 'o'
    return x1, x2, w1, w2, b, x1w1, x2w2, s, n, o


nodes = neuron()
x1, x2, w1, w2, b, x1w1, x2w2, s, n, o = nodes
o.grad = 1.0
for node in (o, n, b, s, x1w1, x2w2):
    node._backward()
by_hand = [(v.label, v.data, v.grad) for v in nodes]
for row in by_hand:
    print(*row)

nodes = neuron()
nodes[-1].backward()
print(nodes[-1])
print([v.grad for v in nodes])
print(max(abs(v.grad - row[2]) for v, row in zip(nodes, by_hand)) < 1e-12)
print([sorted(child.label for child in v._prev) for v in nodes], [v._op for v in nodes])

a = Value(3.0, label='a')
twice = a + a
twice.backward()
print(twice, a.grad)
