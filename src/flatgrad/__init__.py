"""flatgrad: scalar automatic differentiation on flat C arrays, a drop-in micrograd.

    from flatgrad import Value
    from flatgrad.nn import MLP
"""
import builtins

from flatgrad import _core
from flatgrad._core import *  # noqa: F403  (Value, stats, collect and every function of ops.def)

# `from flatgrad import *` leaves Python's own abs, and the like, alone.
__all__ = [name for name in _core.__all__ if not hasattr(builtins, name)]

SUBMODULES = ("arguments", "array_functions", "compat", "datasets", "engine", "errors", "estimators", "functional", "losses",
              "loops", "nn", "optim", "program", "read_only", "scalar", "storage", "structures", "train", "viz")
LATER = {"install_as_micrograd": "compat",
         **dict.fromkeys(("grad", "value_and_grad", "jacobian", "gradcheck"), "functional"),
         "compile": "program", **dict.fromkeys(("fori_loop", "scan", "vmap"), "loops")}


def __getattr__(name):
    """The submodules and the version, loaded when first asked for: each takes longer than the core."""
    if name in SUBMODULES:
        import sys

        __import__(f"flatgrad.{name}")   # importlib would take its time as well
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
    """What Jupyter shows: the picture of a small graph."""
    return __getattr__("viz").value_mimebundle(self, include, exclude)


# Here and not in the core, which knows nothing of what is built on it.
_core.Value._repr_mimebundle_ = _repr_mimebundle_
