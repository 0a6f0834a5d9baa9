"""Training: a loop with its history, callbacks, checkpoints and metrics."""
from flatgrad.train.callbacks import Callback, Checkpoint, EarlyStopping
from flatgrad.train.history import History
from flatgrad.train.metrics import METRICS, accuracy, mae, mse, r2
from flatgrad.train.trainer import Trainer

__all__ = ["Trainer", "History", "Callback", "EarlyStopping", "Checkpoint", "METRICS", "accuracy", "mse", "mae", "r2"]
