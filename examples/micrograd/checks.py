"""Checks similar to micrograd's own tests, written against `micrograd`.

    python -m flatgrad run examples/micrograd/checks.py
"""
from micrograd.engine import Value


def show(name, *values):
    print(name, *[f"{v.data:.12g} {v.grad:.12g}" for v in values])


x = Value(-4.0)
z = 2 * x + 2 + x
q = z.relu() + z * x
h = (z * z).relu()
y = h + q + q * x
y.backward()
show("sanity", x, y)

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
g.backward()
show("operations", a, b, g)
