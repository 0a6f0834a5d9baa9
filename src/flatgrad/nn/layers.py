"""Neurons, layers, multi-layer perceptrons and sequences of modules: micrograd's classes, with the same random draws.

Each class keeps micrograd's constructor, attributes, order of parameters and reprs. Each class calls `random.uniform`
in micrograd's order, so one seed gives the same network in both packages.

A neuron that is called by itself builds micrograd's scalar graph. A layer is one instruction, for a sample or for a
whole batch. If its attribute `fused` is False, or within `flatgrad.scalar_graph()`, it builds the scalar graph too.
"""
from __future__ import annotations

import random
from reprlib import recursive_repr

from flatgrad import scalar
from flatgrad._core import (Tensor, Value, Weights, layer_forward, network_forward, own_calls, scalar_graph, softmax,
                            weighted_sum)
from flatgrad.arguments import flag, one_of, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError
from flatgrad.nn.initialization import source, weights
from flatgrad.nn.module import Module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Literal, overload

    from numpy.typing import NDArray

    from flatgrad._core import _Activation, _Init, _Inputs, _Operand, _Rng, _Row

__all__ = ["Neuron", "Layer", "MLP", "Sequential"]

# The values of `activation`, besides functions.
ACTIVATIONS: tuple[str, ...] = ("linear", *scalar.ACTIVATIONS, "softmax")


class Neuron(Weights, Module):
    """b + w[0] * x[0] + w[1] * x[1] + ..., and an activation of this sum.

    Parameters
    ----------
    nin : int
        Number of inputs.
    nonlin : bool, optional
        Whether relu is applied to the sum.
    activation : str, optional
        The function of the sum: 'linear', 'relu', 'leaky_relu', 'elu', 'gelu', 'gelu_tanh', 'silu', 'softplus',
        'tanh' or 'sigmoid'. None: relu or linear, according to `nonlin`.
    init : str, number, array_like of shape (1, nin), or callable, optional
        The initial weights; see `flatgrad.nn.initialization.weights`.
    bias : bool, optional
        Whether there is a bias. Without a bias, `b` is a constant 0 and not among the parameters.
    rng : None, int, random.Random or numpy.random.Generator, optional
        The source of random numbers for the weights, or a seed. None: Python's `random`, as in micrograd.

    Attributes
    ----------
    w : list of Value, length `nin`
        Weights; initially drawn from the uniform distribution over [-1, 1], by `random.uniform`.
    b : Value
        Bias; initially 0.
    nonlin : bool
        Whether the activation is not 'linear'.
    activation : str
    has_bias : bool

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

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

    b: Any
    has_bias: Any
    activation: _Activation | None
    nonlin: bool
    w: Any

    def __init__(self, nin: int, nonlin: bool = True, activation: _Activation | None = None, *, init: _Init = "uniform",
                 bias: bool = True, rng: _Rng = None) -> None:
        nin = size("nin", nin)
        if activation is not None:
            self.activation = activation
        else:
            self.nonlin = nonlin
        if bias is not True:
            self.has_bias = flag("bias", bias)
        if type(init) is str and init == "uniform" and rng is None:   # micrograd's case, the most frequent one
            self.w = [Value(random.uniform(-1, 1)) for _ in range(nin)]
        else:
            self.w = [Value(x) for row in weights(init, (1, nin), self.activation, rng) for x in row]
        self.b = Value(0)

    def __call__(self, x: _Row | Tensor) -> Value:
        """The output for one sample.

        Parameters
        ----------
        x : sequence of Value or real number, length `nin`

        Returns
        -------
        Value
            The result of micrograd's scalar graph: a product and a sum for each weight, then relu.

        Raises
        ------
        ValueError
            If the number of inputs is not the number of weights.
        """
        act = weighted_sum(self.w, x, self.b)
        return getattr(act, self.activation)() if self.nonlin else act

    def parameters(self) -> list[Value]:
        """The weights, then the bias."""
        return self.own_parameters()

    def named_values(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        yield prefix + "weight", self.w
        if self.has_bias:
            yield prefix + "bias", self.b
        yield from super().named_values(prefix)

    def description(self) -> Any:
        return repr(self)

    def __repr__(self) -> str:
        return f"{NAMES[self.activation]}Neuron({len(self.w)})"


# micrograd's names of neurons, and PyTorch's names of activations.
NAMES = {"linear": "Linear", "relu": "ReLU", "leaky_relu": "LeakyReLU", "elu": "ELU", "gelu": "GELU",
         "gelu_tanh": "GELUTanh", "silu": "SiLU", "softplus": "Softplus", "tanh": "Tanh", "sigmoid": "Sigmoid"}


class Layer(Module):
    """Neurons that share their inputs.

    Parameters
    ----------
    nin : int
        Number of inputs.
    nout : int
        Number of neurons.
    activation : str or callable, optional
        The function of the sums: a name as for `Neuron`, or 'softmax', over the neurons. A callable gets a Tensor for
        a batch, and the Value of each neuron for a sample. None: relu or linear, according to `nonlin`.
    init, bias, rng
        As for `Neuron`; all weights together are an array of the shape ``(nout, nin)``.
    fused : bool, optional
        Whether the layer is one instruction. If not, it builds micrograd's scalar graph.
    **kwargs
        Arguments of each `Neuron`: `nonlin`.

    Attributes
    ----------
    neurons : list of Neuron, length `nout`
    then : None, 'softmax' or callable
        The function of the neurons' outputs, unless the neurons apply it.
    fused : bool

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> from flatgrad.nn import Layer
    >>> layer = Layer(2, 3)
    >>> layer
    Layer of [ReLUNeuron(2), ReLUNeuron(2), ReLUNeuron(2)]
    >>> len(layer([1.0, 2.0])), len(layer.parameters())
    (3, 9)
    >>> probabilities = Layer(2, 3, activation="softmax", init="xavier_normal", rng=0)([1.0, 2.0])
    >>> round(sum(p.data for p in probabilities), 12)
    1.0
    """

    neurons: list[Neuron]

    then: Any = None

    def __init__(self, nin: int, nout: int,
                 activation: _Activation | Literal["softmax"] | Callable[..., Any] | None = None,
                 init: _Init = "uniform", bias: bool = True, *, rng: _Rng = None, fused: bool = True,
                 **kwargs: Any) -> None:
        nin, nout = size("nin", nin), size("nout", nout)
        if activation is not None:
            then, activation = split(activation)
            if then is not None:
                self.then = then
        if type(init) is str and init == "uniform" and rng is None:
            self.neurons = [Neuron(nin, activation=activation, bias=bias, **kwargs) for _ in range(nout)]
        else:
            gain = activation or ("relu" if kwargs.get("nonlin", True) else "linear")
            rows = weights(init, (nout, nin), self.then if self.then == "softmax" else gain, rng)
            self.neurons = [Neuron(nin, activation=activation, bias=bias, init=[row], **kwargs) for row in rows]
        if fused is not True and not flag("fused", fused):
            self.fused = False

    @property
    def activation(self) -> Any:
        """`then`, or the activation of the neurons if all have the same; otherwise None."""
        if self.then is not None:
            return self.then
        names = {getattr(n, "activation", None) for n in self.neurons}
        return names.pop() if len(names) == 1 else None

    @activation.setter
    def activation(self, activation: _Activation | Literal['softmax'] | Callable[..., Any] | None) -> None:
        self.then, activation = split(activation)
        if self.then is None:
            del self.then   # the class attribute then applies
        for n in self.neurons:
            n.activation = activation

    if TYPE_CHECKING:
        @overload
        def __call__(self, x: Tensor | Sequence[Sequence[_Operand] | NDArray[Any]]) -> Tensor: ...
        @overload
        def __call__(self, x: _Inputs) -> Any: ...

    def __call__(self, x: Any) -> Any:
        """The neurons' outputs, for one sample or for several samples.

        Parameters
        ----------
        x : sequence of Value or real number, length `nin`; or, for several samples, a list of such rows,
            an array of shape `(n_samples, nin)`, or a Tensor

        Returns
        -------
        list of Value, length `nout`; or a Value if there is one neuron
            For one sample.
        Tensor, shape `(n_samples, nout)`
            For several samples. For a Tensor of one dimension, a Tensor of shape `(nout,)`.

        Raises
        ------
        ValueError
            If the number of elements of a sample is not the number of weights of a neuron.
        """
        if self.fused:
            out = layer_forward(self.neurons, x)
            return out if self.then is None else after(self.then, out)
        with scalar_graph():
            out = layer_forward(self.neurons, x)
            return out if self.then is None else after(self.then, out)

    def parameters(self) -> list[Value]:
        """The parameters of all neurons, neuron by neuron."""
        return [p for n in self.neurons for p in n.parameters()]

    def named_values(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """The neurons' weights as one array of the shape `(nout, nin)`, and their biases as another array."""
        found = [dict(n.named_values()) for n in self.neurons]
        if found and all(list(values) == list(found[0]) and len(values["weight"]) == len(found[0]["weight"]) > 0
                         and set(values) <= {"weight", "bias"} for values in found):
            for name in found[0]:
                yield prefix + name, [values[name] for values in found]
        else:   # the program has changed them
            yield from super().named_values(prefix)

    def summary_rows(self, prefix: str = "") -> Iterator[tuple[str, str, int]]:
        yield prefix, self.description(), len(self.parameters())

    def description(self) -> Any:
        widths = sorted({len(n.w) for n in self.neurons if isinstance(n, Neuron)})
        activation = self.activation
        if callable(activation):
            activation = getattr(activation, "__name__", type(activation).__name__)
        return f"{type(self).__name__}({', '.join([*map(str, [*widths, len(self.neurons)]), activation or 'mixed'])})"

    @recursive_repr()
    def __repr__(self):
        return f"Layer of [{', '.join(str(n) for n in self.neurons)}]"


class MLP(Module):
    """A multi-layer perceptron. By default every layer has relu, except the last one, which is linear.

    Parameters
    ----------
    nin : int
        Number of inputs.
    nouts : sequence of int
        Number of neurons in each layer.
    activation, out_activation : str or callable, optional
        The activation of every layer except the last, and of the last layer; see `Layer`.
    init, bias, rng
        As for `Layer`. All layers draw from the same generator.
    fused : bool, optional
        Whether each layer is one instruction. If not, it builds micrograd's scalar graph.

    Attributes
    ----------
    layers : list of Layer
    fused : bool

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    See Also
    --------
    Sequential : with an activation and an initialisation for each layer.

    Examples
    --------
    >>> from flatgrad.nn import MLP
    >>> model = MLP(2, [16, 16, 1])
    >>> len(model.parameters())
    337
    >>> type(model([1.0, 2.0]))
    <class 'flatgrad.Value'>
    """

    layers: list[Layer]

    def __init__(self, nin: int, nouts: Sequence[int],
                 activation: _Activation | Literal['softmax'] | Callable[..., Any] | None = "relu",
                 out_activation: _Activation | Literal['softmax'] | Callable[..., Any] | None = "linear",
                 init: _Init = "uniform", bias: bool = True, *, rng: _Rng = None, fused: bool = True) -> None:
        try:
            sz = [nin, *nouts]
        except TypeError:
            advice = f"; write {type(self).__name__}({nin!r}, [{nouts!r}])" if type(nouts) is int else ""
            raise ArgumentTypeError(f"nouts: expected a sequence of layer sizes, got {nouts!r}{advice}") from None
        last = len(sz) - 2
        if out_activation is not None and not callable(out_activation):
            one_of("out_activation", out_activation, ACTIVATIONS)
        fused = flag("fused", fused)
        rng = rng if rng is None else source(rng)
        self.layers = [Layer(sz[i], sz[i + 1], activation if i < last else out_activation, init, bias, rng=rng,
                             fused=fused)
                       for i in range(len(sz) - 1)]
        if not fused:
            self.fused = False

    if TYPE_CHECKING:
        @overload
        def __call__(self, x: Tensor | Sequence[Sequence[_Operand] | NDArray[Any]]) -> Tensor: ...
        @overload
        def __call__(self, x: _Inputs) -> Any: ...

    def __call__(self, x: Any) -> Any:
        """The last layer's output. The forms of input and output are those of `Layer.__call__`."""
        return run(self.layers, x, self.fused)

    def parameters(self) -> list[Value]:
        """The parameters of all layers, layer by layer."""
        return [p for layer in self.layers for p in layer.parameters()]

    @recursive_repr()
    def __repr__(self):
        return f"MLP of [{', '.join(str(layer) for layer in self.layers)}]"


class Sequential(Module):
    """Modules in a sequence: each takes the output of the module before it.

    Parameters
    ----------
    *modules : Module or callable
        The modules, or one list of modules. A function, such as `flatgrad.tanh`, has no parameters.

    Attributes
    ----------
    layers : list
        The modules. The list may be changed.

    Raises
    ------
    TypeError
        If a module cannot be called.

    Examples
    --------
    Each layer with an activation and an initialisation of its own:

    >>> from flatgrad.nn import Layer, Sequential
    >>> model = Sequential(
    ...     Layer(2, 8, activation="tanh", init="xavier_uniform", rng=1),
    ...     Layer(8, 8, activation="gelu", init="he_normal", rng=2),
    ...     Layer(8, 1, activation="linear", init=0.1),
    ... )
    >>> len(model), len(model.parameters())
    (3, 105)
    >>> print(model.summary())
    name      module               parameters
    layers.0  Layer(2, 8, tanh)            24
    layers.1  Layer(8, 8, gelu)            72
    layers.2  Layer(8, 1, linear)           9
    total                                 105
    """

    layers: list[Any]

    def __init__(self, *modules: Callable[..., Any] | Sequence[Callable[..., Any]]) -> None:
        if len(modules) == 1 and isinstance(modules[0], (list, tuple)):
            modules = modules[0]
        for k, module in enumerate(modules):
            if not callable(module):
                raise ArgumentTypeError(f"modules[{k}]: expected a Module or a function, got {module!r}")
        self.layers = list(modules)

    def __call__(self, x: Any) -> Any:
        """The output of the last module."""
        return run(self.layers, x, self.fused)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, k: int | slice) -> Any:
        """The module at `k`; for a slice, a Sequential of the selected modules."""
        return Sequential(self.layers[k]) if isinstance(k, slice) else self.layers[k]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    @recursive_repr()
    def __repr__(self):
        return f"Sequential({', '.join(map(repr, self.layers))})"


own_calls(Neuron.__call__, Layer.__call__)


def run(layers: list[Any], x: Tensor | list[Any] | NDArray[Any], fused: bool) -> Tensor | Value | list[Value]:
    """The output of the last layer; all layers run in one call if they are plain."""
    if not fused:
        with scalar_graph():
            return run(layers, x, True)
    out = network_forward(layers, x)
    if out is not NotImplemented:
        return out
    for layer in layers:
        x = layer(x)
    return x


def split(activation: _Activation | Literal["softmax"] | Callable[..., Any] | None) -> tuple[Any, Any]:
    """The activation of a layer as a pair: the function after its neurons, and the activation of each neuron."""
    if isinstance(activation, type):
        raise ArgumentTypeError("activation: expected a name or a function, such as 'relu' or ReLU(), got the class "
                                f"{activation.__name__}")
    if not callable(activation):
        one_of("activation", activation, ACTIVATIONS)
    whole = callable(activation) or activation == "softmax"
    return (activation, "linear") if whole else (None, activation)


def after(then: str | Callable[..., Any], out: list[Value] | Tensor | Value) -> list[Value] | Tensor | Value:
    """The output of a layer whose neurons give `out`: a Tensor, a list of Values, or one Value."""
    if isinstance(out, Tensor) or then == "softmax" and isinstance(out, list):
        return softmax(out) if then == "softmax" else then(out)
    if isinstance(out, list):
        return [then(z) for z in out]
    return softmax([out])[0] if then == "softmax" else then(out)


def size(name: str, value: int) -> int:
    """`value` as an int, or an error that names the argument."""
    try:
        result = range(value).stop
    except TypeError:
        raise ArgumentTypeError(f"{name}: expected an int, got {value!r}") from None
    if result < 0:
        raise ArgumentError(f"{name}: expected 0 or more, got {value!r}")
    if result >= 2**32:   # there are fewer ids
        raise ArgumentError(f"{name}: expected less than 2**32, got {shortened(value)}")
    return result
