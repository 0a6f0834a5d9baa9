import importlib

import engine

a, b = engine.Value(2.0), engine.Value(-1.0)
y = a * b * engine.SCALE + a
y.backward()
print(y.data, a.grad, b.grad)
old = engine.Value
engine.SCALE = 0.0
importlib.reload(engine)
a, b = engine.Value(2.0), engine.Value(-1.0)
y = a * b * engine.SCALE - 3 * a
y.backward()
print(y.data, a.grad, b.grad, y._op)
