"""Supervised fine-tuning: learn to answer. Only the assistant's tokens and their end token are labelled."""

from collections.abc import Callable
from dataclasses import dataclass

from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.stages.setup import (
    StageConfig,
    StageResult,
    check_before_work,
    load_model,
    read_records,
    train_stage,
)


@dataclass
class SFTConfig(StageConfig):
    """Settings of supervised fine-tuning; ``from_weight`` names the pretrained model."""

    out_dir: str = "out/sft"
    from_weight: str = "out/pretrain"
    epochs: int = 16
    batch_size: int = 16
    learning_rate: float = 1e-3
    min_lr_ratio: float = 0.0


def sft(
    config: SFTConfig,
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> StageResult:
    """Fine-tune all weights of a pretrained model on conversations.

    Raises:
        ValueError: a setting makes no sense, or ``from_weight`` holds no model.
        DataError, CheckpointError, NonFiniteLossError, Interrupted: as they say.
    """
    check_before_work(config)
    records = read_records(config, "sft", "sft.jsonl", progress)
    model, tokenizer = load_model(config.from_weight)
    return train_stage(config, "sft", records, model, tokenizer, causal_lm_loss, progress, on_log)
