"""NumPy's functions with Values among their arguments: what they mean of any object, as in micrograd; in place as
well. None loses a gradient in silence, and none ends the interpreter."""
import itertools
import math
import random
import warnings

import numpy as np
import pytest

import flatgrad as fg
from flatgrad import Tensor, Value, _core

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

UFUNCS = sorted({name for name in dir(np) if isinstance(getattr(np, name), np.ufunc)})


def boxed(v):
    array = np.empty((), object)
    array[()] = v
    return array


def told(function, *arguments, **keywords):
    """What a call gives, as plain data: Values as their operation, number and operands' numbers."""
    def plain(x):
        if isinstance(x, Value):
            return "Value", x._op, x.data, tuple(y.data for y in x._children)
        if isinstance(x, np.ndarray):
            return type(x).__name__, str(x.dtype), x.shape, tuple(map(plain, x.ravel().tolist()))
        if isinstance(x, (tuple, list)):
            return tuple(map(plain, x))
        return type(x).__name__, repr(x)

    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return plain(function(*arguments, **keywords))
    except Exception as error:
        return "raised", next(base.__name__ for base in type(error).__mro__ if base.__module__ == "builtins")


# ---- what NumPy does of objects by itself ----

@pytest.mark.parametrize("name", UFUNCS)
def test_as_of_objects_in_arrays(name):
    """An ufunc with Values gives what it gives of arrays of dimension 0 with them, which NumPy does without asking."""
    ufunc = getattr(np, name)
    v, w = Value(0.75), Value(2.0)
    others = [w, 2.0, 3, np.array([0.5, 1.5]), np.array([Value(0.5), 2.0], object), [0.5, Value(3.0)], np.array(0.25),
              boxed(Value(0.25)), "a", None, np.array(["a"])]
    calls = [(v,), *[(v, x) for x in others], *[(x, v) for x in others], (v, w, 3.0)]
    calls = [inputs for inputs in calls if len(inputs) <= ufunc.nin]
    for inputs in calls:
        expected = told(ufunc, *[boxed(x) if isinstance(x, Value) else x for x in inputs])
        assert told(ufunc, *inputs) == expected, inputs
        for out in np.zeros(2), np.zeros((), object), np.zeros(2, object):
            keywords = dict(out=out, where=np.array(True))
            assert told(ufunc, *inputs, **keywords) == told(
                ufunc, *[boxed(x) if isinstance(x, Value) else x for x in inputs], **keywords), (inputs, out)
        assert told(ufunc.outer, *inputs) == told(ufunc.outer, *[boxed(x) if isinstance(x, Value) else x for x in inputs])
    assert _core._check()


@pytest.mark.parametrize("row", [row for row in _core._operations() if row["public"] and row["ufuncs"]],
                         ids=lambda row: row["name"])
def test_rows_of_the_table(row):
    """NumPy's loop over objects makes our node, from Values and from arrays of them."""
    values = [Value(0.5), Value(2.0)][:row["arity"]]
    for name in {*row["ufuncs"]} - {"maximum", "minimum", "fabs"}:   # two compare, and one asks for a method `fabs`
        z = getattr(np, name)(*values)
        assert type(z) is Value and z._op == row["symbol"] and list(z._children) == values
        array = getattr(np, name)(*[np.array([v]) for v in values])
        assert array[0]._op == row["symbol"] and array[0].data == z.data


# NumPy 2.4 itself loses a reference to an object that has `__array_ufunc__` in these two methods: that is a Value, once.
LOSES = Value(0.75)


@pytest.mark.parametrize("name", UFUNCS)
def test_reductions_as_of_objects_in_arrays(name):
    for method in "reduce", "accumulate":
        ufunc = getattr(getattr(np, name), method)
        for rest in [(), (0,), (None,), ("a",), (2.0,)]:
            assert told(ufunc, LOSES, *rest) == told(ufunc, boxed(LOSES), *rest)
    with pytest.raises(TypeError, match="out: expected an array, got a Value"):
        np.add.reduce([1.0], out=LOSES)
    with pytest.raises(TypeError, match="out: expected an array, got a Value"):
        np.sum([1.0], out=LOSES)
    assert np.sum(LOSES) is np.prod(LOSES) is LOSES


SCALARS = [kind(2) for kind in (np.int8, np.uint16, np.int32, np.int64, np.float16, np.float32, np.float64, np.longdouble,
                                np.bool_)]
OPERATORS = {np.add: lambda x, y: x + y, np.subtract: lambda x, y: x - y, np.multiply: lambda x, y: x * y,
             np.true_divide: lambda x, y: x / y, np.power: lambda x, y: x**y, np.less: lambda x, y: x < y,
             np.less_equal: lambda x, y: x <= y, np.greater: lambda x, y: x > y, np.greater_equal: lambda x, y: x >= y}


@pytest.mark.parametrize("scalar", SCALARS, ids=lambda x: type(x).__name__)
def test_operators_with_numbers_of_numpy(scalar):
    """The operator, the ufunc, and the operator with Python's number are one and the same."""
    v = Value(3.0)
    for ufunc, operator in OPERATORS.items():
        number = scalar.item() if type(scalar) is not np.longdouble else float(scalar)
        for pair, plain in [((scalar, v), (number, v)), ((v, scalar), (v, number))]:
            if type(operator(2, 1)) is bool:
                assert operator(*pair) == ufunc(*pair) == operator(*plain)
            elif ufunc is not np.power or type(scalar) is not np.bool_:
                assert told(operator, *pair) == told(ufunc, *pair) == told(operator, *plain)


def test_times_are_no_numbers():
    v = Value(3.0)
    for time in np.timedelta64(1, "ns"), np.datetime64("2020-01-01", "ns"), np.array([1, 2], "m8[ns]"):
        for ufunc in OPERATORS:
            with pytest.raises(TypeError):
                ufunc(v, time)
            with pytest.raises(TypeError):
                ufunc(time, v)


# ---- in place ----

def test_an_array_of_values_is_changed_in_place():
    a, b = Value(3.0), Value(5.0)
    array = np.array([a, b])
    same = array
    array -= array[0]
    assert array is same and [v.data for v in array] == [0.0, 2.0] and array[1]._prev == {a, b}
    array *= Value(2.0)
    array /= b
    array **= np.int64(2)
    assert array is same and [v._op for v in array] == ["**2"] * 2
    array.sum().backward()
    assert (a.grad, b.grad) == pytest.approx((2 * 2 * -2 / 25 * 2, 8 * (2 / 25 - 4 / 125)), rel=1e-12)


def test_softmax_on_an_array_of_values():
    x = np.array([Value(0.5), Value(1.5), Value(-1.0)])
    shifted = x.copy()
    shifted -= max(x)
    e = np.exp(shifted)
    e /= np.sum(e)
    (-np.log(e[1])).backward()
    y = [Value(v.data) for v in x]
    (-fg.log_softmax(y)[1]).backward()
    assert [v.data for v in e] == pytest.approx([v.data for v in fg.softmax(y)], rel=1e-14)
    assert [v.grad for v in x] == pytest.approx([v.grad for v in y], rel=1e-12)


def test_an_array_of_floats_holds_no_values():
    floats, v = np.array([1.0, 2.0]), Value(3.0)
    for change in (lambda: np.add(floats, v, out=floats), lambda: floats.__iadd__(v), lambda: floats.__imul__(v)):
        with pytest.raises(TypeError, match="Cannot cast ufunc"):
            change()
    assert floats.tolist() == [1.0, 2.0]


def test_a_value_is_no_array_to_write_to():
    v = Value(3.0)
    for call in (lambda: np.add(1.0, 2.0, out=v), lambda: np.add(v, 2.0, v), lambda: np.divmod(1.0, 2.0, out=(v, None))):
        with pytest.raises(TypeError, match="out: expected an array, got a Value"):
            call()
    with pytest.raises(TypeError, match="np.add.at: expected an array to change, got a Value"):
        np.add.at(v, 0, 1.0)
    assert v.data == 3.0


def test_an_error_in_the_middle():
    v, array = Value(0.0), np.array([Value(1.0), Value(2.0), None, Value(3.0)], object)
    nodes = array.copy()
    with pytest.raises(TypeError, match="unsupported operand"):
        array * v
    with pytest.raises(ZeroDivisionError):
        np.array([1.0, 2.0]) / v
    with pytest.raises(ZeroDivisionError):
        np.float64(1) / v
    assert all(x is y for x, y in zip(array, nodes)) and _core._check()


# ---- with Tensors ----

@pytest.mark.parametrize("name", UFUNCS)
def test_a_tensor_answers_for_both(name):
    """In both orders, what its own method says; and where it has no meaning, an error or an array of a constant's."""
    ufunc, v = getattr(np, name), Value(0.75)
    for t in Tensor([0.5, 0.25]), Tensor([0.5, 0.25], requires_grad=False):
        for pair in ((v, t), (t, v)):
            try:
                with np.errstate(all="ignore"):
                    result = ufunc(*pair)
            except (TypeError, ValueError, AttributeError):
                continue
            if ufunc in OPERATORS and not isinstance(result, np.ndarray):
                assert type(result) is Tensor and result.numpy().tolist() == OPERATORS[ufunc](*pair).numpy().tolist()
            assert isinstance(result, (Tensor, np.ndarray, tuple)), (pair, result)
            if isinstance(result, np.ndarray) and t.requires_grad:
                assert result.dtype == bool or ufunc in fg.array_functions.NO_GRADIENT_UFUNCS
    with pytest.raises(TypeError, match="cannot write to a Tensor"):
        np.add(v, 1.0, out=Tensor([1.0]))


# ---- subclasses ----

class Own(Value):
    def __rmul__(self, x):
        return "rmul", type(x)

    def __mul__(self, x):
        return "mul", type(x)

    def __gt__(self, x):
        return "gt"

    def exp(self):
        return "exp"


def test_subclasses_keep_their_operators():
    v = Own(3.0)
    assert np.float64(2) * v == ("rmul", np.float64) and np.multiply(v, np.int64(2)) == ("mul", np.int64)
    assert (np.array([2.0]) * v).tolist() == [("rmul", float)] and np.exp(v) == "exp"
    assert (np.float64(2) < v) == "gt" and (np.float64(2) + v).data == 5.0

    class Declines(Value):
        def __rmul__(self, x):
            return NotImplemented

        def __gt__(self, x):
            return NotImplemented

    with pytest.raises(TypeError):
        np.float64(2) * Declines(3.0)
    with pytest.raises(TypeError):
        np.array([2.0]) * Declines(3.0)
    with pytest.raises(TypeError):
        np.float64(2) < Declines(3.0)

    class Without(Value):
        __array_ufunc__ = None

    assert (np.float64(2) * Without(3.0)).data == 6.0
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.exp(Without(3.0))

    class Sequence(Value):
        def __len__(self):
            return 2

        def __getitem__(self, k):
            return [1.0, 2.0][k]

    assert (np.float64(2) * Sequence(3.0)).data == 6.0


def test_an_operator_put_on_the_class():
    ours = Value.__dict__["__rmul__"]
    try:
        Value.__rmul__ = lambda self, x: "theirs"
        assert np.float64(2) * Value(3.0) == "theirs"
    finally:
        Value.__rmul__ = ours
    assert (np.float64(2) * Value(3.0)).data == 6.0


# ---- arrays in themselves ----

def test_arrays_in_themselves():
    v = Value(3.0)
    deep = np.empty(1, object)
    deep[0] = deep
    zero = boxed(None)
    zero[()] = zero
    for ufunc in OPERATORS:
        for array in deep, zero:
            for pair in (v, array), (array, v):
                with pytest.raises((RecursionError, TypeError, ValueError)):
                    ufunc(*pair)
    for change in (lambda: deep.__imul__(v), lambda: np.add.at(deep, [0], v), lambda: np.multiply.outer(deep, v)):
        with pytest.raises((RecursionError, TypeError)):
            change()
    deep[0] = zero[()] = None


# ---- by itself ----

def test_called_without_numpy_s_help():
    v = Value(3.0)
    assert v.__array_ufunc__(np.multiply, "__call__", 2.0, v).data == 6.0
    assert v.__array_ufunc__(np.multiply, "__call__", 2.0, v, dtype=object).data == 6.0
    for arguments in [(), (np.add,), (1, 2), (np.add, 3, v), ("add", "__call__", v, v)]:
        with pytest.raises(TypeError, match="__array_ufunc__"):
            v.__array_ufunc__(*arguments)
    with pytest.raises(AttributeError):
        v.__array_ufunc__(np.add, "no_method", v, v)


# ---- gradients ----

# `and`, `or` and `not` of objects are Python's: one of the operands, and no bool as of floats.
@pytest.mark.parametrize("name", [name for name in UFUNCS if not name.startswith("logical")])
def test_no_gradient_is_lost(name):
    """Within a transform the derivative of what an ufunc gives is that of finite differences, or it raises."""
    ufunc = getattr(np, name)
    patterns = [lambda f, x: f(x), lambda f, x: f(x, 0.6), lambda f, x: f(0.6, x), lambda f, x: f(x, 2),
                lambda f, x: f(np.array([0.6, 0.3]), x)[1], lambda f, x: f(np.float64(0.6), x),
                lambda f, x: f(x, np.array([0.6])).sum(), lambda f, x: f(x, 0.6, out=np.zeros(1), casting="unsafe")[0],
                lambda f, x: f(x, out=np.zeros(1), casting="unsafe")[0], lambda f, x: f.outer(x, [0.6])[0],
                lambda f, x: f.reduce([x, 0.6]), lambda f, x: f.accumulate([x, 0.6])[1]]
    for pattern in patterns:
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ends = [float(pattern(ufunc, 0.35 + h)) for h in (-1e-6, 1e-6)]
        except (TypeError, ValueError, IndexError, AttributeError, RuntimeError):
            continue   # NumPy itself refuses it
        try:
            slope = fg.grad(lambda x: pattern(ufunc, x) * 1.0 + 0.0 * x)(0.35)
        except (TypeError, ValueError, IndexError, ArithmeticError, AttributeError, RuntimeError):
            continue
        assert slope == pytest.approx((ends[1] - ends[0]) / 2e-6, abs=1e-6)


# ---- random programs, on micrograd and here ----

def random_program(rng):
    """Lines that change arrays of Values in place, and what the arrays are made of."""
    lines = []
    for _ in range(rng.randrange(3, 14)):
        target = rng.choice(["a", "b", "A[0]", "A[:, 1]", "A[1, :]", "a[:2]", "b[mask]", "a[[2, 0]]", "A.T[2]"])
        size = {"a[:2]": 2, "A[:, 1]": 2, "b[mask]": 2, "a[[2, 0]]": 2, "A.T[2]": 2}.get(target, 3)
        other = rng.choice(["v", "w", "a[1]", "A[1, 2]", "0.5", "np.float64(1.25)", "np.int64(2)", "np.float32(0.5)",
                            f"floats[:{size}]", "b[0]", "v * np.float64(0.75)", f"a[:{size}]", f"b[-{size}:]"])
        operator = rng.choice(["+=", "-=", "*=", "+=", "-=", "*=", "/="])
        if operator == "/=":
            other = rng.choice(["2.0", "np.float64(4)", "(v * v + 1.0)", f"floats[:{size}]"])
        lines.append(rng.choice([
            f"{target} {operator} {other}", f"{target} {operator} {other}", f"{target} {operator} {other}",
            f"np.multiply(a, {rng.choice('vw')}, out=b)", f"np.add.at(a, [0, 2, 0], {rng.choice('vw')})",
            f"v = v * {rng.choice(['a[0]', 'np.float64(0.5)'])} + 0.125", "w = np.dot(a, floats) + np.sum(b) * 0.25",
            "b = a - a.sum() / 3.0", "A @= np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [0.25, 0.0, 1.0]])",
            "a = np.subtract(v, a)", "b = np.where(mask, a, b)", "a = np.minimum.outer(floats[:1], floats)[0] * a",
            "A[0], A[1] = A[1].copy(), A[0].copy()", "a = np.square(a) * 0.25", "b **= 2", "a = relus(a)"]))
    return "\n".join(lines)


def run_program(cls, program, seed):
    rng = random.Random(seed)
    leaves = [cls(rng.uniform(-1.0, 1.0)) for _ in range(14)]
    names = {"np": np, "a": np.array(leaves[:3]), "b": np.array(leaves[3:6]), "v": leaves[12], "w": leaves[13],
             "A": np.array(leaves[6:12]).reshape(2, 3), "floats": np.array([rng.uniform(0.5, 1.5) for _ in range(3)]),
             "mask": np.array([True, False, True]), "relus": np.frompyfunc(lambda x: x.relu(), 1, 1)}
    try:
        exec(program, names)
    except Exception as error:
        return type(error).__name__
    results = [*names["a"], *names["b"], *names["A"].ravel(), names["v"], names["w"]]
    total = sum(results)
    total.backward()
    return [v.data for v in results] + [v.grad for v in leaves]


@pytest.mark.parametrize("seed", range(300))
def test_random_programs_in_place(seed):
    engine = pytest.importorskip("micrograd.engine")
    program = random_program(random.Random(seed))
    theirs, ours = run_program(engine.Value, program, seed), run_program(Value, program, seed)
    if isinstance(theirs, str):
        assert ours == theirs, program
        return
    finite = [math.isfinite(x) and abs(x) < 1e12 for x in theirs]
    assert [x for x, ok in zip(ours, finite) if ok] == pytest.approx(
        [x for x, ok in zip(theirs, finite) if ok], rel=1e-9, abs=1e-9), program


def test_the_random_programs_do_run():
    engine = pytest.importorskip("micrograd.engine")
    ran = [not isinstance(run_program(engine.Value, random_program(random.Random(seed)), seed), str)
           for seed in range(300)]
    assert sum(ran) > 250
    assert len({operator for seed, operator in itertools.product(range(300), ["+=", "*=", "/=", "add.at"])
                if operator in random_program(random.Random(seed))}) == 4
