"""Neurons, layers and multi-layer perceptrons: micrograd's classes, drawing the same numbers.

Each keeps micrograd's constructor, attributes, order of parameters and reprs, and calls
`random.uniform` in the same order, so that one seed gives one network in both packages.
"""
import random

from flatgrad._core import Value, weighted_sum

# The last two because `from micrograd.nn import *` gives them as well.
__all__ = ["Module", "Neuron", "Layer", "MLP", "Value", "random"]


class Module:
    """What has parameters.

    Examples
    --------
    >>> from flatgrad.nn import Module
    >>> Module().parameters()
    []
    """

    def zero_grad(self):
        """Set the gradient of every parameter to 0.

        A backward pass adds to gradients, so this comes before each one.
        """
        for p in self.parameters():
            p.grad = 0.0

    def parameters(self):
        """The parameters, in a new list.

        Returns
        -------
        list of Value
        """
        return []


class Neuron(Module):
    """b + w[0] * x[0] + w[1] * x[1] + ..., and the larger of that and 0 if it is not linear.

    Parameters
    ----------
    nin : int
        Number of inputs.
    nonlin : bool, optional
        Whether relu follows the sum.

    Attributes
    ----------
    w : list of Value, length `nin`
        Weights; at first drawn from the uniform distribution over [-1, 1], by `random.uniform`.
    b : Value
        Bias; at first 0.
    nonlin : bool

    Raises
    ------
    TypeError, ValueError
        If `nin` is not a non-negative integer.

    Examples
    --------
    >>> from flatgrad.nn import Neuron
    >>> n = Neuron(2)
    >>> n
    ReLUNeuron(2)
    >>> for weight, value in zip(n.w, [2.0, -1.0]):
    ...     weight.data = value
    >>> n([3.0, 1.0]).data
    5.0
    """

    def __init__(self, nin, nonlin=True):
        self.w = [Value(random.uniform(-1, 1)) for _ in range(size("nin", nin))]
        self.b = Value(0)
        self.nonlin = nonlin

    def __call__(self, x):
        """The output for one sample.

        Parameters
        ----------
        x : sequence of Value or real number, length `nin`

        Returns
        -------
        Value
            Computed by micrograd's scalar graph: a product and a sum for each weight, then relu.

        Raises
        ------
        ValueError
            If there are not as many inputs as weights.
        """
        act = weighted_sum(self.w, x, self.b)
        return act.relu() if self.nonlin else act

    def parameters(self):
        """The weights, then the bias."""
        return self.w + [self.b]

    def __repr__(self):
        return f"{'ReLU' if self.nonlin else 'Linear'}Neuron({len(self.w)})"


class Layer(Module):
    """Neurons that share their inputs.

    Parameters
    ----------
    nin : int
        Number of inputs.
    nout : int
        Number of neurons.
    **kwargs
        For each `Neuron`.

    Attributes
    ----------
    neurons : list of Neuron, length `nout`

    Raises
    ------
    TypeError, ValueError
        If `nin` or `nout` is not a non-negative integer.

    Examples
    --------
    >>> from flatgrad.nn import Layer
    >>> layer = Layer(2, 3)
    >>> layer
    Layer of [ReLUNeuron(2), ReLUNeuron(2), ReLUNeuron(2)]
    >>> len(layer([1.0, 2.0])), len(layer.parameters())
    (3, 9)
    """

    def __init__(self, nin, nout, **kwargs):
        self.neurons = [Neuron(nin, **kwargs) for _ in range(size("nout", nout))]

    def __call__(self, x):
        """The neurons' outputs for one sample, as `Neuron.__call__` takes it.

        Returns
        -------
        list of Value, length `nout`; or the Value itself if there is one neuron
        """
        if not isinstance(x, (list, tuple)):
            x = list(x)
        out = [n(x) for n in self.neurons]
        return out[0] if len(out) == 1 else out

    def parameters(self):
        """The parameters of each neuron in turn."""
        return [p for n in self.neurons for p in n.parameters()]

    def __repr__(self):
        return f"Layer of [{', '.join(str(n) for n in self.neurons)}]"


class MLP(Module):
    """A multi-layer perceptron: relu in every layer but the last, which is linear.

    Parameters
    ----------
    nin : int
        Number of inputs.
    nouts : sequence of int
        Number of neurons in each layer.

    Attributes
    ----------
    layers : list of Layer

    Raises
    ------
    TypeError, ValueError
        If a size is not a non-negative integer.

    Examples
    --------
    >>> from flatgrad.nn import MLP
    >>> model = MLP(2, [16, 16, 1])
    >>> len(model.parameters())
    337
    >>> type(model([1.0, 2.0]))
    <class 'flatgrad._core.Value'>
    """

    def __init__(self, nin, nouts):
        try:
            sz = [nin, *nouts]
        except TypeError:
            raise TypeError(f"nouts: expected a sequence of layer sizes, got {nouts!r}") from None
        self.layers = [Layer(sz[i], sz[i + 1], nonlin=i != len(sz) - 2) for i in range(len(sz) - 1)]

    def __call__(self, x):
        """The last layer's output for one sample, as `Layer.__call__` takes and returns it."""
        for layer in self.layers:
            x = layer(x)
        return x

    def parameters(self):
        """The parameters of each layer in turn."""
        return [p for layer in self.layers for p in layer.parameters()]

    def __repr__(self):
        return f"MLP of [{', '.join(str(layer) for layer in self.layers)}]"


def size(name, value):
    """The int that `value` is, or an error that names the argument."""
    try:
        result = range(value).stop
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {value!r}") from None
    if result < 0:
        raise ValueError(f"{name}: expected 0 or more, got {value!r}")
    return result
