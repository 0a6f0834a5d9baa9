"""Backward passes that reach some results of an instruction and not others, against the graph of single operations.

Whatever is reached, gradients are those that each reached result alone would bring, and nothing else is touched: not
the gradients of operands that none of them depends on, and no 0 times infinity from a result beside them.
"""
import math

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core

INF, NAN = math.inf, math.nan
R, C, K = 7, 6, 5   # rows, columns, terms

def taken(a, positions, each=False):
    """By FG_TAKE; in a scalar graph by brackets."""
    out = _core._taken(a, positions, each, False)
    if out is not None:
        return out
    return a[range(len(positions)), positions] if each else a[positions]


# Functions of Tensors, the shapes of these, and the shape of the result.
MATRICES = {
    "sum of two": (lambda a, b: a + b, [(R, C), (R, C)]),
    "times a row": (lambda a, b: a * b, [(R, C), (C,)]),
    "times a column": (lambda a, b: a * b, [(R, C), (R, 1)]),
    "times a number": (lambda a, b: a * b[0], [(R, C), (1,)]),
    "transposed": (lambda a, b: a.T / b, [(C, R), (R, C)]),
    "tanh": (lambda a: a.tanh(), [(R, C)]),
    "where": (lambda a, b, c: flatgrad.where(a, b, c), [(R, C), (1, C), (R, 1)]),
    "a column": (lambda a, b: a * b, [(R * C, 1), (R * C, 1)]),
    "product": (lambda a, b: a @ b, [(R, K), (K, C)]),
    "with itself": (lambda a: a @ a, [(R, R)]),
    "layer": (lambda x, w, b: flatgrad.linear(x, w, b, "tanh"), [(R, K), (C, K), (C,)]),
    "turned layer": (lambda x, w, b: flatgrad.linear(x.T, w.T, b, "relu"), [(K, R), (K, C), (C,)]),
    "one column": (lambda x, w, b: flatgrad.linear(x, w, b, "sigmoid"), [(R, K), (1, K), (1,)]),
    "softmax": (lambda a: a.softmax(), [(R, C)]),
    "log_softmax": (lambda a: a.log_softmax(), [(R, C)]),
    "softmax of columns": (lambda a: a.softmax(axis=0), [(R, C)]),
    "taken": (lambda a: taken(a, [2, 0, 0, 3, 1, 2, 4]), [(K, C)]),
}
VECTORS = {
    "sum": (lambda a: a.sum(axis=1), [(R, C)]),
    "mean of columns": (lambda a: a.mean(axis=0), [(C, R)]),
    "max": (lambda a: a.max(axis=1), [(R, C)]),
    "logsumexp of columns": (lambda a: a.logsumexp(axis=0), [(C, R)]),
    "matrix times vector": (lambda a, b: a @ b, [(R, K), (K,)]),
    "vector times matrix": (lambda a, b: a @ b, [(K,), (K, R)]),
    "one sample": (lambda x, w: flatgrad.linear(x, w, None, "tanh"), [(K,), (R, K)]),
    "elements": (lambda a, b: a * b, [(R,), (R,)]),
    "softmax": (lambda a: a.softmax(), [(R,)]),
    "taken": (lambda a: taken(a, [2, 0, 0, 3, 1, 2, 4]), [(K,)]),
    "picked": (lambda a: taken(a, [2, 0, 0, 3, 1, 2, 4], each=True), [(R, K)]),
}
PARTS_OF_MATRICES = [
    np.s_[1:], np.s_[:-1], np.s_[::2], np.s_[::3], np.s_[:, 1:], np.s_[:, ::2], np.s_[::2, ::3], np.s_[0], np.s_[-1:],
    np.s_[:, 0], np.s_[2:4, 1:3], np.s_[::-1, ::-1], np.s_[0, 0], np.s_[2, 1], (range(6), range(6)), ([0, 5], [4, 1]),
    ([0, 0, 0, 1], [0, 2, 3, 2]), ([2, 2, 3], [1, 2, 2]), [1, 4, 5], np.s_[:]]
PARTS_OF_VECTORS = [np.s_[1:], np.s_[:-1], np.s_[::2], np.s_[3], [0, 5], np.s_[2:4]]


def part_of(z, part):
    if isinstance(part, tuple) and isinstance(part[0], range):   # a diagonal
        part = tuple(list(numbers)[:min(z.shape)] for numbers in part)
    return z[part]


def gradients(function, arrays, part, scalars, lists, stale):
    """Of inner operands and of leaves, after a pass from some results, with a weight on each.

    scalars: by a graph of single operations. lists: operands that lie in no order. stale: what the operands' gradients
    were before; those that are reached pass it on, and others must not.
    """
    leaves = [Tensor(array) for array in arrays]
    operands = [leaf * 1.0 for leaf in leaves]
    if lists:
        operands = [Tensor([[v * 1.0 for v in row] for row in a] if a.ndim == 2 else [v * 1.0 for v in a])
                    for a in operands]
    for operand in operands:
        operand.grad = stale
    if scalars:
        with flatgrad.scalar_graph():
            z = function(*operands)
    else:
        z = function(*operands)
    z = part_of(z, part)
    if isinstance(z, Value):
        (z * 3.0).backward()
    else:
        (z * Tensor(np.linspace(1.0, 2.0, z.size).reshape(z.shape), requires_grad=False)).sum().backward()
    return [a.grad for a in (*operands, *leaves)]


def compare(function, shapes, part, special=()):
    rng = np.random.default_rng(len(shapes))
    arrays = [rng.normal(size=shape) for shape in shapes]
    for which, place, number in special:
        arrays[which][place] = number
    for lists in (False, True):
        for stale in (0.0, 5.0):
            got = gradients(function, arrays, part, False, lists, stale)
            expected = gradients(function, arrays, part, True, lists, stale)
            for one, other in zip(got, expected):
                np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("part", PARTS_OF_MATRICES, ids=str)
@pytest.mark.parametrize("name", MATRICES)
def test_part_of_a_matrix(name, part, nothing_left_behind):
    function, shapes = MATRICES[name]
    if name in ("a column", "one column"):
        if isinstance(part, tuple) and part[1] != slice(None, None, 2):
            pytest.skip("one column")
    compare(function, shapes, part)


@pytest.mark.parametrize("part", PARTS_OF_VECTORS, ids=str)
@pytest.mark.parametrize("name", VECTORS)
def test_part_of_a_vector(name, part, nothing_left_behind):
    compare(*VECTORS[name], part)


@pytest.mark.parametrize("number", [INF, -INF, NAN, 1e308])
@pytest.mark.parametrize("part", PARTS_OF_MATRICES, ids=str)
@pytest.mark.parametrize("name", ["times a row", "times a column", "product", "layer", "with itself", "tanh", "where"])
def test_what_is_not_finite_beside_what_is_reached(name, part, number):
    function, shapes = MATRICES[name]
    with np.errstate(all="ignore"):
        for which in range(len(shapes)):
            compare(function, shapes, part, [(which, (0,) * len(shapes[which]), number)])


def test_a_quotient_by_zero_beside_what_is_reached():
    x = Tensor([1.0, 2.0, 3.0, 4.0] * 8)
    y = x.log()
    x.data = [0.0, 2.0] * 16   # a partial derivative of infinity in every other place
    y[1::2].sum().backward()
    assert x.grad.tolist() == [0.0, 0.5] * 16


@pytest.mark.parametrize("rows, columns", [(1, 300), (300, 1), (20, 15), (3, 130)])
@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 0.95])
def test_any_elements(rows, columns, density, nothing_left_behind):
    """Stretches over word borders and chunks."""
    rng = np.random.default_rng(rows)
    for _ in range(4):
        mask = rng.random((rows, columns)) < density
        mask[0, 0] = True
        a, b = rng.normal(size=(rows, columns)), rng.normal(size=(1, columns))
        for function, inputs in [
                (lambda x, w: x * w, (a, b)), (lambda x, w: (x * 1.0).tanh() + w, (a, b)),
                (lambda x, w: (x * 1.0) @ (w * 1.0), (a[:, :3] if columns > 2 else a, rng.normal(size=(3 if columns > 2 else 1, 40)))),
                (lambda x: (x * 2.0).softmax(), (a,)), (lambda x: x.log_softmax(), (a,))]:
            leaves = [Tensor(x) for x in inputs]
            z = function(*leaves)
            chosen = rng.random(z.shape) < density
            chosen[0, 0] = True
            z[chosen].sum().backward()
            got = [leaf.grad for leaf in leaves]
            leaves = [Tensor(x) for x in inputs]
            (function(*leaves) * Tensor(chosen * 1.0, requires_grad=False)).sum().backward()
            for one, leaf in zip(got, leaves):
                np.testing.assert_allclose(one, leaf.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", MATRICES)
def test_rules_on_some_results(name, nothing_left_behind):
    """A result with a rule goes by it; the others by their own, whatever is reached."""
    function, shapes = MATRICES[name]
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=shape) for shape in shapes]
    for part in (np.s_[:], np.s_[1:], np.s_[::2]):
        results = []
        for scalars in (False, True):
            leaves = [Tensor(array) for array in arrays]
            if scalars:
                with flatgrad.scalar_graph():
                    z = function(*leaves)
            else:
                z = function(*leaves)
            calls = []
            for i, j in ((0, 0), (2, z.shape[1] - 1), (3, 0)):
                own = z[i, j]._backward
                z[i, j]._backward = lambda own=own, v=z[i, j], at=(i, j): (calls.append((at, v.grad)), own(), own())
            (z[part] * 2.0).sum().backward()
            results.append([leaf.grad for leaf in leaves] + [sorted(calls)])
            for i, j in ((0, 0), (2, z.shape[1] - 1), (3, 0)):
                z[i, j]._backward = print   # the rules and the results have held each other
        for one, other in zip(*results):
            if isinstance(one, list):
                assert one == other and one
            else:
                np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


def test_rows_and_columns_without_memory_for_copies(nothing_left_behind):
    """Picked rows are copied; where there is no memory for that, each stretch goes by itself."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(40, 30)), rng.normal(size=(30, 20))
    results = []
    for fail_after in (-1, 0):
        x, w = Tensor(a), Tensor(b)
        y = (x @ w)[::2, ::3].sum()
        sweep = Value(1.0)
        sweep.backward()   # has its marks
        flatgrad.sum(Tensor(np.ones(10))).backward()
        _core._testing(fail_after=fail_after)
        try:
            y.backward()
        finally:
            _core._testing(fail_after=-1)
        results.append((x.grad, w.grad))
    for one, other in zip(*results):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    assert _core._check()


def test_one_result_after_the_other():
    """Each of many results has a pass of its own."""
    x = Tensor(np.linspace(-1.0, 1.0, 500))
    for v in x.tanh():
        v.backward()
    np.testing.assert_allclose(x.grad, 1.0 - np.tanh(x.data) ** 2, rtol=1e-12)


def test_derivatives_by_operands():
    """`_children` and `_local_grads` of results of every instruction, as the rule has them."""
    rng = np.random.default_rng(2)
    for name, (function, shapes) in {**MATRICES, **{f"vector {k}": v for k, v in VECTORS.items()}}.items():
        leaves = [Tensor(rng.normal(size=shape)) for shape in shapes]
        z = function(*leaves)
        for place in ((0,) * z.ndim, tuple(length - 1 for length in z.shape)):
            v = z[place]
            children, partials = v._children, v._local_grads
            assert len(children) == len(partials)
            for leaf in leaves:
                leaf.grad = 0.0
            v.backward()
            total = {}
            for child, partial in zip(children, partials):
                total[child] = total.get(child, 0.0) + partial
            for child, partial in total.items():
                assert child.grad == pytest.approx(partial, rel=1e-12, abs=1e-15), (name, place)
