"""Tables of pandas, Polars and PyArrow as data: the numbers of the same arrays, columns by name, and errors that name
columns."""
from __future__ import annotations

import datetime
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

from flatgrad import Tensor, estimators
from flatgrad.arguments import finite_array
from flatgrad.datasets import train_test_split
from flatgrad.errors import ArgumentTypeError, DataError, ShapeError
from flatgrad.nn import MLP
from flatgrad.optim import Adam
from flatgrad.train import Trainer
from test_estimators import alone

RNG = np.random.default_rng(5)
X = RNG.normal(size=(40, 3))
Y = X @ [1.0, -2.0, 0.5] + 3.0
NAMES = ["height", "width", "depth"]
QUICK = {"hidden": (4,), "epochs": 3, "random_state": 0}


def table(library, columns):
    module = pytest.importorskip(library)
    return module.table(columns) if library == "pyarrow" else module.DataFrame(columns)


def series(library, values):
    module = pytest.importorskip(library)
    return module.chunked_array([values]) if library == "pyarrow" else module.Series(values)


def samples(library, order=(0, 1, 2)):
    return table(library, {NAMES[k]: X[:, k] for k in order})


LIBRARIES = pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])


def trainer():
    model = MLP(3, [4, 1], activation="tanh", rng=1)
    return Trainer(model, Adam(model.parameters(), lr=0.01), "mse")


# ---- the same numbers ----

@LIBRARIES
def test_a_trainer_takes_tables(library):
    by_array, by_table = trainer(), trainer()
    expected = by_array.fit(X, Y, epochs=3, batch_size=8, seed=2, validation=(X, Y), progress=False)
    found = by_table.fit(samples(library), series(library, Y), epochs=3, batch_size=8, seed=2, progress=False,
                         validation=(samples(library), series(library, Y)))
    assert found["loss"] == expected["loss"] and found["val_loss"] == expected["val_loss"]
    assert np.array_equal(by_table.predict(samples(library)), by_array.predict(X))
    assert by_table.evaluate(samples(library), table(library, {"y": Y})) == by_array.evaluate(X, Y)


@pytest.mark.parametrize("module", [estimators, alone], ids=["as it is", "without scikit-learn"])
@LIBRARIES
def test_estimators_take_tables(library, module):
    if library == "pyarrow" and module is estimators and estimators.validation is not None:
        pytest.skip("scikit-learn takes what it takes of these")
    expected = module.Regressor(**QUICK).fit(X, Y)
    found = module.Regressor(**QUICK).fit(samples(library), series(library, Y))
    assert np.array_equal(found.predict(samples(library)), expected.predict(X))
    assert found.feature_names_in_.tolist() == NAMES
    labels = np.where(Y > 3.0, "high", "low")
    classifier = module.Classifier(**QUICK).fit(samples(library), series(library, labels))
    assert classifier.classes_.tolist() == ["high", "low"]
    assert np.array_equal(classifier.predict(samples(library)), module.Classifier(**QUICK).fit(X, labels).predict(X))


@LIBRARIES
def test_tensors_of_tables(library):
    assert Tensor(samples(library)).tolist() == X.tolist()
    assert Tensor(series(library, Y)).tolist() == Y.tolist()


@LIBRARIES
def test_split(library):
    parts = train_test_split(samples(library), series(library, Y), random_state=3)
    expected = train_test_split(X, Y, random_state=3)
    assert type(parts[0]) is type(samples(library))
    for part, array in zip(parts, expected):
        assert np.array_equal(np.asarray(part), array)


def test_kinds_of_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"int": [1, 2], "bool": [True, False], "nullable": pandas.array([3, 4], dtype="Int64"),
                              "single": np.array([0.5, 0.25], np.float32), "category": pandas.Categorical([7, 8])})
    assert finite_array("X", frame).tolist() == [[1.0, 1.0, 3.0, 0.5, 7.0], [2.0, 0.0, 4.0, 0.25, 8.0]]
    assert finite_array("X", frame[["int", "int"]]).tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert finite_array("X", frame["nullable"]).tolist() == [3.0, 4.0]


# ---- names ----

@LIBRARIES
def test_a_trainer_knows_its_columns(library):
    t = trainer()
    t.fit(samples(library), Y, epochs=1, progress=False)
    before = t.predict(X)   # arrays have no names
    expected = re.escape(f"X: expected the columns that this Trainer was given first, {NAMES}, got {NAMES[::-1]}")
    for call in (lambda x: t.predict(x), lambda x: t.evaluate(x, Y), lambda x: t.fit(x, Y, epochs=1, progress=False)):
        with pytest.raises(DataError, match=expected):
            call(samples(library, (2, 1, 0)))
    with pytest.raises(DataError, match=r"validation\[0\]: expected the columns"):
        t.fit(samples(library), Y, epochs=1, validation=(samples(library, (2, 1, 0)), Y), progress=False)
    assert np.array_equal(t.predict(samples(library)), before)


def messages(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in found if w.category is UserWarning]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_names_are_compared_as_scikit_learn_does(library):
    frame, swapped = samples(library), samples(library, (1, 0, 2))
    for module in (estimators, alone):
        named, bare = module.Regressor(**QUICK).fit(frame, Y), module.Regressor(**QUICK).fit(X, Y)
        with pytest.raises(ValueError, match="feature names"):
            named.predict(swapped)
        assert messages(lambda: named.predict(frame)) == messages(lambda: bare.predict(X)) == []
        assert messages(lambda: named.predict(X)) == [
            "X does not have valid feature names, but Regressor was fitted with feature names"]
        assert messages(lambda: bare.predict(frame)) == ["X has feature names, but Regressor was fitted without feature names"]
    linear_model = pytest.importorskip("sklearn.linear_model")
    named, bare = linear_model.LinearRegression().fit(frame, Y), linear_model.LinearRegression().fit(X, Y)
    assert messages(lambda: named.predict(X)) == [
        "X does not have valid feature names, but LinearRegression was fitted with feature names"]
    assert messages(lambda: bare.predict(frame)) == [
        "X has feature names, but LinearRegression was fitted without feature names"]


# ---- errors that name the column ----

@LIBRARIES
@pytest.mark.parametrize("column, message", [
    (["Rome"] * 40, "the column 'city' of type .*, such as 'Rome'"),
    ([datetime.date(2020, 1, 2)] * 40, "the column 'city' of type .*, such as datetime.date"),
    ([datetime.timedelta(1)] * 40, "the column 'city' of type"),
])
def test_a_column_that_is_no_numbers(library, column, message):
    wrong = table(library, {"a": X[:, 0], "city": column, "b": X[:, 1]})
    message = f"X: expected columns of numbers, got {message}.*Leave it out, or make numbers of its values"
    for call in (lambda: trainer().fit(wrong, Y, epochs=1), lambda: estimators.Regressor().fit(wrong, Y),
                 lambda: alone.Regressor().fit(wrong, Y)):
        with pytest.raises(ArgumentTypeError, match=message):
            call()
    if library != "polars" or "Rome" in column:   # Polars makes numbers of dates in an array with floats
        with pytest.raises(ArgumentTypeError, match=message.replace("X:", "data:")):
            Tensor(wrong)
    with pytest.raises(ArgumentTypeError, match="y: expected columns of numbers, got the column 'city'"):
        trainer().fit(X, table(library, {"city": column}), epochs=1)


@LIBRARIES
def test_several_such_columns(library):
    wrong = table(library, {name: ["x", "y"] for name in "abcde"})
    with pytest.raises(ArgumentTypeError, match="the column 'a' of .*; 'b' of .*; 'c' of .*, and 2 more. Leave"):
        finite_array("X", wrong)


@LIBRARIES
def test_a_missing_number(library):
    missing = table(library, {"a": [1.0, 2.0], "b": [1, None]})
    with pytest.raises(DataError, match=re.escape("X[1, 'b']: expected a finite number, got nan")):
        trainer().predict(missing)


def test_missing_numbers_of_pandas():
    pandas = pytest.importorskip("pandas")
    for dtype in ("Int64", "Float64", "boolean", object):
        with pytest.raises(DataError, match=re.escape("X[1, 'b']: expected a finite number, got nan")):
            finite_array("X", pandas.DataFrame({"a": [1.0, 2.0], "b": pandas.Series([True, None], dtype=dtype)}))


@LIBRARIES
def test_a_table_of_another_width(library):
    with pytest.raises(ShapeError, match="X: the model does not take samples of 2 features"):
        trainer().fit(samples(library, (0, 1)), Y, epochs=1)


def test_none_is_imported():
    code = ("import sys, numpy as np; from flatgrad.train import Trainer; from flatgrad.arguments import finite_array; "
            "finite_array('X', np.ones((2, 2))); sys.exit(bool({'pandas', 'polars', 'pyarrow'} & set(sys.modules)))")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
