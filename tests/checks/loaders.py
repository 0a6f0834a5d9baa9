"""Loaders, with input that atheris makes by which lines of them it reaches.

What loads arrays, checkpoints, tables and pickled states is given bytes. atheris mutates them, and keeps those that
reach something new. The first byte says which loader, and whether the bytes are the file, an array in a sound
archive, or the JSON of a Trainer in one. Nothing else than the loader's own error may come out, and a loader that
succeeds has something that can be printed.

It needs atheris (`pip install atheris`: it has wheels for Linux and Python 3.11 to 3.13).
"""
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from checks.limits import Unavailable

SHORT = 4.0   # seconds


def targets(folder):
    """Functions of bytes, the errors that they may raise, and inputs to begin with."""
    import numpy as np
    from checks import files
    from flatgrad import Tensor, Value, storage
    from flatgrad.datasets import read_csv
    from flatgrad.errors import DataError, StateError

    path = os.path.join(folder, "x.npz")

    def write(data):
        with open(path, "wb") as file:
            file.write(data)

    def arrays(data):
        write(data)
        repr(storage.load_arrays(path))

    def array(data):
        arrays(files.archive_of([("a.npy", data)]))

    def table(data):
        write(data)
        for options in {}, {"target": "y"}:
            read_csv(path, **options)

    model, trainer = files.Noisy(1), files.trainer("adam")
    trainer.save(path)
    whole = files.contents(Path(path).read_bytes())
    k = [name for name, _ in whole].index("flatgrad.train.Trainer.npy")

    def checkpoint(data):
        text = data.decode("utf-8", "replace")
        entries = list(whole)
        entries[k] = (entries[k][0], files.npy(np.array(text)))
        write(files.archive_of(entries))
        before = files.state_of(trainer)
        try:
            trainer.load(path)
        except StateError:
            assert files.state_of(trainer) == before
            raise

    def weights(data):
        write(data)
        model.load(path)

    y = (Value(0.5) * Tensor([1.0, 2.0])).tanh().sum()
    restore, given = y.__reduce_ex__(4)[1][0].__reduce__()[:2]
    at = [n for n, part in enumerate(given[1]) if isinstance(part, bytes)]

    def graph(data):
        """The bytes of a saved graph, of which the first byte says which."""
        saved = list(given[1])
        saved[at[data[0] % len(at)] if data else at[0]] = data[1:]
        restored = restore(given[0], tuple(saved), *given[2:])
        repr(restored)

    text = str(np.lib.format.read_array(io.BytesIO(whole[k][1]))).encode()
    trainer.model.save(path)
    saved_model = Path(path).read_bytes()
    storage.save_arrays(path, {"a": np.arange(3.0), "b": np.array("x")})
    saved_arrays = Path(path).read_bytes()
    return [(arrays, StateError, [saved_arrays]), (array, StateError, [files.npy(np.arange(6.0).reshape(2, 3))]),
            (table, DataError, [b"x,y\n1,2\n3,a\n", b'"x"\n1e5\n']), (checkpoint, StateError, [text]),
            (weights, StateError, [saved_model]),
            (graph, (ValueError, MemoryError), [bytes([n]) + given[1][place] for n, place in enumerate(at)])]


def child(seconds, seed, corpus):
    """Called in the new process; atheris ends it."""
    import atheris

    with atheris.instrument_imports(include=["flatgrad.storage", "flatgrad.datasets", "flatgrad.train"]):
        import flatgrad.datasets
        import flatgrad.storage
        import flatgrad.train  # noqa: F401
    from flatgrad import _core

    folder = tempfile.TemporaryDirectory()
    found = targets(folder.name)
    for n, (_, _, inputs) in enumerate(found):
        for k, data in enumerate(inputs):
            Path(corpus, f"{n} {k}").write_bytes(bytes([n]) + data)

    def one(data):
        if not data:
            return
        load, errors, _ = found[data[0] % len(found)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                load(data[1:])
            except errors:
                pass
        assert load.__name__ != "graph" or _core._check()

    atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}", f"-seed={seed + 1}", "-rss_limit_mb=4096",
                   "-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={corpus}{os.sep}", corpus], one)
    atheris.Fuzz()


def run(limit, options):
    if importlib.util.find_spec("atheris") is None:
        raise Unavailable("needs atheris")
    executed = 0
    for seed in limit:
        with tempfile.TemporaryDirectory() as corpus:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])}
            seconds = max(min(limit.seconds, 600.0) - 2.0, 1.0)
            done = subprocess.run(
                [sys.executable, "-c", f"from checks import loaders; loaders.child({seconds}, {seed}, {corpus!r})"],
                env=environment, capture_output=True, text=True, cwd=corpus)
            crashes = [file.read_bytes() for file in Path(corpus).glob("crash-*")]
            assert done.returncode == 0 and not crashes, f"{crashes}\n{done.stderr[-4000:]}"
            executed += int(done.stderr.partition("stat::number_of_executed_units:")[2].split()[0])
    return f"{limit.rounds} rounds, {limit.seeds}, {executed} inputs"
