"""Optimizers, how parameters follow their gradients: PyTorch's names, arguments, defaults and numbers."""
from flatgrad.optim.optimizers import SGD, Adam, Optimizer

__all__ = ["Optimizer", "SGD", "Adam"]
