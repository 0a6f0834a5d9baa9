"""The expression of micrograd's README, its value and its gradients.

    python examples/expression.py
"""
import argparse

from flatgrad.engine import Value

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()

a = Value(-4.0)
b = Value(2.0)
c = a + b
d = a * b + b**3
c += c + 1
c += 1 + c + (-a)
d += d * 2 + (b + a).relu()
d += 3 * d + (b - a).relu()
e = c - d
f = e**2
g = f / 2.0
g += 10.0 / f
print(f"g     = {g:.4f}")
g.backward()
print(f"dg/da = {a.grad:.4f}")
print(f"dg/db = {b.grad:.4f}")
