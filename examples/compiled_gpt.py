"""The GPT of scalar_gpt.py as a program: one decorator, and Python runs the model once for each length of a name.

    python examples/compiled_gpt.py

The model is that of scalar_gpt.py, character by character, with scalars in lists. There it says
``take(table, token)`` for ``table[token]``, because in a recorded program a token is another one at each call. The
first name of a length records the program of that length; each name after it replays the program.

The script trains on names of the standard library's modules twice, as it is and compiled. It prints some losses, which
are the same both ways, the time of a step once all lengths are recorded, and new names.
"""
import argparse
import random
import time

import flatgrad
import scalar_gpt

STEPS = 300


class GPT(scalar_gpt.GPT):
    @flatgrad.compile
    def loss(self, tokens):
        return super().loss(tokens)


def data():
    """The names in random order as lists of tokens, and the letters of the tokens. The end token is the last."""
    names = scalar_gpt.module_names()
    random.Random(42).shuffle(names)
    letters = sorted(set("".join(names)))
    end = len(letters)
    return [[end, *map(letters.index, name), end] for name in names], letters


def train(kind, documents, vocabulary):
    """A trained model, the loss of each step, and the seconds for a step in the second half of them."""
    model = kind(scalar_gpt.load_engine("flatgrad"), vocabulary, random.Random(42))
    losses = []
    for loss in scalar_gpt.train(model, documents, STEPS):
        losses.append(loss.data)
        if len(losses) == STEPS // 2:
            start = time.perf_counter()
    return model, losses, (time.perf_counter() - start) / (STEPS - STEPS // 2)


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    documents, letters = data()
    print(f"{len(documents)} names of {len(letters)} different characters")
    _, losses, plain = train(scalar_gpt.GPT, documents, len(letters) + 1)
    model, compiled_losses, compiled = train(GPT, documents, len(letters) + 1)
    for step in 1, 10, 100, STEPS:
        print(f"step {step:4d}  loss {losses[step - 1]:.4f}  compiled {compiled_losses[step - 1]:.4f}")
    print(f"{model.loss.cache_info().currsize} programs, one for each length")
    print(f"{1e3 * plain:.3f} ms a step, compiled {1e3 * compiled:.3f} ms")
    rng = random.Random(42)
    print("new names:", *("".join(letters[token] for token in model.sample(len(letters), rng)) for _ in range(5)))


if __name__ == "__main__":
    main()
