class Dice:
    """Random numbers that are the same on every machine."""

    def __init__(self, seed):
        self.state = seed

    def uniform(self, low, high):
        self.state = (self.state * 1103515245 + 12345) % 2**31
        return low + (high - low) * self.state / 2**31


def paint(values, colour):
    for v in values:
        setattr(v, '_vis_color', colour)


def picture(v, indent=0):
    colour = getattr(v, '_vis_color', 'white')
    print(f"{' ' * indent}{v._op or 'leaf'} {v.data:.5f} {v.grad:.5f} {colour}")
    for child in v._prev:
        picture(child, indent + 2)
