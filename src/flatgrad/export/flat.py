"""A compiled function as a function of one flat vector: for SciPy's optimizers, and for other processes.

The vector has the numbers of the parameters, in the order that all exports have. It takes the place of what is on the
tape, so no Value changes and no thread waits for another one.
"""
from __future__ import annotations

import copy
import math
import pickle
import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from flatgrad._core import (Tensor, Value, _attached, _captured_frozen, _captured_numbers, _captured_places, _detached,
                            _differentiated, _Evaluator, _first_repeated, _from_vector, _Hole, _moves, _Same,
                            _to_vector)
from flatgrad.arguments import is_bool, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError, StateError
from flatgrad.export.exported import Exported, leaves_captured, refuse_check, refuse_gradients
from flatgrad.signatures import name_of, parameters_of
from flatgrad.structures import map_leaves

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

    from numpy.typing import ArrayLike, NDArray

    from flatgrad.program import Compiled, Program

__all__ = ["Flat"]

MOST_PLANS = 16   # of one function, for different programs


class Flat:
    """A compiled function as a function of one flat vector of its parameters.

    ``f.flat`` of a function of `flatgrad.compile`.

    Parameters
    ----------
    compiled : Compiled
    leaves : list of Value and Tensor, optional
        The parameters in their order. None: what the function captures, and gradients flow to.
    is_lenient : bool
        As `lenient`.

    Attributes
    ----------
    lenient : Flat
        The same, but it returns nan and inf where this one raises an error, such as for log(-1) or an overflow: for
        optimizers that try points outside of a domain and come back, such as `scipy.optimize.least_squares`.
    theta : ndarray of float64, shape (n,)
        The parameters as they are now, a copy: where an optimizer begins.
    parameters : list of Value and Tensor
        What these numbers are, in their order.
    names : list of str
        The name of each number.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError
        By a call, if an argument is not as described, or if the function returns something else than one number, draws
        random numbers, captures no parameters, or captures the result of an operation, through which gradients would
        flow to what it was computed from; if an argument is a Value or a Tensor that takes a gradient, or the function
        was compiled with ``check=True``; and once it captures other parameters, or some are frozen: ``f.flat`` is then
        another one.
        Where a call of the function itself raises an error, such as one for log(-1), so does this; see `lenient`.

    Notes
    -----
    ``f.flat(theta, *args)`` returns the pair of the function's result, a float, and its gradient, a new array of
    float64. No Value changes, and no gradient of one. Numbers are those of
    ``flatgrad.value_and_grad(f, parameters=...)`` after the parameters were set to `theta`, bit for bit. Python's lock,
    the GIL, is free while it is computed, and any number of threads may call it at the same time.

    The order of the numbers is that in which the parameters were made. It is that of ``model.parameters()``, and so of
    `flatgrad.nn.utils.parameters_to_vector`, if the model makes them in the order in which it returns them, as all of
    `flatgrad.nn` do. `of` takes any other order.

    Everything else that the function captures is a constant of it, and read at each call.

    It can be pickled: the program goes with it, and the numbers that it captures, but not the Python function. The
    process that loads it needs flatgrad and none of the user's code, and computes the same result bit for bit on a
    processor of the same kind, and the same gradient but for rounding, as terms of it may be added up in another order
    there. There it takes arguments of those structures that it has been called with before, or else those of
    the function's last program; at most 16.

    ``copy.copy`` gives the same object, and ``copy.deepcopy`` the Flat of a copy of the function: if that is a method
    of a model, or a model, of a copy of the model.

    A function that was compiled for float32 is computed in float64.

    Examples
    --------
    >>> import flatgrad
    >>> import numpy as np
    >>> from flatgrad import Value
    >>> w, b = Value(1.0), Value(0.0)
    >>> @flatgrad.compile
    ... def loss(x, y):
    ...     return sum((w * s + b - t) ** 2 for s, t in zip(x, y))
    >>> x, y = np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0])
    >>> loss.flat(np.array([1.0, 0.0]), x, y)
    (14.0, array([-16., -12.]))
    >>> loss.flat.theta   # the parameters are as they were
    array([1., 0.])
    >>> loss.flat.hessp(loss.flat.theta, np.array([1.0, 0.0]), x, y)
    array([10.,  6.])

    By SciPy::

        scipy.optimize.minimize(loss.flat, loss.flat.theta, args=(x, y), jac=True, hessp=loss.flat.hessp,
                                method="trust-ncg")
    """

    compiled: Compiled[Any] | Loaded

    origin: Program | None
    moves: int | None
    plans: OrderedDict[Any, Any]
    last: tuple[Any, Any, Any]
    free: Flat | None
    text: bytes | None
    called: OrderedDict[Any, Any]
    is_lenient: bool
    leaves: list[Any] | None
    given: bool

    def __init__(self, compiled: Compiled[Any], leaves: list[Value | Tensor] | None = None,
                 is_lenient: bool = False) -> None:
        refuse_check("flat", compiled)
        self.compiled, self.is_lenient = compiled, is_lenient
        self.leaves, self.given = leaves, leaves is not None
        self.origin = None           # the program that has told of the leaves
        self.moves = None            # when they were last seen to be the ones
        self.plans = OrderedDict()   # by program
        self.last = None, None, None   # the program of the last call, its evaluator, and its `moves`
        self.free = self.text = None   # `lenient`; the names, packed
        self.called = OrderedDict()    # programs that this one, its `lenient` or its `of` was called with; one for all
        self.look = _moves             # what plans depend on

    def __call__(self, theta: ArrayLike, /, *args: Any, **kwargs: Any) -> tuple[float, NDArray[np.float64]]:
        """The result, and its gradient by `theta`."""
        leaves = []
        try:   # first of all this has to be fast
            program = self.compiled._find(self.compiled._key(args, kwargs, leaves))
        except RecursionError:
            program = None
        last, evaluate, moves = self.last
        if program is None or program is not last or self.look() != moves or (
                program is not self.origin and self.has_changed()):
            plan, leaves = self.plan(args, kwargs)
            evaluate = plan.loss()
            if not plan.program.buffers:
                self.last = plan.program, evaluate, plan.moves
        return evaluate(leaves, theta)

    def value(self, theta: ArrayLike, /, *args: Any, **kwargs: Any) -> float:
        """The result alone, a float.

        Parameters
        ----------
        theta : array_like of float, shape (n,)
        *args, **kwargs
            As the function takes them.

        Returns
        -------
        float
        """
        plan, leaves = self.plan(args, kwargs)
        return plan.loss().values(leaves, theta).item()

    def gradient(self, theta: ArrayLike, /, *args: Any, **kwargs: Any) -> NDArray[np.float64]:
        """The gradient alone.

        Parameters
        ----------
        theta : array_like of float, shape (n,)
        *args, **kwargs
            As the function takes them.

        Returns
        -------
        ndarray of float64, shape (n,)
        """
        return self(theta, *args, **kwargs)[1]

    def hessp(self, theta: ArrayLike, p: ArrayLike, /, *args: Any, **kwargs: Any) -> NDArray[np.float64]:
        """The product of the Hessian and a vector, as SciPy's ``hessp``.

        Parameters
        ----------
        theta : array_like of float, shape (n,)
        p : array_like of float, shape (n,)
        *args, **kwargs
            As the function takes them.

        Returns
        -------
        ndarray of float64, shape (n,)

        Notes
        -----
        The first call writes a program for it: of the gradient, and of what its product with `p` gives backwards. That
        takes the time of several gradients, however many parameters there are.
        """
        plan, leaves = self.plan(args, kwargs)
        return plan.hessp(leaves, vector_of("theta", theta, len(plan.places)), vector_of("p", p, len(plan.places)))

    def hessian(self, theta: ArrayLike, /, *args: Any, **kwargs: Any) -> NDArray[np.float64]:
        """All second derivatives.

        Parameters
        ----------
        theta : array_like of float, shape (n,)
        *args, **kwargs
            As the function takes them.

        Returns
        -------
        ndarray of float64, shape (n, n)

        Notes
        -----
        The program of the gradient, and a backward pass through it for each number.
        """
        plan, leaves = self.plan(args, kwargs)
        return plan.hessian(leaves, theta)

    def residuals(self, theta: ArrayLike, /, *args: Any, **kwargs: Any) -> NDArray[np.float64]:
        """All numbers of the result, for a function that returns several.

        Parameters
        ----------
        theta : array_like of float, shape (n,)
        *args, **kwargs
            As the function takes them.

        Returns
        -------
        ndarray of float64, shape (m,)
            In the order of the result, those of a Tensor row by row.
        """
        plan, leaves = self.plan(args, kwargs)
        return plan.results(leaves, theta)

    def jac(self, theta: ArrayLike, /, *args: Any, **kwargs: Any) -> NDArray[np.float64]:
        """The derivative of each of `residuals` by each number of `theta`.

        Parameters
        ----------
        theta : array_like of float, shape (n,)
        *args, **kwargs
            As the function takes them.

        Returns
        -------
        ndarray of float64, shape (m, n)

        Notes
        -----
        Each residual takes a backward pass. If there are at least twice as many as parameters, each parameter takes
        one, through a program of the backward pass.
        """
        plan, leaves = self.plan(args, kwargs)
        return plan.jac(leaves, theta)

    # ---- parameters ----

    @property
    def theta(self) -> NDArray[np.float64]:
        return _to_vector(self.parameters)

    @property
    def parameters(self) -> list[Value | Tensor]:
        if self.leaves is None:
            self.find_leaves(Exported(self.compiled, what="flat").program)
        self.refuse_stale()
        for program in list(self.plans) if self.given else ():   # which know of single numbers that are frozen
            self.planned(program)
        return list(self.leaves)

    @property
    def names(self) -> list[str]:
        parameters = self.parameters
        exported = Exported(self.compiled, what="flat")
        core = exported.program.core
        wanted = [k for k, w in enumerate(_captured_numbers(core)[1]) if w]
        known = dict(zip(wanted, exported.names))
        return [known.get(k, f"parameter {j}") for j, k in enumerate(_captured_places(core, parameters))]

    def of(self, parameters: Iterable[Value | Tensor]) -> Flat:
        """The same for parameters in another order, or for some of them.

        Parameters
        ----------
        parameters : iterable of Value and Tensor
            Such as ``model.parameters()``. What the function captures besides is constant.

        Returns
        -------
        Flat
        """
        made = Flat(self.compiled, checked(parameters), self.is_lenient)
        made.called = self.called
        return made

    @property
    def lenient(self) -> Flat:
        if self.is_lenient:
            return self
        if self.free is None:
            self.free = Flat(self.compiled, self.parameters, True)
            self.free.given, self.free.origin, self.free.called = self.given, self.origin, self.called
        return self.free

    def store(self, theta: ArrayLike) -> None:
        """Set the parameters to the numbers of a vector, as `flatgrad.nn.utils.vector_to_parameters`.

        Parameters
        ----------
        theta : array_like of float, shape (n,)
        """
        parameters = self.parameters
        _from_vector(parameters, vector_of("theta", theta, len(_to_vector(parameters))))

    def find_leaves(self, program: Program) -> None:
        """The parameters, of the first program that is called."""
        name = name_of(self.compiled.fn)
        leaves, _ = captured_leaves(name, program)
        if not leaves:
            raise ArgumentError(f"flat: {name} has captured no number that takes a gradient, such as a parameter of a "
                                "model. flatgrad.value_and_grad is for gradients by arguments")
        self.leaves, self.origin = leaves, program

    def is_stale(self) -> bool:
        """Whether the function is to have another Flat by now."""
        program = self.origin
        return program is not None and (self.compiled._programs.get(program.found_by) is not program
                                        or self.has_changed())

    def refuse_stale(self) -> None:
        """An error if the parameters are others by now."""
        name = name_of(self.compiled.fn)
        if self.has_changed():
            raise ArgumentError(f"flat: {name} captures other parameters by now than before: one was replaced, or its "
                                f"requires_grad was set; take {name}.flat again")
        moves = _moves()
        if not self.given or moves == self.moves:
            return
        frozen = [x for x in self.leaves if not x.requires_grad]
        if frozen:
            raise ArgumentError(f"flat: {name}: expected parameters that require a gradient, as they did before, got "
                                f"{shortened(frozen[0])} with requires_grad=False; take {name}.flat.of(...) again")
        self.moves = moves

    def has_changed(self) -> bool:
        """Whether what has told of the leaves captures others by now."""
        program = self.origin
        if program is None:
            return False
        if program.places and not program.places.hold():
            return True
        moves = _moves()
        if moves == self.moves:   # mostly
            return False
        wanted = [k for k, w in enumerate(_captured_numbers(program.core)[1]) if w]
        if _captured_places(program.core, self.leaves) != wanted:
            return True
        self.moves = moves
        return False

    # ---- programs ----

    def plan(self, args: tuple[Any, ...], kwargs: dict[Any, Any]) -> tuple[Any, Any]:
        """The Plan for these arguments, and the operands of its program."""
        compiled, leaves = self.compiled, []
        try:
            key = compiled._key(args, kwargs, leaves)
        except RecursionError:
            raise ArgumentError(f"flat: {name_of(compiled.fn)}: an argument contains itself, or is nested too "
                                "deeply") from None
        program = compiled._find(key) or compiled._record(key, args, kwargs)
        plan = self.planned(program)
        return plan, plan.operands(leaves)

    def planned(self, program: Program) -> Plan:
        plan = self.plans.get(program)
        if self.leaves is not None:
            self.refuse_stale()
        if plan is not None:
            moves = self.look()
            if moves != plan.moves:
                self.places_of(program)   # for errors: places stay
                plan.moves = moves
        if plan is None:
            check_program(name_of(self.compiled.fn), program)
            refuse_gradients("flat", name_of(self.compiled.fn), program,
                             list((parameters_of(self.compiled.fn) or {}).values()))
            moves = self.look()
            plan = Plan(name_of(self.compiled.fn), program, self.places_of(program), self.is_lenient)
            plan.moves = moves
            for kept, x in (self.plans, plan), (self.called, None):
                kept[program] = x
                if len(kept) > MOST_PLANS:
                    kept.popitem(last=False)
        return plan

    def places_of(self, program: Program) -> list[int]:
        """For each number of the vector its place among those that a program has captured, or -1."""
        name = name_of(self.compiled.fn)
        if self.leaves is None:
            self.find_leaves(program)
        _, wanted = captured_leaves(name, program)
        places = _captured_places(program.core, self.leaves)
        if not self.given and not set(places).issuperset(wanted):
            raise ArgumentError(f"flat: {name} captures other parameters for these arguments than before. "
                                f"{name}.flat.of(parameters) says which there are")
        if max(places) < 0:
            raise ArgumentError(f"flat: {name} captures none of these parameters, for these arguments; "
                                f"{name}.flat.parameters are those that it captures")
        frozen = _captured_frozen(program.core)
        if any(k >= 0 and frozen[k] for k in places):
            raise ArgumentError(f"flat: {name}: expected parameters that require a gradient, as they did before, got "
                                f"one with requires_grad=False; take {name}.flat again")
        return places

    # ---- pickles ----

    def __reduce__(self) -> tuple[Any, ...]:
        compiled = self.compiled
        name = name_of(compiled.fn)
        programs = [program for program in list(self.plans) if compiled._find(program.structure) is program]
        packed = [self.planned(program).packed() for program in programs]
        for program in list(self.called):
            if len(packed) < MOST_PLANS and program not in self.plans and compiled._find(program.structure) is program:
                try:
                    packed.append(self.planned(program).packed())
                except ArgumentError:   # it has none of these parameters, or cannot be pickled: this can without it
                    pass
        if not packed:
            packed = [self.planned(Exported(compiled, what="flat").program).packed()]
        if self.text is None:
            self.text = zlib.compress("\n".join(self.names).encode())
        return restored, (compiled._of_programs, compiled._of_core, name, compiled._numbers, compiled._names,
                          self.theta, self.text, packed)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        """Of a copy of the function: that of a method or a callable object has parameters of its own, and another
        function the same ones."""
        compiled = copy.deepcopy(self.compiled, memo)
        same = compiled.fn is self.compiled.fn
        return Flat(compiled, (self.leaves if same else copy.deepcopy(self.leaves, memo)) if self.given else None,
                    self.is_lenient)

    def __repr__(self) -> str:
        return f"<flat {name_of(self.compiled.fn)}>"


class Loaded(Flat):
    """What a pickle of a `Flat` has become."""

    text: bytes
    look: Callable[..., Any]

    free: None

    def __init__(self, compiled: Any, theta: Any, names: Any, is_lenient: bool) -> None:
        super().__init__(compiled, [Tensor(theta)], is_lenient)
        self.text, self.look = names, nothing

    def of(self, parameters: Iterable[Value | Tensor]) -> NoReturn:
        raise ArgumentError(f"flat.of: {name_of(self.compiled.fn)} was loaded, and has numbers in place of its "
                            "parameters; pickle flat.of(parameters) itself")

    @property
    def lenient(self) -> Flat:
        if self.is_lenient:
            return self
        if self.free is None:
            self.free = Loaded(self.compiled, self.theta, self.text, True)
            self.free.leaves = self.leaves
            for program, plan in self.plans.items():
                self.free.plans[program] = Plan(plan.name, program, plan.places, True, plan.is_number, plan.outputs)
        return self.free

    def __deepcopy__(self, memo: Any) -> Any:
        make, parts = self.__reduce__()
        return make(*parts)

    @property
    def names(self) -> list[str]:
        return decompressed(self.text).decode().split("\n")


def nothing() -> None:
    return None


def decompressed(saved: bytes) -> bytes:
    """What zlib has made smaller; a StateError if that is damaged."""
    try:
        return zlib.decompress(saved)
    except zlib.error as error:
        raise StateError(f"a saved flat function is damaged: {error}") from None


def restored(make: Callable[..., Any], make_program: Callable[..., Any], name: str, numbers: set[Any], names: set[Any],
             theta: ArrayLike, text: bytes, packed: list[tuple[bool | bytes | tuple[Any, ...], ...]]) -> Loaded:
    """The Flat that Flat.__reduce__ describes."""
    plans = [loaded_plan(make_program, name, *parts) for parts in packed]
    made = Loaded(make(name, numbers, names, [plan.program for plan in plans]), theta, text, plans[0].lenient)
    made.plans.update((plan.program, plan) for plan in plans)
    return made


def loaded_plan(make_program: Callable[..., Any], name: str, lenient: bool, structure: tuple[Any], body: bytes,
                shapes: tuple[Any, ...], results: tuple[Any, ...], signs: tuple[()], places: NDArray[Any],
                constants: NDArray[Any], buffers: list[NDArray[Any]], number: bool, outputs: tuple[Any, Any]) -> Plan:
    """A Plan by what `Plan.packed` tells. Those of the last pickles are kept, for a process may load one many times."""
    key = (make_program, name, lenient, structure, body, signs, places.tobytes(), constants.tobytes(),
           *[array.tobytes() for array in buffers], repr((shapes, results, number, outputs)))
    plan = loaded_plans.get(key)
    if plan is None:
        captured = np.zeros(len(constants) + np.count_nonzero(places >= 0))
        free = np.ones(len(captured), bool)
        free[places[places >= 0]] = False
        captured[free] = constants
        core = _attached(pickle.loads(decompressed(body)), shapes, results, signs, captured)
        plan = Plan(name, make_program(structure, core, buffers), places.tolist(), lenient, number, outputs)
        loaded_plans[key] = plan
        if len(loaded_plans) > MOST_PLANS:
            loaded_plans.popitem(last=False)
    return plan


loaded_plans: OrderedDict[Any, Any] = OrderedDict()


class Plan:
    """How one program is evaluated.

    Parameters
    ----------
    name : str
        Of the function.
    program : Program
    places : list of int
        For each number of the vector its place among those that the program has captured, or -1.
    lenient : bool
    number, outputs
        What `is_number` and `outputs_of` tell, where the program does not know its results.
    """

    name: str
    program: Program
    places: list[int]
    lenient: bool

    evaluator: Any
    is_number: bool
    outputs: tuple[Any, Any]
    first: tuple[Any, list[int], Any] | None
    second: tuple[Any, Picked] | None
    columns: tuple[Any, ...] | None
    body: bytes | None
    moves: int | None
    core: Any

    def __init__(self, name: str, program: Program, places: list[int], lenient: bool, number: bool | None = None,
                 outputs: tuple[Any, Any] | None = None) -> None:
        self.name, self.program, self.places, self.core, self.lenient = name, program, places, program.core, lenient
        self.evaluator = self.made(self.core, places)
        self.is_number = is_number(program) if number is None else number
        self.outputs = outputs if outputs is not None else outputs_of(name, program)
        self.first = self.second = self.columns = self.body = None
        self.moves = None   # when `places` were found; None for what has been loaded

    def packed(self) -> tuple[Any, ...]:
        """All that it takes to make it again, but for the numbers of the vector."""
        program, (body, *rest) = self.program, _detached(self.core)
        own = object_in(program.structure)
        if own is not None:
            raise ArgumentError(f"flat: {self.name} was called with the static argument {shortened(own.x)}, which is "
                                "nowhere but in this process: it cannot be pickled")
        if self.body is None:
            self.body = zlib.compress(pickle.dumps(body), 1)
        places = np.array(self.places, np.int32)
        constants = np.delete(np.array(_captured_numbers(self.core)[0]), places[places >= 0])
        buffers = [np.array(getattr(module, name), float) for module, name in program.buffers]
        return (self.lenient, program.structure, self.body, *rest, places, constants, buffers, self.is_number,
                self.outputs)

    def made(self, core: Any, places: list[int], begin: int = 0) -> Any:
        try:
            return _Evaluator(core, [], places=places, begin=begin, lenient=self.lenient)
        except NotImplementedError:
            raise ArgumentError(f"flat: {self.name} calls a function that Python computes, which needs the tape; "
                                "flatgrad.value_and_grad(f, parameters=...) takes it") from None

    def operands(self, leaves: list[Any]) -> list[Any]:
        if self.program.buffers:
            return leaves + [getattr(module, name) for module, name in self.program.buffers]
        return leaves

    def loss(self) -> Any:
        if not self.is_number:
            raise ArgumentError(f"flat: expected a function that returns one number, the loss; {self.name} does not. "
                                "flat.residuals and flat.jac are for several")
        return self.evaluator

    @property
    def wanted(self) -> list[bool]:
        """Of each number that is captured, whether it is one of the vector."""
        of_vector = set(self.places)
        return [k in of_vector for k in range(len(_captured_numbers(self.core)[0]))]

    def gradients(self) -> tuple[Any, list[int], Any]:
        """The program of the result and its gradient; and for each number of the vector which result is its."""
        if self.first is None:
            self.loss()
            core, found = _differentiated(self.core, self.wanted)
            self.first = core, chosen(found, self.places), self.made(core, self.places)
        return self.first

    def hessp(self, leaves: list[Any], theta: Any, p: Any) -> NDArray[np.float64]:
        if self.second is None:
            core, results, _ = self.gradients()
            twice, found = _differentiated(core, self.wanted, True)
            begin = len(_captured_numbers(core)[0])   # of the gradients that the second pass begins with
            evaluator = self.made(twice, self.places + [begin + k if k >= 0 else -1 for k in results])
            self.second = evaluator, Picked(chosen(found, self.places))
        evaluator, picked = self.second
        return picked(evaluator.values(leaves, np.concatenate([theta, p])))

    def hessian(self, leaves: list[Any], theta: Any) -> NDArray[np.float64]:
        _, results, evaluator = self.gradients()
        rows, columns = Picked([k - 1 if k >= 0 else -1 for k in results]), Picked(evaluator.columns)
        table = evaluator.table(leaves, theta, 1)[1] if any(k >= 0 for k in results) else np.zeros((1, 1))
        return columns(rows(table).T).T

    def results(self, leaves: list[Any], theta: Any) -> NDArray[np.float64]:
        places, constants = self.outputs
        results = Picked(places)(self.evaluator.values(leaves, theta))
        return results if constants is None else results + constants

    def jac(self, leaves: list[Any], theta: Any) -> NDArray[np.float64]:
        picked = Picked(self.outputs[0])
        m, n = sum(math.prod(shape) for shape, _ in self.core.results), len(self.places)
        if self.columns is None:
            self.columns = ()
            if m >= 2 * n:
                try:
                    core, found = _differentiated(self.core, self.wanted, True)
                    begin = len(_captured_numbers(self.core)[0])
                    rows = chosen(found, self.places)
                    self.columns = (self.made(core, self.places + list(range(begin, begin + m)), n),
                                    Picked([k - m if k >= 0 else -1 for k in rows]), max(rows) >= 0)
                except ArgumentTypeError:   # of what cannot be differentiated twice
                    pass
        if not self.columns:
            table = self.evaluator.table(leaves, theta)[1]
            return picked(Picked(self.evaluator.columns)(table.T).T)
        evaluator, rows, some = self.columns
        if not some:
            return picked(np.zeros((m, n)))
        table = evaluator.table(leaves, np.concatenate([vector_of("theta", theta, n), np.zeros(m)]), m)[1]
        return picked(rows(table).T)


class Picked:
    """Picks elements, or rows, at these places; zeros for -1."""

    places: NDArray[Any]
    missing: NDArray[Any]

    row: slice | None

    def __init__(self, places: list[int]) -> None:
        self.places = np.array(places, int)
        first = places[0] if places else 0
        in_a_row = first >= 0 and list(places) == list(range(first, first + len(places)))
        self.row = slice(first, first + len(places)) if in_a_row else None
        self.missing = np.flatnonzero(self.places < 0)

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        if self.row is not None:
            return x[self.row]
        x = x[self.places]
        x[self.missing] = 0.0
        return x


def chosen(found: list[int], places: list[int]) -> list[int]:
    """What has been found for the captured number at each place; -1 for none."""
    return [found[k] if k >= 0 else -1 for k in places]


def captured_leaves(name: str, program: Program) -> tuple[Any, Any]:
    """The Values and Tensors that a program has captured and gradients flow to, and the places of their numbers."""
    check_program(name, program)
    return leaves_captured("flat", name, program.core), [k for k, w in enumerate(_captured_numbers(program.core)[1]) if w]


def check_program(name: str, program: Program) -> None:
    if program.core is None:
        raise ArgumentError(f"flat: {name} returns a constant: there is nothing to compute")
    if program.draws is not None:
        raise ArgumentError(f"flat: {name} draws random numbers, and would be another function at each call; give it "
                            "these as an argument")


def is_number(program: Program) -> bool:
    return type(program.template) is _Hole and math.prod(program.core.results[0][0]) == 1


def outputs_of(name: str, program: Program) -> tuple[Any, Any]:
    """For each number that a function returns which result of its program it is, -1 for a constant; and all constants,
    with 0 for the others, or None."""
    shapes = [shape for shape, _ in program.core.results]
    begins = np.cumsum([0] + [math.prod(shape) for shape in shapes]).tolist()
    places, constants = [], []

    def place(_, x):
        if type(x) is _Hole:
            places.extend(range(begins[x.number], begins[x.number + 1]))
            constants.extend([0.0] * math.prod(shapes[x.number]))
        elif isinstance(x, np.ndarray) and x.dtype.kind in "iuf" or isinstance(x, (int, float)) and not is_bool(x):
            numbers = np.ravel(x).tolist()
            places.extend([-1] * len(numbers))
            constants.extend(numbers)
        elif x is not None:
            raise ArgumentError(f"flat: expected a function that returns numbers, Values and Tensors; {name} returns "
                                f"{shortened(x)} as well")

    map_leaves(place, program.template)
    return places, np.array(constants) if any(constants) else None


def object_in(key: Any) -> None:
    """An object in the structure of arguments that is equal to itself alone."""
    if isinstance(key, tuple):
        return next((found for found in map(object_in, key) if found is not None), None)
    return key if type(key) is _Same else None


def vector_of(name: str, x: NDArray[Any] | list[float], count: int) -> NDArray[Any]:
    """An argument as an array of so many numbers."""
    if isinstance(x, (Value, Tensor)):
        raise ArgumentTypeError(f"{name}: expected an array of {count} numbers, got {shortened(x)}, which may take a "
                                f"gradient; write {name}.data")
    try:
        found = np.asarray(x)
    except ValueError:
        found = np.array(None)
    if found.dtype.kind not in "biuf":
        raise ArgumentTypeError(f"{name}: expected an array of {count} real numbers, got {shortened(x)}")
    if found.shape != (count,):
        raise ShapeError(f"{name}: expected an array of shape ({count},), a number for each parameter, got the shape "
                         f"{found.shape}")
    return np.ascontiguousarray(found, np.float64)


def checked(parameters: list[Any]) -> list[Any]:
    """Parameters as a list of Values and Tensors that take a gradient, each once."""
    try:
        found = list(parameters)
    except TypeError:
        raise ArgumentTypeError("flat.of: parameters: expected an iterable of Values and Tensors, got "
                                f"{shortened(parameters)}") from None
    for k, x in enumerate(found):
        if not isinstance(x, (Value, Tensor)):
            raise ArgumentTypeError(f"flat.of: parameters[{k}]: expected a Value or a Tensor, got {shortened(x)}")
        if not x.requires_grad or x._op:
            raise ArgumentError(f"flat.of: parameters[{k}]: expected a leaf that requires a gradient, got "
                                f"{shortened(x)}")
    if not found:
        raise ArgumentError("flat.of: parameters: expected at least one Value or Tensor, got none")
    k = _first_repeated(found)
    if k >= 0:
        raise ArgumentError(f"flat.of: parameters[{k}]: expected each number once, got {shortened(found[k])}, which "
                            "has a number of an earlier one")
    return found
