"""gradients, backward(gradient, create_graph) and custom_derivative against PyTorch: the same code on both sides."""
import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value

torch = pytest.importorskip("torch")

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
RNG = np.random.default_rng(14)


class Ours:
    """flatgrad by the names that the code here has for both."""

    grad = staticmethod(flatgrad.gradients)

    @staticmethod
    def tensor(x):
        x = np.asarray(x, np.float64)
        return Tensor(x) if x.ndim else Value(float(x))

    @staticmethod
    def numbers(x):
        return None if x is None else np.asarray(x.data if isinstance(x, (Value, Tensor)) else x)


class Theirs:
    grad = staticmethod(torch.autograd.grad)

    @staticmethod
    def tensor(x):
        return torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=True)

    @staticmethod
    def numbers(x):
        return None if x is None else x.detach().numpy()


def both(function, *arrays):
    """What the function, called with the one and the other, returns, has to be the same."""
    ours, theirs = ([side.numbers(x) for x in function(side, *map(side.tensor, arrays))] for side in (Ours, Theirs))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, **TOLERANCE)


def model(x, w, v, s):
    return ((x @ w).tanh() @ v).sigmoid() * s + (x * x).sum() * s**3


SHAPES = (4, 3), (3, 5), (5, 2), ()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("create_graph", [False, True])
def test_several_outputs_and_inputs(seed, create_graph):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape) for shape in SHAPES]

    def found(side, x, w, v, s):
        y = model(x, w, v, s)
        z = (y * y).sum() * s
        given = side.tensor(np.arange(8.0).reshape(4, 2))
        return side.grad([y, z, s], [x, s, w, y], grad_outputs=[given, None, side.tensor(0.5)],
                         create_graph=create_graph)

    both(found, *arrays)


@pytest.mark.parametrize("seed", range(6))
def test_three_orders(seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape) * 0.5 for shape in SHAPES]

    def found(side, *leaves):
        y, results = model(*leaves).sum(), []
        for _ in range(3):
            slopes = side.grad(y, leaves, create_graph=True)
            results += slopes
            y = sum((g * g).sum() if g.shape else g * g for g in slopes) if side is Theirs else sum(
                (g * g).sum() if isinstance(g, Tensor) else g * g for g in slopes)
        return results

    both(found, *arrays)


def test_unused_inputs():
    arrays = [RNG.normal(size=shape) for shape in ((3,), (2, 2), ())]
    for options in ({"allow_unused": True}, {"materialize_grads": True}, {"allow_unused": True, "materialize_grads": True}):
        both(lambda side, x, w, s: side.grad((x * x).sum(), [x, w, s], **options), *arrays)
    for side in Ours, Theirs:
        x, w, s = map(side.tensor, arrays)
        with pytest.raises(RuntimeError):
            side.grad((x * x).sum(), [x, w])
        with pytest.raises(ValueError):
            side.grad((x * x).sum(), [x, w], allow_unused=False, materialize_grads=True)
        with pytest.raises((RuntimeError, ValueError)):
            side.grad(x * x, [x])


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")   # PyTorch does not free such cycles, and says so
@pytest.mark.parametrize("seed", range(4))
def test_backward_adds_to_leaves(seed):
    """Whichever passes follow each other, gradients are the same numbers, and those that have a graph have the same
    derivatives."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape) * 0.5 for shape in SHAPES]
    weights = rng.normal(size=(4, 2))

    def found(side, *leaves):
        y = model(*leaves)
        y.backward(side.tensor(weights), create_graph=True)
        results = [leaf.grad for leaf in leaves]
        (y * y).sum().backward(create_graph=True)
        results += [leaf.grad for leaf in leaves]
        total = sum((leaf.grad * leaf.grad).sum() if hasattr(leaf.grad, "sum") else leaf.grad * leaf.grad
                    for leaf in leaves)
        for leaf in leaves:
            leaf.grad = None if side is Theirs else 0.0
        total.backward()
        return results + [leaf.grad for leaf in leaves]

    both(found, *arrays)


def test_a_gradient_penalty_in_training():
    """A step of SGD by a loss with the gradient by the input in it, as in Wasserstein networks."""
    arrays = [RNG.normal(size=shape) * 0.5 for shape in SHAPES]

    def found(side, x, w, v, s):
        make = flatgrad.optim.SGD if side is Ours else torch.optim.SGD
        optimizer = make([w, v, s], lr=0.05, momentum=0.5)
        for _ in range(4):
            optimizer.zero_grad()
            y = model(x, w, v, s)
            slope, = side.grad(y.sum(), [x], create_graph=True)
            loss = (y * y).mean() + ((slope * slope).sum() - 1.0) ** 2
            loss.backward()
            optimizer.step()
        return [w, v, s]

    both(found, *arrays)


def soft_clip(side):
    """x / (1 + |x|) * w, and a rule of its own for x that leaves the square out."""
    def forward(x, w):
        return x / (abs(x) + 1.0) * w

    def rule(x, w, g):
        return g * w / (abs(x) + 1.0), g * x / (abs(x) + 1.0)

    if side is Ours:
        f = flatgrad.custom_derivative(forward)
        f.defvjp(lambda x, w: (forward(x, w), (x, w)), lambda residuals, g: rule(*residuals, g))
        return f

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return forward(x, w)

        @staticmethod
        def backward(ctx, g):
            return rule(*ctx.saved_tensors, g)

    return Function.apply


@pytest.mark.parametrize("shape", [(), (7,), (3, 4)])
def test_rules_in_three_orders(shape):
    def found(side, x, w):
        f, results = soft_clip(side), []
        y = (f(x, w) * x + f(f(w, x), w)).sum() if shape else f(x, w) * x + f(f(w, x), w)
        for _ in range(3):
            slopes = side.grad(y, [x, w], create_graph=True)
            results += slopes
            y = (slopes[0] * slopes[1]).sum() if shape else slopes[0] * slopes[1]
        return results

    both(found, RNG.normal(size=shape), RNG.normal(size=shape))


def test_the_comparison_can_fail():
    with pytest.raises(AssertionError):
        both(lambda side, x: side.grad((x * x).sum() * (1.0 + 1e-8 * (side is Ours)), [x]), RNG.normal(size=3))
