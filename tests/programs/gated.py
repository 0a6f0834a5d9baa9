"""No gradient reaches a number that did not ask for one."""


class Value:
    def __init__(self, data, _children=(), _op='', requires_grad=False):
        self.data = data
        self.grad = 0.0
        self.requires_grad = requires_grad
        self._prev = set(_children)
        self._op = _op
        self._backward = lambda: None

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data + other.data, (self, other), '+', self.requires_grad or other.requires_grad)

        def _backward():
            if self.requires_grad:
                self.grad += out.grad
            if other.requires_grad:
                other.grad += out.grad
        out._backward = _backward
        return out

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data * other.data, (self, other), '*', self.requires_grad or other.requires_grad)

        def _backward():
            if self.requires_grad:
                self.grad += other.data * out.grad
            if other.requires_grad:
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


weight, bias = Value(0.5, requires_grad=True), Value(-1.0, requires_grad=True)
x, y = Value(3.0), Value(2.0)
error = weight * x + bias + y * -1
loss = error * error
loss.backward()
print(loss.data, error.grad, loss.requires_grad)
print(weight.grad, bias.grad)
print(x.grad, y.grad)
