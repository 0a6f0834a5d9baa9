"""A scalar with automatic differentiation in plain Python, for comparison with flatgrad.

`Value` has only the operations that scalar_gpt.py needs: arithmetic with Values and numbers, powers with a number,
``exp``, ``log``, ``relu``. Each node keeps its operands and the partial derivative by each operand, computed in the
forward pass; `Value.backward` applies the chain rule.

`dot`, `matvec` and `softmax` use these operations, `take` is an element of a list, and `Adam` is a loop over Values.
flatgrad has functions and a class with the same names.
"""
import math
from operator import mul


class Value:
    """A number in a graph of operations.

    Parameters
    ----------
    data : float
        The number.
    children : tuple of Value, optional
        The operands from which it was computed.
    local_grads : tuple of float, optional
        The partial derivative by each child.
    """

    __slots__ = ("data", "grad", "_children", "_local_grads")

    def __init__(self, data, children=(), local_grads=()):
        self.data = data
        self.grad = 0.0
        self._children = children
        self._local_grads = local_grads

    def __repr__(self):
        return f"Value(data={self.data}, grad={self.grad})"

    def __add__(self, other):
        if isinstance(other, Value):
            return Value(self.data + other.data, (self, other), (1.0, 1.0))
        return Value(self.data + other, (self,), (1.0,))

    def __mul__(self, other):
        if isinstance(other, Value):
            return Value(self.data * other.data, (self, other), (other.data, self.data))
        return Value(self.data * other, (self,), (other,))

    def __sub__(self, other):
        if isinstance(other, Value):
            return Value(self.data - other.data, (self, other), (1.0, -1.0))
        return Value(self.data - other, (self,), (1.0,))

    def __truediv__(self, other):
        if isinstance(other, Value):
            quotient = self.data / other.data
            return Value(quotient, (self, other), (1.0 / other.data, -quotient / other.data))
        return Value(self.data / other, (self,), (1.0 / other,))

    def __pow__(self, exponent):
        slope = exponent * self.data ** (exponent - 1)
        return Value(self.data**exponent, (self,), (slope,))

    def __neg__(self):
        return Value(-self.data, (self,), (-1.0,))

    def __rsub__(self, other):
        return Value(other - self.data, (self,), (-1.0,))

    def __rtruediv__(self, other):
        quotient = other / self.data
        return Value(quotient, (self,), (-quotient / self.data,))

    __radd__ = __add__
    __rmul__ = __mul__

    def exp(self):
        power = math.exp(self.data)
        return Value(power, (self,), (power,))

    def log(self):
        return Value(math.log(self.data), (self,), (1.0 / self.data,))

    def relu(self):
        if self.data > 0.0:
            return Value(self.data, (self,), (1.0,))
        return Value(0.0, (self,), (0.0,))

    def backward(self):
        """Add the derivative of this value to the ``grad`` of every node on which it depends."""
        # Depth first, without recursion, which would fail for long graphs. A None on the stack means that all operands
        # of the node below it are in `order` already.
        order = []
        seen = set()
        stack = [self]
        while stack:
            node = stack.pop()
            if node is None:
                order.append(stack.pop())
            elif node not in seen:
                seen.add(node)
                if node._children:
                    stack += (node, None)
                    stack += node._children
                # A leaf has no operands, so it need not be in `order`.
        self.grad = 1.0
        for node in reversed(order):
            grad = node.grad
            for child, local_grad in zip(node._children, node._local_grads):
                child.grad += local_grad * grad


def dot(a, b):
    """Sum of products; it begins with the first product, so the graph has no constant 0."""
    products = map(mul, a, b)
    return sum(products, next(products))


def matvec(matrix, x):
    return [dot(row, x) for row in matrix]


def softmax(x):
    largest = max([xi.data for xi in x])
    powers = [(xi - largest).exp() for xi in x]
    total = sum(powers[1:], powers[0])
    return [power / total for power in powers]


def take(x, k):
    return x[k]


class Adam:
    """The optimizer, like flatgrad.optim.Adam."""

    def __init__(self, parameters, lr, betas, eps):
        self.parameters = parameters
        self.lr, self.betas, self.eps = lr, betas, eps
        self.m = [0.0] * len(parameters)   # running mean of the gradients
        self.v = [0.0] * len(parameters)   # running mean of the squared gradients
        self.steps = 0

    def zero_grad(self):
        for p in self.parameters:
            p.grad = 0.0

    def step(self):
        self.steps += 1
        beta1, beta2 = self.betas
        rest1, rest2, sqrt = 1 - beta1, 1 - beta2, math.sqrt
        # The corrections for the initial zeros of m and v are the same for every parameter, and so computed before
        # the loop, as part of the rate and of eps.
        root = sqrt(1 - beta2**self.steps)
        rate = self.lr * root / (1 - beta1**self.steps)
        eps = self.eps * root
        grads = [p.grad for p in self.parameters]
        self.m = [beta1 * mi + rest1 * g for mi, g in zip(self.m, grads)]
        self.v = [beta2 * vi + rest2 * g * g for vi, g in zip(self.v, grads)]
        for p, mi, vi in zip(self.parameters, self.m, self.v):
            p.data -= rate * mi / (sqrt(vi) + eps)
