"""Ways to fit a Classifier and a Regressor: weights, parts of the samples, and further fits. Against scikit-learn where
that has the same meaning, and against samples that are repeated."""
import pickle

import numpy as np
import pytest
from test_estimators import alone

import flatgrad.estimators as installed
from flatgrad import losses, optim, weighting
from flatgrad._core import Tensor
from flatgrad.datasets import make_moons
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, DivergedError, ShapeError

X, LABELS = make_moons(120, noise=0.2, random_state=5)
QUICK = {"hidden": (8,), "epochs": 30, "random_state": 0}
SEVERAL = np.column_stack([LABELS, X[:, 0] > 0, X[:, 1] > 0]).astype(int)
CASES = [("Classifier", "cross_entropy", LABELS), ("Classifier", "hinge", LABELS),
         ("Classifier", "cross_entropy", (X[:, 0] > 0) + LABELS), ("Classifier", "hinge", (X[:, 0] > 0) + LABELS),
         ("Classifier", "cross_entropy", SEVERAL), ("Classifier", "hinge", SEVERAL),
         ("Regressor", "mse", X[:, 0] ** 2), ("Regressor", "mae", X[:, 0] ** 2), ("Regressor", "huber", X @ [[1, 2], [3, 4]])]
every_case = pytest.mark.parametrize("kind, loss, y", CASES, ids=lambda x: x if isinstance(x, str) else str(x.ndim))


@pytest.fixture(params=["as it is", "without scikit-learn"])
def estimators(request):
    return installed if request.param == "as it is" else alone


def outputs(estimator, points=X):
    return estimator.decision_function(points) if hasattr(estimator, "decision_function") else estimator.predict(points)


# ---- weights of samples ----

@every_case
def test_a_weight_is_the_sample_so_many_times(estimators, kind, loss, y):
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    make = lambda: getattr(estimators, kind)(loss=loss, batch_size=None, **QUICK)
    weighted = make().fit(X, y, weights)
    repeated = make().fit(X.repeat(weights, axis=0), y.repeat(weights, axis=0))
    np.testing.assert_allclose(outputs(weighted), outputs(repeated), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(outputs(make().fit(X, y, 0.25 * weights)), outputs(weighted), rtol=1e-6, atol=1e-8)
    assert np.abs(outputs(make().fit(X, y)) - outputs(weighted)).max() > 1e-3   # that these weights matter


@every_case
def test_weights_of_one_change_nothing(estimators, kind, loss, y):
    plain, weighted = (getattr(estimators, kind)(loss=loss, **QUICK).fit(X, y, *w) for w in ((), (np.ones(len(X)),)))
    np.testing.assert_allclose(outputs(weighted), outputs(plain), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "bce_with_logits", "hinge", "cross_entropy"])
def test_weighted_losses_against_pytorch(name):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    out, w = rng.normal(size=(7, 3)), rng.random(7)
    y = {"hinge": rng.choice([-1.0, 1.0], (7, 3)), "bce_with_logits": rng.integers(0, 2, (7, 3)).astype(float)}.get(
        name, rng.normal(size=(7, 3)))
    p, t = torch.tensor(out, requires_grad=True), torch.tensor(y)
    f = torch.nn.functional
    labels = rng.integers(0, 3, 7)
    each = {"mse": lambda: f.mse_loss(p, t, reduction="none"), "mae": lambda: f.l1_loss(p, t, reduction="none"),
            "huber": lambda: f.huber_loss(p, t, reduction="none"), "hinge": lambda: torch.relu(1.0 - t * p),
            "bce_with_logits": lambda: f.binary_cross_entropy_with_logits(p, t, reduction="none"),
            "cross_entropy": lambda: f.cross_entropy(p, torch.tensor(labels), reduction="none")[:, None]}[name]()
    expected = (each.mean(dim=1) * torch.tensor(w)).mean()
    expected.backward()
    own = Tensor(out)
    target = np.where(labels[:, None] == np.arange(3), w[:, None], 0.0) if name == "cross_entropy" else \
        np.concatenate([y, np.broadcast_to(w[:, None], y.shape)], axis=1)
    loss = weighting.LOSSES[name](own, Tensor(target, requires_grad=False))
    loss.backward()
    assert loss.data == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(own.grad, p.grad.numpy(), rtol=1e-10, atol=1e-14)
    assert set(weighting.LOSSES) <= set(losses.LOSSES)


def test_weighted_fits_are_compiled():
    engines = []
    fit = installed.Trainer.fit

    class Watched(installed.Trainer):
        def fit(self, *arguments, **options):
            result = fit(self, *arguments, **options)
            engines.append(self.engine)
            return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installed, "Trainer", Watched)
        for kind, loss, y in CASES:
            getattr(installed, kind)(loss=loss, **QUICK).fit(X, y, np.arange(len(X)))
    assert engines == ["compiled"] * len(CASES)


def test_class_weights(estimators):
    utils = pytest.importorskip("sklearn.utils.class_weight") if estimators is installed else None
    few = np.concatenate([np.flatnonzero(LABELS == 0), np.flatnonzero(LABELS == 1)[:6]])
    points, names = X[few], np.array(["a", "b"])[LABELS[few]]
    make = lambda **options: estimators.Classifier(batch_size=None, **QUICK, **options)
    balanced = make(class_weight="balanced").fit(points, names)
    given = make(class_weight={"b": 10.0}).fit(points, names)
    by_hand = make().fit(points, names, np.where(names == "b", 10.0, 1.0))
    for estimator in (given, by_hand):
        np.testing.assert_allclose(outputs(estimator, points), outputs(balanced, points), rtol=1e-6, atol=1e-8)
    found = np.mean(balanced.predict(points)[names == "b"] == "b")
    assert found > np.mean(make().fit(points, names).predict(points)[names == "b"] == "b")
    if utils is not None:
        factors = utils.compute_sample_weight("balanced", names)
        np.testing.assert_allclose(weighting.by_class("balanced", np.array(["a", "b"]), (names == "b").astype(int), None),
                                   factors)
    both = make(class_weight={"b": 10.0}).fit(points, names, np.where(names == "b", 0.1, 1.0))
    np.testing.assert_allclose(outputs(both, points), outputs(make().fit(points, names), points), rtol=1e-6, atol=1e-8)


def test_scores_take_weights(estimators):
    weights = np.random.default_rng(0).random(len(X))
    classifier = estimators.Classifier(**QUICK).fit(X, LABELS)
    right = classifier.predict(X) == LABELS
    assert classifier.score(X, LABELS, weights) == pytest.approx(np.sum(right * weights) / weights.sum())
    y = X @ [[1.0, 2.0], [0.5, -1.0]]
    regressor = estimators.Regressor(**QUICK).fit(X, y)
    metrics = pytest.importorskip("sklearn.metrics")
    expected = metrics.r2_score(y, regressor.predict(X), sample_weight=weights)
    assert regressor.score(X, y, weights) == pytest.approx(expected, rel=1e-12)
    several = estimators.Classifier(**QUICK).fit(X, SEVERAL)
    assert several.score(X, SEVERAL) == np.mean((several.predict(X) == SEVERAL).all(axis=1))


@pytest.mark.parametrize("weights, error, message", [
    (np.ones(3), ShapeError, "sample_weight: expected one number for each of 120 samples"),
    (-np.ones(120), DataError, r"sample_weight\[0\]: expected a number of 0 or more, got -1"),
    (np.zeros(120), DataError, "expected a number above 0 for one sample at least, got zero for all"),
    (["a"] * 120, ArgumentTypeError, "sample_weight"), (np.full(120, np.nan), DataError, "sample_weight")])
def test_weights_that_are_refused(estimators, weights, error, message):
    for estimator in (estimators.Classifier(**QUICK), estimators.Regressor(**QUICK)):
        with pytest.raises(error, match=message):
            estimator.fit(X, LABELS, sample_weight=weights)
        assert not hasattr(estimator, "model_")


@pytest.mark.parametrize("weight, error, message", [
    ("balance", ArgumentTypeError, "class_weight: expected None, 'balanced' or a dict"),
    ({2: 1.0}, ArgumentError, r"class_weight: expected the classes \[0, 1\], got 2"),
    ({0: -1.0}, ArgumentError, r"class_weight\[0\]"), ({0: 0.0, 1: 0.0}, ArgumentError, "a weight above 0"),
    (3, ArgumentTypeError, "got 3")])
def test_class_weights_that_are_refused(estimators, weight, error, message):
    with pytest.raises(error, match=message):
        estimators.Classifier(class_weight=weight, **QUICK).fit(X, LABELS)
    with pytest.raises(ArgumentError, match="class_weight: expected None for targets of several columns"):
        estimators.Classifier(class_weight="balanced", **QUICK).fit(X, SEVERAL)


# ---- several labels ----

@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
def test_several_labels(estimators, loss):
    classifier = estimators.Classifier(loss=loss, hidden=(16,), epochs=100, random_state=0).fit(X, SEVERAL)
    scores, predicted = classifier.decision_function(X), classifier.predict(X)
    assert predicted.shape == scores.shape == SEVERAL.shape and predicted.dtype.kind == "i"
    np.testing.assert_array_equal(predicted, scores > 0)
    assert classifier.classes_.tolist() == [0, 1, 2] and np.mean(predicted == SEVERAL) > 0.9
    if loss == "cross_entropy":
        p = classifier.predict_proba(X)
        np.testing.assert_allclose(p, 1.0 / (1.0 + np.exp(-scores)), rtol=1e-12)
        np.testing.assert_allclose(np.exp(classifier.predict_log_proba(X)), p, rtol=1e-12)
    two = estimators.Classifier(loss=loss, **QUICK).fit(X, SEVERAL[:, :2].astype(bool))
    assert two.decision_function(X).shape == two.predict(X).shape == (120, 2)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_several_labels_are_about_as_good_as_scikit_learns():
    networks = pytest.importorskip("sklearn.neural_network")
    theirs = networks.MLPClassifier((16,), max_iter=200, batch_size=32, learning_rate_init=0.01, random_state=0,
                                    n_iter_no_change=200).fit(X, SEVERAL)
    ours = installed.Classifier(hidden=(16,), epochs=200, random_state=0).fit(X, SEVERAL)
    assert ours.score(X, SEVERAL) > theirs.score(X, SEVERAL) - 0.05
    assert ours.predict(X).shape == theirs.predict(X).shape and ours.classes_.tolist() == theirs.classes_.tolist()


# ---- further fits ----

def network(estimator):
    return [p.data for p in estimator.model_.parameters()]


@every_case
def test_partial_fits_are_the_epochs_of_one_fit(estimators, kind, loss, y):
    make = lambda: getattr(estimators, kind)(loss=loss, **{**QUICK, "epochs": 5})
    options = {"classes": np.unique(y)} if kind == "Classifier" and y.ndim == 1 else {}
    once, parts = make().fit(X, y), make()
    for k in range(5):
        assert parts.partial_fit(X, y, **options) is parts
        options = {}
    assert network(parts) == network(once) and parts.n_iter_ == len(parts.history_) == 5
    assert parts.history_.loss == once.history_.loss and parts.history_.epochs == once.history_.epochs
    copy = pickle.loads(pickle.dumps(parts))
    assert network(copy.partial_fit(X, y)) == network(parts.partial_fit(X, y)) != network(once)
    assert copy.n_iter_ == 6


def test_parts_of_the_samples(estimators):
    classifier = estimators.Classifier(hidden=(8,), random_state=0)
    names = np.array(["a", "b", "c"])[(X[:, 0] > 0) + LABELS]
    for _ in range(30):
        for k in range(0, 120, 40):
            classifier.partial_fit(X[k:k + 40], names[k:k + 40], classes=["c", "b", "a"])
    assert classifier.score(X, names) > 0.85 and classifier.classes_.tolist() == ["a", "b", "c"]
    classifier.partial_fit(X[:3], ["a", "a", "a"])   # a part may lack classes
    regressor = estimators.Regressor(hidden=(8,), random_state=0)
    for _ in range(60):
        for k in range(0, 120, 40):
            regressor.partial_fit(X[k:k + 40], X[k:k + 40, 0] * 100.0)
    assert regressor.score(X, X[:, 0] * 100.0) > 0.9


@every_case
def test_a_warm_start_goes_on(estimators, kind, loss, y):
    estimator = getattr(estimators, kind)(loss=loss, warm_start=True, **QUICK).fit(X, y)
    first, model, mean = network(estimator), estimator.model_, estimator.mean_
    second = estimator.fit(X[::-1] + 1.0, y[::-1]).model_
    assert second is model and network(estimator) != first and estimator.n_iter_ == 60 and estimator.mean_ is mean
    estimator.set_params(warm_start=False).fit(X, y)
    assert network(estimator) == first and estimator.n_iter_ == 30 and estimator.model_ is not model


def test_a_warm_start_begins_with_the_last_weights_and_a_new_optimizer(estimators):
    settings = {"hidden": (4,), "random_state": 0, "batch_size": None, "alpha": 0.0, "optimizer": "adam"}
    estimator = estimators.Regressor(epochs=3, warm_start=True, **settings).fit(X, X[:, 0])
    model = pickle.loads(pickle.dumps(estimator.model_))
    estimator.fit(X, X[:, 0])
    y = (X[:, :1] - X[:, 0].mean()) / X[:, 0].std()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        loss = losses.mse(model((X - X.mean(axis=0)) / X.std(axis=0)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    np.testing.assert_allclose(network(estimator), [p.data for p in model.parameters()], rtol=1e-12)


def test_what_a_further_fit_refuses_changes_nothing(estimators):
    classifier = estimators.Classifier(warm_start=True, **QUICK).fit(X, LABELS)
    regressor = estimators.Regressor(warm_start=True, **QUICK).fit(X, X)
    for estimator, call, message in [
        (classifier, lambda: classifier.fit(X, LABELS + 1), r"y: expected the classes of the last fit, \[0, 1\], got"),
        (classifier, lambda: classifier.fit(X, SEVERAL), "expected the classes of the last fit"),
        (classifier, lambda: classifier.fit(X[:, :1], LABELS), "features"),
        (classifier, lambda: classifier.partial_fit(X, LABELS + 1), "expected the classes of the last fit"),
        (classifier, lambda: classifier.partial_fit(X, LABELS, [0, 1, 2]), r"classes: expected \[0, 1\], as in the"),
        (classifier, lambda: classifier.partial_fit(X, LABELS, [0]), r"y: expected classes of \[0\], as `classes` says"),
        (classifier, lambda: classifier.set_params(hidden=(9,)).fit(X, LABELS),
         r"warm_start: expected hidden layers, activation and number of outputs as in the last fit, .* got \(\(9,\)"),
        (classifier, lambda: classifier.set_params(hidden=(8,), activation="tanh").partial_fit(X, LABELS),
         "partial_fit: expected hidden"),
        (regressor, lambda: regressor.fit(X, X[:, 0]), "y: expected 2 outputs, as in the last fit"),
    ]:
        before = outputs(estimator).copy(), network(estimator), estimator.n_iter_
        with pytest.raises(ValueError, match=message):
            call()
        assert np.array_equal(outputs(estimator), before[0]) and (network(estimator), estimator.n_iter_) == before[1:]
    with pytest.raises(ArgumentError, match="classes: expected the classes of all calls in the first partial_fit"):
        estimators.Classifier(**QUICK).partial_fit(X, LABELS)


def test_a_further_fit_that_diverges_changes_nothing(estimators):
    regressor = estimators.Regressor(warm_start=True, activation="linear", **QUICK).fit(X, X[:, 0])
    before, epochs, optimizer = network(regressor), dict(regressor.history_), regressor._optimizer
    state = pickle.dumps(optimizer.state_dict())
    regressor.set_params(lr=1e150)
    for further in ("fit", "partial_fit"):
        with pytest.raises(DivergedError, match="batch [2-4] of 4"):   # after a step
            getattr(regressor, further)(X, X[:, 0])
        assert network(regressor) == before and regressor.history_ == epochs and regressor.n_iter_ == 30
        assert regressor._optimizer is optimizer and pickle.dumps(optimizer.state_dict()) == state


def test_what_needs_all_samples_has_no_partial_fit(estimators):
    assert not hasattr(estimators.Regressor(early_stopping=True), "partial_fit")
    assert not hasattr(estimators.Classifier(class_weight="balanced"), "partial_fit")
    assert hasattr(estimators.Classifier(class_weight={0: 2.0}), "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit: expected early_stopping=False, got early_stopping=True"):
        estimators.Classifier(early_stopping=True).partial_fit(X, LABELS)


# ---- early stopping, optimizers, parameters ----

def test_early_stopping_ends_where_it_should(estimators):
    for kind, y in (("Classifier", LABELS), ("Regressor", X[:, 0])):
        estimator = getattr(estimators, kind)(hidden=(8,), epochs=400, early_stopping=True, n_iter_no_change=4, lr=0.05,
                                              validation_fraction=0.25, random_state=0).fit(X, y, np.ones(len(X)))
        losses_ = estimator.history_.val_loss
        assert estimator.n_iter_ < 400 and min(losses_) == losses_[-5] and min(losses_[-4:]) >= losses_[-5]
        assert "val_loss" not in getattr(estimators, kind)(**QUICK).fit(X, y).history_


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_every_optimizer(estimators, name):
    lr = {"sgd": 0.1, "adadelta": 5.0, "adagrad": 0.1, "radam": 0.05}.get(name, 0.01)
    whole = {"batch_size": None, "epochs": 100} if name == "rprop" else {}
    classifier = estimators.Classifier(optimizer=name, lr=lr, **{**QUICK, **whole}).fit(X, LABELS)
    assert classifier.score(X, LABELS) > 0.8 and type(classifier._optimizer) is optim.OPTIMIZERS[name]
    assert name in estimators.Classifier.__doc__


def test_both_share_their_parameters():
    import inspect

    both = [set(inspect.signature(kind).parameters) for kind in (installed.Classifier, installed.Regressor)]
    assert both[0] - both[1] == {"class_weight"} and both[1] < both[0]
    shared = set(installed.Network.__annotations__) & both[1]
    assert shared == both[1] and not shared & {*installed.Classifier.__annotations__, *installed.Regressor.__annotations__}
