"""Schedulers against their closed forms, their states and resumption, and what they refuse.

test_torch_optim.py has every one beside PyTorch's.
"""
import copy
import json
import math
import pickle

import pytest

from flatgrad import Value, errors
from flatgrad.optim import SGD, Adagrad, Adam, Optimizer, lr_scheduler
from flatgrad.optim.lr_scheduler import (ChainedScheduler, ConstantLR, CosineAnnealingLR, CosineAnnealingWarmRestarts,
                                         CyclicLR, ExponentialLR, LambdaLR, LinearLR, LRScheduler, MultiplicativeLR,
                                         MultiStepLR, OneCycleLR, PolynomialLR, ReduceLROnPlateau, SequentialLR, StepLR)

INF, NAN = math.inf, math.nan

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def halves(epoch):
    return 0.5**epoch


def shrinking(epoch):
    return epoch / (epoch + 1)


def cosine(start, end, part):
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


# Scheduler, arguments, and the factor of the first learning rate in an epoch.
CASES = [
    (LambdaLR, {"lr_lambda": halves}, halves),
    (StepLR, {"step_size": 3, "gamma": 0.5}, lambda t: 0.5 ** (t // 3)),
    (MultiStepLR, {"milestones": [8, 2, 8], "gamma": 0.5}, lambda t: 0.5 ** ((t >= 2) + 2 * (t >= 8))),
    (ConstantLR, {"factor": 0.25, "total_iters": 4}, lambda t: 0.25 if t < 4 else 1.0),
    (LinearLR, {"start_factor": 0.25, "end_factor": 0.75, "total_iters": 8}, lambda t: 0.25 + 0.5 * min(t, 8) / 8),
    (ExponentialLR, {"gamma": 0.9}, lambda t: 0.9**t),
    (CosineAnnealingLR, {"T_max": 5}, lambda t: cosine(1.0, 0.0, t / 5)),
    (MultiplicativeLR, {"lr_lambda": shrinking}, lambda t: 1 / (t + 1)),
    (PolynomialLR, {"total_iters": 8, "power": 1.5}, lambda t: (1 - min(t, 8) / 8) ** 1.5),
    (CosineAnnealingWarmRestarts, {"T_0": 3, "T_mult": 2}, lambda t: (
        cosine(1.0, 0.0, t / 3) if t < 3 else cosine(1.0, 0.0, (t - 3) / 6) if t < 9
        else cosine(1.0, 0.0, (t - 9) / 12))),
    (CyclicLR, {"base_lr": 0.5, "max_lr": 1.5, "step_size_up": 2, "step_size_down": 3, "cycle_momentum": False,
                "mode": "triangular2"}, lambda t: 0.5 + [0, 1 / 2, 1, 2 / 3, 1 / 3][t % 5] / 2 ** (t // 5)),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 20, "pct_start": 0.5, "cycle_momentum": False}, lambda t: (
        cosine(0.04, 1.0, t / 9) if t <= 9 else cosine(1.0, 4e-6, (t - 9) / 10))),
]
OF_GROUPS = {OneCycleLR: {"max_lr": [1.0, 0.5]}, CyclicLR: {"base_lr": [0.5, 0.25], "max_lr": [1.5, 0.75]}}
every_case = pytest.mark.parametrize("make, options, factor", CASES, ids=lambda x: getattr(x, "__name__", ""))


def optimizer_of(lr=1.0, make=SGD, **case):
    return make([Value(1.0)], lr=lr, **case)


@every_case
def test_closed_form(make, options, factor):
    optimizer = optimizer_of()
    scheduler = make(optimizer, **options)
    for t in range(19):
        assert scheduler.last_epoch == t
        assert scheduler.get_last_lr() == [optimizer.lr] == [pytest.approx(factor(t), rel=1e-12, abs=1e-15)]
        optimizer.step()
        scheduler.step()


@every_case
def test_each_group_begins_with_its_own(make, options, factor):
    optimizer = SGD([{"params": [Value(1.0)]}, {"params": [Value(1.0)], "lr": 0.5}], lr=1.0)
    scheduler = make(optimizer, **{**options, **OF_GROUPS.get(make, {})})
    for t in range(12):
        assert scheduler.get_last_lr() == pytest.approx([factor(t), 0.5 * factor(t)], rel=1e-12, abs=1e-15)
        scheduler.step()
    optimizer.add_param_group({"params": [Value(2.0)]})
    before = scheduler.state_dict()
    with pytest.raises(errors.ArgumentError, match="optimizer: expected 2 parameter groups.* got 3"):
        scheduler.step()
    assert scheduler.state_dict() == before


@every_case
@pytest.mark.parametrize("at", [0, 4, 11])
@pytest.mark.parametrize("through", [
    lambda pair: resumed(*pair), lambda pair: resumed(*pair, lambda state: json.loads(json.dumps(state))),
    copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["state", "json", "deepcopy", "pickle"])
def test_it_goes_on(make, options, factor, at, through):
    optimizer = optimizer_of()
    scheduler = make(optimizer, **options)
    for _ in range(at):
        scheduler.step()
    scheduler.of = make, options
    optimizer2, scheduler2 = through((optimizer, scheduler))
    assert scheduler2.optimizer is optimizer2 is not optimizer
    for _ in range(6):
        scheduler.step()
        scheduler2.step()
        assert optimizer2.lr == optimizer.lr and scheduler2.get_last_lr() == scheduler.get_last_lr()
        assert scheduler2.last_epoch == scheduler.last_epoch


def resumed(optimizer, scheduler, change=lambda state: state):
    make, options = vars(scheduler).pop("of")
    other = optimizer_of(lr=7.0)
    result = make(other, **options)
    other.load_state_dict(optimizer.state_dict())
    result.load_state_dict(change(scheduler.state_dict()))
    return other, result


def test_states_are_copies():
    scheduler = MultiStepLR(optimizer_of(), [3, 5])
    state = scheduler.state_dict()
    scheduler.load_state_dict(state)
    for name in ("milestones", "base_lrs", "_last_lr"):
        state[name].append(9.0)
    scheduler.get_last_lr().append(9.0)
    assert (scheduler.milestones, scheduler.base_lrs, scheduler.get_last_lr()) == ([3, 5], [1.0], [1.0])
    assert repr(scheduler) == "MultiStepLR(last_epoch=0, milestones=[3, 5], gamma=0.1)"


def test_what_is_set_by_hand_stays():
    optimizer = optimizer_of()
    scheduler = ExponentialLR(optimizer, 0.5)
    optimizer.lr = 8.0
    scheduler.step()
    assert optimizer.lr == 4.0
    StepLR(optimizer, 1, 0.25).step()
    assert optimizer.lr == 1.0 and optimizer.param_groups[0]["initial_lr"] == 1.0


@pytest.mark.parametrize("make, name", [(SGD, "momentum"), (Adam, "betas")])
def test_one_cycle_of_momentum(make, name):
    optimizer = optimizer_of(make=make)
    scheduler = OneCycleLR(optimizer, 1.0, total_steps=20, pct_start=0.5, anneal_strategy="linear")
    for t in range(20):
        expected = 0.95 - 0.1 * t / 9 if t <= 9 else 0.85 + 0.1 * (t - 9) / 10
        got = optimizer.param_groups[0][name]
        assert got == pytest.approx(expected if name == "momentum" else (expected, 0.999), rel=1e-12)
        optimizer.step()
        scheduler.step()
    with pytest.raises(errors.ArgumentError, match="total_steps: expected 20 steps at most, got one more"):
        scheduler.step()
    assert scheduler.last_epoch == 20


def test_plateau_by_hand():
    optimizer = optimizer_of()
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=1, cooldown=1, min_lr=0.2)
    rates = []
    for metric in [5.0, 4.0, 4.0, Value(4.0), 4.0, NAN, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.0]:
        scheduler.step(metric)
        rates.append(optimizer.lr)
    assert rates == [1.0] * 3 + [0.5] * 3 + [0.25] + [0.25] * 2 + [0.2] * 5
    assert scheduler.best == 3.0 and scheduler.last_epoch == 14


@pytest.mark.parametrize("metric", ["1.0", None, 1j, [1.0]])
def test_wrong_metrics(metric):
    scheduler = ReduceLROnPlateau(optimizer_of())
    before = scheduler.state_dict()
    with pytest.raises(TypeError, match="metrics: expected a number, got"):
        scheduler.step(metric)
    assert scheduler.state_dict() == before


def test_a_class_of_the_users_own():
    class Alternating(LRScheduler):
        def get_lr(self):
            return [lr * (1 + self.last_epoch % 2) for lr in self.base_lrs]

    optimizer = optimizer_of()
    scheduler = Alternating(optimizer)
    for t in range(4):
        assert optimizer.lr == 1.0 + t % 2
        scheduler.step()
    other = Alternating(optimizer_of())
    other.load_state_dict(scheduler.state_dict())
    assert other.last_epoch == 4
    with pytest.raises(NotImplementedError, match=r"LRScheduler has no get_lr\(\)"):
        LRScheduler(optimizer_of())


# ---- errors ----

@pytest.mark.parametrize("make, options, error, message", [
    (LambdaLR, {"lr_lambda": 0.5}, TypeError, "lr_lambda: expected a callable, got 0.5"),
    (LambdaLR, {"lr_lambda": [halves, halves]}, ValueError, "lr_lambda: expected 1, one for each .* group, got 2"),
    (LambdaLR, {"lr_lambda": [None]}, TypeError, r"lr_lambda\[0\]: expected a callable, got None"),
    (LambdaLR, {"lr_lambda": lambda t: NAN}, ValueError, r"lr_lambda\(0\): expected a finite number, got nan"),
    (LambdaLR, {"lr_lambda": lambda t: "x"}, TypeError, r"lr_lambda\(0\): expected a finite number, got 'x'"),
    (LambdaLR, {"lr_lambda": lambda t: -1.0}, ValueError, r"learning rate of param_groups\[0\] in epoch 0: exp"),
    (LambdaLR, {"lr_lambda": lambda t: 1 / t}, ZeroDivisionError, "division"),
    (StepLR, {"step_size": 0}, ValueError, "step_size: expected an int, 1 or more, got 0"),
    (StepLR, {"step_size": 2.0}, TypeError, "step_size: expected an int, 1 or more, got 2.0"),
    (StepLR, {"step_size": 2, "gamma": -1.0}, ValueError, "gamma: expected a finite number, 0 or more, got -1.0"),
    (MultiStepLR, {"milestones": 3}, TypeError, "milestones: expected a list of epochs, got 3"),
    (MultiStepLR, {"milestones": [1, -2]}, ValueError, r"milestones\[1\]: expected an int, 0 or more, got -2"),
    (ConstantLR, {"factor": 0.0}, ValueError, "factor: expected a number above 0 and up to 1, got 0.0"),
    (ConstantLR, {"factor": 1.5}, ValueError, "factor: expected a number from 0 to 1, got 1.5"),
    (LinearLR, {"start_factor": 0.0}, ValueError, "start_factor: expected a number above 0 and up to 1, got 0.0"),
    (LinearLR, {"end_factor": 1.01}, ValueError, "end_factor: expected a number from 0 to 1, got 1.01"),
    (LinearLR, {"total_iters": -1}, ValueError, "total_iters: expected an int, 0 or more, got -1"),
    (ExponentialLR, {"gamma": "x"}, TypeError, "gamma: expected a finite number, 0 or more, got 'x'"),
    (CosineAnnealingLR, {"T_max": 0}, ValueError, "T_max: expected an int, 1 or more, got 0"),
    (CosineAnnealingLR, {"T_max": 5, "eta_min": NAN}, ValueError, "eta_min: expected a finite number, 0 or more"),
    (OneCycleLR, {"max_lr": 1.0}, ValueError, "total_steps: expected an int, or epochs and steps_per_epoch instead"),
    (OneCycleLR, {"max_lr": 1.0, "epochs": 3}, ValueError, "total_steps: expected .* got epochs=3, steps_per_epoch=N"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 0}, ValueError, "total_steps: expected an int, 1 or more, got 0"),
    (OneCycleLR, {"max_lr": [1.0, 2.0], "total_steps": 9}, ValueError, "max_lr: expected 1 numbers, one for each"),
    (OneCycleLR, {"max_lr": -1.0, "total_steps": 9}, ValueError, "max_lr: expected a finite number, 0 or more"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 9, "pct_start": 1.5}, ValueError, "pct_start: expected a number from"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 9, "anneal_strategy": "cosine"}, ValueError, "did you mean 'cos'"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 9, "max_momentum": 1.0}, ValueError, "max_momentum: expected a number"),
    (OneCycleLR, {"max_lr": 1.0, "total_steps": 9, "div_factor": 0.0}, ValueError, "div_factor: expected a finite num"),
    (MultiplicativeLR, {"lr_lambda": [halves] * 2}, ValueError,
     "lr_lambda: expected 1, one for each parameter group, got"),
    (MultiplicativeLR, {"lr_lambda": [3]}, TypeError, r"lr_lambda\[0\]: expected a callable, got 3"),
    (PolynomialLR, {"total_iters": 0}, ValueError, "total_iters: expected an int, 1 or more, got 0"),
    (PolynomialLR, {"power": -1}, ValueError, "power: expected a finite number, 0 or more, got -1"),
    (CosineAnnealingWarmRestarts, {"T_0": 0}, ValueError, "T_0: expected an int, 1 or more, got 0"),
    (CosineAnnealingWarmRestarts, {"T_0": 3, "T_mult": 1.5}, TypeError, "T_mult: expected an int, 1 or more, got 1.5"),
    (CyclicLR, {"base_lr": [0.1, 0.2], "max_lr": 1.0}, ValueError, "base_lr: expected 1 numbers, one for each"),
    (CyclicLR, {"base_lr": 0.1, "max_lr": NAN}, ValueError, "max_lr: expected a finite number, 0 or more, got nan"),
    (CyclicLR, {"base_lr": 0.1, "max_lr": 1.0, "mode": "triangle"}, ValueError, "did you mean 'triangular'"),
    (CyclicLR, {"base_lr": 0.1, "max_lr": 1.0, "step_size_down": 0}, ValueError,
     "step_size_down: expected an int, 1 or"),
    (CyclicLR, {"base_lr": 0.1, "max_lr": 1.0, "scale_fn": 3}, TypeError,
     "scale_fn: expected None or a callable, got 3"),
    (CyclicLR, {"base_lr": 0.1, "max_lr": 1.0, "scale_mode": "c"}, ValueError, "scale_mode: expected one of 'cycle', "),
    (CyclicLR, {"base_lr": 0.1, "max_lr": 1.0, "max_momentum": 1.0}, ValueError,
     "max_momentum: expected a number from"),
    (StepLR, {"step_size": 2, "last_epoch": 3}, ValueError, r"last_epoch: expected -1, or param_groups\[0\] with"),
    (StepLR, {"step_size": 2, "last_epoch": -2}, ValueError, "last_epoch: expected an int, -1 or more, got -2"),
    (ReduceLROnPlateau, {"mode": "mim"}, ValueError, "mode: expected one of .* did you mean 'min'"),
    (ReduceLROnPlateau, {"factor": 1.0}, ValueError, "factor: expected a number from 0 to below 1, got 1.0"),
    (ReduceLROnPlateau, {"patience": 1.5}, TypeError, "patience: expected an int, 0 or more, got 1.5"),
    (ReduceLROnPlateau, {"min_lr": [0.1, 0.2]}, ValueError, "min_lr: expected 1 numbers, one for each .* got 2"),
])
def test_wrong_arguments(make, options, error, message):
    optimizer = optimizer_of(momentum=0.5)
    before = dict(optimizer.param_groups[0])
    with pytest.raises(error, match=message):
        make(optimizer, **options)
    assert optimizer.param_groups == [before]


@pytest.mark.parametrize("name", [name for name in lr_scheduler.__all__ if name != "ChainedScheduler"])
def test_the_optimizer_has_to_be_one(name):
    required = {"lr_lambda": halves, "step_size": 1, "milestones": [], "gamma": 0.5, "T_max": 3, "max_lr": 1.0,
                "T_0": 3, "base_lr": 0.1, "schedulers": []}
    make = getattr(lr_scheduler, name)
    names = make.__init__.__code__.co_varnames[2:make.__init__.__code__.co_argcount]
    for wrong in (None, [Value(1.0)], SGD, 0.1):
        with pytest.raises(TypeError, match="optimizer: expected an Optimizer, got"):
            make(wrong, **{key: required[key] for key in names if key in required})


def test_a_cycle_of_momentum_needs_one():
    optimizer = optimizer_of(make=Adagrad)
    with pytest.raises(ValueError, match="cycle_momentum: expected an optimizer with momentum or betas .* got Adagrad"):
        OneCycleLR(optimizer, 1.0, 9)
    assert "max_lr" not in optimizer.param_groups[0]
    OneCycleLR(optimizer, 1.0, 9, cycle_momentum=False)


def test_chains():
    optimizer = optimizer_of(momentum=0.5)
    scheduler = ChainedScheduler([StepLR(optimizer, 2, 0.5), LambdaLR(optimizer, lambda t: 1 / (3 - t))], optimizer)
    scheduler.step()
    scheduler.step()
    before = scheduler.state_dict(), dict(optimizer.param_groups[0])
    with pytest.raises(ZeroDivisionError):
        scheduler.step()
    assert (scheduler.state_dict(), dict(optimizer.param_groups[0])) == before
    for change in (lambda s: s["_schedulers"].pop(), lambda s: s["_schedulers"][1].update(last_epoch=-2),
                   lambda s: s.update(last_epoch=0.5), lambda s: s.pop("base_lrs"), lambda s: s.update(_schedulers=3)):
        state = scheduler.state_dict()
        change(state)
        with pytest.raises(errors.StateError, match="state_dict"):
            scheduler.load_state_dict(state)
        assert scheduler.state_dict() == before[0]
    for wrong, optimizers, message in (
            (3, [], "schedulers: expected a list of schedulers, got 3"),
            ([], [], "schedulers: expected one at least, got none"),
            ([ReduceLROnPlateau(optimizer)], [],
             r"schedulers\[0\]: expected a scheduler, but no ReduceLROnPlateau, got"),
            ([StepLR(optimizer, 2), None], [], r"schedulers\[1\]: expected a scheduler, .* got None"),
            ([StepLR(optimizer, 2), StepLR(optimizer_of(), 2)], [],
             r"schedulers\[1\]: expected .* of the same optimizer"),
            ([StepLR(optimizer, 2)], [3], "optimizer: expected an Optimizer, got 3")):
        with pytest.raises((TypeError, ValueError), match=message):
            ChainedScheduler(wrong, *optimizers)


def test_a_step_that_fails_changes_nothing():
    optimizer = optimizer_of()
    scheduler = LambdaLR(optimizer, lambda epoch: 1 / (2 - epoch))
    scheduler.step()
    before = scheduler.state_dict(), dict(optimizer.param_groups[0])
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            scheduler.step()
        assert (scheduler.state_dict(), dict(optimizer.param_groups[0])) == before


@pytest.mark.parametrize("change, message", [
    (lambda s: s.pop("gamma"), "state_dict: expected the keys .* got none of the name 'gamma'"),
    (lambda s: s.update(T_max=3), "state_dict: expected the keys .* got 'T_max' as well"),
    (lambda s: s.update(gamma=NAN), r"state_dict\['gamma'\]: expected a finite number, 0 or more, got nan"),
    (lambda s: s.update(step_size=0), r"state_dict\['step_size'\]: expected an int, 1 or more, got 0"),
    (lambda s: s.update(last_epoch=1.5), r"state_dict\['last_epoch'\]: expected an int"),
    (lambda s: s.update(base_lrs=[1.0, 2.0]), r"state_dict\['base_lrs'\]: expected 1 numbers, one for each"),
    (lambda s: s.update(_last_lr=0.5), r"state_dict\['_last_lr'\]: expected a list of 1 numbers, got 0.5"),
])
def test_broken_states(change, message):
    scheduler = StepLR(optimizer_of(), 3)
    before, state = scheduler.state_dict(), scheduler.state_dict()
    change(state)
    with pytest.raises(errors.StateError, match=message):
        scheduler.load_state_dict(state)
    assert scheduler.state_dict() == before


def test_the_state_of_another_class():
    made = [make(optimizer_of(), **options) for make, options, _ in CASES] + [ReduceLROnPlateau(optimizer_of())]
    for scheduler in made:
        for other in made:
            alike = {type(scheduler), type(other)} == {LambdaLR, MultiplicativeLR}   # without their functions
            if scheduler is not other and not alike:
                with pytest.raises(errors.StateError, match="^state_dict: expected the keys"):
                    scheduler.load_state_dict(other.state_dict())
        for wrong in (None, [], {}):
            with pytest.raises(errors.StateError, match="^state_dict: expected"):
                scheduler.load_state_dict(wrong)
    with pytest.raises(errors.StateError, match=r"state_dict\['min_lrs'\]: expected 1 numbers"):
        made[-1].load_state_dict({**made[-1].state_dict(), "min_lrs": [0.1, 0.2]})


@pytest.mark.parametrize("schedulers, milestones, error, message", [
    (lambda o: [], [], ValueError, "milestones: expected one for each scheduler but the first, got 0 for 0"),
    (lambda o: [StepLR(o, 3)], [2], ValueError, "milestones: expected one for each .* got 1 for 1 schedulers"),
    (lambda o: [StepLR(o, 3), StepLR(o, 2)], [0], ValueError, r"milestones: expected epochs above 0 that rise, got"),
    (lambda o: [StepLR(o, 3)] * 3, [4, 2], ValueError, r"milestones: expected epochs above 0 that rise, got \[4, 2\]"),
    (lambda o: [StepLR(o, 3), ReduceLROnPlateau(o)], [2], TypeError, r"schedulers\[1\]: expected a scheduler, but no"),
    (lambda o: [StepLR(o, 3), None], [2], TypeError, r"schedulers\[1\]: expected a scheduler, .*got None"),
    (lambda o: [StepLR(optimizer_of(), 3)], [], ValueError, r"schedulers\[0\]: expected .* of the same optimizer"),
])
def test_wrong_sequences(schedulers, milestones, error, message):
    optimizer = optimizer_of()
    with pytest.raises(error, match=message):
        SequentialLR(optimizer, schedulers(optimizer), milestones)


def test_broken_states_of_a_sequence():
    optimizer = optimizer_of()
    scheduler = SequentialLR(optimizer, [ConstantLR(optimizer), StepLR(optimizer, 2)], [3])
    before = scheduler.state_dict()
    for change in (lambda s: s.update(_milestones=[4]), lambda s: s["_schedulers"].pop(),
                   lambda s: s["_schedulers"][1].update(gamma=-1.0), lambda s: s.update(base_lrs=[]),
                   lambda s: s.pop("last_epoch"), lambda s: s["_schedulers"].reverse()):
        state = scheduler.state_dict()
        change(state)
        with pytest.raises(errors.StateError):
            scheduler.load_state_dict(state)
        assert scheduler.state_dict() == before


def test_schedulers_and_optimizers_of_the_users_own():
    class Plain(Optimizer):
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data -= group["lr"] * p.grad

    x = Value(1.0)
    x.grad = 1.0
    optimizer = Plain([x], lr=0.5)
    scheduler = ExponentialLR(optimizer, 0.5)
    optimizer.step()
    scheduler.step()
    optimizer.step()
    assert x.data == 0.25


@pytest.mark.parametrize("start", [1.0, 0.7, 1.0 / 3])
def test_a_straight_line_may_end_at_0(start):
    for total in range(1, 60):
        optimizer = SGD([Value(1.0)], lr=0.1)
        scheduler = LinearLR(optimizer, start, 0.0, total)
        for _ in range(total + 3):
            optimizer.step()
            scheduler.step()
        assert 0.0 <= scheduler.get_last_lr()[0] < 1e-15
