"""Other libraries on the problems of the suite `python -m bench --programs` that `peers` does not have: the GPT, the
pendulums, and loops without a record of losses."""
import numpy as np

from bench import peers
from bench.peers import Trainer
from bench.runner import Contender, repeated, repeated_after

__all__ = ["jax_fori_contender", "jax_names_scan_trainer", "jax_names_trainer", "jax_pendulum_contender",
           "torch_names_trainer", "torch_pendulum_contender"]


def jax_fori_contender(problem, checked):
    """The training of a `workloads.Problem` in one `fori_loop`, at its first learning rate; only the last loss is
    known. `checked`: the steps whose losses are compared, each from a loop of its own length."""
    j, step, new, parameters = peers.jax_step(problem)
    rate, steps = problem.rates[0], len(problem.rates)

    def body(_, carry):
        return step(carry[0], rate)
    loop = j.jit(lambda p, count: j.lax.fori_loop(0, count, body, (p, 0.0)))

    def results():
        state = new()[0]
        numbers = {}
        for k in range(checked):
            state, loss = loop(state, 1)
            numbers[f"loss of step {k}"] = float(loss)
        return numbers | {f"parameter {k}": float(p) for k, p in enumerate(parameters([state]))}
    loop(new()[0], 1)   # compiled for any number of steps
    return Contender("jax fori_loop", repeated_after(lambda: new()[0], lambda p: j.block_until_ready(loop(p, steps))),
                     results, units=steps)


# ---- the GPT ----

def gpt_losses(np_like, softmax, relu, masked, m, tokens):
    """-log(p) of each next token of a document, by the operators and functions of a library. `m` has the matrices."""
    length = len(tokens) - 1

    def rmsnorm(x):
        return x * ((x * x).mean(-1)[:, None] + 1e-5) ** -0.5

    x = rmsnorm(m["token"][tokens[:-1]] + m["position"][:length])
    y = rmsnorm(x)
    query, key, value = ((y @ m[name].T).reshape(length, 4, 4).swapaxes(0, 1) for name in ("query", "key", "value"))
    weights = softmax(masked(query @ key.swapaxes(1, 2) * 0.5))
    x = (weights @ value).swapaxes(0, 1).reshape(length, 16) @ m["mix"].T + x
    x = relu(rmsnorm(x) @ m["up"].T) @ m["down"].T + x
    p = softmax(x @ m["out"].T)
    return -np_like.log(p[np.arange(length), tokens[1:]])


def jax_names_step(problem):
    """The step as a function of the state and a batch. All parameters are in one array, which makes Adam cheaper."""
    j = peers.jax()
    jnp = j.numpy
    length = problem.documents.shape[1] - 1
    lower = jnp.tril(jnp.ones((length, length), bool))

    def loss(flat, documents):
        m = problem.matrices(flat)
        return j.vmap(lambda tokens: gpt_losses(jnp, j.nn.softmax, j.nn.relu,
                                                lambda fits: jnp.where(lower, fits, -jnp.inf), m, tokens).mean())(
            documents).mean()

    def step(state, batch):
        flat, mean, square, count = state
        documents, rate = batch
        value, grad = j.value_and_grad(loss)(flat, documents)
        mean, square, count = 0.85 * mean + 0.15 * grad, 0.99 * square + (1 - 0.99) * grad * grad, count + 1
        root = jnp.sqrt(square / (1 - 0.99**count))
        return (flat - rate * (mean / (1 - 0.85**count)) / (root + 1e-8), mean, square, count), value

    def new():
        zeros = jnp.zeros(len(problem.initial))
        return [(jnp.asarray(problem.initial), zeros, zeros, jnp.asarray(0.0))]

    return j, step, new, lambda state: np.asarray(state[0][0])


def jax_names_trainer(problem):
    """One compiled call for each step."""
    j, step, new, parameters = jax_names_step(problem)
    batches = [(j.numpy.asarray(batch), j.numpy.asarray(rate))
               for batch, rate in zip(problem.batches(len(problem.rates)), problem.rates)]
    return peers.stepped(j, "jax", step, batches, new, parameters)


def jax_names_scan_trainer(problem):
    """One call for all steps."""
    j, step, new, parameters = jax_names_step(problem)
    loop = j.jit(lambda state, batches: j.lax.scan(step, state, batches))
    batches = j.numpy.asarray(problem.batches(len(problem.rates))), np.array(problem.rates)

    def run(state, steps):
        state[0], losses = j.block_until_ready(loop(state[0], (batches[0][:steps], batches[1][:steps])))
        return losses

    compiling = peers.seconds_of(lambda: run(new(), len(problem.rates)))
    return Trainer("jax scan", new, run, parameters, note=f"{compiling:.1f} s to compile")


def torch_names_trainer(problem):
    """PyTorch without compilation, a document at a time, with its own Adam."""
    t = peers.torch()
    batches = t.from_numpy(problem.batches(len(problem.rates)).astype(np.int64))
    length = batches.shape[2] - 1
    upper = t.full((length, length), -t.inf, dtype=t.float64).triu(1)

    def new():
        m = {name: t.from_numpy(x.copy()).requires_grad_() for name, x in problem.matrices(problem.initial).items()}
        return m, t.optim.Adam(m.values(), lr=problem.rates[0], betas=(0.85, 0.99), eps=1e-8)

    def run(state, steps):
        m, optimizer = state
        found = []
        for k in range(steps):
            losses = [gpt_losses(t, lambda x: t.softmax(x, -1), t.relu, lambda fits: fits + upper, m, document)
                      for document in batches[k]]
            loss = t.stack(losses).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = problem.rates[k]
            optimizer.step()
            found.append(loss.detach())
        return found

    return Trainer("torch", new, run,
                   lambda state: np.concatenate([x.detach().numpy().ravel() for x in state[0].values()]))


# ---- the pendulums ----

def jax_pendulum_contender(task):
    """A scan over the steps, its gradient, mapped over the trajectories and compiled."""
    j = peers.jax()
    x, v, *constants = [j.numpy.asarray(row) for row in task.numbers]

    def loss(constants, x, v):
        def body(state, _):
            return task.step(*state, *constants, j.numpy.sin), None
        (x, v), _ = j.lax.scan(body, (x, v), None, length=task.steps)
        return task.loss(x, v)
    function = j.jit(j.vmap(j.value_and_grad(loss)))

    def work():
        return j.block_until_ready(function(constants, x, v))
    compiling = peers.seconds_of(work)
    return Contender("jax", repeated(work), lambda: task.results(*work()), units=task.count), (
        f"{compiling:.1f} s to compile")


def torch_pendulum_contender(task):
    """Tensors of all trajectories, step by step."""
    t = peers.torch()
    x0, v0, *rows = [t.from_numpy(row) for row in task.numbers]

    def work():
        constants = [row.clone().requires_grad_() for row in rows]
        x, v = x0, v0
        for _ in range(task.steps):
            x, v = task.step(x, v, *constants, t.sin)
        losses = task.loss(x, v)
        losses.sum().backward()
        return losses.detach(), [c.grad for c in constants]
    return Contender("torch", repeated(work), lambda: task.results(*work()), units=task.count)
