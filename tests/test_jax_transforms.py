"""The transforms against JAX's, where JAX is installed: names, arguments, structures and numbers."""
import collections
import inspect

import numpy as np
import pytest

import flatgrad
from flatgrad import Tensor, Value, nn

jax = pytest.importorskip("jax")
jnp = jax.numpy

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

RNG = np.random.default_rng(0)
Point = collections.namedtuple("Point", "x y")


@pytest.fixture(autouse=True, scope="module")
def in_doubles():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def same(ours, theirs, rtol=1e-10):
    """Whether the structures are the same, and the numbers but for rounding. An array may stand for nested lists."""
    if isinstance(theirs, dict):
        return (isinstance(ours, dict) and ours.keys() == theirs.keys()
                and all(same(ours[key], theirs[key], rtol) for key in theirs))
    if type(theirs) in (list, tuple) and isinstance(ours, np.ndarray):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, (list, tuple)):
        return (type(ours) is type(theirs) and len(ours) == len(theirs)
                and all(same(*pair, rtol) for pair in zip(ours, theirs)))
    return np.shape(ours) == np.shape(theirs) and np.allclose(ours, theirs, rtol=rtol, atol=1e-12)


def vector(x):
    return (x * x * x).sum() + x[0] * x[1]


def entries(p):
    return (p["w"] * p["w"]).sum() * p["b"] + p["b"] ** 3


def in_a_list(p):
    return (p[0] * p[0]).sum() * p[1] + (p[2][0] * p[0][0] + p[2][1] ** 2) * p[1]


def matrix(w):
    return (w @ w).sum() * w[0, 1]


def of_a_point(p):
    return p.x ** 2 * p.y + p.y ** 3


W = RNG.normal(size=(2, 2))
SCALARS = {   # a function of one argument, and the argument
    "number": (lambda x: x**3 * 2.0, 1.5),
    "vector": (vector, RNG.normal(size=3)),
    "matrix": (matrix, W),
    "list of numbers": (lambda x: x[0] ** 2 * x[1] + x[2], [1.0, 2.0, 3.0]),
    "tuple of numbers": (lambda x: x[0] ** 2 * x[1], (1.0, 2.0)),
    "nested list": (lambda x: x[0][0] ** 2 * x[1][1] + x[0][1] * x[1][0], [[1.0, 2.0], [3.0, 4.0]]),
    "ragged list": (lambda x: x[0] ** 2 * x[1][1] + x[1][0] ** 3, [1.0, [3.0, 4.0]]),
    "dict": (entries, {"w": RNG.normal(size=3), "b": 2.0}),
    "dict of lists": (lambda p: p["a"][0] ** 2 * p["a"][1] * p["c"]["d"], {"a": [1.0, 2.0], "c": {"d": 3.0}}),
    "list of arrays": (in_a_list, [RNG.normal(size=2), 0.5, (1.0, 2.0)]),
    "namedtuple": (of_a_point, Point(2.0, 3.0)),
    "constant": (lambda x: 3.0, 2.0),
    "linear": (lambda x: x[0] * 3.0, np.array([1.0, 2.0])),
}


@pytest.mark.parametrize("name", SCALARS)
def test_transforms_of_one_argument(name):
    f, x = SCALARS[name]
    if name != "constant":
        assert same(flatgrad.grad(f)(x), jax.grad(f)(x))
    assert same(flatgrad.hessian(f)(x), jax.hessian(f)(x))
    v = jax.tree_util.tree_map(lambda leaf: 0.5 + np.cos(leaf), x)
    assert same(flatgrad.hvp(f, x, v), jax.jvp(jax.grad(lambda x: f(x) * 1.0), (x,), (v,))[1])
    assert same(flatgrad.jvp(f, (x,), (v,)), jax.jvp(f, (x,), (v,)))
    ours, theirs = flatgrad.vjp(f, x), jax.vjp(f, x)
    assert same(ours[0], theirs[0]) and same(ours[1](0.5), theirs[1](jnp.asarray(0.5, jnp.result_type(theirs[0]))))


SEVERAL = {
    "numbers": (lambda x, y, z: x * y**2 + z * x**3, (1.0, 2.0, 3.0)),
    "arrays": (lambda x, y, z: (x * y).sum() ** 2 * z[0], (RNG.normal(size=3), RNG.normal(size=(2, 3)), np.ones(1))),
    "mixed": (lambda x, y, z: (x["a"] * y[0]) ** 2 * z.sum(), ({"a": 2.0}, [3.0, 4.0], RNG.normal(size=2))),
}


@pytest.mark.parametrize("argnums", [1, (0,), (0, 1), (2, 0), -1, (0, 1, 2)])
@pytest.mark.parametrize("name", SEVERAL)
def test_transforms_of_several_arguments(name, argnums):
    f, args = SEVERAL[name]
    for transform in ("grad", "value_and_grad", "hessian"):
        ours, theirs = getattr(flatgrad, transform)(f, argnums)(*args), getattr(jax, transform)(f, argnums)(*args)
        assert same(ours, theirs), transform
    tangents = jax.tree_util.tree_map(lambda leaf: 0.5 + np.cos(leaf), args)
    assert same(flatgrad.jvp(f, args, tangents), jax.jvp(f, args, tangents))
    assert same(flatgrad.vjp(f, *args)[1](2.0), jax.vjp(f, *args)[1](2.0))


MANY = {
    "array": (lambda x: x * x * x[0], RNG.normal(size=3)),
    "matrix": (lambda x: x @ x * x, W),
    "number": (lambda x: x**3, 2.0),
    "to a matrix": (lambda x: x.reshape(2, 2) * x[0], RNG.normal(size=4)),
}


@pytest.mark.parametrize("name", MANY)
def test_jacobians(name):
    f, x = MANY[name]
    for name in ("jacobian", "jacrev", "jacfwd"):
        ours, theirs = getattr(flatgrad, name), getattr(jax, name)
        assert same(ours(f)(x), theirs(f)(x))
        assert same(ours(f, argnums=(0,))(x), theirs(f, argnums=(0,))(x))
    assert same(flatgrad.jacfwd(flatgrad.jacrev(f))(x), jax.jacfwd(jax.jacrev(f))(x))
    assert same(flatgrad.jacrev(flatgrad.jacfwd(f))(x), jax.jacrev(jax.jacfwd(f))(x))
    assert same(flatgrad.jacrev(flatgrad.jacrev(flatgrad.jacrev(f)))(x), jax.jacfwd(jax.jacfwd(jax.jacfwd(f)))(x))


OUTPUTS = {
    "a dict": lambda x, y: {"a": x * y, "b": (y.sum(), [x, y * y])},
    "a tuple": lambda x, y: (x * y[0], y),
    "an argument": lambda x, y: y,
    "one number of one": lambda x, y: [x**2],
    "two numbers": lambda x, y: (x * y[0], x),
    "a matrix": lambda x, y: (y.reshape(2, 1) @ y.reshape(1, 2)) * x,
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_products_with_results_of_any_structure(name):
    f, x, y = OUTPUTS[name], 1.5, RNG.normal(size=2)
    directions = (0.5, np.array([1.0, -2.0]))
    assert same(flatgrad.jvp(f, (x, y), directions), jax.jvp(f, (x, y), directions))
    (ours, pull), (theirs, their_pull) = flatgrad.vjp(f, x, y), jax.vjp(f, x, y)
    weights = jax.tree_util.tree_map(lambda leaf: np.cos(leaf), theirs)
    ours_weights = jax.tree_util.tree_map(lambda leaf: float(leaf) if np.ndim(leaf) == 0 else np.asarray(leaf), weights)
    assert same(ours, theirs) and same(pull(ours_weights), their_pull(weights))
    again = flatgrad.jacobian(lambda y: flatgrad.sum(pull_of(flatgrad, f, x, y, ours_weights)))(y)
    assert same(again, jax.jacobian(lambda y: jnp.sum(pull_of(jax, f, x, y, weights)))(y))


@pytest.mark.parametrize("name", [name for name in OUTPUTS if "dict" in name])
def test_jacobians_of_any_structure(name):
    f, args = OUTPUTS[name], (1.5, RNG.normal(size=2))
    for transform in ("jacobian", "jacfwd"):
        for argnums in (0, 1, (0, 1)):
            assert same(getattr(flatgrad, transform)(f, argnums)(*args), getattr(jax, transform)(f, argnums)(*args))
    x = {"y": args[1], "x": [1.5]}
    assert same(flatgrad.jacobian(lambda p: f(p["x"][0], p["y"]))(x), jax.jacobian(lambda p: f(p["x"][0], p["y"]))(x))


def pull_of(module, f, x, y, weights):
    return module.vjp(f, x, y)[1](weights)[1]


def test_has_aux():
    def f(x):
        return (x * x).sum(), {"twice": x * 2.0, "n": 3}

    x = np.array([1.0, 2.0])
    for name in ("grad", "value_and_grad", "hessian"):
        assert same(getattr(flatgrad, name)(f, has_aux=True)(x), getattr(jax, name)(f, has_aux=True)(x))
    for name in ("jacobian", "jacrev", "jacfwd"):
        assert same(getattr(flatgrad, name)(lambda x: (x * x, x), has_aux=True)(x),
                    getattr(jax, name)(lambda x: (x * x, x), has_aux=True)(x))
    assert same(flatgrad.jvp(f, (x,), (x,), has_aux=True), jax.jvp(f, (x,), (x,), has_aux=True))
    ours, theirs = flatgrad.vjp(f, x, has_aux=True), jax.vjp(f, x, has_aux=True)
    assert same(ours[::2], theirs[::2]) and same(ours[1](1.0), theirs[1](1.0))


def test_stop_gradient():
    def f(stop):
        return lambda x: x**3 * stop({"y": x})["y"] + stop(2.0)

    assert flatgrad.hessian(f(flatgrad.stop_gradient))(2.0) == jax.hessian(f(jax.lax.stop_gradient))(2.0) == 24.0


@pytest.mark.parametrize("name", ["grad", "value_and_grad", "jacobian", "jacrev", "jacfwd", "hessian", "jvp", "vjp"])
def test_arguments_have_jax_s_names(name):
    ours = inspect.signature(getattr(flatgrad, name)).parameters
    theirs = inspect.signature(getattr(jax, name)).parameters
    # JAX's own: complex numbers and integers, which are not differentiated by here, and axes of many devices
    own = {"fun", "f", "holomorphic", "allow_int", "reduce_axes", "args", "kwargs"}
    for parameter in set(theirs) - own:
        assert ours[parameter].default == theirs[parameter].default, parameter
    assert next(iter(ours)) == "f"


def test_errors_where_jax_has_errors():
    x = np.ones(2)
    calls = [lambda m: m.jvp(vector, x, x), lambda m: m.jvp(vector, (x,), (x, x)),
             lambda m: m.jvp(vector, (x,), (1.0,)), lambda m: m.vjp(vector, x)[1](x),
             lambda m: m.vjp(vector, x)[1]((1.0,)), lambda m: m.grad(lambda x: x)(x),
             lambda m: m.grad(vector, has_aux=True)(x), lambda m: m.hessian(3)(x), lambda m: m.vjp(3, x)]
    for call in calls:
        for module in (flatgrad, jax):
            with pytest.raises((TypeError, ValueError)):
                call(module)


# ---- a network ----

def loss_of(tanh, rows, targets):
    def loss(p):
        h = rows
        for k in range(2):
            h = tanh(h @ p[f"w{k}"].T + p[f"b{k}"])
        out = h @ p["w2"].T + p["b2"]
        return ((out.reshape(len(targets)) - targets) ** 2).mean()

    return loss


def test_the_hessian_of_a_network():
    """337 x 337, of MLP(2, [16, 16, 1])."""
    sizes = (2, 16, 16, 1)
    p = {}
    for k, (before, after) in enumerate(zip(sizes, sizes[1:])):
        p[f"w{k}"] = RNG.normal(size=(after, before)) / np.sqrt(before)
        p[f"b{k}"] = RNG.normal(size=after) / 4
    rows, targets = RNG.normal(size=(20, 2)), RNG.normal(size=20)
    theirs = jax.hessian(loss_of(jnp.tanh, rows, targets))(p)
    ours = flatgrad.hessian(loss_of(flatgrad.tanh, rows, targets))(p)
    assert same(ours, theirs)
    names = list(p)

    def whole(blocks):
        return np.block([[np.asarray(blocks[a][b]).reshape(p[a].size, p[b].size) for b in names] for a in names])

    size = np.abs(whole(theirs)).max()
    assert whole(ours).shape == (337, 337)
    assert np.abs(whole(ours) - whole(theirs)).max() < 1e-10 * size
    assert np.abs(whole(ours) - whole(ours).T).max() < 1e-13 * size

    model = nn.MLP(2, [16, 16, 1], activation="tanh")
    for k, layer in enumerate(model.layers):
        for neuron, w, b in zip(layer.neurons, p[f"w{k}"], p[f"b{k}"]):
            for weight, number in zip(neuron.w, w):
                weight.data = number
            neuron.b.data = b

    def loss():
        return ((model(rows).reshape(20) - targets) ** 2).mean()

    by_parameters = flatgrad.hessian(loss, parameters=model.parameters())()
    order = []   # where the numbers of the model's parameters are in p
    begins = dict(zip(names, np.cumsum([0] + [p[name].size for name in names])))
    for k, (before, after) in enumerate(zip(sizes, sizes[1:])):
        for i in range(after):
            order += [begins[f"w{k}"] + i * before + j for j in range(before)] + [begins[f"b{k}"] + i]
    assert np.abs(by_parameters - whole(theirs)[np.ix_(order, order)]).max() < 1e-10 * size


def test_leaves_of_ours_are_numbers_at_the_outermost_call():
    for x, t in ((Value(2.0), Tensor([1.0, 2.0])),):
        assert flatgrad.hessian(lambda x: x**3)(x) == 12.0
        assert same(flatgrad.hessian(vector)(t), jax.hessian(vector)(jnp.array([1.0, 2.0])))
