# %% [markdown]
# # A GPT in scalars, then compiled
#
# A GPT reads a text character by character and predicts the next character. The one of this notebook has all parts of
# the large ones (embeddings, attention in several heads, a ReLU network, residual connections) and is written with
# single numbers in Python's lists, in some 60 lines. It learns the names of the chemical elements, and then makes up
# new ones. At the end a single decorator makes it faster.
#
# ## The data
#
# Each name is a list of numbers, one for each character, with the number `END` on both sides.

# %%
import random

NAMES = """
hydrogen helium lithium beryllium boron carbon nitrogen oxygen fluorine neon sodium magnesium aluminium silicon
phosphorus sulfur chlorine argon potassium calcium scandium titanium vanadium chromium manganese iron cobalt nickel
copper zinc gallium germanium arsenic selenium bromine krypton rubidium strontium yttrium zirconium niobium
molybdenum technetium ruthenium rhodium palladium silver cadmium indium tin antimony tellurium iodine xenon caesium
barium lanthanum cerium praseodymium neodymium promethium samarium europium gadolinium terbium dysprosium holmium
erbium thulium ytterbium lutetium hafnium tantalum tungsten rhenium osmium iridium platinum gold mercury thallium
lead bismuth polonium astatine radon francium radium actinium thorium protactinium uranium neptunium plutonium
americium curium berkelium californium einsteinium fermium mendelevium nobelium lawrencium rutherfordium dubnium
seaborgium bohrium hassium meitnerium darmstadtium roentgenium copernicium nihonium flerovium moscovium livermorium
tennessine oganesson
""".split()

letters = sorted(set("".join(NAMES)))
END = len(letters)
documents = [[END, *map(letters.index, name), END] for name in NAMES]
random.Random(1).shuffle(documents)
print(len(NAMES), "names of", len(letters), "different letters, the longest of", max(map(len, NAMES)))

# %% [markdown]
# ## The model
#
# A vector is a list of Values, a matrix is a list of rows. `matvec` multiplies a matrix and a vector, `take(list, k)`
# is `list[k]`, and `softmax` makes positive numbers that add up to 1. Each is one node of the graph, but you could
# write it with `+`, `*` and `exp`.
#
# `logits` is one step in time. Attention looks back: `keys` and `values` hold what earlier characters have left
# there, and the softmax of how well the query fits each key says how much each of them counts.

# %%
from flatgrad import Value, dot, matvec, softmax, take

WIDTH, HEADS, CONTEXT = 16, 4, 16
PARTS = [slice(h * WIDTH // HEADS, (h + 1) * WIDTH // HEADS) for h in range(HEADS)]

def add(a, b):
    return [x + y for x, y in zip(a, b)]

def norm(x):
    scale = (dot(x, x) / WIDTH + 1e-5) ** -0.5
    return [xi * scale for xi in x]

class GPT:
    def __init__(self, vocabulary, rng):
        def matrix(rows, columns):
            return [[Value(rng.gauss(0.0, 0.08)) for _ in range(columns)] for _ in range(rows)]

        self.token, self.position = matrix(vocabulary, WIDTH), matrix(CONTEXT, WIDTH)
        self.query, self.key, self.value, self.mix = (matrix(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = matrix(4 * WIDTH, WIDTH), matrix(WIDTH, 4 * WIDTH)
        self.out = matrix(vocabulary, WIDTH)

    def parameters(self):
        return [p for matrix in vars(self).values() for row in matrix for p in row]

    def logits(self, token, keys, values):
        x = norm(add(take(self.token, token), self.position[len(keys)]))
        h = norm(x)
        query = [q * (WIDTH // HEADS) ** -0.5 for q in matvec(self.query, h)]
        keys.append(matvec(self.key, h))
        values.append(matvec(self.value, h))
        looked_up = []
        for part in PARTS:
            weights = softmax(matvec([key[part] for key in keys], query[part]))
            looked_up += matvec(list(zip(*(value[part] for value in values))), weights)
        x = add(x, matvec(self.mix, looked_up))
        hidden = [u.relu() for u in matvec(self.up, norm(x))]
        return matvec(self.out, add(x, matvec(self.down, hidden)))

    def loss(self, tokens):
        """The mean of -log(probability) of the tokens after the first."""
        keys, values, total = [], [], 0.0
        for token, following in zip(tokens, tokens[1:]):
            total = total - take(softmax(self.logits(token, keys, values)), following).log()
        return total / (len(tokens) - 1)

model = GPT(END + 1, random.Random(1))
first = model.loss(documents[0])
print(len(model.parameters()), "parameters")
print(f"loss {first.data:.3f}; a guess without knowledge would have {Value(END + 1).log().data:.3f}")

# %% [markdown]
# ## Training
#
# Each step takes one name, and Adam takes a step for all parameters.

# %%
import time
from statistics import median

from flatgrad.optim import Adam

STEPS = 500

def train(model):
    optimizer, losses = Adam(model.parameters(), lr=0.01, betas=(0.85, 0.99)), []
    seconds = []
    for step in range(STEPS):
        start = time.perf_counter()
        loss = model.loss(documents[step % len(documents)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.lr = 0.01 * (1.0 - step / STEPS)
        optimizer.step()
        losses.append(loss.data)
        seconds.append(time.perf_counter() - start)
    return losses, median(seconds)

losses, seconds = train(model)
for k in range(0, STEPS, 100):
    print(f"steps {k:3} to {k + 99:3}: mean loss {sum(losses[k:k + 100]) / 100:.2f}")
print(f"{1e3 * seconds:.2f} ms a step")

# %% [markdown]
# ## New elements
#
# Characters are drawn one after the other, with the probabilities that the model gives; the temperature makes likely
# ones even likelier. The letters that come out depend on the last digits of 4,000 parameters, so yours may differ.

# %% varies
def sample(model, rng, temperature=0.5):
    keys, values, tokens = [], [], [END]
    while len(tokens) < CONTEXT:
        probabilities = softmax([l / temperature for l in model.logits(tokens[-1], keys, values)])
        [token] = rng.choices(range(END + 1), [p.data for p in probabilities])
        if token == END:
            break
        tokens.append(token)
    return "".join(letters[token] for token in tokens[1:])

rng = random.Random(1)
print(*(sample(model, rng) for _ in range(10)))

# %% [markdown]
# ## The same, compiled
#
# `flatgrad.compile` runs the function once, records what it computes as a program, and replays the program in C from
# then on. A program is made for each length of a name. For this, what differs between names has to be an argument, or
# be looked up by `take`: the model above does so already. The losses are the same.

# %%
import flatgrad

class Compiled(GPT):
    @flatgrad.compile
    def loss(self, tokens):
        return super().loss(tokens)

compiled = Compiled(END + 1, random.Random(1))
compiled_losses, compiled_seconds = train(compiled)
print("greatest difference of a loss below 1e-6:",
      max(abs(a - b) for a, b in zip(losses[:100], compiled_losses)) < 1e-6)
print(f"{compiled.loss.cache_info().currsize} programs, one for each length")
print(f"{1e3 * seconds:.2f} ms a step, compiled {1e3 * compiled_seconds:.2f} ms")

# %% [markdown]
# What a program can do besides (whole training loops in C, many samples at once, export as C or for JAX and PyTorch)
# is on the page "Programs" of the documentation. `examples/scalar_gpt.py` is a longer version of this model, which
# also runs without flatgrad, for comparison.
