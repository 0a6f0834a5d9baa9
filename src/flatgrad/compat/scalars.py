"""micrograd's graph, node for node, for a whole process: for programs that read `_op` and `_prev`."""
from __future__ import annotations

from flatgrad import _core
from flatgrad._core import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["scalar_graph_everywhere"]


def negative(self: Any) -> Any:
    return self * -1


def difference(self: Any, other: Any) -> Any:
    return self + (-other)


def reflected_difference(self: Any, other: Any) -> Any:
    return other + (-self)


def quotient(self: Any, other: Any) -> Any:
    return self * other ** -1


def reflected_quotient(self: Any, other: Any) -> Any:
    return other * self ** -1


OPERATORS: dict[str, Callable[..., Any]]
OPERATORS = {"__neg__": negative, "__sub__": difference, "__rsub__": reflected_difference, "__truediv__": quotient,
             "__rtruediv__": reflected_quotient}


def scalar_graph_everywhere() -> None:
    """From now on, layers and functions build a node for each product and sum, and `-` and `/` build micrograd's
    nodes."""
    _core._scalar_graph_everywhere()
    for name, function in OPERATORS.items():
        setattr(Value, name, function)
