"""Progress of a training run: a bar of tqdm, or plain lines, on stderr; and Ctrl-C, delayed during updates."""
from __future__ import annotations

import signal
import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Interrupts", "progress_of"]

PAUSE = 0.1          # least number of seconds between two updates of a bar
LINE_PAUSE = 5.0     # least number of seconds between two lines


class Bar:
    """A bar of tqdm; in a notebook, tqdm's bar for notebooks."""

    bar: Any
    done: int
    due: float

    def __init__(self, tqdm: type[Any], epochs: int) -> None:
        class Quiet(tqdm):
            monitor_interval = 0   # no thread that redraws: the Trainer says when to draw

        self.bar = Quiet(total=epochs, unit="epoch", mininterval=0.0)
        self.done = 0
        self.due = time.perf_counter() + PAUSE

    def epoch(self, done: int, logs: dict[str, float]) -> None:
        self.bar.set_postfix_str(described(logs), refresh=False)
        self.bar.update(done - self.done)
        self.done = done
        self.due = time.perf_counter() + PAUSE

    def batch(self, batch: Any, n_batches: Any) -> None:
        self.bar.set_postfix_str(f"batch {batch}" + (f" of {n_batches}" if n_batches is not None else ""))
        self.due = time.perf_counter() + PAUSE

    def close(self, done: int, logs: dict[str, Any]) -> None:
        if logs:
            self.epoch(done, logs)
        self.bar.close()


class Lines:
    """Lines with some seconds between them, if tqdm is not installed."""

    due: Any

    def __init__(self, epochs: Any) -> None:
        self.epochs = epochs
        self.due = time.perf_counter() + LINE_PAUSE

    def epoch(self, done: Any, logs: Any) -> None:
        print(f"epoch {done} of {self.epochs}: {described(logs)}", file=sys.stderr)
        self.due = time.perf_counter() + LINE_PAUSE

    def batch(self, batch: Any, n_batches: Any) -> None:
        """Do nothing: there are lines only for epochs."""

    def close(self, done: Any, logs: Any) -> None:
        if logs:
            self.epoch(done, logs)


def progress_of(epochs: int) -> Bar:
    """An object that shows the progress of `epochs` epochs."""
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError:   # no error, because the default asks for progress
        return Lines(epochs)
    return Bar(tqdm, epochs)


def described(logs: dict[str, float]) -> str:
    return ", ".join(f"{name} {number:.4g}" for name, number in logs.items() if name not in ("learning_rate", "time"))


class Interrupts:
    """A context in which Ctrl-C waits while `held` is True, so that it does not interrupt an update in the middle.
    Only for the handler that raises KeyboardInterrupt: another handler of SIGINT is not replaced.

    Attributes
    ----------
    held : bool
    pending : bool
        Whether Ctrl-C came while `held` was True; the caller then raises KeyboardInterrupt.
    """

    pending: bool
    installed: bool

    def __enter__(self) -> Interrupts:
        self.held = self.pending = self.installed = False
        if (threading.current_thread() is threading.main_thread()
                and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
            self.installed = True
            try:
                signal.signal(signal.SIGINT, self.handle)
            except BaseException:   # a KeyboardInterrupt
                self.__exit__()
                raise
        return self

    def handle(self, signum: Any, frame: Any) -> None:
        if not self.held:
            raise KeyboardInterrupt
        self.pending = True

    def __exit__(self, *exception: Any) -> None:
        if self.installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
