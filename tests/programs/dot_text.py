"""Draws a graph in graphviz's language, nodes numbered as they are met."""
import math


class Value:
    def __init__(self, data, _children=(), _op='', label=''):
        self.data = data
        self.grad = 0.0
        self._prev = set(_children)
        self._op = _op
        self.label = label
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


def trace(root):
    nodes, edges = [], []

    def build(v):
        if v not in nodes:
            nodes.append(v)
            for child in sorted(v._prev, key=lambda c: (c.label, c.data)):
                edges.append((child, v))
                build(child)
    build(root)
    return nodes, edges


def draw(root):
    nodes, edges = trace(root)
    number = {v: i for i, v in enumerate(nodes)}
    print('digraph {')
    for v in nodes:
        print(f'  n{number[v]} [label="{v.label} | data {v.data:.4f} | grad {v.grad:.4f}"]')
        if v._op:
            print(f'  n{number[v]}op [label="{v._op}"]')
            print(f'  n{number[v]}op -> n{number[v]}')
    for child, v in edges:
        print(f'  n{number[child]} -> n{number[v]}op')
    print('}')


x1, x2 = Value(2.0, label='x1'), Value(-0.3, label='x2')
w1, w2 = Value(-0.7, label='w1'), Value(1.4, label='w2')
p1 = x1 * w1; p1.label = 'x1w1'
p2 = x2 * w2; p2.label = 'x2w2'
s = p1 + p2 + 0.5; s.label = 's'
o = s.tanh(); o.label = 'o'
square = o * o; square.label = 'square'
square.backward()
draw(square)
