"""python -m littlegrad.train [steps]"""
import sys

from . import Network
from .core import Value


def train(steps):
    net = Network([2, 4, 1])
    table = [((0, 0), -1), ((0, 1), 1), ((1, 0), 1), ((1, 1), -1)]
    for step in range(steps):
        loss = Value(0)
        for xs, y in table:
            error = net(list(xs)) - y
            loss = loss + error * error
        for w in net.weights():
            w.grad = 0.0
        loss.backward()
        for w in net.weights():
            w.data -= 0.15 * w.grad
        if step % 10 == 0:
            print(f'{step:3d} {loss.data:.12f}')
    for w in net.weights()[:4]:
        print(w.data, w.grad)


if __name__ == '__main__':
    train(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
