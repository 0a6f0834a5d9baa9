class Value:
    def __init__(self, data, _prev=(), _op=''):
        self.data, self.grad, self._prev, self._op = data, 0, _prev, _op
        self._backward = lambda: None

    def _binary(self, other, data, op, left, right):
        out = Value(data, (self, other), op)

        def _backward():
            self.grad += left * out.grad
            other.grad += right * out.grad
        out._backward = _backward
        return out

    def __add__(self, other):
        other = lift(other)
        return self._binary(other, self.data + other.data, '+', 1, 1)

    def __mul__(self, other):
        other = lift(other)
        return self._binary(other, self.data * other.data, '*', other.data, self.data)

    def __sub__(self, other):
        other = lift(other)
        return self._binary(other, self.data - other.data, '-', 1, -1)

    def __truediv__(self, other):
        other = lift(other)
        return self._binary(other, self.data / other.data, '/', 1 / other.data, -self.data / other.data**2)

    def __radd__(self, other): return lift(other) + self
    def __rmul__(self, other): return lift(other) * self
    def __rsub__(self, other): return lift(other) - self
    def __rtruediv__(self, other): return lift(other) / self
    def __neg__(self): return 0 - self

    def backward(self):
        order = []
        seen = set()

        def walk(v):
            if id(v) in seen:
                return
            seen.add(id(v))
            for p in v._prev:
                walk(p)
            order.append(v)
        walk(self)
        self.grad = 1
        while order:
            order.pop()._backward()


def lift(x):
    return x if isinstance(x, Value) else Value(x)
