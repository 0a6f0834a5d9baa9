"""flatgrad: gradients of scalar expressions, computed on flat C arrays; a drop-in replacement for micrograd.

    from flatgrad import Value
    from flatgrad.nn import MLP
"""
import builtins
import sys

try:
    from flatgrad import _core
except ImportError as _error:
    if "interpreter" not in str(_error):
        raise
    # A class of its own would have to be imported first.
    raise ImportError("flatgrad: cannot be imported in a subinterpreter: the graphs of a process lie on one tape, which "
                      "belongs to its main interpreter; use threads or processes instead") from _error
if not getattr(sys, "_is_gil_enabled", lambda: True)():   # the core has asked for it, and somebody forbids it
    raise ImportError("flatgrad: cannot be imported while PYTHON_GIL=0 or -X gil=0 keeps the GIL off: threads would share "
                      "one tape without a lock; leave it out, and Python turns the GIL on to import flatgrad")
from flatgrad._core import *  # noqa: F403  (Value, stats, collect and every function of ops.def)

# What type checkers read: they know nothing of names that are loaded later, and do not compute `__all__`.
# tests/test_typing.py compares. The module `typing` would take longer to import than the core.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from flatgrad import (anomaly as anomaly, arguments as arguments, array_functions as array_functions,
                          autograd as autograd, checking as checking, compat as compat, datasets as datasets,
                          engine as engine, errors as errors, estimators as estimators, evaluations as evaluations,
                          export as export, functional as functional, groups as groups, loops as loops,
                          losses as losses, lost as lost, markup as markup, nn as nn, optim as optim, program as program,
                          randomness as randomness, read_only as read_only, rules as rules, scalar as scalar,
                          selection as selection, signatures as signatures, storage as storage,
                          structures as structures, train as train, transforms as transforms, tree as tree, viz as viz,
                          weighting as weighting)
    from flatgrad._core import (abs as abs, max as max, min as min, sum as sum)
    from flatgrad.anomaly import (detect_anomaly as detect_anomaly, is_anomaly_enabled as is_anomaly_enabled,
                                  set_detect_anomaly as set_detect_anomaly)
    from flatgrad.autograd import gradients as gradients
    from flatgrad.checking import (gradcheck as gradcheck, gradgradcheck as gradgradcheck)
    from flatgrad.compat import (install_as_micrograd as install_as_micrograd,
                                 load_ipython_extension as load_ipython_extension)
    from flatgrad.functional import (grad as grad, hessian as hessian, hvp as hvp, jacfwd as jacfwd,
                                     jacobian as jacobian, jacrev as jacrev, jvp as jvp,
                                     stop_gradient as stop_gradient, value_and_grad as value_and_grad, vjp as vjp)
    from flatgrad.groups import grouped as grouped
    from flatgrad.loops import (fori_loop as fori_loop, scan as scan, vmap as vmap)
    from flatgrad.program import compile as compile
    from flatgrad.randomness import Random as Random
    from flatgrad.rules import custom_derivative as custom_derivative
    from flatgrad.selection import (pick as pick, take as take)
    from flatgrad.tree import ravel_pytree as ravel_pytree

    __version__: str
    __all__ = ["Tensor", "Value", "argmax", "argmin", "cat", "collect", "dot", "linear", "log_softmax", "logsumexp",
               "matvec", "mean", "no_grad", "scalar_graph", "softmax", "square", "stack", "stats", "exp", "log",
               "log1p", "expm1", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "erf", "floor", "relu", "leaky_relu",
               "elu", "gelu", "gelu_tanh", "silu", "softplus", "tanh", "sigmoid", "maximum", "minimum", "atan2",
               "where", "clip"]
else:
    # `from flatgrad import *` does not replace Python's own abs, sum, max and min.
    __all__ = [name for name in _core.__all__ if not hasattr(builtins, name)]

SUBMODULES = ("anomaly", "arguments", "array_functions", "autograd", "checking", "compat", "datasets", "engine", "errors",
              "estimators", "evaluations", "export", "functional", "groups", "loops", "losses", "lost", "markup", "nn", "optim",
              "program", "randomness", "read_only", "rules", "scalar", "selection", "signatures", "storage",
              "structures", "train", "transforms", "tree", "viz", "weighting")
LATER = {"install_as_micrograd": "compat", "load_ipython_extension": "compat", "compile": "program", "gradients": "autograd",
         "custom_derivative": "rules",
         **dict.fromkeys(("grad", "value_and_grad", "jacobian", "jacrev", "jacfwd", "hessian", "hvp", "jvp", "vjp",
                          "stop_gradient"), "functional"),
         **dict.fromkeys(("gradcheck", "gradgradcheck"), "checking"),
         **dict.fromkeys(("fori_loop", "scan", "vmap"), "loops"),
         **dict.fromkeys(("pick", "take"), "selection"), "Random": "randomness",
         "grouped": "groups", "ravel_pytree": "tree",
         **dict.fromkeys(("detect_anomaly", "is_anomaly_enabled", "set_detect_anomaly"), "anomaly")}


if not TYPE_CHECKING:
    def __getattr__(name):
        """The submodules and the version, imported at their first use: each takes longer to import than the core."""
        if name in SUBMODULES:
            __import__(f"flatgrad.{name}")   # importlib would have to be imported first
            return sys.modules[f"flatgrad.{name}"]
        if name in LATER:
            return getattr(__getattr__(LATER[name]), name)
        if name == "__version__":
            from importlib.metadata import version

            return version("flatgrad")
        raise __getattr__("arguments").no_attribute(__name__, name)


def __dir__() -> list[str]:
    hidden = {"LATER", "SUBMODULES", "TYPE_CHECKING", "builtins", "sys"}
    return sorted({*globals(), *SUBMODULES, *LATER, "__version__"} - hidden)


def _repr_mimebundle_(self, include=None, exclude=None):
    """The picture of a small graph, for Jupyter."""
    return __getattr__("viz").value_mimebundle(self, include, exclude)


def _repr_html_(self):
    """The shape and the numbers of a Tensor, for Jupyter."""
    return __getattr__("markup").tensor_html(self)


# Set here and not in the core, because the core knows nothing of the modules above it.
_core.Value._repr_mimebundle_ = _repr_mimebundle_
_core.Tensor._repr_html_ = _repr_html_
