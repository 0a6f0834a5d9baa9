"""detect_anomaly: the operation and the line that first made a nan or inf; nothing is different outside it."""
import gc
import itertools
import math
import random
import threading

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core, detect_anomaly, is_anomaly_enabled, nn, optim, set_detect_anomaly
from flatgrad.errors import AnomalyError, FlatgradError
from test_ops import ORACLE, ROWS

pytestmark = pytest.mark.usefixtures("moving")
INF, NAN = math.inf, math.nan
HUGE = (1e308, -1e308, 1e-308, 0.0, -0.0, 1.0, -2.0, 709.0, 5e-324)


def anomaly(function, *args):
    """The error that a function raises within detect_anomaly."""
    with detect_anomaly(), pytest.raises(AnomalyError) as caught:
        function(*args)
    return caught.value


def bits(x):
    return np.asarray(x, np.float64).tobytes()


# ---- every operation ----

def operands_of(op):
    arity = ROWS[op]["arity"]
    for xs in itertools.product(HUGE if arity < 3 else HUGE[:6:2], repeat=arity):
        if ORACLE[op].immediate:
            yield from ((*xs[:1], k) for k in (2, 3, -1))
        else:
            yield xs


def applied(op, xs, tensors=False):
    """Its operands, and its result; None if it is an error in any case."""
    if tensors:
        nodes = [Tensor([1.0, x]) if not ORACLE[op].immediate or k == 0 else x for k, x in enumerate(xs)]
    else:
        nodes = [Value(x) if not ORACLE[op].immediate or k == 0 else x for k, x in enumerate(xs)]
    try:
        return nodes, ORACLE[op].apply(*nodes)
    except (ValueError, ArithmeticError):
        return None


WHERE = "applied", "<lambda>"   # that of ORACLE, if it is written in Python
CHECKED = [op for op in ROWS if op in ORACLE and not ORACLE[op].order]


@pytest.mark.parametrize("op", CHECKED)
def test_every_operation_forward_and_backward(op):
    """From finite operands: an error where there is a nan or inf outside, and the same bits where there is none."""
    for xs in operands_of(op):
        found = applied(op, xs)
        if found is None:
            continue
        nodes, z = found
        if not math.isfinite(z.data):
            error = anomaly(applied, op, xs)
            assert error.phase == "forward" and bits(error.result) == bits(z.data)
            assert error.operation == z._op and error.function in WHERE and error.lineno
            assert bits(error.operands[:1]) == bits([float(xs[0])])
            continue
        for seed in (1.0, 1e300, 0.0):
            for x in (*nodes, z):
                if isinstance(x, Value):
                    x.grad = 0.0
            z.backward(seed)
            gradients = [x.grad for x in nodes if isinstance(x, Value)]
            with detect_anomaly():
                again, y = applied(op, xs)
                assert bits(y.data) == bits(z.data)
                if all(map(math.isfinite, gradients)):
                    y.backward(seed)
                    assert bits([x.grad for x in again if isinstance(x, Value)]) == bits(gradients)
                    continue
                error = anomaly(y.backward, seed)
                assert (error.phase, error.operation) == ("backward", z._op) and error.function in WHERE
                assert error.gradient == seed and not math.isfinite(error.result)
                assert not math.isfinite(gradients[error.operand])


@pytest.mark.parametrize("op", CHECKED)
def test_every_operation_on_tensors(op):
    for xs in itertools.islice(operands_of(op), 0, None, 7):
        found = applied(op, xs, True)
        if found is None or not isinstance(found[1], Tensor):
            continue
        data = found[1].data
        if np.isfinite(data).all():
            with detect_anomaly():
                assert bits(applied(op, xs, True)[1].data) == bits(data)
        else:
            error = anomaly(applied, op, xs, True)
            at = error.element[1]
            assert error.phase == "forward" and error.element[0] == 0 and not np.isfinite(data[at])
            assert np.isfinite(data[:at]).all(), "the first"


BIG = Tensor([[1e308, 1e308], [1.0, 2.0]])
INSTRUCTIONS = {
    "sum": lambda t: t.sum(), "mean": lambda t: t.mean(), "sum along": lambda t: t.sum(axis=1), "@": lambda t: t @ t,
    "linear": lambda t: flatgrad.linear(t, [[1.0, 1.0]], [0.5]), "dot": lambda t: flatgrad.dot(list(t[0]), [1.0, 1.0]),
    "matvec": lambda t: flatgrad.matvec(t, [1.0, 1.0]), "*": lambda t: t * t,
    "layer": lambda t: nn.Layer(2, 1)(t * 10.0),
    "mae": lambda t: flatgrad.losses.mae(t, np.zeros((2, 2))), "MLP": lambda t: nn.MLP(2, [3, 1])(t * 100.0),
    "prod": lambda t: np.prod(t), "std": lambda t: np.std(t),
}


@pytest.mark.parametrize("name", INSTRUCTIONS)
@pytest.mark.parametrize("around", [detect_anomaly, flatgrad.no_grad, flatgrad.scalar_graph])
def test_instructions(name, around):
    flatgrad.collect()
    nodes = flatgrad.stats()["nodes"]
    with around():
        error = anomaly(INSTRUCTIONS[name], BIG)
    assert error.phase == "forward" and not math.isfinite(error.result) and error.function == "<lambda>"
    assert error.filename == __file__ and f'"{name}": lambda' in error.line
    assert all(map(math.isfinite, error.operands)) and error.operands
    del error
    gc.collect()
    flatgrad.collect()
    assert flatgrad.stats()["nodes"] == nodes


def test_masks_are_no_anomaly_and_a_row_without_anything_is():
    scores = Tensor([[1.0, 2.0], [3.0, 4.0]])
    with detect_anomaly():
        masked = scores + np.array([[0.0, -INF], [0.0, 0.0]])
        p = masked.softmax()
        (p * p).sum().backward()
    assert p[0, 1].data == 0.0 and np.isfinite(scores.grad).all()
    error = anomaly(lambda: (scores + np.array([[-INF, -INF], [0.0, 0.0]])).softmax())
    assert error.operation == "softmax" and error.element == (0, 0) and "mask" in str(error)


def test_an_operand_that_was_nan_says_where_it_comes_from():
    def leaf():
        return Tensor([1.0, NAN])

    error = anomaly(lambda: leaf() * 2.0)
    assert "already; a leaf made" in str(error) and "in leaf" in str(error) and math.isnan(error.operands[0])
    outside = Value(NAN)
    error = anomaly(lambda: outside + 1.0)
    assert "not known" in str(error) and error.function == "<lambda>"


# ---- the line ----

PLANTED = ("planted * planted", "root = zero.sqrt()")


def plant_forward(x):
    planted = x * 0.0 + 1e200
    planted * planted


def plant_backward(x):
    zero = x - x
    root = zero.sqrt()
    return root


@pytest.mark.parametrize("kind", ["scalars", "tensors"])
@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_a_planted_anomaly_is_found_in_random_programs(kind, phase):
    """The culprit is known by construction: 1,000 programs, half of each kind, in either way of numbering."""
    for seed in range(125):
        rng = random.Random(f"{kind} {phase} {seed}")
        leaves = [Value(rng.uniform(-1.0, 1.0)) if kind == "scalars"
                  else Tensor([rng.uniform(-1.0, 1.0) for _ in range(3)]) for _ in range(3)]
        count, caught = rng.randrange(5, 40), None
        at = rng.randrange(count)
        with detect_anomaly():
            try:
                nodes, planted = list(leaves), None
                for k in range(count):
                    x, y = rng.choice(nodes), rng.choice(nodes)
                    if k == at and phase == "forward":
                        plant_forward(x)
                    if k == at and phase == "backward":
                        planted = plant_backward(x)
                    nodes.append(rng.choice([lambda: x + y, lambda: x - y, lambda: x * y, x.tanh, lambda: x * 0.5,
                                             lambda: flatgrad.sin(x), lambda: (x + y) / 2.0, lambda: 1.0 - x])())
                    if rng.random() < 0.5:
                        nodes.pop(rng.randrange(len(nodes)))
                    if planted is not None and k > at and rng.random() < 0.3:
                        planted = planted * nodes[-1] if rng.random() < 0.5 else planted + nodes[-1]
                total = planted * 1.0
                for x in nodes:
                    total = total + x
                (total if kind == "scalars" else total.sum()).backward()
            except AnomalyError as error:
                caught = error
        assert caught is not None, (kind, phase, seed)
        assert (caught.phase, caught.function) == (phase, f"plant_{phase}"), (seed, str(caught))
        assert caught.line == PLANTED[phase == "backward"] and caught.line in str(caught), (seed, str(caught))
        assert caught.operation == ("*" if phase == "forward" else "sqrt")


def test_lines_follow_collections_and_temporaries():
    with detect_anomaly():
        kept = []
        for k in range(300):
            x = Value(float(k != 150))
            y = x.sqrt()
            z = y * 2.0
            kept.append((x, z))
            garbage = [Value(1.0) * 2.0 for _ in range(k % 5)]
            del garbage
        flatgrad.collect()
        total = Value(0.0)
        for x, z in kept:
            total = total + z
        with pytest.raises(AnomalyError) as caught:
            total.backward()
    assert caught.value.line == "y = x.sqrt()" and caught.value.node is kept[150][0]


def test_code_without_a_file():
    space = {"Value": Value}
    error = anomaly(exec, "x = Value(1e200)\ny = x * x", space)
    assert (error.filename, error.lineno, error.line) == ("<string>", 2, None)
    assert 'File "<string>", line 2' in str(error)


# ---- backward ----

def test_what_was_there_before_the_pass():
    x = Value(2.0)
    with detect_anomaly():
        y = x * x
    x.grad = NAN
    error = anomaly(y.backward)
    assert "before the pass" in str(error) and error.node is x and y.grad in (0.0, 1.0)
    x.grad = 0.0
    error = anomaly(y.backward, INF)
    assert "begins with the gradient inf" in str(error) and error.node is y
    y.backward(1.0)
    assert x.grad == 4.0


def test_a_sum_of_finite_gradients():
    x = Value(1e-300)
    error = anomaly(lambda: (x * 1e308 + x * 1e308).backward())
    assert "a sum of the gradients" in str(error) and error.node is x and error.phase == "backward"


def test_constants_have_no_gradient():
    """That of 1e-200 would be inf, but nobody can see it."""
    x = Value(1e-100)
    with detect_anomaly():
        (x / 1e-200).backward()
    assert x.grad == 1e200


def test_rules_of_users_are_named():
    x = Value(2.0)
    x.label = "x"
    out = Value(8.0, (x,), "cube")

    def cube_rule():
        x.grad += INF * out.grad

    out._backward = cube_rule
    error = anomaly(lambda: (out * 2.0).backward())
    assert error.rule is cube_rule and "cube_rule" in str(error) and "'x'" in str(error) and error.operation == "cube"
    assert error.node is x and error.gradient == 2.0

    f = flatgrad.custom_derivative(lambda x: x * 1.0)
    f.defvjp(lambda x: (x * 1.0, None), lambda _, g: (np.inf,))
    error = anomaly(lambda: f(Value(1.0)).backward())
    assert error.phase == "backward" and math.isinf(error.result)
    del out._backward


def test_a_node_with_a_number_of_a_users():
    a = Value(3.0)
    error = anomaly(lambda: Value(INF, (a,), "mine"))
    assert (error.operation, error.operands, error.result) == ("mine", (3.0,), INF)
    error = anomaly(lambda: Value(1.0, (a,), (INF,)).backward())
    assert (error.phase, error.operands, error.operand) == ("backward", (3.0,), 0)


def test_written_derivatives_have_the_line_of_their_operation():
    x = Value(0.0)
    with detect_anomaly():
        y = x.sqrt()
        with pytest.raises(AnomalyError) as caught:
            flatgrad.gradients(y, x, create_graph=True)
    assert caught.value.phase == "backward" and caught.value.line == "y = x.sqrt()"


@pytest.mark.parametrize("n", [0, 1, 2])
def test_the_operand_and_the_element(n):
    numbers = [1.0, 4.0, 9.0]
    numbers[n] = 0.0
    t = Tensor(numbers)
    error = anomaly(lambda: (t.sqrt() * 3.0).sum().backward())
    assert (error.operation, error.element, error.gradient, error.result) == ("sqrt", (0, n), 3.0, INF)
    assert error.node is t[n]


# ---- programs, training ----

def loss_of(w, x):
    y = w * x
    return (y * y - x) ** 2


def test_compiled_functions_run_in_python():
    w = Value(0.5)
    compiled = flatgrad.compile(lambda x: loss_of(w, x))
    plain = compiled(2.0).data
    with detect_anomaly():
        assert compiled(2.0).data == pytest.approx(plain)
    error = anomaly(compiled, 1e200)
    assert error.function == "loss_of" and error.line == "return (y * y - x) ** 2"
    for transformed in (flatgrad.vmap(compiled), flatgrad.value_and_grad(compiled), flatgrad.grad(compiled),
                        flatgrad.jacobian(compiled), flatgrad.hessian(compiled)):
        error = anomaly(transformed, np.array([1e200, 1.0]) if transformed.__name__.startswith("vmap") else 1e200)
        assert error.function == "loss_of"
    error = anomaly(lambda: flatgrad.scan(lambda c, x: (c * x, c), 1e100, np.full(9, 1e100)))
    assert error.operation == "*"
    error = anomaly(lambda: flatgrad.fori_loop(0, 9, lambda i, c: c * 1e100, 1e100))
    assert error.operation == "*"
    assert compiled(2.0).data == plain and compiled.cache_info().hits > 0


@pytest.mark.parametrize("size", [None, 3, 4])
@pytest.mark.parametrize("every, schedule", [(1, None), (2, lambda step: 0.1 / (1 + step))])
def test_minimize_takes_the_same_steps(size, every, schedule):
    x, found = np.linspace(-1.0, 1.0, 8), []
    for watched in (False, True):
        w = Value(0.3)
        sgd = optim.SGD([w], lr=0.1, momentum=0.5)
        loss = flatgrad.compile(lambda t: ((w * t - 2.0 * t) ** 2).mean())
        with set_detect_anomaly(watched):
            losses = loss.minimize(sgd, x, steps=11, batch_size=size, seed=3, every=every, schedule=schedule,
                                   callback=None if every == 1 else lambda step, loss: None)
        found.append((losses, w.data, sgd.param_groups[0]["lr"]))
    assert np.allclose(found[0][0], found[1][0], rtol=1e-12) and found[0][1:] == pytest.approx(found[1][1:])
    w = Value(1e200)
    loss = flatgrad.compile(lambda t: (w * t * (w * t)).mean())
    assert anomaly(lambda: loss.minimize(optim.SGD([w]), x, steps=3)).phase == "forward"


def test_a_step_of_an_optimizer():
    x, t = Value(1.0), Tensor([1.0, 1e300])
    sgd = optim.SGD([x, t], lr=1e10)
    t.grad = [0.0, 1e300]
    error = anomaly(sgd.step)
    assert error.phase == "step" and error.result == -INF and error.node is t[1]
    assert "parameter 1 of group 0" in str(error)


def test_a_trainer_runs_in_python():
    X, y = np.array([[0.0, 1.0], [1.0, 0.0]] * 40), np.array([1.0, -1.0] * 40)
    model = nn.MLP(2, [4, 1])
    trainer = flatgrad.train.Trainer(model, loss="hinge", optimizer=optim.SGD(model.parameters(), lr=0.01))
    with detect_anomaly():
        trainer.fit(X, y, epochs=30)
    assert trainer.engine == "python: detect_anomaly() is on"
    model.parameters()[0].data = 1e308
    error = anomaly(lambda: trainer.fit(X * 1e10, y, epochs=1))
    assert error.operation == "layer" and error.phase == "forward"


# ---- the mode ----

def test_blocks_nest_and_end():
    assert not is_anomaly_enabled() and issubclass(AnomalyError, (FlatgradError, RuntimeError))
    with detect_anomaly():
        with detect_anomaly():
            assert is_anomaly_enabled()
        assert is_anomaly_enabled()
        with set_detect_anomaly(False):
            assert not is_anomaly_enabled() and math.isinf((Value(1e200) * 1e200).data)
        assert is_anomaly_enabled()
        set_detect_anomaly(False)
        assert not is_anomaly_enabled()
    assert not is_anomaly_enabled()
    for _ in range(3):
        set_detect_anomaly(True)
        assert is_anomaly_enabled()
        set_detect_anomaly(False)
        assert not is_anomaly_enabled()
    with pytest.raises(TypeError, match="mode"):
        set_detect_anomaly("on")
    assert _core._open_blocks() == (0, 0)
    assert math.isinf((Value(1e200) * 1e200).data)


def test_a_decorator():
    @detect_anomaly()
    def square(x):
        return x * x

    assert square(Value(2.0)).data == 4.0 and square.__name__ == "square"
    with pytest.raises(AnomalyError):
        square(Value(1e200))
    with pytest.raises(TypeError, match="detect_anomaly"):
        detect_anomaly()(lambda: (yield))
    assert not is_anomaly_enabled()


def test_other_threads_go_on_as_before():
    found = []
    with detect_anomaly():
        def work():
            x = Value(1e200)
            y = x * x
            y.backward()
            found.extend([is_anomaly_enabled(), y.data, x.grad])

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert is_anomaly_enabled()
    assert found == [False, INF, 2e200]


def test_generators_are_left_alone():
    def numbers():
        with detect_anomaly():
            yield 1
            yield 2

    generator = numbers()
    next(generator)
    assert not is_anomaly_enabled() and math.isinf((Value(1e200) * 1e200).data)
    generator.close()


def test_random_programs_have_the_same_bits():
    """Numbers and gradients, rules and collections among them."""
    def run(seed):
        rng = random.Random(seed)
        leaves = [Value(rng.uniform(-1.0, 1.0)) for _ in range(4)]
        t = Tensor([[rng.uniform(-1.0, 1.0) for _ in range(3)] for _ in range(2)])
        nodes = [*leaves, t.sum(), t[1, 2]]
        for _ in range(60):
            x, y = rng.choice(nodes), rng.choice(nodes)
            nodes.append(rng.choice([lambda: x + y, lambda: x * y, x.tanh, x.relu, lambda: (t * x).softmax()[0, 1],
                                     lambda: flatgrad.maximum(x, y), lambda: nn_of(t, y), lambda: x / 3.0])())
        total = flatgrad.sum(nodes[-20:]).tanh()
        total.backward()
        return bits([total.data, *[x.grad for x in leaves]]) + bits(t.grad)

    def nn_of(t, y):
        return flatgrad.linear(t, [[0.1, 0.2, 0.3]], None, "tanh")[1, 0] * y

    for seed in range(40):
        plain = run(seed)
        with detect_anomaly():
            assert run(seed) == plain


class Cycle:
    """Garbage whose finalizer works on the tape."""

    kept = []

    def __init__(self):
        self.me, self.value = self, Value(1.0)

    def __del__(self):
        x = Value(2.0) * 3.0
        (x * self.value).backward()
        Cycle.kept = [*Cycle.kept[-3:], x]
        flatgrad.collect()


def test_finalizers_at_every_allocation():
    """Noting a line may run Python's collector, and finalizers that renumber and append."""
    def run(seed):
        rng = random.Random(seed)
        leaves = [Value(rng.uniform(-1.0, 1.0)) for _ in range(3)]
        t = Tensor([rng.uniform(-1.0, 1.0) for _ in range(3)])
        nodes = [*leaves, t[0], t.sum()]
        for _ in range(25):
            Cycle()
            x, y = rng.choice(nodes), rng.choice(nodes)
            nodes.append(rng.choice([lambda: x + y, lambda: x * y, lambda: 2.0 - x, x.tanh, lambda: (t * x).max(),
                                     lambda: flatgrad.softmax([x, y, 1.0])[1], lambda: flatgrad.where(x, y, 0.5)])())
        total = flatgrad.sum(nodes)
        total.backward()
        with flatgrad.no_grad():
            after = total * 2.0
        return bits([total.data, after.data, *[x.grad for x in leaves]]) + bits(t.grad)

    before = gc.get_threshold()
    try:
        for seed in range(10):
            plain = run(seed)
            gc.set_threshold(1)
            with detect_anomaly():
                assert run(seed) == plain
                with pytest.raises(AnomalyError):
                    Value(1e200) * 1e200
            assert _core._check()
            gc.set_threshold(*before)
    finally:
        gc.set_threshold(*before)
        gc.collect()
        Cycle.kept = []
        gc.collect()
