"""Neurons, layers and multi-layer perceptrons: micrograd's classes, drawing the same numbers.

Each keeps micrograd's constructor, attributes, order of parameters and reprs, and calls
`random.uniform` in the same order, so that one seed gives one network in both packages.

A neuron called alone builds micrograd's scalar graph. A layer is one instruction, for a sample or for a
whole batch, unless its attribute `fused` is False or `flatgrad.scalar_graph()` is around the call.
"""
import random

from flatgrad._core import (Value, Weights, layer_forward, network_forward, own_calls, scalar_graph,
                            weighted_sum)
from flatgrad.nn.module import Module

__all__ = ["Neuron", "Layer", "MLP"]


class Neuron(Weights, Module):
    """b + w[0] * x[0] + w[1] * x[1] + ..., and the larger of that and 0 if it is not linear.

    Parameters
    ----------
    nin : int
        Number of inputs.
    nonlin : bool, optional
        Whether relu follows the sum.
    activation : {None, 'linear', 'relu', 'tanh', 'sigmoid'}, optional
        What follows the sum. None: what `nonlin` says.

    Attributes
    ----------
    w : list of Value, length `nin`
        Weights; at first drawn from the uniform distribution over [-1, 1], by `random.uniform`.
    b : Value
        Bias; at first 0.
    nonlin : bool
        Whether the activation is another than 'linear'.
    activation : str

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

    def __init__(self, nin, nonlin=True, activation=None):
        self.w = [Value(random.uniform(-1, 1)) for _ in range(size("nin", nin))]
        self.b = Value(0)
        self.nonlin = nonlin
        if activation is not None:
            self.activation = activation

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
        return getattr(act, self.activation)() if self.nonlin else act

    def parameters(self):
        """The weights, then the bias."""
        return self.own_parameters()

    def named_values(self, prefix=""):
        yield prefix + "weight", self.w
        yield prefix + "bias", self.b
        yield from super().named_values(prefix)

    def __repr__(self):
        name = {"linear": "Linear", "relu": "ReLU"}.get(self.activation, self.activation.capitalize())
        return f"{name}Neuron({len(self.w)})"


class Layer(Module):
    """Neurons that share their inputs.

    Parameters
    ----------
    nin : int
        Number of inputs.
    nout : int
        Number of neurons.
    fused : bool, optional
        Whether the layer is one instruction, and not micrograd's scalar graph.
    **kwargs
        For each `Neuron`.

    Attributes
    ----------
    neurons : list of Neuron, length `nout`
    fused : bool

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

    def __init__(self, nin, nout, *, fused=True, **kwargs):
        self.neurons = [Neuron(nin, **kwargs) for _ in range(size("nout", nout))]
        if not fused:
            self.fused = False

    def __call__(self, x):
        """The neurons' outputs, for one sample or for several.

        Parameters
        ----------
        x : sequence of Value or real number, length `nin`; or, for several samples, a list of such rows,
            an array of shape `(n_samples, nin)`, or a Tensor

        Returns
        -------
        list of Value, length `nout`; or the Value itself if there is one neuron
            For one sample.
        Tensor, shape `(n_samples, nout)`
            For several samples. Of a Tensor of one dimension, a Tensor of shape `(nout,)`.

        Raises
        ------
        ValueError
            If a sample has not as many numbers as there are weights.
        """
        if self.fused:
            return layer_forward(self.neurons, x)
        with scalar_graph():
            return layer_forward(self.neurons, x)

    def parameters(self):
        """The parameters of each neuron in turn."""
        return [p for n in self.neurons for p in n.parameters()]

    def named_values(self, prefix=""):
        """The neurons' weights as one array of the shape `(nout, nin)`, and their biases as another."""
        found = [dict(n.named_values()) for n in self.neurons]
        if all(list(values) == ["weight", "bias"] and len(values["weight"]) == len(found[0]["weight"])
               for values in found):
            yield prefix + "weight", [values["weight"] for values in found]
            yield prefix + "bias", [values["bias"] for values in found]
        else:   # somebody has changed them
            yield from super().named_values(prefix)

    def summary_rows(self, prefix=""):
        yield prefix, self.description(), len(self.parameters())

    def description(self):
        widths = {len(n.w) for n in self.neurons if isinstance(n, Neuron)}
        names = {n.activation for n in self.neurons if isinstance(n, Neuron)}
        return (f"{type(self).__name__}({', '.join(map(str, sorted(widths)))}, {len(self.neurons)}, "
                f"{', '.join(sorted(names))})")

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
    activation, out_activation : {'linear', 'relu', 'tanh', 'sigmoid'}, optional
        Of every layer but the last, and of the last.
    fused : bool, optional
        Whether each layer is one instruction, and not micrograd's scalar graph.

    Attributes
    ----------
    layers : list of Layer
    fused : bool

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

    def __init__(self, nin, nouts, activation="relu", out_activation="linear", *, fused=True):
        try:
            sz = [nin, *nouts]
        except TypeError:
            raise TypeError(f"nouts: expected a sequence of layer sizes, got {nouts!r}") from None
        last = len(sz) - 2
        self.layers = [Layer(sz[i], sz[i + 1], fused=fused, activation=activation if i < last else out_activation)
                       for i in range(len(sz) - 1)]
        if not fused:
            self.fused = False

    def __call__(self, x):
        """The last layer's output, as `Layer.__call__` takes and returns it."""
        if self.fused:
            out = network_forward(self.layers, x)
            if out is not NotImplemented:
                return out
            for layer in self.layers:
                x = layer(x)
            return x
        with scalar_graph():
            for layer in self.layers:
                x = layer(x)
            return x

    def parameters(self):
        """The parameters of each layer in turn."""
        return [p for layer in self.layers for p in layer.parameters()]

    def __repr__(self):
        return f"MLP of [{', '.join(str(layer) for layer in self.layers)}]"


own_calls(Neuron.__call__, Layer.__call__)


def size(name, value):
    """The int that `value` is, or an error that names the argument."""
    try:
        result = range(value).stop
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {value!r}") from None
    if result < 0:
        raise ValueError(f"{name}: expected 0 or more, got {value!r}")
    return result
