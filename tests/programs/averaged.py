"""The reverse pass divides by the number of uses: gradients of numbers used often are means."""


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

    def backward(self):
        topo, visited = [], set()

        def build(v):
            if v not in visited:
                visited.add(v)
                for child in v._prev:
                    build(child)
                topo.append(v)
        build(self)
        uses = {}
        for v in topo:
            for child in v._prev:
                uses[child] = uses.get(child, 0) + 1
        self.grad = 1.0
        for v in reversed(topo):
            v.grad = v.grad / max(1, uses.get(v, 1))
            v._backward()


a, b = Value(2.0), Value(-3.0)
c = a * b
y = c * a + c + b
y.backward()
print(y.data, c.grad, a.grad, b.grad)
y = c * 2
y.backward()
print(y.data, c.grad, y.grad)
