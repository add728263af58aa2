"""Small stand-ins for the tests of training: rows of random tokens, a tiny model, and short ways to train."""

import numpy as np
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.training import TrainConfig, fit

VOCABULARY = 19


class ToyRows:
    """Rows of random tokens, ``labelled[i]`` of which (at the end of the row) are to be predicted.

    It keeps the contract of ``TrainingData``: an order for each epoch, and a record number for each row.
    """

    def __init__(self, count=8, length=10, labelled=None, seed=0, shuffle=True):
        random = np.random.default_rng(seed)
        self.tokens = torch.from_numpy(random.integers(0, VOCABULARY, (count, length)))
        self.labelled = labelled if labelled is not None else [length - 1] * count
        self.seed, self.shuffle = seed, shuffle
        self.set_epoch(0)

    def set_epoch(self, epoch):
        count = len(self.tokens)
        self.order = np.random.default_rng([self.seed, epoch]).permutation(count)
        if not self.shuffle:
            self.order = np.arange(count)

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, row):
        number = self.order[row]
        labels = self.tokens[number].clone()
        labels[: len(labels) - self.labelled[number]] = -100
        return {
            "input_ids": self.tokens[number],
            "labels": labels,
            "document_ids": torch.zeros_like(labels),
        }

    def record_ids(self, row):
        return [100 + int(self.order[row])]


def tiny_model(seed=0, **changes):
    """A model of one narrow layer; the same seed gives the same weights."""
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
    }
    torch.manual_seed(seed)
    return MiniMind(ModelConfig(**(shape | changes)))


def settings(out_dir, **changes):
    """Training settings for a CPU in float32, with every step in the log."""
    plain = {"batch_size": 2, "learning_rate": 1e-2, "warmup_iters": 2, "log_interval": 1, "dtype": "float32"}
    return TrainConfig(out_dir=str(out_dir), device="cpu", **(plain | changes))


def train(out_dir, model=None, rows=None, loss=causal_lm_loss, validation_data=None, **changes):
    """Train a tiny model; returns it with the result of ``fit``."""
    model = model or tiny_model()
    rows = rows or ToyRows()
    config = settings(out_dir, **changes)
    result = fit(model, loss, rows, config, validation_data, data_identity="toy", progress=False)
    return model, result


def weights(model):
    """A copy of all weights in one vector (P,)."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).clone()


class CallCounter:
    """A loss that does something at its n-th call (counted from 1), and is the usual loss otherwise."""

    def __init__(self, at, action):
        self.at, self.action, self.calls = at, action, 0

    def __call__(self, model, batch):
        self.calls += 1
        loss, numbers = causal_lm_loss(model, batch)
        if self.calls == self.at:
            changed = self.action(loss)
            loss = loss if changed is None else changed
        return loss, numbers
