"""Programs: a function of scalars that Python runs once, and the compiled core from then on.

`compile` records what a function does with its arguments as a list of instructions, and replays the list in place of
the function. A call is one instruction on the tape, so gradients flow through it as through any other.
"""
from __future__ import annotations

import enum
import functools
import numbers
import sys
import types
from collections import OrderedDict, defaultdict
from collections.abc import ItemsView, KeysView, ValuesView
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, overload

import numpy as np

from flatgrad._core import (_LEAVES, _MISSING, _SIMPLIFICATIONS, Tensor, Value, Weights, _detects_anomaly, _filled,
                            _Hole, _in_floats, _is_captured, _is_recording, _Keywords, _Places, _Recording, _Replay,
                            _Replays, _Same, _Static, _timed, derivatives)
from flatgrad.arguments import flag, is_bool, one_of, shortened
from flatgrad.descent import minimize
from flatgrad.errors import ArgumentError, ArgumentTypeError, RecordingError, ShapeError
from flatgrad.signatures import (OURS, first_parameter, name_of, names_in, names_of, numbers_of, package_of,
                                 static_parameters)
from flatgrad.structures import REGISTERED, leaves_of, lowered, map_leaves, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Literal

    from numpy.typing import NDArray

    from flatgrad._core import _Path
    from flatgrad.export.c import CSource
    from flatgrad.export.flat import Flat
    from flatgrad.export.jax import JaxFunction
    from flatgrad.export.torch import TorchFunction
    from flatgrad.nn.normalization import BatchNorm
    from flatgrad.optim.optimizers import Optimizer

__all__ = ["CacheInfo", "Compiled", "compile"]

Result = TypeVar("Result")

MOST_PROGRAMS = 128   # of one function, for different structures of its arguments


class CacheInfo(NamedTuple):
    """How often a compiled function was replayed and recorded, and how many programs it keeps.

    As `functools.lru_cache` counts.
    """

    hits: int
    misses: int
    maxsize: int
    currsize: int


@overload
def compile(fn: Callable[..., Result], *, static_argnums: int | tuple[int, ...] = (),
            static_argnames: str | tuple[str, ...] = (), check: bool = False,
            simplify: bool | str | tuple[str, ...] = True,
            dtype: Literal["float64", "float32"] = "float64") -> Compiled[Result]: ...


@overload
def compile(fn: None = None, *, static_argnums: int | tuple[int, ...] = (),
            static_argnames: str | tuple[str, ...] = (), check: bool = False,
            simplify: bool | str | tuple[str, ...] = True,
            dtype: Literal["float64", "float32"] = "float64"
            ) -> Callable[[Callable[..., Result]], Compiled[Result]]: ...


def compile(fn: Callable[..., Any] | None = None, *, static_argnums: int | tuple[int, ...] = (),
            static_argnames: str | tuple[str, ...] = (), check: bool = False,
            simplify: bool | str | tuple[str, ...] = True, dtype: Literal["float64", "float32"] = "float64") -> Any:
    """A function that does what `fn` does, recorded once and replayed by the compiled core.

    Parameters
    ----------
    fn : callable, optional
        Takes numbers, Values, Tensors, arrays, and lists, tuples and dicts of them, and returns the like. What it
        captures, such as the parameters of a model, is read afresh at each call and receives gradients. Without
        `fn` the result is a decorator.
    static_argnums : int or tuple of int, optional
        Positional parameters that are part of the program, also where they come by keyword: it is recorded once for
        each value of them, and they have to be hashable. Arguments that are neither numbers nor arrays, such as
        strings, bools, None and models, are static in any case.
    static_argnames : str or tuple of str, optional
        Parameters by name of which the same is true, also where they come by position.
    check : bool, optional
        True: each call also runs `fn` itself, and raises an error if results or gradients differ. For finding out
        whether `fn` depends on anything that was recorded as a constant. The program is not simplified then.
    simplify : bool, optional
        Whether the program is rewritten in fewer and larger instructions, which run faster. Sums are then added up in
        another order, and results and gradients are those of `fn` but for rounding. With False results are the same
        bit for bit, and gradients but for the last digit. A set of some of "shared", "dots", "layers" and "together"
        takes these steps alone.
    dtype : {"float64", "float32"}, optional
        The type of the program's numbers: these names, or NumPy's types. With "float32" arguments and parameters are
        rounded when they go in, instructions compute in 32 bits, of which a vector of the processor has twice as many,
        and results and gradients are numbers of that precision, on the tape as any others. For batches, by `vmap`, and
        for large arrays: a call for a few numbers takes longer.

    Returns
    -------
    Compiled
        Called as `fn` is. Its results are Values and Tensors on the tape, one instruction for each call.

    Raises
    ------
    ArgumentTypeError, ArgumentError
        If an argument is not as described.
        The function that is returned raises an ArgumentTypeError while it records, at the line of `fn` that reads a
        number which may be another one at the next call: by ``.data``, ``float``, ``int``, ``bool``, a comparison, or
        as an index; or at the first call, if the result has other objects in it than those that are taken as arguments.
    RecordingError
        Raised by that function with `check`, if the program and `fn` differ.

    Notes
    -----
    The function is recorded at the first call, and again for each new structure of its arguments: other shapes, lengths
    of lists, keys of dicts, or static arguments; and when a variable that it names, or what leads from there to its
    parameters, has become another object, or an attribute that it reads. It should compute its result from its
    arguments and from Values and Tensors alone. Any other number, such as one in a list, is a constant of the program.
    So is what it draws by `random` or by NumPy; what it draws by `flatgrad.Random`, and the masks of `nn.Dropout`, are
    drawn anew at each call.

    A call within another compiled function becomes part of that function's program.

    Examples
    --------
    >>> import flatgrad
    >>> from flatgrad import Value
    >>> w = Value(3.0)
    >>> @flatgrad.compile
    ... def loss(x, y):
    ...     return (w * x - y) ** 2
    >>> l = loss(2.0, 5.0)
    >>> l.data
    1.0
    >>> l.backward()
    >>> w.grad
    4.0
    >>> w.data = 2.0   # read at the next call
    >>> loss(2.0, 5.0).data, loss.cache_info().currsize
    (1.0, 1)
    """
    options = {"static_argnums": static_argnums, "static_argnames": static_argnames, "check": check,
               "simplify": simplify, "dtype": dtype}
    if fn is None:
        check_options(static_argnums, static_argnames, check)   # so that a wrong option is told where it stands
        steps_of(simplify)
        type_of(dtype)
        return functools.partial(compile, **options)
    return Compiled(fn, **options)


class Compiled(_Replays, Generic[Result]):
    """What `compile` returns.

    Parameters
    ----------
    fn, static_argnums, static_argnames, check, simplify, dtype
        As for `compile`.

    Attributes
    ----------
    fn : callable
        The function itself.
    dtype : str
        "float64" or "float32".

    Examples
    --------
    >>> import flatgrad
    >>> square = flatgrad.compile(lambda x: x * x)
    >>> square(3.0).data, square(4.0).data
    (9.0, 16.0)
    >>> square.cache_info()
    CacheInfo(hits=1, misses=1, maxsize=128, currsize=1)
    """

    fn: Callable[..., Result]
    dtype: str

    simplify: tuple[Any, ...]
    check: bool
    static_argnums: tuple[Any, ...]
    static_argnames: tuple[Any, ...]

    if TYPE_CHECKING:
        # Numbers and arrays stand for the Values and Tensors that `fn` takes.
        def __call__(self, *args: Any, **kwargs: Any) -> Result: ...

    def __init__(self, fn: Callable[..., Result], static_argnums: int | tuple[int, ...] = (),
                 static_argnames: str | tuple[str, ...] = (), check: bool = False,
                 simplify: bool | str | tuple[str, ...] = True,
                 dtype: Literal['float64', 'float32'] = "float64") -> None:
        check_function(fn)
        self.fn, self.dtype = fn, type_of(dtype)
        self.static_argnums, self.static_argnames, self.check = check_options(
            static_argnums, static_argnames, check)
        steps = steps_of(simplify)
        self.simplify = () if self.check else steps   # rounding is not what is looked for
        self._numbers, self._names = static_parameters(fn, self.static_argnums, self.static_argnames)
        self._programs = OrderedDict()   # by the structure of the arguments; the last used is the last
        self._watched = {}   # by that structure: which attributes decide as well
        self._kept_as = "_compiled_" + getattr(fn, "__qualname__", name_of(fn))   # a class above may have one as well
        self._bound_by = None   # of a method of an instance: that, and what __get__ was called of
        self._own = None   # the same function, with programs for `minimize`
        self._flat = None
        functools.update_wrapper(self, fn, updated=())

    def _call(self, args, kwargs):
        """A call that is not like one of the last: see `_Replays`, which has seen to those."""
        if _is_recording():   # of a function around this one
            return self.fn(*args, **kwargs)
        if _detects_anomaly():   # which looks at each operation of the function, and has its line
            return self._plain(args, kwargs)
        leaves = []
        try:
            structure = self._key(args, kwargs, leaves)
        except RecursionError:
            raise ArgumentError(f"compile({name_of(self.fn)}): an argument contains itself, or is nested too "
                                "deeply") from None
        program = self._find(structure) or self._record(structure, args, kwargs)
        if not self.check:
            own = program.buffers or program.draws is not None   # the program fills in more
            self._remember(self, structure, program, program, None if own else program.run, program.template)
        states = program.draws.states() if self.check and program.draws is not None else ()
        result = program(leaves)
        if self.check:
            for source, state in states:   # the function draws the same numbers
                source.state = state
            compare(self, program, leaves, result, self._plain(args, kwargs))
        return result

    def _plain(self, args, kwargs):
        """What the function itself returns for arguments as a recording has them."""
        return self.fn(*[x if self._is_static(k, len(args)) else mapped(as_node, f"argument {k}", x)
                         for k, x in enumerate(args)],
                       **{name: x if name in self._names else mapped(as_node, name, x) for name, x in kwargs.items()})

    def _find(self, structure):
        """The program for arguments of that structure, if there is one, and all is where it was when it was recorded."""
        key = self._key_of(structure)
        program = self._programs.get(key)
        if program is None or program.places and not program.places.hold():
            return None
        self.use(key)
        return program

    def _key_of(self, structure):
        """The key of the program for arguments of that structure, as attributes are now."""
        watched = self._watched.get(structure) if self._watched else None
        return Watched(structure, present(watched)) if watched else structure

    def _remember(self, replays, key, program, compute, core, template):
        """Calls of `replays` with arguments of that structure are those of the program that was used last: they compute
        `core`, or call `compute` with the leaves."""
        found_by = program.found_by
        if self._programs.get(found_by) is not program:   # another thread was quicker
            return
        structure, values = found_by if type(found_by) is Watched else (found_by, ())
        replays.remember(_Replay(key, self._watched.get(structure, ()) if values else (), values, program.places,
                                 found_by, compute, core, template))

    def _record(self, structure, args, kwargs):
        """A new program, which is kept."""
        self.forget()
        self._misses += 1
        static = [self._is_static(k, len(args)) for k in range(len(args))]
        program = Program(self.fn, args, kwargs, static, self._names, self.simplify, self.dtype)
        watched = list(self._watched.get(structure, ()))
        more = [pair for pair in program.watched if not any(pair[0] is o and pair[1] == name for o, name in watched)]
        if more:   # what is known without them is not enough to find a program by
            for key in [key for key in list(self._programs) if structure_of(key) is structure
                        or structure_of(key) == structure]:
                self._programs.pop(key, None)   # another thread may have done so
            self._watched[structure] = watched = [*watched, *more]
        program.found_by = key = Watched(structure, present(watched)) if watched else structure
        self._programs[key] = program
        self.forget()   # once more: the function may have called this one
        if len(self._programs) > MOST_PROGRAMS:
            gone = structure_of(self._programs.popitem(last=False)[0])
            if gone in self._watched and not any(structure_of(key) == gone for key in list(self._programs)):
                self._watched.pop(gone, None)
        return program

    def _is_static(self, number, count):
        """Whether that one of `count` positional arguments is static."""
        return number in self._numbers or number - count in self._numbers

    def _key(self, args, kwargs, leaves, named=False):
        """The structure of the arguments, hashable; the leaves that are not static are appended to `leaves`, a list
        without any. Names for errors are made once there is one."""
        try:
            if not self._numbers:
                key = [structure(f"argument {k}" if named else None, x, leaves) for k, x in enumerate(args)]
            else:
                key = [static_part(f"argument {k}", x) if self._is_static(k, len(args))
                       else structure(f"argument {k}" if named else None, x, leaves) for k, x in enumerate(args)]
            if kwargs:
                key.append((_Keywords, *[
                    (name, static_part(name, kwargs[name]) if name in self._names
                     else structure(name if named else None, kwargs[name], leaves)) for name in sorted(kwargs)]))
        except (TypeError, ValueError):
            if named:
                raise
        else:
            return tuple(key)
        del leaves[:]
        return self._key(args, kwargs, leaves, named=True)

    def minimize(self, optimizer: Optimizer, *args: Any, steps: int = 1000, batch_size: int | None = None,
                 shuffle: bool = True, seed: int | None = None, every: int = 1,
                 callback: Callable[..., Any] | None = None, schedule: Any = None) -> NDArray[np.float64]:
        """Take steps of an optimizer that make this loss smaller, all of them in compiled code.

        A step computes the loss, sets the gradients of the optimizer's parameters to 0, computes them by a backward
        pass, and updates the parameters.

        Parameters
        ----------
        optimizer : Optimizer
            One of `flatgrad.optim`. Its parameters are captured by the function, or among its arguments.
        *args
            The arguments of the function. It returns the loss, a Value.
        steps : int, optional
            The number of steps.
        batch_size : int, optional
            The number of samples for each step: arguments that are arrays, lists or tuples, and as long as the first
            of these, are cut into batches, the last of which may be smaller. None: all arguments are the same at
            each step.
        shuffle : bool, optional
            Whether the batches are drawn anew each time that all samples have been used.
        seed : int, optional
            The seed of that. None: one from the system.
        every : int, optional
            The number of steps from one call of `callback` to the next.
        callback : callable, optional
            ``callback(step, loss)``, with the number of steps so far and the loss of the last one. True as its result
            ends the training.
        schedule : LRScheduler, callable or array_like, optional
            The learning rates of the steps: a schedule of `flatgrad.optim.lr_scheduler`, whose ``step()`` follows each
            step of the optimizer; a function of the step, counted from 0, that returns the learning rate, or a list
            with one for each group; or an array of shape (steps,) or (steps, groups). None: those of the optimizer.

        Returns
        -------
        ndarray of float64, shape (steps,)
            The loss before each step. A loss of nan or inf ends nothing.

        Raises
        ------
        ArgumentTypeError, ArgumentError, ShapeError
            If an argument is not as described, or the function was compiled with `check`.
        RuntimeError
            If the loss depends on no parameter of the optimizer, as `Value.backward` raises it.

        Notes
        -----
        Numbers, arrays and lists among the arguments are copied at the start. Values and parameters are read at each
        step, and after each callback. A schedule is asked for the learning rates of many steps at once, before these
        are taken, but not beyond the next callback. When `minimize` ends, the schedule is where the steps are, and the
        optimizer has the learning rate of a function or an array for the last one.

        The losses are those of a loop in Python over calls of this function, bit for bit. Ctrl-C raises a
        KeyboardInterrupt after a whole step. Parameters have their new numbers in callbacks and at the end; other
        threads run in the meantime and see earlier ones.

        Examples
        --------
        >>> import flatgrad
        >>> from flatgrad import Value, optim
        >>> w = Value(3.0)
        >>> @flatgrad.compile
        ... def loss(x, y):
        ...     return (w * x - y) ** 2
        >>> losses = loss.minimize(optim.SGD([w], lr=0.1), 1.0, 2.0, steps=100)
        >>> losses[0].item(), round(w.data, 6)
        (1.0, 2.0)
        """
        flag("minimize: shuffle", shuffle)
        if self.check:
            raise ArgumentError(f"minimize: expected a function of compile(check=False), as no step is checked, got "
                                f"{name_of(self.fn)} with check=True")

        if self._own is None:   # programs that nobody calls while a loop has them
            self._own = Compiled(self.fn, self.static_argnums, self.static_argnames, False, self.simplify, self.dtype)
        own, taken = self._own, []   # the programs, and their keys

        def record(given):
            found = []
            key = own._key(given, {}, found)
            program = own._find(key)
            if program is None or program.busy:   # by another thread, or a callback
                program = own._record(key, given, {})
            program.busy = True
            taken.append((program, key))
            if program.core is None or type(program.template) is not Hole:
                raise ArgumentError(f"minimize: expected a function that returns a Value, the loss; "
                                    f"{name_of(self.fn)} does not")
            if program.buffers:
                raise ArgumentError(f"minimize: {name_of(self.fn)} reads {program.buffers[0][1]!r} of a module, which "
                                    "may be another at each step; call the function in a loop")
            if program.single and program.draws is not None:
                raise ArgumentError(f"minimize: {name_of(self.fn)} draws random numbers in float32; call the function in "
                                    "a loop, or compile it in float64")
            return program

        def holds(program):
            return any(x is program and own._find(key) is x for x, key in taken)

        def leaves(name, x):
            found = []
            if not (name.startswith("argument ") and self._is_static(int(name[9:]), len(args))):
                structure(name, x, found)
            return found

        try:
            return minimize(record, lambda given: self._plain(given, {}), holds, leaves, optimizer, args, steps,
                            batch_size, shuffle, seed, every, callback, schedule)
        finally:
            for program, _ in taken:
                program.busy = False

    def cache_info(self) -> CacheInfo:
        """How often it was replayed (hits) and recorded (misses), and how many programs it keeps.

        Returns
        -------
        CacheInfo
            Of hits, misses, maxsize and currsize. The program used longest ago goes when there are more than maxsize.
        """
        return CacheInfo(self._hits, self._misses, MOST_PROGRAMS, len(self._programs))

    def clear(self) -> None:
        """Forget all programs; the next call records again."""
        self.forget()
        self._programs.clear()
        self._watched.clear()
        self._hits, self._misses, self._own = 0, 0, None

    def explain(self, time: bool = False) -> str:
        """What the programs consist of, as text.

        Parameters
        ----------
        time : bool, optional
            Whether to measure how long the programs take, which needs some hundredths of a second for each.

        Returns
        -------
        str
            For each program the structure of its arguments, the instructions, which kinds of them there are how
            often, and its memory in bytes; how many instructions each step of simplification has left, after which
            small ones become single operations again; how long it took to make the program; and how many random
            numbers a call draws.

            A line each for the loops and batches that the program calls, and for the batches that `vmap` has made of
            it: how many samples, how many of them are computed at once, how many instructions are computed once for
            all samples and how many for each, and the memory.

            With `time`, the microseconds of a call and of its backward pass, and of which instructions the call takes
            them; of a batch those of a sample.

        Raises
        ------
        ArgumentTypeError
            If `time` is no bool.

        Notes
        -----
        Times are measured on the numbers of the last call, each as the shortest of some repetitions, without Python's
        share of a call, and without copying numbers and gradients in and out. Nothing else is changed by that.

        Examples
        --------
        >>> import flatgrad
        >>> norm = flatgrad.compile(lambda x, y: (x * x + y * y).sqrt())
        >>> norm(3.0, 4.0).data
        5.0
        >>> print(norm.explain())  # doctest: +ELLIPSIS
        compile(<lambda>): 1 program
          (number, number): 4 instructions (2 *, 1 +, 1 sqrt), 2 operands, 0 captured, 0 constants, ... bytes
            simplified: 4 instructions at first, 4 after 'shared', 2 after 'dots', 2 after 'layers', 2 after 'together'
            milliseconds: ... to record, ... to cut, ... to simplify
        >>> import numpy as np
        >>> norm.clear()
        >>> flatgrad.vmap(norm)(np.array([3.0, 6.0, 9.0]), np.array([4.0, 8.0, 12.0])).tolist()
        [5.0, 10.0, 15.0]
        >>> print(norm.explain(time=True))  # doctest: +ELLIPSIS
        compile(<lambda>): 1 program
          (Value, Value): 4 instructions (2 *, 1 +, 1 sqrt), 2 operands, 0 captured, 0 constants, ... bytes
            simplified: ...
            milliseconds: ...
            microseconds: ... forward (... % ...), ... backward
            vmap: 3 samples in ... lanes, 0 instructions once and 4 for each sample, ... bytes
              microseconds a sample: ... forward, ... backward
        """
        flag("explain: time", time)
        count = len(self._programs)
        lines = [f"compile({name_of(self.fn)}): {count or 'no'} program{'s' * (count != 1)}"]
        for key, program in list(self._programs.items()):
            lines.append(f"  ({', '.join(map(shown, structure_of(key)))}): {program.explain(time)}")
        return "\n".join(lines)

    def to_c(self, path: _Path | None = None, gradient: bool | Literal['parameters', 'arguments', 'both'] = True,
             dtype: Literal['float64', 'float32'] | None = None, *, arguments: tuple[Any, ...] | None = None,
             parameters: Literal['struct', 'constant'] = "struct", optimizer: Optimizer | None = None,
             name: str | None = None) -> CSource:
        """This function as a file of C; see `flatgrad.export.c.to_c`."""
        from flatgrad.export.c import to_c

        return to_c(self, path, gradient, dtype, arguments=arguments, parameters=parameters, optimizer=optimizer,
                    name=name)

    def to_jax(self, arguments: tuple[Any, ...] | None = None) -> JaxFunction:
        """This function for JAX; see `flatgrad.export.jax.to_jax`."""
        from flatgrad.export.jax import to_jax

        return to_jax(self, arguments)

    def to_torch(self, arguments: tuple[Any, ...] | None = None) -> TorchFunction:
        """This function for PyTorch; see `flatgrad.export.torch.to_torch`."""
        from flatgrad.export.torch import to_torch

        return to_torch(self, arguments)

    @property
    def flat(self) -> Flat:
        """This function of one flat vector of its parameters, as SciPy's optimizers take it, and as other threads and
        processes do: ``f.flat(theta, *args)`` returns the value and its gradient; see `flatgrad.export.flat.Flat`.

        Examples
        --------
        >>> import flatgrad
        >>> from flatgrad import Value
        >>> w = Value(3.0)
        >>> loss = flatgrad.compile(lambda x: (w * x - 1.0) ** 2)
        >>> loss.flat([2.0], 1.0)
        (1.0, array([2.]))
        >>> loss.flat.theta, w.data
        (array([3.]), 3.0)
        """
        if self._flat is None or self._flat.is_stale():
            from flatgrad.export.flat import Flat

            self._flat = Flat(self)
        return self._flat

    def __get__(self, instance: object, owner: type[Any] | None = None) -> Any:
        """For a method: the program of each instance, kept in it, for the parameters are its own."""
        if instance is None:
            return self
        if isinstance(instance, type):   # of a classmethod: the class is a static argument
            return types.MethodType(self, instance)
        name = self._kept_as
        own = getattr(instance, "__dict__", None)
        if own is None:
            raise ArgumentTypeError(f"compile: the method {name_of(self.fn)} of {shortened(instance)} has nowhere to "
                                    "keep its programs: the class has __slots__ and no __dict__")
        bound = own.get(name)
        by = bound._bound_by if isinstance(bound, Compiled) else None
        if by is None or by[0] is not instance or by[1] is not self:   # none, or that of what this copies
            static = tuple(n - (n > 0) for n in self._numbers if n != 0)   # `self` is no argument any more
            names = tuple(n for n in self.static_argnames if n != first_parameter(self.fn))
            bound = own[name] = Compiled(self.fn.__get__(instance, owner), static, names, self.check,
                                         self.simplify, self.dtype)
            bound._bound_by = instance, self
        return bound

    def _attribute(self):
        """For the method of an instance: that, and the class and the name that have the compiled function; or None."""
        instance, method = self._bound_by or (None, None)
        for owner in type(instance).__mro__ if method is not None else ():
            for name, x in vars(owner).items():
                if x is method:
                    return instance, owner, name
        return None

    @staticmethod
    def _of_programs(name, numbers, names, programs):
        """For pickles of `flat`: a function that has been left behind; see `Loaded`."""
        return Loaded(name, numbers, names, programs)

    @staticmethod
    def _of_core(structure, core, buffers):
        """Likewise one of its programs; of its results nothing is known. buffers: an array for each."""
        program = Program.__new__(Program)
        program.core, program.run, program.found_by, program.single = core, core, structure, False
        program.template = program.draws = program.places = None
        program.watched, program.batches, program.evaluators = [], OrderedDict(), OrderedDict()
        program.buffers = [(types.SimpleNamespace(array=array), "array") for array in buffers]
        return program

    def __repr__(self) -> str:
        return f"<compiled {name_of(self.fn)}: {len(self._programs)} programs>"

    def __reduce__(self) -> tuple[Any, ...]:
        """By name, where that leads here; else without the programs: they are recorded again where it is loaded."""
        place = self._attribute()
        if place is not None:   # the instance has it anew where it is loaded
            return bound_method, place
        found = sys.modules.get(self.__module__)
        for name in getattr(self, "__qualname__", "").split("."):
            found = getattr(found, name, None)
        if found is self:
            return self.__qualname__
        return rebuilt, (self.fn, self.static_argnums, self.static_argnames, self.check, self.simplify, self.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled[Result]:
        import copy

        place = self._attribute()
        if place is not None:
            return bound_method(copy.deepcopy(place[0], memo), *place[1:])
        return Compiled(copy.deepcopy(self.fn, memo), self.static_argnums, self.static_argnames, self.check,
                        self.simplify, self.dtype)


class Loaded(Compiled):
    """A compiled function without its code: it has the programs that were loaded, and records none.

    Parameters
    ----------
    name : str
    numbers, names
        Of its static parameters.
    programs : list of Program
    """

    def __init__(self, name: str, numbers: Any, names: Any, programs: list[Any]) -> None:
        def fn(*args, **kwargs):
            raise ArgumentError(f"{name}: expected arguments as before it was saved")

        fn.__name__ = fn.__qualname__ = name
        super().__init__(fn)
        self._numbers, self._names = numbers, names
        self._programs.update((program.found_by, program) for program in programs)

    def _record(self, structure, args, kwargs):
        known = " or ".join(f"({', '.join(map(shown, key))})" for key in list(self._programs))
        raise ArgumentError(f"{name_of(self.fn)}: expected arguments of a structure that it had been called with before "
                            f"it was saved, {known}, got ({', '.join(map(shown, structure))})")


def check_refused(function: str, recording: Any) -> None:
    """An error if the recording has refused something, and the function has caught the error of that."""
    if recording.refused:
        raise ArgumentTypeError(f"{function} went on after the error: {recording.refused}")


class Program:
    """One recorded program of a function.

    Parameters
    ----------
    fn : callable
    args, kwargs
        What it is called with to be recorded.
    static : list of bool
        Which of `args` are.
    names : set of str
        Which of `kwargs` are.
    simplify : tuple of str
    dtype : str

    Attributes
    ----------
    core : _Program or None
        In doubles. None: the result is a constant.
    run : _Program or None
        What a call computes: `core`, or the same in floats.
    busy : bool
        Whether a loop has it, and nobody else may call it.
    found_by : object
        The key that its function has it under.
    watched : list of (object, str)
        Attributes that were read, and decide which program it is.
    places : _Places or None
        Where the function finds what it has captured.
    """

    single: bool
    core: Any
    run: Any
    batches: OrderedDict[Any, Any]
    evaluators: OrderedDict[Any, Any]
    places: Any
    buffers: list[tuple[BatchNorm, str]]
    step: None
    inputs: list[Any] | None
    watched: list[Any]
    draws: None
    found_by: tuple[Any, ...] | Watched | None
    template: Any
    busy: bool

    busy, found_by = False, None

    def __init__(self, fn: Any, args: tuple[Any, ...] | list[Any], kwargs: dict[str, Any], static: list[bool],
                 names: set[str], simplify: tuple[Any, ...], dtype: str) -> None:
        inputs = []
        leaf = functools.partial(replaced, inputs)
        new_args = [x if static[k] else mapped(leaf, f"argument {k}", x) for k, x in enumerate(args)]
        new_kwargs = dict(kwargs)
        for name in sorted(kwargs):   # in the order of the key
            if name not in names:
                new_kwargs[name] = mapped(leaf, name, kwargs[name])
        self.single = dtype == "float32"
        recording = _Recording(inputs, self.single)
        with recording:
            result = fn(*new_args, **new_kwargs)
        check_refused(f"compile({name_of(fn)}): it", recording)
        try:
            self.template, outputs = template_of("compile: the result", result)
        except RecursionError:
            raise ArgumentError(f"compile({name_of(fn)}): the result contains itself, or is nested too "
                                "deeply") from None
        self.core = recording.program(outputs, simplify) if outputs else None   # or it is a constant
        self.run = _in_floats(self.core) if self.core is not None and self.single else self.core
        self.step, self.inputs = None, inputs if self.single else None
        self.batches = OrderedDict()   # what loops.py has made of it for batches
        self.evaluators = OrderedDict()   # and evaluations.py for values and gradients off the tape
        self.watched, self.buffers, self.draws = recording.watched, recording.buffers, recording.draws
        places = Search(self.core.captured if self.core else ()).of_all([fn, *[
            x for x in (*args, *kwargs.values()) if not isinstance(x, (list, tuple, dict, Value, Tensor, np.ndarray))
            and type(x) not in REGISTERED]])
        self.places = places if places else None   # or there are none to look at

    @property
    def structure(self) -> tuple[Any, ...]:
        """That of the arguments."""
        return structure_of(self.found_by)

    def __call__(self, operands: list[Any]) -> Any:
        if self.draws is not None:
            operands = operands + self.draws.draw()
        if self.core is None:
            return _filled(self.template, [])
        if self.buffers:
            operands = operands + [getattr(module, name) for module, name in self.buffers]
        return _filled(self.template, self.run(operands))

    def in_loops(self) -> Any:
        """What a loop in C computes: `core`, or of floats a program of doubles that is one call of `run`."""
        if not self.single:
            return self.core
        if self.step is None:
            recording = _Recording(self.inputs)
            with recording:
                results = self.run(self.inputs)
            self.step = recording.program(results)
        return self.step

    def explain(self, time: bool = False) -> str:
        if self.core is None:
            return "a constant"
        stats = self.core.stats()
        if self.single:
            stats["bytes"] = self.run.stats()["bytes"]
        lines = [f"{instructions_of(stats)}, {stats['operands']} operands, {stats['captured']} captured, "
                 f"{stats['constants']} constants, {stats['bytes']} bytes{', in float32' * self.single}{history(stats)}"]
        if self.draws is not None:
            lines.append(f"    random numbers: {self.draws.size} at each call")
        calls = [described(call) for call in stats["calls"]]
        lines += [f"    {f'{count} calls of' if count > 1 else 'a call of'} {text}"
                  for text, count in ((text, calls.count(text)) for text in dict.fromkeys(calls))]
        if time:
            lines.append(f"    microseconds: {microseconds(_timed(self.run), 1)}")
        for batch in self.batches.values():
            if batch.core is not None:
                stats = batch.core.stats()
                lines.append(f"    vmap: {described(stats)}, {stats['bytes']} bytes")
                if time:
                    lines.append(f"      microseconds a sample: {microseconds(_timed(batch.core), batch.n_samples)}")
        return "\n".join(lines)


Hole = _Hole


# The key of a program that attributes decide upon as well: the structure of the arguments, and what these are.


class Watched(NamedTuple):
    structure: Any
    values: Any


def structure_of(key: Any) -> tuple[Any, ...]:
    return key.structure if type(key) is Watched else key


def present(watched: list[Any]) -> tuple[Any, ...]:
    """What attributes are now, hashable."""
    return tuple([static_part(name, getattr(x, name)) for x, name in watched])


# ---- options ----

def check_function(fn: Any) -> None:
    import inspect   # here, as it takes long to import

    if isinstance(fn, (classmethod, staticmethod, property)):
        kind = type(fn).__name__
        raise ArgumentTypeError(f"compile: fn: expected a function, got a {kind}; write @{kind} above "
                                "@flatgrad.compile")
    if not callable(fn):
        raise ArgumentTypeError(f"compile: fn: expected a callable, got {shortened(fn)}")
    for kind in ("isgeneratorfunction", "iscoroutinefunction", "isasyncgenfunction"):
        ask = getattr(inspect, kind)
        if ask(fn) or ask(getattr(type(fn), "__call__", None)):
            raise ArgumentTypeError(f"compile: fn: expected a function that computes when it is called, got "
                                    f"{shortened(fn)}, which has yield or async; return a list in place of yield")


def check_options(static_argnums: tuple[Any, ...] | int, static_argnames: tuple[Any, ...] | str,
                  check: bool) -> tuple[Any, Any, Any]:
    return numbers_of(static_argnums), names_of(static_argnames), flag("compile: check", check)

def steps_of(simplify: bool | tuple[str, str, str, str]) -> tuple[Any, ...]:
    """The steps of simplification that are taken, in their order."""
    if is_bool(simplify):
        return tuple(_SIMPLIFICATIONS) if simplify else ()
    if not isinstance(simplify, (set, frozenset, tuple, list)):
        raise ArgumentTypeError("compile: simplify: expected a bool or a set of steps, got " + shortened(simplify))
    for name in simplify:
        one_of("compile: simplify", name, tuple(_SIMPLIFICATIONS))
    return tuple([name for name in _SIMPLIFICATIONS if name in simplify])


def history(stats: dict[str, dict[str, int] | int | list[Any]]) -> str:
    """How a program was made, as text."""
    lines = []
    if stats["simplified"]:
        counts = dict(stats["simplified"])
        lines.append(f"simplified: {counts.pop('before')} instructions at first"
                     + "".join(f", {count} after {name!r}" for name, count in counts.items()))
    if stats["seconds"]:
        lines.append("milliseconds: " + ", ".join(f"{1000 * s:.2f} to {name}" for name, s in stats["seconds"].items()))
    return "".join(f"\n    {line}" for line in lines)


def type_of(dtype: str) -> str:
    """The name of a type of numbers."""
    for name in ("float64", "float32"):
        if isinstance(dtype, str) and dtype == name or dtype is getattr(np, name) or isinstance(
                dtype, np.dtype) and dtype == name:
            return name
    raise (ArgumentError if isinstance(dtype, (str, type, np.dtype)) else ArgumentTypeError)(
        f"compile: dtype: expected 'float64' or 'float32', got {shortened(dtype)}")

def instructions_of(stats: dict[str, dict[str, int] | int | list[Any]]) -> str:
    """How many instructions there are, and of which kinds, as text."""
    kinds = ", ".join(f"{count} {symbol}" for symbol, count in
                      sorted(stats["instructions"].items(), key=lambda item: (-item[1], item[0])))
    total = sum(stats["instructions"].values())
    return f"{total} instruction{'s' * (total != 1)}{f' ({kinds})' * bool(kinds)}"


def described(stats: Any) -> Any:
    """A batch, a loop or a program that another one calls, as text."""
    if "lanes" in stats:
        total = sum(stats["instructions"].values())
        once = total - stats["varying"]
        return (f"{stats['samples']} sample{'s' * (stats['samples'] != 1)} in {stats['lanes']} lanes, {once} "
                f"instruction{'s' * (once != 1)} once and {stats['varying']} for each sample")
    if "steps" in stats:
        return f"{stats['steps']} steps of {instructions_of(stats)}, {stats['steps in a stretch']} at a time"
    return instructions_of(stats)


def microseconds(timed: Any, n_samples: Any) -> Any:
    """What _timed() has measured, as text."""
    def of(seconds):
        return "none" if seconds is None else f"{1e6 * seconds / n_samples:.3g}"

    total = sum(timed["kinds"].values())
    kinds = sorted(timed["kinds"].items(), key=lambda item: -item[1])
    shares = ", ".join(f"{100 * seconds / total:.0f} % {symbol}" for symbol, seconds in kinds[:MOST_SHOWN])
    shares += ", ..." * (len(kinds) > MOST_SHOWN)
    return f"{of(timed['forward'])} forward{f' ({shares})' * bool(kinds)}, {of(timed['backward'])} backward"


MOST_SHOWN = 5   # kinds of instructions, of which the time is told


# ---- arguments ----

def structure(name: str, x: Any, leaves: list[Any]) -> str | tuple[Any, ...]:
    """What a program depends on of an argument, hashable: all but numbers, which are appended to `leaves`.

    The name is that of the whole and the path, for errors; with None there is less to do.
    """
    kind = type(x)
    if kind is float or kind is int and -MOST_WHOLE <= x <= MOST_WHOLE:
        leaves.append(x)
        return NUMBER
    if kind is list or kind is tuple:
        if are_floats(x):   # most often
            leaves.extend(x)
            return ROWS[kind][len(x)] if len(x) < MOST_KEPT else (kind,) + (NUMBER,) * len(x)
        if name is None:
            key = [kind]
            for part in x:
                if type(part) is list and len(part) < MOST_KEPT and are_floats(part):
                    leaves.extend(part)
                    key.append(LIST_ROWS[len(part)])
                else:
                    key.append(structure(None, part, leaves))
            return tuple(key)
        return (kind, *[structure(f"{name}[{k}]", part, leaves) for k, part in enumerate(x)])
    if kind is Value:
        leaves.append(x)
        return VALUE if x.requires_grad else FROZEN
    if kind is Tensor:
        leaves.append(x)
        return (TENSOR, x.shape, x.requires_grad)
    if kind is dict:
        return (dict, *[(key if type(key) is str else static_part(name and f"{name}: a key", key),
                         structure(name and f"{name}[{key!r}]", part, leaves)) for key, part in x.items()])
    if kind in PLAIN and kind is not int:
        return (Static, kind, x)
    if kind in REGISTERED:
        node = opened(x)
        return (Registered, static_part(name, kind), static_part(name and f"{name}: what is constant of it", node.aux),
                *[structure(name and node.path(name, k), part, leaves) for k, part in enumerate(node)])
    if isinstance(x, (dict, list, tuple)):
        check_kind(name, x)
        if isinstance(x, dict):
            factory = Same(x.default_factory) if kind is defaultdict else None
            return (kind, factory, *structure(name, dict(x), leaves)[1:])
        return (kind, *[structure(name and f"{name}[{k}]", part, leaves) for k, part in enumerate(x)])
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "iufb":
            raise ArgumentTypeError(f"{name}: expected an array of numbers, got one of dtype {x.dtype}")
        if x.ndim > 2 or x.size == 0:
            raise ShapeError(f"{name}: expected an array of at most two dimensions and at least one element, got the "
                             f"shape {x.shape}")
        if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
            check_whole(name, x)
        leaves.append(x)
        return (ARRAY, x.shape)
    if isinstance(x, (Value, Tensor)):
        raise ArgumentTypeError(f"{name}: expected a Value or a Tensor itself, got one of the subclass "
                                f"{kind.__name__}, whose own operators a program would not have")
    if isinstance(x, numbers.Real) and not is_bool(x) and not isinstance(x, enum.Enum):
        exact(name, x)
        leaves.append(x)
        return NUMBER
    if hasattr(x, "__array__") and not isinstance(x, np.generic):
        raise ArgumentTypeError(f"{name}: expected an array of NumPy, got {shortened(x)}; write numpy.asarray(...)")
    return static_part(name, x)


def are_floats(x: Any) -> bool:
    """Whether a list or tuple has floats alone, and ints that a float holds for certain."""
    kinds = set(map(type, x))
    return kinds <= FLOAT or kinds <= NUMBERS and -MOST_WHOLE <= min(x) and max(x) <= MOST_WHOLE


def check_whole(name: str, x: Any) -> None:
    """An error for an array of ints that float64 does not hold."""
    if -MOST_WHOLE <= x.min() and x.max() <= MOST_WHOLE:   # most often
        return
    for place in np.ndindex(x.shape):
        exact(name and f"{name}[{', '.join(map(str, place))}]" if place else name, int(x[place]))


NUMBER, VALUE, FROZEN, TENSOR, ARRAY = _LEAVES
PLAIN = frozenset({bool, int, str, bytes, type(None), type(...)})   # equal ones of one of these types are the same
FLOATS: dict[type[Any], Any]
FLOATS = {float: float.hex, complex: lambda x: (x.real.hex(), x.imag.hex())}   # tells -0.0 from 0.0; nan is nan
FLOAT, NUMBERS = frozenset({float}), frozenset({float, int})
MOST_WHOLE = 2 ** 53   # a float holds any int as far from 0
MOST_KEPT = 33
LIST_ROWS: list[tuple[Any, ...]]
LIST_ROWS = [(list,) + (NUMBER,) * n for n in range(MOST_KEPT)]   # the structures of rows of numbers
ROWS: dict[type[Any], list[tuple[Any, ...]]] = {list: LIST_ROWS, tuple: [(tuple, *row[1:]) for row in LIST_ROWS]}
ONCE = (KeysView, ValuesView, ItemsView)


def check_kind(name: str, x: Any) -> None:
    """An error for a list, tuple or dict of a subclass that cannot be made anew."""
    kind = type(x)
    if kind not in (list, tuple, dict, OrderedDict, defaultdict) and not (isinstance(x, tuple)
                                                                          and hasattr(kind, "_fields")):
        plain = next(base.__name__ for base in (list, tuple, dict) if isinstance(x, base))
        raise ArgumentTypeError(f"{name}: expected a list, a tuple, a namedtuple or a dict, got one of the subclass "
                                f"{kind.__name__}; write {plain}(...)")


def static_part(name: str, x: Any) -> tuple[Any, ...]:
    """A static argument as part of a key: whatever could be told from it has another program."""
    kind = type(x)
    if kind in PLAIN:
        return (Static, kind, x)
    if kind in FLOATS:
        return (Static, kind, FLOATS[kind](x))
    if isinstance(x, (Value, Tensor)):
        raise ArgumentTypeError(f"{name}: expected a static argument, got {shortened(x)}, which is read at each call")
    if isinstance(x, tuple) and (kind is tuple or hasattr(kind, "_fields")):
        return (Static, kind, *[static_part(f"{name}[{k}]", part) for k, part in enumerate(x)])
    if kind is frozenset:
        return (Static, kind, frozenset([static_part(f"{name}: an element", part) for part in x]))
    if kind is range or kind is slice:
        return (Static, kind, *[static_part(name, part) for part in (x.start, x.stop, x.step)])
    if isinstance(x, np.generic):
        return (Static, kind, x.dtype.str, x.tobytes())
    if kind.__module__ in ("decimal", "fractions"):
        return (Static, kind, str(x))
    if hasattr(kind, "__next__") or isinstance(x, ONCE):
        raise ArgumentTypeError(f"{name}: expected a list, got {shortened(x)}, whose elements would be those of the "
                                "first call; write list(...)")
    try:
        hash(x)
    except TypeError:
        raise ArgumentTypeError(f"{name}: expected a number, a Value, a Tensor, an array, a list, tuple or dict of "
                                f"them, or a static argument, which has to be hashable, got {shortened(x)}") from None
    return (Static, kind, Same(x))


Static, Same = _Static, _Same


class Registered:
    """Begins what a key has of an object of a class that `flatgrad.tree` has registered."""


def mapped(function: Any, name: str, x: Any) -> Any:
    """A structure with ``function(name, leaf)`` in place of each leaf; the name is that of the whole and the path."""
    return map_leaves(function, x, name, check_container)


def check_container(name: str, x: Any) -> None:
    """An error for a list, tuple or dict that cannot be an argument or a result."""
    check_kind(name, x)
    for key in x if isinstance(x, dict) else ():
        if type(key) is not str and has_node(key):
            raise ArgumentTypeError(f"{name}: expected keys that are constants, got {shortened(key)}")


def has_node(key: Any) -> bool:
    return isinstance(key, (Value, Tensor)) or isinstance(key, (tuple, frozenset)) and any(map(has_node, key))


def replaced(inputs: list[Any], name: str, x: Any) -> Any:
    """A new leaf in place of an argument's number, Value, array or Tensor; it is appended to `inputs`."""
    if isinstance(x, Tensor):
        leaf = Tensor(x.data, requires_grad=x.requires_grad)
    elif isinstance(x, np.ndarray) and x.ndim > 0:
        leaf = Tensor(np.asarray(x, np.float64), requires_grad=False)
    elif isinstance(x, Value):
        leaf = Value(x.data)
        if not x.requires_grad:
            leaf.requires_grad = False
    elif isinstance(x, (numbers.Real, np.ndarray)) and not is_bool(x) and not isinstance(x, enum.Enum):
        leaf = Value(exact(name, x))
    else:
        return x
    inputs.append(leaf)
    return leaf


def as_node(name: str, x: Any) -> Value | Tensor:
    """A leaf of an argument as a recording has it: a Value in place of a number, a Tensor in place of an array."""
    return x if isinstance(x, (Value, Tensor)) else replaced([], name, x)


def exact(name: str, x: Any) -> float:
    """The float that a number is; an int has to be one exactly, as it may be an index."""
    try:
        result = float(x)
    except OverflowError:
        result = None
    if result is None or isinstance(x, numbers.Integral) and int(x) != result:
        raise ArgumentError(f"{name}: expected a number that float64 holds, got {shortened(x)}; a static argument may "
                            "be any int")
    return result


# ---- results ----

def template_of(name: str, result: Any) -> tuple[Any, Any]:
    """The structure of a result with a Hole for each Value and Tensor, and the list of these."""
    places = {}
    template = mapped(functools.partial(place_of, places), name, lowered(result))
    return template, [x for x, _ in places.values()]


def place_of(places: dict[int, Any], name: str, x: Any) -> Any:
    """What stands in the template of a result for a leaf: a hole for a Value or Tensor, always the same for the same,
    which `places` gets by its id; or a constant."""
    if type(x) is Value or type(x) is Tensor:
        return places.setdefault(id(x), (x, Hole(len(places))))[1]
    if isinstance(x, np.ndarray) and x.dtype != object:
        return x.copy()
    if x is None or isinstance(x, (numbers.Number, np.generic, str, bytes)):
        return x
    what = f"an array of objects of shape {x.shape}" if isinstance(x, np.ndarray) else shortened(x)
    raise ArgumentTypeError(
        f"{name}: expected Values, Tensors, numbers, arrays, None, strings, or lists, tuples and dicts of "
        f"them, got {what}, which would be that of the first call at each call"
        + ("; flatgrad.stack makes a Tensor of Values" if isinstance(x, np.ndarray) else ""))


# ---- where captured leaves come from ----

class Search:
    """Finds the places that lead from a function to what its program has captured: variables, attributes, elements of
    lists and dicts. Notes as well what all variables are that the function and those it calls name, and attributes by
    names that they read.

    Parameters
    ----------
    captured : tuple
    """

    captured: set[int]
    places: Any
    known: dict[int, Any]
    noted: set[Any]
    named: set[int]
    attributes: set[str]
    asked: set[Any]
    objects: list[Any]

    MOST = 20_000   # objects that are looked at

    def __init__(self, captured: tuple[Any, ...]) -> None:
        self.captured = set(map(id, captured))
        self.places = _Places()
        self.known = {}   # by id: the object, and whether it leads to what is captured
        self.noted = set()   # (id of a dict, key) and ids of cells, of which the places have been noted
        self.named = set()   # ids of objects that variables, or methods, have
        self.attributes = set(CALLED)   # names that functions read
        self.asked = set()   # those for getattr and hasattr
        self.objects = []   # those with a dict of attributes, and that dict

    def of_all(self, roots: list[Any]) -> Any:
        try:
            for x in roots:
                self.named.add(id(x))
                self.leads(x)
            self.read_attributes()
        except RecursionError:   # the places that were found until then are right as well
            pass
        return self.places

    def leads(self, x: Any) -> bool:
        kind = type(x)
        if kind in PLAIN or kind is float or isinstance(x, (types.ModuleType, type, np.ndarray, np.generic)):
            return False
        if id(x) in self.known:
            return self.known[id(x)][1]
        if len(self.known) >= self.MOST:
            return False
        self.known[id(x)] = x, False   # until it is known: it may lead back to itself
        found = self.within(x, kind)
        self.known[id(x)] = x, found
        return found

    def within(self, x: Any, kind: type[Any]) -> bool:
        if isinstance(x, (Value, Tensor)):
            return _is_captured(self.captured, x)
        if isinstance(x, Compiled):
            return self.leads(x.fn)
        if kind is types.FunctionType:
            return self.of_function(x)
        if kind is types.MethodType:
            self.named.add(id(x.__self__))
            return any([self.leads(x.__self__), self.leads(x.__func__)])
        if kind is functools.partial:
            return any([self.leads(x.func), *map(self.leads, x.args), *map(self.leads, x.keywords.values())])
        if isinstance(x, (list, tuple, dict)):
            found = any([self.leads(part) for part in (x.values() if isinstance(x, dict) else x)])
            if found and isinstance(x, (list, dict)):
                self.places.lists.append((x, tuple(x.values() if isinstance(x, dict) else x)))
            return found
        found = isinstance(x, Weights) and self.places.note_neuron(x, self.captured)
        own = getattr(x, "__dict__", None)
        if type(own) is not dict:
            return found
        self.objects.append((x, own))
        return any([found, *[self.at(own, name, part) for name, part in list(own.items())]])

    def at(self, own: dict[str, Any], name: str, x: Any) -> bool:
        """Whether what a dict has under that name leads there; if so, the place is noted."""
        if self.leads(x):
            self.note(own, name, x)
            return True
        return False

    def note(self, own: dict[str, Any], name: str, x: Any) -> None:
        if (id(own), name) not in self.noted:
            self.noted.add((id(own), name))
            self.places.dicts.append((own, name, x))

    def of_function(self, fn: Callable[..., Any]) -> bool:
        package = package_of(fn)
        if package in OURS:
            return False
        whole = package not in sys.stdlib_module_names   # else only what leads there
        self.places.functions.append((fn, fn.__code__, fn.__defaults__, fn.__kwdefaults__))
        found = [self.leads(fn.__defaults__), self.leads(fn.__kwdefaults__)]
        variables, attributes, asked = names_in(fn.__code__)
        self.attributes |= attributes | asked
        self.asked |= asked
        for name in variables:
            x = fn.__globals__.get(name, _MISSING)
            if x is not _MISSING and not isinstance(x, types.ModuleType):
                self.named.add(id(x))
                found.append(self.leads(x))
                if whole or found[-1]:
                    self.note(fn.__globals__, name, x)
            elif x is _MISSING and whole:   # one of Python's own, until the module has one
                self.note(fn.__globals__, name, x)
        for cell in fn.__closure__ or ():
            try:
                x = cell.cell_contents
            except ValueError:   # it has none yet
                continue
            if isinstance(x, types.ModuleType) or id(cell) in self.noted:
                continue
            self.noted.add(id(cell))
            self.named.add(id(x))
            found.append(self.leads(x))
            self.places.cells.append((cell, x))
        return any(found)

    def read_attributes(self) -> None:
        """Follow methods by names that functions read, and note attributes by these names: of objects that lead to what
        is captured, and of those that variables have."""
        methods, before = set(), None
        while before != (len(self.attributes), len(self.objects)):
            before = len(self.attributes), len(self.objects)
            for kind in {type(x) for x, _ in self.objects}:
                for name in tuple(self.attributes):
                    for method in methods_of(kind, name):
                        if id(method) not in methods:
                            methods.add(id(method))
                            self.leads(method)
        objects = {id(x): (x, own) for x, own in self.objects}
        left = [key for key in objects if self.known[key][1] or key in self.named]
        while left:
            x, own = objects.pop(left.pop(), (None, {}))
            buffers = getattr(type(x), "buffer_names", ())
            for name in self.attributes:
                if name == "training" or name in buffers:   # recordings know of these
                    continue
                if name in own:
                    self.note(own, name, own[name])
                    left.append(id(own[name]))
                elif name in self.asked or not name.startswith("__") and is_of_users(type(x), name):
                    self.note(own, name, _MISSING)   # it is the class that has it, as long as x has none


CALLED = ("__call__", "forward")   # by no name that is read, or by Module


def methods_of(kind: type[Any], name: str) -> Iterator[Callable[..., Any]]:
    """The functions in Python that an attribute of a class stands for."""
    for owner in kind.__mro__:
        x = vars(owner).get(name)
        if isinstance(x, Compiled):
            x = x.fn
        if isinstance(x, (staticmethod, classmethod)):
            x = x.__func__
        if isinstance(x, property):
            x = x.fget
        if type(x) is types.FunctionType and package_of(x) not in OURS:
            yield x


def is_of_users(kind: type[Any], name: str) -> bool:
    """Whether a class has such an attribute, and not from us."""
    owner = next((owner for owner in kind.__mro__ if name in vars(owner)), object)
    return owner.__module__.partition(".")[0] not in (*OURS, "builtins")


# ---- looking at it ----

def shown(key: Any) -> str:
    """Part of a key as text."""
    if isinstance(key, str):
        return key
    if key[0] is Static:
        if key[1] in PLAIN or type(key[2:][0] if key[2:] else None) is Same:
            return repr(key[2])
        parts = [shown(x) if type(x) is tuple and x[0] is Static else str(x) for x in key[2:]]
        return f"{key[1].__name__}({', '.join(parts)})"
    if key[0] is _Keywords:
        return ", ".join([f"{name}={shown(part)}" for name, part in key[1:]])
    if key[0] in (TENSOR, ARRAY):
        return f"{key[0]}{key[1]}"
    if issubclass(key[0], dict):
        return "{" + ", ".join(f"{name!r}: {shown(part)}" if isinstance(name, str) else f"{shown(name)}: {shown(part)}"
                               for name, part in (key[1:] if key[0] is dict else key[2:])) + "}"
    parts = [shown(part) for part in key[1:]]
    if len(parts) > 4 and len(set(parts)) == 1:   # a long list of the same
        parts = [f"{parts[0]} x {len(parts)}"]
    return ("[{}]" if issubclass(key[0], list) else "({})").format(", ".join(parts))


def bound_method(instance: Any, owner: type[Any], name: str) -> Compiled[Any]:
    return vars(owner)[name].__get__(instance)


def rebuilt(fn: Any, static_argnums: Any, static_argnames: Any, check: Any, simplify: bool = True,
            dtype: str = "float64") -> Any:
    if isinstance(fn, Compiled):   # that is how the method that it was made of is found
        return fn
    return Compiled(fn, static_argnums, static_argnames, check, simplify, dtype)


def compare(compiled: Compiled[Any], program: Program, leaves: list[Any], result: Value | Tensor,
            plain: Value | float | NDArray[Any]) -> None:
    """Raise a RecordingError unless the results, and their gradients, are those of the function itself."""
    outputs, expected = leaves_of(result), leaves_of(plain)
    name = f"compile({name_of(compiled.fn)}, check=True)"
    # A derivative is a node in a program, and a number where Python takes it: then numbers alone are compared.
    derived = [isinstance(x, (Value, Tensor)) and isinstance(y, (float, np.ndarray)) for x, y in zip(outputs, expected)]
    kinds = [[type(x).__name__ for x, is_derived in zip(several, derived) if not is_derived]
             for several in (outputs, expected)]
    if kinds[0] != kinds[1] or len(outputs) != len(expected):
        raise RecordingError(f"{name}: the program returns {shortened(result)}, the function {shortened(plain)}")
    for k, (got, want) in enumerate(zip(outputs, expected)):
        if isinstance(got, (Value, Tensor)):
            got, want = np.asarray(got.data), np.asarray(want if derived[k] else want.data)
            if got.shape != want.shape or not all(near(got, want, compiled.dtype)):
                raise RecordingError(f"{name}: result {k} is {shortened(got.tolist())} by the program and "
                                     f"{shortened(want.tolist())} by the function; {STALE}")
        elif not same(got, want):
            raise RecordingError(f"{name}: result {k} is {shortened(got)} by the program and {shortened(want)} by the "
                                 f"function; {STALE}")
    captured = () if program.core is None else program.core.captured
    inputs = [x for x in (*leaves, *captured) if isinstance(x, (Value, Tensor)) and x.requires_grad]
    nodes = [[x for x, is_derived in zip(several, derived) if isinstance(x, (Value, Tensor)) and not is_derived]
             for several in (outputs, expected)]
    if not inputs or not nodes[0]:
        return
    got, want = [derivatives([weighted(several)], inputs) for several in nodes]
    right = near(got, want, compiled.dtype)
    if not all(right):
        at = right.index(False)
        raise RecordingError(f"{name}: the gradient by number {at} of arguments and captured leaves is {got.flat[at]} "
                             f"by the program and {want.flat[at]} by the function; {STALE}")


def near(got: NDArray[Any], want: NDArray[Any], dtype: str) -> list[bool]:
    """For each number of two arrays, whether they differ by no more than rounding does."""
    if dtype == "float64":
        right = np.isclose(got, want, rtol=1e-9, atol=1e-12, equal_nan=True)
    else:   # where terms cancel, what is left of rounding is as large as a digit of theirs
        size = np.abs(want[np.isfinite(want)]).max(initial=1.0)
        right = np.isclose(got, want, rtol=1e-3, atol=1e-4 * size, equal_nan=True)
    return right.reshape(-1).tolist()


STALE = ("it depends on something that was recorded as a constant, such as a Python number, or a random one that is not "
         "of flatgrad.Random")


def same(x: Any, y: Any) -> Any:
    if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
        return isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and np.array_equal(x, y, equal_nan=True)
    return x is y or x == y or x != x and y != y


def weighted(nodes: list[Value]) -> Value:
    """A sum of all the numbers with weights of their own, so that no two errors cancel."""
    total, weight = Value(0.0), 0.5
    for node in nodes:
        for element in ([node] if isinstance(node, Value) else node.reshape(-1)):
            total = total + weight * element
            weight = 0.5 + (weight * 1.618) % 1.0
    return total
