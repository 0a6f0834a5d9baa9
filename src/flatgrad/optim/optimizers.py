"""Optimizers: how parameters follow their gradients. PyTorch's names, defaults and update rules.

A step is one call into C for each group of parameters: what is here does not loop over them.
"""
import numpy as np

from flatgrad._core import Parameters, Tensor
from flatgrad.arguments import finite, flag, non_negative

__all__ = ["Optimizer", "SGD", "Adam"]


class Optimizer:
    """What the optimizers share: parameters in groups, each group with its hyperparameters.

    Parameters
    ----------
    params : iterable of Value and Tensor
        What is to be updated. One that occurs twice, as tied weights do, is updated once. A Tensor
        has to be a leaf, that is not the result of an operation, with ``requires_grad=True``, or some
        of its rows.
    **hyperparameters
        Of the one group that these make, by name, `lr` among them.

    Attributes
    ----------
    param_groups : list of dict
        Each has the key ``'params'``, a list, and the hyperparameters, which every step reads anew:
        ``param_groups[0]['lr'] = 0.1`` works. To train other parameters make another optimizer.
    lr : float
        Learning rate of the first group. Assigning sets it in all groups.

    Raises
    ------
    TypeError, ValueError
        If `params` is empty or has something else in it.

    Notes
    -----
    Copies, deep copies and pickles go on where the original is. A deep copy or pickle of a model and
    its optimizer in one go, as in ``copy.deepcopy((model, optimizer))``, keeps them together; a deep
    copy of the optimizer alone has parameters of its own. `copy.copy` shares the parameters only.
    """

    def __init__(self, params, **hyperparameters):
        params = parameter_list(params)
        self._parameters = [Parameters(params)]   # the core's side of each group
        self._state = [{}]   # for each group: what a step leaves for the next one
        once = list({id(p): p for p in params}.values())   # by id, as a subclass may define ==
        self.param_groups = [{"params": once, **hyperparameters}]

    def zero_grad(self):
        """Set the gradient of every parameter to 0.

        A backward pass adds to gradients, so this comes before each one.
        """
        for parameters in self._parameters:
            parameters.zero_grad()

    def step(self):
        """Update every parameter by its gradient."""
        raise NotImplementedError(f"{type(self).__name__} has no step()")

    @property
    def lr(self):
        return self.param_groups[0]["lr"]

    @lr.setter
    def lr(self, value):
        value = non_negative("lr", value)
        for group in self.param_groups:
            group["lr"] = value

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "_parameters"}

    def __setstate__(self, state):
        vars(self).update(state)
        # Containers of its own: the original of a copy.copy and the copy do not share their moments.
        self.param_groups = [{**group, "params": list(group["params"])} for group in self.param_groups]
        self._state = [{name: value.copy() if isinstance(value, np.ndarray) else value
                        for name, value in state.items()} for state in self._state]
        self._parameters = [Parameters(group["params"]) for group in self.param_groups]

    def __repr__(self):
        groups = [
            ", ".join([f"{parameters.count} parameter{'s' * (parameters.count != 1)}",
                       *(f"{name}={value!r}" for name, value in group.items() if name != "params")])
            for group, parameters in zip(self.param_groups, self._parameters)]
        return f"{type(self).__name__}({'; '.join(groups)})"


class SGD(Optimizer):
    """Gradient descent, with momentum if asked for.

    Parameters
    ----------
    params : iterable of Value and Tensor
        As `Optimizer` says.
    lr : float, optional
        Learning rate, 0 or more.
    momentum : float, optional
        Factor by which earlier gradients fade with each step, 0 or more.
    dampening : float, optional
        How much of a gradient does not enter the momentum.
    weight_decay : float, optional
        Factor of the L2 penalty: this times the parameter is added to its gradient. 0 or more.
    nesterov : bool, optional
        Nesterov's momentum, which needs `momentum` and no `dampening`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; numbers have to be finite.

    See Also
    --------
    Optimizer : attributes, copies and pickles.

    Notes
    -----
    With the parameter p and its gradient, and b = d in the first step that has momentum::

        d = gradient + weight_decay * p
        b = momentum * b + (1 - dampening) * d
        p = p - lr * (d + momentum * b  if nesterov else  b)

    Without momentum it is ``p = p - lr * d``. Names, defaults and formula are PyTorch's, whose
    velocity is not scaled by the learning rate as that of [1]_ is.

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
    SGD(1 parameter, lr=0.125, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False)
    """

    def __init__(self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
        lr = non_negative("lr", lr)
        momentum = non_negative("momentum", momentum)
        dampening = finite("dampening", dampening)
        weight_decay = non_negative("weight_decay", weight_decay)
        if flag("nesterov", nesterov) and not (momentum > 0.0 and dampening == 0.0):
            raise ValueError("nesterov: expected momentum above 0 and dampening 0 with it, "
                             f"got momentum={momentum!r}, dampening={dampening!r}")
        super().__init__(params, lr=lr, momentum=momentum, dampening=dampening,
                         weight_decay=weight_decay, nesterov=nesterov)

    def step(self):
        """Update every parameter by its gradient."""
        for group, state, parameters in zip(self.param_groups, self._state, self._parameters):
            momentum = group["momentum"]
            buffer = None
            first = False
            if momentum != 0.0:
                buffer = state.get("momentum_buffer")
                if buffer is None:
                    first = True
                    buffer = np.zeros(parameters.count)
            parameters.sgd(buffer, group["lr"], momentum, group["dampening"], group["weight_decay"],
                           group["nesterov"], first)
            if first:
                state["momentum_buffer"] = buffer   # only now that nothing has failed


class Adam(Optimizer):
    """Adam: steps scaled by running averages of the gradient and of its square.

    Parameters
    ----------
    params : iterable of Value and Tensor
        As `Optimizer` says.
    lr : float, optional
        Learning rate, 0 or more.
    betas : pair of float, optional
        Factors by which the two averages fade with each step, each from 0 to below 1.
    eps : float, optional
        Added to the root of the averaged square, 0 or more.
    weight_decay : float, optional
        Factor of the L2 penalty: this times the parameter is added to its gradient. 0 or more.
    amsgrad : bool, optional
        Whether to divide by the root of the largest averaged square so far [2]_.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; numbers have to be finite.

    See Also
    --------
    Optimizer : attributes, copies and pickles.

    Notes
    -----
    With the parameter p and its gradient, in step t = 1, 2, ..., m and v being 0 before [1]_::

        d = gradient + weight_decay * p
        m = beta1 * m + (1 - beta1) * d
        v = beta2 * v + (1 - beta2) * d**2
        p = p - lr * (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)

    With `amsgrad` the largest v so far takes the place of v in the last line. Names, defaults and
    formulas are PyTorch's.

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

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False):
        super().__init__(params, lr=non_negative("lr", lr), betas=pair_of_betas(betas),
                         eps=non_negative("eps", eps),
                         weight_decay=non_negative("weight_decay", weight_decay),
                         amsgrad=flag("amsgrad", amsgrad))

    def step(self):
        """Update every parameter by its gradient."""
        for group, state, parameters in zip(self.param_groups, self._state, self._parameters):
            if not state:
                state.update(step=0, exp_avg=np.zeros(parameters.count),
                             exp_avg_sq=np.zeros(parameters.count))
            largest = None
            if group["amsgrad"]:
                largest = state.get("max_exp_avg_sq")
                if largest is None:
                    largest = state["max_exp_avg_sq"] = np.zeros(parameters.count)
            step = state["step"] + 1
            beta1, beta2 = group["betas"]
            parameters.adam(state["exp_avg"], state["exp_avg_sq"], largest, group["lr"], beta1, beta2,
                            group["eps"], group["weight_decay"], step)
            state["step"] = step   # only now that nothing has failed


def parameter_list(params):
    """An optimizer's `params` as a new list. The core checks what is in it."""
    expected = "params: expected an iterable of Values and Tensors, such as model.parameters(), got"
    if isinstance(params, (Tensor, set, frozenset)):   # a set has no order that a copy could keep
        raise TypeError(f"{expected} a {type(params).__name__}")
    try:
        params = iter(params)
    except TypeError:
        raise TypeError(f"{expected} {params!r}") from None
    params = list(params)
    if not params:
        raise ValueError("params: optimizer got an empty parameter list, expected one Value or Tensor at least")
    return params


def pair_of_betas(betas):
    """Adam's `betas` as a pair of floats."""
    try:
        first, second = betas
    except (TypeError, ValueError):
        raise TypeError(f"betas: expected a pair of numbers, got {betas!r}") from None
    expected = "a number from 0 to below 1"
    pair = finite("betas[0]", first, expected), finite("betas[1]", second, expected)
    for k, beta in enumerate(pair):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"betas[{k}]: expected {expected}, got {beta!r}")
    return pair
