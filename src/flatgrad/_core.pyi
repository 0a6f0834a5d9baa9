# Types of the compiled core. Between each pair of markers stands what follows from csrc/ops.def:
# setup.py rewrites it at build time.
from collections.abc import Iterable
from typing import Any, ClassVar, NoReturn, SupportsIndex, TypeAlias, TypedDict, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["Value", "collect", "stats"]
# <ops.def>
# </ops.def>

# A real scalar; float64 holds it, as `Value` says.
_Number: TypeAlias = float | int | np.floating[Any] | np.integer[Any] | np.bool_

class Value:
    __array_ufunc__: ClassVar[None]

    data: float
    grad: float
    @property
    def _prev(self) -> set[Value]: ...
    @property
    def _op(self) -> str: ...
    # A property to read and to assign: what is assigned is converted.
    def __init__(
        self, data: _Number | NDArray[Any], _children: Iterable[Value] = (), _op: str = ""
    ) -> None: ...
    def backward(self) -> None: ...
    # <ops.def>
    # </ops.def>

def weighted_sum(
    w: Iterable[Value | _Number], x: Iterable[Value | _Number], b: Value | _Number
) -> Value: ...

class _Stats(TypedDict):
    nodes: int
    capacity: int
    operands: int
    bytes: int
    collections: int
    isa: str

def stats() -> _Stats: ...
def collect() -> int: ...

# <ops.def>
# </ops.def>
