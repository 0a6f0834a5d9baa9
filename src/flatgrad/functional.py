"""Gradients of functions: `grad`, `value_and_grad` and `jacobian`. `gradcheck` compares gradients with finite
differences.

The names are JAX's and PyTorch's. Each transform calls the function with new leaves in place of its arguments'
numbers, and returns plain numbers. No gradient of any Value or Tensor changes. flatgrad has only first derivatives.
The result of an inner transform would be a constant for an outer transform, and its derivative would silently be 0.
So a transform within another transform raises an error if it depends on the arguments of the outer one.
"""
import functools
import itertools
import math
import numbers

import numpy as np

from flatgrad._core import Tensor, Value, _is_recording, depends, derivatives, recording, tracing
from flatgrad.arguments import flag, non_negative, positive, shortened, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, GradcheckError, ShapeError
from flatgrad.gradients import Evaluations
from flatgrad.loops import vmap
from flatgrad.program import Compiled
from flatgrad.structures import map_leaves

__all__ = ["grad", "value_and_grad", "jacobian", "gradcheck"]

FIRST_ONLY = ("flatgrad has first derivatives only, and the result of {name} is plain numbers, constants to an outer "
              "transform. For second derivatives take finite differences of grad(f); for a constant pass .detach()")


def grad(f, argnums=0, *, parameters=None, in_axes=None, threads=1):
    """The gradient of `f`, as a function. `f` returns one number.

    Parameters
    ----------
    f : callable
        A function that returns a Value, a Tensor of one element or, as a constant, a number. `f` may use Values and
        Tensors that are not its arguments, such as a model's parameters. These are constants, and their gradients do
        not change.
    argnums : int or tuple of int, optional
        The positional arguments to differentiate by; negative numbers count from the last argument.
    parameters : iterable of Value and Tensor, optional
        By which to differentiate in place of arguments, such as ``model.parameters()``.
    in_axes : int, None, or tuple of these, optional
        As for `vmap`: `f` takes one sample, and the returned function takes a batch, and differentiates the mean of
        `f` over the samples. None: `f` takes what the returned function takes.
    threads : int, optional
        How many threads divide the samples of a batch among them. The result does not depend on it. More than one are
        for a function of `flatgrad.compile`.

    Returns
    -------
    callable
        A function that takes the arguments of `f` and returns the gradient in the structure of the argument `argnums`,
        or a tuple of gradients for a tuple `argnums`. The gradient of a number or a Value is a float. The gradient of
        an array or a Tensor is an ndarray of the same shape. The gradient of a list, tuple or dict has the same
        structure. By `parameters` it is one ndarray of float64, with the numbers of all parameters in their order.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described. The returned function raises these errors if the argument `argnums` is
        missing, or contains an object that is no real number, or contains a Value that is the result of an operation.
        It also raises them if `f` returns another type, or if the call needs a second derivative; if one of `parameters`
        takes no gradient; and, with `in_axes`, where a function of `vmap` does.

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
    floats. Their transforms nest, and flatgrad's do not: for second derivatives take finite differences of
    ``grad(f)``.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.grad(lambda x: x**3 + 2 * x)(3.0)
    29.0
    >>> def energy(position, spring):
    ...     return spring["k"] * sum(x**2 for x in position) / 2
    >>> flatgrad.grad(energy, argnums=(0, 1))([1.0, 2.0], {"k": 10.0})
    ([10.0, 20.0], {'k': 2.5})
    """
    return gradient_function("grad", f, argnums, parameters, in_axes, threads, lambda value, gradient: gradient)


def value_and_grad(f, argnums=0, *, parameters=None, in_axes=None, threads=1):
    """A function that computes both `f` and its gradient, in the time of the gradient alone.

    Parameters
    ----------
    f, argnums, parameters, in_axes, threads
        As for `grad`.

    Returns
    -------
    callable
        A function that takes the arguments of `f` and returns a pair: the result of `f`, a float, or with `in_axes`
        the mean of the results; and the gradient.

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
    return gradient_function("value_and_grad", f, argnums, parameters, in_axes, threads,
                             lambda value, gradient: (value, gradient))


def jacobian(f, argnums=0):
    """The derivative of every output of `f` by every input, as a function.

    Parameters
    ----------
    f : callable
        A function that returns a Tensor, an array, one Value or number, or a (nested) list or tuple of Values, numbers
        and Tensors whose shapes fit each other. The rest is as for `grad`.
    argnums : int or tuple of int, optional
        As for `grad`.

    Returns
    -------
    callable
        A function that takes the arguments of `f` and returns an ndarray of shape ``output.shape + input.shape``, or a
        tuple of such arrays for a tuple `argnums`. A Value or number has the shape (), a list of n numbers (n,).

    Raises
    ------
    ArgumentTypeError, ArgumentError
        As `grad`; an input cannot be a dict.
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
    """
    by_tape = differentiated("jacobian", f, argnums, full_jacobian, lambda value, gradient: gradient)
    if not isinstance(f, Compiled) or f.check:
        return by_tape
    evaluations = Evaluations(f)
    argnums, single = argument_numbers(argnums)

    @functools.wraps(f)
    def transformed(*args, **kwargs):
        if traces or _is_recording():
            return by_tape(*args, **kwargs)
        positions = positions_of(argnums, args, kwargs)
        shapes = [input_shape(f"argument {n}", args[n]) for n in positions]
        found = evaluations.table(args, kwargs, positions)
        if found is None:
            return by_tape(*args, **kwargs)
        places, table = found
        table = np.concatenate([table, np.zeros((1, table.shape[1]))])   # where a constant's -1 leads
        ends = list(itertools.accumulate(map(math.prod, shapes), initial=0))
        jacobians = [table[places, begin:end].reshape(places.shape + shape)
                     for begin, end, shape in zip(ends, ends[1:], shapes)]
        return jacobians[0] if single else tuple(jacobians)

    return transformed


def gradcheck(f, inputs, eps=1e-6, atol=1e-5, rtol=1e-3, raise_exception=True):
    """Compare the derivatives of `f` with central finite differences.

    Parameters
    ----------
    f : callable
        A function with a result as for `jacobian`.
    inputs : float, array of float, Value, Tensor, (nested) list or dict of them; or a tuple of such arguments
        The point at which to check. `f` gets Values and leaf Tensors unchanged, and `gradcheck` changes their data for
        the calls of `f`. So `f` may also use them in another way, as a model uses its parameters. At the end they get
        back their data and gradients. Numbers and arrays become Values and Tensors. Values and Tensors with
        ``requires_grad=False`` are not checked. The rest is as for `grad`.
    eps : float, optional
        Step of the differences, in the units of the inputs.
    atol, rtol : float, optional
        A derivative d passes if ``|d - difference| <= atol + rtol * |difference|``.
    raise_exception : bool, optional
        If False, return False instead of raising a GradcheckError.

    Returns
    -------
    bool
        True if every derivative passes.

    Raises
    ------
    GradcheckError
        If a derivative does not pass; the message names the output, the input and both numbers of the worst
        derivative. Also if an output is not finite, or if two calls of `f` with the same inputs differ.
    ArgumentTypeError, ArgumentError
        If an argument is not as described. Integers are refused as inputs, because they cannot take small steps.

    Notes
    -----
    The difference is ``(f(x + eps) - f(x - eps)) / (2 * eps)``. Its error is of the order of eps**2 by truncation
    and ``1e-16 * |f| / eps`` by rounding. Names and defaults are those of `torch.autograd.gradcheck`. With the
    default `rtol` a derivative that is wrong by 0.1 % just passes; where `f` is smooth, ``rtol=1e-5`` finds a
    derivative that is wrong by 0.01 %.

    At a kink, such as relu at 0, the difference is the mean of both slopes, and the check fails.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.gradcheck(lambda x, y: [x.tanh() * y, x / y], (0.5, 2.0))
    True
    >>> from flatgrad import Value
    >>> def wrong_cube(x):
    ...     return Value(x.data**3, (x,), (2 * x.data**2,))
    >>> flatgrad.gradcheck(wrong_cube, 1.0, raise_exception=False)
    False
    """
    callable_("gradcheck", f)
    eps, atol, rtol = positive("eps", eps), non_negative("atol", atol), non_negative("rtol", rtol)
    raise_exception = flag("raise_exception", raise_exception)
    leaves, args = [], []
    for k, x in enumerate(inputs if isinstance(inputs, tuple) else (inputs,)):
        name = f"inputs[{k}]" if isinstance(inputs, tuple) else "inputs"
        args.append(with_leaves("gradcheck", name, x, leaves, True))
    elements = [element for name, leaf, _ in leaves for element in elements_of(name, leaf)]
    fresh = [leaf for _, leaf, x in leaves if leaf is not x]
    leaves = only_leaves("gradcheck", leaves)
    if not elements:
        raise ArgumentError(f"inputs: expected one number at least to check by, got {shortened(inputs)}")
    before = [(element, element.data, element.grad) for _, element in elements]
    for name, element in elements:
        if not math.isfinite(element.data):
            raise DataError(f"{name}: expected a finite number, got {element.data}")
        if element.data + eps == element.data or element.data - eps == element.data:
            raise ArgumentError(f"eps: {eps} is too small a step from {name}, which is {element.data}")

    def evaluate(where):
        result = called(f, args, {}, leaves, fresh)
        items, shape = flattened("gradcheck", "the result of f", result)
        refuse_outer("gradcheck", "the result of f", items)
        values = np.concatenate([np.zeros(0), *(np.ravel(item.data) for item in items)])
        if not np.isfinite(values).all():
            at = int(np.argmin(np.isfinite(values)))
            raise GradcheckError(f"gradcheck: {name_of('output', shape, at)} is {values[at]}{where}; expected a "
                                 "finite number")
        return items, shape, values

    try:
        check_gradients(evaluate, leaves, elements, eps, atol, rtol)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    finally:
        for element, data, gradient in before:
            element.data, element.grad = data, gradient
    return True


def check_gradients(evaluate, leaves, elements, eps, atol, rtol):
    """Raise a GradcheckError if a derivative does not pass."""
    items, shape, values = evaluate("")
    exact = derivatives(items, leaves)
    items, shape_again, values_again = evaluate(" at the second call")
    if shape_again != shape or not np.array_equal(values_again, values):
        raise GradcheckError(
            f"gradcheck: f is not deterministic: two calls with the same inputs returned "
            f"{shortened(values.reshape(shape).tolist())} and {shortened(values_again.reshape(shape_again).tolist())}")
    if not np.array_equal(derivatives(items, leaves), exact, equal_nan=True):
        raise GradcheckError("gradcheck: the derivatives of f are not deterministic: those of two calls with the "
                             "same inputs differ")
    numeric = np.empty_like(exact)
    for k, (name, element) in enumerate(elements):
        x = element.data
        ends = []
        for sign, end in (("+", x + eps), ("-", x - eps)):
            element.data = end
            _, shape_there, there = evaluate(f" where {name} is {x} {sign} {eps}")
            if shape_there != shape:
                raise GradcheckError(f"gradcheck: f returns the shape {shape}, but {shape_there} where {name} is "
                                     f"{x} {sign} {eps}")
            ends.append(there)
        element.data = x
        numeric[:, k] = (ends[0] - ends[1]) / ((x + eps) - (x - eps))   # the actual step, after rounding
    tolerance = atol + rtol * np.abs(numeric)
    error = np.abs(exact - numeric)
    passes = error <= tolerance   # False for nan
    if passes.all():
        return
    excess = np.where(np.isnan(error), np.inf, error / np.maximum(tolerance, np.finfo(float).tiny))
    row, column = np.unravel_index(np.argmax(np.where(passes, -1.0, excess)), excess.shape)
    raise GradcheckError(
        f"gradcheck: the derivative of {name_of('output', shape, row)} by {elements[column][0]} is "
        f"{exact[row, column]:.10g}, and by finite differences {numeric[row, column]:.10g}; expected a difference of "
        f"at most atol + rtol * |{numeric[row, column]:.3g}| = {tolerance[row, column]:.3g}, got "
        f"{error[row, column]:.3g}. {np.sum(~passes)} of {passes.size} derivatives do not pass")


# ---- what the transforms share ----

traces = {}   # the leaves of every running transform, by the id of their list


def differentiated(name, f, argnums, compute, result):
    """The function that `grad` and the other transforms return; it returns result(value, gradient)."""
    callable_(name, f)
    argnums, single = argument_numbers(argnums)

    @functools.wraps(f)
    def transformed(*args, **kwargs):
        leaves, replaced, positions = [], list(args), positions_of(argnums, args, kwargs)
        try:
            for n in positions:
                replaced[n] = with_leaves(name, f"argument {n}", args[n], leaves, False)
        except ArgumentTypeError as error:
            if not _is_recording():
                raise
            raise ArgumentTypeError(f"{name}: a derivative by what a program computes: it is not taken while a "
                                    f"compiled function is recorded; transform that function instead, as in "
                                    f"flatgrad.{name}(flatgrad.compile(f))") from error
        leaves = only_leaves(name, leaves)
        output = called(f, replaced, kwargs, leaves)
        value, gradients = compute(name, output, leaves, [args[n] for n in positions], positions)
        return result(value, gradients[0] if single else tuple(gradients))

    return transformed


def positions_of(argnums, args, kwargs):
    """The arguments that `argnums` means, counted from 0."""
    positions = []
    for n in argnums:
        if not -len(args) <= n < len(args):
            raise ArgumentError(f"argnums: {n} is out of range for {len(args)} positional "
                                f"argument{'s' * (len(args) != 1)}"
                                + ("; arguments by keyword are not differentiated by" if kwargs else ""))
        positions.append(n % len(args))
    if len(set(positions)) != len(positions):
        raise ArgumentError(f"argnums: expected different arguments, got {argnums} for {len(args)} arguments")
    return tuple(positions)


def gradient_function(name, f, argnums, parameters, in_axes, threads, result):
    """The function that `grad` and `value_and_grad` return; it returns result(value, gradient)."""
    callable_(name, f)
    numbers_of_arguments, single = argument_numbers(argnums)
    threads = whole(f"{name}: threads", threads, 1)
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
        by_tape = differentiated(name, mean, argnums, scalar_gradient, result)
    else:
        by_tape = differentiated_by(name, mean, parameters, result)
    if not isinstance(f, Compiled) or f.check:
        return functools.wraps(f)(by_tape)
    evaluations = Evaluations(f, parameters, in_axes, threads)

    @functools.wraps(f)
    def transformed(*args, **kwargs):
        if traces or _is_recording():
            return by_tape(*args, **kwargs)
        positions = () if parameters is not None else positions_of(numbers_of_arguments, args, kwargs)
        found = evaluations(args, kwargs, positions)
        if found is None:
            return by_tape(*args, **kwargs)
        value, gradient = found
        if parameters is not None:
            return result(value, gradient)
        row = Reader(gradient)
        gradients = [row.structure_of(args[n]) for n in positions]
        return result(value, gradients[0] if single else tuple(gradients))

    return transformed


def parameters_in(name, parameters, argnums):
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


def mean_of(name, f, in_axes):
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


def differentiated_by(name, f, parameters, result):
    """The function that returns result(value, gradient) by the parameters of `f`, on the tape."""
    def transformed(*args, **kwargs):
        output = called(f, args, kwargs, parameters, [])
        output = one_number(name, output)
        refuse_outer(name, "the result of f", [output])
        return result(output.item(), derivatives([output], parameters)[0])

    return transformed


def one_number(name, output):
    """What f has returned, as a Value or a Tensor."""
    if isinstance(output, Tensor) and output.size != 1:
        raise ShapeError(f"{name}: expected f to return one number, got a Tensor of shape {output.shape}; jacobian "
                         "takes functions of many outputs")
    if is_real(output):
        output = Value(real(f"{name}: the result of f", output))
    if not isinstance(output, (Value, Tensor)):
        many = "; jacobian takes functions of many outputs" if isinstance(output, (list, tuple, np.ndarray)) else ""
        raise ArgumentTypeError(f"{name}: expected f to return a Value, a Tensor of one element or a number, got "
                                f"{described(output)}{many}")
    return output


def scalar_gradient(name, output, leaves, args, positions):
    """The value of f and, for each argument, its gradient in the argument's structure."""
    output = one_number(name, output)
    check_trace(name, [output], leaves)
    row = Reader(derivatives([output], leaves)[0])
    return output.item(), [row.structure_of(x) for x in args]


def full_jacobian(name, output, leaves, args, positions):
    """None and, for each argument, the derivatives of all outputs by the argument."""
    shapes = [input_shape(f"argument {n}", x) for n, x in zip(positions, args)]
    items, output_shape = flattened(name, "the result of f", output)
    check_trace(name, items, leaves)
    table, jacobians, at = derivatives(items, leaves), [], 0
    for shape in shapes:
        size = math.prod(shape)
        jacobians.append(table[:, at:at + size].reshape(output_shape + shape))
        at += size
    return None, jacobians


def callable_(name, f):
    if not callable(f):
        raise ArgumentTypeError(f"{name}: f: expected a callable, got {described(f)}")


def argument_numbers(argnums):
    """The ints in `argnums`, and whether `argnums` is a single int."""
    single = not isinstance(argnums, (tuple, list))
    result = [argnums] if single else list(argnums)
    for n in result:
        if not isinstance(n, numbers.Integral) or isinstance(n, (bool, np.bool_)):
            raise ArgumentTypeError(f"argnums: expected an int or a tuple of int, got {argnums!r}")
    if not result or len(set(result)) != len(result):
        raise ArgumentError(f"argnums: expected an int or a tuple of different ints, got {argnums!r}")
    return tuple(int(n) for n in result), single


def called(f, args, kwargs, leaves, fresh=None):
    """f(*args, **kwargs), while `leaves` are registered as leaves to differentiate by.

    fresh: the leaves that no one else holds; by default all. `float` refuses Values computed from these.
    """
    traces[id(leaves)] = leaves
    try:
        with recording(), tracing(leaves if fresh is None else fresh):
            return f(*args, **kwargs)
    finally:
        del traces[id(leaves)]


def check_trace(name, outputs, leaves):
    """Refuse results whose gradient through the graph would miss a derivative."""
    if any(np.any(leaf.grad) for leaf in leaves):
        raise ArgumentTypeError(f"{name}: f has called backward() on what it computes from its arguments. "
                                + FIRST_ONLY.format(name="backward()"))
    refuse_outer(name, "the result of f", outputs)


def refuse_outer(name, what, nodes):
    """Refuse nodes that depend on the leaves of an outer transform."""
    outer = [leaf for leaves in traces.values() for leaf in leaves]
    if outer and nodes and depends(nodes, outer):
        raise ArgumentTypeError(f"{name}: {what} depends on what an outer transform differentiates by. "
                                + FIRST_ONLY.format(name=name))


def described(x):
    return f"{type(x).__name__} {shortened(x)}"


def is_real(x):
    return isinstance(x, numbers.Real) and not isinstance(x, (bool, np.bool_))


def real(name, x):
    """The real number x as a float."""
    try:
        return float(x)
    except OverflowError:
        raise ArgumentError(f"{name}: expected a number that float64 holds, got {shortened(x)}") from None


def with_leaves(transform, name, x, leaves, in_place):
    """Argument `x` with leaves in place of its numbers. Each leaf is appended to `leaves`, in order, as
    (name, leaf, the part of `x` that the leaf replaces).

    in_place: Values and Tensors are themselves the leaves, and integers are refused.
    """
    def leaf_for(name, x):
        if isinstance(x, (Value, Tensor)):
            if x._children if isinstance(x, Value) else x._op:
                raise ArgumentTypeError(f"{transform}: {name}: expected numbers or leaves, got the result "
                                        f"{described(x)} of the operation {x._op!r}. "
                                        + FIRST_ONLY.format(name=transform))
            if in_place:
                if x.requires_grad:
                    leaves.append((name, x, x))
                return x
            leaf = Value(x.data) if isinstance(x, Value) else Tensor(x.data)
        elif isinstance(x, np.ndarray):
            check_array(transform, name, x, in_place)
            leaf = Value(float(x)) if x.ndim == 0 else Tensor(np.asarray(x, np.float64))
        elif is_real(x):
            if in_place and isinstance(x, numbers.Integral):
                raise ArgumentTypeError(f"{transform}: {name}: expected a float, got the integer {x!r}; pass "
                                        f"{float(x)!r}")
            leaf = Value(real(name, x))
        else:
            raise ArgumentTypeError(f"{transform}: {name}: expected a real number, an array, a Value, a Tensor, or a "
                                    f"list, tuple or dict of them, got {described(x)}")
        leaves.append((name, leaf, x))
        return leaf

    return map_leaves(leaf_for, x, name)


def only_leaves(transform, leaves):
    """The leaves that `with_leaves` has made; refuses arguments that depend on the leaves of an outer transform."""
    refuse_outer(transform, "an argument", [x for _, _, x in leaves if isinstance(x, (Value, Tensor))])
    return [leaf for _, leaf, _ in leaves]


def check_array(transform, name, x, in_place):
    if x.dtype.kind not in "iuf" or (in_place and x.dtype.kind != "f"):
        what = "floats" if in_place else "real numbers"
        raise ArgumentTypeError(f"{transform}: {name}: expected an array of {what}, got one of dtype {x.dtype} and "
                                f"shape {x.shape}")
    if x.ndim > 2 or x.size == 0:
        raise ShapeError(f"{transform}: {name}: expected an array of at most two dimensions and at least one element, "
                         f"got the shape {x.shape}")


class Reader:
    """Returns the numbers of a row of derivatives in the structure of the arguments."""

    def __init__(self, row):
        self.row, self.at = row, 0

    def structure_of(self, x):
        return map_leaves(self.next, x)

    def next(self, name, x):
        size = x.size if isinstance(x, (np.ndarray, Tensor)) else 1
        self.at += size
        part = self.row[self.at - size:self.at]
        return part.reshape(x.shape).copy() if isinstance(x, (np.ndarray, Tensor)) else float(part[0])


def input_shape(name, x):
    """The shape of an argument that `with_leaves` has accepted."""
    if isinstance(x, dict):
        raise ArgumentTypeError(f"jacobian: {name}: expected a number, an array or a list, got a dict, which has no "
                                "shape")
    if isinstance(x, (list, tuple)):
        return stacked(f"jacobian: {name}", [input_shape(f"{name}[{k}]", part) for k, part in enumerate(x)])
    return tuple(x.shape) if isinstance(x, (np.ndarray, Tensor)) else ()


def stacked(name, shapes):
    """The shape of a list of parts with these shapes."""
    for k, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ShapeError(f"{name}: expected parts of one shape, got {shapes[0]} in the first and {shape} in number "
                             f"{k}")
    return (len(shapes), *(shapes[0] if shapes else ()))


def flattened(transform, name, output):
    """The result of a function as a flat list of Values and Tensors, and the shape of the result."""
    if isinstance(output, Tensor):
        return [output], output.shape
    if isinstance(output, Value):
        return [output], ()
    if is_real(output):
        return [Value(real(f"{transform}: {name}", output))], ()
    if isinstance(output, np.ndarray) and output.dtype.kind in "iufO":
        output = output.tolist()   # a list of Values or numbers; a single one for a 0-d array
        if not isinstance(output, list):
            return flattened(transform, name, output)
    if isinstance(output, (list, tuple)):
        parts = [flattened(transform, f"{name}[{k}]", part) for k, part in enumerate(output)]
        return [item for items, _ in parts for item in items], stacked(f"{transform}: {name}",
                                                                       [shape for _, shape in parts])
    raise ArgumentTypeError(f"{transform}: {name}: expected a Value, a Tensor, a number or a list of them, got "
                            f"{described(output)}")


def elements_of(name, leaf):
    """(name, Value) for every number of a leaf."""
    if isinstance(leaf, Value):
        return [(name, leaf)]
    elements = list(leaf) if leaf.ndim == 1 else [element for row in leaf for element in row]
    return [(name_of(name, leaf.shape, k), element) for k, element in enumerate(elements)]


def name_of(name, shape, k):
    """The name of element k, counted row by row."""
    return f"{name}[{', '.join(str(index) for index in np.unravel_index(k, shape))}]" if shape else name
