"""Optimizers, schedulers and clipping against PyTorch's, in float64: every option over 100 steps, gradients
of every size, nan and infinities, and the learning rates of every epoch."""
import copy
import itertools
import math

import numpy as np
import pytest

from flatgrad import Tensor, Value, optim
from flatgrad.optim import lr_scheduler

torch = pytest.importorskip("torch")

INF, NAN = math.inf, math.nan
N = 11
pytestmark = [pytest.mark.usefixtures("nothing_left_behind"),
              pytest.mark.filterwarnings("ignore:Detected call of:UserWarning"),
              pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")]


@pytest.fixture(autouse=True)
def in_float64():
    """PyTorch keeps some numbers of a state, such as NAdam's product, in its default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def combinations(**options):
    """All combinations of the options' values."""
    return [dict(zip(options, values)) for values in itertools.product(*options.values())]


BOTH = [False, True]
CASES = {
    "SGD": [case for case in combinations(
        momentum=[0.0, 0.9], dampening=[0.0, 0.3], weight_decay=[0.0, 0.1], nesterov=BOTH, maximize=BOTH)
        if not case["nesterov"] or (case["momentum"] and not case["dampening"])],
    "Adam": [*combinations(betas=[(0.9, 0.999), (0.3, 0.5)], weight_decay=[0.0, 0.1], amsgrad=BOTH, maximize=BOTH),
             {"eps": 0.1}, {"betas": (0.0, 0.9)}, {"betas": (0.5, 0.0), "amsgrad": True},
             {"decoupled_weight_decay": True, "weight_decay": 0.1}],
    "AdamW": [*combinations(betas=[(0.9, 0.999), (0.3, 0.5)], weight_decay=[0.01, 0.5, 0.0], amsgrad=BOTH,
                            maximize=BOTH)],
    "RMSprop": combinations(alpha=[0.99, 0.4], momentum=[0.0, 0.9], centered=BOTH, weight_decay=[0.0, 0.1],
                            maximize=BOTH),
    "Adagrad": combinations(lr_decay=[0.0, 0.1], initial_accumulator_value=[0.0, 0.5], weight_decay=[0.0, 0.1],
                            eps=[1e-10, 0.1], maximize=BOTH),
    "Adadelta": combinations(rho=[0.9, 0.3, 1.0], eps=[1e-6, 0.01], weight_decay=[0.0, 0.1], maximize=BOTH),
    "NAdam": [*combinations(betas=[(0.9, 0.999), (0.3, 0.5)], weight_decay=[0.0, 0.1], decoupled_weight_decay=BOTH,
                            maximize=BOTH), {"eps": 0.1, "momentum_decay": 0.1}, {"betas": (0.0, 0.0)}],
    "RAdam": [*combinations(betas=[(0.9, 0.999), (0.3, 0.9)], weight_decay=[0.0, 0.1], decoupled_weight_decay=BOTH,
                            maximize=BOTH), {"eps": 0.1}, {"betas": (0.0, 0.0)}],
    "Adamax": [*combinations(betas=[(0.9, 0.999), (0.3, 0.5)], weight_decay=[0.0, 0.1], maximize=BOTH), {"eps": 0.1}],
    "Rprop": combinations(etas=[(0.5, 1.2), (0.1, 1.01)], step_sizes=[(1e-6, 50), (0.02, 0.03)], maximize=BOTH),
}
EVERY = [pytest.param(kind, case, id=f"{kind}-{case}") for kind, cases in CASES.items() for case in cases]


def pair(kind, case, start):
    """The same optimizer twice, with its parameters: ours on single Values and Tensors."""
    ours = [*[Value(x) for x in start[:5]], Tensor(start[5:].reshape(2, 3))]
    theirs = torch.tensor(start, requires_grad=True)
    return (ours, getattr(optim, kind)(ours, **case)), (theirs, getattr(torch.optim, kind)([theirs], **case))


def set_gradient(ours, theirs, g):
    for p, x in zip(ours[:5], g):
        p.grad = x
    ours[5].grad = g[5:].reshape(2, 3)
    theirs.grad = torch.tensor(g)


def numbers_of(ours):
    return np.concatenate([[p.data for p in ours[:5]], ours[5].data.ravel()])


def follow(kind, case, gradients, other=None, rtol=1e-9):
    """AssertionError where the two part."""
    start = np.random.RandomState(7).uniform(-2, 2, N)
    (ours, optimizer), (theirs, their_optimizer) = pair(kind, case, start)
    if other is not None:
        their_optimizer = getattr(torch.optim, kind)([theirs], **other)
    for t, g in enumerate(gradients):
        set_gradient(ours, theirs, g)
        optimizer.step()
        their_optimizer.step()
        got, expected = numbers_of(ours), theirs.detach().numpy()
        # A number near 0 may have been a large one, and what is beyond its digits is lost.
        assert np.allclose(got, expected, rtol=rtol, atol=min(1e-11, 10 * rtol), equal_nan=True), (t, g, got, expected)


def random_gradients(steps=100):
    rng = np.random.RandomState(3)
    return [rng.normal(0.3, 1.0, N) * 10.0 ** (np.arange(N) % 5 - 3) for _ in range(steps)]


@pytest.mark.parametrize("kind, case", EVERY)
def test_a_hundred_steps(kind, case):
    follow(kind, case, random_gradients())
    follow(kind, {**case, "lr": 0.03}, random_gradients())   # with more, weight decay makes rounding grow


@pytest.mark.parametrize("kind, case", EVERY)
def test_each_of_the_first_steps(kind, case):
    follow(kind, {**case, "lr": 0.05}, random_gradients(5), rtol=1e-12)


@pytest.mark.parametrize("kind, case, other", [
    ("SGD", {"lr": 0.1}, {"lr": 0.1 * (1 + 1e-7)}), ("Adam", {}, {"eps": 1e-7}), ("AdamW", {}, {"weight_decay": 0.011}),
    ("RMSprop", {}, {"alpha": 0.9901}), ("RMSprop", {"centered": True}, {}), ("Adagrad", {}, {"lr_decay": 1e-5}),
    ("Adadelta", {}, {"rho": 0.9001}), ("NAdam", {}, {"momentum_decay": 0.00401}),
    ("RAdam", {}, {"betas": (0.9, 0.9991)}), ("Adamax", {}, {"eps": 1e-7}), ("Rprop", {}, {"etas": (0.5, 1.2001)}),
    ("Adam", {}, {"maximize": True}), ("Adam", {"weight_decay": 0.1}, {
        "weight_decay": 0.1, "decoupled_weight_decay": True}),
])
def test_a_difference_is_caught(kind, case, other):
    with pytest.raises(AssertionError):
        follow(kind, case, random_gradients(), other)


EXTREMES = [0.0, -0.0, 1e-320, -1e-200, 1e-160, 1e160, -1e200, 1e308, INF, -INF, NAN]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind, case", EVERY)
def test_extreme_gradients(kind, case):
    """All of them, each in the first step, after ordinary ones, and again and again."""
    extreme, ordinary = np.array(EXTREMES), np.linspace(-1.0, 1.5, N)
    for gradients in ([extreme], [extreme] * 3, [ordinary, ordinary, extreme, ordinary, ordinary],
                      [extreme[k:k + 1].repeat(N) for k in range(8)], [0.0 * ordinary] * 3):
        follow(kind, {**case, "lr": 0.05}, gradients)


@pytest.mark.parametrize("kind", CASES)
def test_names_and_defaults(kind):
    ours = getattr(optim, kind)([Value(1.0)])
    theirs = getattr(torch.optim, kind)([torch.tensor(1.0, dtype=torch.float64, requires_grad=True)])
    left_out = {"params", "foreach", "fused", "capturable", "differentiable"}
    expected = {name: value for name, value in theirs.param_groups[0].items() if name not in left_out}
    got = {name: value for name, value in ours.param_groups[0].items() if name != "params"}
    assert got == expected and list(got) == list(expected)
    assert ours.defaults == expected


@pytest.mark.parametrize("kind", CASES)
def test_groups_of_their_own(kind):
    start = np.linspace(-1.0, 2.0, 4)
    own = {"lr": 0.3} if kind == "Rprop" else {"lr": 0.3, "weight_decay": 0.1}
    ours = [Value(x) for x in start]
    theirs = [torch.tensor(x, requires_grad=True) for x in start]
    pairs = []
    for params, module in ((ours, optim), (theirs, torch.optim)):
        optimizer = getattr(module, kind)(
            [{"params": params[:1]}, {"params": params[1:3], **own}], lr=0.05)
        if kind != "Adagrad":   # theirs fails in the step after
            optimizer.add_param_group({"params": params[3], "maximize": True})
        pairs.append(optimizer)
    for t in range(20):
        for k, (p, q) in enumerate(zip(ours, theirs)):
            p.grad = math.cos(3.0 * t + k)
            q.grad = torch.tensor(p.grad, dtype=torch.float64)
        for optimizer in pairs:
            optimizer.step()
            optimizer.param_groups[1]["lr"] *= 0.9
        assert np.allclose([p.data for p in ours], [q.item() for q in theirs], rtol=1e-12, atol=1e-14)


def test_closures():
    x, y = Value(3.0), torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    results = []
    for p, optimizer in ((x, optim.SGD([x], lr=0.1)), (y, torch.optim.SGD([y], lr=0.1))):
        def closure():
            optimizer.zero_grad()
            loss = (p - 1.0) ** 2
            loss.backward()
            return loss
        results.append([float(optimizer.step(closure).data) for _ in range(5)])
    assert results[0] == pytest.approx(results[1], rel=1e-14) and x.data == pytest.approx(y.item(), rel=1e-14)


# ---- learning rates ----

SCHEDULERS = [
    ("LambdaLR", [lambda epoch: 0.95**epoch], {}), ("LambdaLR", [[lambda epoch: 1 / (1 + epoch), math.cosh]], {}),
    ("StepLR", [7], {}), ("StepLR", [3, 0.5], {}), ("StepLR", [1], {"gamma": 0.9}),
    ("MultiStepLR", [[3, 5, 5, 60]], {}), ("MultiStepLR", [[0, 40, 2]], {"gamma": 0.5}), ("MultiStepLR", [[]], {}),
    ("ConstantLR", [], {}), ("ConstantLR", [0.25], {"total_iters": 50}), ("ConstantLR", [0.5, 0], {}),
    ("LinearLR", [], {}), ("LinearLR", [0.1, 0.7, 60], {}), ("LinearLR", [1.0], {"end_factor": 0.0, "total_iters": 9}),
    ("LinearLR", [0.5, 1.0, 0], {}),
    ("ExponentialLR", [0.9], {}), ("ExponentialLR", [1.0], {}),
    ("CosineAnnealingLR", [10], {}), ("CosineAnnealingLR", [1], {}), ("CosineAnnealingLR", [99], {"eta_min": 0.01}),
    ("CosineAnnealingLR", [100], {}), ("CosineAnnealingLR", [7], {"eta_min": 0.2}),
    ("PolynomialLR", [], {}), ("PolynomialLR", [60, 2.5], {}), ("PolynomialLR", [7], {"power": 0.0}),
    ("CosineAnnealingWarmRestarts", [7], {}), ("CosineAnnealingWarmRestarts", [1], {"eta_min": 0.01}),
    ("CyclicLR", [0.01, 0.5, 7], {}), ("CyclicLR", [[0.01, 0.1], [0.5, 0.2], 3, 8], {"mode": "triangular2"}),
    ("CyclicLR", [0.1, 0.5, 9, 4, "exp_range", 0.97], {"base_momentum": [0.1, 0.2], "max_momentum": 0.3}),
    ("CyclicLR", [0.1, 0.5, 6], {"scale_fn": lambda x: 1.0 / x, "cycle_momentum": False}),
    ("CyclicLR", [0.1, 0.5, 6], {"scale_fn": lambda x: 0.9 ** x, "scale_mode": "iterations"}),
    ("OneCycleLR", [0.5], {"total_steps": 100}), ("OneCycleLR", [[0.5, 0.1]], {"epochs": 20, "steps_per_epoch": 6}),
    ("OneCycleLR", [0.5, 101], {"anneal_strategy": "linear", "pct_start": 0.5}),
    ("OneCycleLR", [0.5, 110], {"three_phase": True, "div_factor": 5.0, "final_div_factor": 10.0}),
    ("OneCycleLR", [0.5, 101], {"cycle_momentum": False, "three_phase": True, "anneal_strategy": "linear"}),
    ("OneCycleLR", [0.5, 103], {"base_momentum": [0.5, 0.6], "max_momentum": [0.8, 0.9], "pct_start": 0.0}),
    ("OneCycleLR", [0.5, 101], {"pct_start": 1.0}),
]
AT_ANY_EPOCH = len(SCHEDULERS)
SCHEDULERS += [   # PyTorch's begin at a later epoch in another way, as the docstring says, or not at all
    ("CosineAnnealingWarmRestarts", [3, 2], {"eta_min": 0.01}), ("CosineAnnealingWarmRestarts", [1, 3], {}),
    ("MultiplicativeLR", [lambda epoch: 1.0 - 0.5 / (1 + epoch)], {}),
    ("MultiplicativeLR", [[lambda epoch: 0.9, lambda epoch: 0.9 + 0.1 / epoch]], {}),
]
EVERY_SCHEDULER = [pytest.param(*row, id=f"{row[0]}-{k}") for k, row in enumerate(SCHEDULERS)]


def both_optimizers(kind="SGD", groups=2, **case):
    result = []
    for module, make in ((optim, Value), (torch.optim, lambda x: torch.tensor(x, requires_grad=True))):
        params = [{"params": [make(1.0)], **({"lr": 0.3} if k else {})} for k in range(groups)]
        result.append(getattr(module, kind)(params, lr=0.1, **case))
    return result


def cycled(optimizer):
    return [(group["lr"], *(group["betas"] if "betas" in group else [group.get("momentum", 0.0)]))
            for group in optimizer.param_groups]


def same_rates(ours, theirs, our_scheduler, their_scheduler, rel=1e-12):
    got, expected = cycled(ours), cycled(theirs)
    for a, b in zip(got, expected, strict=True):
        assert a == pytest.approx(b, rel=rel, abs=1e-17)
    assert our_scheduler.get_last_lr() == pytest.approx(their_scheduler.get_last_lr(), rel=rel, abs=1e-17)
    assert our_scheduler.get_last_lr() == [group["lr"] for group in ours.param_groups]
    assert our_scheduler.last_epoch == their_scheduler.last_epoch


def run(name, args, options, kind="SGD", steps=100, their_args=None, **case):
    ours, theirs = both_optimizers(kind, **case)
    mine = getattr(lr_scheduler, name)(ours, *args, **options)
    other = getattr(torch.optim.lr_scheduler, name)(theirs, *(their_args or args), **options)
    same_rates(ours, theirs, mine, other)
    for _ in range(steps):
        ours.step()
        theirs.step()
        mine.step()
        other.step()
        same_rates(ours, theirs, mine, other)


@pytest.mark.parametrize("name, args, options", EVERY_SCHEDULER)
@pytest.mark.parametrize("kind, case", [("SGD", {"momentum": 0.5}), ("Adam", {})])
def test_a_hundred_epochs(name, args, options, kind, case):
    run(name, args, options, kind, **case)


@pytest.mark.parametrize("name, args, wrong", [
    ("StepLR", [7], [8]), ("MultiStepLR", [[3]], [[3, 99]]), ("ExponentialLR", [0.9], [0.9 * (1 + 1e-11)]),
    ("CosineAnnealingLR", [100], [101]), ("LinearLR", [0.5], [0.5 + 1e-11]), ("OneCycleLR", [0.5, 120], [0.5, 121]),
    ("PolynomialLR", [60], [61]), ("CosineAnnealingWarmRestarts", [3, 2], [3, 3]),
    ("CyclicLR", [0.1, 0.5, 7], [0.1, 0.5, 8]),
])
def test_another_schedule_is_caught(name, args, wrong):
    with pytest.raises(AssertionError):
        run(name, args, {}, their_args=wrong)


@pytest.mark.parametrize("name, args, options", EVERY_SCHEDULER)
@pytest.mark.parametrize("at", [0, 1, 8, 50])
def test_resumed(name, args, options, at):
    """By state dicts, ours only: it goes on as if nothing had been, where theirs is."""
    ours, theirs = both_optimizers(momentum=0.5)
    mine = getattr(lr_scheduler, name)(ours, *args, **options)
    other = getattr(torch.optim.lr_scheduler, name)(theirs, *args, **options)
    for t in range(80):
        if t == at:
            states = ours.state_dict(), mine.state_dict()
            ours, _ = both_optimizers(momentum=0.5)
            mine = getattr(lr_scheduler, name)(ours, *args, **options)
            ours.load_state_dict(states[0])
            mine.load_state_dict(states[1])
        theirs.step()
        mine.step()
        other.step()
        same_rates(ours, theirs, mine, other)


@pytest.mark.parametrize("name, args, options", EVERY_SCHEDULER[:AT_ANY_EPOCH])
@pytest.mark.parametrize("last_epoch", [0, 4, 13])
def test_begun_at_a_later_epoch(name, args, options, last_epoch):
    ours, theirs = both_optimizers(momentum=0.5)
    more = {"initial_lr": 0.2, "max_lr": 0.5, "min_lr": 0.001, "max_momentum": 0.9, "base_momentum": 0.8}
    for optimizer in (ours, theirs):
        for group in optimizer.param_groups:
            group.update(more)
    mine = getattr(lr_scheduler, name)(ours, *args, **options, last_epoch=last_epoch)
    other = getattr(torch.optim.lr_scheduler, name)(theirs, *args, **options, last_epoch=last_epoch)
    for _ in range(40):
        same_rates(ours, theirs, mine, other)
        theirs.step()
        mine.step()
        other.step()


def test_several_on_one_optimizer():
    ours, theirs = both_optimizers()
    pairs = [[module.StepLR(o, 4, 0.5), module.ExponentialLR(o, 0.99), module.LinearLR(o, 0.5, 1.0, 10)]
             for module, o in ((lr_scheduler, ours), (torch.optim.lr_scheduler, theirs))]
    for _ in range(50):
        theirs.step()
        for mine, other in zip(*pairs):
            mine.step()
            other.step()
        same_rates(ours, theirs, pairs[0][-1], pairs[1][-1])


def test_chained():
    ours, theirs = both_optimizers()
    pair = [module.ChainedScheduler([module.StepLR(o, 4, 0.5), module.ExponentialLR(o, 0.99),
                                     module.SequentialLR(o, [module.ConstantLR(o, 0.5, 3), module.StepLR(o, 2)], [9])])
            for module, o in ((lr_scheduler, ours), (torch.optim.lr_scheduler, theirs))]
    for t in range(40):
        theirs.step()
        if t in (3, 20):
            states = copy.deepcopy((ours.state_dict(), pair[0].state_dict()))
            ours, _ = both_optimizers()
            s = lr_scheduler
            pair[0] = s.ChainedScheduler([s.StepLR(ours, 7), s.ExponentialLR(ours, 0.5), s.SequentialLR(
                ours, [s.ConstantLR(ours), s.StepLR(ours, 8)], [9])])
            ours.load_state_dict(states[0])
            pair[0].load_state_dict(states[1])
        for scheduler in pair:
            scheduler.step()
        assert pair[0].get_last_lr() == pytest.approx(pair[1].get_last_lr(), rel=1e-12)
        assert cycled(ours) == [pytest.approx(x, rel=1e-12) for x in cycled(theirs)]


@pytest.mark.parametrize("options", combinations(
    mode=["min", "max"], threshold_mode=["rel", "abs"], cooldown=[0, 2], patience=[0, 3], min_lr=[0.0, [0.01, 0.05]]))
def test_plateau(options):
    rng = np.random.RandomState(5)
    ours, theirs = both_optimizers()
    mine = lr_scheduler.ReduceLROnPlateau(ours, factor=0.5, threshold=0.02, **options)
    other = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, factor=0.5, threshold=0.02, **options)
    metrics = [*(1.0 / (1 + t // 4) + 0.05 * rng.rand() for t in range(60)), NAN, INF, -INF, 0.0, *rng.rand(40)]
    for k, metric in enumerate(metrics):
        if k == 50:
            state = mine.state_dict()
            mine = lr_scheduler.ReduceLROnPlateau(ours)
            mine.load_state_dict(state)
        mine.step(metric)
        other.step(metric)
        same_rates(ours, theirs, mine, other)
        assert (mine.best, mine.num_bad_epochs, mine.cooldown_counter) == (
            other.best, other.num_bad_epochs, other.cooldown_counter)
    assert ours.lr < 0.1


@pytest.mark.parametrize("make", [
    lambda s, o: [s.ConstantLR(o, 0.1, 3), s.ExponentialLR(o, 0.9)],
    lambda s, o: [s.LinearLR(o, 0.1, 1.0, 5), s.CosineAnnealingLR(o, 20, 0.01), s.StepLR(o, 3)],
    lambda s, o: [s.ExponentialLR(o, 0.8), s.LambdaLR(o, lambda epoch: 0.9**epoch), s.MultiStepLR(o, [0, 4])],
    lambda s, o: [s.StepLR(o, 2), s.LinearLR(o, 0.3), s.ConstantLR(o, 0.5, 4)],
    lambda s, o: [s.LinearLR(o, 0.3), s.PolynomialLR(o, 9), s.MultiplicativeLR(o, lambda epoch: 0.9)],
    lambda s, o: [s.ConstantLR(o, 0.5), s.CosineAnnealingWarmRestarts(o, 4, 2)],
])
def test_one_after_the_other(make):
    ours, theirs = both_optimizers()
    pair = []
    for module, optimizer in ((lr_scheduler, ours), (torch.optim.lr_scheduler, theirs)):
        schedulers = make(module, optimizer)
        pair.append(module.SequentialLR(optimizer, schedulers, [6, 25][:len(schedulers) - 1]))
    for t in range(60):
        same_rates(ours, theirs, *pair)
        theirs.step()
        if t in (3, 6, 30):
            states = ours.state_dict(), pair[0].state_dict()
            ours, _ = both_optimizers()
            schedulers = make(lr_scheduler, ours)
            pair[0] = lr_scheduler.SequentialLR(ours, schedulers, [6, 25][:len(schedulers) - 1])
            ours.load_state_dict(states[0])
            pair[0].load_state_dict(states[1])
        for scheduler in pair:
            scheduler.step()


# ---- clipping ----

GRADIENTS = [
    np.linspace(-3.0, 4.0, N), np.linspace(-3.0, 4.0, N) * 1e-3, np.zeros(N), np.full(N, 1e-9), np.full(N, 1e150),
    np.array([INF, *np.ones(N - 1)]), np.array([*np.ones(N - 1), NAN]), np.array([INF, NAN, *np.ones(N - 2)]),
    np.array([-INF, INF, *np.zeros(N - 2)]), np.full(N, 1e-170), np.full(N, -5e-324),
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("g", GRADIENTS)
@pytest.mark.parametrize("norm_type", [2.0, 1, 3.5, 0.5, INF, "inf"])
@pytest.mark.parametrize("max_norm", [0.0, 1e-3, 1.0, 100])
def test_clip_grad_norm(g, norm_type, max_norm):
    (ours, optimizer), (theirs, _) = pair("SGD", {}, np.zeros(N))
    set_gradient(ours, theirs, g)
    with np.errstate(all="ignore"):
        expected = torch.nn.utils.clip_grad_norm_([theirs], max_norm, norm_type).item()
        got = optim.clip_grad_norm_(ours, max_norm, norm_type)
    if norm_type == "inf":
        norm_type = INF
    if norm_type != INF and 0.0 < np.abs(g).max() < INF and (not 0.0 < expected < INF or np.abs(g).max() < 1e-100):
        # Its powers over- or underflow, and ours do not.
        assert got == pytest.approx(np.abs(g).max() * N ** (1.0 / norm_type), rel=1e-12)
        return
    assert got == pytest.approx(expected, rel=1e-12, nan_ok=True)
    gradients = np.concatenate([[p.grad for p in ours[:5]], ours[5].grad.ravel()])
    assert np.allclose(gradients, theirs.grad.numpy(), rtol=1e-12, atol=0.0, equal_nan=True)


@pytest.mark.parametrize("g", GRADIENTS)
@pytest.mark.parametrize("clip_value", [0.0, 0.5, 1, 1e200, INF])
def test_clip_grad_value(g, clip_value):
    (ours, optimizer), (theirs, _) = pair("SGD", {}, np.zeros(N))
    set_gradient(ours, theirs, g)
    torch.nn.utils.clip_grad_value_([theirs], clip_value)
    assert optim.clip_grad_value_(optimizer, clip_value) is None
    gradients = np.concatenate([[p.grad for p in ours[:5]], ours[5].grad.ravel()])
    assert np.array_equal(gradients, theirs.grad.numpy(), equal_nan=True)
