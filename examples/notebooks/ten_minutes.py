# %% [markdown]
# # From micrograd's lecture to flatgrad in ten minutes
#
# Karpathy's lecture builds micrograd: a class `Value` that remembers how it was computed, and a backward pass that
# uses this. The notebook goes the lecture's way with flatgrad, which has the same names and gives the same numbers,
# and then goes on where micrograd becomes slow.
#
# In your own program you change the import:
#
# ```python
# from flatgrad.engine import Value      # was: from micrograd.engine import Value
# from flatgrad.nn import MLP            # was: from micrograd.nn import MLP
# ```
#
# ## A derivative, by hand and by the graph

# %%
def f(x):
    return 3 * x**2 - 4 * x + 5

h = 1e-6
print(f"by a small step: {(f(3.0 + h) - f(3.0)) / h:.4f}")

# %%
from flatgrad import Value

x = Value(3.0)
y = f(x)
y.backward()
print("by the graph:", x.grad)

# %% [markdown]
# The function is the same for floats and for Values. Each operation with a Value appends a node to a graph, and
# `backward()` goes through the nodes from the last to the first, with the chain rule.
#
# ## The lecture's neuron
#
# Two inputs, two weights and a bias; the output is tanh of their sum. The picture shows for each Value its data and,
# after the backward pass, its gradient.

# %%
from flatgrad.viz import draw_svg

x1, x2 = Value(2.0, label="x1"), Value(0.0, label="x2")
w1, w2 = Value(-3.0, label="w1"), Value(1.0, label="w2")
b = Value(6.8813735870195432, label="b")
n = x1 * w1 + x2 * w2 + b
n.label = "n"
o = n.tanh()
o.label = "o"
o.backward()
for v in (x1, w1, x2, w2):
    print(f"{v.label}: {v.grad:.4f}")
draw_svg(o)

# %% [markdown]
# In the lecture tanh is then taken apart into exp. The gradients stay the same:

# %%
for v in (x1, x2, w1, w2, b):
    v.grad = 0.0
e = (2 * (x1 * w1 + x2 * w2 + b)).exp()
o = (e - 1) / (e + 1)
o.backward()
print(f"{o.data:.4f}", *(f"{v.label}: {v.grad:.4f}" for v in (x1, w1, x2, w2)))

# %% [markdown]
# The loop that sets gradients to 0 is needed because a backward pass adds to them. Without it the second pass would
# have added to the gradients of the first. This is micrograd's way, and PyTorch's.
#
# ## An operation of your own
#
# As in the lecture: the operands, a name, and a closure that adds to the gradients of the operands.

# %%
import math

def my_tanh(x):
    t = math.tanh(x.data)
    out = Value(t, (x,), "my tanh")

    def _backward():
        x.grad += (1 - t**2) * out.grad
    out._backward = _backward
    return out

z = Value(0.5)
my_tanh(z).backward()
print(z.grad == 1 - math.tanh(0.5) ** 2)

# %% [markdown]
# ## The lecture's network
#
# Three inputs, two layers of four neurons, one output. Four samples, each with the number that the network should
# give. The lecture's neurons have tanh; `MLP` has micrograd's ReLU unless it is told otherwise.

# %%
import random

from flatgrad.nn import MLP

xs = [[2.0, 3.0, -1.0], [3.0, -1.0, 0.5], [0.5, 1.0, 1.0], [1.0, 1.0, -1.0]]
ys = [1.0, -1.0, -1.0, 1.0]
random.seed(1)
model = MLP(3, [4, 4, 1], activation="tanh")
print(model)
print(len(model.parameters()), "parameters")

# %% [markdown]
# The training loop: forward, set gradients to 0, backward, and a small step against the gradient.

# %%
for step in range(20):
    predictions = [model(x) for x in xs]
    loss = sum((p - y) ** 2 for p, y in zip(predictions, ys))
    model.zero_grad()
    loss.backward()
    for p in model.parameters():
        p.data -= 0.05 * p.grad
    if step % 5 == 0 or step == 19:
        print(f"step {step:2}  loss {loss.data:.4f}")
print(*(f"{p.data:.3f}" for p in predictions))

# %% [markdown]
# Everything up to here is micrograd with another import. Now run a thousand steps where the lecture runs twenty.
# (Times are those of the machine that has run the notebook, which had other work to do; run it on yours.)

# %%
import time
from statistics import median

seconds = []
for step in range(1000):
    start = time.perf_counter()
    loss = sum((model(x) - y) ** 2 for x, y in zip(xs, ys))
    model.zero_grad()
    loss.backward()
    for p in model.parameters():
        p.data -= 0.05 * p.grad
    seconds.append(time.perf_counter() - start)
print(f"loss below 1e-9: {loss.data < 1e-9}, {1e6 * median(seconds):.0f} us a step")

# %% [markdown]
# ## All samples at once
#
# Given several samples, a network returns a `Tensor`: a vector or matrix of Values, which takes part in one operation
# as a whole. A loss of `flatgrad.losses` is one node, and a step of an optimizer is one call into C.

# %%
from flatgrad import losses
from flatgrad.optim import SGD

random.seed(1)
model = MLP(3, [4, 4, 1], activation="tanh")
optimizer = SGD(model.parameters(), lr=0.05)
seconds = []
for step in range(1020):
    start = time.perf_counter()
    loss = losses.mse(model(xs), ys, reduction="sum")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    seconds.append(time.perf_counter() - start)
print(f"loss below 1e-9: {loss.data < 1e-9}, {1e6 * median(seconds):.0f} us a step")

# %% [markdown]
# ## Derivatives as functions
#
# micrograd stops at the first derivative. Here `grad` makes a function of a function, as often as you like:

# %%
from flatgrad import grad

df, d2f = grad(f), grad(grad(f))
print(df(3.0), d2f(3.0))

# %% [markdown]
# ## Where to go next
#
# - [The moons](moons.ipynb): micrograd's demo, from its own loop to a `Trainer`.
# - [How the tape works](tape.ipynb): where the nodes are, and a page that steps through a graph.
# - [A GPT in scalars, then compiled](gpt.ipynb).
# - [Physics with second derivatives](physics.ipynb).
