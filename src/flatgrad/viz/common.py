"""The common parts of pictures of models: samples, a model's results for points, and axes to draw on."""
from __future__ import annotations

import contextlib
import math

import numpy as np

from flatgrad._core import Tensor, no_grad
from flatgrad.arguments import extra, samples, shortened
from flatgrad.errors import ArgumentTypeError, DataError, ShapeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol, TypeAlias

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    class Predictor(Protocol):
        """An estimator."""

        def predict(self, X: Any, /) -> Any: ...

    Model: TypeAlias = Callable[..., Any] | Predictor

__all__ = ["array_of", "axis_range", "check_axes", "check_model", "current_axes", "feature_names_of", "outputs",
           "samples_of"]

# Colours for people with and without colour blindness. First those of Okabe and Ito (2008), without yellow and
# black; vermilion and blue come first, as in micrograd's picture. Then some of Paul Tol's muted colours.
COLOURS = ["#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#882255", "#999933", "#332288", "#777777"]
FAINT = 0.4   # the opacity of a region, or of a sample behind a line


def check_axes(purpose: str, ax: Any) -> Any:
    """The module matplotlib, after a check that it is installed and that `ax` is None or axes."""
    matplotlib = extra("matplotlib", purpose, "viz")
    from matplotlib.axes import Axes

    if ax is not None and not isinstance(ax, Axes):
        raise ArgumentTypeError(f"ax: expected matplotlib.axes.Axes or None, got {shortened(ax)}")
    return matplotlib


def current_axes(ax: Axes | None) -> Axes:
    """`ax`, or for None pyplot's current axes. pyplot may make new axes, so call this when nothing can fail any
    more."""
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.gca()
    return ax


def array_of(name: str, x: Any) -> NDArray[Any]:
    """`x`, which may be a Tensor, as an array of any type."""
    try:
        return np.asarray(x.data if isinstance(x, Tensor) else x)
    except ValueError:   # because of rows of different lengths
        raise ShapeError(f"{name}: expected rows of one length, got {shortened(x)}") from None


def samples_of(X: Any, y: Any, least: int = 1) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """`X` as float64 of shape (n_samples, n_features), and `y`, of any type, of shape (n_samples,)."""
    X, y = samples("X", array_of("X", X)), array_of("y", y)
    if X.shape[1] < least:
        raise ShapeError(f"X: expected {least} features at least, got the shape {X.shape}")
    if y.shape == (len(X), 1):
        y = y[:, 0]
    if y.shape != (len(X),):
        raise ShapeError(f"y: expected the shape ({len(X)},), one for each row of X, got {y.shape}")
    return X, y


def feature_names_of(names: Any, n_features: int) -> list[str]:
    """A name for each feature; x[0], x[1] and so on for None."""
    if names is None:
        return [f"x[{i}]" for i in range(n_features)]
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ArgumentTypeError(f"feature_names: expected a name for each feature, got {shortened(names)}")
    if len(names) != n_features:
        raise ShapeError(f"feature_names: expected {n_features}, as X has features, got {len(names)}")
    return list(names)


def check_model(model: Any) -> None:
    """Refuse a model that cannot be called and has no `predict`."""
    if isinstance(model, type):
        raise ArgumentTypeError("model: expected a function of points or an estimator, with the method predict, "
                                f"got the class {model.__name__} and not one made by it")
    if not callable(model) and not callable(getattr(model, "predict", None)):
        raise ArgumentTypeError("model: expected a function of points or an estimator, with the method predict, "
                                f"got {shortened(model)}")


def outputs(model: Any, points: Any) -> NDArray[Any]:
    """The results of a model for points: an array, of float64 or of text, with a row for each point."""
    ask = model if callable(model) else model.predict
    with no_grad(), not_training(model):
        result = array_of("model", ask(points))
    if result.dtype.kind not in "biufU":
        try:
            result = result.astype(np.float64)
        except (TypeError, ValueError):
            if not all(isinstance(x, str) for x in result.flat):
                raise ArgumentTypeError("model: expected numbers for the points, "
                                        f"got {shortened(result.flat[0])}") from None
            result = result.astype(str)
    if result.ndim not in (1, 2) or len(result) != len(points) or 0 in result.shape:
        n = len(points)
        raise ShapeError(f"model: expected the shape ({n},) or ({n}, n_outputs) for {n} points, got {result.shape}")
    if result.dtype.kind != "U":
        result = result.astype(np.float64)
        good = np.isfinite(result).reshape(len(points), -1)
        if not good.all():
            row, column = np.argwhere(~good)[0]
            raise DataError(f"model: expected finite numbers, got {result.reshape(good.shape)[row, column]} "
                            f"for the point {shortened(points[row].tolist())}")
    return result


@contextlib.contextmanager
def not_training(model: Any) -> Iterator[None]:
    """A context in which a Module is in evaluation mode; at the end its mode is restored."""
    modules = model.modules() if callable(getattr(model, "modules", None)) else []
    modules = [module for module in modules if getattr(module, "training", False)]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module in modules:
            module.training = True


def axis_range(name: str, values: NDArray[Any], share: float) -> tuple[float, float]:
    """(low, high) around finite values, with a share of their range added on each side; never an empty range."""
    low, high = float(values.min()), float(values.max())
    # The margin is 1 if all values are equal, and more if rounding would lose 1.
    margin = share * (high - low) or max(1.0, 1e-6 * abs(low))
    low, high = low - margin, high + margin
    if not math.isfinite(high - low):
        raise DataError(f"{name} spans too wide a range to draw")
    return low, high
