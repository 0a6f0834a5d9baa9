"""Ways through the core that hardly anybody goes: what is computed there is what NumPy, or the usual way, computes."""
import gc
import signal

import numpy as np
import pytest
from acting import acting_when_room_is_made

import flatgrad
from flatgrad import Tensor, Value, _core, nn
from flatgrad.errors import AnomalyError

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


# ---- attributes, rules, graphs ----

def test_a_node_of_no_operands_and_no_gradients():
    v = Value(2.0, (), ())
    y = v * 3.0
    y.backward()
    assert (y.data, v.grad, v._prev) == (6.0, 3.0, set())


def test_what_has_no_operands_takes_a_gradient_all_the_same():
    """Beside a leaf that takes none, so that somebody has to look."""
    frozen = Value(3.0)
    frozen.requires_grad = False
    named = Value(2.0, (), "in")
    anew = Value(2.0) * 5.0
    anew.__init__(2.0, (), local_grads=())
    for v in named, anew:
        (v * frozen).backward()
        assert (v.grad, v._prev, v._local_grads) == (3.0, set(), ())


def test_attributes_that_a_finalizer_has_made_first():
    class Late:
        def __del__(self):
            self.v.name = "theirs"

    v, old = Value(1.0), gc.get_threshold()
    gc.collect()
    gc.disable()
    try:
        late = Late()
        late.v, late.me = v, late
        del late
        rooms = [{} for _ in range(1000)]   # so that the next dict is one too many
        gc.set_threshold(1)
        gc.enable()
        v._op = "mine"   # before Python 3.12 the collector runs in there
    finally:
        gc.enable()
        gc.set_threshold(*old)
    gc.collect()
    assert (v._op, v.name, len(rooms)) == ("mine", "theirs", 1000)


def test_rows_that_become_fewer_while_room_is_made():
    rows = [[Value(1.0), Value(2.0)], [Value(3.0), Value(4.0)]]

    class Popping:
        def __array__(self, dtype=None, copy=None):
            rows[1].pop()
            return np.ones((2, 2))

    with flatgrad.scalar_graph(), pytest.raises(RuntimeError, match="a list changed while it was read"):
        flatgrad.linear(rows, Popping())


def test_what_is_drawn_of_a_constant_has_no_visit():
    a, b = Value(2.0), Value(3.0)
    a.requires_grad = False
    (node, operands, slopes), = _core._visits(a * b)
    assert node.data == 6.0 and [x.data for x in operands] == [2.0, 3.0] and slopes[1] == 2.0


@pytest.mark.parametrize("first", [True, False])
def test_a_node_with_a_rule_beside_the_one_to_blame(first):
    x = Value(0.0)
    a = x * 2.0
    with flatgrad.detect_anomaly(), pytest.raises(AnomalyError, match="sqrt"):
        b = x.sqrt()
        if not first:
            a = x * 2.0
        a._backward = lambda: None
        (a + b).backward()


@pytest.mark.parametrize("label", [None, "", "mine", 3])
def test_a_gradient_without_a_derivative_names_its_node(label):
    x = Value(0.5)
    rule = x * 2.0
    rule._backward = lambda: None
    for node in (Value(0.25, (x,), (1.0,)), rule):
        if label is not None:
            node.label = label
        with pytest.raises(TypeError, match=r"of Value\(data=\S+, _op='.*'" + (", label='mine'" if label == "mine" else "")
                           + r"\) is not known"):
            flatgrad.gradients(node * 3.0, [x], create_graph=True)


def test_inputs_that_become_fewer_while_room_is_made():
    w, x, b = [Value(1.0), Value(2.0)], [1.0, 2.0], Value(1.0)
    with acting_when_room_is_made(x.pop), pytest.raises(IndexError):
        _core.weighted_sum(w, x, b)
    assert x == [1.0]


def test_argmin_of_what_holds_numbers():
    class Holds:
        def __array__(self, dtype=None, copy=None):
            return np.array([3.0, 1.0, 2.0])

        def __iter__(self):
            return iter([1.0])

    for function, k in ((flatgrad.argmin, 1), (flatgrad.argmax, 0)):
        for x in ((3.0, 1.0, 2.0), [3.0, 1.0, 2.0], iter([3.0, 1.0, 2.0]), Tensor([3.0, 1.0, 2.0]),
                  np.array([3.0, 1.0, 2.0]), Holds(), range(3, 0, -1)):
            expected = k if not isinstance(x, range) else (2 if k else 0)
            assert function(x) == expected
    for x in (Value(1.0), list, 1.0, "ab"):
        with pytest.raises(TypeError, match="argmin"):
            flatgrad.argmin(x)


# ---- restored parts ----

def saved_run(length, numbers, *programs):
    return (3, ("RUN",), b"\0", b"", b"", np.array([length], "<i4").tobytes(), b"", np.array(numbers).tobytes(),
            bytes(8 * len(numbers)), bytes(4), b"", *programs)


def test_a_part_of_a_restored_run_is_one_object():
    run = _core._member(_core._restore_graph([], saved_run(3, [1.0, 2.0, 3.0]), (), None), 0)
    part = _core._restore_part(Value, run, 1)
    assert part.data == 2.0 and _core._restore_part(Value, run, 1) is part
    for index in (-1, 3, 2**70, 1.0, True, "1", None):
        with pytest.raises(ValueError, match="expected a position below 3, got"):
            _core._restore_part(Value, run, index)


@pytest.mark.parametrize("length", [0, -1, -2**31, 2**30, 2**31 - 1])
def test_a_saved_run_has_a_length(length):
    with pytest.raises(ValueError, match=f"a run has the length {length}"):
        _core._restore_graph([], saved_run(length, [0.0]), (), None)


@pytest.mark.parametrize("programs", [[], None, (1,), (_core._Body.__new__(_core._Body),)])
def test_saved_programs_are_programs(programs):
    with pytest.raises(ValueError, match="expected programs, got"):
        _core._restore_graph([], saved_run(1, [0.0], programs), (), None)


# ---- what users put in the place of ours ----

def test_operators_of_a_user_in_a_neuron():
    model, called = nn.Neuron(2), []
    w = [Value(0.5), Value(0.25)]
    ours = Value.__add__
    Value.__add__ = lambda a, b: called.append(1) or ours(a, b)
    try:
        assert _core.weighted_sum(w, [2.0, 4.0], Value(1.0)).data == 3.0
        assert len(called) == 2 and isinstance(model([1.0, 2.0]), Value)
    finally:
        Value.__add__ = ours
    assert _core.weighted_sum(w, [2.0, 4.0], Value(1.0)).data == 3.0


def test_an_init_of_a_user():
    ours = Value.__init__

    def init(self, *arguments, **named):
        ours(self, *arguments, **named)
        self.seen = True

    Value.__init__ = init
    try:
        assert Value(2.0).seen and Value(3.0).data == 3.0
    finally:
        Value.__init__ = ours
    assert Value(2.0).data == 2.0 and not hasattr(Value(2.0), "seen")


def test_neurons_of_a_user_take_rows():
    class Twice(nn.Neuron):
        def __call__(self, x):
            return 2.0 * super().__call__(x)

    layer = nn.Layer(2, 3)
    plain = layer([[1.0, 2.0], (3.0, 4.0)]).data
    for neuron in layer.neurons:
        neuron.__class__ = Twice
    for x in ([[1.0, 2.0], (3.0, 4.0)], ([1.0, 2.0], [3.0, 4.0]), np.array([[1.0, 2.0], [3.0, 4.0]]),
              Tensor([[1.0, 2.0], [3.0, 4.0]])):
        np.testing.assert_array_equal(layer(x).data, 2.0 * plain)
    with pytest.raises((TypeError, ValueError)):
        layer([[1.0, 2.0], 3.0])


def test_a_backward_pass_from_a_node_without_operands():
    for v in (Value(2.0, (), ()), Value(2.0, (), "made"), Value(2.0, (), "made") * 2.0):
        v.backward()
        assert v.grad == 1.0


# ---- layers of which some results are wanted ----

@pytest.mark.parametrize("way", ["matvec", "row", "second row"])
@pytest.mark.parametrize("n, reached", [(40, 24), (50, 14), (63, 1), (33, 31), (100, 72)])
def test_results_that_nobody_wants_reach_no_weight(n, reached, way):
    u = [Value(0.0) for _ in range(n)]
    w = [[x + 1.0] if j < reached else [x.sqrt()] for j, x in enumerate(u)]   # whose derivative is inf
    if way == "matvec":
        out = flatgrad.matvec(w, [2.0])
    else:
        out = list(flatgrad.linear(Tensor([[2.0], [2.0]]), Tensor(w))[0 if way == "row" else 1])
    sum(out[:reached]).backward()
    assert [x.grad for x in u] == [2.0] * reached + [0.0] * (n - reached)


# ---- programs ----

def test_instructions_of_one_kind_side_by_side_and_apart():
    recording = _core._Recording([x := Value(0.5), y := Value(0.25)])
    with recording:
        z = (x.sin().sin().sin() * y.cos()).sin()
    kinds = _core._timed(recording.program([z]), 1e-5)["kinds"]
    assert set(kinds) == {"sin", "*", "cos"}


def test_a_saved_program_whose_segments_leave_operands_out():
    x = Tensor([1.0, 2.0, 3.0])
    recording = _core._Recording([x])
    with recording:
        y = x * x
    make, (operands, results, segments) = _core._callee(recording.program([y])).__reduce__()
    assert segments == ((1, 3),)
    assert _core._with_gradients(make(operands, results, ((1, 2),)), [True], True)[1] == [(0, 3)]
    with pytest.raises(ValueError, match="the step of a scan has other operands"):
        _core._restore_scan(make(operands, results, ((2, 2),)), 3, 1, 0, (), False, 0)


def test_the_second_element_is_out_of_the_domain():
    f = flatgrad.compile(lambda p, t: flatgrad.losses.binary_cross_entropy(p, t))
    p, t = Tensor([0.5] * 7), Tensor([1.0] * 7)
    assert f(p, t).data == pytest.approx(np.log(2.0))
    p.data = [0.5, 1.5] + [0.5] * 5
    with pytest.raises(ValueError, match="1.5 binary_cross_entropy 1.0"):
        f(p, t)


@pytest.mark.parametrize("at", [0, 1])
def test_the_gradient_of_one_element_that_was_taken(at):
    a, c = Value(2.0), Value(3.0)
    y = flatgrad.take([a * 1.0, c], [Value(at)]).sum() * a   # a constant, as nobody holds it
    slope, = flatgrad.gradients(y, a, create_graph=True)
    assert slope.data == (4.0, 3.0)[at]
    again, = flatgrad.gradients(slope, c if at else a)
    assert again.data == (2.0, 1.0)[at]


def test_a_gradient_that_a_rule_keeps():
    kept = []
    twice = flatgrad.custom_derivative(lambda x: x * 2.0)
    twice.defvjp(lambda x: (x * 2.0, None), lambda _, g: (kept.append(g * 2.0) or kept[-1],))
    x = Tensor([1.0, 2.0, 3.0])
    slopes, = flatgrad.gradients((twice(x) * twice(x)).sum(), x, create_graph=True)
    assert slopes.numpy().tolist() == [8.0, 16.0, 24.0]
    again, = flatgrad.gradients(slopes.sum(), x)
    assert again.numpy().tolist() == [8.0] * 3
    slopes, = flatgrad.gradients(twice(x).sum(), x, create_graph=True)
    assert slopes is not kept[-1] and slopes.numpy().tolist() == [2.0] * 3


# ---- Ctrl-C at each question ----

def at_each_question(function, same):
    """`function` is asked to stop at each of its pauses, by a handler that goes on. How many there are."""
    heard, expected = [], function()
    old = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        for k in range(200):
            del heard[:]
            _core._testing(stop_after=k)
            try:
                found = function()
            finally:
                _core._testing(stop_after=-1)
            same(found, expected)
            if not heard:
                break
    finally:
        signal.signal(signal.SIGINT, old)
    return k


def test_a_table_of_gradients_is_the_same_after_ctrl_c():
    def f(x):
        y = [x * k for k in range(1, 4)]
        for _ in range(40_000):
            y = [v.sin() for v in y]
        return flatgrad.stack(y)

    jacobian = flatgrad.jacobian(flatgrad.compile(f))
    assert at_each_question(lambda: jacobian(0.5), np.testing.assert_array_equal) > 0


def test_a_written_derivative_of_a_large_product_is_interrupted():
    rng = np.random.default_rng(1)
    x, w = (Tensor(rng.integers(-3, 4, size=(900, 250)).astype(float)) for _ in range(2))
    y = (flatgrad.linear(x, w)**2).sum()
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    nodes = flatgrad.stats()["nodes"]
    try:
        _core._testing(stop_after=0)
        with pytest.raises(KeyboardInterrupt):
            flatgrad.gradients(y, [x], create_graph=True)
    finally:
        _core._testing(stop_after=-1)
        signal.signal(signal.SIGINT, old)
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] == nodes
    slope, = flatgrad.gradients(y, [x], create_graph=True)
    np.testing.assert_array_equal(slope.data, 2.0 * x.data @ w.data.T @ w.data)


# ---- kl_div of nothing ----

@pytest.mark.parametrize("rows", [1, 9])
def test_a_share_of_zero(rows):
    x, y = np.full((rows, 2), -0.5), np.tile([0.0, 1.0], (rows, 1))
    t = Tensor(x)
    z = flatgrad.losses.kl_div(t, Tensor(y, requires_grad=False), reduction="none")
    np.testing.assert_array_equal(z.data, np.tile([0.0, 0.5], (rows, 1)))
    z.sum().backward()
    np.testing.assert_array_equal(t.grad, -y)
    a, b = Value(-0.5), Value(0.0)
    loss = flatgrad.losses.kl_div(a, b)
    assert loss.data == 0.0


# ---- memory that is not there, in a backward pass ----

@pytest.mark.parametrize("fail_after", range(4))
def test_most_results_of_a_layer_without_scratch_memory(fail_after):
    rng = np.random.default_rng(2)
    x, w = (rng.integers(-3, 4, size=shape).astype(float) for shape in ((150, 130), (140, 130)))
    tx, tw = Tensor(x), Tensor(w)
    z = flatgrad.linear(tx, tw)
    total = z[:149, ::2].sum()
    _core._testing(fail_after=fail_after)
    try:
        total.backward()
    except MemoryError:
        assert not tx.grad.any() and not tw.grad.any()
        _core._testing(fail_after=-1)
        total.backward()
    finally:
        _core._testing(fail_after=-1)
    g = np.zeros((150, 140))
    g[:149, ::2] = 1.0
    np.testing.assert_array_equal(tx.grad, g @ w)
    np.testing.assert_array_equal(tw.grad, g.T @ x)


# ---- batches, and scans in them ----

def held_in_lanes(f, rows):
    """The mean and its gradient, in lanes, are those of the rows one by one."""
    f = flatgrad.compile(f)
    value, gradient = flatgrad.value_and_grad(f, in_axes=0)(rows)
    pairs = [flatgrad.value_and_grad(f)(row) for row in rows]
    np.testing.assert_allclose(value, np.mean([float(v) for v, _ in pairs]), rtol=1e-12)
    np.testing.assert_allclose(gradient, np.array([g for _, g in pairs], dtype=float) / len(pairs), rtol=1e-9)


def test_a_scan_of_more_numbers_than_a_cache_has_room_for():
    size, w = 3000, Value(0.5)

    def f(x):
        return flatgrad.scan(lambda c, _: ((c * w).sin().cos(), None), x * np.ones(size), length=2)[0].sum()

    held_in_lanes(f, np.linspace(0.1, 1.0, 65))


def test_a_long_scan_of_many_numbers():
    size, length = 100, 1000
    weights = np.linspace(0.9, 1.1, size)

    def f(x):
        last, _ = flatgrad.scan(lambda c, _: (((c * weights).sin() + c) * 0.5, None), x * np.ones(size), length=length)
        return last.sum()

    held_in_lanes(f, np.linspace(0.1, 1.0, 40))


def test_a_scan_of_one_step_that_fills_a_cache():
    def step(c, _):
        for _ in range(9000):
            c = c.sin() + 0.5
        return c, None

    def f(x):
        return flatgrad.scan(step, x, length=4)[0]

    held_in_lanes(f, np.linspace(0.1, 1.0, 40))


@pytest.mark.parametrize("before", [0, 1])
def test_a_scan_with_a_product_of_too_many_terms_for_lanes(before):
    size = 140
    matrix = Tensor(np.cos(np.arange(size * size)).reshape(size, size) / size, requires_grad=False)

    def step(c, _):
        if before:
            c = c * c[0].sin()
        return matrix @ c, None

    def f(x):
        return flatgrad.scan(step, x * np.ones(size), length=3)[0].sum()

    held_in_lanes(f, np.linspace(0.1, 1.0, 8))


def test_elements_of_constants_and_others_in_a_batch():
    a, constant = Value(2.0), Value(3.0)
    constant.requires_grad = False

    def f(x, k):
        return flatgrad.pick([[x, constant, a * x]], [k]).sum() * x

    compiled = flatgrad.compile(f)
    rows, places = np.linspace(0.1, 1.0, 70), np.arange(70) % 3
    _, gradient = flatgrad.value_and_grad(compiled, in_axes=(0, 0))(rows, places)
    u = np.array([2.0 * rows, 3.0 * np.ones(70), 4.0 * rows])[places, np.arange(70)]
    np.testing.assert_allclose(gradient, u / 70, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_share_below_zero_in_a_batch(dtype):
    f = flatgrad.compile(lambda x, y: flatgrad.losses.kl_div(x, y), dtype=dtype)
    rows = np.full(20, -0.5)
    with pytest.raises(ValueError, match="y >= 0|kl_div"):
        flatgrad.value_and_grad(f, in_axes=(0, 0))(rows, -rows * np.where(np.arange(20) == 7, -1.0, 1.0))


def test_a_batch_without_a_logarithm_after_one_with_it():
    w = Value(2.0)
    f = flatgrad.compile(flatgrad.vmap(lambda x: w.log() * x * x))
    x = Tensor(np.linspace(0.1, 1.0, 70))
    for _ in range(3):
        f(x).sum().backward()
    w.data = -1.0
    with pytest.raises(ValueError, match="log"):
        f(x)
    w.data, w.grad, x.grad = 2.0, 0.0, 0.0
    f(x).sum().backward()
    assert w.grad == pytest.approx((x.data**2).sum() / 2.0)


def test_weights_in_a_column_of_which_the_program_computes_the_second():
    a = np.linspace(-1.0, 2.0, 30)
    rows, layer = Tensor(a[:, None]), nn.Layer(1, 2, activation="linear", bias=False)
    w = Value(3.0)   # two slots below the first number of the program, so that the two are a view with a step
    layer.neurons[0].w = [w]

    @flatgrad.compile
    def f():
        layer.neurons[1].w = [w * w]
        return layer(rows).sum()

    for w.data in (3.0, 4.0):
        w.grad = 0.0
        out = f()
        out.backward()
        assert out.data == pytest.approx((w.data + w.data**2) * a.sum())
        assert w.grad == pytest.approx((1.0 + 2.0 * w.data) * a.sum())
