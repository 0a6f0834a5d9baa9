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

from flatgrad import losses, optim, weighting
from flatgrad._core import Tensor
from flatgrad.arguments import (array_of_numbers, check_columns, columns_of, finite_array, flag, non_negative, one_of,
                                positive, samples, shortened, whole)
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError, StateError
from flatgrad.nn import MLP
from flatgrad.nn.layers import Layer
from flatgrad.train import EarlyStopping, History, Trainer, r2
from flatgrad.weighting import by_class, deviation, sample_weights, weighted_mean, weighted_r2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    from flatgrad._core import _Function

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

        def score(self, X, y, sample_weight=None):
            right = self.predict(X) == array_of_numbers(y)
            if right.ndim == 2:   # all labels of a sample have to be right
                right = right.all(axis=1)
            return float(np.average(right, weights=sample_weights(sample_weight, len(right))))

    class RegressorMixin:
        _estimator_type = "regressor"

        def score(self, X, y, sample_weight=None):
            prediction, weights = self.predict(X), sample_weights(sample_weight, len(X))
            return r2(prediction, y) if weights is None else weighted_r2(prediction, finite_array("y", y), weights)

__all__ = ["Classifier", "Regressor", "NotFittedError"]


class NotFittedError(StateError, NotFitted):
    """An estimator is used before `fit`. Also a subclass of scikit-learn's error of this name, if installed."""


PARAMETERS = """
    Parameters
    ----------
    hidden : int or sequence of int, optional
        Neurons of each hidden layer, or of the only one; () for a linear model.
    activation : str or callable, optional
        Of the hidden layers, as `flatgrad.nn.Layer` takes it.
    {loss}
    optimizer : str, optional
        A name in `flatgrad.optim.OPTIMIZERS`: {optimizers}. With the defaults of its class but for `lr`.
    lr : float, optional
        Learning rate, above 0.
    epochs : int, optional
        How often the samples are gone through, 1 or more.
    batch_size : int, optional
        Samples for each step; None: all.
    alpha : float, optional
        Factor of the L2 penalty, the sum of the squares of all weights and biases, 0 or more.
    early_stopping : bool, optional
        Whether to hold out samples, and to stop when their loss has not become better for `n_iter_no_change` epochs.
        The best network is kept then.
    validation_fraction : float, optional
        Which part of the samples is held out for that, between 0 and 1.
    n_iter_no_change : int, optional
        1 or more.
    {class_weight}scale : bool, optional
        Whether each feature is standardised: its mean subtracted, then divided by its standard deviation.{scaled}
    warm_start : bool, optional
        Whether a further `fit` goes on with the network that is there, and with its standardisation, by a new optimizer.
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
        How many epochs there were, with those of `partial_fit` and of a `fit` that this one went on from.
"""


class Network(BaseEstimator):
    """The base class of both estimators."""

    hidden: Any
    activation: Any
    loss: Any
    optimizer: Any
    lr: Any
    epochs: Any
    batch_size: Any
    alpha: Any
    early_stopping: Any
    validation_fraction: Any
    n_iter_no_change: Any
    scale: Any
    warm_start: Any
    random_state: Any
    verbose: Any
    history_: History
    model_: MLP
    n_iter_: int
    mean_: Any
    scale_: Any
    n_features_in_: int

    _losses: tuple[str, ...]
    _optimizer: Any    # of the last fit, for partial_fit to go on with
    _seed: int
    _built: tuple[Any, ...]   # what a network has to be for a fit to go on with it

    def __init__(self, hidden: Any, activation: Any, *, loss: Any, optimizer: Any, lr: Any, epochs: Any, batch_size: Any,
                 alpha: Any, early_stopping: Any, validation_fraction: Any, n_iter_no_change: Any, scale: Any,
                 warm_start: Any, random_state: Any, verbose: Any) -> None:
        self.hidden = hidden
        self.activation = activation
        self.loss = loss
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.alpha = alpha
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.scale = scale
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    def _goes_on(self, partial):
        """Whether a fit goes on with the network that is there."""
        return hasattr(self, "model_") and (partial or flag("warm_start", self.warm_start))

    def _fit(self, X, y, weights, n_outputs, loss, partial):
        """Train an MLP, a new one or the one that is there, on targets in a form for the loss."""
        activation, sizes, make, settings = self._settings()
        goes_on = self._goes_on(partial)
        built = (tuple(sizes), activation, n_outputs)
        if goes_on and built != self._built:
            raise ArgumentError(f"{'partial_fit' if partial else 'warm_start'}: expected hidden layers, activation and "
                                f"number of outputs as in the last fit, {self._built}, got {built}")
        if weights is not None:
            kept = weights > 0.0
            X, y, weights = X[kept], y[kept], weights[kept] / weights[kept].mean()
        if not goes_on:
            rng = generator_of(self.random_state)
            self._scale_by(X, weights)
            # 'kaiming_uniform' uses the gain of the activation.
            self.model_ = MLP(X.shape[1], [*sizes, n_outputs], activation, init="kaiming_uniform", rng=rng)
            self._seed, self._built, self.history_ = int(rng.integers(2**31)), built, History()
        model, lr = self.model_, settings.pop("lr")
        known = getattr(self, "_optimizer", None) if partial and goes_on else None
        if type(known) is make:
            optimizer = known
            before = optimizer.state_dict()
            optimizer.lr = lr
        else:
            optimizer, before = make(model.parameters(), lr=lr), None
        state = model.state_dict() if goes_on else None
        try:
            history = self._train(model, optimizer, self._scaled(X), y, weights, loss, settings, partial)
        except BaseException:
            if state is not None:
                model.load_state_dict(state)
            if before is not None:
                optimizer.load_state_dict(before)
            raise
        for k, epoch in enumerate(history.epochs):
            self.history_.append(epoch, {name: numbers[k] for name, numbers in history.items()})
        self._optimizer = optimizer
        self.n_iter_ = len(self.history_)
        return self

    def _scale_by(self, X, weights):
        """Note by what features are standardised."""
        if self.scale:
            self.mean_ = weighted_mean(X, weights)
            self.scale_ = deviation(X, self.mean_, weights)
        else:
            self.mean_, self.scale_ = np.zeros(X.shape[1]), np.ones(X.shape[1])

    def _train(self, model, optimizer, X, y, weights, loss, settings, partial):
        """The history of the epochs of one fit."""
        alpha, patience = settings.pop("alpha"), settings.pop("n_iter_no_change")
        fraction = settings.pop("validation_fraction")
        if partial:
            settings["epochs"] = 1
        if settings.pop("early_stopping"):
            settings.update(validation=fraction, callbacks=[EarlyStopping(patience=patience)])
        if weights is not None:
            if loss == "cross_entropy":
                y = np.where(y[:, None] == np.arange(self._built[2]), weights[:, None], 0.0)
            else:
                y = y.reshape(len(y), -1)
                y = np.concatenate([y, np.broadcast_to(weights[:, None], y.shape)], axis=1)
            loss = weighting.LOSSES[loss]
        trainer = Trainer(model, optimizer, loss,
                          penalty=(lambda parameters: alpha * losses.l2(parameters)) if alpha else None)
        trainer.epoch = len(self.history_)   # so that each epoch has an order of its own
        return trainer.fit(X, y, seed=self._seed, **settings)

    def _settings(self):
        """The checked parameters; the constructor of an estimator only stores them."""
        try:
            sizes = [self.hidden] if isinstance(self.hidden, numbers.Integral) else list(self.hidden)
            sizes = [whole("hidden", size, 1) for size in sizes]
        except TypeError:
            raise ArgumentTypeError("hidden: expected an int or a sequence of int, 1 or more, "
                                    f"got {self.hidden!r}") from None
        one_of("loss", self.loss, self._losses)
        optimizer = optim.OPTIMIZERS[one_of("optimizer", self.optimizer, optim.OPTIMIZERS)]
        fraction = positive("validation_fraction", self.validation_fraction)
        flag("warm_start", self.warm_start)
        if fraction >= 1.0:
            raise ArgumentError(f"validation_fraction: expected a number between 0 and 1, got {fraction!r}")
        flag("scale", self.scale)
        Layer(1, 1, self.activation, rng=0)   # raises an error with the known names, if the activation is unknown
        return self.activation, sizes, optimizer, {
            "lr": positive("lr", self.lr), "epochs": whole("epochs", self.epochs, 1),
            "batch_size": None if self.batch_size is None else whole("batch_size", self.batch_size, 1),
            "alpha": non_negative("alpha", self.alpha), "validation_fraction": fraction,
            "early_stopping": flag("early_stopping", self.early_stopping),
            "n_iter_no_change": whole("n_iter_no_change", self.n_iter_no_change, 1),
            "progress": flag("verbose", self.verbose)}

    def _scaled(self, X):
        return (X - self.mean_) / self.scale_

    def _outputs(self, X):
        """The outputs of the network for samples, shape (n_samples, n_outputs)."""
        if not hasattr(self, "model_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet: call fit(X, y) first")
        X = self._samples(X, reset=False)
        trainer = Trainer(self.model_, optim.SGD(self.model_.parameters()), "mse")
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

    def _samples_and_targets(self, X, y, numeric, reset):
        """X and y as arrays with the same number of samples."""
        if y is None:
            raise DataError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        X, y = [x.numpy() if isinstance(x, Tensor) else x for x in (X, y)]
        check_columns("X", X)
        if validation is not None:
            options = {"multi_output": True, "y_numeric": numeric, "dtype": np.float64, "order": "C", "reset": reset}
            if hasattr(validation, "validate_data"):
                X, y = validation.validate_data(self, X, y, **options)
            else:
                X, y = self._validate_data(X, y, **options)
        else:
            X, y = self._samples(X, reset=reset), finite_array("y", y) if numeric else array_of_numbers(y)
            if len(X) != len(np.atleast_1d(y)):
                raise ShapeError(f"y: expected {len(X)} samples, as many as X has, got the shape {y.shape}")
        return X, y


class OnlyIf:
    """A method that exists only for some parameters, so that hasattr() gives the right answer.

    Parameters
    ----------
    why_not : callable
        ``why_not(estimator)`` is None, or the text for the AttributeError.
    """

    function: Callable[..., Any]

    def __init__(self, why_not: Callable[[Any], str | None]) -> None:
        self.why_not = why_not

    def __call__(self, function: _Function) -> OnlyIf:
        self.function = function
        self.__doc__ = function.__doc__
        return self

    def __get__(self, estimator: Any, owner: Any) -> Any:
        if estimator is None:
            return self.function
        text = self.why_not(estimator)
        if text is not None:
            raise AttributeError(f"{self.function.__name__}: expected {text}")
        return self.function.__get__(estimator, owner)


def no_probabilities(estimator: Any) -> str | None:
    """Why an estimator has no probabilities, or None."""
    return None if estimator.loss == "cross_entropy" else f"loss='cross_entropy', got loss={estimator.loss!r}"


def needs_all(estimator: Any) -> str | None:
    """Why an estimator has to have all samples at once, or None."""
    if estimator.early_stopping:
        return f"early_stopping=False, got early_stopping={estimator.early_stopping!r}"
    class_weight = getattr(estimator, "class_weight", None)
    return f"class_weight=None or a dict, got class_weight={class_weight!r}" if isinstance(class_weight, str) else None


class Classifier(ClassifierMixin, Network):
    """A classifier: a multi-layer perceptron for two or more classes.
{parameters}
    Notes
    -----
    With 'cross_entropy' the network has an output for each class, the logits of softmax. With 'hinge'
    it has one output for two classes. For more classes it has an output for each class against the others. Several
    labels have an output each; with 'cross_entropy' these are logits of a sigmoid, as for `bce_with_logits`.

    Examples
    --------
    >>> from flatgrad.datasets import make_moons
    >>> from flatgrad.estimators import Classifier
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> classifier = Classifier(random_state=0).fit(X[:150], y[:150])
    >>> classifier.score(X[150:], y[150:]) > 0.9
    True
    """

    class_weight: Any
    classes_: Any
    _losses = ("cross_entropy", "hinge")
    _several: bool   # whether a sample may have several labels

    def __init__(self, hidden: int | Sequence[int] = (16, 16), activation: str = "relu", *, loss: str = "cross_entropy",
                 optimizer: str = "adam", lr: float = 0.01, epochs: int = 100, batch_size: int | None = 32,
                 alpha: float = 1e-4, early_stopping: bool = False, validation_fraction: float = 0.1,
                 n_iter_no_change: int = 10, class_weight: str | Mapping[Any, float] | None = None, scale: bool = True,
                 warm_start: bool = False, random_state: Any = None, verbose: bool = False) -> None:
        super().__init__(hidden, activation, loss=loss, optimizer=optimizer, lr=lr, epochs=epochs, batch_size=batch_size,
                         alpha=alpha, early_stopping=early_stopping, validation_fraction=validation_fraction,
                         n_iter_no_change=n_iter_no_change, scale=scale, warm_start=warm_start,
                         random_state=random_state, verbose=verbose)
        self.class_weight = class_weight

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Classifier:
        """Train on samples.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            The samples, finite.
        y : array_like of shape (n_samples,) or (n_samples, n_labels)
            Classes of any type that can be sorted, at least two different ones. Several columns of 0 and 1: labels, of
            which a sample may have any number.
        sample_weight : array_like of shape (n_samples,), optional
            How much each sample counts, 0 or more. Only the ratios matter: 2 is the same as the sample twice, if all
            samples are one batch.

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
            return self._fit_classes(X, y, None, sample_weight, False)

    @OnlyIf(needs_all)
    def partial_fit(self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None,
                    sample_weight: ArrayLike | None = None) -> Classifier:
        """Train for one more epoch, on these samples, with the network and the optimizer that are there.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`. The first samples decide how features are standardised.
        classes : array_like of shape (n_classes,), optional
            All classes of this and of later calls; needed in the first one, unless `y` has several columns.

        Returns
        -------
        Classifier
            The estimator itself.

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not as described.

        Notes
        -----
        ``early_stopping=True`` and ``class_weight='balanced'`` need all samples: with these there is no such method.
        """
        with self._all_or_nothing():
            return self._fit_classes(X, y, classes, sample_weight, True)

    def _fit_classes(self, X, y, classes, sample_weight, partial):
        self._settings()
        goes_on = self._goes_on(partial)
        X, y = self._samples_and_targets(X, y, numeric=False, reset=not goes_on)
        weights = sample_weights(sample_weight, len(X))
        several = y.ndim == 2 and y.shape[1] > 1
        if several:
            targets = labels_of_columns(y)
            if self.class_weight is not None:
                raise ArgumentError("class_weight: expected None for targets of several columns, got "
                                    f"{self.class_weight!r}")
            found = np.arange(y.shape[1])
        else:
            y = one_column(y)
            if validation is not None:
                check_classification_targets(y)
            elif y.dtype.kind == "f" and not (np.isfinite(y).all() and (y == np.round(y)).all()):
                raise DataError(f"y: expected classes, got continuous numbers, {shortened(y)}. Unknown label type")
            found = np.unique(y)
        classes = self._classes_of(found, classes, several, goes_on, partial)
        if several:
            loss = "bce_with_logits" if self.loss == "cross_entropy" else "hinge"
            targets = targets if loss == "bce_with_logits" else 2.0 * targets - 1.0
            n_outputs = len(classes)
        else:
            targets = np.searchsorted(classes, y)
            weights = by_class(self.class_weight, classes, targets, weights)
            n_outputs, loss = len(classes), self.loss
            if loss == "hinge":
                n_outputs = 1 if len(classes) == 2 else len(classes)
                positive_classes = np.arange(len(classes))[-n_outputs:]
                targets = np.where(targets[:, None] == positive_classes, 1.0, -1.0)
        self.classes_, self._several = classes, several
        return self._fit(X, targets, weights, n_outputs, loss, partial)

    def _classes_of(self, found, given, several, goes_on, partial):
        """The classes of this fit, in order: those `found` in the targets, `given`, or known from before."""
        if given is not None:
            given = np.unique(array_of_numbers(given))
            if len(np.setdiff1d(found, given)):
                raise DataError(f"y: expected classes of {shortened(given.tolist())}, as `classes` says, got "
                                f"{shortened(np.setdiff1d(found, given).tolist())}")
        elif partial and not goes_on and not several:
            raise ArgumentError("classes: expected the classes of all calls in the first partial_fit, got None")
        classes = found if given is None else given
        if goes_on:
            if given is not None and not np.array_equal(given, self.classes_):
                raise ArgumentError(f"classes: expected {shortened(self.classes_.tolist())}, as in the first call, got "
                                    f"{shortened(given.tolist())}")
            strange = np.setdiff1d(classes, self.classes_)
            if len(strange) or several != self._several or not partial and len(classes) != len(self.classes_):
                raise DataError(f"y: expected the classes of the last fit, {shortened(self.classes_.tolist())}, got "
                                f"{shortened(classes.tolist())}")
            return self.classes_
        if len(classes) < 2:
            raise DataError(f"y: expected two classes at least, got one class, {classes[0]!r}")
        return classes

    def decision_function(self, X: ArrayLike) -> NDArray[Any]:
        """Scores of the classes: a larger score means a likelier class.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes, the score of the second class: `predict` returns the second class if the score is above 0.
            For several labels a column for each, which `predict` gives to a sample if the score is above 0.

        Raises
        ------
        TypeError, ValueError
            If `X` is not as described; NotFittedError before `fit`.
        """
        out = self._outputs(X)
        if len(self.classes_) == 2 and not self._several:
            return out[:, -1] - out[:, 0] if out.shape[1] == 2 else out[:, 0]
        return out

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The likeliest class of each sample, or its labels.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)

        Raises
        ------
        TypeError, ValueError
            As for `decision_function`.
        """
        scores = self.decision_function(X)
        if self._several:
            return (scores > 0).astype(int)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)]

    @OnlyIf(no_probabilities)
    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """The probabilities of the classes; only with the loss 'cross_entropy'.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of `classes_`. Each row sums to 1, unless there are several labels: then each number
            stands by itself.

        Raises
        ------
        TypeError, ValueError
            As for `decision_function`.
        """
        out = self._outputs(X)
        if self._several:
            return np.exp(-np.logaddexp(0.0, -out))
        out = np.exp(out - out.max(axis=1, keepdims=True))
        return out / out.sum(axis=1, keepdims=True)

    @OnlyIf(no_probabilities)
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
        if self._several:
            return -np.logaddexp(0.0, -out)
        out = out - out.max(axis=1, keepdims=True)
        return out - np.log(np.exp(out).sum(axis=1, keepdims=True))

    if validation is not None and hasattr(BaseEstimator, "__sklearn_tags__"):
        def __sklearn_tags__(self):
            tags = super().__sklearn_tags__()
            tags.classifier_tags.multi_label = True
            return tags
    else:
        def _more_tags(self):   # scikit-learn's name before 1.6
            return {"multilabel": True}


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

    target_mean_: Any
    target_scale_: Any
    _losses = ("mse", "mae", "huber")
    _is_1d: bool

    def __init__(self, hidden: int | Sequence[int] = (16, 16), activation: str = "relu", *, loss: str = "mse",
                 optimizer: str = "adam", lr: float = 0.01, epochs: int = 100, batch_size: int | None = 32,
                 alpha: float = 1e-4, early_stopping: bool = False, validation_fraction: float = 0.1,
                 n_iter_no_change: int = 10, scale: bool = True, warm_start: bool = False, random_state: Any = None,
                 verbose: bool = False) -> None:
        super().__init__(hidden, activation, loss=loss, optimizer=optimizer, lr=lr, epochs=epochs, batch_size=batch_size,
                         alpha=alpha, early_stopping=early_stopping, validation_fraction=validation_fraction,
                         n_iter_no_change=n_iter_no_change, scale=scale, warm_start=warm_start,
                         random_state=random_state, verbose=verbose)

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Regressor:
        """Train on samples.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            The samples, finite.
        y : array_like of shape (n_samples,) or (n_samples, n_outputs)
            The targets, finite.
        sample_weight : array_like of shape (n_samples,), optional
            How much each sample counts, 0 or more. Only the ratios matter: 2 is the same as the sample twice, if all
            samples are one batch.

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
            return self._fit_targets(X, y, sample_weight, False)

    @OnlyIf(needs_all)
    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Regressor:
        """Train for one more epoch, on these samples, with the network and the optimizer that are there.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`. The first samples decide how features and targets are standardised.

        Returns
        -------
        Regressor
            The estimator itself.

        Raises
        ------
        TypeError, ValueError
            If an argument or a parameter is not as described.

        Notes
        -----
        ``early_stopping=True`` needs all samples: with it there is no such method.
        """
        with self._all_or_nothing():
            return self._fit_targets(X, y, sample_weight, True)

    def _fit_targets(self, X, y, sample_weight, partial):
        self._settings()
        goes_on = self._goes_on(partial)
        X, y = self._samples_and_targets(X, y, numeric=True, reset=not goes_on)
        weights = sample_weights(sample_weight, len(X))
        if y.ndim not in (1, 2):
            raise ShapeError(f"y: expected the shape (n_samples,) or (n_samples, n_outputs), got {y.shape}")
        self._is_1d = y.ndim == 1
        y = np.asarray(y, np.float64).reshape(len(y), -1)
        if goes_on:
            if y.shape[1] != len(self.target_mean_):
                raise ShapeError(f"y: expected {len(self.target_mean_)} outputs, as in the last fit, got the shape "
                                 f"{y.shape}")
        elif self.scale:
            self.target_mean_ = weighted_mean(y, weights)
            self.target_scale_ = deviation(y, self.target_mean_, weights)
        else:
            self.target_mean_, self.target_scale_ = np.zeros(y.shape[1]), np.ones(y.shape[1])
        targets = (y - self.target_mean_) / self.target_scale_
        return self._fit(X, targets, weights, y.shape[1], self.loss, partial)

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


def described(cls: type[Any], loss: str, class_weight: str, scaled: str, fitted: str) -> None:
    """Insert the parameters that both estimators share into a docstring."""
    if cls.__doc__:   # there is no docstring under -OO
        text = PARAMETERS.format(loss=loss, optimizers=", ".join(map(repr, optim.OPTIMIZERS)), scaled=scaled,
                                 class_weight=class_weight, fitted=fitted)
        cls.__doc__ = cls.__doc__.replace("{parameters}\n", text)


described(Classifier, "loss : {'cross_entropy', 'hinge'}, optional\n        'hinge' has no probabilities.",
          "class_weight : dict, 'balanced' or None, optional\n        How much the samples of each class count, 1 for those "
          "that a dict does not have; it multiplies\n        `sample_weight`. 'balanced': all classes count the same.\n    ",
          "", "classes_ : ndarray of shape (n_classes,)\n        In order.")
described(Regressor, "loss : {'mse', 'mae', 'huber'}, optional", "", "\n        Targets as well.",
          "target_mean_, target_scale_ : ndarray of shape (n_outputs,)\n        What targets were standardised by.")


def labels_of_columns(y: NDArray[Any]) -> NDArray[Any]:
    """Targets of several columns, 0 and 1, as floats."""
    try:
        labels = y.astype(np.float64)
    except (TypeError, ValueError):
        labels = np.full(y.shape, np.nan)
    if not np.isin(labels, (0.0, 1.0)).all():
        raise DataError(f"y: expected 0 and 1 in several columns, a column for each label, got {shortened(y)}")
    return labels


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
