"""Functions with derivatives of their own: `custom_derivative`, as in JAX, and `Function`, as in PyTorch."""
from __future__ import annotations

import functools
import inspect
import itertools
import math
import numbers
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import (Tensor, Value, _add_input, _apply, _call_back, _is_recording, _is_unrecorded, _note_read,
                            _Recording, _ruled, _stand_in, _Watch, _Within, recording)
from flatgrad.arguments import is_bool, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError
from flatgrad.structures import Node, leaves_of, map_leaves, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["Function", "custom_derivative"]

DEEPEST = 4   # calls of a function by its rule, one within another, of which a recording has the rule


class custom_derivative:
    """A function whose derivative is given by a rule, and not by the operations that it is made of.

    Parameters
    ----------
    f : callable
        A function of numbers, arrays, Values and Tensors, or lists, tuples and dicts of these; so is its result. It may
        compute by plain numbers, such as ``math.exp(x.data)``.
    nondiff_argnums : int or tuple of int, optional
        Arguments that are no matter of derivatives; the rule is given these first.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError
        If an argument is not as described. A call raises them if there is no rule, or the rule gives something else
        than gradients of the arguments' structures and shapes; where the derivative of the rule is asked for, and it
        has read numbers; and while a function is compiled, if the function or its rule reads numbers.

    Notes
    -----
    `defvjp` gives the rule, in the form of `jax.custom_vjp`: ``fwd`` takes what `f` takes, and returns the result of `f`
    and what the rule needs of it; ``bwd`` takes that and the gradients of the results, in their structure, and returns a
    tuple with the gradient of each argument, or None for 0. A call runs ``fwd`` in place of `f`, and `f` itself within
    `no_grad`, and where no argument is a Value or a Tensor that requires a gradient. Arguments by keyword become those
    by position. What `f` uses besides its arguments gets no gradient.

    ``bwd`` is differentiated in turn if it is made of operations of flatgrad: for second derivatives it is called with
    Values and Tensors that are nodes of the graph, and ``fwd`` has been. Where one of them has read a number that
    depends on the arguments, by ``x.data`` or ``float(x)``, the derivative would silently miss what depends on it, so
    an error is raised. Comparisons may decide what is computed.

    Within `compile`, and wherever else flatgrad records, such as in the step of a `scan`, the rule is recorded with the
    function. None of them may then read a number, not in a comparison either, or draw at random; ``fwd`` is computed
    anew for the rule, so that nothing has to be kept. A rule that calls its own function has 4 derivatives there.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> @flatgrad.custom_derivative
    ... def log1pexp(x):
    ...     return flatgrad.log(1.0 + flatgrad.exp(x))
    >>> def fwd(x):
    ...     return log1pexp(x), x
    >>> def bwd(x, g):
    ...     return (g * (1.0 - 1.0 / (1.0 + flatgrad.exp(x))),)
    >>> log1pexp.defvjp(fwd, bwd)
    >>> x = Value(0.0)
    >>> y = log1pexp(x)
    >>> slope, = flatgrad.gradients(y, x, create_graph=True)
    >>> curvature, = flatgrad.gradients(slope, x)
    >>> slope.data, curvature.data
    (0.5, 0.25)
    """

    f: Callable[..., Any]

    name: str
    most: int
    inside: Any
    around: Any
    nondiff_argnums: tuple[Any, ...]
    fwd: Callable[..., Any] | None
    bwd: Callable[..., Any] | None

    what: str = "custom_derivative"   # in errors
    forward_name: str = "fwd"
    backward_name: str = "bwd"
    call: type[Call]
    recorded_call: type[RecordedCall]

    def __init__(self, f: Callable[..., Any], nondiff_argnums: int | tuple[int, ...] = ()) -> None:
        if not callable(f):
            raise ArgumentTypeError(f"custom_derivative: f: expected a callable, got {described(f)}")
        numbers_ = [nondiff_argnums] if isinstance(nondiff_argnums, numbers.Integral) else nondiff_argnums
        if not isinstance(numbers_, (list, tuple)) or not all(
                isinstance(n, numbers.Integral) and not is_bool(n) and n >= 0 for n in numbers_):
            raise ArgumentTypeError("custom_derivative: nondiff_argnums: expected an int of 0 or more, or a tuple of "
                                    f"them, got {nondiff_argnums!r}")
        functools.update_wrapper(self, f)
        self.f, self.nondiff_argnums, self.fwd, self.bwd = f, tuple(int(n) for n in numbers_), None, None
        self.name = getattr(f, "__name__", type(f).__name__)
        self.most = most_arguments(f)
        self.inside = ContextVar(f"custom_derivative {self.name}", default=False)   # its `fwd` runs
        self.around = ContextVar(f"custom_derivative {self.name}, recorded", default=None)   # a RecordedCall

    def defvjp(self, fwd: Callable[..., tuple[Any, Any]], bwd: Callable[..., Any]) -> None:
        """Give the rule.

        Parameters
        ----------
        fwd : callable
            Takes the arguments of `f`, and returns a pair: the result of `f`, and anything for `bwd`.
        bwd : callable
            Takes the arguments at `nondiff_argnums`, what `fwd` has returned, and the gradient of the result; returns a
            tuple with a gradient for each of the other arguments.

        Raises
        ------
        ArgumentTypeError
            If one of them cannot be called.
        """
        for name, x in ("fwd", fwd), ("bwd", bwd):
            if not callable(x):
                raise ArgumentTypeError(f"defvjp: {name}: expected a callable, got {described(x)}")
        self.fwd, self.bwd = fwd, bwd

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs or len(args) < self.most:
            args = self.by_position(args, kwargs)
        if self.bwd is None:
            raise ArgumentError(f"custom_derivative: {self.name} has no rule; {self.name}.defvjp(fwd, bwd) gives it one")
        if _is_unrecorded():
            return map_leaves(self.result, self.f(*args), f"{self.name}: the result")
        for n in self.nondiff_argnums:
            if n >= len(args):
                raise ArgumentError(f"custom_derivative: {self.name}: nondiff_argnums: there is no argument {n} among "
                                    f"{len(args)}")
        operands = [x for n, argument in enumerate(args) if n not in self.nondiff_argnums
                    for x in leaves_of(argument) if is_operand(x)]
        if not operands:
            return self.f(*args)
        if _is_recording():
            around = self.around.get()
            if around is not None and around.alone:
                return map_leaves(self.result, self.f(*args), f"{self.name}: the result")
            return self.recorded_call(self, args, operands, around).results()
        return self.call(self, args, operands).results()

    def by_position(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        bound = inspect.signature(self.f).bind(*args, **kwargs)
        bound.apply_defaults()
        if bound.kwargs:
            raise ArgumentTypeError(f"custom_derivative: {self.name}: expected arguments that can be given by position, "
                                    f"got {', '.join(bound.kwargs)} by keyword")
        return bound.args

    def result(self, name: str, x: Any) -> Value | Tensor:
        """A leaf of the result, as a Value or Tensor."""
        if isinstance(x, (Value, Tensor)) or x is None:
            return x
        if isinstance(x, np.ndarray) and x.ndim > 0:
            return Tensor(x, requires_grad=False)
        if isinstance(x, (numbers.Real, np.ndarray)) and not is_bool(x):
            return Value(float(x))
        raise ArgumentTypeError(f"{self.what}: {name}: expected a number, a Value, a Tensor or an array, or a list, "
                                f"tuple or dict of them, got {described(x)}")

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__qualname__

    def __copy__(self) -> custom_derivative:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> custom_derivative:
        return self

    def __repr__(self) -> str:
        return f"<custom_derivative {self.name}>"


class Call:
    """One call of such a function: what a sweep asks for gradients.

    Attributes
    ----------
    shapes : tuple of tuple
        Those of the results, () for a Value.
    """

    function: custom_derivative
    operands: list[Any]

    residuals: Value | tuple[Any, Any] | Tensor | None
    read: None
    made: bool
    template: Any
    shapes: tuple[Any, ...]
    args: list[Any]

    def __init__(self, function: custom_derivative, args: tuple[Any, ...], operands: list[Any]) -> None:
        self.function, self.operands = function, operands
        self.residuals = self.read = None
        self.made = False
        with recording():
            self.args = [argument if n in function.nondiff_argnums else map_leaves(copied, argument)
                         for n, argument in enumerate(args)]
        if function.inside.get():   # within its own `fwd`, which is asked when a gradient is
            with _Watch(None):   # by its rule that is differentiated, whatever it reads
                output = function.f(*self.args)
        else:
            output = self.run()
        self.template = map_leaves(function.result, output, f"{function.name}: the result")

    def copies(self) -> list[Any]:
        return [x for n, argument in enumerate(self.args) if n not in self.function.nondiff_argnums
                for x in leaves_of(argument) if is_operand(x)]

    def run(self) -> Any:
        """Run `fwd`; the result of the function."""
        with _Within(self.function.inside, True), recording(), _Watch(None), _Watch(self.copies()) as watch:
            found = self.function.fwd(*self.args)
        output, self.residuals = self.pair(found)
        self.read, self.made = watch.read, True
        return output

    def pair(self, found: tuple[Any, Any]) -> tuple[Any, Any]:
        if not isinstance(found, tuple) or len(found) != 2:
            raise ArgumentTypeError(f"{self.function.what}: {self.function.name}: fwd: expected a pair, the result and what "
                                    f"the rule needs, got {described(found)}")
        return found

    def results(self) -> Any:
        """The results of the call, as nodes with this rule."""
        leaves = [x for x in leaves_of(self.template) if x is not None]
        if not leaves:
            return self.template
        self.shapes = tuple(getattr(x, "shape", ()) for x in leaves)
        self.template = map_leaves(lambda name, x: None if x is None else Slot, self.template)
        found = iter(_call_back(self.operands, leaves, self, self.function.name))
        return map_leaves(lambda name, x: None if x is None else next(found), self.template)

    def in_structure(self, gradients: list[Any]) -> Any:
        rest = iter(gradients)
        return map_leaves(lambda name, x: None if x is None else next(rest), self.template)

    # ---- what the core asks ----

    def reverse(self, gradients: NDArray[Any]) -> list[NDArray[Any]]:
        """For each operand an array of gradients, or None, from those of the results."""
        if not self.made:
            self.run()
        at, leaves = 0, []
        with _Watch(None), recording():
            for shape in self.shapes:
                part = gradients[at:at + math.prod(shape)]
                leaves.append(Tensor(part.reshape(shape)) if shape else Value(float(part[0])))
                at += len(part)
            found = self.asked(self.in_structure(leaves))
            return [None if g is None else np.ravel(np.asarray(g.data, np.float64)) for g in found]

    def written(self, gradients: list[Any]) -> list[Any]:
        """The same as nodes."""
        if not self.made:
            self.run()
        function = self.function
        name = f"{function.what}: {function.name}"
        if self.read is not None:
            self.refuse_read(name)
        refusal = (f"{name}: {{what}} of what depends on its arguments, while the derivative of its rule is asked for: it "
                   f"would be a constant, and that derivative wrong. Write {function.backward_name} with operations of "
                   "flatgrad, or take first derivatives alone")
        with recording(), _Watch(None), _Watch([*self.copies(), *gradients], refusal):
            return self.asked(self.in_structure(gradients))

    def refuse_read(self, name: str) -> None:
        """An error where the rule's derivative is asked for, and `fwd` has read a number."""
        raise ArgumentTypeError(
            f"{name}: the derivative of its rule is not known: fwd has read a number of its arguments ({self.read}), so what "
            "the rule computes from that would be a constant. Write fwd with operations of flatgrad, or take first "
            "derivatives alone")

    def asked(self, gradient: Any) -> list[Any]:
        """What the rule returns, as a Value or Tensor for each operand, or None."""
        function = self.function
        chosen = [x for n, x in enumerate(self.args) if n in function.nondiff_argnums]
        name = f"{function.what}: {function.name}: {function.backward_name}"
        wanted = [x for n, x in enumerate(self.args) if n not in function.nondiff_argnums]
        found = function.bwd(*chosen, self.residuals, gradient)
        if not isinstance(found, tuple) or len(found) != len(wanted):
            shown = type(found).__name__ if isinstance(found, (Value, Tensor)) else described(found)   # not their numbers
            raise ArgumentTypeError(f"{name}: expected a tuple with a gradient for each of {len(wanted)} arguments, got "
                                    f"{shown}")
        gradients = []
        for k, (argument, part) in enumerate(zip(wanted, found)):
            pair_up(f"{name}: gradient {k}", argument, part, gradients)
        return gradients


class RecordedCall(Call):
    """A call while a program is recorded: a program of the function, with one of its rule.

    The rule's program computes anew what `fwd` gives it. Where the rule calls its own function, that is such a call in
    turn, up to so many, one within another.
    """

    function: custom_derivative
    operands: list[Value]

    depth: int
    alone: bool
    args: list[Value]
    template: Value
    inputs: list[Value]
    residuals: Value

    def __init__(self, function: custom_derivative, args: tuple[Value], operands: list[Value],
                 around: RecordedCall | None) -> None:
        self.function, self.operands, self.inputs = function, operands, []
        self.depth = 0 if around is None else around.depth + 1
        self.calls_itself = self.alone = False   # alone: what is called now is f, and of that the numbers alone count
        if around is not None:
            around.calls_itself = True
        self.args = [argument if n in function.nondiff_argnums else map_leaves(self.input, argument)
                     for n, argument in enumerate(args)]

    def input(self, name: str, x: Any) -> Value:
        if not is_operand(x):
            return x
        self.inputs.append(_stand_in(x))
        return self.inputs[-1]

    def results(self) -> Value | Tensor:
        name = f"{self.function.what}: {self.function.name}"
        recorder = _Recording(self.inputs)
        with recorder, _Within(self.function.around, self):
            leaves, gradients = self.recorded(recorder)
        if recorder.refused:
            raise ArgumentTypeError(f"{name} went on after the error: {recorder.refused}")
        if recorder.draws is not None:
            raise ArgumentTypeError(f"{name}: it draws at random while a function is recorded. Draw outside, and give "
                                    "it the numbers as arguments")
        for x, attribute in recorder.watched:   # for the recording around this one
            _note_read(x, attribute)
        if not leaves:
            return self.template
        places = None if gradients is None else tuple([k for k, g in enumerate(gradients) if g is not None])
        program = recorder.program(leaves + [g for g in gradients or () if g is not None])
        buffers = [getattr(x, attribute) for x, attribute in recorder.buffers]
        return self.in_structure(_ruled(program, len(self.inputs), len(leaves), places)(self.operands + buffers))

    def recorded(self, recorder: Any) -> tuple[Any, Any]:
        """The results, and the gradient of each operand, or None; None for all if this call is too deep for a rule."""
        function, gradients = self.function, None
        output = None
        if self.depth < DEEPEST:
            output, self.residuals = self.pair(function.fwd(*self.args))
        if self.depth == DEEPEST or self.calls_itself:
            self.alone = True
            output = function.f(*self.args)
            self.alone = False
        self.template = map_leaves(function.result, output, f"{function.name}: the result")
        leaves = [x for x in leaves_of(self.template) if x is not None]
        if leaves and self.depth < DEEPEST:
            seeds = [_stand_in(x) for x in leaves]
            for seed in seeds:
                _add_input(recorder, seed)
            gradients = self.asked(self.in_structure(seeds))
            if all(g is None for g in gradients):
                first = self.inputs[0]
                gradients[0] = gradient_for(function.name, first, np.zeros(getattr(first, "shape", ())))
        return leaves, gradients


custom_derivative.call, custom_derivative.recorded_call = Call, RecordedCall


# ---- Function ----

class Function:
    """An operation of your own, written as `torch.autograd.Function`: a subclass has ``forward`` and ``backward``.

    ``forward(ctx, *args)`` returns the result, or a tuple of results, and ``backward(ctx, *gradients)`` takes the gradient
    of each result and returns that of each argument, a tuple if there are several; None for 0 and for arguments that are
    no numbers. Both are static methods. ``Subclass.apply(*args)`` calls the operation. Or ``forward(*args)`` takes no
    ``ctx``, and ``setup_context(ctx, inputs, output)`` keeps what ``backward`` needs.

    Raises
    ------
    ArgumentTypeError
        If an object of the class is made: ``apply`` belongs to the class. ``apply`` raises it if a method is missing or
        returns something else than described, and a backward pass if gradients do not fit the arguments.

    Notes
    -----
    ``ctx`` takes any attribute, and has

    - ``save_for_backward(*x)`` and ``saved_tensors``, for arguments, results and what operations of flatgrad have computed
      of arguments,
    - ``needs_input_grad``, a tuple with a bool for each argument,
    - ``mark_non_differentiable(*results)``.

    Arguments may be numbers, arrays, Values and Tensors, lists, tuples and dicts of them, and anything else, such as
    strings. `forward` may read numbers, ``x.data``, and return numbers and arrays: results are Values and Tensors.

    ``backward`` is differentiated in turn where it is made of operations of flatgrad. Saved arguments and results are nodes
    then: the derivative of a saved result is that of ``backward`` again. Where ``forward`` has read a number, and ``ctx``
    has a number or an array besides arguments and results, that would be a constant and second derivatives would be
    wrong; so they are refused, as they are where ``backward`` itself reads a number. PyTorch refuses neither. What
    ``forward`` uses besides its arguments gets no gradient.

    Within `compile`, `scan` and a compiled `vmap` both methods are recorded, and cannot read numbers. There,
    ``saved_tensors`` with a result has 4 derivatives. Every result has a gradient, 0 where nothing depends on it.

    Examples
    --------
    >>> import flatgrad
    >>> import numpy as np
    >>> from flatgrad import Tensor
    >>> class Exp(flatgrad.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         y = Tensor(np.exp(x.data))
    ...         ctx.save_for_backward(y)
    ...         return y
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         y, = ctx.saved_tensors
    ...         return g * y
    >>> x = Tensor([0.0, 1.0])
    >>> slope, = flatgrad.gradients(Exp.apply(x).sum(), x, create_graph=True)
    >>> curvature, = flatgrad.gradients(slope.sum(), x)
    >>> bool(np.allclose(slope.data, np.exp([0.0, 1.0]))), bool(np.allclose(curvature.data, np.exp([0.0, 1.0])))
    (True, True)
    """

    forward: Any = None
    backward: Any = None
    setup_context: Any = None

    def __init__(self) -> None:
        name = type(self).__name__
        raise ArgumentTypeError(f"{name}: expected a call of {name}.apply(...), as forward and backward are static methods")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Call the operation.

        Parameters
        ----------
        *args
            The arguments of ``forward`` after ``ctx``.

        Returns
        -------
        Value, Tensor or tuple
            What ``forward`` returns, with Values and Tensors in place of numbers and arrays.

        Examples
        --------
        >>> from flatgrad import Value
        >>> from flatgrad.autograd import Function
        >>> class Double(Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         return 2.0 * x.data
        ...     @staticmethod
        ...     def backward(ctx, g):
        ...         return 2.0 * g
        >>> x = Value(3.0)
        >>> Double.apply(x).backward()
        >>> x.grad
        2.0
        """
        rule = cls.__dict__.get("_rule")
        if rule is None or rule.methods != methods_of(cls):   # or it has been given other ones since
            rule = FunctionRule(cls)
            setattr(cls, "_rule", rule)   # noqa: B010   # no attribute that subclasses are to read
        return rule(*args)


def methods_of(cls: type[Function]) -> tuple[Any, ...]:
    return (cls.forward, cls.backward, cls.setup_context)


class Context:
    """What ``forward`` leaves for ``backward``.

    Attributes
    ----------
    needs_input_grad : tuple of bool
        For each argument whether a gradient can flow to it.
    """

    needs_input_grad: tuple[bool, ...]

    def __init__(self, rule: FunctionRule, args: Sequence[Any]) -> None:
        self._rule, self._args, self._outputs, self._as_numbers = rule, tuple(args), [], True
        self._saved: tuple[Any, ...] = ()
        self._constant: tuple[Any, ...] = ()
        self.needs_input_grad = tuple(any(is_operand(x) for x in leaves_of(arg)) for arg in args)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name if name[0] == "_" else f"{self._rule.name}: ctx.{name}: forward has not set it")

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep them, for `saved_tensors`."""
        self._saved = tensors

    def mark_non_differentiable(self, *results: Any) -> None:
        """No gradient flows from these results."""
        self._constant = results

    def mark_dirty(self, *args: Any) -> None:
        """An error, as nothing changes in place."""
        raise ArgumentTypeError(f"{self._rule.name}: ctx.mark_dirty: expected no argument that changes in place, as Values and "
                                "Tensors do not; return a new one")

    def set_materialize_grads(self, value: bool) -> None:
        """An error unless it is True: a result without a gradient has the gradient 0."""
        if value is not True:
            raise ArgumentError(f"{self._rule.name}: ctx.set_materialize_grads: expected True, as each result has a gradient, "
                                f"got {value!r}")

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What has been saved."""
        outputs = {} if self._as_numbers else {id(x): k for k, x in self._outputs}
        places = [None if self._is_argument(x) else outputs.get(id(x)) for x in self._saved]
        if all(k is None for k in places):
            return self._saved
        again = leaves_of(self._rule(*self._args))   # results whose derivative is that of backward
        return tuple(x if k is None else again[k] for x, k in zip(self._saved, places))

    def _is_argument(self, x: Any) -> bool:
        return any(x is leaf for arg in self._args for leaf in (arg, *leaves_of(arg)))

    def _unknown(self) -> str | None:
        """The name of something that may have been computed from numbers, or None."""
        results = [x for _, x in self._outputs]
        saved = [("saved_tensors", x) for x in self._saved]
        kept = [(name, x) for name, x in vars(self).items() if name[0] != "_" and name != "needs_input_grad"]
        for name, x in saved + kept:
            if self._is_argument(x) or name == "saved_tensors" and any(x is result for result in results):
                continue
            for leaf in leaves_of(x):
                if leaf is not None and not isinstance(leaf, (str, bool, int, type)) and not self._is_argument(leaf):
                    return name
        return None


class FunctionCall(Call):
    """One call of a Function that is not recorded."""

    def results(self) -> Any:
        return with_constants(self.residuals, super().results())

    def reverse(self, gradients: NDArray[Any]) -> list[NDArray[Any]]:
        if self.made:
            self.residuals._as_numbers = True
        return super().reverse(gradients)

    def written(self, gradients: list[Any]) -> list[Any]:
        if not self.made:
            self.run()
        self.residuals._as_numbers = False
        try:
            return super().written(gradients)
        finally:
            self.residuals._as_numbers = True

    def refuse_read(self, name: str) -> None:
        unknown = self.residuals._unknown()
        if unknown is not None:
            raise ArgumentTypeError(
                f"{name}: the derivative of its backward is not known: forward has read a number of its arguments "
                f"({self.read}), and ctx.{unknown} has something that may be computed from it, which would be a constant. Save "
                "arguments and results alone, write forward with operations of flatgrad, or take first derivatives alone")


class RecordedFunctionCall(RecordedCall):
    """One call of a Function while a program is recorded."""

    def results(self) -> Any:
        self.residuals = None
        found = super().results()
        return with_constants(self.residuals, found)

    def asked(self, gradient: Any) -> list[Any]:
        self.residuals._as_numbers = False
        return super().asked(gradient)


def with_constants(context: Context | None, results: Any) -> Any:
    """The results, of which those that are marked so are constants."""
    if context is None or not context._constant:   # None: within the Function's own forward
        return results
    constant = {k for k, x in context._outputs if any(x is marked for marked in context._constant)}
    places = itertools.count()
    return map_leaves(lambda name, x: x.detach() if next(places) in constant and x is not None else x, results)


class FunctionRule(custom_derivative):
    """What a subclass of Function does, as a function with a derivative of its own."""

    cls: type[Function]
    methods: tuple[Any, ...]

    what: str = "Function"
    forward_name: str = "forward"
    backward_name: str = "backward"
    call: type[Call] = FunctionCall
    recorded_call: type[RecordedCall] = RecordedFunctionCall

    def __init__(self, cls: type[Function]) -> None:
        self.cls, self.methods = cls, methods_of(cls)
        for name, method in zip(("forward", "backward"), self.methods):
            if not callable(method):
                raise ArgumentTypeError(f"{cls.__name__}: expected a static method {name}, got {described(method)}")
        if cls.setup_context is not None and not callable(cls.setup_context):
            raise ArgumentTypeError(f"{cls.__name__}: expected a static method setup_context, got "
                                    f"{described(cls.setup_context)}")
        super().__init__(self.numbers_of)
        self.name = self.__name__ = self.__qualname__ = cls.__name__
        self.most = 0
        self.defvjp(self.kept, self.gradients_of)

    def __call__(self, *args: Any) -> Any:
        found = super().__call__(*args)
        if _is_unrecorded() or not any(is_operand(x) for x in leaves_of(args)):
            return map_leaves(lambda name, x: x if x is None else x.detach(), found)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return FunctionRule, (self.cls,)

    def kept(self, *args: Any) -> tuple[Any, Context]:
        """The result of `forward`, and the context."""
        context = Context(self, args)
        if self.cls.setup_context is None:
            output = self.cls.forward(context, *args)
        else:
            output = self.cls.forward(*args)
            self.cls.setup_context(context, args, output)
        context._outputs = [(k, x) for k, x in enumerate(leaves_of(output)) if x is not None]
        return output, context

    def numbers_of(self, *args: Any) -> Any:
        """The result alone, of which no derivative is asked for."""
        return map_leaves(self.result, self.kept(*args)[0], f"{self.name}: the result")

    def gradients_of(self, context: Context, gradients: Any) -> tuple[Any, ...]:
        """What `backward` returns, always a tuple."""
        several = isinstance(gradients, tuple) and not hasattr(gradients, "_fields")
        found = self.cls.backward(context, *gradients) if several else self.cls.backward(context, gradients)
        if len(context._args) == 1 and not isinstance(found, tuple):
            return (found,)
        return found

    def __repr__(self) -> str:
        return f"<Function {self.name}>"


class Slot:
    """Stands for a result in the structure of all."""


def most_arguments(f: Callable[..., Any]) -> int:
    """How many arguments by position f can have where some have defaults; else 0."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):   # of a function in C
        return 0
    given = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(given) if any(p.default is not p.empty for p in given) else 0


def pair_up(name: str, argument: Any, part: Any, gradients: list[Any]) -> None:
    """Append the gradient of each operand in an argument, in order."""
    argument, part = opened(argument), opened(part)
    if part is None:
        gradients += [None for x in leaves_of(argument) if is_operand(x)]
    elif isinstance(argument, dict):
        if not isinstance(part, dict) or part.keys() != argument.keys():
            raise ArgumentTypeError(f"{name}: expected a dict with the keys of the argument, {list(argument)}, got "
                                    f"{described(part)}")
        for key in argument:
            pair_up(f"{name}[{key!r}]", argument[key], part[key], gradients)
    elif isinstance(argument, (list, tuple)):
        if type(argument) is Node and (type(part) is not Node or part.kind is not argument.kind):
            raise ArgumentTypeError(f"{name}: expected a {argument.kind.cls.__name__}, as the argument is, got "
                                    f"{described(part)}")
        if not isinstance(part, (list, tuple)) or len(part) != len(argument):
            raise ArgumentTypeError(f"{name}: expected {len(argument)} parts, as the argument has, got {described(part)}")
        for k, (x, g) in enumerate(zip(argument, part)):
            pair_up(f"{name}[{k}]", x, g, gradients)
    elif is_operand(argument):
        gradients.append(gradient_for(name, argument, part))


def gradient_for(name: str, x: Any, g: Value | Tensor | float) -> Value | Tensor:
    """The gradient of an operand, of its type and shape."""
    shape = getattr(x, "shape", ())
    if isinstance(g, (numbers.Real, np.ndarray)) and not is_bool(g) and np.shape(g) == shape:
        try:
            g = Tensor(g, requires_grad=False) if shape else Value(float(g))
        except OverflowError:
            raise ArgumentError(f"{name}: expected a number that float64 holds, got {shortened(g)}") from None
    if not isinstance(g, (Value, Tensor)):
        raise ArgumentTypeError(f"{name}: expected a {type(x).__name__} or number{'s' * bool(shape)} of shape {shape}, "
                                f"got {described(g)}")
    if getattr(g, "shape", ()) != shape:
        raise ShapeError(f"{name}: expected the shape {shape} of the argument, got {getattr(g, 'shape', ())}")
    return g


def is_operand(x: Any) -> bool:
    """Whether gradients can flow to it."""
    return isinstance(x, (Value, Tensor)) and x.requires_grad


def copied(name: str, x: Any) -> Any:
    """A copy that depends on x, so that what depends on the copy is computed from this argument."""
    if not is_operand(x):
        return x
    return _apply("COPY", x) if isinstance(x, Value) else Tensor(x)


def described(x: Any) -> str:
    return f"{type(x).__name__} {shortened(x)}"
