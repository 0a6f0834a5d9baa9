# %% [markdown]
# # How the tape works
#
# In micrograd each number is a Python object that holds its operands, and `backward()` first sorts these objects. In
# flatgrad a number is a slot of a few flat arrays, the *tape*, and a `Value` is a small object that knows its slot.
# The notebook looks at the tape from outside, and then steps through a graph.
#
# ## An operation appends a slot
#
# `flatgrad.stats()` counts the slots that are in use, and their bytes.

# %%
import flatgrad
from flatgrad import Value

def nodes():
    return flatgrad.stats()["nodes"]

before = nodes()
a, b = Value(2.0), Value(-3.0)
print("two Values:", nodes() - before)
c = a * b + b**2
print("and three operations:", nodes() - before)

# %% [markdown]
# Operands come before their users on the tape. So nobody has to sort anything: the backward pass goes from the newest
# slot to the oldest, and visits those that are marked. The root is marked first, and each visit marks the operands.
#
# ## Step through a graph
#
# `flatgrad.viz.explore` writes a page of HTML that shows this. Press the arrows: first forward, an operation at a
# time, then backward. An orange dot says that a slot is marked, a green one that its gradient is complete. Within
# `detect_anomaly()` the page knows the lines of code. (Where a notebook is only displayed, as on GitHub, the page is
# left out.)

# %%
import html
from pathlib import Path

from IPython.display import HTML

from flatgrad.viz import explore

x1, x2 = Value(2.0, label="x1"), Value(0.0, label="x2")
w1, w2 = Value(-3.0, label="w1"), Value(1.0, label="w2")
bias = Value(6.8813735870195432, label="b")
with flatgrad.detect_anomaly():
    n = x1 * w1 + x2 * w2 + bias
    n.label = "n"
    out = n.tanh()
    out.label = "out"
    page = Path(explore(out, "graph.html")).read_text("utf-8")
style = "width: 100%; height: 560px; border: 1px solid #8888"
HTML(f'<div><iframe style="{style}" srcdoc="{html.escape(page)}"></iframe></div>')

# %% [markdown]
# ## A backward pass adds
#
# The rule of an operation adds to the gradients of its operands. It has to: `d` below is used twice, and both uses
# count.

# %%
d = Value(3.0)
(d * d).backward()
print(d.grad)

# %% [markdown]
# For the same reason a second pass adds to what the first has left. That is micrograd's and PyTorch's way;
# `zero_grad()` of a model or an optimizer sets all gradients to 0.

# %%
d.grad = 0.0
for k in range(3):
    (d * d).backward()
    print(d.grad)

# %% [markdown]
# ## Slots are used again
#
# When no Value leads to a slot any more, it is garbage. From time to time a collector moves the living slots
# together. So a training loop does not grow, and nobody has to free anything:

# %%
def step():
    x = Value(1.0)
    for k in range(1000):
        x = x * 1.001
    x.backward()

sizes = []
for k in range(2000):
    step()
    sizes.append(nodes())
print(f"{2000 * 1001:,} slots made; ever more than 1,000,000 in use: {max(sizes) > 1_000_000}")

# %% [markdown]
# ## No recursion
#
# A scan needs no recursion, so a graph may be of any depth. micrograd ends at some 1,000 operations, with a
# `RecursionError`.

# %%
x = start = Value(1.0)
for k in range(1_000_000):
    x = x * 1.0
x.backward()
print(start.grad)

# %% [markdown]
# ## An instruction for many numbers
#
# A layer of 16 neurons with 16 inputs is 16 sums of 16 products and a bias. As single operations these are some 500
# slots. flatgrad makes one instruction: a slot for each of its 16 results, and one for itself. Within
# `scalar_graph()` the layer is made of single operations, as in micrograd:

# %%
import random

from flatgrad.nn import Layer

random.seed(0)
layer = Layer(16, 16)
inputs = [Value(0.1 * k) for k in range(16)]
before = nodes()
one = layer(inputs)
print("one instruction:", nodes() - before, "slots")
with flatgrad.scalar_graph():
    before = nodes()
    other = layer(inputs)
    print("single operations:", nodes() - before, "slots")
print("the same numbers:", all(abs(p.data - q.data) < 1e-12 for p, q in zip(one, other)))

# %% [markdown]
# ## Where to read on
#
# The page "How it works" of the documentation has the whole story: the arrays of the tape, the collector,
# instructions and kernels. [The ten minutes](ten_minutes.ipynb) begin at the beginning.
