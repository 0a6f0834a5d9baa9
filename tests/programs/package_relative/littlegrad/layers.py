from __future__ import annotations

from random import Random

from .core import Value


class Dense:
    def __init__(self, rng: Random, inputs: int, outputs: int) -> None:
        scale = (1 / inputs) ** 0.5
        self.rows = [[Value(rng.gauss(0, scale)) for _ in range(inputs + 1)] for _ in range(outputs)]

    def __call__(self, xs: list) -> list[Value]:
        return [sum((w * x for w, x in zip(row, xs)), row[-1]).tanh() for row in self.rows]


class Network:
    def __init__(self, sizes: list[int], seed: int = 4) -> None:
        rng = Random(seed)
        self.layers = [Dense(rng, a, b) for a, b in zip(sizes, sizes[1:])]

    def __call__(self, xs: list) -> Value:
        for layer in self.layers:
            xs = layer(xs)
        return xs[0]

    def weights(self) -> list[Value]:
        return [w for layer in self.layers for row in layer.rows for w in row]
