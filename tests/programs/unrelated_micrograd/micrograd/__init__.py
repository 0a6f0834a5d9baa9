"""Gradients of temperature at small scale; nothing to do with automatic differentiation."""
from .mesh import gradient

__all__ = ['gradient']
