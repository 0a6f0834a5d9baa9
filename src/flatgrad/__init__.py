"""flatgrad: gradients of scalar expressions, computed on flat C arrays; a drop-in replacement for micrograd.

    from flatgrad import Value
    from flatgrad.nn import MLP
"""
import builtins

try:
    from flatgrad import _core
except ImportError as error:
    if "interpreter" not in str(error):
        raise
    # A class of its own would have to be imported first.
    raise ImportError("flatgrad: cannot be imported in a subinterpreter: the graphs of a process lie on one tape, which "
                      "belongs to its main interpreter; use threads or processes instead") from error
from flatgrad._core import *  # noqa: F403  (Value, stats, collect and every function of ops.def)

# `from flatgrad import *` does not replace Python's own abs, sum, max and min.
__all__ = [name for name in _core.__all__ if not hasattr(builtins, name)]

SUBMODULES = ("anomaly", "arguments", "array_functions", "autograd", "checking", "compat", "datasets", "engine", "errors",
              "estimators", "evaluations", "export", "functional", "groups", "loops", "losses", "lost", "nn", "optim",
              "program", "randomness", "read_only", "rules", "scalar", "selection", "signatures", "storage",
              "structures", "train", "transforms", "viz")
LATER = {"install_as_micrograd": "compat", "compile": "program", "gradients": "autograd",
         "custom_derivative": "rules",
         **dict.fromkeys(("grad", "value_and_grad", "jacobian", "jacrev", "jacfwd", "hessian", "hvp", "jvp", "vjp",
                          "stop_gradient"), "functional"),
         **dict.fromkeys(("gradcheck", "gradgradcheck"), "checking"),
         **dict.fromkeys(("fori_loop", "scan", "vmap"), "loops"),
         **dict.fromkeys(("pick", "take"), "selection"), "Random": "randomness",
         "grouped": "groups",
         **dict.fromkeys(("detect_anomaly", "is_anomaly_enabled", "set_detect_anomaly"), "anomaly")}


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
