"""Training: a loop with its history, callbacks, checkpoints and metrics."""
from flatgrad.train.callbacks import Callback, Checkpoint, EarlyStopping
from flatgrad.train.history import History
from flatgrad.train.loggers import CSVLogger, TensorBoard
from flatgrad.train.metrics import (METRICS, accuracy, f1, mae, mse, precision, r2, recall, rmse, roc_auc,
                                    top_k_accuracy)
from flatgrad.train.trainer import Trainer

__all__ = ["Trainer", "History", "Callback", "EarlyStopping", "Checkpoint", "CSVLogger", "TensorBoard", "METRICS",
           "accuracy", "top_k_accuracy", "precision", "recall", "f1", "roc_auc", "mse", "rmse", "mae", "r2"]
