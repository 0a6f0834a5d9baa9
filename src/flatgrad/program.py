"""Programs: a function of scalars that Python runs once, and the compiled core from then on.

`compile` records what a function does with its arguments as a list of instructions, and replays the list in place of
the function. A call is one instruction on the tape, so gradients flow through it as through any other.
"""
import functools
import numbers
import sys
from collections import OrderedDict, namedtuple

import numpy as np

from flatgrad._core import Tensor, Value, _is_recording, _Recording, derivatives
from flatgrad.arguments import flag, is_bool, shortened
from flatgrad.descent import minimize
from flatgrad.errors import ArgumentError, ArgumentTypeError, RecordingError, ShapeError
from flatgrad.structures import leaves_of, like, map_leaves

__all__ = ["CacheInfo", "Compiled", "compile"]

MOST_PROGRAMS = 128   # of one function, for different structures of its arguments

CacheInfo = namedtuple("CacheInfo", "hits misses maxsize currsize")
CacheInfo.__doc__ = """How often a compiled function was replayed and recorded, and how many programs it keeps.

As `functools.lru_cache` counts.
"""


def compile(fn=None, *, static_argnums=(), static_argnames=(), check=False):
    """A function that does what `fn` does, recorded once and replayed by the compiled core.

    Parameters
    ----------
    fn : callable, optional
        Takes numbers, Values, Tensors, arrays, and lists, tuples and dicts of them, and returns the like. What it
        captures, such as the parameters of a model, is read afresh at each call and receives gradients. Without
        `fn` the result is a decorator.
    static_argnums : int or tuple of int, optional
        Positional arguments that are part of the program: it is recorded once for each value of them, and they
        have to be hashable. Arguments that are neither numbers nor arrays, such as strings, bools, None and models,
        are static in any case.
    static_argnames : str or tuple of str, optional
        Arguments by keyword of which the same is true.
    check : bool, optional
        True: each call also runs `fn` itself, and raises an error if results or gradients differ. For finding out
        whether `fn` depends on anything that was recorded as a constant.

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
        as an index.
    RecordingError
        Raised by that function with `check`, if the program and `fn` differ.

    Notes
    -----
    The function is recorded at the first call, and again for each new structure of its arguments: other shapes, lengths
    of lists, keys of dicts, or static arguments. It should compute its result from its arguments and from Values
    and Tensors alone. A Python number that it captures is a constant of the program, and so is what it draws at random.

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
    options = {"static_argnums": static_argnums, "static_argnames": static_argnames, "check": check}
    if fn is None:
        Compiled(len, **options)   # so that a wrong option is told where it stands
        return functools.partial(compile, **options)
    return Compiled(fn, **options)


class Compiled:
    """What `compile` returns.

    Parameters
    ----------
    fn, static_argnums, static_argnames, check
        As for `compile`.

    Attributes
    ----------
    fn : callable
        The function itself.

    Examples
    --------
    >>> import flatgrad
    >>> square = flatgrad.compile(lambda x: x * x)
    >>> square(3.0).data, square(4.0).data
    (9.0, 16.0)
    >>> square.cache_info()
    CacheInfo(hits=1, misses=1, maxsize=128, currsize=1)
    """

    def __init__(self, fn, static_argnums=(), static_argnames=(), check=False):
        if not callable(fn):
            raise ArgumentTypeError(f"compile: fn: expected a callable, got {shortened(fn)}")
        self.fn = fn
        self.static_argnums = numbers_of(static_argnums)
        self.static_argnames = names_of(static_argnames)
        self.check = flag("compile: check", check)
        self._programs = OrderedDict()   # by the structure of the arguments; the last used is the last
        self._hits = self._misses = 0
        functools.update_wrapper(self, fn, updated=())

    def __call__(self, *args, **kwargs):
        if _is_recording():   # of a function around this one
            return self.fn(*args, **kwargs)
        leaves = []
        key = self._key(args, kwargs, leaves)
        program = self._programs.get(key)
        if program is None:
            self._misses += 1
            program = Program(self.fn, args, kwargs, self._is_static)
            self._programs[key] = program
            if len(self._programs) > MOST_PROGRAMS:
                self._programs.popitem(last=False)
        else:
            self._hits += 1
            self._programs.move_to_end(key)
        result = program(leaves)
        if self.check:
            plain = self.fn(*[x if self._is_static(k) or self._is_static(k - len(args)) else as_nodes(x)
                              for k, x in enumerate(args)],
                            **{name: x if self._is_static(name) else as_nodes(x) for name, x in kwargs.items()})
            compare(self, program, leaves, result, plain)
        return result

    def _is_static(self, name):
        return name in self.static_argnums or name in self.static_argnames

    def _key(self, args, kwargs, leaves):
        """The structure of the arguments, hashable; the leaves that are not static are appended to `leaves`."""
        static = self.static_argnums, self.static_argnames
        if not any(static):
            key = [structure(f"argument {k}", x, leaves) for k, x in enumerate(args)]
        else:
            numbers = {n + len(args) if n < 0 else n for n in self.static_argnums}
            key = [static_part(f"argument {k}", x) if k in numbers else structure(f"argument {k}", x, leaves)
                   for k, x in enumerate(args)]
        for name in sorted(kwargs):
            key.append(name)
            key.append(static_part(name, kwargs[name]) if name in self.static_argnames
                       else structure(name, kwargs[name], leaves))
        return tuple(key)

    def minimize(self, optimizer, *args, steps=1000, batch_size=None, shuffle=True, seed=None, every=1, callback=None):
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

        Returns
        -------
        ndarray of float64, shape (steps,)
            The loss before each step. A loss of nan or inf ends nothing.

        Raises
        ------
        ArgumentTypeError, ArgumentError, ShapeError
            If an argument is not as described.

        Notes
        -----
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

        def record(given):
            program = Program(self.fn, given, {}, self._is_static)
            if program.core is None or program.template is not HOLE:
                raise ArgumentError(f"minimize: expected a function that returns a Value, the loss; "
                                    f"{name_of(self.fn)} does not")
            return program.core

        def leaves(name, x):
            found = []
            if not (name.startswith("argument ") and (self._is_static(int(name[9:]))
                                                      or self._is_static(int(name[9:]) - len(args)))):
                structure(name, x, found)
            return found

        return minimize(record, leaves, optimizer, args, steps, batch_size, shuffle, seed, every, callback)

    def cache_info(self):
        """How often it was replayed (hits) and recorded (misses), and how many programs it keeps.

        Returns
        -------
        CacheInfo
            Of hits, misses, maxsize and currsize. The program used longest ago goes when there are more than maxsize.
        """
        return CacheInfo(self._hits, self._misses, MOST_PROGRAMS, len(self._programs))

    def clear(self):
        """Forget all programs; the next call records again."""
        self._programs.clear()
        self._hits = self._misses = 0

    def explain(self):
        """What the programs consist of, as text.

        Returns
        -------
        str
            For each program the structure of its arguments, the instructions, which kinds of them there are how
            often, and its memory in bytes.

        Examples
        --------
        >>> import flatgrad
        >>> norm = flatgrad.compile(lambda x, y: (x * x + y * y).sqrt())
        >>> norm(3.0, 4.0).data
        5.0
        >>> print(norm.explain())  # doctest: +ELLIPSIS
        compile(<lambda>): 1 program
          (number, number): 4 instructions (2 *, 1 +, 1 sqrt), 2 operands, 0 captured, 0 constants, ... bytes
        """
        count = len(self._programs)
        lines = [f"compile({name_of(self.fn)}): {count or 'no'} program{'s' * (count != 1)}"]
        for key, program in self._programs.items():
            lines.append(f"  ({', '.join(map(shown, key))}): {program.explain()}")
        return "\n".join(lines)

    def __get__(self, instance, owner=None):
        """For a method: the program of each instance, kept in it, for the parameters are its own."""
        if instance is None:
            return self
        name = "_compiled_" + name_of(self.fn)
        own = getattr(instance, "__dict__", None)
        if own is None:
            raise ArgumentTypeError(f"compile: the method {name_of(self.fn)} of {shortened(instance)} has nowhere to "
                                    "keep its programs: the class has __slots__ and no __dict__")
        bound = own.get(name)
        if not isinstance(bound, Compiled) or bound.fn.__self__ is not instance or bound.fn.__func__ is not self.fn:
            static = tuple(n - (n > 0) for n in self.static_argnums if n != 0)   # `self` is no argument any more
            bound = own[name] = Compiled(self.fn.__get__(instance, owner), static, self.static_argnames, self.check)
        return bound

    def __repr__(self):
        return f"<compiled {name_of(self.fn)}: {len(self._programs)} programs>"

    def __reduce__(self):
        """By name, where that leads here; else without the programs: they are recorded again where it is loaded."""
        found = sys.modules.get(self.__module__)
        for name in getattr(self, "__qualname__", "").split("."):
            found = getattr(found, name, None)
        if found is self:
            return self.__qualname__
        return rebuilt, (self.fn, self.static_argnums, self.static_argnames, self.check)

    def __deepcopy__(self, memo):
        import copy

        return Compiled(copy.deepcopy(self.fn, memo), self.static_argnums, self.static_argnames, self.check)


class Program:
    """One recorded program of a function.

    Parameters
    ----------
    fn : callable
    args, kwargs
        What it is called with to be recorded.
    leaves : list
        The numbers, Values, Tensors and arrays among these that are not static.
    stand_ins : callable
        Of a list of leaves it returns args and kwargs with these in place.
    """

    def __init__(self, fn, args, kwargs, static):
        inputs = []
        with_inputs = functools.partial(replaced, inputs)
        new_args = [x if static(k) or static(k - len(args)) else with_inputs(f"argument {k}", x)
                    for k, x in enumerate(args)]
        new_kwargs = {name: kwargs[name] if static(name) else None for name in kwargs}
        for name in sorted(kwargs):   # in the order of the key
            if not static(name):
                new_kwargs[name] = with_inputs(name, kwargs[name])
        recording = _Recording(inputs)
        with recording:
            result = fn(*new_args, **new_kwargs)
        outputs = []
        self.template = output_template("the result", result, outputs)
        self.core = recording.program(outputs) if outputs else None   # or it is a constant

    def __call__(self, operands):
        return filled(self.template, self.core(operands) if self.core is not None else [])

    def explain(self):
        if self.core is None:
            return "a constant"
        stats = self.core.stats()
        kinds = ", ".join(f"{count} {symbol}" for symbol, count in
                          sorted(stats["instructions"].items(), key=lambda item: (-item[1], item[0])))
        total = sum(stats["instructions"].values())
        return (f"{total} instruction{'s' * (total != 1)}{f' ({kinds})' * bool(kinds)}, {stats['operands']} operands, "
                f"{stats['captured']} captured, {stats['constants']} constants, {stats['bytes']} bytes")


class Hole:
    """Where in the structure of a result the next Value or Tensor goes."""


HOLE = Hole()


# ---- arguments ----

def numbers_of(static_argnums):
    result = static_argnums if isinstance(static_argnums, (tuple, list)) else (static_argnums,)
    for n in result:
        if not isinstance(n, numbers.Integral) or is_bool(n):
            raise ArgumentTypeError("compile: static_argnums: expected an int or a tuple of int, got "
                                    f"{static_argnums!r}")
    return tuple(map(int, result))


def names_of(static_argnames):
    result = static_argnames if isinstance(static_argnames, (tuple, list)) else (static_argnames,)
    for name in result:
        if not isinstance(name, str):
            raise ArgumentTypeError("compile: static_argnames: expected a str or a tuple of str, got "
                                    f"{static_argnames!r}")
    return tuple(result)


def structure(name, x, leaves):
    """What a program depends on of an argument, hashable: all but numbers, which are appended to `leaves`."""
    kind = type(x)
    if kind is float or kind is int:
        leaves.append(x)
        return NUMBER
    if kind is Value:
        leaves.append(x)
        return VALUE
    if kind is Tensor:
        leaves.append(x)
        return ("Tensor", x.shape, x.requires_grad)
    if kind is list or kind is tuple:
        return (kind, *[structure(f"{name}[{k}]", part, leaves) for k, part in enumerate(x)])
    if isinstance(x, dict):
        return (dict, *[(key, structure(f"{name}[{key!r}]", part, leaves)) for key, part in x.items()])
    if isinstance(x, (list, tuple)):   # a namedtuple, or a subclass
        return (kind, *[structure(f"{name}[{k}]", part, leaves) for k, part in enumerate(x)])
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "iufb":
            raise ArgumentTypeError(f"{name}: expected an array of numbers, got one of dtype {x.dtype}")
        if x.ndim > 2 or x.size == 0:
            raise ShapeError(f"{name}: expected an array of at most two dimensions and at least one element, got the "
                             f"shape {x.shape}")
        leaves.append(x)
        return ("array", x.shape)
    if isinstance(x, (Value, Tensor)):
        raise ArgumentTypeError(f"{name}: expected a Value or a Tensor itself, got one of the subclass "
                                f"{kind.__name__}, whose own operators a program would not have")
    if isinstance(x, numbers.Real) and not is_bool(x):
        leaves.append(x)
        return NUMBER
    return static_part(name, x)


NUMBER, VALUE = "number", "Value"


def static_part(name, x):
    """A static argument as part of a key: what is equal, and of the same type, has the same program."""
    try:
        hash(x)
    except TypeError:
        raise ArgumentTypeError(f"{name}: expected a number, a Value, a Tensor, an array, a list, tuple or dict of "
                                f"them, or a static argument, which has to be hashable, got {shortened(x)}") from None
    if isinstance(x, (Value, Tensor)):
        raise ArgumentTypeError(f"{name}: expected a static argument, got {shortened(x)}, which is read at each call")
    return (Static, type(x), x)


class Static:
    """Marks static arguments in a key."""


def replaced(inputs, name, x):
    """An argument with new leaves in place of its numbers; they are appended to `inputs`."""
    if isinstance(x, dict):
        return {key: replaced(inputs, f"{name}[{key!r}]", part) for key, part in x.items()}
    if isinstance(x, (list, tuple)):
        return like(x, [replaced(inputs, f"{name}[{k}]", part) for k, part in enumerate(x)])
    if isinstance(x, Tensor):
        leaf = Tensor(x.data, requires_grad=x.requires_grad)
    elif isinstance(x, np.ndarray) and x.ndim > 0:
        leaf = Tensor(np.asarray(x, np.float64), requires_grad=False)
    elif isinstance(x, Value):
        leaf = Value(x.data)
    elif (isinstance(x, numbers.Real) or isinstance(x, np.ndarray)) and not is_bool(x):
        leaf = Value(exact(name, x))
    else:
        return x
    inputs.append(leaf)
    return leaf


def as_nodes(x):
    """An argument with Values in place of its numbers and Tensors in place of its arrays, as a recording has them."""
    return map_leaves(lambda name, leaf: leaf if isinstance(leaf, (Value, Tensor)) else replaced([], name, leaf), x)


def exact(name, x):
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

def output_template(name, x, outputs):
    """The structure of a result, with holes for the Values and Tensors, which are appended to `outputs`."""
    if isinstance(x, dict):
        return {key: output_template(f"{name}[{key!r}]", part, outputs) for key, part in x.items()}
    if isinstance(x, (list, tuple)):
        return like(x, [output_template(f"{name}[{k}]", part, outputs) for k, part in enumerate(x)])
    if isinstance(x, (Value, Tensor)):
        outputs.append(x)
        return HOLE
    if isinstance(x, np.ndarray) and x.dtype == object:
        raise ArgumentTypeError(f"compile: {name}: expected Values, Tensors, numbers, or lists, tuples and dicts of "
                                f"them, got an array of objects of shape {x.shape}; flatgrad.stack makes a Tensor of "
                                "Values")
    return x   # a constant


def filled(template, results):
    """The template with the results in its holes."""
    if template is HOLE:   # most often
        return results[0]
    rest = iter(results)

    def fill(part):
        if part is HOLE:
            return next(rest)
        if isinstance(part, dict):
            return {key: fill(x) for key, x in part.items()}
        if isinstance(part, (list, tuple)):
            return like(part, [fill(x) for x in part])
        return part

    return fill(template)


# ---- looking at it ----

def name_of(fn):
    return getattr(fn, "__name__", type(fn).__name__)


def shown(key):
    """Part of a key as text."""
    if isinstance(key, str):
        return key
    if key[0] is Static:
        return repr(key[2])
    if key[0] in ("Tensor", "array"):
        return f"{key[0]}{key[1]}"
    if key[0] is dict:
        return "{" + ", ".join(f"{name!r}: {shown(part)}" for name, part in key[1:]) + "}"
    parts = [shown(part) for part in key[1:]]
    if len(parts) > 4 and len(set(parts)) == 1:   # a long list of the same
        parts = [f"{parts[0]} x {len(parts)}"]
    return ("[{}]" if issubclass(key[0], list) else "({})").format(", ".join(parts))


def rebuilt(fn, static_argnums, static_argnames, check):
    return Compiled(fn, static_argnums, static_argnames, check)


def compare(compiled, program, leaves, result, plain):
    """Raise a RecordingError unless the results, and their gradients, are those of the function itself."""
    outputs, expected = leaves_of(result), leaves_of(plain)
    name = f"compile({name_of(compiled.fn)}, check=True)"
    kinds = [[type(x).__name__ for x in several] for several in (outputs, expected)]
    if kinds[0] != kinds[1]:
        raise RecordingError(f"{name}: the program returns {shortened(result)}, the function {shortened(plain)}")
    for k, (got, want) in enumerate(zip(outputs, expected)):
        if isinstance(got, (Value, Tensor)):
            got, want = np.asarray(got.data), np.asarray(want.data)
            if got.shape != want.shape or not np.allclose(got, want, rtol=1e-9, atol=1e-12, equal_nan=True):
                raise RecordingError(f"{name}: result {k} is {shortened(got.tolist())} by the program and "
                                     f"{shortened(want.tolist())} by the function; {STALE}")
        elif not same(got, want):
            raise RecordingError(f"{name}: result {k} is {shortened(got)} by the program and {shortened(want)} by the "
                                 f"function; {STALE}")
    captured = () if program.core is None else program.core.captured
    inputs = [x for x in (*leaves, *captured) if isinstance(x, (Value, Tensor)) and x.requires_grad]
    nodes = [[x for x in several if isinstance(x, (Value, Tensor))] for several in (outputs, expected)]
    if not inputs or not nodes[0]:
        return
    got, want = [derivatives([weighted(several)], inputs) for several in nodes]
    if not np.allclose(got, want, rtol=1e-9, atol=1e-12, equal_nan=True):
        at = int(np.argmax(~np.isclose(got, want, rtol=1e-9, atol=1e-12, equal_nan=True)))
        raise RecordingError(f"{name}: the gradient by number {at} of arguments and captured leaves is {got.flat[at]} "
                             f"by the program and {want.flat[at]} by the function; {STALE}")


STALE = "it depends on something that was recorded as a constant, such as a Python number, or a random one"


def same(x, y):
    if isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
        return isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and np.array_equal(x, y, equal_nan=True)
    return x is y or x == y or x != x and y != y


def weighted(nodes):
    """A sum of all the numbers with weights of their own, so that no two errors cancel."""
    total, weight = Value(0.0), 0.5
    for node in nodes:
        for element in ([node] if isinstance(node, Value) else node.reshape(-1)):
            total = total + weight * element
            weight = 0.5 + (weight * 1.618) % 1.0
    return total
