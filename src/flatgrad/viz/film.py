"""A film of a training: the model's regions and the loss, step by step, as a page of HTML or as a GIF."""
from __future__ import annotations

import base64
import colorsys
import html
import math
import os
import struct
import tempfile
import zlib

import numpy as np

from flatgrad._core import Value
from flatgrad.arguments import extra, one_of, path_of, real, whole
from flatgrad.errors import ArgumentError, DataError
from flatgrad.storage import write_file
from flatgrad.viz.boundary import CONFIDENCES, FAINTEST_TO_STRONGEST, Plane, grid_points
from flatgrad.viz.common import COLOURS
from flatgrad.viz.pages import filled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal

    from numpy.typing import ArrayLike, NDArray

    from flatgrad._core import _Path
    from flatgrad.viz.common import Model

__all__ = ["Film"]

COLOURS_OF_IMAGE = 256   # of a picture with a palette
SHADES = 24              # of each class, at most


class Film:
    """Pictures of a training: a classifier's regions over the plane of two features, and the loss, step by step.

    A Film is a callback of `flatgrad.train.Trainer`, which adds a picture after each epoch. In a loop of your own
    `add` does.

    Parameters
    ----------
    X, y : array_like
        The samples and labels to show, as for `plot_decision_boundary`.
    every : int, optional
        The number of steps, or epochs, from one picture to the next.
    most : int, optional
        The largest number of pictures. Beyond that every second one is dropped, and `every` doubles.
    resolution : int, optional
        The number of points of the plane, along each axis, at which the model is asked for a picture.
    features, feature_names, threshold, confidence
        As for `plot_decision_boundary`.

    Attributes
    ----------
    every : int
        The number of steps between pictures now.
    steps : list of int
        The step of each picture.
    losses : list of tuple of int and float
        (step, loss) for each loss that was given, also between pictures.

    Raises
    ------
    ArgumentTypeError, ArgumentError, ShapeError, DataError
        If an argument is not as described.

    Notes
    -----
    The model is in evaluation mode when it is asked, and nothing of it changes. A Trainer with a Film numbers its epochs,
    from 0 for the model before the first; it takes the steps of each epoch in C as before.

    Examples
    --------
    >>> import os, tempfile
    >>> from flatgrad.datasets import make_moons
    >>> from flatgrad.nn import MLP
    >>> from flatgrad.optim import Adam
    >>> from flatgrad.train import Trainer
    >>> from flatgrad.viz import Film
    >>> X, y = make_moons(100, noise=0.1, random_state=1)
    >>> model, film = MLP(2, [8, 1]), Film(X, y, every=10)
    >>> trainer = Trainer(model, Adam(model.parameters(), lr=0.05), "bce_with_logits")
    >>> history = trainer.fit(X, y, epochs=30, progress=False, callbacks=[film])
    >>> film.steps
    [0, 10, 20, 30]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = film.save(os.path.join(folder, "film.html"))
    ...     os.path.getsize(page) > 10_000
    True
    """

    every: int
    most: int
    resolution: int
    confidence: str | None
    steps: list[int]
    losses: list[tuple[int, float]]
    _pictures: list[tuple[NDArray[np.uint8], float]]
    _names: list[str]
    _codes: NDArray[Any]

    def __init__(self, X: ArrayLike, y: ArrayLike, *, every: int = 1, most: int = 240, resolution: int = 120,
                 features: tuple[int | str, int | str] = (0, 1), feature_names: Sequence[str] | None = None,
                 threshold: float = 0.0,
                 confidence: Literal["logits", "probabilities"] | None = None) -> None:
        self.every, self.most = whole("every", every, 1), whole("most", most, 2)
        self.resolution = whole("resolution", resolution, 2)
        self.confidence = confidence if confidence is None else one_of("confidence", confidence, CONFIDENCES)
        self._plane = Plane(None, X, y, features, feature_names, threshold)
        self._points = grid_points(*(np.linspace(low, high, self.resolution) for low, high in self._plane.ranges))
        self.steps, self.losses = [], []
        self._pictures = []   # (codes of the colours, row by row from below; the share of samples on the right side)
        self._names, self._codes = [], np.zeros(0, int)   # of the classes, and of the samples
        self._last, self._unit = -1, "step"

    def __repr__(self) -> str:
        return f"<film of {len(self.steps)} picture{'s' * (len(self.steps) != 1)}>"

    # ---- pictures are added ----

    def add(self, model: Model, loss: float | Value | None = None, step: int | None = None) -> None:
        """Add a picture of a model as it is now, if a picture is due after the last one.

        Parameters
        ----------
        model : callable, or object with the method predict
            As for `plot_decision_boundary`.
        loss : float or Value, optional
            The loss at this step, for the curve; nan and inf leave a gap.
        step : int, optional
            The number of the step, larger than the last; by default the next one, from 0 on.

        Raises
        ------
        ArgumentTypeError, ArgumentError, ShapeError, DataError
            If an argument, or the result of `model`, is not as described. The film stays as it was.
        """
        step = self._last + 1 if step is None else whole("step", step)
        if step <= self._last:
            raise ArgumentError(f"step: expected a number above {self._last}, of the last step, got {step}")
        if loss is not None:
            loss = real("loss", loss.data if isinstance(loss, Value) else loss)
        if not self.steps or step - self.steps[-1] >= self.every:
            self._take(model, step)
        if loss is not None:
            self.losses.append((step, loss))
        self._last = step

    def on_fit_begin(self, trainer: Any) -> None:
        """A Trainer begins: the model before its first epoch is a picture."""
        if not self.steps:
            self._unit = "epoch"
            self.add(trainer.model, None, trainer.epoch)

    def on_epoch_end(self, trainer: Any, epoch: int, logs: dict[str, float]) -> None:
        """A Trainer has trained for an epoch: its loss belongs to the curve, and a picture to the film if one is due."""
        self.add(trainer.model, logs["loss"], max(epoch, self._last + 1))

    def on_fit_end(self, trainer: Any) -> None:
        """A Trainer is done: the last epoch has a picture in any case."""
        if self.steps[-1] < self._last:
            self._take(trainer.model, self._last)

    def _take(self, model: Model, step: int) -> None:
        """Ask the model for a picture."""
        plane = self._plane.of(model)
        verdict = plane.ask(np.concatenate([self._points, plane.shown]), self.confidence)
        count = len(verdict.names)
        if count > COLOURS_OF_IMAGE:
            raise ArgumentError(f"y: expected at most {COLOURS_OF_IMAGE} classes in a film, got {count}")
        if self._names and verdict.names != self._names:
            raise DataError(f"model: expected the classes of the first picture, {', '.join(self._names[:8])}, "
                            f"got {', '.join(verdict.names[:8])}")
        shades = shades_of(count)
        shade = np.minimum((verdict.certainty() * shades).astype(int), shades - 1)
        colours = (verdict.winners * shades + shade)[:len(self._points)].astype(np.uint8)
        right = float((verdict.winners[len(self._points):] == verdict.codes).mean())
        self._names, self._codes = verdict.names, verdict.codes
        self._pictures.append((colours.reshape(self.resolution, self.resolution), right))
        self.steps.append(step)
        if len(self.steps) > self.most:
            self.steps, self._pictures = self.steps[::2], self._pictures[::2]
            self.every *= 2

    # ---- and shown ----

    def save(self, path: _Path, *, fps: float = 12.0) -> str:
        """Write the film: a page that plays it, or a GIF.

        Parameters
        ----------
        path : str or path-like
            The file, which ends in ``.html`` or ``.gif``. A page needs nothing else: no network and no library. Its keys:
            arrows, Home and End step, space plays; ``film.html#step=5`` opens it at the picture of a step.
        fps : float, optional
            Pictures in a second.

        Returns
        -------
        str
            `path`.

        Raises
        ------
        MissingPackageError
            For a GIF, if matplotlib is not installed.
        ArgumentTypeError, ArgumentError, DataError
            If an argument is not as described, or there is no picture.
        OSError
            If the file cannot be written. An old file stays as it is.
        """
        path = path_of("path", path)
        ending = os.path.splitext(path)[1].lower()
        if ending not in (".html", ".htm", ".gif"):
            raise ArgumentError(f"path: expected a file that ends in '.html' or '.gif', got {path!r}")
        fps = real("fps", fps)
        if not 0.1 <= fps <= 100.0:
            raise ArgumentError(f"fps: expected a number from 0.1 to 100, got {fps:g}")
        if not self.steps:
            raise DataError("save(): expected one picture at least, got none: call add(model, loss), or give the film to "
                            "Trainer.fit in callbacks")
        if ending == ".gif":
            write_file(path, self._gif(fps))
        else:
            write_file(path, filled("film.html", "Training", self._data(fps)).encode())
        return path

    def _repr_html_(self) -> str | None:
        """The page, for notebooks."""
        if not self.steps:
            return None
        page = html.escape(filled("film.html", "Training", self._data(12.0)))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 520px; border: 0"></iframe>'

    def _data(self, fps: float) -> dict[str, Any]:
        """What the page shows."""
        palette = palette_of(len(self._names))
        return {"unit": self._unit, "fps": fps, "names": self._names, "axes": self._plane.names,
                "ranges": [list(ends) for ends in self._plane.ranges],
                "colours": [hexadecimal(colour) for colour in colours_of(len(self._names))],
                "samples": [[float(f"{x:.5g}"), float(f"{y:.5g}"), int(code)]
                            for (x, y), code in zip(self._plane.shown, self._codes)],
                "losses": [[step, loss if math.isfinite(loss) else None] for step, loss in self.losses],
                "pictures": [{"step": step, "right": right,
                              "image": base64.b64encode(png(codes[::-1], palette)).decode()}
                             for step, (codes, right) in zip(self.steps, self._pictures)]}

    def _gif(self, fps: float) -> bytes:
        """The bytes of a GIF: the regions and samples on the left, the loss on the right."""
        extra("matplotlib", "Film.save of a GIF", "viz")
        from matplotlib.animation import PillowWriter
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.8 if self.losses else 4.8, 4.2), layout="constrained")
        left, *right = figure.subplots(1, 2 if self.losses else 1, squeeze=False)[0]
        palette = palette_of(len(self._names)) / 255.0
        across, up = self._plane.ranges
        image = left.imshow(palette[self._pictures[0][0]], origin="lower", extent=(*across, *up), aspect="auto",
                            interpolation="bilinear")
        for k, (name, colour) in enumerate(zip(self._names, colours_of(len(self._names)))):
            side = self._plane.shown[self._codes == k]
            left.scatter(side[:, 0], side[:, 1], s=20, color=[colour / 255.0], edgecolors="white", linewidths=0.6,
                         label=name)
        left.legend(loc="upper left", fontsize="small")
        left.set(xlim=across, ylim=up, xlabel=self._plane.names[0], ylabel=self._plane.names[1])
        marks = []
        if right:
            steps, losses = np.array(self.losses).T
            losses[~np.isfinite(losses)] = np.nan
            right[0].plot(steps, losses, color=COLOURS[1], linewidth=1.6)
            right[0].set(xlabel=self._unit, ylabel="loss")
            if logarithmic(losses):
                right[0].set_yscale("log")
            marks.append(right[0].axvline(self.steps[0], color="0.35", linewidth=1.0))
        left.set_title(f"{self._unit} {self.steps[0]}", fontsize="medium")
        figure.draw_without_rendering()
        figure.set_layout_engine("none")   # it would take as long again, for each picture
        rate: Any = fps   # typed as an int, of which 1000 / rate is taken
        writer = PillowWriter(fps=rate)
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "film.gif")
            with writer.saving(figure, file, dpi=90):
                for step, (codes, share) in zip(self.steps, self._pictures):
                    image.set_data(palette[codes])
                    left.set_title(f"{self._unit} {step}: {share:.1%} right", fontsize="medium")
                    for mark in marks:
                        mark.set_xdata([step, step])
                    writer.grab_frame()
            with open(file, "rb") as made:
                return made.read()


def logarithmic(losses: NDArray[Any]) -> bool:
    """Whether losses span so much that their scale is logarithmic, as in `plot_history`."""
    drawn = losses[~np.isnan(losses)]
    return bool(drawn.size and drawn.min() > 0 and drawn.max() > 100 * drawn.min())


def shades_of(count: int) -> int:
    """How many shades a palette has for each of some classes."""
    return max(1, min(SHADES, COLOURS_OF_IMAGE // count))


def colours_of(count: int) -> NDArray[Any]:
    """A colour for each class, as numbers from 0 to 255."""
    if count > len(COLOURS):
        return np.round(255 * np.array([colorsys.hls_to_rgb(k / count, 0.45, 0.65) for k in range(count)]))
    return np.array([[int(colour[k:k + 2], 16) for k in (1, 3, 5)] for colour in COLOURS[:count]], float)


def palette_of(count: int) -> NDArray[Any]:
    """The colours of a picture, by class and then by shade, on white."""
    shares = np.linspace(*FAINTEST_TO_STRONGEST, shades_of(count))[:, None]
    return np.concatenate([255.0 * (1.0 - shares) + colour * shares for colour in colours_of(count)])


def hexadecimal(colour: NDArray[Any]) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)


def png(codes: NDArray[Any], palette: NDArray[Any]) -> bytes:
    """A picture as PNG: a code for each pixel, row by row from above, and the colours of the codes."""
    height, width = codes.shape
    rows = np.zeros((height, 1 + width), np.uint8)   # each row begins with its filter, none
    rows[:, 1:] = codes
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
             (b"PLTE", np.round(palette).astype(np.uint8).tobytes()), (b"IDAT", zlib.compress(rows.tobytes(), 9)),
             (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(body)) + kind + body
                                           + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts)
