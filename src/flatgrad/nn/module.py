"""What every model is: something that has parameters, found in its attributes, and can be saved."""
import math
import sys
import threading
from collections import namedtuple

from flatgrad._core import Tensor, Value
from flatgrad.arguments import array_of_numbers, flag, shortened
from flatgrad.errors import ArgumentTypeError, ShapeError, StateError

__all__ = ["Module"]

Keys = namedtuple("Keys", "missing unexpected")


class Module:
    """What has parameters.

    A subclass puts Values, lists of Values, leaf Tensors and other Modules, or lists and dicts of these,
    into attributes, where they are found, and defines ``__call__``, or ``forward`` as in PyTorch. One
    that defines `parameters` by itself, as micrograd's classes do, has what that returns. A Module may lead
    back to one that it is in, as to a parent: there it is not entered again.

    Attributes
    ----------
    fused : bool
        Whether the layers in it are single instructions, and not micrograd's scalar graph.
    training : bool
        What `train` and `eval` set; True at first.
    buffer_names : tuple of str
        Of the class: the attributes that are ndarrays to be saved with the parameters, such as running
        means.

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
    training = True
    buffer_names = ()

    def __call__(self, *inputs):
        """What `forward` returns, for a subclass that defines that and not `__call__`."""
        forward = getattr(self, "forward", None)
        if forward is None:
            raise ArgumentTypeError(f"{type(self).__name__} has no __call__(), and no forward() either")
        return forward(*inputs)

    # ---- parameters ----

    def zero_grad(self):
        """Set the gradient of every parameter to 0.

        A backward pass adds to gradients, so this comes before each one.
        """
        parameters = self.parameters()
        try:
            for p in parameters:
                p.grad = 0.0
        except AttributeError:
            raise ArgumentTypeError(f"parameters: expected Values, got {type(p).__name__} {p!r}") from None

    def parameters(self):
        """The parameters, in a new list.

        Returns
        -------
        list of Value
            Each once, those in the module's own attributes first. The elements of a Tensor row by row.
        """
        found = {id(p): p for _, values in own_values(self) for p in flat(values)}
        for _, child in below(self):
            found.update((id(p), p) for p in within(self, child.parameters) if id(p) not in found)
        return list(found.values())

    def named_parameters(self):
        """The parameters with their names, in the order of `parameters`.

        Yields
        ------
        name : str
            The key of the state dict that has it, and its place there, as in ``'layers.0.weight[3, 1]'``.
        parameter : Value
        """
        parameters = self.parameters()   # held from here on, so that no other object has the id of one
        names = {}
        for key, values in self.named_values():
            check_values(key, values, ())
            for place, p in places(values):
                names.setdefault(id(p), f"{key}[{', '.join(map(str, place))}]" if place else key)
        for k, p in enumerate(parameters):
            yield names.get(id(p), f"parameters[{k}]"), p

    def named_values(self, prefix=""):
        """The parameters as they lie in attributes: arrays, of which `state_dict` has the numbers.

        Yields
        ------
        key : str
            The path to it, beginning with `prefix`, as in ``'layers.0.weight'``.
        values : Value, Tensor, or (nested) list of Value
        """
        for name, values in own_values(self):
            yield prefix + name, values
        for name, child in below(self):
            yield from within(self, child.named_values, f"{prefix}{name}.")

    def named_buffers(self, prefix=""):
        """The arrays that are saved with the parameters and not trained, as `named_values` has those.

        Yields
        ------
        key : str
        module : Module
        name : str
            Of the attribute of `module`.
        """
        for name in self.buffer_names:
            yield prefix + name, self, name
        for name, child in below(self):
            yield from within(self, child.named_buffers, f"{prefix}{name}.")

    # ---- the modules in it ----

    def named_children(self):
        """The Modules in the attributes, and in lists, tuples and dicts there.

        Yields
        ------
        name : str
            As in ``'layers.0'``.
        child : Module
        """
        for name, value in list(vars(self).items()):
            yield from modules_in(name, value)

    def children(self):
        """The Modules of `named_children`, in a new list."""
        return [child for _, child in self.named_children()]

    def named_modules(self, prefix=""):
        """This Module and all in it.

        Yields
        ------
        name : str
            The path to it; '' for this one.
        module : Module
        """
        yield prefix, self
        for name, child in below(self):
            yield from within(self, child.named_modules, f"{prefix}.{name}" if prefix else name)

    def modules(self):
        """The Modules of `named_modules`, in a new list."""
        return [module for _, module in self.named_modules()]

    def train(self, mode=True):
        """Switch to training: dropout drops, and batch norm uses the batch's mean and variance.

        Parameters
        ----------
        mode : bool, optional
            False: as `eval`.

        Returns
        -------
        Module
            This one.
        """
        mode = flag("mode", mode)
        for module in self.modules():
            if module.training is not mode:
                module.training = mode
        return self

    def eval(self):
        """Switch to evaluation: nothing is dropped, and batch norm uses its running statistics.

        Returns
        -------
        Module
            This one.
        """
        return self.train(False)

    def requires_grad_(self, requires_grad=True):
        """Freeze the parameters, or make them trainable again.

        Parameters
        ----------
        requires_grad : bool, optional
            False: backward passes leave the gradients of all parameters as they are, and optimizers the
            parameters, also those that have been made before.

        Returns
        -------
        Module
            This one.

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

    def state_dict(self):
        """All numbers of the model, as copies.

        Returns
        -------
        dict of str to ndarray
            Weights of a layer of the shape ``(nout, nin)`` as ``'layers.0.weight'``, which is PyTorch's
            orientation, biases as ``'layers.0.bias'``; buffers by the names of their attributes.

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

    def load_state_dict(self, state, strict=True):
        """Take over the numbers that `state_dict` gave.

        Parameters
        ----------
        state : dict of str to array_like
        strict : bool, optional
            Whether it is an error if a key is missing, or unknown.

        Returns
        -------
        Keys
            ``(missing, unexpected)``, lists of str; both empty if `strict`.

        Raises
        ------
        StateError
            If the keys or the shapes are not this model's, or there is a number that a parameter or buffer
            cannot hold, such as the int 2**53 + 1; the message names each of them, and the model is as it was.
        """
        import numpy as np

        from flatgrad.storage import Stored

        flag("strict", strict)
        if not isinstance(state, Stored):   # of a file, whose arrays are read once all shapes are right
            try:
                state = dict(state)
            except (TypeError, ValueError):
                raise ArgumentTypeError(f"state: expected a dict of arrays, got {shortened(state)}") from None
            # First what may run code of others, so that what is read of the model afterwards stays as it is.
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
        except BaseException:   # an interrupt, if nothing else
            for undo, *arguments in reversed(before):
                try:
                    undo(*arguments)
                except BaseException:   # the first error is the one to be told
                    pass
            raise
        return keys

    def save(self, path):
        """Write `state_dict` to a file of NumPy's format ``.npz``, without pickle, whole or not at all.

        Parameters
        ----------
        path : str or path-like
            Taken as it is: no ending is added. `flatgrad.storage.write_file` says what becomes of links and devices.

        Raises
        ------
        OSError
            If the file cannot be written; what was there before is as it was.
        """
        from flatgrad.storage import save_arrays

        save_arrays(path, self.state_dict())

    def load(self, path, strict=True):
        """Take over the numbers that `save` wrote, as `load_state_dict` does.

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
            If it is no such file, or of another model; the model is as it was.

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
        if type(self).load_state_dict is not Module.load_state_dict:   # a user's, which takes arrays
            return self.load_state_dict(load_arrays(path), strict)
        with stored_arrays(path, float("inf")) as arrays:   # no more is read than the model has room for
            return self.load_state_dict(arrays, strict)

    def summary(self):
        """What the model is made of, as a table.

        Returns
        -------
        str
            A line for each innermost module: its name, what it is and the number of its parameters; and
            their sum.

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

    def summary_rows(self, prefix=""):
        """What `summary` has a line for: (name, description, number of parameters)."""
        own = sum(len(flat(values)) for _, values in own_values(self))
        children = below(self)
        if own or not children:
            yield prefix, self.description(), own
        for name, child in children:
            yield from within(self, child.summary_rows, f"{prefix}.{name}" if prefix else name)

    def description(self):
        """What `summary` calls the module: its repr if that is short."""
        text = repr(self)
        own = type(self).__repr__ is not object.__repr__
        return text if own and len(text) <= 60 and "\n" not in text else type(self).__name__


# ---- Modules that lead back to where one comes from ----

class Entered(threading.local):
    """The Modules that are asked at the moment what is in them, each in the one before it, and the call that asks."""

    def __init__(self):
        self.modules = []


entered = Entered()


def below(module):
    """`named_children`, but for the Modules in which it is asked itself; none if it is asked once more in itself."""
    while entered.modules:   # an interrupt may have ended a call before it took itself out
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


def within(module, method, *arguments):
    """What a method of a Module in this one returns, as a list: it does not come back to this one."""
    entered.modules.append((module, sys._getframe()))
    try:
        return list(method(*arguments))
    finally:
        entered.modules.pop()


# ---- what lies in attributes ----

def is_parameter(value):
    return isinstance(value, Value) or (isinstance(value, Tensor) and not value._is_constant and not value._op)


def is_list_of_values(value, above=()):
    """Whether it is a (nested) list of Values, and not empty; none that is in itself is."""
    return isinstance(value, (list, tuple)) and len(value) > 0 and id(value) not in above and all(
        isinstance(item, Value) or is_list_of_values(item, (*above, id(value))) for item in value)


def own_values(module):
    """(name, values) of the attributes that are parameters."""
    return [(name, value) for name, value in vars(module).items()
            if is_parameter(value) or is_list_of_values(value)]


def modules_in(name, value, above=()):
    """(path, Module) for a Module, or those in a list, tuple or dict, which may be in itself."""
    if isinstance(value, Module):
        yield name, value
    elif isinstance(value, (list, tuple, dict)) and id(value) not in above:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from modules_in(f"{name}.{key}", item, (*above, id(value)))


# ---- arrays of Values: one, a Tensor, a (nested) list ----

def flat(values):
    """The Values, row by row."""
    if isinstance(values, Value):
        return [values]
    return [p for item in values for p in flat(item)]


def places(values, place=()):
    """(index, Value) of each."""
    if isinstance(values, Value):
        yield place, values
    else:
        for k, item in enumerate(values):
            yield from places(item, (*place, k))


def check_name(key, taken):
    """StateError if two things have one name, as two keys of a dict may have, of which one would get lost."""
    if key in taken:
        raise StateError(f"{key}: expected one name for each array of the model, got two of this name")


def check_values(key, values, taken):
    """An error if there is something else than Values where a layer has its parameters, or two have that name."""
    check_name(key, taken)
    if not isinstance(values, (Value, Tensor)):
        if not isinstance(values, (list, tuple)):
            raise ArgumentTypeError(f"{key}: expected Values, got {type(values).__name__} {shortened(values)}")
        for item in values:
            check_values(key, item, ())


def shape(values):
    if isinstance(values, Value):
        return ()
    if isinstance(values, Tensor):
        return values.shape
    inner = {shape(item) for item in values}
    if len(inner) != 1:
        raise ShapeError(f"expected rows of one length in a list of Values, got the shapes {sorted(inner)}")
    return (len(values), *inner.pop())


def numbers(values):
    """Their data as an array of its own."""
    import numpy as np

    if isinstance(values, Tensor):
        return np.array(values.data)
    return np.array([p.data for p in flat(values)]).reshape(shape(values))


def assign(values, array):
    """Set their data."""
    if isinstance(values, Tensor):
        values.data = array
    else:
        for p, number in zip(flat(values), array.reshape(-1).tolist()):
            p.data = number


# ---- arrays of a state dict ----

def as_array(x):
    """A copy of `x` as an array, or `x` itself if it is none of numbers."""
    import numpy as np

    try:
        array = np.array(array_of_numbers(x.data if isinstance(x, Value) else x))
        return array if array.dtype.kind in "biuf" else x
    except (TypeError, ValueError, OverflowError):
        return x


def as_kernel(given, own):
    """The shape `given`, in two dimensions if it may be PyTorch's of a convolution's weight, of which ours is `own`."""
    if len(given) > 2 == len(own) and given[0] == own[0]:
        return given[0], math.prod(given[1:])
    return given


def as_type(array, dtype):
    """The array as one of that type; ValueError if that does not hold one of its numbers."""
    import numpy as np

    numbers = array.reshape(-1)
    if dtype.kind == "b":
        held, expected = (numbers == 0) | (numbers == 1), "True and False"
    elif dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max // 2   # with room to count on
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
