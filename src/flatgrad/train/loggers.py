"""Callbacks that write the numbers of each epoch to a file: as a table, and for TensorBoard."""
from __future__ import annotations

import csv
import os
import time
from typing import TYPE_CHECKING

from flatgrad.arguments import extra, flag, path_of, shortened
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError
from flatgrad.storage import check_writable
from flatgrad.train.callbacks import Callback

if TYPE_CHECKING:
    from typing import Any

    from flatgrad._core import _Path
    from flatgrad.train.trainer import Trainer

__all__ = ["CSVLogger", "TensorBoard"]


class CSVLogger(Callback):
    """Write the numbers of each epoch to a file of text, a row for each epoch.

    Parameters
    ----------
    path : str or path-like
        The file. Its columns are ``epoch`` and the names in the history. Each row is on disk before the next epoch.
    separator : str, optional
        One character between the columns.
    append : bool, optional
        Whether to add rows to a file that is there, as for a training that goes on; its columns have to be the same.
        Otherwise each `fit` begins the file anew.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; for a file with other columns when `Trainer.fit` begins.
    OSError
        When `Trainer.fit` begins, if the file cannot be written.

    See Also
    --------
    History.to_dict : The same numbers after the training.

    Notes
    -----
    Name and arguments are Keras'. Numbers are written so that they can be read back exactly.

    Examples
    --------
    >>> import os, tempfile
    >>> from flatgrad.nn import MLP
    >>> from flatgrad.optim import SGD
    >>> from flatgrad.train import CSVLogger, Trainer
    >>> model = MLP(1, [1])
    >>> trainer = Trainer(model, SGD(model.parameters()), "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "log.csv")
    ...     history = trainer.fit([[1.0]], [2.0], 2, callbacks=[CSVLogger(path)], progress=False)
    ...     with open(path) as file:
    ...         lines = file.read().splitlines()
    >>> lines[0], len(lines)
    ('epoch,loss,learning_rate,time', 3)
    """

    path: str
    separator: str
    append: bool

    def __init__(self, path: _Path, separator: str = ",", append: bool = False) -> None:
        self.path = path_of("path", path)
        if not isinstance(separator, str):
            raise ArgumentTypeError(f"separator: expected a character, got {separator!r}")
        if len(separator) != 1 or separator in '"\r\n':
            raise ArgumentError(f"separator: expected one character, no quote and no end of a line, got {separator!r}")
        self.separator = separator
        self.append = flag("append", append)

    def on_fit_begin(self, trainer: Trainer) -> None:
        columns = ["epoch", *trainer.log_names]
        there = []
        if self.append and os.path.exists(self.path):
            with open(self.path, newline="", encoding="utf-8") as file:
                there = next(csv.reader(file, delimiter=self.separator), [])
            if there and there != columns:
                raise DataError(f"path: expected a file with the columns {columns}, for append=True, got "
                                f"{shortened(there)} in {self.path!r}")
        check_writable(os.path.abspath(self.path))
        if not there:
            self.write("w", columns)

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        self.write("a", [epoch, *(repr(float(logs[name])) for name in trainer.log_names)])

    def write(self, mode: str, row: list[Any]) -> None:
        """Add a row; with mode 'w', as the first one."""
        # The file is closed after each row: an error in the training then leaves no open file behind.
        with open(self.path, mode, newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=self.separator, lineterminator="\n").writerow(row)

    def __repr__(self) -> str:
        return f"CSVLogger({self.path!r}, separator={self.separator!r}, append={self.append})"


class TensorBoard(Callback):
    """Write the numbers of each epoch for TensorBoard, which draws them while the training runs.

    Parameters
    ----------
    log_dir : str or path-like, optional
        The directory; it is made if it is not there. ``tensorboard --logdir logs`` shows all runs below it.
    histograms : bool, optional
        Whether to write a histogram of each array of ``model.state_dict()`` too, by its name.

    Raises
    ------
    MissingPackageError
        When `Trainer.fit` begins, if tensorboardX is not installed: ``pip install 'flatgrad[tensorboard]'``.
    TypeError
        If an argument is not as described.

    Notes
    -----
    Each `fit` writes a file of its own. The numbers have the names of the history, and the epoch as their step. An epoch
    is on disk ten seconds after its end, or when `fit` ends.

    Examples
    --------
    >>> from flatgrad.train import TensorBoard
    >>> TensorBoard("logs/first").log_dir
    'logs/first'
    """

    log_dir: str
    histograms: bool
    writer: Any

    def __init__(self, log_dir: _Path = "logs", histograms: bool = False) -> None:
        self.log_dir = path_of("log_dir", log_dir)
        self.histograms = flag("histograms", histograms)
        self.writer = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        writer = extra("tensorboardX", "TensorBoard", "tensorboard").SummaryWriter
        if self.histograms and not hasattr(trainer.model, "state_dict"):
            raise ArgumentError("histograms: expected False for a model without state_dict(), got True")
        self.close()   # after an error in the last fit
        # tensorboardX names files by the second, and a fit may take less.
        self.writer = writer(self.log_dir, flush_secs=10, filename_suffix=f".{time.time_ns()}")

    def on_epoch_end(self, trainer: Trainer, epoch: int, logs: dict[str, float]) -> None:
        for name, number in logs.items():
            self.writer.add_scalar(name, number, epoch)
        if self.histograms:
            for name, array in trainer.model.state_dict().items():
                self.writer.add_histogram(name, array, epoch)

    def on_fit_end(self, trainer: Trainer) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left to the file, and close it."""
        writer, self.writer = self.writer, None
        if writer is not None:
            writer.close()

    def __repr__(self) -> str:
        return f"TensorBoard({self.log_dir!r}, histograms={self.histograms})"
