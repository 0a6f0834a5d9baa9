"""PyTorch and JAX on the problems of the suite `python -m bench --derivatives`."""
import numpy as np

from bench import peers, workloads
from bench.runner import Contender, repeated
from bench.workloads import numbers_of, physics_numbers

__all__ = ["jax_hessian_contender", "jax_physics_contender", "jax_rosenbrock_contender", "torch_hessian_contender",
           "torch_physics_contender", "torch_rosenbrock_contender"]


def jax_made(name, function, arguments, results, jit):
    """A Contender of a JAX function, and the note for the table."""
    j = peers.jax()
    if not jit:
        return Contender(name, repeated(lambda: j.block_until_ready(function(*arguments))),
                         lambda: results(function(*arguments))), ""
    compiled = j.jit(function)

    def work():
        return j.block_until_ready(compiled(*arguments))
    compiling = peers.seconds_of(work)
    return Contender(name, repeated(work), lambda: results(work())), f"{compiling:.1f} s to compile"


def jax_network(j, problem):
    """A function of parameters and inputs, one sample or a batch, and the parameters."""
    def network(parameters, x):
        for k, (w, b) in enumerate(parameters):
            x = x @ w.T + b
            if k < len(parameters) - 1:
                x = j.numpy.tanh(x)
        return x
    return network, [(j.numpy.asarray(w), j.numpy.asarray(b)) for w, b in problem.layers()]


# ---- the step of a physics-informed network ----

def torch_physics_contender(problem):
    """PyTorch's usual code: derivatives by `torch.autograd.grad` with `create_graph`, of all points at once."""
    t = peers.torch()
    model = peers.torch_model(t, problem)
    parameters = list(model.parameters())
    x = t.from_numpy(problem.X).requires_grad_()

    def work():
        u = model(x)
        du, = t.autograd.grad(u.sum(), x, create_graph=True)
        d2u, = t.autograd.grad(du.sum(), x, create_graph=True)
        loss = ((d2u + u) ** 2).mean()
        return loss, t.autograd.grad(loss, parameters)

    def results():
        loss, gradients = work()
        arrays = [g.numpy() for g in gradients]
        return physics_numbers(loss.detach(), problem.flat(list(zip(arrays[::2], arrays[1::2]))))
    return Contender("torch", repeated(work), results)


def jax_physics_contender(problem, name="jax", mapped=True, jit=True):
    """JAX, compiled: `grad` of `grad` of one point, mapped over the points; or of the sum over all points."""
    j = peers.jax()
    jnp = j.numpy
    network, initial = jax_network(j, problem)
    X = jnp.asarray(problem.X)

    def loss_by_points(parameters, X):
        def u(x):
            return network(parameters, x[None])[0]
        second = j.grad(j.grad(u))
        return (j.vmap(lambda x: second(x) + u(x))(X[:, 0]) ** 2).mean()

    def loss_of_all(parameters, X):
        def first(x):
            return j.grad(lambda x: network(parameters, x).sum())(x)
        second = j.grad(lambda x: first(x).sum())(X)
        return ((second + network(parameters, X)) ** 2).mean()

    def results(found):
        loss, gradients = found
        return physics_numbers(loss, problem.flat([tuple(map(np.asarray, layer)) for layer in gradients]))
    return jax_made(name, j.value_and_grad(loss_by_points if mapped else loss_of_all), (initial, X), results, jit)


# ---- Hessians ----

def torch_rosenbrock_contender(f, x):
    """`torch.func.hessian` of a function of a vector."""
    t = peers.torch()
    point = t.from_numpy(x)
    work = t.func.hessian(f)
    return Contender("torch", repeated(lambda: work(point)), lambda: numbers_of("element", work(point).numpy()))


def jax_rosenbrock_contender(f, x, name="jax", jit=True):
    """`jax.hessian` of a function of a vector."""
    j = peers.jax()
    return jax_made(name, j.hessian(f), (j.numpy.asarray(x),), lambda found: numbers_of("element", found), jit)


def torch_hessian_contender(problem):
    """`torch.func.hessian` of the loss of a network by a vector of all its parameters, in micrograd's order."""
    t = peers.torch()
    X, y = t.from_numpy(problem.X), t.from_numpy(problem.y).double()
    point = t.from_numpy(problem.initial)
    work = t.func.hessian(lambda flat: workloads.network_loss(problem, flat, X, y, t.tanh))
    return Contender("torch", repeated(lambda: work(point)), lambda: numbers_of("element", work(point).numpy()))


def jax_hessian_contender(problem):
    """`jax.hessian` of the same, compiled."""
    j = peers.jax()
    X, y = j.numpy.asarray(problem.X), j.numpy.asarray(problem.y)
    return jax_made("jax", j.hessian(lambda flat: workloads.network_loss(problem, flat, X, y, j.numpy.tanh)),
                    (j.numpy.asarray(problem.initial),), lambda found: numbers_of("element", found), True)
