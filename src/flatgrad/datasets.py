"""Data sets: generated samples, and samples from a CSV file; and a split into training and test samples.

This module does not use Value. Samples are NumPy arrays `X`, `(n_samples, n_features)`, and `y`, `(n_samples,)`.
"""
from __future__ import annotations

import csv
import io
import math
import operator
import os
from typing import TYPE_CHECKING

import numpy as np

from flatgrad.arguments import array_of_numbers, finite, flag, non_negative, within, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from numpy.typing import ArrayLike, NDArray

    from flatgrad._core import _Path, _Rng

    _Labelled = tuple[NDArray[np.float64], NDArray[np.int64]]

__all__ = ["make_circles", "make_moons", "make_parity", "make_spirals", "make_sum", "make_xor", "read_csv",
           "train_test_split"]

COLUMNS = ("x", "y", "label")
MOST_BITS = 20   # of make_parity: 2**20 is a million rows


def make_moons(n_samples: int | tuple[int, int] = 100, *, shuffle: bool = True, noise: float | None = None,
               random_state: int | np.random.RandomState | None = None) -> _Labelled:
    """Two interleaving half circles; the numbers equal those of scikit-learn's function of this name.

    Parameters
    ----------
    n_samples : int or pair of int, optional
        The number of samples, of which the outer moon gets the smaller half. A pair gives the numbers of the outer
        and of the inner moon.
    shuffle : bool, optional
        Whether the samples come in random order. If not, the samples of the outer moon come first.
    noise : float, optional
        Standard deviation of the Gaussian noise added to every coordinate, in the units of the
        circles' radius, which is 1. With None there is no noise, and no random draw for it.
    random_state : int or numpy.random.RandomState, optional
        Seed, from 0 to 2**32 - 1, or a generator. None uses NumPy's global generator, which `numpy.random.seed`
        seeds.

    Returns
    -------
    X : ndarray of float64, shape (n_samples, 2)
    y : ndarray of int, shape (n_samples,)
        0 for the outer moon, 1 for the inner.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described.

    Notes
    -----
    The outer moon is (cos t, sin t) and the inner one (1 - cos t, 1/2 - sin t), each for t evenly
    spaced over [0, pi], both ends included. The function draws one permutation, then the noise. For equal
    arguments and one version of NumPy the result equals scikit-learn's.

    Examples
    --------
    >>> from flatgrad.datasets import make_moons
    >>> X, y = make_moons(4, shuffle=False)
    >>> y
    array([0, 0, 1, 1])
    >>> X[y == 0].round(3).tolist()
    [[1.0, 0.0], [-1.0, 0.0]]
    """
    n_outer, n_inner = two_sizes(n_samples)
    mix = Mixer(shuffle, noise, random_state)
    t_outer, t_inner = np.linspace(0, np.pi, n_outer), np.linspace(0, np.pi, n_inner)
    # The inner y is 1 - sin t - 0.5, in this order, so that the last bit agrees with scikit-learn's.
    outer = np.column_stack([np.cos(t_outer), np.sin(t_outer)])
    inner = np.column_stack([1 - np.cos(t_inner), 1 - np.sin(t_inner) - 0.5])
    return mix(np.concatenate([outer, inner]), labels_of([n_outer, n_inner]))


def make_circles(n_samples: int | tuple[int, int] = 100, *, shuffle: bool = True, noise: float | None = None,
                 random_state: int | np.random.RandomState | None = None, factor: float = 0.8) -> _Labelled:
    """A circle around a smaller one; the numbers equal those of scikit-learn's function of this name.

    Parameters
    ----------
    n_samples : int or pair of int, optional
        The number of samples, of which the outer circle gets the smaller half. A pair gives the numbers of the outer
        and of the inner circle.
    shuffle : bool, optional
        Whether the samples come in random order. If not, the samples of the outer circle come first.
    noise : float, optional
        Standard deviation of the Gaussian noise added to every coordinate, in the units of the outer
        circle's radius, which is 1. With None there is no noise, and no random draw for it.
    random_state : int or numpy.random.RandomState, optional
        As for `make_moons`.
    factor : float, optional
        Radius of the inner circle, from 0 to below 1.

    Returns
    -------
    X : ndarray of float64, shape (n_samples, 2)
    y : ndarray of int, shape (n_samples,)
        0 for the outer circle, 1 for the inner.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described.

    Notes
    -----
    The circles are r (cos t, sin t) for t evenly spaced over [0, 2 pi), without 2 pi. The function draws one
    permutation, then the noise. For equal arguments and one version of NumPy the result equals scikit-learn's.

    Examples
    --------
    >>> from flatgrad.datasets import make_circles
    >>> X, y = make_circles(8, shuffle=False, factor=0.5)
    >>> X[y == 1].round(3).tolist()
    [[0.5, 0.0], [0.0, 0.5], [-0.5, 0.0], [-0.0, -0.5]]
    """
    n_outer, n_inner = two_sizes(n_samples)
    factor = within("factor", factor, 0.0, 1.0)
    mix = Mixer(shuffle, noise, random_state)
    t_outer, t_inner = (np.linspace(0, 2 * np.pi, n, endpoint=False) for n in (n_outer, n_inner))
    outer = np.column_stack([np.cos(t_outer), np.sin(t_outer)])
    inner = np.column_stack([np.cos(t_inner), np.sin(t_inner)]) * factor
    return mix(np.concatenate([outer, inner]), labels_of([n_outer, n_inner]))


def make_spirals(n_samples: int = 100, n_classes: int = 2, *, turns: float = 1.0, noise: float | None = None,
                 shuffle: bool = True, random_state: int | np.random.RandomState | None = None) -> _Labelled:
    """Spirals around one centre, one arm for each class.

    Parameters
    ----------
    n_samples : int, optional
        The number of samples, at least one for each class. If they do not divide evenly, the last classes have one
        sample more.
    n_classes : int, optional
        The number of arms, 2 or more.
    turns : float, optional
        The number of turns of an arm around the centre. 0 makes rays, a negative number turns clockwise.
    noise : float, optional
        Standard deviation of the Gaussian noise added to every coordinate, in the units of the outer
        radius, which is 1. With None there is no noise, and no random draw for it.
    shuffle : bool, optional
        Whether the samples come in random order. If not, they come class by class, from the centre outwards.
    random_state : int or numpy.random.RandomState, optional
        As for `make_moons`.

    Returns
    -------
    X : ndarray of float64, shape (n_samples, 2)
    y : ndarray of int, shape (n_samples,)
        From 0 to n_classes - 1.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described.

    Notes
    -----
    Of the m samples of class k, sample j is r (cos t, sin t) with r = (j + 1) / m and
    t = 2 pi (turns r + k / n_classes). This is Archimedes' spiral without its centre, where all arms meet.
    The function draws one permutation, then the noise.

    Examples
    --------
    >>> from flatgrad.datasets import make_spirals
    >>> X, y = make_spirals(4, 2, shuffle=False)
    >>> X.round(3).tolist(), y.tolist()
    ([[-0.5, 0.0], [1.0, -0.0], [0.5, -0.0], [-1.0, 0.0]], [0, 0, 1, 1])
    """
    n_classes = whole("n_classes", n_classes, 2)
    n_samples = whole("n_samples", n_samples, 1)
    if n_samples < n_classes:
        raise ArgumentError(f"n_samples: expected one for each of the {n_classes} classes at least, got {n_samples}")
    turns = finite("turns", turns)
    mix = Mixer(shuffle, noise, random_state)
    sizes = [(n_samples + k) // n_classes for k in range(n_classes)]
    radii = [np.arange(1, m + 1) / m for m in sizes]
    angles = np.concatenate([2 * np.pi * (turns * r + k / n_classes) for k, r in enumerate(radii)])
    X = np.concatenate(radii)[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
    return mix(X, labels_of(sizes))


def make_xor(n_samples: int | None = None, *, signed: bool = False, noise: float | None = None,
             random_state: int | np.random.RandomState | None = None) -> _Labelled:
    """The exclusive or of two bits: the four rows of its table, or many noisy samples.

    Parameters
    ----------
    n_samples : int, optional
        The number of samples; they repeat the four rows in order. None gives each row once.
    signed : bool, optional
        Whether the bits are -1 and 1, in `X` and `y`. If not, they are 0 and 1.
    noise : float, optional
        Standard deviation of the Gaussian noise added to every coordinate of `X`. With None there is no noise, and
        no random draw for it.
    random_state : int or numpy.random.RandomState, optional
        As for `make_moons`.

    Returns
    -------
    X : ndarray of float64, shape (n_samples, 2)
    y : ndarray of int, shape (n_samples,)
        1 if exactly one of the two bits is set, otherwise 0 (or -1).

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described.

    Examples
    --------
    >>> from flatgrad.datasets import make_xor
    >>> X, y = make_xor()
    >>> X.tolist(), y.tolist()
    ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0])
    """
    mix = Mixer(False, noise, random_state)
    X, y = make_parity(2, signed=signed)
    row = np.arange(4 if n_samples is None else whole("n_samples", n_samples, 1)) % 4
    return mix(X[row], y[row])


def make_parity(n_bits: int = 3, *, signed: bool = False) -> _Labelled:
    """All rows of n bits, each with the parity of its bits: whether an odd number of bits is set.

    Parameters
    ----------
    n_bits : int, optional
        From 1 to 20.
    signed : bool, optional
        Whether the bits are -1 and 1, in `X` and `y`. If not, they are 0 and 1.

    Returns
    -------
    X : ndarray of float64, shape (2**n_bits, n_bits)
        The numbers from 0 to 2**n_bits - 1 in base 2, highest bit first.
    y : ndarray of int, shape (2**n_bits,)
        1 if the number of set bits is odd, otherwise 0 (or -1).

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described.

    Examples
    --------
    >>> from flatgrad.datasets import make_parity
    >>> X, y = make_parity(3)
    >>> X[6].tolist(), y.tolist()
    ([1.0, 1.0, 0.0], [0, 1, 1, 0, 1, 0, 0, 1])
    >>> X, y = make_parity(3, signed=True)
    >>> X[6].tolist(), y.tolist()
    ([1.0, 1.0, -1.0], [-1, 1, 1, -1, 1, -1, -1, 1])
    """
    n_bits = whole("n_bits", n_bits, 1)
    if n_bits > MOST_BITS:
        raise ArgumentError(f"n_bits: expected 1 to {MOST_BITS}, got {n_bits}: there are 2**{n_bits} rows")
    signed = flag("signed", signed)
    bits = np.arange(2**n_bits)[:, None] >> np.arange(n_bits)[::-1] & 1
    y = (bits.sum(axis=1) % 2).astype(np.intp)
    return (2.0 * bits - 1.0, 2 * y - 1) if signed else (bits.astype(np.float64), y)


def make_sum(n_samples: int = 100, n_features: int = 2, *, low: float = -1.0, high: float = 1.0,
             noise: float | None = None,
             random_state: int | np.random.RandomState | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Samples of a linear function, the sum of the features: y = x1 + x2 by default.

    Parameters
    ----------
    n_samples, n_features : int, optional
        1 or more.
    low, high : float, optional
        The features are drawn uniformly from `low` to below `high`.
    noise : float, optional
        Standard deviation of the Gaussian noise added to `y`. With None there is no noise, and no random draw for it.
    random_state : int or numpy.random.RandomState, optional
        As for `make_moons`.

    Returns
    -------
    X : ndarray of float64, shape (n_samples, n_features)
    y : ndarray of float64, shape (n_samples,)

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described.

    Notes
    -----
    The function draws the features row by row, then the noise.

    Examples
    --------
    >>> from flatgrad.datasets import make_sum
    >>> X, y = make_sum(8, random_state=0)
    >>> X.shape, bool((y == X[:, 0] + X[:, 1]).all())
    ((8, 2), True)
    """
    shape = whole("n_samples", n_samples, 1), whole("n_features", n_features, 1)
    low, high = finite("low", low), finite("high", high)
    if not (low < high and math.isfinite(high - low)):
        raise ArgumentError(f"high: expected a number above low={low:g}, got {high:g}")
    mix = Mixer(False, noise, random_state)
    X = mix.rng.uniform(low, high, size=shape)
    y = X.sum(axis=1)
    return X, y if mix.noise is None else y + mix.rng.normal(scale=mix.noise, size=y.shape)


def train_test_split(*arrays: Any, test_size: float | None = None, train_size: float | None = None,
                     random_state: int | np.random.RandomState | None = None, shuffle: bool = True,
                     stratify: ArrayLike | None = None) -> list[Any]:
    """Split samples into a training part and a test part, as scikit-learn's function does.

    Parameters
    ----------
    *arrays : array, list, DataFrame or Tensor
        Arrays of one length along their first axis, such as `X` and `y`. All are split in the same way.
    test_size, train_size : float or int, optional
        The size of each part: a share between 0 and 1, rounded up for testing and down for training, or a number of
        samples. If one size is None, this part gets the samples that the other part leaves. If both are None, a
        quarter is for testing.
    random_state : int or numpy.random.RandomState, optional
        As for `make_moons`.
    shuffle : bool, optional
        Whether the samples are drawn at random, and come in random order. If not, the first samples are for training
        and the next ones for testing.
    stratify : array_like, shape (n_samples,), optional
        Labels; each part gets its share of each label. Each label needs at least two samples, and each part at least
        as many places as there are labels.

    Returns
    -------
    list
        For each array its training part and its test part: copies, or lists if the array is a list.

    Raises
    ------
    ArgumentTypeError
        If an argument is of another type than described.
    ArgumentError, ShapeError, DataError
        If a size, a length or the labels are not as described.

    Notes
    -----
    Without `stratify` the function draws a permutation of the samples: its beginning is for testing, and the rest
    for training. With `stratify`, each part gets its exact share of each label, rounded down. The labels with the
    largest remainders get one more sample each, until the part is full; a random draw decides between equal
    remainders. For equal arguments and one version of NumPy the split equals scikit-learn's.

    Examples
    --------
    >>> from flatgrad.datasets import make_moons, train_test_split
    >>> X, y = make_moons(100, noise=0.1, random_state=0)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=0)
    >>> X_train.shape, X_test.shape, int(y_train.sum()), int(y_test.sum())
    ((75, 2), (25, 2), 38, 12)
    """
    if not arrays:
        raise ArgumentTypeError("arrays: expected one at least, such as X, got none")
    lengths = [length_of(f"arrays[{k}]", array) for k, array in enumerate(arrays)]
    n = lengths[0]
    if set(lengths) != {n}:
        raise ShapeError(f"arrays: expected one length, got {', '.join(map(str, lengths))}")
    n_train, n_test = split_sizes(n, test_size, train_size)
    rng = generator(random_state)
    if not flag("shuffle", shuffle):
        if stratify is not None:
            raise ArgumentError("stratify: expected None with shuffle=False, got labels")
        train, test = np.arange(n_train), np.arange(n_train, n_train + n_test)
    elif stratify is None:
        order = rng.permutation(n)
        train, test = order[n_test:n_test + n_train], order[:n_test]
    else:
        train, test = stratified(stratify, n, n_train, n_test, rng)
    return [part for array in arrays for part in (picked(array, train), picked(array, test))]


def read_csv(path: _Path, target: str | None = None, features: Sequence[str] | None = None, *,
             delimiter: str = ",") -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Read samples from a CSV file: two classes in the columns x, y and label, or any columns by name.

    The first line names the columns, in any order. Other columns are ignored. So are white space around a cell,
    blank lines and a UTF-8 byte order mark. Without `target`, labels are -1 and 1, or 0 and 1, in any notation of
    these numbers (`1`, `1.0`, `+1`).

    Parameters
    ----------
    path : str or path-like
        A file in UTF-8.
    target : str, optional
        The column for `y`. With None, the columns x and y become `X`, and label becomes `y`.
    features : sequence of str, optional
        The columns for `X`, all of numbers, in this order. None takes all other columns that have a name, in the
        order of the file. Only with a `target`.
    delimiter : str, optional
        The character between two cells.

    Returns
    -------
    X : ndarray of float64, shape (n_samples, n_features)
    y : ndarray of float64, or of str, shape (n_samples,)
        Without `target`, -1.0 or 1.0; a label 0 becomes -1.0. With a `target`, numbers if the first sample has a
        number there, and otherwise the text of the cells. ``names, y = numpy.unique(y, return_inverse=True)`` turns
        either into labels from 0, and gives the names of the labels.

    Raises
    ------
    OSError
        If the file cannot be read.
    DataError
        If the file has another format. The message, one line, gives the place (file, line, column) and the expected
        content. Line 1 is the header.
    ArgumentTypeError, ArgumentError
        If an argument is not as described.

    Examples
    --------
    >>> import os, tempfile
    >>> from flatgrad.datasets import read_csv
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "points.csv")
    ...     with open(path, "w") as file:
    ...         _ = file.write("label,x,y\\n0,1.5,2\\n1,-3,0.25\\n")
    ...     X, y = read_csv(path)
    >>> X
    array([[ 1.5 ,  2.  ],
           [-3.  ,  0.25]])
    >>> y
    array([-1.,  1.])

    Other columns, and classes with names:

    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "flowers.csv")
    ...     with open(path, "w") as file:
    ...         _ = file.write("length,width,kind\\n5.1,3.5,rose\\n4.9,3,lily\\n6,2.2,rose\\n")
    ...     X, y = read_csv(path, target="kind")
    >>> names, y = np.unique(y, return_inverse=True)
    >>> X.shape, names.tolist(), y.tolist()
    ((3, 2), ['lily', 'rose'], [1, 0, 1])
    """
    path = os.fspath(path)
    file = shown_path(path)
    if target is not None and not isinstance(target, str):
        raise ArgumentTypeError(f"target: expected the name of a column, got {target!r}")
    if features is not None:
        if target is None:
            raise ArgumentError(f"features: expected None without target, got {features!r}")
        features = list(features) if isinstance(features, (list, tuple)) else features
        if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
            raise ArgumentTypeError(f"features: expected a list of names of columns, got {features!r}")
    records = read_records(path, file, separator(delimiter))
    try:
        line, header = next(records)
    except StopIteration:
        expected = "x, y and label" if target is None else "the names of the columns"
        raise DataError(f"{file}: empty, expected a header with {expected}") from None
    if target is None:
        return read_two_classes(file, line, header, records, delimiter)
    return read_columns(file, line, header, records, target, features)


def read_two_classes(file: str, line: int, header: list[str], records: Iterator[Any],
                     delimiter: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The result of `read_csv` for the columns x, y and label; `line` is the line of the header."""
    where = locate_columns(header, f"{file}: line {line}", "commas" if delimiter == "," else repr(delimiter))
    samples = []
    first = {}  # label: the line of its first sample
    for line, cells in records:
        at = f"{file}: line {line}"
        check_width(cells, header, at)
        x, y, label = (read_number(cells, where[name], f"{at}, column {name}") for name in COLUMNS)
        if label not in (-1, 0, 1):
            raise DataError(
                f"{at}, column label: expected -1 or 1, or 0 or 1, got {label!r}"
            )
        first.setdefault(label, line)
        if -1 in first and 0 in first:
            other = -1 if label == 0 else 0
            raise DataError(
                f"{at}, column label: {label:g}, but {other} on line {first[other]}: "
                "expected -1 and 1, or 0 and 1"
            )
        samples.append((x, y, label))

    if not samples:
        raise DataError(f"{file}: line {line}: no samples below the header")
    if len(first) == 1:
        raise DataError(
            f"{file}: line {line}, column label: {label:g}, as in all the file, "
            "expected samples of both classes"
        )
    table = np.array(samples)
    return table[:, :2].copy(), np.where(table[:, 2] > 0, 1.0, -1.0)


def read_columns(file: str, line: int, header: list[str], records: Iterator[Any], target: str,
                 features: list[str] | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """The result of `read_csv` for a target; `line` is the line of the header."""
    if features is None:
        features = [name for name in header if name and name != target]
        if not features:
            raise DataError(f"{file}: line {line}: no column but {short(target)}, expected features")
    elif not features or len(set(features)) < len(features) or target in features:
        raise ArgumentError(f"features: expected names, each once and none of them target={target!r}, got {features!r}")
    where_target, *where = (locate_column(header, name, f"{file}: line {line}") for name in [target, *features])
    X, y, numbers = [], [], None
    for line, cells in records:
        at = f"{file}: line {line}"
        check_width(cells, header, at)
        X.append([read_number(cells, k, f"{at}, column {name}") for k, name in zip(where, features)])
        if numbers is None:  # decided by the first sample: a single bad cell does not turn the column into text
            numbers = is_number(cells[where_target] if where_target < len(cells) else "")
        read = read_number if numbers else read_text
        y.append(read(cells, where_target, f"{at}, column {target}"))
    if not X:
        raise DataError(f"{file}: line {line}: no samples below the header")
    return np.array(X), np.array(y)


class Mixer:
    """Finishes generated samples: an optional permutation, then noise, from one generator."""

    shuffle: bool
    noise: float | None
    rng: Any

    def __init__(self, shuffle: bool, noise: float | None, random_state: int | np.random.RandomState | None) -> None:
        self.shuffle = flag("shuffle", shuffle)
        self.noise = None if noise is None else non_negative("noise", noise)
        self.rng = generator(random_state)

    def __call__(self, X: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        if self.shuffle:
            order = np.arange(len(X))
            self.rng.shuffle(order)
            X, y = X[order], y[order]
        if self.noise is not None:
            X += self.rng.normal(scale=self.noise, size=X.shape)
        return X, y


def labels_of(sizes: list[int]) -> NDArray[Any]:
    """The labels: 0 for the samples of the first class, and so on."""
    return np.repeat(np.arange(len(sizes), dtype=np.intp), sizes)


def two_sizes(n_samples: int | tuple[int, int]) -> tuple[int, int]:
    """(outer, inner) from the argument `n_samples` of `make_moons` and `make_circles`."""
    try:
        n = operator.index(n_samples)
    except TypeError:
        pass
    else:
        if n < 1:
            raise ArgumentError(f"n_samples: expected 1 or more, got {n_samples!r}")
        return n // 2, n - n // 2
    try:
        outer, inner = map(operator.index, n_samples)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"n_samples: expected an int or a pair of ints, got {n_samples!r}") from None
    if outer < 0 or inner < 0:
        raise ArgumentError(f"n_samples: expected counts of 0 or more, got {n_samples!r}")
    return outer, inner


def generator(random_state: int | np.random.RandomState | None) -> Any:
    """A generator with the methods of numpy.random.RandomState, from the argument `random_state`."""
    if random_state is None:
        return np.random
    if isinstance(random_state, np.random.RandomState):
        return random_state
    try:
        seed = operator.index(random_state)
    except TypeError:
        raise ArgumentTypeError("random_state: expected an int, a numpy.random.RandomState or None, "
                                f"got {random_state!r}") from None
    if not 0 <= seed < 2**32:
        raise ArgumentError(f"random_state: expected 0 to 2**32 - 1, got {random_state!r}")
    return np.random.RandomState(seed)


def length_of(name: str, array: NDArray[Any] | list[int]) -> int:
    """The number of samples in an array or list."""
    try:
        return len(array)
    except TypeError:
        raise ArgumentTypeError(f"{name}: expected samples in an array or a list, got {array!r}") from None


def picked(array: NDArray[Any] | list[int], order: NDArray[Any]) -> NDArray[Any] | list[int]:
    """The samples with the numbers `order`, in this order."""
    if hasattr(array, "iloc"):   # pandas
        return array.iloc[order]
    if hasattr(type(array), "to_numpy") and not hasattr(array, "shape") or hasattr(type(array), "column_names"):   # PyArrow
        return array.take(order)
    return array[order] if hasattr(array, "shape") else [array[k] for k in order]


def split_sizes(n: int, test_size: float | None, train_size: float | None) -> tuple[int, int]:
    """(n_train, n_test) from the arguments of `train_test_split`, for n samples."""
    if test_size is None and train_size is None:
        test_size = 0.25
    n_test = split_size("test_size", test_size, n, math.ceil)
    n_train = split_size("train_size", train_size, n, math.floor)
    n_test = n - n_train if n_test is None else n_test
    n_train = n - n_test if n_train is None else n_train
    if n_train < 1 or n_test < 1 or n_train + n_test > n:
        raise ArgumentError(f"test_size, train_size: expected one sample for either at least, and {n}, which there "
                            f"are, for both at most, got {test_size!r} and {train_size!r}: {n_test} and {n_train}")
    return n_train, n_test


def split_size(name: str, size: float | None, n: int, rounded: Callable[..., Any]) -> int | None:
    """The number of samples that a size stands for, out of n samples; or None."""
    if size is None:
        return None
    expected = f"a share between 0 and 1 or a number of samples from 1 to {n - 1}"
    try:
        count = whole(name, size, 1)
    except ArgumentTypeError:
        if not 0.0 < finite(name, size, expected) < 1.0:
            raise ArgumentError(f"{name}: expected {expected}, got {size!r}") from None
        return rounded(size * n)
    except ArgumentError:
        raise ArgumentError(f"{name}: expected {expected}, got {size!r}") from None
    if count >= n:
        raise ArgumentError(f"{name}: expected {expected}, got {size!r}")
    return count


def stratified(labels: NDArray[Any] | list[int], n: int, n_train: int, n_test: int,
               rng: _Rng) -> tuple[NDArray[Any], NDArray[Any]]:
    """The numbers of the training samples and of the test samples, each part with its share of each label."""
    labels = array_of_numbers(labels)
    if labels.shape != (n,):
        raise ShapeError(f"stratify: expected the shape ({n},), a label for each sample, got {labels.shape}")
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise DataError("stratify: expected labels, got nan")
    classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        raise DataError(f"stratify: expected two samples of each label at least, "
                        f"got one of {classes[counts.argmin()].item()!r}")
    for name, size in ("train_size", n_train), ("test_size", n_test):
        if size < len(classes):
            raise ArgumentError(f"{name}: expected {len(classes)} samples at least, as there are labels, got {size}")
    of_train = shares(counts, n_train, rng)
    of_test = shares(counts - of_train, n_test, rng)
    train, test = [], []
    for k in range(len(classes)):
        members = np.flatnonzero(codes == k)[rng.permutation(counts[k])]
        train.append(members[:of_train[k]])
        test.append(members[of_train[k]:of_train[k] + of_test[k]])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(test))


def shares(counts: NDArray[Any], size: int, rng: _Rng) -> NDArray[Any]:
    """The number of samples of each label in a part of `size` samples: the largest remainder method, with a
    random draw between equal remainders."""
    exact = counts / counts.sum() * size
    got = np.floor(exact)
    remainders = exact - got
    left = int(size - got.sum())
    for remainder in np.unique(remainders)[::-1]:
        if left <= 0:
            break
        equal = np.flatnonzero(remainders == remainder)
        # Drawn even if all of them get one, so that the generator makes the same draws as in scikit-learn.
        lucky = rng.choice(equal, size=min(len(equal), left), replace=False)
        got[lucky] += 1
        left -= len(lucky)
    return got.astype(np.intp)


def read_records(path: _Path, file: str, delimiter: str) -> Iterator[tuple[int, list[str]] | None]:
    """Yield (line number, stripped cells) of each record that is not blank."""
    with open(path, "rb") as stream:
        raw = stream.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}: line {line}: not text in UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{file}: line {line}: not text, it has a zero byte")

    reader = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)
    while True:
        line = reader.line_num + 1  # the line where the next record starts; a quoted cell may span lines
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{file}: line {line}: {error}") from None
        cells = [cell.strip() for cell in cells]
        if cells not in ([], [""]):
            yield line, cells


def locate_columns(header: list[str], at: str, separators: str) -> dict[str, int]:
    """{name: index} of the columns to read."""
    for name in COLUMNS:
        count = header.count(name)
        if count == 0:
            found = short(", ".join(header))
            raise DataError(
                f"{at}: no column {name}, expected x, y and label between {separators}, got {found}"
            )
        if count > 1:
            raise DataError(f"{at}: column {name} is there {count} times, expected once")
    return {name: header.index(name) for name in COLUMNS}


def locate_column(header: list[str], name: str, at: str) -> int:
    """The index of a column."""
    count = header.count(name)
    if count != 1:
        found = f"it is there {count} times" if count else f"there are {short(', '.join(header))}"
        raise DataError(f"{at}: expected one column {short(name)}, {found}")
    return header.index(name)


def check_width(cells: list[str], header: list[str], at: str) -> None:
    """Refuse a record with text beyond the last column."""
    if any(cells[len(header):]):
        raise DataError(f"{at}: {len(cells)} cells, but the header has {len(header)} columns")


def separator(delimiter: str) -> str:
    """The character between two cells."""
    if not isinstance(delimiter, str):
        raise ArgumentTypeError(f"delimiter: expected one character, got {delimiter!r}")
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise ArgumentError("delimiter: expected one character, and no quotation mark or line break, "
                            f"got {delimiter!r}")
    return delimiter


def is_number(cell: str) -> bool:
    """Whether a cell is written as a number, finite or not."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def read_text(cells: list[str], index: int, at: str) -> str:
    """The text in a cell."""
    if index >= len(cells) or not cells[index]:
        raise DataError(f"{at}: missing, expected a label")
    return cells[index]


def read_number(cells: list[str], index: int, at: str) -> float:
    """The finite float in a cell."""
    if index >= len(cells) or not cells[index]:
        raise DataError(f"{at}: missing, expected a number")
    cell = cells[index]
    try:
        if "_" in cell:  # float() takes 1_000, which is Python's notation and not usual in tables
            raise ValueError
        value = float(cell)
    except ValueError:
        raise DataError(f"{at}: expected a number, got {short(cell)}") from None
    if not math.isfinite(value):
        raise DataError(f"{at}: expected a finite number, got {short(cell)}")
    return value


def short(text: str) -> str:
    """`text` quoted, on one line, and cut to a length that fits a message."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def shown_path(path: _Path) -> str:
    """`path` as messages show it: quoted only if it has characters that do not print."""
    text = os.fsdecode(path)
    return text if text.isprintable() and text else repr(text)
