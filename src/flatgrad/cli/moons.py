"""``python -m flatgrad moons``: micrograd's demo, on generated samples or on samples from a file."""
from __future__ import annotations

import copy
import io
import math
import os
import random
import sys

from flatgrad._core import _activations
from flatgrad.cli.common import check_writable, int_from, name_of, positive_number
from flatgrad.cli.training import RATES, exploded, optimizer_of, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from numpy.typing import NDArray

    from flatgrad.nn.layers import MLP

__all__ = ["add", "train"]

ACTIVATIONS: tuple[str, ...] = (*_activations, "linear")

HELP = """\
Train a small neural network to separate two classes of points in the plane. The network and its
max-margin loss are those of micrograd's demo; the points are two interleaving half moons, or
yours. The command prints loss and accuracy, then draws the decision boundary.

No straight line separates the moons: the hidden layers make a boundary that bends around them.
The loss is the mean of max(0, 1 - label * score), with labels -1 and 1, plus 1e-4 times the sum
of the squares of all parameters. The loss is about 0.01 when every sample is on its side with a
margin. The accuracy is the share of samples on the right side.

Coordinates far from a few units, such as incomes in thousands, are standardised for the training,
with a note in the output. Pictures and saved weights use the units of the file."""

EXAMPLES = """\
examples:
  python -m flatgrad moons
      100 generated samples, 100 steps, and the picture in decision_boundary.png
  python -m flatgrad moons --data points.csv --out points.png
      your samples, from a file that begins like this (labels -1 and 1, or 0 and 1):
          x,y,label
          1.122,0.081,-1
          0.274,-0.419,1
  python -m flatgrad moons --hidden 8 --steps 300 --seed 7
      one hidden layer of 8 neurons, trained longer from another start
  python -m flatgrad moons --activation linear --learning-rate 0.1
      without bends in the hidden layers: the boundary is a straight line, and 12 samples are
      on the wrong side
  python -m flatgrad moons --optimizer adam --batch-size 20 --steps 200
      another optimizer, on 20 samples at a time; five steps pass through all 100
  python -m flatgrad moons --steps 50 --save model.npz
  python -m flatgrad moons --steps 50 --load model.npz
      save the weights to a file; the second command continues the training with them"""

PYTHON = """\
the same in Python:
    import random
    from flatgrad import Tensor, dot
    from flatgrad.datasets import make_moons
    from flatgrad.losses import hinge
    from flatgrad.nn import MLP
    from flatgrad.optim import SGD

    X, y = make_moons(100, noise=0.1, random_state=1337)
    X, y = Tensor(X, requires_grad=False), Tensor(2.0 * y - 1.0, requires_grad=False)
    random.seed(1337)
    model = MLP(2, [16, 16, 1])
    p = model.parameters()
    optimizer = SGD(p)
    for k in range(100):
        loss = hinge(model(X), y) + 1e-4 * dot(p, p)
        optimizer.zero_grad()
        loss.backward()
        optimizer.lr = 1.0 - 0.9 * k / 100
        optimizer.step()
    print(loss.data)"""

ADVICE = "Try a smaller --learning-rate or another --seed."

# Coordinates are standardised if one is beyond the first number, or if they spread less than the second.
LARGEST, LEAST_SPREAD = 20.0, 0.05
LARGEST_OF_ALL = 5e307   # beyond this, the width of a picture could overflow a float


def add(commands: Any) -> None:
    """Add the command to argparse's."""
    sub = commands.add_parser(
        "moons",
        help="train micrograd's demo classifier and draw its decision boundary",
        description=HELP,
        epilog=f"{EXAMPLES}\n\n{PYTHON}",
    )
    sub.set_defaults(command=moons, parser=sub)
    sub.add_argument("--data", metavar="FILE.csv",
                     help="samples to train on, with the columns x, y and label "
                          "(default: 100 generated ones)")
    sub.add_argument("--steps", type=int_from(1), default=100, metavar="N",
                     help="training steps, each on all samples unless --batch-size is given (default: %(default)s)")
    sub.add_argument("--seed", type=int_from(0, 2**32 - 1), default=1337, metavar="S",
                     help="of the first weights and the generated samples; one seed, one result "
                          "(default: %(default)s)")
    sub.add_argument("--hidden", type=int_from(1), nargs="+", default=[16, 16], metavar="N",
                     help="neurons in each hidden layer (default: 16 16)")
    sub.add_argument("--activation", type=name_of(ACTIVATIONS), default="relu", metavar="NAME",
                     help=f"of the hidden layers: {', '.join(ACTIVATIONS)} (default: %(default)s)")
    sub.add_argument("--optimizer", type=name_of(RATES), default="sgd", metavar="NAME",
                     help=f"{', '.join(RATES)} (default: %(default)s)")
    usual = ", ".join(f"{lr:g} for {name}" for name, lr in RATES.items())
    sub.add_argument("--learning-rate", "--lr", type=positive_number, metavar="R",
                     help=f"of the first step; it falls evenly to a tenth of that (default: {usual})")
    sub.add_argument("--batch-size", type=int_from(1), metavar="N",
                     help="samples for each step, drawn anew in each pass through all of them; the loss and "
                          "accuracy that are printed are theirs (default: all samples)")
    sub.add_argument("--load", metavar="NPZ", help="begin with the weights of a file that --save wrote")
    sub.add_argument("--save", metavar="NPZ", help="write the trained weights to a file, which --load reads "
                     "and flatgrad.nn.MLP.load")
    sub.add_argument("--out", default="decision_boundary.png", metavar="FILE",
                     help="the picture to write, over any file of that name, as its ending says: .png, .svg, .pdf "
                          "or another format of matplotlib, which it needs (default: %(default)s)")


def moons(args: Any) -> int:
    """Train micrograd's demo classifier and draw its decision boundary."""
    from flatgrad.datasets import shown_path
    from flatgrad.nn import MLP
    from flatgrad.storage import write_file
    from flatgrad.viz import decision_boundary_text

    X, y = samples(args)
    check_writable(args.parser, "--out", args.out, formats(), {"--data": args.data, "--load": args.load})
    if args.save is not None:
        check_writable(args.parser, "--save", args.save, [".npz"], {"--data": args.data, "--out": args.out})

    random.seed(args.seed)
    model = MLP(2, [*args.hidden, 1], activation=args.activation)
    if args.load is not None:
        load(model, args)
    print(f"Number of parameters {len(model.parameters())}", flush=True)
    mean, scale = scaling(X)
    if mean is not None:
        print("Standardised for training: " + ", ".join(
            f"({name} - {m:.4g}) / {d:.4g}" for name, m, d in zip("xy", mean, scale)), flush=True)
        if args.load is not None:
            rescale(model, *inverse(mean, scale))
    optimizer = optimizer_of(args.optimizer, model.parameters(), args.learning_rate)
    inputs = X if mean is None else (X - mean) / scale
    for k, loss, accuracy in train(model, inputs, y, args.steps, optimizer=optimizer, batch_size=args.batch_size,
                                   seed=args.seed):
        if not math.isfinite(loss):
            return diverged(f"the loss is {loss} at step {k}")
        if k % 10 == 0 or k == args.steps - 1:
            width = len(str(args.steps - 1))
            number = f"{loss:10.6f}" if loss < 1000 else f"{loss:10.3e}"
            print(f"step {k:{width}}   loss {number}   accuracy {accuracy:6.1%}", flush=True)
        if k == 0:
            first_loss = loss
    if exploded(first_loss, loss):
        return diverged(f"the loss went from {first_loss:.4g} to {loss:.4g}")
    if loss > first_loss:
        print(f"\nThe loss went up. {ADVICE}")

    def predict(points):
        return model(points if mean is None else (points - mean) / scale).numpy()[:, 0]

    try:
        print("\n" + decision_boundary_text(predict, X, y), flush=True)
    except ValueError as error:  # the last step has made the weights overflow
        return diverged(error)
    if args.save is not None:
        saved = model
        if mean is not None:
            saved = copy.deepcopy(model)
            rescale(saved, mean, scale)
        try:
            saved.save(args.save)
        except OSError as error:
            args.parser.error(f"cannot write {shown_path(args.save)}: {error.strerror}")
        print(f"\nWrote {shown_path(args.save)}")
    try:
        drawn = picture(predict, X, y, os.path.splitext(args.out)[1][1:].lower() or "png")
    except ImportError:
        print("\nNo picture without matplotlib; to get it: pip install 'flatgrad[viz]'")
        return 0
    except (OSError, RuntimeError, ValueError) as error:   # a format may need another program, such as LaTeX
        args.parser.error(f"cannot draw {shown_path(args.out)}: {' '.join(str(error).split())}")
    try:
        write_file(args.out, drawn)
    except OSError as error:
        args.parser.error(f"cannot write {shown_path(args.out)}: {error.strerror}")
    print(f"\nWrote {shown_path(args.out)}")
    return 0


def samples(args: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """The samples for training, with labels -1.0 and 1.0."""
    from flatgrad.datasets import make_moons, read_csv, shown_path

    if args.data is None:
        X, y = make_moons(100, noise=0.1, random_state=args.seed)
        return X, 2.0 * y - 1.0
    try:
        X, y = read_csv(args.data)
    except OSError as error:
        args.parser.error(f"cannot read {shown_path(args.data)}: {error.strerror}")
    except ValueError as error:
        args.parser.error(str(error))
    for name, column in zip("xy", X.T.tolist()):
        if max(map(abs, column)) > LARGEST_OF_ALL:
            args.parser.error(f"{shown_path(args.data)}: expected coordinates up to {LARGEST_OF_ALL:g}, got {name} "
                              f"from {min(column):g} to {max(column):g}")
    return X, y


def scaling(X: NDArray[Any]) -> tuple[Any, Any]:
    """The mean and standard deviation for standardising the coordinates; None and None if they need no
    standardising."""
    import numpy as np

    mean = (X / len(X)).sum(axis=0)
    reach = abs(X - mean).max(axis=0)
    reach[reach <= 1e-12 * abs(mean)] = 0.0   # all numbers are equal except for rounding
    scale = reach * np.sqrt(np.square((X - mean) / np.where(reach > 0.0, reach, 1.0)).mean(axis=0))
    scale = np.where(scale > 0.0, scale, 1.0)
    if abs(X).max() > LARGEST or scale.min() < LEAST_SPREAD:
        return mean, scale
    return None, None


def inverse(mean: NDArray[Any], scale: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The inverse of standardising: its mean and scale."""
    return -mean / scale, 1.0 / scale


def rescale(model: MLP, mean: NDArray[Any], scale: NDArray[Any]) -> None:
    """Change the first layer so that the model gives for points its former result for (points - mean) / scale."""
    state = model.state_dict()
    weight = state["layers.0.weight"] / scale
    model.load_state_dict({**state, "layers.0.weight": weight,
                           "layers.0.bias": state["layers.0.bias"] - weight @ mean})


def load(model: MLP, args: Any) -> None:
    """Load the model's weights from the file, or exit."""
    from flatgrad.datasets import shown_path
    from flatgrad.errors import StateError
    from flatgrad.storage import stored_arrays

    shapes = None
    try:
        with stored_arrays(args.load, math.inf) as arrays:   # no limit: reads only as much as the model holds
            shapes = {name: array.shape for name, array in arrays.items()}
            model.load_state_dict(arrays)
    except OSError as error:
        args.parser.error(f"cannot read {shown_path(args.load)}: {error.strerror}")
    except StateError:
        if shapes in (None, {name: array.shape for name, array in model.state_dict().items()}):   # the file is damaged
            args.parser.error(f"argument --load: expected a file that --save wrote, got {shown_path(args.load)}")
        widths = " ".join(str(*shape) for name, shape in shapes.items() if name.endswith(".bias") and len(shape) == 1)
        args.parser.error(f"argument --load: expected the weights of a network 2-{'-'.join(map(str, args.hidden))}-1, as "
                          f"--hidden says, got {shown_path(args.load)} with layers of {widths or 'none'}")


def train(model: MLP, X: NDArray[Any] | list[list[float]], y: NDArray[Any] | list[float], count: int, *,
          optimizer: Any = None, batch_size: int | None = None,
          seed: int | None = 0) -> Iterator[tuple[int, float, float] | None]:
    """micrograd's demo: full batches, max-margin loss, L2 penalty, a falling learning rate.

    Parameters
    ----------
    model : flatgrad.nn.MLP
        A model with two inputs and one output; it is trained in place.
    X : array_like, shape (n_samples, 2)
    y : array_like, shape (n_samples,)
        -1.0 or 1.0.
    count : int
    optimizer : flatgrad.optim.Optimizer, optional
        None: SGD with an initial learning rate of 1.
    batch_size, seed : int, optional
        As for `training.steps`.

    Yields
    ------
    k : int
        The step, from 0.
    loss, accuracy : float
        Both before the step's update, which is made when the caller asks for the next step. The accuracy is between
        0 and 1.
    """
    from flatgrad import dot
    from flatgrad.losses import hinge

    parameters = model.parameters()
    optimizer = optimizer or optimizer_of("sgd", parameters)
    lr, alpha = optimizer.lr, 1e-4
    for k, loss, scores, labels in steps(
            model, X, y, count, lambda scores, labels: hinge(scores, labels) + alpha * dot(parameters, parameters),
            optimizer, rate=lambda k: lr * (1.0 - 0.9 * k / count), batch_size=batch_size, seed=seed):
        right = ((scores.data[:, 0] > 0) == (labels.data > 0)).mean()
        yield k, loss.data, float(right)


def formats() -> list[str]:
    """The endings of the picture formats that can be written."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        return [".pdf", ".png", ".svg"]
    return sorted([f".{name}" for name in FigureCanvasBase.get_supported_filetypes()],
                  key=lambda ending: (ending not in (".png", ".svg", ".pdf"), ending))


def picture(predict: Callable[..., Any], X: NDArray[Any], y: NDArray[Any], form: str) -> bytes:
    """The picture of a decision boundary, as the bytes of a file in this format."""
    import matplotlib
    from matplotlib.figure import Figure

    from flatgrad.viz import plot_decision_boundary

    figure = Figure(figsize=(6.4, 4.8), dpi=100, layout="tight")
    plot_decision_boundary(predict, X, y, ax=figure.subplots(), feature_names=["x", "y"])
    stream = io.BytesIO()
    date = {"svg": "Date", "svgz": "Date", "pdf": "CreationDate"}.get(form)
    with matplotlib.rc_context({"svg.hashsalt": "flatgrad"}):   # for reproducible files: no date, no random names
        figure.savefig(stream, format=form, metadata={date: None} if date else None)
    return stream.getvalue()


def diverged(what: str) -> int:
    """Print that training failed, and return the exit code."""
    print(f"flatgrad moons: error: training diverged: {what}. {ADVICE}", file=sys.stderr)
    return 1
