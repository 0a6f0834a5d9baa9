"""A neuron with two inputs, as a page in which one steps forward and backward through its graph.

    python examples/explore_neuron.py [neuron.html]

The page shows values and gradients node by node, and the lines of this script that made the nodes. It needs a browser,
and no network.
"""
import argparse

import flatgrad
from flatgrad import Value
from flatgrad.viz import explore


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", default="neuron.html", help="the page to write")
    arguments = parser.parse_args()

    x1, x2 = Value(2.0, label="x1"), Value(0.0, label="x2")
    w1, w2 = Value(-3.0, label="w1"), Value(1.0, label="w2")
    b = Value(6.8813735870195432, label="b")
    with flatgrad.detect_anomaly():   # notes the lines, for the page
        n = x1 * w1 + x2 * w2 + b
        n.label = "n"
        out = n.tanh()
        out.label = "out"
        path = explore(out, arguments.path)

    out.backward()
    for value in (w1, w2, b):
        print(f"{value.label}: gradient {value.grad:.4f}")
    print(f"{path}: open it in a browser")


if __name__ == "__main__":
    main()
