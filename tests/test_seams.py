"""Where parts meet: transforms and what takes numbers, frozen elements and copies, statistics of equal numbers."""
import copy

import numpy as np
import pytest

import flatgrad as fg
from flatgrad import Tensor, Value, _core, losses, nn


def assigned(x):
    h = Tensor([0.0, 0.0])
    h.data = x * 2.0
    return (h * x).sum()


def gradient_assigned(x):
    h = Tensor([0.0, 0.0])
    h.grad = x
    return (Tensor(h.grad) * x).sum()


def loaded(x):
    layer = nn.Layer(2, 1)
    layer.load_state_dict({"weight": x.reshape(1, 2), "bias": np.zeros(1)})
    return layer([1.0, 1.0])


def initialised(x):
    return nn.Layer(2, 1, init=x.reshape(1, 2))([1.0, 1.0])


def initialised_by_a_function(x):
    return nn.Layer(2, 1, init=lambda shape, rng: x.reshape(1, 2))([1.0, 1.0])


@pytest.mark.parametrize("f", [assigned, gradient_assigned, loaded, initialised, initialised_by_a_function])
def test_numbers_do_not_leave_a_transform_in_silence(f):
    with pytest.raises((TypeError, ValueError)):
        fg.grad(f)(np.array([1.0, 2.0]))
    f(Tensor([1.0, 2.0]))   # outside of one they are numbers
    constant = fg.grad(lambda x: f(Tensor([1.0, 2.0])) + x.sum())(np.array([1.0, 2.0]))
    assert constant.tolist() == [1.0, 1.0]


def test_what_is_no_trace_may_be_taken():
    target = Tensor([1.0, -1.0])
    assert fg.grad(lambda x: losses.hinge(x, target))(np.zeros(2)).tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("numbers", [[2.0, 2.0, 2.0], [1.0, 2.0, 4.0]])
def test_std_of_equal_numbers(numbers):
    expected = [0.0] * 3 if len(set(numbers)) == 1 else ((np.array(numbers) - np.mean(numbers)) / 3 / np.std(numbers))
    np.testing.assert_allclose(fg.grad(np.std)(np.array(numbers)), expected)


def test_a_constant_column_in_scores():
    X = np.array([[1.0, 5.0], [3.0, 5.0]])
    weights = np.arange(4.0).reshape(2, 2)
    slopes = fg.grad(lambda X: np.sum((X - np.mean(X, axis=0)) / (np.std(X, axis=0) + 1e-8) * weights))(X)
    assert np.isfinite(slopes).all()
    assert np.isfinite(fg.grad(lambda X: np.sum(np.std(X, axis=0, keepdims=True)))(X)).all()


@pytest.mark.parametrize("view", [lambda t: t, lambda t: t[::2], lambda t: t[1:]])
def test_copies_keep_what_is_frozen(view):
    t = Tensor([1.0, 2.0, 3.0, 4.0])
    t[2].requires_grad = False
    expected = [v.requires_grad for v in view(t)]
    assert [v.requires_grad for v in copy.copy(view(t))] == expected
    assert [v.requires_grad for v in copy.deepcopy(view(t))] == expected


@pytest.mark.parametrize("walk", ["_held_below", "_leaves_below"])
@pytest.mark.parametrize("nothing", [[], (), Tensor.__new__(Tensor)])
def test_below_no_outputs_there_is_nothing(walk, nothing):
    inputs = [[Value(1.0)]] if walk == "_held_below" else []
    assert not getattr(_core, walk)(nothing, *inputs)
