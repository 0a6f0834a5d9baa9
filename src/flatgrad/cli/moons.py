"""``python -m flatgrad moons``: micrograd's demo, on generated samples or those of a file."""
import io
import math
import random
import sys

from flatgrad.cli.common import check_writable, int_from, name_of, positive_number
from flatgrad.cli.training import OPTIMIZERS, optimizer_of, steps

__all__ = ["add", "train"]

ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "softplus", "tanh", "sigmoid", "linear")

HELP = """\
Train a small neural network to tell two classes of points in the plane apart: the demo of
micrograd, its max-margin loss and its network, on two interleaving half moons or on your points.
Prints loss and accuracy as it goes, then draws the decision boundary.

No straight line separates the moons: the hidden layers have to bend one around them, which is
what they are for. The loss is the mean of max(0, 1 - label * score), with labels -1 and 1, plus
1e-4 times the sum of the squares of all parameters; it is 0.01 or so once every sample is on its
side with a margin. The accuracy is the share of samples on the right side."""

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
      hidden layers that do not bend: what remains is a straight line, and 12 samples are beyond it
  python -m flatgrad moons --optimizer adam --batch-size 20 --steps 200
      another optimizer, on 20 samples at a time; five steps pass through all 100
  python -m flatgrad moons --steps 50 --save model.npz
  python -m flatgrad moons --steps 50 --load model.npz
      the weights go to a file; the second command trains on from there"""

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

ADVICE = "Scale x and y to a few units, or try another --seed."
ADVICE_ON_RATE = "Try a smaller --learning-rate, scale x and y to a few units, or try another --seed."


def add(commands):
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
    sub.add_argument("--optimizer", type=name_of(OPTIMIZERS), default="sgd", metavar="NAME",
                     help=f"{', '.join(OPTIMIZERS)} (default: %(default)s)")
    usual = ", ".join(f"{lr:g} for {name}" for name, (_, lr) in OPTIMIZERS.items())
    sub.add_argument("--learning-rate", "--lr", type=positive_number, metavar="R",
                     help=f"of the first step; it falls evenly to a tenth of that (default: {usual})")
    sub.add_argument("--batch-size", type=int_from(1), metavar="N",
                     help="samples for each step, drawn anew in each pass through all of them; the loss and "
                          "accuracy that are printed are theirs (default: all samples)")
    sub.add_argument("--load", metavar="NPZ", help="begin with the weights of a file that --save wrote")
    sub.add_argument("--save", metavar="NPZ", help="write the trained weights to a file, which --load reads "
                     "and flatgrad.nn.MLP.load")
    sub.add_argument("--out", default="decision_boundary.png", metavar="PNG",
                     help="the picture to write, over any file of that name; needs matplotlib "
                          "(default: %(default)s)")


def moons(args):
    """Train micrograd's demo classifier and draw its decision boundary."""
    from flatgrad.datasets import shown_path
    from flatgrad.nn import MLP
    from flatgrad.viz import decision_boundary_text

    X, y = samples(args)
    check_writable(args.parser, "--out", args.out, ".png", {"--data": args.data, "--load": args.load})
    if args.save is not None:
        check_writable(args.parser, "--save", args.save, ".npz", {"--data": args.data, "--out": args.out})

    random.seed(args.seed)
    model = MLP(2, [*args.hidden, 1], activation=args.activation)
    if args.load is not None:
        load(model, args)
    print(f"Number of parameters {len(model.parameters())}", flush=True)
    usual = args.learning_rate is None and args.activation == "relu" and args.optimizer == "sgd"
    advice = ADVICE if usual else ADVICE_ON_RATE
    optimizer = optimizer_of(args.optimizer, model.parameters(), args.learning_rate)
    for k, loss, accuracy in train(model, X, y, args.steps, optimizer=optimizer, batch_size=args.batch_size,
                                   seed=args.seed):
        if not math.isfinite(loss):
            return diverged(f"the loss is {loss} at step {k}", X, advice)
        if k % 10 == 0 or k == args.steps - 1:
            width = len(str(args.steps - 1))
            number = f"{loss:10.6f}" if loss < 1000 else f"{loss:10.3e}"
            print(f"step {k:{width}}   loss {number}   accuracy {accuracy:6.1%}", flush=True)
        if k == 0:
            first_loss = loss
    if loss > first_loss:
        print(f"\nThe loss went up. {advice}")

    def predict(points):
        return model(points).numpy()[:, 0]

    try:
        print("\n" + decision_boundary_text(predict, X, y), flush=True)
    except ValueError as error:  # the last step made the weights overflow
        return diverged(error, X, advice)
    if args.save is not None:
        try:
            model.save(args.save)
        except OSError as error:
            args.parser.error(f"cannot write {shown_path(args.save)}: {error.strerror}")
        print(f"\nWrote {shown_path(args.save)}")
    try:
        picture = png(predict, X, y)
    except ImportError:
        print("\nNo picture without matplotlib; to get it: pip install 'flatgrad[viz]'")
        return 0
    try:
        with open(args.out, "wb") as file:
            file.write(picture)
    except OSError as error:
        args.parser.error(f"cannot write {shown_path(args.out)}: {error.strerror}")
    print(f"\nWrote {shown_path(args.out)}")
    return 0


def samples(args):
    """The samples to train on, their labels -1.0 and 1.0."""
    from flatgrad.datasets import make_moons, read_csv, shown_path

    if args.data is None:
        X, y = make_moons(100, noise=0.1, random_state=args.seed)
        return X, 2.0 * y - 1.0
    try:
        return read_csv(args.data)
    except OSError as error:
        args.parser.error(f"cannot read {shown_path(args.data)}: {error.strerror}")
    except ValueError as error:
        args.parser.error(str(error))


def load(model, args):
    """Give the model the weights of the file, or exit."""
    from flatgrad.datasets import shown_path
    from flatgrad.errors import StateError
    from flatgrad.storage import load_arrays

    try:
        arrays = load_arrays(args.load)
    except OSError as error:
        args.parser.error(f"cannot read {shown_path(args.load)}: {error.strerror}")
    except StateError:
        args.parser.error(f"argument --load: expected a file that --save wrote, got {shown_path(args.load)}")
    try:
        model.load_state_dict(arrays)
    except StateError:
        widths = " ".join(str(len(array)) for name, array in arrays.items() if name.endswith(".bias") and array.ndim == 1)
        args.parser.error(f"argument --load: expected the weights of a network 2-{'-'.join(map(str, args.hidden))}-1, as "
                          f"--hidden says, got {shown_path(args.load)} with layers of {widths or 'none'}")


def train(model, X, y, count, *, optimizer=None, batch_size=None, seed=0):
    """Micrograd's demo: full batches, max-margin loss, L2 penalty, a falling learning rate.

    Parameters
    ----------
    model : flatgrad.nn.MLP
        With two inputs and one output; trained in place.
    X : array_like, shape (n_samples, 2)
    y : array_like, shape (n_samples,)
        -1.0 or 1.0.
    count : int
    optimizer : flatgrad.optim.Optimizer, optional
        None: SGD that begins with a learning rate of 1.
    batch_size, seed : int, optional
        As for `training.steps`.

    Yields
    ------
    k : int
        The step, from 0.
    loss, accuracy : float
        Before the step's update, which is made when the next step is asked for. The accuracy is
        between 0 and 1.
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


def png(predict, X, y):
    """The picture of a decision boundary, as the bytes of a PNG file."""
    from matplotlib.figure import Figure

    from flatgrad.viz import plot_decision_boundary

    figure = Figure(figsize=(6.4, 4.8), dpi=100, layout="tight")
    plot_decision_boundary(predict, X, y, ax=figure.subplots())
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def diverged(what, X, advice):
    """Tell that training failed, and return the exit code."""
    largest = max(abs(X).max(axis=0))
    print(
        f"flatgrad moons: error: training diverged: {what}; coordinates reach {largest:g}. "
        f"{advice}",
        file=sys.stderr,
    )
    return 1
