"""Modules: micrograd's neurons, layers and perceptrons, drawing the same numbers."""
import random

from flatgrad._core import Value
from flatgrad.nn.layers import MLP, Layer, Neuron, Sequential
from flatgrad.nn.module import Module

# The last two because `from micrograd.nn import *` gives them as well.
__all__ = ["Module", "Neuron", "Layer", "MLP", "Sequential", "Value", "random"]
