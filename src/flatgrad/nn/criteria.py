"""The losses of `flatgrad.losses` as Modules, in PyTorch's place: `torch.nn.MSELoss` is `flatgrad.nn.MSELoss`.

Each is its loss's class and a Module, so that it may stand among the modules of a model, and has hooks.
"""
from flatgrad import losses
from flatgrad.nn.module import Module

__all__ = ["MSELoss", "L1Loss", "HuberLoss", "BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "NLLLoss", "KLDivLoss"]


class MSELoss(losses.MSELoss, Module):
    """`flatgrad.losses.MSELoss`, which is `mse` with its options, as a Module.

    Examples
    --------
    >>> from flatgrad.nn import MSELoss
    >>> MSELoss()([1.0, 2.0], [3.0, 2.0]).data
    2.0
    """


class L1Loss(losses.L1Loss, Module):
    """`flatgrad.losses.L1Loss`, which is `mae` with its options, as a Module.

    Examples
    --------
    >>> from flatgrad.nn import L1Loss
    >>> L1Loss(reduction="sum")([1.0, 2.0], [3.0, 2.0]).data
    2.0
    """


class HuberLoss(losses.HuberLoss, Module):
    """`flatgrad.losses.HuberLoss`, which is `huber` with its options, as a Module.

    Examples
    --------
    >>> from flatgrad.nn import HuberLoss
    >>> HuberLoss(delta=2.0)([1.0], [4.0]).data
    4.0
    """


class BCELoss(losses.BCELoss, Module):
    """`flatgrad.losses.BCELoss`, which is `binary_cross_entropy` with its options, as a Module.

    Examples
    --------
    >>> from flatgrad.nn import BCELoss
    >>> round(BCELoss()([0.5], [1.0]).data, 6)
    0.693147
    """


class BCEWithLogitsLoss(losses.BCEWithLogitsLoss, Module):
    """`flatgrad.losses.BCEWithLogitsLoss`, which is `bce_with_logits` with its options, as a Module.

    Examples
    --------
    >>> from flatgrad.nn import BCEWithLogitsLoss
    >>> round(BCEWithLogitsLoss()([0.0], [1.0]).data, 6)
    0.693147
    """


class CrossEntropyLoss(losses.CrossEntropyLoss, Module):
    """`flatgrad.losses.CrossEntropyLoss`, which is `cross_entropy` with its options, as a Module.

    Examples
    --------
    >>> from flatgrad.nn import CrossEntropyLoss
    >>> round(CrossEntropyLoss()([[0.0, 0.0]], [1]).data, 6)
    0.693147
    """


class NLLLoss(losses.NLLLoss, Module):
    """`flatgrad.losses.NLLLoss`, which is `nll` with its options, as a Module.

    Examples
    --------
    >>> from flatgrad.nn import NLLLoss
    >>> NLLLoss()([[-1.0, -2.0]], [1]).data
    2.0
    """


class KLDivLoss(losses.KLDivLoss, Module):
    """`flatgrad.losses.KLDivLoss`, which is `kl_div` with its options, as a Module.

    Examples
    --------
    >>> from flatgrad.nn import KLDivLoss
    >>> KLDivLoss(reduction="sum", log_target=True)([-2.0], [0.0]).data
    2.0
    """
