"""Labels are second-last as ever, and results get theirs from their operands, if those have one."""


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
        label = f'{self.label}+{other.label}' if self.label and other.label else ''
        out = Value(self.data + other.data, (self, other), '+', label)

        def _backward():
            self.grad += out.grad
            other.grad += out.grad
        out._backward = _backward
        return out

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        label = f'{self.label}*{other.label}' if self.label and other.label else ''
        out = Value(self.data * other.data, (self, other), '*', label)

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
        self.grad = 1.0
        for v in reversed(topo):
            v._backward()


a, b = Value(2.0, label='a'), Value(-3.5, label='b')
y = a * b + a
z = y * 2
z.backward()
print(repr(y.label), y.data, repr(z.label), z.data)
print(a.grad, b.grad, y.grad)
