"""`flatgrad.autograd.Function`: operations with forward and backward, with PyTorch's numbers to the third derivative."""
from __future__ import annotations

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, autograd
from flatgrad.autograd import Function
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError


def operations(Function):
    """The same classes for flatgrad and for PyTorch: arguments have the methods of both."""
    class Exp(Function):   # saves its result
        @staticmethod
        def forward(ctx, x):
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, g):
            y, = ctx.saved_tensors
            return g * y

    class Cube(Function):   # saves its argument, and a constant
        @staticmethod
        def forward(ctx, x, factor):
            ctx.save_for_backward(x)
            ctx.factor = factor
            return factor * x * x * x

        @staticmethod
        def backward(ctx, g):
            x, = ctx.saved_tensors
            assert ctx.needs_input_grad[0] is True and ctx.needs_input_grad[1] is False
            return g * 3.0 * ctx.factor * x * x, None

    class Circle(Function):   # two arguments and two results
        @staticmethod
        def forward(r, t):
            return r * t.cos(), r * t.sin()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs, *output)

        @staticmethod
        def backward(ctx, dx, dy):
            r, t, x, y = ctx.saved_tensors
            return dx * t.cos() + dy * t.sin(), x * dy - y * dx

    class Rounded(Function):   # the derivative is another one: its own, of what it returns
        @staticmethod
        def forward(ctx, x):
            y = x.floor()
            ctx.save_for_backward(y, x)
            return y

        @staticmethod
        def backward(ctx, g):
            y, x = ctx.saved_tensors
            return g * (y + 2.0 * x)

    class Parts(Function):   # the second result is a constant
        @staticmethod
        def forward(ctx, x):
            whole = x.floor()
            ctx.mark_non_differentiable(whole)
            ctx.save_for_backward(x)
            return x * x, whole

        @staticmethod
        def backward(ctx, g, of_whole):
            x, = ctx.saved_tensors
            return 2.0 * x * g

    return SimpleNamespace(Exp=Exp, Cube=Cube, Circle=Circle, Rounded=Rounded, Parts=Parts)


FUNCTIONS = {
    "Exp": lambda of, x, y: (of.Exp.apply(x * y) * of.Exp.apply(x)).sum(),
    "Cube": lambda of, x, y: (of.Cube.apply(x * y, 0.5) * y.sin()).sum(),
    "Circle": lambda of, x, y: sum((p * q).sum() for p, q in [of.Circle.apply(x * x, y), of.Circle.apply(y, x)]),
    "Rounded": lambda of, x, y: (of.Rounded.apply(x * y) * x.exp()).sum(),
    "Parts": lambda of, x, y: (of.Parts.apply(x * y)[0] * of.Parts.apply(y * y)[1] * x).sum(),
}
X, Y = np.array([0.3, -1.2, 2.5]), np.array([1.5, 0.4, -0.7])
OURS = operations(Function)


def derivatives(module, f, x, y):
    """The first, second and third derivatives, each of the sum of the last ones' squares."""
    found, last = [], f(x, y)
    for _ in range(3):
        gradients = module.grad(last)
        found += [np.asarray(g.detach().numpy()) for g in gradients]
        last = sum((g * g).sum() for g in gradients)
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    theirs, f = operations(torch.autograd.Function), FUNCTIONS[name]
    x, y = Tensor(X), Tensor(Y)
    ours = derivatives(SimpleNamespace(grad=lambda out: flatgrad.gradients(out, [x, y], create_graph=True)),
                       lambda *args: f(OURS, *args), x, y)
    a, b = (torch.tensor(z, requires_grad=True) for z in (X, Y))
    expected = derivatives(SimpleNamespace(grad=lambda out: torch.autograd.grad(out, [a, b], create_graph=True)),
                           lambda *args: f(theirs, *args), a, b)
    for found, right in zip(ours, expected):
        np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_functions_have_the_same_derivatives(name):
    f = FUNCTIONS[name]
    whole = flatgrad.compile(lambda x, y: f(OURS, x, y))
    both = (0, 1)
    for transform in (flatgrad.grad, flatgrad.hessian):
        if transform is flatgrad.grad:
            pairs = zip(transform(whole, both)(X, Y), transform(lambda x, y: f(OURS, x, y), both)(X, Y))
        else:
            pairs = zip(np.array(transform(whole, both)(X, Y)), np.array(transform(lambda x, y: f(OURS, x, y), both)(X, Y)))
        for found, right in pairs:
            np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-12)


def test_right_derivatives_pass_gradcheck_and_wrong_ones_do_not():
    for name in ("Exp", "Cube", "Circle"):
        f = FUNCTIONS[name]
        assert flatgrad.gradcheck(lambda x, y: f(OURS, x, y), (X, Y))
        assert flatgrad.gradgradcheck(lambda x, y: f(OURS, x, y), (X, Y))
    with pytest.raises(flatgrad.checking.GradcheckError):
        flatgrad.gradcheck(lambda x, y: FUNCTIONS["Rounded"](OURS, x, y), (X, Y))


# ---- forward by plain numbers ----

class Numbers(Function):
    """NumPy's, with an argument and a result saved."""
    @staticmethod
    def forward(ctx, x, k):
        y = np.exp(k * x.data)
        ctx.k = k
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * ctx.k * y, None


def test_numbers_have_all_derivatives():
    f = lambda x: Numbers.apply(x, 2.0).sum()
    expected = lambda x: (2.0 * x).exp().sum()
    assert flatgrad.gradgradcheck(f, X)
    for transform in (flatgrad.grad, flatgrad.hessian, flatgrad.jacobian):
        np.testing.assert_allclose(transform(f)(X), transform(expected)(X), rtol=1e-12)
    third = lambda f: flatgrad.grad(lambda x: flatgrad.grad(lambda x: flatgrad.grad(f)(x).sum())(x).sum())(X)
    np.testing.assert_allclose(third(f), third(expected), rtol=1e-12)


def kept(keep):
    """A Function that reads a number and keeps something of it."""
    class Sine(Function):
        @staticmethod
        def forward(ctx, x):
            keep(ctx, x)
            return math.sin(x.data)

        @staticmethod
        def backward(ctx, g):
            return g * (ctx.c if hasattr(ctx, "c") else ctx.saved_tensors[0])
    return Sine


@pytest.mark.parametrize("keep, what", [
    (lambda ctx, x: setattr(ctx, "c", math.cos(x.data)), "ctx.c"),
    (lambda ctx, x: setattr(ctx, "c", Value(math.cos(x.data))), "ctx.c"),
    (lambda ctx, x: ctx.save_for_backward(np.cos(x.data)), "ctx.saved_tensors"),
    (lambda ctx, x: ctx.save_for_backward(x.cos() * 1.0), "ctx.saved_tensors"),
])
def test_second_derivatives_that_would_be_wrong_are_refused(keep, what):
    Sine, x = kept(keep), Value(0.5)
    assert flatgrad.gradients(Sine.apply(x), x)[0].data == math.cos(0.5)
    Sine.apply(x).backward()
    assert x.grad == math.cos(0.5)
    with pytest.raises(ArgumentTypeError, match=rf"Function: Sine: the derivative of its backward .*and {what} has something"):
        flatgrad.gradients(Sine.apply(x), x, create_graph=True)
    with pytest.raises(ArgumentTypeError, match="Function: Sine"):
        flatgrad.hessian(Sine.apply)(0.5)


def test_a_backward_of_numbers_has_first_derivatives():
    class Square(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            x, = ctx.saved_tensors
            return 2.0 * x.data * g.data

    assert flatgrad.grad(Square.apply)(3.0) == 6.0
    with pytest.raises(ArgumentTypeError, match="Function: Square: .* Write backward with operations of flatgrad"):
        flatgrad.hessian(Square.apply)(3.0)
    with pytest.raises(ArgumentTypeError):
        flatgrad.compile(Numbers.apply)(X, 2.0)


# ---- what apply takes and returns ----

def test_results_and_constants():
    assert type(OURS.Exp.apply(Value(0.0))) is Value
    first, second = OURS.Parts.apply(Tensor(X))
    assert first.requires_grad and not second.requires_grad and second.tolist() == [0.0, -2.0, 2.0]
    first, second = OURS.Parts.apply(Value(1.5))
    assert first._children and not second._children and second.data == 1.0
    for call in (lambda: OURS.Exp.apply(Tensor(X, requires_grad=False)), lambda: Numbers.apply(Tensor(X, requires_grad=False), 1)):
        assert not call().requires_grad
    with flatgrad.no_grad():
        assert not Numbers.apply(Tensor(X), 1.0).requires_grad
    x = Tensor(X)
    OURS.Exp.apply(x)[0].backward()   # one element alone
    np.testing.assert_allclose(x.grad, [math.exp(X[0]), 0.0, 0.0])


def test_structures_are_arguments():
    class Line(Function):
        @staticmethod
        def forward(ctx, p, x):
            ctx.p, ctx.x = p, x
            return {"y": p["w"] * x + p["b"]}

        @staticmethod
        def backward(ctx, g):
            return {"w": g["y"] * ctx.x, "b": g["y"]}, g["y"] * ctx.p["w"]

    f = lambda p, x: Line.apply(p, x)["y"] ** 2
    assert flatgrad.grad(f, (0, 1))({"w": 2.0, "b": 1.0}, 3.0) == ({"w": 42.0, "b": 14.0}, 28.0)
    assert flatgrad.gradgradcheck(f, ({"w": 2.0, "b": 1.0}, 3.0))


def test_subclasses_and_methods_of_later():
    class Twice(OURS.Exp):
        @staticmethod
        def backward(ctx, g):
            return 2.0 * OURS.Exp.backward(ctx, g)

    assert flatgrad.grad(OURS.Exp.apply)(0.0) == 1.0 and flatgrad.grad(Twice.apply)(0.0) == 2.0
    Twice.backward = staticmethod(lambda ctx, g: 3.0 * g)
    assert flatgrad.grad(Twice.apply)(0.0) == 3.0
    assert autograd.Function is Function is flatgrad.rules.Function


def test_a_forward_may_call_its_own_function():
    class Power(Function):
        @staticmethod
        def forward(ctx, x, n):
            ctx.save_for_backward(x)
            ctx.n = n
            return x * Power.apply(x, n - 1) if n > 0 else x * 0.0 + 1.0

        @staticmethod
        def backward(ctx, g):
            x, = ctx.saved_tensors
            return g * ctx.n * Power.apply(x, ctx.n - 1) if ctx.n else None, None

    f = lambda x: Power.apply(x, 3)
    assert [d(2.0) for d in (f, flatgrad.grad(f), flatgrad.grad(flatgrad.grad(f)))][1:] == [12.0, 12.0]


# ---- errors ----

def of(forward=lambda ctx, x: x * 2.0, backward=lambda ctx, g: g * 2.0, **more):
    return type("Mine", (Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward), **more})


@pytest.mark.parametrize("change, error, message", [
    ({"backward": lambda ctx, g: (g, g)}, ArgumentTypeError, "Function: Mine: backward: expected a tuple with a gradient for "
                                                             "each of 1 arguments"),
    ({"backward": lambda ctx, g: "g"}, ArgumentTypeError, "Function: Mine: backward: gradient 0: expected a Value"),
    ({"backward": lambda ctx, g: np.ones(2)}, ArgumentTypeError, "Function: Mine: backward: gradient 0"),
    ({"backward": lambda ctx, g: ctx.x}, AttributeError, "Mine: ctx.x: forward has not set it"),
    ({"forward": lambda ctx, x: "x"}, ArgumentTypeError, "Function: Mine: the result: expected a number"),
    ({"forward": lambda ctx, x: ctx.mark_dirty(x)}, ArgumentTypeError, "Mine: ctx.mark_dirty: expected no argument"),
    ({"forward": lambda ctx, x: ctx.set_materialize_grads(False)}, ArgumentError, "set_materialize_grads: expected True"),
])
def test_what_is_wrong_is_told(change, error, message):
    x = Value(1.0)
    with pytest.raises(error, match=re.escape(message)):
        of(**change).apply(x).backward()
    assert x.grad == 0.0


def test_a_gradient_of_another_shape():
    with pytest.raises(ShapeError, match=re.escape("gradient 0: expected the shape (3,) of the argument, got (1, 3)")):
        of(backward=lambda ctx, g: g.reshape(1, 3)).apply(Tensor(X)).sum().backward()


def test_wrong_classes():
    for name in ("forward", "backward"):
        with pytest.raises(ArgumentTypeError, match=f"Mine: expected a static method {name}, got NoneType None"):
            type("Mine", (Function,), {n: staticmethod(len) for n in ("forward", "backward") if n != name}).apply(1.0)
    with pytest.raises(ArgumentTypeError, match="Mine: expected a static method setup_context, got int 3"):
        of(setup_context=3).apply(1.0)
    with pytest.raises(ArgumentTypeError, match=re.escape("Mine: expected a call of Mine.apply(...)")):
        of()()
