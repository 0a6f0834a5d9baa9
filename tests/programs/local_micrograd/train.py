import random

from micrograd.engine import Value
from micrograd.nn import MLP
from micrograd.trainer import Trainer
from micrograd.viewer import count, draw

random.seed(11)
model = MLP(2, [3, 1])
trainer = Trainer(model)
rows = [(random.uniform(-1, 1), random.uniform(-1, 1)) for _ in range(10)]
answers = [float(a * b > 0) for a, b in rows]
print(model, Value(3.5))
for epoch in range(15):
    loss = sum((model(row) - answer) ** 2 for row, answer in zip(rows, answers)) / len(rows)
    trainer.step(loss)
    if epoch % 5 == 0:
        print(epoch, loss.data)
print([p.data for p in model.parameters()])
print([p.grad for p in model.parameters()])

# A small graph without differences and quotients, which may be stored in one node or in several.
a, b = Value(0.5, label='a'), Value(-2.0, label='b')
c = a * b; c.label = 'c'
d = (c + a).sigmoid() * (c + 1); d.label = 'd'
d.backward()
draw(d)
print(count(d))
