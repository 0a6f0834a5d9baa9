"""The errors that flatgrad raises. Each is one of Python's own as well, so that code which catches
ValueError, TypeError, ImportError or RuntimeError goes on working.

Arithmetic raises Python's own errors alone, as floats do: ZeroDivisionError, OverflowError, and
ValueError outside a function's domain. So do Values and Tensors that are given something else than numbers
(TypeError) or an index that is not there (IndexError).

Examples
--------
>>> from flatgrad import errors
>>> issubclass(errors.ShapeError, ValueError)
True
"""

__all__ = ["FlatgradError", "ArgumentError", "ArgumentTypeError", "ShapeError", "UnknownNameError", "DataError",
           "StateError", "DivergedError", "GradcheckError", "GradientError", "RecordingError",
           "MissingPackageError"]


class FlatgradError(Exception):
    """What all of these are."""


class ArgumentTypeError(FlatgradError, TypeError):
    """An argument is of a type that is not taken."""


class ArgumentError(FlatgradError, ValueError):
    """An argument has a value that is not taken."""


class ShapeError(ArgumentError):
    """Shapes, lengths or numbers of dimensions do not fit each other."""


class UnknownNameError(ArgumentError):
    """There is nothing of that name; the message has the nearest one that there is."""


class DataError(ArgumentError):
    """Samples or labels that nothing can be learnt from: nan, inf, none at all, a label out of range."""


class StateError(FlatgradError, ValueError):
    """A state dict, a checkpoint or a file is not one of this model or optimizer."""


class DivergedError(FlatgradError, FloatingPointError):
    """A loss has become nan or inf while training.

    Attributes
    ----------
    epoch : int
        Which epoch it was.
    history : flatgrad.train.History
        Of the epochs before it.
    """

    epoch = None
    history = None


class GradcheckError(FlatgradError, RuntimeError):
    """A gradient is not what finite differences say."""


class GradientError(FlatgradError, RuntimeError):
    """Gradients are nan or inf where they must not be."""


class RecordingError(FlatgradError, RuntimeError):
    """A recorded program does not do what its function does."""


class MissingPackageError(FlatgradError, ImportError):
    """An optional package is not installed; the message says how to install it."""
