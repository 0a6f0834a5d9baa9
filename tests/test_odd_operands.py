"""Operands and indices of kinds that are seldom met: arrays of objects without dimensions, of no element, of more
elements than fit on a tape; ints that look like arrays; and comparisons with what has no numbers."""
import os
import subprocess
import sys

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, scalar_graph
from flatgrad.errors import ArgumentTypeError, ShapeError
from test_program_core import record

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

MOST = 2**30


def of_object(x):
    """An array without dimensions that has it."""
    array = np.empty((), object)
    array[()] = x
    return array


# ---- comparisons ----

def test_comparisons_with_arrays_of_objects():
    t = Tensor([1.0, 2.0])
    for x in (2.0, 2, Value(2.0), np.float64(2.0)):
        assert (t == of_object(x)).tolist() == (of_object(x) == t).tolist() == [False, True]
        assert (t < of_object(x)).tolist() == [True, False]
    with pytest.raises(TypeError, match="expected numbers"):
        t == of_object("2.0")
    assert (t == of_object(None)).tolist() == [False, False]
    itself = np.empty((), object)
    itself[()] = itself
    for x, equal in ((2.0, True), (2, True), (Value(2.0), True), (3.0, False)):
        assert (t == [of_object(x), of_object(x)]).tolist() == [False, equal]
    for x in ("2.0", None, [2.0], of_object(2.0), itself):   # no number, or more than one dimension
        assert t != [of_object(x), 2.0] and not t == [of_object(x), 2.0]


def test_numpy_compares_with_what_has_no_numbers():
    t = Tensor([1.0, 2.0])
    for x in ("a", np.array(["a", "b"]), np.array([None, None], object)):
        with pytest.raises(TypeError):
            np.less(x, t)
        with pytest.raises(TypeError):
            np.less(t, x)
    assert np.less([0.0, 3.0], t).tolist() == [True, False]


ALONE = """
import sys
from flatgrad import Tensor, _core
t = Tensor([1.0, 4.0])
assert (t ** 0.5).sum().data == 3.0 and (t ** 2).sum().data == 17.0
assert "numpy" not in sys.modules, "NumPy"
assert (t == [1.0, 2.0]).tolist() == [True, False]
_core._scalar_graph_everywhere()
_core._scalar_graph_everywhere()
assert _core._open_blocks() == (0, 1)
"""


def test_without_numpy():
    """What needs it imports it; powers do not. A process may ask for scalar graphs twice."""
    path = os.pathsep.join([os.path.dirname(os.path.dirname(flatgrad.__file__)), *filter(None, sys.path)])
    subprocess.run([sys.executable, "-c", ALONE], check=True, env={**os.environ, "PYTHONPATH": path})


# ---- shapes ----

def test_no_elements():
    t, row = Tensor([[1.0, 2.0]]), Tensor([1.0, 2.0])
    for x, y in ((t, np.ones((0, 2))), (np.ones((0, 1)), t), (Tensor([[1.0]]), np.ones((1, 0))),
                 (Tensor([1.0]), np.ones(0))):
        with pytest.raises(ShapeError, match="expected at least one element"):
            x + y
    with pytest.raises(ShapeError, match="expected one or two lengths for the 2 elements"):
        row.reshape(-1, 0)
    for shape in ((-1, -2), (-1, -1), (0, -1), (-2, -1), (-1, 3), (0,), (2, 0)):
        with pytest.raises(ShapeError, match="expected one or two lengths for the 2 elements"):
            row.reshape(*shape)
    assert row.reshape(-1, 1).shape == (2, 1) and row.reshape(2, -1).shape == (2, 1)


def test_more_elements_than_fit():
    """Of an array that takes no memory."""
    t = Tensor([1.0])
    huge = np.broadcast_to(np.float64(1.0), (MOST,))
    column, row = Tensor(np.ones((2**15, 1))), Tensor(np.ones((1, 2**15)))
    nodes = _core.stats()["nodes"]
    for call in (lambda: t + huge, lambda: huge * t, lambda: t.reshape(1, 1) / huge.reshape(2**15, 2**15),
                 lambda: column * row, lambda: flatgrad.maximum(column, row)):
        with pytest.raises(MemoryError, match="fit on the tape"):
            call()
    assert _core.stats()["nodes"] == nodes and _core._check()


# ---- indices ----

class Index:
    """An int that says it has dimensions."""
    ndim = 1

    def __index__(self):
        return 1


def test_indices():
    t, m = Tensor([1.0, 2.0, 3.0]), Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert t[Index()].data == 2.0 and m[Index(), Index()].data == 5.0 and m[0, Index()].data == 2.0
    with pytest.raises(IndexError, match="selects shape"):
        m[np.array([[0, 1], [1, 0]])]
    for index in (([0], [3]), ([0, 1], [0, -4]), ([2], [0]), ([[0, 1]], [[0, 5]])):
        with pytest.raises(IndexError, match=r"Tensor of shape \(2, 3\)"):
            m[index]
    assert m[[0, 1], [-1, 0]].tolist() == [3.0, 4.0]
    assert m[[[0, 1], [1, 0]], [[0, 1], [-1, -1]]].tolist() == [[1.0, 5.0], [6.0, 3.0]]


class Axis:
    def __init__(self, error):
        self.error = error

    def __index__(self):
        raise self.error


def test_an_axis_that_is_none():
    t = Tensor([1.0])
    for axis, error in ((Axis(TypeError("own")), ArgumentTypeError), (Axis(KeyError("own")), KeyError),
                        (1.5, ArgumentTypeError)):
        for function in (flatgrad.cat, flatgrad.stack):
            with pytest.raises(error):
                function([t, t], axis)


# ---- single results ----

def test_rows_of_single_operands():
    """As NumPy asks for them: Values give a Value."""
    x, y, w = Value(0.5), Value(2.0), Value(3.0)
    for found, expected in ((np.clip(x, 1.0, 2.0), 1.0), (np.where(True, x, y), 0.5), (np.maximum(x, y), 2.0),
                            (flatgrad.where(x, y, w), 2.0), (flatgrad.clip(y, 0.0, 1.0), 1.0)):
        assert float(found) == expected
    for number in (3.0, 3, np.float64(3.0), np.array(3.0), x * 6.0):
        assert flatgrad.square(number).data == 9.0 and type(flatgrad.square(number)) is Value
    for activation in ("linear", None, "tanh"):
        with scalar_graph():
            single = flatgrad.linear([x, y], [[w, w]], None, activation)
        assert float(single[0]) == pytest.approx(7.5 if activation != "tanh" else np.tanh(7.5))


def test_what_a_cross_entropy_is_made_of():
    x = Tensor([[1.0, 2.0], [0.5, 0.25]])
    name, operands, parameters, index = _core.instruction(flatgrad.losses.cross_entropy(x, [0, 1]))
    assert name == "cross_entropy" and parameters["labels"] == (0, 1) and index == 0
    assert [[v.data for v in row] for row in operands[0]] == x.tolist()


def test_what_other_instructions_are_made_of():
    """`k`, a whole exponent, belongs to operations by element alone."""
    x = Tensor([1.5, 2.0])
    assert _core.instruction((x ** 3)[0])[2] == {"operation": "powi", "k": 3}
    assert _core.instruction((x * 2.0)[0])[2] == {"operation": "mul", "k": 0}
    assert _core.instruction(flatgrad.dot([x[0], x[1]], [1.0, 2.0]))[2] == {"operation": None}


class Sub(Value):
    pass


def test_a_table_that_is_not_of_doubles():
    """Then it is taken element by element, and the same."""
    big = [[10**400, 1.0]]
    assert _core._taken([[1.0, 2.0], [3.0, 4.0]], 1, False, False).tolist() == [3.0, 4.0]
    for table in (np.array([[1, 2]]), [[True, 2.0]], np.ones((1, 2), "f4")):
        found = _core._taken(table, 0, False, False)
        assert found is None or found.shape == (2,)
    with pytest.raises(ShapeError, match="table: expected one or two dimensions"):
        _core._taken(Value(1.0), 0, False, False)
    assert _core._taken(Sub(1.0), 0, False, False) is None
    with pytest.raises((OverflowError, ValueError, TypeError)):
        _core._taken(big, 0, False, False)


def test_an_int_whose_conversion_fails():
    class Own(int):
        def __float__(self):
            raise ZeroDivisionError("own")
    with pytest.raises(ZeroDivisionError, match="own"):
        flatgrad.sum(Own(2**60))


@pytest.mark.parametrize("number", [10**30, -10**30, 10**400, -10**400, 2**53 + 1])
def test_ints_that_float64_does_not_hold(number):
    """As exponents of a Tensor, and as operands of a recorded program, which looks at numbers by itself."""
    program = record(lambda x: x * 2.0, Value(1.0))
    with pytest.raises(ValueError, match=r"operands\[0\]: expected a number that float64 holds exactly, got the int"):
        program([number])
    with pytest.raises(ValueError, match=r"operand of \*\*: expected a number that float64 holds exactly, got the int"):
        Tensor([1.0, 2.0]) ** number
    assert program([2**53])[0].data == 2.0**54


def test_columns_of_values_at_equal_distances():
    """They take no ids of their own on the tape, as many as lie at other distances do."""
    values, x = [Value(0.5 * k) for k in range(40)], Value(2.0)

    def operands(chosen):
        flatgrad.collect()
        before = _core.stats()["operands"]
        y = flatgrad.linear([x], [[values[k]] for k in chosen])
        assert [v.data for v in y] == [float(k) for k in chosen]
        return _core.stats()["operands"] - before
    least = operands([0, 1, 2])
    assert [operands(chosen) - least for chosen in ([0, 2, 4], [3, 13, 23], [0, 11, 22], [0, 1, 3], [2, 1, 0])] == [0, 0, 3, 3, 3]


def test_a_matrix_of_another_height():
    recording = _core._Recording([x := Tensor([0.0, 0.0]), m := Tensor([[1.0, 2.0], [3.0, 4.0]])])
    with recording:
        results = [(m @ x).sum()]
    evaluator = _core._Evaluator(recording.program(results), [])
    for shape in ((3, 2), (2, 3)):
        with pytest.raises(ShapeError, match=r"operands\[1\]: expected the shape \(2, 2\)"):
            evaluator.values([np.ones(2), np.ones(shape)], np.zeros(0))


def test_arrays_of_state_that_are_too_short():
    parameters, three = _core.Parameters([p := Value(1.0), Tensor([1.0, 2.0])]), np.zeros(3)
    for wrong in ((three[:2], three), (three, three[:2])):
        with pytest.raises(ValueError, match=r"state: expected arrays of shape \(3,\)"):
            parameters.adadelta({}, *wrong, 0.9, 1e-6, 0.0, False)
    assert _core.Parameters.step([parameters], []) is False and p.data == 1.0
    assert _core.Parameters([]).get_grad(np.zeros(0)) == 0.0


@pytest.mark.parametrize("of", [object(), int, 5.0])
def test_the_largest_of_what_has_no_elements(of):
    with pytest.raises(ArgumentTypeError, match=r"argmax\(\): x: expected a Tensor, an array or a list"):
        flatgrad.argmax(of)


OWN_INIT = """
from flatgrad import Value, nn, scalar_graph

init, times = Value.__init__, Value.__mul__
Value.__init__ = lambda self, x: init(self, x + 1.0)
assert Value(1.0).data == 2.0
Value.__init__ = init
assert Value(1.0).data == 1.0
neuron, x = nn.Neuron(2, nonlin=False), [Value(2.0), Value(3.0)]
with scalar_graph():
    expected = neuron(x).data
    calls = []
    Value.__mul__ = lambda self, other: calls.append(other) or times(self, other)
    assert neuron(x).data == expected and len(calls) == 2
"""


def test_where_a_user_has_replaced_methods_of_value():
    ran = subprocess.run([sys.executable, "-c", OWN_INIT], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
