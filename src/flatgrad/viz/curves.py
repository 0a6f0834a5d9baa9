"""Plots of a training, and of a model's fit to samples, with matplotlib."""
from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flatgrad.arguments import finite_array, one_of, shortened
from flatgrad.errors import ArgumentTypeError, DataError, ShapeError
from flatgrad.viz.common import (COLOURS, FAINT, array_of, axis_range, check_axes, check_model, current_axes,
                                 feature_names_of, outputs, samples_of)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    from flatgrad.viz.common import Model

__all__ = ["plot_history", "plot_regression"]

VALIDATION = "val_"   # the beginning of the names of validation numbers
UNASKED = ("learning_rate", "time")   # not drawn by default
ERRORS = ("mse", "rmse", "mae", "error")   # drawn on the scale of the loss, like names that end in "loss"
DECADES = 2   # the number of decades that losses have to span for a logarithmic scale
DOTTED = 20   # up to so many epochs, each has a dot
LINES = [COLOURS[1], COLOURS[0], *COLOURS[2:]]   # blue first
CURVE = 400   # points of a curve
MARGIN = 0.05   # a share of the samples' range, added on each side


def plot_history(history: Mapping[str, Sequence[float]] | Sequence[float], ax: Axes | None = None, *,
                 metrics: str | Sequence[str] | None = None) -> Axes:
    """Draw the loss and the metrics of a training over its epochs.

    Parameters
    ----------
    history : flatgrad.train.History, dict of str to list of float, or list of float
        The result of `Trainer.fit`, or numbers for each epoch under their names, or only losses. None and numbers that
        are not finite leave a gap.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on. None takes `matplotlib.pyplot.gca()`.
    metrics : sequence of str, optional
        The names to draw, such as ``("loss", "val_loss")``. None takes all except 'learning_rate' and 'time'.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`. The function does not show or save the figure.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    ArgumentTypeError, ShapeError, UnknownNameError, DataError
        If an argument is not as described, or there are no epochs.

    Notes
    -----
    Losses, and the errors 'mse', 'rmse' and 'mae', belong to the left axis. Its scale is logarithmic if all its numbers
    are above 0 and they span more than two decades. Other metrics, such as 'accuracy', have an axis on the right, which
    is added to the figure and has the legend of both axes. Names that begin with 'val_' have dashed lines, in the
    colour of the training numbers.

    Examples
    --------
    >>> from matplotlib.figure import Figure  # doctest: +SKIP
    >>> from flatgrad.viz import plot_history
    >>> ax = plot_history([0.9, 0.4, 0.2], ax=Figure().subplots())  # doctest: +SKIP
    """
    check_axes("plot_history", ax)
    from matplotlib.ticker import MaxNLocator

    epochs, series = series_of(history)
    if metrics is None:
        names = [name for name in series if name not in UNASKED]
    else:
        names = [one_of("metrics", name, series) for name in ([metrics] if isinstance(metrics, str) else metrics)]
    if not names:
        raise DataError(f"history: expected losses or metrics to draw, got {', '.join(series) or 'none'}")
    left = [name for name in names if is_error(name)]
    right = [name for name in names if not is_error(name)]
    if not left:
        left, right = right, []
    ax = current_axes(ax)

    colours = {kind: LINES[k % len(LINES)] for k, kind in enumerate(kinds(left + right))}
    parts = [(ax, left)] + ([(ax.twinx(), right)] if right else [])
    for part, own in parts:
        for name in own:
            kind = name.removeprefix(VALIDATION)
            part.plot(epochs, series[name], label=name.replace("_", " "), color=colours[kind], linewidth=1.8,
                      linestyle="--" if name != kind else "-", marker="o" if len(epochs) <= DOTTED else None,
                      markersize=4)
        part.set_ylabel(", ".join(kinds(own)).replace("_", " "))
    drawn = np.concatenate([series[name] for name in left])
    drawn = drawn[~np.isnan(drawn)]
    if is_error(left[0]) and drawn.size and drawn.min() > 0 and np.log10(drawn.max()) - np.log10(drawn.min()) > DECADES:
        ax.set_yscale("log")
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    # The legend is on the axes in front. Losses end low and metrics end high, which leaves room between them.
    handles = [line for part, own in parts for line in part.get_lines()[-len(own):]]
    parts[-1][0].legend(handles=handles, loc="center right" if right else "best",
                        fontsize="small" if right else None)
    return ax


def plot_regression(model: Model, X: ArrayLike, y: ArrayLike, ax: Axes | None = None, *,
                    feature_names: Sequence[str] | None = None) -> Axes:
    """Draw a model's fit to samples: its curve, or its predictions against the targets.

    Parameters
    ----------
    model : callable, or object with the method predict
        A function from points, an ndarray of shape `(n, n_features)`, to a finite number for each point. The result has
        the shape `(n,)` or `(n, 1)` and is an array, a list or a Tensor, so a `flatgrad.nn` Module is a model. The
        model is called once; a Module in training mode is in evaluation mode during the call.
    X : array_like, shape (n_samples,) or (n_samples, n_features)
        Samples, finite.
    y : array_like, shape (n_samples,)
        Targets, finite.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on. None takes `matplotlib.pyplot.gca()`.
    feature_names : sequence of str, optional
        The names of the features in the picture; by default `x[0]` and so on.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`. The function does not show or save the figure.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    ArgumentTypeError, ShapeError, DataError
        If an argument, or the result of `model`, is not as described.

    Notes
    -----
    With one feature, the plot has `y` over the feature: the samples, and the model's curve through 400 points from a
    little below the smallest feature to a little above the largest. With more features, the plot has the predictions
    over the targets, on two equal scales, and the diagonal on which both agree.

    Examples
    --------
    >>> from matplotlib.figure import Figure  # doctest: +SKIP
    >>> from flatgrad.viz import plot_regression
    >>> ax = plot_regression(
    ...     lambda points: points[:, 0]**2, [0, 1, 2], [0, 1.1, 3.8], ax=Figure().subplots())  # doctest: +SKIP
    """
    check_axes("plot_regression", ax)
    check_model(model)
    X = array_of("X", X)
    X, y = samples_of(X[:, None] if X.ndim == 1 else X, y)
    y = finite_array("y", y)
    names = feature_names_of(feature_names, X.shape[1])
    one = X.shape[1] == 1
    points = np.linspace(*axis_range("X", X, MARGIN), CURVE)[:, None] if one else X
    said = outputs(model, points)
    if said.dtype.kind == "U" or said.size != len(points):
        raise ShapeError(f"model: expected one number for each of {len(points)} points, got the shape {said.shape} "
                         f"of {said.dtype}")
    said = said.reshape(-1)
    ends = None if one else axis_range("y", np.concatenate([y, said]), MARGIN)
    ax = current_axes(ax)

    look = {"s": 30, "color": COLOURS[1], "edgecolors": "white", "linewidths": 0.6,
            "alpha": 1.0 if len(X) <= 200 else FAINT}
    if one:
        ax.scatter(X[:, 0], y, label="samples", **look)
        ax.plot(points[:, 0], said, color=COLOURS[0], linewidth=2.0, label="model")
        ax.set_xlim(points[0, 0], points[-1, 0])
        ax.set_xlabel(names[0])
        ax.set_ylabel("y")
    else:
        ax.plot(ends, ends, color="0.5", linewidth=1.2, label="prediction = target")
        ax.scatter(y, said, zorder=2.5, label="samples", **look)
        ax.set_xlim(ends)
        ax.set_ylim(ends)
        ax.set_aspect("equal")
        ax.set_xlabel("target")
        ax.set_ylabel("prediction")
    ax.legend(loc="best")
    return ax


def series_of(history: Any) -> tuple[NDArray[Any], dict[str, NDArray[np.float64]]]:
    """The numbers of the epochs, and name -> array of a number for each epoch, nan for a gap."""
    metrics, epochs = getattr(history, "metrics", None), getattr(history, "epochs", None)
    if isinstance(history, Mapping):
        metrics = history
    elif not isinstance(metrics, Mapping):
        metrics, epochs = {"loss": history}, None
    series = {name: numbers(name, values) for name, values in metrics.items()}
    counts = {name: len(values) for name, values in series.items()}
    count = len(epochs) if epochs is not None else max(counts.values(), default=0)
    if set(counts.values()) - {count}:
        told = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise ShapeError(f"history: expected a number for each of {count} epochs, got {told}")
    if count == 0:
        raise DataError("history: expected one epoch at least, got none")
    return list(range(1, count + 1) if epochs is None else epochs), series


def numbers(name: str, values: Any) -> NDArray[np.float64]:
    """An array of float64, with nan for None and for numbers that are not finite."""
    try:
        array = np.array([np.nan if value is None else float(value) for value in values], np.float64)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"history: expected a list of numbers under {name!r}, "
                                f"got {shortened(values)}") from None
    return np.where(np.isfinite(array), array, np.nan)


def kinds(names: list[str]) -> list[str]:
    """The names of the numbers without 'val_', each once."""
    return list(dict.fromkeys(name.removeprefix(VALIDATION) for name in names))


def is_error(name: str) -> bool:
    """Whether smaller numbers are better; such numbers are drawn on the scale of the loss."""
    kind = name.removeprefix(VALIDATION)
    return kind.endswith("loss") or kind in ERRORS
