"""Gradients as PyTorch's `torch.autograd` has them: of several outputs by several inputs, each output with a gradient to
begin with, as nodes of the graph if asked for.

Here is also what `Value.backward` and `Tensor.backward` do with their arguments.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import (Tensor, Value, _gradients, _is_recording, _is_unrecorded, _keep, _leaves_below,
                            _sweep_from, _sweep_with, recording, written)
from flatgrad.anomaly import detect_anomaly, is_anomaly_enabled, set_detect_anomaly
from flatgrad.arguments import flag, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from flatgrad.rules import Function
from flatgrad.transforms import depends_on_outer, depends_on_outer_copies

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["Function", "detect_anomaly", "gradients", "is_anomaly_enabled", "set_detect_anomaly"]


def gradients(outputs: Value | Tensor | Sequence[Value | Tensor], inputs: Value | Tensor | Sequence[Value | Tensor],
              grad_outputs: Any = None, create_graph: bool = False, allow_unused: bool | None = None,
              materialize_grads: bool = False) -> tuple[Any, ...]:
    """The gradients of `inputs`, by way of the graph that has computed `outputs`; no ``.grad`` changes.

    Parameters
    ----------
    outputs, inputs : Value or Tensor, or a list or tuple of them
        Inputs may be results of operations as well. They require a gradient.
    grad_outputs : real number, array, Value or Tensor, or a list or tuple of them and None, optional
        For each output its own gradient, of its shape; None stands for 1, and is for outputs of one element.
    create_graph : bool, optional
        True: the gradients are computed by operations of the graph, so they can be differentiated again.
    allow_unused : bool, optional
        Whether an input may be one that no output depends on; its gradient is None. By default, as
        `materialize_grads` says.
    materialize_grads : bool, optional
        True: the gradient of such an input is 0.

    Returns
    -------
    tuple
        For each input a Value or a Tensor of its shape. Without `create_graph` these are leaves, and the Tensors take no
        gradient.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError
        If an argument is not as described. With `create_graph`, if a node has a `_backward` rule or local gradients of
        a user's, whose derivative is not known. Without it, within a function that `flatgrad.grad` or another transform
        differentiates, if the outputs depend on that function's arguments: the gradients would be constants to it.
    RuntimeError
        If no gradient flows from an output, or none to an input and that is not allowed.

    Notes
    -----
    For outputs y with the gradients v and an input x it is ``sum(v * dy/dx)``, the vector-Jacobian product. Arguments and
    results are those of `torch.autograd.grad`, which keeps the graph only if asked; here a graph is there as long as
    somebody holds it. While a function is compiled the gradients are operations of it, constants without
    `create_graph`. A `no_grad` block around the call has no effect on them.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Tensor, Value
    >>> x = Value(2.0)
    >>> y = x**3
    >>> dy, = flatgrad.gradients(y, x, create_graph=True)
    >>> d2y, = flatgrad.gradients(dy, x)
    >>> dy.data, d2y.data, x.grad
    (12.0, 12.0, 0.0)
    >>> t = Tensor([1.0, 2.0, 3.0])
    >>> flatgrad.gradients(t * t, [t], grad_outputs=[[1.0, 0.0, 10.0]])[0].tolist()
    [2.0, 0.0, 60.0]
    """
    outputs, inputs = nodes("outputs", outputs), nodes("inputs", inputs)
    create_graph, materialize = flag("create_graph", create_graph), flag("materialize_grads", materialize_grads)
    if allow_unused is None:
        allow_unused = materialize
    elif materialize and not flag("allow_unused", allow_unused):
        raise ArgumentError("allow_unused: expected True or None with materialize_grads=True, got False")
    allow_unused = flag("allow_unused", allow_unused)
    if not inputs:
        raise ArgumentError("inputs: expected at least one, got none")
    for k, x in enumerate(inputs):
        if not x.requires_grad:
            raise ArgumentError(f"inputs[{k}]: expected a Value or a Tensor that requires a gradient, got "
                                f"{shortened(x)} with requires_grad=False")
    seeds = seeds_of(outputs, grad_outputs)
    if create_graph or _is_recording():
        found = written_gradients(outputs, seeds, inputs)
        if not create_graph:
            found = [None if g is None else g.detach() for g in found]
    elif depends_on_outer(outputs):
        raise ArgumentTypeError("gradients: outputs depend on what a transform around this call differentiates by, and "
                                "the gradients would be constants to it; write create_graph=True, and "
                                "flatgrad.stop_gradient of the result where a constant is meant")
    else:
        found = [None if g is None else node_of(g, x) for g, x in
                 zip(_gradients(outputs, [numbers_of(seed, x) for seed, x in zip(seeds, outputs)], inputs), inputs)]
    missing = [k for k, g in enumerate(found) if g is None]
    if missing and not allow_unused:
        k = missing[0]
        raise RuntimeError(f"inputs[{k}]: no output depends on {shortened(inputs[k])}; allow_unused=True gives None for "
                           "its gradient, and materialize_grads=True gives 0")
    if materialize:
        found = [node_of(np.zeros(getattr(x, "size", 1)), x) if g is None else g for g, x in zip(found, inputs)]
    return tuple(found)


def backward(output: Value | Tensor, gradient: Any, create_graph: bool) -> None:
    """What `output.backward(gradient, create_graph)` does, which has been asked whether a gradient flows."""
    create_graph = flag("create_graph", create_graph)
    seed = seed_of("backward(): gradient", gradient, output)
    if not create_graph:
        numbers = numbers_of(seed, output)
        if isinstance(output, Value):
            _sweep_with(output, numbers[0])
        else:
            _sweep_from(output, numbers)
        return
    if depends_on_outer_copies(output):
        raise ArgumentTypeError("backward(): create_graph=True within a transform of a transform: the gradient of the "
                                "inner one's argument, which is no leaf, would not be kept. Take flatgrad.grad, or "
                                "flatgrad.gradients with create_graph=True")
    leaves = _leaves_below([output])
    if not _is_unrecorded():
        keep_written(leaves, output, seed)
        return
    with recording():
        keep_written(leaves, output, seed)


def keep_written(leaves: Any, output: Any, seed: int | None) -> None:
    found = written([output], [seed], leaves)
    _keep(leaves, [None if g is None else accumulated(x, g) for x, g in zip(leaves, found)])


def accumulated(leaf: Any, gradient: Any) -> Any:
    """The sum of a leaf's gradient, a number if that is one, and of what is added to it."""
    before = leaf.grad
    return before + gradient if isinstance(before, (Value, Tensor)) or np.any(before) else gradient


def written_gradients(outputs: list[Value], seeds: list[None], inputs: list[Any]) -> list[Any]:
    """For each input its gradient as a node, or None."""
    if not _is_unrecorded():
        return written(outputs, seeds, inputs)
    with recording():
        return written(outputs, seeds, inputs)


def nodes(name: str, items: Value | list[Tensor | Value] | Tensor) -> list[Any]:
    """The Values and Tensors of an argument, which may be one of them, as a list."""
    if isinstance(items, (Value, Tensor)):
        return [items]
    if not isinstance(items, (list, tuple)):
        raise ArgumentTypeError(f"{name}: expected a Value or a Tensor, or a list or tuple of them, got "
                                f"{type(items).__name__} {shortened(items)}")
    for k, x in enumerate(items):
        if not isinstance(x, (Value, Tensor)):
            raise ArgumentTypeError(f"{name}[{k}]: expected a Value or a Tensor, got {type(x).__name__} {shortened(x)}")
    return list(items)


def seeds_of(outputs: list[Value], grad_outputs: None) -> list[None]:
    """For each output a Value or a Tensor of its shape, or None for 1."""
    if grad_outputs is None:
        grad_outputs = [None] * len(outputs)
    elif len(outputs) == 1 and not isinstance(grad_outputs, (list, tuple)):
        grad_outputs = [grad_outputs]
    elif not isinstance(grad_outputs, (list, tuple)):
        raise ArgumentTypeError("grad_outputs: expected a list or tuple with a gradient for each output, got "
                                f"{type(grad_outputs).__name__} {shortened(grad_outputs)}")
    if len(grad_outputs) != len(outputs):
        raise ArgumentError(f"grad_outputs: expected {len(outputs)}, one for each output, got {len(grad_outputs)}")
    if not outputs:
        raise ArgumentError("outputs: expected at least one, got none")
    for k, x in enumerate(outputs):
        if not requires_grad(x):
            raise RuntimeError(f"outputs[{k}]: no gradient flows from {shortened(x)}: it is a constant, or a leaf with "
                               "requires_grad=False")
    return [seed_of(f"grad_outputs[{k}]", seed, x) for k, (seed, x) in enumerate(zip(grad_outputs, outputs))]


def requires_grad(x: Value) -> bool:
    return x.requires_grad


def seed_of(name: str, seed: int | None, output: Value) -> Value | None:
    """The gradient that an output begins with, a Value or a Tensor of its shape, or None for 1."""
    shape = getattr(output, "shape", ())
    if seed is None:
        if isinstance(output, Tensor) and output.size != 1:
            raise ShapeError(f"{name}: expected a gradient of shape {shape}, for the output has more than one element, "
                             "got None")
        return None
    if not isinstance(seed, (Value, Tensor)):
        try:
            if isinstance(output, Value) or np.ndim(seed) == 0:
                seed = Value(seed)
            else:
                seed = Tensor(seed, requires_grad=False)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {str(error).removeprefix('data: ')}") from None
    if isinstance(seed, Value) and isinstance(output, Tensor) and output.size == 1:
        return Tensor([seed] if output.ndim == 1 else [[seed]])
    if getattr(seed, "shape", ()) != shape:
        if isinstance(output, Value) and isinstance(seed, Tensor) and seed.size == 1:
            return seed.sum()
        raise ShapeError(f"{name}: expected the shape {shape} of the output, got {getattr(seed, 'shape', ())}")
    return seed


def numbers_of(seed: int | None, output: Value) -> NDArray[Any]:
    """The numbers of a seed, row by row."""
    if seed is None:
        return np.ones(getattr(output, "size", 1))
    return np.array([seed.data]) if isinstance(seed, Value) else seed.numpy().reshape(-1)


def node_of(numbers: NDArray[Any], like: Value | Tensor) -> Value | Tensor:
    """A leaf with these numbers, as `like` is shaped."""
    if isinstance(like, Value):
        return Value(float(numbers[0]))
    return Tensor(numbers.reshape(like.shape), requires_grad=False)
