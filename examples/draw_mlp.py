"""The graph of a network with two inputs, two hidden neurons and one output.

    python examples/draw_mlp.py [mlp.svg]

The script needs the extra `viz` and Graphviz's program `dot`.
"""
import random

from drawing import write

from flatgrad import Value
from flatgrad.nn import MLP
from flatgrad.viz import draw_dot

random.seed(5)
model = MLP(2, [2, 1])
for i, layer in enumerate(model.layers):
    for j, neuron in enumerate(layer.neurons):
        neuron.b.label = f"b{i}.{j}"
        for k, w in enumerate(neuron.w):
            w.label = f"w{i}.{j}.{k}"
out = model([Value(1.0, label="x0"), Value(2.0, label="x1")])
out.label = "out"
out.backward()
write(draw_dot(out, rankdir="TB", expand=True), "mlp.svg")
