"""Saves that are interrupted, at every line, at any moment, and by a kill.

    python tests/interrupt_saves.py --seconds 60

Whatever comes, the file has its old arrays or the new ones, all of them; a KeyboardInterrupt comes out as one;
the umask is as it was; and no other file stays, at the latest after the next save. test_files.py does a
little of it.
"""
import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from flatgrad import storage

OLD = {"a": np.arange(5.0), "b/c": np.array("old")}
NEW = {"a": np.arange(40000.0), "text": np.array(["new", "er"]), "empty": np.zeros((0, 3)), "flag": np.array(True)}


def is_one_of(path, *states):
    """Whether a file holds one of these arrays, and all of them."""
    found = storage.load_arrays(path)
    return any(found.keys() == state.keys() and all(np.array_equal(found[key], state[key]) for key in state)
               for state in states)


def umask():
    """The process's, read by making a file."""
    with tempfile.TemporaryDirectory() as folder:
        os.close(os.open(os.path.join(folder, "x"), os.O_CREAT | os.O_WRONLY, 0o666))
        return 0o666 & ~os.stat(os.path.join(folder, "x")).st_mode


def at_every_line(save, check, files=(storage.__file__,)):
    """Call `save` again and again, each time with a KeyboardInterrupt at a later line of the files, until it comes
    to its end; `check` after each. Returns how many lines there were."""
    stop = 0
    while True:
        stop += 1
        left = stop

        def trace(frame, event, argument):
            nonlocal left
            if frame.f_code.co_filename not in files:
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        try:
            sys.settrace(trace)
            save()
        except KeyboardInterrupt:
            ended = False
        else:
            ended = True
        finally:
            sys.settrace(before)
        check()
        if ended:
            return stop


def at_any_moment(path, seconds, rng):
    """The same by signals. Returns how many saves were interrupted."""
    def interrupt(number, frame):
        raise KeyboardInterrupt

    mask, count, states = umask(), 0, [OLD, NEW]
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        end, longest = time.monotonic() + seconds, 0.01
        while time.monotonic() < end:
            began, interrupted = time.monotonic(), False
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, longest))
                storage.save_arrays(path, states[count % 2])
                signal.setitimer(signal.ITIMER_REAL, 0.0)
                longest = 1.2 * (time.monotonic() - began)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
            count += interrupted
            if not interrupted:
                states.reverse()   # so that what is there and what is written differ
            assert is_one_of(path, OLD, NEW) and umask() == mask
    finally:
        signal.signal(signal.SIGALRM, before)
    storage.save_arrays(path, NEW)
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    return count


SAVER = """
import sys
from interrupt_saves import NEW, OLD
from flatgrad.storage import save_arrays
while True:
    for state in (NEW, OLD):
        save_arrays(sys.argv[1], state)
    print(flush=True)
"""


def killed(path, times, rng, savers=2):
    """Processes that save to one file, killed at random. Returns how many files were left behind by them."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
    folder, left = Path(path).parent, 0
    storage.save_arrays(path, OLD)
    for _ in range(times):
        processes = [subprocess.Popen([sys.executable, "-c", SAVER, path], env=environment, stdout=subprocess.PIPE)
                     for _ in range(savers)]
        for process in processes:
            process.stdout.readline()   # both are at it
        time.sleep(rng.uniform(0.0, 0.05))
        for process in processes:
            assert process.poll() is None, "a save failed beside another"
            process.kill()
        for process in processes:
            process.communicate()
        assert is_one_of(path, OLD, NEW)
        left += len(list(folder.iterdir())) - 1
        storage.save_arrays(path, OLD)
        assert [file.name for file in folder.iterdir()] == [Path(path).name]
    return left


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.npz")
        storage.save_arrays(path, OLD)

        def check():
            assert is_one_of(path, OLD, NEW)
            storage.save_arrays(path, OLD)
            assert os.listdir(folder) == ["x.npz"]

        lines = at_every_line(lambda: storage.save_arrays(path, NEW), check)
        count = at_any_moment(path, options.seconds / 2, rng) if hasattr(signal, "setitimer") else 0
        end, kills, left = time.monotonic() + options.seconds / 2, 0, 0
        while time.monotonic() < end:
            left += killed(path, 1, rng)
            kills += 2
    print(f"interrupt_saves: {lines} lines, {count} interrupts and {kills} kills passed; these left {left} files, "
          "which the next save removed")


if __name__ == "__main__":
    main()
