"""The contract between the loop and a stage, and the validation loss."""

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import nn
from torch.utils.data import default_collate

from minimind_edu.training.precision import Precision, resolve_precision

Batch = dict[str, torch.Tensor]
# (model, batch) -> (mean loss over the labelled tokens, numbers). ``numbers["tokens"]`` must say how many
# labelled tokens the mean is over; the other numbers are logged.
LossFunction = Callable[[nn.Module, Batch], tuple[torch.Tensor, Mapping[str, object]]]


class TrainingData(Protocol):
    """What the loop asks of a dataset; ``data.packing.PackedDataset`` is one.

    ``set_epoch`` puts the rows into that epoch's (seeded) order; ``record_ids`` names the records of a row.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> Batch: ...
    def set_epoch(self, epoch: int) -> None: ...
    def record_ids(self, row: int) -> list[int]: ...


def evaluate_loss(
    model: nn.Module,
    loss: LossFunction,
    data: TrainingData,
    batch_size: int = 32,
    device: torch.device | None = None,
    precision: Precision | None = None,
) -> float:
    """Mean loss (nats) over all labelled tokens of ``data``; nan if there is none.

    The model is evaluated without dropout and is left in the mode it was in.

    Raises:
        ValueError: a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, not {batch_size}")
    device = device or next(model.parameters()).device
    precision = precision or resolve_precision("float32", device)
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(data), batch_size):
            rows = [data[row] for row in range(start, min(start + batch_size, len(data)))]
            batch = {name: tensor.to(device) for name, tensor in default_collate(rows).items()}
            with precision.autocast(device):
                value, numbers = loss(model, batch)
            tokens = int(numbers["tokens"])
            if tokens:
                total, count = total + float(value) * tokens, count + tokens
    model.train(was_training)
    return total / count if count else math.nan
