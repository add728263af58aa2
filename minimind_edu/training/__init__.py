"""The training loop and its parts. See ``loop.fit``."""

from minimind_edu.training.checkpoint import CheckpointError
from minimind_edu.training.config import TrainConfig
from minimind_edu.training.evaluate import Batch, LossFunction, TrainingData, evaluate_loss
from minimind_edu.training.interrupt import Interrupted
from minimind_edu.training.logging import read_metrics
from minimind_edu.training.loop import FitResult, NonFiniteLossError, RunExistsError, fit

__all__ = [
    "Batch",
    "CheckpointError",
    "FitResult",
    "Interrupted",
    "LossFunction",
    "NonFiniteLossError",
    "RunExistsError",
    "TrainConfig",
    "TrainingData",
    "evaluate_loss",
    "fit",
    "read_metrics",
]
