"""Prints a graph with differences and quotients as a program: they are sums, products and powers here."""


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

    def __pow__(self, k):
        out = Value(self.data ** k, (self,), f'**{k}')

        def _backward():
            self.grad += k * self.data ** (k - 1) * out.grad
        out._backward = _backward
        return out

    def relu(self):
        out = Value(max(0.0, self.data), (self,), 'relu')

        def _backward():
            self.grad += (out.data > 0) * out.grad
        out._backward = _backward
        return out

    def __neg__(self): return self * -1
    def __radd__(self, other): return self + other
    def __rmul__(self, other): return self * other
    def __sub__(self, other): return self + (-other)
    def __rsub__(self, other): return other + (-self)
    def __truediv__(self, other): return self * other ** -1
    def __rtruediv__(self, other): return other * self ** -1

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


def generate(root):
    names, lines = {}, []

    def name_of(v):
        if v not in names:
            operands = [name_of(child) for child in sorted(v._prev, key=lambda c: (c.data, c._op))]
            names[v] = f't{len(names)}'
            if not v._op:
                text = repr(float(v.data))
            elif v._op in '+*':
                text = f' {v._op} '.join(operands if len(operands) == 2 else operands * 2)
            elif v._op.startswith('**'):
                text = operands[0] + ' ' + v._op
            else:
                text = f'max(0.0, {operands[0]})'
            lines.append(f'{names[v]} = {text}')
        return names[v]
    name_of(root)
    return lines


x, y = Value(-1.25), Value(2.5)
c = (x - y) / 4 - 1
c.backward()
code = generate(c)
print('\n'.join(code))
space = {}
exec('\n'.join(code), space)
print(space[f't{len(code) - 1}'], c.data, x.grad, y.grad)
