"""There is no sort: whatever is made is put on a list, and the reverse pass goes through it from its end."""
tape = []


class Value:
    def __init__(self, data, _op=''):
        self.data = data
        self.grad = 0.0
        self._op = _op
        self._backward = lambda: None
        tape.append(self)

    def __add__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data + other.data, '+')

        def _backward():
            self.grad += out.grad
            other.grad += out.grad
        out._backward = _backward
        return out

    def __mul__(self, other):
        other = other if isinstance(other, Value) else Value(other)
        out = Value(self.data * other.data, '*')

        def _backward():
            self.grad += other.data * out.grad
            other.grad += self.data * out.grad
        out._backward = _backward
        return out

    def backward(self):
        self.grad = 1.0
        for v in reversed(tape):
            v._backward()


w, x = Value(0.5), Value(3.0)
kept = len(tape)
for step in range(3):
    y = w * x + 1
    loss = y * y
    loss.backward()
    print(step, loss.data, w.grad, x.grad, len(tape))
    w.data -= 0.02 * w.grad
    w.grad = x.grad = 0.0
    del tape[kept:]
