"""A GPT that learns to spell names, built from scalars.

    python examples/scalar_gpt.py                    # names of Python's own modules
        python examples/scalar_gpt.py --data names.txt   # your own names, one per line
    python examples/scalar_gpt.py --engine python    # the same without flatgrad, for comparison

The model has one layer, 16-wide embeddings of characters and positions, 4 heads of causal attention, RMSNorm without
parameters, no biases, and a ReLU MLP of four times the width. The code computes with scalars, which are Values in
lists, character by character. Adam trains the model, one name a step.

The code is the same for both engines; they differ in their functions (see `load_engine`). In flatgrad, a product of a
matrix and a vector, or a softmax, is one instruction, and a step of Adam is one call into C. pure_value.py builds all
of these from ``+ * / ** exp log relu`` and plain Python.
"""
import argparse
import operator
import random
import string
import sys
import time
from types import SimpleNamespace

WIDTH = 16
HEADS = 4
HEAD_WIDTH = WIDTH // HEADS
PARTS = [slice(h * HEAD_WIDTH, (h + 1) * HEAD_WIDTH) for h in range(HEADS)]   # the part of a vector for each head
CONTEXT = 16              # positions: the begin token and up to 15 characters
LONGEST = CONTEXT - 1
LEARNING_RATE, BETAS, EPS = 0.01, (0.85, 0.99), 1e-8
INITIAL_SPREAD = 0.08     # standard deviation of the parameters at the start
TEMPERATURE = 0.5         # of the samples: below 1, likely characters become even likelier


def load_engine(name):
    """The engine: a namespace of six names, with the same meaning in both engines.

    ``Value`` is a scalar; ``dot(a, b)`` the sum of products; ``matvec(matrix, x)`` the list of each
    row's dot with x; ``softmax(x)`` a list of positive Values that add up to 1; ``take(x, k)`` the
    element k of a list; and ``Adam(parameters, lr, betas, eps)`` the optimizer.
    """
    if name == "python":
        import pure_value
        return pure_value
    import flatgrad
    from flatgrad.optim import Adam
    return SimpleNamespace(Value=flatgrad.Value, dot=flatgrad.dot, matvec=flatgrad.matvec,
                           softmax=flatgrad.softmax, take=flatgrad.take, Adam=Adam)


# The model. Vectors are lists of Values, matrices lists of rows.

def add(a, b):
    return list(map(operator.add, a, b))


def new_cache():
    """A cache without positions: the keys of each head, and the values of all heads."""
    return [[] for _ in range(HEADS)], [[] for _ in range(WIDTH)]


class GPT:
    """The parameters, and the prediction of a character from the characters before it.

    Parameters
    ----------
    engine : namespace
        The engine, from `load_engine`.
    vocabulary : int
        Number of different tokens.
    rng : random.Random
        Source of the initial parameters.
    """

    def __init__(self, engine, vocabulary, rng):
        def matrix(rows, columns):
            return [[engine.Value(rng.gauss(0.0, INITIAL_SPREAD)) for _ in range(columns)]
                    for _ in range(rows)]

        self.engine = engine
        self.token = matrix(vocabulary, WIDTH)
        self.position = matrix(CONTEXT, WIDTH)
        self.query, self.key, self.value, self.mix = [matrix(WIDTH, WIDTH) for _ in range(4)]
        self.up = matrix(4 * WIDTH, WIDTH)
        self.down = matrix(WIDTH, 4 * WIDTH)
        self.out = matrix(vocabulary, WIDTH)

    def matrices(self):
        return [self.token, self.position, self.query, self.key, self.value, self.mix, self.up,
                self.down, self.out]

    def parameters(self):
        return [value for matrix in self.matrices() for row in matrix for value in row]

    def rmsnorm(self, x):
        scale = (self.engine.dot(x, x) / WIDTH + 1e-5) ** -0.5
        return [xi * scale for xi in x]

    def attention(self, query, keys, values):
        """One head: the earlier values, weighted by the fit of their keys to the query.

        A row of `keys` is a position; a row of `values` is a component at all positions.
        """
        weights = self.engine.softmax(self.engine.matvec(keys, query))
        return self.engine.matvec(values, weights)

    def logits(self, token, keys, values):
        """Logits of the next token. Adds the key and the value of this token to the earlier ones."""
        linear, rmsnorm = self.engine.matvec, self.rmsnorm
        position = len(keys[0])
        x = add(self.engine.take(self.token, token), self.position[position])
        x = rmsnorm(x)

        residual = x
        x = rmsnorm(x)
        query, key, value = linear(self.query, x), linear(self.key, x), linear(self.value, x)
        scale = HEAD_WIDTH**-0.5
        query = [q * scale for q in query]
        for row, v in zip(values, value):
            row.append(v)
        heads = []
        for part, head_keys in zip(PARTS, keys):
            head_keys.append(key[part])
            heads += self.attention(query[part], head_keys, values[part])
        x = add(linear(self.mix, heads), residual)

        residual = x
        x = [h.relu() for h in linear(self.up, rmsnorm(x))]
        x = add(linear(self.down, x), residual)
        return linear(self.out, x)

    def loss(self, tokens):
        """Mean of -log(p) over the tokens after the first."""
        cache = new_cache()
        losses = []
        for token, target in zip(tokens, tokens[1:]):
            p = self.engine.softmax(self.logits(token, *cache))
            losses.append(-self.engine.take(p, target).log())
        return sum(losses[1:], losses[0]) / len(losses)

    def sample(self, end, rng):
        """Tokens of a new name: drawn one after the other until `end`, or until there are `LONGEST`."""
        cache = new_cache()
        tokens = [end]
        while len(tokens) <= LONGEST:
            logits = self.logits(tokens[-1], *cache)
            p = self.engine.softmax([logit / TEMPERATURE for logit in logits])
            [token] = rng.choices(range(len(p)), [pi.data for pi in p])
            if token == end:
                break
            tokens.append(token)
        return tokens[1:]


# Training.

def train(model, documents, steps):
    """Yield the loss of each step, before its backward pass.

    Parameters
    ----------
    model : GPT
    documents : list of list of int
        Tokens, with the begin/end token at both ends. Each step uses one document, in turn.
    steps : int
        The number of steps; the learning rate falls linearly over them.

    Yields
    ------
    Value
        The loss with its graph; the backward pass runs when the generator continues.
    """
    optimizer = model.engine.Adam(model.parameters(), LEARNING_RATE, BETAS, EPS)
    for step in range(steps):
        loss = model.loss(documents[step % len(documents)])
        yield loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.lr = LEARNING_RATE * (1 - step / steps)
        optimizer.step()


def count_nodes(root):
    """The number of Values on which `root` depends, including `root`."""
    seen = {root}
    stack = [root]
    while stack:
        for child in stack.pop()._children:
            if child not in seen:
                seen.add(child)
                stack.append(child)
    return len(seen)


# The command.

def module_names():
    """Names of the standard library's modules that consist of lowercase letters and underscores."""
    letters = set(string.ascii_lowercase + "_")
    return [name[:LONGEST] for name in sorted(sys.stdlib_module_names) if letters.issuperset(name)]


def read_names(file):
    """The lines of the file, stripped; empty lines are left out, and long lines are cut."""
    with open(file, encoding="utf-8-sig") as lines:
        names = [line.strip()[:LONGEST] for line in lines if line.strip()]
    if not names:
        raise ValueError("no names in it; expected one per line")
    return names


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


def whole_number(least):
    def parse(text):
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or number < least:
            raise argparse.ArgumentTypeError(
                f"{text!r}: expected a whole number, at least {least}")
        return number
    return parse


def parse_arguments():
    parser = Parser(
        description="Train a character-level GPT, built from scalars, on a list of names, then let "
                    "it make up new ones. Prints the loss (mean of -log p, in nats) of every tenth "
                    "step: each is of another name, so it jumps about.")
    parser.add_argument("--data", metavar="FILE",
                        help="text file, one name per line, in UTF-8; of a longer line the first "
                             f"{LONGEST} characters are taken (default: names of Python's "
                             "standard-library modules)")
    parser.add_argument("--steps", type=whole_number(1), default=200,
                        help="training steps, one name each (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=42,
                        help="of the order of the names, the initial parameters and the samples "
                             "(default: %(default)s)")
    parser.add_argument("--samples", type=whole_number(0), default=5,
                        help="names to make up at the end (default: %(default)s)")
    parser.add_argument("--engine", choices=["flatgrad", "python"], default="flatgrad",
                        help="class to compute with: flatgrad's Value, or the one in "
                             "pure_value.py (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        names = module_names() if arguments.data is None else read_names(arguments.data)
    except OSError as error:
        parser.error(f"argument --data: {arguments.data}: {error.strerror}")
    except UnicodeDecodeError:
        parser.error(f"argument --data: {arguments.data}: not UTF-8 text")
    except ValueError as error:
        parser.error(f"argument --data: {arguments.data}: {error}")
    return arguments, names


def main():
    arguments, names = parse_arguments()
    engine = load_engine(arguments.engine)
    rng = random.Random(arguments.seed)
    rng.shuffle(names)
    characters = sorted(set("".join(names)))
    number = {character: i for i, character in enumerate(characters)}
    end = len(characters)   # the token at the beginning and the end of a name
    documents = [[end] + [number[c] for c in name] + [end] for name in names]
    model = GPT(engine, len(characters) + 1, rng)
    print(f"{len(names)} names of {len(characters)} different characters")
    print(f"{len(model.parameters())} parameters")

    print(f"{count_nodes(model.loss(documents[0]))} nodes in the graph of the first name, "
          f"{names[0]!r}", flush=True)

    start = time.perf_counter()
    for step, loss in enumerate(train(model, documents, arguments.steps), 1):
        if step == 1 or step % 10 == 0 or step == arguments.steps:
            print(f"step {step:4d}  loss {loss.data:.4f}", flush=True)
    seconds = time.perf_counter() - start
    print(f"{seconds:.2f} s, {1000 * seconds / arguments.steps:.1f} ms a step")

    for _ in range(arguments.samples):
        print("sample:", "".join([characters[token] for token in model.sample(end, rng)]))


if __name__ == "__main__":
    main()
