class Value:
    """A measurement with a unit."""

    def __init__(self, number, unit='K'):
        self.number, self.unit = number, unit

    def __sub__(self, other):
        return Value(self.number - other.number, self.unit)

    def __repr__(self):
        return f'{self.number} {self.unit}'


def gradient(samples, pitch):
    return [Value((b - a).number / pitch, a.unit + '/um') for a, b in zip(samples, samples[1:])]
