"""Calls that Python computes, and the object with their rule: what it may return, and what it may not."""
import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core
from flatgrad.errors import ArgumentError
from test_refusals import refused

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


class Rule:
    """What a call by Python asks: `answer` for the gradients, and `nodes` where they are wanted as nodes."""

    def __init__(self, answer=None, nodes=None, shapes=((2,),)):
        self.shapes, self.answer, self.nodes, self.seen = shapes, answer, nodes, []

    def reverse(self, gradients):
        self.seen.append(gradients.tolist())
        return self.answer

    def written(self, gradients):
        return self.nodes


def called(x, y, **rule):
    result, = _core._call_back([x, y], [Tensor([3.0, 4.0])], Rule(**rule), "own")
    return result


def test_calls_of_other_shapes():
    x = Tensor([1.0, 2.0])
    for operands, results, shapes in (([x], [x], ((3,),)), ([x], [x], ((),)), ([x], [], ()), ([], [x], ((2,),)),
                                      ([x], [x, x], ((2,),)), ([x], [Value(1.0)], ((1,),))):
        refused(ArgumentError, f"results: expected the shapes {shapes}, of at least one operand", _core._call_back,
                operands, results, Rule(shapes=shapes), "own")


def test_gradients_of_other_shapes():
    """A rule that returns other gradients than there are operands is told; operands for which it has None, or nothing,
    get none."""
    one, two = np.ones(1), np.array([5.0, 7.0])
    for answer in ([np.ones(4), two], [one, one], [one, np.ones(3)], [two, one], [one, two, one]):
        z = called(Value(1.0), Tensor([1.0, 2.0]), answer=answer)
        with pytest.raises(RuntimeError, match="a rule has returned gradients of another shape"):
            z.sum().backward()
        assert _core._check()
    none, three = [0.0, 0.0], one * 3.0
    for answer, of_x, of_y in (([None, two], 0.0, [5.0, 7.0]), ([three, None], 3.0, none), ([], 0.0, none),
                               ([three], 3.0, none), ([three, two], 3.0, [5.0, 7.0])):
        x, y = Value(1.0), Tensor([1.0, 2.0])
        z = called(x, y, answer=answer)
        (z * np.array([10.0, 1.0])).sum().backward()
        assert x.grad == of_x and y.grad.tolist() == of_y
        assert z[0]._local_grads == (of_x, *of_y)


def test_nodes_of_other_shapes():
    x, y = Value(1.0), Tensor([1.0, 2.0])
    for nodes in ([Tensor([1.0, 2.0]), None], [None, Value(1.0)], [None, Tensor([[1.0], [2.0]])],
                  [None, Tensor([1.0])]):
        z = called(x, y, nodes=nodes)
        with pytest.raises(RuntimeError, match="a rule has returned gradients of another shape"):
            z.sum().backward(create_graph=True)
        assert _core._check()
    z = called(x, y, nodes=[Value(3.0) * 2.0, Tensor([5.0, 7.0])])
    z.sum().backward(create_graph=True)
    assert x.grad.data == 6.0 and y.grad.tolist() == [5.0, 7.0]


def test_a_call_that_is_restored_without_its_rule():
    """A pickle may say what it likes: then nothing flows through the call."""
    x, y = Value(1.0), Tensor([1.0, 2.0])
    z = called(x, y, answer=[np.ones(1), np.ones(2)])
    graph = z[0].__reduce_ex__(4)[1][1].__reduce__()[1][0]
    restore, arguments, *_ = graph.__reduce__()
    for state in (None, "note", "rule"):
        restored = restore(*arguments)
        members = []
        while True:
            try:
                members.append(_core._member(restored, len(members)))
            except ValueError:
                break
        runs = [k for k, o in enumerate(members) if type(o) is _core._Run]
        if state == "note":
            restored.__setstate__([(k, 0, {"note": 1}, {}) for k in runs])
        if state == "rule":
            for rule in (3, None, Rule, type("Reverse", (), {"reverse": 1})()):
                if rule is not Rule:
                    refused(ValueError, "its rule is", restored.__setstate__, [(runs[0], 0, {"_rule": rule}, {})])
        for k in runs:
            part = _core._restore_part(Value, members[k], 0)
            part.backward()
            part._local_grads, part._prev
        values = [o for o in members if isinstance(o, Value)]
        assert _core._check() and all(v.grad == 0.0 for v in values if v not in (part,))


def test_where_gradients_are_not_recorded():
    """In a block that watches, or does not: the call is recorded as always."""
    for block in (flatgrad.no_grad, flatgrad.detect_anomaly):
        with block():
            z = called(Value(1.0), Tensor([1.0, 2.0]), answer=[np.ones(1), np.ones(2)])
        assert z.tolist() == [3.0, 4.0] and z[0]._op == "own"
    with flatgrad.detect_anomaly():
        x, y = Value(1.0), Tensor([1.0, 2.0])
        called(x, y, answer=[np.ones(1), np.array([2.0, 3.0])]).sum().backward()
        assert x.grad == 1.0 and y.grad.tolist() == [2.0, 3.0]
        z = called(x, y, answer=[np.array([np.nan]), None])
        with pytest.raises(flatgrad.errors.AnomalyError, match="nan"):
            z.sum().backward()


def test_an_operation_beside_a_call():
    """The operation is named that has made the gradient inf, and not the call, whose gradient is finite."""
    x = Value(0.0)
    with flatgrad.detect_anomaly():
        root = flatgrad.sqrt(x)
        z = called(x, Tensor([1.0, 2.0]), answer=[np.ones(1), np.ones(2)])
        with pytest.raises(flatgrad.errors.AnomalyError, match="the rule of sqrt"):
            (z.sum() + root).backward()


def test_a_program_of_a_pickle_that_has_one():
    """No recording makes it. It gives the results that were saved, takes no gradients, and cannot be evaluated."""
    x = Tensor([1.0, 2.0])
    z, = _core._call_back([x], [Tensor([3.0, 4.0])], Rule(answer=[np.ones(2)]), "own")
    graph = z[[0, 1]].__reduce__()[1][0].__reduce__()[1][0]
    restore, arguments, *_ = graph.__reduce__()
    copies = _core._member(restore(*arguments), 0)   # without their attributes
    body = _core._restore_body(x.__reduce__()[1][0], copies, ((1, 2),))
    program = _core._restore_program(body, (), (), (0,), ((2,),), (((2,), False),), ())
    refused(NotImplementedError, "the program calls something that cannot be copied", _core._Evaluator, program, [0])
    y = Tensor([5.0, 6.0])
    for create_graph in (False, True):
        result = program([y])[0]
        assert result.tolist() == [3.0, 4.0]
        result.sum().backward(create_graph=create_graph)
        assert np.asarray(y.grad, float).tolist() == [0.0, 0.0] and _core._check()
