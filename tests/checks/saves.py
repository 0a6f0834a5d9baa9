"""Saves that are interrupted, at every line, at any moment, by a kill, and by a disk that has no more room.

Files are limited to so many bytes (RLIMIT_FSIZE), by an error and by a signal that kills; where this may mount a
tmpfs, disks are full and folders are read-only. Whatever comes, the file has its old arrays or the new ones, all of
them; a KeyboardInterrupt comes out as one; the umask is as it was; and no other file stays, at the latest after the
next save. test_files.py does a little of it.
"""
import contextlib
import linecache
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import flatgrad
from flatgrad import nn, optim, storage
from flatgrad.train import Checkpoint, Trainer

SHORT = 6.0   # seconds

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
    to its end; `check` after each. Returns how many lines there were. Python traces a `with` line before it leaves the
    block as well, where no signal is heard: those are left out."""
    stop = 0
    while True:
        stop += 1
        left = stop

        def trace(frame, event, argument):
            nonlocal left
            if frame.f_code.co_filename not in files:
                return None
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
            if event == "line" and not line.startswith("with "):
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
from checks.saves import NEW, OLD
from flatgrad.storage import save_arrays
while True:
    for state in (NEW, OLD):
        save_arrays(sys.argv[1], state)
    print(flush=True)
"""


def killed(path, times, rng, savers=2):
    """Processes that save to one file, killed at random. Returns how many files were left behind by them."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])}
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


# ---- no more room ----

def savers():
    """Functions that save to a path, by name; each writes another file when it is called again."""
    rng = np.random.default_rng(0)
    model = nn.MLP(2, [8, 1], rng=1)
    trainer = Trainer(model, optim.Adam(model.parameters(), 0.1), "mse")
    f = flatgrad.compile(lambda x: model(x).sum())
    f(np.ones((2, 2)))

    def moved(save):
        def call(path):
            for p in model.parameters():
                p.data = rng.normal(size=np.shape(p.data)) if np.shape(p.data) else float(rng.normal())
            save(path)
        return call

    return {"save_arrays": lambda path: storage.save_arrays(path, {"a": rng.normal(size=3000), "b": np.array("x")}),
            "Module.save": moved(model.save), "Trainer.save": moved(trainer.save), "to_c": moved(f.to_c),
            "Checkpoint": lambda path: trainer.fit(rng.normal(size=(4, 2)), [0.0, 1.0, 0.0, 1.0], 1, 2, progress=False,
                                                   callbacks=[Checkpoint(path)])}


def contents(folder):
    return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def fails_as_a_whole(save, path):
    """Whether the save raised an OSError; the folder is as it was then."""
    before = contents(os.path.dirname(path))
    try:
        save(path)
    except OSError:
        assert contents(os.path.dirname(path)) == before, "files have changed"
        return True
    return False


def at_every_size(folder, rng, step):
    """Files limited to so many bytes. Returns how many saves failed."""
    import resource

    failed, (soft, hard) = 0, resource.getrlimit(resource.RLIMIT_FSIZE)
    for name, save in savers().items():
        path = os.path.join(folder, "x.c" if name == "to_c" else "x.npz")
        save(path)
        most = max(map(len, contents(folder).values()))
        for size in range(rng.randrange(step), most, step):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
            try:
                assert fails_as_a_whole(save, path), f"{name}: {size} bytes were enough for {most}"
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            failed += 1
        save(path)
        for file in Path(folder).iterdir():
            file.unlink()
    return failed


LIMITED = """
import resource, signal, sys
from checks.saves import NEW
from flatgrad.storage import save_arrays
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
save_arrays(sys.argv[1], NEW)
"""


def killed_by_size(path, size):
    """A save in a process that the system kills when the file has so many bytes."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])}
    storage.save_arrays(path, OLD)
    done = subprocess.run([sys.executable, "-c", LIMITED, path, str(size)], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGXFSZ, done
    assert is_one_of(path, OLD)
    storage.save_arrays(path, OLD)
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


@contextlib.contextmanager
def disk(kilobytes):
    """The path of a folder with so much room, or None if this may not be made."""
    with tempfile.TemporaryDirectory() as folder:
        mount = shutil.which("mount")
        made = mount is not None and hasattr(os, "geteuid") and os.geteuid() == 0 and subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], capture_output=True).returncode == 0
        try:
            yield folder if made else None
        finally:
            if made:
                subprocess.run(["umount", folder], check=True, capture_output=True)


def on_full_disks(rng, times):
    """Saves on a disk that has room for less, and in a folder that is read-only. Returns how many failed; None if no
    disk may be made."""
    failed = 0
    with disk(256) as folder:
        if folder is None:
            return None
        own = os.path.join(folder, "own")
        os.mkdir(own)
        for name, save in savers().items():
            path = os.path.join(own, "x.c" if name == "to_c" else "x.npz")
            save(path)
            for _ in range(times):
                filler = os.path.join(folder, "filler")
                with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
                    for _ in range(256):
                        file.write(b"x" * 1024)
                with open(filler, "r+b") as file:
                    file.truncate(max(os.path.getsize(filler) - rng.choice([0, 4096, 8192, 16384]), 0))
                failed += fails_as_a_whole(save, path)
                os.unlink(filler)
            save(path)
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True, capture_output=True)
            assert fails_as_a_whole(save, path), f"{name}: a read-only folder"
            failed += 1
            subprocess.run(["mount", "-o", "remount,rw", folder], check=True, capture_output=True)
            for file in Path(own).iterdir():
                file.unlink()
    return failed


def run(limit, options):
    rng = random.Random(limit.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.npz")
        storage.save_arrays(path, OLD)

        def check():
            assert is_one_of(path, OLD, NEW)
            storage.save_arrays(path, OLD)
            assert os.listdir(folder) == ["x.npz"]

        lines = at_every_line(lambda: storage.save_arrays(path, NEW), check)
        count = at_any_moment(path, limit.seconds / 2, rng) if hasattr(signal, "setitimer") else 0
        left = failed = 0
        for seed in limit:
            left += killed(path, 1, rng)
            if hasattr(signal, "SIGXFSZ") and (seed == limit.first or not limit.short):
                killed_by_size(path, rng.randrange(300_000))
                os.unlink(path)
                failed += at_every_size(folder, rng, 4001 if limit.short else 211)
                storage.save_arrays(path, OLD)
        full = on_full_disks(rng, 1 if limit.short else 20)
    return (f"{lines} lines, {count} interrupts and {2 * limit.rounds} kills passed; these left {left} files, which "
            f"the next save removed; {failed} saves with too small a limit, and "
            f"{'no' if full is None else full} saves on full disks, changed nothing")
