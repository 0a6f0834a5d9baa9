"""Programs for other engines: what `flatgrad.compile` has recorded, as C, for JAX and PyTorch, and as a function of one
flat vector.

They are reached from a compiled function: its methods ``to_c``, ``to_jax``, ``to_torch`` and its attribute ``flat``.
"""
from flatgrad.arguments import no_attribute

__all__ = []

LOADED_LATER = {"Flat": "flat", "CSource": "c", "to_c": "c", "to_jax": "jax", "to_torch": "torch"}


def __getattr__(name):
    from importlib import import_module

    if name in LOADED_LATER:
        return getattr(import_module(f"flatgrad.export.{LOADED_LATER[name]}"), name)
    raise no_attribute(__name__, name)


def __dir__():
    return sorted({*globals(), *LOADED_LATER})
