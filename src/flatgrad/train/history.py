"""The result of a training run: numbers for each epoch."""
from __future__ import annotations

import math

from flatgrad.arguments import one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from matplotlib.axes import Axes

__all__ = ["History"]


class History(dict[str, list[float]]):
    """Numbers for each epoch of a training run, by name.

    A `Trainer` makes the History and adds to it. A History is a dict of lists, so ``pandas.DataFrame(history)`` has a
    column for each name. Its length is the number of epochs. Names are attributes as well: ``history.loss`` is
    ``history['loss']``.

    Attributes
    ----------
    epochs : list of int
        The completed epochs, from 1 on.
    metrics : dict of str to list of float
        The History itself, with one number for each epoch: ``'loss'``, the metrics by their names, ``'val_loss'`` and
        other names with ``'val_'`` for the validation samples, ``'learning_rate'``, and ``'time'`` in seconds. nan
        where an epoch has no such number.

    Examples
    --------
    >>> from flatgrad.train import History
    >>> history = History()
    >>> history.append(1, {"loss": 0.5, "time": 0.25})
    >>> history.append(2, {"loss": 0.125, "time": 0.25})
    >>> history.loss, len(history), list(history)
    ([0.5, 0.125], 2, ['loss', 'time'])
    >>> history
    History of 2 epochs: loss 0.5 -> 0.125; 0.5 s
    """

    epochs: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.epochs = []

    @property
    def metrics(self) -> dict[str, list[float]]:
        return self

    @metrics.setter
    def metrics(self, numbers: Any) -> None:
        numbers = dict(numbers)
        self.clear()
        self.update(numbers)

    def append(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Add the numbers of one epoch.

        Parameters
        ----------
        epoch : int
        logs : dict of str to float
        """
        if self.keys() != logs.keys():
            for name in logs:
                self.setdefault(name, [math.nan] * len(self.epochs))
            logs = {name: logs.get(name, math.nan) for name in self}
        for name, number in logs.items():
            self[name].append(number)
        self.epochs.append(epoch)

    def _extend(self, epochs, columns):
        """Add the numbers of several epochs, a list for each name."""
        for name in columns:
            if name not in self:
                self[name] = [math.nan] * len(self.epochs)
        for name in self:
            self[name] += columns.get(name) or [math.nan] * len(epochs)
        self.epochs += epochs

    def to_dict(self) -> dict[str, list[Any]]:
        """The epochs, as ``'epoch'``, and the numbers, in new lists.

        Returns
        -------
        dict of str to list
        """
        return {"epoch": list(self.epochs), **{name: list(numbers) for name, numbers in self.items()}}

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Draw the numbers over the epochs, as `flatgrad.viz.plot_history` does.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
        **options
            Options of `flatgrad.viz.plot_history`.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        MissingPackageError
            If Matplotlib is not installed.
        """
        from flatgrad import viz

        return viz.plot_history(self, ax=ax, **options)

    def __len__(self) -> int:
        return len(self.epochs)

    def __missing__(self, name: str) -> Any:
        one_of("name", name, list(self))

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, History):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None

    def _repr_html_(self) -> str:
        """A table of the first, the last, the lowest and the highest numbers, and curves of the losses, for notebooks."""
        from flatgrad.markup import curve, number, table
        from flatgrad.viz.curves import UNASKED, is_error

        rows = []
        for name, numbers in self.items() if self.epochs else ():
            known = [x for x in numbers if not math.isnan(x)] or [math.nan]
            rows.append((name, *(number(x) for x in (numbers[0], numbers[-1], min(known), max(known)))))
        caption = f"History of {len(self)} epoch{'s' * (len(self) != 1)}"
        if self.get("time"):
            caption += f", {sum(x for x in self['time'] if not math.isnan(x)):.3g} s"
        drawn = {name: numbers for name, numbers in self.items() if name not in UNASKED and is_error(name)}
        head = ("", "first", "last", "lowest", "highest") if rows else ()
        return table(head, rows, caption) + curve(self.epochs, drawn)

    def __repr__(self) -> str:
        if not self.epochs:
            return "History of 0 epochs"
        shown = [f"{name} {numbers[0]:.4g} -> {numbers[-1]:.4g}" for name, numbers in self.items()
                 if name not in ("learning_rate", "time")]
        text = f"History of {len(self)} epoch{'s' * (len(self) != 1)}: {', '.join(shown)}"
        return text + (f"; {sum(self['time']):.3g} s" if "time" in self else "")
