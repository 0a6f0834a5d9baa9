"""The training loop.

A step costs what it costs by hand: `fit` makes the Tensors of samples and targets beforehand, and between
two steps it only counts. What it may have to do besides, validation, metrics, callbacks and the progress
bar, is paid for when asked for.
"""
import contextlib
import math
import random
import time
from functools import partial

import numpy as np

from flatgrad import losses
from flatgrad._core import Tensor, Value, no_grad, recording
from flatgrad.arguments import finite, finite_array, flag, one_of, path_of, shortened, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, DivergedError, StateError
from flatgrad.nn.module import Module
from flatgrad.train.callbacks import Callbacks, checked, checked_states, epoch_number
from flatgrad.train.checkpoint import load_tree, save_tree, size_of
from flatgrad.train.history import History
from flatgrad.train.metrics import accuracy, column, metrics_by_name
from flatgrad.train.progress import Interrupts, progress_of
from flatgrad.train.samples import Task, array_of, constant

__all__ = ["Trainer"]

CHUNK = 4096   # rows that go through a model at once when nothing is learnt from them
RESERVED = ("loss", "learning_rate", "time", "epoch", "epochs", *(name for name in dir(History) if name[0] != "_"))


class Trainer:
    """Fits a model to samples.

    Parameters
    ----------
    model : Module
        Or any callable that takes a batch, `(n_samples, n_features)`, and has ``parameters()``.
    optimizer : Optimizer
        Of the model's parameters.
    loss : str or callable
        A name in `flatgrad.losses.LOSSES`, or ``loss(prediction, target)``, which returns a Value. The
        target is a constant Tensor of the shape of the prediction, or an array of int64 if it is labels.
    metrics : sequence of str and callable, or dict of str to these, optional
        Names in `flatgrad.train.METRICS`, or functions ``(prediction, target) -> float`` of arrays,
        which have one axis if there is a single output.
    scheduler : optional
        Of `flatgrad.optim.lr_scheduler`. `ReduceLROnPlateau` gets the validation loss, or the loss if there
        is no validation.
    penalty : callable, optional
        ``penalty(parameters)``, a Value that is added to the loss of each batch; with
        `flatgrad.losses.l2`, for example, ``lambda parameters: 1e-4 * l2(parameters)``.
    scheduler_interval : {'epoch', 'batch'}, optional
        After what the scheduler steps.

    Attributes
    ----------
    history : History
        Of all epochs so far. Each `fit` goes on with it.
    epoch : int
        How many epochs are done.
    seed : int or None
        What the order of samples depends on; None before the first `fit`.
    stopped : str or None
        Why the last `fit` has ended before its number of epochs.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the optimizer has none of the model's parameters.

    Examples
    --------
    >>> from flatgrad.datasets import make_moons
    >>> from flatgrad.nn import MLP
    >>> from flatgrad.optim import Adam
    >>> from flatgrad.train import Trainer
    >>> import random
    >>> random.seed(1337)
    >>> X, y = make_moons(100, noise=0.1, random_state=1)
    >>> model = MLP(2, [16, 16, 1])
    >>> trainer = Trainer(model, Adam(model.parameters(), lr=0.05), "hinge", metrics=["accuracy"])
    >>> history = trainer.fit(X, 2 * y - 1, epochs=100, progress=False)
    >>> len(history), history.accuracy[-1]
    (100, 1.0)
    >>> trainer.predict([[0.0, 1.0], [1.0, -0.5]]) > 0
    array([False,  True])
    """

    def __init__(self, model, optimizer, loss, metrics=(), scheduler=None, *, penalty=None, scheduler_interval="epoch"):
        if not callable(model) or not hasattr(model, "parameters"):
            raise ArgumentTypeError(f"model: expected a Module, got {model!r}")
        if isinstance(optimizer, type) or not all(callable(getattr(optimizer, name, None))
                                                  for name in ("step", "zero_grad")):
            raise ArgumentTypeError("optimizer: expected an Optimizer, such as Adam(model.parameters()), got "
                                    f"{optimizer!r}")
        if isinstance(loss, str):
            loss = losses.LOSSES[one_of("loss", loss, losses.LOSSES)]
        elif not callable(loss) or isinstance(loss, type):
            raise ArgumentTypeError("loss: expected a name or a function of (prediction, target), such as "
                                    f"flatgrad.losses.mse or MSELoss(), got {loss!r}")
        if penalty is not None and not callable(penalty):
            raise ArgumentTypeError(f"penalty: expected None or a function of the parameters, got {penalty!r}")
        if scheduler is not None and not callable(getattr(scheduler, "step", None)) or isinstance(scheduler, type):
            raise ArgumentTypeError("scheduler: expected None or one of flatgrad.optim.lr_scheduler, got "
                                    f"{scheduler!r}")
        if getattr(scheduler, "optimizer", optimizer) is not optimizer:
            raise ArgumentError(f"scheduler: expected one of this optimizer, got one of {scheduler.optimizer!r}")
        check_parameters(model, optimizer)
        self.metrics = metrics_by_name(metrics, RESERVED)
        self.scheduler_interval = one_of("scheduler_interval", scheduler_interval, ("epoch", "batch"))
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.scheduler, self.penalty = scheduler, penalty
        self.history = History()
        self.epoch = 0
        self.seed = None
        self.stopped = None
        self.log_names = ()        # of what each epoch of the current fit puts into the history
        self._task = Task(model, loss)
        self._callbacks = Callbacks(())
        self._counted = []         # what callbacks have counted when the last fit ended

    # ---- training ----

    def fit(self, X, y, epochs, batch_size=None, shuffle=True, seed=None, validation=None, callbacks=(), progress=True):
        """Train for so many epochs more.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Finite.
        y : array_like of shape (n_samples,) or (n_samples, n_outputs)
            Finite; labels for losses that take such: from 0 to ``n_classes - 1``, or -1 and 1 for 'hinge'.
        epochs : int
            0 or more.
        batch_size : int, optional
            Samples for each step; the last batch may have fewer. None: all.
        shuffle : bool, optional
            Whether batches are drawn anew in each epoch. One batch of all samples is never reordered.
        seed : int, optional
            What that depends on, together with the number of the epoch. None: the seed of the last `fit`, or
            at first one from the system.
        validation : pair (X, y) or float, optional
            Samples to look at after each epoch, without learning from them. A number between 0 and 1: that
            fraction of the samples, drawn by `seed`; the last ones if `shuffle` is False.
        callbacks : sequence, optional
            `EarlyStopping`, `Checkpoint`, functions ``(trainer, epoch, logs)``, or what `Callback` describes.
        progress : bool, optional
            Whether to show a bar on stderr, by tqdm if it is installed, else a line every few seconds.

        Returns
        -------
        History
            The Trainer's: of all epochs so far, with those of this call. After a KeyboardInterrupt too: the
            model is then as the last complete step left it, and an epoch in which it came does not count.

        Raises
        ------
        ArgumentTypeError, ArgumentError, ShapeError, DataError, UnknownNameError
            If an argument is not as described. Model, optimizer and history are as they were.
        DivergedError
            If the loss of a batch is nan or inf; the model is as the step before it left it.

        Notes
        -----
        The loss and the metrics of an epoch are those of its batches as they were trained on, each before
        its step and in training mode: the loss as their mean, weighted by the number of samples. The
        penalty is part of the loss, in validation and `evaluate` as well. The model is in training mode
        while it is trained, in evaluation mode for validation, and then in that of before.
        """
        task = self._task
        epochs = whole("epochs", epochs)
        batch_size = None if batch_size is None else whole("batch_size", batch_size, 1)
        flag("shuffle", shuffle)
        flag("progress", progress)
        seed = self.seed if seed is None else whole("seed", seed)
        if seed is None:
            seed = np.random.SeedSequence().entropy
        modes = Modes(self.model)
        with modes:
            X, shape = task.inputs(X)
            y = task.targets(y, len(X), shape)
            X, y, X_val, y_val = self._validation(validation, X, y, shape, shuffle, seed)
            task.try_loss(X, y)
        callbacks = Callbacks(callbacks)
        names = ["loss", *self.metrics]
        self.log_names = (*names, *(f"val_{name}" for name in names if X_val is not None), "learning_rate", "time")
        for begin in callbacks.on_fit_begin:
            begin(self)
        callbacks.load(self._counted)
        self._callbacks, self.seed, self.stopped = callbacks, seed, None
        bar = progress_of(epochs) if progress and epochs else None
        first, logs = self.epoch, {}
        try:
            if callbacks.on_fit_begin:   # which may have done anything to the model
                modes = Modes(self.model)
            with recording(), modes, Interrupts() as interrupts:
                for logs in self._epochs(epochs, X, y, batch_size, shuffle, X_val, y_val, bar, modes, interrupts):
                    if bar is not None and time.perf_counter() >= bar.due:
                        bar.epoch(self.epoch - first, logs)
                    for end in callbacks.on_epoch_end:
                        end(self, self.epoch, logs)
                    if self.stopped is not None:
                        break
        except KeyboardInterrupt:
            self.stopped = "KeyboardInterrupt"
        finally:
            if bar is not None:
                bar.close(self.epoch - first, logs)
        for end in callbacks.on_fit_end:
            end(self)
        self._counted = callbacks.states()
        return self.history

    def stop(self, reason="stop() was called"):
        """End the current `fit` after this epoch: for callbacks.

        Parameters
        ----------
        reason : str, optional
            What `stopped` will say.
        """
        self.stopped = str(reason)

    def _epochs(self, epochs, X, y, batch_size, shuffle, X_val, y_val, bar, modes, interrupts):
        """The loop: train for an epoch, put its numbers into the history, and yield them."""
        model, task, loss, penalty = self.model, self._task, self.loss, self.penalty
        zero_grad, step = self.optimizer.zero_grad, self.optimizer.step
        parameters = model.parameters()
        batch_ends, epoch_begins = self._callbacks.on_batch_end, self._callbacks.on_epoch_begin
        measured = self.metrics and list(self._thresholds(y).items())
        by_batch = self.scheduler is not None and self.scheduler_interval == "batch"
        by_epoch = self.scheduler is not None and not by_batch
        n_samples = len(X)
        size = n_samples if batch_size is None else min(batch_size, n_samples)
        shuffle = shuffle and size < n_samples
        # Batches that stay are views of two Tensors. One that is drawn is Tensors of its own, for the time of its
        # step: the tape then gives back their nodes with those of the graph, and has nothing to collect.
        batches = None if shuffle else cut(task.batch(X, y), size, n_samples)
        validation = None if X_val is None else (cut(task.batch(X_val, y_val), CHUNK, len(X_val)), y_val)
        clock, isfinite = time.perf_counter, math.isfinite
        modes.set(True)
        seed = self.seed   # a callback may load another

        for epoch in range(self.epoch + 1, self.epoch + 1 + epochs):
            began = clock()
            for begin in epoch_begins:
                begin(self, epoch)
            target = y
            if shuffle:
                order = np.random.default_rng([seed, epoch]).permutation(n_samples)
                batches = cut((order,), size, n_samples)
                if measured:
                    target = y.take(order, axis=0)
            rate = self._learning_rate()
            mean = 0.0
            predictions = []
            for batch, (part, share) in enumerate(batches, 1):
                inputs, targets = task.batch(X.take(part[0], axis=0), y.take(part[0], axis=0)) if shuffle else part
                prediction = model(inputs)
                result = loss(prediction, targets)
                if penalty is not None:
                    result = result + penalty(parameters)
                number = result.data
                if not isfinite(number):
                    raise self._diverged(number, epoch, batch, len(batches))
                zero_grad()
                result.backward()
                interrupts.held = True
                step()
                if by_batch:
                    self.scheduler.step()
                interrupts.held = False
                if interrupts.pending:
                    raise KeyboardInterrupt
                mean += number * share
                if measured:
                    predictions.append(array_of(prediction))
                del prediction, result, inputs, targets   # the graph, before the next one is made
                for end in batch_ends:
                    end(self, batch, number)
                if bar is not None and batch < len(batches) and clock() >= bar.due:
                    bar.batch(batch, len(batches))
            logs = {"loss": mean}
            if measured:
                whole_prediction = predictions[0] if len(predictions) == 1 else np.concatenate(predictions)
                for name, metric in measured:
                    logs[name] = float(metric(whole_prediction, column("target", target)))
            if validation is not None:
                modes.set(False)
                logs.update((f"val_{name}", value) for name, value in self._measure(*validation).items())
                modes.set(True)
            interrupts.held = True
            if by_epoch:
                self._step_scheduler(logs)
            logs["learning_rate"] = rate
            logs["time"] = clock() - began
            self.history.append(epoch, logs)
            self.epoch = epoch
            interrupts.held = False
            if interrupts.pending:
                raise KeyboardInterrupt
            yield logs

    def _validation(self, validation, X, y, shape, shuffle, seed):
        """(X, y) to train on, and to validate with or None twice."""
        if validation is None:
            return X, y, None, None
        if isinstance(validation, (tuple, list)):
            if len(validation) != 2:
                raise ArgumentTypeError(f"validation: expected a pair (X, y), got {len(validation)} items")
            X_val, _ = self._task.inputs(validation[0], "validation[0]", X.shape[1])
            return X, y, X_val, self._task.targets(validation[1], len(X_val), shape, "validation[1]")
        fraction = finite("validation", validation, "None, a pair (X, y) or a number between 0 and 1")
        if not 0.0 < fraction < 1.0:
            raise ArgumentError("validation: expected None, a pair (X, y) or a number between 0 and 1, got "
                                f"{validation!r}")
        n = len(X)
        held_out = max(1, round(fraction * n))
        if held_out >= n:
            raise DataError(f"validation: expected a fraction that leaves samples to train on, got {validation!r} of "
                            f"{n} sample{'s' * (n != 1)}")
        # Epochs count from 1: no order of samples is drawn by 0.
        order = np.random.default_rng([seed, 0]).permutation(n) if shuffle else np.arange(n)
        kept, held = np.sort(order[:n - held_out]), np.sort(order[n - held_out:])
        return X[kept], y[kept], X[held], y[held]

    def _measure(self, batches, y):
        """The loss and the metrics of samples that nothing is learnt from."""
        loss, predictions = 0.0, []
        with no_grad():
            for (inputs, targets), share in batches:
                prediction = self.model(inputs)
                loss += self.loss(prediction, targets).data * share
                predictions.append(array_of(prediction))
            if self.penalty is not None:
                loss += float_of(self.penalty(self.model.parameters()))
        whole_prediction = predictions[0] if len(predictions) == 1 else np.concatenate(predictions)
        return {"loss": loss, **{name: float(metric(whole_prediction, column("target", y)))
                                 for name, metric in self._thresholds(y).items()}}

    def _thresholds(self, y):
        """The metrics, `accuracy` with the threshold that goes with the loss."""
        kind = self._task.kind
        probable = kind == "binary_cross_entropy" or kind in ("mse", "mae", "huber") and y.min() >= 0
        threshold = None if kind is None else 0.5 if probable else 0.0
        return {name: (lambda prediction, target: accuracy(prediction, target, threshold)) if metric is accuracy
                else metric for name, metric in self.metrics.items()}

    def _learning_rate(self):
        groups = getattr(self.optimizer, "param_groups", None)
        return float(groups[0]["lr"]) if groups else math.nan

    def _step_scheduler(self, logs):
        from flatgrad.optim import lr_scheduler

        if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(logs.get("val_loss", logs["loss"]))
        else:
            self.scheduler.step()

    def _diverged(self, number, epoch, batch, n_batches):
        place = f"epoch {epoch}" + (f", batch {batch} of {n_batches}" if n_batches > 1 else "")
        rate = self._learning_rate()
        error = DivergedError(
            f"loss: expected a finite number, got {number} in {place}; the model is as the step before left it. A "
            f"learning rate below {rate:g}, scaled features or clipped gradients may help")
        error.epoch, error.history = epoch, self.history
        return error

    # ---- what comes of it ----

    def predict(self, X):
        """What the model returns, in evaluation mode.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            Finite.

        Returns
        -------
        ndarray of float64, shape (n_samples,) or (n_samples, n_outputs)
            One axis if there is one output. Scores and logits are as the model gives them.

        Raises
        ------
        TypeError, ValueError
            If `X` is not as described, or the model does not take it.
        """
        with Modes(self.model), no_grad():
            X, shape = self._task.inputs(X)
            result = [array_of(self.model(constant(X[k:k + CHUNK]))) for k in range(0, len(X), CHUNK)]
        return result[0] if len(result) == 1 else np.concatenate(result)

    def predict_single(self, x):
        """What the model returns for one sample.

        Parameters
        ----------
        x : array_like of shape (n_features,)
            Finite.

        Returns
        -------
        float, or ndarray of shape (n_outputs,)
            A float if there is one output.

        Raises
        ------
        TypeError, ValueError
            If `x` is not as described, or the model does not take it.
        """
        x = finite_array("x", x, 1)
        if len(x) == 0:
            raise DataError("x: expected one feature at least, got none")
        with Modes(self.model), no_grad():
            X, _ = self._task.inputs(x[None, :], "x")
            result = array_of(self.model(constant(X)))[0]
        return float(result) if np.ndim(result) == 0 else result

    def evaluate(self, X, y):
        """The loss and the metrics, in evaluation mode.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
        y : array_like of shape (n_samples,) or (n_samples, n_outputs)
            As for `fit`.

        Returns
        -------
        dict of str to float
            ``'loss'``, the penalty included, and the metrics by their names.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.
        """
        with Modes(self.model):
            X, shape = self._task.inputs(X)
            y = self._task.targets(y, len(X), shape)
            self._task.try_loss(X, y)
            return self._measure(cut(self._task.batch(X, y), CHUNK, len(X)), y)

    # ---- saving ----

    def save(self, path):
        """Write all that it takes to go on from here to a file of NumPy's format ``.npz``, whole or not at all.

        The model, the optimizer and the scheduler by their state dicts, the random generators in the
        model's modules, the history, the seed, and what callbacks have counted. No pickle.

        Parameters
        ----------
        path : str or path-like
            Taken as it is: no ending is added.

        Raises
        ------
        OSError
            If the file cannot be written; what was there before is as it was.
        TypeError
            If model, optimizer or scheduler have no ``state_dict()``, or something in it that is no
            number, text or array.
        """
        save_tree(path, self._state())

    def load(self, path):
        """Go on from where `save` was called, bit for bit: a `fit` of the rest of the epochs, with the same
        samples and arguments, ends where one `fit` of all would have.

        Parameters
        ----------
        path : str or path-like

        Returns
        -------
        Trainer
            This one.

        Raises
        ------
        OSError
            If the file cannot be read.
        StateError
            If it is not such a file, or of another architecture, optimizer or scheduler, or has something in it
            that no Trainer has saved. All is as it was.
        """
        path = path_of("path", path)
        own = self._state()
        # No more of a compressed file than a checkpoint of this Trainer may need.
        tree = load_tree(path, 2**24 + 64 * size_of(own))
        try:
            self._load(tree, own)
        except MemoryError:
            raise
        except Exception as error:   # of a part of the user's own, it may be any
            said = str(error) if isinstance(error, StateError) else f"a damaged checkpoint: {error!r}"
            raise StateError(f"{path}: {said}") from error
        return self

    def _state(self):
        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        for name, part in parts.items():
            if part is not None and not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
                raise ArgumentTypeError(f"{name}: expected one with state_dict() and load_state_dict(), got {part!r}")
        running = self._callbacks.states() or self._counted
        return {
            **{name: None if part is None else part.state_dict() for name, part in parts.items()},
            "classes": {name: type(part).__name__ for name, part in parts.items()},
            "generators": {name: state_of(rng) for name, rng in generators(self.model)},
            "history": {name: np.array(numbers) for name, numbers in self.history.metrics.items()},
            "epochs": np.array(self.history.epochs, np.int64),
            "epoch": self.epoch, "seed": self.seed, "callbacks": list(running),
        }

    def _load(self, tree, own):
        """Take over what `_state` gave; on any error all is as `own`, which it gives now."""
        expect_dict("the checkpoint", tree, own)
        expect_dict("classes", tree["classes"], own["classes"])
        for name in ("optimizer", "scheduler"):
            kind = tree["classes"][name]
            if kind != own["classes"][name]:
                raise StateError(f"{name}: expected the state of {article(own['classes'][name])}, got that of "
                                 f"{article(kind) if isinstance(kind, str) else repr(kind)}")
        rngs = dict(generators(self.model))
        if not isinstance(tree["generators"], dict) or rngs.keys() != tree["generators"].keys():
            given = tree["generators"]
            raise StateError(f"model: expected the generators {list(rngs)}, got "
                             f"{list(given) if isinstance(given, dict) else shortened(given)}")
        epoch = epoch_number("epoch", tree["epoch"])
        seed = None if tree["seed"] is None else checked(whole, "seed", tree["seed"])
        history = history_from(tree["epochs"], tree["history"], epoch)
        counted = checked_states(tree["callbacks"], tree["model"])
        for name, rng in rngs.items():
            check_generator(f"generators[{name!r}]", rng, tree["generators"][name])
        parts = [(part.load_state_dict, tree[name], own[name]) for name, part in
                 (("model", self.model), ("optimizer", self.optimizer), ("scheduler", self.scheduler))
                 if part is not None]
        parts += [(partial(set_state, rng), tree["generators"][name], own["generators"][name])
                  for name, rng in rngs.items()]
        begun = []
        try:
            for load, state, before in parts:
                begun.append((load, before))
                load(state)
            (self.history, self.epoch, self.seed, self._callbacks,
             self._counted) = history, epoch, seed, Callbacks(()), counted
        except BaseException:
            for load, before in begun:   # in this order, as a scheduler looks at its optimizer
                with contextlib.suppress(BaseException):   # the first error is the one to be told
                    load(before)
            raise

    def __repr__(self):
        return (f"Trainer({type(self.model).__name__}, {self.optimizer!r}, "
                f"{getattr(self.loss, '__name__', repr(self.loss))}; {self.epoch} epochs done)")


class Modes:
    """A context that puts a model's modules into training and evaluation mode, and at its end as they were."""

    def __init__(self, model):
        self.model = model
        self.modules = model.modules() if isinstance(model, Module) else []
        self.before = []
        # Looking for the modules takes longer than a small model's step: done once, unless the model has its own way.
        self.own_way = type(model).train is not Module.train or type(model).eval is not Module.eval \
            if self.modules else False

    def set(self, training):
        if self.own_way:
            self.model.train() if training else self.model.eval()
            return
        for module in self.modules:
            if module.training is not training:
                module.training = training

    def __enter__(self):
        self.before = [module.training for module in self.modules]
        self.set(False)
        return self

    def __exit__(self, *exception):
        for module, mode in zip(self.modules, self.before):
            if module.training is not mode:
                module.training = mode


def cut(whole, size, n_samples):
    """The batches, pairs (parts of Tensors and arrays, share of the samples)."""
    if size >= n_samples:
        return [(whole, 1.0)]
    return [([x[k:k + size] for x in whole], (min(k + size, n_samples) - k) / n_samples)
            for k in range(0, n_samples, size)]


def check_parameters(model, optimizer):
    """Whether the optimizer, if it says what it has, has some of the model's parameters."""
    groups = getattr(optimizer, "param_groups", None)
    if not groups:
        return
    own = model.parameters()   # held, and so is what they are compared with: ids of what is gone mean nothing
    given = [p for group in groups for params in group["params"]
             for p in (flat(params) if isinstance(params, Tensor) else [params])]
    if own and {id(p) for p in own}.isdisjoint(map(id, given)):
        raise ArgumentError("optimizer: expected one of the model's parameters, got one that has none of them")


def flat(tensor):
    return list(tensor.reshape(-1))


def float_of(x):
    return x.data if isinstance(x, Value) else float(x)


def article(name):
    return "none" if name == "NoneType" else f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"


def generators(model):
    """(path, generator) of the random generators in the attributes of a model's modules."""
    if isinstance(model, Module):
        for path, module in model.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, (np.random.Generator, random.Random)):
                    yield f"{path}.{name}" if path else name, value


def state_of(rng):
    return rng.getstate() if isinstance(rng, random.Random) else rng.bit_generator.state


def set_state(rng, state):
    if isinstance(rng, random.Random):
        rng.setstate(state)
    else:
        rng.bit_generator.state = state


# ---- what a checkpoint says ----

def expect_dict(name, x, own):
    """StateError if `x` is no dict with the keys of `own`."""
    if not isinstance(x, dict) or x.keys() != own.keys():
        given = list(x) if isinstance(x, dict) else x
        raise StateError(f"{name}: expected the keys {list(own)}, got {shortened(given)}")


def history_from(epochs, metrics, last):
    """The History of epochs up to `last`."""
    if not isinstance(epochs, np.ndarray) or epochs.ndim != 1 or epochs.dtype.kind not in "iu":
        raise StateError(f"epochs: expected an array of ints with one dimension, got {shortened(epochs)}")
    history = History()
    history.epochs = epochs.tolist()
    for before, k in zip([0, *history.epochs], history.epochs):
        if not before < k <= last:
            raise StateError(f"epochs: expected numbers that rise from 1 to {last} at most, got {k} after {before}")
    if not isinstance(metrics, dict):
        raise StateError(f"history: expected a dict of arrays, got {shortened(metrics)}")
    for name, numbers in metrics.items():
        if not isinstance(name, str):
            raise StateError(f"history: expected names, got {shortened(name)}")
        if not isinstance(numbers, np.ndarray) or numbers.shape != epochs.shape or numbers.dtype.kind not in "biuf":
            raise StateError(f"history[{name!r}]: expected an array of {len(epochs)} numbers, got {shortened(numbers)}")
        history.metrics[name] = numbers.tolist()
    return history


def check_generator(name, rng, state):
    """StateError for states that `random` and `numpy.random` take, though they are none."""
    if isinstance(rng, random.Random):
        right = isinstance(state, tuple) and len(state) == 3 and isinstance(state[2], (float, type(None)))
    else:
        right = isinstance(state, dict) and state.get("bit_generator") == rng.bit_generator.state["bit_generator"]
        inner = state.get("state") if right else None
        if right and state["bit_generator"] == "MT19937":   # places in a buffer, which NumPy does not look at
            right = isinstance(inner, dict) and is_place(inner.get("pos"), 624)
        elif right and state["bit_generator"] == "Philox":
            right = is_place(state.get("buffer_pos"), 4)
    if not right:
        raise StateError(f"{name}: expected the state of {article(type(rng).__name__)}, got {shortened(state)}")


def is_place(x, most):
    return isinstance(x, (int, np.integer)) and 0 <= x <= most
