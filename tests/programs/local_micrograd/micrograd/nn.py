"""Not the nn of the package on PyPI: other initial weights, other activations, other names of arguments."""
import random

from micrograd.engine import Value


class Module:
    def zero_grad(self):
        for p in self.parameters():
            p.grad = 0

    def parameters(self):
        return []


class Neuron(Module):
    def __init__(self, nin, act='relu'):
        bound = (6 / nin) ** 0.5
        self.b = Value(0.05, label='b')
        self.w = [Value(random.triangular(-bound, bound), label=f'w{i}') for i in range(nin)]
        self.act = act

    def __call__(self, x):
        total = self.b
        for wi, xi in zip(self.w, x):
            total = total + wi * xi
        return total.relu() if self.act == 'relu' else total.sigmoid() if self.act == 'sigmoid' else total

    def parameters(self):
        return [self.b] + self.w


class Layer(Module):
    def __init__(self, nin, nout, act):
        self.neurons = [Neuron(nin, act) for _ in range(nout)]

    def __call__(self, x):
        return [n(x) for n in self.neurons]

    def parameters(self):
        return [p for n in self.neurons for p in n.parameters()]


class MLP(Module):
    def __init__(self, nin, nouts):
        acts = ['relu'] * (len(nouts) - 1) + ['sigmoid']
        self.layers = [Layer(a, b, act) for a, b, act in zip([nin] + nouts, nouts, acts)]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x[0]

    def parameters(self):
        return [p for layer in self.layers for p in layer.parameters()]

    def __repr__(self):
        return f"MLP of {len(self.parameters())} numbers"
