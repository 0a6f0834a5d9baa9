"""The reverse pass marks the numbers that it has seen, on the numbers."""


class Value:
    def __init__(self, data, _children=(), _op=''):
        self.data = data
        self.grad = 0.0
        self._prev = list(_children)
        self._op = _op
        self._backward = lambda: None
        self.seen = False

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

    def collect(self, order):
        if not self.seen:
            self.seen = True
            for child in self._prev:
                child.collect(order)
            order.append(self)
        return order

    def backward(self):
        order = self.collect([])
        self.grad = 1.0
        while order:
            v = order.pop()
            v._backward()
            v.seen = False


a, b = Value(0.5), Value(-1.5)
c = a * b
y = c * c + a
y.backward()
print(y.data, c.grad, a.grad, b.grad)
print(a.seen, y.seen, len(c._prev))
z = c * 2 + b
z.backward()
print(z.data, c.grad, a.grad, b.grad)
