"""Classifier and Regressor: a perceptron with scaling and training, behind scikit-learn's interface.

Both work without scikit-learn. If scikit-learn is installed, they are its estimators: pipelines, searches and
`check_estimator` accept them. The base classes are then scikit-learn's own, so tags and the HTML for notebooks fit the
installed version, and scikit-learn validates the samples. Without scikit-learn, small base classes of flatgrad give
the same parameters, scores and reprs, and `flatgrad.arguments` checks the samples.
"""
from __future__ import annotations

import contextlib
import inspect
import numbers
import warnings
from typing import TYPE_CHECKING

import numpy as np

from flatgrad import losses, optim
from flatgrad._core import Tensor
from flatgrad.arguments import (array_of_numbers, check_columns, columns_of, finite_array, flag, non_negative, one_of,
                                positive, samples, shortened, whole)
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError, StateError
from flatgrad.nn import MLP
from flatgrad.nn.layers import Layer
from flatgrad.train import EarlyStopping, Trainer, r2

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    from flatgrad._core import _Function
    from flatgrad.optim.optimizers import Optimizer
    from flatgrad.train.history import History

try:
    import sklearn.utils.validation as validation
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import DataConversionWarning
    from sklearn.exceptions import NotFittedError as NotFitted
    from sklearn.utils.multiclass import check_classification_targets
except ModuleNotFoundError as error:
    if error.name != "sklearn":
        raise   # scikit-learn is installed, but broken
    validation = None
    NotFitted = AttributeError

    class BaseEstimator:
        """Parameters as in scikit-learn's estimators: the arguments of the constructor."""

        @classmethod
        def _names(cls):
            return sorted(list(inspect.signature(cls.__init__).parameters)[1:])

        def get_params(self, deep=True):
            return {name: getattr(self, name) for name in self._names()}

        def set_params(self, **params):
            for name in params:
                one_of("parameter", name, self._names())
            for name, value in params.items():
                setattr(self, name, value)
            return self

        def __repr__(self):
            defaults = inspect.signature(type(self).__init__).parameters
            changed = {name: value for name, value in self.get_params().items() if value != defaults[name].default}
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    class ClassifierMixin:
        _estimator_type = "classifier"

        def score(self, X, y):
            return float(np.mean(self.predict(X) == array_of_numbers(y)))

    class RegressorMixin:
        _estimator_type = "regressor"

        def score(self, X, y):
            return r2(self.predict(X), y)

__all__ = ["Classifier", "Regressor", "NotFittedError"]


class NotFittedError(StateError, NotFitted):
    """An estimator is used before `fit`. Also a subclass of scikit-learn's error of this name, if installed."""


OPTIMIZERS: dict[str, type[Any]]
OPTIMIZERS = {"sgd": optim.SGD, "adam": optim.Adam, "adamw": optim.AdamW, "rmsprop": optim.RMSprop,
              "adagrad": optim.Adagrad, "adadelta": optim.Adadelta}

PARAMETERS = """
    Parameters
    ----------
    hidden : int or sequence of int, optional
        Neurons of each hidden layer, or of the only one; () for a linear model.
    activation : str or callable, optional
        Of the hidden layers, as `flatgrad.nn.Layer` takes it.
    {loss}
    optimizer : {{'adam', 'sgd', 'adamw', 'rmsprop', 'adagrad', 'adadelta'}}, optional
        Of `flatgrad.optim`, with its defaults but for `lr`.
    lr : float, optional
        Learning rate, above 0.
    epochs : int, optional
        How often the samples are gone through, 1 or more.
    batch_size : int, optional
        Samples for each step; None: all.
    alpha : float, optional
        Factor of the L2 penalty, the sum of the squares of all weights and biases, 0 or more.
    patience : int, optional
        Stop when the loss of held-out samples has not become better for so many epochs, and keep the
        best. None holds out nothing.
    validation_fraction : float, optional
        Which part of the samples is held out for that, between 0 and 1.
    scale : bool, optional
        Whether each feature is standardised: its mean subtracted, then divided by its standard deviation.{scaled}
    random_state : int, numpy.random.RandomState, numpy.random.Generator or None, optional
        Decides about the first weights and the order of samples. None: the system.
    verbose : bool, optional
        Whether to show progress on stderr.

    Attributes
    ----------
    {fitted}
    model_ : MLP
        The network, of standardised features.
    history_ : History
    n_features_in_ : int
    feature_names_in_ : ndarray of str, shape (n_features_in_,)
        Only if `X` has names, as a pandas.DataFrame has.
    n_iter_ : int
        How many epochs there were.
"""


class Network(BaseEstimator):
    """The base class of both estimators."""

    history_: History
    model_: MLP
    n_iter_: int
    mean_: Any
    scale_: Any
    n_features_in_: int

    def _fit(self, X, y, n_outputs):
        """Train an MLP on targets in a form for the loss."""
        hidden, sizes, optimizer, settings = self._settings()
        rng = generator_of(self.random_state)
        if self.scale:
            self.mean_ = X.mean(axis=0)
            self.scale_ = deviation(X, self.mean_)
        else:
            self.mean_, self.scale_ = np.zeros(X.shape[1]), np.ones(X.shape[1])
        # 'kaiming_uniform' uses the gain of the activation.
        model = MLP(X.shape[1], [*sizes, n_outputs], hidden, init="kaiming_uniform", rng=rng)
        alpha = settings.pop("alpha")
        stopping = settings.pop("patience")
        trainer = Trainer(
            model, optimizer(model.parameters(), lr=settings.pop("lr")), self.loss,
            penalty=(lambda parameters: alpha * losses.l2(parameters)) if alpha else None)
        if stopping is not None:
            settings.update(validation=settings.pop("validation_fraction"),
                            callbacks=[EarlyStopping(patience=stopping)])
        else:
            del settings["validation_fraction"]
        self.history_ = trainer.fit(self._scaled(X), y, seed=int(rng.integers(2**31)), **settings)
        self.model_ = model
        self.n_iter_ = len(self.history_)
        return self

    def _settings(self):
        """The checked parameters; the constructor of an estimator only stores them."""
        try:
            sizes = [self.hidden] if isinstance(self.hidden, numbers.Integral) else list(self.hidden)
            sizes = [whole("hidden", size, 1) for size in sizes]
        except TypeError:
            raise ArgumentTypeError("hidden: expected an int or a sequence of int, 1 or more, "
                                    f"got {self.hidden!r}") from None
        one_of("loss", self.loss, self._losses)
        optimizer = OPTIMIZERS[one_of("optimizer", self.optimizer, OPTIMIZERS)]
        fraction = positive("validation_fraction", self.validation_fraction)
        if fraction >= 1.0:
            raise ArgumentError(f"validation_fraction: expected a number between 0 and 1, got {fraction!r}")
        flag("scale", self.scale)
        Layer(1, 1, self.activation, rng=0)   # raises an error with the known names, if the activation is unknown
        return self.activation, sizes, optimizer, {
            "lr": positive("lr", self.lr), "epochs": whole("epochs", self.epochs, 1),
            "batch_size": None if self.batch_size is None else whole("batch_size", self.batch_size, 1),
            "alpha": non_negative("alpha", self.alpha), "validation_fraction": fraction,
            "patience": None if self.patience is None else whole("patience", self.patience),
            "progress": flag("verbose", self.verbose)}

    def _scaled(self, X):
        return (X - self.mean_) / self.scale_

    def _outputs(self, X):
        """The outputs of the network for samples, shape (n_samples, n_outputs)."""
        if not hasattr(self, "model_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet: call fit(X, y) first")
        X = self._samples(X, reset=False)
        trainer = Trainer(self.model_, optim.SGD(self.model_.parameters()), self.loss)
        out = trainer.predict(self._scaled(X))
        return out.reshape(len(X), -1)

    @contextlib.contextmanager
    def _all_or_nothing(self):
        """If a fit fails, leave the estimator as it was, fitted or not."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    # ---- samples ----

    def _samples(self, X, reset):
        """X as an array. Its width and names are stored (`reset`), or compared with those that `fit` has stored."""
        X = X.numpy() if isinstance(X, Tensor) else X
        check_columns("X", X)
        if validation is not None:
            if hasattr(validation, "validate_data"):   # from scikit-learn 1.6 on
                return validation.validate_data(self, X, reset=reset, dtype=np.float64, order="C")
            return self._validate_data(X, reset=reset, dtype=np.float64, order="C")
        names = columns_of(X)
        array = samples("X", X)
        if names is not None:
            names = np.asarray(names, dtype=object)
        if reset:
            self.n_features_in_ = array.shape[1]
            vars(self).pop("feature_names_in_", None)
            if names is not None:
                self.feature_names_in_ = names
            return array
        known = getattr(self, "feature_names_in_", None)
        if names is not None and known is not None and list(names) != list(known):
            raise DataError(f"X: expected the feature names {shortened(list(known))}, got {shortened(list(names))}")
        if (names is None) != (known is None):   # scikit-learn's warnings
            warnings.warn(f"X has feature names, but {type(self).__name__} was fitted without feature names" if known is None
                          else f"X does not have valid feature names, but {type(self).__name__} was fitted with feature names",
                          UserWarning, stacklevel=4)
        if array.shape[1] != self.n_features_in_:
            raise ShapeError(f"X: expected {self.n_features_in_} features, got the shape {array.shape}")
        return array

    def _samples_and_targets(self, X, y, numeric):
        """X and y as arrays with the same number of samples."""
        if y is None:
            raise DataError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        X, y = [x.numpy() if isinstance(x, Tensor) else x for x in (X, y)]
        check_columns("X", X)
        if validation is not None:
            options = {"multi_output": numeric, "y_numeric": numeric, "dtype": np.float64, "order": "C"}
            if hasattr(validation, "validate_data"):
                X, y = validation.validate_data(self, X, y, **options)
            else:
                X, y = self._validate_data(X, y, **options)
        else:
            X, y = self._samples(X, reset=True), finite_array("y", y) if numeric else array_of_numbers(y)
            if len(X) != len(np.atleast_1d(y)):
                raise ShapeError(f"y: expected {len(X)} samples, as many as X has, got the shape {y.shape}")
        return X, y


class OnlyWith:
    """A method that exists only for one loss, so that hasattr() gives the right answer."""

    function: Callable[..., Any]

    def __init__(self, loss: str) -> None:
        self.loss = loss

    def __call__(self, function: _Function) -> OnlyWith:
        self.function = function
        self.__doc__ = function.__doc__
        return self

    def __get__(self, estimator: Any, owner: Any) -> Any:
        if estimator is None:
            return self.function
        if estimator.loss != self.loss:
            raise AttributeError(f"{self.function.__name__}: expected loss={self.loss!r}, got loss={estimator.loss!r}")
        return self.function.__get__(estimator, owner)


class Classifier(ClassifierMixin, Network):
    """A classifier: a multi-layer perceptron for two or more classes.
{parameters}
    Notes
    -----
    With 'cross_entropy' the network has an output for each class, the logits of softmax. With 'hinge'
    it has one output for two classes. For more classes it has an output for each class against the others.

    Examples
    --------
    >>> from flatgrad.datasets import make_moons
    >>> from flatgrad.estimators import Classifier
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> classifier = Classifier(random_state=0).fit(X[:150], y[:150])
    >>> classifier.score(X[150:], y[150:]) > 0.9
    True
    """

    hidden: Any
    activation: Any
    loss: Any
    optimizer: Any
    lr: Any
    epochs: Any
    batch_size: Any
    alpha: Any
    patience: Any
    validation_fraction: Any
    scale: Any
    random_state: Any
    verbose: Any

    _losses = ("cross_entropy", "hinge")

    def __init__(self, hidden: int | Sequence[int] = (16, 16), activation: str = "relu", *, loss: str = "cross_entropy",
                 optimizer: str | Callable[..., Optimizer] = "adam", lr: float = 0.01, epochs: int = 100,
                 batch_size: int = 32, alpha: float = 1e-4, patience: int | None = None,
                 validation_fraction: float = 0.1, scale: bool = True, random_state: Any = None,
                 verbose: bool = False) -> None:
        self.hidden = hidden
        self.activation = activation
        self.loss = loss
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.alpha = alpha
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.scale = scale
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> Classifier:
        """Train on samples.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            The samples, finite.
        y : array_like of shape (n_samples,)
            Classes of any type that can be sorted, at least two different ones.

        Returns
        -------
        Classifier
            The estimator itself.

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not as described.
        """
        with self._all_or_nothing():
            self._settings()
            X, y = self._samples_and_targets(X, y, numeric=False)
            y = one_column(y)
            if validation is not None:
                check_classification_targets(y)
            elif y.dtype.kind == "f" and not (np.isfinite(y).all() and (y == np.round(y)).all()):
                raise DataError(f"y: expected classes, got continuous numbers, {shortened(y)}. Unknown label type")
            classes, labels = np.unique(y, return_inverse=True)
            if len(classes) < 2:
                raise DataError(f"y: expected two classes at least, got one class, {classes[0]!r}")
            n_outputs = len(classes)
            targets = labels.reshape(-1)
            if self.loss == "hinge":
                n_outputs = 1 if len(classes) == 2 else len(classes)
                positive_classes = np.arange(len(classes))[-n_outputs:]
                targets = np.where(targets[:, None] == positive_classes, 1.0, -1.0)
            self.classes_ = classes
            return self._fit(X, targets, n_outputs)

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Scores of the classes: a larger score means a likelier class.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes, the score of the second class: `predict` returns the second class if the score is above 0.

        Raises
        ------
        TypeError, ValueError
            If `X` is not as described; NotFittedError before `fit`.
        """
        out = self._outputs(X)
        if len(self.classes_) == 2:
            return out[:, -1] - out[:, 0] if out.shape[1] == 2 else out[:, 0]
        return out

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The likeliest class of each sample.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)

        Raises
        ------
        TypeError, ValueError
            As for `decision_function`.
        """
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)]

    @OnlyWith("cross_entropy")
    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """The probabilities of the classes; only with the loss 'cross_entropy'.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`. Each row sums to 1.

        Raises
        ------
        TypeError, ValueError
            As for `decision_function`.
        """
        out = self._outputs(X)
        out = np.exp(out - out.max(axis=1, keepdims=True))
        return out / out.sum(axis=1, keepdims=True)

    @OnlyWith("cross_entropy")
    def predict_log_proba(self, X: ArrayLike) -> NDArray[Any]:
        """The logarithms of `predict_proba`, also for probabilities too small for a float.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        out = self._outputs(X)
        out = out - out.max(axis=1, keepdims=True)
        return out - np.log(np.exp(out).sum(axis=1, keepdims=True))


class Regressor(RegressorMixin, Network):
    """A regressor: a multi-layer perceptron for one or more numbers.
{parameters}
    Examples
    --------
    >>> import numpy as np
    >>> from flatgrad.estimators import Regressor
    >>> X = np.linspace(-3.0, 3.0, 100)[:, None]
    >>> regressor = Regressor(activation="tanh", random_state=0).fit(X, 1000.0 + np.sin(X[:, 0]))
    >>> regressor.score(X, 1000.0 + np.sin(X[:, 0])) > 0.95
    True
    """

    hidden: Any
    activation: Any
    loss: Any
    optimizer: Any
    lr: Any
    epochs: Any
    batch_size: Any
    alpha: Any
    patience: Any
    validation_fraction: Any
    scale: Any
    random_state: Any
    verbose: Any
    target_mean_: Any
    target_scale_: Any

    _losses = ("mse", "mae", "huber")

    def __init__(self, hidden: int | Sequence[int] = (16, 16), activation: str = "relu", *, loss: str = "mse",
                 optimizer: str | Callable[..., Optimizer] = "adam", lr: float = 0.01, epochs: int = 100,
                 batch_size: int = 32, alpha: float = 1e-4, patience: int | None = None,
                 validation_fraction: float = 0.1, scale: bool = True, random_state: Any = None,
                 verbose: bool = False) -> None:
        self.hidden = hidden
        self.activation = activation
        self.loss = loss
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.alpha = alpha
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.scale = scale
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> Regressor:
        """Train on samples.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            The samples, finite.
        y : array_like of shape (n_samples,) or (n_samples, n_outputs)
            The targets, finite.

        Returns
        -------
        Regressor
            The estimator itself.

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not as described.
        """
        with self._all_or_nothing():
            self._settings()
            X, y = self._samples_and_targets(X, y, numeric=True)
            if y.ndim not in (1, 2):
                raise ShapeError(f"y: expected the shape (n_samples,) or (n_samples, n_outputs), got {y.shape}")
            self._is_1d = y.ndim == 1
            y = np.asarray(y, np.float64).reshape(len(y), -1)
            if self.scale:
                self.target_mean_ = y.mean(axis=0)
                self.target_scale_ = deviation(y, self.target_mean_)
            else:
                self.target_mean_, self.target_scale_ = np.zeros(y.shape[1]), np.ones(y.shape[1])
            return self._fit(X, (y - self.target_mean_) / self.target_scale_, y.shape[1])

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The predicted targets of samples.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)

        Raises
        ------
        TypeError, ValueError
            If `X` is not as described; NotFittedError before `fit`.
        """
        out = self._outputs(X) * self.target_scale_ + self.target_mean_
        return out[:, 0] if self._is_1d else out

    if validation is not None and hasattr(BaseEstimator, "__sklearn_tags__"):
        def __sklearn_tags__(self):
            tags = super().__sklearn_tags__()
            tags.target_tags.multi_output = True
            return tags
    else:
        def _more_tags(self):   # scikit-learn's name before 1.6
            return {"multioutput": True}


def described(cls: type[Any], loss: str, scaled: str, fitted: str) -> None:
    """Insert the parameters that both estimators share into a docstring."""
    if cls.__doc__:   # there is no docstring under -OO
        text = PARAMETERS.format(loss=loss, scaled=scaled, fitted=fitted)
        cls.__doc__ = cls.__doc__.replace("{parameters}\n", text)


described(Classifier, "loss : {'cross_entropy', 'hinge'}, optional\n        'hinge' has no probabilities.", "",
          "classes_ : ndarray of shape (n_classes,)\n        In order.")
described(Regressor, "loss : {'mse', 'mae', 'huber'}, optional", "\n        Targets as well.",
          "target_mean_, target_scale_ : ndarray of shape (n_outputs,)\n        What targets were standardised by.")


def deviation(X: ArrayLike, mean: NDArray[Any]) -> NDArray[Any]:
    """The standard deviation of each column; 1 where it is 0 up to rounding."""
    result = np.sqrt(np.mean(np.square(X - mean), axis=0))
    tiny = 10.0 * np.finfo(np.float64).eps * np.maximum(np.abs(X).max(axis=0), np.finfo(np.float64).tiny)
    return np.where(result <= tiny, 1.0, result)


def one_column(y: ArrayLike) -> NDArray[Any]:
    """Targets as one axis. A single column gives the warning of scikit-learn, if scikit-learn is installed."""
    if y.ndim == 2 and y.shape[1] == 1:
        if validation is not None:
            warnings.warn("A column-vector y was passed when a 1d array was expected: shape "
                          f"{y.shape}, expected ({len(y)},)", DataConversionWarning, stacklevel=3)
        return y[:, 0]
    if y.ndim != 1:
        raise ShapeError(f"y: expected one class for each sample, got the shape {y.shape}")
    return y


def generator_of(random_state: Any) -> np.random.Generator:
    """A generator of NumPy from a random state of scikit-learn."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31 - 1))
    try:
        return np.random.default_rng(None if random_state is None else whole("random_state", random_state))
    except ArgumentTypeError:
        raise ArgumentTypeError("random_state: expected None, an int, or a RandomState or Generator of numpy.random, "
                                f"got {random_state!r}") from None
