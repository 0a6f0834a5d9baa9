"""Epochs of a training run in compiled code: when that computes the same as the loop in Python, and how it is done.

A model, a loss and a penalty are recorded once, as `flatgrad.compile` does it. The recording stands for their Python
code only if that code does the same at each step. `code_of` decides that by looking at the code.
"""
import builtins
import dis
import functools
import math
import numbers
from operator import is_
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

import numpy as np

from flatgrad import losses
from flatgrad._core import Parameters, Tensor, Value, _Loop, _Recording
from flatgrad.errors import ArgumentError, ArgumentTypeError
from flatgrad.nn.module import Module
from flatgrad.optim import SGD, Adadelta, Adagrad, Adam, AdamW, RMSprop
from flatgrad.train.callbacks import Checkpoint, EarlyStopping
from flatgrad.train.samples import constant

__all__ = ["CompiledSteps", "NotCompiled", "code_of", "reason_of"]

OPTIMIZERS = (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta)

# What code that is recorded may call of Python's own.
PURE = {getattr(builtins, name) for name in ("abs", "all", "any", "bool", "dict", "divmod", "enumerate", "filter",
                                             "float", "int", "isinstance", "len", "list", "map", "max", "min", "pow",
                                             "range", "reversed", "round", "set", "sorted", "str", "sum", "super",
                                             "tuple", "type", "zip")}

PLAIN = {Value, Tensor, float, int, bool, str, type(None)}

# Operations of the interpreter that change more than local variables.
WRITES = ("STORE_ATTR", "STORE_GLOBAL", "STORE_NAME", "STORE_DEREF", "STORE_SUBSCR", "STORE_SLICE", "DELETE_ATTR",
          "DELETE_GLOBAL", "DELETE_SUBSCR", "DELETE_DEREF", "IMPORT_NAME", "YIELD_VALUE", "SETUP_ASYNC_WITH")

# Methods that change their object, or give numbers that are others at each call.
CHANGES = {"append", "extend", "insert", "pop", "popitem", "remove", "clear", "update", "setdefault", "sort", "add",
           "discard", "fill", "put", "train", "eval", "data", "grad", "backward", "zero_grad", "step", "__dict__",
           "__setattr__", "random", "manual_seed", "seed"}


class NotCompiled(Exception):
    """The reason why a fit takes the loop in Python."""


class Code:
    """What recorded code has been found to depend on, besides Values and Tensors."""

    def __init__(self):
        self.seen = set()
        self.kept = []       # alive, for their ids to mean something
        self.containers = []   # (dict or list, what it contains)
        self.names = []      # (dict, name, object)

    def changed(self):
        """Whether anything of it is another than when it was found."""
        return (any(len(now) != len(then) or not all(map(is_, now.values() if isinstance(now, dict) else now, then))
                    for now, then in self.containers)
                or any(names.get(name, self) is not x for names, name, x in self.names))

    def enter(self, x, what):
        """Look at an object that code can reach; NotCompiled if it may do something else at each step."""
        if x is None or isinstance(x, (numbers.Number, str, Value, Tensor, np.dtype)) or id(x) in self.seen:
            return
        self.seen.add(id(x))
        self.kept.append(x)
        kind = type(x)
        if isinstance(x, Module):
            what = f"{what.split(', ')[0]}, {kind.__name__},"
            self.enter_class(kind, what)
            self.enter_container(vars(x), what)
        elif kind in (list, tuple, dict):
            self.enter_container(x, what)
        elif isinstance(x, losses.Loss):
            self.enter_class(kind, what)
            self.enter_container(vars(x), what)
        elif kind is functools.partial:
            self.enter(x.func, what)
            self.enter(x.args, what)
            self.enter(x.keywords, what)
        elif kind is MethodType:
            self.enter(x.__func__, what)
            self.enter(x.__self__, what)
        elif is_ours(x) or kind is BuiltinFunctionType and is_ours(kind):
            return
        elif kind is FunctionType:
            self.enter_function(x, what)
        elif kind is np.ndarray and not x.flags.writeable:
            return
        elif isinstance(x, type):
            self.enter_class(x, what)
        elif not any(x is pure for pure in PURE):
            raise NotCompiled(f"{what} has a {short(x)}, which may be another at each step")

    def enter_container(self, x, what):
        contained = list(x.values()) if isinstance(x, dict) else list(x)
        if not isinstance(x, tuple):
            self.containers.append((x, contained))
        if not set(map(type, contained)) <= PLAIN:   # mostly they are a neuron's weights
            for each in contained:
                self.enter(each, what)

    def enter_class(self, kind, what):
        """A class of modules or losses: ours, or one whose methods are looked at."""
        if any(kind is pure for pure in PURE) or id(kind) in self.seen and is_ours(kind):
            return
        for c in kind.__mro__:
            if c is object or is_ours(c):
                break
            if id(c) in self.seen and c is not kind:
                continue
            self.seen.add(id(c))
            self.kept.append(c)
            for name, x in vars(c).items():
                if isinstance(x, property):
                    self.enter(x.fget, f"{what}, {c.__name__}.{name}")
                elif isinstance(x, (staticmethod, classmethod)):
                    self.enter(x.__func__, f"{what}, {c.__name__}.{name}")
                elif isinstance(x, FunctionType) and name not in UNUSED:
                    self.enter(x, f"{what}, {c.__name__}.{name}")
                elif not (name.startswith("__") and name.endswith("__")) and not callable(x):
                    self.enter(x, f"{what}, {c.__name__}.{name}")

    def enter_function(self, function, what):
        code = function.__code__
        for name, x in zip(code.co_freevars, function.__closure__ or ()):
            try:
                self.enter(x.cell_contents, what)
            except ValueError:   # not set yet
                raise NotCompiled(f"{what} reads {name!r}, which is not set") from None
            self.names.append((Cell(x), "cell_contents", x.cell_contents))
        for x in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.enter(x, what)
        self.enter_code(code, function.__globals__, what)

    def enter_code(self, code, names, what):
        for op in dis.get_instructions(code):
            if op.opname in WRITES:
                raise NotCompiled(f"{what} writes {op.argval!r}" if isinstance(op.argval, str)
                                  else f"{what} writes to something")
            if op.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                name = op.argval
                x = names.get(name, getattr(builtins, name, self))
                if isinstance(x, ModuleType):
                    if not is_ours(x) and x is not math:
                        raise NotCompiled(f"{what} uses the module {name!r}")
                elif x is self:
                    raise NotCompiled(f"{what} reads {name!r}, which is not there")
                else:
                    self.enter(x, what)
                self.names.append((names if name in names else vars(builtins), name, x))
            elif op.opname in ("LOAD_ATTR", "LOAD_METHOD") and op.argval in CHANGES:
                raise NotCompiled(f"{what} uses {op.argval!r}")
        for constant_ in code.co_consts:
            if isinstance(constant_, CodeType):
                self.enter_code(constant_, names, what)


# Methods that a step does not call.
UNUSED = {"__init__", "__init_subclass__", "__repr__", "__str__", "__new__", "train", "eval", "named_values", "__del__",
          "__getstate__", "__setstate__", "__reduce__", "state_dict", "load_state_dict", "zero_grad"}


class Cell:
    """A variable of a function around, as a dict has one."""

    def __init__(self, cell):
        self.cell = cell

    def get(self, name, default):
        try:
            return self.cell.cell_contents
        except ValueError:
            return default


def is_ours(x):
    """Whether it is of this package: a module, a class, a function."""
    name = x.__name__ if isinstance(x, ModuleType) else getattr(x, "__module__", None)
    return isinstance(name, str) and (name == "flatgrad" or name.startswith("flatgrad.")) and not hasattr(
        x, "__wrapped__")


def short(x):
    return f"{type(x).__name__} {getattr(x, '__name__', '')}".strip()


def code_of(model, loss, penalty):
    """The `Code` of a model, its loss and a penalty; NotCompiled if it may do something else at each step."""
    code = Code()
    if not isinstance(model, Module):
        raise NotCompiled("the model is no Module")
    code.enter(model, "the model")
    code.enter(loss, f"the loss, {short(loss)}")
    if penalty is not None:
        code.enter(penalty, f"the penalty, {short(penalty)}")
    return code


def reason_of(trainer, callbacks):
    """Why a fit with these callbacks has to take the loop in Python, or None. Of models and losses more is known when
    they are recorded."""
    optimizer = trainer.optimizer
    if type(optimizer) not in OPTIMIZERS or {"step", "zero_grad"} & vars(optimizer).keys():
        return f"the optimizer {type(optimizer).__name__} is not one of flatgrad.optim"
    if callbacks.on_batch_end:
        return "a callback has on_batch_end"
    return None


def only_ours(trainer, callbacks):
    """Whether no Python code of others runs between epochs."""
    return (all(type(callback) in (Checkpoint, EarlyStopping) for callback in callbacks.all)
            and all(map(is_ours, trainer.metrics.values()))
            and (trainer.scheduler is None or is_ours(type(trainer.scheduler))))


class CompiledSteps:
    """The steps of epochs, by programs.

    Parameters
    ----------
    trainer : Trainer
    X, y : ndarray
        Checked samples and targets.
    size : int
        The number of samples in a batch.
    shuffle : bool
    trusted : bool
        Whether the caller says that the code of model, loss and penalty does the same at each step.

    Raises
    ------
    NotCompiled
        If they are not for this.
    """

    def __init__(self, trainer, X, y, size, shuffle, trusted):
        self.model, self.loss, self.penalty = trainer.model, trainer._task.loss, trainer.penalty
        self.optimizer = trainer.optimizer
        self.measured = bool(trainer.metrics)
        self.only_ours = only_ours(trainer, trainer._callbacks)
        self.n_samples, self.size = len(X), size
        self.n_batches = -(-self.n_samples // size)
        by_label = y.dtype == np.int64
        if by_label and trainer._task.kind != "cross_entropy":
            raise NotCompiled("the labels are not those of cross_entropy")
        if not shuffle:   # as Tensors have their own numbers
            X, y = X.copy(), y.copy()
        self.X, self.y = X, y
        self.code = Code()
        if isinstance(self.model, Module):
            for module in trainer.model.modules():
                self.code.containers.append((vars(module), list(vars(module).values())))
        if not trusted:
            self.code = code_of(self.model, self.loss, self.penalty)
        optimizer = self.optimizer
        self.parameters = list(optimizer._parameters)
        rows = [size] if self.n_samples % size == 0 else [size, self.n_samples % size]
        columns = [np.ascontiguousarray(X)] + ([] if by_label else [np.ascontiguousarray(y)])
        columns = [column.reshape(self.n_samples, -1) for column in columns]
        places = [[0] if by_label else [0, n * columns[0].shape[1]] for n in rows]
        programs = [self.record(n) for n in rows]
        try:
            self.loop = _Loop(programs, rows, self.n_samples, self.parameters, columns, places, [[] for _ in rows],
                              y if by_label else None, True)
        except (ArgumentError, ArgumentTypeError) as error:
            raise NotCompiled(str(error)) from None
        self.kept = np.empty((self.n_samples, self.width)) if self.measured else None
        self.losses = np.empty(self.n_batches)
        self.rates()   # hyperparameters that are wrong are told by the loop in Python

    def record(self, rows):
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
            raise NotCompiled(str(error).split(":")[0]) from None
        if recording.refused or recording.buffers:
            raise NotCompiled("the model, the loss or the penalty reads numbers that may be others at each step")
        if not isinstance(result, Value):
            raise NotCompiled("the loss is no Value")
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
            raise NotCompiled(str(error).split(":")[0]) from None
        del prediction, result, outputs   # the last first, so that the tape just drops them
        return program

    def is_current(self):
        """Whether the programs still are what model, loss and penalty do."""
        return (len(self.parameters) == len(self.optimizer._parameters)
                and all(map(is_, self.parameters, self.optimizer._parameters))
                and (self.only_ours or not self.code.changed()))

    def rates(self):
        """The learning rates, after a check of all hyperparameters, as a step of the optimizer does it."""
        optimizer = self.optimizer
        if not Parameters.have(optimizer.param_groups, optimizer._read, optimizer._seen):
            optimizer._prepare()
        return [group["lr"] for group in optimizer._learning_rates()]

    def run(self, steps, order, losses, pause=math.inf):
        """Take steps, up to `pause` seconds: how many there were, and the loss that is not finite, if there was one.
        `done` and `diverged` are the same, and there after an error as well."""
        self.done, self.diverged = 0, None
        rates = self.rates()
        try:
            self.diverged = self.loop.run(steps, rates, order, losses, self.kept, pause)[1]
        finally:
            self.done = self.loop.done
        return self.done, self.diverged

    def predictions(self):
        """The outputs of the last epoch, as `array_of` gives them."""
        array = self.kept.reshape(self.n_samples, *self.shape).copy()
        return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
