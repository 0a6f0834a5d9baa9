"""What a checkpoint of a Trainer holds, and how a Trainer goes on from it: completely or not at all."""
from __future__ import annotations

import contextlib
import random
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from flatgrad.arguments import shortened, whole
from flatgrad.errors import ArgumentTypeError, StateError
from flatgrad.train.callbacks import Callbacks, checked, checked_states, epoch_number
from flatgrad.train.generators import generators, set_state, state_of
from flatgrad.train.history import History

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad.train.trainer import Trainer

__all__ = ["load_state", "state_of_trainer"]


def state_of_trainer(trainer: Trainer) -> dict[str, Any]:
    """The state dicts of all parts, the random generators, the history and the counts."""
    parts = {"model": trainer.model, "optimizer": trainer.optimizer, "scheduler": trainer.scheduler}
    for name, part in parts.items():
        if part is not None and not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
            raise ArgumentTypeError(f"{name}: expected one with state_dict() and load_state_dict(), got {part!r}")
    running = trainer._callbacks.states() or trainer._counted
    return {
        **{name: None if part is None else part.state_dict() for name, part in parts.items()},
        "classes": {name: type(part).__name__ for name, part in parts.items()},
        "generators": {name: state_of(rng) for name, rng in generators(trainer.model)},
        "history": {name: np.array(numbers) for name, numbers in trainer.history.metrics.items()},
        "epochs": np.array(trainer.history.epochs, np.int64),
        "epoch": trainer.epoch, "seed": trainer.seed, "callbacks": list(running),
    }


def load_state(trainer: Trainer, tree: Any, own: dict[str, Any]) -> None:
    """Load the result of `state_of_trainer`; on any error go back to `own`, the current state."""
    expect_dict("the checkpoint", tree, own)
    expect_dict("classes", tree["classes"], own["classes"])
    for name in ("optimizer", "scheduler"):
        kind = tree["classes"][name]
        if kind != own["classes"][name]:
            raise StateError(f"{name}: expected the state of {article(own['classes'][name])}, got that of "
                             f"{article(kind) if isinstance(kind, str) else repr(kind)}")
    rngs = dict(generators(trainer.model))
    if not isinstance(tree["generators"], dict) or rngs.keys() != tree["generators"].keys():
        given = tree["generators"]
        raise StateError(f"model: expected the generators {list(rngs)}, got "
                         f"{list(given) if isinstance(given, dict) else shortened(given)}")
    epoch = epoch_number("epoch", tree["epoch"])
    seed: Any = None if tree["seed"] is None else checked(whole, "seed", tree["seed"])
    history = history_from(tree["epochs"], tree["history"], epoch)
    counted = checked_states(tree["callbacks"], tree["model"])
    for name, rng in rngs.items():
        check_generator(f"generators[{name!r}]", rng, tree["generators"][name])
    parts = [(part.load_state_dict, tree[name], own[name]) for name, part in
             (("model", trainer.model), ("optimizer", trainer.optimizer), ("scheduler", trainer.scheduler))
             if part is not None]
    parts += [(partial(set_state, rng), tree["generators"][name], own["generators"][name])
              for name, rng in rngs.items()]
    begun, callbacks = [], Callbacks(())
    try:
        for load, state, before in parts:
            begun.append((load, before))
            load(state)
        vars(trainer).update(history=history, epoch=epoch, seed=seed, _callbacks=callbacks, _counted=counted)   # all or none
    except BaseException:
        for load, before in begun:   # in this order, because a scheduler reads its optimizer
            with contextlib.suppress(BaseException):   # the first error is the one to raise
                load(before)
        raise


def article(name: Any) -> Any:
    return "none" if name == "NoneType" else f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"


# ---- checks of a checkpoint ----

def expect_dict(name: str, x: dict[str, Any], own: dict[str, Any]) -> None:
    """StateError if `x` is no dict with the keys of `own`."""
    if not isinstance(x, dict) or x.keys() != own.keys():
        given = list(x) if isinstance(x, dict) else x
        raise StateError(f"{name}: expected the keys {list(own)}, got {shortened(given)}")


def history_from(epochs: NDArray[Any], metrics: dict[str, NDArray[Any]], last: int) -> History:
    """The History of epochs up to `last`."""
    if not isinstance(epochs, np.ndarray) or epochs.ndim != 1 or epochs.dtype.kind not in "iu":
        raise StateError(f"epochs: expected an array of ints with one dimension, got {shortened(epochs)}")
    history = History()
    history.epochs = epochs.tolist()
    for before, k in zip([0, *history.epochs], history.epochs):
        if not before < k <= last:
            raise StateError(f"epochs: expected numbers that rise from 1 to {last} at most, got {k} after {before}")
    if not isinstance(metrics, dict):
        raise StateError(f"history: expected a dict of arrays, got {shortened(metrics)}")
    for name, numbers in metrics.items():
        if not isinstance(name, str):
            raise StateError(f"history: expected names, got {shortened(name)}")
        if not isinstance(numbers, np.ndarray) or numbers.shape != epochs.shape or numbers.dtype.kind not in "biuf":
            raise StateError(f"history[{name!r}]: expected an array of {len(epochs)} numbers, got {shortened(numbers)}")
        history.metrics[name] = numbers.tolist()
    return history


def check_generator(name: Any, rng: Any, state: Any) -> None:
    """StateError for wrong states that `random` and `numpy.random` would accept."""
    if isinstance(rng, random.Random):
        right = isinstance(state, tuple) and len(state) == 3 and isinstance(state[2], (float, type(None)))
    else:
        right = isinstance(state, dict) and state.get("bit_generator") == rng.bit_generator.state["bit_generator"]
        inner = state.get("state") if right else None
        if right and state["bit_generator"] == "MT19937":   # places in a buffer; NumPy does not check them
            right = isinstance(inner, dict) and is_place(inner.get("pos"), 624)
        elif right and state["bit_generator"] == "Philox":
            right = is_place(state.get("buffer_pos"), 4)
    if not right:
        raise StateError(f"{name}: expected the state of {article(type(rng).__name__)}, got {shortened(state)}")


def is_place(x: Any, most: Any) -> Any:
    return isinstance(x, (int, np.integer)) and 0 <= x <= most
