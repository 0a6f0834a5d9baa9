"""Files that one machine saves and another one loads, of the other order of bytes above all.

    python tests/foreign_files.py save FOLDER
    python tests/foreign_files.py check FOLDER     on the other machine

Each file has numbers that `check` computes anew: arrays, a model, a pickled graph.
"""
import pickle
import sys
from pathlib import Path

import numpy as np

from flatgrad import Tensor, Value
from flatgrad.nn import MLP
from flatgrad.storage import load_arrays, save_arrays

ARRAYS = {"doubles": np.arange(6.0).reshape(2, 3) / 7.0, "floats": np.arange(3, dtype=np.float32) / 3,
          "ints": np.arange(-3, 3) * 10**12, "other order": np.arange(4.0).astype(np.dtype(float).newbyteorder()),
          "text": np.array(["a", "\u00e9\u4e2d"]), "yes": np.array([True, False])}


def values():
    x, t = Value(1.25), Tensor([0.5, -2.0, 3.0])
    y = (t * x + 1.0).exp().sum() + x ** 3
    return x, t, y


def save(folder):
    save_arrays(folder / "arrays.npz", ARRAYS)
    MLP(3, [4, 2], rng=1).save(folder / "model.npz")
    x, t, y = values()
    y.backward()
    (folder / "graph.pickle").write_bytes(pickle.dumps((x, t, y)))
    np.save(folder / "model.npy", np.concatenate([p.ravel() for p in MLP(3, [4, 2], rng=1).state_dict().values()]))


def check(folder):
    found = load_arrays(folder / "arrays.npz")
    assert found.keys() == ARRAYS.keys()
    for name, expected in ARRAYS.items():
        assert found[name].dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
        assert np.array_equal(found[name], expected), name
    model = MLP(3, [4, 2], rng=2)
    model.load(folder / "model.npz")
    numbers = np.concatenate([p.ravel() for p in model.state_dict().values()])
    assert np.array_equal(numbers, np.load(folder / "model.npy"))
    x, t, y = pickle.loads((folder / "graph.pickle").read_bytes())
    x2, t2, y2 = values()
    y2.backward()
    for _ in range(2):
        assert np.allclose([x.data, y.data, x.grad], [x2.data, y2.data, x2.grad], rtol=1e-14, atol=0.0)
        assert np.array_equal(t.data, t2.data) and np.allclose(t.grad, t2.grad, rtol=1e-14, atol=0.0)
        y.backward()   # once more, through the nodes that have been loaded
        y2.backward()
    print("arrays, model and graph as they were saved, on a", sys.byteorder, "endian machine")


if __name__ == "__main__":
    what, folder = sys.argv[1:]
    {"save": save, "check": check}[what](Path(folder))
