"""L-BFGS: steps along directions that use the curvature, which the optimizer learns from the last gradients.

`LBFGS` evaluates the loss and its gradient many times in one step, so ``step()`` needs a closure. The sums over
parameters are C; Python chooses the lengths of the steps.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flatgrad._core import (Parameters, Tensor, Value, _dot_and_largest, _lbfgs_direction, _lbfgs_pair,
                            _refuse_recording)
from flatgrad.arguments import finite, finite_array, non_negative, one_of, positive, shortened, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, DivergedError, GradientError, ShapeError, StateError
from flatgrad.optim.optimizers import MOST_STEPS, Optimizer, expect_keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    from numpy.typing import NDArray

    from flatgrad._core import _Params

__all__ = ["LBFGS"]

ENOUGH_CURVATURE = 1e-10     # a pair with y.s of this or less is left out
DECREASE, SLOPE = 1e-4, 0.9   # the constants of Wolfe's two conditions
NARROWEST = 1e-9             # change of a parameter between the ends of a bracket that is not made smaller
FIRST_ROWS = 8               # for pairs; there will be more where history_size says so

COUNTED = ("n_iter", "func_evals")
CHECKED: dict[str, Callable[..., Any]] = {"t": non_negative, "H_diag": positive, "prev_loss": finite}
KEPT = ("d", "t", "old_dirs", "old_stps", "ro", "H_diag", "prev_flat_grad", "prev_loss")


def one_or_more(name: str, value: int) -> int:
    """`value` as an int, 1 or more."""
    return whole(name, value, 1)


def line_search(name: str, value: str | None) -> str | None:
    """`value`, if it is None or the name of a line search."""
    return None if value is None else one_of(name, value, ["strong_wolfe"])


class LBFGS(Optimizer):
    """L-BFGS: a quasi-Newton method with limited memory.

    Parameters
    ----------
    params : iterable of Value and Tensor
        As for `Optimizer`, in one group: the method treats all parameters as one vector.
    lr : float, optional
        Factor of each step, 0 or more; with a line search, its first trial. The very first step is divided by the sum
        of the absolute gradients, if this sum is above 1.
    max_iter : int, optional
        The largest number of iterations in one ``step()``, 1 or more.
    max_eval : int, optional
        The largest number of evaluations of the loss in one ``step()``; the last line search may take one more. None:
        ``max_iter * 5 // 4``.
    tolerance_grad : float, optional
        A step ends when no gradient is larger than this.
    tolerance_change : float, optional
        A step ends when no parameter changes by more than this, or when the loss changes by less.
    history_size : int, optional
        The number of the last changes that the method keeps: two arrays as large as the parameters for each.
    line_search_fn : {None, 'strong_wolfe'}, optional
        Whether to search along each direction for a point that satisfies the strong Wolfe conditions. None: each
        iteration moves by `lr` times the direction.

    Attributes
    ----------
    param_groups : list of dict
        One group, with the parameters and the arguments above. Each ``step()`` reads them anew.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or there is more than one group.

    See Also
    --------
    Optimizer : attributes, copies and pickles.

    Notes
    -----
    In each iteration, for the gradient g, with s and y the last changes of the parameters and of the gradient [1]_::

        d = -H(g)                  H: made of the last pairs (s, y) and the scale (y.s) / (y.y)
        p = p + t * d              t: `lr`, or from the line search

    A pair with y.s of 1e-10 or less is left out, so H stays positive definite. The line search ends where, with f the
    loss along d and f' its slope [2]_, ``f(t) <= f(0) + 1e-4 * t * f'(0)`` and ``abs(f'(t)) <= 0.9 * abs(f'(0))``; or
    where no parameter changes by 1e-9 within the bracket.

    Names, defaults, rules and the iterates are those of `torch.optim.LBFGS`, with two exceptions. Where a line search
    meets a loss or slope that is nan or inf, or an OverflowError, a ZeroDivisionError or a domain error of Python's, it
    goes back to half the way; PyTorch goes on with nan. And the method never changes a frozen parameter, and takes 0
    for its gradient.

    The loss has to be the same function during a step: pass all samples, or one batch for all evaluations.

    References
    ----------
    .. [1] D. C. Liu and J. Nocedal, "On the limited memory BFGS method for large scale optimization", Mathematical
       Programming 45, 1989.
    .. [2] J. Nocedal and S. J. Wright, "Numerical Optimization", 2nd edition, 2006, sections 3.5 and 7.2.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import LBFGS
    >>> x, y = Value(-1.5), Value(2.0)
    >>> optimizer = LBFGS([x, y], max_iter=100, line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (1.0 - x) ** 2 + 100.0 * (y - x * x) ** 2
    ...     loss.backward()
    ...     return loss
    >>> first = optimizer.step(closure)
    >>> first.data
    12.5
    >>> round(x.data, 4), round(y.data, 4)
    (1.0, 1.0)

    A closure may also return a pair, of the loss and the gradient in one array:

    >>> import flatgrad
    >>> x.data, y.data = -1.5, 2.0
    >>> @flatgrad.compile
    ... def rosenbrock():
    ...     return (1.0 - x) ** 2 + 100.0 * (y - x * x) ** 2
    >>> optimizer = LBFGS([x, y], max_iter=100, line_search_fn="strong_wolfe")
    >>> optimizer.step(flatgrad.value_and_grad(rosenbrock, parameters=[x, y]))
    12.5
    >>> round(x.data, 4), round(y.data, 4)
    (1.0, 1.0)
    """

    _checks = {"lr": non_negative, "max_iter": one_or_more, "max_eval": one_or_more, "tolerance_grad": non_negative,
               "tolerance_change": non_negative, "history_size": one_or_more, "line_search_fn": line_search}
    _needs_closure = True

    def __init__(self, params: _Params, lr: float = 1, max_iter: int = 20, max_eval: int | None = None,
                 tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
                 line_search_fn: Literal['strong_wolfe'] | None = None) -> None:
        if max_eval is None:
            max_eval = max(1, one_or_more("max_iter", max_iter) * 5 // 4)
        super().__init__(params, lr=lr, max_iter=max_iter, max_eval=max_eval, tolerance_grad=tolerance_grad,
                         tolerance_change=tolerance_change, history_size=history_size, line_search_fn=line_search_fn)
        if len(self.param_groups) != 1:
            raise ArgumentError("params: expected one group, as LBFGS treats all parameters as one vector, got "
                                f"{len(self.param_groups)}")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Not for this optimizer: it treats all parameters as one vector, in one group.

        Parameters
        ----------
        param_group : dict

        Raises
        ------
        ArgumentError
            Always.
        """
        raise ArgumentError("param_group: LBFGS has one group, as it treats all parameters as one vector; make it with "
                            "all parameters")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take up to `max_iter` iterations.

        Parameters
        ----------
        closure : callable
            A function without arguments that evaluates the loss. It sets the gradients to 0, computes the loss, calls
            the loss's ``backward()`` and returns the loss: a Value, a Tensor of one element or a number. Or it returns
            a pair ``(loss, gradient)``, with the gradient by all parameters as one array, in the order of ``params``,
            and leaves the parameters' own gradients alone; so does a function of
            ``flatgrad.value_and_grad(..., parameters=params)``.

        Returns
        -------
        Value, Tensor or float
            The loss as the first call of `closure` has returned it.

        Raises
        ------
        TypeError, ValueError
            If `closure` is missing or returns something else, or a hyperparameter is not valid.
        DivergedError
            If the loss is nan or inf. A line search just goes back from such a point.
        GradientError
            If a gradient is nan or inf.

        Notes
        -----
        After an error, also of `closure` itself, the parameters are as the last whole iteration has left them.
        """
        if not callable(closure):
            raise ArgumentTypeError("closure: expected a function that computes the loss and its gradients, and returns "
                                    f"the loss, as LBFGS evaluates it several times in a step; got {closure!r}")
        _refuse_recording("an optimizer's step")
        if not Parameters.have(self.param_groups, self._read, self._seen):
            self._prepare()
        return Step(closure, self._parameters[0], self._state[0], self._learning_rates()[0]["lr"],
                    **self._taken[0][1]).take()

    def _saved(self, state):
        if "d" not in state:
            return dict(state)
        saved = {name: state[name] for name in (*COUNTED, *KEPT)}
        for name in ("old_dirs", "old_stps", "ro"):
            saved[name] = in_order(state, name)
        saved["d"], saved["prev_flat_grad"] = state["d"].copy(), state["prev_flat_grad"].copy()
        return saved

    def _state_from(self, name, loaded, count):
        if isinstance(loaded, dict) and len(loaded) <= len(COUNTED):   # before the first iteration
            expect_keys(name, loaded, COUNTED if loaded else ())
        else:
            expect_keys(name, loaded, (*COUNTED, *KEPT))
        state, shapes = {}, {"d": (count,), "prev_flat_grad": (count,)}
        for key in loaded:
            label = f"{name}[{key!r}]"
            try:
                if key in COUNTED:
                    state[key] = whole(label, loaded[key])
                elif key in CHECKED:
                    state[key] = CHECKED[key](label, loaded[key])
                else:
                    state[key] = np.array(finite_array(label, loaded[key]))
            except (ArgumentError, ArgumentTypeError) as error:
                raise StateError(str(error)) from None
            if key in COUNTED and state[key] > MOST_STEPS:
                raise StateError(f"{label}: expected an int, {MOST_STEPS} at most, got {state[key]}")
            if key in ("old_dirs", "old_stps", "ro"):
                pairs = shapes.setdefault("pairs", state[key].shape[:1])
                shapes[key] = pairs if key == "ro" else (*pairs, count)
            if key in shapes and state[key].shape != shapes[key]:
                raise StateError(f"{label}: expected the shape {shapes[key]}, got {state[key].shape}")
            if key == "ro" and not (state[key] > 0.0).all():
                raise StateError(f"{label}: expected numbers above 0, got {state[key].min()}")
        if "ro" in state:
            state["first"], state["pairs"] = 0, len(state["ro"])
        return state


def in_order(state: dict[str, float | NDArray[Any]], name: str) -> NDArray[Any]:
    """The rows of an array of pairs, the oldest first."""
    rows = np.arange(state["first"], state["first"] + state["pairs"]) % max(1, len(state[name]))
    return state[name][rows]


class Point(NamedTuple):   # on the line; the gradient is by all parameters
    t: Any
    loss: Any
    slope: Any
    gradient: Any


class Step:
    """One ``step()``: its closure, the parameters as the core has them, the state, and the hyperparameters."""

    x: NDArray[Any]
    work: NDArray[Any]
    state: dict[str, Any]
    closure: Callable[..., Any]
    parameters: Parameters
    lr: float
    max_iter: int
    max_eval: int
    history_size: int
    tolerance_grad: float
    tolerance_change: float
    search: str | None

    largest: float
    first: Value | float | np.float64 | None

    def __init__(self, closure: Callable[..., Any], parameters: Parameters, state: dict[str, Any], lr: float,
                 max_iter: int, max_eval: int, tolerance_grad: float, tolerance_change: float, history_size: int,
                 line_search_fn: str | None) -> None:
        self.closure, self.parameters, self.state, self.lr = closure, parameters, state, lr
        self.max_iter, self.max_eval, self.history_size = max_iter, max_eval, history_size
        self.tolerance_grad, self.tolerance_change, self.search = tolerance_grad, tolerance_change, line_search_fn
        self.largest = 0.0   # |gradient|, at the last evaluation
        self.first = None    # what the closure has returned first

    def take(self) -> Value | float | np.float64:
        state, parameters, tolerance_change = self.state, self.parameters, self.tolerance_change
        loss, gradient = self.evaluate()
        self.check(loss)
        for name in COUNTED:
            state.setdefault(name, 0)
        state["func_evals"] += 1
        evaluations = 1
        if self.largest <= self.tolerance_grad:
            return self.first
        self.begin()
        x = self.x = np.empty(parameters.count)
        direction = state["d"]
        for iteration in range(1, self.max_iter + 1):
            state["n_iter"] += 1
            self.turn(gradient)
            before = state["prev_loss"] = loss
            slope, longest = _dot_and_largest(gradient, direction)
            t = self.lr
            if state["n_iter"] == 1:
                t *= min(1.0, 1.0 / float(np.abs(gradient).sum()))
            state["t"] = t
            if slope > -tolerance_change:
                break
            if not math.isfinite(slope):
                state["t"] = 0.0
                raise GradientError(f"gradient: expected numbers whose squares are finite, got {self.largest}")
            parameters.get_data(x)
            largest, count = self.largest, 0
            try:
                if self.search is not None:
                    point, count, largest = self.strong_wolfe(Point(0.0, loss, slope, gradient), t, longest,
                                                              self.max_eval - evaluations)
                    t, loss, gradient = point.t, point.loss, point.gradient
                    parameters.set_data(x, t, direction)
                else:
                    parameters.set_data(x, t, direction)
                    if iteration < self.max_iter:   # the last loss would not be used: the next step may have another
                        loss, gradient = self.evaluate()
                        self.check(loss, iteration)
                        largest, count = self.largest, 1
            except BaseException:
                state["t"] = 0.0   # there was no move
                parameters.set_data(x)
                raise
            state["t"], self.largest = t, largest
            evaluations += count
            state["func_evals"] += count
            if (evaluations >= self.max_eval or largest <= self.tolerance_grad or longest * t <= tolerance_change
                    or abs(loss - before) < tolerance_change):
                break
        return self.first

    # ---- evaluations ----

    def evaluate(self) -> tuple[float, NDArray[Any]]:
        """The loss, a float, and its gradient, a new array."""
        result, parameters = self.closure(), self.parameters
        loss, gradient = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
        number = number_of(loss, result)
        if self.first is None:
            self.first = loss
        if gradient is None:
            gradient = np.empty(parameters.count)
            self.largest = parameters.get_grad(gradient)
        else:
            gradient = self.given(gradient)
            self.largest = _dot_and_largest(gradient, gradient)[1]
        return number, gradient

    def given(self, gradient: NDArray[Any] | list[Any]) -> NDArray[Any]:
        """The gradient that a closure has returned, as a new array."""
        try:
            array = np.array(gradient, np.float64)
        except (TypeError, ValueError):
            raise ArgumentTypeError("closure(): expected an array of numbers as the gradient, got "
                                    f"{shortened(gradient)}") from None
        if array.shape != (self.parameters.count,):
            raise ShapeError(f"closure(): expected the gradient by {self.parameters.count} parameters, an array of "
                             f"shape ({self.parameters.count},), got one of shape {array.shape}")
        self.parameters.clear_frozen(array)
        return array

    def check(self, loss: float, iteration: int | None = None) -> None:
        """An error if the loss or its gradient is not finite."""
        place = "" if iteration is None else f" after iteration {iteration} of the step"
        left = "" if iteration is None else "; the parameters are as the iteration before left them"
        if not math.isfinite(loss):
            hint = "" if iteration is None else (f". A learning rate below {self.lr:g} or line_search_fn='strong_wolfe' "
                                                 "may help")
            raise DivergedError(f"loss: expected a finite number, got {loss}{place}{left}{hint}")
        if not math.isfinite(self.largest):
            raise GradientError(f"gradient: expected finite numbers, got {self.largest}{place}, where the loss is "
                                f"{loss}{left}")

    # ---- the direction ----

    def begin(self) -> None:
        """Make room in the state; after the first iteration there is room for `history_size` pairs and a free row."""
        state, count = self.state, self.parameters.count
        if "d" not in state:
            state.update(d=np.zeros(count), t=0.0, old_dirs=np.empty((0, count)), old_stps=np.empty((0, count)),
                         ro=np.empty(0), H_diag=1.0, prev_flat_grad=np.zeros(count), prev_loss=0.0, first=0, pairs=0)
        if state["pairs"] > self.history_size:   # it is smaller than it was
            state["first"] += state["pairs"] - self.history_size
            state["pairs"] = self.history_size
        self.work = np.empty(self.history_size)
        self.parameters.clear_frozen(state["prev_flat_grad"])

    def turn(self, gradient: NDArray[Any]) -> None:
        """Learn from the last move, and set the direction."""
        state = self.state
        direction, before = state["d"], state["prev_flat_grad"]
        if state["n_iter"] > 1:
            self.make_room()
            changes, steps = state["old_dirs"], state["old_stps"]
            row = (state["first"] + state["pairs"]) % len(changes)
            curvature, square = _lbfgs_pair(changes, steps, row, gradient, before, direction, state["t"])
            if ENOUGH_CURVATURE < curvature < math.inf and square < math.inf:
                state["ro"][row] = 1.0 / curvature
                if state["pairs"] == self.history_size:
                    state["first"] = (state["first"] + 1) % len(changes)
                else:
                    state["pairs"] += 1
                state["H_diag"] = curvature / square
        else:
            state["H_diag"] = 1.0
        _lbfgs_direction(state["old_dirs"], state["old_stps"], state["ro"], state["first"], state["pairs"],
                         state["H_diag"], gradient, direction, self.work)
        self.parameters.clear_frozen(direction)
        before[:] = gradient

    def make_room(self) -> None:
        """A free row: more rows, up to `history_size` and the free one."""
        state, rows = self.state, len(self.state["ro"])
        pairs, most = state["pairs"], self.history_size + 1
        if pairs < rows <= most:
            return
        more = min(most, max(FIRST_ROWS, 2 * rows))
        new = {}
        for name in ("old_dirs", "old_stps", "ro"):
            new[name] = np.empty((more, *state[name].shape[1:]))
            new[name][:pairs] = in_order(state, name)
        state.update(new, first=0)

    # ---- the length of the step ----

    def at(self, t: float) -> Point:
        """The point at x + t * d; its loss is inf where the loss or the slope is not finite, or has no value."""
        self.parameters.set_data(self.x, t, self.state["d"])
        try:
            loss, gradient = self.evaluate()
        except (OverflowError, ZeroDivisionError):
            return Point(t, math.inf, math.inf, None)
        except ValueError as error:
            if type(error) is not ValueError or not str(error).startswith("math domain error"):
                raise
            return Point(t, math.inf, math.inf, None)
        slope = _dot_and_largest(gradient, self.state["d"])[0]
        if not (math.isfinite(loss) and math.isfinite(slope)):
            return Point(t, math.inf, math.inf, None)
        return Point(t, loss, slope, gradient)

    def strong_wolfe(self, start: Point, t: float, longest: float, most: int) -> tuple[Point, int, float]:
        """A point on the line that satisfies Wolfe's conditions, or the lowest that was found in `most` trials; the
        number of evaluations; and the largest |gradient| there."""
        loss, slope = start.loss, start.slope
        last, point, trials = start, self.at(t), 0
        bracket = None
        while trials < most:   # until there is a bracket
            if point.loss > loss + DECREASE * point.t * slope or trials > 1 and point.loss >= last.loss:
                bracket = [last, point]
                break
            if abs(point.slope) <= -SLOPE * slope:
                return point, trials + 1, largest_of(point)
            if point.slope >= 0.0:
                bracket = [last, point]
                break
            t = least_of_cubic(last, point, point.t + 0.01 * (point.t - last.t), 10.0 * point.t)
            last, point = point, self.at(t)
            trials += 1
        if bracket is None:
            bracket = [start, point]
        low = 0 if bracket[0].loss <= bracket[1].loss else 1   # which end has the lower loss
        too_close = False
        while trials < most:   # make the bracket smaller
            left, right = sorted((bracket[0].t, bracket[1].t))
            if (right - left) * longest < NARROWEST:
                break
            t = least_of_cubic(*bracket, left, right)
            margin = 0.1 * (right - left)
            if min(right - t, t - left) < margin:
                if too_close or t >= right or t <= left:
                    t = right - margin if abs(t - right) < abs(t - left) else left + margin
                    too_close = False
                else:
                    too_close = True
            else:
                too_close = False
            point = self.at(t)
            trials += 1
            if point.loss > loss + DECREASE * t * slope or point.loss >= bracket[low].loss:
                bracket[1 - low] = point
                low = 0 if bracket[0].loss <= bracket[1].loss else 1
                continue
            done = abs(point.slope) <= -SLOPE * slope
            if not done and point.slope * (bracket[1 - low].t - bracket[low].t) >= 0.0:
                bracket[1 - low] = bracket[low]
            bracket[low] = point
            if done:
                break
        return bracket[low], trials + 1, largest_of(bracket[low])


def largest_of(point: Point) -> float:
    return _dot_and_largest(point.gradient, point.gradient)[1]


def number_of(loss: Value | float, result: Value | float | tuple[float, NDArray[Any]]) -> float:
    """The loss that a closure has returned, alone or in the pair `result`, as a float."""
    if isinstance(loss, Value):
        return loss.data
    if isinstance(loss, Tensor) and loss.size == 1:
        return loss.item()
    if isinstance(loss, (float, int, np.floating, np.integer)) and not isinstance(loss, bool):
        return float(loss)
    hint = ": it has to return the loss" if result is None else ""
    raise ArgumentTypeError("closure(): expected the loss, a Value or a number, or a pair of the loss and the gradient, "
                            f"got {shortened(result)}{hint}")


def least_of_cubic(one: Point, other: Point, low: float, high: float) -> float | np.float64:
    """Where the cubic through two points, with their losses and slopes, has its minimum; cut off at the bounds, and
    the middle of them where there is no minimum."""
    a, b = (one, other) if one.t <= other.t else (other, one)
    middle = (low + high) / 2.0
    if a.t == b.t:
        return middle
    theta = a.slope + b.slope - 3.0 * (a.loss - b.loss) / (a.t - b.t)
    square = theta * theta - a.slope * b.slope
    if not 0.0 <= square < math.inf:
        return middle
    root = math.sqrt(square)
    numerator, denominator = b.slope + root - theta, b.slope - a.slope + 2.0 * root
    if denominator == 0.0:   # as IEEE divides
        share = math.copysign(math.inf, numerator) if numerator else math.nan
    else:
        share = numerator / denominator
    t = b.t - (b.t - a.t) * share
    return middle if math.isnan(t) else min(max(t, low), high)
