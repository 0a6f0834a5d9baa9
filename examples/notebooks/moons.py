# %% [markdown]
# # The two moons
#
# micrograd's demo: a network learns to tell two moons of points apart. No straight line separates them. The notebook
# begins with the demo's own loop, and ends with a `Trainer`. The numbers of the loops are the same; the times are
# not.

# %%
import random
import time
from statistics import median

import matplotlib.pyplot as plt

from flatgrad.datasets import make_moons

X, y = make_moons(100, noise=0.1, random_state=1)
y = 2.0 * y - 1.0     # classes -1 and 1
figure, axes = plt.subplots(figsize=(4.5, 3.2))
axes.scatter(*X.T, c=["tab:orange" if yi < 0 else "tab:blue" for yi in y], s=15)
axes.set_title("100 samples");

# %% [markdown]
# ## micrograd's loop
#
# The loss is the demo's: a hinge for each sample, and a small penalty of large weights. Each sample goes through the
# network by itself, and the parameters are moved one by one.

# %%
from flatgrad import Value
from flatgrad.nn import MLP

def new_model():
    random.seed(1337)
    return MLP(2, [16, 16, 1])

def loss_of(model):
    inputs = [list(map(Value, row)) for row in X]
    scores = [model(x) for x in inputs]
    data_loss = sum((1 + -yi * score).relu() for yi, score in zip(y, scores)) * (1.0 / len(scores))
    penalty = 1e-4 * sum(p * p for p in model.parameters())
    accuracy = sum((yi > 0) == (score.data > 0) for yi, score in zip(y, scores)) / len(scores)
    return data_loss + penalty, accuracy

model = new_model()
print(len(model.parameters()), "parameters")
seconds = []
for step in range(100):
    start = time.perf_counter()
    loss, accuracy = loss_of(model)
    model.zero_grad()
    loss.backward()
    for p in model.parameters():
        p.data -= (1.0 - 0.9 * step / 100) * p.grad
    seconds.append(time.perf_counter() - start)
    if step % 20 == 0 or step == 99:
        print(f"step {step:2}  loss {loss.data:.4f}  accuracy {accuracy:.0%}")
print(f"{1e3 * median(seconds):.2f} ms a step")

# %% [markdown]
# ## What it has learned

# %%
from flatgrad.viz import plot_decision_boundary

figure, axes = plt.subplots(figsize=(4.5, 3.2))
plot_decision_boundary(model, X, y, ax=axes);

# %% [markdown]
# ## The same with a batch, a loss and an optimizer
#
# `model(X)` takes all samples at once. The loss falls as before, number by number.

# %%
from flatgrad import dot
from flatgrad.losses import hinge
from flatgrad.optim import SGD

model = new_model()
parameters = model.parameters()
optimizer = SGD(parameters, lr=1.0)
seconds = []
for step in range(100):
    start = time.perf_counter()
    loss = hinge(model(X), y) + 1e-4 * dot(parameters, parameters)
    optimizer.zero_grad()
    loss.backward()
    optimizer.lr = 1.0 - 0.9 * step / 100
    optimizer.step()
    seconds.append(time.perf_counter() - start)
    if step % 20 == 0 or step == 99:
        print(f"step {step:2}  loss {loss.data:.4f}")
print(f"{1e3 * median(seconds):.3f} ms a step")

# %% [markdown]
# ## Without a loop
#
# A `Trainer` has the loop: mini-batches in random order, metrics, validation data, schedules, early stopping. A
# quarter of the samples is held out here, and never trained on.

# %%
from flatgrad.optim import Adam
from flatgrad.train import Trainer

model = new_model()
trainer = Trainer(model, Adam(model.parameters(), lr=0.01), hinge, metrics=["accuracy"])
history = trainer.fit(X[:75], y[:75], validation=(X[75:], y[75:]), epochs=60, batch_size=15, seed=0,
                      progress=False)
print(f"training    loss {history.loss[-1]:.3f}  accuracy {history.accuracy[-1]:.0%}")
print(f"validation  loss {history.val_loss[-1]:.3f}  accuracy {history.val_accuracy[-1]:.0%}")
figure, axes = plt.subplots(figsize=(4.5, 3.2))
history.plot(ax=axes);

# %% [markdown]
# ## More noise
#
# With more noise the moons overlap, and a network can learn samples by heart that it had better ignore. The penalty
# `weight_decay` holds the weights down. What counts is the accuracy for samples that were not in the training:

# %%
X_train, y_train = make_moons(60, noise=0.35, random_state=3)
X_test, y_test = make_moons(1000, noise=0.35, random_state=4)
y_train, y_test = 2 * y_train - 1, 2 * y_test - 1

def accuracy(model, X, y):
    return ((model(X).data[:, 0] > 0) == (y > 0)).mean()

figure, both = plt.subplots(1, 2, figsize=(8, 3.2))
for axes, decay in zip(both, (0.0, 0.03)):
    model = new_model()
    optimizer = SGD(model.parameters(), lr=0.1, weight_decay=decay)
    Trainer(model, optimizer, hinge).fit(X_train, y_train, epochs=2000, batch_size=60, seed=0, progress=False)
    print(f"weight decay {decay}: training {accuracy(model, X_train, y_train):.0%}, "
          f"test {accuracy(model, X_test, y_test):.0%}")
    plot_decision_boundary(model, X_train, y_train, ax=axes)
    axes.set_title(f"weight decay {decay}")
