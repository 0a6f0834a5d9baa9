"""A mistake on purpose: a power's derivative is assigned, not added: what came before is lost."""


class Value:
    def __init__(self, data, _children=(), _op=''):
        self.data = data
        self.grad = 0.0
        self._prev = tuple(_children)   # in order, as what is lost depends on it
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
            self.grad = other * self.data**(other - 1) * out.grad
        out._backward = _backward
        return out

    def __neg__(self): return self * -1
    def __radd__(self, other): return self + other
    def __rmul__(self, other): return self * other
    def __sub__(self, other): return self + (-other)

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


x, y = Value(1.5), Value(-2.0)
once = x**3 + y * 2
once.backward()
print(once.data, x.grad, y.grad)

x, y = Value(1.5), Value(-2.0)
thrice = x**2 + x**3 + x * y + y**2
thrice.backward()
print(thrice.data, x.grad, y.grad)

loss = Value(0.0)
for t in (0.5, 1.0, 2.0):
    loss = loss + (x * t - y)**2
x.grad = y.grad = 0.0
loss.backward()
print(loss.data, x.grad, y.grad)
