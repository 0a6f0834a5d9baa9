"""How long a check runs, and what a check without its tools raises."""
import time

__all__ = ["Limit", "Unavailable"]


class Unavailable(Exception):
    """What the check needs is not installed, or not for this system."""


class Limit:
    """The seeds of the rounds that a check has time for, one at least.

    Parameters
    ----------
    seconds : float, default 60.0
        No round begins after so many seconds.
    count : int, optional
        So many rounds instead, however long they take.
    seed : int, default 0
        The first round's. Afterwards it is the seed of the round under way, or one more than the last one's.
    short : bool, default False
        Whether this is one of all checks, in little time: one with rounds of very different lengths then begins with
        short ones.
    """

    def __init__(self, seconds=60.0, count=None, seed=0, short=False):
        self.first = self.seed = seed
        self.count, self.short = count, short
        self.began = time.monotonic()
        self.seconds = seconds

    @property
    def rounds(self):
        """How many rounds there were."""
        return self.seed - self.first

    @property
    def seeds(self):
        """The seeds of these rounds, in words."""
        return f"seeds {self.first} to {self.seed - 1}"

    def over(self):
        """Whether no other round begins."""
        if self.count is not None:
            return self.rounds >= self.count
        return self.rounds > 0 and time.monotonic() - self.began >= self.seconds

    def __iter__(self):
        while not self.over():
            yield self.seed
            self.seed += 1

    def several(self, n):
        """The seeds `n` at a time, as ranges; the last may have fewer."""
        while not self.over():
            seeds = range(self.seed, self.seed + n)
            if self.count is not None:
                seeds = seeds[:self.count - self.rounds]
            yield seeds
            self.seed = seeds.stop
