"""All in one file: engine, layers, two optimizers that keep their state on the numbers, and a loop."""
import math
import random


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

    def __pow__(self, k):
        out = Value(self.data ** k, (self,), f'**{k}')

        def _backward():
            self.grad += k * self.data ** (k - 1) * out.grad
        out._backward = _backward
        return out

    def tanh(self):
        out = Value(math.tanh(self.data), (self,), 'tanh')

        def _backward():
            self.grad += (1 - out.data ** 2) * out.grad
        out._backward = _backward
        return out

    def relu(self):
        out = Value(max(0.0, self.data), (self,), 'relu')

        def _backward():
            self.grad += (out.data > 0) * out.grad
        out._backward = _backward
        return out

    def __neg__(self): return self * -1
    def __radd__(self, other): return self + other
    def __rmul__(self, other): return self * other
    def __sub__(self, other): return self + (-other)
    def __rsub__(self, other): return other + (-self)
    def __truediv__(self, other): return self * other ** -1
    def __rtruediv__(self, other): return other * self ** -1

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


class Layer:
    def __init__(self, nin, nout, last=False):
        self.w = [[Value(rng.gauss(0, nin ** -0.5)) for _ in range(nin)] for _ in range(nout)]
        self.b = [Value(0.0) for _ in range(nout)]
        self.last = last

    def __call__(self, xs):
        outs = [sum((w * x for w, x in zip(row, xs)), b) for row, b in zip(self.w, self.b)]
        return outs if self.last else [o.tanh() for o in outs]

    def parameters(self):
        return [p for row in self.w for p in row] + self.b


class Net:
    def __init__(self, *sizes):
        self.layers = [Layer(a, b, i == len(sizes) - 2) for i, (a, b) in enumerate(zip(sizes, sizes[1:]))]

    def __call__(self, xs):
        for layer in self.layers:
            xs = layer(xs)
        return xs[0]

    def parameters(self):
        return [p for layer in self.layers for p in layer.parameters()]


class Adam:
    def __init__(self, params, lr=0.05, b1=0.9, b2=0.99):
        self.params, self.lr, self.b1, self.b2, self.t = params, lr, b1, b2, 0
        for p in params:
            p.m = p.v = 0.0

    def step(self):
        self.t += 1
        for p in self.params:
            p.m = self.b1 * p.m + (1 - self.b1) * p.grad
            p.v = self.b2 * p.v + (1 - self.b2) * p.grad ** 2
            p.data -= self.lr * (p.m / (1 - self.b1 ** self.t)) / ((p.v / (1 - self.b2 ** self.t)) ** 0.5 + 1e-8)
            p.grad = 0.0


class Momentum:
    def __init__(self, params, lr=0.02):
        self.speed = dict.fromkeys(params, 0.0)
        self.lr = lr

    def step(self):
        for p, speed in self.speed.items():
            self.speed[p] = 0.9 * speed + p.grad
            p.data -= self.lr * self.speed[p]
            p.grad = 0.0


rng = random.Random(21)
data = [((a, b), math.sin(a) * b) for a, b in [(0.1, 1.0), (-1.2, 0.5), (0.8, -0.9), (1.5, 0.3), (-0.4, -0.7)]]
for optimizer in (Adam, Momentum):
    net = Net(2, 4, 1)
    chosen = optimizer(net.parameters())
    for epoch in range(12):
        loss = sum((net(xs) - y) ** 2 for xs, y in data) / len(data)
        loss = loss + 1e-3 * sum(p * p for p in net.parameters())
        loss.backward()
        if epoch % 4 == 0:
            print(optimizer.__name__, epoch, loss.data, net.layers[0].w[0][0].grad)
        chosen.step()
    print([round(p.data, 9) for p in net.parameters()[:4]])
