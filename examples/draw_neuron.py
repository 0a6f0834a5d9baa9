"""The graph of a neuron with two inputs, and the gradients of its weights.

    python examples/draw_neuron.py [neuron.svg]

The script needs the extra `viz` and Graphviz's program `dot`.
"""
from drawing import write

from flatgrad import Value
from flatgrad.nn import Neuron
from flatgrad.viz import draw_dot

neuron = Neuron(2)
for parameter, label, data in zip(neuron.parameters(), ["w0", "w1", "b"], [0.9, -0.4, 0.3]):
    parameter.label, parameter.data = label, data
x = [Value(1.0, label="x0"), Value(2.0, label="x1")]
out = neuron(x)
out.label = "out"
out.backward()
write(draw_dot(out), "neuron.svg")
