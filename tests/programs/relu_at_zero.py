"""relu's derivative is 1 at 0, which shows where weights begin at 0."""


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

    def relu(self):
        out = Value(0.0 if self.data < 0 else self.data, (self,), 'relu')

        def _backward():
            self.grad += 0.0 if self.data < 0 else out.grad
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


weights = [Value(0.0), Value(0.0), Value(0.5)]
for step in range(5):
    loss = Value(0.0)
    for x, y in ((1.0, 2.0), (2.0, 3.0), (-1.0, 0.0)):
        hidden = (weights[0] * x).relu() + (weights[1] * -x).relu()
        error = hidden * weights[2] + -y
        loss = loss + error * error
    for w in weights:
        w.grad = 0.0
    loss.backward()
    print(step, loss.data, [w.grad for w in weights])
    for w in weights:
        w.data -= 0.02 * w.grad
