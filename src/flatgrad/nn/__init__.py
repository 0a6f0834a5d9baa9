"""Modules: micrograd's neurons, layers and perceptrons with the same random draws, and PyTorch's layers.

micrograd's classes work without NumPy. The other modules are imported at their first use.
"""
from __future__ import annotations

import random

from flatgrad._core import Value
from flatgrad.arguments import no_attribute
from flatgrad.nn.layers import MLP, Layer, Neuron, Sequential
from flatgrad.nn.module import Module

TYPE_CHECKING = False   # as in flatgrad/__init__.py
if TYPE_CHECKING:
    from flatgrad.nn import (activations as activations, containers as containers, convolution as convolution,
                             criteria as criteria, dropout as dropout, embedding as embedding,
                             functional as functional, initialization as initialization, inputs as inputs,
                             linear as linear, normalization as normalization, recurrent as recurrent, utils as utils)
    from flatgrad.nn.activations import (ELU as ELU, GELU as GELU, Flatten as Flatten, LeakyReLU as LeakyReLU,
                                         LogSoftmax as LogSoftmax, ReLU as ReLU, Sigmoid as Sigmoid, SiLU as SiLU,
                                         Softmax as Softmax, Softplus as Softplus, Tanh as Tanh)
    from flatgrad.nn.containers import (ModuleDict as ModuleDict, ModuleList as ModuleList, Parameter as Parameter,
                                        ParameterDict as ParameterDict, ParameterList as ParameterList)
    from flatgrad.nn.convolution import (AvgPool1d as AvgPool1d, AvgPool2d as AvgPool2d, Conv1d as Conv1d,
                                         Conv2d as Conv2d, MaxPool1d as MaxPool1d, MaxPool2d as MaxPool2d)
    from flatgrad.nn.criteria import (BCELoss as BCELoss, BCEWithLogitsLoss as BCEWithLogitsLoss,
                                      CrossEntropyLoss as CrossEntropyLoss, HuberLoss as HuberLoss,
                                      KLDivLoss as KLDivLoss, L1Loss as L1Loss, MSELoss as MSELoss,
                                      NLLLoss as NLLLoss)
    from flatgrad.nn.dropout import Dropout as Dropout
    from flatgrad.nn.embedding import Embedding as Embedding
    from flatgrad.nn.linear import Identity as Identity, Linear as Linear
    from flatgrad.nn.normalization import BatchNorm as BatchNorm, LayerNorm as LayerNorm
    from flatgrad.nn.recurrent import GRUCell as GRUCell, LSTMCell as LSTMCell, RNNCell as RNNCell
    from typing import Any

# The last two names are here because `from micrograd.nn import *` also gives them. The names below are left out:
# a program written for micrograd may have classes of these names, and does not need NumPy.
__all__ = ["Module", "Neuron", "Layer", "MLP", "Sequential", "Value", "random"]

LOADED_LATER: dict[str, str]
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
ALSO_LATER: dict[str, str]
ALSO_LATER = {
    name: module for module, names in {
        "containers": "Parameter ModuleList ModuleDict ParameterList ParameterDict",
        "criteria": "MSELoss L1Loss HuberLoss BCELoss BCEWithLogitsLoss CrossEntropyLoss NLLLoss KLDivLoss",
        "linear": "Identity",
    }.items() for name in names.split()}
SUBMODULES: set[str] = {"functional", "initialization", "inputs", "utils", *LOADED_LATER.values(),
                        *ALSO_LATER.values()}


if not TYPE_CHECKING:
    def __getattr__(name: str) -> type[Any]:
        from importlib import import_module

        module = LOADED_LATER.get(name) or ALSO_LATER.get(name)
        if module is not None:
            found = globals()[name] = getattr(import_module(f"flatgrad.nn.{module}"), name)
            return found
        if name in SUBMODULES:
            return import_module(f"flatgrad.nn.{name}")
        raise no_attribute(__name__, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *LOADED_LATER, *ALSO_LATER, *SUBMODULES} - {"TYPE_CHECKING"})
