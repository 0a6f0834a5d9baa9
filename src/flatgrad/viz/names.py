"""What nodes are called in a picture of a graph, and of which kind they are."""
from __future__ import annotations

from collections.abc import Mapping

from flatgrad._core import Tensor, Value
from flatgrad.arguments import shortened
from flatgrad.errors import ArgumentTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from flatgrad.nn import Module

    Named: TypeAlias = Module | Mapping[str, Value | Tensor] | None   # what users may give

__all__ = ["Names"]


class Names:
    """The names of Values, and whether they are weights or biases.

    Parameters
    ----------
    names : None, object with the method named_parameters, or mapping of str to Value or Tensor
        A Module names its weights and biases. A mapping names any nodes. An element of a Tensor has its position after
        the name.
    """

    known: dict[int, tuple[Value, str, str | None]]

    def __init__(self, names: Any) -> None:
        self.known = {}   # id of a Value -> (the Value, its name, its kind or None)
        if names is None:
            return
        is_module = callable(getattr(names, "named_parameters", None)) and not isinstance(names, type)
        if not is_module and not isinstance(names, Mapping):
            raise ArgumentTypeError("names: expected None, a Module, or a dict of names and Values or Tensors, "
                                    f"got {shortened(names)}")
        for name, item in list(names.named_parameters() if is_module else names.items()):
            kind = None
            if is_module:
                kind = "bias" if name.split("[")[0].split(".")[-1].startswith(("bias", "beta")) else "weight"
            if isinstance(item, Value):
                self.add(name, item, kind)
            elif isinstance(item, Tensor):
                self.add_tensor(str(name), item, kind)
            else:
                raise ArgumentTypeError(f"names[{name!r}]: expected a Value or a Tensor, got {shortened(item)}")

    def add(self, name: str, value: Value, kind: str | None) -> None:
        self.known.setdefault(id(value), (value, str(name), kind))

    def add_tensor(self, name: str, tensor: Any, kind: str | None, place: tuple[int, ...] = ()) -> None:
        for k, item in enumerate(tensor):
            if isinstance(item, Value):
                self.add(f"{name}[{', '.join(map(str, (*place, k)))}]", item, kind)
            else:
                self.add_tensor(name, item, kind, (*place, k))

    def name_of(self, value: Value) -> str:
        """The attribute `label` of a Value, or the name that was given for it, or ''."""
        label = getattr(value, "label", None)
        if label is not None and label != "":
            return str(label)
        return self.known[id(value)][1] if id(value) in self.known else ""

    def kind_of(self, value: Value, is_leaf: bool, is_root: bool) -> str:
        """'result', 'weight', 'bias', 'input' for other leaves, or 'between'."""
        if is_root:
            return "result"
        kind = self.known[id(value)][2] if id(value) in self.known else None
        return kind or ("input" if is_leaf else "between")
