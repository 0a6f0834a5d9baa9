"""Optimizers, which update parameters by their gradients: PyTorch's names, defaults and update rules.

A step is one call into C; no Python code loops over parameters. `array_rules` has rules that NumPy computes. PyTorch's
arguments `foreach`, `fused` and `capturable` are for GPUs, and `differentiable` is for derivatives of the step itself:
flatgrad has none of them.
"""
from __future__ import annotations

import copy
from operator import is_
from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import Parameters, Tensor, Value
from flatgrad.arguments import finite, finite_array, flag, non_negative, one_of, whole, within
from flatgrad.errors import ArgumentError, ArgumentTypeError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad._core import _Params

__all__ = ["Optimizer", "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta"]

# The keys that schedulers of the learning rate add to a group.
SCHEDULED: dict[str, Callable[..., Any]]
SCHEDULED = {"initial_lr": non_negative, "max_lr": non_negative, "min_lr": non_negative,
             "max_momentum": lambda name, value: within(name, value, 0.0, 1.0),
             "base_momentum": lambda name, value: within(name, value, 0.0, 1.0)}

# The number of steps has to be an integer that float64 holds.
MOST_STEPS = 2**53


# The parts of the state that are sums or means of squares.
OF_SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "acc_delta")


def parameter_list(params: Any, name: str = "params", some: bool = True) -> list[Value | Tensor]:
    """An optimizer's `params` as a new list. The core checks its items."""
    expected = f"{name}: expected an iterable of Values and Tensors, such as model.parameters(), got"
    if isinstance(params, (Tensor, set, frozenset, dict)):   # a set has no order that a copy could keep
        raise ArgumentTypeError(f"{expected} a {type(params).__name__}")
    try:
        params = iter(params)
    except TypeError:
        raise ArgumentTypeError(f"{expected} {params!r}") from None
    params = list(params)
    if some and not params:
        raise ArgumentError(f"{name}: optimizer got an empty parameter list, expected one Value or Tensor at least")
    return params


def kept(state: dict[str, Any], name: str, parameters: Parameters, fill: float = 0.0) -> NDArray[Any]:
    """An array of the state; it is made now if it does not exist."""
    if name not in state:
        state[name] = np.full(parameters.count, fill)
    return state[name]


def up_to_one(name: str, value: float) -> float:
    """`value` as a float from 0 to 1."""
    return within(name, value, 0.0, np.nextafter(1.0, 2.0), "a number from 0 to 1")


def pair_of_betas(name: str, betas: tuple[float, float]) -> tuple[float, float]:
    """Adam's `betas` as a pair of floats."""
    try:
        first, second = betas
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{name}: expected a pair of numbers, got {betas!r}") from None
    return within(f"{name}[0]", first, 0.0, 1.0), within(f"{name}[1]", second, 0.0, 1.0)


def expect_keys(name: str, mapping: dict[str, Any], required: list[str] | tuple[Any, ...],
                others: tuple[Any, ...] | list[str] = ()) -> None:
    """StateError if `mapping` is no dict, a required key is missing, or a key is neither in `required` nor in
    `others`."""
    if not isinstance(mapping, dict):
        raise StateError(f"{name}: expected a dict, got {described(mapping)}")
    missing = [key for key in required if key not in mapping]
    extra = [key for key in mapping if key not in required and key not in others]
    if missing or extra:
        raise StateError(f"{name}: expected the keys {list(required)}"
                         + f", got none of the name {', '.join(map(repr, missing))}" * bool(missing)
                         + f", got {', '.join(map(repr, extra))} as well" * bool(extra)
                         + ": is it the state of another class?")


def hyperparameter(k: int, group: dict[str, Any], name: str) -> Any:
    """The value of hyperparameter `name` in group number `k`."""
    if name not in group:
        raise ArgumentError(f"param_groups[{k}]: expected the key {name!r}, got the keys {list(group)}")
    return group[name]


def same(params: _Params, given: tuple[Any, Any]) -> bool:
    """Whether `params` are the parameters of a group: the same list unchanged, or another list of the same objects."""
    theirs, copied = given
    return (isinstance(params, (list, tuple)) and len(params) == len(copied)
            and (params is theirs or all(map(is_, params, copied))))


def loss_of(closure: Callable[[], Any] | None) -> Any:
    """The result of a closure that a step is given; None without one."""
    if closure is None:
        return None
    if not callable(closure):
        raise ArgumentTypeError(f"closure: expected a callable that returns the loss, got {closure!r}")
    return closure()


def described(x: list[Any] | int | str | None) -> str:
    """A description for messages: the length of a list, the repr of any other object."""
    return f"one of length {len(x)}" if isinstance(x, (list, tuple)) else repr(x)


class Optimizer:
    """The base class of optimizers: parameters in groups, each group with its hyperparameters.

    Parameters
    ----------
    params : iterable of Value and Tensor, or iterable of dict
        The parameters to update. A parameter that occurs twice, such as tied weights, is updated once. A Tensor has to
        be a leaf with ``requires_grad=True`` (not the result of an operation), or some rows of such a leaf. Each dict
        makes a group: ``'params'`` has its parameters, and other keys are hyperparameters that differ from the
        defaults.
    defaults : dict, optional
        The default hyperparameters of the groups, by name, including `lr`.
    **hyperparameters
        More default hyperparameters.

    Attributes
    ----------
    param_groups : list of dict
        Each dict has the key ``'params'``, a list, and the hyperparameters. Every step reads the hyperparameters anew:
        ``param_groups[0]['lr'] = 0.1`` works. Use `add_param_group` for more parameters.
    defaults : dict
        The hyperparameters of a group without hyperparameters of its own.
    lr : float
        Learning rate of the first group. Assigning `lr` sets the learning rate of all groups.

    Raises
    ------
    TypeError, ValueError
        If `params` is empty or contains objects of another type, if a parameter is in two groups, or if a group
        has a key that is no hyperparameter.

    Notes
    -----
    A class of your own defines its rule in ``step()``, which reads `param_groups` and writes ``p.data``.

    Copies, deep copies and pickles continue with the state of the original. A deep copy or pickle of a model together
    with its optimizer, as in ``copy.deepcopy((model, optimizer))``, keeps the two connected. A deep copy of the
    optimizer alone has parameters of its own. `copy.copy` shares the parameters and nothing else.

    PyTorch does not update a parameter whose gradient is None. A gradient in flatgrad is always a number, initially
    0, and every step updates every parameter.

    Examples
    --------
    Two groups, each with its own learning rate:

    >>> from flatgrad import Tensor, Value
    >>> from flatgrad.optim import SGD
    >>> weight, bias = Tensor([1.0, 2.0]), Value(0.5)
    >>> optimizer = SGD([{"params": [weight], "weight_decay": 0.1}, {"params": [bias], "lr": 0.5}], lr=0.25)
    >>> weight.grad, bias.grad = [1.0, 1.0], 1.0
    >>> optimizer.step()
    >>> weight.data, bias.data
    (array([0.725, 1.7  ]), 0.0)

    A rule of your own:

    >>> from flatgrad.optim import Optimizer
    >>> class SignDescent(Optimizer):
    ...     def step(self):
    ...         for group in self.param_groups:
    ...             for p in group["params"]:
    ...                 p.data -= group["lr"] * (1.0 if p.grad > 0.0 else -1.0)
    >>> SignDescent([bias], lr=0.25).step()
    >>> bias.data
    -0.25
    """

    defaults: dict[str, Any]
    param_groups: list[dict[str, Any]]

    _checks = {}      # name of a hyperparameter -> its check, in the order of the rule's arguments
    _keeps = ()       # names of the arrays that a step leaves in the state
    _may_keep = ()    # names of arrays that exist only with some hyperparameters
    _counts = {}      # names of numbers in the state, besides 'step' -> the check of each
    _needs_closure = False   # whether a step evaluates the loss, several times
    _in_python = False       # whether a step computes in Python, so that no compiled loop has it

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._read = ("params", *(name for name in cls._checks if name != "lr"))

    def __init__(self, params: _Params, defaults: dict[str, Any] | None = None, **hyperparameters: Any) -> None:
        self.defaults = {name: self._checks[name](name, value) if name in self._checks else value
                         for name, value in {**(defaults or {}), **hyperparameters}.items()}
        self._check_together("", self.defaults)
        self._forget()
        self.param_groups = []
        self._parameters = []   # the core's object for each group
        self._given = []        # each group's list of parameters, and a copy of the list
        self._state = []        # for each group: the state that a step leaves for the next step
        params = parameter_list(params)
        if any(isinstance(p, dict) for p in params):
            for k, group in enumerate(params):
                self._add(f"params[{k}]", group)
        else:
            self._add("", {"params": params})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters.

        Parameters
        ----------
        param_group : dict
            ``'params'`` has the parameters, an iterable or a single one; other keys are hyperparameters that differ
            from the defaults.

        Raises
        ------
        TypeError, ValueError
            If the dict is not as described, or if a parameter is in another group. The optimizer does not change then.
        """
        self._add("param_group", param_group)

    def _add(self, name, group):
        """Add a group; messages call the group `name`."""
        if not isinstance(group, dict):
            raise ArgumentTypeError(f"{name}: expected a dict with the key 'params', got {group!r}")
        if "params" not in group:
            raise ArgumentError(f"{name}: expected a dict with the key 'params', got the keys {list(group)}")
        for key in group:
            one_of(f"key of {name}", key, ["params", *self.defaults, *SCHEDULED])
        label = f"{name}['params']" if name else "params"
        params = group["params"]
        params = [params] if name and isinstance(params, (Value, Tensor)) else parameter_list(params, label, not name)
        parameters = Parameters(params, label)
        for k, other in enumerate(self._parameters):
            shared = parameters.shared_with(other)
            if shared is not None:
                index = next(i for i, p in enumerate(params) if p is shared)
                raise ArgumentError(f"{label}[{index}]: expected a parameter that is in no other group, got one "
                                    f"that is in param_groups[{k}]")
        own = {key: self._checks[key](f"{name}[{key!r}]", value) if key in self._checks else value
               for key, value in group.items() if key != "params"}
        self._check_together(f"{name}: " if name else "", {**self.defaults, **own})
        once = list({id(p): p for p in params}.values())   # compare ids, because a subclass may define ==
        self.param_groups.append({"params": once, **self.defaults, **own})
        self._parameters.append(parameters)
        self._given.append((once, tuple(once)))
        self._state.append({})
        self._forget()

    def _check_together(self, name, hyperparameters):
        """Check whether hyperparameters fit each other; each by itself has been checked."""

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to 0.

        A backward pass adds to gradients, so call this method before each backward pass.
        """
        for parameters in self._parameters:
            parameters.zero_grad()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter by its gradient.

        Parameters
        ----------
        closure : callable, optional
            A function without arguments that is called first: it sets gradients to 0, computes the loss, calls the
            loss's ``backward()`` and returns the loss.

        Returns
        -------
        Value or None
            The result of `closure`.

        Raises
        ------
        TypeError, ValueError
            If a hyperparameter of a group is not valid for this optimizer. No parameter has changed then.
        """
        if not self._checks:
            raise NotImplementedError(f"{type(self).__name__} has no step()")
        loss = None if closure is None else loss_of(closure)
        done = Parameters.step(self._parameters, self.param_groups, self._read, self._seen)
        if done is None:
            self._prepare()
            done = Parameters.step(self._parameters, self.param_groups)
        if not done:   # learning rates of types other than float
            Parameters.step(self._parameters, self._learning_rates())
        return loss

    def _forget(self):
        """Make the next step check all hyperparameters again."""
        self._seen = None   # each group's values of the keys `_read`, at the last successful check
        self._taken = []    # the same as dicts, and the checked values

    def _prepare(self):
        """Check the hyperparameters of all groups, then pass changed ones to the core."""
        if len(self.param_groups) != len(self._parameters):
            raise ArgumentError(f"param_groups: expected {len(self._parameters)} groups, got {len(self.param_groups)}; "
                                "add_param_group() adds one")
        seen, taken = [], []
        for k, group in enumerate(self.param_groups):
            if not same(group.get("params"), self._given[k]):
                raise ArgumentError(f"param_groups[{k}]['params']: expected the parameters that the optimizer was made "
                                    "with; add_param_group() adds some")
            raw, right = {}, {}
            before, right_then = self._taken[k] if self._taken else ({}, {})
            for name, check in self._checks.items():
                if name == "lr":
                    continue   # the core reads the learning rate in every step, because it changes often
                value = hyperparameter(k, group, name)
                if name in before and before[name] is value:
                    right[name] = right_then[name]
                else:
                    right[name] = check(f"param_groups[{k}][{name!r}]", value)
                # Values that may change in place are checked in every step.
                raw[name] = value if isinstance(value, (float, int, tuple, np.generic)) else object()
            seen.append((group["params"], *raw.values()))
            taken.append((raw, right))
        for parameters, state, (_, right) in zip(self._parameters, self._state, taken):
            self._use(parameters, state, **right)
        self._seen, self._taken = seen, taken

    def _use(self, parameters, state, **hyperparameters):
        """Set the update rule of a group in the core, with all hyperparameters except the learning rate."""

    def _learning_rates(self):
        """One dict for each group, with its checked learning rate."""
        return [{"lr": non_negative(f"param_groups[{k}]['lr']", hyperparameter(k, group, "lr"))}
                for k, group in enumerate(self.param_groups)]

    def state_dict(self) -> dict[str, Any]:
        """The state for continuing later, without the parameters themselves.

        Returns
        -------
        dict
            ``'state'``, a list with a dict of numbers and arrays for each group, and ``'param_groups'``, a list with a
            dict of hyperparameters for each group; its ``'count'`` is the number of scalar parameters of the group.
            Arrays are copies.
        """
        return {
            "state": [self._saved(state) for state in self._state],
            "param_groups": [
                {**{name: copy.deepcopy(value) for name, value in group.items() if name != "params"},
                 "count": parameters.count}
                for group, parameters in zip(self.param_groups, self._parameters)],
        }

    def _saved(self, state):
        """A group's state as a state dict has it, all copied."""
        return {name: copy.deepcopy(value) for name, value in state.items() if value is not None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state, with the hyperparameters in it.

        Parameters
        ----------
        state_dict : dict
            The result of `state_dict`, from an optimizer of the same class with the same number of groups and of
            parameters in each. The dict does not change, and its arrays are copied.

        Raises
        ------
        StateError
            If `state_dict` is not as described. The optimizer does not change then.
        """
        expect_keys("state_dict", state_dict, ["state", "param_groups"])
        for key in state_dict:
            if not isinstance(state_dict[key], (list, tuple)) or len(state_dict[key]) != len(self.param_groups):
                raise StateError(f"state_dict[{key!r}]: expected a list for {len(self.param_groups)} "
                                 f"group{'s' * (len(self.param_groups) != 1)}, got {described(state_dict[key])}")
        groups, states, checks = [], [], {**SCHEDULED, **self._checks}
        for k, (group, parameters) in enumerate(zip(self.param_groups, self._parameters)):
            name = f"state_dict['param_groups'][{k}]"
            loaded = state_dict["param_groups"][k]
            expect_keys(name, loaded, [*self.defaults, "count"],
                        [*SCHEDULED, *(key for key in group if key != "params")])
            try:
                if whole(f"{name}['count']", loaded["count"]) != parameters.count:
                    raise StateError(f"{name}['count']: expected {parameters.count}, the number of parameters, "
                                     f"got {loaded['count']!r}")
                groups.append({key: checks[key](f"{name}[{key!r}]", value) if key in checks
                               else copy.deepcopy(value) for key, value in loaded.items() if key != "count"})
            except (ArgumentError, ArgumentTypeError) as error:
                raise StateError(str(error)) from None
            states.append(self._state_from(f"state_dict['state'][{k}]", state_dict["state"][k], parameters.count))
        self._check_loaded(groups)
        before = [dict(group) for group in self.param_groups], self._state
        try:
            for group, loaded in zip(self.param_groups, groups):
                params = group["params"]
                group.clear()
                group["params"] = params
                group.update(loaded)
            self._state = states
        except BaseException:   # such as an interrupt
            for group, old in zip(self.param_groups, before[0]):
                group.clear()
                group.update(old)
            self._state = before[1]
            raise
        finally:
            self._forget()

    def _check_loaded(self, groups):
        """Check whether loaded hyperparameters belong to the same rule."""

    def _state_from(self, name, loaded, count):
        """A new state of a group from the state in a state dict."""
        if not isinstance(loaded, dict) or loaded:   # an empty dict is the state before the first step
            expect_keys(name, loaded, self._keeps, self._may_keep)
        state = {}
        for key, value in loaded.items():
            label = f"{name}[{key!r}]"
            try:
                if key == "step":
                    if whole(label, value) > MOST_STEPS:
                        raise StateError(f"{label}: expected an int, {MOST_STEPS} at most, got {value!r}")
                    value = whole(label, value)
                elif key in self._counts:
                    value = self._counts[key](label, value)
                else:
                    value = np.array(finite_array(label, value))
            except (ArgumentError, ArgumentTypeError) as error:
                raise StateError(str(error)) from None
            if isinstance(value, np.ndarray) and value.shape != (count,):
                raise StateError(f"{label}: expected the shape ({count},), got {value.shape}")
            if key in OF_SQUARES and (value < 0.0).any():
                raise StateError(f"{label}: expected averages of squares, 0 or more, got {value.min()}")
            state[key] = value
        return state

    @property
    def lr(self) -> float:
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, value: float) -> None:
        value = non_negative("lr", value)
        for group in self.param_groups:
            group["lr"] = value

    def __getstate__(self) -> dict[str, Any]:
        of_the_core = ("_parameters", "_given", "_seen", "_taken")
        return {name: value for name, value in vars(self).items() if name not in of_the_core}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        # New containers, so that the original and the result of copy.copy do not share their moments.
        self.defaults = dict(self.defaults)
        self.param_groups = [{**group, "params": list(group["params"])} for group in self.param_groups]
        self._state = [{name: value.copy() if isinstance(value, np.ndarray) else value
                        for name, value in state.items()} for state in self._state]
        self._parameters = [Parameters(group["params"]) for group in self.param_groups]
        self._given = [(group["params"], tuple(group["params"])) for group in self.param_groups]
        self._forget()

    def __repr__(self) -> str:
        groups = [
            ", ".join([f"{parameters.count} parameter{'s' * (parameters.count != 1)}",
                       *(f"{name}={value!r}" for name, value in group.items() if name != "params")])
            for group, parameters in zip(self.param_groups, self._parameters)]
        return f"{type(self).__name__}({'; '.join(groups)})"


class SGD(Optimizer):
    """Gradient descent, optionally with momentum.

    Parameters
    ----------
    params : iterable of Value and Tensor, or iterable of dict
        As for `Optimizer`.
    lr : float, optional
        Learning rate, 0 or more.
    momentum : float, optional
        Factor of the earlier gradients in each step, 0 or more.
    dampening : float, optional
        The share of a gradient that does not enter the momentum.
    weight_decay : float, optional
        Factor of the L2 penalty: `weight_decay` times the parameter is added to its gradient. 0 or more.
    nesterov : bool, optional
        Whether to use Nesterov's momentum, which needs `momentum` and no `dampening`.
    maximize : bool, optional
        Whether to maximize: the sign of the gradient is turned.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; numbers have to be finite.

    See Also
    --------
    Optimizer : attributes, groups, copies and pickles.

    Notes
    -----
    For the parameter p and its gradient, with b = d in the first step that has momentum::

        d = gradient + weight_decay * p
        b = momentum * b + (1 - dampening) * d
        p = p - lr * (d + momentum * b  if nesterov else  b)

    Without momentum the step is ``p = p - lr * d``. Names, defaults and formula are PyTorch's. PyTorch's velocity is
    not scaled by the learning rate; the velocity of [1]_ is.

    References
    ----------
    .. [1] I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of initialization and
       momentum in deep learning", ICML 2013.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import SGD
    >>> x = Value(5.0)
    >>> optimizer = SGD([x], lr=0.25)
    >>> for _ in range(3):
    ...     optimizer.zero_grad()
    ...     ((x - 1.0) ** 2).backward()
    ...     optimizer.step()
    ...     print(x.data)
    3.0
    2.0
    1.5
    >>> optimizer.lr /= 2
    >>> optimizer
    SGD(1 parameter, lr=0.125, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False)
    """

    _checks = {"lr": non_negative, "momentum": non_negative, "dampening": finite, "weight_decay": non_negative,
               "nesterov": flag, "maximize": flag}
    _may_keep = ("momentum_buffer",)

    def __init__(self, params: _Params, lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
                 weight_decay: float = 0.0, nesterov: bool = False, *, maximize: bool = False) -> None:
        super().__init__(params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay,
                         nesterov=nesterov, maximize=maximize)

    def _check_together(self, name, hyperparameters):
        momentum, dampening = hyperparameters["momentum"], hyperparameters["dampening"]
        if hyperparameters["nesterov"] and not (momentum > 0.0 and dampening == 0.0):
            raise ArgumentError(f"{name}nesterov: expected momentum above 0 and dampening 0 with it, "
                                f"got momentum={momentum!r}, dampening={dampening!r}")

    def _use(self, parameters, state, **hyperparameters):
        buffer = state.get("momentum_buffer")
        if hyperparameters["momentum"] == 0.0:
            buffer = None
        elif buffer is None:
            buffer = np.zeros(parameters.count)
        parameters.sgd(state, buffer, **hyperparameters)


class Adam(Optimizer):
    """Adam: steps scaled by running averages of the gradient and of its square.

    Parameters
    ----------
    params : iterable of Value and Tensor, or iterable of dict
        As for `Optimizer`.
    lr : float, optional
        Learning rate, 0 or more.
    betas : pair of float, optional
        Factors of the earlier averages in each step, each from 0 to below 1.
    eps : float, optional
        A number added to the root of the averaged square, 0 or more.
    weight_decay : float, optional
        Factor of the L2 penalty: `weight_decay` times the parameter is added to its gradient. 0 or more.
    amsgrad : bool, optional
        Whether to divide by the root of the largest averaged square so far [2]_.
    maximize : bool, optional
        Whether to maximize: the sign of the gradient is turned.
    decoupled_weight_decay : bool, optional
        Whether to use the weight decay of `AdamW`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; numbers have to be finite.

    See Also
    --------
    Optimizer : attributes, groups, copies and pickles.

    Notes
    -----
    For the parameter p and its gradient, in step t = 1, 2, ..., with m and v initially 0 [1]_::

        d = gradient + weight_decay * p
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d**2
        p = p - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)

    With `amsgrad`, the last line has the largest v so far instead of v. Names, defaults and formulas are PyTorch's.

    References
    ----------
    .. [1] D. P. Kingma and J. Ba, "Adam: A method for stochastic optimization", ICLR 2015.
    .. [2] S. J. Reddi, S. Kale and S. Kumar, "On the convergence of Adam and beyond", ICLR 2018.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import Adam
    >>> x = Value(5.0)
    >>> optimizer = Adam([x], lr=0.5)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     ((x - 1.0) ** 2).backward()
    ...     optimizer.step()
    >>> round(x.data, 1)
    1.0
    """

    _checks = {"lr": non_negative, "betas": pair_of_betas, "eps": non_negative, "weight_decay": non_negative,
               "amsgrad": flag, "maximize": flag, "decoupled_weight_decay": flag}
    _keeps = ("step", "exp_avg", "exp_avg_sq")
    _may_keep = ("max_exp_avg_sq",)

    def __init__(self, params: _Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0, amsgrad: bool = False, *, maximize: bool = False,
                 decoupled_weight_decay: bool = False) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
                         maximize=maximize, decoupled_weight_decay=decoupled_weight_decay)

    def _check_loaded(self, groups):
        for k, (group, loaded) in enumerate(zip(self.param_groups, groups)):
            if loaded["decoupled_weight_decay"] != group["decoupled_weight_decay"]:
                raise StateError(f"state_dict['param_groups'][{k}]['decoupled_weight_decay']: expected "
                                 f"{group['decoupled_weight_decay']!r}, got {loaded['decoupled_weight_decay']!r}: "
                                 "Adam and AdamW do not take each other's state")

    def _use(self, parameters, state, betas, eps, weight_decay, amsgrad, maximize, decoupled_weight_decay):
        parameters.adam(state, kept(state, "exp_avg", parameters), kept(state, "exp_avg_sq", parameters),
                        kept(state, "max_exp_avg_sq", parameters) if amsgrad else None, *betas, eps, weight_decay,
                        decoupled_weight_decay, maximize)


class AdamW(Adam):
    """Adam with weight decay that shrinks the parameters and does not enter the averages.

    Parameters
    ----------
    params : iterable of Value and Tensor, or iterable of dict
        As for `Optimizer`.
    lr : float, optional
        Learning rate, 0 or more.
    betas : pair of float, optional
        Factors of the earlier averages in each step, each from 0 to below 1.
    eps : float, optional
        A number added to the root of the averaged square, 0 or more.
    weight_decay : float, optional
        Each step subtracts ``lr * weight_decay`` times the parameter. 0 or more.
    amsgrad : bool, optional
        Whether to divide by the root of the largest averaged square so far.
    maximize : bool, optional
        Whether to maximize: the sign of the gradient is turned.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; numbers have to be finite.

    See Also
    --------
    Adam : with weight decay as an L2 penalty.
    Optimizer : attributes, groups, copies and pickles.

    Notes
    -----
    For the parameter p and its gradient, in step t = 1, 2, ..., with m and v initially 0 [1]_::

        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        p = (1 - lr * weight_decay) * p
        p = p - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)

    Names, defaults and formulas are PyTorch's.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Examples
    --------
    Without a gradient, the step is the decay alone:

    >>> from flatgrad import Value
    >>> from flatgrad.optim import AdamW
    >>> x = Value(4.0)
    >>> AdamW([x], lr=0.5, weight_decay=0.5).step()
    >>> x.data
    3.0
    """

    def __init__(self, params: _Params, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize,
                         decoupled_weight_decay=True)


class RMSprop(Optimizer):
    """Gradients divided by the root of the running average of their squares.

    Parameters
    ----------
    params : iterable of Value and Tensor, or iterable of dict
        As for `Optimizer`.
    lr : float, optional
        Learning rate, 0 or more.
    alpha : float, optional
        Factor of the earlier average in each step, from 0 to 1.
    eps : float, optional
        A number added to the root, 0 or more.
    weight_decay : float, optional
        Factor of the L2 penalty: `weight_decay` times the parameter is added to its gradient. 0 or more.
    momentum : float, optional
        Factor of the earlier steps in each step, 0 or more.
    centered : bool, optional
        Whether to divide by the gradient's standard deviation, as in [2]_.
    maximize : bool, optional
        Whether to maximize: the sign of the gradient is turned.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; numbers have to be finite.

    See Also
    --------
    Optimizer : attributes, groups, copies and pickles.

    Notes
    -----
    For the parameter p and its gradient, with v, a and b initially 0 [1]_::

        d = gradient + weight_decay * p
        v = alpha * v + (1 - alpha) * d**2
        a = alpha * a + (1 - alpha) * d
        s = sqrt(v - a**2  if centered else  v) + eps
        b = momentum * b + d / s
        p = p - lr * b

    Names, defaults and formulas are PyTorch's. Where rounding makes v - a**2 negative, flatgrad uses 0 and PyTorch
    gives nan.

    References
    ----------
    .. [1] T. Tieleman and G. Hinton, "Lecture 6.5: rmsprop", COURSERA: Neural Networks for Machine
       Learning, 2012.
    .. [2] A. Graves, "Generating sequences with recurrent neural networks", arXiv:1308.0850, 2013.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import RMSprop
    >>> x = Value(5.0)
    >>> optimizer = RMSprop([x], lr=0.05)
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     ((x - 1.0) ** 2).backward()
    ...     optimizer.step()
    >>> round(x.data, 1)
    1.0
    """

    _checks = {"lr": non_negative, "momentum": non_negative, "alpha": up_to_one, "eps": non_negative,
               "centered": flag, "weight_decay": non_negative, "maximize": flag}
    _keeps = ("square_avg",)
    _may_keep = ("momentum_buffer", "grad_avg")

    def __init__(self, params: _Params, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False, *,
                 maximize: bool = False) -> None:
        super().__init__(params, lr=lr, momentum=momentum, alpha=alpha, eps=eps, centered=centered,
                         weight_decay=weight_decay, maximize=maximize)

    def _use(self, parameters, state, centered, momentum, **hyperparameters):
        parameters.rmsprop(state, kept(state, "square_avg", parameters),
                           kept(state, "grad_avg", parameters) if centered else None,
                           kept(state, "momentum_buffer", parameters) if momentum else None,
                           momentum=momentum, **hyperparameters)


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of their squares so far.

    Parameters
    ----------
    params : iterable of Value and Tensor, or iterable of dict
        As for `Optimizer`.
    lr : float, optional
        Learning rate, 0 or more.
    lr_decay : float, optional
        The rate at which the learning rate falls, 0 or more.
    weight_decay : float, optional
        Factor of the L2 penalty: `weight_decay` times the parameter is added to its gradient. 0 or more.
    initial_accumulator_value : float, optional
        The initial value of the sum, 0 or more.
    eps : float, optional
        A number added to the root, 0 or more.
    maximize : bool, optional
        Whether to maximize: the sign of the gradient is turned.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; numbers have to be finite.

    See Also
    --------
    Optimizer : attributes, groups, copies and pickles.

    Notes
    -----
    For the parameter p and its gradient, in step t = 1, 2, ... [1]_::

        d = gradient + weight_decay * p
        s = s + d**2
        p = p - lr / (1 + (t - 1) * lr_decay) * d / (sqrt(s) + eps)

    Names, defaults and formulas are PyTorch's. Each group may have its own `initial_accumulator_value`; PyTorch uses
    the optimizer's default for all groups.

    References
    ----------
    .. [1] J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods for online learning and
       stochastic optimization", Journal of Machine Learning Research 12, 2011.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import Adagrad
    >>> x = Value(5.0)
    >>> optimizer = Adagrad([x], lr=1.0)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     ((x - 1.0) ** 2).backward()
    ...     optimizer.step()
    >>> round(x.data, 3)
    1.0
    """

    _checks = {"lr": non_negative, "lr_decay": non_negative, "eps": non_negative, "weight_decay": non_negative,
               "initial_accumulator_value": non_negative, "maximize": flag}
    _keeps = ("step", "sum")

    def __init__(self, params: _Params, lr: float = 1e-2, lr_decay: float = 0.0, weight_decay: float = 0.0,
                 initial_accumulator_value: float = 0.0, eps: float = 1e-10, *, maximize: bool = False) -> None:
        super().__init__(params, lr=lr, lr_decay=lr_decay, eps=eps, weight_decay=weight_decay,
                         initial_accumulator_value=initial_accumulator_value, maximize=maximize)

    def _use(self, parameters, state, initial_accumulator_value, **hyperparameters):
        parameters.adagrad(state, kept(state, "sum", parameters, initial_accumulator_value), **hyperparameters)


class Adadelta(Optimizer):
    """Gradients scaled by the ratio of the sizes of earlier steps and earlier gradients.

    Parameters
    ----------
    params : iterable of Value and Tensor, or iterable of dict
        As for `Optimizer`.
    lr : float, optional
        Factor of each step, 0 or more.
    rho : float, optional
        Factor of the earlier averages in each step, from 0 to 1.
    eps : float, optional
        A number added under each root, 0 or more.
    weight_decay : float, optional
        Factor of the L2 penalty: `weight_decay` times the parameter is added to its gradient. 0 or more.
    maximize : bool, optional
        Whether to maximize: the sign of the gradient is turned.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; numbers have to be finite.

    See Also
    --------
    Optimizer : attributes, groups, copies and pickles.

    Notes
    -----
    For the parameter p and its gradient, with v and u initially 0 [1]_::

        d = gradient + weight_decay * p
        v = rho * v + (1 - rho) * d**2
        s = sqrt(u + eps) / sqrt(v + eps) * d
        u = rho * u + (1 - rho) * s**2
        p = p - lr * s

    Names, defaults and formulas are PyTorch's.

    References
    ----------
    .. [1] M. D. Zeiler, "ADADELTA: An adaptive learning rate method", arXiv:1212.5701, 2012.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.optim import Adadelta
    >>> x = Value(5.0)
    >>> optimizer = Adadelta([x], eps=1e-2)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     ((x - 1.0) ** 2).backward()
    ...     optimizer.step()
    >>> round(x.data, 1)
    1.0
    """

    _checks = {"lr": non_negative, "rho": up_to_one, "eps": non_negative, "weight_decay": non_negative,
               "maximize": flag}
    _keeps = ("square_avg", "acc_delta")

    def __init__(self, params: _Params, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0,
                 *, maximize: bool = False) -> None:
        super().__init__(params, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)

    def _use(self, parameters, state, **hyperparameters):
        parameters.adadelta(state, kept(state, "square_avg", parameters), kept(state, "acc_delta", parameters),
                            **hyperparameters)
