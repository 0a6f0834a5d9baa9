"""Local gradients in tuples, no closures: three steps of a transformer with one head over a few letters."""
import math
import random

random.seed(5)


class Value:
    __slots__ = ('data', 'grad', '_children', '_local_grads')

    def __init__(self, data, children=(), local_grads=()):
        self.data = data
        self.grad = 0
        self._children = children
        self._local_grads = local_grads

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data + other.data, (self, other), (1, 1))

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def __pow__(self, k): return Value(self.data**k, (self,), (k * self.data**(k - 1),))
    def log(self): return Value(math.log(self.data), (self,), (1 / self.data,))
    def exp(self): return Value(math.exp(self.data), (self,), (math.exp(self.data),))
    def relu(self): return Value(max(0, self.data), (self,), (float(self.data > 0),))
    def __neg__(self): return self * -1
    def __radd__(self, other): return self + other
    def __sub__(self, other): return self + (-other)
    def __rsub__(self, other): return other + (-self)
    def __rmul__(self, other): return self * other
    def __truediv__(self, other): return self * other**-1
    def __rtruediv__(self, other): return other * self**-1

    def backward(self):
        topo, visited = [], set()

        def build(v):
            if v not in visited:
                visited.add(v)
                for child in v._children:
                    build(child)
                topo.append(v)
        build(self)
        self.grad = 1
        for v in reversed(topo):
            for child, local in zip(v._children, v._local_grads):
                child.grad += local * v.grad


words = ['abba', 'baab', 'cab']
letters = sorted(set(''.join(words)))
end, width = len(letters), 3


def table(rows, columns):
    return [[Value(random.gauss(0, 0.3)) for _ in range(columns)] for _ in range(rows)]


weights = {name: table(rows, columns) for name, rows, columns in [
    ('token', end + 1, width), ('place', 5, width), ('query', width, width), ('key', width, width),
    ('value', width, width), ('up', 4, width), ('down', width, 4), ('head', end + 1, width)]}
params = [p for matrix in weights.values() for row in matrix for p in row]


def linear(x, w):
    return [sum(a * b for a, b in zip(row, x)) for row in w]


def softmax(xs):
    top = max(x.data for x in xs)
    exps = [(x - top).exp() for x in xs]
    total = sum(exps)
    return [e / total for e in exps]


def norm(x):
    scale = (sum(a * a for a in x) / len(x) + 1e-5) ** -0.5
    return [a * scale for a in x]


def step(token, place, keys, values):
    x = norm([a + b for a, b in zip(weights['token'][token], weights['place'][place])])
    keys.append(linear(x, weights['key']))
    values.append(linear(x, weights['value']))
    query = linear(x, weights['query'])
    heat = softmax([sum(q * k for q, k in zip(query, key)) / width**0.5 for key in keys])
    x = [a + sum(h * v[i] for h, v in zip(heat, values)) for i, a in enumerate(x)]
    hidden = [h.relu() for h in linear(norm(x), weights['up'])]
    return linear([a + b for a, b in zip(x, linear(hidden, weights['down']))], weights['head'])


for number, word in enumerate(words):
    tokens = [end, *map(letters.index, word), end]
    keys, values, losses = [], [], []
    for place in range(len(tokens) - 1):
        odds = softmax(step(tokens[place], place, keys, values))
        losses.append(-odds[tokens[place + 1]].log())
    loss = (1 / len(losses)) * sum(losses)
    loss.backward()
    print(f'step {number} loss {loss.data:.10f}', sum(p.grad ** 2 for p in params))
    for p in params:
        p.data -= 0.1 * p.grad
        p.grad = 0
print([p.data for p in params[:6]])
