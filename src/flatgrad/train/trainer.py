"""The training loop.

A step takes as long as in a loop written by hand: `fit` makes the Tensors of samples and targets beforehand, and only
counts between two steps. Validation, metrics, callbacks and the progress bar take time only if they are used.
"""
from __future__ import annotations

import contextlib
import math
import random
import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from flatgrad import losses
from flatgrad._core import Tensor, Value, _detects_anomaly, no_grad, recording
from flatgrad.arguments import finite, finite_array, flag, one_of, path_of, shortened, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, DivergedError, StateError
from flatgrad.nn.module import Module
from flatgrad.randomness import Random
from flatgrad.train.callbacks import Callbacks, checked, checked_states, epoch_number
from flatgrad.train.checkpoint import load_tree, save_tree, size_of
from flatgrad.train.compiled import CompiledSteps, NotCompiled, reason_of
from flatgrad.train.history import History
from flatgrad.train.metrics import accuracy, column, metrics_by_name
from flatgrad.train.progress import Interrupts, progress_of
from flatgrad.train.samples import Task, array_of, constant
from flatgrad.transforms import differentiating

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Literal

    from numpy.typing import ArrayLike, NDArray

    from flatgrad._core import _Path, _Rng
    from flatgrad.nn.layers import Layer, MLP, Neuron
    from flatgrad.optim.lbfgs import LBFGS
    from flatgrad.optim.optimizers import Adam, Optimizer, SGD
    from flatgrad.train.callbacks import Callback

    _Metrics = Sequence[str | Callable[..., Any]] | Mapping[str, str | Callable[..., Any]]

__all__ = ["Trainer"]

PAUSE = 0.05   # seconds, between two looks at progress while compiled code takes steps
FEW_STEPS = 4   # fewer are not worth a recording, ...
FEW_PARAMETERS = 500   # ... nor are fewer than one for so many parameters
CHUNK = 4096   # rows for one call of the model outside of training
RESERVED = ("loss", "learning_rate", "time", "epoch", "epochs", *(name for name in dir(History) if name[0] != "_"))


class Trainer:
    """Fits a model to samples.

    Parameters
    ----------
    model : Module
        A Module, or any callable that takes a batch, `(n_samples, n_features)`, and has ``parameters()``.
    optimizer : Optimizer
        An optimizer of the model's parameters.
    loss : str or callable
        A name in `flatgrad.losses.LOSSES`, or ``loss(prediction, target)``, which returns a Value. The target is a
        constant Tensor of the shape of the prediction, or an array of int64 for labels.
    metrics : sequence of str and callable, or dict of str to these, optional
        Names in `flatgrad.train.METRICS`, or functions ``(prediction, target) -> float`` of arrays. The arrays have one
        axis if there is a single output.
    scheduler : optional
        A scheduler of `flatgrad.optim.lr_scheduler`. `ReduceLROnPlateau` gets the validation loss, or the loss if there
        is no validation.
    penalty : callable, optional
        ``penalty(parameters)`` returns a Value, which is added to the loss of each batch. An example with
        `flatgrad.losses.l2` is ``lambda parameters: 1e-4 * l2(parameters)``.
    scheduler_interval : {'epoch', 'batch'}, optional
        Whether the scheduler steps after each epoch or after each batch.

    Attributes
    ----------
    history : History
        The numbers of all epochs so far. Each `fit` adds to the history.
    epoch : int
        The number of completed epochs.
    seed : int or None
        The seed of the order of samples; None before the first `fit`.
    stopped : str or None
        The reason why the last `fit` has ended before its number of epochs.
    engine : str or None
        How the last `fit` has taken its steps: ``'compiled'``, or ``'python: '`` and the reason. None before the first.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the optimizer does not have any of the model's parameters.

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

    model: Module
    optimizer: Optimizer

    metrics: Any
    scheduler_interval: str
    history: History
    epoch: int
    seed: int | None
    stopped: str | None
    engine: str | None
    log_names: tuple[Any, ...]
    loss: Any
    scheduler: Any
    penalty: Callable[..., Any] | None

    def __init__(self, model: Module, optimizer: Optimizer, loss: str | Callable[..., Any], metrics: _Metrics = (),
                 scheduler: Any = None, *, penalty: Callable[..., Any] | None = None,
                 scheduler_interval: Literal['epoch', 'batch'] = "epoch") -> None:
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
        self.engine = None
        self.log_names = ()        # of the numbers that each epoch of the current fit adds to the history
        self._task = Task(model, loss)
        self._callbacks = Callbacks(())
        self._counted = []         # the states of callbacks at the end of the last fit

    # ---- training ----

    def fit(self, X: ArrayLike, y: ArrayLike, epochs: int, batch_size: int | None = None, shuffle: bool = True,
            seed: int | None = None, validation: tuple[ArrayLike, ArrayLike] | float | None = None,
            callbacks: Sequence[Callback] = (), progress: bool = True,
            engine: Literal['auto', 'compiled', 'python'] = "auto") -> History:
        """Train for further epochs.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            The samples, finite.
        y : array_like of shape (n_samples,) or (n_samples, n_outputs)
            The targets, finite. Losses of labels take labels: from 0 to ``n_classes - 1``, or -1 and 1 for 'hinge'.
        epochs : int
            The number of further epochs, 0 or more.
        batch_size : int, optional
            The number of samples for each step; the last batch may have fewer. None: all samples.
        shuffle : bool, optional
            Whether each epoch draws new batches at random. One batch of all samples is never reordered.
        seed : int, optional
            The seed of the order of samples; the order also depends on the number of the epoch. None: the seed of the
            last
            `fit`, or for the first `fit` a seed from the system.
        validation : pair (X, y) or float, optional
            Samples for evaluation after each epoch, without training on them. A number between 0 and 1: this fraction
            of the samples, drawn with `seed`; the last samples if `shuffle` is False.
        callbacks : sequence, optional
            `EarlyStopping`, `Checkpoint`, functions ``(trainer, epoch, logs)``, or objects as in `Callback`.
        progress : bool, optional
            Whether to show progress on stderr: a bar if tqdm is installed, otherwise a line every few seconds.
        engine : {'auto', 'compiled', 'python'}, optional
            Whether compiled code takes the steps, many at a time, or a loop in Python. The numbers are the same bit for
            bit. 'auto': compiled code if the code of model, loss and penalty does the same at each step, as far as it
            can be seen, and nothing has to run in Python between two steps. 'compiled': an error if that is not
            possible; the code of model, loss and penalty is not looked at, and the caller sees to it that the code
            depends on nothing that changes but parameters, samples and targets. The attribute `engine` says which way
            was taken, and why.

        Returns
        -------
        History
            The history of the Trainer, with all epochs so far. Also after a KeyboardInterrupt: the model is then in the
            state after the last complete step, and the interrupted epoch does not count.

        Raises
        ------
        ArgumentTypeError, ArgumentError, ShapeError, DataError, UnknownNameError
            If an argument is not as described. Model, optimizer and history do not change then.
        DivergedError
            If the loss of a batch is nan or inf; the model is in the state after the step before this batch.

        Notes
        -----
        The loss and the metrics of an epoch come from its training batches, each before its step and in training mode.
        The loss is their mean, weighted by the number of samples. The penalty is part of the loss, also in validation
        and in `evaluate`. `LBFGS` evaluates the loss of a batch several times in its step, in a loop in Python; the
        first of these losses counts. The model is in training mode during training, and in evaluation mode during validation. At
        the end its mode is the mode before `fit`.
        """
        task = self._task
        epochs = whole("epochs", epochs)
        batch_size = None if batch_size is None else whole("batch_size", batch_size, 1)
        flag("shuffle", shuffle)
        flag("progress", progress)
        one_of("engine", engine, ("auto", "compiled", "python"))
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
            if callbacks.on_fit_begin:   # a callback may have changed the model
                modes = Modes(self.model)
            with recording(), modes, Interrupts() as interrupts:
                for logs in self._epochs(epochs, X, y, batch_size, shuffle, X_val, y_val, bar, modes, interrupts,
                                         engine):
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

    def stop(self, reason: str = "stop() was called") -> None:
        """End the current `fit` after this epoch; for callbacks.

        Parameters
        ----------
        reason : str, optional
            The text for the attribute `stopped`.
        """
        self.stopped = str(reason)

    def _epochs(self, epochs, X, y, batch_size, shuffle, X_val, y_val, bar, modes, interrupts, engine):
        """The loop: train for an epoch, add its numbers to the history, and yield them."""
        model, task, loss, penalty = self.model, self._task, self.loss, self.penalty
        zero_grad, step = self.optimizer.zero_grad, self.optimizer.step
        parameters = model.parameters()
        by_parameters = differentiating(parameters)   # a gradient in the loss is a node
        batch_ends, epoch_begins = self._callbacks.on_batch_end, self._callbacks.on_epoch_begin
        measured = self.metrics and list(self._thresholds(y).items())
        by_batch = self.scheduler is not None and self.scheduler_interval == "batch"
        by_epoch = self.scheduler is not None and not by_batch
        n_samples = len(X)
        size = n_samples if batch_size is None else min(batch_size, n_samples)
        shuffle = shuffle and size < n_samples
        # Fixed batches are views of two Tensors. A drawn batch has Tensors of its own, which live for one step: the
        # tape then drops their nodes together with the graph's, and there is nothing to collect.
        batches = None if shuffle else cut(task.batch(X, y), size, n_samples)
        validation = None if X_val is None else (cut(task.batch(X_val, y_val), CHUNK, len(X_val)), y_val)
        clock, isfinite = time.perf_counter, math.isfinite
        by_closure = getattr(self.optimizer, "_needs_closure", False)
        modes.set(True)
        seed = self.seed   # a callback may load another seed
        parts = model, loss, penalty, self.optimizer   # whatever callbacks put in their places
        steps = self._compiled(engine, parts, epochs, X, y, size, shuffle)
        if steps is not None and not (shuffle or measured or validation or self.scheduler is not None or epoch_begins
                                      or self._callbacks.on_epoch_end):
            yield from self._epochs_alone(steps, epochs, bar, interrupts)
            return

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
            if steps is not None and not steps.is_current():
                steps = self._compiled(engine, parts, epochs, X, y, size, shuffle)
            if steps is not None:
                mean = self._compiled_epoch(steps, epoch, order if shuffle else None, [share for _, share in batches],
                                            by_batch, bar, interrupts)
                if measured:
                    predictions.append(steps.predictions())
            for batch, (part, share) in enumerate(batches, 1) if steps is None else ():
                inputs, targets = task.batch(X.take(part[0], axis=0), y.take(part[0], axis=0)) if shuffle else part
                if by_closure:
                    interrupts.held = True
                    prediction, result = self._step_by_closure(parts, parameters, inputs, targets,
                                                               (epoch, batch, len(batches)))
                    number = result.data
                else:
                    with by_parameters:
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
                del prediction, result, inputs, targets   # drop the graph before the next one is made
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

    def _step_by_closure(self, parts, parameters, inputs, targets, place):
        """A step of an optimizer that evaluates the loss itself; prediction and loss of the first evaluation."""
        model, loss, penalty, optimizer = parts
        first = []

        def closure():
            with differentiating(parameters):
                prediction = model(inputs)
                result = loss(prediction, targets)
                if penalty is not None:
                    result = result + penalty(parameters)
            if not first:
                if not math.isfinite(result.data):
                    raise self._diverged(result.data, *place)
                first.append(prediction)
            optimizer.zero_grad()
            result.backward()
            return result

        try:
            result = optimizer.step(closure)
            return first[0], result
        except DivergedError as error:
            error.epoch, error.history = place[0], self.history
            raise

    def _compiled(self, engine, parts, epochs, X, y, size, shuffle):
        """The steps as compiled code takes them, or None; `engine` says so, and why."""
        if engine == "python":
            reason = "engine='python'"
        elif _detects_anomaly():
            engine, reason = "python", "detect_anomaly() is on"
        else:
            reason = reason_of(parts[-1], self._callbacks)
            if reason is None and engine == "auto":   # a recording has to pay
                few = max(FEW_STEPS, sum(one.count for one in parts[-1]._parameters) // FEW_PARAMETERS)
                if epochs * -(-len(X) // size) < few:
                    reason = f"fewer than {few} steps"
        if reason is None:
            try:
                steps = CompiledSteps(self, parts, X, y, size, shuffle, engine == "compiled")
            except NotCompiled as error:
                reason = str(error)
            else:
                self.engine = "compiled"
                return steps
        if engine == "compiled":
            raise ArgumentError(f"engine: expected 'auto' or 'python', because {reason}, got 'compiled'")
        self.engine = f"python: {reason}"
        return None

    def _compiled_epoch(self, steps, epoch, order, shares, by_batch, bar, interrupts):
        """Take the steps of one epoch, and return its mean loss."""
        numbers, done = steps.losses, 0
        while done < len(shares):
            if by_batch:
                interrupts.held = True
                count, diverged = steps.run(1, order, numbers[done:])
                if diverged is None:
                    self.scheduler.step()
                interrupts.held = False
                if interrupts.pending:
                    raise KeyboardInterrupt
            else:
                count, diverged = steps.run(len(shares) - done, order, numbers[done:], PAUSE)
            done += count
            if diverged is not None:
                raise self._diverged(diverged, epoch, done + 1, len(shares))
            if bar is not None and done < len(shares) and time.perf_counter() >= bar.due:
                bar.batch(done, len(shares))
        mean = 0.0
        for number, share in zip(numbers.tolist(), shares):
            mean += number * share
        return mean

    def _epochs_alone(self, steps, epochs, bar, interrupts):
        """Epochs between which nothing has to be done in Python: many at a time, and yield the numbers of the last."""
        clock, rate = time.perf_counter, self._learning_rate()
        shares = [share for _, share in cut((), steps.size, steps.n_samples)]
        n_batches, count, last = len(shares), 1, self.epoch + epochs
        while self.epoch < last:
            count = min(count, last - self.epoch)
            numbers = np.empty(count * n_batches)
            began, done, diverged = clock(), 0, None
            try:
                while done < len(numbers) and diverged is None:
                    try:
                        steps.run(len(numbers) - done, None, numbers[done:], PAUSE)
                    finally:
                        done += steps.done
                    diverged = steps.diverged
                    if bar is not None and n_batches > 1 and done < len(numbers) and clock() >= bar.due:
                        bar.batch(done % n_batches, n_batches)
            finally:
                elapsed = clock() - began
                interrupts.held = True
                logs = self._note_epochs(numbers[:done // n_batches * n_batches].reshape(-1, n_batches), shares, rate,
                                         elapsed)
                interrupts.held = False
            if diverged is not None:
                raise self._diverged(diverged, self.epoch + 1, done % n_batches + 1, n_batches)
            if interrupts.pending:
                raise KeyboardInterrupt
            if elapsed < PAUSE / 2:
                count *= 2
            elif elapsed > PAUSE:
                count = -(-count // 2)
            yield logs

    def _note_epochs(self, numbers, shares, rate, elapsed):
        """Add whole epochs, a row of losses for each, to the history; the numbers of the last."""
        if len(numbers) == 0:
            return {}
        mean = np.zeros(len(numbers))
        for k, share in enumerate(shares):   # in the order in which they came
            mean += numbers[:, k] * share
        logs = {"loss": mean.tolist(), "learning_rate": [rate] * len(mean),
                "time": [elapsed / len(mean)] * len(mean)}
        self.history._extend(range(self.epoch + 1, self.epoch + 1 + len(mean)), logs)
        self.epoch += len(mean)
        return {name: column[-1] for name, column in logs.items()}

    def _validation(self, validation, X, y, shape, shuffle, seed):
        """(X, y) for training, and (X, y) for validation or (None, None)."""
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
        # Epochs count from 1, so no order of samples is drawn with 0.
        order = np.random.default_rng([seed, 0]).permutation(n) if shuffle else np.arange(n)
        kept, held = np.sort(order[:n - held_out]), np.sort(order[n - held_out:])
        return X[kept], y[kept], X[held], y[held]

    def _measure(self, batches, y):
        """The loss and the metrics of samples, without training on them."""
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
        """The metrics; `accuracy` gets the threshold that fits the loss."""
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

    # ---- results ----

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """The outputs of the model, in evaluation mode.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
            The samples, finite.

        Returns
        -------
        ndarray of float64, shape (n_samples,) or (n_samples, n_outputs)
            One axis if there is one output. Scores and logits are not converted to classes.

        Raises
        ------
        TypeError, ValueError
            If `X` is not as described, or the model does not accept it.
        """
        with Modes(self.model), no_grad():
            X, shape = self._task.inputs(X)
            result = [array_of(self.model(constant(X[k:k + CHUNK]))) for k in range(0, len(X), CHUNK)]
        return result[0] if len(result) == 1 else np.concatenate(result)

    def predict_single(self, x: ArrayLike) -> Any:
        """The outputs of the model for one sample.

        Parameters
        ----------
        x : array_like of shape (n_features,)
            The sample, finite.

        Returns
        -------
        float, or ndarray of shape (n_outputs,)
            A float if there is one output.

        Raises
        ------
        TypeError, ValueError
            If `x` is not as described, or the model does not accept it.
        """
        x = finite_array("x", x, 1)
        if len(x) == 0:
            raise DataError("x: expected one feature at least, got none")
        with Modes(self.model), no_grad():
            X, _ = self._task.inputs(x[None, :], "x")
            result = array_of(self.model(constant(X)))[0]
        return float(result) if np.ndim(result) == 0 else result

    def evaluate(self, X: ArrayLike, y: ArrayLike) -> dict[str, float]:
        """The loss and the metrics, in evaluation mode.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
        y : array_like of shape (n_samples,) or (n_samples, n_outputs)
            As for `fit`.

        Returns
        -------
        dict of str to float
            ``'loss'``, including the penalty, and the metrics by their names.

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

    def save(self, path: _Path) -> None:
        """Write the state of training to a file in NumPy's format ``.npz``, completely or not at all.

        The file contains the state dicts of the model, the optimizer and the scheduler, the random generators in the
        model's modules, the history, the seed, and the states of callbacks. No pickle.

        Parameters
        ----------
        path : str or path-like
            The path as it is: no ending is added.

        Raises
        ------
        OSError
            If the file cannot be written; a file that was there before does not change.
        TypeError
            If the model, the optimizer or the scheduler has no ``state_dict()``, or one that contains an object other
            than numbers, text and arrays.
        """
        save_tree(path, self._state())

    def load(self, path: _Path) -> Trainer:
        """Continue from a checkpoint of `save`, bit for bit: a `fit` of the remaining epochs, with the same samples and
        arguments, gives the same result as one `fit` of all epochs.

        Parameters
        ----------
        path : str or path-like

        Returns
        -------
        Trainer
            The Trainer itself.

        Raises
        ------
        OSError
            If the file cannot be read.
        StateError
            If the file has another format, belongs to another architecture, optimizer or scheduler, or contains values
            that no Trainer saves. The Trainer does not change then.
        """
        path = path_of("path", path)
        own = self._state()
        # The limit for a compressed file is the size that a checkpoint of this Trainer may need.
        tree = load_tree(path, 2**24 + 64 * size_of(own))
        try:
            self._load(tree, own)
        except MemoryError:
            raise
        except Exception as error:   # users' own parts may raise any error
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
        """Load the result of `_state`; on any error go back to `own`, the current state."""
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
            for load, before in begun:   # in this order, because a scheduler reads its optimizer
                with contextlib.suppress(BaseException):   # the first error is the one to raise
                    load(before)
            raise

    def _repr_html_(self) -> str:
        """What the Trainer trains, how far it is, and its history, for notebooks."""
        from flatgrad.markup import table

        count = len(self.model.parameters())
        rows = [("model", f"{type(self.model).__name__}, {count:,} parameters"), ("optimizer", repr(self.optimizer)),
                ("loss", getattr(self.loss, "__name__", repr(self.loss))), ("metrics", ", ".join(self.metrics)),
                ("scheduler", "" if self.scheduler is None else repr(self.scheduler)), ("epochs", f"{self.epoch:,}"),
                ("engine", self.engine or ""), ("stopped", self.stopped or "")]
        made = table((), [row for row in rows if row[1]], type(self).__name__, texts=2)
        return made + (self.history._repr_html_() if self.history.epochs else "")

    def __repr__(self) -> str:
        return (f"Trainer({type(self.model).__name__}, {self.optimizer!r}, "
                f"{getattr(self.loss, '__name__', repr(self.loss))}; {self.epoch} epochs done)")


class Modes:
    """A context that switches a model's modules between training and evaluation mode, and at the end restores them."""

    modules: list[Layer | MLP | Neuron]
    before: list[bool]
    own_way: bool

    def __init__(self, model: Any) -> None:
        self.model = model
        self.modules = model.modules() if isinstance(model, Module) else []
        self.before = []
        # The search for the modules takes longer than a small model's step, so it is done once, unless the model
        # defines `train` or `eval` itself.
        self.own_way = type(model).train is not Module.train or type(model).eval is not Module.eval \
            if self.modules else False

    def set(self, training: bool) -> None:
        if self.own_way:
            self.model.train() if training else self.model.eval()
            return
        for module in self.modules:
            if module.training is not training:
                module.training = training

    def __enter__(self) -> Modes:
        self.before = [module.training for module in self.modules]
        try:
            self.set(False)
        except BaseException:   # such as a KeyboardInterrupt in between
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: Any) -> None:
        for module, mode in zip(self.modules, self.before):
            if module.training is not mode:
                module.training = mode


def cut(whole: tuple[Any, ...], size: int, n_samples: int) -> list[Any]:
    """The batches, pairs (parts of Tensors and arrays, share of the samples)."""
    if size >= n_samples:
        return [(whole, 1.0)]
    return [([x[k:k + size] for x in whole], (min(k + size, n_samples) - k) / n_samples)
            for k in range(0, n_samples, size)]


def check_parameters(model: Any, optimizer: Adam | SGD | LBFGS) -> None:
    """Check that the optimizer, if it has `param_groups`, has some of the model's parameters."""
    groups = getattr(optimizer, "param_groups", None)
    if not groups:
        return
    own = model.parameters()   # both lists stay alive, because ids of dead objects mean nothing
    given = [p for group in groups for params in group["params"]
             for p in (flat(params) if isinstance(params, Tensor) else [params])]
    if own and {id(p) for p in own}.isdisjoint(map(id, given)):
        raise ArgumentError("optimizer: expected one of the model's parameters, got one that has none of them")


def flat(tensor: Any) -> Any:
    return list(tensor.reshape(-1))


def float_of(x: Value) -> float:
    return x.data if isinstance(x, Value) else float(x)


def article(name: Any) -> Any:
    return "none" if name == "NoneType" else f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}"


def generators(model: MLP) -> None:
    """(path, generator) of the random generators in the attributes of a model's modules."""
    if isinstance(model, Module):
        for path, module in model.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Random):
                    name, value = f"{name}.rng", value.rng
                if isinstance(value, (np.random.Generator, random.Random)):
                    yield f"{path}.{name}" if path else name, value


def state_of(rng: _Rng) -> Any:
    return rng.getstate() if isinstance(rng, random.Random) else rng.bit_generator.state


def set_state(rng: _Rng, state: Any) -> None:
    if isinstance(rng, random.Random):
        rng.setstate(state)
    else:
        rng.bit_generator.state = state


# ---- checks of a checkpoint ----

def expect_dict(name: str, x: dict[str, Any], own: dict[str, Any]) -> None:
    """StateError if `x` is no dict with the keys of `own`."""
    if not isinstance(x, dict) or x.keys() != own.keys():
        given = list(x) if isinstance(x, dict) else x
        raise StateError(f"{name}: expected the keys {list(own)}, got {shortened(given)}")


def history_from(epochs: NDArray[Any], metrics: dict[str, NDArray[Any]], last: int) -> History:
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


def check_generator(name: Any, rng: _Rng, state: Any) -> None:
    """StateError for wrong states that `random` and `numpy.random` would accept."""
    if isinstance(rng, random.Random):
        right = isinstance(state, tuple) and len(state) == 3 and isinstance(state[2], (float, type(None)))
    else:
        right = isinstance(state, dict) and state.get("bit_generator") == rng.bit_generator.state["bit_generator"]
        inner = state.get("state") if right else None
        if right and state["bit_generator"] == "MT19937":   # places in a buffer; NumPy does not check them
            right = isinstance(inner, dict) and is_place(inner.get("pos"), 624)
        elif right and state["bit_generator"] == "Philox":
            right = is_place(state.get("buffer_pos"), 4)
    if not right:
        raise StateError(f"{name}: expected the state of {article(type(rng).__name__)}, got {shortened(state)}")


def is_place(x: Any, most: Any) -> Any:
    return isinstance(x, (int, np.integer)) and 0 <= x <= most
