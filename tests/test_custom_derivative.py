"""flatgrad.custom_derivative: rules are what derivatives come from, of any order; what a rule may not do; calls that
are copied, saved, interrupted, and freed."""
import copy
import gc
import math
import pickle
import threading

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, custom_derivative, gradients, no_grad
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError

pytestmark = pytest.mark.usefixtures("nothing_left_behind", "moving")


def made(f, fwd, bwd, **options):
    f = custom_derivative(f, **options)
    f.defvjp(fwd, bwd)
    return f


def orders(f, number, count):
    """f at a number, and so many derivatives, each of the one before, and each by numbers as well."""
    x = Value(number)
    y, found = f(x), [f(x).data]
    for _ in range(count):
        by_number, = gradients(y, x, allow_unused=True, materialize_grads=True)
        y, = gradients(y, x, create_graph=True, allow_unused=True, materialize_grads=True)
        assert y.data == pytest.approx(by_number.data, rel=1e-12, abs=1e-300)
        found.append(y.data)
    return found


cube = made(lambda x: x**3, lambda x: (x**3, x), lambda x, g: (3.0 * x * x * g,))

# By plain numbers, and its own residual.
exponential = custom_derivative(lambda x: math.exp(x.data))
exponential.defvjp(lambda x: [(y, y) for y in [exponential(x)]][0], lambda y, g: (y * g,))


@custom_derivative
def doubled(x):
    """Twice the number."""
    return x * 2.0


def forward_of_doubled(x):
    return doubled(x), None


def rule_of_doubled(nothing, g):
    return (g * 2.0,)


doubled.defvjp(forward_of_doubled, rule_of_doubled)


# ---- rules are what counts ----

def test_orders_of_a_rule():
    assert orders(cube, 2.0, 5) == [8.0, 12.0, 12.0, 6.0, 0.0, 0.0]
    assert orders(exponential, 0.5, 5) == [pytest.approx(math.exp(0.5), rel=1e-15)] * 6
    assert orders(lambda x: cube(cube(x) * 0.5), 1.5, 3) == pytest.approx(
        [1.5**9 / 8, 9 * 1.5**8 / 8, 72 * 1.5**7 / 8, 504 * 1.5**6 / 8], rel=1e-12)
    # A rule that is wrong is what counts, and so is its derivative.
    wrong = made(lambda x: x**3, lambda x: (x**3, x), lambda x, g: (g * x.sin(),))
    assert orders(wrong, 2.0, 3) == pytest.approx([8.0, math.sin(2), math.cos(2), -math.sin(2)], rel=1e-12)


def test_log1pexp_where_its_own_derivative_overflows():
    f = made(lambda x: x + flatgrad.log1p(flatgrad.exp(-x)), lambda x: (f(x), x),
             lambda x, g: (g / (1.0 + flatgrad.exp(-x)),))
    assert orders(f, 100.0, 2) == pytest.approx([100.0, 1.0, math.exp(-100.0)], rel=1e-12)


def test_backward_adds_up_as_for_operations():
    z, u = Value(2.0), Value(2.0)
    own, ours = cube(z) * 2.0 + z, u**3 * 2.0 + u
    for _ in range(3):
        own.backward()
        ours.backward()
        assert z.grad == u.grad
    node = own._children[0]._children[0]
    assert node._op == "<lambda>" and node._local_grads == (12.0,) and node._prev == {z}


def test_a_result_that_is_used_twice_asks_once():
    asked = []
    f = made(lambda x: x * 1.0, lambda x: (x * 1.0, None), lambda r, g: asked.append(g.data) or (g,))
    x = Value(3.0)
    y = f(x)
    (y * y + y.sin() * 0.0).backward()
    assert asked == [6.0] and x.grad == 6.0


def pair(x, w):
    return {"rows": x * w["w"], "total": (x * x).sum()}, w["w"] * 3.0


def pair_rule(residuals, g):
    x, w = residuals
    (rows, total), more = (g[0]["rows"], g[0]["total"]), g[1]
    return rows * w + 2.0 * x * total, {"w": (rows * x).sum() + more * 3.0, "n": None}


several = made(pair, lambda x, w: (pair(x, w), (x, w["w"])), pair_rule)


@pytest.mark.parametrize("create_graph", [False, True])
def test_several_results_in_structures(create_graph):
    x, w = Tensor([1.0, 2.0, 3.0]), Value(2.0)
    own, more = several(x, {"w": w, "n": 7})
    assert own["rows"].tolist() == [2.0, 4.0, 6.0] and own["total"].data == 14.0 and more.data == 6.0
    plain, plain_more = pair(x, {"w": w})
    for output, same in ((own["rows"].sum(), plain["rows"].sum()), (own["total"], plain["total"]),
                         (more, plain_more), (own["rows"][1] * more, plain["rows"][1] * plain_more),
                         ((own["rows"] ** 2).sum() * own["total"], (plain["rows"] ** 2).sum() * plain["total"])):
        found = gradients(output, [x, w], create_graph=create_graph, materialize_grads=True)
        expected = gradients(same, [x, w], create_graph=create_graph, materialize_grads=True)
        assert [g.data.tolist() if isinstance(g, Tensor) else g.data for g in found] == [
            g.data.tolist() if isinstance(g, Tensor) else g.data for g in expected]
        if create_graph:
            again = [gradients((g * 1.5).sum() if isinstance(g, Tensor) else g * 1.5, [x, w], materialize_grads=True)
                     for pair_ in (found, expected) for g in pair_]
            for ours, theirs in zip(again[:2], again[2:]):
                np.testing.assert_allclose(ours[0].data, theirs[0].data, rtol=1e-13)
                assert ours[1].data == pytest.approx(theirs[1].data, rel=1e-13)


def test_what_no_gradient_reaches_is_0_whatever_was_there():
    x = Tensor([1.0, 2.0])
    f = made(lambda x: [x * 1.0, x.sum()], lambda x: ([x * 1.0, x.sum()], None),
             lambda r, g: (g[0] + Tensor([1.0, 1.0]) * g[1],))
    y, s = f(x)
    (y.sum() + s).backward()
    x.grad = 0.0
    y[0].backward()   # s has a gradient of 1 still, of the pass before
    assert x.grad.tolist() == [1.0, 0.0]
    assert s.grad == 1.0


def test_matrices_and_views():
    f = made(lambda x: x.T @ x, lambda x: (x.T @ x, x), lambda x, g: (x @ (g + g.T),))
    x = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    for view in x, x.T, x[:, 0:2]:
        own, = gradients(f(view)[0].sum(), x, create_graph=True)
        plain, = gradients((view.T @ view)[0].sum(), x, create_graph=True)
        assert own.tolist() == plain.tolist()
        assert gradients((own * own).sum(), x)[0].tolist() == gradients((plain * plain).sum(), x)[0].tolist()


def test_arguments_that_are_no_matter_of_derivatives():
    f = made(lambda x, k, y: x**k * y, lambda x, k, y: (x**k * y, (x, y)),
             lambda k, r, g: (g * k * r[0] ** (k - 1) * r[1], g * r[0]**k), nondiff_argnums=1)
    x, y = Value(2.0), Value(5.0)
    f(x, 3, y).backward()
    assert (x.grad, y.grad) == (60.0, 8.0)
    x.grad = y.grad = 0.0
    f(x, y=y, k=2).backward()
    assert (x.grad, y.grad) == (20.0, 4.0)
    frozen = Value(2.0)
    frozen.requires_grad = False
    f(frozen, 3, y).backward()
    assert (frozen.grad, y.grad) == (0.0, 12.0)


def test_without_operands_and_without_gradients_the_function_itself_runs():
    ran = []
    f = made(lambda x: ran.append("f") or x * 2.0, lambda x: ran.append("fwd") or (x * 2.0, None), lambda r, g: (g * 2.0,))
    assert f(3.0) == 6.0 and f(Value(3.0).detach()).data == 6.0
    with no_grad():
        assert f(Value(3.0))._op == "" and exponential(Value(0.0)).data == 1.0
    assert ran == ["f", "fwd", "f"]
    constant = Tensor([1.0], requires_grad=False)
    assert f(constant).tolist() == [2.0] and ran[-1] == "f"


def test_in_transforms_of_functions():
    assert flatgrad.grad(cube)(2.0) == 12.0
    assert flatgrad.grad(flatgrad.grad(cube))(2.0) == 12.0
    assert flatgrad.grad(flatgrad.grad(flatgrad.grad(cube)))(2.0) == 6.0
    assert flatgrad.hvp(cube, 2.0, 1.0) == 12.0 and flatgrad.jvp(cube, (2.0,), (1.0,)) == (8.0, 12.0)
    assert flatgrad.hessian(lambda x: cube(x[0]) * x[1])([2.0, 3.0]).tolist() == [[36.0, 12.0], [12.0, 0.0]]
    np.testing.assert_allclose(flatgrad.jacobian(lambda x: several(x, {"w": x[0], "n": 0})[0]["rows"])(np.array([2.0, 3.0])),
                               [[4.0, 0.0], [3.0, 2.0]])
    assert flatgrad.gradcheck(cube, 1.3) and flatgrad.gradgradcheck(cube, 1.3)


def test_methods_and_names():
    class Model:
        @custom_derivative
        def scaled(self, x):
            """Ten times x."""
            return x * 10.0

    Model.scaled.defvjp(lambda self, x: (x * 10.0, None), lambda r, g: (None, g * 10.0))
    x = Value(1.0)
    Model().scaled(x).backward()
    assert x.grad == 10.0
    assert doubled.__name__ == "doubled" and doubled.__doc__ == "Twice the number." and "doubled" in repr(doubled)


# ---- what is refused ----

def test_a_rule_of_numbers_gives_first_derivatives_alone():
    by_fwd = made(lambda x: math.sin(x.data), lambda x: (math.sin(x.data), math.cos(x.data)), lambda c, g: (c * g,))
    by_bwd = made(lambda x: x.sin(), lambda x: (x.sin(), x), lambda x, g: (math.cos(x.data) * g,))
    of_g = made(lambda x: x.sin(), lambda x: (x.sin(), x), lambda x, g: (x.cos() * g.item(),))
    hidden = made(lambda x: x.sin(), lambda x: (x.sin(), x * 2.0), lambda y, g: (g * math.cos(float(y) / 2.0),))

    def without_graph(x, g):
        with no_grad():
            slope = x.cos()
        return (slope * g,)

    unrecorded = made(lambda x: x.sin(), lambda x: (x.sin(), x), without_graph)
    for f, message in ((by_fwd, "fwd has read a number"), (by_bwd, "data: read of what depends"), (of_g, r"item\(\) of"),
                       (hidden, r"float\(\) of"), (unrecorded, "no_grad of")):
        x = Value(0.5)
        y = f(x) * 2.0
        y.backward()
        assert x.grad == pytest.approx(2.0 * math.cos(0.5), rel=1e-15)
        x.grad = 0.0
        for call in (lambda: gradients(y, x, create_graph=True), lambda: y.backward(create_graph=True)):
            with pytest.raises(ArgumentTypeError, match=f"custom_derivative: <lambda>: .*{message}"):
                call()
        assert x.grad == 0.0 and numbers_of(gradients(y, x)) == [pytest.approx(2.0 * math.cos(0.5), rel=1e-15)]


def numbers_of(found):
    return [np.asarray(g.data).tolist() for g in found]


def test_tensors_that_are_read_by_a_rule():
    f = made(lambda t: t * t, lambda t: (t * t, t), lambda t, g: (g * (2.0 * t.numpy()),))
    t = Tensor([1.0, 2.0])
    assert numbers_of(gradients(f(t).sum(), t)) == [[2.0, 4.0]]
    with pytest.raises(ArgumentTypeError, match="the numbers of a Tensor: read of what depends"):
        gradients(f(t).sum(), t, create_graph=True)


def test_comparisons_and_other_values_may_be_read():
    scale = Value(3.0)
    f = made(lambda x: abs(x), lambda x: (abs(x) * scale.data, x), lambda x, g: (g * scale.data if x > 0 else -g * x * x,))
    assert orders(f, 2.0, 2) == [6.0, 3.0, 0.0]
    assert orders(f, -2.0, 3) == [6.0, -4.0, 4.0, -2.0]
    f = made(lambda x: x * 3.0, lambda x: (x * Value(3.0).data, None), lambda r, g: (g * Value(3.0).data,))   # newer ones
    assert orders(f, 2.0, 2) == [6.0, 3.0, 0.0]


def test_a_rule_may_use_other_such_functions():
    """Which may read numbers themselves."""
    plain = made(lambda x: math.cos(x.data), lambda x: (math.cos(x.data), x), lambda x, g: (-math.sin(x.data) * g,))
    f = made(lambda x: x.sin(), lambda x: (x.sin(), x), lambda x, g: (plain(x) * g,))
    x = Value(0.5)
    slope, = gradients(f(x), x, create_graph=True)
    assert numbers_of(gradients(slope, x)) == [pytest.approx(-math.sin(0.5))]
    with pytest.raises(ArgumentTypeError, match="data: read"):
        gradients(slope, x, create_graph=True)


@pytest.mark.parametrize("fwd, bwd, error, message", [
    (lambda x: x, lambda r, g: (g,), ArgumentTypeError, "fwd: expected a pair, the result and what the rule needs"),
    (lambda x: ("no", x), lambda r, g: (g,), ArgumentTypeError, "the result: expected a number"),
    (lambda x: (x * 1.0, x), lambda r, g: g, ArgumentTypeError, "bwd: expected a tuple with a gradient for each of 1"),
    (lambda x: (x * 1.0, x), lambda r, g: (g, g), ArgumentTypeError, "a gradient for each of 1 arguments"),
    (lambda x: (x * 1.0, x), lambda r, g: ("no",), ArgumentTypeError, "gradient 0: expected a Value or number"),
    (lambda x: (x * 1.0, x), lambda r, g: (Tensor([1.0]),), ShapeError, r"gradient 0: expected the shape \(\)"),
    (lambda x: (x * 1.0, x), lambda r, g: ([g],), ArgumentTypeError, "gradient 0: expected a Value"),
    (lambda x: (x * 1.0, x), lambda r, g: 1 / 0, ZeroDivisionError, "division by zero"),
])
@pytest.mark.parametrize("create_graph", [False, True])
def test_mistakes_of_rules(fwd, bwd, error, message, create_graph):
    f = made(lambda x: x * 1.0, fwd, bwd)
    x = Value(2.0)
    with pytest.raises(error, match=message):
        (f(x) * 3.0).backward(create_graph=create_graph)
    assert x.grad == 0.0


def test_mistakes_of_calls():
    with pytest.raises(ArgumentTypeError, match="f: expected a callable, got int 3"):
        custom_derivative(3)
    with pytest.raises(ArgumentTypeError, match="nondiff_argnums: expected an int of 0 or more"):
        custom_derivative(abs, -1)
    f = custom_derivative(lambda x, *, y=2.0: x * y)
    with pytest.raises(ArgumentTypeError, match="defvjp: bwd: expected a callable, got None"):
        f.defvjp(abs, None)
    with pytest.raises(ArgumentError, match=r"has no rule; <lambda>.defvjp\(fwd, bwd\)"):
        f(Value(1.0))
    f.defvjp(lambda x: (x, None), lambda r, g: (g,))
    with pytest.raises(ArgumentTypeError, match="by position, got y by keyword"):
        f(Value(1.0), y=3.0)
    g = made(lambda x: x, lambda x: (x, None), lambda r, g: (g,), nondiff_argnums=3)
    with pytest.raises(ArgumentError, match="nondiff_argnums: there is no argument 3 among 1"):
        g(Value(1.0))


# ---- calls are nodes ----

def test_copies_and_pickles_keep_the_rule():
    x = Value(3.0)
    y = doubled(x) * x
    for again in copy.deepcopy, lambda z: pickle.loads(pickle.dumps(z)):
        own, other = again((y, x))
        own.backward()
        assert other.grad == 12.0 and x.grad == 0.0
        slope, = gradients(own, other, create_graph=True)
        assert numbers_of(gradients(slope, other)) == [4.0]
    assert copy.copy(y)._op == "*" and copy.copy(doubled) is doubled and pickle.loads(pickle.dumps(doubled)) is doubled


def test_a_rule_of_a_users_for_one_result():
    x = Tensor([1.0, 2.0])
    f = made(lambda t: t * 2.0, lambda t: (t * 2.0, None), lambda r, g: (g * 2.0,))
    y = f(x)
    seen = []
    y[1]._backward = lambda: seen.append(y[1].grad)
    (y * [10.0, 20.0]).sum().backward()
    assert seen == [20.0] and x.grad.tolist() == [20.0, 0.0]
    del y[1]._backward
    x.grad = 0.0
    y.grad = [1.0, 5.0]
    y[1]._backward()
    assert x.grad.tolist() == [0.0, 10.0]


def test_calls_are_freed_with_their_results():
    gc.collect()
    flatgrad.collect()
    before, programs = flatgrad.stats()["nodes"], _core._live_programs()
    x = Value(2.0)
    y = cube(exponential(x))
    slope, = gradients(y, x, create_graph=True)
    assert _core._live_programs() > programs
    del y, slope, x
    gc.collect()
    flatgrad.collect()
    assert (flatgrad.stats()["nodes"], _core._live_programs()) == (before, programs)


def test_a_result_among_what_the_rule_needs_is_freed():
    """A cycle by way of an attribute of the result's."""
    gc.collect()
    flatgrad.collect()
    before = flatgrad.stats()["nodes"]
    box = []
    f = made(lambda x: x * 2.0, lambda x: (x * 2.0, box), lambda r, g: (g * 2.0,))
    box.append(f(Value(1.0)))
    box[0].backward()
    del box, f
    gc.collect()
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] == before


# ---- enemies ----

def test_a_rule_that_changes_the_tape():
    kept = []

    def bwd(x, g):
        kept.append([Value(1.0) * k for k in range(50)])
        flatgrad.collect()
        kept.clear()
        flatgrad.collect()
        z = Value(3.0)
        (z * z).backward()
        assert z.grad == 6.0 or True
        return (g * 3.0 * x * x,)

    f = made(lambda x: x**3, lambda x: (x**3, x), bwd)
    for _ in range(3):
        x, t = Value(2.0), Tensor([1.0, 2.0])
        y = f(x) * t.sum() + f(f(x)) * 0.0
        y.backward()
        assert x.grad == 36.0 and t.grad.tolist() == [8.0, 8.0]
        assert numbers_of(gradients(y, x, create_graph=True)) == [36.0]


def test_a_rule_that_sweeps_through_its_own_node():
    depth = []

    def bwd(x, g):
        if not depth:
            depth.append(1)
            y.backward()
        return (g * 2.0,)

    f = made(lambda x: x * 2.0, lambda x: (x * 2.0, None), bwd)
    x = Value(1.0)
    y = f(x)
    y.backward()
    assert x.grad == 4.0   # two passes


def test_a_rule_that_is_interrupted():
    def bwd(r, g):
        raise KeyboardInterrupt

    f = made(lambda x: x * 2.0, lambda x: (x * 2.0, None), bwd)
    x = Value(1.0)
    y = f(x) + x * 3.0
    with pytest.raises(KeyboardInterrupt):
        y.backward()
    with pytest.raises(KeyboardInterrupt):
        gradients(y, x, create_graph=True)
    with pytest.raises(KeyboardInterrupt):
        gradients(y, x)
    x.grad = 0.0
    (x * 5.0).backward()
    assert x.grad == 5.0 and _core._check()


def test_finalizers_in_rules():
    class Noisy(Value):
        def __del__(self):
            flatgrad.collect()
            Value(1.0).exp()

    f = made(lambda x: Noisy(x.data) * 0.0 + x * 2.0, lambda x: (Noisy(0.0) + x * 2.0, Noisy(2.0)),
             lambda r, g: (g * (r + Noisy(0.0)),))
    x = Noisy(1.5)
    for _ in range(3):
        y = f(x) * Noisy(2.0)
        y.backward()
        slope, = gradients(y, x, create_graph=True)
        assert slope.data == 4.0
    assert x.grad == 12.0
    del x, y, slope


def test_threads():
    failed = []

    def work(seed):
        try:
            for k in range(30):
                x = Value(1.0 + seed + k)
                cube(x).backward()
                assert x.grad == 3.0 * x.data**2
                slope, = gradients(cube(x) * x, x, create_graph=True)
                assert slope.data == 4.0 * x.data**3
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_no_watch_is_left():
    with pytest.raises(ValueError):
        made(lambda x: x, lambda x: int("no"), lambda r, g: (g,))(Value(1.0))
    assert Value(1.0).data == 1.0 and _core._open_blocks() == (0, 0)


# ---- in recordings ----

# A rule that is not the derivative of what it is a rule of, so that it is seen which of the two counts.
wrong = made(lambda x: x**3, lambda x: (x**3, x), lambda x, g: (g * x.sin(),))
# And two that use their own function: by fwd, which gives its result to the rule, and in the rule. Half of each
# derivative is missing.
by_result = custom_derivative(lambda x: flatgrad.exp(x) * 1.0)
by_result.defvjp(lambda x: [(y, y) for y in [by_result(x)]][0], lambda y, g: (0.5 * y * g,))
in_rule = custom_derivative(lambda x: flatgrad.exp(x) * 1.0)
in_rule.defvjp(lambda x: (in_rule(x), x), lambda x, g: (0.5 * in_rule(x) * g,))
step = made(lambda x: flatgrad.where(x, 1.0, 0.0), lambda x: (step(x), None), lambda r, g: (g,))


@pytest.mark.parametrize("options", [{}, {"simplify": False}])
def test_orders_in_a_compiled_function(options):
    f = flatgrad.compile(lambda x: wrong(x) * 2.0 + x * x, **options)
    assert orders(f, 2.0, 4) == pytest.approx(
        [20.0, 2 * math.sin(2) + 4, 2 * math.cos(2) + 2, -2 * math.sin(2), -2 * math.cos(2)], rel=1e-12)
    for number in 0.5, 2.0:   # of the same program
        assert orders(flatgrad.compile(lambda x: cube(cube(x) * 0.5), **options), number, 3) == pytest.approx(
            [number**9 / 8, 9 * number**8 / 8, 72 * number**7 / 8, 504 * number**6 / 8], rel=1e-12)
    for own in by_result, in_rule:
        assert orders(flatgrad.compile(lambda x, own=own: own(x), **options), 0.5, 3) == pytest.approx(
            [math.exp(0.5) * 0.5**n for n in range(4)], rel=1e-12)
    x = Value(2.0)
    y = f(x)
    assert y._local_grads == pytest.approx((2 * math.sin(2) + 4,), rel=1e-12) and y._prev == {x}
    y.backward()
    y.backward()
    assert x.grad == pytest.approx(4 * math.sin(2) + 8, rel=1e-12)


def test_a_result_that_does_not_depend_on_its_argument_by_its_operations():
    f = flatgrad.compile(lambda x, w: step(x * w) * 3.0)
    x, w = Value(2.0), Value(5.0)
    f(x, w).backward()
    assert (x.grad, w.grad) == (15.0, 6.0)
    mixed, = gradients(gradients(f(x, w), x, create_graph=True)[0], w)
    assert mixed.data == 3.0
    constant = made(lambda x: Tensor([1.0, 2.0], requires_grad=False), lambda x: (constant(x), None),
                    lambda r, g: (g.sum() * 7.0,))
    f = flatgrad.compile(lambda x: (constant(x) * constant(x)).sum())
    f(x).backward()
    assert x.grad == 15.0 + 2 * 7 * 3
    silent = made(lambda x: x * 2.0, lambda x: (x * 2.0, None), lambda r, g: (None,))
    x = Value(3.0)
    y = flatgrad.compile(lambda x: silent(x) + x)(x)
    y.backward()
    assert (y.data, x.grad) == (9.0, 1.0)


def test_a_rule_that_uses_itself_without_end():
    x = Value(0.5)
    f = flatgrad.compile(in_rule)
    y = f(x)
    for _ in range(3):
        y, = gradients(y, x, create_graph=True)
    last, = gradients(y, x)
    assert last.data == pytest.approx(math.exp(0.5) / 16, rel=1e-12)
    with pytest.raises(ArgumentTypeError, match="whose rule calls its own function has at most 4 derivatives"):
        gradients(y, x, create_graph=True)
    assert f(x).data == pytest.approx(math.exp(0.5), rel=1e-15)


def same_numbers(ours, same):
    return all(np.allclose(g.data, h.data, rtol=1e-12, atol=0.0) for g, h in zip(ours, same, strict=True))


def test_two_functions_whose_rules_use_each_other():
    f = made(lambda x: flatgrad.sin(x), lambda x: (f(x), x), lambda x, g: (g * h(x) * 2.0,))
    h = made(lambda x: flatgrad.cos(x), lambda x: (h(x), x), lambda x, g: (-g * f(x) * 3.0,))
    expected = [math.sin(0.7), 2 * math.cos(0.7), -6 * math.sin(0.7), -12 * math.cos(0.7), 36 * math.sin(0.7)]
    assert orders(flatgrad.compile(f), 0.7, 4) == pytest.approx(expected, rel=1e-12)
    assert orders(f, 0.7, 4) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("create_graph", [False, True])
def test_structures_in_a_compiled_function(create_graph):
    k = Value(3.0)

    def f(x, w):
        own, more = several(x * 1.0, {"w": w, "n": 7})
        return (own["rows"] * own["rows"]).sum() * own["total"] + more * k

    x, w = Tensor([1.0, 2.0, 3.0]), Value(2.0)
    compiled = flatgrad.compile(f)
    ours = gradients(compiled(x, w), [x, w, k], create_graph=create_graph)
    same = gradients(f(x, w), [x, w, k], create_graph=create_graph)
    assert same_numbers(ours, same)
    if create_graph:
        found = [gradients(g[1] * g[0].sum(), [x, w]) for g in (ours, same)]
        assert same_numbers(*found)


def test_what_is_captured_by_a_rule():
    w, m = Value(3.0), Tensor([2.0, 5.0])
    f = made(lambda x: x * w + m[0], lambda x: (x * w + m[0], x),
             lambda x, g: (g * x * w * m[1],))
    compiled = flatgrad.compile(lambda x: f(x) * w)
    x = Value(2.0)
    assert [g.data for g in gradients(gradients(f(x) * w, x, create_graph=True)[0], [x, w])] == [45.0, 60.0]
    by_w, = gradients(gradients(flatgrad.compile(lambda x: f(x))(x), x, create_graph=True)[0], w)
    assert by_w.data == 10.0   # which the rule alone has
    for _ in range(2):   # what is captured is read at each call
        compiled(x).backward()
        assert x.grad == 2.0 * w.data * w.data * m[1].data and w.grad == 2.0 * w.data + m[0].data
        slope, = gradients(compiled(x), x, create_graph=True)   # x w w m[1]
        assert [g.data for g in gradients(slope, [x, w])] == pytest.approx(
            [w.data**2 * m[1].data, 4.0 * w.data * m[1].data], rel=1e-12)
        x.grad = w.grad = 0.0
        w.data, m.data = 4.0, np.array([-1.0, 0.5])


def test_arguments_that_are_no_matter_of_derivatives_in_a_compiled_function():
    f = made(lambda n, x: x**2 * n, lambda n, x: (x**2 * n, x), lambda n, x, g: (g * x * n,), nondiff_argnums=(0,))
    assert orders(flatgrad.compile(lambda x: f(5, x)), 3.0, 2) == [45.0, 15.0, 5.0]


def test_transforms_of_compiled_functions():
    for options in {}, {"dtype": "float32"}:
        f = flatgrad.compile(lambda x: wrong(x) * 2.0, **options)
        near = 1e-12 if not options else 1e-6
        assert flatgrad.grad(f)(2.0) == pytest.approx(2 * math.sin(2), rel=near)
        assert flatgrad.value_and_grad(f)(2.0) == pytest.approx((16.0, 2 * math.sin(2)), rel=near)
        t = Tensor([1.0, 2.0, 3.0, 4.0, 5.0])
        expected = [2 * math.sin(k) for k in t.tolist()]
        for g in flatgrad.vmap(f), flatgrad.compile(flatgrad.vmap(lambda x: wrong(x) * 2.0), **options):
            t.grad = 0.0
            y = g(t)
            y.sum().backward()
            assert y.tolist() == pytest.approx([2 * k**3 for k in t.tolist()], rel=near)
            assert t.grad.tolist() == pytest.approx(expected, rel=near)
            slope, = gradients(g(t).sum(), t, create_graph=True)
            curvature, = gradients(slope.sum(), t)
            assert slope.tolist() == pytest.approx(expected, rel=near)
            assert curvature.tolist() == pytest.approx([2 * math.cos(k) for k in t.tolist()], rel=near, abs=near)
    h = flatgrad.compile(lambda x: flatgrad.grad(wrong)(x) + flatgrad.compile(wrong)(x))
    assert orders(h, 2.0, 2) == pytest.approx([8 + math.sin(2), math.cos(2) + math.sin(2), math.cos(2) - math.sin(2)],
                                              rel=1e-12)
    second = flatgrad.hessian(flatgrad.compile(lambda x: wrong(x[0]) * x[1]))(np.array([2.0, 3.0]))
    assert np.asarray(second).tolist() == [
        [pytest.approx(3 * math.cos(2)), pytest.approx(math.sin(2))], [pytest.approx(math.sin(2)), 0.0]]


def test_with_respect_to_parameters():
    w = Value(2.0)
    f = flatgrad.compile(lambda x: wrong(w * x))
    value, slopes = flatgrad.value_and_grad(f, parameters=[w])(3.0)
    assert value == 216.0 and np.ravel(slopes).tolist() == pytest.approx([3 * math.sin(6)], rel=1e-12)


@pytest.mark.parametrize("unroll", [False, True])
def test_loops(unroll):
    def f(x):
        last, all_ = flatgrad.scan(lambda c, a: (wrong(c) * 0.1 + a, c), x, np.array([0.5, 0.25, 1.0]), unroll=unroll)
        return last + flatgrad.fori_loop(0, 2, lambda i, c: wrong(c) * 0.5, x, unroll=unroll) + all_.sum()

    def by_hand(x):
        """The number, and two derivatives, where the derivative of wrong(c) is sin(c)."""
        def of(c, scale, more=0.0):
            return (c[0]**3 * scale + more, math.sin(c[0]) * c[1] * scale,
                    (math.cos(c[0]) * c[1]**2 + math.sin(c[0]) * c[2]) * scale)

        c = e = (x, 1.0, 0.0)
        sums = []
        for a in 0.5, 0.25, 1.0:
            sums.append(c)
            c = of(c, 0.1, a)
        for _ in range(2):
            e = of(e, 0.5)
        return [sum(part) for part in zip(c, e, *sums)]

    y, slope, curvature = orders(f, 1.2, 2)
    assert [y, slope, curvature] == pytest.approx(by_hand(1.2), rel=1e-12)
    assert orders(flatgrad.compile(f), 1.2, 2) == pytest.approx([y, slope, curvature], rel=1e-12)


@pytest.mark.parametrize("dtype, near", [("float64", 1e-12), ("float32", 1e-5)])
def test_loops_and_tensors_in_lanes(dtype, near):
    def loop(x):
        return flatgrad.scan(lambda c, a: (wrong(c) * 0.9 + a, None), x, np.array([0.5, 0.25, 1.0]))[0]

    squares = made(lambda v: (v * v).sum(), lambda v: ((v * v).sum(), v), lambda v, g: (g * v * v * v,))
    t = Tensor([0.5, 1.0, 1.2, 0.3, 0.2, 0.7, 1.1])
    slope, = gradients(flatgrad.vmap(flatgrad.compile(loop, dtype=dtype))(t).sum(), t, create_graph=True)
    curvature, = gradients(slope.sum(), t)
    for k, x in enumerate([Value(x) for x in t.tolist()]):   # the calls alone, not recorded
        with _core.recording():
            c = x
            for a in 0.5, 0.25, 1.0:
                c = wrong(c) * 0.9 + a
        one, = gradients(c, x, create_graph=True)
        two, = gradients(one, x)
        assert abs(one.data) > 1e-3
        assert (slope.tolist()[k], curvature.tolist()[k]) == pytest.approx((one.data, two.data), rel=near)
    m = Tensor(np.arange(12.0).reshape(4, 3) / 7)
    flatgrad.vmap(flatgrad.compile(lambda v: squares(v) * 2.0, dtype=dtype))(m).sum().backward()
    assert np.allclose(m.grad, 2.0 * np.asarray(m.data)**3, rtol=near)


def test_minimize():
    found = []
    for compiled in True, False:
        w = Value(2.0)
        optimizer = flatgrad.optim.SGD([w], lr=0.1)
        if compiled:
            flatgrad.compile(lambda: wrong(w)).minimize(optimizer, steps=5)
        else:
            for _ in range(5):
                optimizer.zero_grad()
                wrong(w).backward()
                optimizer.step()
        found.append(w.data)
    assert found[0] == pytest.approx(found[1], rel=1e-12) and found[0] < 1.6


def test_copies_and_pickles_of_recorded_calls():
    for f in wrong, by_result, in_rule:
        x = Value(2.0)
        y = flatgrad.compile(lambda x, f=f: f(x) * 2.0)(x)
        slope, = gradients(y, x)
        for z, u in (copy.deepcopy((y, x)), pickle.loads(pickle.dumps((y, x)))):
            own, = gradients(z, u, create_graph=True)
            assert own.data == slope.data
            first, = gradients(own, u)
            second, = gradients(gradients(y, x, create_graph=True)[0], x)
            assert first.data == second.data


def test_recordings_free_what_they_make():
    def once():
        x = Value(0.5)
        f = flatgrad.compile(lambda x: in_rule(x) * by_result(x) + wrong(x))
        slope, = gradients(f(x), x, create_graph=True)
        slope.backward()

    once()
    gc.collect()
    before = _core._live_programs()
    for _ in range(3):
        once()
        gc.collect()
    assert _core._live_programs() == before


def test_mistakes_of_recorded_calls():
    x = Value(2.0)
    for f, message in (
            (made(lambda x: x * 1.0, lambda x: (x * 1.0, x.data), lambda r, g: (g,)), "while a compiled function"),
            (made(lambda x: x * 1.0, lambda x: (x * 1.0, x), lambda r, g: (g * float(r),)),
             "while a compiled function"),
            (made(lambda x: x * 1.0, lambda x: (x * 1.0, x), lambda r, g: (g if g > 0 else -g,)),
             "while a compiled function"),
            (exponential, "while a compiled function"),
            (made(lambda x: x * 1.0, lambda x: x, lambda r, g: (g,)), "fwd: expected a pair"),
            (made(lambda x: x * 1.0, lambda x: (x * 1.0, x), lambda r, g: g), "bwd: expected a tuple"),
            (made(lambda x: x * 1.0, lambda x: (x * noise.normal(), None), lambda r, g: (g,)), "draws at random")):
        with pytest.raises(ArgumentTypeError, match=message):
            flatgrad.compile(f)(x)
        assert _core._open_blocks() == (0, 0)
    t = Tensor([1.0, 2.0, 3.0])
    flatgrad.vmap(cube)(t).sum().backward()   # sample by sample
    assert t.grad.tolist() == [3.0, 12.0, 27.0]


noise = flatgrad.Random(3)


def test_recorded_calls_in_threads():
    f = flatgrad.compile(lambda x: wrong(x) * 2.0)
    found, errors = [], []

    def work():
        try:
            for k in range(1, 40):
                found.append(abs(flatgrad.value_and_grad(f)(k / 10)[1] - 2 * math.sin(k / 10)))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and max(found) < 1e-12 and len(found) == 117


def test_a_rule_may_take_gradients_of_its_own():
    @flatgrad.custom_derivative
    def square(x):
        return x * x

    square.defvjp(lambda x: (x * x, x),
                  lambda x, g: (g * flatgrad.gradients(x * x, x, create_graph=True)[0],))
    x = Value(3.0)
    slope, = flatgrad.gradients(square(x), x, create_graph=True)
    assert flatgrad.gradients(square(x), x)[0].data == slope.data == 6.0
    assert flatgrad.gradients(slope, x)[0].data == 2.0


def test_defaults_of_arguments():
    @flatgrad.custom_derivative
    def h(x, y=2.0):
        return x * y

    h.defvjp(lambda x, y: (x * y, (x, y)), lambda kept, g: (g * kept[1], g * kept[0]))
    assert flatgrad.grad(h)(3.0) == 2.0 and flatgrad.grad(h, 1)(3.0, 5.0) == 3.0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_arguments_are_constants_and_so_refused(copied):
    @flatgrad.custom_derivative
    def f(x):
        return x * x

    f.defvjp(lambda x: (x * x, copied(x)), lambda kept, g: (2.0 * kept * g,))
    x = Value(3.0)
    assert flatgrad.gradients(f(x), x)[0].data == 6.0
    with pytest.raises(ArgumentTypeError, match="a copy"):
        flatgrad.gradients(f(x), x, create_graph=True)


@pytest.mark.parametrize("returned, error, said", [
    (lambda g: g, ArgumentTypeError, "expected a tuple with a gradient for each of 1 arguments, got Value$"),
    (lambda g: (10**400,), ArgumentError, "bwd: gradient 0: expected a number that float64 holds")])
@pytest.mark.parametrize("create_graph", [False, True])
def test_what_a_rule_may_not_return(returned, error, said, create_graph):
    @flatgrad.custom_derivative
    def f(x):
        return x * x

    f.defvjp(lambda x: (x * x, x), lambda x, g: returned(g))
    x = Value(3.0)
    with pytest.raises(error, match=said):
        flatgrad.gradients(f(x), x, create_graph=create_graph)


def test_gradients_in_one_thread_leave_those_of_others():
    """A custom rule that takes its time, and a backward pass elsewhere meanwhile."""
    inside, go = threading.Event(), threading.Event()

    @flatgrad.custom_derivative
    def f(x):
        return x * x

    def bwd(x, g):
        inside.set()
        go.wait(10)
        return (2.0 * x * g,)

    f.defvjp(lambda x: (x * x, x), bwd)
    a, b = Value(0.5), Value(3.0)
    y, found = f(a), []
    thread = threading.Thread(target=lambda: found.append(flatgrad.gradients(y, a)[0].data))
    thread.start()
    try:
        assert inside.wait(10)
        (b * b).backward()
        assert flatgrad.grad(lambda x: x**2)(1.0) == 2.0
    finally:
        go.set()
        thread.join()
    assert found == [1.0] and b.grad == 6.0 and a.grad == 0.0


def test_calls_that_go_leave_their_places_to_others():
    @flatgrad.custom_derivative
    def f(x):
        return x + 1.0

    f.defvjp(lambda x: (x + 1.0, None), lambda kept, g: (g,))
    x = Value(1.0)
    kept = [f(x) for _ in range(300)]
    places = _core._live_programs()
    del kept[::2]
    flatgrad.collect()
    kept += [f(x) for _ in range(100)]
    assert _core._live_programs() == places - 50
    y = sum(kept)
    y.backward()
    assert x.grad == len(kept)
