"""Pretraining: predict the next token of every document.

The loss is the mean of -ln p(next token) over all labelled tokens, in nats; for a freshly initialised model
it is close to ln(vocabulary size).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from minimind_edu.config import ModelConfig
from minimind_edu.data.packing import IGNORE_INDEX
from minimind_edu.data.records import Records
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.setup import (
    StageConfig,
    StageResult,
    check_before_work,
    load_model,
    progress_callback,
    read_records,
    train_stage,
)
from minimind_edu.tokenizer import Tokenizer, load_tokenizer, train_fast
from minimind_edu.training import Batch


@dataclass
class ShapeConfig(StageConfig):
    """Settings of a stage that can begin with a new model.

    Args:
        preset: the shape of the model; the settings below change parts of it where they are not 0.
        hidden_size: width of the model.
        num_hidden_layers: number of layers.
        num_attention_heads: number of query heads.
        num_key_value_heads: number of key/value heads.
        use_moe: 1 for the preset's mixture-of-experts sibling.
        dropout: share of activations set to zero in training.
    """

    preset: str = "edu"
    hidden_size: int = 0
    num_hidden_layers: int = 0
    num_attention_heads: int = 0
    num_key_value_heads: int = 0
    use_moe: int = 0
    dropout: float = 0.0
    optimizer: Literal["adamw", "muon"] = "muon"
    learning_rate: float = 1e-2
    min_lr_ratio: float = 0.0
    epochs: int = 4
    batch_size: int = 16

    def model_config(self, vocab_size: int, preset: ModelConfig | None = None) -> ModelConfig:
        """The model's shape for a tokenizer of ``vocab_size`` entries.

        Args:
            preset: a shape in place of the one that the setting ``preset`` names.

        Raises:
            ValueError: no such preset, or sizes that do not go together.
        """
        sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        changes = {name: getattr(self, name) for name in sizes if getattr(self, name)}
        preset = preset or self.preset_config()
        length = max(preset.max_position_embeddings, self.max_seq_len)
        return preset.replace(
            vocab_size=vocab_size, dropout=self.dropout, max_position_embeddings=length, **changes
        )

    def preset_config(self) -> ModelConfig:
        """The shape that ``preset`` names, before the other settings change it."""
        name = f"{self.preset}-moe" if self.use_moe and not self.preset.endswith("-moe") else self.preset
        presets = ModelConfig.presets()
        if self.preset in presets and name not in presets:
            siblings = ", ".join(one.removesuffix("-moe") for one in presets if one.endswith("-moe"))
            raise ValueError(
                f"--use_moe 1: {self.preset} has no mixture-of-experts sibling; these have: {siblings}"
            )
        return ModelConfig.preset(name)


@dataclass
class PretrainConfig(ShapeConfig):
    """Settings of pretraining.

    Args:
        tokenizer_path: folder of a tokenizer, a tokenizer.json or BERT's vocab.txt; empty trains one on the
            data.
        vocab_size: vocabulary of the tokenizer that is trained; a small text may not fill it.
    """

    tokenizer_path: str = ""
    vocab_size: int = 2000
    out_dir: str = "out/pretrain"


def causal_lm_loss(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, Mapping[str, object]]:
    """Next-token cross-entropy of a packed batch, plus the router's balance loss where there is one.

    The output head is applied to labelled positions only: in SFT that is less than half of them, and the
    head is the largest matrix of a small model.

    Args:
        batch: ``input_ids``, ``labels``, ``document_ids``, each (B, T); labels are not shifted.

    Returns:
        The loss (a scalar; 0 without labelled tokens) and the numbers that the loop wants.
    """
    hidden, aux_loss = model.hidden_states(batch["input_ids"], document_ids=batch["document_ids"])
    targets = batch["labels"][:, 1:]
    labelled = targets != IGNORE_INDEX
    logits = model.head(hidden[:, :-1][labelled])
    total = F.cross_entropy(logits.float(), targets[labelled], reduction="sum")
    tokens = int(labelled.sum())
    loss = total / max(tokens, 1)
    numbers: dict[str, object] = {"tokens": tokens}
    if model.config.use_moe:
        numbers["aux_loss"] = aux_loss
        if model.training:  # a validation loss is cross-entropy only, comparable with a dense model's
            numbers["cross_entropy"] = loss
            loss = loss + aux_loss
    return loss, numbers


def pretrain(
    config: PretrainConfig,
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> StageResult:
    """Train a model from random weights, or from ``from_weight``, on documents or plain text.

    Raises:
        ValueError: a setting makes no sense.
        DataError, TokenizerError, CheckpointError, NonFiniteLossError, Interrupted: as they say.
    """
    check_before_work(config)
    records = read_records(config, "pretrain", "pretrain.jsonl", progress)
    if config.from_weight:
        model, tokenizer = load_model(config.from_weight)
    else:
        tokenizer = choose_tokenizer(config, records, progress)
        torch.manual_seed(config.seed)
        model = MiniMind(config.model_config(tokenizer.vocab_size))
    return train_stage(config, "pretrain", records, model, tokenizer, causal_lm_loss, progress, on_log)


def choose_tokenizer(config: PretrainConfig, records: Records, progress: bool) -> Tokenizer:
    """The tokenizer that ``tokenizer_path`` names, or one trained on the records.

    Training is deterministic, so a resumed run gets the same one.
    """
    if config.tokenizer_path:
        return load_tokenizer(config.tokenizer_path)
    with progress_callback("reading text for the tokenizer", progress) as report:
        return train_fast(_texts(records, report), config.vocab_size, split_digits=True)


def _texts(records: Records, report: Callable[[int, int], None]) -> Iterator[str]:
    done = 0
    for batch in records.batches(1_000):
        yield from batch["text"]
        done += len(batch["text"])
        report(done, len(records))
