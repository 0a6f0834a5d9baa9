"""The loss over a plane of the parameters: along two directions from where the model is."""
from __future__ import annotations

import math

import numpy as np

from flatgrad._core import Tensor, Value, _from_vector, _to_vector, no_grad
from flatgrad.arguments import finite_array, flag, generator, positive, real, shortened, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError
from flatgrad.viz.common import array_of, check_axes, current_axes, not_training

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    from flatgrad._core import _Rng
    from flatgrad.nn import Module

__all__ = ["LossSurface", "loss_surface"]

MARGIN = 0.2    # a share of a path's range, added on each side
LEVELS = 24     # of the loss, in a plot


class LossSurface:
    """The loss over a plane of the parameters, made by `loss_surface`.

    Attributes
    ----------
    alphas, betas : ndarray of float64, shapes (n_alphas,) and (n_betas,)
        How far along the first and the second direction.
    losses : ndarray of float64, shape (n_betas, n_alphas)
        ``losses[j, i]`` is the loss at ``center + alphas[i] * directions[0] + betas[j] * directions[1]``; nan and inf
        where the loss is.
    center : ndarray of float64, shape (n_parameters,)
        The parameters of the model, in the order of ``model.parameters()``.
    directions : ndarray of float64, shape (2, n_parameters)
        The directions.
    path : ndarray of float64, shape (n_points, 2), or None
        (alpha, beta) of the points of a path, as far as it lies in the plane: the nearest points of the plane.
    shares : ndarray of float64, shape (2,), or None
        Of the variance of the path, what each direction has.
    """

    alphas: NDArray[np.float64]
    betas: NDArray[np.float64]
    losses: NDArray[np.float64]
    center: NDArray[np.float64]
    directions: NDArray[np.float64]
    path: NDArray[np.float64] | None
    shares: NDArray[np.float64] | None

    def __init__(self, alphas: NDArray[Any], betas: NDArray[Any], losses: NDArray[Any], center: NDArray[Any],
                 directions: NDArray[Any], path: NDArray[Any] | None, shares: NDArray[Any] | None) -> None:
        self.alphas, self.betas, self.losses = alphas, betas, losses
        self.center, self.directions, self.path, self.shares = center, directions, path, shares

    def __repr__(self) -> str:
        found = self.losses[np.isfinite(self.losses)]
        ends = f"from {found.min():.4g} to {found.max():.4g}" if found.size else "nowhere finite"
        return f"<loss surface of {len(self.alphas)} x {len(self.betas)} points, {ends}>"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the surface as lines of equal loss, or on three-dimensional axes as a surface.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            The axes to draw on, also such as ``figure.add_subplot(projection='3d')``. None takes
            `matplotlib.pyplot.gca()`.

        Returns
        -------
        matplotlib.axes.Axes
            `ax`. The model is at (0, 0), which has a cross. A path begins at a dot. If all losses are above 0 and span
            more than two decades, levels are logarithmic. The function does not show or save the figure.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        ArgumentTypeError, DataError
            If `ax` is no axes, or no loss is finite.
        """
        check_axes("LossSurface.plot", ax)
        losses = np.ma.masked_invalid(self.losses)
        found = losses.compressed()
        if not found.size:
            raise DataError("losses: expected a finite loss at least, got none")
        logarithmic = bool(found.min() > 0 and found.max() > 100 * found.min())
        ax = current_axes(ax)
        names = ["direction 1", "direction 2"]
        if self.shares is not None:
            names = [f"{name}: {share:.0%} of the variance" for name, share in zip(names, self.shares)]
        if getattr(ax, "name", "") == "3d":
            across, up = np.meshgrid(self.alphas, self.betas)
            height = np.ma.filled(np.ma.log10(losses) if logarithmic else losses, np.nan)
            solid: Any = ax   # Axes3D
            solid.plot_surface(across, up, height, cmap="viridis", linewidth=0, rcount=100, ccount=100)
            ax.set(xlabel=names[0], ylabel=names[1])
            if not ax.get_title():   # a label of the third axis is often cut off
                ax.set_title("log10 of the loss" if logarithmic else "loss", fontsize="medium")
            return ax
        from matplotlib.colors import LogNorm, Normalize

        low, high = found.min(), found.max()
        if high <= low:   # a flat one
            low, high, logarithmic = low - 0.5, low + 0.5, False
        levels = np.geomspace(low, high, LEVELS) if logarithmic else np.linspace(low, high, LEVELS)
        scale = (LogNorm if logarithmic else Normalize)(low, high)
        filled = ax.contourf(self.alphas, self.betas, losses, levels=levels, norm=scale, cmap="viridis", alpha=0.85)
        ax.contour(self.alphas, self.betas, losses, levels=levels[::2], norm=scale, colors="white", linewidths=0.5)
        shown = levels[::4]
        ax.figure.colorbar(filled, ax=ax, label="loss", ticks=shown).ax.set_yticklabels([f"{x:.3g}" for x in shown])
        if self.path is not None:
            ax.plot(*self.path.T, color="#D55E00", linewidth=1.6)
            ax.plot(*self.path[0], "o", color="#D55E00", markersize=6)
        ax.plot(0.0, 0.0, "x", color="#D55E00", markersize=8, markeredgewidth=2)
        ax.set(xlabel=names[0], ylabel=names[1])
        return ax


def loss_surface(model: Module, loss: Callable[[], Value | float], *,
                 directions: tuple[ArrayLike, ArrayLike] | None = None, path: Sequence[ArrayLike] | None = None,
                 normalize: bool = True, span: float = 1.0, steps: int = 31, rng: _Rng = None) -> LossSurface:
    """Compute the loss over a plane through the parameters of a model.

    Parameters
    ----------
    model : Module
        The model. It is in evaluation mode meanwhile, and afterwards its parameters are what they were, bit for bit,
        also after an error.
    loss : callable
        A function without arguments that returns the loss of the model as it is, a Value or a number, such as
        ``lambda: cross_entropy(model(X), y)``. It is called `steps` ** 2 times, without recording a graph.
    directions : pair of array_like, each of shape (n_parameters,), optional
        Two directions, in the order of ``model.parameters()``. None: those of the path, or two at random.
    path : sequence of array_like, each of shape (n_parameters,), optional
        Parameters at three or more moments of a training, in the same order. Without `directions`, the two principal
        components of these points, of length 1, are the directions. The plane covers the path.
    normalize : bool, optional
        Whether random directions have, for each neuron, the length of its weights, as Li et al. propose. Biases do not
        change then. If not, directions are normal numbers.
    span : float, optional
        How far the plane goes to each side, where no path says it.
    steps : int, optional
        The number of points along each direction; an odd one has the model itself among its points.
    rng : None, int, random.Random or numpy.random.Generator, optional
        The generator of random directions, or its seed.

    Returns
    -------
    LossSurface
        Its arrays, and a method `plot`.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError, DataError
        If an argument, or the result of `loss`, is not as described.

    Notes
    -----
    A direction ``d`` at random is scaled for each filter ``i`` of a layer to ``d_i * norm(w_i) / norm(d_i)``: a
    network of rectified linear units does not change if the weights of a layer grow and those of the next one shrink
    as much, so without this step flatness would depend on their scale. A filter is the weights of a neuron or of an
    output channel: those with the same first index. Parameters whose name begins with `bias` or `beta`, and others with
    one axis, such as the scales of `LayerNorm`, have the direction 0; if no parameters have two axes, as in a `Neuron`,
    the weights are one filter.

    Two directions are a small part of what there is: a surface that looks convex need not be so elsewhere.

    References
    ----------
    H. Li, Z. Xu, G. Taylor, C. Studer and T. Goldstein: Visualizing the loss landscape of neural nets. NeurIPS 2018.

    Examples
    --------
    >>> from flatgrad.datasets import make_moons
    >>> from flatgrad.losses import bce_with_logits
    >>> from flatgrad.nn import MLP
    >>> from flatgrad.viz import loss_surface
    >>> X, y = make_moons(50, random_state=1)
    >>> model = MLP(2, [4, 1])
    >>> surface = loss_surface(model, lambda: bce_with_logits(model(X), y), steps=5, rng=0)
    >>> surface.losses.shape, surface.alphas.tolist()
    ((5, 5), [-1.0, -0.5, 0.0, 0.5, 1.0])
    >>> bool(surface.losses[2, 2] == bce_with_logits(model(X), y).data)
    True
    """
    if not callable(getattr(model, "named_parameters", None)) or isinstance(model, type):
        raise ArgumentTypeError(f"model: expected a Module, got {shortened(model)}")
    if not callable(loss):
        raise ArgumentTypeError("loss: expected a function without arguments that returns the loss, such as "
                                f"lambda: mse(model(X), y), got {shortened(loss)}")
    normalize, span, steps = flag("normalize", normalize), positive("span", span), whole("steps", steps, 2)
    parameters = model.parameters()
    center = _to_vector(parameters)
    if not center.size:
        raise ArgumentError("model: expected one that has parameters, got none")
    if not np.isfinite(center).all():
        raise DataError("model: expected finite parameters, got nan or inf")
    points = None if path is None else points_of(path, center)
    plane, shares = chosen(model, center, directions, points, normalize, rng)
    places = None
    alphas = betas = np.linspace(-span, span, steps)
    if points is not None:
        # The nearest points of the plane, whose directions need not be orthogonal.
        places = np.linalg.lstsq(plane.T, (points - center).T, rcond=None)[0].T
        alphas, betas = (np.linspace(*covering(axis), steps) for axis in places.T)
    losses = losses_over(model, loss, parameters, center, plane, alphas, betas)
    return LossSurface(alphas, betas, losses, center, plane, places, shares)


def losses_over(model: Module, loss: Callable[[], Any], parameters: list[Value], center: NDArray[Any],
                plane: NDArray[Any], alphas: NDArray[Any], betas: NDArray[Any]) -> NDArray[np.float64]:
    """The losses at the points of a plane; the parameters are afterwards those of `center`."""
    losses = np.empty((len(betas), len(alphas)))
    try:
        with no_grad(), not_training(model), np.errstate(over="ignore", invalid="ignore"):
            for j, beta in enumerate(betas.tolist()):
                for i, alpha in enumerate(alphas.tolist()):
                    _from_vector(parameters, center + alpha * plane[0] + beta * plane[1])
                    losses[j, i] = number_of(loss())
    finally:
        _from_vector(parameters, center)
    return losses


def number_of(found: Any) -> float:
    """What `loss` has returned, as a float."""
    data = found.data if isinstance(found, (Value, Tensor)) else found
    if isinstance(data, np.ndarray) and data.size == 1:
        data = data.item()
    return real("loss: what it returns", data, "a Value or a number")


# ---- directions ----

def chosen(model: Module, center: NDArray[Any], directions: Any, points: NDArray[Any] | None, normalize: bool,
           rng: _Rng) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Two directions, and the shares of the variance of a path that they have."""
    if directions is not None:
        try:
            first, second = directions
        except (TypeError, ValueError):
            raise ArgumentTypeError(f"directions: expected None or two arrays, got {shortened(directions)}") from None
        plane = np.stack([vector(f"directions[{k}]", each, center) for k, each in enumerate((first, second))])
        lengths = np.linalg.norm(plane, axis=1)
        if not lengths.all() or abs(plane[0] @ plane[1]) >= (1.0 - 1e-12) * lengths[0] * lengths[1]:
            raise ArgumentError("directions: expected two that are not 0 and not parallel")
        return plane, None
    if points is not None:
        return components(points)
    generated = generator("rng", rng).standard_normal((2, center.size))
    return (generated if not normalize else np.stack([by_filter(model, center, each) for each in generated])), None


def components(points: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first two principal components of points, and their shares of the variance."""
    _, sizes, rows = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    if len(rows) < 2 or sizes[1] <= 1e-12 * sizes[0]:
        raise DataError("path: expected points that span a plane, got points on a line")
    signs = np.sign(rows[np.arange(2), np.abs(rows[:2]).argmax(axis=1)])   # the same on every machine
    return rows[:2] * signs[:, None], (sizes**2 / (sizes**2).sum())[:2]


def by_filter(model: Module, center: NDArray[Any], direction: NDArray[Any]) -> NDArray[np.float64]:
    """A direction with the length of the weights in each filter, and 0 for biases."""
    filters: dict[tuple[str, int], list[int]] = {}
    others: list[int] = []   # weights with one axis
    for k, (name, _) in enumerate(model.named_parameters()):
        base, _, place = name.partition("[")
        if base.split(".")[-1].startswith(("bias", "beta")):
            continue
        if "," in place:
            filters.setdefault((base, int(place.split(",")[0])), []).append(k)
        else:
            others.append(k)
    scaled = np.zeros_like(direction)
    for members in filters.values() or [others]:
        length = math.hypot(*direction[members].tolist())
        scaled[members] = direction[members] * (math.hypot(*center[members].tolist()) / (length or 1.0))
    if not scaled.any():
        raise DataError("model: expected weights that are not all 0 for directions by their size, got none; "
                        "normalize=False has others")
    return scaled


# ---- paths ----

def points_of(path: Any, center: NDArray[Any]) -> NDArray[np.float64]:
    """The points of a path, one for each row."""
    try:
        rows = list(path)
    except TypeError:
        raise ArgumentTypeError(f"path: expected arrays of parameters, got {shortened(path)}") from None
    if len(rows) < 3:
        raise ShapeError(f"path: expected three points at least, got {len(rows)}")
    return np.stack([vector(f"path[{k}]", row, center) for k, row in enumerate(rows)])


def vector(name: str, x: Any, center: NDArray[Any]) -> NDArray[np.float64]:
    """An array with a number for each parameter."""
    array = finite_array(name, array_of(name, x), 1)
    if array.size != center.size:
        raise ShapeError(f"{name}: expected {center.size} numbers, one for each parameter, got {array.size}")
    return np.asarray(array)


def covering(values: NDArray[Any]) -> tuple[float, float]:
    """The ends of an axis that covers values and 0, the model."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    margin = MARGIN * (high - low)
    return (low - margin, high + margin) if margin > 0 and math.isfinite(margin) else (-1.0, 1.0)
