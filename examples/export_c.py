"""The training of a network goes on in C: a compiled function and its optimizer as one file without a library.

    python examples/export_c.py
    python examples/export_c.py --folder moons

The model is micrograd's MLP 2-16-16-1, for two moons, and the loss the squared error of a sample. Python takes the first
100 steps. ``loss.to_c(...)`` then writes ``moons.c`` and ``moons.h``: the loss, its gradient, and a step of Adam that
begins with today's parameters and moments. The script adds a ``main.c`` that takes 100 steps more, compiles all with the
machine's C compiler, and takes the same steps in Python. With ``--folder`` the files stay there.
"""
import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import flatgrad
from flatgrad.datasets import make_moons
from flatgrad.nn import MLP
from flatgrad.optim import Adam

MAIN = """
#include <stdio.h>
#include "moons.h"

int main(void)
{
    static const double samples[][3] = {%s};
    static moons_parameters p;
    static moons_state s;
    static moons_work w;
    moons_start(&p), moons_state_start(&s);
    for (int k = 0; k < 100; k++)
        printf("%%.17g\\n", moons_step(&p, &s, samples[k], samples[k][2], &w));
    return 0;
}
"""


def train(loss, optimizer, samples):
    """The loss before each step."""
    losses = []
    for *x, y in samples:
        total = loss(x, y)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(total.data)
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the files stay")
    folder = parser.parse_args().folder
    X, y = make_moons(100, noise=0.1, random_state=0)
    samples = [[*x, 2.0 * label - 1.0] for x, label in zip(X.tolist(), y.tolist())]
    model = MLP(2, [16, 16, 1], rng=1337)
    loss = flatgrad.compile(lambda x, y: (model(x) - y) ** 2)
    optimizer = Adam(model.parameters(), lr=0.01)
    losses = train(loss, optimizer, samples)
    print(f"Python: loss {sum(losses) / 100:.4f} on average")
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        made = loss.to_c(folder / "moons.c", optimizer=optimizer)
        print(f"moons.c: {len(made.source.splitlines())} lines, moons_work: {made.work} bytes")
        (folder / "main.c").write_text(MAIN % ", ".join([f"{{{a!r}, {b!r}, {c!r}}}" for a, b, c in samples]))
        compiler = next(filter(shutil.which, ("cc", "gcc", "clang")), "cc")
        subprocess.run([compiler, "-std=c11", "-O3", "main.c", "moons.c", "-lm", "-o", "moons"], cwd=folder, check=True)
        printed = subprocess.run([(folder / "moons").absolute()], check=True, capture_output=True, text=True)
    in_c, losses = list(map(float, printed.stdout.split())), train(loss, optimizer, samples)
    for k in range(0, 100, 33):
        print(f"step {100 + k}  loss {losses[k]:.4f}  in C {in_c[k]:.4f}")
    print(f"C and Python agree to 12 digits: {all(abs(a - b) < 1e-12 for a, b in zip(in_c, losses))}")


if __name__ == "__main__":
    main()
