"""What a training run leaves behind: numbers for each epoch."""
import math

from flatgrad.arguments import one_of

__all__ = ["History"]


class History:
    """Numbers for each epoch of a training run, by name.

    A `Trainer` makes it and adds to it. Its names are attributes as well: ``history.loss`` is
    ``history['loss']``.

    Attributes
    ----------
    epochs : list of int
        The epochs that were completed, from 1 on.
    metrics : dict of str to list of float
        One number for each epoch: ``'loss'``, the metrics by their names, the same of the validation
        samples as ``'val_loss'`` and so on, ``'learning_rate'``, and ``'time'`` in seconds. nan where an
        epoch had no such number.

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

    def __init__(self):
        self.epochs = []
        self.metrics = {}

    def append(self, epoch, logs):
        """Add the numbers of one epoch.

        Parameters
        ----------
        epoch : int
        logs : dict of str to float
        """
        metrics = self.metrics
        if metrics.keys() != logs.keys():
            for name in logs:
                metrics.setdefault(name, [math.nan] * len(self.epochs))
            logs = {name: logs.get(name, math.nan) for name in metrics}
        for name, number in logs.items():
            metrics[name].append(number)
        self.epochs.append(epoch)

    def to_dict(self):
        """The epochs, as ``'epoch'``, and the numbers, in new lists: what `pandas.DataFrame` takes.

        Returns
        -------
        dict of str to list
        """
        return {"epoch": list(self.epochs), **{name: list(numbers) for name, numbers in self.metrics.items()}}

    def plot(self, ax=None, **options):
        """Draw the numbers over the epochs, as `flatgrad.viz.plot_history` does.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
        **options
            For that function.

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

    def __len__(self):
        return len(self.epochs)

    def __iter__(self):
        return iter(self.metrics)

    def __contains__(self, name):
        return name in self.metrics

    def __getitem__(self, name):
        return self.metrics[name if name in self.metrics else one_of("name", name, self.metrics)]

    def __getattr__(self, name):
        metrics = vars(self).get("metrics", {})   # there is none yet while a copy is made
        if name in metrics:
            return metrics[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self):
        return [*super().__dir__(), *self.metrics]

    def __eq__(self, other):
        if not isinstance(other, History):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None

    def __repr__(self):
        if not self.epochs:
            return "History of 0 epochs"
        shown = [f"{name} {numbers[0]:.4g} -> {numbers[-1]:.4g}" for name, numbers in self.metrics.items()
                 if name not in ("learning_rate", "time")]
        text = f"History of {len(self)} epoch{'s' * (len(self) != 1)}: {', '.join(shown)}"
        return text + (f"; {sum(self.metrics['time']):.3g} s" if "time" in self.metrics else "")
