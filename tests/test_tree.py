"""Structures: flatgrad.tree, and objects of registered classes in every transform, against dicts of the same numbers."""
from __future__ import annotations

import dataclasses
from collections import Counter, OrderedDict, namedtuple
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, optim, tree
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from flatgrad.structures import REGISTERED, raised, lowered


@tree.register_dataclass
@dataclass
class Line:
    w: Any
    b: Any
    name: str = field(default="", metadata={"static": True})


class Pair:
    def __init__(self, a, b):
        self.a, self.b = a, b


tree.register_pytree_node(Pair, lambda pair: ([pair.a, pair.b], None), lambda aux, children: Pair(*children))


@tree.register_pytree_node_class
class Scaled:
    def __init__(self, x, factor):
        self.x, self.factor = x, factor

    def tree_flatten(self):
        return (self.x,), self.factor

    @classmethod
    def tree_unflatten(cls, aux, children):
        return cls(*children, aux)


Point = namedtuple("Point", "x y")
W, X = np.array([0.5, -2.0]), np.array([1.5, 0.25])


def loss(w, b, x):
    return (w * x).tanh().sum() * b + b * b


def of_line(line, x):
    return loss(line.w, line.b, x)


def of_dict(d, x):
    return loss(d["w"], d["b"], x)


def as_dict(line):
    assert type(line) is Line and line.name == "first"
    return {"w": line.w, "b": line.b}


def equal(x, y):
    assert type(x) is type(y)
    if isinstance(x, dict):
        assert x.keys() == y.keys()
        for key in x:
            equal(x[key], y[key])
    elif isinstance(x, np.ndarray):
        assert np.array_equal(x, y)
    else:
        assert x == y


LINE, DICT = Line(W, 3.0, "first"), {"w": W, "b": 3.0}


# ---- registered classes in transforms ----

@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_have_the_class_of_the_argument(compiled):
    f, g = (flatgrad.compile(of_line), flatgrad.compile(of_dict)) if compiled else (of_line, of_dict)
    for _ in range(2):   # the second call finds its program
        value, gradient = flatgrad.value_and_grad(f)(LINE, X)
        expected = flatgrad.value_and_grad(g)(DICT, X)
        assert value == expected[0]
        equal(as_dict(gradient), expected[1])
    rows = flatgrad.hessian(f)(LINE, X)
    blocks = flatgrad.hessian(g)(DICT, X)
    for key, row in as_dict(rows).items():
        equal(as_dict(row), blocks[key])


def test_gradients_are_those_of_finite_differences():
    gradient = flatgrad.grad(of_line)(LINE, X)
    h = 1e-6
    for k in range(2):
        step = h * np.eye(2)[k]
        both = [of_line(Line(W + s, 3.0), Tensor(X)).data for s in (step, -step)]
        assert gradient.w[k] == pytest.approx((both[0] - both[1]) / (2 * h), rel=1e-7)
    assert flatgrad.gradcheck(of_line, (LINE, X))


def test_products():
    line = Line(np.array([1.0, -1.0]), 2.0, "first")
    d = {"w": line.w, "b": line.b}
    equal(as_dict(flatgrad.hvp(lambda p: of_line(p, X), LINE, line)), flatgrad.hvp(lambda p: of_dict(p, X), DICT, d))
    result, slope = flatgrad.jvp(lambda p: Line(p.w * p.b, p.b.sin(), p.name), (LINE,), (line,))
    expected = flatgrad.jvp(lambda p: {"w": p["w"] * p["b"], "b": p["b"].sin()}, (DICT,), (d,))
    equal(as_dict(result), expected[0])
    equal(as_dict(slope), expected[1])
    result, pull = flatgrad.vjp(lambda p: Line(p.w * p.b, p.b.sin(), p.name), LINE)
    equal(as_dict(pull(line)[0]), flatgrad.vjp(lambda p: {"w": p["w"] * p["b"], "b": p["b"].sin()}, DICT)[1](d)[0])
    with pytest.raises(ArgumentTypeError, match="cotangents: expected the structure of the result"):
        pull(d)
    with pytest.raises(ArgumentTypeError, match="structure"):   # another constant
        pull(dataclasses.replace(line, name="second"))


def test_a_nested_gradient_is_differentiated():
    def slope(line):
        inner = flatgrad.grad(of_line)(line, X)
        assert type(inner.b) is Value
        return (inner.w * inner.w).sum() + inner.b

    def expected(d):
        inner = flatgrad.grad(of_dict)(d, X)
        return (inner["w"] * inner["w"]).sum() + inner["b"]

    equal(as_dict(flatgrad.grad(slope)(LINE)), flatgrad.grad(expected)(DICT))


def test_aux_and_constants():
    gradient, aux = flatgrad.grad(lambda p: (p.b * 2.0, Pair(p.w * 2.0, [p.b])), has_aux=True)(LINE)
    assert gradient.b == 2.0 and type(aux) is Pair and aux.a.tolist() == [1.0, -4.0] and aux.b == [3.0]
    assert flatgrad.grad(lambda p: p.b * flatgrad.stop_gradient(p).b)(LINE).b == 3.0


def test_derivatives_that_are_numbers_are_not_lost_in_silence():
    v = Value(2.0)
    gradient = flatgrad.grad(lambda p: p.a * v * v)(Pair(1.0, 2.0))
    with pytest.raises(ArgumentTypeError, match="expected no derivative that is a plain number"):
        gradient.a * v


def test_compiled_functions_return_objects():
    compiled = flatgrad.compile(lambda p, x: Pair(Line(p.w * x, p.b, p.name), [p.b + 1.0, 7]))
    b = Value(3.0)
    for _ in range(3):
        pair = compiled(Line(W, b, "first"), X)
        assert type(pair) is Pair and as_dict(pair.a)["w"].tolist() == (W * X).tolist()
        pair.b[0].backward()
        assert pair.b[1] == 7
    assert b.grad == 3.0
    assert (compiled.cache_info().hits, compiled.cache_info().misses) == (2, 1)
    assert compiled(Line(W, b, "other"), X).a.name == "other" and compiled.cache_info().misses == 2
    with pytest.raises(ArgumentTypeError, match=r"argument 0.w\[1\]"):
        compiled(Line([1.0, {1}], b), X)


def test_training_by_minimize():
    line = Line(Tensor(W), Value(3.0))
    fit = flatgrad.compile(lambda p: (p.w * p.w).sum() + (p.b - 1.0) ** 2)
    fit.minimize(optim.SGD([line.w, line.b], lr=0.25), line, steps=60)
    assert abs(line.b.data - 1.0) < 1e-9 and np.abs(line.w.data).max() < 1e-9


@pytest.mark.parametrize("unroll", [False, True])
def test_loops(unroll):
    def step(carry, x):
        return Line(carry.w * x.a, carry.b + x.b, carry.name), Pair(carry.b, carry.w)

    xs = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
    last, outputs = flatgrad.scan(step, Line(Tensor(W), Value(1.0), "first"), Pair(*xs), unroll=unroll)
    assert as_dict(last)["w"].tolist() == (6.0 * W).tolist() and last.b.data == 16.0
    assert outputs.a.tolist() == [1.0, 5.0, 10.0] and outputs.b.tolist() == [list(k * W) for k in (1, 1, 2)]


@pytest.mark.parametrize("compiled", [False, True])
def test_batches(compiled):
    f = flatgrad.vmap(lambda pair: Scaled(pair.a * pair.b, 2))
    f = flatgrad.compile(f) if compiled else f
    result = f(Pair(np.ones((3, 2)), np.arange(3.0)))
    assert result.factor == 2 and result.x.tolist() == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]


def test_rules_of_a_program():
    @flatgrad.custom_derivative
    def product(p):
        return p.w * p.b

    product.defvjp(lambda p: (p.w * p.b, p), lambda p, g: (Line(g * p.b * 10.0, (g * p.w).sum(), p.name),))
    for f in (lambda p: product(p).sum(), flatgrad.compile(lambda p: product(p).sum())):
        gradient = flatgrad.grad(f)(LINE)
        assert as_dict(gradient)["w"].tolist() == [30.0, 30.0] and gradient.b == W.sum()
    product.defvjp(lambda p: (p.w * p.b, p), lambda p, g: ({"w": g, "b": g},))
    with pytest.raises(ArgumentTypeError, match="gradient 0: expected a Line, as the argument is, got dict"):
        flatgrad.grad(lambda p: product(p).sum())(LINE)


def test_jacobians():
    """Of each leaf by each leaf: as those of the functions that have one leaf alone."""
    def several(p, x):
        return Pair(p.w * x * p.b, {"b": p.b * x, "list": [p.w.sum() * p.b, p.w]})

    parts = {"a": lambda p: p.a, "b": lambda p: p.b["b"], "list 0": lambda p: p.b["list"][0], "list 1": lambda p: p.b["list"][1]}
    leaves = {"w": (lambda w: (Line(w, 3.0), 2.0), W), "b": (lambda b: (Line(W, b), 2.0), 3.0),
              "x": (lambda x: (Line(W, 3.0), x), 2.0)}
    for transform in (flatgrad.jacobian, flatgrad.jacfwd):
        for f in (several, flatgrad.compile(several)):
            both = transform(f, (0, 1))(Line(W, 3.0, "n"), 2.0)
            alone, by_x = transform(f)(Line(W, 3.0, "n"), 2.0), transform(f, 1)(Line(W, 3.0), 2.0)
            assert type(both) is type(alone) is type(by_x) is Pair
            for name, part in parts.items():
                line, x = part(both)
                assert type(line) is type(part(alone)) is Line and line.name == "n"
                for leaf, (given, at) in leaves.items():
                    expected = transform(lambda y: part(several(*given(y))))(at)
                    for found in (x, part(by_x)) if leaf == "x" else (getattr(line, leaf), getattr(part(alone), leaf)):
                        assert found.shape == expected.shape and found.tolist() == expected.tolist(), (name, leaf)
    twice = flatgrad.jacobian(flatgrad.jacobian(lambda p: {"z": p.w * p.b}))(Line(W, 3.0))["z"]
    assert twice.w.b.tolist() == twice.b.w.tolist() == [[1.0, 0.0], [0.0, 1.0]] and not twice.w.w.any()


def test_what_is_refused():
    with pytest.raises(ArgumentTypeError, match=r"grad: argument 0\.b: expected a real number"):
        flatgrad.grad(lambda p: p.w.sum())(Line(W, "three"))
    for wrapped in (lambda f: f, flatgrad.compile):
        with pytest.raises(ArgumentTypeError, match=r"jacobian: argument 0\.b: expected a real number"):
            flatgrad.jacobian(wrapped(lambda p: p.w))(Line(W, "three"))
        with pytest.raises(ArgumentTypeError, match=r"jacobian: the result of f\[1\]: .* got .*None"):
            flatgrad.jacobian(wrapped(lambda x: Pair(x, None)))(1.0)

    @dataclass
    class Unknown:
        a: float

    for f in (flatgrad.grad(lambda p: p.a), flatgrad.ravel_pytree):
        with pytest.raises(ArgumentTypeError, match=r"flatgrad.tree.register_dataclass\(Unknown\) makes it a structure"):
            f(Unknown(1.0))
    for kind in (Counter, type("Row", (tuple,), {}), type("Column", (list,), {})):   # whether or not there are such classes
        with pytest.raises(ArgumentTypeError, match=f"the result: expected a list, .* got one of the subclass {kind.__name__}"):
            flatgrad.compile(lambda x: kind(a=1) if kind is Counter else kind([x]))(1.0)


# ---- exports ----

def exported_line():
    f = flatgrad.compile(of_line)
    f(LINE, X)
    return f


def test_c_of_objects_is_that_of_dicts():
    def of_line(line, x):
        return of_dict(line, x)

    of_dicts = flatgrad.compile(of_line)
    of_dicts({"w": LINE.w, "b": LINE.b}, X)
    text = str(exported_line().to_c(gradient="arguments", arguments=(LINE, X)))
    assert "line.w" in text and (text.replace("line.w", "line['w']").replace("line.b", "line['b']")
                                 == str(of_dicts.to_c(gradient="arguments", arguments=({"w": LINE.w, "b": LINE.b}, X))))
    results = flatgrad.compile(lambda x: (Line(x * x, x + 1.0), Pair(x, 2.0 * x)))
    results(2.0)
    assert all(name in str(results.to_c(gradient=False)) for name in ("*result_0_w", "*result_0_b", "*result_1_0", "*result_1_1"))


def test_functions_of_pytorch_take_objects():
    torch = pytest.importorskip("torch")
    f = exported_line().to_torch()
    w = torch.tensor(LINE.w, requires_grad=True)
    y = f(torch.zeros(0, dtype=torch.float64), Line(w, LINE.b, LINE.name), X)
    assert y.item() == pytest.approx(flatgrad.compile(of_line)(LINE, X).data, rel=1e-12)
    np.testing.assert_allclose(torch.autograd.grad(y, w)[0], flatgrad.grad(of_line)(LINE, X).w, rtol=1e-12)
    for bad, error, said in ((Line(w, LINE.b, "other"), ArgumentError, "argument 0: what is constant of it: expected the static"),
                             ({"w": w, "b": LINE.b}, ArgumentTypeError, "argument 0: expected a Line, got"),
                             (Line(X[:1], LINE.b, LINE.name), ShapeError, r"argument 0\.w: expected an array of shape \(2,\)")):
        with pytest.raises(error, match=said):
            f(torch.zeros(0, dtype=torch.float64), bad, X)


# ---- flatgrad.tree ----

TREE = OrderedDict(p=Point(1.0, [2.0, None]), line=Line((3.0,), {"c": 4.0}), pair=[Pair(5.0, 6.0)], s=Scaled(7.0, "f"))


def test_flatten_and_unflatten():
    leaves, structure = tree.flatten(TREE)
    assert leaves == tree.leaves(TREE) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert structure.num_leaves == 7 and structure == tree.structure(TREE)
    again = tree.unflatten(structure, [10.0 * x for x in leaves])
    assert type(again) is OrderedDict and again["p"] == Point(10.0, [20.0, None]) and again["s"].factor == "f"
    assert tree.leaves(again) == [10.0 * x for x in leaves]
    assert tree.structure(again) == structure != tree.structure({**TREE, "s": Scaled(7.0, "g")})
    assert structure != tree.structure({**TREE, "s": (7.0,)}) and structure != 3
    assert repr(tree.structure({"a": (1.0, None)})) == "Structure({'a': (*, None)})"
    with pytest.raises(ArgumentError, match="unflatten: leaves: expected 7, as the structure has, got 1"):
        tree.unflatten(structure, [1.0])
    with pytest.raises(ArgumentTypeError, match="unflatten: treedef: expected a Structure, got dict"):
        tree.unflatten({}, [])


def test_map_and_reduce():
    doubled = tree.map(lambda x, y: x + y, TREE, TREE)
    assert tree.leaves(doubled) == [2.0 * x for x in tree.leaves(TREE)] and doubled["p"].y[1] is None
    assert tree.map(lambda x, y: x - y, {"a": 1.0, "b": 2.0}, {"b": 20.0, "a": 10.0}) == {"a": -9.0, "b": -18.0}
    assert tree.reduce(lambda total, x: total + x, TREE) == 28.0 and tree.reduce(max, [], 0) == 0
    with pytest.raises(ArgumentTypeError, match=r"map: expected the structure of tree, .*\[\*, \*\].*number 2"):
        tree.map(lambda *x: x, [1.0, 2.0], [1.0, 2.0], [1.0])
    with pytest.raises(ArgumentTypeError, match="map: f: expected a callable, got float 1.0"):
        tree.map(1.0, [])


def test_a_step_of_descent():
    p = Pair(Line(W, 1.0), 2.0)
    g = flatgrad.grad(lambda p: (p.a.w * p.b).sum() + p.a.b)(p)
    q = tree.map(lambda x, d: x - 0.5 * d, p, g)
    assert q.a.w.tolist() == [-0.5, -3.0] and q.a.b == 0.5 and q.b == 2.0 - 0.5 * W.sum()


def test_what_compile_keeps_goes_back():
    low = lowered([TREE])
    assert type(low[0]["line"]) is not Line and tree.structure(raised(low)) == tree.structure([TREE])


# ---- ravel_pytree ----

def test_ravel_numbers():
    flat, unravel = flatgrad.ravel_pytree({"n": 3, "w": np.arange(6).reshape(3, 2), "p": Pair(None, np.ones((1, 1, 2)))})
    assert flat.dtype == np.float64 and flat.tolist() == [3.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 1.0, 1.0]
    again = unravel(2.0 * flat)
    assert again["n"] == 6.0 and again["w"].tolist() == [[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]]
    assert type(again["p"]) is Pair and again["p"].a is None and again["p"].b.shape == (1, 1, 2)
    flat[0] = 100.0
    assert again["n"] == 6.0 and unravel(list(flat))["n"] == 100.0
    assert flatgrad.ravel_pytree([])[0].shape == (0,) and flatgrad.ravel_pytree([])[1](np.zeros(0)) == []
    assert flatgrad.ravel_pytree(2.0)[1]([4.0]) == 4.0


def test_gradients_flow_both_ways():
    def f(line):
        flat, unravel = flatgrad.ravel_pytree(line)
        assert type(flat) is Tensor
        again = unravel(flat * flat)
        return (again.w * X).sum() + 3.0 * again.b

    gradient = flatgrad.grad(f)(LINE)
    assert gradient.w.tolist() == (2.0 * W * X).tolist() and gradient.b == 18.0
    flat, unravel = flatgrad.ravel_pytree(LINE)
    assert flatgrad.grad(lambda x: of_line(unravel(x), X))(flat).tolist() == [
        *flatgrad.grad(of_line)(LINE, X).w, flatgrad.grad(of_line)(LINE, X).b]
    assert flatgrad.hessian(lambda x: of_line(unravel(x), X))(flat).shape == (3, 3)
    w = Tensor(W)
    mixed, _ = flatgrad.ravel_pytree([w, 2.0, X])
    mixed.sum().backward()
    assert w.grad.tolist() == [1.0, 1.0]


def test_ravel_says_what_is_wrong():
    with pytest.raises(ArgumentTypeError, match=r"ravel_pytree: pytree\['a'\]\[1\]: expected a real number, .* got str 'x'"):
        flatgrad.ravel_pytree({"a": [1.0, "x"]})
    with pytest.raises(ArgumentTypeError, match=r"ravel_pytree: pytree: expected an array of real numbers, .*complex"):
        flatgrad.ravel_pytree(np.ones(2, complex))
    with pytest.raises(ShapeError, match=r"beside Values and Tensors, got the shape \(1, 1, 2\)"):
        flatgrad.ravel_pytree([Value(1.0), np.ones((1, 1, 2))])
    flat, unravel = flatgrad.ravel_pytree([1.0, np.ones((1, 1, 2))])
    with pytest.raises(ShapeError, match=r"unravel: flat: expected the shape \(3,\), got \(4,\)"):
        unravel(np.ones(4))
    with pytest.raises(ShapeError, match=r"a leaf has the shape \(1, 1, 2\)"):
        unravel(Tensor(flat))
    with pytest.raises(ArgumentTypeError, match="unravel: flat"):
        unravel(np.array(["a", "b", "c"]))


def test_lost_gradients_stay_marked():
    v = Value(2.0)
    gradient = flatgrad.grad(lambda p: p["a"] * v * v)({"a": 1.0})
    flat, unravel = flatgrad.ravel_pytree(gradient)
    for x in (flat[0], unravel(flat)["a"]):
        with pytest.raises(ArgumentTypeError, match="expected no derivative that is a plain number"):
            x * v


# ---- registering ----

def test_register_says_what_is_wrong():
    def both(cls):
        return tree.register_pytree_node(cls, lambda x: ((), None), lambda aux, children: None)

    before = dict(REGISTERED)
    for cls, error, message in [(3, ArgumentTypeError, "expected a class, got int 3"),
                                (Point, ArgumentError, "expected a class of your own, got Point"),
                                (Tensor, ArgumentError, "whose objects are numbers or arrays"),
                                (Line, ArgumentError, "not registered yet, got Line")]:
        with pytest.raises(error, match=f"register_pytree_node: nodetype: .*{message}"):
            both(cls)

    class Plain:
        pass

    for arguments in ((Plain, 1, len), (Plain, len, None)):
        with pytest.raises(ArgumentTypeError, match="flatten_func: expected a callable"):
            tree.register_pytree_node(*arguments)
    with pytest.raises(ArgumentTypeError, match="expected a class with a method tree_flatten, got Plain"):
        tree.register_pytree_node_class(Plain)
    with pytest.raises(ArgumentTypeError, match="expected a class of dataclasses.dataclass"):
        tree.register_dataclass(Plain)

    @dataclass
    class Three:
        a: Any
        b: Any
        c: Any = field(default=1.0, init=False)

    with pytest.raises(ArgumentError, match=r"meta_fields: expected names of \['a', 'b'\], got 'c'"):
        tree.register_dataclass(Three, meta_fields=["c"])
    with pytest.raises(ArgumentError, match="each field of Three in one of .*, got 'b' in none"):
        tree.register_dataclass(Three, data_fields=["a"], meta_fields=[])
    with pytest.raises(ArgumentError, match="got 'a' in both"):
        tree.register_dataclass(Three, data_fields=["a", "b"], meta_fields=["a"])
    with pytest.raises(ArgumentTypeError, match="data_fields: expected a list of str, got str 'a'"):
        tree.register_dataclass(Three, data_fields="a")
    assert REGISTERED == before
    tree.register_dataclass(Three, data_fields=["b"])
    try:
        assert tree.leaves(Three("a", 2.0)) == [2.0] and tree.map(lambda x: -x, Three("a", 2.0)).a == "a"
    finally:
        del REGISTERED[Three]


def test_a_wrong_flatten_is_told():
    class Odd:
        pass

    try:
        for found, message in ((3, "expected a pair, the children and what is constant, got int 3"),
                               ((3, None), "expected a list or a tuple of children, got int 3")):
            REGISTERED.pop(Odd, None)
            tree.register_pytree_node(Odd, lambda x: found, lambda aux, children: Odd())
            with pytest.raises(ArgumentTypeError, match=f"flatten_func of Odd: {message}"):
                tree.leaves(Odd())
    finally:
        REGISTERED.pop(Odd, None)
