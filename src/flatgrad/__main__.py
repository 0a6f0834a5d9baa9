"""The command line, ``python -m flatgrad``: parsing, printing and exit codes.

What is trained on comes from `datasets`, what is drawn from `viz`; `compat` runs programs.

Exit codes: 0 done; 1 training diverged; 2 bad arguments, input or output, told in one line on
stderr; 130 interrupted; 141 whoever read our output went away. A program that is run has its own.
"""
import argparse
import io
import math
import os
import random
import sys

from flatgrad import Tensor, __version__, compat, dot
from flatgrad.nn import MLP

# `datasets` and `viz` are imported where they are used: they import NumPy, which is not for us to
# import before a program that is run has prepared for it.

MOONS_HELP = """\
Train a small neural network to tell two classes of points in the plane apart: the demo of
micrograd, its max-margin loss and its network, on two interleaving half moons or on your points.
Prints loss and accuracy as it goes, then draws the decision boundary."""

MOONS_EXAMPLES = """\
examples:
  python -m flatgrad moons
      100 generated samples, 100 steps, and the picture in decision_boundary.png
  python -m flatgrad moons --data points.csv --out points.png
      your samples, from a file that begins like this (labels -1 and 1, or 0 and 1):
          x,y,label
          1.122,0.081,-1
          0.274,-0.419,1
  python -m flatgrad moons --hidden 8 --steps 300 --seed 7
      one hidden layer of 8 neurons, trained longer from another start"""

RUN_USAGE = """\
python -m flatgrad run [--replace-class NAME] PROGRAM [ARGUMENT ...]
       python -m flatgrad run [--replace-class NAME] -m MODULE [ARGUMENT ...]"""

RUN_HELP = """\
Run a program that was written for micrograd, as it is, on flatgrad: in it, `import micrograd` gives
flatgrad, even where micrograd is installed. Everything after PROGRAM or MODULE is passed on to it.

Of a notebook, the code cells are run in order. What is IPython's in them (%magic, !command) is
skipped and told on stderr, plots are not shown, and a value on a cell's last line is not either."""

RUN_EXAMPLES = """\
examples:
  python -m flatgrad run train.py --steps 100
      instead of: python train.py --steps 100
  python -m flatgrad run demo.ipynb
      the notebook's code cells, one after the other
  python -m flatgrad run -m mypackage.train
      instead of: python -m mypackage.train
  python -m flatgrad run --replace-class Value gpt.py
      a script that brings its own `class Value`: flatgrad's takes its place"""

ADVICE = "Scale x and y to a few units, or try another --seed."


def main(argv=None):
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : list of str, optional
        Arguments, without the program's name; by default those of the process.

    Returns
    -------
    int

    Raises
    ------
    SystemExit
        After --help, --version and errors in the arguments.
    """
    argv, passed_on = split(sys.argv[1:] if argv is None else list(argv))
    if passed_on is not None:
        # Not below: what a program does to stdout is its own affair.
        return run(argv, passed_on)
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold any character
    try:
        try:
            return run(argv)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where its errors can be caught
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # of stdout: those of files are caught in `moons`
        # Python flushes once more at exit; let that succeed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 141
        print(f"flatgrad: error: standard output: {error.strerror}", file=sys.stderr)
        return 2


def split(argv):
    """What is ours and what is for the program, of ``run [OPTION ...] PROGRAM [ARGUMENT ...]``.

    Returns
    -------
    ours : list of str
        All of them if no program is named.
    passed_on : list of str or None
        None if no program is named.
    """
    end = 1
    while argv[:1] == ["run"] and end < len(argv):
        word = argv[end]
        end += 2 if word in ("-m", "--replace-class", "--") else 1
        if word in ("-h", "--help") or end > len(argv):
            break
        if not word.startswith("-") or word.startswith("-m") or word in ("-", "--"):
            return argv[:end], argv[end:]
    return argv, None


def run(argv, passed_on=()):
    """Parse the arguments and run the subcommand; `passed_on` is for the program that it runs."""
    parser = Parser(
        prog="python -m flatgrad",
        description="flatgrad: scalar automatic differentiation on flat C arrays.",
        epilog="examples:\n  python -m flatgrad moons\n  python -m flatgrad run train.py",
    )
    parser.add_argument("--version", action="version", version=f"flatgrad {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    sub = commands.add_parser(
        "moons",
        help="train micrograd's demo classifier and draw its decision boundary",
        description=MOONS_HELP,
        epilog=MOONS_EXAMPLES,
    )
    sub.set_defaults(command=moons, parser=sub)
    sub.add_argument("--data", metavar="FILE.csv",
                     help="samples to train on, with the columns x, y and label "
                          "(default: 100 generated ones)")
    sub.add_argument("--steps", type=int_from(1), default=100, metavar="N",
                     help="training steps, each on all samples (default: %(default)s)")
    sub.add_argument("--seed", type=int_from(0, 2**32 - 1), default=1337, metavar="S",
                     help="of the first weights and the generated samples; one seed, one result "
                          "(default: %(default)s)")
    sub.add_argument("--hidden", type=int_from(1), nargs="+", default=[16, 16], metavar="N",
                     help="neurons in each hidden layer (default: 16 16)")
    sub.add_argument("--out", default="decision_boundary.png", metavar="PNG",
                     help="the picture to write, over any file of that name; needs matplotlib "
                          "(default: %(default)s)")

    sub = commands.add_parser(
        "run",
        help="run a script or notebook written for micrograd, on flatgrad",
        usage=RUN_USAGE,
        description=RUN_HELP,
        epilog=RUN_EXAMPLES,
    )
    sub.set_defaults(command=program, parser=sub, passed_on=passed_on)
    sub.add_argument("program", metavar="PROGRAM", nargs="?",
                     help="a script, or a notebook if the name ends in .ipynb")
    sub.add_argument("-m", dest="module", metavar="MODULE",
                     help="a module to run, found as python -m finds it")
    sub.add_argument("--replace-class", metavar="NAME", type=identifier,
                     help="put flatgrad's Value in the place of the class NAME that the program "
                          "defines at its top level; methods that are missed are told on stderr")

    args, unknown = parser.parse_known_args(argv)
    if "command" not in args:
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        parser.print_help(sys.stderr)
        return 2
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return args.command(args)


def program(args):
    """Run a script, a notebook or a module."""
    module = args.module is not None
    if not module and args.program is None:
        args.parser.error("expected a script, a notebook or -m MODULE; --help shows examples")
    try:
        return compat.run(args.module if module else args.program, args.passed_on, module=module,
                          replace_class=args.replace_class)
    except compat.Refusal as error:
        args.parser.error(str(error))


def moons(args):
    """Train micrograd's demo classifier and draw its decision boundary."""
    from flatgrad.datasets import make_moons, read_csv, shown_path
    from flatgrad.viz import decision_boundary_text

    if args.data is None:
        X, y = make_moons(100, noise=0.1, random_state=args.seed)
        y = 2.0 * y - 1.0
    else:
        try:
            X, y = read_csv(args.data)
        except OSError as error:
            args.parser.error(f"cannot read {shown_path(args.data)}: {error.strerror}")
        except ValueError as error:
            args.parser.error(str(error))
    check_writable(args)

    random.seed(args.seed)
    model = MLP(2, [*args.hidden, 1])
    print(f"Number of parameters {len(model.parameters())}", flush=True)
    for k, loss, accuracy in train(model, X, y, args.steps):
        if not math.isfinite(loss):
            return diverged(f"the loss is {loss} at step {k}", X)
        if k % 10 == 0 or k == args.steps - 1:
            width = len(str(args.steps - 1))
            number = f"{loss:10.6f}" if loss < 1000 else f"{loss:10.3e}"
            print(f"step {k:{width}}   loss {number}   accuracy {accuracy:6.1%}", flush=True)
        if k == 0:
            first_loss = loss
    if loss > first_loss:
        print(f"\nThe loss went up. {ADVICE}")

    def predict(points):
        return model(points).data[:, 0]

    try:
        print("\n" + decision_boundary_text(predict, X, y), flush=True)
    except ValueError as error:  # the last step made the weights overflow
        return diverged(error, X)
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


def train(model, X, y, steps):
    """Micrograd's demo: full batches, max-margin loss, L2 penalty, a falling learning rate.

    Parameters
    ----------
    model : flatgrad.nn.MLP
        With two inputs and one output; trained in place.
    X : array_like, shape (n_samples, 2)
    y : array_like, shape (n_samples,)
        -1.0 or 1.0.
    steps : int

    Yields
    ------
    k : int
        The step, from 0.
    loss, accuracy : float
        Before the step's update, which is made when the next step is asked for. The accuracy is
        between 0 and 1.
    """
    from flatgrad.losses import hinge
    from flatgrad.optim import SGD

    parameters = model.parameters()
    optimizer = SGD(parameters)
    X, y = Tensor(X, requires_grad=False), Tensor(y, requires_grad=False)
    positive = y.data > 0
    for k in range(steps):
        scores = model(X)
        alpha = 1e-4
        loss = hinge(scores, y) + alpha * dot(parameters, parameters)
        right = ((scores.data[:, 0] > 0) == positive).mean()
        yield k, loss.data, float(right)

        optimizer.zero_grad()
        loss.backward()
        optimizer.lr = 1.0 - 0.9 * k / steps
        optimizer.step()


def png(predict, X, y):
    """The picture of a decision boundary, as the bytes of a PNG file."""
    from matplotlib.figure import Figure

    from flatgrad.viz import plot_decision_boundary

    figure = Figure(figsize=(6.4, 4.8), dpi=100, layout="tight")
    plot_decision_boundary(predict, X, y, ax=figure.subplots())
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def check_writable(args):
    """Exit if the picture cannot or must not go to `args.out`; leave every file as it is."""
    from flatgrad.datasets import shown_path

    path, data = args.out, args.data
    if os.path.splitext(path)[1].lower() not in ("", ".png"):
        args.parser.error(f"argument --out: expected a name that ends in .png, got {path!r}")
    existed = os.path.exists(path)
    if existed and data is not None and os.path.samefile(path, data):
        args.parser.error(f"argument --out: expected another file than --data's, got {path!r}")
    try:
        with open(path, "ab"):
            pass
        if not existed:
            os.remove(path)
    except OSError as error:
        args.parser.error(f"cannot write {shown_path(path)}: {error.strerror}")


def diverged(what, X):
    """Tell that training failed, and return the exit code."""
    largest = max(abs(X).max(axis=0))
    print(
        f"flatgrad moons: error: training diverged: {what}; coordinates reach {largest:g}. "
        f"{ADVICE}",
        file=sys.stderr,
    )
    return 1


def int_from(low, high=None):
    """A converter for argparse: an int between two bounds."""
    expected = f"of {low} or more" if high is None else f"from {low} to {high}"

    def convert(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"expected an integer {expected}, got {text!r}")
        return value

    return convert


def identifier(text):
    """A converter for argparse: the name of a class."""
    if not text.isidentifier():
        raise argparse.ArgumentTypeError(f"expected the name of a class, got {text!r}")
    return text


class Parser(argparse.ArgumentParser):
    """argparse's parser, its errors one line each."""

    def __init__(self, **kwargs):
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs
        )

    def error(self, message):
        """Exit with code 2 after one line on stderr."""
        self.exit(2, f"{self.prog.removeprefix('python -m ')}: error: {message}\n")


if __name__ == "__main__":
    sys.exit(main())
