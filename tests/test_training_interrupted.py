"""The training loop of the core: what it does with interrupts, faults, orders, labels, and parameters of one batch."""
import signal

import numpy as np
import pytest
from test_stops import SIDE, pressed, record, slow

import flatgrad
from flatgrad import Tensor, Value, _core
from flatgrad.optim import SGD

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def loop_of(program, n_samples, parameters, labels=None, width=1):
    columns = [np.linspace(0.1, 1.0, n_samples * width).reshape(n_samples, width)]
    return _core._Loop([program], [n_samples], n_samples, parameters, columns, [[0]], [[]], labels)


def parameters(w):
    made = _core.Parameters([w])
    made.sgd({}, None, 0.0, 0.0, 0.0, False, False)
    return made


def long_chain():
    """A step of more than 2**16 nodes."""
    w, v = Value(0.5), Value(2.0)
    f = flatgrad.compile(lambda x: slow(x[0][0] * w) * v)
    return f, [w], [v], np.array([[0.5]])


def long_product():
    """A step whose product is computed in parts."""
    w, v = Tensor(np.linspace(0.5, 1.0, SIDE * SIDE).reshape(SIDE, SIDE)), Value(1e-9)
    f = flatgrad.compile(lambda x: (x @ w).tanh().mean() * v)
    return f, [w], [v], np.linspace(-1.0, 1.0, SIDE * SIDE).reshape(SIDE, SIDE)


def numbers(leaves):
    return [np.array(x) for leaf in leaves for x in (leaf.data, leaf.grad)]


def same(found, expected):
    return all(np.array_equal(x, y) for x, y in zip(found, expected, strict=True))


@pytest.mark.parametrize("case", [long_chain, long_product])
def test_ctrl_c_in_a_step(case):
    """None of the step has happened, and neither has anything been added to gradients of what it does not update."""
    f, trained, others, x = case()

    def start():
        for leaf, (data, _) in zip([*trained, *others], first, strict=True):
            leaf.data, leaf.grad = data, 7.0
        return numbers([*trained, *others])

    first = [(leaf.data, leaf.grad) for leaf in (*trained, *others)]
    start()
    f.minimize(SGD(trained, 0.25), x, steps=1)
    expected = numbers([*trained, *others])
    for leaf, (data, _) in zip([*trained, *others], first, strict=True):   # the same by hand
        leaf.data, leaf.grad = data, 0.0
    f(x).backward()
    slopes = [np.array(leaf.grad) for leaf in (*trained, *others)]
    np.testing.assert_allclose(expected[0], first[0][0] - 0.25 * slopes[0], rtol=1e-12)
    np.testing.assert_allclose(expected[3], 7.0 + slopes[1], rtol=1e-12)
    asked = 0
    while True:
        before = start()
        if pressed(lambda: f.minimize(SGD(trained, 0.25), x, steps=1), asked) is not None:
            break
        found = numbers([*trained, *others])
        assert same(found[2:], before[2:]) and np.array_equal(found[0], before[0]) and _core._check()
        asked += 1
    assert same(numbers([*trained, *others]), expected)
    assert 1 < asked < 20
    heard = []
    old = signal.signal(signal.SIGINT, lambda *args: heard.append(1))   # it goes on with the same step
    try:
        for after in range(asked):
            start()
            _core._testing(stop_after=after)
            f.minimize(SGD(trained, 0.25), x, steps=1)
            assert same(numbers([*trained, *others]), expected) and len(heard) == after + 1
    finally:
        signal.signal(signal.SIGINT, old)
        _core._testing(stop_after=-1)


def test_an_operation_that_fails_in_a_step():
    """Whole steps have happened, and the error is that of the function."""
    w = Value(1.0)
    f = flatgrad.compile(lambda x: (x * w).log().sum())
    x = np.concatenate([np.linspace(0.5, 1.0, 40), np.linspace(-1.0, 0.5, 40)])
    with pytest.raises(ValueError, match=r"^math domain error: log\(-0\.6\)"):   # of -1.0, the first of them
        f.minimize(SGD([w], 0.01), x, steps=5, batch_size=40, shuffle=False)
    assert w.data == pytest.approx(1.0 - 0.01 * 40.0)   # the derivative of log(x w) by w is 1 / w


def test_a_parameter_of_one_of_two_programs():
    """The gradient of what is not updated stays as it is where a batch does not read it."""
    w, v = Value(1.0), Value(3.0)
    f = flatgrad.compile(lambda x: (x * w).sum() * (v if len(x) == 2 else 1.0))
    x = np.arange(8.0)
    v.grad = 5.0
    losses = f.minimize(SGD([w], 0.125), x, steps=3, batch_size=3, shuffle=False)
    weight, expected = 1.0, []
    for batch, factor in (x[:3], 1.0), (x[3:6], 1.0), (x[6:], 3.0):
        expected.append(batch.sum() * weight * factor)
        slope = batch.sum() * weight
        weight -= 0.125 * batch.sum() * factor
    assert losses.tolist() == expected and w.data == weight and v.grad == 5.0 + slope


def test_parameters_without_a_rule_are_not_updated():
    w = Value(2.0)
    w.grad = 9.0
    without = parameters(w)
    with pytest.raises(ValueError, match="state: expected arrays of shape"):   # and then it has none
        without.sgd({}, np.zeros(7), 0.9, 0.0, 0.0, False, False)
    program = record(lambda x: (x * w).sum(), Tensor(np.zeros((4, 1))))
    losses = np.zeros(3)
    assert loop_of(program, 4, [without]).run(3, [0.1], None, losses) == (3, None)
    assert w.data == 2.0 and w.grad == pytest.approx(2.2) and losses == pytest.approx([4.4] * 3)


def test_the_order_of_the_only_batch():
    """Samples of a whole batch come in the order that is given, and afterwards as they are."""
    w = Value(1.0)
    program = record(lambda x: (x * Tensor(2.0 ** np.arange(4.0)[:, None], requires_grad=False)).sum() * w,
                     Tensor(np.zeros((4, 1))))
    loop, x = loop_of(program, 4, [parameters(Value(0.0))]), np.linspace(0.1, 1.0, 4)
    losses = np.zeros(1)
    for order in [3, 1, 0, 2], None, [0, 1, 3, 2], None:
        loop.run(1, [0.1], None if order is None else np.array(order), losses)
        assert losses[0] == pytest.approx((x[order or slice(None)] * 2.0 ** np.arange(4.0)).sum())


@pytest.mark.parametrize("loss", [
    lambda x: flatgrad.losses.cross_entropy(x, [0, 1, 1]) + flatgrad.losses.cross_entropy(x * 2.0, [0, 1, 1]),
    lambda x: flatgrad.losses.cross_entropy(x[:2], [0, 1]),
    lambda x: x.sum(),
], ids=["two", "of fewer rows", "none"])
def test_labels_of_another_loss(loss):
    w = Value(1.0)
    program = record(lambda x: loss(x * w), Tensor(np.zeros((3, 2))))
    with pytest.raises(ValueError, match="labels: expected a program with one cross entropy of as many rows"):
        loop_of(program, 3, [parameters(w)], np.array([0, 1, 1]), 2)
