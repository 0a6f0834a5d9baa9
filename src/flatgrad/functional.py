"""Derivatives of functions: `grad`, `value_and_grad`, `jacobian`, `hessian`, products with both, and `stop_gradient`.

The names are JAX's and PyTorch's. Each transform calls the function with new leaves in place of its arguments'
numbers, and returns plain numbers. No gradient of any Value or Tensor changes. A transform within another transform, or
within a function that is compiled, returns Values and Tensors, which are differentiated in turn: so transforms nest to
any depth.
"""
from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import Tensor, Value, _detects_anomaly, _is_recording, _takes_gradients, derivatives, recording
from flatgrad.arguments import flag, shortened, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from flatgrad.evaluations import Evaluations
from flatgrad.loops import vmap
from flatgrad.lost import are_lost, mark
from flatgrad.program import Compiled
from flatgrad.structures import leaves_of, map_leaves
from flatgrad.transforms import (NODES, Named, Point, Reader, Table, are_linked, argument_numbers, as_nodes, as_numbers,
                                 as_value, callable_, described, elements, flattened, has_names, inner, input_shape,
                                 is_constant, is_outermost, joined, map_shaped, node_or_zeros, nodes_in, one_number,
                                 positions_of, running, seed_leaves, shape_of, shaped_parts, table_of, with_shapes_of,
                                 written_by)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["grad", "value_and_grad", "jacobian", "jacrev", "jacfwd", "hessian", "hvp", "jvp", "vjp", "stop_gradient"]

MOST_INPUTS = 24   # of a function whose second derivatives are all written into one program


def grad(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False,
         parameters: Iterable[Value | Tensor] | None = None, in_axes: int | tuple[Any, ...] | None = None,
         threads: int = 1, argnames: str | Sequence[str] | None = None) -> Callable[..., Any]:
    """The gradient of `f`, as a function. `f` returns one number.

    Parameters
    ----------
    f : callable
        A function that returns a Value, a Tensor of one element or, as a constant, a number. `f` may use Values and
        Tensors that are not its arguments, such as a model's parameters. These are constants, and their gradients do
        not change.
    argnums : int or tuple of int, optional
        The positional arguments to differentiate by; negative numbers count from the last argument.
    has_aux : bool, optional
        True: `f` returns a pair, of which the first part is differentiated. The returned function also returns a pair:
        the gradient, and the second part with numbers in place of Values and Tensors.
    parameters : iterable of Value and Tensor, optional
        By which to differentiate in place of arguments, such as ``model.parameters()``.
    in_axes : int, None, or tuple of these, optional
        As for `vmap`: `f` takes one sample, and the returned function takes a batch, and differentiates the mean of
        `f` over the samples. None: `f` takes what the returned function takes.
    threads : int, optional
        How many threads divide the samples of a batch among them. The result does not depend on it. More than one are
        for a function of `flatgrad.compile`.
    argnames : str or tuple of str, optional
        The arguments to differentiate by, by name, in place of `argnums`: calls may give them by position or by keyword.

    Returns
    -------
    callable
        A function that takes the arguments of `f` and returns the gradient in the structure of the argument `argnums`,
        or a tuple of gradients for a tuple `argnums` or `argnames`. The gradient of a number or a Value is a float. The gradient of
        an array or a Tensor is an ndarray of the same shape. The gradient of a list, tuple or dict has the same
        structure. By `parameters` it is one ndarray of float64, with the numbers of all parameters in their order.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described. The returned function raises these errors if the argument `argnums` is
        missing, or contains an object that is no real number. It also raises them if `f` returns another type, or
        calls ``backward()`` on what it computes from its arguments; if one of `parameters` takes no gradient; and, with
        `in_axes`, where a function of `vmap` does.

    Notes
    -----
    The returned function calls `f` with a Value for each number, and with a Tensor for each array or Tensor; a 0-d
    array becomes a Value. Other arguments and keyword arguments are passed on unchanged. Write ``x.data`` to look at
    a traced number; results computed from ``x.data`` are constants. So are results that `f` computes within a
    `no_grad` block. A `no_grad` block around the call has no effect. ``float(x)`` would silently make a constant,
    so it raises an ArgumentTypeError. So do functions that call ``float``, such as ``math.sin(x)``, ``int(x)``,
    ``round(x)`` and ``np.array([x], float)``: write ``x.sin()`` or ``flatgrad.sin(x)``. Comparisons and
    ``f"{x:.4f}"`` work as usual. Values that do not depend on the arguments have no restrictions.

    A function of `flatgrad.compile` is evaluated by its program, off the tape and without Python's lock, the GIL.
    Several threads may call the returned function at the same time.

    `jax.grad` and `torch.func.grad` are called in the same way, and return arrays where this function returns
    floats.

    Transforms nest to any depth. Values stand in place of floats, and Tensors in place of arrays, where somebody
    differentiates the gradient in turn: if an argument in `argnums` is the result of an operation; or if the gradient
    depends on what a transform around this one differentiates by, or on what `compile`, `minimize` or `scan` records.
    Everywhere else the gradient is made of numbers. A loss that is computed from these has no gradient through them,
    neither by an argument that is a leaf nor by parameters that `f` captures. For a gradient within a loss call
    ``value_and_grad(loss, parameters=...)``, compile the loss, or take `flatgrad.gradients` with
    ``create_graph=True``. Where `f` depends on leaves that take a gradient besides what it is differentiated by, the
    numbers are of subclasses of float and ndarray. These raise an ArgumentTypeError as operands of Values and Tensors.
    Write ``float(gradient)`` or ``np.asarray(gradient)`` for constants.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.grad(lambda x: x**3 + 2 * x)(3.0)
    29.0
    >>> flatgrad.grad(flatgrad.grad(lambda x: x**3 + 2 * x))(3.0)
    18.0
    >>> def energy(position, spring):
    ...     return spring["k"] * sum(x**2 for x in position) / 2
    >>> flatgrad.grad(energy, argnums=(0, 1))([1.0, 2.0], {"k": 10.0})
    ([10.0, 20.0], {'k': 2.5})
    >>> flatgrad.grad(energy, argnames="spring")([1.0, 2.0], spring={"k": 10.0})
    {'k': 2.5}
    """
    return gradient_function("grad", f, argnums, has_aux, parameters, in_axes, threads, without_value, argnames)


def value_and_grad(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False,
                   parameters: Iterable[Value | Tensor] | None = None, in_axes: int | tuple[Any, ...] | None = None,
                   threads: int = 1,
                   argnames: str | Sequence[str] | None = None) -> Callable[..., tuple[Any, Any]]:
    """A function that computes both `f` and its gradient, in the time of the gradient alone.

    Parameters
    ----------
    f, argnums, has_aux, parameters, in_axes, threads, argnames
        As for `grad`.

    Returns
    -------
    callable
        A function that takes the arguments of `f` and returns a pair: the result of `f`, a float, or with `in_axes`
        the mean of the results; and the gradient. With `has_aux` the first of these is itself a pair: the result, and
        what else `f` has returned.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        As `grad`.

    Examples
    --------
    >>> import flatgrad
    >>> import numpy as np
    >>> from flatgrad import Value
    >>> flatgrad.value_and_grad(lambda x: x**2)(3.0)
    (9.0, 6.0)

    The mean of a loss over a batch, and its gradient by the parameters of a model.

    >>> w, b = Value(2.0), Value(1.0)
    >>> @flatgrad.compile
    ... def loss(x, y):
    ...     return (w * x + b - y) ** 2
    >>> step = flatgrad.value_and_grad(loss, parameters=[w, b], in_axes=0)
    >>> step(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    (2.5, array([2., 3.]))
    """
    return gradient_function("value_and_grad", f, argnums, has_aux, parameters, in_axes, threads, with_value, argnames)


def jacobian(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False) -> Callable[..., Any]:
    """The derivative of every output of `f` by every input, as a function.

    Parameters
    ----------
    f : callable
        A function that returns a Tensor, an array, one Value or number, a (nested) list or tuple of Values, numbers
        and Tensors whose shapes fit each other, or a dict or registered object of these. The rest is as for `grad`.
    argnums, has_aux
        As for `grad`.

    Returns
    -------
    callable
        A function that takes the arguments of `f` and returns an ndarray of shape ``output.shape + input.shape``, or a
        tuple of such arrays for a tuple `argnums`. A Value or number has the shape (), a list of n numbers (n,). Where
        `grad` has Values and Tensors, so has this function; for more than two dimensions it is an array of Values.
        For a result with a dict or a registered object in it the function returns such a structure, with the array or
        the tuple in place of each leaf. For such an input it has, in place of each array, a structure of arrays.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        As `grad`.
    ShapeError
        If the rows of a nested list differ in shape.

    Notes
    -----
    ``J[i, j]`` is the derivative of output i by input j. Each output needs one backward pass, as in
    `torch.autograd.functional.jacobian` and `jax.jacrev`.

    Examples
    --------
    >>> import flatgrad
    >>> import numpy as np
    >>> flatgrad.jacobian(lambda x: [x[0] * x[1], x[0] + 3 * x[1]])([2.0, 5.0])
    array([[5., 2.],
           [1., 3.]])
    >>> flatgrad.jacobian(lambda x: x.softmax())(np.zeros(2)).tolist()
    [[0.25, -0.25], [-0.25, 0.25]]
    >>> flatgrad.jacobian(lambda p: [p["w"] * p["b"], p["b"]])({"w": 3.0, "b": 2.0})
    {'w': array([2., 0.]), 'b': array([3., 1.])}
    """
    by_tape = differentiated("jacobian", f, argnums, has_aux, full_jacobian, without_value)
    if not isinstance(f, Compiled) or f.check or has_aux:
        return by_tape
    evaluations = Evaluations(f)
    argnums, single = argument_numbers(argnums)

    @functools.wraps(f)
    def transformed(*args, **kwargs):
        if running.get() or _is_recording() or _detects_anomaly():
            return by_tape(*args, **kwargs)
        positions = positions_of(argnums, args, kwargs)
        if any(has_names(args[n]) for n in positions):
            return by_tape(*args, **kwargs)
        shapes = [input_shape("jacobian", f"argument {n}", args[n]) for n in positions]
        found = evaluations.table(args, kwargs, positions)
        if found is None:
            return by_tape(*args, **kwargs)
        places, table, lost = found
        table = np.concatenate([table, np.zeros((1, table.shape[1]))])   # where a constant's -1 leads
        ends = list(itertools.accumulate(map(math.prod, shapes), initial=0))
        jacobians = [table[places, begin:end].reshape(places.shape + shape)
                     for begin, end, shape in zip(ends, ends[1:], shapes)]
        jacobians = [mark(x) for x in jacobians] if lost else jacobians
        return jacobians[0] if single else tuple(jacobians)

    return transformed


def jacrev(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False) -> Callable[..., Any]:
    """`jacobian`, by another name of JAX's and PyTorch's.

    Parameters
    ----------
    f, argnums, has_aux
        As for `jacobian`.

    Returns
    -------
    callable

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.jacrev(lambda x: [x[0] * x[1], x[0] + 3 * x[1]])([2.0, 5.0])
    array([[5., 2.],
           [1., 3.]])
    """
    return jacobian(f, argnums, has_aux=has_aux)


def jacfwd(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False) -> Callable[..., Any]:
    """As `jacobian`, and computed column by column: for functions of many outputs and few inputs.

    Parameters
    ----------
    f, argnums, has_aux
        As for `jacobian`.

    Returns
    -------
    callable
        As `jacobian` returns it.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError
        As `jacobian`; also if `f` is made of operations that cannot be differentiated twice, as for `hessian`.

    Notes
    -----
    The gradient of the outputs' weighted sum is written once, and each input's element of it is differentiated by the
    weights. So each input needs one backward pass, as in `jax.jacfwd`.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.jacfwd(lambda x: [x * x, x.sin(), 3 * x])(0.0).tolist()
    [0.0, 1.0, 3.0]
    """
    return differentiated("jacfwd", f, argnums, has_aux, jacobian_by_columns, without_value)


def hessian(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False,
            parameters: Iterable[Value | Tensor] | None = None) -> Callable[..., Any]:
    """The second derivatives of `f` by every pair of inputs, as a function. `f` returns one number.

    Parameters
    ----------
    f, argnums, has_aux, parameters
        As for `grad`.

    Returns
    -------
    callable
        A function that takes the arguments of `f` and returns, for a number a float, for an array or a Tensor x an
        ndarray of shape ``x.shape + x.shape``, for a (nested) list of numbers the like. Other lists, tuples and dicts
        give `jax.hessian`'s nested structure: the gradient's, with the argument's in place of each number or array,
        as in ``H["w"]["b"]``, of shape ``w.shape + b.shape``. A tuple `argnums` is a tuple of the arguments. By
        `parameters` it is one ndarray of shape (n, n) for their n numbers in their order.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        As `grad`; also if `f` is made of operations that cannot be differentiated twice: Values with a `_backward`
        rule, or with local gradients, that a user has given them.

    Notes
    -----
    `f` is called once, its gradient is written as nodes once, and each of its n numbers needs one backward pass. For a
    product with one vector `hvp` takes a single pass.

    At kinks, such as relu at 0, the second derivative is that of the branch whose first derivative is taken.

    The second derivatives of a function of `flatgrad.compile` are computed by a program, as are those of
    ``flatgrad.compile(flatgrad.hessian(f))``, which returns nodes.

    Examples
    --------
    >>> import flatgrad
    >>> import numpy as np
    >>> def rosenbrock(x):
    ...     return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    >>> flatgrad.hessian(rosenbrock)(np.array([1.0, 1.0])).tolist()
    [[802.0, -400.0], [-400.0, 200.0]]
    >>> flatgrad.hessian(lambda p: p["a"] ** 2 * p["b"])({"a": 3.0, "b": 5.0})
    {'a': {'a': 10.0, 'b': 6.0}, 'b': {'a': 6.0, 'b': 0.0}}
    """
    callable_("hessian", f)
    has_aux = flag("hessian: has_aux", has_aux)
    if parameters is None:
        by_tape = differentiated("hessian", f, argnums, has_aux, full_hessian, without_value)
    else:
        parameters = parameters_in("hessian", parameters, argument_numbers(argnums)[0])
        by_tape = differentiated_by("hessian", f, parameters, has_aux, hessian_by, without_value)
    if not isinstance(f, Compiled) or f.check or has_aux:
        return by_tape
    return hessian_by_program(f, argnums, parameters, by_tape)


def hvp(f: Callable[..., Any], x: Any, v: Any) -> Any:
    """The Hessian of `f` at `x`, times `v`: the derivative of the gradient in the direction `v`.

    Parameters
    ----------
    f : callable
        As for `grad`, of one argument.
    x : number, array, Value, Tensor, or list, tuple or dict of them
        Where.
    v : like `x`
        In the structure of `x`, with its shapes.

    Returns
    -------
    like `x`
        ``H @ v``, in the structure of `x`, as `grad` returns gradients.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        As `hessian`, and if `v` has another structure than `x`.
    ShapeError
        If a part of `v` has another shape than that of `x`.

    Notes
    -----
    The gradient is written, and its product with `v` is differentiated: about three times the time of a gradient,
    however many inputs there are. `torch.autograd.functional.hvp` returns the result of `f` as well.

    Examples
    --------
    >>> import flatgrad
    >>> import numpy as np
    >>> flatgrad.hvp(lambda x: (x**3).sum(), np.array([1.0, 2.0]), np.array([1.0, 0.5]))
    array([6., 6.])
    """
    callable_("hvp", f)
    point = Point("hvp", (x,), (0,), more=(v,), prefix="x")
    directions = with_shapes_of("hvp", "v", v, "x", x)
    output = one_number("hvp", point.call(f, {}))
    point.link([output])
    with recording():
        total = inner(written_by([output], None, point.leaves), directions)
        return point.marked(point.gradient_of(total, (0,), (x,))[0])


def jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any],
        has_aux: bool = False) -> tuple[Any, ...]:
    """The result of `f`, and its derivative in the direction of the tangents: the Jacobian times a vector.

    Parameters
    ----------
    f : callable
        A function that returns a Value, a Tensor, a number, or a list, tuple or dict of them.
    primals : tuple or list
        The arguments of `f`: numbers, arrays, Values, Tensors, and lists, tuples and dicts of them.
    tangents : tuple or list
        In the structure of `primals`, with its shapes.
    has_aux : bool, optional
        As for `grad`.

    Returns
    -------
    result, derivative
        Each in the structure of what `f` returns: floats for Values and numbers, arrays for Tensors. With `has_aux` a
        third part, what else `f` has returned.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError
        If an argument is not as described; and where `hessian` raises them, if `f` returns more than one number.

    Notes
    -----
    Called as `jax.jvp` and `torch.func.jvp`. The backward pass is linear in the gradients that it starts with, so its
    derivative by these is the product: both passes go backward, and there are no rules for another direction.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.jvp(lambda x, y: (x * y, x.sin()), (0.0, 5.0), (1.0, 10.0))
    ((0.0, 0.0), (5.0, 1.0))
    """
    callable_("jvp", f)
    has_aux = flag("jvp: has_aux", has_aux)
    for name, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, (tuple, list)):
            raise ArgumentTypeError(f"jvp: {name}: expected a tuple or a list, one entry for each argument of f, got "
                                    f"{described(given)}")
    if len(primals) != len(tangents):
        raise ArgumentError(f"jvp: tangents: expected {len(primals)}, one for each of the primals, got {len(tangents)}")
    positions = range(len(primals))
    point = Point("jvp", primals, positions, more=tangents, prefix="primals[{}]")
    directions = [w for n in positions
                  for w in with_shapes_of("jvp", f"tangents[{n}]", tangents[n], f"primals[{n}]", primals[n])]
    output = point.call(f, {}, has_aux)
    tree = as_nodes("jvp", "the result of f", output)
    items = leaves_of(tree)
    point.link(items)
    with recording():
        if not point.linked and [math.prod(shape_of(x)) for x in items] == [1] and not is_constant(items[0]):
            gradient = derivatives(items, point.leaves)[0]   # one pass is enough, whatever f is made of
            flat = [np.ravel(w.data if isinstance(w, NODES) else w) for w in directions]
            slopes = Reader(np.array([gradient @ np.concatenate([np.zeros(0), *flat])])).structure_of(tree)
        else:
            seeds = seed_leaves(items)
            total = inner(written_by(items, seeds, point.leaves), directions)
            slopes = point.gradient_of(total, (0,), (tree,), seeds)[0]
    slopes = point.marked(slopes)
    result = tree if point.linked else as_numbers(tree)
    return (result, slopes, point.auxiliary()) if has_aux else (result, slopes)


def vjp(f: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """The result of `f`, and the function that multiplies a vector by the Jacobian.

    Parameters
    ----------
    f : callable
        As for `jvp`.
    *primals
        The arguments of `f`, as for `jvp`.
    has_aux : bool, optional
        As for `grad`.

    Returns
    -------
    result : as for `jvp`
    vjp_fn : callable
        Takes one argument in the structure of the result, with its shapes, and returns a tuple with a gradient for each
        of the `primals`, in its structure: of the sum of all results, each multiplied by its number.
    aux
        With `has_aux`, what else `f` has returned.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError
        If an argument is not as described; also by `vjp_fn`.

    Notes
    -----
    Called as `jax.vjp` and `torch.func.vjp`. `f` is called once. Each call of `vjp_fn` is a backward pass through what
    it has done then. This reads the numbers that are there now: do not change the data of captured parameters between.

    Examples
    --------
    >>> import flatgrad
    >>> result, pull = flatgrad.vjp(lambda x, y: (x * y, x + y), 2.0, 3.0)
    >>> result, pull((1.0, 10.0))
    ((6.0, 5.0), (13.0, 12.0))
    """
    callable_("vjp", f)
    has_aux = flag("vjp: has_aux", has_aux)
    positions = range(len(primals))
    point = Point("vjp", primals, positions, prefix="primals[{}]")
    output = point.call(f, {}, has_aux)
    tree = as_nodes("vjp", "the result of f", output)
    items = leaves_of(tree)
    point.link(items)

    def vjp_fn(cotangents):
        weights = with_shapes_of("vjp", "cotangents", cotangents, "the result of f", tree)
        nodes, outer = nodes_in(cotangents, []), is_outermost()
        with recording():
            if not point.linked and not (nodes and are_linked(nodes)):
                weighted = [None if is_constant(x) else x for x in items]
                gradients = point.gradient_of(inner(weighted, weights), positions, primals)
                lost = outer and (point.lost or are_lost(cotangents))
                return tuple(map(mark, gradients) if lost else gradients)
            seeds = [w if isinstance(w, NODES) else Tensor(w, requires_grad=False) if isinstance(x, Tensor)
                     else Value(w) for x, w in zip(items, weights)]
            return tuple(point.structured(positions, primals, written_by(items, seeds, point.leaves)))

    result = tree if point.linked else as_numbers(tree)
    return (result, vjp_fn, point.auxiliary()) if has_aux else (result, vjp_fn)


def stop_gradient(x: Any) -> Any:
    """The same numbers as constants: no gradient flows through them.

    Parameters
    ----------
    x : Value, Tensor, number, array, or list, tuple or dict of them

    Returns
    -------
    like `x`
        With ``.detach()`` of each Value and Tensor. Everything else is as it was.

    Notes
    -----
    `jax.lax.stop_gradient`.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.grad(lambda x: x * flatgrad.stop_gradient(x))(3.0)
    3.0
    """
    def constant(name, x):
        if isinstance(x, NODES):
            return x.detach()
        if isinstance(x, np.ndarray) and x.dtype.kind == "O":
            return np.array([constant("", part) for part in x.ravel()] + [None], object)[:-1].reshape(x.shape)
        return x

    return map_leaves(constant, x)


# ---- the functions that are returned ----

def without_value(value: float | Value | None, gradient: Any, *aux: Any) -> Any:
    return (gradient, *aux) if aux else gradient


def with_value(value: float | Value, gradient: Any, *aux: Any) -> tuple[Any, Any]:
    return (value, *aux) if aux else value, gradient


def differentiated(name: str, f: Callable[..., Any], argnums: int | tuple[int, ...], has_aux: bool,
                   compute: Callable[..., Any], result: Callable[..., Any], named: Named | None = None) -> Callable[..., Any]:
    """The function that `grad` and the other transforms return; it returns result(value, gradient).

    compute(point, output, args, positions) gives the value and a list with the gradient by each argument. named: the
    arguments by name, in place of `argnums`.
    """
    callable_(name, f)
    argnums, single = argument_numbers(argnums) if named is None else ((), named.single)
    has_aux = flag(f"{name}: has_aux", has_aux)

    @functools.wraps(f)
    def transformed(*args, **kwargs):
        called = f
        if named is None:
            positions = positions_of(argnums, args, kwargs)
        else:
            called, args, kwargs, positions = named.found(f, args, kwargs)
        point = Point(name, args, positions)
        point.single = single
        output = point.call(called, kwargs, has_aux)
        value, gradients = compute(point, output, args, positions)
        gradients = [point.marked(gradient) for gradient in gradients]
        found = gradients[0] if point.single else tuple(gradients)
        return result(value, found, point.auxiliary()) if has_aux else result(value, found)

    return transformed


def differentiated_by(name: str, f: Callable[..., Any], parameters: Iterable[Value | Tensor] | None, has_aux: bool,
                      compute: Callable[..., Any], result: Callable[..., Any]) -> Callable[..., Any]:
    """The function that returns result(value, gradient) by the parameters of `f`, on the tape."""
    has_aux = flag(f"{name}: has_aux", has_aux)

    @functools.wraps(f)
    def transformed(*args, **kwargs):
        point = Point(name, args, (), parameters=parameters)
        value, gradient = compute(point, point.call(f, kwargs, has_aux))
        gradient = point.marked(gradient)
        return result(value, gradient, point.auxiliary()) if has_aux else result(value, gradient)

    return transformed


def gradient_function(name: str, f: Callable[..., Any], argnums: int | tuple[int, ...], has_aux: bool,
                      parameters: Iterable[Value | Tensor] | None, in_axes: int | tuple[Any, ...] | None, threads: int,
                      result: Callable[..., Any], argnames: str | Sequence[str] | None = None) -> Callable[..., Any]:
    """The function that `grad` and `value_and_grad` return; it returns result(value, gradient)."""
    callable_(name, f)
    numbers_of_arguments, single = argument_numbers(argnums)
    named = None if argnames is None else Named(name, f, argnums, argnames)
    if named is not None and parameters is not None:
        raise ArgumentError(f"{name}: expected one of argnames and parameters, got argnames={argnames!r} besides parameters")
    single = single if named is None else named.single
    has_aux = flag(f"{name}: has_aux", has_aux)
    threads = whole(f"{name}: threads", threads, 1)
    if has_aux and in_axes is not None:
        raise ArgumentError(f"{name}: has_aux: expected False with in_axes, as a mean over a batch has nothing besides")
    if threads > 1 and in_axes is None:
        raise ArgumentError(f"{name}: threads: expected 1, as there is no batch to divide, got {threads}; in_axes says "
                            "along which axes samples lie")
    if threads > 1 and (not isinstance(f, Compiled) or f.check):
        raise ArgumentError(f"{name}: threads: expected 1, as f is a function that Python runs, got {threads}; "
                            "flatgrad.compile makes one that threads can divide")
    if parameters is not None:
        parameters = parameters_in(name, parameters, numbers_of_arguments)
    mean = f if in_axes is None else mean_of(name, f, in_axes)
    if parameters is None:
        by_tape = differentiated(name, mean, argnums, has_aux, scalar_gradient, result, named)
    else:
        by_tape = differentiated_by(name, mean, parameters, has_aux, gradient_by, result)
    if not isinstance(f, Compiled) or f.check or has_aux:
        return by_tape
    evaluations = Evaluations(f, parameters, in_axes, threads)

    @functools.wraps(f)
    def transformed(*args, **kwargs):
        if running.get() or _is_recording() or _detects_anomaly():
            return by_tape(*args, **kwargs)
        if named is not None:
            called, given, others, positions = named.found(f, args, kwargs)
            if called is not f:
                return by_tape(*args, **kwargs)
            args, kwargs = given, others
        else:
            positions = () if parameters is not None else positions_of(numbers_of_arguments, args, kwargs)
        found = evaluations(args, kwargs, positions)
        if found is None:
            return by_tape(*args, **kwargs)
        if parameters is not None:
            return result(*found)
        value, gradient, lost = found
        row = Reader(gradient)
        gradients = [row.structure_of(args[n]) for n in positions]
        if lost:
            gradients = [mark(x) for x in gradients]
        return result(value, gradients[0] if single else tuple(gradients))

    return transformed


def hessian_by_program(f: Callable[..., Any], argnums: int | tuple[int, ...],
                       parameters: Iterable[Value | Tensor] | None, by_tape: Callable[..., Any]) -> Callable[..., Any]:
    """The function that `hessian` returns for a compiled function: it computes a program of all second derivatives. That
    grows with the square of the inputs; with many of them a call of `f` is differentiated twice on the tape."""
    argnums, single = argument_numbers(argnums)

    @functools.wraps(f.fn)
    def square(*args, **kwargs):
        point = Point("hessian", args, () if parameters else positions_of(argnums, args, kwargs), parameters=parameters)
        table = second_derivatives(point, point.call(f.fn, kwargs))
        count = table.begins[-1]
        return table.block(0, count, 0, len(table.leaves), (count, count))

    def is_large(args):
        by = parameters or [args[n] for n in positions_of(argnums, args, {})]
        return sum(np.size(x) if isinstance(x, np.ndarray) else x.size if isinstance(x, Tensor) else 1
                   for x in leaves_of(by)) > MOST_INPUTS

    program = Compiled(square, f.static_argnums, f.static_argnames, False, f.simplify, f.dtype)

    @functools.wraps(f)
    def transformed(*args, **kwargs):
        if (running.get() or _is_recording() or _detects_anomaly() or nodes_in(args, []) or nodes_in(kwargs, []) or are_lost((args, kwargs))
                or is_large(args)):
            return by_tape(*args, **kwargs)
        found = program(*args, **kwargs)
        found = found.numpy() if isinstance(found, Tensor) else found.copy()   # that of a constant
        if parameters is not None:
            return found
        core = program._find(program._key(args, kwargs, [])).core
        lost = is_outermost() and core is not None and _takes_gradients(core)
        positions = positions_of(argnums, args, kwargs)
        if single and type(args[positions[0]]) is np.ndarray:
            found = found.reshape(args[positions[0]].shape * 2)
            return mark(found) if lost else found
        args = [args[n] for n in positions]
        blocks = hessian_blocks("hessian", Table(found, None, leaves_of(args)), args, single)
        blocks = mark(blocks) if lost else blocks
        return blocks[0] if single else tuple(blocks)

    return transformed


def parameters_in(name: str, parameters: Iterable[Value | Tensor] | None, argnums: int | tuple[int, ...]) -> list[Any]:
    """The parameters as a list, checked."""
    if argnums != (0,):
        raise ArgumentError(f"{name}: expected one of argnums and parameters, got argnums={argnums} besides parameters")
    if isinstance(parameters, (Value, Tensor)) or not hasattr(parameters, "__iter__"):
        raise ArgumentTypeError(f"{name}: parameters: expected a list of Values and Tensors, such as "
                                f"model.parameters(), got {described(parameters)}")
    parameters = list(parameters)
    for k, x in enumerate(parameters):
        if not isinstance(x, (Value, Tensor)):
            raise ArgumentTypeError(f"{name}: parameters[{k}]: expected a Value or a Tensor, got {described(x)}")
        if not x.requires_grad:
            raise ArgumentError(f"{name}: parameters[{k}]: expected numbers that require a gradient, got "
                                f"{shortened(x)} with requires_grad=False")
    if not parameters:
        raise ArgumentError(f"{name}: parameters: expected at least one, got none")
    return parameters


def mean_of(name: str, f: Callable[..., Any], in_axes: int | tuple[Any, ...] | None) -> Callable[..., Any]:
    """The function of a batch that computes the mean of `f`, a function of one sample."""
    mapped = vmap(f, in_axes)

    @functools.wraps(f)
    def mean(*args, **kwargs):
        results = mapped(*args, **kwargs)
        if not isinstance(results, Tensor):
            raise ArgumentTypeError(f"{name}: expected f to return a Value, a Tensor of one element or a number for a "
                                    f"sample, got {described(results)} for the batch")
        if results.ndim == 2 and results.shape[1] != 1:
            raise ShapeError(f"{name}: expected f to return one number for a sample, got {results.shape[1]}; jacobian "
                             "takes functions of many outputs")
        return results.mean()

    return mean


# ---- what they compute ----

def scalar_gradient(point: Point, output: Value | Tensor | float, args: tuple[Any, ...],
                    positions: tuple[Any, ...]) -> tuple[Any, Any]:
    """The value of f and, for each argument, its gradient in the argument's structure."""
    output = one_number(point.name, output)
    point.link([output])
    value = as_value(output) if point.linked else output.item()
    return value, point.gradient_of(output, positions, args)


def gradient_by(point: Point, output: Value) -> tuple[Any, Any]:
    """The value of f, and its gradient by parameters as one array, or Tensor."""
    output = one_number(point.name, output)
    point.link([output])
    if not point.linked:
        return output.item(), derivatives([output], point.leaves)[0]
    return as_value(output), joined(point.filled(written_by([output], None, point.leaves)))


def full_jacobian(point: Point, output: Any, args: tuple[Any, ...], positions: tuple[Any, ...]) -> tuple[Any, Any]:
    """None and, for each argument, the derivatives of all outputs by the argument."""
    inputs = input_shapes(point.name, args, positions)
    items, outputs = output_shapes(point.name, output)
    point.link(items)
    if not point.linked:
        table = Table(derivatives(items, point.leaves), None, point.leaves)
    else:
        table = table_of([x for item in items for x in elements(item)], point.leaves)
    return None, blocks(point, table, output, outputs, [args[n] for n in positions], inputs)


def jacobian_by_columns(point: Any, output: Any, args: Any, positions: Any) -> Any:
    """The same by one pass for each input."""
    inputs = input_shapes(point.name, args, positions)
    items, outputs = output_shapes(point.name, output)
    point.link(items)
    seeds = seed_leaves(items)
    gradients = point.filled(written_by(items, seeds, point.leaves))
    if not point.linked:
        table = Table(derivatives(gradients, seeds).T, None, point.leaves)
    else:
        columns = table_of([x for gradient in gradients for x in elements(gradient)], seeds).rows
        columns = [[x for pair in zip(seeds, column) for x in elements(node_or_zeros(*pair))] for column in columns]
        table = Table(None, list(zip(*columns)), [x for leaf in point.leaves for x in elements(leaf)])
        point.leaves = table.leaves
    return None, blocks(point, table, output, outputs, [args[n] for n in positions], inputs)


def input_shapes(name: str, args: tuple[Any, ...], positions: tuple[Any, ...]) -> list[Any]:
    """The shapes of the arguments' parts that have one."""
    return [input_shape(name, path, part) for n in positions for path, part in shaped_parts(args[n], f"argument {n}")]


def output_shapes(name: str, output: Any) -> tuple[Any, Any]:
    """The result of a function as a flat list of Values and Tensors, and the shapes of its parts that have one."""
    found = [flattened(name, path, part) for path, part in shaped_parts(output, "the result of f")]
    return [item for items, _ in found for item in items], [shape for _, shape in found]


def blocks(point: Point, table: Table, output: Any, outputs: list[Any], args: list[Any], inputs: list[Any]) -> list[Any]:
    """The parts of a table in the structure of the output, each in the structures of the arguments; where the output has
    one shape, a list with an entry for each argument. outputs, inputs: the shapes of their parts, in order."""
    shapes, after_row = iter(outputs), 0

    def of_row(part):
        nonlocal after_row
        shape, first, columns, after = next(shapes), after_row, iter(inputs), 0
        after_row += math.prod(shape)

        def of_column(part):
            nonlocal after
            column, begin = next(columns), after
            after = table.after(begin, math.prod(column))
            return table.block(first, after_row, begin, after, shape + column)

        return [map_shaped(of_column, x) for x in args]

    if not has_names(output):
        return of_row(output)
    point.single, single = True, point.single   # the arguments are within
    return [map_shaped(lambda part: of_row(part)[0] if single else tuple(of_row(part)), output)]


def second_derivatives(point: Point, output: Value | float) -> Table:
    """The table of a scalar's second derivatives."""
    output = one_number(point.name, output)
    point.link([output])
    gradients = point.filled(written_by([output], None, point.leaves))
    if not point.linked:
        return Table(derivatives(gradients, point.leaves), None, point.leaves)
    return table_of([x for gradient in gradients for x in elements(gradient)], point.leaves)


def hessian_by(point: Point, output: Value) -> tuple[None, NDArray[Any]]:
    """None and the Hessian by parameters."""
    table = second_derivatives(point, output)
    count = table.begins[-1]
    return None, table.block(0, count, 0, len(table.leaves), (count, count))


def full_hessian(point: Point, output: Value, args: tuple[Any, ...], positions: tuple[Any, ...]) -> tuple[Any, Any]:
    """None and, for each argument, its rows of the Hessian."""
    return None, hessian_blocks(point.name, second_derivatives(point, output), [args[n] for n in positions], point.single)


def hessian_blocks(name: str, table: Table, args: list[Any], single: bool) -> list[Any]:
    """The second derivatives of a table in the structures of the arguments; single: of one that the user has named."""
    if single and is_list_of_numbers(args[0]):
        count, shape = table.begins[-1], input_shape(name, "argument", args[0])
        return [table.block(0, count, 0, len(table.leaves), shape + shape)]

    def row(x):
        """For one leaf of the arguments, the derivatives of its gradient."""
        k = next(rows)
        columns = itertools.count()
        return [map_leaves(lambda name, y: block(k, x, next(columns), y), arg) for arg in args]

    def block(k, x, n, y):
        first, after = table.begins[k:k + 2]
        found = table.block(first, after, n, n + 1, shape_of(x) + shape_of(y))
        return found if table.rows is not None or isinstance(x, np.ndarray) or found.shape else float(found)

    rows = itertools.count()
    return [map_leaves(lambda name, x: row(x)[0] if single else tuple(row(x)), arg) for arg in args]


def is_list_of_numbers(x: Any) -> bool:
    """Whether it is a list of numbers, or a nested one with a shape: jax.hessian's nested lists are an array then."""
    if type(x) not in (list, tuple) or has_names(x) or any(
            isinstance(leaf, (np.ndarray, Tensor)) for leaf in leaves_of(x)):
        return False
    try:
        input_shape("", "", x)
    except (ShapeError, ArgumentTypeError):
        return False
    return True
