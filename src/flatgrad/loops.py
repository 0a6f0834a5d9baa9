"""One function many times: over the samples of a batch, or over the steps of a recurrence.

`vmap`, `scan` and `fori_loop` mean what JAX's functions of these names mean, for Values and Tensors.
"""
from __future__ import annotations

import numbers
import types
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import (_SIMPLIFICATIONS, Tensor, Value, _detects_anomaly, _draw, _is_recording, _is_recording_single,
                            _note_read, _Recording, _refuse_lost, _Replays, _stand_in, stack)
from flatgrad.arguments import flag, is_bool, shortened, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from flatgrad.program import Compiled, Hole, check_refused, template_of
from flatgrad.randomness import leaf_of
from flatgrad.structures import leaves_of, like, map_leaves, opened, same_structure

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from flatgrad.program import Program

__all__ = ["fori_loop", "scan", "vmap"]

MOST_BATCHES = 32   # of different lengths, for one program
MOST_STEPS = 1 << 30   # of one instruction
MOST_LAYOUTS = 128   # structures of arguments that one vmapped function remembers


def vmap(fn: Callable[..., Any], in_axes: int | tuple[Any, ...] | None = 0, out_axes: Any = 0) -> Vmapped:
    """The function that maps `fn`, a function of one sample, over the samples of a batch.

    Parameters
    ----------
    fn : callable
        Takes numbers, Values, Tensors, arrays, and lists, tuples and dicts of them; returns the like.
    in_axes : int, None, or tuple of these, optional
        Along which axis of an argument the samples lie: 0 for rows, 1 for columns, None for an argument that is
        the same for all samples. A tuple has an entry for each positional argument. An entry may itself be a
        list, a tuple or a dict in the structure of its argument. Arguments by keyword are mapped over axis 0.
    out_axes : int, None, or a structure of these, optional
        Along which axis of a result the samples lie. None: the result of the first sample stands for all.

    Returns
    -------
    callable
        Takes what `fn` takes, with one more axis where `in_axes` is not None, and returns what `fn` returns,
        with one more axis: a Tensor of shape (n_samples,) where `fn` returns a Value or a number, and of two
        dimensions where `fn` returns a Tensor of one.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described. The function that is returned raises them if nothing is mapped over,
        or a number without axes would be.
    ShapeError
        Raised by that function if batches differ in length, an argument has no such axis, or a result would have
        more than two dimensions.

    Notes
    -----
    `fn` is called once for each sample: with a Value for an element of a one-dimensional argument, and with a Tensor
    for a row or column of a two-dimensional one. As `jax.vmap` does.

    A compiled `fn` (`flatgrad.compile`) is recorded for one sample, and then computed for many samples at once, one in
    each lane of the processor's vectors. So is `fn` if `vmap` is called within a compiled function. A batch of another
    length is not recorded again.

    Examples
    --------
    >>> import flatgrad
    >>> import numpy as np
    >>> from flatgrad import Value
    >>> w = Value(3.0)
    >>> y = flatgrad.vmap(lambda x: (w * x).tanh())(np.array([0.0, 0.1, 0.2]))
    >>> y.shape
    (3,)
    >>> y.sum().backward()
    >>> round(w.grad, 4)
    0.2338
    >>> flatgrad.vmap(lambda x, y: x * y, in_axes=(0, None))(np.array([1.0, 2.0]), 5.0).tolist()
    [5.0, 10.0]
    """
    if not callable(fn):
        raise ArgumentTypeError(f"vmap: fn: expected a callable, got {shortened(fn)}")
    check_axes("in_axes", in_axes)
    check_axes("out_axes", out_axes)
    if isinstance(in_axes, dict) or leaves_of(in_axes) and all(axis is None for axis in leaves_of(in_axes)):
        raise ArgumentError(f"vmap: in_axes: expected an axis for at least one positional argument, got {in_axes!r}")

    return Vmapped(fn, in_axes, out_axes)


def scan(f: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any = None, length: int | None = None,
         reverse: bool = False, checkpoint: int | None = None, unroll: bool = False) -> tuple[Any, Any]:
    """A recurrence: `f` is called with its own last result and the next of `xs`, from the first to the last.

    Parameters
    ----------
    f : callable
        ``f(carry, x)`` returns a pair: the next carry, in the structure of `init`, and an output, or None.
    init : number, Value, Tensor, array, or structure of these
        The first carry.
    xs : array, Tensor, or structure of these, optional
        What `f` takes in turn: elements of one dimension, rows of two. None: `f` gets None.
    length : int, optional
        How many steps; it may be left out if there are `xs`.
    reverse : bool, optional
        True: the steps go from the last of `xs` to the first, and each output keeps the place of its x.
    checkpoint : int, optional
        A backward pass keeps the numbers of so many steps at a time, and computes the others once more from the carry
        at every so many steps. None: all steps if they need little memory, else as many as fit into fast memory.
    unroll : bool, optional
        True: Python calls `f` at each step, and every operation becomes a node. For a step that reads numbers, draws
        them at random in another way than by `flatgrad.Random`, or is another one from step to step.

    Returns
    -------
    carry
        The last one.
    ys
        The outputs, one below the other: a Tensor of shape (length,) for Values and numbers, and of two dimensions
        for Tensors of one; None for None.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError
        If an argument is not as described, there is no step at all, `f` does not return a pair, or the structure of
        the carry changes. ArgumentTypeError also at the line of `f` that reads a number of its arguments, or of a
        captured Value, by ``.data``, ``float``, a comparison or as an index.

    Notes
    -----
    As `jax.lax.scan`. Numbers in `init` become Values, and arrays Tensors.

    `f` is called once and recorded, as by `flatgrad.compile`, and then computed for all steps as one instruction. What
    it captures receives gradients; Python numbers that it captures are constants.

    Examples
    --------
    Euler's method for x' = -k x, and the derivative of the end by k.

    >>> import flatgrad
    >>> from flatgrad import Value
    >>> k = Value(0.5)
    >>> end, path = flatgrad.scan(lambda x, _: (x - 0.1 * k * x, x), 1.0, length=10)
    >>> round(end.data, 4), path.shape
    (0.5987, (10,))
    >>> end.backward()
    >>> round(k.grad, 4)
    -0.6302
    """
    if not callable(f):
        raise ArgumentTypeError(f"scan: f: expected a callable, got {shortened(f)}")
    if not is_bool(reverse):
        raise ArgumentTypeError(f"scan: reverse: expected True or False, got {reverse!r}")
    unroll = flag("scan: unroll", unroll)
    batches = []
    pair_up("xs", xs, 0, batches) if xs is not None else None
    if length is not None:
        length = whole("scan: length", length, 1)
    if checkpoint is not None:
        checkpoint = few_steps("scan: checkpoint", whole("scan: checkpoint", checkpoint, 1))
    if batches:
        n_steps = length_of(batches)
        if length is not None and length != n_steps:
            raise ShapeError(f"scan: length is {length}, but xs has {n_steps}")
    elif length is None:
        raise ArgumentError("scan: expected xs or length: neither says how many steps there are")
    else:
        n_steps = length
    carry = as_nodes("init", init)
    if unroll or _detects_anomaly() and not _is_recording():
        return unrolled(f, carry, xs, batches, n_steps, reverse)
    few_steps("scan: length", n_steps)
    return recorded("scan", f, carry, xs, batches, n_steps, reverse, checkpoint)


def few_steps(name: str, count: int) -> int:
    """That number of steps, if one instruction may have so many."""
    if count >= MOST_STEPS:
        raise ArgumentError(f"{name}: expected less than 2**30, got {shortened(count)}; several scans take more steps")
    return count


def unrolled(f: Callable[..., Any], carry: Any, xs: Any, batches: list[Any], n_steps: int,
             reverse: bool) -> tuple[Any, Any]:
    """scan() as Python code: each step appends its nodes."""
    outputs = [None] * n_steps
    for k in range(n_steps):
        at = n_steps - 1 - k if reverse else k
        carry, outputs[at] = next_pair("scan", carry, f(carry, sample_of(xs, iter(batches), at)))
    return carry, stacked("scan: the output of f", outputs, 0)


def next_pair(name: str, carry: Any, result: tuple[Any, Any]) -> tuple[Any, Any]:
    """What `f` has returned: the next carry, and an output."""
    if not isinstance(result, tuple) or len(result) != 2:
        raise ArgumentTypeError(f"{name}: expected f to return a pair, carry and output, got {shortened(result)}")
    return next_carry(name, carry, result[0]), result[1]


def recorded(name: str, f: Callable[..., Any], carry: Any, xs: Any, batches: list[Any], n_steps: int, reverse: bool,
             checkpoint: int | None) -> tuple[Any, Any]:
    """scan() as one instruction."""
    step = Step(name, f, carry, sample_of(xs, iter(batches), n_steps - 1 if reverse else 0))
    sequences = [leaf if isinstance(leaf, Tensor) else np.asarray(leaf, np.float64)
                 for _, leaf, axis in batches if axis is not None]
    return step(carry, sequences, n_steps, bool(reverse), checkpoint or 0)


class Step:
    """One step of a scan, recorded.

    Parameters
    ----------
    name : str
        The function of ours that is called.
    f : callable
    carry, x
        What `f` is called with: nodes, of which new leaves take the place.
    """

    inputs: list[Any]
    output: Value | tuple[Value, Tensor] | list[Value] | None
    carries: list[Any]
    program: Any
    draws: None
    before: Any
    after: Any
    buffers: list[Any]

    def __init__(self, name: str, f: Callable[..., Any], carry: Any, x: Any) -> None:
        self.inputs = []
        given = map_leaves(self.carry_in, carry), map_leaves(self.x_in, x)
        recording = _Recording(self.inputs)
        try:
            with recording:
                result = f(*given)
            check_refused(f"{name}: f", recording)
            self.before, (self.after, output) = given[0], next_pair(name, given[0], result)
            self.output = map_leaves(check_output, as_nodes(OUTPUT, output), OUTPUT)
            self.carries = nodes_in_order(self.before, self.after)
            results = [*self.carries, *nodes_of(self.output)]
            self.program = recording.program(results) if results else None
            self.buffers, self.draws = recording.buffers, recording.draws
            for shape in self.draws.shapes if self.draws is not None else ():
                if len(shape) > 1:
                    raise ShapeError(f"{name}: f draws random numbers of the shape {shape}, and those of all steps "
                                     f"would have three dimensions; {name}(..., unroll=True) runs the steps one by "
                                     "one in Python")
            for x, attribute in recording.watched:   # for the recording around this one
                _note_read(x, attribute)
        except TypeError as error:
            if RECORDED in str(error) or INTEGER in str(error):   # a Value as an index, or as the end of a range
                error.args = (f"{str(error).replace(RECORDED, f'while a step of flatgrad.{name} is recorded')}; "
                              f"{name}(..., unroll=True) runs the steps one by one in Python",)
            raise

    def carry_in(self, name: str, leaf: Value | Tensor | None, requires_grad: bool = True) -> Value | Tensor | None:
        """A leaf in place of a node: even if that is a constant, the carries after it may have gradients."""
        if leaf is None:
            return None
        self.inputs.append(_stand_in(leaf, requires_grad))
        return self.inputs[-1]

    def x_in(self, name: str, leaf: Value | Tensor | None) -> Value | Tensor | None:
        return self.carry_in(name, leaf, not isinstance(leaf, Tensor) or leaf.requires_grad)

    def __call__(self, carry: Any, sequences: list[Any], n_steps: int, reverse: bool,
                 checkpoint: int) -> tuple[Any, Any]:
        if self.draws is not None:
            sequences = sequences + _draw(self.draws.repeated(n_steps, reverse), leaf_of)
        if self.program is None:
            return self.after, self.output
        program = self.program.scanned(n_steps, len(self.carries), len(sequences), reverse, checkpoint)
        buffers = [getattr(module, attribute) for module, attribute in self.buffers]
        results = iter(program(nodes_of(carry) + sequences + buffers))
        last = filled_in_order(self.before, self.after, results)
        return last, map_leaves(lambda name, leaf: None if leaf is None else next(results), self.output)


OUTPUT = "scan: the output of f"
RECORDED, INTEGER = "while a compiled function is recorded", "integer"


def check_output(name: str, leaf: Value | Tensor | None) -> Value | Tensor | None:
    if isinstance(leaf, Tensor) and leaf.ndim > 1:
        raise ShapeError(f"{name}: expected Values or Tensors of one dimension, since a Tensor has at most two, got "
                         f"the shape {leaf.shape}")
    return leaf


def nodes_of(tree: Any) -> list[Any]:
    return [leaf for leaf in leaves_of(tree) if leaf is not None]


def nodes_in_order(before: Any, after: Any) -> list[Any]:
    """The nodes of `after`, in the order in which `before`, of the same structure, has them."""
    before, after = opened(before), opened(after)
    if isinstance(before, dict):
        return [node for key in before for node in nodes_in_order(before[key], after[key])]
    if isinstance(before, (list, tuple)):
        return [node for pair in zip(before, after) for node in nodes_in_order(*pair)]
    return [] if before is None else [after]


def filled_in_order(before: Any, after: Any, nodes: Any) -> Any:
    """`after` with other nodes, which come in the order of `before`."""
    before, after = opened(before), opened(after)
    if isinstance(before, dict):
        parts = {key: filled_in_order(part, after[key], nodes) for key, part in before.items()}
        return {key: parts[key] for key in after}
    if isinstance(before, (list, tuple)):
        return like(after, [filled_in_order(*pair, nodes) for pair in zip(before, after)])
    return None if before is None else next(nodes)


def fori_loop(lower: int, upper: int, body: Callable[[Any, Any], Any], init: Any, unroll: bool = False) -> Any:
    """``init = body(i, init)`` for each i from `lower` to before `upper`.

    Parameters
    ----------
    lower, upper : int
        No step at all if `upper` is not above `lower`.
    body : callable
        ``body(i, value)`` returns the next value, in the structure of `init`. i is a Value.
    init : number, Value, Tensor, array, or structure of these
    unroll : bool, optional
        True: Python calls `body` at each step, with an int, and every operation becomes a node; as for `scan`.

    Returns
    -------
    value
        The last one.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described, the structure of the value changes, or `body` reads a number, as for `scan`.

    Notes
    -----
    As `jax.lax.fori_loop`. Numbers in `init` become Values, and arrays Tensors. `body` is called once and recorded, as
    `scan` does.

    Examples
    --------
    >>> import flatgrad
    >>> flatgrad.fori_loop(1, 5, lambda i, product: product * i, 1.0).data
    24.0
    """
    if not callable(body):
        raise ArgumentTypeError(f"fori_loop: body: expected a callable, got {shortened(body)}")
    for name, bound in (("lower", lower), ("upper", upper)):
        if not isinstance(bound, numbers.Integral) or is_bool(bound):
            raise ArgumentTypeError(f"fori_loop: {name}: expected an int, got {shortened(bound)}")
    unroll = flag("fori_loop: unroll", unroll)
    value, lower, upper = as_nodes("init", init), int(lower), int(upper)
    if unroll or upper <= lower or _detects_anomaly() and not _is_recording():
        for i in range(lower, upper):
            value = next_carry("fori_loop", value, body(i, value))
        return value
    if max(abs(lower), abs(upper)) > 2 ** 53:
        raise ArgumentError("fori_loop: expected bounds of at most 2**53, which float64 holds, got "
                            f"{lower} and {upper}; unroll=True takes any")
    few_steps("fori_loop: upper - lower", upper - lower)
    steps = np.arange(lower, upper, dtype=np.float64)
    return recorded("fori_loop", lambda value, i: (body(i, value), None), value, steps, [("i", steps, 0)], len(steps),
                    False, None)[0]


# ---- batches in lanes ----

class Vmapped(_Replays):
    """What `vmap` returns."""

    fn: Callable[..., Any]
    in_axes: Any
    out_axes: Any

    layouts: OrderedDict[Any, Any]
    __name__: str

    def __init__(self, fn: Callable[..., Any], in_axes: Any, out_axes: Any) -> None:
        self.fn, self.in_axes, self.out_axes = fn, in_axes, out_axes
        self.layouts = OrderedDict()   # of a compiled function: the Layout by the structure of the arguments
        if isinstance(fn, Compiled):
            self.replays_of(fn)
        self.__name__ = self.__qualname__ = f"vmap({getattr(fn, '__name__', type(fn).__name__)})"
        self.__doc__ = getattr(fn, "__doc__", None)

    def _call(self, args, kwargs):
        """A call that is not like one of the last: see `_Replays`, which has seen to those."""
        fn, in_axes, out_axes = self.fn, self.in_axes, self.out_axes
        recording = _is_recording()
        in_lanes = isinstance(fn, Compiled) and not recording and not fn.check and not _detects_anomaly()
        if in_lanes:
            leaves = []
            key = fn._key(args, kwargs, leaves)
            layout = self.layouts.get(key)
            program = fn._find(layout.structure) if layout is not None else None
            batch = layout.batch_of(program) if program is not None else None
            if batch is not None:
                renew(self.layouts, key)
                return self.computed(key, program, batch, leaves)
        if isinstance(in_axes, (tuple, list)) and len(in_axes) != len(args):
            raise ArgumentError(f"vmap: in_axes: expected an entry for each of {len(args)} positional arguments, got "
                                f"{in_axes!r}")
        axes = list(in_axes) if isinstance(in_axes, (tuple, list)) else [in_axes] * len(args)
        batches = []   # (name, leaf, axis), in order
        for k, (argument, axis) in enumerate(zip(args, axes)):
            pair_up(f"argument {k}", argument, axis, batches)
        for name, argument in kwargs.items():
            pair_up(name, argument, 0, batches)
        n_samples = length_of(batches)
        if recording:
            batch, leaves = recorded_batch(fn, args, kwargs, batches, n_samples)
            if batch is not None:
                return batch(leaves, out_axes)
        elif in_lanes:
            layout = Layout(fn, args, kwargs, batches, n_samples)
            program = fn._find(layout.structure) or fn._record(layout.structure, layout.args, layout.kwargs)
            batch = layout.batch_of(program)
            if batch is not None:
                layout.args = layout.kwargs = None
                self.layouts[key] = layout
                if len(self.layouts) > MOST_LAYOUTS:
                    self.layouts.popitem(last=False)
                return self.computed(key, program, batch, leaves)
        samples = []
        for i in range(n_samples):
            rest = iter(batches)
            samples.append(fn(*[sample_of(argument, rest, i) for argument in args],
                              **{name: sample_of(argument, rest, i) for name, argument in kwargs.items()}))
        return stacked("vmap: the result of fn", samples, out_axes)

    def computed(self, key: tuple[Any, ...], program: Program, batch: Batch,
                 leaves: list[Any]) -> Tensor | list[Tensor]:
        """The results of a batch, which is remembered."""
        plain = batch.is_plain(self.out_axes)
        self.fn._remember(self, key, program, lambda leaves: batch(leaves, self.out_axes),
                          batch.core if plain else None, batch.template)
        return batch(leaves, self.out_axes)

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<{self.__name__}>"


class Batch:
    """A program of one sample, for a batch of them.

    Parameters
    ----------
    core : _Program
        As it was recorded; None if the result is a constant.
    template
        The structure of its result, with holes.
    n_samples : int
    axes : list
        For each input of the program, the axis that the samples lie along, or None.
    buffers : list of (object, str)
        Attributes, arrays, that are further inputs.
    draws : _Draws or None
        What one sample draws at random.
    single : bool
        Whether to compute in floats of 32 bits.
    """

    template: Any
    n_samples: int
    axes: tuple[Any, ...] | list[int]
    arrays: list[Any]

    draws: None
    core: Any

    def __init__(self, core: Any, template: Any, n_samples: int, axes: tuple[Any, ...] | list[int], buffers: list[Any],
                 draws: None, single: bool) -> None:
        varies = [axis is not None for axis in axes]
        self.draws = None
        if draws is not None:
            self.draws = draws.repeated(n_samples)
            varies += [True] * len(draws.shapes)
        varies += [False] * len(buffers)
        self.core = None if core is None else core.mapped(n_samples, varies, 0, single)
        self.template, self.n_samples, self.axes, self.arrays = template, n_samples, axes, buffers

    def is_plain(self, out_axes: int) -> bool:
        """Whether there is no more to do than to compute `core` and to fill the template."""
        return (self.core is not None and not self.arrays and self.draws is None
                and out_axes == 0 and 1 not in self.axes
                and (type(self.template) is Hole or type(self.template) in (list, tuple)
                     and all(type(part) is Hole for part in self.template)))

    def buffers(self) -> list[Any]:
        return [getattr(module, name) for module, name in self.arrays]

    def __call__(self, leaves: list[Any], out_axes: int) -> Tensor | list[Tensor]:
        operands = [leaf.T if axis == 1 else leaf for leaf, axis in zip(leaves, self.axes)]
        if self.draws is not None:
            operands += _draw(self.draws, leaf_of)
        results = [] if self.core is None else self.core(operands + self.buffers())
        if type(self.template) is Hole and out_axes == 0:   # most often
            return results[0]
        return placed("vmap: the result of fn", self.template, results, out_axes, self.n_samples)


class Layout:
    """How the arguments of a vmapped function lie: their axes, and the arguments of one sample.

    Attributes
    ----------
    args, kwargs
        Sample 0, until there is a program for its structure.
    structure
        Of that, as the compiled function tells its programs apart.
    """

    n_samples: int

    args: list[Any] | None
    kwargs: dict[Any, Any] | None
    structure: tuple[Any, ...]
    axes: tuple[Any, ...]

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...] | list[Any], kwargs: dict[Any, Any],
                 batches: list[Any], n_samples: int) -> None:
        rest = iter(batches)
        self.n_samples, leaves = n_samples, []
        self.args = [sample_of(argument, rest, 0) for argument in args]
        self.kwargs = {key: sample_of(argument, rest, 0) for key, argument in kwargs.items()}
        self.structure = fn._key(self.args, self.kwargs, leaves)
        # The leaves are some of all, in this order: static arguments are none.
        samples = leaves_of(self.args) + [leaf for key in sorted(kwargs) for leaf in leaves_of(self.kwargs[key])]
        axes_of, at = {}, 0
        for key, argument in [*enumerate(args), *kwargs.items()]:
            count = len(leaves_of(argument))
            axes_of[key] = [axis for _, _, axis in batches[at:at + count]]
            at += count
        axes = [axis for key in [*range(len(args)), *sorted(kwargs)] for axis in axes_of[key]]
        pairs = iter(zip(samples, axes))
        self.axes = tuple([next(axis for sample, axis in pairs if sample is leaf) for leaf in leaves])

    def batch_of(self, program: Program) -> Batch:
        return batch_of(program, self.n_samples, self.axes)


def renew(cache: OrderedDict[Any, Any], key: tuple[Any, ...]) -> None:
    """Put what was just used to the end, unless another thread has put it out."""
    if key in cache:
        cache.move_to_end(key)


def batch_of(program: Program, n_samples: int, axes: tuple[Any, ...]) -> Batch:
    """The Batch of a program; None if its results have two dimensions already."""
    key = n_samples, axes
    batch = program.batches.get(key)
    if batch is not None:
        renew(program.batches, key)
        return batch
    try:
        batch = Batch(program.core, program.template, n_samples, axes, program.buffers, program.draws, program.single)
    except ShapeError:
        return None
    program.batches[key] = batch
    if len(program.batches) > MOST_BATCHES:
        program.batches.popitem(last=False)
    return batch


def recorded_batch(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[Any, Any], batches: list[Any],
                   n_samples: int) -> tuple[Any, Any]:
    """While a program is recorded: the Batch, recorded with sample 0, and what it is to be called with; no Batch if
    results have two dimensions already. What `fn` captures are operands."""
    inputs, leaves, axes = [], [], []
    rest = iter(batches)

    def stand_in(name, leaf):
        _, leaf, axis = next(rest)
        if axis is None:
            return leaf
        first = leaf[0] if axis == 0 else leaf[:, 0]
        if isinstance(first, Tensor):
            inputs.append(_stand_in(first, first.requires_grad))
        elif isinstance(first, Value):
            inputs.append(_stand_in(first))
        else:
            inputs.append(Value(float(first)) if np.ndim(first) == 0 else
                          Tensor(np.asarray(first, np.float64), requires_grad=False))
        leaves.append(leaf)
        axes.append(axis)
        return inputs[-1]

    sample_args = [map_leaves(stand_in, argument) for argument in args]
    sample_kwargs = {name: map_leaves(stand_in, argument) for name, argument in kwargs.items()}
    single = _is_recording_single()
    recording = _Recording(inputs, single)
    with recording:
        result = (fn.fn if isinstance(fn, Compiled) else fn)(*sample_args, **sample_kwargs)
    check_refused("vmap: the function", recording)
    for x, attribute in recording.watched:   # for the recording around this one
        _note_read(x, attribute)
    template, outputs = template_of("vmap: the result of fn", result)
    draws = recording.draws
    if any(isinstance(x, Tensor) and x.ndim == 2 for x in outputs) or draws is not None and 2 in map(len, draws.shapes):
        return None, leaves
    core = recording.program(outputs, tuple(_SIMPLIFICATIONS)) if outputs else None
    return Batch(core, template, n_samples, axes, recording.buffers, draws, single), leaves


def placed(name: str, template: Any, results: list[Tensor], axes: int, n_samples: int) -> Tensor | list[Tensor]:
    """The results of a batch in the structure of the template, with the samples along these axes."""
    if type(template) is not Hole and not isinstance(template, (dict, list, tuple)):
        return stacked(name, [template] * n_samples, axes)
    if isinstance(template, dict):
        return {key: placed(f"{name}[{key!r}]", part, results, part_of(axes, key), n_samples)
                for key, part in template.items()}
    if type(template) is not Hole:
        return like(template, [placed(f"{name}[{k}]", part, results, part_of(axes, k), n_samples)
                               for k, part in enumerate(template)])
    if isinstance(axes, (list, tuple, dict)):
        raise ArgumentError(f"{name}: out_axes: expected one axis, got {axes!r}")
    result = results[template.number]
    if axes is None:
        return result[0]
    check_axis(name, axes, result.ndim - 1)
    return result if axes in (0, -result.ndim) else result.T


# ---- what they share ----

def check_axes(name: str, axes: int | tuple[Any, ...] | None) -> None:
    for axis in leaves_of(axes):
        if axis is not None and (not isinstance(axis, numbers.Integral) or is_bool(axis)):
            raise ArgumentTypeError(f"vmap: {name}: expected an int, None, or a structure of them, got {axis!r}")


def pair_up(name: str, tree: Any, axis: int | dict[str, Any] | None, batches: list[Any]) -> None:
    """Append (name, leaf, axis) for each leaf of a structure; axis: one for all, or a structure of them."""
    if isinstance(axis, (list, tuple, dict)):
        expected = f"vmap: in_axes: expected the structure of {name}, {shortened(tree)}, or one axis, got {axis!r}"
        if isinstance(axis, dict) != isinstance(tree, dict) or not isinstance(tree, (list, tuple, dict)):
            raise ArgumentError(expected)
        if len(axis) != len(tree) or isinstance(axis, dict) and axis.keys() != tree.keys():
            raise ArgumentError(expected)
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            pair_up(f"{name}[{key!r}]", tree[key], axis[key], batches)
        return

    def pair(place, leaf):
        if axis is None or leaf is None:
            batches.append((place, leaf, None))
            return
        if not isinstance(leaf, (Tensor, np.ndarray)) or leaf.ndim == 0:
            raise ArgumentError(f"{place}: expected an array or a Tensor to take one sample after the other from, got "
                                f"{shortened(leaf)}; flatgrad.stack makes a Tensor of a list, and in_axes=None of vmap "
                                "is for what is the same for all samples")
        if leaf.ndim > 2 or leaf.size == 0:
            raise ShapeError(f"{place}: expected one or two dimensions and at least one element, got the shape "
                             f"{leaf.shape}")
        if not -leaf.ndim <= axis < leaf.ndim:
            raise ShapeError(f"{place}: there is no axis {axis} in the shape {leaf.shape}")
        _refuse_lost(place, leaf)
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "iufb":
            raise ArgumentTypeError(f"{place}: expected an array of numbers, got one of dtype {leaf.dtype}")
        batches.append((place, leaf, int(axis) % leaf.ndim))

    map_leaves(pair, tree, name)


def length_of(batches: list[Any]) -> int:
    """How many samples the leaves have that are mapped over."""
    first = None
    for name, leaf, axis in batches:
        if axis is not None:
            if first is None:
                first = (name, leaf.shape[axis])
            elif leaf.shape[axis] != first[1]:
                raise ShapeError(f"{name}: expected {first[1]} samples, as {first[0]} has, got {leaf.shape[axis]} in "
                                 f"the shape {leaf.shape}")
    if first is None:
        raise ArgumentError("expected an array or a Tensor to take one sample after the other from, got none")
    return first[1]


def sample_of(tree: Any, rest: Any, i: int) -> Any:
    """Sample i of a structure, whose leaves and axes come next in `rest`."""
    def sample(name, leaf):
        _, leaf, axis = next(rest, (name, None, None))
        if axis is None:
            return leaf
        part = leaf[i] if axis == 0 else leaf[:, i]
        if isinstance(leaf, Tensor):
            return part
        return Value(float(part)) if np.ndim(part) == 0 else Tensor(np.asarray(part, np.float64), requires_grad=False)

    return map_leaves(sample, tree)


def as_nodes(name: str, tree: Any) -> Any:
    """A structure with Values in place of numbers, and Tensors in place of arrays."""
    def node(place, leaf):
        if leaf is None or isinstance(leaf, (Value, Tensor)):
            return leaf
        if isinstance(leaf, np.ndarray) and leaf.ndim > 0:
            return Tensor(leaf, requires_grad=False)
        if (isinstance(leaf, numbers.Real) or isinstance(leaf, np.ndarray)) and not is_bool(leaf):
            return Value(float(leaf))
        raise ArgumentTypeError(f"{place}: expected a number, a Value, a Tensor, an array, or a list, tuple or dict of "
                                f"them, got {shortened(leaf)}")

    return map_leaves(node, tree, name)


def next_carry(name: str, before: Any, after: Any) -> Any:
    """What `f` has returned as the next carry, which has to have the structure and the shapes of the last one."""
    if not same_structure(before, after):
        raise ArgumentTypeError(f"{name}: expected a carry in the structure of the one before, {shortened(before)}, "
                                f"got {shortened(after)}")
    after = as_nodes(f"{name}: the carry", after)
    for old, new in zip(nodes_of(before), nodes_in_order(before, after)):
        if getattr(old, "shape", ()) != getattr(new, "shape", ()):
            raise ShapeError(f"{name}: expected a carry of the shapes of the one before, {getattr(old, 'shape', ())}, "
                             f"got {getattr(new, 'shape', ())}")
    return after


def stacked(name: str, samples: list[Any], axes: int | tuple[int, None] | None) -> Any:
    """The results of all samples as one, a Tensor in place of each leaf, with the samples along these axes."""
    first = samples[0]
    for k, sample in enumerate(samples):
        if not same_structure(first, sample):
            raise ArgumentTypeError(f"{name}: expected the structure of the first, {shortened(first)}, got "
                                    f"{shortened(sample)} in number {k}")
    samples = [opened(sample) for sample in samples]
    first = samples[0]
    if isinstance(first, dict):
        return {key: stacked(f"{name}[{key!r}]", [sample[key] for sample in samples], part_of(axes, key))
                for key in first}
    if isinstance(first, (list, tuple)):
        return like(first, [stacked(f"{name}[{k}]", [sample[k] for sample in samples], part_of(axes, k))
                            for k in range(len(first))])
    if isinstance(axes, (list, tuple, dict)):
        raise ArgumentError(f"{name}: out_axes: expected one axis, got {axes!r}")
    if axes is None or first is None:
        return first
    samples = leaves_of(as_nodes(name, samples))
    shapes = {getattr(sample, "shape", ()) for sample in samples}
    if len(shapes) > 1:
        raise ShapeError(f"{name}: expected one shape, got {sorted(shapes)}")
    shape, = shapes
    if len(shape) > 1:
        raise ShapeError(f"{name}: expected Values or Tensors of one dimension, since a Tensor has at most two, got "
                         f"the shape {shape}")
    check_axis(name, axes, len(shape))
    return stack(samples, axis=axes)


def check_axis(name: str, axis: int, ndim: int) -> None:
    """Whether the samples can lie along that axis of results of `ndim` dimensions."""
    if not -ndim - 1 <= axis <= ndim:
        raise ShapeError(f"{name}: there is no axis {axis} where {ndim + 1} are")


def part_of(axes: tuple[Any, ...] | int, key: int | str) -> int | None:
    if not isinstance(axes, (list, tuple, dict)):
        return axes
    try:
        return axes[key]
    except (LookupError, TypeError):
        raise ArgumentError(f"out_axes: expected an entry {key!r}, got {axes!r}") from None
