"""flatgrad's own ways through the problems of the suite `python -m bench --derivatives`: as it is, and compiled."""
import numpy as np

from bench import workloads
from bench.runner import Contender, own_copy, repeated
from bench.workloads import numbers_of, physics_numbers

__all__ = ["by_hand", "by_vector", "flatgrad_hessian", "flatgrad_physics", "physics_loss"]


# ---- the step of a physics-informed network ----

def physics_loss(problem, model, mapped=False):
    """The loss as a function of the points: its derivatives by `gradients` of all points at once, as in PyTorch; or
    mapped: by `grad` of `grad` of one point, as in JAX."""
    import flatgrad

    def of_all(X):
        u = model(X)
        du, = flatgrad.gradients(u.sum(), X, create_graph=True)
        d2u, = flatgrad.gradients(du.sum(), X, create_graph=True)
        return ((d2u + u) ** 2).mean()

    def by_points(X):
        def u(x):
            return model([x])
        second = flatgrad.grad(flatgrad.grad(u))
        return (flatgrad.vmap(lambda x: second(x) + u(x))(X) ** 2).mean()
    return by_points if mapped else of_all


def flatgrad_physics(problem, name="flatgrad", mapped=False, compiled=False):
    """A step: the loss and its gradient by all parameters, by `backward`; mapped and not compiled, where `grad` gives
    plain numbers unless another transform is around it, by `value_and_grad`."""
    import flatgrad
    from flatgrad import optim

    model = workloads.flatgrad_model(problem)
    parameters = model.parameters()
    loss = physics_loss(problem, model, mapped)
    X = flatgrad.Tensor(problem.X[:, 0] if mapped else problem.X)
    if mapped and not compiled:
        step = flatgrad.value_and_grad(loss, parameters=parameters)
        return Contender(name, repeated(lambda: step(X)), lambda: physics_numbers(*step(X)))
    if compiled:
        loss = flatgrad.compile(loss)
    optimizer = optim.SGD(parameters, lr=0.1)

    def work():
        total = loss(X)
        optimizer.zero_grad()
        total.backward()
        return total
    return Contender(name, repeated(own_copy(work)), lambda: physics_numbers(work().data, [p.grad for p in parameters]))


# ---- Hessians ----

def flatgrad_hessian(name, f, x, compiled=False):
    """`flatgrad.hessian` of a function of a vector, as an array; compiled: the Hessian itself is."""
    import flatgrad

    hessian = flatgrad.hessian(f)
    if compiled:
        program = flatgrad.compile(hessian)

        def hessian(x):
            return program(x).data
    return Contender(name, repeated(lambda: hessian(x)), lambda: numbers_of("element", hessian(x)))


def by_vector(problem):
    """The loss of a network as a function of a vector of all its parameters, in flatgrad's Tensors."""
    import flatgrad

    X, y = workloads.flatgrad_samples(problem)
    return lambda flat: workloads.network_loss(problem, flat, X, y, flatgrad.tanh)


def by_hand(f, x):
    """A contender that only has results: the Hessian `f` at `x`, written by hand."""
    return Contender("by hand", None, lambda: numbers_of("element", f(np.asarray(x))))
