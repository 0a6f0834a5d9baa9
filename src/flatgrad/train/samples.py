"""Samples and targets, checked before training starts, in a form that models and losses take without conversion."""
from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np

from flatgrad import losses
from flatgrad._core import Tensor, Value, no_grad
from flatgrad.arguments import array_of_numbers, check_columns, columns_of, finite_array, samples, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError
from flatgrad.nn.module import Module
from flatgrad.train.generators import undrawn

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad.losses import BCEWithLogitsLoss, MSELoss

__all__ = ["Task", "array_of", "constant", "kind_of", "modules_of"]

CLASSES = {"MSELoss": "mse", "L1Loss": "mae", "HuberLoss": "huber", "HingeLoss": "hinge",
           "BCELoss": "binary_cross_entropy", "BCEWithLogitsLoss": "bce_with_logits",
           "CrossEntropyLoss": "cross_entropy", "NLLLoss": "nll", "KLDivLoss": "kl_div"}
OF_LABELS = ("cross_entropy", "nll")


def kind_of(loss: Callable[..., Any] | BCEWithLogitsLoss | MSELoss) -> str | None:
    """The name in `losses.LOSSES` of such a loss, given as function, partial or class; None for any other loss."""
    if isinstance(loss, losses.Loss):
        return next((CLASSES[c.__name__] for c in type(loss).__mro__ if c.__name__ in CLASSES), None)
    while isinstance(loss, functools.partial):
        loss = loss.func
    return next((name for name, known in losses.LOSSES.items() if known is loss), None)


def option_of(loss: Callable[..., Any], name: str) -> None:
    """An option of a loss: an attribute of a class or a keyword of a partial; None if it is not set."""
    if isinstance(loss, functools.partial) and name in loss.keywords:
        return loss.keywords[name]
    return getattr(loss, name, None)


def constant(array: NDArray[Any]) -> Tensor:
    """A constant Tensor of these numbers."""
    return Tensor(array, requires_grad=False)


def array_of(prediction: Tensor) -> NDArray[Any]:
    """The result of a model for a batch, as a new array; a single output has one axis."""
    if type(prediction) is Tensor or isinstance(prediction, Tensor):
        array = prediction.numpy()
    else:
        array = np.array(numbers(prediction), np.float64)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def numbers(x: Any) -> Any:
    if isinstance(x, Value):
        return x.data
    return [numbers(item) for item in x] if isinstance(x, (list, tuple, Tensor)) else x


def modules_of(model: Any) -> list[Any]:
    """The Modules in a model; none if it is another callable."""
    return model.modules() if isinstance(model, Module) else []


class Task:
    """A model and its loss: checks samples and targets, and makes batches of them."""

    model: Any
    loss: Callable[..., Any] | BCEWithLogitsLoss | MSELoss

    kind: str | None
    names: list[str] | None   # of the columns of the first table with samples

    def __init__(self, model: Any, loss: Callable[..., Any] | BCEWithLogitsLoss | MSELoss) -> None:
        self.model, self.loss, self.kind, self.names = model, loss, kind_of(loss), None

    def inputs(self, X: NDArray[Any] | list[list[float]], name: str = "X",
               n_features: int | None = None, modules: list[Any] | None = None) -> tuple[NDArray[Any], tuple[int]]:
        """The samples as an array, after a trial call of the model; and the shape of one output.

        Parameters
        ----------
        X : array_like
        name : str, optional
        n_features : int, optional
            How many are expected.
        modules : list of Module, optional
            Those in the model, where they are known: to look for them takes longer than a small model's call.
        """
        names, X = columns_of(X), samples(name, X, n_features)
        if names is not None and self.names is not None and names != self.names:
            raise DataError(f"{name}: expected the columns that this Trainer was given first, {shortened(self.names)}, got "
                            f"{shortened(names)}; arrays have no names")
        with no_grad(), undrawn(modules_of(self.model) if modules is None else modules):
            try:
                prediction = self.model(constant(X[:1]))
                shape = np.shape(array_of(prediction)) if not isinstance(prediction, Tensor) else prediction.shape
            except DataError:
                raise
            except ShapeError as error:
                raise ShapeError(f"{name}: the model does not take samples of {X.shape[1]} "
                                 f"feature{'s' * (X.shape[1] != 1)}: {error}") from error
        if not shape or shape[0] != 1:
            raise ShapeError(f"model: expected one row of outputs for each sample, got the shape {shape} for one "
                             "sample")
        self.names = self.names if names is None else names
        return X, shape[1:]

    def targets(self, y: NDArray[Any] | list[Any], n_samples: int, shape: tuple[int], name: str = "y") -> NDArray[Any]:
        """The targets of `n_samples` samples with outputs of this shape: int64 labels, or an array of floats."""
        if isinstance(y, Value):
            raise ArgumentTypeError(f"{name}: expected an array of numbers, got a Value")
        if isinstance(y, Tensor):
            y = y.numpy()
        check_columns(name, y)
        y = array_of_numbers(y) if not isinstance(y, (list, tuple)) else finite_or_whole(name, y)
        if y.dtype.kind not in "biu":
            self.refuse_text(y, name)
            y = finite_array(name, y)
        if y.ndim not in (1, 2):
            raise ShapeError(f"{name}: expected the shape (n_samples,) or (n_samples, n_outputs), got {y.shape}")
        if len(y) != n_samples:
            raise ShapeError(f"{name}: expected {n_samples} samples, as many as X has, got the shape {y.shape}")
        if self.kind in OF_LABELS:
            return self.labels(y, shape, name)
        if self.kind is None and y.dtype.kind in "biu" and y.ndim == 1 and shape and shape[0] > 1:
            return np.ascontiguousarray(y, np.int64)   # for a user's own loss that takes labels
        y = np.ascontiguousarray(y, np.float64)
        if y.shape[1:] != shape:
            if math.prod(y.shape[1:]) == math.prod(shape) == 1:
                y = y.reshape(n_samples, *shape)   # so that prediction - target has this shape as well
            elif self.kind is not None:
                raise ShapeError(f"{name}: expected the shape {(n_samples, *shape)}, which is that of the model's "
                                 f"outputs, got {y.shape}")
        self.check_range(y, name)
        return y

    def labels(self, y: NDArray[Any], shape: tuple[int], name: str) -> NDArray[Any]:
        """Labels from 0 to n_classes - 1 as int64."""
        if len(shape) != 1:
            raise ShapeError(f"model: expected an output for each class, as the loss {self.kind!r} takes it, got "
                             f"one of the shape {shape} for each sample")
        n_classes = shape[0]
        expected = f"expected an integer from 0 to {n_classes - 1}, as the loss {self.kind!r} takes it"
        if y.dtype.kind not in "biu":
            raise ArgumentTypeError(f"{name}[0]: {expected}, got {y.reshape(-1)[0]} in an array of {y.dtype}")
        if y.ndim != 1:
            raise ShapeError(f"{name}: expected one label for each sample, got the shape {y.shape}")
        wrong = (y < 0) | (y >= n_classes)
        ignored = option_of(self.loss, "ignore_index")
        if ignored is not None:
            wrong &= y != ignored
        self.refuse(wrong, y, expected, name)
        return np.ascontiguousarray(y, np.int64)

    def check_range(self, y: NDArray[Any], name: str) -> None:
        """Check that the targets are right for losses of two classes; the losses themselves would take any numbers."""
        if self.kind == "hinge":
            self.refuse((y != 1) & (y != -1), y, "expected -1 or 1, as the loss 'hinge' takes it", name)
        elif self.kind in ("binary_cross_entropy", "bce_with_logits"):
            expected = f"expected a number from 0 to 1, as the loss {self.kind!r} takes it"
            self.refuse((y < 0) | (y > 1), y, expected, name)

    @staticmethod
    def refuse_text(y: NDArray[Any], name: str) -> None:
        text = [label for label in y.flat if isinstance(label, (str, bytes))] if y.dtype.kind in "USO" else []
        if text:
            raise ArgumentTypeError(f"{name}: expected an array of real numbers, got text, such as "
                                    f"{str(text[0])[:40]!r}; names, y = numpy.unique(y, return_inverse=True) makes "
                                    "labels of names")

    @staticmethod
    def refuse(wrong: NDArray[Any], y: NDArray[Any], expected: str, name: str) -> None:
        if wrong.any():
            where = tuple(int(k) for k in np.argwhere(wrong)[0])
            place = where[0] if y.ndim == 1 or y.shape[1] == 1 else ", ".join(map(str, where))
            raise DataError(f"{name}[{place}]: {expected}, got {y[where]:g}")

    def batch(self, X: NDArray[Any], y: NDArray[Any]) -> tuple[Any, Any]:
        """X and y in the form that the model and the loss take without conversion."""
        return constant(X), y if y.dtype == np.int64 else constant(y)

    def try_loss(self, X: NDArray[Any], y: NDArray[Any]) -> None:
        """Call the loss once, so that it raises its errors before training."""
        with no_grad(), undrawn(modules_of(self.model)):
            X, y = self.batch(X[:1], y[:1])
            loss = self.loss(self.model(X), y)
        if not isinstance(loss, Value):
            raise ArgumentError(f"loss: expected a function that returns a Value for a batch, got a "
                                f"{type(loss).__name__} from {self.loss!r}; reduction='none' is not for training")


def finite_or_whole(name: str, y: list[Any]) -> NDArray[Any]:
    """A list as an array; an array of ints if the list has only ints."""
    try:
        array = array_of_numbers(y)
    except ValueError:   # because of rows of different lengths
        array = None
    return array if array is not None and array.dtype.kind in "biuUSO" else finite_array(name, y)
