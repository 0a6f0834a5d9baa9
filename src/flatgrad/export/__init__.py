"""Programs for other engines: what `flatgrad.compile` has recorded, as C, for JAX and PyTorch, and as a function of one
flat vector.

They are reached from a compiled function: its methods ``to_c``, ``to_jax``, ``to_torch`` and its attribute ``flat``.
"""
from __future__ import annotations

from flatgrad.arguments import no_attribute

TYPE_CHECKING = False   # as in flatgrad/__init__.py
if TYPE_CHECKING:
    from flatgrad.export.c import CSource as CSource, to_c as to_c
    from flatgrad.export.flat import Flat as Flat
    from flatgrad.export.jax import to_jax as to_jax
    from flatgrad.export.torch import to_torch as to_torch
    from typing import Any

__all__: list[str] = []

LOADED_LATER: dict[str, str] = {"Flat": "flat", "CSource": "c", "to_c": "c", "to_jax": "jax", "to_torch": "torch"}


if not TYPE_CHECKING:
    def __getattr__(name: Any) -> Any:
        from importlib import import_module

        if name in LOADED_LATER:
            return getattr(import_module(f"flatgrad.export.{LOADED_LATER[name]}"), name)
        raise no_attribute(__name__, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *LOADED_LATER} - {"TYPE_CHECKING"})
