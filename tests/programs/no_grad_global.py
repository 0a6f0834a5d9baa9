"""A variable of the module: what is computed while it is False has no past."""
recording = True


class Value:
    def __init__(self, data, _children=(), _op=''):
        self.data = data
        self.grad = 0.0
        self._prev = set(_children)
        self._op = _op
        self._backward = lambda: None

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data + other.data, (self, other) if recording else (), '+')

        def _backward():
            self.grad += out.grad
            other.grad += out.grad
        if recording:
            out._backward = _backward
        return out

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data * other.data, (self, other) if recording else (), '*')

        def _backward():
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad
        if recording:
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
        self.grad = 1.0
        for v in reversed(topo):
            v._backward()


w = Value(1.5)
recording = False
target = w * w + 2
recording = True
y = target * w + w
y.backward()
print(y.data, target.data, w.grad, target.grad, len(target._prev))
w.grad = 0.0
z = (w * w + 2) * w + w
z.backward()
print(z.data, w.grad)
