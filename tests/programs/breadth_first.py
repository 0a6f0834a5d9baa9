"""The reverse pass goes level by level and not in topological order: right for trees alone."""
from collections import deque


class Value:
    def __init__(self, data, _children=(), _op=''):
        self.data = data
        self.grad = 0.0
        self._prev = _children
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

    def backward(self):
        self.grad = 1.0
        queue, seen = deque([self]), {self}
        while queue:
            v = queue.popleft()
            v._backward()
            for child in v._prev:
                if child not in seen:
                    seen.add(child)
                    queue.append(child)


a, b, c = Value(2.0), Value(-3.0), Value(0.5)
tree = (a * b) + (c * 4)
tree.backward()
print(tree.data, a.grad, b.grad, c.grad)

# A number used near the end and far from it: its own operands are served too early.
a, b, c = Value(2.0), Value(-3.0), Value(0.5)
s = a * b
y = ((s + 1) * c + 2) * s
y.backward()
print(y.data, a.grad, b.grad, s.grad)
