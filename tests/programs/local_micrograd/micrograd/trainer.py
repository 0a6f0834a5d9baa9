class Trainer:
    """Gradient descent with momentum; the velocity is kept on the parameter."""

    def __init__(self, model, lr=0.1, momentum=0.8):
        self.model, self.lr, self.momentum = model, lr, momentum
        for p in model.parameters():
            p.velocity = 0.0

    def step(self, loss):
        self.model.zero_grad()
        loss.backward()
        for p in self.model.parameters():
            p.velocity = self.momentum * p.velocity - self.lr * p.grad
            p.data += p.velocity
        return loss.data
