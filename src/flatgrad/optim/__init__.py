"""Optimizers, which update parameters by their gradients: PyTorch's names, arguments, defaults and numbers.

`flatgrad.optim.lr_scheduler` has schedules of the learning rate.
"""
from __future__ import annotations

from flatgrad.arguments import no_attribute
from flatgrad.optim import lr_scheduler
from flatgrad.optim.array_rules import Adamax, NAdam, RAdam, Rprop
from flatgrad.optim.clip import clip_grad_norm_, clip_grad_value_
from flatgrad.optim.lbfgs import LBFGS
from flatgrad.optim.optimizers import SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RMSprop

TYPE_CHECKING = False   # as in flatgrad/__init__.py
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["OPTIMIZERS", "Optimizer", "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "NAdam", "RAdam", "Adamax",
           "Rprop", "LBFGS", "clip_grad_norm_", "clip_grad_value_", "lr_scheduler"]

# Name -> optimizer that needs one gradient for a step. Whoever takes an optimizer by name, takes one of these.
OPTIMIZERS: dict[str, type[Any]] = {
    "sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSprop, "adagrad": Adagrad, "adadelta": Adadelta,
    "nadam": NAdam, "radam": RAdam, "adamax": Adamax, "rprop": Rprop}


if not TYPE_CHECKING:
    def __getattr__(name: Any) -> NoReturn:
        raise no_attribute(__name__, name)
