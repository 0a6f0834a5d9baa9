"""Classifier and Regressor: scikit-learn's own checks where it is installed, and the same without it."""
import importlib.util
import math
import pickle
import sys

import numpy as np
import pytest

import flatgrad.estimators as installed
from flatgrad.datasets import make_moons
from flatgrad.errors import ArgumentError, ArgumentTypeError, StateError, UnknownNameError

X, LABELS = make_moons(120, noise=0.1, random_state=5)
QUICK = {"hidden": (8,), "epochs": 40, "random_state": 0}


def without_scikit_learn():
    """The module as it is where there is no scikit-learn."""
    known = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "sklearn"}
    for name in known:
        del sys.modules[name]

    class Nothing:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.split(".")[0] == "sklearn":
                raise ModuleNotFoundError(f"No module named {name!r}", name="sklearn")

    sys.meta_path.insert(0, Nothing)
    try:
        spec = importlib.util.spec_from_file_location("estimators_alone", installed.__file__)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module   # where pickle looks for it
        spec.loader.exec_module(module)
    finally:
        sys.meta_path.remove(Nothing)
        sys.modules.update(known)
    assert module.validation is None
    return module


alone = without_scikit_learn()


@pytest.fixture(params=["as it is", "without scikit-learn"])
def estimators(request):
    return installed if request.param == "as it is" else alone


# ---- scikit-learn ----

def checks():
    """(estimator, check) of scikit-learn's, or nothing where it is not installed."""
    try:
        from sklearn.utils.estimator_checks import check_estimator
    except ModuleNotFoundError:
        return []
    return [pytest.param(estimator, check_estimator, id=repr(estimator)) for estimator in
            (installed.Classifier(), installed.Classifier(loss="hinge"), installed.Regressor(),
             installed.Classifier(batch_size=None), installed.Regressor(batch_size=None, scale=False))]


@pytest.mark.filterwarnings("ignore")   # scikit-learn's own, about checks that it skips and versions to come
@pytest.mark.parametrize("estimator, check", checks())
def test_scikit_learn_finds_nothing_wrong(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore")
def test_the_checks_can_fail():
    checks = pytest.importorskip("sklearn.utils.estimator_checks")

    class Careless(installed.Classifier):
        def predict(self, X):
            return np.zeros(len(X), int)

    with pytest.raises(AssertionError):
        checks.check_classifiers_train("Careless", Careless(epochs=1))


def test_in_a_pipeline_and_a_search():
    pytest.importorskip("sklearn")
    from sklearn.base import clone, is_classifier, is_regressor
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures

    search = GridSearchCV(make_pipeline(PolynomialFeatures(2), installed.Classifier(**QUICK)),
                          {"classifier__alpha": [1e-4, 10.0]}, cv=2).fit(X, LABELS)
    assert search.best_params_ == {"classifier__alpha": 1e-4} and search.best_score_ > 0.8
    assert is_classifier(installed.Classifier()) and is_regressor(installed.Regressor())
    assert clone(installed.Regressor(hidden=(3,))).hidden == (3,)


def test_both_ways_train_the_same():
    pytest.importorskip("sklearn")
    ours, theirs = (module.Classifier(**QUICK).fit(X, LABELS).decision_function(X) for module in (alone, installed))
    np.testing.assert_array_equal(ours, theirs)


# ---- what they do ----

@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
@pytest.mark.parametrize("names", [[0, 1], ["inner", "outer"], [-7, 3], [False, True], [0.0, 1.0]])
def test_two_classes(estimators, loss, names):
    y = np.array(names)[LABELS]
    classifier = estimators.Classifier(loss=loss, **QUICK).fit(X * [1000.0, 0.001] + 500.0, y)
    predicted = classifier.predict(X * [1000.0, 0.001] + 500.0)
    assert classifier.score(X * [1000.0, 0.001] + 500.0, y) == np.mean(predicted == y) > 0.85
    assert classifier.classes_.tolist() == names and predicted.dtype == y.dtype
    scores = classifier.decision_function(X[:5])
    assert scores.shape == (5,) and hasattr(classifier, "predict_proba") == (loss == "cross_entropy")


@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
def test_many_classes(estimators, loss):
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=150)
    points = rng.normal(size=(150, 2), scale=0.3) + np.array([[0, 0], [0, 3], [3, 0], [3, 3]])[y]
    classifier = estimators.Classifier(loss=loss, **QUICK).fit(points, np.array(list("dcba"))[y])
    assert classifier.score(points, np.array(list("dcba"))[y]) > 0.95
    assert classifier.decision_function(points).shape == (150, 4)
    if loss == "cross_entropy":
        p = classifier.predict_proba(points)
        np.testing.assert_allclose(p.sum(axis=1), 1.0)
        np.testing.assert_array_equal(classifier.classes_[p.argmax(axis=1)], classifier.predict(points))
        np.testing.assert_allclose(np.exp(classifier.predict_log_proba(points)), p)
    else:
        with pytest.raises(AttributeError, match="predict_proba: expected loss='cross_entropy', got loss='hinge'"):
            classifier.predict_proba(points)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_regression(estimators, loss):
    x = np.linspace(-3.0, 3.0, 100)[:, None]
    y = 1e4 + 1e3 * np.sin(x[:, 0])
    regressor = estimators.Regressor(hidden=(16,), activation="tanh", loss=loss, random_state=0, lr=0.05).fit(x, y)
    assert regressor.score(x, y) > 0.95 and regressor.predict(x).shape == (100,)
    both = estimators.Regressor(loss=loss, **QUICK).fit(x, np.stack([y, 3.0 - x[:, 0]], axis=1))
    assert both.predict(x).shape == (100, 2) and both.score(x, np.stack([y, 3.0 - x[:, 0]], axis=1)) > 0.8
    one = estimators.Regressor(loss=loss, **QUICK).fit(x, y[:, None])
    assert one.predict(x).shape == (100, 1)


def test_a_feature_that_is_constant(estimators):
    x = np.column_stack([X, np.full(len(X), 0.1), np.zeros(len(X))])
    classifier = estimators.Classifier(**QUICK).fit(x, LABELS)
    assert classifier.scale_[2:].tolist() == [1.0, 1.0] and np.isfinite(classifier.decision_function(x)).all()
    unscaled = estimators.Classifier(scale=False, **QUICK).fit(x, LABELS)
    assert unscaled.mean_.tolist() == [0.0] * 4 and unscaled.scale_.tolist() == [1.0] * 4


def test_early_stopping(estimators):
    classifier = estimators.Classifier(epochs=500, early_stopping=True, n_iter_no_change=5, random_state=1).fit(X, LABELS)
    assert classifier.n_iter_ == len(classifier.history_) < 500 and "val_loss" in classifier.history_


@pytest.mark.parametrize("state", [3, np.random.RandomState(3), np.random.default_rng(3)])
def test_the_random_state_decides(estimators, state):
    copies = [pickle.loads(pickle.dumps(state)) for _ in range(2)]
    one, two = (estimators.Classifier(hidden=(4,), epochs=3, random_state=copy).fit(X, LABELS) for copy in copies)
    other = estimators.Classifier(hidden=(4,), epochs=3, random_state=4).fit(X, LABELS)
    np.testing.assert_array_equal(one.decision_function(X), two.decision_function(X))
    assert (one.decision_function(X) != other.decision_function(X)).any()


def test_pickles(estimators):
    for estimator in (estimators.Classifier(**QUICK), estimators.Regressor(**QUICK)):
        estimator.fit(X, LABELS)
        copy = pickle.loads(pickle.dumps(estimator))
        np.testing.assert_array_equal(copy.predict(X), estimator.predict(X))


def test_parameters(estimators):
    classifier = estimators.Classifier(hidden=(3,), lr=0.5)
    assert classifier.get_params()["hidden"] == (3,) and set(classifier.get_params()) >= {"alpha", "optimizer", "loss"}
    assert classifier.set_params(lr=0.25, alpha=0.0) is classifier and classifier.lr == 0.25
    assert repr(classifier) == "Classifier(alpha=0.0, hidden=(3,), lr=0.25)"
    with pytest.raises(ValueError, match="alhpa"):
        classifier.set_params(alhpa=1.0)
    for cls in (estimators.Classifier, estimators.Regressor):
        assert "{parameters}" not in cls.__doc__ and "{{" not in cls.__doc__ and "random_state : int" in cls.__doc__


def test_names_of_features(estimators):
    class Table:   # what is asked of a DataFrame
        def __init__(self, array, columns):
            self.array, self.columns = array, columns

        def __array__(self, dtype=None, copy=None):
            return np.array(self.array, dtype)

        def __len__(self):
            return len(self.array)

    if estimators is installed and estimators.validation is not None:
        pytest.skip("scikit-learn knows tables of its own kinds")
    classifier = estimators.Classifier(**QUICK).fit(Table(X, ["a", "b"]), LABELS)
    assert classifier.feature_names_in_.tolist() == ["a", "b"]
    assert classifier.predict(Table(X, ["a", "b"])).shape == (120,)
    with pytest.raises(ArgumentError, match=r"X: expected the feature names \['a', 'b'\], got \['b', 'a'\]"):
        classifier.predict(Table(X, ["b", "a"]))
    assert not hasattr(classifier.fit(X, LABELS), "feature_names_in_")


# ---- what they refuse ----

@pytest.mark.parametrize("change, error, message", [
    ({"loss": "mse"}, UnknownNameError, "loss: expected one of 'cross_entropy', 'hinge'"),
    ({"optimizer": "adm"}, UnknownNameError, "did you mean 'adam'"),
    ({"activation": "rellu"}, UnknownNameError, "'relu'"),
    ({"hidden": 1.5}, ArgumentTypeError, "hidden: expected an int or a sequence of int"),
    ({"hidden": True}, ArgumentTypeError, "hidden: expected an int"), ({"hidden": "16"}, ArgumentTypeError, "hidden"),
    ({"hidden": (0,)}, ArgumentError, "hidden"), ({"lr": 0.0}, ArgumentError, "lr"),
    ({"epochs": 0}, ArgumentError, "epochs"), ({"batch_size": 0}, ArgumentError, "batch"),
    ({"alpha": -1.0}, ArgumentError, "alpha"), ({"n_iter_no_change": 0}, ArgumentError, "n_iter_no_change"),
    ({"early_stopping": 1}, ArgumentTypeError, "early_stopping"), ({"warm_start": None}, ArgumentTypeError, "warm_start"),
    ({"validation_fraction": 1.0}, ArgumentError, "validation_fraction"), ({"scale": 1}, ArgumentTypeError, "scale"),
    ({"random_state": "x"}, ArgumentTypeError, "random_state"), ({"verbose": 2}, ArgumentTypeError, "verbose"),
])
def test_parameters_that_are_refused(estimators, change, error, message):
    classifier = estimators.Classifier(**QUICK).fit(X, LABELS)
    before = classifier.predict(X)
    classifier.set_params(**change)
    with pytest.raises(error, match=message):
        classifier.fit(X, LABELS)
    classifier.set_params(**{name: getattr(estimators.Classifier(), name) for name in change})
    np.testing.assert_array_equal(classifier.predict(X), before)


@pytest.mark.parametrize("x, y", [
    (np.full((4, 2), math.nan), [0, 1, 0, 1]), (np.full((4, 2), math.inf), [0, 1, 0, 1]), (X[:0], []),
    (X[:4], [0, 1, 0]), (X[:4, 0], [0, 1, 0, 1]), ([["a", "b"]] * 2, [0, 1]), (X[:4], None), (X[:4], [1, 1, 1, 1]),
    (X[:4], [0.1, 0.2, 0.3, 1]),
    (np.ones((4, 3)), [2, 2, 2, 2]), (X[:4], [[0, 1, 2]] * 4), (X[:4], [["a", "b"]] * 4),
])
def test_samples_that_are_refused_change_nothing(estimators, x, y):
    classifier = estimators.Classifier(**QUICK).fit(X, LABELS)
    before, kept = classifier.predict(X), set(vars(classifier))
    with pytest.raises((ValueError, TypeError)):
        classifier.fit(x, y)
    assert set(vars(classifier)) == kept and classifier.n_features_in_ == 2
    np.testing.assert_array_equal(classifier.predict(X), before)
    if x is not None and np.ndim(y) == 1 and len(np.unique(y)) == 2 and len(x) == len(y):
        with pytest.raises((ValueError, TypeError)):
            classifier.predict(x)


def test_widths_and_what_is_not_fitted(estimators):
    for estimator in (estimators.Classifier(**QUICK), estimators.Regressor(**QUICK)):
        with pytest.raises(estimators.NotFittedError, match="call fit") as caught:
            estimator.predict(X)
        assert isinstance(caught.value, StateError) and isinstance(caught.value, AttributeError)
        estimator.fit(X, LABELS)
        with pytest.raises(ValueError, match="features"):
            estimator.predict(X[:, :1])
        with pytest.raises(ValueError):
            estimator.fit(X, LABELS[:-1])
    with pytest.raises(ValueError):
        estimators.Regressor(**QUICK).fit(X, np.ones((120, 1, 1)))
    with pytest.raises(ValueError):
        estimators.Regressor(**QUICK).fit(X, np.full(120, math.nan))


@pytest.mark.parametrize("hidden", [5, np.int64(5)])
def test_hidden_may_be_one_number(estimators, hidden):
    one, other = (estimators.Classifier(hidden=sizes, epochs=2, random_state=0).fit(X, LABELS)
                  for sizes in (hidden, (5,)))
    assert np.array_equal(one.decision_function(X), other.decision_function(X))
    assert estimators.Classifier(hidden=np.array([5, 4]), epochs=1).fit(X, LABELS).model_.layers[1].neurons[3:]
