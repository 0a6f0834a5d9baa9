"""Convolutions and pooling, over samples that are rows of numbers.

A Tensor has two dimensions, so a sample of several channels is one row in PyTorch's order: channel by channel, and
each channel row by row, as in ``x.reshape(n_samples, -1)``. The output consists of such rows as well, so these layers,
`Layer` and the activations follow each other directly.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import Tensor, _is_recording, _refuse_lost, linear, where
from flatgrad.arguments import flag, whole
from flatgrad.errors import ArgumentTypeError, ShapeError
from flatgrad.nn.initialization import source, uniform, weights
from flatgrad.nn.inputs import as_rows, given_sample, given_value, shown
from flatgrad.nn.module import Module, parameter

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad._core import _Init, _Inputs, _Rng

__all__ = ["Conv1d", "Conv2d", "MaxPool1d", "MaxPool2d", "AvgPool1d", "AvgPool2d"]


class Windows:
    """The positions of a kernel's windows in a channel.

    Attributes
    ----------
    output : tuple of int
        The number of windows along each axis.
    places : ndarray of int64, shape (windows, numbers in a window)
        The places of each window's numbers in a padded channel, counted row by row.
    padded : tuple of int
        The lengths of a padded channel.
    """

    places: NDArray[Any]

    padded: tuple[Any, ...]
    output: tuple[Any, ...]

    def __init__(self, size: int | tuple[int, int], kernel: tuple[Any, ...], stride: int | tuple[int, int],
                 padding: int | tuple[int, int], dilation: int | tuple[int, int]) -> None:
        self.padded = tuple(n + 2 * p for n, p in zip(size, padding))
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
        if any(r > n for r, n in zip(reach, self.padded)):
            raise ShapeError(f"kernel_size: expected a kernel that fits, got one that reaches over {one_or_all(reach)} "
                             f"where there are {one_or_all(self.padded)} with padding")
        self.output = tuple((n - r) // s + 1 for n, r, s in zip(self.padded, reach, stride))
        first = grid([np.arange(n) * s for n, s in zip(self.output, stride)], self.padded)
        within = grid([np.arange(k) * d for k, d in zip(kernel, dilation)], self.padded)
        self.places = first[:, None] + within


def grid(axes: list[NDArray[Any]], shape: tuple[Any, ...]) -> NDArray[Any]:
    """The places of all combinations of indices, counted row by row in an array of this shape."""
    return np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), shape).reshape(-1)


def for_channels(places: NDArray[Any], channels: int, length: int) -> NDArray[Any]:
    """Places in a channel, of the shape (a, b), as places in a row of several channels: (a, channels * b)."""
    by_channel = places[:, None, :] + np.arange(channels)[:, None] * length
    return by_channel.reshape(len(places), -1)


def picked(x: Tensor, places: NDArray[Any]) -> Tensor:
    """The numbers at these places of each row of a Tensor: ``x[:, places]``, but three times as fast."""
    if not x.requires_grad and not _is_recording():   # a constant needs no instruction
        return Tensor(x.data.take(places, axis=1), requires_grad=False)
    places = np.arange(x.shape[0])[:, None] * x.shape[1] + places
    return x.reshape(-1)[places.reshape(-1)].reshape(places.shape)


def lengths(name: str, value: tuple[int, int] | int, axes: int, low: int) -> tuple[Any, ...]:
    """A tuple of `axes` ints, from one int or a sequence."""
    if axes == 1 and not isinstance(value, (tuple, list)) or hasattr(value, "__index__"):
        return (whole(name, value, low),) * axes
    expected = f"an int, or {axes} of them" if axes > 1 else "an int"
    if not isinstance(value, (tuple, list)):
        raise ArgumentTypeError(f"{name}: expected {expected}, got {value!r}")
    if len(value) != axes:
        raise ShapeError(f"{name}: expected {expected}, got {value!r}")
    return tuple(whole(f"{name}[{k}]", number, low) for k, number in enumerate(value))


def one_or_all(numbers: tuple[int] | list[int]) -> int:
    """The lengths along the axes for attributes and messages: one as an int, several as a tuple."""
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


class Spatial(Module):
    """The base class of convolutions and pooling: samples with a number of channels of a given size."""

    def rows(self, x: Any) -> tuple[Tensor, Callable[..., Any]]:
        """The input as rows; also for an array of more dimensions, such as (n_samples, channels, length)."""
        shape = getattr(x, "shape", None)
        if shape is not None and len(shape) == len(self.size) + 2:
            expected = (self.in_channels, *self.size)
            if tuple(shape[1:]) != expected:
                raise ShapeError(f"x: expected samples of the shape {expected}, got {tuple(shape[1:])}")
            _refuse_lost("x", x)
            x = np.asarray(x).reshape(shape[0], -1)
        what = f"numbers, {' x '.join(map(str, (self.in_channels, *self.size)))},"
        rows, give = as_rows(x, self.in_features, what=what)
        if self.out_features == 1 and give is given_sample:
            give = given_value   # like a Layer of one neuron
        return rows, give

    def description_of(self, *arguments: Any, **options: Any) -> str:
        axis = "length" if len(self.size) == 1 else "size"
        return shown(self, *arguments, **options, **{axis: (one_or_all(self.size), None)})


class Convolution(Spatial):
    """The base class of Conv1d and Conv2d."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[Any, ...]
    stride: tuple[Any, ...]
    padding: tuple[Any, ...]
    dilation: tuple[Any, ...]
    output_size: tuple[int, ...]
    in_features: int
    out_features: int
    weight: Tensor = parameter()
    bias: Tensor | None = parameter()

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
                 bias: bool, size: Any, init: Any, rng: _Rng) -> None:
        axes = len(size)
        self.in_channels = whole("in_channels", in_channels, 1)
        self.out_channels = whole("out_channels", out_channels, 1)
        self.size = size
        self.kernel_size = lengths("kernel_size", kernel_size, axes, 1)
        self.stride = lengths("stride", stride, axes, 1)
        self.padding = lengths("padding", padding, axes, 0)
        self.dilation = lengths("dilation", dilation, axes, 1)
        bias, rng = flag("bias", bias), source(rng)
        windows = Windows(size, self.kernel_size, self.stride, self.padding, self.dilation)
        self.output_size = windows.output
        self.in_features = self.in_channels * math.prod(size)
        self.out_features = self.out_channels * math.prod(windows.output)
        shape = (self.out_channels, self.in_channels, *self.kernel_size)
        bound = 1.0 / math.sqrt(math.prod(shape[1:]))
        if init is None:
            init = np.reshape(uniform(rng, bound, math.prod(shape)), shape)
        self.weight = Tensor(weights(init, shape, rng=rng))
        self.bias = Tensor(uniform(rng, bound, self.out_channels)) if bias else None
        self.lay_out(windows)

    def lay_out(self, windows: Windows) -> None:
        """Compute which numbers of a row are in which window."""
        length, count = math.prod(windows.padded), math.prod(windows.output)
        self._places = for_channels(windows.places, self.in_channels, length).reshape(-1)
        # The instruction's output has a row for each window; this order turns it into channel by channel.
        self._order = np.arange(count * self.out_channels).reshape(count, -1).T.reshape(-1)
        self._inside = self._padded = None
        if any(self.padding):
            inside = np.zeros((self.in_channels, *windows.padded), dtype=bool)
            inside[(slice(None), *[slice(p, p + n) for p, n in zip(self.padding, self.size)])] = True
            self._inside = inside.reshape(-1)
            self._padded = np.zeros(self._inside.size, dtype=np.int64)   # places of padding stay 0: unused
            self._padded[self._inside] = np.arange(self.in_features)

    def __call__(self, x: _Inputs) -> Any:
        x, give = self.rows(x)
        n, count = x.shape[0], math.prod(self.output_size)
        out = linear(self.windows(x).reshape(n * count, -1), self.weight, self.bias)
        if self.out_channels == 1 or count == 1:   # the numbers are in order
            return give(out.reshape(n, -1))
        if n == 1:   # one copy of a view is faster
            return give(out.T.reshape(1, -1))
        return give(picked(out.reshape(n, -1), self._order))

    def windows(self, x: Tensor) -> Tensor:
        """The numbers of the windows one after the other, in a row for each sample."""
        if self._inside is not None:
            x = picked(x, self._padded)
            if x.requires_grad or _is_recording():
                x = where(self._inside, x, 0.0)
            else:
                x = Tensor(np.where(self._inside, x.data, 0.0), requires_grad=False)
        return picked(x, self._places)

    def __repr__(self) -> str:
        return self.description_of(
            self.in_channels, self.out_channels, one_or_all(self.kernel_size),
            stride=(one_or_all(self.stride), one_or_all([1] * len(self.size))),
            padding=(one_or_all(self.padding), one_or_all([0] * len(self.size))),
            dilation=(one_or_all(self.dilation), one_or_all([1] * len(self.size))),
            bias=(self.bias is not None, True))


class Conv1d(Convolution):
    """A convolution over a sequence.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation : int, optional
        As in PyTorch: the number of elements of the kernel, the step between its positions, the number of zeros on
        either side of the sequence, and the step between the kernel's elements.
    bias : bool, optional
    length : int
        The number of elements of the sequence in each channel.
    init : str, number, array_like or callable, optional
        The initial weights, as in `flatgrad.nn.initialization.weights`, with the shape
        ``(out_channels, in_channels, kernel_size)``. None: PyTorch's default, the uniform distribution
        over [-1/sqrt(fan_in), 1/sqrt(fan_in)]. The bias always has PyTorch's default.
    rng : {None, int, random.Random, numpy.random.Generator}, optional
        The source of random numbers.

    Attributes
    ----------
    weight : Tensor, shape (out_channels, in_channels * kernel_size)
        PyTorch's weights of three dimensions can also be loaded.
    bias : Tensor, shape (out_channels,), or None
    output_size : tuple of one int
        The numbers in each channel of the output.
    in_features, out_features : int
        The numbers in a sample, and in its output; the next layer needs the latter.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        If an argument is not as described, or the kernel is larger than the padded sequence.

    Notes
    -----
    out[c, i] = bias[c] + sum over channels k and offsets j of
    weight[c, k, j] * x[k, i * stride + j * dilation - padding].

    The computation is `flatgrad.linear` over the windows: 3 instructions, and 2 more with padding. For an array,
    which has no gradient, 2 instructions in all.

    Examples
    --------
    >>> from flatgrad.nn import Conv1d
    >>> conv = Conv1d(1, 2, 3, length=10, rng=0)
    >>> conv.output_size, conv.out_features, conv([[0.0] * 10] * 4).shape
    ((8,), 16, (4, 16))
    >>> conv
    Conv1d(1, 2, 3, length=10)
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0,
                 dilation: int = 1, bias: bool = True, *, length: int, init: _Init | None = None,
                 rng: _Rng = None) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias,
                         lengths("length", length, 1, 1), init, rng)

    def __call__(self, x: _Inputs) -> Any:
        """The output for one sample or several samples.

        Parameters
        ----------
        x : list of Value and real number, of length in_channels * length; or a batch: list of such rows,
            Tensor or array of shape ``(n_samples, in_channels * length)``, or array of shape
            ``(n_samples, in_channels, length)``

        Returns
        -------
        list of Value, of length `out_features`, or a Value if `out_features` is 1, for a list; Tensor, shape
        (out_features,), for an array of one dimension; or Tensor, shape (n_samples, out_features)

        Raises
        ------
        ShapeError
            If a sample has another size.
        """
        return super().__call__(x)


class Conv2d(Convolution):
    """A convolution over images.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation : int or (int, int), optional
        As for `Conv1d`; a pair is for the height and the width.
    bias : bool, optional
    size : int or (int, int)
        Height and width of the images.
    init, rng : optional
        As for `Conv1d`, with the shape ``(out_channels, in_channels, *kernel_size)``.

    Attributes
    ----------
    weight : Tensor, shape (out_channels, in_channels * kernel height * kernel width)
        PyTorch's weights of four dimensions can also be loaded.
    bias : Tensor, shape (out_channels,), or None
    output_size : tuple of two int
        Height and width of the output.
    in_features, out_features : int
        The numbers in a sample, and in its output; the next layer needs the latter.

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        If an argument is not as described, or the kernel is larger than the padded image.

    Notes
    -----
    `Conv1d` explains the formula, for one axis, and the number of instructions.

    Examples
    --------
    >>> from flatgrad.nn import Conv2d
    >>> conv = Conv2d(1, 4, 3, padding=1, size=(8, 8))
    >>> conv.output_size, conv.out_features
    ((8, 8), 256)
    >>> conv
    Conv2d(1, 4, (3, 3), padding=(1, 1), size=(8, 8))
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
                 stride: int | tuple[int, int] = 1, padding: int | tuple[int, int] = 0,
                 dilation: int | tuple[int, int] = 1, bias: bool = True, *, size: int | tuple[int, int],
                 init: _Init | None = None, rng: _Rng = None) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias,
                         lengths("size", size, 2, 1), init, rng)

    def __call__(self, x: _Inputs) -> Any:
        """The output for one image or several images.

        Parameters
        ----------
        x : list of Value and real number, of length in_channels * height * width; or a batch: list of
            such rows, Tensor or array of shape ``(n_samples, in_channels * height * width)``, or array of
            shape ``(n_samples, in_channels, height, width)``

        Returns
        -------
        list of Value, of length `out_features`, or a Value if `out_features` is 1, for a list; Tensor, shape
        (out_features,), for an array of one dimension; or Tensor, shape (n_samples, out_features)

        Raises
        ------
        ShapeError
            If an image has another size.
        """
        return super().__call__(x)


class Pooling(Spatial):
    """The base class of pooling: one number for each window of each channel."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[Any, ...]
    stride: tuple[Any, ...]
    output_size: tuple[int, ...]
    in_features: int
    out_features: int

    reduction = None   # the name of the Tensor's method

    def __init__(self, channels: int, kernel_size: Any, stride: Any, size: Any) -> None:
        axes = len(size)
        self.in_channels = self.out_channels = whole("channels", channels, 1)
        self.size = size
        self.kernel_size = lengths("kernel_size", kernel_size, axes, 1)
        self.stride = self.kernel_size if stride is None else lengths("stride", stride, axes, 1)
        windows = Windows(size, self.kernel_size, self.stride, (0,) * axes, (1,) * axes)
        self.output_size = windows.output
        self.in_features = self.in_channels * math.prod(size)
        self.out_features = self.out_channels * math.prod(windows.output)
        starts = np.arange(self.in_channels)[:, None, None] * math.prod(size)
        self._places = (starts + windows.places).reshape(-1)

    def __call__(self, x: _Inputs) -> Any:
        """The pooled channels of one sample or several samples.

        Parameters
        ----------
        x : list of Value and real number, a row as in the output of a convolution; or a batch: list of rows,
            Tensor or array, also of shape ``(n_samples, channels, *size)``

        Returns
        -------
        list of Value, of length `out_features`, or a Value if `out_features` is 1, for a list; Tensor, shape
        (out_features,), for an array of one dimension; or Tensor, shape (n_samples, out_features)

        Raises
        ------
        ShapeError
            If a sample has another size.
        """
        x, give = self.rows(x)
        windows = picked(x, self._places).reshape(-1, math.prod(self.kernel_size))
        return give(getattr(windows, self.reduction)(axis=1).reshape(x.shape[0], -1))

    def __repr__(self) -> str:
        return self.description_of(self.in_channels, one_or_all(self.kernel_size),
                                   stride=(one_or_all(self.stride), one_or_all(self.kernel_size)))


class Pooling1d(Pooling):
    def __init__(self, channels: int, kernel_size: int, stride: int | None = None, *, length: int) -> None:
        super().__init__(channels, kernel_size, stride, lengths("length", length, 1, 1))


class Pooling2d(Pooling):
    def __init__(self, channels: int, kernel_size: int | tuple[int, int], stride: int | tuple[int, int] | None = None,
                 *, size: int | tuple[int, int]) -> None:
        super().__init__(channels, kernel_size, stride, lengths("size", size, 2, 1))


class MaxPool1d(Pooling1d):
    """The largest number of each window of a sequence.

    Parameters
    ----------
    channels, kernel_size : int
    stride : int, optional
        The step from one window to the next; None: `kernel_size`.
    length : int
        The number of elements of the sequence in each channel.

    Attributes
    ----------
    output_size : tuple of one int
    in_features, out_features : int

    Raises
    ------
    ArgumentError, ArgumentTypeError, ShapeError
        If an argument is not as described, or the window is larger than the sequence.

    Notes
    -----
    2 instructions. Equal largest numbers share the gradient; PyTorch gives it to the first of them.

    Examples
    --------
    >>> from flatgrad.nn import MaxPool1d
    >>> [y.data for y in MaxPool1d(1, 2, length=4)([1.0, 5.0, 2.0, 3.0])]
    [5.0, 3.0]
    """

    reduction = "max"


class MaxPool2d(Pooling2d):
    """The largest number of each window of an image.

    Parameters
    ----------
    channels : int
    kernel_size, stride : int or (int, int)
        Height and width of a window, and the step from one window to the next; None: `kernel_size`.
    size : int or (int, int)
        Height and width of the images.

    Notes
    -----
    As for `MaxPool1d`.

    Examples
    --------
    >>> from flatgrad.nn import MaxPool2d
    >>> MaxPool2d(1, 2, size=(2, 4))([[1.0, 5.0, 2.0, 3.0, 0.0, 1.0, 8.0, 2.0]]).tolist()
    [[5.0, 8.0]]
    """

    reduction = "max"


class AvgPool1d(Pooling1d):
    """The mean of each window of a sequence.

    Parameters, attributes and errors are those of `MaxPool1d`.

    Examples
    --------
    >>> from flatgrad.nn import AvgPool1d
    >>> [y.data for y in AvgPool1d(1, 2, length=4)([1.0, 5.0, 2.0, 3.0])]
    [3.0, 2.5]
    """

    reduction = "mean"


class AvgPool2d(Pooling2d):
    """The mean of each window of an image.

    Parameters, attributes and errors are those of `MaxPool2d`.

    Examples
    --------
    >>> from flatgrad.nn import AvgPool2d
    >>> AvgPool2d(1, 2, size=2)([[1.0, 5.0, 2.0, 4.0]]).tolist()
    [[3.0]]
    """

    reduction = "mean"
