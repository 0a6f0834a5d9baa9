"""Threads that compute, save, collect and die at the same time, with a switch after every few bytecodes.

A round runs the code of some of `subjects` in several threads: rules, backward passes, replays, saves, training, and
evaluations of shared compiled functions. Python switches between them after random times from a microsecond on; other
threads collect, copy, pickle and evaluate, and some end in the middle, by an exception from outside. The numbers of
each are those that it computes alone, and afterwards as many nodes are alive as before. In some rounds a process ends
while its daemon threads compute: with exit code 0.
"""
import collections
import copy
import ctypes
import gc
import pickle
import random
import subprocess
import sys
import threading
import time

import flatgrad as fg
from checks import children
from checks.subjects import SUBJECTS, bits
from flatgrad import Tensor, Value

from leaks import nodes

SHORT = 5.0   # seconds

# Numbers of all threads in one place, or a lever of all threads: one at a time.
ALONE = {"interrupts"}

DAEMONS = """
import random, sys, threading, time
from checks.subjects import SUBJECTS
sys.setswitchinterval(1e-5)
rng = random.Random({seed})
def forever(work):
    while True:
        work()
for name in rng.sample(sorted(SUBJECTS), 4):
    threading.Thread(target=forever, args=(SUBJECTS[name]().work,), daemon=True).start()
time.sleep(rng.uniform(0.0, 0.1))
"""


class Killed(Exception):
    """It comes out of nowhere in a thread."""


class Rounds:
    """What `children` runs."""

    def __init__(self):
        self.counts = collections.Counter()

    def round(self, seed):
        rng = random.Random(seed)
        if seed % 8 == 7:
            done = subprocess.run([sys.executable, "-c", DAEMONS.format(seed=seed)], capture_output=True, text=True)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), f"daemon threads: {done}"
            self.counts["ends of processes"] += 1
            return
        names = rng.sample(sorted(set(SUBJECTS) - ALONE), rng.randint(2, 4))
        subjects = [SUBJECTS[name]() for name in names]
        expected = [bits(subject.work()) for subject in subjects]
        for name, subject, first in zip(names, subjects, expected):
            assert bits(subject.work()) == first, name
        before, wrong, over, struck = nodes(), [], threading.Event(), threading.Event()
        shared = [k for k, subject in enumerate(subjects) if subject.is_shared]
        until = time.monotonic() + rng.uniform(0.1, 0.5)
        deaths = []

        def compute(k, is_killed=False):
            try:
                while time.monotonic() < until:
                    got = bits(subjects[k].work())
                    if got != expected[k]:
                        wrong.append(f"{names[k]}: other numbers")
                        return
                    self.counts["runs"] += 1
                while is_killed and not struck.is_set():   # its number is another thread's when it has ended
                    time.sleep(0.001)
                for _ in range(100):
                    pass
            except Killed:
                deaths.append(k)
            except BaseException as error:
                if not is_killed:   # Python hides Killed in messages of its own, such as of a generator
                    wrong.append(f"{names[k]}: {error!r}")

        def disturb(seed):
            rng, a, t = random.Random(seed), Value(0.5), Tensor([1.0, 2.0])
            try:
                while not over.is_set():
                    kind = rng.randrange(5)
                    if kind == 0:
                        fg.collect()
                    elif kind == 1:
                        gc.collect()
                    elif kind == 2:
                        x = pickle.loads(pickle.dumps([(a * t).tanh().sum(), a, t]))
                        assert x[0].data == (a * t).tanh().sum().data
                    elif kind == 3:
                        x = copy.deepcopy((a * t).sum())
                        x.backward()
                        assert x.grad == 1.0
                    else:
                        x = [Value(float(k)) for k in range(50)][::3]
                        assert [v.data for v in x] == [float(k) for k in range(0, 50, 3)]
                    x = None
            except BaseException as error:
                wrong.append(f"disturbed: {error!r}")

        interval = sys.getswitchinterval()
        sys.setswitchinterval(10 ** rng.uniform(-6.0, -3.0))
        try:
            victims = set(rng.sample(range(len(subjects)), 1)) if rng.random() < 0.3 else set()
            threads = [threading.Thread(target=compute, args=(k, k in victims)) for k in range(len(subjects))]
            threads += [threading.Thread(target=compute, args=(k,)) for k in shared if k not in victims]
            others = [threading.Thread(target=disturb, args=(rng.random(),)) for _ in range(rng.randint(0, 2))]
            for thread in threads + others:
                thread.start()
            for k in victims:
                time.sleep(rng.uniform(0.0, 0.1))
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threads[k].ident), ctypes.py_object(Killed))
            struck.set()
            for thread in threads:
                thread.join()
            over.set()
            for thread in others:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert not wrong, f"{names}: {wrong}"
        assert fg._core._check()
        now = nodes()
        assert now <= before, f"{names}: {now} nodes are alive, not {before}"
        for name, subject, first in zip(names, subjects, expected):
            assert bits(subject.work()) == first, f"{name}: other numbers afterwards"
        self.counts["threads"] += len(threads) + len(others)
        self.counts["deaths"] += len(deaths)


def run(limit, options):
    counts = children.rounds("threads", limit)
    return (f"{limit.rounds} rounds passed, {limit.seeds}: {counts['threads']} threads, {counts['runs']} runs, "
            f"{counts['deaths']} deaths, {counts['ends of processes']} ends of processes")
