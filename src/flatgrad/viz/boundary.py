"""Pictures of a predictor over the plane, as text or with matplotlib.

A predictor is any function from points to scores.
"""
import math
import operator

import numpy as np

__all__ = ["decision_boundary_text", "plot_decision_boundary"]

# (negative, positive): faint for regions, bold for samples.
REGIONS = (".", ":")
SAMPLES = ("o", "#")

MARGIN = 0.15  # of the samples' range, added on each side
GRID = 200  # points along each axis of a plot


def decision_boundary_text(predict, X, y, width=60, height=20):
    """Draw the regions where a score is positive and where not, and the samples, as text.

    Parameters
    ----------
    predict : callable
        From points, an ndarray of shape `(n, 2)`, to finite scores, of shape `(n,)`; called once.
    X : array_like, shape (n_samples, 2)
        Samples, finite.
    y : array_like, shape (n_samples,)
        Labels: positive for one class; 0 or negative for the other.
    width, height : int, optional
        Size of the drawing in characters, without the axes around it.

    Returns
    -------
    str
        Lines without one at the end, in ASCII.

    Raises
    ------
    TypeError, ValueError
        If an argument, or what `predict` returns, is not as described.

    Notes
    -----
    A region's character is the sign of the score in the middle of its cell; a score of 0 is not
    positive. Where samples share a cell, one on the wrong side of the boundary is shown.

    Examples
    --------
    >>> from flatgrad.viz import decision_boundary_text
    >>> X, y = [[0.0, 0.0], [2.0, 1.0]], [-1, 1]
    >>> print(decision_boundary_text(lambda points: points[:, 0] - 1, X, y, width=20, height=4))
     1.15 +--------------------+
          |..........:::::::#::|
          |..........::::::::::|
          |..........::::::::::|
          |..o.......::::::::::|
    -0.15 +--------------------+
           -0.3             2.3
    samples: o negative  # positive   score: . negative  : positive
    """
    width, height = (
        whole_number(name, n) for name, n in (("width", width), ("height", height))
    )
    X, y = check_samples(X, y)
    (x_low, x_high), (y_low, y_high) = axis_range(X, 0), axis_range(X, 1)

    centres_x = x_low + (np.arange(width) + 0.5) / width * (x_high - x_low)
    centres_y = y_high - (np.arange(height) + 0.5) / height * (y_high - y_low)
    cells = grid_points(centres_x, centres_y)
    scores = check_scores(predict, np.concatenate([cells, X]))
    rows = (scores[: len(cells)] > 0).reshape(height, width)
    canvas = [[REGIONS[positive] for positive in row] for row in rows.tolist()]

    columns = np.minimum((X[:, 0] - x_low) / (x_high - x_low) * width, width - 1).astype(int)
    lines = np.minimum((y_high - X[:, 1]) / (y_high - y_low) * height, height - 1).astype(int)
    wrong = (scores[len(cells):] > 0) != (y > 0)
    for i in np.argsort(wrong, kind="stable"):  # the wrong ones last, so on top
        canvas[lines[i]][columns[i]] = SAMPLES[int(y[i] > 0)]

    top, bottom, left, right = (f"{end:.3g}" for end in (y_high, y_low, x_low, x_high))
    indent = max(len(top), len(bottom))
    rule = "+" + "-" * width + "+"
    return "\n".join([
        f"{top:>{indent}} {rule}",
        *(f"{'':{indent}} |{''.join(row)}|" for row in canvas),
        f"{bottom:>{indent}} {rule}",
        f"{'':{indent}}  {left} {right:>{max(width - len(left) - 1, 0)}}",
        f"samples: {SAMPLES[0]} negative  {SAMPLES[1]} positive   "
        f"score: {REGIONS[0]} negative  {REGIONS[1]} positive",
    ])


def plot_decision_boundary(predict, X, y, ax=None):
    """Draw the regions where a score is positive and where not, and the samples, on axes.

    Parameters
    ----------
    predict, X, y
        As for `decision_boundary_text`.
    ax : matplotlib.axes.Axes, optional
        Where to draw. None takes `matplotlib.pyplot.gca()`.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, its limits set to what is drawn. Nothing is shown and nothing saved.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    TypeError, ValueError
        If an argument, or what `predict` returns, is not as described.

    Notes
    -----
    The boundary is interpolated linearly between the points of a grid of 200 by 200.

    Examples
    --------
    >>> from matplotlib.figure import Figure  # doctest: +SKIP
    >>> from flatgrad.viz import plot_decision_boundary
    >>> figure = Figure()  # doctest: +SKIP
    >>> X, y = [[0.0, 0.0], [2.0, 1.0]], [-1, 1]
    >>> ax = plot_decision_boundary(
    ...     lambda points: points[:, 0] - 1, X, y, ax=figure.subplots())  # doctest: +SKIP
    >>> figure.savefig("boundary.png")  # doctest: +SKIP
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "matplotlib is needed for this picture: pip install 'flatgrad[viz]'"
        ) from error

    X, y = check_samples(X, y)
    x_range, y_range = axis_range(X, 0), axis_range(X, 1)
    xs, ys = np.linspace(*x_range, GRID), np.linspace(*y_range, GRID)
    scores = check_scores(predict, grid_points(xs, ys)).reshape(GRID, GRID)
    if ax is None:
        from matplotlib import pyplot
        ax = pyplot.gca()

    # Scaled to [-1, 1], so that the levels need not follow the scores; the zero stays where it is.
    scores = scores / (np.abs(scores).max() or 1.0)
    ends = matplotlib.colormaps["Spectral"]([0.0, 1.0])
    ax.contourf(xs, ys, scores, levels=[-1.0, 0.0, 1.0], colors=list(ends), alpha=0.4)
    if scores.min() < 0 < scores.max():
        ax.contour(xs, ys, scores, levels=[0.0], colors="0.2", linewidths=1.2)
    for positive, colour in enumerate(ends):
        side = X[(y > 0) == bool(positive)]
        ax.scatter(side[:, 0], side[:, 1], s=40, color=[colour], edgecolors="white", linewidths=0.8)
    ax.set_xlim(x_range)
    ax.set_ylim(y_range)
    return ax


def check_samples(X, y):
    """`X` and `y` as float64 arrays that fit each other."""
    X, y = to_floats("X", X), to_floats("y", y)
    if X.ndim != 2 or X.shape[1] != 2 or len(X) == 0:
        raise ValueError(f"X: expected shape (n_samples, 2), n_samples at least 1, got {X.shape}")
    if y.shape != (len(X),):
        raise ValueError(f"y: expected shape ({len(X)},), a label for each row of X, got {y.shape}")
    return X, y


def check_scores(predict, points):
    """One finite score for each point."""
    scores = to_floats("predict", predict(points))
    if scores.shape != (len(points),):
        raise ValueError(
            f"predict: expected scores of shape ({len(points)},) for as many points, "
            f"got {scores.shape}"
        )
    return scores


def to_floats(name, values):
    """A float64 array of finite numbers."""
    try:
        values = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: expected an array of numbers: {error}") from None
    finite = np.isfinite(values)
    if not finite.all():
        raise ValueError(f"{name}: expected finite numbers, got {values[~finite][0]}")
    return values


def axis_range(X, axis):
    """(low, high) of an axis, wider than the samples and never empty."""
    low, high = float(X[:, axis].min()), float(X[:, axis].max())
    # 1 where all samples agree, and more where 1 would be lost in rounding.
    margin = MARGIN * (high - low) or max(1.0, 1e-6 * abs(low))
    low, high = low - margin, high + margin
    if not math.isfinite(high - low):
        raise ValueError(f"X: column {axis} spans too wide a range to draw")
    return low, high


def grid_points(xs, ys):
    """Points (n, 2) of the grid, row by row: all of `xs` at `ys[0]`, and so on."""
    return np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)


def whole_number(name, value):
    """An int of 1 or more."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an int, got {value!r}") from None
    if number < 1:
        raise ValueError(f"{name}: expected 1 or more, got {value!r}")
    return number
