"""Let Python's allocations fail, one call at a time, and see that nothing comes of it but MemoryError.

    python tests/checks memory                           every case, every allocation
    python tests/checks memory --stride 16               every sixteenth
    python tests/checks memory Value.log Tensor.sum      these cases alone

A case is one call, and CASES has at least one for every function of the compiled module and every member of its
classes. For n = 0, 1, ... the n-th allocation of the call fails, then in another run all from the n-th on, until
the call passes. After each run the tape has to be sound, with as many nodes as before, and every operand has to
have as many references as before. The cases run in a process of their own, so that a crash is reported as the
case and the n that it came with, and the others still run.

It needs CPython's module `_testcapi`, which some installations leave out, and takes some minutes. It is for 3.10 and
3.11: later ones end in their own code where memory fails.
"""
import gc
import importlib.util
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

from checks.limits import Unavailable

from flatgrad import _core

ENOUGH = 8   # calls that pass one after the other with all allocations from the n-th on failing: there are no more

# What the cases are made of. A name is gone again after its case.
OPERANDS = """
import collections
import copy
import pickle

import numpy as np

import flatgrad as fg
import flatgrad.lost
from flatgrad import Tensor, Value, _core, nn

class Rule:
    shapes = (), (3,)
    def reverse(self, gradients):
        return [gradients[:1], np.ones(6)]
    def written(self, gradients):
        return [gradients[0] * 2.0, None]

lost = fg.lost.LostFloat, fg.lost.LostArray
a, b, c = Value(0.5), Value(-1.0), Value(2.0)
chain = ((a * b).tanh() + c) ** 2
made = Value(1.0, (a, b), (2.0, 3.0))
ruled = a * 2.0
ruled._backward = lambda: None
ruled.note = "a note"
t = Tensor([[1.0, 2.0, 0.5], [0.25, 3.0, 1.5]])
u = Tensor([0.5, 0.25, 0.125])
flat = Tensor([1.0])
constant = Tensor([0.5, 0.25, 0.125], requires_grad=False)
array = np.array([[1.0, 2.0, 0.5], [0.25, 3.0, 1.5]])
values = [Value(1.0), Value(2.0), Value(0.5)]
boxes = np.array(values)
rows = [[Value(1.0), 2.0], [Value(3.0), Value(4.0)]]
class Sub(Value):
    pass
sub = Sub(2.0)
sub.note = "a note"
labels = np.array([0, 2])
own_rule = Rule()
called_back = _core._call_back([a, t], [c, u], own_rule, "rule")
layer = nn.Layer(3, 2)
neurons = layer.neurons
network = nn.MLP(3, [4, 2])
layers = network.layers
neuron = neurons[0]
parameters = _core.Parameters([*values, u])
six = [np.zeros(6) for _ in range(3)]
state = {}
parameters.sgd(state, six[0], 0.9, 0.0, 0.0, False, False)
group, groups = {"lr": 0.0}, [{"lr": 0.0}]
saved_value, saved_part, saved_tensor = chain.__reduce_ex__(4), (t * 2.0)[0, 0].__reduce_ex__(4), t.__reduce__()
saved_run, saved_leaf = saved_tensor[1][0].__reduce__(), a.__reduce_ex__(4)
saved_graph = saved_value[1][0].__reduce__()
restored = saved_graph[0](*saved_graph[1])
extra = ({"note": "a note"}, {})
rule = a._backward
run = saved_tensor[1][0]
attribute = vars(Value)["note"]
_core._declare("consumers", factory=list)
one = Value(0.5)
recorded = _core._Recording([one])
with recorded:
    recorded_results = [(one * a).log() + t[0] @ u, t * one]
program = recorded.program(recorded_results)
pair, two_numbers, carry_and_xs, xs_and_number = [c, u], [b, c], [b, u], [u, c]
step_recorded = _core._Recording([two := Value(0.5), three := Value(0.25)])
with step_recorded:
    step_results = [two * a + three, two * u]
rule_recorded = _core._Recording([rule_x := Value(0.5), rule_y := Tensor([1.0, 2.0])])
with rule_recorded:
    rule_results = [rule_x * rule_y]
    _core._add_input(rule_recorded, rule_seed := Tensor([1.0, 1.0]))
    rule_gradients = [(rule_seed * rule_y * rule_x * 2.0).sum(), rule_seed * rule_x * u[0]]
rule_program = rule_recorded.program(rule_results + rule_gradients)
with_rule = _core._ruled(rule_program, 2, 1, (0, 1))
two_of_u = Tensor([1.0, 2.0])
ruled_call = with_rule([a, two_of_u])[0]
ruled_state = with_rule.__reduce__()[1][0].__reduce__()[1]
step_program = step_recorded.program(step_results)
scanned_program = step_program.scanned(3, 1, 1)
scan_body = scanned_program.__reduce__()[1][0]
saved_scan = scan_body.__reduce__()
called = program([c])[0]
pair_of = Tensor([0.0, 0.0], requires_grad=False)
recorded_loss = _core._Recording([pair_of])
with recorded_loss:
    loss_of_two = [((pair_of - a) ** 2).mean()]
loss_program = recorded_loss.program(loss_of_two)
learned = _core.Parameters([a, c])
learned.sgd({}, None, 0.0, 0.0, 0.0, False, False)
column = np.array([[0.5], [0.25], [0.75], [1.0]])
loop_of = [loss_program], [2], 4, [learned], [column], [[0]], [[]]
wrong_loop_of = [program], [3], 4, [learned], [column], [[0]], [[]]
no_loop_of = [], [], 4, [], [], [], []
loop, backwards, rates = _core._Loop(*loop_of), np.array([3, 2, 1, 0]), [0.0]
loop_losses = np.zeros(4)
evaluated, by_captured = _core._Evaluator(loss_program, [0]), _core._Evaluator(loss_program, [], [a, c])
of_batch = _core._Evaluator(loss_program, [0], None, [True], 3)
by_vector, loss_gradient = _core._Evaluator(loss_program, [], places=[0]), _core._differentiated(loss_program, [True])[0]
loss_parts = _core._detached(loss_program)
two_given, pairs_given, shared_numbers = np.ones(2), np.ones((3, 2)), of_batch.shared([None])
rng = np.random.default_rng(0)
draws = _core._Draws(rng, "normal", (2,))
draws.extend(_core._Draws(rng, "threshold", (), 0.5))
aside = {id(rng.bit_generator): (rng.bit_generator, copy.deepcopy(rng.bit_generator))}   # NumPy's copy crashes
drawing = _core._Recording([pair_of])
with drawing:
    drawing_results = [((pair_of - a) ** 2).mean() * fg.Random(rng).uniform(2).sum()]
drawing_program = drawing.program(drawing_results)
drawing_loop_of = [drawing_program], *loop_of[1:], None, False, [drawing.draws]
saved_program = program.__reduce__()
body = saved_program[1][0]
saved_body = body.__reduce__()
places = _core._Places()
places.dicts.append((state, "a", _core._MISSING))
places.lists.append((values, tuple(values)))
places.functions.append((flat_function := lambda: None, flat_function.__code__, None, None))
places.note_neuron(neuron, {id(neuron.b)})
hole = _core._Hole(0)
number_, value_, frozen_, tensor_, array_ = _core._LEAVES
replay_of = ((number_, (list, value_, (tensor_, (2, 3), True)), (_core._Keywords, ("k", (array_, (2, 3))), (
    "n", (_core._Static, tuple, (_core._Static, int, 1), (_core._Static, str, "a"))))),
    (), (), places, "key", lambda leaves: None)
replay = _core._Replay(*replay_of)

class OwnReplays(_core._Replays):
    def _call(self, args, kwargs):
        return None

replays = OwnReplays()
replays._programs = collections.OrderedDict(key=1)
replays.remember(replay)
rowed = _core._Recording([one])
with rowed:
    rowed_results = [(one * a).log() + u @ u, u * one]
single = rowed.program(rowed_results)
batch = single.mapped(3, [True])
lanes = batch.__reduce__()[1][0]
saved_lanes = lanes.__reduce__()
"""

# name -> calls. "Class.member" is a member, anything else a function of the module; what follows a blank is a note.
# The public rows of ops.def that need one operand, and those that need two; these are methods by NumPy's other names.
PUBLIC = [row for row in _core._operations() if row["public"]]
OF_ONE = [row["name"] for row in PUBLIC if row["arity"] == 1 or row["default"] is not None]
OF_TWO = [row["name"] for row in PUBLIC if row["arity"] == 2 and row["default"] is None]
OF_NUMPY = [name for row in PUBLIC if row["name"] in OF_TWO for name in row["ufuncs"] if name != row["name"]]

CASES = {
    "Value": "Value(1.0)", "Value of an int": "Value(3)", "Value of an array": "Value(np.array([1.0]))",
    "Value of a subclass": "Sub(1.0)", "Value with children": "Value(1.0, (a, b), '+')",
    "Value with gradients": "Value(1.0, (a, b), (2.0, 3.0), 'label')", "Value of nonsense": "raises(Value, 'x')",
    "Value.__init__": "c.__init__(2.0, (a, b), 'op')",
    "Value.__abs__": "abs(a)", "Value.__add__": "a + b", "Value.__radd__": "1.0 + a", "Value.__add__ int": "a + 3",
    "Value.__add__ NumPy": "a + np.float64(1.0)", "Value.__add__ subclass": "sub + 1",
    "Value.__add__ array": "a + array[0]", "Value.__add__ nonsense": "raises(a.__add__, 2**2000)",
    "Value.__sub__": "a - b", "Value.__rsub__": "1.0 - a", "Value.__mul__": "a * b", "Value.__rmul__": "2 * a",
    "Value.__truediv__": "a / b", "Value.__rtruediv__": "1.0 / a", "Value.__truediv__ 0": "raises(a.__truediv__, 0)",
    "Value.__pow__": "a ** 2", "Value.__pow__ float": "a ** 0.5", "Value.__rpow__": "2.0 ** a",
    "Value.__pow__ domain": "raises(b.__pow__, 0.5)", "Value.__neg__": "-a", "Value.__pos__": "+a",
    "Value.__lt__": "a < b", "Value.__le__": "a <= 1", "Value.__gt__": "a > np.float64(1.0)", "Value.__ge__": "a >= b",
    "Value.__eq__": "a == b", "Value.__ne__": "a != b", "Value.__bool__": "bool(a)",
    "Value.__hash__": "hash(a)", "Value.__float__": "float(a)",
    "Value.__int__": "int(a)", "Value.__trunc__": "a.__trunc__()", "Value.__round__": "round(a, 2)",
    "Value.__format__": "f'{a:.3f} {a}'", "Value.__repr__": "repr(a)",
    "Value.__reduce_ex__": "chain.__reduce_ex__(4)", "Value.__reduce_ex__ rule": "ruled.__reduce_ex__(4)",
    "Value.__copy__": "copy.copy(chain)", "Value.__copy__ subclass": "copy.copy(sub)",
    "Value.__deepcopy__": "copy.deepcopy(ruled)", "Value.__setstate__": "Value(1.0).__setstate__(extra)",
    "Value.__setattr__": "Value(1.0).note = 'a note'", "Value.__setattr__ default": "Value.kind = 1; Value(1.0).kind = 2",
    "Value.__delattr__": "x = Value(1.0); x.note = 1; del x.note",
    "Value._backward": "made._backward", "Value._backward set": "x = a * 2.0; x._backward = print",
    "Value._children": "chain._children", "Value._prev": "chain._prev", "Value._local_grads": "made._local_grads",
    "Value._op": "chain._op", "Value._op set": "x = Value(1.0); x._op = 'op'",
    "Value.data": "a.data", "Value.data set": "a.data = 0.5", "Value.grad": "a.grad", "Value.grad set": "a.grad = 1",
    "Value.backward": "chain.backward()", "Value.backward rule": "(ruled * 2.0).backward()",
    "Value.detach": "a.detach()", "Value.update": "a.update(0.0)",
    "Value.log domain": "raises(b.log)", "Value.sqrt domain": "raises(b.sqrt)",
    **{f"Value.{name}": f"c.{name}()" for name in OF_ONE}, **{f"Value.{name}": f"c.{name}(2)" for name in OF_NUMPY},

    "Tensor": "Tensor(array)", "Tensor of a list": "Tensor([1.0, 2.0])", "Tensor of Values": "Tensor(values)",
    "Tensor of rows": "Tensor(rows)", "Tensor of a Tensor": "Tensor(t)", "Tensor of nonsense": "raises(Tensor, 'x')",
    "Tensor.__init__": "raises(t.__init__, [1.0])",
    "Tensor.__abs__": "abs(t)", "Tensor.__add__": "t + u", "Tensor.__radd__": "array + t", "Tensor.__sub__": "t - 1",
    "Tensor.__rsub__": "1.0 - t", "Tensor.__mul__": "t * a", "Tensor.__mul__ values": "u * values",
    "Tensor.__mul__ shapes": "raises(t.__mul__, [1.0, 2.0])", "Tensor.__rmul__": "values * u",
    "Tensor.__truediv__": "t / u", "Tensor.__truediv__ 0": "raises(t.__truediv__, 0.0)",
    "Tensor.__rtruediv__": "1.0 / t", "Tensor.__pow__": "t ** 2", "Tensor.__pow__ float": "t ** 0.5",
    "Tensor.__rpow__": "2.0 ** t", "Tensor.__neg__": "-t", "Tensor.__pos__": "+t", "Tensor.__matmul__": "t @ u",
    "Tensor.__matmul__ matrices": "t @ t.T", "Tensor.__rmatmul__": "array @ u",
    "Tensor.__array__": "np.asarray(constant)",
    "Tensor.__bool__": "raises(bool, t)", "Tensor.__copy__": "copy.copy(t)", "Tensor.__eq__": "t == t",
    "Tensor.__ne__": "t != t", "Tensor.__lt__": "raises_or_not(lambda: t < t)",
    "Tensor.__le__": "raises_or_not(lambda: t <= t)", "Tensor.__gt__": "raises_or_not(lambda: t > t)",
    "Tensor.__ge__": "raises_or_not(lambda: t >= t)",
    "Tensor.__float__": "float(flat)", "Tensor.__hash__": "hash(t)", "Tensor.__iter__": "list(t)",
    "Tensor.__iter__ Values": "list(u)", "Tensor.__len__": "len(t)", "Tensor.__getitem__": "t[0]",
    "Tensor.__getitem__ Value": "t[0, -1]", "Tensor.__getitem__ slice": "t[:, 1:]",
    "Tensor.__getitem__ picked": "t[[0, 1], [1, 2]]", "Tensor.__getitem__ mask": "t[array > 1.0]",
    "Tensor.__getitem__ constant": "constant[[0, 0]]", "Tensor.__getitem__ range": "raises(t.__getitem__, 7)",
    "Tensor.__setitem__": "raises(t.__setitem__, 0, 1.0)", "Tensor.__delitem__": "raises(t.__delitem__, 0)",
    "Tensor.__reduce__": "t.__reduce__()", "Tensor.T": "t.T", "Tensor._op": "(t * 2.0)._op",
    "Tensor.backward": "flat.backward()", "Tensor.data": "t.data", "Tensor.data set": "t.data = array",
    "Tensor.data nonsense": "raises(setattr, t, 'data', values)", "Tensor.grad": "t.T.grad",
    "Tensor.grad set": "t.grad = 0.0", "Tensor.detach": "t.detach()",
    "Tensor.item": "flat.item()", "Tensor.ndim": "t.ndim",
    "Tensor.numpy": "t.numpy()", "Tensor.requires_grad": "t.requires_grad", "Tensor.shape": "t.shape",
    "Tensor.size": "t.size", "Tensor.tolist": "t.tolist()", "Tensor.update": "t.update(0.0)",
    "Tensor.reshape": "t.reshape(3, -1)", "Tensor.reshape copy": "t.T.reshape(6)",
    "Value.item": "a.item()", "Value.requires_grad": "a.requires_grad", "Tensor._is_constant": "t._is_constant",
    "all_signs": "_core.all_signs([a, 1.0])", "_open_blocks": "_core._open_blocks()", "_Block": "_core._Block()",
    "Tensor.argmax": "t.argmax(1)", "Tensor.argmin": "t.argmin()", "Tensor.min": "t.min(0)",
    "Tensor.square": "t.square()", "Tensor.clip": "t.clip(0.0, 1.0)",
    "Tensor.__array_function__": "np.concatenate([u, u])", "Tensor.__array_ufunc__": "np.tanh(t)",
    "Value.__array_ufunc__": "np.float64(2.0) * a", "Value.__array_ufunc__ compare": "np.less(np.float64(1.0), a)",
    "Value.__array_ufunc__ loop": "np.negative(a)", "Value.__array_ufunc__ in place": "box = boxes.copy(); box += a",
    "Value.__array_ufunc__ out": "raises(np.add, 1.0, 2.0, out=a)",
    "Value.__array_ufunc__ nonsense": "raises(a.__array_ufunc__, 1, 2)",
    "Tensor.log domain": "raises((-t).log)",
    **{f"Tensor.{name}": f"t.{name}()" for name in (
        *OF_ONE, "log_softmax", "logsumexp", "max", "mean", "softmax", "sum")},

    **{name: f"fg.{name}(c)" for name in OF_ONE},
    "tanh of a number": "fg.tanh(1)", "tanh of a Tensor": "fg.tanh(t)", "tanh of nonsense": "raises(fg.tanh, 'x')",
    "elu by keyword": "fg.elu(t, alpha=0.5)", "elu of nonsense": "raises(fg.elu, t, slope=0.5)",
    **{name: f"fg.{name}(a, 2)" for name in OF_TWO}, "minimum of Tensors": "fg.minimum(t, u)",
    "where": "fg.where(a, b, 1.0)", "where of Tensors": "fg.where(t, u, values)",
    "clip": "fg.clip(a, 0.0, 1.0)",
    **{f"{name} {k}": f"fg.{name}({x})" for name in ("sum", "mean", "max", "logsumexp", "softmax", "log_softmax")
       for k, x in enumerate(("values", "t, 0", "rows, 1", "array", "iter(values)"))},
    "min": "fg.min(values)", "min along": "fg.min(t, 0)", "argmax": "fg.argmax(t, 1)", "argmin": "fg.argmin(t)",
    "square": "fg.square(c)", "square of a Tensor": "fg.square(t)", "cat": "fg.cat([t, t], 0)",
    "stack": "fg.stack([u, constant])", "_operator": "_core._operator('/', t, u)",
    "_is_recording": "_core._is_recording()", "_is_recorded": "_core._is_recorded(a), _core._is_recorded(t)",
    "_is_unrecorded": "_core._is_unrecorded()", "_detects_anomaly": "_core._detects_anomaly()",
    "_decorated": "_core._decorated('no_grad', fg.no_grad(), len)",
    "_leave_anomaly": "raises(_core._leave_anomaly, None)",
    "_is_recording_single": "_core._is_recording_single()",
    "_taken": "_core._taken(rows, a * 0.0 + 1.0, False, True)", "_taken each": "_core._taken(t, [1.0, -1.0], True, False)",
    "_taken nothing": "raises(_core._taken, values, 7.5, False, False)",
    "_moved": "_core._moved('cat()', [t, t], np.concatenate)",
    "sum of nothing": "fg.sum([])", "sum along nothing": "raises(fg.sum, values, 5)",
    "dot": "fg.dot(values, [1.0, 2.0, 3.0], a)", "dot of shapes": "raises(fg.dot, values, [1.0])",
    "matvec": "fg.matvec(rows, [1.0, 2.0])", "linear": "fg.linear(array, t, [a, b], 'relu')",
    "linear gelu": "fg.linear(values, t, None, 'gelu')",
    "pairwise": "_core.pairwise('squared_error', u, values, 'mean')",
    "pairwise none": "_core.pairwise('huber', t, array, 'none', 1.0)",
    "cross_entropy": "_core.cross_entropy(t, labels)",
    "cross_entropy labels": "raises(_core.cross_entropy, rows, labels)",
    "instruction": "_core.instruction(fg.dot(values, values))", "instruction map": "_core.instruction((t * a)[0, 0])",
    "derivatives": "_core.derivatives([chain, t], [a, t])", "derivatives rule": "_core.derivatives([ruled], [a])",
    "_visits": "_core._visits(chain)", "_visits rule": "_core._visits(ruled)",
    "_visits call": "_core._visits(called_back[0])", "_origins": "_core._origins([a, chain])",
    "written": "_core.written([chain, t.sum()], [None, None], [a, t])",
    "written of a rule": "_core.written(called_back, [None, None], [a])",
    "_call_back": "_core._call_back([a, t], [c, u], own_rule, 'rule')", "_Callback": "_core._Callback()",
    "_call_back a sweep": "called_back[0].backward()", "_call_back _local_grads": "called_back[0]._local_grads",
    "_call_back pickle": "raises_or_not(lambda: copy.deepcopy(_core._restore_callback((2, 3), 4)))",
    "_ruled": "_core._ruled(rule_program, 2, 1, (0, 1))([a, two_of_u])[0].sum().backward()",
    "_ruled without": "raises(_core._ruled, rule_program, 2, 1, (0,))",
    "_add_input": "_core._add_input(_core._Recording([Value(1.0)]), Value(2.0))",
    "_ruled a sweep": "ruled_call.sum().backward()",
    "_ruled written": "_core.written([with_rule([a, two_of_u])[0].sum()], [None], [a, u])",
    "_ruled pickle": "with_rule.__reduce__()[1][0].__reduce__()",
    "_restore_ruled": "_core._restore_ruled(*ruled_state)",
    "_restore_ruled nonsense": "raises(_core._restore_ruled, (), None, ())",
    "_restore_callback": "_core._restore_callback((2, 3), 4)",
    "_forked": "_core._forked()",
    "_Watch": "with _core._Watch([a, t]) as watch: (a * 2.0).data, (t[0] * 2.0).data",
    "_gradients": "_core._gradients([chain, t], [np.ones(1), np.ones(6)], [a, t, b])",
    "_keep": "_core._keep([a, u], [b, constant])", "_leaves_below": "_core._leaves_below([chain, t.sum()])",
    "_sweep_from": "_core._sweep_from(t * 2.0, np.ones(6))", "_sweep_with": "_core._sweep_with(chain, 2.0)",
    "Value.backward gradient": "(chain * 2.0).backward(2.0)", "Tensor.backward gradient": "(t * 2.0).backward(t)",
    "Value.backward create_graph": "x = Value(2.0); (x * x * x * a).backward(create_graph=True)",
    "Tensor.backward create_graph": "x = Tensor([1.0, 2.0]); (x * x * x).sum().backward(create_graph=True); x.grad",
    "written of a call": "_core.written(step_recorded.program(step_results)(two_numbers), [None, None], [a, b, u])",
    "written of a scan": "_core.written(step_program.scanned(3, 1, 1)(carry_and_xs), [None, None], [a, b, u])",
    "written of a batch": "_core.written(step_program.mapped(3, [True, False])(xs_and_number), [None, None], [a, c, u])",
    "depends": "_core.depends([chain, t], [a, u])", "are_values": "_core.are_values(values)",
    "weighted_sum": "_core.weighted_sum(values, [1.0, 2.0, 3.0], a)",
    "weighted_sum of others": "_core.weighted_sum(values, (a, 1, sub), a)",
    "own_calls": "_core.own_calls(nn.Neuron.__call__, nn.Layer.__call__)",
    "layer_forward": "_core.layer_forward(neurons, values)", "layer_forward of a batch": "layer(array)",
    "layer_forward closer": "neuron.w; layer([1, 2, sub])", "network_forward": "_core.network_forward(layers, values)",
    "network_forward of a batch": "network(t)", "neuron": "neuron(values)",
    "collect": "fg.collect()", "collect cycles": "x = a * 2.0; x._backward = lambda x=x: None; del x; fg.collect()",
    "stats": "fg.stats()", "_apply": "_core._apply('POW', a, 2.0)", "_check": "_core._check()",
    "_operations": "_core._operations()", "_kernel_levels": "_core._kernel_levels()", "_testing": "_core._testing()",
    "_memory": "_core._memory()",
    "_restore": "saved_leaf[0](*saved_leaf[1])", "_member": "saved_value[0](*saved_value[1])",
    "_restore_graph": "saved_graph[0](*saved_graph[1])", "_Graph": "_core._Graph()",
    "_Graph.__reduce__": "saved_run[1][0].__reduce__()", "_Graph.__setstate__": "restored.__setstate__([])",
    "_around_collection": "_core._around_collection('start', {'generation': 2, 'collected': 0})", "_restore_part": "saved_part[0](*saved_part[1])",
    "_restore_tensor": "saved_tensor[0](*saved_tensor[1])",
    "pickle": "pickled([chain, t, layer])", "deepcopy": "copy.deepcopy([chain, t * u, network])",

    "_Attribute": "_core._Attribute('note')", "_Attribute.__get__": "attribute.__get__(ruled, Value)",
    "_Attribute.__get__ default": "Value(1.0).label", "_Attribute.__get__ factory": "Value(1.0).consumers.append(1)",
    "_declare": "_core._declare('consumers', factory=list)",
    "_clear_gradients": "_core._clear_gradients(a * b, False)", "_sign_zeros": "_core._sign_zeros(a * b)",
    "_second_pass": "_core._second_pass(a - b)", "_changed_since": "_core._changed_since(a - b)",
    "_scalar_graph_everywhere": "_core._open_blocks()",  # for the whole process: it allocates nothing
    "_Rule": "_core._Rule(a)", "_Rule.__call__": "rule()", "_Rule.__reduce__": "rule.__reduce__()",
    "_Rule.__name__": "chain._backward.__name__", "_Rule.__qualname__": "rule.__qualname__",
    "_Rule.__signature__": "rule.__signature__",
    "_Run": "_core._Run()", "_Run.__deepcopy__": "run.__deepcopy__({})", "_Run.__reduce__": "run.__reduce__()",
    "Weights": "_core.Weights()", "Weights.__getstate__": "neuron.__getstate__()",
    "Weights.__setstate__": "neuron.__setstate__(neuron.__getstate__())", "Weights.__reduce__": "neuron.__reduce__()",
    "Weights.activation": "neuron.activation", "Weights.b": "neuron.b", "Weights.w": "neuron.w",
    "Weights.w set": "neuron.w = values; neuron(values)", "Weights.has_bias": "neuron.has_bias",
    "Weights.nonlin": "neuron.nonlin", "Weights.own_parameters": "neuron.own_parameters()",
    "_Recorder": "_core._Recorder()", "_Recording": "_core._Recording([one])",
    "_Recording program": "recorded.program(recorded_results)",
    "_Recording program of an input": "recorded.program([one])",
    "_Recording program simplified": "recorded.program(recorded_results, ('shared', 'dots', 'layers', 'together'))",
    "_Program": "_core._Program()", "_Program.__call__": "program([c])", "_Program.__call__ number": "program([0.5])",
    "_Program.__call__ domain": "raises(program, [-1.0])", "_Program.__call__ nonsense": "raises(program, ['x'])",
    "_Program.__call__ backward": "program([c])[0].backward()",
    "_Program.__call__ part": "program([c])[0]._local_grads",
    "_Program.captured": "program.captured", "_Program.stats": "program.stats()",
    "_listed": "_core._listed(_core._callee(program))", "_callee": "_core._callee(program)",
    "_formulas": "_core._formulas()", "_updates": "_core._updates()",
    "_captured_numbers": "_core._captured_numbers(program)",
    "_captured_frozen": "_core._captured_frozen(program)", "_moves": "_core._moves()",
    "_captured_places": "_core._captured_places(program, [a, t])",
    "_first_repeated": "_core._first_repeated([a, t])",
    "_with_gradients": "_core._with_gradients(_core._callee(program), [True] * 4, True)",
    "_takes_gradients": "_core._takes_gradients(program)", "_held_below": "_core._held_below([chain, t.sum()], [a])",
    "_mark_lost": "_core._mark_lost(*lost)", "_refuse_lost": "raises(_core._refuse_lost, 'x', lost[0](0.5))",
    "_refuse_masked": "raises(_core._refuse_masked, 'x', np.ma.array([1.0, 2.0], mask=[0, 1]))",
    "_Program.__reduce__": "program.__reduce__()", "_restore_program": "saved_program[0](*saved_program[1])",
    "_Body": "_core._Body()", "_Body.__copy__": "body.__copy__()", "_Body.__deepcopy__": "body.__deepcopy__({})",
    "_Body.__reduce__": "body.__reduce__()", "_restore_body": "saved_body[0](*saved_body[1])",
    "_Program.scanned": "step_program.scanned(3, 1, 1)",
    "_Program.scanned nonsense": "raises(step_program.scanned, 3, 2, 1)",
    "_Program.__call__ scan": "scanned_program(pair)",
    "_Program.__call__ scan backward": "scanned_program(pair)[0].backward()",
    "_Program.__call__ scan part": "scanned_program(pair)[0]._local_grads",
    "_Program.stats scan": "scanned_program.stats()",
    "_Derivative": "_core._Derivative()",
    "_Callee": "_core._Callee()", "_Scan": "_core._Scan()", "_Lanes": "_core._Lanes()",
    "_Scan.__copy__": "scan_body.__copy__()", "_Scan.__deepcopy__": "scan_body.__deepcopy__({})",
    "_Scan.__reduce__": "scan_body.__reduce__()", "_restore_scan": "saved_scan[0](*saved_scan[1])",
    "_stand_in": "_core._stand_in(c)", "_stand_in Tensor": "_core._stand_in(t, False)",
    "_Program.mapped": "single.mapped(5, [True])", "_in_floats": "_core._in_floats(single)",
    "_Program.mapped in floats": "single.mapped(5, [True], 0, True)",
    "_Program.__call__ of a batch": "batch([array[0]])",
    "_Program.__call__ of a batch, domain": "raises(batch, [[-1.0, 1.0, 1.0]])",
    "_Program.__call__ of a batch, backward": "batch([array[0]])[0].sum().backward()",
    "_Program.__call__ of a batch, part": "batch([array[0]])[0][1]._local_grads",
    "_Lanes.__reduce__": "lanes.__reduce__()", "_restore_lanes": "saved_lanes[0](*saved_lanes[1])",
    "_Store": "_core._Store()", "_Loop": "_core._Loop(*loop_of)",
    "_Loop of nonsense": "raises(_core._Loop, *wrong_loop_of)", "_Loop.__init__": "raises(loop.__init__, *no_loop_of)",
    "_Loop.run": "loop.run(4, rates, None, loop_losses)", "_Loop.done": "loop.done",
    "_Loop.look": "_core._Loop(*loop_of).look()", "_Store.flows": "loop.flows(0, [])",
    "_Loop.run at first": "_core._Loop(*loop_of).run(2, rates, None, loop_losses)",
    "_Copies": "_core._Copies()", "_Evaluator": "_core._Evaluator(loss_program, [0])",
    "_Evaluator.__init__": "raises(evaluated.__init__, program, [])",
    "_Evaluator of a batch": "_core._Evaluator(loss_program, [], [a], [True], 3)",
    "_Evaluator of nonsense": "raises(_core._Evaluator, loss_program, [7])",
    "_Evaluator.__call__": "evaluated([two_given])", "_Evaluator.__call__ parameters": "by_captured([two_given])",
    "_Evaluator.__call__ anew": "_core._Evaluator(loss_program, [], [a, c])([two_given])",
    "_Evaluator.__call__ nonsense": "raises(evaluated, ['x'])", "_Evaluator.table": "evaluated.table([two_given])",
    "_Evaluator.shared": "of_batch.shared([None])", "_Evaluator.count": "evaluated.count",
    "_Evaluator.sum": "of_batch.sum(shared_numbers, [pairs_given], [np.zeros((3, 2))], 0, 3, 2, 1.0, np.zeros(0))",
    "_Evaluator.width": "of_batch.width", "_Evaluator of a vector": "_core._Evaluator(loss_program, [], places=[0, -1])",
    "_Evaluator of a wrong vector": "raises(_core._Evaluator, loss_program, [], places=[7])",
    "_Evaluator.__call__ vector": "by_vector([two_given], two_given[:1])",
    "_Evaluator.__call__ list": "by_vector([two_given], [0.5])",
    "_Evaluator.__call__ wrong vector": "raises(by_vector, [two_given], two_given)",
    "_Evaluator.values": "by_vector.values([two_given], two_given[:1])", "_Evaluator.columns": "by_vector.columns",
    "_Evaluator.table vector": "_core._Evaluator(loss_gradient, [], places=[0]).table([two_given], two_given[:1], 1)",
    "_captured_leaves": "_core._captured_leaves(loss_program)", "_detached": "_core._detached(loss_program)",
    "_differentiated": "_core._differentiated(loss_program, [True])",
    "_differentiated seeds": "_core._differentiated(loss_gradient, [True], True)",
    "_attached": "_core._attached(*loss_parts, two_given[:1])",
    "_Program.shapes": "program.shapes", "_Program.results": "program.results",
    "_Loop.run order": "loop.run(2, rates, backwards, loop_losses)",
    "_live_programs": "_core._live_programs()", "_refuse_recording": "_core._refuse_recording('nothing')",
    "_Places": "_core._Places().hold()", "_Places of all kinds": "places.hold()",
    "_Replays": "_core._Replays()", "_Replays.__call__": "replays(2.0, [a, t], k=array, n=(1, 'a'))",
    "_Replays.__call__ other": "replays(2.0, [a, u], k=array, n=(1, 'a'))",
    "_Replays.remember": "replays.remember(replay)", "_Replays.use": "replays.use('key')",
    "_Replays.forget": "_core._Replays().forget()", "_Replays.replays_of": "_core._Replays().replays_of(replays)",
    "_Replays._programs": "replays._programs", "_Replays._hits": "replays._hits", "_Replays._misses": "replays._misses",
    "_Replay": "_core._Replay(*replay_of)", "_Hole": "_core._Hole(0)", "_Same": "{_core._Same(a): 1}[_core._Same(a)]",
    "_Same.x": "repr(_core._Same(a).x)", "_filled": "_core._filled([hole, {'a': (hole, array)}], [a])",
    "_Static": "_core._Static()", "_Keywords": "_core._Keywords()",
    "_is_captured": "_core._is_captured(set(), a)",
    "_timed": "_core._timed(program, 0.0)", "_timed batch": "_core._timed(batch, 0.0)",
    "_note_read": "_core._note_read(a, 'data')", "_buffer_input": "_core._buffer_input(a, 'data', None)",
    "_Draws": "_core._Draws(rng, 'uniform', (3,))", "_Draws.__init__": "raises(draws.__init__, rng)",
    "_Draws.extend": "_core._Draws(rng, 'uniform', (3,)).extend(draws)", "_Draws.repeated": "draws.repeated(2)",
    "_Draws.shapes": "draws.shapes", "_Draws.size": "draws.size", "_Draws.draw": "draws.draw()",
    "_Draws.draw aside": "draws.draw(aside)", "_Draws.states": "draws.states()", "_draw": "_core._draw(draws, None)",
    "_Loop.run draws": "_core._Loop(*drawing_loop_of).run(2, rates, None, loop_losses)",
    "pickle of a call": "pickled([called, program])", "deepcopy of a call": "copy.deepcopy([called, program])",
    "Parameters": "_core.Parameters(iter([*values, u, a, a]))",
    "Parameters of nonsense": "raises(_core.Parameters, iter([t.T]))",
    "Parameters.__init__": "raises(parameters.__init__, iter([a]))", "Parameters.__reduce__": "parameters.__reduce__()",
    "Parameters.values": "parameters.values",
    "Parameters.count": "parameters.count", "Parameters.zero_grad": "parameters.zero_grad()",
    "Parameters.shared_with": "parameters.shared_with(_core.Parameters(iter([a, u])))",
    "Parameters.grad_norm": "parameters.grad_norm(2.0)", "Parameters.scale_grad": "parameters.scale_grad(1.0)",
    "Parameters.clip_grad": "parameters.clip_grad(1.0)",
    "Parameters.get_data": "parameters.get_data(six[0])", "Parameters.get_grad": "parameters.get_grad(six[0])",
    "Parameters.set_data": "parameters.set_data(six[0], 0.0, six[1])",
    "Parameters.set_data again": "_core.Parameters(iter([a])).set_data(np.ones(1))",
    "Parameters.clear_frozen": "parameters.clear_frozen(six[0])",
    "_lbfgs_pair": "_core._lbfgs_pair(array.copy(), array.copy(), 0, *[np.ones(3)] * 3, 0.5)",
    "_lbfgs_direction": "_core._lbfgs_direction(array, array, np.ones(2), 0, 2, 1.0, *[np.ones(3) for _ in range(3)])",
    "_to_vector": "_core._to_vector(iter([a, t.T, u]))",
    "_from_vector": "_core._from_vector(iter([*values, u]), np.ones(6))",
    "_dot_and_largest": "_core._dot_and_largest(array[0], array[1])",
    "Parameters.have": "_core.Parameters.have(groups, ('lr',), [(0.0,)])",
    "Parameters.step": "_core.Parameters.step([parameters], groups)",
    "Parameters.step again": "_core.Parameters(iter([a])); parameters.step([parameters], groups)",
    "Parameters.sgd": "parameters.sgd({}, six[0], 0.9, 0.0, 0.0, False, False)",
    "Parameters.adam": "parameters.adam({}, *six, 0.9, 0.99, 1e-8, 0.0, False, False)",
    "Parameters.rmsprop": "parameters.rmsprop({}, *six, 0.9, 1e-8, 0.0, 0.0, False)",
    "Parameters.adagrad": "parameters.adagrad({}, six[0], 0.0, 0.0, 1e-8, False)",
    "Parameters.adadelta": "parameters.adadelta({}, *six[:2], 0.9, 1e-8, 0.0, False)",
}

# Cases of which a good part runs in CPython's copy and list(), or in NumPy, whose own code loses a reference or
# reports no error at all where memory fails. Here a SystemError is one of memory, and references are not compared.
FOREIGN = {"Value.__add__ array", "Value.backward create_graph", "Tensor.backward create_graph",
           "Value.__deepcopy__", "_Run.__deepcopy__", "pickle of a call", "deepcopy of a call",
           "Tensor.__lt__", "Tensor.__le__",
           "Tensor.__gt__", "Tensor.__ge__", "Tensor.__getitem__ mask", "pickle", "deepcopy",
           "Tensor.__array_function__", "Tensor.__array_ufunc__", "Value.__array_ufunc__ loop",
           "Value.__array_ufunc__ in place", "Value.__array_ufunc__ out", "Value.__array_ufunc__ compare",
           "Value.__array_ufunc__", "cat", "stack", "_moved", "_refuse_masked"}

# Contexts, for CPython's ContextVar.set crashes; members of every class; Tensor.__repr__, for NumPy's array2string
# crashes; and pictures and tables for notebooks, which are made in Python.
LEFT_OUT = {"__doc__", "__module__", "__new__", "__pyx_vtable__", "__slotnames__",
            "__annotations__", "__reduce_cython__", "__setstate_cython__",
            "Tensor.__repr__", "Tensor._repr_html_", "Value._repr_mimebundle_", "no_grad", "recording", "scalar_graph",
            "tracing", "_Within", "_enter_anomaly", "_set_anomaly"}   # CPython 3.11 crashes in ContextVar.set without memory


def raises(function, *arguments, **keywords):
    """A call that has to fail, of which only the message may be lost."""
    try:
        function(*arguments, **keywords)
    except MemoryError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return
    raise AssertionError(f"{function} has raised nothing")


def pickled(x):
    try:
        return pickle.loads(pickle.dumps(x))
    except pickle.PicklingError as error:   # which pickle makes of any error while it looks for a name
        raise MemoryError from error


def raises_or_not(function):
    try:
        function()
    except TypeError:
        pass


def missing():
    """What CASES has no case for."""
    from flatgrad import _core

    have = {name.partition(" ")[0] for name in CASES}
    wanted = {name for name, x in vars(_core).items()
              if callable(x) and getattr(x, "__module__", None) in (_core.__name__, "flatgrad")} - LEFT_OUT
    for cls in (_core.Value, _core.Tensor, _core.Weights, _core.Parameters, _core._Rule, _core._Run, _core._Attribute,
                _core._Program, _core._Body, _core._Scan, _core._Lanes, _core._Replays, _core._Draws):
        wanted |= {f"{cls.__name__}.{name}" for name, x in vars(cls).items()
                   if name not in LEFT_OUT and not isinstance(x, _core._Attribute)}
    return sorted(wanted - LEFT_OUT - have)


class PythonsMemory:
    """Allocations of Python, its own and ours, by `_testcapi`."""

    may_lose_errors = False   # outside of FOREIGN

    def __init__(self):
        import _testcapi

        # begin(n, stop): the `n`-th fails, and those after it as far as the one before `stop`; with 0 all.
        # end(): none fails any more; how many have, as far as one knows. A function of C: a frame of Python takes memory.
        self.begin, self.end = _testcapi.set_nomemory, _testcapi.remove_mem_hooks


def of_cases(name):
    """What to call, and two functions: what may not change by that, and how two of these differ."""
    from flatgrad import _core

    namespace = {"raises": raises, "raises_or_not": raises_or_not, "pickled": pickled}
    exec(OPERANDS, namespace)
    exec("def case():\n    " + CASES[name], namespace)
    case, counted = namespace.pop("case"), sorted(
        key for key, x in namespace.items() if type(x).__module__.startswith(("flatgrad", "numpy")))

    def state():
        if name in FOREIGN:
            return ()
        _core.collect()
        return _core.stats()["nodes"], [sys.getrefcount(namespace[key]) for key in counted]

    def changes(before, after):
        changed = [f"{key}: {x} -> {y} references" for key, x, y in zip(counted, before[1], after[1]) if x != y]
        return f"left {after[0]} nodes, not {before[0]}; " + "; ".join(changed)

    return case, state, changes, namespace.clear   # functions that it has made refer to it


def of_subjects(name):
    """The same for one of SUBJECTS: its numbers afterwards, and what it changes as a whole."""
    from checks.subjects import SUBJECTS, bits, same

    from leaks import living

    subject = SUBJECTS[name]()
    expected, stages = subject.work(), []

    def case():
        if not subject.state:
            return subject.work()
        stages.clear()
        return subject.work(lambda: stages.append(bits(subject.state())))

    def state():
        nodes = living()
        if subject.state and stages and bits(subject.state()) not in (stages[0], bits(expected)):
            raise AssertionError("a step was done in part")
        if not same(subject.work(), expected):
            raise AssertionError("other numbers afterwards")
        return nodes

    return case, state, lambda before, after: f"left {after} nodes, not {before}", lambda: None


def run_case(name, stride, start, report, faults):
    """Let allocations `start`, `start + stride`, ... of the case fail; how many points there were."""
    case, state, changes, clear = of_cases(name) if name in CASES else of_subjects(name.removeprefix("of "))
    try:
        return run_points(name, stride, start, report, faults, case, state, changes)
    finally:
        clear()
        gc.collect()


def run_points(name, stride, start, report, faults, case, state, changes):
    from flatgrad import _core

    for _ in range(3):   # what is made once is made now
        case()
    passed = points = 0
    n = start
    state()
    while passed < ENOUGH:
        for stop in (n + 1, 0):   # the n-th alone, and all from it on
            before = state()
            line = report(n)
            error = fired = None   # or MemoryError, or a string
            faults.begin(n, stop)
            try:
                case()
            except MemoryError:
                error = MemoryError
            except BaseException as other:   # by its name: its traceback has operands
                fired = faults.end()
                lost = type(other) is SystemError and (name in FOREIGN or faults.may_lose_errors)
                error = MemoryError if lost else repr(other)
            finally:
                fired = faults.end() or fired
            if error not in (None, MemoryError):
                return fail(line, f"raised {error}")
            if not _core._check():
                return fail(line, "left the tape unsound")
            after = state()
            if after != before:
                gc.collect()   # a cycle through a traceback, say
                after = state()
            if after != before:
                return fail(line, changes(before, after))
            points += 1
        passed = 0 if error or fired else passed + 1
        n += stride
    return points


def fail(line, what):
    print("FAIL", line, what, sep="\t", flush=True)


def child(names, stride, start, faults=PythonsMemory):
    """Run the cases; before each point its case and n are written to standard error."""
    faults = faults()

    def reporter(name):
        def report(n):
            line = f"{name}: n={n}"
            os.write(2, (line + "\n").encode())
            return line
        return report

    for name in names:
        try:
            points = run_case(name, stride, start, reporter(name), faults)
        except AssertionError as error:
            points = fail(name, str(error))
        print("done", name, points or 0, sep="\t", flush=True)


def sweep(names, stride=1, start=0, call="memory.child({})", **environment):
    """(how many points there were, what failed), with a new process after each crash."""
    names, failed, points, timeout = list(names), [], 0, 60 + 600 // stride
    while names:
        process = subprocess.Popen(
            [sys.executable, "-c", "from checks import memory, malloc; " + call.format("*eval(input())")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **environment,
                 "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])})
        try:
            out, err = process.communicate(f"{names!r}, {stride}, {start}\n", timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
        for line in out.splitlines():
            kind, *rest = line.split("\t")
            if kind == "FAIL":
                failed.append(": ".join(rest))
            elif kind == "done":
                names.remove(rest[0])
                points += int(rest[1])
        if names:   # it ended within the first of them
            last = re.findall(r"^.+: n=\d+$", err, re.MULTILINE)
            failed.append(f"{last[-1] if last else names[0]}: ended with {process.returncode}: {err[-500:]}")
            names.pop(0)
    return points, failed


def options(parser):
    parser.add_argument("cases", nargs="*", metavar="CASE", help="name of a case, as CASES has it; all of them")
    parser.add_argument("--stride", type=int, default=None, help="let every STRIDE-th allocation fail (default 1)")
    parser.add_argument("--start", type=int, default=0, help="the first of them")


def run(limit, options):
    if importlib.util.find_spec("_testcapi") is None:
        raise Unavailable("needs CPython's module _testcapi")
    names = options.cases or list(CASES)
    unknown = [name for name in names if name not in CASES]
    stride = options.stride if options.stride is not None else 64 if limit.short else 1
    if unknown or stride < 1 or options.start < 0:
        raise SystemExit(f"no such cases: {unknown}" if unknown else "expected a stride of at least 1, from 0 on")
    points, failed = sweep(names, stride, options.start)
    if failed:
        raise AssertionError("\n".join(failed))
    return f"{len(names)} cases, {points} points, no failures"
