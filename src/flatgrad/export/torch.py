"""Compiled functions for PyTorch: the same instructions on its tensors, with flatgrad's derivatives.

PyTorch is imported when such a function is called, and not before.
"""
from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from flatgrad.arguments import extra
from flatgrad.export.arrays import Engine, MixedRow
from flatgrad.export.functions import ArrayFunction

if TYPE_CHECKING:
    from typing import Any

    from flatgrad.program import Compiled

__all__ = ["TorchFunction", "to_torch"]


def to_torch(compiled: Compiled[Any], arguments: tuple[Any, ...] | None = None) -> TorchFunction:
    """A compiled function for PyTorch: `Compiled.to_torch`.

    Parameters
    ----------
    compiled : Compiled
        What `flatgrad.compile` returns.
    arguments : tuple, optional
        Positional arguments that the function takes, of which the structure counts. None: those of its last program.

    Returns
    -------
    TorchFunction
        A function ``g(parameters, *args, **kwargs)`` of tensors, through which autograd goes.

    Raises
    ------
    ArgumentError
        The function has no program yet and there are no arguments; it returns a constant, draws random numbers, or
        calls a function that Python computes.
    ArgumentTypeError, ArgumentError, ShapeError
        By the function that is returned, if arguments have another structure than those that it was exported for.
    MissingPackageError
        Likewise, if PyTorch is not installed; ``pip install 'flatgrad[torch]'`` installs it.

    Notes
    -----
    Parameters, arguments and results are as `flatgrad.export.jax.to_jax` has them, with tensors; derivatives of any
    order are flatgrad's, by reverse mode. Forward mode (``torch.func.jvp``, and so ``jacfwd`` and ``hessian``) is not
    there for operations whose derivative is written here, such as relu, sigmoid, division, powers and rules of
    `custom_derivative`: PyTorch then raises NotImplementedError. ``jacrev`` of ``jacrev`` is. All is computed in the
    program's type, float64 or float32, on the device of ``parameters``. Each instruction is an operation of PyTorch at
    each call, and each step of a `scan` as well: for long loops of few numbers JAX is the better place. It was tested
    on CPUs, not on a GPU.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> w = Value(3.0)
    >>> @flatgrad.compile
    ... def loss(x, y):
    ...     return flatgrad.relu(w * x - y) ** 2
    >>> g = loss.to_torch((2.0, 5.0))
    >>> g
    <to_torch of loss: 1 parameter>
    >>> import torch  # doctest: +SKIP
    >>> parameters = torch.tensor(g.parameters, requires_grad=True)  # doctest: +SKIP
    >>> g(parameters, 2.0, 5.0).backward()  # doctest: +SKIP
    >>> parameters.grad  # doctest: +SKIP
    tensor([4.], dtype=torch.float64)
    """
    return TorchFunction(compiled, arguments)


class TorchFunction(ArrayFunction):
    """What `to_torch` returns.

    Parameters
    ----------
    compiled, arguments
        As for `to_torch`.
    """

    what = "to_torch"

    def engine(self, parameters: Any) -> Any:
        torch = extra("torch", "to_torch", "torch")
        one = parameters
        while isinstance(one, (list, tuple)) and one:
            one = one[0]
        return TorchEngine(getattr(torch, self.dtype), one.device if torch.is_tensor(one) else None)


class TorchEngine(Engine):
    """The operations of PyTorch, in numbers of one type and on one device."""

    dtype: Any
    device: Any

    torch: Any
    package: Any

    def __init__(self, dtype: Any, device: Any) -> None:
        import torch

        self.torch, self.package, self.dtype, self.device = torch, torch, dtype, device

    def operand(self, x: Any) -> Any:
        make = self.torch.tensor if isinstance(x, np.ndarray) else self.torch.as_tensor   # a copy: nobody shares it
        return make(x, dtype=self.dtype, device=self.device)

    constant = operand

    def known(self, x: Any) -> Any:
        return x.detach().cpu().numpy()

    def stopped(self, x: Any) -> Any:
        return x.detach()

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        return self.torch.where(self.torch.as_tensor(condition, device=self.device), x, y)

    def slice(self, x: Any, start: Any, stop: Any, step: Any) -> Any:
        return x[..., start:stop:step]

    def split(self, x: Any, sizes: Any) -> Any:
        return self.torch.split(x, sizes, -1)

    def take(self, x: Any, at: Any) -> Any:
        return x[..., self.torch.as_tensor(at.astype(np.int64), device=self.device)]

    def joined(self, xs: Any) -> Any:
        batch = np.broadcast_shapes(*[x.shape[:-1] for x in xs])
        return self.torch.cat([self.broadcast(x, (*batch, x.shape[-1])) for x in xs], -1)

    def stacked(self, xs: Any) -> Any:
        return self.torch.stack(xs)

    def broadcast(self, x: Any, shape: Any) -> Any:
        return x if tuple(x.shape) == tuple(shape) else self.torch.broadcast_to(x, tuple(shape))

    def moved(self, x: Any, source: Any, target: Any) -> Any:
        return self.torch.movedim(x, source, target)

    def sum(self, x: Any, axis: Any) -> Any:
        return self.torch.sum(x, axis)

    def product(self, x: Any, w: Any) -> Any:
        return x @ w.transpose(-1, -2)

    def mixed(self, op: Any, immediate: Any, numbers: Any, arrays: Any) -> Any:
        return differentiable_row(op, immediate, numbers).apply(*self.torch.broadcast_tensors(*arrays))

    def largest(self, x: Any) -> Any:
        return self.torch.amax(x, -1)

    def logsumexp(self, x: Any) -> Any:
        return self.torch.logsumexp(x, -1)

    def softmax(self, x: Any) -> Any:
        return self.torch.softmax(x, -1)

    def log_softmax(self, x: Any) -> Any:
        return self.torch.log_softmax(x, -1)

    def taken(self, x: Any, p: Any, each: Any) -> Any:
        t, p = self.torch, p.detach()
        length = x.shape[-1 if each else -2]
        good = (p >= -length) & (p < length) & (p == t.floor(p))
        at = t.where(good, t.where(p < 0, p + length, p), 0.0).to(t.int64)
        shares = t.where(good, 1.0, t.nan).to(x.dtype)   # a product: its derivative is nan, too
        batch = np.broadcast_shapes(x.shape[:-2], at.shape[:-1])
        x, at = self.broadcast(x, (*batch, *x.shape[-2:])), self.broadcast(at, (*batch, at.shape[-1]))
        if each:
            return t.take_along_dim(x, at[..., None], -1)[..., 0] * shares
        return t.take_along_dim(x, at[..., None], -2) * shares[..., None]

    def scan(self, step: Any, carry: Any, xs: Any, length: Any, backwards: Any) -> Any:
        outputs = []
        for k in reversed(range(length)) if backwards else range(length):
            carry, y = step(carry, [x[k] for x in xs])
            outputs.append(y)
        return carry, [self.torch.stack(y[::-1] if backwards else y) for y in map(list, zip(*outputs))]

    def ruled(self, plan: Any, operands: Any) -> Any:
        return ruled_function().apply(plan, self, *operands)


@functools.lru_cache(None)
def differentiable_row(op, immediate, numbers):
    """A MixedRow, with derivatives of any order."""
    import torch

    row = MixedRow(op, immediate, numbers)

    class Row(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*arrays):
            return row.value(torch, arrays)

        @staticmethod
        def setup_context(context, inputs, output):
            context.save_for_backward(*inputs)

        @staticmethod
        def backward(context, g):
            engine = TorchEngine(g.dtype, g.device)
            terms = row.gradients(engine, context.saved_tensors,
                                  [g if wanted else None for wanted in context.needs_input_grad])
            return tuple([None if term is None else engine.broadcast(term, g.shape) for term in terms])
    return Row


@functools.lru_cache(None)
def ruled_function():
    import torch

    class Ruled(torch.autograd.Function):
        """A RuledPlan."""

        generate_vmap_rule = True

        @staticmethod
        def forward(plan, engine, *operands):
            return plan.forward.call(engine, operands)[0].clone()

        @staticmethod
        def setup_context(context, inputs, output):
            context.plan, context.engine = inputs[:2]
            context.save_for_backward(*inputs[2:])

        @staticmethod
        def backward(context, g):
            return (None, None, *context.plan.gradients(context.engine, context.saved_tensors, g))
    return Ruled
