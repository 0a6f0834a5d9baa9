"""Arguments and defaults against PyTorch's: where they differ, docs/pytorch.md says so."""
import inspect
import re
from pathlib import Path

import pytest

from flatgrad import gradcheck, losses, nn, optim
from flatgrad.optim import lr_scheduler

torch = pytest.importorskip("torch")

SECTION = re.search(r"^## Arguments that differ\n(.*?)^## ", (
    Path(__file__).resolve().parent.parent / "docs" / "pytorch.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)[1]
F = torch.nn.functional
# PyTorch's module for each of our own, and our names where they are not its.
CLASSES = [*((getattr(nn, name), torch.nn, {"BatchNorm": "BatchNorm1d"}.get(name, name)) for name in nn.LOADED_LATER),
           *((getattr(nn, name), torch.nn, name) for name in nn.ALSO_LATER
             if name.startswith("Module") or name.endswith("Loss")),
           *((getattr(optim, name), torch.optim, name) for name in optim.__all__
             if name[0].isupper() and name not in ("OPTIMIZERS", "Optimizer")),
           *((getattr(lr_scheduler, name), torch.optim.lr_scheduler, name) for name in lr_scheduler.__all__
             if name != "LRScheduler"),
           *((getattr(losses, name), torch.nn, name) for name in losses.__all__ if name.endswith("Loss") and name != "HingeLoss")]
FUNCTIONS = [(losses.mse, F.mse_loss), (losses.mae, F.l1_loss), (losses.huber, F.huber_loss), (losses.kl_div, F.kl_div),
             (losses.binary_cross_entropy, F.binary_cross_entropy), (losses.nll, F.nll_loss),
             (losses.bce_with_logits, F.binary_cross_entropy_with_logits), (losses.cross_entropy, F.cross_entropy),
             *((getattr(nn.functional, name), getattr(F, name)) for name in nn.functional.__all__
               if name not in ("linear", "relu", "gelu", "sigmoid", "silu", "softplus", "tanh", "one_hot",
                               "logsigmoid")),
             (optim.clip_grad_norm_, torch.nn.utils.clip_grad_norm_),
             (optim.clip_grad_value_, torch.nn.utils.clip_grad_value_),
             (nn.utils.parameters_to_vector, torch.nn.utils.parameters_to_vector),
             (nn.utils.vector_to_parameters, torch.nn.utils.vector_to_parameters)]
PAIRS = [pytest.param(ours, getattr(module, name), id=name) for ours, module, name in CLASSES] + [
    pytest.param(ours, theirs, id=ours.__name__) for ours, theirs in FUNCTIONS]


def parameters(of):
    found = inspect.signature(of.__init__ if inspect.isclass(of) else of).parameters
    return {name: parameter for name, parameter in found.items()
            if name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)}


@pytest.mark.parametrize("ours, theirs", PAIRS)
def test_a_difference_is_told(ours, theirs):
    ours, theirs = parameters(ours), parameters(theirs)
    told = set(re.findall(r"`(\w+)(?:=[^`]*)?`", SECTION))
    missing = {name for name in theirs if name not in ours and not name.startswith("_")}
    assert missing <= told, missing - told
    ours_alone = {name for name in ours if name not in theirs}
    assert ours_alone <= told, ours_alone - told
    differ = {name for name in ours if name in theirs and ours[name].default != theirs[name].default}
    assert differ <= told, differ


@pytest.mark.parametrize("ours, theirs", [pair for pair in PAIRS if inspect.isclass(pair.values[0])])
def test_classes_have_their_order(ours, theirs):
    """Of what both take by position."""
    by_position = [[name for name, parameter in parameters(of).items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
                   for of in (ours, theirs)]
    common = set.intersection(*map(set, by_position))
    mine, other = ([name for name in names if name in common] for names in by_position)
    assert mine == other


def test_gradcheck_has_their_defaults():
    ours, theirs = parameters(gradcheck), parameters(torch.autograd.gradcheck)
    assert {name: ours[name].default for name in ("eps", "atol", "rtol", "raise_exception")} == {
        name: theirs[name].default for name in ("eps", "atol", "rtol", "raise_exception")}


def test_what_is_not_told_is_found():
    def changed(input, target, temperature=1.0):
        pass

    with pytest.raises(AssertionError, match="temperature"):
        test_a_difference_is_told(losses.mse, changed)
