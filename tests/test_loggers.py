"""CSVLogger and TensorBoard: what they write is the history, and other files stay as they are."""
import csv
import glob
import math
import os
import random
import sys

import numpy as np
import pytest

from flatgrad.datasets import make_moons
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, DivergedError, MissingPackageError
from flatgrad.nn import MLP
from flatgrad.optim import SGD
from flatgrad.train import CSVLogger, TensorBoard, Trainer

X, LABELS = make_moons(60, noise=0.1, random_state=3)
Y = 2.0 * LABELS - 1.0


def trainer_of(lr=0.05, metrics=("accuracy",)):
    random.seed(7)
    model = MLP(2, [8, 1])
    return Trainer(model, SGD(model.parameters(), lr=lr), "hinge", metrics)


def table(path, separator=","):
    with open(path, newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file, delimiter=separator)
    return {name: [float(row[k]) for row in rows] for k, name in enumerate(names)}


# ---- CSVLogger ----

@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_table_is_the_history(tmp_path, separator):
    path = tmp_path / "log.csv"
    trainer = trainer_of()
    trainer.fit(X, Y, 5, validation=(X, Y), callbacks=[CSVLogger(path, separator)], progress=False)
    assert table(path, separator) == {"epoch": trainer.history.epochs, **trainer.history}
    assert trainer.engine == "compiled"   # a table does not slow steps down
    assert path.read_bytes().count(b"\n") == 6 and b"\r" not in path.read_bytes()


def test_a_fit_begins_the_table_anew_unless_it_appends(tmp_path):
    path = tmp_path / "log.csv"
    trainer = trainer_of()
    trainer.fit(X, Y, 3, callbacks=[CSVLogger(path)], progress=False)
    trainer.fit(X, Y, 2, callbacks=[CSVLogger(path, append=True)], progress=False)
    assert table(path) == {"epoch": [1, 2, 3, 4, 5], **trainer.history}
    trainer.fit(X, Y, 2, callbacks=[CSVLogger(path)], progress=False)
    assert table(path)["epoch"] == [6, 7]
    (tmp_path / "empty.csv").touch()
    trainer.fit(X, Y, 1, callbacks=[CSVLogger(tmp_path / "empty.csv", append=True)], progress=False)
    assert table(tmp_path / "empty.csv")["epoch"] == [8]


def test_rows_are_there_after_an_error(tmp_path):
    path = tmp_path / "log.csv"

    def interrupt(trainer, epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    trainer_of().fit(X, Y, 9, callbacks=[CSVLogger(path), interrupt], progress=False)
    assert table(path)["epoch"] == [1, 2]

    def diverge(trainer, epoch, logs):
        for p in trainer.model.parameters():
            p.data = math.nan

    with pytest.raises(DivergedError):
        trainer_of().fit(X, Y, 9, callbacks=[CSVLogger(path), diverge], progress=False)
    assert table(path)["epoch"] == [1]


def test_tables_that_are_refused_change_nothing(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss\n1,0.5\n")
    trainer = trainer_of()
    with pytest.raises(DataError, match=r"path: expected a file with the columns \['epoch', 'loss', 'accuracy', .* got "
                                        r"\['epoch', 'loss'\] in"):
        trainer.fit(X, Y, 1, callbacks=[CSVLogger(path, append=True)], progress=False)
    assert path.read_text() == "epoch,loss\n1,0.5\n" and len(trainer.history) == 0
    with pytest.raises(OSError):
        trainer.fit(X, Y, 1, callbacks=[CSVLogger(tmp_path / "none" / "log.csv")], progress=False)
    for arguments, error in (((3,), ArgumentTypeError), (("x", ""), ArgumentError), (("x", ",,"), ArgumentError),
                             (("x", '"'), ArgumentError), (("x", 1), ArgumentTypeError),
                             (("x", ",", 1), ArgumentTypeError)):
        with pytest.raises(error):
            CSVLogger(*arguments)
    assert repr(CSVLogger("a.csv")) == "CSVLogger('a.csv', separator=',', append=False)"


# ---- TensorBoard ----

def events(folder):
    """What the files of a folder have: {tag: {step: number}} of scalars, and {tag: {step: count}} of histograms."""
    from tensorboardX.proto.event_pb2 import Event

    scalars, histograms = {}, {}
    for path in sorted(glob.glob(os.path.join(folder, "*tfevents*"))):
        with open(path, "rb") as file:
            content = file.read()
        at = 0
        while at < len(content):   # a length of 8 bytes, 4 of its checksum, the event, 4 of its checksum
            size = int.from_bytes(content[at:at + 8], "little")
            event = Event.FromString(content[at + 12:at + 12 + size])
            at += size + 16
            for value in event.summary.value:
                if value.HasField("histo"):
                    histograms.setdefault(value.tag, {})[event.step] = value.histo.num
                else:
                    scalars.setdefault(value.tag, {})[event.step] = value.simple_value
    return scalars, histograms


def test_tensorboard_has_the_history(tmp_path):
    pytest.importorskip("tensorboardX")
    folder = tmp_path / "runs" / "one"
    trainer, board = trainer_of(), TensorBoard(folder, histograms=True)
    trainer.fit(X, Y, 3, validation=(X, Y), callbacks=[board], progress=False)
    trainer.fit(X, Y, 2, validation=(X, Y), callbacks=[board], progress=False)
    scalars, histograms = events(folder)
    assert set(scalars) == set(trainer.history)
    for name, numbers in trainer.history.items():
        assert scalars[name] == dict(zip(trainer.history.epochs, np.float32(numbers).tolist()))
    assert histograms == {name: dict.fromkeys(range(1, 6), array.size)
                          for name, array in trainer.model.state_dict().items()}
    assert trainer.engine == "python: fewer than 4 steps" and board.writer is None


def test_tensorboard_after_an_error(tmp_path):
    pytest.importorskip("tensorboardX")
    board, fail = TensorBoard(tmp_path), [True]

    def diverge(trainer, epoch, logs):
        if fail.pop():
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        trainer_of().fit(X, Y, 3, callbacks=[board, diverge], progress=False)
    trainer_of().fit(X, Y, 1, callbacks=[board], progress=False)
    assert board.writer is None and set(events(tmp_path)[0]["loss"]) == {1}


def test_tensorboard_says_what_to_install(monkeypatch):
    class Nothing:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.split(".")[0] == "tensorboardX":
                raise ModuleNotFoundError(f"No module named {name!r}", name="tensorboardX")

    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboardX"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Nothing, *sys.meta_path])
    trainer = trainer_of()
    with pytest.raises(MissingPackageError, match=r"TensorBoard needs tensorboardX; to install it: pip install "
                                                  r"'flatgrad\[tensorboard\]'"):
        trainer.fit(X, Y, 1, callbacks=[TensorBoard()], progress=False)
    assert len(trainer.history) == 0 and trainer.stopped is None
    with pytest.raises(ArgumentTypeError, match="histograms"):
        TensorBoard(histograms=1)
    assert repr(TensorBoard("a")) == "TensorBoard('a', histograms=False)"
