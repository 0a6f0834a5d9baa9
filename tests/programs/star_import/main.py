from engine import *

scores = [Value(0.5), Value(-1.0), Value(2.0)]
probs = softmax(scores)
loss = probs[0] * 3 + probs[2] * -1 + ZERO
loss.backward()
print(loss.data, [p.data for p in probs])
print([s.grad for s in scores], math.pi)
