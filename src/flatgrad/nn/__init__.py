"""Modules: micrograd's neurons, layers and perceptrons with the same random draws, and PyTorch's layers.

micrograd's classes work without NumPy. The other modules are imported at their first use.
"""
import random

from flatgrad._core import Value
from flatgrad.arguments import no_attribute
from flatgrad.nn.layers import MLP, Layer, Neuron, Sequential
from flatgrad.nn.module import Module

# The last two names are here because `from micrograd.nn import *` also gives them. The names below are left out:
# a program written for micrograd may have classes of these names, and does not need NumPy.
__all__ = ["Module", "Neuron", "Layer", "MLP", "Sequential", "Value", "random"]

LOADED_LATER = {
    name: module for module, names in {
        "activations": "ReLU LeakyReLU ELU GELU SiLU Softplus Tanh Sigmoid Softmax LogSoftmax Flatten",
        "convolution": "Conv1d Conv2d MaxPool1d MaxPool2d AvgPool1d AvgPool2d",
        "dropout": "Dropout",
        "embedding": "Embedding",
        "linear": "Linear",
        "normalization": "BatchNorm LayerNorm",
        "recurrent": "RNNCell LSTMCell GRUCell",
    }.items() for name in names.split()}
# The same of what is no layer.
ALSO_LATER = {
    name: module for module, names in {
        "containers": "Parameter ModuleList ModuleDict ParameterList ParameterDict",
        "criteria": "MSELoss L1Loss HuberLoss BCELoss BCEWithLogitsLoss CrossEntropyLoss NLLLoss KLDivLoss",
        "linear": "Identity",
    }.items() for name in names.split()}
SUBMODULES = {"functional", "initialization", "inputs", "utils", *LOADED_LATER.values(),
              *ALSO_LATER.values()}


def __getattr__(name):
    from importlib import import_module

    module = LOADED_LATER.get(name) or ALSO_LATER.get(name)
    if module is not None:
        found = globals()[name] = getattr(import_module(f"flatgrad.nn.{module}"), name)
        return found
    if name in SUBMODULES:
        return import_module(f"flatgrad.nn.{name}")
    raise no_attribute(__name__, name)


def __dir__():
    return sorted({*globals(), *LOADED_LATER, *ALSO_LATER, *SUBMODULES})
