import math


class Scalar:
    def __init__(self, data, prev=(), op=''):
        self.data = data
        self.grad = 0.0
        self._prev = tuple(prev)
        self._op = op
        self._backward = None

    def __add__(self, other):
        other = as_scalar(other)
        out = Scalar(self.data + other.data, (self, other), '+')

        def pull():
            self.grad += out.grad
            other.grad += out.grad
        out._backward = pull
        return out

    def __mul__(self, other):
        other = as_scalar(other)
        out = Scalar(self.data * other.data, (self, other), '*')

        def pull():
            self.grad += out.grad * other.data
            other.grad += out.grad * self.data
        out._backward = pull
        return out

    def sin(self):
        out = Scalar(math.sin(self.data), (self,), 'sin')

        def pull():
            self.grad += out.grad * math.cos(self.data)
        out._backward = pull
        return out

    __radd__, __rmul__ = __add__, __mul__

    def backward(self):
        self.grad = 1.0
        for node in reversed(list(in_order(self, set()))):
            if node._backward:
                node._backward()


def as_scalar(x):
    return x if isinstance(x, Scalar) else Scalar(x)


def in_order(node, seen):
    if node not in seen:
        seen.add(node)
        for p in node._prev:
            yield from in_order(p, seen)
        yield node
