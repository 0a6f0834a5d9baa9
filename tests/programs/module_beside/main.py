"""Fits a decaying exponential to five points."""
from engine import Value

points = [(0.0, 2.1), (0.5, 1.3), (1.0, 0.8), (1.5, 0.45), (2.0, 0.3)]
height, rate, floor = Value(1.0), Value(-0.5), Value(0.1)

for step in range(40):
    loss = Value(0.0)
    for t, y in points:
        guess = height * (rate * t).exp() + floor
        loss = loss + (guess - y) ** 2 / len(points)
    for p in (height, rate, floor):
        p.grad = 0.0
    loss.backward()
    for p in (height, rate, floor):
        p.data -= 0.2 * p.grad
    if step % 10 == 0:
        print(step, loss.data, height.grad, rate.grad)
print(height, rate, floor)
print(3 / height, 1 - rate)
