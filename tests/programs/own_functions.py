"""Operations that an engine does not have as a rule, one with an argument."""
import math


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

    def __pow__(self, other):
        out = Value(self.data**other, (self,), f'**{other}')

        def _backward():
            self.grad += other * self.data**(other - 1) * out.grad
        out._backward = _backward
        return out

    def leaky(self, alpha=0.01):
        out = Value(self.data if self.data > 0 else alpha * self.data, (self,), 'leaky')

        def _backward():
            self.grad += (1.0 if self.data > 0 else alpha) * out.grad
        out._backward = _backward
        return out

    def softplus(self):
        out = Value(math.log1p(math.exp(self.data)), (self,), 'softplus')

        def _backward():
            self.grad += out.grad / (1 + math.exp(-self.data))
        out._backward = _backward
        return out

    def __abs__(self):
        out = Value(abs(self.data), (self,), 'abs')

        def _backward():
            self.grad += math.copysign(1.0, self.data) * out.grad
        out._backward = _backward
        return out

    def cube(self):
        out = Value(self.data**3, (self,), 'cube')

        def _backward():
            self.grad += 3 * self.data**2 * out.grad
        out._backward = _backward
        return out

    def __neg__(self): return self * -1
    def __radd__(self, other): return self + other
    def __rmul__(self, other): return self * other
    def __sub__(self, other): return self + (-other)
    def __rsub__(self, other): return other + (-self)
    def __truediv__(self, other): return self * other**-1

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


a, b = Value(-1.25), Value(0.75)
y = a.leaky() + a.leaky(alpha=0.3) * b.softplus() + abs(a * b) - b.cube() / 2
y.backward()
print(y.data)
print(a.grad, b.grad)
print([v._op for v in (a.leaky(), a.softplus(), abs(a), a.cube())])
print(a.leaky(0.5).data, abs(b).data)
