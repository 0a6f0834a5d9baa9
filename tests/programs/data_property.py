"""data is a property that checks what it is given; the number behind it has another name."""


class Value:
    def __init__(self, data, _children=(), _op=''):
        self.data = data
        self.grad = 0.0
        self._prev = set(_children)
        self._op = _op
        self._backward = lambda: None

    @property
    def data(self):
        return self._data

    @data.setter
    def data(self, number):
        if not isinstance(number, (int, float)):
            raise TypeError('a number, please')
        self._data = float(number)

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


a, b = Value(2), Value(-3)
y = a * b + 2 * a
y.backward()
a.data -= 0.5 * a.grad
print(y.data, a.data, a.grad, b.grad)
try:
    Value('7')
except TypeError:
    print('7 is refused')
b.data = 4
print(b.data, (b * 2).data)
