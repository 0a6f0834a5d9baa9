"""Parts of README, as a user of type checkers would write them. tests/test_typing.py has them checked, not run."""
import random

import numpy as np

import flatgrad
from flatgrad import Tensor, Value, dot, viz
from flatgrad.datasets import make_moons
from flatgrad.losses import hinge
from flatgrad.nn import MLP
from flatgrad.optim import SGD
from flatgrad.train import Trainer

a, b = Value(-4.0), Value(2.0)
c = a * b + b**3
d = (c - a).tanh() / b
d.backward()
print(d, a.grad, b.grad, flatgrad.sum([a, b, c]).data, 2.0 - a, np.float64(2.0) * b, a > b)

points, labels = make_moons(100, noise=0.1, random_state=1)
X, y = Tensor(points, requires_grad=False), Tensor(2.0 * labels - 1.0, requires_grad=False)
random.seed(1)
model = MLP(2, [16, 16, 1])
parameters = model.parameters()
optimizer = SGD(parameters, lr=1.0)


def step(k: int) -> float:
    loss = hinge(model(X), y) + 1e-4 * dot(parameters, parameters)
    optimizer.zero_grad()
    loss.backward()
    optimizer.lr = 1.0 - 0.9 * k / 1000
    optimizer.step()
    return loss.data


print(f"loss {step(0):.2f}, accuracy {((model(X).data[:, 0] > 0) == (y.data > 0)).mean():.0%}")
print(Trainer(model, optimizer, "hinge").fit(points, labels, epochs=2).metrics["loss"], model([0.5, 1.0]).data)


@flatgrad.compile
def energy(x: Value, y: Value) -> Value:
    return x**2 * y + flatgrad.exp(-x)


value, gradient = flatgrad.value_and_grad(energy, argnums=(0, 1))(2.0, 3.0)
print(energy(1.0, 2.0).data, flatgrad.grad(energy)(2.0, 3.0), flatgrad.hessian(energy)(2.0, 3.0), value, gradient)
print(flatgrad.vmap(energy)(np.ones(3), np.ones(3)).data, flatgrad.__version__, flatgrad.stats()["nodes"])
film = viz.Film(points, labels, every=2)
film.add(model, hinge(model(X), y))
surface = viz.loss_surface(model, lambda: hinge(model(X), y), steps=3, rng=0)
stats = viz.ActivationStats(model)
print(film.save("film.html"), surface.losses.min(), stats.std["layers.0"], viz.draw_svg(c, names=model).svg)
print(viz.decision_boundary_text(model, points, labels, width=20), viz.draw_network(model).svg)
with flatgrad.no_grad():
    print(model(np.zeros((3, 2))), np.array([1.0]) * a, X @ X.T, a.label)
