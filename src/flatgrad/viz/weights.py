"""Weights as pictures: a matrix as it is, or the weights of each neuron in the shape of its inputs."""
from __future__ import annotations

import math

import numpy as np

from flatgrad.arguments import finite_array, one_of, shortened, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError
from flatgrad.viz.common import array_of, check_axes, current_axes
from flatgrad.viz.drawing import MINUS, PLUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    from flatgrad.nn import Module

__all__ = ["plot_weights"]


def plot_weights(weights: Module | ArrayLike, ax: Axes | None = None, *, shape: tuple[int, int] | None = None,
                 name: str | None = None, most: int = 100) -> Axes:
    """Draw the weights of a layer: as a matrix, or for each neuron a picture in the shape of its inputs.

    Parameters
    ----------
    weights : Module, Tensor or array_like of shape (n_outputs, n_inputs)
        A layer, or a model, whose weights are found by `name`; or a matrix with a row for each neuron.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on. None takes `matplotlib.pyplot.gca()`.
    shape : pair of int, optional
        Height and width of the pictures, such as ``(28, 28)`` for neurons that see digits. A row of the matrix may hold
        several pictures one after the other, as those of `Conv2d` hold one for each input channel: these stand side by
        side. None: the matrix is one picture, with outputs from above to below.
    name : str, optional
        Of a Module with several matrices, the name of the one to draw, such as ``'layers.1.weight'``; by default the
        first.
    most : int, optional
        The largest number of neurons that have a picture of their own; of more, the first are drawn.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, with a bar for the colours and, of a Module, the name of the weights as title, unless there is a title. The
        function does not show or save the figure.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    ArgumentTypeError, ArgumentError, ShapeError, DataError
        If an argument is not as described.

    Notes
    -----
    Blue is above 0 and orange below, as in `draw_network`; white is 0, and both ends have the largest absolute value of
    the weights that are drawn.

    Examples
    --------
    >>> from matplotlib.figure import Figure  # doctest: +SKIP
    >>> from flatgrad.nn import MLP
    >>> from flatgrad.viz import plot_weights
    >>> ax = plot_weights(MLP(64, [10, 3]), ax=Figure().subplots(), shape=(8, 8))  # doctest: +SKIP
    """
    check_axes("plot_weights", ax)
    from matplotlib.colors import LinearSegmentedColormap

    title, matrix = matrix_of(weights, name)
    most = whole("most", most, 1)
    picture = matrix if shape is None else tiles(matrix, pair(shape), most)
    ax = current_axes(ax)
    largest = float(np.nanmax(np.abs(picture))) or 1.0
    colours = LinearSegmentedColormap.from_list("weights", [MINUS, "#ffffff", PLUS], N=257).with_extremes(bad="0.75")
    image = ax.imshow(np.ma.masked_invalid(picture), cmap=colours, vmin=-largest, vmax=largest, interpolation="nearest",
                      aspect="auto" if shape is None else "equal")
    if shape is None:
        ax.set(xlabel="input", ylabel="output")
    else:
        ax.set(xticks=[], yticks=[])
    if title and not ax.get_title():
        ax.set_title(title, fontsize="medium")
    ax.figure.colorbar(image, ax=ax)
    return ax


def matrix_of(weights: Any, name: str | None) -> tuple[str, NDArray[np.float64]]:
    """The name and the numbers of a matrix."""
    if not callable(getattr(weights, "named_parameters", None)) or isinstance(weights, type):
        if name is not None:
            raise ArgumentError(f"name: expected None with a matrix, got {name!r}")
        matrix = finite_array("weights", array_of("weights", weights))
        if matrix.ndim != 2:
            raise ShapeError("weights: expected a Module or a matrix, (n_outputs, n_inputs), got the shape "
                             f"{matrix.shape}")
        if not matrix.size:
            raise DataError(f"weights: expected numbers, got the shape {matrix.shape}")
        return "", matrix
    found: dict[str, dict[tuple[int, ...], float]] = {}
    for each, value in weights.named_parameters():
        base, _, place = each.partition("[")
        if "," in place:
            found.setdefault(base, {})[tuple(map(int, place.rstrip("]").split(",")))] = value.data
    if not found:
        raise ArgumentError("weights: expected a Module that has a matrix of weights, got one whose parameters are "
                            f"{shortened([each for each, _ in weights.named_parameters()])}")
    chosen = next(iter(found)) if name is None else one_of("name", name, list(found))
    places = np.array(list(found[chosen]))
    array = np.zeros(places.max(axis=0) + 1)
    array[tuple(places.T)] = list(found[chosen].values())
    return chosen, finite_array(chosen, array.reshape(len(array), -1))


def pair(shape: Any) -> tuple[int, int]:
    """Height and width."""
    try:
        height, width = shape
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"shape: expected None or two ints, such as (28, 28), got {shortened(shape)}") from None
    return whole("shape[0]", height, 1), whole("shape[1]", width, 1)


def tiles(matrix: NDArray[Any], shape: tuple[int, int], most: int) -> NDArray[np.float64]:
    """The rows of a matrix as pictures with lines of nan between them: a row of pictures for each row with several, and
    otherwise as many above as beside each other."""
    height, width = shape
    count, rest = divmod(matrix.shape[1], height * width)
    if rest:
        raise ShapeError(f"shape: expected height * width to divide {matrix.shape[1]}, the number of inputs, got {shape}")
    pictures = matrix[:most].reshape(-1, height, width)
    across = count if count > 1 else math.ceil(math.sqrt(len(pictures) * height / width))
    across = max(1, min(across, len(pictures)))
    down = math.ceil(len(pictures) / across)
    canvas = np.full((down * (height + 1) - 1, across * (width + 1) - 1), np.nan)
    for k, picture in enumerate(pictures):
        row, column = k // across * (height + 1), k % across * (width + 1)
        canvas[row:row + height, column:column + width] = picture
    return canvas
