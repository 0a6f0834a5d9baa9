class Value:
    """A setting: a number, where it stands, and what one made of it."""

    def __init__(self, data, source):
        self.data, self.source = data, source

    def __mul__(self, factor):
        return Value(self.data * factor, f'{self.source}*{factor}')

    def __repr__(self):
        return f'{self.data} ({self.source})'
