"""Two-class samples in the plane: generated moons, or a CSV file.

Nothing here knows Value. Samples are NumPy arrays `X`, `(n_samples, 2)`, and `y`, `(n_samples,)`.
"""
import csv
import io
import math
import numbers
import operator
import os

import numpy as np

__all__ = ["make_moons", "read_csv"]

COLUMNS = ("x", "y", "label")


def make_moons(n_samples=100, *, shuffle=True, noise=None, random_state=None):
    """Two interleaving half circles, the numbers of scikit-learn's function of the same name.

    Parameters
    ----------
    n_samples : int or pair of int, optional
        Samples in all, of which the outer moon gets the smaller half; or in the outer and in the
        inner moon.
    shuffle : bool, optional
        Whether the samples come in random order, rather than the outer moon first.
    noise : float, optional
        Standard deviation of the Gaussian noise added to every coordinate, in the units of the
        circles' radius, which is 1. None adds none and draws nothing.
    random_state : int or numpy.random.RandomState, optional
        Seed, from 0 to 2**32 - 1, or the generator to draw from. None draws from NumPy's global
        one, which `numpy.random.seed` seeds.

    Returns
    -------
    X : ndarray of float64, shape (n_samples, 2)
    y : ndarray of int, shape (n_samples,)
        0 for the outer moon, 1 for the inner.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    The outer moon is (cos t, sin t) and the inner one (1 - cos t, 1/2 - sin t), each for t evenly
    spaced over [0, pi], both ends included. One permutation is drawn, then the noise. For one
    seed, one version of NumPy and the same arguments the result equals scikit-learn's.

    Examples
    --------
    >>> from flatgrad.datasets import make_moons
    >>> X, y = make_moons(4, shuffle=False)
    >>> y
    array([0, 0, 1, 1])
    >>> X[y == 0].round(3).tolist()
    [[1.0, 0.0], [-1.0, 0.0]]
    """
    n_outer, n_inner = moon_sizes(n_samples)
    if not isinstance(shuffle, (bool, np.bool_)):
        raise TypeError(f"shuffle: expected True or False, got {shuffle!r}")
    if noise is not None:
        if not isinstance(noise, numbers.Real):
            raise TypeError(f"noise: expected a number or None, got {noise!r}")
        if not 0 <= noise < math.inf:
            raise ValueError(f"noise: expected a finite number, 0 or more, got {noise!r}")
    rng = generator(random_state)

    t_outer, t_inner = np.linspace(0, np.pi, n_outer), np.linspace(0, np.pi, n_inner)
    # The inner y is 1 - sin t - 0.5, in this order: it fixes the last bit.
    outer = np.column_stack([np.cos(t_outer), np.sin(t_outer)])
    inner = np.column_stack([1 - np.cos(t_inner), 1 - np.sin(t_inner) - 0.5])
    X = np.concatenate([outer, inner])
    y = np.repeat(np.array([0, 1], dtype=np.intp), [n_outer, n_inner])
    if shuffle:
        order = np.arange(len(X))
        rng.shuffle(order)
        X, y = X[order], y[order]
    if noise is not None:
        X += rng.normal(scale=noise, size=X.shape)
    return X, y


def read_csv(path):
    """Samples from a CSV file with the columns x, y and label.

    The first line names the columns. They may come in any order and among others, which are
    ignored; white space around a cell, blank lines and a UTF-8 byte order mark are, too. Labels
    are -1 and 1, or 0 and 1, written as any number of that value (`1`, `1.0`, `+1`).

    Parameters
    ----------
    path : str or path-like
        A file in UTF-8, cells separated by commas.

    Returns
    -------
    X : ndarray of float64, shape (n_samples, 2)
    y : ndarray of float64, shape (n_samples,)
        -1.0 or 1.0; a label 0 becomes -1.0.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not such a file: the message, one line, says where (file, line, column) and what
        was expected. Lines are counted from 1, the header's.

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
    """
    path = os.fspath(path)
    file = shown_path(path)
    records = read_records(path, file)
    try:
        line, header = next(records)
    except StopIteration:
        raise ValueError(f"{file}: empty, expected a header with x, y and label") from None
    where = locate_columns(header, f"{file}: line {line}")

    samples = []
    first = {}  # label: the line on which it was first seen
    for line, cells in records:
        at = f"{file}: line {line}"
        if any(cells[len(header):]):
            raise ValueError(
                f"{at}: {len(cells)} cells, but the header has {len(header)} columns"
            )
        x, y, label = (read_number(cells, where[name], f"{at}, column {name}") for name in COLUMNS)
        if label not in (-1, 0, 1):
            raise ValueError(
                f"{at}, column label: expected -1 or 1, or 0 or 1, got {label!r}"
            )
        first.setdefault(label, line)
        if -1 in first and 0 in first:
            other = -1 if label == 0 else 0
            raise ValueError(
                f"{at}, column label: {label:g}, but {other} on line {first[other]}: "
                "expected -1 and 1, or 0 and 1"
            )
        samples.append((x, y, label))

    if not samples:
        raise ValueError(f"{file}: line {line}: no samples below the header")
    if len(first) == 1:
        raise ValueError(
            f"{file}: line {line}, column label: {label:g}, as in all the file, "
            "expected samples of both classes"
        )
    table = np.array(samples)
    return table[:, :2].copy(), np.where(table[:, 2] > 0, 1.0, -1.0)


def moon_sizes(n_samples):
    """(outer, inner) from `make_moons`'s argument."""
    try:
        n = operator.index(n_samples)
    except TypeError:
        pass
    else:
        if n < 1:
            raise ValueError(f"n_samples: expected 1 or more, got {n_samples!r}")
        return n // 2, n - n // 2
    try:
        outer, inner = map(operator.index, n_samples)
    except (TypeError, ValueError):
        raise TypeError(
            f"n_samples: expected an int or a pair of ints, got {n_samples!r}"
        ) from None
    if outer < 0 or inner < 0:
        raise ValueError(f"n_samples: expected counts of 0 or more, got {n_samples!r}")
    return outer, inner


def generator(random_state):
    """What has `shuffle` and `normal`, from `make_moons`'s argument."""
    if random_state is None:
        return np.random
    if isinstance(random_state, np.random.RandomState):
        return random_state
    try:
        seed = operator.index(random_state)
    except TypeError:
        raise TypeError(
            f"random_state: expected an int, a numpy.random.RandomState or None, "
            f"got {random_state!r}"
        ) from None
    if not 0 <= seed < 2**32:
        raise ValueError(f"random_state: expected 0 to 2**32 - 1, got {random_state!r}")
    return np.random.RandomState(seed)


def read_records(path, file):
    """Yield (line number, stripped cells) of each record that is not blank."""
    with open(path, "rb") as stream:
        raw = stream.read()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{file}: line {line}: not text in UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{file}: line {line}: not text, it has a zero byte")

    reader = csv.reader(io.StringIO(text, newline=None))
    while True:
        line = reader.line_num + 1  # where the next record starts; a quoted cell may span lines
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{file}: line {line}: {error}") from None
        cells = [cell.strip() for cell in cells]
        if cells not in ([], [""]):
            yield line, cells


def locate_columns(header, at):
    """{name: index} of the columns we read."""
    for name in COLUMNS:
        count = header.count(name)
        if count == 0:
            found = short(", ".join(header))
            raise ValueError(
                f"{at}: no column {name}, expected x, y and label between commas, got {found}"
            )
        if count > 1:
            raise ValueError(f"{at}: column {name} is there {count} times, expected once")
    return {name: header.index(name) for name in COLUMNS}


def read_number(cells, index, at):
    """The finite float in a cell."""
    if index >= len(cells) or not cells[index]:
        raise ValueError(f"{at}: missing, expected a number")
    cell = cells[index]
    try:
        if "_" in cell:  # float() takes 1_000, which is Python's notation and not a table's
            raise ValueError
        value = float(cell)
    except ValueError:
        raise ValueError(f"{at}: expected a number, got {short(cell)}") from None
    if not math.isfinite(value):
        raise ValueError(f"{at}: expected a finite number, got {short(cell)}")
    return value


def short(text):
    """`text` quoted, on one line, and cut to a length that fits a message."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def shown_path(path):
    """`path` as messages show it: quoted only if it has characters that do not print."""
    text = os.fsdecode(path)
    return text if text.isprintable() and text else repr(text)
