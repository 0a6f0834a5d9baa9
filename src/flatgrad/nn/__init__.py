"""Modules: micrograd's neurons, layers and perceptrons, drawing the same numbers, and PyTorch's layers.

What micrograd has does without NumPy; the rest is loaded when it is first asked for.
"""
import random

from flatgrad._core import Value
from flatgrad.arguments import no_attribute
from flatgrad.nn.layers import MLP, Layer, Neuron, Sequential
from flatgrad.nn.module import Module

# The last two because `from micrograd.nn import *` gives them as well. The names below are left out:
# a program written for micrograd may have classes of these names, and no use for NumPy.
__all__ = ["Module", "Neuron", "Layer", "MLP", "Sequential", "Value", "random"]

LOADED_LATER = {
    name: module for module, names in {
        "activations": "ReLU LeakyReLU ELU GELU SiLU Softplus Tanh Sigmoid Softmax LogSoftmax Flatten",
        "convolution": "Conv1d Conv2d MaxPool1d MaxPool2d AvgPool1d AvgPool2d",
        "dropout": "Dropout",
        "embedding": "Embedding",
        "normalization": "BatchNorm LayerNorm",
        "recurrent": "RNNCell LSTMCell GRUCell",
    }.items() for name in names.split()}
SUBMODULES = {"initialization", "inputs", *LOADED_LATER.values()}


def __getattr__(name):
    from importlib import import_module

    if name in LOADED_LATER:
        found = globals()[name] = getattr(import_module(f"flatgrad.nn.{LOADED_LATER[name]}"), name)
        return found
    if name in SUBMODULES:
        return import_module(f"flatgrad.nn.{name}")
    raise no_attribute(__name__, name)


def __dir__():
    return sorted({*globals(), *LOADED_LATER, *SUBMODULES})
