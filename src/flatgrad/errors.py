"""The errors of flatgrad. Each class is also a subclass of one of Python's own errors, so code that catches
ValueError, TypeError, ImportError or RuntimeError also catches flatgrad's errors.

Arithmetic raises only Python's own errors, as floats do: ZeroDivisionError, OverflowError, and ValueError outside a
function's domain. An operation on a Value or Tensor with an operand that is no number raises Python's TypeError, and
an index out of range raises Python's IndexError.

Examples
--------
>>> from flatgrad import errors
>>> issubclass(errors.ShapeError, ValueError)
True
"""
from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["FlatgradError", "ArgumentError", "ArgumentTypeError", "ShapeError", "UnknownNameError", "DataError",
           "StateError", "DivergedError", "GradcheckError", "GradientError", "AnomalyError",
           "RecordingError", "MissingPackageError"]


class FlatgradError(Exception):
    """The base class of flatgrad's errors."""


class ArgumentTypeError(FlatgradError, TypeError):
    """An argument has a wrong type."""


class ArgumentError(FlatgradError, ValueError):
    """An argument has a wrong value."""


class ShapeError(ArgumentError):
    """Shapes, lengths or numbers of dimensions do not fit each other."""


class UnknownNameError(ArgumentError):
    """No object has this name; the message gives the nearest name."""


class DataError(ArgumentError):
    """Samples or labels are unfit for training: nan, inf, no samples at all, a label out of range."""


class StateError(FlatgradError, ValueError):
    """A state dict, a checkpoint or a file does not belong to this model or optimizer."""


class DivergedError(FlatgradError, FloatingPointError):
    """A loss has become nan or inf during training.

    Attributes
    ----------
    epoch : int
        The epoch in which the loss became nan or inf.
    history : flatgrad.train.History
        The history of the epochs before this epoch.
    """

    epoch = None
    history = None


class GradcheckError(FlatgradError, RuntimeError):
    """A gradient differs from finite differences."""


class GradientError(FlatgradError, RuntimeError):
    """Gradients are nan or inf where they have to be finite."""


class AnomalyError(FlatgradError, RuntimeError):
    """Within `flatgrad.detect_anomaly`: an operation, or a backward pass, has made the first nan or inf.

    Attributes
    ----------
    phase : {'forward', 'backward', 'step'}
        The number itself, its gradient, or what an optimizer's step made of a parameter.
    operation : str
        The operation that made it, as ``_op`` shows it; '' for a leaf, 'step' for an optimizer.
    operands : tuple of float
        The operands of the operation, in order.
    element : tuple of int or None
        Row and column of the element in an instruction of many results.
    result : float
        The nan or inf.
    gradient : float or None
        Backward: the gradient of the operation's result, by which its rule was run.
    operand : int or None
        Backward: which of the operands got the gradient.
    node : Value or None
        Backward: that operand. After a step: the parameter.
    rule : callable or None
        The user's own rule, if that made the gradient.
    filename, lineno, function, line : str, int, str, str, or None
        Where the operation was computed, and the text of the line; None if it is not known.
    """

    phase = operation = element = result = gradient = operand = node = rule = None
    filename = lineno = function = line = None
    operands: tuple[Any, ...] = ()


class RecordingError(FlatgradError, RuntimeError):
    """A recorded program does not do what its function does."""


class MissingPackageError(FlatgradError, ImportError):
    """An optional package is not installed; the message says how to install it."""
