"""Each number calls its operands: a sum over all paths, in which what is inside counts again and again."""


class Value:
    def __init__(self, data, _prev=(), _op=''):
        self.data = data
        self.grad = 0.0
        self._prev = _prev
        self._op = _op
        self._local = ()

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data + other.data, (self, other), '+')
        out._local = (1.0, 1.0)
        return out

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data * other.data, (self, other), '*')
        out._local = (other.data, self.data)
        return out

    def backward(self, upstream=1.0):
        self.grad += upstream
        for child, local in zip(self._prev, self._local):
            child.backward(upstream * local)


a, b = Value(1.5), Value(-2.0)
shared = a * b
y = shared * shared + shared * a + b
y.backward()
print(y.data, shared.grad)
print(a.grad, b.grad, y.grad)
