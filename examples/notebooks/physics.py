# %% [markdown]
# # Physics with second derivatives
#
# Velocities and accelerations, forces and stiffnesses, minima and how sharp they are: physics is full of derivatives
# of derivatives. The notebook takes four problems.
#
# ## Motion: `grad` of `grad`
#
# Position, velocity and acceleration of a damped oscillation. `grad(f)` is a function like `f`, so it has a gradient
# too.

# %%
from flatgrad import cos, exp, grad

def position(t):
    return exp(-0.3 * t) * cos(2.0 * t)

velocity = grad(position)
acceleration = grad(velocity)
for t in (0.0, 0.5, 1.0):
    rest = acceleration(t) + 0.6 * velocity(t) + 4.09 * position(t)
    print(f"t = {t}: {position(t):7.4f} {velocity(t):7.4f} {acceleration(t):7.4f}"
          f"   x'' + 0.6 x' + 4.09 x is 0: {abs(rest) < 1e-12}")

# %% [markdown]
# ## Energy: force and frequency
#
# A force is minus the gradient of the energy. Near a minimum the Hessian of the energy is the stiffness, and its
# eigenvalues are the squares of the frequencies. Here: two masses of 1 kg between two walls, with three springs that
# get stiffer as they are stretched.

# %%
import numpy as np

import flatgrad
from flatgrad import hessian

def energy(x):
    stretched = flatgrad.cat([x, [0.0]]) - flatgrad.cat([[0.0], x])
    return (0.5 * 4.0 * stretched**2 + 0.25 * 10.0 * stretched**4).sum()

rest = np.zeros(2)
print("force if the first mass is moved by 0.1 m:", np.round(-grad(energy)(np.array([0.1, 0.0])), 4), "N")
print("stiffness at rest:", *hessian(energy)(rest).tolist())
frequencies = np.sqrt(np.linalg.eigvalsh(hessian(energy)(rest)))
print("angular frequencies:", np.round(frequencies, 4), " by hand: sqrt(4) = 2 and sqrt(12) = 3.4641")

# %% [markdown]
# ## A soap film: Newton's method
#
# A film between two rings has the least area. The curve is replaced by a polygon of 100 sides; the unknowns are the
# heights of its 99 corners. Newton's method takes gradient and Hessian of the area. The exact curve is cosh.

# %%
import matplotlib.pyplot as plt

SIDES, RING = 100, float(np.cosh(1.0))

@flatgrad.compile
def area(heights):
    y = flatgrad.cat([[RING], heights, [RING]])
    width = 2.0 / SIDES
    slope = (y[1:] - y[:-1]) / width
    return np.pi * width * ((y[1:] + y[:-1]) * (1.0 + slope**2).sqrt()).sum()

x = np.linspace(-1.0, 1.0, SIDES + 1)
heights = np.full(SIDES - 1, RING)   # a cylinder
figure, axes = plt.subplots(figsize=(5, 3.2))
axes.plot(x, np.cosh(x), color="0.75", linewidth=6, label="cosh(x)")
for step in range(6):
    value, gradient = flatgrad.value_and_grad(area)(heights)
    print(f"step {step}  area {value:.6f}  greatest gradient {np.abs(gradient).max():.8f}")
    if step < 4:
        axes.plot(x, [RING, *heights, RING], label=f"step {step}")
    heights = heights - np.linalg.solve(hessian(area)(heights), gradient)
print(f"greatest distance from cosh: {np.abs(heights - np.cosh(x[1:-1])).max():.6f}")
axes.set(xticks=[-1, 0, 1], ylim=(0.0, 1.6))
axes.legend(loc="lower center", ncols=3);

# %% [markdown]
# ## A spring: constants from measurements, and how sure they are
#
# A simulation in plain Python is differentiated as it stands: through all steps of its integrator. The gradient of
# the squared error finds the spring's constant and its friction from noisy measurements.

# %%
import random

from flatgrad import Value, value_and_grad

DT, STEPS, NOISE = 0.05, 80, 0.02

def simulate(spring, friction):
    """Positions of a mass that starts at 1, at rest, by the midpoint method."""
    x, v, positions = 1.0, 0.0, []
    for step in range(STEPS):
        a = -spring * x - friction * v
        x_mid, v_mid = x + DT / 2 * v, v + DT / 2 * a
        x, v = x + DT * v_mid, v + DT * (-spring * x_mid - friction * v_mid)
        if step % 4 == 3:
            positions.append(x)
    return positions

rng = random.Random(1)
measured = [x + rng.gauss(0.0, NOISE) for x in simulate(4.0, 0.3)]   # with floats: no graph

def misfit(constants):
    """Half the sum of squared errors, in units of the noise."""
    return 0.5 * sum(((x - m) / NOISE) ** 2 for x, m in zip(simulate(*constants), measured))

constants = [Value(3.5), Value(0.5)]
before = flatgrad.stats()["nodes"]
loss = misfit(constants)
print(flatgrad.stats()["nodes"] - before, "nodes in the graph of a simulation")

# %% [markdown]
# Newton's method again. At the minimum the Hessian has a meaning of its own: its inverse is the covariance of the
# constants, so that the roots of its diagonal are their standard errors.

# %%
program = flatgrad.compile(misfit)
constants = np.array([3.5, 0.5])
for step in range(6):
    value, gradient = value_and_grad(program)(constants)
    print(f"step {step}  misfit {value:9.3f}  spring {constants[0]:.4f}  friction {constants[1]:.4f}")
    curvature = hessian(program)(constants)
    constants = constants - np.linalg.solve(curvature, gradient)
errors = np.sqrt(np.diag(np.linalg.inv(curvature)))
for name, constant, error, true in zip(("spring", "friction"), constants, errors, (4.0, 0.3)):
    print(f"{name:8}  {constant:.3f} +- {error:.3f}   true {true}")

# %% [markdown]
# ## An oscillator: a network that solves an equation
#
# No measurements here, but an equation: u'' + 2 d w u' + w² u = 0, with u(0) = 1 and u'(0) = 0. The function u(t) = 1
# + tanh(t)² N(t/2) with a network N begins as it should. The loss is the mean square of what is left of the equation
# at 60 times. Second derivatives by time are in the loss, so training takes third derivatives.

# %%
from flatgrad.nn import MLP
from flatgrad.optim import LBFGS

D, W, END = 0.1, 2.0, 4.0

def solution(model, t):
    return 1.0 + flatgrad.tanh(t) ** 2 * model(t / 2.0)

def residual(model, t):
    u = solution(model, t)
    du, = flatgrad.gradients(u.sum(), t, create_graph=True)
    d2u, = flatgrad.gradients(du.sum(), t, create_graph=True)
    return d2u + 2.0 * D * W * du + W**2 * u

random.seed(0)
model = MLP(1, [12, 12, 1], activation="tanh", init="xavier_uniform")
times = flatgrad.Tensor(np.linspace(0.0, END, 60)[:, None])
loss = flatgrad.compile(lambda: (residual(model, times) ** 2).mean())
optimizer = LBFGS(model.parameters(), max_iter=600, tolerance_change=0.0, line_search_fn="strong_wolfe")

def closure():
    optimizer.zero_grad()
    total = loss()
    total.backward()
    return total

print(f"loss {optimizer.step(closure).data:.2f} at first")
t = np.linspace(0.0, END, 200)
damped = W * np.sqrt(1.0 - D**2)
exact = np.exp(-D * W * t) * (np.cos(damped * t) + D * W / damped * np.sin(damped * t))
u = solution(model, flatgrad.Tensor(t[:, None])).data[:, 0]
print("loss below 0.0001 in the end:", loss().data < 1e-4)
print("greatest error below 0.002:", np.abs(u - exact).max() < 0.002)
figure, axes = plt.subplots(figsize=(5, 3.2))
axes.plot(t, exact, color="0.75", linewidth=5, label="exact")
axes.plot(t, u, label="network")
axes.set_xlabel("t")
axes.legend();
