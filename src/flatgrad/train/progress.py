"""How far a training run is: a bar by tqdm, or plain lines, on stderr; and Ctrl-C, held back while it must."""
import signal
import sys
import threading
import time

__all__ = ["Interrupts", "progress_of"]

PAUSE = 0.1          # seconds between two looks of a bar, at least
LINE_PAUSE = 5.0     # and between two lines


class Bar:
    """tqdm's bar, a notebook's where there is one."""

    def __init__(self, tqdm, epochs):
        class Quiet(tqdm):
            monitor_interval = 0   # no thread that watches: we say when to draw

        self.bar = Quiet(total=epochs, unit="epoch", mininterval=0.0)
        self.done = 0
        self.due = time.perf_counter() + PAUSE

    def epoch(self, done, logs):
        self.bar.set_postfix_str(described(logs), refresh=False)
        self.bar.update(done - self.done)
        self.done = done
        self.due = time.perf_counter() + PAUSE

    def batch(self, batch, n_batches):
        self.bar.set_postfix_str(f"batch {batch} of {n_batches}")
        self.due = time.perf_counter() + PAUSE

    def close(self, done, logs):
        if logs:
            self.epoch(done, logs)
        self.bar.close()


class Lines:
    """A line now and then, where there is no tqdm."""

    def __init__(self, epochs):
        self.epochs = epochs
        self.due = time.perf_counter() + LINE_PAUSE

    def epoch(self, done, logs):
        print(f"epoch {done} of {self.epochs}: {described(logs)}", file=sys.stderr)
        self.due = time.perf_counter() + LINE_PAUSE

    def batch(self, batch, n_batches):
        """A line is for epochs only."""

    def close(self, done, logs):
        if logs:
            self.epoch(done, logs)


def progress_of(epochs):
    """What shows the progress of so many epochs."""
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError:   # progress is asked for by default, so this is no error
        return Lines(epochs)
    return Bar(tqdm, epochs)


def described(logs):
    return ", ".join(f"{name} {number:.4g}" for name, number in logs.items() if name not in ("learning_rate", "time"))


class Interrupts:
    """A context in which Ctrl-C waits while `held` is True, so that it cannot come between the two halves
    of an update. Only where it would raise KeyboardInterrupt: another handler of SIGINT stays in place.

    Attributes
    ----------
    held : bool
    pending : bool
        Whether it came meanwhile: the caller raises KeyboardInterrupt then.
    """

    def __enter__(self):
        self.held = self.pending = self.installed = False
        if (threading.current_thread() is threading.main_thread()
                and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
            signal.signal(signal.SIGINT, self.handle)
            self.installed = True
        return self

    def handle(self, signum, frame):
        if not self.held:
            raise KeyboardInterrupt
        self.pending = True

    def __exit__(self, *exception):
        if self.installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
