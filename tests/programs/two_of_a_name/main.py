import engine
import settings

rate = settings.Value(0.1, 'default') * 0.5
w = engine.Value(3.0)
for step in range(5):
    loss = (w + -1) * (w + -1) + w * 0.5
    w.grad = 0.0
    loss.backward()
    print(step, loss.data, w.grad)
    w.data -= rate.data * w.grad
print(rate)
