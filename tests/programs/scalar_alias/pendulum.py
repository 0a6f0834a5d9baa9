"""How the place of a pendulum after some steps depends on where it began."""
from engine import Scalar as V

angle, speed = V(0.4), V(0.0)
start, length = angle, V(1.2)
for _ in range(25):
    speed = speed + (angle.sin() * length) * -0.05
    angle = angle + speed * 0.05
angle.backward()
print(angle.data, speed.data)
print(start.grad, length.grad, speed.grad)
