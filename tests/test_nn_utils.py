"""flatgrad.nn.utils: parameters as one flat array, and back."""
import math

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, errors, nn
from flatgrad.nn import utils
from flatgrad.nn.utils import parameters_to_vector, vector_to_parameters

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def several():
    """Parameters of every layout, and their numbers in order."""
    t = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    frozen = Value(-1.0)
    frozen.requires_grad = False
    parts = [Value(7.0), t, Value(8.0), t.T, t[:, 1], t[1], Tensor([0.5], requires_grad=False), frozen, t[::-1, ::2]]
    return parts, [7.0, 1, 2, 3, 4, 5, 6, 8, 1, 4, 2, 5, 3, 6, 2, 5, 4, 5, 6, 0.5, -1, 4, 6, 1, 3]


def test_to_a_vector():
    parts, expected = several()
    for given in (parts, tuple(parts), iter(parts)):
        found = parameters_to_vector(given)
        assert type(found) is np.ndarray and found.dtype == np.float64 and found.tolist() == expected
    assert parameters_to_vector([]).shape == (0,)
    parts[0].data, parts[1].data = 0.0, np.zeros((2, 3))
    assert found.tolist() == expected   # a copy
    model = nn.MLP(2, [3, 1])
    assert parameters_to_vector(model.parameters()).tolist() == [p.data for p in model.parameters()]


def test_there_and_back():
    rng = np.random.RandomState(0)
    parts = [Value(0.0), Tensor(np.zeros((2, 3))), Value(0.0), Tensor(np.zeros(4)), Tensor(np.zeros((3, 2))).T]
    for vector in (rng.normal(size=18), np.array([math.nan, math.inf, -0.0] * 6)):
        vector_to_parameters(vector, parts)
        assert parameters_to_vector(parts).tobytes() == vector.tobytes()
    numbers = np.arange(18)
    for given in (numbers, numbers.tolist(), tuple(numbers), numbers.astype(">f4"), np.arange(36.0)[::2] / 2,
                  Tensor(numbers), Tensor(numbers).data):
        vector_to_parameters(np.zeros(18), parts)
        vector_to_parameters(given, iter(parts))
        assert [parts[0].data, *parts[1].data.ravel(), parts[2].data, *parts[3].data, *parts[4].data.ravel()] == (
            numbers.tolist())
    vector_to_parameters([], [])


def test_views_write_to_what_they_view_and_frozen_parameters_are_set_too():
    t, frozen = Tensor(np.zeros((2, 3))), Value(1.0)
    frozen.requires_grad = False
    t.grad = np.ones((2, 3))
    vector_to_parameters([5.0, 1.0, 2.0], [frozen, t[:, 1]])
    assert frozen.data == 5.0 and t.data.tolist() == [[0, 1, 0], [0, 2, 0]] and (t.grad == 1.0).all()


def test_gradients_are_in_the_same_order():
    model = nn.MLP(3, [4, 2], activation="tanh")
    extra = Tensor([[0.5, -0.5], [1.0, 2.0]])
    parameters = [extra, *model.parameters()]

    def loss():
        return ((model([0.1, -0.2, 0.3])[0] - 1.0) ** 2 + (extra @ [1.0, 2.0]).sum()) * extra[0, 1]
    value, gradient = flatgrad.value_and_grad(loss, parameters=parameters)()
    start, h = parameters_to_vector(parameters), 1e-6
    for k in range(len(start)):
        ends = []
        for sign in (1, -1):
            moved = start.copy()
            moved[k] += sign * h
            vector_to_parameters(moved, parameters)
            ends.append(loss().data)
        assert gradient[k] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-7)
    vector_to_parameters(start, parameters)
    assert loss().data == value


def test_a_tensor_of_the_graph():
    parts, expected = several()
    vector = parameters_to_vector(parts, as_tensor=True)
    assert type(vector) is Tensor and vector.data.tolist() == expected
    a, t, b, c = Value(1.0), Tensor([[2.0, 3.0], [4.0, 5.0]]), Value(6.0), Value(7.0)
    weights = np.arange(1.0, 8.0)
    (parameters_to_vector([a, t, b, c], as_tensor=True) * weights).sum().backward()
    assert [a.grad, *t.grad.ravel(), b.grad, c.grad] == weights.tolist()
    one = Tensor([1.0, 2.0])
    assert parameters_to_vector([one], as_tensor=True).data.tolist() == [1.0, 2.0]
    assert flatgrad.grad(lambda x: (parameters_to_vector([x, b], as_tensor=True) ** 2).sum())(3.0) == 6.0
    with pytest.raises(errors.ShapeError, match="parameters: expected one Value or Tensor at least"):
        parameters_to_vector([], as_tensor=True)


def test_tracked_numbers_do_not_leave_a_recording():
    w = Value(2.0)

    @flatgrad.compile
    def reads(x):
        return x * parameters_to_vector([w, x])[1]

    @flatgrad.compile
    def writes(x):
        vector_to_parameters([1.0], [w])
        return x * w
    with pytest.raises(errors.ArgumentTypeError, match="parameters"):
        reads(1.0)
    with pytest.raises(errors.ArgumentTypeError, match="parameters: set while a compiled function is recorded"):
        writes(1.0)
    assert w.data == 2.0

    @flatgrad.compile
    def computes(x):
        return (parameters_to_vector([w], as_tensor=True) * x).sum()
    assert computes(3.0).data == 6.0
    vector_to_parameters([5.0], [w])
    assert computes(3.0).data == 15.0


@pytest.mark.parametrize("parameters, message", [
    (Tensor([1.0]), "parameters: expected an iterable of Values and Tensors, such as model.parameters.., got a Tensor"),
    ({1.0}, "got a set"), (3.0, "got 3.0"), (None, "got None"), (nn.MLP(1, [1]), "such as model.parameters"),
    ([1.0], r"parameters\[0\]: expected a Value or a Tensor, got float 1.0"), ([Value(1.0), "a"], r"parameters\[1\]"),
])
def test_what_is_no_parameter(parameters, message):
    for call in (lambda: parameters_to_vector(parameters), lambda: parameters_to_vector(parameters, as_tensor=True),
                 lambda: vector_to_parameters([1.0], parameters)):
        with pytest.raises(errors.ArgumentTypeError, match=message):
            call()


@pytest.mark.parametrize("vec, error, message", [
    ([1.0, 2.0], errors.ShapeError, "vec: expected 3 numbers, as the parameters have, got 2"),
    (np.ones(4), ValueError, "expected 3 numbers, as the parameters have, got 4"), ([], errors.ShapeError, "got 0"),
    (np.ones((3, 1)), errors.ShapeError, r"vec: expected one dimension, got the shape \(3, 1\)"),
    (1.0, errors.ShapeError, r"got the shape \(\)"), ("abc", errors.ArgumentTypeError, "vec: expected an array of real"),
    ([1.0, 2.0, 3j], errors.ArgumentTypeError, "vec"), ([1.0, "a", 2.0], TypeError, "vec"), (None, TypeError, "vec"),
    ([[1.0], [2.0, 3.0]], TypeError, "vec"),
])
def test_wrong_vectors_change_nothing(vec, error, message):
    w, b = Value(1.0), Tensor([2.0, 3.0])
    with pytest.raises(error, match=message):
        vector_to_parameters(vec, [w, b])
    assert w.data == 1.0 and b.data.tolist() == [2.0, 3.0]


def test_where_pytorch_users_look():
    with pytest.raises(errors.ArgumentTypeError, match="as_tensor: expected True or False, got 1"):
        parameters_to_vector([], as_tensor=1)
    with pytest.raises(AttributeError, match="there is flatgrad.optim.clip_grad_norm_"):
        utils.clip_grad_norm_
    with pytest.raises(AttributeError, match="there is flatgrad.nn.utils.parameters_to_vector"):
        flatgrad.nn.parameters_to_vector
    assert nn.utils is utils and "utils" in dir(nn)
