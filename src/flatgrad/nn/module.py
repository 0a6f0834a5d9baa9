"""The base class of models: it finds parameters in attributes, and saves and loads them."""
from __future__ import annotations

import math
import sys
import threading
from collections import namedtuple

from flatgrad._core import Tensor, Value, _buffer_input, _note_read, _refuse_masked, _refuse_recording
from flatgrad.arguments import array_of_numbers, flag, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, ShapeError, StateError

TYPE_CHECKING = False   # typing's own, which takes long to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, NamedTuple

    from typing_extensions import Self

    import numpy as np
    from numpy.typing import NDArray

    from flatgrad._core import _Path
    from flatgrad.nn.hooks import Handle

__all__ = ["Module"]

if TYPE_CHECKING:
    class Keys(NamedTuple):
        missing: list[str]
        unexpected: list[str]
else:
    Keys = namedtuple("Keys", "missing unexpected")


class Mode:
    """The attribute `training`: kept in the module's `__dict__`. A compiled function that reads it is recorded again
    for another mode."""

    def __init__(self, default: bool) -> None:
        self.default = default

    def __get__(self, module: Any, owner: type[Any] | None = None) -> bool:
        if module is None:
            return self.default
        _note_read(module, "training")
        return vars(module).get("training", self.default)

    def __set__(self, module: Any, mode: bool) -> None:
        _refuse_recording("training: assigned to")
        vars(module)["training"] = mode

    def __delete__(self, module: Any) -> None:
        if vars(module).pop("training", None) is None:
            raise AttributeError("training")


class Buffer:   # see also Registered, below
    """An attribute that `buffer_names` has: kept in the module's `__dict__`. In a compiled function it is a Tensor that
    no gradient flows to, read at each call."""

    name: str
    default: object

    def __init__(self, name: str, default: object) -> None:
        self.name, self.default = name, default

    def __get__(self, module: Any, owner: type[Any] | None = None) -> NDArray[Any] | Tensor:
        array = self.default if module is None else vars(module).get(self.name, self.default)
        if array is MISSING:
            raise AttributeError(self.name)
        if module is None or array is None:
            return array
        leaf = _buffer_input(module, self.name, lambda: as_leaf(self.name, array))
        return array if leaf is None else leaf

    def __set__(self, module: Any, array: NDArray[Any]) -> None:
        _refuse_recording(f"{self.name}: a buffer assigned to")
        vars(module)[self.name] = array

    def __delete__(self, module: Any) -> None:
        if self.name not in vars(module):
            raise AttributeError(self.name)
        del vars(module)[self.name]


class ParameterSlot:
    """A parameter of a layer, kept in the layer's `__dict__`. What is none, and so would neither be trained nor saved, is
    refused: a list, an array, a result, a constant."""

    # Without __get__, so that Python reads it as an attribute like any other.
    name: str

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self.name = name

    def __set__(self, module: Any, parameter: Any) -> None:
        if parameter is not None and not (isinstance(parameter, Tensor) and is_parameter(parameter)):
            got, advice = f"{type(parameter).__name__} {shortened(parameter)}", "data = array for other numbers"
            if isinstance(parameter, (Tensor, Value)) and parameter._op:
                got = f"the result of {parameter._op!r}"
            elif isinstance(parameter, Tensor):
                got, advice = "a constant", "requires_grad = False to keep its numbers"
            raise ArgumentTypeError(f"{self.name}: expected a parameter of the {type(module).__name__}, nn.Parameter(array), "
                                    f"or None, got {got}; write {self.name}.{advice}")
        vars(module)[self.name] = parameter

    def __delete__(self, module: Any) -> None:
        if self.name not in vars(module):
            raise AttributeError(self.name)
        del vars(module)[self.name]


def parameter() -> Any:
    """A ParameterSlot, in the body of a class; Any, as an annotation says what an object has there."""
    return ParameterSlot()


MISSING = object()


class Registered(Buffer):
    """A buffer of some modules of a class, which `register_buffer` has made; in others an attribute like any other."""

    def __get__(self, module: Any, owner: type[Any] | None = None) -> Any:
        if module is not None and self.name in vars(module).get(REGISTERED, ()):
            return super().__get__(module, owner)
        if module is None or self.name not in vars(module):
            raise AttributeError(self.name)
        return vars(module)[self.name]

    def __set__(self, module: Any, array: Any) -> None:
        if self.name in vars(module).get(REGISTERED, ()):
            super().__set__(module, array)
        else:
            vars(module)[self.name] = array


REGISTERED = "_registered"   # the attribute with the names of these buffers, also of those that are not saved


def as_leaf(name: str, array: NDArray[Any]) -> Tensor:
    """A Tensor, or a Value, that stands for a buffer while a function is recorded."""
    import numpy as np

    array = np.asarray(array)
    if array.dtype.kind not in "biuf" or array.ndim > 2 or array.size == 0:
        raise ArgumentTypeError(f"{name}: a buffer of dtype {array.dtype} and shape {array.shape}: read while a "
                                "compiled function is recorded; expected an array of numbers of at most two dimensions")
    array = array.astype(float)
    return Tensor(array, requires_grad=False) if array.ndim else Value(array.item())


class Module:
    """The base class of objects with parameters.

    A subclass puts Values, lists of Values, leaf Tensors and other Modules, or lists and dicts of these, into
    attributes. Module finds the parameters there. The subclass defines ``__call__``, or ``forward`` as in PyTorch. If a
    subclass defines `parameters`, as micrograd's classes do, the parameters are the result of this method. A Module may
    have an attribute that leads back to a Module around it, such as a parent; such an attribute is not followed.

    Attributes
    ----------
    fused : bool
        Whether the layers of the model are single instructions. If not, they build micrograd's scalar graph.
    training : bool
        The mode that `train` and `eval` set; initially True.
    buffer_names : tuple of str
        A class attribute: the names of the attributes that are ndarrays and saved with the parameters, such as
        running means.

    Examples
    --------
    >>> from flatgrad import Value
    >>> from flatgrad.nn import Layer, Module
    >>> class Scaled(Module):
    ...     def __init__(self):
    ...         self.layer = Layer(2, 1, activation="linear")
    ...         self.scale = Value(3.0)
    ...     def __call__(self, x):
    ...         return self.layer(x) * self.scale
    >>> model = Scaled()
    >>> [name for name, _ in model.named_parameters()]
    ['scale', 'layer.weight[0, 0]', 'layer.weight[0, 1]', 'layer.bias[0]']
    >>> Module().parameters()
    []
    """

    fused = True
    training: bool = Mode(True)   # type: ignore[assignment]
    buffer_names: tuple[str, ...] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if isinstance(vars(cls).get("training"), bool):
            cls.training = Mode(cls.training)
        names = vars(cls).get("buffer_names", ())
        for name in names if isinstance(names, (tuple, list)) else ():
            present = vars(cls).get(name, MISSING)
            if present is MISSING or not hasattr(type(present), "__get__"):   # of the user's own, such as a property
                setattr(cls, name, Buffer(name, present))

    if TYPE_CHECKING:
        # Subclasses give it the signature that they need.
        __call__: Callable[..., Any]
    else:
        def __call__(self, *inputs, **options):
            """The result of `forward`, for a subclass that defines `forward` and not `__call__`."""
            forward = getattr(self, "forward", None)
            if forward is None:
                raise ArgumentTypeError(f"{type(self).__name__} has no __call__(), and no forward() either")
            return forward(*inputs, **options)

    # ---- hooks ----

    def register_forward_pre_hook(self, hook: Callable[..., Any], *, prepend: bool = False,
                                  with_kwargs: bool = False) -> Handle:
        """Have a function called before each call of the module.

        Parameters
        ----------
        hook : callable
            ``hook(module, args)``, where `args` is the tuple of arguments. It may return other arguments, a tuple or
            the only one. With `with_kwargs`, ``hook(module, args, kwargs)``, which may return a pair of both.
        prepend : bool, optional
            Whether the hook is called before those that are there.
        with_kwargs : bool, optional

        Returns
        -------
        Handle
            Its ``remove()`` removes the hook; so does the end of ``with`` on the handle.

        Raises
        ------
        ArgumentTypeError
            If an argument is not as described.

        Notes
        -----
        Copies and pickles of the module have no hooks. A function of `flatgrad.compile` runs hooks while it is
        recorded, and not when its program is called; `flatgrad.train.Trainer` takes its loop in Python.

        Examples
        --------
        >>> from flatgrad.nn import Linear
        >>> layer = Linear(2, 1)
        >>> with layer.register_forward_pre_hook(lambda module, args: print(*args)):
        ...     _ = layer([1.0, 2.0])
        [1.0, 2.0]
        """
        from flatgrad.nn.hooks import add

        return add(self, "before", hook, flag("prepend", prepend), flag("with_kwargs", with_kwargs))

    def register_forward_hook(self, hook: Callable[..., Any], *, prepend: bool = False,
                              with_kwargs: bool = False) -> Handle:
        """Have a function called after each call of the module.

        Parameters
        ----------
        hook : callable
            ``hook(module, args, output)``, where `args` is the tuple of arguments. It may return another output. With
            `with_kwargs`, ``hook(module, args, kwargs, output)``.
        prepend, with_kwargs
            As for `register_forward_pre_hook`, whose notes hold here too.

        Returns
        -------
        Handle

        Raises
        ------
        ArgumentTypeError
            If an argument is not as described.

        Examples
        --------
        Activations of a network:

        >>> from flatgrad.nn import MLP
        >>> model, seen = MLP(2, [3, 1]), []
        >>> handle = model.layers[0].register_forward_hook(lambda layer, args, out: seen.append(len(out)))
        >>> _ = model([1.0, 2.0])
        >>> handle.remove()
        >>> seen
        [3]
        """
        from flatgrad.nn.hooks import add

        return add(self, "after", hook, flag("prepend", prepend), flag("with_kwargs", with_kwargs))

    # ---- parameters ----

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to 0.

        A backward pass adds to gradients, so call this method before each backward pass.
        """
        parameters = self.parameters()
        try:
            for p in parameters:
                p.grad = 0.0
        except AttributeError:
            raise ArgumentTypeError(f"parameters: expected Values, got {type(p).__name__} {p!r}") from None

    def parameters(self) -> list[Value]:
        """The parameters, in a new list.

        Returns
        -------
        list of Value
            Each parameter once, first those in the module's own attributes. The elements of a Tensor come row by row.
        """
        found = {id(p): p for _, values in own_values(self) for p in flat(values)}
        for _, child in below(self):
            found.update((id(p), p) for p in within(self, child.parameters) if id(p) not in found)
        return list(found.values())

    def named_parameters(self) -> Iterator[tuple[str, Value]]:
        """The parameters with their names, in the order of `parameters`.

        Yields
        ------
        name : str
            The key in the state dict and the place in the array, as in ``'layers.0.weight[3, 1]'``.
        parameter : Value
        """
        parameters = self.parameters()   # keeps the parameters alive, so that no other object gets the id of one
        names = {}
        for key, values in self.named_values():
            check_values(key, values, ())
            for place, p in places(values):
                names.setdefault(id(p), f"{key}[{', '.join(map(str, place))}]" if place else key)
        for k, p in enumerate(parameters):
            yield names.get(id(p), f"parameters[{k}]"), p

    def named_values(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """The parameters as attributes hold them: arrays, with the numbers of `state_dict`.

        Yields
        ------
        key : str
            The path to the parameter; it begins with `prefix`, as in ``'layers.0.weight'``.
        values : Value, Tensor, or (nested) list of Value
        """
        for name, values in own_values(self):
            yield prefix + name, values
        for name, child in below(self):
            yield from within(self, child.named_values, f"{prefix}{name}.")

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Module, str]]:
        """The arrays that are saved with the parameters and not trained, in the manner of `named_values`.

        Yields
        ------
        key : str
        module : Module
        name : str
            The name of the attribute of `module`.
        """
        for name in self.buffer_names:
            yield prefix + name, self, name
        for name, child in below(self):
            yield from within(self, child.named_buffers, f"{prefix}{name}.")

    def buffers(self) -> list[Any]:
        """The arrays of `named_buffers`, in a new list."""
        return [vars(module).get(name, getattr(type(module), name, None)) for _, module, name in self.named_buffers()]

    def register_buffer(self, name: str, tensor: Any, persistent: bool = True) -> None:
        """Make an array an attribute that is saved with the parameters and not trained.

        Parameters
        ----------
        name : str
            The name of the attribute.
        tensor : array_like, Tensor or None
            The numbers; they are copied. None: the attribute is None, and not saved.
        persistent : bool, optional
            Whether the array is part of the state dict.

        Raises
        ------
        ArgumentError, ArgumentTypeError
            If there is another attribute of this name, or an argument is not as described.

        Notes
        -----
        The attribute is an ndarray. A class whose objects all have the buffer names it in `buffer_names` instead.

        Examples
        --------
        >>> from flatgrad.nn import Module
        >>> class Scaled(Module):
        ...     def __init__(self):
        ...         self.register_buffer("scale", [1.0, 2.0])
        ...     def forward(self, x):
        ...         return x * self.scale
        >>> Scaled().state_dict()
        {'scale': array([1., 2.])}
        """
        import numpy as np

        if not isinstance(name, str):
            raise ArgumentTypeError(f"name: expected a str, got {name!r}")
        registered, found = vars(self).get(REGISTERED, ()), vars(type(self)).get(name)
        if not name.isidentifier() or name not in registered and (
                name in vars(self) or not isinstance(found, Registered) and hasattr(type(self), name)):
            raise ArgumentError(f"name: expected a name that no other attribute of the {type(self).__name__} has, got "
                                f"{name!r}")
        persistent = flag("persistent", persistent)
        array = None
        if tensor is not None:
            array = np.array(array_of_numbers(tensor.data if isinstance(tensor, Value) else tensor))
            if array.dtype.kind not in "biuf":
                raise ArgumentTypeError(f"tensor: expected an array of numbers or None, got {shortened(tensor)}")
        _refuse_recording("register_buffer()")
        if not isinstance(found, Registered):
            setattr(type(self), name, Registered(name, MISSING))
        saved = [each for each in self.buffer_names if each != name]
        if persistent and array is not None:
            saved.append(name)
        vars(self).update({name: array, REGISTERED: tuple({*registered, name})})
        if saved != list(self.buffer_names):
            self.buffer_names = tuple(saved)

    # ---- the modules in a module ----

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call a function with each Module in this one, and last with this one.

        Parameters
        ----------
        fn : callable
            Its result is not used.

        Returns
        -------
        Module
            The Module itself.

        Raises
        ------
        ArgumentTypeError
            If `fn` cannot be called.

        Examples
        --------
        >>> from flatgrad.nn import Linear, Sequential, Tanh
        >>> def start(module):
        ...     if isinstance(module, Linear):
        ...         module.bias.data = 0.0
        >>> model = Sequential(Linear(2, 2), Tanh()).apply(start)
        >>> model[0].bias
        Tensor([0., 0.])
        """
        if not callable(fn):
            raise ArgumentTypeError(f"fn: expected a callable, got {fn!r}")
        for _, child in below(self):
            within(self, lambda child=child: [child.apply(fn)])
        fn(self)
        return self

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The Modules in the attributes, and in lists, tuples and dicts in attributes.

        Yields
        ------
        name : str
            A name such as ``'layers.0'``.
        child : Module
        """
        for name, value in list(vars(self).items()):
            if not has_no_modules(value):
                yield from modules_in(name, value)

    def children(self) -> list[Module]:
        """The Modules of `named_children`, in a new list."""
        return [child for _, child in self.named_children()]

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This Module and all Modules in it.

        Yields
        ------
        name : str
            The path to the Module; '' for this Module.
        module : Module
        """
        yield prefix, self
        for name, child in below(self):
            path = f"{prefix}.{name}" if prefix else name
            if is_innermost(child):
                yield path, child
            else:
                yield from within(self, child.named_modules, path)

    def modules(self) -> list[Module]:
        """The Modules of `named_modules`, in a new list."""
        return [module for _, module in self.named_modules()]

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode: Dropout drops numbers, and BatchNorm uses the batch's mean and variance.

        Parameters
        ----------
        mode : bool, optional
            False: like `eval`.

        Returns
        -------
        Module
            The Module itself.
        """
        mode = flag("mode", mode)
        for module in self.modules():
            if module.training is not mode:
                module.training = mode
        return self

    def eval(self) -> Self:
        """Switch to evaluation mode: Dropout drops nothing, and BatchNorm uses its running statistics.

        Returns
        -------
        Module
            The Module itself.
        """
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze the parameters, or make them trainable again.

        Parameters
        ----------
        requires_grad : bool, optional
            False: backward passes no longer change the gradients of the parameters, and optimizers no longer change the
            parameters, even in graphs and optimizers made before.

        Returns
        -------
        Module
            The Module itself.

        Examples
        --------
        >>> from flatgrad.nn import MLP
        >>> model = MLP(2, [3, 1])
        >>> _ = model.layers[0].requires_grad_(False)
        >>> model([1.0, 2.0]).backward()
        >>> [p.grad for p in model.layers[0].parameters()]
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        """
        requires_grad = flag("requires_grad", requires_grad)
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    # ---- saving ----

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """All numbers of the model, as copies.

        Returns
        -------
        dict of str to ndarray
            Weights of a layer as ``'layers.0.weight'``, of the shape ``(nout, nin)`` as in PyTorch; biases as
            ``'layers.0.bias'``; buffers by the names of their attributes.

        Examples
        --------
        >>> from flatgrad.nn import MLP
        >>> {key: array.shape for key, array in MLP(2, [3, 1]).state_dict().items()}
        {'layers.0.weight': (3, 2), 'layers.0.bias': (3,), 'layers.1.weight': (1, 3), 'layers.1.bias': (1,)}
        """
        import numpy as np

        state = {}
        for key, values in self.named_values():
            check_values(key, values, state)
            state[key] = numbers(values)
        for key, module, name in self.named_buffers():
            check_name(key, state)
            state[key] = np.array(getattr(module, name))
        return state

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Keys:
        """Set all numbers of the model from a state dict.

        Parameters
        ----------
        state : dict of str to array_like
        strict : bool, optional
            Whether a missing or an unknown key is an error.

        Returns
        -------
        Keys
            ``(missing, unexpected)``, lists of str; both empty if `strict`.

        Raises
        ------
        StateError
            If the keys or the shapes are not this model's, or if a number does not fit the type of a parameter or
            buffer, such as the int 2**53 + 1. The message names all of them, and the model does not change.
        """
        import numpy as np

        from flatgrad.storage import Stored

        flag("strict", strict)
        if not isinstance(state, Stored):   # the arrays of a file are read after all shapes have been checked
            try:
                state = dict(state)
            except (TypeError, ValueError):
                raise ArgumentTypeError(f"state: expected a dict of arrays, got {shortened(state)}") from None
            # Do first all steps that may run users' code, so that the model does not change after it has been read.
            for key, value in state.items():
                _refuse_masked(f"state[{key!r}]", value)
            state = {key: as_array(value) for key, value in state.items()}
        parameters, buffers = {}, {}
        for key, values in self.named_values():
            check_values(key, values, parameters)
            parameters[key] = values
        for key, module, name in self.named_buffers():
            check_name(key, {**parameters, **buffers})
            buffers[key] = module, name
        shapes = {**{key: shape(values) for key, values in parameters.items()},
                  **{key: np.shape(getattr(module, name)) for key, (module, name) in buffers.items()}}
        keys = Keys([key for key in shapes if key not in state], [key for key in state if key not in shapes])
        problems = []
        if strict:
            problems += [f"{key}: missing" for key in keys.missing]
            problems += [f"{key!s}: not in the model" for key in keys.unexpected]
        given = {key: state[key] for key in shapes if key in state}
        for key, array in given.items():
            if getattr(array, "dtype", np.dtype(object)).kind not in "biuf":
                problems.append(f"{key}: expected an array of numbers, got {shortened(array)}")
            elif as_kernel(array.shape, shapes[key]) != shapes[key]:
                problems.append(f"{key}: expected the shape {shapes[key]}, got {as_kernel(array.shape, shapes[key])}")
        if not problems:
            for key, array in given.items():
                array = np.asarray(array).reshape(shapes[key])
                try:
                    given[key] = as_type(array, np.asarray(getattr(*buffers[key])).dtype if key in buffers
                                         else np.dtype(float))
                except ValueError as error:
                    problems.append(f"{key}: {error}")
        if problems:
            raise StateError("state: expected that of this model: " + "; ".join(problems))
        before = []
        try:
            for key, array in given.items():
                if key in parameters:
                    before.append((assign, parameters[key], numbers(parameters[key])))
                    assign(parameters[key], array)
                else:
                    before.append((setattr, *buffers[key], getattr(*buffers[key])))
                    setattr(*buffers[key], array)
        except BaseException:   # such as an interrupt
            for undo, *arguments in reversed(before):
                try:
                    undo(*arguments)
                except BaseException:   # the first error is the one to raise
                    pass
            raise
        return keys

    def save(self, path: _Path) -> None:
        """Write `state_dict` to a file in NumPy's format ``.npz``, without pickle, completely or not at all.

        Parameters
        ----------
        path : str or path-like
            The path as it is: no ending is added. `flatgrad.storage.write_file` explains links and devices.

        Raises
        ------
        OSError
            If the file cannot be written; a file that was there before does not change.
        """
        from flatgrad.storage import save_arrays

        save_arrays(path, self.state_dict())

    def load(self, path: _Path, strict: bool = True) -> Keys:
        """Set all numbers of the model from a file of `save`, as `load_state_dict` does.

        Parameters
        ----------
        path : str or path-like
        strict : bool, optional

        Returns
        -------
        Keys

        Raises
        ------
        OSError
            If the file cannot be read.
        StateError
            If the file has another format or belongs to another model; the model does not change.

        Examples
        --------
        >>> import os, tempfile
        >>> from flatgrad.nn import MLP
        >>> model, other = MLP(2, [3, 1]), MLP(2, [3, 1])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(os.path.join(folder, "model.npz"))
        ...     _ = other.load(os.path.join(folder, "model.npz"))
        >>> model([1.0, 2.0]).data == other([1.0, 2.0]).data
        True
        """
        from flatgrad.arguments import path_of
        from flatgrad.storage import load_arrays, stored_arrays

        path = path_of("path", path)
        if type(self).load_state_dict is not Module.load_state_dict:   # a method of the user, which takes arrays
            return self.load_state_dict(load_arrays(path), strict)
        with stored_arrays(path, float("inf")) as arrays:   # no limit: reads only as much as the model holds
            return self.load_state_dict(arrays, strict)

    def summary(self) -> str:
        """The parts of the model, as a table.

        Returns
        -------
        str
            A line for each innermost module: its name, its description and the number of its parameters. The last line
            has the sum.

        Examples
        --------
        >>> from flatgrad.nn import MLP
        >>> print(MLP(2, [16, 16, 1]).summary())
        name      module               parameters
        layers.0  Layer(2, 16, relu)           48
        layers.1  Layer(16, 16, relu)         272
        layers.2  Layer(16, 1, linear)         17
        total                                 337
        """
        rows = [("name", "module", "parameters")]
        for name, module, count in self.summary_rows():
            rows.append((name or "-", module, f"{count:,}"))
        rows.append(("total", "", f"{len(self.parameters()):,}"))
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        return "\n".join(f"{name:{widths[0]}}  {module:{widths[1]}}  {count:>{widths[2]}}"
                         for name, module, count in rows)

    def _repr_html_(self) -> str:
        """The table of `summary`, for notebooks."""
        from flatgrad.markup import table

        rows = [(name or "-", module, f"{count:,}") for name, module, count in self.summary_rows()]
        rows.append(("total", "", f"{len(self.parameters()):,}"))
        return table(("name", "module", "parameters"), rows, type(self).__name__, texts=2)

    def summary_rows(self, prefix: str = "") -> Iterator[tuple[str, str, int]]:
        """The lines of `summary`: (name, description, number of parameters)."""
        own = sum(len(flat(values)) for _, values in own_values(self))
        children = below(self)
        if own or not children:
            yield prefix, self.description(), own
        for name, child in children:
            yield from within(self, child.summary_rows, f"{prefix}.{name}" if prefix else name)

    def description(self) -> str:
        """The description of the module in `summary`: its repr if it is short."""
        text = repr(self)
        own = type(self).__repr__ is not object.__repr__
        return text if own and len(text) <= 60 and "\n" not in text else type(self).__name__


# ---- Modules with an attribute that leads back to a Module around them ----

class Entered(threading.local):
    """The Modules whose children are being listed at the moment, outermost first, and the call that lists them."""

    modules: list[Any]

    def __init__(self):
        self.modules = []


entered: Entered = Entered()


def below(module: Any) -> list[Any]:
    """`named_children` without the Modules that are being listed; none if `module` itself is being listed already."""
    while entered.modules:   # an interrupt may have ended a call before it removed its module
        frame = sys._getframe(1)
        while frame is not None and frame is not entered.modules[-1][1]:
            frame = frame.f_back
        if frame is not None:
            break
        entered.modules.pop()
    above = {id(other) for other, _ in entered.modules}
    if id(module) in above:
        return []
    above.add(id(module))
    return [(name, child) for name, child in module.named_children() if id(child) not in above]


def within(module: Any, method: Callable[..., Any], *arguments: Any) -> list[Any]:
    """The result of a method of a Module in this one, as a list; the method does not come back to this Module."""
    entered.modules.append((module, sys._getframe()))
    try:
        return list(method(*arguments))
    finally:
        entered.modules.pop()


# ---- parameters in attributes ----

def is_parameter(value: Any) -> bool:
    return isinstance(value, Value) or (isinstance(value, Tensor) and not value._is_constant and not value._op)


def is_list_of_values(value: Any, above: tuple[Any, ...] = ()) -> bool:
    """Whether `value` is a (nested) list of Values and not empty. A list that contains itself is not."""
    return isinstance(value, (list, tuple)) and len(value) > 0 and id(value) not in above and all(
        isinstance(item, Value) or is_list_of_values(item, (*above, id(value))) for item in value)


def own_values(module: Any) -> list[Any]:
    """(name, values) of the attributes that are parameters."""
    return [found for name, value in vars(module).items() for found in values_in(name, value)]


def values_in(name: str, value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(path, values) of the parameters in an attribute. Of a list with other things, and of a dict, these are leaves: a
    result that is kept there is none."""
    if is_parameter(value) and not (above and value._op) or is_list_of_values(value):
        yield name, value
    elif isinstance(value, (list, tuple, dict)) and id(value) not in above:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from values_in(f"{name}.{key}", item, (*above, id(value)))


SCALARS = frozenset([Value, Tensor, float, int, bool, str, type(None)])


def has_no_modules(value: Any) -> bool:
    """Whether it is one of these, or a list of them, which takes no time to see."""
    kind = type(value)
    return kind in SCALARS or (kind is list or kind is tuple) and SCALARS.issuperset(map(type, value))


def is_innermost(module: Any) -> bool:
    """Whether it is like a Neuron: without Modules in it, and without methods of its own for that."""
    kind = type(module)
    return (kind.named_modules is Module.named_modules and kind.named_children is Module.named_children
            and all(map(has_no_modules, vars(module).values())))


def modules_in(name: str, value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """(path, Module) for a Module, or for the Modules in a list, tuple or dict; a list may contain itself."""
    if isinstance(value, Module):
        yield name, value
    elif isinstance(value, (list, tuple, dict)) and id(value) not in above:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from modules_in(f"{name}.{key}", item, (*above, id(value)))


# ---- arrays of Values: a Value, a Tensor, a (nested) list ----

def flat(values: Value | list[Any] | Tensor) -> list[Value]:
    """The Values, row by row."""
    if isinstance(values, Value):
        return [values]
    return [p for item in values for p in flat(item)]


def places(values: Value | list[Any] | Tensor, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """(index, Value) of each Value."""
    if isinstance(values, Value):
        yield place, values
    else:
        for k, item in enumerate(values):
            yield from places(item, (*place, k))


def check_name(key: str, taken: dict[str, Any] | tuple[()]) -> None:
    """StateError if two parameters have the same name: two keys of a dict may, and one of them would be lost."""
    if key in taken:
        raise StateError(f"{key}: expected one name for each array of the model, got two of this name")


def check_values(key: str, values: Value | list[Any] | Tensor, taken: tuple[()] | dict[str, Any]) -> None:
    """An error if a layer has objects other than Values as parameters, or if two parameters have the same name."""
    check_name(key, taken)
    if not isinstance(values, (Value, Tensor)):
        if not isinstance(values, (list, tuple)):
            raise ArgumentTypeError(f"{key}: expected Values, got {type(values).__name__} {shortened(values)}")
        for item in values:
            check_values(key, item, ())


def shape(values: Value | list[Any] | Tensor) -> tuple[Any, ...]:
    if isinstance(values, Value):
        return ()
    if isinstance(values, Tensor):
        return values.shape
    inner = {shape(item) for item in values}
    if len(inner) != 1:
        raise ShapeError(f"expected rows of one length in a list of Values, got the shapes {sorted(inner)}")
    return (len(values), *inner.pop())


def numbers(values: list[Any] | Value | Tensor) -> NDArray[Any]:
    """The data of the Values as a new array."""
    import numpy as np

    if isinstance(values, Tensor):
        return np.array(values.data)
    return np.array([p.data for p in flat(values)]).reshape(shape(values))


def assign(values: list[Any] | Tensor, array: NDArray[Any]) -> None:
    """Set the data of the Values."""
    if isinstance(values, Tensor):
        values.data = array
    else:
        for p, number in zip(flat(values), array.reshape(-1).tolist()):
            p.data = number


# ---- arrays of a state dict ----

def as_array(x: NDArray[Any] | list[Any]) -> NDArray[Any]:
    """A copy of `x` as an array, or `x` itself if it is no array of numbers."""
    import numpy as np

    try:
        array = np.array(array_of_numbers(x.data if isinstance(x, Value) else x))
        return array if array.dtype.kind in "biuf" else x
    except (TypeError, ValueError, OverflowError):
        return x


def as_kernel(given: tuple[Any, ...], own: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shape `given`; with two dimensions if it may be PyTorch's shape of the convolution weight with shape
    `own`."""
    if len(given) > 2 == len(own) and given[0] == own[0]:
        return given[0], math.prod(given[1:])
    return given


def as_type(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array with this dtype; ValueError if the dtype cannot hold one of its numbers."""
    import numpy as np

    numbers = array.reshape(-1)
    if dtype.kind == "b":
        held, expected = (numbers == 0) | (numbers == 1), "True and False"
    elif dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max // 2   # leaves room for further counting
        held, expected = (numbers == np.floor(numbers)) & (numbers >= low) & (numbers <= high), "whole numbers"
    elif array.dtype.kind in "iu":
        held, expected = (numbers >= -2**53) & (numbers <= 2**53), f"numbers that {dtype} holds exactly"
        held[~held] = [int(float(n)) == n for n in numbers[~held].tolist()]
    else:
        with np.errstate(all="ignore"):
            held = np.isfinite(numbers.astype(dtype)) | ~np.isfinite(numbers)
        expected = f"numbers that {dtype} holds"
    if not held.all():
        raise ValueError(f"expected {expected}, got {numbers[~held][0]!s}")
    return array.astype(dtype)
