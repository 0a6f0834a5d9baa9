"""Epochs of a training run in compiled code: when that computes the same as the loop in Python, and how it is done.

A model, a loss and a penalty are recorded once, as `flatgrad.compile` does it. The recording stands for their Python
code only if that code does the same at each step. `code_of` decides that by looking at the code.
"""
from __future__ import annotations

import builtins
import dis
import functools
import itertools
import math
from operator import is_
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from flatgrad import losses
from flatgrad._core import Parameters, Tensor, Value, Weights, _Loop, _Places, _Recording, depends
from flatgrad.descent import no_gradient
from flatgrad.errors import ArgumentError, ArgumentTypeError
from flatgrad.nn.dropout import Dropout
from flatgrad.nn.module import REGISTERED, Module, Registered
from flatgrad.optim import LBFGS, OPTIMIZERS, lr_scheduler
from flatgrad.randomness import Random
from flatgrad.train.samples import constant

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad.nn.layers import Layer, MLP, Neuron
    from flatgrad.optim import Adam, SGD
    from flatgrad.train.callbacks import Callbacks
    from flatgrad.train.trainer import Trainer

__all__ = ["CompiledSteps", "NotCompiled", "code_of", "reason_of"]

# What code that is recorded may call of Python's own.
PURE = {getattr(builtins, name) for name in ("abs", "all", "any", "bool", "dict", "divmod", "enumerate", "filter",
                                             "float", "int", "isinstance", "len", "list", "map", "max", "min", "pow",
                                             "range", "reversed", "round", "set", "sorted", "str", "sum", "super",
                                             "tuple", "type", "zip")}

# What does not change, or is read at each step.
PLAIN: set[type[Any]] = {Value, Tensor, float, int, bool, complex, str, bytes, type(None), type(NotImplemented)}

# Functions of this package that tell what the engine is doing.
IMPURE = {"stats", "collect", "scalar_graph"}

# What each class has and a step does not read.
NOT_READ = {"__doc__", "__module__", "__dict__", "__weakref__", "__qualname__", "__annotations__", "__annotate__",
            "__annotate_func__", "__annotations_cache__", "__firstlineno__", "__static_attributes__",
            "__abstractmethods__", "_abc_impl", "__dataclass_fields__", "__dataclass_params__", "__match_args__"}

# Schedules that call functions of a user's, or other schedules.
CALLING = (lr_scheduler.LambdaLR, lr_scheduler.MultiplicativeLR, lr_scheduler.CyclicLR, lr_scheduler.SequentialLR,
           lr_scheduler.ChainedScheduler)

HEAP_TYPE = 1 << 9   # of __flags__: made at run time

# Operations of the interpreter that change more than local variables.
WRITES = ("STORE_ATTR", "STORE_GLOBAL", "STORE_NAME", "STORE_DEREF", "STORE_SUBSCR", "STORE_SLICE", "DELETE_ATTR",
          "DELETE_GLOBAL", "DELETE_SUBSCR", "DELETE_DEREF", "IMPORT_NAME", "YIELD_VALUE", "SETUP_ASYNC_WITH")

# Methods that change their object, or give numbers that are others at each call.
CHANGES = {"append", "extend", "insert", "pop", "popitem", "remove", "clear", "update", "setdefault", "sort", "add",
           "discard", "fill", "put", "train", "eval", "data", "grad", "backward", "zero_grad", "step", "__dict__",
           "__setattr__", "__iadd__", "random", "rng", "manual_seed", "seed", "requires_grad", "_backward", "_prev",
           "label"}


class NotCompiled(Exception):
    """The reason why a fit takes the loop in Python."""


class Code:
    """What recorded code has been found to depend on, besides Values and Tensors."""

    seen: set[int]
    kept: list[Any]
    classes: dict[int, type[Any]]
    dicts: list[tuple[dict[Any, Any], list[Any]]]
    names: list[tuple[Any, Any, Any]]
    objects: list[Any]
    arrays: list[Any]
    places: Any

    def __init__(self):
        self.seen = set()
        self.kept = []        # alive, for their ids to mean something
        self.classes = {}     # by their ids, with those that they inherit from
        self.dicts = []       # (dict, its keys and values)
        self.names = []       # (dict, name, object)
        self.objects = []     # (object, its class)
        self.arrays = []      # (array, copy)
        self.places = _Places()   # neurons, functions, lists, and attributes of objects and classes

    def changed(self) -> bool:
        """Whether anything of it is another than when it was found."""
        return (not self.places.hold()
                or any(type(x) is not kind for x, kind in self.objects)
                or any(not is_same(contents(now), then) for now, then in self.dicts)
                or any(names.get(name, getattr(builtins, name, self)) is not x for names, name, x in self.names)
                or any(x.shape != then.shape or x.tobytes() != then.tobytes() for x, then in self.arrays))

    def enter(self, x: Any, what: str) -> None:
        """Look at an object that code can reach; NotCompiled if it may do something else at each step."""
        kind = type(x)
        if kind in PLAIN or isinstance(x, np.generic | np.dtype) or id(x) in self.seen:
            return
        self.seen.add(id(x))
        self.kept.append(x)
        if isinstance(x, Module):
            what = f"{what.split(', ')[0]}, {kind.__name__},"
            if vars(x).get(REGISTERED):
                raise NotCompiled(f"{what} has buffers of its own, from register_buffer()")
            self.enter_class(kind, what)
            self.note_module(x)
            self.enter_all(attributes_of(x), what)
        elif kind in (list, tuple, dict):
            self.enter_container(x, what)
        elif isinstance(x, losses.Loss | Random):
            self.enter_class(kind, what)
            self.note_attributes(x)
            self.enter_all(attributes_of(x), what)
        elif kind is functools.partial:
            self.enter(x.func, what)
            self.enter(x.args, what)
            self.enter(x.keywords, what)
        elif kind is MethodType:
            self.enter(x.__func__, what)
            self.enter(x.__self__, what)
        elif kind is FunctionType:
            self.places.functions.append((x, x.__code__, x.__defaults__, x.__kwdefaults__))
            if not is_ours(x):
                self.enter_container(vars(x), what)
                self.enter_function(x, what)
        elif kind is BuiltinFunctionType and is_ours(x) and x.__name__ not in IMPURE:
            return
        elif kind is np.ndarray and not x.flags.writeable and not x.dtype.hasobject:
            self.arrays.append((x, x.copy()))
        elif isinstance(x, type):
            self.enter_class(x, what)
        elif kind.__module__ == "flatgrad.loops":   # what vmap has made
            self.enter_all([x.fn, x.in_axes, x.out_axes], what)
        elif is_namespace(kind) or is_plain(kind):
            if not is_namespace(kind):
                self.enter_class(kind, what)
            self.note_attributes(x)
            self.enter_all(attributes_of(x), what)
        elif is_compiled(x):
            raise NotCompiled(f"{what} is or calls a function of flatgrad.compile, which looks at each call whether to "
                              "record again; pass the function itself")
        elif not any(x is pure for pure in PURE):
            raise NotCompiled(f"{what} has a {short(x)}, which may be another at each step")

    def note_module(self, x: MLP | Layer | Neuron) -> None:
        """Note what a module has, without a look at it."""
        self.note_attributes(x)
        if isinstance(x, Weights):
            self.places.note_neuron(x, {id(x.b)})

    def note_attributes(self, x: MLP | Layer | Neuron) -> None:
        self.objects.append((x, type(x)))
        self.places.lists.append((vars(x), tuple(vars(x).values())))

    def enter_container(self, x: list[Any] | dict[Any, Any] | tuple[Any, Any], what: str) -> None:
        contained = contents(x)
        if isinstance(x, dict):
            self.dicts.append((x, contained))
        elif isinstance(x, list):
            self.places.lists.append((x, tuple(contained)))
        self.enter_all(contained, what)

    def enter_all(self, contained: list[Any], what: str) -> None:
        if not set(map(type, contained)) <= PLAIN:   # mostly they are a neuron's weights
            for each in contained:
                self.enter(each, what)

    def enter_class(self, kind: type[Any], what: str) -> None:
        """A class: ours, or one whose methods are looked at."""
        if id(kind) in self.classes or any(kind is pure for pure in PURE) or (
                kind.__module__ == "builtins" and issubclass(kind, Exception)):
            return
        if not (type(kind) is type or is_ours(type(kind))):
            raise NotCompiled(f"{what} has the class {kind.__name__}, which has a metaclass of its own")
        inside = what.rstrip(",")
        for c in kind.__mro__:
            if c is object or id(c) in self.classes:
                continue
            self.classes[id(c)] = c
            self.places.lists.append((vars(c), tuple(vars(c).values())))
            ours = is_ours(c)
            for name, x in list(vars(c).items()):
                if ours and not (type(x) is FunctionType and not is_ours(x)):   # nobody has put it there
                    continue
                if isinstance(x, property):
                    self.enter(x.fget, f"{inside}, {c.__name__}.{name}")
                elif isinstance(x, (staticmethod, classmethod)):
                    self.enter(x.__func__, f"{inside}, {c.__name__}.{name}")
                elif name not in NOT_READ and name not in UNUSED and type(x) is not Registered:
                    self.enter(x, f"{inside}, {c.__name__}.{name}")

    def enter_function(self, function: Callable[..., Any], what: str) -> None:
        code, around = function.__code__, {}
        for name, x in zip(code.co_freevars, function.__closure__ or ()):
            try:
                around[name] = x.cell_contents
            except ValueError:   # not set yet
                raise NotCompiled(f"{what} reads {name!r}, which is not set") from None
            if not isinstance(around[name], ModuleType):
                self.enter(around[name], what)
            self.names.append((Cell(x), "cell_contents", around[name]))
        for x in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.enter(x, what)
        if function.__kwdefaults__:
            self.enter_container(function.__kwdefaults__, what)
        self.enter_code(code, function.__globals__, around, what)

    def enter_code(self, code: CodeType, names: dict[str, Any], around: dict[str, Any], what: str) -> None:
        """Code, which reads globals from `names`; `around` has the variables of the functions around it."""
        operations = list(dis.get_instructions(code))
        for k, op in enumerate(operations):
            local = op.opname.endswith("_DEREF") and op.argval not in around
            if op.opname in WRITES and not local and (op.opname, code.co_name) != ("YIELD_VALUE", "<genexpr>"):
                raise NotCompiled(f"{what} writes {op.argval!r}" if isinstance(op.argval, str)
                                  else f"{what} writes to something")
            if op.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                name = op.argval
                x = names.get(name, getattr(builtins, name, self))
                self.names.append((names, name, x))
                if isinstance(x, ModuleType):
                    self.enter_attributes(x, name, operations[k + 1:], what)
                elif x is self:
                    raise NotCompiled(f"{what} reads {name!r}, which is not there")
                else:
                    self.enter(x, what)
            elif "DEREF" in op.opname and isinstance(around.get(op.argval), ModuleType):
                self.enter_attributes(around[op.argval], op.argval, operations[k + 1:], what)
            elif op.opname in ("LOAD_ATTR", "LOAD_METHOD") and op.argval in CHANGES:
                raise NotCompiled(f"{what} uses {op.argval!r}")
        for constant_ in code.co_consts:
            if isinstance(constant_, CodeType):
                free = {name: x for name, x in around.items() if name in constant_.co_freevars}
                self.enter_code(constant_, names, free, what)

    def enter_attributes(self, x: ModuleType, name: str, operations: list[Any], what: str) -> None:
        """What code takes from a module, by the operations that follow."""
        for op in operations:
            if not is_ours(x) and x is not math:
                raise NotCompiled(f"{what} uses the module {name!r}")
            if op.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                break
            name, module, x = op.argval, x, getattr(x, op.argval, None)
            self.names.append((Attribute(module), name, x))
            if module is math:
                return
            if not isinstance(x, ModuleType):
                self.enter(x, what)
                return
        raise NotCompiled(f"{what} uses the module {name!r}")


# Methods that a step does not call.
UNUSED = {"__init__", "__init_subclass__", "__repr__", "__str__", "_repr_html_", "__new__", "train", "eval", "named_values", "__del__",
          "__getstate__", "__setstate__", "__reduce__", "state_dict", "load_state_dict", "zero_grad", "__replace__"}


class Cell:
    """A variable of a function around, as a dict has one."""

    def __init__(self, cell: Any) -> None:
        self.cell = cell

    def get(self, name: str, default: Code) -> float:
        try:
            return self.cell.cell_contents
        except ValueError:
            return default


class Attribute:
    """The attributes of a module, as a dict has them."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def get(self, name: str, default: Code) -> Callable[..., Any]:
        return getattr(self.module, name, None)


def contents(x: dict[str, Any] | list[Any] | tuple[Any, Any]) -> list[Any]:
    """What a list, a tuple or a dict has, in a list."""
    return list(x) if isinstance(x, (list, tuple)) else [*x.keys(), *x.values()]


def attributes_of(x: MLP | Layer | Neuron) -> list[Any]:
    """The names and the attributes that an object has, but for the generator that it draws from at each step."""
    own = vars(x)
    return contents(own if not isinstance(x, Dropout | Random) else {k: v for k, v in own.items() if k != "rng"})


def is_same(now: list[Any], then: list[Any]) -> bool:
    return len(now) == len(then) and all(map(is_, now, then))


def is_namespace(kind: type[Any]) -> bool:
    """Whether objects of a class have attributes and nothing else; argparse is not imported for that."""
    return kind is SimpleNamespace or (kind.__module__, kind.__qualname__) == ("argparse", "Namespace")


def is_plain(kind: type[Any]) -> bool:
    """Whether a class is a user's, written in Python from the bottom up: its objects have their attributes in a dict."""
    return type(kind) is type and kind.__dictoffset__ != 0 and all(
        c is object or c.__flags__ & HEAP_TYPE and not is_ours(c) and "__slots__" not in vars(c) for c in kind.__mro__)


def is_compiled(x: Callable[..., Any]) -> bool:
    return type(x).__module__ == "flatgrad.program" and hasattr(x, "fn")


def is_ours(x: type[Any] | Callable[..., Any]) -> bool:
    """Whether it is of this package: a module, a class, a function."""
    name = x.__name__ if isinstance(x, ModuleType) else getattr(x, "__module__", None)
    return isinstance(name, str) and (name == "flatgrad" or name.startswith("flatgrad.")) and not hasattr(
        x, "__wrapped__")


def short(x: Callable[..., Any]) -> str:
    if is_compiled(x):
        return getattr(x, "__name__", "")
    return f"{type(x).__name__} {getattr(x, '__name__', '')}".strip()


def told(error: Any) -> Any:
    """An error of a recording, as a reason."""
    text = str(error)
    return f"the recording says: {text}" if text else f"the recording raises {type(error).__name__}"


def code_of(model: MLP, loss: Callable[..., Any], penalty: Callable[..., Any] | None) -> Code:
    """The `Code` of a model, its loss and a penalty; NotCompiled if it may do something else at each step."""
    code = Code()
    if not isinstance(model, Module):
        raise NotCompiled("the model is no Module")
    code.enter(model, "the model")
    code.enter(loss, f"the loss, {short(loss)}")
    if penalty is not None:
        code.enter(penalty, f"the penalty, {short(penalty)}")
    return code


def reason_of(optimizer: Adam | LBFGS | SGD, callbacks: Callbacks) -> str | None:
    """Why a fit with these callbacks has to take the loop in Python, or None. Of models and losses more is known when
    they are recorded."""
    if getattr(optimizer, "_in_python", False) and type(optimizer).__module__.startswith("flatgrad.optim"):
        return f"the optimizer {type(optimizer).__name__} computes its steps with NumPy"
    if type(optimizer) not in (*OPTIMIZERS.values(), LBFGS) or {"step", "zero_grad"} & vars(optimizer).keys():
        return f"the optimizer {type(optimizer).__name__} is not one of flatgrad.optim"
    if optimizer._needs_closure:
        return f"the optimizer {type(optimizer).__name__} evaluates the loss several times in a step"
    if callbacks.on_batch_end:
        return "a callback has on_batch_end"
    return None


def only_ours(trainer: Trainer, callbacks: Callbacks) -> bool:
    """Whether no Python code of others runs between epochs."""
    return (all(is_ours(type(callback)) for callback in callbacks.all)
            and all(map(is_ours, trainer.metrics.values()))
            and (trainer.scheduler is None
                 or is_ours(type(trainer.scheduler)) and not isinstance(trainer.scheduler, CALLING)))


ASKED = 64   # parameters, first of all


def any_depends(loss: Value, optimizer: Adam | SGD) -> bool:
    """Whether a loss depends on one of the parameters that take a gradient: of many the first ones are asked alone, for
    mostly it does."""
    trained = (p for group in optimizer.param_groups for p in group["params"] if p.requires_grad)
    return depends([loss], list(itertools.islice(trained, ASKED))) or depends([loss], list(trained))


class CompiledSteps:
    """The steps of epochs, by programs.

    Parameters
    ----------
    trainer : Trainer
    parts : tuple
        The model, the loss, the penalty and the optimizer that the fit began with.
    X, y : ndarray
        Checked samples and targets.
    size : int
        The number of samples in a batch.
    shuffle : bool
    bounds : tuple
        ``clip_grad_norm`` and ``clip_grad_value`` of the trainer, as the fit began.
    trusted : bool
        Whether the caller says that the code of model, loss and penalty does the same at each step.

    Raises
    ------
    NotCompiled
        If they are not for this.
    RuntimeError
        If `trusted`, and the loss depends on no parameter.
    """

    losses: NDArray[Any]
    size: int

    measured: bool
    only_ours: bool
    n_batches: int
    code: Code
    optimizer: Adam | SGD
    parameters: list[Parameters]
    draws: list[None]
    kept: NDArray[Any] | None
    model: MLP
    loss: Callable[..., Any]
    penalty: Callable[..., Any] | None
    n_samples: int
    y: NDArray[Any]
    loop: Any
    trained: list[tuple[int, int, bool]]
    width: int
    done: int
    diverged: float | None
    shape: tuple[int]

    def __init__(self, trainer: Trainer, parts: tuple[Any, Any, Any, Any], X: NDArray[Any], y: NDArray[Any], size: int,
                 shuffle: bool, bounds: tuple[float | None, float | None], trusted: bool) -> None:
        self.model, self.loss, self.penalty, self.optimizer = parts
        self.trusted = trusted
        self.measured = bool(trainer.metrics)
        self.only_ours = only_ours(trainer, trainer._callbacks)
        self.n_samples, self.size = len(X), size
        self.n_batches = -(-self.n_samples // size)
        by_label = y.dtype == np.int64
        if by_label and trainer._task.kind != "cross_entropy":
            raise NotCompiled(f"the loss is {short(self.loss)}, and of losses that take labels only cross_entropy, as "
                              "loss='cross_entropy' or CrossEntropyLoss, has compiled code")
        if not shuffle:   # as Tensors have their own numbers
            X, y = X.copy(), y.copy()
        self.X, self.y = X, y
        self.code = Code()
        if trusted and isinstance(self.model, Module):
            for module in self.model.modules():
                self.code.note_module(module)
        if not trusted:
            self.code = code_of(self.model, self.loss, self.penalty)
            self.look_at_schedule(trainer)
        optimizer = self.optimizer
        self.parameters = list(optimizer._parameters)
        rows = [size] if self.n_samples % size == 0 else [size, self.n_samples % size]
        columns = [np.ascontiguousarray(X)] + ([] if by_label else [np.ascontiguousarray(y)])
        columns = [column.reshape(self.n_samples, -1) for column in columns]
        places = [[0] if by_label else [0, n * columns[0].shape[1]] for n in rows]
        self.draws = []   # what the programs draw at random
        programs = [self.record(n) for n in rows]
        try:
            self.loop = _Loop(programs, rows, self.n_samples, self.parameters, columns, places, [[] for _ in rows],
                              y if by_label else None, True, self.draws, 0,
                              *(math.inf if bound is None else bound for bound in bounds))
            self.trained = self.loop.look()
        except (ArgumentError, ArgumentTypeError) as error:
            if str(error).startswith("labels:"):
                raise NotCompiled("the loss takes the labels in another way than by one cross_entropy of the whole "
                                  "batch, without weights of classes") from None
            raise NotCompiled(str(error)) from None
        if not trusted and self.code.changed():
            raise NotCompiled("the model, the loss or the penalty changes something when it is called")
        self.kept = np.empty((self.n_samples, self.width)) if self.measured else None
        self.losses = np.empty(self.n_batches)
        self.rates()   # hyperparameters that are wrong are told by the loop in Python

    def look_at_schedule(self, trainer: Trainer) -> None:
        """NotCompiled if a schedule may change after each batch what the steps depend on."""
        if trainer.scheduler_interval == "batch" and isinstance(trainer.scheduler, CALLING):
            for name, x in vars(trainer.scheduler).items():
                for each in x if isinstance(x, (list, tuple)) else [x]:
                    if name != "optimizer" and (callable(each) or hasattr(each, "step")):
                        self.code.enter(each, f"the schedule, {type(trainer.scheduler).__name__},")

    def record(self, rows: int) -> Any:
        """The program of batches of so many samples."""
        inputs = [constant(self.X[:rows])]
        if self.y.dtype != np.int64:
            inputs.append(constant(self.y[:rows]))
        recording = _Recording(inputs)
        try:
            with recording:
                prediction = self.model(inputs[0])
                result = self.loss(prediction, inputs[1] if len(inputs) > 1 else self.y[:rows])
                if self.penalty is not None:
                    result = result + self.penalty(self.model.parameters())
        except (ArgumentError, ArgumentTypeError) as error:
            raise NotCompiled(told(error)) from None
        except Exception as error:   # the loop in Python raises it as well, or it does not come there
            if self.trusted:
                raise
            raise NotCompiled(told(error)) from None
        if recording.refused or recording.buffers:
            raise NotCompiled("the model, the loss or the penalty reads numbers that may be others at each step")
        if not isinstance(result, Value):
            raise NotCompiled("the loss is no Value")
        if not any_depends(result, self.optimizer):
            if self.trusted:
                raise no_gradient()
            raise NotCompiled("the loss depends on no parameter of the optimizer")
        outputs = [result]
        if self.measured:
            if isinstance(prediction, Tensor):
                outputs.append(prediction)
                self.shape = prediction.shape[1:]
            elif isinstance(prediction, list) and all(isinstance(x, Value) for x in prediction):
                outputs += prediction
                self.shape = ()
            else:
                raise NotCompiled("there are metrics, and the outputs are neither a Tensor nor a list of Values")
            self.width = math.prod(self.shape)
        try:
            program = recording.program(outputs)
        except (ArgumentError, ArgumentTypeError) as error:
            raise NotCompiled(told(error)) from None
        self.draws.append(recording.draws)
        del prediction, result, outputs   # the last first, so that the tape just drops them
        return program

    def is_current(self) -> bool:
        """Whether the programs still are what model, loss and penalty do."""
        return (len(self.parameters) == len(self.optimizer._parameters)
                and all(map(is_, self.parameters, self.optimizer._parameters))
                and (self.only_ours or not self.code.changed() and self.finds_leaves()))

    def finds_leaves(self) -> bool:
        """Whether what is updated can be updated by the loop, and takes gradients as it did."""
        try:
            return self.loop.look() == self.trained
        except ArgumentError:   # told by a new recording
            return False

    def rates(self) -> list[float]:
        """The learning rates, after a check of all hyperparameters, as a step of the optimizer does it."""
        optimizer = self.optimizer
        if not Parameters.have(optimizer.param_groups, optimizer._read, optimizer._seen):
            optimizer._prepare()
        return [group["lr"] for group in optimizer._learning_rates()]

    def run(self, steps: int, order: NDArray[Any] | None, losses: NDArray[Any],
            pause: float = math.inf) -> tuple[Any, Any]:
        """Take steps, up to `pause` seconds: how many there were, and the loss that is not finite, if there was one.
        `done` and `diverged` are the same, and there after an error as well."""
        self.done, self.diverged = 0, None
        rates = self.rates()
        try:
            self.diverged = self.loop.run(steps, rates, order, losses, self.kept, pause)[1]
        finally:
            self.done = self.loop.done
        return self.done, self.diverged

    def predictions(self) -> NDArray[Any]:
        """The outputs of the last epoch, as `array_of` gives them."""
        array = self.kept.reshape(self.n_samples, *self.shape).copy()
        return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
