"""flatgrad: gradients of scalar expressions, computed on flat C arrays; a drop-in replacement for micrograd.

    from flatgrad import Value
    from flatgrad.nn import MLP
"""
import builtins

from flatgrad import _core
from flatgrad._core import *  # noqa: F403  (Value, stats, collect and every function of ops.def)

# `from flatgrad import *` does not replace Python's own abs, sum, max and min.
__all__ = [name for name in _core.__all__ if not hasattr(builtins, name)]

SUBMODULES = ("arguments", "array_functions", "compat", "datasets", "engine", "errors", "estimators", "functional",
              "gradients", "groups", "loops", "losses", "nn", "optim", "program", "randomness", "read_only", "scalar",
              "selection", "storage", "structures", "train", "viz")
LATER = {"install_as_micrograd": "compat", "compile": "program",
         **dict.fromkeys(("grad", "value_and_grad", "jacobian", "gradcheck"), "functional"),
         **dict.fromkeys(("fori_loop", "scan", "vmap"), "loops"),
         **dict.fromkeys(("pick", "take"), "selection"), "Random": "randomness",
         "grouped": "groups"}


def __getattr__(name):
    """The submodules and the version, imported at their first use: each takes longer to import than the core."""
    if name in SUBMODULES:
        import sys

        __import__(f"flatgrad.{name}")   # importlib would have to be imported first
        return sys.modules[f"flatgrad.{name}"]
    if name in LATER:
        return getattr(__getattr__(LATER[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("flatgrad")
    raise __getattr__("arguments").no_attribute(__name__, name)


def __dir__():
    return sorted({*globals(), *SUBMODULES, *LATER, "__version__"} - {"LATER", "SUBMODULES", "builtins"})


def _repr_mimebundle_(self, include=None, exclude=None):
    """The picture of a small graph, for Jupyter."""
    return __getattr__("viz").value_mimebundle(self, include, exclude)


# Set here and not in the core, because the core knows nothing of the modules above it.
_core.Value._repr_mimebundle_ = _repr_mimebundle_
