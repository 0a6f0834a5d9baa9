"""`argnames` of grad and value_and_grad: the same gradients as by `argnums`, however a call gives the arguments."""
from __future__ import annotations

import re

import numpy as np
import pytest

import flatgrad
from flatgrad import Value, grad, value_and_grad
from flatgrad.errors import ArgumentError, ArgumentTypeError


def f(x, w, b=2.0, *, scale=1.0):
    return (x * w).sum() * b * scale


X, W = np.array([1.0, 2.0]), np.array([3.0, -1.0])
CALLS = [((X, W, 4.0), {"scale": 3.0}), ((X, W), {"b": 4.0, "scale": 3.0}), ((X,), {"scale": 3.0, "b": 4.0, "w": W}),
         ((), {"scale": 3.0, "b": 4.0, "w": W, "x": X})]
EXPECTED = {"x": 12.0 * W, "w": 12.0 * X, "b": 3.0, "scale": 4.0}   # by hand; x . w is 1


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("call", range(len(CALLS)))
def test_gradients_by_name(call, compiled):
    args, kwargs = CALLS[call]
    function = flatgrad.compile(f) if compiled else f
    for name, expected in EXPECTED.items():
        assert np.array_equal(grad(function, argnames=name)(*args, **kwargs), expected)
    for names in (("w", "scale"), ["b", "x"], ("scale", "b", "w", "x")):
        value, found = value_and_grad(function, argnames=names)(*args, **kwargs)
        assert value == 12.0 and type(found) is tuple
        assert all(np.array_equal(g, EXPECTED[name]) for g, name in zip(found, names))


def test_they_are_those_by_number():
    for n, name in enumerate(["x", "w", "b"]):
        assert np.array_equal(grad(f, n)(X, W, 4.0), grad(f, argnames=name)(X, W, 4.0))
    value, aux = grad(lambda x, y: (x * y, [x]), argnames="y", has_aux=True)(2.0, y=3.0)
    assert (value, aux) == (2.0, [2.0])


def test_nested_and_by_any_name():
    assert grad(grad(lambda x, **more: more["k"] * x * x, argnames="x"), argnames="x")(1.0, k=3.0) == 6.0
    assert grad(lambda x, **more: more["k"] * x * x, argnames="k")(2.0, k=3.0) == 4.0
    both = lambda x, k: grad(lambda x, *, k: k * x * x, argnames="k")(x, k=k)
    assert grad(both, argnames="x")(3.0, 1.0) == 6.0
    assert grad(lambda x, /, y: x * y, argnames="x")(2.0, y=5.0) == 5.0
    assert grad(lambda *, a, b: a * b * b, argnames=("b", "a"))(a=2.0, b=3.0) == (12.0, 9.0)


def test_batches():
    w = np.array([[1.0, 2.0], [3.0, 4.0]])
    for function in (lambda w, k: (w * w).sum() * k, flatgrad.compile(lambda w, k: (w * w).sum() * k)):
        found = grad(function, argnames="w", in_axes=0)(w, k=np.array([1.0, 2.0]))
        assert np.array_equal(found, np.array([[1.0, 2.0], [6.0, 8.0]]))


@pytest.mark.parametrize("options, error, message", [
    ({"argnames": "u"}, ArgumentError, "argnames: expected names of the parameters (x, w, b=2.0, *, scale=1.0), got 'u'"),
    ({"argnames": 1}, ArgumentTypeError, "argnames: expected a str or a tuple of str, got 1"),
    ({"argnames": ("x", 1)}, ArgumentTypeError, "argnames: expected a str or a tuple of str"),
    ({"argnames": ()}, ArgumentError, "argnames: expected a str or a tuple of different str, got ()"),
    ({"argnames": ("x", "x")}, ArgumentError, "argnames: expected a str or a tuple of different str"),
    ({"argnames": "x", "argnums": 1}, ArgumentError, "grad: expected one of argnums and argnames, got argnums=1"),
    ({"argnames": "x", "parameters": [Value(1.0)]}, ArgumentError, "grad: expected one of argnames and parameters"),
])
def test_what_is_refused(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        grad(f, **options)


def test_a_call_without_it():
    with pytest.raises(ArgumentError, match="argnames: expected 'b' among the arguments of the call, got 2 by position"):
        grad(f, argnames="b")(X, W)
    with pytest.raises(ArgumentError, match="argnames: expected 'k' among .* got 1 by position and j by keyword"):
        grad(lambda x, **more: x, argnames="k")(1.0, j=2.0)
    with pytest.raises(TypeError, match="missing a required argument: 'w'"):
        grad(f, argnames="x")(X)
    with pytest.raises(ArgumentTypeError, match="argument 3: expected a real number"):
        grad(f, argnames="scale")(X, W, 1.0, scale="s")
