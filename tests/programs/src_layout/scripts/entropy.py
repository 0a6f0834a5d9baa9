import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'src'))

from flow.engine import Value  # noqa: E402

counts = [Value(c, label=name) for c, name in zip((3.0, 5.0, 2.0, 7.0), 'abcd')]
total = sum(counts[1:], counts[0])
inverse = Value(1 / total.data, label='1/total')
entropy = sum((c * inverse * (c * inverse).log() for c in counts), Value(0.0)) * -1
entropy.backward()
print('entropy', entropy.data)
for c in counts + [inverse]:
    print(c.label, c.data, c.grad)
