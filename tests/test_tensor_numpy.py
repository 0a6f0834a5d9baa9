"""Tensors in NumPy's hands: functions that mean an operation, functions that do not, comparisons, and the arrays
that `data` and `grad` give. That no function at all loses a gradient is test_numpy_sweep.py's."""
import copy
import operator
import pickle

import numpy as np
import pytest

import flatgrad as fg
from flatgrad import Tensor, Value, errors

rng = np.random.default_rng(5)
V, U = rng.uniform(0.2, 1.8, 4), rng.uniform(0.2, 1.8, 4)
M, N = rng.uniform(0.2, 1.8, (3, 4)), rng.uniform(0.2, 1.8, (3, 4))
ROW, COLUMN, ONE = rng.uniform(0.2, 1.8, (1, 4)), rng.uniform(0.2, 1.8, (3, 1)), rng.uniform(0.2, 1.8, (1, 1))


def plain(x):
    """The numbers of a result."""
    return x.numpy() if isinstance(x, Tensor) else x.data if isinstance(x, Value) else x


def check(function, *arrays, rtol=1e-13):
    """Values are NumPy's, and gradients, by each operand alone and by all, those of finite differences."""
    expected = function(*arrays)
    turned = [Tensor(x.T.copy()).T if x.ndim == 2 else Tensor(np.repeat(x, 2))[::2] for x in arrays]   # views
    for k in range(2 ** len(arrays)):
        for tensors in [Tensor(x) for x in arrays], turned:
            operands = [t if k >> j & 1 else x for j, (t, x) in enumerate(zip(tensors, arrays))]
            if k == 0:
                operands = [t.detach() for t in tensors]   # constants
            result = function(*operands)
            assert isinstance(result, (Value, Tensor))
            assert np.shape(plain(result)) == np.shape(expected)
            np.testing.assert_allclose(plain(result), expected, rtol=rtol, atol=1e-15)
            if k == 0:
                assert isinstance(result, Value) or not result.requires_grad
    for several in range(2 ** len(arrays) - 1):
        def of_some(*free, fixed=several):
            free = list(free)
            return function(*[x if fixed >> j & 1 else free.pop(0) for j, x in enumerate(arrays)])   # noqa: B023
        assert fg.gradcheck(of_some, tuple(x for j, x in enumerate(arrays) if not several >> j & 1), rtol=1e-6,
            atol=1e-7)
    for t in turned:
        t.grad = 0.0
    plain_sum(function(*turned)).backward()
    gradients = fg.grad(lambda *x: plain_sum(function(*x)), tuple(range(len(arrays))))(*arrays)
    for t, gradient in zip(turned, gradients):
        np.testing.assert_allclose(t.grad, gradient, rtol=1e-13, atol=1e-15)


def plain_sum(result):
    return result.sum() if isinstance(result, Tensor) else result


BINARY = [np.add, np.subtract, np.multiply, np.divide, np.true_divide, np.power, np.maximum, np.minimum]


@pytest.mark.parametrize("ufunc", BINARY, ids=lambda f: f.__name__)
@pytest.mark.parametrize("x, y", [(V, U), (M, N), (M, V), (V, M), (ROW, COLUMN), (COLUMN, M), (M, ONE), (ROW, V)],
                         ids=lambda x: str(x.shape))
def test_ufuncs_of_two(ufunc, x, y):
    check(ufunc, x, y)


@pytest.mark.parametrize("ufunc", [np.negative, np.absolute, np.fabs, np.exp, np.log, np.sqrt, np.sin, np.cos, np.tanh,
                                   np.square, np.reciprocal, np.positive, np.conjugate], ids=lambda f: f.__name__)
@pytest.mark.parametrize("x", [V, M, ROW, COLUMN, ONE], ids=lambda x: str(x.shape))
def test_ufuncs_of_one(ufunc, x):
    check(ufunc, x, rtol=1e-15 if ufunc not in (np.exp, np.log, np.sin, np.cos, np.tanh) else 1e-14)


@pytest.mark.parametrize("function", [np.matmul, np.dot], ids=lambda f: f.__name__)
@pytest.mark.parametrize("x, y", [(V, U), (M, V), (M.T, U[:3]), (U[:3], M), (M, N.T), (M.T, N), (ROW, M.T),
    (V[None], V)])
def test_products(function, x, y):
    check(function, x, y)


CALLS = {
    "dot of a number": (lambda t: np.dot(2.0, t) + np.dot(t, 3), V),
    "dot of a list": (lambda t: np.dot([1.0, 2.0, 3.0, 4.0], t), V),
    "inner": (np.inner, V, U), "inner of rows": (np.inner, M, N), "inner, mixed": (np.inner, M, V),
    "vdot": (np.vdot, M, N), "outer": (np.outer, V, U), "outer of matrices": (np.outer, M, V),
    **{f"{name}, {axis}, {keepdims}, {x.shape}": (
        lambda t, f=getattr(np, name), axis=axis, k=keepdims: f(t, axis=axis, keepdims=k), x)
       for name in ("sum", "mean", "max", "min", "amax", "prod", "std", "var", "ptp")
       for x in (V, M) for axis in (None, 0, -1, (0,), *((1, -2, (0, 1), (-1, 0)) if x is M else ()))
       for keepdims in (False, True)},
    "sum, in order": (lambda t: np.sum(t, 0), M), "sum, dtype": (lambda t: np.sum(t, dtype=np.float64), M),
    "add.reduce": (np.add.reduce, M), "maximum.reduce": (lambda t: np.maximum.reduce(t, axis=1), M),
    "minimum.reduce": (lambda t: np.minimum.reduce(t, axis=1, keepdims=True), M),
    "multiply.reduce": (np.multiply.reduce, M), "add.accumulate": (np.add.accumulate, M),
    "std, ddof": (lambda t: np.std(t, 1, ddof=1), M), "var, ddof": (lambda t: np.var(t, ddof=1), V),
    "average": (np.average, M), "average, weights": (lambda t, w: np.average(t, weights=w), V, U),
    "average, rows": (lambda t, w: np.average(t, axis=1, weights=w), M, V),
    "average, columns": (lambda t, w: np.average(t, axis=0, weights=w), M, U[:3]),
    "norm": (np.linalg.norm, V), "norm of a matrix": (np.linalg.norm, M),
    **{f"norm, {order}, {axis}, {x.shape}": (lambda t, o=order, a=axis: np.linalg.norm(t, o, a), x)
       for order, axis, x in [(2, None, V), (1, None, V), (np.inf, None, V), (-np.inf, None, V), ("fro", None, M),
                              (1, None, M), (-1, None, M), (np.inf, None, M), (-np.inf, None, M), (2, 0, M), (1, 1, M),
                              (np.inf, -1, M), (None, 1, M), (None, (0, 1), M), (1, (0, 1), M)]},
    "norm, keepdims": (lambda t: np.linalg.norm(t, axis=1, keepdims=True), M),
    "cumsum": (np.cumsum, V), "cumsum of a matrix": (np.cumsum, M), "cumsum, 0": (lambda t: np.cumsum(t, 0), M),
    "cumsum, 1": (lambda t: np.cumsum(t, axis=-1), M), "cumprod": (lambda t: np.cumprod(t, axis=1), M),
    "diff": (np.diff, V), "diff, 2": (lambda t: np.diff(t, 2), V), "diff, axis": (lambda t: np.diff(t, axis=0), M),
    "diff, rows": (np.diff, M), "diff, 0": (lambda t: np.diff(t, 0) * 1.0, V),
    "where": (lambda t, u: np.where(t > 1.0, t, u), M, N), "where, a number": (lambda t: np.where(M > 1.0, t, 0), M),
    "where, a list": (lambda t: np.where([True, False, True, False], t, [1.0, 2.0, 3.0, 4.0]), V),
    "where, broadcast": (lambda t, u: np.where([[True], [False], [True]], t, u), V, U),
    "clip": (lambda t: np.clip(t, 0.5, 1.5), M), "clip, below": (lambda t: np.clip(t, None, 1.5), M),
    "clip, bounds": (lambda t, lo, hi: np.clip(t, lo, lo + hi), M, V, U),
    "clip, a_min": (lambda t: np.clip(t, a_min=0.5, a_max=None), M),
    "concatenate": (lambda t, u: np.concatenate([t, u]), V, U),
    "concatenate, 1": (lambda t, u: np.concatenate((t, u), axis=1), M, COLUMN),
    "concatenate, None": (lambda t, u: np.concatenate((t, u), axis=None), M, V),
    "concatenate, a list": (lambda t: np.concatenate([t, [7.0]]), V),
    "stack": (lambda t, u: np.stack([t, u]), V, U), "stack, 1": (lambda t, u: np.stack([t, u], axis=-1), V, U),
    "hstack": (lambda t, u: np.hstack([t, u]), M, COLUMN), "vstack": (lambda t, u: np.vstack([t, u]), M, V),
    "column_stack": (lambda t, u: np.column_stack([t, u]), V, U), "append": (lambda t, u: np.append(t, u), M, V),
    "append, axis": (lambda t, u: np.append(t, u, axis=0), M, ROW),
    "roll": (lambda t: np.roll(t, 1), V), "roll, axis": (lambda t: np.roll(t, -1, axis=1), M),
    "roll, both": (lambda t: np.roll(t, (1, 2), axis=(0, 1)), M), "roll, none": (lambda t: np.roll(t, 5), M),
    "reshape": (lambda t: np.reshape(t, (4, 3)), M), "reshape, -1": (lambda t: np.reshape(t, -1), M),
    "ravel": (np.ravel, M),
    "squeeze": (np.squeeze, ROW), "squeeze, all": (lambda t: np.squeeze(t) * 1.0, ONE), "transpose": (np.transpose, M),
    "transpose, axes": (lambda t: np.transpose(t, (1, 0)), M), "swapaxes": (lambda t: np.swapaxes(t, 0, 1), M),
    "expand_dims": (lambda t: np.expand_dims(t, 0), V), "atleast_2d": (np.atleast_2d, V), "copy": (np.copy, M),
    "flip": (np.flip, M), "flip, 0": (lambda t: np.flip(t, 0), M), "fliplr": (np.fliplr, M), "flipud": (np.flipud, M),
    "rot90": (np.rot90, M), "tile": (lambda t: np.tile(t, (2, 2)), M), "repeat": (lambda t: np.repeat(t, 2), M),
    "take": (lambda t: np.take(t, [2, 0, 0], axis=1), M), "delete": (lambda t: np.delete(t, 1, axis=0), M),
    "diag": (np.diag, V), "diagonal": (np.diagonal, M), "trace": (np.trace, M), "tril": (np.tril, M),
    "triu": (np.triu, M),
    "broadcast_to": (lambda t: np.broadcast_to(t, (3, 4)), V), "sort": (np.sort, V),
    "sort, 0": (lambda t: np.sort(t, 0), M),
    "sort, None": (lambda t: np.sort(t, None), M), "resize": (lambda t: np.resize(t, (2, 3)), V),
    "split": (lambda t: np.split(t, 2)[1] * np.split(t, 2)[0], V), "hsplit": (lambda t: np.hsplit(t, [1])[1], M),
    "real": (lambda t: np.real(t) * 1.0, V),
}
for _trapezoid in (getattr(np, "trapezoid", None) or np.trapz,):
    CALLS |= {"trapezoid": (_trapezoid, V), "trapezoid, dx": (lambda y: _trapezoid(y, dx=0.1), M),
              "trapezoid, x": (_trapezoid, V, np.sort(U)), "trapezoid, rows": (_trapezoid, M, np.sort(U)),
              "trapezoid, axis": (lambda y: _trapezoid(y, axis=0), M)}


@pytest.mark.parametrize("name", CALLS)
def test_functions(name, nothing_left_behind):
    check(*CALLS[name])


@pytest.mark.parametrize("name", ["sum, None, False, (3, 4)", "dot of a list", "concatenate", "roll", "where", "diff",
                                  "min, 0, True, (3, 4)", "norm", "cumsum", "stack", "outer"])
def test_functions_in_a_scalar_graph(name):
    function, *arrays = CALLS[name]
    with fg.scalar_graph():
        result = function(*[Tensor(x) for x in arrays])
    np.testing.assert_allclose(plain(result), function(*arrays), rtol=1e-13)


def test_results_without_a_gradient():
    t, m = Tensor(V), Tensor(M)
    for function in (np.argmax, np.argmin, np.argsort, np.shape, np.ndim, np.size, np.isnan, np.isfinite, np.isinf,
        np.sign,
                     np.floor, np.ceil, np.rint, np.trunc, np.signbit, np.any, np.all, np.count_nonzero, np.nonzero,
                     np.argwhere, np.zeros_like, np.ones_like, np.array_str, np.round):
        for x, tensor in (V, t), (M, m):
            result = function(tensor)
            assert type(result) is type(function(x)) and np.array_equal(result, function(x))
    assert np.argmax(m, axis=1).tolist() == np.argmax(M, axis=1).tolist()
    assert np.allclose(t, V) and np.allclose(V, t) and np.array_equal(m, M) and not np.array_equal(m, N)
    assert np.isclose(t, V + 1e-12).all() and np.array2string(t, precision=2) == np.array2string(V, precision=2)
    assert np.full_like(t, 2.0).tolist() == [2.0] * 4 and np.empty_like(m).shape == (3, 4)
    assert np.searchsorted(np.sort(V), t).tolist() == np.searchsorted(np.sort(V), V).tolist()


def test_ten_steps_of_the_heat_equation():
    """A plausible, wrong gradient, when np.roll gave numbers."""
    def heat(u, roll=np.roll):
        for _ in range(10):
            u = u + 0.2 * (roll(u, 1) - 2.0 * u + roll(u, -1))
        return (u * np.arange(6.0)).sum()
    start = rng.uniform(-1.0, 1.0, 6)
    assert fg.gradcheck(heat, start, rtol=1e-7)
    gradient = fg.grad(heat)(start)
    # The same with slices, and by linear algebra: a step is a symmetric matrix.
    step = np.eye(6) + 0.2 * (np.roll(np.eye(6), 1, 0) - 2.0 * np.eye(6) + np.roll(np.eye(6), -1, 0))
    np.testing.assert_allclose(gradient, np.linalg.matrix_power(step, 10) @ np.arange(6.0), rtol=1e-12)


@pytest.mark.parametrize("function, expected", [
    (lambda x: np.dot(x, np.ones(3)), [1.0, 1.0, 1.0]), (lambda x: np.linalg.norm(x), [1 / 3, 2 / 3, 2 / 3]),
    (lambda x: np.concatenate([x, x]).sum(), [2.0, 2.0, 2.0]), (lambda x: np.clip(x, 0.0, 1.5).sum(), [1.0, 0.0, 0.0]),
    (lambda x: np.outer(x, [1.0, 2.0]).sum(), [3.0, 3.0, 3.0]),
], ids=["dot", "norm", "concatenate", "clip", "outer"])
def test_gradients_that_were_0(function, expected):
    np.testing.assert_allclose(fg.grad(function)(np.array([1.0, 2.0, 2.0])), expected, rtol=1e-12)


# ---- what raises ----

REFUSED = {
    "np.interp": lambda t: np.interp(t, [0.0, 1.0], [0.0, 1.0]), "np.interp of y": lambda t: np.interp(0.5, V, t),
    "np.convolve": lambda t: np.convolve(t, [1.0, 2.0]), "np.linalg.inv": lambda t: np.linalg.inv(t.reshape(2, 2)),
    "np.fft.fft": np.fft.fft, "np.arctan": np.arctan, "np.log2": np.log2, "np.cbrt": np.cbrt,
    "np.cross": lambda t: np.cross(t[:3], V[:3]),
    "np.median": np.median, "np.einsum": lambda t: np.einsum("i,i", t, t),
    "np.heaviside": lambda t: np.heaviside(t, 0.5),
    "np.add with out": lambda t: np.add(t, 1.0, out=np.zeros(4)),
    "np.exp with where": lambda t: np.exp(t, where=V > 1.0),
    "np.sum with initial": lambda t: np.sum(t, initial=1.0), "np.sum with where": lambda t: np.sum(t, where=V > 1.0),
    "np.sum with dtype": lambda t: np.sum(t, dtype=np.float32),
    "np.add.at": lambda t: np.add.at(np.zeros(4), [0], t[:1]),
    "np.add.outer": lambda t: np.add.outer(t, t),
    "np.concatenate with out": lambda t: np.concatenate([t], out=np.zeros(4)),
    "np.full_like": lambda t: np.full_like(t, t), "np.copyto": lambda t: np.copyto(np.zeros(4), t),
    "np.linalg.norm with ord": lambda t: np.linalg.norm(t, ord=3), "np.save": lambda t: np.save("never.npy", t),
    "np.add with out, augmented": lambda t: operator.iadd(np.zeros(4), t), "np.block": lambda t: np.block([t, t]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_lose_the_gradient(name):
    t = Tensor(V)
    with pytest.raises(errors.ArgumentTypeError) as error:
        REFUSED[name](t)
    message = str(error.value)
    for word in name.split(",")[0].split(" of ")[0].split(" with "):
        assert word in message
    assert all(word in message for word in (".data", ".numpy()", ".detach()", "gradient"))
    assert t.tolist() == V.tolist()
    with pytest.raises(errors.ArgumentTypeError):
        fg.grad(lambda x: REFUSED[name](x))(V)


@pytest.mark.parametrize("convert", [
    np.asarray, np.array, np.asanyarray, np.ascontiguousarray, np.float64, lambda t: np.array([t, t]),
    lambda t: np.array(t, dtype=object), lambda t: np.asarray([[t], [t]]), lambda t: np.array([1.0, t], dtype=object),
    lambda t: np.testing.assert_array_equal(t, V),
    lambda t: np.dot([t, t], V), lambda t: np.sum([t, t]), lambda t: np.frompyfunc(float, 1, 1)(t),
    lambda t: np.vectorize(lambda x: x)(t), lambda t: np.testing.assert_allclose(t, V),
    lambda t: np.linalg.norm([t, t]),
    lambda t: np.zeros(4).__setitem__(slice(None), t), lambda t: np.zeros((2, 4)).__setitem__(0, t),
])
def test_conversion(convert):
    with pytest.raises(TypeError, match=r"\.data or \.numpy\(\).*\.detach\(\)"):
        convert(Tensor(V))


def test_constant_tensors_are_arrays_to_numpy():
    c, t = Tensor(V, requires_grad=False), Tensor(V)
    with fg.no_grad():
        made = t * 2.0
    assert np.asarray(made).tolist() == (2.0 * V).tolist()
    assert np.interp(c, [0.0, 2.0], [0.0, 4.0]) == pytest.approx(2.0 * V)
    assert np.array([c, c]).tolist() == [V.tolist()] * 2 and np.float64(c[:1].detach()) == V[:1]
    np.testing.assert_array_equal(c, V)
    out = np.zeros(4)
    assert np.add(c, 1.0, out=out) is out and out.tolist() == (V + 1.0).tolist()
    assert np.median(c) == np.median(V) and np.log2(c).tolist() == np.log2(V).tolist()
    assert np.sum(c, where=V > 1.0) == np.sum(V, where=V > 1.0)
    assert isinstance(np.exp(c), Tensor) and not np.exp(c).requires_grad
    with pytest.raises(errors.ArgumentTypeError, match=r"np\.interp"):
        np.interp(c, V, t)   # one that requires a gradient among them


@pytest.mark.parametrize("write", [
    lambda t: np.copyto(t, 0.0), lambda t: np.put(t, [0], 0.0), lambda t: np.place(t, V > 0.0, 0.0),
    lambda t: np.putmask(t, V > 0.0, 0.0), lambda t: np.add(V, 1.0, out=t), lambda t: np.sum(M, axis=0, out=t),
    lambda t: np.fill_diagonal(t.reshape(2, 2), 0.0), lambda t: np.add.at(t, [0], 1.0),
    lambda t: np.clip(V, 0, 1, out=t),
    lambda t: np.concatenate([V], out=t), lambda t: np.random.default_rng(0).shuffle(t),
])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_numpy_writes_to_no_tensor(write, requires_grad):
    t = Tensor(V, requires_grad)
    with pytest.raises((TypeError, UserWarning)):   # a shuffle warns first
        write(t)
    assert t.tolist() == V.tolist()


def test_object_arrays_of_tensors_keep_the_gradient():
    t, u = Tensor(V), Tensor(U)
    array = np.empty(2, object)
    array[0], array[1] = t, u
    for total in (array * 2.0).sum(), np.dot(array, [2.0, 2.0]), np.add.reduce(array + array):
        t.grad = u.grad = 0.0
        total.sum().backward()
        assert t.grad.tolist() == u.grad.tolist() == [2.0] * 4
    t.grad = 0.0
    np.exp(array)[0].sum().backward()
    np.testing.assert_allclose(t.grad, np.exp(V))
    with pytest.raises((TypeError, ValueError)):
        array.astype(float)


def test_arrays_and_numbers_on_the_left():
    t = Tensor(V)
    for left in U, np.float64(2.0), np.float32(2.0), np.int64(2), np.array(2.0), U.astype(np.float32), np.arange(4):
        for op in operator.add, operator.sub, operator.mul, operator.truediv, operator.pow:
            result = op(left, t)
            assert type(result) is Tensor and result.requires_grad
            np.testing.assert_allclose(result.data, op(np.asarray(left, float), V), rtol=1e-14)
    assert (U @ t).data == pytest.approx(U @ V) and type(M @ t) is Tensor
    values = np.array([Value(1.0), 2.0, Value(3.0), 4.0], dtype=object)
    (values * t).sum().backward()
    assert values[2].grad == V[2] and t.grad.tolist() == [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(TypeError):
        np.array(["a"] * 4) + t
    with pytest.raises(ValueError, match="do not fit"):
        np.ones(3) * t


# ---- comparisons ----

@pytest.mark.parametrize("op", [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge])
def test_comparisons_are_element_by_element(op):
    x, y = np.array([[1.0, 2.0], [3.0, np.nan]]), np.array([[1.0, 5.0], [2.0, 0.0]])
    t, u = Tensor(x), Tensor(y)
    for left, right in [(t, u), (t, y), (x, u), (t, y.tolist()), (x.tolist(), u), (t, u.detach()), (t.T, y.T)]:
        result = op(left, right)
        expected = op(x, y).T if left is not t and isinstance(left, Tensor) else op(x, y)
        assert type(result) is np.ndarray and result.dtype == bool and result.tolist() == expected.tolist()
    for other in 2, 2.0, np.float64(2.0), np.array(2.0), np.array([1.0, 2.0]), [1, 2], y[:, :1], True:
        assert op(t, other).tolist() == op(x, np.asarray(other)).tolist()
        if not isinstance(other, list):
            assert op(other, t).tolist() == op(np.asarray(other), x).tolist()
    v = Value(2.0)
    assert op(t, v).tolist() == op(x, 2.0).tolist() and op(v, t).tolist() == op(2.0, x).tolist()
    assert op(t, [v, 2.0]).tolist() == op(x, [2.0, 2.0]).tolist()
    assert op(t, np.array([v, 2.0], dtype=object)).tolist() == op(x, [2.0, 2.0]).tolist()
    assert op(t[0], Tensor([[1.0], [2.0]])).shape == (2, 2)
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(3,\)"):
        op(t, np.zeros(3))
    ufunc = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
             "ge": np.greater_equal}[op.__name__]
    assert ufunc(y, t).tolist() == op(y, x).tolist()


def test_comparisons_with_what_has_no_numbers():
    t = Tensor(V)
    for other in None, "a", object(), {}, [None], Tensor:
        assert (t == other) is False and (t != other) is True
        with pytest.raises(TypeError):
            t < other
    with pytest.raises((TypeError, FutureWarning)):
        t == np.array(["a"])
    assert Value(1.0) != Value(1.0) and (Value(1.0) == Tensor([1.0])).all()


@pytest.mark.parametrize("other", [
    np.array(["a"]), np.array([b"a"]), np.array(["a"] * 4), np.array("a"), np.array(["2020-01-01"], "M8[D]"),
    np.array([1], "m8[s]"), np.zeros(4, [("a", float)]), np.zeros(4, "V8"),
], ids=lambda other: f"{other.dtype}-{other.shape}")
def test_comparisons_that_numpy_has_no_loop_for(other):
    """NumPy 2.4 and older crashed, as they ask a Tensor for an array after its __array_ufunc__ said so."""
    for t in Tensor(V), Tensor(V, requires_grad=False):
        for name in "equal", "not_equal", "less", "less_equal", "greater", "greater_equal":
            for left, right in (t, other), (other, t):
                with pytest.raises(errors.ArgumentTypeError, match=f"np.{name}: expected numbers, got arrays of "):
                    getattr(np, name)(left, right)
        for op in operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge:
            for left, right in (t, other), (other, t):
                try:
                    answer = op(left, right)
                except (TypeError, DeprecationWarning, FutureWarning):   # NumPy 1's, and of arrays with fields
                    continue
                assert op in (operator.eq, operator.ne) and answer is (op is operator.ne)   # text without dimensions
        assert t.tolist() == V.tolist()


def test_tensors_are_keys_by_what_they_are():
    t, same = Tensor(V), Tensor(V)
    names = {t: "t", same: "same"}
    assert names[t] == "t" and names[same] == "same" and len({t, same, t}) == 2 and hash(t) != hash(same)
    assert t in [t, same] and (t, same) == (t, same)


# ---- data and grad ----

@pytest.mark.parametrize("name", ["data", "grad"])
@pytest.mark.parametrize("write", [
    "t.{0}[:] = 0", "t.{0}[0, 0] = 9", "t.{0}[0] = 9", "t.{0}.fill(0)", "t.{0}[0, 0] += 1", "t.{0}[0] += 1",
    "t.{0}[:, 1] -= 1", "t.{0}[t.{0} >= 0] = 1", "t.{0}.sort()", "t.{0}.partition(1)", "t.{0}.put([0], 1)",
    "t.{0}.T[0] = 1",
    "t.{0}.resize((3, 2))", "row = t.{0}[0]; row += 1", "for row in t.{0}: row *= 2", "t.{0}.setfield(1, float)",
    "np.copyto(t.{0}, 0)", "np.add(t.{0}, 1, out=t.{0})", "np.put(t.{0}, [0], 1)", "np.fill_diagonal(t.{0}, 0)",
    "t.{0}.flat[0] = 1", "np.random.default_rng(0).shuffle(t.{0})", "t.{0}.ravel()[0] = 1", "t.{0}.reshape(-1)[0] = 1",
    "t[0].{0}[0] = 1", "t.T.{0}[0] = 1", "np.asarray(t.{0})[0] = 1",
])
def test_writing_into_data_and_grad_raises(name, write):
    t = Tensor(M)
    t.grad = N
    with pytest.raises(ValueError) as error:
        exec(write.format(name), {"t": t, "np": np})
    if not write.startswith("np.") and ".flat" not in write:
        assert isinstance(error.value, errors.ArgumentError)
        assert f"{name}: cannot be written to" in str(error.value) and f"tensor.{name} = " in str(error.value)
        assert f"tensor[i, j].{name} = number" in str(error.value)
    assert t.tolist() == M.tolist() and t.grad.tolist() == N.tolist()


@pytest.mark.parametrize("name", ["data", "grad"])
def test_augmented_assignment_changes_the_tensor(name, nothing_left_behind):
    t = Tensor(M)
    t.grad = M
    for statement, expected in [("t.{0} += 1.0", M + 1.0), ("t.{0} -= N", M - N), ("t.{0} *= 2", M * 2),
                                ("t.{0} /= N", M / N), ("t.{0} **= 2", M**2), ("t.{0} //= 2", M // 2),
                                ("t.{0} %= 0.5", M % 0.5),
                                ("t.{0} += t[:1].{0}", M + M[:1]), ("t.{0} += t.detach()", M + M),
                                ("t.{0} @= E", M @ np.eye(4))]:
        t.data = t.grad = M
        exec(statement.format(name), {"t": t, "N": N, "E": np.eye(4)})
        assert getattr(t, name).tolist() == expected.tolist()
    kept = getattr(t, name)
    setattr(t, name, 0.0)
    assert (kept == (M @ np.eye(4))).all()
    with pytest.raises(ValueError):
        exec(f"t.{name} += np.ones((5, 3, 4))", {"t": t, "np": np})


def test_what_is_computed_from_data_is_a_plain_array():
    t = Tensor(M)
    for array in (t.data * 2, 2 * t.data, t.data + t.grad, -t.data, np.exp(t.data), t.data.sum(axis=0), t.data @ M.T,
                  t.data > 1.0, t.data.copy(), t.data.astype(int), t.data.flatten(), np.array(t.data), t.numpy(),
                  copy.copy(t.data), copy.deepcopy(t.data), pickle.loads(pickle.dumps(t.data)),
                  np.where(M > 1, t.data, 0),
                  np.concatenate([t.data, t.grad]), t.data.mean(1), np.add.outer(t.data[0], t.data[0])):
        assert type(array) is np.ndarray and array.flags.writeable
    for number in t.data.sum(), t.data[0, 0], t.data.max(), np.mean(t.grad), t.data[0] @ t.data[0]:
        assert type(number) is np.float64
    taken = t.data[t.data > 1.0]
    taken[:] = 0.0
    taken += 1.0
    taken.sort()
    assert (taken == 1.0).all() and repr(t.data) == repr(M) and str(t.grad) == str(0.0 * M)
    assert t.data.tolist() == M.tolist()


def test_pandas_takes_data():
    t = Tensor(M)
    pandas = pytest.importorskip("pandas")
    assert pandas.DataFrame(t.data).shape == (3, 4) and pandas.Series(t.grad[0]).sum() == 0.0
    assert pandas.DataFrame({"a": t.data[0]}).a.tolist() == M[0].tolist()


def test_matplotlib_takes_data():
    t = Tensor(M)
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot
    figure, axes = pyplot.subplots()
    axes.plot(t.data)
    axes.scatter(t.data[0], t.grad[0])
    with pytest.raises(TypeError, match="requires a gradient"):
        axes.plot(t)
    pyplot.close(figure)


# ---- functions and methods that go with NumPy's ----

def test_min_argmax_square_clip():
    t = Tensor([[3.0, 1.0, 1.0], [2.0, 5.0, 5.0]])
    t.min().backward()
    assert t.grad.tolist() == [[0.0, 0.5, 0.5], [0.0, 0.0, 0.0]]
    assert fg.min(t, 1).tolist() == t.min(axis=-1).tolist() == [1.0, 2.0] and t.min(0, True).shape == (1, 3)
    assert (t.argmax(), t.argmin(), fg.argmax(t, 1).tolist(), t.argmin(0).tolist()) == (4, 1, [0, 1], [1, 0, 0])
    assert type(t.argmax()) is type(fg.argmax([1.0, Value(2.0)])) is type(t[0].argmin(axis=0)) is int
    assert fg.argmax([1.0, Value(2.0)]) == 1 and fg.argmin(Tensor([np.nan, 1.0])) == 0
    assert t.square().tolist() == fg.square(t).tolist() == [[9.0, 1.0, 1.0], [4.0, 25.0, 25.0]]
    assert fg.square(Value(-3.0)).data == 9.0 and fg.square([1.0, 2.0]).tolist() == [1.0, 4.0]
    assert t.clip(1.5, 4.0).tolist() == [[3.0, 1.5, 1.5], [2.0, 4.0, 4.0]]
    assert t.clip(min=2.0).min().data == 2.0 and t.clip(max=2.0).max().data == 2.0 and t.clip().tolist() == t.tolist()
    lo = Value(2.0)
    t.clip(lo, max=[4.0, 4.0, 4.0]).sum().backward()
    assert lo.grad == 2.0
    assert fg.min([Value(4.0), 2.0]).data == fg.min(2.0).data == 2.0 and fg.min(x for x in [3.0, 4.0]).data == 3.0


@pytest.mark.parametrize("call, error, message", [
    (lambda t: fg.min([]), ValueError, r"min\(\): x: expected at least one element"),
    (lambda t: t.min(2), ValueError, r"min\(\): axis: expected -2 to 1"),
    (lambda t: t.min("a"), TypeError, r"min\(\): axis"),
    (lambda t: t.sum(keepdims="yes"), TypeError, r"sum\(\): keepdims: expected True or False, got str 'yes'"),
    (lambda t: t.min(keepdims=1), TypeError, r"min\(\): keepdims"),
    (lambda t: t.sum(()), ValueError, r"sum\(\): axis: expected different axes"),
    (lambda t: t.argmax(2), ValueError, r"argmax\(\): axis"), (lambda t: t.argmin("a"), TypeError, r"argmin\(\): axis"),
    (lambda t: fg.argmax([]), ValueError, r"argmax\(\): x: expected one or two dimensions"),
    (lambda t: fg.argmax(2.0), TypeError, r"argmax\(\): x: expected a Tensor"),
    (lambda t: fg.argmax(["a"]), TypeError, r"argmax\(\): x: expected a Tensor"),
    (lambda t: fg.square("a"), TypeError, r"square\(\): x"),
    (lambda t: fg.square(Tensor([1e200])), OverflowError, "1e\\+200"),
    (lambda t: t.clip("a"), TypeError, r"clip\(\): min"),
    (lambda t: fg.cat([]), ValueError, r"cat\(\): tensors: expected one Tensor at least"),
    (lambda t: fg.cat(2.0), TypeError, "tensors: expected an iterable"),
    (lambda t: fg.cat([t, t], axis=2), ValueError, r"cat\(\): shapes \(2, 3\), \(2, 3\)"),
    (lambda t: fg.cat([t, t], axis=0.5), TypeError, r"cat\(\): axis: expected an int, got float 0.5"),
    (lambda t: fg.cat([t, [1.0]]), ValueError, r"cat\(\): shapes \(2, 3\), \(1,\)"),
    (lambda t: fg.cat([t, "a"]), TypeError, r"cat\(\): tensors\[1\]"),
    (lambda t: fg.cat([t, []]), ValueError, r"cat\(\): tensors\[1\]: expected at least one element"),
    (lambda t: fg.cat([Value(1.0)]), ValueError, r"cat\(\): shapes \(\)"),
    (lambda t: fg.stack([t, t]), ValueError, r"stack\(\): expected a result of one or two dimensions.*\(2, 2, 3\)"),
    (lambda t: fg.stack([t[0], [1.0]]), ValueError, r"stack\(\): shapes \(3,\), \(1,\)"),
    (lambda t: np.concatenate([t, t[0]]), ValueError, r"np\.concatenate: shapes \(2, 3\), \(3,\)"),
    (lambda t: np.diff(t, axis=3), ValueError, "axis: expected -2 to 1"),
    (lambda t: np.diff(t, 3), ValueError, "n: expected an int from 0 to 2"),
    (lambda t: np.std(t, axis="a"), TypeError, "axis"), (lambda t: np.prod(t, axis=7), ValueError, "axis"),
])
def test_what_is_refused(call, error, message):
    t = Tensor(M[:2, :3])
    with pytest.raises(error, match=message):
        call(t)


def test_cat_and_stack(nothing_left_behind):
    t, u, v = Tensor([1.0, 2.0]), Tensor([3.0]), Value(4.0)
    out = fg.cat([t, u, [5.0, v], np.array([6.0]), t[::-1]])
    assert out.tolist() == [1.0, 2.0, 3.0, 5.0, 4.0, 6.0, 2.0, 1.0] and out._op == "copy"
    (out * np.arange(1.0, 9.0)).sum().backward()
    assert (t.grad.tolist(), u.grad.tolist(), v.grad) == ([9.0, 9.0], [3.0], 5.0)
    assert fg.stack([t, [v, 0.0]], axis=1).tolist() == [[1.0, 4.0], [2.0, 0.0]]
    assert fg.stack([v, 2.0, t[0]]).tolist() == [4.0, 2.0, 1.0] and fg.cat(x for x in (t, u)).shape == (3,)
    assert fg.cat([t], axis=-1).tolist() == [1.0, 2.0] and fg.stack([t]).shape == (1, 2)
    constant = t.detach()
    assert not fg.cat([constant, [1.0]]).requires_grad and fg.cat([constant, t]).requires_grad
    fg.cat([constant, t]).sum().backward()
    assert constant.grad.tolist() == [0.0, 0.0]
    with fg.no_grad():
        assert fg.cat([t, u])._op == "" and not fg.cat([t, u]).requires_grad


def test_cat_takes_memory_for_its_elements_alone():
    parts = [Tensor(np.ones((50, 20))) for _ in range(20)]
    fg.collect()
    before = fg.stats()["nodes"]
    out = fg.cat(parts)
    assert fg.stats()["nodes"] - before < out.size + 10


def test_a_large_part_of_many_functions_at_once_under_collection(moving):
    t = Tensor(M)
    out = np.concatenate([np.roll(t, 1), np.tile(t[0], (2, 1)), np.stack([t[1], V])])
    out = np.where(out > 1.0, np.sort(out, 0), np.cumsum(out, 1))
    np.linalg.norm(out).backward()
    def expected(x):
        y = np.concatenate([np.roll(x, 1), np.tile(x[0], (2, 1)), np.stack([x[1], V])])
        return np.linalg.norm(np.where(y > 1.0, np.sort(y, 0), np.cumsum(y, 1)))
    for place in [(0, 0), (1, 2), (2, 3)]:
        up, down = M.copy(), M.copy()
        up[place] += 1e-6
        down[place] -= 1e-6
        assert t.grad[place] == pytest.approx((expected(up) - expected(down)) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("step", [10**12, -(10**12), 2**31, 2**63, -(2**80), 7])
def test_slices_with_large_steps(step, nothing_left_behind):
    x = np.array([1.0, 2.0])
    t, m = Tensor(x), Tensor(M)
    assert t[::step].tolist() == x[::step].tolist()
    assert m[::step].tolist() == M[::step].tolist() and m[:, ::step].tolist() == M[:, ::step].tolist()
    assert m.T[::step, ::-step].tolist() == M.T[::step, ::-step].tolist()
    (m[::step, ::step] * 2.0).sum().backward()
    expected = np.zeros((3, 4))
    expected[::step, ::step] = 2.0
    assert m.grad.tolist() == expected.tolist() and (m[::step].T @ m[::step]).shape == (4, 4)


def test_norms_at_zero():
    """0, as in PyTorch: the root's derivative alone would be inf, and inf * 0 nan."""
    for function in np.linalg.norm, lambda t: np.linalg.norm(t, axis=1).sum():
        m = M.copy()
        m[1] = 0.0
        assert np.isfinite(fg.grad(function)(m)).all() and (fg.grad(function)(m)[1] == 0.0).all()
    assert fg.grad(np.linalg.norm)(np.zeros(3)).tolist() == [0.0, 0.0, 0.0]


# ---- our own functions that take numbers ----

def test_what_takes_numbers_takes_tensors():
    """Samples, labels, indices and states have no gradient to lose: of a Tensor, its numbers."""
    from flatgrad import datasets, estimators, losses, nn, optim
    from flatgrad.train import Trainer, metrics

    X, y = datasets.make_moons(20, noise=0.1, random_state=0)
    model = nn.MLP(2, [4, 1])
    trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.1), "mse")
    for take in Tensor, lambda x: list(Tensor(x)), lambda x: x:
        assert trainer.predict(take(X)).tolist() == model(X).data[:, 0].tolist()
        assert metrics.mse(take(X[:, 0]), take(y)) == pytest.approx(np.mean((X[:, 0] - y) ** 2))
        assert datasets.train_test_split(X, stratify=Tensor(y), random_state=0)[0].tolist() == (
            datasets.train_test_split(X, stratify=y, random_state=0)[0].tolist())
    assert type(trainer.predict(X)) is np.ndarray and trainer.predict(X).flags.writeable
    assert metrics.accuracy(model(X), y) == metrics.accuracy(model(X).data, y)
    forest = estimators.Classifier(hidden=(4,), epochs=1, random_state=0).fit(Tensor(X), Tensor(y))
    assert (forest.predict(Tensor(X)) == forest.predict(X)).all()
    table = nn.Embedding(5, 2)
    assert table(Tensor([1.0, 2.0])).tolist() == table([1, 2]).tolist()
    state = {name: Tensor(array * 0.0 + 1.0) for name, array in model.state_dict().items()}
    model.load_state_dict(state)
    assert all((array == 1.0).all() and type(array) is np.ndarray for array in model.state_dict().values())
    assert losses.binary_cross_entropy([Tensor([0.5]), Tensor([0.5])], [[1], [0]]).data == pytest.approx(np.log(2.0))
