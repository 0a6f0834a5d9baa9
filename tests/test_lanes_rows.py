"""What a batch does with rows and elements of tables, and with rows whose numbers end, against a loop over its samples."""
import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, losses, vmap

N = 13
INF, NAN = np.inf, np.nan
RNG = np.random.default_rng(5)
TABLE = RNG.normal(size=(5, 3))
SCALES = RNG.uniform(0.3, 1.7, N)


def loop(f, *batches):
    return [f(*[x[k] for x in batches]) for k in range(N)]


def in_lanes(f, *batches):
    return vmap(flatgrad.compile(f))(*batches)


def inside(f, *batches):
    return flatgrad.compile(lambda *x: vmap(f)(*x))(*batches)


def compare(f, *batches, table=TABLE, rtol=1e-11):
    """The results of the samples, and the gradients of the table and the batches, of sums that weigh the samples."""
    found = []
    for way in (loop, in_lanes, inside):
        leaf, leaves = Tensor(table), [Tensor(x) for x in batches]
        out = way(lambda *x: f(leaf, *x), *leaves)
        numbers = np.array([x.numpy() if isinstance(x, Tensor) else getattr(x, "data", x) for x in out])
        flatgrad.sum([(x * (k + 1.0)).sum() if isinstance(x, Tensor) else x * (k + 1.0)
                      for k, x in enumerate(out)]).backward()
        found.append([numbers, leaf.grad, *[x.grad for x in leaves]])
    for other in found[1:]:
        for got, want in zip(other, found[0], strict=True):
            np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-12)
    return found[0]


ROWS, EACH = np.arange(N) % 5 - 1.0 * (np.arange(N) % 2 == 0), np.arange(N) % 3 * 1.0
TAKEN = {
    "a row": lambda t, p, x: flatgrad.take(t, p) * x,
    "of what varies": lambda t, p, x: flatgrad.take((t * x).tanh(), p),
    "a part of the row": lambda t, p, x: (flatgrad.take((t * x).tanh(), p) * np.array([1.0, 0.0, 2.0]))[1:],
    "one element of the row": lambda t, p, x: flatgrad.take((t * x).tanh(), p)[2] * 1.0,
    "rows": lambda t, p, x: flatgrad.take((t * x).tanh(), flatgrad.stack([p, -x.floor() - 1.0, p])).sum(axis=1),
    "of a vector": lambda t, p, x: flatgrad.take((t[:, 1] * x).tanh(), p),
    "an element of each row": lambda t, p, x: flatgrad.pick((t[:2] * x).tanh(), flatgrad.stack([p * 0.0, p * 0.0 - 1.0])),
    "of what is constant": lambda t, p, x: flatgrad.take(TABLE, p) * x * t[0, 0],
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken(name):
    compare(TAKEN[name], np.abs(ROWS), SCALES)


@pytest.mark.parametrize("part", [np.s_[:], np.s_[1], np.s_[::2]], ids=str)
def test_an_element_of_each_row(part):
    """Its position, which varies; all of them, one, and some."""
    def f(t, p, x):
        out = flatgrad.pick((t * x).tanh(), flatgrad.stack([p, -p - 1.0, p, p * 0.0, p]))[part]
        return out * 1.5
    compare(f, EACH, SCALES)


def test_positions_that_are_none_name_the_sample():
    """Of rows, of elements of rows: a position is as wrong in lanes as it is alone."""
    for f, positions, wrong in [(lambda p: flatgrad.take(TABLE, p), ROWS, 5.0),
                                (lambda p: flatgrad.pick(TABLE[:2], flatgrad.stack([p, p])), EACH, -4.0),
                                (lambda p: flatgrad.take(TABLE, p), ROWS, 0.5)]:
        positions = np.where(np.arange(N) == 9, wrong, np.abs(positions))
        messages = []
        for call in (lambda f, p: f(flatgrad.Value(p[9])), lambda f, p: vmap(flatgrad.compile(f))(p)):
            with pytest.raises(IndexError, match="expected a whole number from") as raised:
                call(f, positions)
            messages.append(str(raised.value).split(" expected ")[1].split(" in ")[0])
        assert messages[1].startswith(messages[0])


SPECIAL = np.array([[0.0, 1.0, 1.0], [NAN, 1.0, 0.0], [NAN, NAN, 2.0], [INF, 0.0, INF], [-INF, -INF, 0.0],
                    [-INF, -INF, -INF], [INF, -INF, 0.0], [3.0, 3.0, 3.0], [1e308, 1e308, 0.0], [-0.0, 0.0, -1.0],
                    [800.0, 0.0, -800.0], [5e-324, 0.0, 0.0], [1.0, 2.0, 3.0]])


@pytest.mark.parametrize("name", ["max", "min", "sum", "mean", "logsumexp", "softmax", "log_softmax"])
@pytest.mark.parametrize("matrix", [False, True])
def test_rows_whose_numbers_end(name, matrix):
    """Ties, nan, and infinite numbers: shares of a gradient, and exponentials of differences that are nan."""
    def f(t, row):
        if not matrix:
            return getattr(row * 1.0, name)()
        both = flatgrad.stack([row * 1.0, row * t[0, 0] * 0.5])
        out = getattr(both, name)(axis=1)
        return out.reshape(-1) if out.ndim == 2 else out
    with np.errstate(all="ignore"):
        compare(f, SPECIAL, table=np.ones((1, 1)))


@pytest.mark.parametrize("logits", [False, True])
def test_cross_entropy_of_what_has_no_gradient(logits):
    """Labels that vary; logits that are frozen, or constants of the batch alone."""
    frozen = RNG.normal(size=(N, 3))

    def f(t, x, row):
        return losses.cross_entropy(flatgrad.stack([row + t[0] * 0.1 if logits else row, row * 2.0]), [0, 2]) * x

    batch = [SCALES, frozen]
    found = []
    for way in (loop, in_lanes):
        t, x = Tensor(TABLE), Tensor(batch[0])
        out = way(lambda a, b: f(t, a, b), x, Tensor(batch[1], requires_grad=False))
        flatgrad.sum(list(out)).backward()
        found.append(([v.data for v in out], t.grad, x.grad))
    for got, want in zip(found[1], found[0]):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


def test_the_comparison_can_fail():
    calls = []

    def f(t, x):
        calls.append(1)
        return x * (2.0 if len(calls) > N else 3.0)

    with pytest.raises(AssertionError):
        compare(f, SCALES)
