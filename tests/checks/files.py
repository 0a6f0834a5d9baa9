"""Damaged files: bits and bytes of what was saved, and what is inside, changed at random.

Files of arrays, of a model, of Trainers, and a table are damaged and loaded. Either there is a StateError that names
the file, and what was to be loaded is as it was, to the last bit; or what is loaded can be used: a Trainer
trains. Bytes that were changed from outside must not change a number.
test_files.py does a little of it.
"""
import contextlib
import io
import json
import math
import os
import pickle
import random
import re
import struct
import tempfile
import warnings
import zipfile

import numpy as np

from flatgrad import nn, storage
from flatgrad.datasets import read_csv
from flatgrad.errors import ArgumentError, DataError, DivergedError, StateError
from flatgrad.optim import SGD, Adam, lr_scheduler
from flatgrad.train import Checkpoint, EarlyStopping, Trainer
from flatgrad.train.saved import state_of_trainer

SHORT = 5.0   # seconds

X = np.random.default_rng(0).normal(size=(12, 2))
Y = np.where(X[:, 0] > X[:, 1], 1.0, -1.0)

ARRAYS = {
    "floats": np.linspace(0.0, 1.0, 7), "a/b": np.arange(6, dtype=">i4").reshape(2, 3), "a": np.array([True, False]),
    "a.npy": np.array(5, np.uint8), "": np.zeros((0, 2)), "Ünïcode": np.array(["x", "längér"]),
    "..": np.array(b"bytes"), "half": np.eye(3, dtype=np.float16), "complex": np.array([1j]),
    "long": np.arange(2, dtype=np.longdouble),
}


class Noisy(nn.Module):
    """With buffers, and with generators of every kind."""

    def __init__(self, seed):
        self.layers = [nn.Layer(2, 3, rng=seed), nn.BatchNorm(3), nn.Layer(3, 1, activation="linear", rng=seed)]
        self.first, self.second = np.random.default_rng(seed), random.Random(seed)
        self.third = np.random.Generator(np.random.MT19937(seed))
        self.fourth = np.random.Generator(np.random.Philox(seed))

    def forward(self, x):
        for rng in (self.first, self.third, self.fourth):
            rng.normal(), rng.integers(5)
        self.second.gauss(0.0, 1.0)
        for layer in self.layers:
            x = layer(x)
        return x


def trainer(kind, seed=0, epochs=2):
    model = Noisy(seed)
    if kind == "adam":
        optimizer = Adam(model.parameters(), lr=0.01, amsgrad=True)
        scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=1000)
    else:
        optimizer = SGD(model.parameters(), lr=0.01, momentum=0.9)
        if kind == "sequence":
            scheduler = lr_scheduler.SequentialLR(optimizer, [lr_scheduler.ConstantLR(optimizer),
                                                              lr_scheduler.StepLR(optimizer, 2)], [3])
        else:
            scheduler = lr_scheduler.ReduceLROnPlateau(optimizer)
    result = Trainer(model, optimizer, "hinge", ["accuracy"], scheduler)
    with tempfile.TemporaryDirectory() as folder:
        result.fit(X, Y, epochs, 5, seed=1, progress=False, callbacks=callbacks(folder))
    return result


def callbacks(folder):
    return [EarlyStopping("loss", patience=10**6), Checkpoint(os.path.join(folder, "x"), every=10**6, monitor="loss")]


def bits(x):
    """All of a tree that can be told from another, bit by bit."""
    if isinstance(x, dict):
        return dict, [(bits(key), bits(value)) for key, value in x.items()]
    if isinstance(x, (list, tuple)):
        return type(x), [bits(item) for item in x]
    if isinstance(x, np.ndarray):
        return x.dtype.str, x.shape, x.tobytes()
    return type(x), struct.pack("d", x) if isinstance(x, float) else x


def state_of(x):
    """All that loading may change, bit by bit."""
    if isinstance(x, Trainer):
        return bits([state_of_trainer(x), x.history.to_dict(), x.epoch, x.seed, x.stopped, x._callbacks.states(), x._counted])
    return bits(x.state_dict())


# ---- damage from outside ----

def flip_bits(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut(data, rng):
    return data[:rng.randrange(len(data))]


def cut_out(data, rng):
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    return data[:a] + data[b:]


def overwrite(data, rng):
    """Sizes and places that cannot be, and other bytes, most often where the archive has its own numbers."""
    signs = [found.start() for found in re.finditer(rb"PK[\1-\6][\2-\10]|\x93NUMPY", data)]
    at = rng.choice([rng.randrange(len(data)), rng.choice(signs) + rng.randrange(46)])
    new = rng.choice([b"\xff" * 4, b"\0" * 4, b"\xff" * 8, b"\0" * 2, b"\xff\xff", b"\xfe\xff\xff\x7f",
                      struct.pack("<I", len(data)), bytes(rng.randrange(256) for _ in range(rng.randrange(1, 40)))])
    return data[:at] + new + data[at + len(new):]


def double(data, rng):
    return data + data[rng.randrange(len(data)):]


OUTSIDE = [flip_bits, flip_bits, cut, cut_out, overwrite, overwrite, double]


def cells(data, rng):
    """Other text in a table."""
    at = rng.randrange(len(data))
    new = rng.choice([b'"', b"\0", b"\r", b",,", b"9" * 5000, b"1e999", b"nan", b"_", b"\xef\xbb\xbf", b"x" * 200000,
                      b"\n\n"])
    return data[:at] + new + data[at:]


# ---- damage with checksums that are right ----

def contents(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(entry.orig_filename, archive.read(entry)) for entry in archive.infolist()]


def archive_of(entries, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")   # of names that are there twice
        with zipfile.ZipFile(stream, "w", compression) as archive:
            for name, content in entries:
                archive.writestr(name, content)
    return stream.getvalue()


def npy(array, allow_pickle=False):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=allow_pickle)
    return stream.getvalue()


def with_header(text, data=b"", version=1):
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


HEADERS = [
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"(" * 9000 + b", }",
    b"-" * 9000 + b"1\n", b"'" * 3, b"\\",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"9" * 18 + b",), }",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"99999999, " * 20 + b"), }",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (0, " + b"9" * 19 + b"), }",
    b"{'descr': '<U99999999', 'fortran_order': False, 'shape': (), }",
    b"{'descr': '<U0', 'fortran_order': False, 'shape': (" + b"9" * 18 + b",), }",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (), }", b"{'descr': [('a', '<f8')], 'shape': ()}",
    b"{'descr': '<M8[zz]', 'fortran_order': False, 'shape': (), }", b"\xff" * 100, b"", b"{" * 20000,
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", b"__import__('os')", b"1," + b" " * 60000 + b"x",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (1," + b" " * 60000 + b"x",
]

WRONG = [np.array(math.nan), np.zeros((2, 2, 2)), np.array(["text"]), np.array([2**53 + 1] * 3), np.array("x"),
         np.full(3, 1j), np.zeros(3, "U0"), np.full((3, 2), np.longdouble("1e4000")), np.array([], "S1"),
         np.array(["2020-01-01"], "M8[D]"), np.zeros(3), np.zeros((3, 2)), np.array(-1), np.full(3, -1.0)]


def inside(data, rng):
    """Another entry, or another order of them; arrays that are none, or others."""
    entries = contents(data)
    k = rng.randrange(len(entries))
    name, content = entries[k]
    kind = rng.randrange(9)
    if kind == 0:
        entries[k] = (name, with_header(rng.choice(HEADERS), content[128:], rng.choice([1, 2, 3, 4])))
    elif kind == 1:
        entries[k] = (name, npy(rng.choice(WRONG)))
    elif kind == 2:
        entries[k] = (name, npy(np.array([{"a": 1}], object), allow_pickle=True))
    elif kind == 3:
        del entries[k]
    elif kind == 4:
        other = rng.choice([name, name, "x", "../x.npy", "a/", "x.txt", name + "'"])
        entries.append((other, content))
    elif kind == 5:
        j = rng.randrange(len(entries))
        entries[k], entries[j] = (name, entries[j][1]), (entries[j][0], content)
    elif kind == 6:
        entries[k] = (name, flip_bits(content, rng))
    elif kind == 7:
        entries[k] = (name, rng.choice([cut, cut_out, double])(content, rng))
    else:
        entries[k] = (name, pickle.dumps(content))
    return archive_of(entries, rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]))


STRANGE = [None, True, False, -1, 0, 1, 2**63, 10**400, 1.5, -0.5, 1e300, math.nan, math.inf, "abc", "", [], {},
           [1, "a"], {"array": "no such"}, {"array": 1}, {"tuple": 5}, {"dict": [[1, 2]]}, {"dict": [[[], 2]]},
           {"other": 1},
           {"array": "model/layers.0.weight"}, {"array": "epochs"}, {"dict": 5}, {"tuple": []}]


def places(x, path=()):
    """The paths to all that is in a tree of JSON."""
    yield path
    for key, value in x.items() if isinstance(x, dict) else enumerate(x) if isinstance(x, list) else ():
        yield from places(value, (*path, key))


def change_json(data, rng):
    """Another value somewhere in the tree of a checkpoint."""
    entries = contents(data)
    k = [name for name, _ in entries].index("flatgrad.train.Trainer.npy")
    whole = json.loads(str(np.lib.format.read_array(io.BytesIO(entries[k][1]))))
    for _ in range(rng.choice([1, 1, 1, 3])):
        *path, last = rng.choice(list(places(whole))[1:])
        at = whole
        for key in path:
            at = at[key]
        if rng.random() < 0.2:
            del at[last]
        elif isinstance(at, list) and rng.random() < 0.2:
            at.append(at[last])
        else:
            at[last] = json.loads(json.dumps(rng.choice(STRANGE)))
    entries[k] = (entries[k][0], npy(np.array(json.dumps(whole))))
    if rng.random() < 0.02:
        entries[k] = (entries[k][0], npy(np.array("[" * 100000)))
    return archive_of(entries)


# ---- a round ----

class Subjects:
    """What is saved, damaged and loaded."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "x.npz")
        self.files, self.into, self.used = [], {}, {}
        storage.save_arrays(self.path, ARRAYS)
        self.add("arrays")
        some = {name: array for name, array in ARRAYS.items() if name and ".npy" not in name}
        np.savez_compressed(self.path, **some)
        self.add("compressed")
        Noisy(1).save(self.path)
        self.add("model")
        self.into["model"] = Noisy(2)
        self.files.append(("csv", 'x,y,label,"kind"\n1.5,2,1,"a ""b"""\n-3,1e-3,0,ü\n'.encode() * 3))
        for kind in ("adam", "sequence", "plateau"):
            trainer(kind).save(self.path)
            self.add(kind)
            self.into[kind] = trainer(kind, 5, 1)

    def add(self, kind):
        with open(self.path, "rb") as file:
            self.files.append((kind, file.read()))

    def round(self, seed):
        rng = random.Random(seed)
        kind, data = rng.choice(self.files)
        if kind == "csv":
            damages = [flip_bits, cut, cut_out, double, cells]
        elif kind in ("adam", "sequence", "plateau"):
            damages = [*OUTSIDE, inside, inside, inside, *[change_json] * 6]
        else:
            damages = [*OUTSIDE, inside, inside, inside]
        damage = rng.choice(damages)
        damaged = damage(data, rng)
        with open(self.path, "wb") as file:
            file.write(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                self.load(kind, damage in OUTSIDE)
        except Exception as error:
            raise AssertionError(f"--seed {seed}: {kind}, {damage.__name__}: {error!r}") from error

    def load(self, kind, from_outside):
        if kind == "csv":
            for options in {}, {"target": "kind"}, {"target": "y", "features": ["x"]}:
                with contextlib.suppress(DataError):
                    read_csv(self.path, **options)
            return
        before = state_of(self.into[kind]) if kind in self.into else None
        try:
            if before is None:
                found = storage.load_arrays(self.path)
            else:
                self.into[kind].load(self.path)
        except StateError as error:
            assert str(error).startswith(f"{self.path}: ") and len(str(error)) < 5000, error
            if before is not None:
                assert state_of(self.into[kind]) == before, "an error has changed something"
            return
        if before is None:
            if from_outside:
                for name, array in found.items():
                    np.testing.assert_array_equal(array, ARRAYS[name])
                assert len(found) >= len(ARRAYS) - 2 * (kind == "compressed")
            for array in found.values():
                repr(array)
            return
        if kind != "model":
            self.use(self.into[kind])
        self.into[kind] = Noisy(2) if kind == "model" else trainer(kind, 5, 1)

    def use(self, trainer):
        """Train on: what has been loaded must do."""
        folder = os.path.dirname(self.path)
        with np.errstate(all="ignore"):
            try:
                trainer.fit(X, Y, 1, 5, progress=False, callbacks=callbacks(folder))
            except DivergedError:
                pass
            except StateError as error:   # of callbacks whose classes may be the users' own
                assert str(error).startswith("callbacks: expected the state of a")
            except ArgumentError as error:   # learning rates that grow, and schedules that are over
                assert re.search("steps at most, got one more|expected a finite number, 0 or more, got",
                                 str(error)), error
        repr(trainer), repr(trainer.history), trainer.save(self.path)


def run(limit, options):
    with tempfile.TemporaryDirectory() as folder:
        subjects = Subjects(folder)
        for seed in limit:
            subjects.round(seed)
    return f"{limit.rounds} files passed, {limit.seeds}"
