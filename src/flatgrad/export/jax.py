"""Compiled functions for JAX: the same instructions by jax.numpy, with flatgrad's derivatives.

JAX is imported when such a function is called, and not before.
"""
from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING

import numpy as np

from flatgrad.arguments import extra
from flatgrad.export.arrays import Engine, MixedRow
from flatgrad.export.functions import ArrayFunction

if TYPE_CHECKING:
    from typing import Any

    from flatgrad.program import Compiled

__all__ = ["JaxFunction", "to_jax"]


def to_jax(compiled: Compiled[Any], arguments: tuple[Any, ...] | None = None) -> JaxFunction:
    """A compiled function for JAX: `Compiled.to_jax`.

    Parameters
    ----------
    compiled : Compiled
        What `flatgrad.compile` returns.
    arguments : tuple, optional
        Positional arguments that the function takes, of which the structure counts. None: those of its last program.

    Returns
    -------
    JaxFunction
        A function ``g(parameters, *args, **kwargs)``, to be given to ``jax.jit``, ``jax.grad``, ``jax.vmap`` and others
        as any function of JAX.

    Raises
    ------
    ArgumentError
        The function has no program yet and there are no arguments; it returns a constant, draws random numbers, or
        calls a function that Python computes.
    ArgumentTypeError, ArgumentError, ShapeError
        By the function that is returned, if arguments have another structure than those that it was exported for.
    MissingPackageError
        Likewise, if JAX is not installed; ``pip install 'flatgrad[jax]'`` installs it.

    Notes
    -----
    ``parameters`` is an array of one dimension with all that the function has captured and that takes gradients, in the
    order of `flatgrad.nn.utils.parameters_to_vector`; ``g.parameters`` are today's. What else it has captured is a
    constant. The other arguments are those of the function itself, by position or by keyword as its signature allows,
    with the same structure, where an array of JAX may stand for a list of numbers, and a list for an array; static
    arguments have to be the same, and one with a default has to be there if it was when the program was made. The
    result has the structure of the function's.

    Instructions become operations on whole arrays when JAX traces the function: a `scan` is a `jax.lax.scan`, so it is
    compiled as one step, and a batch of `flatgrad.vmap` is computed as arrays with a dimension more. On the CPU results
    are those of the program to 1e-12 and derivatives of any order are flatgrad's, at kinks and edges as well: relu has
    the derivative 0 at 0, and equal operands of `maximum` share it. Numbers below 2.2e-308 count as 0 for XLA. Where
    flatgrad raises an error, as for the logarithm of a negative number, the result is nan or inf; an element at a
    position that there is not is nan, and so is a number of the gradient through it. Derivatives exist by arguments
    that are arrays, too; what is detached has none. A rule of `custom_derivative` is the derivative here as well;
    forward mode needs one that is linear in the gradient, as far as can be seen from its operations. In a
    ``jax.lax.scan`` around this function second derivatives at kinks are JAX's, since it forgets rules there; a `scan`
    within the function has flatgrad's.

    JAX computes in float32 unless ``jax.config.update("jax_enable_x64", True)`` was called: then parameters, arguments
    and results are float32 as well. A function of ``compile(dtype="float32")`` computes in float32 in any case.

    The result can be pickled: it has the instructions, not the Python function, and is loaded where that is not known.
    It was tested on CPUs, with several simulated devices too, and not on a GPU or TPU.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> w = Value(3.0)
    >>> @flatgrad.compile
    ... def loss(x, y):
    ...     return flatgrad.relu(w * x - y) ** 2
    >>> g = loss.to_jax((2.0, 5.0))
    >>> g
    <to_jax of loss: 1 parameter>
    >>> g.parameters, g.arguments
    (array([3.]), ['x', 'y'])
    >>> import jax  # doctest: +SKIP
    >>> jax.config.update("jax_enable_x64", True)  # doctest: +SKIP
    >>> jax.jit(jax.value_and_grad(g))(g.parameters, 2.0, 5.0)  # doctest: +SKIP
    (Array(1., dtype=float64), Array([4.], dtype=float64))
    """
    return JaxFunction(compiled, arguments)


class JaxFunction(ArrayFunction):
    """What `to_jax` returns.

    Parameters
    ----------
    compiled, arguments
        As for `to_jax`.
    """

    what = "to_jax"

    def engine(self, parameters: Any) -> Any:
        extra("jax", "to_jax", "jax")
        import jax

        return JaxEngine(jax.dtypes.canonicalize_dtype(np.dtype(self.dtype)))


class JaxEngine(Engine):
    """The operations of JAX, in numbers of one type.

    Attributes
    ----------
    looped : bool
        Whether operations are those of a step of a scan.
    """

    package: Any
    looped: Any
    np: Any
    jax: Any
    lax: Any
    dtype: Any

    def __init__(self, dtype: Any, looped: bool = False) -> None:
        import jax

        self.jax, self.np, self.lax, self.dtype = jax, jax.numpy, jax.lax, np.dtype(dtype)
        self.package = jax.numpy
        self.looped = looped

    def operand(self, x: Any) -> Any:
        return self.np.asarray(x, self.dtype)

    def constant(self, x: Any) -> Any:
        return np.asarray(x, self.dtype)

    def known(self, x: Any) -> Any:
        return x if isinstance(x, np.ndarray) else None

    def slice(self, x: Any, start: Any, stop: Any, step: Any) -> Any:
        return self.lax.slice_in_dim(x, start, stop, step, axis=x.ndim - 1)

    def split(self, x: Any, sizes: Any) -> Any:
        return self.lax.split(x, sizes, axis=x.ndim - 1)

    def take(self, x: Any, at: Any) -> Any:
        once = len(np.unique(at)) == len(at)
        return self.np.asarray(x).at[..., at].get(mode="promise_in_bounds", unique_indices=once)

    def joined(self, xs: Any) -> Any:
        batch = np.broadcast_shapes(*[x.shape[:-1] for x in xs])
        return self.np.concatenate([self.broadcast(x, (*batch, x.shape[-1])) for x in xs], -1)

    def stacked(self, xs: Any) -> Any:
        return self.np.stack(xs)

    def broadcast(self, x: Any, shape: Any) -> Any:
        return x if tuple(x.shape) == shape else self.np.broadcast_to(x, shape)

    def stopped(self, x: Any) -> Any:
        return self.lax.stop_gradient(x)

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        return self.np.where(condition, x, y)

    def moved(self, x: Any, source: Any, target: Any) -> Any:
        return self.np.moveaxis(x, source, target)

    def sum(self, x: Any, axis: Any) -> Any:
        return self.np.sum(x, axis)

    def product(self, x: Any, w: Any) -> Any:
        return self.np.matmul(x, self.np.swapaxes(w, -1, -2), precision=self.lax.Precision.HIGHEST)

    def mixed(self, op: Any, immediate: Any, numbers: Any, arrays: Any) -> Any:
        return differentiable_row(op, immediate, numbers, self.looped)(*arrays)

    def largest(self, x: Any) -> Any:
        return along_rows("largest", self.looped)(x)

    def logsumexp(self, x: Any) -> Any:
        return along_rows("logsumexp", self.looped)(x)

    def softmax(self, x: Any) -> Any:
        return along_rows("softmax", self.looped)(x)

    def log_softmax(self, x: Any) -> Any:
        return along_rows("log_softmax", self.looped)(x)

    def taken(self, x: Any, p: Any, each: Any) -> Any:
        j = self.np
        length = x.shape[-1 if each else -2]
        p = self.lax.stop_gradient(j.asarray(p))
        good = (p >= -length) & (p < length) & (p == j.floor(p))
        at = j.where(good, j.where(p < 0, p + length, p), 0).astype(j.int32)
        shares = j.where(good, 1.0, j.nan).astype(self.dtype)   # a product: its derivative is nan, too
        batch = np.broadcast_shapes(x.shape[:-2], at.shape[:-1])
        if each:
            x, at = self.broadcast(x, (*batch, *x.shape[-2:])), self.broadcast(at, (*batch, at.shape[-1]))
            return j.take_along_axis(x, at[..., None], -1, mode="clip")[..., 0] * shares
        if x.ndim == 2:
            found = j.take(x, at, axis=0, mode="clip")
        else:
            x, at = self.broadcast(x, (*batch, *x.shape[-2:])), self.broadcast(at, (*batch, at.shape[-1]))
            found = j.take_along_axis(x, at[..., None], -2, mode="clip")
        return found * shares[..., None]

    def scan(self, step: Any, carry: Any, xs: Any, length: Any, backwards: Any) -> Any:
        looped, self.looped = self.looped, True
        try:
            return self.lax.scan(lambda carry, x: step(carry, x), carry, xs, length=length, reverse=backwards)
        finally:
            self.looped = looped

    def ruled(self, plan: Any, operands: Any) -> Any:
        engine = JaxEngine(self.dtype, True)   # at any time that JAX asks for derivatives

        def forward(*operands):
            return plan.forward.call(engine, operands)[0]

        def backward(operands, g):
            given = plan.gradients(engine, operands, g)
            return tuple([self.np.zeros_like(x) if y is None else y for x, y in zip(operands, given)])

        if plan.linear:
            return self.by_product(forward, backward)(*operands)
        function = self.jax.custom_vjp(forward)
        kept = keeping(function)
        function.defvjp(lambda *operands: (kept(*operands), operands), backward)
        return kept(*operands)

    def by_product(self, forward: Any, backward: Any) -> Any:
        """A function of which `backward`, which is linear in g, gives the product of g with the Jacobian. The product
        of the Jacobian with something is the transpose of that, in either mode and in any order."""
        function = self.jax.custom_jvp(forward)
        kept = keeping(function)

        def derivative(operands, tangents):
            z = kept(*operands)
            product = self.jax.vjp(lambda g: backward(operands, g), self.np.zeros_like(z))[1]
            return z, product(tuple(tangents))[0]
        function.defjvp(derivative)
        return kept


def keeping(function: Any) -> Any:
    """A function whose derivative is its own rule in a loop as well: JAX reverses a scan by its step, where it looks
    into functions and takes the derivatives of derivatives from their operations; it leaves a checkpoint whole."""
    import jax

    return jax.checkpoint(function, prevent_cse=False, policy=jax.checkpoint_policies.everything_saveable)


@functools.lru_cache(None)
def differentiable_row(op, immediate, numbers, looped=False):
    """A MixedRow, with derivatives of any order; `looped`: it is used in a step of a scan."""
    import jax
    import jax.numpy as j
    from jax.custom_derivatives import SymbolicZero

    mixed = MixedRow(op, immediate, numbers)

    @jax.custom_jvp
    def row(*arrays):
        return mixed.value(j, arrays)

    def derivative(primals, tangents):
        z, engine = kept(*primals), JaxEngine(primals[0].dtype, looped)
        tangents = [None if type(t) is SymbolicZero else t for t in tangents]
        terms = [term for term in mixed.gradients(engine, primals, tangents) if term is not None]
        if not terms:
            return z, j.zeros_like(z)
        return z, engine.broadcast(functools.reduce(operator.add, terms), z.shape)
    row.defjvp(derivative, symbolic_zeros=True)
    kept = keeping(row) if looped else row
    return kept


@functools.lru_cache(None)
def along_rows(name, looped=False):
    """Functions of the last dimension, with flatgrad's derivatives."""
    import jax
    import jax.numpy as j

    def shifted(x):
        return x - jax.lax.stop_gradient(j.max(x, -1, keepdims=True))

    def logsumexp(x):
        top = j.max(x, -1, keepdims=True)
        top = jax.lax.stop_gradient(j.where(j.isfinite(top), top, 0.0))
        return j.log(j.sum(j.exp(x - top), -1)) + top[..., 0]

    def softmax(x):
        e = j.exp(shifted(x))
        return e / j.sum(e, -1, keepdims=True)

    def log_softmax(x):
        y = shifted(x)
        return y - j.log(j.sum(j.exp(y), -1, keepdims=True))

    def share(x):
        top = j.max(x, -1, keepdims=True)
        equal = jax.lax.stop_gradient(((x == top) | j.isnan(x) & j.isnan(top)).astype(x.dtype))
        return equal / j.sum(equal, -1, keepdims=True)
    forward = {"largest": lambda x: j.max(x, -1), "logsumexp": logsumexp, "softmax": softmax,
               "log_softmax": log_softmax}[name]
    function = jax.custom_jvp(forward)
    kept = keeping(function) if looped else function

    @function.defjvp
    def derivative(primals, tangents):
        (x,), (t,) = primals, tangents
        z = kept(x)
        if name == "largest":
            return z, j.sum(share(x) * t, -1)
        s = z if name == "softmax" else along_rows("softmax", looped)(x)
        mean = j.sum(s * t, -1, keepdims=name != "logsumexp")
        return z, mean if name == "logsumexp" else s * (t - mean) if name == "softmax" else t - mean
    return kept
