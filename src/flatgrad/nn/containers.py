"""Parameters and modules in lists and dicts, with PyTorch's keys of the state dict.

A Module finds Modules in plain lists and dicts as well; the classes here have methods of their own, and hold Tensors
too. Their items are attributes, as those of any Module, whose names are the indices or keys.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from reprlib import recursive_repr
from typing import Any

from flatgrad._core import Tensor, Value
from flatgrad.arguments import array_of_numbers, flag, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError
from flatgrad.nn.module import Module, is_parameter

__all__ = ["Parameter", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict"]


class Kind(type):
    """Makes ``isinstance(x, Parameter)`` tell whether a Module would find `x` among its attributes."""

    def __instancecheck__(cls, x: object) -> bool:
        return bool(is_parameter(x))


class Parameter(metaclass=Kind):
    """A new leaf with these numbers: a Value of one number, a Tensor of an array or a list.

    Parameters
    ----------
    data : float, array_like or Tensor
        The numbers, of at most two dimensions. They are copied.
    requires_grad : bool, optional
        False: the parameter is frozen. It is still one of `parameters()`, and in the state dict.

    Returns
    -------
    Value or Tensor

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Notes
    -----
    There is no class of its own for parameters: each leaf Tensor and each Value in an attribute of a Module is one.
    ``isinstance(x, Parameter)`` says whether `x` is a Value or such a Tensor.

    Examples
    --------
    >>> from flatgrad.nn import Parameter
    >>> Parameter([1.0, 2.0]), Parameter(3.0)
    (Tensor([1., 2.]), Value(data=3.0, grad=0.0))
    >>> isinstance(Parameter(3.0), Parameter), Parameter([1.0], requires_grad=False).requires_grad
    (True, False)
    """

    def __new__(cls, data: Any, requires_grad: bool = True) -> Any:
        requires_grad = flag("requires_grad", requires_grad)
        if isinstance(data, Value):
            data = data.data
        array = array_of_numbers(data)
        if array.dtype.kind not in "biuf":
            raise ArgumentTypeError(f"data: expected a number or an array of numbers, got {shortened(data)}")
        made = Tensor(array.astype(float)) if array.ndim else Value(float(array))
        if not requires_grad:
            made.requires_grad = False
        return made


class Items(Module):
    """The base class: items are attributes, and `_holds` says which may be items."""

    def _holds(self, x: object) -> bool:
        return isinstance(x, Module)

    def _names(self) -> list[str]:
        """The names of the items."""
        return [name for name, x in vars(self).items() if self._holds(x)]

    def _checked(self, name: str, x: object) -> Any:
        if not self._holds(x):
            raise ArgumentTypeError(f"{name}: expected {self._what}, got {shortened(x)}")
        return x

    _what = "a Module"

    def __len__(self) -> int:
        return len(self._names())

    @recursive_repr()
    def __repr__(self) -> str:
        items = ", ".join(f"{name}={vars(self)[name]!r}" if not name.isdigit() else repr(vars(self)[name])
                          for name in self._names())
        return f"{type(self).__name__}({items})"


class ModuleList(Items):
    """Modules in a list: their parameters belong to the module that has the list.

    Parameters
    ----------
    modules : iterable of Module, optional

    Raises
    ------
    ArgumentTypeError
        If an item is no Module.

    Examples
    --------
    >>> from flatgrad.nn import Linear, ModuleList
    >>> layers = ModuleList([Linear(2, 3), Linear(3, 1)])
    >>> list(layers.state_dict()), len(layers)
    (['0.weight', '0.bias', '1.weight', '1.bias'], 2)
    """

    def __init__(self, modules: Iterable[Any] | None = None) -> None:
        self.extend(() if modules is None else modules)

    def _names(self) -> list[str]:
        return [name for name in vars(self) if name.isdigit()]

    def _set(self, items: list[Any], name: str = "modules") -> None:
        """Make these the items, in a new order of attributes."""
        checked = {str(k): self._checked(f"{name}[{k}]", x) for k, x in enumerate(items)}
        others = {key: x for key, x in vars(self).items() if not key.isdigit()}
        vars(self).clear()
        vars(self).update(others, **checked)

    def __getitem__(self, k: int | slice) -> Any:
        items = list(self)[k]
        return type(self)(items) if isinstance(k, slice) else items

    def __setitem__(self, k: int, item: Any) -> None:
        items = list(self)
        items[k] = self._checked("item", item)
        self._set(items)

    def __delitem__(self, k: int | slice) -> None:
        items = list(self)
        del items[k]
        self._set(items)

    def __iter__(self) -> Iterator[Any]:
        return iter([vars(self)[name] for name in self._names()])

    def __contains__(self, item: object) -> bool:
        return any(item is each for each in self)

    def append(self, item: Any) -> ModuleList:
        """Add an item at the end, and return the list."""
        return self.extend([item])

    def insert(self, k: int, item: Any) -> None:
        """Add an item before the item `k`."""
        items = list(self)
        items.insert(k, self._checked("item", item))
        self._set(items)

    def extend(self, items: Iterable[Any]) -> ModuleList:
        """Add items at the end, and return the list."""
        try:
            items = list(items)
        except TypeError:
            raise ArgumentTypeError(f"modules: expected an iterable, got {shortened(items)}") from None
        self._set([*self, *items])
        return self


class ParameterList(ModuleList):
    """Parameters in a list, Values and leaf Tensors: a Module does not find Tensors in a plain list.

    Parameters
    ----------
    parameters : iterable of Value and Tensor, optional

    Raises
    ------
    ArgumentTypeError
        If an item is no parameter.

    Examples
    --------
    >>> from flatgrad.nn import Parameter, ParameterList
    >>> weights = ParameterList([Parameter([1.0, 2.0]), Parameter(3.0)])
    >>> len(weights), len(weights.parameters()), list(weights.state_dict())
    (2, 3, ['0', '1'])
    """

    _what = "a Value or a leaf Tensor"

    def __init__(self, parameters: Iterable[Any] | None = None) -> None:
        super().__init__(parameters)

    def _holds(self, x: object) -> bool:
        return bool(is_parameter(x))


class ModuleDict(Items):
    """Modules in a dict: their parameters belong to the module that has the dict.

    Parameters
    ----------
    modules : dict of str to Module, optional

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If a key is no str, contains a dot, is the name of an attribute of the class, or if an item is no Module.

    Examples
    --------
    >>> from flatgrad.nn import Linear, ModuleDict
    >>> parts = ModuleDict({"body": Linear(2, 3), "head": Linear(3, 1, bias=False)})
    >>> list(parts.state_dict()), "head" in parts
    (['body.weight', 'body.bias', 'head.weight'], True)
    """

    def __init__(self, modules: Mapping[str, Any] | None = None) -> None:
        self.update({} if modules is None else modules)

    def _key(self, key: Any) -> str:
        if not isinstance(key, str):
            raise ArgumentTypeError(f"key: expected a str, got {key!r}")
        if not key or "." in key or hasattr(type(self), key):
            raise ArgumentError("key: expected a name without a dot that is no attribute of "
                                f"{type(self).__name__}, got {key!r}")
        return key

    def __getitem__(self, key: str) -> Any:
        if key not in self:
            raise KeyError(key)
        return vars(self)[key]

    def __setitem__(self, key: str, item: Any) -> None:
        self.update({key: item})

    def __delitem__(self, key: str) -> None:
        self.pop(key)

    def __contains__(self, key: object) -> bool:
        return key in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def keys(self) -> list[str]:
        """The keys, in a new list."""
        return self._names()

    def values(self) -> list[Any]:
        """The items, in a new list."""
        return [vars(self)[name] for name in self._names()]

    def items(self) -> list[tuple[str, Any]]:
        """Pairs of key and item, in a new list."""
        return [(name, vars(self)[name]) for name in self._names()]

    def pop(self, key: str) -> Any:
        """Remove an item, and return it."""
        item = self[key]
        del vars(self)[key]
        return item

    def update(self, modules: Mapping[str, Any]) -> None:
        """Add the items of a dict."""
        try:
            pairs = dict(modules)
        except (TypeError, ValueError):
            raise ArgumentTypeError(f"modules: expected a dict, got {shortened(modules)}") from None
        vars(self).update({self._key(key): self._checked(f"modules[{key!r}]", x) for key, x in pairs.items()})


class ParameterDict(ModuleDict):
    """Parameters in a dict, Values and leaf Tensors: a Module does not find them in a plain dict.

    Parameters
    ----------
    parameters : dict of str to Value or Tensor, optional

    Raises
    ------
    ArgumentError, ArgumentTypeError
        As for `ModuleDict`, or if an item is no parameter.

    Examples
    --------
    >>> from flatgrad.nn import Parameter, ParameterDict
    >>> parts = ParameterDict({"scale": Parameter(3.0), "shift": Parameter([1.0, 2.0])})
    >>> parts["scale"].data, [name for name, _ in parts.named_parameters()]
    (3.0, ['scale', 'shift[0]', 'shift[1]'])
    """

    _what = "a Value or a leaf Tensor"

    def __init__(self, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(parameters)

    def _holds(self, x: object) -> bool:
        return bool(is_parameter(x))
