"""Checks of derivatives against finite differences: `gradcheck` and `gradgradcheck`.

Both have PyTorch's names and arguments.
"""
from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import Tensor, Value, derivatives
from flatgrad.arguments import flag, non_negative, positive, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, GradcheckError
from flatgrad.structures import leaves_of, map_leaves
from flatgrad.transforms import (NODES, as_nodes, called, callable_, check_array, depends_on_outer, described, elements,
                                 flattened, has_operands, is_real, leaf_of, node_or_zeros, shape_of, with_shapes_of,
                                 written_by)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad.rules import custom_derivative

__all__ = ["gradcheck", "gradgradcheck"]


def gradcheck(f: Callable[..., Any], inputs: Any, eps: float = 1e-6, atol: float = 1e-5, rtol: float = 1e-3,
              raise_exception: bool = True) -> bool:
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
    check = Check("gradcheck", f, inputs, eps, atol, rtol, raise_exception)

    def evaluate():
        items, shape = flattened("gradcheck", "the result of f", check.call())
        return items, shape, lambda k: name_of("output", shape, k)

    return check(evaluate)


def gradgradcheck(f: Callable[..., Any], inputs: Any, grad_outputs: Any = None, eps: float = 1e-6, atol: float = 1e-5,
                  rtol: float = 1e-3, raise_exception: bool = True) -> bool:
    """Compare the second derivatives of `f` with central finite differences of its gradient.

    Parameters
    ----------
    f, inputs
        As for `gradcheck`. The result of `f` may also be a dict, and its parts may differ in shape.
    grad_outputs : like the result of `f`, optional
        The gradients of the outputs, with which the gradient begins; it is differentiated by these as well. None:
        random numbers, the same ones at each call.
    eps, atol, rtol, raise_exception
        As for `gradcheck`; each derivative is one of the gradient.

    Returns
    -------
    bool
        True if every derivative passes.

    Raises
    ------
    GradcheckError, ArgumentTypeError, ArgumentError, ShapeError
        As `gradcheck`; if `grad_outputs` is not as described, or `f` is made of operations that cannot be
        differentiated twice, as for `hessian`.

    Notes
    -----
    The differences are those of the gradient that `flatgrad.gradients` gives with ``create_graph=True``. `gradcheck`
    compares `f` itself with its first derivatives. Names and defaults are those of `torch.autograd.gradgradcheck`.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.gradgradcheck(lambda x, y: [x.tanh() * y, x / y], (0.5, 2.0))
    True
    """
    check = Check("gradgradcheck", f, inputs, eps, atol, rtol, raise_exception)
    leaves, names = check.leaves[:], [name for name, _ in check.elements]
    tree = check.outputs()
    outputs = leaves_of(tree)
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        given = [rng.normal(size=x.shape) if isinstance(x, Tensor) else float(rng.normal()) for x in outputs]
    else:
        given = with_shapes_of("gradgradcheck", "grad_outputs", grad_outputs, "the result of f", tree)
    seeds = [check.leaf_for(f"grad_outputs[{k}]" if len(given) > 1 else "grad_outputs", x) for k, x in enumerate(given)]
    check.prepare()

    def evaluate():
        outputs = leaves_of(check.outputs())
        shapes = [shape_of(x) for x in outputs]
        if shapes == [shape_of(x) for x in seeds]:
            outputs = list(map(node_or_zeros, leaves, written_by(outputs, seeds, leaves)))
        return outputs, shapes, lambda k: f"the gradient by {names[k]}"

    return check(evaluate)


class Check:
    """A function, its arguments, and the numbers by which its derivatives are checked.

    Attributes
    ----------
    args : list
        What the function is called with.
    leaves : list of Value and Tensor
        By which is differentiated.
    elements : list of (str, Value)
        Each number of the leaves, with its name.
    """

    name: str
    f: Any

    raise_exception: bool
    args: list[Any]
    leaves: list[Any]
    elements: list[tuple[str, Value]]
    eps: float
    atol: float
    rtol: float
    named: list[Any]
    fresh: list[Any]

    def __init__(self, name: str, f: custom_derivative | Callable[..., Any], inputs: float | NDArray[Any], eps: float,
                 atol: float, rtol: float, raise_exception: bool) -> None:
        callable_(name, f)
        self.eps, self.atol, self.rtol = positive("eps", eps), non_negative("atol", atol), non_negative("rtol", rtol)
        self.raise_exception = flag("raise_exception", raise_exception)
        self.name, self.f, self.named, self.fresh = name, f, [], []
        self.args = [map_leaves(self.leaf_for, x, f"inputs[{k}]" if isinstance(inputs, tuple) else "inputs")
                     for k, x in enumerate(inputs if isinstance(inputs, tuple) else (inputs,))]
        self.prepare()
        if not self.elements:
            raise ArgumentError(f"inputs: expected one number at least to check by, got {shortened(inputs)}")

    def leaf_for(self, name: str, x: float | NDArray[Any]) -> Value | Tensor:
        """The leaf for a number or an array; a leaf stays itself."""
        leaf = x
        if isinstance(x, NODES):
            if has_operands(x):
                raise ArgumentTypeError(f"{self.name}: {name}: expected numbers or leaves, got the result "
                                        f"{described(x)} of the operation {x._op!r}; pass its number, .data")
            if depends_on_outer([x]):
                raise ArgumentTypeError(f"{self.name}: {name}: expected numbers or leaves of your own, got what a "
                                        f"transform around this check differentiates by; pass its number, .data")
            if not x.requires_grad:
                return x
        else:
            if isinstance(x, np.ndarray):
                check_array(self.name, name, x, "f", "floats")
            elif is_real(x) and isinstance(x, numbers.Integral):
                raise ArgumentTypeError(f"{self.name}: {name}: expected a float, got the integer {x!r}; pass "
                                        f"{float(x)!r}")
            leaf = leaf_of(self.name, name, x)
            self.fresh.append(leaf)
        self.named.append((name, leaf))
        return leaf

    def prepare(self) -> None:
        """List the numbers of the leaves, which may take steps."""
        self.leaves = [leaf for _, leaf in self.named]
        self.elements = [pair for name, leaf in self.named for pair in elements_of(name, leaf)]
        for name, element in self.elements:
            if not math.isfinite(element.data):
                raise DataError(f"{name}: expected a finite number, got {element.data}")
            if element.data + self.eps == element.data or element.data - self.eps == element.data:
                raise ArgumentError(f"eps: {self.eps} is too small a step from {name}, which is {element.data}")

    def call(self) -> Value | list[Value]:
        return called(self.f, self.args, {}, self.leaves, self.fresh)

    def outputs(self) -> Value:
        """The result of the function as a structure of Values and Tensors."""
        return as_nodes(self.name, "the result of f", self.call())

    def __call__(self, evaluate: Callable[..., Any]) -> bool:
        """Whether all derivatives pass. evaluate() gives nodes to differentiate, their shape, and the function that
        names the number in a place."""
        before = [(element, element.data, element.grad) for _, element in self.elements]
        try:
            self.compare(lambda where="": self.evaluated(evaluate, where))
        except GradcheckError:
            if self.raise_exception:
                raise
            return False
        finally:
            for element, data, gradient in before:
                element.data, element.grad = data, gradient
        return True

    def evaluated(self, evaluate: Callable[..., Any], where: str) -> tuple[Any, Any, Any, Any]:
        """What evaluate() gives, with the numbers of the nodes in place of the function; an error if one is not
        finite."""
        nodes, shape, name = evaluate()
        values = np.concatenate([np.zeros(0), *(np.ravel(x.data) for x in nodes)])
        if not np.isfinite(values).all():
            at = int(np.argmin(np.isfinite(values)))
            raise GradcheckError(f"{self.name}: {name(at)} is {values[at]}{where}; expected a finite number")
        return nodes, shape, values, name

    def compare(self, evaluate: Callable[..., Any]) -> None:
        """Raise a GradcheckError if a derivative does not pass."""
        nodes, shape, values, name = evaluate()
        exact = derivatives(nodes, self.leaves)
        nodes, shape_again, values_again, _ = evaluate(" at the second call")
        if shape_again != shape or not np.array_equal(values_again, values):
            raise GradcheckError(
                f"{self.name}: f is not deterministic: two calls with the same inputs returned "
                f"{listed(values, shape)} and {listed(values_again, shape_again)}")
        if not np.array_equal(derivatives(nodes, self.leaves), exact, equal_nan=True):
            raise GradcheckError(f"{self.name}: the derivatives of f are not deterministic: those of two calls with "
                                 "the same inputs differ")
        numeric = np.empty_like(exact)
        for k, (label, element) in enumerate(self.elements):
            x = element.data
            ends = []
            for sign, end in (("+", x + self.eps), ("-", x - self.eps)):
                element.data = end
                _, shape_there, there, _ = evaluate(f" where {label} is {x} {sign} {self.eps}")
                if shape_there != shape:
                    raise GradcheckError(f"{self.name}: f returns the shape {shape}, but {shape_there} where {label} "
                                         f"is {x} {sign} {self.eps}")
                ends.append(there)
            element.data = x
            numeric[:, k] = (ends[0] - ends[1]) / ((x + self.eps) - (x - self.eps))   # the actual step, after rounding
        tolerance = self.atol + self.rtol * np.abs(numeric)
        error = np.abs(exact - numeric)
        passes = error <= tolerance   # False for nan
        if passes.all():
            return
        excess = np.where(np.isnan(error), np.inf, error / np.maximum(tolerance, np.finfo(float).tiny))
        row, column = np.unravel_index(np.argmax(np.where(passes, -1.0, excess)), excess.shape)
        raise GradcheckError(
            f"{self.name}: the derivative of {name(row)} by {self.elements[column][0]} is "
            f"{exact[row, column]:.10g}, and by finite differences {numeric[row, column]:.10g}; expected a difference "
            f"of at most atol + rtol * |{numeric[row, column]:.3g}| = {tolerance[row, column]:.3g}, got "
            f"{error[row, column]:.3g}. {np.sum(~passes)} of {passes.size} derivatives do not pass")


def listed(values: NDArray[Any], shape: tuple[Any, ...]) -> str:
    return shortened((values.reshape(shape) if isinstance(shape, tuple) else values).tolist())


def elements_of(name: str, leaf: Value | Tensor) -> list[tuple[str, Value]]:
    """(name, Value) for every number of a leaf."""
    if isinstance(leaf, Value):
        return [(name, leaf)]
    return [(name_of(name, leaf.shape, k), element) for k, element in enumerate(elements(leaf))]


def name_of(name: str, shape: tuple[Any, ...], k: int | np.int64) -> str:
    """The name of element k, counted row by row."""
    return f"{name}[{', '.join(str(index) for index in np.unravel_index(k, shape))}]" if shape else name
