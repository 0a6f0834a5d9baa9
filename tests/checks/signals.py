"""Signals at random microseconds: Ctrl-C, and handlers that compute with Values themselves.

A round runs the code of one of `subjects`: forward and backward passes, collections, replays, scans, lanes, minimize,
fit, evaluations in threads, saves and so on. A timer of the system sends SIGINT once, at a random moment, or SIGALRM
again and again, whose handler creates and drops Values, collects, makes ids change, and does a backward pass. A
KeyboardInterrupt comes out as one; steps have happened as a whole or not at all; other numbers never change; and
afterwards the tape is sound, as many nodes are alive as before, and the code computes what it computed.

It needs Linux, for timers that send SIGINT.
"""
import collections
import contextlib
import ctypes
import random
import signal
import sys
import time

import flatgrad as fg
from checks import children
from checks.limits import Unavailable
from checks.subjects import SUBJECTS, Quiet, bits
from flatgrad import Tensor, Value, _core

from leaks import nodes

SHORT = 4.0   # seconds

MICRO = 1e-6
DEEPEST = 4   # handlers within handlers: on a busy machine the next signal comes before the last one's has ended


class Timer:
    """A timer that sends a signal to this process, by timer_create of the C library."""

    class Event(ctypes.Structure):
        _fields_ = [("value", ctypes.c_void_p), ("signal", ctypes.c_int), ("notify", ctypes.c_int),
                    ("rest", ctypes.c_char * 64)]

    def __init__(self, number):
        self.library = ctypes.CDLL(None, use_errno=True)
        self.timer = ctypes.c_void_p()
        event = self.Event(None, number, 0)
        if not hasattr(self.library, "timer_create") or self.library.timer_create(
                1, ctypes.byref(event), ctypes.byref(self.timer)):   # CLOCK_MONOTONIC
            raise Unavailable("needs timer_create of the C library")

    def set(self, seconds):
        """Send it after so many seconds; with 0 never."""
        times = (ctypes.c_long * 4)(0, 0, int(seconds), int(seconds % 1.0 * 1e9))
        self.library.timer_settime(self.timer, 0, times, None)


class Rounds:
    """What `children` runs."""

    def __init__(self):
        self.counts = collections.Counter()
        self.interrupt, self.alarm = Timer(signal.SIGINT), Timer(signal.SIGALRM)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGALRM, self.compute)
        self.made, self.rng, self.within = {}, random.Random(), 0
        self.a, self.litter, self.until_next = Value(0.5), [], 0.0
        self.bound = [fg.compile(lambda x: (x * self.a).sin())]
        self.bound[0](1.0)

    def compute(self, number, frame):
        """What the handler does; in the middle of another backward pass it may be refused."""
        if not self.until_next:
            return   # it came when all was over
        self.counts["signals"] += 1
        self.within += 1
        try:
            if self.within < DEEPEST:
                self.send_next()
            self.act()
        finally:
            self.within -= 1
            if not self.within:
                self.send_next()

    def send_next(self):
        """Unless all is over."""
        if self.until_next:
            self.alarm.set(self.until_next * self.rng.random() + MICRO)   # one at a time: the code gets on

    def act(self):
        kind = self.rng.randrange(5)
        if kind == 0 and len(self.litter) < 300:
            self.litter.extend(Value(9.0) for _ in range(30))
        elif kind == 1:
            self.litter.clear()
        elif kind == 2:
            self.litter[:] = [Value(9.0) for _ in range(30)][::3]
            fg.collect()
        elif kind == 3 and not _core._is_recording():
            with contextlib.suppress(RuntimeError, TypeError):   # such as within no_grad()
                (Tensor([1.0, 2.0]) * self.a).sum().backward()
        elif kind == 4:
            with contextlib.suppress(RuntimeError, TypeError):
                self.bound[0](0.5)

    def round(self, seed):
        rng = random.Random(seed)
        self.rng.seed(seed)
        name = rng.choice(sorted(SUBJECTS))
        if name not in self.made:
            if len(self.made) > 6:   # the others are not to take all the time for collections
                self.made.clear()
                fg.collect()
            self.made[name] = Quiet(name)
            began = time.perf_counter()
            self.made[name].subject.work()
            self.made[name].seconds = time.perf_counter() - began
        quiet = self.made[name]
        self.litter.clear()
        before = nodes()   # other subjects may have come or gone
        late = quiet.seconds * rng.uniform(0.0, 1.1) + MICRO
        stages, ended = [], False
        interrupts = rng.random() < 0.6
        try:
            if interrupts:
                self.interrupt.set(late)
            else:
                self.until_next = rng.choice([20.0, 100.0, 1000.0]) * MICRO
                self.alarm.set(late)
            subject = quiet.subject
            got = subject.work(lambda: stages.append(bits(subject.state()))) if subject.state else subject.work()
            ended = True
        except KeyboardInterrupt:
            assert interrupts
        while True:
            try:
                self.interrupt.set(0.0)
                self.until_next = 0.0
                self.alarm.set(0.0)
                break
            except KeyboardInterrupt:
                pass
        if ended:
            assert bits(got) == quiet.expected, f"{name}: other numbers"
        elif stages:
            assert bits(quiet.subject.state()) in (stages[0], quiet.expected), f"{name}: a step was done in part"
        self.counts["interrupted" if not ended else "handled" if not interrupts else "too late"] += 1
        self.litter.clear()
        got = None
        quiet.living = before
        quiet.check("interrupted" if interrupts else "handler")


def run(limit, options):
    if not sys.platform.startswith("linux"):
        raise Unavailable("needs Linux")
    counts = children.rounds("signals", limit)
    return (f"{limit.rounds} rounds passed, {limit.seeds}: {counts['interrupted']} ended by Ctrl-C, "
            f"{counts['too late']} before it, {counts['handled']} with {counts['signals']} signals whose handlers "
            "computed")
