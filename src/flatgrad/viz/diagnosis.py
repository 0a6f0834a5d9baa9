"""Pictures of how a training goes: which classes are taken for which, how numbers are distributed, and over the steps how
large the updates of parameters, the activations and their gradients are, as in part 3 of makemore."""
from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from flatgrad._core import Tensor, Value
from flatgrad.arguments import finite_array, flag, one_of, shortened, whole
from flatgrad.errors import ArgumentTypeError, DataError, ShapeError
from flatgrad.viz.common import COLOURS, array_of, check_axes, current_axes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Literal

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

    from flatgrad.nn import Module

__all__ = ["ActivationStats", "UpdateRatios", "plot_confusion", "plot_histograms"]

GOAL = -3.0   # log10 of update to data that makemore names as a rule of thumb
SATURATED = 0.97   # of an activation such as tanh; makemore's number
DARK = 0.5    # the share of a row above which a cell has white text


def plot_confusion(y: ArrayLike, predictions: ArrayLike, ax: Axes | None = None, *,
                   normalize: bool = False) -> Axes:
    """Draw how many samples of each class are taken for which: a confusion matrix.

    Parameters
    ----------
    y, predictions : array_like, shape (n_samples,)
        The labels, and what a model has said: numbers or text.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on. None takes `matplotlib.pyplot.gca()`.
    normalize : bool, optional
        Whether cells show shares of their row, which is a class of `y`, in place of counts. Colours always do.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`. The function does not show or save the figure.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    ArgumentTypeError, ShapeError, DataError
        If an argument is not as described.

    Notes
    -----
    The classes are the distinct labels of both, in order. The share on the diagonal of a row is its class's recall.

    Examples
    --------
    >>> from matplotlib.figure import Figure  # doctest: +SKIP
    >>> from flatgrad.viz import plot_confusion
    >>> ax = plot_confusion([0, 0, 1, 1], [0, 1, 1, 1], ax=Figure().subplots())  # doctest: +SKIP
    """
    check_axes("plot_confusion", ax)
    normalize = flag("normalize", normalize)
    classes, counts = confusion(y, predictions)
    ax = current_axes(ax)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for row in range(len(classes)):
        for column in range(len(classes)):
            shown = f"{shares[row, column]:.2f}" if normalize else str(counts[row, column])
            ax.text(column, row, shown, ha="center", va="center",
                    color="white" if shares[row, column] > DARK else "0.15")
    names = [str(name) for name in classes]
    ax.set_xticks(range(len(names)), names, rotation=45 if max(map(len, names)) > 4 else 0)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("prediction")
    ax.set_ylabel("label")
    return ax


def confusion(y: Any, predictions: Any) -> tuple[list[Any], NDArray[Any]]:
    """The classes in order, and the counts of (label, prediction)."""
    y, predictions = array_of("y", y), array_of("predictions", predictions)
    for name, array in (("y", y), ("predictions", predictions)):
        if array.ndim != 1:
            raise ShapeError(f"{name}: expected 1 dimension, got the shape {array.shape}")
        if array.dtype.kind not in "biufU":
            raise ArgumentTypeError(f"{name}: expected labels, numbers or text, got {shortened(array.tolist())}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"{name}: expected finite numbers, got nan or inf")
    if len(y) != len(predictions):
        raise ShapeError(f"predictions: expected {len(y)}, one for each label in y, got {len(predictions)}")
    if len(y) == 0:
        raise DataError("y: expected one sample at least, got none")
    if (y.dtype.kind == "U") != (predictions.dtype.kind == "U"):
        raise ArgumentTypeError("predictions: expected labels like those in y, got numbers and text")
    classes, codes = np.unique(np.concatenate([y, predictions]), return_inverse=True)
    codes = codes.reshape(-1)
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (codes[:len(y)], codes[len(y):]), 1)
    return classes.tolist(), counts


def plot_histograms(series: Module | Mapping[str, ArrayLike], ax: Axes | None = None, *, grad: bool = False,
                    bins: int = 30) -> Axes:
    """Draw how the numbers of several layers are distributed: activations, weights or gradients.

    Parameters
    ----------
    series : Module, or mapping of str to array_like or Tensor
        A Module stands for its weights, layer by layer, without biases. A mapping has numbers of any kind under the
        names that the legend shows, such as the outputs of layers.
    ax : matplotlib.axes.Axes, optional
        The axes to draw on. None takes `matplotlib.pyplot.gca()`.
    grad : bool, optional
        Whether to draw the gradients of a Module's weights in place of their data.
    bins : int, optional
        The number of bins, which are the same for all.

    Returns
    -------
    matplotlib.axes.Axes
        `ax`, with a line for each name; the legend has mean and standard deviation. The function does not show or save
        the figure.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    ArgumentTypeError, ArgumentError, DataError
        If an argument is not as described.

    Examples
    --------
    >>> from matplotlib.figure import Figure  # doctest: +SKIP
    >>> from flatgrad.nn import MLP
    >>> from flatgrad.viz import plot_histograms
    >>> ax = plot_histograms(MLP(2, [16, 1]), ax=Figure().subplots())  # doctest: +SKIP
    """
    check_axes("plot_histograms", ax)
    grad, bins = flag("grad", grad), whole("bins", bins, 1)
    is_model = callable(getattr(series, "named_parameters", None)) and not isinstance(series, type)
    if is_model:
        series = {name: [p.grad if grad else p.data for p in found] for name, found in weights_of(series).items()}
    elif not isinstance(series, Mapping):
        raise ArgumentTypeError("series: expected a Module or a dict of names and numbers, "
                                f"got {shortened(series)}")
    numbers = {name: finite_array(f"series[{name!r}]", array_of("series", found)).reshape(-1)
               for name, found in series.items()}
    if not numbers or any(len(found) == 0 for found in numbers.values()):
        raise DataError("series: expected numbers under each name, got none")
    ax = current_axes(ax)
    edges = np.histogram_bin_edges(np.concatenate(list(numbers.values())), bins)
    for k, (name, found) in enumerate(numbers.items()):
        density, _ = np.histogram(found, edges, density=True)
        ax.plot((edges[:-1] + edges[1:]) / 2, density, color=COLOURS[k % len(COLOURS)],
                label=f"{name}: mean {found.mean():.2g}, std {found.std():.2g}")
    ax.set_xlabel("gradient" if is_model and grad else "value")
    ax.set_ylabel("density")
    ax.set_ylim(bottom=0)
    ax.legend(loc="best", fontsize="small")
    return ax


def weights_of(model: Module) -> dict[str, list[Value]]:
    """Name of the weights of a layer -> their Values, in the order of the parameters; biases are left out."""
    found = {}
    for name, p in model.named_parameters():
        values = [p] if isinstance(p, Value) else list(values_of(p))
        found.setdefault(name.split("[")[0], []).extend(values)
    return {name: values for name, values in found.items()
            if not name.split(".")[-1].startswith(("bias", "beta"))}


def values_of(tensor: Any) -> Iterator[Value]:
    for part in tensor:
        yield from [part] if isinstance(part, Value) else values_of(part)


class UpdateRatios:
    """How large the updates of a model's weights are beside the weights, step by step.

    Parameters
    ----------
    model : Module

    Attributes
    ----------
    ratios : dict of str to list of float
        For the weights of each layer, log10 of std(update) / std(data) at each step; -inf for no update.

    Raises
    ------
    ArgumentTypeError
        If `model` is no Module.

    Notes
    -----
    It is also a callback of `flatgrad.train.Trainer`, which then takes its steps in Python, and records each.

    As in part 3 of makemore, where ratios of about 0.001, a logarithm of -3, are a rule of thumb for the learning rate.
    Parameters with fewer than two numbers, for which there is no deviation, are left out, and so are biases.

    Examples
    --------
    >>> from flatgrad.nn import MLP
    >>> from flatgrad.viz import UpdateRatios
    >>> model = MLP(2, [3, 1])
    >>> watch = UpdateRatios(model)
    >>> for p in model.parameters():
    ...     p.data *= 1.001
    >>> watch.record()
    >>> {name: round(found[0], 3) for name, found in watch.ratios.items()}
    {'layers.0.weight': -3.0, 'layers.1.weight': -3.0}
    """

    ratios: dict[str, list[float]]

    def __init__(self, model: Module) -> None:
        if not callable(getattr(model, "named_parameters", None)) or isinstance(model, type):
            raise ArgumentTypeError(f"model: expected a Module, got {shortened(model)}")
        self._layers = {name: found for name, found in weights_of(model).items() if len(found) > 1}
        self._before = self._numbers()
        self.ratios = {name: [] for name in self._layers}

    def _numbers(self):
        return {name: np.array([value.data for value in found]) for name, found in self._layers.items()}

    def record(self) -> None:
        """Note the updates since the last call, or since this object was made. Call it after each step."""
        now = self._numbers()
        for name, data in now.items():
            update, size = (data - self._before[name]).std(), self._before[name].std()
            self.ratios[name].append(math.log10(update / size) if update > 0 and size > 0 else
                                     -math.inf if update == 0 else math.inf if update > 0 else math.nan)
        self._before = now

    def on_batch_end(self, trainer: Any, batch: int, loss: float) -> None:
        """A Trainer, which has this object in `callbacks`, has taken a step."""
        self.record()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the ratios over the steps, with a line at -3.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            The axes to draw on. None takes `matplotlib.pyplot.gca()`.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        DataError
            If nothing has been recorded.
        """
        check_axes("UpdateRatios.plot", ax)
        ax = plot_steps(self.ratios, ax)
        ax.axhline(GOAL, color="0.4", linewidth=1, linestyle="--")
        ax.set_ylabel("log10 of update to data")
        return ax


def plot_steps(series: Mapping[str, list[float]], ax: Axes | None) -> Axes:
    """Draw numbers of each step by name, with a legend; those that are not finite leave a gap."""
    if not any(series.values()):
        raise DataError("plot(): expected one step at least, got none: call record() after each step")
    ax = current_axes(ax)
    for k, (name, found) in enumerate(series.items()):
        shown = np.where(np.isfinite(found), found, np.nan)
        ax.plot(range(1, len(found) + 1), shown, color=COLOURS[k % len(COLOURS)], label=name)
    ax.set_xlabel("step")
    ax.legend(loc="best", fontsize="small")
    return ax


class ActivationStats:
    """What the layers of a model return, and the gradients of that, step by step.

    Parameters
    ----------
    model : Module
        The layers are the modules that `Module.summary` lists. Each has a forward hook until `remove` is called.

    Attributes
    ----------
    mean, std : dict of str to list of float
        For each layer, mean and standard deviation of its outputs at each step.
    saturated : dict of str to list of float
        The share of outputs whose absolute value is above 0.97: of tanh and sigmoid those with hardly a gradient.
    zero : dict of str to list of float
        The share of outputs that are 0: of relu those without a gradient.
    grad_std : dict of str to list of float
        The standard deviation of the gradients of the outputs.

    Raises
    ------
    ArgumentTypeError
        If `model` is no Module.

    Notes
    -----
    The statistics are those of part 3 of makemore: in a network that starts well the layers have much the same deviations,
    and few outputs are saturated. It is also a callback of `flatgrad.train.Trainer`, which then takes its steps in
    Python, and records each. Calls in evaluation mode are not recorded; of several calls before a `record`, the last
    one is.

    Examples
    --------
    >>> from flatgrad import Tensor
    >>> from flatgrad.nn import MLP
    >>> from flatgrad.viz import ActivationStats
    >>> model = MLP(2, [8, 1], activation="tanh")
    >>> stats = ActivationStats(model)
    >>> (model(Tensor([[1.0, 2.0], [3.0, 4.0]])) ** 2).sum().backward()
    >>> stats.record()
    >>> list(stats.std), len(stats.grad_std["layers.0"])
    (['layers.0', 'layers.1'], 1)
    >>> stats.remove()
    """

    mean: dict[str, list[float]]
    std: dict[str, list[float]]
    saturated: dict[str, list[float]]
    zero: dict[str, list[float]]
    grad_std: dict[str, list[float]]

    def __init__(self, model: Module) -> None:
        if not all(callable(getattr(model, name, None)) for name in ("summary_rows", "named_modules")) or isinstance(
                model, type):
            raise ArgumentTypeError(f"model: expected a Module, got {shortened(model)}")
        listed = {name for name, _, _ in model.summary_rows()}
        watched = {name or type(model).__name__: module for name, module in model.named_modules() if name in listed}
        self.mean, self.std, self.saturated, self.zero, self.grad_std = ({name: [] for name in watched} for _ in range(5))
        self._outputs = {}
        self._handles = [module.register_forward_hook(self._hook(name)) for name, module in watched.items()]

    def _hook(self, name: str) -> Callable[..., None]:
        def keep(module, args, output):
            if module.training:
                self._outputs[name] = output
        return keep

    def record(self) -> None:
        """Note the statistics of the last forward and backward pass. Call it after `backward`, once for each step.

        Raises
        ------
        DataError
            If there has been no forward pass in training mode since the last call.
        """
        if not self._outputs:
            raise DataError("record(): expected a forward pass in training mode since the last call, got none")
        outputs, self._outputs = self._outputs, {}
        for name in self.mean:
            data, grad = numbers_of(outputs.get(name))
            for found, number in ((self.mean, data.mean()), (self.std, data.std()),
                                  (self.saturated, (np.abs(data) > SATURATED).mean()), (self.zero, (data == 0).mean()),
                                  (self.grad_std, grad.std())):
                found[name].append(float(number))

    def on_batch_end(self, trainer: Any, batch: int, loss: float) -> None:
        """A Trainer, which has this object in `callbacks`, has taken a step."""
        self.record()

    def remove(self) -> None:
        """Remove the hooks from the model. The statistics stay."""
        for handle in self._handles:
            handle.remove()
        self._outputs = {}

    def plot(self, ax: Axes | None = None,
             what: Literal["std", "mean", "saturated", "zero", "grad_std"] = "std") -> Axes:
        """Draw one of the statistics over the steps.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            The axes to draw on. None takes `matplotlib.pyplot.gca()`.
        what : {'std', 'mean', 'saturated', 'zero', 'grad_std'}, optional
            The name of the attribute.

        Returns
        -------
        matplotlib.axes.Axes
            `ax`, with a line for each layer. Deviations of gradients have a logarithmic scale if all are above 0. The
            function does not show or save the figure.

        Raises
        ------
        MissingPackageError
            If matplotlib is not installed.
        ArgumentTypeError, UnknownNameError, DataError
            If an argument is not as described, or nothing has been recorded.
        """
        check_axes("ActivationStats.plot", ax)
        series = getattr(self, one_of("what", what, list(SHOWN)))
        ax = plot_steps(series, ax)
        if what == "grad_std" and all(x > 0 for found in series.values() for x in found):
            ax.set_yscale("log")
        ax.set_ylabel(SHOWN[what])
        return ax


SHOWN = {"std": "deviation of outputs", "mean": "mean of outputs", "saturated": "share of saturated outputs",
         "zero": "share of outputs that are 0", "grad_std": "deviation of gradients"}   # with ActivationStats.plot


def numbers_of(output: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Data and gradients of what a layer has returned: a Value, a Tensor or a list of Values; nan for anything else."""
    if isinstance(output, (Value, Tensor)):
        return np.atleast_1d(output.data), np.atleast_1d(output.grad)
    if isinstance(output, (list, tuple)) and output and all(isinstance(value, Value) for value in output):
        return np.array([value.data for value in output]), np.array([value.grad for value in output])
    return np.array([math.nan]), np.array([math.nan])
