"""``python -m flatgrad xor``, ``parity`` and ``sum``: small problems that show learning."""
from __future__ import annotations

import math
import sys

from flatgrad.cli.common import finite_number, int_from, positive_number
from flatgrad.cli.training import exploded, is_shown, optimizer_of, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from flatgrad.cli.common import Parser
    from flatgrad.nn.layers import MLP
    from flatgrad.read_only import Data

__all__ = ["add"]

XOR_HELP = """\
Train a network on the exclusive or of two bits: 1 if one of them is set, 0 if none or both are.

The exclusive or is the smallest problem that a single neuron cannot solve: no straight line
separates the ones from the zeros. This fact stopped much work on neural networks after 1969
(Minsky and Papert). The work continued in 1986, when hidden neurons learned the exclusive or by
backpropagation (Rumelhart, Hinton, Williams).

The network has 2 inputs, 4 hidden neurons and 1 output, each with tanh, and 17 parameters, as in
Tiny ML. An epoch is one step of gradient descent on all four rows. The loss is the mean of the
squares of (output - wanted). The columns after the loss are the outputs for the four rows; the
head of each column gives the wanted output. An output counts as 1 above 0.5."""

XOR_EXAMPLES = """\
examples:
  python -m flatgrad xor
      2,000 epochs; the outputs end within some hundredths of 0 and 1, for every --seed from 0 to
      19
  python -m flatgrad xor --epochs 300000
      as many epochs as in Tiny ML; a few seconds
  python -m flatgrad xor --hidden 1
      one hidden neuron is not enough: at least one row stays wrong
  python -m flatgrad xor --lr 0.01 --seed 7
      steps a tenth as long, from other initial weights: 2,000 epochs are only just enough"""

XOR_PYTHON = """\
the same in Python:
    from flatgrad.datasets import make_xor
    from flatgrad.losses import mse
    from flatgrad.nn import MLP
    from flatgrad.optim import SGD

    X, y = make_xor()
    model = MLP(2, [4, 1], activation="tanh", out_activation="tanh", rng=1337)
    optimizer = SGD(model.parameters(), lr=0.1)
    for epoch in range(2000):
        loss = mse(model(X), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(mse(model(X), y).data)"""

PARITY_HELP = """\
Train a network on the parity of n bits: 1 if the number of bits set is odd, 0 if it is even.

A change of any bit changes the parity, so the network has to combine all bits. Parity is the
exclusive or of more than two bits, and a hard test for its size. Memory chips use parity to find
errors.

The network has n inputs, two hidden layers of 8 neurons with relu (16 and more above 3 bits) and
1 output; for 3 bits 3-8-8-1, as in RustGrad, with 113 parameters. The initial weights are those
of He et al. for relu, and biases begin at 0. An epoch is one step of gradient descent on all
2**n rows. The loss is the mean of the squares of (output - wanted); 'right' counts the rows whose
output is on the right side of 0.5. At the end the command shows each row, or only the wrong rows
if there are more than 32."""

PARITY_EXAMPLES = """\
examples:
  python -m flatgrad parity
      3 bits, 10,000 epochs, all eight rows right, for every --seed from 0 to 19
  python -m flatgrad parity --bits 2 --hidden 16 16
      the exclusive or again; relu needs more neurons than tanh, as some of them die: with layers
      of 8, two of the 20 seeds fail
  python -m flatgrad parity --bits 5
      32 rows, two hidden layers of 32
  python -m flatgrad parity --hidden 2
      too few neurons: the loss stops falling while some rows are wrong"""

PARITY_PYTHON = """\
the same in Python:
    from flatgrad.datasets import make_parity
    from flatgrad.losses import mse
    from flatgrad.nn import MLP
    from flatgrad.optim import SGD

    X, y = make_parity(3)
    model = MLP(3, [8, 8, 1], init="he_normal", rng=1337)
    optimizer = SGD(model.parameters(), lr=0.01)
    for epoch in range(10000):
        loss = mse(model(X), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(mse(model(X), y).data)"""

SUM_HELP = """\
Train a network to add: y = x1 + x2, from six sums, and test the network on two other sums.

A single neuron could add with two weights of 1. A larger network finds one of the many functions
that go through the six samples. The two other sums show whether the function is a good one. This
is regression, and the reason for tests on samples outside of the training.

The network has 2 inputs, two hidden layers of 16 neurons with relu and 1 output, with 337
parameters, as in micrograd-rust. The initial weights are those of Glorot and Bengio. An epoch is
one step of gradient descent on the six samples. The loss is the mean of the squares of
(output - sum) over the training samples, and the test loss over the two other samples. All
samples lie between 0 and 1."""

SUM_EXAMPLES = """\
examples:
  python -m flatgrad sum
      1,000 epochs; the sums of the test samples are right within a tenth, for every --seed from 0
      to 19
  python -m flatgrad sum --add 0.25 0.5 --add 30 40
      sums of your own as well: sums far from all samples are predicted badly
  python -m flatgrad sum --epochs 20
      stopped early: the loss of the test samples is still high"""

SUM_PYTHON = """\
the same in Python:
    from flatgrad.losses import mse
    from flatgrad.nn import MLP
    from flatgrad.optim import SGD

    X = [[0, 0], [1, 0], [0, 1], [1, 1], [0.2, 0.6], [0.7, 0.4]]
    y = [sum(x) for x in X]
    model = MLP(2, [16, 16, 1], init="xavier_uniform", rng=1337)
    optimizer = SGD(model.parameters(), lr=0.05)
    for epoch in range(1000):
        loss = mse(model(X), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(mse(model(X), y).data)"""

SUMMANDS = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.2, 0.6), (0.7, 0.4)]
TEST_SUMMANDS = [(0.4, 0.3), (0.6, 0.8)]
CLOSE = 0.1       # the largest error of a sum that counts as right
MOST_ROWS = 32    # the largest table of all rows


def add(commands: Any) -> None:
    """Add the commands to argparse's."""
    sub = add_problem(commands, xor, "xor", "teach a network the exclusive or of two bits", XOR_HELP, XOR_EXAMPLES,
                      XOR_PYTHON, epochs=2000, hidden=[4], lr=0.1)
    sub = add_problem(commands, parity, "parity", "teach a network whether the number of bits set is odd", PARITY_HELP,
                      PARITY_EXAMPLES, PARITY_PYTHON, epochs=10000, hidden=None, lr=0.01)
    sub.add_argument("--bits", type=int_from(1, 8), default=3, metavar="N",
                     help="from 1 to 8; 7 and 8 take some seconds, and 8 needs luck (default: %(default)s)")
    sub = add_problem(commands, add_numbers, "sum", "teach a network to add, and test it on sums that it has not seen",
                      SUM_HELP, SUM_EXAMPLES, SUM_PYTHON, epochs=1000, hidden=[16, 16], lr=0.05)
    sub.add_argument("--add", type=finite_number, nargs=2, action="append", default=[], metavar=("X1", "X2"),
                     help="two numbers that the trained network is to add; may be given several times")


def add_problem(commands: Any, command: Callable[..., Any], name: str, summary: str, description: str, examples: str,
                python: str, *, epochs: int, hidden: list[int] | None, lr: float) -> Parser:
    """Add a command with the options that all these commands have."""
    sub = commands.add_parser(name, help=summary, description=description, epilog=f"{examples}\n\n{python}")
    sub.set_defaults(command=command, parser=sub)
    sub.add_argument("--epochs", type=int_from(1), default=epochs, metavar="N",
                     help="training steps, each on all samples (default: %(default)s)")
    sub.add_argument("--lr", "--learning-rate", type=positive_number, default=lr, metavar="R",
                     help="learning rate: how far a step goes against the gradient (default: %(default)s)")
    sub.add_argument("--seed", type=int_from(0, 2**32 - 1), default=1337, metavar="S",
                     help="of the first weights; one seed, one result (default: %(default)s)")
    usual = "two layers of 8, 16 for 4 bits, 32 for 5, 64 from 6 on" if hidden is None else " ".join(map(str, hidden))
    sub.add_argument("--hidden", type=int_from(1), nargs="+", default=hidden, metavar="N",
                     help=f"neurons in each hidden layer (default: {usual})")
    return sub


# ---- the commands ----

def xor(args: Any) -> int:
    """Train a network on the exclusive or."""
    from flatgrad.datasets import make_xor

    X, y = make_xor()
    heads = [f"{x1:.0f} {x2:.0f} -> {wanted}" for (x1, x2), wanted in zip(X, y)]
    problem = Problem(args, X, y, {"activation": "tanh", "out_activation": "tanh"})
    print(f"{'epoch':>{problem.width}}  {'loss':>10}  {'  '.join(heads)}")
    try:
        for epoch, loss, outputs in problem.log():
            print(f"{epoch:{problem.width}}  {small(loss)}  {'  '.join(f'{plain(output):8.4f}' for output in outputs)}",
                  flush=True)
    except Diverged as error:
        return error.told(args)
    print("\n" + problem.verdict(outputs))
    return 0


def parity(args: Any) -> int:
    """Train a network on parity."""
    from flatgrad.datasets import make_parity

    X, y = make_parity(args.bits)
    if args.hidden is None:
        args.hidden = [min(64, max(8, 2**args.bits))] * 2
    problem = Problem(args, X, y, {"init": "he_normal"})
    print(f"{'epoch':>{problem.width}}  {'loss':>10}  right")
    try:
        for epoch, loss, outputs in problem.log():
            right = int(((outputs > 0.5) == (y > 0)).sum())
            print(f"{epoch:{problem.width}}  {small(loss)}  {right} of {len(y)}", flush=True)
    except Diverged as error:
        return error.told(args)
    rows = [(x, wanted, output) for x, wanted, output in zip(X, y, outputs)
            if len(y) <= MOST_ROWS or (output > 0.5) != wanted]
    if rows:
        print(f"\n{'bits':{2 * args.bits - 1}}  parity   output")
        for x, wanted, output in rows[:MOST_ROWS]:
            print(f"{' '.join(f'{bit:.0f}' for bit in x)}  {wanted:{max(6, 10 - 2 * args.bits)}}  {plain(output):7.4f}  "
                  f"{'right' if (output > 0.5) == wanted else 'wrong'}")
        if len(rows) > MOST_ROWS:
            print(f"and {len(rows) - MOST_ROWS} more that are wrong")
    print("\n" + problem.verdict(outputs))
    return 0


def add_numbers(args: Any) -> int:
    """Train a network to add numbers."""
    import numpy as np

    X, X_test = np.array(SUMMANDS), np.array(TEST_SUMMANDS)
    y, y_test = X.sum(axis=1), X_test.sum(axis=1)
    problem = Problem(args, X, y, {"init": "xavier_uniform"})
    print(f"{'epoch':>{problem.width}}  {'loss':>10}  {'test loss':>10}")
    try:
        for epoch, loss, _ in problem.log():
            test_loss, _ = problem.evaluate(X_test, y_test)
            print(f"{epoch:{problem.width}}  {small(loss)}  {small(test_loss)}", flush=True)
    except Diverged as error:
        return error.told(args)
    worst = show_sums("the test samples, which it was not trained on", problem, X_test)
    if args.add:
        show_sums("your own", problem, np.array(args.add))
    if worst <= CLOSE:
        print(f"\nLearnt: the sums of the test samples are at most {worst:.3f} off.")
    else:
        print(f"\nNot learnt well: a sum of the test samples is {worst:.3f} off after {args.epochs:,} epochs; {CLOSE} "
              f"would do.\n{problem.advice}")
    return 0


def show_sums(title: str, problem: Problem, X: NDArray[Any]) -> float:
    """Print a table of predicted sums; returns the largest error."""
    print(f"\n{title}:\n{'x1':>9} {'x2':>9} {'x1 + x2':>9} {'output':>9} {'error':>9}")
    worst = 0.0
    for (x1, x2), output in zip(X, problem.evaluate(X, X.sum(axis=1))[1]):
        error = float(output - (x1 + x2))
        worst = max(worst, abs(error))
        print(f"{x1:9g} {x2:9g} {x1 + x2:9g} {plain(output):9.4f} {plain(error):+9.4f}")
    return worst


def small(loss: float) -> str:
    """A loss as ten characters."""
    return f"{loss:10.6f}" if 1e-4 <= loss < 1000 or loss == 0 else f"{loss:10.3e}"


def plain(output: np.float64 | float) -> float:
    """An output with four digits after the point; -0 becomes 0."""
    return round(float(output), 4) + 0.0


# ---- the parts that the commands share ----

class Diverged(Exception):
    """The loss is no longer finite, or ends far above its initial value."""

    loss: float
    epoch: int

    def __init__(self, loss: float, epoch: int) -> None:
        super().__init__(loss, epoch)
        self.loss, self.epoch = loss, epoch

    def told(self, args: Any) -> int:
        """Print the message, and return the exit code."""
        name = args.parser.prog.removeprefix("python -m ")
        print(f"{name}: error: training diverged: the loss is {self.loss:.4g} at epoch {self.epoch}. Try a smaller --lr "
              f"than {args.lr:g}.", file=sys.stderr)
        return 1


class Problem:
    """A network with its samples, trained by gradient descent on the mean squared error.

    Parameters
    ----------
    args : argparse.Namespace
        The options: `hidden`, `epochs`, `lr`, `seed`.
    X : ndarray, shape (n_samples, n_features)
    y : ndarray, shape (n_samples,)
    options : dict
        Options of `flatgrad.nn.MLP`.
    """

    args: Any
    y: NDArray[Any]

    model: MLP
    width: int

    advice = "Try another --seed, more --epochs, another --lr, or more neurons by --hidden."

    def __init__(self, args: Any, X: NDArray[Any], y: NDArray[Any], options: dict[str, str]) -> None:
        from flatgrad.nn import MLP

        self.args, self.X, self.y = args, X, y
        self.model = MLP(X.shape[1], [*args.hidden, 1], rng=args.seed, **options)
        self.width = max(5, len(str(args.epochs)))
        sizes = "-".join(map(str, [X.shape[1], *args.hidden, 1]))
        print(f"network {sizes}, {len(self.model.parameters())} parameters; {len(X)} samples\n", flush=True)

    def log(self) -> Iterator[tuple[int, float, Data]]:
        """Train, and yield the lines of the log: (epoch, loss, outputs), for some epochs and after the last one."""
        from flatgrad import losses

        epochs = self.args.epochs
        optimizer = optimizer_of("sgd", self.model.parameters(), self.args.lr)
        for k, loss, outputs, _ in steps(self.model, self.X, self.y, epochs, losses.mse, optimizer):
            if not math.isfinite(loss.data):
                raise Diverged(loss.data, k)
            if k == 0:
                first = loss.data
            if is_shown(k):
                yield k, loss.data, outputs.data[:, 0]
        loss, outputs = self.evaluate(self.X, self.y)
        if exploded(first, loss):
            raise Diverged(loss, epochs)
        yield epochs, loss, outputs

    def evaluate(self, X: NDArray[Any], y: NDArray[Any]) -> tuple[float, Data]:
        """The loss and the outputs for samples."""
        from flatgrad import losses, no_grad

        with no_grad():
            outputs = self.model(X)
            return losses.mse(outputs, y).data, outputs.data[:, 0]

    def verdict(self, outputs: Data) -> str:
        """The number of right answers, for labels 0 and 1, as text."""
        wrong = int(((outputs > 0.5) != (self.y > 0)).sum())
        if wrong == 0:
            return f"Learnt: all {len(self.y)} rows are right; the worst output is {abs(outputs - self.y).max():.4f} off."
        return f"Not learnt: {wrong} of {len(self.y)} rows are wrong after {self.args.epochs:,} epochs.\n{self.advice}"
