import random

from micrograd.neuron import Neuron
from micrograd.value import Value

random.seed(2)
neurons = [Neuron(2) for _ in range(2)]
top = Neuron(2)
x = [Value(2.0, label='x1'), Value(-1.0, label='x2')]
out = top([n(x) for n in neurons])
out.label = 'out'
out.backward()
print(out, x)
for n in [*neurons, top]:
    print([p.data for p in n.parameters()], [p.grad for p in n.parameters()])
print(x[0].grad, x[1].grad)
