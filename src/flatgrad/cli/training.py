"""The training loop of all commands, and the learning rates of their optimizers."""
from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad._core import Tensor, Value
    from flatgrad.nn.layers import MLP
__all__ = ["RATES", "exploded", "is_shown", "optimizer_of", "steps"]

# Names for --optimizer, all of `flatgrad.optim.OPTIMIZERS` -> a good learning rate for the moons. Help does not import
# the optimizers.
RATES = {"sgd": 1.0, "adam": 0.05, "adamw": 0.05, "rmsprop": 0.02, "adagrad": 0.2, "adadelta": 5.0, "nadam": 0.05,
         "radam": 0.4, "adamax": 0.1, "rprop": 0.005}


def optimizer_of(name: str, parameters: list[Value], lr: float | None = None) -> Any:
    """The optimizer with this name, with its default learning rate or another one."""
    from flatgrad import optim

    return optim.OPTIMIZERS[name](parameters, lr=RATES[name] if lr is None else lr)


def steps(model: MLP, X: NDArray[Any] | list[list[float]], y: NDArray[Any] | list[float], count: int,
          loss: Callable[..., Any], optimizer: Any, *, rate: Callable[..., Any] | None = None,
          batch_size: int | None = None, seed: int | None = 0) -> Iterator[tuple[int, Value, Tensor, Tensor] | None]:
    """Train, step by step.

    Parameters
    ----------
    model : flatgrad.nn.Module
        The model; it is trained in place.
    X : array_like of shape (n_samples, n_features)
    y : array_like of shape (n_samples,)
    count : int
        The number of steps.
    loss : callable
        ``loss(prediction, target)`` takes Tensors and returns a Value.
    optimizer : flatgrad.optim.Optimizer
    rate : callable, optional
        ``rate(k)`` is the learning rate of step k.
    batch_size : int, optional
        The number of samples for each step, drawn anew in each epoch. None: all samples, in order.
    seed : int, optional
        The seed of these draws.

    Yields
    ------
    k : int
        The step, from 0.
    loss : Value
    prediction, target : Tensor
        All of them before the step's update, which is made when the caller asks for the next step.
    """
    for k, (inputs, targets) in zip(range(count), batches(X, y, batch_size, seed)):
        prediction = model(inputs)
        error = loss(prediction, targets)
        yield k, error, prediction, targets

        optimizer.zero_grad()
        error.backward()
        if rate is not None:
            optimizer.lr = rate(k)
        optimizer.step()


def batches(X: Any, y: Any, batch_size: Any, seed: int | None) -> Iterator[tuple[Tensor, Tensor] | None]:
    """The batches, step after step, without end."""
    import numpy as np

    from flatgrad import Tensor

    X, y = np.asarray(X, dtype=float), np.asarray(y, dtype=float)
    if batch_size is None or batch_size >= len(X):
        everything = Tensor(X, requires_grad=False), Tensor(y, requires_grad=False)
        while True:
            yield everything
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(X))
        for start in range(0, len(X), batch_size):
            chosen = order[start:start + batch_size]
            yield Tensor(X[chosen], requires_grad=False), Tensor(y[chosen], requires_grad=False)


def is_shown(k: int) -> bool:
    """Whether a long log shows step k: 0, 10, 20, 50, 100, 200, 500, 1000 and so on."""
    return k == 0 or k >= 10 and str(k).rstrip("0") in ("1", "2", "5")


def exploded(first: float, last: float) -> bool:
    """Whether a training has failed, judged by its first loss and its last one."""
    return not last <= 100.0 * max(first, 1.0)
