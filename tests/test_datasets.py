"""Moons, circles and splits are scikit-learn's to the last bit; a CSV file is read whole or refused in one line."""
import inspect
import itertools
import math

import numpy as np
import pytest

from flatgrad import Tensor
from flatgrad.datasets import (make_circles, make_moons, make_parity, make_spirals, make_sum, make_xor, read_csv,
                               train_test_split)
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, FlatgradError, ShapeError

# ---- make_moons ----

SIZES = [1, 2, 7, 100, (3, 5), (0, 4), (4, 0)]


def identical(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("n_samples", SIZES, ids=str)
def test_make_moons_is_scikit_learns(n_samples):
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    for shuffle in True, False:
        for noise in None, 0.0, 0.1, 2:
            for seed in 0, 1337, 2**32 - 1:
                arguments = dict(shuffle=shuffle, noise=noise, random_state=seed)
                theirs = sklearn_datasets.make_moons(n_samples, **arguments)
                ours = make_moons(n_samples, **arguments)
                assert identical(ours[0], theirs[0]) and identical(ours[1], theirs[1]), arguments


def test_make_moons_draws_from_the_generator_it_is_given():
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    ours, theirs = np.random.RandomState(3), np.random.RandomState(3)
    for _ in range(2):  # the second time from where the first left off
        assert identical(make_moons(9, noise=0.1, random_state=ours)[0],
                         sklearn_datasets.make_moons(9, noise=0.1, random_state=theirs)[0])


def test_make_moons_without_scikit_learn():
    """What must hold whatever the reference says: two half circles, mixed, and one seed one result."""
    X, y = make_moons(101, random_state=1)
    assert (X.shape, X.dtype, y.shape) == ((101, 2), np.float64, (101,))
    assert (np.sum(y == 0), np.sum(y == 1)) == (50, 51)
    outer, inner = X[y == 0], X[y == 1]
    assert np.allclose(np.hypot(*outer.T), 1) and (outer[:, 1] >= 0).all()
    assert np.allclose(np.hypot(*(inner - [1, 0.5]).T), 1) and (inner[:, 1] <= 0.5).all()
    assert 10 < np.sum(y[1:] != y[:-1]) < 90
    assert identical(X, make_moons(101, random_state=1)[0])
    assert not identical(X, make_moons(101, random_state=2)[0])


def test_noise_is_added_with_its_standard_deviation():
    clean, _ = make_moons(2000, shuffle=False)
    noisy, _ = make_moons(2000, shuffle=False, noise=0.3, random_state=0)
    assert np.std(noisy - clean) == pytest.approx(0.3, rel=0.05)


def test_without_a_seed_numpys_global_generator_is_drawn_from():
    state = np.random.get_state()
    try:
        np.random.seed(5)
        X, _ = make_moons(10, noise=0.1)
    finally:
        np.random.set_state(state)
    assert identical(X, make_moons(10, noise=0.1, random_state=5)[0])


@pytest.mark.parametrize("arguments, error, message", [
    (dict(n_samples=0), ValueError, "n_samples: expected 1 or more, got 0"),
    (dict(n_samples=-3), ValueError, "n_samples: expected 1 or more, got -3"),
    (dict(n_samples=(3, -1)), ValueError, "n_samples: expected counts of 0 or more, got (3, -1)"),
    (dict(n_samples=10.0), TypeError, "n_samples: expected an int or a pair of ints, got 10.0"),
    (dict(n_samples=(1, 2, 3)), TypeError, "n_samples: expected an int or a pair of ints, got (1, 2, 3)"),
    (dict(n_samples=(1.5, 2)), TypeError, "n_samples: expected an int or a pair of ints, got (1.5, 2)"),
    (dict(shuffle="no"), TypeError, "shuffle: expected True or False, got 'no'"),
    (dict(noise="0.1"), TypeError, "noise: expected a finite number, 0 or more, got '0.1'"),
    (dict(noise=-0.1), ValueError, "noise: expected a finite number, 0 or more, got -0.1"),
    (dict(noise=math.nan), ValueError, "noise: expected a finite number, 0 or more, got nan"),
    (dict(noise=math.inf), ValueError, "noise: expected a finite number, 0 or more, got inf"),
    (dict(random_state=-1), ValueError, "random_state: expected 0 to 2**32 - 1, got -1"),
    (dict(random_state=2**32), ValueError, "random_state: expected 0 to 2**32 - 1, got 4294967296"),
    (dict(random_state=1.0), TypeError,
     "random_state: expected an int, a numpy.random.RandomState or None, got 1.0"),
], ids=str)
def test_make_moons_refuses(arguments, error, message):
    with pytest.raises(error) as info:
        make_moons(**arguments)
    assert str(info.value) == message
    assert isinstance(info.value, FlatgradError)


# ---- make_circles ----

@pytest.mark.parametrize("n_samples", SIZES, ids=str)
def test_make_circles_is_scikit_learns(n_samples):
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    for shuffle, noise, seed, factor in itertools.product((True, False), (None, 0.0, 0.1), (0, 1337), (0, 0.3, 0.8)):
        arguments = dict(shuffle=shuffle, noise=noise, random_state=seed, factor=factor)
        theirs = sklearn_datasets.make_circles(n_samples, **arguments)
        ours = make_circles(n_samples, **arguments)
        assert identical(ours[0], theirs[0]) and identical(ours[1], theirs[1]), arguments


def test_the_arguments_are_scikit_learns():
    sklearn = pytest.importorskip("sklearn")
    for ours, theirs in ((make_moons, sklearn.datasets.make_moons), (make_circles, sklearn.datasets.make_circles),
                         (train_test_split, sklearn.model_selection.train_test_split)):
        signatures = [[(p.name, p.kind, p.default) for p in inspect.signature(f).parameters.values()]
                      for f in (ours, inspect.unwrap(theirs))]
        assert signatures[0] == signatures[1]


def test_make_circles_without_scikit_learn():
    X, y = make_circles(101, factor=0.25, random_state=1)
    assert (np.sum(y == 0), np.sum(y == 1)) == (50, 51)
    assert np.allclose(np.hypot(*X.T), np.where(y == 0, 1, 0.25))
    assert len(np.unique(X.round(9), axis=0)) == 101  # the end of a circle is not its start again


# ---- spirals, XOR, parity, sums ----

@pytest.mark.parametrize("n_samples, n_classes, sizes", [
    (100, 2, [50, 50]), (100, 3, [33, 33, 34]), (11, 4, [2, 3, 3, 3]), (3, 3, [1, 1, 1]),
], ids=str)
def test_make_spirals(n_samples, n_classes, sizes):
    turns = 1.25
    X, y = make_spirals(n_samples, n_classes, turns=turns, shuffle=False)
    assert (X.dtype, X.shape, y.dtype) == (np.float64, (n_samples, 2), np.intp)
    assert np.bincount(y).tolist() == sizes and (np.diff(y) >= 0).all()
    for k in range(n_classes):
        arm = X[y == k]
        expected = [(r * math.cos(t), r * math.sin(t)) for r in (np.arange(sizes[k]) + 1) / sizes[k]
                    for t in [2 * math.pi * (turns * r + k / n_classes)]]
        assert np.allclose(arm, expected, rtol=0, atol=1e-14)


def test_make_spirals_draws_a_permutation_then_noise():
    clean, y_clean = make_spirals(600, 3, shuffle=False)
    mixed, y_mixed = make_spirals(600, 3, random_state=4)
    noisy, y_noisy = make_spirals(600, 3, random_state=4, noise=0.2)
    assert np.array_equal(y_mixed, y_noisy) and not np.array_equal(y_mixed, y_clean)
    assert sorted(map(tuple, mixed)) == sorted(map(tuple, clean))
    assert np.std(noisy - mixed) == pytest.approx(0.2, rel=0.1)
    assert identical(noisy, make_spirals(600, 3, random_state=4, noise=0.2)[0])
    assert not identical(noisy, make_spirals(600, 3, random_state=5, noise=0.2)[0])


def test_make_xor():
    X, y = make_xor()
    assert (X.dtype, y.dtype) == (np.float64, np.intp)
    assert [(int(a), int(b), c) for (a, b), c in zip(X.tolist(), y.tolist())] == [
        (a, b, a ^ b) for a in (0, 1) for b in (0, 1)]
    X, y = make_xor(signed=True)
    assert X.tolist() == [[-1, -1], [-1, 1], [1, -1], [1, 1]] and y.tolist() == [-1, 1, 1, -1]
    X, y = make_xor(4003, noise=0.1, random_state=0)
    corners = X.round().astype(int)
    assert np.bincount(2 * corners[:, 0] + corners[:, 1]).tolist() == [1001, 1001, 1001, 1000]
    assert np.array_equal(y, corners[:, 0] ^ corners[:, 1])
    assert np.std(X - corners) == pytest.approx(0.1, rel=0.05)
    assert identical(make_xor(4, noise=0.0, random_state=0)[0], make_xor()[0])


@pytest.mark.parametrize("n_bits", [1, 2, 3, 8])
def test_make_parity(n_bits):
    X, y = make_parity(n_bits)
    assert X.tolist() == [list(map(float, row)) for row in itertools.product((0, 1), repeat=n_bits)]
    assert y.tolist() == [row.count(1.0) % 2 for row in X.tolist()]
    signed, labels = make_parity(n_bits, signed=True)
    assert np.array_equal(signed, 2 * X - 1) and np.array_equal(labels, 2 * y - 1)
    assert (signed.dtype, labels.dtype, y.dtype) == (np.float64, np.intp, np.intp)
    assert np.array_equal(labels, -np.prod(-signed, axis=1))


def test_make_sum():
    X, y = make_sum(1000, 3, low=2, high=5, random_state=0)
    assert X.shape == (1000, 3) and (X >= 2).all() and (X < 5).all() and X.max() > 4.9 and X.min() < 2.1
    assert np.allclose(y, X[:, 0] + X[:, 1] + X[:, 2], rtol=1e-15)
    same, noisy = make_sum(1000, 3, low=2, high=5, noise=0.5, random_state=0)
    assert identical(X, same)
    assert np.std(noisy - y) == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("call, error, message", [
    (lambda: make_circles(factor=1.0), ArgumentError, "factor: expected a number from 0 to below 1, got 1.0"),
    (lambda: make_circles(factor=-0.1), ArgumentError, "factor: expected a number from 0 to below 1, got -0.1"),
    (lambda: make_circles(0), ArgumentError, "n_samples: expected 1 or more, got 0"),
    (lambda: make_circles(noise="a"), ArgumentTypeError, "noise: expected a finite number, 0 or more, got 'a'"),
    (lambda: make_spirals(2, 3), ArgumentError, "n_samples: expected one for each of the 3 classes at least, got 2"),
    (lambda: make_spirals(10, 1), ArgumentError, "n_classes: expected an int, 2 or more, got 1"),
    (lambda: make_spirals((5, 5)), ArgumentTypeError, "n_samples: expected an int, 1 or more, got (5, 5)"),
    (lambda: make_spirals(turns=math.inf), ArgumentError, "turns: expected a finite number, got inf"),
    (lambda: make_xor(0), ArgumentError, "n_samples: expected an int, 1 or more, got 0"),
    (lambda: make_xor(noise=-1), ArgumentError, "noise: expected a finite number, 0 or more, got -1"),
    (lambda: make_xor(signed=1), ArgumentTypeError, "signed: expected True or False, got 1"),
    (lambda: make_parity(0), ArgumentError, "n_bits: expected an int, 1 or more, got 0"),
    (lambda: make_parity(64), ArgumentError, "n_bits: expected 1 to 20, got 64: there are 2**64 rows"),
    (lambda: make_parity(2.0), ArgumentTypeError, "n_bits: expected an int, 1 or more, got 2.0"),
    (lambda: make_sum(10, low=1, high=1), ArgumentError, "high: expected a number above low=1, got 1"),
    (lambda: make_sum(10, low=-1e308, high=1e308), ArgumentError,
     "high: expected a number above low=-1e+308, got 1e+308"),
    (lambda: make_sum(10, 0), ArgumentError, "n_features: expected an int, 1 or more, got 0"),
    (lambda: make_sum(random_state="x"), ArgumentTypeError,
     "random_state: expected an int, a numpy.random.RandomState or None, got 'x'"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_makers_refuse(call, error, message):
    state = np.random.get_state()[1].tolist()
    with pytest.raises(error) as info:
        call()
    assert str(info.value) == message
    assert np.random.get_state()[1].tolist() == state


# ---- train_test_split ----

SPLIT_SIZES = [(None, None), (0.25, None), (0.01, None), (0.9, None), (None, 0.5), (0.3, 0.3), (7, None), (None, 7),
               (5, 6), (0.3, 12), (1, 1)]


@pytest.mark.parametrize("sizes", SPLIT_SIZES, ids=str)
@pytest.mark.parametrize("shuffle", [True, False])
def test_train_test_split_is_scikit_learns(sizes, shuffle):
    theirs = pytest.importorskip("sklearn.model_selection").train_test_split
    X, y = np.random.default_rng(0).normal(size=(37, 3)), list(range(37))
    for seed in range(5):
        arguments = dict(test_size=sizes[0], train_size=sizes[1], shuffle=shuffle, random_state=seed)
        ours, expected = train_test_split(X, y, **arguments), theirs(X, y, **arguments)
        assert len(ours) == 4 and [type(part) for part in ours] == [np.ndarray, np.ndarray, list, list]
        for a, b in zip(ours, expected):
            assert np.array_equal(a, b), arguments


LABELS = np.random.RandomState(7).permutation(np.repeat([0, 1, 2, 3, 5], [2, 3, 10, 10, 40]))


@pytest.mark.parametrize("sizes", [(None, None), (0.5, None), (5, None), (None, 5), (0.3, 0.3), (7, 9), (32, 33)],
                         ids=str)
@pytest.mark.parametrize("labels", [LABELS, LABELS * 0.5 - 1, np.array(list("zyxwvu"))[LABELS], LABELS.tolist()],
                         ids=["ints", "floats", "text", "list"])
def test_stratified_splits_are_scikit_learns(sizes, labels):
    theirs = pytest.importorskip("sklearn.model_selection").train_test_split
    order = np.arange(len(LABELS))
    for seed in range(10):
        arguments = dict(test_size=sizes[0], train_size=sizes[1], stratify=labels, random_state=seed)
        for a, b in zip(train_test_split(order, **arguments), theirs(order, **arguments)):
            assert np.array_equal(a, b), arguments


def test_train_test_split_draws_from_the_generator_it_is_given():
    theirs = pytest.importorskip("sklearn.model_selection").train_test_split
    a, b = np.random.RandomState(3), np.random.RandomState(3)
    for stratify in None, LABELS, None:
        assert np.array_equal(train_test_split(LABELS, stratify=stratify, random_state=a)[1],
                              theirs(LABELS, stratify=stratify, random_state=b)[1])


def test_train_test_split_without_scikit_learn():
    X, y = np.arange(80).reshape(40, 2), np.arange(40)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0)
    assert (len(X_train), len(X_test)) == (28, 12)
    assert np.array_equal(X_train[:, 0], 2 * y_train) and np.array_equal(X_test[:, 0], 2 * y_test)
    assert sorted([*y_train, *y_test]) == list(range(40)) and list(y_train) != sorted(y_train)
    assert not np.array_equal(y_test, train_test_split(y, test_size=0.3, random_state=1)[1])
    X_train[:] = 0   # a copy
    assert X.max() == 79
    train, test = train_test_split(LABELS, test_size=0.5, stratify=LABELS, random_state=0)
    assert (abs(np.bincount(train) - np.bincount(test)) <= 1).all()


def test_train_test_split_of_a_tensor_and_a_table():
    t = Tensor(np.arange(12.0).reshape(6, 2))
    train, test, rows = train_test_split(t, np.arange(6), random_state=0)[:3]
    assert isinstance(train, Tensor) and np.array_equal(train.data[:, 0], 2 * rows) and test.shape == (2, 2)
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": range(6)})
    assert train_test_split(table, random_state=0)[0]["a"].tolist() == rows.tolist()


FITTING = "test_size, train_size: expected one sample for either at least, and {0}, which there are, for both at most, "
COUNTED = "expected a share between 0 and 1 or a number of samples from 1 to 9, got "


@pytest.mark.parametrize("arrays, arguments, error, message", [
    ([], {}, ArgumentTypeError, "arrays: expected one at least, such as X, got none"),
    ([3], {}, ArgumentTypeError, "arrays[0]: expected samples in an array or a list, got 3"),
    ([range(10), range(9)], {}, ShapeError, "arrays: expected one length, got 10, 9"),
    ([[1]], {}, ArgumentError, FITTING.format(1) + "got 0.25 and None: 1 and 0"),
    ([range(10)], dict(test_size=0.0), ArgumentError, "test_size: " + COUNTED + "0.0"),
    ([range(10)], dict(test_size=1.0), ArgumentError, "test_size: " + COUNTED + "1.0"),
    ([range(10)], dict(test_size=10), ArgumentError, "test_size: " + COUNTED + "10"),
    ([range(10)], dict(train_size=0), ArgumentError, "train_size: " + COUNTED + "0"),
    ([range(10)], dict(train_size=math.nan), ArgumentError, "train_size: " + COUNTED + "nan"),
    ([range(10)], dict(train_size="all"), ArgumentTypeError, "train_size: " + COUNTED + "'all'"),
    ([range(10)], dict(train_size=0.01), ArgumentError, FITTING.format(10) + "got None and 0.01: 10 and 0"),
    ([range(10)], dict(test_size=6, train_size=6), ArgumentError, FITTING.format(10) + "got 6 and 6: 6 and 6"),
    ([range(10)], dict(shuffle="no"), ArgumentTypeError, "shuffle: expected True or False, got 'no'"),
    ([range(10)], dict(shuffle=False, stratify=[0, 1] * 5), ArgumentError,
     "stratify: expected None with shuffle=False, got labels"),
    ([range(10)], dict(stratify=[0, 1]), ShapeError,
     "stratify: expected the shape (10,), a label for each sample, got (2,)"),
    ([range(10)], dict(stratify=[0.0, 1.0, math.nan] * 3 + [0.0]), DataError, "stratify: expected labels, got nan"),
    ([range(10)], dict(stratify=[0] * 9 + [4]), DataError,
     "stratify: expected two samples of each label at least, got one of 4"),
    ([range(10)], dict(stratify=[0, 1, 2, 3, 4] * 2), ArgumentError,
     "test_size: expected 5 samples at least, as there are labels, got 3"),
    ([range(10)], dict(stratify=[0, 1, 2, 3, 4] * 2, train_size=4), ArgumentError,
     "train_size: expected 5 samples at least, as there are labels, got 4"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_train_test_split_refuses(arrays, arguments, error, message):
    with pytest.raises(error) as info:
        train_test_split(*arrays, **arguments)
    assert str(info.value) == message


# ---- read_csv ----

X = [[1.5, -2.0], [0.25, 3.0]]
Y = [-1.0, 1.0]


@pytest.mark.parametrize("content", [
    "x,y,label\n1.5,-2,-1\n0.25,3,1\n",
    "x,y,label\n1.5,-2,0\n0.25,3,1",
    "x,y,label\r\n1.5,-2,-1.0\r\n0.25,3,1.0\r\n",
    "x,y,label\r1.5,-2,-1\r0.25,3,+1\r",
    "label,name,y,x\n-1,a,-2,1.5\n1,,3,0.25\n",
    ' x , y,label \n 1.5 ,\t-2,-1e0\n0.25,3 , 1\n',
    '"x","y","label"\n"1.5","-2","-1"\n".25","3e0","1"\n',
    "\ufeffx,y,label\n1.5,-2,-1\n0.25,3,1\n",
    '\ufeff"x",y,label\n1.5,-2,-1\n0.25,3,1\n',
    "\n\nx,y,label\n\n1.5,-2,-1\n   \n0.25,3,1\n\n",
    "x,y,label,\n1.5,-2,-1,\n0.25,3,1,,\n",
    'x,y,label,note\n1.5,-2,-1,"two\nlines, and a comma"\n0.25,3,1,na\u00efve\n',
], ids=repr)
def test_read_csv(tmp_path, content):
    path = tmp_path / "samples.csv"
    path.write_bytes(content.encode("utf-8"))
    for name in path, str(path):
        x, y = read_csv(name)
        assert (x.dtype, y.dtype) == (np.float64, np.float64)
        assert (x.tolist(), y.tolist()) == (X, Y)


GOOD = "x,y,label\n1,2,1\n3,4,-1\n"
BAD = [
    ("", "empty, expected a header with x, y and label"),
    ("\n \n", "empty, expected a header with x, y and label"),
    ("x,y,label\n", "line 1: no samples below the header"),
    ("x,y\n1,2\n", "line 1: no column label, expected x, y and label between commas, got 'x, y'"),
    ("X,y,label\n1,2,1\n", "line 1: no column x, expected x, y and label between commas, got 'X, y, label'"),
    ("1,2,1\n3,4,-1\n", "line 1: no column x, expected x, y and label between commas, got '1, 2, 1'"),
    ("x;y;label\n1;2;1\n", "line 1: no column x, expected x, y and label between commas, got 'x;y;label'"),
    ("x,y,label,y\n1,2,1,2\n", "line 1: column y is there 2 times, expected once"),
    (GOOD + "a,2,1\n", "line 4, column x: expected a number, got 'a'"),
    (GOOD + "1,1_0,1\n", "line 4, column y: expected a number, got '1_0'"),
    (GOOD + "1,0x10,1\n", "line 4, column y: expected a number, got '0x10'"),
    (GOOD + "1,2,yes\n", "line 4, column label: expected a number, got 'yes'"),
    (GOOD + "\n\n1,nan,1\n", "line 6, column y: expected a finite number, got 'nan'"),
    (GOOD + "-inf,2,1\n", "line 4, column x: expected a finite number, got '-inf'"),
    (GOOD + "1e999,2,1\n", "line 4, column x: expected a finite number, got '1e999'"),
    (GOOD + "1,2,NaN\n", "line 4, column label: expected a finite number, got 'NaN'"),
    (GOOD + "1,,1\n", "line 4, column y: missing, expected a number"),
    (GOOD + ",,\n", "line 4, column x: missing, expected a number"),
    (GOOD + "1,2\n", "line 4, column label: missing, expected a number"),
    (GOOD + "1\n", "line 4, column y: missing, expected a number"),
    (GOOD + "1,5,2,1\n", "line 4: 4 cells, but the header has 3 columns"),
    (GOOD + "1,2,2\n", "line 4, column label: expected -1 or 1, or 0 or 1, got 2.0"),
    (GOOD + "1,2,0.99999999\n", "line 4, column label: expected -1 or 1, or 0 or 1, got 0.99999999"),
    (GOOD + "1,2,0\n", "line 4, column label: 0, but -1 on line 3: expected -1 and 1, or 0 and 1"),
    ("x,y,label\n1,2,0\n\n1,2,-1\n",
     "line 4, column label: -1, but 0 on line 2: expected -1 and 1, or 0 and 1"),
    ("x,y,label\n1,2,1\n3,4,1.0\n",
     "line 3, column label: 1, as in all the file, expected samples of both classes"),
    ("x,y,label\n1,2,0\n", "line 2, column label: 0, as in all the file, expected samples of both classes"),
    ('x,y,label,n\n1,2,1,"a\nb"\nc,4,-1,\n', "line 4, column x: expected a number, got 'c'"),
    (GOOD + '"1,2,1\n3,4,-1\n', r"line 4, column x: expected a number, got '1,2,1\n3,4,-1'"),
    (GOOD + "z" * 100 + ",2,1\n", f"line 4, column x: expected a number, got '{'z' * 37}...'"),
    (GOOD + "z" * 200_000 + ",2,1\n", "line 4: field larger than field limit (131072)"),
    (GOOD.encode("utf-16"), "line 1: not text in UTF-8"),
    (GOOD.encode() + b"1,2,\xe9\n", "line 4: not text in UTF-8"),
    (GOOD.encode() + b"1,2,\0\n", "line 4: not text, it has a zero byte"),
    (b"\x89PNG\r\n\x1a\n\0\0", "line 1: not text in UTF-8"),
]


@pytest.mark.parametrize("content, message", BAD, ids=[message[:60] for _, message in BAD])
def test_read_csv_refuses(tmp_path, content, message):
    path = tmp_path / "samples.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    with pytest.raises(ValueError) as info:
        read_csv(path)
    assert str(info.value) == f"{path}: {message}"
    assert "\n" not in str(info.value)


def test_the_file_that_the_refusals_spoil_is_good(tmp_path):
    path = tmp_path / "samples.csv"
    path.write_text(GOOD)
    assert read_csv(path)[1].tolist() == [1, -1]


def test_read_csv_of_what_cannot_be_opened(tmp_path):
    for path in tmp_path / "nowhere.csv", tmp_path:
        with pytest.raises(OSError) as info:
            read_csv(path)
        assert info.value.filename == str(path)
    for path in 0, None, ["a.csv"]:  # 0 would be standard input
        with pytest.raises(TypeError):
            read_csv(path)


def test_a_file_name_cannot_break_the_line(tmp_path):
    path = tmp_path / "two\nlines.csv"
    try:
        path.write_text("")
    except OSError:
        pytest.skip("no such file names here")
    with pytest.raises(ValueError) as info:
        read_csv(path)
    assert "\n" not in str(info.value) and r"two\nlines.csv" in str(info.value)


# ---- read_csv of other columns ----

FLOWERS = "width,kind,note,length\n3.5,rose,a,5.1\n3,lily,,4.9\n2.2,rose,b,6\n"


def written(tmp_path, content):
    path = tmp_path / "samples.csv"
    path.write_text(content, "utf-8")
    return path


def test_read_csv_of_columns(tmp_path):
    path = written(tmp_path, FLOWERS)
    X, y = read_csv(path, "kind", ["length", "width"])
    assert X.dtype == np.float64 and X.tolist() == [[5.1, 3.5], [4.9, 3.0], [6.0, 2.2]]
    assert y.dtype.kind == "U" and y.tolist() == ["rose", "lily", "rose"]
    X, y = read_csv(path, target="length", features=("width",))
    assert X.tolist() == [[3.5], [3.0], [2.2]] and y.dtype == np.float64 and y.tolist() == [5.1, 4.9, 6.0]


@pytest.mark.parametrize("content, arguments", [
    ("a,b,c\n1,2,0\n3,4,2\n", {}),
    ("c,a,b\n0,1,2\n2,3,4\n", {}),
    ("a;b;c\n1;2;0\n3;4;2\n", dict(delimiter=";")),
    ("a\tb\tc\n1\t2\t0\n3\t4\t2\n", dict(delimiter="\t")),
    ("\ufeff a , b,c,\r\n\r\n1,2,+0,\r\n3,4e0,2.0,,\r\n", {}),
], ids=repr)
def test_all_other_columns_are_features(tmp_path, content, arguments):
    X, y = read_csv(written(tmp_path, content), target="c", **arguments)
    assert X.tolist() == [[1, 2], [3, 4]] and y.tolist() == [0, 2]


def test_the_two_classes_may_have_another_delimiter(tmp_path):
    x, y = read_csv(written(tmp_path, "x;y;label\n1.5;-2;0\n0.25;3;1\n"), delimiter=";")
    assert (x.tolist(), y.tolist()) == (X, Y)
    with pytest.raises(DataError, match="no column x, expected x, y and label between ';', got 'x,y,label'"):
        read_csv(written(tmp_path, GOOD), delimiter=";")


def test_names_of_classes_sort_into_labels(tmp_path):
    names, y = np.unique(read_csv(written(tmp_path, FLOWERS), "kind", ["width"])[1], return_inverse=True)
    assert names.tolist() == ["lily", "rose"] and y.tolist() == [1, 0, 1]


@pytest.mark.parametrize("content, arguments, message", [
    ("", {}, "empty, expected a header with the names of the columns"),
    ("a,c\n", {}, "line 1: no samples below the header"),
    ("a,b\n1,2\n", {}, "line 1: expected one column 'c', there are 'a, b'"),
    ("a,c,c\n1,2,3\n", {}, "line 1: expected one column 'c', it is there 2 times"),
    ("a,a,c\n1,2,3\n", {}, "line 1: expected one column 'a', it is there 2 times"),
    ("a,c\n1,2\n", dict(features=["b"]), "line 1: expected one column 'b', there are 'a, c'"),
    ("c,\n1,\n", {}, "line 1: no column but 'c', expected features"),
    ("a,c\n1,2\nx,3\n", {}, "line 3, column a: expected a number, got 'x'"),
    ("a,c\n1,2\nnan,3\n", {}, "line 3, column a: expected a finite number, got 'nan'"),
    ("a,c\n1,2\n1,l2\n", {}, "line 3, column c: expected a number, got 'l2'"),
    ("a,c\n1,nan\n", {}, "line 2, column c: expected a finite number, got 'nan'"),
    ("a,c\n1,x\n\n1,\n", {}, "line 4, column c: missing, expected a label"),
    ("a,c\n1\n", {}, "line 2, column c: missing, expected a label"),
    ("a,c\n1,2,3\n", {}, "line 2: 3 cells, but the header has 2 columns"),
], ids=repr)
def test_read_csv_of_columns_refuses(tmp_path, content, arguments, message):
    path = written(tmp_path, content)
    with pytest.raises(DataError) as info:
        read_csv(path, target="c", **arguments)
    assert str(info.value) == f"{path}: {message}"


@pytest.mark.parametrize("arguments, error, message", [
    (dict(target=2), ArgumentTypeError, "target: expected the name of a column, got 2"),
    (dict(features=["x"]), ArgumentError, "features: expected None without target, got ['x']"),
    (dict(target="label", features="x"), ArgumentTypeError, "features: expected a list of names of columns, got 'x'"),
    (dict(target="label", features=[0, 1]), ArgumentTypeError,
     "features: expected a list of names of columns, got [0, 1]"),
    (dict(target="label", features=["x", "x"]), ArgumentError,
     "features: expected names, each once and none of them target='label', got ['x', 'x']"),
    (dict(target="label", features=["label"]), ArgumentError,
     "features: expected names, each once and none of them target='label', got ['label']"),
    (dict(target="label", features=[]), ArgumentError,
     "features: expected names, each once and none of them target='label', got []"),
    (dict(delimiter=""), ArgumentError,
     "delimiter: expected one character, and no quotation mark or line break, got ''"),
    (dict(delimiter="\n"), ArgumentError,
     "delimiter: expected one character, and no quotation mark or line break, got '\\n'"),
    (dict(delimiter=None), ArgumentTypeError, "delimiter: expected one character, got None"),
], ids=repr)
def test_read_csv_refuses_arguments(tmp_path, arguments, error, message):
    with pytest.raises(error) as info:
        read_csv(written(tmp_path, GOOD), **arguments)
    assert str(info.value) == message
