"""Callbacks: a Trainer calls them between epochs and batches."""
from __future__ import annotations

import math
import os

from flatgrad.arguments import flag, non_negative, one_of, path_of, real, shortened, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, StateError
from flatgrad.storage import check_writable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    from numpy.typing import NDArray

    from flatgrad._core import _Path
    from flatgrad.train.trainer import Trainer

__all__ = ["Callback", "EarlyStopping", "Checkpoint"]

MOST_EPOCHS = 2**53   # float64 holds every count up to here


class Callback:
    """The base class of callbacks: methods that a `Trainer` calls. A subclass defines some of the methods.

    A callback can also be any object with some of these methods, or a function ``callback(trainer, epoch, logs)``,
    which is called after each epoch. `Trainer.save` saves the state of a callback with `state_dict` and
    `load_state_dict`. Such a callback continues with its state in the next `fit`.

    Examples
    --------
    >>> from flatgrad.train import Callback
    >>> class Report(Callback):
    ...     def on_epoch_end(self, trainer, epoch, logs):
    ...         if epoch % 10 == 0:
    ...             print(epoch, logs["loss"])
    """

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Called before the first epoch. An error here leaves model, optimizer and history as they were."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Called before an epoch; `epoch` counts from 1."""

    def on_batch_end(self, trainer: Trainer, batch: int, loss: float) -> None:
        """Called after a step; `batch` counts from 1 in each epoch, `loss` is a float."""

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        """Called after an epoch; `logs` is a dict of the epoch's numbers in the history."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """Called after the last epoch, and after a KeyboardInterrupt; not after an error."""


class EarlyStopping(Callback):
    """Stop when a number has not improved for some epochs.

    Parameters
    ----------
    monitor : str, optional
        The name of the number in the history.
    patience : int, optional
        The number of epochs without improvement before the stop.
    min_delta : float, optional
        The smallest change that counts as an improvement, 0 or more.
    mode : {'min', 'max'}, optional
        Whether smaller or larger numbers are better.
    restore_best : bool, optional
        Whether a stop restores the model of the best epoch. If the training ends in another way, by its number of
        epochs or by a KeyboardInterrupt, the model keeps its last step, and training can continue.

    Attributes
    ----------
    best : float
        The best number so far; nan before the first epoch.
    best_epoch : int
        The epoch of the best number; 0 before the first epoch.
    wait : int
        The number of epochs since the best epoch.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; for an unknown `monitor` when `Trainer.fit` begins.

    Notes
    -----
    nan counts as no improvement. Names and meanings are Keras', except `patience`, which is 0 in Keras, and
    `restore_best`. The counts continue in the next `fit` of the same Trainer, and in its checkpoints, unless this
    callback has stopped the training.

    Examples
    --------
    >>> from flatgrad.train import EarlyStopping
    >>> EarlyStopping(monitor="val_accuracy", mode="max", patience=5)
    EarlyStopping(monitor='val_accuracy', patience=5, min_delta=0.0, mode='max', restore_best=True)
    """

    monitor: str
    patience: int
    min_delta: float
    mode: str
    restore_best: bool
    best_state: dict[str, Any]
    wait: int
    stopped: bool
    best: float
    best_epoch: int

    def __init__(self, monitor: str = "val_loss", patience: int = 10, min_delta: float = 0.0,
                 mode: Literal['min', 'max'] = "min", restore_best: bool = True) -> None:
        self.monitor = monitor
        self.patience = whole("patience", patience)
        self.min_delta = non_negative("min_delta", min_delta)
        self.mode = one_of("mode", mode, ("min", "max"))
        self.restore_best = flag("restore_best", restore_best)
        self.reset()

    def reset(self) -> None:
        """Set all counts back to their initial values."""
        self.best, self.best_epoch, self.wait, self.stopped = math.nan, 0, 0, False
        self.best_state = {}

    def on_fit_begin(self, trainer: Trainer) -> None:
        one_of("monitor", self.monitor, trainer.log_names)
        self.reset()

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        number = logs[self.monitor]
        gain = self.best - number if self.mode == "min" else number - self.best
        if gain > self.min_delta or math.isnan(self.best) and not math.isnan(number):
            self.best, self.best_epoch, self.wait = number, epoch, 0
            if self.restore_best:
                self.best_state = trainer.model.state_dict()
            return
        self.wait += 1
        if self.wait >= self.patience:
            self.stopped = True
            trainer.stop(f"{self.monitor} has not become better than {self.best:.6g}, of epoch {self.best_epoch}, "
                         f"for {self.wait} epoch{'s' * (self.wait != 1)}")

    def on_fit_end(self, trainer: Trainer) -> None:
        if self.stopped and self.best_state:
            trainer.model.load_state_dict(self.best_state)

    def state_dict(self) -> dict[str, Any]:
        """The counts; empty after this callback has stopped the training.

        Returns
        -------
        dict
        """
        if self.stopped:
            return {}
        return {"monitor": self.monitor, "mode": self.mode, "best": self.best, "best_epoch": self.best_epoch,
                "wait": self.wait, "best_state": dict(self.best_state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with saved counts; start again if they belong to another `monitor` or `mode`.

        Parameters
        ----------
        state : dict
            The result of `state_dict`.
        """
        if state and (state["monitor"], state["mode"]) == (self.monitor, self.mode):
            self.check_state("state", state)
            self.best, self.best_epoch, self.wait = real("best", state["best"]), state["best_epoch"], state["wait"]
            self.best_state = dict(state["best_state"]) if self.restore_best else {}

    @staticmethod
    def check_state(name: str, state: Any) -> Any:
        """StateError if `state` is not a possible result of `state_dict`."""
        check_best(name, state)
        for key in ("best_epoch", "wait"):
            epoch_number(f"{name}[{key!r}]", state[key])
        best = state["best_state"]
        if not isinstance(best, dict) or not all(hasattr(array, "dtype") for array in best.values()):
            raise StateError(f"{name}['best_state']: expected the state of a model, got {shortened(best)}")

    def __repr__(self) -> str:
        return (f"EarlyStopping(monitor={self.monitor!r}, patience={self.patience}, min_delta={self.min_delta}, "
                f"mode={self.mode!r}, restore_best={self.restore_best})")


class Checkpoint(Callback):
    """Save the Trainer after epochs.

    The Trainer calls this callback after other callbacks, so that it saves their current state.

    Parameters
    ----------
    path : str or path-like
        The file that `Trainer.save` writes; an old file is replaced. ``{epoch}`` in the path, also in the form
        ``{epoch:04d}``, stands for the number of the epoch.
    every : int, optional
        The number of epochs from one save to the next.
    monitor : str, optional
        The name of the number in the history for `save_best_only`.
    save_best_only : bool, optional
        Whether to save only if this number is the best so far.
    mode : {'min', 'max'}, optional
        Whether smaller or larger numbers are better.

    Attributes
    ----------
    best : float
        The best number so far; nan before the first epoch.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; for an unknown `monitor` when `Trainer.fit` begins.
    OSError
        When `Trainer.fit` begins, if the file cannot be written.

    Examples
    --------
    >>> from flatgrad.train import Checkpoint
    >>> Checkpoint("run.npz", every=10).path
    'run.npz'
    """

    path: str
    every: int
    monitor: str | None
    save_best_only: bool
    mode: str
    best: float

    runs_last = True

    def __init__(self, path: _Path, every: int = 1, monitor: str | None = None, save_best_only: bool = False,
                 mode: Literal['min', 'max'] = "min") -> None:
        self.path = path_of("path", path)
        self.file_of(1)
        self.every = whole("every", every, 1)
        self.monitor = monitor
        self.save_best_only = flag("save_best_only", save_best_only)
        self.mode = one_of("mode", mode, ("min", "max"))
        self.best = math.nan
        if self.save_best_only and monitor is None:
            raise ArgumentError("monitor: expected a name for save_best_only=True, such as 'val_loss', got None")

    def on_fit_begin(self, trainer: Trainer) -> None:
        if self.monitor is not None:
            one_of("monitor", self.monitor, trainer.log_names)
        path = os.path.abspath(self.file_of(1))
        if os.path.isdir(path):
            raise ArgumentError(f"path: expected one of a file, got the directory {self.path!r}")
        if not os.path.isdir(os.path.dirname(path)):
            raise ArgumentError(f"path: expected one in a directory that exists, got {self.path!r}")
        check_writable(path)   # an error should come now, not after an epoch
        self.best = math.nan

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        better = True
        if self.monitor is not None:
            number = logs[self.monitor]
            better = math.isnan(self.best) or (number < self.best if self.mode == "min" else number > self.best)
            if better:
                self.best = number
        if epoch % self.every == 0 and (better or not self.save_best_only):
            trainer.save(self.file_of(epoch))

    def file_of(self, epoch: int) -> str:
        """The path of the file for an epoch."""
        if "{epoch" not in self.path:
            return self.path
        try:
            return self.path.format(epoch=epoch)
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise ArgumentError("path: expected one with '{epoch}', or '{epoch:04d}', in it and no other braces, got "
                                f"{self.path!r} ({error!r})") from None

    def state_dict(self) -> dict[str, Any]:
        """The best number so far.

        Returns
        -------
        dict
        """
        return {"monitor": self.monitor, "mode": self.mode, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with a saved state; start again if it belongs to another `monitor` or `mode`."""
        if (state["monitor"], state["mode"]) == (self.monitor, self.mode):
            self.check_state("state", state)
            self.best = real("best", state["best"])

    @staticmethod
    def check_state(name: str, state: Any) -> Any:
        """StateError if `state` is not a possible result of `state_dict`."""
        check_best(name, state)


class Callbacks:
    """The callbacks of one `fit`, sorted by the events for which they have methods."""

    all: list[Any]

    def __init__(self, callbacks: Any) -> None:
        if callable(callbacks) or any(hasattr(callbacks, name) for name in EVENTS):
            callbacks = [callbacks]
        try:
            self.all = sorted(callbacks, key=lambda callback: bool(getattr(callback, "runs_last", False)))
        except TypeError:
            raise ArgumentTypeError(f"callbacks: expected functions and objects such as EarlyStopping(), got "
                                    f"{callbacks!r}") from None
        for event in EVENTS:
            setattr(self, event, [])
        for k, callback in enumerate(self.all):
            events = [event for event in EVENTS if hasattr(callback, event)]
            if isinstance(callback, type) or not (events or callable(callback)):
                raise ArgumentTypeError(f"callbacks[{k}]: expected a function or an object such as EarlyStopping(), "
                                        f"got {callback!r}")
            for event in events:
                if getattr(type(callback), event, None) is not getattr(Callback, event):   # its own method
                    getattr(self, event).append(getattr(callback, event))
            if not events:
                self.on_epoch_end.append(callback)

    def states(self) -> list[tuple[str, dict[Any, Any]]]:
        """The states of callbacks that can be saved: pairs (name of the class, state)."""
        return [(type(callback).__name__, callback.state_dict()) for callback in self.all
                if hasattr(callback, "state_dict")]

    def load(self, states: list[tuple[str, dict[Any, Any]]]) -> None:
        """Load the states into callbacks of the same classes, in order; callbacks without a state start again."""
        states = list(states)
        for callback in self.all:
            if hasattr(callback, "load_state_dict"):
                k = next((k for k, (name, _) in enumerate(states) if name == type(callback).__name__), None)
                if k is not None:
                    name, state = states.pop(k)
                    try:
                        callback.load_state_dict(state)
                    except StateError:
                        raise
                    except (KeyError, TypeError, ValueError) as error:
                        raise StateError(f"callbacks: expected the state of a {name}, got {state!r} ({error!r})"
                                         ) from None


EVENTS = ("on_fit_begin", "on_epoch_begin", "on_batch_end", "on_epoch_end", "on_fit_end")
STATES: dict[str, tuple[type[Any], set[Any]]]
STATES = {"EarlyStopping": (EarlyStopping, {"monitor", "mode", "best", "best_epoch", "wait", "best_state"}),
          "Checkpoint": (Checkpoint, {"monitor", "mode", "best"})}


def check_best(name: str, state: dict[str, Any]) -> None:
    """StateError if the values of the keys that both classes have are not possible values."""
    if not isinstance(state["monitor"], (str, type(None))):
        raise StateError(f"{name}['monitor']: expected the name of a metric, got {shortened(state['monitor'])}")
    checked(one_of, f"{name}['mode']", state["mode"], ("min", "max"))
    checked(real, f"{name}['best']", state["best"])


def checked(check: Callable[..., Any], *arguments: Any) -> str | float:
    """The result of a check of an argument; an error of the check becomes a StateError."""
    try:
        return check(*arguments)
    except (ArgumentError, ArgumentTypeError) as error:
        raise StateError(str(error)) from None


def epoch_number(name: str, x: int) -> int:
    """`x` as an int that can count epochs and that float64 holds."""
    number = checked(whole, name, x)
    if number > MOST_EPOCHS:
        raise StateError(f"{name}: expected an int, {MOST_EPOCHS} at most, got {x!r}")
    return number


def checked_states(states: list[tuple[str, dict[Any, Any]]],
                   model: dict[str, NDArray[Any]]) -> list[tuple[str, dict[Any, Any]]]:
    """`states` in the form of `Callbacks.states`, or a StateError.

    The function checks the states of the classes in this module. A saved model's shapes have to be the shapes of
    `model`, the current state. Users' own callbacks check their states themselves.
    """
    if not isinstance(states, (list, tuple)):
        raise StateError(f"callbacks: expected a list, got {shortened(states)}")
    for k, pair in enumerate(states):
        name = f"callbacks[{k}]"
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str)):
            raise StateError(f"{name}: expected the name of a class and its state, got {shortened(pair)}")
        kind, state = pair
        known, keys = STATES.get(kind, (None, None))
        if known is not None and isinstance(state, dict) and state.keys() == keys:   # not a user's class of this name
            known.check_state(name, state)
            best = state.get("best_state")
            if best and shapes_of(best) != shapes_of(model):
                raise StateError(f"{name}['best_state']: expected the shapes {shapes_of(model)}, got {shapes_of(best)}")
    return [tuple(pair) for pair in states]


def shapes_of(state: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Name -> shape of each value that has a shape."""
    return {name: getattr(array, "shape", None) for name, array in state.items()} if isinstance(state, dict) else None
