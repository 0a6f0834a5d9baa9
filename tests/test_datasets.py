"""The moons are scikit-learn's to the last bit; a CSV file is read whole or refused in one line."""
import math

import numpy as np
import pytest

from flatgrad.datasets import make_moons, read_csv

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
    (dict(noise="0.1"), TypeError, "noise: expected a number or None, got '0.1'"),
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
