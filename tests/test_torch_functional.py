"""grad, value_and_grad, jacobian, hessian and the other transforms, and gradcheck, against PyTorch's, in float64."""
import numpy as np
import pytest

import flatgrad
from flatgrad import (Tensor, grad, gradcheck, gradgradcheck, hessian, hvp, jacfwd, jacobian, jvp, value_and_grad,
                      vjp)

torch = pytest.importorskip("torch")

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def tensors(*arrays):
    return tuple(torch.tensor(np.asarray(a), dtype=torch.float64) for a in arrays)


def network(x, w1, b1, w2):
    """Two layers and some more operations, of Tensors of either kind."""
    return (((x @ w1 + b1).tanh() @ w2).sigmoid() * 2.0 - x[:, :1].exp()) / (1.0 + w2[0, 0] ** 2)


def operands(seed):
    rng = np.random.default_rng(seed)
    n, d, h, o = rng.integers(1, 5, 4)
    return [rng.normal(size=shape) for shape in ((n, d), (d, h), (h,), (h, o))]


@pytest.mark.parametrize("seed", range(8))
def test_gradients_of_a_network(seed):
    arrays = operands(seed)

    def loss(*args):
        return (network(*args) ** 2).sum()

    value, gradients = value_and_grad(loss, argnums=(0, 1, 2, 3))(*arrays)
    expected, expected_value = torch.func.grad_and_value(loss, argnums=(0, 1, 2, 3))(*tensors(*arrays))
    assert value == pytest.approx(expected_value.item(), rel=1e-12)
    for ours, theirs in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), **TOLERANCE)
    for k in range(4):   # the others are passed on as they are
        np.testing.assert_allclose(grad(loss, k)(*map(Tensor, arrays)), expected[k].numpy(), **TOLERANCE)
    by_list = grad(lambda x: loss(Tensor(x), *map(Tensor, arrays[1:])))(arrays[0].tolist())
    np.testing.assert_allclose(by_list, expected[0].numpy(), **TOLERANCE)


@pytest.mark.parametrize("seed", range(8))
def test_jacobians_of_a_network(seed):
    arrays = operands(seed)

    def outputs(*args):
        return network(*args)

    result = jacobian(outputs, argnums=(0, 1, 2, 3))(*arrays)
    expected = torch.autograd.functional.jacobian(outputs, tensors(*arrays))
    for ours, theirs in zip(result, expected, strict=True):
        assert ours.shape == tuple(theirs.shape)
        np.testing.assert_allclose(ours, theirs.numpy(), **TOLERANCE)
    single = jacobian(lambda w: outputs(Tensor(arrays[0]), w, *map(Tensor, arrays[2:])))(arrays[1])
    np.testing.assert_allclose(single, expected[1].numpy(), **TOLERANCE)
    assert gradcheck(outputs, tuple(arrays), rtol=1e-5)


# Functions of a matrix that is not constant along an axis: ours and theirs.
FUNCTIONS = {
    "softmax": (lambda x: x.softmax(), lambda x: torch.softmax(x, -1)),
    "log_softmax": (lambda x: x.log_softmax(axis=0), lambda x: torch.log_softmax(x, 0)),
    "logsumexp": (lambda x: x.logsumexp(axis=1), lambda x: torch.logsumexp(x, 1)),
    "mean": (lambda x: x.mean(axis=0), lambda x: x.mean(0)),
    "max": (lambda x: x.max(axis=1), lambda x: x.max(1).values),
    "transpose": (lambda x: x.T @ x, lambda x: x.T @ x),
    "picked": (lambda x: x[[0, 2, 0]] * 2.0, lambda x: x[[0, 2, 0]] * 2.0),
    "a row and a column": (lambda x: x[1] * x[:, 0].sum(), lambda x: x[1] * x[:, 0].sum()),
    "powers": (lambda x: abs(x) ** x[0, 0], lambda x: abs(x) ** x[0, 0]),
    "clip": (lambda x: flatgrad.clip(x, -0.5, 0.5), lambda x: torch.clamp(x, -0.5, 0.5)),
    "stopped": (lambda x: x * x.detach() + Tensor(x * 2.0, requires_grad=False) * x,
                lambda x: x * x.detach() + (x * 2.0).detach() * x),
    "one result, stopped": (lambda x: (x * Tensor(x * 2.0, requires_grad=False))[1, 1],
                            lambda x: (x * (x * 2.0).detach())[1, 1]),
    "elements": (lambda x: [x[0, 0] * x[2, 1], x[1, 1].tanh(), 3.0],
                 lambda x: torch.stack([x[0, 0] * x[2, 1], x[1, 1].tanh(), torch.tensor(3.0).double()])),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jacobians_of_functions_of_a_matrix(name):
    ours, theirs = FUNCTIONS[name]
    rng = np.random.default_rng(17)
    for _ in range(3):
        x = rng.normal(size=(3, 2))
        expected = torch.autograd.functional.jacobian(theirs, *tensors(x))
        result = jacobian(ours)(x)
        assert result.shape == tuple(expected.shape)
        np.testing.assert_allclose(result, expected.numpy(), **TOLERANCE)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives_of_functions_of_a_matrix(name):
    ours, theirs = FUNCTIONS[name]
    rng = np.random.default_rng(18)

    def squares(x):
        found = ours(x)
        return flatgrad.sum([part**2 for part in found] if isinstance(found, list) else found**2)

    for _ in range(3):
        x, v = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
        expected = torch.autograd.functional.hessian(lambda x: (theirs(x) ** 2).sum(), *tensors(x)).numpy()
        np.testing.assert_allclose(hessian(squares)(x), expected, **TOLERANCE)
        np.testing.assert_allclose(hvp(squares, x, v), np.tensordot(expected, v, 2), **TOLERANCE)
        np.testing.assert_allclose(jacobian(grad(squares))(x), expected, **TOLERANCE)
        np.testing.assert_allclose(jacfwd(ours)(x), jacobian(ours)(x), **TOLERANCE)
        if name not in ("stopped", "one result, stopped"):
            assert gradgradcheck(ours, x, rtol=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_second_derivatives_of_a_network(seed):
    arrays, rng = operands(seed), np.random.default_rng(seed)

    def loss(*args):
        return (network(*args) ** 2).sum()

    found = hessian(loss, argnums=(0, 1, 2, 3))(*arrays)
    expected = torch.autograd.functional.hessian(loss, tensors(*arrays))
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.shape == tuple(other.shape)
            np.testing.assert_allclose(one, other.numpy(), **TOLERANCE)
    directions = [rng.normal(size=a.shape) for a in arrays]
    value, slope = jvp(network, arrays, directions)
    expected_value, expected_slope = torch.autograd.functional.jvp(network, tensors(*arrays), tensors(*directions))
    np.testing.assert_allclose(value, expected_value.numpy(), **TOLERANCE)
    np.testing.assert_allclose(slope, expected_slope.numpy(), **TOLERANCE)
    weights = rng.normal(size=value.shape)
    expected_gradients = torch.func.vjp(network, *tensors(*arrays))[1](*tensors(weights))
    for ours, theirs in zip(vjp(network, *arrays)[1](weights), expected_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), **TOLERANCE)
    product = hvp(lambda a: loss(*a), arrays, directions)
    expected_product = torch.autograd.functional.hvp(loss, tensors(*arrays), tensors(*directions))[1]
    for ours, theirs in zip(product, expected_product, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), **TOLERANCE)
    assert gradgradcheck(network, tuple(arrays), rtol=1e-4)


def test_the_third_derivative_of_a_network():
    arrays = operands(1)

    def penalty(w1, b1, w2, module=flatgrad):
        """The square of the gradient's norm, by the inputs."""
        x = arrays[0] if module is flatgrad else tensors(arrays[0])[0]
        slope = (grad if module is flatgrad else torch.func.grad)(lambda x: network(x, w1, b1, w2).sum())(x)
        return (slope * slope).sum()

    found = hessian(penalty, argnums=(0, 2))(*arrays[1:])
    expected = torch.func.jacrev(torch.func.jacrev(lambda *args: penalty(*args, module=torch), argnums=(0, 2)),
                                 argnums=(0, 2))(*tensors(*arrays[1:]))
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other.numpy(), **TOLERANCE)


def test_the_structure_of_the_gradient_is_theirs():
    def f(p):
        return (p["w"] * p["nested"][0]).sum() * p["nested"][1][0]

    w, v, s = np.array([1.0, 2.0]), np.array([3.0, -1.0]), np.array(0.5)
    expected = torch.func.grad(f)({"w": tensors(w)[0], "nested": [tensors(v)[0], (tensors(s)[0],)]})
    result = grad(f)({"w": w, "nested": [v, (s,)]})
    assert list(result) == list(expected) and type(result["nested"]) is list and type(result["nested"][1]) is tuple
    np.testing.assert_allclose(result["w"], expected["w"].numpy(), **TOLERANCE)
    np.testing.assert_allclose(result["nested"][0], expected["nested"][0].numpy(), **TOLERANCE)
    assert result["nested"][1][0] == expected["nested"][1][0].item()


def test_gradcheck_passes_and_fails_where_theirs_does():
    """A slope that is wrong by a given part, with the same tolerances."""
    def ours(wrong):
        return lambda x: flatgrad.Value(x.data**2, (x,), (2.0 * x.data * (1.0 + wrong),))

    def theirs(wrong):
        class Square(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x**2

            @staticmethod
            def backward(ctx, dz):
                return dz * 2.0 * ctx.saved_tensors[0] * (1.0 + wrong)

        return Square.apply

    x = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    outcomes = set()
    for wrong in (0.0, 5e-4, -0.9e-3, 1.1e-3, -2e-3, 0.1):
        for tolerances in ({}, {"rtol": 1e-5}, {"rtol": 1e-5, "atol": 1e-3}, {"atol": 0.0}):
            passes = torch.autograd.gradcheck(theirs(wrong), x, raise_exception=False, **tolerances)
            assert gradcheck(ours(wrong), 1.5, raise_exception=False, **tolerances) == passes
            outcomes.add(passes)
    assert outcomes == {True, False}
