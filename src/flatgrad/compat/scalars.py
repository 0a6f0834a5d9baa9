"""micrograd's graph, node for node, for a whole process: for programs that read `_op` and `_prev`."""
from flatgrad import _core
from flatgrad._core import Value

__all__ = ["scalar_graph_everywhere"]


def negative(self):
    return self * -1


def difference(self, other):
    return self + (-other)


def reflected_difference(self, other):
    return other + (-self)


def quotient(self, other):
    return self * other ** -1


def reflected_quotient(self, other):
    return other * self ** -1


OPERATORS = {"__neg__": negative, "__sub__": difference, "__rsub__": reflected_difference, "__truediv__": quotient,
             "__rtruediv__": reflected_quotient}


def scalar_graph_everywhere():
    """From now on, layers and functions build a node for each product and sum, and `-` and `/` build micrograd's
    nodes."""
    _core._scalar_graph_everywhere()
    for name, function in OPERATORS.items():
        setattr(Value, name, function)
