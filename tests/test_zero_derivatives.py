"""Derivatives of recorded calls that are 0 for some operands, or for all: the program of the derivative is smaller, or
there is none. Programs with holes between their operands; rules that call what is recorded."""
import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, compile, grad, vmap

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def numbers(x):
    return np.asarray(x.numpy() if isinstance(x, Tensor) else x.data if isinstance(x, Value) else x, float)


def gradients(y, xs):
    """Those of the sum of y as nodes, None where it does not depend on x."""
    y = y if isinstance(y, Value) else y.sum()
    found = flatgrad.gradients(y, xs, create_graph=True, allow_unused=True)
    return [g if g is None else numbers(g) for g in found]


def same(found, expected):
    """0 and no gradient are the same."""
    return all(np.allclose(0.0 if x is None else x, 0.0 if y is None else y, rtol=1e-12, atol=0.0)
               for x, y in zip(found, expected, strict=True))


FUNCTIONS = {   # of two numbers
    "no operand": lambda x, y: flatgrad.floor(x * 3.0) * 2.0 + flatgrad.floor(y),
    "the first": lambda x, y: x.exp() + flatgrad.floor(y),
    "the second": lambda x, y: flatgrad.floor(x) * 2.0 + y.exp(),
    "both": lambda x, y: x.exp() * flatgrad.floor(y + 1.0) * y,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_of_a_program(name):
    f = FUNCTIONS[name]
    x, y = Value(0.7), Value(1.9)
    assert same(gradients(compile(f)(x, y), [x, y]), gradients(f(x, y), [x, y]))
    twice = [grad(grad(g, argnums=1), argnums=0)(0.7, 1.9) for g in (f, compile(f))]
    assert twice[0] == pytest.approx(twice[1], rel=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("in_axes", [(0, 0), (0, None), (None, 0)])
def test_of_a_batch(name, in_axes):
    f = FUNCTIONS[name]
    x, y = [Value(0.7 + k) if axis is None else Tensor([0.7, 1.2, -0.4 + k])
            for k, axis in enumerate(in_axes)]
    found = gradients(vmap(f, in_axes)(x, y), [x, y])
    rows = [[v if axis is None else v[k] for v, axis in zip((x, y), in_axes)] for k in range(3)]
    assert same(found, gradients(sum(f(*row) for row in rows), [x, y]))


def test_of_one_result_of_a_batch():
    """The other one depends on the operands."""
    xs = Tensor([0.7, 1.2, -0.4])
    smooth, steps = vmap(lambda v: (v.exp(), flatgrad.floor(v * 3.0) + v.detach()))(xs)
    assert same(gradients(smooth, [xs]), [np.exp(xs.numpy())]) and same(gradients(steps, [xs]), [None])
    assert same(gradients(smooth.sum() + steps.sum(), [xs]), [np.exp(xs.numpy())])
    recording = _core._Recording([v := Value(0.5)])
    with recording:
        results = [v.exp(), flatgrad.floor(v * 3.0)]
    smooth, steps = recording.program(results).mapped(3, [True])([xs])
    assert same(gradients(steps, [xs]), [None]) and same(gradients(smooth, [xs]), [np.exp(xs.numpy())])
    assert same(gradients(smooth + steps, [xs]), [np.exp(xs.numpy())])


STEPS = {   # of a carry, an x and a captured number: the next carry and an output
    "none": lambda c, v, w: (flatgrad.floor(c * 2.0 + v), flatgrad.floor(v * w)),
    "the carry": lambda c, v, w: ((c * 1.1).sin(), c * 2.0 + flatgrad.floor(v * w)),
    "x": lambda c, v, w: (flatgrad.floor(c + w), v * v),
    "captured": lambda c, v, w: (flatgrad.floor(c + v), w * w),
    "the output": lambda c, v, w: (flatgrad.floor(c + v) + w, v * w),
    "all": lambda c, v, w: ((c * v).sin() + w, c * v * w),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("of", ["end", "path", "both"])
def test_of_a_scan(name, of):
    def result(end, path):
        return end if of == "end" else path if of == "path" else end * path

    step, init, xs, w = STEPS[name], Value(0.3), Tensor([0.5, 1.25, -0.75, 2.0]), Value(1.7)
    end, path = flatgrad.scan(lambda c, v: step(c, v, w), init, xs)
    found = gradients(result(end, path.sum()), [init, xs, w])
    c, outputs = init, []
    for v in xs:
        c, out = step(c, v, w)
        outputs.append(out)
    assert same(found, gradients(result(c, flatgrad.sum(outputs)), [init, xs, w]))


# ---- holes ----

def test_programs_with_holes():
    """A pickle may have a program some of whose operands are in no segment: they are 0, and so is what flows there."""
    recording = _core._Recording([x := Tensor([1.0, 2.0, 3.0, 4.0, 5.0])])
    with recording:
        results = [(x * x * np.array([1.0, 10.0, 100.0, 1000.0, 10000.0])).sum()]
    body = recording.program(results).__reduce__()[1][0]
    restore, (operands, copies, _) = body.__reduce__()
    for segments, shapes in ((((2, 2),), ((2,),)), (((1, 1), (3, 2)), ((), (2,))), (((2, 1), (5, 1)), ((), ())),
                             (((1, 5),), ((5,),))):
        program = _core._restore_program(restore(operands, copies, segments), (), (), (0,), shapes, (((), False),), ())
        scales = np.array([1.0, 10.0, 100.0, 1000.0, 10000.0])
        given = [np.full(shape, 0.01) if shape else 0.01 for shape in shapes]
        xs = [Tensor(x) if np.shape(x) else Value(x) for x in given]
        places = [slice(first - 1, first - 1 + count) for first, count in segments]
        y = program(xs)[0]
        expected = [2.0 * 0.01 * scales[place] for place in places]
        assert y.data == pytest.approx(sum(1e-4 * scales[place].sum() for place in places), rel=1e-12)
        assert all(np.allclose(numbers(g), e, rtol=1e-10) for g, e in zip(gradients(y, xs), expected))
        first, = flatgrad.gradients(y, xs[:1], create_graph=True)
        second, = gradients(first, xs[:1])
        assert np.allclose(second, 2.0 * scales[places[0]], rtol=1e-9)
        assert _core._Evaluator(program, [0])(given)[0] == pytest.approx(y.data, rel=1e-14)
    signed = _core._restore_program(restore(operands, copies, ((2, 1),)), (), (), (0,), ((),), (((), False),), (1,))
    with pytest.raises(flatgrad.errors.DataError, match="target: expected -1 or 1, got 0"):
        _core._Evaluator(signed, [0])([1.0])


# ---- rules that call what is recorded ----

def inner_scan(x):
    return flatgrad.scan(lambda c, v: (c * v, c), x, Tensor([1.0, 2.0], requires_grad=False))[0]


def inner_rows(x):
    return vmap(lambda v: v * x)(Tensor([1.0, 1.0], requires_grad=False)).sum()


def inner_program(x):
    return doubled(x)


doubled = compile(lambda x: x * 2.0)


@pytest.mark.parametrize("inner", [inner_scan, inner_rows, inner_program])
def test_a_rule_that_calls_a_recorded_function(inner):
    """x**2, whose rule has its 2 x by a scan, by a batch, or by a program."""
    squared = flatgrad.custom_derivative(lambda x: x * x)
    squared.defvjp(lambda x: (x * x, x), lambda x, g: (g * inner(x),))
    f = compile(lambda x: squared(x) * x)
    x = 1.3
    assert f(Value(x)).data == pytest.approx(x**3, rel=1e-14)
    assert grad(f)(x) == pytest.approx(3.0 * x * x, rel=1e-12)
    assert grad(compile(grad(f)))(x) == pytest.approx(6.0 * x, rel=1e-12)
    assert grad(compile(grad(compile(grad(f)))))(x) == pytest.approx(6.0, rel=1e-12)


def test_a_rule_without_a_gradient_for_what_is_wanted():
    """The operand that the rule leaves out has the gradient 0."""
    scaled = flatgrad.custom_derivative(lambda x, y: x * y)
    scaled.defvjp(lambda x, y: (x * y, y), lambda y, g: (g * y, None))
    f = compile(lambda x, y: scaled(x * 2.0, y))
    x, y = Value(3.0), Value(5.0)
    assert same(gradients(f(x, y), [x, y]), [10.0, None])
    assert same(gradients(f(3.0, y), [y]), [None])
