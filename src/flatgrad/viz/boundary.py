"""Pictures of a classifier over the plane of two features, as text or with matplotlib."""
from __future__ import annotations

import copy

import numpy as np

from flatgrad.arguments import columns_of, finite, finite_array, one_of, shortened, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError, UnknownNameError
from flatgrad.viz.common import (COLOURS, FAINT, axis_range, check_axes, check_model, current_axes, feature_names_of,
                                 outputs, samples_of)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Literal

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    from flatgrad.viz.common import Model

__all__ = ["decision_boundary_text", "plot_decision_boundary"]

# A character for each class: faint for regions, bold for samples.
REGIONS = ".:-'~,=;_^"
SAMPLES = "o#x@%*&$AW"
MARKERS = "o^sDvp<>hP"

MARGIN = 0.15  # a share of the samples' range, added on each side
GRID = 200  # points along each axis of a plot
SHADES = 5  # of a region, from the boundary to the inside
FAINTEST_TO_STRONGEST = 0.15, 0.6   # the opacity of the shades
CONFIDENCES = ("logits", "probabilities")
METHODS: dict[str | None, tuple[str, ...]]
METHODS = {None: ("decision_function", "predict_proba"), "logits": ("decision_function",),
           "probabilities": ("predict_proba",)}   # of an estimator, for its scores
SURE = 0.75, 0.9, 0.99   # probabilities that have lines of their own
AGREEMENT = 0.999   # share of points where an estimator's scores have to agree with its predictions; ties may disagree


def decision_boundary_text(model: Model, X: ArrayLike, y: ArrayLike, width: int = 60, height: int = 20, *,
                           features: tuple[int | str, int | str] = (0, 1),
                           feature_names: Sequence[str] | None = None, threshold: float = 0.0) -> str:
    """Draw a model's regions, one for each predicted class, and the samples, as text.

    Parameters
    ----------
    model : callable, or object with the method predict
        A function from points, an ndarray of shape `(n, n_features)`, to finite scores. The scores have the shape
        `(n,)` or `(n, 1)` for two classes, or `(n, n_classes)` with one score for each class. Scores are an array, a
        list or a Tensor, so a `flatgrad.nn` Module is a model. The model is called once; a Module in training mode is
        in evaluation mode during the call. For an estimator, which is not callable, `predict` gives the labels. If the
        estimator has `decision_function` or `predict_proba`, and its results agree with the labels, they give the
        certainty and the exact boundary.
    X : array_like, shape (n_samples, n_features)
        Samples, finite, with at least two features.
    y : array_like, shape (n_samples,)
        Labels, numbers or text. Of two labels, a score above `threshold` means the larger one, such as 1 of 0 and 1, or
        1 of -1 and 1. Columns of scores belong to the labels 0, 1, ..., n_classes - 1 if all labels are among these,
        and otherwise to the distinct labels in order.
    width, height : int, optional
        Size of the drawing in characters, without the axes.
    features : pair of int or str, optional
        The features to draw, across and up, by their places or names. All others have their mean over `X`.
    feature_names : sequence of str, optional
        The names of the features in the picture. By default the names of the columns of a pandas.DataFrame, and
        otherwise `x[0]` and so on.
    threshold : float, optional
        For a model with one score: 0 for a score such as a logit, 0.5 for a probability.

    Returns
    -------
    str
        Lines of text, without a newline at the end; ASCII if the names of labels and features are ASCII.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError, DataError
        If an argument, or the result of `model`, is not as described.

    Notes
    -----
    The character of a cell is the class in its middle. A score equal to the threshold does not count as above it, and
    of equal scores the first wins. If several samples share a cell, the picture shows one on the wrong side of the
    boundary. With more than two features, a sample is drawn at its two features. The region behind the sample is the
    model's prediction with the other features at their mean, which may differ from the prediction for the sample.

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

    Three classes, each with a score:

    >>> X, y = [[0.0, 0.0], [1.0, 2.0], [2.0, 0.0]], ["ant", "bee", "cat"]
    >>> model = lambda points: [[-x, y - 1, x - 2] for x, y in points]
    >>> print(decision_boundary_text(model, X, y, width=20, height=4))
     2.3 +--------------------+
         |::::::::::#:::::::::|
         |::::::::::::::::::::|
         |.....::::::::::-----|
         |..o.......-------x--|
    -0.3 +--------------------+
          -0.3             2.3
    samples: o ant  # bee  x cat   regions: . ant  : bee  - cat
    """
    width, height = whole("width", width, 1), whole("height", height, 1)
    plane = Plane(model, X, y, features, feature_names, threshold)
    (x_low, x_high), (y_low, y_high) = plane.ranges

    centres_x = x_low + (np.arange(width) + 0.5) / width * (x_high - x_low)
    centres_y = y_high - (np.arange(height) + 0.5) / height * (y_high - y_low)
    cells = grid_points(centres_x, centres_y)
    verdict = plane.ask(np.concatenate([cells, plane.shown]))
    if len(verdict.names) > len(REGIONS):
        raise ArgumentError(f"y: expected {len(REGIONS)} classes at most in a picture made of text, "
                            f"got {len(verdict.names)}")
    winners = verdict.winners
    canvas = [[REGIONS[k] for k in row] for row in winners[: len(cells)].reshape(height, width).tolist()]

    across, up = plane.shown.T
    columns = np.minimum((across - x_low) / (x_high - x_low) * width, width - 1).astype(int)
    lines = np.minimum((y_high - up) / (y_high - y_low) * height, height - 1).astype(int)
    wrong = winners[len(cells):] != verdict.codes
    for i in np.argsort(wrong, kind="stable"):  # wrong samples last, so that they are on top
        canvas[lines[i]][columns[i]] = SAMPLES[verdict.codes[i]]

    top, bottom, left, right = (f"{end:.3g}" for end in (y_high, y_low, x_low, x_high))
    indent = max(len(top), len(bottom))
    rule = "+" + "-" * width + "+"
    names = ["negative", "positive"] if verdict.by_sign else verdict.names
    of_samples, of_regions = ("  ".join(f"{character} {name}" for character, name in zip(characters, names))
                              for characters in (SAMPLES, REGIONS))
    return "\n".join([
        f"{top:>{indent}} {rule}",
        *(f"{'':{indent}} |{''.join(row)}|" for row in canvas),
        f"{bottom:>{indent}} {rule}",
        f"{'':{indent}}  {left} {right:>{max(width - len(left) - 1, 0)}}",
        f"samples: {of_samples}   {'score' if verdict.by_sign else 'regions'}: {of_regions}",
        *plane.description(),
    ])


def plot_decision_boundary(model: Model, X: ArrayLike, y: ArrayLike, ax: Axes | None = None, *,
                           features: tuple[int | str, int | str] = (0, 1),
                           feature_names: Sequence[str] | None = None, threshold: float = 0.0,
                           confidence: Literal["logits", "probabilities"] | None = None) -> Axes:
    """Draw a model's regions, one for each predicted class, and the samples, on axes.

    Parameters
    ----------
    model, X, y, features, feature_names, threshold
        As for `decision_boundary_text`.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on. None takes `matplotlib.pyplot.gca()`.
    confidence : {None, 'logits', 'probabilities'}, optional
        What the scores are, if colours are to show how probable the class of a point is: 'logits', of which `sigmoid`
        or `softmax` makes probabilities, as in `bce_with_logits` and `cross_entropy`, or 'probabilities' themselves,
        where 0 for `threshold` means 0.5. Of an estimator, 'logits' takes `decision_function` and 'probabilities'
        takes `predict_proba`. None: colours show the lead of a class, without a scale.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, with names of the axes and a legend beside the axes. Its limits are set to the drawn area. If the figure
        has no layout engine, `ax` becomes narrower to make room for the legend. With more than two features, a title
        gives the values of the others, unless there is a title already. The function does not show or save the figure.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    ArgumentTypeError, ArgumentError, ShapeError, DataError
        If an argument, or the result of `model`, is not as described.

    Notes
    -----
    The boundary is interpolated linearly between the points of a grid of 200 by 200. The colour of a region is stronger
    where its class has a larger lead over the next class, in five steps of lead / (lead + median lead). A model that
    returns only labels gives regions of one shade. With `confidence` the colour grows with the probability of the class,
    from 1 / n_classes to 1, without steps, and dotted lines are where it is 75, 90 and 99 %. These are the model's own
    probabilities: whether they are right is another question. Up to ten classes have their own markers, and colours that most
    people with colour blindness can distinguish.

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
    matplotlib = check_axes("plot_decision_boundary", ax)
    plane = Plane(model, X, y, features, feature_names, threshold)
    xs, ys = (np.linspace(*ends, GRID) for ends in plane.ranges)
    verdict = plane.ask(grid_points(xs, ys), confidence)
    sure = None if confidence is None else verdict.probabilities.max(axis=1).reshape(GRID, GRID)
    ax = current_axes(ax)

    count = len(verdict.names)
    colours = COLOURS[:count]
    if count > len(COLOURS):
        colours = list(matplotlib.colormaps["turbo"](np.linspace(0, 1, count)))
    leads = [verdict.lead(k).reshape(GRID, GRID) for k in range(count)]
    levels, shades = [0.0, 1.0], [FAINT]
    if verdict.graded:
        typical = np.median(np.max(leads, axis=0)) or 1.0
        leads = [lead / (np.abs(lead) + typical) for lead in leads]
        levels, shades = np.linspace(0.0, 1.0, SHADES + 1), np.linspace(*FAINTEST_TO_STRONGEST, SHADES)
    if sure is not None:
        pixels = matplotlib.colors.to_rgba_array(colours)[verdict.winners].reshape(GRID, GRID, 4)
        low, high = FAINTEST_TO_STRONGEST
        pixels[..., 3] = low + (high - low) * verdict.certainty().reshape(GRID, GRID)
        ax.imshow(pixels, origin="lower", extent=(*plane.ranges[0], *plane.ranges[1]), aspect="auto",
                  interpolation="bilinear")
        shown = [level for level in SURE if level > 1 / count and sure.min() < level < sure.max()]
        if shown:
            lines = ax.contour(xs, ys, sure, levels=shown, colors="0.35", linewidths=0.7, linestyles="dotted")
            ax.clabel(lines, fmt=lambda level: f"{level:.0%}", fontsize="x-small")
    for lead, colour in zip(leads, colours) if sure is None else ():
        if lead.max() > 0:
            ax.contourf(xs, ys, lead, levels=levels, colors=[matplotlib.colors.to_rgba(colour, a) for a in shades])
    for lead in leads[1 if count == 2 else 0:]:
        if lead.min() < 0 < lead.max():
            ax.contour(xs, ys, lead, levels=[0.0], colors="0.2", linewidths=1.2 if count == 2 else 0.8)
    for k, (name, colour) in enumerate(zip(verdict.names, colours)):
        side = plane.shown[verdict.codes == k]
        ax.scatter(side[:, 0], side[:, 1], s=40, color=[colour], edgecolors="white", linewidths=0.8,
                   marker=MARKERS[k % len(MARKERS)], label=name)
    ax.set_xlim(plane.ranges[0])
    ax.set_ylim(plane.ranges[1])
    ax.set_xlabel(plane.names[0])
    ax.set_ylabel(plane.names[1])
    if plane.has_others and not ax.get_title():
        ax.set_title("other features at their mean")
    put_legend_beside(ax)
    return ax


def put_legend_beside(ax: Axes) -> None:
    """Add a legend to the right of the axes, and make room for it if there is no layout engine."""
    legend = ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)
    figure = ax.figure
    if figure.get_layout_engine() is not None:
        return
    place = ax.get_subplotspec()
    # The original position of the axes, so that a second drawing does not make them narrower again.
    box = place.get_position(figure) if place is not None else ax.get_position()
    beside = legend.get_window_extent().width / figure.bbox.width + 0.03 * box.width
    if place is not None or ax.get_position().x1 + beside > 1.0:
        ax.set_position([box.x0, box.y0, max(box.width - beside, box.width / 3), box.height])


class Plane:
    """The samples at two of their features, and a model's results for points of this plane."""

    model: Any
    frame: Any
    labels: NDArray[Any]
    named: bool
    features: list[int]
    shown: NDArray[np.float64]
    has_others: bool
    means: NDArray[np.float64]
    ranges: list[tuple[float, float]]
    names: list[str]
    threshold: float

    def __init__(self, model: Model | None, X: Any, y: Any, features: Any, feature_names: Any,
                 threshold: float) -> None:
        if model is not None:   # None where `of` gives the models
            check_model(model)
        self.model = model
        self.frame = X if hasattr(X, "columns") and hasattr(X, "iloc") else None
        if feature_names is None:
            feature_names = columns_of(X)
        X, y = samples_of(X, y, least=2)
        self.labels = labels_of(y)
        self.named = feature_names is not None
        names = feature_names_of(feature_names, X.shape[1])
        self.features = pair_of(features, names)
        self.shown = X[:, self.features]
        self.has_others = X.shape[1] > 2
        with np.errstate(over="ignore"):
            self.means = X.mean(axis=0) if self.has_others else np.zeros(2)
        self.ranges = [axis_range(f"X: column {i}", X[:, i], MARGIN) for i in self.features]
        self.names = [names[i] for i in self.features]
        self.threshold = finite("threshold", threshold)

    def of(self, model: Model) -> Plane:
        """The same samples with another model."""
        check_model(model)
        other = copy.copy(self)
        other.model = model
        return other

    def ask(self, points: NDArray[Any], confidence: str | None = None) -> Verdict:
        """The model's Verdict for points of the plane, an array of shape (n, 2)."""
        if confidence is not None:
            one_of("confidence", confidence, CONFIDENCES)
        whole_points = np.tile(self.means, (len(points), 1))
        whole_points[:, self.features] = points
        if callable(self.model):
            said, threshold = outputs(self.model, whole_points), self.threshold
            if confidence == "probabilities" and said.size == len(said) and threshold == 0.0:
                threshold = 0.5
            return Verdict(said, self.labels, threshold, confidence)
        if self.frame is not None and hasattr(self.model, "feature_names_in_"):   # selects columns by name
            whole_points = type(self.frame)(whole_points, columns=self.frame.columns)
        said, options = said_by_estimator(self.model, whole_points, self.labels, METHODS[confidence])
        return Verdict(said, self.labels, self.threshold, confidence, **options)

    def description(self) -> Iterator[str]:
        """A line for text pictures that explains the axes, if they need an explanation: one line or none."""
        if self.named or self.has_others or self.features != [0, 1]:
            others = "; the other features at their mean" if self.has_others else ""
            yield f"{self.names[0]} across, {self.names[1]} up{others}"


class Verdict:
    """A model's results for points, and the classes from which the model chose.

    Attributes
    ----------
    scores : ndarray of float64
        Between -1 and 1. For two classes, one score for each point, above 0 for the second class. For more classes, a
        score for each point and class.
    winners : ndarray of int
        The class at each point.
    names : list of str
        The names of the classes.
    codes : ndarray of int
        The class of each sample.
    by_sign : bool
        Whether the two classes are named negative and positive, by the sign of the score.
    graded : bool
        Whether the scores contain more information than labels.
    probabilities : ndarray of float64, shape (n_points, n_classes), or None
        Of each class at each point; None without `confidence`.
    """

    scores: NDArray[np.float64]
    winners: NDArray[Any]
    names: list[str]
    codes: NDArray[Any]
    by_sign: bool
    graded: bool
    probabilities: NDArray[np.float64] | None

    def __init__(self, said: NDArray[Any], labels: NDArray[Any], threshold: float, confidence: str | None = None, *,
                 says_labels: bool = False, of_classes: NDArray[Any] | None = None) -> None:
        classes, codes = np.unique(labels, return_inverse=True)
        self.by_sign = False
        self.graded = not says_labels
        if said.ndim == 2 and said.shape[1] == 1:
            said = said[:, 0]
        if says_labels and confidence is not None:
            raise ArgumentError("confidence: expected None with an estimator that has no method "
                                f"{METHODS[confidence][0]} that agrees with its labels, got {confidence!r}")
        self.probabilities = None if confidence is None else probabilities_of(said, confidence)
        if threshold != 0.0 and (said.ndim == 2 or says_labels or of_classes is not None):
            raise ArgumentError("threshold: expected 0 with a model that has a score for each class or says the "
                                f"labels, got {threshold:g}")
        if of_classes is not None:
            classes, codes = of_classes, np.searchsorted(of_classes, labels)
        elif said.ndim == 2:
            classes, codes = classes_of_columns(said, classes, codes)
        elif says_labels:
            said = scores_of_labels(said, classes)
        else:
            if said.dtype.kind == "U":
                raise ArgumentTypeError(f"model: expected scores, which are numbers, got {str(said[0])!r}")
            numeric = classes.dtype.kind != "U"
            if len(classes) == 1 and numeric:
                codes = (labels > 0).astype(int)
                classes = ["negative", "positive"]
                self.by_sign = threshold == 0.0
            elif len(classes) == 2:
                self.by_sign = bool(numeric and threshold == 0.0 and classes[0] <= 0 < classes[1])
            else:
                raise DataError(f"y: expected two labels with a model that has one score, got {len(classes)}: "
                                f"{names_of(classes)}")
            said = said - threshold
        self.winners = said.argmax(axis=1) if said.ndim == 2 else (said > 0).astype(int)
        said = said / (np.abs(said).max() or 1.0)
        if said.ndim == 2 and len(classes) == 2:
            said = (said[:, 1] - said[:, 0]) / 2
            said /= np.abs(said).max() or 1.0
        self.scores, self.codes = said, codes
        self.names = [name_of(label) for label in classes]

    def certainty(self) -> NDArray[np.float64]:
        """How sure the model is of the winner at each point, from 0 at a boundary to 1; without `confidence` the lead
        beside the median lead, and a constant for labels."""
        if self.probabilities is not None:
            count = self.probabilities.shape[1]
            won = self.probabilities[np.arange(len(self.winners)), self.winners]
            return np.maximum(won * count - 1.0, 0.0) / (count - 1)
        if not self.graded:
            return np.full(len(self.winners), 0.5)
        leads = np.max([self.lead(k) for k in range(len(self.names))], axis=0)
        return leads / (leads + (np.median(leads) or 1.0))

    def lead(self, k: int) -> NDArray[np.float64]:
        """The lead of class k over the best other class: above 0 where class k wins."""
        if self.scores.ndim == 1:
            return self.scores if k else -self.scores
        lead = (self.scores[:, k] - np.delete(self.scores, k, axis=1).max(axis=1)) / 2
        ahead = self.winners == k
        lead[ahead] = np.maximum(lead[ahead], 1e-12)  # one of several equal scores has to win
        return lead


def probabilities_of(said: NDArray[Any], confidence: str) -> NDArray[np.float64]:
    """The probability of each class at each point, of scores with a column for each class, or of the second of two."""
    if said.dtype.kind == "U":
        raise ArgumentTypeError(f"model: expected scores, which are numbers, got {str(said[0])!r}")
    if confidence == "logits":
        columns = np.stack([np.zeros(len(said)), said], axis=1) if said.ndim == 1 else said
        powers = np.exp(columns - columns.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    columns = np.stack([1.0 - said, said], axis=1) if said.ndim == 1 else said
    wrong = (columns < 0.0).any(axis=1) | (np.abs(columns.sum(axis=1) - 1.0) > 1e-3)
    if wrong.any():
        raise DataError("model: expected probabilities, from 0 to 1 and with the sum 1, got "
                        f"{shortened(said[wrong][0].tolist())}; of scores before sigmoid or softmax, confidence is 'logits'")
    return columns


def said_by_estimator(model: Any, points: Any, labels: NDArray[Any],
                      methods: tuple[str, ...]) -> tuple[NDArray[Any], dict[str, Any]]:
    """The results of an estimator for points, given the labels of the samples.

    Returns
    -------
    said : ndarray
        Scores of all its classes, if the estimator has a method for scores and they agree with `predict`. An
        estimator may vote, or have a threshold of its own, so they may disagree. Otherwise labels.
    options : dict
        Arguments of Verdict for these results.
    """
    predicted = outputs(model, points)
    classes = sorted_classes(model)
    if classes is None or predicted.ndim != 1 or not np.isin(labels, classes).all():
        return predicted, {"says_labels": True}
    for name in methods:
        ask = getattr(model, name, None)
        if not callable(ask):
            continue
        try:
            scores = outputs(ask, points)
        except (ArgumentTypeError, DataError, ShapeError):   # for example infinite scores
            continue
        if scores.ndim == 1 and len(classes) == 2:
            winners = (scores > 0).astype(int)
        elif scores.shape == (len(points), len(classes)):
            winners = scores.argmax(axis=1)
        else:
            continue
        if (classes[winners] == predicted).mean() >= AGREEMENT:
            return scores, {"of_classes": classes}
    return predicted, {"says_labels": True}


def sorted_classes(model: Any) -> NDArray[Any] | None:
    """The classes of the columns of an estimator's scores, in the form of `labels_of`; None if unknown."""
    try:
        classes = labels_of(np.asarray(model.classes_))
    except (AttributeError, TypeError, ValueError):
        return None
    return classes if classes.ndim == 1 and len(classes) > 1 and (classes[:-1] < classes[1:]).all() else None


def classes_of_columns(scores: NDArray[Any], classes: NDArray[Any],
                       codes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The classes of the columns of scores, and the class of each sample."""
    count = scores.shape[1]
    if classes.dtype.kind != "U" and ((0 <= classes) & (classes < count) & (classes == np.floor(classes))).all():
        return np.arange(count), classes.astype(int)[codes]
    if len(classes) != count:
        raise ShapeError(f"model: expected a score for each of the {len(classes)} labels of y, {names_of(classes)}, "
                         f"got {count}")
    return classes, codes


def scores_of_labels(said: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.float64]:
    """Scores of -1 and 1 for given labels."""
    if len(classes) < 2:
        raise DataError(f"y: expected two labels at least with a model that says labels, got {names_of(classes)}")
    comparable = (said.dtype.kind == "U") == (classes.dtype.kind == "U")
    strange = ~np.isin(said, classes) if comparable else np.ones(len(said), bool)
    if strange.any():
        label = said[strange][0]
        raise DataError(f"model: expected labels of y, {names_of(classes)}, got {name_of(label)}; "
                        "if these are scores, give the function that computes them")
    chosen = said[:, None] == classes
    return np.where(chosen, 1.0, -1.0) if len(classes) > 2 else np.where(chosen[:, 1], 1.0, -1.0)


def labels_of(y: NDArray[Any]) -> NDArray[Any]:
    """Labels as an array of float64 or of text."""
    if y.dtype.kind == "U" or y.size and all(isinstance(label, str) for label in y.tolist()):
        return y.astype(str)
    return finite_array("y", y)


def pair_of(features: Any, names: list[str]) -> list[int]:
    """The two features to draw, as a list of places."""
    n_features = len(names)
    expected = f"two different numbers from 0 to {n_features - 1}"
    try:
        pair = [names.index(one_of("features", i, names)) if isinstance(i, str) else whole("features", i)
                for i in ([features] if isinstance(features, str) else features)]
    except UnknownNameError:
        raise
    except (TypeError, ArgumentError):
        raise ArgumentTypeError(f"features: expected {expected}, got {shortened(features)}") from None
    if len(set(pair)) != 2 or len(pair) != 2 or max(pair) >= n_features:
        raise ArgumentError(f"features: expected {expected}, got {shortened(features)}")
    return pair


def name_of(label: Any) -> str:
    """A label in a picture: 1 instead of 1.0."""
    return str(label) if isinstance(label, str) else f"{label:.6g}"


def names_of(classes: Any) -> str:
    """Labels in a message."""
    return ", ".join([name_of(label) for label in classes[:8]]) + (", ..." if len(classes) > 8 else "")


def grid_points(xs: NDArray[Any], ys: NDArray[Any]) -> NDArray[np.float64]:
    """The points (n, 2) of the grid, row by row: all `xs` at `ys[0]`, and so on."""
    return np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
