"""No number leaves a transform's graph in silence: `float` and all that calls it refuse what `grad` differentiates
by, and nothing else; outside of a transform, and for explicit ways out, nothing has changed."""
import array
import ctypes
import math
import operator
import statistics
import struct
import threading

import numpy as np
import pytest

import flatgrad as fg
from flatgrad import Tensor, Value, _core
from flatgrad.errors import ArgumentTypeError

# What asks a Value for a plain number without saying so.
DOORS = {
    "float": float, "int": int, "round": round, "round to digits": lambda v: round(v, 2), "complex": complex,
    "math.sin": math.sin, "math.sqrt": math.sqrt, "math.floor": math.floor, "math.ceil": math.ceil,
    "math.trunc": math.trunc, "math.hypot": lambda v: math.hypot(v, 1.0), "math.fsum": lambda v: math.fsum([v, 1.0]),
    "math.isnan": math.isnan, "np.float64": np.float64, "np.float32": np.float32,
    "np.array": lambda v: np.array([v], dtype=float), "astype": lambda v: np.array([v]).astype(float),
    "an element": lambda v: np.zeros(2).__setitem__(0, v),
    "np.add unsafe": lambda v, a=np.zeros(2): np.add(a, v, out=a, casting="unsafe"),
    "np.exp to floats": lambda v: np.exp(v, out=np.zeros(()), casting="unsafe"),
    "np.multiply to ints": lambda v: np.multiply(v, 2, out=np.zeros(1, int), casting="unsafe"),
    "np.add.at": lambda v: np.add.at(np.zeros(2), [0], v), "np.floor": np.floor,
    "statistics.fmean": lambda v: statistics.fmean([v, v]), "array": lambda v: array.array("d", [v]), "ctypes": ctypes.c_double,
}
# What always said so, or only looks.
FREE = {
    "data": lambda v: v.data, "item": lambda v: v.item(), "format": lambda v: f"{v:.4f}", "plain format": lambda v: f"{v}",
    "repr": repr, "str": str, "print": lambda v: print(v, end=""), "compare": lambda v: v < 1.0 or v >= 2.0, "bool": bool,
    "max": lambda v: max([v, v]), "hash": hash, "detach": lambda v: float(v.detach()), "sort": lambda v: sorted([v, v]),
}
# What never gave a number.
NEVER = {"index": operator.index, "fractions": lambda v: __import__("fractions").Fraction(v),
         "decimal": lambda v: __import__("decimal").Decimal(v), "statistics.mean": lambda v: statistics.mean([v, v]),
         "range": range}
doors = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


@pytest.mark.usefixtures("moving")
@pytest.mark.parametrize("computed", [
    lambda x: x, lambda x: x * 2.0, lambda x: fg.dot([x, 1.0], [2.0, 3.0]), lambda x: Tensor([x, 1.0]).tanh()[1],
    lambda x: fg.where(1.0, x, 2.0), lambda x: Value(3.0, (x,), (1.0,)), lambda x: Value(3.0, (x,), "custom"),
    lambda x: sum([x, x]), lambda x: fg.nn.Layer(1, 2)([x])[0], lambda x: fg.softmax([x, 0.5])[1],
], ids=["leaf", "operation", "dot", "tensor", "where", "local", "custom", "sum", "layer", "softmax"])
def test_what_is_computed_from_a_traced_number_is_traced(computed):
    x = 0.75   # where each of them is defined
    for transform in fg.grad, fg.value_and_grad, fg.jacobian:
        with pytest.raises(ArgumentTypeError, match=r"flatgrad.sin\(v\) or v.sin\(\).* v.data where a constant is meant"):
            transform(lambda x: float(computed(x)) * x)(x)
    with pytest.raises(ArgumentTypeError, match="constant"):
        fg.gradcheck(lambda x: float(computed(x)) * x, x)
    float(computed(Value(x)))   # and they are open again


@doors
def test_every_door_is_shut_for_it(door):
    with pytest.raises(ArgumentTypeError, match="v.data where a constant is meant"):
        fg.grad(lambda x: (door(x), x)[1])(0.75)
    with pytest.raises(ArgumentTypeError):
        fg.jacobian(lambda x: (door(x[0] * x[1]), x)[1])(np.array([0.75, 1.0]))


def test_doors_that_say_so_in_their_own_words():
    """`%` since CPython 3.15."""
    assert struct.unpack("d", struct.pack("d", Value(0.5))) == (0.5,) and "%.2f" % Value(0.5) == "0.50"
    with pytest.raises(struct.error):
        fg.grad(lambda x: (struct.pack("d", x), x)[1])(0.75)
    with pytest.raises(TypeError):
        fg.grad(lambda x: ("%.2f" % x, x)[1])(0.75)


@pytest.mark.parametrize("look", FREE.values(), ids=FREE)
def test_looking_is_free(look):
    def f(x):
        look(x), look(x * x)
        return x * x

    assert fg.grad(f)(3.0) == 6.0


@pytest.mark.parametrize("door", NEVER.values(), ids=NEVER)
def test_these_never_gave_a_number(door):
    with pytest.raises(TypeError):
        door(Value(1.0))
    with pytest.raises(TypeError):
        fg.grad(lambda x: (door(x), x)[1])(1.0)


@doors
def test_what_is_not_traced_is_free(door):
    w, ready = Value(0.75), Value(0.5) * 0.5

    def f(x):
        young = Value(0.75)
        for v in (w, ready, young, young * w, Tensor([0.5, 0.25])[1], x.detach(), fg.dot([w, w], [0.5, 0.25])):
            door(v)
        with fg.no_grad():
            door(x * 0.5)
        door((Tensor([x, x], requires_grad=False) * 2.0)[1])   # no gradient flows through a constant
        return x * x * w

    assert fg.grad(f)(3.0) == 4.5


@doors
def test_outside_of_a_transform_all_are_free(door):
    x = Value(0.5)
    fg.grad(lambda x: x * x)(0.5)
    with pytest.raises(ZeroDivisionError):
        fg.grad(lambda x: x / 0.0)(0.5)
    door(x), door(x * x)


def test_tensors():
    for f in (lambda t: float(t[:1]) * t.sum(), lambda t: math.sin(t[0]) * t.sum(), lambda t: float(t.sum()) * t.sum(),
              lambda t: np.array(list(t), float).sum() * t.sum()):
        with pytest.raises(ArgumentTypeError, match="flatgrad.sin"):
            fg.grad(f)(np.ones(3))
    assert float(Tensor([2.0])) == 2.0
    with pytest.raises(ValueError, match="one element"):
        float(Tensor([2.0, 1.0]))
    constant = Tensor([2.0])
    assert fg.grad(lambda t: float(constant) * t.sum())(np.ones(2)).tolist() == [2.0, 2.0]


def test_the_example_of_a_user():
    with pytest.raises(ArgumentTypeError, match="math.sin"):
        fg.grad(lambda x: math.sin(x) * x)(1.0)
    assert fg.grad(lambda x: fg.sin(x) * x)(1.0) == pytest.approx(math.cos(1.0) + math.sin(1.0))


def test_a_transform_within_one():
    w = Value(2.0)

    def f(x):
        inner = fg.grad(lambda y: y * y * float(w))(3.0)
        with pytest.raises(ArgumentTypeError):
            fg.grad(lambda y: y * float(x))(3.0)
        with pytest.raises(ArgumentTypeError):
            float(x)
        return x * inner

    assert fg.grad(f)(1.0) == 12.0


def test_values_that_a_user_gives_to_gradcheck_are_free():
    w = Value(2.0)
    assert fg.gradcheck(lambda w, x: (float(w), w * x)[1], (w, 3.0))
    with pytest.raises(ArgumentTypeError):
        fg.gradcheck(lambda w, x: (float(x), w * x)[1], (w, 3.0))


def test_a_transform_in_another_thread_does_not_shut_ours():
    inside, go_on = threading.Event(), threading.Event()
    given = []

    def f(x):
        given.append(x * 2.0)
        inside.set()
        go_on.wait(20)
        return x * x

    result = []
    thread = threading.Thread(target=lambda: result.append(fg.grad(f)(3.0)))
    thread.start()
    inside.wait(20)
    x = Value(3.0)
    loss = x * x
    assert float(loss) == 9.0 and float(x) == 3.0 and float(fg.dot([x, x], [1.0, loss])) == 30.0
    with pytest.raises(ArgumentTypeError):
        float(given[0] * x)
    go_on.set()
    thread.join()
    assert result == [6.0] and float(given[0]) == 6.0


def test_within_a_rule_during_a_backward_pass():
    def f(x):
        w = Value(2.0)
        out = Value(w.data**2, (w,), "square")

        def rule():
            w.grad += 2.0 * float(w) * out.grad
        out._backward = rule
        (out * 3.0).backward()
        return x * w.grad

    assert fg.grad(f)(1.0) == 12.0


def test_every_node_against_what_depends_says():
    rng = np.random.default_rng(0)
    for _ in range(30):
        def f(x):
            nodes = [x, Value(0.5), Value(1.5), x * 0.5]
            for _ in range(40):
                a, b = (nodes[k] for k in rng.integers(len(nodes), size=2))
                kind = rng.integers(5)
                nodes.append(a + b if kind == 0 else a.tanh() if kind == 1 else fg.where(1.0, a, b) if kind == 2
                             else fg.mean([a, b, 0.5]) if kind == 3 else Value(0.25))
            for v in nodes:
                if _core.depends([v], [x]):
                    with pytest.raises(ArgumentTypeError):
                        float(v)
                else:
                    float(v)
            return x

        assert fg.grad(f)(0.25) == 1.0


def test_a_wide_and_deep_graph_is_no_trouble():
    def f(x):
        y = Value(0.5)
        for _ in range(100_000):
            y = y * 1.0
        float(y)
        z = x
        for _ in range(100_000):
            z = z * 1.0
        with pytest.raises(ArgumentTypeError):
            float(z)
        return z

    assert fg.grad(f)(2.0) == 1.0


def test_item():
    x = Value(3.0)
    assert (x * x).item() == 9.0 and type(x.item()) is float and x.item() == x.data
