"""backward(seed): begins with a gradient other than 1."""


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

    def backward(self, seed=1.0, clear=False):
        topo, visited = [], set()

        def build(v):
            if v not in visited:
                visited.add(v)
                for child in v._prev:
                    build(child)
                topo.append(v)
        build(self)
        if clear:
            for v in topo:
                v.grad = 0.0
        self.grad = seed
        for v in reversed(topo):
            v._backward()


def model():
    a, b = Value(2.0), Value(-3.0)
    return a, b, a * b + a * a


for arguments in ({}, {'seed': 0.5}, {'seed': -2}, {'seed': 3.0, 'clear': True}):
    a, b, y = model()
    y.backward(**arguments)
    print(arguments, y.data, a.grad, b.grad, y.grad)
# A Jacobian times a vector, from two outputs.
a, b, y = model()
z = a * 4 + b
y.backward(0.1)
z.backward(10)
print(a.grad, b.grad)
