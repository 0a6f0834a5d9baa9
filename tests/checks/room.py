"""Little address space in the middle of training: a MemoryError, and with more of it the training goes on.

The process may take only so much more memory than it has (RLIMIT_AS): nothing, or a random number of
bytes up to 128 MiB. The code of one of `subjects`, or a larger one of this module, either passes, or ends with a
MemoryError; without the limit the tape is sound then, as many nodes are alive as before, a step has
happened as a whole or not at all, and the code computes what it computed.

It needs Linux.
"""
import collections
import random
import sys

import flatgrad as fg
import numpy as np
from checks import children
from checks.limits import Unavailable
from checks.subjects import SUBJECTS, Quiet, Subject, bits, fitting
from flatgrad import Tensor, Value, losses, nn, optim

SHORT = 4.0   # seconds

LARGE = {}


def large(f):
    LARGE[f.__name__] = f
    return f


@large
def long_chain():
    x = Value(1.0)

    def work():
        x.grad = 0.0
        y = x
        for _ in range(100_000):
            y = y * 0.99999 + 0.5
        y.backward()
        return y.data, x.grad
    return Subject(work)


@large
def large_matrices():
    a, b = (Tensor(np.random.default_rng(k).normal(size=(300, 300))) for k in range(2))

    def work():
        a.grad = b.grad = 0.0
        y = ((a @ b).tanh() + a.T.exp()).softmax(1).square().sum() + losses.mse(a, b)
        y.backward()
        return y.data, a.grad, b.grad
    return Subject(work)


@large
def large_batch():
    w = Tensor(np.linspace(-1.0, 1.0, 20))
    rows = np.random.default_rng(1).normal(size=(3000, 20))
    f = fg.compile(lambda rows: fg.vmap(lambda x: (fg.dot(w, x).tanh() - 0.5).softplus())(rows).mean())
    gradient = fg.value_and_grad(f, parameters=[w])

    def work():
        w.grad = 0.0
        y = f(rows)
        y.backward()
        end, path = fg.scan(lambda c, x: (c * 0.9 + x, c), 0.5, rows[:, 0])
        return y.data, w.grad, gradient(rows), end.data, path.numpy()
    return Subject(work)


@large
def many_parameters():
    model = nn.MLP(50, [200, 200, 1], rng=1)
    first = model.state_dict()
    rows = np.random.default_rng(1).normal(size=(200, 50))

    def work():
        model.load_state_dict(first)
        optimizer = optim.Adam(model.parameters(), 0.01)
        for _ in range(2):
            loss = losses.mse(model(rows).reshape(-1), rows[:, 0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.data, model.state_dict()
    return Subject(work)


LARGE["large_fit"] = fitting(lambda: nn.MLP(2, [300, 300, 1], rng=1), "hinge", lambda p: optim.Adam(p, 0.01),
                             np.where(np.arange(24) % 2, 1.0, -1.0))


def address_space():
    """Bytes that the process has."""
    with open("/proc/self/status") as file:
        found = dict(line.split(":", 1) for line in file)
    return 1024 * int(found["VmSize"].split()[0])


class Rounds:
    """What `children` runs."""

    def __init__(self):
        self.counts, self.name = collections.Counter(), None
        fg.collect()

    def round(self, seed):
        import resource

        rng = random.Random(seed)
        if seed % 20 == 0 or self.name is None:   # so many limits for one
            self.name = rng.choice([*sorted(LARGE) * 4, *sorted(SUBJECTS)])
            SUBJECTS.update(LARGE)
            self.quiet = Quiet(self.name)
            for name in LARGE:
                del SUBJECTS[name]
        subject = self.quiet.subject
        more = int(2 ** rng.uniform(0.0, 27.0)) if rng.random() < 0.8 else 0
        stages, ended = [], False
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + more, hard))
        try:
            got = subject.work(lambda: stages.append(bits(subject.state()))) if subject.state else subject.work()
            ended = True
        except MemoryError:
            pass
        except RuntimeError as error:   # which Python makes of it where a thread begins
            if "can't start new thread" not in str(error):
                raise
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        if ended:
            assert bits(got) == self.quiet.expected, f"{self.name}: other numbers"
        elif stages:
            assert bits(subject.state()) in (stages[0], self.quiet.expected), f"{self.name}: a step was done in part"
        got = None
        self.counts["enough" if ended else "too little"] += 1
        self.quiet.check(f"{more} bytes more")


def run(limit, options):
    if not sys.platform.startswith("linux"):
        raise Unavailable("needs Linux")
    # glibc is to give back what it has, and to ask for what it needs
    counts = children.rounds("room", limit, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536",
                             MALLOC_ARENA_MAX="1")
    return (f"{limit.rounds} rounds, {limit.seeds}, {counts['too little']} MemoryErrors, {counts['enough']} that "
            "passed; training went on after each")
