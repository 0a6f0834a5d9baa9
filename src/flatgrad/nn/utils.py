"""Parameters as one flat array, and back: PyTorch's `torch.nn.utils`.

`parameters_to_vector` and `vector_to_parameters` connect models to optimizers that work on one array, such as those of
`scipy.optimize`. PyTorch's `clip_grad_norm_` and `clip_grad_value_` are in `flatgrad.optim`.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np

from flatgrad._core import Tensor, Value, _from_vector, _to_vector, cat, stack
from flatgrad.arguments import array_of_numbers, flag, no_attribute, shortened
from flatgrad.errors import ArgumentTypeError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Literal

    from numpy.typing import ArrayLike, NDArray

__all__ = ["parameters_to_vector", "vector_to_parameters"]


@overload
def parameters_to_vector(parameters: Iterable[Value | Tensor], *,
                         as_tensor: Literal[False] = False) -> NDArray[np.float64]: ...


@overload
def parameters_to_vector(parameters: Iterable[Value | Tensor], *, as_tensor: bool) -> Any: ...


def parameters_to_vector(parameters: Iterable[Value | Tensor], *, as_tensor: bool = False) -> Any:
    """The numbers of all parameters in one flat array.

    Parameters
    ----------
    parameters : iterable of Value and Tensor
        Such as ``model.parameters()``.
    as_tensor : bool, optional
        Whether to return a Tensor of the graph, through which gradients flow to the parameters.

    Returns
    -------
    ndarray of float64, shape (n_numbers,), or Tensor
        A copy: the numbers of the parameters in their order, those of a Tensor row by row. This is also the order of a
        gradient of ``flatgrad.grad(f, parameters=parameters)``.

    Raises
    ------
    TypeError
        If an argument is not as described.
    ShapeError
        With `as_tensor`, if there are no parameters.

    See Also
    --------
    vector_to_parameters : the way back.

    Notes
    -----
    `torch.nn.utils.parameters_to_vector` always returns a tensor of the graph.

    Examples
    --------
    >>> from flatgrad import Tensor, Value
    >>> from flatgrad.nn.utils import parameters_to_vector
    >>> w, b = Tensor([[1.0, 2.0], [3.0, 4.0]]), Value(5.0)
    >>> parameters_to_vector([w, b])
    array([1., 2., 3., 4., 5.])
    >>> (parameters_to_vector([w, b], as_tensor=True) ** 2).sum().backward()
    >>> w.grad.tolist(), b.grad
    ([[2.0, 4.0], [6.0, 8.0]], 10.0)
    """
    parameters = listed(parameters)
    if not flag("as_tensor", as_tensor):
        return _to_vector(parameters)
    parts, values = [], []   # values: those since the last Tensor
    for p in parameters:
        if isinstance(p, Tensor):
            parts += [stack(values), p.reshape(p.size)] if values else [p.reshape(p.size)]
            values = []
        elif isinstance(p, Value):
            values.append(p)
        else:
            _to_vector(parameters)   # which has an error for this
    if values:
        parts.append(stack(values))
    if not parts:
        raise ShapeError("parameters: expected one Value or Tensor at least, to make a Tensor of, got none")
    return parts[0] if len(parts) == 1 else cat(parts)


def vector_to_parameters(vec: ArrayLike, parameters: Iterable[Value | Tensor]) -> None:
    """Set the numbers of all parameters to those of a flat array.

    Parameters
    ----------
    vec : array_like of float, shape (n_numbers,)
        The numbers in the order of `parameters_to_vector`.
    parameters : iterable of Value and Tensor
        The parameters to set, also those with ``requires_grad=False``. Their gradients do not change.

    Raises
    ------
    ShapeError
        If `vec` has another shape or another number of numbers than the parameters. It is a ValueError.
    TypeError
        If an argument is not as described. After any error all parameters are as they were.

    See Also
    --------
    parameters_to_vector : the numbers as such an array.

    Notes
    -----
    As `torch.nn.utils.vector_to_parameters`. The numbers are copied: no gradient flows to `vec`.

    Examples
    --------
    >>> from flatgrad import Tensor, Value
    >>> from flatgrad.nn.utils import vector_to_parameters
    >>> w, b = Tensor([[1.0, 2.0], [3.0, 4.0]]), Value(5.0)
    >>> vector_to_parameters([10.0, 20.0, 30.0, 40.0, 50.0], [w, b])
    >>> w.data.tolist(), b.data
    ([[10.0, 20.0], [30.0, 40.0]], 50.0)
    """
    parameters = listed(parameters)
    if type(vec) is not np.ndarray or vec.dtype != np.float64:
        try:
            array = array_of_numbers(vec)
            if array.dtype.kind not in "biuf":
                raise TypeError
            vec = array.astype(np.float64)
        except (TypeError, ValueError):
            raise ArgumentTypeError(f"vec: expected an array of real numbers, got {shortened(vec)}") from None
    if vec.ndim != 1:
        raise ShapeError(f"vec: expected one dimension, got the shape {vec.shape}")
    _from_vector(parameters, np.ascontiguousarray(vec))


def listed(parameters: list[Any]) -> list[Any]:
    """The parameters as a list; the core checks its items."""
    if type(parameters) is list:
        return parameters
    expected = "parameters: expected an iterable of Values and Tensors, such as model.parameters(), got"
    if isinstance(parameters, (Tensor, set, frozenset, dict)):   # a set has no order
        raise ArgumentTypeError(f"{expected} a {type(parameters).__name__}")
    try:
        return list(parameters)
    except TypeError:
        raise ArgumentTypeError(f"{expected} {shortened(parameters)}") from None


if not TYPE_CHECKING:
    def __getattr__(name):
        raise no_attribute(__name__, name)
