"""Methods, properties, class attributes and defaults beyond the engine."""
import math


class Value:
    digits = 4
    palette = {'+': 'green', '*': 'blue'}

    def __init__(self, data, _children=(), _op='', label='', color=None):
        self.data = data
        self.grad = 0.0
        self._prev = set(_children)
        self._op = _op
        self.label = label
        self.color = color
        self._vis_color = 'white'
        self.frozen = False
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

    def exp(self):
        out = Value(math.exp(self.data), (self,), 'exp')

        def _backward():
            self.grad += out.data * out.grad
        out._backward = _backward
        return out

    def __radd__(self, other): return self + other
    def __rmul__(self, other): return self * other
    def __truediv__(self, other): return self * other ** -1

    def __repr__(self):
        return f'{self.label or "?"}={self.data:.{self.digits}f}'

    @property
    def is_leaf(self):
        return not self._prev

    @property
    def shade(self):
        return self.color or self.palette.get(self._op, self._vis_color)

    @staticmethod
    def softmax(values):
        exps = [v.exp() for v in values]
        total = sum(exps)
        return [e / total for e in exps]

    @classmethod
    def many(cls, numbers, **kwargs):
        return [cls(x, **kwargs) for x in numbers]

    def mean_with(self, *others):
        return sum(others, self) / (len(others) + 1)

    def step(self, rate):
        if not self.frozen:
            self.data -= rate * self.grad
        self.grad = 0.0

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


logits = Value.many([0.2, -0.4, 1.1], color='red')
logits[1].label, logits[2].frozen = 'middle', True
probs = Value.softmax(logits)
score = probs[0].mean_with(probs[1] * 2, logits[2]) + probs[2] * probs[2]
score.label = 'score'
score.backward()
print(score, score.is_leaf, score.shade, score.color, logits[0].is_leaf, logits[0].shade)
print([p.data for p in probs], [v.grad for v in logits])
for v in logits:
    v.step(0.5)
print(logits, [v.data for v in logits], [v.grad for v in logits])
Value.digits = 8
print(logits[1], (logits[1] * 2)._vis_color, (logits[1] + 1).label == '')
