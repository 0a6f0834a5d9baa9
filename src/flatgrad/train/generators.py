"""The random generators in the attributes of a model: what they are, their states, and calls that draw nothing from them."""
from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import numpy as np

from flatgrad.nn.module import Module
from flatgrad.randomness import Random

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["generators", "set_state", "state_of", "undrawn"]


def generators(model: Any) -> Iterator[tuple[str, Any]]:
    """(path, generator) of the random generators in the attributes of a model's modules."""
    if isinstance(model, Module):
        for path, module in model.named_modules():
            for name, rng in own_generators(module):
                yield f"{path}.{name}" if path else name, rng


def own_generators(module: Module) -> Iterator[tuple[str, Any]]:
    """(name, generator) of those in the attributes of one module."""
    for name, value in vars(module).items():
        if isinstance(value, Random):
            name, value = f"{name}.rng", value.rng
        if isinstance(value, (np.random.Generator, random.Random)):
            yield name, value


def state_of(rng: Any) -> Any:
    return rng.getstate() if isinstance(rng, random.Random) else rng.bit_generator.state


def set_state(rng: Any, state: Any) -> None:
    if isinstance(rng, random.Random):
        rng.setstate(state)
    else:
        rng.bit_generator.state = state


@contextlib.contextmanager
def undrawn(modules: list[Module]) -> Iterator[None]:
    """A block, after which the generators of these modules are as they were before: for a trial call."""
    states = [(rng, state_of(rng)) for module in modules for _, rng in own_generators(module)]
    try:
        yield
    finally:
        for rng, state in states:
            set_state(rng, state)
