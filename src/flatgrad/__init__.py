"""flatgrad: scalar automatic differentiation on flat C arrays, a drop-in micrograd.

    from flatgrad import Value
    from flatgrad.nn import MLP
"""
import builtins
from importlib.metadata import version as _version

from flatgrad import _core
from flatgrad._core import *  # noqa: F403  (Value, stats, collect and every function of ops.def)

__version__ = _version("flatgrad")

# `from flatgrad import *` leaves Python's own abs, and the like, alone.
__all__ = [name for name in _core.__all__ if not hasattr(builtins, name)]
