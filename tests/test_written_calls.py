"""Written derivatives of calls: of compiled functions, scans and batches, up to the third, against those of the same
operations without a call; and against JAX where it is installed."""
import copy
import gc
import pickle
import threading

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, _core
from flatgrad._core import derivatives, written

CASES = {}


def case(make):
    """make(called) returns an output, a Value, and the inputs. called: whether by calls."""
    CASES[make.__name__] = make
    return make


def numbers(count, *shape):
    return np.random.default_rng(count).normal(size=shape)


@case
def program(called, **options):
    x, y, w = Tensor(numbers(1, 3)), Tensor(numbers(2, 4)), Tensor(numbers(3, 4, 3))

    def f(x, y, w):
        h = flatgrad.linear(x, w).tanh()
        return (h * y).sum() + (x * x).sum() * y[0]

    f = flatgrad.compile(f, **options) if called else f
    return f(x, y, w) * f(x, y, w * 0.5), [x, y, w]


@case
def program_as_recorded(called):
    return program(called, simplify=False)


@case
def captured_values(called):
    a, b, c, x = Value(0.3), Value(-0.7), Value(1.1), Value(0.5)

    def f(x):
        return [(a * x + b).tanh() * c, x * x * a]

    f = flatgrad.compile(f) if called else f
    u, v = f(x)
    p, q = f(u)
    return p * q + v * u, [a, b, c, x]


@case
def some_results(called):
    """Of several results some are not reached, and one is reached twice."""
    x, w = Tensor(numbers(4, 3)), Tensor(numbers(5, 2, 3))

    def f(x):
        h = flatgrad.linear(x, w)
        return {"h": h, "sin": h.sin(), "unused": h.exp(), "sum": x.sum() * w[0, 1]}

    f = flatgrad.compile(f) if called else f
    found = f(x)
    return found["sin"][1] * found["sum"] + found["h"][0] * found["sin"][1], [x, w]


@case
def operands_twice(called):
    x, y = Value(0.4), Value(-1.2)
    f = (lambda a, b, c: (a * b).sin() + a * c * c)
    f = flatgrad.compile(f) if called else f
    return f(x, x, y) * f(y, x, x) + f(x, x, x), [x, y]


@case
def columns_of_operands(called):
    """Operands that do not lie in a row, and of which a part is constant."""
    x, k = Tensor(numbers(6, 3, 4)), Tensor(numbers(7, 4), requires_grad=False)
    f = (lambda row, column, k: (row * k).sum() * column.tanh().sum())
    f = flatgrad.compile(f) if called else f
    return f(x[1], x[:, 2], k) + f(x.T[2:, 0], x[0], k[::2]), [x]


def step(c, x, k, w):
    after = (c * w + x * k).tanh()
    return after, (after * after).sum() * x


@case
def scan(called, **options):
    k, w, first, xs = Value(0.5), Tensor([0.3, -0.2]), Tensor([1.0, 0.5]), Tensor(np.linspace(-1, 1, 7))
    end, ys = flatgrad.scan(lambda c, x: step(c, x, k, w), first, xs, unroll=not called, **options)
    return (end * np.array([1.0, 2.0])).sum() + (ys * ys).sum(), [k, w, first, xs]


@case
def scan_backwards(called):
    return scan(called, reverse=True)


@case
def scan_in_stretches(called):
    return scan(called, checkpoint=3)


@case
def scan_of_structures(called):
    w = Value(0.5)

    def f(c, x):
        return {"a": c["b"] * w, "b": (c["a"] + c["b"]).tanh(), "c": c["c"] + x[0] * x[1]}, [c["a"] * c["b"], x * w]

    first = {"a": w * 1.0, "b": Value(0.3), "c": Value(0.1)}
    last, (ys, rows) = flatgrad.scan(f, first, Tensor(numbers(8, 6, 2)) * w, unroll=not called)
    return last["a"] * last["b"] + ys.sum() * last["c"] + rows[3, 1], [w]


@case
def scan_without_carry(called):
    w, xs = Value(0.5), Tensor(np.linspace(-1, 1, 5))
    _, ys = flatgrad.scan(lambda _, x: (None, (x * w).tanh()), None, xs, unroll=not called)
    return (ys * ys).sum(), [w, xs]


@case
def scan_without_xs(called):
    w, first = Value(0.9), Value(0.8)
    end, _ = flatgrad.scan(lambda c, _: (c * w * c.cos(), None), first, length=5, unroll=not called)
    return end, [w, first]


@case
def last_carry_is_not_reached(called):
    w, first = Value(0.9), Value(0.8)
    _, ys = flatgrad.scan(lambda c, x: ((c * w).sin(), c * x), first, np.linspace(0, 1, 5), unroll=not called)
    return ys[2] * ys[4], [w, first]


@case
def loop(called):
    k = Value(0.5)
    return flatgrad.fori_loop(0, 6, lambda i, v: (v * k + i * 0.1).tanh() * k, Value(0.2), unroll=not called), [k]


@case
def batch(called, **options):
    w, b, x, t = Tensor(numbers(9, 4, 3)), Value(0.3), Tensor(numbers(10, 11, 3)), Tensor(numbers(11, 11))

    def f(x, t):
        h = flatgrad.linear(x, w).tanh().sum()
        return (h * b - t) * h, x * b, t * 2.0

    f = flatgrad.compile(f, **options) if called else f
    u, v, _ = flatgrad.vmap(f)(x, t)
    return (u * u).mean() + v.sum() * u[0], [w, b, x, t]


@case
def batch_along_columns(called):
    x, y = Tensor(numbers(12, 2, 6)), Value(0.7)
    f = (lambda x, y: (x * y * x, (x * y).tanh().sum()))
    f = flatgrad.compile(f) if called else f
    a, b = flatgrad.vmap(f, in_axes=(1, None), out_axes=(1, 0))(x, y)
    return (a * a).sum() + (b * y).sum(), [x, y]


@case
def many_samples(called):
    """More than there are lanes."""
    x, y = Tensor(numbers(13, 700)), Value(0.7)
    f = (lambda x: (x * y).sin() * x)
    f = flatgrad.compile(f) if called else f
    return (flatgrad.vmap(f)(x) * numbers(14, 700)).sum(), [x, y]


@case
def groups(called):
    w = Value(0.5)

    def f(xs):
        total = Value(0.0)
        for x in xs:
            total = total * w + x
        return (total * w).tanh()

    f = flatgrad.compile(f) if called else f
    found = flatgrad.grouped(f)([[1.0, 2.0], [4.0, 0.5, 0.1], [3.0, 4.0], [1.0, 2.0], [0.1, -0.2], [0.3, 0.4]])
    return (found * found).sum() * w, [w]


@case
def scan_in_a_program(called):
    k, xs, w, first = Value(0.5), Tensor(np.linspace(-1, 1, 9)), Tensor([0.3, -0.2]), Tensor([1.0, 0.5])

    def f(first, xs):
        end, ys = flatgrad.scan(lambda c, x: step(c, x, k, w), first, xs, unroll=not called)
        return end.sum() + (ys * ys).mean() * first[0]

    f = flatgrad.compile(f) if called else f
    return f(first, xs) * k, [k, w, first, xs]


@case
def batch_of_scans(called):
    k, x = Value(0.5), Tensor(np.linspace(-1, 1, 12).reshape(4, 3))

    def f(x):
        end, ys = flatgrad.scan(lambda c, x: ((c * k + x).tanh(), c * c), x[0], x, unroll=not called)
        return end * k + (ys * ys).sum()

    f = flatgrad.compile(f) if called else f
    found = flatgrad.vmap(f)(x)
    return (found * found).sum(), [k, x]


@case
def scan_of_batches(called):
    k, first = Value(0.5), Tensor(np.linspace(-1, 1, 5))

    def f(c, x):
        after = flatgrad.vmap(lambda z: (z * k + x).tanh())(c) if called else (c * k + x).tanh()
        return after, after.sum()

    end, ys = flatgrad.scan(f, first, Tensor(np.linspace(0, 1, 4)), unroll=not called)
    return (end * end).sum() + ys.sum() * k, [k, first]


@case
def batch_in_a_program(called):
    w, x = Tensor(numbers(15, 4, 2)), Tensor(np.linspace(-1, 1, 12).reshape(6, 2))

    def f(x):
        found = (flatgrad.vmap(lambda row: flatgrad.linear(row, w).tanh().sum())(x) if called
                 else flatgrad.linear(x, w).tanh().sum(axis=1))
        return (found * found).mean()

    f = flatgrad.compile(f) if called else f
    return f(x), [w, x]


@case
def scan_of_scans(called):
    k, first = Value(0.5), Value(0.9)

    def f(c, x):
        inner, _ = flatgrad.scan(lambda c, _: ((c * k + x).sin(), None), c, length=3, unroll=not called)
        return inner * k, inner

    end, ys = flatgrad.scan(f, first, np.linspace(0, 1, 4), unroll=not called)
    return end * end + ys.sum(), [k, first]


@case
def drawn_numbers(called):
    """The derivative computes with the numbers that the call has drawn."""
    w, source = Value(0.5), flatgrad.Random(3)
    f = (lambda x: (x * w + source.normal()).tanh() * w + source.uniform() * w * x)
    f = flatgrad.compile(f) if called else f
    return f(Value(0.3)) * f(0.1), [w]


# ---- orders ----

def flat(gradients, inputs):
    return np.concatenate([np.zeros(getattr(x, "size", 1)) if g is None else np.ravel(g.data)
                           for g, x in zip(gradients, inputs)])


def weighted(gradients, seed):
    """A number of all of them, by which the next order is taken."""
    total, weights = Value(0.0), np.random.default_rng(seed)
    for g in gradients:
        if isinstance(g, Tensor):
            total = total + (g * weights.normal(size=g.shape)).sum()
        elif g is not None:
            total = total + g * weights.normal()
    return total


def orders(output, inputs, count=3):
    """The number, the gradient, the gradient of a number of that, and so on."""
    found = [np.array([output.data])]
    for k in range(count):
        gradients = written([output], [None], inputs)
        found.append(flat(gradients, inputs))
        output = weighted(gradients, k)
    return found


def check(got, want, tolerance=1e-13):
    for order, (a, b) in enumerate(zip(got, want)):
        assert np.isfinite(b).all()
        error = np.abs(a - b).max() / max(1.0, np.abs(b).max())
        assert error <= tolerance, f"order {order}: {a} and {b}"


@pytest.mark.parametrize("name", CASES)
def test_three_orders(name):
    got, want = [orders(*CASES[name](called)) for called in (True, False)]
    assert all(x.any() for x in want[1:3])   # there is something to compare
    check(got, want)


@pytest.mark.parametrize("name", CASES)
def test_the_first_is_that_of_the_sweep(name):
    """To a few units in the last place of the largest: sums may be in another order."""
    output, inputs = CASES[name](True)
    got, want = flat(written([output], [None], inputs), inputs), derivatives([output], inputs)[0]
    assert np.abs(got - want).max() <= 4 * np.spacing(np.abs(want).max())


def test_the_check_can_fail():
    output, inputs = scan(True)
    want = orders(*scan(False))
    got = orders(output + (inputs[0] - 0.5) ** 3 * 1e-9, inputs)   # that has a third derivative alone
    check(got[:3], want[:3])
    with pytest.raises(AssertionError, match="order 3"):
        check(got, want)


def test_the_second_by_differences_of_the_first():
    k = Value(0.7)
    f = flatgrad.compile(lambda x: (x * k).sin() * x + (x * x).tanh())

    def slope(x):
        leaf = Value(x)
        gradient, = written([f(leaf)], [None], [leaf])
        return gradient, leaf

    gradient, leaf = slope(0.6)
    second, = written([gradient], [None], [leaf])
    h = 1e-5
    assert abs((slope(0.6 + h)[0].data - slope(0.6 - h)[0].data) / (2 * h) - second.data) < 1e-9


@pytest.mark.parametrize("name", CASES)
def test_each_number_of_a_derivative(name):
    """Sweeps from one number of a gradient alone, and the operands that it has."""
    output, inputs = CASES[name](True)
    gradients = [g for g in written([output], [None], inputs) if g is not None]
    elements = [x for g in gradients for x in ([g] if isinstance(g, Value) else g.reshape(-1))]
    table = derivatives(gradients, inputs)
    plain, leaves = CASES[name](False)
    want = derivatives([g for g in written([plain], [None], leaves) if g is not None], leaves)
    assert np.abs(table - want).max() <= 1e-13 * max(1.0, np.abs(want).max())
    assert len(elements) == len(table)
    for k in range(0, len(elements), 1 + len(elements) // 40):
        assert np.allclose(derivatives([elements[k]], inputs)[0], table[k], rtol=1e-13, atol=1e-14)
        children, partials = elements[k]._children, elements[k]._local_grads
        assert len(children) == len(partials)
        through = sum([d * derivatives([x], inputs)[0] for x, d in zip(children, partials)], np.zeros(table.shape[1]))
        assert np.allclose(through, table[k], rtol=1e-12, atol=1e-13)


# ---- against JAX ----

@pytest.fixture(scope="module")
def jax():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    return jax


def jax_orders(jax, f, args, count=3):
    """orders() of a function of JAX."""
    found = []
    for k in range(count + 1):
        found.append(np.ravel(f(*args)) if k == 0 else np.concatenate([np.ravel(g) for g in slopes(*args)]))
        slopes = jax.grad(f, tuple(range(len(args))))

        def f(*args, slopes=slopes, k=k):
            weights = np.random.default_rng(k)
            return sum((g * (weights.normal(size=g.shape) if g.shape else weights.normal())).sum() for g in slopes(*args))

    return found


def test_a_scan_against_jax(jax):
    jnp = jax.numpy

    def f(k, w, first, xs):
        def step(c, x):
            after = jnp.tanh(c * w + x * k)
            return after, (after * after).sum() * x

        end, ys = jax.lax.scan(step, first, xs)
        return (end * np.array([1.0, 2.0])).sum() + (ys * ys).sum()

    output, inputs = scan(True)
    check(orders(output, inputs), jax_orders(jax, f, [jnp.asarray(x.data) for x in inputs]))


def test_a_batch_against_jax(jax):
    jnp = jax.numpy

    def f(w, b, x, t):
        def one(x, t):
            h = jnp.tanh(w @ x).sum()
            return (h * b - t) * h, x * b

        u, v = jax.vmap(one)(x, t)
        return (u * u).mean() + v.sum() * u[0]

    output, inputs = batch(True)
    check(orders(output, inputs), jax_orders(jax, f, [jnp.asarray(x.data) for x in inputs]))


# ---- what they promise besides ----

def test_float32():
    for made in (program, batch):
        (output, inputs), want = made(True, dtype="float32"), orders(*made(False))
        got = orders(output, inputs)
        for a, b in zip(got, want):
            assert np.abs(a - b).max() <= 1e-5 * max(1.0, np.abs(b).max())
    x = Value(0.3)
    y = flatgrad.compile(lambda x: x.sin() * x, dtype="float32")(x)
    for _ in range(3):
        y, = written([y], [None], [x])
        assert y.data == float(np.float32(y.data))


def test_a_derivative_is_kept_with_its_program():
    f = flatgrad.compile(lambda x, y: (x * y).sin() * x)
    x, y = Value(0.4), Value(1.5)

    def second():
        slope, = written([f(x, y)], [None], [x])
        return written([slope], [None], [y])[0]

    before = _core._live_programs()
    want = second()
    made = _core._live_programs()
    assert made == before + 3   # it, its derivative, and that one's
    assert second().data == want.data and _core._live_programs() == made
    written([f(x, y)], [None], [x, y])   # of other operands
    assert _core._live_programs() == made + 1
    del want
    f.clear()
    assert _core._live_programs() == before


def test_few_derivatives_are_kept():
    f = flatgrad.compile(lambda x: [x[k] * x[k - 1] for k in range(12)])
    before, x = _core._live_programs(), Tensor(np.arange(12.0))
    for k in range(12):   # one result after the other
        gradient, = written([f(x)[k]], [None], [x])
        assert gradient.data[k] == x.data[k - 1]
    gradient = None
    gc.collect()
    flatgrad.collect()
    assert _core._live_programs() <= before + 10


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_left(name):
    def once():
        orders(*CASES[name](True), count=2)

    once()
    gc.collect()
    flatgrad.collect()
    before = flatgrad.stats()["nodes"], _core._live_programs()
    for _ in range(3):
        once()
    gc.collect()
    flatgrad.collect()
    assert (flatgrad.stats()["nodes"], _core._live_programs()) == before and _core._check()


def test_gradients_of_values_stay():
    output, inputs = batch(True)
    for x in inputs:
        x.grad = 0.25
    gradients = written([output], [None], inputs)
    assert all(np.all(np.asarray(x.grad) == 0.25) for x in inputs)
    gradients[0].sum().backward()
    assert not np.all(np.asarray(inputs[0].grad) == 0.25)


def test_saved_and_copied():
    """A graph with calls of derivatives in it, as any other."""
    for name in ("program", "scan", "batch"):
        output, inputs = CASES[name](True)
        gradient = written([output], [None], inputs)[0]
        total = (gradient * gradient).sum() if isinstance(gradient, Tensor) else gradient * gradient
        want = derivatives([total], inputs)[0]
        for total, *leaves in (copy.deepcopy([total, *inputs]), pickle.loads(pickle.dumps([total, *inputs]))):
            assert np.array_equal(derivatives([total], leaves)[0], want)
            second = written([total], [None], leaves)
            assert np.allclose(flat(second, leaves), want, rtol=1e-12, atol=1e-12)


def test_through_no_grad_and_scalar_graph():
    x = Value(0.4)
    f = flatgrad.compile(lambda x: (x * x).sin())
    want, = written([f(x)], [None], [x])
    f.clear()
    y = f(x)
    with flatgrad.scalar_graph():
        got, = written([y], [None], [x])
    assert got.data == want.data
    assert derivatives([got], [x]) == derivatives([want], [x])


def test_numbers_outside_of_a_domain():
    """A derivative is made whatever numbers its program was called with last, or with none at all."""
    f = flatgrad.compile(lambda x, y: (x / y + y * x) / (x * y))
    x, y = Value(2.5), Value(0.5)
    z = f(x, y)
    with pytest.raises(ZeroDivisionError):
        f(1.0, 0.0)
    check(orders(z, [x, y]), orders(f.fn(x, y), [x, y]))


def test_threads():
    f = flatgrad.compile(lambda x: (x * x).sin() * x)
    g = flatgrad.compile(lambda x: flatgrad.fori_loop(0, 3, lambda i, v: (v * x).cos(), x * 1.0))
    errors = []

    def work(x):
        try:
            for _ in range(20):
                leaf = Value(x)
                y, = written([f(leaf) * g(leaf)], [None], [leaf])
                y, = written([y], [None], [leaf])
                other = Value(x)
                z, = written([f.fn(other) * g.fn(other)], [None], [other])
                z, = written([z], [None], [other])
                assert abs(y.data - z.data) < 1e-12
                if x == 0.25:
                    f.clear()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(0.25 * k,)) for k in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
