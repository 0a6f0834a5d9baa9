"""Each operation is a class of its own, with its rule as a method."""


class Value:
    def __init__(self, data, *parents):
        self.data = data
        self.grad = 0.0
        self._prev = parents

    def _backward(self):
        pass

    def __add__(self, other): return Sum.of(self, other)
    def __mul__(self, other): return Product.of(self, other)
    __radd__, __rmul__ = __add__, __mul__

    @classmethod
    def of(cls, *operands):
        operands = [x if isinstance(x, Value) else Value(x) for x in operands]
        return cls(cls.compute(*(x.data for x in operands)), *operands)

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


class Sum(Value):
    @staticmethod
    def compute(a, b):
        return a + b

    def _backward(self):
        for parent in self._prev:
            parent.grad += self.grad


class Product(Value):
    @staticmethod
    def compute(a, b):
        return a * b

    def _backward(self):
        left, right = self._prev
        left.grad += right.data * self.grad
        right.grad += left.data * self.grad


a, b = Value(2.5), Value(-1.0)
y = a * b * a + 3 * b
y.backward()
print(y.data, a.grad, b.grad)
print(type(y).__name__, [type(v).__name__ for v in y._prev], [v.grad for v in y._prev])
