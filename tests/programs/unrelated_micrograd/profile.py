from micrograd import gradient
from micrograd.mesh import Value

samples = [Value(t) for t in (300.0, 301.5, 304.25, 303.0, 299.0, 298.5)]
for g in gradient(samples, pitch=2.5):
    print(g)
