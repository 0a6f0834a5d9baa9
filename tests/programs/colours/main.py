from engine import Value, Vector
from utils import Dice, paint, picture

dice = Dice(7)
rows = [Vector(*(dice.uniform(-1, 1) for _ in range(2))) for _ in range(3)]
paint([v for row in rows for v in row.values], 'lightgreen')
for p in (v for row in rows for v in row.values):
    p.m = p.v = 0.0
for step in range(1, 6):
    loss = Value(0.0)
    for x, target in (((1.0, 2.0), 0), ((-1.0, 0.5), 1), ((0.3, -1.5), 2)):
        exps = [row.dot(Vector(*x)).exp() for row in rows]
        loss = loss - (exps[target] / sum(exps)).log()
    loss = loss * (1 / 3)
    loss.backward()
    for p in (v for row in rows for v in row.values):
        p.m = 0.9 * p.m + 0.1 * p.grad
        p.v = 0.95 * p.v + 0.05 * p.grad ** 2
        p.data -= 0.1 * (p.m / (1 - 0.9**step)) / ((p.v / (1 - 0.95**step)) ** 0.5 + 1e-8)
        p.grad = 0
    print(step, loss.data)
small = rows[0].values[0] * rows[1].values[1] + rows[0].values[0].exp()
paint([small], 'red')
small.backward()
picture(small)
