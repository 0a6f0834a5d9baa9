"""The same engine, in which data is val and _prev is parents."""


class Value:
    def __init__(self, val, parents=(), op=''):
        self.val = val
        self.grad = 0.0
        self.parents = parents
        self.op = op
        self.rule = None

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.val + other.val, (self, other), '+')

        def rule():
            self.grad += out.grad
            other.grad += out.grad
        out.rule = rule
        return out

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.val * other.val, (self, other), '*')

        def rule():
            self.grad += other.val * out.grad
            other.grad += self.val * out.grad
        out.rule = rule
        return out

    def backward(self):
        order, seen = [], set()

        def visit(v):
            if v not in seen:
                seen.add(v)
                for p in v.parents:
                    visit(p)
                order.append(v)
        visit(self)
        self.grad = 1.0
        for v in reversed(order):
            if v.rule:
                v.rule()


a, b = Value(1.2), Value(-0.7)
y = a * b * a + b
y.backward()
print(y.val, a.grad, b.grad)
print(y.op, len(y.parents), y.parents[1].val)
