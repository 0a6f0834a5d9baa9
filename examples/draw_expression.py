"""The graph of a small expression, with its gradients.

    python examples/draw_expression.py [expression.svg]

The script needs the extra `viz` and Graphviz's program `dot`.
"""
from drawing import write

from flatgrad import Value
from flatgrad.viz import draw_dot

a = Value(2.0, label="a")
b = Value(-3.0, label="b")
c = Value(10.0, label="c")
d = a * b + c
d.label = "d"
loss = (d - a) ** 2 / b
loss.label = "loss"
loss.backward()
write(draw_dot(loss), "expression.svg")
