"""The training loop.

A step takes as long as in a loop written by hand: `fit` makes the Tensors of samples and targets beforehand, and only
counts between two steps. Validation, metrics, callbacks and the progress bar take time only if they are used.
"""
from __future__ import annotations

import math
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from flatgrad import losses
from flatgrad._core import Tensor, Value, _detects_anomaly, no_grad, recording
from flatgrad.arguments import finite, finite_array, flag, one_of, path_of, positive, shortened, whole
from flatgrad.errors import ArgumentError, ArgumentTypeError, DataError, DivergedError, StateError
from flatgrad.nn.module import Module
from flatgrad.optim.clip import clip_grad_norm_, clip_grad_value_
from flatgrad.optim.optimizers import Optimizer
from flatgrad.train.batches import Arrays, Stream, are_batches, cut, gathered
from flatgrad.train.callbacks import Callbacks
from flatgrad.train.checkpoint import load_tree, save_tree, size_of
from flatgrad.train.compiled import CompiledSteps, NotCompiled, reason_of
from flatgrad.train.history import History
from flatgrad.train.metrics import column, metrics_by_name, with_threshold
from flatgrad.train.progress import Interrupts, progress_of
from flatgrad.train.samples import Task, array_of, constant, modules_of
from flatgrad.train.saved import load_state, state_of_trainer
from flatgrad.transforms import differentiating

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Literal

    from numpy.typing import ArrayLike, NDArray

    from flatgrad._core import _Path
    from flatgrad.nn.layers import Layer, MLP, Neuron
    from flatgrad.optim.lbfgs import LBFGS
    from flatgrad.optim.optimizers import Adam, SGD
    from flatgrad.train.callbacks import Callback

    _Batches = Iterable[Any] | Callable[[], Iterable[Any]]
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
    clip_grad_norm : float, optional
        The largest norm of all gradients of a step, above 0: larger gradients are scaled, as `clip_grad_norm_` does it.
    clip_grad_value : float, optional
        The largest size of each gradient, above 0, as for `clip_grad_value_`. Not together with `clip_grad_norm`.

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
    clip_grad_norm: float | None
    clip_grad_value: float | None

    def __init__(self, model: Module, optimizer: Optimizer, loss: str | Callable[..., Any], metrics: _Metrics = (),
                 scheduler: Any = None, *, penalty: Callable[..., Any] | None = None,
                 scheduler_interval: Literal['epoch', 'batch'] = "epoch", clip_grad_norm: float | None = None,
                 clip_grad_value: float | None = None) -> None:
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
        self.clip_grad_norm = None if clip_grad_norm is None else positive("clip_grad_norm", clip_grad_norm)
        self.clip_grad_value = None if clip_grad_value is None else positive("clip_grad_value", clip_grad_value)
        if clip_grad_norm is not None and clip_grad_value is not None:
            raise ArgumentError("clip_grad_value: expected None where clip_grad_norm is given, got "
                                f"{clip_grad_value!r}")
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

    def fit(self, X: ArrayLike | _Batches, y: ArrayLike | None = None, epochs: int = 1, batch_size: int | None = None,
            shuffle: bool = True, seed: int | None = None,
            validation: tuple[ArrayLike, ArrayLike] | _Batches | float | None = None,
            callbacks: Sequence[Callback] = (), progress: bool = True,
            engine: Literal['auto', 'compiled', 'python'] = "auto", *,
            steps_per_epoch: int | None = None) -> History:
        """Train for further epochs.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features), or iterable of pair
            The samples, finite. If `y` is None: an iterable of batches, pairs (samples, targets), such as a list or a
            `DataLoader` of PyTorch, which begins again for each epoch; or a function without arguments that returns
            such an iterable for each epoch, such as a generator function.
        y : array_like of shape (n_samples,) or (n_samples, n_outputs), optional
            The targets, finite. Losses of labels take labels: from 0 to ``n_classes - 1``, or -1 and 1 for 'hinge'.
        epochs : int, optional
            The number of further epochs, 0 or more.
        batch_size : int, optional
            The number of samples for each step; the last batch may have fewer. None: all samples, or the iterable's
            batches as they are.
        shuffle : bool, optional
            Whether each epoch draws new batches at random. One batch of all samples is never reordered, nor are an
            iterable's batches.
        seed : int, optional
            The seed of the order of samples; the order also depends on the number of the epoch. None: the seed of the
            last `fit`, or for the first `fit` a seed from the system.
        validation : pair (X, y), iterable of pair, or float, optional
            Samples for evaluation after each epoch, without training on them. An iterable of batches, other than a list
            or a tuple, is read once, when `fit` begins. A number between 0 and 1: this fraction of the samples, drawn
            with `seed`; the last samples if `shuffle` is False.
        callbacks : sequence, optional
            `EarlyStopping`, `Checkpoint`, `CSVLogger`, `TensorBoard`, functions ``(trainer, epoch, logs)``, or objects as in `Callback`.
        progress : bool, optional
            Whether to show progress on stderr: a bar if tqdm is installed, otherwise a line every few seconds.
        engine : {'auto', 'compiled', 'python'}, optional
            Whether compiled code takes the steps, many at a time, or a loop in Python. The numbers are the same bit for
            bit. 'auto': compiled code if the code of model, loss and penalty does the same at each step, as far as it
            can be seen, and nothing has to run in Python between two steps. 'compiled': an error if that is not
            possible; the code of model, loss and penalty is not looked at, and the caller sees to it that the code
            depends on nothing that changes but parameters, samples and targets. The attribute `engine` says which way
            was taken, and why.
        steps_per_epoch : int, optional
            For an iterable: how many batches make an epoch. The next epoch goes on where the last one has ended; the
            iterable begins again when it is through. None: an epoch takes all batches.

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
        first of these losses counts. The model is in training mode during training, and in evaluation mode during
        validation. At the end its mode is the mode before `fit`.

        A loop in Python takes the steps for an iterable's batches, and those with clipped gradients. Each batch is
        checked before its step; the first one also before the training. An error in a later batch leaves the model as
        the step before has left it, and the epoch does not count.

        Examples
        --------
        >>> from flatgrad.nn import MLP
        >>> from flatgrad.optim import SGD
        >>> from flatgrad.train import Trainer
        >>> import random
        >>> def batches():
        ...     rng = random.Random(7)
        ...     for _ in range(5):
        ...         X = [[rng.uniform(-1.0, 1.0)] for _ in range(8)]
        ...         yield X, [3.0 * x - 2.0 for x, in X]
        >>> model = MLP(1, [1])
        >>> trainer = Trainer(model, SGD(model.parameters(), lr=0.5), "mse", clip_grad_norm=1.0)
        >>> history = trainer.fit(batches, epochs=40, progress=False)
        >>> [round(p.data, 3) for p in model.parameters()]
        [3.0, -2.0]
        """
        epochs = whole("epochs", epochs)
        batch_size = None if batch_size is None else whole("batch_size", batch_size, 1)
        if y is None:
            if batch_size is not None:
                raise ArgumentError(f"batch_size: expected None for an iterable of batches, got {batch_size}")
        elif steps_per_epoch is not None:
            raise ArgumentError("steps_per_epoch: expected None where X and y are arrays, got "
                                f"{shortened(steps_per_epoch)}")
        flag("shuffle", shuffle)
        flag("progress", progress)
        one_of("engine", engine, ("auto", "compiled", "python"))
        seed = self.seed if seed is None else whole("seed", seed)
        if seed is None:
            seed = np.random.SeedSequence().entropy
        modes = Modes(self.model)
        with modes:
            data, X_val, y_val = self._data(X, y, epochs, batch_size, shuffle, seed, validation, steps_per_epoch)
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
                for logs in self._epochs(epochs, data, X_val, y_val, bar, modes, interrupts, engine):
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

    def _epochs(self, epochs, data, X_val, y_val, bar, modes, interrupts, engine):
        """The loop: train for an epoch, add its numbers to the history, and yield them."""
        model, loss, penalty = self.model, self.loss, self.penalty
        zero_grad, step, tensors = self.optimizer.zero_grad, self.optimizer.step, data.tensors
        parameters = model.parameters()
        by_parameters = differentiating(parameters)   # a gradient in the loss is a node
        clip = self._clipping(parameters)
        bounds = self.clip_grad_norm, self.clip_grad_value   # for this fit, whatever callbacks set
        batch_ends, epoch_begins = self._callbacks.on_batch_end, self._callbacks.on_epoch_begin
        measured = bool(self.metrics)
        by_batch = self.scheduler is not None and self.scheduler_interval == "batch"
        by_epoch = self.scheduler is not None and not by_batch
        n_batches = data.n_batches
        validation = None if X_val is None else (cut(self._task.batch(X_val, y_val), CHUNK, len(X_val)), y_val)
        clock, isfinite = time.perf_counter, math.isfinite
        by_closure = getattr(self.optimizer, "_needs_closure", False)
        modes.set(True)
        seed = self.seed   # a callback may load another seed
        parts = model, loss, penalty, self.optimizer   # whatever callbacks put in their places
        steps = self._compiled(engine, parts, epochs, data, bounds)
        if steps is not None and not (data.shuffle or measured or validation or self.scheduler is not None
                                      or epoch_begins or self._callbacks.on_epoch_end):
            yield from self._epochs_alone(steps, epochs, bar, interrupts)
            return

        for epoch in range(self.epoch + 1, self.epoch + 1 + epochs):
            began = clock()
            for begin in epoch_begins:
                begin(self, epoch)
            batches = data.epoch(seed, epoch)
            rate = self._learning_rate()
            mean = 0.0
            predictions = []
            if steps is not None and not steps.is_current():
                steps = self._compiled(engine, parts, epochs, data, bounds)
            if steps is not None:
                mean = self._compiled_epoch(steps, epoch, data.order, [share for _, share in batches], by_batch, bar,
                                            interrupts)
                if measured:
                    predictions.append(steps.predictions())
            for batch, (part, share) in enumerate(batches, 1) if steps is None else ():
                inputs, targets = tensors(part)
                if by_closure:
                    interrupts.held = True
                    prediction, result = self._step_by_closure(parts, parameters, clip, inputs, targets,
                                                               (epoch, batch, n_batches))
                    number = result.data
                else:
                    with by_parameters:
                        prediction = model(inputs)
                        result = loss(prediction, targets)
                        if penalty is not None:
                            result = result + penalty(parameters)
                    number = result.data
                    if not isfinite(number):
                        raise self._diverged(number, epoch, batch, n_batches)
                    zero_grad()
                    result.backward()
                    interrupts.held = True
                    if clip is not None:
                        clip()
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
                if bar is not None and batch != n_batches and clock() >= bar.due:
                    bar.batch(batch, n_batches)
            logs = {"loss": mean / data.total}
            if measured:
                whole_prediction = predictions[0] if len(predictions) == 1 else np.concatenate(predictions)
                logs.update(self._quality(whole_prediction, data.targets()))
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

    def _clipping(self, parameters):
        """A function that clips the gradients before a step, or None."""
        clipped = self.optimizer if isinstance(self.optimizer, Optimizer) else parameters
        if self.clip_grad_norm is not None:
            return partial(clip_grad_norm_, clipped, self.clip_grad_norm)
        if self.clip_grad_value is not None:
            return partial(clip_grad_value_, clipped, self.clip_grad_value)
        return None

    def _step_by_closure(self, parts, parameters, clip, inputs, targets, place):
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
            if clip is not None:
                clip()
            return result

        try:
            result = optimizer.step(closure)
            return first[0], result
        except DivergedError as error:
            error.epoch, error.history = place[0], self.history
            raise

    def _compiled(self, engine, parts, epochs, data, bounds):
        """The steps as compiled code takes them, or None; `engine` says so, and why."""
        if engine == "python":
            reason = "engine='python'"
        elif _detects_anomaly():
            engine, reason = "python", "detect_anomaly() is on"
        elif isinstance(data, Stream):
            reason = "the batches come from an iterable"
        else:
            reason = reason_of(parts[-1], self._callbacks)
            if reason is None and engine == "auto":   # a recording has to pay
                few = max(FEW_STEPS, sum(one.count for one in parts[-1]._parameters) // FEW_PARAMETERS)
                if epochs * data.n_batches < few:
                    reason = f"fewer than {few} steps"
        if reason is None:
            try:
                steps = CompiledSteps(self, parts, data.X, data.y, data.size, data.shuffle, bounds, engine == "compiled")
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

    def _data(self, X, y, epochs, batch_size, shuffle, seed, validation, steps_per_epoch):
        """The batches, and (X, y) for validation or (None, None): all checked, with one call of model and loss."""
        task = self._task
        if y is not None:
            X, shape = task.inputs(X)
            y = task.targets(y, len(X), shape)
            X, y, X_val, y_val = self._validation(validation, X, y, shape, shuffle, seed)
            task.try_loss(X, y)
            return Arrays(task, X, y, batch_size, shuffle), X_val, y_val
        data = Stream(task, X, epochs, steps_per_epoch, bool(self.metrics))
        if not (validation is None or isinstance(validation, (tuple, list)) or are_batches(validation)):
            raise ArgumentError("validation: expected None, a pair (X, y) or an iterable of batches, because X is an "
                                f"iterable, got {validation!r}")
        if epochs:
            data.look()
        X_val = y_val = None
        if validation is not None:
            _, _, X_val, y_val = self._validation(validation, None, None, data.shape, False, seed)
        return data, X_val, y_val

    def _validation(self, validation, X, y, shape, shuffle, seed):
        """(X, y) for training, and (X, y) for validation or (None, None)."""
        if validation is None:
            return X, y, None, None
        if isinstance(validation, (tuple, list)):
            if len(validation) != 2:
                raise ArgumentTypeError(f"validation: expected a pair (X, y), got {len(validation)} items")
            X_val, shape_val = self._task.inputs(validation[0], "validation[0]", None if X is None else X.shape[1])
            return X, y, X_val, self._task.targets(validation[1], len(X_val), shape_val, "validation[1]")
        if are_batches(validation):
            return self._validation(gathered(validation, "validation"), X, y, shape, shuffle, seed)
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
        return {"loss": loss, **self._quality(whole_prediction, y)}

    def _quality(self, prediction, y):
        """The metrics; those that have a threshold get the one that fits the loss."""
        if not self.metrics:
            return {}
        kind = self._task.kind
        probable = kind == "binary_cross_entropy" or kind in ("mse", "mae", "huber") and y.min() >= 0
        threshold = None if kind is None else 0.5 if probable else 0.0
        target = column("target", y)
        return {name: float(with_threshold(metric, threshold)(prediction, target))
                for name, metric in self.metrics.items()}

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
        place = f"epoch {epoch}"
        if n_batches != 1:
            place += f", batch {batch}" + (f" of {n_batches}" if n_batches is not None else "")
        advice = f"A learning rate below {self._learning_rate():g}, scaled features or clipped gradients may help"
        if isinstance(self.model, Module):
            with suppress(StateError):   # two parameters of one name
                named = ((name, p.data) for name, p in self.model.named_parameters() if not math.isfinite(p.data))
                advice = next((f"There its parameter {name} is {x}" for name, x in named), advice)
        error = DivergedError(
            f"loss: expected a finite number, got {number} in {place}; the model is as the step before left it. {advice}")
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
        with Modes(self.model) as modes, no_grad():
            X, shape = self._task.inputs(X, modules=modes.modules)
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
        with Modes(self.model) as modes, no_grad():
            X, _ = self._task.inputs(x[None, :], "x", modules=modes.modules)
            result = array_of(self.model(constant(X)))[0]
        return float(result) if np.ndim(result) == 0 else result

    def evaluate(self, X: ArrayLike | _Batches, y: ArrayLike | None = None) -> dict[str, float]:
        """The loss and the metrics, in evaluation mode.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features), or iterable of pair
        y : array_like of shape (n_samples,) or (n_samples, n_outputs), optional
            As for `fit`. An iterable's batches are put together first.

        Returns
        -------
        dict of str to float
            ``'loss'``, including the penalty, and the metrics by their names.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.
        """
        if y is None:
            X, y = gathered(X)
        with Modes(self.model) as modes:
            X, shape = self._task.inputs(X, modules=modes.modules)
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
        save_tree(path, state_of_trainer(self))

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
        own = state_of_trainer(self)
        # The limit for a compressed file is the size that a checkpoint of this Trainer may need.
        tree = load_tree(path, 2**24 + 64 * size_of(own))
        try:
            load_state(self, tree, own)
        except MemoryError:
            raise
        except Exception as error:   # users' own parts may raise any error
            said = str(error) if isinstance(error, StateError) else f"a damaged checkpoint: {error!r}"
            raise StateError(f"{path}: {said}") from error
        return self

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
        self.modules = modules_of(model)
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
