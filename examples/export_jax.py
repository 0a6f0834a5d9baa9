"""A compiled loss as a function of JAX: the same losses by flatgrad, by JAX, and by JAX on eight devices.

    python examples/export_jax.py

A network of single Values learns two moons. ``loss.to_jax()`` makes a function of JAX of its loss of one sample, from
the instructions that `flatgrad.compile` has recorded. ``jax.vmap`` makes the loss of a batch of it, ``jax.jit``
compiles it with its gradient, and a sharding spreads the samples over devices: here eight that XLA simulates.

The script prints losses, and the largest differences between the three ways. It needs the extra `jax`.
"""
import argparse
import os
import random
import sys

import numpy as np

import flatgrad
from flatgrad import optim
from flatgrad.datasets import make_moons
from flatgrad.nn import MLP

STEPS, RATE, DEVICES = 61, 0.5, 8


def by_flatgrad(loss, model, X, y):
    """The losses of gradient descent, all samples at each step."""
    total = flatgrad.compile(lambda X, y: flatgrad.vmap(loss)(X, y).mean())
    return total.minimize(optim.SGD(model.parameters(), lr=RATE), X, y, steps=STEPS)


def by_jax(jax, g, X, y):
    """The same by JAX, wherever the samples are."""
    def total(parameters, X, y):
        return jax.vmap(g, (None, 0, 0))(parameters, X, y).mean()

    @jax.jit
    def step(parameters, X, y):
        value, gradient = jax.value_and_grad(total)(parameters, X, y)
        return value, parameters - RATE * gradient

    parameters, losses = g.parameters, np.zeros(STEPS)
    for k in range(STEPS):
        losses[k], parameters = step(parameters, X, y)
    return losses


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count={DEVICES}")   # before JAX is imported
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        import jax
    except ImportError:
        sys.exit("this example needs JAX: pip install 'flatgrad[jax]'")
    jax.config.update("jax_enable_x64", True)

    random.seed(1337)
    model = MLP(2, [8, 8, 1])
    X, y = make_moons(n_samples=96, noise=0.1, random_state=1)
    y = 2.0 * y - 1.0
    loss = flatgrad.compile(lambda x, y: (1.0 - y * model([x[0], x[1]])).relu())
    loss(X[0], y[0])
    g = loss.to_jax()
    print(f"{len(g.parameters)} parameters, arguments {' and '.join(g.arguments)}")

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("samples",))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("samples"))
    several = by_jax(jax, g, *[jax.device_put(a, spread) for a in (X, y)])
    one = by_jax(jax, g, *[jax.device_put(a, jax.devices()[0]) for a in (X, y)])
    ours = by_flatgrad(loss, model, X, y)
    for k in range(0, STEPS, 20):
        print(f"step {k:2d}  loss {ours[k]:.6f}")
    print("the same losses by JAX:", np.allclose(one, ours, rtol=1e-9, atol=0.0))
    print(f"the same losses on {len(mesh.devices)} devices:", np.allclose(several, one, rtol=1e-9, atol=0.0))


if __name__ == "__main__":
    main()
